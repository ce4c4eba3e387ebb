// SPDX-License-Identifier: GPL-2.0

//! Devices to test, and everything that is visible of them.

use crate::{
    sys::{self, Abi, Arena, Ret, Uevents},
    uapi::{self, Plain},
};
use nix::errno::Errno;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::Read,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

/// Size of a backing file.
pub const SIZE: u64 = 1 << 20;

/// A failed set-up, as an outcome.
pub type Setup<T> = Result<T, String>;

/// For `map_err`.
pub fn because<E: std::fmt::Display>(what: impl std::fmt::Display) -> impl FnOnce(E) -> String {
    move |error| format!("{what}: {error}")
}

pub fn open(path: impl AsRef<Path>, flags: i32) -> Result<OwnedFd, Errno> {
    use nix::{fcntl, sys::stat::Mode};
    use std::os::fd::{FromRawFd, IntoRawFd};

    let fd = fcntl::open(
        path.as_ref(),
        fcntl::OFlag::from_bits_retain(flags | libc::O_CLOEXEC),
        Mode::from_bits_truncate(0o600),
    )?;
    // SAFETY: It was opened just now. Newer versions of nix return an owned one.
    Ok(unsafe { OwnedFd::from_raw_fd(fd.into_raw_fd()) })
}

/// The name of an error, or of a result.
pub fn name(ret: Ret) -> String {
    match ret {
        Ok(value) => value.to_string(),
        Err(errno) => format!("{errno:?}"),
    }
}

/// A hash of data: FNV-1a.
pub fn hash(data: &[u8]) -> u64 {
    data.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// State shared by all cases of a process.
pub struct World {
    /// `/dev/loop-control`
    pub control: OwnedFd,
    pub arena: Arena,
    pub uevents: Uevents,
    /// A directory for files.
    pub dir: PathBuf,
    /// The number of this process's first device.
    pub base: u32,
    /// This process's RAM disk.
    pub ram: u32,
    /// Factor for time limits.
    pub slow: u32,
}

impl World {
    pub fn loop_path(nr: u32) -> PathBuf {
        format!("/dev/loop{nr}").into()
    }

    pub fn sysfs(nr: u32) -> PathBuf {
        format!("/sys/block/loop{nr}").into()
    }

    pub fn open_loop(nr: u32, flags: i32) -> Setup<OwnedFd> {
        open(Self::loop_path(nr), flags).map_err(because(format_args!("open loop{nr}")))
    }

    pub fn control(&self, cmd: u32, arg: usize) -> Ret {
        sys::ioctl(Abi::Native, self.control.as_raw_fd(), cmd, arg)
    }

    pub fn ioctl(&self, fd: RawFd, cmd: u32, arg: usize) -> Ret {
        sys::ioctl(Abi::Native, fd, cmd, arg)
    }

    /// With a structure as its argument; returns the structure after the call.
    pub fn ioctl_with<T: Plain>(&self, fd: RawFd, cmd: u32, value: &T) -> (Ret, T) {
        let bytes = value.bytes();
        let address = self.arena.put(&bytes, bytes.len());
        let ret = self.ioctl(fd, cmd, address);
        (ret, T::from_bytes(&self.arena.get(bytes.len())))
    }

    /// Such a file; an existing one is left alone.
    pub fn kept_file(&self, name: &str, size: u64) -> Setup<PathBuf> {
        let path = self.dir.join(name);
        match fs::metadata(&path) {
            Ok(meta) if meta.len() == size => Ok(path),
            _ => self.file(name, size),
        }
    }

    /// A file whose first 8 KiB are not zero.
    pub fn file(&self, name: &str, size: u64) -> Setup<PathBuf> {
        use std::os::unix::fs::FileExt;

        let path = self.dir.join(name);
        let head: Vec<u8> = (0..size.min(8192) / 4)
            .flat_map(|i| (i as u32).wrapping_mul(0x9e37_79b9).to_le_bytes())
            .collect();
        File::create(&path)
            .and_then(|file| {
                file.set_len(size)?;
                file.write_all_at(&head, 0)
            })
            .map_err(because(path.display()))?;
        Ok(path)
    }

    /// Creates a device of that number, which must not exist.
    pub fn add(&self, nr: u32) -> Setup<()> {
        match self.control(uapi::LOOP_CTL_ADD, nr as usize) {
            Ok(added) if added == nr as i32 => Ok(()),
            ret => Err(format!("LOOP_CTL_ADD {nr}: {}", name(ret))),
        }
    }

    /// Waits for `condition`, with a time limit.
    pub fn wait(&self, mut condition: impl FnMut() -> bool) -> bool {
        let end = Instant::now() + Duration::from_secs(10) * self.slow;
        while !condition() {
            if Instant::now() > end {
                return false;
            }
            sleep(Duration::from_millis(2));
        }
        true
    }

    /// Detaches a device and removes it; no other process should have it open.
    pub fn remove(&self, nr: u32) -> Setup<()> {
        let mut last = Ok(0);
        let mut removed = || {
            if let Ok(fd) = open(Self::loop_path(nr), libc::O_RDONLY) {
                let _ = self.ioctl(fd.as_raw_fd(), uapi::LOOP_CLR_FD, 0);
            }
            last = self.control(uapi::LOOP_CTL_REMOVE, nr as usize);
            // It may be released a moment later.
            last != Err(Errno::EBUSY)
        };
        self.wait(&mut removed);
        match last {
            Ok(_) | Err(Errno::ENODEV) => Ok(()),
            _ => Err(format!("LOOP_CTL_REMOVE {nr}: {}", name(last))),
        }
    }

    /// Attaches a device.
    pub fn configure(&self, fd: &OwnedFd, file: &OwnedFd, config: uapi::LoopConfig) -> Setup<()> {
        let config = uapi::LoopConfig {
            fd: file.as_raw_fd() as u32,
            ..config
        };
        match self
            .ioctl_with(fd.as_raw_fd(), uapi::LOOP_CONFIGURE, &config)
            .0
        {
            Ok(_) => Ok(()),
            Err(errno) => Err(format!("LOOP_CONFIGURE: {errno:?}")),
        }
    }

    /// The parts of names that differ between processes: devices, directory.
    pub fn canonical(&self, text: &str) -> String {
        if !["/", "loop", "ram"].iter().any(|part| text.contains(part)) {
            return text.into();
        }
        let mut text = text.replace(&self.dir.display().to_string(), "DIR");
        if let Some(top) = self.dir.parent() {
            text = text.replace(&top.display().to_string(), "TOP");
        }
        // The longer numbers first.
        for i in (0..SPAN).rev() {
            let nr = self.base + i;
            let mark = if i == 0 {
                "loopN".into()
            } else {
                format!("loopN+{i}")
            };
            text = text.replace(&format!("loop{nr}"), &mark);
        }
        text.replace(&format!("ram{}", self.ram), "ramN")
    }

    /// The uevents of this process's devices since the last call.
    pub fn take_uevents(&self) -> Vec<String> {
        const DULL: [&str; 9] = [
            "ACTION",
            "DEVPATH",
            "SUBSYSTEM",
            "MAJOR",
            "MINOR",
            "DEVTYPE",
            "SEQNUM",
            "DISKSEQ",
            "DEVNAME",
        ];
        let mut all = Vec::new();
        let ours = |head: &[u8]| {
            // Paths of partitions and queues are below that of the device.
            let mut parts = head.split(|byte| *byte == b'/');
            parts
                .find_map(|part| {
                    std::str::from_utf8(part.strip_prefix(b"loop")?)
                        .ok()?
                        .parse()
                        .ok()
                })
                .is_some_and(|nr: u32| (self.base..self.base + SPAN).contains(&nr))
        };
        for event in self.uevents.take(ours) {
            let head = event.first().map_or("", String::as_str);
            let Some((action, path)) = head.split_once('@') else {
                continue;
            };
            let what = path.rsplit("/block/").next().unwrap_or(path);
            let rest: Vec<&str> = event[1..]
                .iter()
                .filter(|pair| !DULL.iter().any(|key| pair.split('=').next() == Some(key)))
                .map(String::as_str)
                .collect();
            let mut text = format!("{action}@{}", self.canonical(what));
            for pair in rest {
                text.push(' ');
                text.push_str(pair);
            }
            all.push(text);
        }
        all
    }
}

/// Number of device numbers of a process.
pub const SPAN: u32 = 4;

/// The attributes whose changes a case reports, by name.
pub type Snapshot = BTreeMap<String, String>;

/// Attributes that are cheap to read, after each case.
#[derive(PartialEq, Eq, Clone, Debug)]
pub struct Glance {
    status: Result<Vec<u8>, Errno>,
    values: [Result<u64, Errno>; 7],
    /// The subdirectories of the disk's directory.
    links: u64,
}

/// A device in some state.
pub struct Instance {
    pub nr: u32,
    /// The device under test.
    pub fd: OwnedFd,
    /// Files that must stay open to keep the state.
    pub others: Vec<OwnedFd>,
    /// Other devices, removed with this one.
    pub more: Vec<u32>,
    pub mounted: Option<PathBuf>,
    /// The backing file, if there is one.
    pub backing: Option<PathBuf>,
    /// Without privileges.
    pub unprivileged: bool,
}

impl Instance {
    pub fn glance(&self, world: &World) -> Glance {
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
        Glance {
            status: ret.map(|_| status.bytes()),
            values,
            links: fs::metadata(World::sysfs(self.nr)).map_or(0, |meta| meta.nlink()),
        }
    }

    /// Changes with each medium.
    pub fn diskseq(&self, world: &World) -> Result<u64, Errno> {
        let address = world.arena.put(&[0; 8], 8);
        world.ioctl(self.fd.as_raw_fd(), uapi::BLKGETDISKSEQ, address)?;
        Ok(u64::from_le_bytes(
            world.arena.get(8).try_into().unwrap_or_default(),
        ))
    }

    /// `struct loop_info64`, with values that differ between runs replaced.
    pub fn describe_info(&self, world: &World, info: &uapi::LoopInfo64) -> String {
        // Inode numbers differ between runs: use the names of the files.
        let inode = fs::read_dir(&world.dir)
            .into_iter()
            .flatten()
            .flatten()
            .find(|entry| entry.metadata().is_ok_and(|meta| meta.ino() == info.inode))
            .map(|entry| entry.file_name().to_string_lossy().into_owned());
        let inode = match (inode, &self.backing) {
            (Some(name), _) => name,
            (None, Some(path)) if fs::metadata(path).is_ok_and(|meta| meta.ino() == info.inode) => {
                "the file's".into()
            }
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
    pub fn snapshot(&self, world: &World, glance: &Glance) -> Snapshot {
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
        let status = match &glance.status {
            Ok(bytes) => self.describe_info(world, &uapi::LoopInfo64::from_bytes(bytes)),
            Err(errno) => format!("{errno:?}"),
        };
        all.insert("status".into(), status);
        let names = ["size", "ro", "ssz", "pbsz", "iomin", "ra", "bsz"];
        for (name, value) in names.iter().zip(&glance.values) {
            all.insert(format!("ioctl {name}"), format!("{value:?}"));
        }
        for file in FILES {
            let text = read(world, &dir.join(file));
            if text != "ENOENT" {
                all.insert(file.into(), text);
            }
        }
        // Partitions, if their directory exists.
        if glance.links > UNPARTITIONED {
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

    /// All files in sysfs.
    pub fn sysfs(&self, world: &World) -> Snapshot {
        let mut all = Snapshot::new();
        collect(world, &World::sysfs(self.nr), "", &mut all);
        all
    }

    /// Undoes the changes of a call if that is simple; returns false otherwise.
    pub fn restore(&self, world: &World, before: &Glance, now: &Glance) -> bool {
        if now == before {
            return true;
        }
        let fd = self.fd.as_raw_fd();
        // Directories were added or removed: partitions, or the device was detached.
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
        self.glance(world) == *before
    }

    /// Detaches and removes everything.
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
            nix::mount::umount(&dir).map_err(because("umount"))?;
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

/// The maximum number of links of a disk's directory without partitions.
const UNPARTITIONED: u64 = 2 + 9;

/// The files of a directory of sysfs.
fn collect(world: &World, dir: &Path, prefix: &str, all: &mut Snapshot) {
    // Except for files that change by themselves or depend on the order of events.
    const DULL: [&str; 9] = [
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
        if DULL.contains(&file.as_str()) || (prefix.starts_with("loopN") && file == "dev") {
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

/// The contents of a file of sysfs, or the error.
pub fn read(world: &World, path: &Path) -> String {
    let mut text = String::new();
    match File::open(path).and_then(|mut file| file.read_to_string(&mut text)) {
        Ok(_) => world.canonical(&text.trim_end().escape_debug().to_string()),
        Err(error) => match error.raw_os_error() {
            Some(errno) => format!("{:?}", Errno::from_raw(errno)),
            None => error.to_string(),
        },
    }
}

/// Writes to a file of sysfs.
pub fn write(path: &Path, text: &str) -> Ret {
    use std::io::Write;

    OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_CLOEXEC)
        .open(path)
        .and_then(|mut file| file.write(text.as_bytes()))
        .map(|n| n as i32)
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))
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
    fn what_has_changed() {
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
