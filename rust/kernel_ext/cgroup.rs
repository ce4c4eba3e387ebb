// SPDX-License-Identifier: GPL-2.0

//! Control groups, and charging I/O to them.
//!
//! C headers: [`include/linux/cgroup.h`](srctree/include/linux/cgroup.h),
//! [`include/linux/blk-cgroup.h`](srctree/include/linux/blk-cgroup.h),
//! [`include/linux/memcontrol.h`](srctree/include/linux/memcontrol.h)
//!
//! # Soundness
//!
//! | What safe code could try | What stops it |
//! | --- | --- |
//! | Keep a css after its I/O | It is borrowed; an `ARef` counts |
//! | Take one controller's css for another's | Its type says which; only `unsafe` makes one |
//! | Have a path written past the buffer | Its length is passed on; `E2BIG` |
//! | Follow the root's cgroup while its hierarchy is unmounted | The RCU lock is held |
//! | Leave a charge in place | It lasts for the call of a closure |
//! | Charge blkcgs within one another | Nothing; after the inner call, I/O is charged to the thread |
//! | Charge a blkcg in an interrupt | It has no effect |
//! | Throttle with a lock held | Nothing; the lock is held for as long, as in any allocation |

use crate::{bindings, sync::read_once, task};
use core::{marker::PhantomData, ptr::NonNull};
use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        aref::{ARef, AlwaysRefCounted},
        rcu,
    },
    task::Task,
    types::Opaque,
};

/// The io controller (blkcg).
pub enum Io {}

/// The memory controller (memcg).
pub enum Memory {}

/// The state of a controller in a cgroup.
///
/// Wraps the C `struct cgroup_subsys_state`.
///
/// # Invariants
///
/// The css belongs to the controller `S`, and its reference count is above zero for as long as
/// there is a reference to it.
#[repr(transparent)]
pub struct Css<S> {
    css: Opaque<bindings::cgroup_subsys_state>,
    _p: PhantomData<S>,
}

// SAFETY: A css is shared between tasks; the functions below do their own locking.
unsafe impl<S> Send for Css<S> {}
// SAFETY: As above.
unsafe impl<S> Sync for Css<S> {}

// SAFETY: `css_get` and `css_put` count references.
unsafe impl<S> AlwaysRefCounted for Css<S> {
    #[inline]
    fn inc_ref(&self) {
        // SAFETY: By the type invariant the css is alive.
        unsafe { bindings::css_get(self.as_raw()) }
    }

    #[inline]
    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The caller owns a reference and gives it up.
        unsafe { bindings::css_put(obj.as_ptr().cast()) }
    }
}

impl<S> Css<S> {
    /// Creates a reference from a raw pointer; `None` from null.
    ///
    /// # Safety
    ///
    /// If `ptr` is not null, the type invariants hold for it for `'a`.
    #[inline]
    pub(crate) unsafe fn from_raw<'a>(ptr: *mut bindings::cgroup_subsys_state) -> Option<&'a Self> {
        // SAFETY: By the requirements above, and `Self` is transparent.
        unsafe { ptr.cast::<Self>().as_ref() }
    }

    #[inline]
    fn as_raw(&self) -> *mut bindings::cgroup_subsys_state {
        self.css.get()
    }

    /// Returns the css's cgroup. The caller holds the RCU lock while it uses it.
    fn cgroup(&self) -> *mut bindings::cgroup {
        // SAFETY: By the type invariant the css is alive. `rebind_subsystems()` changes the field
        // in a root css.
        unsafe { read_once(&raw const (*self.as_raw()).cgroup) }
    }

    /// A number that no other css has while a reference to this one is held.
    #[inline]
    pub fn id(&self) -> usize {
        self.as_raw() as usize
    }

    /// The id of the css's cgroup, as user space has it: the inode number of its directory. Any
    /// context.
    ///
    /// Corresponds to the C function `cgroup_id`.
    pub fn cgroup_id(&self) -> u64 {
        let _rcu = rcu::read_lock();
        // SAFETY: As in `path` the cgroup is alive.
        unsafe { (*(*self.cgroup()).kn).id }
    }

    /// Writes the path of the css's cgroup in its hierarchy to `buf`. Process context.
    ///
    /// # Errors
    ///
    /// `E2BIG` if it does not fit.
    ///
    /// Corresponds to the C function `cgroup_path`.
    pub fn path<'a>(&self, buf: &'a mut [u8]) -> Result<&'a [u8]> {
        // `kernfs_path_from_node()` writes a null byte whatever the length.
        if buf.is_empty() {
            return Err(E2BIG);
        }
        // SAFETY: The css is alive, and so is its cgroup, which holds its kernfs node. The cgroup
        // of a root css may be replaced, and is freed a grace period after that. The buffer is
        // valid for its length.
        let n = unsafe {
            let _rcu = rcu::read_lock();
            bindings::kernfs_path_from_node(
                (*self.cgroup()).kn,
                core::ptr::null_mut(),
                buf.as_mut_ptr().cast(),
                buf.len(),
            )
        };
        let n = usize::try_from(n).map_err(|_| Error::from_errno(n))?;
        buf.get(..n).ok_or(E2BIG)
    }
}

impl Css<Io> {
    /// Whether the css is that of the root cgroup.
    #[inline]
    pub fn is_root(&self) -> bool {
        // SAFETY: Set at boot and not changed.
        self.as_raw() == unsafe { bindings::blkcg_root_css }
    }

    /// Whether the current task, which is no kernel thread, is in this css's cgroup, so that its
    /// I/O is charged there. The task may be moved at any time.
    #[inline]
    pub(crate) fn is_current(&self) -> bool {
        let _rcu = rcu::read_lock();
        let task = Task::current_raw();
        // SAFETY: A task always has a `css_set`. RCU protects it when the task moves to another. Of
        // its csses, `rebind_subsystems()` changes those of the root while others look at them.
        let css = unsafe {
            let set = read_once(&raw const (*task).cgroups);
            read_once(&raw const (*set).subsys[bindings::cgroup_subsys_id_io_cgrp_id as usize])
        };
        css == self.as_raw()
    }

    /// The memory css in effect for this css's cgroup: that of the cgroup or of its nearest
    /// ancestor that has one. The root's if the controllers are in different hierarchies (cgroup
    /// v1).
    ///
    /// Wraps the C function `cgroup_get_e_css`.
    pub fn effective_memory(&self) -> ARef<Css<Memory>> {
        // SAFETY: As in `path` the cgroup is alive. The result is never null, and comes with a
        // reference.
        unsafe {
            let _rcu = rcu::read_lock();
            let css =
                bindings::cgroup_get_e_css(self.cgroup(), &raw mut bindings::memory_cgrp_subsys);
            ARef::from_raw(NonNull::new_unchecked(css).cast())
        }
    }
}

impl Css<Io> {
    /// Runs `f`; the I/O that the current task submits in it is charged to this blkcg.
    ///
    /// Has no effect in an interrupt, nor in a task that is not a kernel thread, whose I/O is
    /// charged to its own blkcg. Does not nest: `kthread_blkcg()`, which tells what to restore, is
    /// not exported.
    ///
    /// Wraps the C function `kthread_associate_blkcg`.
    pub fn charge<R>(&self, f: impl FnOnce() -> R) -> R {
        // The interrupted task may be in such a call.
        if !task::in_task() {
            return f();
        }
        // SAFETY: The css is alive, and the thread takes a reference of its own. Only the thread
        // itself changes its association.
        unsafe { bindings::kthread_associate_blkcg(self.as_raw()) };
        let ret = f();
        // SAFETY: Null ends the association.
        unsafe { bindings::kthread_associate_blkcg(core::ptr::null_mut()) };
        ret
    }
}

impl Css<Memory> {
    /// Runs `f`; the memory that the current task allocates in it is charged to this memcg.
    ///
    /// Wraps the C function `set_active_memcg`.
    pub fn charge<R>(&self, f: impl FnOnce() -> R) -> R {
        // SAFETY: The css is alive until this function returns, and belongs to the memory
        // controller.
        let old =
            unsafe { bindings::set_active_memcg(bindings::mem_cgroup_from_css(self.as_raw())) };
        let ret = f();
        // SAFETY: The memcg that was active before is kept alive by the scope around this one.
        unsafe { bindings::set_active_memcg(old) };
        ret
    }

    /// Throttles the current task for memory that it charged to this memcg over `memory.high`, now
    /// instead of in one of its next allocations. May sleep for some seconds.
    ///
    /// A task that charges memory over `memory.high` reclaims memory and sleeps in proportion to
    /// the excess. Most tasks do so when they return to user mode. A kernel thread does so within
    /// an allocation, as soon as it has charged more than a batch since the last time: at worst
    /// with the lock of an inode held. It does not if it charges no more than [`max_unthrottled`]
    /// between two calls of this function.
    #[inline]
    pub fn throttle_over_high(&self) {
        if pages_over_high() > 0 {
            self.charge(handle_over_high);
        }
    }
}

/// As [`Css::throttle_over_high`], within [`Css::<Memory>::charge`].
#[inline]
pub fn throttle_over_high() {
    if pages_over_high() > 0 {
        handle_over_high();
    }
}

/// Number of pages that one charge of a memcg can leave in a CPU's stock (`MEMCG_CHARGE_BATCH`).
const CHARGE_BATCH: usize = 64;

/// The order of the allocations of [`handle_over_high`].
const THROTTLE_ORDER: u32 = 3;

/// Number of allocations of [`handle_over_high`]: more pages than the stock can have.
const THROTTLE_ALLOCATIONS: usize = (CHARGE_BATCH >> THROTTLE_ORDER) + 1;

/// How many pages the current task has charged to memcgs over `memory.high` since it was throttled
/// for that.
#[inline]
fn pages_over_high() -> u32 {
    // SAFETY: The current task is valid, and only the task itself changes the field.
    unsafe { (*Task::current_raw()).memcg_nr_pages_over_high }
}

/// Has `__mem_cgroup_handle_over_high()` called, which is not exported. A charge to the active
/// memcg calls it if it takes a batch, rather than pages of an earlier batch that are left in the
/// CPU's stock. So this function allocates more pages than the stock can have. They are in the
/// stock when they are freed, and what the task charges next takes them from there.
#[cold]
fn handle_over_high() {
    let flags = bindings::GFP_KERNEL_ACCOUNT | bindings::__GFP_NORETRY | bindings::__GFP_NOWARN;
    let mut pages = [core::ptr::null_mut(); THROTTLE_ALLOCATIONS];
    for page in &mut pages {
        // SAFETY: No requirements but the context: the caller may sleep.
        *page = unsafe { bindings::alloc_pages(flags, THROTTLE_ORDER) };
        if page.is_null() || pages_over_high() == 0 {
            break;
        }
    }
    for page in pages.into_iter().filter(|page| !page.is_null()) {
        // SAFETY: Allocated above with this order, and not used by anybody.
        unsafe { bindings::__free_pages(page, THROTTLE_ORDER) };
    }
}

/// Whether a page counter or one of its ancestors has a limit that throttles (`high`).
///
/// # Safety
///
/// `counter` points to a counter of a memcg that stays alive during the call.
unsafe fn has_high_limit(mut counter: *const bindings::page_counter) -> bool {
    const PAGE_COUNTER_MAX: usize = isize::MAX as usize / PAGE_SIZE;

    while !counter.is_null() {
        // SAFETY: By the requirements of this function, as a memcg keeps its ancestors alive. Other
        // tasks change the limit at any time.
        let (high, parent) = unsafe { (read_once(&raw const (*counter).high), (*counter).parent) };
        if high < PAGE_COUNTER_MAX {
            return true;
        }
        counter = parent;
    }
    false
}

/// The number of pages that the current task can charge to the memcg that is active for it
/// ([`Css::<Memory>::charge`]) without being throttled for `memory.high` or `memory.swap.high` in
/// an allocation, as a rule; `usize::MAX` if neither the memcg nor its ancestors have such a limit.
/// The usage does not matter: other tasks can charge the memcg while this one waits for a lock.
///
/// Half a batch is for metadata. A write can charge another batch, and be throttled, if it is moved
/// to another CPU or if the file system allocates larger folios than it needs.
#[inline]
pub fn max_unthrottled() -> usize {
    // SAFETY: The memcg that is active for the current task is alive.
    let limited = unsafe {
        let memcg = (*Task::current_raw()).active_memcg;
        !memcg.is_null()
            && (has_high_limit(&raw const (*memcg).memory)
                // All members of this union are counters: `swap` is in it.
                || has_high_limit((&raw const (*memcg).__bindgen_anon_1).cast()))
    };
    match limited {
        true => CHARGE_BATCH / 2,
        false => usize::MAX,
    }
}
