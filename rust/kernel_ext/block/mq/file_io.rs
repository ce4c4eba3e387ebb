// SPDX-License-Identifier: GPL-2.0

//! Serving requests from a file.

use super::{
    request::{Pdu, Request},
    Op, Operations,
};
use crate::{bindings, fs::FileExt, task::NoioScope};
use core::{cell::UnsafeCell, mem::MaybeUninit, ptr::NonNull};
use kernel::{
    alloc::flags::__GFP_NOWARN,
    ffi::c_long,
    fs::File,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{Atomic, Full, Relaxed},
    },
};

/// How a request is served from a file.
#[derive(Clone, Copy, Default)]
pub struct IoFlags(i32);

impl IoFlags {
    /// Through the page cache.
    pub const BUFFERED: Self = Self(0);
    /// Past the page cache (`IOCB_DIRECT`).
    pub const DIRECT: Self = Self(bindings::IOCB_DIRECT as i32);
}

/// What became of a [submission](Request::submit).
pub enum Submitted<T: Operations> {
    /// It is over, and request and file are the caller's again, with the number of bytes
    /// transferred.
    Done(Request<T>, Result<usize>, ARef<File>),
    /// The file has the request and hands it to [`Operations::io_complete`].
    Queued,
}

/// The most segments that a request's bvec array keeps room for between uses.
const KEEP_BVECS: usize = 64;

/// The part of a request's private data that is used while a file serves it.
///
/// `iocb` is first, so that a kiocb leads to its request.
#[repr(C)]
pub(super) struct FileIo {
    iocb: UnsafeCell<bindings::kiocb>,
    /// The segments of a request of several bios.
    bvecs: KVec<bindings::bio_vec>,
    /// A reference, owned from submission until completion.
    file: NonNull<File>,
    result: Result<usize>,
    /// The submitting call and the completion; the later of the two takes the request on. The
    /// call may still look at `bvecs` and the file after the completion has come.
    refs: Atomic<i32>,
}

impl FileIo {
    pub(super) fn new() -> Self {
        Self {
            iocb: UnsafeCell::new(pin_init::zeroed()),
            bvecs: KVec::new(),
            file: NonNull::dangling(),
            result: Ok(0),
            refs: Atomic::new(0),
        }
    }

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
unsafe fn for_each_bvec(bio: *const bindings::bio, mut f: impl FnMut(bindings::bio_vec)) {
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
fn to_result(ret: isize) -> Result<usize> {
    usize::try_from(ret).map_err(|_| Error::from_errno(ret as i32))
}

/// Ends the freeze protection of a write.
///
/// # Safety
///
/// `iocb` is a kiocb of a valid file, on which `kiocb_start_write` was called.
unsafe fn end_write(iocb: *mut bindings::kiocb) {
    // SAFETY: By the requirements of this function.
    unsafe { bindings::kiocb_end_write(iocb) }
}

impl<T: Operations> Request<T> {
    /// Checks what the file's operations rely on.
    fn check(&self, file: &File, pos: i64) -> Result {
        match self.op() {
            Op::Read => (),
            Op::Write if file.is_writable() => (),
            Op::Write => return Err(EBADF),
            // Their bios have no memory.
            _ => return Err(EINVAL),
        }
        let end = pos.checked_add(i64::try_from(self.len())?).ok_or(EFBIG)?;
        if pos < 0 || end < pos {
            return Err(EINVAL);
        }
        Ok(())
    }

    fn direction(&self) -> u32 {
        if self.op() == Op::Write {
            bindings::ITER_SOURCE
        } else {
            bindings::ITER_DEST
        }
    }

    /// Makes an iterator over the request's own segments; nothing is allocated for a request of
    /// one bio.
    ///
    /// # Safety
    ///
    /// The request must neither end nor advance while the iterator is in use.
    unsafe fn iter(&mut self) -> Result<bindings::iov_iter> {
        let direction = self.direction();
        // SAFETY: We own the request.
        let (mut bio, tail) = unsafe { ((*self.as_raw()).bio, (*self.as_raw()).biotail) };
        if bio.is_null() {
            return Err(EIO);
        }
        if bio == tail {
            // SAFETY: A request that transfers data has valid bios with data.
            return Ok(unsafe { bio_iter(bio, direction) });
        }
        // SAFETY: We own the request, so nobody else accesses its private data.
        let bvecs = unsafe { &mut (*self.pdu()).io.bvecs };
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
        {
            // The memory may be needed to write memory back.
            let _noio = NoioScope::enter();
            // There is another way without it.
            bvecs.reserve(segments, GFP_KERNEL | __GFP_NOWARN)?;
        }
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
        // SAFETY: The array stays as it is until the request is done with.
        unsafe {
            bindings::iov_iter_bvec(
                iter.as_mut_ptr(),
                direction,
                bvecs.as_ptr(),
                bvecs.len(),
                self.len(),
            );
            Ok(iter.assume_init())
        }
    }

    /// Sets up the request's kiocb.
    fn prepare(&mut self, file: &File, pos: i64, flags: IoFlags) -> *mut bindings::kiocb {
        // SAFETY: We own the request.
        let rq = unsafe { &*self.as_raw() };
        // SAFETY: The request is valid; a request has the priority of its first bio.
        let ioprio = unsafe { rq.bio.as_ref() }.map_or(0, |bio| bio.bi_ioprio);
        // SAFETY: We own the request, so nobody else accesses its private data.
        let iocb = unsafe { (*self.pdu()).io.iocb.get() };
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

    /// Reads what is left of the request from `file` at byte `pos`, or writes it there, and waits
    /// for it. May sleep.
    ///
    /// Returns how many bytes were transferred, which may be fewer than asked for; the request
    /// does not [advance](Self::advance) by itself.
    ///
    /// # Errors
    ///
    /// `EINVAL` when the request is neither a read nor a write, `EBADF` when it is a write and the
    /// file is not open for that, or what the file says.
    pub fn transfer(&mut self, file: &File, pos: i64, flags: IoFlags) -> Result<usize> {
        self.check(file, pos)?;
        // SAFETY: We hold the request, exclusively, until this function returns, and the iterator
        // is not used after that.
        match unsafe { self.iter() } {
            Ok(mut iter) => {
                let iocb = self.prepare(file, pos, flags);
                // SAFETY: The kiocb has no completion, so that it is complete when the call
                // returns; the file is valid until then.
                let result = unsafe { self.call(iocb, &mut iter) };
                // SAFETY: We own the request.
                unsafe { (*self.pdu()).io.release_bvecs() };
                result
            }
            Err(_) => self.transfer_bios(file, pos, flags),
        }
    }

    /// As [`Self::transfer`], one bio after the other, for which nothing is allocated.
    fn transfer_bios(&mut self, file: &File, mut pos: i64, flags: IoFlags) -> Result<usize> {
        let direction = self.direction();
        let mut total: usize = 0;
        // SAFETY: We own the request.
        let mut bio = unsafe { (*self.as_raw()).bio };
        while !bio.is_null() {
            // SAFETY: The bios of a request are valid until it ends or advances.
            let (mut iter, len, next) = unsafe {
                let len = (*bio).bi_iter.bi_size as usize;
                (bio_iter(bio, direction), len, (*bio).bi_next)
            };
            let iocb = self.prepare(file, pos, flags);
            // SAFETY: As in `transfer`.
            match unsafe { self.call(iocb, &mut iter) } {
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
    unsafe fn call(
        &self,
        iocb: *mut bindings::kiocb,
        iter: &mut bindings::iov_iter,
    ) -> Result<usize> {
        let write = self.op() == Op::Write;
        if write {
            // SAFETY: The kiocb's file is valid.
            unsafe { bindings::kiocb_start_write(iocb) };
        }
        // SAFETY: By the requirements of this function.
        let ret = unsafe { call_file(iocb, iter, write) };
        if write {
            // SAFETY: Started above.
            unsafe { end_write(iocb) };
        }
        to_result(ret)
    }

    /// Starts reading what is left of the request from `file` at byte `pos`, or writing it there.
    /// May sleep, but does not wait for the I/O when the file can do without.
    ///
    /// The request belongs to the file until it is handed to [`Operations::io_complete`], or back
    /// to the caller when it was over before this function returned.
    pub fn submit(mut self, file: ARef<File>, pos: i64, flags: IoFlags) -> Submitted<T> {
        if let Err(e) = self.check(&file, pos) {
            return Submitted::Done(self, Err(e), file);
        }
        // SAFETY: The iterator is used until the file's operation has returned and the kiocb
        // has completed, whichever is later; nobody can end or advance the request until then.
        let Ok(mut iter) = (unsafe { self.iter() }) else {
            let result = self.transfer_bios(&file, pos, flags);
            return Submitted::Done(self, result, file);
        };
        let iocb = self.prepare(&file, pos, flags);
        let write = self.op() == Op::Write;
        let pdu = self.pdu();
        // SAFETY: We own the request.
        unsafe {
            (*iocb).ki_complete = Some(Self::ki_complete);
            (*pdu).io.refs.store(2, Relaxed);
            (*pdu).io.file = ARef::into_raw(file);
        }
        if write {
            // SAFETY: The kiocb's file is valid.
            unsafe { bindings::kiocb_start_write(iocb) };
        }
        // From here on the request is not ours alone.
        let rq = self.into_raw();
        // SAFETY: The kiocb, what the iterator describes, and the reference to the file, all stay
        // as they are until `Self::finish`, after both the call and the completion.
        let ret = unsafe { call_file(iocb, &mut iter, write) };
        if ret == -(bindings::EIOCBQUEUED as isize) {
            // SAFETY: The private data outlives the count.
            if unsafe { &(*pdu).io.refs }.fetch_sub(1, Full) != 1 {
                return Submitted::Queued;
            }
            // The completion came first and left the request to us.
        } else {
            // SAFETY: The completion is not called when the call returned a result, so that the
            // request is ours alone.
            unsafe { (*pdu).io.result = to_result(ret) };
        }
        // SAFETY: Call and completion are both over.
        let (rq, result, file) = unsafe { Self::finish(rq) };
        Submitted::Done(rq, result, file)
    }

    /// Called by the file when a kiocb that it queued is complete.
    ///
    /// # Safety
    ///
    /// `iocb` is the kiocb of a request of operations `T` that was submitted.
    unsafe extern "C" fn ki_complete(iocb: *mut bindings::kiocb, ret: c_long) {
        // The kiocb is the first field of the first field of the private data.
        let pdu = iocb.cast::<Pdu<T>>();
        // SAFETY: The result is the completion's to write until it has dropped its count.
        unsafe { (*pdu).io.result = to_result(ret) };
        // SAFETY: The private data outlives the count.
        if unsafe { &(*pdu).io.refs }.fetch_sub(1, Full) != 1 {
            // The submitting call has not returned yet, and takes the request on.
            return;
        }
        // SAFETY: Call and completion are both over.
        let (rq, result, file) = unsafe { Self::finish(Pdu::request(pdu)) };
        // Once the request ends, nothing of it may hold the file.
        drop(file);
        T::io_complete(rq, result);
    }

    /// Takes a request back from a file.
    ///
    /// # Safety
    ///
    /// `rq` was submitted, the submitting call has returned, and the kiocb has completed.
    unsafe fn finish(rq: *mut bindings::request) -> (Self, Result<usize>, ARef<File>) {
        // SAFETY: By the requirements of this function nobody else has the request.
        let this = unsafe { Self::from_raw(rq) };
        // SAFETY: As above.
        let io = unsafe { &mut (*this.pdu()).io };
        if this.op() == Op::Write {
            // SAFETY: `submit` started the write, and the file is still held.
            unsafe { end_write(io.iocb.get()) };
        }
        io.release_bvecs();
        // SAFETY: `submit` gave up its reference, and it is taken back once.
        let file = unsafe { ARef::from_raw(io.file) };
        (this, io.result, file)
    }
}
