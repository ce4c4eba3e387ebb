// SPDX-License-Identifier: GPL-2.0

//! Ioctls and other calls on a device: their arguments, and how they run.

use super::{Act, FileKind};
use crate::{
    sys::{self, Abi, Ret},
    uapi::{CompatLoopInfo, LoopConfig, LoopInfo, LoopInfo64, Plain},
    world::{name, Instance, World},
};
use std::os::fd::AsRawFd;

/// The argument of an ioctl.
#[derive(Clone)]
pub enum Arg {
    Value(u64),
    /// The address of an inaccessible page.
    Unmapped,
    /// Read-only memory, all zeroes.
    ReadOnly,
    /// A structure that the driver reads.
    In(Vec<u8>),
    /// A structure of which only the first bytes are readable.
    Partly(Vec<u8>, usize),
    /// A buffer of that size for the driver to write.
    Out(usize),
    Fd(FileKind),
    /// A file descriptor in the lower 32 bits, and a bit above them.
    HighFd(FileKind),
    Config(FileKind, Box<LoopConfig>),
    /// A buffer for the status that the driver writes.
    Info64,
    InfoOld,
    /// A status for the driver to read, in the old structure of the ABI.
    SetOld(Box<LoopInfo>),
}

/// Runs a case; returns the result of an ioctl, and the outcome. The caller looks for changes of
/// the device.
pub fn run(world: &World, instance: &Instance, abi: Abi, act: &Act) -> (Option<Ret>, String) {
    let (cmd, arg) = match act {
        Act::Ioctl(cmd, arg) => (*cmd, arg),
        Act::Call(f) => {
            let text = match instance.unprivileged {
                true => sys::unprivileged(|| f(world, instance, abi)),
                false => f(world, instance, abi),
            };
            return (None, text);
        }
    };
    let put = |bytes: &[u8], mapped| world.arena.put(bytes, mapped);
    let whole = |bytes: &[u8]| put(bytes, bytes.len());
    let filled = |len: usize| vec![0xa5; len];
    let old_len = match abi {
        Abi::Native => size_of::<LoopInfo>(),
        Abi::Compat => size_of::<CompatLoopInfo>(),
    };
    let mut passed = None;
    let mut pass = |kind: FileKind| {
        let file = kind.open(world, instance)?;
        let fd = file.0;
        passed = Some(file);
        Ok::<_, String>(fd)
    };
    let address = match arg {
        Arg::Value(value) => *value as usize,
        Arg::Unmapped => world.arena.unmapped(),
        Arg::ReadOnly => world.arena.read_only(),
        Arg::In(bytes) => whole(bytes),
        Arg::Partly(bytes, mapped) => put(bytes, *mapped),
        Arg::Out(len) => whole(&filled(*len)),
        Arg::Info64 => whole(&filled(size_of::<LoopInfo64>())),
        Arg::InfoOld => whole(&filled(old_len)),
        Arg::SetOld(info) => whole(&legacy_bytes(abi, info)),
        Arg::Fd(kind) | Arg::HighFd(kind) => match pass(*kind) {
            Ok(fd) if matches!(arg, Arg::HighFd(_)) => fd as u32 as usize | (1 << 32),
            Ok(fd) => fd as isize as usize,
            Err(why) => return (None, format!("not tried: {}", world.canonical(&why))),
        },
        Arg::Config(kind, config) => match pass(*kind) {
            Ok(fd) => whole(
                &LoopConfig {
                    fd: fd as u32,
                    ..**config
                }
                .bytes(),
            ),
            Err(why) => return (None, format!("not tried: {}", world.canonical(&why))),
        },
    };
    let ioctl = || sys::ioctl(abi, instance.fd.as_raw_fd(), cmd, address);
    let ret = match instance.unprivileged {
        true => sys::unprivileged(ioctl),
        false => ioctl(),
    };
    let mut text = name(ret);
    let out = match arg {
        Arg::Out(len) => {
            let bytes = world.arena.get(*len);
            match bytes.len() {
                _ if bytes == filled(*len) => String::new(),
                0..=8 => bytes
                    .iter()
                    .rev()
                    .fold(0, |n: u64, byte| (n << 8) | u64::from(*byte))
                    .to_string(),
                _ => format!("{bytes:?}"),
            }
        }
        Arg::Info64 if ret.is_ok() => {
            let info = LoopInfo64::from_bytes(&world.arena.get(size_of::<LoopInfo64>()));
            instance.describe_info(world, &info)
        }
        Arg::InfoOld if ret.is_ok() => {
            describe_legacy(world, instance, abi, &world.arena.get(old_len))
        }
        Arg::Info64 | Arg::InfoOld => {
            let len = if matches!(arg, Arg::Info64) {
                size_of::<LoopInfo64>()
            } else {
                old_len
            };
            // On failure no byte may be written.
            if world.arena.get(len) == filled(len) {
                ""
            } else {
                "written to"
            }
            .into()
        }
        _ => String::new(),
    };
    if !out.is_empty() {
        text.push_str(" [");
        text.push_str(&out);
        text.push(']');
    }
    // Closes the passed file: the effect of the close is part of the outcome.
    drop(passed);
    (Some(ret), text)
}

/// The bytes of an old status in the ABI's structure.
fn legacy_bytes(abi: Abi, info: &LoopInfo) -> Vec<u8> {
    match abi {
        Abi::Native => info.bytes(),
        Abi::Compat => CompatLoopInfo {
            number: info.number,
            device: info.device as u32,
            inode: info.inode as u32,
            rdevice: info.rdevice as u32,
            offset: info.offset,
            encrypt_type: info.encrypt_type,
            encrypt_key_size: info.encrypt_key_size,
            flags: info.flags,
            name: info.name,
            encrypt_key: info.encrypt_key,
            init: info.init.map(|word| word as u32),
            reserved: info.reserved,
        }
        .bytes(),
    }
}

/// The text of an old status, like that of a `struct loop_info64`.
fn describe_legacy(world: &World, instance: &Instance, abi: Abi, bytes: &[u8]) -> String {
    let (info, rest) = match abi {
        Abi::Native => {
            let old = LoopInfo::from_bytes(bytes);
            let info = LoopInfo64 {
                number: old.number as u32,
                device: old.device.into(),
                inode: old.inode,
                rdevice: old.rdevice.into(),
                offset: old.offset as i64 as u64,
                encrypt_type: old.encrypt_type as u32,
                encrypt_key_size: old.encrypt_key_size as u32,
                flags: old.flags as u32,
                file_name: old.name,
                encrypt_key: old.encrypt_key,
                init: old.init,
                ..LoopInfo64::zeroed()
            };
            (info, (old.pad, old.reserved, old.pad_end))
        }
        Abi::Compat => {
            let old = CompatLoopInfo::from_bytes(bytes);
            let info = LoopInfo64 {
                number: old.number as u32,
                device: old.device.into(),
                inode: old.inode.into(),
                rdevice: old.rdevice.into(),
                offset: old.offset as i64 as u64,
                encrypt_type: old.encrypt_type as u32,
                encrypt_key_size: old.encrypt_key_size as u32,
                flags: old.flags as u32,
                file_name: old.name,
                encrypt_key: old.encrypt_key,
                init: old.init.map(u64::from),
                ..LoopInfo64::zeroed()
            };
            (info, (0, old.reserved, 0))
        }
    };
    format!("{} {rest:?}", instance.describe_info(world, &info))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legacy_structures() {
        let info = LoopInfo {
            offset: -1,
            flags: 4,
            ..LoopInfo::zeroed()
        };
        assert_eq!(legacy_bytes(Abi::Native, &info).len(), 168);
        let compat = CompatLoopInfo::from_bytes(&legacy_bytes(Abi::Compat, &info));
        assert_eq!((compat.offset, compat.flags), (-1, 4));
    }
}
