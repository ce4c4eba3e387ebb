// SPDX-License-Identifier: GPL-2.0

//! Multi-queue block drivers whose requests carry private data.
//!
//! A request has one owner at a time. [`Operations::queue_rq`] hands it to the driver as a
//! [`Request`], a value that cannot be copied. It moves through the driver's [lists](TransferList)
//! to whoever completes it, or to a backing file, which hands it back through
//! [`Operations::io_complete`]. Nobody else can access it. A [`Request`] that is dropped is
//! completed with an I/O error.
//!
//! C header: [`include/linux/blk-mq.h`](srctree/include/linux/blk-mq.h)

mod bdev_io;
mod bio;
mod bio_range;
mod detached;
mod detached_io;
mod io_trace;
mod kiocb;
mod list;
mod operations;
mod page_wait;
mod raw;
mod request;
mod tag_set;
mod transfer;

pub use detached::{Detached, DetachedBios};
pub use detached_io::{BoxedIo, DetachedIo, EnteredBios};
pub use kiocb::{IoFlags, Submitted};
pub use list::{IoList, TransferList};
pub use operations::Operations;
pub use page_wait::CacheRead;
pub use request::{Op, Request};
pub use tag_set::{TagSet, TagSetOptions};
pub use transfer::{Submit, Transfer};
