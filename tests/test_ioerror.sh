#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Errors of the device under the backing file reach who asked, as what they are.
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

MIB=1048576
LIMIT=$((30 * SLOW))
DM=loop_rs-error
SECTORS=$((64 * 2048))

dm_setup() {
	need_scratch
	LINEAR="0 $SECTORS linear $SCRATCH_DEV 0"
	ERROR="0 $SECTORS error"
	dm_create "$DM" "$LINEAR"
}

dm_end() {
	dm_remove "$DM"
}

io() {
	timeout $LIMIT dd "$@" 2>&1
}

# A block device as the backing file: all of it, or a part of it, fails.
bdev() {
	local opts=("$@")

	dm_setup
	pattern $((8 * MIB)) /dev/mapper/$DM 8
	pattern $((8 * MIB)) "$T/model" 8
	attach "${opts[@]}" /dev/mapper/$DM
	io if="$LOOP" of=/dev/null bs=64k count=16 iflag=direct
	blockdev --flushbufs /dev/mapper/$DM
	dm_swap "$DM" "$ERROR"
	want_error "Input/output error" \
		io if="$LOOP" of=/dev/null bs=64k skip=16 count=1 iflag=direct
	if [ ${#opts[@]} -gt 0 ]; then
		want_error "Input/output error" io if="$T/model" of="$LOOP" bs=64k \
			count=1 seek=32 conv=notrunc oflag=direct
	fi
	# Whatever took the data before: the flush has to tell.
	want_error "Input/output error" io if="$T/model" of="$LOOP" bs=64k count=1 \
		seek=48 conv=notrunc,fsync oflag=direct
	dm_swap "$DM" "$LINEAR"
	blockdev --flushbufs /dev/mapper/$DM || true
	# It works again, and holds what it held.
	io if="$LOOP" of="$T/out" bs=64k count=16 iflag=direct
	cmp -n $MIB "$T/out" "$T/model"
	detach
	dm_end
}

# One bad sector: the requests around it are good.
bad_sector() {
	local bad=4096

	dm_setup
	pattern $((8 * MIB)) /dev/mapper/$DM 8
	pattern $((8 * MIB)) "$T/model" 8
	blockdev --flushbufs /dev/mapper/$DM
	dm_swap "$DM" "0 $bad linear $SCRATCH_DEV 0
$bad 8 error
$((bad + 8)) $((SECTORS - bad - 8)) linear $SCRATCH_DEV $((bad + 8))"
	attach "$@" /dev/mapper/$DM
	io if="$LOOP" of="$T/out" bs=4k count=1 skip=511 iflag=direct
	cmp -n 4096 -i 0:$((511 * 4096)) "$T/out" "$T/model"
	want_error "Input/output error" \
		io if="$LOOP" of=/dev/null bs=4k count=1 skip=512 iflag=direct
	io if="$LOOP" of="$T/out" bs=4k count=1 skip=513 iflag=direct
	cmp -n 4096 -i 0:$((513 * 4096)) "$T/out" "$T/model"
	want_error "Input/output error" \
		io if="$LOOP" of=/dev/null bs=1M count=1 skip=2 iflag=direct
	detach
	dm_end
}

# Writes fail, reads do not.
writes() {
	modprobe -q dm-flakey || [ -d /sys/module/dm_flakey ] || skip "no dm-flakey"
	dm_setup
	pattern $((8 * MIB)) /dev/mapper/$DM 8
	pattern $((8 * MIB)) "$T/model" 8
	blockdev --flushbufs /dev/mapper/$DM
	attach --direct-io=on /dev/mapper/$DM
	dm_swap "$DM" "0 $SECTORS flakey $SCRATCH_DEV 0 0 3600 1 error_writes"
	want_error "Input/output error" io if=/dev/zero of="$LOOP" bs=64k count=1 \
		seek=8 conv=notrunc oflag=direct
	io if="$LOOP" of="$T/out" bs=64k count=16 iflag=direct
	cmp -n $MIB "$T/out" "$T/model"
	dm_swap "$DM" "$LINEAR"
	detach
	dm_end
}

# A file system on a loop device whose backing file goes bad doesn't hang.
mounted() {
	dm_setup
	mkfs.ext4 -qF /dev/mapper/$DM
	mkdir -p "$T/mnt"
	attach --direct-io=on /dev/mapper/$DM
	mount -o errors=remount-ro "$LOOP" "$T/mnt"
	echo hello >"$T/mnt/f"
	sync -f "$T/mnt"
	dm_swap "$DM" "$ERROR"
	want_error "" io if=/dev/zero of="$T/mnt/g" bs=64k count=8 conv=fsync
	timeout $LIMIT umount "$T/mnt"
	dm_swap "$DM" "$LINEAR"
	detach
	e2fsck -fy /dev/mapper/$DM >/dev/null || [ $? -le 1 ]
	mount -o ro /dev/mapper/$DM "$T/mnt"
	want "what was synced" "$(<"$T/mnt/f")" hello
	umount "$T/mnt"
	dm_end
}

test_begin 6
LIB_DMS+=("$DM")
need_driver

check "a failing device, backing I/O buffered" bdev
check "a failing device, backing I/O direct" bdev --direct-io=on
check "a bad sector, backing I/O buffered" bad_sector
check "a bad sector, backing I/O direct" bad_sector --direct-io=on
check "failing writes" writes
check "under a mounted file system" mounted

test_end
