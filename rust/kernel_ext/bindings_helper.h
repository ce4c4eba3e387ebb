/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Declarations that the kernel crate's bindings do not have: see bindgen_parameters
 * for how the list is kept to that.
 */

#include "compat.h"
#include "io_trace.h"

#include <linux/backing-dev.h>
#include <linux/blk-cgroup.h>
#include <linux/blk-mq.h>
#include <linux/blkdev.h>
#include <linux/compat.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/iomap.h>
#include <linux/kthread.h>
#include <linux/memcontrol.h>
#include <linux/sched/mm.h>
#include <linux/statfs.h>
#include <linux/uio.h>
#include <uapi/linux/loop.h>

/* Constants that bindgen cannot see through a cast. */
const u32 RUST_CONST_HELPER_BLK_FEAT_WRITE_CACHE = (__force u32)BLK_FEAT_WRITE_CACHE;
const u32 RUST_CONST_HELPER_BLK_FEAT_FUA = (__force u32)BLK_FEAT_FUA;
/* bindgen does not see it in each configuration. */
const u32 RUST_CONST_HELPER_MAX_LOGICAL_BLOCK_SIZE = BLK_MAX_BLOCK_SIZE;
const u32 RUST_CONST_HELPER_BLK_OPEN_WRITE = (__force u32)BLK_OPEN_WRITE;
const u32 RUST_CONST_HELPER_BLK_OPEN_EXCL = (__force u32)BLK_OPEN_EXCL;
const blk_status_t RUST_CONST_HELPER_BLK_STS_NOTSUPP = BLK_STS_NOTSUPP;
const blk_status_t RUST_CONST_HELPER_BLK_STS_IOERR = BLK_STS_IOERR;
const blk_status_t RUST_CONST_HELPER_BLK_STS_NOSPC = BLK_STS_NOSPC;
const blk_status_t RUST_CONST_HELPER_BLK_STS_TIMEOUT = BLK_STS_TIMEOUT;
const blk_status_t RUST_CONST_HELPER_BLK_STS_MEDIUM = BLK_STS_MEDIUM;
const blk_status_t RUST_CONST_HELPER_BLK_STS_PROTECTION = BLK_STS_PROTECTION;
const blk_status_t RUST_CONST_HELPER_BLK_STS_TARGET = BLK_STS_TARGET;
const blk_status_t RUST_CONST_HELPER_BLK_STS_TRANSPORT = BLK_STS_TRANSPORT;
const blk_status_t RUST_CONST_HELPER_BLK_STS_RESV_CONFLICT = BLK_STS_RESV_CONFLICT;
const blk_status_t RUST_CONST_HELPER_BLK_STS_RESOURCE = BLK_STS_RESOURCE;
const blk_status_t RUST_CONST_HELPER_BLK_STS_AGAIN = BLK_STS_AGAIN;
const u32 RUST_CONST_HELPER_FMODE_WRITE = (__force u32)FMODE_WRITE;
const u32 RUST_CONST_HELPER_FMODE_CAN_ODIRECT = (__force u32)FMODE_CAN_ODIRECT;
const u32 RUST_CONST_HELPER_FMODE_NOWAIT = (__force u32)FMODE_NOWAIT;
const u32 RUST_CONST_HELPER_FOP_BUFFER_RASYNC = (__force u32)FOP_BUFFER_RASYNC;
const u32 RUST_CONST_HELPER_FOP_BUFFER_WASYNC = (__force u32)FOP_BUFFER_WASYNC;
const gfp_t RUST_CONST_HELPER___GFP_IO = __GFP_IO;
const gfp_t RUST_CONST_HELPER___GFP_FS = __GFP_FS;
const gfp_t RUST_CONST_HELPER___GFP_NORETRY = __GFP_NORETRY;
const u32 RUST_CONST_HELPER_IOCB_DSYNC = (__force u32)IOCB_DSYNC;
const u32 RUST_CONST_HELPER_IOCB_NOWAIT = (__force u32)IOCB_NOWAIT;
const u32 RUST_CONST_HELPER_THREAD_SIZE = THREAD_SIZE;
const u32 RUST_CONST_HELPER_REQ_META = (__force u32)REQ_META;
const u32 RUST_CONST_HELPER_REQ_PRIO = (__force u32)REQ_PRIO;
const u32 RUST_CONST_HELPER_REQ_RAHEAD = (__force u32)REQ_RAHEAD;
const u32 RUST_CONST_HELPER_RQF_STATS = (__force u32)RQF_STATS;
const u32 RUST_CONST_HELPER_RQF_USE_SCHED = (__force u32)RQF_USE_SCHED;
const u32 RUST_CONST_HELPER_REQ_DRV = (__force u32)REQ_DRV;
const u32 RUST_CONST_HELPER_REQ_FUA = (__force u32)REQ_FUA;
const u32 RUST_CONST_HELPER_RQF_FLUSH_SEQ = (__force u32)RQF_FLUSH_SEQ;
const u32 RUST_CONST_HELPER_RQF_IO_STAT = (__force u32)RQF_IO_STAT;
const u32 RUST_CONST_HELPER_RQF_SPECIAL_PAYLOAD = (__force u32)RQF_SPECIAL_PAYLOAD;
const u32 RUST_CONST_HELPER_REQ_NOWAIT = (__force u32)REQ_NOWAIT;
const u32 RUST_CONST_HELPER_REQ_SWAP = (__force u32)REQ_SWAP;
const u32 RUST_CONST_HELPER_REQ_NOUNMAP = (__force u32)REQ_NOUNMAP;
const u32 RUST_CONST_HELPER_REQ_OP_MASK = (__force u32)REQ_OP_MASK;

/* The driver's own in a kernel tree; out of one, the C driver's. */
#ifdef CONFIG_BLK_DEV_LOOP_RS_MIN_COUNT
const int RUST_CONST_HELPER_LOOP_MIN_COUNT = CONFIG_BLK_DEV_LOOP_RS_MIN_COUNT;
#else
const int RUST_CONST_HELPER_LOOP_MIN_COUNT = CONFIG_BLK_DEV_LOOP_MIN_COUNT;
#endif

/* As in the C driver, drivers/block/loop.c. */
struct compat_loop_info {
	compat_int_t	lo_number;
	compat_dev_t	lo_device;
	compat_ulong_t	lo_inode;
	compat_dev_t	lo_rdevice;
	compat_int_t	lo_offset;
	compat_int_t	lo_encrypt_type;
	compat_int_t	lo_encrypt_key_size;
	compat_int_t	lo_flags;
	char		lo_name[LO_NAME_SIZE];
	unsigned char	lo_encrypt_key[LO_KEY_SIZE];
	compat_ulong_t	lo_init[2];
	char		reserved[4];
};
