/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The tracepoints of the driver, documented in loop_rs(4).  Names, fields and units are an
 * interface: fields may be added.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM loop_rs

#if !defined(_LOOP_RS_EVENTS_H) || defined(TRACE_HEADER_MULTI_READ)
#define _LOOP_RS_EVENTS_H

#include <linux/blk_types.h>
#include <linux/blkdev.h>
#include <linux/kdev_t.h>
#include <linux/tracepoint.h>

#include "io_trace.h"

TRACE_DEFINE_ENUM(REQ_OP_READ);
TRACE_DEFINE_ENUM(REQ_OP_WRITE);
TRACE_DEFINE_ENUM(REQ_OP_FLUSH);
TRACE_DEFINE_ENUM(REQ_OP_DISCARD);
TRACE_DEFINE_ENUM(REQ_OP_WRITE_ZEROES);

#define loop_rs_show_op(op)					\
	__print_symbolic(op,					\
		{ REQ_OP_READ,		"READ" },		\
		{ REQ_OP_WRITE,		"WRITE" },		\
		{ REQ_OP_FLUSH,		"FLUSH" },		\
		{ REQ_OP_DISCARD,	"DISCARD" },		\
		{ REQ_OP_WRITE_ZEROES,	"WRITE_ZEROES" })

/* The numbers of QueueReason in request_data.rs. */
#define loop_rs_show_reason(reason)				\
	__print_symbolic(reason,				\
		{ 0, "new" },					\
		{ 1, "offload" },				\
		{ 2, "eagain" },				\
		{ 3, "reclaimed" },				\
		{ 4, "offload_eagain" })

DECLARE_EVENT_CLASS(loop_rs_io,
	TP_PROTO(const struct rust_io_trace *io),
	TP_ARGS(io),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__array(char, disk, DISK_NAME_LEN)
		__field(u64, cgroup)
		__field(u64, sector)
		__field(u32, bytes)
		__field(u32, op)
	),
	TP_fast_assign(
		__entry->dev = io->dev;
		memcpy(__entry->disk, io->disk, DISK_NAME_LEN);
		__entry->cgroup = io->cgroup;
		__entry->sector = io->sector;
		__entry->bytes = io->bytes;
		__entry->op = io->op;
	),
	TP_printk("dev=%u:%u disk=%s cgroup=%llu op=%s sector=%llu bytes=%u",
		  MAJOR(__entry->dev), MINOR(__entry->dev), __entry->disk,
		  __entry->cgroup, loop_rs_show_op(__entry->op), __entry->sector,
		  __entry->bytes)
);

DECLARE_EVENT_CLASS(loop_rs_reason,
	TP_PROTO(const struct rust_io_trace *io),
	TP_ARGS(io),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__array(char, disk, DISK_NAME_LEN)
		__field(u64, cgroup)
		__field(u64, sector)
		__field(u32, bytes)
		__field(u32, op)
		__field(u32, reason)
	),
	TP_fast_assign(
		__entry->dev = io->dev;
		memcpy(__entry->disk, io->disk, DISK_NAME_LEN);
		__entry->cgroup = io->cgroup;
		__entry->sector = io->sector;
		__entry->bytes = io->bytes;
		__entry->op = io->op;
		__entry->reason = io->detail;
	),
	TP_printk("dev=%u:%u disk=%s cgroup=%llu op=%s sector=%llu bytes=%u reason=%s",
		  MAJOR(__entry->dev), MINOR(__entry->dev), __entry->disk,
		  __entry->cgroup, loop_rs_show_op(__entry->op), __entry->sector,
		  __entry->bytes, loop_rs_show_reason(__entry->reason))
);

/* The task that submitted a request issues it inline. */
DEFINE_EVENT(loop_rs_io, loop_rs_issue_inline,
	TP_PROTO(const struct rust_io_trace *io),
	TP_ARGS(io)
);

/* The worker issues an offloaded request, without waiting. */
DEFINE_EVENT(loop_rs_io, loop_rs_issue_offloaded,
	TP_PROTO(const struct rust_io_trace *io),
	TP_ARGS(io)
);

/* A request is queued for the worker of its cgroup, and keeps its tag. */
DEFINE_EVENT(loop_rs_reason, loop_rs_queue,
	TP_PROTO(const struct rust_io_trace *io),
	TP_ARGS(io)
);

/* The bios of a request were detached from their tag, and wait for the worker. */
DEFINE_EVENT(loop_rs_reason, loop_rs_detach,
	TP_PROTO(const struct rust_io_trace *io),
	TP_ARGS(io)
);

/* The worker takes detached bios to issue them. */
TRACE_EVENT(loop_rs_resume,
	TP_PROTO(const struct rust_io_trace *io),
	TP_ARGS(io),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__array(char, disk, DISK_NAME_LEN)
		__field(u64, cgroup)
		__field(u64, sector)
		__field(u32, bytes)
		__field(u32, op)
		__field(u64, age_ns)
	),
	TP_fast_assign(
		__entry->dev = io->dev;
		memcpy(__entry->disk, io->disk, DISK_NAME_LEN);
		__entry->cgroup = io->cgroup;
		__entry->sector = io->sector;
		__entry->bytes = io->bytes;
		__entry->op = io->op;
		__entry->age_ns = io->age_ns;
	),
	TP_printk("dev=%u:%u disk=%s cgroup=%llu op=%s sector=%llu bytes=%u age_ns=%llu",
		  MAJOR(__entry->dev), MINOR(__entry->dev), __entry->disk,
		  __entry->cgroup, loop_rs_show_op(__entry->op), __entry->sector,
		  __entry->bytes, __entry->age_ns)
);

/* The worker issues I/O by a call that may wait; what the cgroup has queued waits, too. */
DEFINE_EVENT(loop_rs_io, loop_rs_worker_begin,
	TP_PROTO(const struct rust_io_trace *io),
	TP_ARGS(io)
);

/* That call has returned. */
DEFINE_EVENT(loop_rs_io, loop_rs_worker_end,
	TP_PROTO(const struct rust_io_trace *io),
	TP_ARGS(io)
);

/* I/O completes. */
TRACE_EVENT(loop_rs_complete,
	TP_PROTO(const struct rust_io_trace *io),
	TP_ARGS(io),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__array(char, disk, DISK_NAME_LEN)
		__field(u64, cgroup)
		__field(u64, sector)
		__field(u32, bytes)
		__field(u32, op)
		__field(int, error)
		__field(u64, latency_ns)
	),
	TP_fast_assign(
		__entry->dev = io->dev;
		memcpy(__entry->disk, io->disk, DISK_NAME_LEN);
		__entry->cgroup = io->cgroup;
		__entry->sector = io->sector;
		__entry->bytes = io->bytes;
		__entry->op = io->op;
		__entry->error = blk_status_to_errno((__force blk_status_t)io->detail);
		__entry->latency_ns = io->age_ns;
	),
	TP_printk("dev=%u:%u disk=%s cgroup=%llu op=%s sector=%llu bytes=%u error=%d latency_ns=%llu",
		  MAJOR(__entry->dev), MINOR(__entry->dev), __entry->disk,
		  __entry->cgroup, loop_rs_show_op(__entry->op), __entry->sector,
		  __entry->bytes, __entry->error, __entry->latency_ns)
);

#endif

/* Outside of the guard: it is read several times. */
#undef TRACE_INCLUDE_PATH
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_PATH .
#define TRACE_INCLUDE_FILE loop_rs_events
#include <trace/define_trace.h>
