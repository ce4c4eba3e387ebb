// SPDX-License-Identifier: GPL-2.0

//! The operations of loop disks, for blk-mq and for block devices.
//!
//! Ties [`LoopOps`] to the layers that implement its operations, and to the [`Device`], which is
//! the data of each disk.

use crate::{
    cgroup_queue::LoopOps,
    complete::{self, Service},
    device::Device,
    ioctl, queue,
    request_data::RequestData,
};
use kernel::{
    ffi::c_int,
    prelude::*,
    sync::{Arc, ArcBorrow},
};
use kernel_ext::{
    block::{
        disk_ops::{self, IoctlContext, ReleaseContext},
        mq::{self, BoxedIo, Request},
        GenDisk, OpenMode,
    },
    impl_disk_vtable,
};

#[vtable]
impl mq::Operations for LoopOps {
    type Data = Arc<Device>;
    type RequestData = RequestData;
    /// Counts detached bios as in service.
    type DetachedData = Option<Service>;

    fn new_request_data() -> Result<RequestData> {
        Ok(RequestData::new())
    }

    /// Process context, interrupts on. May sleep if `last`.
    fn queue_rq(device: ArcBorrow<'_, Device>, rq: Request<Self>, last: bool) {
        queue::queue_rq(device.queues(), rq, last);
    }

    /// Process context, interrupts on.
    fn commit_rqs(device: ArcBorrow<'_, Device>) {
        queue::commit_rqs(device.queues());
    }

    /// Any context, hard interrupts included.
    fn io_complete(rq: Request<Self>, result: Result<usize>) {
        complete::ki_complete(rq, result);
    }

    /// Any context, hard interrupts included.
    fn detached_complete(io: BoxedIo<Self>, result: Result<usize>) {
        complete::ki_complete_detached(io, result);
    }

    /// Any context, hard interrupts included, with the lock of a wait queue of the page cache held.
    fn read_ready(rq: Request<Self>) {
        complete::read_ready(rq);
    }

    /// As [`read_ready`](Self::read_ready).
    fn detached_read_ready(io: BoxedIo<Self>) {
        complete::read_ready_detached(io);
    }

    /// Softirq, or the context that [`Request::complete`] is called in.
    fn complete(rq: Request<Self>) {
        complete::mq_complete(rq);
    }
}

impl_disk_vtable!(LoopOps);

/// All of these run in process context and may sleep.
#[vtable]
impl disk_ops::Operations for LoopOps {
    type OwnerModule = crate::LocalModule;

    /// Called with the disk's `open_mutex` held.
    fn open(disk: &GenDisk<Self>, _mode: OpenMode) -> Result {
        disk.data().open()
    }

    /// Called with the disk's `open_mutex` held.
    fn release(disk: ReleaseContext<'_, Self>) {
        disk.data().release(&disk);
    }

    fn after_del(disk: &GenDisk<Self>) {
        disk.data().queues().drain();
    }

    fn ioctl(cx: &IoctlContext<'_, Self>, cmd: u32, arg: usize) -> Result<c_int> {
        ioctl::ioctl(cx, cmd, arg).map(|()| 0)
    }

    fn compat_ioctl(cx: &IoctlContext<'_, Self>, cmd: u32, arg: usize) -> Result<c_int> {
        ioctl::compat_ioctl(cx, cmd, arg).map(|()| 0)
    }
}
