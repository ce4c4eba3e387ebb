// SPDX-License-Identifier: GPL-2.0

//! Structures that the kernel copies out: each byte must be written, and must not be uninitialized
//! memory.

use crate::{
    sys::{self, Abi, Arena, Ret},
    uapi::{
        self, CompatLoopInfo, LoopInfo, LoopInfo64, Plain, LO_FLAGS_AUTOCLEAR, LO_FLAGS_DIRECT_IO,
        LO_FLAGS_PARTSCAN, LO_FLAGS_READ_ONLY,
    },
};
use std::os::fd::RawFd;

const FLAGS: u32 = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR | LO_FLAGS_PARTSCAN | LO_FLAGS_DIRECT_IO;

/// Two patterns that differ in each byte, and between neighbours.
fn patterns(len: usize) -> [Vec<u8>; 2] {
    let one: Vec<u8> = (0..len)
        .map(|i| (i as u8).wrapping_mul(37) ^ 0x5c)
        .collect();
    let other = one.iter().map(|byte| !byte).collect();
    [one, other]
}

/// Calls an ioctl twice, over different patterns; returns the result, both buffers, and the indices
/// of the bytes that were not written.
pub fn twice(
    arena: &Arena,
    fd: RawFd,
    abi: Abi,
    cmd: u32,
    len: usize,
) -> (Ret, [Vec<u8>; 2], Vec<usize>) {
    let patterns = patterns(len);
    let mut last = Ok(0);
    let mut first = None;
    let left = [0, 1].map(|i| {
        let address = arena.put(&patterns[i], len);
        last = sys::ioctl(abi, fd, cmd, address);
        first.get_or_insert(last);
        arena.get(len)
    });
    let unwritten = (0..len)
        .filter(|i| left[0][*i] == patterns[0][*i] && left[1][*i] == patterns[1][*i])
        .collect();
    let ret = first.and_then(Result::err).map_or(last, Err);
    (ret, left, unwritten)
}

/// Calls an ioctl twice and reports wrong bytes. The status may change between the calls.
pub fn get(arena: &Arena, fd: RawFd, abi: Abi, cmd: u32, len: usize) -> (Ret, Option<String>) {
    let (ret, left, unwritten) = twice(arena, fd, abi, cmd, len);
    let wrong = match ret {
        // The other call may have succeeded.
        Err(_) => None,
        Ok(_) if !unwritten.is_empty() => Some(format!("not written: {unwritten:?}")),
        Ok(_) => left.iter().find_map(|bytes| odd(abi, cmd, bytes)),
    };
    (ret, wrong)
}

/// Reports bytes that no status has.
pub fn odd(abi: Abi, cmd: u32, bytes: &[u8]) -> Option<String> {
    let (rest, name, flags) = match (cmd, abi) {
        (uapi::LOOP_GET_STATUS64, _) => {
            let info = LoopInfo64::from_bytes(bytes);
            let mut rest = info;
            // Only these fields can be set.
            rest.device = 0;
            rest.inode = 0;
            rest.rdevice = 0;
            rest.offset = 0;
            rest.sizelimit = 0;
            rest.number = 0;
            rest.flags = 0;
            rest.file_name = [0; 64];
            (rest.bytes(), info.file_name, info.flags)
        }
        (uapi::LOOP_GET_STATUS, Abi::Native) => {
            let info = LoopInfo::from_bytes(bytes);
            let mut rest = info;
            rest.number = 0;
            rest.device = 0;
            rest.inode = 0;
            rest.rdevice = 0;
            rest.offset = 0;
            rest.flags = 0;
            rest.name = [0; 64];
            (rest.bytes(), info.name, info.flags as u32)
        }
        (uapi::LOOP_GET_STATUS, Abi::Compat) => {
            let info = CompatLoopInfo::from_bytes(bytes);
            let mut rest = info;
            rest.number = 0;
            rest.device = 0;
            rest.inode = 0;
            rest.rdevice = 0;
            rest.offset = 0;
            rest.flags = 0;
            rest.name = [0; 64];
            (rest.bytes(), info.name, info.flags as u32)
        }
        _ => return None,
    };
    if let Some(at) = rest.iter().position(|byte| *byte != 0) {
        return Some(format!("byte {at} is {:#x}, not 0: {bytes:x?}", rest[at]));
    }
    if flags & !FLAGS != 0 {
        return Some(format!("flags {flags:#x}"));
    }
    if name[63] != 0 {
        return Some("the name has no end".into());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_bytes_are_reported() {
        let mut info = LoopInfo64::zeroed();
        info.flags = FLAGS;
        let get = uapi::LOOP_GET_STATUS64;
        assert_eq!(odd(Abi::Native, get, &info.bytes()), None);
        info.crypt_name[3] = 1;
        assert!(odd(Abi::Native, get, &info.bytes()).is_some());

        let mut old = LoopInfo::zeroed();
        assert_eq!(odd(Abi::Native, uapi::LOOP_GET_STATUS, &old.bytes()), None);
        old.pad_end = 1;
        assert!(odd(Abi::Native, uapi::LOOP_GET_STATUS, &old.bytes()).is_some());
    }

    #[test]
    fn patterns_differ_in_each_byte() {
        let [one, other] = patterns(232);
        assert!(one.iter().zip(&other).all(|(a, b)| a != b));
    }
}
