#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Errors of the device below the backing file reach the submitter with the right errno.
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

# A block device as the backing file: the whole device or one sector fails.
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
	# Writes may have been cached: the flush must report the error.
	want_error "Input/output error" io if="$T/model" of="$LOOP" bs=64k count=1 \
		seek=48 conv=notrunc,fsync oflag=direct
	dm_swap "$DM" "$LINEAR"
	blockdev --flushbufs /dev/mapper/$DM || true
	# It works again, and has the old data.
	io if="$LOOP" of="$T/out" bs=64k count=16 iflag=direct
	cmp -n $MIB "$T/out" "$T/model"
	detach
	dm_end
}

# A bad page of a file: the requests around it succeed.
bad_sector() {
	local bad=4096 length=$((PAGE / 512)) page

	page=$((bad / length))
	dm_setup
	pattern $((8 * MIB)) /dev/mapper/$DM 8
	pattern $((8 * MIB)) "$T/model" 8
	blockdev --flushbufs /dev/mapper/$DM
	dm_swap "$DM" "0 $bad linear $SCRATCH_DEV 0
$bad $length error
$((bad + length)) $((SECTORS - bad - length)) linear $SCRATCH_DEV $((bad + length))"
	attach "$@" /dev/mapper/$DM
	io if="$LOOP" of="$T/out" bs=$PAGE count=1 skip=$((page - 1)) iflag=direct
	cmp -n "$PAGE" -i 0:$(((page - 1) * PAGE)) "$T/out" "$T/model"
	want_error "Input/output error" \
		io if="$LOOP" of=/dev/null bs=$PAGE count=1 skip=$page iflag=direct
	io if="$LOOP" of="$T/out" bs=$PAGE count=1 skip=$((page + 1)) iflag=direct
	cmp -n "$PAGE" -i 0:$(((page + 1) * PAGE)) "$T/out" "$T/model"
	want_error "Input/output error" \
		io if="$LOOP" of=/dev/null bs=1M count=1 skip=2 iflag=direct
	detach
	dm_end
}

# Writes fail, reads succeed.
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

# Cached writes that fail when direct I/O is switched on: the next flush reports it.
switched() {
	skip_on_c "its LOOP_SET_DIRECT_IO drops the error"
	dm_setup
	log_mark
	attach --direct-io=off /dev/mapper/$DM
	dm_swap "$DM" "$ERROR"
	io if=/dev/zero of="$LOOP" bs=64k count=1 seek=8 conv=notrunc oflag=direct
	losetup --direct-io=on "$LOOP"
	want "direct I/O" "$(<"/sys/block/$L/loop/dio")" 1
	want_error "Input/output error" io if=/dev/null of="$LOOP" conv=notrunc,fsync
	want "lines for the flush, without a sector" \
		"$(log_count "$L: flush error, file $(readlink -f /dev/mapper/$DM): I/O error (errno 5)")" 1
	dm_swap "$DM" "$LINEAR"
	detach
	dm_end
}

# A file system on a loop device does not hang when the backing file fails.
mounted() {
	dm_setup
	mkfs.ext4 -qF /dev/mapper/$DM
	mkdir -p "$T/mnt"
	attach --direct-io=on /dev/mapper/$DM
	mount -o errors=remount-ro "$LOOP" "$T/mnt"
	echo hello >"$T/mnt/f"
	sync -f "$T/mnt"
	dm_swap "$DM" "$ERROR"
	want_error "Input/output error" io if=/dev/zero of="$T/mnt/g" bs=64k count=8 conv=fsync
	timeout $LIMIT umount "$T/mnt"
	dm_swap "$DM" "$LINEAR"
	detach
	e2fsck -fy /dev/mapper/$DM >/dev/null || [ $? -le 1 ]
	mount -o ro /dev/mapper/$DM "$T/mnt"
	want "the synced data" "$(<"$T/mnt/f")" hello
	umount "$T/mnt"
	dm_end
}

# The kernel log has the device, the file and the errno, once per error and attachment.
logged() {
	local i

	skip_on_c "it only logs the sector of the device"
	dm_setup
	mkdir -p "$T/small"
	scratch_fs tmpfs "$T/small" none 1M
	truncate -s 8M "$T/small/full" "$T/short"
	log_mark

	attach "$T/small/full"
	for i in 0 1; do
		want_error "No space left" io if=/dev/zero of="$LOOP" bs=1M count=4 \
			seek=$((4 * i)) conv=notrunc oflag=direct
	done
	want "lines for ENOSPC" "$(log_count "$(log_failed "$L" write "$T/small/full")")" 1
	want "with its errno" "$(log_count "$(log_errno 28)")" 1
	detach
	umount "$T/small"

	# Errors are reported both for completions in an interrupt and in a worker.
	for i in off on; do
		attach --direct-io=$i /dev/mapper/$DM
		dm_swap "$DM" "$ERROR"
		want_error "Input/output error" \
			io if="$LOOP" of=/dev/null bs=64k skip=16 count=1 iflag=direct
		want_error "Input/output error" \
			io if="$LOOP" of=/dev/null bs=64k skip=17 count=1 iflag=direct
		detach
		dm_swap "$DM" "$LINEAR"
	done
	want "lines for EIO, of two attachments" \
		"$(log_count "$(log_failed "$L" read "$(readlink -f /dev/mapper/$DM)")2")" 2
	want "with their errno" "$(log_count "$(log_errno 5)")" 2
	dm_end

	attach "$T/short"
	truncate -s 1M "$T/short"
	for i in 2 3; do
		want_error "Input/output error" io if="$LOOP" of=/dev/null bs=1M count=1 \
			skip=$i iflag=direct
	done
	want "lines for the end of file" \
		"$(log_count "$(log_failed "$L" read "$T/short")4096$LOG_FILE_ENDS")" 1
	detach
}

test_begin 8
LIB_DMS+=("$DM")
need_driver

check "a failing device, backing I/O buffered" bdev
check "a failing device, backing I/O direct" bdev --direct-io=on
check "a failing device, as direct I/O is switched on" switched
check "a bad sector, backing I/O buffered" bad_sector
check "a bad sector, backing I/O direct" bad_sector --direct-io=on
check "failing writes" writes
check "a failing device under a mounted file system" mounted
check "the kernel log has file and errno" logged

test_end
