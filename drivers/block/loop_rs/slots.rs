// SPDX-License-Identifier: GPL-2.0

//! Where requests wait to be served.
//!
//! A device's requests wait in slots: one for each cgroup that has I/O on the device, found through
//! a tree by the cgroup's io css; one for the root cgroup, which also takes the requests for which
//! there is no memory to make a slot; and one for flushes.
//!
//! A slot has three lists. `batch` has requests of one task, which is going to issue them inline as
//! soon as it has dispatched the last request of its batch: until then it holds requests that others
//! may wait for, and must not sleep. `pending` has requests for the slot's worker. `detached` has bios
//! without a tag, which come after what is pending.
//!
//! `batch` is not left behind: its task issues from it with the last request that it dispatches, or
//! leaves it to the worker, as does whoever schedules the slot.
//!
//! A slot is scheduled from when its worker is queued until the worker has found it empty. A slot
//! that is not scheduled, and empty, is idle, and its worker is on the idle list; after a while the
//! reaper takes it out of the tree, and with it the reference to the css. All of that is under one
//! lock, so there is no moment at which a request can be put in a slot that is going away; and as
//! what is queued holds its worker on its own, not even a mistake in that would use freed memory.

use crate::{
    backing::{Binding, Here, Source},
    device::LoopOps,
    policy::{
        offload::{OffloadPolicy, Target, WorkerState},
        tags::{self, TagCounter},
    },
    stats::{Counts, Report, SlotReport},
    worker::Worker,
};
use kernel::{
    list::{List, ListArc},
    prelude::*,
    rbtree::RBTree,
    sync::{aref::ARef, new_spinlock_irq, Arc, SpinLockIrq},
    time::Jiffies,
};
use kernel_ext::{
    block::{
        mq::{
            Detached, DetachedBios, DetachedIo, EnteredBios, IoList, Op, Request, Transfer,
            TransferList,
        },
        GenDisk,
    },
    task,
    time::JiffiesInstant,
    timer::Callback,
    workqueue::OwnedQueue,
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

/// The requests and detached bios of one cgroup.
///
/// What each request changes, also when it does not have to wait, is in two cache lines.
#[repr(C, align(64))]
pub(crate) struct Slot {
    pending: TransferList<Request<LoopOps>>,
    /// The tags of what is in `pending` or `batch`, or in service.
    pub(crate) tags: TagCounter,
    /// Chooses between inline issue and the worker.
    offload: OffloadPolicy,
    /// When the worker last had nothing to do.
    pub(crate) idle_since: JiffiesInstant,
    /// The worker is queued, or running and going to look at the lists again, or
    /// [stalled](Worker::stall).
    pub(crate) scheduled: bool,
    /// Since then the worker got more to do than to help.
    pub(crate) own: bool,
    /// A request that cannot be detached may have been put in `pending` after what is in `detached`.
    overtaken: bool,
    counts: Counts,
    /// How many requests were put in `pending` or `detached`, and how many of them the worker took.
    received: u64,
    taken: u64,
    batch: TransferList<Request<LoopOps>>,
    /// The task whose requests are in `batch`, and how many were added.
    batch_task: usize,
    batch_len: u32,
    /// Some of them are not read ahead.
    batch_wanted: bool,
    /// How many more requests that must not block are left to the worker, as one issued inline did.
    nowait_backoff: u32,
    /// What is left of detached bios that were served in part. They stay in the queue, so that all of
    /// them are served from one place in one file.
    resubmit: EnteredBios<LoopOps>,
    detached: DetachedBios<LoopOps>,
    pub(crate) worker: Arc<Worker>,
    /// `idle_since` of when the worker was put on the idle list.
    pub(crate) listed_since: JiffiesInstant,
}

/// What a worker takes at a time.
pub(crate) struct Taken {
    pub(crate) requests: TransferList<Request<LoopOps>>,
    /// Come after the requests.
    pub(crate) detached: EnteredBios<LoopOps>,
}

/// What a worker finds.
pub(crate) enum Found {
    Work(Taken),
    /// Nothing: the slot is idle.
    Nothing,
    /// Detached bios, while the queue of this disk is frozen.
    Frozen(ARef<GenDisk<LoopOps>>),
    /// Detached bios, while as many are in service as may be.
    Full,
}

impl Slot {
    pub(crate) fn new(
        worker: Arc<Worker>,
        shared: &Shared,
        flags: kernel::alloc::Flags,
    ) -> Result<Self> {
        Ok(Self {
            worker,
            pending: TransferList::new(),
            batch: TransferList::new(),
            batch_task: 0,
            batch_len: 0,
            batch_wanted: false,
            nowait_backoff: 0,
            resubmit: EnteredBios::new(),
            detached: DetachedBios::new(),
            overtaken: false,
            tags: TagCounter::new(Some(&shared.tags), flags)?,
            counts: Counts::default(),
            received: 0,
            taken: 0,
            offload: OffloadPolicy::new(),
            scheduled: false,
            own: false,
            idle_since: JiffiesInstant::now(),
            listed_since: JiffiesInstant::now(),
        })
    }

    /// Whether nothing waits.
    fn is_empty(&self) -> bool {
        !self.has_own() && self.batch.is_empty()
    }

    /// Whether something waits for the worker.
    fn has_own(&self) -> bool {
        !self.pending.is_empty() || !self.resubmit.is_empty() || !self.detached.is_empty()
    }

    /// Whether nothing waits, and the worker is not going to look. A slot can have requests of a
    /// batch before its worker is scheduled.
    fn is_idle(&self) -> bool {
        !self.scheduled && self.is_empty()
    }

    /// How many requests were detached and have not completed.
    fn detached_in_flight(&self) -> u32 {
        (self.counts.parked as u32).wrapping_sub(self.worker.detached_done())
    }

    /// Adds a request for the worker, which keeps its tag.
    fn push(&mut self, mut rq: Request<LoopOps>, shared: &mut Shared, reason: QueueReason) {
        self.count(&rq, shared, reason);
        self.tags.charge(&mut shared.tags, &mut rq.data_mut().kept);
        self.pending.push_back(rq);
        self.received = self.received.wrapping_add(1);
    }

    /// Adds a request that cannot be detached.
    pub(crate) fn push_anyway(
        &mut self,
        rq: Request<LoopOps>,
        shared: &mut Shared,
        reason: QueueReason,
    ) {
        self.overtaken |= !self.detached.is_empty();
        self.push(rq, shared, reason);
    }

    /// Adds detached bios, which were counted when they were a request.
    fn push_detached(&mut self, bios: Detached<LoopOps>, shared: &mut Shared, reason: QueueReason) {
        self.own = true;
        for counts in [&mut self.counts, &mut shared.counts] {
            counts.parked = counts.parked.wrapping_add(1);
        }
        match reason {
            // It was submitted before those that are detached.
            QueueReason::Reclaimed => self.detached.push_front(bios),
            _ => self.detached.push_back(bios),
        }
        self.received = self.received.wrapping_add(1);
    }

    /// Adds what is left of detached bios that were served in part.
    fn push_resubmit(&mut self, io: DetachedIo<LoopOps>) {
        self.own = true;
        self.resubmit.push_back(io);
        self.received = self.received.wrapping_add(1);
    }

    /// Gives up a request that is not in service, with its tag, if the slot has more than `enough`
    /// tags: the last one.
    fn give_up(&mut self, enough: u32) -> Option<(Request<LoopOps>, QueueReason)> {
        if self.tags.get() <= enough {
            return None;
        }
        let (mut rq, reason) = match self.batch.pop_back() {
            Some(rq) => (rq, QueueReason::New),
            None => {
                let rq = self.pending.pop_back()?;
                self.received = self.received.wrapping_sub(1);
                (rq, QueueReason::Reclaimed)
            }
        };
        rq.data_mut().kept.uncharge();
        Some((rq, reason))
    }

    /// Counts a request that is left to the worker, and notes what it says of what the worker has to
    /// do.
    fn count<I: Transfer>(&mut self, io: &I, shared: &mut Shared, reason: QueueReason) {
        self.own |= reason != QueueReason::Offload;
        if reason == QueueReason::InlineEagain {
            self.offload.note_eagain();
        }
        for counts in [&mut self.counts, &mut shared.counts] {
            if matches!(reason, QueueReason::New | QueueReason::Offload) {
                counts.ask(io);
            }
            if reason != QueueReason::Reclaimed {
                counts.worker = counts.worker.wrapping_add(1);
            }
        }
    }

    fn has_batch_of(&self, task: usize) -> bool {
        self.batch_task == task && !self.batch.is_empty()
    }

    /// Leaves what is in `batch` to the worker.
    fn hand_over(&mut self, shared: &mut Shared) {
        while let Some(rq) = self.batch.pop_front() {
            self.push(rq, shared, QueueReason::New);
        }
    }

    /// Takes some of what waits. What the worker has taken, others cannot
    /// [take from it](Inner::take_from_another): not much of what may block, but as many reads as can
    /// wait together if they do not hold it up, as `reads_together` says.
    pub(crate) fn take(&mut self, shared: &mut Shared, reads_together: bool) -> Found {
        if !self.has_own() {
            // Submitters that issue from it share it with the worker.
            self.hand_over(shared);
        }
        if self.is_empty() {
            return Found::Nothing;
        }
        let mut taken = Taken {
            requests: TransferList::new(),
            detached: core::mem::take(&mut self.resubmit),
        };
        let mut n = taken.detached.nr_requests() as u32;
        while let Some(rq) = self.pending.pop_front() {
            n += 1;
            let more = match rq.op() {
                Op::Read if reads_together => n < READS_AT_A_TIME,
                _ => n < AT_A_TIME,
            };
            taken.requests.push_back(rq);
            if !more {
                break;
            }
        }
        let mut frozen = false;
        // Requests that cannot be detached come before what is detached, but not for ever.
        if self.pending.is_empty() || self.overtaken {
            let most = match reads_together {
                true => READS_AT_A_TIME,
                false => AT_A_TIME,
            };
            for _ in 0..most.min(self.worker.may_serve()) {
                let Some(bios) = self.detached.pop_front() else {
                    break;
                };
                match bios.enter() {
                    Ok(io) => taken.detached.push_back(io),
                    Err(bios) => {
                        frozen = true;
                        self.detached.push_front(bios);
                        break;
                    }
                }
                n += 1;
            }
            self.overtaken &= !self.detached.is_empty();
        }
        self.taken = self.taken.wrapping_add(n.into());
        if self.is_empty() {
            self.taken = self.received;
        }
        if n > 0 {
            return Found::Work(taken);
        }
        if !frozen {
            return Found::Full;
        }
        match self.detached.pop_front() {
            Some(bios) => {
                let disk = ARef::from(bios.disk());
                self.detached.push_front(bios);
                Found::Frozen(disk)
            }
            None => Found::Nothing,
        }
    }

    /// Has the worker look at what waits.
    fn schedule(&mut self, shared: &mut Shared, workqueue: &OwnedQueue) {
        self.hand_over(shared);
        self.wake(workqueue);
    }

    fn wake(&mut self, workqueue: &OwnedQueue) {
        let wake = match self.scheduled {
            false => self.has_own(),
            // Only what is detached waits for what is in service.
            true => {
                (!self.pending.is_empty() || !self.resubmit.is_empty()) && self.worker.end_stall()
            }
        };
        if wake {
            self.scheduled = true;
            // It can be queued already only if it has not looked yet.
            let _ = workqueue.enqueue(self.worker.clone());
        }
    }
}

/// How many requests a worker takes at a time, and how many reads that can wait together.
const AT_A_TIME: u32 = 4;
pub(crate) const READS_AT_A_TIME: u32 = 32;

/// How many slots are looked at for tags that another one needs more.
const LOOKED_AT: usize = 4;

/// Who serves a request that may be served where it is submitted.
pub(crate) enum Begun {
    /// Its submitter, from this.
    Here(Here),
    /// Its submitter, after the others of the batch.
    Batch,
    /// The worker, to help.
    Help,
}

/// Why a request is left to the worker.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueueReason {
    /// It cannot be issued inline.
    New,
    /// The worker is to help.
    Offload,
    /// It would have blocked when it was issued inline.
    InlineEagain,
    /// Another cgroup needs its tag.
    Reclaimed,
}

/// What a device's slots share.
#[repr(C)]
pub(crate) struct Shared {
    /// The tags that are held.
    pub(crate) tags: TagCounter,
    counts: Counts,
    /// How many requests went to the root's slot because there was no memory for one.
    pub(crate) fallbacks: u64,
}

impl Shared {
    /// What is to be told of all slots together.
    pub(crate) fn report(&self, detached_done: u32) -> Report {
        Report {
            tags: self.tags.get(),
            parking: (self.counts.parked as u32).wrapping_sub(detached_done),
            counts: self.counts,
        }
    }
}

/// What the lock protects. What each request changes comes first, next to the lock.
#[repr(C)]
pub(crate) struct Inner {
    /// A slot that got requests and is scheduled with the last one of the batch that is dispatched.
    pub(crate) batch: Option<SlotId>,
    /// What requests are served from.
    pub(crate) binding: Option<Arc<Binding>>,
    pub(crate) shared: Shared,
    /// The root cgroup's slot; there from when the device is first bound.
    pub(crate) root: Option<KBox<Slot>>,
    /// That of flushes; there as the root's.
    pub(crate) flush: Option<KBox<Slot>>,
    pub(crate) tree: RBTree<usize, Slot>,
    /// The workers of slots in the tree that have been idle, the longest first.
    pub(crate) idle: List<Worker>,
    /// How many times `binding` was replaced.
    pub(crate) binds: u32,
    /// The disk whose queue was found frozen.
    pub(crate) frozen: Option<ARef<GenDisk<LoopOps>>>,
    /// The css id from which on the next search for tags starts.
    reclaim_cursor: usize,
}

/// The slots, apart from what the reaper does not need: it must not keep the timer from going.
#[pin_data]
pub(crate) struct Slots {
    #[pin]
    pub(crate) inner: SpinLockIrq<Inner>,
}

impl Slots {
    /// No slots yet. May sleep.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let shared = Shared {
            tags: TagCounter::new(None, GFP_KERNEL)?,
            counts: Counts::default(),
            fallbacks: 0,
        };
        Arc::pin_init(
            pin_init!(Self {
                inner <- new_spinlock_irq!(
                    Inner {
                        binding: None,
                        binds: 0,
                        frozen: None,
                        root: None,
                        flush: None,
                        tree: RBTree::new(),
                        idle: List::new(),
                        batch: None,
                        reclaim_cursor: 0,
                        shared,
                    },
                    "lo_work_lock"
                ),
            }),
            GFP_KERNEL,
        )
    }
}

/// Takes out the slots that have been idle for long enough.
pub(crate) struct Reaper {
    pub(crate) slots: Arc<Slots>,
    pub(crate) timeout: Jiffies,
}

/// What the reaper finds.
pub(crate) enum Reaped {
    /// A slot that has been idle for long enough, taken out.
    Slot(Slot),
    /// Nothing before then.
    Later(JiffiesInstant),
    /// No slot is idle.
    Nothing,
}

impl Reaper {
    pub(crate) fn reap(&self) -> Reaped {
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
            } else if slot.tags.get() > 0 || slot.detached_in_flight() > 0 {
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

impl Inner {
    /// What is to be told of the first slot after `after`, the root's and that of flushes being the
    /// first of all.
    pub(crate) fn report_slot(&self, after: Option<SlotId>) -> Option<SlotReport> {
        let slot = match after {
            None => self.root.as_deref()?,
            Some(SlotId::Root) => self.flush.as_deref()?,
            Some(after) => {
                let next = match after {
                    SlotId::Css(css) => css.checked_add(1)?,
                    _ => 0,
                };
                let css = *self.tree.cursor_lower_bound(&next)?.current().0;
                self.tree.get(&css)?
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
                parking: slot.detached_in_flight(),
                counts: slot.counts,
            },
            fallbacks: self.shared.fallbacks,
        })
    }

    /// A slot, and what it shares.
    pub(crate) fn slot(&mut self, id: SlotId) -> Option<(&mut Slot, &mut Shared)> {
        let slot = match id {
            SlotId::Css(css) => self.tree.get_mut(&css),
            SlotId::Root => self.root.as_deref_mut(),
            SlotId::Flush => self.flush.as_deref_mut(),
        };
        slot.map(|slot| (slot, &mut self.shared))
    }

    /// Decides whether a request that may be issued inline is, as [`OffloadPolicy`] has it; `None` when it
    /// is for the worker: the file cannot, or it could be in flight after that and may not keep its
    /// tag. One that is `alone` was not taken from the slot's batch.
    #[inline(always)]
    pub(crate) fn begin_inline(
        &mut self,
        id: SlotId,
        rq: &mut Request<LoopOps>,
        depth: u32,
        alone: bool,
    ) -> Option<Begun> {
        let source = self.binding.as_ref()?.serves_here(rq)?;
        let (slot, shared) = self.slot(id)?;
        if alone && slot.has_batch_of(task::current_id()) {
            return Some(Begun::Batch);
        }
        // A cached read takes nothing from what is detached.
        if source == Source::File && !slot.detached.is_empty() {
            return None;
        }
        let has = if !slot.scheduled && !slot.has_own() {
            WorkerState::Idle
        } else if slot.own {
            WorkerState::Blocking
        } else {
            WorkerState::Offloading(slot.received.wrapping_sub(slot.taken))
        };
        match slot.offload.next(has, slot.tags.get()) {
            Target::Submitter => (),
            Target::Offload => return Some(Begun::Help),
            Target::Worker => return None,
        }
        // A cached one completes right here.
        if source == Source::File && !rq.data_mut().kept.is_charged() {
            if !tags::may_hold(slot.tags.get(), shared.tags.get(), depth) {
                return None;
            }
            slot.tags.charge(&mut shared.tags, &mut rq.data_mut().kept);
        }
        slot.counts.ask(rq);
        shared.counts.ask(rq);
        slot.idle_since = JiffiesInstant::now();
        Some(Begun::Here(self.binding.as_ref()?.lend_here(source)))
    }

    /// Whether a request that must not block is left to the worker, as one issued inline did lately.
    pub(crate) fn backs_off(&mut self, id: SlotId) -> bool {
        let Some((slot, _)) = self.slot(id).filter(|(slot, _)| slot.nowait_backoff > 0) else {
            return false;
        };
        slot.nowait_backoff -= 1;
        true
    }

    /// Leaves so many requests that must not block to the worker.
    pub(crate) fn back_off(&mut self, id: SlotId, requests: u32) {
        if let Some((slot, _)) = self.slot(id) {
            slot.nowait_backoff = requests;
        }
    }

    /// Whether a slot has a batch of the current task's, and the task may issue it inline now. The `last`
    /// request of it has so many bytes.
    pub(crate) fn can_issue_batch(&mut self, id: SlotId, last: usize) -> bool {
        self.slot(id).is_some_and(|(slot, _)| {
            slot.has_batch_of(task::current_id())
                && task::holds_no_requests(slot.batch_len, last)
                && task::can_issue_fs_io(!slot.batch_wanted)
                && !task::has_file_size_limit()
        })
    }

    /// Removes the first request of a slot's batch, if that is the current task's.
    pub(crate) fn next_of_batch(&mut self, id: SlotId) -> Option<Request<LoopOps>> {
        let (slot, _) = self.slot(id)?;
        match slot.has_batch_of(task::current_id()) {
            true => slot.batch.pop_front(),
            false => None,
        }
    }

    /// Adds a request to a slot, if the slot may keep another tag of the `depth` that the device
    /// has; gives it back otherwise. Without a `reason` to leave it to the worker it is added to the
    /// current task's batch, if no other task has one there.
    pub(crate) fn offer(
        &mut self,
        id: SlotId,
        mut rq: Request<LoopOps>,
        depth: u32,
        reason: Option<QueueReason>,
    ) -> Result<(), Request<LoopOps>> {
        let Some((slot, shared)) = self.slot(id) else {
            return Err(rq);
        };
        // What waits already comes first.
        if !slot.detached.is_empty() || !tags::may_hold(slot.tags.get(), shared.tags.get(), depth) {
            return Err(rq);
        }
        match reason {
            Some(reason) => slot.push(rq, shared, reason),
            None if slot.batch.is_empty() || slot.has_batch_of(task::current_id()) => {
                let first = slot.batch.is_empty();
                slot.batch_task = task::current_id();
                slot.batch_len = match first {
                    true => 1,
                    false => slot.batch_len.saturating_add(1),
                };
                slot.batch_wanted = !rq.is_readahead() || slot.batch_wanted && !first;
                slot.tags.charge(&mut shared.tags, &mut rq.data_mut().kept);
                slot.batch.push_back(rq);
            }
            None => slot.push(rq, shared, QueueReason::New),
        }
        Ok(())
    }

    /// Counts a request that is going to be detached.
    pub(crate) fn count(&mut self, id: SlotId, rq: &Request<LoopOps>, reason: QueueReason) {
        if let Some((slot, shared)) = self.slot(id) {
            slot.count(rq, shared, reason);
        }
    }

    /// Takes from another slot a request that is not in service, if that slot holds more than twice as
    /// many tags as this one; not for a slot that has detached bios, which would not keep the tag.
    /// Looks at a few slots, at others the next time.
    pub(crate) fn take_from_another(
        &mut self,
        id: SlotId,
    ) -> Option<(Request<LoopOps>, QueueReason)> {
        let (slot, _) = self.slot(id).filter(|(slot, _)| slot.detached.is_empty())?;
        let enough = tags::reclaim_threshold(slot.tags.get());
        if let Some(root) = &mut self.root {
            if let Some(rq) = root.give_up(enough) {
                return Some(rq);
            }
        }
        for _ in 0..LOOKED_AT {
            let mut cursor = match self.tree.cursor_lower_bound_mut(&self.reclaim_cursor) {
                Some(cursor) => cursor,
                None => {
                    self.reclaim_cursor = 0;
                    return None;
                }
            };
            let (css, other) = cursor.current_mut();
            let css = *css;
            if let Some(rq) = other.give_up(enough) {
                return Some(rq);
            }
            self.reclaim_cursor = css.checked_add(1)?;
        }
        None
    }

    /// Adds detached bios to a slot.
    pub(crate) fn push_detached(
        &mut self,
        id: SlotId,
        bios: Detached<LoopOps>,
        reason: QueueReason,
    ) {
        if let Some((slot, shared)) = self.slot(id) {
            slot.push_detached(bios, shared, reason);
        }
    }

    /// Adds what is left of detached bios to a slot.
    pub(crate) fn push_resubmit(&mut self, id: SlotId, io: DetachedIo<LoopOps>) {
        if let Some((slot, _)) = self.slot(id) {
            slot.push_resubmit(io);
        }
    }

    /// Has a slot's worker look at what waits.
    pub(crate) fn schedule(&mut self, id: SlotId, queues: &Queues) {
        if let Some((slot, shared)) = self.slot(id) {
            slot.schedule(shared, queues.of(id));
        }
    }

    /// As [`schedule`](Self::schedule), with the slot's batch left to the submitter.
    pub(crate) fn schedule_pending(&mut self, id: SlotId, queues: &Queues) {
        if let Some((slot, _)) = self.slot(id) {
            slot.wake(queues.of(id));
        }
    }

    /// Has the workers of all slots look that have detached bios.
    pub(crate) fn schedule_detached(&mut self, queues: &Queues) {
        self.for_each_slot(|id, slot| {
            if !slot.detached.is_empty() {
                slot.wake(queues.of(id));
            }
        });
    }

    /// Takes all bios that are detached.
    pub(crate) fn take_all_detached(&mut self) -> DetachedBios<LoopOps> {
        let mut all = DetachedBios::new();
        self.for_each_slot(|_, slot| {
            while let Some(bios) = slot.detached.pop_front() {
                slot.taken = slot.taken.wrapping_add(1);
                slot.worker.note_detached_done();
                all.push_back(bios);
            }
        });
        all
    }

    fn for_each_slot(&mut self, mut f: impl FnMut(SlotId, &mut Slot)) {
        if let Some(root) = &mut self.root {
            f(SlotId::Root, root);
        }
        for (css, slot) in self.tree.iter_mut() {
            f(SlotId::Css(*css), slot);
        }
    }
}

/// The workqueues of a device.
///
/// The root's worker and that of flushes have a workqueue of their own, so that they run however many
/// cgroups' workers are blocked. Of these as many run as a workqueue can have, 2,048.
pub(crate) struct Queues {
    pub(crate) cgroups: OwnedQueue,
    pub(crate) shared: OwnedQueue,
}

impl Queues {
    /// The one that a slot's worker runs on.
    pub(crate) fn of(&self, id: SlotId) -> &OwnedQueue {
        match id {
            SlotId::Css(_) => &self.cgroups,
            SlotId::Root | SlotId::Flush => &self.shared,
        }
    }
}
