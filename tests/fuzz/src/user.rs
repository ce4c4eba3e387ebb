// SPDX-License-Identifier: GPL-2.0

//! A user without privileges can look at devices, but not change them.

use crate::{
    files,
    lane::{self, Lane, Process, World},
    ops::{self, Op, KINDS},
    progress::Progress,
    sys::{self, Abi, Arena},
    uapi::{self, LoopConfig, LoopInfo64, Plain},
    Options, Report,
};
use nix::{
    errno::Errno::{self, *},
    sys::wait::{waitpid, WaitPidFlag, WaitStatus},
    unistd::{fork, setgroups, setresgid, setresuid, ForkResult, Gid, Uid},
};
use std::{
    fs,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    sync::{atomic::Ordering::Relaxed, Arc},
    thread::sleep,
    time::Duration,
};

const NOBODY: u32 = 65534;
/// An attached device, and an unbound one.
const BOUND: u32 = 0;
const UNBOUND: u32 = 1;

/// The errors of calls that would change a device, on a descriptor for reading.
pub fn denied(op: &Op) -> Option<&'static [Errno]> {
    Some(match op {
        Op::Device(_, _, cmd, _) => match *cmd {
            uapi::LOOP_SET_STATUS
            | uapi::LOOP_SET_STATUS64
            | uapi::LOOP_SET_CAPACITY
            | uapi::LOOP_SET_DIRECT_IO
            | uapi::LOOP_SET_BLOCK_SIZE => &[EPERM],
            uapi::BLKROSET
            | uapi::BLKRASET
            | uapi::BLKFRASET
            | uapi::BLKFLSBUF
            | uapi::BLKRRPART
            | uapi::BLKBSZSET
            | uapi::BLKBSZSET_32 => &[EACCES],
            uapi::BLKPG => &[EACCES, EFAULT],
            uapi::BLKZEROOUT => &[EBADF, EFAULT],
            // The block layer checks first whether the device supports discards.
            uapi::BLKDISCARD | uapi::BLKSECDISCARD => &[EBADF, EFAULT, EOPNOTSUPP],
            // Neither driver checks privileges here: the device is attached and writable.
            uapi::LOOP_SET_FD | uapi::LOOP_CONFIGURE => &[EBUSY, EBADF, EFAULT, EINVAL],
            uapi::LOOP_CHANGE_FD => &[EBADF, EINVAL, ENXIO],
            _ => &[EBADF, EINVAL, ENOTTY],
        },
        Op::Fallocate(..) => &[EBADF, EINVAL],
        _ => return None,
    })
}

/// Whether the user makes that call. Neither driver checks privileges for attaching and
/// detaching: a task that can open a device for reading can do both.
fn is_for_users(op: &Op, bound: bool) -> bool {
    match op {
        Op::Device(_, _, uapi::LOOP_CLR_FD, _) => false,
        Op::Device(_, _, uapi::LOOP_SET_FD | uapi::LOOP_CONFIGURE, _) => bound,
        Op::Device(..) | Op::Get(..) | Op::Io(..) | Op::Fallocate(..) => true,
        Op::Open(..)
        | Op::Close(..)
        | Op::CloseAll
        | Op::Control(..)
        | Op::Resize(..)
        | Op::Sysfs(..) => false,
    }
}

/// The state of the devices and backing files that a user can see.
fn snapshot(world: &World, fds: &[OwnedFd]) -> Result<Vec<String>, String> {
    let arena = Arena::new().map_err(|error| error.to_string())?;
    let mut seen = vec![format!("devices {:?}", files::devices())];
    let mut get = |fd: RawFd, cmd: u32, len: usize| {
        let address = arena.put(&vec![0; len], len);
        let ret = sys::ioctl(Abi::Native, fd, cmd, address);
        seen.push(format!("{cmd:#x}: {ret:?} {:x?}", arena.get(len)));
    };
    for fd in fds {
        get(
            fd.as_raw_fd(),
            uapi::LOOP_GET_STATUS64,
            size_of::<LoopInfo64>(),
        );
        for (cmd, len, _) in ops::GETS.iter().filter(|(_, len, _)| *len > 0) {
            get(fd.as_raw_fd(), *cmd, *len);
        }
    }
    for name in ["plain", "twin", "odd", "table", "empty"] {
        let bytes = fs::read(world.dir.join(name)).map_err(|error| error.to_string())?;
        let sum = bytes.iter().fold(0u64, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(u64::from(*byte))
        });
        seen.push(format!("{name}: {} bytes, {sum:x}", bytes.len()));
    }
    Ok(seen)
}

/// Tries to open devices and their attributes by name, which must fail with EACCES.
fn by_name() -> Vec<String> {
    let mut wrong = Vec::new();
    let mut refused = |what: String, ret: Result<OwnedFd, Errno>| match ret {
        Err(EACCES) => (),
        other => wrong.push(format!("{what}: {:?}", other.map(|_| "opened"))),
    };
    for path in ["/dev/loop-control", "/dev/loop0", "/dev/loop1"] {
        for flags in [
            libc::O_RDONLY,
            libc::O_RDWR,
            libc::O_WRONLY,
            libc::O_RDONLY | libc::O_EXCL,
        ] {
            refused(format!("open {path} {flags:#o}"), lane::open(path, flags));
        }
    }
    for name in ["ro", "queue/read_ahead_kb", "uevent", "loop/autoclear"] {
        let path = format!("/sys/block/loop{BOUND}/{name}");
        refused(format!("open {path}"), lane::open(&path, libc::O_WRONLY));
    }
    wrong
}

/// Drops all privileges and makes the calls.
fn child(options: &Options, world: &World, fds: Vec<OwnedFd>) -> Result<(), String> {
    let process = Process::new(world);
    let mut lanes = [0, 1].map(|index| Lane::new(&process, index, 0));
    let id = |what: &str| {
        let what = what.to_string();
        move |errno: Errno| format!("{what}: {errno}")
    };
    setgroups(&[]).map_err(id("setgroups"))?;
    let gid = Gid::from_raw(NOBODY);
    setresgid(gid, gid, gid).map_err(id("setresgid"))?;
    let uid = Uid::from_raw(NOBODY);
    setresuid(uid, uid, uid).map_err(id("setresuid"))?;

    let wrong = by_name();
    if !wrong.is_empty() {
        return Err(wrong.join("; "));
    }
    for (index, fd) in fds.into_iter().enumerate() {
        let lane = match &mut lanes[index] {
            Ok(lane) => lane,
            Err(error) => return Err(error.to_string()),
        };
        process.fill_slots(&Arc::new(fd));
        lane.run_if(
            options.calls / 2,
            |op| is_for_users(op, index == BOUND as usize),
            denied,
        );
    }
    Ok(())
}

pub fn run(
    options: &Options,
    world: &World,
    progress: &mut Progress,
    report: &mut Report,
) -> Result<(), String> {
    let control = files::control()?;
    for nr in [BOUND, UNBOUND] {
        let ret = sys::ioctl(
            Abi::Native,
            control.as_raw_fd(),
            uapi::LOOP_CTL_ADD,
            nr as usize,
        );
        if !matches!(ret, Ok(_) | Err(EEXIST)) {
            return Err(format!("LOOP_CTL_ADD {nr}: {ret:?}"));
        }
    }
    let open = |nr: u32, flags| {
        lane::open(format!("/dev/loop{nr}"), flags).map_err(|errno| format!("loop{nr}: {errno}"))
    };
    {
        let fd = open(BOUND, libc::O_RDWR)?;
        let file = lane::open(world.dir.join("plain"), libc::O_RDWR)
            .map_err(|errno| format!("plain: {errno}"))?;
        let arena = Arena::new().map_err(|error| error.to_string())?;
        let mut config = LoopConfig::zeroed();
        config.fd = file.as_raw_fd() as u32;
        let address = arena.put(&config.bytes(), size_of::<LoopConfig>());
        sys::ioctl(Abi::Native, fd.as_raw_fd(), uapi::LOOP_CONFIGURE, address)
            .map_err(|errno| format!("LOOP_CONFIGURE: {errno}"))?;
    }
    let fds = vec![open(BOUND, libc::O_RDONLY)?, open(UNBOUND, libc::O_RDONLY)?];
    let before = snapshot(world, &fds)?;
    let dup = |fd: &OwnedFd| fd.try_clone().map_err(|error| error.to_string());
    let inherited = vec![dup(&fds[0])?, dup(&fds[1])?];
    drop(control);
    // SAFETY: There is one thread.
    let end = match unsafe { fork() } {
        Ok(ForkResult::Parent { child }) => {
            drop(inherited);
            loop {
                match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
                    Ok(WaitStatus::StillAlive) => sleep(Duration::from_millis(10)),
                    end => break end,
                }
                progress.look(
                    [0, 1]
                        .map(|lane| world.shared.begun(lane).load(Relaxed))
                        .iter()
                        .sum(),
                );
            }
        }
        Ok(ForkResult::Child) => {
            let rc = child(options, world, inherited).map_or_else(
                |why| {
                    println!("# {why}");
                    1
                },
                |()| 0,
            );
            std::process::exit(rc);
        }
        Err(errno) => Err(errno),
    };
    let after = snapshot(world, &fds)?;
    drop(fds);
    let left = files::clean();

    let mut never = Vec::new();
    let mut calls = 0;
    for (index, kind) in KINDS.iter().enumerate() {
        let (succeeded, errors) = world.shared.counted(index);
        let failed: u32 = errors.iter().map(|(_, n)| n).sum();
        calls += succeeded + failed;
        let errors: Vec<String> = errors
            .iter()
            .map(|(errno, n)| format!("{errno:?} {n}"))
            .collect();
        if succeeded + failed > 0 {
            report.note(&format!(
                "{}: ok {succeeded} {}",
                kind.name,
                errors.join(" ")
            ));
        } else if kind.name.starts_with("LOOP_SET") || kind.name.starts_with("BLK") {
            never.push(format!("{}: never", kind.name));
        }
    }
    report.note(&format!("{calls} calls, seed {}", options.seed));
    let mut wrong = match end {
        Ok(WaitStatus::Exited(_, 0)) => Vec::new(),
        other => vec![format!("ended with {other:?}")],
    };
    report.case("a user cannot open a device", &wrong);
    wrong.clear();
    match world.shared.faults(crate::shared::Fault::Error) {
        0 => wrong.append(&mut never),
        n => wrong.push(format!("{n} times, see above")),
    }
    report.case("a descriptor for reading allows no change", &wrong);
    let changes: Vec<String> = before
        .iter()
        .zip(&after)
        .filter(|(one, other)| one != other)
        .map(|(one, other)| format!("{one} -> {other}"))
        .collect();
    report.case("nothing has changed", &changes);
    let odd = [crate::shared::Fault::Copied, crate::shared::Fault::Data]
        .iter()
        .map(|fault| world.shared.faults(*fault))
        .sum::<u32>();
    let odd = match odd {
        0 => Vec::new(),
        n => vec![format!("{n} times, see above")],
    };
    report.case("copied-out memory is initialized", &odd);
    report.case("all devices can be removed", &left);
    Ok(())
}
