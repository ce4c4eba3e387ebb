// SPDX-License-Identifier: GPL-2.0

//! References to modules, and when a module's code may be freed.
//!
//! C header: [`include/linux/module.h`](srctree/include/linux/module.h)
//!
//! # Soundness
//!
//! | What safe code could try | What stops it |
//! | --- | --- |
//! | Take a reference as the module goes | It is taken of who is [held](HoldsModule) already |
//! | Give back the last one in the module's own code | The same: it is not the last one |
//! | Give back one that was not taken | `put` takes it by value, and [`ModuleRef`] is no `Clone` |
//! | Drop or forget a reference | The module stays |
//! | Forget what is registered, and unload the module | [`ExitBarrier`] waits for it, for ever |
//! | Unload the module in the tail of its last callback | [`ExitBarrier`] waits for that, too |
//! | Do without an [`ExitBarrier`] | [`Disk::add`](crate::block::Disk::add) fails |

use crate::bindings;
use core::marker::PhantomData;
use kernel::{
    module::this_module,
    prelude::*,
    sync::atomic::{Atomic, Relaxed},
    task::might_sleep,
    ModuleMetadata,
};

/// Shows that the module `M` is held by somebody else for as long as the current function, and
/// those that called it, are in its code.
///
/// # Safety
///
/// A value exists only while code of the module is called by somebody who holds a reference to it,
/// and gives that up after the call has returned. It cannot be used by another task.
pub unsafe trait HoldsModule<M: ModuleMetadata> {}

/// Keeps the module `M` from being unloaded.
///
/// When it is dropped, rather than given [back](Self::put), the module stays for good: the code
/// that gives back the last reference must not be the module's.
#[must_use = "the module stays for good when this is dropped"]
pub struct ModuleRef<M: ModuleMetadata>(PhantomData<fn(M) -> M>);

impl<M: ModuleMetadata> ModuleRef<M> {
    /// Takes a reference.
    ///
    /// Wraps the C function `__module_get`.
    pub fn get(_held: &impl HoldsModule<M>) -> Self {
        // SAFETY: Somebody holds the module already.
        unsafe { bindings::__module_get(this_module::<M>().as_ptr()) };
        Self(PhantomData)
    }

    /// Gives the reference back.
    ///
    /// Wraps the C function `module_put`.
    pub fn put(self, _held: &impl HoldsModule<M>) {
        // SAFETY: `get` took a reference, which `self` was. Somebody still holds the module until
        // this code has returned.
        unsafe { bindings::module_put(this_module::<M>().as_ptr()) }
    }
}

/// How many [`Registered`] there are. This crate is part of the module that uses it.
static REGISTERED: Atomic<i32> = Atomic::new(0);

/// How many [`ExitBarrier`] there are.
static BARRIERS: Atomic<i32> = Atomic::new(0);

/// Says that the kernel can call code of this module: part of each type that registers a callback,
/// and dropped when it is no longer registered.
pub(crate) struct Registered(());

impl Registered {
    pub(crate) fn new() -> Self {
        REGISTERED.fetch_add(1, Relaxed);
        Self(())
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // SAFETY: An `Atomic<i32>` is a C `atomic_t`.
        unsafe { bindings::atomic_dec_and_wake_up(REGISTERED.as_ptr().cast()) };
    }
}

/// Delays the exit of a module until none of its code can be run any more, when dropped. May sleep.
///
/// The last field of a module's data, so that all else is dropped before. It waits for what the
/// module registered (disks, timers, workqueues, numbers, devices) to be gone: a disk is freed by
/// whoever used it last, which can be after the driver dropped it. It then waits for tasks that
/// were preempted in a callback of the module to leave it: completing the last request of a disk
/// drops the last reference to the module while the completion callback has yet to return.
///
/// A registration that was forgotten makes the exit hang, and not the kernel call code that is
/// gone.
///
/// Wraps the C function `synchronize_rcu_tasks`.
#[must_use = "the module's code is freed under its callbacks without it"]
pub struct ExitBarrier(());

impl ExitBarrier {
    /// Creates the barrier, before anything is registered.
    pub fn new() -> Self {
        BARRIERS.fetch_add(1, Relaxed);
        Self(())
    }

    /// Fails if the module has none.
    ///
    /// # Errors
    ///
    /// `EPERM`
    pub(crate) fn check() -> Result {
        match BARRIERS.load(Relaxed) {
            0 => Err(EPERM),
            _ => Ok(()),
        }
    }
}

impl Default for ExitBarrier {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for ExitBarrier {
    fn drop(&mut self) {
        might_sleep();
        // SAFETY: An `Atomic<i32>` is a C `atomic_t`.
        unsafe { bindings::wait_until_zero(REGISTERED.as_ptr().cast()) };
        BARRIERS.fetch_sub(1, Relaxed);
        // SAFETY: No requirements but the context, which `might_sleep` checks.
        unsafe { bindings::synchronize_rcu_tasks() };
    }
}
