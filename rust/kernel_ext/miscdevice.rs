// SPDX-License-Identifier: GPL-2.0

//! Misc devices with a fixed minor number and an object to control.
//!
//! C header: [`include/linux/miscdevice.h`](srctree/include/linux/miscdevice.h)
//!
//! # Soundness
//!
//! | What safe code could try | What stops it |
//! | --- | --- |
//! | Have a device opened before it is ready | It is registered last |
//! | Have a device opened that was dropped | `misc_deregister` waits for `open` |
//! | Free the object under an open file | The file holds a reference |
//! | Unload the module meanwhile | An open file holds it: it is the `owner` |
//! | Move a registered device | It is pinned |
//! | Share a [`Control`] that is for one task | It is `Send` and `Sync` |
//! | Take an invalid minor number | The C function checks: `EINVAL`, `EBUSY` |
//! | Forget a registration, and have the module unloaded | The exit waits ([`ExitBarrier`](crate::module::ExitBarrier)) |

use crate::{bindings, compat::this_module, module::Registered};
use core::marker::PhantomData;
use kernel::{
    error::{from_result, to_result},
    ffi::{c_int, c_long, c_uint, c_ulong},
    prelude::*,
    sync::Arc,
    types::{ForeignOwnable, Opaque},
    ModuleMetadata,
};

/// The operations of a control device.
///
/// A misc device that has nothing but ioctls, whose arguments are numbers, so that they are the
/// same for 64-bit and 32-bit tasks. They act on an object that is registered with the device.
#[vtable]
pub trait Control: Sized + Send + Sync + 'static {
    /// The module with the implementation: `crate::LocalModule`.
    type OwnerModule: ModuleMetadata;

    /// Handles an ioctl. Process context; may sleep.
    fn ioctl(&self, cmd: u32, arg: usize) -> Result<c_int>;
}

/// A registered [`Control`] device; deregistered when dropped.
///
/// # Invariants
///
/// `misc` is registered. It is the first field, so that it leads to the registration.
#[pin_data(PinnedDrop)]
#[repr(C)]
pub struct ControlRegistration<T: Control> {
    #[pin]
    misc: Opaque<bindings::miscdevice>,
    control: Arc<T>,
    _registered: Registered,
}

// SAFETY: A misc device may be deregistered by any task.
unsafe impl<T: Control> Send for ControlRegistration<T> {}
// SAFETY: There is nothing to be done with a shared registration.
unsafe impl<T: Control> Sync for ControlRegistration<T> {}

impl<T: Control> ControlRegistration<T> {
    /// Registers the device. May sleep.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the minor number is taken, `EINVAL` if it is above those of misc devices.
    ///
    /// Wraps the C function `misc_register`.
    pub fn new(minor: u32, name: &'static CStr, control: Arc<T>) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            control,
            _registered: Registered::new(),
            misc <- Opaque::try_ffi_init(move |slot: *mut bindings::miscdevice| {
                // SAFETY: `slot` is valid for writes.
                unsafe {
                    slot.write(bindings::miscdevice {
                        minor: minor as c_int,
                        name: name.as_char_ptr(),
                        fops: ControlVTable::<T>::build(),
                        ..pin_init::zeroed()
                    })
                };
                // INVARIANT: Registered if this succeeds.
                //
                // SAFETY: The device does not move, and `control` is initialised before this field
                // is. The device is deregistered before its memory is freed.
                to_result(unsafe { bindings::misc_register(slot) })
            }),
        }? Error)
    }
}

#[pinned_drop]
impl<T: Control> PinnedDrop for ControlRegistration<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant. Open files hold references to the object.
        unsafe { bindings::misc_deregister(self.misc.get()) };
    }
}

struct ControlVTable<T: Control>(PhantomData<T>);

impl<T: Control> ControlVTable<T> {
    /// # Safety
    ///
    /// Called by `misc_open` only, for a file of a [`ControlRegistration<T>`].
    unsafe extern "C" fn open(inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: `misc_open` set the private data to the `misc` field of a registration, and
        // holds the mutex that deregistering it takes.
        let this = unsafe { &*(*file).private_data.cast::<ControlRegistration<T>>() };
        // SAFETY: The file is being opened, and its private data ours.
        unsafe { (*file).private_data = this.control.clone().into_foreign() };
        // SAFETY: As passed in. Does not fail.
        unsafe { bindings::nonseekable_open(inode, file) }
    }

    /// # Safety
    ///
    /// Called by the VFS only, for a file opened by [`Self::open`].
    unsafe extern "C" fn release(_: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: Set by `open`; the file is used no more.
        drop(unsafe { Arc::<T>::from_foreign((*file).private_data) });
        0
    }

    /// # Safety
    ///
    /// Called by the VFS only, for a file opened by [`Self::open`].
    unsafe extern "C" fn ioctl(file: *mut bindings::file, cmd: c_uint, arg: c_ulong) -> c_long {
        // SAFETY: Set by `open`, and there until `release`.
        let control = unsafe { Arc::<T>::borrow((*file).private_data) };
        from_result(|| Ok(control.ioctl(cmd, arg)? as c_long))
    }

    const VTABLE: bindings::file_operations = bindings::file_operations {
        open: Some(Self::open),
        release: Some(Self::release),
        unlocked_ioctl: Some(Self::ioctl),
        compat_ioctl: Some(Self::ioctl),
        llseek: Some(bindings::noop_llseek),
        owner: this_module::<T::OwnerModule>().as_ptr(),
        ..pin_init::zeroed()
    };

    const fn build() -> &'static bindings::file_operations {
        &Self::VTABLE
    }
}
