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
pub use disk_ops::{Closing, HasDiskVTable, IoctlContext, Operations};
pub use gendisk::GenDisk;
pub use limits::QueueLimits;
pub use queue::Queue;
pub use status::Status;

/// Shift from bytes to sectors.
pub const SECTOR_SHIFT: u32 = 9;

/// Size of a sector in bytes: the unit of positions and capacities, whatever a device's block
/// size.
pub const SECTOR_SIZE: u32 = 1 << SECTOR_SHIFT;
