// SPDX-License-Identifier: GPL-2.0

//! Completion policy: whether a worker completes a read itself or leaves that to a softirq.
//!
//! It costs least to complete a read where it was served. But what stands on the device can do heavy
//! work on the data when a read completes: dm-crypt without its workqueues decrypts it, f2fs
//! decompresses it. A worker would do this work for one read after the other, while its next reads
//! wait. A softirq does it on the CPU of the submitter, or in ksoftirqd while the worker waits for
//! the disk.
//!
//! So a read is timed now and then. If its completion took more than [`HEAVY`], a softirq completes
//! the next [`HEAVY_PERIOD`] reads, otherwise the worker completes the next [`LIGHT_PERIOD`]. When
//! the worker completes a read, it runs the softirqs that are pending, hence the longer period.
//!
//! Bios without a request are completed by the worker: no softirq of the block layer takes them.

use kernel::{
    sync::atomic::{Atomic, Relaxed},
    time::Delta,
};

/// Number of reads after a light completion, before the next one is timed.
const LIGHT_PERIOD: i32 = 16;
/// Number of reads after a heavy completion, before the next one is timed.
const HEAVY_PERIOD: i32 = 64;

/// The time from which on a completion is heavy. To unlock the pages of a read takes a few
/// microseconds.
const HEAVY: Delta = Delta::from_micros(30);

/// What completes a read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Completer {
    Worker,
    /// The worker, which takes the time: see [`CompletionPolicy::note`].
    TimedWorker,
    Softirq,
}

/// The state of the policy for one worker, which is its only user.
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

    /// Chooses what completes the next read.
    pub(crate) fn next(&self) -> Completer {
        let n = self.untimed.load(Relaxed);
        self.untimed.store(n - n.signum(), Relaxed);
        match n {
            0 => Completer::TimedWorker,
            1.. => Completer::Worker,
            _ => Completer::Softirq,
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
