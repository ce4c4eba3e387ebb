#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Discard and write-zeroes: holes in the backing file, zeroes when read, unchanged neighbouring
# blocks; refused if the backing file does not support it.
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

MIB=1048576

# Compares the device and the backing file with the expected contents.
holds() {
	blockdev --flushbufs "$LOOP"
	cmp "$LOOP" "$T/model"
	cmp "$FILE" "$T/model"
}

zero_model() {
	dd if=/dev/zero of="$T/model" bs=512 seek=$(($1 / 512)) \
		count=$(($2 / 512)) conv=notrunc 2>/dev/null
}

# prepare TYPE [LOSETUP-OPTIONS...]
prepare() {
	local fs=$1

	shift
	[ "$fs" = tmpfs ] || need_scratch
	scratch_fs "$fs" "$T/fs" "${SCRATCH_DEV:-}" 512M
	FILE=$T/fs/file
	pattern $((8 * MIB)) "$FILE" 4
	pattern $((8 * MIB)) "$T/model" 4
	sync -f "$FILE"
	attach "$@" "$FILE"
}

finish() {
	detach
	umount "$T/fs"
}

discards() {
	local before after

	prepare "$@"
	want_ge "discard_max_bytes" \
		"$(<"/sys/block/$L/queue/discard_max_bytes")" $MIB
	before=$(blocks_of "$FILE")
	blkdiscard -o $MIB -l $((4 * MIB)) "$LOOP"
	zero_model $MIB $((4 * MIB))
	holds
	sync -f "$FILE"
	after=$(blocks_of "$FILE")
	want_ge "discards counted" "$(disk_stat "$L" 12)" 1
	# Metadata may have grown by a few blocks.
	want_ge "blocks freed" $((before - after)) $((4 * MIB / 512 - 64))
	want "size of the file" "$(stat -c %s "$FILE")" $((8 * MIB))

	# A range that is not aligned to blocks of the file system.
	blkdiscard -o $((6 * MIB + 512)) -l 65536 "$LOOP"
	zero_model $((6 * MIB + 512)) 65536
	cmp "$FILE" "$T/model" || {
		# No byte outside of the range, and only zeroes inside.
		fail "the range $((6 * MIB + 512))+65536 was not zeroed right"
	}
	holds
	finish
}

# A discard of a window of the file leaves the bytes around the window unchanged.
discard_offset() {
	prepare "$1" --offset 4096 --sizelimit $((4 * MIB))
	blkdiscard "$LOOP"
	zero_model 4096 $((4 * MIB))
	cmp "$FILE" "$T/model"
	finish
}

# Write-zeroes keeps blocks allocated.
zeroes() {
	local before

	prepare "$1"
	sync -f "$FILE"
	before=$(blocks_of "$FILE")
	blkdiscard --zeroout -o $((2 * MIB)) -l $((2 * MIB)) "$LOOP"
	zero_model $((2 * MIB)) $((2 * MIB))
	holds
	sync -f "$FILE"
	want_ge "blocks" "$(blocks_of "$FILE")" $((before - 64))
	# A hole punched in the block device frees the blocks.
	before=$(blocks_of "$FILE")
	fallocate --punch-hole -o $((4 * MIB)) -l $((2 * MIB)) "$LOOP"
	zero_model $((4 * MIB)) $((2 * MIB))
	holds
	sync -f "$FILE"
	want_ge "blocks freed" $((before - $(blocks_of "$FILE"))) \
		$((2 * MIB / 512 - 64))
	finish
}

trim() {
	local before

	prepare tmpfs
	# Lazy initialisation would allocate blocks while discards are counted.
	mkfs.ext4 -qF -E lazy_itable_init=0,lazy_journal_init=0 "$LOOP"
	mkdir -p "$T/mnt"
	mount "$LOOP" "$T/mnt"
	dd if=/dev/urandom of="$T/mnt/f" bs=1M count=4 2>/dev/null
	sync -f "$T/mnt/f"
	before=$(blocks_of "$FILE")
	rm "$T/mnt/f"
	sync -f "$T/mnt"
	fstrim "$T/mnt"
	want_ge "blocks freed" $((before - $(blocks_of "$FILE"))) \
		$((4 * MIB / 512 - 128))
	umount "$T/mnt"
	e2fsck -fn "$LOOP"
	finish
}

# vfat has fallocate, but does not punch holes.
unsupported() {
	command -v mkfs.vfat >/dev/null || skip "no mkfs.vfat"
	modprobe -q vfat || skip "no vfat"
	need_scratch
	dm_create loop_rs-vfat "0 $((128 * 2048)) linear $SCRATCH_DEV 0"
	scratch_fs vfat "$T/fs" /dev/mapper/loop_rs-vfat
	FILE=$T/fs/file
	pattern $((8 * MIB)) "$FILE" 4
	pattern $((8 * MIB)) "$T/model" 4
	attach "$FILE"
	# The first BLKDISCARD succeeds without an effect; the next discard must fail.
	want_error "unsupported" fallocate --punch-hole -l $MIB "$LOOP"
	# After that the limit in sysfs is zero.
	wait_for 5 discard_off
	want_error "not supported" blkdiscard "$LOOP"
	holds
	# Zeroes are written instead.
	blkdiscard --zeroout -o $MIB -l $MIB "$LOOP"
	zero_model $MIB $MIB
	holds
	finish
	dm_remove loop_rs-vfat
}

discard_off() {
	[ "$(<"/sys/block/$L/queue/discard_max_bytes")" -eq 0 ]
}

# A discard must not free blocks of a swap file. Discard stays enabled.
swapped_to() {
	skip_on_c "it frees blocks of swap files"
	prepare ext4
	chmod 600 "$FILE"
	mkswap "$FILE"
	cp "$FILE" "$T/model"
	trap 'swapoff "$FILE"' EXIT
	# The last swap area in use.
	swapon --priority 0 "$FILE"
	want_error "ioctl failed: Input/output error" blkdiscard -f -o $MIB -l $MIB "$LOOP"
	want_error "ioctl failed: Input/output error" \
		blkdiscard -f --zeroout -o $MIB -l $MIB "$LOOP"
	want_error "Input/output error" fallocate --punch-hole -o $MIB -l $MIB "$LOOP"
	dmesg | grep "$L: discard error, file $FILE, .*errno 26" ||
		fail "nothing in the log"
	swapoff "$FILE"
	trap - EXIT
	holds
	! discard_off || fail "discard was disabled"
	blkdiscard -f -o $MIB -l $MIB "$LOOP"
	zero_model $MIB $MIB
	blkdiscard -f --zeroout -o $((3 * MIB)) -l $MIB "$LOOP"
	zero_model $((3 * MIB)) $MIB
	holds
	finish
}

# A discard waits while the file system is frozen, like a write.
frozen() {
	local pid before after rc=0

	skip_on_c "it frees space on a frozen file system"
	prepare ext4
	sync -f "$FILE"
	trap 'fsfreeze -u "$T/fs" 2>/dev/null || true' EXIT
	fsfreeze -f "$T/fs"
	before=$(disk_stat "${SCRATCH_DEV#/dev/}" 5)
	blkdiscard -f -o $MIB -l $MIB "$LOOP" &
	pid=$!
	sleep 1
	kill -0 $pid || rc=1
	after=$(disk_stat "${SCRATCH_DEV#/dev/}" 5)
	fsfreeze -u "$T/fs"
	trap - EXIT
	wait $pid
	want "the discard ended while the file system was frozen" $rc 0
	want "writes to the disk of the frozen file system" $((after - before)) 0
	zero_model $MIB $MIB
	holds
	finish
}

# Over a block device without write-zeroes the device offers none; the data is kept.
bdev_without() {
	local conf=/sys/kernel/config/nullb/lrs-nullb dev=/dev/lrs-nullb

	modprobe null_blk nr_devices=0 || skip "no null_blk"
	mkdir "$conf" || skip "no configfs"
	echo 1 >"$conf/memory_backed"
	echo 16 >"$conf/size"
	echo 1 >"$conf/power"
	[ -b "$dev" ] || dev=/dev/nullb$(<"$conf/index")
	pattern $((16 * MIB)) "$dev" 5
	attach "$dev"
	want "discard_max_bytes" "$(<"/sys/block/$L/queue/discard_max_bytes")" 0
	want_error "not supported" blkdiscard "$LOOP"
	cmp "$LOOP" "$dev"
	detach
	rmdir "$conf"
	rmmod null_blk
}

test_begin 11
LIB_DMS+=(loop_rs-vfat)
mountpoint -q /sys/kernel/config || mount -t configfs none /sys/kernel/config
need_driver

check "discard on tmpfs" discards tmpfs
check "discard on ext4" discards ext4
check "discard on xfs" discards xfs
check "discard on ext4, backing I/O direct" discards ext4 --direct-io=on
check "discard of a whole window" discard_offset tmpfs
check "write-zeroes and punch-hole on ext4" zeroes ext4
check "fstrim of a file system on the device" trim
check "discard on a file system without hole punching" unsupported
check "discard of a swap file" swapped_to
check "discard on a frozen file system" frozen
check "discard over a block device without discard" bdev_without

test_end
