// SPDX-License-Identifier: GPL-2.0

//! A device in some state: its attributes, and how the changes of a case are undone.

use super::{
    attributes::{collect, Snapshot},
    context, read, Setup, World,
};
use crate::uapi::{self, Plain};
use nix::errno::Errno;
use std::{
    fs,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::PathBuf,
};

/// The maximum number of links of a disk's directory without partitions.
const LINKS_UNPARTITIONED: u64 = 2 + 9;

/// Attributes that are cheap to read: compared after each case, to find out whether it changed the
/// device.
#[derive(PartialEq, Eq, Clone, Debug)]
pub struct Fingerprint {
    status: Result<Vec<u8>, Errno>,
    values: [Result<u64, Errno>; 7],
    /// The number of links of the disk's directory in sysfs, which counts its subdirectories.
    links: u64,
}

/// A device in some state.
pub struct Instance {
    /// The number of the device.
    pub nr: u32,
    /// The open device through which the operations run.
    pub fd: OwnedFd,
    /// Files that must stay open to keep the state.
    pub others: Vec<OwnedFd>,
    /// The numbers of other devices that are removed with this one.
    pub more: Vec<u32>,
    /// The mount point of the device, if it is mounted.
    pub mounted: Option<PathBuf>,
    /// The backing file, if there is one.
    pub backing: Option<PathBuf>,
    /// Whether the operations run without privileges.
    pub unprivileged: bool,
}

impl Instance {
    pub fn fingerprint(&self, world: &World) -> Fingerprint {
        let fd = self.fd.as_raw_fd();
        let value = |cmd, len| {
            let address = world.arena.put(&[0; 8], 8) + 8 - len;
            world.ioctl(fd, cmd, address).map(|_| {
                world
                    .arena
                    .get(len)
                    .iter()
                    .rev()
                    .fold(0, |n, byte| (n << 8) | u64::from(*byte))
            })
        };
        let values = [
            (uapi::BLKGETSIZE64, 8),
            (uapi::BLKROGET, 4),
            (uapi::BLKSSZGET, 4),
            (uapi::BLKPBSZGET, 4),
            (uapi::BLKIOMIN, 4),
            (uapi::BLKRAGET, 8),
            (uapi::BLKBSZGET, 4),
        ]
        .map(|(cmd, len)| value(cmd, len));
        let (ret, status) =
            world.ioctl_with(fd, uapi::LOOP_GET_STATUS64, &uapi::LoopInfo64::zeroed());
        Fingerprint {
            status: ret.map(|_| status.bytes()),
            values,
            links: fs::metadata(World::sysfs(self.nr)).map_or(0, |meta| meta.nlink()),
        }
    }

    /// The disk sequence number.
    pub fn diskseq(&self, world: &World) -> Result<u64, Errno> {
        let address = world.arena.put(&[0; 8], 8);
        world.ioctl(self.fd.as_raw_fd(), uapi::BLKGETDISKSEQ, address)?;
        Ok(u64::from_le_bytes(
            world.arena.get(8).try_into().unwrap_or_default(),
        ))
    }

    /// The text of a `struct loop_info64`, with values that differ between runs replaced.
    pub fn describe_info(&self, world: &World, info: &uapi::LoopInfo64) -> String {
        // Inode numbers differ between runs: use the names of the files.
        let is_described =
            |meta: fs::Metadata| (meta.dev(), meta.ino()) == (info.device, info.inode);
        let inode = fs::read_dir(&world.dir)
            .into_iter()
            .flatten()
            .flatten()
            .find(|entry| entry.metadata().is_ok_and(is_described))
            .map(|entry| entry.file_name().to_string_lossy().into_owned());
        let inode = match (inode, &self.backing) {
            (Some(name), _) => name,
            (None, Some(path)) if fs::metadata(path).is_ok_and(is_described) => "the file's".into(),
            _ => "another".into(),
        };
        let text = |bytes: &[u8]| {
            let end = bytes
                .iter()
                .rposition(|byte| *byte != 0)
                .map_or(0, |i| i + 1);
            world.canonical(&bytes[..end].escape_ascii().to_string())
        };
        let number = match info.number {
            n if n == self.nr => "N".into(),
            n => n.to_string(),
        };
        format!(
            "number={number} device={:#x} inode={} rdevice={:#x} offset={} sizelimit={} crypt={},{} \
             flags={:#x} name={:?} rest={:?}{:?}{:?}",
            info.device,
            inode,
            // The device number of a RAM disk differs between processes.
            if info.rdevice >> 8 == 1 { 0x100 } else { info.rdevice },
            info.offset,
            info.sizelimit,
            info.encrypt_type,
            info.encrypt_key_size,
            info.flags,
            text(&info.file_name),
            text(&info.crypt_name),
            text(&info.encrypt_key),
            { info.init },
        )
    }

    /// The attributes that an ioctl may change: the status, results of ioctls, and sysfs.
    pub fn snapshot(&self, world: &World, fingerprint: &Fingerprint) -> Snapshot {
        const FILES: [&str; 20] = [
            "loop/backing_file",
            "loop/offset",
            "loop/sizelimit",
            "loop/autoclear",
            "loop/partscan",
            "loop/dio",
            "ro",
            "size",
            "queue/logical_block_size",
            "queue/physical_block_size",
            "queue/minimum_io_size",
            "queue/dma_alignment",
            "queue/discard_granularity",
            "queue/discard_max_bytes",
            "queue/discard_max_hw_bytes",
            "queue/write_zeroes_max_bytes",
            "queue/write_cache",
            "queue/rotational",
            "queue/max_sectors_kb",
            "queue/max_hw_sectors_kb",
        ];
        let mut all = Snapshot::new();
        let dir = World::sysfs(self.nr);
        let status = match &fingerprint.status {
            Ok(bytes) => self.describe_info(world, &uapi::LoopInfo64::from_bytes(bytes)),
            Err(errno) => format!("{errno:?}"),
        };
        all.insert("status".into(), status);
        let names = ["size", "ro", "ssz", "pbsz", "iomin", "ra", "bsz"];
        for (name, value) in names.iter().zip(&fingerprint.values) {
            all.insert(format!("ioctl {name}"), format!("{value:?}"));
        }
        for file in FILES {
            let text = read(world, &dir.join(file));
            if text != "ENOENT" {
                all.insert(file.into(), text);
            }
        }
        // Partitions, if their directory exists.
        if fingerprint.links > LINKS_UNPARTITIONED {
            for part in 1..16 {
                let part = format!("loop{}p{part}", self.nr);
                if dir.join(&part).exists() {
                    for file in ["start", "size", "ro"] {
                        let file = format!("{part}/{file}");
                        all.insert(world.canonical(&file), read(world, &dir.join(&file)));
                    }
                }
            }
        }
        all
    }

    /// All attributes of the device in sysfs.
    pub fn sysfs(&self, world: &World) -> Snapshot {
        let mut all = Snapshot::new();
        collect(world, &World::sysfs(self.nr), "", &mut all);
        all
    }

    /// Undoes the changes of a case by ioctls; returns false if that does not restore the state.
    pub fn restore(&self, world: &World, before: &Fingerprint, now: &Fingerprint) -> bool {
        if now == before {
            return true;
        }
        let fd = self.fd.as_raw_fd();
        // Partitions were added or removed, or the device was detached.
        let (Ok(old), Ok(new), true) = (&before.status, &now.status, before.links == now.links)
        else {
            return false;
        };
        let [_, ro, ssz, _, _, ra, bsz] = now.values;
        let [_, old_ro, old_ssz, _, _, old_ra, old_bsz] = before.values;
        if old != new {
            let old = uapi::LoopInfo64::from_bytes(old);
            let new = uapi::LoopInfo64::from_bytes(new);
            if (old.device, old.inode) != (new.device, new.inode)
                || (old.flags ^ new.flags) & uapi::LO_FLAGS_PARTSCAN != 0
                || world
                    .ioctl_with(fd, uapi::LOOP_SET_STATUS64, &old)
                    .0
                    .is_err()
            {
                return false;
            }
            if (old.flags ^ new.flags) & uapi::LO_FLAGS_DIRECT_IO != 0 {
                let direct = old.flags & uapi::LO_FLAGS_DIRECT_IO;
                let _ = world.ioctl(fd, uapi::LOOP_SET_DIRECT_IO, direct as usize);
            }
        }
        if let (true, Ok(old)) = (ssz != old_ssz, old_ssz) {
            let _ = world.ioctl(fd, uapi::LOOP_SET_BLOCK_SIZE, old as usize);
        }
        if let (true, Ok(old)) = (ra != old_ra, old_ra) {
            let _ = world.ioctl(fd, uapi::BLKRASET, old as usize);
        }
        if let (true, Ok(old)) = (ro != old_ro, old_ro) {
            let _ = world.ioctl_with(fd, uapi::BLKROSET, &crate::ops::Number(old));
        }
        if let (true, Ok(old)) = (bsz != old_bsz, old_bsz) {
            let _ = world.ioctl_with(fd, uapi::BLKBSZSET, &crate::ops::Number(old));
        }
        self.fingerprint(world) == *before
    }

    /// Detaches and removes the device, and the devices that it was built on.
    pub fn dispose(self, world: &World) -> Setup<()> {
        let Self {
            nr,
            fd,
            others,
            more,
            mounted,
            ..
        } = self;
        if let Some(dir) = mounted {
            nix::mount::umount(&dir).map_err(context("umount"))?;
        }
        drop(others);
        drop(fd);
        world.remove(nr)?;
        for nr in more {
            world.remove(nr)?;
        }
        Ok(())
    }
}
