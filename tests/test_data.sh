#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Data integrity: fio writes and verifies random blocks of mixed sizes, buffered and with direct
# I/O, on whole files and on windows of them, with buffered and direct backing I/O, concurrently.
# Then the device and its backing file are compared; bytes outside of the window must be unchanged.
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

# One device for each combination of backing I/O, whole file or window, and I/O of fio. Direct
# backing I/O needs an aligned window; other windows are not aligned.
COMBINATIONS="buffered:0:direct buffered:0:buffered
	      buffered:$((MIB + 523)):direct buffered:$((MIB + 523)):buffered
	      direct:0:direct direct:0:buffered
	      direct:$((MIB + 8192)):direct direct:$((MIB + 8192)):buffered"

# verify FILE...: one file per combination, filled with the pattern.
verify() {
	local files=("$@") devs=() offsets=() jobs=() combo backing offset io opts f i=0

	for combo in $COMBINATIONS; do
		IFS=: read -r backing offset io <<<"$combo"
		f=${files[i]}
		# A window of a block device ends at a sector.
		[ ! -b "$f" ] || offset=$((offset / 512 * 512))
		opts=()
		[ "$backing" = buffered ] || opts+=(--direct-io=on)
		[ "$offset" -eq 0 ] ||
			opts+=(--offset "$offset" --sizelimit "$SIZE")
		attach "${opts[@]}" "$f"
		want "dio of $combo" "$(<"/sys/block/$L/loop/dio")" \
			"$([ "$backing" = direct ] && echo 1 || echo 0)"
		[ "$offset" -eq 0 ] || want "size of the window" \
			"$(<"/sys/block/$L/size")" $((SIZE / 512))
		devs+=("$LOOP")
		offsets+=("$offset")
		jobs+=(--name="$combo" --filename="$LOOP")
		if [ "$io" = direct ]; then
			jobs+=(--direct=1 --ioengine=libaio --iodepth=16)
		else
			jobs+=(--direct=0 --ioengine=psync --end_fsync=1)
		fi
		i=$((i + 1))
	done
	fio --output="$T/fio" --size="$SIZE" --rw=randwrite --thread \
	    --bssplit="512/20:1k/10:4k/30:12k/10:64k/20:128k/10" \
	    --randrepeat=0 --verify=crc32c --do_verify=1 --verify_fatal=1 \
	    --fallocate=none "${jobs[@]}" ||
		{ tail -n 40 "$T/fio"; fail "fio"; }
	for i in "${!devs[@]}"; do
		f=${files[i]}
		offset=${offsets[i]}
		# First from the page cache of the device, then with direct I/O from the driver.
		compare_range "${devs[i]}" "$f" "$offset"
		blockdev --flushbufs "${devs[i]}"
		compare_range "${devs[i]}" "$f" "$offset"
		if cmp -s -n 65536 -i "$offset" "$f" "$T/pattern"; then
			fail "fio wrote nothing"
		fi
		[ "$offset" -gt 0 ] || continue
		cmp -n "$offset" "$f" "$T/pattern" || fail "before the window"
		cmp -i $((offset + SIZE)) "$f" "$T/pattern" ||
			fail "behind the window"
	done
	losetup -d "${devs[@]}"
	wait_for 5 nothing_bound
}

on_fs() {
	local i names=()

	[ "$1" = tmpfs ] || need_scratch
	scratch_fs "$1" "$T/fs" "${SCRATCH_DEV:-}" 512M
	for i in 0 1 2 3 4 5 6 7; do
		cp "$T/pattern" "$T/fs/$i"
		names+=("$T/fs/$i")
	done
	verify "${names[@]}"
	umount "$T/fs"
}

# verify with ranges of a block device as backing files.
on_bdev() {
	local i names=()

	need_scratch
	for i in 0 1 2 3 4 5 6 7; do
		dm_create "loop_rs-data$i" \
			"0 $(((SIZE + 2 * MIB) / 512)) linear $SCRATCH_DEV $((i * 65536))"
		dd if="$T/pattern" of="/dev/mapper/loop_rs-data$i" bs=1M \
			oflag=direct 2>/dev/null
		names+=("/dev/mapper/loop_rs-data$i")
	done
	verify "${names[@]}"
	for i in 0 1 2 3 4 5 6 7; do
		dm_remove "loop_rs-data$i"
	done
}

test_begin 4
pattern $((SIZE + 2 * MIB)) "$T/pattern" 9
for i in 0 1 2 3 4 5 6 7; do
	LIB_DMS+=("loop_rs-data$i")
done
need_driver

check "fio on tmpfs" on_fs tmpfs
check "fio on ext4" on_fs ext4
check "fio on xfs" on_fs xfs
check "fio on a block device" on_bdev

test_end
