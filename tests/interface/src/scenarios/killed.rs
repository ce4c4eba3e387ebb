// SPDX-License-Identifier: GPL-2.0

//! Calls that are killed while they wait for the lock of a device.

use super::{file, Log, Outcomes, Session};
use crate::{
    compare::SKIP,
    uapi::*,
    world::{context, open, Setup, World, SIZE},
};
use libc::{O_EXCL, O_RDONLY, O_RDWR};
use nix::{
    sys::{
        signal::{self, Signal},
        wait::{waitpid, WaitPidFlag, WaitStatus},
    },
    unistd::{fork, ForkResult, Pid},
};
use std::{
    fs,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::Command,
};

/// Runs `f` in a child process.
fn spawn(f: impl FnOnce() -> i32) -> Setup<Pid> {
    // SAFETY: This is the only thread.
    match unsafe { fork() }.map_err(context("fork"))? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let status = f();
            // SAFETY: This never returns.
            unsafe { libc::_exit(status) }
        }
    }
}

/// Whether a process sleeps in state D: uninterruptibly or killably.
fn is_waiting(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit(") ")
            .next()
            .is_some_and(|rest| rest.starts_with('D'))
    })
}

/// The exit status or signal of a child, if it has ended.
fn ended(pid: Pid) -> Option<String> {
    match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::StillAlive) => None,
        Ok(WaitStatus::Exited(_, status)) => Some(format!("exited {status}")),
        Ok(WaitStatus::Signaled(_, signal, _)) => Some(format!("{signal:?}")),
        other => Some(format!("{other:?}")),
    }
}

/// A device-mapper device.
struct MappedDevice {
    name: &'static str,
}

impl MappedDevice {
    fn new(table: &str) -> Setup<Self> {
        let this = Self {
            name: "loop_rs-interface",
        };
        Self::dmsetup(&["--noudevsync", "create", this.name, "--table", table])?;
        Self::dmsetup(&["mknodes", this.name])?;
        Ok(this)
    }

    fn dmsetup(args: &[&str]) -> Setup<()> {
        match Command::new("dmsetup").args(args).output() {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(format!(
                "dmsetup: {}",
                String::from_utf8_lossy(&output.stderr)
            )),
            Err(error) => Err(format!("{SKIP}dmsetup: {error}")),
        }
    }

    fn path(&self) -> PathBuf {
        Path::new("/dev/mapper").join(self.name)
    }

    fn suspend(&self) -> Setup<()> {
        Self::dmsetup(&["suspend", "--noflush", "--nolockfs", self.name])
    }

    fn resume(&self) {
        let _ = Self::dmsetup(&["--noudevsync", "resume", self.name]);
    }
}

impl Drop for MappedDevice {
    fn drop(&mut self) {
        self.resume();
        let _ = Self::dmsetup(&["--noudevsync", "remove", "--retry", self.name]);
        let _ = Self::dmsetup(&["mknodes", self.name]);
    }
}

/// Each call waits for the lock of a device: LOOP_CONFIGURE holds it and waits for a suspended
/// backing device.
pub fn killed_waiters(_: &Session, world: &World) -> Setup<Outcomes> {
    let ram = format!("/dev/ram{}", world.ram);
    if !Path::new(&ram).exists() {
        return Err(format!("{SKIP}no {ram}"));
    }
    let dm = MappedDevice::new(&format!("0 2048 linear {ram} 0"))?;
    let outcomes = killed_waiters_on(world, &dm);
    dm.resume();
    outcomes
}

fn killed_waiters_on(world: &World, dm: &MappedDevice) -> Setup<Outcomes> {
    const CALLS: &[(&str, u32)] = &[
        ("LOOP_GET_STATUS64", LOOP_GET_STATUS64),
        ("LOOP_GET_STATUS", LOOP_GET_STATUS),
        ("LOOP_SET_STATUS64", LOOP_SET_STATUS64),
        ("LOOP_SET_STATUS", LOOP_SET_STATUS),
        ("LOOP_SET_CAPACITY", LOOP_SET_CAPACITY),
        ("LOOP_SET_DIRECT_IO", LOOP_SET_DIRECT_IO),
        ("LOOP_SET_BLOCK_SIZE", LOOP_SET_BLOCK_SIZE),
        ("LOOP_CLR_FD", LOOP_CLR_FD),
        ("LOOP_CHANGE_FD", LOOP_CHANGE_FD),
        ("LOOP_CONFIGURE", LOOP_CONFIGURE),
        ("LOOP_SET_FD", LOOP_SET_FD),
        ("an unknown ioctl", 0x4cff),
        ("LOOP_CTL_REMOVE", LOOP_CTL_REMOVE),
        ("open", 0),
    ];
    let mut log = Log::default();
    let backing = file(world, "backing", SIZE, O_RDWR)?;
    world.add(0)?;
    // The holder of the lock opens the device exclusively. Otherwise LOOP_CONFIGURE would also
    // claim the device, and the calls would wait for that claim.
    let holder_fd = World::open_loop(0, O_RDWR | O_EXCL)?;
    let fd = World::open_loop(0, O_RDWR)?;
    let disk = open(dm.path(), O_RDWR).map_err(context("dm"))?;
    let mut config = LoopConfig {
        fd: disk.as_raw_fd() as u32,
        ..LoopConfig::zeroed()
    };
    config.info.flags = LO_FLAGS_DIRECT_IO;
    // LOOP_CONFIGURE waits for the writeback of this block.
    // SAFETY: The buffer has 4096 bytes.
    let wrote = unsafe { libc::pwrite(disk.as_raw_fd(), [1u8; 4096].as_ptr().cast(), 4096, 0) };
    if wrote != 4096 {
        return Err("pwrite".into());
    }
    dm.suspend()?;
    let holder = spawn(|| {
        match world
            .ioctl_with(holder_fd.as_raw_fd(), LOOP_CONFIGURE, &config)
            .0
        {
            Ok(_) => 0,
            Err(errno) => errno as i32,
        }
    })?;
    log.say(
        "the holder waits",
        world.wait(|| is_waiting(holder)).to_string(),
    );

    for &(what, cmd) in CALLS {
        let file = backing.as_raw_fd();
        let waiter = spawn(|| {
            let ret = match cmd {
                0 => open(World::loop_path(0), O_RDONLY).map(|_| 0),
                LOOP_CTL_REMOVE => world.control(cmd, 0),
                LOOP_CHANGE_FD | LOOP_SET_FD => world.ioctl(fd.as_raw_fd(), cmd, file as usize),
                LOOP_CONFIGURE => {
                    let config = LoopConfig {
                        fd: file as u32,
                        ..LoopConfig::zeroed()
                    };
                    world.ioctl_with(fd.as_raw_fd(), cmd, &config).0
                }
                LOOP_SET_BLOCK_SIZE => world.ioctl(fd.as_raw_fd(), cmd, 512),
                LOOP_SET_DIRECT_IO | LOOP_SET_CAPACITY | 0x4cff | LOOP_CLR_FD => {
                    world.ioctl(fd.as_raw_fd(), cmd, 1)
                }
                _ => {
                    world
                        .ioctl_with(fd.as_raw_fd(), cmd, &LoopInfo64::zeroed())
                        .0
                }
            };
            match ret {
                Ok(_) => 0,
                Err(errno) => errno as i32,
            }
        })?;
        let mut end = None;
        let mut ended_or_waiting = || {
            end = ended(waiter);
            end.is_some() || is_waiting(waiter)
        };
        let waited = world.wait(&mut ended_or_waiting) && end.is_none();
        let end = end.or_else(|| {
            let _ = signal::kill(waiter, Signal::SIGKILL);
            let mut end = None;
            world.wait(|| {
                end = ended(waiter);
                end.is_some()
            });
            end
        });
        log.say(
            what,
            format!("waited={waited} {}", end.unwrap_or("not killed".into())),
        );
    }
    dm.resume();
    let mut end = None;
    world.wait(|| {
        end = ended(holder);
        end.is_some()
    });
    log.say("the holder", end.unwrap_or("still waits".into()));
    drop((holder_fd, fd));
    world.remove(0)?;
    Ok(log.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_state_d() {
        let me = nix::unistd::getpid();
        assert!(!is_waiting(me));
    }
}
