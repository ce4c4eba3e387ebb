#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A flush of the loop device reaches the disk of the backing file: the data is written, the disk
# gets a flush, and the data survives a crash.
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

MIB=1048576
EXPIRE=/proc/sys/vm/dirty_writeback_centisecs

# Nothing but the test may write back dirty pages.
quiet_writeback() {
	SAVED=$(<"$EXPIRE")
	echo 0 >"$EXPIRE"
	trap 'echo "$SAVED" >"$EXPIRE"' EXIT
}

quiet_fs() {
	scratch_fs ext4 "$T/fs" "$1" 256M
	mount -o remount,commit=600 "$T/fs"
	pattern $((8 * MIB)) "$T/fs/file" 1
	sync -f "$T/fs/file"
}

# write_dev DD-OPTIONS...: 1 MiB of random bytes, kept in $T/data.
write_dev() {
	dd if="$T/data" of="$LOOP" bs=1M conv=notrunc "$@" 2>/dev/null
}

counted() {
	local disk=${SCRATCH_DEV#/dev/} opts=() before mid written

	need_scratch
	want "write cache of the disk" \
		"$(<"/sys/block/$disk/queue/write_cache")" "write back"
	quiet_writeback
	quiet_fs "$SCRATCH_DEV"
	[ "$1" = buffered ] || opts+=(--direct-io=on)
	attach "${opts[@]}" "$T/fs/file"
	want "write cache" "$(<"/sys/block/$L/queue/write_cache")" "write back"
	before=$(disk_stat "$disk" 16)
	write_dev oflag=direct
	mid=$(disk_stat "$disk" 16)
	want "flushes without asking" $((mid - before)) 0
	written=$(disk_stat "$disk" 7)
	sync "$LOOP"
	want_ge "flushes of the loop device" "$(disk_stat "$L" 16)" 1
	want_ge "flushes for fsync" $(($(disk_stat "$disk" 16) - mid)) 1
	# The data is on the disk, and the times of the file need no transaction.
	[ "$1" = buffered ] || [ "$DRIVER" = loop ] ||
		want "sectors written for fsync" $(($(disk_stat "$disk" 7) - written)) 0
	mid=$(disk_stat "$disk" 16)
	write_dev oflag=direct,dsync
	want_ge "flushes for O_DSYNC" $(($(disk_stat "$disk" 16) - mid)) 1
	detach
	umount "$T/fs"
}

# Over a block device, whose page cache holds the data until the flush.
written() {
	local disk=${SCRATCH_DEV#/dev/} before mid

	need_scratch
	quiet_writeback
	attach --sizelimit $((64 * MIB)) "$SCRATCH_DEV"
	before=$(disk_stat "$disk" 7)
	write_dev oflag=direct
	mid=$(disk_stat "$disk" 7)
	want_le "sectors written before the flush" $((mid - before)) 256
	before=$(disk_stat "$disk" 16)
	sync "$LOOP"
	want_ge "sectors written by the flush" \
		$(($(disk_stat "$disk" 7) - mid)) 2048
	want_ge "flushes of the disk" $(($(disk_stat "$disk" 16) - before)) 1
	detach
}

# With direct backing I/O the data is on the disk before the flush.
not_cached() {
	local disk=${SCRATCH_DEV#/dev/} before

	need_scratch
	quiet_writeback
	attach --direct-io=on --sizelimit $((64 * MIB)) "$SCRATCH_DEV"
	before=$(disk_stat "$disk" 7)
	write_dev oflag=direct
	want_ge "sectors written at once" $(($(disk_stat "$disk" 7) - before)) 2048
	before=$(disk_stat "$disk" 3)
	dd if="$LOOP" of="$T/out" bs=1M count=1 iflag=direct 2>/dev/null
	dd if="$LOOP" of="$T/out" bs=1M count=1 iflag=direct 2>/dev/null
	want_ge "sectors read, twice" $(($(disk_stat "$disk" 3) - before)) 4096
	cmp "$T/out" "$T/data"
	detach
}

# A write with FUA makes its own data durable, and does not write back the rest of the file.
fua() {
	local disk=${SCRATCH_DEV#/dev/} before written flushed

	skip_on_c "it flushes the whole file"
	need_scratch
	quiet_writeback
	quiet_fs "$SCRATCH_DEV"
	attach "$T/fs/file"
	want "FUA" "$(<"/sys/block/$L/queue/fua")" 1
	mkfs.ext4 -qF -E lazy_itable_init=0,lazy_journal_init=0 -b 1024 -J size=1 "$LOOP"
	mkdir -p "$T/mnt"
	mount -o noatime,commit=600 "$LOOP" "$T/mnt"
	dd if="$T/data" of="$T/mnt/fua" bs=64k count=1 2>/dev/null
	dd if="$T/data" of="$T/mnt/other" bs=1M count=1 2>/dev/null
	sync -f "$T/mnt"
	dd if=/dev/zero of="$T/mnt/other" bs=1M count=1 conv=notrunc oflag=direct 2>/dev/null
	before=$(disk_stat "$L" 16)
	written=$(disk_stat "$disk" 7)
	flushed=$(disk_stat "$disk" 16)
	# An overwrite needs no flush if the disk has FUA.
	dd if="$T/data" of="$T/mnt/fua" bs=4k count=1 conv=notrunc oflag=direct,dsync 2>/dev/null
	want "flushes of the loop device" $(($(disk_stat "$L" 16) - before)) 0
	want_ge "flushes of the disk" $(($(disk_stat "$disk" 16) - flushed)) 1
	written=$(($(disk_stat "$disk" 7) - written))
	want_ge "sectors written for FUA" "$written" 8
	want_le "sectors written for FUA" "$written" 1024
	written=$(disk_stat "$disk" 7)
	umount "$T/mnt"
	want_ge "sectors written by a flush" $(($(disk_stat "$disk" 7) - written)) 2048
	detach
	umount "$T/fs"

	# A file system without a disk has nothing to flush.
	truncate -s 1M "$T/file"
	attach "$T/file"
	want "FUA on tmpfs" "$(<"/sys/block/$L/queue/fua")" 0
	detach
}

# fua_offered FS: FUA is offered if the file can make a write durable by itself. The cases above and
# test_cuts.sh show that it reaches the disk. FS "none" is the block device itself.
fua_offered() {
	local disk=${SCRATCH_DEV#/dev/} before

	skip_on_c "it has none"
	need_scratch
	if [ "$1" = none ]; then
		attach --sizelimit $((8 * MIB)) "$SCRATCH_DEV"
	else
		modprobe -q "$1" || grep -qw "$1" /proc/filesystems || skip "no $1 in this kernel"
		scratch_fs "$1" "$T/fs" "$SCRATCH_DEV" 512M
		pattern $((8 * MIB)) "$T/fs/file" 1
		sync -f "$T/fs/file"
		attach "$T/fs/file"
	fi
	want "FUA" "$(<"/sys/block/$L/queue/fua")" 1
	before=$(disk_stat "$disk" 7)
	dd if="$T/data" of="$LOOP" bs=64k count=1 conv=notrunc oflag=direct,dsync 2>/dev/null
	want_ge "sectors written" $(($(disk_stat "$disk" 7) - before)) 128
	detach
	[ "$1" = none ] || umount "$T/fs"
}

# The disk drops writes, as in a power cut. Data synced before is there; other data may be lost.
crash() {
	local sectors opts=() linear lost

	need_scratch
	modprobe -q dm-flakey || [ -d /sys/module/dm_flakey ] || skip "no dm-flakey"
	quiet_writeback
	[ "$1" = buffered ] || opts+=(--direct-io=on)
	sectors=$((512 * 2048))
	linear="0 $sectors linear $SCRATCH_DEV 0"
	lost="0 $sectors flakey $SCRATCH_DEV 0 0 3600 1 drop_writes"
	dm_create loop_rs-crash "$linear"
	quiet_fs /dev/mapper/loop_rs-crash
	attach "${opts[@]}" "$T/fs/file"
	if [ "${2:-}" = fua ]; then
		write_dev oflag=direct,dsync
	else
		write_dev
		sync "$LOOP"
	fi
	dm_swap loop_rs-crash "$lost"
	dd if=/dev/zero of="$LOOP" bs=1M seek=4 count=1 conv=notrunc,fsync \
		2>/dev/null || true
	detach
	umount "$T/fs"
	dm_swap loop_rs-crash "$linear"
	mount /dev/mapper/loop_rs-crash "$T/fs"
	cmp -n $MIB "$T/data" "$T/fs/file" || fail "synced data is lost"
	cmp -s -n $MIB -i $((4 * MIB)):0 "$T/fs/file" /dev/zero &&
		fail "the writes were not dropped: this shows nothing"
	umount "$T/fs"
	dm_remove loop_rs-crash
}

test_begin 12
LIB_DMS+=(loop_rs-crash)
dd if=/dev/urandom of="$T/data" bs=1M count=1 2>/dev/null
need_driver

check "the disk is flushed, backing I/O buffered" counted buffered
check "the disk is flushed, backing I/O direct" counted direct
check "the data is written by the flush" written
check "direct backing I/O goes past the page cache" not_cached
check "synced data survives a crash, backing I/O buffered" crash buffered
check "synced data survives a crash, backing I/O direct" crash direct
check "FUA reaches the disk" fua
check "FUA on a block device" fua_offered none
check "FUA on f2fs" fua_offered f2fs
check "FUA on xfs" fua_offered xfs
check "data written with FUA survives a crash, backing I/O buffered" crash buffered fua
check "data written with FUA survives a crash, backing I/O direct" crash direct fua

test_end
