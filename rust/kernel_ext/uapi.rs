// SPDX-License-Identifier: GPL-2.0

//! Interfaces with user space, as in the kernel's `uapi` crate.

/// [`include/uapi/linux/loop.h`](srctree/include/uapi/linux/loop.h)
pub mod loop_ {
    use crate::bindings::{self, generated};
    use kernel::transmute::{AsBytes, FromBytes};

    pub use generated::{
        loop_config, loop_info64, LOOP_CHANGE_FD, LOOP_CLR_FD, LOOP_CONFIGURE, LOOP_CTL_ADD,
        LOOP_CTL_GET_FREE, LOOP_CTL_REMOVE, LOOP_GET_STATUS, LOOP_GET_STATUS64,
        LOOP_SET_BLOCK_SIZE, LOOP_SET_CAPACITY, LOOP_SET_DIRECT_IO, LOOP_SET_FD, LOOP_SET_STATUS,
        LOOP_SET_STATUS64, LO_KEY_SIZE, LO_NAME_SIZE,
    };

    pub use generated::{
        LO_FLAGS_AUTOCLEAR, LO_FLAGS_DIRECT_IO, LO_FLAGS_PARTSCAN, LO_FLAGS_READ_ONLY,
    };

    /// Major number of loop devices (`LOOP_MAJOR`).
    pub const LOOP_MAJOR: u32 = bindings::LOOP_MAJOR;

    /// Minor number of `/dev/loop-control` (`LOOP_CTRL_MINOR`).
    pub const LOOP_CTRL_MINOR: u32 = bindings::LOOP_CTRL_MINOR;

    /// How many devices there are at first (`CONFIG_BLK_DEV_LOOP_MIN_COUNT`).
    pub const DEFAULT_COUNT: i32 = bindings::CONFIG_BLK_DEV_LOOP_MIN_COUNT as i32;

    macro_rules! plain_data {
        ($($(#[$meta:meta])* $name:ident: $c:ident, $size:expr;)*) => {$(
            $(#[$meta])*
            #[derive(Default)]
            #[repr(transparent)]
            pub struct $name(pub generated::$c);

            // No padding: the size is that of the fields.
            const _: () = assert!(core::mem::size_of::<$name>() == $size);

            // SAFETY: A C struct of integers and arrays of integers.
            unsafe impl FromBytes for $name {}

            // SAFETY: As above, and without padding, as is checked above.
            unsafe impl AsBytes for $name {}

            impl core::ops::Deref for $name {
                type Target = generated::$c;

                fn deref(&self) -> &Self::Target {
                    &self.0
                }
            }

            impl core::ops::DerefMut for $name {
                fn deref_mut(&mut self) -> &mut Self::Target {
                    &mut self.0
                }
            }
        )*};
    }

    plain_data! {
        /// `struct loop_info64`.
        LoopInfo64: loop_info64, { 8 * 5 + 4 * 4 + 64 + 64 + 32 + 16 };
        /// `struct loop_config`.
        LoopConfig: loop_config, { 4 + 4 + 232 + 64 };
    }
}
