// SPDX-License-Identifier: GPL-2.0

//! Disks, as lent to their users.
//!
//! C header: [`include/linux/blkdev.h`](srctree/include/linux/blkdev.h)
//!
//! # Soundness
//!
//! | What safe code could try | What stops it |
//! | --- | --- |
//! | Keep a `&GenDisk` after a callback | It is lent for the call; an `ARef` keeps the disk |
//! | Use the disk's data after the disk is freed | The data is borrowed from the disk |
//! | Use it in `queue_rq` after the request completed | The removal waits for the callback, too |
//! | Take another type's disk for one's own | The address of its vtable tells ([`HasDiskVTable`]) |
//! | Drop the last `ARef` where it may not sleep | Nothing; `disk_release()` has a `might_sleep()` |
//! | Send events of a disk that another task removes | [`GenDisk::with_live_device`] excludes the removal |
//! | Suppress events and never send them again | They are suppressed for the call of a closure |
//! | Scan for partitions without `open_mutex` | It is taken; [`ReleaseContext`] is lent where it is held |
//! | Take `open_mutex` where it is held | Nothing; it deadlocks, and lockdep reports it |
//!
//! [`HasDiskVTable`]: super::HasDiskVTable
//! [`ReleaseContext`]: super::ReleaseContext

use super::{
    bdev::BlockDevice,
    disk::Private,
    disk_ops::Operations,
    mq,
    Queue, //
};
use crate::{bindings, sync::read_once};
use core::{
    marker::PhantomData,
    ptr::{self, NonNull},
};
use kernel::{
    error::to_result,
    prelude::*,
    sync::aref::AlwaysRefCounted,
    types::{ForeignOwnable, Opaque},
};

type Borrowed<'a, T> = <<T as mq::Operations>::Data as ForeignOwnable>::Borrowed<'a>;

/// A disk. An [`ARef`](kernel::sync::aref::ARef) to it must be dropped in process context: freeing
/// the disk may sleep.
///
/// Wraps the C `struct gendisk`.
///
/// # Invariants
///
/// [`Disk::add`](super::Disk::add) made the disk, with operations `T`: its `private_data` is a
/// [`Private`], which holds what its queue's `queuedata` borrows. The disk is valid for as long as
/// there is a reference to it.
#[repr(transparent)]
pub struct GenDisk<T: Operations> {
    disk: Opaque<bindings::gendisk>,
    // Invariant in `T`: the data of a subtype's disk has another type.
    _p: PhantomData<fn(T) -> T>,
}

// SAFETY: The C functions called on a `struct gendisk` below do their own locking, and `T::Data`
// is `Send` and `Sync`.
unsafe impl<T: Operations> Send for GenDisk<T> {}
// SAFETY: As above.
unsafe impl<T: Operations> Sync for GenDisk<T> {}

// SAFETY: The references of a disk are those of its device.
unsafe impl<T: Operations> AlwaysRefCounted for GenDisk<T> {
    fn inc_ref(&self) {
        // SAFETY: By the type invariant the device is valid.
        unsafe { bindings::get_device(self.device()) };
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The caller owns a reference and gives it up.
        unsafe { bindings::put_disk(obj.as_ptr().cast()) }
    }
}

impl<T: Operations> GenDisk<T> {
    /// # Safety
    ///
    /// `ptr` points to a disk for which the type invariants hold for `'a`.
    pub(crate) unsafe fn from_raw<'a>(ptr: *mut bindings::gendisk) -> &'a Self {
        // SAFETY: By the requirements above, and `Self` is transparent.
        unsafe { &*ptr.cast() }
    }

    pub(crate) fn as_raw(&self) -> *mut bindings::gendisk {
        self.disk.get()
    }

    fn device(&self) -> *mut bindings::device {
        // SAFETY: By the type invariant the disk is valid, and so is its whole-disk device.
        unsafe { &raw mut (*(*self.as_raw()).part0).bd_device }
    }

    pub(crate) fn kobject(&self) -> *mut bindings::kobject {
        // SAFETY: By the type invariant the disk's device is valid.
        unsafe { &raw mut (*self.device()).kobj }
    }

    /// The driver's data.
    pub fn data(&self) -> Borrowed<'_, T> {
        // SAFETY: By the type invariant, and the disk holds the data until it is freed.
        unsafe { T::Data::borrow((*(*self.as_raw()).private_data.cast::<Private>()).data) }
    }

    /// The disk's request queue.
    pub fn queue(&self) -> &Queue {
        // SAFETY: A disk has a queue for as long as it exists.
        unsafe { Queue::from_raw((*self.as_raw()).queue) }
    }

    /// The block device that is the whole disk.
    pub fn whole(&self) -> &BlockDevice {
        // SAFETY: A disk has its whole-disk device for as long as it exists.
        unsafe { BlockDevice::from_raw((*self.as_raw()).part0) }
    }

    /// How many times the disk and its partitions are open.
    ///
    /// Wraps the C function `disk_openers`.
    pub fn openers(&self) -> u32 {
        // SAFETY: By the type invariant the disk is valid.
        unsafe { bindings::disk_openers(self.as_raw()) }
    }

    /// Runs `f` while the disk's device stays in sysfs; returns `None`, without running it, if the
    /// disk is being removed. May sleep. Takes the device's lock: must not be called in `f`, nor by
    /// what `f` waits for.
    ///
    /// `kobject_uevent()` and `sysfs_create_group()` walk the device's parents. `del_gendisk()`
    /// sets `GD_DEAD` before `device_del()` takes the device's lock. Holding the lock with
    /// `GD_DEAD` clear therefore excludes `device_del()`.
    pub(super) fn with_live_device<R>(&self, f: impl FnOnce() -> R) -> Option<R> {
        let device = self.device();
        // SAFETY: By the type invariant the disk's device is valid, and its lock is initialised.
        unsafe { bindings::device_lock(device) };
        // SAFETY: By the type invariant the disk is valid. The bits change atomically.
        let state = unsafe { read_once(&raw const (*self.as_raw()).state) };
        let result = (state & (1 << bindings::GD_DEAD) == 0).then(f);
        // SAFETY: The lock was taken above, by this task.
        unsafe { bindings::device_unlock(device) };
        result
    }

    /// The capacity in sectors. Any context.
    ///
    /// Wraps the C function `get_capacity`.
    pub fn capacity(&self) -> u64 {
        // SAFETY: By the type invariant the disk is valid.
        unsafe { bindings::get_capacity(self.as_raw()) }
    }

    /// Sets the capacity in sectors, without an event or a message. Process context; does not
    /// sleep.
    ///
    /// Wraps the C function `set_capacity`.
    pub fn set_capacity(&self, sectors: u64) {
        // SAFETY: By the type invariant the disk is valid.
        unsafe { bindings::set_capacity(self.as_raw(), sectors) }
    }

    /// Makes the disk read-only or writable, and sends a `change` uevent. Does nothing if the disk
    /// is being removed. May sleep.
    ///
    /// Wraps the C function `set_disk_ro`.
    pub fn set_read_only(&self, read_only: bool) {
        // SAFETY: By the type invariant the disk is valid, and it stays in sysfs.
        self.with_live_device(|| unsafe { bindings::set_disk_ro(self.as_raw(), read_only) });
    }

    /// Reports a change of the medium: a new sequence number, and a `change` uevent. Drops the page
    /// cache of the disk. Does nothing if the disk is being removed. May sleep.
    ///
    /// Wraps the C function `disk_force_media_change`.
    pub fn force_media_change(&self) {
        // SAFETY: By the type invariant the disk is valid, and it stays in sysfs.
        self.with_live_device(|| unsafe { bindings::disk_force_media_change(self.as_raw()) });
    }

    /// Drops the page cache of the disk, and sets its capacity to 0. May sleep.
    ///
    /// Wraps the C function `invalidate_disk`.
    pub fn invalidate(&self) {
        // SAFETY: By the type invariant the disk is valid.
        unsafe { bindings::invalidate_disk(self.as_raw()) }
    }

    /// Sends a `change` uevent for the disk, unless it is being removed. May sleep.
    ///
    /// Wraps the C function `kobject_uevent`.
    pub fn uevent_change(&self) {
        self.send_change(&mut [ptr::null_mut()]);
    }

    /// Sends the `change` uevent of a new capacity, `RESIZE=1`, unless the disk is being removed.
    /// May sleep.
    ///
    /// Corresponds to the event of the C function `set_capacity_and_notify`.
    pub fn uevent_resize(&self) {
        self.send_change(&mut [c"RESIZE=1".as_char_ptr().cast_mut(), ptr::null_mut()]);
    }

    /// Sends a `change` uevent with a list of variables, which ends with a null pointer.
    fn send_change(&self, variables: &mut [*mut c_char]) {
        let change = bindings::kobject_action_KOBJ_CHANGE;
        // Nobody can handle the failure of an event.
        self.with_live_device(|| {
            // SAFETY: By the type invariant the disk is valid, and it stays in sysfs. The callers
            // pass strings and a null pointer, and the function only reads the strings.
            unsafe { bindings::kobject_uevent_env(self.kobject(), change, variables.as_mut_ptr()) }
        });
    }

    /// Runs `f`; the disk sends no uevents meanwhile. Does not nest: the inner call ends the outer
    /// one's effect. May sleep.
    ///
    /// Wraps the C function `dev_set_uevent_suppress`.
    pub fn suppress_uevents<R>(&self, f: impl FnOnce() -> R) -> R {
        self.set_uevent_suppress(true);
        let ret = f();
        self.set_uevent_suppress(false);
        ret
    }

    fn set_uevent_suppress(&self, on: bool) {
        // `device_add_disk()` changes the same word, without the device's lock, until it sets this
        // bit. A disk that is configured before that is not silenced.
        //
        // SAFETY: By the type invariant the disk is valid; the bits may be changing.
        let state = unsafe { read_once(&raw const (*self.as_raw()).state) };
        if state & (1 << bindings::GD_ADDED) == 0 {
            return;
        }
        // SAFETY: By the type invariant the disk's device is valid. The bit shares a word with
        // `state_in_sysfs` and `state_*_uevent_sent`, which do not change while the device stays in
        // sysfs. The device's lock excludes others who set this bit.
        self.with_live_device(|| unsafe {
            bindings::dev_set_uevent_suppress(self.device(), on.into())
        });
    }

    /// Keeps the block layer from scanning for partitions when the disk is opened
    /// (`GD_SUPPRESS_PART_SCAN`), or lets it. Any context.
    pub fn suppress_partition_scan(&self, on: bool) {
        let nr = bindings::GD_SUPPRESS_PART_SCAN as usize;
        // SAFETY: By the type invariant the disk is valid; the bit operations are atomic.
        unsafe {
            let state = &raw mut (*self.as_raw()).state;
            if on {
                bindings::set_bit(nr, state);
            } else {
                bindings::clear_bit(nr, state);
            }
        }
    }

    /// Scans for partitions, and lets others do so from then on: no scan of theirs comes before
    /// this one. Takes the disk's `open_mutex`, which is held in `open` and `release`. May sleep.
    ///
    /// # Errors
    ///
    /// `EBUSY` if a partition is open.
    ///
    /// Wraps the C function `bdev_disk_changed`.
    pub fn reread_partitions(&self) -> Result {
        // SAFETY: By the type invariant the disk is valid, and its `open_mutex` is initialised.
        unsafe {
            let lock = &raw mut (*self.as_raw()).open_mutex;
            bindings::mutex_lock(lock);
            self.suppress_partition_scan(false);
            let ret = bindings::bdev_disk_changed(self.as_raw(), false);
            bindings::mutex_unlock(lock);
            to_result(ret)
        }
    }
}

impl BlockDevice {
    /// Returns the disk that this is, or is a partition of, if it is one with operations `T`.
    pub fn disk<T: Operations>(&self) -> Option<&GenDisk<T>> {
        // SAFETY: A block device has its disk for as long as it exists.
        let disk = unsafe { (*self.as_raw()).bd_disk };
        // SAFETY: As above; the operations are set before the disk can be found.
        if unsafe { (*disk).fops } != T::vtable().as_raw() {
            return None;
        }
        // SAFETY: `Disk::add` alone sets this vtable, for disks with operations `T`.
        Some(unsafe { GenDisk::from_raw(disk) })
    }
}
