// SPDX-License-Identifier: GPL-2.0

//! The environment of the cases: directory, device numbers, uevents, files.

mod attributes;
mod instance;

pub use attributes::{changes, Snapshot};
pub use instance::{Fingerprint, Instance};

use crate::{
    sys::{self, Abi, Arena, Ret, Uevents},
    uapi::{self, Plain},
};
use nix::errno::Errno;
use std::{
    fs::{self, File, OpenOptions},
    io::Read,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

/// Size of a backing file.
pub const SIZE: u64 = 1 << 20;

/// The result of a set-up; the error becomes the outcome of the case.
pub type Setup<T> = Result<T, String>;

/// Prefixes an error with its context, for `map_err`.
pub fn context<E: std::fmt::Display>(what: impl std::fmt::Display) -> impl FnOnce(E) -> String {
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
    // SAFETY: The descriptor was opened just now and has no other owner. Newer versions of nix
    // return an `OwnedFd`.
    Ok(unsafe { OwnedFd::from_raw_fd(fd.into_raw_fd()) })
}

/// The value of a successful call, or the name of its error.
pub fn name(ret: Ret) -> String {
    match ret {
        Ok(value) => value.to_string(),
        Err(errno) => format!("{errno:?}"),
    }
}

/// The FNV-1a hash of data.
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
    /// The directory for the files of this process.
    pub dir: PathBuf,
    /// The number of the first device of this process.
    pub base: u32,
    /// The number of the RAM disk of this process.
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
        open(Self::loop_path(nr), flags).map_err(context(format_args!("open loop{nr}")))
    }

    pub fn control(&self, cmd: u32, arg: usize) -> Ret {
        sys::ioctl(Abi::Native, self.control.as_raw_fd(), cmd, arg)
    }

    pub fn ioctl(&self, fd: RawFd, cmd: u32, arg: usize) -> Ret {
        sys::ioctl(Abi::Native, fd, cmd, arg)
    }

    /// Passes a structure to an ioctl; returns the structure as it is after the call.
    pub fn ioctl_with<T: Plain>(&self, fd: RawFd, cmd: u32, value: &T) -> (Ret, T) {
        let bytes = value.bytes();
        let address = self.arena.put(&bytes, bytes.len());
        let ret = self.ioctl(fd, cmd, address);
        (ret, T::from_bytes(&self.arena.get(bytes.len())))
    }

    /// Like `file`, but keeps an existing file of that size.
    pub fn kept_file(&self, name: &str, size: u64) -> Setup<PathBuf> {
        let path = self.dir.join(name);
        match fs::metadata(&path) {
            Ok(meta) if meta.len() == size => Ok(path),
            _ => self.file(name, size),
        }
    }

    /// Creates a file whose first 8 KiB are not zero.
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
            .map_err(context(path.display()))?;
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
            // The last close can return before the driver has released the device.
            last != Err(Errno::EBUSY)
        };
        self.wait(&mut removed);
        match last {
            Ok(_) | Err(Errno::ENODEV) => Ok(()),
            _ => Err(format!("LOOP_CTL_REMOVE {nr}: {}", name(last))),
        }
    }

    /// Attaches a device to a file.
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

    /// Replaces the parts of names that differ between processes: device numbers and directories.
    pub fn canonical(&self, text: &str) -> String {
        if !["/", "loop", "ram"].iter().any(|part| text.contains(part)) {
            return text.into();
        }
        let mut text = text.replace(&self.dir.display().to_string(), "DIR");
        if let Some(top) = self.dir.parent() {
            text = text.replace(&top.display().to_string(), "TOP");
        }
        // Longer numbers first: loop1 is a prefix of loop10.
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

    /// Returns the uevents of the devices of this process since the last call.
    pub fn take_uevents(&self) -> Vec<String> {
        const IGNORED: [&str; 9] = [
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
                .filter(|pair| {
                    !IGNORED
                        .iter()
                        .any(|key| pair.split('=').next() == Some(key))
                })
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

/// Number of device numbers that a process may use.
pub const SPAN: u32 = 4;

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
