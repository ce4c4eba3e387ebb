// SPDX-License-Identifier: GPL-2.0

//! What the `kernel` crate lacks for a stacking block driver.
//!
//! Each module sits where its counterpart in `rust/kernel/` would, carries no knowledge of the
//! driver that uses it, and offers only safe interfaces. Bindings that the `kernel` crate already
//! has are used from there; [`bindings`] adds the rest.
//!
//! The `kernel` crate has block drivers too. Its requests carry no data of the driver's and are
//! reference counted, its disks have no operations, and their limits cannot change: a driver that
//! passes requests on needs all of that, so [`block::mq`] starts from the request's owner instead.
//!
//! # Soundness
//!
//! At the head of each module a table says what safe code could try to go wrong, and what stops it.
//! Where nothing does, but a deadlock or a leak is all that comes of it, it says so. What nothing stops
//! and is worse is, here and with the `kernel` crate:
//!
//! | What safe code could try | What comes of it |
//! | --- | --- |
//! | Sleep under the RCU lock | What it protects goes; a debug kernel tells |
//! | Forget what is registered, and have the module unloaded | The kernel calls code that is gone |
//! | Forget a mutex's guard, and end the task | Who waits looks at the task, which is gone |
//! | Have the module unloaded right after its last I/O | Below |
//! | Have it unloaded in the last close of a removed disk | The disk goes after the module, maybe |
//!
//! When the last I/O of a disk ends nothing keeps the module any more, but the end of the callback that
//! ended it is still to be run. That is under the RCU lock, or in an interrupt, and the memory of a
//! module is freed after a grace period. What is left are the instructions by which the callback returns
//! when it has released the lock: in a task, where some file systems end direct I/O, that is preempted
//! just there, and not run again until the disk is closed and the module unloaded. C drivers have all
//! of the callback there.

pub mod block;
pub mod cgroup;
pub mod fs;
pub mod miscdevice;
pub mod module;
pub mod module_param;
pub mod security;
pub mod sync;
pub mod task;
pub mod time;
pub mod timer;
pub mod uapi;
pub mod workqueue;

/// Bindings: the `kernel` crate's, and over them what `bindings_helper.h` and `helpers.c` add.
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
    // Those that both have.
    pub(crate) use generated::*;
    pub(crate) use generated::{iomap_ops, kstatfs, mutex_lock_killable};
    pub(crate) use kernel::bindings::*;

    pub(crate) mod generated {
        use kernel::bindings::*;
        use kernel::ffi;

        include!(env!("KERNEL_EXT_BINDINGS"));
        include!(env!("KERNEL_EXT_HELPERS"));
    }
}
