#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The backing file is truncated under the device: data before the new end is read, reads beyond it
# fail with an I/O error, and nothing hangs.
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

MIB=1048576
LIMIT=$((30 * SLOW))

rd() {
	timeout $LIMIT dd if="$LOOP" of="$T/out" bs="$1" skip="$2" count="$3" \
		iflag=direct 2>"$T/dd" || { cat "$T/dd"; return 1; }
}

# cut_off TYPE [LOSETUP-OPTIONS...]
cut_off() {
	local fs=$1 file=$T/fs/file

	shift
	[ "$fs" = tmpfs ] || need_scratch
	scratch_fs "$fs" "$T/fs" "${SCRATCH_DEV:-}" 256M
	cp "$T/pattern" "$file"
	sync -f "$file"
	attach "$@" "$file"
	truncate -s $((4 * MIB)) "$file"

	# Before the end.
	rd 64k 0 64
	cmp -n $((4 * MIB)) "$T/out" "$T/pattern"
	# The last block, and the first block beyond the end.
	rd 4k 1023 1
	cmp -n 4096 -i 0:$((1023 * 4096)) "$T/out" "$T/pattern"
	want_error "Input/output error" rd 4k 1024 1
	want_error "Input/output error" rd 1M 6 1
	# Across the end: an error, although a part of the data is there.
	want_error "Input/output error" rd $((3 * MIB)) 1 1
	# Through the page cache: the blocks before the end are read.
	blockdev --flushbufs "$LOOP"
	timeout $LIMIT dd if="$LOOP" of="$T/out" bs=4k 2>"$T/dd" &&
		fail "reading to the end succeeded"
	grep -q "Input/output error" "$T/dd"
	want "bytes read in front of the end" "$(stat -c %s "$T/out")" $((4 * MIB))
	cmp -n $((4 * MIB)) "$T/out" "$T/pattern"
	detach
	umount "$T/fs"
}

# The file ends within a sector: reads of that sector and of later sectors fail; the sector before
# it can be read.
inside_sector() {
	skip_on_c "it fills the sector with repetitions of the partial data"
	cp "$T/pattern" "$T/file"
	attach "$T/file"
	truncate -s $((4 * MIB + 700)) "$T/file"
	rd 512 8192 1
	cmp -n 512 -i 0:$((4 * MIB)) "$T/out" "$T/pattern"
	want_error "Input/output error" rd 512 8193 1
	want_error "Input/output error" rd 512 8194 1
	want_error "Input/output error" rd 4k 1024 1
	detach
}

# A write makes the file longer again, with a hole before the written data.
write_behind() {
	cp "$T/pattern" "$T/file"
	attach "$T/file"
	truncate -s $((4 * MIB)) "$T/file"
	timeout $LIMIT dd if="$T/pattern" of="$LOOP" bs=64k skip=96 seek=96 count=1 \
		conv=notrunc oflag=direct 2>/dev/null
	want "size" "$(stat -c %s "$T/file")" $((6 * MIB + 65536))
	rd 64k 96 1
	cmp -n 65536 -i 0:$((6 * MIB)) "$T/out" "$T/pattern"
	rd 64k 80 1
	cmp -n 65536 "$T/out" /dev/zero
	detach
}

# Truncated to zero while it is being read.
under_load() {
	local pid

	cp "$T/pattern" "$T/file"
	attach "$T/file"
	(
		while [ ! -e "$T/stop" ]; do
			dd if="$LOOP" of=/dev/null bs=128k iflag=direct \
				2>/dev/null || true
		done
	) &
	pid=$!
	sleep 0.3
	truncate -s 0 "$T/file"
	sleep 0.3
	: >"$T/stop"
	wait_for 10 ended $pid || fail "the reader hangs"
	want_error "Input/output error" rd 4k 0 1
	detach
}

# A failed read must not leave earlier contents of memory in the buffer.
zeroed() {
	cp "$T/pattern" "$T/file"
	attach "$@" "$T/file"
	truncate -s $((4 * MIB)) "$T/file"
	"$LIB_DIR/loop_io" zeroed "$LOOP" $((6 * MIB)) 65536
	detach
}

# Many short reads in flight, most of them without a tag: each is continued, and fails.
short() {
	driver_unload
	driver_load max_loop=1 hw_queue_depth=16
	need_scratch
	scratch_fs ext4 "$T/fs" "$SCRATCH_DEV" 256M
	cp "$T/pattern" "$T/fs/file"
	sync -f "$T/fs/file"
	attach "$@" "$T/fs/file"
	truncate -s $((4 * MIB)) "$T/fs/file"
	within $LIMIT "$LIB_DIR/loop_io" short "$LOOP" $((4 * MIB - 4096)) 8192 256
	if [ -r "/sys/kernel/debug/loop_rs/$L/workers" ]; then
		want_ge "requests without a tag" "$(worker_stat "$L" / parked)" 64
	fi
	want "in flight in the end" "$(disk_stat "$L" 9)" 0
	detach
	umount "$T/fs"
}

ended() {
	! kill -0 "$1" 2>/dev/null
}

test_begin 11
pattern $((8 * MIB)) "$T/pattern" 7
need_driver

check "tmpfs" cut_off tmpfs
check "tmpfs, backing I/O direct" cut_off tmpfs --direct-io=on
check "ext4" cut_off ext4
check "ext4, backing I/O direct" cut_off ext4 --direct-io=on
check "an end inside of a sector" inside_sector
check "a write beyond the end" write_behind
check "truncated while it is being read" under_load
check "no stale data after a failed read" zeroed
check "no stale data after a failed read, backing I/O direct" zeroed --direct-io=on
check "many short reads" short
check "many short reads, backing I/O direct" short --direct-io=on

test_end
