// SPDX-License-Identifier: GPL-2.0

//! The worker of a cgroup queue: dequeues requests and serves them as the cgroup.
//!
//! A worker serves requests one after the other, and blocks its own cgroup only. It does not wait
//! for direct I/O, nor for pages that buffered reads find under I/O: such a read comes back to the
//! worker when its page is no longer under I/O.

use crate::{
    backing::{Binding, BindingRef},
    cgroup_queue::{CgroupQueue, CgroupQueues, LoopOps, QueueSet, QueueTotals, Worker},
    io::{self, IssueAsync, IssueResult},
    offload::OFFLOADED_MAX,
    request_data::QueueReason,
    serve::{lend, throttle},
    trace,
};
use kernel::{
    sync::{
        aref::ARef,
        atomic::{Full, Relaxed},
        Arc,
    },
    workqueue::WorkItem,
};
use kernel_ext::{
    block::{
        mq::{BoxedIo, DetachedBios, EnteredBios, IoList, Op, Request, Transfer, TransferList},
        GenDisk, Status,
    },
    cgroup::{Css, Memory},
    task,
    time::JiffiesInstant,
};

/// Number of requests that a worker dequeues at a time. Tags of dequeued requests cannot be
/// reclaimed.
const BATCH_MAX: u32 = 4;

/// Number of reads that a worker dequeues at a time if it does not wait for them.
const ASYNC_BATCH_MAX: u32 = 32;

/// Maximum number of bytes of reads that wait for pages under I/O, or whose pages have just been
/// read. The pages must still be cached when the reads go on, even if the memory of the cgroup is
/// limited.
const WAITING_MAX: usize = 4 << 20;

/// Maximum number of detached requests of a cgroup in service. With its share of the tags, a single
/// cgroup has about as many requests in flight as the default depth of a device.
const SERVICE_DEPTH: i32 = 64;

/// Requests and detached bios taken from a queue, in the order in which they are served. Those that
/// are served again come first.
#[derive(Default)]
struct Batch {
    ready: TransferList<Request<LoopOps>>,
    ready_detached: TransferList<BoxedIo<LoopOps>>,
    requests: TransferList<Request<LoopOps>>,
    detached: EnteredBios<LoopOps>,
    /// Offloaded requests, which are issued first.
    offloaded: TransferList<Request<LoopOps>>,
}

impl Batch {
    /// Whether there is I/O that may block.
    fn may_block(&self) -> bool {
        !(self.ready.is_empty()
            && self.ready_detached.is_empty()
            && self.requests.is_empty()
            && self.detached.is_empty())
    }
}

/// Why a worker takes no more I/O, although it has not taken the maximum number.
enum Stop {
    /// The request queue is frozen.
    Frozen,
    /// Too many reads wait.
    ReadsWait,
}

/// The limit of reads that a worker takes.
struct ReadLimit {
    /// The worker does not wait for reads, and so has no other limit.
    is_async: bool,
    /// Number of bytes of reads that wait or will, or have just waited.
    waiting: usize,
}

impl ReadLimit {
    /// Takes I/O; false if it is a read and too many wait.
    fn take(&mut self, op: Op, len: usize) -> bool {
        if !self.is_async || op != Op::Read {
            return true;
        }
        let waiting = self.waiting.saturating_add(len);
        let may_take = self.waiting == 0 || waiting <= WAITING_MAX;
        if may_take {
            self.waiting = waiting;
        }
        may_take
    }
}

/// The result of dequeueing.
enum Dequeued {
    Batch(Batch),
    /// The queue is empty.
    Empty,
    /// The queue has detached bios, and the request queue of this disk is frozen.
    Frozen(ARef<GenDisk<LoopOps>>),
    /// The queue has a read, and as many bytes of reads as [`WAITING_MAX`] wait for pages.
    ReadsWait,
    /// The queue has detached bios, and [`SERVICE_DEPTH`] are in service.
    DepthReached,
}

impl CgroupQueue {
    /// Takes requests and detached bios for the worker. `async_reads` is whether the worker does
    /// not wait for reads, `batch_reason` the [`QueueSet::batch_reason`].
    fn dequeue(
        &mut self,
        totals: &mut QueueTotals,
        async_reads: bool,
        batch_reason: QueueReason,
    ) -> Dequeued {
        if !self.has_worker_requests() {
            self.has_blocking_work &= self.worker.has_waiting();
            if self.offloaded.is_empty() {
                // The worker helps a task that issues its batch.
                self.end_batch(totals, batch_reason);
            }
        }
        let has_requests = self.has_worker_requests();
        let offloaded = match has_requests {
            true => self.offloaded.take(),
            false => self.take_offloaded(OFFLOADED_MAX),
        };
        if !has_requests && offloaded.is_empty() {
            self.in_call = false;
            return Dequeued::Empty;
        }
        let mut batch = Batch {
            ready: self.ready.take(),
            ready_detached: self.ready_detached.take(),
            offloaded,
            ..Batch::default()
        };
        let mut limit = ReadLimit {
            is_async: async_reads,
            waiting: core::mem::take(&mut self.ready_bytes)
                .saturating_add(self.worker.waiting.load(Relaxed)),
        };
        let mut n = 0;
        let mut stop = None;
        while let Some(rq) = self.pending.pop_front() {
            if !limit.take(rq.op(), rq.len()) {
                self.pending.push_front(rq);
                stop = Some(Stop::ReadsWait);
                break;
            }
            n += 1;
            let more = match rq.op() {
                Op::Read if async_reads => n < ASYNC_BATCH_MAX,
                _ => n < BATCH_MAX,
            };
            batch.requests.push_back(rq);
            if !more {
                break;
            }
        }
        // Detached bios come after all pending requests, unless younger requests were added to
        // `pending` meanwhile, which would starve them.
        if stop.is_none() && (self.pending.is_empty() || self.detached_bypassed) {
            stop = self.dequeue_detached(&mut batch.detached, limit);
        }
        self.in_call = batch.may_block();
        self.taken_at = JiffiesInstant::now();
        if self.in_call || !batch.offloaded.is_empty() {
            return Dequeued::Batch(batch);
        }
        match stop {
            None => Dequeued::DepthReached,
            Some(Stop::ReadsWait) => Dequeued::ReadsWait,
            Some(Stop::Frozen) => match self.detached.pop_front() {
                Some(bios) => {
                    let disk = ARef::from(bios.disk());
                    self.detached.push_front(bios);
                    Dequeued::Frozen(disk)
                }
                None => Dequeued::Empty,
            },
        }
    }

    /// Takes detached bios, as far as they can enter the request queue. Returns why it took no
    /// more.
    fn dequeue_detached(
        &mut self,
        list: &mut EnteredBios<LoopOps>,
        mut limit: ReadLimit,
    ) -> Option<Stop> {
        let max = match limit.is_async {
            true => ASYNC_BATCH_MAX,
            false => BATCH_MAX,
        };
        let mut stop = None;
        for _ in 0..max.min(self.worker.service_free()) {
            let Some(bios) = self.detached.pop_front() else {
                break;
            };
            if !limit.take(bios.op(), bios.bytes()) {
                stop = Some(Stop::ReadsWait);
                self.detached.push_front(bios);
                break;
            }
            let resumed = trace::before_resume(&bios);
            if let Err(bios) = list.enter(bios) {
                stop = Some(Stop::Frozen);
                self.detached.push_front(bios);
                break;
            }
            trace::resume(resumed);
        }
        self.detached_bypassed &= !self.detached.is_empty();
        stop
    }
}

impl Worker {
    /// Number of detached requests that can be taken into service.
    fn service_free(&self) -> u32 {
        let free = SERVICE_DEPTH.saturating_sub(self.in_service.load(Relaxed));
        u32::try_from(free).unwrap_or(0)
    }

    /// Whether the worker can return until detached bios in service complete, or its queue is
    /// scheduled. False if bios have completed already. `stalled` was set under the lock of the
    /// queue set.
    fn stall(&self) -> bool {
        // Pairs with the decrement in the drop of `Service`, which is followed by a check of
        // `stalled`.
        self.in_service.fetch_add(0, Full) >= SERVICE_DEPTH || !self.end_stall()
    }

    /// Takes requests, and the binding to serve them from. `None` if the queue is idle, or if the
    /// worker will be queued again.
    fn take(self: &Arc<Self>) -> Option<(Batch, Option<Arc<Binding>>)> {
        loop {
            let mut set = self.queues.lock();
            let async_reads = set.binding.as_ref().is_some_and(|b| b.can_read_async());
            let batch_reason = set.batch_reason();
            let (queue, totals) = set.get_mut(self.id)?;
            match queue.dequeue(totals, async_reads, batch_reason) {
                Dequeued::Batch(batch) => return Some((batch, set.binding.clone())),
                Dequeued::DepthReached => {
                    self.stalled.store(true, Relaxed);
                    drop(set);
                    if self.stall() {
                        return None;
                    }
                }
                Dequeued::Frozen(disk) => {
                    queue.scheduled = false;
                    let disk = set.frozen.replace(disk);
                    drop(set);
                    // Not the last reference: the disk has bios in flight.
                    drop(disk);
                    if let Some(workqueues) = self.queues.workqueues.as_ref() {
                        let _ = workqueues.shared.enqueue(self.queues.clone());
                    }
                    return None;
                }
                Dequeued::ReadsWait => {
                    queue.scheduled = false;
                    return None;
                }
                Dequeued::Empty => {
                    queue.scheduled = false;
                    set.note_idle(self);
                    return None;
                }
            }
        }
    }

    /// Serves a list of requests or detached bios, `again` if a page that they waited for is no
    /// longer under I/O. If it is the `last` list, its last I/O owns the binding: see
    /// [`BindingRef`].
    fn serve_list<L>(
        self: &Arc<Self>,
        mut list: L,
        binding: &mut Option<Arc<Binding>>,
        last: bool,
        again: bool,
        memcg: Option<&Css<Memory>>,
    ) where
        L: IoList<Io: IssueAsync>,
    {
        while let Some(io) = list.pop_front() {
            let binding = lend(binding, last && list.is_empty());
            self.serve(binding, io, again, memcg);
            task::cond_resched();
        }
    }

    /// Issues I/O to the binding; fails it if there is none. May sleep.
    fn serve<I: IssueAsync>(
        self: &Arc<Self>,
        binding: Option<BindingRef<'_>>,
        mut io: I,
        again: bool,
        memcg: Option<&Css<Memory>>,
    ) {
        io.begin_service(self);
        let Some(binding) = binding else {
            return io.complete_io(Status::IOERR);
        };
        let traced = trace::worker_begin(&io);
        let result = self.charged(memcg, || io::issue(self, binding, io, again));
        trace::worker_end(traced);
        match result {
            IssueResult::Done(io, result) => self.complete(io, result),
            IssueResult::Unsupported(io) => self.queues.complete_unsupported(io),
            IssueResult::Rejected(io) => io.complete_io(Status::NOTSUPP),
            IssueResult::Queued => (),
        }
        throttle(memcg);
    }
}

impl WorkItem for Worker {
    type Pointer = Arc<Self>;

    /// Serves the queue until [`Worker::take`] returns no more I/O. Process context; may sleep.
    fn run(this: Arc<Self>) {
        task::with_writeback(|| {
            while let Some((batch, mut binding)) = this.take() {
                let memcg = this.css.as_deref().map(|css| css.effective_memory());
                let memcg = memcg.as_deref();
                let only_offloaded = !batch.may_block();
                let Batch {
                    ready,
                    ready_detached,
                    requests,
                    detached,
                    offloaded,
                } = batch;
                this.serve_offloaded(offloaded, &mut binding, only_offloaded, memcg);
                let last = detached.is_empty();
                let none_new = last && requests.is_empty();
                let last_ready = none_new && ready_detached.is_empty();
                this.serve_list(ready, &mut binding, last_ready, true, memcg);
                this.serve_list(ready_detached, &mut binding, none_new, true, memcg);
                this.serve_list(requests, &mut binding, last, false, memcg);
                this.serve_list(detached, &mut binding, true, false, memcg);
            }
        });
    }
}

impl QueueSet {
    /// Takes the detached bios of all queues.
    fn take_all_detached(&mut self) -> DetachedBios<LoopOps> {
        let mut all = DetachedBios::new();
        self.for_each_cgroup(|_, queue| {
            while let Some(bios) = queue.detached.pop_front() {
                trace::complete(&bios, Status::IOERR);
                queue.worker.count_detached_done();
                all.push_back(bios);
            }
        });
        all
    }
}

impl WorkItem for CgroupQueues {
    type Pointer = Arc<Self>;

    /// Waits until the request queue is unfrozen, and schedules the workers of queues with detached
    /// bios. Process context.
    fn run(this: Arc<Self>) {
        let disk = this.lock().frozen.take();
        let (Some(disk), Some(workqueues)) = (disk, this.workqueues.as_ref()) else {
            return;
        };
        disk.queue().wait_unfrozen();
        if disk.queue().is_dead() {
            // The queue of a removed disk stays frozen. Dropping bios completes them with an error.
            let all = this.lock().take_all_detached();
            drop(all);
        } else {
            this.lock().schedule_detached(workqueues);
        }
    }
}

#[cfg(CONFIG_KUNIT = "y")]
mod tests;
