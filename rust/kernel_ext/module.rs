// SPDX-License-Identifier: GPL-2.0

//! References to modules.
//!
//! C header: [`include/linux/module.h`](srctree/include/linux/module.h)
//!
//! # Soundness
//!
//! | What safe code could try | What stops it |
//! | --- | --- |
//! | Take a reference as the module goes | `ENODEV` |
//! | Give back one that was not taken | Dropping does, and [`ModuleRef`] is no `Clone` |
//! | Name a module that is not loaded | Its type is of code that this code is linked with |
//! | Forget a reference | Nothing; the module stays |

use crate::bindings;
use core::marker::PhantomData;
use kernel::{module::this_module, prelude::*, ModuleMetadata};

/// Keeps the module `M` from being unloaded.
///
/// A module that drops a reference to itself must be held by something else at that time.
pub struct ModuleRef<M: ModuleMetadata>(PhantomData<M>);

impl<M: ModuleMetadata> ModuleRef<M> {
    /// Takes a reference.
    ///
    /// # Errors
    ///
    /// `ENODEV` when the module is being unloaded.
    ///
    /// Wraps the C function `try_module_get`.
    pub fn get() -> Result<Self> {
        // SAFETY: The pointer is that of a module that is loaded, as its code calls this.
        if unsafe { bindings::try_module_get(this_module::<M>().as_ptr()) } {
            Ok(Self(PhantomData))
        } else {
            Err(ENODEV)
        }
    }
}

impl<M: ModuleMetadata> Drop for ModuleRef<M> {
    fn drop(&mut self) {
        // SAFETY: We own a reference.
        unsafe { bindings::module_put(this_module::<M>().as_ptr()) }
    }
}
