// SPDX-License-Identifier: GPL-2.0

//! Decoding of ioctls. All run in process context and may sleep.

use crate::cgroup_queue::LoopOps;
use kernel::{
    prelude::*,
    transmute::{AsBytes, FromBytes},
    uaccess::{UserPtr, UserSlice},
};
use kernel_ext::{
    block::{disk_ops::IoctlContext, OpenMode},
    security::capable_sys_admin,
    uapi::loop_::{self, loop_config, CompatLoopInfo, LoopConfig, LoopInfo, LoopInfo64, OldInfo},
};

/// Checks that an opener may change the device: it opened the device for writing, or is privileged.
///
/// # Errors
///
/// `EPERM` if it may not.
fn check_permission(mode: OpenMode) -> Result {
    if mode.is_write() || capable_sys_admin() {
        Ok(())
    } else {
        Err(EPERM)
    }
}

fn read_user<T: FromBytes>(arg: usize) -> Result<T> {
    UserSlice::new(UserPtr::from_addr(arg), core::mem::size_of::<T>())
        .reader()
        .read()
}

fn write_user<T: AsBytes>(arg: usize, value: &T) -> Result {
    UserSlice::new(UserPtr::from_addr(arg), core::mem::size_of::<T>())
        .writer()
        .write(value)
}

/// `LOOP_SET_STATUS`, with the layout `I`.
fn set_status_old<I: OldInfo>(cx: &IoctlContext<'_, LoopOps>, arg: usize) -> Result {
    check_permission(cx.mode)?;
    let info = read_user::<I>(arg)?.to_info64();
    cx.disk.data().set_status(cx, &info)
}

/// `LOOP_GET_STATUS`, with the layout `I`.
fn get_status_old<I: OldInfo>(cx: &IoctlContext<'_, LoopOps>, arg: usize) -> Result {
    if arg == 0 {
        return Err(EINVAL);
    }
    let info = cx.disk.data().get_status()?;
    write_user(arg, &I::from_info64(&info).ok_or(EOVERFLOW)?)
}

/// An ioctl of a native task.
///
/// # Errors
///
/// `EINVAL` for an unknown ioctl.
pub(crate) fn ioctl(cx: &IoctlContext<'_, LoopOps>, cmd: u32, arg: usize) -> Result {
    let device = cx.disk.data();
    match cmd {
        loop_::LOOP_SET_FD => {
            let config = LoopConfig(loop_config {
                fd: arg as u32,
                ..Default::default()
            });
            device.configure(cx, &config)
        }
        loop_::LOOP_CONFIGURE => device.configure(cx, &read_user(arg)?),
        loop_::LOOP_CHANGE_FD => device.change_fd(cx, arg as u32),
        loop_::LOOP_CLR_FD => device.clear(cx.disk),
        loop_::LOOP_SET_STATUS64 => {
            check_permission(cx.mode)?;
            device.set_status(cx, &read_user::<LoopInfo64>(arg)?.0)
        }
        loop_::LOOP_SET_STATUS => set_status_old::<LoopInfo>(cx, arg),
        loop_::LOOP_GET_STATUS => get_status_old::<LoopInfo>(cx, arg),
        loop_::LOOP_GET_STATUS64 => {
            if arg == 0 {
                return Err(EINVAL);
            }
            write_user(arg, &LoopInfo64(device.get_status()?))
        }
        loop_::LOOP_SET_BLOCK_SIZE => {
            check_permission(cx.mode)?;
            device.set_block_size(cx, arg)
        }
        loop_::LOOP_SET_CAPACITY => {
            check_permission(cx.mode)?;
            device.set_capacity(cx.disk)
        }
        loop_::LOOP_SET_DIRECT_IO => {
            check_permission(cx.mode)?;
            device.set_direct(cx.disk, arg != 0)
        }
        _ => Err(EINVAL),
    }
}

/// An ioctl of a 32-bit task.
///
/// # Errors
///
/// `ENOIOCTLCMD` for an unknown ioctl.
pub(crate) fn compat_ioctl(cx: &IoctlContext<'_, LoopOps>, cmd: u32, arg: usize) -> Result {
    match cmd {
        loop_::LOOP_SET_STATUS => set_status_old::<CompatLoopInfo>(cx, arg),
        loop_::LOOP_GET_STATUS => get_status_old::<CompatLoopInfo>(cx, arg),
        // The other structures have the same layout, and a pointer is zero-extended.
        loop_::LOOP_SET_CAPACITY
        | loop_::LOOP_CLR_FD
        | loop_::LOOP_GET_STATUS64
        | loop_::LOOP_SET_STATUS64
        | loop_::LOOP_CONFIGURE
        | loop_::LOOP_SET_FD
        | loop_::LOOP_CHANGE_FD
        | loop_::LOOP_SET_BLOCK_SIZE
        | loop_::LOOP_SET_DIRECT_IO => ioctl(cx, cmd, arg),
        _ => Err(ENOIOCTLCMD),
    }
}
