// SPDX-License-Identifier: GPL-2.0

//! The devices by number, and `/dev/loop-control`.

use crate::{
    device::{Device, LoopOps},
    params::{hw_queue_depth, max_loop, max_part},
};
use kernel::{
    debugfs::Dir,
    ffi::c_int,
    pr_warn_once,
    prelude::*,
    rbtree::{self, RBTree, RBTreeNode},
    sync::{Arc, ArcBorrow},
};
use kernel_ext::{
    block::{
        bdev::DevT,
        major::Probe,
        mq::{TagSet, TagSetOptions},
        Disk, DiskOptions, QueueLimits,
    },
    fs::NoioMappings,
    impl_has_driver_slot, miscdevice, new_killable_mutex,
    sync::KillableMutex,
    uapi::loop_::{LOOP_CTL_ADD, LOOP_CTL_GET_FREE, LOOP_CTL_REMOVE, LOOP_MAJOR},
};

/// Bits of a minor number.
const MINORBITS: u32 = 20;

/// The most partitions, the whole disk among them, that a disk can have in its own minors.
const DISK_MAX_PARTS: u32 = 256;

/// The largest request, in sectors: what the block layer long had for its own.
const MAX_HW_SECTORS: u32 = 2560;

/// A number of a device.
enum Entry {
    /// The device is being added or removed: the number is taken, and nothing else can be done.
    Hidden,
    /// The device is there.
    Visible(Disk<LoopOps>),
}

/// What all devices share.
#[pin_data]
pub(crate) struct Driver {
    /// Corresponds to the C driver's `loop_index_idr` and `loop_ctl_mutex`.
    #[pin]
    registry: KillableMutex<RBTree<u32, Entry>>,
    /// Held while a device looks at what other devices are bound to.
    #[pin]
    pub(crate) validate: KillableMutex<()>,
    /// `/sys/kernel/debug/loop_rs`
    pub(crate) debugfs: Dir,
    /// The backing files' mappings.
    pub(crate) mappings: Arc<NoioMappings>,
    /// Log2 of the minors of a device.
    part_shift: u32,
}

impl Driver {
    /// Reads the module parameters.
    ///
    /// # Errors
    ///
    /// `EINVAL` when there are no minor numbers for what they ask for.
    pub(crate) fn new() -> Result<Arc<Self>> {
        // Negative is none, as ever.
        let parts = max_part.value().max(0).unsigned_abs();
        let part_shift = u32::BITS - parts.leading_zeros();
        let minors = 1u32.checked_shl(part_shift).ok_or(EINVAL)?;
        if minors > DISK_MAX_PARTS
            || max_loop.value().unsigned_abs() > 1 << (MINORBITS - part_shift)
        {
            return Err(EINVAL);
        }
        if parts > 0 {
            // User space computes minor numbers from it; partition 0 is the whole disk.
            max_part.set((minors - 1) as i32);
        }
        let mappings = Arc::pin_init(NoioMappings::new(), GFP_KERNEL)?;
        Arc::pin_init(
            pin_init!(Self {
                registry <- new_killable_mutex!(RBTree::new(), "loop_ctl_mutex"),
                validate <- new_killable_mutex!((), "loop_validate_mutex"),
                debugfs: Dir::new(c"loop_rs"),
                mappings,
                part_shift,
            }),
            GFP_KERNEL,
        )
    }

    /// Whether all devices are scanned for partitions.
    pub(crate) fn scans_partitions(&self) -> bool {
        self.part_shift != 0
    }

    /// Adds a device of the given number, or of the lowest free one; returns its number. May sleep.
    ///
    /// # Errors
    ///
    /// `EEXIST` when there is one of that number.
    pub(crate) fn add(self: &Arc<Self>, number: Option<u32>) -> Result<u32> {
        let number = self.reserve(number)?;
        let disk = match self.make_disk(number) {
            Ok(disk) => disk,
            Err(e) => {
                self.registry.lock().remove(&number);
                return Err(e);
            }
        };
        self.put(number, Entry::Visible(disk));
        Ok(number)
    }

    /// Takes a number.
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

    /// Replaces the entry of a number that is taken.
    fn put(&self, number: u32, entry: Entry) {
        if let Some(slot) = self.registry.lock().get_mut(&number) {
            *slot = entry;
        }
    }

    fn make_disk(self: &Arc<Self>, number: u32) -> Result<Disk<LoopOps>> {
        let first_minor = number
            .checked_mul(1 << self.part_shift)
            .filter(|minor| *minor < 1 << MINORBITS)
            .ok_or(EINVAL)?;
        let device = Device::new(self.clone(), number)?;
        let tag_set = KBox::pin_init(
            TagSet::new(TagSetOptions {
                nr_hw_queues: 1,
                queue_depth: hw_queue_depth.value().unsigned_abs(),
                // What its own submitter can do at once is done where it is submitted.
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
                major: LOOP_MAJOR,
                first_minor,
                minors: 1 << self.part_shift,
                suppress_partition_scan: !self.scans_partitions(),
                media_change_events: true,
                // One cgroup's writeback would wait for another's.
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
            self.put(number, Entry::Visible(disk));
            return Err(e);
        }
        drop(disk);
        self.registry.lock().remove(&number);
        Ok(())
    }

    /// Returns the number of a device that is not bound, which is added when there is none. May
    /// sleep.
    fn get_free(self: &Arc<Self>) -> Result<u32> {
        {
            let registry = self.registry.lock_killable()?;
            for (number, entry) in registry.iter() {
                // It may be bound by the time the caller gets there, which tries again then.
                if matches!(entry, Entry::Visible(disk) if disk.data().is_unbound()) {
                    return Ok(*number);
                }
            }
        }
        self.add(None)
    }

    /// Removes all devices when the module is unloaded: nobody has one open. May sleep.
    pub(crate) fn remove_all(&self) {
        loop {
            let node: Option<RBTreeNode<u32, Entry>> = {
                let mut registry = self.registry.lock();
                registry
                    .cursor_front_mut()
                    .map(|cursor| cursor.remove_current().1)
            };
            // Dropped, and the disk removed, without the lock.
            if node.is_none() {
                break;
            }
        }
    }
}

impl_has_driver_slot!(Driver);

impl Probe for Driver {
    /// Opening a dead node makes its device, up to `max_loop` when that was given.
    fn probe(this: ArcBorrow<'_, Self>, dev: DevT) {
        let number = dev.minor() >> this.part_shift;
        let limit = max_loop.value().unsigned_abs();
        if max_loop.is_given() && limit != 0 && number >= limit {
            return;
        }
        // The open fails when this does.
        let _ = Arc::from(this).add(Some(number));
    }
}

/// What `/dev/loop-control` talks to.
pub(crate) struct Control(pub(crate) Arc<Driver>);

#[vtable]
impl miscdevice::Control for Control {
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
