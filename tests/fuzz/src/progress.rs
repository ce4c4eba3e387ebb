// SPDX-License-Identifier: GPL-2.0

//! How far it is, for who waits for it.

use crate::Options;
use std::time::{Duration, Instant};

pub struct Progress {
    what: String,
    calls: u32,
    every: Option<Duration>,
    begun: Instant,
    told: Instant,
}

impl Progress {
    pub fn new(options: &Options, what: &str) -> Self {
        let now = Instant::now();
        Self {
            what: format!("{what}, seed {}", options.seed),
            calls: options.calls,
            every: options.progress.map(Duration::from_secs),
            begun: now,
            told: now,
        }
    }

    /// Tells it if it is time to. To be called again and again, with how many calls were begun.
    pub fn look(&mut self, begun: u32) {
        if self.every.is_some_and(|every| self.told.elapsed() >= every) {
            self.told = Instant::now();
            eprintln!(
                "{}: {begun} of {} after {} s",
                self.what,
                self.calls,
                self.begun.elapsed().as_secs()
            );
        }
    }
}
