// SPDX-License-Identifier: GPL-2.0

//! A worker for each cgroup.
//!
//! A device's requests wait in slots: one for each cgroup that has I/O on the device, found through
//! a tree by the cgroup's io css, and one for the root cgroup, which also takes the requests for
//! which there is no memory to make a slot. Each slot has a worker, an item on the device's
//! workqueue, that serves the slot's requests one after the other as its cgroup. So no cgroup waits
//! for the I/O of another.
//!
//! A slot is scheduled from when its worker is queued until the worker has found it empty. A slot
//! that is not scheduled is idle, and its worker is on the idle list; after a while the reaper takes
//! it out of the tree, and with it the reference to the css. All of that is under one lock, so there is no moment at which a request
//! can be put in a slot that is going away; and as what is queued holds its worker on its own, not
//! even a mistake in that would use freed memory.

use crate::{backing::Binding, device::LoopOps, dispatch, idle_worker_timeout_ms};
use kernel::{
    alloc::flags::__GFP_NOWARN,
    list::{
        impl_list_arc_safe, impl_list_item, AtomicTracker, List, ListArc, ListLinks, TryNewListArc,
    },
    prelude::*,
    rbtree::{Entry, RBTree, RBTreeNodeReservation},
    sync::{
        aref::ARef,
        atomic::{Atomic, Full, Release},
        new_spinlock_irq, Arc, ArcBorrow, SetOnce, SpinLockIrq,
    },
    time::{msecs_to_jiffies, Jiffies},
    workqueue::{impl_has_work, new_work, Work, WorkItem},
};
use kernel_ext::{
    block::{
        mq::{Request, RequestList},
        Status,
    },
    cgroup::{Css, Io},
    task::{self, WritebackScope},
    time::JiffiesInstant,
    timer::{Callback, Timer},
    workqueue::{OwnedQueue, WQ_FREEZABLE, WQ_UNBOUND},
};

/// What is to be told of a slot.
pub(crate) struct Report {
    pub(crate) id: SlotId,
    /// The cgroup; none for the root's slot.
    pub(crate) css: Option<ARef<Css<Io>>>,
    /// The worker is queued or running.
    pub(crate) busy: bool,
    /// How many requests wait for the worker.
    pub(crate) waiting: u64,
    /// How many requests the worker took since the slot was made.
    pub(crate) taken: u64,
    /// How many requests went to the root's slot because there was no memory for one.
    pub(crate) fallbacks: u64,
}

/// Which slot: that of a css, or the root's.
pub(crate) type SlotId = Option<usize>;

/// Requests that wait for a worker.
struct Slot {
    worker: Arc<Worker>,
    pending: RequestList<LoopOps>,
    /// How many requests were put in `pending`, and how many of them the worker took.
    received: u64,
    taken: u64,
    /// The worker is queued, or running and going to look at `pending` again.
    scheduled: bool,
    /// When the worker last had nothing to do.
    idle_since: JiffiesInstant,
    /// `idle_since` of when the worker was put on the idle list.
    listed_since: JiffiesInstant,
}

impl Slot {
    fn new(worker: Arc<Worker>) -> Self {
        Self {
            worker,
            pending: RequestList::new(),
            received: 0,
            taken: 0,
            scheduled: false,
            idle_since: JiffiesInstant::now(),
            listed_since: JiffiesInstant::now(),
        }
    }

    /// Sees to it that the worker looks at `pending`.
    fn schedule(&mut self, workqueue: &OwnedQueue) {
        if !self.scheduled && !self.pending.is_empty() {
            self.scheduled = true;
            // It can be queued already only if it has not looked yet.
            let _ = workqueue.enqueue(self.worker.clone());
        }
    }
}

/// What the lock protects.
struct Inner {
    /// What requests are served from.
    binding: Option<Arc<Binding>>,
    /// How many times that was replaced.
    binds: u32,
    /// The root cgroup's slot; there from when the device is first bound.
    root: Option<Slot>,
    tree: RBTree<usize, Slot>,
    /// The workers of slots in the tree that have been idle, the longest first.
    idle: List<Worker>,
    /// How many requests went to the root's slot because there was no memory for one.
    fallbacks: u64,
    /// A slot that got requests and is to be scheduled with the last one of the batch.
    batch: Option<SlotId>,
}

impl Inner {
    fn slot(&mut self, id: SlotId) -> Option<&mut Slot> {
        match id {
            Some(css) => self.tree.get_mut(&css),
            None => self.root.as_mut(),
        }
    }
}

/// The slots, apart from what the reaper does not need: it must not keep the timer from going.
#[pin_data]
struct Slots {
    #[pin]
    inner: SpinLockIrq<Inner>,
}

/// Takes out the slots that have been idle for long enough.
struct Reaper {
    slots: Arc<Slots>,
    timeout: Jiffies,
}

impl Callback for Reaper {
    fn expired(&self) -> Option<JiffiesInstant> {
        let mut inner = self.slots.inner.lock();
        let Inner { tree, idle, .. } = &mut *inner;
        loop {
            // A slot stays on the list when it gets requests. It is looked at when its turn comes.
            let worker = {
                let mut cursor = idle.cursor_front();
                let first = cursor.peek_next()?;
                let id = first.arc().id();
                match id.and_then(|id| tree.get(&id)) {
                    Some(slot) if !slot.scheduled && slot.listed_since == slot.idle_since => {
                        let expires = slot.idle_since.after(self.timeout);
                        if !expires.has_passed() {
                            return Some(expires);
                        }
                    }
                    _ => (),
                }
                first.remove().into_arc()
            };
            let Some(id) = worker.id() else { continue };
            let Some(slot) = tree.get_mut(&id).filter(|slot| !slot.scheduled) else {
                continue;
            };
            if slot.listed_since == slot.idle_since {
                tree.remove(&id);
            } else if let Ok(listed) = ListArc::try_from_arc(worker) {
                // Busy and idle again since it was listed.
                slot.listed_since = slot.idle_since;
                idle.push_back(listed);
            }
        }
    }
}

/// The slots of a device, and what it takes to serve them.
///
/// The workers in the slots hold the pool, so it goes only after [`PoolOwner`] has let go of them.
#[pin_data]
pub(crate) struct Pool {
    slots: Arc<Slots>,
    /// Arrived at when a slot may have been idle for long enough.
    #[pin]
    reaper: Timer<Reaper>,
    timeout: Jiffies,
    /// There from when the device is first bound.
    workqueue: SetOnce<OwnedQueue>,
    /// Not 0 while a limit is being dropped.
    dropping: Atomic<i32>,
}

/// Holds a device's pool, and shuts it down when dropped: in process context, after the last
/// request.
pub(crate) struct PoolOwner(Arc<Pool>);

impl PoolOwner {
    pub(crate) fn new() -> Result<Self> {
        Pool::new().map(Self)
    }
}

impl core::ops::Deref for PoolOwner {
    type Target = Arc<Pool>;

    fn deref(&self) -> &Arc<Pool> {
        &self.0
    }
}

impl Drop for PoolOwner {
    fn drop(&mut self) {
        self.0.shut_down();
    }
}

impl Pool {
    fn new() -> Result<Arc<Self>> {
        let timeout = msecs_to_jiffies(idle_worker_timeout_ms.value().unsigned_abs());
        let slots = Arc::pin_init(
            pin_init!(Slots {
                inner <- new_spinlock_irq!(
                    Inner {
                        binding: None,
                        binds: 0,
                        root: None,
                        tree: RBTree::new(),
                        idle: List::new(),
                        fallbacks: 0,
                        batch: None,
                    },
                    "lo_work_lock"
                ),
            }),
            GFP_KERNEL,
        )?;
        let reaper = Reaper {
            slots: slots.clone(),
            timeout,
        };
        Arc::pin_init(
            pin_init!(Self {
                slots,
                reaper <- Timer::new_deferrable(reaper),
                timeout,
                workqueue: SetOnce::new(),
                dropping: Atomic::new(0),
            }),
            GFP_KERNEL,
        )
    }

    /// Makes what serving requests takes, if it is not there yet. May sleep. The caller sees to it
    /// that it runs once at a time.
    pub(crate) fn start(self: &Arc<Self>, name: &CStr) -> Result {
        if self.slots.inner.lock().root.is_none() {
            let root = Slot::new(Worker::new(self.clone(), None, GFP_KERNEL)?);
            self.slots.inner.lock().root = Some(root);
        }
        if self.workqueue.as_ref().is_none() {
            self.workqueue
                .populate(OwnedQueue::new(name, WQ_UNBOUND | WQ_FREEZABLE)?);
        }
        Ok(())
    }

    /// Replaces what requests are served from; returns what was before.
    ///
    /// A request is served from what is there when a worker takes it on: the queue is frozen where
    /// that makes a difference.
    pub(crate) fn bind(&self, binding: Option<Arc<Binding>>) -> Option<Arc<Binding>> {
        let mut inner = self.slots.inner.lock();
        inner.binds = inner.binds.wrapping_add(1);
        core::mem::replace(&mut inner.binding, binding)
    }

    /// What requests are served from.
    pub(crate) fn binding(&self) -> Option<Arc<Binding>> {
        self.slots.inner.lock().binding.clone()
    }

    /// Puts a request in the slot of its cgroup. When it is not the `last` of a batch, its worker
    /// can wait for that one, or for [`commit`](Self::commit).
    pub(crate) fn queue(self: ArcBorrow<'_, Self>, rq: Request<LoopOps>, last: bool) {
        let Some(workqueue) = self.workqueue.as_ref() else {
            return rq.end(Status::IOERR);
        };
        let mut inner = self.slots.inner.lock();
        let mut current = None;
        let mut refused = None;
        if inner.binding.is_some() {
            let id = self.find_slot(&mut inner, rq.blkcg());
            if let Some(slot) = inner.slot(id) {
                slot.pending.push_back(rq);
                slot.received = slot.received.wrapping_add(1);
                current = Some(id);
            } else {
                refused = Some(rq);
            }
        } else {
            refused = Some(rq);
        }
        let before = core::mem::replace(&mut inner.batch, current.filter(|_| !last));
        if let Some(before) = before.filter(|_| before != current) {
            inner.schedule(before, workqueue);
        }
        if let Some(id) = current.filter(|_| last) {
            inner.schedule(id, workqueue);
        }
        drop(inner);
        if let Some(rq) = refused {
            rq.end(Status::IOERR);
        }
    }

    /// Schedules what is left of a batch.
    pub(crate) fn commit(&self) {
        if let Some(workqueue) = self.workqueue.as_ref() {
            let mut inner = self.slots.inner.lock();
            if let Some(id) = inner.batch.take() {
                inner.schedule(id, workqueue);
            }
        }
    }

    /// Returns the slot for the I/O of a cgroup: its own, made now if need be, or the root's when
    /// there is no memory for that.
    fn find_slot(self: ArcBorrow<'_, Self>, inner: &mut Inner, css: Option<&Css<Io>>) -> SlotId {
        let css = css.filter(|css| !css.is_root())?;
        let id = css.id();
        if let Entry::Vacant(vacant) = inner.tree.entry(id) {
            let flags = GFP_NOWAIT | __GFP_NOWARN;
            let made = RBTreeNodeReservation::new(flags).and_then(|reservation| {
                let worker = Worker::new(self.into(), Some(css.into()), flags)?;
                Ok((Slot::new(worker), reservation))
            });
            match made {
                Ok((slot, reservation)) => {
                    vacant.insert(slot, reservation);
                }
                Err(_) => {
                    inner.fallbacks = inner.fallbacks.wrapping_add(1);
                    return None;
                }
            }
        }
        Some(id)
    }

    /// Returns what is to be told of the first slot after `after`, the root's being the first of
    /// all.
    pub(crate) fn report(&self, after: Option<SlotId>) -> Option<Report> {
        let mut inner = self.slots.inner.lock();
        let inner = &mut *inner;
        let slot = match after {
            None => inner.root.as_ref()?,
            Some(id) => {
                let next = id.map_or(Some(0), |id| id.checked_add(1))?;
                let cursor = inner.tree.cursor_lower_bound(&next)?;
                let id = *cursor.current().0;
                inner.tree.get(&id)?
            }
        };
        Some(Report {
            id: slot.worker.id(),
            css: slot.worker.css.clone(),
            busy: slot.scheduled,
            waiting: slot.received.wrapping_sub(slot.taken),
            taken: slot.taken,
            fallbacks: inner.fallbacks,
        })
    }

    /// Has the limit dropped that let a request through which the backing file does not support.
    ///
    /// Limits change while no request is in flight, so not from within one. When there is no memory
    /// to do it later, the next such request tries again.
    pub(crate) fn drop_limit(self: &Arc<Self>, rq: &Request<LoopOps>) {
        let Some(workqueue) = self.workqueue.as_ref() else {
            return;
        };
        // One at a time.
        if self.dropping.xchg(1, Full) != 0 {
            return;
        }
        let (pool, disk, op) = (self.clone(), ARef::from(rq.disk()), rq.op());
        let binds = pool.slots.inner.lock().binds;
        let _noio = task::NoioScope::enter();
        let spawned = workqueue.try_spawn(GFP_KERNEL, move || {
            // Another file may support it.
            if pool.slots.inner.lock().binds == binds {
                dispatch::drop_limit(disk.queue(), op);
            }
            pool.dropping.store(0, Release);
        });
        if spawned.is_err() {
            self.dropping.store(0, Release);
        }
    }

    /// Waits for what was started on the device's behalf, when there are no requests any more. May
    /// sleep.
    pub(crate) fn drain(&self) {
        if let Some(workqueue) = self.workqueue.as_ref() {
            workqueue.drain();
        }
    }

    /// Takes all slots out, when there are no requests any more. May sleep.
    fn shut_down(&self) {
        self.drain();
        let slots = {
            let mut inner = self.slots.inner.lock();
            (
                core::mem::take(&mut inner.idle),
                core::mem::take(&mut inner.tree),
                inner.root.take(),
            )
        };
        drop(slots);
    }
}

impl Inner {
    fn schedule(&mut self, id: SlotId, workqueue: &OwnedQueue) {
        if let Some(slot) = self.slot(id) {
            slot.schedule(workqueue);
        }
    }
}

/// Serves the requests of one slot.
#[pin_data]
struct Worker {
    #[pin]
    work: Work<Worker>,
    #[pin]
    links: ListLinks,
    #[pin]
    tracker: AtomicTracker,
    pool: Arc<Pool>,
    /// The cgroup to charge; none for the root's slot.
    css: Option<ARef<Css<Io>>>,
}

impl_has_work! {
    impl HasWork<Self> for Worker { self.work }
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
    fn new(
        pool: Arc<Pool>,
        css: Option<ARef<Css<Io>>>,
        flags: kernel::alloc::Flags,
    ) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                work <- new_work!("loop_rs::Worker"),
                links <- ListLinks::new(),
                tracker <- AtomicTracker::new(),
                pool,
                css,
            }),
            flags,
        )
    }

    /// The slot that the worker is for.
    fn id(&self) -> SlotId {
        self.css.as_ref().map(|css| css.id())
    }

    /// Takes what waits in the slot, and what to serve it from; `None` when there is nothing, and
    /// the slot is idle from then on.
    fn take(self: &Arc<Self>) -> Option<(RequestList<LoopOps>, Option<Arc<Binding>>)> {
        let mut inner = self.pool.slots.inner.lock();
        let slot = inner.slot(self.id())?;
        if !slot.pending.is_empty() {
            let requests = slot.pending.take();
            slot.taken = slot.received;
            return Some((requests, inner.binding.clone()));
        }
        let now = JiffiesInstant::now();
        slot.scheduled = false;
        slot.idle_since = now;
        if self.css.is_some() {
            if let Ok(listed) = ListArc::try_from_arc(self.clone()) {
                slot.listed_since = now;
                inner.idle.push_back(listed);
            }
            self.pool.reaper.reduce(now.after(self.pool.timeout));
        }
        None
    }
}

impl WorkItem for Worker {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let _writeback = WritebackScope::enter();
        let blkcg = this.css.as_deref();
        while let Some((mut requests, mut binding)) = this.take() {
            let memcg = blkcg.map(|css| css.effective_memory());
            while let Some(rq) = requests.pop_front() {
                // When the last request has ended, nothing here may hold the file.
                let binding = if requests.is_empty() {
                    binding.take()
                } else {
                    binding.clone()
                };
                match binding {
                    Some(binding) => {
                        dispatch::serve(&this.pool, binding, rq, blkcg, memcg.as_deref())
                    }
                    None => rq.end(Status::IOERR),
                }
                task::cond_resched();
            }
        }
    }
}
