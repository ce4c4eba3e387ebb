// SPDX-License-Identifier: GPL-2.0

//! The ioctls that take a backing file: `LOOP_CONFIGURE`, `LOOP_SET_FD`, `LOOP_CHANGE_FD`.

use super::{
    file::FILE_KINDS, status::status_variants, Arg, Effect::Modify, FileKind, Op, BLOCK_SIZES,
};
use crate::uapi::*;

pub fn configure() -> Op {
    const CMD: u32 = LOOP_CONFIGURE;
    let zero = LoopConfig::zeroed();
    let config = |kind, config| Arg::Config(kind, Box::new(config));
    let mut op = Op::new("LOOP_CONFIGURE", Modify)
        .only_in(&["unbound", "bound"])
        .core(CMD, "a file", config(FileKind::Another, zero))
        .core(CMD, "NULL", Arg::Value(0))
        .core(CMD, "unmapped", Arg::Unmapped)
        .core(CMD, "a closed file", config(FileKind::Closed, zero))
        .core(
            CMD,
            "a bad flag",
            config(
                FileKind::Another,
                LoopConfig {
                    info: LoopInfo64 {
                        flags: 2,
                        ..zero.info
                    },
                    ..zero
                },
            ),
        )
        .core(CMD, "the device", config(FileKind::Itself, zero))
        .native(CMD, "kernel memory", Arg::Value(0xffff_8880_0000_0000))
        .native(
            CMD,
            "all but a byte",
            Arg::Partly(zero.bytes(), size_of::<LoopConfig>() - 1),
        )
        .native(CMD, "a byte", Arg::Partly(zero.bytes(), 1));
    for &kind in FILE_KINDS {
        op = op.native(CMD, format!("{kind:?}"), config(kind, zero));
    }
    for &size in BLOCK_SIZES {
        let with = |flags| {
            config(
                FileKind::Another,
                LoopConfig {
                    block_size: size as u32,
                    info: LoopInfo64 { flags, ..zero.info },
                    ..zero
                },
            )
        };
        op = op.native(CMD, format!("block size {size}"), with(0));
        if [0, 512, 2048].contains(&size) {
            let direct = format!("block size {size}, direct");
            op = op.native(CMD, direct, with(LO_FLAGS_DIRECT_IO));
        }
    }
    op = op.native(
        CMD,
        "block size 4294967295",
        config(
            FileKind::Another,
            LoopConfig {
                block_size: u32::MAX,
                ..zero
            },
        ),
    );
    for subset in 0..16 {
        let flags = (subset & 1) | ((subset & 14) << 1);
        let with = |kind, block_size| {
            config(
                kind,
                LoopConfig {
                    block_size,
                    info: LoopInfo64 { flags, ..zero.info },
                    ..zero
                },
            )
        };
        op = op.native(
            CMD,
            format!("flags {flags:#x}"),
            with(FileKind::Another, 4096),
        );
        if flags & !LO_FLAGS_DIRECT_IO == 0 {
            op = op.native(
                CMD,
                format!("flags {flags:#x} of Direct"),
                with(FileKind::Direct, 0),
            );
        }
    }
    for (what, info) in status_variants() {
        op = op.native(
            CMD,
            what,
            config(FileKind::Another, LoopConfig { info, ..zero }),
        );
    }
    // Two invalid fields: the error shows which is checked first.
    let flags = LoopInfo64 {
        flags: 2,
        ..zero.info
    };
    let crypt = LoopInfo64 {
        encrypt_type: 1,
        flags: 2,
        ..zero.info
    };
    op.native(
        CMD,
        "reserved",
        config(
            FileKind::Another,
            LoopConfig {
                reserved: [u64::MAX; 8],
                ..zero
            },
        ),
    )
    .native(
        CMD,
        "a bad flag of a pipe",
        config(
            FileKind::Pipe,
            LoopConfig {
                info: flags,
                ..zero
            },
        ),
    )
    .native(
        CMD,
        "a bad flag of /",
        config(
            FileKind::Directory,
            LoopConfig {
                info: flags,
                ..zero
            },
        ),
    )
    .native(
        CMD,
        "a bad flag of nothing",
        config(
            FileKind::Closed,
            LoopConfig {
                info: flags,
                ..zero
            },
        ),
    )
    .native(
        CMD,
        "a bad flag of itself",
        config(
            FileKind::Itself,
            LoopConfig {
                info: flags,
                ..zero
            },
        ),
    )
    .native(
        CMD,
        "a bad flag and crypt",
        config(
            FileKind::Another,
            LoopConfig {
                info: crypt,
                ..zero
            },
        ),
    )
    .native(
        CMD,
        "a bad flag and block size",
        config(
            FileKind::Another,
            LoopConfig {
                info: flags,
                block_size: 1000,
                ..zero
            },
        ),
    )
}

pub fn set_fd(name: &'static str, cmd: u32) -> Op {
    let mut op = Op::new(name, Modify)
        .core(cmd, "a file", Arg::Fd(FileKind::Another))
        .core(cmd, "a file for reading", Arg::Fd(FileKind::ReadOnly))
        .core(cmd, "a closed file", Arg::Fd(FileKind::Closed))
        .core(cmd, "the device", Arg::Fd(FileKind::Itself))
        .more(cmd, "a file, and a bit", Arg::HighFd(FileKind::Another))
        .more(cmd, "2^32 - 1", Arg::Value(0xffff_ffff));
    for &kind in FILE_KINDS {
        op = op.native(cmd, format!("{kind:?}"), Arg::Fd(kind));
    }
    op
}
