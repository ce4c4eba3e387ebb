// SPDX-License-Identifier: GPL-2.0

//! References to modules, and when a module's code may be freed.
//!
//! C header: [`include/linux/module.h`](srctree/include/linux/module.h)
//!
//! # Soundness
//!
//! | What safe code could try | What stops it |
//! | --- | --- |
//! | Take a reference while the module is unloaded | The caller is [held](HoldsModule) already |
//! | Put the last reference in the module's own code | It is not the last: the caller is held |
//! | Put a reference that was not taken | `put` takes it by value, and [`ModuleRef`] is no `Clone` |
//! | Drop or forget a reference | The module is never unloaded |
//! | Forget a registration, and unload the module | [`ExitBarrier`] waits for it, for ever |
//! | Unload the module in the tail of its last callback | [`ExitBarrier`] waits for that, too |
//! | Forget the barrier, or drop it before other registrations | Nothing; freed code may be called |
//! | Do without an [`ExitBarrier`] | [`Disk::add`](crate::block::Disk::add) fails |

use crate::{bindings, compat::this_module};
use core::marker::PhantomData;
use kernel::{
    prelude::*,
    sync::atomic::{Atomic, Relaxed},
    task::might_sleep,
    ModuleMetadata,
};

/// Proves that somebody else holds a reference to the module `M` while the current function and its
/// callers run.
///
/// # Safety
///
/// A value exists only while code of the module is called by somebody who holds a reference to it,
/// and puts that after the call has returned. Another task cannot use it.
pub unsafe trait HoldsModule<M: ModuleMetadata> {}

/// Keeps the module `M` from being unloaded.
///
/// If it is dropped, and not [put](Self::put), the module is never unloaded: the module's own code
/// must not put its last reference.
#[must_use = "the module stays for good when this is dropped"]
pub struct ModuleRef<M: ModuleMetadata>(PhantomData<fn(M) -> M>);

impl<M: ModuleMetadata> ModuleRef<M> {
    /// Takes a reference.
    ///
    /// Wraps the C function `__module_get`.
    pub fn get(_held: &impl HoldsModule<M>) -> Self {
        // SAFETY: `_held` proves that the module is held.
        unsafe { bindings::__module_get(this_module::<M>().as_ptr()) };
        Self(PhantomData)
    }

    /// Puts the reference.
    ///
    /// Wraps the C function `module_put`.
    pub fn put(self, _held: &impl HoldsModule<M>) {
        // SAFETY: `get` took a reference, which `self` owned. `_held` proves that another one is
        // held until this code has returned.
        unsafe { bindings::module_put(this_module::<M>().as_ptr()) }
    }
}

/// The number of [`Registered`]. This crate is linked to the module that uses it.
static REGISTERED: Atomic<i32> = Atomic::new(0);

/// The number of [`ExitBarrier`].
static BARRIERS: Atomic<i32> = Atomic::new(0);

/// Counts a registration, after which the kernel can call code of this module. A field of each type
/// that registers a callback, dropped after the callback is unregistered.
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

/// Delays the exit of a module until none of its code can run, when dropped. May sleep.
///
/// It must be the last field of a module's data. It waits until the module's registrations (disks,
/// timers, workqueues, numbers, devices) are gone: a disk can be freed after the driver dropped it,
/// when the last reference is put. It then waits for tasks that were preempted in the module's
/// code: completing the last request of a disk drops the last reference to the module while the
/// completion callback has yet to return.
///
/// If a registration was forgotten, the exit waits for ever, and the kernel does not call freed
/// code.
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
