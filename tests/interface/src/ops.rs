// SPDX-License-Identifier: GPL-2.0

//! Operations on a device: each ioctl with valid and invalid arguments, file operations, and writes
//! to sysfs.

mod attach;
mod block_ioctls;
mod file;
mod io;
mod ioctl;
mod loop_ioctls;
mod status;
mod sysfs;

use crate::{
    sys::Abi,
    uapi::{LOOP_CHANGE_FD, LOOP_SET_FD},
    world::{Instance, World, SIZE},
};
pub use block_ioctls::blkpg;
pub use file::FileKind;
pub use io::{read_at, Number};
pub use ioctl::{run, Arg};

/// A call of a case.
pub enum Act {
    Ioctl(u32, Arg),
    Call(fn(&World, &Instance, Abi) -> String),
}

/// A call with its arguments.
pub struct Case {
    pub name: String,
    /// Whether the case runs in each state, or only in those in which the operation gets all
    /// arguments.
    pub everywhere: bool,
    pub abis: &'static [Abi],
    pub act: Act,
}

/// The effect that an operation may have on the device.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// A query: the device is not examined for changes.
    Query,
    /// No change of the attributes of the device. Only the fingerprint is compared.
    Preserve,
    /// Attributes can change: they are compared after a successful call.
    Modify,
}

/// An operation; in a state it is a test case.
pub struct Op {
    pub name: &'static str,
    pub effect: Effect,
    /// The states in which the operation gets all arguments; if empty, `State::thorough` tells.
    pub only_in: &'static [&'static str],
    pub cases: Vec<Case>,
}

const NATIVE: &[Abi] = &[Abi::Native];
/// A 64-bit program can make 32-bit system calls on x86 only.
const BOTH: &[Abi] = match cfg!(target_arch = "x86_64") {
    true => &[Abi::Native, Abi::Compat],
    false => NATIVE,
};

/// The offset of the middle of a backing file.
const HALF: u64 = SIZE / 2;

/// Valid and invalid block sizes.
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

impl Op {
    fn new(name: &'static str, effect: Effect) -> Self {
        Self {
            name,
            effect,
            only_in: &[],
            cases: Vec::new(),
        }
    }

    fn only_in(mut self, states: &'static [&'static str]) -> Self {
        self.only_in = states;
        self
    }

    /// Whether the loop driver, not the block layer, implements the 32-bit form.
    pub fn is_loop_ioctl(&self) -> bool {
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

    /// Adds an ioctl that runs in each state.
    fn core(self, cmd: u32, name: impl Into<String>, arg: Arg) -> Self {
        self.case(true, BOTH, name.into(), Act::Ioctl(cmd, arg))
    }

    /// Adds an ioctl that runs in the states that get all arguments.
    fn more(self, cmd: u32, name: impl Into<String>, arg: Arg) -> Self {
        self.case(false, BOTH, name.into(), Act::Ioctl(cmd, arg))
    }

    /// Like `more`, for 64-bit programs only: the structure is the same for 32-bit programs.
    fn native(self, cmd: u32, name: impl Into<String>, arg: Arg) -> Self {
        self.case(false, NATIVE, name.into(), Act::Ioctl(cmd, arg))
    }

    /// Adds a call of 64-bit programs that runs in each state.
    fn call(self, name: &str, f: fn(&World, &Instance, Abi) -> String) -> Self {
        self.case(true, NATIVE, name.into(), Act::Call(f))
    }

    /// Adds a call of 64-bit and of 32-bit programs that runs in each state.
    fn call_both(self, name: &str, f: fn(&World, &Instance, Abi) -> String) -> Self {
        self.case(true, BOTH, name.into(), Act::Call(f))
    }
}

/// All operations; destructive ones last.
pub fn all() -> Vec<Op> {
    let mut all = loop_ioctls::all();
    all.extend(block_ioctls::all());
    all.extend(io::all());
    all.push(sysfs::op());
    all.push(status::set_status64());
    all.push(status::set_status_old());
    all.push(attach::set_fd("LOOP_SET_FD", LOOP_SET_FD));
    all.push(attach::set_fd("LOOP_CHANGE_FD", LOOP_CHANGE_FD));
    all.push(attach::configure());
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
}
