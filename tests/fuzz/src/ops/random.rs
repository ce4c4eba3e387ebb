// SPDX-License-Identifier: GPL-2.0

//! Random arguments of calls.

use super::{
    kinds::Getter, Arg, Backing, Direction, Node, Op, Scale, Transfer, AT_ONCE, FILES, LONGEST,
    SLOTS, USUAL, WHOLE,
};
use crate::{
    rng::Rng,
    sys::Abi,
    uapi::{self, CompatLoopInfo, LoopConfig, LoopInfo, LoopInfo64, Plain},
};

pub fn abi(rng: &mut Rng, scale: &Scale) -> Abi {
    match scale.compat && rng.percent(20) {
        true => Abi::Compat,
        false => Abi::Native,
    }
}

pub fn open(rng: &mut Rng, scale: &Scale) -> Op {
    let slot = rng.index(SLOTS);
    open_slot(rng, scale, slot)
}

/// Opens a device or partition as a descriptor.
pub fn open_slot(rng: &mut Rng, scale: &Scale, slot: usize) -> Op {
    let nr = match rng.percent(65) {
        true => scale.home,
        false => rng.below(scale.devices),
    };
    let node = match slot < WHOLE {
        false => Node::Part(nr, 1 + rng.below(3)),
        true if rng.percent(85) => Node::Dev(nr),
        // Some are beyond the existing devices.
        true => Node::Own(rng.below(scale.devices + 2)),
    };
    let mode = match rng.below(10) {
        0 => libc::O_RDONLY,
        1 => libc::O_WRONLY,
        2 => 3,
        _ => libc::O_RDWR,
    };
    let mut flags = mode;
    for (flag, percent) in [
        (libc::O_EXCL, 7),
        (libc::O_NONBLOCK, 7),
        (libc::O_DIRECT, 40),
        (libc::O_SYNC, 5),
    ] {
        if rng.percent(percent) {
            flags |= flag;
        }
    }
    Op::Open(slot, node, flags)
}

pub fn control(rng: &mut Rng, scale: &Scale, cmd: u32) -> Op {
    let number = match rng.below(12) {
        0 => rng.edge() as i32,
        // The next device.
        1 if cmd == uapi::LOOP_CTL_ADD => -1,
        _ => rng.below(scale.devices) as i32,
    };
    // Limit the number of devices: larger numbers become invalid.
    let number = match cmd == uapi::LOOP_CTL_ADD && number > scale.devices as i32 {
        true => number | 1 << 20,
        false => number,
    };
    Op::Control(abi(rng, scale), cmd, number)
}

pub fn backing(rng: &mut Rng, scale: &Scale) -> Backing {
    match rng.below(20) {
        0 => Backing::Number(rng.pick(&[-1, i32::MAX, i32::MIN, 9999])),
        1 => Backing::File(USUAL + rng.index(FILES.len() - USUAL)),
        2 | 3 => Backing::Slot(rng.index(if scale.nesting { SLOTS } else { WHOLE })),
        _ => Backing::File(rng.index(USUAL)),
    }
}

pub fn flags(rng: &mut Rng, defined: u32) -> u32 {
    match rng.below(12) {
        0 => rng.next() as u32,
        // Each flag is set in a quarter of the cases: a read-only device allows few operations.
        _ => (rng.next() & rng.next()) as u32 & defined,
    }
}

const ALL_FLAGS: u32 = uapi::LO_FLAGS_READ_ONLY
    | uapi::LO_FLAGS_AUTOCLEAR
    | uapi::LO_FLAGS_PARTSCAN
    | uapi::LO_FLAGS_DIRECT_IO;

pub fn info64(rng: &mut Rng) -> LoopInfo64 {
    let mut info = LoopInfo64::zeroed();
    info.flags = flags(rng, ALL_FLAGS);
    rng.fill(&mut info.file_name);
    if rng.percent(30) {
        // Fields that the driver ignores.
        let mut bytes = info.bytes();
        let from = std::mem::offset_of!(LoopInfo64, crypt_name);
        rng.fill(&mut bytes[from..]);
        info = LoopInfo64::from_bytes(&bytes);
    }
    if rng.percent(60) {
        info.offset = rng.pick(&[0, 0, 0, 0, 512, 4096, 65536]);
        info.sizelimit = rng.pick(&[0, 0, 0, 512, 1000, 4096, 65536, 1 << 20]);
    } else {
        info.offset = rng.edge();
        info.sizelimit = rng.edge();
        info.encrypt_type = rng.pick(&[0, 0, 0, 1, 18, u32::MAX]);
        info.encrypt_key_size = rng.edge() as u32;
        info.number = rng.next() as u32;
        info.device = rng.next();
        info.inode = rng.next();
        info.rdevice = rng.next();
    }
    info
}

/// The number of readable bytes of a structure: usually all.
pub fn mapped(rng: &mut Rng, len: usize) -> usize {
    match rng.percent(4) {
        true => rng.index(len),
        false => len,
    }
}

/// A structure, of which usually all bytes are readable.
pub fn partly_readable(rng: &mut Rng, bytes: Vec<u8>) -> Arg {
    match rng.below(50) {
        0 => Arg::Unmapped,
        1 => Arg::Number(rng.edge() as usize & !0xfff),
        _ => {
            let mapped = mapped(rng, bytes.len());
            Arg::Bytes(bytes, mapped)
        }
    }
}

pub fn structure(rng: &mut Rng, scale: &Scale, cmd: u32, bytes: Vec<u8>) -> Op {
    let arg = partly_readable(rng, bytes);
    Op::Device(rng.index(SLOTS), abi(rng, scale), cmd, arg)
}

pub fn number(rng: &mut Rng, scale: &Scale, cmd: u32, usual: &[usize]) -> Op {
    let number = match rng.below(12) {
        0 => rng.edge() as usize,
        _ => rng.pick(usual),
    };
    let arg = Arg::Number(number);
    Op::Device(rng.index(SLOTS), abi(rng, scale), cmd, arg)
}

pub fn with_backing(rng: &mut Rng, scale: &Scale, cmd: u32) -> Op {
    let arg = Arg::Backing(backing(rng, scale));
    Op::Device(rng.index(SLOTS), abi(rng, scale), cmd, arg)
}

pub fn configure(rng: &mut Rng, scale: &Scale) -> Op {
    let mut config = LoopConfig {
        info: info64(rng),
        ..LoopConfig::zeroed()
    };
    config.block_size = match rng.below(12) {
        0 => rng.edge() as u32,
        _ => rng.pick(&[0, 0, 0, 512, 1024, 4096, 8192, 65536]),
    };
    if rng.percent(10) {
        config.reserved = [rng.next(); 8];
    }
    let mapped = mapped(rng, size_of::<LoopConfig>());
    let arg = Arg::Config(backing(rng, scale), Box::new(config), mapped);
    Op::Device(rng.index(SLOTS), abi(rng, scale), uapi::LOOP_CONFIGURE, arg)
}

pub fn set_status64(rng: &mut Rng, scale: &Scale) -> Op {
    let bytes = info64(rng).bytes();
    structure(rng, scale, uapi::LOOP_SET_STATUS64, bytes)
}

pub fn set_status(rng: &mut Rng, scale: &Scale) -> Op {
    let info = info64(rng);
    let abi = abi(rng, scale);
    let (flags, offset) = (info.flags as i32, info.offset as i32);
    let bytes = match abi {
        Abi::Native => LoopInfo {
            offset,
            flags,
            name: info.file_name,
            encrypt_type: info.encrypt_type as i32,
            encrypt_key: info.encrypt_key,
            init: info.init,
            ..LoopInfo::zeroed()
        }
        .bytes(),
        Abi::Compat => CompatLoopInfo {
            offset,
            flags,
            name: info.file_name,
            encrypt_type: info.encrypt_type as i32,
            encrypt_key: info.encrypt_key,
            init: info.init.map(|word| word as u32),
            ..CompatLoopInfo::zeroed()
        }
        .bytes(),
    };
    let arg = partly_readable(rng, bytes);
    Op::Device(rng.index(SLOTS), abi, uapi::LOOP_SET_STATUS, arg)
}

pub fn blkpg(rng: &mut Rng, scale: &Scale) -> Op {
    let mut part = uapi::BlkpgPartition::zeroed();
    rng.fill(&mut part.devname);
    rng.fill(&mut part.volname);
    if rng.percent(85) {
        part.pno = 1 + rng.below(4) as i32;
        part.start = (rng.below(512) * 4096) as i64;
        part.length = ((1 + rng.below(64)) * 4096) as i64;
    } else {
        part.pno = rng.edge() as i32;
        part.start = rng.edge() as i64;
        part.length = rng.edge() as i64;
    }
    let op = match rng.below(20) {
        0 => rng.edge() as i32,
        n => {
            rng.pick(&[
                uapi::BLKPG_ADD_PARTITION,
                uapi::BLKPG_DEL_PARTITION,
                uapi::BLKPG_RESIZE_PARTITION,
            ]) + i32::from(n == 1)
        }
    };
    let arg = Arg::Part(op, part, !rng.percent(4));
    Op::Device(rng.index(SLOTS), abi(rng, scale), uapi::BLKPG, arg)
}

/// A range of bytes, possibly beyond the end of the device.
pub fn area(rng: &mut Rng) -> (u64, u64) {
    let blocks = rng.pick(&[2, 8, 32, 128]);
    (
        rng.below(blocks) * 4096,
        (1 + rng.below(blocks.min(32))) * 4096,
    )
}

pub fn range(rng: &mut Rng, scale: &Scale, cmd: u32) -> Op {
    let (start, len) = match rng.percent(10) {
        // A range beyond the end.
        true => (rng.edge() & !(1 << 40), 1 << 62),
        false => area(rng),
    };
    let bytes = [start, len].map(u64::to_le_bytes).concat();
    structure(rng, scale, cmd, bytes)
}

pub fn get(rng: &mut Rng, scale: &Scale, (cmd, native, compat): Getter) -> Op {
    let abi = abi(rng, scale);
    let len = match abi {
        Abi::Native => native,
        Abi::Compat => compat,
    };
    let arg = match rng.below(30) {
        0 => Arg::Number(0),
        1 => Arg::Unmapped,
        2 => Arg::ReadOnly,
        3 if len > 0 => Arg::Bytes(vec![0; len], rng.index(len)),
        _ => Arg::Bytes(vec![0; len], len),
    };
    Op::Get(rng.index(SLOTS), abi, cmd, len, arg)
}

pub fn io(rng: &mut Rng, _: &Scale) -> Op {
    let n = match rng.percent(30) {
        true => 1 + rng.index(AT_ONCE),
        false => 1 + rng.index(4),
    };
    let mut transfer = |_| {
        let mut transfer = Transfer {
            direction: rng.pick(&[
                Direction::Read,
                Direction::Read,
                Direction::Read,
                Direction::Write,
                Direction::Write,
                Direction::Sync,
            ]),
            pos: rng.below(2048) * 512,
            len: (1 + rng.index(16)) * 512,
            // RWF_DSYNC, RWF_NOWAIT
            flags: rng.pick(&[0, 0, 0, 0, 0, 2, 8]),
        };
        match rng.below(12) {
            0 => transfer.len = LONGEST,
            1 => (transfer.pos, transfer.len) = (rng.below(1 << 20), rng.index(8192)),
            2 => transfer.pos = rng.edge(),
            _ => (),
        }
        if transfer.direction == Direction::Sync {
            (transfer.pos, transfer.len, transfer.flags) = (0, 0, 0);
        }
        transfer
    };
    let transfers = (0..n).map(&mut transfer).collect();
    Op::Io(rng.index(SLOTS), transfers)
}
