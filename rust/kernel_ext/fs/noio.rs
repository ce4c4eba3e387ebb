// SPDX-License-Identifier: GPL-2.0

//! Page cache that is allocated without starting I/O.
//!
//! C header: [`include/linux/pagemap.h`](srctree/include/linux/pagemap.h)
//!
//! # Soundness
//!
//! | What safe code could try | What stops it |
//! | --- | --- |
//! | Have a mapping in two [`NoioMappings`] | Nothing; allocations may start I/O too early |
//! | Forget a [`NoioMapping`] | Nothing; file and mask stay as they are |

use super::BackingFile;
use crate::bindings;
use kernel::{
    fs::File,
    prelude::*,
    rbtree::{Entry, RBTree, RBTreeNodeReservation},
    sync::{
        aref::ARef,
        atomic::{atomic_load, atomic_store, Relaxed},
        new_mutex,
        Arc,
        Mutex, //
    },
};

/// The users of a mapping, and the bits that were cleared in its mask for them.
struct Users {
    count: usize,
    taken: bindings::gfp_t,
}

/// Address spaces whose page cache is allocated without starting I/O. A driver has one set, as the
/// mask of a mapping in two sets is restored when the first one releases it.
///
/// A mapping can have several users, in any order of adding and dropping.
#[pin_data]
pub struct NoioMappings {
    #[pin]
    users: Mutex<RBTree<usize, Users>>,
}

impl NoioMappings {
    /// Creates an empty set.
    pub fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            users <- new_mutex!(RBTree::new(), "NoioMappings"),
        })
    }

    /// Clears `__GFP_IO` and `__GFP_FS` in the mask of a file's mapping until the result is
    /// dropped. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`
    pub fn add(self: &Arc<Self>, file: ARef<BackingFile>) -> Result<NoioMapping> {
        let reservation = RBTreeNodeReservation::new(GFP_KERNEL)?;
        let mut users = self.users.lock();
        match users.entry(NoioMapping::key(&file)) {
            Entry::Occupied(mut users) => users.get_mut().count += 1,
            Entry::Vacant(vacant) => {
                let mask = NoioMapping::mask(&file);
                // SAFETY: The file is open. As for the C functions `mapping_gfp_mask` and
                // `mapping_set_gfp_mask`, readers see either value.
                let taken = unsafe {
                    let old = atomic_load(mask, Relaxed);
                    let taken = old & (bindings::__GFP_IO | bindings::__GFP_FS);
                    atomic_store(mask, old & !taken, Relaxed);
                    taken
                };
                vacant.insert(Users { count: 1, taken }, reservation);
            }
        }
        drop(users);
        Ok(NoioMapping {
            mappings: self.clone(),
            file,
        })
    }
}

/// A file whose mapping is in [`NoioMappings`]. Dropping it may sleep.
///
/// # Invariants
///
/// `mappings` counts this user.
pub struct NoioMapping {
    mappings: Arc<NoioMappings>,
    file: ARef<BackingFile>,
}

impl NoioMapping {
    /// The file whose mapping it is.
    pub fn file(&self) -> &ARef<BackingFile> {
        &self.file
    }

    fn mask(file: &File) -> *mut bindings::gfp_t {
        // SAFETY: An open file has a mapping.
        unsafe { &raw mut (*(*file.as_ptr()).f_mapping).gfp_mask }
    }

    /// Returns a number that no other mapping has while the file is open.
    fn key(file: &File) -> usize {
        Self::mask(file) as usize
    }
}

impl Drop for NoioMapping {
    fn drop(&mut self) {
        let mut users = self.mappings.users.lock();
        let Some(mut entry) = users.find_mut(&Self::key(&self.file)) else {
            return;
        };
        entry.get_mut().count -= 1;
        if entry.get().count == 0 {
            let taken = entry.get().taken;
            let mask = Self::mask(&self.file);
            // SAFETY: As in `NoioMappings::add`; the file is still open.
            unsafe { atomic_store(mask, atomic_load(mask, Relaxed) | taken, Relaxed) };
            drop(entry.remove_node());
        }
    }
}
