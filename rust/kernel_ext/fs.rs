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
//! | Look up files in another task | [`FdTable`] is neither `Send` nor `Sync` |
//! | Look up files outside of an ioctl | It is lent for the call, and only `unsafe` makes one |
//! | Take a file with `O_PATH` for an open one | `fget` does not find it |
//! | Read or write a tty, a socket, a pipe | [`BackingFile::new`] refuses it |

mod file_ext;
mod noio;

pub use file_ext::{
    DioAlign, FileExt, FileId, FsDevice, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE,
};
pub use noio::{NoioMapping, NoioMappings};

use core::{marker::PhantomData, ptr::NonNull};
use kernel::{
    fs::{File, LocalFile},
    prelude::*,
    sync::aref::{ARef, AlwaysRefCounted},
    types::NotThreadSafe,
};

/// The file descriptors of the current task, which is not in an `fdget_pos` region.
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
    /// `EBADF` if there is none, or it is one of `O_PATH`.
    ///
    /// Wraps the C function `fget`.
    pub fn get(&self, fd: u32) -> Result<ARef<File>> {
        let file = LocalFile::fget(fd)?;
        // SAFETY: By the requirements of `Self::current`.
        Ok(unsafe { LocalFile::assume_no_fdget_pos(file) })
    }
}

/// An open regular file or block device, whose `read_iter` and `write_iter` can be called.
///
/// Other files may replace their operations while they are open, or expect a `kiocb` that is part
/// of a larger structure.
///
/// # Invariants
///
/// The inode of the file's mapping is that of a regular file or of a block device. The file has
/// `read_iter`, and `write_iter` if it is open for writing.
#[repr(transparent)]
pub struct BackingFile(File);

impl BackingFile {
    /// Checks that a file is a backing file.
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
        // SAFETY: `Self` is transparent, and takes over the reference.
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
