// SPDX-License-Identifier: GPL-2.0

//! Scopes of the current task's flags, and queries of its context.
//!
//! C headers: [`include/linux/sched.h`](srctree/include/linux/sched.h),
//! [`include/linux/sched/mm.h`](srctree/include/linux/sched/mm.h)
//!
//! # Soundness
//!
//! | What safe code could try | What stops it |
//! | --- | --- |
//! | Leave a scope in another task, in the wrong order, or never | A scope is the call of a closure |
//! | Enter a scope in an interrupt | It is left before the interrupted task goes on |
//! | Change the lists of a task that was interrupted | `submit_nested` does not, in an interrupt |
//! | Lose the lists that `submit_nested` sets aside | They are restored after the closure |
//! | Follow the stack or a list of the task | Numbers and answers are returned, no pointers |

use crate::bindings;
use kernel::{
    ffi::c_ulong,
    task::Task, //
};

/// Runs `f` with `flags` set in `current->flags`. Flags that were clear before are cleared after.
#[inline]
fn with_flags<R>(flags: u32, f: impl FnOnce() -> R) -> R {
    let task = Task::current_raw();
    // SAFETY: The current task is valid. Only the task itself changes its flags, and an interrupt
    // that changes them restores them before it returns.
    let old = unsafe { (*task).flags };
    // SAFETY: As above.
    unsafe { (*task).flags = old | flags };
    let ret = f();
    // SAFETY: As above; `f` returned in the task that called it.
    unsafe { (*task).flags &= !(flags & !old) };
    ret
}

/// Runs `f`; allocations of the current task in it start no I/O (`PF_MEMALLOC_NOIO`).
///
/// Corresponds to the C functions `memalloc_noio_save` and `memalloc_noio_restore`.
#[inline]
pub fn with_noio<R>(f: impl FnOnce() -> R) -> R {
    with_flags(bindings::PF_MEMALLOC_NOIO, f)
}

/// Runs `f`, which writes pages back on behalf of other tasks: the current task is throttled only
/// for the device that it writes to (`PF_LOCAL_THROTTLE`), and its allocations start no I/O
/// (`PF_MEMALLOC_NOIO`).
#[inline]
pub fn with_writeback<R>(f: impl FnOnce() -> R) -> R {
    with_flags(bindings::PF_LOCAL_THROTTLE | bindings::PF_MEMALLOC_NOIO, f)
}

/// Runs `f`, which submits I/O, with `current->bio_list` and `current->plug` cleared. Returns
/// whether the task slept in it.
///
/// Bios that a task submits from within `submit_bio()` are deferred until the outer call returns
/// (`bio_list`), and requests are collected (`plug`): a task that waits for them there waits for
/// ever. The caller makes sure that the task holds no request that others wait for, as `f` may
/// sleep: see [`holds_no_requests`]. What is left in the plug is not flushed while `f` sleeps.
///
/// The I/O of `f` is not accounted to the task (`/proc/PID/io`, `getrusage()`), as the I/O that it
/// serves was.
///
/// In an interrupt `f` is run without that.
#[inline]
pub fn submit_nested<R>(f: impl FnOnce() -> R) -> (R, bool) {
    // The interrupted task may be using the lists.
    if !in_task() {
        return (f(), false);
    }
    let task = Task::current_raw();
    // SAFETY: Only the task itself uses these fields, and they are restored before this function
    // returns. `PF_BLOCK_TS` has the scheduler invalidate the time in the plug, so that it must be
    // clear without a plug.
    let (bio_list, plug, switches) = unsafe {
        (*task).flags &= !bindings::PF_BLOCK_TS;
        (
            core::mem::replace(&mut (*task).bio_list, core::ptr::null_mut()),
            core::mem::replace(&mut (*task).plug, core::ptr::null_mut()),
            (*task).nvcsw,
        )
    };
    #[cfg(CONFIG_TASK_IO_ACCOUNTING)]
    let account = IoAccount::save(task);
    let ret = f();
    #[cfg(CONFIG_TASK_IO_ACCOUNTING)]
    account.restore(task);
    // SAFETY: As above. Every function that sets these fields restores them, `f` too. The plug is a
    // caller's, and the time in it may be old.
    let slept = unsafe {
        if !plug.is_null() {
            (*plug).cur_ktime = 0;
        }
        (*task).bio_list = bio_list;
        (*task).plug = plug;
        (*task).nvcsw != switches
    };
    (ret, slept)
}

/// The bytes that the current task is accounted for having read and written.
#[cfg(CONFIG_TASK_IO_ACCOUNTING)]
#[derive(Clone, Copy)]
struct IoAccount(u64, u64);

#[cfg(CONFIG_TASK_IO_ACCOUNTING)]
impl IoAccount {
    /// `task` is the current one.
    #[inline]
    fn save(task: *mut bindings::task_struct) -> Self {
        // SAFETY: The current task is valid, and nobody else changes its counts.
        unsafe { Self((*task).ioac.read_bytes, (*task).ioac.write_bytes) }
    }

    /// `task` is the current one.
    #[inline]
    fn restore(self, task: *mut bindings::task_struct) {
        // SAFETY: As in `save`.
        unsafe {
            (*task).ioac.read_bytes = self.0;
            (*task).ioac.write_bytes = self.1;
        }
    }
}

/// Runs `f`, which completes I/O, with bottom halves disabled if it is called in a task: see
/// [`Transfer::end`](crate::block::mq::Transfer::end). Softirqs that are raised meanwhile run when
/// the outermost call returns. Any context; `f` must not sleep.
#[inline]
pub fn in_completion_context<R>(f: impl FnOnce() -> R) -> R {
    // SAFETY: No requirements.
    if !unsafe { bindings::can_enable_bh() } {
        return f();
    }
    // SAFETY: No requirements.
    unsafe { bindings::local_bh_disable() };
    let ret = f();
    // SAFETY: In a task with interrupts enabled; disabled above.
    unsafe { bindings::local_bh_enable() };
    ret
}

/// Whether the current context is that of a task, not of an interrupt.
///
/// Wraps the C macro `in_task`.
#[inline]
pub fn in_task() -> bool {
    // SAFETY: No requirements.
    unsafe { bindings::in_task() }
}

/// How many bytes of its stack the current task has left; 0 outside of tasks.
#[inline]
pub fn stack_left() -> usize {
    match in_task() {
        true => stack_left_of(Task::current_raw()),
        false => 0,
    }
}

/// Returns the bytes that are left of the stack of `task`, which is the current one.
#[inline]
fn stack_left_of(task: *mut bindings::task_struct) -> usize {
    let here = 0u8;
    // SAFETY: The current task's stack stays where it is.
    let base = unsafe { (*task).stack } as usize;
    // The stack grows down to its base; its end is no more than a magic number.
    (&raw const here as usize)
        .checked_sub(base)
        .filter(|left| *left <= bindings::THREAD_SIZE as usize)
        .unwrap_or(0)
}

/// Half of a task's stack, in bytes: enough for a file system and the drivers below it.
pub const HALF_STACK: usize = bindings::THREAD_SIZE as usize / 2;

/// Whether the current task may call a file system, and the drivers below it. At least half of its
/// stack must be left, and it
///
/// - is no kernel thread;
/// - does not reclaim memory, has no transaction open (`journal_info`), and is in no scope of NOIO
///   or NOFS allocations. Readahead always runs in a NOFS scope, so that this does not count if the
///   task is `reading_ahead`;
/// - has no deferred bios (`bio_list`). They can be the rest of bios that were split, and hold what
///   the split was allocated from.
///
/// False outside of tasks.
pub fn can_issue_fs_io(reading_ahead: bool) -> bool {
    let mut flags = bindings::PF_KTHREAD | bindings::PF_MEMALLOC | bindings::PF_MEMALLOC_NOIO;
    if !reading_ahead {
        flags |= bindings::PF_MEMALLOC_NOFS;
    }
    if !in_task() {
        return false;
    }
    let task = Task::current_raw();
    // SAFETY: Only the task itself changes these fields, and it runs here. Everybody who sets
    // `bio_list` sets it to an array of two.
    let may = unsafe {
        let lists = (*task).bio_list;
        (*task).flags & flags == 0
            && (*task).journal_info.is_null()
            && (lists.is_null() || (*lists).head.is_null() && (*lists.add(1)).head.is_null())
    };
    may && stack_left_of(task) >= HALF_STACK
}

/// Whether the current task's plug holds no request that others could wait for while the task
/// sleeps: none that was collected (`mq_list`), none that was allocated in advance (`cached_rqs`),
/// none of another queue that is dispatched after this one (`multiple_queues`), and no callback
/// that submits any (`cb_list`).
///
/// `schedule()` flushes a plug for this reason, but not a plug that is being flushed. A full plug
/// is flushed by the task that holds the next request (`blk_add_rq_to_plug()`). That is the case
/// within `submit_bio()`, and for passthrough requests, where only the number of requests
/// `dispatched` from the plug and the bytes of the `last` one tell.
///
/// Process context.
#[inline]
pub fn holds_no_requests(dispatched: u32, last: usize) -> bool {
    // SAFETY: Only the task itself changes its plug.
    unsafe {
        let task = Task::current_raw();
        let plug = (*task).plug;
        plug.is_null()
            || (*task).bio_list.is_null()
                && dispatched < PLUG_MAX_REQUESTS
                && last < PLUG_MAX_LAST
                && !(*plug).multiple_queues
                && (*plug).mq_list.head.is_null()
                && (*plug).cached_rqs.head.is_null()
                && core::ptr::eq((*plug).cb_list.next, &raw const (*plug).cb_list)
    }
}

/// The number of requests that make a plug full (`BLK_MAX_REQUEST_COUNT`), unless the last one has
/// so many bytes (`BLK_PLUG_FLUSH_SIZE`).
const PLUG_MAX_REQUESTS: u32 = 32;
const PLUG_MAX_LAST: usize = 128 << 10;

/// A number that no other task has while the current one exists.
#[inline]
pub fn current_id() -> usize {
    Task::current_raw() as usize
}

/// Whether `RLIMIT_FSIZE` limits the files that the current task writes: a file system sends
/// `SIGXFSZ` to a task that writes beyond it.
#[inline]
pub fn has_file_size_limit() -> bool {
    // SAFETY: No requirements.
    unsafe { bindings::rlimit(bindings::RLIMIT_FSIZE) != c_ulong::MAX }
}

/// How many CPUs are online. They may change at once.
///
/// Wraps the C function `num_online_cpus`.
#[inline]
pub fn num_online_cpus() -> u32 {
    // SAFETY: No requirements.
    unsafe { bindings::num_online_cpus() }
}

/// Yields the CPU if another task should run. May sleep.
///
/// Wraps the C macro `cond_resched`.
#[inline]
pub fn cond_resched() {
    // SAFETY: No requirements but the context, which `might_sleep` checks.
    unsafe { bindings::cond_resched() };
}
