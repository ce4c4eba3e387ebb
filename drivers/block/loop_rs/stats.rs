// SPDX-License-Identifier: GPL-2.0

//! What can be seen of a device's workers: `/sys/kernel/debug/loop_rs/loopN/workers`.
//!
//! A line for each cgroup that has a worker, the root first, and one for flushes, which are nobody's
//! alone: its path, whether the worker is busy,
//! how many requests wait for it, how many it has taken, how many tags the cgroup holds, and how many
//! of its requests were parked. The root's line ends with how many of its requests were another
//! cgroup's, for whose worker there was no memory.

use crate::worker::{Pool, SlotId};
use kernel::{
    debugfs::{Dir, File, Writer},
    fmt,
    prelude::*,
    str::BStr,
    sync::Arc,
};

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
        while let Some(slot) = self.0.report(after) {
            after = Some(slot.id);
            let path = match &slot.css {
                Some(css) => css.path(&mut buf).unwrap_or(b"?"),
                None if slot.id == SlotId::Flush => b"(flush)",
                None => b"/",
            };
            let state = if slot.busy { "busy" } else { "idle" };
            f.write_fmt(fmt!(
                "{} {state} {} {} {} {}",
                BStr::from_bytes(path),
                slot.waiting,
                slot.taken,
                slot.tags,
                slot.parked
            ))?;
            if slot.id == SlotId::Root {
                write!(f, " {}", slot.fallbacks)?;
            }
            f.write_str("\n")?;
        }
        Ok(())
    }
}
