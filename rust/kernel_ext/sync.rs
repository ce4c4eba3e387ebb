// SPDX-License-Identifier: GPL-2.0

//! Mutexes whose waiters can be killed, and reads of what C code changes.
//!
//! # Soundness
//!
//! | What safe code could try | What stops it |
//! | --- | --- |
//! | Reach the data without the lock | It is private; the guard lends it |
//! | Keep a reference to the data after that | It borrows the guard |
//! | Release the lock in another task | [`KillableGuard`] is not `Send` |
//! | Lock data that may not change tasks | The mutex is `Send` and `Sync` if the data is `Send` |
//! | Move the mutex | It is pinned |
//! | Lock twice | Nothing; it deadlocks, as lockdep tells |
//! | Forget a guard | Nothing; the next one waits forever, or worse ([`crate`]) |

use crate::bindings;
use kernel::{
    error::to_result,
    prelude::*,
    sync::{atomic::AtomicType, LockClassKey},
    types::{NotThreadSafe, Opaque},
};

/// Reads a value that others may change meanwhile, as a whole.
///
/// Corresponds to the C macro `READ_ONCE`, as `kernel::sync::atomic::atomic_load(.., Relaxed)`
/// does. That is a call of a C function, which is too much for each I/O.
///
/// # Safety
///
/// `ptr` is valid and aligned. What others store there concurrently is stored as a whole:
/// atomically, or by a plain store of C, which the kernel's memory model takes for that
/// (`CONFIG_KCSAN_ASSUME_PLAIN_WRITES_ATOMIC`).
#[inline(always)]
pub(crate) unsafe fn read_once<T: AtomicType + Copy>(ptr: *const T) -> T {
    // SAFETY: By the requirements of this function.
    unsafe { ptr.read_volatile() }
}

/// A [`Mutex`](kernel::sync::Mutex) that can also be waited for killably.
#[pin_data]
pub struct KillableMutex<T> {
    #[pin]
    lock: Opaque<bindings::mutex>,
    data: core::cell::UnsafeCell<T>,
}

// SAFETY: As for any mutex: it hands its data from one task to the next.
unsafe impl<T: Send> Send for KillableMutex<T> {}
// SAFETY: The mutex serialises access to its data.
unsafe impl<T: Send> Sync for KillableMutex<T> {}

impl<T> KillableMutex<T> {
    /// Creates a mutex; see [`new_killable_mutex!`](crate::new_killable_mutex).
    pub fn new(
        data: T,
        name: &'static CStr,
        key: Pin<&'static LockClassKey>,
    ) -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: `slot` is valid for writes, and the name and key are static.
            lock <- Opaque::ffi_init(|slot| unsafe {
                bindings::__mutex_init(slot, name.as_char_ptr(), key.as_ptr())
            }),
            data: core::cell::UnsafeCell::new(data),
        })
    }

    /// Acquires the lock. May sleep.
    pub fn lock(&self) -> KillableGuard<'_, T> {
        // SAFETY: The mutex was initialised when it was made.
        unsafe { bindings::mutex_lock(self.lock.get()) };
        KillableGuard {
            mutex: self,
            _not_send: NotThreadSafe,
        }
    }

    /// Acquires the lock, unless the task is killed while it waits. May sleep.
    ///
    /// # Errors
    ///
    /// `EINTR` when a fatal signal came first.
    ///
    /// Wraps the C function `mutex_lock_killable`.
    pub fn lock_killable(&self) -> Result<KillableGuard<'_, T>> {
        // SAFETY: The mutex was initialised when it was made.
        to_result(unsafe { bindings::mutex_lock_killable(self.lock.get()) })?;
        Ok(KillableGuard {
            mutex: self,
            _not_send: NotThreadSafe,
        })
    }
}

/// A held [`KillableMutex`].
///
/// # Invariants
///
/// The current task holds the mutex.
pub struct KillableGuard<'a, T> {
    mutex: &'a KillableMutex<T>,
    _not_send: NotThreadSafe,
}

impl<T> core::ops::Deref for KillableGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: By the type invariant we hold the mutex.
        unsafe { &*self.mutex.data.get() }
    }
}

impl<T> core::ops::DerefMut for KillableGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: By the type invariant we hold the mutex.
        unsafe { &mut *self.mutex.data.get() }
    }
}

impl<T> Drop for KillableGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant we hold the mutex.
        unsafe { bindings::mutex_unlock(self.mutex.lock.get()) }
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
