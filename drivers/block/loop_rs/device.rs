// SPDX-License-Identifier: GPL-2.0

//! A device: its states, and the transitions between them. Ioctls that change a bound device are in
//! [`reconfigure`](crate::reconfigure).
//!
//! ```text
//!              configure                 clear, or last close with autoclear
//!   Unbound ---------------> Bound ---------------------------------> Rundown
//!     |  ^                                                               |
//!     |  +------------------------- last close --------------------------+
//!     |
//!     +---> Deleting
//! ```

use crate::{
    backing::{check_operations, Backing, Binding, OwnedFile},
    cgroup_queue::{CgroupQueues, LoopOps},
    config::{Flag, Flags, Range},
    debugfs::DebugDir,
    params::idle_worker_timeout_ms,
    queue_set::CgroupQueuesOwner,
    sysfs, LoopModule,
};
use kernel::{
    debugfs::Dir,
    fs::File,
    prelude::*,
    str::CString,
    sync::{
        aref::ARef,
        atomic::{Atomic, Relaxed},
        Arc, ArcBorrow, SetOnce,
    },
    time::msecs_to_jiffies,
};
use kernel_ext::{
    block::{
        disk_ops::{IoctlContext, ReleaseContext},
        GenDisk, SECTOR_SIZE,
    },
    fs::{BackingFile, FileExt, NoioMappings},
    module::ModuleRef,
    new_killable_mutex,
    sync::{KillableGuard, KillableMutex},
    uapi::loop_::LoopConfig,
};

/// State that all devices share.
#[pin_data]
pub(crate) struct DriverData {
    /// Held while a device looks at the backing files of other devices. Corresponds to the C
    /// driver's `loop_validate_mutex`.
    #[pin]
    pub(crate) validate: KillableMutex<()>,
    /// `/sys/kernel/debug/loop_rs`
    debugfs: Dir,
    /// The page cache mappings of all backing files.
    pub(crate) mappings: Arc<NoioMappings>,
    /// All devices are scanned for partitions.
    scan_partitions: bool,
}

impl DriverData {
    pub(crate) fn new(scan_partitions: bool) -> Result<Arc<Self>> {
        let mappings = Arc::pin_init(NoioMappings::new(), GFP_KERNEL)?;
        Arc::pin_init(
            pin_init!(Self {
                validate <- new_killable_mutex!((), "loop_validate_mutex"),
                debugfs: Dir::new(c"loop_rs"),
                mappings,
                scan_partitions,
            }),
            GFP_KERNEL,
        )
    }
}

/// The part of a device's state that exists while a file is attached.
pub(crate) struct Bound {
    pub(crate) binding: Arc<Binding>,
    /// The sysfs attributes were added.
    attributes: bool,
    module: ModuleRef<LoopModule>,
}

/// The state of a device. Corresponds to the C driver's `lo_state`.
pub(crate) enum State {
    /// No file is attached.
    Unbound,
    /// A file is attached.
    Bound(Bound),
    /// A file is attached. The device cannot be opened, and the last close unbinds it.
    Rundown(Bound),
    /// The device is being removed.
    Deleting,
}

/// The kind of a [`State`], readable without the state lock.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
enum Phase {
    Unbound,
    Bound,
    Rundown,
    Deleting,
}

impl Phase {
    /// Whether the transition from this phase to `next` exists.
    fn leads_to(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::Unbound, Self::Bound | Self::Deleting)
                | (Self::Bound, Self::Rundown)
                | (Self::Rundown, Self::Unbound)
        )
    }
}

impl State {
    fn phase(&self) -> Phase {
        match self {
            State::Unbound => Phase::Unbound,
            State::Bound(_) => Phase::Bound,
            State::Rundown(_) => Phase::Rundown,
            State::Deleting => Phase::Deleting,
        }
    }

    /// The attached file of a device in state [`State::Bound`].
    ///
    /// # Errors
    ///
    /// `ENXIO` in any other state.
    pub(crate) fn bound(&mut self) -> Result<&mut Bound> {
        match self {
            State::Bound(bound) => Ok(bound),
            _ => Err(ENXIO),
        }
    }
}

/// A loop device: its state and its cgroup queues. The data of a disk, freed with the last
/// reference to the disk.
///
/// # Invariants
///
/// `phase` is the phase of `state` whenever `state` is not locked.
#[pin_data]
pub(crate) struct Device {
    number: u32,
    /// Created when the device is first bound. Dropped before `queues`, which it shows.
    debugfs: SetOnce<Pin<KBox<DebugDir>>>,
    pub(crate) driver: Arc<DriverData>,
    queues: CgroupQueuesOwner,
    /// Corresponds to the C driver's `lo_mutex`.
    #[pin]
    pub(crate) state: KillableMutex<State>,
    phase: Atomic<i32>,
}

/// Calls `f` while no other task has the device open exclusively: exclusive openers, file systems
/// for instance, must not see the device change.
///
/// # Errors
///
/// `EBUSY` if another task has the device open exclusively.
pub(crate) fn exclusively<T>(
    cx: &IoctlContext<'_, LoopOps>,
    f: impl FnOnce() -> Result<T>,
) -> Result<T> {
    match cx.mode.is_exclusive() {
        true => f(),
        false => cx.bdev.with_claim(f)?,
    }
}

impl Device {
    pub(crate) fn new(driver: Arc<DriverData>, number: u32) -> Result<Arc<Self>> {
        let timeout = msecs_to_jiffies(idle_worker_timeout_ms.value().unsigned_abs());
        let queues = CgroupQueuesOwner(CgroupQueues::new(timeout)?);
        // INVARIANT: Both are unbound.
        Arc::pin_init(
            pin_init!(Self {
                number,
                debugfs: SetOnce::new(),
                driver,
                queues,
                state <- new_killable_mutex!(State::Unbound, "lo_mutex"),
                phase: Atomic::new(Phase::Unbound as i32),
            }),
            GFP_KERNEL,
        )
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn queues(&self) -> ArcBorrow<'_, CgroupQueues> {
        self.queues.as_arc_borrow()
    }

    fn is_in(&self, phase: Phase) -> bool {
        self.phase.load(Relaxed) == phase as i32
    }

    /// Whether the device is unbound. The answer can be outdated when this returns.
    pub(crate) fn is_unbound(&self) -> bool {
        self.is_in(Phase::Unbound)
    }

    /// The binding of a bound device. Called with `validate` held.
    fn bound_to(&self) -> Option<Arc<Binding>> {
        if self.is_in(Phase::Bound) {
            self.queues.binding()
        } else {
            None
        }
    }

    /// Enters state `new`. Returns the old state, or `new` if there is no such transition. The
    /// caller drops the old state without the state lock, since that can close the file.
    fn enter(&self, state: &mut State, new: State) -> Result<State, State> {
        if !state.phase().leads_to(new.phase()) {
            return Err(new);
        }
        self.phase.store(new.phase() as i32, Relaxed);
        Ok(core::mem::replace(state, new))
    }

    /// Opens the device. Called with the disk's `open_mutex` held.
    ///
    /// # Errors
    ///
    /// `ENXIO` if the device is about to be unbound or removed, `EINTR` for a fatal signal.
    pub(crate) fn open(&self) -> Result {
        match *self.state.lock_killable()? {
            State::Unbound | State::Bound(_) => Ok(()),
            State::Rundown(_) | State::Deleting => Err(ENXIO),
        }
    }

    /// Closes the device. The last close unbinds a device in state [`State::Rundown`], or with
    /// autoclear. Called with the disk's `open_mutex` held.
    pub(crate) fn release(&self, disk: &ReleaseContext<'_, LoopOps>) {
        if disk.openers() > 0 {
            return;
        }
        let unbind = {
            let mut state = self.state.lock();
            if matches!(&*state, State::Bound(b) if b.binding.flags.has(Flag::AUTOCLEAR)) {
                self.run_down(&mut state);
            }
            matches!(*state, State::Rundown(_))
        };
        if unbind {
            self.unbind(disk);
        }
    }

    /// Enters state [`State::Deleting`].
    ///
    /// # Errors
    ///
    /// `EBUSY` if the device is open or bound.
    pub(crate) fn start_deleting(&self, disk: &GenDisk<LoopOps>) -> Result {
        let mut state = self.state.lock_killable()?;
        if disk.openers() > 0 {
            return Err(EBUSY);
        }
        self.enter(&mut state, State::Deleting).map_err(|_| EBUSY)?;
        Ok(())
    }

    pub(crate) fn warn_partitions(&self, e: Error) {
        pr_warn!(
            "partition scan of loop{} failed (rc={})\n",
            self.number,
            e.to_errno()
        );
    }

    /// Locks `validate` if `file` is a loop device.
    pub(crate) fn lock_validate(&self, file: &File) -> Result<Option<KillableGuard<'_, ()>>> {
        match loop_disk(file) {
            Some(_) => Ok(Some(self.driver.validate.lock_killable()?)),
            None => Ok(None),
        }
    }

    /// Checks that `file` can back this device: that it is a regular file or a block device, and
    /// not this device, directly or through other loop devices. Called with
    /// [`lock_validate`](Self::lock_validate) held.
    ///
    /// # Errors
    ///
    /// `EBADF` for recursion, `EINVAL` otherwise.
    pub(crate) fn validate(&self, file: &ARef<File>) -> Result<OwnedFile> {
        let mut lower = loop_device(file);
        let file = BackingFile::new(file.clone())?;
        while let Some((number, binding)) = lower {
            if number == self.number {
                return Err(EBADF);
            }
            lower = loop_device(binding.ok_or(EINVAL)?.file());
        }
        Ok(file)
    }

    /// `LOOP_CONFIGURE`, `LOOP_SET_FD`: binds the device to a file.
    pub(crate) fn configure(&self, cx: &IoctlContext<'_, LoopOps>, config: &LoopConfig) -> Result {
        let file = cx.files.get(config.fd)?;
        check_operations(&file)?;
        if exclusively(cx, || self.configure_claimed(cx, config, file))? {
            self.reread_partitions(cx);
        }
        Ok(())
    }

    /// Returns whether to scan the device for partitions.
    fn configure_claimed(
        &self,
        cx: &IoctlContext<'_, LoopOps>,
        config: &LoopConfig,
        file: ARef<File>,
    ) -> Result<bool> {
        let _validate = self.lock_validate(&file)?;
        let mut state = self.state.lock_killable()?;
        if !matches!(*state, State::Unbound) {
            return Err(EBUSY);
        }
        let file = self.validate(&file)?;
        let flags = Flags::configure(config.info.lo_flags)?;
        let range = Range::from_info(&config.info)?;
        if !file.is_writable() || !cx.mode.is_write() || !file.has_write_iter() {
            flags.set(Flag::READ_ONLY, true);
        }
        if self.driver.scan_partitions {
            flags.set(Flag::PARTSCAN, true);
        }
        let backing = Backing::new(&self.driver.mappings, self.number, file)?;
        let binding = Binding::new(backing, range, flags)?;
        self.bind(cx, &mut state, binding, config.block_size)
    }

    /// Creates the workqueues and the debugfs directory unless they exist. Called with the state
    /// locked.
    fn start(&self) -> Result {
        if self.debugfs.as_ref().is_some() {
            return Ok(());
        }
        let name = CString::try_from_fmt(fmt!("loop{}", self.number))?;
        self.queues.start(&name)?;
        let debugfs = DebugDir::new(&self.driver.debugfs, &name, self.queues.clone())?;
        self.debugfs.populate(debugfs);
        Ok(())
    }

    /// Binds an unbound device. Returns whether to scan it for partitions.
    fn bind(
        &self,
        cx: &IoctlContext<'_, LoopOps>,
        state: &mut KillableGuard<'_, State>,
        binding: Arc<Binding>,
        block_size: u32,
    ) -> Result<bool> {
        let disk = cx.disk;
        // All steps that can fail come first.
        self.start()?;
        // The queue is not frozen for the new limits: requests fail until there is a binding.
        let block_size = disk.queue().update_limits(|limits| {
            binding.limits().apply(limits, block_size);
            let block_size = limits.logical_block_size();
            limits.commit().map(|()| block_size)
        })?;

        let partscan = binding.flags.has(Flag::PARTSCAN);
        disk.suppress_uevents(|| {
            disk.force_media_change();
            disk.set_read_only(binding.flags.has(Flag::READ_ONLY));
            binding.update_direct(block_size);
            if binding.flags.has(Flag::DIRECT_IO) {
                binding.prepare_direct();
            }
            self.queues.bind(Some(binding.clone()));
            let attributes = disk.add_group(&sysfs::GROUP).is_ok();
            // No uevent, and no line in the kernel log, which can take longer than all other steps.
            disk.set_capacity(binding.sectors());
            // The transition exists: the caller found the device unbound under the state lock.
            let _ = self.enter(
                state,
                State::Bound(Bound {
                    binding,
                    attributes,
                    module: ModuleRef::get(cx),
                }),
            );
            if partscan {
                disk.suppress_partition_scan(false);
            }
        });
        disk.uevent_change();
        Ok(partscan)
    }

    /// `LOOP_CLR_FD`: unbinds the device when it is last closed.
    pub(crate) fn clear(&self, disk: &GenDisk<LoopOps>) -> Result {
        // Another device may be looking at this device's backing file.
        let _validate = self.driver.validate.lock_killable()?;
        let mut state = self.state.lock_killable()?;
        state.bound()?.binding.flags.set(Flag::AUTOCLEAR, true);
        if disk.openers() == 1 {
            self.run_down(&mut state);
        }
        Ok(())
    }

    /// Moves from state [`State::Bound`] to [`State::Rundown`].
    fn run_down(&self, state: &mut State) {
        // The temporary state is not visible: the state is locked.
        *state = match core::mem::replace(state, State::Deleting) {
            State::Bound(bound) => State::Rundown(bound),
            other => other,
        };
        self.phase.store(state.phase() as i32, Relaxed);
    }

    /// Unbinds a device in state [`State::Rundown`], which is not open.
    fn unbind(&self, disk: &ReleaseContext<'_, LoopOps>) {
        self.queues.bind(None);
        let reset = disk.queue().update_limits(|limits| {
            limits.set_block_size(SECTOR_SIZE);
            limits.commit()
        });
        if let Err(e) = reset {
            pr_warn!(
                "loop{}: failed to reset the queue limits (rc={})\n",
                self.number,
                e.to_errno()
            );
        }
        disk.invalidate();
        let attributes = match &mut *self.state.lock() {
            State::Rundown(bound) => core::mem::replace(&mut bound.attributes, false),
            _ => false,
        };
        if attributes {
            disk.remove_group(&sysfs::GROUP);
        }
        disk.uevent_change();
        disk.force_media_change();
        // Removes all partitions, including those added with BLKPG.
        if let Err(e) = disk.reread_partitions_locked() {
            self.warn_partitions(e);
        }
        if !self.driver.scan_partitions {
            disk.suppress_partition_scan(true);
        }
        let old = self.enter(&mut self.state.lock(), State::Unbound);
        // This can drop the last reference to the file.
        if let Ok(State::Rundown(bound)) = old {
            bound.module.put(disk);
        }
    }
}

/// The loop disk that `file` is, or is a partition of.
fn loop_disk(file: &File) -> Option<&GenDisk<LoopOps>> {
    file.as_bdev().and_then(|bdev| bdev.disk::<LoopOps>())
}

/// The number and the binding of the loop device that `file` is, if it is one. Called with
/// `validate` held.
fn loop_device(file: &File) -> Option<(u32, Option<Arc<Binding>>)> {
    let device = loop_disk(file)?.data();
    Some((device.number(), device.bound_to()))
}

#[cfg(CONFIG_KUNIT = "y")]
mod tests;
