// SPDX-License-Identifier: GPL-2.0

//! Unit tests of flags, ranges, limits, and the old layouts of `loop_info64`.

use kernel::prelude::*;

#[kunit_tests(loop_rs_config)]
mod suite {
    use super::super::*;
    use kernel::page::PAGE_SIZE;
    use kernel_ext::uapi::loop_::{CompatLoopInfo, LoopInfo, OldInfo};

    const ALL: u32 =
        LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR | LO_FLAGS_PARTSCAN | LO_FLAGS_DIRECT_IO;

    #[test]
    fn configure_rejects_unknown_flags() -> Result {
        for bit in 0..32 {
            let raw = 1u32 << bit;
            assert_eq!(Flags::configure(raw).is_ok(), raw & ALL != 0);
            assert_eq!(Flags::configure(raw | ALL).is_ok(), raw & ALL != 0);
        }
        assert_eq!(Flags::configure(0)?.bits(), 0);
        assert_eq!(Flags::configure(ALL)?.bits(), ALL);
        Ok(())
    }

    /// All sets of flags, with all sets that can be requested.
    #[test]
    fn set_status_changes_settable_flags() -> Result {
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
    fn flags_are_independent() -> Result {
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
    fn range_rejects_large_offsets() -> Result {
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
                    // The name is terminated.
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
    fn range_rejects_encryption() {
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
    fn range_sectors() {
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
            // Invalid sizes from a file system.
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

    /// Converts to an old layout and back. `None` if a value does not fit; otherwise whether all
    /// values are preserved.
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
    fn old_info_layouts() {
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
        // The layout of 64-bit tasks has a larger inode number.
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

    /// A regular file with 4096-byte blocks.
    const FILE: BackingLimits = BackingLimits {
        direct: None,
        read_only: false,
        has_fsync: true,
        supports_iocb_dsync: true,
        rotational: false,
        discard: (u32::MAX >> SECTOR_SHIFT, 4096),
    };

    #[test]
    fn requested_block_size() {
        let direct = BackingLimits {
            direct: Some(Alignment {
                offset: 4096,
                mem_mask: 4095,
                is_reported: true,
            }),
            ..FILE
        };
        // The block layer rejects invalid sizes, not the driver.
        for requested in [
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
            for backing in [FILE, direct] {
                let mut limits = QueueLimits::new();
                backing.apply(&mut limits, requested);
                assert_eq!(limits.logical_block_size(), requested);
            }
        }
    }

    #[test]
    fn default_block_size() {
        for (align, size) in [
            (None, 512),
            (Some(512), 512),
            (Some(4096), 4096),
            (Some(65_536), 65_536),
            // The block layer replaces 0 by its default.
            (Some(0), 0),
        ] {
            let backing = BackingLimits {
                direct: align.map(|offset| Alignment {
                    offset,
                    mem_mask: 0,
                    is_reported: true,
                }),
                ..FILE
            };
            assert_eq!(backing.block_size(0), size);
        }
    }

    #[test]
    fn dma_mask_is_at_least_a_sector() {
        for (mem_mask, mask) in [(0, 511), (3, 511), (511, 511), (1023, 1023), (4095, 4095)] {
            let direct = Alignment {
                offset: 4096,
                mem_mask,
                is_reported: true,
            };
            assert_eq!(dma_mask(Some(direct)), mask);
            assert_eq!(dma_mask(None), 511);
        }
    }

    #[test]
    fn write_cache_and_fua() {
        for (read_only, has_fsync, supports_iocb_dsync, expected) in [
            (false, true, true, (true, true)),
            (false, true, false, (true, false)),
            (false, false, true, (false, false)),
            (false, false, false, (false, false)),
            (true, true, true, (false, false)),
            (true, true, false, (false, false)),
            (true, false, true, (false, false)),
            (true, false, false, (false, false)),
        ] {
            let backing = BackingLimits {
                read_only,
                has_fsync,
                supports_iocb_dsync,
                ..FILE
            };
            assert_eq!(backing.write_cache(), expected);
        }
    }
}
