// SPDX-License-Identifier: GPL-2.0

//! Cases beyond one device in one state: `/dev/loop-control`, the module and its parameters,
//! several devices, the order of uevents, calls that wait.
//!
//! Each starts with the driver as it is, and loads it as needed.

use crate::{
    compare::{BROKEN, SKIP},
    ops::{self, Number},
    states,
    sys::{self, Abi, Arena, Ret, Uevents},
    uapi::*,
    world::{because, name, open, read, Setup, World, SIZE},
};
use libc::{O_EXCL, O_RDONLY, O_RDWR};
use nix::{
    errno::Errno,
    kmod::{self, DeleteModuleFlags},
    sys::{
        signal::{self, Signal},
        stat::{makedev, mknod, Mode, SFlag},
        wait::{waitpid, WaitPidFlag, WaitStatus},
    },
    unistd::{fork, ForkResult, Pid},
};
use std::{
    ffi::CString,
    fs::{self, File},
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

/// Cases and their outcomes.
type Outcomes = Vec<(String, String)>;

type Scenario = fn(&Session) -> Outcomes;

pub const SCENARIOS: &[(&str, Scenario)] = &[
    ("loop-control: LOOP_CTL_ADD", |s| {
        s.with("max_loop=0", control_add)
    }),
    ("loop-control: LOOP_CTL_REMOVE", |s| {
        s.with("max_loop=0", control_remove)
    }),
    ("loop-control: LOOP_CTL_GET_FREE", |s| {
        s.with("max_loop=0", control_get_free)
    }),
    ("loop-control: other calls", |s| {
        s.with("max_loop=0", control_others)
    }),
    ("uevents from attach to detach", |s| {
        s.with("max_loop=0", life)
    }),
    ("partitions are added and removed", |s| {
        s.with("max_loop=0", partitions)
    }),
    ("a partition in use", |s| {
        s.with("max_loop=0", partition_in_use)
    }),
    ("the size follows the file", |s| s.with("max_loop=0", sizes)),
    ("loop on loop on loop", |s| s.with("max_loop=0", recursion)),
    ("names of backing files", |s| {
        s.with("max_loop=0", backing_names)
    }),
    ("references to the module", |s| {
        s.with("max_loop=0", references)
    }),
    ("devices' nodes and numbers", |s| {
        s.with("max_loop=2", nodes)
    }),
    ("calls that are killed while they wait", |s| {
        s.with("max_loop=0", killed)
    }),
    ("module parameters", parameters),
    ("module parameters: partitions' numbers", partition_numbers),
    ("opening a node without a disk", dead_nodes),
    ("modinfo", modinfo),
];

/// For `finit_module`.
const MODULE_INIT_COMPRESSED_FILE: u32 = 4;

/// The driver under test.
pub struct Session {
    pub module: PathBuf,
    pub name: String,
    pub dir: PathBuf,
    pub slow: u32,
}

impl Session {
    pub fn is_loaded(&self) -> bool {
        Path::new("/sys/module").join(&self.name).exists()
    }

    pub fn load(&self, parameters: &str) -> Result<(), Errno> {
        let file = File::open(&self.module).map_err(|_| Errno::ENOENT)?;
        let parameters = CString::new(parameters).map_err(|_| Errno::EINVAL)?;
        // Distributions compress modules, and the kernel decompresses them.
        let flags = match self.module.extension().is_some_and(|ext| ext != "ko") {
            true => kmod::ModuleInitFlags::from_bits_retain(MODULE_INIT_COMPRESSED_FILE),
            false => kmod::ModuleInitFlags::empty(),
        };
        kmod::finit_module(&file, &parameters, flags)
    }

    /// A device may hold the module for a moment longer than the call that closed it.
    pub fn unload(&self) -> Setup<()> {
        let name = CString::new(self.name.as_str()).map_err(because("name"))?;
        let end = Instant::now() + Duration::from_secs(10) * self.slow;
        loop {
            match kmod::delete_module(&name, DeleteModuleFlags::O_NONBLOCK) {
                Ok(()) => return Ok(()),
                Err(Errno::EAGAIN | Errno::EBUSY) if Instant::now() < end => {
                    sleep(Duration::from_millis(5));
                }
                Err(errno) => return Err(format!("rmmod {}: {errno:?}", self.name)),
            }
        }
    }

    /// Loads the driver and runs the closure.
    fn with(&self, parameters: &str, f: fn(&Session, &World) -> Setup<Outcomes>) -> Outcomes {
        let run = || {
            self.load(parameters).map_err(because("insmod"))?;
            let world = self.world()?;
            let outcomes = f(self, &world);
            for nr in 0..8 {
                world.remove(nr)?;
            }
            outcomes
        };
        run().unwrap_or_else(broken)
    }

    fn world(&self) -> Setup<World> {
        let dir = self.dir.join("scenario");
        fs::create_dir_all(&dir).map_err(because("mkdir"))?;
        Ok(World {
            control: open("/dev/loop-control", O_RDWR).map_err(because("/dev/loop-control"))?,
            arena: Arena::new().map_err(because("mmap"))?,
            uevents: Uevents::listen().map_err(because("uevents"))?,
            dir,
            base: 0,
            // One that no state has.
            ram: 60,
            slow: self.slow,
        })
    }
}

fn broken(why: String) -> Outcomes {
    let outcome = match why.starts_with(SKIP) {
        true => why,
        false => format!("{BROKEN}{why}"),
    };
    vec![("set-up".into(), outcome)]
}

/// Collects outcomes.
#[derive(Default)]
struct Log(Outcomes);

impl Log {
    fn say(&mut self, case: impl Into<String>, outcome: impl Into<String>) {
        self.0.push((case.into(), outcome.into()));
    }

    fn ret(&mut self, case: impl Into<String>, ret: Ret) {
        self.say(case, name(ret));
    }

    /// With the uevents since the last case.
    fn event(&mut self, world: &World, case: &str, ret: Ret) {
        let mut text = name(ret);
        for event in world.take_uevents() {
            text.push_str("; ");
            text.push_str(&event);
        }
        self.say(case, text);
    }
}

/// The existing loop devices.
fn devices() -> String {
    let mut all: Vec<u32> = fs::read_dir("/sys/block")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            entry
                .file_name()
                .to_str()?
                .strip_prefix("loop")?
                .parse()
                .ok()
        })
        .collect();
    all.sort_unstable();
    format!("{all:?}")
}

fn file(world: &World, name: &str, size: u64, flags: i32) -> Setup<OwnedFd> {
    let path = world.file(name, size)?;
    open(path, flags).map_err(because(name))
}

fn bytes_of(world: &World, fd: &OwnedFd) -> u64 {
    world
        .ioctl_with(fd.as_raw_fd(), BLKGETSIZE64, &Number(0))
        .1
         .0
}

fn with_flags(flags: u32) -> LoopConfig {
    LoopConfig {
        info: LoopInfo64 {
            flags,
            ..LoopInfo64::zeroed()
        },
        ..LoopConfig::zeroed()
    }
}

/// A device of that number, attached to a file.
fn attach(world: &World, nr: u32, file: &OwnedFd, flags: u32) -> Setup<OwnedFd> {
    if !World::sysfs(nr).exists() {
        world.add(nr)?;
    }
    let fd = World::open_loop(nr, O_RDWR)?;
    world.configure(&fd, file, with_flags(flags))?;
    Ok(fd)
}

fn control_add(_: &Session, world: &World) -> Setup<Outcomes> {
    let mut log = Log::default();
    let add = |nr: u64| world.control(LOOP_CTL_ADD, nr as usize);

    log.ret("5", add(5));
    log.ret("5 again", add(5));
    log.ret("-1", add(u64::MAX));
    log.ret("-1 again", add(u64::MAX));
    log.ret("-2", add(u64::MAX - 1));
    log.ret("the least", add(i32::MIN as u64));
    log.ret("0 of 64 bits", add(1 << 32));
    log.ret("7 of 64 bits", add((1 << 32) | 7));
    log.say("there are", devices());
    log.ret("the last", add((1 << 20) - 1));
    log.say(
        "its number",
        read(world, &World::sysfs((1 << 20) - 1).join("dev")),
    );
    log.ret("removing it", world.control(LOOP_CTL_REMOVE, (1 << 20) - 1));
    log.ret("beyond the last", add(1 << 20));
    log.ret("far beyond", add(1 << 30));
    log.ret("the largest", add(i32::MAX as u64));
    log.ret(
        "removing a device that was not added",
        world.control(LOOP_CTL_REMOVE, 1 << 20),
    );
    let compat = |arg| sys::ioctl(Abi::Compat, world.control.as_raw_fd(), LOOP_CTL_ADD, arg);
    if sys::has_compat() {
        log.ret("32-bit 6", compat(6));
        log.ret("32-bit 6 again", compat(6));
        log.ret("32-bit -1", compat(u32::MAX as usize));
    }
    log.say("devices at the end", devices());
    Ok(log.0)
}

fn control_remove(_: &Session, world: &World) -> Setup<Outcomes> {
    let mut log = Log::default();
    let remove = |nr: u64| world.control(LOOP_CTL_REMOVE, nr as usize);

    for (what, nr) in [
        ("-1", u64::MAX),
        ("the least", i32::MIN as u64),
        ("missing", 3),
        ("huge", 1 << 20),
        ("the largest", i32::MAX as u64),
    ] {
        log.ret(what, remove(nr));
    }
    world.add(3)?;
    let fd = World::open_loop(3, O_RDONLY)?;
    log.ret("open", remove(3));
    drop(fd);
    let backing = file(world, "backing", SIZE, O_RDWR)?;
    let fd = attach(world, 3, &backing, 0)?;
    log.ret("bound and open", remove(3));
    drop(fd);
    log.ret("bound", remove(3));
    let fd = World::open_loop(3, O_RDWR)?;
    log.ret("LOOP_CLR_FD", world.ioctl(fd.as_raw_fd(), LOOP_CLR_FD, 0));
    log.ret("clearing", remove(3));
    drop(fd);
    log.ret("cleared", remove(3));
    log.ret("removed", remove(3));
    world.add(3)?;
    log.ret("with high bits", remove((1 << 32) | 3));
    world.add(3)?;
    if sys::has_compat() {
        let compat = |arg| sys::ioctl(Abi::Compat, world.control.as_raw_fd(), LOOP_CTL_REMOVE, arg);
        log.ret("32-bit", compat(3));
        log.ret("32-bit missing", compat(3));
        log.ret("32-bit -1", compat(u32::MAX as usize));
    }
    log.say("there are", devices());
    Ok(log.0)
}

fn control_get_free(_: &Session, world: &World) -> Setup<Outcomes> {
    let mut log = Log::default();
    let free = || world.control(LOOP_CTL_GET_FREE, 0);
    let backing = file(world, "backing", SIZE, O_RDWR)?;

    log.ret("none there", free());
    log.ret("one there", free());
    log.say("there are", devices());
    let first = attach(world, 0, &backing, 0)?;
    log.ret("it's bound", free());
    let opened = World::open_loop(1, O_RDONLY)?;
    log.ret("the free one is open", free());
    world.add(4)?;
    let second = attach(world, 1, &backing, 0)?;
    drop(opened);
    log.ret("the lowest", free());
    let third = attach(world, 4, &backing, 0)?;
    log.ret("the lowest new", free());
    log.ret("clear", world.ioctl(first.as_raw_fd(), LOOP_CLR_FD, 0));
    log.ret("clearing", free());
    drop(first);
    log.ret("cleared", free());
    log.ret("an argument", world.control(LOOP_CTL_GET_FREE, usize::MAX));
    if sys::has_compat() {
        let fd = world.control.as_raw_fd();
        log.ret("32-bit", sys::ioctl(Abi::Compat, fd, LOOP_CTL_GET_FREE, 0));
    }
    log.say("devices at the end", devices());
    drop((second, third));
    Ok(log.0)
}

fn control_others(_: &Session, world: &World) -> Setup<Outcomes> {
    let mut log = Log::default();
    let fd = world.control.as_raw_fd();

    let abis = if sys::has_compat() {
        &[Abi::Native, Abi::Compat][..]
    } else {
        &[Abi::Native]
    };
    for &abi in abis {
        for cmd in [
            0,
            0x4c7f,
            0x4c83,
            0x4cff,
            LOOP_SET_FD,
            LOOP_CONFIGURE,
            BLKGETSIZE64,
            0x5401,
        ] {
            log.ret(format!("{abi:?} {cmd:#x}"), sys::ioctl(abi, fd, cmd, 0));
        }
    }
    let mut byte = [0u8];
    // SAFETY: There is a byte to read into, or to write from.
    let (read_it, wrote, sought) = unsafe {
        (
            libc::read(fd, byte.as_mut_ptr().cast(), 1),
            Errno::result(libc::write(fd, byte.as_ptr().cast(), 1)),
            Errno::result(libc::lseek(fd, 100, libc::SEEK_SET)),
        )
    };
    log.say("read", format!("{:?}", Errno::result(read_it)));
    log.say("write", format!("{wrote:?}"));
    log.say("lseek", format!("{sought:?}"));
    for (what, flags) in [
        ("O_RDONLY", O_RDONLY),
        ("O_WRONLY", libc::O_WRONLY),
        ("3", 3),
    ] {
        match open("/dev/loop-control", flags) {
            Ok(fd) => log.ret(
                what,
                sys::ioctl(Abi::Native, fd.as_raw_fd(), LOOP_CTL_GET_FREE, 0),
            ),
            Err(errno) => log.say(what, format!("{errno:?}")),
        }
    }
    log.say(
        "unprivileged",
        sys::unprivileged(|| {
            let opened = open("/dev/loop-control", O_RDWR).map(|_| ());
            format!("{opened:?} {}", name(world.control(LOOP_CTL_ADD, 5)))
        }),
    );
    let meta = fs::metadata("/dev/loop-control").map_err(because("stat"))?;
    log.say(
        "node",
        format!("{:o} {:#x}", meta.permissions().mode(), meta.rdev()),
    );
    let misc = Path::new("/sys/class/misc/loop-control");
    log.say(
        "sysfs",
        format!(
            "{} {}",
            read(world, &misc.join("dev")),
            read(world, &misc.join("uevent"))
        ),
    );
    let of = |path, word: &str| -> String {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines()
            .filter(|line| line.contains(word))
            .collect::<Vec<_>>()
            .join(";")
    };
    log.say("/proc/misc", of("/proc/misc", "loop"));
    log.say("/proc/devices", of("/proc/devices", "loop"));
    Ok(log.0)
}

fn life(_: &Session, world: &World) -> Setup<Outcomes> {
    let mut log = Log::default();
    let backing = file(world, "backing", SIZE, O_RDWR)?;
    states::write_table(&world.dir.join("backing"))?;
    let other = file(world, "other", SIZE, O_RDWR)?;
    let bare = |log: &mut Log, what: &str| log.event(world, what, Ok(0));

    log.event(world, "add", world.control(LOOP_CTL_ADD, 0));
    let fd = World::open_loop(0, O_RDWR)?;
    bare(&mut log, "open");
    let raw = fd.as_raw_fd();
    let set = |flags, offset| {
        let info = LoopInfo64 {
            flags,
            offset,
            ..LoopInfo64::zeroed()
        };
        world.ioctl_with(raw, LOOP_SET_STATUS64, &info).0
    };
    let configure = |flags| {
        let config = LoopConfig {
            fd: backing.as_raw_fd() as u32,
            ..with_flags(flags)
        };
        world.ioctl_with(raw, LOOP_CONFIGURE, &config).0
    };
    log.event(world, "configure", configure(0));
    log.event(world, "a second time", configure(0));
    log.event(
        world,
        "set capacity, the same",
        world.ioctl(raw, LOOP_SET_CAPACITY, 0),
    );
    nix::unistd::ftruncate(&backing, 2 * SIZE as i64).map_err(because("truncate"))?;
    log.event(
        world,
        "set capacity, more",
        world.ioctl(raw, LOOP_SET_CAPACITY, 0),
    );
    log.event(world, "set status, the same", set(0, 0));
    log.event(world, "set status, an offset", set(0, 4096));
    log.event(world, "set status, no offset", set(0, 0));
    log.event(world, "set status, a scan", set(LO_FLAGS_PARTSCAN, 0));
    log.event(world, "set status, a scan again", set(LO_FLAGS_PARTSCAN, 0));
    log.event(world, "rescan", world.ioctl(raw, BLKRRPART, 0));
    log.event(
        world,
        "set block size",
        world.ioctl(raw, LOOP_SET_BLOCK_SIZE, 4096),
    );
    log.event(world, "set direct", world.ioctl(raw, LOOP_SET_DIRECT_IO, 1));
    let change = |fd: &OwnedFd| world.ioctl(raw, LOOP_CHANGE_FD, fd.as_raw_fd() as usize);
    log.event(world, "change fd, refused", change(&other));
    log.event(world, "clear", world.ioctl(raw, LOOP_CLR_FD, 0));
    drop(fd);
    bare(&mut log, "last close");
    let fd = World::open_loop(0, O_RDWR)?;
    let raw = fd.as_raw_fd();
    bare(&mut log, "open again");
    nix::unistd::ftruncate(&backing, SIZE as i64).map_err(because("truncate"))?;
    let configure = |flags| {
        let config = LoopConfig {
            fd: backing.as_raw_fd() as u32,
            ..with_flags(flags)
        };
        world.ioctl_with(raw, LOOP_CONFIGURE, &config).0
    };
    log.event(
        world,
        "configure read-only, with a scan",
        configure(LO_FLAGS_READ_ONLY | LO_FLAGS_PARTSCAN),
    );
    let change = |fd: &OwnedFd| world.ioctl(raw, LOOP_CHANGE_FD, fd.as_raw_fd() as usize);
    log.event(world, "change fd", change(&other));
    log.event(world, "change fd back", change(&backing));
    log.event(world, "clear", world.ioctl(raw, LOOP_CLR_FD, 0));
    drop(fd);
    bare(&mut log, "last close with partitions");
    log.event(world, "remove", world.control(LOOP_CTL_REMOVE, 0));
    Ok(log.0)
}

fn partition_list(world: &World, nr: u32) -> String {
    let mut all: Vec<String> = fs::read_dir(World::sysfs(nr))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().to_str()?.to_string();
            let part = name.strip_prefix(&format!("loop{nr}p"))?.to_string();
            let of = |file: &str| read(world, &entry.path().join(file));
            Some(format!(
                "{part}:{}+{} ro={}",
                of("start"),
                of("size"),
                of("ro")
            ))
        })
        .collect();
    all.sort();
    format!("{all:?}")
}

fn partitions(_: &Session, world: &World) -> Setup<Outcomes> {
    let mut log = Log::default();
    let backing = file(world, "backing", SIZE, O_RDWR)?;
    states::write_table(&world.dir.join("backing"))?;
    let status = |fd: &OwnedFd, flags, offset| {
        let info = LoopInfo64 {
            flags,
            offset,
            ..LoopInfo64::zeroed()
        };
        world.ioctl_with(fd.as_raw_fd(), LOOP_SET_STATUS64, &info).0
    };
    let clear = |fd: OwnedFd| -> Ret { world.ioctl(fd.as_raw_fd(), LOOP_CLR_FD, 0) };

    // Scanned or not; found or not; removed by a detach.
    let fd = attach(world, 0, &backing, 0)?;
    log.say("not scanned for", partition_list(world, 0));
    log.ret("BLKRRPART", world.ioctl(fd.as_raw_fd(), BLKRRPART, 0));
    log.say("BLKRRPART finds", partition_list(world, 0));
    log.ret("asked to scan", status(&fd, LO_FLAGS_PARTSCAN, 0));
    log.say("scanned for", partition_list(world, 0));
    log.ret(
        "BLKRRPART once more",
        world.ioctl(fd.as_raw_fd(), BLKRRPART, 0),
    );
    log.say("still", partition_list(world, 0));
    log.ret("unset", status(&fd, 0, 0));
    log.say(
        "not unset",
        read(world, &World::sysfs(0).join("loop/partscan")),
    );
    // At an offset there is no table, but nothing has scanned the device.
    log.ret("an offset", status(&fd, 0, 4096));
    log.say("with an offset", partition_list(world, 0));
    log.ret(
        "BLKRRPART with an offset",
        world.ioctl(fd.as_raw_fd(), BLKRRPART, 0),
    );
    log.say("with an offset, reread", partition_list(world, 0));
    log.ret("no offset", status(&fd, 0, 0));
    log.ret("clear", clear(fd));
    log.say("after detaching", partition_list(world, 0));

    // Of the file that it is attached to, not of the device.
    let fd = attach(world, 0, &backing, 0)?;
    log.say("after the next attach", partition_list(world, 0));
    log.say(
        "after the next attach, the flag",
        read(world, &World::sysfs(0).join("loop/partscan")),
    );
    log.ret(
        "BLKRRPART in the next life",
        world.ioctl(fd.as_raw_fd(), BLKRRPART, 0),
    );
    // Added by ioctl.
    let add = |pno| {
        ops::blkpg(
            world,
            &fd,
            BLKPG_ADD_PARTITION,
            pno,
            65536 * i64::from(pno),
            4096,
        )
    };
    log.ret("by hand", add(1));
    log.ret("by hand, a high one", add(15));
    log.say("two by hand", partition_list(world, 0));
    log.ret("clear those by hand", clear(fd));
    log.say("none by hand", partition_list(world, 0));

    // A scan when the device is attached, then its reader sees the partitions.
    let fd = attach(world, 0, &backing, LO_FLAGS_PARTSCAN)?;
    log.say("on attaching", partition_list(world, 0));
    let part = open("/dev/loop0p2", O_RDONLY).map_err(because("p2"))?;
    log.say("its bytes", ops::read_at(part.as_raw_fd(), 512, 0));
    log.say("its size", bytes_of(world, &part).to_string());
    drop(part);
    // A new open neither scans again nor removes partitions.
    drop(World::open_loop(0, O_RDWR)?);
    log.say("after another open", partition_list(world, 0));
    log.ret("clear again", clear(fd));
    log.say("none", partition_list(world, 0));

    // The table changes; a read-only device has read-only partitions.
    let fd = attach(world, 0, &backing, LO_FLAGS_PARTSCAN | LO_FLAGS_READ_ONLY)?;
    log.say("read-only", partition_list(world, 0));
    let other = file(world, "other", SIZE, O_RDWR)?;
    log.ret(
        "change to a file without",
        world.ioctl(fd.as_raw_fd(), LOOP_CHANGE_FD, other.as_raw_fd() as usize),
    );
    log.say("without", partition_list(world, 0));
    log.ret(
        "change back",
        world.ioctl(fd.as_raw_fd(), LOOP_CHANGE_FD, backing.as_raw_fd() as usize),
    );
    log.say("with", partition_list(world, 0));
    Ok(log.0)
}

fn partition_in_use(_: &Session, world: &World) -> Setup<Outcomes> {
    let mut log = Log::default();
    let backing = file(world, "backing", SIZE, O_RDWR)?;
    states::write_table(&world.dir.join("backing"))?;
    let fd = attach(world, 0, &backing, LO_FLAGS_PARTSCAN)?;
    let raw = fd.as_raw_fd();
    let part = open("/dev/loop0p1", O_RDWR).map_err(because("p1"))?;

    log.ret("BLKRRPART", world.ioctl(raw, BLKRRPART, 0));
    log.say("partitions", partition_list(world, 0));
    log.ret(
        "delete it",
        ops::blkpg(world, &fd, BLKPG_DEL_PARTITION, 1, 0, 0),
    );
    log.ret(
        "delete the other",
        ops::blkpg(world, &fd, BLKPG_DEL_PARTITION, 2, 0, 0),
    );
    log.ret("clear", world.ioctl(raw, LOOP_CLR_FD, 0));
    let status = |fd: &OwnedFd| {
        let (ret, info) =
            world.ioctl_with(fd.as_raw_fd(), LOOP_GET_STATUS64, &LoopInfo64::zeroed());
        format!("{} {:#x}", name(ret), info.flags)
    };
    log.say("status", status(&fd));
    drop(fd);
    log.say("status by the partition", status(&part));
    log.say("partitions while it's open", partition_list(world, 0));
    let again = open("/dev/loop0", O_RDONLY).map(|_| ());
    log.say("open the device", format!("{again:?}"));
    log.ret(
        "clear by the partition",
        world.ioctl(part.as_raw_fd(), LOOP_CLR_FD, 0),
    );
    log.say("status then", status(&part));
    drop(part);
    log.say("partitions at last close", partition_list(world, 0));
    log.say("bound", World::sysfs(0).join("loop").exists().to_string());

    // While it is claimed exclusively, the whole device cannot be reconfigured.
    let fd = attach(world, 0, &backing, LO_FLAGS_PARTSCAN)?;
    let part = open("/dev/loop0p1", O_RDWR | O_EXCL).map_err(because("p1"))?;
    let raw = fd.as_raw_fd();
    log.ret(
        "held: block size",
        world.ioctl(raw, LOOP_SET_BLOCK_SIZE, 4096),
    );
    log.ret("held: BLKRRPART", world.ioctl(raw, BLKRRPART, 0));
    log.ret(
        "held: block size by it",
        world.ioctl(part.as_raw_fd(), LOOP_SET_BLOCK_SIZE, 4096),
    );
    let excl = open("/dev/loop0", O_RDWR | O_EXCL).map(|_| ());
    log.say("held: the device exclusively", format!("{excl:?}"));
    let other = open("/dev/loop0p2", O_RDWR | O_EXCL).map(|_| ());
    log.say("held: the other exclusively", format!("{other:?}"));
    Ok(log.0)
}

fn sizes(_: &Session, world: &World) -> Setup<Outcomes> {
    let mut log = Log::default();
    let backing = file(world, "backing", SIZE, O_RDWR)?;
    let fd = attach(world, 0, &backing, 0)?;
    let raw = fd.as_raw_fd();

    for size in [
        SIZE + 4096,
        SIZE + 4096 + 511,
        SIZE + 4096 + 512,
        2 * SIZE,
        512,
        511,
        0,
        SIZE,
    ] {
        nix::unistd::ftruncate(&backing, size as i64).map_err(because("truncate"))?;
        let before = bytes_of(world, &fd);
        log.ret(
            format!("capacity {size}"),
            world.ioctl(raw, LOOP_SET_CAPACITY, 0),
        );
        let end = bytes_of(world, &fd);
        log.say(
            format!("size {size}"),
            format!(
                "{before} -> {end}, {}, {}",
                ops::read_at(raw, 4096, end as i64 - 512),
                ops::read_at(raw, 4096, end as i64),
            ),
        );
    }
    // Data written beyond a limit.
    for (offset, sizelimit) in [
        (0, 4096),
        (4096, 4096),
        (512, 1000),
        (SIZE - 512, 0),
        (SIZE, 0),
        (2 * SIZE, 512),
    ] {
        let info = LoopInfo64 {
            offset,
            sizelimit,
            ..LoopInfo64::zeroed()
        };
        let ret = world.ioctl_with(raw, LOOP_SET_STATUS64, &info).0;
        let end = bytes_of(world, &fd) as i64;
        log.say(
            format!("offset {offset} limit {sizelimit}"),
            format!(
                "{} {end}, {}, {}",
                name(ret),
                ops::read_at(raw, 4096, 0),
                ops::read_at(raw, 4096, end),
            ),
        );
    }
    Ok(log.0)
}

fn recursion(_: &Session, world: &World) -> Setup<Outcomes> {
    let mut log = Log::default();
    let backing = file(world, "backing", SIZE, O_RDWR)?;
    let set = |upper: &OwnedFd, lower: &OwnedFd| {
        world.ioctl(upper.as_raw_fd(), LOOP_SET_FD, lower.as_raw_fd() as usize)
    };
    let change = |upper: &OwnedFd, lower: &OwnedFd| {
        world.ioctl(
            upper.as_raw_fd(),
            LOOP_CHANGE_FD,
            lower.as_raw_fd() as usize,
        )
    };
    for nr in 0..4 {
        world.add(nr)?;
    }
    let all: Vec<OwnedFd> = (0..4)
        .map(|nr| World::open_loop(nr, O_RDWR))
        .collect::<Setup<_>>()?;
    log.ret("0 on a file", set(&all[0], &backing));
    log.ret("1 on 0", set(&all[1], &all[0]));
    log.ret("2 on 1", set(&all[2], &all[1]));
    log.say("2 reads", ops::read_at(all[2].as_raw_fd(), 4096, 0));
    let (ret, info) =
        world.ioctl_with(all[2].as_raw_fd(), LOOP_GET_STATUS64, &LoopInfo64::zeroed());
    log.say("2's status", format!("{} {:#x}", name(ret), info.rdevice));
    log.ret("0 on 2, bound", set(&all[0], &all[2]));
    log.ret("3 on 3", set(&all[3], &all[3]));
    // A cycle: an unbound device below itself.
    log.ret(
        "0 cleared under the others",
        world.ioctl(all[0].as_raw_fd(), LOOP_CLR_FD, 0),
    );
    log.say("2 reads still", {
        let _ = world.ioctl(all[2].as_raw_fd(), BLKFLSBUF, 0);
        ops::read_at(all[2].as_raw_fd(), 4096, 4096)
    });
    log.ret("3 on 2, of a chain to be cleared", set(&all[3], &all[2]));
    log.ret("3 cleared", world.ioctl(all[3].as_raw_fd(), LOOP_CLR_FD, 0));
    log.ret("2 cleared", world.ioctl(all[2].as_raw_fd(), LOOP_CLR_FD, 0));
    log.ret("0 on 2, clearing", set(&all[0], &all[2]));
    drop(all);
    for nr in [3, 2, 1, 0] {
        world.remove(nr)?;
    }

    // By LOOP_CHANGE_FD, which needs a read-only device: 1 over 0, then 0 over 1.
    let zero = attach(world, 0, &backing, LO_FLAGS_READ_ONLY)?;
    let lower = World::open_loop(0, O_RDONLY)?;
    let one = attach(world, 1, &lower, LO_FLAGS_READ_ONLY)?;
    let upper = World::open_loop(1, O_RDONLY)?;
    log.ret("change 0 to 1, a cycle", change(&zero, &upper));
    log.ret("change 0 to 0", change(&zero, &lower));
    log.ret("change 1 to 1", change(&one, &upper));
    world.add(2)?;
    let two = World::open_loop(2, O_RDONLY)?;
    log.ret("change 0 to one that is not bound", change(&zero, &two));
    log.ret("set 2 to 1", set(&two, &upper));
    log.ret("change 2 to 0", change(&two, &lower));
    log.say("2 reads in the end", ops::read_at(two.as_raw_fd(), 4096, 0));
    drop((two, upper, one, lower, zero));
    for nr in [2, 1, 0] {
        world.remove(nr)?;
    }

    // A partition of a loop device is not detected as a loop device.
    states::write_table(&world.dir.join("backing"))?;
    let zero = attach(world, 0, &backing, LO_FLAGS_PARTSCAN)?;
    let part = open("/dev/loop0p1", O_RDWR).map_err(because("p1"))?;
    world.add(1)?;
    let one = World::open_loop(1, O_RDWR)?;
    log.ret("1 on a partition of 0", set(&one, &part));
    log.say("its size", bytes_of(world, &one).to_string());
    drop((one, part));
    world.remove(1)?;
    drop(zero);
    Ok(log.0)
}

fn backing_names(_: &Session, world: &World) -> Setup<Outcomes> {
    let mut log = Log::default();
    let attr = World::sysfs(0).join("loop/backing_file");
    let mut show = |what: &str, dir: &Path, name: &str| -> Setup<()> {
        let path = dir.join(name);
        let made = File::create(&path).and_then(|file| file.set_len(SIZE));
        made.map_err(because(what))?;
        let file = open(&path, O_RDWR).map_err(because(what))?;
        let fd = attach(world, 0, &file, 0)?;
        let text = read(world, &attr);
        let text = if text.len() > 300 {
            format!("{} {}", text.len(), &text[text.len() - 20..])
        } else {
            text
        };
        log.say(what, text);
        if what == "plain" {
            fs::rename(&path, dir.join("renamed")).map_err(because(what))?;
            log.say("renamed", read(world, &attr));
            fs::remove_file(dir.join("renamed")).map_err(because(what))?;
            log.say("removed", read(world, &attr));
        }
        let _ = world.ioctl(fd.as_raw_fd(), LOOP_CLR_FD, 0);
        drop(fd);
        Ok(())
    };
    show("plain", &world.dir, "plain")?;
    show("spaces", &world.dir, " a b ")?;
    show("a newline", &world.dir, "a\nb\tc\\d")?;
    show("not ASCII", &world.dir, "\u{e9}\u{1f600}")?;
    // Up to the longest path that can be opened, relative to its directory.
    let here = std::env::current_dir().map_err(because("cwd"))?;
    std::env::set_current_dir(&world.dir).map_err(because("chdir"))?;
    const PART: usize = 200;
    let room = 4096 - world.dir.as_os_str().len();
    let parts = (room - 50) / (PART + 1);
    let deep = || -> Setup<()> {
        for _ in 0..parts {
            let part = "d".repeat(PART);
            fs::create_dir(&part).map_err(because("mkdir"))?;
            std::env::set_current_dir(&part).map_err(because("chdir"))?;
        }
        Ok(())
    };
    // With that many more characters, a slash and a null byte, a path fills a page.
    let left = room - parts * (PART + 1);
    let result = deep().and_then(|()| {
        show("a long path", Path::new(""), "f")?;
        for less in (0..8).rev() {
            show(
                &format!("a page, less {less}"),
                Path::new(""),
                &"f".repeat(left - less),
            )?;
        }
        Ok(())
    });
    std::env::set_current_dir(here).map_err(because("chdir"))?;
    result?;
    fs::remove_dir_all(world.dir.join("d".repeat(PART))).map_err(because("rm"))?;
    // A file without a path.
    // SAFETY: The name is a string.
    let memfd = unsafe { libc::memfd_create(c"a memfd".as_ptr(), libc::MFD_CLOEXEC) };
    let memfd = File::from(made(memfd)?);
    memfd.set_len(SIZE).map_err(because("memfd"))?;
    let fd = attach(world, 0, &memfd.into(), 0)?;
    log.say("memfd", read(world, &attr));
    drop(fd);
    Ok(log.0)
}

/// A file that was made just now.
fn made(fd: RawFd) -> Setup<OwnedFd> {
    use std::os::fd::FromRawFd;

    let fd = Errno::result(fd).map_err(because("a file"))?;
    // SAFETY: It was.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn references(session: &Session, world: &World) -> Setup<Outcomes> {
    let mut log = Log::default();
    let backing = file(world, "backing", SIZE, O_RDWR)?;
    let count = || -> i64 {
        let path = Path::new("/sys/module").join(&session.name).join("refcnt");
        fs::read_to_string(path)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(-1)
    };
    let base = count();
    let mut say = |what: &str| log.say(what, (count() - base).to_string());

    world.add(0)?;
    say("added");
    let fd = World::open_loop(0, O_RDWR)?;
    say("open");
    let pipe = ops_pipe()?;
    let _ = world.configure(&fd, &pipe, LoopConfig::zeroed());
    say("not configured");
    let _ = world.configure(
        &fd,
        &backing,
        LoopConfig {
            block_size: 1000,
            ..LoopConfig::zeroed()
        },
    );
    say("not configured, partly");
    world.configure(&fd, &backing, LoopConfig::zeroed())?;
    say("bound");
    let _ = world.configure(&fd, &backing, LoopConfig::zeroed());
    say("bound twice");
    drop(fd);
    say("closed");
    let fd = World::open_loop(0, O_RDWR)?;
    let _ = world.ioctl(fd.as_raw_fd(), LOOP_CLR_FD, 0);
    say("clearing");
    drop(fd);
    say("cleared");
    Ok(log.0)
}

fn ops_pipe() -> Setup<OwnedFd> {
    Ok(nix::unistd::pipe().map_err(because("pipe"))?.0)
}

fn nodes(_: &Session, world: &World) -> Setup<Outcomes> {
    let mut log = Log::default();

    log.say("there are", devices());
    for nr in 0..2 {
        let meta = fs::metadata(World::loop_path(nr)).map_err(because("stat"))?;
        log.say(
            format!("node {nr}"),
            format!("{:o} {:#x}", meta.permissions().mode(), meta.rdev()),
        );
        for attr in [
            "dev",
            "range",
            "ext_range",
            "hidden",
            "removable",
            "events",
            "queue/nr_requests",
        ] {
            log.say(
                format!("{nr} {attr}"),
                read(world, &World::sysfs(nr).join(attr)),
            );
        }
    }
    let link = |path: &str| {
        let target = fs::read_link(path).unwrap_or_default();
        target.to_string_lossy().into_owned()
    };
    log.say("/sys/dev/block", link("/sys/dev/block/7:1"));
    log.say("/sys/block", link("/sys/block/loop1"));
    log.say("bdi", link("/sys/block/loop1/bdi"));
    Ok(log.0)
}

/// Runs `f` in a child that is not waited for.
fn spawn(f: impl FnOnce() -> i32) -> Setup<Pid> {
    // SAFETY: This is the only thread.
    match unsafe { fork() }.map_err(because("fork"))? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let status = f();
            // SAFETY: This never returns.
            unsafe { libc::_exit(status) }
        }
    }
}

/// Whether a process waits in the kernel killably or uninterruptibly.
fn is_waiting(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit(") ")
            .next()
            .is_some_and(|rest| rest.starts_with('D'))
    })
}

fn ended(pid: Pid) -> Option<String> {
    match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::StillAlive) => None,
        Ok(WaitStatus::Exited(_, status)) => Some(format!("exited {status}")),
        Ok(WaitStatus::Signaled(_, signal, _)) => Some(format!("{signal:?}")),
        other => Some(format!("{other:?}")),
    }
}

/// A device whose lock is held by a call that waits for a disk that does not respond: the next call
/// waits for the lock, and can be killed meanwhile.
fn killed(_: &Session, world: &World) -> Setup<Outcomes> {
    let ram = format!("/dev/ram{}", world.ram);
    if !Path::new(&ram).exists() {
        return Err(format!("{SKIP}no {ram}"));
    }
    let dm = Mapped::new(&format!("0 2048 linear {ram} 0"))?;
    let outcomes = killed_on(world, &dm);
    dm.resume();
    outcomes
}

/// A device-mapper device.
struct Mapped {
    name: &'static str,
}

impl Mapped {
    fn new(table: &str) -> Setup<Self> {
        let this = Self {
            name: "loop_rs-interface",
        };
        Self::dmsetup(&["--noudevsync", "create", this.name, "--table", table])?;
        Self::dmsetup(&["mknodes", this.name])?;
        Ok(this)
    }

    fn dmsetup(args: &[&str]) -> Setup<()> {
        match Command::new("dmsetup").args(args).output() {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(format!(
                "dmsetup: {}",
                String::from_utf8_lossy(&output.stderr)
            )),
            Err(error) => Err(format!("{SKIP}dmsetup: {error}")),
        }
    }

    fn path(&self) -> PathBuf {
        Path::new("/dev/mapper").join(self.name)
    }

    fn suspend(&self) -> Setup<()> {
        Self::dmsetup(&["suspend", "--noflush", "--nolockfs", self.name])
    }

    fn resume(&self) {
        let _ = Self::dmsetup(&["--noudevsync", "resume", self.name]);
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        self.resume();
        let _ = Self::dmsetup(&["--noudevsync", "remove", "--retry", self.name]);
        let _ = Self::dmsetup(&["mknodes", self.name]);
    }
}

fn killed_on(world: &World, dm: &Mapped) -> Setup<Outcomes> {
    const CALLS: &[(&str, u32)] = &[
        ("LOOP_GET_STATUS64", LOOP_GET_STATUS64),
        ("LOOP_GET_STATUS", LOOP_GET_STATUS),
        ("LOOP_SET_STATUS64", LOOP_SET_STATUS64),
        ("LOOP_SET_STATUS", LOOP_SET_STATUS),
        ("LOOP_SET_CAPACITY", LOOP_SET_CAPACITY),
        ("LOOP_SET_DIRECT_IO", LOOP_SET_DIRECT_IO),
        ("LOOP_SET_BLOCK_SIZE", LOOP_SET_BLOCK_SIZE),
        ("LOOP_CLR_FD", LOOP_CLR_FD),
        ("LOOP_CHANGE_FD", LOOP_CHANGE_FD),
        ("LOOP_CONFIGURE", LOOP_CONFIGURE),
        ("LOOP_SET_FD", LOOP_SET_FD),
        ("an unknown ioctl", 0x4cff),
        ("LOOP_CTL_REMOVE", LOOP_CTL_REMOVE),
        ("open", 0),
    ];
    let mut log = Log::default();
    let backing = file(world, "backing", SIZE, O_RDWR)?;
    world.add(0)?;
    // The holder opened it exclusively: otherwise it would hold a claim, too, and waiting for a
    // claim is different.
    let holder_fd = World::open_loop(0, O_RDWR | O_EXCL)?;
    let fd = World::open_loop(0, O_RDWR)?;
    let disk = open(dm.path(), O_RDWR).map_err(because("dm"))?;
    let config = LoopConfig {
        fd: disk.as_raw_fd() as u32,
        ..LoopConfig::zeroed()
    };
    // Dirty data.
    // SAFETY: There are as many bytes.
    let wrote = unsafe { libc::pwrite(disk.as_raw_fd(), [1u8; 4096].as_ptr().cast(), 4096, 0) };
    if wrote != 4096 {
        return Err("pwrite".into());
    }
    dm.suspend()?;
    let holder = spawn(|| {
        match world
            .ioctl_with(holder_fd.as_raw_fd(), LOOP_CONFIGURE, &config)
            .0
        {
            Ok(_) => 0,
            Err(errno) => errno as i32,
        }
    })?;
    log.say(
        "the holder waits",
        world.wait(|| is_waiting(holder)).to_string(),
    );

    for &(what, cmd) in CALLS {
        let file = backing.as_raw_fd();
        let waiter = spawn(|| {
            let ret = match cmd {
                0 => open(World::loop_path(0), O_RDONLY).map(|_| 0),
                LOOP_CTL_REMOVE => world.control(cmd, 0),
                LOOP_CHANGE_FD | LOOP_SET_FD => world.ioctl(fd.as_raw_fd(), cmd, file as usize),
                LOOP_CONFIGURE => {
                    let config = LoopConfig {
                        fd: file as u32,
                        ..LoopConfig::zeroed()
                    };
                    world.ioctl_with(fd.as_raw_fd(), cmd, &config).0
                }
                LOOP_SET_BLOCK_SIZE => world.ioctl(fd.as_raw_fd(), cmd, 512),
                LOOP_SET_DIRECT_IO | LOOP_SET_CAPACITY | 0x4cff | LOOP_CLR_FD => {
                    world.ioctl(fd.as_raw_fd(), cmd, 1)
                }
                _ => {
                    world
                        .ioctl_with(fd.as_raw_fd(), cmd, &LoopInfo64::zeroed())
                        .0
                }
            };
            match ret {
                Ok(_) => 0,
                Err(errno) => errno as i32,
            }
        })?;
        let mut end = None;
        let mut settled = || {
            end = ended(waiter);
            end.is_some() || is_waiting(waiter)
        };
        let waited = world.wait(&mut settled) && end.is_none();
        let end = end.or_else(|| {
            let _ = signal::kill(waiter, Signal::SIGKILL);
            let mut end = None;
            world.wait(|| {
                end = ended(waiter);
                end.is_some()
            });
            end
        });
        log.say(
            what,
            format!("waited={waited} {}", end.unwrap_or("not killed".into())),
        );
    }
    dm.resume();
    let mut end = None;
    world.wait(|| {
        end = ended(holder);
        end.is_some()
    });
    log.say("the holder", end.unwrap_or("still waits".into()));
    drop((holder_fd, fd));
    world.remove(0)?;
    Ok(log.0)
}

const PARAMETERS: &[&str] = &[
    "",
    "max_loop=0",
    "max_loop=1",
    "max_loop=3",
    "max_loop=0x2",
    "max_loop=-1",
    "max_loop=-2147483648",
    "max_loop=1048577",
    "max_loop=2147483648",
    "max_loop=99999999999",
    "max_loop=abc",
    "max_loop=",
    "max_loop",
    "max_loop=1 max_part=0",
    "max_loop=1 max_part=1",
    "max_loop=1 max_part=7",
    "max_loop=1 max_part=8",
    "max_loop=1 max_part=15",
    "max_loop=1 max_part=63",
    "max_loop=1 max_part=255",
    "max_loop=1 max_part=256",
    "max_loop=1 max_part=-1",
    "max_loop=1 max_part=2147483647",
    "max_loop=1 max_part=abc",
    "max_loop=1048576 max_part=1",
    "max_loop=32769 max_part=31",
    "max_loop=1 hw_queue_depth=0",
    "max_loop=1 hw_queue_depth=-1",
    "max_loop=1 hw_queue_depth=1",
    "max_loop=1 hw_queue_depth=0x10",
    "max_loop=1 hw_queue_depth=99999",
    "max_loop=1 hw_queue_depth=2147483648",
    "max_loop=1 hw_queue_depth=",
    "max_loop=1 hw_queue_depth",
    "max_loop=1 nonsense=1",
    "max_loop=1 max_loop=2",
];

fn parameters(session: &Session) -> Outcomes {
    let mut log = Log::default();
    for &text in PARAMETERS {
        let outcome = session
            .load(text)
            .map_err(|errno| format!("{errno:?}"))
            .and_then(|()| {
                let world = session.world()?;
                let dir = Path::new("/sys/module")
                    .join(&session.name)
                    .join("parameters");
                let of = |file: &str| {
                    let path = dir.join(file);
                    let mode = fs::metadata(&path).map_or(0, |meta| meta.permissions().mode());
                    format!("{file}={} ({mode:o})", read(&world, &path))
                };
                let attr = |attr: &str| read(&world, &World::sysfs(0).join(attr));
                let text = format!(
                    "{} {} {}; {}; dev={} range={} ext_range={} nr_requests={}",
                    of("max_loop"),
                    of("max_part"),
                    of("hw_queue_depth"),
                    devices(),
                    attr("dev"),
                    attr("range"),
                    attr("ext_range"),
                    attr("queue/nr_requests"),
                );
                drop(world);
                session.unload()?;
                Ok(text)
            });
        log.say(format!("\"{text}\""), outcome.unwrap_or_else(|why| why));
    }
    log.0
}

fn partition_numbers(session: &Session) -> Outcomes {
    fn with(session: &Session, parameters: &str) -> Setup<String> {
        session.load(parameters).map_err(because("insmod"))?;
        let world = session.world()?;
        let backing = file(&world, "backing", SIZE, O_RDWR)?;
        states::write_table(&world.dir.join("backing"))?;
        let mut text = String::new();
        for nr in [0, 2] {
            let fd = attach(&world, nr, &backing, 0)?;
            let _ = ops::blkpg(&world, &fd, BLKPG_ADD_PARTITION, 9, 0, 4096);
            for part in ["", "p1", "p2", "p9"] {
                let path = format!("/sys/class/block/loop{nr}{part}/dev");
                let dev = read(&world, Path::new(&path));
                // Extended minor numbers depend on which are free.
                let dev = if dev.starts_with("259:") {
                    "extended".into()
                } else {
                    dev
                };
                text.push_str(&format!("loop{nr}{part}={dev} "));
            }
            let flag = read(&world, &World::sysfs(nr).join("loop/partscan"));
            text.push_str(&format!("partscan={flag}; "));
            let _ = world.ioctl(fd.as_raw_fd(), LOOP_CLR_FD, 0);
            drop(fd);
            text.push_str(&format!("then {}; ", partition_list(&world, nr)));
            // The state of a device without a file.
            let fd = World::open_loop(nr, O_RDONLY)?;
            let scan = name(world.ioctl(fd.as_raw_fd(), BLKRRPART, 0));
            text.push_str(&format!("BLKRRPART {scan}; "));
            drop(fd);
            world.remove(nr)?;
        }
        drop(world);
        session.unload()?;
        Ok(text)
    }
    ["", "max_part=1", "max_part=7", "max_part=15", "max_part=63"]
        .iter()
        .map(|part| {
            let outcome = with(session, &format!("max_loop=1 {part}"));
            (
                (*part).into(),
                outcome.unwrap_or_else(|why| format!("{BROKEN}{why}")),
            )
        })
        .collect()
}

fn dead_nodes(session: &Session) -> Outcomes {
    let mut log = Log::default();
    let node = Path::new("/dev/loop_rs-dead-node");

    for (parameters, minors) in [
        ("max_loop=0", &[0, 3, 100, (1 << 20) - 1][..]),
        ("max_loop=2", &[1, 2, 20]),
        ("", &[7, 8, 20]),
        (
            "max_loop=0 max_part=15",
            &[0, 16 * 3, 16 * 3 + 1, 16 * 4 + 1, (1 << 20) - 16],
        ),
        ("max_loop=2 max_part=15", &[16, 32, 17]),
    ] {
        if let Err(errno) = session.load(parameters) {
            log.say(parameters, format!("{BROKEN}insmod: {errno:?}"));
            continue;
        }
        for &minor in minors {
            let before = devices();
            let _ = fs::remove_file(node);
            let made = mknod(
                node,
                SFlag::S_IFBLK,
                Mode::from_bits_truncate(0o600),
                makedev(7, minor),
            );
            let opened = open(node, O_RDWR);
            let there = devices();
            let opened = opened.map(|_| ());
            log.say(
                format!("{parameters} minor {minor}"),
                format!("{made:?} {opened:?}, {before} then {there}"),
            );
        }
        let _ = fs::remove_file(node);
        if let Err(why) = session.unload() {
            log.say(parameters, format!("{BROKEN}{why}"));
        }
    }
    log.0
}

/// The aliases of the module.
fn modinfo(session: &Session) -> Outcomes {
    let mut log = Log::default();
    for key in ["alias", "parm", "license", "description"] {
        let output = match Command::new("modinfo")
            .arg("-F")
            .arg(key)
            .arg(&session.module)
            .output()
        {
            Ok(output) if output.status.success() => output.stdout,
            other => return broken(format!("modinfo: {other:?}")),
        };
        let text = String::from_utf8_lossy(&output);
        let mut values: Vec<&str> = text.lines().collect();
        values.sort();
        if key == "parm" {
            for value in &values {
                let (parameter, text) = value.split_once(':').unwrap_or((value, ""));
                log.say(format!("parameter {parameter}"), text);
            }
        } else {
            log.say(key, values.join("; "));
        }
    }
    log.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_state_d() {
        let me = nix::unistd::getpid();
        assert!(!is_waiting(me));
    }
}
