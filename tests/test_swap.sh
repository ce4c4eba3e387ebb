#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Swap on a loop device: a cgroup with less memory than it uses gets its pages back unchanged, and
# no I/O waits for memory that only swapping can free.
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

CG=$CGROOT/loop_rs-swap
STUCK=$CGROOT/loop_rs-swap-stuck

swap_used() {
	awk -v d="$1" '$1 == d { print $4 }' /proc/swaps
}

undo() {
	cg_remove "$STUCK"
	cg_remove "$CG"
	swapoff "$LOOP" 2>/dev/null || :
}

# swaps FS [LOSETUP-OPTIONS...]
swaps() {
	local reason

	reason=$(cg_missing)
	[ -z "$reason" ] || skip "$reason"
	need_scratch
	scratch_fs "$1" "$T/fs" "$SCRATCH_DEV" 256M
	shift
	dd if=/dev/zero of="$T/fs/swap" bs=1M count=32 conv=fsync 2>/dev/null
	dd if="$T/fs/swap" iflag=nocache count=0 2>/dev/null
	attach "$@" "$T/fs/swap"
	trap undo EXIT
	mkswap "$LOOP"
	swapon "$LOOP"
	want_error "busy" losetup --sector-size 4096 "$LOOP"
	mkdir "$CG"
	echo 8M >"$CG/memory.max"
	cg_run "$CG" "$LIB_DIR/loop_io" memory 20 "$T/ready" "$T/go" >"$T/out" 2>&1 &
	pid=$!
	wait_for 60 test -e "$T/ready"
	want_ge "KiB of swap in use" "$(swap_used "$LOOP")" $((10 * 1024))
	want_ge "sectors written" "$(disk_stat "$L" 7)" $((10 * 2048))
	# Swapped memory is not in the page cache of the file.
	[ "$DRIVER" = loop ] || want_le "cached pages" "$(fincore -nro PAGES "$T/fs/swap")" 64
	: >"$T/go"
	wait $pid || { cat "$T/out"; fail "the memory has changed"; }
	want "oom_kill" "$(cg_stat "$CG" memory.events oom_kill)" 0
	want_ge "sectors read" "$(disk_stat "$L" 3)" $((10 * 2048))
	rm "$T/ready" "$T/go"

	# swapoff reads the pages back into a cgroup that has room for them now.
	cg_run "$CG" "$LIB_DIR/loop_io" memory 20 "$T/ready" "$T/go" >"$T/out" 2>&1 &
	pid=$!
	wait_for 60 test -e "$T/ready"
	echo max >"$CG/memory.max"
	swapoff "$LOOP"
	: >"$T/go"
	wait $pid || { cat "$T/out"; fail "the memory has changed"; }
	rm "$T/ready" "$T/go"
	want "swaps" "$(swap_used "$LOOP")" ""
	cg_remove "$CG"
	detach
	trap - EXIT
	umount "$T/fs"
}

# A stuck read of another cgroup does not hold up swapping.
beside_stuck() {
	local disk reader pid rc=0

	[ -z "$(cg_missing)" ] || skip "$(cg_missing)"
	need_scratch
	disk=$(<"/sys/class/block/${SCRATCH_DEV#/dev/}/dev")
	scratch_fs ext4 "$T/fs" "$SCRATCH_DEV" 256M
	dd if=/dev/zero of="$T/fs/swap" bs=1M count=96 conv=fsync 2>/dev/null
	attach "$T/fs/swap"
	trap undo EXIT
	mkswap "$LOOP" $((64 << 10))
	swapon "$LOOP"
	mkdir "$CG" "$STUCK"
	echo 32M >"$CG/memory.max"
	echo 1 >/proc/sys/vm/drop_caches
	cg_limit_io "$STUCK" "$disk" rbps=1
	cg_run "$STUCK" dd if="$LOOP" of=/dev/null bs=4k count=1 skip=$((80 << 8)) iflag=direct \
		status=none &
	reader=$!
	wait_for 10 in_flight 1 || rc=1
	cg_run "$CG" "$LIB_DIR/loop_io" memory 64 "$T/ready" "$T/go" >"$T/out" 2>&1 &
	pid=$!
	wait_for 60 test -e "$T/ready" || rc=2
	kill -0 $reader || rc=3
	: >"$T/go"
	wait $pid || { cat "$T/out"; rc=4; }
	echo "$disk rbps=max" >"$STUCK/io.max"
	wait $reader || rc=5
	want "step that failed" $rc 0
	rm "$T/ready" "$T/go"
	undo
	detach
	trap - EXIT
	umount "$T/fs"
}

test_begin 3
LIB_CGROUPS+=("$CG" "$STUCK")
need_driver

check "swap over ext4" swaps ext4
check "swap over ext4, backing I/O direct" swaps ext4 --direct-io=on
check "swap beside a stuck read" beside_stuck

test_end
