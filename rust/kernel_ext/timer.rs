// SPDX-License-Identifier: GPL-2.0

//! Timers with the resolution of jiffies.
//!
//! C header: [`include/linux/timer.h`](srctree/include/linux/timer.h)
//!
//! # Soundness
//!
//! | What safe code could try | What stops it |
//! | --- | --- |
//! | Free a timer that is armed or runs | Dropping shuts it down first, and waits |
//! | Arm it after that | A timer that was shut down stays so |
//! | Move it | It is pinned |
//! | Have a callback that borrows, or is for one task | It is `'static`, `Send` and `Sync` |
//! | Change the callback's data as it runs | Both have `&self` |
//! | Drop it in its callback | Nothing; the callback waits for itself |
//! | Forget it, and have the module unloaded | The exit waits ([`ExitBarrier`](crate::module::ExitBarrier)) |

use crate::{bindings, module::Registered, time::JiffiesInstant};
use kernel::{prelude::*, sync::LockClassKey, types::Opaque};

/// The callback of a [`Timer`].
pub trait Callback: Send + Sync + 'static {
    /// Called when the timer expires. Returns when to expire next, if at all.
    ///
    /// Softirq context with interrupts enabled; must not sleep.
    fn expired(&self) -> Option<JiffiesInstant>;
}

/// A timer that does not wake an idle CPU to expire (`TIMER_DEFERRABLE`).
///
/// # Examples
///
/// ```
/// use kernel::{
///     sync::atomic::{Atomic, Relaxed},
///     time::msecs_to_jiffies,
/// };
/// use kernel_ext::{
///     new_deferrable_timer,
///     time::JiffiesInstant,
///     timer::Callback, //
/// };
///
/// struct Ticks(Atomic<i32>);
///
/// impl Callback for Ticks {
///     fn expired(&self) -> Option<JiffiesInstant> {
///         self.0.fetch_add(1, Relaxed);
///         Some(JiffiesInstant::now().after(msecs_to_jiffies(1000)))
///     }
/// }
///
/// let ticks = Ticks(Atomic::new(0));
/// let timer = KBox::pin_init(new_deferrable_timer!(ticks, "Ticks"), GFP_KERNEL)?;
/// timer.reduce(JiffiesInstant::now());
/// // Dropping the timer disarms it, and waits for its callback.
/// drop(timer);
/// # Ok::<(), Error>(())
/// ```
///
/// Wraps the C `struct timer_list`. Dropping it waits for a running callback: it must not be
/// dropped in the callback, in hard interrupts, or with a lock held that the callback takes.
///
/// # Invariants
///
/// `timer` is initialised, with [`Self::run`] as its function.
#[pin_data(PinnedDrop)]
#[repr(C)]
pub struct Timer<C: Callback> {
    #[pin]
    timer: Opaque<bindings::timer_list>,
    callback: C,
    _registered: Registered,
}

// SAFETY: Timers may be armed and shut down by any task, and the callback is `Send`.
unsafe impl<C: Callback> Send for Timer<C> {}
// SAFETY: The C functions take the timer's lock, and the callback is `Sync`.
unsafe impl<C: Callback> Sync for Timer<C> {}

impl<C: Callback> Timer<C> {
    /// Creates a timer that is not armed; see
    /// [`new_deferrable_timer!`](crate::new_deferrable_timer).
    pub fn new_deferrable(
        callback: C,
        name: &'static CStr,
        key: Pin<&'static LockClassKey>,
    ) -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: `slot` is valid for writes, and the name and key are static. The timer does
            // not move, and is shut down before its memory is freed.
            timer <- Opaque::ffi_init(|slot| unsafe {
                bindings::timer_init_key(
                    slot,
                    Some(Self::run),
                    bindings::TIMER_DEFERRABLE,
                    name.as_char_ptr(),
                    key.as_ptr(),
                )
            }),
            callback,
            _registered: Registered::new(),
        })
    }

    fn as_raw(&self) -> *mut bindings::timer_list {
        // By way of a pointer to the whole, as it is to lead back to that.
        Opaque::cast_into(&raw const self.timer)
    }

    /// Arms the timer for `expires`, unless it is armed for an earlier time. Any context.
    ///
    /// Wraps the C function `timer_reduce`.
    pub fn reduce(&self, expires: JiffiesInstant) {
        // SAFETY: The timer is initialised by the type invariant.
        unsafe { bindings::timer_reduce(self.as_raw(), expires.into_raw()) };
    }

    /// Disarms the timer for good, and waits for its callback to return. May sleep. Must not be
    /// called in the callback, nor with a lock held that the callback takes.
    ///
    /// If the callback can drop the last reference to the timer's owner, the owner calls this
    /// before that can happen: the callback would wait for itself.
    ///
    /// Wraps the C function `timer_shutdown_sync`.
    pub fn shutdown(&self) {
        // SAFETY: The timer is initialised by the type invariant. Arming it has no effect from
        // here on.
        unsafe { bindings::timer_shutdown_sync(self.as_raw()) };
    }

    /// # Safety
    ///
    /// Called by the timer core only, with the `timer` field of a [`Timer<C>`].
    unsafe extern "C" fn run(timer: *mut bindings::timer_list) {
        // SAFETY: `timer` is the first field of a `Timer<C>`, which waits for this function
        // before it is dropped.
        let this = unsafe { &*timer.cast::<Self>() };
        if let Some(expires) = this.callback.expired() {
            this.reduce(expires);
        }
    }
}

#[pinned_drop]
impl<C: Callback> PinnedDrop for Timer<C> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: The timer is initialised by the type invariant. It cannot be armed again, by
        // its callback either.
        unsafe { bindings::timer_shutdown_sync(self.as_raw()) };
    }
}

/// Creates a deferrable [`Timer`] initialiser with the given callback and name, and a lock class of
/// its own.
#[macro_export]
macro_rules! new_deferrable_timer {
    ($callback:expr, $name:literal) => {
        $crate::timer::Timer::new_deferrable(
            $callback,
            ::kernel::c_str!($name),
            ::kernel::static_lock_class!(),
        )
    };
}
