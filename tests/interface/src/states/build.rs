// SPDX-License-Identifier: GPL-2.0

//! Functions that bring a device into a state.

use crate::{
    compare::SKIP,
    ops,
    uapi::{
        self, LoopConfig, LoopInfo64, Plain, LO_FLAGS_AUTOCLEAR, LO_FLAGS_DIRECT_IO,
        LO_FLAGS_PARTSCAN, LO_FLAGS_READ_ONLY,
    },
    world::{context, name, open, Instance, Setup, World, SIZE},
};
use libc::{O_EXCL, O_RDONLY, O_RDWR};
use std::{
    fs::{self, File},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::{Path, PathBuf},
};

/// How a device is attached.
pub struct Options {
    /// The open flags of the device.
    pub open: i32,
    /// The open flags of the backing file.
    pub file: i32,
    pub flags: u32,
    pub offset: u64,
    pub sizelimit: u64,
    pub block_size: u32,
    /// Size of the backing file in bytes.
    pub size: u64,
    /// Whether the backing file is on the ext4 file system on a disk.
    pub on_disk: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            open: O_RDWR,
            file: O_RDWR,
            flags: 0,
            offset: 0,
            sizelimit: 0,
            block_size: 0,
            size: SIZE,
            on_disk: false,
        }
    }
}

/// The argument of `LOOP_CONFIGURE`, without a file descriptor.
pub fn config(options: &Options) -> LoopConfig {
    LoopConfig {
        block_size: options.block_size,
        info: LoopInfo64 {
            offset: options.offset,
            sizelimit: options.sizelimit,
            flags: options.flags,
            ..LoopInfo64::zeroed()
        },
        ..LoopConfig::zeroed()
    }
}

pub fn unbound(world: &World, flags: i32) -> Setup<Instance> {
    world.add(world.base)?;
    Ok(Instance {
        nr: world.base,
        fd: World::open_loop(world.base, flags)?,
        others: Vec::new(),
        more: Vec::new(),
        mounted: None,
        backing: None,
        unprivileged: false,
    })
}

pub fn bound(world: &World, options: Options) -> Setup<Instance> {
    let path = if options.on_disk {
        on_disk(world, "backing", options.size)?
    } else {
        world.file("backing", options.size)?
    };
    bind(world, path, &options)
}

/// Creates a file on the file system on a disk, whose mount point is in the directory of all
/// processes.
pub fn on_disk(world: &World, name: &str, size: u64) -> Setup<PathBuf> {
    let dir = world.dir.join("../disk");
    if !dir.is_dir() {
        return Err(format!("{}no file system on a disk", SKIP));
    }
    let path = dir.join(format!("{name}-{}", world.base));
    File::create(&path)
        .and_then(|file| file.set_len(size))
        .map_err(context(path.display()))?;
    Ok(path)
}

pub fn bind(world: &World, path: PathBuf, options: &Options) -> Setup<Instance> {
    let instance = unbound(world, options.open)?;
    let file = open(&path, options.file).map_err(context(path.display()))?;
    world.configure(&instance.fd, &file, config(options))?;
    Ok(Instance {
        backing: Some(path),
        ..instance
    })
}

/// A device that is bound through one open file, and tested through another one.
pub fn reopened(
    world: &World,
    options: Options,
    flags: i32,
    unprivileged: bool,
) -> Setup<Instance> {
    let instance = bound(world, options)?;
    let fd = World::open_loop(instance.nr, flags)?;
    Ok(Instance {
        fd,
        unprivileged,
        ..instance
    })
}

pub fn by_set_fd(world: &World) -> Setup<Instance> {
    let instance = unbound(world, O_RDWR)?;
    let path = world.file("backing", SIZE)?;
    let file = open(&path, O_RDWR).map_err(context("backing"))?;
    let fd = file.as_raw_fd() as usize;
    match world.ioctl(instance.fd.as_raw_fd(), uapi::LOOP_SET_FD, fd) {
        Ok(_) => Ok(Instance {
            backing: Some(path),
            ..instance
        }),
        ret => Err(format!("LOOP_SET_FD: {}", name(ret))),
    }
}

/// Claims the device exclusively through another open file.
pub fn held(_: &World, mut instance: Instance) -> Setup<Instance> {
    instance
        .others
        .push(World::open_loop(instance.nr, O_RDWR | O_EXCL)?);
    Ok(instance)
}

/// An unbound device that was bound before: read-only, direct, with another block size, offset and
/// size limit.
pub fn reused(world: &World) -> Setup<Instance> {
    let instance = bound(
        world,
        Options {
            flags: LO_FLAGS_DIRECT_IO | LO_FLAGS_READ_ONLY,
            block_size: 4096,
            offset: 4096,
            sizelimit: 8192,
            ..Options::default()
        },
    )?;
    clear(world, &instance)?;
    let nr = instance.nr;
    drop(instance);
    if !world.wait(|| !World::sysfs(nr).join("loop").exists()) {
        return Err("the device stays bound".into());
    }
    Ok(Instance {
        nr,
        fd: World::open_loop(nr, O_RDWR)?,
        others: Vec::new(),
        more: Vec::new(),
        mounted: None,
        backing: None,
        unprivileged: false,
    })
}

pub fn failed(world: &World) -> Setup<Instance> {
    let instance = unbound(world, O_RDWR)?;
    let path = world.file("backing", SIZE)?;
    let file = open(&path, O_RDONLY).map_err(context("backing"))?;
    let mut config = config(&Options {
        offset: 512,
        sizelimit: 1024,
        ..Options::default()
    });
    config.block_size = 1000;
    if world.configure(&instance.fd, &file, config).is_ok() {
        return Err("LOOP_CONFIGURE accepts a block size of 1000".into());
    }
    Ok(instance)
}

pub fn clear(world: &World, instance: &Instance) -> Setup<()> {
    match world.ioctl(instance.fd.as_raw_fd(), uapi::LOOP_CLR_FD, 0) {
        Ok(_) => Ok(()),
        ret => Err(format!("LOOP_CLR_FD: {}", name(ret))),
    }
}

pub fn autoclear(world: &World) -> Setup<Instance> {
    let mut instance = bound(
        world,
        Options {
            flags: LO_FLAGS_AUTOCLEAR,
            ..Options::default()
        },
    )?;
    instance
        .others
        .push(World::open_loop(instance.nr, O_RDONLY)?);
    Ok(instance)
}

/// `LOOP_CLR_FD` while the device is open twice: it is detached at the last close.
pub fn cleared(world: &World) -> Setup<Instance> {
    let mut instance = bound(world, Options::default())?;
    instance
        .others
        .push(World::open_loop(instance.nr, O_RDONLY)?);
    clear(world, &instance)?;
    Ok(instance)
}

/// Writes a DOS partition table with two partitions of 64 KiB.
pub fn write_table(path: &Path) -> Setup<()> {
    let mut sector = [0; 512];
    for (i, start) in [128u32, 512].iter().enumerate() {
        let entry = 446 + 16 * i;
        sector[entry + 4] = 0x83;
        sector[entry + 8..entry + 12].copy_from_slice(&start.to_le_bytes());
        sector[entry + 12..entry + 16].copy_from_slice(&128u32.to_le_bytes());
    }
    // A disk identifier, so that partitions have a UUID.
    sector[440..444].copy_from_slice(&0x1234_5678u32.to_le_bytes());
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    File::options()
        .write(true)
        .open(path)
        .and_then(|file| file.write_all_at(&sector, 0))
        .map_err(context(path.display()))
}

pub fn partitioned(world: &World, flags: u32) -> Setup<Instance> {
    let path = world.file("backing", SIZE)?;
    write_table(&path)?;
    let instance = bind(
        world,
        path,
        &Options {
            flags,
            ..Options::default()
        },
    )?;
    let found = World::sysfs(instance.nr)
        .join(format!("loop{}p2", instance.nr))
        .exists();
    if found != (flags & LO_FLAGS_PARTSCAN != 0) {
        return Err(format!("partitions: {found}"));
    }
    Ok(instance)
}

/// A device with a partition that `BLKPG` added.
pub fn by_hand(world: &World) -> Setup<Instance> {
    let instance = bound(world, Options::default())?;
    ops::blkpg(
        world,
        &instance.fd,
        uapi::BLKPG_ADD_PARTITION,
        3,
        65536,
        65536,
    )
    .map_err(context("BLKPG"))?;
    Ok(instance)
}

pub fn a_partition(world: &World) -> Setup<Instance> {
    let mut instance = partitioned(world, LO_FLAGS_PARTSCAN)?;
    let path = format!("/dev/loop{}p1", instance.nr);
    let fd = open(&path, O_RDWR).map_err(context(path))?;
    instance
        .others
        .push(std::mem::replace(&mut instance.fd, fd));
    Ok(instance)
}

pub fn resized(world: &World, size: u64) -> Setup<Instance> {
    let instance = bound(world, Options::default())?;
    File::options()
        .write(true)
        .open(world.dir.join("backing"))
        .and_then(|file| file.set_len(size))
        .map_err(context("set_len"))?;
    Ok(instance)
}

pub fn to_ram(world: &World) -> Setup<Instance> {
    let path = PathBuf::from(format!("/dev/ram{}", world.ram));
    if !path.exists() {
        return Err(format!("{}no {}", SKIP, path.display()));
    }
    bind(world, path, &Options::default())
}

/// Binds another device to a file, for use as a backing device.
pub fn lower(world: &World, nr: u32, flags: u32) -> Setup<OwnedFd> {
    let path = world.file(&format!("lower{}", nr - world.base), SIZE)?;
    let file = open(&path, O_RDWR).map_err(context("lower"))?;
    world.add(nr)?;
    let fd = World::open_loop(nr, O_RDWR)?;
    world.configure(
        &fd,
        &file,
        config(&Options {
            flags,
            ..Options::default()
        }),
    )?;
    Ok(fd)
}

/// A device whose backing file is another loop device.
pub fn over(world: &World, flags: u32, mode: i32) -> Setup<Instance> {
    let nr = world.base + 3;
    drop(lower(world, nr, flags)?);
    let mut instance = bind(
        world,
        World::loop_path(nr),
        &Options {
            file: mode,
            ..Options::default()
        },
    )?;
    instance.more.push(nr);
    Ok(instance)
}

pub fn to_loop(world: &World) -> Setup<Instance> {
    over(world, 0, O_RDWR)
}

pub fn to_read_only_loop(world: &World) -> Setup<Instance> {
    over(world, LO_FLAGS_READ_ONLY, O_RDONLY)
}

pub fn mounted(world: &World) -> Setup<Instance> {
    let image = world.dir.join("../image");
    if !image.exists() {
        return Err(format!("{}no image of a file system", SKIP));
    }
    let path = world.dir.join("backing");
    fs::copy(&image, &path).map_err(context("copy"))?;
    let instance = bind(world, path, &Options::default())?;
    let dir = world.dir.join("mnt");
    fs::create_dir_all(&dir).map_err(context("mkdir"))?;
    nix::mount::mount(
        Some(&World::loop_path(instance.nr)),
        &dir,
        Some("ext4"),
        nix::mount::MsFlags::empty(),
        None::<&str>,
    )
    .map_err(context("mount"))?;
    Ok(Instance {
        mounted: Some(dir),
        ..instance
    })
}
