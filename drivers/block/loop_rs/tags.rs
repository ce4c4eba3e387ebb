// SPDX-License-Identifier: GPL-2.0

//! Which cgroup may hold how many tags.
//!
//! A request holds one of the device's few tags from before the driver sees it until it completes. If
//! requests held their tags for as long as they take, a cgroup whose I/O is blocked, by its own limits
//! or by what its writes wait for, would soon hold all of them, and all other cgroups would wait for
//! it. So a cgroup may keep only some of the tags; the bios of a request beyond these are
//! [detached](Request::detach), which frees the tag at once, and wait for the cgroup's worker.
//!
//! # How many
//!
//! A cgroup may keep another tag if that leaves more tags to others than the cgroup then holds, and a
//! [reserve]: [`may_keep`]. One cgroup alone keeps nearly half of the tags, a second one half of the
//! rest, and so on; when only the reserve is left, all requests are detached. That adapts to how many
//! cgroups are blocked without knowing which of them are, and costs one comparison.
//!
//! If cgroup A is over its share, but holds less than half of what B holds, requests of B that still
//! wait for B's worker are detached to free tags for A. So blocked cgroups hold next to no tags in
//! the end, however many there are, and no other cgroup's requests are detached because of them.
//!
//! # No tag starvation by a blocked cgroup
//!
//! - After each decision at least the reserve is free: a tag is kept only while that many others are
//!   free, and detaching frees one.
//! - Whoever waits for a tag in the block layer found all of them in use. Those that are not kept
//!   belong to requests on their way to the driver. A task that dispatches requests does not sleep in
//!   this driver before the driver has seen the last of them: a request is issued inline only when the
//!   task holds no other request, and others of its batch wait where they can be detached, too. In a
//!   plug of several queues the other drivers may sleep.
//! - The reserve is as many tags as it takes for waiters to be woken, which the block layer does in
//!   batches (`sbq_calc_wake_batch`).
//! - Detaching needs no memory and has no limit, so that it does not fail.
//! - Detached bios wait for the cgroup's worker only, which serves requests and detached bios in the
//!   order in which they came: while some are detached, requests that come later are detached, too.
//!
//! It does not hold for flushes, which the block layer sends one at a time while it keeps the tags of
//! all that wait for one, unseen by the driver. Nor does it hold for what makes requests wait on their
//! way to the driver with a tag: a scheduler that lets a cgroup see only part of the tags, as bfq
//! does, or gives out tokens, as kyber does; `io.cost` on the loop device itself, whose waiters can
//! have a tag that was allocated in advance. None of them is there by default; the throttling of
//! writeback, which would be, is turned off.

use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc,
    },
};

#[cfg(doc)]
use kernel_ext::block::mq::Request;

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

/// How many tags were given back, of a cgroup's or of a device's.
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

/// How many tags are held: counted up under the lock around it, and down by requests that complete.
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

/// A tag that a cgroup holds.
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

    /// Whether it is held.
    pub(crate) fn is_counted(&self) -> bool {
        self.counted
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
