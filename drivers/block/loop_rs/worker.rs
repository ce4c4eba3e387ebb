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
//! that is not scheduled is idle, and after a while the reaper takes it out of the tree, and with it
//! the reference to the css. All of that is under one lock, so there is no moment at which a request
//! can be put in a slot that is going away; and as what is queued holds its worker on its own, not
//! even a mistake in that would use freed memory.

use crate::{backing::Binding, device::LoopOps, dispatch, idle_worker_timeout_ms};
use kernel::{
    alloc::flags::__GFP_NOWARN,
    prelude::*,
    rbtree::{Entry, RBTree, RBTreeNodeReservation},
    sync::{aref::ARef, new_spinlock_irq, Arc, ArcBorrow, SetOnce, SpinLockIrq},
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

/// Which slot: that of a css, or the root's.
type SlotId = Option<usize>;

/// Requests that wait for a worker.
struct Slot {
    worker: Arc<Worker>,
    pending: RequestList<LoopOps>,
    /// The worker is queued, or running and going to look at `pending` again.
    scheduled: bool,
    /// When the worker last had nothing to do.
    idle_since: JiffiesInstant,
}

impl Slot {
    fn new(worker: Arc<Worker>) -> Self {
        Self {
            worker,
            pending: RequestList::new(),
            scheduled: false,
            idle_since: JiffiesInstant::now(),
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
    /// The root cgroup's slot; there from when the device is first bound.
    root: Option<Slot>,
    tree: RBTree<usize, Slot>,
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
        let mut next: Option<JiffiesInstant> = None;
        let mut inner = self.slots.inner.lock();
        let mut cursor = inner.tree.cursor_front_mut();
        while let Some(at) = cursor {
            let (_, slot) = at.current();
            let expires = slot.idle_since.after(self.timeout);
            cursor = if slot.scheduled || !slot.pending.is_empty() {
                at.move_next()
            } else if expires.has_passed() {
                // Goes on with the next slot, or looks at the one before again.
                at.remove_current().0
            } else {
                if next.is_none_or(|next| expires.is_before(next)) {
                    next = Some(expires);
                }
                at.move_next()
            };
        }
        next
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
                        root: None,
                        tree: RBTree::new(),
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
        core::mem::replace(&mut self.slots.inner.lock().binding, binding)
    }

    /// Waits until no worker holds a binding that was [replaced](Self::bind), after the last request
    /// that was served from it: who replaced it can then let go of the file for good. May sleep.
    pub(crate) fn flush(&self) {
        if let Some(workqueue) = self.workqueue.as_ref() {
            workqueue.flush();
        }
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
        if inner.binding.is_none() {
            drop(inner);
            return rq.end(Status::IOERR);
        }
        let id = self.find_slot(&mut inner, rq.blkcg());
        let Some(slot) = inner.slot(id) else {
            drop(inner);
            return rq.end(Status::IOERR);
        };
        slot.pending.push_back(rq);
        let before = inner.batch.take();
        if last {
            inner.schedule(id, workqueue);
        } else {
            inner.batch = Some(id);
        }
        if let Some(before) = before.filter(|before| *before != id) {
            inner.schedule(before, workqueue);
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
            let reservation = RBTreeNodeReservation::new(flags).ok()?;
            let worker = Worker::new(self.into(), Some(css.into()), flags).ok()?;
            vacant.insert(Slot::new(worker), reservation);
        }
        Some(id)
    }

    /// Runs a function in a worker's stead, if there is memory for that.
    pub(crate) fn spawn(&self, func: impl FnOnce() + Send + 'static) {
        if let Some(workqueue) = self.workqueue.as_ref() {
            let _noio = task::NoioScope::enter();
            let _ = workqueue.try_spawn(GFP_KERNEL, func);
        }
    }

    /// Takes all slots out, when there are no requests any more. May sleep.
    fn shut_down(&self) {
        if let Some(workqueue) = self.workqueue.as_ref() {
            workqueue.drain();
        }
        let (tree, root) = {
            let mut inner = self.slots.inner.lock();
            (core::mem::take(&mut inner.tree), inner.root.take())
        };
        drop((tree, root));
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
    pool: Arc<Pool>,
    /// The cgroup to charge; none for the root's slot.
    css: Option<ARef<Css<Io>>>,
}

impl_has_work! {
    impl HasWork<Self> for Worker { self.work }
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
                pool,
                css,
            }),
            flags,
        )
    }

    /// Takes what waits in the slot, and what to serve it from; `None` when there is nothing, and
    /// the slot is idle from then on.
    fn take(&self) -> Option<(RequestList<LoopOps>, Option<Arc<Binding>>)> {
        let mut inner = self.pool.slots.inner.lock();
        let id = self.css.as_ref().map(|css| css.id());
        let slot = inner.slot(id)?;
        if slot.pending.is_empty() {
            slot.scheduled = false;
            slot.idle_since = JiffiesInstant::now();
            return None;
        }
        let requests = slot.pending.take();
        Some((requests, inner.binding.clone()))
    }
}

impl WorkItem for Worker {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let _writeback = WritebackScope::enter();
        let blkcg = this.css.as_deref();
        while let Some((mut requests, binding)) = this.take() {
            let memcg = blkcg.map(|css| css.effective_memory());
            while let Some(rq) = requests.pop_front() {
                match &binding {
                    Some(binding) => {
                        dispatch::serve(&this.pool, binding, rq, blkcg, memcg.as_deref())
                    }
                    None => rq.end(Status::IOERR),
                }
                task::cond_resched();
            }
        }
        if blkcg.is_some() {
            let expires = JiffiesInstant::now().after(this.pool.timeout);
            this.pool.reaper.reduce(expires);
        }
    }
}
