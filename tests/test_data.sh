#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Data integrity: fio writes and verifies random blocks of mixed sizes, through
# the page cache of the loop device and past it, on whole files and on windows of
# them, all four at once; then the device and its backing file are compared, and
# what is outside the window must be as it was.
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

MIB=1048576
SIZE=$((3 * MIB / 2))

# compare_range DEVICE FILE OFFSET
compare_range() {
	cmp -n "$SIZE" -i "0:$3" "$1" "$2" ||
		fail "$1 and $2 from $3 on differ"
}

# verify BACKING-MODE OFFSET FILE...: four files of SIZE and two MiB.
verify() {
	local mode=$1 offset=$2 opts=() devs=() jobs=() f i off

	shift 2
	[ "$mode" = buffered ] || opts+=(--direct-io=on)
	i=0
	for f in "$@"; do
		# The second half of the files get a window.
		if [ $i -lt 2 ]; then
			attach "${opts[@]}" "$f"
		else
			attach "${opts[@]}" --offset "$offset" \
			       --sizelimit "$SIZE" "$f"
			want "size of the window" \
				"$(blockdev --getsize64 "$LOOP")" "$SIZE"
		fi
		want "dio" "$(cat "/sys/block/$L/loop/dio")" \
			"$([ "$mode" = buffered ] && echo 0 || echo 1)"
		devs+=("$LOOP")
		if [ $((i % 2)) -eq 0 ]; then
			jobs+=(--name="j$i" --filename="$LOOP" --direct=1
			       --ioengine=libaio --iodepth=16
			       --bsrange=512-128k)
		else
			jobs+=(--name="j$i" --filename="$LOOP" --direct=0
			       --ioengine=psync --bsrange=1k-128k
			       --end_fsync=1)
		fi
		i=$((i + 1))
	done
	fio --output="$T/fio" --size="$SIZE" --rw=randwrite --thread \
	    --randrepeat=0 --verify=crc32c --do_verify=1 --verify_fatal=1 \
	    --verify_interval=512 --fallocate=none "${jobs[@]}" ||
		{ tail -n 40 "$T/fio"; fail "fio"; }
	i=0
	for f in "$@"; do
		off=0
		[ $i -lt 2 ] || off=$offset
		# As the page cache of the device has it, then as a reader who has
		# to ask the driver gets it.
		compare_range "${devs[i]}" "$f" "$off"
		blockdev --flushbufs "${devs[i]}"
		compare_range "${devs[i]}" "$f" "$off"
		if [ "$off" -gt 0 ]; then
			cmp -n "$off" "$f" "$T/pattern" ||
				fail "before the window"
			cmp -n 8192 -i $((off + SIZE)) "$f" "$T/pattern" ||
				fail "behind the window"
		fi
		want "fio wrote nothing" \
			"$(cmp -s -n 65536 -i "$off" "$f" "$T/pattern" || echo differs)" \
			differs
		i=$((i + 1))
	done
	for f in "${devs[@]}"; do
		detach "$f"
	done
}

# on_fs TYPE BACKING-MODE
on_fs() {
	local dir=$T/$1 i offset=$((MIB + 523))

	[ "$1" = tmpfs ] || need_scratch
	# Direct I/O needs aligned windows; without it any byte will do.
	[ "$2" = buffered ] || offset=$((MIB + 8192))
	scratch_fs "$1" "$dir" "${SCRATCH_DEV:-}" 512M
	for i in 0 1 2 3; do
		cp "$T/pattern" "$dir/$i"
	done
	verify "$2" "$offset" "$dir/0" "$dir/1" "$dir/2" "$dir/3"
	umount "$dir"
}

# A block device under it: the same, with ranges of one device as the files.
on_bdev() {
	local i names=()

	need_scratch
	for i in 0 1 2 3; do
		dm_create "loop_rs-data$i" \
			"0 $(((SIZE + 2 * MIB) / 512)) linear $SCRATCH_DEV $((i * 65536))"
		dd if="$T/pattern" of="/dev/mapper/loop_rs-data$i" bs=1M \
			oflag=direct 2>/dev/null
		names+=("/dev/mapper/loop_rs-data$i")
	done
	verify "$1" $((MIB + 8192)) "${names[@]}"
	for i in 0 1 2 3; do
		dm_remove "loop_rs-data$i"
	done
}

test_begin 8
pattern $((SIZE + 2 * MIB)) "$T/pattern" 9
LIB_DMS+=(loop_rs-data0 loop_rs-data1 loop_rs-data2 loop_rs-data3)
need_driver

for mode in buffered direct; do
	for fs in tmpfs ext4 xfs; do
		check "fio on $fs, backing I/O $mode" on_fs "$fs" "$mode"
	done
	check "fio on a block device, backing I/O $mode" on_bdev "$mode"
done

test_end
