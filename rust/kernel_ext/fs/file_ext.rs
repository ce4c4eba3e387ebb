// SPDX-License-Identifier: GPL-2.0

//! Queries of a file, and operations on it.
//!
//! # Soundness
//!
//! | What safe code could try | What stops it |
//! | --- | --- |
//! | Use a block device after its file was closed | It is borrowed from the file |
//! | Keep a device that a file system has moved off | Its limits are copied |
//! | Pass any mode or range to `fallocate` | Both are checked, and swap files and write access |
//! | Have a path written past the buffer | Its length is passed on; `ENAMETOOLONG` |
//! | Ask for a path in an exiting task | `ESRCH`: it may have no root directory |

use crate::{
    bindings,
    block::{bdev::DevT, BlockDevice},
    compat::EOPNOTSUPP,
    sync::read_once,
    task,
};
use core::mem::MaybeUninit;
use kernel::{
    error::{from_err_ptr, to_result},
    fs::File,
    page::PAGE_SHIFT,
    prelude::*,
    sync::rcu,
    task::{might_sleep, Task},
};

/// The numbers that identify a file to user space.
pub struct FileId {
    /// The device that the file system is on.
    pub dev: DevT,
    /// The inode's number.
    pub ino: u64,
    /// The device that the file is; 0 for a regular file.
    pub rdev: DevT,
}

/// Limits of the block device that a file system is on.
pub struct FsDevice {
    /// The logical block size in bytes.
    pub logical_block_size: u32,
    /// The mask of address bits that must be clear in the memory of an I/O.
    pub dma_alignment: u32,
    /// Whether it is rotational.
    pub is_rotational: bool,
}

/// The alignment that a file system asks for in direct I/O (`STATX_DIOALIGN`).
pub struct DioAlign {
    /// The mask of address bits that must be clear in memory.
    pub mem_mask: u32,
    /// The number of bytes of which offset and length must be a multiple.
    pub offset: u32,
}

/// `fallocate`: deallocate the range, which reads as zeroes.
pub const FALLOC_FL_PUNCH_HOLE: i32 = bindings::FALLOC_FL_PUNCH_HOLE as i32;

/// `fallocate`: zero the range, and keep its space allocated.
pub const FALLOC_FL_ZERO_RANGE: i32 = bindings::FALLOC_FL_ZERO_RANGE as i32;

/// Queries of a [`File`], and operations on it, for a driver that uses it as a backing store.
pub trait FileExt {
    /// Whether the file was opened for writing.
    fn is_writable(&self) -> bool;
    /// Whether the file was opened with `O_DIRECT`.
    fn is_direct(&self) -> bool;
    /// Whether the file supports `O_DIRECT` (`FMODE_CAN_ODIRECT`).
    fn can_direct(&self) -> bool;
    /// Whether the file supports `IOCB_NOWAIT` (`FMODE_NOWAIT`).
    fn can_nowait(&self) -> bool;
    /// Whether the file supports [reads](crate::block::mq::Submit::read_cached) through the page
    /// cache that do not wait for pages under I/O (`FOP_BUFFER_RASYNC`).
    fn can_read_async(&self) -> bool;
    /// Whether the file supports `IOCB_NOWAIT` for buffered writes, too (`FOP_BUFFER_WASYNC`), and
    /// is not `IS_SYNC`. For a block device
    /// [`Transfer::transfer`](crate::block::mq::Transfer::transfer) adds that support.
    fn can_write_nowait(&self) -> bool;
    /// Whether the file system's `s_dio_done_wq` exists, or the file needs none. The first direct
    /// I/O allocates it, which takes locks whose holders may wait for I/O to any device.
    fn has_dio_workqueue(&self) -> bool;
    /// Creates the file system's `s_dio_done_wq`, unless it exists. Without memory the first direct
    /// I/O tries again. May sleep.
    ///
    /// Wraps the C function `sb_init_dio_done_wq`.
    fn init_dio_workqueue(&self);
    /// Whether a direct write of whole pages and a buffered write to other pages do not affect each
    /// other: blocks are at most a page, and the file system knows which blocks of a folio are
    /// dirty, and lets the memory of a write change meanwhile.
    fn separates_direct_writes(&self) -> bool;
    /// Whether a write with `IOCB_DSYNC` is known to be durable when it completes, and to flush no
    /// more than its range. Some file systems ignore the flag of the `kiocb`, and some sync the
    /// whole file.
    fn supports_iocb_dsync(&self) -> bool;
    /// Whether the file has `read_iter`.
    fn has_read_iter(&self) -> bool;
    /// Whether the file has `write_iter`.
    fn has_write_iter(&self) -> bool;
    /// Whether the file has `fsync`.
    fn has_fsync(&self) -> bool;
    /// Whether the file has `fallocate`.
    fn has_fallocate(&self) -> bool;
    /// Whether the inode of the file's mapping is a regular file.
    fn is_regular(&self) -> bool;
    /// The block device that the file is, if it is one.
    fn as_bdev(&self) -> Option<&BlockDevice>;
    /// Limits of the block device that the file's file system is on, if it is on one. A file system
    /// can be moved to another device while it is mounted.
    fn fs_device(&self) -> Option<FsDevice>;
    /// The size in bytes, as the file system reports it. May sleep.
    fn size(&self) -> Result<i64>;
    /// The numbers that identify the file to user space. May sleep.
    fn id(&self) -> Result<FileId>;
    /// The alignment of direct I/O, if the file system reports it. May sleep.
    fn dio_align(&self) -> Option<DioAlign>;
    /// The file system's block size in bytes. May sleep.
    fn fs_block_size(&self) -> Result<u32>;
    /// Writes dirty pages back, and waits for writeback. Errors are left to [`fsync`](Self::fsync),
    /// which still reports them. May sleep.
    ///
    /// Wraps the C functions `filemap_fdatawrite` and `filemap_fdatawait_keep_errors`.
    fn write_back(&self);
    /// Makes the file's data and metadata durable. May sleep.
    ///
    /// Wraps the C function `vfs_fsync`.
    fn fsync(&self) -> Result;
    /// Makes the file's data durable, and the metadata that is needed to read it. May sleep.
    ///
    /// This is `fdatasync` on file systems where that is known to cover the extents that
    /// [`fallocate`](Self::fallocate) changed, and `fsync` on others.
    fn flush(&self) -> Result;
    /// Changes the allocation of a range, in bytes, and keeps the file's size. `mode` is
    /// [`FALLOC_FL_PUNCH_HOLE`] or [`FALLOC_FL_ZERO_RANGE`]. May sleep.
    ///
    /// Calls the file's operation, as `drivers/block/loop.c` does, and not `vfs_fallocate()`. That
    /// would refuse files that were made immutable or append-only after they were opened, ask the
    /// security modules about the current task, which is a worker, and send fsnotify events.
    ///
    /// # Errors
    ///
    /// - `EOPNOTSUPP` if the file system does not support the operation or the mode.
    /// - `EBADF` if the file is not open for writing.
    /// - `ETXTBSY` if it is a swap file.
    /// - `EFBIG` if the range ends beyond `s_maxbytes`.
    fn fallocate(&self, mode: i32, pos: i64, len: i64) -> Result;
    /// Writes the file's path, as seen from the task's root directory, to `buf`. Process context.
    ///
    /// # Errors
    ///
    /// `ENAMETOOLONG` if it does not fit. `ESRCH` in an interrupt, or in an exiting task that has
    /// given up its root directory.
    ///
    /// Wraps the C function `file_path`.
    fn path<'a>(&self, buf: &'a mut [u8]) -> Result<&'a [u8]>;
}

/// Returns the file's operations.
fn ops(file: &File) -> &bindings::file_operations {
    // SAFETY: An open file has operations. A file that replaces them (`snd_card_disconnect()`)
    // leaves the old ones in place.
    unsafe { &*(*file.as_ptr()).f_op }
}

/// Returns the inode of the file's mapping.
#[inline]
fn host(file: &File) -> *mut bindings::inode {
    // SAFETY: An open file has a mapping, which has a host.
    unsafe { (*(*file.as_ptr()).f_mapping).host }
}

#[inline]
fn file_type(file: &File) -> u32 {
    // SAFETY: The inode is valid while the file is open. `make_bad_inode()` changes its type to
    // that of a regular file, in one store.
    u32::from(unsafe { (*host(file)).i_mode }) & bindings::S_IFMT
}

/// Returns the magic number of the file system of the file's mapping; 0 if it has more than 32
/// bits.
fn super_magic(file: &File) -> u32 {
    // SAFETY: An inode has a super block, which stays mounted while the file is open.
    let magic = unsafe { (*(*host(file)).i_sb).s_magic };
    u32::try_from(magic).unwrap_or(0)
}

/// Whether `fdatasync` makes changes of a file's extents by `fallocate` durable.
///
/// - ext4: `ext4_update_inode_fsync_trans()` notes the transaction in `i_datasync_tid` where
///   extents are allocated, converted, or removed. ext2, which has the same magic number, has no
///   `fallocate`.
/// - xfs: each change of the extents is logged with the inode, whose `ili_datasync_seq` follows it;
///   only a change of times alone does not move that.
/// - btrfs: `btrfs_sync_file()` does not look at `datasync`.
/// - tmpfs: there is nothing to write back.
///
/// Not f2fs: `f2fs_do_zero_range()` dirties the node page alone, and `f2fs_do_sync_file()` with
/// `datasync` returns before it writes that. Not ntfs3: `write_inode_now()` without waiting. Not
/// FUSE and network file systems: the server decides. Others were not read.
fn fdatasync_covers_extents(magic: u32) -> bool {
    matches!(
        magic,
        bindings::EXT4_SUPER_MAGIC
            | bindings::XFS_SUPER_MAGIC
            | bindings::BTRFS_SUPER_MAGIC
            | bindings::TMPFS_MAGIC
    )
}

/// Returns the file's `struct path`.
fn raw_path(file: &File) -> *const bindings::path {
    // SAFETY: The file is valid; its path does not change while it is open.
    unsafe { &raw const (*file.as_ptr()).__bindgen_anon_1.f_path }
}

impl FileExt for File {
    #[inline]
    fn is_writable(&self) -> bool {
        // SAFETY: The file is valid, and its mode does not change in this bit.
        unsafe { (*self.as_ptr()).f_mode & bindings::FMODE_WRITE != 0 }
    }

    #[inline]
    fn is_direct(&self) -> bool {
        self.flags() & bindings::O_DIRECT != 0
    }

    #[inline]
    fn can_direct(&self) -> bool {
        // SAFETY: As in `is_writable`.
        unsafe { (*self.as_ptr()).f_mode & bindings::FMODE_CAN_ODIRECT != 0 }
    }

    #[inline]
    fn can_nowait(&self) -> bool {
        // SAFETY: As in `is_writable`.
        unsafe { (*self.as_ptr()).f_mode & bindings::FMODE_NOWAIT != 0 }
    }

    #[inline]
    fn can_read_async(&self) -> bool {
        // SAFETY: As in `is_writable`; a file has operations.
        unsafe { (*(*self.as_ptr()).f_op).fop_flags & bindings::FOP_BUFFER_RASYNC != 0 }
    }

    #[inline]
    fn can_write_nowait(&self) -> bool {
        // SAFETY: As in `is_writable`; a file has operations.
        let flags = unsafe { (*(*self.as_ptr()).f_op).fop_flags };
        self.can_nowait()
            && (flags & bindings::FOP_BUFFER_WASYNC != 0 || self.as_bdev().is_some())
            // SAFETY: An open file has an inode.
            && !unsafe { bindings::IS_SYNC(host(self)) }
    }

    #[inline]
    fn has_dio_workqueue(&self) -> bool {
        if self.as_bdev().is_some() {
            return true;
        }
        // SAFETY: An inode has a super block, which stays mounted while the file is open. The
        // pointer is set once, from null, by whoever comes first, and is not followed here.
        let workqueue = unsafe { read_once(&raw const (*(*host(self)).i_sb).s_dio_done_wq) };
        !workqueue.is_null()
    }

    fn init_dio_workqueue(&self) {
        might_sleep();
        if !self.has_dio_workqueue() {
            // SAFETY: An inode has a super block, which stays mounted while the file is open.
            let _ = unsafe { bindings::sb_init_dio_done_wq((*host(self)).i_sb) };
        }
    }

    fn separates_direct_writes(&self) -> bool {
        if !matches!(
            super_magic(self),
            bindings::EXT4_SUPER_MAGIC | bindings::XFS_SUPER_MAGIC
        ) {
            return false;
        }
        let inode = host(self);
        // SAFETY: An open file has an inode. These file systems do not change its `i_blkbits`.
        let block_bits = unsafe { (*inode).i_blkbits };
        // SAFETY: The inode's mapping lives as long; its flags change atomically.
        let flags = unsafe { read_once(&raw const (*(*inode).i_mapping).flags) };
        u32::from(block_bits) <= PAGE_SHIFT as u32
            && flags & (1 << bindings::mapping_flags_AS_STABLE_WRITES) == 0
    }

    fn supports_iocb_dsync(&self) -> bool {
        self.as_bdev().is_some()
            || matches!(
                super_magic(self),
                bindings::EXT4_SUPER_MAGIC | bindings::XFS_SUPER_MAGIC | bindings::F2FS_SUPER_MAGIC
            )
    }

    fn has_read_iter(&self) -> bool {
        ops(self).read_iter.is_some()
    }

    fn has_write_iter(&self) -> bool {
        ops(self).write_iter.is_some()
    }

    fn has_fsync(&self) -> bool {
        ops(self).fsync.is_some()
    }

    fn has_fallocate(&self) -> bool {
        ops(self).fallocate.is_some()
    }

    fn is_regular(&self) -> bool {
        file_type(self) == bindings::S_IFREG
    }

    #[inline]
    fn as_bdev(&self) -> Option<&BlockDevice> {
        if file_type(self) != bindings::S_IFBLK {
            return None;
        }
        // SAFETY: The data of an open block device file is held by the inode of its block device,
        // which stays while the file is open.
        Some(unsafe { BlockDevice::from_raw(bindings::I_BDEV(host(self))) })
    }

    fn fs_device(&self) -> Option<FsDevice> {
        let _rcu = rcu::read_lock();
        // SAFETY: An inode has a super block, which stays mounted while the file is open. Its
        // device may be changing: a reader sees either one.
        let bdev = unsafe { read_once(&raw const (*(*host(self)).i_sb).s_bdev) };
        if bdev.is_null() {
            return None;
        }
        // SAFETY: The super block held the device when it was looked up. A device that it no longer
        // holds is freed, with its queue, a grace period later at the earliest.
        let bdev = unsafe { BlockDevice::from_raw(bdev) };
        Some(FsDevice {
            logical_block_size: bdev.logical_block_size(),
            dma_alignment: bdev.dma_alignment(),
            is_rotational: bdev.is_rotational(),
        })
    }

    fn size(&self) -> Result<i64> {
        if file_type(self) == bindings::S_IFBLK {
            // SAFETY: The inode is valid while the file is open.
            return Ok(unsafe { bindings::i_size_read(host(self)) });
        }
        let mut stat = bindings::kstat::default();
        // SAFETY: The path is valid while the file is open.
        to_result(unsafe {
            bindings::vfs_getattr_nosec(raw_path(self), &mut stat, bindings::STATX_SIZE, 0)
        })?;
        Ok(stat.size)
    }

    fn id(&self) -> Result<FileId> {
        let mut stat = bindings::kstat::default();
        // SAFETY: The path is valid while the file is open.
        to_result(unsafe {
            bindings::vfs_getattr(
                raw_path(self),
                &mut stat,
                bindings::STATX_INO,
                bindings::AT_STATX_SYNC_AS_STAT,
            )
        })?;
        Ok(FileId {
            dev: DevT::from_raw(stat.dev),
            ino: stat.ino,
            rdev: DevT::from_raw(stat.rdev),
        })
    }

    fn dio_align(&self) -> Option<DioAlign> {
        let mut stat = bindings::kstat::default();
        // SAFETY: The path is valid while the file is open.
        to_result(unsafe {
            bindings::vfs_getattr(raw_path(self), &mut stat, bindings::STATX_DIOALIGN, 0)
        })
        .ok()?;
        if stat.result_mask & bindings::STATX_DIOALIGN == 0 {
            return None;
        }
        Some(DioAlign {
            mem_mask: stat.dio_mem_align.checked_sub(1)?,
            offset: stat.dio_offset_align,
        })
    }

    fn fs_block_size(&self) -> Result<u32> {
        let mut stat = MaybeUninit::<bindings::kstatfs>::uninit();
        // SAFETY: The path is valid while the file is open, and `stat` is a `struct kstatfs`.
        to_result(unsafe { bindings::vfs_statfs(raw_path(self), stat.as_mut_ptr().cast()) })?;
        // SAFETY: Filled in by the successful call.
        Ok(unsafe { (*stat.as_ptr()).f_bsize }.try_into()?)
    }

    fn write_back(&self) {
        might_sleep();
        let file = self.as_ptr();
        // SAFETY: Dentry, inodes and mappings are valid while the file is open. On overlayfs the
        // pages are those of the file below; a block device has no pages in its node's inode.
        let _ = unsafe {
            let mapping = match self.is_regular() {
                true => (*bindings::d_real_inode((*raw_path(self)).dentry)).i_mapping,
                false => (*file).f_mapping,
            };
            bindings::filemap_fdatawrite(mapping);
            bindings::filemap_fdatawait_keep_errors(mapping)
        };
    }

    fn fsync(&self) -> Result {
        might_sleep();
        // SAFETY: The file is valid.
        to_result(unsafe { bindings::vfs_fsync(self.as_ptr(), 0) })
    }

    fn flush(&self) -> Result {
        if self.as_bdev().is_none() && !fdatasync_covers_extents(super_magic(self)) {
            return self.fsync();
        }
        might_sleep();
        // SAFETY: The file is valid.
        to_result(unsafe { bindings::vfs_fsync(self.as_ptr(), 1) })
    }

    fn fallocate(&self, mode: i32, pos: i64, len: i64) -> Result {
        might_sleep();
        let func = ops(self).fallocate.ok_or(EOPNOTSUPP)?;
        if !matches!(mode, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE) {
            return Err(EOPNOTSUPP);
        }
        if !self.is_writable() {
            return Err(EBADF);
        }
        if pos < 0 || len <= 0 {
            return Err(EINVAL);
        }
        let end = pos.checked_add(len).ok_or(EFBIG)?;
        // SAFETY: An open file has an inode, and that a super block. The flags may be changing: a
        // reader sees either value.
        let (flags, max) = unsafe {
            let inode = (*self.as_ptr()).f_inode;
            (
                read_once(&raw const (*inode).i_flags),
                (*(*inode).i_sb).s_maxbytes,
            )
        };
        if flags & bindings::S_SWAPFILE != 0 {
            return Err(ETXTBSY);
        }
        if end > max {
            return Err(EFBIG);
        }
        // SAFETY: The file is valid and open for writing; the call is one of its operations, with
        // a mode that it can have and a range that files can, under the protection against freezing
        // that it expects.
        unsafe {
            bindings::file_start_write(self.as_ptr());
            let ret = func(
                self.as_ptr(),
                mode | bindings::FALLOC_FL_KEEP_SIZE as i32,
                pos,
                len,
            );
            bindings::file_end_write(self.as_ptr());
            to_result(ret as i32)
        }
    }

    fn path<'a>(&self, buf: &'a mut [u8]) -> Result<&'a [u8]> {
        // The path is one as seen from the task's root directory.
        //
        // SAFETY: Only the task itself gives up its `fs`.
        if !task::in_task() || unsafe { (*Task::current_raw()).fs.is_null() } {
            return Err(ESRCH);
        }
        // SAFETY: The file is valid, the task has a root directory, and the buffer is valid for its
        // length.
        let path = from_err_ptr(unsafe {
            bindings::file_path(
                self.as_ptr(),
                buf.as_mut_ptr().cast(),
                buf.len().try_into()?,
            )
        })?;
        // SAFETY: `file_path` returns a string within the buffer, which ends there with a null
        // byte, and which is ours for `'a`.
        Ok(unsafe { CStr::from_char_ptr(path) }.to_bytes())
    }
}
