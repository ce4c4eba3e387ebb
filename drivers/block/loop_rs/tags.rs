// SPDX-License-Identifier: GPL-2.0

//! Who may hold tags.
//!
//! A device has few tags, and each request needs one from before the driver sees it until it ends.
//! If requests kept their tags for as long as they take, a cgroup whose I/O is held up, by its own
//! limits or by what its writes wait for, would soon have all of them, and everybody else would wait
//! with it. So a cgroup may keep only some; a request beyond them is [parked](Parked), which frees
//! its tag at once, and waits, like any other of the cgroup's, for the cgroup's own worker.
//!
//! # How many
//!
//! A cgroup may keep another tag if that leaves more to others than the cgroup then holds, and a
//! [reserve]: [`may_keep`]. One alone keeps nearly half of them, a second one half of the rest, and
//! so on; when next to none but the reserve are left, every request is parked. That adapts to how
//! many cgroups are stuck without knowing which of them are, and costs one comparison.
//!
//! Who has none left to keep, but less than half of what another cgroup holds, has that one's requests
//! parked that only wait for their worker. So those that are stuck hold next to nothing in the end,
//! however many they are, and nobody else is parked because of them.
//!
//! # Why nobody waits for a tag that somebody stuck sits on
//!
//! - After each decision at least the reserve is not kept: a tag is kept only while that many others
//!   are free, and parking adds to what is free.
//! - Whoever waits in the block layer for a tag found all of them in use. Those that are not kept
//!   are with requests on their way to the driver, which get there without waiting (but see below), one
//!   plug at a time, and are parked then, or kept while others are free; or with requests of somebody
//!   who is not stuck. So as many tags are freed as the reserve has.
//! - That is as many as it takes for those who wait to be woken, which the block layer does in
//!   batches (`sbq_calc_wake_batch`).
//! - What is parked waits for the cgroup's worker only, which takes requests and what is parked in
//!   the order in which they came: while something is parked, what comes later is parked, too.
//!   So nothing is overtaken without end.
//!
//! It does not hold where parking is impossible: when there is no memory for it or there is
//! [too much of it](MAX_PARKED), and for flushes, which the block layer sends one at a time, and keeps
//! the tags of those who wait for them, unseen by the driver. Nor does it for what makes requests wait
//! on their way to the driver, with a tag or a share in something that is short: a scheduler that lets
//! some see only part of the tags, as bfq does, or that gives out tokens, as kyber does; `io.cost` on
//! the loop device itself, whose waiters can have a tag that was allocated ahead. None of them is
//! there by default; the throttling of writeback, which would be, is turned off.
//!
//! Whatever waits for all I/O to end (to freeze the queue) waits for what is parked, too: for a
//! cgroup that is held to little, that can be long, until its limit is raised.

use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc,
    },
};

#[cfg(doc)]
use kernel_ext::block::mq::Parked;

/// How much I/O of a cgroup can be parked. It takes some 300 bytes each, next to the pages that wait
/// to be read or written.
pub(crate) const MAX_PARKED: u32 = 8192;

/// How many of `depth` tags nobody keeps: as many as the block layer wakes waiters by.
fn reserve(depth: u32) -> u32 {
    (depth / 8).clamp(1, 8)
}

/// Whether a cgroup that holds `held` tags may keep one more, when `all` of `depth` are held
/// already.
pub(crate) fn may_keep(held: u32, all: u32, depth: u32) -> bool {
    let free = depth.saturating_sub(all).saturating_sub(1);
    held.saturating_add(reserve(depth)) <= free
}

/// How many were given back, of a cgroup's tags or of a device's, or of what either has parked.
pub(crate) struct Tally {
    returned: Atomic<u32>,
    /// That of the device, for a cgroup's.
    device: Option<Arc<Tally>>,
}

impl Tally {
    fn count(&self) {
        self.returned.fetch_add(1, Relaxed);
    }
}

/// How many tags are held, or how much is parked: counted up by who has the lock around it, and down
/// by what ends.
pub(crate) struct Held {
    kept: u32,
    tally: Arc<Tally>,
}

impl Held {
    /// None yet. `device` is the device's when this is a cgroup's.
    pub(crate) fn new(device: Option<&Held>, flags: kernel::alloc::Flags) -> Result<Self> {
        Ok(Self {
            kept: 0,
            tally: Arc::new(
                Tally {
                    returned: Atomic::new(0),
                    device: device.map(|device| device.tally.clone()),
                },
                flags,
            )?,
        })
    }

    /// How many that is, or was a moment ago.
    pub(crate) fn get(&self) -> u32 {
        self.kept.wrapping_sub(self.tally.returned.load(Relaxed))
    }

    /// Counts another one of a cgroup and its device, until `kept` is [given
    /// back](Kept::give_back).
    pub(crate) fn keep(&mut self, device: &mut Held, kept: &mut Kept) {
        kept.give_back();
        device.kept = device.kept.wrapping_add(1);
        self.kept = self.kept.wrapping_add(1);
        match &kept.tally {
            Some(tally) if Arc::ptr_eq(tally, &self.tally) => (),
            _ => kept.tally = Some(self.tally.clone()),
        }
        kept.counted = true;
    }
}

/// A tag that a cgroup may hold, or something that it may have parked.
pub(crate) struct Kept {
    /// Where it is counted, or was: the next request with this tag is mostly the same cgroup's, and
    /// spares two atomic operations.
    tally: Option<Arc<Tally>>,
    counted: bool,
}

impl Kept {
    /// Nothing is kept yet.
    pub(crate) const fn none() -> Self {
        Self {
            tally: None,
            counted: false,
        }
    }

    /// Ends it, if it was kept. In any context.
    pub(crate) fn give_back(&mut self) {
        if !core::mem::replace(&mut self.counted, false) {
            return;
        }
        if let Some(tally) = &self.tally {
            tally.count();
            if let Some(device) = &tally.device {
                device.count();
            }
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[kunit_tests(loop_rs_tags)]
mod tests {
    use super::*;

    /// Of as many depths as a device can have, and how the tags can be held in each.
    const DEPTHS: u32 = 300;

    #[test]
    fn the_reserve_is_never_kept() {
        let mut wrong = 0;
        for depth in 1..DEPTHS {
            for all in 0..=depth {
                for held in 0..=all {
                    if may_keep(held, all, depth) && depth < all + 1 + reserve(depth) {
                        wrong += 1;
                    }
                }
            }
        }
        assert_eq!(wrong, 0);
    }

    #[test]
    fn who_holds_more_may_keep_less() {
        let mut wrong = 0;
        for depth in 1..DEPTHS {
            for all in 0..depth {
                for held in 0..all {
                    let (less, more) = (may_keep(held, all, depth), may_keep(held + 1, all, depth));
                    let later = may_keep(held, all + 1, depth);
                    if more && !less || later && !less {
                        wrong += 1;
                    }
                }
            }
        }
        assert_eq!(wrong, 0);
    }

    /// How many one keeps when `others` are held.
    fn share(others: u32, depth: u32) -> u32 {
        let mut held = 0;
        while held < depth && may_keep(held, others + held, depth) {
            held += 1;
        }
        held
    }

    #[test]
    fn shares() {
        // One alone keeps nearly half, and the next one half of what is left.
        assert_eq!(share(0, 128), 60);
        assert_eq!(share(60, 128), 30);
        assert_eq!(share(90, 128), 15);
        assert_eq!(share(120, 128), 0);
        // There is no tag to keep where there is one only.
        assert_eq!(share(0, 1), 0);
        assert_eq!(share(0, 4), 2);
    }

    #[test]
    fn numbers_out_of_range() {
        assert!(!may_keep(u32::MAX, 0, 128));
        assert!(!may_keep(0, u32::MAX, 128));
        assert!(!may_keep(0, 0, 0));
        assert!(may_keep(0, 0, u32::MAX));
        assert!(!may_keep(u32::MAX, u32::MAX, u32::MAX));
    }

    #[test]
    fn what_is_dropped_is_counted_down() -> Result {
        let mut device = Held::new(None, GFP_KERNEL)?;
        let mut one = Held::new(Some(&device), GFP_KERNEL)?;
        let mut other = Held::new(Some(&device), GFP_KERNEL)?;
        let [mut first, mut second, mut third] = [const { Kept::none() }; 3];
        one.keep(&mut device, &mut first);
        one.keep(&mut device, &mut second);
        other.keep(&mut device, &mut third);
        assert_eq!((one.get(), other.get(), device.get()), (2, 1, 3));
        first.give_back();
        first.give_back();
        assert_eq!((one.get(), other.get(), device.get()), (1, 1, 2));
        // The tag's next request is another cgroup's, and the one after that the same's.
        for _ in 0..2 {
            other.keep(&mut device, &mut first);
            assert_eq!((one.get(), other.get(), device.get()), (1, 2, 3));
        }
        drop(first);
        assert_eq!((one.get(), other.get(), device.get()), (1, 1, 2));
        // What is in flight may outlive what counts it.
        drop(other);
        drop(third);
        assert_eq!((one.get(), device.get()), (1, 1));
        drop(second);
        assert_eq!((one.get(), device.get()), (0, 0));
        Ok(())
    }

    #[test]
    fn the_count_goes_past_its_end() -> Result {
        let mut device = Held::new(None, GFP_KERNEL)?;
        let mut one = Held::new(Some(&device), GFP_KERNEL)?;
        one.kept = u32::MAX;
        one.tally.returned.store(u32::MAX, Relaxed);
        let mut kept = Kept::none();
        one.keep(&mut device, &mut kept);
        assert_eq!(one.get(), 1);
        drop(kept);
        assert_eq!(one.get(), 0);
        Ok(())
    }
}
