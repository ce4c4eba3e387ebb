// SPDX-License-Identifier: GPL-2.0

//! Raw system calls: ioctls of 64-bit and of 32-bit programs, memory that is or is not accessible,
//! uevents.

use nix::{
    errno::Errno,
    sys::socket::{self, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType},
};
use std::{
    ffi::c_void,
    io::{Error, Result},
    os::fd::{AsRawFd, OwnedFd, RawFd},
    ptr,
};

/// The result of a system call.
pub type Ret = std::result::Result<i32, Errno>;

/// The entry into the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Abi {
    Native,
    Compat,
}

fn ret(value: i64) -> Ret {
    // The raw return value: the last page of numbers is errors.
    if (-4095..0).contains(&value) {
        Err(Errno::from_raw(-value as i32))
    } else {
        Ok(value as i32)
    }
}

/// An ioctl with any argument.
pub fn ioctl(abi: Abi, fd: RawFd, cmd: u32, arg: usize) -> Ret {
    let value: i64;
    match abi {
        // SAFETY: The kernel checks the argument; the memory that it may write to is that of an
        // `Arena`, which is only accessed by copying.
        #[cfg(target_arch = "aarch64")]
        Abi::Native => unsafe {
            std::arch::asm!(
                "svc 0",
                in("x8") libc::SYS_ioctl,
                inlateout("x0") fd as i64 => value,
                in("x1") u64::from(cmd),
                in("x2") arg,
            );
        },
        // A 64-bit program can make no 32-bit system calls.
        #[cfg(target_arch = "aarch64")]
        Abi::Compat => value = -i64::from(libc::ENOSYS),
        // SAFETY: As above.
        #[cfg(target_arch = "x86_64")]
        Abi::Native => unsafe {
            std::arch::asm!(
                "syscall",
                inlateout("rax") libc::SYS_ioctl => value,
                in("rdi") fd as i64,
                in("rsi") u64::from(cmd),
                in("rdx") arg,
                lateout("rcx") _,
                lateout("r11") _,
            );
        },
        #[cfg(target_arch = "x86_64")]
        Abi::Compat => {
            const SYS32_IOCTL: u64 = 54;

            // SAFETY: As above. LLVM keeps rbx for itself.
            let value32 = unsafe {
                let value32: u64;
                std::arch::asm!(
                    "xchg {fd:r}, rbx",
                    "int 0x80",
                    "xchg {fd:r}, rbx",
                    fd = inout(reg) fd as u64 => _,
                    inlateout("rax") SYS32_IOCTL => value32,
                    in("rcx") u64::from(cmd),
                    in("rdx") arg as u64 & 0xffff_ffff,
                    lateout("r8") _,
                    lateout("r9") _,
                    lateout("r10") _,
                    lateout("r11") _,
                );
                value32
            };
            value = i64::from(value32 as i32);
        }
    }
    ret(value)
}

/// Whether the kernel supports 32-bit system calls: without, `int 0x80` faults.
pub fn has_compat() -> bool {
    // SAFETY: The child only makes calls that are safe after fork().
    match unsafe { libc::fork() } {
        0 => {
            let fine = ioctl(Abi::Compat, -1, 0, 0) == Err(Errno::EBADF);
            // SAFETY: This never returns.
            unsafe { libc::_exit(if fine { 0 } else { 1 }) }
        }
        pid if pid > 0 => {
            let mut status = 0;
            // SAFETY: `status` is valid for the call.
            let waited = unsafe { libc::waitpid(pid, &mut status, 0) };
            waited == pid && status == 0
        }
        _ => false,
    }
}

/// Memory for arguments in the lower 4 GiB: a writable page, an inaccessible page and a read-only
/// page.
pub struct Arena {
    base: *mut u8,
}

/// The largest page size of an architecture, that of arm64.
const PAGE: usize = 64 << 10;

/// Maps memory that 32-bit system calls can address.
#[cfg(target_arch = "x86_64")]
const MAP_32BIT: i32 = libc::MAP_32BIT;
#[cfg(target_arch = "aarch64")]
const MAP_32BIT: i32 = 0;

impl Arena {
    pub fn new() -> Result<Self> {
        // SAFETY: A new mapping at any address.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                3 * PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | MAP_32BIT,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(Error::last_os_error());
        }
        let base: *mut u8 = base.cast();
        for (page, prot) in [(1, libc::PROT_NONE), (2, libc::PROT_READ)] {
            // SAFETY: Within the mapping.
            let addr: *mut c_void = unsafe { base.add(page * PAGE) }.cast();
            // SAFETY: Nothing refers to that page.
            if unsafe { libc::mprotect(addr, PAGE, prot) } != 0 {
                return Err(Error::last_os_error());
            }
        }
        Ok(Self { base })
    }

    /// Copies `bytes` in so that only the first `mapped` of them are readable; returns their
    /// address.
    pub fn put(&self, bytes: &[u8], mapped: usize) -> usize {
        let mapped = mapped.min(bytes.len());
        assert!(mapped <= PAGE);
        // SAFETY: Within the first page.
        unsafe {
            let to = self.base.add(PAGE - mapped);
            ptr::copy_nonoverlapping(bytes.as_ptr(), to, mapped);
        }
        self.base as usize + PAGE - mapped
    }

    /// The last `len` bytes of the writable page.
    pub fn get(&self, len: usize) -> Vec<u8> {
        assert!(len <= PAGE);
        let mut bytes = vec![0; len];
        // SAFETY: Within the first page.
        unsafe { ptr::copy_nonoverlapping(self.base.add(PAGE - len), bytes.as_mut_ptr(), len) };
        bytes
    }

    pub fn unmapped(&self) -> usize {
        self.base as usize + PAGE
    }

    pub fn read_only(&self) -> usize {
        self.base as usize + 2 * PAGE
    }
}

/// Runs `f` without privileges: as another user without effective capabilities.
pub fn unprivileged<T>(f: impl FnOnce() -> T) -> T {
    // Raw system calls change only this thread.
    let setresuid = |uid: u32| {
        // SAFETY: Only changes credentials.
        let done = unsafe { libc::syscall(libc::SYS_setresuid, -1, uid, -1) };
        assert_eq!(done, 0, "setresuid");
    };
    setresuid(65534);
    let value = f();
    setresuid(0);
    value
}

/// The kernel's uevents.
pub struct Uevents(OwnedFd);

impl Uevents {
    pub fn listen() -> Result<Self> {
        let fd = socket::socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkKObjectUEvent,
        )?;
        // The socket also gets the uevents of devices of other processes.
        socket::setsockopt(&fd, socket::sockopt::RcvBufForce, &(4 << 20))?;
        socket::bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 1))?;
        Ok(Self(fd))
    }

    /// The received uevents as lists of strings: `ACTION@DEVPATH` and the variables. Only those
    /// whose first string is wanted: uevents of other processes arrive here, too.
    pub fn take(&self, wanted: impl Fn(&[u8]) -> bool) -> Vec<Vec<String>> {
        let mut events = Vec::new();
        let mut buf = [0; 8192];
        loop {
            match socket::recv(self.0.as_raw_fd(), &mut buf, MsgFlags::empty()) {
                Ok(len) => {
                    let mut texts = buf[..len].split(|byte| *byte == 0);
                    let Some(head) = texts.next().filter(|head| wanted(head)) else {
                        continue;
                    };
                    events.push(
                        std::iter::once(head)
                            .chain(texts)
                            .filter(|text| !text.is_empty())
                            .map(|text| String::from_utf8_lossy(text).into_owned())
                            .collect(),
                    );
                }
                Err(Errno::EAGAIN) => return events,
                Err(errno) => events.push(vec![format!("lost@{errno:?}")]),
            }
        }
    }
}
