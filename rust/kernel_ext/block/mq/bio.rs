// SPDX-License-Identifier: GPL-2.0

//! Chains of bios, linked through `bi_next`, as requests have them.
//!
//! C header: [`include/linux/bio.h`](srctree/include/linux/bio.h)

use crate::{bindings, block::Status, compat::bvec_iter_offset};
use core::{mem::MaybeUninit, ptr};
use kernel::{
    alloc::flags::__GFP_NOWARN,
    prelude::*, //
};

/// The bios of a chain, from the first one on.
///
/// # Invariants
///
/// `next` is null or a valid bio, and so are the bios that follow it.
pub(super) struct BioChain {
    next: *mut bindings::bio,
}

impl BioChain {
    /// Walks the chain that starts with `head`, which is empty if that is null.
    ///
    /// # Safety
    ///
    /// The bios of the chain are valid, and linked as they are, until the iterator has returned the
    /// bio after them. A bio that was returned may be completed.
    #[inline]
    pub(super) unsafe fn new(head: *mut bindings::bio) -> Self {
        // INVARIANT: By the requirements of this function.
        Self { next: head }
    }

    /// The first bio that was not returned yet, or null.
    #[inline]
    pub(super) fn rest(&self) -> *mut bindings::bio {
        self.next
    }
}

impl Iterator for BioChain {
    type Item = *mut bindings::bio;

    #[inline]
    fn next(&mut self) -> Option<*mut bindings::bio> {
        let bio = self.next;
        if bio.is_null() {
            return None;
        }
        // INVARIANT: By the requirements of `new`.
        //
        // SAFETY: By the type invariant the bio is valid.
        self.next = unsafe { (*bio).bi_next };
        Some(bio)
    }
}

/// Calls `f` with each segment of the rest of a bio.
///
/// # Safety
///
/// `bio` points to a valid bio with data.
#[inline]
pub(super) unsafe fn for_each_bvec(
    bio: *const bindings::bio,
    mut f: impl FnMut(bindings::bio_vec),
) {
    // SAFETY: By the requirements of this function.
    let (vecs, iter) = unsafe { ((*bio).bi_io_vec, (*bio).bi_iter) };
    let (mut idx, mut done, mut left) =
        (iter.bi_idx as usize, bvec_iter_offset(&iter), iter.bi_size);
    while left > 0 {
        // SAFETY: A bio's iterator stays within its vector until it has run out of bytes.
        let vec = unsafe { *vecs.add(idx) };
        let len = vec.bv_len.saturating_sub(done).min(left);
        if len > 0 {
            f(bindings::bio_vec {
                bv_page: vec.bv_page,
                bv_len: len,
                bv_offset: vec.bv_offset.wrapping_add(done),
            });
        }
        left -= len;
        done = 0;
        idx += 1;
    }
}

/// Counts the segments of the rest of a bio.
///
/// # Safety
///
/// `bio` points to a valid bio with data.
#[inline]
unsafe fn nr_bvecs(bio: *const bindings::bio) -> usize {
    let mut n = 0;
    // SAFETY: By the requirements of this function.
    unsafe { for_each_bvec(bio, |_| n += 1) };
    n
}

/// Makes an iterator over the rest of a bio. `direction` is `ITER_SOURCE` or `ITER_DEST`.
///
/// # Safety
///
/// `bio` points to a valid bio with data, which stays valid as long as the iterator is used.
#[inline]
pub(super) unsafe fn bio_iter(bio: *const bindings::bio, direction: u32) -> bindings::iov_iter {
    let mut iter = MaybeUninit::uninit();
    // SAFETY: The bio's vector has that many entries from `bi_idx` on. The first is used from
    // its offset on: the bio may have been split from another.
    unsafe {
        let at = (*bio).bi_iter;
        bindings::iov_iter_bvec(
            iter.as_mut_ptr(),
            direction,
            (*bio).bi_io_vec.add(at.bi_idx as usize),
            nr_bvecs(bio),
            at.bi_size as usize,
        );
        (*iter.as_mut_ptr()).iov_offset = bvec_iter_offset(&at) as usize;
        iter.assume_init()
    }
}

/// Makes an iterator over the `len` bytes of the bios of a chain, by copying their segments to
/// `bvecs`.
///
/// # Errors
///
/// `ENOMEM`. Allocates with `GFP_NOWAIT`: reclaim may depend on the I/O, and the caller can do
/// without.
///
/// # Safety
///
/// `head` is the first bio of a valid chain with data. The bios and `bvecs` must stay as they are
/// as long as the iterator is used.
#[inline]
pub(super) unsafe fn chain_iter(
    head: *mut bindings::bio,
    len: usize,
    direction: u32,
    bvecs: &mut KVec<bindings::bio_vec>,
) -> Result<bindings::iov_iter> {
    bvecs.clear();
    let mut segments = 0;
    // SAFETY: By the requirements of this function.
    for bio in unsafe { BioChain::new(head) } {
        // SAFETY: As above.
        segments += unsafe { nr_bvecs(bio) };
    }
    bvecs.reserve(segments, GFP_NOWAIT | __GFP_NOWARN)?;
    // SAFETY: As above.
    for bio in unsafe { BioChain::new(head) } {
        // There is room for all.
        //
        // SAFETY: As above.
        unsafe { for_each_bvec(bio, |vec| drop(bvecs.push_within_capacity(vec))) };
    }
    let mut iter = MaybeUninit::uninit();
    // SAFETY: By the requirements of this function the array stays as it is.
    unsafe {
        bindings::iov_iter_bvec(
            iter.as_mut_ptr(),
            direction,
            bvecs.as_ptr(),
            bvecs.len(),
            len,
        );
        Ok(iter.assume_init())
    }
}

/// Completes a bio. Any context.
///
/// Wraps the C function `bio_endio`.
///
/// # Safety
///
/// `bio` is valid, the caller's, and not used any more.
#[inline]
pub(super) unsafe fn end_bio(bio: *mut bindings::bio, status: Status) {
    // SAFETY: By the requirements of this function. Whoever submitted the bio did not link it.
    unsafe {
        (*bio).bi_next = ptr::null_mut();
        if status != Status::OK {
            (*bio).bi_status = status.into_raw();
        }
        bindings::bio_endio(bio);
    }
}
