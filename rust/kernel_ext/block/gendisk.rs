// SPDX-License-Identifier: GPL-2.0

//! Disks, and what a driver does when they are opened, closed and controlled.
//!
//! C headers: [`include/linux/blkdev.h`](srctree/include/linux/blkdev.h)
//!
//! # Soundness
//!
//! | What safe code could try | What stops it |
//! | --- | --- |
//! | Keep a `&GenDisk` after a callback | It is lent for the call; an `ARef` keeps the disk |
//! | Use the disk's data after the disk | It is borrowed; it goes with the last reference |
//! | Use it in `queue_rq` when the request has ended | The removal waits for the callback, too |
//! | Take another type's disk for one's own | The address of its vtable tells ([`HasDiskVTable`]) |
//! | Remove a disk twice | Only dropping a [`Disk`] does, which is no `Clone` |
//! | Remove a disk in its own callback | Nothing; most wait for themselves |
//! | Keep an `ARef` when the disk is removed | The disk is freed when it is dropped |
//! | Remove a disk that is open | The disk is freed when it is last closed |
//! | Have the module unloaded before a disk is freed | The exit waits ([`ExitBarrier`]) |
//! | Free the tags before the requests end | The tag set goes after `del_gendisk`, which waits |
//! | Send events of a disk that another task removes | `in_sysfs` is ahead of that, or does nothing |
//! | Suppress events and never send them again | They are held back for the call of a closure |
//! | Read partitions without `open_mutex` | It is taken; [`Closing`] is lent where it is held |
//! | Use a [`Closing`] in another task | It is neither `Send` nor `Sync` |
//! | Take `open_mutex` where it is held | Nothing; it deadlocks, as lockdep tells |
//! | Take files of another task | [`IoctlContext`] is neither `Send` nor `Sync` |

use crate::{
    bindings,
    block::{
        bdev::{BlockDevice, OpenMode},
        major::MajorNumber,
        mq::{self, TagSet, Transfer as _},
        Queue, QueueLimits,
    },
    fs::FdTable,
    module::{ExitBarrier, HoldsModule, Registered},
    sync::read_once,
};
use core::{marker::PhantomData, ptr::NonNull};
use kernel::{
    error::{from_err_ptr, from_result, to_result, VTABLE_DEFAULT_ERROR},
    ffi::{c_int, c_uint, c_ulong, c_void},
    fmt,
    module::this_module,
    prelude::*,
    str::NullTerminatedFormatter,
    sync::{aref::AlwaysRefCounted, Arc, Completion, LockClassKey},
    task::might_sleep,
    time::{delay::fsleep, Delta},
    types::{ForeignOwnable, NotThreadSafe, Opaque},
};

type Borrowed<'a, T> = <<T as mq::Operations>::Data as ForeignOwnable>::Borrowed<'a>;

/// What a driver does with the disks it provides, beyond serving requests.
///
/// Corresponds to the C `struct block_device_operations`. All are called in process context and
/// may sleep.
#[vtable]
pub trait Operations: mq::Operations + HasDiskVTable {
    /// Somebody opens the disk or a partition of it. Called with the disk's `open_mutex` held.
    fn open(disk: &GenDisk<Self>, mode: OpenMode) -> Result;

    /// Somebody closed the disk or a partition of it.
    fn release(disk: Closing<'_, Self>);

    /// The disk was removed: there are no requests any more, and will not be. What still refers to
    /// it on the driver's behalf ends here at the latest: the removal waits for that.
    fn removed(_disk: &GenDisk<Self>) {}

    /// An ioctl that the block layer does not handle by itself.
    ///
    /// # Errors
    ///
    /// `ENOTTY`, or what the driver's interface says, for one that is not known.
    fn ioctl(cx: &IoctlContext<'_, Self>, cmd: u32, arg: usize) -> Result<c_int>;

    /// As [`ioctl`](Self::ioctl), for a 32-bit task; pointers are not converted.
    fn compat_ioctl(_cx: &IoctlContext<'_, Self>, _cmd: u32, _arg: usize) -> Result<c_int> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// Where an ioctl comes from. Lent by the block layer for the call, and made here alone.
pub struct IoctlContext<'a, T: Operations> {
    /// The disk.
    pub disk: &'a GenDisk<T>,
    /// The disk or partition that was opened.
    pub bdev: &'a BlockDevice,
    /// How it was opened.
    pub mode: OpenMode,
    /// The calling task's file descriptors.
    pub files: FdTable,
    // Nobody else can make one.
    _private: NotThreadSafe,
}

/// A disk.
///
/// Wraps the C `struct gendisk`.
///
/// # Invariants
///
/// The disk was made by [`Disk::add`] with operations `T`: its `private_data` is a [`Private`], which
/// holds what its queue's `queuedata` borrows. It is valid for as long as there is a reference to it.
#[repr(transparent)]
pub struct GenDisk<T: Operations> {
    disk: Opaque<bindings::gendisk>,
    // A disk of a subtype is none of the type: its data is another.
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

    /// The last reference may be dropped only where it may sleep.
    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The caller owns a reference and gives it up.
        unsafe { bindings::put_disk(obj.as_ptr().cast()) }
    }
}

impl<T: Operations> mq::Request<T> {
    /// The disk that the request is for.
    pub fn disk(&self) -> &GenDisk<T> {
        // SAFETY: A request in flight keeps its disk, which is one of operations `T` as the
        // request's queue is.
        unsafe { GenDisk::from_raw((*(*self.as_raw()).q).disk) }
    }
}

impl<T: Operations> mq::DetachedIo<T> {
    /// The disk that the I/O is for.
    pub fn disk(&self) -> &GenDisk<T> {
        // SAFETY: I/O in flight keeps the disk, which is one of operations `T` as its queue is.
        unsafe { GenDisk::from_raw((*self.queue().as_raw()).disk) }
    }
}

impl<T: Operations> mq::BoxedIo<T> {
    /// The disk that the I/O is for.
    pub fn disk(&self) -> &GenDisk<T> {
        // SAFETY: As for `DetachedIo`.
        unsafe { GenDisk::from_raw((*self.queue().as_raw()).disk) }
    }
}

impl<T: Operations> mq::Detached<T> {
    /// The disk that the bios are for.
    pub fn disk(&self) -> &GenDisk<T> {
        // SAFETY: Whoever submitted the bios has the disk, which is one of operations `T`, open until
        // they complete.
        unsafe { GenDisk::from_raw(self.disk_raw()) }
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

    /// Runs `f` while the disk stays in sysfs; returns `None`, without running it, when the disk is
    /// being removed. May sleep; must not be called in `f`, or by what `f` waits for.
    ///
    /// What is sent or shown as the disk's follows the names and parents of its device, which go
    /// as the disk is removed. That has marked the disk dead before, and takes the device's lock in
    /// between: who has the lock and finds the disk alive is ahead of it.
    pub(super) fn in_sysfs<R>(&self, f: impl FnOnce() -> R) -> Option<R> {
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

    /// Sets the capacity in sectors, and tells nobody. In process context; does not sleep.
    ///
    /// Wraps the C function `set_capacity`.
    pub fn set_capacity(&self, sectors: u64) {
        // SAFETY: By the type invariant the disk is valid.
        unsafe { bindings::set_capacity(self.as_raw(), sectors) }
    }

    /// Sets the capacity in sectors and tells user space; returns whether that was an event. Does
    /// nothing when the disk is being removed. May sleep.
    ///
    /// Wraps the C function `set_capacity_and_notify`.
    pub fn set_capacity_and_notify(&self, sectors: u64) -> bool {
        // SAFETY: By the type invariant the disk is valid; it is in sysfs, as an event needs.
        self.in_sysfs(|| unsafe { bindings::set_capacity_and_notify(self.as_raw(), sectors) })
            .unwrap_or(false)
    }

    /// Makes the disk read-only or writable, and tells user space. Does nothing when the disk is
    /// being removed. May sleep.
    ///
    /// Wraps the C function `set_disk_ro`.
    pub fn set_read_only(&self, read_only: bool) {
        // SAFETY: By the type invariant the disk is valid; it is in sysfs, as an event needs.
        self.in_sysfs(|| unsafe { bindings::set_disk_ro(self.as_raw(), read_only) });
    }

    /// Says that the disk has other contents than before. Does nothing when the disk is being
    /// removed, which says the same. May sleep.
    ///
    /// Wraps the C function `disk_force_media_change`.
    pub fn force_media_change(&self) {
        // SAFETY: By the type invariant the disk is valid; it is in sysfs, as an event needs.
        self.in_sysfs(|| unsafe { bindings::disk_force_media_change(self.as_raw()) });
    }

    /// Drops all that is cached of the disk, and its capacity. May sleep.
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
        // A lost uevent is nothing to handle.
        self.in_sysfs(|| {
            // SAFETY: By the type invariant the disk is valid; it is in sysfs, as an event needs.
            unsafe {
                bindings::kobject_uevent(self.kobject(), bindings::kobject_action_KOBJ_CHANGE)
            }
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
        // `device_add_disk()` ends with setting this bit, after its own events: until then the events
        // of a disk that is in use already are not held back.
        //
        // SAFETY: By the type invariant the disk is valid; the bits may be changing.
        let state = unsafe { read_once(&raw const (*self.as_raw()).state) };
        if state & (1 << bindings::GD_ADDED) == 0 {
            return;
        }
        // SAFETY: By the type invariant the disk's device is valid. The bit shares a word with those
        // that say whether the device is in sysfs, and whether it was announced, which stay as they
        // are meanwhile; all others who change this bit now have the device's lock, too.
        self.in_sysfs(|| unsafe { bindings::dev_set_uevent_suppress(self.device(), on.into()) });
    }

    /// Keeps the block layer from looking for partitions by itself, or not.
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

    /// Reads the partition table again. Takes the disk's `open_mutex`, so not for `open` and
    /// `release`, where it is held; may sleep.
    ///
    /// Wraps the C function `bdev_disk_changed`.
    pub fn reread_partitions(&self) -> Result {
        // SAFETY: By the type invariant the disk is valid, and its `open_mutex` is initialised.
        unsafe {
            let lock = &raw mut (*self.as_raw()).open_mutex;
            bindings::mutex_lock(lock);
            let ret = bindings::bdev_disk_changed(self.as_raw(), false);
            bindings::mutex_unlock(lock);
            to_result(ret)
        }
    }
}

/// A disk that is being closed: its `open_mutex` is held, by the current task.
pub struct Closing<'a, T: Operations> {
    disk: &'a GenDisk<T>,
    _not_send: NotThreadSafe,
}

impl<T: Operations> Closing<'_, T> {
    /// Reads the partition table again, under the `open_mutex` that is held already. May sleep.
    ///
    /// Wraps the C function `bdev_disk_changed`.
    pub fn reread_partitions_locked(&self) -> Result {
        // SAFETY: The disk is valid, and its `open_mutex` is held while it is being closed.
        to_result(unsafe { bindings::bdev_disk_changed(self.disk.as_raw(), false) })
    }
}

impl<T: Operations> core::ops::Deref for Closing<'_, T> {
    type Target = GenDisk<T>;

    fn deref(&self) -> &GenDisk<T> {
        self.disk
    }
}

// SAFETY: The block layer makes one for the call of `release`, and gives up the module, which it holds
// for who had the disk open, after that. It is neither `Send` nor `Sync`.
unsafe impl<T: Operations> HoldsModule<<T as Operations>::OwnerModule> for Closing<'_, T> {}

// SAFETY: `OperationsVTable::context` alone makes one, lent for the call of `ioctl` or `compat_ioctl`,
// during which the disk is open and the block layer holds the module. It is neither `Send` nor `Sync`.
unsafe impl<T: Operations> HoldsModule<<T as Operations>::OwnerModule> for IoctlContext<'_, T> {}

impl BlockDevice {
    /// Returns the disk that this is, or is a partition of, if it is one with operations `T`.
    pub fn disk<T: Operations>(&self) -> Option<&GenDisk<T>> {
        // SAFETY: A block device has its disk for as long as it exists.
        let disk = unsafe { (*self.as_raw()).bd_disk };
        // SAFETY: As above; the operations are set before the disk can be found.
        if unsafe { (*disk).fops } != &raw const T::vtable().0 {
            return None;
        }
        // SAFETY: `Disk::add` alone sets this vtable, for disks with operations `T`.
        Some(unsafe { GenDisk::from_raw(disk) })
    }
}

/// How a [`Disk`] presents itself.
pub struct DiskOptions {
    /// The major number. The driver adds no disks once it has given the number back.
    pub major: MajorNumber,
    /// The minor number of the whole disk.
    pub first_minor: u32,
    /// How many minor numbers are the disk's.
    pub minors: u32,
    /// Whether the block layer is not to look for partitions by itself.
    pub suppress_partition_scan: bool,
    /// Whether changes of the medium are told to user space.
    pub media_change_events: bool,
    /// Whether writeback is throttled by default, where the kernel is built so. It has one budget for
    /// all of the disk's submitters: a disk that passes its I/O on leaves that to the disks below.
    pub throttle_writeback: bool,
}

/// What a disk holds, freed with it.
struct Private {
    /// The foreign form of a `T::Data`.
    data: *mut c_void,
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
    // Requests are part of the tag set, so it goes after the disk.
    tag_set: Pin<KBox<TagSet<T>>>,
}

// SAFETY: A disk may be removed by another task than the one that added it.
unsafe impl<T: Operations> Send for Disk<T> {}
// SAFETY: All that a shared disk gives access to is `Sync`.
unsafe impl<T: Operations> Sync for Disk<T> {}

impl<T: Operations> Disk<T> {
    /// Makes a disk and adds it to the system. Devices and partitions may be opened, and requests
    /// come in, before this function returns. May sleep.
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
        // SAFETY: The tag set is allocated, and stays so until the disk is gone. `data` is valid
        // until then, too.
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
            // Others can have seen the disk in sysfs, and hold a reference for a moment. Freeing it takes
            // the tag set, so that the last reference must be ours. No callback tells: a disk that was
            // not added has none.
            //
            // SAFETY: We own a reference.
            unsafe { wait_for_other_references(disk) };
            // SAFETY: We own the disk's reference.
            unsafe { bindings::put_disk(disk) };
            // SAFETY: A disk that was not added does not call `free_disk`, nor could it be opened, so
            // that the data is still ours.
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

    /// Drops the data of a disk, and tells.
    ///
    /// # Safety
    ///
    /// `private` is that of a disk with operations `T`, and not used any more.
    unsafe fn free(private: *mut Private) {
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
        disk.fops = &raw const T::vtable().0;
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
    /// Removes the disk: waits for its requests and, unless it is open, until it is freed, as others may
    /// look at it for a moment. May sleep.
    ///
    /// Wraps the C function `del_gendisk`.
    fn drop(&mut self) {
        // SAFETY: By the type invariant the disk was added and not yet deleted.
        unsafe { bindings::del_gendisk(self.disk.as_ptr()) };
        // All requests have ended, and still somebody can be in the callback that was handed one, with
        // the disk's data.
        //
        // SAFETY: The tag set is ours.
        unsafe { bindings::blk_mq_wait_quiesce_done(self.tag_set.as_raw()) };
        T::removed(self);
        let is_open = self.openers() > 0;
        // SAFETY: By the type invariant we own a reference. Whoever else holds one keeps the
        // disk's data until `free_disk`.
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
    // SAFETY: By the requirements of this function the disk is valid, and so is its device. The count is
    // read atomically.
    while unsafe { bindings::kref_read(&raw const (*(*disk).part0).bd_device.kobj.kref) } > 1 {
        fsleep(Delta::from_millis(1));
    }
}

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
}

/// Says where the C vtable of disks with operations `Self` is: its address tells which operations a disk
/// has. Implemented by [`impl_disk_vtable!`](crate::impl_disk_vtable).
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
        unsafe impl $crate::block::gendisk::HasDiskVTable for $ops {
            fn vtable() -> &'static $crate::block::gendisk::DiskVTable<Self> {
                static VTABLE: $crate::block::gendisk::DiskVTable<$ops> =
                    $crate::block::gendisk::DiskVTable::new();
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
        T::release(Closing {
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
