// SPDX-License-Identifier: GPL-2.0

//! The module: references to it, its parameters, the devices that it creates.

use super::{broken, devices, file, Log, Outcomes, Session};
use crate::{
    compare::BROKEN,
    uapi::*,
    world::{context, open, read, Setup, World, SIZE},
};
use libc::O_RDWR;
use nix::sys::stat::{makedev, mknod, Mode, SFlag};
use std::{
    fs,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::{MetadataExt, PermissionsExt},
    },
    path::Path,
    process::Command,
};

pub fn references(session: &Session, world: &World) -> Setup<Outcomes> {
    let mut log = Log::default();
    let backing = file(world, "backing", SIZE, O_RDWR)?;
    let count = || -> i64 {
        let path = Path::new("/sys/module").join(&session.name).join("refcnt");
        fs::read_to_string(path)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(-1)
    };
    let base = count();
    let mut say = |what: &str| log.say(what, (count() - base).to_string());

    world.add(0)?;
    say("added");
    let fd = World::open_loop(0, O_RDWR)?;
    say("open");
    let pipe = pipe()?;
    let _ = world.configure(&fd, &pipe, LoopConfig::zeroed());
    say("not configured");
    let _ = world.configure(
        &fd,
        &backing,
        LoopConfig {
            block_size: 1000,
            ..LoopConfig::zeroed()
        },
    );
    say("not configured, partly");
    world.configure(&fd, &backing, LoopConfig::zeroed())?;
    say("bound");
    let _ = world.configure(&fd, &backing, LoopConfig::zeroed());
    say("bound twice");
    drop(fd);
    say("closed");
    let fd = World::open_loop(0, O_RDWR)?;
    let _ = world.ioctl(fd.as_raw_fd(), LOOP_CLR_FD, 0);
    say("clearing");
    drop(fd);
    say("cleared");
    Ok(log.0)
}

fn pipe() -> Setup<OwnedFd> {
    Ok(nix::unistd::pipe().map_err(context("pipe"))?.0)
}

pub fn nodes(_: &Session, world: &World) -> Setup<Outcomes> {
    let mut log = Log::default();

    log.say("there are", devices());
    for nr in 0..2 {
        let meta = fs::metadata(World::loop_path(nr)).map_err(context("stat"))?;
        log.say(
            format!("node {nr}"),
            format!("{:o} {:#x}", meta.permissions().mode(), meta.rdev()),
        );
        for attr in [
            "dev",
            "range",
            "ext_range",
            "hidden",
            "removable",
            "events",
            "queue/nr_requests",
        ] {
            log.say(
                format!("{nr} {attr}"),
                read(world, &World::sysfs(nr).join(attr)),
            );
        }
    }
    let link = |path: &str| {
        let target = fs::read_link(path).unwrap_or_default();
        target.to_string_lossy().into_owned()
    };
    log.say("/sys/dev/block", link("/sys/dev/block/7:1"));
    log.say("/sys/block", link("/sys/block/loop1"));
    log.say("bdi", link("/sys/block/loop1/bdi"));
    Ok(log.0)
}

const PARAMETERS: &[&str] = &[
    "",
    "max_loop=0",
    "max_loop=1",
    "max_loop=3",
    "max_loop=0x2",
    "max_loop=-1",
    "max_loop=-2147483648",
    "max_loop=1048577",
    "max_loop=2147483648",
    "max_loop=99999999999",
    "max_loop=abc",
    "max_loop=",
    "max_loop",
    "max_loop=1 max_part=0",
    "max_loop=1 max_part=1",
    "max_loop=1 max_part=7",
    "max_loop=1 max_part=8",
    "max_loop=1 max_part=15",
    "max_loop=1 max_part=63",
    "max_loop=1 max_part=255",
    "max_loop=1 max_part=256",
    "max_loop=1 max_part=-1",
    "max_loop=1 max_part=2147483647",
    "max_loop=1 max_part=abc",
    "max_loop=1048576 max_part=1",
    "max_loop=32769 max_part=31",
    "max_loop=1 hw_queue_depth=0",
    "max_loop=1 hw_queue_depth=-1",
    "max_loop=1 hw_queue_depth=1",
    "max_loop=1 hw_queue_depth=0x10",
    "max_loop=1 hw_queue_depth=99999",
    "max_loop=1 hw_queue_depth=2147483648",
    "max_loop=1 hw_queue_depth=",
    "max_loop=1 hw_queue_depth",
    "max_loop=1 nonsense=1",
    "max_loop=1 max_loop=2",
];

pub fn parameters(session: &Session) -> Outcomes {
    let mut log = Log::default();
    for &text in PARAMETERS {
        let outcome = session
            .load(text)
            .map_err(|errno| format!("{errno:?}"))
            .and_then(|()| {
                let world = session.world()?;
                let dir = Path::new("/sys/module")
                    .join(&session.name)
                    .join("parameters");
                let of = |file: &str| {
                    let path = dir.join(file);
                    let mode = fs::metadata(&path).map_or(0, |meta| meta.permissions().mode());
                    format!("{file}={} ({mode:o})", read(&world, &path))
                };
                let attr = |attr: &str| read(&world, &World::sysfs(0).join(attr));
                let text = format!(
                    "{} {} {}; {}; dev={} range={} ext_range={} nr_requests={}",
                    of("max_loop"),
                    of("max_part"),
                    of("hw_queue_depth"),
                    devices(),
                    attr("dev"),
                    attr("range"),
                    attr("ext_range"),
                    attr("queue/nr_requests"),
                );
                drop(world);
                session.unload()?;
                Ok(text)
            });
        log.say(format!("\"{text}\""), outcome.unwrap_or_else(|why| why));
    }
    log.0
}

pub fn nodes_without_disk(session: &Session) -> Outcomes {
    let mut log = Log::default();
    let node = Path::new("/dev/loop_rs-dead-node");

    for (parameters, minors) in [
        ("max_loop=0", &[0, 3, 100, (1 << 20) - 1][..]),
        ("max_loop=2", &[1, 2, 20]),
        ("", &[7, 8, 20]),
        (
            "max_loop=0 max_part=15",
            &[0, 16 * 3, 16 * 3 + 1, 16 * 4 + 1, (1 << 20) - 16],
        ),
        ("max_loop=2 max_part=15", &[16, 32, 17]),
    ] {
        if let Err(errno) = session.load(parameters) {
            log.say(parameters, format!("{BROKEN}insmod: {errno:?}"));
            continue;
        }
        for &minor in minors {
            let before = devices();
            let _ = fs::remove_file(node);
            let made = mknod(
                node,
                SFlag::S_IFBLK,
                Mode::from_bits_truncate(0o600),
                makedev(7, minor),
            );
            let opened = open(node, O_RDWR);
            let there = devices();
            let opened = opened.map(|_| ());
            log.say(
                format!("{parameters} minor {minor}"),
                format!("{made:?} {opened:?}, {before} then {there}"),
            );
        }
        let _ = fs::remove_file(node);
        if let Err(why) = session.unload() {
            log.say(parameters, format!("{BROKEN}{why}"));
        }
    }
    log.0
}

/// The metadata of the module.
pub fn modinfo(session: &Session) -> Outcomes {
    let mut log = Log::default();
    for key in ["alias", "parm", "license", "description"] {
        let output = match Command::new("modinfo")
            .arg("-F")
            .arg(key)
            .arg(&session.module)
            .output()
        {
            Ok(output) if output.status.success() => output.stdout,
            other => return broken(format!("modinfo: {other:?}")),
        };
        let text = String::from_utf8_lossy(&output);
        let mut values: Vec<&str> = text.lines().collect();
        values.sort();
        if key == "parm" {
            for value in &values {
                let (parameter, text) = value.split_once(':').unwrap_or((value, ""));
                log.say(format!("parameter {parameter}"), text);
            }
        } else {
            log.say(key, values.join("; "));
        }
    }
    log.0
}
