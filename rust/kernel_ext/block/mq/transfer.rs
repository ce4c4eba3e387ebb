// SPDX-License-Identifier: GPL-2.0

//! Reading I/O from a file, or writing it there.
//!
//! # Soundness
//!
//! | What safe code could try | What stops it |
//! | --- | --- |
//! | Access I/O that the file has | `submit` takes it by value, until call and completion are over |
//! | Close the file meanwhile | The I/O holds a reference to it |
//! | Free memory that the file uses | The bios complete no earlier; the I/O has the array of segments |
//! | Transfer I/O without memory | Only reads and writes are: `EINVAL` |
//! | Write to a file opened to be read | `EBADF` |
//! | Read from a file opened to be written | Its operation decides, as in `drivers/block/loop.c` |
//! | Ask for `IOCB_NOWAIT` or direct I/O that a file lacks | `EOPNOTSUPP`, `EINVAL` |
//! | Implement [`Transfer`] | Its supertrait is private |
//! | Call the raw methods of a type parameter | Nothing; the I/O is forgotten, or the driver completes it |
//! | Serve I/O from its own device | Nothing; it waits for itself |
//! | Have the module unloaded as the last I/O completes | [`ExitBarrier`](crate::module::ExitBarrier) |

use super::{
    bdev_io::{read_bdev_cached, write_bdev_cached},
    bio::{bio_iter, chain_iter, BioChain},
    kiocb::{self, call, prepare, to_result, IoFlags, Submitted},
    page_wait::{self, Attempt, CacheRead},
    raw::{RawIo, RawSubmit},
    Op, //
};
use crate::{
    bindings,
    block::{Queue, Status},
    cgroup::{Css, Io},
    compat::EOPNOTSUPP,
    fs::{BackingFile, FileExt},
};
use kernel::{
    prelude::*,
    sync::aref::ARef,
    task::might_sleep, //
};

/// I/O that a file can serve: a chain of bios that cover a contiguous range, held by its one owner.
pub trait Transfer: RawIo {
    /// The operation.
    fn op(&self) -> Op;

    /// The first byte on the device.
    fn position(&self) -> u64;

    /// How many bytes are left to transfer.
    fn len(&self) -> usize;

    /// Whether nothing is left to transfer.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the data of a write must be durable, past any volatile cache, before the I/O
    /// completes (`REQ_FUA`).
    fn is_fua(&self) -> bool;

    /// Whether this writes swapped memory (`REQ_SWAP`).
    fn is_swap(&self) -> bool;

    /// The queue that the I/O came through.
    fn queue(&self) -> &Queue;

    /// Completes the first `bytes` successfully, so that the rest is left. Rounded down to whole
    /// sectors, in which a position is counted. Any context.
    fn advance(&mut self, bytes: usize);

    /// Completes the I/O. Any context.
    ///
    /// The submitter's completion callback decides by the context whether to do expensive work such
    /// as decompression (`bio_in_atomic()`, `in_interrupt()`). A worker that serves the I/O of many
    /// submitters would do that work for one after the other, so that in a task the callback is run
    /// with bottom halves disabled, as in the softirq that completes most I/O.
    fn end(self, status: Status);

    /// The blkcg that the first bio is charged to; `None` if there is no bio, or it has no blkcg.
    ///
    /// Wraps the C function `bio_blkcg_css`.
    fn blkcg(&self) -> Option<&Css<Io>> {
        let (bio, _) = self.bios();
        if bio.is_null() {
            return None;
        }
        // SAFETY: The bios are valid until the I/O completes, or advances past them, which takes an
        // exclusive borrow. The bio holds a reference to its blkg, which holds one to the css.
        unsafe { Css::from_raw(bindings::bio_blkcg_css(bio)) }
    }

    /// Fills the rest of a read with zeroes; does nothing to other I/O.
    ///
    /// Wraps the C function `zero_fill_bio`.
    fn zero_fill(&mut self) {
        if self.op() != Op::Read {
            return;
        }
        let (head, _) = self.bios();
        // SAFETY: We own the I/O, which neither completes nor advances here.
        for bio in unsafe { BioChain::new(head) } {
            // SAFETY: As above; the bios of a read have data.
            unsafe { bindings::zero_fill_bio(bio) };
        }
    }

    /// Reads the rest of the I/O from `file` at byte `pos`, or writes it there, and waits for it.
    /// May sleep; with [`IoFlags::with_nowait`] it does not wait for the file.
    ///
    /// Returns how many bytes were transferred, which can be fewer than asked for. The I/O does not
    /// [advance](Self::advance) by itself.
    ///
    /// # Errors
    ///
    /// - `EINVAL` if it is neither a read nor a write, or the file does not support direct I/O.
    /// - `EOPNOTSUPP` if the file does not support `IOCB_NOWAIT`.
    /// - `EBADF` if it is a write and the file is not open for writing.
    /// - `EAGAIN` if it would block and must not.
    /// - Errors of the file's operation.
    #[inline]
    fn transfer(&mut self, file: &BackingFile, pos: i64, flags: IoFlags) -> Result<usize> {
        self.transfer_some(file, pos, flags, usize::MAX)
    }

    /// As [`transfer`](Self::transfer), of at most `max` bytes.
    ///
    /// # Errors
    ///
    /// As for [`transfer`](Self::transfer).
    fn transfer_some(
        &mut self,
        file: &BackingFile,
        pos: i64,
        flags: IoFlags,
        max: usize,
    ) -> Result<usize> {
        check(self, file, pos, flags)?;
        // SAFETY: We hold the I/O, exclusively, until this function returns, and the iterator is
        // not used after that.
        match unsafe { iter(self) } {
            Ok(mut iter) => {
                if max < self.len() {
                    // SAFETY: The iterator was made just now.
                    unsafe { bindings::iov_iter_truncate(&mut iter, max as u64) };
                }
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
                unsafe { (*self.kiocb()).release_bvecs() };
                result
            }
            Err(_) if flags.is_cached() => Err(EAGAIN),
            Err(_) => transfer_bios(self, file, pos, flags, max),
        }
    }
}

/// I/O that a file can serve after the submitting call has returned.
///
/// # Examples
///
/// ```
/// use kernel::sync::aref::ARef;
/// use kernel_ext::{
///     block::{
///         mq::{IoFlags, Submit, Submitted, Transfer},
///         Status,
///     },
///     fs::BackingFile,
/// };
///
/// // Direct I/O to the same position of a file. What the file completes later gets to
/// // `Operations::io_complete`.
/// fn serve<I: Submit>(io: I, file: ARef<BackingFile>) -> Result {
///     let pos = io.position().try_into()?;
///     if let Submitted::Done(mut io, result, file) = io.submit(file, pos, IoFlags::DIRECT) {
///         // A file system may not support this in direct I/O: through the page cache, then.
///         let result = result.or_else(|_| io.transfer(&file, pos, IoFlags::BUFFERED));
///         io.end(result.map(|_| ()).into());
///     }
///     Ok(())
/// }
/// ```
pub trait Submit: Transfer + RawSubmit {
    /// Starts to read the rest of the I/O from `file` at byte `pos`, or to write it there. May
    /// sleep, but does not wait for direct I/O to complete if the file system can complete it
    /// later.
    ///
    /// The I/O belongs to the file until it is handed back. It is the caller's again if it was over
    /// before this function returned.
    ///
    /// # Errors
    ///
    /// As for [`transfer`](Transfer::transfer), in [`Submitted::Done`] or when the I/O is handed
    /// back.
    fn submit(mut self, file: ARef<BackingFile>, pos: i64, flags: IoFlags) -> Submitted<Self> {
        if let Err(e) = check(&self, &file, pos, flags) {
            return Submitted::Done(self, Err(e), file);
        }
        // SAFETY: The iterator is used until the file's operation has returned and the kiocb has
        // completed, whichever is later; nobody can complete or advance the I/O until then.
        let Ok(mut iter) = (unsafe { iter(&mut self) }) else {
            let result = transfer_bios(&mut self, &file, pos, flags, usize::MAX);
            return Submitted::Done(self, result, file);
        };
        let iocb = prepare(&mut self, &file, pos, flags);
        // SAFETY: It was made just now, for a read or a write, and so was the iterator.
        unsafe { kiocb::submit(self, iocb, &mut iter, file, flags) }
    }

    /// Reads the rest of the I/O from the page cache of `file` at byte `pos`. Starts to fill the
    /// cache where it misses, but does not wait for pages under I/O. May sleep otherwise.
    ///
    /// # Errors
    ///
    /// As for [`transfer`](Transfer::transfer), in [`CacheRead::Done`].
    ///
    /// - `EOPNOTSUPP` if the file does not support it
    ///   ([`FileExt::can_read_async`](crate::fs::FileExt::can_read_async)).
    /// - `EAGAIN` if it must wait after all.
    fn read_cached(mut self, file: &BackingFile, pos: i64) -> CacheRead<Self> {
        let flags = IoFlags::BUFFERED;
        let checked = match self.op() {
            Op::Read if file.can_read_async() => check(&self, file, pos, flags),
            Op::Read => Err(EOPNOTSUPP),
            _ => Err(EINVAL),
        };
        if let Err(e) = checked {
            return CacheRead::Done(self, Err(e));
        }
        loop {
            // SAFETY: The iterator is used until the file's operation has returned; nobody can
            // complete or advance the I/O until then.
            let Ok(mut iter) = (unsafe { iter(&mut self) }) else {
                return CacheRead::Done(self, Err(EAGAIN));
            };
            let iocb = prepare(&mut self, file, pos, flags);
            // SAFETY: It was made just now, for a read, and so was the iterator.
            match unsafe { page_wait::read(self, iocb, &mut iter) } {
                Attempt::Done(this, result) => return CacheRead::Done(this, result),
                Attempt::Unlocked(this) => self = this,
                Attempt::Waiting => return CacheRead::Waiting,
            }
        }
    }
}

/// Checks the conditions that the file's operations rely on.
#[inline]
fn check<I: Transfer>(this: &I, file: &BackingFile, pos: i64, flags: IoFlags) -> Result {
    match this.op() {
        Op::Read => (),
        Op::Write if file.is_writable() => (),
        Op::Write => return Err(EBADF),
        // Their bios have no memory.
        _ => return Err(EINVAL),
    }
    // As `open()` has it for `O_DIRECT`.
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
    if !flags.is_nowait() {
        might_sleep();
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

/// Makes an iterator over the I/O's own segments; nothing is allocated for an I/O of one bio.
///
/// # Safety
///
/// The I/O is a read or a write. It must neither complete nor advance while the iterator is in use.
#[inline]
unsafe fn iter<I: Transfer>(this: &mut I) -> Result<bindings::iov_iter> {
    let direction = direction(this.op());
    let (bio, tail) = this.bios();
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
    let bvecs = unsafe { &mut (*this.kiocb()).bvecs };
    // SAFETY: By the requirements of this function bios and array stay as they are.
    unsafe { chain_iter(bio, len, direction, bvecs) }
}

/// As [`Transfer::transfer_some`], one bio after the other, for which nothing is allocated.
fn transfer_bios<I: Transfer>(
    this: &mut I,
    file: &BackingFile,
    mut pos: i64,
    flags: IoFlags,
    max: usize,
) -> Result<usize> {
    let direction = direction(this.op());
    let mut total: usize = 0;
    let (head, _) = this.bios();
    // SAFETY: The bios are valid until the I/O completes or advances, which it does not here.
    for bio in unsafe { BioChain::new(head) } {
        // SAFETY: As above.
        let (mut iter, len) = unsafe {
            let mut iter = bio_iter(bio, direction);
            let len = ((*bio).bi_iter.bi_size as usize).min(max - total);
            bindings::iov_iter_truncate(&mut iter, len as u64);
            (iter, len)
        };
        let iocb = prepare(this, file, pos, flags);
        // SAFETY: As in `transfer`.
        match unsafe { call(this.op(), iocb, &mut iter, flags) } {
            Ok(n) => {
                total += n;
                pos = pos.saturating_add(n as i64);
                if n < len || total >= max {
                    break;
                }
            }
            Err(e) if total == 0 => return Err(e),
            Err(_) => break,
        }
    }
    Ok(total)
}
