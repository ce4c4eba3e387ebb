// SPDX-License-Identifier: GPL-2.0

//! Backing files: their size, loop devices as backing files, their names.

use super::{attach, bytes_of, file, Log, Outcomes, Session};
use crate::{
    ops, states,
    uapi::*,
    world::{context, name, open, read, Setup, World, SIZE},
};
use libc::{O_RDONLY, O_RDWR};
use nix::errno::Errno;
use std::{
    fs::{self, File},
    os::fd::{AsRawFd, OwnedFd, RawFd},
    path::Path,
};

pub fn sizes(_: &Session, world: &World) -> Setup<Outcomes> {
    let mut log = Log::default();
    let backing = file(world, "backing", SIZE, O_RDWR)?;
    let fd = attach(world, 0, &backing, 0)?;
    let raw = fd.as_raw_fd();

    for size in [
        SIZE + 4096,
        SIZE + 4096 + 511,
        SIZE + 4096 + 512,
        2 * SIZE,
        512,
        511,
        0,
        SIZE,
    ] {
        nix::unistd::ftruncate(&backing, size as i64).map_err(context("truncate"))?;
        let before = bytes_of(world, &fd);
        log.ret(
            format!("capacity {size}"),
            world.ioctl(raw, LOOP_SET_CAPACITY, 0),
        );
        let end = bytes_of(world, &fd);
        log.say(
            format!("size {size}"),
            format!(
                "{before} -> {end}, {}, {}",
                ops::read_at(raw, 4096, end as i64 - 512),
                ops::read_at(raw, 4096, end as i64),
            ),
        );
    }
    // Reads at the start and at the end, with an offset and a size limit.
    for (offset, sizelimit) in [
        (0, 4096),
        (4096, 4096),
        (512, 1000),
        (SIZE - 512, 0),
        (SIZE, 0),
        (2 * SIZE, 512),
    ] {
        let info = LoopInfo64 {
            offset,
            sizelimit,
            ..LoopInfo64::zeroed()
        };
        let ret = world.ioctl_with(raw, LOOP_SET_STATUS64, &info).0;
        let end = bytes_of(world, &fd) as i64;
        log.say(
            format!("offset {offset} limit {sizelimit}"),
            format!(
                "{} {end}, {}, {}",
                name(ret),
                ops::read_at(raw, 4096, 0),
                ops::read_at(raw, 4096, end),
            ),
        );
    }
    Ok(log.0)
}

pub fn recursion(_: &Session, world: &World) -> Setup<Outcomes> {
    let mut log = Log::default();
    let backing = file(world, "backing", SIZE, O_RDWR)?;
    let set = |upper: &OwnedFd, lower: &OwnedFd| {
        world.ioctl(upper.as_raw_fd(), LOOP_SET_FD, lower.as_raw_fd() as usize)
    };
    let change = |upper: &OwnedFd, lower: &OwnedFd| {
        world.ioctl(
            upper.as_raw_fd(),
            LOOP_CHANGE_FD,
            lower.as_raw_fd() as usize,
        )
    };
    for nr in 0..4 {
        world.add(nr)?;
    }
    let all: Vec<OwnedFd> = (0..4)
        .map(|nr| World::open_loop(nr, O_RDWR))
        .collect::<Setup<_>>()?;
    log.ret("0 on a file", set(&all[0], &backing));
    log.ret("1 on 0", set(&all[1], &all[0]));
    log.ret("2 on 1", set(&all[2], &all[1]));
    log.say("2 reads", ops::read_at(all[2].as_raw_fd(), 4096, 0));
    let (ret, info) =
        world.ioctl_with(all[2].as_raw_fd(), LOOP_GET_STATUS64, &LoopInfo64::zeroed());
    log.say("2's status", format!("{} {:#x}", name(ret), info.rdevice));
    log.ret("0 on 2, bound", set(&all[0], &all[2]));
    log.ret("3 on 3", set(&all[3], &all[3]));
    // A cycle through a device that is being cleared.
    log.ret(
        "0 cleared under the others",
        world.ioctl(all[0].as_raw_fd(), LOOP_CLR_FD, 0),
    );
    log.say("2 reads still", {
        let _ = world.ioctl(all[2].as_raw_fd(), BLKFLSBUF, 0);
        ops::read_at(all[2].as_raw_fd(), 4096, 4096)
    });
    log.ret("3 on 2, of a chain to be cleared", set(&all[3], &all[2]));
    log.ret("3 cleared", world.ioctl(all[3].as_raw_fd(), LOOP_CLR_FD, 0));
    log.ret("2 cleared", world.ioctl(all[2].as_raw_fd(), LOOP_CLR_FD, 0));
    log.ret("0 on 2, clearing", set(&all[0], &all[2]));
    drop(all);
    for nr in [3, 2, 1, 0] {
        world.remove(nr)?;
    }

    // Cycles by LOOP_CHANGE_FD, which needs read-only devices: 1 on 0, then 0 on 1.
    let zero = attach(world, 0, &backing, LO_FLAGS_READ_ONLY)?;
    let lower = World::open_loop(0, O_RDONLY)?;
    let one = attach(world, 1, &lower, LO_FLAGS_READ_ONLY)?;
    let upper = World::open_loop(1, O_RDONLY)?;
    log.ret("change 0 to 1, a cycle", change(&zero, &upper));
    log.ret("change 0 to 0", change(&zero, &lower));
    log.ret("change 1 to 1", change(&one, &upper));
    world.add(2)?;
    let two = World::open_loop(2, O_RDONLY)?;
    log.ret("change 0 to one that is not bound", change(&zero, &two));
    log.ret("set 2 to 1", set(&two, &upper));
    log.ret("change 2 to 0", change(&two, &lower));
    log.say("2 reads in the end", ops::read_at(two.as_raw_fd(), 4096, 0));
    drop((two, upper, one, lower, zero));
    for nr in [2, 1, 0] {
        world.remove(nr)?;
    }

    // A partition of a loop device is not detected as a loop device.
    states::write_table(&world.dir.join("backing"))?;
    let zero = attach(world, 0, &backing, LO_FLAGS_PARTSCAN)?;
    let part = open("/dev/loop0p1", O_RDWR).map_err(context("p1"))?;
    world.add(1)?;
    let one = World::open_loop(1, O_RDWR)?;
    log.ret("1 on a partition of 0", set(&one, &part));
    log.say("its size", bytes_of(world, &one).to_string());
    drop((one, part));
    world.remove(1)?;
    drop(zero);
    Ok(log.0)
}

pub fn backing_names(_: &Session, world: &World) -> Setup<Outcomes> {
    let mut log = Log::default();
    let attr = World::sysfs(0).join("loop/backing_file");
    let mut show = |what: &str, dir: &Path, name: &str| -> Setup<()> {
        let path = dir.join(name);
        let made = File::create(&path).and_then(|file| file.set_len(SIZE));
        made.map_err(context(what))?;
        let file = open(&path, O_RDWR).map_err(context(what))?;
        let fd = attach(world, 0, &file, 0)?;
        let text = read(world, &attr);
        let text = if text.len() > 300 {
            format!("{} {}", text.len(), &text[text.len() - 20..])
        } else {
            text
        };
        log.say(what, text);
        if what == "plain" {
            fs::rename(&path, dir.join("renamed")).map_err(context(what))?;
            log.say("renamed", read(world, &attr));
            fs::remove_file(dir.join("renamed")).map_err(context(what))?;
            log.say("removed", read(world, &attr));
        }
        let _ = world.ioctl(fd.as_raw_fd(), LOOP_CLR_FD, 0);
        drop(fd);
        Ok(())
    };
    show("plain", &world.dir, "plain")?;
    show("spaces", &world.dir, " a b ")?;
    show("a newline", &world.dir, "a\nb\tc\\d")?;
    show("not ASCII", &world.dir, "\u{e9}\u{1f600}")?;
    // Up to the longest path. The files are opened relative to their directory: the path is too
    // long for open().
    let here = std::env::current_dir().map_err(context("cwd"))?;
    std::env::set_current_dir(&world.dir).map_err(context("chdir"))?;
    const PART: usize = 200;
    let room = 4096 - world.dir.as_os_str().len();
    let parts = (room - 50) / (PART + 1);
    let deep = || -> Setup<()> {
        for _ in 0..parts {
            let part = "d".repeat(PART);
            fs::create_dir(&part).map_err(context("mkdir"))?;
            std::env::set_current_dir(&part).map_err(context("chdir"))?;
        }
        Ok(())
    };
    // With a name of `left` characters the path, with its null byte, fills a page.
    let left = room - parts * (PART + 1);
    let result = deep().and_then(|()| {
        show("a long path", Path::new(""), "f")?;
        for less in (0..8).rev() {
            show(
                &format!("a page, less {less}"),
                Path::new(""),
                &"f".repeat(left - less),
            )?;
        }
        Ok(())
    });
    std::env::set_current_dir(here).map_err(context("chdir"))?;
    result?;
    fs::remove_dir_all(world.dir.join("d".repeat(PART))).map_err(context("rm"))?;
    // A file without a path.
    // SAFETY: The name is a string.
    let memfd = unsafe { libc::memfd_create(c"a memfd".as_ptr(), libc::MFD_CLOEXEC) };
    let memfd = File::from(owned_fd(memfd)?);
    memfd.set_len(SIZE).map_err(context("memfd"))?;
    let fd = attach(world, 0, &memfd.into(), 0)?;
    log.say("memfd", read(world, &attr));
    drop(fd);
    Ok(log.0)
}

/// Takes ownership of a descriptor that was created just now.
fn owned_fd(fd: RawFd) -> Setup<OwnedFd> {
    use std::os::fd::FromRawFd;

    let fd = Errno::result(fd).map_err(context("a file"))?;
    // SAFETY: The caller created it and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
