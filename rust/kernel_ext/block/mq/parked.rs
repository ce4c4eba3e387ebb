// SPDX-License-Identifier: GPL-2.0

//! I/O without a tag.
//!
//! The tags of a device are few, and whoever holds one keeps it from all others. A request that
//! will have to wait for something that is its submitter's own affair can be parked: its bios are
//! taken off it, and it ends, so that the tag is free at once; the bios are served, and end, later.
//!
//! Parked I/O counts like a request for those who look at the device: in its I/O statistics
//! (`stat`, `/proc/diskstats`; only `inflight` counts tags), once, with its times in jiffies, and for
//! who freezes the queue, removes the disk, or waits for the device to become idle. What looks at
//! requests by themselves sees that of parked I/O end when it is parked: a scheduler, and the
//! throttling of writeback, count it no longer; latencies are not taken of it.
//!
//! # Soundness
//!
//! | What safe code could try | What stops it |
//! | --- | --- |
//! | Use the request after it was parked | `park` takes it by value |
//! | End bios twice, as a request's and parked | They are taken off it before it ends |
//! | Park what ends as more than its bios | `park` gives it back |
//! | Keep disk or queue after the end | They are borrowed from the I/O, which keeps them |
//! | Use the request's private data | Parked I/O has its own, from `Default` |
//! | Share it between tasks | It is `Send`, not `Sync` |
//! | Forget it | Nothing; the disk's removal waits for it forever |

use super::{
    file_io::{FileIo, Transfer},
    Op, Operations, Request,
};
use crate::{
    bindings,
    block::{Queue, Status, SECTOR_SHIFT, SECTOR_SIZE},
    time::JiffiesInstant,
};
use core::{marker::PhantomData, ptr, ptr::NonNull};
use kernel::{
    alloc::{flags::__GFP_NOWARN, Flags},
    prelude::*,
    time::Jiffies,
};

/// What is kept of the request.
///
/// `io` is first, so that a kiocb leads here.
#[repr(C)]
struct Inner<T: Operations> {
    io: FileIo,
    head: *mut bindings::bio,
    tail: *mut bindings::bio,
    sector: u64,
    len: u32,
    flags: bindings::blk_opf_t,
    queue: *mut bindings::request_queue,
    account: Option<Account>,
    data: T::RequestData,
}

/// What the I/O statistics are to be told when the I/O ends.
struct Account {
    part: *mut bindings::block_device,
    sectors: u32,
    start: JiffiesInstant,
}

/// How long ago a request started, in jiffies.
fn elapsed(start_time_ns: u64) -> Jiffies {
    // SAFETY: No requirements.
    unsafe {
        let now = bindings::ktime_get() as u64;
        bindings::nsecs_to_jiffies(now.saturating_sub(start_time_ns))
    }
}

/// Bios that were taken off a request, held by their one owner.
///
/// Dropped without having been ended they end with [`Status::IOERR`].
///
/// # Invariants
///
/// - `inner` is an allocation that nobody else accesses.
/// - `head` and `tail` are the ends of a chain of bios of a disk with operations `T`, which cover
///   the range given by `sector` and `len`, or both are null and `len` is 0.
/// - A reference to the `q_usage_counter` of `queue` is owned.
pub struct Parked<T: Operations> {
    inner: NonNull<Inner<T>>,
    // The data is dropped with it.
    _p: PhantomData<Inner<T>>,
}

// SAFETY: Bios may be ended by another task than the one that submitted them, and the private data
// is `Send`.
unsafe impl<T: Operations> Send for Parked<T> {}

impl<T: Operations> Request<T> {
    /// Takes the bios off the request and ends it, so that its tag is free. In any context but
    /// hard interrupts; `flags` say whether it may sleep.
    ///
    /// # Errors
    ///
    /// The request itself, when there is no memory, or its end means more than the end of its
    /// bios: it flushes, or is part of a flush, or is accounted to another partition than the
    /// first of them.
    pub fn park(self, flags: Flags) -> Result<Parked<T>, Self> {
        let rq = self.as_raw();
        let special = bindings::RQF_FLUSH_SEQ | bindings::RQF_SPECIAL_PAYLOAD;
        // SAFETY: By the type invariant the request is valid, and we own it.
        let (rq_flags, ends_bios) = unsafe { ((*rq).rq_flags, (*rq).end_io.is_none()) };
        let (head, tail) = self.bios();
        // What is accounted to another device than that of the first bio, which ended before, may
        // outlive it.
        //
        // SAFETY: As above.
        let of_another = !head.is_null() && unsafe { (*head).bi_bdev != (*rq).part };
        let account_outlives = rq_flags & bindings::RQF_IO_STAT != 0 && of_another;
        if head.is_null()
            || account_outlives
            || !ends_bios
            || rq_flags & special != 0
            || matches!(self.op(), Op::Flush | Op::Other)
        {
            return Err(self);
        }
        let inner = match KBox::<Inner<T>>::new_uninit(flags | __GFP_NOWARN) {
            Ok(inner) => inner,
            Err(_) => return Err(self),
        };
        // SAFETY: As above.
        let inner = unsafe {
            let account = (rq_flags & bindings::RQF_IO_STAT != 0).then(|| Account {
                part: (*rq).part,
                sectors: (*rq).__data_len >> SECTOR_SHIFT,
                start: JiffiesInstant::now().before(elapsed((*rq).start_time_ns)),
            });
            inner.write(Inner {
                io: FileIo::new(),
                head,
                tail,
                sector: (*rq).__sector,
                len: (*rq).__data_len,
                flags: (*rq).cmd_flags,
                queue: (*rq).q,
                account,
                data: T::RequestData::default(),
            })
        };
        // The bios, and what the statistics say of them, are ours from here on. Unlike
        // `blk_steal_bios`, which is for bios that are submitted again, this leaves alone what the
        // queue's own policies have noted in them: they are told when the bios end.
        //
        // SAFETY: As above.
        unsafe {
            (*rq).bio = ptr::null_mut();
            (*rq).biotail = ptr::null_mut();
            (*rq).__data_len = 0;
            (*rq).rq_flags &= !(bindings::RQF_IO_STAT | bindings::RQF_STATS);
            #[cfg(CONFIG_BLK_RQ_ALLOC_TIME)]
            {
                // How long it took would be taken for a latency.
                (*rq).alloc_time_ns = 0;
            }
        }
        let mut bio = head;
        while !bio.is_null() {
            // SAFETY: The bios of a request are valid until they end.
            unsafe {
                // There is no tag to poll for.
                if (*bio).bi_opf & bindings::REQ_POLLED != 0 {
                    (*bio).bi_opf &= !bindings::REQ_POLLED;
                    (*bio).__bindgen_anon_1.bi_cookie = bindings::BLK_QC_T_NONE as u32;
                }
                bio = (*bio).bi_next;
            }
        }
        // SAFETY: The request holds a reference, so that the count is not zero.
        unsafe { bindings::percpu_ref_get(&raw mut (*(*rq).q).q_usage_counter) };
        let inner = NonNull::from(KBox::leak(inner));
        self.end(Status::OK);
        // INVARIANT: The allocation was just made, with the bios of a request of operations `T`
        // and their range, and a reference was just taken.
        Ok(Parked {
            inner,
            _p: PhantomData,
        })
    }
}

impl<T: Operations> Parked<T> {
    fn inner(&self) -> &Inner<T> {
        // SAFETY: By the type invariant nobody else accesses it.
        unsafe { self.inner.as_ref() }
    }

    fn inner_mut(&mut self) -> &mut Inner<T> {
        // SAFETY: By the type invariant nobody else accesses it.
        unsafe { self.inner.as_mut() }
    }

    /// The driver's private data: the default at first, and dropped when the I/O has ended.
    pub fn data_mut(&mut self) -> &mut T::RequestData {
        &mut self.inner_mut().data
    }

    /// Tells the I/O statistics that the I/O ends: before its first bio does, which keeps the block
    /// device there.
    fn account(&mut self) {
        let inner = self.inner_mut();
        if let Some(account) = inner.account.take() {
            // SAFETY: The block device is that of the disk, or one of its partitions, and stays as
            // long as the first bio, which is on it, has not ended.
            unsafe {
                bindings::bdev_end_io_acct(
                    account.part,
                    inner.flags & bindings::REQ_OP_MASK,
                    account.sectors,
                    account.start.into_raw(),
                )
            };
        }
    }

    /// Ends all that is left.
    ///
    /// # Safety
    ///
    /// The I/O is not used any more.
    unsafe fn finish(&mut self, status: Status) {
        self.account();
        let inner = self.inner.as_ptr();
        // SAFETY: By the type invariant the allocation is ours; by the requirements of this
        // function it is taken over once.
        let inner = unsafe { KBox::from_raw(inner) };
        let mut bio = inner.head;
        while !bio.is_null() {
            // SAFETY: By the type invariant the bios are valid until they end, which they do here.
            unsafe {
                let next = (*bio).bi_next;
                end_bio(bio, status);
                bio = next;
            }
        }
        let queue = inner.queue;
        // SAFETY: The reference is given up; nothing of the disk is used after that.
        unsafe { bindings::percpu_ref_put(&raw mut (*queue).q_usage_counter) };
    }
}

/// Ends a bio.
///
/// # Safety
///
/// `bio` is valid, and not used any more.
unsafe fn end_bio(bio: *mut bindings::bio, status: Status) {
    // SAFETY: By the requirements of this function. The chain is not the submitter's concern.
    unsafe {
        (*bio).bi_next = ptr::null_mut();
        if status != Status::OK {
            (*bio).bi_status = status.into_raw();
        }
        bindings::bio_endio(bio);
    }
}

// SAFETY:
// - By the type invariant the bios are a chain that covers the range, and only `advance` and the
//   end of the I/O change it. They are those of a request: of a read or a write they have data.
// - The allocation starts with the `FileIo`, and is accessed by the owner only.
unsafe impl<T: Operations> Transfer for Parked<T> {
    fn op(&self) -> Op {
        Op::from_raw(self.inner().flags)
    }

    fn position(&self) -> u64 {
        self.inner().sector << SECTOR_SHIFT
    }

    fn len(&self) -> usize {
        self.inner().len as usize
    }

    fn is_fua(&self) -> bool {
        self.inner().flags & bindings::REQ_FUA != 0
    }

    fn queue(&self) -> &Queue {
        // SAFETY: The reference to its counter keeps the queue alive.
        unsafe { Queue::from_raw(self.inner().queue) }
    }

    fn advance(&mut self, bytes: usize) {
        self.account();
        let inner = self.inner_mut();
        let mut bytes = (bytes as u64).min(u64::from(inner.len)) as u32 & !(SECTOR_SIZE - 1);
        inner.len -= bytes;
        inner.sector += u64::from(bytes >> SECTOR_SHIFT);
        while bytes > 0 && !inner.head.is_null() {
            let bio = inner.head;
            // SAFETY: By the type invariant the bios are valid until they end.
            unsafe {
                let size = (*bio).bi_iter.bi_size;
                if bytes < size {
                    bindings::bio_advance(bio, bytes);
                    break;
                }
                bytes -= size;
                inner.head = (*bio).bi_next;
                end_bio(bio, Status::OK);
            }
        }
        if inner.head.is_null() {
            inner.tail = ptr::null_mut();
        }
    }

    fn end(self, status: Status) {
        let mut this = core::mem::ManuallyDrop::new(self);
        // SAFETY: The I/O is not used after this.
        unsafe { this.finish(status) };
    }

    fn bios(&self) -> (*mut bindings::bio, *mut bindings::bio) {
        (self.inner().head, self.inner().tail)
    }

    fn io(&self) -> *mut FileIo {
        self.inner.as_ptr().cast()
    }

    unsafe fn from_io(io: *mut FileIo) -> Self {
        // INVARIANT: By the requirements of this function the I/O was given up with all that it
        // owned.
        Self {
            // SAFETY: By the requirements of this function the pointer is not null.
            inner: unsafe { NonNull::new_unchecked(io.cast()) },
            _p: PhantomData,
        }
    }

    fn hand_back(self, result: Result<usize>) {
        T::parked_complete(self, result);
    }
}

impl<T: Operations> Drop for Parked<T> {
    fn drop(&mut self) {
        // SAFETY: The I/O is not used after this.
        unsafe { self.finish(Status::IOERR) };
    }
}
