// SPDX-License-Identifier: GPL-2.0

//! Reads and writes of a block device's page cache that do not block.
//!
//! `blkdev_read_iter()` takes the lock of the inode whatever the flags, and `blkdev_write_iter()`
//! refuses `IOCB_NOWAIT` for buffered writes, although iomap supports both. These functions do as
//! `block/fops.c` does otherwise. To be replaced by `IOCB_NOWAIT` and `FOP_BUFFER_WASYNC` there
//! (Jens Axboe, Christian Brauner).
//!
//! # Soundness
//!
//! | What safe code could try | What stops it |
//! | --- | --- |
//! | Call these functions | They are `unsafe`, and used by [`Transfer`](super::Transfer) only |
//! | Write where `blkdev_write_iter()` refuses it | The same is checked |
//! | Change the block size meanwhile | That takes the inode's lock, which is held |

use crate::{bindings, sync::read_once};
use kernel::{
    error::from_err_ptr,
    ffi::{c_int, c_uint},
    prelude::*, //
};

/// Reads a block device from its page cache. Returns `EAGAIN` if the lock of the inode is taken, or
/// if `end`, the end of the read, is beyond the end of the device.
///
/// # Safety
///
/// - `iocb` points to a kiocb without a completion, of a valid file that is open on a block device,
///   with flags not to wait and to start nothing.
/// - `iter` describes valid memory.
#[inline]
pub(super) unsafe fn read_bdev_cached(
    iocb: *mut bindings::kiocb,
    iter: &mut bindings::iov_iter,
    end: i64,
) -> isize {
    // SAFETY: By the requirements of this function the file's data is a block device's, whose inode
    // stays while the file is open. This task releases the lock.
    unsafe {
        let inode = (*(*(*iocb).ki_filp).f_mapping).host;
        let lock = &raw mut (*inode).i_rwsem;
        if end > bindings::i_size_read(inode) || bindings::down_read_trylock(lock) == 0 {
            return EAGAIN.to_errno() as isize;
        }
        let ret = bindings::filemap_read(iocb, iter, 0);
        bindings::up_read(lock);
        ret
    }
}

/// Writes to the page cache of a block device. Returns `EAGAIN` if the write would block, or is one
/// that this function does not implement: to a swap device, a read-only device, or one with stable
/// pages, beyond the end, or of part of a block.
///
/// # Safety
///
/// - `iocb` points to a kiocb without a completion, of a valid file that is open for writing on a
///   block device, which is not to wait, nor to be direct or synced.
/// - `iter` describes valid memory, and `end` is where the write ends.
pub(super) unsafe fn write_bdev_cached(
    iocb: *mut bindings::kiocb,
    iter: &mut bindings::iov_iter,
    end: i64,
) -> isize {
    let would_wait = EAGAIN.to_errno() as isize;
    // SAFETY: By the requirements of this function the file's data is a block device's, whose inode
    // and mapping stay while the file is open. The flags may be changing: a reader sees either
    // value.
    let (inode, simple) = unsafe {
        let mapping = (*(*iocb).ki_filp).f_mapping;
        let inode = (*mapping).host;
        let flags = read_once(&raw const (*inode).i_flags);
        let simple = end <= bindings::i_size_read(inode)
            && flags & bindings::S_SWAPFILE == 0
            && !bindings::bdev_read_only(bindings::I_BDEV(inode))
            && !bindings::mapping_stable_writes(mapping);
        (inode, simple)
    };
    // SAFETY: The kiocb and its file are valid.
    if !simple || !unsafe { note_write(iocb) } {
        return would_wait;
    }
    // SAFETY: As above. The lock keeps the block size as it is, and this task releases it.
    unsafe {
        let lock = &raw mut (*inode).i_rwsem;
        if bindings::down_read_trylock(lock) == 0 {
            return would_wait;
        }
        // A block that is written in part is read before.
        let in_block = (1i64 << (*inode).i_blkbits) - 1;
        let ret = match ((*iocb).ki_pos | end) & in_block {
            0 => bindings::iomap_file_buffered_write(
                iocb,
                iter,
                &BDEV_IOMAP_OPS,
                &BDEV_WRITE_OPS,
                core::ptr::null_mut(),
            ),
            _ => would_wait,
        };
        bindings::up_read(lock);
        ret
    }
}

/// Updates the times of the inode of a block device's node. False if that would block.
///
/// # Safety
///
/// `iocb` is a kiocb of a valid file.
unsafe fn note_write(iocb: *mut bindings::kiocb) -> bool {
    // SAFETY: An open file has an inode, and that a super block; both have operations.
    unsafe {
        let file = (*iocb).ki_filp;
        let inode = (*file).f_inode;
        // devtmpfs is in memory and does not block, but refuses `IOCB_NOWAIT` where it updates
        // `i_version`.
        let in_memory = (*(*inode).i_op).update_time.is_none()
            && (*(*(*inode).i_sb).s_op).dirty_inode.is_none();
        match in_memory {
            true => bindings::file_update_time(file) == 0,
            false => bindings::kiocb_modified(iocb) == 0,
        }
    }
}

/// Maps the page cache of a block device to the device.
static BDEV_IOMAP_OPS: bindings::iomap_ops = bindings::iomap_ops {
    iomap_begin: Some(bdev_iomap_begin),
    ..pin_init::zeroed()
};

/// As the C function `blkdev_iomap_begin`.
///
/// # Safety
///
/// As iomap calls it, for the inode of a block device.
unsafe extern "C" fn bdev_iomap_begin(
    inode: *mut bindings::inode,
    offset: i64,
    _length: i64,
    _flags: c_uint,
    iomap: *mut bindings::iomap,
    _srcmap: *mut bindings::iomap,
) -> c_int {
    // SAFETY: By the requirements of this function; `iomap` is ours to fill in.
    unsafe {
        let bdev = bindings::I_BDEV(inode);
        let size = bindings::i_size_read(inode);
        let start = offset & -i64::from(bindings::bdev_logical_block_size(bdev));
        if start < 0 || offset >= size {
            return EIO.to_errno();
        }
        (*iomap).bdev = bdev;
        (*iomap).offset = start;
        (*iomap).addr = start.unsigned_abs();
        (*iomap).length = (size - start).unsigned_abs();
        (*iomap).type_ = bindings::IOMAP_MAPPED as u16;
        (*iomap).flags |= bindings::IOMAP_F_BUFFER_HEAD as u16;
    }
    0
}

static BDEV_WRITE_OPS: bindings::iomap_write_ops = bindings::iomap_write_ops {
    get_folio: Some(bdev_get_folio),
    ..pin_init::zeroed()
};

/// As the C function `iomap_get_folio`, for a folio that has buffer heads: iomap would allocate
/// missing ones with `__GFP_NOFAIL`.
///
/// # Safety
///
/// As iomap calls it, for the inode of a block device.
unsafe extern "C" fn bdev_get_folio(
    iter: *mut bindings::iomap_iter,
    pos: i64,
    len: c_uint,
) -> *mut bindings::folio {
    // SAFETY: By the requirements of this function.
    let folio = unsafe { bindings::iomap_get_folio(iter, pos, len as usize) };
    if bindings::IOMAP_F_BUFFER_HEAD == 0 || from_err_ptr(folio).is_err() {
        return folio;
    }
    // SAFETY: The folio is ours, locked, and put if it is not returned. The private data of a block
    // device's folio are its buffer heads.
    unsafe {
        if !(*folio)
            .__bindgen_anon_1
            .__bindgen_anon_1
            .__bindgen_anon_3
            .private
            .is_null()
        {
            return folio;
        }
        bindings::folio_unlock(folio);
        bindings::folio_put(folio);
    }
    EAGAIN.to_ptr()
}
