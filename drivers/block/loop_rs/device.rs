// SPDX-License-Identifier: GPL-2.0

//! A device: its states, and what moves it from one to another.
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
    backing::{self, Backing, Binding},
    config::{set_dma_alignment, Flag, Flags, Range},
    control::Driver,
    stats::Stats,
    sysfs,
    worker::{Pool, PoolOwner},
    LoopModule,
};
use kernel::{
    ffi::c_int,
    fs::File,
    prelude::*,
    str::CString,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, ArcBorrow, SetOnce,
    },
    uaccess::{UserPtr, UserSlice},
};
use kernel_ext::{
    block::{
        gendisk::{Closing, IoctlContext},
        GenDisk, OpenMode, Operations,
    },
    fs::FileExt,
    module::ModuleRef,
    new_killable_mutex,
    security::capable_sys_admin,
    sync::{KillableGuard, KillableMutex},
    uapi::loop_::{
        self, loop_config, loop_info64, CompatLoopInfo, LoopConfig, LoopInfo, LoopInfo64, OldInfo,
    },
};

/// The operations of loop disks.
pub(crate) struct LoopOps;

/// What a bound device has.
struct Bound {
    binding: Arc<Binding>,
    /// Whether the sysfs attributes are there.
    attributes: bool,
    module: ModuleRef<LoopModule>,
}

/// The state of a device, called `lo_state` in C.
enum State {
    /// Nothing is attached.
    Unbound,
    /// Attached.
    Bound(Bound),
    /// Attached, but nobody can open the device any more: it is unbound when it is last closed.
    Rundown(Bound),
    /// The device is being removed.
    Deleting,
}

/// Which state a device is in, for those who do not hold its lock.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
enum Phase {
    Unbound,
    Bound,
    Rundown,
    Deleting,
}

impl Phase {
    /// Whether there is a way from this phase to another.
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

    /// What the device is bound to.
    ///
    /// # Errors
    ///
    /// `ENXIO` when it is not.
    fn bound(&mut self) -> Result<&mut Bound> {
        match self {
            State::Bound(bound) => Ok(bound),
            _ => Err(ENXIO),
        }
    }
}

/// A loop device.
#[pin_data]
pub(crate) struct Device {
    number: u32,
    /// There from when the device is first bound: before that there are no workers. Looks at the
    /// pool, so it goes first.
    stats: SetOnce<Pin<KBox<Stats>>>,
    driver: Arc<Driver>,
    pool: PoolOwner,
    /// Corresponds to the C driver's `lo_mutex`.
    #[pin]
    state: KillableMutex<State>,
    /// The [`Phase`] of `state`, changed with it.
    phase: Atomic<i32>,
}

impl Device {
    pub(crate) fn new(driver: Arc<Driver>, number: u32) -> Result<Arc<Self>> {
        let pool = PoolOwner::new()?;
        Arc::pin_init(
            pin_init!(Self {
                number,
                stats: SetOnce::new(),
                driver,
                pool,
                state <- new_killable_mutex!(State::Unbound, "lo_mutex"),
                phase: Atomic::new(Phase::Unbound as i32),
            }),
            GFP_KERNEL,
        )
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn pool(&self) -> ArcBorrow<'_, Pool> {
        self.pool.as_arc_borrow()
    }

    fn is_in(&self, phase: Phase) -> bool {
        self.phase.load(Relaxed) == phase as i32
    }

    /// Whether the device is free, as of now.
    pub(crate) fn is_unbound(&self) -> bool {
        self.is_in(Phase::Unbound)
    }

    /// What the device is bound to, while the driver's `validate` is held.
    pub(crate) fn bound_to(&self) -> Option<Arc<Binding>> {
        if self.is_in(Phase::Bound) {
            self.pool.binding()
        } else {
            None
        }
    }

    /// Moves to another state; returns the one before, to be dropped without the lock, or the new
    /// one when there is no way to it.
    fn enter(&self, state: &mut State, new: State) -> Result<State, State> {
        if !state.phase().leads_to(new.phase()) {
            return Err(new);
        }
        self.phase.store(new.phase() as i32, Relaxed);
        Ok(core::mem::replace(state, new))
    }

    /// Marks the device as going away, if nobody uses it.
    ///
    /// # Errors
    ///
    /// `EBUSY` when somebody does.
    pub(crate) fn start_deleting(&self, disk: &GenDisk<LoopOps>) -> Result {
        let mut state = self.state.lock_killable()?;
        if disk.openers() > 0 {
            return Err(EBUSY);
        }
        self.enter(&mut state, State::Deleting).map_err(|_| EBUSY)?;
        Ok(())
    }

    /// Sets the size and tells user space.
    fn set_size(disk: &GenDisk<LoopOps>, sectors: u64) {
        if !disk.set_capacity_and_notify(sectors) {
            disk.uevent_change();
        }
    }

    fn reread_partitions(&self, disk: &GenDisk<LoopOps>) {
        if let Err(e) = disk.reread_partitions() {
            self.warn_partitions(e);
        }
    }

    fn warn_partitions(&self, e: Error) {
        pr_warn!(
            "partition scan of loop{} failed (rc={})\n",
            self.number,
            e.to_errno()
        );
    }

    /// `LOOP_CONFIGURE`, `LOOP_SET_FD`: binds the device to a file.
    fn configure(&self, cx: &IoctlContext<'_, LoopOps>, config: &LoopConfig) -> Result {
        let file = cx.files.get(config.fd)?;
        backing::check_operations(&file)?;
        // Nobody who has the device exclusively is to see it change.
        let _claim = match cx.mode.is_exclusive() {
            true => None,
            false => Some(cx.bdev.claim()?),
        };
        let partscan = {
            let _validate = match backing::is_loop_device(&file) {
                true => Some(self.driver.validate.lock_killable()?),
                false => None,
            };
            let mut state = self.state.lock_killable()?;
            if !matches!(*state, State::Unbound) {
                return Err(EBUSY);
            }
            let file = backing::validate(&file, self)?;
            let flags = Flags::configure(config.info.lo_flags)?;
            let range = Range::from_info(&config.info)?;
            if !file.is_writable() || !cx.mode.is_write() || !file.has_write_iter() {
                flags.set(Flag::READ_ONLY, true);
            }
            if self.driver.scans_partitions() {
                flags.set(Flag::PARTSCAN, true);
            }
            let binding = Binding::new(
                Backing::new(&self.driver.mappings, self.number, file)?,
                range,
                flags,
            )?;
            self.bind(cx, &mut state, binding, config.block_size)?
        };
        if partscan {
            self.reread_partitions(cx.disk);
        }
        Ok(())
    }

    /// Makes what a bound device needs, if it is not there yet. `state` is held.
    fn start(&self) -> Result {
        if self.stats.as_ref().is_some() {
            return Ok(());
        }
        let name = CString::try_from_fmt(fmt!("loop{}", self.number))?;
        self.pool.start(&name)?;
        let stats = Stats::new(&self.driver.debugfs, &name, self.pool.clone())?;
        self.stats.populate(stats);
        Ok(())
    }

    /// Binds the device; returns whether it is to be scanned for partitions.
    fn bind(
        &self,
        cx: &IoctlContext<'_, LoopOps>,
        state: &mut KillableGuard<'_, State>,
        binding: Arc<Binding>,
        block_size: u32,
    ) -> Result<bool> {
        let disk = cx.disk;
        self.start()?;

        // All that can fail comes first. The queue needs not be frozen: there is nothing to serve
        // requests from yet.
        let mut limits = disk.queue().start_limits_update();
        binding.limits().apply(&mut limits, block_size);
        let block_size = limits.logical_block_size();
        limits.commit()?;

        let partscan = binding.flags.has(Flag::PARTSCAN);
        {
            let _suppressed = disk.suppress_uevents();
            disk.force_media_change();
            disk.set_read_only(binding.flags.has(Flag::READ_ONLY));
            // Direct I/O does not write back what the page cache has of the file.
            let _ = binding.file().fsync();
            binding.update_direct(block_size);
            self.pool.bind(Some(binding.clone()));
            let attributes = disk.add_group(&sysfs::GROUP).is_ok();
            // That it is no longer empty is no event, and not worth a line in the kernel log, which
            // can take longer than all of this.
            disk.set_capacity(binding.sectors());
            // It was found unbound under this lock.
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
        }
        disk.uevent_change();
        Ok(partscan)
    }

    /// `LOOP_CLR_FD`: unbinds the device when it is last closed.
    fn clear(&self, disk: &GenDisk<LoopOps>) -> Result {
        // Nobody must be looking at what this device is bound to.
        let _validate = self.driver.validate.lock_killable()?;
        let mut state = self.state.lock_killable()?;
        state.bound()?.binding.flags.set(Flag::AUTOCLEAR, true);
        if disk.openers() == 1 {
            self.run_down(&mut state);
        }
        Ok(())
    }

    /// From bound to rundown.
    fn run_down(&self, state: &mut State) {
        // Nobody sees what is there in between: it is locked.
        *state = match core::mem::replace(state, State::Deleting) {
            State::Bound(bound) => State::Rundown(bound),
            other => other,
        };
        self.phase.store(state.phase() as i32, Relaxed);
    }

    /// Unbinds the device, which nobody has open any more.
    fn unbind(&self, disk: &Closing<'_, LoopOps>) {
        self.pool.bind(None);
        let mut limits = disk.queue().start_limits_update();
        limits.set_block_size(kernel_ext::block::SECTOR_SIZE);
        if let Err(e) = limits.commit() {
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
        // Those added by hand, too.
        if let Err(e) = disk.reread_partitions_locked() {
            self.warn_partitions(e);
        }
        if !self.driver.scans_partitions() {
            disk.suppress_partition_scan(true);
        }
        let old = self.enter(&mut self.state.lock(), State::Unbound);
        // The file's last reference may go here.
        if let Ok(State::Rundown(bound)) = old {
            bound.module.put(disk);
        }
    }

    /// `LOOP_CHANGE_FD`: replaces the file of a read-only device by one of the same size.
    fn change_fd(&self, cx: &IoctlContext<'_, LoopOps>, fd: u32) -> Result {
        let file = cx.files.get(fd)?;
        backing::check_operations(&file)?;
        let suppressed = cx.disk.suppress_uevents();
        let result = self.replace_file(cx.disk, &file);
        drop(suppressed);
        if let Ok(true) = result {
            self.reread_partitions(cx.disk);
        }
        cx.disk.uevent_change();
        result.map(|_| ())
    }

    /// Replaces the file; returns whether the device is to be scanned for partitions.
    fn replace_file(
        &self,
        disk: &GenDisk<LoopOps>,
        file: &kernel::sync::aref::ARef<File>,
    ) -> Result<bool> {
        let old;
        let partscan;
        {
            let _validate = match backing::is_loop_device(file) {
                true => Some(self.driver.validate.lock_killable()?),
                false => None,
            };
            let mut state = self.state.lock_killable()?;
            let bound = state.bound()?;
            if !bound.binding.flags.has(Flag::READ_ONLY) {
                return Err(EINVAL);
            }
            let file = backing::validate(file, self)?;
            if bound.binding.range.sectors(&file) != bound.binding.sectors() {
                return Err(EINVAL);
            }
            let binding = Binding::new(
                Backing::new(&self.driver.mappings, self.number, file)?,
                bound.binding.range,
                bound.binding.flags.clone(),
            )?;
            let _ = binding.file().fsync();
            disk.force_media_change();
            let frozen = disk.queue().freeze();
            binding.update_direct(disk.queue().logical_block_size());
            partscan = binding.flags.has(Flag::PARTSCAN);
            self.pool.bind(Some(binding.clone()));
            old = core::mem::replace(&mut bound.binding, binding);
            drop(frozen);
        }
        // Somebody may still be looking at what the device was bound to.
        drop(self.driver.validate.lock());
        drop(old);
        Ok(partscan)
    }

    /// `LOOP_SET_STATUS64`: changes range, name and flags.
    fn set_status(&self, disk: &GenDisk<LoopOps>, info: &loop_info64) -> Result {
        let partscan = {
            let mut state = self.state.lock_killable()?;
            let bound = state.bound()?;
            let old = &bound.binding;
            let range = Range::from_info(info)?;
            let moved = range.offset != old.range.offset || range.sizelimit != old.range.sizelimit;
            if moved {
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
            {
                // No request is to see half of the file at the old place. To wait for all I/O can
                // take long, and is not for a change of flags or name.
                let _frozen = moved.then(|| disk.queue().freeze());
                new.update_direct(disk.queue().logical_block_size());
                self.pool.bind(Some(new.clone()));
            }
            bound.binding = new.clone();
            if partscan {
                disk.suppress_partition_scan(false);
            }
            if moved {
                Self::set_size(disk, new.sectors());
            }
            partscan
        };
        if partscan {
            self.reread_partitions(disk);
        }
        Ok(())
    }

    /// `LOOP_GET_STATUS64`
    fn get_status(&self) -> Result<loop_info64> {
        let binding = self.state.lock_killable()?.bound()?.binding.clone();
        // The file system may take its time: without the lock.
        let id = binding.file().id()?;
        Ok(loop_info64 {
            lo_device: id.dev.to_user(),
            lo_inode: id.ino,
            lo_rdevice: id.rdev.to_user(),
            lo_number: self.number,
            lo_offset: binding.range.offset.unsigned_abs(),
            lo_sizelimit: binding.range.sizelimit.unsigned_abs(),
            lo_flags: binding.flags.bits(),
            lo_file_name: binding.range.name,
            ..Default::default()
        })
    }

    /// `LOOP_SET_CAPACITY`: takes on the size that the file has now.
    fn set_capacity(&self, disk: &GenDisk<LoopOps>) -> Result {
        let mut state = self.state.lock_killable()?;
        Self::set_size(disk, state.bound()?.binding.sectors());
        Ok(())
    }

    /// `LOOP_SET_DIRECT_IO`
    fn set_direct(&self, disk: &GenDisk<LoopOps>, on: bool) -> Result {
        let mut state = self.state.lock_killable()?;
        let binding = &state.bound()?.binding;
        if on == binding.flags.has(Flag::DIRECT_IO) {
            return Ok(());
        }
        if on {
            if !binding.can_direct(disk.queue().logical_block_size()) {
                return Err(EINVAL);
            }
            // Direct I/O does not write back what the page cache has of the file.
            let _ = binding.file().fsync();
        }
        let mut limits = disk.queue().start_limits_update();
        let _frozen = limits.freeze();
        binding.flags.set(Flag::DIRECT_IO, on);
        set_dma_alignment(&mut limits, binding.direct_alignment());
        let result = limits
            .commit()
            .inspect_err(|_| binding.flags.set(Flag::DIRECT_IO, !on));
        self.pool.flags_changed();
        result
    }

    /// `LOOP_SET_BLOCK_SIZE`
    fn set_block_size(&self, cx: &IoctlContext<'_, LoopOps>, size: usize) -> Result {
        let _claim = match cx.mode.is_exclusive() {
            true => None,
            false => Some(cx.bdev.claim()?),
        };
        let mut state = self.state.lock_killable()?;
        let binding = &state.bound()?.binding;
        let queue = cx.disk.queue();
        if queue.logical_block_size() as usize == size {
            return Ok(());
        }
        let _ = cx.disk.whole().sync();
        cx.disk.whole().invalidate();
        let mut limits = queue.start_limits_update();
        binding.limits().apply(&mut limits, size as u32);
        let _frozen = limits.freeze();
        let result = limits.commit();
        binding.update_direct(queue.logical_block_size());
        self.pool.flags_changed();
        result
    }
}

/// Whether an opener may change a device that others share.
///
/// # Errors
///
/// `EPERM` when not.
fn check_permission(mode: OpenMode) -> Result {
    if mode.is_write() || capable_sys_admin() {
        Ok(())
    } else {
        Err(EPERM)
    }
}

fn read_user<T: kernel::transmute::FromBytes>(arg: usize) -> Result<T> {
    UserSlice::new(UserPtr::from_addr(arg), core::mem::size_of::<T>())
        .reader()
        .read()
}

fn write_user<T: kernel::transmute::AsBytes>(arg: usize, value: &T) -> Result {
    UserSlice::new(UserPtr::from_addr(arg), core::mem::size_of::<T>())
        .writer()
        .write(value)
}

/// `LOOP_SET_STATUS`
fn set_status_old<I: OldInfo>(cx: &IoctlContext<'_, LoopOps>, arg: usize) -> Result {
    check_permission(cx.mode)?;
    let info = read_user::<I>(arg)?.to_info64();
    cx.disk.data().set_status(cx.disk, &info)
}

/// `LOOP_GET_STATUS`
fn get_status_old<I: OldInfo>(cx: &IoctlContext<'_, LoopOps>, arg: usize) -> Result {
    if arg == 0 {
        return Err(EINVAL);
    }
    let info = cx.disk.data().get_status()?;
    write_user(arg, &I::from_info64(&info).ok_or(EOVERFLOW)?)
}

#[vtable]
impl Operations for LoopOps {
    fn open(disk: &GenDisk<Self>, _mode: OpenMode) -> Result {
        match *disk.data().state.lock_killable()? {
            State::Unbound | State::Bound(_) => Ok(()),
            State::Rundown(_) | State::Deleting => Err(ENXIO),
        }
    }

    fn release(disk: Closing<'_, Self>) {
        if disk.openers() > 0 {
            return;
        }
        let device = disk.data();
        let unbind = {
            let mut state = device.state.lock();
            if matches!(&*state, State::Bound(b) if b.binding.flags.has(Flag::AUTOCLEAR)) {
                device.run_down(&mut state);
            }
            matches!(*state, State::Rundown(_))
        };
        if unbind {
            device.unbind(&disk);
        }
    }

    fn removed(disk: &GenDisk<Self>) {
        disk.data().pool().drain();
    }

    fn ioctl(cx: &IoctlContext<'_, Self>, cmd: u32, arg: usize) -> Result<c_int> {
        let device = cx.disk.data();
        match cmd {
            loop_::LOOP_SET_FD => {
                let config = LoopConfig(loop_config {
                    fd: arg as u32,
                    ..Default::default()
                });
                device.configure(cx, &config)?;
            }
            loop_::LOOP_CONFIGURE => device.configure(cx, &read_user(arg)?)?,
            loop_::LOOP_CHANGE_FD => device.change_fd(cx, arg as u32)?,
            loop_::LOOP_CLR_FD => device.clear(cx.disk)?,
            loop_::LOOP_SET_STATUS64 => {
                check_permission(cx.mode)?;
                device.set_status(cx.disk, &read_user::<LoopInfo64>(arg)?.0)?;
            }
            loop_::LOOP_SET_STATUS => set_status_old::<LoopInfo>(cx, arg)?,
            loop_::LOOP_GET_STATUS => get_status_old::<LoopInfo>(cx, arg)?,
            loop_::LOOP_GET_STATUS64 => {
                if arg == 0 {
                    return Err(EINVAL);
                }
                write_user(arg, &LoopInfo64(device.get_status()?))?;
            }
            loop_::LOOP_SET_BLOCK_SIZE => {
                check_permission(cx.mode)?;
                device.set_block_size(cx, arg)?;
            }
            loop_::LOOP_SET_CAPACITY => {
                check_permission(cx.mode)?;
                device.set_capacity(cx.disk)?;
            }
            loop_::LOOP_SET_DIRECT_IO => {
                check_permission(cx.mode)?;
                device.set_direct(cx.disk, arg != 0)?;
            }
            _ => return Err(EINVAL),
        }
        Ok(0)
    }

    fn compat_ioctl(cx: &IoctlContext<'_, Self>, cmd: u32, arg: usize) -> Result<c_int> {
        match cmd {
            loop_::LOOP_SET_STATUS => set_status_old::<CompatLoopInfo>(cx, arg).map(|()| 0),
            loop_::LOOP_GET_STATUS => get_status_old::<CompatLoopInfo>(cx, arg).map(|()| 0),
            // The structures are the same for 32 bits, and pointers are in the lower half.
            loop_::LOOP_SET_CAPACITY
            | loop_::LOOP_CLR_FD
            | loop_::LOOP_GET_STATUS64
            | loop_::LOOP_SET_STATUS64
            | loop_::LOOP_CONFIGURE
            | loop_::LOOP_SET_FD
            | loop_::LOOP_CHANGE_FD
            | loop_::LOOP_SET_BLOCK_SIZE
            | loop_::LOOP_SET_DIRECT_IO => Self::ioctl(cx, cmd, arg),
            _ => Err(ENOIOCTLCMD),
        }
    }
}

#[cfg(CONFIG_KUNIT = "y")]
mod tests;
