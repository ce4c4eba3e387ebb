// SPDX-License-Identifier: GPL-2.0

//! The supertraits of [`Transfer`](super::Transfer) and [`Submit`](super::Submit) that only this
//! crate can implement or call.

use super::kiocb::KiocbState;
use crate::bindings;
use kernel::prelude::*;

/// I/O that consists of bios.
///
/// # Safety
///
/// - [`bios`](Self::bios) returns the first and the last of a chain of valid bios, which stays as
///   it is until the I/O completes or advances, or two null pointers. `Transfer::len` is the number
///   of their bytes. The bios of a read or a write have data.
/// - [`kiocb`](Self::kiocb) returns a pointer to a [`KiocbState`] that is valid for as long as the
///   I/O is borrowed, and accessed by its owner only.
pub unsafe trait RawIo: Sized {
    /// Returns the first and the last bio.
    fn bios(&self) -> (*mut bindings::bio, *mut bindings::bio);

    /// Returns the state of the I/O's kiocb.
    fn kiocb(&mut self) -> *mut KiocbState;
}

/// I/O that stays where it is.
///
/// # Safety
///
/// - The result of [`kiocb`](RawIo::kiocb) stays valid until the I/O completes.
/// - [`from_kiocb`](Self::from_kiocb) of the result of [`into_kiocb`](Self::into_kiocb) is the same
///   I/O again.
pub unsafe trait RawSubmit: RawIo {
    /// Gives up ownership without completing the I/O.
    fn into_kiocb(mut self) -> *mut KiocbState {
        let io = self.kiocb();
        core::mem::forget(self);
        io
    }

    /// Takes ownership back.
    ///
    /// # Safety
    ///
    /// `io` came from [`into_kiocb`](Self::into_kiocb), and is used for this once.
    unsafe fn from_kiocb(io: *mut KiocbState) -> Self;

    /// Calls the driver's completion callback, in any context.
    fn complete_io(self, result: Result<usize>);

    /// Calls the driver's callback for a page that is unlocked, in any context.
    fn read_ready(self);
}
