#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# io_uring on a loop device: verified data with direct and buffered I/O. A ring for polled I/O is
# refused, since a loop device has none, and the device works afterwards.
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

MIB=1048576

need_uring() {
	[ -e /proc/sys/kernel/io_uring_disabled ] || skip "no io_uring in this kernel"
	[ "$(</proc/sys/kernel/io_uring_disabled)" -eq 0 ] || skip "io_uring is disabled"
}

# verified DIRECT FIO-OPTIONS...
verified() {
	local direct=$1

	shift
	fio --output="$T/fio" --name=j --filename="$LOOP" --rw=randrw --bsrange=512-64k --size=2M \
		--ioengine=io_uring --direct="$direct" --iodepth=64 --iodepth_batch_submit=16 \
		--verify=crc32c --verify_fatal=1 --verify_state_save=0 "$@" ||
		{ tail -n 20 "$T/fio"; fail "fio $*"; }
}

# data BACKING-MODE
data() {
	need_uring
	need_scratch
	scratch_fs ext4 "$T/fs"
	pattern $((4 * MIB)) "$T/fs/file" 1
	sync -f "$T/fs/file"
	attach --direct-io="$1" "$T/fs/file"
	verified 1
	verified 0 --end_fsync=1
	# Registered buffers and files, and a kernel thread that submits (SQPOLL).
	verified 1 --fixedbufs --registerfiles --sqthread_poll --size=256k
	want_ge "writes" "$(disk_stat "$L" 5)" 40
	blockdev --flushbufs "$LOOP"
	cmp "$LOOP" "$T/fs/file"
	! cmp -s <("$LIB_DIR/loop_io" pattern /dev/stdout 4096 1) "$T/fs/file" || fail "nothing was written"
	detach
	umount "$T/fs"
}

# RWF_HIPRI is ignored, as on any device without polling; IORING_SETUP_IOPOLL is refused.
polled() {
	local dio out

	need_uring
	need_scratch
	scratch_fs ext4 "$T/fs"
	pattern $((4 * MIB)) "$T/fs/file" 1
	sync -f "$T/fs/file"
	for dio in off on; do
		attach --direct-io=$dio "$T/fs/file"
		out=$(within 20 "$LIB_DIR/loop_io" poll "$LOOP" | xargs)
		want "polled reads, backing I/O direct: $dio" "$out" \
			"hipri 4096 ring 4096 iopoll EOPNOTSUPP"
		cmp "$LOOP" "$T/fs/file"
		want "in flight" "$(disk_stat "$L" 9)" 0
		detach
	done
	umount "$T/fs"
}

test_begin 3
need_driver

check "io_uring, verified, backing I/O buffered" data off
check "io_uring, verified, backing I/O direct" data on
check "a ring for polled I/O is refused, RWF_HIPRI ignored" polled

test_end
