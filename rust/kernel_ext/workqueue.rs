// SPDX-License-Identifier: GPL-2.0

//! Workqueues of a driver.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)
//!
//! # Soundness
//!
//! | What safe code could try | What stops it |
//! | --- | --- |
//! | Destroy the workqueue with items on it | Dropping waits for them |
//! | Queue a delayed item that comes after that | There is no delayed form |
//! | Set internal flags, or run items in softirqs | [`QueueFlags`] are those here |
//! | Free an item that is queued | It is the queue's until it runs ([`RawWorkItem`]) |
//! | Queue an item that borrows, or is for one task | Items are `Send` and `'static` |
//! | Queue an item while it is drained | Nothing; the item is leaked, with a warning |
//! | Destroy or drain it in one of its items | Nothing; it waits for itself |
//! | Forget it, and have the module unloaded | The exit waits ([`ExitBarrier`](crate::module::ExitBarrier)) |

use crate::{bindings, module::Registered};
use core::ptr::NonNull;
use kernel::{
    alloc::{AllocError, Flags},
    ffi::c_int,
    prelude::*,
    workqueue::{Queue, RawWorkItem},
};

/// Flags of a workqueue (`enum wq_flags`).
#[derive(Clone, Copy)]
pub struct QueueFlags(u32);

/// Items are not bound to a CPU (`WQ_UNBOUND`).
pub const WQ_UNBOUND: QueueFlags = QueueFlags(bindings::wq_flags_WQ_UNBOUND);

/// The workqueue is frozen in system suspend (`WQ_FREEZABLE`).
pub const WQ_FREEZABLE: QueueFlags = QueueFlags(bindings::wq_flags_WQ_FREEZABLE);

impl core::ops::BitOr for QueueFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A workqueue; drained and destroyed when dropped.
///
/// # Invariants
///
/// `wq` is a workqueue that we own.
#[must_use = "a workqueue is destroyed when it is dropped"]
pub struct OwnedQueue {
    wq: NonNull<bindings::workqueue_struct>,
    // Dropped after the workqueue is destroyed.
    _registered: Registered,
}

// SAFETY: Workqueues are used and destroyed by any task.
unsafe impl Send for OwnedQueue {}
// SAFETY: The C functions do their own locking.
unsafe impl Sync for OwnedQueue {}

impl OwnedQueue {
    /// Allocates a workqueue that runs as many items at a time as possible (`WQ_MAX_ACTIVE`), so
    /// that an item may block for long without delaying others. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`
    ///
    /// Wraps the C macro `alloc_workqueue`.
    pub fn new(name: &CStr, flags: QueueFlags) -> Result<Self> {
        // SAFETY: The format takes one string, and the name is copied. The flags are neither
        // internal ones nor `WQ_BH`.
        let wq = unsafe {
            bindings::alloc_workqueue_noprof(
                c"%s".as_char_ptr(),
                flags.0,
                bindings::wq_consts_WQ_MAX_ACTIVE as c_int,
                name.as_char_ptr(),
            )
        };
        Ok(Self {
            wq: NonNull::new(wq).ok_or(ENOMEM)?,
            _registered: Registered::new(),
        })
    }
}

impl OwnedQueue {
    fn queue(&self) -> &Queue {
        // SAFETY: By the type invariant, for as long as the borrow.
        unsafe { Queue::from_raw(self.wq.as_ptr()) }
    }

    /// Queues an item; fails if it is queued. Any context.
    ///
    /// There is no delayed form: destroying the workqueue waits for items, not for their timers.
    pub fn enqueue<W, const ID: u64>(&self, work: W) -> W::EnqueueOutput
    where
        W: RawWorkItem<ID> + Send + 'static,
    {
        self.queue().enqueue(work)
    }

    /// Allocates an item with `flags` that calls `func`, and queues it.
    pub fn try_spawn<F>(&self, flags: Flags, func: F) -> Result<(), AllocError>
    where
        F: FnOnce() + Send + 'static,
    {
        self.queue().try_spawn(flags, func)
    }

    /// Waits until there are no items. May sleep; must not be called by an item. Until it returns
    /// only items may queue items: others are lost, with a warning.
    ///
    /// Wraps the C function `drain_workqueue`.
    pub fn drain(&self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::drain_workqueue(self.wq.as_ptr()) }
    }
}

impl Drop for OwnedQueue {
    /// Waits for all items. May sleep; must not be called by an item.
    fn drop(&mut self) {
        // SAFETY: By the type invariant. Items left on the queue are run first.
        unsafe { bindings::destroy_workqueue(self.wq.as_ptr()) }
    }
}
