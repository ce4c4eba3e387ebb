// SPDX-License-Identifier: GPL-2.0

//! Progress messages.

use crate::Options;
use std::time::{Duration, Instant};

pub struct Progress {
    what: String,
    calls: u32,
    every: Option<Duration>,
    begun: Instant,
    printed: Instant,
}

impl Progress {
    pub fn new(options: &Options, what: &str) -> Self {
        let now = Instant::now();
        Self {
            what: format!("{what}, seed {}", options.seed),
            calls: options.calls,
            every: options.progress.map(Duration::from_secs),
            begun: now,
            printed: now,
        }
    }

    /// Prints a message if the interval has passed. Called repeatedly with the number of calls
    /// begun.
    pub fn look(&mut self, begun: u32) {
        if self
            .every
            .is_some_and(|every| self.printed.elapsed() >= every)
        {
            self.printed = Instant::now();
            eprintln!(
                "{}: {begun} of {} after {} s",
                self.what,
                self.calls,
                self.begun.elapsed().as_secs()
            );
        }
    }
}
