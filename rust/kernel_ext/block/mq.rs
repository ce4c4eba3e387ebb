// SPDX-License-Identifier: GPL-2.0

//! Multi-queue block drivers whose requests carry private data.
//!
//! A request has one owner at a time. [`Operations::queue_rq`] hands it to the driver as a
//! [`Request`], a value that cannot be copied; from there it moves through the driver's
//! [lists](TransferList) to whoever ends it, or to a backing file, which hands it back through
//! [`Operations::io_complete`]. Who does not hold the [`Request`] cannot touch it, and a
//! [`Request`] that is dropped without having been ended is ended with an I/O error, so that
//! nothing waits for it forever.
//!
//! C header: [`include/linux/blk-mq.h`](srctree/include/linux/blk-mq.h)

mod bdev_io;
mod detached;
mod file_io;
mod list;
mod operations;
mod request;
mod tag_set;

pub use detached::{BoxedIo, Detached, DetachedBios, DetachedIo, EnteredBios};
pub use file_io::{IoFlags, Submit, Submitted, Transfer};
pub use list::{IoList, TransferList};
pub use operations::Operations;
pub use request::{Op, Request};
pub use tag_set::{TagSet, TagSetOptions};
