// SPDX-License-Identifier: GPL-2.0

//! Queue limits.
//!
//! C header: [`include/linux/blkdev.h`](srctree/include/linux/blkdev.h)
//!
//! # Soundness
//!
//! | What safe code could try | What stops it |
//! | --- | --- |
//! | Change limits without their lock | Only `start` makes an update, which takes it |
//! | Commit twice, or cancel after that | `commit` takes the update by value |
//! | Release the lock in another task | [`LimitsUpdate`] is not `Send` |
//! | Commit limits that contradict one another | The block layer validates them: `EINVAL` |
//! | Start a second update | Nothing; it deadlocks |
//! | Forget an update | Nothing; the next one waits forever, or worse ([`crate`]) |

use crate::{
    bindings,
    block::{Frozen, Queue},
};
use kernel::{error::to_result, prelude::*};

/// The limits of a request queue.
///
/// Wraps the C `struct queue_limits`.
#[repr(transparent)]
pub struct QueueLimits(bindings::queue_limits);

impl QueueLimits {
    /// Limits of which all are left for the block layer to choose.
    pub fn new() -> Self {
        Self(pin_init::zeroed())
    }

    pub(crate) fn as_raw(&mut self) -> *mut bindings::queue_limits {
        &raw mut self.0
    }

    /// Sets the largest request in sectors.
    pub fn set_max_hw_sectors(&mut self, sectors: u32) -> &mut Self {
        self.0.max_hw_sectors = sectors;
        self
    }

    /// Returns the logical block size in bytes.
    pub fn logical_block_size(&self) -> u32 {
        self.0.logical_block_size
    }

    /// Sets logical and physical block size, and the smallest efficient I/O, in bytes.
    pub fn set_block_size(&mut self, bytes: u32) -> &mut Self {
        self.0.logical_block_size = bytes;
        self.0.physical_block_size = bytes;
        self.0.io_min = bytes;
        self
    }

    /// Sets the mask of address bits that must be clear in a request's memory.
    pub fn set_dma_alignment(&mut self, mask: u32) -> &mut Self {
        self.0.dma_alignment = mask;
        self
    }

    /// Says whether the device has a volatile write cache, so that flushes are sent.
    pub fn set_write_cache(&mut self, on: bool) -> &mut Self {
        self.set_feature(bindings::BLK_FEAT_WRITE_CACHE, on)
    }

    /// Says whether a write can go past the volatile write cache
    /// ([`Transfer::is_fua`](super::mq::Transfer::is_fua)). Without it the block layer sends a
    /// flush after such a write.
    pub fn set_fua(&mut self, on: bool) -> &mut Self {
        self.set_feature(bindings::BLK_FEAT_FUA, on)
    }

    /// Says whether seeks cost.
    pub fn set_rotational(&mut self, on: bool) -> &mut Self {
        self.set_feature(bindings::BLK_FEAT_ROTATIONAL, on)
    }

    fn set_feature(&mut self, feature: u32, on: bool) -> &mut Self {
        if on {
            self.0.features |= feature;
        } else {
            self.0.features &= !feature;
        }
        self
    }

    /// Sets the largest discard in sectors and its granularity in bytes; no discard when
    /// `sectors` is 0.
    pub fn set_discard(&mut self, sectors: u32, granularity: u32) -> &mut Self {
        self.0.max_hw_discard_sectors = sectors;
        self.0.discard_granularity = if sectors == 0 { 0 } else { granularity };
        self
    }

    /// Sets the largest write-zeroes in sectors; 0 for none.
    pub fn set_write_zeroes(&mut self, sectors: u32) -> &mut Self {
        self.0.max_write_zeroes_sectors = sectors;
        self
    }
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self::new()
    }
}

/// An update of a queue's limits: nothing changes until it is committed.
///
/// # Invariants
///
/// The queue's `limits_lock` is held by the current task.
pub struct LimitsUpdate<'a> {
    queue: &'a Queue,
    limits: QueueLimits,
    // The lock is a mutex: its owner must release it.
    _not_send: kernel::types::NotThreadSafe,
}

impl<'a> LimitsUpdate<'a> {
    /// Starts an update: takes the queue's `limits_lock`. May sleep.
    ///
    /// Wraps the C function `queue_limits_start_update`.
    pub(crate) fn start(queue: &'a Queue) -> Self {
        // SAFETY: The queue is valid by its type invariant.
        // INVARIANT: The call returns with the lock held.
        let limits = QueueLimits(unsafe { bindings::queue_limits_start_update(queue.as_raw()) });
        Self {
            queue,
            limits,
            _not_send: kernel::types::NotThreadSafe,
        }
    }

    /// [Freezes](Queue::freeze) the queue. Freezing comes after the lock of the limits: whoever
    /// needs both starts the update first.
    pub fn freeze(&self) -> Frozen<'a> {
        self.queue.freeze()
    }

    /// Commits the update. May sleep.
    ///
    /// Where I/O in flight relies on the old limits, [freeze](Self::freeze) the queue first, and
    /// keep it frozen. What the driver can refuse when it comes after all can do without.
    ///
    /// # Errors
    ///
    /// `EINVAL` when the limits contradict one another; they are then as before.
    ///
    /// Wraps the C function `queue_limits_commit_update`.
    pub fn commit(self) -> Result {
        let mut this = core::mem::ManuallyDrop::new(self);
        let queue = this.queue.as_raw();
        // SAFETY: The queue is valid by its type invariant, and `limits_lock` is held by ours;
        // the call releases it, and `self`, which would do so again, is not dropped.
        to_result(unsafe { bindings::queue_limits_commit_update(queue, this.limits.as_raw()) })
    }
}

impl core::ops::Deref for LimitsUpdate<'_> {
    type Target = QueueLimits;

    fn deref(&self) -> &QueueLimits {
        &self.limits
    }
}

impl core::ops::DerefMut for LimitsUpdate<'_> {
    fn deref_mut(&mut self) -> &mut QueueLimits {
        &mut self.limits
    }
}

impl Drop for LimitsUpdate<'_> {
    fn drop(&mut self) {
        // SAFETY: `limits_lock` is held by the type invariant.
        unsafe { bindings::queue_limits_cancel_update(self.queue.as_raw()) }
    }
}

#[kunit_tests(kernel_ext_limits)]
mod tests {
    use super::*;

    /// A size that is none is left to the block layer to refuse, for all it is the size of.
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
            // That is for the block layer to fill in.
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
