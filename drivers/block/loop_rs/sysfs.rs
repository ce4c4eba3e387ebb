// SPDX-License-Identifier: GPL-2.0

//! `/sys/block/loopN/loop/`, which exists while the device is bound.

use crate::{
    backing::Binding,
    cgroup_queue::{with_queues, LoopOps},
    config::{Flag, Range},
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

/// The binding of the device, if it is bound.
fn binding(disk: &GenDisk<LoopOps>) -> Option<Arc<Binding>> {
    with_queues(disk, |queues| queues.binding())
}

/// Shows one line.
fn show_line(page: &mut Page<'_>, args: fmt::Arguments<'_>) -> Result {
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
        // path() puts the path and its null byte at the end of the buffer. The null byte leaves
        // room for the newline.
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
                show_line(page, fmt!("{}", binding(disk).map_or(0, |b| value(&b.range))))
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
                show_line(page, fmt!("{}", u8::from(on)))
            }
        }
    };
}

range_attribute!(
    /// Start of the range of the file that the device maps, in bytes.
    Offset, c"offset", offset
);
range_attribute!(
    /// Maximum length of the range, in bytes; 0 means up to the end of the file.
    SizeLimit, c"sizelimit", sizelimit
);
flag_attribute!(
    /// Whether the last close unbinds the device.
    AutoClear, c"autoclear", Flag::AUTOCLEAR
);
flag_attribute!(
    /// Whether the kernel scans the device for partitions.
    PartScan, c"partscan", Flag::PARTSCAN
);
flag_attribute!(
    /// Whether I/O to the backing file is direct I/O.
    Dio, c"dio", Flag::DIRECT_IO
);

/// Statistics of all cgroups together: see [`stats`](crate::stats).
struct Stat;

impl Attribute<LoopOps> for Stat {
    const NAME: &'static CStr = c"stat";

    fn show(disk: &GenDisk<LoopOps>, page: &mut Page<'_>) -> Result {
        let report = with_queues(disk, |queues| queues.report());
        show_line(page, fmt!("{report}"))
    }
}
