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
        ($($(#[$meta:meta])* $name:ident: $size:expr, $dev:ty, $word:ty,
           [$($pad:ident: $pad_ty:ty = $zero:expr),*],
           { $($field:ident: $ty:ty,)* })*) => {$(
            $(#[$meta])*
            #[derive(Clone, Copy)]
            #[repr(C)]
            #[allow(dead_code)] // What is there only to be at its place.
            pub struct $name { $($field: $ty,)* }

            // No padding: the fields make up the whole.
            const _: () = assert!(
                core::mem::size_of::<$name>() == $size
                    && 0 $(+ core::mem::size_of::<$ty>())* == $size
            );

            // SAFETY: Integers and arrays of integers.
            unsafe impl FromBytes for $name {}

            // SAFETY: As above, and without padding, as is checked above.
            unsafe impl AsBytes for $name {}

            impl OldInfo for $name {
                #[allow(clippy::cast_lossless)]
                fn to_info64(&self) -> loop_info64 {
                    loop_info64 {
                        lo_number: self.lo_number as u32,
                        lo_device: self.lo_device as u64,
                        lo_inode: self.lo_inode as u64,
                        lo_rdevice: self.lo_rdevice as u64,
                        // With its sign, so that a negative offset is none that there is.
                        lo_offset: i64::from(self.lo_offset) as u64,
                        lo_flags: self.lo_flags as u32,
                        lo_file_name: self.lo_name,
                        ..Default::default()
                    }
                }

                fn from_info64(info: &loop_info64) -> Option<Self> {
                    Some(Self {
                        lo_number: info.lo_number as i32,
                        lo_device: <$dev>::try_from(info.lo_device).ok()?,
                        lo_inode: <$word>::try_from(info.lo_inode).ok()?,
                        lo_rdevice: <$dev>::try_from(info.lo_rdevice).ok()?,
                        lo_offset: info.lo_offset.try_into().ok()?,
                        lo_encrypt_type: 0,
                        lo_encrypt_key_size: 0,
                        lo_flags: info.lo_flags as i32,
                        lo_name: info.lo_file_name,
                        lo_encrypt_key: [0; 32],
                        lo_init: [0; 2],
                        reserved: [0; 4],
                        $($pad: $zero,)*
                    })
                }
            }
        )*};
    }

    old_info! {
        /// `struct loop_info` of 64-bit tasks.
        LoopInfo: core::mem::size_of::<generated::loop_info>(), u64, u64,
        [pad0: u32 = 0, pad1: u32 = 0],
        {
            lo_number: i32,
            pad0: u32,
            lo_device: u64,
            lo_inode: u64,
            lo_rdevice: u64,
            lo_offset: i32,
            lo_encrypt_type: i32,
            lo_encrypt_key_size: i32,
            lo_flags: i32,
            lo_name: [u8; LO_NAME_SIZE as usize],
            lo_encrypt_key: [u8; LO_KEY_SIZE as usize],
            lo_init: [u64; 2],
            reserved: [u8; 4],
            pad1: u32,
        }
        /// `struct loop_info` of 32-bit tasks (`struct compat_loop_info`).
        CompatLoopInfo: 140, u16, u32,
        [pad0: u16 = 0, pad1: u16 = 0],
        {
            lo_number: i32,
            lo_device: u16,
            pad0: u16,
            lo_inode: u32,
            lo_rdevice: u16,
            pad1: u16,
            lo_offset: i32,
            lo_encrypt_type: i32,
            lo_encrypt_key_size: i32,
            lo_flags: i32,
            lo_name: [u8; LO_NAME_SIZE as usize],
            lo_encrypt_key: [u8; LO_KEY_SIZE as usize],
            lo_init: [u32; 2],
            reserved: [u8; 4],
        }
    }
}
