// SPDX-License-Identifier: GPL-2.0

//! The backing file of a device: what it is and what it can do. I/O to it is in [`io`](crate::io).
//!
//! A [`Backing`] is an attached file. A [`Binding`] adds the range of the file that the device maps
//! and the device's flags; ioctls replace the binding rather than change it, except for flags.

use crate::{
    config::{Alignment, BackingLimits, Flag, Flags, Range},
    errors::ErrorLog,
};
use kernel::{
    fs::File,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{Atomic, AtomicFlag, Relaxed},
        Arc, SetOnce,
    },
};
use kernel_ext::{
    block::{SECTOR_SHIFT, SECTOR_SIZE},
    fs::{BackingFile, FileExt, NoioMapping, NoioMappings},
};

/// A reference to a backing file, held by an I/O.
pub(crate) type OwnedFile = ARef<BackingFile>;

/// Number of buffered nowait writes in a row that may return -EAGAIN before inline writes stop.
///
/// A file system may advertise nowait writes and never complete one (btrfs when it copies on
/// write), or be short of a resource for a while, or not have cached the metadata of the range yet.
const NOWAIT_WRITE_EAGAIN_MAX: i32 = 64;

/// Number of writes by the worker after which one inline write is tried again.
const NOWAIT_WRITE_RETRY_INTERVAL: i32 = 256;

/// A file that is attached to a device.
///
/// # Invariants
///
/// While this exists, allocations for the file's page cache neither start I/O nor enter a file
/// system: the file system could be on this very device.
pub(crate) struct Backing {
    mapping: NoioMapping,
    /// Alignment of direct I/O, set before the file is bound.
    alignment: SetOnce<Alignment>,
    error_log: Arc<ErrorLog>,
    /// Nowait direct I/O does not work.
    nowait_direct_broken: AtomicFlag,
    /// Number of buffered nowait writes in a row that returned -EAGAIN, plus the number of writes
    /// by the worker since [`NOWAIT_WRITE_EAGAIN_MAX`] was reached.
    nowait_write_eagain: Atomic<i32>,
    /// Memory was swapped out to the device.
    carries_swap: AtomicFlag,
}

impl Backing {
    /// Attaches `file` to device `number`. May sleep.
    pub(crate) fn new(
        mappings: &Arc<NoioMappings>,
        number: u32,
        file: OwnedFile,
    ) -> Result<Arc<Self>> {
        let error_log = ErrorLog::new(number, &file)?;
        Ok(Arc::new(
            Self {
                mapping: mappings.add(file)?,
                alignment: SetOnce::new(),
                error_log,
                nowait_direct_broken: AtomicFlag::new(false),
                nowait_write_eagain: Atomic::new(0),
                carries_swap: AtomicFlag::new(false),
            },
            GFP_KERNEL,
        )?)
    }

    pub(crate) fn file(&self) -> &OwnedFile {
        self.mapping.file()
    }

    pub(crate) fn error_log(&self) -> &Arc<ErrorLog> {
        &self.error_log
    }

    /// Notes that nowait direct I/O does not work, because a device below the file system
    /// (dm-crypt, for instance) does not support it. Any context.
    pub(crate) fn note_nowait_direct_broken(&self) {
        self.nowait_direct_broken.store(true, Relaxed);
    }

    /// Notes whether a buffered nowait write returned -EAGAIN.
    pub(crate) fn note_nowait_write(&self, eagain: bool) {
        let count = self.nowait_write_eagain.load(Relaxed);
        if eagain {
            self.nowait_write_eagain
                .store(count.saturating_add(1), Relaxed);
        } else if count != 0 {
            self.nowait_write_eagain.store(0, Relaxed);
        }
    }

    /// Notes that the worker issues a buffered write.
    pub(crate) fn note_worker_write(&self) {
        let count = self.nowait_write_eagain.load(Relaxed);
        if count >= NOWAIT_WRITE_EAGAIN_MAX {
            let waited = count.saturating_sub(NOWAIT_WRITE_EAGAIN_MAX);
            let count = match waited < NOWAIT_WRITE_RETRY_INTERVAL {
                true => count.saturating_add(1),
                false => NOWAIT_WRITE_EAGAIN_MAX - 1,
            };
            self.nowait_write_eagain.store(count, Relaxed);
        }
    }

    /// Notes that memory is swapped out to the device.
    pub(crate) fn note_swap(&self) {
        if !self.carries_swap() {
            self.carries_swap.store(true, Relaxed);
        }
    }

    /// Whether memory was swapped out to the device: see [`io`](crate::io).
    #[inline(always)]
    pub(crate) fn carries_swap(&self) -> bool {
        self.carries_swap.load(Relaxed)
    }

    /// Whether swap can be direct I/O on a device with buffered I/O. Direct I/O must be sure to
    /// work: some files accept `O_DIRECT` and then fail the I/O. Memory is aligned to sectors only.
    pub(crate) fn has_direct_swap(&self) -> bool {
        let align = self.alignment();
        align.is_reported && align.mem_mask < SECTOR_SIZE && self.file().separates_direct_writes()
    }

    /// The alignment of direct I/O. May sleep when it is first called.
    pub(crate) fn alignment(&self) -> Alignment {
        self.alignment.copy().unwrap_or_else(|| {
            let alignment = alignment_of(self.file());
            // Fails if another task has set the same value meanwhile.
            self.alignment.populate(alignment);
            alignment
        })
    }
}

/// The alignment of direct I/O to `file`. May sleep.
fn alignment_of(file: &File) -> Alignment {
    if let Some(align) = file.dio_align() {
        Alignment {
            offset: align.offset,
            mem_mask: align.mem_mask.min(PAGE_SIZE as u32 - 1),
            is_reported: true,
        }
    } else if let Some(device) = file.fs_device() {
        Alignment {
            offset: device.logical_block_size,
            mem_mask: device.dma_alignment,
            is_reported: false,
        }
    } else {
        Alignment {
            offset: SECTOR_SIZE,
            mem_mask: SECTOR_SIZE - 1,
            is_reported: false,
        }
    }
}

/// The file that a device is bound to, the range that it maps, and its flags.
pub(crate) struct Binding {
    pub(crate) backing: Arc<Backing>,
    pub(crate) range: Range,
    pub(crate) flags: Flags,
}

impl Binding {
    /// Creates a binding to a newly attached file. Enables direct I/O if the file was opened with
    /// `O_DIRECT`. May sleep.
    pub(crate) fn new(backing: Arc<Backing>, range: Range, flags: Flags) -> Result<Arc<Self>> {
        if backing.file().is_direct() {
            flags.set(Flag::DIRECT_IO, true);
        }
        // Later callers may have frozen the queue, or serve I/O that frees memory. They must not
        // call into the file system, nor have it allocate its workqueue.
        backing.alignment();
        if !flags.has(Flag::READ_ONLY) && backing.has_direct_swap() {
            backing.file().init_dio_workqueue();
        }
        Ok(Arc::new(
            Self {
                backing,
                range,
                flags,
            },
            GFP_KERNEL,
        )?)
    }

    pub(crate) fn file(&self) -> &OwnedFile {
        self.backing.file()
    }

    /// The device's size in sectors. May sleep.
    pub(crate) fn sectors(&self) -> u64 {
        self.range.sectors(self.file())
    }

    /// The alignment of direct I/O, if direct I/O is enabled. May sleep.
    pub(crate) fn direct_alignment(&self) -> Option<Alignment> {
        let direct = self.flags.has(Flag::DIRECT_IO);
        direct.then(|| self.backing.alignment())
    }

    /// Whether direct I/O is possible at the binding's offset with a logical block size of
    /// `block_size`. May sleep.
    pub(crate) fn can_direct(&self, block_size: u32) -> bool {
        let align = self.backing.alignment().offset;
        self.file().can_direct()
            && block_size >= align
            && self.range.offset & i64::from(align.saturating_sub(1)) == 0
    }

    /// Disables direct I/O if it is not possible.
    pub(crate) fn update_direct(&self, block_size: u32) {
        if self.flags.has(Flag::DIRECT_IO) && !self.can_direct(block_size) {
            self.flags.set(Flag::DIRECT_IO, false);
        }
    }

    /// Writes back dirty pages, before direct I/O starts: it would wait for them, or return -EAGAIN
    /// if it must not. May sleep.
    pub(crate) fn prepare_direct(&self) {
        self.file().write_back();
    }

    /// The properties of the file that determine the queue limits. May sleep.
    pub(crate) fn limits(&self) -> BackingLimits {
        let file = self.file();
        // Discarded ranges read as zeroes, on a block device as in a regular file: both are
        // `fallocate`, which writes zeroes where necessary.
        let (rotational, discard) = if let Some(bdev) = file.as_bdev() {
            let discard = (bdev.write_zeroes_sectors(), bdev.discard_granularity());
            (bdev.is_rotational(), discard)
        } else {
            let rotational = file.fs_device().is_some_and(|device| device.is_rotational);
            let discard = if file.has_fallocate() {
                file.fs_block_size()
                    .map_or((0, 0), |size| (u32::MAX >> SECTOR_SHIFT, size))
            } else {
                (0, 0)
            };
            (rotational, discard)
        };
        BackingLimits {
            direct: self.direct_alignment(),
            read_only: self.flags.has(Flag::READ_ONLY),
            has_fsync: file.has_fsync(),
            supports_iocb_dsync: file.supports_iocb_dsync(),
            rotational,
            discard,
        }
    }

    /// Whether reads go through the page cache, and need not wait for pages under I/O.
    pub(crate) fn can_read_async(&self) -> bool {
        let file = self.file();
        !self.flags.has(Flag::DIRECT_IO) && file.can_nowait() && file.can_read_async()
    }

    /// Whether the file supports nowait writes: direct, or buffered, which few file systems
    /// support.
    pub(crate) fn can_write_nowait(&self) -> bool {
        !self.flags.has(Flag::READ_ONLY)
            && (self.flags.has(Flag::DIRECT_IO) || self.file().can_write_nowait())
    }

    /// Whether the file supports nowait I/O in the binding's mode, buffered or direct. Direct I/O
    /// must not have to allocate the file system's workqueue for it.
    #[inline(always)]
    pub(crate) fn can_nowait(&self) -> bool {
        let file = self.file();
        file.can_nowait()
            && (!self.flags.has(Flag::DIRECT_IO)
                || !self.backing.nowait_direct_broken.load(Relaxed) && file.has_dio_workqueue())
    }

    /// Whether buffered nowait writes have been completing lately.
    pub(crate) fn nowait_writes_complete(&self) -> bool {
        self.backing.nowait_write_eagain.load(Relaxed) < NOWAIT_WRITE_EAGAIN_MAX
    }
}

/// Checks that a file has the operations that a backing file needs.
///
/// # Errors
///
/// `EINVAL` if it has not.
pub(crate) fn check_operations(file: &File) -> Result {
    if !file.has_read_iter() || (file.is_writable() && !file.has_write_iter()) {
        return Err(EINVAL);
    }
    Ok(())
}

/// A borrowed or owned binding that an I/O is issued to.
///
/// The task that completes the last request of a device must not hold the binding, so that the file
/// is closed when the device is unbound. So the last I/O of a worker owns the binding and drops it
/// before it can complete.
pub(crate) enum BindingRef<'a> {
    Borrowed(&'a Binding),
    Owned(Arc<Binding>),
}

impl core::ops::Deref for BindingRef<'_> {
    type Target = Binding;

    fn deref(&self) -> &Binding {
        match self {
            Self::Borrowed(binding) => binding,
            Self::Owned(binding) => binding,
        }
    }
}
