// SPDX-License-Identifier: GPL-2.0

//! Module parameters that can be read in sysfs.
//!
//! The `params` of the kernel crate's `module!` do not appear under `/sys/module/*/parameters`;
//! those declared by [`module_params!`](crate::module_params) do, and can refuse a value.
//!
//! C header: [`include/linux/moduleparam.h`](srctree/include/linux/moduleparam.h)
//!
//! # Soundness
//!
//! | What safe code could try | What stops it |
//! | --- | --- |
//! | Read a value while it is set | It is atomic |
//! | Have a parameter that is freed | It is `'static` |
//! | Take another type for a parameter | `RawParam::new` pairs it with its operations |
//! | Set something else at boot | `RawSetup::new` and `IntParam::set_up` are `unsafe` |

use crate::bindings;
use kernel::{
    error::to_result,
    ffi::{c_char, c_int},
    fmt::{self, Write},
    prelude::*,
    sync::atomic::{Atomic, Relaxed},
};

/// An integer parameter.
pub struct IntParam {
    value: Atomic<i32>,
    given: Atomic<i32>,
    min: i32,
}

impl IntParam {
    /// Creates a parameter with a default. A given value must be at least `min`.
    pub const fn new(default: i32, min: i32) -> Self {
        Self {
            value: Atomic::new(default),
            given: Atomic::new(0),
            min,
        }
    }

    /// The value.
    pub fn value(&self) -> i32 {
        self.value.load(Relaxed)
    }

    /// Replaces the value, which user space can read.
    pub fn set(&self, value: i32) {
        self.value.store(value, Relaxed);
    }

    /// Whether a value was given when the module was loaded.
    pub fn is_given(&self) -> bool {
        self.given.load(Relaxed) != 0
    }

    /// # Safety
    ///
    /// `val` is a string.
    unsafe fn parse(&self, val: *const c_char) -> Result {
        let mut value = 0;
        // SAFETY: By the requirements of this function.
        to_result(unsafe { bindings::kstrtoint(val, 0, &mut value) })?;
        if value < self.min {
            return Err(EINVAL);
        }
        self.value.store(value, Relaxed);
        self.given.store(1, Relaxed);
        Ok(())
    }

    /// Sets the parameter to the value after its name on the kernel's command line, if that is
    /// valid. Returns 1 in any case: with 0 the kernel would pass the argument to init.
    ///
    /// # Safety
    ///
    /// `val` is a string.
    #[doc(hidden)]
    pub unsafe fn set_up(&self, val: *const c_char) -> c_int {
        // SAFETY: By the requirements of this function.
        let _ = unsafe { self.parse(val) };
        1
    }
}

/// # Safety
///
/// Called by the module loader only, for a parameter declared by `module_params!`.
unsafe extern "C" fn set(val: *const c_char, param: *const bindings::kernel_param) -> c_int {
    // SAFETY: `arg` of such a parameter points to a static `IntParam`.
    let this = unsafe { &*(*param).__bindgen_anon_1.arg.cast::<IntParam>() };
    // SAFETY: `val` is a string; without `KERNEL_PARAM_OPS_FL_NOARG` it is not null.
    match unsafe { this.parse(val) } {
        Ok(()) => 0,
        Err(e) => e.to_errno(),
    }
}

/// # Safety
///
/// As for [`set`]; `buf` is a page.
unsafe extern "C" fn get(buf: *mut c_char, param: *const bindings::kernel_param) -> c_int {
    struct Buf<'a>(&'a mut [u8], usize);

    impl fmt::Write for Buf<'_> {
        fn write_str(&mut self, s: &str) -> fmt::Result {
            for (to, from) in self.0.iter_mut().skip(self.1).zip(s.bytes()) {
                *to = from;
                self.1 += 1;
            }
            Ok(())
        }
    }

    // SAFETY: As in `set`.
    let this = unsafe { &*(*param).__bindgen_anon_1.arg.cast::<IntParam>() };
    // SAFETY: By the requirements of this function.
    let page = unsafe { core::slice::from_raw_parts_mut(buf.cast::<u8>(), bindings::PAGE_SIZE) };
    let mut out = Buf(page, 0);
    // Cannot fail.
    let _ = writeln!(out, "{}", this.value());
    out.1 as c_int
}

/// The operations of an [`IntParam`].
#[doc(hidden)]
pub static INT_PARAM_OPS: bindings::kernel_param_ops = bindings::kernel_param_ops {
    set: Some(set),
    get: Some(get),
    ..pin_init::zeroed()
};

/// A `struct kernel_param` of an [`IntParam`].
#[doc(hidden)]
#[repr(transparent)]
pub struct RawParam(bindings::kernel_param);

// SAFETY: The module loader serialises access to it.
unsafe impl Sync for RawParam {}

impl RawParam {
    /// Makes one, shown in sysfs and readable by all.
    ///
    /// The name is [`qualified`], with its null byte.
    #[doc(hidden)]
    pub const fn new<M: kernel::ModuleMetadata>(
        name: &'static [u8],
        param: &'static IntParam,
    ) -> Self {
        let Ok(name) = core::ffi::CStr::from_bytes_with_nul(name) else {
            build_error!("not the name of a parameter");
        };
        Self(bindings::kernel_param {
            name: kernel::str::as_char_ptr_in_const_context(name),
            mod_: crate::compat::this_module::<M>().as_ptr(),
            ops: &raw const INT_PARAM_OPS,
            perm: 0o444,
            level: -1,
            __bindgen_anon_1: bindings::kernel_param__bindgen_ty_1 {
                arg: core::ptr::from_ref(param).cast_mut().cast(),
            },
            ..pin_init::zeroed()
        })
    }
}

/// Declares the [`IntParam`]s of a module, each as a static of its name.
///
/// ```ignore
/// module_params! {
///     MyModule;
///     /// Documentation.
///     depth: int = 128, min 1, "Description for modinfo";
/// }
/// ```
#[macro_export]
macro_rules! module_params {
    ($module:ty; $($(#[$meta:meta])*
       $name:ident: int = $default:expr, min $min:expr, $description:literal;)*) => {$(
        $(#[$meta])*
        #[allow(non_upper_case_globals)]
        pub(crate) static $name: $crate::module_param::IntParam =
            $crate::module_param::IntParam::new($default, $min);

        const _: () = {
            use $crate::module_param::{qualified, qualified_len, RawParam};

            const MODULE: &::kernel::str::CStr = <$module as ::kernel::ModuleMetadata>::NAME;
            const NAME: &str = concat!(stringify!($name), "\0");
            const TYPE: &str = concat!("parmtype=", stringify!($name), ":int\0");
            const TEXT: &str = concat!("parm=", stringify!($name), ":", $description, "\0");

            #[link_section = "__param"]
            #[used(compiler)]
            static PARAM: RawParam = {
                const QUALIFIED: [u8; qualified_len(MODULE, NAME)] = qualified(MODULE, NAME);
                RawParam::new::<$module>(&QUALIFIED, &$name)
            };

            #[link_section = ".modinfo"]
            #[used(compiler)]
            static MODINFO_TYPE: [u8; qualified_len(MODULE, TYPE)] = qualified(MODULE, TYPE);

            #[link_section = ".modinfo"]
            #[used(compiler)]
            static MODINFO_TEXT: [u8; qualified_len(MODULE, TEXT)] = qualified(MODULE, TEXT);
        };
    )*};
}

/// A `struct obs_kernel_param`, which C hides from modules, and so from bindgen.
#[doc(hidden)]
#[repr(C)]
pub struct RawSetup {
    str: *const c_char,
    set_up: unsafe extern "C" fn(*mut c_char) -> c_int,
    early: c_int,
}

// SAFETY: It is only read.
unsafe impl Sync for RawSetup {}

impl RawSetup {
    /// Makes an entry for command line arguments that begin with `str`.
    ///
    /// # Safety
    ///
    /// `set_up` may be called with any string.
    #[doc(hidden)]
    pub const unsafe fn new(
        str: &'static CStr,
        set_up: unsafe extern "C" fn(*mut c_char) -> c_int,
    ) -> Self {
        Self {
            str: kernel::str::as_char_ptr_in_const_context(str),
            set_up,
            early: 0,
        }
    }
}

/// Has `NAME=` on the kernel's command line, without the name of the module, set an [`IntParam`],
/// when the driver is built in.
///
/// Wraps the C macro `__setup`.
#[macro_export]
macro_rules! setup_param {
    ($name:ident) => {
        #[cfg(not(MODULE))]
        const _: () = {
            use ::kernel::ffi::{c_char, c_int};

            /// # Safety
            ///
            /// Called by the kernel only, with the text after the name.
            unsafe extern "C" fn set_up(val: *mut c_char) -> c_int {
                // SAFETY: `val` is a string.
                unsafe { $name.set_up(val) }
            }

            #[link_section = ".init.setup"]
            #[used(compiler)]
            static SETUP: $crate::module_param::RawSetup = {
                // SAFETY: By its requirements.
                unsafe {
                    $crate::module_param::RawSetup::new(
                        ::kernel::c_str!(concat!(stringify!($name), "=")),
                        set_up,
                    )
                }
            };
        };
    };
}

/// The length of the result of [`qualified`].
#[doc(hidden)]
pub const fn qualified_len(module: &CStr, s: &str) -> usize {
    if cfg!(MODULE) {
        s.len()
    } else {
        module.count_bytes() + 1 + s.len()
    }
}

/// The bytes of a string; of a driver that is built in, with the name of the module and a dot in
/// front, since the parameters and the `.modinfo` of all of them are side by side.
#[doc(hidden)]
pub const fn qualified<const N: usize>(module: &CStr, s: &str) -> [u8; N] {
    let mut out = [0; N];
    let mut at = 0;
    if !cfg!(MODULE) {
        let module = module.to_bytes();
        while at < module.len() {
            out[at] = module[at];
            at += 1;
        }
        out[at] = b'.';
        at += 1;
    }
    let s = s.as_bytes();
    let mut i = 0;
    while i < s.len() {
        out[at + i] = s[i];
        i += 1;
    }
    out
}
