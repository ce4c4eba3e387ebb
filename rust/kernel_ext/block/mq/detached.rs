// SPDX-License-Identifier: GPL-2.0

//! Bios without a request.
//!
//! A request holds one of its device's tags from before the driver sees it until it completes. A
//! driver that cannot serve a request yet can detach its bios. That frees the request, with its tag
//! and the usage reference of the queue. The bios wait on a [`DetachedBios`] list and are served
//! later.
//!
//! Detaching allocates nothing and has no limit: the bios are linked through `bi_next`, and the
//! first bio records when the request started. Device-mapper defers bios in the same way.
//!
//! Detached bios do not delay a freeze of the queue. To serve them, a driver has them
//! [enter](super::EnteredBios::enter) the queue, as `bio_queue_enter()` does for new bios. They
//! hold a usage reference from then until they complete.
//!
//! The I/O statistics (`stat`, `/proc/diskstats`) count the bios of one request as one I/O from the
//! start of the request until they complete. `inflight` of sysfs counts tags, and so does not count
//! them. The tracepoint `block_rq_complete` is not hit for the request; `block_bio_complete` is hit
//! for its bios.
//!
//! # Soundness
//!
//! | What safe code could try | What stops it |
//! | --- | --- |
//! | Use the request after its bios were detached | `detach` takes it by value |
//! | Complete bios twice | They are taken off the request before it is freed |
//! | Detach a request that is more than its bios | `detach` gives the request back |
//! | Use bios whose device was freed | Their submitter has it open until they complete |
//! | Serve bios while the queue is frozen | [`enter`](super::EnteredBios::enter) fails; [`DetachedIo`](super::DetachedIo) holds a reference |
//! | Put the usage reference too early | It is dropped after everything else |
//! | Share bios between tasks | They are `Send`, not `Sync` |
//! | Forget them | Nothing; their submitter waits for ever |

use super::{
    bio::BioChain,
    bio_range::{Account, BioRange},
    list::IoList,
    raw::RawIo,
    Op, Operations, Request, Transfer,
};
use crate::{
    bindings,
    block::{self, GenDisk, Status, SECTOR_SHIFT},
    cgroup::{Css, Io},
    time::JiffiesInstant,
};
use core::{marker::PhantomData, mem::ManuallyDrop, ptr};
use kernel::{prelude::*, time::Jiffies};

/// `bi_cookie` of a first bio that the I/O statistics do not count.
const NOT_COUNTED: u32 = bindings::BLK_QC_T_NONE as u32;

impl BioRange {
    /// Takes the bios of a [`Detached`], and the record in the first one.
    pub(super) fn of(bios: ManuallyDrop<Detached<impl Operations>>) -> Self {
        let (head, tail) = (bios.head, bios.tail);
        let mut len = 0;
        // SAFETY: By the type invariant of `Detached` the bios are valid and ours.
        for bio in unsafe { BioChain::new(head) } {
            // SAFETY: As above.
            len += unsafe { (*bio).bi_iter.bi_size };
        }
        // SAFETY: As above; there is at least one bio.
        let (sector, flags, account) = unsafe {
            (*head).bi_opf &= !bindings::REQ_DRV;
            let cookie = &raw mut (*head).__bindgen_anon_1.bi_cookie;
            let start = cookie.replace(NOT_COUNTED);
            let account = (start != NOT_COUNTED).then(|| Account {
                part: (*head).bi_bdev,
                sectors: len >> SECTOR_SHIFT,
                start: JiffiesInstant::of_low_bits(start).into_raw(),
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
}

/// Marks a bio as the first one of a request, and records in it when the request started if the I/O
/// statistics count it.
///
/// `bi_cookie` is unused in a bio that is not polled, and `REQ_DRV` is for drivers.
///
/// # Safety
///
/// `bio` is valid and the caller's.
unsafe fn mark(bio: *mut bindings::bio, start: Option<Jiffies>) {
    let cookie = match start.map(|start| start as u32) {
        None => NOT_COUNTED,
        // A jiffy less, as this value has a meaning.
        Some(NOT_COUNTED) => NOT_COUNTED - 1,
        Some(start) => start,
    };
    // SAFETY: By the requirements of this function.
    unsafe {
        (*bio).bi_opf |= bindings::REQ_DRV;
        (*bio).__bindgen_anon_1.bi_cookie = cookie;
    }
}

/// When the request of a [marked](mark) bio started, if that is recorded.
///
/// # Safety
///
/// `bio` is valid, marked and the caller's.
unsafe fn started(bio: *const bindings::bio) -> Option<JiffiesInstant> {
    // SAFETY: By the requirements of this function.
    let start = unsafe { (*bio).__bindgen_anon_1.bi_cookie };
    (start != NOT_COUNTED).then(|| JiffiesInstant::of_low_bits(start))
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

// SAFETY: Another task than the one that submitted bios may complete them.
unsafe impl<T: Operations> Send for Detached<T> {}

impl<T: Operations> Request<T> {
    /// Takes the bios off the request and frees it, with its tag. Any context.
    ///
    /// # Errors
    ///
    /// The request, if completing it is more than completing its bios: it has none, is a flush or
    /// part of one, has a special payload, a completion callback or an operation that is not in
    /// [`Op`], or is accounted to another partition than that of its first bio.
    pub fn detach(self) -> Result<Detached<T>, Self> {
        let rq = self.as_raw();
        let special = bindings::RQF_FLUSH_SEQ | bindings::RQF_SPECIAL_PAYLOAD;
        // SAFETY: By the type invariant the request is valid, and we own it.
        let (rq_flags, ends_bios) = unsafe { ((*rq).rq_flags, (*rq).end_io.is_none()) };
        let (head, tail) = self.bios();
        let counted = rq_flags & bindings::RQF_IO_STAT != 0;
        // A bio pins its own partition only.
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
        // The bios and the accounting are ours from here on. `blk_steal_bios` is for bios that are
        // submitted again. Unlike it, this keeps what policies of the queue (throttling, iocost)
        // have recorded in the bios, as they complete here.
        //
        // SAFETY: As above.
        let start = unsafe {
            let start = counted.then(|| JiffiesInstant::of_ktime((*rq).start_time_ns).into_raw());
            (*rq).bio = ptr::null_mut();
            (*rq).biotail = ptr::null_mut();
            (*rq).__data_len = 0;
            (*rq).rq_flags &= !(bindings::RQF_IO_STAT | bindings::RQF_STATS);
            #[cfg(CONFIG_BLK_RQ_ALLOC_TIME)]
            {
                // The block layer would take the time until here for the latency.
                (*rq).alloc_time_ns = 0;
            }
            start
        };
        // SAFETY: The bios of a request are valid until they complete.
        for bio in unsafe { BioChain::new(head) } {
            // The cookie is not in use: blk-mq fails polled bios where there are no poll queues.
            //
            // SAFETY: As above.
            unsafe {
                (*bio).bi_opf &= !bindings::REQ_DRV;
                (*bio).__bindgen_anon_1.bi_cookie = NOT_COUNTED;
            }
        }
        // SAFETY: The bio is valid and ours.
        unsafe { mark(head, start) };
        // SAFETY: By the type invariant we own the started request, and give it up. It has no bios
        // left, so that there is nothing for `blk_update_request` to do.
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

    pub(super) fn queue_raw(&self) -> *mut bindings::request_queue {
        // SAFETY: By the type invariant the bio is valid, and its device has a queue.
        unsafe { (*(*self.head).bi_bdev).bd_queue }
    }

    /// The first bio.
    pub(super) fn first(&self) -> *mut bindings::bio {
        self.head
    }

    /// When the request started; `None` if the I/O statistics do not count it.
    pub(super) fn started(&self) -> Option<JiffiesInstant> {
        // SAFETY: By the type invariant the first bio is valid, ours, and marked.
        unsafe { started(self.head) }
    }

    /// The operation.
    pub fn op(&self) -> Op {
        // SAFETY: By the type invariant the bio is valid.
        Op::from_raw(unsafe { (*self.head).bi_opf })
    }

    /// The number of bytes.
    pub fn bytes(&self) -> usize {
        // SAFETY: By the type invariant the bios are valid and ours.
        unsafe { BioChain::new(self.head) }
            // SAFETY: As above.
            .map(|bio| unsafe { (*bio).bi_iter.bi_size } as usize)
            .fold(0, usize::saturating_add)
    }

    /// The blkcg that the first bio is charged to, if it has one.
    pub fn blkcg(&self) -> Option<&Css<Io>> {
        // SAFETY: By the type invariant the bio is valid; it holds a reference to its blkg, which
        // holds one to the css.
        unsafe { Css::from_raw(bindings::bio_blkcg_css(self.head)) }
    }
}

impl<T: block::Operations> Detached<T> {
    /// The disk that the bios are for.
    pub fn disk(&self) -> &GenDisk<T> {
        // SAFETY: By the type invariant the bio is valid. Its submitter has the disk open until the
        // bio completes, and the disk has operations `T`.
        unsafe { GenDisk::from_raw((*(*self.head).bi_bdev).bd_disk) }
    }
}

impl<T: Operations> Drop for Detached<T> {
    fn drop(&mut self) {
        let this = Detached::<T> {
            head: self.head,
            tail: self.tail,
            _p: PhantomData,
        };
        drop(BioRange::of(ManuallyDrop::new(this)));
    }
}

/// A list of [`Detached`] bios, for which nothing is allocated. Dropped, it completes them with
/// [`Status::IOERR`].
///
/// # Invariants
///
/// `head` and `tail` are both null, or the ends of a chain of bios that the list owns: one after
/// the other the chains of one or more [`Detached`], as its type invariants have them. `len` is the
/// number of these.
pub struct DetachedBios<T: Operations> {
    head: *mut bindings::bio,
    tail: *mut bindings::bio,
    len: u32,
    _p: PhantomData<Detached<T>>,
}

// SAFETY: The list is nothing but the bios it owns.
unsafe impl<T: Operations> Send for DetachedBios<T> {}
// SAFETY: Through a shared list one can only read when its first request started, which does not
// change.
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

    /// When the first request started; `None` if there is none, or the I/O statistics do not count
    /// it.
    pub fn first_started(&self) -> Option<JiffiesInstant> {
        if self.head.is_null() {
            return None;
        }
        // SAFETY: By the type invariant the first bio is valid, ours, and marked.
        unsafe { started(self.head) }
    }

    /// Adds the bios of a request at the end.
    pub fn push_back(&mut self, bios: Detached<T>) {
        let (head, tail) = bios.into_raw();
        if self.tail.is_null() {
            self.head = head;
        } else {
            // SAFETY: By the type invariant the last bio is valid and ours.
            unsafe { (*self.tail).bi_next = head };
        }
        // INVARIANT: The new chain is linked to the last one and ends the list.
        self.tail = tail;
        self.len = self.len.wrapping_add(1);
    }

    /// Adds the bios of a request at the front.
    pub fn push_front(&mut self, bios: Detached<T>) {
        let (head, tail) = bios.into_raw();
        // SAFETY: By the type invariant of `Detached` the bio is valid and ours.
        unsafe { (*tail).bi_next = self.head };
        if self.tail.is_null() {
            self.tail = tail;
        }
        // INVARIANT: The new chain links to the old first one.
        self.head = head;
        self.len = self.len.wrapping_add(1);
    }

    /// Takes all bios off the list.
    pub fn take(&mut self) -> Self {
        core::mem::take(self)
    }
}

impl<T: Operations> IoList for DetachedBios<T> {
    type Io = Detached<T>;

    fn is_empty(&self) -> bool {
        self.head.is_null()
    }

    fn len(&self) -> u32 {
        self.len
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
        self.len = self.len.wrapping_sub(1);
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
