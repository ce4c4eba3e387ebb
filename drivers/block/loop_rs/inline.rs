// SPDX-License-Identifier: GPL-2.0

//! Inline issue: decides whether the submitter issues a request from queue_rq(), and in which mode.
//!
//! A request is issued inline if all of these hold:
//!
//! - the submitter's context allows it, and the submitter is in the request's blkcg:
//!   [`is_candidate`];
//! - inline issue of this request has not returned -EAGAIN, and has not slept for the cgroup lately
//!   if the request is `REQ_NOWAIT`: [`QueueSet::nowait_backs_off`];
//! - the backing file supports it without blocking: [`mode`];
//! - the submitter holds no other request, since it may sleep after all: [`is_alone`] for a request
//!   without a batch, [`QueueSet::can_issue_batch`] for the requests of a batch, which are issued
//!   when the last of them has been dispatched;
//! - the cgroup has no detached bios, which are older, unless the request is served from the page
//!   cache;
//! - the offload policy chooses the submitter;
//! - the tag policy allows another tag, if the request can be in flight afterwards.
//!
//! The last three are checked by [`QueueSet::begin_inline`].

use crate::{
    backing::Binding,
    cgroup_queue::{CgroupQueues, LoopOps, QueueSet},
    config::Flag,
    io::{InlineMode, NowaitTarget},
    policy::offload::Target,
    request_data::QueueId,
};
use kernel::sync::atomic::Relaxed;
use kernel_ext::{
    block::mq::{IoList, Op, Request, Transfer},
    task,
    time::JiffiesInstant,
};

/// Number of `REQ_NOWAIT` requests that go to the worker after one that was issued inline slept.
const NOWAIT_BACKOFF: u32 = 256;

/// Whether the current task may issue the request inline, now or when it has dispatched its batch,
/// as far as the operation and the context are concerned. For queue_rq().
#[inline(always)]
pub(crate) fn is_candidate(queues: &CgroupQueues, rq: &Request<LoopOps>) -> bool {
    match rq.op() {
        Op::Read => rq.can_issue_inline(),
        Op::Write => queues.inline_writes.load(Relaxed) && rq.can_issue_inline(),
        _ => false,
    }
}

/// The mode in which the backing file supports inline issue of the request; `None` if it does not.
#[inline(always)]
pub(crate) fn mode<I: Transfer>(binding: &Binding, io: &I) -> Option<InlineMode> {
    if !binding.can_nowait() {
        return None;
    }
    let direct = binding.flags.has(Flag::DIRECT_IO);
    // The worker decides whether I/O of a device that carries swap is direct.
    if !direct && binding.backing.carries_swap() {
        return None;
    }
    let supported = match io.op() {
        Op::Read => true,
        // A write with FUA waits for stable storage.
        Op::Write => {
            !io.is_fua()
                && binding.can_write_nowait()
                && (direct || binding.nowait_writes_complete())
        }
        _ => false,
    };
    supported.then_some(match direct {
        true => InlineMode::Direct,
        false => InlineMode::Buffered,
    })
}

/// Whether the current task holds no request but one of `len` bytes, which is the `last` of its
/// batch.
#[inline(always)]
pub(crate) fn is_alone(last: bool, len: usize) -> bool {
    last && task::holds_no_requests(1, len)
}

/// The decision on a request that the context allows to be issued inline.
pub(crate) enum InlineDecision {
    /// The submitter issues the request to this target.
    Issue(NowaitTarget<'static>),
    /// The submitter issues the request after the others of its batch.
    Batch,
    /// The worker issues the request in parallel with the submitter.
    Offload,
    /// The worker issues the request.
    Queue,
}

impl QueueSet {
    /// Decides whether a request is issued inline. If it is, charges its tag and counts it.
    /// `from_batch` is whether the task issues its batch, and took the request from it.
    #[inline(always)]
    pub(crate) fn begin_inline(
        &mut self,
        id: QueueId,
        rq: &mut Request<LoopOps>,
        depth: u32,
        from_batch: bool,
    ) -> InlineDecision {
        let Some(mode) = self.binding.as_ref().and_then(|b| mode(b, rq)) else {
            return InlineDecision::Queue;
        };
        let Some((queue, totals)) = self.get_mut(id) else {
            return InlineDecision::Queue;
        };
        if !from_batch && queue.has_batch_of(task::current_id()) {
            return InlineDecision::Batch;
        }
        // Buffered I/O is done at once, and does not delay detached bios.
        if mode == InlineMode::Direct && !queue.detached.is_empty() {
            return InlineDecision::Queue;
        }
        let worker = queue.load();
        let unfinished = queue.tags.get().saturating_sub(queue.pending.len());
        // A worker that is busy with other requests saves little by issuing direct I/O.
        let pays = mode == InlineMode::Buffered || !worker.may_block;
        match queue.offload.next(worker, unfinished) {
            Target::Worker => return InlineDecision::Queue,
            // Without a tag, or behind detached bios, it would wait for requests that may block.
            Target::Offload
                if pays && queue.detached.is_empty() && queue.may_hold_tag(totals, depth) =>
            {
                return InlineDecision::Offload;
            }
            Target::Offload | Target::Submitter => (),
        }
        // Buffered I/O completes before queue_rq() returns, and needs no charge.
        if mode == InlineMode::Direct && !rq.data_mut().tag.is_charged() {
            if !queue.may_hold_tag(totals, depth) {
                return InlineDecision::Queue;
            }
            queue.tags.charge(&mut totals.tags, &mut rq.data_mut().tag);
        }
        queue.counts.count(rq);
        totals.counts.count(rq);
        queue.idle_since = JiffiesInstant::now();
        match self.binding.as_ref() {
            Some(binding) => InlineDecision::Issue(NowaitTarget::shared(binding, mode)),
            None => InlineDecision::Queue,
        }
    }

    /// Whether the queue has a batch of the current task that the task may issue inline now.
    /// `last_len` is the length in bytes of the last request of the batch.
    pub(crate) fn can_issue_batch(&mut self, id: QueueId, last_len: usize) -> bool {
        self.get_mut(id).is_some_and(|(queue, _)| {
            queue.has_batch_of(task::current_id())
                && task::holds_no_requests(queue.batch_len, last_len)
                && task::can_issue_fs_io(!queue.batch_has_sync)
                && !task::has_file_size_limit()
        })
    }

    /// Whether a `REQ_NOWAIT` request goes to the worker, because one issued inline has slept
    /// lately. Counts the request.
    pub(crate) fn nowait_backs_off(&mut self, id: QueueId) -> bool {
        let Some((queue, _)) = self
            .get_mut(id)
            .filter(|(queue, _)| queue.nowait_backoff > 0)
        else {
            return false;
        };
        queue.nowait_backoff -= 1;
        true
    }

    /// Notes that inline issue slept.
    pub(crate) fn note_inline_slept(&mut self, id: QueueId) {
        if let Some((queue, _)) = self.get_mut(id) {
            queue.nowait_backoff = NOWAIT_BACKOFF;
        }
    }
}
