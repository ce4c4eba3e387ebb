// SPDX-License-Identifier: GPL-2.0

//! Ioctls that change or show the configuration of a bound device. They run in process context, may
//! sleep, and take the device's state lock, which partition scans and `LOOP_GET_STATUS` release
//! before they can block on other tasks or the file system.

use crate::{
    backing::{check_operations, Backing, Binding},
    cgroup_queue::LoopOps,
    config::{set_dma_alignment, Flag, Range},
    device::{exclusively, Device},
};
use kernel::{
    fs::File,
    prelude::*,
    sync::{aref::ARef, Arc},
    time::{delay::fsleep, Delta},
};
use kernel_ext::{
    block::{disk_ops::IoctlContext, GenDisk, SECTOR_SIZE},
    fs::FileExt,
    uapi::loop_::loop_info64,
};

/// How often a partition scan is retried while a partition is open, once a millisecond.
const SCAN_RETRIES: u32 = 1000;

/// Number of bytes at the start and at the end of a disk in which partition tables are.
const TABLE_SIZE: u64 = 1 << 20;

impl Device {
    /// Reports the size of the disk, which was `old` sectors: a change in the kernel log, and a
    /// uevent in any case.
    fn report_size(&self, disk: &GenDisk<LoopOps>, old: u64) {
        let new = disk.capacity();
        if old != new {
            pr_info!(
                "loop{}: detected capacity change from {old} to {new}\n",
                self.number()
            );
        }
        match old != new && old != 0 && new != 0 {
            true => disk.uevent_resize(),
            false => disk.uevent_change(),
        }
    }

    /// `LOOP_CHANGE_FD`: replaces the file of a read-only device by one of the same size.
    pub(crate) fn change_fd(&self, cx: &IoctlContext<'_, LoopOps>, fd: u32) -> Result {
        let file = cx.files.get(fd)?;
        check_operations(&file)?;
        let result = self.replace_file(cx.disk, &file);
        if let Ok(Some(size)) = result {
            // Reads of the old file may have filled the page cache after the media change. A
            // partition table is at the start of a disk, and a copy may be at its end.
            cx.disk.whole().invalidate_range(0..TABLE_SIZE);
            cx.disk
                .whole()
                .invalidate_range(size.saturating_sub(TABLE_SIZE)..size);
            self.reread_partitions(cx);
        }
        cx.disk.uevent_change();
        result.map(|_| ())
    }

    /// Replaces the file. Returns the size of the device in bytes if it is to be scanned for
    /// partitions.
    fn replace_file(&self, disk: &GenDisk<LoopOps>, file: &ARef<File>) -> Result<Option<u64>> {
        let old;
        let scan;
        {
            let _validate = self.lock_validate(file)?;
            let mut state = self.state.lock_killable()?;
            let bound = state.bound()?;
            if !bound.binding.flags.has(Flag::READ_ONLY) {
                return Err(EINVAL);
            }
            let file = self.validate(file)?;
            if bound.binding.range.sectors(&file) != bound.binding.sectors() {
                return Err(EINVAL);
            }
            let binding = Binding::new(
                Backing::new(&self.driver.mappings, self.number(), file)?,
                bound.binding.range,
                bound.binding.flags.clone(),
            )?;
            binding.update_direct(disk.queue().logical_block_size());
            if binding.flags.has(Flag::DIRECT_IO) {
                binding.prepare_direct();
            }
            disk.suppress_uevents(|| disk.force_media_change());
            disk.queue()
                .freeze(|| self.queues().bind(Some(binding.clone())));
            let size = binding.sectors().saturating_mul(SECTOR_SIZE.into());
            scan = binding.flags.has(Flag::PARTSCAN).then_some(size);
            old = core::mem::replace(&mut bound.binding, binding);
        }
        // Another device may still be looking at the old file.
        drop(self.driver.validate.lock());
        drop(old);
        Ok(scan)
    }

    /// Scans for partitions. Called without the state lock and without a claim of the device, for
    /// which an opener of a partition may wait. The scan fails with `EBUSY` while a partition of
    /// the previous medium is open, even one that was removed: a task that looked it up before can
    /// still open it. Tasks that probe partitions close them soon; an exclusive opener, such as a
    /// mount, does not.
    pub(crate) fn reread_partitions(&self, cx: &IoctlContext<'_, LoopOps>) {
        let whole = cx.disk.whole();
        // The caller may have a partition open, or the device exclusively.
        let may_retry = || {
            core::ptr::eq(cx.bdev, whole)
                && (cx.mode.is_exclusive() || !whole.has_holders())
                && !current!().signal_pending()
        };
        let mut result = cx.disk.reread_partitions();
        for _ in 0..SCAN_RETRIES {
            if result != Err(EBUSY) || !may_retry() {
                break;
            }
            fsleep(Delta::from_millis(1));
            result = cx.disk.reread_partitions();
        }
        if let Err(e) = result {
            self.warn_partitions(e);
        }
    }

    /// `LOOP_SET_STATUS64`: changes range, name and flags.
    pub(crate) fn set_status(&self, cx: &IoctlContext<'_, LoopOps>, info: &loop_info64) -> Result {
        let disk = cx.disk;
        let partscan = {
            let mut state = self.state.lock_killable()?;
            let bound = state.bound()?;
            let old = &bound.binding;
            let range = Range::from_info(info)?;
            let range_changed =
                range.offset != old.range.offset || range.sizelimit != old.range.sizelimit;
            if range_changed {
                let _ = disk.whole().sync();
                disk.whole().invalidate();
            }
            let flags = old.flags.set_status(info.lo_flags);
            let partscan = flags.has(Flag::PARTSCAN) && !old.flags.has(Flag::PARTSCAN);
            let new = Arc::new(
                Binding {
                    backing: old.backing.clone(),
                    range,
                    flags,
                },
                GFP_KERNEL,
            )?;
            let bind = || {
                new.update_direct(disk.queue().logical_block_size());
                self.queues().bind(Some(new.clone()));
            };
            let (old_size, new_size) = (disk.capacity(), new.sectors());
            // No request may access both ranges. A freeze waits for all I/O in flight, which can
            // take long, and is not needed for a change of flags or name. Detached bios that are
            // served afterwards are checked against the new size.
            match range_changed {
                true => disk.queue().freeze(|| {
                    bind();
                    disk.set_capacity(new_size);
                }),
                false => bind(),
            }
            bound.binding = new;
            if range_changed {
                self.report_size(disk, old_size);
            }
            partscan
        };
        if partscan {
            self.reread_partitions(cx);
        }
        Ok(())
    }

    /// `LOOP_GET_STATUS64`
    pub(crate) fn get_status(&self) -> Result<loop_info64> {
        let binding = self.state.lock_killable()?.bound()?.binding.clone();
        // Without the state lock, since the file system can block.
        let id = binding.file().id()?;
        Ok(loop_info64 {
            lo_device: id.dev.to_user(),
            lo_inode: id.ino,
            lo_rdevice: id.rdev.to_user(),
            lo_number: self.number(),
            lo_offset: binding.range.offset.unsigned_abs(),
            lo_sizelimit: binding.range.sizelimit.unsigned_abs(),
            lo_flags: binding.flags.bits(),
            lo_file_name: binding.range.name,
            ..Default::default()
        })
    }

    /// `LOOP_SET_CAPACITY`: updates the size of the device to that of the file.
    pub(crate) fn set_capacity(&self, disk: &GenDisk<LoopOps>) -> Result {
        let mut state = self.state.lock_killable()?;
        let old_size = disk.capacity();
        disk.set_capacity(state.bound()?.binding.sectors());
        self.report_size(disk, old_size);
        Ok(())
    }

    /// `LOOP_SET_DIRECT_IO`
    pub(crate) fn set_direct(&self, disk: &GenDisk<LoopOps>, on: bool) -> Result {
        let mut state = self.state.lock_killable()?;
        let binding = &state.bound()?.binding;
        if on == binding.flags.has(Flag::DIRECT_IO) {
            return Ok(());
        }
        if on {
            if !binding.can_direct(disk.queue().logical_block_size()) {
                return Err(EINVAL);
            }
            binding.prepare_direct();
        }
        let queue = disk.queue();
        queue.update_limits(|limits| {
            queue.freeze(|| {
                binding.flags.set(Flag::DIRECT_IO, on);
                set_dma_alignment(limits, binding.direct_alignment());
                let result = limits
                    .commit()
                    .inspect_err(|_| binding.flags.set(Flag::DIRECT_IO, !on));
                self.queues().flags_changed();
                result
            })
        })
    }

    /// `LOOP_SET_BLOCK_SIZE`
    pub(crate) fn set_block_size(&self, cx: &IoctlContext<'_, LoopOps>, size: usize) -> Result {
        exclusively(cx, || self.set_block_size_claimed(cx, size))
    }

    fn set_block_size_claimed(&self, cx: &IoctlContext<'_, LoopOps>, size: usize) -> Result {
        let mut state = self.state.lock_killable()?;
        let binding = &state.bound()?.binding;
        let queue = cx.disk.queue();
        if queue.logical_block_size() as usize == size {
            return Ok(());
        }
        let _ = cx.disk.whole().sync();
        cx.disk.whole().invalidate();
        queue.update_limits(|limits| {
            binding.limits().apply(limits, size as u32);
            queue.freeze(|| {
                let result = limits.commit();
                binding.update_direct(queue.logical_block_size());
                self.queues().flags_changed();
                result
            })
        })
    }
}
