// SPDX-License-Identifier: GPL-2.0

//! Request queues.
//!
//! C header: [`include/linux/blkdev.h`](srctree/include/linux/blkdev.h)
//!
//! # Soundness
//!
//! | What safe code could try | What stops it |
//! | --- | --- |
//! | Keep a `&Queue` after its disk | It is borrowed from the disk, or from I/O |
//! | Unfreeze twice | Dropping does, and [`Frozen`] is no `Clone` |
//! | Unfreeze in another task | It is not `Send` |
//! | Freeze the queue of a removed disk | The disk's reference keeps it; it stays frozen |
//! | Use its tag set, which is gone then | Only running a queue does, and none is that stays frozen |
//! | Freeze while one holds a request | Nothing; it waits forever |
//! | Forget a [`Frozen`] | Nothing; I/O waits forever |

use crate::{bindings, block::limits::LimitsUpdate, task::NoioScope};
use kernel::types::Opaque;

/// A request queue.
///
/// Wraps the C `struct request_queue`.
///
/// # Invariants
///
/// The queue, and the disk it belongs to, are valid for as long as there is a reference to it.
#[repr(transparent)]
pub struct Queue(Opaque<bindings::request_queue>);

// SAFETY: The C functions called on a `struct request_queue` below do their own locking.
unsafe impl Send for Queue {}
// SAFETY: As above.
unsafe impl Sync for Queue {}

impl Queue {
    /// Creates a reference from a raw pointer.
    ///
    /// # Safety
    ///
    /// `ptr` points to the request queue of a disk that stays valid for `'a`.
    pub(crate) unsafe fn from_raw<'a>(ptr: *mut bindings::request_queue) -> &'a Self {
        // SAFETY: By the requirements above, and `Self` is transparent.
        unsafe { &*ptr.cast() }
    }

    pub(crate) fn as_raw(&self) -> *mut bindings::request_queue {
        self.0.get()
    }

    /// The logical block size in bytes.
    pub fn logical_block_size(&self) -> u32 {
        // SAFETY: The queue is valid. The limits may be changing: as everywhere in the block
        // layer, a reader sees either value.
        unsafe { (&raw const (*self.as_raw()).limits.logical_block_size).read_volatile() }
    }

    /// The largest discard in sectors; 0 when there is none, or user space turned it off.
    pub fn max_discard_sectors(&self) -> u32 {
        // SAFETY: As in `logical_block_size`.
        unsafe { (&raw const (*self.as_raw()).limits.max_discard_sectors).read_volatile() }
    }

    /// Waits until the queue is not frozen, or its disk is being removed. May sleep.
    ///
    /// Corresponds to what `bio_queue_enter()` does in C, but takes no reference.
    pub fn wait_unfrozen(&self) {
        // SAFETY: The queue is valid, and has a disk.
        unsafe { bindings::blk_wait_unfrozen(self.as_raw()) }
    }

    /// Whether the disk is being removed: the queue stays frozen for good.
    pub fn is_dead(&self) -> bool {
        // SAFETY: The queue is valid, and has a disk; the bits may be changing.
        let state = unsafe { (&raw const (*(*self.as_raw()).disk).state).read_volatile() };
        state & (1 << bindings::GD_DEAD) != 0
    }

    /// Starts an update of the limits; see [`LimitsUpdate`]. May sleep.
    pub fn start_limits_update(&self) -> LimitsUpdate<'_> {
        LimitsUpdate::start(self)
    }

    /// Waits until no request is in flight and keeps new ones from starting for as long as the
    /// guard lives. May sleep; until the guard is dropped allocations by this task start no I/O.
    ///
    /// Must not be called by whoever owns a request of the queue, or by what a request waits for.
    /// When the limits are to change, too, use [`LimitsUpdate::freeze`].
    ///
    /// Corresponds to the C function `blk_mq_freeze_queue`.
    pub fn freeze(&self) -> Frozen<'_> {
        let noio = NoioScope::enter();
        // SAFETY: The queue is valid by the type invariant.
        unsafe { bindings::blk_mq_freeze_queue_nomemsave(self.as_raw()) };
        Frozen {
            queue: self,
            _noio: noio,
        }
    }
}

/// A frozen queue: no request is in flight.
pub struct Frozen<'a> {
    queue: &'a Queue,
    // Dropped after the queue is unfrozen.
    _noio: NoioScope,
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        // SAFETY: The queue is valid, and was frozen when `self` was made.
        unsafe { bindings::blk_mq_unfreeze_queue_nomemrestore(self.queue.as_raw()) }
    }
}
