#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Backing I/O is charged to the cgroup of the request: io.max limits it, and io.stat counts it.
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"
. "$LIB_DIR/proofs.sh"

MISSING=$(cg_missing)
[ -n "$MISSING" ] || have_scratch || MISSING="SCRATCH_DEV is not a block device"
if [ -n "$MISSING" ]; then
	lib_ktap
	ktap_print_header
	ktap_skip_all "$MISSING"
	exit "$KSFT_SKIP"
fi

test_begin 4
LIB_CGROUPS+=("$CGROOT/loop_rs-held" "$CGROOT/loop_rs-free")
IO_DIR=$T/fs
scratch_fs ext4 "$IO_DIR"
need_driver
io_setup

# The devices stay attached between the cases, see io_held().
check "direct, backing I/O direct" io_held direct direct
check "buffered, backing I/O direct" io_held buffered direct
check "direct, backing I/O buffered" io_held direct buffered
check "buffered, backing I/O buffered" io_held buffered buffered

losetup -D
wait_for 10 nothing_bound
io_teardown
umount "$IO_DIR"
test_end
