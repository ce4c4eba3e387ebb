// SPDX-License-Identifier: GPL-2.0

//! The kiocb of an I/O, from its submission to a file until its completion.
//!
//! The file's operations are called directly, as `drivers/block/loop.c` does.
//! `vfs_iocb_iter_read()` and `vfs_iocb_iter_write()` would in addition ask the security modules
//! about the current task, which is a worker or whoever submitted the I/O, at each I/O, and send
//! fsnotify events.
//!
//! C header: [`include/linux/fs.h`](srctree/include/linux/fs.h)

use super::{raw::RawSubmit, Op, Transfer};
use crate::{bindings, fs::BackingFile};
use core::{cell::UnsafeCell, mem::MaybeUninit, ptr::NonNull};
use kernel::{
    ffi::c_long,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{Atomic, Full, Relaxed},
        rcu,
    },
};

/// How a request is read from or written to a file (`IOCB_*`).
#[derive(Clone, Copy, Default)]
pub struct IoFlags(i32);

impl IoFlags {
    /// Through the page cache.
    pub const BUFFERED: Self = Self(0);

    /// Past the page cache (`IOCB_DIRECT`).
    pub const DIRECT: Self = Self(bindings::IOCB_DIRECT as i32);

    /// From the page cache alone (`IOCB_NOWAIT`, `IOCB_NOIO`): a read that misses it starts no I/O.
    /// The file must support it ([`FileExt::can_nowait`](crate::fs::FileExt::can_nowait)).
    pub const CACHED: Self = Self((bindings::IOCB_NOWAIT | bindings::IOCB_NOIO) as i32);

    #[inline]
    pub(super) fn is_direct(self) -> bool {
        self.0 & Self::DIRECT.0 != 0
    }

    #[inline]
    pub(super) fn is_cached(self) -> bool {
        self.0 & Self::CACHED.0 == Self::CACHED.0
    }

    #[inline]
    pub(super) fn is_nowait(self) -> bool {
        self.0 & bindings::IOCB_NOWAIT as i32 != 0
    }

    /// Whether a write only goes to the page cache, and does not block.
    #[inline]
    pub(super) fn is_cache_nowait(self) -> bool {
        self.is_nowait() && !self.is_direct() && self.0 & bindings::IOCB_DSYNC as i32 == 0
    }

    /// Adds `IOCB_NOWAIT`: I/O that would block is short, or fails with `EAGAIN`. A read that
    /// misses the page cache starts to fill it. The file must support it
    /// ([`FileExt::can_nowait`](crate::fs::FileExt::can_nowait)).
    pub const fn with_nowait(self) -> Self {
        Self(self.0 | bindings::IOCB_NOWAIT as i32)
    }

    /// Adds `IOCB_DSYNC`: the data of a write, and the metadata to read it back, are durable when
    /// the write completes.
    pub const fn with_dsync(self) -> Self {
        Self(self.0 | bindings::IOCB_DSYNC as i32)
    }
}

/// The largest bvec array that an I/O keeps between uses, in segments.
const KEEP_BVECS: usize = 64;

/// The part of an I/O that is used while it is on a list, or a file serves it.
///
/// `iocb` is first, so that a kiocb leads to its I/O.
#[repr(C)]
pub struct KiocbState {
    /// Written before each use.
    iocb: UnsafeCell<MaybeUninit<bindings::kiocb>>,
    /// The links of the list that the I/O is on.
    pub(super) next: *mut KiocbState,
    pub(super) prev: *mut KiocbState,
    /// The segments of an I/O of several bios.
    pub(super) bvecs: KVec<bindings::bio_vec>,
    /// A reference, owned from submission until completion.
    file: NonNull<BackingFile>,
    result: Result<usize>,
    /// The entry in the wait queue of a page. Written before each use.
    pub(super) wait: UnsafeCell<MaybeUninit<bindings::wait_page_queue>>,
    /// One for the submitting call and one for the completion. Whichever drops the last one owns
    /// the I/O. The call may use `bvecs` and the file after the completion came.
    pub(super) refs: Atomic<i32>,
}

impl KiocbState {
    pub(super) fn new() -> Self {
        Self {
            iocb: UnsafeCell::new(MaybeUninit::uninit()),
            next: core::ptr::null_mut(),
            prev: core::ptr::null_mut(),
            bvecs: KVec::new(),
            file: NonNull::dangling(),
            result: Ok(0),
            wait: UnsafeCell::new(MaybeUninit::uninit()),
            refs: Atomic::new(0),
        }
    }

    #[inline]
    pub(super) fn release_bvecs(&mut self) {
        if self.bvecs.capacity() > KEEP_BVECS {
            self.bvecs = KVec::new();
        } else {
            self.bvecs.clear();
        }
    }
}

/// Reads or writes a file at the kiocb's position.
///
/// # Safety
///
/// - `iocb` points to a kiocb of a [`BackingFile`] that stays valid until it completes.
/// - `iter` describes memory that stays valid until the kiocb completes.
#[inline]
pub(super) unsafe fn call_file(
    iocb: *mut bindings::kiocb,
    iter: &mut bindings::iov_iter,
    write: bool,
) -> isize {
    // SAFETY: By the requirements of this function; a backing file's operations do not change.
    let func = unsafe {
        let ops = (*(*iocb).ki_filp).f_op;
        if write {
            (*ops).write_iter
        } else {
            (*ops).read_iter
        }
    };
    match func {
        // SAFETY: By the requirements of this function.
        Some(func) => unsafe { func(iocb, iter) },
        None => EINVAL.to_errno() as isize,
    }
}

/// Turns the return value of a file operation into a result.
#[inline]
pub(super) fn to_result(ret: isize) -> Result<usize> {
    usize::try_from(ret).map_err(|_| Error::from_errno(ret as i32))
}

/// Takes the freeze protection of the file system for a write. May sleep while the file system is
/// frozen; returns false instead if `flags` has `IOCB_NOWAIT`.
///
/// Wraps the C function `kiocb_start_write`, or its trylock variant in `helpers.c`.
///
/// # Safety
///
/// `iocb` is a kiocb of a valid file.
#[inline]
unsafe fn start_write(iocb: *mut bindings::kiocb, flags: IoFlags) -> bool {
    if !flags.is_nowait() {
        // SAFETY: By the requirements of this function.
        unsafe { bindings::kiocb_start_write(iocb) };
        return true;
    }
    // SAFETY: By the requirements of this function.
    unsafe { bindings::kiocb_start_write_trylock(iocb) }
}

/// Reads or writes a file, and waits for it.
///
/// # Safety
///
/// As for [`call_file`], with a kiocb that has no completion.
#[inline]
pub(super) unsafe fn call(
    op: Op,
    iocb: *mut bindings::kiocb,
    iter: &mut bindings::iov_iter,
    flags: IoFlags,
) -> Result<usize> {
    let write = op == Op::Write;
    // SAFETY: The kiocb's file is valid.
    if write && !unsafe { start_write(iocb, flags) } {
        return Err(EAGAIN);
    }
    // SAFETY: By the requirements of this function.
    let ret = unsafe { call_file(iocb, iter, write) };
    if write {
        // SAFETY: Started above.
        unsafe { bindings::kiocb_end_write(iocb) };
    }
    to_result(ret)
}

/// Sets up the I/O's kiocb, without a completion.
#[inline]
pub(super) fn prepare<I: Transfer>(
    this: &mut I,
    file: &BackingFile,
    pos: i64,
    flags: IoFlags,
) -> *mut bindings::kiocb {
    let (bio, _) = this.bios();
    let ioprio = match bio.is_null() {
        true => 0,
        // SAFETY: The bios are valid until they complete. All have the priority of the first.
        false => unsafe { (*bio).bi_ioprio },
    };
    // By way of a pointer to the whole, as it is to lead back to that.
    //
    // SAFETY: We own the I/O, so nobody else accesses this.
    let iocb = unsafe { &raw const (*this.kiocb()).iocb };
    let iocb: *mut bindings::kiocb = UnsafeCell::raw_get(iocb).cast();
    // SAFETY: As above.
    unsafe {
        iocb.write(bindings::kiocb {
            ki_filp: file.as_ptr(),
            ki_pos: pos,
            ki_flags: flags.0,
            ki_ioprio: ioprio,
            ..pin_init::zeroed()
        })
    };
    iocb
}

/// The outcome of a [submission](super::Submit::submit).
pub enum Submitted<I> {
    /// The I/O is over. I/O and file are the caller's again, with the number of bytes transferred.
    Done(I, Result<usize>, ARef<BackingFile>),
    /// The file has the I/O, and hands it back through
    /// [`Operations::io_complete`](super::Operations::io_complete), or
    /// [`Operations::detached_complete`](super::Operations::detached_complete).
    Queued,
}

/// Starts the I/O of a kiocb that was [prepared](prepare).
///
/// # Safety
///
/// `iocb` is the kiocb of `this`, a read or a write, and of `file`. `iter` describes the memory of
/// its bios.
#[inline]
pub(super) unsafe fn submit<I: RawSubmit + Transfer>(
    mut this: I,
    iocb: *mut bindings::kiocb,
    iter: &mut bindings::iov_iter,
    file: ARef<BackingFile>,
    flags: IoFlags,
) -> Submitted<I> {
    let write = this.op() == Op::Write;
    // SAFETY: The kiocb's file is valid.
    if write && !unsafe { start_write(iocb, flags) } {
        // SAFETY: We own the I/O, and the iterator is not used any more.
        unsafe { (*this.kiocb()).release_bvecs() };
        return Submitted::Done(this, Err(EAGAIN), file);
    }
    // From here on the I/O is not ours alone.
    let io = this.into_kiocb();
    // SAFETY: The file does not know of the I/O yet.
    unsafe {
        (*iocb).ki_complete = Some(ki_complete::<I>);
        (*io).refs.store(2, Relaxed);
        (*io).file = ARef::into_raw(file);
    }
    // SAFETY: The kiocb, the iterator's memory and the reference to the file stay as they are until
    // `finish`, after both the call and the completion.
    let ret = unsafe { call_file(iocb, iter, write) };
    if ret == -(bindings::EIOCBQUEUED as isize) {
        // SAFETY: The I/O does not complete before the count has come to zero.
        if unsafe { &(*io).refs }.fetch_sub(1, Full) != 1 {
            return Submitted::Queued;
        }
        // The completion came first and left the I/O to us.
    } else {
        // SAFETY: The completion is not called when the call returned a result, so that the I/O is
        // ours alone.
        unsafe { (*io).result = to_result(ret) };
    }
    // SAFETY: Call and completion are both over.
    let (this, result, file) = unsafe { finish::<I>(io) };
    Submitted::Done(this, result, file)
}

/// Called by the file when a kiocb that it queued is complete. Any context.
///
/// # Safety
///
/// `iocb` is the kiocb of an I/O of type `I` that was submitted.
unsafe extern "C" fn ki_complete<I: RawSubmit + Transfer>(iocb: *mut bindings::kiocb, ret: c_long) {
    // Completing the last I/O drops the last reference to the module, whose memory is freed a grace
    // period after that.
    let _rcu = rcu::read_lock();
    // The kiocb is the first field.
    let io = iocb.cast::<KiocbState>();
    // SAFETY: The completion alone writes the result until it has dropped its reference.
    unsafe { (*io).result = to_result(ret) };
    // SAFETY: The I/O does not complete before the count has come to zero.
    if unsafe { &(*io).refs }.fetch_sub(1, Full) != 1 {
        // The submitting call has not returned yet, and owns the I/O when it does.
        return;
    }
    // SAFETY: Call and completion are both over.
    let (this, result, file) = unsafe { finish::<I>(io) };
    // Once the I/O completes, nothing of it may hold the file.
    drop(file);
    this.complete_io(result);
}

/// Takes an I/O back from a file.
///
/// # Safety
///
/// The I/O, of type `I`, was submitted, the submitting call has returned, and the kiocb has
/// completed.
unsafe fn finish<I: RawSubmit + Transfer>(
    io: *mut KiocbState,
) -> (I, Result<usize>, ARef<BackingFile>) {
    // SAFETY: By the requirements of this function nobody else has the I/O, which was given up.
    let this = unsafe { I::from_kiocb(io) };
    let write = this.op() == Op::Write;
    // SAFETY: As above. What `io` points to can be part of `this`, which is not used while this
    // reference is.
    let io = unsafe { &mut *io };
    if write {
        // SAFETY: `submit` started the write, and the file is still held.
        unsafe { bindings::kiocb_end_write(io.iocb.get().cast()) };
    }
    io.release_bvecs();
    // SAFETY: `submit` gave up its reference, and it is taken back once.
    let file = unsafe { ARef::from_raw(io.file) };
    (this, io.result, file)
}
