// SPDX-License-Identifier: GPL-2.0

//! Completion policy: whether a worker itself completes a read that was done when the call of the
//! file returned, or leaves that to a softirq. The file completes other I/O through `ki_complete`.
//!
//! The worker that served a read completes it at the least cost. But the end_io of its bios can do
//! heavy work: dm-crypt without its workqueues decrypts the data in it, f2fs decompresses the data.
//! A worker does this work for one read after the other, while its next reads wait. A softirq
//! does it on the CPU of the submitter, or in ksoftirqd while the worker waits for the disk.
//!
//! The worker times a completion now and then. After one of more than [`HEAVY`], a softirq
//! completes the next [`HEAVY_PERIOD`] reads, otherwise the worker completes the next
//! [`LIGHT_PERIOD`]. A completion in the worker also runs pending softirqs, hence the longer
//! period.
//!
//! The worker always completes detached bios itself, since blk_mq_complete_request() takes requests
//! only.

use kernel::{
    sync::atomic::{Atomic, Relaxed},
    time::Delta,
};

/// Number of reads after a light completion, before the next one is timed.
const LIGHT_PERIOD: i32 = 16;
/// Number of reads after a heavy completion, before the next one is timed.
const HEAVY_PERIOD: i32 = 64;

/// The time above which a completion is heavy. A completion that unlocks the pages of a read takes
/// a few microseconds.
const HEAVY: Delta = Delta::from_micros(30);

/// The context in which a read completes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CompletionContext {
    Worker,
    /// The worker, which passes the time that it took to [`CompletionPolicy::note`].
    TimedWorker,
    Softirq,
}

/// The state of the policy for one worker. Its two work items change it without a lock: a change
/// that is lost times a read early or late.
pub(crate) struct CompletionPolicy {
    /// Number of reads before the next one is timed: positive if the worker completes these,
    /// negative if a softirq does.
    untimed: Atomic<i32>,
}

impl CompletionPolicy {
    pub(crate) const fn new() -> Self {
        Self {
            untimed: Atomic::new(0),
        }
    }

    /// Chooses the context in which the next read completes.
    pub(crate) fn next(&self) -> CompletionContext {
        let n = self.untimed.load(Relaxed);
        self.untimed.store(n - n.signum(), Relaxed);
        match n {
            0 => CompletionContext::TimedWorker,
            1.. => CompletionContext::Worker,
            _ => CompletionContext::Softirq,
        }
    }

    /// Notes the time that the worker took to complete a read.
    pub(crate) fn note(&self, took: Delta) {
        let untimed = match took > HEAVY {
            true => -HEAVY_PERIOD,
            false => LIGHT_PERIOD,
        };
        self.untimed.store(untimed, Relaxed);
    }
}

#[cfg(CONFIG_KUNIT = "y")]
mod tests;
