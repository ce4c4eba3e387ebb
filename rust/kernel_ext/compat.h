/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Restricts the build to kernel series whose behaviour was reviewed.  Differences in interfaces are
 * detected by compat_probes and handled in compat.rs.
 */
#ifndef KERNEL_EXT_COMPAT_H
#define KERNEL_EXT_COMPAT_H

#include <linux/version.h>

/*
 * Read these in block/ of a new series before it is added here:
 *
 *  - blk_account_io_start() and blk_account_io_done() count a request in the in_flight of its
 *    part, and bdev_end_io_acct() undoes that for detached bios;
 *  - blk_freeze_queue_start() and blk_mq_unfreeze_queue(): mq_freeze_depth, mq_freeze_wq and the
 *    barriers around them, for blk_wait_unfrozen();
 *  - blk_update_request() and blk_steal_bios(): what a request keeps of bios that left it;
 *  - bio_endio() and the flags of a bio that it passes on.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(7, 2, 0) || LINUX_VERSION_CODE >= KERNEL_VERSION(7, 4, 0)
#error "loop_rs was not checked with this series of the kernel: see the comment above"
#endif

#endif
