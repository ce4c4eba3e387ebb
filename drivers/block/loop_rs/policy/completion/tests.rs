// SPDX-License-Identifier: GPL-2.0

//! Unit tests of the completion policy.

use kernel::prelude::*;

#[kunit_tests(loop_rs_completion)]
mod suite {
    use super::super::*;

    /// The number of reads for which the policy chooses `context` before one is timed; -1 if it
    /// chooses another one for any of them.
    fn count(policy: &CompletionPolicy, context: CompletionContext) -> i32 {
        let mut n = 0;
        loop {
            match policy.next() {
                CompletionContext::TimedWorker => return n,
                chosen if chosen == context => n += 1,
                _ => return -1,
            }
        }
    }

    #[test]
    fn the_first_read_is_timed() {
        assert_eq!(
            count(&CompletionPolicy::new(), CompletionContext::Worker),
            0
        );
    }

    #[test]
    fn light_completions_stay_with_the_worker() {
        let policy = CompletionPolicy::new();
        policy.note(HEAVY);
        assert_eq!(count(&policy, CompletionContext::Worker), LIGHT_PERIOD);
    }

    #[test]
    fn heavy_completions_go_to_a_softirq_until_they_are_light() {
        let policy = CompletionPolicy::new();
        policy.note(Delta::from_micros(31));
        assert_eq!(count(&policy, CompletionContext::Softirq), HEAVY_PERIOD);
        policy.note(Delta::from_micros(1));
        assert_eq!(count(&policy, CompletionContext::Worker), LIGHT_PERIOD);
    }
}
