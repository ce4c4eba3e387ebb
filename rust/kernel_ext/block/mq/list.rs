// SPDX-License-Identifier: GPL-2.0

//! Lists of requests.

use super::{Operations, Request};
use crate::bindings;
use core::{marker::PhantomData, ptr};

/// A first-in, first-out list of requests, linked through the requests themselves.
///
/// The counterpart of the C `struct rq_list`. Requests left on it when it is dropped end with an
/// I/O error, as dropped requests do.
///
/// # Invariants
///
/// `head` and `tail` are both null, or they are the ends of a chain of requests linked through
/// `rq_next`, the last of which has a null link, all owned by the list.
pub struct RequestList<T: Operations> {
    head: *mut bindings::request,
    tail: *mut bindings::request,
    _owns: PhantomData<Request<T>>,
}

// SAFETY: A list is nothing but the requests it owns, which are `Send`.
unsafe impl<T: Operations> Send for RequestList<T> {}
// SAFETY: There is no access to a request through a shared list.
unsafe impl<T: Operations> Sync for RequestList<T> {}

impl<T: Operations> RequestList<T> {
    /// Creates an empty list.
    pub const fn new() -> Self {
        // INVARIANT: Both ends are null.
        Self {
            head: ptr::null_mut(),
            tail: ptr::null_mut(),
            _owns: PhantomData,
        }
    }

    /// Whether there is nothing on the list.
    pub fn is_empty(&self) -> bool {
        self.head.is_null()
    }

    /// Adds a request at the end.
    pub fn push_back(&mut self, rq: Request<T>) {
        let rq = rq.into_raw();
        // SAFETY: We own the request, whose link is for its owner to use.
        unsafe { (*rq).__bindgen_anon_1.rq_next = ptr::null_mut() };
        if self.tail.is_null() {
            self.head = rq;
        } else {
            // SAFETY: By the type invariant the tail is a request that the list owns.
            unsafe { (*self.tail).__bindgen_anon_1.rq_next = rq };
        }
        // INVARIANT: The new last request has a null link, and the one before it, if any, links
        // to it.
        self.tail = rq;
    }

    /// Takes the request at the front.
    pub fn pop_front(&mut self) -> Option<Request<T>> {
        if self.head.is_null() {
            return None;
        }
        let rq = self.head;
        // SAFETY: By the type invariant the head is a request that the list owns, and its link is
        // set.
        self.head = unsafe { (*rq).__bindgen_anon_1.rq_next };
        if self.head.is_null() {
            self.tail = ptr::null_mut();
        }
        // SAFETY: The list owned the request and no longer links to it.
        Some(unsafe { Request::from_raw(rq) })
    }

    /// Takes all requests, leaving the list empty.
    pub fn take(&mut self) -> Self {
        core::mem::take(self)
    }
}

impl<T: Operations> Default for RequestList<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Operations> Drop for RequestList<T> {
    fn drop(&mut self) {
        while let Some(rq) = self.pop_front() {
            drop(rq);
        }
    }
}
