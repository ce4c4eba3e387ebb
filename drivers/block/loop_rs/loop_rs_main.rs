// SPDX-License-Identifier: GPL-2.0

//! The loop block driver: files as block devices.
//!
//! Every I/O to a backing file is issued, and charged, as the cgroup that asked for it.
//!
//! Where to find what `drivers/block/loop.c` does:
//!
//! | C | here |
//! | --- | --- |
//! | `loop_control_ioctl`, `loop_add`, `loop_remove`, `loop_probe`, `loop_index_idr` | [`control`] |
//! | `lo_fops` | [`ops`], [`ioctl`] |
//! | `loop_configure`, `__loop_clr_fd` and the other transitions of `lo_state`, `loop_validate_file` | [`device`] |
//! | `loop_change_fd`, `loop_set_status`, `loop_set_dio`, `loop_set_block_size` | [`reconfigure`] |
//! | `loop_info64` and the old forms of it, `lo_flags`, queue limits | [`config`] |
//! | `lo_backing_file`, direct I/O alignment, `lo_rw_aio`, `lo_fallocate`, `lo_req_flush` | [`backing`] |
//! | `loop_queue_rq`, `loop_handle_cmd`, `lo_complete_rq` | [`dispatch`] |
//! | `loop_queue_work`, `loop_worker`, `loop_process_work` | [`worker`] |
//! | `worker_tree`, `idle_worker_list`, the idle timer | [`slots`] |
//! | `/sys/block/loopN/loop/` | [`sysfs`] |
//! | (nothing like it) | [`policy`], [`stats`], [`errors`] |
//!
//! # Who owns what
//!
//! [`control::Driver`] owns the disks by number. A disk owns its [`device::Device`], which is freed
//! when the disk is no longer open anywhere. A bound device's state owns a
//! [`backing::Binding`]: the backing file and how it is used, never changed but replaced. What is
//! in flight holds the file on its own, so that no I/O can find it gone.
//!
//! # Locks
//!
//! From the outside in: the driver's `validate`, a device's `state`, the queue's `limits_lock`, a
//! device's worker tree. The driver's registry is taken by itself.

#![deny(unsafe_code)]

mod policy {
    //! Policies: pure decisions, with counters and time as their only input.

    pub(crate) mod offload;
    pub(crate) mod tags;
}

mod backing;
mod config;
mod control;
mod device;
mod dispatch;
mod errors;
mod ioctl;
mod ops;
mod params;
mod reconfigure;
mod slots;
mod stats;
mod sysfs;
mod worker;

use control::{Control, Driver};
use kernel::{prelude::*, sync::Arc};
use kernel_ext::{
    block::major::Major,
    miscdevice::ControlRegistration,
    uapi::loop_::{LOOP_CTRL_MINOR, LOOP_MAJOR},
};

module! {
    type: LoopModule,
    name: "loop_rs",
    authors: ["The loop_rs authors"],
    description: "Loopback device support",
    license: "GPL",
    alias: ["block-major-7-*", "char-major-10-237", "devname:loop-control"],
}

/// The loaded module. Its fields are dropped, in this order, when it is unloaded: first nobody can
/// ask for devices any more, then the devices go. They are made in the reverse order, so that the
/// same goes for a failure half-way.
struct LoopModule {
    _control: Pin<KBox<ControlRegistration<Control>>>,
    _major: Major<Driver>,
    _devices: RemoveDevices,
}

/// Removes all devices when dropped.
struct RemoveDevices(Arc<Driver>);

impl Drop for RemoveDevices {
    fn drop(&mut self) {
        self.0.remove_all();
    }
}

impl kernel::Module for LoopModule {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let driver = Driver::new()?;
        let devices = RemoveDevices(driver.clone());
        let major = Major::register(LOOP_MAJOR, c"loop", driver.clone()).inspect_err(busy)?;
        let control = KBox::pin_init(
            ControlRegistration::new(
                LOOP_CTRL_MINOR,
                c"loop-control",
                Arc::new(Control(driver.clone()), GFP_KERNEL)?,
            ),
            GFP_KERNEL,
        )
        .inspect_err(busy)?;
        for number in 0..params::max_loop.value() {
            // As many as can be had: user space asks for more when it needs them.
            let _ = driver.add(Some(number.unsigned_abs()));
        }
        pr_info!("module loaded\n");
        Ok(Self {
            _control: control,
            _major: major,
            _devices: devices,
        })
    }
}

/// Says what to do when another driver has the device numbers.
fn busy(error: &Error) {
    if *error == EBUSY {
        pr_err!("another loop driver has /dev/loop*: detach its devices (losetup -D) and unload it (rmmod loop), then load loop_rs again\n");
    }
}
