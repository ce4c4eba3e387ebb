// SPDX-License-Identifier: GPL-2.0

//! The calls: their arguments and their kinds.

mod kinds;
mod random;

use crate::{
    rng::Rng,
    sys::Abi,
    uapi::{self, LoopConfig},
};
pub use kinds::{GETS, KINDS};
use nix::errno::Errno;
pub use random::open_slot;

/// Number of device descriptors of a process, and how many of them are of whole devices.
pub const SLOTS: usize = 5;
pub const WHOLE: usize = 4;

/// The files of a process with their open modes; files that can be attached come first.
pub const FILES: &[(&str, i32)] = &[
    ("plain", libc::O_RDWR),
    ("plain", libc::O_RDONLY),
    ("twin", libc::O_RDWR),
    ("twin", libc::O_RDONLY),
    ("odd", libc::O_RDWR),
    ("table", libc::O_RDWR),
    ("table", libc::O_RDONLY),
    ("huge", libc::O_RDWR),
    ("empty", libc::O_RDWR),
    ("plain", libc::O_RDWR | libc::O_DIRECT),
    ("plain", libc::O_RDWR | libc::O_APPEND),
    // Files that cannot be attached.
    ("plain", libc::O_WRONLY),
    ("plain", libc::O_PATH),
    (".", libc::O_RDONLY | libc::O_DIRECTORY),
    ("/dev/null", libc::O_RDWR),
    ("/proc/version", libc::O_RDONLY),
    ("/dev/loop-control", libc::O_RDWR),
];
/// Number of files that can be attached.
const USUAL: usize = 11;
/// The files whose size is changed, by their index in `FILES`, and their initial size.
pub const RESIZED: &[(usize, u64)] = &[(0, 1 << 20), (2, 1 << 20), (4, 4097), (5, 2 << 20)];

/// The path through which a device is opened.
#[derive(Clone, Copy, Debug)]
pub enum Node {
    /// The node of a device in `/dev`.
    Dev(u64),
    /// A node in the directory of the run, possibly without a disk.
    Own(u64),
    /// The node of a partition: number of the device, number of the partition.
    Part(u64, u64),
}

/// A descriptor that is passed to the driver.
#[derive(Clone, Copy, Debug)]
pub enum Backing {
    File(usize),
    Slot(usize),
    Number(i32),
}

/// The argument of an ioctl.
#[derive(Clone, Debug)]
pub enum Arg {
    Number(usize),
    Backing(Backing),
    /// A structure of which only that many bytes are readable.
    Bytes(Vec<u8>, usize),
    Config(Backing, Box<LoopConfig>, usize),
    /// For BLKPG: the operation, its argument, and whether that is readable.
    Part(i32, uapi::BlkpgPartition, bool),
    Unmapped,
    ReadOnly,
}

/// One I/O.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    pub direction: Direction,
    pub pos: u64,
    pub len: usize,
    pub flags: i32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    Read,
    Write,
    Sync,
}

/// A call, without its result.
#[derive(Clone, Debug)]
pub enum Op {
    Open(usize, Node, i32),
    Close(usize),
    CloseAll,
    Control(Abi, u32, i32),
    Device(usize, Abi, u32, Arg),
    /// Copies out a structure of that size.
    Get(usize, Abi, u32, usize, Arg),
    /// Several I/Os in flight.
    Io(usize, Vec<Transfer>),
    Fallocate(usize, i32, i64, i64),
    Resize(usize, u64),
    Sysfs(u64, &'static str),
}

/// The parameters of the generated calls.
#[derive(Clone)]
pub struct Scale {
    pub devices: u64,
    /// The device that is opened more often than others: if all processes had all devices open,
    /// there would be no last close.
    pub home: u64,
    /// Whether partitions are attached to devices.
    pub nesting: bool,
    pub compat: bool,
}

/// Maximum number of I/Os in flight, and their maximum length.
pub const AT_ONCE: usize = 16;
pub const LONGEST: usize = 65536;

/// A kind of calls.
pub struct Kind {
    pub name: &'static str,
    /// The weights of the kind: for lanes that mainly change devices, and for lanes that mainly do
    /// I/O.
    pub weights: [u64; 2],
    make: fn(&mut Rng, &Scale) -> Op,
    /// The errors with which it can fail.
    pub errors: &'static [Errno],
    /// Whether at least one of many calls must succeed.
    pub succeeds: bool,
}

/// Chooses a kind by its weight in the mix, and its arguments.
pub fn make(rng: &mut Rng, scale: &Scale, mix: usize) -> (usize, Op) {
    let total = KINDS.iter().map(|kind| kind.weights[mix]).sum();
    let mut n = rng.below(total);
    for (index, kind) in KINDS.iter().enumerate() {
        if n < kind.weights[mix] {
            return (index, (kind.make)(rng, scale));
        }
        n -= kind.weights[mix];
    }
    unreachable!("n is below the sum of the weights")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_depend_on_seed_only() {
        let scale = Scale {
            devices: 5,
            home: 0,
            nesting: true,
            compat: true,
        };
        let mut seen = vec![false; KINDS.len()];
        for call in 0..20_000 {
            let one = || make(&mut Rng::new(7, 1, call), &scale, call as usize % 2);
            let (kind, op) = one();
            assert_eq!(format!("{:?}", one()), format!("{:?}", (kind, &op)));
            seen[kind] = true;
        }
        assert!(seen.iter().all(|seen| *seen));
    }
}
