// SPDX-License-Identifier: GPL-2.0

//! `/sys/block/loopN/loop/`, there while the device is bound.

use crate::{
    backing::Binding,
    config::{Flag, Range},
    device::LoopOps,
};
use kernel::{
    fmt::{self, Write},
    prelude::*,
    sync::Arc,
};
use kernel_ext::{
    block::{
        sysfs::{Attribute, Page},
        GenDisk,
    },
    disk_attribute_group,
    fs::FileExt,
};

disk_attribute_group! {
    pub(crate) static GROUP: LoopOps = c"loop" {
        BackingFile, Offset, SizeLimit, AutoClear, PartScan, Dio, Stat,
    }
}

fn binding(disk: &GenDisk<LoopOps>) -> Option<Arc<Binding>> {
    disk.data().pool().binding()
}

fn line(page: &mut Page<'_>, args: fmt::Arguments<'_>) -> Result {
    page.write_fmt(args)?;
    page.push(b"\n");
    Ok(())
}

/// The path of the backing file.
struct BackingFile;

impl Attribute<LoopOps> for BackingFile {
    const NAME: &'static CStr = c"backing_file";

    fn show(disk: &GenDisk<LoopOps>, page: &mut Page<'_>) -> Result {
        let Some(binding) = binding(disk) else {
            return Ok(());
        };
        // The path ends, with its null byte, where the buffer does. That leaves room for the line's
        // end.
        let len = {
            let buf = page.rest();
            let room = buf.len();
            let len = binding.file().path(buf)?.len();
            let start = room.saturating_sub(len + 1);
            buf.copy_within(start..start + len, 0);
            len
        };
        page.advance(len);
        page.push(b"\n");
        Ok(())
    }
}

macro_rules! range_attribute {
    ($(#[$meta:meta])* $name:ident, $file:literal, $field:ident) => {
        $(#[$meta])*
        struct $name;

        impl Attribute<LoopOps> for $name {
            const NAME: &'static CStr = $file;

            fn show(disk: &GenDisk<LoopOps>, page: &mut Page<'_>) -> Result {
                let value = |range: &Range| range.$field;
                line(page, fmt!("{}", binding(disk).map_or(0, |b| value(&b.range))))
            }
        }
    };
}

macro_rules! flag_attribute {
    ($(#[$meta:meta])* $name:ident, $file:literal, $flag:expr) => {
        $(#[$meta])*
        struct $name;

        impl Attribute<LoopOps> for $name {
            const NAME: &'static CStr = $file;

            fn show(disk: &GenDisk<LoopOps>, page: &mut Page<'_>) -> Result {
                let on = binding(disk).is_some_and(|b| b.flags.has($flag));
                line(page, fmt!("{}", u8::from(on)))
            }
        }
    };
}

range_attribute!(
    /// Where in the file the device starts, in bytes.
    Offset, c"offset", offset
);
range_attribute!(
    /// The most that the device shows of the file, in bytes; 0 for all.
    SizeLimit, c"sizelimit", sizelimit
);
flag_attribute!(
    /// Whether the device is unbound when it is last closed.
    AutoClear, c"autoclear", Flag::AUTOCLEAR
);
flag_attribute!(
    /// Whether the device is scanned for partitions.
    PartScan, c"partscan", Flag::PARTSCAN
);
flag_attribute!(
    /// Whether the file is read and written past the page cache.
    Dio, c"dio", Flag::DIRECT_IO
);

/// What was done for all cgroups together: see [`stats`](crate::stats).
struct Stat;

impl Attribute<LoopOps> for Stat {
    const NAME: &'static CStr = c"stat";

    fn show(disk: &GenDisk<LoopOps>, page: &mut Page<'_>) -> Result {
        line(page, fmt!("{}", disk.data().pool().report()))
    }
}
