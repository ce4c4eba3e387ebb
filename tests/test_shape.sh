#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Requests of unusual shape (see io/shape.c): many segments at odd page offsets, several bios in a
# request, split requests. The test also checks that the block layer made such requests.
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

MIB=1048576

# shape FILE BACKING-MODE OFFSET [MAX-SECTORS-KB]
shape() {
	local file=$1 opts=() offset=$3 q seed=$RANDOM before

	[ "$2" = buffered ] || opts+=(--direct-io=on)
	pattern $((10 * MIB)) "$file" 3
	attach "${opts[@]}" --offset "$offset" "$file"
	want "dio" "$(<"/sys/block/$L/loop/dio")" \
		"$([ "$2" = buffered ] && echo 0 || echo 1)"
	q=/sys/block/$L/queue
	[ -z "${4:-}" ] || echo "$4" >"$q/max_sectors_kb"
	echo "seed $seed"
	before=$(disk_stat "$L" 5)
	"$LIB_DIR/loop_io" shape "$LOOP" "$file" "$offset" "$seed" "$ROUNDS"
	want_ge "merged reads" "$(disk_stat "$L" 2)" 50
	want_ge "merged writes" "$(disk_stat "$L" 6)" 50
	# The write of 4 MiB must have been split.
	[ -z "${4:-}" ] || want_ge "write requests" \
		$(($(disk_stat "$L" 5) - before)) $((4 * 1024 / $4))
	detach
	rm "$file"
}

on_tmpfs() {
	shape "$T/file" "$@"
}

on_disk() {
	need_scratch
	scratch_fs "$1" "$T/fs" "$SCRATCH_DEV" 512M
	shift
	shape "$T/fs/file" "$@"
	umount "$T/fs"
}

test_begin 7
need_driver
ROUNDS=25

check "tmpfs, buffered" on_tmpfs buffered 0
check "tmpfs, buffered, at an odd offset" on_tmpfs buffered 1234567
check "tmpfs, buffered, requests of at most 12 KiB" on_tmpfs buffered 0 12
check "tmpfs, direct" on_tmpfs direct 4096
check "ext4, direct" on_disk ext4 direct 0
check "ext4, direct, requests of at most 12 KiB" on_disk ext4 direct 8192 12
# xfs does I/O smaller than its block size synchronously.
MKFS_OPTIONS="-b size=1024"
ROUNDS=5
check "xfs, direct" on_disk xfs direct 0

test_end
