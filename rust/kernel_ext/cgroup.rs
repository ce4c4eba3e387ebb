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

use crate::{bindings, sync::read_once, task};
use core::{marker::PhantomData, ptr::NonNull};
use kernel::{
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
    ///
    /// # Errors
    ///
    /// `E2BIG` if it does not fit.
    ///
    /// Wraps the C function `cgroup_path`.
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
}
