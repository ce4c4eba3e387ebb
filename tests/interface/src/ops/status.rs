// SPDX-License-Identifier: GPL-2.0

//! `LOOP_SET_STATUS64` and `LOOP_SET_STATUS`: the variants of a status.

use super::{Arg, Effect::Modify, Op};
use crate::{uapi::*, world::SIZE};

/// Offsets and size limits.
const OFFSETS: &[u64] = &[
    1,
    512,
    4096,
    SIZE - 1,
    SIZE,
    SIZE + 512,
    1 << 31,
    1 << 62,
    (1 << 63) - 1,
    1 << 63,
    u64::MAX,
];

/// The defined flags, some undefined ones, and the last bit.
const FLAG_BITS: [u32; 8] = [0, 1, 2, 3, 4, 5, 16, 31];

/// The variants of a status: the name of the case, and the structure.
pub fn status_variants() -> Vec<(String, LoopInfo64)> {
    let zero = LoopInfo64::zeroed();
    let mut all = vec![("zeroes".into(), zero)];
    for &n in OFFSETS {
        all.push((format!("offset {n}"), LoopInfo64 { offset: n, ..zero }));
        all.push((
            format!("limit {n}"),
            LoopInfo64 {
                sizelimit: n,
                ..zero
            },
        ));
    }
    for (offset, sizelimit) in [
        (4096, 4096),
        (512, SIZE),
        (SIZE - 512, 1024),
        ((1 << 63) - 1, (1 << 63) - 1),
        (1 << 63, 1 << 63),
        (512, 100),
    ] {
        all.push((
            format!("offset {offset} limit {sizelimit}"),
            LoopInfo64 {
                offset,
                sizelimit,
                ..zero
            },
        ));
    }
    for bit in FLAG_BITS {
        all.push((
            format!("flag {:#x}", 1u32 << bit),
            LoopInfo64 {
                flags: 1 << bit,
                ..zero
            },
        ));
    }
    all.push((
        "all flags".into(),
        LoopInfo64 {
            flags: u32::MAX,
            ..zero
        },
    ));
    for encrypt_type in [LO_CRYPT_XOR, 2, LO_CRYPT_CRYPTOAPI, 19, 1 << 31, u32::MAX] {
        all.push((
            format!("crypt {encrypt_type}"),
            LoopInfo64 {
                encrypt_type,
                ..zero
            },
        ));
    }
    for encrypt_key_size in [1, 32, 33, 1 << 31, u32::MAX] {
        all.push((
            format!("key size {encrypt_key_size}"),
            LoopInfo64 {
                encrypt_key_size,
                ..zero
            },
        ));
    }
    all.push((
        "name".into(),
        LoopInfo64 {
            file_name: padded_name(b"a name"),
            ..zero
        },
    ));
    all.push((
        "name without an end".into(),
        LoopInfo64 {
            file_name: [b'x'; 64],
            crypt_name: [b'y'; 64],
            ..zero
        },
    ));
    all.push((
        "ignored fields".into(),
        LoopInfo64 {
            device: 1,
            inode: 2,
            rdevice: 3,
            number: 4,
            crypt_name: [5; 64],
            encrypt_key: [6; 32],
            init: [7; 2],
            ..zero
        },
    ));
    // Two invalid fields: the error shows which is checked first.
    all.push((
        "crypt and offset".into(),
        LoopInfo64 {
            encrypt_type: 1,
            offset: 1 << 63,
            ..zero
        },
    ));
    all.push((
        "key size and offset".into(),
        LoopInfo64 {
            encrypt_key_size: 33,
            offset: 1 << 63,
            ..zero
        },
    ));
    all.push((
        "flag and offset".into(),
        LoopInfo64 {
            flags: 2,
            offset: 1 << 63,
            ..zero
        },
    ));
    all
}

/// A name, padded with zeroes.
fn padded_name(text: &[u8]) -> [u8; 64] {
    let mut name = [0; 64];
    name[..text.len()].copy_from_slice(text);
    name
}

pub fn set_status64() -> Op {
    const CMD: u32 = LOOP_SET_STATUS64;
    let zero = LoopInfo64::zeroed();
    let info = |info: LoopInfo64| Arg::In(info.bytes());
    let mut op = Op::new("LOOP_SET_STATUS64", Modify)
        .only_in(&["unbound", "bound", "bound direct"])
        .core(
            CMD,
            "a name",
            info(LoopInfo64 {
                file_name: padded_name(b"renamed"),
                ..zero
            }),
        )
        .core(
            CMD,
            "an offset",
            info(LoopInfo64 {
                offset: 1024,
                ..zero
            }),
        )
        .core(
            CMD,
            "a partition scan",
            info(LoopInfo64 {
                flags: LO_FLAGS_PARTSCAN,
                ..zero
            }),
        )
        .core(
            CMD,
            "autoclear",
            info(LoopInfo64 {
                flags: LO_FLAGS_AUTOCLEAR,
                ..zero
            }),
        )
        .core(
            CMD,
            "an offset too far",
            info(LoopInfo64 {
                offset: 1 << 63,
                ..zero
            }),
        )
        .core(CMD, "NULL", Arg::Value(0))
        .core(CMD, "unmapped", Arg::Unmapped)
        .native(CMD, "all but a byte", Arg::Partly(zero.bytes(), 231))
        .native(CMD, "kernel memory", Arg::Value(0xffff_8880_0000_0000));
    for (what, info) in status_variants() {
        op = op.native(CMD, what, Arg::In(info.bytes()));
    }
    op
}

pub fn set_status_old() -> Op {
    const CMD: u32 = LOOP_SET_STATUS;
    let zero = LoopInfo::zeroed();
    let info = |info| Arg::SetOld(Box::new(info));
    let mut op = Op::new("LOOP_SET_STATUS", Modify)
        .core(
            CMD,
            "a name",
            info(LoopInfo {
                name: padded_name(b"renamed"),
                ..zero
            }),
        )
        .core(
            CMD,
            "an offset",
            info(LoopInfo {
                offset: 1024,
                ..zero
            }),
        )
        .core(
            CMD,
            "a negative offset",
            info(LoopInfo {
                offset: -512,
                ..zero
            }),
        )
        .core(CMD, "NULL", Arg::Value(0))
        .core(CMD, "unmapped", Arg::Unmapped)
        .more(
            CMD,
            "all but a byte of 32-bit's",
            Arg::Partly(zero.bytes(), 139),
        )
        .more(CMD, "no more than 32-bit's", Arg::Partly(zero.bytes(), 140))
        .more(CMD, "all but a byte", Arg::Partly(zero.bytes(), 167))
        .more(CMD, "zeroes", info(zero))
        .more(
            CMD,
            "the largest offset",
            info(LoopInfo {
                offset: i32::MAX,
                ..zero
            }),
        )
        .more(
            CMD,
            "the least offset",
            info(LoopInfo {
                offset: i32::MIN,
                ..zero
            }),
        )
        .more(
            CMD,
            "crypt 1",
            info(LoopInfo {
                encrypt_type: 1,
                ..zero
            }),
        )
        .more(
            CMD,
            "crypt 18",
            info(LoopInfo {
                encrypt_type: 18,
                ..zero
            }),
        )
        .more(
            CMD,
            "key size 33",
            info(LoopInfo {
                encrypt_key_size: 33,
                ..zero
            }),
        )
        .more(
            CMD,
            "name without an end",
            info(LoopInfo {
                name: [b'x'; 64],
                ..zero
            }),
        )
        .more(
            CMD,
            "ignored fields",
            info(LoopInfo {
                number: 1,
                device: 2,
                inode: 3,
                rdevice: 4,
                encrypt_key: [5; 32],
                init: [6; 2],
                reserved: [7; 4],
                ..zero
            }),
        );
    for bit in FLAG_BITS {
        op = op.more(
            CMD,
            format!("flag {:#x}", 1u32 << bit),
            info(LoopInfo {
                flags: 1 << bit,
                ..zero
            }),
        );
    }
    op
}
