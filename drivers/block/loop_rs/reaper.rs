// SPDX-License-Identifier: GPL-2.0

//! Removal of cgroup queues that have been idle for some time.
//!
//! A removed queue drops its worker, and with it the reference to the css.

use crate::{
    cgroup_queue::{CgroupQueue, QueueSet, Reaper},
    request_data::QueueId,
};
use kernel::list::ListArc;
use kernel_ext::{time::JiffiesInstant, timer::Callback};

/// The result of a search for a queue to remove.
pub(crate) enum Reaped {
    /// A queue that was removed.
    Removed(CgroupQueue),
    /// No queue can be removed before this time.
    Later(JiffiesInstant),
    /// No queue is idle.
    NoneIdle,
}

impl Reaper {
    /// Removes the first queue on the idle list that has been idle for the timeout.
    ///
    /// Skips queues that have become busy since they were listed: their worker lists them again.
    /// Moves queues with I/O in flight to the end of the list, since the tags they are charged for
    /// must not be forgotten.
    pub(crate) fn reap(&self) -> Reaped {
        let mut set = self.queues.set.lock();
        let QueueSet { tree, idle, .. } = &mut *set;
        loop {
            let worker = {
                let mut cursor = idle.cursor_front();
                let Some(first) = cursor.peek_next() else {
                    return Reaped::NoneIdle;
                };
                let queue = match first.arc().id {
                    QueueId::Css(css) => tree.get(&css),
                    _ => None,
                };
                match queue {
                    Some(queue) if queue.is_idle() && queue.listed_since == queue.idle_since => {
                        let expires = queue.idle_since.after(self.timeout);
                        if !expires.has_passed() {
                            return Reaped::Later(expires);
                        }
                    }
                    _ => (),
                }
                first.remove().into_arc()
            };
            let QueueId::Css(id) = worker.id else {
                continue;
            };
            let Some(queue) = tree.get_mut(&id).filter(|queue| queue.is_idle()) else {
                continue;
            };
            if queue.listed_since != queue.idle_since {
                // The queue has been busy since it was listed, and is idle again.
                queue.listed_since = queue.idle_since;
            } else if queue.tags.get() > 0 || queue.detached_in_flight() > 0 {
                queue.idle_since = JiffiesInstant::now();
                queue.listed_since = queue.idle_since;
            } else if let Some(queue) = tree.remove(&id) {
                return Reaped::Removed(queue);
            }
            if let Ok(listed) = ListArc::try_from_arc(worker) {
                idle.push_back(listed);
            }
        }
    }
}

impl Callback for Reaper {
    /// Timer callback: softirq context.
    fn expired(&self) -> Option<JiffiesInstant> {
        loop {
            match self.reap() {
                Reaped::Removed(queue) => drop(queue),
                Reaped::Later(expires) => return Some(expires),
                Reaped::NoneIdle => return None,
            }
        }
    }
}
