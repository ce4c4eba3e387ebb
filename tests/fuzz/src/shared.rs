// SPDX-License-Identifier: GPL-2.0

//! Counters shared by all processes.

use crate::ops::KINDS;
use nix::errno::Errno;
use std::{
    io,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

/// One more than the largest errno that user space sees.
const ERRNOS: usize = 134;

/// Faults of the driver that a run can find.
#[derive(Clone, Copy)]
pub enum Fault {
    /// The call failed with an unexpected error.
    Error,
    /// A structure was not copied out completely, or has wrong contents.
    Copied,
    /// Data was read that was never written.
    Data,
}

pub const FAULTS: usize = 3;

/// Maximum number of faults that are printed.
const MAX_REPORTED: u32 = 20;

#[derive(Clone, Copy)]
pub struct Shared {
    counters: &'static [AtomicU32],
    lanes: usize,
}

impl Shared {
    pub fn new(lanes: usize) -> io::Result<Self> {
        let len = KINDS.len() * ERRNOS + FAULTS + 1 + lanes;
        // SAFETY: A new mapping, wherever there is room.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len * size_of::<AtomicU32>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: The mapping is zeroed, large enough, never unmapped, and only accessed
        // atomically.
        let counters = unsafe { std::slice::from_raw_parts(base.cast(), len) };
        Ok(Self { counters, lanes })
    }

    /// Counts a call of a kind.
    pub fn count(&self, kind: usize, error: Option<Errno>) {
        let errno = error.map_or(0, |errno| errno as usize).min(ERRNOS - 1);
        self.counters[kind * ERRNOS + errno].fetch_add(1, Relaxed);
    }

    /// Number of successful calls of a kind, and of failed ones by error.
    pub fn counted(&self, kind: usize) -> (u32, Vec<(Errno, u32)>) {
        let of = |errno: usize| self.counters[kind * ERRNOS + errno].load(Relaxed);
        let errors = (1..ERRNOS)
            .filter(|errno| of(*errno) > 0)
            .map(|errno| (Errno::from_raw(errno as i32), of(errno)))
            .collect();
        (of(0), errors)
    }

    fn fault(&self, fault: usize) -> &AtomicU32 {
        &self.counters[KINDS.len() * ERRNOS + fault]
    }

    pub fn faults(&self, fault: Fault) -> u32 {
        self.fault(fault as usize).load(Relaxed)
    }

    /// Counts a fault; prints the first ones.
    pub fn report(&self, fault: Fault, what: impl FnOnce() -> String) {
        self.fault(fault as usize).fetch_add(1, Relaxed);
        if self.fault(FAULTS).fetch_add(1, Relaxed) < MAX_REPORTED {
            println!("# {}", what());
        }
    }

    /// Number of calls that a lane has begun.
    pub fn begun(&self, lane: usize) -> &AtomicU32 {
        assert!(lane < self.lanes);
        &self.counters[KINDS.len() * ERRNOS + FAULTS + 1 + lane]
    }
}
