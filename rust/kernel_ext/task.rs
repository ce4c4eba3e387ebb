// SPDX-License-Identifier: GPL-2.0

//! Scopes of the current task's flags.
//!
//! C headers: [`include/linux/sched.h`](srctree/include/linux/sched.h),
//! [`include/linux/sched/mm.h`](srctree/include/linux/sched/mm.h)

use crate::bindings;
use kernel::{
    task::Task,
    types::NotThreadSafe, //
};

/// Sets flags of the current task until dropped, when those that were clear are cleared again.
struct FlagScope {
    set: u32,
    _not_send: NotThreadSafe,
}

impl FlagScope {
    fn enter(flags: u32) -> Self {
        let task = Task::current_raw();
        // SAFETY: Only the task itself changes its flags.
        let old = unsafe { (*task).flags };
        // SAFETY: As above.
        unsafe { (*task).flags = old | flags };
        Self {
            set: flags & !old,
            _not_send: NotThreadSafe,
        }
    }
}

impl Drop for FlagScope {
    fn drop(&mut self) {
        // SAFETY: Only the task itself changes its flags, and a scope stays with its task.
        unsafe { (*Task::current_raw()).flags &= !self.set }
    }
}

/// While this lives, allocations of the current task start no I/O.
///
/// Corresponds to the C functions `memalloc_noio_save` and `memalloc_noio_restore`.
pub struct NoioScope {
    _flags: FlagScope,
}

impl NoioScope {
    /// Enters the scope.
    pub fn enter() -> Self {
        Self {
            _flags: FlagScope::enter(bindings::PF_MEMALLOC_NOIO),
        }
    }
}

/// While this lives the current task cleans pages on behalf of others: it is throttled only for
/// the device it writes to, and its allocations start no I/O.
///
/// Sets `PF_LOCAL_THROTTLE` and `PF_MEMALLOC_NOIO`.
pub struct WritebackScope {
    _flags: FlagScope,
}

impl WritebackScope {
    /// Enters the scope.
    pub fn enter() -> Self {
        Self {
            _flags: FlagScope::enter(bindings::PF_LOCAL_THROTTLE | bindings::PF_MEMALLOC_NOIO),
        }
    }
}

/// Lets others run if it is their turn. May sleep.
///
/// Wraps the C macro `cond_resched`.
pub fn cond_resched() {
    // SAFETY: No requirements but the context, which `might_sleep` checks.
    unsafe { bindings::cond_resched() };
}
