// SPDX-License-Identifier: GPL-2.0

//! Ioctls of the block layer.

use super::{
    Arg,
    Effect::{Modify, Preserve, Query},
    Op, HALF,
};
use crate::{
    sys::{self, Abi, Ret},
    uapi::*,
    world::{name, World, SIZE},
};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// `BLKPG` of a 64-bit program.
pub fn blkpg(world: &World, fd: &OwnedFd, op: i32, pno: i32, start: i64, length: i64) -> Ret {
    blkpg_as(world, fd.as_raw_fd(), Abi::Native, op, pno, start, length)
}

/// `BLKPG` with the structures of the ABI.
fn blkpg_as(world: &World, fd: RawFd, abi: Abi, op: i32, pno: i32, start: i64, length: i64) -> Ret {
    let partition = BlkpgPartition {
        start,
        length,
        pno,
        ..BlkpgPartition::zeroed()
    }
    .bytes();
    let size = match abi {
        Abi::Native => 24,
        Abi::Compat => 16,
    };
    let mut bytes = partition.clone();
    bytes.resize(partition.len() + size, 0);
    let address = world.arena.put(&bytes, bytes.len());
    let head = &mut bytes[partition.len()..];
    head[..4].copy_from_slice(&op.to_le_bytes());
    head[8..12].copy_from_slice(&(partition.len() as u32).to_le_bytes());
    match abi {
        Abi::Native => head[16..24].copy_from_slice(&(address as u64).to_le_bytes()),
        Abi::Compat => head[12..16].copy_from_slice(&(address as u32).to_le_bytes()),
    }
    let address = world.arena.put(&bytes, bytes.len());
    sys::ioctl(abi, fd, BLKPG, address + partition.len())
}

/// A range for `BLKDISCARD` and similar ioctls.
fn range(start: u64, len: u64) -> Arg {
    Arg::In([start.to_le_bytes(), len.to_le_bytes()].concat())
}

/// The ioctls of the block layer, most of which report the limits that the driver sets.
pub fn all() -> Vec<Op> {
    let mut get = Op::new("ioctls that get limits", Query);
    for (name, cmd, len) in [
        ("BLKROGET", BLKROGET, 4),
        ("BLKGETSIZE", BLKGETSIZE, 8),
        ("BLKGETSIZE64", BLKGETSIZE64, 8),
        ("BLKGETSIZE64_32", BLKGETSIZE64_32, 8),
        ("BLKSECTGET", BLKSECTGET, 2),
        ("BLKSSZGET", BLKSSZGET, 4),
        ("BLKPBSZGET", BLKPBSZGET, 4),
        ("BLKBSZGET", BLKBSZGET, 4),
        ("BLKBSZGET_32", BLKBSZGET_32, 4),
        ("BLKIOMIN", BLKIOMIN, 4),
        ("BLKIOOPT", BLKIOOPT, 4),
        ("BLKALIGNOFF", BLKALIGNOFF, 4),
        ("BLKDISCARDZEROES", BLKDISCARDZEROES, 4),
        ("BLKROTATIONAL", BLKROTATIONAL, 2),
        ("BLKRAGET", BLKRAGET, 8),
        ("BLKFRAGET", BLKFRAGET, 8),
        ("BLKGETZONESZ", BLKGETZONESZ, 4),
        ("BLKGETNRZONES", BLKGETNRZONES, 4),
        ("HDIO_GETGEO", HDIO_GETGEO, 16),
        ("FIGETBSZ", FIGETBSZ, 4),
    ] {
        get = get
            .core(cmd, name, Arg::Out(len))
            .more(cmd, format!("{name} NULL"), Arg::Value(0))
            .more(cmd, format!("{name} unmapped"), Arg::Unmapped);
    }
    let word = |value: u64| Arg::In(value.to_le_bytes().to_vec());
    vec![
        get,
        Op::new("BLKROSET", Modify)
            .core(BLKROSET, "1", word(1))
            .core(BLKROSET, "0", word(0))
            .core(BLKROSET, "unmapped", Arg::Unmapped),
        Op::new("BLKRASET", Modify)
            .core(BLKRASET, "64", Arg::Value(64))
            .more(BLKFRASET, "BLKFRASET 0", Arg::Value(0)),
        Op::new("BLKBSZSET", Modify)
            .core(BLKBSZSET, "4096", word(4096))
            .more(BLKBSZSET, "512", word(512))
            .more(BLKBSZSET, "1000", word(1000))
            .more(BLKBSZSET_32, "4096 of 32 bits", word(4096)),
        Op::new("BLKFLSBUF", Preserve).core(BLKFLSBUF, "0", Arg::Value(0)),
        Op::new("BLKRRPART", Modify).core(BLKRRPART, "0", Arg::Value(0)),
        Op::new("BLKPG", Modify)
            .call_both("add, resize, delete", |world, instance, abi| {
                let fd = instance.fd.as_raw_fd();
                let mut done = Vec::new();
                for (op, pno, start, length) in [
                    (BLKPG_ADD_PARTITION, 7, 256 << 10, 4096),
                    (BLKPG_ADD_PARTITION, 7, 256 << 10, 4096),
                    (BLKPG_RESIZE_PARTITION, 7, 256 << 10, 8192),
                    (BLKPG_DEL_PARTITION, 7, 0, 0),
                    (BLKPG_DEL_PARTITION, 7, 0, 0),
                ] {
                    done.push(name(blkpg_as(world, fd, abi, op, pno, start, length)));
                }
                done.join(" ")
            })
            .call_both("bad arguments", |world, instance, abi| {
                let fd = instance.fd.as_raw_fd();
                let mut done = Vec::new();
                for (op, pno, start, length) in [
                    (0, 1, 0, 4096),
                    (BLKPG_ADD_PARTITION, 0, 4096, 4096),
                    (BLKPG_ADD_PARTITION, 70000, 4096, 4096),
                    (BLKPG_ADD_PARTITION, 5, 1 << 40, 4096),
                    (BLKPG_ADD_PARTITION, 5, 100, 4096),
                    (BLKPG_ADD_PARTITION, 5, -512, 4096),
                    (BLKPG_ADD_PARTITION, 5, 512, i64::MAX - 511),
                ] {
                    done.push(name(blkpg_as(world, fd, abi, op, pno, start, length)));
                }
                done.join(" ")
            }),
        Op::new("BLKDISCARD", Preserve)
            .core(BLKDISCARD, "a block", range(HALF, 4096))
            .more(BLKDISCARD, "nothing", range(HALF, 0))
            .more(BLKDISCARD, "unaligned", range(HALF + 1, 4096))
            .more(BLKDISCARD, "beyond", range(SIZE, 4096))
            .more(BLKDISCARD, "overflow", range(u64::MAX - 511, 4096))
            .core(BLKSECDISCARD, "securely", range(HALF, 4096)),
        Op::new("BLKZEROOUT", Preserve)
            .core(BLKZEROOUT, "a block", range(HALF, 4096))
            .more(BLKZEROOUT, "unaligned", range(HALF + 1, 4096))
            .more(BLKZEROOUT, "beyond", range(SIZE, 4096)),
        Op::new("other ioctls of the block layer", Preserve)
            .core(BLKTRACESTART, "BLKTRACESTART", Arg::Value(0))
            .core(BLKREPORTZONE, "BLKREPORTZONE", Arg::Out(16))
            .core(IOC_PR_CLEAR, "IOC_PR_CLEAR", word(1)),
    ]
}
