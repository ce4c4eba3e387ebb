// SPDX-License-Identifier: GPL-2.0

//! The kinds of calls: how often they are made, and the errors with which they can fail.

use super::{random::*, Kind, Op, RESIZED, SLOTS};
use crate::{
    sys::Abi,
    uapi::{self, CompatLoopInfo, LoopInfo, LoopInfo64},
};
use nix::errno::Errno::{self, *};

/// The errors of a call that is not specific to the driver. EBADF: the slot may be empty.
const ANY: &[Errno] = &[
    EBADF, EINVAL, EIO, ENXIO, ENODEV, EFAULT, EPERM, EACCES, EBUSY, ENOSPC, EOPNOTSUPP, ENOTTY,
    EOVERFLOW, EAGAIN, EFBIG,
];

/// All kinds of calls.
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
        make: |rng, _| Op::Close(rng.index(SLOTS)),
        errors: &[],
        succeeds: true,
    },
    Kind {
        name: "close of all",
        weights: [60, 15],
        make: |_, _| Op::CloseAll,
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
        name: "unknown ioctls of loop-control",
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
            Op::Device(rng.index(SLOTS), abi, cmd, partly_readable(rng, bytes))
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
        name: "ioctls that get limits",
        weights: [70, 10],
        make: |rng, scale| {
            let which = rng.pick(GETS);
            get(rng, scale, which)
        },
        errors: &[EBADF, EINVAL, EFAULT, EFBIG, ENOTTY],
        succeeds: true,
    },
    Kind {
        name: "ioctls of other drivers",
        weights: [10, 1],
        make: |rng, scale| {
            let which = rng.pick(OTHERS);
            get(rng, scale, which)
        },
        errors: &[EBADF, EINVAL, EFAULT, ENOTTY, EOPNOTSUPP, EPERM],
        succeeds: false,
    },
    Kind {
        name: "unknown ioctls of a device",
        weights: [12, 1],
        make: |rng, scale| {
            let cmd = match rng.percent(70) {
                true => 0x4c0b + rng.below(0x75) as u32,
                // Not an ioctl of files or of another driver.
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
        // EFAULT: direct I/O of less than a block, if the block size grew during the call.
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
            Op::Fallocate(rng.index(SLOTS), rng.pick(modes), pos as i64, len as i64)
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
            Op::Resize(file, size)
        },
        errors: &[],
        succeeds: true,
    },
    Kind {
        name: "sysfs",
        weights: [30, 5],
        make: |rng, scale| Op::Sysfs(rng.below(scale.devices), rng.pick(SYSFS)),
        errors: &[ENOENT, ENODEV, EIO, EACCES],
        succeeds: true,
    },
];

/// The attributes that are read, below the directory of the disk. `workers` is in debugfs.
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

/// An ioctl, the size of the structure that it copies out, and that size for 32-bit programs.
pub type Getter = (u32, usize, usize);

/// Ioctls that get limits.
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
    // The 32-bit forms of these have numbers of their own.
    (uapi::BLKBSZGET, 4, 0),
    (uapi::BLKGETSIZE64, 8, 0),
    (uapi::BLKBSZGET_32, 0, 4),
    (uapi::BLKGETSIZE64_32, 0, 8),
];

/// Ioctls of other drivers.
const OTHERS: &[Getter] = &[
    (uapi::HDIO_GETGEO, 0, 0),
    (uapi::CDROM_GET_CAPABILITY, 0, 0),
    (uapi::SG_IO, 0, 0),
    (uapi::IOC_PR_CLEAR, 0, 0),
    (uapi::BLKREPORTZONE, 0, 0),
];
