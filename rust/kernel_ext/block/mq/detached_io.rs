// SPDX-License-Identifier: GPL-2.0

//! Detached bios in service.

use super::{
    bio_range::BioRange,
    detached::{Detached, DetachedBios},
    kiocb::KiocbState,
    list::IoList,
    raw::{RawIo, RawSubmit},
    Op, Operations, Submit, Transfer,
};
use crate::{
    bindings,
    block::{self, GenDisk, Queue, Status, SECTOR_SHIFT},
};
use core::{
    marker::PhantomData,
    mem::{ManuallyDrop, MaybeUninit},
    ptr::{self, NonNull},
};
use kernel::{
    alloc::{flags::__GFP_NOWARN, Flags},
    prelude::*, //
};

/// A usage reference of a queue.
///
/// # Invariants
///
/// A reference to the queue's `q_usage_counter` is owned.
pub(super) struct Usage(pub(super) *mut bindings::request_queue);

impl Drop for Usage {
    fn drop(&mut self) {
        // SAFETY: By the type invariant. The queue is not used after this.
        unsafe { bindings::percpu_ref_put(&raw mut (*self.0).q_usage_counter) }
    }
}

/// Detached bios that have entered the queue and can be served. Dropped, they complete with
/// [`Status::IOERR`].
///
/// `io` is first, so that a kiocb leads here. `usage` is last: fields are dropped in this order,
/// and no code of the driver is called after the reference is put.
#[repr(C)]
pub struct DetachedIo<T: Operations> {
    io: KiocbState,
    range: BioRange,
    data: T::DetachedData,
    usage: Usage,
}

// SAFETY: Bios may be completed by another task than the one that submitted them, and the private
// data is `Send`.
unsafe impl<T: Operations> Send for DetachedIo<T> {}

impl<T: Operations> DetachedIo<T> {
    pub(super) fn new(bios: Detached<T>, usage: Usage) -> Self {
        Self {
            io: KiocbState::new(),
            range: BioRange::of(ManuallyDrop::new(bios)),
            data: T::DetachedData::default(),
            usage,
        }
    }

    pub(super) fn range(&self) -> &BioRange {
        &self.range
    }

    pub(super) fn queue_raw(&self) -> *mut bindings::request_queue {
        self.usage.0
    }

    /// The driver's data: the default at first, dropped when the I/O completes.
    pub fn data_mut(&mut self) -> &mut T::DetachedData {
        &mut self.data
    }

    /// Whether the bios are multiples of the logical block size and within the disk: both may have
    /// changed since they were submitted.
    pub fn fits_limits(&self) -> bool {
        let queue = self.queue();
        // SAFETY: I/O in flight keeps its queue and the disk of that.
        let sectors = unsafe { bindings::get_capacity((*queue.as_raw()).disk) };
        self.range.fits(queue.logical_block_size(), sectors)
    }

    /// The bits that are set in the offsets or lengths of the segments of a read or a write.
    pub fn memory_bits(&self) -> u32 {
        match self.op() {
            // SAFETY: The bios of a read or a write have data.
            Op::Read | Op::Write => unsafe { self.range.memory_bits() },
            _ => 0,
        }
    }

    /// Moves the I/O to memory of its own, so that it can be [submitted](Submit::submit).
    ///
    /// # Errors
    ///
    /// The I/O, if there is no memory.
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

impl<T: block::Operations> DetachedIo<T> {
    /// The disk that the I/O is for.
    pub fn disk(&self) -> &GenDisk<T> {
        // SAFETY: The usage reference keeps the queue and its disk alive, which has operations `T`.
        unsafe { GenDisk::from_raw((*self.usage.0).disk) }
    }
}

// SAFETY:
// - By the type invariant of `BioRange` the bios are a chain that covers the range, and only
//   `advance` and the completion of the I/O change it. They are those of a request: of a read or a
//   write they have data.
// - The `KiocbState` is a field of the I/O.
unsafe impl<T: Operations> RawIo for DetachedIo<T> {
    fn bios(&self) -> (*mut bindings::bio, *mut bindings::bio) {
        (self.range.head, self.range.tail)
    }

    fn kiocb(&mut self) -> *mut KiocbState {
        &raw mut self.io
    }
}

impl<T: Operations> Transfer for DetachedIo<T> {
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

    fn is_swap(&self) -> bool {
        self.range.flags & bindings::REQ_SWAP != 0
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
    pub(super) fn inner(&self) -> &DetachedIo<T> {
        // SAFETY: By the type invariant.
        unsafe { self.inner.as_ref() }
    }

    fn inner_mut(&mut self) -> &mut DetachedIo<T> {
        // SAFETY: By the type invariant.
        unsafe { self.inner.as_mut() }
    }

    /// The driver's data.
    pub fn data_mut(&mut self) -> &mut T::DetachedData {
        &mut self.inner_mut().data
    }

    /// As [`DetachedIo::fits_limits`].
    pub fn fits_limits(&self) -> bool {
        self.inner().fits_limits()
    }

    /// As [`DetachedIo::memory_bits`].
    pub fn memory_bits(&self) -> u32 {
        self.inner().memory_bits()
    }

    /// Moves the I/O back out of its memory.
    pub fn into_inner(self) -> DetachedIo<T> {
        let this = ManuallyDrop::new(self);
        // SAFETY: By the type invariant, and as `self` is not used any more.
        KBox::into_inner(unsafe { KBox::from_raw(this.inner.as_ptr()) })
    }
}

impl<T: block::Operations> BoxedIo<T> {
    /// The disk that the I/O is for.
    pub fn disk(&self) -> &GenDisk<T> {
        self.inner().disk()
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
            let DetachedIo {
                io,
                range,
                data,
                usage,
            } = &mut *inner;
            let usage = ptr::read(usage);
            ptr::drop_in_place(io);
            ptr::drop_in_place(range);
            ptr::drop_in_place(data);
            drop(KBox::<MaybeUninit<DetachedIo<T>>>::from_raw(inner.cast()));
            drop(usage);
        }
    }
}

// SAFETY: As for `DetachedIo`; the `KiocbState` is valid for as long as the allocation.
unsafe impl<T: Operations> RawIo for BoxedIo<T> {
    fn bios(&self) -> (*mut bindings::bio, *mut bindings::bio) {
        self.inner().bios()
    }

    fn kiocb(&mut self) -> *mut KiocbState {
        self.inner.as_ptr().cast()
    }
}

impl<T: Operations> Transfer for BoxedIo<T> {
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

    fn is_swap(&self) -> bool {
        self.inner().is_swap()
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
}

// SAFETY: The allocation starts with the `KiocbState`, and stays where it is.
unsafe impl<T: Operations> RawSubmit for BoxedIo<T> {
    unsafe fn from_kiocb(io: *mut KiocbState) -> Self {
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

    fn read_ready(self) {
        T::detached_read_ready(self);
    }
}

impl<T: Operations> Submit for BoxedIo<T> {}

/// A list of detached bios that have entered the queue. Dropped, it completes them with
/// [`Status::IOERR`].
///
/// # Invariants
///
/// The list owns a usage reference of the queue for the bios of each request.
pub struct EnteredBios<T: Operations>(DetachedBios<T>);

impl<T: Operations> EnteredBios<T> {
    /// Creates an empty list.
    pub const fn new() -> Self {
        Self(DetachedBios::new())
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

    fn len(&self) -> u32 {
        self.0.len()
    }

    fn pop_front(&mut self) -> Option<DetachedIo<T>> {
        let bios = self.0.pop_front()?;
        let queue = bios.queue_raw();
        // INVARIANT: The list owned the reference.
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
