// SPDX-License-Identifier: GPL-2.0

//! Tracepoints: what happens to which I/O, with its device and cgroup.
//!
//! `loop_rs_events.h` has their fields, and loop_rs(4) describes them. A request starts with
//! [`IssueInline`], [`Queue`] or [`Detach`], and ends with one [`Complete`]. After -EAGAIN,
//! [`IssueInline`] and [`IssueOffloaded`] are followed by [`Queue`] or [`Detach`]. A request that
//! is requeued starts again. A request that fails before it is queued has [`Complete`] only:
//!
//! ```text
//!   IssueInline -------------------------------------------+
//!     |  -EAGAIN                                           |
//!     v                                                    v
//!   Queue  -----> WorkerBegin, WorkerEnd --------------> Complete
//!     |  reclaimed          ^                              ^
//!     v                     |                              |
//!   Detach ---> Resume -----+                              |
//!                                                          |
//!   Queue  -----> IssueOffloaded --------------------------+
//!     ^             |  -EAGAIN
//!     +-------------+
//! ```
//!
//! A read that waits for a page has [`WorkerBegin`] and [`WorkerEnd`] again after that.

use crate::request_data::QueueReason;
use kernel_ext::{
    block::Status,
    declare_io_tracepoints,
    tracepoint::{IoTrace, IoTracepoint, Traced},
};

declare_io_tracepoints! {
    struct IssueInline = loop_rs_issue_inline;
    struct IssueOffloaded = loop_rs_issue_offloaded;
    struct Queue = loop_rs_queue;
    struct Detach = loop_rs_detach;
    struct Resume = loop_rs_resume;
    struct WorkerBegin = loop_rs_worker_begin;
    struct WorkerEnd = loop_rs_worker_end;
    struct Complete = loop_rs_complete;
}

/// The submitter is about to issue a request inline.
#[inline(always)]
pub(crate) fn issue_inline(io: &impl Traced) {
    IssueInline::trace(io, 0);
}

/// The worker is about to issue an offloaded request, without waiting.
#[inline(always)]
pub(crate) fn issue_offloaded(io: &impl Traced) {
    IssueOffloaded::trace(io, 0);
}

/// A request is queued for the worker.
#[inline(always)]
pub(crate) fn queue(io: &impl Traced, reason: QueueReason) {
    Queue::trace(io, reason as i32);
}

/// The bios of a request were detached, and are queued for the worker.
#[inline(always)]
pub(crate) fn detach(bios: &impl Traced, reason: QueueReason) {
    Detach::trace(bios, reason as i32);
}

/// Describes detached bios for [`resume`].
#[inline(always)]
pub(crate) fn before_resume(bios: &impl Traced) -> Option<IoTrace> {
    Resume::capture(bios)
}

/// The worker has taken detached bios into service.
#[inline(always)]
pub(crate) fn resume(bios: Option<IoTrace>) {
    Resume::trace_captured(bios, 0);
}

/// The worker is about to issue I/O, and may wait. Returns what to pass to [`worker_end`].
#[inline(always)]
pub(crate) fn worker_begin(io: &impl Traced) -> Option<IoTrace> {
    WorkerBegin::trace(io, 0);
    WorkerEnd::capture(io)
}

/// The worker has issued I/O, which may have completed.
#[inline(always)]
pub(crate) fn worker_end(io: Option<IoTrace>) {
    WorkerEnd::trace_captured(io, 0);
}

/// I/O is about to complete.
#[inline(always)]
pub(crate) fn complete(io: &impl Traced, status: Status) {
    Complete::trace(io, status.into_detail());
}
