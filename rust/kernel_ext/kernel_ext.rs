// SPDX-License-Identifier: GPL-2.0

//! Abstractions for a stacking block driver that the `kernel` crate does not have.
//!
//! Each module sits where its counterpart in `rust/kernel/` would. Except for [`uapi`] and the
//! version check in `compat.h`, it is independent of the driver. [`bindings`] adds to the bindings
//! of the `kernel` crate.
//!
//! [`block::mq`] is not the `kernel` crate's: requests there are reference counted and carry no
//! data of the driver, disks have no operations, and limits cannot change. Here a request has one
//! owner, which a driver that passes requests on needs.
//!
//! # Soundness
//!
//! The table at the head of a module lists possible misuse from safe code, and what prevents it.
//! "Nothing" means that the misuse is possible, but does not break memory safety: a deadlock, a
//! leak, a wrong answer. The exceptions, as in the `kernel` crate:
//!
//! | What safe code could try | Effect | Remedy |
//! | --- | --- | --- |
//! | Sleep in a section of the RCU lock | It ends early | `might_sleep()` reports it |
//! | Forget the [exit barrier](module::ExitBarrier) | Freed code may be called | None |
//! | Forget a mutex's guard, and exit | A waiter that spins reads a freed task | None |
//!
//! A block layer maintainer would have these instead of code here:
//!
//! - `lock_killable()` of `kernel::sync::Mutex`, for [`sync::KillableMutex`];
//! - a minor number in `MiscDeviceOptions`, and data of a registration, for [`miscdevice`];
//! - permissions, a getter and a check in the `params` of `module!`, for [`module_param`];
//! - `IOCB_NOWAIT` in `block/fops.c`, for `block::mq::bdev_io`;
//! - `blk_detach_bios()` beside `blk_steal_bios()`, for [`block::mq::Request::detach`];
//! - an export of `kthread_blkcg()`, so that [`cgroup::Css::charge`] can nest.

pub mod block;
pub mod cgroup;
pub mod compat;
pub mod fs;
pub mod miscdevice;
pub mod module;
pub mod module_param;
pub mod security;
pub mod sync;
pub mod task;
pub mod time;
pub mod timer;
pub mod tracepoint;
pub mod uapi;
pub mod workqueue;

/// The `kernel` crate's bindings, and those that `bindings_helper.h` and `helpers.c` add.
#[allow(
    clippy::all,
    dead_code,
    missing_docs,
    non_camel_case_types,
    non_upper_case_globals,
    non_snake_case,
    improper_ctypes,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    clippy::undocumented_unsafe_blocks
)]
pub(crate) mod bindings {
    // Names that both have.
    pub(crate) use generated::*;
    pub(crate) use generated::{iomap_ops, kstatfs, mutex_lock_killable};
    pub(crate) use kernel::bindings::*;

    pub(crate) mod generated {
        use kernel::bindings::*;
        use kernel::ffi;
        use pin_init::MaybeZeroable;

        include!(env!("KERNEL_EXT_BINDINGS"));
        include!(env!("KERNEL_EXT_HELPERS"));
    }
}
