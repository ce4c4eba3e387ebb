// SPDX-License-Identifier: GPL-2.0

//! References to modules.
//!
//! C header: [`include/linux/module.h`](srctree/include/linux/module.h)
//!
//! # Soundness
//!
//! | What safe code could try | What stops it |
//! | --- | --- |
//! | Take a reference as the module goes | It is taken of who is [held](HoldsModule) already |
//! | Give back the last one in the module's own code | The same: it is not the last one |
//! | Give back one that was not taken | `put` takes it by value, and [`ModuleRef`] is no `Clone` |
//! | Drop or forget a reference | The module stays |

use crate::bindings;
use core::marker::PhantomData;
use kernel::{module::this_module, ModuleMetadata};

/// Shows that the module `M` is held by somebody else for as long as the current function, and those
/// that called it, are in its code.
///
/// # Safety
///
/// A value exists only while code of the module is called by somebody who holds a reference to it, and
/// gives that up after the call has returned. It cannot be used by another task.
pub unsafe trait HoldsModule<M: ModuleMetadata> {}

/// Keeps the module `M` from being unloaded.
///
/// When it is dropped, rather than given [back](Self::put), the module stays for good: the code that
/// gives back the last reference must not be the module's.
#[must_use = "the module stays for good when this is dropped"]
pub struct ModuleRef<M: ModuleMetadata>(PhantomData<fn(M) -> M>);

impl<M: ModuleMetadata> ModuleRef<M> {
    /// Takes a reference.
    ///
    /// Wraps the C function `__module_get`.
    pub fn get(_held: &impl HoldsModule<M>) -> Self {
        // SAFETY: Somebody holds the module already.
        unsafe { bindings::__module_get(this_module::<M>().as_ptr()) };
        Self(PhantomData)
    }

    /// Gives the reference back.
    ///
    /// Wraps the C function `module_put`.
    pub fn put(self, _held: &impl HoldsModule<M>) {
        // SAFETY: `get` took a reference, which `self` was. Somebody still holds the module until this
        // code has returned.
        unsafe { bindings::module_put(this_module::<M>().as_ptr()) }
    }
}
