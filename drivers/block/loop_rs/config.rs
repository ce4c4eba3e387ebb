// SPDX-License-Identifier: GPL-2.0

//! How a device is configured: flags, `loop_info64`, and the queue limits that follow.

use crate::backing::{Alignment, Binding};
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
        file.size().map_or(0, |size| self.sectors_of(size))
    }

    /// The same for a file of `size` bytes.
    fn sectors_of(&self, size: i64) -> u64 {
        let mut size = size.saturating_sub(self.offset).max(0);
        if self.sizelimit > 0 {
            size = size.min(self.sizelimit);
        }
        size.unsigned_abs() >> SECTOR_SHIFT
    }
}

/// What the limits of a device follow from.
#[derive(Clone, Copy)]
struct Below {
    /// What direct I/O is aligned to, if it is to be used.
    direct: Option<Alignment>,
    read_only: bool,
    has_fsync: bool,
    honours_dsync: bool,
    rotational: bool,
    /// How many sectors can be discarded at a time, and in units of how many bytes.
    discard: (u32, u32),
}

impl Below {
    /// Asks the file, and what it is on. May sleep.
    fn look(binding: &Binding) -> Self {
        let file = binding.file();
        // A discarded range reads as zeroes, on a device as in a file: both are `fallocate`, which
        // writes zeroes where it must.
        let (rotational, discard) = if let Some(bdev) = file.as_bdev() {
            let discard = (bdev.write_zeroes_sectors(), bdev.discard_granularity());
            (bdev.is_rotational(), discard)
        } else {
            let rotational = file.fs_device().is_some_and(|device| device.is_rotational);
            let discard = if file.has_fallocate() {
                file.fs_block_size()
                    .map_or((0, 0), |size| (u32::MAX >> SECTOR_SHIFT, size))
            } else {
                (0, 0)
            };
            (rotational, discard)
        };
        Self {
            direct: binding.direct_alignment(),
            read_only: binding.flags.has(Flag::READ_ONLY),
            has_fsync: file.has_fsync(),
            honours_dsync: file.honours_dsync(),
            rotational,
            discard,
        }
    }

    /// The block size, when `asked` is what user space asks for; 0 leaves that to us. The block layer
    /// refuses what is none.
    fn block_size(&self, asked: u32) -> u32 {
        match asked {
            0 => self.direct.map_or(SECTOR_SIZE, |align| align.offset),
            size => size,
        }
    }

    /// Whether flushes are to be sent, and writes with FUA: what is written can be made safe as for a
    /// file that was opened with `O_DSYNC`, where the file system takes it from the kiocb.
    fn cache(&self) -> (bool, bool) {
        let cache = self.has_fsync && !self.read_only;
        (cache, cache && self.honours_dsync)
    }

    /// Changes the limits to those of this; `asked` as for [`block_size`](Self::block_size).
    fn limit(&self, limits: &mut QueueLimits, asked: u32) {
        let (write_cache, fua) = self.cache();
        let (sectors, granularity) = self.discard;
        limits
            .set_block_size(self.block_size(asked))
            .set_write_cache(write_cache)
            .set_fua(fua)
            .set_rotational(self.rotational)
            .set_discard(sectors, granularity)
            .set_write_zeroes(sectors)
            .set_dma_alignment(dma_mask(self.direct));
    }
}

/// Mask of the address bits that must be clear in memory: direct I/O hands it to the backing file as it
/// is.
fn dma_mask(direct: Option<Alignment>) -> u32 {
    direct
        .map_or(0, |align| align.mem_mask)
        .max(SECTOR_SIZE - 1)
}

/// Sets the limits that follow from what a device is bound to. `block_size` 0 leaves that to us. May
/// sleep.
pub(crate) fn set_limits(limits: &mut QueueLimits, binding: &Binding, block_size: u32) {
    Below::look(binding).limit(limits, block_size);
}

/// Sets the alignment of memory alone.
pub(crate) fn set_dma_limit(limits: &mut QueueLimits, binding: &Binding) {
    limits.set_dma_alignment(dma_mask(binding.direct_alignment()));
}

#[kunit_tests(loop_rs_config)]
mod tests {
    use super::*;
    use kernel::page::PAGE_SIZE;
    use kernel_ext::uapi::loop_::{CompatLoopInfo, LoopInfo, OldInfo};

    const ALL: u32 =
        LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR | LO_FLAGS_PARTSCAN | LO_FLAGS_DIRECT_IO;

    #[test]
    fn flags_that_are_none_are_refused() -> Result {
        for bit in 0..32 {
            let raw = 1u32 << bit;
            assert_eq!(Flags::configure(raw).is_ok(), raw & ALL != 0);
            assert_eq!(Flags::configure(raw | ALL).is_ok(), raw & ALL != 0);
        }
        assert_eq!(Flags::configure(0)?.bits(), 0);
        assert_eq!(Flags::configure(ALL)?.bits(), ALL);
        Ok(())
    }

    /// All sets of flags before, and all that can be asked for.
    #[test]
    fn set_status_changes_what_it_may() -> Result {
        for before in (0..32).filter(|bits| bits & !ALL == 0) {
            for raw in Iterator::chain(0..64, [u32::MAX, !ALL]) {
                let after = Flags::configure(before)?.set_status(raw);
                let autoclear = raw & LO_FLAGS_AUTOCLEAR;
                let partscan = (before | raw) & LO_FLAGS_PARTSCAN;
                let rest = before & (LO_FLAGS_READ_ONLY | LO_FLAGS_DIRECT_IO);
                assert_eq!(after.bits(), autoclear | partscan | rest);
            }
        }
        Ok(())
    }

    #[test]
    fn a_flag_is_set_and_cleared_alone() -> Result {
        for flag in [
            Flag::READ_ONLY,
            Flag::AUTOCLEAR,
            Flag::PARTSCAN,
            Flag::DIRECT_IO,
        ] {
            let flags = Flags::configure(0)?;
            flags.set(flag, true);
            assert!(flags.has(flag));
            assert_eq!(flags.bits(), flag.0);
            let flags = Flags::configure(ALL)?;
            flags.set(flag, false);
            assert!(!flags.has(flag));
            assert_eq!(flags.bits(), ALL & !flag.0);
        }
        Ok(())
    }

    fn info(offset: u64, sizelimit: u64) -> loop_info64 {
        loop_info64 {
            lo_offset: offset,
            lo_sizelimit: sizelimit,
            lo_file_name: [b'x'; NAME_LEN],
            ..Default::default()
        }
    }

    #[test]
    fn offsets_beyond_a_file_are_refused() -> Result {
        const MAX: u64 = i64::MAX as u64;
        for (offset, sizelimit, ok) in [
            (0, 0, true),
            (1, 1, true),
            (MAX, MAX, true),
            (MAX + 1, 0, false),
            (0, MAX + 1, false),
            (u64::MAX, u64::MAX, false),
        ] {
            let range = Range::from_info(&info(offset, sizelimit));
            match range {
                Ok(range) => {
                    assert!(ok);
                    assert_eq!(range.offset as u64, offset);
                    assert_eq!(range.sizelimit as u64, sizelimit);
                    // The name ends within its room.
                    assert_eq!(range.name[NAME_LEN - 1], 0);
                    assert_eq!(range.name[NAME_LEN - 2], b'x');
                }
                Err(e) => {
                    assert!(!ok);
                    assert_eq!(e, EOVERFLOW);
                }
            }
        }
        Ok(())
    }

    #[test]
    fn encryption_is_refused() {
        for (kind, key_size) in [(1, 0), (18, 0), (2, 0), (u32::MAX, 0), (0, LO_KEY_SIZE + 1)] {
            let info = loop_info64 {
                lo_encrypt_type: kind,
                lo_encrypt_key_size: key_size,
                ..info(0, 0)
            };
            assert_eq!(Range::from_info(&info).err(), Some(EINVAL));
        }
        let info = loop_info64 {
            lo_encrypt_key_size: LO_KEY_SIZE,
            ..info(0, 0)
        };
        assert!(Range::from_info(&info).is_ok());
    }

    #[test]
    fn sizes_at_the_edges() {
        const MAX: i64 = i64::MAX;
        for (offset, sizelimit, size, sectors) in [
            (0, 0, 0, 0),
            (0, 0, 511, 0),
            (0, 0, 512, 1),
            (0, 0, MAX, MAX as u64 >> 9),
            (1, 0, 512, 0),
            (512, 0, 512, 0),
            (513, 0, 512, 0),
            (MAX, 0, MAX, 0),
            (MAX, MAX, 0, 0),
            (0, 1, MAX, 0),
            (0, 1023, MAX, 1),
            (0, 4096, 1024, 2),
            (1024, 4096, 1536, 1),
            (MAX - 512, 0, MAX, 1),
            (MAX - 512, MAX, MAX, 1),
            // What no file has, in case a file system says so.
            (0, 0, -1, 0),
            (MAX, 0, i64::MIN, 0),
            (0, 512, i64::MIN, 0),
        ] {
            let range = Range {
                offset,
                sizelimit,
                name: [0; NAME_LEN],
            };
            assert_eq!(range.sectors_of(size), sectors);
        }
    }

    /// There and back, as far as the old form has room: values either fit, and come back, or make
    /// it fail.
    fn round_trip<I: OldInfo>(new: &loop_info64) -> Option<bool> {
        let back = I::from_info64(new)?.to_info64();
        Some(
            back.lo_number == new.lo_number
                && back.lo_device == new.lo_device
                && back.lo_inode == new.lo_inode
                && back.lo_rdevice == new.lo_rdevice
                && back.lo_offset == new.lo_offset
                && back.lo_sizelimit == 0
                && back.lo_flags == new.lo_flags
                && back.lo_encrypt_type == 0
                && back.lo_file_name == new.lo_file_name,
        )
    }

    #[test]
    fn old_forms_of_the_info() {
        let new = loop_info64 {
            lo_number: 7,
            lo_device: 0xffff,
            lo_inode: 0xffff_ffff,
            lo_rdevice: 0x0801,
            lo_offset: 0x7fff_ffff,
            lo_sizelimit: 1 << 40,
            lo_flags: ALL,
            lo_file_name: [b'n'; NAME_LEN],
            ..Default::default()
        };
        assert_eq!(round_trip::<LoopInfo>(&new), Some(true));
        assert_eq!(round_trip::<CompatLoopInfo>(&new), Some(true));

        let offset = loop_info64 {
            lo_offset: 1 << 31,
            ..new
        };
        assert_eq!(round_trip::<LoopInfo>(&offset), None);
        assert_eq!(round_trip::<CompatLoopInfo>(&offset), None);
        // 64-bit tasks have room for more.
        let inode = loop_info64 {
            lo_inode: 1 << 32,
            ..new
        };
        assert_eq!(round_trip::<LoopInfo>(&inode), Some(true));
        assert_eq!(round_trip::<CompatLoopInfo>(&inode), None);
        let device = loop_info64 {
            lo_device: 1 << 16,
            ..new
        };
        assert_eq!(round_trip::<LoopInfo>(&device), Some(true));
        assert_eq!(round_trip::<CompatLoopInfo>(&device), None);
    }

    /// A file on a disk of 4096-byte blocks.
    const FILE: Below = Below {
        direct: None,
        read_only: false,
        has_fsync: true,
        honours_dsync: true,
        rotational: false,
        discard: (u32::MAX >> SECTOR_SHIFT, 4096),
    };

    #[test]
    fn a_block_size_that_is_asked_for() {
        let direct = Below {
            direct: Some(Alignment {
                offset: 4096,
                mem_mask: 4095,
            }),
            ..FILE
        };
        // Those that are none reach the block layer, which refuses them.
        for asked in [
            1,
            511,
            512,
            513,
            1000,
            4096,
            PAGE_SIZE as u32 * 2,
            65_536,
            u32::MAX,
        ] {
            for below in [FILE, direct] {
                let mut limits = QueueLimits::new();
                below.limit(&mut limits, asked);
                assert_eq!(limits.logical_block_size(), asked);
            }
        }
    }

    #[test]
    fn a_block_size_of_our_own() {
        for (align, size) in [
            (None, 512),
            (Some(512), 512),
            (Some(4096), 4096),
            (Some(65_536), 65_536),
            // The block layer's default.
            (Some(0), 0),
        ] {
            let below = Below {
                direct: align.map(|offset| Alignment {
                    offset,
                    mem_mask: 0,
                }),
                ..FILE
            };
            assert_eq!(below.block_size(0), size);
        }
    }

    #[test]
    fn memory_is_aligned_to_sectors_at_least() {
        for (mem_mask, mask) in [(0, 511), (3, 511), (511, 511), (1023, 1023), (4095, 4095)] {
            let direct = Alignment {
                offset: 4096,
                mem_mask,
            };
            assert_eq!(dma_mask(Some(direct)), mask);
            assert_eq!(dma_mask(None), 511);
        }
    }

    #[test]
    fn what_can_be_made_safe() {
        for (read_only, has_fsync, honours_dsync, expected) in [
            (false, true, true, (true, true)),
            (false, true, false, (true, false)),
            (false, false, true, (false, false)),
            (false, false, false, (false, false)),
            (true, true, true, (false, false)),
            (true, true, false, (false, false)),
            (true, false, true, (false, false)),
            (true, false, false, (false, false)),
        ] {
            let below = Below {
                read_only,
                has_fsync,
                honours_dsync,
                ..FILE
            };
            assert_eq!(below.cache(), expected);
        }
    }
}
