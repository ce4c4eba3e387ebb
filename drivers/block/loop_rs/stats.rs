// SPDX-License-Identifier: GPL-2.0

//! I/O statistics of a cgroup queue, or of all cgroup queues of a device.
//!
//! A line of statistics has names and numbers, as a cgroup's `io.stat` has:
//!
//! - `tags`: requests in flight that hold a tag;
//! - `parking`: detached requests in flight;
//! - `done`: completed requests;
//! - `here`: requests issued inline;
//! - `parked`: requests that were detached;
//! - `rbytes`, `wbytes`, `dbytes`, `rios`, `wios`, `dios`, `flushes`: bytes and requests submitted,
//!   by operation. Write-zeroes count as discards. The rest after a short transfer counts again.
//!
//! `/sys/block/loopN/loop/stat` has the sums over all cgroups since the device was created,
//! including removed cgroup queues. [`debugfs`](crate::debugfs) has a line for each cgroup queue.

use kernel::{fmt, prelude::*};
use kernel_ext::block::mq::{Op, Transfer};

/// Number of requests of one kind, and of their bytes.
#[derive(Clone, Copy, Default)]
struct Volume {
    ios: u64,
    bytes: u64,
}

/// Counters of submitted requests. Protected by the lock of the queue set.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Counts {
    read: Volume,
    write: Volume,
    discard: Volume,
    flushes: u64,
    /// Requests queued for the worker. All others were issued inline.
    pub(crate) worker: u64,
    /// Requests whose bios were detached.
    pub(crate) detached: u64,
}

impl Counts {
    /// Counts a submitted request.
    #[inline(always)]
    pub(crate) fn count<I: Transfer>(&mut self, io: &I) {
        let volume = match io.op() {
            Op::Read => &mut self.read,
            Op::Write => &mut self.write,
            Op::Discard | Op::WriteZeroes { .. } => &mut self.discard,
            Op::Flush | Op::Other => {
                self.flushes = self.flushes.wrapping_add(1);
                return;
            }
        };
        volume.ios = volume.ios.wrapping_add(1);
        volume.bytes = volume.bytes.wrapping_add(io.len() as u64);
    }

    /// Number of requests that were or are issued inline.
    fn inline(&self) -> u64 {
        self.submitted().saturating_sub(self.worker)
    }

    /// Number of submitted requests other than flushes.
    pub(crate) fn transfers(&self) -> u64 {
        [self.read.ios, self.write.ios, self.discard.ios]
            .into_iter()
            .fold(0, u64::wrapping_add)
    }

    fn submitted(&self) -> u64 {
        self.transfers().wrapping_add(self.flushes)
    }
}

/// A snapshot of the statistics, shown as a line of names and numbers.
pub(crate) struct Report {
    /// Number of tags held.
    pub(crate) tags: u32,
    /// Number of detached requests in flight.
    pub(crate) detached: u32,
    pub(crate) counts: Counts,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report {
            tags,
            detached,
            counts,
        } = self;
        let in_flight = u64::from(*tags).saturating_add(u64::from(*detached));
        f.write_fmt(fmt!(
            "tags={tags} parking={detached} done={} here={} parked={} rbytes={} wbytes={} dbytes={} \
             rios={} wios={} dios={} flushes={}",
            counts.submitted().saturating_sub(in_flight),
            counts.inline(),
            counts.detached,
            counts.read.bytes,
            counts.write.bytes,
            counts.discard.bytes,
            counts.read.ios,
            counts.write.ios,
            counts.discard.ios,
            counts.flushes
        ))
    }
}
