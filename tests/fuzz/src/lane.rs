// SPDX-License-Identifier: GPL-2.0

//! A process with its own descriptors, shared by its lanes, each of which makes one call after the
//! other.

use crate::{
    acts::{self, Act, Arg, Backing, Direction, Node, Transfer, KINDS},
    aio::Queue,
    copied,
    rng::Rng,
    shared::{Fault, Shared},
    sys::{self, Abi, Arena, Ret},
    uapi::{self, Plain},
};
use nix::{errno::Errno, fcntl, sys::stat::Mode};
use std::{
    collections::BTreeSet,
    fs, io,
    os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd},
    path::{Path, PathBuf},
    sync::{atomic::Ordering::Relaxed, Arc, Mutex, PoisonError},
};

/// State shared by all lanes.
pub struct World {
    pub seed: u64,
    pub scale: acts::Scale,
    pub shared: Shared,
    pub dir: PathBuf,
    /// The byte values that are in files and that are written.
    pub known: [bool; 256],
    pub verbose: bool,
}

/// The lanes of a process.
pub const LANES: usize = 2;

/// The byte value that is written.
pub const WRITTEN: u8 = 0xa5;
/// A byte value that is in no file.
const NOWHERE: u8 = 0xee;

type Slot = Mutex<Option<Arc<OwnedFd>>>;

pub struct Process<'a> {
    world: &'a World,
    slots: Vec<Slot>,
    files: Vec<Option<OwnedFd>>,
}

pub fn open(path: impl AsRef<Path>, flags: i32) -> Result<OwnedFd, Errno> {
    let flags = fcntl::OFlag::from_bits_retain(flags | libc::O_CLOEXEC);
    let fd = fcntl::open(path.as_ref(), flags, Mode::from_bits_truncate(0o600))?;
    // SAFETY: It was opened just now.
    Ok(unsafe { OwnedFd::from_raw_fd(fd.into_raw_fd()) })
}

impl<'a> Process<'a> {
    pub fn new(world: &'a World) -> Self {
        let files = acts::FILES
            .iter()
            .map(|(name, flags)| open(world.dir.join(name), *flags).ok())
            .collect();
        Self {
            world,
            slots: (0..acts::SLOTS).map(|_| Mutex::new(None)).collect(),
            files,
        }
    }

    fn slot(&self, slot: usize) -> Option<Arc<OwnedFd>> {
        self.slots[slot]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub fn fill_slots(&self, fd: &Arc<OwnedFd>) {
        for slot in 0..acts::SLOTS {
            self.set_slot(slot, Some(fd.clone()));
        }
    }

    /// The last user closes the descriptor that was there before.
    fn set_slot(&self, slot: usize, fd: Option<Arc<OwnedFd>>) {
        let old = {
            let mut slot = self.slots[slot]
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *slot, fd)
        };
        drop(old);
    }
}

/// A descriptor during a call.
struct Held(Option<Arc<OwnedFd>>);

impl Held {
    fn raw(&self) -> RawFd {
        self.0.as_ref().map_or(-1, |fd| fd.as_raw_fd())
    }
}

pub struct Lane<'a> {
    process: &'a Process<'a>,
    index: usize,
    mix: usize,
    scale: acts::Scale,
    arena: Arena,
    queue: Queue,
    /// Whether the call must fail.
    denied: bool,
    /// Whether writes must fail.
    reads: bool,
}

impl<'a> Lane<'a> {
    /// The mix is the weight of the kinds.
    pub fn new(process: &'a Process<'a>, index: usize, mix: usize) -> io::Result<Self> {
        Ok(Self {
            process,
            index,
            mix,
            scale: acts::Scale {
                home: (index / LANES) as u64 % process.world.scale.devices,
                ..process.world.scale.clone()
            },
            arena: Arena::new()?,
            queue: Queue::new(acts::AT_ONCE, acts::LONGEST)?,
            denied: false,
            reads: false,
        })
    }

    /// Makes calls up to `end`, starting after the last call that was begun.
    pub fn run(&mut self, end: u32) {
        let begun = self.process.world.shared.begun(self.index);
        loop {
            let call = begun.load(Relaxed);
            if call >= end {
                return;
            }
            begun.store(call + 1, Relaxed);
            let (kind, act) = self.make(call);
            self.call(call, kind, &act, KINDS[kind].errors);
        }
    }

    /// Makes those of that many calls that are `wanted`. Calls that would change something must
    /// fail with one of the errors in `denied`.
    pub fn run_if(
        &mut self,
        calls: u32,
        wanted: impl Fn(&Act) -> bool,
        denied: impl Fn(&Act) -> Option<&'static [Errno]>,
    ) {
        for call in 0..calls {
            let (kind, act) = self.make(call);
            if !wanted(&act) {
                continue;
            }
            self.process
                .world
                .shared
                .begun(self.index)
                .store(call + 1, Relaxed);
            self.reads = true;
            self.denied = denied(&act).is_some();
            self.call(call, kind, &act, denied(&act).unwrap_or(KINDS[kind].errors));
        }
    }

    fn make(&self, call: u32) -> (usize, Act) {
        let world = self.process.world;
        let mut rng = Rng::new(world.seed, self.index, call);
        acts::make(&mut rng, &self.scale, self.mix)
    }

    fn call(&mut self, call: u32, kind: usize, act: &Act, errors: &[Errno]) {
        let world = self.process.world;
        if world.verbose {
            println!("# lane {} call {call}: {act:?}", self.index);
        }
        let rets = self.act(act);
        for ret in &rets {
            world.shared.count(kind, ret.err());
            if world.verbose {
                println!("# lane {} call {call}: {ret:?}", self.index);
            }
            let wrong = match ret {
                Ok(value) => self.denied || !self.is_fine(act, *value),
                Err(errno) => !errors.contains(errno),
            };
            if wrong {
                self.fault(Fault::Error, call, act, &format!("{ret:?}"));
            }
        }
    }

    fn fault(&self, fault: Fault, call: u32, act: &Act, what: &str) {
        self.process.world.shared.report(fault, || {
            format!("lane {} call {call}: {act:?}: {what}", self.index)
        });
    }

    /// Whether the call can return that error.
    fn is_fine(&self, act: &Act, value: i32) -> bool {
        match *act {
            Act::Control(_, uapi::LOOP_CTL_ADD, number) => {
                value >= 0 && (number < 0 || value == number)
            }
            Act::Control(_, uapi::LOOP_CTL_GET_FREE, _) => value >= 0,
            Act::Open(..) | Act::Io(..) | Act::Sysfs(..) => value >= 0,
            _ => value == 0,
        }
    }

    fn open(&self, slot: usize, node: &Node, flags: i32) -> Ret {
        let path = match node {
            Node::Dev(nr) => format!("/dev/loop{nr}").into(),
            Node::Part(nr, part) => format!("/dev/loop{nr}p{part}").into(),
            Node::Own(nr) => self.process.world.dir.join(format!("node{nr}")),
        };
        let fd = open(path, flags)?;
        self.process.set_slot(slot, Some(Arc::new(fd)));
        Ok(0)
    }

    /// The descriptor in a slot. If there is none, one is usually opened.
    fn held(&self, slot: usize) -> Held {
        let world = self.process.world;
        let fd = self.process.slot(slot);
        if fd.is_some() {
            return Held(fd);
        }
        let call = world.shared.begun(self.index).load(Relaxed);
        let mut rng = Rng::new(world.seed ^ 1, self.index, call);
        if rng.percent(90) {
            if let Act::Open(_, node, flags) = acts::open_slot(&mut rng, &self.scale, slot) {
                let ret = self.open(slot, &node, flags);
                if world.verbose {
                    println!("# lane {} opens {node:?} {flags:#o}: {ret:?}", self.index);
                }
            }
        }
        // If the partition does not exist, use the whole device.
        Held(
            self.process
                .slot(slot)
                .or_else(|| self.process.slot(slot % acts::WHOLE)),
        )
    }

    fn act(&mut self, act: &Act) -> Vec<Ret> {
        let process = self.process;
        let ret = match act {
            Act::Open(slot, node, flags) => self.open(*slot, node, *flags),
            Act::Close(slot) => {
                process.set_slot(*slot, None);
                Ok(0)
            }
            Act::CloseAll => {
                for slot in 0..acts::SLOTS {
                    process.set_slot(slot, None);
                }
                Ok(0)
            }
            Act::Control(abi, cmd, number) => self.control(*abi, *cmd, *number),
            Act::Device(slot, abi, cmd, arg) => {
                let held = self.held(*slot);
                self.device(held.raw(), *abi, *cmd, arg)
            }
            Act::Get(slot, abi, cmd, len, arg) => {
                let held = self.held(*slot);
                self.get(act, held.raw(), *abi, *cmd, *len, arg)
            }
            Act::Io(slot, transfers) => {
                let held = self.held(*slot);
                return self.io(act, held.raw(), transfers);
            }
            Act::Fallocate(slot, mode, pos, len) => {
                let held = self.held(*slot);
                // SAFETY: No memory is involved.
                Errno::result(unsafe { libc::fallocate(held.raw(), *mode, *pos, *len) })
            }
            Act::Resize(file, size) => match &process.files[*file] {
                // SAFETY: No memory is involved.
                Some(fd) => Errno::result(unsafe { libc::ftruncate(fd.as_raw_fd(), *size as i64) }),
                None => Ok(0),
            },
            Act::Sysfs(nr, name) => read_sysfs(*nr, name),
        };
        vec![ret]
    }

    fn control(&self, abi: Abi, cmd: u32, number: i32) -> Ret {
        let world = self.process.world;
        // The last entry of the table: it is never attached.
        let Some(Some(fd)) = self.process.files.last() else {
            return Err(Errno::EBADF);
        };
        let ret = sys::ioctl(abi, fd.as_raw_fd(), cmd, number as usize)?;
        // The number of descriptors must stay limited.
        if cmd == uapi::LOOP_CTL_ADD && ret as u64 >= world.scale.devices {
            let _ = sys::ioctl(abi, fd.as_raw_fd(), uapi::LOOP_CTL_REMOVE, ret as usize);
        }
        Ok(ret)
    }

    fn backing(&self, backing: Backing) -> (Held, RawFd) {
        match backing {
            Backing::File(index) => {
                let fd = self.process.files[index].as_ref();
                (Held(None), fd.map_or(-1, |fd| fd.as_raw_fd()))
            }
            Backing::Slot(slot) => {
                let held = self.held(slot);
                let raw = held.raw();
                (held, raw)
            }
            Backing::Number(number) => (Held(None), number),
        }
    }

    fn device(&self, fd: RawFd, abi: Abi, cmd: u32, arg: &Arg) -> Ret {
        let mut _held = Held(None);
        let address = match arg {
            Arg::Number(number) => *number,
            Arg::Backing(backing) => {
                let raw;
                (_held, raw) = self.backing(*backing);
                raw as u32 as usize
            }
            Arg::Bytes(bytes, mapped) => self.arena.put(bytes, *mapped),
            Arg::Config(backing, config, mapped) => {
                let raw;
                (_held, raw) = self.backing(*backing);
                let mut config = **config;
                config.fd = raw as u32;
                self.arena.put(&config.bytes(), *mapped)
            }
            Arg::Part(op, part, good) => self.part(abi, *op, part, *good),
            Arg::Unmapped => self.arena.unmapped(),
            Arg::ReadOnly => self.arena.read_only(),
        };
        sys::ioctl(abi, fd, cmd, address)
    }

    /// The argument of BLKPG, which points to another structure.
    fn part(&self, abi: Abi, op: i32, part: &uapi::BlkpgPartition, good: bool) -> usize {
        let part = part.bytes();
        let head = match abi {
            Abi::Native => 24,
            Abi::Compat => 16,
        };
        let mut bytes = vec![0; head];
        bytes.extend_from_slice(&part);
        let address = self.arena.put(&bytes, bytes.len());
        let data = match good {
            true => address + head,
            false => self.arena.unmapped(),
        };
        bytes[..4].copy_from_slice(&op.to_le_bytes());
        match abi {
            Abi::Native => bytes[16..24].copy_from_slice(&data.to_le_bytes()),
            Abi::Compat => bytes[12..16].copy_from_slice(&(data as u32).to_le_bytes()),
        }
        self.arena.put(&bytes, bytes.len())
    }

    fn get(&self, act: &Act, fd: RawFd, abi: Abi, cmd: u32, len: usize, arg: &Arg) -> Ret {
        match arg {
            Arg::Bytes(_, mapped) if *mapped == len && len > 0 => {
                let (ret, wrong) = copied::get(&self.arena, fd, abi, cmd, len);
                if let Some(wrong) = wrong {
                    let call = self.process.world.shared.begun(self.index).load(Relaxed) - 1;
                    self.fault(Fault::Copied, call, act, &wrong);
                }
                ret
            }
            _ => self.device(fd, abi, cmd, arg),
        }
    }

    fn io(&mut self, act: &Act, fd: RawFd, transfers: &[Transfer]) -> Vec<Ret> {
        for (index, transfer) in transfers.iter().enumerate() {
            match transfer.op {
                Direction::Read => self.queue.fill(index, transfer.len, NOWHERE),
                Direction::Write => self.queue.fill(index, transfer.len, WRITTEN),
                Direction::Sync => (),
            }
        }
        let rets = self.queue.run(fd, transfers);
        for (index, (transfer, ret)) in transfers.iter().zip(&rets).enumerate() {
            if self.reads && transfer.op == Direction::Write && ret.is_ok() {
                let call = self.process.world.shared.begun(self.index).load(Relaxed) - 1;
                self.fault(Fault::Error, call, act, "written");
            }
            let (Direction::Read, Ok(len)) = (transfer.op, ret) else {
                continue;
            };
            let seen: BTreeSet<u8> = self.queue.bytes(index, *len as usize).collect();
            let odd: Vec<u8> = seen
                .into_iter()
                .filter(|byte| !self.process.world.known[usize::from(*byte)])
                .collect();
            if !odd.is_empty() {
                let call = self.process.world.shared.begun(self.index).load(Relaxed) - 1;
                let what = format!("transfer {index} of {len} bytes has {odd:x?}");
                self.fault(Fault::Data, call, act, &what);
            }
        }
        rets
    }
}

fn read_sysfs(nr: u64, name: &str) -> Ret {
    let path = match name {
        "workers" => format!("/sys/kernel/debug/loop_rs/loop{nr}/workers"),
        _ => format!("/sys/block/loop{nr}/{name}"),
    };
    match fs::read(path) {
        Ok(bytes) => Ok(bytes.len() as i32),
        Err(error) => Err(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)),
    }
}
