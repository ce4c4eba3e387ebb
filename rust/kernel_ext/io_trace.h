/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tracepoints about I/O, for Rust: see tracepoint.rs.
 */
#ifndef KERNEL_EXT_IO_TRACE_H
#define KERNEL_EXT_IO_TRACE_H

#include <linux/blkdev.h>

/* A description of I/O, which lasts for the call of the tracepoint. */
struct rust_io_trace {
	/* The whole disk. */
	dev_t	dev;
	char	disk[DISK_NAME_LEN];
	/* cgroup_id() of the cgroup that the first bio is charged to; 0 if there is none. */
	u64	cgroup;
	/* What is left to transfer. */
	u64	sector;
	u32	bytes;
	/* REQ_OP_* */
	u32	op;
	/* Since the request was allocated; 0 if the block layer did not record that. */
	u64	age_ns;
	/* What the caller of the tracepoint passes. */
	s32	detail;
};

/*
 * Lets Rust call a tracepoint whose only argument is a struct rust_io_trace.  After the header of
 * the tracepoint was included with CREATE_TRACE_POINTS and CREATE_RUST_TRACE_POINTS.
 */
#define RUST_IO_TRACEPOINT(name)					\
	void rust_io_trace_##name(const struct rust_io_trace *io);	\
	void rust_io_trace_##name(const struct rust_io_trace *io)	\
	{								\
		rust_do_trace_##name(io);				\
	}

#endif
