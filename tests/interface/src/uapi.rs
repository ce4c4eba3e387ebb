// SPDX-License-Identifier: GPL-2.0

//! Definitions of `include/uapi/linux/loop.h` and `linux/fs.h`.

#![allow(dead_code)] // All of the interface, used or not.

pub const LOOP_SET_FD: u32 = 0x4c00;
pub const LOOP_CLR_FD: u32 = 0x4c01;
pub const LOOP_SET_STATUS: u32 = 0x4c02;
pub const LOOP_GET_STATUS: u32 = 0x4c03;
pub const LOOP_SET_STATUS64: u32 = 0x4c04;
pub const LOOP_GET_STATUS64: u32 = 0x4c05;
pub const LOOP_CHANGE_FD: u32 = 0x4c06;
pub const LOOP_SET_CAPACITY: u32 = 0x4c07;
pub const LOOP_SET_DIRECT_IO: u32 = 0x4c08;
pub const LOOP_SET_BLOCK_SIZE: u32 = 0x4c09;
pub const LOOP_CONFIGURE: u32 = 0x4c0a;

pub const LOOP_CTL_ADD: u32 = 0x4c80;
pub const LOOP_CTL_REMOVE: u32 = 0x4c81;
pub const LOOP_CTL_GET_FREE: u32 = 0x4c82;

pub const LO_FLAGS_READ_ONLY: u32 = 1;
pub const LO_FLAGS_AUTOCLEAR: u32 = 4;
pub const LO_FLAGS_PARTSCAN: u32 = 8;
pub const LO_FLAGS_DIRECT_IO: u32 = 16;

pub const LO_CRYPT_XOR: u32 = 1;
pub const LO_CRYPT_CRYPTOAPI: u32 = 18;

/// A structure of the interface: without uninitialized padding, and valid for any bytes.
///
/// # Safety
///
/// Only for structures with these properties.
pub unsafe trait Plain: Copy {
    fn bytes(&self) -> Vec<u8> {
        // SAFETY: There is no padding.
        unsafe { std::slice::from_raw_parts((&raw const *self).cast(), size_of::<Self>()) }.to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        assert!(bytes.len() >= size_of::<Self>());
        // SAFETY: `bytes` has the size of the structure, for which all bytes are valid.
        unsafe { bytes.as_ptr().cast::<Self>().read_unaligned() }
    }

    fn zeroed() -> Self {
        Self::from_bytes(&vec![0; size_of::<Self>()])
    }
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct LoopInfo64 {
    pub device: u64,
    pub inode: u64,
    pub rdevice: u64,
    pub offset: u64,
    pub sizelimit: u64,
    pub number: u32,
    pub encrypt_type: u32,
    pub encrypt_key_size: u32,
    pub flags: u32,
    pub file_name: [u8; 64],
    pub crypt_name: [u8; 64],
    pub encrypt_key: [u8; 32],
    pub init: [u64; 2],
}

// SAFETY: No padding.
unsafe impl Plain for LoopInfo64 {}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct LoopConfig {
    pub fd: u32,
    pub block_size: u32,
    pub info: LoopInfo64,
    pub reserved: [u64; 8],
}

// SAFETY: No padding.
unsafe impl Plain for LoopConfig {}

/// `__kernel_old_dev_t`.
#[cfg(target_arch = "x86_64")]
pub type OldDev = u64;
#[cfg(target_arch = "aarch64")]
pub type OldDev = u32;

/// `struct loop_info`, the old one.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct LoopInfo {
    pub number: i32,
    #[cfg(target_arch = "x86_64")]
    pub pad: u32,
    pub device: OldDev,
    pub inode: u64,
    pub rdevice: OldDev,
    pub offset: i32,
    pub encrypt_type: i32,
    pub encrypt_key_size: i32,
    pub flags: i32,
    pub name: [u8; 64],
    pub encrypt_key: [u8; 32],
    #[cfg(target_arch = "aarch64")]
    pub pad: u32,
    pub init: [u64; 2],
    pub reserved: [u8; 4],
    pub pad_end: u32,
}

// SAFETY: The padding is spelled out.
unsafe impl Plain for LoopInfo {}

/// `struct loop_info` of a 32-bit program.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CompatLoopInfo {
    pub number: i32,
    pub device: u32,
    pub inode: u32,
    pub rdevice: u32,
    pub offset: i32,
    pub encrypt_type: i32,
    pub encrypt_key_size: i32,
    pub flags: i32,
    pub name: [u8; 64],
    pub encrypt_key: [u8; 32],
    pub init: [u32; 2],
    pub reserved: [u8; 4],
}

// SAFETY: No padding.
unsafe impl Plain for CompatLoopInfo {}

const fn io(nr: u32) -> u32 {
    (0x12 << 8) | nr
}

const fn ior(kind: u32, nr: u32, size: u32) -> u32 {
    (2 << 30) | (size << 16) | (kind << 8) | nr
}

const fn iow(kind: u32, nr: u32, size: u32) -> u32 {
    (1 << 30) | (size << 16) | (kind << 8) | nr
}

pub const BLKROSET: u32 = io(93);
pub const BLKROGET: u32 = io(94);
pub const BLKRRPART: u32 = io(95);
pub const BLKGETSIZE: u32 = io(96);
pub const BLKFLSBUF: u32 = io(97);
pub const BLKRASET: u32 = io(98);
pub const BLKRAGET: u32 = io(99);
pub const BLKFRASET: u32 = io(100);
pub const BLKFRAGET: u32 = io(101);
pub const BLKSECTSET: u32 = io(102);
pub const BLKSECTGET: u32 = io(103);
pub const BLKSSZGET: u32 = io(104);
pub const BLKPG: u32 = io(105);
pub const BLKBSZGET: u32 = ior(0x12, 112, 8);
pub const BLKBSZSET: u32 = iow(0x12, 113, 8);
pub const BLKGETSIZE64: u32 = ior(0x12, 114, 8);
pub const BLKBSZGET_32: u32 = ior(0x12, 112, 4);
pub const BLKBSZSET_32: u32 = iow(0x12, 113, 4);
pub const BLKGETSIZE64_32: u32 = ior(0x12, 114, 4);
pub const BLKTRACESTART: u32 = io(116);
pub const BLKDISCARD: u32 = io(119);
pub const BLKIOMIN: u32 = io(120);
pub const BLKIOOPT: u32 = io(121);
pub const BLKALIGNOFF: u32 = io(122);
pub const BLKPBSZGET: u32 = io(123);
pub const BLKDISCARDZEROES: u32 = io(124);
pub const BLKSECDISCARD: u32 = io(125);
pub const BLKROTATIONAL: u32 = io(126);
pub const BLKZEROOUT: u32 = io(127);
pub const BLKGETDISKSEQ: u32 = ior(0x12, 128, 8);
pub const BLKGETZONESZ: u32 = ior(0x12, 132, 4);
pub const BLKGETNRZONES: u32 = ior(0x12, 133, 4);
pub const BLKREPORTZONE: u32 = (3 << 30) | (16 << 16) | (0x12 << 8) | 130;
pub const HDIO_GETGEO: u32 = 0x0301;
pub const CDROM_GET_CAPABILITY: u32 = 0x5331;
pub const SG_IO: u32 = 0x2285;
pub const IOC_PR_CLEAR: u32 = iow(b'p' as u32, 205, 8);
pub const FIGETBSZ: u32 = 2;

pub const BLKPG_ADD_PARTITION: i32 = 1;
pub const BLKPG_DEL_PARTITION: i32 = 2;
pub const BLKPG_RESIZE_PARTITION: i32 = 3;

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct BlkpgPartition {
    pub start: i64,
    pub length: i64,
    pub pno: i32,
    pub devname: [u8; 64],
    pub volname: [u8; 64],
    pub pad: u32,
}

// SAFETY: The padding is spelled out.
unsafe impl Plain for BlkpgPartition {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(size_of::<LoopInfo64>(), 232);
        assert_eq!(size_of::<LoopConfig>(), 304);
        assert_eq!(size_of::<LoopInfo>(), 168);
        assert_eq!(size_of::<CompatLoopInfo>(), 140);
        assert_eq!(size_of::<BlkpgPartition>(), 152);
        assert_eq!(BLKGETSIZE64, 0x8008_1272);
        assert_eq!(BLKGETDISKSEQ, 0x8008_1280);
    }

    #[test]
    fn bytes_and_back() {
        let config = LoopConfig {
            fd: 7,
            block_size: 512,
            ..LoopConfig::zeroed()
        };
        assert_eq!(config.bytes()[..5], [7, 0, 0, 0, 0]);
        assert_eq!(LoopConfig::from_bytes(&config.bytes()).block_size, 512);
    }
}
