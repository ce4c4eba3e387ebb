// SPDX-License-Identifier: GPL-2.0

//! Partitions: scans, `BLKPG`, open partitions, device numbers.

use super::{attach, bytes_of, file, Log, Outcomes, Session};
use crate::{
    compare::BROKEN,
    ops, states,
    sys::Ret,
    uapi::*,
    world::{context, name, open, read, Setup, World, SIZE},
};
use libc::{O_EXCL, O_RDONLY, O_RDWR};
use std::{
    fs,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
};

fn partition_list(world: &World, nr: u32) -> String {
    let mut all: Vec<String> = fs::read_dir(World::sysfs(nr))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().to_str()?.to_string();
            let part = name.strip_prefix(&format!("loop{nr}p"))?.to_string();
            let of = |file: &str| read(world, &entry.path().join(file));
            Some(format!(
                "{part}:{}+{} ro={}",
                of("start"),
                of("size"),
                of("ro")
            ))
        })
        .collect();
    all.sort();
    format!("{all:?}")
}

pub fn partitions(_: &Session, world: &World) -> Setup<Outcomes> {
    let mut log = Log::default();
    let backing = file(world, "backing", SIZE, O_RDWR)?;
    states::write_table(&world.dir.join("backing"))?;
    let status = |fd: &OwnedFd, flags, offset| {
        let info = LoopInfo64 {
            flags,
            offset,
            ..LoopInfo64::zeroed()
        };
        world.ioctl_with(fd.as_raw_fd(), LOOP_SET_STATUS64, &info).0
    };
    let clear = |fd: OwnedFd| -> Ret { world.ioctl(fd.as_raw_fd(), LOOP_CLR_FD, 0) };

    // Scans with and without LO_FLAGS_PARTSCAN; a detach removes the partitions.
    let fd = attach(world, 0, &backing, 0)?;
    log.say("not scanned for", partition_list(world, 0));
    log.ret("BLKRRPART", world.ioctl(fd.as_raw_fd(), BLKRRPART, 0));
    log.say("BLKRRPART finds", partition_list(world, 0));
    log.ret("asked to scan", status(&fd, LO_FLAGS_PARTSCAN, 0));
    log.say("scanned for", partition_list(world, 0));
    log.ret(
        "BLKRRPART once more",
        world.ioctl(fd.as_raw_fd(), BLKRRPART, 0),
    );
    log.say("still", partition_list(world, 0));
    log.ret("unset", status(&fd, 0, 0));
    log.say(
        "not unset",
        read(world, &World::sysfs(0).join("loop/partscan")),
    );
    // There is no partition table at the offset, but the device was not scanned again.
    log.ret("an offset", status(&fd, 0, 4096));
    log.say("with an offset", partition_list(world, 0));
    log.ret(
        "BLKRRPART with an offset",
        world.ioctl(fd.as_raw_fd(), BLKRRPART, 0),
    );
    log.say("with an offset, reread", partition_list(world, 0));
    log.ret("no offset", status(&fd, 0, 0));
    log.ret("clear", clear(fd));
    log.say("after detaching", partition_list(world, 0));

    // LO_FLAGS_PARTSCAN does not outlive the attachment.
    let fd = attach(world, 0, &backing, 0)?;
    log.say("after the next attach", partition_list(world, 0));
    log.say(
        "after the next attach, the flag",
        read(world, &World::sysfs(0).join("loop/partscan")),
    );
    log.ret(
        "BLKRRPART in the next attach_to_detach",
        world.ioctl(fd.as_raw_fd(), BLKRRPART, 0),
    );
    // Partitions added by BLKPG.
    let add = |pno| {
        ops::blkpg(
            world,
            &fd,
            BLKPG_ADD_PARTITION,
            pno,
            65536 * i64::from(pno),
            4096,
        )
    };
    log.ret("by hand", add(1));
    log.ret("by hand, a high one", add(15));
    log.say("two by hand", partition_list(world, 0));
    log.ret("clear those by hand", clear(fd));
    log.say("none by hand", partition_list(world, 0));

    // With LO_FLAGS_PARTSCAN, LOOP_CONFIGURE scans the device.
    let fd = attach(world, 0, &backing, LO_FLAGS_PARTSCAN)?;
    log.say("on attaching", partition_list(world, 0));
    let part = open("/dev/loop0p2", O_RDONLY).map_err(context("p2"))?;
    log.say("its bytes", ops::read_at(part.as_raw_fd(), 512, 0));
    log.say("its size", bytes_of(world, &part).to_string());
    drop(part);
    // Opening the device neither scans it nor removes partitions.
    drop(World::open_loop(0, O_RDWR)?);
    log.say("after another open", partition_list(world, 0));
    log.ret("clear again", clear(fd));
    log.say("none", partition_list(world, 0));

    // LOOP_CHANGE_FD to a file without a partition table. The partitions of a read-only device are
    // read-only.
    let fd = attach(world, 0, &backing, LO_FLAGS_PARTSCAN | LO_FLAGS_READ_ONLY)?;
    log.say("read-only", partition_list(world, 0));
    let other = file(world, "other", SIZE, O_RDWR)?;
    log.ret(
        "change to a file without",
        world.ioctl(fd.as_raw_fd(), LOOP_CHANGE_FD, other.as_raw_fd() as usize),
    );
    log.say("without", partition_list(world, 0));
    log.ret(
        "change back",
        world.ioctl(fd.as_raw_fd(), LOOP_CHANGE_FD, backing.as_raw_fd() as usize),
    );
    log.say("with", partition_list(world, 0));
    Ok(log.0)
}

pub fn open_partition(_: &Session, world: &World) -> Setup<Outcomes> {
    let mut log = Log::default();
    let backing = file(world, "backing", SIZE, O_RDWR)?;
    states::write_table(&world.dir.join("backing"))?;
    let fd = attach(world, 0, &backing, LO_FLAGS_PARTSCAN)?;
    let raw = fd.as_raw_fd();
    let part = open("/dev/loop0p1", O_RDWR).map_err(context("p1"))?;

    log.ret("BLKRRPART", world.ioctl(raw, BLKRRPART, 0));
    log.say("partitions", partition_list(world, 0));
    log.ret(
        "delete it",
        ops::blkpg(world, &fd, BLKPG_DEL_PARTITION, 1, 0, 0),
    );
    log.ret(
        "delete the other",
        ops::blkpg(world, &fd, BLKPG_DEL_PARTITION, 2, 0, 0),
    );
    log.ret("clear", world.ioctl(raw, LOOP_CLR_FD, 0));
    let status = |fd: &OwnedFd| {
        let (ret, info) =
            world.ioctl_with(fd.as_raw_fd(), LOOP_GET_STATUS64, &LoopInfo64::zeroed());
        format!("{} {:#x}", name(ret), info.flags)
    };
    log.say("status", status(&fd));
    drop(fd);
    log.say("status by the partition", status(&part));
    log.say("partitions while it's open", partition_list(world, 0));
    let again = open("/dev/loop0", O_RDONLY).map(|_| ());
    log.say("open the device", format!("{again:?}"));
    log.ret(
        "clear by the partition",
        world.ioctl(part.as_raw_fd(), LOOP_CLR_FD, 0),
    );
    log.say("status then", status(&part));
    drop(part);
    log.say("partitions at last close", partition_list(world, 0));
    log.say("bound", World::sysfs(0).join("loop").exists().to_string());

    // While a partition is claimed exclusively, the device cannot be reconfigured.
    let fd = attach(world, 0, &backing, LO_FLAGS_PARTSCAN)?;
    let part = open("/dev/loop0p1", O_RDWR | O_EXCL).map_err(context("p1"))?;
    let raw = fd.as_raw_fd();
    log.ret(
        "held: block size",
        world.ioctl(raw, LOOP_SET_BLOCK_SIZE, 4096),
    );
    log.ret("held: BLKRRPART", world.ioctl(raw, BLKRRPART, 0));
    log.ret(
        "held: block size by it",
        world.ioctl(part.as_raw_fd(), LOOP_SET_BLOCK_SIZE, 4096),
    );
    let excl = open("/dev/loop0", O_RDWR | O_EXCL).map(|_| ());
    log.say("held: the device exclusively", format!("{excl:?}"));
    let other = open("/dev/loop0p2", O_RDWR | O_EXCL).map(|_| ());
    log.say("held: the other exclusively", format!("{other:?}"));
    Ok(log.0)
}

pub fn partition_numbers(session: &Session) -> Outcomes {
    fn with(session: &Session, parameters: &str) -> Setup<String> {
        session.load(parameters).map_err(context("insmod"))?;
        let world = session.world()?;
        let backing = file(&world, "backing", SIZE, O_RDWR)?;
        states::write_table(&world.dir.join("backing"))?;
        let mut text = String::new();
        for nr in [0, 2] {
            let fd = attach(&world, nr, &backing, 0)?;
            let _ = ops::blkpg(&world, &fd, BLKPG_ADD_PARTITION, 9, 0, 4096);
            for part in ["", "p1", "p2", "p9"] {
                let path = format!("/sys/class/block/loop{nr}{part}/dev");
                let dev = read(&world, Path::new(&path));
                // Extended minor numbers depend on which numbers are free.
                let dev = if dev.starts_with("259:") {
                    "extended".into()
                } else {
                    dev
                };
                text.push_str(&format!("loop{nr}{part}={dev} "));
            }
            let flag = read(&world, &World::sysfs(nr).join("loop/partscan"));
            text.push_str(&format!("partscan={flag}; "));
            let _ = world.ioctl(fd.as_raw_fd(), LOOP_CLR_FD, 0);
            drop(fd);
            text.push_str(&format!("then {}; ", partition_list(&world, nr)));
            // The device without a backing file.
            let fd = World::open_loop(nr, O_RDONLY)?;
            let scan = name(world.ioctl(fd.as_raw_fd(), BLKRRPART, 0));
            text.push_str(&format!("BLKRRPART {scan}; "));
            drop(fd);
            world.remove(nr)?;
        }
        drop(world);
        session.unload()?;
        Ok(text)
    }
    ["", "max_part=1", "max_part=7", "max_part=15", "max_part=63"]
        .iter()
        .map(|part| {
            let outcome = with(session, &format!("max_loop=1 {part}"));
            (
                (*part).into(),
                outcome.unwrap_or_else(|why| format!("{BROKEN}{why}")),
            )
        })
        .collect()
}
