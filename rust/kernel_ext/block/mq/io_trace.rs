// SPDX-License-Identifier: GPL-2.0

//! Descriptions of I/O for tracepoints.
//!
//! # Soundness
//!
//! [`Traced`] borrows the I/O, so that its bios, its disk and its css are alive.

use super::{bio::BioChain, detached_io::BoxedIo, Detached, DetachedIo, Operations, Request};
use crate::{
    bindings,
    cgroup::{Css, Io},
    time::JiffiesInstant,
    tracepoint::{self, IoTrace, IoTracepoint, Traced},
};

/// A range of a disk, and the operation.
struct Range {
    sector: u64,
    bytes: u32,
    flags: bindings::blk_opf_t,
}

/// Describes I/O of the whole disk `disk`, charged as `bio` is if that is not null.
///
/// # Safety
///
/// Both are valid pointers, or `bio` is null.
unsafe fn describe(
    disk: *mut bindings::gendisk,
    bio: *mut bindings::bio,
    range: Range,
    age_ns: u64,
) -> IoTrace {
    let css = match bio.is_null() {
        true => None,
        // SAFETY: By the requirements of this function. The bio holds a reference to its blkg,
        // which holds one to the css.
        false => unsafe { Css::<Io>::from_raw(bindings::bio_blkcg_css(bio)) },
    };
    // SAFETY: By the requirements of this function. A disk has its whole-disk device, and neither
    // the number nor the name changes once it has requests.
    let (dev, name) = unsafe { ((*(*disk).part0).bd_dev, (*disk).disk_name) };
    IoTrace(bindings::rust_io_trace {
        dev,
        disk: name,
        cgroup: css.map_or(0, Css::cgroup_id),
        // As the block layer's tracepoints have it.
        sector: match range.sector {
            u64::MAX => 0,
            sector => sector,
        },
        bytes: range.bytes,
        op: range.flags & bindings::REQ_OP_MASK,
        age_ns,
        detail: 0,
    })
}

/// Describes a request.
///
/// # Safety
///
/// `rq` is a started request that nobody else accesses.
unsafe fn describe_request(rq: *mut bindings::request) -> IoTrace {
    // SAFETY: By the requirements of this function the request is valid, and so are its disk and
    // its first bio, if it has one.
    unsafe {
        let start = (*rq).start_time_ns;
        let age_ns = match start {
            0 => 0,
            _ => (bindings::ktime_get() as u64).saturating_sub(start),
        };
        let range = Range {
            sector: (*rq).__sector,
            bytes: (*rq).__data_len,
            flags: (*rq).cmd_flags,
        };
        describe((*(*rq).q).disk, (*rq).bio, range, age_ns)
    }
}

impl<T: Operations> Traced for Request<T> {
    fn describe(&self) -> IoTrace {
        // SAFETY: By the type invariant.
        unsafe { describe_request(self.as_raw()) }
    }

    #[inline(always)]
    fn call<P: IoTracepoint>(&self, detail: i32) {
        /// Calls the tracepoint; the caller keeps the request in a register.
        ///
        /// # Safety
        ///
        /// As for [`describe_request`].
        #[cold]
        #[inline(never)]
        unsafe fn cold<P: IoTracepoint>(rq: *mut bindings::request, detail: i32) {
            // SAFETY: By the requirements of this function.
            tracepoint::call::<P>(unsafe { describe_request(rq) }, detail)
        }
        // SAFETY: By the type invariant.
        unsafe { cold::<P>(self.as_raw(), detail) }
    }
}

impl<T: Operations> Traced for Detached<T> {
    fn describe(&self) -> IoTrace {
        let bio = self.first();
        // SAFETY: By the type invariant of `Detached` the bios are valid. Their submitter has the
        // disk open until they complete.
        unsafe {
            let mut bytes = 0;
            for bio in BioChain::new(bio) {
                bytes = u32::wrapping_add(bytes, (*bio).bi_iter.bi_size);
            }
            let range = Range {
                sector: (*bio).bi_iter.bi_sector,
                bytes,
                flags: (*bio).bi_opf,
            };
            describe(
                (*(*bio).bi_bdev).bd_disk,
                bio,
                range,
                self.started().map_or(0, JiffiesInstant::elapsed_ns),
            )
        }
    }
}

impl<T: Operations> Traced for DetachedIo<T> {
    fn describe(&self) -> IoTrace {
        let io = self.range();
        let range = Range {
            sector: io.sector,
            bytes: io.len,
            flags: io.flags,
        };
        let age_ns = io.account.as_ref().map_or(0, |account| {
            JiffiesInstant::from_raw(account.start).elapsed_ns()
        });
        // SAFETY: The I/O's usage reference keeps the queue and its disk alive, and by the type
        // invariant of `BioRange` the first bio is valid or null.
        unsafe { describe((*self.queue_raw()).disk, io.head, range, age_ns) }
    }
}

impl<T: Operations> Traced for BoxedIo<T> {
    fn describe(&self) -> IoTrace {
        self.inner().describe()
    }
}
