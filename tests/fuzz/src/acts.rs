// SPDX-License-Identifier: GPL-2.0

//! The calls: their kinds, random arguments, and the errors with which they can fail.

use crate::{
    rng::Rng,
    sys::Abi,
    uapi::{self, CompatLoopInfo, LoopConfig, LoopInfo, LoopInfo64, Plain},
};
use nix::errno::Errno;

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
    // Not these.
    ("plain", libc::O_WRONLY),
    ("plain", libc::O_PATH),
    (".", libc::O_RDONLY | libc::O_DIRECTORY),
    ("/dev/null", libc::O_RDWR),
    ("/proc/version", libc::O_RDONLY),
    ("/dev/loop-control", libc::O_RDWR),
];
const USUAL: usize = 11;
/// The files whose size is changed, by their index in `FILES`, and their initial size.
pub const RESIZED: &[(usize, u64)] = &[(0, 1 << 20), (2, 1 << 20), (4, 4097), (5, 2 << 20)];

/// Where a device node is opened.
#[derive(Clone, Copy, Debug)]
pub enum Node {
    Dev(u64),
    /// A node of our own, possibly without a disk.
    Own(u64),
    Part(u64, u64),
}

/// A descriptor that is passed to the driver.
#[derive(Clone, Copy, Debug)]
pub enum Backing {
    File(usize),
    Slot(usize),
    Number(i32),
}

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

#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    pub op: Direction,
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

#[derive(Clone, Debug)]
pub enum Act {
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

/// The state from which calls are generated.
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

pub struct Kind {
    pub name: &'static str,
    /// Weights of the kind: for lanes that mainly change things, and for lanes that mainly do I/O.
    pub weights: [u64; 2],
    make: fn(&mut Rng, &Scale) -> Act,
    /// The errors with which it can fail.
    pub errors: &'static [Errno],
    /// Whether it must succeed now and then.
    pub succeeds: bool,
}

use Errno::*;

/// The slot may be empty.
const ANY: &[Errno] = &[
    EBADF, EINVAL, EIO, ENXIO, ENODEV, EFAULT, EPERM, EACCES, EBUSY, ENOSPC, EOPNOTSUPP, ENOTTY,
    EOVERFLOW, EAGAIN, EFBIG,
];

pub const KINDS: &[Kind] = &[
    Kind {
        name: "open",
        weights: [120, 60],
        make: open,
        errors: &[ENXIO, ENOENT, EBUSY, ENODEV],
        succeeds: true,
    },
    Kind {
        name: "close",
        weights: [80, 30],
        make: |rng, _| Act::Close(rng.index(SLOTS)),
        errors: &[],
        succeeds: true,
    },
    Kind {
        name: "close of all",
        weights: [60, 15],
        make: |_, _| Act::CloseAll,
        errors: &[],
        succeeds: true,
    },
    Kind {
        name: "LOOP_CTL_ADD",
        weights: [12, 2],
        make: |rng, scale| control(rng, scale, uapi::LOOP_CTL_ADD),
        errors: &[EEXIST, EINVAL],
        succeeds: true,
    },
    Kind {
        name: "LOOP_CTL_REMOVE",
        weights: [25, 2],
        make: |rng, scale| control(rng, scale, uapi::LOOP_CTL_REMOVE),
        errors: &[ENODEV, EBUSY, EINVAL],
        succeeds: true,
    },
    Kind {
        name: "LOOP_CTL_GET_FREE",
        weights: [20, 2],
        make: |rng, scale| control(rng, scale, uapi::LOOP_CTL_GET_FREE),
        errors: &[EEXIST],
        succeeds: true,
    },
    Kind {
        name: "unknown, of loop-control",
        weights: [6, 0],
        make: |rng, scale| {
            let cmd = 0x4c83 + rng.below(0x100) as u32;
            control(rng, scale, cmd)
        },
        errors: &[ENOSYS],
        succeeds: false,
    },
    Kind {
        name: "LOOP_CONFIGURE",
        weights: [90, 30],
        make: configure,
        errors: &[EBADF, EINVAL, EBUSY, EFAULT, EOVERFLOW, ENXIO],
        succeeds: true,
    },
    Kind {
        name: "LOOP_SET_FD",
        weights: [40, 10],
        make: |rng, scale| with_backing(rng, scale, uapi::LOOP_SET_FD),
        errors: &[EBADF, EINVAL, EBUSY, ENXIO],
        succeeds: true,
    },
    Kind {
        name: "LOOP_CHANGE_FD",
        weights: [40, 5],
        make: |rng, scale| with_backing(rng, scale, uapi::LOOP_CHANGE_FD),
        errors: &[EBADF, EINVAL, ENXIO],
        succeeds: true,
    },
    Kind {
        name: "LOOP_CLR_FD",
        weights: [60, 12],
        make: |rng, scale| number(rng, scale, uapi::LOOP_CLR_FD, &[0, 1]),
        errors: &[EBADF, ENXIO],
        succeeds: true,
    },
    Kind {
        name: "LOOP_SET_STATUS64",
        weights: [60, 10],
        make: set_status64,
        errors: &[EBADF, EINVAL, EFAULT, EOVERFLOW, ENXIO],
        succeeds: true,
    },
    Kind {
        name: "LOOP_SET_STATUS",
        weights: [40, 5],
        make: set_status,
        errors: &[EBADF, EINVAL, EFAULT, EOVERFLOW, ENXIO],
        succeeds: true,
    },
    Kind {
        name: "LOOP_GET_STATUS64",
        weights: [70, 10],
        make: |rng, scale| {
            let len = size_of::<LoopInfo64>();
            get(rng, scale, (uapi::LOOP_GET_STATUS64, len, len))
        },
        errors: &[EBADF, EINVAL, EFAULT, ENXIO],
        succeeds: true,
    },
    Kind {
        name: "LOOP_GET_STATUS",
        weights: [50, 5],
        make: |rng, scale| {
            let (len, compat) = (size_of::<LoopInfo>(), size_of::<CompatLoopInfo>());
            get(rng, scale, (uapi::LOOP_GET_STATUS, len, compat))
        },
        errors: &[EBADF, EINVAL, EFAULT, EOVERFLOW, ENXIO],
        succeeds: true,
    },
    Kind {
        name: "LOOP_SET_CAPACITY",
        weights: [30, 5],
        make: |rng, scale| number(rng, scale, uapi::LOOP_SET_CAPACITY, &[0, 1]),
        errors: &[EBADF, ENXIO],
        succeeds: true,
    },
    Kind {
        name: "LOOP_SET_DIRECT_IO",
        weights: [40, 5],
        make: |rng, scale| number(rng, scale, uapi::LOOP_SET_DIRECT_IO, &[0, 1, 1, 2]),
        errors: &[EBADF, EINVAL, ENXIO],
        succeeds: true,
    },
    Kind {
        name: "LOOP_SET_BLOCK_SIZE",
        weights: [30, 5],
        make: |rng, scale| {
            let sizes = &[512, 512, 1024, 2048, 4096, 4096, 8192, 65536, 0, 1, 513];
            number(rng, scale, uapi::LOOP_SET_BLOCK_SIZE, sizes)
        },
        errors: &[EBADF, EBUSY, EINVAL, ENXIO],
        succeeds: true,
    },
    Kind {
        name: "BLKPG",
        weights: [50, 5],
        make: blkpg,
        errors: &[EBADF, EINVAL, EFAULT, EBUSY, ENXIO, EOPNOTSUPP],
        succeeds: true,
    },
    Kind {
        name: "BLKRRPART",
        weights: [15, 2],
        make: |rng, scale| number(rng, scale, uapi::BLKRRPART, &[0]),
        errors: &[EBADF, EINVAL, EBUSY, EIO, ENXIO, ENODEV],
        succeeds: true,
    },
    Kind {
        name: "BLKFLSBUF",
        weights: [12, 3],
        make: |rng, scale| number(rng, scale, uapi::BLKFLSBUF, &[0]),
        errors: &[EBADF],
        succeeds: true,
    },
    Kind {
        name: "BLKROSET",
        weights: [15, 2],
        make: |rng, scale| {
            let value = rng.pick(&[0, 0, 0, 1]) as i32;
            let bytes = value.to_le_bytes().to_vec();
            structure(rng, scale, uapi::BLKROSET, bytes)
        },
        errors: &[EBADF, EFAULT],
        succeeds: true,
    },
    Kind {
        name: "BLKRASET, BLKFRASET",
        weights: [6, 1],
        make: |rng, scale| {
            let cmd = rng.pick(&[uapi::BLKRASET, uapi::BLKFRASET]);
            number(rng, scale, cmd, &[0, 8, 256])
        },
        errors: &[EBADF],
        succeeds: true,
    },
    Kind {
        name: "BLKBSZSET",
        weights: [10, 2],
        make: |rng, scale| {
            let size = rng.pick(&[512, 1024, 4096, 4096, 0, 513, 65536]) as i32;
            let abi = abi(rng, scale);
            let cmd = match abi {
                Abi::Native => uapi::BLKBSZSET,
                Abi::Compat => uapi::BLKBSZSET_32,
            };
            let bytes = size.to_le_bytes().to_vec();
            Act::Device(rng.index(SLOTS), abi, cmd, whole_or_part(rng, bytes))
        },
        errors: &[EBADF, EBUSY, EFAULT, EINVAL],
        succeeds: true,
    },
    Kind {
        name: "BLKDISCARD",
        weights: [15, 15],
        make: |rng, scale| range(rng, scale, uapi::BLKDISCARD),
        errors: &[EBADF, EINVAL, EFAULT, EPERM, EOPNOTSUPP, EIO, EBUSY, ENOSPC],
        succeeds: true,
    },
    Kind {
        name: "BLKZEROOUT",
        weights: [12, 12],
        make: |rng, scale| range(rng, scale, uapi::BLKZEROOUT),
        errors: &[EBADF, EINVAL, EFAULT, EPERM, EOPNOTSUPP, EIO, EBUSY, ENOSPC],
        succeeds: true,
    },
    Kind {
        name: "BLKSECDISCARD",
        weights: [4, 2],
        make: |rng, scale| range(rng, scale, uapi::BLKSECDISCARD),
        errors: &[EBADF, EFAULT, EOPNOTSUPP],
        succeeds: false,
    },
    Kind {
        name: "what gets limits",
        weights: [70, 10],
        make: |rng, scale| {
            let which = rng.pick(GETS);
            get(rng, scale, which)
        },
        errors: &[EBADF, EINVAL, EFAULT, EFBIG, ENOTTY],
        succeeds: true,
    },
    Kind {
        name: "what other drivers have",
        weights: [10, 1],
        make: |rng, scale| {
            let which = rng.pick(OTHERS);
            get(rng, scale, which)
        },
        errors: &[EBADF, EINVAL, EFAULT, ENOTTY, EOPNOTSUPP, EPERM],
        succeeds: false,
    },
    Kind {
        name: "unknown, of a device",
        weights: [12, 1],
        make: |rng, scale| {
            let cmd = match rng.percent(70) {
                true => 0x4c0b + rng.below(0x75) as u32,
                // Not a descriptor of a file or of another driver.
                false => (rng.next() as u32 & 0xffff_00ff) | 0x4c00,
            };
            let mut bytes = vec![0; 64];
            rng.fill(&mut bytes);
            structure(rng, scale, cmd, bytes)
        },
        errors: &[EBADF, EINVAL, ENOTTY],
        succeeds: false,
    },
    Kind {
        name: "read, write, fsync",
        weights: [90, 550],
        make: io,
        // EFAULT: direct I/O of less than a block, if the block size was smaller at first.
        errors: &[
            EBADF, EINVAL, EIO, ENXIO, ENOSPC, EPERM, EAGAIN, EFBIG, EOPNOTSUPP, ENODATA, EFAULT,
        ],
        succeeds: true,
    },
    Kind {
        name: "fallocate",
        weights: [10, 30],
        make: |rng, _| {
            let modes = &[0x03, 0x03, 0x10, 0x11, 0x11, 0x80, 0];
            let (pos, len) = area(rng);
            let pos = pos + rng.pick(&[0, 0, 0, 1]);
            let len = len + rng.pick(&[0, 0, 0, 1]);
            Act::Fallocate(rng.index(SLOTS), rng.pick(modes), pos as i64, len as i64)
        },
        errors: ANY,
        succeeds: true,
    },
    Kind {
        name: "truncate of a backing file",
        weights: [15, 10],
        make: |rng, _| {
            let (file, size) = rng.pick(RESIZED);
            let size = match rng.below(4) {
                0 | 1 => size,
                2 => rng.below(2 * size),
                _ => rng.pick(&[0, 1, 511, 512, 4096]),
            };
            Act::Resize(file, size)
        },
        errors: &[],
        succeeds: true,
    },
    Kind {
        name: "sysfs",
        weights: [30, 5],
        make: |rng, scale| Act::Sysfs(rng.below(scale.devices), rng.pick(SYSFS)),
        errors: &[ENOENT, ENODEV, EIO, EACCES],
        succeeds: true,
    },
];

const SYSFS: &[&str] = &[
    "loop/autoclear",
    "loop/backing_file",
    "loop/dio",
    "loop/offset",
    "loop/partscan",
    "loop/sizelimit",
    "size",
    "stat",
    "inflight",
    "uevent",
    "queue/logical_block_size",
    "queue/discard_max_bytes",
    "workers",
];

/// Number, size of the structure that is copied out, and the same for 32 bits.
type Getter = (u32, usize, usize);

pub const GETS: &[Getter] = &[
    (uapi::BLKROGET, 4, 4),
    (uapi::BLKSSZGET, 4, 4),
    (uapi::BLKPBSZGET, 4, 4),
    (uapi::BLKIOMIN, 4, 4),
    (uapi::BLKIOOPT, 4, 4),
    (uapi::BLKALIGNOFF, 4, 4),
    (uapi::BLKDISCARDZEROES, 4, 4),
    (uapi::BLKSECTGET, 2, 2),
    (uapi::BLKROTATIONAL, 2, 2),
    (uapi::BLKRAGET, 8, 4),
    (uapi::BLKFRAGET, 8, 4),
    (uapi::BLKGETSIZE, 8, 4),
    (uapi::BLKGETDISKSEQ, 8, 8),
    (uapi::BLKGETNRZONES, 4, 4),
    (uapi::BLKGETZONESZ, 4, 4),
    // The native ioctls have other numbers, which the 32-bit entry does not know, and vice versa.
    (uapi::BLKBSZGET, 4, 0),
    (uapi::BLKGETSIZE64, 8, 0),
    (uapi::BLKBSZGET_32, 0, 4),
    (uapi::BLKGETSIZE64_32, 0, 8),
];

const OTHERS: &[Getter] = &[
    (uapi::HDIO_GETGEO, 0, 0),
    (uapi::CDROM_GET_CAPABILITY, 0, 0),
    (uapi::SG_IO, 0, 0),
    (uapi::IOC_PR_CLEAR, 0, 0),
    (uapi::BLKREPORTZONE, 0, 0),
];

/// Chooses a kind by its weight in the mix, and its arguments.
pub fn make(rng: &mut Rng, scale: &Scale, mix: usize) -> (usize, Act) {
    let total = KINDS.iter().map(|kind| kind.weights[mix]).sum();
    let mut n = rng.below(total);
    for (index, kind) in KINDS.iter().enumerate() {
        if n < kind.weights[mix] {
            return (index, (kind.make)(rng, scale));
        }
        n -= kind.weights[mix];
    }
    unreachable!("the weights are as they were")
}

fn abi(rng: &mut Rng, scale: &Scale) -> Abi {
    match scale.compat && rng.percent(20) {
        true => Abi::Compat,
        false => Abi::Native,
    }
}

fn open(rng: &mut Rng, scale: &Scale) -> Act {
    let slot = rng.index(SLOTS);
    open_slot(rng, scale, slot)
}

/// Opens a device or partition as a descriptor.
pub fn open_slot(rng: &mut Rng, scale: &Scale, slot: usize) -> Act {
    let nr = match rng.percent(65) {
        true => scale.home,
        false => rng.below(scale.devices),
    };
    let node = match slot < WHOLE {
        false => Node::Part(nr, 1 + rng.below(3)),
        true if rng.percent(85) => Node::Dev(nr),
        // Some are beyond the existing devices.
        true => Node::Own(rng.below(scale.devices + 2)),
    };
    let mode = match rng.below(10) {
        0 => libc::O_RDONLY,
        1 => libc::O_WRONLY,
        2 => 3,
        _ => libc::O_RDWR,
    };
    let mut flags = mode;
    for (flag, percent) in [
        (libc::O_EXCL, 7),
        (libc::O_NONBLOCK, 7),
        (libc::O_DIRECT, 40),
        (libc::O_SYNC, 5),
    ] {
        if rng.percent(percent) {
            flags |= flag;
        }
    }
    Act::Open(slot, node, flags)
}

fn control(rng: &mut Rng, scale: &Scale, cmd: u32) -> Act {
    let number = match rng.below(12) {
        0 => rng.edge() as i32,
        // The next device.
        1 if cmd == uapi::LOOP_CTL_ADD => -1,
        _ => rng.below(scale.devices) as i32,
    };
    // The number of devices must stay limited.
    let number = match cmd == uapi::LOOP_CTL_ADD && number > scale.devices as i32 {
        true => number | 1 << 20,
        false => number,
    };
    Act::Control(abi(rng, scale), cmd, number)
}

fn backing(rng: &mut Rng, scale: &Scale) -> Backing {
    match rng.below(20) {
        0 => Backing::Number(rng.pick(&[-1, i32::MAX, i32::MIN, 9999])),
        1 => Backing::File(USUAL + rng.index(FILES.len() - USUAL)),
        2 | 3 => Backing::Slot(rng.index(if scale.nesting { SLOTS } else { WHOLE })),
        _ => Backing::File(rng.index(USUAL)),
    }
}

fn flags(rng: &mut Rng, ours: u32) -> u32 {
    match rng.below(12) {
        0 => rng.next() as u32,
        // Rarely: a read-only device allows few operations.
        _ => (rng.next() & rng.next()) as u32 & ours,
    }
}

const ALL_FLAGS: u32 = uapi::LO_FLAGS_READ_ONLY
    | uapi::LO_FLAGS_AUTOCLEAR
    | uapi::LO_FLAGS_PARTSCAN
    | uapi::LO_FLAGS_DIRECT_IO;

fn info64(rng: &mut Rng) -> LoopInfo64 {
    let mut info = LoopInfo64::zeroed();
    info.flags = flags(rng, ALL_FLAGS);
    rng.fill(&mut info.file_name);
    if rng.percent(30) {
        // Flags that only take effect if they are kept.
        let mut bytes = info.bytes();
        let from = std::mem::offset_of!(LoopInfo64, crypt_name);
        rng.fill(&mut bytes[from..]);
        info = LoopInfo64::from_bytes(&bytes);
    }
    if rng.percent(60) {
        info.offset = rng.pick(&[0, 0, 0, 0, 512, 4096, 65536]);
        info.sizelimit = rng.pick(&[0, 0, 0, 512, 1000, 4096, 65536, 1 << 20]);
    } else {
        info.offset = rng.edge();
        info.sizelimit = rng.edge();
        info.encrypt_type = rng.pick(&[0, 0, 0, 1, 18, u32::MAX]);
        info.encrypt_key_size = rng.edge() as u32;
        info.number = rng.next() as u32;
        info.device = rng.next();
        info.inode = rng.next();
        info.rdevice = rng.next();
    }
    info
}

/// The readable size of a structure: usually all of it.
fn mapped(rng: &mut Rng, len: usize) -> usize {
    match rng.percent(4) {
        true => rng.index(len),
        false => len,
    }
}

fn whole_or_part(rng: &mut Rng, bytes: Vec<u8>) -> Arg {
    match rng.below(50) {
        0 => Arg::Unmapped,
        1 => Arg::Number(rng.edge() as usize & !0xfff),
        _ => {
            let mapped = mapped(rng, bytes.len());
            Arg::Bytes(bytes, mapped)
        }
    }
}

fn structure(rng: &mut Rng, scale: &Scale, cmd: u32, bytes: Vec<u8>) -> Act {
    let arg = whole_or_part(rng, bytes);
    Act::Device(rng.index(SLOTS), abi(rng, scale), cmd, arg)
}

fn number(rng: &mut Rng, scale: &Scale, cmd: u32, usual: &[usize]) -> Act {
    let number = match rng.below(12) {
        0 => rng.edge() as usize,
        _ => rng.pick(usual),
    };
    let arg = Arg::Number(number);
    Act::Device(rng.index(SLOTS), abi(rng, scale), cmd, arg)
}

fn with_backing(rng: &mut Rng, scale: &Scale, cmd: u32) -> Act {
    let arg = Arg::Backing(backing(rng, scale));
    Act::Device(rng.index(SLOTS), abi(rng, scale), cmd, arg)
}

fn configure(rng: &mut Rng, scale: &Scale) -> Act {
    let mut config = LoopConfig {
        info: info64(rng),
        ..LoopConfig::zeroed()
    };
    config.block_size = match rng.below(12) {
        0 => rng.edge() as u32,
        _ => rng.pick(&[0, 0, 0, 512, 1024, 4096, 8192, 65536]),
    };
    if rng.percent(10) {
        config.reserved = [rng.next(); 8];
    }
    let mapped = mapped(rng, size_of::<LoopConfig>());
    let arg = Arg::Config(backing(rng, scale), Box::new(config), mapped);
    Act::Device(rng.index(SLOTS), abi(rng, scale), uapi::LOOP_CONFIGURE, arg)
}

fn set_status64(rng: &mut Rng, scale: &Scale) -> Act {
    let bytes = info64(rng).bytes();
    structure(rng, scale, uapi::LOOP_SET_STATUS64, bytes)
}

fn set_status(rng: &mut Rng, scale: &Scale) -> Act {
    let info = info64(rng);
    let abi = abi(rng, scale);
    let (flags, offset) = (info.flags as i32, info.offset as i32);
    let bytes = match abi {
        Abi::Native => LoopInfo {
            offset,
            flags,
            name: info.file_name,
            encrypt_type: info.encrypt_type as i32,
            encrypt_key: info.encrypt_key,
            init: info.init,
            ..LoopInfo::zeroed()
        }
        .bytes(),
        Abi::Compat => CompatLoopInfo {
            offset,
            flags,
            name: info.file_name,
            encrypt_type: info.encrypt_type as i32,
            encrypt_key: info.encrypt_key,
            init: info.init.map(|word| word as u32),
            ..CompatLoopInfo::zeroed()
        }
        .bytes(),
    };
    let arg = whole_or_part(rng, bytes);
    Act::Device(rng.index(SLOTS), abi, uapi::LOOP_SET_STATUS, arg)
}

fn blkpg(rng: &mut Rng, scale: &Scale) -> Act {
    let mut part = uapi::BlkpgPartition::zeroed();
    rng.fill(&mut part.devname);
    rng.fill(&mut part.volname);
    if rng.percent(85) {
        part.pno = 1 + rng.below(4) as i32;
        part.start = (rng.below(512) * 4096) as i64;
        part.length = ((1 + rng.below(64)) * 4096) as i64;
    } else {
        part.pno = rng.edge() as i32;
        part.start = rng.edge() as i64;
        part.length = rng.edge() as i64;
    }
    let op = match rng.below(20) {
        0 => rng.edge() as i32,
        n => {
            rng.pick(&[
                uapi::BLKPG_ADD_PARTITION,
                uapi::BLKPG_DEL_PARTITION,
                uapi::BLKPG_RESIZE_PARTITION,
            ]) + i32::from(n == 1)
        }
    };
    let arg = Arg::Part(op, part, !rng.percent(4));
    Act::Device(rng.index(SLOTS), abi(rng, scale), uapi::BLKPG, arg)
}

/// A range of a device, which may be smaller.
fn area(rng: &mut Rng) -> (u64, u64) {
    let blocks = rng.pick(&[2, 8, 32, 128]);
    (
        rng.below(blocks) * 4096,
        (1 + rng.below(blocks.min(32))) * 4096,
    )
}

fn range(rng: &mut Rng, scale: &Scale, cmd: u32) -> Act {
    let (start, len) = match rng.percent(10) {
        // Beyond the end.
        true => (rng.edge() & !(1 << 40), 1 << 62),
        false => area(rng),
    };
    let bytes = [start, len].map(u64::to_le_bytes).concat();
    structure(rng, scale, cmd, bytes)
}

fn get(rng: &mut Rng, scale: &Scale, (cmd, native, compat): Getter) -> Act {
    let abi = abi(rng, scale);
    let len = match abi {
        Abi::Native => native,
        Abi::Compat => compat,
    };
    let arg = match rng.below(30) {
        0 => Arg::Number(0),
        1 => Arg::Unmapped,
        2 => Arg::ReadOnly,
        3 if len > 0 => Arg::Bytes(vec![0; len], rng.index(len)),
        _ => Arg::Bytes(vec![0; len], len),
    };
    Act::Get(rng.index(SLOTS), abi, cmd, len, arg)
}

/// Maximum number of I/Os in flight, and their maximum length.
pub const AT_ONCE: usize = 16;
pub const LONGEST: usize = 65536;

fn io(rng: &mut Rng, _: &Scale) -> Act {
    let n = match rng.percent(30) {
        true => 1 + rng.index(AT_ONCE),
        false => 1 + rng.index(4),
    };
    let mut transfer = |_| {
        let mut transfer = Transfer {
            op: rng.pick(&[
                Direction::Read,
                Direction::Read,
                Direction::Read,
                Direction::Write,
                Direction::Write,
                Direction::Sync,
            ]),
            pos: rng.below(2048) * 512,
            len: (1 + rng.index(16)) * 512,
            // RWF_DSYNC, RWF_NOWAIT
            flags: rng.pick(&[0, 0, 0, 0, 0, 2, 8]),
        };
        match rng.below(12) {
            0 => transfer.len = LONGEST,
            1 => (transfer.pos, transfer.len) = (rng.below(1 << 20), rng.index(8192)),
            2 => transfer.pos = rng.edge(),
            _ => (),
        }
        if transfer.op == Direction::Sync {
            (transfer.pos, transfer.len, transfer.flags) = (0, 0, 0);
        }
        transfer
    };
    let transfers = (0..n).map(&mut transfer).collect();
    Act::Io(rng.index(SLOTS), transfers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_again() {
        let scale = Scale {
            devices: 5,
            home: 0,
            nesting: true,
            compat: true,
        };
        let mut seen = vec![false; KINDS.len()];
        for call in 0..20_000 {
            let one = || make(&mut Rng::new(7, 1, call), &scale, call as usize % 2);
            let (kind, act) = one();
            assert_eq!(format!("{:?}", one()), format!("{:?}", (kind, &act)));
            seen[kind] = true;
        }
        assert!(seen.iter().all(|seen| *seen));
    }
}
