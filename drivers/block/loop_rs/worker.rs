// SPDX-License-Identifier: GPL-2.0

//! A worker for each cgroup.
//!
//! A device's requests wait in slots: one for each cgroup that has I/O on the device, found through
//! a tree by the cgroup's io css; one for the root cgroup, which also takes the requests for which
//! there is no memory to make a slot; and one for flushes. Each slot has a worker, an item on the
//! device's workqueue, that serves the slot's requests one after the other as its cgroup. So no
//! cgroup waits for the I/O of another.
//!
//! What can be served without waiting is not put in a slot: the task that submits it serves it right
//! there, when it is in the request's cgroup and may do so, and the slot's worker has nothing to do.
//!
//! A slot is scheduled from when its worker is queued until the worker has found it empty. A slot
//! that is not scheduled, and empty, is idle, and its worker is on the idle list; after a while the
//! reaper takes it out of the tree, and with it the reference to the css. All of that is under one
//! lock, so there is no moment at which a request can be put in a slot that is going away; and as
//! what is queued holds its worker on its own, not even a mistake in that would use freed memory.

use crate::{
    backing::Binding,
    device::LoopOps,
    dispatch::{self, Work as _},
    errors::Told,
    idle_worker_timeout_ms,
    stats::{Counts, Report, SlotReport},
    tags::{self, Held},
};
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
        mq::{Op, Parked, Request, Transfer, TransferList},
        Status,
    },
    cgroup::{Css, Io, Memory},
    task::{self, WritebackScope},
    time::JiffiesInstant,
    timer::{Callback, Timer},
    workqueue::{OwnedQueue, WQ_FREEZABLE, WQ_UNBOUND},
};

/// Which slot.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum SlotId {
    /// The root cgroup's.
    Root,
    /// That of flushes, which are nobody's: the block layer sends one for all who ask. It can take
    /// long, and must neither wait for the root's I/O nor hold it up.
    Flush,
    /// That of the cgroup with this io css.
    Css(usize),
}

/// Requests that wait for a worker.
struct Slot {
    worker: Arc<Worker>,
    pending: TransferList<Request<LoopOps>>,
    /// What waits behind `pending`, without tags.
    parked: TransferList<Parked<LoopOps>>,
    /// The tags of what was put in `pending`.
    tags: Held,
    /// What was put in `parked` and has not ended.
    parking: Held,
    counts: Counts,
    /// How many requests were put in `pending` or `parked`, and how many of them the worker took.
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
    fn new(worker: Arc<Worker>, shared: &Shared, flags: kernel::alloc::Flags) -> Result<Self> {
        Ok(Self {
            worker,
            pending: TransferList::new(),
            parked: TransferList::new(),
            tags: Held::new(Some(&shared.tags), flags)?,
            parking: Held::new(Some(&shared.parking), flags)?,
            counts: Counts::default(),
            received: 0,
            taken: 0,
            scheduled: false,
            idle_since: JiffiesInstant::now(),
            listed_since: JiffiesInstant::now(),
        })
    }

    /// Whether nothing waits.
    fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.parked.is_empty()
    }

    /// Whether nothing waits, and the worker is not going to look. A slot can have requests of a
    /// batch before its worker is scheduled.
    fn is_idle(&self) -> bool {
        !self.scheduled && self.is_empty()
    }

    /// Adds a request, which keeps its tag.
    fn push(&mut self, mut rq: Request<LoopOps>, shared: &mut Shared, past: Past) {
        self.count(&rq, shared, past);
        rq.data_mut().kept = Some(self.tags.keep(&mut shared.tags));
        self.pending.push_back(rq);
        self.received = self.received.wrapping_add(1);
    }

    /// Adds parked I/O.
    fn push_parked(&mut self, mut parked: Parked<LoopOps>, shared: &mut Shared, past: Past) {
        self.count(&parked, shared, past);
        if past != Past::Again {
            for counts in [&mut self.counts, &mut shared.counts] {
                counts.parked = counts.parked.wrapping_add(1);
            }
        }
        parked.data_mut().kept = Some(self.parking.keep(&mut shared.parking));
        self.parked.push_back(parked);
        self.received = self.received.wrapping_add(1);
    }

    /// Counts I/O that is handed to the worker.
    fn count<I: Transfer>(&mut self, io: &I, shared: &mut Shared, past: Past) {
        for counts in [&mut self.counts, &mut shared.counts] {
            match past {
                Past::New => counts.ask(io),
                Past::Missed => counts.missed = counts.missed.wrapping_add(1),
                Past::Again => (),
            }
        }
    }

    /// Sees to it that the worker looks at what waits.
    fn schedule(&mut self, workqueue: &OwnedQueue) {
        if !self.scheduled && !self.is_empty() {
            self.scheduled = true;
            // It can be queued already only if it has not looked yet.
            let _ = workqueue.enqueue(self.worker.clone());
        }
    }
}

/// What became of I/O before it is handed to a worker.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Past {
    /// Nothing.
    New,
    /// It would have had to wait where it was submitted.
    Missed,
    /// Some of it was done.
    Again,
}

/// What a device's slots share.
struct Shared {
    /// The tags that are held, and what is parked.
    tags: Held,
    parking: Held,
    counts: Counts,
    /// How many requests went to the root's slot because there was no memory for one.
    fallbacks: u64,
}

/// What the lock protects.
struct Inner {
    /// What requests are served from.
    binding: Option<Arc<Binding>>,
    /// How many times that was replaced.
    binds: u32,
    /// The root cgroup's slot; there from when the device is first bound.
    root: Option<Slot>,
    /// That of flushes; there as the root's.
    flush: Option<Slot>,
    tree: RBTree<usize, Slot>,
    /// The workers of slots in the tree that have been idle, the longest first.
    idle: List<Worker>,
    /// A slot that got requests and is to be scheduled with the last one of the batch.
    batch: Option<SlotId>,
    shared: Shared,
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

/// What the reaper finds.
enum Reaped {
    /// A slot that has been idle for long enough, taken out.
    Slot(Slot),
    /// Nothing before then.
    Later(JiffiesInstant),
    /// No slot is idle.
    Nothing,
}

impl Reaper {
    fn reap(&self) -> Reaped {
        let mut inner = self.slots.inner.lock();
        let Inner { tree, idle, .. } = &mut *inner;
        loop {
            // A slot stays on the list when it gets requests. It is looked at when its turn comes.
            let worker = {
                let mut cursor = idle.cursor_front();
                let Some(first) = cursor.peek_next() else {
                    return Reaped::Nothing;
                };
                let slot = match first.arc().id {
                    SlotId::Css(css) => tree.get(&css),
                    _ => None,
                };
                match slot {
                    Some(slot) if slot.is_idle() && slot.listed_since == slot.idle_since => {
                        let expires = slot.idle_since.after(self.timeout);
                        if !expires.has_passed() {
                            return Reaped::Later(expires);
                        }
                    }
                    _ => (),
                }
                first.remove().into_arc()
            };
            let SlotId::Css(id) = worker.id else {
                continue;
            };
            // One that is not idle is listed again when it has become so.
            let Some(slot) = tree.get_mut(&id).filter(|slot| slot.is_idle()) else {
                continue;
            };
            if slot.listed_since != slot.idle_since {
                // Busy and idle again since it was listed.
                slot.listed_since = slot.idle_since;
            } else if slot.tags.get() > 0 || slot.parking.get() > 0 {
                // Its I/O is still in flight: how much that is must not be forgotten.
                slot.idle_since = JiffiesInstant::now();
                slot.listed_since = slot.idle_since;
            } else if let Some(slot) = tree.remove(&id) {
                return Reaped::Slot(slot);
            }
            if let Ok(listed) = ListArc::try_from_arc(worker) {
                idle.push_back(listed);
            }
        }
    }
}

impl Callback for Reaper {
    fn expired(&self) -> Option<JiffiesInstant> {
        loop {
            match self.reap() {
                Reaped::Slot(slot) => drop(slot),
                Reaped::Later(expires) => return Some(expires),
                Reaped::Nothing => return None,
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
        let tags = Held::new(None, GFP_KERNEL)?;
        let parking = Held::new(None, GFP_KERNEL)?;
        let slots = Arc::pin_init(
            pin_init!(Slots {
                inner <- new_spinlock_irq!(
                    Inner {
                        binding: None,
                        binds: 0,
                        root: None,
                        flush: None,
                        tree: RBTree::new(),
                        idle: List::new(),
                        batch: None,
                        shared: Shared {
                            tags,
                            parking,
                            counts: Counts::default(),
                            fallbacks: 0,
                        },
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
        if self.slots.inner.lock().flush.is_none() {
            let root = Worker::new(self.clone(), SlotId::Root, None, GFP_KERNEL)?;
            let flush = Worker::new(self.clone(), SlotId::Flush, None, GFP_KERNEL)?;
            let mut inner = self.slots.inner.lock();
            inner.root = Some(Slot::new(root, &inner.shared, GFP_NOWAIT)?);
            inner.flush = Some(Slot::new(flush, &inner.shared, GFP_NOWAIT)?);
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

    /// What was told of the file that requests are served from.
    pub(crate) fn told(&self) -> Option<Arc<Told>> {
        let inner = self.slots.inner.lock();
        Some(inner.binding.as_ref()?.backing.told().clone())
    }

    /// Puts a request in the slot of its cgroup, parked when the cgroup may keep no more tags. When
    /// it is not the `last` of a batch, its worker can wait for that one, or for
    /// [`commit`](Self::commit).
    pub(crate) fn queue(self: ArcBorrow<'_, Self>, mut rq: Request<LoopOps>, last: bool) {
        let Some(workqueue) = self.workqueue.as_ref() else {
            return rq.finish(Status::IOERR);
        };
        // One that was begun before starts anew.
        drop(rq.data_mut().kept.take());
        rq.data_mut().tried = false;
        // A worker may block, whatever the submitter may.
        rq.clear_nowait();
        let depth = rq.depth();
        let may_be_here = rq.can_be_served_here();
        let mut past = Past::New;
        let mut inner = self.slots.inner.lock();
        let mut id = self.find_slot(&mut inner, &rq);
        if may_be_here {
            if let Some(binding) = inner.begin_here(id, &mut rq, depth) {
                // What came before does not wait for what is done now.
                if let Some(id) = inner.batch.take() {
                    inner.schedule(id, workqueue);
                }
                drop(inner);
                rq = match dispatch::serve_here(binding, rq) {
                    Some(rq) => rq,
                    None => return,
                };
                drop(rq.data_mut().kept.take());
                rq.data_mut().tried = false;
                past = Past::Missed;
                inner = self.slots.inner.lock();
                id = self.find_slot(&mut inner, &rq);
            }
        }
        if inner.binding.is_none() {
            if let Some(id) = inner.batch.take() {
                inner.schedule(id, workqueue);
            }
            drop(inner);
            return rq.finish(Status::IOERR);
        }
        if let Err(rq) = inner.offer(id, rq, depth, past) {
            // To end a request may take all kinds of locks.
            drop(inner);
            let parked = rq.park(GFP_NOWAIT);
            inner = self.slots.inner.lock();
            match parked {
                Ok(parked) => {
                    id = self.find_slot(&mut inner, &parked);
                    inner.push_parked(id, parked, past);
                }
                Err(rq) => {
                    id = self.find_slot(&mut inner, &rq);
                    if let Some((slot, shared)) = inner.slot(id) {
                        slot.push(rq, shared, past);
                    }
                }
            }
        }
        let before = core::mem::replace(&mut inner.batch, (!last).then_some(id));
        if let Some(before) = before.filter(|before| *before != id) {
            inner.schedule(before, workqueue);
        }
        if last {
            inner.schedule(id, workqueue);
        }
    }

    /// Has what is left of parked I/O served, in any context.
    pub(crate) fn queue_again(self: ArcBorrow<'_, Self>, parked: Parked<LoopOps>) {
        let Some(workqueue) = self.workqueue.as_ref() else {
            return parked.finish(Status::IOERR);
        };
        let mut inner = self.slots.inner.lock();
        let id = self.find_slot(&mut inner, &parked);
        inner.push_parked(id, parked, Past::Again);
        inner.schedule(id, workqueue);
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
    fn find_slot<I: Transfer>(self: ArcBorrow<'_, Self>, inner: &mut Inner, io: &I) -> SlotId {
        if io.op() == Op::Flush {
            return SlotId::Flush;
        }
        let Some(css) = io.blkcg().filter(|css| !css.is_root()) else {
            return SlotId::Root;
        };
        let id = css.id();
        if let Entry::Vacant(vacant) = inner.tree.entry(id) {
            let flags = GFP_NOWAIT | __GFP_NOWARN;
            let made = RBTreeNodeReservation::new(flags).and_then(|reservation| {
                let worker = Worker::new(self.into(), SlotId::Css(id), Some(css.into()), flags)?;
                Ok((Slot::new(worker, &inner.shared, flags)?, reservation))
            });
            match made {
                Ok((mut slot, reservation)) => {
                    // It can be that its worker never has anything to do.
                    if let Ok(listed) = ListArc::try_from_arc(slot.worker.clone()) {
                        slot.listed_since = slot.idle_since;
                        inner.idle.push_back(listed);
                    }
                    self.reaper.reduce(slot.idle_since.after(self.timeout));
                    vacant.insert(slot, reservation);
                }
                Err(_) => {
                    inner.shared.fallbacks = inner.shared.fallbacks.wrapping_add(1);
                    return SlotId::Root;
                }
            }
        }
        SlotId::Css(id)
    }

    /// Returns what is to be told of the first slot after `after`, the root's and that of flushes
    /// being the first of all.
    pub(crate) fn report_slot(&self, after: Option<SlotId>) -> Option<SlotReport> {
        let mut inner = self.slots.inner.lock();
        let inner = &mut *inner;
        let slot = match after {
            None => inner.root.as_ref()?,
            Some(SlotId::Root) => inner.flush.as_ref()?,
            Some(after) => {
                let next = match after {
                    SlotId::Css(css) => css.checked_add(1)?,
                    _ => 0,
                };
                let cursor = inner.tree.cursor_lower_bound(&next)?;
                let css = *cursor.current().0;
                inner.tree.get(&css)?
            }
        };
        Some(SlotReport {
            id: slot.worker.id,
            css: slot.worker.css.clone(),
            busy: slot.scheduled,
            idle_since: slot.idle_since,
            waiting: slot.received.wrapping_sub(slot.taken),
            report: Report {
                tags: slot.tags.get(),
                parking: slot.parking.get(),
                counts: slot.counts,
            },
            fallbacks: inner.shared.fallbacks,
        })
    }

    /// Returns what is to be told of all slots together, those that were reaped included.
    pub(crate) fn report(&self) -> Report {
        let inner = self.slots.inner.lock();
        let shared = &inner.shared;
        Report {
            tags: shared.tags.get(),
            parking: shared.parking.get(),
            counts: shared.counts,
        }
    }

    /// Has the limit dropped that let a request through which the backing file does not support.
    ///
    /// Limits change under a lock whose holders wait for requests, so not from within one. When there
    /// is no memory to do it later, the next such request tries again.
    pub(crate) fn drop_limit<W: dispatch::Work>(self: &Arc<Self>, rq: &W) {
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
            dispatch::drop_limit(disk.queue(), op, || pool.slots.inner.lock().binds == binds);
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
        // What the reaper takes out holds the pool, which must not go from within the timer.
        self.reaper.shutdown();
        let slots = {
            let mut inner = self.slots.inner.lock();
            (
                core::mem::take(&mut inner.idle),
                core::mem::take(&mut inner.tree),
                inner.root.take(),
                inner.flush.take(),
            )
        };
        drop(slots);
    }
}

impl Inner {
    /// A slot, and what it shares.
    fn slot(&mut self, id: SlotId) -> Option<(&mut Slot, &mut Shared)> {
        let slot = match id {
            SlotId::Css(css) => self.tree.get_mut(&css),
            SlotId::Root => self.root.as_mut(),
            SlotId::Flush => self.flush.as_mut(),
        };
        slot.map(|slot| (slot, &mut self.shared))
    }

    /// Whether a request that may be served where it is submitted is to be, and from what: its worker
    /// has nothing to do, the file knows how, and it may keep its tag if it can be in flight after
    /// that.
    fn begin_here(
        &mut self,
        id: SlotId,
        rq: &mut Request<LoopOps>,
        depth: u32,
    ) -> Option<Arc<Binding>> {
        let binding = self.binding.as_ref().filter(|b| b.serves_here(rq))?;
        let asynchronous = binding.is_asynchronous();
        let (slot, shared) = self.slot(id).filter(|(slot, _)| slot.is_idle())?;
        if asynchronous {
            if !tags::may_keep(slot.tags.get(), shared.tags.get(), depth) {
                return None;
            }
            rq.data_mut().kept = Some(slot.tags.keep(&mut shared.tags));
        }
        for counts in [&mut slot.counts, &mut shared.counts] {
            counts.ask(rq);
            counts.here = counts.here.wrapping_add(1);
        }
        slot.idle_since = JiffiesInstant::now();
        self.binding.clone()
    }

    /// Adds a request to a slot, if the slot may keep another tag of the `depth` that the device
    /// has; gives it back otherwise.
    fn offer(
        &mut self,
        id: SlotId,
        rq: Request<LoopOps>,
        depth: u32,
        past: Past,
    ) -> Result<(), Request<LoopOps>> {
        let Some((slot, shared)) = self.slot(id) else {
            return Err(rq);
        };
        // What waits already comes first.
        let may_keep =
            slot.parked.is_empty() && tags::may_keep(slot.tags.get(), shared.tags.get(), depth);
        if !may_keep && slot.parking.get() < tags::MAX_PARKED {
            return Err(rq);
        }
        slot.push(rq, shared, past);
        Ok(())
    }

    /// Adds parked I/O to a slot.
    fn push_parked(&mut self, id: SlotId, parked: Parked<LoopOps>, past: Past) {
        if let Some((slot, shared)) = self.slot(id) {
            slot.push_parked(parked, shared, past);
        }
    }

    fn schedule(&mut self, id: SlotId, workqueue: &OwnedQueue) {
        if let Some((slot, _)) = self.slot(id) {
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
    /// The slot that it is for.
    id: SlotId,
    /// The cgroup to charge; none for the root's slot, and that of flushes.
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
        id: SlotId,
        css: Option<ARef<Css<Io>>>,
        flags: kernel::alloc::Flags,
    ) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                work <- new_work!("loop_rs::Worker"),
                links <- ListLinks::new(),
                tracker <- AtomicTracker::new(),
                pool,
                id,
                css,
            }),
            flags,
        )
    }

    /// Takes what waits in the slot, and what to serve it from; `None` when there is nothing, and
    /// the slot is idle from then on.
    fn take(self: &Arc<Self>) -> Option<Batch> {
        let mut inner = self.pool.slots.inner.lock();
        let (slot, _) = inner.slot(self.id)?;
        if !slot.is_empty() {
            let (requests, parked) = (slot.pending.take(), slot.parked.take());
            slot.taken = slot.received;
            return Some(Batch {
                requests,
                parked,
                binding: inner.binding.clone(),
            });
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

/// How many reads, of how many bytes, wait for the disk together: what they read ahead must still be
/// there when their turn comes, in a small cgroup too.
const TOGETHER: usize = 32;
const TOGETHER_BYTES: usize = 4 << 20;

/// What a worker takes at a time.
struct Batch {
    requests: TransferList<Request<LoopOps>>,
    parked: TransferList<Parked<LoopOps>>,
    binding: Option<Arc<Binding>>,
}

impl Worker {
    /// Serves what is on a list; with the `last` of it the worker lets go of what it is served
    /// from: when the last request has ended, nothing here may hold the file.
    fn serve<W: dispatch::Work>(
        &self,
        mut list: TransferList<W>,
        binding: &mut Option<Arc<Binding>>,
        last: bool,
        memcg: Option<&Css<Memory>>,
    ) {
        let blkcg = self.css.as_deref();
        while !list.is_empty() {
            let mut some = TransferList::new();
            if binding.as_deref().is_some_and(|binding| binding.attempts()) {
                let mut bytes: usize = 0;
                for _ in 0..TOGETHER {
                    if bytes >= TOGETHER_BYTES {
                        break;
                    }
                    let Some(rq) = list.pop_front() else { break };
                    bytes = bytes.saturating_add(rq.len());
                    // There is nothing for the last one to wait together with.
                    let together = rq.op() == Op::Read && !list.is_empty();
                    let rq = match binding.as_deref().filter(|_| together) {
                        Some(binding) => dispatch::attempt(binding, rq, blkcg, memcg),
                        None => Some(rq),
                    };
                    if let Some(rq) = rq {
                        some.push_back(rq);
                    }
                    task::cond_resched();
                }
            } else {
                core::mem::swap(&mut some, &mut list);
            }
            while let Some(rq) = some.pop_front() {
                let binding = match last && some.is_empty() && list.is_empty() {
                    true => binding.take(),
                    false => binding.clone(),
                };
                match binding {
                    Some(binding) => dispatch::serve(&self.pool, binding, rq, blkcg, memcg),
                    None => rq.finish(Status::IOERR),
                }
                task::cond_resched();
            }
        }
    }
}

impl WorkItem for Worker {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let _writeback = WritebackScope::enter();
        while let Some(mut batch) = this.take() {
            let memcg = this.css.as_deref().map(|css| css.effective_memory());
            let memcg = memcg.as_deref();
            let alone = batch.parked.is_empty();
            this.serve(batch.requests, &mut batch.binding, alone, memcg);
            this.serve(batch.parked, &mut batch.binding, true, memcg);
        }
    }
}
