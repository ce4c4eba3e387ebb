// SPDX-License-Identifier: GPL-2.0

//! I/O to the backing file that fails.
//!
//! The block layer says which sector of the device could not be read or written; what an
//! administrator needs is which file, and why. That is told in the kernel log, once for each cause
//! for as long as a file is attached: a full file system fails many requests.

use crate::device::Device;
use kernel::{
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
        Status,
    },
    fs::FileExt,
};

/// Why an I/O failed, as far as an administrator can do something about it.
#[derive(Clone, Copy)]
#[repr(usize)]
enum Cause {
    ReadOnly,
    EndOfFile,
    NoSpace,
    Gone,
    Other,
}

impl Cause {
    const COUNT: usize = 5;

    fn as_str(self) -> &'static str {
        match self {
            Cause::ReadOnly => "the device is read-only",
            Cause::EndOfFile => "the file ends before the device does",
            Cause::NoSpace => "there is no space left for the file",
            Cause::Gone => "the file is gone",
            Cause::Other => "I/O error",
        }
    }
}

/// An I/O that failed: why, and how its request ends.
pub(crate) struct Failure {
    cause: Cause,
    error: Error,
    status: Status,
}

impl Failure {
    /// A write to a device that was attached read-only, but set writable since.
    pub(crate) const READ_ONLY: Self = Self {
        cause: Cause::ReadOnly,
        error: EROFS,
        status: Status::IOERR,
    };

    /// The file has got shorter than the device.
    pub(crate) const END_OF_FILE: Self = Self {
        cause: Cause::EndOfFile,
        error: EIO,
        status: Status::IOERR,
    };

    /// A failed operation on the whole file or on its space: an I/O error, unless space is what it
    /// lacks.
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

    /// How a request ends that failed like this.
    pub(crate) fn status(&self) -> Status {
        self.status
    }

    /// Tells of the failure of a request, if it is the first of its cause. In any context.
    pub(crate) fn tell<I: Transfer>(&self, device: &Device, rq: &I) {
        if let Some(told) = device.pool().told() {
            told.tell(rq, device.number(), self);
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let cause = if error == ENOSPC || error == EDQUOT {
            Cause::NoSpace
        } else if error == ESTALE || error == ENODEV || error == ENXIO || error == ENOENT {
            Cause::Gone
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

/// Room for most paths, for which a page takes long to be had, and to be cleared.
const SHORT_PATH: usize = 128;

/// What was told of a file.
pub(crate) struct Told {
    /// Where the file was when it was attached: to look it up may take locks that the end of a
    /// request must not.
    path: KVec<u8>,
    causes: [AtomicFlag; Cause::COUNT],
}

impl Told {
    /// Nothing so far. May sleep.
    pub(crate) fn new(file: &File) -> Result<Arc<Self>> {
        let mut path = KVec::new();
        let mut short = [0u8; SHORT_PATH];
        if let Ok(found) = file.path(&mut short) {
            path.extend_from_slice(found, GFP_KERNEL)?;
        } else {
            let mut buf = KVec::from_elem(0u8, PAGE_SIZE, GFP_KERNEL)?;
            // One that is too long is no reason not to use the file.
            path.extend_from_slice(file.path(&mut buf).unwrap_or(b"?"), GFP_KERNEL)?;
        }
        Ok(Arc::new(
            Self {
                path,
                causes: [const { AtomicFlag::new(false) }; Cause::COUNT],
            },
            GFP_KERNEL,
        )?)
    }

    fn tell<I: Transfer>(&self, rq: &I, number: u32, failure: &Failure) {
        let first = |told: &AtomicFlag| !told.load(Relaxed) && !told.xchg(true, Relaxed);
        if !self.causes.get(failure.cause as usize).is_some_and(first) {
            return;
        }
        let verb = match rq.op() {
            Op::Read => "reading",
            Op::Write => "writing",
            Op::Flush => "flushing",
            Op::Discard | Op::WriteZeroes { .. } => "freeing space of",
            Op::Other => "serving",
        };
        pr_err!(
            "loop{number}: {verb} {} failed at byte {} of the device: {} (errno {}); more of this is not logged\n",
            BStr::from_bytes(&self.path),
            rq.position(),
            failure.cause.as_str(),
            failure.error.to_errno().unsigned_abs()
        );
    }
}
