#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A freeze of the queue of the disk below, or of the loop device, does not hang and takes no longer
# than the I/O in service. Bios that are not in service are served after the freeze, with the file,
# offset and limits that the device has then.
#
#   RACE_SECONDS  how long each race takes (default 8, or 80 on the debug kernel)
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"
. "$LIB_DIR/edges.sh"

LENGTH=${RACE_SECONDS:-$((8 * SLOW))}
PARENT=$CGROOT/loop_rs-freeze
LINEAR=loop_rs-linear
EXTENTS=8192

# io.max of the throttled cgroup in I/Os per second, and its number of I/Os in flight.
RATE=$((128 / (SLOW > 8 ? 8 : SLOW)))
COUNT=3000

#
# The disk below
#

# race DISK: tasks submit batches of reads of the loop device and one read of DISK, while the job
# $FREEZE freezes DISK repeatedly and counts that in $T/freezes. A task that sleeps for metadata
# must hold no request of DISK: the task and the freeze would wait for each other.
race() {
	local i pids=()

	# Not too often: while the metadata is cached, the offload policy chooses inline issue.
	"$EDGES" drop-caches "$1" $((1000 * SLOW)) &
	FORGET=$!
	trap 'kill $FORGET $FREEZE 2>/dev/null || true' EXIT
	for i in aio uring; do
		within $((LENGTH + 30 * SLOW)) "$EDGES" batch "$LOOP" $EXTENTS 7 "$1" "$LENGTH" $i \
			>"$T/batches.$i" 2>&1 &
		pids+=($!)
	done
	for i in "${pids[@]}"; do
		wait "$i" || fail "a task failed: $(head -n 100 "$T"/batches.*)"
	done
	kill $FORGET "$FREEZE"
	within 20 wait_gone "$FREEZE"
	echo "batches: $(xargs <"$T/batches.aio"), io_uring $(xargs <"$T/batches.uring");" \
		"freezes: $(tail -n 1 "$T/freezes")"
	want_ge "freezes" "$(tail -n 1 "$T/freezes")" 10
	detach
	umount "$T/cold"
}

wait_gone() {
	while [ -d "/proc/$1" ]; do
		sleep 0.1
	done
}

change_depth() {
	local n=0

	while echo 32 >/sys/block/nullb0/queue/nr_requests; do
		echo 64 >/sys/block/nullb0/queue/nr_requests
		n=$((n + 2))
		echo $n >>"$T/freezes"
		sleep 0.03
	done
}

below() {
	null_disk
	cold_file /dev/nullb0 $EXTENTS
	change_depth &
	FREEZE=$!
	race /dev/nullb0
	modprobe -r null_blk
}

below_dm() {
	null_disk
	dm_create $LINEAR "0 $((512 * 2048)) linear /dev/nullb0 0"
	cold_file /dev/mapper/$LINEAR $EXTENTS
	"$EDGES" suspend $LINEAR >"$T/freezes" &
	FREEZE=$!
	race /dev/mapper/$LINEAR
	dm_remove $LINEAR
	modprobe -r null_blk
}

#
# The loop device itself
#

set_up() {
	need_scratch
	[ -z "$(cg_missing)" ] || skip "$(cg_missing)"
	DISK=$(<"/sys/class/block/${SCRATCH_DEV#/dev/}/dev")
	if [ ! -e "$T/fs/file" ]; then
		scratch_fs ext4 "$T/fs"
		pattern $((64 * MIB)) "$T/fs/file" 7
		pattern $((64 * MIB)) "$T/fs/other" 8
		sync -f "$T/fs"
	fi
	# A new file for each case that writes.
	[ "${1:-}" != write ] || pattern $((64 * MIB)) "$T/fs/written" 7
	mkdir "$PARENT"
	cg_limit_io "$PARENT" "$DISK" "riops=$RATE wiops=$RATE"
	trap release_io EXIT
}

unlimit() {
	echo "$DISK riops=max wiops=max" >"$PARENT/io.max"
}

# Releases throttled I/O, also after a failure.
release_io() {
	unlimit || true
	echo 1 >"$PARENT/cgroup.kill" || true
	wait
	cg_remove "$PARENT"
} 2>/dev/null

# in_time COMMAND...: a command that freezes the queue takes at most 1.5 times as long as with
# loop.ko, which has as many I/Os in flight as there are tags, plus some time to start.
in_time() {
	local start took

	start=$(now_ms)
	"$@"
	took=$(($(now_ms) - start))
	echo "$took ms: $*"
	want_le "milliseconds that it took: $*" $took $((TAGS * 1500 / RATE + 4000 * SLOW))
}

set_depth() {
	echo "$1" >"/sys/block/$L/queue/nr_requests"
}

takes() {
	set_up write
	attach --direct-io=on "$T/fs/written"
	flood "$PARENT" write $((4 * MIB)) $COUNT 4096 1
	in_time set_depth 64
	in_time set_depth $TAGS
	in_time losetup --direct-io=off "$LOOP"
	# Reads of other cgroups continue.
	in_time dd if="$LOOP" of="$T/out" bs=4k count=16 iflag=direct status=none
	unlimit
	flood_ends
	want "writes that went well" "$(flooded 0)" $COUNT
	sync "$LOOP"
	want "blocks in the file" \
		"$("$EDGES" placed "$T/fs/written" $((4 * MIB)) $COUNT 4096 1 0)" "$COUNT none 0"
	cmp -n 65536 "$T/out" "$T/fs/file"
	detach
	cg_remove "$PARENT"
}

# not_all N: N of the I/Os in flight were served after the freeze. With loop.ko N is 0.
not_all() {
	[ "$DRIVER" = loop ] || want_ge "I/Os after the freeze" "$1" $((COUNT / 2))
}

change_fd() {
	set_up
	attach --read-only --direct-io="$1" "$T/fs/file"
	flood "$PARENT" read 0 $COUNT 8192 7 8
	in_time "$EDGES" change-fd "$LOOP" "$T/fs/other"
	unlimit
	flood_ends
	want "failed" "$(flooded 3)" 0
	want "wrong" "$(flooded 5)" 0
	want_ge "reads of the first file" "$(flooded 0)" 1
	not_all "$(flooded 1)"
	detach
	cg_remove "$PARENT"
}

moved() {
	local shift=$((32 * MIB)) found

	set_up write
	attach --direct-io=on --sizelimit $((16 * MIB)) "$T/fs/written"
	flood "$PARENT" write 0 $COUNT 4096 3
	in_time "$EDGES" set-status "$LOOP" $shift $((16 * MIB))
	unlimit
	flood_ends
	want "writes that went well" "$(flooded 0)" $COUNT
	sync "$LOOP"
	detach
	read -ra found < <("$EDGES" placed "$T/fs/written" 0 $COUNT 4096 3 0 $shift)
	echo "${found[*]}"
	want "writes that are at neither place" "${found[3]}" 0
	want_ge "writes at the first place" "${found[0]}" 1
	not_all "${found[1]}"
	# All other blocks are unchanged.
	cmp -n $((shift - COUNT * 4096)) -i $((COUNT * 4096)) "$T/fs/file" "$T/fs/written"
	cmp -i $((shift + COUNT * 4096)) "$T/fs/file" "$T/fs/written"
	cg_remove "$PARENT"
}

# Bios beyond the new end of the device fail, unless they were in service at the freeze.
shrunk() {
	local found beyond

	set_up write
	attach --direct-io=on --sizelimit $((16 * MIB)) "$T/fs/written"
	flood "$PARENT" write 0 $COUNT 4096 3
	in_time "$EDGES" set-status "$LOOP" 0 $MIB
	beyond=$("$EDGES" placed "$T/fs/written" $MIB $((COUNT - 256)) 4096 3 0)
	unlimit
	flood_ends
	detach
	found=$("$EDGES" placed "$T/fs/written" $MIB $((COUNT - 256)) 4096 3 0)
	echo "beyond the end: ${beyond%% *}, and in the end ${found%% *}"
	want "blocks beyond the end" "${found%% *}" "${beyond%% *}"
	cg_remove "$PARENT"
}

block_size() {
	set_up
	attach --direct-io=on "$T/fs/file"
	flood "$PARENT" read 0 $COUNT 512 7
	in_time "$EDGES" block-size "$LOOP" 4096
	unlimit
	flood_ends
	want "wrong" "$(flooded 4)" 0
	want_ge "reads that went well" "$(flooded 0)" 1
	# I/O within the new size works.
	dd if="$LOOP" of="$T/out" bs=4k count=16 iflag=direct status=none
	cmp -n 65536 "$T/out" "$T/fs/file"
	detach
	cg_remove "$PARENT"
}

test_begin 7
LIB_CGROUPS+=("$PARENT")
LIB_DMS+=("$LINEAR")
mkdir "$T/fs" "$T/cold"
need_driver

check "nr_requests and direct I/O off with thousands in flight" takes
check "LOOP_CHANGE_FD with thousands in flight" change_fd on
check "another offset with thousands in flight" moved
check "a smaller device with thousands in flight" shrunk
check "another block size with thousands in flight" block_size
check "freezing the disk below while metadata is not cached" below
check "suspending a device-mapper device below" below_dm

! mountpoint -q "$T/fs" || umount "$T/fs"
test_end
