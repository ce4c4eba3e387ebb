// SPDX-License-Identifier: GPL-2.0

//! Operations on a device: each ioctl with valid and invalid arguments, and other accesses through
//! the driver.

use crate::{
    states,
    sys::{self, Abi, Ret},
    uapi::*,
    world::{because, hash, name, open, read, write, Instance, World, SIZE},
};
use libc::{
    O_ACCMODE, O_APPEND, O_DIRECT, O_DIRECTORY, O_EXCL, O_NONBLOCK, O_PATH, O_RDONLY, O_RDWR,
    O_SYNC, O_WRONLY,
};
use nix::errno::Errno;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// A file to pass to the driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Of the size of the backing file.
    Another,
    ReadOnly,
    WriteOnly,
    Append,
    Direct,
    Path,
    Backing,
    Bigger,
    /// Smaller by less than a sector.
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
    /// The file descriptor of the ioctl.
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

/// All of them.
const KINDS: &[Kind] = &[
    Kind::Another,
    Kind::ReadOnly,
    Kind::WriteOnly,
    Kind::Append,
    Kind::Direct,
    Kind::Path,
    Kind::Backing,
    Kind::Bigger,
    Kind::BitBigger,
    Kind::Empty,
    Kind::Memfd,
    Kind::Directory,
    Kind::Pipe,
    Kind::Socket,
    Kind::Eventfd,
    Kind::Null,
    Kind::Zero,
    Kind::Proc,
    Kind::Sysfs,
    Kind::Itself,
    Kind::Device,
    Kind::DeviceReadOnly,
    Kind::UnboundLoop,
    Kind::BoundLoop,
    Kind::Ram,
    Kind::Closed,
    Kind::Negative,
];

/// A file descriptor with its owner.
struct Lent(RawFd, #[allow(dead_code)] Vec<OwnedFd>);

impl Kind {
    fn open(self, world: &World, instance: &Instance) -> Result<Lent, String> {
        let made = |made: nix::Result<RawFd>| {
            // SAFETY: It was made just now.
            made.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
        };
        let file = |name: &str, size, flags| {
            let path = world.kept_file(name, size)?;
            open(path, flags).map_err(because(name))
        };
        let path = |path: &str, flags| open(path, flags).map_err(because(path));
        let fd = match self {
            Kind::Another => file("another", SIZE, O_RDWR)?,
            Kind::ReadOnly => file("another", SIZE, O_RDONLY)?,
            Kind::WriteOnly => file("another", SIZE, O_WRONLY)?,
            Kind::Append => file("another", SIZE, O_RDWR | O_APPEND)?,
            Kind::Direct => file("another", SIZE, O_RDWR | O_DIRECT)?,
            Kind::Path => file("another", SIZE, O_PATH)?,
            Kind::Backing => match &instance.backing {
                Some(path) => open(path, O_RDWR).map_err(because("backing"))?,
                None => file("backing", SIZE, O_RDWR)?,
            },
            Kind::Bigger => file("bigger", SIZE + 512, O_RDWR)?,
            Kind::BitBigger => file("bit-bigger", SIZE + 511, O_RDWR)?,
            Kind::Empty => file("empty", 0, O_RDWR)?,
            Kind::Memfd => {
                // SAFETY: The name is a string.
                let fd = unsafe { libc::memfd_create(c"memfd".as_ptr(), 0) };
                let fd = made(Errno::result(fd)).map_err(because("memfd"))?;
                nix::unistd::ftruncate(&fd, SIZE as i64).map_err(because("memfd"))?;
                fd
            }
            Kind::Directory => path("/", O_RDONLY | O_DIRECTORY)?,
            Kind::Pipe => {
                let (read, write) = nix::unistd::pipe().map_err(because("pipe"))?;
                return Ok(Lent(read.as_raw_fd(), vec![read, write]));
            }
            Kind::Socket => {
                // SAFETY: No pointers.
                let fd = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0) };
                made(Errno::result(fd)).map_err(because("socket"))?
            }
            Kind::Eventfd => {
                // SAFETY: No pointers.
                let fd = unsafe { libc::eventfd(0, 0) };
                made(Errno::result(fd)).map_err(because("eventfd"))?
            }
            Kind::Null => path("/dev/null", O_RDWR)?,
            Kind::Zero => path("/dev/zero", O_RDWR)?,
            Kind::Proc => path("/proc/version", O_RDONLY)?,
            Kind::Sysfs => path("/sys/kernel/uevent_seqnum", O_RDONLY)?,
            Kind::Itself => return Ok(Lent(instance.fd.as_raw_fd(), Vec::new())),
            Kind::Device => World::open_loop(instance.nr, O_RDWR)?,
            Kind::DeviceReadOnly => World::open_loop(instance.nr, O_RDONLY)?,
            Kind::UnboundLoop => {
                let nr = world.base + 1;
                if !World::sysfs(nr).exists() {
                    world.add(nr)?;
                }
                World::open_loop(nr, O_RDWR)?
            }
            Kind::BoundLoop => {
                let nr = world.base + 2;
                if World::sysfs(nr).exists() {
                    World::open_loop(nr, O_RDWR)?
                } else {
                    states::lower(world, nr, 0)?
                }
            }
            Kind::Ram => {
                let ram = format!("/dev/ram{}", world.ram);
                path(&ram, O_RDWR)?
            }
            Kind::Closed => return Ok(Lent(9999, Vec::new())),
            Kind::Negative => return Ok(Lent(-1, Vec::new())),
        };
        Ok(Lent(fd.as_raw_fd(), vec![fd]))
    }
}

/// The argument of an ioctl.
#[derive(Clone)]
pub enum Arg {
    Value(u64),
    Unmapped,
    /// Read-only memory, all zeroes.
    ReadOnly,
    /// A structure that the driver reads.
    In(Vec<u8>),
    /// A structure of which only the first bytes are readable.
    Partly(Vec<u8>, usize),
    /// A buffer of that size for the driver to write.
    Out(usize),
    Fd(Kind),
    /// With bits set beyond those of a file descriptor.
    HighFd(Kind),
    Config(Kind, Box<LoopConfig>),
    /// A status for the driver to write.
    Info64,
    InfoOld,
    /// A status for the driver to read.
    SetOld(Box<LoopInfo>),
}

pub enum Act {
    Ioctl(u32, Arg),
    Call(fn(&World, &Instance, Abi) -> String),
}

pub struct Case {
    pub name: String,
    /// In each state, not only in those that are tested with all arguments.
    pub everywhere: bool,
    pub abis: &'static [Abi],
    pub act: Act,
}

/// The effect that an operation may have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Changes {
    /// None: it only queries.
    Asks,
    /// None on the device itself.
    Nothing,
    Something,
}

/// A test case.
pub struct Op {
    pub name: &'static str,
    pub kind: Changes,
    /// The states in which it gets all arguments, if not all states of that kind.
    pub only_in: &'static [&'static str],
    pub cases: Vec<Case>,
}

use Changes::{Asks, Nothing, Something};

const BOTH: &[Abi] = &[Abi::Native, Abi::Compat];
const NATIVE: &[Abi] = &[Abi::Native];

impl Op {
    fn new(name: &'static str, kind: Changes) -> Self {
        Self {
            name,
            kind,
            only_in: &[],
            cases: Vec::new(),
        }
    }

    fn only_in(mut self, states: &'static [&'static str]) -> Self {
        self.only_in = states;
        self
    }

    /// Whether the driver has the 32-bit form, and not the block layer.
    pub fn is_ours(&self) -> bool {
        self.name.starts_with("LOOP_")
    }

    fn case(mut self, everywhere: bool, abis: &'static [Abi], name: String, act: Act) -> Self {
        self.cases.push(Case {
            name,
            everywhere,
            abis,
            act,
        });
        self
    }

    /// In each state.
    fn core(self, cmd: u32, name: impl Into<String>, arg: Arg) -> Self {
        self.case(true, BOTH, name.into(), Act::Ioctl(cmd, arg))
    }

    fn more(self, cmd: u32, name: impl Into<String>, arg: Arg) -> Self {
        self.case(false, BOTH, name.into(), Act::Ioctl(cmd, arg))
    }

    /// For 32-bit programs with an equal structure, where nothing else can differ.
    fn native(self, cmd: u32, name: impl Into<String>, arg: Arg) -> Self {
        self.case(false, NATIVE, name.into(), Act::Ioctl(cmd, arg))
    }

    fn call(self, name: &str, f: fn(&World, &Instance, Abi) -> String) -> Self {
        self.case(true, NATIVE, name.into(), Act::Call(f))
    }

    fn call_both(self, name: &str, f: fn(&World, &Instance, Abi) -> String) -> Self {
        self.case(true, BOTH, name.into(), Act::Call(f))
    }
}

/// Runs the operation; returns the outcome. The caller looks for changes.
pub fn run(world: &World, instance: &Instance, abi: Abi, act: &Act) -> (Option<Ret>, String) {
    let (cmd, arg) = match act {
        Act::Ioctl(cmd, arg) => (*cmd, arg),
        Act::Call(f) => {
            let text = match instance.unprivileged {
                true => sys::unprivileged(|| f(world, instance, abi)),
                false => f(world, instance, abi),
            };
            return (None, text);
        }
    };
    let put = |bytes: &[u8], mapped| world.arena.put(bytes, mapped);
    let whole = |bytes: &[u8]| put(bytes, bytes.len());
    let filled = |len: usize| vec![0xa5; len];
    let old_len = match abi {
        Abi::Native => size_of::<LoopInfo>(),
        Abi::Compat => size_of::<CompatLoopInfo>(),
    };
    let mut lent = None;
    let mut lend = |kind: Kind| {
        let file = kind.open(world, instance)?;
        let fd = file.0;
        lent = Some(file);
        Ok::<_, String>(fd)
    };
    let address = match arg {
        Arg::Value(value) => *value as usize,
        Arg::Unmapped => world.arena.unmapped(),
        Arg::ReadOnly => world.arena.read_only(),
        Arg::In(bytes) => whole(bytes),
        Arg::Partly(bytes, mapped) => put(bytes, *mapped),
        Arg::Out(len) => whole(&filled(*len)),
        Arg::Info64 => whole(&filled(size_of::<LoopInfo64>())),
        Arg::InfoOld => whole(&filled(old_len)),
        Arg::SetOld(info) => whole(&old_bytes(abi, info)),
        Arg::Fd(kind) | Arg::HighFd(kind) => match lend(*kind) {
            Ok(fd) if matches!(arg, Arg::HighFd(_)) => fd as u32 as usize | (1 << 32),
            Ok(fd) => fd as isize as usize,
            Err(why) => return (None, format!("not tried: {}", world.canonical(&why))),
        },
        Arg::Config(kind, config) => match lend(*kind) {
            Ok(fd) => whole(
                &LoopConfig {
                    fd: fd as u32,
                    ..**config
                }
                .bytes(),
            ),
            Err(why) => return (None, format!("not tried: {}", world.canonical(&why))),
        },
    };
    let ioctl = || sys::ioctl(abi, instance.fd.as_raw_fd(), cmd, address);
    let ret = match instance.unprivileged {
        true => sys::unprivileged(ioctl),
        false => ioctl(),
    };
    let mut text = name(ret);
    let out = match arg {
        Arg::Out(len) => {
            let bytes = world.arena.get(*len);
            match bytes.len() {
                _ if bytes == filled(*len) => String::new(),
                0..=8 => bytes
                    .iter()
                    .rev()
                    .fold(0, |n: u64, byte| (n << 8) | u64::from(*byte))
                    .to_string(),
                _ => format!("{bytes:?}"),
            }
        }
        Arg::Info64 if ret.is_ok() => {
            let info = LoopInfo64::from_bytes(&world.arena.get(size_of::<LoopInfo64>()));
            instance.describe_info(world, &info)
        }
        Arg::InfoOld if ret.is_ok() => {
            describe_old(world, instance, abi, &world.arena.get(old_len))
        }
        Arg::Info64 | Arg::InfoOld => {
            let len = if matches!(arg, Arg::Info64) {
                size_of::<LoopInfo64>()
            } else {
                old_len
            };
            // On failure no byte may be written.
            if world.arena.get(len) == filled(len) {
                ""
            } else {
                "written to"
            }
            .into()
        }
        _ => String::new(),
    };
    if !out.is_empty() {
        text.push_str(" [");
        text.push_str(&out);
        text.push(']');
    }
    // Closed after the call; the effect of the close is part of the outcome.
    drop(lent);
    (Some(ret), text)
}

fn old_bytes(abi: Abi, info: &LoopInfo) -> Vec<u8> {
    match abi {
        Abi::Native => info.bytes(),
        Abi::Compat => CompatLoopInfo {
            number: info.number,
            device: info.device as u32,
            inode: info.inode as u32,
            rdevice: info.rdevice as u32,
            offset: info.offset,
            encrypt_type: info.encrypt_type,
            encrypt_key_size: info.encrypt_key_size,
            flags: info.flags,
            name: info.name,
            encrypt_key: info.encrypt_key,
            init: info.init.map(|word| word as u32),
            reserved: info.reserved,
        }
        .bytes(),
    }
}

fn describe_old(world: &World, instance: &Instance, abi: Abi, bytes: &[u8]) -> String {
    let (info, rest) = match abi {
        Abi::Native => {
            let old = LoopInfo::from_bytes(bytes);
            let info = LoopInfo64 {
                number: old.number as u32,
                device: old.device.into(),
                inode: old.inode,
                rdevice: old.rdevice.into(),
                offset: old.offset as i64 as u64,
                encrypt_type: old.encrypt_type as u32,
                encrypt_key_size: old.encrypt_key_size as u32,
                flags: old.flags as u32,
                file_name: old.name,
                encrypt_key: old.encrypt_key,
                init: old.init,
                ..LoopInfo64::zeroed()
            };
            (info, (old.pad, old.reserved, old.pad_end))
        }
        Abi::Compat => {
            let old = CompatLoopInfo::from_bytes(bytes);
            let info = LoopInfo64 {
                number: old.number as u32,
                device: old.device.into(),
                inode: old.inode.into(),
                rdevice: old.rdevice.into(),
                offset: old.offset as i64 as u64,
                encrypt_type: old.encrypt_type as u32,
                encrypt_key_size: old.encrypt_key_size as u32,
                flags: old.flags as u32,
                file_name: old.name,
                encrypt_key: old.encrypt_key,
                init: old.init.map(u64::from),
                ..LoopInfo64::zeroed()
            };
            (info, (0, old.reserved, 0))
        }
    };
    format!("{} {rest:?}", instance.describe_info(world, &info))
}

/// `BLKPG` of a 64-bit program.
pub fn blkpg(world: &World, fd: &OwnedFd, op: i32, pno: i32, start: i64, length: i64) -> Ret {
    blkpg_as(world, fd.as_raw_fd(), Abi::Native, op, pno, start, length)
}

fn blkpg_as(world: &World, fd: RawFd, abi: Abi, op: i32, pno: i32, start: i64, length: i64) -> Ret {
    let partition = BlkpgPartition {
        start,
        length,
        pno,
        ..BlkpgPartition::zeroed()
    }
    .bytes();
    let size = match abi {
        Abi::Native => 24,
        Abi::Compat => 16,
    };
    let mut bytes = partition.clone();
    bytes.resize(partition.len() + size, 0);
    let address = world.arena.put(&bytes, bytes.len());
    let head = &mut bytes[partition.len()..];
    head[..4].copy_from_slice(&op.to_le_bytes());
    head[8..12].copy_from_slice(&(partition.len() as u32).to_le_bytes());
    match abi {
        Abi::Native => head[16..24].copy_from_slice(&(address as u64).to_le_bytes()),
        Abi::Compat => head[12..16].copy_from_slice(&(address as u32).to_le_bytes()),
    }
    let address = world.arena.put(&bytes, bytes.len());
    sys::ioctl(abi, fd, BLKPG, address + partition.len())
}

/// A range for `BLKDISCARD` and similar ioctls.
fn range(start: u64, len: u64) -> Arg {
    Arg::In([start.to_le_bytes(), len.to_le_bytes()].concat())
}

const HALF: u64 = SIZE / 2;

/// Offsets and limits.
const NUMBERS: &[u64] = &[
    1,
    512,
    4096,
    SIZE - 1,
    SIZE,
    SIZE + 512,
    1 << 31,
    1 << 62,
    (1 << 63) - 1,
    1 << 63,
    u64::MAX,
];

const BLOCK_SIZES: &[u64] = &[
    0,
    1,
    256,
    511,
    512,
    513,
    1000,
    1024,
    2048,
    3072,
    4096,
    8192,
    65536,
    131_072,
    1 << 31,
];

/// The defined flags, some undefined ones, and the last bit.
const FLAG_BITS: [u32; 8] = [0, 1, 2, 3, 4, 5, 16, 31];

/// Variants of structures that set a status: a name, and the structure.
fn infos() -> Vec<(String, LoopInfo64)> {
    let zero = LoopInfo64::zeroed();
    let mut all = vec![("zeroes".into(), zero)];
    for &n in NUMBERS {
        all.push((format!("offset {n}"), LoopInfo64 { offset: n, ..zero }));
        all.push((
            format!("limit {n}"),
            LoopInfo64 {
                sizelimit: n,
                ..zero
            },
        ));
    }
    for (offset, sizelimit) in [
        (4096, 4096),
        (512, SIZE),
        (SIZE - 512, 1024),
        ((1 << 63) - 1, (1 << 63) - 1),
        (1 << 63, 1 << 63),
        (512, 100),
    ] {
        all.push((
            format!("offset {offset} limit {sizelimit}"),
            LoopInfo64 {
                offset,
                sizelimit,
                ..zero
            },
        ));
    }
    for bit in FLAG_BITS {
        all.push((
            format!("flag {:#x}", 1u32 << bit),
            LoopInfo64 {
                flags: 1 << bit,
                ..zero
            },
        ));
    }
    all.push((
        "all flags".into(),
        LoopInfo64 {
            flags: u32::MAX,
            ..zero
        },
    ));
    for encrypt_type in [LO_CRYPT_XOR, 2, LO_CRYPT_CRYPTOAPI, 19, 1 << 31, u32::MAX] {
        all.push((
            format!("crypt {encrypt_type}"),
            LoopInfo64 {
                encrypt_type,
                ..zero
            },
        ));
    }
    for encrypt_key_size in [1, 32, 33, 1 << 31, u32::MAX] {
        all.push((
            format!("key size {encrypt_key_size}"),
            LoopInfo64 {
                encrypt_key_size,
                ..zero
            },
        ));
    }
    all.push((
        "name".into(),
        LoopInfo64 {
            file_name: name64(b"a name"),
            ..zero
        },
    ));
    all.push((
        "name without an end".into(),
        LoopInfo64 {
            file_name: [b'x'; 64],
            crypt_name: [b'y'; 64],
            ..zero
        },
    ));
    all.push((
        "ignored fields".into(),
        LoopInfo64 {
            device: 1,
            inode: 2,
            rdevice: 3,
            number: 4,
            crypt_name: [5; 64],
            encrypt_key: [6; 32],
            init: [7; 2],
            ..zero
        },
    ));
    // The order of the checks.
    all.push((
        "crypt and offset".into(),
        LoopInfo64 {
            encrypt_type: 1,
            offset: 1 << 63,
            ..zero
        },
    ));
    all.push((
        "key size and offset".into(),
        LoopInfo64 {
            encrypt_key_size: 33,
            offset: 1 << 63,
            ..zero
        },
    ));
    all.push((
        "flag and offset".into(),
        LoopInfo64 {
            flags: 2,
            offset: 1 << 63,
            ..zero
        },
    ));
    all
}

fn name64(text: &[u8]) -> [u8; 64] {
    let mut name = [0; 64];
    name[..text.len()].copy_from_slice(text);
    name
}

fn configure() -> Op {
    const CMD: u32 = LOOP_CONFIGURE;
    let zero = LoopConfig::zeroed();
    let config = |kind, config| Arg::Config(kind, Box::new(config));
    let mut op = Op::new("LOOP_CONFIGURE", Something)
        .only_in(&["unbound", "bound"])
        .core(CMD, "a file", config(Kind::Another, zero))
        .core(CMD, "NULL", Arg::Value(0))
        .core(CMD, "unmapped", Arg::Unmapped)
        .core(CMD, "a closed file", config(Kind::Closed, zero))
        .core(
            CMD,
            "a bad flag",
            config(
                Kind::Another,
                LoopConfig {
                    info: LoopInfo64 {
                        flags: 2,
                        ..zero.info
                    },
                    ..zero
                },
            ),
        )
        .core(CMD, "the device", config(Kind::Itself, zero))
        .native(CMD, "kernel memory", Arg::Value(0xffff_8880_0000_0000))
        .native(
            CMD,
            "all but a byte",
            Arg::Partly(zero.bytes(), size_of::<LoopConfig>() - 1),
        )
        .native(CMD, "a byte", Arg::Partly(zero.bytes(), 1));
    for &kind in KINDS {
        op = op.native(CMD, format!("{kind:?}"), config(kind, zero));
    }
    for &size in BLOCK_SIZES {
        let with = |flags| {
            config(
                Kind::Another,
                LoopConfig {
                    block_size: size as u32,
                    info: LoopInfo64 { flags, ..zero.info },
                    ..zero
                },
            )
        };
        op = op.native(CMD, format!("block size {size}"), with(0));
        if [0, 512, 2048].contains(&size) {
            let direct = format!("block size {size}, direct");
            op = op.native(CMD, direct, with(LO_FLAGS_DIRECT_IO));
        }
    }
    op = op.native(
        CMD,
        "block size 4294967295",
        config(
            Kind::Another,
            LoopConfig {
                block_size: u32::MAX,
                ..zero
            },
        ),
    );
    for subset in 0..16 {
        let flags = (subset & 1) | ((subset & 14) << 1);
        let with = |kind, block_size| {
            config(
                kind,
                LoopConfig {
                    block_size,
                    info: LoopInfo64 { flags, ..zero.info },
                    ..zero
                },
            )
        };
        op = op.native(CMD, format!("flags {flags:#x}"), with(Kind::Another, 4096));
        if flags & !LO_FLAGS_DIRECT_IO == 0 {
            op = op.native(
                CMD,
                format!("flags {flags:#x} of Direct"),
                with(Kind::Direct, 0),
            );
        }
    }
    for (what, info) in infos() {
        op = op.native(
            CMD,
            what,
            config(Kind::Another, LoopConfig { info, ..zero }),
        );
    }
    // The order of the checks.
    let flags = LoopInfo64 {
        flags: 2,
        ..zero.info
    };
    let crypt = LoopInfo64 {
        encrypt_type: 1,
        flags: 2,
        ..zero.info
    };
    op.native(
        CMD,
        "reserved",
        config(
            Kind::Another,
            LoopConfig {
                reserved: [u64::MAX; 8],
                ..zero
            },
        ),
    )
    .native(
        CMD,
        "a bad flag of a pipe",
        config(
            Kind::Pipe,
            LoopConfig {
                info: flags,
                ..zero
            },
        ),
    )
    .native(
        CMD,
        "a bad flag of /",
        config(
            Kind::Directory,
            LoopConfig {
                info: flags,
                ..zero
            },
        ),
    )
    .native(
        CMD,
        "a bad flag of nothing",
        config(
            Kind::Closed,
            LoopConfig {
                info: flags,
                ..zero
            },
        ),
    )
    .native(
        CMD,
        "a bad flag of itself",
        config(
            Kind::Itself,
            LoopConfig {
                info: flags,
                ..zero
            },
        ),
    )
    .native(
        CMD,
        "a bad flag and crypt",
        config(
            Kind::Another,
            LoopConfig {
                info: crypt,
                ..zero
            },
        ),
    )
    .native(
        CMD,
        "a bad flag and block size",
        config(
            Kind::Another,
            LoopConfig {
                info: flags,
                block_size: 1000,
                ..zero
            },
        ),
    )
}

fn set_fd(name: &'static str, cmd: u32) -> Op {
    let mut op = Op::new(name, Something)
        .core(cmd, "a file", Arg::Fd(Kind::Another))
        .core(cmd, "a file for reading", Arg::Fd(Kind::ReadOnly))
        .core(cmd, "a closed file", Arg::Fd(Kind::Closed))
        .core(cmd, "the device", Arg::Fd(Kind::Itself))
        .more(cmd, "a file, and a bit", Arg::HighFd(Kind::Another))
        .more(cmd, "2^32 - 1", Arg::Value(0xffff_ffff));
    for &kind in KINDS {
        op = op.native(cmd, format!("{kind:?}"), Arg::Fd(kind));
    }
    op
}

fn set_status64() -> Op {
    const CMD: u32 = LOOP_SET_STATUS64;
    let zero = LoopInfo64::zeroed();
    let info = |info: LoopInfo64| Arg::In(info.bytes());
    let mut op = Op::new("LOOP_SET_STATUS64", Something)
        .only_in(&["unbound", "bound", "bound direct"])
        .core(
            CMD,
            "a name",
            info(LoopInfo64 {
                file_name: name64(b"renamed"),
                ..zero
            }),
        )
        .core(
            CMD,
            "an offset",
            info(LoopInfo64 {
                offset: 1024,
                ..zero
            }),
        )
        .core(
            CMD,
            "a partition scan",
            info(LoopInfo64 {
                flags: LO_FLAGS_PARTSCAN,
                ..zero
            }),
        )
        .core(
            CMD,
            "autoclear",
            info(LoopInfo64 {
                flags: LO_FLAGS_AUTOCLEAR,
                ..zero
            }),
        )
        .core(
            CMD,
            "an offset too far",
            info(LoopInfo64 {
                offset: 1 << 63,
                ..zero
            }),
        )
        .core(CMD, "NULL", Arg::Value(0))
        .core(CMD, "unmapped", Arg::Unmapped)
        .native(CMD, "all but a byte", Arg::Partly(zero.bytes(), 231))
        .native(CMD, "kernel memory", Arg::Value(0xffff_8880_0000_0000));
    for (what, info) in infos() {
        op = op.native(CMD, what, Arg::In(info.bytes()));
    }
    op
}

fn set_status_old() -> Op {
    const CMD: u32 = LOOP_SET_STATUS;
    let zero = LoopInfo::zeroed();
    let info = |info| Arg::SetOld(Box::new(info));
    let mut op = Op::new("LOOP_SET_STATUS", Something)
        .core(
            CMD,
            "a name",
            info(LoopInfo {
                name: name64(b"renamed"),
                ..zero
            }),
        )
        .core(
            CMD,
            "an offset",
            info(LoopInfo {
                offset: 1024,
                ..zero
            }),
        )
        .core(
            CMD,
            "a negative offset",
            info(LoopInfo {
                offset: -512,
                ..zero
            }),
        )
        .core(CMD, "NULL", Arg::Value(0))
        .core(CMD, "unmapped", Arg::Unmapped)
        .more(
            CMD,
            "all but a byte of 32-bit's",
            Arg::Partly(zero.bytes(), 139),
        )
        .more(CMD, "no more than 32-bit's", Arg::Partly(zero.bytes(), 140))
        .more(CMD, "all but a byte", Arg::Partly(zero.bytes(), 167))
        .more(CMD, "zeroes", info(zero))
        .more(
            CMD,
            "the largest offset",
            info(LoopInfo {
                offset: i32::MAX,
                ..zero
            }),
        )
        .more(
            CMD,
            "the least offset",
            info(LoopInfo {
                offset: i32::MIN,
                ..zero
            }),
        )
        .more(
            CMD,
            "crypt 1",
            info(LoopInfo {
                encrypt_type: 1,
                ..zero
            }),
        )
        .more(
            CMD,
            "crypt 18",
            info(LoopInfo {
                encrypt_type: 18,
                ..zero
            }),
        )
        .more(
            CMD,
            "key size 33",
            info(LoopInfo {
                encrypt_key_size: 33,
                ..zero
            }),
        )
        .more(
            CMD,
            "name without an end",
            info(LoopInfo {
                name: [b'x'; 64],
                ..zero
            }),
        )
        .more(
            CMD,
            "ignored fields",
            info(LoopInfo {
                number: 1,
                device: 2,
                inode: 3,
                rdevice: 4,
                encrypt_key: [5; 32],
                init: [6; 2],
                reserved: [7; 4],
                ..zero
            }),
        );
    for bit in FLAG_BITS {
        op = op.more(
            CMD,
            format!("flag {:#x}", 1u32 << bit),
            info(LoopInfo {
                flags: 1 << bit,
                ..zero
            }),
        );
    }
    op
}

fn simple() -> Vec<Op> {
    let mut all = vec![
        Op::new("LOOP_CLR_FD", Something)
            .core(LOOP_CLR_FD, "0", Arg::Value(0))
            .more(LOOP_CLR_FD, "an address", Arg::Unmapped),
        Op::new("LOOP_GET_STATUS", Asks)
            .core(LOOP_GET_STATUS, "memory", Arg::InfoOld)
            .core(LOOP_GET_STATUS, "NULL", Arg::Value(0))
            .core(LOOP_GET_STATUS, "unmapped", Arg::Unmapped)
            .core(LOOP_GET_STATUS, "read-only memory", Arg::ReadOnly)
            .native(
                LOOP_GET_STATUS,
                "kernel memory",
                Arg::Value(0xffff_8880_0000_0000),
            ),
        Op::new("LOOP_GET_STATUS64", Asks)
            .core(LOOP_GET_STATUS64, "memory", Arg::Info64)
            .core(LOOP_GET_STATUS64, "NULL", Arg::Value(0))
            .core(LOOP_GET_STATUS64, "unmapped", Arg::Unmapped)
            .core(LOOP_GET_STATUS64, "read-only memory", Arg::ReadOnly)
            .native(
                LOOP_GET_STATUS64,
                "kernel memory",
                Arg::Value(0xffff_8880_0000_0000),
            ),
        Op::new("LOOP_SET_CAPACITY", Something)
            .core(LOOP_SET_CAPACITY, "0", Arg::Value(0))
            .more(LOOP_SET_CAPACITY, "an address", Arg::Unmapped),
    ];
    let mut dio = Op::new("LOOP_SET_DIRECT_IO", Something)
        .core(LOOP_SET_DIRECT_IO, "0", Arg::Value(0))
        .core(LOOP_SET_DIRECT_IO, "1", Arg::Value(1));
    for value in [2, 1 << 31, 1 << 32, u64::MAX] {
        dio = dio.more(LOOP_SET_DIRECT_IO, value.to_string(), Arg::Value(value));
    }
    all.push(dio);
    let mut bs = Op::new("LOOP_SET_BLOCK_SIZE", Something)
        .core(LOOP_SET_BLOCK_SIZE, "2048", Arg::Value(2048))
        .core(LOOP_SET_BLOCK_SIZE, "1000", Arg::Value(1000));
    for &size in BLOCK_SIZES
        .iter()
        .chain(&[1 << 32, (1 << 32) | 2048, u64::MAX])
    {
        bs = bs.more(
            LOOP_SET_BLOCK_SIZE,
            format!("size {size}"),
            Arg::Value(size),
        );
    }
    all.push(bs);
    let mut unknown = Op::new("unknown ioctls", Nothing);
    for (i, cmd) in [0x4c0b, 0x4cff, LOOP_CTL_ADD].iter().enumerate() {
        unknown = unknown.core(*cmd, format!("{cmd:#x}"), Arg::Value(i as u64));
    }
    for cmd in [
        0x4c0c,
        0x4c0d,
        0x4c0e,
        0x4c0f,
        0x4c10,
        0x4c7f,
        LOOP_CTL_REMOVE,
        LOOP_CTL_GET_FREE,
        0x4c83,
        0x4bff,
        0x4d00,
        0,
        0xffff_ffff,
        0x4004_4c00,
        0x8004_4c05,
        0x0001_4c01,
        SG_IO,
        CDROM_GET_CAPABILITY,
        BLKSECTSET,
    ] {
        unknown = unknown.more(cmd, format!("{cmd:#x}"), Arg::Value(0));
    }
    all.push(unknown);
    all
}

/// Values that the block layer reports from the driver's limits.
fn generic() -> Vec<Op> {
    let mut get = Op::new("ioctls that get limits", Asks);
    for (name, cmd, len) in [
        ("BLKROGET", BLKROGET, 4),
        ("BLKGETSIZE", BLKGETSIZE, 8),
        ("BLKGETSIZE64", BLKGETSIZE64, 8),
        ("BLKGETSIZE64_32", BLKGETSIZE64_32, 8),
        ("BLKSECTGET", BLKSECTGET, 2),
        ("BLKSSZGET", BLKSSZGET, 4),
        ("BLKPBSZGET", BLKPBSZGET, 4),
        ("BLKBSZGET", BLKBSZGET, 4),
        ("BLKBSZGET_32", BLKBSZGET_32, 4),
        ("BLKIOMIN", BLKIOMIN, 4),
        ("BLKIOOPT", BLKIOOPT, 4),
        ("BLKALIGNOFF", BLKALIGNOFF, 4),
        ("BLKDISCARDZEROES", BLKDISCARDZEROES, 4),
        ("BLKROTATIONAL", BLKROTATIONAL, 2),
        ("BLKRAGET", BLKRAGET, 8),
        ("BLKFRAGET", BLKFRAGET, 8),
        ("BLKGETZONESZ", BLKGETZONESZ, 4),
        ("BLKGETNRZONES", BLKGETNRZONES, 4),
        ("HDIO_GETGEO", HDIO_GETGEO, 16),
        ("FIGETBSZ", FIGETBSZ, 4),
    ] {
        get = get
            .core(cmd, name, Arg::Out(len))
            .more(cmd, format!("{name} NULL"), Arg::Value(0))
            .more(cmd, format!("{name} unmapped"), Arg::Unmapped);
    }
    let word = |value: u64| Arg::In(value.to_le_bytes().to_vec());
    vec![
        get,
        Op::new("BLKROSET", Something)
            .core(BLKROSET, "1", word(1))
            .core(BLKROSET, "0", word(0))
            .core(BLKROSET, "unmapped", Arg::Unmapped),
        Op::new("BLKRASET", Something)
            .core(BLKRASET, "64", Arg::Value(64))
            .more(BLKFRASET, "BLKFRASET 0", Arg::Value(0)),
        Op::new("BLKBSZSET", Something)
            .core(BLKBSZSET, "4096", word(4096))
            .more(BLKBSZSET, "512", word(512))
            .more(BLKBSZSET, "1000", word(1000))
            .more(BLKBSZSET_32, "4096 of 32 bits", word(4096)),
        Op::new("BLKFLSBUF", Nothing).core(BLKFLSBUF, "0", Arg::Value(0)),
        Op::new("BLKRRPART", Something).core(BLKRRPART, "0", Arg::Value(0)),
        Op::new("BLKPG", Something)
            .call_both("add, resize, delete", |world, instance, abi| {
                let fd = instance.fd.as_raw_fd();
                let mut done = Vec::new();
                for (op, pno, start, length) in [
                    (BLKPG_ADD_PARTITION, 7, 256 << 10, 4096),
                    (BLKPG_ADD_PARTITION, 7, 256 << 10, 4096),
                    (BLKPG_RESIZE_PARTITION, 7, 256 << 10, 8192),
                    (BLKPG_DEL_PARTITION, 7, 0, 0),
                    (BLKPG_DEL_PARTITION, 7, 0, 0),
                ] {
                    done.push(name(blkpg_as(world, fd, abi, op, pno, start, length)));
                }
                done.join(" ")
            })
            .call_both("bad arguments", |world, instance, abi| {
                let fd = instance.fd.as_raw_fd();
                let mut done = Vec::new();
                for (op, pno, start, length) in [
                    (0, 1, 0, 4096),
                    (BLKPG_ADD_PARTITION, 0, 4096, 4096),
                    (BLKPG_ADD_PARTITION, 70000, 4096, 4096),
                    (BLKPG_ADD_PARTITION, 5, 1 << 40, 4096),
                    (BLKPG_ADD_PARTITION, 5, 100, 4096),
                    (BLKPG_ADD_PARTITION, 5, -512, 4096),
                    (BLKPG_ADD_PARTITION, 5, 512, i64::MAX - 511),
                ] {
                    done.push(name(blkpg_as(world, fd, abi, op, pno, start, length)));
                }
                done.join(" ")
            }),
        Op::new("BLKDISCARD", Nothing)
            .core(BLKDISCARD, "a block", range(HALF, 4096))
            .more(BLKDISCARD, "nothing", range(HALF, 0))
            .more(BLKDISCARD, "unaligned", range(HALF + 1, 4096))
            .more(BLKDISCARD, "beyond", range(SIZE, 4096))
            .more(BLKDISCARD, "overflow", range(u64::MAX - 511, 4096))
            .core(BLKSECDISCARD, "securely", range(HALF, 4096)),
        Op::new("BLKZEROOUT", Nothing)
            .core(BLKZEROOUT, "a block", range(HALF, 4096))
            .more(BLKZEROOUT, "unaligned", range(HALF + 1, 4096))
            .more(BLKZEROOUT, "beyond", range(SIZE, 4096)),
        Op::new("other ioctls of the block layer", Nothing)
            .core(BLKTRACESTART, "BLKTRACESTART", Arg::Value(0))
            .core(BLKREPORTZONE, "BLKREPORTZONE", Arg::Out(16))
            .core(IOC_PR_CLEAR, "IOC_PR_CLEAR", word(1)),
    ]
}

fn pread(fd: RawFd, len: usize, at: i64) -> (Ret, Vec<u8>) {
    let mut data = vec![0; len];
    // SAFETY: There are as many bytes.
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
    // SAFETY: There are as many bytes.
    let n = unsafe { libc::pwrite(fd, data.as_ptr().cast(), data.len(), at) };
    Errno::result(n).map(|n| n as i32)
}

/// The data read at an offset.
pub fn read_at(fd: RawFd, len: usize, at: i64) -> String {
    let (ret, data) = pread(fd, len, at);
    format!("{} {:x}", name(ret), hash(&data))
}

fn end_of(world: &World, instance: &Instance) -> i64 {
    let (_, size) = world.ioctl_with(instance.fd.as_raw_fd(), BLKGETSIZE64, &Number(0));
    size.0 as i64
}

/// A returned number.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Number(pub u64);

// SAFETY: No padding.
unsafe impl Plain for Number {}

fn io() -> Vec<Op> {
    vec![
        Op::new("open", Nothing).call("each way", |_, instance, _| {
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
        Op::new("read", Nothing)
            .call("at the start", |world, instance, _| {
                let fd = instance.fd.as_raw_fd();
                let _ = world.ioctl(fd, BLKFLSBUF, 0);
                // Without the times of a file system.
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
        Op::new("write", Nothing)
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
        Op::new("fallocate", Nothing).call("each way", |_, instance, _| {
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
        Op::new("fstat, statx, lseek", Asks).call("each", |_, instance, _| {
            let fd = instance.fd.as_raw_fd();
            // SAFETY: All zeroes is a value of it.
            let mut stat: libc::stat = unsafe { std::mem::zeroed() };
            // SAFETY: It's there to be written to.
            let first = unsafe { libc::fstat(fd, &mut stat) };
            // SAFETY: All zeroes is a value of it.
            let mut statx: libc::statx = unsafe { std::mem::zeroed() };
            // SAFETY: It's there to be written to, and the name is a string.
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
        Op::new("loop-control", Nothing).call("on its number", |world, instance, _| {
            [LOOP_CTL_ADD, LOOP_CTL_REMOVE]
                .map(|cmd| name(world.control(cmd, instance.nr as usize)))
                .join(" ")
        }),
        Op::new("writing to sysfs", Something)
            .call("loop", |_, instance, _| {
                [
                    "backing_file",
                    "offset",
                    "sizelimit",
                    "autoclear",
                    "partscan",
                    "dio",
                ]
                .map(|file| {
                    name(write(
                        &World::sysfs(instance.nr).join("loop").join(file),
                        "1\n",
                    ))
                })
                .join(" ")
            })
            .call("the disk", |_, instance, _| {
                [
                    "ro",
                    "size",
                    "removable",
                    "range",
                    "ext_range",
                    "capability",
                    "events",
                ]
                .map(|file| name(write(&World::sysfs(instance.nr).join(file), "1\n")))
                .join(" ")
            })
            .call("the queue", |world, instance, _| {
                let queue = World::sysfs(instance.nr).join("queue");
                [
                    ("discard_max_bytes", "4096"),
                    ("discard_max_bytes", "1"),
                    ("write_cache", "write through"),
                    ("write_cache", "write back"),
                    ("max_sectors_kb", "4"),
                    ("max_sectors_kb", "128"),
                    ("max_sectors_kb", "99999999"),
                    ("rotational", "1"),
                    ("logical_block_size", "4096"),
                    ("hw_sector_size", "4096"),
                    ("write_zeroes_max_bytes", "0"),
                    ("write_zeroes_unmap_max_bytes", "0"),
                    ("dma_alignment", "0"),
                    ("nr_requests", "4"),
                    ("nr_requests", "100000"),
                    ("scheduler", "none"),
                    ("scheduler", "nonsense"),
                    ("iostats", "1"),
                    ("add_random", "1"),
                    ("wbt_lat_usec", "0"),
                ]
                .map(|(file, value)| {
                    let path = queue.join(file);
                    let ret = name(write(&path, value));
                    format!("{file}={value} {ret} ({})", read(world, &path))
                })
                .join(", ")
            }),
    ]
}

/// All operations; destructive ones last.
pub fn all() -> Vec<Op> {
    let mut all = simple();
    all.extend(generic());
    all.extend(io());
    all.push(set_status64());
    all.push(set_status_old());
    all.push(set_fd("LOOP_SET_FD", LOOP_SET_FD));
    all.push(set_fd("LOOP_CHANGE_FD", LOOP_CHANGE_FD));
    all.push(configure());
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique() {
        let mut ops = HashSet::new();
        for op in all() {
            assert!(ops.insert(op.name), "{}", op.name);
            let mut cases = HashSet::new();
            for case in op.cases {
                assert!(
                    cases.insert(case.name.clone()),
                    "{}: {}",
                    op.name,
                    case.name
                );
                assert!(!case.name.contains('\t'));
            }
        }
    }

    #[test]
    fn each_ioctl_in_each_state() {
        for op in all() {
            assert!(op.cases.iter().any(|case| case.everywhere), "{}", op.name);
        }
    }

    #[test]
    fn old_structures() {
        let info = LoopInfo {
            offset: -1,
            flags: 4,
            ..LoopInfo::zeroed()
        };
        assert_eq!(old_bytes(Abi::Native, &info).len(), 168);
        let compat = CompatLoopInfo::from_bytes(&old_bytes(Abi::Compat, &info));
        assert_eq!((compat.offset, compat.flags), (-1, 4));
    }
}
