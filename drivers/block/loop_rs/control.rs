// SPDX-License-Identifier: GPL-2.0

//! The registry of devices by number, and `/dev/loop-control`.

use crate::{
    cgroup_queue::LoopOps,
    device::{Device, DriverData},
    params::{hw_queue_depth, max_loop, max_part},
};
use kernel::{
    ffi::c_int,
    pr_warn_once,
    prelude::*,
    rbtree::{self, RBTree, RBTreeNode},
    sync::{Arc, ArcBorrow},
};
use kernel_ext::{
    block::{
        bdev::DevT,
        major::{Major, Probe},
        mq::{TagSet, TagSetOptions},
        Disk, DiskOptions, QueueLimits,
    },
    compat::ENOSYS,
    impl_has_driver_slot, miscdevice, new_killable_mutex,
    sync::KillableMutex,
    uapi::loop_::{LOOP_CTL_ADD, LOOP_CTL_GET_FREE, LOOP_CTL_REMOVE},
};

/// Number of bits of a minor number.
const MINORBITS: u32 = 20;

/// Maximum number of minors of a disk: one for the whole disk, one for each partition.
const DISK_MAX_PARTS: u32 = 256;

/// Maximum size of a request in sectors, as in the C driver.
const MAX_HW_SECTORS: u32 = 2560;

/// A registry entry.
enum Entry {
    /// The device is being added or removed. The number is in use.
    Hidden,
    /// The device exists.
    Visible(Disk<LoopOps>),
}

/// The registry of devices. Owns the disks.
#[pin_data]
pub(crate) struct Driver {
    /// Corresponds to the C driver's `loop_index_idr` and `loop_ctl_mutex`.
    #[pin]
    registry: KillableMutex<RBTree<u32, Entry>>,
    data: Arc<DriverData>,
    /// Log2 of the number of minors of a device.
    part_shift: u32,
}

impl Driver {
    /// Creates an empty registry, as configured by the module parameters.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the parameters need more minors than there are.
    pub(crate) fn new() -> Result<Arc<Self>> {
        // A negative value means 0, as in the C driver.
        let parts = max_part.value().max(0).unsigned_abs();
        let part_shift = u32::BITS - parts.leading_zeros();
        let minors = 1u32.checked_shl(part_shift).ok_or(EINVAL)?;
        if minors > DISK_MAX_PARTS
            || max_loop.value().unsigned_abs() > 1 << (MINORBITS - part_shift)
        {
            return Err(EINVAL);
        }
        if parts > 0 {
            // User space computes minors from the parameter. The whole disk has minor 0.
            max_part.set((minors - 1) as i32);
        }
        let data = DriverData::new(part_shift != 0)?;
        Arc::pin_init(
            pin_init!(Self {
                registry <- new_killable_mutex!(RBTree::new(), "loop_ctl_mutex"),
                data,
                part_shift,
            }),
            GFP_KERNEL,
        )
    }

    /// Adds a device with the given number, or the lowest free one. Returns the number. May sleep.
    ///
    /// # Errors
    ///
    /// `EEXIST` if the number is in use.
    pub(crate) fn add(self: &Arc<Self>, number: Option<u32>) -> Result<u32> {
        let number = self.reserve(number)?;
        let disk = match self.make_disk(number) {
            Ok(disk) => disk,
            Err(e) => {
                self.registry.lock().remove(&number);
                return Err(e);
            }
        };
        self.replace_entry(number, Entry::Visible(disk));
        Ok(number)
    }

    /// Reserves a number.
    fn reserve(&self, number: Option<u32>) -> Result<u32> {
        let reservation = rbtree::RBTreeNodeReservation::new(GFP_KERNEL)?;
        let mut registry = self.registry.lock_killable()?;
        let number = match number {
            Some(number) => number,
            None => {
                let mut free = 0;
                for taken in registry.keys() {
                    if *taken != free {
                        break;
                    }
                    free += 1;
                }
                free
            }
        };
        match registry.entry(number) {
            rbtree::Entry::Occupied(_) => Err(EEXIST),
            rbtree::Entry::Vacant(vacant) => {
                vacant.insert(Entry::Hidden, reservation);
                Ok(number)
            }
        }
    }

    /// Replaces the entry of a number that is in use.
    fn replace_entry(&self, number: u32, new: Entry) {
        if let Some(entry) = self.registry.lock().get_mut(&number) {
            *entry = new;
        }
    }

    fn make_disk(self: &Arc<Self>, number: u32) -> Result<Disk<LoopOps>> {
        let first_minor = number
            .checked_mul(1 << self.part_shift)
            .filter(|minor| *minor < 1 << MINORBITS)
            .ok_or(EINVAL)?;
        let device = Device::new(self.data.clone(), number)?;
        let tag_set = KBox::pin_init(
            TagSet::new(TagSetOptions {
                nr_hw_queues: 1,
                queue_depth: hw_queue_depth.value().unsigned_abs(),
                // queue_rq() can sleep, since it issues requests inline.
                blocking: true,
                stacking: true,
                no_scheduler: true,
            }),
            GFP_KERNEL,
        )?;
        let mut limits = QueueLimits::new();
        limits.set_max_hw_sectors(MAX_HW_SECTORS);
        Disk::add(
            fmt!("loop{number}"),
            DiskOptions {
                major: Major::<Self>::number().ok_or(ENODEV)?,
                first_minor,
                minors: 1 << self.part_shift,
                suppress_partition_scan: self.part_shift == 0,
                media_change_events: true,
                // Writeback throttling would make cgroups wait for each other's writeback.
                throttle_writeback: false,
            },
            limits,
            tag_set,
            device,
        )
    }

    /// Removes a device that is neither bound nor open. May sleep.
    fn remove(&self, number: u32) -> Result {
        let disk = {
            let mut registry = self.registry.lock_killable()?;
            let entry = registry.get_mut(&number).ok_or(ENODEV)?;
            match core::mem::replace(entry, Entry::Hidden) {
                Entry::Visible(disk) => disk,
                Entry::Hidden => return Err(ENODEV),
            }
        };
        if let Err(e) = disk.data().start_deleting(&disk) {
            self.replace_entry(number, Entry::Visible(disk));
            return Err(e);
        }
        drop(disk);
        self.registry.lock().remove(&number);
        Ok(())
    }

    /// Returns the number of an unbound device, which is added if there is none. May sleep.
    fn get_free(self: &Arc<Self>) -> Result<u32> {
        {
            let registry = self.registry.lock_killable()?;
            for (number, entry) in registry.iter() {
                // The device may be bound before the caller opens it. The caller tries again.
                if matches!(entry, Entry::Visible(disk) if disk.data().is_unbound()) {
                    return Ok(*number);
                }
            }
        }
        self.add(None)
    }

    /// Removes all devices when the module is unloaded. None of them is open. May sleep.
    pub(crate) fn remove_all(&self) {
        loop {
            let node: Option<RBTreeNode<u32, Entry>> = {
                let mut registry = self.registry.lock();
                registry
                    .cursor_front_mut()
                    .map(|cursor| cursor.remove_current().1)
            };
            // Dropping the node removes the disk. The registry is not locked.
            if node.is_none() {
                break;
            }
        }
    }
}

impl_has_driver_slot!(Driver);

impl Probe for Driver {
    /// Legacy autoload: opening a device node without a disk creates the disk, if its number is
    /// below `max_loop` or that parameter was not given or is 0. Process context, may sleep.
    fn probe(this: ArcBorrow<'_, Self>, dev: DevT) {
        let number = dev.minor() >> this.part_shift;
        let limit = max_loop.value().unsigned_abs();
        if max_loop.is_given() && limit != 0 && number >= limit {
            return;
        }
        // If this fails, so does the open.
        let _ = Arc::from(this).add(Some(number));
    }
}

/// The operations of `/dev/loop-control`.
pub(crate) struct Control(pub(crate) Arc<Driver>);

#[vtable]
impl miscdevice::Control for Control {
    type OwnerModule = crate::LocalModule;

    fn ioctl(&self, cmd: u32, arg: usize) -> Result<c_int> {
        // The argument is an int.
        let number = u32::try_from(arg as i32);
        let result = match cmd {
            LOOP_CTL_ADD => self.0.add(number.ok()),
            LOOP_CTL_REMOVE => match number {
                Ok(number) => self.0.remove(number).map(|()| 0),
                Err(_) => {
                    pr_warn_once!("deleting an unspecified loop device is not supported.\n");
                    Err(EINVAL)
                }
            },
            LOOP_CTL_GET_FREE => self.0.get_free(),
            _ => Err(ENOSYS),
        };
        Ok(result?.try_into()?)
    }
}

#[cfg(CONFIG_KUNIT = "y")]
mod tests;
