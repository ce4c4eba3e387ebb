// SPDX-License-Identifier: GPL-2.0

//! Requests, from the block layer to the backing file and back.

use crate::{
    backing::{self, Attempt, Binding, Here, Lent},
    device::{Device, LoopOps},
    errors::Failure,
    policy::tags::TagCharge,
    worker::{Service, Worker},
};
use kernel::{
    prelude::*,
    sync::{rcu, Arc, ArcBorrow},
};
use kernel_ext::{
    block::{
        mq::{self, BoxedIo, DetachedIo, Op, Request, Transfer},
        GenDisk, Queue, Status,
    },
    cgroup::{Css, Io, Memory},
    task::{self, WritebackScope},
};

/// What became of a request that was given to the backing file.
pub(crate) enum Outcome<I> {
    /// It is over.
    Done(I, Result<(), Failure>),
    /// The file turned out not to have the operation.
    Unsupported(I),
    /// It is something that the device does not do.
    Refused(I),
    /// The file has it, and hands it to [`LoopOps::io_complete`](mq::Operations::io_complete) or
    /// [`LoopOps::detached_complete`](mq::Operations::detached_complete).
    Queued,
}

/// What the driver serves: a request, or detached bios.
pub(crate) trait Work: Transfer {
    /// The disk that it is for.
    fn disk(&self) -> &GenDisk<LoopOps>;

    /// Notes that `worker` serves it from here on.
    fn begin_service(&mut self, _worker: &Arc<Worker>) {}

    /// Notes that it is not served after all.
    fn cancel_service(&mut self) {}

    /// Whether it is a multiple of the logical block size, which can have changed while bios were
    /// detached.
    fn fits_limits(&self) -> bool {
        true
    }

    /// The bits that are set in addresses or lengths of its memory, if that can have been submitted
    /// for another alignment.
    fn memory_bits(&self) -> u32 {
        0
    }

    /// Reads or writes the file directly.
    fn issue_direct(self, file: backing::OwnedFile, offset: i64) -> Outcome<Self>;

    /// Completes it. Any context.
    fn finish(self, status: Status);
}

impl Work for Request<LoopOps> {
    fn disk(&self) -> &GenDisk<LoopOps> {
        self.disk()
    }

    fn issue_direct(self, file: backing::OwnedFile, offset: i64) -> Outcome<Self> {
        backing::direct(file, offset, self)
    }

    fn finish(mut self, status: Status) {
        // The tag is free without waiting from here on.
        self.data_mut().kept.uncharge();
        self.end(status);
    }
}

impl Work for DetachedIo<LoopOps> {
    fn disk(&self) -> &GenDisk<LoopOps> {
        self.disk()
    }

    fn begin_service(&mut self, worker: &Arc<Worker>) {
        self.data_mut().service = Some(Service::begin(worker));
    }

    fn cancel_service(&mut self) {
        self.data_mut().service = None;
    }

    fn fits_limits(&self) -> bool {
        self.fits_limits()
    }

    fn memory_bits(&self) -> u32 {
        self.memory_bits()
    }

    fn issue_direct(self, file: backing::OwnedFile, offset: i64) -> Outcome<Self> {
        // Only what the file completes later needs memory of its own. To wait for memory may be to wait
        // for this very I/O.
        match self.boxed(GFP_NOWAIT) {
            Ok(io) => match backing::direct(file, offset, io) {
                Outcome::Done(io, result) => Outcome::Done(io.into_inner(), result),
                Outcome::Unsupported(io) => Outcome::Unsupported(io.into_inner()),
                Outcome::Refused(io) => Outcome::Refused(io.into_inner()),
                Outcome::Queued => Outcome::Queued,
            },
            Err(io) => backing::direct_and_wait(&file, offset, io),
        }
    }

    fn finish(mut self, status: Status) {
        if let Some(service) = &self.data_mut().service {
            service.completes();
        }
        self.end(status);
    }
}

/// The driver's part of a request.
pub(crate) struct RequestData {
    /// How its I/O went, between the end of the I/O and the end of the request.
    result: Result<usize>,
    /// The file was asked to do it without waiting.
    pub(crate) tried: bool,
    /// It could not, as turned out after it had been submitted.
    pub(crate) missed: bool,
    /// The request's tag, from when the driver decides that it may keep it.
    pub(crate) kept: TagCharge,
    /// That detached bios are in service.
    service: Option<Service>,
}

impl Default for RequestData {
    fn default() -> Self {
        Self {
            result: Ok(0),
            tried: false,
            missed: false,
            kept: TagCharge::none(),
            service: None,
        }
    }
}

#[vtable]
impl mq::Operations for LoopOps {
    type Data = Arc<Device>;
    type RequestData = RequestData;

    fn queue_rq(device: ArcBorrow<'_, Device>, rq: Request<Self>, last: bool) {
        device.pool().queue(rq, last);
    }

    fn commit_rqs(device: ArcBorrow<'_, Device>) {
        device.pool().commit();
    }

    fn io_complete(mut rq: Request<Self>, result: Result<usize>) {
        // A softirq from within a task is the matter of another task, which has to be woken for it.
        // One from within an interrupt is not, and unwinds a stack of devices.
        if task::stack_left() >= task::HALF_STACK {
            conclude(rq, result);
        } else {
            rq.data_mut().result = result;
            rq.complete();
        }
    }

    fn detached_complete(mut io: BoxedIo<Self>, result: Result<usize>) {
        match backing::settle(&mut io, result) {
            Some(result) => end(io.into_inner(), result),
            None => {
                // Once the pool has the bios, the worker may complete them. The disk is not freed
                // within a grace period: `del_gendisk()` begins when they have completed, and waits for
                // one (`bdi_unregister()`).
                let _rcu = rcu::read_lock();
                let pool = Arc::from(io.disk().data().pool());
                let slot = io.data_mut().service.as_ref().map(Service::slot);
                pool.as_arc_borrow().resubmit(slot, io.into_inner());
            }
        }
    }

    fn complete(mut rq: Request<Self>) {
        let result = rq.data_mut().result;
        conclude(rq, result);
    }
}

/// Ends a request whose I/O is over, or has the rest of it served. In any context.
fn conclude(mut rq: Request<LoopOps>, result: Result<usize>) {
    let mut would_wait = false;
    if let (true, Err(e)) = (rq.data_mut().tried, result) {
        would_wait = e == EAGAIN || e == EOPNOTSUPP;
        if e == EOPNOTSUPP {
            rq.disk().data().pool().note_waits();
        }
    }
    if !would_wait {
        if let Some(result) = backing::settle(&mut rq, result) {
            return end(rq, result);
        }
    }
    // Not a context to do I/O in. It comes back in one where it is for the worker.
    rq.data_mut().kept.uncharge();
    rq.data_mut().missed = would_wait;
    rq.requeue();
}

/// Runs `f` charged to a cgroup, or to the root when there is none.
fn charged<R>(blkcg: Option<&Css<Io>>, memcg: Option<&Css<Memory>>, f: impl FnOnce() -> R) -> R {
    match (blkcg, memcg) {
        (Some(blkcg), Some(memcg)) => blkcg.charge(|| memcg.charge(f)),
        _ => f(),
    }
}

/// Serves what a worker has, charged to the cgroup that it is for. May sleep.
pub(crate) fn serve<W: Work>(
    worker: &Arc<Worker>,
    binding: Lent<'_>,
    mut io: W,
    blkcg: Option<&Css<Io>>,
    memcg: Option<&Css<Memory>>,
) {
    io.begin_service(worker);
    match charged(blkcg, memcg, || binding.serve(io)) {
        Outcome::Done(io, result) => end(io, result),
        Outcome::Unsupported(io) => {
            worker.pool().drop_limit(&io);
            io.finish(Status::NOTSUPP);
        }
        Outcome::Refused(io) => io.finish(Status::NOTSUPP),
        Outcome::Queued => (),
    }
}

/// Fails what a worker has, as there is nothing to serve it from.
pub(crate) fn refuse<W: Work>(worker: &Arc<Worker>, mut io: W) {
    io.begin_service(worker);
    io.finish(Status::IOERR);
}

/// Serves a read from memory if that is possible, charged as [`serve`] does; gives it back when it
/// has to wait. May sleep, but does not wait for the file.
pub(crate) fn attempt<W: Work>(
    worker: &Arc<Worker>,
    binding: &Binding,
    mut io: W,
    blkcg: Option<&Css<Io>>,
    memcg: Option<&Css<Memory>>,
) -> Option<W> {
    if !io.fits_limits() {
        return Some(io);
    }
    io.begin_service(worker);
    match charged(blkcg, memcg, || binding.attempt(io)) {
        Attempt::Done(io, result) => {
            end(io, result);
            None
        }
        Attempt::Later(mut io) => {
            io.cancel_service();
            Some(io)
        }
        Attempt::Queued => None,
    }
}

/// Issues a request of the current task's inline; gives it back if it would block. Says whether the
/// task slept. May sleep.
#[inline(always)]
pub(crate) fn issue_inline(
    here: Here,
    mut rq: Request<LoopOps>,
) -> (Option<Request<LoopOps>>, bool) {
    rq.data_mut().tried = true;
    let scope = WritebackScope::enter();
    let (outcome, slept) = task::submit_nested(|| here.serve(rq));
    drop(scope);
    let back = match outcome {
        Attempt::Done(rq, result) => {
            end(rq, result);
            None
        }
        Attempt::Later(rq) => Some(rq),
        Attempt::Queued => None,
    };
    (back, slept)
}

/// Ends a request. In any context.
fn end<W: Work>(rq: W, result: Result<(), Failure>) {
    match result {
        Ok(()) => rq.finish(Status::OK),
        Err(failure) => {
            if let Some(log) = rq.disk().data().pool().error_log() {
                log.report_once(&rq, &failure);
            }
            rq.finish(failure.status());
        }
    }
}

/// Stops the block layer from sending what the backing file turned out not to support, if it is
/// `still` the same.
///
/// The queue is not frozen for it, which could take as long as somebody's I/O is stuck: what is on
/// its way with the old limit is refused when it gets here.
pub(crate) fn drop_limit(queue: &Queue, op: Op, still: impl FnOnce() -> bool) {
    let mut limits = queue.start_limits_update();
    if !still() {
        return;
    }
    match op {
        Op::WriteZeroes { unmap: false } => {
            limits.set_write_zeroes(0);
        }
        _ => {
            limits.set_discard(0, 0);
        }
    }
    if let Err(e) = limits.commit() {
        pr_warn!(
            "failed to clear the queue limit of an unsupported operation (rc={})\n",
            e.to_errno()
        );
    }
}
