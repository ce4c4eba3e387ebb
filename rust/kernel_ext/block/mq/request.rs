// SPDX-License-Identifier: GPL-2.0

//! Requests.

use super::{file_io::FileIo, Operations};
use crate::{
    bindings,
    block::{Queue, Status, SECTOR_SHIFT, SECTOR_SIZE},
    cgroup::{Css, Io},
};
use core::{marker::PhantomData, ptr::NonNull};

/// What is stored behind each `struct request`.
///
/// `io` is first, so that a kiocb leads to its request.
#[repr(C)]
pub(super) struct Pdu<T: Operations> {
    pub(super) io: FileIo,
    data: T::RequestData,
}

impl<T: Operations> Pdu<T> {
    pub(super) fn new() -> Self {
        Self {
            io: FileIo::new(),
            data: T::RequestData::default(),
        }
    }

    /// Returns where the private data of a request is.
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

/// What a request asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Read data.
    Read,
    /// Write data.
    Write,
    /// Make the device's write cache durable.
    Flush,
    /// Give up the data of a range.
    Discard,
    /// Make a range read as zeroes; it may be unmapped for that when `unmap`.
    WriteZeroes {
        /// The range may be deallocated.
        unmap: bool,
    },
    /// An operation that no driver of this abstraction announces support for.
    Other,
}

impl Op {
    /// Whether the operation changes data.
    pub fn is_write(self) -> bool {
        !matches!(self, Op::Read | Op::Flush)
    }
}

/// A request that was started and has not ended, held by its one owner.
///
/// Wraps the C `struct request`. Dropped without having been ended it ends with
/// [`Status::IOERR`].
///
/// # Invariants
///
/// The request is started, nobody else accesses it, and its private data is an initialised
/// `Pdu<T>`.
pub struct Request<T: Operations> {
    rq: NonNull<bindings::request>,
    _owns: PhantomData<T>,
}

// SAFETY: A request may be ended by another task than the one that started it, and the private
// data is `Send`.
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
            _owns: PhantomData,
        }
    }

    /// Gives up ownership without ending the request.
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

    /// What the request asks for.
    pub fn op(&self) -> Op {
        // SAFETY: By the type invariant the request is valid.
        let flags = unsafe { (*self.as_raw()).cmd_flags };
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

    /// Where on the device the request starts, in bytes.
    pub fn position(&self) -> u64 {
        // SAFETY: By the type invariant the request is valid.
        unsafe { (*self.as_raw()).__sector << SECTOR_SHIFT }
    }

    /// How many bytes are left to transfer.
    pub fn len(&self) -> usize {
        // SAFETY: By the type invariant the request is valid.
        unsafe { (*self.as_raw()).__data_len as usize }
    }

    /// Whether nothing is left to transfer.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The queue that the request came through.
    pub fn queue(&self) -> &Queue {
        // SAFETY: A request in flight keeps its queue alive.
        unsafe { Queue::from_raw((*self.as_raw()).q) }
    }

    /// The blkcg that the request's first bio is charged to; `None` when it has no bio, or the
    /// bio no cgroup.
    ///
    /// Wraps the C function `bio_blkcg_css`.
    pub fn blkcg(&self) -> Option<&Css<Io>> {
        // SAFETY: By the type invariant the request is valid.
        let bio = unsafe { (*self.as_raw()).bio };
        if bio.is_null() {
            return None;
        }
        // SAFETY: A request's bios are valid until the request ends, or is advanced past them,
        // which takes an exclusive borrow; the bio holds a reference to its blkg, which holds one
        // to the css.
        unsafe { Css::from_raw(bindings::bio_blkcg_css(bio)) }
    }

    /// Ends the first `bytes` of the request successfully, so that the rest is what remains of it.
    /// What is no whole sector remains, too: a request's position is counted in them.
    ///
    /// Wraps the C function `blk_update_request`.
    pub fn advance(&mut self, bytes: usize) {
        let bytes = bytes.min(self.len()) as u32 & !(SECTOR_SIZE - 1);
        // SAFETY: By the type invariant we own the started request.
        unsafe { bindings::blk_update_request(self.as_raw(), Status::OK.into_raw(), bytes) };
    }

    /// Fills what is left of a read with zeroes; does nothing to other requests.
    ///
    /// Wraps the C function `zero_fill_bio`.
    pub fn zero_fill(&mut self) {
        if self.op() != Op::Read {
            return;
        }
        // SAFETY: By the type invariant the request is valid.
        let mut bio = unsafe { (*self.as_raw()).bio };
        while !bio.is_null() {
            // SAFETY: The bios of a request are valid until they end, and so is their chain.
            unsafe {
                bindings::zero_fill_bio(bio);
                bio = (*bio).bi_next;
            }
        }
    }

    /// Ends the request here and now.
    ///
    /// Wraps the C function `blk_mq_end_request`.
    pub fn end(self, status: Status) {
        // SAFETY: By the type invariant we own the started request, and give it up.
        unsafe { bindings::blk_mq_end_request(self.into_raw(), status.into_raw()) }
    }

    /// Has [`Operations::complete`] called in a context, and on a CPU, fit to end the request.
    ///
    /// Wraps the C function `blk_mq_complete_request`.
    pub fn complete(self) {
        // SAFETY: By the type invariant we own the started request, and give it up.
        unsafe { bindings::blk_mq_complete_request(self.into_raw()) }
    }

    /// Gives the request back to the block layer, to be started again.
    ///
    /// Wraps the C function `blk_mq_requeue_request`.
    pub fn requeue(self) {
        // SAFETY: By the type invariant we own the started request, and give it up.
        unsafe { bindings::blk_mq_requeue_request(self.into_raw(), true) }
    }

    /// Allows the request to block, whatever its submitter asked for: it is up to the driver to
    /// be where it may.
    pub fn clear_nowait(&mut self) {
        // SAFETY: By the type invariant we own the request.
        unsafe { (*self.as_raw()).cmd_flags &= !bindings::REQ_NOWAIT }
    }
}

impl<T: Operations> Drop for Request<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant we own the started request, and give it up.
        unsafe { bindings::blk_mq_end_request(self.as_raw(), Status::IOERR.into_raw()) }
    }
}
