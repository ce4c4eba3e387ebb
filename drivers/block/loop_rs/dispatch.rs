// SPDX-License-Identifier: GPL-2.0

//! Requests, from the block layer to the backing file and back.

use crate::{
    backing::{self, Attempt, Binding, Here, Lent},
    device::{Device, LoopOps},
    errors::Failure,
    tags::Kept,
    worker::Pool,
};
use kernel::{
    prelude::*,
    sync::{rcu, Arc, ArcBorrow},
};
use kernel_ext::{
    block::{
        mq::{self, Op, Parked, Request, Transfer},
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
    /// [`LoopOps::parked_complete`](mq::Operations::parked_complete).
    Queued,
}

/// What the driver serves: a request, or one that was parked.
pub(crate) trait Work: Transfer {
    /// The disk that it is for.
    fn disk(&self) -> &GenDisk<LoopOps>;

    /// Ends it.
    fn finish(self, status: Status);
}

impl Work for Request<LoopOps> {
    fn disk(&self) -> &GenDisk<LoopOps> {
        self.disk()
    }

    fn finish(mut self, status: Status) {
        // The tag is free without waiting from here on.
        self.data_mut().kept.give_back();
        self.end(status);
    }
}

impl Work for Parked<LoopOps> {
    fn disk(&self) -> &GenDisk<LoopOps> {
        self.disk()
    }

    fn finish(mut self, status: Status) {
        self.data_mut().kept.give_back();
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
    /// The request's tag, from when the driver decides that it may keep it; or, when it is parked,
    /// that it is.
    pub(crate) kept: Kept,
}

impl Default for RequestData {
    fn default() -> Self {
        Self {
            result: Ok(0),
            tried: false,
            missed: false,
            kept: Kept::none(),
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

    fn parked_complete(mut parked: Parked<Self>, result: Result<usize>) {
        match backing::settle(&mut parked, result) {
            Some(result) => end(parked, result),
            None => {
                // To be served again, the I/O leaves our hands; for the disk to go it takes a grace
                // period.
                let _rcu = rcu::read_lock();
                let pool = Arc::from(parked.disk().data().pool());
                pool.as_arc_borrow().queue_again(parked);
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
    rq.data_mut().kept.give_back();
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

/// Serves a request, charged to the cgroup that it is for. May sleep.
pub(crate) fn serve<W: Work>(
    pool: &Arc<Pool>,
    binding: Lent<'_>,
    rq: W,
    blkcg: Option<&Css<Io>>,
    memcg: Option<&Css<Memory>>,
) {
    match charged(blkcg, memcg, || binding.serve(rq)) {
        Outcome::Done(rq, result) => end(rq, result),
        Outcome::Unsupported(rq) => {
            pool.drop_limit(&rq);
            rq.finish(Status::NOTSUPP);
        }
        Outcome::Refused(rq) => rq.finish(Status::NOTSUPP),
        Outcome::Queued => (),
    }
}

/// Serves a read from memory if that is possible, charged as [`serve`] does; gives it back when it
/// has to wait. May sleep, but does not wait for the file.
pub(crate) fn attempt<W: Work>(
    binding: &Binding,
    rq: W,
    blkcg: Option<&Css<Io>>,
    memcg: Option<&Css<Memory>>,
) -> Option<W> {
    match charged(blkcg, memcg, || binding.attempt(rq)) {
        Attempt::Done(rq, result) => {
            end(rq, result);
            None
        }
        Attempt::Later(rq) => Some(rq),
        Attempt::Queued => None,
    }
}

/// Serves a request of the current task's right here, as far as that takes no waiting; gives it back
/// when it does. May sleep.
pub(crate) fn serve_here(here: Here, mut rq: Request<LoopOps>) -> Option<Request<LoopOps>> {
    rq.data_mut().tried = true;
    let scope = WritebackScope::enter();
    let outcome = task::submit_nested(|| here.serve(rq));
    drop(scope);
    match outcome {
        Attempt::Done(rq, result) => end(rq, result),
        Attempt::Later(rq) => return Some(rq),
        Attempt::Queued => (),
    }
    None
}

/// Ends a request. In any context.
fn end<W: Work>(rq: W, result: Result<(), Failure>) {
    match result {
        Ok(()) => rq.finish(Status::OK),
        Err(failure) => {
            failure.tell(&rq.disk().data(), &rq);
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
    if limits.commit().is_err() {
        pr_warn!("limits of an unsupported operation could not be dropped\n");
    }
}
