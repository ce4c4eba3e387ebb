// SPDX-License-Identifier: GPL-2.0

//! A process and its lanes. A lane is a thread that makes one call after the other; the lanes of a
//! process share its descriptors.

use crate::{
    aio::Queue,
    copied,
    ops::{self, Arg, Backing, Direction, Node, Op, Transfer, KINDS},
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

/// State shared by the lanes of all processes.
pub struct World {
    pub seed: u64,
    pub scale: ops::Scale,
    pub shared: Shared,
    pub dir: PathBuf,
    /// The byte values that are in files and that are written.
    pub known: [bool; 256],
    pub verbose: bool,
}

/// Number of lanes of a process.
pub const LANES: usize = 2;

/// The byte value that lanes write.
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
    // SAFETY: The descriptor was opened just now and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd.into_raw_fd()) })
}

impl<'a> Process<'a> {
    pub fn new(world: &'a World) -> Self {
        let files = ops::FILES
            .iter()
            .map(|(name, flags)| open(world.dir.join(name), *flags).ok())
            .collect();
        Self {
            world,
            slots: (0..ops::SLOTS).map(|_| Mutex::new(None)).collect(),
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
        for slot in 0..ops::SLOTS {
            self.set_slot(slot, Some(fd.clone()));
        }
    }

    /// Replaces the descriptor in a slot. Its last user closes the old one.
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

/// The descriptor of a slot, kept open during a call.
struct SlotFd(Option<Arc<OwnedFd>>);

impl SlotFd {
    fn raw(&self) -> RawFd {
        self.0.as_ref().map_or(-1, |fd| fd.as_raw_fd())
    }
}

pub struct Lane<'a> {
    process: &'a Process<'a>,
    index: usize,
    mix: usize,
    scale: ops::Scale,
    arena: Arena,
    queue: Queue,
    /// Whether the current call must fail.
    denied: bool,
    /// Whether writes must fail.
    reads: bool,
}

impl<'a> Lane<'a> {
    /// `mix` selects the weights of the kinds.
    pub fn new(process: &'a Process<'a>, index: usize, mix: usize) -> io::Result<Self> {
        Ok(Self {
            process,
            index,
            mix,
            scale: ops::Scale {
                home: (index / LANES) as u64 % process.world.scale.devices,
                ..process.world.scale.clone()
            },
            arena: Arena::new()?,
            queue: Queue::new(ops::AT_ONCE, ops::LONGEST)?,
            denied: false,
            reads: false,
        })
    }

    /// Makes the calls up to `end`, starting after the last call that was begun: the process may
    /// have been killed and started again.
    pub fn run(&mut self, end: u32) {
        let begun = self.process.world.shared.begun(self.index);
        loop {
            let call = begun.load(Relaxed);
            if call >= end {
                return;
            }
            begun.store(call + 1, Relaxed);
            let (kind, op) = self.make(call);
            self.call(call, kind, &op, KINDS[kind].errors);
        }
    }

    /// Makes those of the first `calls` calls that are `wanted`. Calls that would change a device
    /// must fail with one of the errors in `denied`.
    pub fn run_if(
        &mut self,
        calls: u32,
        wanted: impl Fn(&Op) -> bool,
        denied: impl Fn(&Op) -> Option<&'static [Errno]>,
    ) {
        for call in 0..calls {
            let (kind, op) = self.make(call);
            if !wanted(&op) {
                continue;
            }
            self.process
                .world
                .shared
                .begun(self.index)
                .store(call + 1, Relaxed);
            self.reads = true;
            self.denied = denied(&op).is_some();
            self.call(call, kind, &op, denied(&op).unwrap_or(KINDS[kind].errors));
        }
    }

    fn make(&self, call: u32) -> (usize, Op) {
        let world = self.process.world;
        let mut rng = Rng::new(world.seed, self.index, call);
        ops::make(&mut rng, &self.scale, self.mix)
    }

    fn call(&mut self, call: u32, kind: usize, op: &Op, errors: &[Errno]) {
        let world = self.process.world;
        if world.verbose {
            println!("# lane {} call {call}: {op:?}", self.index);
        }
        let rets = self.perform(op);
        for ret in &rets {
            world.shared.count(kind, ret.err());
            if world.verbose {
                println!("# lane {} call {call}: {ret:?}", self.index);
            }
            let wrong = match ret {
                Ok(value) => self.denied || !self.is_expected(op, *value),
                Err(errno) => !errors.contains(errno),
            };
            if wrong {
                self.fault(Fault::Error, call, op, &format!("{ret:?}"));
            }
        }
    }

    fn fault(&self, fault: Fault, call: u32, op: &Op, what: &str) {
        self.process.world.shared.report(fault, || {
            format!("lane {} call {call}: {op:?}: {what}", self.index)
        });
    }

    /// Whether the call can return that value.
    fn is_expected(&self, op: &Op, value: i32) -> bool {
        match *op {
            Op::Control(_, uapi::LOOP_CTL_ADD, number) => {
                value >= 0 && (number < 0 || value == number)
            }
            Op::Control(_, uapi::LOOP_CTL_GET_FREE, _) => value >= 0,
            Op::Open(..) | Op::Io(..) | Op::Sysfs(..) => value >= 0,
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

    /// The descriptor in a slot. If the slot is empty, usually opens a device first.
    fn slot_fd(&self, slot: usize) -> SlotFd {
        let world = self.process.world;
        let fd = self.process.slot(slot);
        if fd.is_some() {
            return SlotFd(fd);
        }
        let call = world.shared.begun(self.index).load(Relaxed);
        let mut rng = Rng::new(world.seed ^ 1, self.index, call);
        if rng.percent(90) {
            if let Op::Open(_, node, flags) = ops::open_slot(&mut rng, &self.scale, slot) {
                let ret = self.open(slot, &node, flags);
                if world.verbose {
                    println!("# lane {} opens {node:?} {flags:#o}: {ret:?}", self.index);
                }
            }
        }
        // If the partition does not exist, use the whole device.
        SlotFd(
            self.process
                .slot(slot)
                .or_else(|| self.process.slot(slot % ops::WHOLE)),
        )
    }

    fn perform(&mut self, op: &Op) -> Vec<Ret> {
        let process = self.process;
        let ret = match op {
            Op::Open(slot, node, flags) => self.open(*slot, node, *flags),
            Op::Close(slot) => {
                process.set_slot(*slot, None);
                Ok(0)
            }
            Op::CloseAll => {
                for slot in 0..ops::SLOTS {
                    process.set_slot(slot, None);
                }
                Ok(0)
            }
            Op::Control(abi, cmd, number) => self.control(*abi, *cmd, *number),
            Op::Device(slot, abi, cmd, arg) => {
                let fd = self.slot_fd(*slot);
                self.device(fd.raw(), *abi, *cmd, arg)
            }
            Op::Get(slot, abi, cmd, len, arg) => {
                let fd = self.slot_fd(*slot);
                self.get(op, fd.raw(), *abi, *cmd, *len, arg)
            }
            Op::Io(slot, transfers) => {
                let fd = self.slot_fd(*slot);
                return self.io(op, fd.raw(), transfers);
            }
            Op::Fallocate(slot, mode, pos, len) => {
                let fd = self.slot_fd(*slot);
                // SAFETY: No memory is involved.
                Errno::result(unsafe { libc::fallocate(fd.raw(), *mode, *pos, *len) })
            }
            Op::Resize(file, size) => match &process.files[*file] {
                // SAFETY: No memory is involved.
                Some(fd) => Errno::result(unsafe { libc::ftruncate(fd.as_raw_fd(), *size as i64) }),
                None => Ok(0),
            },
            Op::Sysfs(nr, name) => read_sysfs(*nr, name),
        };
        vec![ret]
    }

    fn control(&self, abi: Abi, cmd: u32, number: i32) -> Ret {
        let world = self.process.world;
        // The last entry of the table is /dev/loop-control.
        let Some(Some(fd)) = self.process.files.last() else {
            return Err(Errno::EBADF);
        };
        let ret = sys::ioctl(abi, fd.as_raw_fd(), cmd, number as usize)?;
        // Limit the number of devices.
        if cmd == uapi::LOOP_CTL_ADD && ret as u64 >= world.scale.devices {
            let _ = sys::ioctl(abi, fd.as_raw_fd(), uapi::LOOP_CTL_REMOVE, ret as usize);
        }
        Ok(ret)
    }

    fn backing(&self, backing: Backing) -> (SlotFd, RawFd) {
        match backing {
            Backing::File(index) => {
                let fd = self.process.files[index].as_ref();
                (SlotFd(None), fd.map_or(-1, |fd| fd.as_raw_fd()))
            }
            Backing::Slot(slot) => {
                let fd = self.slot_fd(slot);
                let raw = fd.raw();
                (fd, raw)
            }
            Backing::Number(number) => (SlotFd(None), number),
        }
    }

    fn device(&self, fd: RawFd, abi: Abi, cmd: u32, arg: &Arg) -> Ret {
        let mut _fd = SlotFd(None);
        let address = match arg {
            Arg::Number(number) => *number,
            Arg::Backing(backing) => {
                let raw;
                (_fd, raw) = self.backing(*backing);
                raw as u32 as usize
            }
            Arg::Bytes(bytes, mapped) => self.arena.put(bytes, *mapped),
            Arg::Config(backing, config, mapped) => {
                let raw;
                (_fd, raw) = self.backing(*backing);
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

    fn get(&self, op: &Op, fd: RawFd, abi: Abi, cmd: u32, len: usize, arg: &Arg) -> Ret {
        match arg {
            Arg::Bytes(_, mapped) if *mapped == len && len > 0 => {
                let (ret, wrong) = copied::get(&self.arena, fd, abi, cmd, len);
                if let Some(wrong) = wrong {
                    let call = self.process.world.shared.begun(self.index).load(Relaxed) - 1;
                    self.fault(Fault::Copied, call, op, &wrong);
                }
                ret
            }
            _ => self.device(fd, abi, cmd, arg),
        }
    }

    fn io(&mut self, op: &Op, fd: RawFd, transfers: &[Transfer]) -> Vec<Ret> {
        for (index, transfer) in transfers.iter().enumerate() {
            match transfer.direction {
                Direction::Read => self.queue.fill(index, transfer.len, NOWHERE),
                Direction::Write => self.queue.fill(index, transfer.len, WRITTEN),
                Direction::Sync => (),
            }
        }
        let rets = self.queue.run(fd, transfers);
        for (index, (transfer, ret)) in transfers.iter().zip(&rets).enumerate() {
            if self.reads && transfer.direction == Direction::Write && ret.is_ok() {
                let call = self.process.world.shared.begun(self.index).load(Relaxed) - 1;
                self.fault(Fault::Error, call, op, "written");
            }
            let (Direction::Read, Ok(len)) = (transfer.direction, ret) else {
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
                self.fault(Fault::Data, call, op, &what);
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
