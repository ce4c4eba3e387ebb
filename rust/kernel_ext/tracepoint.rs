// SPDX-License-Identifier: GPL-2.0

//! Tracepoints about I/O.
//!
//! A driver defines its events in C, with `TRACE_EVENT()`, whose argument is a description of I/O
//! that this crate makes, and declares them in Rust with
//! [`declare_io_tracepoints!`](crate::declare_io_tracepoints). While a tracepoint is disabled, it
//! is a branch on a static key, which is a `nop`.
//!
//! `kernel::tracepoint` is for tracepoints that the `kernel` crate's bindings have.
//!
//! C header: [`include/linux/tracepoint.h`](srctree/include/linux/tracepoint.h)
//!
//! # Soundness
//!
//! | What safe code could try | What stops it |
//! | --- | --- |
//! | Declare a tracepoint that does not exist | It does not link |
//! | Declare one with another argument | `RUST_IO_TRACEPOINT()` defines what is called, and checks it |
//! | Describe I/O that has completed | It is borrowed; a description is a copy |

use crate::bindings;

#[doc(hidden)]
pub use kernel::bindings::tracepoint as RawTracepoint;

/// A description of I/O for a tracepoint: device, cgroup, operation and range.
///
/// Wraps the C `struct rust_io_trace`.
#[repr(transparent)]
pub struct IoTrace(pub(crate) bindings::rust_io_trace);

/// I/O that tracepoints describe.
pub trait Traced {
    /// Describes the I/O. Any context.
    fn describe(&self) -> IoTrace;

    /// Calls the tracepoint `P`.
    #[doc(hidden)]
    #[cold]
    #[inline(never)]
    fn call<P: IoTracepoint>(&self, detail: i32) {
        call::<P>(self.describe(), detail)
    }
}

#[cold]
#[inline(never)]
pub(crate) fn call<P: IoTracepoint>(mut io: IoTrace, detail: i32) {
    io.0.detail = detail;
    P::call(&io);
}

/// A tracepoint about I/O: see [`declare_io_tracepoints!`](crate::declare_io_tracepoints).
pub trait IoTracepoint {
    /// Whether the tracepoint is enabled. Any context.
    fn is_enabled() -> bool;

    /// Calls the tracepoint, enabled or not. Any context.
    #[doc(hidden)]
    fn call(io: &IoTrace);

    /// Calls the tracepoint, if it is enabled, with I/O and a number that the tracepoint gives a
    /// meaning. Any context.
    #[inline(always)]
    fn trace(io: &impl Traced, detail: i32)
    where
        Self: Sized,
    {
        if Self::is_enabled() {
            io.call::<Self>(detail);
        }
    }

    /// Describes I/O, if the tracepoint is enabled, for [`trace_captured`](Self::trace_captured)
    /// when the I/O may have completed. Any context.
    #[inline(always)]
    fn capture(io: &impl Traced) -> Option<IoTrace> {
        match Self::is_enabled() {
            true => Some(io.describe()),
            false => None,
        }
    }

    /// Calls the tracepoint, if it was and is enabled, with a description of I/O. Any context.
    #[inline(always)]
    fn trace_captured(io: Option<IoTrace>, detail: i32)
    where
        Self: Sized,
    {
        if let Some(io) = io {
            if Self::is_enabled() {
                call::<Self>(io, detail);
            }
        }
    }
}

/// Whether a static key of C, a field of a static variable of C, is enabled.
///
/// As `kernel::jump_label::static_branch_unlikely!`, for modules out of the kernel tree.
#[doc(hidden)]
#[macro_export]
macro_rules! static_branch_unlikely {
    ($key:path, $keytyp:ty, $field:ident) => {'enabled: {
        #[cfg(CONFIG_JUMP_LABEL)]
        {
            ::kernel::asm!(
                include!(env!("KERNEL_EXT_STATIC_BRANCH"));
                l_yes = label {
                    break 'enabled true;
                },
                symb = sym $key,
                off = const ::core::mem::offset_of!($keytyp, $field),
                branch = const 0,
            );
            break 'enabled false;
        }
        #[cfg(not(CONFIG_JUMP_LABEL))]
        {
            let key: *const $keytyp = ::core::ptr::addr_of!($key);
            break 'enabled ::kernel::bindings::static_key_count(
                ::core::ptr::addr_of!((*key).$field).cast_mut().cast(),
            ) > 0;
        }
    }};
}

/// Declares tracepoints that C defines: a type for each, with the operations of [`IoTracepoint`].
///
/// The C part is a header with the events, and a file with:
///
/// ```c
/// #define CREATE_TRACE_POINTS
/// #define CREATE_RUST_TRACE_POINTS
/// #include "driver_events.h"
///
/// RUST_IO_TRACEPOINT(driver_start)
/// ```
///
/// Without `CONFIG_TRACEPOINTS` there is no code, and the C part is not needed.
///
/// # Examples
///
/// ```
/// use kernel_ext::tracepoint::{IoTracepoint, Traced};
///
/// kernel_ext::declare_io_tracepoints! {
///     /// The driver starts I/O.
///     struct Start = driver_start;
/// }
///
/// fn start(io: &impl Traced) {
///     Start::trace(io, 0);
/// }
/// ```
#[macro_export]
macro_rules! declare_io_tracepoints {
    ($($(#[$attr:meta])* $vis:vis struct $type:ident = $name:ident;)*) => {$(
        $(#[$attr])*
        $vis struct $type;

        #[cfg(CONFIG_TRACEPOINTS)]
        ::kernel::macros::paste! {
            const _: () = {
                extern "C" {
                    static [< __tracepoint_ $name >]: $crate::tracepoint::RawTracepoint;
                    fn [< rust_io_trace_ $name >](io: *const $crate::tracepoint::IoTrace);
                }

                impl $crate::tracepoint::IoTracepoint for $type {
                    #[inline(always)]
                    fn is_enabled() -> bool {
                        // SAFETY: The key is that of a tracepoint, which C defines.
                        unsafe {
                            $crate::static_branch_unlikely!(
                                [< __tracepoint_ $name >],
                                $crate::tracepoint::RawTracepoint,
                                key
                            )
                        }
                    }

                    fn call(io: &$crate::tracepoint::IoTrace) {
                        // SAFETY: `RUST_IO_TRACEPOINT()` alone defines functions of this name.
                        unsafe { [< rust_io_trace_ $name >](io) }
                    }
                }
            };
        }

        #[cfg(not(CONFIG_TRACEPOINTS))]
        impl $crate::tracepoint::IoTracepoint for $type {
            #[inline(always)]
            fn is_enabled() -> bool {
                false
            }

            fn call(_io: &$crate::tracepoint::IoTrace) {}
        }
    )*};
}
