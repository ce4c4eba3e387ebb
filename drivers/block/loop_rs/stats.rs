// SPDX-License-Identifier: GPL-2.0

//! What can be seen of a device's cgroups and their workers.
//!
//! `/sys/kernel/debug/loop_rs/loopN/workers` has a line for each cgroup that has a worker, the root
//! first, and one for flushes, which are nobody's alone: the cgroup's path, whether the worker is
//! `busy` or `idle`, and then, as in a cgroup's `io.stat`, names and numbers:
//!
//! - `waiting`: requests, parked ones included, that the worker has not taken yet;
//! - `tags`, `parking`: requests that have not ended, those with a tag and those that are parked;
//! - `done`: requests that have ended;
//! - `here`: requests that were served where they were submitted, without the worker;
//! - `parked`: requests that were parked;
//! - `rbytes`, `wbytes`, `dbytes`, `rios`, `wios`, `dios`, `flushes`: bytes and requests asked for,
//!   by operation; zeroing counts as discarding;
//! - `idle_ms`: for how long the worker has had nothing to do; 0 when it is busy;
//! - `fallbacks`, in the root's line: requests that were another cgroup's, for whose worker there was
//!   no memory.
//!
//! They count from when the worker was made. `/sys/block/loopN/loop/stat` has the sums of those
//! that can be summed up, from when the device was made, and those of workers that were reaped
//! included.

use crate::{slots::SlotId, worker::Pool};
use kernel::{
    debugfs::{Dir, File, Writer},
    fmt,
    prelude::*,
    str::BStr,
    sync::{aref::ARef, Arc},
};
use kernel_ext::{
    block::mq::{Op, Transfer},
    cgroup::{Css, Io},
    time::JiffiesInstant,
};

/// Requests of a kind, and their bytes.
#[derive(Clone, Copy, Default)]
struct Volume {
    ios: u64,
    bytes: u64,
}

/// What was asked for, and how it was served. Changed under the lock of the slots.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Counts {
    read: Volume,
    write: Volume,
    discard: Volume,
    flushes: u64,
    /// How many were handed to the worker; the others were served where they were submitted.
    pub(crate) worker: u64,
    /// How many were parked.
    pub(crate) parked: u64,
}

impl Counts {
    /// Counts a request.
    pub(crate) fn ask<I: Transfer>(&mut self, io: &I) {
        let volume = match io.op() {
            Op::Read => &mut self.read,
            Op::Write => &mut self.write,
            Op::Discard | Op::WriteZeroes { .. } => &mut self.discard,
            Op::Flush | Op::Other => {
                self.flushes = self.flushes.wrapping_add(1);
                return;
            }
        };
        volume.ios = volume.ios.wrapping_add(1);
        volume.bytes = volume.bytes.wrapping_add(io.len() as u64);
    }

    /// How many were served where they were submitted, or are going to be.
    fn here(&self) -> u64 {
        self.asked().saturating_sub(self.worker)
    }

    fn asked(&self) -> u64 {
        [self.read.ios, self.write.ios, self.discard.ios]
            .into_iter()
            .fold(self.flushes, u64::wrapping_add)
    }
}

/// What is to be told of a slot, or of all slots of a device.
pub(crate) struct Report {
    /// How many tags are held.
    pub(crate) tags: u32,
    /// How many requests are parked.
    pub(crate) parking: u32,
    pub(crate) counts: Counts,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report {
            tags,
            parking,
            counts,
        } = self;
        let in_flight = u64::from(*tags).saturating_add(u64::from(*parking));
        f.write_fmt(fmt!(
            "tags={tags} parking={parking} done={} here={} parked={} rbytes={} wbytes={} dbytes={} \
             rios={} wios={} dios={} flushes={}",
            counts.asked().saturating_sub(in_flight),
            counts.here(),
            counts.parked,
            counts.read.bytes,
            counts.write.bytes,
            counts.discard.bytes,
            counts.read.ios,
            counts.write.ios,
            counts.discard.ios,
            counts.flushes
        ))
    }
}

/// What is to be told of a slot.
pub(crate) struct SlotReport {
    pub(crate) id: SlotId,
    /// The cgroup; none for the root's slot, and that of flushes.
    pub(crate) css: Option<ARef<Css<Io>>>,
    /// The worker is queued or running.
    pub(crate) busy: bool,
    /// Since when it has not been.
    pub(crate) idle_since: JiffiesInstant,
    /// How many requests wait for the worker.
    pub(crate) waiting: u64,
    pub(crate) report: Report,
    /// How many requests went to the root's slot because there was no memory for one.
    pub(crate) fallbacks: u64,
}

/// A device's directory and the file in it; gone when dropped.
#[pin_data]
pub(crate) struct Stats {
    #[pin]
    workers: File<Workers>,
    _dir: Dir,
}

impl Stats {
    /// Shows the workers of a device in a directory of `parent`. May sleep.
    pub(crate) fn new(parent: &Dir, name: &CStr, pool: Arc<Pool>) -> Result<Pin<KBox<Self>>> {
        let dir = parent.subdir(name);
        KBox::pin_init(
            try_pin_init!(Self {
                workers <- dir.read_only_file(c"workers", Workers(pool)),
                _dir: dir.clone(),
            }? Error),
            GFP_KERNEL,
        )
    }
}

struct Workers(Arc<Pool>);

impl Writer for Workers {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut buf = KVec::from_elem(0u8, 4096, GFP_KERNEL).map_err(|_| fmt::Error)?;
        let mut after: Option<SlotId> = None;
        while let Some(slot) = self.0.report_slot(after) {
            after = Some(slot.id);
            let path = match &slot.css {
                Some(css) => css.path(&mut buf).unwrap_or(b"?"),
                None if slot.id == SlotId::Flush => b"(flush)",
                None => b"/",
            };
            let (state, idle_ms) = match slot.busy {
                true => ("busy", 0),
                false => ("idle", slot.idle_since.elapsed_ms()),
            };
            f.write_fmt(fmt!(
                "{} {state} waiting={} {} idle_ms={idle_ms}",
                BStr::from_bytes(path),
                slot.waiting,
                slot.report
            ))?;
            if slot.id == SlotId::Root {
                f.write_fmt(fmt!(" fallbacks={}", slot.fallbacks))?;
            }
            f.write_str("\n")?;
        }
        Ok(())
    }
}
