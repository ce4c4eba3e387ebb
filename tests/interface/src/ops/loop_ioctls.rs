// SPDX-License-Identifier: GPL-2.0

//! The other ioctls of the loop driver, and ioctls that it does not know.

use super::{
    Arg,
    Effect::{Modify, Preserve, Query},
    Op, BLOCK_SIZES,
};
use crate::uapi::*;

pub fn all() -> Vec<Op> {
    let mut all = vec![
        Op::new("LOOP_CLR_FD", Modify)
            .core(LOOP_CLR_FD, "0", Arg::Value(0))
            .more(LOOP_CLR_FD, "an address", Arg::Unmapped),
        Op::new("LOOP_GET_STATUS", Query)
            .core(LOOP_GET_STATUS, "memory", Arg::InfoOld)
            .core(LOOP_GET_STATUS, "NULL", Arg::Value(0))
            .core(LOOP_GET_STATUS, "unmapped", Arg::Unmapped)
            .core(LOOP_GET_STATUS, "read-only memory", Arg::ReadOnly)
            .native(
                LOOP_GET_STATUS,
                "kernel memory",
                Arg::Value(0xffff_8880_0000_0000),
            ),
        Op::new("LOOP_GET_STATUS64", Query)
            .core(LOOP_GET_STATUS64, "memory", Arg::Info64)
            .core(LOOP_GET_STATUS64, "NULL", Arg::Value(0))
            .core(LOOP_GET_STATUS64, "unmapped", Arg::Unmapped)
            .core(LOOP_GET_STATUS64, "read-only memory", Arg::ReadOnly)
            .native(
                LOOP_GET_STATUS64,
                "kernel memory",
                Arg::Value(0xffff_8880_0000_0000),
            ),
        Op::new("LOOP_SET_CAPACITY", Modify)
            .core(LOOP_SET_CAPACITY, "0", Arg::Value(0))
            .more(LOOP_SET_CAPACITY, "an address", Arg::Unmapped),
    ];
    let mut dio = Op::new("LOOP_SET_DIRECT_IO", Modify)
        .core(LOOP_SET_DIRECT_IO, "0", Arg::Value(0))
        .core(LOOP_SET_DIRECT_IO, "1", Arg::Value(1));
    for value in [2, 1 << 31, 1 << 32, u64::MAX] {
        dio = dio.more(LOOP_SET_DIRECT_IO, value.to_string(), Arg::Value(value));
    }
    all.push(dio);
    let mut bs = Op::new("LOOP_SET_BLOCK_SIZE", Modify)
        .core(LOOP_SET_BLOCK_SIZE, "2048", Arg::Value(2048))
        .core(LOOP_SET_BLOCK_SIZE, "1000", Arg::Value(1000));
    for &size in BLOCK_SIZES
        .iter()
        .chain(&[1 << 32, (1 << 32) | 2048, u64::MAX])
    {
        bs = bs.more(
            LOOP_SET_BLOCK_SIZE,
            format!("size {size}"),
            Arg::Value(size),
        );
    }
    all.push(bs);
    let mut unknown = Op::new("unknown ioctls", Preserve);
    for (i, cmd) in [0x4c0b, 0x4cff, LOOP_CTL_ADD].iter().enumerate() {
        unknown = unknown.core(*cmd, format!("{cmd:#x}"), Arg::Value(i as u64));
    }
    for cmd in [
        0x4c0c,
        0x4c0d,
        0x4c0e,
        0x4c0f,
        0x4c10,
        0x4c7f,
        LOOP_CTL_REMOVE,
        LOOP_CTL_GET_FREE,
        0x4c83,
        0x4bff,
        0x4d00,
        0,
        0xffff_ffff,
        0x4004_4c00,
        0x8004_4c05,
        0x0001_4c01,
        SG_IO,
        CDROM_GET_CAPABILITY,
        BLKSECTSET,
    ] {
        unknown = unknown.more(cmd, format!("{cmd:#x}"), Arg::Value(0));
    }
    all.push(unknown);
    all
}
