// SPDX-License-Identifier: GPL-2.0

//! Writes to the attributes of a device in sysfs.

use super::{Effect::Modify, Op};
use crate::world::{name, read, write, World};

pub fn op() -> Op {
    Op::new("writing to sysfs", Modify)
        .call("loop", |_, instance, _| {
            [
                "backing_file",
                "offset",
                "sizelimit",
                "autoclear",
                "partscan",
                "dio",
            ]
            .map(|file| {
                name(write(
                    &World::sysfs(instance.nr).join("loop").join(file),
                    "1\n",
                ))
            })
            .join(" ")
        })
        .call("the disk", |_, instance, _| {
            [
                "ro",
                "size",
                "removable",
                "range",
                "ext_range",
                "capability",
                "events",
            ]
            .map(|file| name(write(&World::sysfs(instance.nr).join(file), "1\n")))
            .join(" ")
        })
        .call("the queue", |world, instance, _| {
            let queue = World::sysfs(instance.nr).join("queue");
            [
                ("discard_max_bytes", "4096"),
                ("discard_max_bytes", "1"),
                ("write_cache", "write through"),
                ("write_cache", "write back"),
                ("max_sectors_kb", "4"),
                ("max_sectors_kb", "128"),
                ("max_sectors_kb", "99999999"),
                ("rotational", "1"),
                ("logical_block_size", "4096"),
                ("hw_sector_size", "4096"),
                ("write_zeroes_max_bytes", "0"),
                ("write_zeroes_unmap_max_bytes", "0"),
                ("dma_alignment", "0"),
                ("nr_requests", "4"),
                ("nr_requests", "100000"),
                ("scheduler", "none"),
                ("scheduler", "nonsense"),
                ("iostats", "1"),
                ("add_random", "1"),
                ("wbt_lat_usec", "0"),
            ]
            .map(|(file, value)| {
                let path = queue.join(file);
                let ret = name(write(&path, value));
                format!("{file}={value} {ret} ({})", read(world, &path))
            })
            .join(", ")
        })
}
