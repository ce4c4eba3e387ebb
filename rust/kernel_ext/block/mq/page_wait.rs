// SPDX-License-Identifier: GPL-2.0

//! Reads through the page cache that do not wait for pages under I/O.
//!
//! A read that finds a page locked leaves an entry in the wait queue of the page, and returns. When
//! the page is unlocked, the driver gets the I/O back, and reads again. io_uring reads in the same
//! way (`io_rw_should_retry()`).
//!
//! C header: [`include/linux/pagemap.h`](srctree/include/linux/pagemap.h)

use super::{
    kiocb::{call_file, to_result, KiocbState},
    raw::RawSubmit,
    Transfer, //
};
use crate::bindings;
use kernel::{
    container_of,
    ffi::{c_int, c_uint, c_void},
    prelude::*,
    sync::{
        atomic::{Full, Relaxed},
        rcu,
    },
};

/// The outcome of a [read](super::Submit::read_cached) through the page cache.
pub enum CacheRead<I> {
    /// The call is over, with the number of bytes read. `EAGAIN` if a page is neither valid nor
    /// under I/O, after an error, for instance: a [transfer](Transfer::transfer) reads it.
    Done(I, Result<usize>),
    /// A page is under I/O. After that the I/O is handed back through
    /// [`Operations::read_ready`](super::Operations::read_ready), or
    /// [`Operations::detached_read_ready`](super::Operations::detached_read_ready).
    Waiting,
}

/// The outcome of one call of the file.
pub(super) enum Attempt<I> {
    /// The call returned a result.
    Done(I, Result<usize>),
    /// A page was under I/O, but is not any more.
    Unlocked(I),
    /// A page is under I/O.
    Waiting,
}

/// Reads through the page cache, as far as pages are not under I/O.
///
/// # Safety
///
/// `iocb` is the kiocb of `this`, a read, of a valid file with `FOP_BUFFER_RASYNC`, and has no
/// completion. `iter` describes the memory of its bios.
pub(super) unsafe fn read<I: RawSubmit + Transfer>(
    this: I,
    iocb: *mut bindings::kiocb,
    iter: &mut bindings::iov_iter,
) -> Attempt<I> {
    let io = this.into_kiocb();
    // SAFETY: The I/O is ours. It is not ours alone once the entry is in a wait queue, which the
    // call of the file does.
    unsafe {
        let wait: *mut bindings::wait_page_queue = (*io).wait.get().cast();
        wait.write(bindings::wait_page_queue {
            wait: bindings::wait_queue_entry {
                private: io.cast(),
                func: Some(page_unlocked::<I>),
                ..pin_init::zeroed()
            },
            ..pin_init::zeroed()
        });
        (*iocb).ki_flags |= bindings::IOCB_WAITQ as i32;
        (*iocb).ki_waitq = wait;
        (*io).refs.store(2, Relaxed);
    }
    // SAFETY: By the requirements of this function. The file uses the iterator until it returns. It
    // uses the entry until that is removed from the wait queue.
    let ret = unsafe { call_file(iocb, iter, false) };
    let queued = ret == -(bindings::EIOCBQUEUED as isize);
    // SAFETY: The I/O is not handed back before the count has come to zero.
    if queued && unsafe { &(*io).refs }.fetch_sub(1, Full) != 1 {
        return Attempt::Waiting;
    }
    // SAFETY: Either the file has left no entry in a wait queue, or the entry was removed.
    let this = unsafe { take_back::<I>(io) };
    match queued {
        true => Attempt::Unlocked(this),
        false => Attempt::Done(this, to_result(ret)),
    }
}

/// Called with the lock of the wait queue held when a page with waiters in this queue is unlocked.
/// Any context.
///
/// # Safety
///
/// `entry` is the entry of an I/O of type `I`, which is in the wait queue. `key` points to a
/// `struct wait_page_key`.
unsafe extern "C" fn page_unlocked<I: RawSubmit + Transfer>(
    entry: *mut bindings::wait_queue_entry,
    _mode: c_uint,
    _flags: c_int,
    key: *mut c_void,
) -> c_int {
    // As in `ki_complete`.
    let _rcu = rcu::read_lock();
    // SAFETY: `entry` is that of a `struct wait_page_queue`, and the lock of the wait queue is
    // held.
    let io: *mut KiocbState = unsafe {
        let wait = container_of!(entry, bindings::wait_page_queue, wait);
        if !bindings::wake_page_match(wait, key.cast()) {
            return 0;
        }
        bindings::list_del_init(&raw mut (*entry).entry);
        (*entry).private.cast()
    };
    // SAFETY: The I/O is not handed back before the count has come to zero.
    if unsafe { &(*io).refs }.fetch_sub(1, Full) == 1 {
        // SAFETY: The call of the file has returned, and the entry was removed.
        unsafe { take_back::<I>(io) }.read_ready();
    }
    1
}

/// Takes an I/O back after a call of the file.
///
/// # Safety
///
/// The I/O is of type `I` and was given up, the call has returned, and the entry of the I/O is in
/// no wait queue.
unsafe fn take_back<I: RawSubmit + Transfer>(io: *mut KiocbState) -> I {
    // SAFETY: By the requirements of this function nobody else has the I/O.
    unsafe {
        (*io).release_bvecs();
        I::from_kiocb(io)
    }
}
