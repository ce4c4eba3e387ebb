// SPDX-License-Identifier: GPL-2.0

//! The cgroup queues of a device: requests and detached bios by cgroup.
//!
//! A device has a [`CgroupQueue`] for each cgroup with I/O on it, found through an rb-tree by the
//! io css of the request's first bio; one for the root cgroup, which is also used when there is no
//! memory for another one; and one for flushes. Each has a [`Worker`].
//!
//! This file has the types, which refer to each other in a circle: a queue to its worker, the
//! worker to the [`CgroupQueues`] of the device, and a request in a queue, through [`LoopOps`], to
//! the worker that serves it. Their behaviour is in the files above:
//! [`queue_set`](crate::queue_set) finds and creates queues, [`reaper`](crate::reaper) removes idle
//! ones, [`enqueue`](crate::enqueue) adds requests, [`complete`](crate::complete) completes them,
//! [`worker`](crate::worker) serves them and [`queue`](crate::queue) implements queue_rq().
//!
//! # Life of a cgroup queue
//!
//! A worker issues offloaded requests without waiting for the backing file, and others in calls
//! that may block. It has two work items: the second one issues offloaded requests that are added
//! during a long call of the first one. A queue is scheduled for each from when the work item is
//! queued until it finds nothing to do, or, for the first one, the request queue frozen or too many
//! reads waiting. A queue that is not scheduled and has no requests for its worker is idle. The
//! worker of an idle queue in the tree is on the idle list.
//!
//! The reaper removes a queue from the tree when it has been idle for some time, and drops the
//! reference to the css. All of that happens under the lock of the [`QueueSet`], so that no request
//! is added to a queue that is being removed. A queued work item holds a reference to its worker.

use crate::{
    backing::Binding,
    policy::{
        completion::CompletionPolicy,
        offload::OffloadPolicy,
        tags::{SoleUse, TagCounter},
    },
    request_data::QueueId,
    stats::Counts,
};
use kernel::{
    alloc::Flags,
    list::{impl_list_arc_safe, impl_list_item, AtomicTracker, List, ListLinks, TryNewListArc},
    prelude::*,
    rbtree::RBTree,
    sync::{
        aref::ARef,
        atomic::{Atomic, AtomicFlag, Full, Relaxed},
        Arc, ArcBorrow, SetOnce,
    },
    time::Jiffies,
    workqueue::{impl_has_work, new_work, Work},
};
use kernel_ext::{
    block::{
        mq::{BoxedIo, DetachedBios, IoList, Request, TransferList},
        GenDisk,
    },
    cgroup::{Css, Io},
    compat::{new_spinlock_irq, SpinLockIrq, SpinLockIrqGuard},
    time::JiffiesInstant,
    timer::Timer,
    workqueue::OwnedQueue,
};

/// The operations of loop disks.
///
/// This type ties the layers of the driver together. It is declared here because it is the type of
/// a request's operations. [`ops`](crate::ops) implements the operations, whose data is the
/// [`Device`](crate::device::Device) of a disk. Files below the device get from a disk to its
/// queues by [`with_queues`], and do not use the device otherwise.
pub(crate) struct LoopOps;

/// Calls `f` with the cgroup queues of a disk.
#[inline(always)]
pub(crate) fn with_queues<R>(
    disk: &GenDisk<LoopOps>,
    f: impl FnOnce(ArcBorrow<'_, CgroupQueues>) -> R,
) -> R {
    f(disk.data().queues())
}

/// The requests and detached bios of one cgroup.
///
/// Fields written for each request, including those issued inline, are in the first two cache
/// lines.
///
/// # Invariants
///
/// - `scheduled` is true from when the worker is queued until it finds no requests, the request
///   queue frozen, or too many reads that wait; `offload_scheduled` from when its second work item
///   is queued until that finds no offloaded requests.
/// - If `has_blocking_work` is false, no list has requests but `offloaded` and `batch`.
/// - `batch` has requests of the task `batch_task` only.
/// - If `pending` has a request that is younger than bios in `detached`, `detached_bypassed` is
///   true.
#[repr(C, align(64))]
pub(crate) struct CgroupQueue {
    /// Requests for the worker that may block.
    pub(crate) pending: TransferList<Request<LoopOps>>,
    /// The tags of requests in `pending`, `offloaded` and `batch`, and in service.
    pub(crate) tags: TagCounter,
    pub(crate) offload: OffloadPolicy,
    /// When the queue last became idle, or had a request issued inline.
    pub(crate) idle_since: JiffiesInstant,
    /// The worker is queued, or runs and will look at the lists again, or is
    /// [stalled](Worker::end_stall).
    pub(crate) scheduled: bool,
    /// The worker's second work item is queued, or runs and will look at `offloaded` again.
    pub(crate) offload_scheduled: bool,
    /// The worker has got requests that may block, which are all but offloaded ones, since it last
    /// found none and no read waited for pages under I/O.
    pub(crate) has_blocking_work: bool,
    /// The worker's first work item has taken requests that may block, and looks at the lists again
    /// when it has served them.
    pub(crate) in_call: bool,
    /// A younger request may be in `pending` although bios are in `detached`.
    pub(crate) detached_bypassed: bool,
    pub(crate) counts: Counts,
    /// When the first work item last took requests.
    pub(crate) taken_at: JiffiesInstant,
    /// Requests that the worker issues without waiting for the backing file.
    pub(crate) offloaded: TransferList<Request<LoopOps>>,
    /// Requests that a task issues inline when it has dispatched the last request of its batch.
    /// Until then it holds requests that other tasks may wait for, and must not sleep. The task, or
    /// any other task that schedules the queue, moves the rest to `pending` or `offloaded`.
    pub(crate) batch: TransferList<Request<LoopOps>>,
    /// The id of the task whose requests are in `batch`.
    pub(crate) batch_task: usize,
    /// Number of requests that the task has added.
    pub(crate) batch_len: u32,
    /// The batch has requests other than readahead.
    pub(crate) batch_has_sync: bool,
    /// Number of `REQ_NOWAIT` requests that still go to the worker, after one issued inline slept.
    pub(crate) nowait_backoff: u32,
    /// Requests in service whose reads waited for pages that are not under I/O any more.
    pub(crate) ready: TransferList<Request<LoopOps>>,
    /// Detached bios in service: the rest after a short transfer, or reads as in `ready`. They keep
    /// their usage reference, so that each request is served from one range of one file.
    pub(crate) ready_detached: TransferList<BoxedIo<LoopOps>>,
    /// Number of bytes of both.
    pub(crate) ready_bytes: usize,
    /// Bios without a tag. The worker serves them after `pending`, or along with it if
    /// `detached_bypassed`.
    pub(crate) detached: DetachedBios<LoopOps>,
    pub(crate) worker: Arc<Worker>,
    pub(crate) sole_use: SoleUse,
    /// The value of `idle_since` when the worker was put on the idle list.
    pub(crate) listed_since: JiffiesInstant,
}

impl CgroupQueue {
    pub(crate) fn new(worker: Arc<Worker>, totals: &QueueTotals, flags: Flags) -> Result<Self> {
        Ok(Self {
            worker,
            pending: TransferList::new(),
            offloaded: TransferList::new(),
            batch: TransferList::new(),
            batch_task: 0,
            batch_len: 0,
            batch_has_sync: false,
            nowait_backoff: 0,
            ready: TransferList::new(),
            ready_detached: TransferList::new(),
            ready_bytes: 0,
            detached: DetachedBios::new(),
            detached_bypassed: false,
            tags: TagCounter::new(Some(&totals.tags), flags)?,
            sole_use: SoleUse::new(),
            counts: Counts::default(),
            offload: OffloadPolicy::new(),
            scheduled: false,
            offload_scheduled: false,
            has_blocking_work: false,
            in_call: false,
            taken_at: JiffiesInstant::now(),
            idle_since: JiffiesInstant::now(),
            listed_since: JiffiesInstant::now(),
        })
    }

    /// Whether the queue has requests or detached bios for the worker, other than offloaded ones.
    pub(crate) fn has_worker_requests(&self) -> bool {
        !self.pending.is_empty() || self.has_served() || !self.detached.is_empty()
    }

    /// Whether the queue has requests or detached bios that the worker is to serve again.
    pub(crate) fn has_served(&self) -> bool {
        !self.ready.is_empty() || !self.ready_detached.is_empty()
    }

    /// Whether the queue is idle. An idle queue can have requests in flight, also in a batch.
    pub(crate) fn is_idle(&self) -> bool {
        !self.scheduled
            && !self.offload_scheduled
            && !self.has_worker_requests()
            && self.offloaded.is_empty()
    }

    /// Number of detached requests that have not completed.
    pub(crate) fn detached_in_flight(&self) -> u32 {
        (self.counts.detached as u32).wrapping_sub(self.worker.detached_done.load(Relaxed))
    }
}

/// Sums over all cgroup queues of a device.
#[repr(C)]
pub(crate) struct QueueTotals {
    pub(crate) tags: TagCounter,
    pub(crate) counts: Counts,
    /// Number of requests added to the root cgroup's queue for lack of memory for a queue of their
    /// own.
    pub(crate) fallbacks: u64,
}

/// The state of all cgroup queues of a device. Fields changed by each request come first, next to
/// the lock.
#[repr(C)]
pub(crate) struct QueueSet {
    /// The queue of the last request dispatched, if more requests of the batch follow. It is
    /// scheduled with the last request of the batch.
    pub(crate) batch: Option<QueueId>,
    /// The binding that requests are served from; `None` if the device is unbound. A request is
    /// served from the binding at the time when it is issued: the device freezes the request queue
    /// for a change where that makes a difference.
    pub(crate) binding: Option<Arc<Binding>>,
    pub(crate) totals: QueueTotals,
    /// The queue of the root cgroup. Created when the device is first bound.
    pub(crate) root: Option<KBox<CgroupQueue>>,
    /// The queue of flushes. Created when the device is first bound.
    pub(crate) flush: Option<KBox<CgroupQueue>>,
    pub(crate) tree: RBTree<usize, CgroupQueue>,
    /// Workers of queues in the tree, in the order in which the queues became idle. A queue that
    /// has become busy stays on the list until the reaper looks at it.
    pub(crate) idle: List<Worker>,
    /// Number of changes of `binding`.
    pub(crate) binds: u32,
    /// The disk, if a worker found its request queue frozen.
    pub(crate) frozen: Option<ARef<GenDisk<LoopOps>>>,
    /// The css id at which the next search for reclaimable tags starts.
    pub(crate) reclaim_cursor: usize,
}

impl QueueSet {
    /// Returns a queue, and the totals.
    #[inline(always)]
    pub(crate) fn get_mut(&mut self, id: QueueId) -> Option<(&mut CgroupQueue, &mut QueueTotals)> {
        let queue = match id {
            QueueId::Css(css) => self.tree.get_mut(&css),
            QueueId::Root => self.root.as_deref_mut(),
            QueueId::Flush => self.flush.as_deref_mut(),
        };
        queue.map(|queue| (queue, &mut self.totals))
    }

    /// Calls `f` for each queue that can have detached bios: all but that of flushes.
    pub(crate) fn for_each_cgroup(&mut self, mut f: impl FnMut(QueueId, &mut CgroupQueue)) {
        if let Some(root) = &mut self.root {
            f(QueueId::Root, root);
        }
        for (css, queue) in self.tree.iter_mut() {
            f(QueueId::Css(*css), queue);
        }
    }
}

/// A [`QueueSet`] with its lock. Not part of [`CgroupQueues`], which has the timer: the callback of
/// the timer holds a reference to the lock, and must not keep its own timer alive.
#[pin_data]
pub(crate) struct LockedQueueSet {
    #[pin]
    pub(crate) set: SpinLockIrq<QueueSet>,
}

impl LockedQueueSet {
    pub(crate) fn new() -> Result<Arc<Self>> {
        let totals = QueueTotals {
            tags: TagCounter::new(None, GFP_KERNEL)?,
            counts: Counts::default(),
            fallbacks: 0,
        };
        Arc::pin_init(
            pin_init!(Self {
                set <- new_spinlock_irq!(
                    QueueSet {
                        binding: None,
                        binds: 0,
                        frozen: None,
                        root: None,
                        flush: None,
                        tree: RBTree::new(),
                        idle: List::new(),
                        batch: None,
                        reclaim_cursor: 0,
                        totals,
                    },
                    "lo_work_lock"
                ),
            }),
            GFP_KERNEL,
        )
    }
}

/// Removes queues that have been idle for `timeout`. Runs from the deferrable timer of
/// [`CgroupQueues`]; see [`reaper`](crate::reaper).
pub(crate) struct Reaper {
    pub(crate) queues: Arc<LockedQueueSet>,
    pub(crate) timeout: Jiffies,
}

/// The worker of one cgroup queue: two work items that serve the requests of the queue as its
/// cgroup.
#[pin_data]
pub(crate) struct Worker {
    #[pin]
    work: Work<Worker>,
    /// Issues offloaded requests while `work` may block.
    #[pin]
    offload: Work<Worker, OFFLOAD>,
    #[pin]
    links: ListLinks,
    #[pin]
    tracker: AtomicTracker,
    pub(crate) queues: Arc<CgroupQueues>,
    /// The queue that this is the worker of.
    pub(crate) id: QueueId,
    /// The css to charge; `None` for the queues of the root cgroup and of flushes.
    pub(crate) css: Option<ARef<Css<Io>>>,
    /// Number of detached requests in service.
    pub(crate) in_service: Atomic<i32>,
    /// Number of bytes of reads that wait for pages under I/O.
    pub(crate) waiting: Atomic<usize>,
    /// The worker has returned because `in_service` is at its limit.
    pub(crate) stalled: AtomicFlag,
    /// Number of completed detached requests.
    detached_done: Atomic<u32>,
    pub(crate) completion: CompletionPolicy,
}

/// Identifies the second work item of a worker.
pub(crate) const OFFLOAD: u64 = 1;

impl_has_work! {
    impl HasWork<Self> for Worker { self.work }
    impl HasWork<Self, OFFLOAD> for Worker { self.offload }
}

impl_list_arc_safe! {
    impl ListArcSafe<0> for Worker {
        tracked_by tracker: AtomicTracker;
    }
}

impl_list_item! {
    impl ListItem<0> for Worker { using ListLinks { self.links }; }
}

impl Worker {
    pub(crate) fn new(
        queues: Arc<CgroupQueues>,
        id: QueueId,
        css: Option<ARef<Css<Io>>>,
        flags: Flags,
    ) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                work <- new_work!("loop_rs::Worker"),
                offload <- new_work!("loop_rs::Worker::offload"),
                links <- ListLinks::new(),
                tracker <- AtomicTracker::new(),
                queues,
                id,
                css,
                in_service: Atomic::new(0),
                waiting: Atomic::new(0),
                stalled: AtomicFlag::new(false),
                detached_done: Atomic::new(0),
                completion: CompletionPolicy::new(),
            }),
            flags,
        )
    }

    /// Notes that a read of `len` bytes can wait for pages under I/O from now on.
    pub(crate) fn begin_wait(&self, len: usize) {
        self.waiting.fetch_add(len, Relaxed);
    }

    /// Notes that a read of `len` bytes does not wait any more. Any context.
    pub(crate) fn end_wait(&self, len: usize) {
        self.waiting.fetch_sub(len, Relaxed);
    }

    /// Whether reads wait for pages under I/O.
    pub(crate) fn has_waiting(&self) -> bool {
        self.waiting.load(Relaxed) > 0
    }

    /// Counts a completed detached request.
    pub(crate) fn count_detached_done(&self) {
        self.detached_done.fetch_add(1, Relaxed);
        self.queues.detached_done.fetch_add(1, Relaxed);
    }

    /// Ends the worker's stall. False if the worker is not stalled, or another task has ended the
    /// stall: the caller of the call that returns true queues the worker.
    pub(crate) fn end_stall(&self) -> bool {
        self.stalled.load(Relaxed) && self.stalled.xchg(false, Full)
    }
}

/// The workqueues of a device.
///
/// The workers of the root cgroup and of flushes have a workqueue of their own, so that they run
/// even if the maximum number of work items of other cgroups (`WQ_MAX_ACTIVE`, 2,048) is blocked.
pub(crate) struct Workqueues {
    pub(crate) cgroups: OwnedQueue,
    pub(crate) shared: OwnedQueue,
}

impl Workqueues {
    /// Queues a worker's first work item, unless it is queued. Any context.
    pub(crate) fn queue(&self, worker: &Arc<Worker>) {
        let _ = self.of(worker.id).enqueue::<_, 0>(worker.clone());
    }

    /// Queues a worker's second work item, unless it is queued. Any context.
    pub(crate) fn queue_offload(&self, worker: &Arc<Worker>) {
        let _ = self.of(worker.id).enqueue::<_, OFFLOAD>(worker.clone());
    }

    /// The workqueue of a queue's worker.
    fn of(&self, id: QueueId) -> &OwnedQueue {
        match id {
            QueueId::Css(_) => &self.cgroups,
            QueueId::Root | QueueId::Flush => &self.shared,
        }
    }
}

/// The cgroup queues of a device, with the workqueues and the timer that serve them.
///
/// Workers hold a reference to this: it is freed after
/// [`CgroupQueuesOwner`](crate::queue_set::CgroupQueuesOwner) has removed all workers.
#[pin_data]
pub(crate) struct CgroupQueues {
    pub(crate) locked: Arc<LockedQueueSet>,
    /// Expires when a queue may have been idle for `timeout`.
    #[pin]
    pub(crate) reaper: Timer<Reaper>,
    /// Waits until the request queue is unfrozen.
    #[pin]
    pub(crate) thaw: Work<CgroupQueues>,
    pub(crate) timeout: Jiffies,
    /// Created when the device is first bound.
    pub(crate) workqueues: SetOnce<Workqueues>,
    /// A work item to clear a queue limit is pending.
    pub(crate) clearing_limit: AtomicFlag,
    /// The backing file supports nowait writes. Read without the lock by queue_rq().
    pub(crate) inline_writes: AtomicFlag,
    /// Number of completed detached requests.
    pub(crate) detached_done: Atomic<u32>,
}

impl_has_work! {
    impl HasWork<Self> for CgroupQueues { self.thaw }
}

impl CgroupQueues {
    /// Locks the queue set. Any context; disables interrupts.
    #[inline(always)]
    pub(crate) fn lock(&self) -> SpinLockIrqGuard<'_, QueueSet> {
        self.locked.set.lock()
    }
}
