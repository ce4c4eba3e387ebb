// SPDX-License-Identifier: GPL-2.0

//! The attributes of a device in sysfs, as far as cases compare them.

use super::{read, World};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
};

/// Attributes and their values, by name.
pub type Snapshot = BTreeMap<String, String>;

/// Adds the files of a directory of sysfs, and of its subdirectories.
pub fn collect(world: &World, dir: &Path, prefix: &str, all: &mut Snapshot) {
    // Files whose contents change over time or depend on the order of events.
    const IGNORED: [&str; 9] = [
        "stat",
        "inflight",
        "uevent",
        "diskseq",
        "power",
        "trace",
        "bdi",
        "subsystem",
        "holders",
    ];
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        let key = world.canonical(&format!("{prefix}{file}"));
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if IGNORED.contains(&file.as_str()) || (prefix.starts_with("loopN") && file == "dev") {
            continue;
        }
        if kind.is_dir() {
            collect(world, &entry.path(), &format!("{key}/"), all);
        } else if kind.is_file() {
            let mode = entry
                .metadata()
                .map_or(0, |meta| meta.permissions().mode() & 0o7777);
            all.insert(key, format!("{mode:o} {}", read(world, &entry.path())));
        }
    }
}

/// The differences between two sets of attributes.
pub fn changes(old: &Snapshot, new: &Snapshot) -> Vec<String> {
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    keys.into_iter()
        .filter_map(|key| match (old.get(key), new.get(key)) {
            (Some(old), Some(new)) if old == new => None,
            (Some(old), Some(new)) => Some(format!("{key}: {old} -> {new}")),
            (None, Some(new)) => Some(format!("+{key}: {new}")),
            (Some(_), None) => Some(format!("-{key}")),
            (None, None) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_between_snapshots() {
        let of = |pairs: &[(&str, &str)]| -> Snapshot {
            pairs
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect()
        };
        assert_eq!(
            changes(
                &of(&[("a", "1"), ("b", "2"), ("c", "3")]),
                &of(&[("a", "1"), ("b", "3"), ("d", "4")])
            ),
            ["b: 2 -> 3", "-c", "+d: 4"]
        );
    }
}
