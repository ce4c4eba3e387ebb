// SPDX-License-Identifier: GPL-2.0

//! Points in time, in jiffies.
//!
//! C header: [`include/linux/jiffies.h`](srctree/include/linux/jiffies.h)
//!
//! # Soundness
//!
//! | What safe code could try | What stops it |
//! | --- | --- |
//! | Overflow a point in time | All wraps |
//! | Read the counter while it changes | It is one word, read as a whole |

use crate::{bindings, sync::read_once};
use kernel::time::Jiffies;

/// A point in time. The counter wraps: two points can be compared if they are less than half its
/// range apart, which is at least 24 days.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct JiffiesInstant(Jiffies);

impl JiffiesInstant {
    /// Returns the current time. Any context.
    #[inline]
    pub fn now() -> Self {
        // SAFETY: `jiffies` is a word that is updated as a whole.
        Self(unsafe { read_once(&raw const bindings::jiffies) })
    }

    /// Returns the point at which `ktime_get()` returned `ns`, which is in the past. Any context.
    pub(crate) fn of_ktime(ns: u64) -> Self {
        // SAFETY: No requirements.
        let elapsed = unsafe {
            let now = bindings::ktime_get() as u64;
            bindings::nsecs_to_jiffies(now.saturating_sub(ns))
        };
        Self::now().before(elapsed)
    }

    /// Returns the point within the last 2^32 jiffies whose low 32 bits are `low`.
    pub(crate) fn of_low_bits(low: u32) -> Self {
        let now = Self::now();
        now.before((now.0 as u32).wrapping_sub(low) as Jiffies)
    }

    /// Returns the point `delta` jiffies later.
    #[inline]
    pub fn after(self, delta: Jiffies) -> Self {
        Self(self.0.wrapping_add(delta))
    }

    /// Returns the point `delta` jiffies earlier.
    #[inline]
    pub fn before(self, delta: Jiffies) -> Self {
        Self(self.0.wrapping_sub(delta))
    }

    /// Whether this point is now or in the past.
    ///
    /// Corresponds to the C macro `time_is_before_eq_jiffies`.
    #[inline]
    pub fn has_passed(self) -> bool {
        Self::now().0.wrapping_sub(self.0) as isize >= 0
    }

    /// How long ago this point was, in milliseconds; 0 if it is in the future.
    ///
    /// Wraps the C function `jiffies64_to_msecs`.
    pub fn elapsed_ms(self) -> u64 {
        let delta = Self::now().0.wrapping_sub(self.0);
        if delta as isize <= 0 {
            return 0;
        }
        // SAFETY: No requirements.
        unsafe { bindings::jiffies64_to_msecs(delta as u64) }
    }

    /// How long ago this point was, in nanoseconds, of the length of a jiffy each; 0 if it is in
    /// the future.
    ///
    /// Wraps the C function `jiffies64_to_nsecs`.
    pub(crate) fn elapsed_ns(self) -> u64 {
        let delta = Self::now().0.wrapping_sub(self.0);
        if delta as isize <= 0 {
            return 0;
        }
        // SAFETY: No requirements.
        unsafe { bindings::jiffies64_to_nsecs(delta as u64) }
    }

    /// Whether this point comes before `other`.
    ///
    /// Corresponds to the C macro `time_before`.
    #[inline]
    pub fn is_before(self, other: Self) -> bool {
        (self.0.wrapping_sub(other.0) as isize) < 0
    }

    pub(crate) fn from_raw(jiffies: Jiffies) -> Self {
        Self(jiffies)
    }

    pub(crate) fn into_raw(self) -> Jiffies {
        self.0
    }
}
