// SPDX-License-Identifier: GPL-2.0

//! Mutexes that can be waited for killably, and `READ_ONCE()`.
//!
//! # Soundness
//!
//! [`KillableMutex`] is as sound as the [`Mutex`] in it.

use crate::bindings;
use kernel::{
    error::to_result,
    prelude::*,
    sync::{
        atomic::AtomicType,
        lock::Guard,
        LockClassKey,
        Mutex,
        MutexGuard, //
    },
};

/// Reads a value that others may change meanwhile, as a whole.
///
/// Corresponds to the C macro `READ_ONCE`, as `kernel::sync::atomic::atomic_load(.., Relaxed)`
/// does. That is a call of a C function, which is too much for each I/O.
///
/// # Safety
///
/// `ptr` is valid and aligned. Concurrent stores there are of the whole value: atomic ones, or
/// plain stores of C, which the kernel's memory model treats as such
/// (`CONFIG_KCSAN_ASSUME_PLAIN_WRITES_ATOMIC`).
#[inline(always)]
pub(crate) unsafe fn read_once<T: AtomicType + Copy>(ptr: *const T) -> T {
    // SAFETY: By the requirements of this function.
    unsafe { ptr.read_volatile() }
}

/// A [`Mutex`] that a task can also wait for killably.
#[pin_data]
#[repr(transparent)]
pub struct KillableMutex<T> {
    #[pin]
    mutex: Mutex<T>,
}

/// A held [`KillableMutex`].
pub type KillableGuard<'a, T> = MutexGuard<'a, T>;

impl<T> KillableMutex<T> {
    /// Creates a mutex; see [`new_killable_mutex!`](crate::new_killable_mutex).
    pub fn new(
        data: T,
        name: &'static CStr,
        key: Pin<&'static LockClassKey>,
    ) -> impl PinInit<Self> {
        pin_init!(Self {
            mutex <- Mutex::new(data, name, key),
        })
    }

    /// Acquires the lock. May sleep.
    pub fn lock(&self) -> KillableGuard<'_, T> {
        self.mutex.lock()
    }

    /// Acquires the lock, unless a fatal signal comes first. May sleep.
    ///
    /// Wraps the C function `mutex_lock_killable`.
    ///
    /// # Errors
    ///
    /// `EINTR` if the task is being killed.
    pub fn lock_killable(&self) -> Result<KillableGuard<'_, T>> {
        // `Lock` is `repr(C)` and starts with the C mutex, as `Lock::from_raw` has it.
        let mutex = core::ptr::from_ref(&self.mutex).cast_mut().cast();
        // SAFETY: The mutex was initialised when it was made.
        to_result(unsafe { bindings::mutex_lock_killable(mutex) })?;
        // SAFETY: The lock was acquired above.
        Ok(unsafe { Guard::new(&self.mutex, ()) })
    }
}

/// Creates a [`KillableMutex`] initialiser with the given name and a newly-created lock class.
#[macro_export]
macro_rules! new_killable_mutex {
    ($inner:expr, $name:literal) => {
        $crate::sync::KillableMutex::new(
            $inner,
            ::kernel::c_str!($name),
            ::kernel::static_lock_class!(),
        )
    };
}
