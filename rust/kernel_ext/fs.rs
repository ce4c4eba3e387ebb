// SPDX-License-Identifier: GPL-2.0

//! Files as backing stores.
//!
//! C headers: [`include/linux/fs.h`](srctree/include/linux/fs.h),
//! [`include/linux/file.h`](srctree/include/linux/file.h)
//!
//! # Soundness
//!
//! | What safe code could try | What stops it |
//! | --- | --- |
//! | Use what is of a file after it was closed | It is borrowed from the file |
//! | Keep a device that a file system has moved off | What is known of it is copied |
//! | Look up files in another task | [`FdTable`] is neither `Send` nor `Sync` |
//! | Look up files outside of an ioctl | It is lent for the call, and only `unsafe` makes one |
//! | Take a file with `O_PATH` for an open one | `fget` does not find it |
//! | Pass any mode or range to `fallocate` | Both are checked, like swap files and write access |
//! | Have a path written past the buffer | Its length is passed on; `ENAMETOOLONG` |
//! | Have a mapping in two [`NoioMappings`] | Nothing; its mask is restored too early |
//! | Forget a [`NoioMapping`] | Nothing; file and mask stay as they are |

use crate::{
    bindings,
    block::{bdev::DevT, BlockDevice},
    sync::read_once,
    task,
};
use core::{marker::PhantomData, mem::MaybeUninit, ptr::NonNull};
use kernel::{
    error::{from_err_ptr, to_result},
    fs::{File, LocalFile},
    prelude::*,
    rbtree::{Entry, RBTree, RBTreeNodeReservation},
    sync::{
        aref::{ARef, AlwaysRefCounted},
        atomic::{atomic_load, atomic_store, Relaxed},
        new_mutex,
        rcu,
        Arc,
        Mutex, //
    },
    task::{might_sleep, Task},
    types::NotThreadSafe,
};

/// The file descriptors of the current task, in a context without an `fdget_pos` region.
pub struct FdTable(PhantomData<NotThreadSafe>);

impl FdTable {
    /// # Safety
    ///
    /// The current task must not be in an `fdget_pos` region while the value exists: as in an
    /// ioctl.
    pub(crate) unsafe fn current() -> Self {
        Self(PhantomData)
    }

    /// Returns the file of a descriptor.
    ///
    /// # Errors
    ///
    /// `EBADF` when there is none.
    ///
    /// Wraps the C function `fget`.
    pub fn get(&self, fd: u32) -> Result<ARef<File>> {
        let file = LocalFile::fget(fd)?;
        // SAFETY: By the requirements of `Self::current`.
        Ok(unsafe { LocalFile::assume_no_fdget_pos(file) })
    }
}

/// A file that can be read and written by way of its operations: a regular file or a block device.
///
/// Other files may change their operations while they are open, or make more of the arguments than the
/// operations of these do.
///
/// # Invariants
///
/// The inode that holds the file's data is that of a regular file or of a block device. The file has
/// the operation to read it, and if it is open for writing that to write it.
#[repr(transparent)]
pub struct BackingFile(File);

impl BackingFile {
    /// Checks that a file is one.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is not.
    pub fn new(file: ARef<File>) -> Result<ARef<Self>> {
        if !(file.is_regular() || file.as_bdev().is_some())
            || !file.has_read_iter()
            || (file.is_writable() && !file.has_write_iter())
        {
            return Err(EINVAL);
        }
        // INVARIANT: Checked above.
        //
        // SAFETY: `Self` is transparent, and takes the reference over.
        Ok(unsafe { ARef::from_raw(ARef::into_raw(file).cast()) })
    }
}

// SAFETY: The references are those of the file.
unsafe impl AlwaysRefCounted for BackingFile {
    #[inline]
    fn inc_ref(&self) {
        self.0.inc_ref();
    }

    #[inline]
    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The caller owns a reference and gives it up.
        unsafe { File::dec_ref(obj.cast()) }
    }
}

impl core::ops::Deref for BackingFile {
    type Target = File;

    #[inline]
    fn deref(&self) -> &File {
        &self.0
    }
}

/// What identifies a file to user space.
pub struct FileId {
    /// The device that the file system is on.
    pub dev: DevT,
    /// The inode's number.
    pub ino: u64,
    /// The device that the file is, if it is one.
    pub rdev: DevT,
}

/// What is known of the block device that a file system is on.
pub struct FsDevice {
    /// Its logical block size in bytes.
    pub logical_block_size: u32,
    /// Mask of the address bits that must be clear in memory handed to it.
    pub dma_alignment: u32,
    /// Whether seeks cost.
    pub is_rotational: bool,
}

/// What the file system says of a file's direct I/O.
pub struct DioAlign {
    /// Mask of the address bits that must be clear in memory.
    pub mem_mask: u32,
    /// What offset and length must be a multiple of.
    pub offset: u32,
}

/// `fallocate`: make the range read as zeroes by giving up its space.
pub const FALLOC_FL_PUNCH_HOLE: i32 = bindings::FALLOC_FL_PUNCH_HOLE as i32;

/// `fallocate`: make the range read as zeroes without giving up its space.
pub const FALLOC_FL_ZERO_RANGE: i32 = bindings::FALLOC_FL_ZERO_RANGE as i32;

/// What a backing store needs to know of a [`File`], and do with it.
pub trait FileExt {
    /// Whether the file was opened for writing.
    fn is_writable(&self) -> bool;
    /// Whether the file was opened with `O_DIRECT`.
    fn is_direct(&self) -> bool;
    /// Whether the file could be opened with `O_DIRECT`.
    fn can_direct(&self) -> bool;
    /// Whether the file knows `IOCB_NOWAIT`.
    fn can_nowait(&self) -> bool;
    /// Whether a write through the page cache can be done without waiting, too, and the file does not
    /// have each of them wait for the disk. That of a block device itself can:
    /// [`Transfer::transfer`](crate::block::mq::Transfer::transfer) sees to it.
    fn can_write_nowait(&self) -> bool;
    /// Whether direct I/O needs nothing to be made that its file system has one of: the workqueue
    /// for what goes on after it, which the first direct I/O makes, under locks that those hold who
    /// wait for I/O to any device.
    fn direct_is_set_up(&self) -> bool;
    /// Whether a write with `IOCB_DSYNC` is known to be safe when it is over, for that range alone:
    /// not all file systems look at the `kiocb` for it, and some sync the whole file.
    fn honours_dsync(&self) -> bool;
    /// Whether the file can be read through a `kiocb`.
    fn has_read_iter(&self) -> bool;
    /// Whether the file can be written through a `kiocb`.
    fn has_write_iter(&self) -> bool;
    /// Whether the file can be synced.
    fn has_fsync(&self) -> bool;
    /// Whether the file knows `fallocate`.
    fn has_fallocate(&self) -> bool;
    /// Whether what holds the data is a regular file.
    fn is_regular(&self) -> bool;
    /// The block device that the file is, if it is one.
    fn as_bdev(&self) -> Option<&BlockDevice>;
    /// The block device that the file's file system is on, if it is on one: as of now, as some file
    /// systems can be moved to another while they are mounted.
    fn fs_device(&self) -> Option<FsDevice>;
    /// The size in bytes, from the file system rather than from what is cached. May sleep.
    fn size(&self) -> Result<i64>;
    /// What identifies the file to user space. May sleep.
    fn id(&self) -> Result<FileId>;
    /// What direct I/O must be aligned to, if the file system says so. May sleep.
    fn dio_align(&self) -> Option<DioAlign>;
    /// The file system's block size in bytes. May sleep.
    fn fs_block_size(&self) -> Result<u32>;
    /// Writes the file's data and metadata back and waits for it. May sleep.
    ///
    /// Wraps the C function `vfs_fsync`.
    fn fsync(&self) -> Result;
    /// Writes back all that is needed to read the file's data after a power failure, and waits for it.
    /// May sleep.
    ///
    /// This is `fdatasync` where that is known to cover the extents that
    /// [`fallocate`](Self::fallocate) changed, and `fsync` elsewhere.
    fn flush(&self) -> Result;
    /// Manipulates the space of a range without changing the file's size: `mode` is one of the
    /// `FALLOC_FL_*` here. May sleep.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` when the file system has no such operation, `EBADF` when the file is not open
    /// for writing, `ETXTBSY` when it is swapped to, `EFBIG` when the range is beyond what the file
    /// system can have.
    fn fallocate(&self, mode: i32, pos: i64, len: i64) -> Result;
    /// The file's path, in `buf`.
    ///
    /// # Errors
    ///
    /// `ENAMETOOLONG` when it does not fit, `ESRCH` when the task is exiting and has no root directory
    /// any more, or is not a task.
    ///
    /// Wraps the C function `file_path`.
    fn path<'a>(&self, buf: &'a mut [u8]) -> Result<&'a [u8]>;
}

/// The file's operations.
fn ops(file: &File) -> &bindings::file_operations {
    // SAFETY: A file has operations, which do not change while it is open.
    unsafe { &*(*file.as_ptr()).f_op }
}

/// The inode that holds the file's data.
#[inline]
fn host(file: &File) -> *mut bindings::inode {
    // SAFETY: An open file has a mapping, which has a host.
    unsafe { (*(*file.as_ptr()).f_mapping).host }
}

#[inline]
fn file_type(file: &File) -> u32 {
    // SAFETY: The inode is valid while the file is open, and its type does not change.
    u32::from(unsafe { (*host(file)).i_mode }) & bindings::S_IFMT
}

/// The magic number of the file system that the file's data is on; 0 if it has more than 32 bits.
fn super_magic(file: &File) -> u32 {
    // SAFETY: An inode has a super block, which stays mounted while the file is open.
    let magic = unsafe { (*(*host(file)).i_sb).s_magic };
    u32::try_from(magic).unwrap_or(0)
}

/// Whether `fdatasync` makes durable what `fallocate` did to a file's extents.
///
/// - ext4: `ext4_update_inode_fsync_trans()` notes the transaction in `i_datasync_tid` where extents
///   are allocated, converted, or removed. ext2, which has the same magic number, has no `fallocate`.
/// - xfs: each change of the extents is logged with the inode, whose `ili_datasync_seq` follows it;
///   only a change of times alone does not move that.
/// - btrfs: `btrfs_sync_file()` does not look at `datasync`.
/// - tmpfs: there is nothing to write back.
///
/// Not f2fs: `f2fs_do_zero_range()` dirties the node page alone, and `f2fs_do_sync_file()` with
/// `datasync` returns before it writes that. Not ntfs3: `write_inode_now()` without waiting. Not FUSE
/// and network file systems: the server decides. Others were not read.
fn fdatasync_covers_extents(magic: u32) -> bool {
    matches!(
        magic,
        bindings::EXT4_SUPER_MAGIC
            | bindings::XFS_SUPER_MAGIC
            | bindings::BTRFS_SUPER_MAGIC
            | bindings::TMPFS_MAGIC
    )
}

/// The file's path, in the sense of `struct path`.
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
    fn can_write_nowait(&self) -> bool {
        // SAFETY: As in `is_writable`; a file has operations.
        let flags = unsafe { (*(*self.as_ptr()).f_op).fop_flags };
        self.can_nowait()
            && (flags & bindings::FOP_BUFFER_WASYNC != 0 || self.as_bdev().is_some())
            // SAFETY: An open file has an inode.
            && !unsafe { bindings::IS_SYNC(host(self)) }
    }

    #[inline]
    fn direct_is_set_up(&self) -> bool {
        if self.as_bdev().is_some() {
            return true;
        }
        // SAFETY: An inode has a super block, which stays mounted while the file is open. The pointer
        // is set once, from null, by whoever comes first, and is not followed here.
        let workqueue = unsafe { read_once(&raw const (*(*host(self)).i_sb).s_dio_done_wq) };
        !workqueue.is_null()
    }

    fn honours_dsync(&self) -> bool {
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
        // SAFETY: An inode has a super block, which stays mounted while the file is open. Its device
        // may be changing: a reader sees either one.
        let bdev = unsafe { read_once(&raw const (*(*host(self)).i_sb).s_bdev) };
        if bdev.is_null() {
            return None;
        }
        // SAFETY: The super block held the device when it was looked up. If another one has taken its
        // place since, it goes, with its queue, a grace period after that at the earliest.
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

/// How many keep a mapping from I/O, and what was taken off its mask for them.
struct Users {
    count: usize,
    taken: bindings::gfp_t,
}

/// The mappings whose memory allocations start no I/O, for as long as somebody wants that.
///
/// A mapping can have several users, which come and go in any order.
#[pin_data]
pub struct NoioMappings {
    #[pin]
    users: Mutex<RBTree<usize, Users>>,
}

impl NoioMappings {
    /// Creates an empty set.
    pub fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            users <- new_mutex!(RBTree::new(), "NoioMappings"),
        })
    }

    /// Keeps allocations for the page cache of a file from starting I/O and from entering file
    /// systems. May sleep.
    pub fn add(self: &Arc<Self>, file: ARef<BackingFile>) -> Result<NoioMapping> {
        let reservation = RBTreeNodeReservation::new(GFP_KERNEL)?;
        let mut users = self.users.lock();
        match users.entry(NoioMapping::key(&file)) {
            Entry::Occupied(mut users) => users.get_mut().count += 1,
            Entry::Vacant(vacant) => {
                let mask = NoioMapping::mask(&file);
                // SAFETY: The file is open. As for the C functions `mapping_gfp_mask` and
                // `mapping_set_gfp_mask`, readers see either value.
                let taken = unsafe {
                    let old = atomic_load(mask, Relaxed);
                    let taken = old & (bindings::__GFP_IO | bindings::__GFP_FS);
                    atomic_store(mask, old & !taken, Relaxed);
                    taken
                };
                vacant.insert(Users { count: 1, taken }, reservation);
            }
        }
        drop(users);
        Ok(NoioMapping {
            mappings: self.clone(),
            file,
        })
    }
}

/// A file whose mapping is one of the [`NoioMappings`]. Dropping it may sleep.
///
/// # Invariants
///
/// Counted in `mappings`.
pub struct NoioMapping {
    mappings: Arc<NoioMappings>,
    file: ARef<BackingFile>,
}

impl NoioMapping {
    /// The file whose mapping it is.
    pub fn file(&self) -> &ARef<BackingFile> {
        &self.file
    }

    fn mask(file: &File) -> *mut bindings::gfp_t {
        // SAFETY: An open file has a mapping.
        unsafe { &raw mut (*(*file.as_ptr()).f_mapping).gfp_mask }
    }

    /// A number that no other mapping has while the file is open.
    fn key(file: &File) -> usize {
        Self::mask(file) as usize
    }
}

impl Drop for NoioMapping {
    fn drop(&mut self) {
        let mut users = self.mappings.users.lock();
        let Some(mut entry) = users.find_mut(&Self::key(&self.file)) else {
            return;
        };
        entry.get_mut().count -= 1;
        if entry.get().count == 0 {
            let taken = entry.get().taken;
            let mask = Self::mask(&self.file);
            // SAFETY: As in `NoioMappings::add`; the file is still open.
            unsafe { atomic_store(mask, atomic_load(mask, Relaxed) | taken, Relaxed) };
            drop(entry.remove_node());
        }
    }
}
