// SPDX-License-Identifier: GPL-2.0

//! Requests.
//!
//! # Soundness
//!
//! | What safe code could try | What stops it |
//! | --- | --- |
//! | Complete a request twice, or use it after that | Completing it takes it by value |
//! | Drop it | It is completed with an I/O error |
//! | Forget it | Nothing; the disk's removal waits for it forever |
//! | Keep its disk, queue, css or data after that | They are borrowed from it |
//! | Share it between tasks | It is `Send`, not `Sync` |
//! | Take its private data for another type | [`Request`] has the `T` of its tag set, exactly |
//! | Requeue it with nothing left of it | It is completed |
//! | Remove the disk that it is for | Nothing; the removal waits for it |

use super::{
    kiocb::KiocbState,
    raw::{RawIo, RawSubmit},
    Operations, Submit, Transfer,
};
use crate::{
    bindings,
    block::{self, GenDisk, Queue, Status, SECTOR_SHIFT, SECTOR_SIZE},
    cgroup::Css,
    sync::read_once,
    task,
    time::JiffiesInstant,
};
use core::{marker::PhantomData, ptr::NonNull};
use kernel::prelude::*;

/// The private data behind each `struct request`.
///
/// `io` is first, so that a kiocb leads to its request.
#[repr(C)]
pub(super) struct Pdu<T: Operations> {
    io: KiocbState,
    data: T::RequestData,
}

impl<T: Operations> Pdu<T> {
    pub(super) fn new(data: T::RequestData) -> Self {
        Self {
            io: KiocbState::new(),
            data,
        }
    }

    /// Returns the address of the private data of a request.
    ///
    /// Corresponds to the C function `blk_mq_rq_to_pdu`.
    pub(super) fn of(rq: *mut bindings::request) -> *mut Self {
        rq.wrapping_add(1).cast()
    }

    /// Returns the request whose private data this is.
    ///
    /// Corresponds to the C function `blk_mq_rq_from_pdu`.
    pub(super) fn request(this: *mut Self) -> *mut bindings::request {
        this.cast::<bindings::request>().wrapping_sub(1)
    }
}

/// The operation of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Read data.
    Read,
    /// Write data.
    Write,
    /// Make the device's volatile write cache durable.
    Flush,
    /// Discard the data of a range.
    Discard,
    /// Make a range read as zeroes.
    WriteZeroes {
        /// The range may be deallocated.
        unmap: bool,
    },
    /// An operation that no driver of this abstraction supports.
    Other,
}

impl Op {
    #[inline(always)]
    pub(super) fn from_raw(flags: bindings::blk_opf_t) -> Self {
        match flags & bindings::REQ_OP_MASK {
            bindings::req_op_REQ_OP_READ => Op::Read,
            bindings::req_op_REQ_OP_WRITE => Op::Write,
            bindings::req_op_REQ_OP_FLUSH => Op::Flush,
            bindings::req_op_REQ_OP_DISCARD => Op::Discard,
            bindings::req_op_REQ_OP_WRITE_ZEROES => Op::WriteZeroes {
                unmap: flags & bindings::REQ_NOUNMAP == 0,
            },
            _ => Op::Other,
        }
    }

    /// Whether the operation changes data.
    pub fn is_write(self) -> bool {
        !matches!(self, Op::Read | Op::Flush)
    }
}

/// A request that was started and has not completed, held by its one owner.
///
/// Wraps the C `struct request`. Dropped, it is completed with [`Status::IOERR`].
///
/// # Invariants
///
/// The request is started, nobody else accesses it, and its private data is an initialised
/// `Pdu<T>`.
pub struct Request<T: Operations> {
    rq: NonNull<bindings::request>,
    // Invariant in `T`: the private data of a subtype's request has another type.
    _p: PhantomData<fn(T) -> T>,
}

// SAFETY: Another task than the one that started a request may complete it, and the private data is
// `Send`.
unsafe impl<T: Operations> Send for Request<T> {}

impl<T: Operations> Request<T> {
    /// Takes ownership of a request.
    ///
    /// # Safety
    ///
    /// `rq` points to a request for which the type invariants hold.
    pub(super) unsafe fn from_raw(rq: *mut bindings::request) -> Self {
        // INVARIANT: By the requirements of this function.
        Self {
            // SAFETY: By the requirements of this function the pointer is not null.
            rq: unsafe { NonNull::new_unchecked(rq) },
            _p: PhantomData,
        }
    }

    /// Gives up ownership without completing the request.
    pub(super) fn into_raw(self) -> *mut bindings::request {
        core::mem::ManuallyDrop::new(self).as_raw()
    }

    pub(crate) fn as_raw(&self) -> *mut bindings::request {
        self.rq.as_ptr()
    }

    pub(super) fn pdu(&self) -> *mut Pdu<T> {
        Pdu::of(self.as_raw())
    }

    /// The driver's private data.
    pub fn data_mut(&mut self) -> &mut T::RequestData {
        // SAFETY: By the type invariant the private data is initialised and nobody else accesses
        // the request.
        unsafe { &mut (*self.pdu()).data }
    }

    /// Number of tags of the request's hardware queue, limited by `nr_requests`.
    pub fn depth(&self) -> u32 {
        // SAFETY: By the type invariant the request is valid. One that was started has a hardware
        // queue with tags. User space may be changing `nr_requests`.
        unsafe {
            let rq = self.as_raw();
            let tags = (*(*(*rq).mq_hctx).tags).nr_tags;
            tags.min(read_once(&raw const (*(*rq).q).nr_requests))
        }
    }

    /// Has [`Operations::complete`] called in a context, and on a CPU, where the request can be
    /// completed. Any context.
    ///
    /// Wraps the C function `blk_mq_complete_request`.
    pub fn complete(self) {
        // SAFETY: By the type invariant we own the started request, and give it up.
        unsafe { bindings::blk_mq_complete_request(self.into_raw()) }
    }

    /// Gives the request back to the block layer, to be started again. A request of which nothing
    /// is left is completed instead. Any context.
    ///
    /// Wraps the C function `blk_mq_requeue_request`.
    pub fn requeue(self) {
        // Schedulers look at the bios of a request.
        if self.bios().0.is_null() && !matches!(self.op(), Op::Flush | Op::Other) {
            return self.end(Status::OK);
        }
        // SAFETY: By the type invariant we own the started request, and give it up.
        unsafe { bindings::blk_mq_requeue_request(self.into_raw(), true) }
    }

    /// Whether the current task may issue the request, a read or a write, to a file, now or after
    /// the batch of which the request is part was dispatched:
    ///
    /// - it submitted the request, so that it waits for its own I/O only, and is charged for it as
    ///   the request is: the request did not pass a scheduler, and the task is in the request's
    ///   blkcg;
    /// - it has no limit on the size of files that it writes, as that is not meant for the backing
    ///   file;
    /// - it holds no locks and is in no state that serving the request could wait for or interfere
    ///   with: it does not reclaim memory, has no transaction open, and does not read metadata,
    ///   which file systems do with locks held;
    /// - the request does not write swapped memory;
    /// - at least half of its stack is left.
    ///
    /// The task's plug is not considered: see [`task::holds_no_requests`].
    ///
    /// Must be called in [`Operations::queue_rq`] of a [blocking](super::TagSetOptions::blocking)
    /// tag set.
    pub fn can_issue_inline(&self) -> bool {
        let rq = self.as_raw();
        // SAFETY: By the type invariant the request is valid.
        let (cmd_flags, rq_flags) = unsafe { ((*rq).cmd_flags, (*rq).rq_flags) };
        let readahead = self.is_readahead();
        if !matches!(self.op(), Op::Read | Op::Write)
            || rq_flags & (bindings::RQF_USE_SCHED | bindings::RQF_FLUSH_SEQ) != 0
            || cmd_flags & (bindings::REQ_META | bindings::REQ_PRIO | bindings::REQ_SWAP) != 0
            || !task::can_issue_fs_io(readahead)
            || (self.op() == Op::Write && task::has_file_size_limit())
            || (!readahead && self.is_buffer_cache_io())
        {
            return false;
        }
        self.blkcg().is_some_and(Css::is_current)
    }

    /// Whether the first page of a read or a write is in the page cache of the device itself: most
    /// such I/O is metadata of a file system, even without `REQ_META`.
    fn is_buffer_cache_io(&self) -> bool {
        let (bio, _) = self.bios();
        if bio.is_null() || !matches!(self.op(), Op::Read | Op::Write) {
            return false;
        }
        // SAFETY: By the type invariant the request's bios are valid, and those of a read or a
        // write have data. A page under I/O stays one. Truncation may clear its folio's mapping,
        // which is compared only.
        unsafe {
            let page = (*(*bio).bi_io_vec.add((*bio).bi_iter.bi_idx as usize)).bv_page;
            let folio = bindings::page_folio(page);
            read_once(&raw const (*folio).__bindgen_anon_1.__bindgen_anon_1.mapping)
                == (*(*bio).bi_bdev).bd_mapping
        }
    }

    /// When the request was allocated, if the block layer recorded it: for the I/O statistics, the
    /// scheduler or a policy of the queue.
    pub(super) fn started(&self) -> Option<JiffiesInstant> {
        // SAFETY: By the type invariant the request is valid.
        let start = unsafe { (*self.as_raw()).start_time_ns };
        (start != 0).then(|| JiffiesInstant::of_ktime(start))
    }

    /// Whether the request is readahead (`REQ_RAHEAD`).
    pub fn is_readahead(&self) -> bool {
        // SAFETY: By the type invariant the request is valid.
        unsafe { (*self.as_raw()).cmd_flags & bindings::REQ_RAHEAD != 0 }
    }

    /// Whether the submitter must not sleep (`REQ_NOWAIT`).
    pub fn is_nowait(&self) -> bool {
        // SAFETY: By the type invariant the request is valid.
        unsafe { (*self.as_raw()).cmd_flags & bindings::REQ_NOWAIT != 0 }
    }

    /// Clears `REQ_NOWAIT`: the driver issues the request where it may block.
    pub fn clear_nowait(&mut self) {
        // SAFETY: By the type invariant we own the request.
        unsafe { (*self.as_raw()).cmd_flags &= !bindings::REQ_NOWAIT }
    }
}

impl<T: block::Operations> Request<T> {
    /// The disk that the request is for.
    pub fn disk(&self) -> &GenDisk<T> {
        // SAFETY: A request in flight keeps its disk, which has operations `T` as the tag set does.
        unsafe { GenDisk::from_raw((*(*self.as_raw()).q).disk) }
    }
}

// SAFETY:
// - A request's bios are valid until the request completes, or is advanced past them, and cover its
//   range; those of reads and writes have data.
// - The private data is the request's own, and starts with the `KiocbState`.
unsafe impl<T: Operations> RawIo for Request<T> {
    #[inline]
    fn bios(&self) -> (*mut bindings::bio, *mut bindings::bio) {
        // SAFETY: By the type invariant the request is valid.
        let (head, tail) = unsafe { ((*self.as_raw()).bio, (*self.as_raw()).biotail) };
        if head.is_null() {
            // The last bio has completed, and the request still points to it.
            return (head, head);
        }
        (head, tail)
    }

    #[inline]
    fn kiocb(&mut self) -> *mut KiocbState {
        self.pdu().cast()
    }
}

impl<T: Operations> Transfer for Request<T> {
    #[inline(always)]
    fn op(&self) -> Op {
        // SAFETY: By the type invariant the request is valid.
        Op::from_raw(unsafe { (*self.as_raw()).cmd_flags })
    }

    fn position(&self) -> u64 {
        // SAFETY: By the type invariant the request is valid.
        unsafe { (*self.as_raw()).__sector << SECTOR_SHIFT }
    }

    fn len(&self) -> usize {
        // SAFETY: By the type invariant the request is valid.
        unsafe { (*self.as_raw()).__data_len as usize }
    }

    fn is_fua(&self) -> bool {
        // SAFETY: By the type invariant the request is valid.
        unsafe { (*self.as_raw()).cmd_flags & bindings::REQ_FUA != 0 }
    }

    fn is_swap(&self) -> bool {
        // SAFETY: By the type invariant the request is valid.
        unsafe { (*self.as_raw()).cmd_flags & bindings::REQ_SWAP != 0 }
    }

    fn queue(&self) -> &Queue {
        // SAFETY: A request in flight keeps its queue alive.
        unsafe { Queue::from_raw((*self.as_raw()).q) }
    }

    /// Wraps the C function `blk_update_request`.
    fn advance(&mut self, bytes: usize) {
        let bytes = bytes.min(self.len()) as u32 & !(SECTOR_SIZE - 1);
        // SAFETY: By the type invariant we own the started request.
        task::in_completion_context(|| unsafe {
            bindings::blk_update_request(self.as_raw(), Status::OK.into_raw(), bytes)
        });
    }

    /// Wraps the C function `blk_mq_end_request`.
    fn end(self, status: Status) {
        // SAFETY: By the type invariant we own the started request, and give it up.
        unsafe { bindings::blk_mq_end_request_bh(self.into_raw(), status.into_raw()) }
    }
}

// SAFETY: The private data stays where it is, and behind its request.
unsafe impl<T: Operations> RawSubmit for Request<T> {
    unsafe fn from_kiocb(io: *mut KiocbState) -> Self {
        // SAFETY: By the requirements of this function the private data is that of a request which
        // nobody else has.
        unsafe { Self::from_raw(Pdu::<T>::request(io.cast())) }
    }

    fn complete_io(self, result: Result<usize>) {
        T::io_complete(self, result);
    }

    fn read_ready(self) {
        T::read_ready(self);
    }
}

impl<T: Operations> Submit for Request<T> {}

impl<T: Operations> Drop for Request<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant we own the started request, and give it up.
        unsafe { bindings::blk_mq_end_request_bh(self.as_raw(), Status::IOERR.into_raw()) }
    }
}
