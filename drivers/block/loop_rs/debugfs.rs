// SPDX-License-Identifier: GPL-2.0

//! `/sys/kernel/debug/loop_rs/loopN/workers`: statistics by cgroup.
//!
//! The file has a line for each cgroup queue: the root cgroup's first, then that of flushes, shown
//! as `(flush)`, then the others. A line has the path of the cgroup, `busy` or `idle`, and names
//! and numbers that count since the queue was created:
//!
//! - `waiting`: requests and detached bios that the worker has not dequeued;
//! - the names of [`stats`](crate::stats);
//! - `idle_ms`: time in milliseconds since the worker became idle; 0 if it is busy;
//! - `oldest_ms`: age in milliseconds of the oldest request that waits for the worker, detached
//!   ones included; 0 if none waits;
//! - `fallbacks`, for the root cgroup: requests of other cgroups for whose queue there was no
//!   memory.

use crate::{
    cgroup_queue::{CgroupQueues, QueueSet},
    request_data::QueueId,
    stats::Report,
};
use kernel::{
    debugfs::{Dir, File, Writer},
    fmt,
    prelude::*,
    str::BStr,
    sync::{aref::ARef, Arc},
};
use kernel_ext::{
    block::mq::IoList,
    cgroup::{Css, Io},
    time::JiffiesInstant,
};

/// A snapshot of the statistics of a cgroup queue.
struct QueueReport {
    id: QueueId,
    /// `None` for the root cgroup's queue and that of flushes.
    css: Option<ARef<Css<Io>>>,
    busy: bool,
    idle_since: JiffiesInstant,
    /// Number of requests and detached bios that the worker has not dequeued.
    waiting: u32,
    /// Age of the oldest of them in milliseconds.
    oldest_ms: u64,
    stats: Report,
    fallbacks: u64,
}

impl QueueSet {
    /// The statistics of the queue that follows queue `after`, or of the first queue.
    fn report_after(&self, after: Option<QueueId>) -> Option<QueueReport> {
        let queue = match after {
            None => self.root.as_deref()?,
            Some(QueueId::Root) => self.flush.as_deref()?,
            Some(after) => {
                let next = match after {
                    QueueId::Css(css) => css.checked_add(1)?,
                    _ => 0,
                };
                let css = *self.tree.cursor_lower_bound(&next)?.current().0;
                self.tree.get(&css)?
            }
        };
        Some(QueueReport {
            id: queue.worker.id,
            css: queue.worker.css.clone(),
            busy: queue.scheduled || queue.offload_scheduled || queue.worker.has_waiting(),
            idle_since: queue.idle_since,
            waiting: [queue.offloaded.len(), queue.detached.len()]
                .into_iter()
                .fold(queue.pending.len(), u32::wrapping_add),
            oldest_ms: [
                queue.pending.first_started(),
                queue.offloaded.first_started(),
                queue.detached.first_started(),
            ]
            .into_iter()
            .flatten()
            .map(JiffiesInstant::elapsed_ms)
            .max()
            .unwrap_or(0),
            stats: Report {
                tags: queue.tags.get(),
                detached: queue.detached_in_flight(),
                counts: queue.counts,
            },
            fallbacks: self.totals.fallbacks,
        })
    }
}

/// The debugfs directory of a device and its file, which are removed when this is dropped.
#[pin_data]
pub(crate) struct DebugDir {
    #[pin]
    workers: File<Workers>,
    _dir: Dir,
}

impl DebugDir {
    /// Creates the directory `name` in `parent`. May sleep.
    pub(crate) fn new(
        parent: &Dir,
        name: &CStr,
        queues: Arc<CgroupQueues>,
    ) -> Result<Pin<KBox<Self>>> {
        let dir = parent.subdir(name);
        KBox::pin_init(
            try_pin_init!(Self {
                workers <- dir.read_only_file(c"workers", Workers(queues)),
                _dir: dir.clone(),
            }? Error),
            GFP_KERNEL,
        )
    }
}

struct Workers(Arc<CgroupQueues>);

impl Writer for Workers {
    /// Takes the lock of the queue set for one queue at a time, since looking up a cgroup's path
    /// can take long.
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut buf = KVec::from_elem(0u8, 4096, GFP_KERNEL).map_err(|_| fmt::Error)?;
        let mut after: Option<QueueId> = None;
        loop {
            let Some(queue) = self.0.lock().report_after(after) else {
                return Ok(());
            };
            after = Some(queue.id);
            let path = match &queue.css {
                Some(css) => css.path(&mut buf).unwrap_or(b"?"),
                None if queue.id == QueueId::Flush => b"(flush)",
                None => b"/",
            };
            let (state, idle_ms) = match queue.busy {
                true => ("busy", 0),
                false => ("idle", queue.idle_since.elapsed_ms()),
            };
            f.write_fmt(fmt!(
                "{} {state} waiting={} {} idle_ms={idle_ms} oldest_ms={}",
                BStr::from_bytes(path),
                queue.waiting,
                queue.stats,
                queue.oldest_ms
            ))?;
            if queue.id == QueueId::Root {
                f.write_fmt(fmt!(" fallbacks={}", queue.fallbacks))?;
            }
            f.write_str("\n")?;
        }
    }
}
