// SPDX-License-Identifier: GPL-2.0

//! Adding requests and detached bios to a cgroup queue, and scheduling its worker.

use crate::{
    cgroup_queue::{CgroupQueue, LoopOps, QueueSet, QueueTotals, Workqueues},
    config::Flag,
    policy::{
        offload::WorkerLoad,
        tags::{self, Others},
    },
    request_data::{QueueId, QueueReason},
    trace,
};
use kernel::prelude::*;
use kernel_ext::{
    block::mq::{BoxedIo, Detached, IoList, Request, Transfer},
    task,
    time::JiffiesInstant,
};

impl CgroupQueue {
    /// Whether the queue may hold one more of the `depth` tags.
    #[inline(always)]
    pub(crate) fn may_hold_tag(&mut self, totals: &QueueTotals, depth: u32) -> bool {
        // While bios are detached, requests are detached, too, and stay behind them, unless the
        // cgroup has the device to itself.
        self.detached.is_empty() && tags::may_hold(self.tags.get(), totals.tags.get(), depth)
            || self.may_hold_tag_alone(totals, depth)
    }

    /// Whether the queue may hold one more of the `depth` tags because its cgroup has the device to
    /// itself.
    #[inline(never)]
    fn may_hold_tag_alone(&mut self, totals: &QueueTotals, depth: u32) -> bool {
        let ios = totals.counts.transfers();
        let others = Others {
            ios: ios.wrapping_sub(self.counts.transfers()),
            tags: totals.tags.get().wrapping_sub(self.tags.get()),
        };
        self.sole_use
            .check(&mut self.tags, others, JiffiesInstant::now())
            && tags::may_hold_alone(totals.tags.get(), depth)
    }

    /// The worker's load, for the offload policy.
    #[inline(always)]
    pub(crate) fn load(&self) -> WorkerLoad {
        let offloaded = self.offloaded.len();
        WorkerLoad {
            may_block: self.has_blocking_work,
            offloaded: (self.scheduled || offloaded > 0).then_some(offloaded),
        }
    }

    /// Adds a request for the worker, and charges its tag.
    pub(crate) fn push(
        &mut self,
        rq: Request<LoopOps>,
        totals: &mut QueueTotals,
        reason: QueueReason,
    ) {
        self.count(&rq, totals, reason);
        self.push_counted(rq, totals, reason);
    }

    /// As [`push`](Self::push), for a request that was [counted](Self::count).
    pub(crate) fn push_counted(
        &mut self,
        mut rq: Request<LoopOps>,
        totals: &mut QueueTotals,
        reason: QueueReason,
    ) {
        trace::queue(&rq, reason);
        self.tags.charge(&mut totals.tags, &mut rq.data_mut().tag);
        if reason == QueueReason::Offload && self.detached.is_empty() {
            return self.offloaded.push_back(rq);
        }
        self.has_blocking_work = true;
        self.detached_bypassed |= !self.detached.is_empty();
        self.pending.push_back(rq);
    }

    /// Whether the queue has a batch of the task with this id.
    pub(crate) fn has_batch_of(&self, task: usize) -> bool {
        self.batch_task == task && !self.batch.is_empty()
    }

    /// Adds a request to the current task's batch, and charges its tag.
    fn push_batch(&mut self, mut rq: Request<LoopOps>, totals: &mut QueueTotals) {
        let first = self.batch.is_empty();
        self.batch_task = task::current_id();
        self.batch_len = match first {
            true => 1,
            false => self.batch_len.saturating_add(1),
        };
        self.batch_has_sync = !rq.is_readahead() || self.batch_has_sync && !first;
        self.tags.charge(&mut totals.tags, &mut rq.data_mut().tag);
        self.batch.push_back(rq);
    }

    /// Adds the bios of a request that was [counted](Self::count) before it was detached.
    fn push_detached(
        &mut self,
        bios: Detached<LoopOps>,
        totals: &mut QueueTotals,
        reason: QueueReason,
    ) {
        trace::detach(&bios, reason);
        self.has_blocking_work = true;
        for counts in [&mut self.counts, &mut totals.counts] {
            counts.detached = counts.detached.wrapping_add(1);
        }
        match reason {
            // A reclaimed request was submitted before the bios that are detached.
            QueueReason::Reclaimed if !self.detached_bypassed => self.detached.push_front(bios),
            _ => self.detached.push_back(bios),
        }
    }

    /// Counts a request that is queued for the worker, and updates the offload policy.
    fn count<I: Transfer>(&mut self, io: &I, totals: &mut QueueTotals, reason: QueueReason) {
        let (is_new, for_worker) = match reason {
            QueueReason::New | QueueReason::Offload => (true, true),
            QueueReason::InlineEagain => (false, true),
            QueueReason::OffloadEagain | QueueReason::Reclaimed => (false, false),
        };
        if matches!(
            reason,
            QueueReason::InlineEagain | QueueReason::OffloadEagain
        ) {
            self.offload.note_eagain();
        }
        for counts in [&mut self.counts, &mut totals.counts] {
            if is_new {
                counts.count(io);
            }
            if for_worker {
                counts.worker = counts.worker.wrapping_add(1);
            }
        }
    }

    /// Moves the batch to the requests for the worker, or to the offloaded ones.
    pub(crate) fn end_batch(&mut self, totals: &mut QueueTotals, reason: QueueReason) {
        while let Some(rq) = self.batch.pop_front() {
            self.push(rq, totals, reason);
        }
    }

    /// Queues the worker's first work item if it is not scheduled and the queue has requests, and
    /// the second one if it is not scheduled and there are offloaded requests during a call of the
    /// first.
    ///
    /// A stalled worker waits for detached bios in service to complete. Requests, and bios in
    /// service that it is to serve again, do not have to wait for that, and end the stall.
    pub(crate) fn wake(&mut self, workqueues: &Workqueues) {
        let has_offloaded = !self.offloaded.is_empty();
        let wake = match self.scheduled {
            false => self.has_worker_requests() || has_offloaded,
            true => {
                (!self.pending.is_empty() || self.has_served() || has_offloaded)
                    && self.worker.end_stall()
            }
        };
        if wake {
            self.scheduled = true;
            // The work item can be queued already only if it has yet to look at the lists.
            workqueues.queue(&self.worker);
        }
        if has_offloaded && self.in_call && !self.offload_scheduled {
            self.offload_scheduled = true;
            workqueues.queue_offload(&self.worker);
        }
    }
}

impl QueueSet {
    /// The reason to queue the rest of a batch: direct I/O would mostly not have blocked.
    pub(crate) fn batch_reason(&self) -> QueueReason {
        let direct = self
            .binding
            .as_ref()
            .is_some_and(|binding| binding.flags.has(Flag::DIRECT_IO));
        match direct {
            true => QueueReason::Offload,
            false => QueueReason::New,
        }
    }

    /// Adds a request to a queue and charges its tag, if the tag policy allows it; returns the
    /// request otherwise. Without a `reason` to queue it for the worker it is added to the current
    /// task's batch, unless another task has a batch in the queue.
    pub(crate) fn try_push(
        &mut self,
        id: QueueId,
        rq: Request<LoopOps>,
        depth: u32,
        reason: Option<QueueReason>,
    ) -> Result<(), Request<LoopOps>> {
        let Some((queue, totals)) = self.get_mut(id) else {
            return Err(rq);
        };
        if !queue.may_hold_tag(totals, depth) {
            return Err(rq);
        }
        match reason {
            Some(reason) => queue.push(rq, totals, reason),
            None if queue.batch.is_empty() || queue.has_batch_of(task::current_id()) => {
                queue.push_batch(rq, totals)
            }
            None => queue.push(rq, totals, QueueReason::New),
        }
        Ok(())
    }

    /// Counts a request that is about to be detached.
    pub(crate) fn count(&mut self, id: QueueId, rq: &Request<LoopOps>, reason: QueueReason) {
        if let Some((queue, totals)) = self.get_mut(id) {
            queue.count(rq, totals, reason);
        }
    }

    /// Adds detached bios to a queue.
    pub(crate) fn push_detached(
        &mut self,
        id: QueueId,
        bios: Detached<LoopOps>,
        reason: QueueReason,
    ) {
        if let Some((queue, totals)) = self.get_mut(id) {
            queue.push_detached(bios, totals, reason);
        }
    }

    /// Adds a request in service whose read has waited for a page, and can go on.
    pub(crate) fn push_ready(&mut self, id: QueueId, rq: Request<LoopOps>) {
        if let Some((queue, _)) = self.get_mut(id) {
            queue.has_blocking_work = true;
            queue.worker.end_wait(rq.len());
            queue.ready_bytes = queue.ready_bytes.saturating_add(rq.len());
            queue.ready.push_back(rq);
        }
    }

    /// Adds detached bios in service: the rest after a short transfer, or a read that can go on.
    pub(crate) fn push_ready_detached(&mut self, id: QueueId, io: BoxedIo<LoopOps>) {
        if let Some((queue, _)) = self.get_mut(id) {
            queue.has_blocking_work = true;
            queue.ready_bytes = queue.ready_bytes.saturating_add(io.len());
            queue.ready_detached.push_back(io);
        }
    }

    /// Schedules the worker of a queue for all of its requests, including a batch.
    pub(crate) fn schedule(&mut self, id: QueueId, workqueues: &Workqueues) {
        let reason = self.batch_reason();
        if let Some((queue, totals)) = self.get_mut(id) {
            queue.end_batch(totals, reason);
            queue.wake(workqueues);
        }
    }

    /// Schedules the worker of a queue for the requests that are queued for it, not for a batch.
    pub(crate) fn schedule_pending(&mut self, id: QueueId, workqueues: &Workqueues) {
        if let Some((queue, _)) = self.get_mut(id) {
            queue.wake(workqueues);
        }
    }

    /// Schedules the workers of all queues with detached bios.
    pub(crate) fn schedule_detached(&mut self, workqueues: &Workqueues) {
        self.for_each_cgroup(|_, queue| {
            if !queue.detached.is_empty() {
                queue.wake(workqueues);
            }
        });
    }
}
