// SPDX-License-Identifier: GPL-2.0

//! The driver's data in each request, the id of a cgroup queue, and the reason why a request is
//! queued for the worker.

use crate::policy::tags::TagCharge;
use kernel::prelude::*;

/// The driver's data in each request.
pub(crate) struct RequestData {
    /// The result of the I/O, set for [`mq_complete`](crate::complete::mq_complete).
    pub(crate) result: Result<usize>,
    /// The I/O was issued with `IOCB_NOWAIT`; the reason to queue the request if it returns
    /// -EAGAIN.
    pub(crate) nowait: Option<QueueReason>,
    /// The I/O returned -EAGAIN after it had been queued; the reason to queue the request.
    pub(crate) eagain: Option<QueueReason>,
    /// The charge of the request's tag.
    pub(crate) tag: TagCharge,
    /// The queue whose worker serves the request.
    pub(crate) served_by: QueueId,
}

impl RequestData {
    pub(crate) const fn new() -> Self {
        Self {
            result: Ok(0),
            nowait: None,
            eagain: None,
            tag: TagCharge::none(),
            served_by: QueueId::Root,
        }
    }
}

/// Identifies a cgroup queue of a device.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueueId {
    /// The root cgroup's queue.
    Root,
    /// The queue of flushes. The block layer sends one flush for all tasks that wait for one, so a
    /// flush belongs to no cgroup. It can take long, and must neither wait for the root cgroup's
    /// I/O nor block it.
    Flush,
    /// The queue of the cgroup with this io css id.
    Css(usize),
}

/// Reason why a request is queued for the worker. `loop_rs_events.h` has the numbers, too.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum QueueReason {
    /// The request cannot be issued inline.
    New = 0,
    /// The submitter could issue the request inline without blocking, but leaves it to the worker.
    Offload = 1,
    /// Inline issue returned -EAGAIN.
    InlineEagain = 2,
    /// Another cgroup needs the request's tag.
    Reclaimed = 3,
    /// Issue without waiting by the worker returned -EAGAIN.
    OffloadEagain = 4,
}
