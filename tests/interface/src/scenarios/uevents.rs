// SPDX-License-Identifier: GPL-2.0

//! The uevents of a device.

use super::{file, with_flags, Log, Outcomes, Session};
use crate::{
    states,
    uapi::*,
    world::{context, Setup, World, SIZE},
};
use libc::O_RDWR;
use std::os::fd::{AsRawFd, OwnedFd};

/// From `LOOP_CTL_ADD` to `LOOP_CTL_REMOVE`.
pub fn attach_to_detach(_: &Session, world: &World) -> Setup<Outcomes> {
    let mut log = Log::default();
    let backing = file(world, "backing", SIZE, O_RDWR)?;
    states::write_table(&world.dir.join("backing"))?;
    let other = file(world, "other", SIZE, O_RDWR)?;
    let bare = |log: &mut Log, what: &str| log.event(world, what, Ok(0));

    log.event(world, "add", world.control(LOOP_CTL_ADD, 0));
    let fd = World::open_loop(0, O_RDWR)?;
    bare(&mut log, "open");
    let raw = fd.as_raw_fd();
    let set = |flags, offset| {
        let info = LoopInfo64 {
            flags,
            offset,
            ..LoopInfo64::zeroed()
        };
        world.ioctl_with(raw, LOOP_SET_STATUS64, &info).0
    };
    let configure = |flags| {
        let config = LoopConfig {
            fd: backing.as_raw_fd() as u32,
            ..with_flags(flags)
        };
        world.ioctl_with(raw, LOOP_CONFIGURE, &config).0
    };
    log.event(world, "configure", configure(0));
    log.event(world, "a second time", configure(0));
    log.event(
        world,
        "set capacity, the same",
        world.ioctl(raw, LOOP_SET_CAPACITY, 0),
    );
    nix::unistd::ftruncate(&backing, 2 * SIZE as i64).map_err(context("truncate"))?;
    log.event(
        world,
        "set capacity, more",
        world.ioctl(raw, LOOP_SET_CAPACITY, 0),
    );
    log.event(world, "set status, the same", set(0, 0));
    log.event(world, "set status, an offset", set(0, 4096));
    log.event(world, "set status, no offset", set(0, 0));
    log.event(world, "set status, a scan", set(LO_FLAGS_PARTSCAN, 0));
    log.event(world, "set status, a scan again", set(LO_FLAGS_PARTSCAN, 0));
    log.event(world, "rescan", world.ioctl(raw, BLKRRPART, 0));
    log.event(
        world,
        "set block size",
        world.ioctl(raw, LOOP_SET_BLOCK_SIZE, 4096),
    );
    log.event(world, "set direct", world.ioctl(raw, LOOP_SET_DIRECT_IO, 1));
    let change = |fd: &OwnedFd| world.ioctl(raw, LOOP_CHANGE_FD, fd.as_raw_fd() as usize);
    log.event(world, "change fd, refused", change(&other));
    log.event(world, "clear", world.ioctl(raw, LOOP_CLR_FD, 0));
    drop(fd);
    bare(&mut log, "last close");
    let fd = World::open_loop(0, O_RDWR)?;
    let raw = fd.as_raw_fd();
    bare(&mut log, "open again");
    nix::unistd::ftruncate(&backing, SIZE as i64).map_err(context("truncate"))?;
    let configure = |flags| {
        let config = LoopConfig {
            fd: backing.as_raw_fd() as u32,
            ..with_flags(flags)
        };
        world.ioctl_with(raw, LOOP_CONFIGURE, &config).0
    };
    log.event(
        world,
        "configure read-only, with a scan",
        configure(LO_FLAGS_READ_ONLY | LO_FLAGS_PARTSCAN),
    );
    let change = |fd: &OwnedFd| world.ioctl(raw, LOOP_CHANGE_FD, fd.as_raw_fd() as usize);
    log.event(world, "change fd", change(&other));
    log.event(world, "change fd back", change(&backing));
    log.event(world, "clear", world.ioctl(raw, LOOP_CLR_FD, 0));
    drop(fd);
    bare(&mut log, "last close with partitions");
    log.event(world, "remove", world.control(LOOP_CTL_REMOVE, 0));
    Ok(log.0)
}
