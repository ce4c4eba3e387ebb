// SPDX-License-Identifier: GPL-2.0

//! Where requests wait for a worker.
//!
//! A device's requests wait in slots: one for each cgroup that has I/O on the device, found through
//! a tree by the cgroup's io css; one for the root cgroup, which also takes the requests for which
//! there is no memory to make a slot; and one for flushes.
//!
//! A slot is scheduled from when its worker is queued until the worker has found it empty. A slot
//! that is not scheduled, and empty, is idle, and its worker is on the idle list; after a while the
//! reaper takes it out of the tree, and with it the reference to the css. All of that is under one
//! lock, so there is no moment at which a request can be put in a slot that is going away; and as
//! what is queued holds its worker on its own, not even a mistake in that would use freed memory.

use crate::{
    backing::{Binding, Here, Source},
    device::LoopOps,
    spread::{By, Has, Spread},
    stats::{Counts, Report, SlotReport},
    tags::{self, Held},
    worker::Worker,
};
use kernel::{
    list::{List, ListArc},
    prelude::*,
    rbtree::RBTree,
    sync::{new_spinlock_irq, Arc, SpinLockIrq},
    time::Jiffies,
};
use kernel_ext::{
    block::mq::{Op, Parked, Request, Transfer, TransferList},
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

/// Requests that wait for a worker.
///
/// What each request changes, also when it does not have to wait, is in two cache lines.
#[repr(C, align(64))]
pub(crate) struct Slot {
    pending: TransferList<Request<LoopOps>>,
    /// What waits behind `pending`, without tags.
    parked: TransferList<Parked<LoopOps>>,
    /// The tags of what was put in `pending`.
    pub(crate) tags: Held,
    /// Whether the worker helps with what could be served where it is submitted.
    spread: Spread,
    /// When the worker last had nothing to do.
    pub(crate) idle_since: JiffiesInstant,
    /// The worker is queued, or running and going to look at `pending` again.
    pub(crate) scheduled: bool,
    /// The worker has more to do since then than to help.
    pub(crate) own: bool,
    /// Something may have been put in `pending` after what is in `parked`.
    overtaken: bool,
    counts: Counts,
    /// How many requests were put in `pending` or `parked`, and how many of them the worker took.
    received: u64,
    taken: u64,
    /// What was put in `parked` and has not ended.
    parking: Held,
    pub(crate) worker: Arc<Worker>,
    /// `idle_since` of when the worker was put on the idle list.
    pub(crate) listed_since: JiffiesInstant,
}

/// What waits in a slot: requests, and parked I/O, which comes after them.
pub(crate) struct Waiting {
    pub(crate) requests: TransferList<Request<LoopOps>>,
    pub(crate) parked: TransferList<Parked<LoopOps>>,
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
            parked: TransferList::new(),
            overtaken: false,
            tags: Held::new(Some(&shared.tags), flags)?,
            parking: Held::new(Some(&shared.parking), flags)?,
            counts: Counts::default(),
            received: 0,
            taken: 0,
            spread: Spread::new(),
            scheduled: false,
            own: false,
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
    pub(crate) fn push(&mut self, mut rq: Request<LoopOps>, shared: &mut Shared, past: Past) {
        self.count(&rq, shared, past);
        self.tags.keep(&mut shared.tags, &mut rq.data_mut().kept);
        self.pending.push_back(rq);
        self.received = self.received.wrapping_add(1);
    }

    /// Adds a request that could not be parked, whatever is.
    pub(crate) fn push_anyway(&mut self, rq: Request<LoopOps>, shared: &mut Shared, past: Past) {
        self.overtaken = true;
        self.push(rq, shared, past);
    }

    /// Adds parked I/O.
    pub(crate) fn push_parked(
        &mut self,
        mut parked: Parked<LoopOps>,
        shared: &mut Shared,
        past: Past,
    ) {
        self.count(&parked, shared, past);
        if past != Past::Again {
            for counts in [&mut self.counts, &mut shared.counts] {
                counts.parked = counts.parked.wrapping_add(1);
            }
        }
        self.parking
            .keep(&mut shared.parking, &mut parked.data_mut().kept);
        if self.parked.is_empty() {
            self.overtaken = false;
        }
        match past {
            // It came before what was parked.
            Past::Moved => self.parked.push_front(parked),
            _ => self.parked.push_back(parked),
        }
        self.received = self.received.wrapping_add(1);
    }

    /// Gives up a request that only waits, with its tag, when there are more than `enough` of them: the
    /// last, so that it's in its place in front of what is parked.
    fn give_up(&mut self, enough: u32) -> Option<Request<LoopOps>> {
        if self.tags.get() <= enough || self.parking.get() >= tags::MAX_PARKED {
            return None;
        }
        let mut rq = self.pending.pop_back()?;
        self.received = self.received.wrapping_sub(1);
        rq.data_mut().kept.give_back();
        Some(rq)
    }

    /// Counts I/O that is handed to the worker, and notes what it says of what the worker has to do.
    fn count<I: Transfer>(&mut self, io: &I, shared: &mut Shared, past: Past) {
        self.own |= past != Past::Help;
        if past == Past::Missed {
            self.spread.missed();
        }
        for counts in [&mut self.counts, &mut shared.counts] {
            if matches!(past, Past::New | Past::Help) {
                counts.ask(io);
            }
            if matches!(past, Past::New | Past::Help | Past::Missed) {
                counts.worker = counts.worker.wrapping_add(1);
            }
        }
    }

    /// Takes some of what waits; `None` when there is nothing. What the worker has taken, others can't
    /// [take from it](Inner::take_from_another): not much of what may turn out to be stuck, but as many
    /// reads as can wait together if they do not hold it up, as `reads_together` says.
    pub(crate) fn take(&mut self, reads_together: bool) -> Option<Waiting> {
        if self.is_empty() {
            return None;
        }
        let mut requests = TransferList::new();
        let mut n: u32 = 0;
        while let Some(rq) = self.pending.pop_front() {
            n += 1;
            let more = match rq.op() {
                Op::Read if reads_together => n < READS_AT_A_TIME,
                _ => n < AT_A_TIME,
            };
            requests.push_back(rq);
            if !more {
                break;
            }
        }
        let parked = if self.pending.is_empty() {
            self.parked.take()
        } else if !self.overtaken {
            TransferList::new()
        } else {
            // What can't be parked comes before what is, but not for ever.
            let mut some = TransferList::new();
            for _ in 0..AT_A_TIME {
                let Some(parked) = self.parked.pop_front() else {
                    break;
                };
                some.push_back(parked);
                n += 1;
            }
            some
        };
        self.taken = self.taken.wrapping_add(n.into());
        if self.is_empty() {
            self.taken = self.received;
        }
        Some(Waiting { requests, parked })
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

/// How many requests a worker takes at a time, and how many reads that can wait together.
const AT_A_TIME: u32 = 4;
pub(crate) const READS_AT_A_TIME: u32 = 32;

/// How many slots are looked at for tags that another one needs more.
const LOOKED_AT: usize = 4;

/// Who serves a request that may be served where it is submitted.
pub(crate) enum Begun {
    /// Its submitter, from this.
    Here(Here),
    /// The worker, to help.
    Help,
}

/// What became of I/O before it is handed to a worker.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Past {
    /// Nothing.
    New,
    /// The worker is to help with it.
    Help,
    /// It would have had to wait where it was submitted.
    Missed,
    /// Some of it was done.
    Again,
    /// It waited with a tag that another cgroup needs more.
    Moved,
}

/// What a device's slots share.
#[repr(C)]
pub(crate) struct Shared {
    /// The tags that are held.
    pub(crate) tags: Held,
    counts: Counts,
    /// What is parked.
    parking: Held,
    /// How many requests went to the root's slot because there was no memory for one.
    pub(crate) fallbacks: u64,
}

impl Shared {
    /// What is to be told of all slots together.
    pub(crate) fn report(&self) -> Report {
        Report {
            tags: self.tags.get(),
            parking: self.parking.get(),
            counts: self.counts,
        }
    }
}

/// What the lock protects. What each request changes comes first, next to the lock.
#[repr(C)]
pub(crate) struct Inner {
    /// A slot that got requests and is to be scheduled with the last one of the batch.
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
    /// The css id from which on it is looked for tags that others need more.
    ample: usize,
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
            tags: Held::new(None, GFP_KERNEL)?,
            parking: Held::new(None, GFP_KERNEL)?,
            counts: Counts::default(),
            fallbacks: 0,
        };
        Arc::pin_init(
            pin_init!(Self {
                inner <- new_spinlock_irq!(
                    Inner {
                        binding: None,
                        binds: 0,
                        root: None,
                        flush: None,
                        tree: RBTree::new(),
                        idle: List::new(),
                        batch: None,
                        ample: 0,
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
                parking: slot.parking.get(),
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

    /// Decides who serves a request that may be served where it is submitted, as [`Spread`] has it;
    /// `None` when it is for the worker alone: the file does not know how, or it could be in flight
    /// after that, and may not keep its tag.
    pub(crate) fn begin_here(
        &mut self,
        id: SlotId,
        rq: &mut Request<LoopOps>,
        depth: u32,
    ) -> Option<Begun> {
        let source = self.binding.as_ref()?.serves_here(rq)?;
        let (slot, shared) = self.slot(id)?;
        // What is over when it leaves here takes nothing from what is parked.
        if source == Source::File && !slot.parked.is_empty() {
            return None;
        }
        let has = if slot.is_idle() {
            Has::Nothing
        } else if slot.own {
            Has::Own
        } else {
            Has::Help(slot.received.wrapping_sub(slot.taken))
        };
        match slot.spread.next(has, slot.tags.get()) {
            By::Submitter => (),
            By::Help => return Some(Begun::Help),
            By::Worker => return None,
        }
        if source == Source::File {
            if !tags::may_keep(slot.tags.get(), shared.tags.get(), depth) {
                return None;
            }
            slot.tags.keep(&mut shared.tags, &mut rq.data_mut().kept);
        }
        slot.counts.ask(rq);
        shared.counts.ask(rq);
        slot.idle_since = JiffiesInstant::now();
        Some(Begun::Here(self.binding.as_ref()?.lend_here(source)))
    }

    /// Adds a request to a slot, if the slot may keep another tag of the `depth` that the device
    /// has; gives it back otherwise.
    pub(crate) fn offer(
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
        if !may_keep {
            if slot.parking.get() < tags::MAX_PARKED {
                return Err(rq);
            }
            slot.overtaken = true;
        }
        slot.push(rq, shared, past);
        Ok(())
    }

    /// Takes from another slot a request that only waits there, if that slot holds more than twice as
    /// many tags as this one; not for one that has something parked, which would not keep the tag.
    /// Looks at a few slots, at others the next time.
    pub(crate) fn take_from_another(&mut self, id: SlotId) -> Option<Request<LoopOps>> {
        let (slot, _) = self.slot(id).filter(|(slot, _)| slot.parked.is_empty())?;
        let enough = slot.tags.get().saturating_mul(2).saturating_add(1);
        if let Some(root) = &mut self.root {
            if let Some(rq) = root.give_up(enough) {
                return Some(rq);
            }
        }
        for _ in 0..LOOKED_AT {
            let mut cursor = match self.tree.cursor_lower_bound_mut(&self.ample) {
                Some(cursor) => cursor,
                None => {
                    self.ample = 0;
                    return None;
                }
            };
            let (css, other) = cursor.current_mut();
            let css = *css;
            if let Some(rq) = other.give_up(enough) {
                return Some(rq);
            }
            self.ample = css.checked_add(1)?;
        }
        None
    }

    /// Adds parked I/O to a slot.
    pub(crate) fn push_parked(&mut self, id: SlotId, parked: Parked<LoopOps>, past: Past) {
        if let Some((slot, shared)) = self.slot(id) {
            slot.push_parked(parked, shared, past);
        }
    }

    pub(crate) fn schedule(&mut self, id: SlotId, workqueue: &OwnedQueue) {
        if let Some((slot, _)) = self.slot(id) {
            slot.schedule(workqueue);
        }
    }
}
