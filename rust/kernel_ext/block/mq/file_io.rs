// SPDX-License-Identifier: GPL-2.0

//! Serving requests from a file.
//!
//! # Soundness
//!
//! | What safe code could try | What stops it |
//! | --- | --- |
//! | Touch I/O that the file has | `submit` takes it by value, until call and completion are over |
//! | Close the file meanwhile | The I/O holds a reference to it |
//! | Free memory that the file uses | The bios end no earlier; the I/O has the array of segments |
//! | Transfer what has no memory | Only reads and writes are: `EINVAL` |
//! | Write to a file opened to be read | `EBADF` |
//! | Read from a file opened to be written | Nothing; it is read, as the file's operations have it |
//! | Ask a file not to wait that does not know how | `EOPNOTSUPP` |
//! | Ask for direct I/O where there is none | `EINVAL` |
//! | Make I/O of one's own | [`Transfer`] is `unsafe`, and so is its `from_io` |
//! | Serve I/O from its own device | Nothing; it waits for itself |
//! | Have the module unloaded as the last I/O ends | Its completion holds the RCU lock ([`crate`]) |

use super::{
    bdev_io::{read_bdev_cached, write_bdev_cached},
    Op, //
};
use crate::{
    bindings,
    block::{Queue, Status},
    cgroup::{Css, Io},
    fs::{BackingFile, FileExt},
};
use core::{cell::UnsafeCell, mem::MaybeUninit, ptr::NonNull};
use kernel::{
    alloc::flags::__GFP_NOWARN,
    ffi::c_long,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{Atomic, Full, Relaxed},
        rcu,
    },
    task::might_sleep,
};

/// How a request is served from a file.
#[derive(Clone, Copy, Default)]
pub struct IoFlags(i32);

impl IoFlags {
    /// Through the page cache.
    pub const BUFFERED: Self = Self(0);
    /// Past the page cache (`IOCB_DIRECT`).
    pub const DIRECT: Self = Self(bindings::IOCB_DIRECT as i32);

    /// Through the page cache, for as much as it has: nothing is started (`IOCB_NOWAIT`,
    /// `IOCB_NOIO`). The file must know how ([`FileExt::can_nowait`]).
    pub const CACHED: Self = Self((bindings::IOCB_NOWAIT | bindings::IOCB_NOIO) as i32);

    fn is_direct(self) -> bool {
        self.0 & Self::DIRECT.0 != 0
    }

    fn is_cached(self) -> bool {
        self.0 & Self::CACHED.0 == Self::CACHED.0
    }

    fn is_nowait(self) -> bool {
        self.0 & bindings::IOCB_NOWAIT as i32 != 0
    }

    /// Through the page cache, without waiting, not even for what is written to be safe.
    fn is_cache_nowait(self) -> bool {
        self.is_nowait() && !self.is_direct() && self.0 & bindings::IOCB_DSYNC as i32 == 0
    }

    /// The same, for as much as can be had without waiting (`IOCB_NOWAIT`): `EAGAIN` when that is
    /// nothing. A read that misses the page cache starts to fill it. The file must know how
    /// ([`FileExt::can_nowait`]).
    pub const fn with_nowait(self) -> Self {
        Self(self.0 | bindings::IOCB_NOWAIT as i32)
    }

    /// The same, with the data of a write, and what it takes to read it back, safe when it is over
    /// (`IOCB_DSYNC`).
    pub const fn with_dsync(self) -> Self {
        Self(self.0 | bindings::IOCB_DSYNC as i32)
    }
}

/// What became of a [submission](Submit::submit).
pub enum Submitted<I> {
    /// It is over, and I/O and file are the caller's again, with the number of bytes
    /// transferred.
    Done(I, Result<usize>, ARef<BackingFile>),
    /// The file has the I/O and hands it back through
    /// [`Operations::io_complete`](super::Operations::io_complete), or
    /// [`Operations::detached_complete`](super::Operations::detached_complete).
    Queued,
}

/// The most segments that an I/O's bvec array keeps room for between uses.
const KEEP_BVECS: usize = 64;

/// What is used of an I/O while a file serves it.
///
/// `iocb` is first, so that a kiocb leads to its I/O.
#[repr(C)]
pub struct FileIo {
    /// Written before each use.
    iocb: UnsafeCell<MaybeUninit<bindings::kiocb>>,
    /// The links of the list that the I/O is on.
    pub(super) next: *mut FileIo,
    pub(super) prev: *mut FileIo,
    /// The segments of an I/O of several bios.
    bvecs: KVec<bindings::bio_vec>,
    /// A reference, owned from submission until completion.
    file: NonNull<BackingFile>,
    result: Result<usize>,
    /// The submitting call and the completion; the later of the two takes the I/O on. The
    /// call may still look at `bvecs` and the file after the completion has come.
    refs: Atomic<i32>,
}

impl FileIo {
    pub(super) fn new() -> Self {
        Self {
            iocb: UnsafeCell::new(MaybeUninit::uninit()),
            next: core::ptr::null_mut(),
            prev: core::ptr::null_mut(),
            bvecs: KVec::new(),
            file: NonNull::dangling(),
            result: Ok(0),
            refs: Atomic::new(0),
        }
    }

    #[inline]
    fn release_bvecs(&mut self) {
        if self.bvecs.capacity() > KEEP_BVECS {
            self.bvecs = KVec::new();
        } else {
            self.bvecs.clear();
        }
    }
}

/// Calls `f` with the segments of what is left of a bio.
///
/// # Safety
///
/// `bio` points to a valid bio with data.
#[inline]
pub(super) unsafe fn for_each_bvec(
    bio: *const bindings::bio,
    mut f: impl FnMut(bindings::bio_vec),
) {
    // SAFETY: By the requirements of this function.
    let (vecs, iter) = unsafe { ((*bio).bi_io_vec, (*bio).bi_iter) };
    let (mut idx, mut done, mut left) = (iter.bi_idx as usize, iter.bi_offset, iter.bi_size);
    while left > 0 {
        // SAFETY: A bio's iterator stays within its vector until it has run out of bytes.
        let vec = unsafe { *vecs.add(idx) };
        let len = vec.bv_len.saturating_sub(done).min(left);
        if len > 0 {
            f(bindings::bio_vec {
                bv_page: vec.bv_page,
                bv_len: len,
                bv_offset: vec.bv_offset.wrapping_add(done),
            });
        }
        left -= len;
        done = 0;
        idx += 1;
    }
}

/// Makes an iterator over what is left of a bio.
///
/// # Safety
///
/// `bio` points to a valid bio with data, which stays valid as long as the iterator is used.
#[inline]
unsafe fn bio_iter(bio: *const bindings::bio, direction: u32) -> bindings::iov_iter {
    let mut iter = MaybeUninit::uninit();
    // SAFETY: The bio's vector has that many entries from `bi_idx` on, the first of which is
    // used from `bi_offset` on: the bio may have been split from another.
    unsafe {
        let at = (*bio).bi_iter;
        bindings::iov_iter_bvec(
            iter.as_mut_ptr(),
            direction,
            (*bio).bi_io_vec.add(at.bi_idx as usize),
            nr_bvecs(bio),
            at.bi_size as usize,
        );
        (*iter.as_mut_ptr()).iov_offset = at.bi_offset as usize;
        iter.assume_init()
    }
}

/// Counts the segments of what is left of a bio.
///
/// # Safety
///
/// `bio` points to a valid bio with data.
#[inline]
unsafe fn nr_bvecs(bio: *const bindings::bio) -> usize {
    let mut n = 0;
    // SAFETY: By the requirements of this function.
    unsafe { for_each_bvec(bio, |_| n += 1) };
    n
}

/// Reads or writes a file at the kiocb's position.
///
/// # Safety
///
/// - `iocb` points to a kiocb that stays valid until it completes, of a valid file.
/// - `iter` describes memory that stays valid until the kiocb completes.
#[inline]
unsafe fn call_file(
    iocb: *mut bindings::kiocb,
    iter: &mut bindings::iov_iter,
    write: bool,
) -> isize {
    // SAFETY: The file is valid by the requirements of this function.
    let ops = unsafe { (*(*iocb).ki_filp).f_op };
    // SAFETY: A file has operations.
    let func = unsafe {
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

/// Turns what a file operation returned into a result.
#[inline]
fn to_result(ret: isize) -> Result<usize> {
    usize::try_from(ret).map_err(|_| Error::from_errno(ret as i32))
}

/// Protects a write from the file system's being frozen; waits for it to be thawed, unless the
/// write must not wait, which fails then.
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
    // SAFETY: By the requirements of this function; an open file has an inode, and that a super
    // block.
    unsafe {
        let sb = (*(*(*iocb).ki_filp).f_inode).i_sb;
        let started = bindings::sb_start_write_trylock(sb);
        if started {
            // It is another task, maybe, that ends the protection: as `kiocb_start_write` has it.
            bindings::__sb_writers_release(sb, bindings::SB_FREEZE_WRITE as i32);
        }
        started
    }
}

/// Ends the freeze protection of a write.
///
/// # Safety
///
/// `iocb` is a kiocb of a valid file, on which [`start_write`] was called, and true.
#[inline]
unsafe fn end_write(iocb: *mut bindings::kiocb) {
    // SAFETY: By the requirements of this function.
    unsafe { bindings::kiocb_end_write(iocb) }
}

/// I/O that a file can serve: a chain of bios that cover a contiguous range, held by its one owner.
///
/// # Safety
///
/// - [`bios`](Self::bios) returns the first and the last of a chain of valid bios, which stays as
///   it is until the I/O ends or advances, or two null pointers. [`len`](Self::len) is the number
///   of their bytes. The bios of a read or a write have data.
/// - [`io`](Self::io) returns a pointer to a [`FileIo`] that is valid for as long as the I/O is
///   borrowed, and accessed by its owner only.
pub unsafe trait Transfer: Sized {
    /// What is asked for.
    fn op(&self) -> Op;

    /// Where on the device it starts, in bytes.
    fn position(&self) -> u64;

    /// How many bytes are left to transfer.
    fn len(&self) -> usize;

    /// Whether nothing is left to transfer.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the data of a write must be safe before the I/O ends, past any volatile cache.
    fn is_fua(&self) -> bool;

    /// The queue that the I/O came through.
    fn queue(&self) -> &Queue;

    /// Ends the first `bytes` successfully, so that the rest is what remains. What is no whole
    /// sector remains, too: a position is counted in them.
    fn advance(&mut self, bytes: usize);

    /// Ends the I/O here and now. Any context.
    ///
    /// Who submitted it decides by the context whether to do expensive work such as decompression in
    /// the completion callback (`bio_in_atomic()`, `in_interrupt()`). A task that serves the I/O of
    /// many would do that work for one after the other, so that the callback is run with bottom
    /// halves disabled, as in the softirq that completes most I/O.
    fn end(self, status: Status);

    #[doc(hidden)]
    fn bios(&self) -> (*mut bindings::bio, *mut bindings::bio);

    #[doc(hidden)]
    fn io(&mut self) -> *mut FileIo;

    /// The blkcg that the first bio is charged to; `None` when there is no bio, or it has no
    /// cgroup.
    ///
    /// Wraps the C function `bio_blkcg_css`.
    fn blkcg(&self) -> Option<&Css<Io>> {
        let (bio, _) = self.bios();
        if bio.is_null() {
            return None;
        }
        // SAFETY: The bios are valid until the I/O ends, or is advanced past them, which takes an
        // exclusive borrow; the bio holds a reference to its blkg, which holds one to the css.
        unsafe { Css::from_raw(bindings::bio_blkcg_css(bio)) }
    }

    /// Fills what is left of a read with zeroes; does nothing to other I/O.
    ///
    /// Wraps the C function `zero_fill_bio`.
    fn zero_fill(&mut self) {
        if self.op() != Op::Read {
            return;
        }
        let (mut bio, _) = self.bios();
        while !bio.is_null() {
            // SAFETY: The bios are valid until they end, and so is their chain.
            unsafe {
                bindings::zero_fill_bio(bio);
                bio = (*bio).bi_next;
            }
        }
    }

    /// Reads what is left of the I/O from `file` at byte `pos`, or writes it there, and waits for
    /// it. May sleep.
    ///
    /// Returns how many bytes were transferred, which may be fewer than asked for; the I/O does
    /// not [advance](Self::advance) by itself.
    ///
    /// # Errors
    ///
    /// `EINVAL` when it is neither a read nor a write, or is to be direct and the file does not
    /// know how, `EOPNOTSUPP` when it is not to wait and the file does not know how, `EBADF` when it is
    /// a write and the file is not open for that, or what the file says.
    fn transfer(&mut self, file: &BackingFile, pos: i64, flags: IoFlags) -> Result<usize> {
        check(self, file, pos, flags)?;
        if !flags.is_nowait() {
            might_sleep();
        }
        // SAFETY: We hold the I/O, exclusively, until this function returns, and the iterator
        // is not used after that.
        match unsafe { iter(self) } {
            Ok(mut iter) => {
                let iocb = prepare(self, file, pos, flags);
                let end = pos.saturating_add(self.len() as i64);
                // SAFETY: The kiocb has no completion, so that it is complete when the call
                // returns; the file is valid until then. It is of a block device where it is used
                // as one, and the flags are those of the kiocb.
                let result = unsafe {
                    match self.op() {
                        Op::Read if flags.is_cached() && file.as_bdev().is_some() => {
                            to_result(read_bdev_cached(iocb, &mut iter, end))
                        }
                        Op::Write if flags.is_cache_nowait() && file.as_bdev().is_some() => {
                            to_result(write_bdev_cached(iocb, &mut iter, end))
                        }
                        op => call(op, iocb, &mut iter, flags),
                    }
                };
                // SAFETY: We own the I/O.
                unsafe { (*self.io()).release_bvecs() };
                result
            }
            Err(_) if flags.is_cached() => Err(EAGAIN),
            Err(_) => transfer_bios(self, file, pos, flags),
        }
    }
}

/// I/O that a file can serve after the submitting call has returned.
///
/// # Safety
///
/// - What [`io`](Transfer::io) returns stays valid until the I/O ends.
/// - [`from_io`](Self::from_io) of what [`io`](Transfer::io) returned, when the I/O was given up
///   with [`into_io`](Self::into_io), makes the same I/O again.
pub unsafe trait Submit: Transfer {
    /// Gives up ownership without ending the I/O.
    #[doc(hidden)]
    fn into_io(mut self) -> *mut FileIo {
        let io = self.io();
        core::mem::forget(self);
        io
    }

    /// # Safety
    ///
    /// `io` came from [`into_io`](Self::into_io), and is used for this once.
    #[doc(hidden)]
    unsafe fn from_io(io: *mut FileIo) -> Self;

    /// Hands the I/O back to the driver when the file has completed it, in any context.
    #[doc(hidden)]
    fn complete_io(self, result: Result<usize>);

    /// Starts reading what is left of the I/O from `file` at byte `pos`, or writing it there.
    /// May sleep, but does not wait for the file when it can do without.
    ///
    /// The I/O belongs to the file until it is handed back, or it is the caller's again when it
    /// was over before this function returned.
    ///
    /// With [`IoFlags::with_nowait`] it can be over, or be handed back, with `EAGAIN`.
    fn submit(mut self, file: ARef<BackingFile>, pos: i64, flags: IoFlags) -> Submitted<Self> {
        if let Err(e) = check(&self, &file, pos, flags) {
            return Submitted::Done(self, Err(e), file);
        }
        if !flags.is_nowait() {
            might_sleep();
        }
        // SAFETY: The iterator is used until the file's operation has returned and the kiocb
        // has completed, whichever is later; nobody can end or advance the I/O until then.
        let Ok(mut iter) = (unsafe { iter(&mut self) }) else {
            let result = transfer_bios(&mut self, &file, pos, flags);
            return Submitted::Done(self, result, file);
        };
        let iocb = prepare(&mut self, &file, pos, flags);
        let write = self.op() == Op::Write;
        // SAFETY: The kiocb's file is valid.
        if write && !unsafe { start_write(iocb, flags) } {
            // SAFETY: We own the I/O, and the iterator is not used any more.
            unsafe { (*self.io()).release_bvecs() };
            return Submitted::Done(self, Err(EAGAIN), file);
        }
        // From here on the I/O is not ours alone.
        let io = self.into_io();
        // SAFETY: The file does not know of the I/O yet.
        unsafe {
            (*iocb).ki_complete = Some(ki_complete::<Self>);
            (*io).refs.store(2, Relaxed);
            (*io).file = ARef::into_raw(file);
        }
        // SAFETY: The kiocb, what the iterator describes, and the reference to the file, all stay
        // as they are until `finish`, after both the call and the completion.
        let ret = unsafe { call_file(iocb, &mut iter, write) };
        if ret == -(bindings::EIOCBQUEUED as isize) {
            // SAFETY: The I/O does not end before the count has come to zero.
            if unsafe { &(*io).refs }.fetch_sub(1, Full) != 1 {
                return Submitted::Queued;
            }
            // The completion came first and left the I/O to us.
        } else {
            // SAFETY: The completion is not called when the call returned a result, so that the
            // I/O is ours alone.
            unsafe { (*io).result = to_result(ret) };
        }
        // SAFETY: Call and completion are both over.
        let (this, result, file) = unsafe { finish::<Self>(io) };
        Submitted::Done(this, result, file)
    }
}

/// Checks what the file's operations rely on.
#[inline]
fn check<I: Transfer>(this: &I, file: &BackingFile, pos: i64, flags: IoFlags) -> Result {
    match this.op() {
        Op::Read => (),
        Op::Write if file.is_writable() => (),
        Op::Write => return Err(EBADF),
        // Their bios have no memory.
        _ => return Err(EINVAL),
    }
    // As for `O_DIRECT`: not every file that can be read and written has what it takes.
    if flags.is_direct() && !file.can_direct() {
        return Err(EINVAL);
    }
    // As `kiocb_set_rw_flags()` has it.
    if flags.is_nowait() && !file.can_nowait() {
        return Err(EOPNOTSUPP);
    }
    let end = pos.checked_add(i64::try_from(this.len())?).ok_or(EFBIG)?;
    if pos < 0 || end < pos {
        return Err(EINVAL);
    }
    Ok(())
}

#[inline]
fn direction(op: Op) -> u32 {
    if op == Op::Write {
        bindings::ITER_SOURCE
    } else {
        bindings::ITER_DEST
    }
}

/// Makes an iterator over the I/O's own segments; nothing is allocated for one of one bio.
///
/// # Safety
///
/// The I/O is a read or a write. It must neither end nor advance while the iterator is in use.
#[inline]
unsafe fn iter<I: Transfer>(this: &mut I) -> Result<bindings::iov_iter> {
    let direction = direction(this.op());
    let (mut bio, tail) = this.bios();
    if bio.is_null() {
        return Err(EIO);
    }
    if bio == tail {
        // SAFETY: The bios of a read or a write are valid, with data.
        return Ok(unsafe { bio_iter(bio, direction) });
    }
    let len = this.len();
    // SAFETY: We own the I/O, so nobody else accesses this, and it is not used while this reference
    // is.
    let bvecs = unsafe { &mut (*this.io()).bvecs };
    bvecs.clear();
    let first = bio;
    let mut segments = 0;
    while !bio.is_null() {
        // SAFETY: As above.
        unsafe {
            segments += nr_bvecs(bio);
            bio = (*bio).bi_next;
        }
    }
    // The memory may be needed to write memory back, and there is another way without it.
    bvecs.reserve(segments, GFP_NOWAIT | __GFP_NOWARN)?;
    bio = first;
    while !bio.is_null() {
        // SAFETY: As above.
        unsafe {
            // There is room for all.
            for_each_bvec(bio, |vec| drop(bvecs.push_within_capacity(vec)));
            bio = (*bio).bi_next;
        }
    }
    let mut iter = MaybeUninit::uninit();
    // SAFETY: The array stays as it is until the I/O is done with.
    unsafe {
        bindings::iov_iter_bvec(
            iter.as_mut_ptr(),
            direction,
            bvecs.as_ptr(),
            bvecs.len(),
            len,
        );
        Ok(iter.assume_init())
    }
}

/// Sets up the I/O's kiocb.
#[inline]
fn prepare<I: Transfer>(
    this: &mut I,
    file: &BackingFile,
    pos: i64,
    flags: IoFlags,
) -> *mut bindings::kiocb {
    let (bio, _) = this.bios();
    let ioprio = match bio.is_null() {
        true => 0,
        // SAFETY: The bios are valid until they end; all of them have the priority of the first.
        false => unsafe { (*bio).bi_ioprio },
    };
    // By way of a pointer to the whole, as it is to lead back to that.
    //
    // SAFETY: We own the I/O, so nobody else accesses this.
    let iocb = unsafe { &raw const (*this.io()).iocb };
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

/// As [`Transfer::transfer`], one bio after the other, for which nothing is allocated.
fn transfer_bios<I: Transfer>(
    this: &mut I,
    file: &BackingFile,
    mut pos: i64,
    flags: IoFlags,
) -> Result<usize> {
    let direction = direction(this.op());
    let mut total: usize = 0;
    let (mut bio, _) = this.bios();
    while !bio.is_null() {
        // SAFETY: The bios are valid until the I/O ends or advances.
        let (mut iter, len, next) = unsafe {
            let len = (*bio).bi_iter.bi_size as usize;
            (bio_iter(bio, direction), len, (*bio).bi_next)
        };
        let iocb = prepare(this, file, pos, flags);
        // SAFETY: As in `transfer`.
        match unsafe { call(this.op(), iocb, &mut iter, flags) } {
            Ok(n) => {
                total += n;
                pos = pos.saturating_add(n as i64);
                if n < len {
                    break;
                }
            }
            Err(e) if total == 0 => return Err(e),
            Err(_) => break,
        }
        bio = next;
    }
    Ok(total)
}

/// # Safety
///
/// As for [`call_file`], with a kiocb that has no completion.
#[inline]
unsafe fn call(
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
        unsafe { end_write(iocb) };
    }
    to_result(ret)
}

/// Called by the file when a kiocb that it queued is complete.
///
/// # Safety
///
/// `iocb` is the kiocb of an I/O of type `I` that was submitted.
unsafe extern "C" fn ki_complete<I: Submit>(iocb: *mut bindings::kiocb, ret: c_long) {
    // With the last I/O goes what keeps the module; its memory goes a grace period after that.
    let _rcu = rcu::read_lock();
    // The kiocb is the first field.
    let io = iocb.cast::<FileIo>();
    // SAFETY: The result is the completion's to write until it has dropped its count.
    unsafe { (*io).result = to_result(ret) };
    // SAFETY: The I/O does not end before the count has come to zero.
    if unsafe { &(*io).refs }.fetch_sub(1, Full) != 1 {
        // The submitting call has not returned yet, and takes the I/O on.
        return;
    }
    // SAFETY: Call and completion are both over.
    let (this, result, file) = unsafe { finish::<I>(io) };
    // Once the I/O ends, nothing of it may hold the file.
    drop(file);
    this.complete_io(result);
}

/// Takes an I/O back from a file.
///
/// # Safety
///
/// The I/O, of type `I`, was submitted, the submitting call has returned, and the kiocb has
/// completed.
unsafe fn finish<I: Submit>(io: *mut FileIo) -> (I, Result<usize>, ARef<BackingFile>) {
    // SAFETY: By the requirements of this function nobody else has the I/O, which was given up.
    let this = unsafe { I::from_io(io) };
    let write = this.op() == Op::Write;
    // SAFETY: As above. What `io` points to can be part of `this`, which is not used while this
    // reference is.
    let io = unsafe { &mut *io };
    if write {
        // SAFETY: `submit` started the write, and the file is still held.
        unsafe { end_write(io.iocb.get().cast()) };
    }
    io.release_bvecs();
    // SAFETY: `submit` gave up its reference, and it is taken back once.
    let file = unsafe { ARef::from_raw(io.file) };
    (this, io.result, file)
}
