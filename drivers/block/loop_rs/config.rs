// SPDX-License-Identifier: GPL-2.0

//! The configuration of a device: flags, `loop_info64`, and the queue limits that follow from the
//! backing file's.

use kernel::{
    fs::File,
    prelude::*,
    sync::atomic::{Atomic, Relaxed},
};
use kernel_ext::{
    block::{QueueLimits, SECTOR_SHIFT, SECTOR_SIZE},
    fs::FileExt,
    uapi::loop_::{
        loop_info64, LO_FLAGS_AUTOCLEAR, LO_FLAGS_DIRECT_IO, LO_FLAGS_PARTSCAN, LO_FLAGS_READ_ONLY,
        LO_KEY_SIZE, LO_NAME_SIZE,
    },
};

/// Length of `lo_file_name`, including the terminating null byte.
pub(crate) const NAME_LEN: usize = LO_NAME_SIZE as usize;

/// `LO_FLAGS_*` of a bound device. Flags are changed under the device's state lock, and read
/// without it.
pub(crate) struct Flags(Atomic<u32>);

/// One of the `LO_FLAGS_*` bits.
#[derive(Clone, Copy)]
pub(crate) struct Flag(u32);

impl Flag {
    pub(crate) const READ_ONLY: Self = Self(LO_FLAGS_READ_ONLY);
    pub(crate) const AUTOCLEAR: Self = Self(LO_FLAGS_AUTOCLEAR);
    pub(crate) const PARTSCAN: Self = Self(LO_FLAGS_PARTSCAN);
    pub(crate) const DIRECT_IO: Self = Self(LO_FLAGS_DIRECT_IO);
}

impl Clone for Flags {
    fn clone(&self) -> Self {
        Self(Atomic::new(self.bits()))
    }
}

impl Flags {
    /// Flags that `LOOP_CONFIGURE` may set.
    const CONFIGURABLE: u32 =
        LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR | LO_FLAGS_PARTSCAN | LO_FLAGS_DIRECT_IO;
    /// Flags that `LOOP_SET_STATUS` may set.
    const SETTABLE: u32 = LO_FLAGS_AUTOCLEAR | LO_FLAGS_PARTSCAN;
    /// Flags that `LOOP_SET_STATUS` may clear.
    const CLEARABLE: u32 = LO_FLAGS_AUTOCLEAR;

    /// The flags of a new device.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `raw` has a flag that `LOOP_CONFIGURE` may not set.
    pub(crate) fn configure(raw: u32) -> Result<Self> {
        if raw & !Self::CONFIGURABLE != 0 {
            return Err(EINVAL);
        }
        Ok(Self(Atomic::new(raw)))
    }

    /// Returns the flags after `LOOP_SET_STATUS`, which ignores flags that it may not change.
    pub(crate) fn set_status(&self, raw: u32) -> Self {
        Self(Atomic::new(
            (self.bits() & !Self::CLEARABLE) | (raw & Self::SETTABLE),
        ))
    }

    /// All flags, as in `lo_flags`.
    pub(crate) fn bits(&self) -> u32 {
        self.0.load(Relaxed)
    }

    /// Whether a flag is set.
    pub(crate) fn has(&self, flag: Flag) -> bool {
        self.bits() & flag.0 != 0
    }

    /// Sets or clears a flag.
    pub(crate) fn set(&self, flag: Flag, on: bool) {
        let bits = self.bits();
        self.0
            .store(if on { bits | flag.0 } else { bits & !flag.0 }, Relaxed);
    }
}

/// The range of the backing file that the device maps, and the device's `lo_file_name`.
#[derive(Clone, Copy)]
pub(crate) struct Range {
    /// Start of the range in bytes. Not negative.
    pub(crate) offset: i64,
    /// Maximum length of the range in bytes; 0 means up to the end of the file. Not negative.
    pub(crate) sizelimit: i64,
    pub(crate) name: [u8; NAME_LEN],
}

impl Range {
    /// Converts `loop_info64` from user space.
    ///
    /// # Errors
    ///
    /// `EINVAL` for any kind of encryption, `EOVERFLOW` for an offset or size limit above
    /// `i64::MAX`.
    pub(crate) fn from_info(info: &loop_info64) -> Result<Self> {
        const LO_CRYPT_NONE: u32 = 0;
        const LO_CRYPT_XOR: u32 = 1;
        const LO_CRYPT_CRYPTOAPI: u32 = 18;

        if info.lo_encrypt_key_size > LO_KEY_SIZE {
            return Err(EINVAL);
        }
        match info.lo_encrypt_type {
            LO_CRYPT_NONE => (),
            LO_CRYPT_XOR => {
                pr_warn!("support for the xor transformation has been removed.\n");
                return Err(EINVAL);
            }
            LO_CRYPT_CRYPTOAPI => {
                pr_warn!("support for cryptoloop has been removed.  Use dm-crypt instead.\n");
                return Err(EINVAL);
            }
            _ => return Err(EINVAL),
        }
        let mut name = info.lo_file_name;
        if let Some(last) = name.last_mut() {
            *last = 0;
        }
        Ok(Self {
            offset: info.lo_offset.try_into().map_err(|_| EOVERFLOW)?,
            sizelimit: info.lo_sizelimit.try_into().map_err(|_| EOVERFLOW)?,
            name,
        })
    }

    /// The size in sectors of this range of `file`; 0 if the size of `file` is not available. May
    /// sleep.
    pub(crate) fn sectors(&self, file: &File) -> u64 {
        file.size().map_or(0, |size| self.sectors_of(size))
    }

    /// The size in sectors of this range of a file of `size` bytes.
    fn sectors_of(&self, size: i64) -> u64 {
        let mut size = size.saturating_sub(self.offset).max(0);
        if self.sizelimit > 0 {
            size = size.min(self.sizelimit);
        }
        size.unsigned_abs() >> SECTOR_SHIFT
    }
}

/// Alignment requirements of direct I/O to a backing file.
#[derive(Clone, Copy)]
pub(crate) struct Alignment {
    /// Required alignment of file offsets and lengths, in bytes.
    pub(crate) offset: u32,
    /// Mask of the address bits that must be clear in memory buffers.
    pub(crate) mem_mask: u32,
    /// The file system says that it does direct I/O to this file, and how it is to be aligned.
    pub(crate) is_reported: bool,
}

/// The properties of a backing file that determine the queue limits of the device.
#[derive(Clone, Copy)]
pub(crate) struct BackingLimits {
    /// Alignment of direct I/O, if direct I/O is enabled.
    pub(crate) direct: Option<Alignment>,
    pub(crate) read_only: bool,
    pub(crate) has_fsync: bool,
    /// The file system honours `IOCB_DSYNC` of a single write.
    pub(crate) supports_iocb_dsync: bool,
    pub(crate) rotational: bool,
    /// Maximum number of sectors of a discard, and the discard granularity in bytes.
    pub(crate) discard: (u32, u32),
}

impl BackingLimits {
    /// The logical block size. `requested` is the size that user space asks for, which the block
    /// layer validates; 0 selects the default.
    fn block_size(&self, requested: u32) -> u32 {
        match requested {
            0 => self.direct.map_or(SECTOR_SIZE, |align| align.offset),
            size => size,
        }
    }

    /// Whether the device has a volatile write cache, and whether it supports FUA.
    ///
    /// FUA is implemented as `IOCB_DSYNC` in the kiocb.
    fn write_cache(&self) -> (bool, bool) {
        let write_cache = self.has_fsync && !self.read_only;
        (write_cache, write_cache && self.supports_iocb_dsync)
    }

    /// Applies all limits. `block_size` is as in [`block_size`](Self::block_size).
    pub(crate) fn apply(&self, limits: &mut QueueLimits, block_size: u32) {
        let (write_cache, fua) = self.write_cache();
        let (sectors, granularity) = self.discard;
        limits
            .set_block_size(self.block_size(block_size))
            .set_write_cache(write_cache)
            .set_fua(fua)
            .set_rotational(self.rotational)
            .set_discard(sectors, granularity)
            .set_write_zeroes(sectors)
            .set_dma_alignment(dma_mask(self.direct));
    }
}

/// Applies the memory alignment of direct I/O, if direct I/O is enabled.
pub(crate) fn set_dma_alignment(limits: &mut QueueLimits, direct: Option<Alignment>) {
    limits.set_dma_alignment(dma_mask(direct));
}

/// Mask of the address bits that must be clear in the device's memory buffers, which direct I/O
/// passes to the backing file unchanged.
fn dma_mask(direct: Option<Alignment>) -> u32 {
    direct
        .map_or(0, |align| align.mem_mask)
        .max(SECTOR_SIZE - 1)
}

#[cfg(CONFIG_KUNIT = "y")]
mod tests;
