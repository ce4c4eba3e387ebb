// SPDX-License-Identifier: GPL-2.0

//! Lists of I/O.
//!
//! # Soundness
//!
//! | What safe code could try | What stops it |
//! | --- | --- |
//! | Put I/O on two lists, or use it there | `push_back` takes it by value |
//! | Free it while it is on a list | The list owns it: it has not completed |
//! | Mix kinds of I/O, or drivers | A list is for one type of I/O |
//! | Put it on another device's list | Nothing; it knows its disk |
//! | Change a list from two tasks | Only `&mut` changes it |
//! | Send a list of I/O that is not `Send` | It is `Send` if its I/O is |
//! | Forget a list | Nothing; the disk's removal waits for its I/O forever |

use super::{kiocb::KiocbState, raw::RawSubmit, Operations, Request, Submit};
use crate::time::JiffiesInstant;
use core::{marker::PhantomData, mem::ManuallyDrop, ptr};

/// A list that owns I/O, first in, first out.
pub trait IoList: Default {
    /// The I/O on the list.
    type Io;

    /// Whether the list is empty.
    fn is_empty(&self) -> bool;

    /// Number of I/Os on the list; detached bios count as the requests that they were.
    fn len(&self) -> u32;

    /// Removes the I/O at the front.
    fn pop_front(&mut self) -> Option<Self::Io>;
}

/// A list of I/O with two ends, for which nothing is allocated. Dropped, it completes its I/O with
/// an I/O error.
///
/// # Invariants
///
/// `head` and `tail` are both null, or they are the ends of a chain of I/O linked through `next`,
/// the last of which has a null link, all owned by the list. Each but the first has the one before
/// it in `prev`. `len` is their number.
pub struct TransferList<I: Submit> {
    head: *mut KiocbState,
    tail: *mut KiocbState,
    len: u32,
    _owns: PhantomData<I>,
}

// SAFETY: A list is nothing but the I/O it owns.
unsafe impl<I: Submit + Send> Send for TransferList<I> {}
// SAFETY: Through a shared list one can only read when its first request started, which does not
// change.
unsafe impl<I: Submit + Send> Sync for TransferList<I> {}

impl<I: Submit> TransferList<I> {
    /// Creates an empty list.
    pub const fn new() -> Self {
        // INVARIANT: Both ends are null.
        Self {
            head: ptr::null_mut(),
            tail: ptr::null_mut(),
            len: 0,
            _owns: PhantomData,
        }
    }

    /// Adds I/O at the end.
    pub fn push_back(&mut self, io: I) {
        let last = io.into_kiocb();
        // SAFETY: The I/O is the list's now, and its links for its owner to use.
        unsafe {
            (*last).next = ptr::null_mut();
            (*last).prev = self.tail;
        }
        if self.tail.is_null() {
            self.head = last;
        } else {
            // SAFETY: By the type invariant the tail belongs to I/O that the list owns.
            unsafe { (*self.tail).next = last };
        }
        // INVARIANT: The new last one has a null link, and the one before it, if any, links to it
        // and is in its `prev`.
        self.tail = last;
        self.len = self.len.wrapping_add(1);
    }

    /// Adds I/O at the front.
    pub fn push_front(&mut self, io: I) {
        let first = io.into_kiocb();
        // SAFETY: The I/O is the list's now, and its links for its owner to use.
        unsafe { (*first).next = self.head };
        if self.head.is_null() {
            self.tail = first;
        } else {
            // SAFETY: By the type invariant the head belongs to I/O that the list owns.
            unsafe { (*self.head).prev = first };
        }
        // INVARIANT: The new first one links to the one that was, which has it in its `prev`, or is
        // the last one, with a null link.
        self.head = first;
        self.len = self.len.wrapping_add(1);
    }

    /// Takes the I/O at the end.
    pub fn pop_back(&mut self) -> Option<I> {
        if self.tail.is_null() {
            return None;
        }
        let last = self.tail;
        if self.head == last {
            // INVARIANT: It was the only one.
            self.head = ptr::null_mut();
            self.tail = ptr::null_mut();
        } else {
            // SAFETY: By the type invariant all I/O on the list is owned by it, and the last one,
            // which is not the first, has the one before it in `prev`.
            //
            // INVARIANT: That one is the last then, with a null link.
            unsafe {
                self.tail = (*last).prev;
                (*self.tail).next = ptr::null_mut();
            }
        }
        self.len = self.len.wrapping_sub(1);
        // SAFETY: The list owned the I/O, which was given up when it was added, and no longer links
        // to it.
        Some(unsafe { I::from_kiocb(last) })
    }

    /// Takes all I/O off the list.
    pub fn take(&mut self) -> Self {
        core::mem::take(self)
    }
}

impl<T: Operations> TransferList<Request<T>> {
    /// When the first request was allocated; `None` if there is none, or the block layer did not
    /// record it.
    pub fn first_started(&self) -> Option<JiffiesInstant> {
        if self.head.is_null() {
            return None;
        }
        // SAFETY: By the type invariant the head belongs to a request that the list owns. It is
        // given up again below, as it is not dropped.
        let first = ManuallyDrop::new(unsafe { Request::<T>::from_kiocb(self.head) });
        first.started()
    }
}

impl<I: Submit> IoList for TransferList<I> {
    type Io = I;

    fn is_empty(&self) -> bool {
        self.head.is_null()
    }

    fn len(&self) -> u32 {
        self.len
    }

    fn pop_front(&mut self) -> Option<I> {
        if self.head.is_null() {
            return None;
        }
        let first = self.head;
        // INVARIANT: The next one, if any, is the first, of which `prev` does not matter.
        //
        // SAFETY: By the type invariant the head belongs to I/O that the list owns, and its link is
        // set.
        self.head = unsafe { (*first).next };
        if self.head.is_null() {
            self.tail = ptr::null_mut();
        }
        self.len = self.len.wrapping_sub(1);
        // SAFETY: The list owned the I/O, which was given up when it was added, and no longer links
        // to it.
        Some(unsafe { I::from_kiocb(first) })
    }
}

impl<I: Submit> Default for TransferList<I> {
    fn default() -> Self {
        Self::new()
    }
}

impl<I: Submit> Drop for TransferList<I> {
    fn drop(&mut self) {
        while let Some(io) = self.pop_front() {
            drop(io);
        }
    }
}
