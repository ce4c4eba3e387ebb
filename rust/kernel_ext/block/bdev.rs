// SPDX-License-Identifier: GPL-2.0

//! Block devices, as their users see them.
//!
//! C header: [`include/linux/blkdev.h`](srctree/include/linux/blkdev.h)
//!
//! # Soundness
//!
//! | What safe code could try | What stops it |
//! | --- | --- |
//! | Keep a `&BlockDevice` after it was closed | It is borrowed from the file or disk that holds it |
//! | Make a device from a number | A [`DevT`] gives no access |
//! | Release a claim twice, another's, or never | A device is claimed for the call of a closure |
//! | Claim a device within its claim | Nothing; the inner claim waits for the outer one |

use crate::{bindings, sync::read_once};
use core::ops::Range;
use kernel::{error::to_result, page::PAGE_SHIFT, prelude::*, types::Opaque};

/// How a block device was opened.
///
/// Wraps the C `blk_mode_t`.
#[derive(Copy, Clone)]
pub struct OpenMode(bindings::blk_mode_t);

impl OpenMode {
    pub(crate) fn from_raw(mode: bindings::blk_mode_t) -> Self {
        Self(mode)
    }

    /// The opener may write.
    pub fn is_write(self) -> bool {
        self.0 & bindings::BLK_OPEN_WRITE != 0
    }

    /// The opener holds the device exclusively (`O_EXCL`).
    pub fn is_exclusive(self) -> bool {
        self.0 & bindings::BLK_OPEN_EXCL != 0
    }
}

/// A block device: a whole disk or a partition.
///
/// Wraps the C `struct block_device`.
///
/// # Invariants
///
/// A reference does not keep the device alive. Whoever creates one guarantees that the device is
/// open, or held otherwise, for the lifetime of the reference.
#[repr(transparent)]
pub struct BlockDevice(Opaque<bindings::block_device>);

// SAFETY: The C functions called on a `struct block_device` below do their own locking.
unsafe impl Send for BlockDevice {}
// SAFETY: As above.
unsafe impl Sync for BlockDevice {}

impl BlockDevice {
    /// Creates a reference from a raw pointer.
    ///
    /// # Safety
    ///
    /// `ptr` points to a block device that stays valid for `'a`.
    pub(crate) unsafe fn from_raw<'a>(ptr: *mut bindings::block_device) -> &'a Self {
        // SAFETY: By the requirements above, and `Self` is transparent.
        unsafe { &*ptr.cast() }
    }

    pub(crate) fn as_raw(&self) -> *mut bindings::block_device {
        self.0.get()
    }

    /// The device's number.
    pub fn devt(&self) -> DevT {
        // SAFETY: By the type invariant the device is valid, and its number does not change.
        DevT(unsafe { (*self.as_raw()).bd_dev })
    }

    /// The logical block size in bytes.
    pub fn logical_block_size(&self) -> u32 {
        // SAFETY: By the type invariant the device is valid.
        unsafe { bindings::bdev_logical_block_size(self.as_raw()) }
    }

    /// The mask of address bits that must be clear in the memory of an I/O.
    pub fn dma_alignment(&self) -> u32 {
        // SAFETY: By the type invariant the device is valid.
        unsafe { bindings::bdev_dma_alignment(self.as_raw()) }
    }

    /// The largest write-zeroes request in sectors; 0 if the device does not support it.
    pub fn write_zeroes_sectors(&self) -> u32 {
        // SAFETY: By the type invariant the device is valid.
        unsafe { bindings::bdev_write_zeroes_sectors(self.as_raw()) }
    }

    /// The discard granularity in bytes.
    pub fn discard_granularity(&self) -> u32 {
        // SAFETY: By the type invariant the device is valid.
        unsafe { bindings::bdev_discard_granularity(self.as_raw()) }
    }

    /// Whether the device is rotational.
    pub fn is_rotational(&self) -> bool {
        // SAFETY: By the type invariant the device is valid.
        unsafe { bindings::bdev_rot(self.as_raw()) }
    }

    /// Writes back the device's page cache, and waits for it. May sleep.
    ///
    /// Wraps the C function `sync_blockdev`.
    pub fn sync(&self) -> Result {
        // SAFETY: By the type invariant the device is valid.
        to_result(unsafe { bindings::sync_blockdev(self.as_raw()) })
    }

    /// Drops clean pages of the device's page cache. May sleep.
    ///
    /// Wraps the C function `invalidate_bdev`.
    pub fn invalidate(&self) {
        // SAFETY: By the type invariant the device is valid.
        unsafe { bindings::invalidate_bdev(self.as_raw()) }
    }

    /// Drops pages of the device's page cache that have bytes of this range, also mapped ones and
    /// those that are being read, for which it waits. Dirty pages, and buffers in use, stay. May
    /// sleep.
    ///
    /// Wraps the C function `invalidate_inode_pages2_range`.
    pub fn invalidate_range(&self, bytes: Range<u64>) {
        let first = (bytes.start >> PAGE_SHIFT) as usize;
        let last = (bytes.end >> PAGE_SHIFT) as usize;
        // SAFETY: By the type invariant the device is valid, and its mapping exists as long as it
        // does. Nobody can do anything about pages that stay.
        unsafe {
            bindings::invalidate_inode_pages2_range((*self.as_raw()).bd_mapping, first, last)
        };
    }

    /// Whether the device is open exclusively, or claimed by such an open of one of its partitions.
    /// The answer can be outdated when this returns.
    pub fn has_holders(&self) -> bool {
        // SAFETY: By the type invariant the device is valid. The count may be changing.
        unsafe { read_once(&raw const (*self.as_raw()).bd_holders) > 0 }
    }

    /// Runs `f` while the device is claimed: nobody can open it exclusively or claim it meanwhile,
    /// and `f` must not either. May sleep.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the device is open exclusively.
    ///
    /// Wraps the C functions `bd_prepare_to_claim` and `bd_abort_claiming`.
    pub fn with_claim<R>(&self, f: impl FnOnce() -> R) -> Result<R> {
        // The block layer only compares holders. A claim that is always aborted never makes one, so
        // that one for all devices is enough.
        static HOLDER: u8 = 0;
        let holder = core::ptr::from_ref(&HOLDER).cast_mut().cast();
        // SAFETY: By the type invariant the device is valid.
        to_result(unsafe {
            bindings::bd_prepare_to_claim(self.as_raw(), holder, core::ptr::null())
        })?;
        let ret = f();
        // SAFETY: As above; the device was claimed with this holder.
        unsafe { bindings::bd_abort_claiming(self.as_raw(), holder) };
        Ok(ret)
    }
}

/// A device number.
///
/// Wraps the C `dev_t`.
#[derive(Copy, Clone, PartialEq, Eq)]
pub struct DevT(bindings::dev_t);

impl DevT {
    pub(crate) fn from_raw(dev: bindings::dev_t) -> Self {
        Self(dev)
    }

    /// The major number.
    pub fn major(self) -> u32 {
        self.0 >> bindings::MINORBITS
    }

    /// The minor number.
    pub fn minor(self) -> u32 {
        self.0 & ((1 << bindings::MINORBITS) - 1)
    }

    /// The number as user space has it, in 64 bits.
    ///
    /// Corresponds to the C function `huge_encode_dev`.
    pub fn to_user(self) -> u64 {
        let (major, minor) = (self.major(), self.minor());
        u64::from((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12))
    }
}
