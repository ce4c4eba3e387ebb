// SPDX-License-Identifier: GPL-2.0

//! Capabilities.
//!
//! C header: [`include/linux/capability.h`](srctree/include/linux/capability.h)
//!
//! # Soundness
//!
//! | What safe code could try | What stops it |
//! | --- | --- |
//! | Ask for a capability that does not exist | The number is a constant |
//! | Ask in an interrupt | Nothing; the answer is about the interrupted task |

use crate::bindings;

/// Whether the current task has `CAP_SYS_ADMIN` in the initial user namespace. Process context.
///
/// Wraps the C function `capable`.
pub fn capable_sys_admin() -> bool {
    // SAFETY: No requirements.
    unsafe { bindings::capable(bindings::CAP_SYS_ADMIN as i32) }
}
