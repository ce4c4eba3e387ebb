// SPDX-License-Identifier: GPL-2.0

//! Serving I/O as the cgroup of a worker: what both work items of a worker do before and after they
//! issue I/O.

use crate::{
    backing::{Binding, BindingRef},
    cgroup_queue::{QueueSet, Worker},
    complete::{complete_with, ServedIo},
    errors::Failure,
    policy::completion::CompletionContext,
    request_data::QueueId,
};
use kernel::{
    list::ListArc,
    sync::Arc,
    time::{Instant, Monotonic},
};
use kernel_ext::{
    block::{mq::Op, Status},
    cgroup::{Css, Memory},
    task,
    time::JiffiesInstant,
};

/// Lends the binding for one I/O, or gives it away for the `last` one: see [`BindingRef`].
pub(crate) fn lend(binding: &mut Option<Arc<Binding>>, last: bool) -> Option<BindingRef<'_>> {
    match last {
        true => binding.take().map(BindingRef::Owned),
        false => binding.as_deref().map(BindingRef::Borrowed),
    }
}

/// Throttles the worker if the I/O that it issued has charged memory over `memory.high`. The worker
/// holds no lock here for which I/O of other cgroups waits. May sleep.
#[inline]
pub(crate) fn throttle(memcg: Option<&Css<Memory>>) {
    if let Some(memcg) = memcg {
        memcg.throttle_over_high();
    }
}

impl Worker {
    /// Runs `f` with block and memory cgroup of the worker charged, or the root cgroup.
    pub(crate) fn charged<R>(&self, memcg: Option<&Css<Memory>>, f: impl FnOnce() -> R) -> R {
        match (self.css.as_deref(), memcg) {
            (Some(blkcg), Some(memcg)) => blkcg.charge(|| memcg.charge(f)),
            _ => f(),
        }
    }

    /// Completes I/O that was served.
    pub(crate) fn complete<I: ServedIo>(&self, io: I, result: Result<(), Failure>) {
        if io.op() != Op::Read || result.is_err() {
            return complete_with(io, result);
        }
        match self.completion.next() {
            CompletionContext::Worker => io.complete_io(Status::OK),
            // Pending softirqs run after the closure, so the time excludes them.
            CompletionContext::TimedWorker => task::in_completion_context(|| {
                let start = Instant::<Monotonic>::now();
                io.complete_io(Status::OK);
                self.completion.note(start.elapsed());
            }),
            CompletionContext::Softirq => io.complete_in_softirq(),
        }
    }
}

impl QueueSet {
    /// Puts a worker on the idle list if its queue is idle. For a work item that has found nothing
    /// to do.
    pub(crate) fn note_idle(&mut self, worker: &Arc<Worker>) {
        let Some((queue, _)) = self.get_mut(worker.id).filter(|(queue, _)| queue.is_idle()) else {
            return;
        };
        let now = JiffiesInstant::now();
        queue.idle_since = now;
        if matches!(worker.id, QueueId::Css(_)) {
            if let Ok(listed) = ListArc::try_from_arc(worker.clone()) {
                queue.listed_since = now;
                self.idle.push_back(listed);
            }
            worker
                .queues
                .reaper
                .reduce(now.after(worker.queues.timeout));
        }
    }
}
