// SPDX-License-Identifier: GPL-2.0

//! The states of a device that user space can tell apart.
//!
//! One state is missing: a device that is removed while it is open. `LOOP_CTL_REMOVE` refuses that,
//! so that only a race leads there.

mod build;

use crate::{
    uapi::{LO_FLAGS_DIRECT_IO, LO_FLAGS_PARTSCAN, LO_FLAGS_READ_ONLY},
    world::{context, Instance, Setup, World, SIZE},
};
use build::*;
pub use build::{lower, write_table};
use libc::{O_DIRECT, O_EXCL, O_RDONLY, O_RDWR, O_WRONLY};
use std::fs;

/// A state of a device.
pub struct State {
    pub name: &'static str,
    /// Whether the operations run with all arguments, or only with those of `Case::everywhere`.
    pub thorough: bool,
    pub make: fn(&World) -> Setup<Instance>,
}

const fn state(name: &'static str, make: fn(&World) -> Setup<Instance>) -> State {
    State {
        name,
        thorough: false,
        make,
    }
}

const fn thorough(name: &'static str, make: fn(&World) -> Setup<Instance>) -> State {
    State {
        name,
        thorough: true,
        make,
    }
}

pub const STATES: &[State] = &[
    thorough("unbound", |world| unbound(world, O_RDWR)),
    state("unbound, opened for reading", |world| {
        unbound(world, O_RDONLY)
    }),
    state("unbound, opened exclusively", |world| {
        unbound(world, O_RDWR | O_EXCL)
    }),
    state("unbound, held by another", |world| {
        held(world, unbound(world, O_RDWR)?)
    }),
    state("unbound, unprivileged", |world| {
        Ok(Instance {
            unprivileged: true,
            ..unbound(world, O_RDWR)?
        })
    }),
    state("unbound, once direct and read-only", reused),
    state("unbound, after a failed LOOP_CONFIGURE", failed),
    thorough("bound", |world| bound(world, Options::default())),
    state("bound by LOOP_SET_FD", by_set_fd),
    thorough("bound read-only", |world| {
        bound(
            world,
            Options {
                flags: LO_FLAGS_READ_ONLY,
                ..Options::default()
            },
        )
    }),
    state("bound to a file opened for reading", |world| {
        bound(
            world,
            Options {
                file: O_RDONLY,
                ..Options::default()
            },
        )
    }),
    state("bound to a file opened for writing", |world| {
        bound(
            world,
            Options {
                file: O_WRONLY,
                ..Options::default()
            },
        )
    }),
    state("bound through a device opened for reading", |world| {
        bound(
            world,
            Options {
                open: O_RDONLY,
                ..Options::default()
            },
        )
    }),
    state("bound, opened for reading", |world| {
        reopened(world, Options::default(), O_RDONLY, false)
    }),
    state("bound, opened for writing", |world| {
        reopened(world, Options::default(), O_WRONLY, false)
    }),
    state("bound, opened for ioctls only", |world| {
        reopened(world, Options::default(), 3, false)
    }),
    state("bound, opened for reading, unprivileged", |world| {
        reopened(world, Options::default(), O_RDONLY, true)
    }),
    state("bound, unprivileged", |world| {
        reopened(world, Options::default(), O_RDWR, true)
    }),
    state("bound, opened exclusively", |world| {
        bound(
            world,
            Options {
                open: O_RDWR | O_EXCL,
                ..Options::default()
            },
        )
    }),
    state("bound, held by another", |world| {
        held(world, bound(world, Options::default())?)
    }),
    thorough("bound with offset and limit", |world| {
        bound(
            world,
            Options {
                offset: 4096,
                sizelimit: 512 << 10,
                block_size: 1024,
                ..Options::default()
            },
        )
    }),
    state("bound with odd offset and limit", |world| {
        bound(
            world,
            Options {
                offset: 100,
                sizelimit: 100_001,
                ..Options::default()
            },
        )
    }),
    state("bound far into a huge file", |world| {
        bound(
            world,
            Options {
                size: (1 << 40) + SIZE,
                offset: 1 << 40,
                ..Options::default()
            },
        )
    }),
    thorough("bound direct", |world| {
        bound(
            world,
            Options {
                flags: LO_FLAGS_DIRECT_IO,
                block_size: 4096,
                ..Options::default()
            },
        )
    }),
    state("bound direct, by the file's O_DIRECT", |world| {
        bound(
            world,
            Options {
                file: O_RDWR | O_DIRECT,
                ..Options::default()
            },
        )
    }),
    state("bound direct on ext4", |world| {
        bound(
            world,
            Options {
                on_disk: true,
                flags: LO_FLAGS_DIRECT_IO,
                ..Options::default()
            },
        )
    }),
    state("bound on ext4", |world| {
        bound(
            world,
            Options {
                on_disk: true,
                ..Options::default()
            },
        )
    }),
    state("bound with autoclear", autoclear),
    state("bound, to be cleared at last close", cleared),
    state("clearing", |world| {
        let instance = bound(world, Options::default())?;
        clear(world, &instance)?;
        Ok(instance)
    }),
    state("clearing, partitioned", |world| {
        let instance = partitioned(world, LO_FLAGS_PARTSCAN)?;
        clear(world, &instance)?;
        Ok(instance)
    }),
    state("bound with partitions", |world| {
        partitioned(world, LO_FLAGS_PARTSCAN)
    }),
    state("bound with partitions, read-only", |world| {
        partitioned(world, LO_FLAGS_PARTSCAN | LO_FLAGS_READ_ONLY)
    }),
    state("bound with partitions not scanned for", |world| {
        partitioned(world, 0)
    }),
    state("bound with a partition by hand", by_hand),
    state("a partition", a_partition),
    state("bound to a deleted file", |world| {
        let instance = bound(world, Options::default())?;
        fs::remove_file(world.dir.join("backing")).map_err(context("rm"))?;
        Ok(instance)
    }),
    state("bound to a file that has grown", |world| {
        resized(world, SIZE + 5000)
    }),
    state("bound to a file that has shrunk", |world| {
        resized(world, 10_000)
    }),
    state("bound to an empty file", |world| {
        bound(
            world,
            Options {
                size: 0,
                ..Options::default()
            },
        )
    }),
    state("bound to a RAM disk", to_ram),
    state("bound to a loop device", to_loop),
    state("bound to a read-only loop device", to_read_only_loop),
    state("mounted", mounted),
];
