// SPDX-License-Identifier: GPL-2.0

//! The states of a device, as far as user space can tell them apart.
//!
//! One is missing: a device that is removed while it is open. Only a race gets there, since
//! `LOOP_CTL_REMOVE` refuses.

use crate::{
    uapi::{
        self, LoopConfig, LoopInfo64, Plain, LO_FLAGS_AUTOCLEAR, LO_FLAGS_DIRECT_IO,
        LO_FLAGS_PARTSCAN, LO_FLAGS_READ_ONLY,
    },
    world::{because, name, open, Instance, Setup, World, SIZE},
};
use libc::{O_DIRECT, O_EXCL, O_RDONLY, O_RDWR, O_WRONLY};
use std::{
    fs::{self, File},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::{Path, PathBuf},
};

pub struct State {
    pub name: &'static str,
    /// Whether it is tested with all arguments, or with those that show that an ioctl is refused.
    pub thorough: bool,
    pub make: fn(&World) -> Setup<Instance>,
}

const fn state(name: &'static str, make: fn(&World) -> Setup<Instance>) -> State {
    State {
        name,
        thorough: false,
        make,
    }
}

const fn thorough(name: &'static str, make: fn(&World) -> Setup<Instance>) -> State {
    State {
        name,
        thorough: true,
        make,
    }
}

pub const STATES: &[State] = &[
    thorough("unbound", |world| unbound(world, O_RDWR)),
    state("unbound, opened for reading", |world| {
        unbound(world, O_RDONLY)
    }),
    state("unbound, opened exclusively", |world| {
        unbound(world, O_RDWR | O_EXCL)
    }),
    state("unbound, held by another", |world| {
        held(world, unbound(world, O_RDWR)?)
    }),
    state("unbound, unprivileged", |world| {
        Ok(Instance {
            unprivileged: true,
            ..unbound(world, O_RDWR)?
        })
    }),
    state("unbound, once direct and read-only", reused),
    state("unbound, after a failed LOOP_CONFIGURE", failed),
    thorough("bound", |world| bound(world, Options::default())),
    state("bound by LOOP_SET_FD", by_set_fd),
    thorough("bound read-only", |world| {
        bound(
            world,
            Options {
                flags: LO_FLAGS_READ_ONLY,
                ..Options::default()
            },
        )
    }),
    state("bound to a file opened for reading", |world| {
        bound(
            world,
            Options {
                file: O_RDONLY,
                ..Options::default()
            },
        )
    }),
    state("bound to a file opened for writing", |world| {
        bound(
            world,
            Options {
                file: O_WRONLY,
                ..Options::default()
            },
        )
    }),
    state("bound through a device opened for reading", |world| {
        bound(
            world,
            Options {
                open: O_RDONLY,
                ..Options::default()
            },
        )
    }),
    state("bound, opened for reading", |world| {
        reopened(world, Options::default(), O_RDONLY, false)
    }),
    state("bound, opened for writing", |world| {
        reopened(world, Options::default(), O_WRONLY, false)
    }),
    state("bound, opened for ioctls only", |world| {
        reopened(world, Options::default(), 3, false)
    }),
    state("bound, opened for reading, unprivileged", |world| {
        reopened(world, Options::default(), O_RDONLY, true)
    }),
    state("bound, unprivileged", |world| {
        reopened(world, Options::default(), O_RDWR, true)
    }),
    state("bound, opened exclusively", |world| {
        bound(
            world,
            Options {
                open: O_RDWR | O_EXCL,
                ..Options::default()
            },
        )
    }),
    state("bound, held by another", |world| {
        held(world, bound(world, Options::default())?)
    }),
    thorough("bound with offset and limit", |world| {
        bound(
            world,
            Options {
                offset: 4096,
                sizelimit: 512 << 10,
                block_size: 1024,
                ..Options::default()
            },
        )
    }),
    state("bound with odd offset and limit", |world| {
        bound(
            world,
            Options {
                offset: 100,
                sizelimit: 100_001,
                ..Options::default()
            },
        )
    }),
    state("bound far into a huge file", |world| {
        bound(
            world,
            Options {
                size: (1 << 40) + SIZE,
                offset: 1 << 40,
                ..Options::default()
            },
        )
    }),
    thorough("bound direct", |world| {
        bound(
            world,
            Options {
                flags: LO_FLAGS_DIRECT_IO,
                block_size: 4096,
                ..Options::default()
            },
        )
    }),
    state("bound direct, by the file's O_DIRECT", |world| {
        bound(
            world,
            Options {
                file: O_RDWR | O_DIRECT,
                ..Options::default()
            },
        )
    }),
    state("bound direct on ext4", |world| {
        bound(
            world,
            Options {
                on_disk: true,
                flags: LO_FLAGS_DIRECT_IO,
                ..Options::default()
            },
        )
    }),
    state("bound on ext4", |world| {
        bound(
            world,
            Options {
                on_disk: true,
                ..Options::default()
            },
        )
    }),
    state("bound with autoclear", autoclear),
    state("bound, to be cleared at last close", cleared),
    state("clearing", |world| {
        let instance = bound(world, Options::default())?;
        clear(world, &instance)?;
        Ok(instance)
    }),
    state("clearing, partitioned", |world| {
        let instance = partitioned(world, LO_FLAGS_PARTSCAN)?;
        clear(world, &instance)?;
        Ok(instance)
    }),
    state("bound with partitions", |world| {
        partitioned(world, LO_FLAGS_PARTSCAN)
    }),
    state("bound with partitions, read-only", |world| {
        partitioned(world, LO_FLAGS_PARTSCAN | LO_FLAGS_READ_ONLY)
    }),
    state("bound with partitions not scanned for", |world| {
        partitioned(world, 0)
    }),
    state("bound with a partition by hand", by_hand),
    state("a partition", a_partition),
    state("bound to a deleted file", |world| {
        let instance = bound(world, Options::default())?;
        fs::remove_file(world.dir.join("backing")).map_err(because("rm"))?;
        Ok(instance)
    }),
    state("bound to a file that has grown", |world| {
        resized(world, SIZE + 5000)
    }),
    state("bound to a file that has shrunk", |world| {
        resized(world, 10_000)
    }),
    state("bound to an empty file", |world| {
        bound(
            world,
            Options {
                size: 0,
                ..Options::default()
            },
        )
    }),
    state("bound to a RAM disk", to_ram),
    state("bound to a loop device", to_loop),
    state("bound to a read-only loop device", to_read_only_loop),
    state("mounted", mounted),
];

struct Options {
    open: i32,
    file: i32,
    flags: u32,
    offset: u64,
    sizelimit: u64,
    block_size: u32,
    size: u64,
    on_disk: bool,
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

/// A configuration without a file.
fn config(options: &Options) -> LoopConfig {
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

fn bound(world: &World, options: Options) -> Setup<Instance> {
    let path = if options.on_disk {
        on_disk(world, "backing", options.size)?
    } else {
        world.file("backing", options.size)?
    };
    bind(world, path, &options)
}

/// The mount point of a file system on a disk, in the directory of all processes.
fn on_disk(world: &World, name: &str, size: u64) -> Setup<PathBuf> {
    let dir = world.dir.join("../disk");
    if !dir.is_dir() {
        return Err(format!("{}no file system on a disk", crate::compare::SKIP));
    }
    let path = dir.join(format!("{name}-{}", world.base));
    File::create(&path)
        .and_then(|file| file.set_len(size))
        .map_err(because(path.display()))?;
    Ok(path)
}

fn bind(world: &World, path: PathBuf, options: &Options) -> Setup<Instance> {
    let instance = unbound(world, options.open)?;
    let file = open(&path, options.file).map_err(because(path.display()))?;
    world.configure(&instance.fd, &file, config(options))?;
    Ok(Instance {
        backing: Some(path),
        ..instance
    })
}

/// With the file closed through which it was attached.
fn reopened(world: &World, options: Options, flags: i32, unprivileged: bool) -> Setup<Instance> {
    let instance = bound(world, options)?;
    let fd = World::open_loop(instance.nr, flags)?;
    Ok(Instance {
        fd,
        unprivileged,
        ..instance
    })
}

fn by_set_fd(world: &World) -> Setup<Instance> {
    let instance = unbound(world, O_RDWR)?;
    let path = world.file("backing", SIZE)?;
    let file = open(&path, O_RDWR).map_err(because("backing"))?;
    let fd = file.as_raw_fd() as usize;
    match world.ioctl(instance.fd.as_raw_fd(), uapi::LOOP_SET_FD, fd) {
        Ok(_) => Ok(Instance {
            backing: Some(path),
            ..instance
        }),
        ret => Err(format!("LOOP_SET_FD: {}", name(ret))),
    }
}

fn held(_: &World, mut instance: Instance) -> Setup<Instance> {
    instance
        .others
        .push(World::open_loop(instance.nr, O_RDWR | O_EXCL)?);
    Ok(instance)
}

/// Leftovers of an earlier attachment: block size, alignment, discard, read-only, name, offset.
fn reused(world: &World) -> Setup<Instance> {
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
        return Err("it stays bound".into());
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

fn failed(world: &World) -> Setup<Instance> {
    let instance = unbound(world, O_RDWR)?;
    let path = world.file("backing", SIZE)?;
    let file = open(&path, O_RDONLY).map_err(because("backing"))?;
    let mut config = config(&Options {
        offset: 512,
        sizelimit: 1024,
        ..Options::default()
    });
    config.block_size = 1000;
    if world.configure(&instance.fd, &file, config).is_ok() {
        return Err("a block size of 1000 is taken".into());
    }
    Ok(instance)
}

fn clear(world: &World, instance: &Instance) -> Setup<()> {
    match world.ioctl(instance.fd.as_raw_fd(), uapi::LOOP_CLR_FD, 0) {
        Ok(_) => Ok(()),
        ret => Err(format!("LOOP_CLR_FD: {}", name(ret))),
    }
}

fn autoclear(world: &World) -> Setup<Instance> {
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

fn cleared(world: &World) -> Setup<Instance> {
    let mut instance = bound(world, Options::default())?;
    instance
        .others
        .push(World::open_loop(instance.nr, O_RDONLY)?);
    clear(world, &instance)?;
    Ok(instance)
}

/// A DOS partition table: two partitions of 64 KiB.
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
        .map_err(because(path.display()))
}

fn partitioned(world: &World, flags: u32) -> Setup<Instance> {
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

fn by_hand(world: &World) -> Setup<Instance> {
    let instance = bound(world, Options::default())?;
    crate::ops::blkpg(
        world,
        &instance.fd,
        uapi::BLKPG_ADD_PARTITION,
        3,
        65536,
        65536,
    )
    .map_err(because("BLKPG"))?;
    Ok(instance)
}

fn a_partition(world: &World) -> Setup<Instance> {
    let mut instance = partitioned(world, LO_FLAGS_PARTSCAN)?;
    let path = format!("/dev/loop{}p1", instance.nr);
    let fd = open(&path, O_RDWR).map_err(because(path))?;
    instance
        .others
        .push(std::mem::replace(&mut instance.fd, fd));
    Ok(instance)
}

fn resized(world: &World, size: u64) -> Setup<Instance> {
    let instance = bound(world, Options::default())?;
    File::options()
        .write(true)
        .open(world.dir.join("backing"))
        .and_then(|file| file.set_len(size))
        .map_err(because("set_len"))?;
    Ok(instance)
}

fn to_ram(world: &World) -> Setup<Instance> {
    let path = PathBuf::from(format!("/dev/ram{}", world.ram));
    if !path.exists() {
        return Err(format!("{}no {}", crate::compare::SKIP, path.display()));
    }
    bind(world, path, &Options::default())
}

/// Another device, attached to a file, as a backing device.
pub fn lower(world: &World, nr: u32, flags: u32) -> Setup<OwnedFd> {
    let path = world.file(&format!("lower{}", nr - world.base), SIZE)?;
    let file = open(&path, O_RDWR).map_err(because("lower"))?;
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

fn over(world: &World, flags: u32, mode: i32) -> Setup<Instance> {
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

fn to_loop(world: &World) -> Setup<Instance> {
    over(world, 0, O_RDWR)
}

fn to_read_only_loop(world: &World) -> Setup<Instance> {
    over(world, LO_FLAGS_READ_ONLY, O_RDONLY)
}

fn mounted(world: &World) -> Setup<Instance> {
    let image = world.dir.join("../image");
    if !image.exists() {
        return Err(format!("{}no image of a file system", crate::compare::SKIP));
    }
    let path = world.dir.join("backing");
    fs::copy(&image, &path).map_err(because("copy"))?;
    let instance = bind(world, path, &Options::default())?;
    let dir = world.dir.join("mnt");
    fs::create_dir_all(&dir).map_err(because("mkdir"))?;
    nix::mount::mount(
        Some(&World::loop_path(instance.nr)),
        &dir,
        Some("ext4"),
        nix::mount::MsFlags::empty(),
        None::<&str>,
    )
    .map_err(because("mount"))?;
    Ok(Instance {
        mounted: Some(dir),
        ..instance
    })
}
