// SPDX-License-Identifier: GPL-2.0

//! The loop block driver: regular files and block devices as block devices.
//!
//! I/O to a backing file is issued and charged as the cgroup that submitted it, and a cgroup whose
//! I/O is blocked does not block others.
//!
//! # Where the parts of `drivers/block/loop.c` are
//!
//! | C | here |
//! | --- | --- |
//! | `loop_control_ioctl`, `loop_add`, `loop_remove`, `loop_probe`, `loop_index_idr` | [`control`] |
//! | `lo_fops`, `loop_mq_ops` | [`ops`] |
//! | `lo_ioctl`, `lo_compat_ioctl` | [`ioctl`] |
//! | `loop_change_fd`, `loop_set_status`, `loop_get_status`, `loop_set_dio`, `loop_set_block_size` | [`reconfigure`] |
//! | `loop_configure`, `loop_clr_fd`, `lo_open`, `lo_release`, `lo_state`, `loop_validate_file` | [`device`] |
//! | `/sys/block/loopN/loop/` | [`sysfs`] |
//! | `loop_queue_rq` | [`queue`] |
//! | `loop_workfn`, `loop_process_work` | [`worker`], [`offload`] |
//! | `do_req_filebacked`, `lo_rw_aio`, `lo_fallocate`, `lo_req_flush` | [`io`] |
//! | `lo_rw_aio_complete`, `lo_complete_rq`, `loop_clear_limits` | [`complete`] |
//! | `loop_queue_work`, `worker_tree` | [`enqueue`], [`queue_set`], [`cgroup_queue`] |
//! | `idle_worker_list`, `loop_free_idle_workers` | [`reaper`] |
//! | `lo_backing_file`, `loop_check_backing_file`, `loop_update_dio_alignment`, `lo_can_use_dio` | [`backing`] |
//! | `lo_flags`, `loop_info64`, `loop_update_limits` | [`config`] |
//! | module parameters | [`params`] |
//! | no counterpart | [`inline`], [`policy`], [`stats`], [`debugfs`], [`trace`], [`errors`] |
//!
//! # Layers
//!
//! A file imports only files that are below it in this list:
//!
//! ```text
//!   loop_rs_main     the module
//!   control          registry, /dev/loop-control
//!   ops              ties LoopOps to queue, complete, device and ioctl
//!   ioctl            decoding
//!   reconfigure      changes of a bound device
//!   device           states and transitions
//!   sysfs, debugfs   attributes
//!   queue            queue_rq(): inline, or to a cgroup queue
//!   worker           serves a cgroup queue
//!   offload          serves its offloaded requests
//!   serve            what both have in common
//!   inline           may the submitter issue this request now, and in which mode?
//!   io               issue to the backing file
//!   complete         completion and retry
//!   enqueue, reaper, queue_set
//!   trace            tracepoints
//!   cgroup_queue     the types of the data path
//!   stats, backing, request_data
//!   errors, config, params
//!   policy           tags, offload, completion: no driver or kernel object types
//! ```
//!
//! Two types tie upper layers to lower ones. [`cgroup_queue::LoopOps`] is the type of the
//! operations of a disk. Lower layers get from a disk to its device by
//! [`cgroup_queue::with_queues`] only. [`LoopModule`] is the identity of the module, named by
//! [`params`] and [`device`]. Besides, upper files implement methods and kernel traits (`WorkItem`,
//! `Callback`) of the types in `cgroup_queue`.
//!
//! # The path of a request
//!
//! ```text
//!   submitter                                       worker of the cgroup
//!   ---------                                       --------------------
//!   blk-mq
//!     |
//!   queue::queue_rq
//!     | inline::is_candidate       operation and context
//!     | queue_set::find            css -> cgroup queue
//!     | inline::begin_inline       file, offload policy, tag policy
//!     |
//!     +-- queued: enqueue::try_push  ------------>  worker::run, take
//!     |     no tag left: detach, push_detached        | charged to blkcg and memcg
//!     |                                               | io::issue
//!     +-- offloaded: enqueue::try_push  --------->  worker::run or offload::run, take_offloaded
//!     |                                               | charged to blkcg and memcg
//!     |                                               | io::issue_nowait
//!   io::issue_inline                                  |
//!     |         -EAGAIN: queued                       |         -EAGAIN: to worker::run
//!     +--------------------------+--------------------+
//!                                |
//!                           backing file
//!                                |
//!               done, or ki_complete if -EIOCBQUEUED; a read that finds a page under I/O:
//!                                |              complete::read_ready, to the worker
//!                                |
//!                    complete::account_transfer
//!                                |
//!         +----------------------+-------------------+
//!         |                                          |
//!   complete_with: tag and request end      rest, or -EAGAIN: requeue to queue_rq,
//!                                           detached bios to the worker
//! ```
//!
//! # Ownership
//!
//! [`control::Driver`] owns the disks. A disk owns its [`device::Device`], which is freed with the
//! last reference to the disk. The state of a bound device and its QueueSet share a
//! [`backing::Binding`]. A change of file or range replaces it; flags change in place. I/O in
//! flight holds a reference to the file.
//!
//! # Lock order
//!
//! ```text
//!   open_mutex of the disk, or claim of the disk and then validate (DriverData)
//!     state (Device)
//!       device lock of the disk (GenDisk::with_live_device), or mutex of NoioMappings
//!       limits_lock of the request queue
//!         lock of the QueueSet (spinlock, interrupts disabled)
//! ```
//!
//! A wait queue of the page cache has its lock held when [`complete::read_ready`] takes that of the
//! QueueSet.
//!
//! The lock of the registry in [`control`] is not held together with any of these. A freeze of the
//! request queue is started with the state locked, and `limits_lock` if limits change.

#![deny(unsafe_code)]

mod policy {
    //! Policies: decisions from counters, time and the number of CPUs, without driver types.

    pub(crate) mod completion;
    pub(crate) mod offload;
    pub(crate) mod tags;
}

mod backing;
mod cgroup_queue;
mod complete;
mod config;
mod control;
mod debugfs;
mod device;
mod enqueue;
mod errors;
mod inline;
mod io;
mod ioctl;
mod offload;
mod ops;
mod params;
mod queue;
mod queue_set;
mod reaper;
mod reconfigure;
mod request_data;
mod serve;
mod stats;
mod sysfs;
mod trace;
mod worker;

use control::{Control, Driver};
use kernel::{prelude::*, sync::Arc};
use kernel_ext::{
    block::major::Major,
    miscdevice::ControlRegistration,
    module::ExitBarrier,
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

/// The loaded module.
///
/// Fields are dropped in order when the module is unloaded: the interfaces that add devices are
/// unregistered before the devices are removed. `init` creates them in reverse order, so that an
/// error undoes the previous steps.
struct LoopModule {
    _control: Pin<KBox<ControlRegistration<Control>>>,
    _major: Major<Driver>,
    _devices: RemoveDevices,
    _exit: ExitBarrier,
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
        let exit = ExitBarrier::new();
        let driver = Driver::new()?;
        let devices = RemoveDevices(driver.clone());
        let major = Major::register(LOOP_MAJOR, c"loop", driver.clone()).inspect_err(warn_busy)?;
        let control = KBox::pin_init(
            ControlRegistration::new(
                LOOP_CTRL_MINOR,
                c"loop-control",
                Arc::new(Control(driver.clone()), GFP_KERNEL)?,
            ),
            GFP_KERNEL,
        )
        .inspect_err(warn_busy)?;
        for number in 0..params::max_loop.value().unsigned_abs() {
            // Not fatal: user space adds devices when it needs more.
            let _ = driver.add(Some(number));
        }
        pr_info!("module loaded\n");
        Ok(Self {
            _control: control,
            _major: major,
            _devices: devices,
            _exit: exit,
        })
    }
}

/// Logs how to resolve a conflict with another loop driver.
fn warn_busy(error: &Error) {
    if *error == EBUSY {
        pr_err!("another loop driver has /dev/loop*: detach its devices (losetup -D) and unload it (rmmod loop), then load loop_rs again\n");
    }
}
