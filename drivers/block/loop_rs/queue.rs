// SPDX-License-Identifier: GPL-2.0

//! queue_rq(): issues a request inline, or queues it for its cgroup's worker.
//!
//! A queued request keeps its tag if the tag policy allows it. Otherwise the driver detaches the
//! bios of a request of a cgroup that holds many tags, or of the request itself.

use crate::{
    cgroup_queue::{CgroupQueue, CgroupQueues, LoopOps, QueueSet, Workqueues},
    complete::CompleteIo,
    inline::{self, InlineDecision},
    io::{self, NowaitTarget},
    policy::tags,
    request_data::{QueueId, QueueReason},
    trace,
};
use kernel::sync::ArcBorrow;
use kernel_ext::{
    block::{
        mq::{IoList, Op, Request, Transfer},
        Status,
    },
    compat::SpinLockIrqGuard,
    task,
};

/// Number of queues that are searched for a tag to reclaim.
const RECLAIM_SCAN_MAX: usize = 4;

/// The context of a call of queue_rq().
struct Dispatch<'a> {
    queues: ArcBorrow<'a, CgroupQueues>,
    workqueues: &'a Workqueues,
    /// Number of tags of the device.
    depth: u32,
}

impl Dispatch<'_> {
    fn find(&self, set: &mut QueueSet, rq: &Request<LoopOps>) -> QueueId {
        self.queues.find(set, rq.op(), rq.blkcg())
    }

    /// Issues a request inline, or queues it. If it is not the `last` of its batch, its worker is
    /// scheduled with the next request of the batch, or by commit_rqs(). May sleep if it is the
    /// last.
    #[inline(always)]
    fn queue(&self, mut rq: Request<LoopOps>, last: bool) {
        // A request that was requeued starts again.
        rq.data_mut().tag.uncharge();
        rq.data_mut().nowait = None;
        let eagain = rq.data_mut().eagain.take();
        let submit_nowait = rq.is_nowait();
        // The worker may block even if the submitter may not.
        rq.clear_nowait();
        let len = rq.len();
        let mut inline = eagain.is_none() && inline::is_candidate(&self.queues, &rq);
        let mut reason = eagain.unwrap_or(QueueReason::New);
        let mut set = self.queues.lock();
        let mut id = self.find(&mut set, &rq);
        inline = inline && !(submit_nowait && set.nowait_backs_off(id));
        if inline && inline::is_alone(last, len) {
            inline = false;
            match set.begin_inline(id, &mut rq, self.depth, false) {
                InlineDecision::Issue(target) => {
                    set.release_batch(id, self.workqueues);
                    drop(set);
                    rq = match self.issue_inline(id, target, rq) {
                        Some(rq) => rq,
                        None => return,
                    };
                    reason = QueueReason::InlineEagain;
                    set = self.queues.lock();
                    id = self.find(&mut set, &rq);
                }
                InlineDecision::Batch => inline = true,
                InlineDecision::Offload => reason = QueueReason::Offload,
                InlineDecision::Queue => (),
            }
        }
        (set, id) = self.enqueue(set, id, rq, inline, reason);
        self.end_dispatch(set, id, len, last);
    }

    /// Adds a request to queue `id`, for the current task to issue with its batch if `inline`, or
    /// for the worker. Returns the queue that the request is in, which can be another one: a queue
    /// of its own may have been created for the cgroup.
    #[inline(always)]
    fn enqueue<'s>(
        &'s self,
        mut set: SpinLockIrqGuard<'s, QueueSet>,
        mut id: QueueId,
        rq: Request<LoopOps>,
        inline: bool,
        reason: QueueReason,
    ) -> (SpinLockIrqGuard<'s, QueueSet>, QueueId) {
        let Some(binding) = set.binding.as_ref() else {
            drop(set);
            rq.complete_io(Status::IOERR);
            return (self.queues.lock(), id);
        };
        let inline = inline && inline::mode(binding, &rq).is_some();
        if let Err(rq) = set.try_push(id, rq, self.depth, (!inline).then_some(reason)) {
            let reason = match inline {
                true => set.batch_reason(),
                false => reason,
            };
            drop(set);
            id = self.queue_without_tag(id, rq, reason);
            set = self.queues.lock();
        }
        (set, id)
    }

    /// Ends the dispatch of one request, which was added to queue `id`, and of its batch if it is
    /// the `last`.
    #[inline(always)]
    fn end_dispatch(
        &self,
        mut set: SpinLockIrqGuard<'_, QueueSet>,
        id: QueueId,
        len: usize,
        last: bool,
    ) {
        let batch = core::mem::replace(&mut set.batch, (!last).then_some(id));
        if let Some(batch) = batch.filter(|batch| *batch != id) {
            set.schedule(batch, self.workqueues);
        }
        if last && set.can_issue_batch(id, len) {
            // The worker starts with its requests before this task issues the batch.
            set.schedule_pending(id, self.workqueues);
            drop(set);
            self.issue_batch(id);
        } else if last {
            set.schedule(id, self.workqueues);
        }
    }

    /// Issues the current task's batch in queue `id` inline. The task has dispatched all requests
    /// of the batch. May sleep.
    fn issue_batch(&self, id: QueueId) {
        loop {
            let mut set = self.queues.lock();
            let Some(mut rq) = set.pop_batch(id) else {
                return set.schedule_pending(id, self.workqueues);
            };
            let reason = match set.begin_inline(id, &mut rq, self.depth, true) {
                InlineDecision::Issue(target) => {
                    drop(set);
                    match self.issue_inline(id, target, rq) {
                        Some(same) => rq = same,
                        None => continue,
                    }
                    set = self.queues.lock();
                    QueueReason::InlineEagain
                }
                InlineDecision::Offload => QueueReason::Offload,
                InlineDecision::Batch | InlineDecision::Queue => QueueReason::New,
            };
            if let Err(rq) = set.try_push(id, rq, self.depth, Some(reason)) {
                drop(set);
                let other = self.detach(rq, reason);
                set = self.queues.lock();
                if other != id {
                    set.schedule(other, self.workqueues);
                }
            }
            // The worker does not wait for the end of the batch, except after -EAGAIN.
            if reason != QueueReason::InlineEagain {
                set.schedule_pending(id, self.workqueues);
            }
        }
    }

    /// Issues a request inline; returns it if it would block. May sleep.
    fn issue_inline(
        &self,
        id: QueueId,
        target: NowaitTarget<'_>,
        rq: Request<LoopOps>,
    ) -> Option<Request<LoopOps>> {
        trace::issue_inline(&rq);
        let (rq, slept) = io::issue_inline(target, rq);
        if slept {
            self.queues.lock().note_inline_slept(id);
        }
        let mut rq = rq?;
        rq.data_mut().tag.uncharge();
        rq.data_mut().nowait = None;
        Some(rq)
    }

    /// Adds a request to a queue that may hold no more tags: detaches a request of a queue that
    /// holds many, or the request itself. Returns the queue that the request or its bios are in.
    fn queue_without_tag(
        &self,
        mut id: QueueId,
        rq: Request<LoopOps>,
        reason: QueueReason,
    ) -> QueueId {
        let mut set = self.queues.lock();
        let rq = match set.reclaim(id) {
            Some((reclaimed, reclaim_reason)) => {
                drop(set);
                let other = self.detach(reclaimed, reclaim_reason);
                set = self.queues.lock();
                set.schedule(other, self.workqueues);
                id = self.find(&mut set, &rq);
                set.try_push(id, rq, self.depth, Some(reason)).err()
            }
            None => Some(rq),
        };
        drop(set);
        match rq {
            Some(rq) => self.detach(rq, reason),
            None => id,
        }
    }

    /// Detaches the bios of a request, or adds the request to its queue with its tag if it cannot
    /// be detached. Returns the queue. Freeing a request takes locks of the block layer, so this is
    /// called without the lock of the queue set.
    fn detach(&self, mut rq: Request<LoopOps>, reason: QueueReason) -> QueueId {
        rq.data_mut().tag.uncharge();
        {
            let mut set = self.queues.lock();
            let id = self.find(&mut set, &rq);
            set.count(id, &rq, reason);
        }
        let detached = rq.detach();
        let mut set = self.queues.lock();
        match detached {
            Ok(bios) => {
                let id = self.queues.find(&mut set, Op::Other, bios.blkcg());
                set.push_detached(id, bios, reason);
                id
            }
            Err(rq) => {
                let id = self.find(&mut set, &rq);
                if let Some((queue, totals)) = set.get_mut(id) {
                    queue.push_counted(rq, totals, reason);
                }
                id
            }
        }
    }
}

impl CgroupQueue {
    /// Takes the last request that is not in service, with its tag, if the queue holds more than
    /// `threshold` tags. Offloaded requests keep theirs: they do not wait, and behind requests that
    /// are detached they would.
    fn reclaim(&mut self, threshold: u32) -> Option<(Request<LoopOps>, QueueReason)> {
        if self.tags.get() <= threshold {
            return None;
        }
        let (mut rq, reason) = match self.batch.pop_back() {
            Some(rq) => (rq, QueueReason::New),
            None => (self.pending.pop_back()?, QueueReason::Reclaimed),
        };
        rq.data_mut().tag.uncharge();
        Some((rq, reason))
    }
}

impl QueueSet {
    /// Schedules the worker for earlier requests of the batch, before the current task issues the
    /// last request inline from queue `id`. If the task has a batch in another queue, because its
    /// cgroup has changed or got a queue of its own, the worker of that queue serves the batch.
    fn release_batch(&mut self, id: QueueId, workqueues: &Workqueues) {
        let Some(batch) = self.batch else { return };
        let stranded = batch != id
            && self
                .get_mut(batch)
                .is_some_and(|(queue, _)| queue.has_batch_of(task::current_id()));
        match stranded {
            true => {
                self.batch = None;
                self.schedule(batch, workqueues);
            }
            false => self.schedule_pending(batch, workqueues),
        }
    }

    /// Takes the first request of the current task's batch.
    fn pop_batch(&mut self, id: QueueId) -> Option<Request<LoopOps>> {
        let (queue, _) = self.get_mut(id)?;
        match queue.has_batch_of(task::current_id()) {
            true => queue.batch.pop_front(),
            false => None,
        }
    }

    /// Takes a request that is not in service from another queue, if that queue holds many more
    /// tags than queue `id`. None if queue `id` has detached bios: its worker has I/O to serve.
    ///
    /// Looks at the root cgroup's queue and at up to [`RECLAIM_SCAN_MAX`] others. The next call
    /// continues where this one ends.
    fn reclaim(&mut self, id: QueueId) -> Option<(Request<LoopOps>, QueueReason)> {
        let (queue, _) = self
            .get_mut(id)
            .filter(|(queue, _)| queue.detached.is_empty())?;
        let threshold = tags::reclaim_threshold(queue.tags.get());
        if let Some(root) = &mut self.root {
            if let Some(rq) = root.reclaim(threshold) {
                return Some(rq);
            }
        }
        for _ in 0..RECLAIM_SCAN_MAX {
            let Some(mut cursor) = self.tree.cursor_lower_bound_mut(&self.reclaim_cursor) else {
                self.reclaim_cursor = 0;
                return None;
            };
            let (css, other) = cursor.current_mut();
            let css = *css;
            if let Some(rq) = other.reclaim(threshold) {
                return Some(rq);
            }
            self.reclaim_cursor = css.checked_add(1)?;
        }
        None
    }
}

/// Starts a request. Process context, interrupts on. May sleep if the request is the `last` of its
/// batch and the task holds no other request.
pub(crate) fn queue_rq(queues: ArcBorrow<'_, CgroupQueues>, rq: Request<LoopOps>, last: bool) {
    let Some(workqueues) = queues.workqueues.as_ref() else {
        return rq.complete_io(Status::IOERR);
    };
    let dispatch = Dispatch {
        queues,
        workqueues,
        depth: rq.depth(),
    };
    dispatch.queue(rq, last);
}

/// Ends a batch without its last request. Process context, interrupts on.
pub(crate) fn commit_rqs(queues: ArcBorrow<'_, CgroupQueues>) {
    let Some(workqueues) = queues.workqueues.as_ref() else {
        return;
    };
    let mut set = queues.lock();
    if let Some(id) = set.batch.take() {
        set.schedule(id, workqueues);
    }
}
