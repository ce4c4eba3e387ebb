// SPDX-License-Identifier: GPL-2.0
/*
 * The tracepoints, for trace.rs.
 */

#include "io_trace.h"

#define CREATE_TRACE_POINTS
#define CREATE_RUST_TRACE_POINTS
#include "loop_rs_events.h"

RUST_IO_TRACEPOINT(loop_rs_issue_inline)
RUST_IO_TRACEPOINT(loop_rs_issue_offloaded)
RUST_IO_TRACEPOINT(loop_rs_queue)
RUST_IO_TRACEPOINT(loop_rs_detach)
RUST_IO_TRACEPOINT(loop_rs_resume)
RUST_IO_TRACEPOINT(loop_rs_worker_begin)
RUST_IO_TRACEPOINT(loop_rs_worker_end)
RUST_IO_TRACEPOINT(loop_rs_complete)
