// SPDX-License-Identifier: GPL-2.0

//! Errors of the backing file, and their report in the kernel log.
//!
//! The block layer logs the sector of the device at which an I/O failed. [`ErrorLog`] adds the name
//! of the backing file and the cause, once per cause while a file is attached, since a full file
//! system fails many requests.

use kernel::{
    fmt,
    fs::File,
    page::PAGE_SIZE,
    prelude::*,
    str::BStr,
    sync::{
        atomic::{AtomicFlag, Relaxed},
        Arc,
    },
};
use kernel_ext::{
    block::{
        mq::{Op, Transfer},
        Status, SECTOR_SHIFT,
    },
    compat::{EDQUOT, ESTALE},
    fs::FileExt,
};

/// The name of an operation in the kernel log.
fn op_name(op: Op) -> &'static str {
    match op {
        Op::Read => "read",
        Op::Write => "write",
        Op::Flush => "flush",
        Op::Discard => "discard",
        Op::WriteZeroes { .. } => "write-zeroes",
        Op::Other => "I/O",
    }
}

/// Displays the sector of an I/O; nothing for a flush, which has none.
struct Place<'a, I>(&'a I);

impl<I: Transfer> fmt::Display for Place<'_, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.op() {
            Op::Flush => Ok(()),
            _ => write!(f, ", sector {}", self.0.position() >> SECTOR_SHIFT),
        }
    }
}

/// The cause of a failed I/O, in terms of what an administrator can fix.
#[derive(Clone, Copy)]
#[repr(usize)]
enum Cause {
    ReadOnly,
    EndOfFile,
    NoSpace,
    FileGone,
    Other,
}

impl Cause {
    const COUNT: usize = 5;

    fn as_str(self) -> &'static str {
        match self {
            Cause::ReadOnly => "device is read-only",
            Cause::EndOfFile => "file ends before the device",
            Cause::NoSpace => "no space left",
            Cause::FileGone => "file is gone",
            Cause::Other => "I/O error",
        }
    }
}

/// A failed I/O: its cause, its errno, and the status with which the request completes.
pub(crate) struct Failure {
    cause: Cause,
    error: Error,
    status: Status,
}

impl Failure {
    /// A write to a device that was attached read-only and set writable by BLKROSET.
    pub(crate) const READ_ONLY: Self = Self {
        cause: Cause::ReadOnly,
        error: EROFS,
        status: Status::IOERR,
    };

    /// A transfer past the end of the backing file, which has been truncated.
    pub(crate) const END_OF_FILE: Self = Self {
        cause: Cause::EndOfFile,
        error: EIO,
        status: Status::IOERR,
    };

    /// A failed fsync, fallocate or submission. The status is an I/O error, except for ENOSPC.
    pub(crate) fn of_file(error: Error) -> Self {
        let failure = Self::from(error);
        match failure.cause {
            Cause::NoSpace => failure,
            _ => Self {
                status: Status::IOERR,
                ..failure
            },
        }
    }

    /// The status with which the request completes.
    pub(crate) fn status(&self) -> Status {
        self.status
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let cause = if error == ENOSPC || error == EDQUOT {
            Cause::NoSpace
        } else if error == ESTALE || error == ENODEV || error == ENXIO || error == ENOENT {
            Cause::FileGone
        } else {
            Cause::Other
        };
        Self {
            cause,
            error,
            status: error.into(),
        }
    }
}

/// Buffer size that most paths fit in. Allocating and clearing a page takes longer.
const SHORT_PATH: usize = 128;

/// The errors of one attached file that have been logged.
pub(crate) struct ErrorLog {
    /// The number of the device.
    number: u32,
    /// The path of the file when it was attached. A later lookup may take locks that completion
    /// context must not take.
    path: KVec<u8>,
    /// Whether each [`Cause`] has been logged.
    logged: [AtomicFlag; Cause::COUNT],
}

impl ErrorLog {
    /// Creates the log of a file that is attached to device `number`. May sleep.
    pub(crate) fn new(number: u32, file: &File) -> Result<Arc<Self>> {
        let mut path = KVec::new();
        let mut short = [0u8; SHORT_PATH];
        if let Ok(found) = file.path(&mut short) {
            path.extend_from_slice(found, GFP_KERNEL)?;
        } else {
            let mut buf = KVec::from_elem(0u8, PAGE_SIZE, GFP_KERNEL)?;
            // A path that is too long does not prevent the use of the file.
            path.extend_from_slice(file.path(&mut buf).unwrap_or(b"?"), GFP_KERNEL)?;
        }
        Ok(Arc::new(
            Self {
                number,
                path,
                logged: [const { AtomicFlag::new(false) }; Cause::COUNT],
            },
            GFP_KERNEL,
        )?)
    }

    /// Logs the failure of `io` unless its cause has been logged before. Any context.
    pub(crate) fn report_once<I: Transfer>(&self, io: &I, failure: &Failure) {
        let is_first = |logged: &AtomicFlag| !logged.load(Relaxed) && !logged.xchg(true, Relaxed);
        if !self
            .logged
            .get(failure.cause as usize)
            .is_some_and(is_first)
        {
            return;
        }
        pr_err!(
            "loop{}: {} error, file {}{}: {} (errno {}); similar errors are not logged\n",
            self.number,
            op_name(io.op()),
            BStr::from_bytes(&self.path),
            Place(io),
            failure.cause.as_str(),
            failure.error.to_errno().unsigned_abs()
        );
    }
}
