// SPDX-License-Identifier: GPL-2.0

//! Unit tests of the completion policy.

use kernel::prelude::*;

#[kunit_tests(loop_rs_completion)]
mod suite {
    use super::super::*;

    /// The number of reads, before one is timed, for which the policy chooses `completer`.
    fn count(policy: &CompletionPolicy, completer: Completer) -> i32 {
        let mut n = 0;
        loop {
            match policy.next() {
                Completer::TimedWorker => return n,
                chosen if chosen == completer => n += 1,
                _ => return -1,
            }
        }
    }

    #[test]
    fn the_first_read_is_timed() {
        assert_eq!(count(&CompletionPolicy::new(), Completer::Worker), 0);
    }

    #[test]
    fn light_completions_stay_with_the_worker() {
        let policy = CompletionPolicy::new();
        policy.note(HEAVY);
        assert_eq!(count(&policy, Completer::Worker), LIGHT_PERIOD);
    }

    #[test]
    fn heavy_completions_go_to_a_softirq_until_they_are_light() {
        let policy = CompletionPolicy::new();
        policy.note(Delta::from_micros(31));
        assert_eq!(count(&policy, Completer::Softirq), HEAVY_PERIOD);
        policy.note(Delta::from_micros(1));
        assert_eq!(count(&policy, Completer::Worker), LIGHT_PERIOD);
    }
}
