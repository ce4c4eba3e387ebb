// SPDX-License-Identifier: GPL-2.0

//! Request queues.
//!
//! C header: [`include/linux/blkdev.h`](srctree/include/linux/blkdev.h)
//!
//! # Soundness
//!
//! | What safe code could try | What stops it |
//! | --- | --- |
//! | Keep a `&Queue` after its disk was freed | It is borrowed from the disk, or from I/O |
//! | Unfreeze twice, in another task, or never | A queue is frozen for the call of a closure |
//! | Freeze the queue of a removed disk | The disk's reference keeps it; it stays frozen |
//! | Use the freed tag set of a removed disk | Only dispatch does; the queue stays frozen |
//! | Freeze while holding a request | Nothing; it waits forever |

use crate::{bindings, block::limits::LimitsUpdate, sync::read_once, task};
use kernel::{task::might_sleep, types::Opaque};

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
        // SAFETY: The queue is valid. The limits may be changing; readers see either value.
        unsafe { read_once(&raw const (*self.as_raw()).limits.logical_block_size) }
    }

    /// The largest discard in sectors; 0 if there is none, or user space disabled it.
    pub fn max_discard_sectors(&self) -> u32 {
        // SAFETY: As in `logical_block_size`.
        unsafe { read_once(&raw const (*self.as_raw()).limits.max_discard_sectors) }
    }

    /// Waits until the queue is not frozen, or its disk is being removed. May sleep.
    ///
    /// Corresponds to the wait in `bio_queue_enter()`, but takes no reference.
    pub fn wait_unfrozen(&self) {
        // SAFETY: The queue is valid, and has a disk.
        unsafe { bindings::blk_wait_unfrozen(self.as_raw()) }
    }

    /// Whether the disk is being removed (`GD_DEAD`), so that the queue stays frozen.
    pub fn is_dead(&self) -> bool {
        // SAFETY: The queue is valid, and has a disk. The bits change atomically.
        let state = unsafe { read_once(&raw const (*(*self.as_raw()).disk).state) };
        state & (1 << bindings::GD_DEAD) != 0
    }

    /// Runs `f` to update the limits; see [`LimitsUpdate`]. Changes that `f` does not
    /// [commit](LimitsUpdate::commit) are dropped. May sleep.
    ///
    /// Takes the queue's `limits_lock`, so that it must not be called in `f`. Freezing comes after
    /// that lock: a driver that needs both [freezes](Self::freeze) the queue in `f`.
    ///
    /// Wraps the C functions `queue_limits_start_update` and `queue_limits_cancel_update`.
    pub fn update_limits<R>(&self, f: impl FnOnce(&mut LimitsUpdate<'_>) -> R) -> R {
        might_sleep();
        f(&mut LimitsUpdate::start(self))
    }

    /// Runs `f` while no request is in flight and none can start. May sleep. Allocations in `f`
    /// start no I/O.
    ///
    /// The caller must own no request of the queue, and no request may wait for `f`.
    ///
    /// Wraps the C functions `blk_mq_freeze_queue` and `blk_mq_unfreeze_queue`.
    pub fn freeze<R>(&self, f: impl FnOnce() -> R) -> R {
        might_sleep();
        task::with_noio(|| {
            // SAFETY: The queue is valid by the type invariant.
            unsafe { bindings::blk_mq_freeze_queue_nomemsave(self.as_raw()) };
            let ret = f();
            // SAFETY: As above; it was frozen above, by this task.
            unsafe { bindings::blk_mq_unfreeze_queue_nomemrestore(self.as_raw()) };
            ret
        })
    }
}
