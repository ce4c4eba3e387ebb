// SPDX-License-Identifier: GPL-2.0

//! The operations of a multi-queue block driver.
//!
//! # Soundness
//!
//! | What safe code could try | What stops it |
//! | --- | --- |
//! | Keep the disk's data after a callback | It is lent for the call |
//! | Use the data in `queue_rq` after the request completed | The disk's removal waits for the call |
//! | Refuse a request and keep it | `queue_rq` returns nothing: only its owner completes it |
//! | Use request data before it is initialised | `init_request` comes before any request |
//! | Be handed requests of another type | Tag set, vtable and disk have one `T` |
//! | Share data between tasks that is for one | `Data` is `Send` and `Sync` |

use super::{
    request::{Pdu, Request},
    BoxedIo,
};
use crate::bindings;
use core::marker::PhantomData;
use kernel::{
    error::from_result,
    ffi::{c_int, c_uint},
    prelude::*,
    types::ForeignOwnable,
};

type Borrowed<'a, T> = <<T as Operations>::Data as ForeignOwnable>::Borrowed<'a>;

/// The operations of a multi-queue block driver.
///
/// Corresponds to the C `struct blk_mq_ops`.
///
/// # Examples
///
/// A disk whose reads return zeroes, and whose requests count how often they were used.
///
/// ```
/// use kernel::sync::{Arc, ArcBorrow};
/// use kernel_ext::block::{
///     mq::{BoxedIo, Op, Operations, Request, Transfer},
///     Status,
/// };
///
/// struct ZeroDisk;
///
/// struct Uses(u64);
///
/// #[vtable]
/// impl Operations for ZeroDisk {
///     type Data = Arc<()>;
///     type RequestData = Uses;
///     type DetachedData = ();
///
///     fn new_request_data() -> Result<Uses> {
///         Ok(Uses(0))
///     }
///
///     fn queue_rq(_data: ArcBorrow<'_, ()>, mut rq: Request<Self>, _last: bool) {
///         rq.data_mut().0 += 1;
///         let status = match rq.op() {
///             Op::Read => {
///                 rq.zero_fill();
///                 Status::OK
///             }
///             _ => Status::NOTSUPP,
///         };
///         rq.end(status);
///     }
///
///     fn commit_rqs(_data: ArcBorrow<'_, ()>) {}
///
///     fn complete(rq: Request<Self>) {
///         rq.end(Status::OK);
///     }
///
///     fn io_complete(rq: Request<Self>, result: Result<usize>) {
///         rq.end(result.map(|_| ()).into());
///     }
///
///     fn detached_complete(io: BoxedIo<Self>, result: Result<usize>) {
///         io.end(result.map(|_| ()).into());
///     }
///
///     // This driver reads no file.
///     fn read_ready(_rq: Request<Self>) {}
///
///     fn detached_read_ready(_io: BoxedIo<Self>) {}
/// }
/// ```
#[vtable]
pub trait Operations: Sized + 'static {
    /// The driver's data of a disk, which the disk holds until it is freed.
    type Data: ForeignOwnable + Send + Sync;

    /// The driver's data in each request. It keeps its value from one use of the request to the
    /// next.
    ///
    /// Dropped where [`new_request_data`](Self::new_request_data) is called.
    type RequestData: Send;

    /// The driver's data in [`DetachedIo`](super::DetachedIo), which has the default at first.
    ///
    /// Made and dropped in any context, and must neither sleep nor allocate memory for that.
    type DetachedData: Default + Send;

    /// Makes the data of a request.
    ///
    /// Called in process context, and may sleep, when the memory of requests is allocated: with the
    /// tag set, for the flush request of each queue, and when user space changes the scheduler or
    /// `nr_requests`. The queue can be frozen, and its `elevator_lock` held: the function must not
    /// wait for I/O of the queue, nor allocate memory in a way that may start I/O.
    ///
    /// # Errors
    ///
    /// The error of the allocation.
    fn new_request_data() -> Result<Self::RequestData>;

    /// Starts a request. If `last` is false, more requests follow, or
    /// [`commit_rqs`](Self::commit_rqs) is called.
    ///
    /// Process context with interrupts enabled. May sleep if the tag set is
    /// [`blocking`](super::TagSetOptions::blocking); otherwise the RCU lock is held.
    fn queue_rq(data: Borrowed<'_, Self>, rq: Request<Self>, last: bool);

    /// Called when no request follows the last one that was started with `last` false.
    ///
    /// Context as for [`queue_rq`](Self::queue_rq).
    fn commit_rqs(data: Borrowed<'_, Self>);

    /// Completes a request on which [`Request::complete`] was called.
    ///
    /// Called in any context; must not sleep.
    fn complete(rq: Request<Self>);

    /// Takes back a request whose [submission](super::Submit::submit) to a file is complete, with
    /// the number of bytes transferred.
    ///
    /// Called in any context, hard interrupts included; must not sleep.
    fn io_complete(rq: Request<Self>, result: Result<usize>);

    /// Takes back detached bios, as [`io_complete`](Self::io_complete) does a request.
    fn detached_complete(io: BoxedIo<Self>, result: Result<usize>);

    /// Takes back a request whose [read](super::Submit::read_cached) waited for a page that is not
    /// under I/O any more.
    ///
    /// Called in any context, hard interrupts included, with the lock of a wait queue of the page
    /// cache held. Must neither sleep nor complete I/O, which may take that lock.
    fn read_ready(rq: Request<Self>);

    /// Takes back detached bios, as [`read_ready`](Self::read_ready) does a request.
    fn detached_read_ready(io: BoxedIo<Self>);
}

/// Makes the C vtable of an [`Operations`] implementation.
pub(super) struct OperationsVTable<T: Operations>(PhantomData<T>);

impl<T: Operations> OperationsVTable<T> {
    /// # Safety
    ///
    /// Called by blk-mq only, for a disk made by [`crate::block::Disk`] with operations `T`.
    unsafe extern "C" fn queue_rq(
        hctx: *mut bindings::blk_mq_hw_ctx,
        bd: *const bindings::blk_mq_queue_data,
    ) -> bindings::blk_status_t {
        // SAFETY: blk-mq passes valid pointers.
        let (queue, rq, last) = unsafe { ((*hctx).queue, (*bd).rq, (*bd).last) };
        // SAFETY: blk-mq hands a request to the driver to start it.
        unsafe { bindings::blk_mq_start_request(rq) };
        // SAFETY: `queuedata` was set from a `T::Data` when the disk was allocated. The data is
        // dropped when the disk is freed: after all requests have completed, and after this
        // function has returned, since blk-mq calls it in an (S)RCU read-side section that the
        // removal of the disk waits for.
        let data = unsafe { T::Data::borrow((*queue).queuedata) };
        // SAFETY: The request was started and belongs to the driver from here on. It is of a tag
        // set with operations `T`, so that its private data is a `Pdu<T>`.
        T::queue_rq(data, unsafe { Request::from_raw(rq) }, last);
        // The owner completes the request, whatever happens to it.
        0
    }

    /// # Safety
    ///
    /// As for [`Self::queue_rq`].
    unsafe extern "C" fn commit_rqs(hctx: *mut bindings::blk_mq_hw_ctx) {
        // SAFETY: As in `queue_rq`.
        T::commit_rqs(unsafe { T::Data::borrow((*(*hctx).queue).queuedata) });
    }

    /// # Safety
    ///
    /// Called by blk-mq only, for a request that was given up to [`Request::complete`].
    unsafe extern "C" fn complete(rq: *mut bindings::request) {
        // SAFETY: `Request::complete` gave up the request, and nobody else took it.
        T::complete(unsafe { Request::from_raw(rq) });
    }

    /// # Safety
    ///
    /// Called by blk-mq only, once for a request of a tag set with operations `T`.
    unsafe extern "C" fn init_request(
        _set: *mut bindings::blk_mq_tag_set,
        rq: *mut bindings::request,
        _hctx_idx: c_uint,
        _numa_node: c_int,
    ) -> c_int {
        from_result(|| {
            let data = T::new_request_data()?;
            // SAFETY: The tag set's `cmd_size` has room for a `Pdu<T>` behind each request.
            unsafe { Pdu::<T>::of(rq).write(Pdu::new(data)) };
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Called by blk-mq only, once for a request that `init_request` succeeded for.
    unsafe extern "C" fn exit_request(
        _set: *mut bindings::blk_mq_tag_set,
        rq: *mut bindings::request,
        _hctx_idx: c_uint,
    ) {
        // SAFETY: Written by `init_request`; nobody uses the request any more.
        unsafe { core::ptr::drop_in_place(Pdu::<T>::of(rq)) };
    }

    const VTABLE: bindings::blk_mq_ops = bindings::blk_mq_ops {
        queue_rq: Some(Self::queue_rq),
        commit_rqs: Some(Self::commit_rqs),
        complete: Some(Self::complete),
        init_request: Some(Self::init_request),
        exit_request: Some(Self::exit_request),
        ..pin_init::zeroed()
    };

    pub(super) const fn build() -> &'static bindings::blk_mq_ops {
        &Self::VTABLE
    }
}
