// SPDX-License-Identifier: GPL-2.0

//! Unit tests of the offload policy.

use kernel::prelude::*;

#[kunit_tests(loop_rs_offload)]
mod suite {
    use super::super::*;
    use kernel::time::Delta;

    fn load(offloaded: Option<u32>) -> WorkerLoad {
        WorkerLoad {
            may_block: false,
            offloaded,
        }
    }

    fn blocking(offloaded: Option<u32>) -> WorkerLoad {
        WorkerLoad {
            may_block: true,
            ..load(offloaded)
        }
    }

    /// Ends windows until the next one is a trial; returns the number of windows that ended.
    fn to_trial(policy: &mut OffloadPolicy, took: u64) -> u8 {
        for n in 1..=u8::MAX {
            policy.window_ended(took);
            if policy.trial {
                return n;
            }
        }
        0
    }

    /// A submitter with one request in flight is hardly ever made to wait for the worker.
    #[test]
    fn one_in_flight() {
        let mut policy = OffloadPolicy::new();
        let mut worker = 0;
        for _ in 0..10 * u32::from(SHALLOW_INTERVAL_MAX) * WINDOW {
            if policy.next(load(None), 0) == Target::Offload {
                worker += 1;
            }
        }
        assert!(!policy.enabled);
        // Some in each trial, with a few trials until the interval has reached its maximum.
        assert!(worker <= u32::from(IDLE_OFFLOADS_MAX) * (8 + 10));
        assert!(worker > 0 || task::num_online_cpus() == 1);
    }

    /// After -EAGAIN, requests go to a worker that may block, and one is issued inline.
    #[test]
    fn eagain_backoff() {
        let mut policy = OffloadPolicy::new();
        policy.enabled = true;
        for _ in 0..3 {
            policy.note_eagain();
            for _ in 1..EAGAIN_BACKOFF {
                assert!(policy.next(blocking(Some(0)), 0) == Target::Worker);
            }
            assert!(policy.next(blocking(Some(0)), 0) == Target::Submitter);
            assert!(policy.next(blocking(Some(0)), 0) == Target::Offload);
        }
        policy.note_eagain();
        assert!(policy.next(load(Some(0)), 0) == Target::Offload);
    }

    /// The backlog of offloaded requests is limited.
    #[test]
    fn backlog() {
        let mut policy = OffloadPolicy::new();
        assert!(policy.next(load(Some(0)), 0) == Target::Submitter);
        policy.enabled = true;
        assert!(policy.next(load(Some(0)), 0) == Target::Offload);
        assert!(policy.next(load(Some(BACKLOG_MAX - 1)), 0) == Target::Offload);
        assert!(policy.next(load(Some(BACKLOG_MAX)), 0) == Target::Submitter);
    }

    #[test]
    fn offloading_is_faster() {
        if task::num_online_cpus() == 1 {
            return;
        }
        let mut policy = OffloadPolicy::new();
        assert_eq!(to_trial(&mut policy, 1000), TRIAL_INTERVAL_MIN);
        policy.window_ended(600);
        assert!(policy.enabled && !policy.trial);
        for pause in [
            TRIAL_INTERVAL_MIN,
            TRIAL_INTERVAL_DEFAULT,
            2 * TRIAL_INTERVAL_DEFAULT,
            TRIAL_INTERVAL_MAX,
            TRIAL_INTERVAL_MAX,
        ] {
            assert_eq!(to_trial(&mut policy, 600), pause);
            assert!(!policy.is_offloading());
            policy.window_ended(1000);
            assert!(policy.is_offloading());
        }
        // A single outlier changes nothing.
        to_trial(&mut policy, 600);
        policy.window_ended(1);
        assert!(policy.is_offloading());
    }

    #[test]
    fn offloading_is_slower() {
        if task::num_online_cpus() == 1 {
            return;
        }
        let mut policy = OffloadPolicy::new();
        let mut trials = 0;
        policy.enabled = true;
        while policy.enabled && trials < 100 {
            to_trial(&mut policy, 1300);
            policy.window_ended(1000);
            trials += 1;
        }
        assert!(!policy.is_offloading());
        assert!(trials > 2 && trials < 20);
        for pause in [
            TRIAL_INTERVAL_MIN,
            TRIAL_INTERVAL_DEFAULT,
            2 * TRIAL_INTERVAL_DEFAULT,
            TRIAL_INTERVAL_MAX,
            TRIAL_INTERVAL_MAX,
        ] {
            assert_eq!(to_trial(&mut policy, 1000), pause);
            assert!(policy.is_offloading());
            policy.window_ended(1300);
            assert!(!policy.is_offloading());
        }
    }

    /// After stop_offloading() the next trial comes soon, however long the interval was before.
    #[test]
    fn offloading_stopped_early() {
        if task::num_online_cpus() == 1 {
            return;
        }
        let mut policy = OffloadPolicy::new();
        for _ in 0..8 {
            let took = if policy.enabled { 600 } else { 1000 };
            to_trial(&mut policy, took);
            policy.window_ended(if policy.enabled { 1000 } else { 600 });
        }
        assert!(policy.enabled && policy.confirmed_interval == TRIAL_INTERVAL_MAX);
        policy.stop_offloading();
        assert!(!policy.enabled);
        // The average turns offloading on again, although this trial contradicts it.
        assert!(to_trial(&mut policy, 1000) <= SHALLOW_INTERVAL_MAX);
        policy.window_ended(1300);
        assert!(policy.enabled);
        for _ in 0..4 {
            if policy.enabled {
                assert_eq!(to_trial(&mut policy, 1300), TRIAL_INTERVAL_MIN);
                policy.window_ended(1000);
            }
        }
        assert!(!policy.enabled);
    }

    /// One contradicting trial is repeated soon, and does not change the choice.
    #[test]
    fn offloading_becomes_slower() {
        if task::num_online_cpus() == 1 {
            return;
        }
        let mut policy = OffloadPolicy::new();
        for _ in 0..8 {
            to_trial(&mut policy, 600);
            policy.window_ended(if policy.enabled { 1000 } else { 600 });
        }
        assert!(policy.enabled);
        assert!(to_trial(&mut policy, 1000) >= TRIAL_INTERVAL_DEFAULT);
        policy.window_ended(800);
        assert!(policy.enabled);
        for _ in 0..8 {
            if policy.enabled {
                assert_eq!(to_trial(&mut policy, 1000), TRIAL_INTERVAL_MIN);
                policy.window_ended(800);
            }
        }
        assert!(!policy.enabled);
    }

    /// With many requests in flight in the file, offloading may be a little slower.
    #[test]
    fn busy() {
        let mut policy = OffloadPolicy::new();
        for (unfinished, is_busy) in [(IN_FLIGHT_BUSY - 1, false), (IN_FLIGHT_BUSY, true)] {
            policy.left = 0;
            policy.check_window(unfinished, Instant::now());
            policy.trial = false;
            assert_eq!(policy.is_busy, is_busy);
            policy.enabled = false;
            policy.ratio = (RATIO_ONE + RATIO_ONE / 32) as u16;
            policy.trial_ended(RATIO_ONE + RATIO_ONE / 32);
            assert_eq!(policy.enabled, is_busy);
        }
        // The worker's requests do not count.
        policy.left = 0;
        policy.check_window(0, Instant::now());
        assert!(policy.is_busy);
        policy.trial = false;
        for _ in 0..20 {
            policy.trial_ended(RATIO_ONE + RATIO_ONE / 4);
        }
        assert!(!policy.enabled);
    }

    /// The average reaches a constant ratio, from either side.
    #[test]
    fn average() {
        let mut policy = OffloadPolicy::new();
        for ratio in [RATIO_START - 1, RATIO_STOP + 1, RATIO_START - 1] {
            for _ in 0..100 {
                policy.trial_ended(ratio);
            }
            assert_eq!(u32::from(policy.ratio), ratio);
            assert_eq!(policy.enabled, ratio < RATIO_START);
        }
    }

    /// A slower trial ends early.
    #[test]
    fn lost_trial() {
        let mut policy = OffloadPolicy::new();
        policy.trial = true;
        for _ in 0..WINDOW / 2 {
            policy.next(load(Some(0)), 0);
        }
        assert!(!policy.trial);
    }

    /// Unfinished requests do not count as done, and a trial that takes longer ends.
    #[test]
    fn windows() {
        let mut policy = OffloadPolicy::new();
        let start = policy.start;
        let after = |micros| start + Delta::from_micros(micros);
        policy.left = 0;
        policy.check_window(16, after(112));
        assert_eq!(policy.last_time, 128_000);
        policy.left = 0;
        policy.check_window(16, after(240));
        assert_eq!(policy.last_time, 128_000);
        (policy.trial, policy.left) = (true, 96);
        policy.check_window(16, after(368));
        assert!(policy.trial && policy.left == 96);
        policy.check_window(16, after(369));
        assert!(!policy.trial && policy.left == WINDOW);
        assert!(u32::from(policy.ratio) > RATIO_INITIAL && policy.last_time > 4 * 128_000);
        // Requests that the worker still has do not count for a window that does not offload.
        (policy.enabled, policy.trial, policy.left) = (true, true, 0);
        policy.check_window(0, after(369 + 128));
        assert_eq!(policy.last_time, 128_000);
    }

    #[test]
    fn times_out_of_range() {
        let mut policy = OffloadPolicy::new();
        for took in [0, 1, u64::MAX, 0, u64::MAX, 1] {
            for _ in 0..2 * TRIAL_INTERVAL_DEFAULT {
                policy.window_ended(took);
            }
        }
        assert!((RATIO_MIN..=RATIO_MAX).contains(&policy.ratio.into()));
    }
}
