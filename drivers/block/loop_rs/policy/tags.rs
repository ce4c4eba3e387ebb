// SPDX-License-Identifier: GPL-2.0

//! Tag policy: how many of the device's tags a cgroup may hold.
//!
//! A request holds one of the device's few tags from before queue_rq() until it completes. A cgroup
//! whose I/O is blocked, by its own limits or by writeback, would soon hold all tags, and all other
//! cgroups would wait for it. So a cgroup may hold only a share of the tags. The bios of a request
//! beyond that share are [detached](Request::detach), which frees the tag at once, and wait for the
//! cgroup's worker.
//!
//! # Shares
//!
//! A cgroup may hold another tag if the tags that are left to other cgroups are then more than the
//! cgroup holds, plus a [reserve]: see [`may_hold`]. A single cgroup holds nearly half of the tags,
//! a second one half of the rest, and so on; when only the reserve is left, all requests are
//! detached. The shares adapt to the number of blocked cgroups without knowing which cgroups are
//! blocked, at the cost of one comparison.
//!
//! If cgroup A is over its share but holds less than half of B's tags, requests of B that are still
//! queued for B's worker are detached to free tags for A: see [`reclaim_threshold`]. Cgroups whose
//! workers are blocked end up with next to no tags, however many of them there are, and no request
//! of another cgroup is detached because of them. Requests in service keep their tags: direct I/O,
//! and reads that wait for pages under I/O. So do offloaded requests, which do not block.
//!
//! A cgroup that has the device to itself, and whose requests complete quickly, may hold three
//! quarters of the tags, also while older bios of it are detached: see [`SoleUse`]. That ends when
//! another cgroup submits I/O, or when a request takes long. The other cgroup then finds fewer tags
//! until requests complete, and more of its requests are detached.
//!
//! # No tag starvation by a blocked cgroup
//!
//! - At least the reserve is free after each decision: a request keeps its tag only while that many
//!   tags are free, and detaching frees a tag.
//! - A task that waits for a tag in the block layer found all tags in use. Tags that no cgroup is
//!   charged for belong to requests on their way to queue_rq(). A task that dispatches requests
//!   does not sleep in this driver before queue_rq() has seen the last of them: a request is issued
//!   inline only when the task holds no other request, and the other requests of its batch can be
//!   detached. If a plug holds requests of several queues, the other drivers may sleep.
//! - The reserve is as large as the block layer's batch for waking tag waiters
//!   (`sbq_calc_wake_batch()`).
//! - Detaching allocates no memory and has no limit. It fails only for requests that are more than
//!   their bios: see [`Request::detach`].
//! - Detached bios wait for the cgroup's worker only. While bios of a cgroup are detached, later
//!   requests of the cgroup are detached, too, and served in FIFO order, unless its requests
//!   complete quickly. So a blocked cgroup takes no new tags while no other cgroup has I/O.
//!
//! # Limitations
//!
//! The guarantee does not cover requests that cannot be detached, which keep their tags even beyond
//! the reserve: flushes, the data requests of a flush sequence, requests with an `end_io` callback,
//! and merged requests that are accounted to another partition than their first bio. The block
//! layer sends one flush at a time, and keeps the tags of all requests that wait for it.
//!
//! The guarantee does not cover requests that wait between tag allocation and queue_rq() either:
//! a scheduler that limits the tags or tokens of a cgroup (bfq, kyber), or `io.cost` on the loop
//! device itself, whose waiters can hold a tag that was allocated in advance. None of these is
//! enabled by default. Writeback throttling, which would be, is turned off.

use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc,
    },
    time::{msecs_to_jiffies, Msecs},
};
use kernel_ext::time::JiffiesInstant;

#[cfg(doc)]
use kernel_ext::block::mq::Request;

/// How long a cgroup must have had the device to itself before it may hold more than its share, and
/// how long its requests may take.
const SOLE_USE_WINDOW_MS: Msecs = 100;

/// Number of the `depth` tags that no cgroup may hold: the wake batch of the block layer.
fn reserve(depth: u32) -> u32 {
    (depth / 8).clamp(1, 8)
}

/// Whether a cgroup that holds `held` tags may hold another one, when all cgroups together hold
/// `total` of the `depth` tags.
#[inline(always)]
pub(crate) fn may_hold(held: u32, total: u32, depth: u32) -> bool {
    let free = depth.saturating_sub(total).saturating_sub(1);
    held.saturating_add(reserve(depth)) <= free
}

/// Number of tags above which a cgroup has a request detached for a cgroup that holds `held` tags.
pub(crate) fn reclaim_threshold(held: u32) -> u32 {
    held.saturating_mul(2).saturating_add(1)
}

/// Whether a cgroup that [has the device to itself](SoleUse) may hold another tag. A quarter of the
/// tags stays free for cgroups that come.
pub(crate) fn may_hold_alone(total: u32, depth: u32) -> bool {
    total.saturating_add(reserve(depth).max(depth / 4)) < depth
}

/// Use of the device by other cgroups.
#[derive(Clone, Copy)]
pub(crate) struct Others {
    /// Number of I/Os that they have submitted.
    pub(crate) ios: u64,
    /// Number of tags that they hold.
    pub(crate) tags: u32,
}

/// Whether a cgroup has the device to itself, and its requests complete quickly.
///
/// Both are checked for windows of [`SOLE_USE_WINDOW_MS`].
pub(crate) struct SoleUse {
    /// End of the window.
    end: JiffiesInstant,
    /// Number of I/Os of other cgroups at the start.
    others: u64,
    /// The result of the window before.
    confirmed: bool,
}

impl SoleUse {
    pub(crate) fn new() -> Self {
        Self {
            end: JiffiesInstant::now().after(msecs_to_jiffies(SOLE_USE_WINDOW_MS)),
            others: 0,
            confirmed: false,
        }
    }

    /// Whether, in the last complete window and since, other cgroups submitted no I/O, and the
    /// cgroup gave back all tags that it held at the start. Called when the cgroup is over its
    /// share.
    pub(crate) fn check(
        &mut self,
        tags: &mut TagCounter,
        others: Others,
        now: JiffiesInstant,
    ) -> bool {
        // The flush, which is in no cgroup, holds a tag.
        let is_alone = others.ios == self.others && others.tags <= 1;
        if is_alone && now.is_before(self.end) {
            return self.confirmed;
        }
        // After a pause, tags may be older than two windows.
        let window = msecs_to_jiffies(SOLE_USE_WINDOW_MS);
        let is_recent = now.is_before(self.end.after(window));
        *self = Self {
            end: now.after(window),
            others: others.ios,
            confirmed: tags.next_epoch() && is_alone && is_recent,
        };
        self.confirmed
    }
}

/// Number of tags that requests of a cgroup, or of a device, have given back, by the epoch in which
/// they were charged.
struct ReturnedTags {
    even: Atomic<u32>,
    odd: Atomic<u32>,
    /// The device's count, if this is a cgroup's. All epochs of a device are even.
    device: Option<Arc<ReturnedTags>>,
}

/// Number of tags that a cgroup, or a device, is charged for.
///
/// # Invariants
///
/// The number of tags is that of charges less that of returned tags, in even and in odd epochs,
/// modulo 2^32. Charges are counted under the caller's lock, returned tags without it.
pub(crate) struct TagCounter {
    /// Number of charges in even epochs.
    charged_even: u32,
    /// Number of charges in odd epochs.
    charged_odd: u32,
    /// The current epoch is odd. No tag was charged before the previous epoch.
    is_odd: bool,
    returned: Arc<ReturnedTags>,
}

impl TagCounter {
    /// Creates a counter of 0 tags. `device` is the device's counter if this is a cgroup's.
    pub(crate) fn new(device: Option<&TagCounter>, flags: kernel::alloc::Flags) -> Result<Self> {
        Ok(Self {
            charged_even: 0,
            charged_odd: 0,
            is_odd: false,
            returned: Arc::new(
                ReturnedTags {
                    even: Atomic::new(0),
                    odd: Atomic::new(0),
                    device: device.map(|device| device.returned.clone()),
                },
                flags,
            )?,
        })
    }

    /// The number of tags. Completions on other CPUs can decrease it at any time.
    #[inline(always)]
    pub(crate) fn get(&self) -> u32 {
        self.even().wrapping_add(self.odd())
    }

    /// The number of tags that were charged in even epochs.
    #[inline(always)]
    fn even(&self) -> u32 {
        self.charged_even
            .wrapping_sub(self.returned.even.load(Relaxed))
    }

    /// The number of tags that were charged in odd epochs.
    #[inline(always)]
    fn odd(&self) -> u32 {
        self.charged_odd
            .wrapping_sub(self.returned.odd.load(Relaxed))
    }

    /// Starts a new epoch, unless a tag of the previous epoch is still charged. Returns whether it
    /// did.
    fn next_epoch(&mut self) -> bool {
        let previous = match self.is_odd {
            true => self.even(),
            false => self.odd(),
        };
        self.is_odd ^= previous == 0;
        previous == 0
    }

    /// Charges a tag to this cgroup and its device, until [`TagCharge::uncharge`]. Called with the
    /// lock held that protects both counters.
    #[inline(always)]
    pub(crate) fn charge(&mut self, device: &mut TagCounter, charge: &mut TagCharge) {
        charge.uncharge();
        // INVARIANT: `charge` increments `returned` of both once.
        device.charged_even = device.charged_even.wrapping_add(1);
        let charged = match self.is_odd {
            true => &mut self.charged_odd,
            false => &mut self.charged_even,
        };
        *charged = charged.wrapping_add(1);
        match &charge.returned {
            Some(returned) if Arc::ptr_eq(returned, &self.returned) => (),
            _ => charge.returned = Some(self.returned.clone()),
        }
        charge.is_charged = true;
        charge.is_odd = self.is_odd;
    }
}

/// The charge of one request's tag.
pub(crate) struct TagCharge {
    /// The count of the cgroup that is, or was last, charged. The next request with this tag is
    /// mostly of the same cgroup; keeping the reference saves two atomic operations.
    returned: Option<Arc<ReturnedTags>>,
    is_charged: bool,
    /// The tag was charged in an odd epoch.
    is_odd: bool,
}

impl TagCharge {
    /// A tag that no cgroup is charged for.
    pub(crate) const fn none() -> Self {
        Self {
            returned: None,
            is_charged: false,
            is_odd: false,
        }
    }

    /// Whether a cgroup is charged for the tag.
    pub(crate) fn is_charged(&self) -> bool {
        self.is_charged
    }

    /// Ends the charge, if there is one. Any context.
    #[inline(always)]
    pub(crate) fn uncharge(&mut self) {
        if !core::mem::replace(&mut self.is_charged, false) {
            return;
        }
        if let Some(returned) = &self.returned {
            let of_cgroup = match self.is_odd {
                true => &returned.odd,
                false => &returned.even,
            };
            of_cgroup.fetch_add(1, Relaxed);
            if let Some(device) = &returned.device {
                device.even.fetch_add(1, Relaxed);
            }
        }
    }
}

impl Drop for TagCharge {
    fn drop(&mut self) {
        self.uncharge();
    }
}

#[cfg(CONFIG_KUNIT = "y")]
mod tests;
