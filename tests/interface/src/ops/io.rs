// SPDX-License-Identifier: GPL-2.0

//! File operations on a device: open, read, write, fallocate and so on.

use super::{
    Effect::{Preserve, Query},
    Op, HALF,
};
use crate::{
    sys::Ret,
    uapi::*,
    world::{hash, name, open, Instance, World},
};
use libc::{O_ACCMODE, O_DIRECT, O_EXCL, O_NONBLOCK, O_PATH, O_RDONLY, O_RDWR, O_SYNC, O_WRONLY};
use nix::errno::Errno;
use std::os::fd::{AsRawFd, RawFd};

fn pread(fd: RawFd, len: usize, at: i64) -> (Ret, Vec<u8>) {
    let mut data = vec![0; len];
    // SAFETY: `data` is valid for its length.
    let n = unsafe { libc::pread(fd, data.as_mut_ptr().cast(), len, at) };
    match Errno::result(n) {
        Ok(n) => {
            data.truncate(n as usize);
            (Ok(n as i32), data)
        }
        Err(errno) => (Err(errno), Vec::new()),
    }
}

fn pwrite(fd: RawFd, data: &[u8], at: i64) -> Ret {
    // SAFETY: `data` is valid for its length.
    let n = unsafe { libc::pwrite(fd, data.as_ptr().cast(), data.len(), at) };
    Errno::result(n).map(|n| n as i32)
}

/// Reads at an offset: the result, and a hash of the data.
pub fn read_at(fd: RawFd, len: usize, at: i64) -> String {
    let (ret, data) = pread(fd, len, at);
    format!("{} {:x}", name(ret), hash(&data))
}

/// The size of the device in bytes.
fn end_of(world: &World, instance: &Instance) -> i64 {
    let (_, size) = world.ioctl_with(instance.fd.as_raw_fd(), BLKGETSIZE64, &Number(0));
    size.0 as i64
}

/// A number that an ioctl returns.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Number(pub u64);

// SAFETY: No padding.
unsafe impl Plain for Number {}

pub fn all() -> Vec<Op> {
    vec![
        Op::new("open", Preserve).call("each way", |_, instance, _| {
            let path = World::loop_path(instance.nr);
            [
                O_RDONLY,
                O_RDWR,
                O_WRONLY,
                O_ACCMODE,
                O_RDONLY | O_EXCL,
                O_RDWR | O_EXCL,
                O_RDWR | O_DIRECT,
                O_RDWR | O_SYNC,
                O_RDONLY | O_NONBLOCK,
                O_PATH,
            ]
            .map(|flags| match open(&path, flags) {
                Ok(_) => "0".to_string(),
                Err(errno) => format!("{errno:?}"),
            })
            .join(" ")
        }),
        Op::new("read", Preserve)
            .call("at the start", |world, instance, _| {
                let fd = instance.fd.as_raw_fd();
                let _ = world.ioctl(fd, BLKFLSBUF, 0);
                // The first sector: it has no time stamps of a file system.
                read_at(fd, 512, 0)
            })
            .call("at the end", |world, instance, _| {
                let fd = instance.fd.as_raw_fd();
                let _ = world.ioctl(fd, BLKFLSBUF, 0);
                let end = end_of(world, instance);
                [
                    read_at(fd, 4096, end - 1024),
                    read_at(fd, 4096, end),
                    read_at(fd, 4096, end + 1),
                    read_at(fd, 1, -1),
                ]
                .join(", ")
            }),
        Op::new("write", Preserve)
            .call("existing data", |world, instance, _| {
                let fd = instance.fd.as_raw_fd();
                let _ = world.ioctl(fd, BLKFLSBUF, 0);
                let data = pread(fd, 512, 0).1;
                let data = if data.is_empty() { vec![0; 512] } else { data };
                let wrote = pwrite(fd, &data, 0);
                // SAFETY: No pointers.
                let synced = Errno::result(unsafe { libc::fsync(fd) });
                format!("{} {}", name(wrote), name(synced))
            })
            .call("beyond the end", |world, instance, _| {
                let fd = instance.fd.as_raw_fd();
                name(pwrite(fd, &[0; 512], end_of(world, instance)))
            }),
        Op::new("fallocate", Preserve).call("each way", |_, instance, _| {
            [
                0,
                libc::FALLOC_FL_KEEP_SIZE,
                libc::FALLOC_FL_PUNCH_HOLE,
                libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
                libc::FALLOC_FL_ZERO_RANGE,
                libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE,
            ]
            .map(|mode| {
                let fd = instance.fd.as_raw_fd();
                // SAFETY: No pointers.
                let ret = unsafe { libc::fallocate(fd, mode, HALF as i64, 4096) };
                name(Errno::result(ret))
            })
            .join(" ")
        }),
        Op::new("fstat, statx, lseek", Query).call("each", |_, instance, _| {
            let fd = instance.fd.as_raw_fd();
            // SAFETY: All zeroes is a valid `stat`.
            let mut stat: libc::stat = unsafe { std::mem::zeroed() };
            // SAFETY: `stat` is valid for writes.
            let first = unsafe { libc::fstat(fd, &mut stat) };
            // SAFETY: All zeroes is a valid `statx`.
            let mut statx: libc::statx = unsafe { std::mem::zeroed() };
            // SAFETY: `statx` is valid for writes, and the name is a string.
            let second = unsafe {
                libc::statx(
                    fd,
                    c"".as_ptr(),
                    libc::AT_EMPTY_PATH,
                    libc::STATX_DIOALIGN,
                    &mut statx,
                )
            };
            // SAFETY: No pointers.
            let end = unsafe { libc::lseek(fd, 0, libc::SEEK_END) };
            // SAFETY: No pointers.
            let hole = unsafe { libc::lseek(fd, 0, libc::SEEK_HOLE) };
            format!(
                "{first} mode={:o} size={} blksize={} {second} dio={},{} end={end} hole={hole}",
                stat.st_mode,
                stat.st_size,
                stat.st_blksize,
                statx.stx_dio_mem_align,
                statx.stx_dio_offset_align,
            )
        }),
        Op::new("loop-control", Preserve).call("on its number", |world, instance, _| {
            [LOOP_CTL_ADD, LOOP_CTL_REMOVE]
                .map(|cmd| name(world.control(cmd, instance.nr as usize)))
                .join(" ")
        }),
    ]
}
