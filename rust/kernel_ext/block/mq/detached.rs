// SPDX-License-Identifier: GPL-2.0

//! Bios without a request.
//!
//! A request holds one of the few tags of its device from before the driver sees it until it
//! completes. A driver that cannot start a request yet can detach its bios: the request is freed,
//! and with it the tag and the usage reference of the queue; the bios wait on a [`DetachedBios`]
//! list and are served later.
//!
//! Detaching cannot fail for lack of memory and has no limit: the bios are linked through
//! `bi_next`, and what is to be remembered of the request is kept in its first bio. This is how
//! device-mapper defers bios.
//!
//! Detached bios do not hold up a freeze of the queue. A driver that wants to serve them has them
//! [enter](EnteredBios::enter) the queue first, as `bio_queue_enter()` does for new bios, and they
//! hold a usage reference from then until they complete.
//!
//! The I/O statistics (`stat`, `/proc/diskstats`) count detached bios as one I/O from when the
//! request started until they complete. `inflight` of sysfs counts tags, and so does not count
//! them. The tracepoint `block_rq_complete` is not hit for the request; `block_bio_complete` is hit
//! for its bios.
//!
//! # Soundness
//!
//! | What safe code could try | What stops it |
//! | --- | --- |
//! | Use the request after its bios were detached | `detach` takes it by value |
//! | Complete bios twice, as a request's and detached | They are taken off the request first |
//! | Detach what completes as more than its bios | `detach` gives the request back |
//! | Use bios whose device is gone | Whoever submitted them has it open until they complete |
//! | Serve bios while the queue is frozen | [`EnteredBios::enter`] fails; [`DetachedIo`] holds a reference |
//! | Leave the queue before the last access | The reference is put when all else is dropped |
//! | Share bios between tasks | They are `Send`, not `Sync` |
//! | Forget them | Nothing; whoever submitted them waits for ever |

use super::{
    file_io::{for_each_bvec, FileIo, Submit, Transfer},
    list::IoList,
    Op, Operations, Request,
};
use crate::{
    bindings,
    block::{Queue, Status, SECTOR_SHIFT, SECTOR_SIZE},
    cgroup::{Css, Io},
    task,
    time::JiffiesInstant,
};
use core::{
    marker::PhantomData,
    mem::{ManuallyDrop, MaybeUninit},
    ptr,
    ptr::NonNull,
};
use kernel::{
    alloc::{flags::__GFP_NOWARN, Flags},
    prelude::*,
    time::Jiffies,
};

/// The cookie of a first bio that the I/O statistics do not count.
const NOT_COUNTED: u32 = bindings::BLK_QC_T_NONE as u32;

/// How long ago a request started, in jiffies.
fn elapsed(start_time_ns: u64) -> Jiffies {
    // SAFETY: No requirements.
    unsafe {
        let now = bindings::ktime_get() as u64;
        bindings::nsecs_to_jiffies(now.saturating_sub(start_time_ns))
    }
}

/// What the I/O statistics are told when the bios of a request complete.
struct Account {
    part: *mut bindings::block_device,
    sectors: u32,
    start: Jiffies,
}

/// A chain of bios that were one request's: a contiguous range, one operation.
///
/// # Invariants
///
/// `head` and `tail` are the ends of a chain of valid bios that nobody else accesses, which cover
/// the `len` bytes from `sector` on, or both are null and `len` is 0.
struct Range {
    head: *mut bindings::bio,
    tail: *mut bindings::bio,
    sector: u64,
    len: u32,
    flags: bindings::blk_opf_t,
    account: Option<Account>,
}

impl Range {
    /// Takes the bios of a [`Detached`], and what the first one remembers.
    fn of(bios: ManuallyDrop<Detached<impl Operations>>) -> Self {
        let (head, tail) = (bios.head, bios.tail);
        let mut len = 0;
        let mut bio = head;
        while !bio.is_null() {
            // SAFETY: By the type invariant of `Detached` the bios are valid and ours.
            unsafe {
                len += (*bio).bi_iter.bi_size;
                bio = (*bio).bi_next;
            }
        }
        // SAFETY: As above; there is at least one bio.
        let (sector, flags, account) = unsafe {
            (*head).bi_opf &= !bindings::REQ_DRV;
            let cookie = &raw mut (*head).__bindgen_anon_1.bi_cookie;
            let start = cookie.replace(NOT_COUNTED);
            let account = (start != NOT_COUNTED).then(|| Account {
                part: (*head).bi_bdev,
                sectors: len >> SECTOR_SHIFT,
                start: widen(start),
            });
            ((*head).bi_iter.bi_sector, (*head).bi_opf, account)
        };
        // INVARIANT: By the type invariant of `Detached`.
        Self {
            head,
            tail,
            sector,
            len,
            flags,
            account,
        }
    }

    /// Makes a [`Detached`] of what is left. There is something left.
    fn detach<T: Operations>(mut self) -> Detached<T> {
        let start = self.account.take().map(|account| account.start);
        // INVARIANT: By the type invariant of `Self`; the first bio is marked.
        //
        // SAFETY: As above, and the caller says that there is one.
        unsafe { mark(self.head, start) };
        let this = ManuallyDrop::new(self);
        Detached {
            head: this.head,
            tail: this.tail,
            _p: PhantomData,
        }
    }

    /// Counts the I/O as completed, before its first bio completes, which pins the block device.
    fn account(&mut self) {
        if let Some(account) = self.account.take() {
            // SAFETY: The block device is that of the first bio, which has not completed.
            unsafe {
                bindings::bdev_end_io_acct(
                    account.part,
                    self.flags & bindings::REQ_OP_MASK,
                    account.sectors,
                    account.start,
                )
            };
        }
    }

    /// Completes the first `bytes` successfully.
    fn advance(&mut self, bytes: usize) {
        self.account();
        let mut bytes = (bytes as u64).min(u64::from(self.len)) as u32 & !(SECTOR_SIZE - 1);
        self.len -= bytes;
        self.sector += u64::from(bytes >> SECTOR_SHIFT);
        task::in_completion_context(|| {
            while bytes > 0 && !self.head.is_null() {
                let bio = self.head;
                // SAFETY: By the type invariant the bios are valid until they complete.
                unsafe {
                    let size = (*bio).bi_iter.bi_size;
                    if bytes < size {
                        bindings::bio_advance(bio, bytes);
                        break;
                    }
                    bytes -= size;
                    self.head = (*bio).bi_next;
                    end_bio(bio, Status::OK);
                }
            }
        });
        if self.head.is_null() {
            self.tail = ptr::null_mut();
        }
    }

    /// Completes all bios that are left.
    fn end(&mut self, status: Status) {
        if self.head.is_null() {
            return;
        }
        if status != Status::OK {
            self.report(status);
        }
        self.account();
        self.len = 0;
        self.tail = ptr::null_mut();
        let mut bio = core::mem::replace(&mut self.head, ptr::null_mut());
        task::in_completion_context(|| {
            while !bio.is_null() {
                // SAFETY: By the type invariant the bios are valid until they complete, which they do
                // here; they are ours no longer.
                unsafe {
                    let next = (*bio).bi_next;
                    end_bio(bio, status);
                    bio = next;
                }
            }
        });
    }

    /// Logs a failure in the words of `blk_print_req_error()`.
    fn report(&self, status: Status) {
        // SAFETY: By the type invariant there is a bio, on a device of a disk.
        unsafe {
            bindings::blk_print_bio_error(
                self.head,
                status.as_c_str().as_char_ptr(),
                self.sector,
                self.flags,
            )
        };
    }
}

impl Drop for Range {
    fn drop(&mut self) {
        self.end(Status::IOERR);
    }
}

/// The point in time within the last 2^32 jiffies whose low 32 bits are `start`.
fn widen(start: u32) -> Jiffies {
    let now = JiffiesInstant::now().into_raw();
    now.wrapping_sub((now as u32).wrapping_sub(start) as Jiffies)
}

/// Marks a bio as the first of a request's, and notes in it when the request started, if the I/O
/// statistics count it.
///
/// The cookie of a bio that is not polled is its owner's to use, and so is `REQ_DRV`.
///
/// # Safety
///
/// `bio` is valid and the caller's.
unsafe fn mark(bio: *mut bindings::bio, start: Option<Jiffies>) {
    let cookie = match start.map(|start| start as u32) {
        None => NOT_COUNTED,
        // One jiffy more or less does no harm.
        Some(NOT_COUNTED) => NOT_COUNTED - 1,
        Some(start) => start,
    };
    // SAFETY: By the requirements of this function.
    unsafe {
        (*bio).bi_opf |= bindings::REQ_DRV;
        (*bio).__bindgen_anon_1.bi_cookie = cookie;
    }
}

/// Completes a bio.
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

/// The bios of one request, without the request. Dropped, they complete with [`Status::IOERR`].
///
/// # Invariants
///
/// `head` and `tail` are the ends of a chain of at least one valid bio of a disk with operations
/// `T`, which nobody else accesses. The first one, and no other, is [marked](mark).
pub struct Detached<T: Operations> {
    head: *mut bindings::bio,
    tail: *mut bindings::bio,
    _p: PhantomData<fn(T) -> T>,
}

// SAFETY: Bios may be completed by another task than the one that submitted them.
unsafe impl<T: Operations> Send for Detached<T> {}

impl<T: Operations> Request<T> {
    /// Takes the bios off the request and frees it, and its tag with it. Any context.
    ///
    /// # Errors
    ///
    /// The request itself, if its completion means more than that of its bios: it is a flush or
    /// part of one, or it is accounted to another partition than that of its first bio.
    pub fn detach(self) -> Result<Detached<T>, Self> {
        let rq = self.as_raw();
        let special = bindings::RQF_FLUSH_SEQ | bindings::RQF_SPECIAL_PAYLOAD;
        // SAFETY: By the type invariant the request is valid, and we own it.
        let (rq_flags, ends_bios) = unsafe { ((*rq).rq_flags, (*rq).end_io.is_none()) };
        let (head, tail) = self.bios();
        let counted = rq_flags & bindings::RQF_IO_STAT != 0;
        // The first bio pins its own partition only.
        //
        // SAFETY: As above.
        let other_part = !head.is_null() && unsafe { (*head).bi_bdev != (*rq).part };
        if head.is_null()
            || counted && other_part
            || !ends_bios
            || rq_flags & special != 0
            || matches!(self.op(), Op::Flush | Op::Other)
        {
            return Err(self);
        }
        // The bios, and what the statistics count of them, are ours from here on. Unlike
        // `blk_steal_bios`, which is for bios that are submitted again, this leaves alone what the
        // queue's own policies have noted in them: these are told when the bios complete.
        //
        // SAFETY: As above.
        let start = unsafe {
            let start = counted.then(|| {
                let now = JiffiesInstant::now();
                now.before(elapsed((*rq).start_time_ns)).into_raw()
            });
            (*rq).bio = ptr::null_mut();
            (*rq).biotail = ptr::null_mut();
            (*rq).__data_len = 0;
            (*rq).rq_flags &= !(bindings::RQF_IO_STAT | bindings::RQF_STATS);
            #[cfg(CONFIG_BLK_RQ_ALLOC_TIME)]
            {
                // The time until here would be taken for a latency.
                (*rq).alloc_time_ns = 0;
            }
            start
        };
        let mut bio = head;
        while !bio.is_null() {
            // SAFETY: The bios of a request are valid until they complete.
            unsafe {
                // There is no tag to poll for, and the mark is ours to set.
                (*bio).bi_opf &= !(bindings::REQ_POLLED | bindings::REQ_DRV);
                (*bio).__bindgen_anon_1.bi_cookie = NOT_COUNTED;
                bio = (*bio).bi_next;
            }
        }
        // SAFETY: The bio is valid and ours.
        unsafe { mark(head, start) };
        // SAFETY: By the type invariant we own the started request, and give it up. No bio is left
        // of it, so that there is nothing for `blk_update_request` to do.
        unsafe { bindings::__blk_mq_end_request(self.into_raw(), Status::OK.into_raw()) };
        // INVARIANT: These were the bios of a request of operations `T`.
        Ok(Detached {
            head,
            tail,
            _p: PhantomData,
        })
    }
}

impl<T: Operations> Detached<T> {
    /// Gives up ownership.
    fn into_raw(self) -> (*mut bindings::bio, *mut bindings::bio) {
        let this = ManuallyDrop::new(self);
        (this.head, this.tail)
    }

    fn queue_raw(&self) -> *mut bindings::request_queue {
        // SAFETY: By the type invariant the bio is valid, and its device has a queue.
        unsafe { (*(*self.head).bi_bdev).bd_queue }
    }

    pub(in crate::block) fn disk_raw(&self) -> *mut bindings::gendisk {
        // SAFETY: By the type invariant the bio is valid, and has a device.
        unsafe { (*(*self.head).bi_bdev).bd_disk }
    }

    /// The blkcg that the first bio is charged to, if it has one.
    pub fn blkcg(&self) -> Option<&Css<Io>> {
        // SAFETY: By the type invariant the bio is valid; it holds a reference to its blkg, which
        // holds one to the css.
        unsafe { Css::from_raw(bindings::bio_blkcg_css(self.head)) }
    }
}

impl<T: Operations> Drop for Detached<T> {
    fn drop(&mut self) {
        let this = Detached::<T> {
            head: self.head,
            tail: self.tail,
            _p: PhantomData,
        };
        drop(Range::of(ManuallyDrop::new(this)));
    }
}

/// A list of [`Detached`] bios, for which nothing is allocated. Dropped, they complete with
/// [`Status::IOERR`].
///
/// # Invariants
///
/// `head` and `tail` are both null, or the ends of a chain that consists of `len` chains, each of
/// them as the type invariants of [`Detached`] have it, owned by the list.
pub struct DetachedBios<T: Operations> {
    head: *mut bindings::bio,
    tail: *mut bindings::bio,
    len: usize,
    _p: PhantomData<Detached<T>>,
}

// SAFETY: The list is nothing but the bios it owns.
unsafe impl<T: Operations> Send for DetachedBios<T> {}
// SAFETY: A shared list gives no access to its bios.
unsafe impl<T: Operations> Sync for DetachedBios<T> {}

impl<T: Operations> DetachedBios<T> {
    /// Creates an empty list.
    pub const fn new() -> Self {
        // INVARIANT: Both ends are null.
        Self {
            head: ptr::null_mut(),
            tail: ptr::null_mut(),
            len: 0,
            _p: PhantomData,
        }
    }

    /// How many requests' bios are on the list.
    pub fn nr_requests(&self) -> usize {
        self.len
    }

    /// Prepends the bios of a request.
    pub fn push_front(&mut self, bios: Detached<T>) {
        let (head, tail) = bios.into_raw();
        // SAFETY: By the type invariant of `Detached` the bio is valid and ours.
        unsafe { (*tail).bi_next = self.head };
        if self.tail.is_null() {
            self.tail = tail;
        }
        // INVARIANT: The new chain links to what was the first one.
        self.head = head;
        self.len += 1;
    }

    /// Takes all, leaving the list empty.
    pub fn take(&mut self) -> Self {
        core::mem::take(self)
    }
}

impl<T: Operations> IoList for DetachedBios<T> {
    type Io = Detached<T>;

    fn is_empty(&self) -> bool {
        self.head.is_null()
    }

    fn push_back(&mut self, bios: Detached<T>) {
        let (head, tail) = bios.into_raw();
        if self.tail.is_null() {
            self.head = head;
        } else {
            // SAFETY: By the type invariant the last bio is valid and ours.
            unsafe { (*self.tail).bi_next = head };
        }
        // INVARIANT: The new chain is linked to the last one and ends the list.
        self.tail = tail;
        self.len += 1;
    }

    fn pop_front(&mut self) -> Option<Detached<T>> {
        let head = self.head;
        if head.is_null() {
            return None;
        }
        let mut tail = head;
        // SAFETY: By the type invariant the bios are valid and ours, and the first one of each
        // request is marked.
        unsafe {
            while !(*tail).bi_next.is_null() && (*(*tail).bi_next).bi_opf & bindings::REQ_DRV == 0 {
                tail = (*tail).bi_next;
            }
            // INVARIANT: The list starts with the next request's bios, if there are any.
            self.head = core::mem::replace(&mut (*tail).bi_next, ptr::null_mut());
        }
        if self.head.is_null() {
            self.tail = ptr::null_mut();
        }
        self.len -= 1;
        // INVARIANT: They were a chain of the list's.
        Some(Detached {
            head,
            tail,
            _p: PhantomData,
        })
    }
}

impl<T: Operations> Default for DetachedBios<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Operations> Drop for DetachedBios<T> {
    fn drop(&mut self) {
        while let Some(bios) = self.pop_front() {
            drop(bios);
        }
    }
}

/// A usage reference of a queue.
///
/// # Invariants
///
/// A reference to the queue's `q_usage_counter` is owned.
struct Usage(*mut bindings::request_queue);

impl Drop for Usage {
    fn drop(&mut self) {
        // SAFETY: By the type invariant. The queue is not used after that.
        unsafe { bindings::percpu_ref_put(&raw mut (*self.0).q_usage_counter) }
    }
}

/// Detached bios that have entered the queue and can be served. Dropped, they complete with
/// [`Status::IOERR`].
///
/// `io` is first, so that a kiocb leads here. `usage` is last: fields are dropped in this order, and
/// nothing of the driver is used once the reference is put.
#[repr(C)]
pub struct DetachedIo<T: Operations> {
    io: FileIo,
    range: Range,
    data: T::DetachedData,
    usage: Usage,
}

// SAFETY: Bios may be completed by another task than the one that submitted them, and the private
// data is `Send`.
unsafe impl<T: Operations> Send for DetachedIo<T> {}

impl<T: Operations> DetachedIo<T> {
    fn new(bios: Detached<T>, usage: Usage) -> Self {
        Self {
            io: FileIo::new(),
            range: Range::of(ManuallyDrop::new(bios)),
            data: T::DetachedData::default(),
            usage,
        }
    }

    /// The driver's private data: the default at first, dropped when the I/O completes.
    pub fn data_mut(&mut self) -> &mut T::DetachedData {
        &mut self.data
    }

    /// Whether the bios are multiples of the logical block size and do not go past the end of the
    /// disk: both may have changed since they were submitted.
    ///
    /// Corresponds to the C functions `bio_unaligned` and `bio_check_eod`.
    pub fn fits_limits(&self) -> bool {
        // SAFETY: I/O in flight keeps its queue and the disk of that.
        let sectors = unsafe { bindings::get_capacity((*self.queue().as_raw()).disk) };
        let len = u64::from(self.range.len >> SECTOR_SHIFT);
        if self.range.sector > sectors || len > sectors - self.range.sector {
            return false;
        }
        let mask = self.queue().logical_block_size() - 1;
        let mut bio = self.range.head;
        let mut bits = 0;
        while !bio.is_null() {
            // SAFETY: By the type invariant of `Range` the bios are valid.
            unsafe {
                let iter = (*bio).bi_iter;
                bits |= iter.bi_size | (iter.bi_sector << SECTOR_SHIFT) as u32;
                bio = (*bio).bi_next;
            }
        }
        bits & mask == 0
    }

    /// The bits that are set in the offsets or lengths of the segments.
    pub fn memory_bits(&self) -> u32 {
        let mut bio = self.range.head;
        let mut bits = 0;
        if matches!(self.op(), Op::Read | Op::Write) {
            while !bio.is_null() {
                // SAFETY: By the type invariant of `Range` the bios are valid, with data.
                unsafe {
                    for_each_bvec(bio, |vec| bits |= vec.bv_offset | vec.bv_len);
                    bio = (*bio).bi_next;
                }
            }
        }
        bits
    }

    /// Moves the I/O to memory of its own, as [submitting](Submit::submit) it takes.
    ///
    /// # Errors
    ///
    /// The I/O itself, if there is no memory.
    pub fn boxed(self, flags: Flags) -> Result<BoxedIo<T>, Self> {
        match KBox::<Self>::new_uninit(flags | __GFP_NOWARN) {
            // INVARIANT: The allocation is new, and initialised here.
            Ok(memory) => Ok(BoxedIo {
                inner: NonNull::from(KBox::leak(memory.write(self))),
                _p: PhantomData,
            }),
            Err(_) => Err(self),
        }
    }
}

// SAFETY:
// - By the type invariant of `Range` the bios are a chain that covers the range, and only `advance`
//   and the end of the I/O change it. They are those of a request: of a read or a write they have
//   data.
// - The `FileIo` is a field of the I/O.
unsafe impl<T: Operations> Transfer for DetachedIo<T> {
    fn op(&self) -> Op {
        Op::from_raw(self.range.flags)
    }

    fn position(&self) -> u64 {
        self.range.sector << SECTOR_SHIFT
    }

    fn len(&self) -> usize {
        self.range.len as usize
    }

    fn is_fua(&self) -> bool {
        self.range.flags & bindings::REQ_FUA != 0
    }

    fn queue(&self) -> &Queue {
        // SAFETY: The usage reference keeps the queue and its disk alive.
        unsafe { Queue::from_raw(self.usage.0) }
    }

    fn advance(&mut self, bytes: usize) {
        self.range.advance(bytes);
    }

    fn end(mut self, status: Status) {
        self.range.end(status);
    }

    fn bios(&self) -> (*mut bindings::bio, *mut bindings::bio) {
        (self.range.head, self.range.tail)
    }

    fn io(&mut self) -> *mut FileIo {
        &raw mut self.io
    }
}

/// A [`DetachedIo`] in memory of its own, so that it can be submitted.
///
/// # Invariants
///
/// The pointer is that of an allocation that holds an initialised value, which nobody else
/// accesses.
pub struct BoxedIo<T: Operations> {
    inner: NonNull<DetachedIo<T>>,
    _p: PhantomData<DetachedIo<T>>,
}

// SAFETY: As for `DetachedIo`.
unsafe impl<T: Operations> Send for BoxedIo<T> {}

impl<T: Operations> BoxedIo<T> {
    fn inner(&self) -> &DetachedIo<T> {
        // SAFETY: By the type invariant.
        unsafe { self.inner.as_ref() }
    }

    fn inner_mut(&mut self) -> &mut DetachedIo<T> {
        // SAFETY: By the type invariant.
        unsafe { self.inner.as_mut() }
    }

    /// The driver's private data.
    pub fn data_mut(&mut self) -> &mut T::DetachedData {
        &mut self.inner_mut().data
    }

    /// Moves the I/O back out of its memory.
    pub fn into_inner(self) -> DetachedIo<T> {
        let this = ManuallyDrop::new(self);
        // SAFETY: By the type invariant, and as `self` is not used any more.
        KBox::into_inner(unsafe { KBox::from_raw(this.inner.as_ptr()) })
    }
}

impl<T: Operations> Drop for BoxedIo<T> {
    fn drop(&mut self) {
        let inner = self.inner.as_ptr();
        // The memory is freed before the usage reference is put.
        //
        // SAFETY: By the type invariant, and as `self` is not used any more. Each field is dropped
        // once.
        unsafe {
            let usage = ptr::read(&raw const (*inner).usage);
            ptr::drop_in_place(&raw mut (*inner).io);
            ptr::drop_in_place(&raw mut (*inner).range);
            ptr::drop_in_place(&raw mut (*inner).data);
            drop(KBox::<MaybeUninit<DetachedIo<T>>>::from_raw(inner.cast()));
            drop(usage);
        }
    }
}

// SAFETY: As for `DetachedIo`; the `FileIo` is valid for as long as the allocation.
unsafe impl<T: Operations> Transfer for BoxedIo<T> {
    fn op(&self) -> Op {
        self.inner().op()
    }

    fn position(&self) -> u64 {
        self.inner().position()
    }

    fn len(&self) -> usize {
        self.inner().len()
    }

    fn is_fua(&self) -> bool {
        self.inner().is_fua()
    }

    fn queue(&self) -> &Queue {
        self.inner().queue()
    }

    fn advance(&mut self, bytes: usize) {
        self.inner_mut().advance(bytes);
    }

    fn end(mut self, status: Status) {
        self.inner_mut().range.end(status);
    }

    fn bios(&self) -> (*mut bindings::bio, *mut bindings::bio) {
        self.inner().bios()
    }

    fn io(&mut self) -> *mut FileIo {
        self.inner.as_ptr().cast()
    }
}

// SAFETY: The allocation starts with the `FileIo`, and stays where it is.
unsafe impl<T: Operations> Submit for BoxedIo<T> {
    unsafe fn from_io(io: *mut FileIo) -> Self {
        // INVARIANT: By the requirements of this function the I/O was given up with all that it
        // owned.
        Self {
            // SAFETY: By the requirements of this function the pointer is not null.
            inner: unsafe { NonNull::new_unchecked(io.cast()) },
            _p: PhantomData,
        }
    }

    fn complete_io(self, result: Result<usize>) {
        T::detached_complete(self, result);
    }
}

/// A list of detached bios that have entered the queue. Dropped, they complete with
/// [`Status::IOERR`].
///
/// # Invariants
///
/// For the bios of each request on the list a usage reference of their queue is owned.
pub struct EnteredBios<T: Operations>(DetachedBios<T>);

impl<T: Operations> EnteredBios<T> {
    /// Creates an empty list.
    pub const fn new() -> Self {
        Self(DetachedBios::new())
    }

    /// How many requests' bios are on the list.
    pub fn nr_requests(&self) -> usize {
        self.0.nr_requests()
    }

    /// Appends bios, which enter the queue: takes a usage reference of it. Any context.
    ///
    /// # Errors
    ///
    /// The bios, if the queue is frozen or its disk is being removed.
    pub fn enter(&mut self, bios: Detached<T>) -> Result<(), Detached<T>> {
        let queue = bios.queue_raw();
        // SAFETY: The device of a bio that has not completed is open, so that the queue is valid.
        if !unsafe { bindings::percpu_ref_tryget_live(&raw mut (*queue).q_usage_counter) } {
            return Err(bios);
        }
        // INVARIANT: The reference was just taken.
        self.0.push_back(bios);
        Ok(())
    }
}

impl<T: Operations> IoList for EnteredBios<T> {
    type Io = DetachedIo<T>;

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn push_back(&mut self, io: DetachedIo<T>) {
        let DetachedIo {
            io,
            range,
            data,
            usage,
        } = io;
        // Before the usage reference can be put.
        drop((io, data));
        if !range.head.is_null() {
            // INVARIANT: The reference goes with the bios.
            core::mem::forget(usage);
            self.0.push_back(range.detach());
        }
    }

    fn pop_front(&mut self) -> Option<DetachedIo<T>> {
        let bios = self.0.pop_front()?;
        let queue = bios.queue_raw();
        // INVARIANT: The reference comes with the bios.
        Some(DetachedIo::new(bios, Usage(queue)))
    }
}

impl<T: Operations> Default for EnteredBios<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Operations> Drop for EnteredBios<T> {
    fn drop(&mut self) {
        while let Some(io) = self.pop_front() {
            drop(io);
        }
    }
}
