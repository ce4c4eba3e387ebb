// SPDX-License-Identifier: GPL-2.0

//! A worker for each cgroup.
//!
//! Each [slot](crate::slots) has a worker, an item on the device's workqueue, that serves the slot's
//! requests one after the other as its cgroup. So no cgroup waits for the I/O of another.
//!
//! Requests that do not block are issued inline, by the task that submits them, if the task is in the
//! request's cgroup, its context allows it, and the [offload policy](crate::policy::offload) says so. That is
//! done when the task has dispatched the last request of a batch, so that it holds none that others
//! could wait for if it blocks after all.

use crate::{
    backing::{Binding, Here, Lent},
    device::LoopOps,
    dispatch::{self, Work as _},
    errors::ErrorLog,
    params::idle_worker_timeout_ms,
    slots::{self, Begun, Found, Inner, QueueReason, Queues, Reaper, Slot, SlotId, Slots, Taken},
    stats::{Report, SlotReport},
};
use kernel::{
    alloc::flags::__GFP_NOWARN,
    list::{impl_list_arc_safe, impl_list_item, AtomicTracker, ListArc, ListLinks, TryNewListArc},
    prelude::*,
    rbtree::{Entry, RBTreeNodeReservation},
    sync::{
        aref::ARef,
        atomic::{Atomic, Full, Relaxed, Release},
        Arc, ArcBorrow, SetOnce,
    },
    time::{msecs_to_jiffies, Jiffies},
    workqueue::{impl_has_work, new_work, Work, WorkItem},
};
use kernel_ext::{
    block::{
        mq::{DetachedIo, IoList, Op, Request, Transfer},
        Status,
    },
    cgroup::{Css, Io, Memory},
    task::{self, WritebackScope},
    time::JiffiesInstant,
    timer::Timer,
    workqueue::{OwnedQueue, WQ_FREEZABLE, WQ_UNBOUND},
};

/// The slots of a device, and what it takes to serve them.
///
/// The workers in the slots hold the pool, so it goes only after [`PoolOwner`] has let go of them.
#[pin_data]
pub(crate) struct Pool {
    slots: Arc<Slots>,
    /// Arrived at when a slot may have been idle for long enough.
    #[pin]
    reaper: Timer<Reaper>,
    /// Waits until the queue is not frozen any more.
    #[pin]
    thaw: Work<Pool>,
    timeout: Jiffies,
    /// There from when the device is first bound.
    queues: SetOnce<Queues>,
    /// Not 0 while a limit is being dropped.
    dropping: Atomic<i32>,
    /// Not 0 if writes may be issued inline.
    inline_writes: Atomic<i32>,
    /// How many detached requests have completed.
    detached_done: Atomic<u32>,
}

impl_has_work! {
    impl HasWork<Self> for Pool { self.thaw }
}

/// Holds a device's pool, and shuts it down when dropped: in process context, after the last
/// request.
pub(crate) struct PoolOwner(Arc<Pool>);

impl PoolOwner {
    pub(crate) fn new() -> Result<Self> {
        let timeout = idle_worker_timeout_ms.value().unsigned_abs();
        Pool::new(msecs_to_jiffies(timeout)).map(Self)
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
    /// `timeout` is how long a slot stays when it is idle.
    fn new(timeout: Jiffies) -> Result<Arc<Self>> {
        let slots = Slots::new()?;
        let reaper = Reaper {
            slots: slots.clone(),
            timeout,
        };
        Arc::pin_init(
            pin_init!(Self {
                slots,
                reaper <- Timer::new_deferrable(reaper),
                thaw <- new_work!("loop_rs::Pool::thaw"),
                timeout,
                queues: SetOnce::new(),
                dropping: Atomic::new(0),
                inline_writes: Atomic::new(0),
                detached_done: Atomic::new(0),
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
            let root = Slot::new(root, &inner.shared, GFP_NOWAIT)?;
            inner.root = Some(KBox::new(root, GFP_NOWAIT)?);
            let flush = Slot::new(flush, &inner.shared, GFP_NOWAIT)?;
            inner.flush = Some(KBox::new(flush, GFP_NOWAIT)?);
        }
        if self.queues.as_ref().is_none() {
            let flags = WQ_UNBOUND | WQ_FREEZABLE;
            self.queues.populate(Queues {
                cgroups: OwnedQueue::new(name, flags)?,
                shared: OwnedQueue::new(name, flags)?,
            });
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
        let old = core::mem::replace(&mut inner.binding, binding);
        self.look_at(&inner);
        old
    }

    /// Sees to it that changed flags of what requests are served from are taken into account.
    pub(crate) fn flags_changed(&self) {
        self.look_at(&self.slots.inner.lock());
    }

    fn look_at(&self, inner: &Inner) {
        let writes = inner
            .binding
            .as_ref()
            .is_some_and(|b| b.serves_writes_here());
        self.inline_writes.store(writes.into(), Relaxed);
    }

    /// What requests are served from.
    pub(crate) fn binding(&self) -> Option<Arc<Binding>> {
        self.slots.inner.lock().binding.clone()
    }

    /// Notes that direct I/O to the file that requests are served from cannot be done without
    /// waiting. In any context.
    pub(crate) fn note_waits(&self) {
        if let Some(binding) = &self.slots.inner.lock().binding {
            binding.backing.note_waits();
        }
    }

    /// The error log of the backing file. Any context.
    pub(crate) fn error_log(&self) -> Option<Arc<ErrorLog>> {
        let inner = self.slots.inner.lock();
        Some(inner.binding.as_ref()?.backing.error_log().clone())
    }

    /// Takes a request on: issues it inline, or adds it to the slot of its cgroup, detached if the
    /// cgroup may keep no more tags. If it is not the `last` of a batch, the worker can wait for that
    /// one, or for [`commit`](Self::commit). May sleep if it is the last.
    pub(crate) fn queue(self: ArcBorrow<'_, Self>, mut rq: Request<LoopOps>, last: bool) {
        let Some(queues) = self.queues.as_ref() else {
            return rq.finish(Status::IOERR);
        };
        // One that was begun before starts anew.
        rq.data_mut().kept.uncharge();
        rq.data_mut().tried = false;
        let missed = core::mem::take(&mut rq.data_mut().missed);
        let nowait = rq.is_nowait();
        // A worker may block, whatever the submitter may.
        rq.clear_nowait();
        let (depth, len) = (rq.depth(), rq.len());
        let mut inline = !missed
            && match rq.op() {
                Op::Read => rq.can_issue_inline(),
                Op::Write => self.inline_writes.load(Relaxed) != 0 && rq.can_issue_inline(),
                _ => false,
            };
        let mut reason = match missed {
            true => QueueReason::InlineEagain,
            false => QueueReason::New,
        };
        let mut inner = self.slots.inner.lock();
        let mut id = self.find_slot(&mut inner, rq.op(), rq.blkcg());
        inline = inline && !(nowait && inner.backs_off(id));
        // The common case needs no list.
        if inline && last && task::holds_no_requests(1, len) {
            inline = false;
            match inner.begin_inline(id, &mut rq, depth, true) {
                Some(Begun::Here(here)) => {
                    // What came before does not wait for what is done now.
                    if let Some(before) = inner.batch {
                        inner.schedule_pending(before, queues);
                    }
                    drop(inner);
                    rq = match self.issue_inline(id, here, rq) {
                        Some(rq) => rq,
                        None => return,
                    };
                    reason = QueueReason::InlineEagain;
                    inner = self.slots.inner.lock();
                    id = self.find_slot(&mut inner, rq.op(), rq.blkcg());
                }
                Some(Begun::Batch) => inline = true,
                Some(Begun::Help) => reason = QueueReason::Offload,
                None => (),
            }
        }
        let bound = match inner.binding.as_ref() {
            Some(binding) => {
                inline &= binding.serves_here(&rq).is_some();
                true
            }
            None => false,
        };
        if bound {
            let reason = (!inline).then_some(reason);
            if let Err(rq) = inner.offer(id, rq, depth, reason) {
                let reason = reason.unwrap_or(QueueReason::New);
                drop(inner);
                id = self.make_room(id, rq, depth, reason, queues);
                inner = self.slots.inner.lock();
            }
        } else {
            drop(inner);
            rq.finish(Status::IOERR);
            inner = self.slots.inner.lock();
        }
        let before = core::mem::replace(&mut inner.batch, (!last).then_some(id));
        if let Some(before) = before.filter(|before| *before != id) {
            inner.schedule(before, queues);
        }
        if last && inner.can_issue_batch(id, len) {
            // What the worker has does not wait until this task has issued its own.
            inner.schedule_pending(id, queues);
            drop(inner);
            self.issue_batch(id, depth, queues);
        } else if last {
            inner.schedule(id, queues);
        }
    }

    /// Ends a batch of which the last request is not known.
    pub(crate) fn commit(self: ArcBorrow<'_, Self>) {
        let Some(queues) = self.queues.as_ref() else {
            return;
        };
        let mut inner = self.slots.inner.lock();
        if let Some(id) = inner.batch.take() {
            inner.schedule(id, queues);
        }
    }

    /// Issues the requests of the current task's batch in a slot inline. The task has dispatched all
    /// of them. May sleep.
    fn issue_batch(self: ArcBorrow<'_, Self>, id: SlotId, depth: u32, queues: &Queues) {
        loop {
            let mut inner = self.slots.inner.lock();
            let Some(mut rq) = inner.next_of_batch(id) else {
                return inner.schedule_pending(id, queues);
            };
            let reason = match inner.begin_inline(id, &mut rq, depth, false) {
                Some(Begun::Here(here)) => {
                    drop(inner);
                    match self.issue_inline(id, here, rq) {
                        Some(back) => rq = back,
                        None => continue,
                    }
                    inner = self.slots.inner.lock();
                    QueueReason::InlineEagain
                }
                Some(Begun::Help) => QueueReason::Offload,
                Some(Begun::Batch) | None => QueueReason::New,
            };
            if let Err(rq) = inner.offer(id, rq, depth, Some(reason)) {
                drop(inner);
                let other = self.detach(rq, reason);
                inner = self.slots.inner.lock();
                if other != id {
                    inner.schedule(other, queues);
                }
            }
            // The worker need not wait for the end of the batch.
            if reason != QueueReason::InlineEagain {
                inner.schedule_pending(id, queues);
            }
        }
    }

    /// Issues a request inline; gives it back if it would block. May sleep.
    fn issue_inline(
        &self,
        id: SlotId,
        here: Here,
        rq: Request<LoopOps>,
    ) -> Option<Request<LoopOps>> {
        let (rq, slept) = dispatch::issue_inline(here, rq);
        if slept {
            // For a while it is not worth the risk.
            self.slots.inner.lock().back_off(id, NOWAIT_BACKOFF);
        }
        let mut rq = rq?;
        rq.data_mut().kept.uncharge();
        rq.data_mut().tried = false;
        Some(rq)
    }

    /// Adds a request to a slot that may keep no more tags: another slot that holds many may give
    /// up one of a request that is not in service, or the request is detached. Returns the slot.
    fn make_room(
        self: ArcBorrow<'_, Self>,
        mut id: SlotId,
        rq: Request<LoopOps>,
        depth: u32,
        reason: QueueReason,
        queues: &Queues,
    ) -> SlotId {
        let mut inner = self.slots.inner.lock();
        let rq = match inner.take_from_another(id) {
            Some((theirs, their_reason)) => {
                drop(inner);
                let other = self.detach(theirs, their_reason);
                inner = self.slots.inner.lock();
                inner.schedule(other, queues);
                id = self.find_slot(&mut inner, rq.op(), rq.blkcg());
                inner.offer(id, rq, depth, Some(reason)).err()
            }
            None => Some(rq),
        };
        drop(inner);
        match rq {
            Some(rq) => self.detach(rq, reason),
            None => id,
        }
    }

    /// Detaches the bios of a request, or adds the request to its slot as it is if that is
    /// impossible; returns the slot. To free a request may take all kinds of locks: none is held.
    fn detach(self: ArcBorrow<'_, Self>, mut rq: Request<LoopOps>, reason: QueueReason) -> SlotId {
        rq.data_mut().kept.uncharge();
        {
            let mut inner = self.slots.inner.lock();
            let id = self.find_slot(&mut inner, rq.op(), rq.blkcg());
            inner.count(id, &rq, reason);
        }
        let detached = rq.detach();
        let mut inner = self.slots.inner.lock();
        match detached {
            Ok(bios) => {
                let id = self.find_slot(&mut inner, Op::Other, bios.blkcg());
                inner.push_detached(id, bios, reason);
                id
            }
            Err(rq) => {
                let id = self.find_slot(&mut inner, rq.op(), rq.blkcg());
                if let Some((slot, shared)) = inner.slot(id) {
                    // It was counted above.
                    slot.push_anyway(rq, shared, QueueReason::Reclaimed);
                }
                id
            }
        }
    }

    /// Has what is left of detached bios served. Any context.
    pub(crate) fn resubmit(
        self: ArcBorrow<'_, Self>,
        slot: Option<SlotId>,
        io: DetachedIo<LoopOps>,
    ) {
        let Some(queues) = self.queues.as_ref() else {
            return io.finish(Status::IOERR);
        };
        let mut inner = self.slots.inner.lock();
        // That of its cgroup can have been made since.
        let id = slot.unwrap_or_else(|| self.find_slot(&mut inner, io.op(), io.blkcg()));
        inner.push_resubmit(id, io);
        inner.schedule(id, queues);
    }

    /// Returns the slot for the I/O of a cgroup: its own, made now if need be, or the root's when
    /// there is no memory for that.
    #[inline(always)]
    fn find_slot(
        self: ArcBorrow<'_, Self>,
        inner: &mut Inner,
        op: Op,
        css: Option<&Css<Io>>,
    ) -> SlotId {
        if op == Op::Flush {
            return SlotId::Flush;
        }
        let Some(css) = css.filter(|css| !css.is_root()) else {
            return SlotId::Root;
        };
        self.find_slot_of(inner, css.id(), Some(css))
    }

    /// The same for the cgroup whose io css has this `id`.
    fn find_slot_of(
        self: ArcBorrow<'_, Self>,
        inner: &mut Inner,
        id: usize,
        css: Option<&Css<Io>>,
    ) -> SlotId {
        if let Entry::Vacant(vacant) = inner.tree.entry(id) {
            let flags = GFP_NOWAIT | __GFP_NOWARN;
            let made = RBTreeNodeReservation::new(flags).and_then(|reservation| {
                let css = css.map(ARef::from);
                let worker = Worker::new(self.into(), SlotId::Css(id), css, flags)?;
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
        self.slots.inner.lock().report_slot(after)
    }

    /// Returns what is to be told of all slots together, those that were reaped included.
    pub(crate) fn report(&self) -> Report {
        let done = self.detached_done.load(Relaxed);
        self.slots.inner.lock().shared.report(done)
    }

    /// Has the limit dropped that let a request through which the backing file does not support.
    ///
    /// Limits change under a lock whose holders wait for requests, so not from within one. When there
    /// is no memory to do it later, the next such request tries again.
    pub(crate) fn drop_limit<W: dispatch::Work>(self: &Arc<Self>, rq: &W) {
        let Some(queues) = self.queues.as_ref() else {
            return;
        };
        // One at a time.
        if self.dropping.xchg(1, Full) != 0 {
            return;
        }
        let (pool, disk, op) = (self.clone(), ARef::from(rq.disk()), rq.op());
        let binds = pool.slots.inner.lock().binds;
        let _noio = task::NoioScope::enter();
        let spawned = queues.shared.try_spawn(GFP_KERNEL, move || {
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
        if let Some(queues) = self.queues.as_ref() {
            queues.cgroups.drain();
            queues.shared.drain();
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

/// How many requests that must not block are left to the worker after one that was issued inline
/// blocked.
const NOWAIT_BACKOFF: u32 = 256;

/// How many detached I/Os of a cgroup are in service at a time: with the tags that a cgroup alone may
/// keep as many as the default depth of a device.
const SERVICE_DEPTH: i32 = 64;

impl WorkItem for Pool {
    type Pointer = Arc<Self>;

    /// Waits until the queue is not frozen any more, and has all workers look at what is detached.
    fn run(this: Arc<Self>) {
        let disk = this.slots.inner.lock().frozen.take();
        let (Some(disk), Some(queues)) = (disk, this.queues.as_ref()) else {
            return;
        };
        disk.queue().wait_unfrozen();
        if disk.queue().is_dead() {
            // It stays frozen: they complete with an error.
            let all = this.slots.inner.lock().take_all_detached();
            drop(all);
        } else {
            this.slots.inner.lock().schedule_detached(queues);
        }
    }
}

/// Serves the requests of one slot.
#[pin_data]
pub(crate) struct Worker {
    #[pin]
    work: Work<Worker>,
    #[pin]
    links: ListLinks,
    #[pin]
    tracker: AtomicTracker,
    pool: Arc<Pool>,
    /// The slot that it is for.
    pub(crate) id: SlotId,
    /// The cgroup to charge; none for the root's slot, and that of flushes.
    pub(crate) css: Option<ARef<Css<Io>>>,
    /// How many detached I/Os are in service.
    in_service: Atomic<i32>,
    /// Not 0 if the worker left because these were too many.
    stalled: Atomic<i32>,
    /// How many detached I/Os have completed.
    detached_done: Atomic<u32>,
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
                in_service: Atomic::new(0),
                stalled: Atomic::new(0),
                detached_done: Atomic::new(0),
            }),
            flags,
        )
    }

    /// How many more detached I/Os may be in service.
    pub(crate) fn may_serve(&self) -> u32 {
        let free = SERVICE_DEPTH.saturating_sub(self.in_service.load(Relaxed));
        u32::try_from(free).unwrap_or(0)
    }

    /// How many detached I/Os have completed.
    pub(crate) fn detached_done(&self) -> u32 {
        self.detached_done.load(Relaxed)
    }

    /// Notes that a detached I/O completes.
    pub(crate) fn note_detached_done(&self) {
        self.detached_done.fetch_add(1, Relaxed);
        self.pool.detached_done.fetch_add(1, Relaxed);
    }

    /// Leaves the worker until a detached I/O has completed, or its slot is scheduled; false if one has
    /// completed already. `stalled` was set under the lock of the slots.
    fn stall(&self) -> bool {
        // Ordered against the completion, which counts down first and looks at `stalled` then.
        self.in_service.fetch_add(0, Full) >= SERVICE_DEPTH || !self.end_stall()
    }

    /// Ends the worker's stall; false if it is not stalled, or somebody else has ended that.
    pub(crate) fn end_stall(&self) -> bool {
        self.stalled.load(Relaxed) != 0 && self.stalled.xchg(0, Full) != 0
    }

    /// Takes what waits in the slot, and what to serve it from. `None` if there is nothing, and the
    /// slot is idle from then on; or if it is to be served later, and somebody will see to that.
    fn take(self: &Arc<Self>) -> Option<Batch> {
        loop {
            let mut inner = self.pool.slots.inner.lock();
            let reads_together = inner.binding.as_ref().is_some_and(|b| b.attempts());
            let (slot, shared) = inner.slot(self.id)?;
            match slot.take(shared, reads_together) {
                Found::Work(taken) => {
                    return Some(Batch {
                        taken,
                        binding: inner.binding.clone(),
                    })
                }
                Found::Full => {
                    self.stalled.store(1, Relaxed);
                    drop(inner);
                    if self.stall() {
                        return None;
                    }
                }
                Found::Frozen(disk) => {
                    slot.scheduled = false;
                    let disk = inner.frozen.replace(disk);
                    drop(inner);
                    // The queue of a device that has bios in flight is not the last to hold it.
                    drop(disk);
                    if let Some(queues) = self.pool.queues.as_ref() {
                        let _ = queues.shared.enqueue(self.pool.clone());
                    }
                    return None;
                }
                Found::Nothing => {
                    let now = JiffiesInstant::now();
                    slot.scheduled = false;
                    slot.own = false;
                    slot.idle_since = now;
                    if matches!(self.id, SlotId::Css(_)) {
                        if let Ok(listed) = ListArc::try_from_arc(self.clone()) {
                            slot.listed_since = now;
                            inner.idle.push_back(listed);
                        }
                        self.pool.reaper.reduce(now.after(self.pool.timeout));
                    }
                    return None;
                }
            }
        }
    }
}

/// A detached I/O in service, counted until this is dropped.
pub(crate) struct Service(Arc<Worker>);

impl Service {
    pub(crate) fn begin(worker: &Arc<Worker>) -> Self {
        worker.in_service.fetch_add(1, Relaxed);
        Self(worker.clone())
    }

    /// The slot whose worker serves it.
    pub(crate) fn slot(&self) -> SlotId {
        self.0.id
    }

    /// Notes that the I/O completes.
    pub(crate) fn completes(&self) {
        self.0.note_detached_done();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.0.in_service.fetch_sub(1, Full);
        if self.0.end_stall() {
            if let Some(queues) = self.0.pool.queues.as_ref() {
                let _ = queues.of(self.0.id).enqueue(self.0.clone());
            }
        }
    }
}

/// How many reads, of how many bytes, wait for the disk together: what they read ahead must still be
/// there when their turn comes, in a small cgroup too.
const TOGETHER: u32 = slots::READS_AT_A_TIME;
const TOGETHER_BYTES: usize = 4 << 20;

/// What a worker takes at a time.
struct Batch {
    taken: Taken,
    binding: Option<Arc<Binding>>,
}

impl Worker {
    /// Serves what is on a list; with the `last` of it the worker lets go of what it is served
    /// from: when the last request has ended, nothing here may hold the file.
    fn serve<L>(
        self: &Arc<Self>,
        mut list: L,
        binding: &mut Option<Arc<Binding>>,
        last: bool,
        memcg: Option<&Css<Memory>>,
    ) where
        L: IoList<Io: dispatch::Work>,
    {
        let blkcg = self.css.as_deref();
        while !list.is_empty() {
            let mut some = L::default();
            if binding.as_deref().is_some_and(|binding| binding.attempts()) {
                let mut bytes: usize = 0;
                for _ in 0..TOGETHER {
                    if bytes >= TOGETHER_BYTES {
                        break;
                    }
                    let Some(io) = list.pop_front() else { break };
                    bytes = bytes.saturating_add(io.len());
                    // There is nothing for the last one to wait together with.
                    let together = io.op() == Op::Read && !list.is_empty();
                    let io = match binding.as_deref().filter(|_| together) {
                        Some(binding) => dispatch::attempt(self, binding, io, blkcg, memcg),
                        None => Some(io),
                    };
                    if let Some(io) = io {
                        some.push_back(io);
                    }
                    task::cond_resched();
                }
            } else {
                core::mem::swap(&mut some, &mut list);
            }
            while let Some(io) = some.pop_front() {
                let binding = match last && some.is_empty() && list.is_empty() {
                    true => binding.take().map(Lent::Given),
                    false => binding.as_deref().map(Lent::Kept),
                };
                match binding {
                    Some(binding) => dispatch::serve(self, binding, io, blkcg, memcg),
                    None => dispatch::refuse(self, io),
                }
                task::cond_resched();
            }
        }
    }

    /// The pool that the worker's slot is of.
    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }
}

impl WorkItem for Worker {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let _writeback = WritebackScope::enter();
        while let Some(mut batch) = this.take() {
            let memcg = this.css.as_deref().map(|css| css.effective_memory());
            let memcg = memcg.as_deref();
            let Taken { requests, detached } = batch.taken;
            let alone = detached.is_empty();
            this.serve(requests, &mut batch.binding, alone, memcg);
            this.serve(detached, &mut batch.binding, true, memcg);
        }
    }
}

#[cfg(CONFIG_KUNIT = "y")]
mod tests;
