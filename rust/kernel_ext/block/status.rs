// SPDX-License-Identifier: GPL-2.0

//! Completion status of block requests.
//!
//! # Soundness
//!
//! | What safe code could try | What stops it |
//! | --- | --- |
//! | Make up a status that the block layer lacks | The number is private |
//! | Convert an errno that has none | It becomes [`Status::IOERR`] |

use crate::bindings;
use kernel::prelude::*;

/// The completion status of a request or bio.
///
/// Wraps the C `blk_status_t`.
#[derive(Copy, Clone, PartialEq, Eq)]
#[repr(transparent)]
pub struct Status(bindings::blk_status_t);

impl Status {
    /// Success.
    pub const OK: Self = Self(0);
    /// The operation is not supported.
    pub const NOTSUPP: Self = Self(bindings::BLK_STS_NOTSUPP);
    /// An error without a status of its own.
    pub const IOERR: Self = Self(bindings::BLK_STS_IOERR);

    /// The name of the status in the block layer's messages. A status that drivers of this crate do
    /// not return is an "I/O" error.
    ///
    /// Corresponds to the C function `blk_status_to_str`.
    pub(crate) fn as_c_str(self) -> &'static CStr {
        match self.0 {
            0 => c"",
            bindings::BLK_STS_NOTSUPP => c"operation not supported",
            bindings::BLK_STS_NOSPC => c"critical space allocation",
            bindings::BLK_STS_TIMEOUT => c"timeout",
            bindings::BLK_STS_MEDIUM => c"critical medium",
            bindings::BLK_STS_PROTECTION => c"protection",
            bindings::BLK_STS_TARGET => c"critical target",
            bindings::BLK_STS_TRANSPORT => c"recoverable transport",
            bindings::BLK_STS_RESV_CONFLICT => c"reservation conflict",
            bindings::BLK_STS_RESOURCE => c"kernel resource",
            bindings::BLK_STS_AGAIN => c"nonblocking retry",
            _ => c"I/O",
        }
    }

    /// The number of the C `blk_status_t`, as the detail of a
    /// [tracepoint](crate::tracepoint::IoTracepoint).
    #[inline(always)]
    pub fn into_detail(self) -> i32 {
        self.0.into()
    }

    /// Returns the raw status.
    pub(crate) fn into_raw(self) -> bindings::blk_status_t {
        self.0
    }
}

impl From<Error> for Status {
    /// Wraps the C function `errno_to_blk_status`. An errno without a status becomes
    /// [`Status::IOERR`].
    fn from(error: Error) -> Self {
        // SAFETY: `errno_to_blk_status` takes any errno.
        Self(unsafe { bindings::errno_to_blk_status(error.to_errno()) })
    }
}

impl From<Result> for Status {
    fn from(result: Result) -> Self {
        match result {
            Ok(()) => Self::OK,
            Err(error) => error.into(),
        }
    }
}
