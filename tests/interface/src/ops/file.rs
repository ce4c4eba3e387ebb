// SPDX-License-Identifier: GPL-2.0

//! Files whose descriptors are passed to the driver.

use crate::{
    states,
    world::{context, open, Instance, World, SIZE},
};
use libc::{O_APPEND, O_DIRECT, O_DIRECTORY, O_PATH, O_RDONLY, O_RDWR, O_WRONLY};
use nix::errno::Errno;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// A file to pass to the driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileKind {
    /// A file of the size of the backing file.
    Another,
    ReadOnly,
    WriteOnly,
    Append,
    Direct,
    Path,
    Backing,
    Bigger,
    /// Bigger by less than a sector.
    BitBigger,
    Empty,
    Memfd,
    Directory,
    Pipe,
    Socket,
    Eventfd,
    Null,
    Zero,
    Proc,
    Sysfs,
    /// The file descriptor on which the ioctl is called.
    Itself,
    /// The device, opened a second time.
    Device,
    DeviceReadOnly,
    UnboundLoop,
    BoundLoop,
    Ram,
    Closed,
    Negative,
}

/// All kinds of files.
pub const FILE_KINDS: &[FileKind] = &[
    FileKind::Another,
    FileKind::ReadOnly,
    FileKind::WriteOnly,
    FileKind::Append,
    FileKind::Direct,
    FileKind::Path,
    FileKind::Backing,
    FileKind::Bigger,
    FileKind::BitBigger,
    FileKind::Empty,
    FileKind::Memfd,
    FileKind::Directory,
    FileKind::Pipe,
    FileKind::Socket,
    FileKind::Eventfd,
    FileKind::Null,
    FileKind::Zero,
    FileKind::Proc,
    FileKind::Sysfs,
    FileKind::Itself,
    FileKind::Device,
    FileKind::DeviceReadOnly,
    FileKind::UnboundLoop,
    FileKind::BoundLoop,
    FileKind::Ram,
    FileKind::Closed,
    FileKind::Negative,
];

/// A file descriptor for an ioctl, with the files that must stay open during the ioctl.
pub struct PassedFd(pub RawFd, #[allow(dead_code)] Vec<OwnedFd>);

impl FileKind {
    pub fn open(self, world: &World, instance: &Instance) -> Result<PassedFd, String> {
        let owned = |fd: nix::Result<RawFd>| {
            // SAFETY: The descriptor was created just now and has no other owner.
            fd.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
        };
        let file = |name: &str, size, flags| {
            let path = world.kept_file(name, size)?;
            open(path, flags).map_err(context(name))
        };
        let path = |path: &str, flags| open(path, flags).map_err(context(path));
        let fd = match self {
            FileKind::Another => file("another", SIZE, O_RDWR)?,
            FileKind::ReadOnly => file("another", SIZE, O_RDONLY)?,
            FileKind::WriteOnly => file("another", SIZE, O_WRONLY)?,
            FileKind::Append => file("another", SIZE, O_RDWR | O_APPEND)?,
            FileKind::Direct => file("another", SIZE, O_RDWR | O_DIRECT)?,
            FileKind::Path => file("another", SIZE, O_PATH)?,
            FileKind::Backing => match &instance.backing {
                Some(path) => open(path, O_RDWR).map_err(context("backing"))?,
                None => file("backing", SIZE, O_RDWR)?,
            },
            FileKind::Bigger => file("bigger", SIZE + 512, O_RDWR)?,
            FileKind::BitBigger => file("bit-bigger", SIZE + 511, O_RDWR)?,
            FileKind::Empty => file("empty", 0, O_RDWR)?,
            FileKind::Memfd => {
                // SAFETY: The name is a string.
                let fd = unsafe { libc::memfd_create(c"memfd".as_ptr(), 0) };
                let fd = owned(Errno::result(fd)).map_err(context("memfd"))?;
                nix::unistd::ftruncate(&fd, SIZE as i64).map_err(context("memfd"))?;
                fd
            }
            FileKind::Directory => path("/", O_RDONLY | O_DIRECTORY)?,
            FileKind::Pipe => {
                let (read, write) = nix::unistd::pipe().map_err(context("pipe"))?;
                return Ok(PassedFd(read.as_raw_fd(), vec![read, write]));
            }
            FileKind::Socket => {
                // SAFETY: No pointers.
                let fd = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0) };
                owned(Errno::result(fd)).map_err(context("socket"))?
            }
            FileKind::Eventfd => {
                // SAFETY: No pointers.
                let fd = unsafe { libc::eventfd(0, 0) };
                owned(Errno::result(fd)).map_err(context("eventfd"))?
            }
            FileKind::Null => path("/dev/null", O_RDWR)?,
            FileKind::Zero => path("/dev/zero", O_RDWR)?,
            FileKind::Proc => path("/proc/version", O_RDONLY)?,
            FileKind::Sysfs => path("/sys/kernel/uevent_seqnum", O_RDONLY)?,
            FileKind::Itself => return Ok(PassedFd(instance.fd.as_raw_fd(), Vec::new())),
            FileKind::Device => World::open_loop(instance.nr, O_RDWR)?,
            FileKind::DeviceReadOnly => World::open_loop(instance.nr, O_RDONLY)?,
            FileKind::UnboundLoop => {
                let nr = world.base + 1;
                if !World::sysfs(nr).exists() {
                    world.add(nr)?;
                }
                World::open_loop(nr, O_RDWR)?
            }
            FileKind::BoundLoop => {
                let nr = world.base + 2;
                if World::sysfs(nr).exists() {
                    World::open_loop(nr, O_RDWR)?
                } else {
                    states::lower(world, nr, 0)?
                }
            }
            FileKind::Ram => {
                let ram = format!("/dev/ram{}", world.ram);
                path(&ram, O_RDWR)?
            }
            FileKind::Closed => return Ok(PassedFd(9999, Vec::new())),
            FileKind::Negative => return Ok(PassedFd(-1, Vec::new())),
        };
        Ok(PassedFd(fd.as_raw_fd(), vec![fd]))
    }
}
