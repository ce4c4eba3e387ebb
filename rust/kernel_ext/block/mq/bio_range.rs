// SPDX-License-Identifier: GPL-2.0

//! Bios that cover a contiguous range, and how they complete without a request.

use super::bio::{end_bio, for_each_bvec, BioChain};
use crate::{
    bindings,
    block::{Status, SECTOR_SHIFT, SECTOR_SIZE},
    task,
};
use core::ptr;
use kernel::{prelude::*, time::Jiffies};

/// The I/O statistics' record of a request, used when its bios complete.
pub(super) struct Account {
    pub(super) part: *mut bindings::block_device,
    pub(super) sectors: u32,
    /// When the request started.
    pub(super) start: Jiffies,
}

/// A chain of bios that were one request's: a contiguous range, one operation. Dropped, they
/// complete with [`Status::IOERR`].
///
/// # Invariants
///
/// `head` and `tail` are the ends of a chain of valid bios that nobody else accesses, which cover
/// the `len` bytes from `sector` on, or both are null and `len` is 0. `account` is of the block
/// device of the first bio.
pub(super) struct BioRange {
    pub(super) head: *mut bindings::bio,
    pub(super) tail: *mut bindings::bio,
    pub(super) sector: u64,
    pub(super) len: u32,
    pub(super) flags: bindings::blk_opf_t,
    pub(super) account: Option<Account>,
}

impl BioRange {
    /// The bios.
    pub(super) fn bios(&self) -> BioChain {
        // SAFETY: By the type invariant; whoever borrows the range does not change it.
        unsafe { BioChain::new(self.head) }
    }

    /// Counts the I/O as completed. Its first bio, which pins the block device, completes after
    /// that.
    fn account(&mut self) {
        if let Some(account) = self.account.take() {
            // SAFETY: By the type invariant the block device is that of the first bio.
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

    /// Completes the first `bytes` successfully, rounded down to whole sectors. Any context.
    pub(super) fn advance(&mut self, bytes: usize) {
        let mut bytes = (bytes as u64).min(u64::from(self.len)) as u32 & !(SECTOR_SIZE - 1);
        self.len -= bytes;
        self.sector += u64::from(bytes >> SECTOR_SHIFT);
        task::in_completion_context(|| {
            let mut chain = self.bios();
            while bytes > 0 {
                let Some(bio) = chain.next() else {
                    break;
                };
                // SAFETY: By the type invariant the bios are valid until they complete.
                unsafe {
                    let size = (*bio).bi_iter.bi_size;
                    if bytes < size {
                        bindings::bio_advance(bio, bytes);
                        break;
                    }
                    bytes -= size;
                    let next = chain.rest();
                    // INVARIANT: The next bio has the same block device, if the I/O is not counted
                    // as completed now.
                    if next.is_null() || (*next).bi_bdev != (*bio).bi_bdev {
                        self.account();
                    }
                    self.head = next;
                    end_bio(bio, Status::OK);
                }
            }
        });
        if self.head.is_null() {
            self.tail = ptr::null_mut();
        }
    }

    /// Completes all bios that are left. Any context.
    pub(super) fn end(&mut self, status: Status) {
        if self.head.is_null() {
            return;
        }
        if status != Status::OK {
            self.report(status);
        }
        self.account();
        let chain = self.bios();
        // INVARIANT: The bios are the chain's from here on.
        self.len = 0;
        self.tail = ptr::null_mut();
        self.head = ptr::null_mut();
        task::in_completion_context(|| {
            for bio in chain {
                // SAFETY: By the type invariant the bios were valid and ours.
                unsafe { end_bio(bio, status) };
            }
        });
    }

    /// Logs a failure as `blk_print_req_error()` does.
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

    /// Whether the bios are multiples of `block_size`, and within a disk of `sectors` sectors.
    ///
    /// Corresponds to the C functions `bio_unaligned` and `bio_check_eod`.
    pub(super) fn fits(&self, block_size: u32, sectors: u64) -> bool {
        let len = u64::from(self.len >> SECTOR_SHIFT);
        if self.sector > sectors || len > sectors - self.sector {
            return false;
        }
        let mut bits = 0;
        for bio in self.bios() {
            // SAFETY: By the type invariant the bios are valid.
            let iter = unsafe { (*bio).bi_iter };
            bits |= iter.bi_size | (iter.bi_sector << SECTOR_SHIFT) as u32;
        }
        bits & (block_size - 1) == 0
    }

    /// The bits that are set in the offsets or lengths of the segments.
    ///
    /// # Safety
    ///
    /// The bios have data.
    pub(super) unsafe fn memory_bits(&self) -> u32 {
        let mut bits = 0;
        for bio in self.bios() {
            // SAFETY: By the type invariant the bios are valid, and by the requirements of this
            // function they have data.
            unsafe { for_each_bvec(bio, |vec| bits |= vec.bv_offset | vec.bv_len) };
        }
        bits
    }
}

impl Drop for BioRange {
    fn drop(&mut self) {
        self.end(Status::IOERR);
    }
}
