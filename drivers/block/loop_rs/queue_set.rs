// SPDX-License-Identifier: GPL-2.0

//! The set of cgroup queues of a device: its creation, its binding, lookup by css, and its removal.

use crate::{
    backing::Binding,
    cgroup_queue::{
        CgroupQueue, CgroupQueues, LockedQueueSet, QueueSet, QueueTotals, Reaper, Worker,
        Workqueues,
    },
    errors::ErrorLog,
    request_data::QueueId,
    stats::Report,
};
use kernel::{
    alloc::flags::__GFP_NOWARN,
    list::ListArc,
    prelude::*,
    rbtree::{Entry, RBTreeNodeReservation},
    sync::{
        aref::ARef,
        atomic::{Atomic, AtomicFlag, Relaxed},
        Arc, ArcBorrow, SetOnce,
    },
    time::Jiffies,
    workqueue::new_work,
};
use kernel_ext::{
    block::mq::Op,
    cgroup::{Css, Io},
    new_deferrable_timer,
    workqueue::{OwnedQueue, WQ_FREEZABLE, WQ_UNBOUND},
};

/// Memory for a node of the tree of queues.
type Reservation = RBTreeNodeReservation<usize, CgroupQueue>;

impl CgroupQueues {
    /// Creates the queues of a device. `timeout` is the time after which idle queues are removed.
    /// May sleep.
    pub(crate) fn new(timeout: Jiffies) -> Result<Arc<Self>> {
        let locked = LockedQueueSet::new()?;
        let reaper = Reaper {
            queues: locked.clone(),
            timeout,
        };
        Arc::pin_init(
            pin_init!(Self {
                locked,
                reaper <- new_deferrable_timer!(reaper, "loop_rs::CgroupQueues::reaper"),
                thaw <- new_work!("loop_rs::CgroupQueues::thaw"),
                timeout,
                workqueues: SetOnce::new(),
                clearing_limit: AtomicFlag::new(false),
                inline_writes: AtomicFlag::new(false),
                detached_done: Atomic::new(0),
            }),
            GFP_KERNEL,
        )
    }

    /// Creates the workqueues and the queues of the root cgroup and of flushes, unless they exist.
    /// May sleep. Calls are serialised by the device's state lock.
    pub(crate) fn start(self: &Arc<Self>, name: &CStr) -> Result {
        if self.lock().flush.is_none() {
            let root = Worker::new(self.clone(), QueueId::Root, None, GFP_KERNEL)?;
            let flush = Worker::new(self.clone(), QueueId::Flush, None, GFP_KERNEL)?;
            let mut set = self.lock();
            let root = CgroupQueue::new(root, &set.totals, GFP_NOWAIT)?;
            set.root = Some(KBox::new(root, GFP_NOWAIT)?);
            let flush = CgroupQueue::new(flush, &set.totals, GFP_NOWAIT)?;
            set.flush = Some(KBox::new(flush, GFP_NOWAIT)?);
        }
        if self.workqueues.as_ref().is_none() {
            let flags = WQ_UNBOUND | WQ_FREEZABLE;
            self.workqueues.populate(Workqueues {
                cgroups: OwnedQueue::new(name, flags)?,
                shared: OwnedQueue::new(name, flags)?,
            });
        }
        Ok(())
    }

    /// Replaces the binding; returns the old one.
    pub(crate) fn bind(&self, binding: Option<Arc<Binding>>) -> Option<Arc<Binding>> {
        let mut set = self.lock();
        set.binds = set.binds.wrapping_add(1);
        let old = core::mem::replace(&mut set.binding, binding);
        self.update_inline_writes(&set);
        old
    }

    /// Applies changed flags of the binding.
    pub(crate) fn flags_changed(&self) {
        self.update_inline_writes(&self.lock());
    }

    fn update_inline_writes(&self, set: &QueueSet) {
        let writes = set.binding.as_ref().is_some_and(|b| b.can_write_nowait());
        self.inline_writes.store(writes, Relaxed);
    }

    /// The binding that requests are served from.
    pub(crate) fn binding(&self) -> Option<Arc<Binding>> {
        self.lock().binding.clone()
    }

    /// The error log of the backing file. Any context.
    pub(crate) fn error_log(&self) -> Option<Arc<ErrorLog>> {
        Some(self.lock().binding.as_ref()?.backing.error_log().clone())
    }

    /// Returns the id of the queue for the I/O of a cgroup. Creates the queue if there is none;
    /// returns the root cgroup's queue if there is no memory for that.
    #[inline(always)]
    pub(crate) fn find(
        self: ArcBorrow<'_, Self>,
        set: &mut QueueSet,
        op: Op,
        css: Option<&Css<Io>>,
    ) -> QueueId {
        if op == Op::Flush {
            return QueueId::Flush;
        }
        let Some(css) = css.filter(|css| !css.is_root()) else {
            return QueueId::Root;
        };
        self.find_css(set, css.id(), Some(css))
    }

    /// As [`find`](Self::find), for the cgroup with io css `id`.
    pub(crate) fn find_css(
        self: ArcBorrow<'_, Self>,
        set: &mut QueueSet,
        id: usize,
        css: Option<&Css<Io>>,
    ) -> QueueId {
        self.find_or_create(set, id, |totals| {
            let flags = GFP_NOWAIT | __GFP_NOWARN;
            let reservation = RBTreeNodeReservation::new(flags)?;
            let css = css.map(ARef::from);
            let worker = Worker::new(self.into(), QueueId::Css(id), css, flags)?;
            Ok((CgroupQueue::new(worker, totals, flags)?, reservation))
        })
    }

    /// As [`find_css`](Self::find_css), with the function that creates the queue and its tree node.
    pub(crate) fn find_or_create(
        self: ArcBorrow<'_, Self>,
        set: &mut QueueSet,
        id: usize,
        create: impl FnOnce(&QueueTotals) -> Result<(CgroupQueue, Reservation)>,
    ) -> QueueId {
        if let Entry::Vacant(vacant) = set.tree.entry(id) {
            match create(&set.totals) {
                Ok((mut queue, reservation)) => {
                    // A worker lists itself when it finds its queue empty. This one may never run,
                    // if all requests are issued inline.
                    if let Ok(listed) = ListArc::try_from_arc(queue.worker.clone()) {
                        queue.listed_since = queue.idle_since;
                        set.idle.push_back(listed);
                    }
                    self.reaper.reduce(queue.idle_since.after(self.timeout));
                    vacant.insert(queue, reservation);
                }
                Err(_) => {
                    set.totals.fallbacks = set.totals.fallbacks.wrapping_add(1);
                    return QueueId::Root;
                }
            }
        }
        QueueId::Css(id)
    }

    /// The statistics of all queues together, including those that were removed.
    pub(crate) fn report(&self) -> Report {
        let done = self.detached_done.load(Relaxed);
        let set = self.lock();
        Report {
            tags: set.totals.tags.get(),
            detached: (set.totals.counts.detached as u32).wrapping_sub(done),
            counts: set.totals.counts,
        }
    }

    /// Waits for work items of the device, after its last request has completed. May sleep.
    pub(crate) fn drain(&self) {
        if let Some(workqueues) = self.workqueues.as_ref() {
            workqueues.cgroups.drain();
            workqueues.shared.drain();
        }
    }

    /// Removes all queues, after the last request has completed. May sleep.
    fn shut_down(&self) {
        self.drain();
        // A queue that the reaper removes holds `self`, which must not be freed by the timer
        // callback.
        self.reaper.shutdown();
        let queues = {
            let mut set = self.lock();
            (
                core::mem::take(&mut set.idle),
                core::mem::take(&mut set.tree),
                set.root.take(),
                set.flush.take(),
            )
        };
        drop(queues);
    }
}

/// Owns the cgroup queues of a device, and shuts them down when dropped: in process context, after
/// the last request has completed.
pub(crate) struct CgroupQueuesOwner(pub(crate) Arc<CgroupQueues>);

impl core::ops::Deref for CgroupQueuesOwner {
    type Target = Arc<CgroupQueues>;

    fn deref(&self) -> &Arc<CgroupQueues> {
        &self.0
    }
}

impl Drop for CgroupQueuesOwner {
    fn drop(&mut self) {
        self.0.shut_down();
    }
}
