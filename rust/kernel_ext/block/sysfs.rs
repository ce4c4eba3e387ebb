// SPDX-License-Identifier: GPL-2.0

//! Sysfs attributes of disks.
//!
//! C header: [`include/linux/sysfs.h`](srctree/include/linux/sysfs.h)
//!
//! # Soundness
//!
//! | What safe code could try | What stops it |
//! | --- | --- |
//! | Write beyond the page | [`Page`] keeps to its bounds |
//! | Keep page or disk after `show` | They are lent for the call |
//! | Show another driver's disks | Disk, group and attribute have one `T`, exactly |
//! | Free or change a group in use | Groups are `'static`, and their fields private |
//! | Leave out the end of the list | [`AttributeList::new`] checks, when compiled |
//! | Add a group twice | `EEXIST` |
//! | Remove a group that is not there | The C function finds none |
//! | Add or remove one while the disk is removed | `with_live_device` excludes that, or does nothing |
//! | Have `show` called for a freed disk | The removal of the disk waits for it |
//! | Remove a group, or send an event, in `show` | Nothing; it deadlocks |

use crate::{
    bindings,
    block::{GenDisk, Operations},
};
use core::marker::PhantomData;
use kernel::{error::to_result, ffi::c_char, fmt, prelude::*};

/// The page that an attribute's value is written to.
pub struct Page<'a> {
    buf: &'a mut [u8],
    len: usize,
}

impl Page<'_> {
    /// The rest of the page.
    pub fn rest(&mut self) -> &mut [u8] {
        self.buf.get_mut(self.len..).unwrap_or(&mut [])
    }

    /// Marks `n` more bytes as written.
    pub fn advance(&mut self, n: usize) {
        self.len = self.len.saturating_add(n).min(self.buf.len());
    }

    /// Appends bytes, as many as fit.
    pub fn push(&mut self, bytes: &[u8]) {
        let rest = self.rest();
        let n = bytes.len().min(rest.len());
        for (to, from) in rest.iter_mut().zip(bytes) {
            *to = *from;
        }
        self.len += n;
    }
}

impl fmt::Write for Page<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.push(s.as_bytes());
        Ok(())
    }
}

/// A read-only attribute of disks with operations `T`.
pub trait Attribute<T: Operations> {
    /// The file's name.
    const NAME: &'static CStr;

    /// Writes the value to `page`. Process context; may sleep, but must not wait for the removal of
    /// the attribute, nor send events of the disk: the task that removes the attribute holds the
    /// lock for that.
    fn show(disk: &GenDisk<T>, page: &mut Page<'_>) -> Result;
}

/// The C form of an [`Attribute`] of disks with operations `T`.
#[repr(transparent)]
pub struct RawAttribute<T>(bindings::device_attribute, PhantomData<fn(T) -> T>);

// SAFETY: Never changed after it was made.
unsafe impl<T> Sync for RawAttribute<T> {}

impl<T: Operations> RawAttribute<T> {
    /// Makes the C form of `A`.
    #[allow(clippy::needless_update)] // Lockdep adds fields to `struct attribute`.
    pub const fn new<A: Attribute<T>>() -> Self {
        Self(
            bindings::device_attribute {
                attr: bindings::attribute {
                    name: kernel::str::as_char_ptr_in_const_context(A::NAME),
                    mode: 0o444,
                    ..pin_init::zeroed()
                },
                __bindgen_anon_1: bindings::device_attribute__bindgen_ty_1 {
                    show: Some(show::<T, A>),
                },
                ..pin_init::zeroed()
            },
            PhantomData,
        )
    }
}

/// Attributes, up to the first `None`.
///
/// # Invariants
///
/// The last element is `None`. As a reference in an `Option` has the layout of a pointer, the list
/// is a null-terminated array of pointers.
#[repr(transparent)]
pub struct AttributeList<T: 'static, const N: usize>([Option<&'static RawAttribute<T>>; N]);

impl<T: Operations, const N: usize> AttributeList<T, N> {
    /// Makes a list, whose last element must be `None`.
    pub const fn new(list: [Option<&'static RawAttribute<T>>; N]) -> Self {
        assert!(N > 0 && list[N - 1].is_none());
        // INVARIANT: Checked above.
        Self(list)
    }

    /// Makes a group of these attributes, in a directory called `name`.
    pub const fn group(&'static self, name: &'static CStr) -> Group<T> {
        Group {
            raw: bindings::attribute_group {
                name: kernel::str::as_char_ptr_in_const_context(name),
                __bindgen_anon_2: bindings::attribute_group__bindgen_ty_2 {
                    attrs: core::ptr::from_ref(self).cast_mut().cast(),
                },
                ..pin_init::zeroed()
            },
            _p: PhantomData,
        }
    }
}

/// A directory of attributes of disks with operations `T`; made by
/// [`disk_attribute_group!`](crate::disk_attribute_group).
pub struct Group<T> {
    raw: bindings::attribute_group,
    _p: PhantomData<fn(T) -> T>,
}

// SAFETY: Never changed after it was made.
unsafe impl<T> Sync for Group<T> {}

/// Declares a static [`Group`] of [`Attribute`]s.
#[macro_export]
macro_rules! disk_attribute_group {
    ($(#[$meta:meta])* $vis:vis static $group:ident: $ops:ty = $name:literal {
        $($attr:ty),+ $(,)?
    }) => {
        $(#[$meta])*
        $vis static $group: $crate::block::sysfs::Group<$ops> = {
            static LIST: $crate::block::sysfs::AttributeList<
                $ops,
                { [$(stringify!($attr)),+].len() + 1 },
            > = $crate::block::sysfs::AttributeList::new([
                $({
                    static RAW: $crate::block::sysfs::RawAttribute<$ops> =
                        $crate::block::sysfs::RawAttribute::new::<$attr>();
                    Some(&RAW)
                },)+
                None,
            ]);
            LIST.group($name)
        };
    };
}

impl<T: Operations> GenDisk<T> {
    /// Adds a group of attributes to the disk's directory. May sleep.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the disk is being removed, `EEXIST` if the directory has an entry of that name.
    ///
    /// Wraps the C function `sysfs_create_group`.
    pub fn add_group(&self, group: &'static Group<T>) -> Result {
        self.with_live_device(|| {
            // `sysfs_create_group()` would dump the stack.
            if self.has_entry(group.raw.name) {
                return Err(EEXIST);
            }
            // SAFETY: The disk is valid, and has its directory; the group is static, and its
            // attributes take a disk with operations `T`.
            to_result(unsafe { bindings::sysfs_create_group(self.kobject(), &group.raw) })
        })
        .unwrap_or(Err(ENODEV))
    }

    /// Whether the disk's directory has an entry called `name`. The disk is in sysfs.
    fn has_entry(&self, name: *const c_char) -> bool {
        // SAFETY: The disk is valid, and has its directory; `name` is a string.
        let entry = unsafe {
            bindings::kernfs_find_and_get_ns((*self.kobject()).sd, name, core::ptr::null())
        };
        // SAFETY: Found, and referenced, above; null is ignored.
        unsafe { bindings::kernfs_put(entry) };
        !entry.is_null()
    }

    /// Removes a group of attributes, and waits for its readers. May sleep. Does nothing if the
    /// disk is being removed, which removes the group.
    ///
    /// Wraps the C function `sysfs_remove_group`.
    pub fn remove_group(&self, group: &'static Group<T>) {
        // SAFETY: As in `add_group`.
        self.with_live_device(|| unsafe {
            bindings::sysfs_remove_group(self.kobject(), &group.raw)
        });
    }
}

/// # Safety
///
/// Called by sysfs only, for an attribute added by [`GenDisk::add_group`] to a disk with
/// operations `T`.
unsafe extern "C" fn show<T: Operations, A: Attribute<T>>(
    dev: *mut bindings::device,
    _attr: *mut bindings::device_attribute,
    buf: *mut c_char,
) -> isize {
    // SAFETY: The device of a disk is that of its whole-disk block device.
    let bdev = unsafe { kernel::container_of!(dev, bindings::block_device, bd_device) };
    // SAFETY: By the requirements of this function. Whoever removes the attribute or the device
    // waits for readers, and holds a reference to the disk meanwhile.
    let disk = unsafe { GenDisk::<T>::from_raw((*bdev).bd_disk) };
    // SAFETY: Sysfs passes a zeroed page that is ours for the call. It reports a value that fills
    // the page as an overrun.
    let buf = unsafe { core::slice::from_raw_parts_mut(buf.cast::<u8>(), bindings::PAGE_SIZE - 1) };
    let mut page = Page { buf, len: 0 };
    match A::show(disk, &mut page) {
        Ok(()) => page.len as isize,
        Err(e) => e.to_errno() as isize,
    }
}
