// SPDX-License-Identifier: GPL-2.0

//! Linux AIO with several I/Os in flight.

use crate::{
    ops::{Direction, Transfer},
    sys::Ret,
};
use nix::errno::Errno;
use std::{io, os::fd::RawFd, ptr};

/// `struct iocb`
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Iocb {
    data: u64,
    key: u32,
    rw_flags: i32,
    opcode: u16,
    priority: i16,
    fd: u32,
    buf: u64,
    nbytes: u64,
    offset: u64,
    reserved: u64,
    flags: u32,
    eventfd: u32,
}

/// `struct io_event`
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Event {
    data: u64,
    obj: u64,
    res: i64,
    res2: i64,
}

pub struct Queue {
    context: libc::c_ulong,
    /// A buffer for each I/O, only accessed by copying: the kernel writes to it.
    base: *mut u8,
    slots: usize,
    size: usize,
}

impl Queue {
    pub fn new(slots: usize, size: usize) -> io::Result<Self> {
        // SAFETY: A new mapping, wherever there is room.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                slots * size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mut context: libc::c_ulong = 0;
        // SAFETY: `context` is valid for the call.
        if unsafe { libc::syscall(libc::SYS_io_setup, slots, &raw mut context) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            context,
            base: base.cast(),
            slots,
            size,
        })
    }

    fn buffer(&self, slot: usize, len: usize) -> *mut u8 {
        assert!(slot < self.slots && len <= self.size);
        // SAFETY: Within the mapping.
        unsafe { self.base.add(slot * self.size) }
    }

    pub fn fill(&self, slot: usize, len: usize, byte: u8) {
        // SAFETY: The buffer has `len` bytes, and no I/O is in flight.
        unsafe { self.buffer(slot, len).write_bytes(byte, len) };
    }

    pub fn bytes(&self, slot: usize, len: usize) -> impl Iterator<Item = u8> {
        // SAFETY: The buffer has `len` initialized bytes, and no I/O is in flight.
        unsafe { std::slice::from_raw_parts(self.buffer(slot, len), len) }
            .to_vec()
            .into_iter()
    }

    /// Submits all I/Os and waits for them.
    pub fn run(&mut self, fd: RawFd, transfers: &[Transfer]) -> Vec<Ret> {
        let mut rets: Vec<Ret> = vec![Err(Errno::EBADF); transfers.len()];
        let mut iocbs: Vec<Iocb> = transfers
            .iter()
            .enumerate()
            .map(|(index, transfer)| Iocb {
                data: index as u64,
                rw_flags: transfer.flags,
                opcode: match transfer.direction {
                    Direction::Read => 0,
                    Direction::Write => 1,
                    Direction::Sync => 2,
                },
                fd: fd as u32,
                buf: match transfer.direction {
                    Direction::Sync => 0,
                    _ => self.buffer(index, transfer.len) as u64,
                },
                nbytes: transfer.len as u64,
                offset: transfer.pos,
                ..Iocb::default()
            })
            .collect();
        let base = iocbs.as_mut_ptr();
        let mut pointers: Vec<*mut Iocb> = (0..iocbs.len())
            // SAFETY: Within the vector.
            .map(|index| unsafe { base.add(index) })
            .collect();
        let (mut next, mut in_flight) = (0, 0);
        while next < pointers.len() {
            // SAFETY: The pointers, and the buffers, are valid until all I/Os have completed.
            let submitted = unsafe {
                libc::syscall(
                    libc::SYS_io_submit,
                    self.context,
                    pointers.len() - next,
                    pointers[next..].as_mut_ptr(),
                )
            };
            match Errno::result(submitted) {
                Ok(n) if n > 0 => {
                    next += n as usize;
                    in_flight += n as usize;
                }
                // The first I/O failed; submit the others next.
                Ok(_) => next += 1,
                Err(errno) => {
                    rets[next] = Err(errno);
                    next += 1;
                }
            }
        }
        while in_flight > 0 {
            let mut events = vec![Event::default(); in_flight];
            // SAFETY: `events` has room for `in_flight` events.
            let got = unsafe {
                libc::syscall(
                    libc::SYS_io_getevents,
                    self.context,
                    in_flight,
                    in_flight,
                    events.as_mut_ptr(),
                    ptr::null_mut::<libc::timespec>(),
                )
            };
            let got = match Errno::result(got) {
                Ok(got) => got as usize,
                Err(Errno::EINTR) => continue,
                Err(errno) => panic!("io_getevents: {errno:?}"),
            };
            in_flight -= got;
            for event in &events[..got] {
                rets[event.data as usize] = match event.res {
                    res if res < 0 => Err(Errno::from_raw(-res as i32)),
                    res => Ok(res as i32),
                };
            }
        }
        rets
    }
}
