// SPDX-License-Identifier: GPL-2.0

//! Differences between the kernel's series.
//!
//! The build compiles the lines of `compat_probes` and sets a cfg for each that the kernel has.
//! `compat.h` covers changes of behaviour, which no probe detects.

use crate::bindings;

#[cfg(compat_this_module)]
pub use kernel::module::this_module;

/// Returns a reference to the `THIS_MODULE` of the given module type.
///
/// This crate is linked to one module, so there is one.
#[cfg(not(compat_this_module))]
pub const fn this_module<M: kernel::ModuleMetadata>() -> &'static kernel::ThisModule {
    #[cfg(MODULE)]
    const THIS_MODULE: kernel::ThisModule = {
        #[allow(improper_ctypes)] // An opaque C type.
        extern "C" {
            static __this_module: kernel::types::Opaque<bindings::module>;
        }
        // SAFETY: The `THIS_MODULE` of the module that this crate is linked to.
        unsafe { kernel::ThisModule::from_ptr(__this_module.get()) }
    };
    #[cfg(not(MODULE))]
    // SAFETY: `THIS_MODULE` of built-in code is null.
    const THIS_MODULE: kernel::ThisModule =
        unsafe { kernel::ThisModule::from_ptr(core::ptr::null_mut()) };
    &THIS_MODULE
}

#[cfg(compat_errors)]
pub use kernel::error::code::{EDQUOT, ENOSYS, EOPNOTSUPP, ESTALE};

#[cfg(not(compat_errors))]
macro_rules! declare_err {
    ($($(#[$doc:meta])* $err:ident,)*) => {$(
        $(#[$doc])*
        pub const $err: kernel::error::Error = {
            use core::mem::transmute;
            use kernel::error::{code::ENOTSUPP, Error};

            // SAFETY: An `Error` holds one integer of that size: `transmute` checks it.
            let number = unsafe { transmute::<Error, i32>(ENOTSUPP) };
            assert!(number == -(bindings::ENOTSUPP as i32));
            // SAFETY: An `Error` holds the negated number, as is checked above.
            unsafe { transmute::<i32, Error>(-(bindings::$err as i32)) }
        };
    )*};
}

#[cfg(not(compat_errors))]
declare_err! {
    /// Quota exceeded.
    EDQUOT,
    /// Invalid system call number.
    ENOSYS,
    /// Operation not supported on transport endpoint.
    EOPNOTSUPP,
    /// Stale file handle.
    ESTALE,
}

/// Returns how many bytes of its current segment an iterator is past.
#[inline]
pub(crate) fn bvec_iter_offset(iter: &bindings::bvec_iter) -> u32 {
    #[cfg(compat_bi_offset)]
    return iter.bi_offset;
    #[cfg(not(compat_bi_offset))]
    return iter.bi_bvec_done;
}

#[cfg(compat_spinlock_irq)]
pub use kernel::sync::{new_spinlock_irq, SpinLockIrq, SpinLockIrqGuard};

#[cfg(not(compat_spinlock_irq))]
pub use spinlock_irq::{SpinLockIrq, SpinLockIrqGuard};

#[cfg(not(compat_spinlock_irq))]
pub use crate::new_spinlock_irq;

/// Creates a [`SpinLockIrq`] initialiser with the given name and a newly-created lock class.
#[cfg(not(compat_spinlock_irq))]
#[macro_export]
macro_rules! new_spinlock_irq {
    ($inner:expr $(, $name:literal)? $(,)?) => {
        $crate::compat::SpinLockIrq::new(
            $inner, ::kernel::optional_name!($($name)?), ::kernel::static_lock_class!())
    };
}

#[cfg(not(compat_spinlock_irq))]
mod spinlock_irq {
    use crate::bindings;
    use kernel::{
        ffi::{c_char, c_ulong},
        sync::lock::{Backend, Guard, Lock},
    };

    /// A `SpinLock` that disables interrupts while it is held.
    ///
    /// If two are held, the first one that is released must be the second that was acquired.
    pub type SpinLockIrq<T> = Lock<T, SpinLockIrqBackend>;

    /// A held [`SpinLockIrq`].
    pub type SpinLockIrqGuard<'a, T> = Guard<'a, T, SpinLockIrqBackend>;

    /// A C `spinlock_t` that is acquired with interrupts disabled.
    pub struct SpinLockIrqBackend;

    // SAFETY: The C `spinlock_t` ensures mutual exclusion. `relock` calls `lock`.
    unsafe impl Backend for SpinLockIrqBackend {
        type State = bindings::spinlock_t;
        /// Whether interrupts were enabled, as the C functions have it.
        type GuardState = c_ulong;

        unsafe fn init(
            ptr: *mut Self::State,
            name: *const c_char,
            key: *mut bindings::lock_class_key,
        ) {
            // SAFETY: By the requirements of this function.
            unsafe { bindings::__spin_lock_init(ptr, name, key) }
        }

        unsafe fn lock(ptr: *mut Self::State) -> c_ulong {
            // SAFETY: By the requirements of this function the lock was initialised.
            unsafe { bindings::compat_spin_lock_irqsave(ptr) }
        }

        unsafe fn unlock(ptr: *mut Self::State, flags: &c_ulong) {
            // SAFETY: By the requirements of this function the caller holds the lock, and `lock`
            // or `try_lock` returned `flags`.
            unsafe { bindings::compat_spin_unlock_irqrestore(ptr, *flags) }
        }

        unsafe fn try_lock(ptr: *mut Self::State) -> Option<c_ulong> {
            let mut flags = 0;
            // SAFETY: By the requirements of this function the lock was initialised.
            unsafe { bindings::compat_spin_trylock_irqsave(ptr, &mut flags) }.then_some(flags)
        }

        unsafe fn assert_is_held(ptr: *mut Self::State) {
            // SAFETY: By the requirements of this function.
            unsafe { bindings::spin_assert_is_held(ptr) }
        }
    }
}
