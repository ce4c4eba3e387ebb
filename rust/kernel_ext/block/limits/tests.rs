// SPDX-License-Identifier: GPL-2.0

use kernel::prelude::*;

#[kunit_tests(kernel_ext_limits)]
mod tests {
    use super::super::*;

    #[test]
    fn limits_that_the_block_layer_warns_of() {
        let page = bindings::PAGE_SIZE as u32;
        for (max_hw_sectors, block_size, dma_mask, acceptable) in [
            (0, 0, 0, true),
            (page >> 9, 512, 511, true),
            ((page >> 9) - 1, 512, 511, false),
            (1, 0, 0, false),
            (page >> 9, page, page, true),
            // Refused without a warning if it is larger than all block sizes.
            (
                page >> 9,
                page * 2,
                0,
                page * 2 > bindings::MAX_LOGICAL_BLOCK_SIZE,
            ),
            (0, 65536, 0, true),
            (0, 0, page + 1, false),
            (0, 0, u32::MAX, false),
            // The block layer refuses these without a warning.
            (0, 513, 0, true),
            (0, u32::MAX, 0, true),
            (0, 1 << 31, 0, true),
        ] {
            let mut limits = QueueLimits::new();
            limits
                .set_max_hw_sectors(max_hw_sectors)
                .set_block_size(block_size)
                .set_dma_alignment(dma_mask);
            assert_eq!(limits.is_acceptable(), acceptable);
        }
    }

    /// The block layer refuses invalid sizes.
    #[test]
    fn one_block_size_for_all() {
        for bytes in [0, 512, 513, 4096, bindings::PAGE_SIZE as u32 * 2, u32::MAX] {
            let mut limits = QueueLimits::new();
            limits.set_block_size(bytes);
            assert_eq!(limits.logical_block_size(), bytes);
            assert_eq!(limits.0.physical_block_size, bytes);
            assert_eq!(limits.0.io_min, bytes);
        }
    }

    #[test]
    fn no_granularity_without_discard() {
        for (sectors, granularity, expected) in [
            (0, 0, 0),
            (0, 4096, 0),
            (0, u32::MAX, 0),
            (1, 512, 512),
            (u32::MAX, 4096, 4096),
            // The block layer fills in a default.
            (8, 0, 0),
        ] {
            let mut limits = QueueLimits::new();
            limits.set_discard(sectors, granularity);
            assert_eq!(limits.0.max_hw_discard_sectors, sectors);
            assert_eq!(limits.0.discard_granularity, expected);
            limits.set_discard(0, 0);
            assert_eq!(limits.0.discard_granularity, 0);
        }
    }

    #[test]
    fn a_feature_is_set_and_cleared_alone() {
        type Set = fn(&mut QueueLimits, bool) -> &mut QueueLimits;
        const ALL: [(Set, u32); 3] = [
            (QueueLimits::set_write_cache, bindings::BLK_FEAT_WRITE_CACHE),
            (QueueLimits::set_fua, bindings::BLK_FEAT_FUA),
            (QueueLimits::set_rotational, bindings::BLK_FEAT_ROTATIONAL),
        ];
        let all = ALL.iter().fold(0, |all, (_, feature)| all | feature);
        for (set, feature) in ALL {
            let mut limits = QueueLimits::new();
            set(&mut limits, true);
            assert_eq!(limits.0.features, feature);
            for (set, _) in ALL {
                set(&mut limits, true);
            }
            set(&mut limits, false);
            assert_eq!(limits.0.features, all & !feature);
        }
    }
}
