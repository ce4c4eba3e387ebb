// SPDX-License-Identifier: GPL-2.0

//! Queue limits.
//!
//! C header: [`include/linux/blkdev.h`](srctree/include/linux/blkdev.h)
//!
//! # Soundness
//!
//! | What safe code could try | What stops it |
//! | --- | --- |
//! | Change limits without their lock | Only [`Queue::update_limits`] makes an update, which holds it |
//! | Commit twice | `EINVAL`: the lock is released by then |
//! | Release the lock in another task, or never | An update is lent for the call of a closure |
//! | Commit limits that contradict one another | The block layer validates them: `EINVAL` |
//! | Commit limits that the block layer warns of | [`QueueLimits::is_acceptable`]: `EINVAL` |
//! | Start a second update in an update | Nothing; it deadlocks, and lockdep reports it |

mod tests;

use crate::{
    bindings,
    block::{Queue, SECTOR_SHIFT},
};
use kernel::{error::to_result, prelude::*, types::NotThreadSafe};

/// The limits of a request queue.
///
/// Wraps the C `struct queue_limits`.
///
/// # Examples
///
/// ```
/// use kernel_ext::block::{Queue, QueueLimits};
///
/// let mut limits = QueueLimits::new();
/// limits.set_block_size(4096).set_rotational(false);
///
/// // Limits that no request in flight relies on change while the queue is frozen.
/// fn set_block_size(queue: &Queue, bytes: u32) -> Result {
///     queue.update_limits(|limits| {
///         limits.set_block_size(bytes);
///         queue.freeze(|| limits.commit())
///     })
/// }
/// ```
#[repr(transparent)]
pub struct QueueLimits(bindings::queue_limits);

impl QueueLimits {
    /// Creates limits that are all 0: the block layer replaces them by defaults.
    pub fn new() -> Self {
        Self(pin_init::zeroed())
    }

    pub(crate) fn as_raw(&mut self) -> *mut bindings::queue_limits {
        &raw mut self.0
    }

    /// Whether the block layer accepts the limits, or refuses them without a warning:
    /// `blk_validate_limits()` has a `WARN_ON_ONCE()` for some that only a driver can get wrong.
    pub(super) fn is_acceptable(&self) -> bool {
        let limits = &self.0;
        let max_hw_sectors = match limits.max_hw_sectors {
            0 => bindings::blk_default_limits_BLK_SAFE_MAX_SECTORS,
            sectors => sectors,
        };
        // The block layer refuses invalid block sizes before it compares them.
        let block_size = match limits.logical_block_size {
            size if size.is_power_of_two() && size <= bindings::MAX_LOGICAL_BLOCK_SIZE => size,
            _ => 0,
        };
        max_hw_sectors >= bindings::PAGE_SIZE as u32 >> SECTOR_SHIFT
            && block_size >> SECTOR_SHIFT <= max_hw_sectors
            && limits.dma_alignment <= bindings::PAGE_SIZE as u32
    }

    /// Sets the largest request in sectors: at least a page and a logical block.
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

    /// Sets the mask of address bits that must be clear in a request's memory: at most the
    /// size of a page.
    pub fn set_dma_alignment(&mut self, mask: u32) -> &mut Self {
        self.0.dma_alignment = mask;
        self
    }

    /// Sets whether the device has a volatile write cache, so that the block layer sends flushes.
    pub fn set_write_cache(&mut self, on: bool) -> &mut Self {
        self.set_feature(bindings::BLK_FEAT_WRITE_CACHE, on)
    }

    /// Sets whether a write can be durable when it completes
    /// ([`Transfer::is_fua`](super::mq::Transfer::is_fua)). If not, the block layer sends a flush
    /// after such a write.
    pub fn set_fua(&mut self, on: bool) -> &mut Self {
        self.set_feature(bindings::BLK_FEAT_FUA, on)
    }

    /// Sets whether the device is rotational.
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

/// An update of a queue's limits, lent by [`Queue::update_limits`]. The queue has them once they
/// are [committed](Self::commit).
///
/// # Invariants
///
/// The current task holds the queue's `limits_lock` unless `committed`.
pub struct LimitsUpdate<'a> {
    queue: &'a Queue,
    limits: QueueLimits,
    committed: bool,
    // The lock is a mutex: its owner must release it.
    _not_send: NotThreadSafe,
}

impl<'a> LimitsUpdate<'a> {
    /// Takes the queue's `limits_lock`. May sleep.
    pub(super) fn start(queue: &'a Queue) -> Self {
        // INVARIANT: The call returns with the lock held.
        //
        // SAFETY: The queue is valid by its type invariant.
        let limits = QueueLimits(unsafe { bindings::queue_limits_start_update(queue.as_raw()) });
        Self {
            queue,
            limits,
            committed: false,
            _not_send: NotThreadSafe,
        }
    }

    /// Applies the limits to the queue, once. May sleep.
    ///
    /// Where I/O in flight relies on the old limits, [freeze](Queue::freeze) the queue around this.
    /// A driver that can fail a request that does not fit the new limits need not freeze.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the limits contradict one another, which leaves those of the queue as they were,
    /// or if the update was committed before.
    ///
    /// Wraps the C function `queue_limits_commit_update`.
    pub fn commit(&mut self) -> Result {
        if self.committed || !self.limits.is_acceptable() {
            return Err(EINVAL);
        }
        // INVARIANT: The call below releases the lock, whatever it returns.
        self.committed = true;
        // SAFETY: The queue is valid by its type invariant, and `limits_lock` was held.
        to_result(unsafe {
            bindings::queue_limits_commit_update(self.queue.as_raw(), self.limits.as_raw())
        })
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
        if !self.committed {
            // SAFETY: By the type invariant the current task holds `limits_lock`.
            unsafe { bindings::queue_limits_cancel_update(self.queue.as_raw()) }
        }
    }
}
