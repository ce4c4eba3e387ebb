// SPDX-License-Identifier: GPL-2.0

//! Offload policy: adaptive choice between inline issue and offload to the worker.
//!
//! Inline issue costs least. But a task that submits many requests before it waits for any of them
//! is served sooner if another CPU takes a part of the work: the cgroup's worker issues some of the
//! requests while the task submits the next ones. Whether offloading pays depends on the machine,
//! on the cost of a request and on the load of the other CPUs. So it is tried, and kept while it is
//! faster.
//!
//! # Trials
//!
//! Requests are counted in windows of [`WINDOW`], and each window is timed. A trial is a window
//! with offloading switched the other way than in the window before it; two adjacent windows see
//! the same machine load. A trial yields the ratio of the two times, with offloading to without. A
//! moving average of the ratios decides. A request in flight at the end of a window counts for the
//! next window if that window offloads, and for neither otherwise.
//!
//! A trial that is already slower than the window before it ends early. The interval between trials
//! doubles while their results agree with the current choice. A trial that contradicts it is
//! repeated soon. A task with one request in flight is recognised after [`IDLE_OFFLOADS_MAX`]
//! requests, because the worker is idle whenever the next request comes; offloading ends, and the
//! interval to the next trial doubles as well.
//!
//! # EAGAIN
//!
//! After -EAGAIN, the next requests also go to the worker, since they would mostly block, too. Then
//! the submitter issues one: [`EAGAIN_BACKOFF`]. If that does not block, the policy goes on as
//! before, even if the worker is still busy: a task that always has many requests in flight would
//! otherwise never return to inline issue.

use kernel::time::{Instant, Monotonic};
use kernel_ext::task;

/// Number of requests in a window.
const WINDOW: u32 = 128;

/// Number of offloaded requests queued for the worker at most. Requests beyond are issued inline.
const BACKLOG_MAX: u32 = 16;
/// Limit of that number with [`IN_FLIGHT_BUSY`] requests in flight. A worker with fewer would
/// become idle while the submitter issues a request.
const BACKLOG_BUSY_MAX: u32 = 64;

/// Number of requests in a row that may find the worker idle before offloading ends. A worker that
/// is as fast as the submitter is idle for some requests in a row, too.
const IDLE_OFFLOADS_MAX: u8 = 8;

/// Number of requests in flight from which on the submitter is known not to wait for each of them.
const IN_FLIGHT_DEEP: u32 = 3;

/// Number of requests that are not offloaded after one that returned -EAGAIN, while the worker has
/// requests that may block. The submitter issues the last one, and the worker the others.
const EAGAIN_BACKOFF: u8 = 9;

/// Number of requests between two checks of the time that a trial has taken.
const TRIAL_CHECK: u32 = 16;

/// Number of windows to the first trial, and after a trial that contradicted the current choice. At
/// least 2, so that a trial is not compared with another one.
const TRIAL_INTERVAL_MIN: u8 = 2;
/// Number of windows to the next trial after any other one, and the limit of that number after
/// trials that confirmed the current choice.
const TRIAL_INTERVAL_DEFAULT: u8 = 32;
const TRIAL_INTERVAL_MAX: u8 = 128;
/// Number of windows to the next trial, at most, when tasks have one request in flight.
const SHALLOW_INTERVAL_MAX: u8 = 128;

/// Number of unfinished requests that a window distinguishes: the offloaded requests that the
/// worker may have. Any others are in flight in the backing file, whoever issued them.
const UNFINISHED_MAX: u32 = 2 * BACKLOG_BUSY_MAX;

/// The fixed-point representation of a ratio of 1.
const RATIO_ONE: u32 = 256;

/// Offloading starts when the average ratio is below the first, and ends when it is above the
/// second.
const RATIO_START: u32 = RATIO_ONE - RATIO_ONE / 16;
const RATIO_STOP: u32 = RATIO_ONE + RATIO_ONE / 16;

/// Number of requests in flight in the backing file from which on one CPU is the likely limit.
/// Offloading then starts and ends at ratios that are this much higher: it takes little CPU time,
/// and trials on a busy machine are wrong at times.
const IN_FLIGHT_BUSY: u32 = 48;
const RATIO_BONUS: u32 = RATIO_ONE / 8;

/// The average before the first trial.
const RATIO_INITIAL: u32 = RATIO_ONE - RATIO_ONE / 8;

/// Limits of the ratio of one trial, which other load of the machine may have distorted.
const RATIO_MIN: u32 = RATIO_ONE / 4;
const RATIO_MAX: u32 = RATIO_ONE * 2;

/// Where a request that could be issued inline is issued.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// Inline, by the submitter.
    Submitter,
    /// By the worker, because the request would probably block.
    Worker,
    /// By the worker, in parallel with the submitter.
    Offload,
}

/// The worker's load.
#[derive(Clone, Copy)]
pub(crate) struct WorkerLoad {
    /// The worker has requests that may block.
    pub(crate) may_block: bool,
    /// Number of offloaded requests that the worker has not taken; `None` if the worker is idle.
    pub(crate) offloaded: Option<u32>,
}

/// The offload policy's state for one cgroup queue. Fields used by each request come first.
///
/// # Invariants
///
/// `ratio` is between [`RATIO_MIN`] and [`RATIO_MAX`].
#[repr(C)]
pub(crate) struct OffloadPolicy {
    /// Number of requests left in the window.
    left: u32,
    /// Number of requests in a row that found the worker idle.
    idle_offloads: u8,
    /// Number of requests that still go to the worker after the last -EAGAIN.
    eagain_backoff: u8,
    /// The current choice: offload.
    enabled: bool,
    /// The window is a trial of the opposite choice.
    trial: bool,
    /// Number of windows to the next trial.
    windows: u8,
    /// Number of windows to the next trial after offloading to an idle worker.
    shallow_interval: u8,
    /// Number of windows to the next trial after one that confirms the current choice.
    confirmed_interval: u8,
    /// Number of unfinished requests at the start of the window.
    unfinished: u8,
    /// The last window that did not offload left [`IN_FLIGHT_BUSY`] requests in flight.
    is_busy: bool,
    /// The average ratio, in units of `1 / RATIO_ONE`. Offloading is faster if it is below 1.
    ratio: u16,
    /// Start of the window.
    start: Instant<Monotonic>,
    /// Time of the last window in nanoseconds, scaled to [`WINDOW`] requests. 0 if unknown.
    last_time: u64,
}

const _: () = assert!(core::mem::size_of::<OffloadPolicy>() <= 32);

impl OffloadPolicy {
    pub(crate) fn new() -> Self {
        Self {
            enabled: false,
            trial: false,
            left: WINDOW,
            windows: TRIAL_INTERVAL_MIN,
            shallow_interval: TRIAL_INTERVAL_MIN,
            confirmed_interval: TRIAL_INTERVAL_DEFAULT,
            unfinished: 0,
            start: Instant::now(),
            last_time: 0,
            ratio: RATIO_INITIAL as u16,
            is_busy: false,
            idle_offloads: 0,
            eagain_backoff: 0,
        }
    }

    /// Returns the target of the next request. `unfinished` is the number of requests of the cgroup
    /// that hold a tag, but for those that the worker has not begun although they may block.
    #[inline(always)]
    pub(crate) fn next(&mut self, worker: WorkerLoad, unfinished: u32) -> Target {
        self.left = self.left.saturating_sub(1);
        if self.left == 0 || self.trial && self.left % TRIAL_CHECK == 0 {
            self.check_window(unfinished, Instant::now());
        }
        if worker.may_block && self.eagain_backoff > 0 {
            self.eagain_backoff -= 1;
            return match self.eagain_backoff {
                0 => Target::Submitter,
                _ => Target::Worker,
            };
        }
        match worker.offloaded {
            _ if !self.is_offloading() => Target::Submitter,
            Some(queued) => {
                self.idle_offloads = 0;
                let max = match self.is_busy {
                    true => BACKLOG_BUSY_MAX,
                    false => BACKLOG_MAX,
                };
                match queued < max {
                    true => Target::Offload,
                    false => Target::Submitter,
                }
            }
            // With more requests in flight the next one comes soon, even if the worker is idle now.
            None if unfinished >= IN_FLIGHT_DEEP => Target::Offload,
            None if self.idle_offloads < IDLE_OFFLOADS_MAX => {
                self.idle_offloads += 1;
                Target::Offload
            }
            None => {
                self.stop_offloading();
                Target::Submitter
            }
        }
    }

    /// Notes that issue without waiting returned -EAGAIN.
    pub(crate) fn note_eagain(&mut self) {
        self.eagain_backoff = EAGAIN_BACKOFF;
    }

    /// Whether this window offloads.
    fn is_offloading(&self) -> bool {
        self.enabled != self.trial
    }

    /// Ends the window if it is complete, or if it is a trial that is slower than the window
    /// before.
    fn check_window(&mut self, unfinished: u32, now: Instant<Monotonic>) {
        let time = (now - self.start).as_nanos().max(1).unsigned_abs();
        if self.left > 0 && time <= self.last_time {
            return;
        }
        let is_busy = unfinished >= IN_FLIGHT_BUSY;
        let unfinished = unfinished.min(UNFINISHED_MAX) as u8;
        if !self.is_offloading() {
            self.is_busy = is_busy;
        }
        // Requests that the worker still had are no work of a window that does not offload.
        let unfinished_before = match self.is_offloading() {
            true => self.unfinished,
            false => self.unfinished.min(unfinished),
        };
        let done = WINDOW
            .saturating_sub(self.left)
            .saturating_add(unfinished_before.into())
            .saturating_sub(unfinished.into());
        self.start_window(now, unfinished);
        let scaled = time.saturating_mul(WINDOW.into());
        self.window_ended(scaled.checked_div(done.into()).unwrap_or(scaled));
    }

    fn start_window(&mut self, now: Instant<Monotonic>, unfinished: u8) {
        self.start = now;
        self.unfinished = unfinished;
        self.left = WINDOW;
        self.idle_offloads = 0;
    }

    /// Stops offloading before the end of the window, because the submitter waits for each request.
    fn stop_offloading(&mut self) {
        if self.enabled {
            self.confirmed_interval = TRIAL_INTERVAL_DEFAULT;
        }
        self.enabled = false;
        self.trial = false;
        self.last_time = 0;
        self.shallow_interval = self
            .shallow_interval
            .saturating_mul(2)
            .min(SHALLOW_INTERVAL_MAX);
        self.windows = self.shallow_interval;
        self.start_window(Instant::now(), 0);
    }

    /// Evaluates a window that took `time` nanoseconds for [`WINDOW`] requests.
    fn window_ended(&mut self, time: u64) {
        if self.trial {
            let (with, without) = match self.enabled {
                true => (self.last_time, time),
                false => (time, self.last_time),
            };
            self.trial = false;
            self.shallow_interval = TRIAL_INTERVAL_MIN;
            self.windows = TRIAL_INTERVAL_DEFAULT;
            if with > 0 && without > 0 {
                let ratio = with.saturating_mul(RATIO_ONE.into()) / without;
                self.trial_ended(
                    u32::try_from(ratio).map_or(RATIO_MAX, |r| r.clamp(RATIO_MIN, RATIO_MAX)),
                );
            }
        } else {
            self.windows = self.windows.saturating_sub(1);
            let single_cpu = task::num_online_cpus() == 1;
            self.enabled &= !single_cpu;
            self.trial = self.windows == 0 && !single_cpu;
        }
        self.last_time = time;
    }

    /// Adds the ratio of a trial to the average, and updates the choice and the trial interval.
    fn trial_ended(&mut self, ratio: u32) {
        let was_enabled = self.enabled;
        let average = u32::from(self.ratio);
        let sum = average * 3 + ratio;
        // Rounded towards `ratio`, so that the average reaches it.
        let average = match ratio > average {
            true => sum.div_ceil(4),
            false => sum / 4,
        };
        // INVARIANT: The average of two ratios within the limits is within them.
        self.ratio = average as u16;
        let bonus = match self.is_busy {
            true => RATIO_BONUS,
            false => 0,
        };
        let (start, stop) = (RATIO_START + bonus, RATIO_STOP + bonus);
        if average < start {
            self.enabled = true;
        } else if average > stop {
            self.enabled = false;
        }
        let (faster, slower) = (ratio < start, ratio > stop);
        let (confirmed, contradicted) = match self.enabled {
            true => (faster, slower),
            false => (slower, faster),
        };
        (self.windows, self.confirmed_interval) = if contradicted || self.enabled != was_enabled {
            (TRIAL_INTERVAL_MIN, TRIAL_INTERVAL_DEFAULT)
        } else if confirmed {
            let longer = self
                .confirmed_interval
                .saturating_mul(2)
                .min(TRIAL_INTERVAL_MAX);
            (self.confirmed_interval, longer)
        } else {
            (TRIAL_INTERVAL_DEFAULT, TRIAL_INTERVAL_DEFAULT)
        };
    }
}

#[cfg(CONFIG_KUNIT = "y")]
mod tests;
