// SPDX-License-Identifier: GPL-2.0

//! Disks, as owned by the driver that provides them.
//!
//! C headers: [`include/linux/blkdev.h`](srctree/include/linux/blkdev.h),
//! [`include/linux/blk-mq.h`](srctree/include/linux/blk-mq.h)
//!
//! # Soundness
//!
//! | What safe code could try | What stops it |
//! | --- | --- |
//! | Remove a disk twice | Only dropping a [`Disk`] does, which is no `Clone` |
//! | Remove a disk in its own callback | Nothing; most wait for themselves |
//! | Keep an `ARef` when the disk is removed | The removal waits for it, unless the disk is open |
//! | Remove a disk that is open | The disk is freed when it is last closed |
//! | Have the module unloaded before a disk is freed | The exit waits ([`ExitBarrier`]) |
//! | Free the tags before the requests complete | The tag set is dropped after `del_gendisk`, which waits |
//! | Make the block layer warn | Limits and numbers are checked: `EINVAL` |

use super::{
    disk_ops::Operations,
    gendisk::GenDisk,
    major::MajorNumber,
    mq::TagSet,
    QueueLimits, //
};
use crate::{
    bindings,
    module::{ExitBarrier, Registered},
};
use core::ptr::NonNull;
use kernel::{
    error::{from_err_ptr, to_result},
    ffi::c_void,
    fmt,
    prelude::*,
    str::NullTerminatedFormatter,
    sync::{Arc, Completion},
    task::might_sleep,
    time::{delay::fsleep, Delta},
    types::ForeignOwnable,
};

/// How a [`Disk`] presents itself.
pub struct DiskOptions {
    /// The major number. The driver adds no disks once it has given the number back.
    pub major: MajorNumber,
    /// The minor number of the whole disk.
    pub first_minor: u32,
    /// How many minor numbers are the disk's.
    pub minors: u32,
    /// The block layer does not scan for partitions when the disk is opened.
    pub suppress_partition_scan: bool,
    /// Changes of the medium send a uevent.
    pub media_change_events: bool,
    /// Writeback is throttled by default (wbt), if the kernel is built so. It has one budget for
    /// all of the disk's submitters: a stacking driver leaves that to the disks below.
    pub throttle_writeback: bool,
}

/// The target of a disk's `private_data`, freed with the disk.
pub(super) struct Private {
    /// The foreign form of a `T::Data`.
    pub(super) data: *mut c_void,
    /// Completed when the data is dropped.
    freed: Arc<Completion>,
    _registered: Registered,
}

/// A disk that is in use, held by the driver that provides it; removed when dropped.
///
/// # Invariants
///
/// `disk` points to a disk that was added and not yet deleted, with the type invariants of
/// [`GenDisk`], of which we own the driver's reference.
#[must_use = "the disk is removed when this is dropped"]
pub struct Disk<T: Operations> {
    disk: NonNull<bindings::gendisk>,
    freed: Arc<Completion>,
    // Requests are part of the tag set, so it is freed after the disk is removed.
    tag_set: Pin<KBox<TagSet<T>>>,
}

// SAFETY: A disk may be removed by another task than the one that added it.
unsafe impl<T: Operations> Send for Disk<T> {}
// SAFETY: All that a shared disk gives access to is `Sync`.
unsafe impl<T: Operations> Sync for Disk<T> {}

impl<T: Operations> Disk<T> {
    /// Allocates a disk and adds it to the system. It may be opened, and requests may come in,
    /// before this function returns. May sleep.
    ///
    /// # Errors
    ///
    /// - `EPERM` if the module has no [`ExitBarrier`].
    /// - `EINVAL` for limits that the block layer refuses, no minor numbers, or a name that is too
    ///   long.
    /// - Errors of the C functions.
    ///
    /// Wraps the C functions `blk_mq_alloc_disk` and `device_add_disk`.
    pub fn add(
        name: fmt::Arguments<'_>,
        options: DiskOptions,
        mut limits: QueueLimits,
        tag_set: Pin<KBox<TagSet<T>>>,
        data: T::Data,
    ) -> Result<Self> {
        might_sleep();
        ExitBarrier::check()?;
        if !limits.is_acceptable() {
            return Err(EINVAL);
        }
        let freed = Arc::pin_init(Completion::new(), GFP_KERNEL)?;
        let private = KBox::new_uninit(GFP_KERNEL)?;
        let data = data.into_foreign();
        // SAFETY: The tag set is allocated until the disk is removed, and `data` is valid until the
        // disk is freed.
        let disk = match from_err_ptr(unsafe {
            bindings::__blk_mq_alloc_disk(
                tag_set.as_raw(),
                limits.as_raw(),
                data,
                T::lock_class().as_ptr(),
            )
        }) {
            Ok(disk) => disk,
            Err(e) => {
                // SAFETY: `data` came from `into_foreign` above and went nowhere.
                drop(unsafe { T::Data::from_foreign(data) });
                return Err(e);
            }
        };

        // SAFETY: The disk was allocated with the tag set above. The queue's sysfs files and
        // scheduler are removed, or were never added, before the tag set is dropped.
        unsafe { tag_set.set_lock_classes(disk) };
        let private = KBox::into_raw(private.write(Private {
            data,
            freed: freed.clone(),
            _registered: Registered::new(),
        }));
        // SAFETY: The disk is ours alone until it is added.
        let result = unsafe { Self::set_up(disk, name, options, private) }.and_then(|()| {
            // SAFETY: The disk is set up.
            to_result(unsafe {
                bindings::device_add_disk(core::ptr::null_mut(), disk, core::ptr::null_mut())
            })
        });
        if let Err(e) = result {
            // Others can have found the disk while it was in sysfs, and hold a reference for a
            // moment. Freeing a disk that was not added uses the tag set, so that the last
            // reference must be ours. `free_disk` is not called for such a disk.
            //
            // SAFETY: We own a reference.
            unsafe { wait_for_other_references(disk) };
            // SAFETY: We own the disk's reference.
            unsafe { bindings::put_disk(disk) };
            // SAFETY: A disk that was not added does not call `free_disk`, nor could it be opened,
            // so that the data is still ours.
            unsafe { Self::free(private) };
            return Err(e);
        }
        // INVARIANT: The disk was added above.
        Ok(Self {
            // SAFETY: Checked by `from_err_ptr`; the function does not return null.
            disk: unsafe { NonNull::new_unchecked(disk) },
            freed,
            tag_set,
        })
    }

    /// Drops the data of a disk, and completes `freed`.
    ///
    /// # Safety
    ///
    /// `private` is that of a disk with operations `T`, and not used any more.
    pub(super) unsafe fn free(private: *mut Private) {
        // SAFETY: By the requirements of this function: `add` made it.
        let private = unsafe { KBox::from_raw(private) };
        // SAFETY: As above; the data is taken back once.
        drop(unsafe { T::Data::from_foreign(private.data) });
        private.freed.complete_all();
    }

    /// # Safety
    ///
    /// `disk` is an allocated disk that was not added yet.
    unsafe fn set_up(
        disk: *mut bindings::gendisk,
        name: fmt::Arguments<'_>,
        options: DiskOptions,
        private: *mut Private,
    ) -> Result {
        // SAFETY: By the requirements of this function.
        let disk = unsafe { &mut *disk };
        if options.minors == 0 {
            return Err(EINVAL);
        }
        disk.major = options.major.into_raw().try_into()?;
        disk.first_minor = options.first_minor.try_into()?;
        disk.minors = options.minors.try_into()?;
        disk.fops = T::vtable().as_raw();
        disk.private_data = private.cast();
        if options.media_change_events {
            disk.events = bindings::DISK_EVENT_MEDIA_CHANGE as u16;
            disk.event_flags = bindings::DISK_EVENT_FLAG_UEVENT as u16;
        }
        if options.suppress_partition_scan {
            disk.state |= 1 << bindings::GD_SUPPRESS_PART_SCAN;
        }
        if !options.throttle_writeback {
            // SAFETY: An allocated disk has its queue.
            unsafe {
                bindings::blk_queue_flag_set(bindings::QUEUE_FLAG_DISABLE_WBT_DEF, disk.queue)
            };
        }
        let mut writer = NullTerminatedFormatter::new(&mut disk.disk_name).ok_or(EINVAL)?;
        fmt::Write::write_fmt(&mut writer, name)?;
        Ok(())
    }
}

impl<T: Operations> core::ops::Deref for Disk<T> {
    type Target = GenDisk<T>;

    fn deref(&self) -> &GenDisk<T> {
        // SAFETY: By the type invariant.
        unsafe { GenDisk::from_raw(self.disk.as_ptr()) }
    }
}

impl<T: Operations> Drop for Disk<T> {
    /// Removes the disk, and waits for its requests. Unless the disk is open, waits until it is
    /// freed: others may hold a reference for a moment. May sleep.
    ///
    /// Wraps the C function `del_gendisk`.
    fn drop(&mut self) {
        // SAFETY: By the type invariant the disk was added and not yet deleted.
        unsafe { bindings::del_gendisk(self.disk.as_ptr()) };
        // All requests have completed. A task can still be in the `queue_rq` that was handed one,
        // with the disk's data.
        //
        // SAFETY: The tag set is ours.
        unsafe { bindings::blk_mq_wait_quiesce_done(self.tag_set.as_raw()) };
        T::after_del(self);
        let is_open = self.openers() > 0;
        // SAFETY: By the type invariant we own a reference. The disk's data is kept until
        // `free_disk`.
        unsafe { bindings::put_disk(self.disk.as_ptr()) };
        if !is_open {
            self.freed.wait_for_completion();
        }
    }
}

/// Waits until the caller's is the only reference to a disk. May sleep.
///
/// # Safety
///
/// The caller owns a reference to `disk`.
unsafe fn wait_for_other_references(disk: *mut bindings::gendisk) {
    // SAFETY: By the requirements of this function the disk is valid, and so is its device. The
    // count is read atomically.
    while unsafe { bindings::kref_read(&raw const (*(*disk).part0).bd_device.kobj.kref) } > 1 {
        fsleep(Delta::from_millis(1));
    }
}
