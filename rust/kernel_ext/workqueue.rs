// SPDX-License-Identifier: GPL-2.0

//! Workqueues of one's own.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)
//!
//! # Soundness
//!
//! | What safe code could try | What stops it |
//! | --- | --- |
//! | Destroy the workqueue with items on it | Dropping waits for them |
//! | Have a delayed item come after that | There is no delayed form; the C queue is not lent |
//! | Set flags that are not a user's, or have items in softirqs | [`QueueFlags`] are those here |
//! | Free an item that is queued | It is the queue's until it runs ([`RawWorkItem`]) |
//! | Queue what borrows, or is for one task | Items are `Send` and `'static` |
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

/// What kind of workqueue one is.
#[derive(Clone, Copy)]
pub struct QueueFlags(u32);

/// The workqueue's items run anywhere, on whatever CPU has time.
pub const WQ_UNBOUND: QueueFlags = QueueFlags(bindings::wq_flags_WQ_UNBOUND);

/// The workqueue takes part in system suspend.
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
    /// Allocates a workqueue of which as many items run at a time as a workqueue can have
    /// (`WQ_MAX_ACTIVE`): items may block for long without holding up others. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM` when there is no memory.
    ///
    /// Wraps the C macro `alloc_workqueue`.
    pub fn new(name: &CStr, flags: QueueFlags) -> Result<Self> {
        // SAFETY: The format takes one string; the name is copied. The flags are none of those that
        // the workqueue's own code sets, nor is it one whose items must not sleep.
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

    /// Queues an item; fails if it is queued already. Any context.
    ///
    /// There is no delayed form: destroying the workqueue waits for what is queued, not for timers.
    pub fn enqueue<W, const ID: u64>(&self, work: W) -> W::EnqueueOutput
    where
        W: RawWorkItem<ID> + Send + 'static,
    {
        self.queue().enqueue(work)
    }

    /// Queues a function, for which memory is allocated.
    pub fn try_spawn<F>(&self, flags: Flags, func: F) -> Result<(), AllocError>
    where
        F: FnOnce() + Send + 'static,
    {
        self.queue().try_spawn(flags, func)
    }

    /// Waits until there are no items. May sleep; must not be called by one of them. Until it
    /// returns only items may queue others: what anybody else queues is lost, with a warning.
    ///
    /// Wraps the C function `drain_workqueue`.
    pub fn drain(&self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::drain_workqueue(self.wq.as_ptr()) }
    }
}

impl Drop for OwnedQueue {
    /// Waits for all items. May sleep; must not be called by one of them.
    fn drop(&mut self) {
        // SAFETY: By the type invariant. Items left on the queue are run first.
        unsafe { bindings::destroy_workqueue(self.wq.as_ptr()) }
    }
}
