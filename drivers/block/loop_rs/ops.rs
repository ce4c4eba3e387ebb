// SPDX-License-Identifier: GPL-2.0

//! The block device operations of loop disks.

use crate::{device::LoopOps, ioctl};
use kernel::{ffi::c_int, prelude::*};
use kernel_ext::block::{
    gendisk::{self, Closing, IoctlContext},
    GenDisk, OpenMode,
};

/// All of these run in process context and may sleep.
#[vtable]
impl gendisk::Operations for LoopOps {
    /// Called with the disk's `open_mutex` held.
    fn open(disk: &GenDisk<Self>, _mode: OpenMode) -> Result {
        disk.data().open()
    }

    /// Called with the disk's `open_mutex` held.
    fn release(disk: Closing<'_, Self>) {
        disk.data().release(&disk);
    }

    fn removed(disk: &GenDisk<Self>) {
        disk.data().pool().drain();
    }

    fn ioctl(cx: &IoctlContext<'_, Self>, cmd: u32, arg: usize) -> Result<c_int> {
        ioctl::ioctl(cx, cmd, arg).map(|()| 0)
    }

    fn compat_ioctl(cx: &IoctlContext<'_, Self>, cmd: u32, arg: usize) -> Result<c_int> {
        ioctl::compat_ioctl(cx, cmd, arg).map(|()| 0)
    }
}
