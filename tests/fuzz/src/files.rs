// SPDX-License-Identifier: GPL-2.0

//! The backing files, and the state of devices in sysfs.

use crate::{lane, ops, sys, uapi};
use nix::{
    errno::Errno,
    sys::stat::{makedev, mknod, Mode, SFlag},
};
use std::{
    fs::{self, File},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

const MAJOR: u64 = 7;

/// A DOS partition table with few distinct byte values.
fn table() -> [u8; 512] {
    let mut sector = [0; 512];
    // Start and length, in sectors.
    for (index, (start, len)) in [(8u32, 256u32), (512, 1024), (2048, 512)]
        .iter()
        .enumerate()
    {
        let entry = &mut sector[446 + 16 * index..][..16];
        entry[4] = 0x83;
        entry[8..12].copy_from_slice(&start.to_le_bytes());
        entry[12..].copy_from_slice(&len.to_le_bytes());
    }
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

/// Creates all files in the directory; returns the byte values in them.
pub fn make(dir: &Path, devices: u64) -> Result<[bool; 256], String> {
    let context = |error: std::io::Error| format!("{}: {error}", dir.display());
    for nr in 0..devices + 2 {
        let path = dir.join(format!("node{nr}"));
        let dev = makedev(MAJOR, nr);
        mknod(&path, SFlag::S_IFBLK, Mode::from_bits_truncate(0o600), dev)
            .map_err(|errno| format!("{}: {errno}", path.display()))?;
    }
    for (index, size) in ops::RESIZED {
        let file = File::create(dir.join(ops::FILES[*index].0)).map_err(context)?;
        file.set_len(*size).map_err(context)?;
        file.write_all_at(&vec![lane::WRITTEN; *size as usize / 2], 0)
            .map_err(context)?;
    }
    let table = table();
    File::options()
        .write(true)
        .open(dir.join("table"))
        .and_then(|file| file.write_all_at(&table, 0))
        .map_err(context)?;
    File::create(dir.join("empty")).map_err(context)?;
    let huge = File::create(dir.join("huge")).map_err(context)?;
    // The larger one of two sizes that the file system allows.
    [40, 34]
        .iter()
        .find_map(|bits| huge.set_len(1 << bits).ok())
        .ok_or("there is no large file")?;
    let mut known = [false; 256];
    for byte in table.iter().chain(&[0, lane::WRITTEN]) {
        known[usize::from(*byte)] = true;
    }
    Ok(known)
}

/// The numbers of all devices.
pub fn devices() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/sys/block") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            entry
                .file_name()
                .to_str()?
                .strip_prefix("loop")?
                .parse()
                .ok()
        })
        .collect()
}

pub fn is_bound(nr: u32) -> bool {
    Path::new(&format!("/sys/block/loop{nr}/loop")).exists()
}

/// Opens `/dev/loop-control`.
pub fn control() -> Result<OwnedFd, String> {
    lane::open("/dev/loop-control", libc::O_RDWR).map_err(|errno| format!("loop-control: {errno}"))
}

/// Detaches and removes all devices; returns the devices that could not be removed.
pub fn clean() -> Vec<String> {
    let control = match control() {
        Ok(control) => control,
        Err(why) => return vec![why],
    };
    let end = Instant::now() + Duration::from_secs(20 * crate::slow());
    loop {
        let mut left = Vec::new();
        for nr in devices() {
            if is_bound(nr) {
                if let Ok(fd) = lane::open(format!("/dev/loop{nr}"), libc::O_RDONLY) {
                    let fd = fd.as_raw_fd();
                    let _ = sys::ioctl(sys::Abi::Native, fd, uapi::LOOP_CLR_FD, 0);
                }
            }
            let removed = sys::ioctl(
                sys::Abi::Native,
                control.as_raw_fd(),
                uapi::LOOP_CTL_REMOVE,
                nr as usize,
            );
            match removed {
                Ok(_) | Err(Errno::ENODEV) => (),
                Err(errno) => {
                    let bound = if is_bound(nr) { "bound" } else { "not bound" };
                    left.push(format!("loop{nr}, {bound}: {errno:?}"));
                }
            }
        }
        if left.is_empty() || Instant::now() > end {
            return left;
        }
        sleep(Duration::from_millis(20));
    }
}
