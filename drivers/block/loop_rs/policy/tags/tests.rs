// SPDX-License-Identifier: GPL-2.0

//! Unit tests of the tag policy.

use kernel::prelude::*;

#[kunit_tests(loop_rs_tags)]
mod suite {
    use super::super::*;

    /// The depths that are tried, with all distributions of their tags.
    const DEPTHS: u32 = 300;

    #[test]
    fn the_reserve_stays_free() {
        let mut wrong = 0;
        for depth in 1..DEPTHS {
            for all in 0..=depth {
                for held in 0..=all {
                    if may_hold(held, all, depth) && depth < all + 1 + reserve(depth) {
                        wrong += 1;
                    }
                }
            }
        }
        assert_eq!(wrong, 0);
    }

    #[test]
    fn a_larger_holder_may_not_hold_more() {
        let mut wrong = 0;
        for depth in 1..DEPTHS {
            for all in 0..depth {
                for held in 0..all {
                    let (less, more) = (may_hold(held, all, depth), may_hold(held + 1, all, depth));
                    let later = may_hold(held, all + 1, depth);
                    if more && !less || later && !less {
                        wrong += 1;
                    }
                }
            }
        }
        assert_eq!(wrong, 0);
    }

    /// Number of tags that one cgroup gets while `others` are held.
    fn share(others: u32, depth: u32) -> u32 {
        let mut held = 0;
        while held < depth && may_hold(held, others + held, depth) {
            held += 1;
        }
        held
    }

    #[test]
    fn shares() {
        // A single cgroup gets nearly half of the tags, the next one half of the rest.
        assert_eq!(share(0, 128), 60);
        assert_eq!(share(60, 128), 30);
        assert_eq!(share(90, 128), 15);
        assert_eq!(share(120, 128), 0);
        // A device with a single tag has none to hold.
        assert_eq!(share(0, 1), 0);
        assert_eq!(share(0, 4), 2);
    }

    #[test]
    fn sole_use() -> Result {
        const ALONE: Others = Others { ios: 0, tags: 1 };
        let window = msecs_to_jiffies(SOLE_USE_WINDOW_MS);
        let mut device = TagCounter::new(None, GFP_KERNEL)?;
        let mut tags = TagCounter::new(Some(&device), GFP_KERNEL)?;
        let [mut early, mut late] = [const { TagCharge::none() }; 2];
        let mut policy = SoleUse::new();
        let mut now = policy.end.before(window);
        tags.charge(&mut device, &mut early);
        assert!(!policy.check(&mut tags, ALONE, now.after(window - 1)));
        // No tag is older than a window.
        now = now.after(window);
        assert!(policy.check(&mut tags, ALONE, now));
        assert!(policy.check(&mut tags, ALONE, now.after(window - 1)));
        // One is, whatever other tags do.
        tags.charge(&mut device, &mut late);
        for _ in 0..5 {
            now = now.after(window);
            assert!(!policy.check(&mut tags, ALONE, now));
            tags.charge(&mut device, &mut late);
        }
        early.uncharge();
        assert!(!policy.check(&mut tags, ALONE, now.after(window - 1)));
        now = now.after(window);
        assert!(policy.check(&mut tags, ALONE, now));
        // Another cgroup holds a tag beside the flush, or submits I/O.
        let two = Others { ios: 0, tags: 2 };
        assert!(!policy.check(&mut tags, two, now));
        let other = Others { ios: 1, tags: 0 };
        assert!(!policy.check(&mut tags, other, now));
        late.uncharge();
        now = now.after(window - 1);
        assert!(!policy.check(&mut tags, other, now));
        now = now.after(1);
        assert!(policy.check(&mut tags, other, now));
        // The age of tags is unknown after a pause.
        now = now.after(2 * window);
        assert!(!policy.check(&mut tags, other, now));
        now = now.after(window);
        assert!(policy.check(&mut tags, other, now));
        Ok(())
    }

    #[test]
    fn epochs() -> Result {
        let mut device = TagCounter::new(None, GFP_KERNEL)?;
        let mut tags = TagCounter::new(Some(&device), GFP_KERNEL)?;
        let [mut even, mut odd] = [const { TagCharge::none() }; 2];
        for _ in 0..3 {
            tags.charge(&mut device, &mut even);
            assert!(tags.next_epoch());
            tags.charge(&mut device, &mut odd);
            // `even` is of the previous epoch.
            assert!(!tags.next_epoch());
            assert!(!tags.next_epoch());
            even.uncharge();
            assert!(tags.next_epoch());
            assert!(!tags.next_epoch());
            odd.uncharge();
            assert_eq!(tags.get(), 0);
            assert!(tags.next_epoch());
            assert!(tags.next_epoch());
        }
        Ok(())
    }

    #[test]
    fn shares_of_a_single_cgroup() {
        assert!(may_hold_alone(95, 128));
        assert!(!may_hold_alone(96, 128));
        assert!(!may_hold_alone(u32::MAX, 128));
        assert!(may_hold_alone(2, 4));
        assert!(!may_hold_alone(3, 4));
        assert!(!may_hold_alone(0, 1));
        assert!(!may_hold_alone(0, 0));
    }

    #[test]
    fn numbers_out_of_range() {
        assert!(!may_hold(u32::MAX, 0, 128));
        assert!(!may_hold(0, u32::MAX, 128));
        assert!(!may_hold(0, 0, 0));
        assert!(may_hold(0, 0, u32::MAX));
        assert!(!may_hold(u32::MAX, u32::MAX, u32::MAX));
    }

    #[test]
    fn dropped_charges_are_returned() -> Result {
        let mut device = TagCounter::new(None, GFP_KERNEL)?;
        let mut one = TagCounter::new(Some(&device), GFP_KERNEL)?;
        let mut other = TagCounter::new(Some(&device), GFP_KERNEL)?;
        let [mut first, mut second, mut third] = [const { TagCharge::none() }; 3];
        one.charge(&mut device, &mut first);
        one.charge(&mut device, &mut second);
        other.charge(&mut device, &mut third);
        assert_eq!((one.get(), other.get(), device.get()), (2, 1, 3));
        first.uncharge();
        first.uncharge();
        assert_eq!((one.get(), other.get(), device.get()), (1, 1, 2));
        // The next request with the tag is of another cgroup, and so is the one after that.
        for _ in 0..2 {
            other.charge(&mut device, &mut first);
            assert_eq!((one.get(), other.get(), device.get()), (1, 2, 3));
        }
        drop(first);
        assert_eq!((one.get(), other.get(), device.get()), (1, 1, 2));
        // A charge may outlive the counter.
        drop(other);
        drop(third);
        assert_eq!((one.get(), device.get()), (1, 1));
        drop(second);
        assert_eq!((one.get(), device.get()), (0, 0));
        Ok(())
    }

    #[test]
    fn the_counter_wraps() -> Result {
        let mut device = TagCounter::new(None, GFP_KERNEL)?;
        let mut one = TagCounter::new(Some(&device), GFP_KERNEL)?;
        one.charged_even = u32::MAX;
        one.returned.even.store(u32::MAX, Relaxed);
        let mut charge = TagCharge::none();
        one.charge(&mut device, &mut charge);
        assert_eq!(one.get(), 1);
        drop(charge);
        assert_eq!(one.get(), 0);
        Ok(())
    }
}
