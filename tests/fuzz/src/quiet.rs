// SPDX-License-Identifier: GPL-2.0

//! Structures that are copied out while no other call runs: equal each time, and with the values
//! that were set.

use crate::{
    copied, files, lane,
    lane::World,
    ops,
    progress::Progress,
    rng::Rng,
    sys::{self, Abi, Arena},
    uapi::{self, CompatLoopInfo, LoopConfig, LoopInfo, LoopInfo64, Plain},
    Options, Report,
};
use std::os::fd::{AsRawFd, RawFd};

const ABIS: [Abi; 2] = [Abi::Native, Abi::Compat];

/// The ioctls that get a status, and the size of their structures.
fn statuses(abi: Abi) -> [(u32, usize); 2] {
    let old = match abi {
        Abi::Native => size_of::<LoopInfo>(),
        Abi::Compat => size_of::<CompatLoopInfo>(),
    };
    [
        (uapi::LOOP_GET_STATUS64, size_of::<LoopInfo64>()),
        (uapi::LOOP_GET_STATUS, old),
    ]
}

/// Number, offset, flags and name in the status.
fn fields(abi: Abi, cmd: u32, bytes: &[u8]) -> (u32, u64, u32, [u8; 64]) {
    match (cmd, abi) {
        (uapi::LOOP_GET_STATUS64, _) => {
            let info = LoopInfo64::from_bytes(bytes);
            (info.number, info.offset, info.flags, info.file_name)
        }
        (_, Abi::Native) => {
            let info = LoopInfo::from_bytes(bytes);
            (
                info.number as u32,
                info.offset as u64,
                info.flags as u32,
                info.name,
            )
        }
        (_, Abi::Compat) => {
            let info = CompatLoopInfo::from_bytes(bytes);
            (
                info.number as u32,
                info.offset as u64,
                info.flags as u32,
                info.name,
            )
        }
    }
}

struct Quiet<'a> {
    arena: Arena,
    fd: RawFd,
    abis: &'a [Abi],
    copied: u32,
    wrong: Vec<String>,
}

impl Quiet<'_> {
    /// Calls an ioctl twice; returns the structure if both are equal and complete.
    fn get(&mut self, abi: Abi, cmd: u32, len: usize) -> Option<Vec<u8>> {
        let (ret, [one, other], unwritten) = copied::twice(&self.arena, self.fd, abi, cmd, len);
        self.copied += 2;
        let wrong = match ret {
            Err(errno) => format!("{errno:?}"),
            Ok(_) if !unwritten.is_empty() => format!("not written: {unwritten:?}"),
            Ok(_) if one != other => format!("{one:x?}, then {other:x?}"),
            Ok(_) => match copied::odd(abi, cmd, &one) {
                Some(wrong) => wrong,
                None => return Some(one),
            },
        };
        self.wrong.push(format!("{cmd:#x}, {abi:?}: {wrong}"));
        None
    }

    fn all(&mut self, expected: (u32, u64, u32, [u8; 64])) {
        for abi in self.abis {
            for (cmd, len) in statuses(*abi) {
                let Some(bytes) = self.get(*abi, cmd, len) else {
                    continue;
                };
                let got = fields(*abi, cmd, &bytes);
                if got != expected {
                    self.wrong
                        .push(format!("{cmd:#x}, {abi:?}: {got:x?}, not {expected:x?}"));
                }
            }
            for (cmd, native, compat) in ops::GETS {
                let len = match abi {
                    Abi::Native => *native,
                    Abi::Compat => *compat,
                };
                if len > 0 {
                    self.get(*abi, *cmd, len);
                }
            }
        }
    }
}

/// A name of random bytes, or an empty one: an earlier name must not be visible.
fn name(rng: &mut Rng) -> [u8; 64] {
    let mut name = [0; 64];
    let len = rng.pick(&[0, 1, 63, 64]);
    rng.fill(&mut name[..len]);
    name
}

pub fn run(
    options: &Options,
    world: &World,
    progress: &mut Progress,
    report: &mut Report,
) -> Result<(), String> {
    let device = "/dev/loop0";
    let fd = lane::open(device, libc::O_RDWR).map_err(|errno| format!("{device}: {errno}"))?;
    let file = lane::open(world.dir.join("table"), libc::O_RDWR)
        .map_err(|errno| format!("table: {errno}"))?;
    let arena = Arena::new().map_err(|error| error.to_string())?;
    let mut quiet = Quiet {
        arena,
        fd: fd.as_raw_fd(),
        abis: if world.scale.compat {
            &ABIS
        } else {
            &ABIS[..1]
        },
        copied: 0,
        wrong: Vec::new(),
    };
    let mut config = LoopConfig::zeroed();
    config.fd = file.as_raw_fd() as u32;
    let address = quiet.arena.put(&config.bytes(), size_of::<LoopConfig>());
    sys::ioctl(Abi::Native, quiet.fd, uapi::LOOP_CONFIGURE, address)
        .map_err(|errno| format!("LOOP_CONFIGURE: {errno}"))?;
    let mut set = 0;
    let mut call = 0;
    while quiet.copied < options.calls && quiet.wrong.len() < 20 {
        let mut rng = Rng::new(options.seed, 0, call);
        call += 1;
        let mut info = LoopInfo64::zeroed();
        // Fields that the driver ignores get random bytes.
        let mut bytes = info.bytes();
        rng.fill(&mut bytes);
        info = LoopInfo64::from_bytes(&bytes);
        info.encrypt_type = 0;
        info.encrypt_key_size = 0;
        info.offset = rng.below(512) * 512;
        info.sizelimit = rng.below(512) * 512;
        info.flags = rng.pick(&[0, uapi::LO_FLAGS_AUTOCLEAR]);
        info.file_name = name(&mut rng);
        let address = quiet.arena.put(&info.bytes(), size_of::<LoopInfo64>());
        sys::ioctl(Abi::Native, quiet.fd, uapi::LOOP_SET_STATUS64, address)
            .map_err(|errno| format!("LOOP_SET_STATUS64: {errno}"))?;
        set += 1;
        let mut name = info.file_name;
        name[63] = 0;
        quiet.all((0, info.offset, info.flags, name));
        progress.look(quiet.copied);
    }
    drop((fd, file));
    let left = files::clean();
    report.note(&format!(
        "{} calls that copy out, of {set} states, seed {}",
        quiet.copied, options.seed
    ));
    report.case(
        "copied-out memory has the values that were set",
        &quiet.wrong,
    );
    report.case("the device can be removed", &left);
    Ok(())
}
