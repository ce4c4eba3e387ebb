// SPDX-License-Identifier: GPL-2.0

//! Completion of I/O, and retry of I/O that did not complete.
//!
//! The result of a transfer is accounted by [`account_transfer`]. A complete transfer or an error
//! completes the I/O with [`complete_with`]. The rest of a short transfer, and a request whose
//! nowait I/O returned -EAGAIN, are issued again: a request through a requeue, detached bios by the
//! worker. A read that has waited for a page goes back to the worker with [`read_ready`].

use crate::{
    cgroup_queue::{with_queues, CgroupQueues, LoopOps, Worker},
    errors::Failure,
    request_data::QueueId,
    trace,
};
use kernel::{
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{Full, Relaxed, Release},
        rcu, Arc, ArcBorrow,
    },
};
use kernel_ext::{
    block::{
        mq::{BoxedIo, DetachedIo, Op, Request, Transfer},
        GenDisk, Queue, Status, SECTOR_SIZE,
    },
    compat::EOPNOTSUPP,
    task,
    tracepoint::Traced,
};

/// I/O that the driver completes.
pub(crate) trait CompleteIo: Transfer + Traced {
    fn disk(&self) -> &GenDisk<LoopOps>;

    /// Completes the I/O. Any context.
    fn complete_io(self, status: Status);
}

/// I/O that the driver serves: a request, or detached bios.
pub(crate) trait ServedIo: CompleteIo {
    /// Notes that `worker` serves the I/O. Detached bios count as in its service until they
    /// complete.
    fn begin_service(&mut self, worker: &Arc<Worker>);

    /// Whether the I/O is within the limits of the request queue, which can have changed since bios
    /// were detached.
    fn fits_limits(&self) -> bool {
        true
    }

    /// Completes I/O that succeeded: a request in a softirq, which calls [`mq_complete`], detached
    /// bios in the caller's context.
    fn complete_in_softirq(self) {
        self.complete_io(Status::OK);
    }

    /// The bits that are set in the addresses or lengths of the memory segments of detached bios; 0
    /// for a request, which was checked against the current limits.
    fn memory_bits(&self) -> u32 {
        0
    }
}

/// Counts detached bios as in service of a worker until dropped.
pub(crate) struct Service(Arc<Worker>);

impl Service {
    pub(crate) fn begin(worker: &Arc<Worker>) -> Self {
        worker.in_service.fetch_add(1, Relaxed);
        Self(worker.clone())
    }

    pub(crate) fn worker(&self) -> &Worker {
        &self.0
    }
}

impl Drop for Service {
    /// Requeues the worker if it is stalled. Any context.
    fn drop(&mut self) {
        self.0.in_service.fetch_sub(1, Full);
        if self.0.end_stall() {
            if let Some(workqueues) = self.0.queues.workqueues.as_ref() {
                workqueues.queue(&self.0);
            }
        }
    }
}

impl CompleteIo for Request<LoopOps> {
    fn disk(&self) -> &GenDisk<LoopOps> {
        self.disk()
    }

    fn complete_io(mut self, status: Status) {
        trace::complete(&self, status);
        // The tag can be reused as soon as the request ends.
        self.data_mut().tag.uncharge();
        self.end(status);
    }
}

impl ServedIo for Request<LoopOps> {
    fn begin_service(&mut self, worker: &Arc<Worker>) {
        self.data_mut().served_by = worker.id;
    }

    fn complete_in_softirq(mut self) {
        self.data_mut().result = Ok(self.len());
        self.complete();
    }
}

impl CompleteIo for DetachedIo<LoopOps> {
    fn disk(&self) -> &GenDisk<LoopOps> {
        self.disk()
    }

    fn complete_io(mut self, status: Status) {
        trace::complete(&self, status);
        if let Some(service) = self.data_mut() {
            service.worker().count_detached_done();
        }
        self.end(status);
    }
}

impl CompleteIo for BoxedIo<LoopOps> {
    fn disk(&self) -> &GenDisk<LoopOps> {
        self.disk()
    }

    fn complete_io(mut self, status: Status) {
        trace::complete(&self, status);
        if let Some(service) = self.data_mut() {
            service.worker().count_detached_done();
        }
        self.end(status);
    }
}

impl ServedIo for BoxedIo<LoopOps> {
    /// They are in service already.
    fn begin_service(&mut self, _worker: &Arc<Worker>) {}

    fn fits_limits(&self) -> bool {
        self.fits_limits()
    }

    fn memory_bits(&self) -> u32 {
        self.memory_bits()
    }
}

impl ServedIo for DetachedIo<LoopOps> {
    fn begin_service(&mut self, worker: &Arc<Worker>) {
        *self.data_mut() = Some(Service::begin(worker));
    }

    fn fits_limits(&self) -> bool {
        self.fits_limits()
    }

    fn memory_bits(&self) -> u32 {
        self.memory_bits()
    }
}

/// Completes I/O with a result; logs a failure. Any context.
pub(crate) fn complete_with<I: CompleteIo>(io: I, result: Result<(), Failure>) {
    match result {
        Ok(()) => io.complete_io(Status::OK),
        Err(failure) => {
            if let Some(log) = with_queues(io.disk(), |queues| queues.error_log()) {
                log.report_once(&io, &failure);
            }
            io.complete_io(failure.status());
        }
    }
}

/// `bytes`, rounded down to whole logical blocks: the rest of an I/O must be a multiple of these,
/// as each request is.
pub(crate) fn whole_blocks<I: Transfer>(io: &I, bytes: usize) -> usize {
    let block = io.queue().logical_block_size().max(SECTOR_SIZE) as usize;
    bytes - bytes % block
}

/// Accounts for the bytes that were transferred. Returns the result to complete the I/O with, or
/// `None` if there is a rest to transfer. Any context.
pub(crate) fn account_transfer<I: Transfer>(
    io: &mut I,
    result: Result<usize>,
) -> Option<Result<(), Failure>> {
    match result {
        Ok(n) if n >= io.len() => Some(Ok(())),
        Ok(n) => {
            let whole = whole_blocks(io, n);
            if whole > 0 {
                io.advance(whole);
                return None;
            }
            if io.op() == Op::Read {
                io.zero_fill();
            }
            Some(Err(Failure::END_OF_FILE))
        }
        Err(e) => Some(Err(e.into())),
    }
}

/// Handles `ki_complete` of a request. Any context, hard interrupts included.
pub(crate) fn ki_complete(mut rq: Request<LoopOps>, result: Result<usize>) {
    // In task context, completing via softirq would wake ksoftirqd, so complete here while half of
    // the stack is left: completions of stacked loop devices nest. `stack_left()` is 0 in an
    // interrupt, after which the softirq runs anyway.
    if task::stack_left() >= task::HALF_STACK {
        complete_or_requeue(rq, result);
    } else {
        rq.data_mut().result = result;
        rq.complete();
    }
}

/// Handles the softirq that [`ki_complete`] or [`ServedIo::complete_in_softirq`] asked for. Any
/// context that must not sleep.
pub(crate) fn mq_complete(mut rq: Request<LoopOps>) {
    let result = rq.data_mut().result;
    complete_or_requeue(rq, result);
}

/// Completes a request, or requeues it if its nowait I/O returned -EAGAIN or there is a rest. Any
/// context.
fn complete_or_requeue(mut rq: Request<LoopOps>, result: Result<usize>) {
    let mut eagain = None;
    if let (Some(reason), Err(e)) = (rq.data_mut().nowait, result) {
        eagain = (e == EAGAIN || e == EOPNOTSUPP).then_some(reason);
        if e == EOPNOTSUPP {
            with_queues(rq.disk(), |queues| queues.note_nowait_direct_broken());
        }
    }
    if eagain.is_none() {
        if let Some(result) = account_transfer(&mut rq, result) {
            return complete_with(rq, result);
        }
    }
    // This context must not issue I/O. queue_rq() is called again, and queues the request for the
    // worker.
    rq.data_mut().tag.uncharge();
    rq.data_mut().eagain = eagain;
    rq.requeue();
}

/// Queues a read again that waited for a page under I/O. Any context, hard interrupts included;
/// does not complete I/O, which may take the lock of a wait queue of the page cache.
pub(crate) fn read_ready(mut rq: Request<LoopOps>) {
    // As in `ki_complete_detached`.
    let _rcu = rcu::read_lock();
    let queues = with_queues(rq.disk(), |queues| Arc::from(queues));
    // The queue exists: it is charged for the request's tag.
    let id = rq.data_mut().served_by;
    let Some(workqueues) = queues.workqueues.as_ref() else {
        return;
    };
    let mut set = queues.lock();
    set.push_ready(id, rq);
    set.schedule_pending(id, workqueues);
}

/// As [`read_ready`], for detached bios.
pub(crate) fn read_ready_detached(mut io: BoxedIo<LoopOps>) {
    // As in `ki_complete_detached`.
    let _rcu = rcu::read_lock();
    let queues = with_queues(io.disk(), |queues| Arc::from(queues));
    let len = io.len();
    let id = io.data_mut().as_ref().map(|service| {
        service.worker().end_wait(len);
        service.worker().id
    });
    queues.as_arc_borrow().serve_again(id, io);
}

/// Handles `ki_complete` of detached bios. Any context, hard interrupts included.
pub(crate) fn ki_complete_detached(mut io: BoxedIo<LoopOps>, result: Result<usize>) {
    match account_transfer(&mut io, result) {
        Some(result) => complete_with(io, result),
        None => {
            // The worker may complete the bios as soon as they are in the queue. The disk is not
            // freed before the end of the RCU read-side section: the submitter has the disk open
            // until the bios complete, so `del_gendisk()` begins after that, and it waits for a
            // grace period (`bdi_unregister()`).
            let _rcu = rcu::read_lock();
            let queues = with_queues(io.disk(), |queues| Arc::from(queues));
            let id = io.data_mut().as_ref().map(|s| s.worker().id);
            queues.as_arc_borrow().serve_again(id, io);
        }
    }
}

impl CgroupQueues {
    /// Notes that nowait direct I/O to the backing file does not work. Any context.
    fn note_nowait_direct_broken(&self) {
        if let Some(binding) = &self.lock().binding {
            binding.backing.note_nowait_direct_broken();
        }
    }

    /// Queues detached bios in service for the worker again. `id` is the queue whose worker served
    /// them: the cgroup may have got a queue of its own since. Any context.
    fn serve_again(self: ArcBorrow<'_, Self>, id: Option<QueueId>, io: BoxedIo<LoopOps>) {
        let Some(workqueues) = self.workqueues.as_ref() else {
            return io.complete_io(Status::IOERR);
        };
        let mut set = self.lock();
        let id = id.unwrap_or_else(|| self.find(&mut set, io.op(), io.blkcg()));
        set.push_ready_detached(id, io);
        set.schedule_pending(id, workqueues);
    }

    /// Completes I/O that the backing file does not support, and clears the queue limit that
    /// allowed it. May sleep.
    ///
    /// Queue limits are changed under a lock whose holders can wait for requests, so the limit is
    /// cleared by a work item. If there is no memory for the work item, the next request of this
    /// kind tries again.
    pub(crate) fn complete_unsupported<I: ServedIo>(self: &Arc<Self>, io: I) {
        self.spawn_clear_limit(io.disk(), io.op());
        io.complete_io(Status::NOTSUPP);
    }

    /// Queues a work item that clears the queue limit of an operation, unless the binding changes
    /// before it runs. May sleep.
    pub(crate) fn spawn_clear_limit(self: &Arc<Self>, disk: &GenDisk<LoopOps>, op: Op) {
        let Some(workqueues) = self.workqueues.as_ref() else {
            return;
        };
        // At most one work item at a time.
        if self.clearing_limit.xchg(true, Full) {
            return;
        }
        let (queues, disk) = (self.clone(), ARef::from(disk));
        let binds = queues.lock().binds;
        let clear = move || {
            // A file that was attached since may support the operation.
            clear_limit(disk.queue(), op, || queues.lock().binds == binds);
            queues.clearing_limit.store(false, Release);
        };
        let spawned = task::with_noio(|| workqueues.shared.try_spawn(GFP_KERNEL, clear));
        if spawned.is_err() {
            self.clearing_limit.store(false, Release);
        }
    }
}

/// Clears the queue limit of an operation that the backing file does not support, if `is_current`.
///
/// The queue is not frozen, since a freeze would wait for all I/O in flight. Requests that were
/// submitted under the old limit are rejected when they are issued.
fn clear_limit(queue: &Queue, op: Op, is_current: impl FnOnce() -> bool) {
    let result = queue.update_limits(|limits| {
        if !is_current() {
            return Ok(());
        }
        match op {
            Op::WriteZeroes { unmap: false } => {
                limits.set_write_zeroes(0);
            }
            _ => {
                limits.set_discard(0, 0);
            }
        }
        limits.commit()
    });
    if let Err(e) = result {
        pr_warn!(
            "failed to clear the queue limit of an unsupported operation (rc={})\n",
            e.to_errno()
        );
    }
}
