// SPDX-License-Identifier: GPL-2.0

//! The backing file, and I/O to it.

use crate::{
    config::{Alignment, BackingLimits, Flag, Flags, Range},
    dispatch::{Outcome, Work},
    errors::{ErrorLog, Failure},
};
use kernel::{
    fs::File,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{Atomic, Relaxed},
        Arc, SetOnce,
    },
};
use kernel_ext::{
    block::{
        mq::{IoFlags, Op, Submit, Submitted, Transfer},
        SECTOR_SHIFT, SECTOR_SIZE,
    },
    fs::{
        BackingFile, FileExt, NoioMapping, NoioMappings, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE,
    },
};

/// A backing file that is held for an I/O.
pub(crate) type OwnedFile = ARef<BackingFile>;

/// The alignment of direct I/O to `file`. May sleep.
fn alignment_of(file: &File) -> Alignment {
    if let Some(align) = file.dio_align() {
        Alignment {
            offset: align.offset,
            mem_mask: align.mem_mask.min(PAGE_SIZE as u32 - 1),
        }
    } else if let Some(device) = file.fs_device() {
        Alignment {
            offset: device.logical_block_size,
            mem_mask: device.dma_alignment,
        }
    } else {
        Alignment {
            offset: SECTOR_SIZE,
            mem_mask: SECTOR_SIZE - 1,
        }
    }
}

/// A file that a device is bound to.
///
/// For as long as it exists, memory allocated for the file's page cache neither starts I/O nor
/// enters a file system: it could be the one on this very device.
pub(crate) struct Backing {
    mapping: NoioMapping,
    /// There from when direct I/O is first asked for.
    alignment: SetOnce<Alignment>,
    error_log: Arc<ErrorLog>,
    /// Not 0 when direct I/O was found to be unable not to wait.
    waits: Atomic<i32>,
    /// How many writes to the page cache in a row turned out to have to wait.
    missed: Atomic<i32>,
}

/// After so many of them no more are tried, but for one in [`PAUSE`]: a file system may know how not
/// to wait, and never do, as btrfs when it copies on write; or be short of something for a while, or not
/// have cached yet what is written.
const MISSED: i32 = 64;
const PAUSE: i32 = 256;

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
                waits: Atomic::new(0),
                missed: Atomic::new(0),
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

    /// Notes that direct I/O cannot be done without waiting: what is below the file system, a
    /// device of dm-crypt for instance, does not take it. In any context.
    pub(crate) fn note_waits(&self) {
        self.waits.store(1, Relaxed);
    }

    /// Notes whether a write to the page cache that was to take no waiting did.
    fn note_write(&self, missed: bool) {
        let before = self.missed.load(Relaxed);
        if missed {
            self.missed.store(before.saturating_add(1), Relaxed);
        } else if before != 0 {
            self.missed.store(0, Relaxed);
        }
    }

    /// Notes that a write to the page cache was not tried without waiting.
    fn note_untried(&self) {
        let before = self.missed.load(Relaxed);
        if before >= MISSED {
            let after = match before.saturating_sub(MISSED) < PAUSE {
                true => before.saturating_add(1),
                false => MISSED - 1,
            };
            self.missed.store(after, Relaxed);
        }
    }

    /// What direct I/O must be aligned to. May sleep.
    pub(crate) fn alignment(&self) -> Alignment {
        self.alignment.copy().unwrap_or_else(|| {
            let alignment = alignment_of(self.file());
            // Somebody else may have found it out meanwhile.
            self.alignment.populate(alignment);
            alignment
        })
    }
}

/// What a device is bound to: the file and how it is used.
pub(crate) struct Binding {
    pub(crate) backing: Arc<Backing>,
    pub(crate) range: Range,
    pub(crate) flags: Flags,
}

impl Binding {
    /// Binds to a file. `O_DIRECT` of the file asks for direct I/O.
    pub(crate) fn new(backing: Arc<Backing>, range: Range, flags: Flags) -> Result<Arc<Self>> {
        if backing.file().is_direct() {
            flags.set(Flag::DIRECT_IO, true);
        }
        if flags.has(Flag::DIRECT_IO) {
            // The file system is not to be asked when the queue is frozen.
            backing.alignment();
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

    /// What direct I/O must be aligned to, if it is to be used. May sleep.
    pub(crate) fn direct_alignment(&self) -> Option<Alignment> {
        let direct = self.flags.has(Flag::DIRECT_IO);
        direct.then(|| self.backing.alignment())
    }

    /// Whether direct I/O works with this offset when the device has the given block size. May sleep.
    pub(crate) fn can_direct(&self, block_size: u32) -> bool {
        let align = self.backing.alignment().offset;
        self.file().can_direct()
            && block_size >= align
            && self.range.offset & i64::from(align.saturating_sub(1)) == 0
    }

    /// Falls back to buffered I/O where direct I/O does not work.
    pub(crate) fn update_direct(&self, block_size: u32) {
        if self.flags.has(Flag::DIRECT_IO) && !self.can_direct(block_size) {
            self.flags.set(Flag::DIRECT_IO, false);
        }
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
            supports_iocb_dsync: file.honours_dsync(),
            rotational,
            discard,
        }
    }
}

/// A binding that is served from: one's own, or somebody else's who keeps it.
///
/// Who holds the last one of a request that ends must have let go of it before, so that the file is
/// closed when the device is unbound, not some time after.
pub(crate) enum Lent<'a> {
    Kept(&'a Binding),
    Given(Arc<Binding>),
}

impl core::ops::Deref for Lent<'_> {
    type Target = Binding;

    fn deref(&self) -> &Binding {
        match self {
            Self::Kept(binding) => binding,
            Self::Given(binding) => binding,
        }
    }
}

impl Lent<'_> {
    /// Whether a request is served with direct I/O. Detached bios can have been submitted when less
    /// alignment was asked for.
    fn is_direct_for<W: Work>(&self, rq: &W) -> bool {
        self.flags.has(Flag::DIRECT_IO) && {
            let bits = rq.memory_bits();
            bits == 0 || bits & self.backing.alignment().mem_mask == 0
        }
    }

    /// Serves a request. May sleep.
    pub(crate) fn serve<W: Work>(self, rq: W) -> Outcome<W> {
        let op = rq.op();
        if !rq.fits_limits() {
            return Outcome::Done(rq, Err(Failure::of_file(EINVAL)));
        }
        if op.is_write() && self.flags.has(Flag::READ_ONLY) {
            return Outcome::Done(rq, Err(Failure::READ_ONLY));
        }
        let file = self.file();
        let offset = self.range.offset;
        match op {
            Op::Read | Op::Write if self.is_direct_for(&rq) => {
                let file = file.clone();
                drop(self);
                rq.issue_direct(file, offset)
            }
            Op::Read => buffered(file, offset, rq),
            Op::Write => {
                self.backing.note_untried();
                buffered(file, offset, rq)
            }
            Op::Flush => {
                let result = file.flush();
                Outcome::Done(rq, result.map_err(Failure::of_file))
            }
            Op::Discard => fallocate(file, offset, rq, FALLOC_FL_PUNCH_HOLE),
            Op::WriteZeroes { unmap: true } => fallocate(file, offset, rq, FALLOC_FL_PUNCH_HOLE),
            // Who does not want the range unmapped wants its space kept.
            Op::WriteZeroes { unmap: false } => fallocate(file, offset, rq, FALLOC_FL_ZERO_RANGE),
            Op::Other => Outcome::Refused(rq),
        }
    }
}

/// What became of an attempt to serve I/O without waiting.
pub(crate) enum Attempt<I> {
    /// It is over.
    Done(I, Result<(), Failure>),
    /// It has to wait. What it waits for was started where that is possible.
    Later(I),
    /// The file has it, as in [`Outcome::Queued`].
    Queued,
}

impl Binding {
    /// Whether it is worth the while to [try](Self::attempt) reads first.
    pub(crate) fn attempts(&self) -> bool {
        !self.flags.has(Flag::DIRECT_IO) && self.file().can_nowait()
    }

    /// Serves a read from what is in memory. What is not is asked for, so that several reads can
    /// wait for the disk together.
    pub(crate) fn attempt<I: Transfer>(&self, mut rq: I) -> Attempt<I> {
        let result = position(self.range.offset, &rq)
            .and_then(|pos| rq.transfer(self.file(), pos, IoFlags::BUFFERED.with_nowait()));
        match result {
            Ok(n) if n >= rq.len() => Attempt::Done(rq, Ok(())),
            // Whatever it is, it is found again.
            _ => Attempt::Later(rq),
        }
    }
}

impl Binding {
    /// Whether writes can be [served where they are submitted](Here::serve): through the page
    /// cache, few file systems know how not to wait.
    pub(crate) fn serves_writes_here(&self) -> bool {
        !self.flags.has(Flag::READ_ONLY)
            && (self.flags.has(Flag::DIRECT_IO) || self.file().can_write_nowait())
    }

    /// Whether I/O can be served where it is submitted, and from what.
    pub(crate) fn serves_here<I: Transfer>(&self, rq: &I) -> Option<Source> {
        let direct = self.flags.has(Flag::DIRECT_IO);
        if !self.file().can_nowait()
            || direct && (self.backing.waits.load(Relaxed) != 0 || !self.file().direct_is_set_up())
        {
            return None;
        }
        let serves = match rq.op() {
            Op::Read => true,
            // One with FUA waits for the disk.
            Op::Write => {
                !rq.is_fua()
                    && self.serves_writes_here()
                    && (direct || self.backing.missed.load(Relaxed) < MISSED)
            }
            _ => false,
        };
        serves.then_some(match direct {
            true => Source::File,
            false => Source::Cache,
        })
    }

    /// Lends what to serve I/O from where it is submitted.
    pub(crate) fn lend_here(self: &Arc<Self>, source: Source) -> Here {
        match source {
            Source::Cache => Here::Cache(self.clone()),
            Source::File => Here::File(self.file().clone(), self.range.offset),
        }
    }
}

/// What I/O is served from where it is submitted: memory, or the file itself, which may go on with it
/// after that.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Cache,
    File,
}

/// A [`Source`], with a reference to it. Direct I/O has the file, and where in it the device starts,
/// rather than the binding, which must not be held by a request that ends: as for [`Lent`].
pub(crate) enum Here {
    Cache(Arc<Binding>),
    File(OwnedFile, i64),
}

impl Here {
    /// Serves I/O as far as that takes no waiting.
    pub(crate) fn serve<I: Submit>(self, mut rq: I) -> Attempt<I> {
        match self {
            Self::Cache(binding) => {
                let Ok(pos) = position(binding.range.offset, &rq) else {
                    return Attempt::Later(rq);
                };
                let flags = match rq.op() {
                    Op::Read => IoFlags::CACHED,
                    _ => IoFlags::BUFFERED.with_nowait(),
                };
                let done = rq.transfer(binding.file(), pos, flags);
                let missed = !matches!(done, Ok(n) if n >= rq.len());
                if rq.op() == Op::Write {
                    binding.backing.note_write(missed);
                }
                // What there was memory for is written once more, with the rest.
                match missed {
                    false => Attempt::Done(rq, Ok(())),
                    true => Attempt::Later(rq),
                }
            }
            Self::File(file, offset) => {
                let Ok(pos) = position(offset, &rq) else {
                    return Attempt::Later(rq);
                };
                match rq.submit(file, pos, IoFlags::DIRECT.with_nowait()) {
                    Submitted::Queued => Attempt::Queued,
                    Submitted::Done(rq, Ok(n), _) if n >= rq.len() => Attempt::Done(rq, Ok(())),
                    // Whatever it is, it is found again.
                    Submitted::Done(rq, ..) => Attempt::Later(rq),
                }
            }
        }
    }
}

/// Where in the file what is left of a request starts.
fn position<I: Transfer>(offset: i64, rq: &I) -> Result<i64> {
    i64::try_from(rq.position())?
        .checked_add(offset)
        .ok_or(EFBIG)
}

/// How a request is to be written: one with FUA is not over before its data is safe.
fn flags<I: Transfer>(rq: &I, flags: IoFlags) -> IoFlags {
    if rq.is_fua() {
        flags.with_dsync()
    } else {
        flags
    }
}

fn buffered<I: Transfer>(file: &BackingFile, offset: i64, mut rq: I) -> Outcome<I> {
    let flags = flags(&rq, IoFlags::BUFFERED);
    loop {
        let result = position(offset, &rq).and_then(|pos| rq.transfer(file, pos, flags));
        if let Some(result) = settle(&mut rq, result) {
            return Outcome::Done(rq, result);
        }
    }
}

/// Reads or writes the file directly, and waits for it.
pub(crate) fn direct_and_wait<I: Transfer>(
    file: &BackingFile,
    offset: i64,
    mut rq: I,
) -> Outcome<I> {
    let flags = flags(&rq, IoFlags::DIRECT);
    loop {
        let result = position(offset, &rq).and_then(|pos| rq.transfer(file, pos, flags));
        if let Some(result) = settle(&mut rq, result) {
            return Outcome::Done(rq, result);
        }
    }
}

/// Starts to read or write the file directly.
pub(crate) fn direct<I: Submit>(mut file: OwnedFile, offset: i64, mut rq: I) -> Outcome<I> {
    let flags = flags(&rq, IoFlags::DIRECT);
    loop {
        let pos = match position(offset, &rq) {
            Ok(pos) => pos,
            Err(e) => return Outcome::Done(rq, Err(e.into())),
        };
        match rq.submit(file, pos, flags) {
            Submitted::Queued => return Outcome::Queued,
            Submitted::Done(back, result, again) => {
                (rq, file) = (back, again);
                if let Some(result) = settle(&mut rq, result) {
                    return Outcome::Done(rq, result);
                }
            }
        }
    }
}

fn fallocate<I: Transfer>(file: &BackingFile, offset: i64, rq: I, mode: i32) -> Outcome<I> {
    // It was tried before, or user space turned it off.
    if rq.queue().max_discard_sectors() == 0 {
        return Outcome::Refused(rq);
    }
    let result =
        position(offset, &rq).and_then(|pos| file.fallocate(mode, pos, i64::try_from(rq.len())?));
    match result {
        Err(e) if e == EOPNOTSUPP => Outcome::Unsupported(rq),
        result => Outcome::Done(rq, result.map_err(Failure::of_file)),
    }
}

/// Accounts for what was transferred of a request; returns how the request ends, or `None` when
/// there is more to transfer.
pub(crate) fn settle<I: Transfer>(
    rq: &mut I,
    result: Result<usize>,
) -> Option<Result<(), Failure>> {
    match result {
        Ok(n) if n >= rq.len() => Some(Ok(())),
        Ok(n) => {
            // What is left must be something that could have been asked for.
            let block = rq.queue().logical_block_size().max(SECTOR_SIZE) as usize;
            let whole = n - n % block;
            if whole > 0 {
                rq.advance(whole);
                return None;
            }
            if rq.op() == Op::Read {
                rq.zero_fill();
            }
            Some(Err(Failure::END_OF_FILE))
        }
        Err(e) => Some(Err(e.into())),
    }
}

/// Checks that a file has the operations that a device needs.
pub(crate) fn check_operations(file: &File) -> Result {
    if !file.has_read_iter() || (file.is_writable() && !file.has_write_iter()) {
        return Err(EINVAL);
    }
    Ok(())
}
