// SPDX-License-Identifier: GPL-2.0

//! Interfaces with user space, as in the kernel's `uapi` crate.
//!
//! # Soundness
//!
//! | What safe code could try | What stops it |
//! | --- | --- |
//! | Copy out uninitialised padding | There is none: sizes are checked, when compiled |
//! | Copy in an invalid value | All fields are integers, and arrays of them |

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

    /// The number of devices at first, by the kernel's configuration.
    pub const DEFAULT_COUNT: i32 = bindings::LOOP_MIN_COUNT;

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

    /// The old form of `struct loop_info64`, in the layout of one kind of task.
    pub trait OldInfo: FromBytes + AsBytes + Sized {
        /// Returns its fields as a `struct loop_info64`; the rest is 0.
        fn to_info64(&self) -> loop_info64;

        /// Returns the old form, or `None` when it has no room for a value.
        fn from_info64(info: &loop_info64) -> Option<Self>;
    }

    macro_rules! old_info {
        ($($(#[$meta:meta])* $name:ident: $c:ident;)*) => {$(
            $(#[$meta])*
            #[derive(Clone, Copy)]
            #[repr(transparent)]
            pub struct $name([u8; core::mem::size_of::<generated::$c>()]);

            // SAFETY: An array of bytes.
            unsafe impl FromBytes for $name {}

            // SAFETY: An array of bytes. Those that are padding in the C struct are initialised,
            // too.
            unsafe impl AsBytes for $name {}

            impl OldInfo for $name {
                #[allow(clippy::cast_lossless, clippy::unnecessary_cast)]
                fn to_info64(&self) -> loop_info64 {
                    // SAFETY: A C struct of integers and arrays of integers, of that size.
                    let info: generated::$c = unsafe { core::mem::transmute(self.0) };
                    loop_info64 {
                        lo_number: info.lo_number as u32,
                        lo_device: info.lo_device as u64,
                        lo_inode: info.lo_inode as u64,
                        lo_rdevice: info.lo_rdevice as u64,
                        // With its sign, so that a negative offset is none that there is.
                        lo_offset: i64::from(info.lo_offset) as u64,
                        lo_flags: info.lo_flags as u32,
                        lo_file_name: info.lo_name,
                        ..Default::default()
                    }
                }

                fn from_info64(info: &loop_info64) -> Option<Self> {
                    let mut old = Self([0; core::mem::size_of::<generated::$c>()]);
                    let fields = old.0.as_mut_ptr().cast::<generated::$c>();
                    macro_rules! set {
                        ($field:ident, $value:expr) => {
                            // SAFETY: The bytes of a field of the struct, which may be unaligned.
                            unsafe { (&raw mut (*fields).$field).write_unaligned($value) }
                        };
                    }
                    set!(lo_number, info.lo_number as i32);
                    set!(lo_device, info.lo_device.try_into().ok()?);
                    set!(lo_inode, info.lo_inode.try_into().ok()?);
                    set!(lo_rdevice, info.lo_rdevice.try_into().ok()?);
                    set!(lo_offset, info.lo_offset.try_into().ok()?);
                    set!(lo_flags, info.lo_flags as i32);
                    set!(lo_name, info.lo_file_name);
                    Some(old)
                }
            }
        )*};
    }

    old_info! {
        /// `struct loop_info`, of tasks with the kernel's word size.
        LoopInfo: loop_info;
        /// `struct compat_loop_info`, of 32-bit tasks.
        CompatLoopInfo: compat_loop_info;
    }
}
