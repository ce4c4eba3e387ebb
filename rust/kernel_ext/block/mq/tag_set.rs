// SPDX-License-Identifier: GPL-2.0

//! Tag sets.
//!
//! # Soundness
//!
//! | What safe code could try | What stops it |
//! | --- | --- |
//! | Free a tag set in use | The disk owns it, and drops it after its removal |
//! | Use one for two disks | The disk takes it by value |
//! | Move it | It is pinned |
//! | Have private data that does not fit | Size and alignment are checked, when compiled |
//! | Ask for no tags, or for too many | blk-mq refuses, or gives fewer |

use super::{operations::OperationsVTable, request::Pdu, Operations};
use crate::bindings;
use core::marker::PhantomData;
use kernel::{error::to_result, prelude::*, sync::LockClassKey, types::Opaque};

/// Parameters of a [`TagSet`].
#[derive(Clone, Copy)]
pub struct TagSetOptions {
    /// Number of hardware queues.
    pub nr_hw_queues: u32,
    /// Number of requests that each hardware queue can have in flight.
    pub queue_depth: u32,
    /// [`Operations::queue_rq`] and [`Operations::commit_rqs`] may sleep (`BLK_MQ_F_BLOCKING`).
    pub blocking: bool,
    /// The driver issues I/O to other block devices (`BLK_MQ_F_STACKING`).
    pub stacking: bool,
    /// The queue starts without an I/O scheduler (`BLK_MQ_F_NO_SCHED_BY_DEFAULT`).
    pub no_scheduler: bool,
}

/// The requests of a driver instance.
///
/// Wraps the C `struct blk_mq_tag_set`.
///
/// # Invariants
///
/// `inner` is an allocated tag set whose requests each have room for a [`Pdu<T>`], initialised as
/// long as the request exists.
#[pin_data(PinnedDrop)]
pub struct TagSet<T: Operations> {
    #[pin]
    inner: Opaque<bindings::blk_mq_tag_set>,
    // The C code has one lock class for the SRCU of all tag sets, and one for the elevator locks of
    // all queues. Dispatch holds the SRCU while it enters the queue of a disk below, whose elevator
    // lock is held when that queue is frozen: lockdep would take the two disks for one.
    #[pin]
    srcu_class: LockClassKey,
    #[pin]
    elevator_class: LockClassKey,
    // Invariant in `T`: the private data of a subtype's requests has another type.
    _p: PhantomData<fn(T) -> T>,
}

// SAFETY: A tag set may be freed by another task than the one that allocated it, and the request
// data it holds is `Send`.
unsafe impl<T: Operations> Send for TagSet<T> {}
// SAFETY: There are no methods on a shared tag set.
unsafe impl<T: Operations> Sync for TagSet<T> {}

impl<T: Operations> TagSet<T> {
    /// Allocates a tag set. May sleep.
    ///
    /// Wraps the C function `blk_mq_alloc_tag_set`.
    pub fn new(options: TagSetOptions) -> impl PinInit<Self, Error> {
        // The block layer places private data right behind `struct request`.
        const {
            assert!(core::mem::align_of::<Pdu<T>>() <= core::mem::align_of::<bindings::request>());
            // With the request it must fit in what the block layer allocates at a time: 16 pages.
            assert!(core::mem::size_of::<Pdu<T>>() <= bindings::PAGE_SIZE);
        };
        let mut flags = 0;
        if options.blocking {
            flags |= bindings::BLK_MQ_F_BLOCKING;
        }
        if options.stacking {
            flags |= bindings::BLK_MQ_F_STACKING;
        }
        if options.no_scheduler {
            flags |= bindings::BLK_MQ_F_NO_SCHED_BY_DEFAULT;
        }
        try_pin_init!(Self {
            inner <- Opaque::try_ffi_init(move |slot: *mut bindings::blk_mq_tag_set| {
                // SAFETY: `slot` is valid for writes.
                unsafe {
                    slot.write(bindings::blk_mq_tag_set {
                        ops: OperationsVTable::<T>::build(),
                        nr_hw_queues: options.nr_hw_queues,
                        queue_depth: options.queue_depth,
                        numa_node: bindings::NUMA_NO_NODE,
                        cmd_size: core::mem::size_of::<Pdu<T>>() as u32,
                        flags,
                        ..pin_init::zeroed()
                    })
                };
                // INVARIANT: `cmd_size` above makes room for the private data, which the
                // `init_request` callback initialises.
                //
                // SAFETY: `slot` holds a tag set with all that the caller must provide.
                to_result(unsafe { bindings::blk_mq_alloc_tag_set(slot) })
            }),
            srcu_class <- LockClassKey::new_dynamic(),
            elevator_class <- LockClassKey::new_dynamic(),
            _p: PhantomData,
        }? Error)
    }

    /// Gives the disk's locks classes of their own.
    ///
    /// # Safety
    ///
    /// `disk` was allocated with this tag set, and is not added yet. Its elevator lock is not taken
    /// any more when the tag set is dropped.
    pub(crate) unsafe fn set_lock_classes(&self, disk: *mut bindings::gendisk) {
        // SAFETY: By the requirements of this function nobody holds the locks. The keys are
        // registered. The SRCU is freed before `srcu_class` is dropped.
        unsafe {
            bindings::blk_mq_set_lock_classes(
                (*disk).queue,
                self.srcu_class.as_ptr(),
                self.elevator_class.as_ptr(),
            )
        }
    }

    pub(crate) fn as_raw(&self) -> *mut bindings::blk_mq_tag_set {
        self.inner.get()
    }
}

#[pinned_drop]
impl<T: Operations> PinnedDrop for TagSet<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant the tag set is allocated. A disk that uses it owns it, and
        // drops it after its removal.
        unsafe { bindings::blk_mq_free_tag_set(self.inner.get()) };
    }
}
