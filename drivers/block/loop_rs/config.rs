// SPDX-License-Identifier: GPL-2.0

//! How a device is configured: flags, `loop_info64`, and the queue limits that follow.

use crate::backing::Binding;
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

/// Length of the name that user space gives a device.
pub(crate) const NAME_LEN: usize = LO_NAME_SIZE as usize;

/// The flags of a bound device. They change one at a time, under the device's `state`.
pub(crate) struct Flags(Atomic<u32>);

/// One of the `LO_FLAGS_*`.
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
    /// What `LOOP_CONFIGURE` may set.
    const CONFIGURABLE: u32 =
        LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR | LO_FLAGS_PARTSCAN | LO_FLAGS_DIRECT_IO;
    /// What `LOOP_SET_STATUS` may set.
    const SETTABLE: u32 = LO_FLAGS_AUTOCLEAR | LO_FLAGS_PARTSCAN;
    /// What `LOOP_SET_STATUS` may clear.
    const CLEARABLE: u32 = LO_FLAGS_AUTOCLEAR;

    /// The flags of a new device.
    ///
    /// # Errors
    ///
    /// `EINVAL` for what cannot be set.
    pub(crate) fn configure(raw: u32) -> Result<Self> {
        if raw & !Self::CONFIGURABLE != 0 {
            return Err(EINVAL);
        }
        Ok(Self(Atomic::new(raw)))
    }

    /// These flags changed by `LOOP_SET_STATUS`, which ignores what it cannot change.
    pub(crate) fn set_status(&self, raw: u32) -> Self {
        Self(Atomic::new(
            (self.bits() & !Self::CLEARABLE) | (raw & Self::SETTABLE),
        ))
    }

    /// All flags, as user space sees them.
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

/// The part of a file that a device shows, and the name that user space gave it.
#[derive(Clone, Copy)]
pub(crate) struct Range {
    /// Where it starts, in bytes.
    pub(crate) offset: i64,
    /// Its length in bytes; 0 when it goes to the end of the file.
    pub(crate) sizelimit: i64,
    pub(crate) name: [u8; NAME_LEN],
}

impl Range {
    /// Takes the range from what user space passed in.
    ///
    /// # Errors
    ///
    /// `EINVAL` for encryption, which there is none of, `EOVERFLOW` for numbers beyond what files
    /// have.
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

    /// The size in sectors of this range of a file; 0 when the file's cannot be told. May sleep.
    pub(crate) fn sectors(&self, file: &File) -> u64 {
        let Ok(size) = file.size() else { return 0 };
        let mut size = size.saturating_sub(self.offset).max(0);
        if self.sizelimit > 0 {
            size = size.min(self.sizelimit);
        }
        size.unsigned_abs() >> SECTOR_SHIFT
    }
}

/// Sets the limits that follow from what a device is bound to. `block_size` 0 leaves that to us. May
/// sleep.
pub(crate) fn set_limits(limits: &mut QueueLimits, binding: &Binding, block_size: u32) {
    let file = binding.file();
    let block_size = match block_size {
        0 if binding.flags.has(Flag::DIRECT_IO) => binding.backing.dio_offset_align(),
        0 => SECTOR_SIZE,
        size => size,
    };
    let below = file.as_bdev().or_else(|| file.fs_bdev());

    // A discarded range reads as zeroes, on a device as in a file: both are `fallocate`, which
    // writes zeroes where it must.
    let (sectors, granularity) = if let Some(bdev) = file.as_bdev() {
        (bdev.write_zeroes_sectors(), bdev.discard_granularity())
    } else if file.has_fallocate() {
        match file.fs_block_size() {
            Ok(size) => (u32::MAX >> SECTOR_SHIFT, size),
            Err(_) => (0, 0),
        }
    } else {
        (0, 0)
    };

    // What is written can be made safe as for a file that was opened with `O_DSYNC`, where the file
    // system takes it from the kiocb.
    let write_cache = file.has_fsync() && !binding.flags.has(Flag::READ_ONLY);
    limits
        .set_block_size(block_size)
        .set_write_cache(write_cache)
        .set_fua(write_cache && file.honours_dsync())
        .set_rotational(below.is_some_and(|bdev| bdev.is_rotational()))
        .set_discard(sectors, granularity)
        .set_write_zeroes(sectors);
    set_dma_limit(limits, binding);
}

/// Sets the alignment of memory: direct I/O hands it to the backing file as it is.
pub(crate) fn set_dma_limit(limits: &mut QueueLimits, binding: &Binding) {
    limits.set_dma_alignment(if binding.flags.has(Flag::DIRECT_IO) {
        binding.backing.dio_mem_mask().max(SECTOR_SIZE - 1)
    } else {
        SECTOR_SIZE - 1
    });
}
