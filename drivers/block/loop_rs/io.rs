// SPDX-License-Identifier: GPL-2.0

//! Issue of I/O to the backing file.
//!
//! The worker issues with [`issue`], which may block. It waits for direct I/O and for page reads
//! only as a fallback: without memory, or if a page is not cached after a wait for it. A submitter
//! issues with [`issue_inline`], and the worker issues offloaded requests with [`issue_nowait`],
//! which do not wait for the backing file.
//!
//! # Swap
//!
//! The page cache of the backing file would take the memory that swapping is to free. So once
//! memory was swapped out to a device with buffered I/O, its reads are direct, and its writes of
//! whole pages, if the file system reports that it does direct I/O to the file and [keeps the two
//! kinds of writes apart](FileExt::separates_direct_writes).
//!
//! Other writes stay buffered: a direct and a buffered write to parts of one block of the file
//! system could undo each other. A buffered write makes only its own blocks dirty and up to date,
//! and reads of the device do not fill the page cache. So the page cache has no old copy of a block
//! that a direct write has changed. The driver does not freeze the queue to wait for earlier I/O:
//! such I/O may wait for memory. Direct I/O waits for pages of its range that are dirty or locked.

use crate::{
    backing::{Binding, BindingRef, OwnedFile},
    cgroup_queue::{LoopOps, Worker},
    complete::{account_transfer, complete_with, whole_blocks, ServedIo},
    config::Flag,
    errors::Failure,
    request_data::QueueReason,
};
use kernel::{page::PAGE_SIZE, prelude::*, sync::Arc};
use kernel_ext::{
    block::mq::{
        BoxedIo, CacheRead, DetachedIo, IoFlags, Op, Request, Submit, Submitted, Transfer,
    },
    cgroup,
    compat::EOPNOTSUPP,
    fs::{BackingFile, FileExt, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE},
    task,
};

/// The outcome of issuing I/O to the backing file.
pub(crate) enum IssueResult<I> {
    /// The I/O is done, and completes with this result.
    Done(I, Result<(), Failure>),
    /// The backing file does not support the operation.
    Unsupported(I),
    /// The device does not support the operation.
    Rejected(I),
    /// The I/O is in flight. `ki_complete`, or the end of the wait for a page, hands it to
    /// [`complete`](crate::complete).
    Queued,
}

/// The outcome of issuing I/O without waiting for the backing file.
pub(crate) enum NowaitResult<I> {
    /// The I/O is done, and completes with this result.
    Done(I, Result<(), Failure>),
    /// The I/O would block, or failed. A task that may block issues it again.
    WouldBlock(I),
    /// The I/O is in flight, as in [`IssueResult::Queued`].
    Queued,
}

/// The file position of the rest of an I/O.
fn file_position<I: Transfer>(offset: i64, io: &I) -> Result<i64> {
    i64::try_from(io.position())?
        .checked_add(offset)
        .ok_or(EFBIG)
}

/// `flags`, with `IOCB_DSYNC` for a write with FUA, which must be on stable storage when it
/// completes.
fn iocb_flags<I: Transfer>(io: &I, flags: IoFlags) -> IoFlags {
    if io.is_fua() {
        flags.with_dsync()
    } else {
        flags
    }
}

/// Reads or writes all of `io`, and waits for it. May sleep.
fn transfer_all<I: Transfer>(
    file: &BackingFile,
    offset: i64,
    mut io: I,
    flags: IoFlags,
) -> IssueResult<I> {
    let flags = iocb_flags(&io, flags);
    loop {
        let result = file_position(offset, &io).and_then(|pos| io.transfer(file, pos, flags));
        if let Some(result) = account_transfer(&mut io, result) {
            return IssueResult::Done(io, result);
        }
    }
}

/// Writes all of `io` to the page cache. May sleep.
///
/// File systems write with the lock of the inode held, for which writes of other cgroups wait. A
/// cgroup over its `memory.high` is throttled without that lock: between the calls, and after the
/// last one by the caller.
fn write_buffered<I: Transfer>(file: &BackingFile, offset: i64, mut io: I) -> IssueResult<I> {
    let flags = iocb_flags(&io, IoFlags::BUFFERED);
    let max = cgroup::max_unthrottled().saturating_mul(PAGE_SIZE);
    loop {
        let result =
            file_position(offset, &io).and_then(|pos| io.transfer_some(file, pos, flags, max));
        if let Some(result) = account_transfer(&mut io, result) {
            return IssueResult::Done(io, result);
        }
        cgroup::throttle_over_high();
    }
}

/// Starts direct I/O. May sleep, but does not wait for the I/O.
fn submit_direct<I: Submit>(mut file: OwnedFile, offset: i64, mut io: I) -> IssueResult<I> {
    let flags = iocb_flags(&io, IoFlags::DIRECT);
    loop {
        let pos = match file_position(offset, &io) {
            Ok(pos) => pos,
            Err(e) => return IssueResult::Done(io, Err(e.into())),
        };
        match io.submit(file, pos, flags) {
            Submitted::Queued => return IssueResult::Queued,
            Submitted::Done(same_io, result, same_file) => {
                (io, file) = (same_io, same_file);
                if let Some(result) = account_transfer(&mut io, result) {
                    return IssueResult::Done(io, result);
                }
            }
        }
    }
}

/// Reads through the page cache, without waiting for pages under I/O. May sleep.
///
/// A read that is issued `again` has waited for a page. If the page was reclaimed meanwhile, the
/// worker reads it again and waits for it: reads of a cgroup with little memory could reclaim each
/// other's pages for ever otherwise.
fn submit_cached<I: Submit>(
    worker: &Worker,
    file: &BackingFile,
    offset: i64,
    mut io: I,
    mut again: bool,
) -> IssueResult<I> {
    loop {
        let pos = match file_position(offset, &io) {
            Ok(pos) => pos,
            Err(e) => return IssueResult::Done(io, Err(e.into())),
        };
        let len = io.len();
        let result = if core::mem::take(&mut again) {
            io.transfer(file, pos, IoFlags::BUFFERED.with_nowait())
        } else {
            worker.begin_wait(len);
            let result = match io.read_cached(file, pos) {
                CacheRead::Waiting => return IssueResult::Queued,
                CacheRead::Done(same, result) => {
                    io = same;
                    result
                }
            };
            worker.end_wait(len);
            result
        };
        // A failed or short read may only mean that it would have waited. A blocking read tells
        // whether there is an I/O error, or the end of the file.
        if !matches!(result, Ok(n) if n >= len || whole_blocks(&io, n) > 0) {
            return transfer_all(file, offset, io, IoFlags::BUFFERED);
        }
        if let Some(result) = account_transfer(&mut io, result) {
            return IssueResult::Done(io, result);
        }
    }
}

fn fallocate<I: Transfer>(file: &BackingFile, offset: i64, io: I, mode: i32) -> IssueResult<I> {
    // The limit is 0 if the file does not support the operation, or user space disabled it.
    if io.queue().max_discard_sectors() == 0 {
        return IssueResult::Rejected(io);
    }
    let result = file_position(offset, &io)
        .and_then(|pos| file.fallocate(mode, pos, i64::try_from(io.len())?));
    match result {
        Err(e) if e == EOPNOTSUPP => IssueResult::Unsupported(io),
        result => IssueResult::Done(io, result.map_err(Failure::of_file)),
    }
}

/// How the worker issues I/O without waiting for it.
pub(crate) enum AsyncIssue<'a> {
    /// As direct I/O.
    Direct(OwnedFile),
    /// Reads through the page cache, `again` after a wait for a page.
    Cached {
        worker: &'a Worker,
        file: &'a BackingFile,
        again: bool,
    },
}

/// Issues I/O without waiting for it. May sleep.
fn submit<I: Submit>(issue: AsyncIssue<'_>, offset: i64, io: I) -> IssueResult<I> {
    match issue {
        AsyncIssue::Direct(file) => submit_direct(file, offset, io),
        AsyncIssue::Cached {
            worker,
            file,
            again,
        } => submit_cached(worker, file, offset, io, again),
    }
}

/// I/O that the worker can issue without waiting for it.
pub(crate) trait IssueAsync: ServedIo {
    /// Issues the I/O. May sleep.
    fn issue_async(self, issue: AsyncIssue<'_>, offset: i64) -> IssueResult<Self>;
}

impl IssueAsync for Request<LoopOps> {
    fn issue_async(self, issue: AsyncIssue<'_>, offset: i64) -> IssueResult<Self> {
        submit(issue, offset, self)
    }
}

impl IssueAsync for BoxedIo<LoopOps> {
    fn issue_async(self, issue: AsyncIssue<'_>, offset: i64) -> IssueResult<Self> {
        submit(issue, offset, self)
    }
}

impl IssueAsync for DetachedIo<LoopOps> {
    fn issue_async(mut self, issue: AsyncIssue<'_>, offset: i64) -> IssueResult<Self> {
        if let AsyncIssue::Cached { file, .. } = issue {
            // Reads of cached pages need no allocation.
            let cached = file_position(offset, &self)
                .and_then(|pos| self.transfer(file, pos, IoFlags::CACHED))
                .unwrap_or(0);
            if whole_blocks(&self, cached) > 0 {
                if let Some(result) = account_transfer(&mut self, Ok(cached)) {
                    return IssueResult::Done(self, result);
                }
            }
        }
        // The allocation lives until `ki_complete`, or the end of the wait for a page. Waiting for
        // memory may mean waiting for this very I/O, so the fallback is synchronous I/O.
        match (self.boxed(GFP_NOWAIT), issue) {
            (Ok(io), issue) => match submit(issue, offset, io) {
                IssueResult::Done(io, result) => IssueResult::Done(io.into_inner(), result),
                IssueResult::Unsupported(io) => IssueResult::Unsupported(io.into_inner()),
                IssueResult::Rejected(io) => IssueResult::Rejected(io.into_inner()),
                IssueResult::Queued => IssueResult::Queued,
            },
            (Err(io), AsyncIssue::Direct(file)) => transfer_all(&file, offset, io, IoFlags::DIRECT),
            (Err(io), AsyncIssue::Cached { file, .. }) => {
                transfer_all(file, offset, io, IoFlags::BUFFERED)
            }
        }
    }
}

/// Whether I/O is issued as direct I/O. Detached bios can have been submitted under a weaker
/// alignment requirement.
fn is_direct<I: ServedIo>(binding: &Binding, io: &I) -> bool {
    if binding.flags.has(Flag::DIRECT_IO) {
        let bits = io.memory_bits();
        bits == 0 || bits & binding.backing.alignment().mem_mask == 0
    } else {
        binding.backing.carries_swap() && is_direct_for_swap(binding, io)
    }
}

/// Whether I/O of a device that carries swap is issued as direct I/O: reads, and writes of whole
/// pages of the file.
fn is_direct_for_swap<I: ServedIo>(binding: &Binding, io: &I) -> bool {
    let whole_pages = || {
        let bits = binding.range.offset.unsigned_abs() | io.position() | io.len() as u64;
        bits & (PAGE_SIZE as u64 - 1) == 0
    };
    binding.backing.has_direct_swap()
        && binding.can_direct(io.queue().logical_block_size())
        && (io.op() == Op::Read || whole_pages())
}

/// Issues I/O of a worker to the backing file, `again` if a page that it waited for is no longer
/// under I/O. May sleep.
pub(crate) fn issue<I: IssueAsync>(
    worker: &Worker,
    binding: BindingRef<'_>,
    io: I,
    again: bool,
) -> IssueResult<I> {
    let op = io.op();
    if !io.fits_limits() {
        return IssueResult::Done(io, Err(Failure::of_file(EINVAL)));
    }
    if op.is_write() && binding.flags.has(Flag::READ_ONLY) {
        return IssueResult::Done(io, Err(Failure::READ_ONLY));
    }
    if io.is_swap() {
        binding.backing.note_swap();
    }
    let file = binding.file();
    let offset = binding.range.offset;
    match op {
        Op::Read | Op::Write if is_direct(&binding, &io) => {
            let file = file.clone();
            drop(binding);
            io.issue_async(AsyncIssue::Direct(file), offset)
        }
        Op::Read if binding.can_read_async() => {
            let issue = AsyncIssue::Cached {
                worker,
                file,
                again,
            };
            io.issue_async(issue, offset)
        }
        Op::Read => transfer_all(file, offset, io, IoFlags::BUFFERED),
        Op::Write => {
            binding.backing.note_worker_write();
            write_buffered(file, offset, io)
        }
        Op::Flush => {
            let result = file.flush();
            IssueResult::Done(io, result.map_err(Failure::of_file))
        }
        Op::Discard | Op::WriteZeroes { unmap: true } => {
            fallocate(file, offset, io, FALLOC_FL_PUNCH_HOLE)
        }
        // Without `unmap` the range stays allocated.
        Op::WriteZeroes { unmap: false } => fallocate(file, offset, io, FALLOC_FL_ZERO_RANGE),
        Op::Other => IssueResult::Rejected(io),
    }
}

/// The mode of I/O that does not wait for the backing file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum InlineMode {
    /// Through the page cache. The I/O is done when the call returns.
    Buffered,
    /// As direct I/O. The I/O can be in flight when the call returns.
    Direct,
}

/// The target of I/O that does not wait for the backing file, with a reference to it.
///
/// Direct I/O holds the file and the offset rather than the binding, which the task that completes
/// a request must not hold: see [`BindingRef`].
pub(crate) enum NowaitTarget<'a> {
    Buffered(BindingRef<'a>),
    Direct(OwnedFile, i64),
}

impl<'a> NowaitTarget<'a> {
    pub(crate) fn new(binding: BindingRef<'a>, mode: InlineMode) -> Self {
        match mode {
            InlineMode::Buffered => Self::Buffered(binding),
            InlineMode::Direct => Self::direct(&binding),
        }
    }

    fn direct(binding: &Binding) -> Self {
        Self::Direct(binding.file().clone(), binding.range.offset)
    }
}

impl NowaitTarget<'static> {
    /// The target with a reference of its own.
    #[inline(always)]
    pub(crate) fn shared(binding: &Arc<Binding>, mode: InlineMode) -> Self {
        match mode {
            InlineMode::Buffered => Self::Buffered(BindingRef::Owned(binding.clone())),
            InlineMode::Direct => Self::direct(binding),
        }
    }
}

/// Issues a request without waiting for the backing file. `eagain` is the reason to queue the
/// request if it would block. May sleep.
pub(crate) fn issue_nowait(
    target: NowaitTarget<'_>,
    mut io: Request<LoopOps>,
    eagain: QueueReason,
) -> NowaitResult<Request<LoopOps>> {
    io.data_mut().nowait = Some(eagain);
    match target {
        NowaitTarget::Buffered(binding) => {
            let Ok(pos) = file_position(binding.range.offset, &io) else {
                return NowaitResult::WouldBlock(io);
            };
            let flags = match io.op() {
                Op::Read => IoFlags::CACHED,
                _ => IoFlags::BUFFERED.with_nowait(),
            };
            let result = io.transfer(binding.file(), pos, flags);
            // The worker repeats a short transfer as a whole.
            let eagain = !matches!(result, Ok(n) if n >= io.len());
            if io.op() == Op::Write {
                binding.backing.note_nowait_write(eagain);
            }
            match eagain {
                false => NowaitResult::Done(io, Ok(())),
                true => NowaitResult::WouldBlock(io),
            }
        }
        NowaitTarget::Direct(file, offset) => {
            let Ok(pos) = file_position(offset, &io) else {
                return NowaitResult::WouldBlock(io);
            };
            match io.submit(file, pos, IoFlags::DIRECT.with_nowait()) {
                Submitted::Queued => NowaitResult::Queued,
                Submitted::Done(io, Ok(n), _) if n >= io.len() => NowaitResult::Done(io, Ok(())),
                // `issue` finds any error again.
                Submitted::Done(io, ..) => NowaitResult::WouldBlock(io),
            }
        }
    }
}

/// Issues a request of the current task inline. Returns the request if it would block, and whether
/// the task slept. May sleep.
#[inline(always)]
pub(crate) fn issue_inline(
    target: NowaitTarget<'_>,
    rq: Request<LoopOps>,
) -> (Option<Request<LoopOps>>, bool) {
    let (result, slept) = task::with_writeback(|| {
        task::submit_nested(|| issue_nowait(target, rq, QueueReason::InlineEagain))
    });
    let rq = match result {
        NowaitResult::Done(rq, result) => {
            complete_with(rq, result);
            None
        }
        NowaitResult::WouldBlock(rq) => Some(rq),
        NowaitResult::Queued => None,
    };
    (rq, slept)
}
