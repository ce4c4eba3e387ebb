#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Swap on a loop device: a cgroup with less memory than it uses gets its pages back unchanged, and
# no I/O waits for memory that only swapping can free.
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

CG=$CGROOT/loop_rs-swap

swap_used() {
	awk -v d="$1" '$1 == d { print $4 }' /proc/swaps
}

undo() {
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
	dd if=/dev/zero of="$T/fs/swap" bs=1M count=32 2>/dev/null
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

test_begin 2
LIB_CGROUPS+=("$CG")
need_driver

check "swap over ext4" swaps ext4
check "swap over ext4, backing I/O direct" swaps ext4 --direct-io=on

test_end
