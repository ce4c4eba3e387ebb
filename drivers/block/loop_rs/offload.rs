// SPDX-License-Identifier: GPL-2.0

//! Offloaded requests: the worker issues them as their submitter would, without waiting for the
//! backing file. Those that would block become requests that may block.
//!
//! The worker's first work item issues all of them before each batch of calls that may block. The
//! second one issues those that are added during a long call.

use crate::{
    backing::{Binding, BindingRef},
    cgroup_queue::{CgroupQueue, LoopOps, QueueSet, Worker, OFFLOAD},
    complete::CompleteIo,
    inline,
    io::{self, NowaitResult, NowaitTarget},
    request_data::QueueReason,
    serve::{lend, throttle},
    trace,
};
use kernel::{
    sync::Arc,
    time::{delay::fsleep, Delta},
    workqueue::WorkItem,
};
use kernel_ext::{
    block::{
        mq::{IoList, Request, TransferList},
        Status,
    },
    cgroup::{Css, Memory},
    task,
};

/// Number of offloaded requests that a work item takes at a time, unless it may block afterwards.
/// The policy does not count those that were taken.
pub(crate) const OFFLOADED_MAX: u32 = 4;

/// Offloaded requests that were taken, and the binding to issue them to.
type Taken = (TransferList<Request<LoopOps>>, Option<Arc<Binding>>);

impl CgroupQueue {
    /// Takes at most `max` offloaded requests.
    pub(crate) fn take_offloaded(&mut self, max: u32) -> TransferList<Request<LoopOps>> {
        let mut list = TransferList::new();
        while list.len() < max {
            match self.offloaded.pop_front() {
                Some(rq) => list.push_back(rq),
                None => break,
            }
        }
        list
    }
}

impl QueueSet {
    /// Takes offloaded requests for the second work item of a worker, and the binding to issue them
    /// to. `None` if there are none.
    fn take_offloaded(&mut self, worker: &Arc<Worker>) -> Option<Taken> {
        let (queue, _) = self.get_mut(worker.id)?;
        let list = queue.take_offloaded(OFFLOADED_MAX);
        if list.is_empty() {
            queue.offload_scheduled = false;
            self.note_idle(worker);
            return None;
        }
        Some((list, self.binding.clone()))
    }
}

/// Time that the first work item is given to return from a batch of calls, before the second one
/// issues offloaded requests. Most return in less, and a third task that needs a CPU does not pay.
const BLOCKS_LONG_MS: i64 = 2;

impl Worker {
    fn take_offloaded(self: &Arc<Self>) -> Option<Taken> {
        self.queues.lock().take_offloaded(self)
    }

    /// Whether the first work item has been in a batch of calls for long.
    fn blocks_long(&self) -> bool {
        let mut set = self.queues.lock();
        set.get_mut(self.id).is_some_and(|(queue, _)| {
            queue.in_call && queue.taken_at.elapsed_ms() >= BLOCKS_LONG_MS as u64
        })
    }

    /// Issues offloaded requests. If it is the `last` list, its last request owns the binding: see
    /// [`BindingRef`]. May sleep.
    pub(crate) fn serve_offloaded(
        &self,
        mut list: TransferList<Request<LoopOps>>,
        binding: &mut Option<Arc<Binding>>,
        last: bool,
        memcg: Option<&Css<Memory>>,
    ) {
        while let Some(rq) = list.pop_front() {
            self.issue_offloaded(lend(binding, last && list.is_empty()), rq, memcg);
            task::cond_resched();
        }
    }

    fn issue_offloaded(
        &self,
        binding: Option<BindingRef<'_>>,
        rq: Request<LoopOps>,
        memcg: Option<&Css<Memory>>,
    ) {
        let target = binding.and_then(|binding| {
            let mode = inline::mode(&binding, &rq)?;
            Some(NowaitTarget::new(binding, mode))
        });
        let Some(target) = target else {
            return self.queue_blocking(rq);
        };
        trace::issue_offloaded(&rq);
        let eagain = QueueReason::OffloadEagain;
        match self.charged(memcg, || io::issue_nowait(target, rq, eagain)) {
            NowaitResult::Done(rq, result) => self.complete(rq, result),
            NowaitResult::WouldBlock(rq) => self.queue_blocking(rq),
            NowaitResult::Queued => (),
        }
        throttle(memcg);
    }

    /// Leaves an offloaded request that would block to the first work item.
    fn queue_blocking(&self, mut rq: Request<LoopOps>) {
        rq.data_mut().nowait = None;
        let Some(workqueues) = self.queues.workqueues.as_ref() else {
            return rq.complete_io(Status::IOERR);
        };
        let mut set = self.queues.lock();
        // The queue exists: it is charged for the request's tag.
        if let Some((queue, totals)) = set.get_mut(self.id) {
            queue.push(rq, totals, QueueReason::OffloadEagain);
            queue.wake(workqueues);
        }
    }
}

impl WorkItem<OFFLOAD> for Worker {
    type Pointer = Arc<Self>;

    /// Issues offloaded requests until there are none. Process context; may sleep.
    fn run(this: Arc<Self>) {
        if !this.blocks_long() {
            fsleep(Delta::from_millis(BLOCKS_LONG_MS));
        }
        task::with_writeback(|| {
            while let Some((list, mut binding)) = this.take_offloaded() {
                let memcg = this.css.as_deref().map(|css| css.effective_memory());
                this.serve_offloaded(list, &mut binding, true, memcg.as_deref());
            }
        });
    }
}
