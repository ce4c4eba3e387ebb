// SPDX-License-Identifier: GPL-2.0

//! The operations of a disk: open, close and ioctls.
//!
//! C header: [`include/linux/blkdev.h`](srctree/include/linux/blkdev.h)
//!
//! # Soundness
//!
//! | What safe code could try | What stops it |
//! | --- | --- |
//! | Use a [`ReleaseContext`] or an [`IoctlContext`] after the call | Both are lent for it |
//! | Use them in another task | Both are neither `Send` nor `Sync` |
//! | Make one | Both have private fields |
//! | Have two types' disks with one vtable | [`HasDiskVTable`] is `unsafe`, and made by a macro |

use super::{
    bdev::{BlockDevice, OpenMode},
    disk::Disk,
    gendisk::GenDisk,
    mq, //
};
use crate::{bindings, compat::this_module, fs::FdTable, module::HoldsModule};
use core::marker::PhantomData;
use kernel::{
    error::{from_result, to_result, VTABLE_DEFAULT_ERROR},
    ffi::{c_int, c_uint, c_ulong},
    prelude::*,
    sync::LockClassKey,
    types::NotThreadSafe,
    ModuleMetadata,
};

/// The operations of a disk, beyond those on requests. Called in process context; may sleep.
///
/// Corresponds to the C `struct block_device_operations`.
///
/// # Examples
///
/// A disk that can be opened while it has a medium.
///
/// ```
/// # use kernel_ext::block::mq::{BoxedIo, Request, Transfer};
/// use kernel::{ffi::c_int, sync::Arc};
/// use kernel_ext::{
///     block::{mq, ReleaseContext, GenDisk, IoctlContext, OpenMode, Operations, Status},
///     impl_disk_vtable,
/// };
///
/// struct Drive {
///     has_medium: bool,
/// }
///
/// struct DriveOps;
/// # #[vtable]
/// # impl mq::Operations for DriveOps {
/// #     type Data = Arc<Drive>;
/// #     type RequestData = ();
/// #     type DetachedData = ();
/// #     fn new_request_data() -> Result {
/// #         Ok(())
/// #     }
/// #     fn queue_rq(_: kernel::sync::ArcBorrow<'_, Drive>, rq: Request<Self>, _: bool) {
/// #         rq.end(Status::OK);
/// #     }
/// #     fn commit_rqs(_: kernel::sync::ArcBorrow<'_, Drive>) {}
/// #     fn complete(_: Request<Self>) {}
/// #     fn io_complete(_: Request<Self>, _: Result<usize>) {}
/// #     fn detached_complete(_: BoxedIo<Self>, _: Result<usize>) {}
/// #     fn read_ready(_: Request<Self>) {}
/// #     fn detached_read_ready(_: BoxedIo<Self>) {}
/// # }
///
/// impl_disk_vtable!(DriveOps);
///
/// #[vtable]
/// impl Operations for DriveOps {
///     fn open(disk: &GenDisk<Self>, _mode: OpenMode) -> Result {
///         match disk.data().has_medium {
///             true => Ok(()),
///             false => Err(ENXIO),
///         }
///     }
///
///     fn release(_disk: ReleaseContext<'_, Self>) {}
///
///     fn ioctl(cx: &IoctlContext<'_, Self>, cmd: u32, _arg: usize) -> Result<c_int> {
///         match cmd {
///             0 => Ok(cx.disk.openers().try_into()?),
///             _ => Err(ENOTTY),
///         }
///     }
/// }
/// ```
#[vtable]
pub trait Operations: mq::Operations + HasDiskVTable {
    /// The module with the implementation: `crate::LocalModule`.
    type OwnerModule: ModuleMetadata;

    /// Opens the disk or a partition of it. The disk's `open_mutex` is held.
    ///
    /// # Errors
    ///
    /// The error of the open.
    fn open(disk: &GenDisk<Self>, mode: OpenMode) -> Result;

    /// Closes the disk or a partition of it. The disk's `open_mutex` is held.
    fn release(disk: ReleaseContext<'_, Self>);

    /// Called when the disk was removed: no request is in flight, and none will come. References to
    /// the disk that the driver holds must be dropped here at the latest: the removal waits for
    /// that.
    fn after_del(_disk: &GenDisk<Self>) {}

    /// Handles an ioctl that the block layer does not handle by itself.
    ///
    /// # Errors
    ///
    /// `ENOTTY` for an unknown command, or another errno of the driver's interface.
    fn ioctl(cx: &IoctlContext<'_, Self>, cmd: u32, arg: usize) -> Result<c_int>;

    /// Handles an ioctl of a 32-bit task. Pointers in `arg` are not converted.
    fn compat_ioctl(_cx: &IoctlContext<'_, Self>, _cmd: u32, _arg: usize) -> Result<c_int> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// The device, the mode and the files of an ioctl's caller, lent for the call.
pub struct IoctlContext<'a, T: Operations> {
    /// The disk.
    pub disk: &'a GenDisk<T>,
    /// The disk or partition that was opened.
    pub bdev: &'a BlockDevice,
    /// How it was opened.
    pub mode: OpenMode,
    /// The calling task's file descriptors.
    pub files: FdTable,
    // Keeps others from making one.
    _private: NotThreadSafe,
}

/// A disk that is being closed: the current task holds its `open_mutex`.
pub struct ReleaseContext<'a, T: Operations> {
    disk: &'a GenDisk<T>,
    _not_send: NotThreadSafe,
}

impl<T: Operations> ReleaseContext<'_, T> {
    /// Scans for partitions, with the `open_mutex` that is held. May sleep.
    ///
    /// Wraps the C function `bdev_disk_changed`.
    pub fn reread_partitions_locked(&self) -> Result {
        // SAFETY: The disk is valid, and its `open_mutex` is held while it is being closed.
        to_result(unsafe { bindings::bdev_disk_changed(self.disk.as_raw(), false) })
    }
}

impl<T: Operations> core::ops::Deref for ReleaseContext<'_, T> {
    type Target = GenDisk<T>;

    fn deref(&self) -> &GenDisk<T> {
        self.disk
    }
}

// SAFETY: `OperationsVTable::release` alone makes one, lent for the call. The block layer puts the
// opener's reference to the module after it. It is neither `Send` nor `Sync`.
unsafe impl<T: Operations> HoldsModule<<T as Operations>::OwnerModule> for ReleaseContext<'_, T> {}

// SAFETY: `OperationsVTable::context` alone makes one, lent for the call of `ioctl` or
// `compat_ioctl`, during which the disk is open and the block layer holds the module. It is neither
// `Send` nor `Sync`.
unsafe impl<T: Operations> HoldsModule<<T as Operations>::OwnerModule> for IoctlContext<'_, T> {}

/// The C vtable of disks with operations `T`, of which there is one; see [`HasDiskVTable`].
#[repr(transparent)]
pub struct DiskVTable<T>(bindings::block_device_operations, PhantomData<fn(T) -> T>);

// SAFETY: Never changed after it was made.
unsafe impl<T> Sync for DiskVTable<T> {}

impl<T: Operations> DiskVTable<T> {
    /// Makes the vtable.
    #[doc(hidden)]
    #[allow(clippy::new_without_default)] // For a static.
    pub const fn new() -> Self {
        Self(OperationsVTable::<T>::OPS, PhantomData)
    }

    pub(super) fn as_raw(&self) -> *const bindings::block_device_operations {
        &raw const self.0
    }
}

/// Says where the C vtable of disks with operations `Self` is: its address tells which operations a
/// disk has. Implemented by [`impl_disk_vtable!`](crate::impl_disk_vtable).
///
/// # Safety
///
/// `vtable` and `lock_class` always return the same, which are no other type's.
pub unsafe trait HasDiskVTable: Sized + 'static {
    /// Returns the vtable of the type.
    fn vtable() -> &'static DiskVTable<Self>;

    /// Returns the lock class of the disks' queues.
    fn lock_class() -> Pin<&'static LockClassKey>;
}

/// Gives the operations of a disk their [`DiskVTable`].
#[macro_export]
macro_rules! impl_disk_vtable {
    ($ops:ty) => {
        // SAFETY: There is one static of each, in functions that are not generic.
        unsafe impl $crate::block::disk_ops::HasDiskVTable for $ops {
            fn vtable() -> &'static $crate::block::disk_ops::DiskVTable<Self> {
                static VTABLE: $crate::block::disk_ops::DiskVTable<$ops> =
                    $crate::block::disk_ops::DiskVTable::new();
                &VTABLE
            }

            fn lock_class() -> ::core::pin::Pin<&'static ::kernel::sync::LockClassKey> {
                ::kernel::static_lock_class!()
            }
        }
    };
}

/// Makes the C vtable of an [`Operations`] implementation.
struct OperationsVTable<T: Operations>(PhantomData<T>);

impl<T: Operations> OperationsVTable<T> {
    /// # Safety
    ///
    /// Called by the block layer only, for a disk made by [`Disk::add`] with operations `T`.
    unsafe extern "C" fn open(disk: *mut bindings::gendisk, mode: bindings::blk_mode_t) -> c_int {
        from_result(|| {
            // SAFETY: By the requirements of this function; the block layer holds the disk.
            T::open(unsafe { GenDisk::from_raw(disk) }, OpenMode::from_raw(mode))?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// As for [`Self::open`].
    unsafe extern "C" fn release(disk: *mut bindings::gendisk) {
        // SAFETY: By the requirements of this function; the block layer holds the disk, and its
        // `open_mutex`.
        let disk = unsafe { GenDisk::from_raw(disk) };
        T::release(ReleaseContext {
            disk,
            _not_send: NotThreadSafe,
        });
    }

    /// # Safety
    ///
    /// As for [`Self::open`].
    unsafe fn context<'a>(
        bdev: *mut bindings::block_device,
        mode: bindings::blk_mode_t,
    ) -> IoctlContext<'a, T> {
        IoctlContext {
            // SAFETY: The device is open during an ioctl, and the disk is one of operations `T`.
            disk: unsafe { GenDisk::from_raw((*bdev).bd_disk) },
            // SAFETY: The device is open during an ioctl.
            bdev: unsafe { BlockDevice::from_raw(bdev) },
            mode: OpenMode::from_raw(mode),
            // SAFETY: An ioctl looks up its file without entering an `fdget_pos` region.
            files: unsafe { FdTable::current() },
            _private: NotThreadSafe,
        }
    }

    /// # Safety
    ///
    /// As for [`Self::open`].
    unsafe extern "C" fn ioctl(
        bdev: *mut bindings::block_device,
        mode: bindings::blk_mode_t,
        cmd: c_uint,
        arg: c_ulong,
    ) -> c_int {
        // SAFETY: By the requirements of this function.
        let cx = unsafe { Self::context(bdev, mode) };
        from_result(|| T::ioctl(&cx, cmd, arg))
    }

    /// # Safety
    ///
    /// As for [`Self::open`].
    unsafe extern "C" fn compat_ioctl(
        bdev: *mut bindings::block_device,
        mode: bindings::blk_mode_t,
        cmd: c_uint,
        arg: c_ulong,
    ) -> c_int {
        // SAFETY: By the requirements of this function.
        let cx = unsafe { Self::context(bdev, mode) };
        from_result(|| T::compat_ioctl(&cx, cmd, arg))
    }

    /// # Safety
    ///
    /// As for [`Self::open`]; nobody uses the disk any more.
    unsafe extern "C" fn free_disk(disk: *mut bindings::gendisk) {
        // SAFETY: By the requirements of this function.
        unsafe { Disk::<T>::free((*disk).private_data.cast()) };
    }

    const OPS: bindings::block_device_operations = bindings::block_device_operations {
        open: Some(Self::open),
        release: Some(Self::release),
        ioctl: Some(Self::ioctl),
        compat_ioctl: if T::HAS_COMPAT_IOCTL {
            Some(Self::compat_ioctl)
        } else {
            None
        },
        free_disk: Some(Self::free_disk),
        owner: this_module::<<T as Operations>::OwnerModule>().as_ptr(),
        ..pin_init::zeroed()
    };
}
