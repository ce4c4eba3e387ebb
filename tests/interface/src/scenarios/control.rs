// SPDX-License-Identifier: GPL-2.0

//! `/dev/loop-control`.

use super::{attach, devices, file, Log, Outcomes, Session};
use crate::{
    sys::{self, Abi},
    uapi::*,
    world::{context, name, open, read, Setup, World, SIZE},
};
use libc::{O_RDONLY, O_RDWR};
use nix::errno::Errno;
use std::{
    fs,
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, PermissionsExt},
    },
    path::Path,
};

pub fn add(_: &Session, world: &World) -> Setup<Outcomes> {
    let mut log = Log::default();
    let add = |nr: u64| world.control(LOOP_CTL_ADD, nr as usize);

    log.ret("5", add(5));
    log.ret("5 again", add(5));
    log.ret("-1", add(u64::MAX));
    log.ret("-1 again", add(u64::MAX));
    log.ret("-2", add(u64::MAX - 1));
    log.ret("the least", add(i32::MIN as u64));
    log.ret("0 of 64 bits", add(1 << 32));
    log.ret("7 of 64 bits", add((1 << 32) | 7));
    log.say("there are", devices());
    log.ret("the last", add((1 << 20) - 1));
    log.say(
        "its number",
        read(world, &World::sysfs((1 << 20) - 1).join("dev")),
    );
    log.ret("removing it", world.control(LOOP_CTL_REMOVE, (1 << 20) - 1));
    log.ret("beyond the last", add(1 << 20));
    log.ret("far beyond", add(1 << 30));
    log.ret("the largest", add(i32::MAX as u64));
    log.ret(
        "removing a device that was not added",
        world.control(LOOP_CTL_REMOVE, 1 << 20),
    );
    let compat = |arg| sys::ioctl(Abi::Compat, world.control.as_raw_fd(), LOOP_CTL_ADD, arg);
    if sys::has_compat() {
        log.ret("32-bit 6", compat(6));
        log.ret("32-bit 6 again", compat(6));
        log.ret("32-bit -1", compat(u32::MAX as usize));
    }
    log.say("devices at the end", devices());
    Ok(log.0)
}

pub fn remove(_: &Session, world: &World) -> Setup<Outcomes> {
    let mut log = Log::default();
    let remove = |nr: u64| world.control(LOOP_CTL_REMOVE, nr as usize);

    for (what, nr) in [
        ("-1", u64::MAX),
        ("the least", i32::MIN as u64),
        ("missing", 3),
        ("huge", 1 << 20),
        ("the largest", i32::MAX as u64),
    ] {
        log.ret(what, remove(nr));
    }
    world.add(3)?;
    let fd = World::open_loop(3, O_RDONLY)?;
    log.ret("open", remove(3));
    drop(fd);
    let backing = file(world, "backing", SIZE, O_RDWR)?;
    let fd = attach(world, 3, &backing, 0)?;
    log.ret("bound and open", remove(3));
    drop(fd);
    log.ret("bound", remove(3));
    let fd = World::open_loop(3, O_RDWR)?;
    log.ret("LOOP_CLR_FD", world.ioctl(fd.as_raw_fd(), LOOP_CLR_FD, 0));
    log.ret("clearing", remove(3));
    drop(fd);
    log.ret("cleared", remove(3));
    log.ret("removed", remove(3));
    world.add(3)?;
    log.ret("with high bits", remove((1 << 32) | 3));
    world.add(3)?;
    if sys::has_compat() {
        let compat = |arg| sys::ioctl(Abi::Compat, world.control.as_raw_fd(), LOOP_CTL_REMOVE, arg);
        log.ret("32-bit", compat(3));
        log.ret("32-bit missing", compat(3));
        log.ret("32-bit -1", compat(u32::MAX as usize));
    }
    log.say("there are", devices());
    Ok(log.0)
}

pub fn get_free(_: &Session, world: &World) -> Setup<Outcomes> {
    let mut log = Log::default();
    let free = || world.control(LOOP_CTL_GET_FREE, 0);
    let backing = file(world, "backing", SIZE, O_RDWR)?;

    log.ret("none there", free());
    log.ret("one there", free());
    log.say("there are", devices());
    let first = attach(world, 0, &backing, 0)?;
    log.ret("it's bound", free());
    let opened = World::open_loop(1, O_RDONLY)?;
    log.ret("the free one is open", free());
    world.add(4)?;
    let second = attach(world, 1, &backing, 0)?;
    drop(opened);
    log.ret("the lowest", free());
    let third = attach(world, 4, &backing, 0)?;
    log.ret("the lowest new", free());
    log.ret("clear", world.ioctl(first.as_raw_fd(), LOOP_CLR_FD, 0));
    log.ret("clearing", free());
    drop(first);
    log.ret("cleared", free());
    log.ret("an argument", world.control(LOOP_CTL_GET_FREE, usize::MAX));
    if sys::has_compat() {
        let fd = world.control.as_raw_fd();
        log.ret("32-bit", sys::ioctl(Abi::Compat, fd, LOOP_CTL_GET_FREE, 0));
    }
    log.say("devices at the end", devices());
    drop((second, third));
    Ok(log.0)
}

pub fn others(_: &Session, world: &World) -> Setup<Outcomes> {
    let mut log = Log::default();
    let fd = world.control.as_raw_fd();

    let abis = if sys::has_compat() {
        &[Abi::Native, Abi::Compat][..]
    } else {
        &[Abi::Native]
    };
    for &abi in abis {
        for cmd in [
            0,
            0x4c7f,
            0x4c83,
            0x4cff,
            LOOP_SET_FD,
            LOOP_CONFIGURE,
            BLKGETSIZE64,
            0x5401,
        ] {
            log.ret(format!("{abi:?} {cmd:#x}"), sys::ioctl(abi, fd, cmd, 0));
        }
    }
    let mut byte = [0u8];
    // SAFETY: There is a byte to read into, or to write from.
    let (read_it, wrote, sought) = unsafe {
        (
            libc::read(fd, byte.as_mut_ptr().cast(), 1),
            Errno::result(libc::write(fd, byte.as_ptr().cast(), 1)),
            Errno::result(libc::lseek(fd, 100, libc::SEEK_SET)),
        )
    };
    log.say("read", format!("{:?}", Errno::result(read_it)));
    log.say("write", format!("{wrote:?}"));
    log.say("lseek", format!("{sought:?}"));
    for (what, flags) in [
        ("O_RDONLY", O_RDONLY),
        ("O_WRONLY", libc::O_WRONLY),
        ("3", 3),
    ] {
        match open("/dev/loop-control", flags) {
            Ok(fd) => log.ret(
                what,
                sys::ioctl(Abi::Native, fd.as_raw_fd(), LOOP_CTL_GET_FREE, 0),
            ),
            Err(errno) => log.say(what, format!("{errno:?}")),
        }
    }
    log.say(
        "unprivileged",
        sys::unprivileged(|| {
            let opened = open("/dev/loop-control", O_RDWR).map(|_| ());
            format!("{opened:?} {}", name(world.control(LOOP_CTL_ADD, 5)))
        }),
    );
    let meta = fs::metadata("/dev/loop-control").map_err(context("stat"))?;
    log.say(
        "node",
        format!("{:o} {:#x}", meta.permissions().mode(), meta.rdev()),
    );
    let misc = Path::new("/sys/class/misc/loop-control");
    log.say(
        "sysfs",
        format!(
            "{} {}",
            read(world, &misc.join("dev")),
            read(world, &misc.join("uevent"))
        ),
    );
    let of = |path, word: &str| -> String {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines()
            .filter(|line| line.contains(word))
            .collect::<Vec<_>>()
            .join(";")
    };
    log.say("/proc/misc", of("/proc/misc", "loop"));
    log.say("/proc/devices", of("/proc/devices", "loop"));
    Ok(log.0)
}
