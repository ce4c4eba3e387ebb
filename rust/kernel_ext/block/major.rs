// SPDX-License-Identifier: GPL-2.0

//! Block device major numbers.

use crate::{bindings, block::bdev::DevT};
use core::{marker::PhantomData, ptr};
use kernel::{
    error::to_result,
    ffi::{c_int, c_uint},
    prelude::*,
    sync::atomic::{ordering, Atomic},
    sync::{Arc, ArcBorrow},
    types::ForeignOwnable,
};

/// Creates devices when their nodes are opened.
pub trait Probe: Sized + Send + Sync + 'static {
    /// The slot through which the C callback, which is given nothing but a number, finds its
    /// driver.
    fn slot() -> &'static Slot<Self>;

    /// A node of the major number was opened for which there is no disk.
    ///
    /// Called in process context with the lock of the major numbers held; may sleep. If it adds
    /// the disk, the open goes on.
    fn probe(this: ArcBorrow<'_, Self>, dev: DevT);
}

/// Where a [`Major`] keeps the driver that it probes; a static of the driver.
pub struct Slot<T> {
    driver: Atomic<usize>,
    _p: PhantomData<fn() -> T>,
}

impl<T> Slot<T> {
    /// Creates an empty slot.
    pub const fn new() -> Self {
        Self {
            driver: Atomic::new(0),
            _p: PhantomData,
        }
    }
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// A registered major number; given back when dropped.
///
/// # Invariants
///
/// `T`'s slot holds a foreign `Arc<T>`, owned by this registration.
pub struct Major<T: Probe> {
    major: u32,
    name: &'static CStr,
    _p: PhantomData<T>,
}

impl<T: Probe> Major<T> {
    /// Registers a major number. May sleep.
    ///
    /// # Errors
    ///
    /// `EBUSY` when somebody else has it, or the slot is in use.
    ///
    /// Wraps the C function `__register_blkdev`.
    pub fn register(major: u32, name: &'static CStr, driver: Arc<T>) -> Result<Self> {
        let foreign = driver.into_foreign();
        if T::slot()
            .driver
            .cmpxchg(0, foreign as usize, ordering::Full)
            .is_err()
        {
            // SAFETY: From `into_foreign` above.
            drop(unsafe { Arc::<T>::from_foreign(foreign) });
            return Err(EBUSY);
        }
        // SAFETY: The name is a static string, and the callback finds its driver in the slot.
        let ret: c_int = unsafe {
            bindings::__register_blkdev(major as c_uint, name.as_char_ptr(), Some(Self::probe))
        };
        if let Err(e) = to_result(ret) {
            Self::clear();
            return Err(e);
        }
        // INVARIANT: The slot was filled above.
        Ok(Self {
            major,
            name,
            _p: PhantomData,
        })
    }

    fn clear() {
        let foreign = T::slot().driver.xchg(0, ordering::Full);
        // SAFETY: The slot held a foreign `Arc<T>`; it was taken out exactly once, and the
        // callback is not registered.
        drop(unsafe { Arc::<T>::from_foreign(ptr::with_exposed_provenance_mut(foreign)) });
    }

    /// # Safety
    ///
    /// Called by the block layer only, while `Self` is registered.
    unsafe extern "C" fn probe(dev: bindings::dev_t) {
        let foreign = T::slot().driver.load(ordering::Acquire);
        // SAFETY: The slot is filled before the callback is registered, and cleared after it was
        // unregistered, which waits for it.
        let driver = unsafe { Arc::<T>::borrow(ptr::with_exposed_provenance_mut(foreign)) };
        T::probe(driver, DevT::from_raw(dev));
    }
}

impl<T: Probe> Drop for Major<T> {
    fn drop(&mut self) {
        // SAFETY: Registered with these when `self` was made. Waits for a running callback.
        unsafe { bindings::unregister_blkdev(self.major, self.name.as_char_ptr()) };
        Self::clear();
    }
}
