// SPDX-License-Identifier: GPL-2.0

//! Whether a worker helps its submitter.
//!
//! What takes no waiting is served where it is submitted, which costs least. A task that asks for
//! much before it looks at what it got would have it sooner if another CPU did a part: the slot's
//! worker, while the task goes on. Whether it does depends on the machine, on what a request costs,
//! and on what the other CPUs have to do; so it is tried, and kept to while it is faster.
//!
//! Requests are counted in windows of [`WINDOW`], the time of which is measured. Now and then, a
//! window in which the worker helps is compared with the one before it, in which it does not, or the
//! other way round: next to each other they had the same machine. The quotients' moving average
//! decides. What is not over at the end of a window is not done in it, but in the next if the worker
//! helps in that.
//!
//! A trial that is going to be lost ends early. While trials say what is known, it takes longer and
//! longer to the next; one that says the contrary is repeated soon.
//! A task that has one request at a time is found out after a few of them: the worker has nothing
//! to do when the next one comes. Then, too, it takes longer and longer to the next trial.
//!
//! What turned out to have to wait is the worker's, and for a while what comes after it: that mostly
//! has to wait, too. But not until the worker has nothing to do any more: who always has many in
//! flight would never come back from there. What only the worker can do may take it long: while it
//! has some of that, it is given nothing to help with.

use kernel::{
    prelude::*,
    time::{Instant, Monotonic},
};
use kernel_ext::task;

/// How many requests are measured together.
const WINDOW: u32 = 128;

/// How many wait for the worker at most: the submitter serves those beyond.
const BACKLOG: u64 = 16;

/// How many requests in a row can find the worker with nothing to do.
const ALONE: u8 = 2;

/// How many requests in flight a task has at least that does not wait for each of them.
const DEEP: u32 = 3;

/// How many requests follow one that had to wait, without a try of their own, while the worker is
/// busy with that.
const BEHIND: u8 = 8;

/// How many requests of a trial there are between looks at how long it has taken.
const LOOK: u32 = 16;

/// How many windows there are to the first trial, and after one that said the contrary of what was
/// known. With less than two, a trial would be compared with another.
const FIRST: u8 = 2;
/// How many there are after any other trial, and at most, after some that said what was known.
const CHECK: u8 = 32;
const CONFIRMED: u8 = 128;
/// How many there are after tasks that had one request at a time, at most.
const SELDOM: u8 = 32;

/// How many unfinished requests a window tells apart: what the worker may have of what it helps with.
/// The rest is in flight, whoever serves it.
const UNFINISHED: u32 = 2 * BACKLOG as u32;

/// A quotient of 1.
const ONE: u32 = 256;

/// The quotient of windows with and without the worker's help below which it starts to help, and
/// above which it ends.
const BETTER: u32 = ONE - ONE / 16;
const WORSE: u32 = ONE + ONE / 16;

/// What is supposed before anything was measured.
const SUPPOSED: u32 = ONE - ONE / 8;

/// One trial is not to decide all: the machine may have had something else to do.
const LEAST: u32 = ONE / 4;
const MOST: u32 = ONE * 2;

/// Who serves a request that could be served where it is submitted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Submitter,
    /// The worker, as it would have to wait, most likely.
    Worker,
    /// The worker, to help.
    Help,
}

/// What the worker has to do.
#[derive(Clone, Copy)]
pub(crate) enum Has {
    Nothing,
    /// It helps, and this many wait for it.
    Help(u64),
    /// What only the worker can do, which may take long.
    Own,
}

/// What is known of a slot. What each request looks at comes first.
#[repr(C)]
pub(crate) struct Spread {
    /// How many requests the window still has.
    left: u32,
    /// How many requests in a row found the worker with nothing to do.
    alone: u8,
    /// How many are to follow the last one that had to wait.
    behind: u8,
    /// The worker helps.
    helps: bool,
    /// In this window it is the other way round.
    trial: bool,
    /// How many windows until the next trial.
    windows: u8,
    /// How many there are after tasks that have one request at a time.
    pause: u8,
    /// How many there are after a trial that says what is known.
    confirmed: u8,
    /// How many requests were not over when the window began.
    unfinished: u8,
    /// The quotient, in parts of [`ONE`]; less is better.
    quotient: u32,
    /// When it began.
    since: Instant<Monotonic>,
    /// How long the one before took, in nanoseconds, for [`WINDOW`] requests.
    before: u64,
}

const _: () = assert!(core::mem::size_of::<Spread>() <= 32);

impl Spread {
    pub(crate) fn new() -> Self {
        Self {
            helps: false,
            trial: false,
            left: WINDOW,
            windows: FIRST,
            pause: FIRST,
            confirmed: CHECK,
            unfinished: 0,
            since: Instant::now(),
            before: 0,
            quotient: SUPPOSED,
            alone: 0,
            behind: 0,
        }
    }

    /// Decides about the next request, as the worker `has` something to do or not, and so many are
    /// `unfinished`, as far as that is known.
    pub(crate) fn next(&mut self, has: Has, unfinished: u32) -> By {
        self.left = self.left.saturating_sub(1);
        if self.left == 0 || self.trial && self.left % LOOK == 0 {
            self.look(unfinished, Instant::now());
        }
        match has {
            // What had to wait is seldom the only one.
            Has::Own if self.behind > 0 => {
                self.behind -= 1;
                By::Worker
            }
            Has::Own => By::Submitter,
            _ if !self.is_on() => By::Submitter,
            Has::Help(waiting) => {
                self.alone = 0;
                match waiting < BACKLOG {
                    true => By::Help,
                    false => By::Submitter,
                }
            }
            // With more in flight the next request comes soon, whether the worker waits for it or not.
            Has::Nothing if unfinished >= DEEP => By::Help,
            Has::Nothing if self.alone < ALONE => {
                self.alone += 1;
                By::Help
            }
            Has::Nothing => {
                self.is_no_help();
                By::Submitter
            }
        }
    }

    /// Notes that a request had to wait after all.
    pub(crate) fn missed(&mut self) {
        self.behind = BEHIND;
    }

    /// Whether the worker helps in this window.
    fn is_on(&self) -> bool {
        self.helps != self.trial
    }

    /// Ends the window if it is over, or lost.
    fn look(&mut self, unfinished: u32, now: Instant<Monotonic>) {
        let took = (now - self.since).as_nanos().max(1).unsigned_abs();
        if self.left > 0 && took <= self.before {
            return;
        }
        let unfinished = unfinished.min(UNFINISHED) as u8;
        // What the worker still had was no work of this window's if it was not to help in it.
        let begun = match self.is_on() {
            true => self.unfinished,
            false => self.unfinished.min(unfinished),
        };
        let done = WINDOW
            .saturating_sub(self.left)
            .saturating_add(begun.into())
            .saturating_sub(unfinished.into());
        self.begin_window(now, unfinished);
        let all = took.saturating_mul(WINDOW.into());
        self.window_ends(all.checked_div(done.into()).unwrap_or(all));
    }

    fn begin_window(&mut self, now: Instant<Monotonic>, unfinished: u8) {
        self.since = now;
        self.unfinished = unfinished;
        self.left = WINDOW;
        self.alone = 0;
    }

    /// It turned out before the window's end.
    fn is_no_help(&mut self) {
        if self.helps {
            self.confirmed = CHECK;
        }
        self.helps = false;
        self.trial = false;
        self.before = 0;
        self.pause = self.pause.saturating_mul(2).min(SELDOM);
        self.windows = self.pause;
        self.begin_window(Instant::now(), 0);
    }

    /// A window took so many nanoseconds for [`WINDOW`] requests.
    fn window_ends(&mut self, took: u64) {
        if self.trial {
            let (with, without) = match self.helps {
                true => (self.before, took),
                false => (took, self.before),
            };
            self.trial = false;
            self.pause = FIRST;
            self.windows = CHECK;
            if with > 0 && without > 0 {
                let quotient = with.saturating_mul(ONE.into()) / without;
                self.learn(u32::try_from(quotient).map_or(MOST, |q| q.clamp(LEAST, MOST)));
            }
        } else {
            self.windows = self.windows.saturating_sub(1);
            let alone = task::num_online_cpus() == 1;
            self.helps &= !alone;
            self.trial = self.windows == 0 && !alone;
        }
        self.before = took;
    }

    /// A trial came to this quotient.
    fn learn(&mut self, quotient: u32) {
        let helped = self.helps;
        let sum = self.quotient * 3 + quotient;
        // Rounded so that it comes to what it is an average of.
        self.quotient = match quotient > self.quotient {
            true => sum.div_ceil(4),
            false => sum / 4,
        };
        if self.quotient < BETTER {
            self.helps = true;
        } else if self.quotient > WORSE {
            self.helps = false;
        }
        let (says_on, says_off) = (quotient < BETTER, quotient > WORSE);
        let (agrees, denies) = match self.helps {
            true => (says_on, says_off),
            false => (says_off, says_on),
        };
        (self.windows, self.confirmed) = if denies || self.helps != helped {
            (FIRST, CHECK)
        } else if agrees {
            let longer = self.confirmed.saturating_mul(2).min(CONFIRMED);
            (self.confirmed, longer)
        } else {
            (CHECK, CHECK)
        };
    }
}

#[kunit_tests(loop_rs_spread)]
mod tests {
    use super::*;
    use kernel::time::Delta;

    /// Has windows end until one is a trial; returns how many that took.
    fn to_trial(spread: &mut Spread, took: u64) -> u8 {
        for n in 1..=u8::MAX {
            spread.window_ends(took);
            if spread.trial {
                return n;
            }
        }
        0
    }

    /// Who has one request at a time waits for the worker hardly ever.
    #[test]
    fn one_at_a_time() {
        let mut spread = Spread::new();
        let mut worker = 0;
        for _ in 0..10 * u32::from(SELDOM) * WINDOW {
            if spread.next(Has::Nothing, 0) == By::Help {
                worker += 1;
            }
        }
        assert!(!spread.helps);
        // Two in each trial, of which there are a few until they are as seldom as can be.
        assert!(worker <= u32::from(ALONE) * (8 + 10));
        assert!(worker > 0 || task::num_online_cpus() == 1);
    }

    /// What the worker is busy with is passed by, but for a while after something had to wait.
    #[test]
    fn behind_what_waits() {
        let mut spread = Spread::new();
        spread.helps = true;
        assert!(spread.next(Has::Own, 0) == By::Submitter);
        for _ in 0..3 {
            spread.missed();
            for _ in 0..BEHIND {
                assert!(spread.next(Has::Own, 0) == By::Worker);
            }
            assert!(spread.next(Has::Own, 0) == By::Submitter);
        }
        // It is not given up for that.
        assert!(spread.next(Has::Nothing, DEEP) == By::Help || task::num_online_cpus() == 1);
    }

    /// The worker is not given more than enough to do.
    #[test]
    fn enough_to_do() {
        let mut spread = Spread::new();
        assert!(spread.next(Has::Help(0), 0) == By::Submitter);
        spread.helps = true;
        assert!(spread.next(Has::Help(0), 0) == By::Help);
        assert!(spread.next(Has::Help(BACKLOG - 1), 0) == By::Help);
        assert!(spread.next(Has::Help(BACKLOG), 0) == By::Submitter);
    }

    #[test]
    fn what_is_faster_is_kept() {
        if task::num_online_cpus() == 1 {
            return;
        }
        let mut spread = Spread::new();
        assert_eq!(to_trial(&mut spread, 1000), FIRST);
        spread.window_ends(600);
        assert!(spread.helps && !spread.trial);
        for pause in [FIRST, CHECK, 2 * CHECK, CONFIRMED, CONFIRMED] {
            assert_eq!(to_trial(&mut spread, 600), pause);
            assert!(!spread.is_on());
            spread.window_ends(1000);
            assert!(spread.is_on());
        }
        // One that is out of line changes nothing.
        to_trial(&mut spread, 600);
        spread.window_ends(1);
        assert!(spread.is_on());
    }

    #[test]
    fn what_is_slower_is_not() {
        if task::num_online_cpus() == 1 {
            return;
        }
        let mut spread = Spread::new();
        let mut trials = 0;
        spread.helps = true;
        while spread.helps && trials < 100 {
            to_trial(&mut spread, 1300);
            spread.window_ends(1000);
            trials += 1;
        }
        assert!(!spread.is_on());
        assert!(trials > 2 && trials < 20);
        for pause in [FIRST, CHECK, 2 * CHECK, CONFIRMED, CONFIRMED] {
            assert_eq!(to_trial(&mut spread, 1000), pause);
            assert!(spread.is_on());
            spread.window_ends(1300);
            assert!(!spread.is_on());
        }
    }

    /// What is not known any more is tried again soon, whatever was confirmed before.
    #[test]
    fn what_is_on_again() {
        if task::num_online_cpus() == 1 {
            return;
        }
        let mut spread = Spread::new();
        for _ in 0..8 {
            let took = if spread.helps { 600 } else { 1000 };
            to_trial(&mut spread, took);
            spread.window_ends(if spread.helps { 1000 } else { 600 });
        }
        assert!(spread.helps && spread.confirmed == CONFIRMED);
        spread.is_no_help();
        assert!(!spread.helps);
        // On by what was measured before, although this one says off.
        assert!(to_trial(&mut spread, 1000) <= SELDOM);
        spread.window_ends(1300);
        assert!(spread.helps);
        for _ in 0..4 {
            if spread.helps {
                assert_eq!(to_trial(&mut spread, 1300), FIRST);
                spread.window_ends(1000);
            }
        }
        assert!(!spread.helps);
    }

    /// It is tried again soon, not given up at once.
    #[test]
    fn what_has_become_slower() {
        if task::num_online_cpus() == 1 {
            return;
        }
        let mut spread = Spread::new();
        for _ in 0..8 {
            to_trial(&mut spread, 600);
            spread.window_ends(if spread.helps { 1000 } else { 600 });
        }
        assert!(spread.helps);
        assert!(to_trial(&mut spread, 1000) >= CHECK);
        spread.window_ends(800);
        assert!(spread.helps);
        for _ in 0..8 {
            if spread.helps {
                assert_eq!(to_trial(&mut spread, 1000), FIRST);
                spread.window_ends(800);
            }
        }
        assert!(!spread.helps);
    }

    /// What all trials come to is what the average comes to, from either side.
    #[test]
    fn average() {
        let mut spread = Spread::new();
        for quotient in [BETTER - 1, WORSE + 1, BETTER - 1] {
            for _ in 0..100 {
                spread.learn(quotient);
            }
            assert_eq!(spread.quotient, quotient);
            assert_eq!(spread.helps, quotient < BETTER);
        }
    }

    /// A trial is looked at before its end.
    #[test]
    fn lost_trial() {
        let mut spread = Spread::new();
        spread.trial = true;
        for _ in 0..WINDOW / 2 {
            spread.next(Has::Help(0), 0);
        }
        assert!(!spread.trial);
    }

    /// What is unfinished is not done, and a trial that takes longer than the other way is lost.
    #[test]
    fn windows() {
        let mut spread = Spread::new();
        let begun = spread.since;
        let after = |micros| begun + Delta::from_micros(micros);
        spread.left = 0;
        spread.look(16, after(112));
        assert_eq!(spread.before, 128_000);
        spread.left = 0;
        spread.look(16, after(240));
        assert_eq!(spread.before, 128_000);
        (spread.trial, spread.left) = (true, 96);
        spread.look(16, after(368));
        assert!(spread.trial && spread.left == 96);
        spread.look(16, after(369));
        assert!(!spread.trial && spread.left == WINDOW);
        assert!(spread.quotient > SUPPOSED && spread.before > 4 * 128_000);
        // What the worker goes on with does not count for those who do without it.
        (spread.helps, spread.trial, spread.left) = (true, true, 0);
        spread.look(0, after(369 + 128));
        assert_eq!(spread.before, 128_000);
    }

    #[test]
    fn times_out_of_range() {
        let mut spread = Spread::new();
        for took in [0, 1, u64::MAX, 0, u64::MAX, 1] {
            for _ in 0..2 * CHECK {
                spread.window_ends(took);
            }
        }
        assert!(spread.quotient >= LEAST && spread.quotient <= MOST);
    }
}
