// SPDX-License-Identifier: GPL-2.0

//! Block device major numbers.
//!
//! # Soundness
//!
//! | What safe code could try | What stops it |
//! | --- | --- |
//! | Give a number back twice | Dropping does, and [`Major`] is no `Clone` |
//! | Have a driver probed that was freed | It is dropped after `unregister_blkdev`, which waits |
//! | Register two for one type | The slot holds one driver: `EBUSY` |
//! | Have a slot of another type | [`HasDriverSlot`] is `unsafe`, and typed |
//! | Share a driver that is for one task | [`Probe`] is `Send` and `Sync` |
//! | Give a name that is too long, or freed | `EINVAL`; it is `'static` |
//! | Give the number back in `probe` | Nothing; it deadlocks |
//! | Add a disk with another driver's number | A [`MajorNumber`] was registered by this one |
//! | Forget a [`Major`], and have the module unloaded | The exit waits ([`ExitBarrier`](crate::module::ExitBarrier)) |

use crate::{bindings, block::bdev::DevT, module::Registered};
use core::{marker::PhantomData, ptr};
use kernel::{
    error::to_result,
    ffi::{c_int, c_uint, c_void},
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, Full, Relaxed},
        Arc, ArcBorrow,
    },
    types::ForeignOwnable,
};

/// Creates disks when their device nodes are opened.
pub trait Probe: HasDriverSlot + Send + Sync {
    /// Called when a node of the major number is opened for which there is no disk. If it adds the
    /// disk, the open goes on.
    ///
    /// Process context; may sleep. The lock of the major numbers is held, so that none can be
    /// registered or given back.
    fn probe(this: ArcBorrow<'_, Self>, dev: DevT);
}

/// A major number that a driver registered, for the disks that it adds.
#[derive(Clone, Copy)]
pub struct MajorNumber(u32);

impl MajorNumber {
    pub(super) fn into_raw(self) -> u32 {
        self.0
    }
}

/// Where a [`Major`] keeps the driver that it probes.
///
/// # Invariants
///
/// `driver` is null or a foreign `Arc<T>`. `major` is 0 or the number of the registration that
/// filled the slot.
pub struct DriverSlot<T> {
    driver: Atomic<*mut c_void>,
    major: Atomic<u32>,
    _p: PhantomData<fn(T) -> T>,
}

impl<T> DriverSlot<T> {
    /// Creates an empty slot.
    pub const fn new() -> Self {
        Self {
            driver: Atomic::new(ptr::null_mut()),
            major: Atomic::new(0),
            _p: PhantomData,
        }
    }
}

impl<T> Default for DriverSlot<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Says where the C callback, whose only argument is a number, finds its driver; implemented by
/// [`impl_has_driver_slot!`](crate::impl_has_driver_slot).
///
/// # Safety
///
/// `slot` always returns the same.
pub unsafe trait HasDriverSlot: Sized + 'static {
    /// Returns the slot of the type.
    fn slot() -> &'static DriverSlot<Self>;
}

/// Gives a driver type its [`DriverSlot`].
#[macro_export]
macro_rules! impl_has_driver_slot {
    ($driver:ty) => {
        // SAFETY: There is one static.
        unsafe impl $crate::block::major::HasDriverSlot for $driver {
            fn slot() -> &'static $crate::block::major::DriverSlot<Self> {
                static SLOT: $crate::block::major::DriverSlot<$driver> =
                    $crate::block::major::DriverSlot::new();
                &SLOT
            }
        }
    };
}

/// The room for a major number's name, with its null byte.
const NAME_SIZE: usize = 16;

/// A registered major number; given back when dropped.
///
/// # Invariants
///
/// `T`'s slot holds a driver, put there by this registration.
#[must_use = "the number is given back when this is dropped"]
pub struct Major<T: Probe> {
    major: u32,
    name: &'static CStr,
    _registered: Registered,
    _p: PhantomData<fn(T) -> T>,
}

impl<T: Probe> Major<T> {
    /// Registers a major number. May sleep.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the number or the slot is in use; `EINVAL` if the number is 0 or the name is too
    /// long.
    ///
    /// Wraps the C function `__register_blkdev`.
    pub fn register(major: u32, name: &'static CStr, driver: Arc<T>) -> Result<Self> {
        if major == 0 || name.to_bytes_with_nul().len() > NAME_SIZE {
            return Err(EINVAL);
        }
        let registered = Registered::new();
        let foreign = driver.into_foreign();
        if T::slot()
            .driver
            .cmpxchg(ptr::null_mut(), foreign, Full)
            .is_err()
        {
            // SAFETY: From `into_foreign` above.
            drop(unsafe { Arc::<T>::from_foreign(foreign) });
            return Err(EBUSY);
        }
        // Before the callback can be called, which adds disks.
        T::slot().major.store(major, Relaxed);
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
            _registered: registered,
            _p: PhantomData,
        })
    }

    /// The number, while it is registered.
    pub fn number() -> Option<MajorNumber> {
        match T::slot().major.load(Relaxed) {
            0 => None,
            major => Some(MajorNumber(major)),
        }
    }

    /// Empties the slot. The callback is not registered.
    fn clear() {
        T::slot().major.store(0, Relaxed);
        let foreign = T::slot().driver.xchg(ptr::null_mut(), Full);
        if !foreign.is_null() {
            // SAFETY: The slot held a foreign `Arc<T>`, which was taken out exactly once.
            drop(unsafe { Arc::<T>::from_foreign(foreign) });
        }
    }

    /// # Safety
    ///
    /// Called by the block layer only, while `Self` is registered.
    unsafe extern "C" fn probe(dev: bindings::dev_t) {
        let foreign = T::slot().driver.load(Acquire);
        if foreign.is_null() {
            return;
        }
        // SAFETY: The slot is filled before the callback is registered, and cleared after it was
        // unregistered, which waits for it.
        T::probe(unsafe { Arc::<T>::borrow(foreign) }, DevT::from_raw(dev));
    }
}

impl<T: Probe> Drop for Major<T> {
    fn drop(&mut self) {
        // SAFETY: Registered with these when `self` was made. Waits for a running callback.
        unsafe { bindings::unregister_blkdev(self.major, self.name.as_char_ptr()) };
        Self::clear();
    }
}
