// SPDX-License-Identifier: GPL-2.0

//! Block devices and the drivers that provide them.

pub mod bdev;
pub mod disk;
pub mod disk_ops;
pub mod gendisk;
pub mod limits;
pub mod major;
pub mod mq;
pub mod queue;
mod status;
pub mod sysfs;

pub use bdev::{BlockDevice, OpenMode};
pub use disk::{Disk, DiskOptions};
pub use disk_ops::{HasDiskVTable, IoctlContext, Operations, ReleaseContext};
pub use gendisk::GenDisk;
pub use limits::QueueLimits;
pub use queue::Queue;
pub use status::Status;

pub use kernel::block::{SECTOR_SHIFT, SECTOR_SIZE};
