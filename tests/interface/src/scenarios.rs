// SPDX-License-Identifier: GPL-2.0

//! Cases beyond one device in one state: `/dev/loop-control`, the module and its parameters,
//! several devices, the order of uevents, calls that wait.
//!
//! Each starts with the driver unloaded, or as `Session::with` loads it.

mod backing;
mod control;
mod killed;
mod module;
mod partitions;
mod session;
mod uevents;

use crate::{
    compare::{BROKEN, SKIP},
    ops::Number,
    sys::Ret,
    uapi::*,
    world::{context, name, open, Setup, World},
};
use libc::O_RDWR;
pub use session::Session;
use std::{
    fs,
    os::fd::{AsRawFd, OwnedFd},
};

/// Cases and their outcomes.
type Outcomes = Vec<(String, String)>;

type Scenario = fn(&Session) -> Outcomes;

pub const SCENARIOS: &[(&str, Scenario)] = &[
    ("loop-control: LOOP_CTL_ADD", |s| {
        s.with("max_loop=0", control::add)
    }),
    ("loop-control: LOOP_CTL_REMOVE", |s| {
        s.with("max_loop=0", control::remove)
    }),
    ("loop-control: LOOP_CTL_GET_FREE", |s| {
        s.with("max_loop=0", control::get_free)
    }),
    ("loop-control: other calls", |s| {
        s.with("max_loop=0", control::others)
    }),
    ("uevents from attach to detach", |s| {
        s.with("max_loop=0", uevents::attach_to_detach)
    }),
    ("partitions are added and removed", |s| {
        s.with("max_loop=0", partitions::partitions)
    }),
    ("a partition in use", |s| {
        s.with("max_loop=0", partitions::open_partition)
    }),
    ("the size follows the file", |s| {
        s.with("max_loop=0", backing::sizes)
    }),
    ("loop on loop on loop", |s| {
        s.with("max_loop=0", backing::recursion)
    }),
    ("names of backing files", |s| {
        s.with("max_loop=0", backing::backing_names)
    }),
    ("references to the module", |s| {
        s.with("max_loop=0", module::references)
    }),
    ("devices' nodes and numbers", |s| {
        s.with("max_loop=2", module::nodes)
    }),
    ("calls that are killed while they wait", |s| {
        s.with("max_loop=0", killed::killed_waiters)
    }),
    ("module parameters", module::parameters),
    (
        "module parameters: partitions' numbers",
        partitions::partition_numbers,
    ),
    ("opening a node without a disk", module::nodes_without_disk),
    ("modinfo", module::modinfo),
];

/// The outcome of a set-up that failed.
fn broken(why: String) -> Outcomes {
    let outcome = match why.starts_with(SKIP) {
        true => why,
        false => format!("{BROKEN}{why}"),
    };
    vec![("set-up".into(), outcome)]
}

/// The outcomes of a scenario so far.
#[derive(Default)]
struct Log(Outcomes);

impl Log {
    fn say(&mut self, case: impl Into<String>, outcome: impl Into<String>) {
        self.0.push((case.into(), outcome.into()));
    }

    fn ret(&mut self, case: impl Into<String>, ret: Ret) {
        self.say(case, name(ret));
    }

    /// Adds the result of a call, with the uevents since the last case.
    fn event(&mut self, world: &World, case: &str, ret: Ret) {
        let mut text = name(ret);
        for event in world.take_uevents() {
            text.push_str("; ");
            text.push_str(&event);
        }
        self.say(case, text);
    }
}

/// The numbers of the existing loop devices.
fn devices() -> String {
    let mut all: Vec<u32> = fs::read_dir("/sys/block")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            entry
                .file_name()
                .to_str()?
                .strip_prefix("loop")?
                .parse()
                .ok()
        })
        .collect();
    all.sort_unstable();
    format!("{all:?}")
}

/// Creates a file and opens it.
fn file(world: &World, name: &str, size: u64, flags: i32) -> Setup<OwnedFd> {
    let path = world.file(name, size)?;
    open(path, flags).map_err(context(name))
}

/// The size of a device in bytes.
fn bytes_of(world: &World, fd: &OwnedFd) -> u64 {
    world
        .ioctl_with(fd.as_raw_fd(), BLKGETSIZE64, &Number(0))
        .1
         .0
}

/// The argument of `LOOP_CONFIGURE` with these flags.
fn with_flags(flags: u32) -> LoopConfig {
    LoopConfig {
        info: LoopInfo64 {
            flags,
            ..LoopInfo64::zeroed()
        },
        ..LoopConfig::zeroed()
    }
}

/// Attaches the device of that number to a file; creates the device if necessary.
fn attach(world: &World, nr: u32, file: &OwnedFd, flags: u32) -> Setup<OwnedFd> {
    if !World::sysfs(nr).exists() {
        world.add(nr)?;
    }
    let fd = World::open_loop(nr, O_RDWR)?;
    world.configure(&fd, file, with_flags(flags))?;
    Ok(fd)
}
