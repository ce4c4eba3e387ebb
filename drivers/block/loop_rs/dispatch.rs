// SPDX-License-Identifier: GPL-2.0

//! Requests, from the block layer to the backing file and back.

use crate::{
    backing::{self, Binding},
    device::{Device, LoopOps},
    worker::Pool,
};
use kernel::{
    prelude::*,
    sync::{Arc, ArcBorrow},
};
use kernel_ext::{
    block::{
        mq::{self, Op, Request},
        Queue, Status,
    },
    cgroup::{Css, Io, Memory},
};

/// What became of a request that was given to the backing file.
pub(crate) enum Outcome {
    /// It is over.
    Done(Request<LoopOps>, Status),
    /// The file has no such operation.
    Unsupported(Request<LoopOps>),
    /// The file has it, and hands it to [`LoopOps::io_complete`](mq::Operations::io_complete).
    Queued,
}

/// The driver's part of a request: how its I/O went, between the end of the I/O and the end of the
/// request.
pub(crate) struct RequestData {
    result: Result<usize>,
}

impl Default for RequestData {
    fn default() -> Self {
        Self { result: Ok(0) }
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
        rq.data_mut().result = result;
        rq.complete();
    }

    fn complete(mut rq: Request<Self>) {
        let result = rq.data_mut().result;
        match backing::settle(&mut rq, result) {
            Some(status) => rq.end(status),
            // Not a context to do I/O in.
            None => rq.requeue(),
        }
    }
}

/// Serves a request, charged to the cgroup that it is for. May sleep.
pub(crate) fn serve(
    pool: &Arc<Pool>,
    binding: Arc<Binding>,
    mut rq: Request<LoopOps>,
    blkcg: Option<&Css<Io>>,
    memcg: Option<&Css<Memory>>,
) {
    // A worker may block, whatever the submitter may.
    rq.clear_nowait();
    let outcome = match (blkcg, memcg) {
        (Some(blkcg), Some(memcg)) => blkcg.charge(|| memcg.charge(|| binding.serve(rq))),
        _ => binding.serve(rq),
    };
    match outcome {
        Outcome::Done(rq, status) => rq.end(status),
        Outcome::Unsupported(rq) => {
            pool.drop_limit(&rq);
            rq.end(Status::NOTSUPP);
        }
        Outcome::Queued => (),
    }
}

/// Stops the block layer from sending what the backing file turned out not to support.
pub(crate) fn drop_limit(queue: &Queue, op: Op) {
    let mut limits = queue.start_limits_update();
    match op {
        Op::WriteZeroes { unmap: false } => {
            limits.set_write_zeroes(0);
        }
        _ => {
            limits.set_discard(0, 0);
        }
    }
    let _frozen = limits.freeze();
    if limits.commit().is_err() {
        pr_warn!("limits of an unsupported operation could not be dropped\n");
    }
}
