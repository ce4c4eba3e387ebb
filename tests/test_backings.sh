#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Backing files on each file system that supports loop devices: data, size, discard and flush, with
# buffered and direct backing I/O as far as the file system allows.
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

MIB=1048576
# A quarter of the length of a backing file, which is one sector longer.
UNIT=$MIB

# Reads the backing file through the page cache, and the device with direct I/O.
agree() {
	blockdev --flushbufs "$LOOP"
	cmp "$LOOP" "$T/model"
	cmp "$1" "$T/model"
}

# carries FILE DISCARD DIO [LOSETUP-OPTIONS...]: checks all operations of a device bound to FILE.
# DISCARD is whether the file system can punch holes, DIO the expected value of "dio".
carries() {
	local file=$1 discard=$2 dio=$3 size=$((4 * UNIT + 512)) before to

	shift 3
	rm -f "$T/model"
	pattern $size "$T/model" 5
	[ -e "$file" ] || cp "$T/model" "$file"
	sync -f "$file"
	attach "$@" "$file"
	want "size" "$(blockdev --getsize64 "$LOOP")" $size
	want "dio" "$(<"/sys/block/$L/loop/dio")" "$dio"
	want "write_cache" "$(<"/sys/block/$L/queue/write_cache")" "write back"
	agree "$file"
	# A write that is aligned to sectors only, up to the last sector.
	for to in "$LOOP" "$T/model"; do
		head -c $((UNIT / 2 + 512)) "$T/data" |
			dd of="$to" bs=64k seek=$((UNIT + 512)) \
			oflag=seek_bytes conv=notrunc,fsync 2>/dev/null
		dd if="$T/data" of="$to" bs=512 count=9 seek=$((size / 512 - 9)) \
			conv=notrunc,fsync 2>/dev/null
	done
	agree "$file"

	before=$(blocks_of "$file")
	if [ "$discard" = yes ]; then
		blkdiscard -o $((2 * UNIT)) -l "$UNIT" "$LOOP"
		dd if=/dev/zero of="$T/model" bs="$UNIT" seek=2 count=1 \
			conv=notrunc 2>/dev/null
		sync -f "$file"
		# Metadata may have grown by a few blocks.
		want_ge "blocks freed" $((before - $(blocks_of "$file"))) \
			$((UNIT / 512 - 64))
	else
		# The first BLKDISCARD may succeed without an effect; the next discard must fail.
		want_error "unsupported" fallocate -p -l "$UNIT" "$LOOP"
		want_error "not supported" blkdiscard "$LOOP"
	fi
	agree "$file"
	detach
	cmp "$file" "$T/model"
	want "size of the file" "$(stat -c %s "$file")" $size
	rm "$file"
}

# mounted TYPE: mounts a file system at $T/fs, on the scratch device if it needs a device.
mounted() {
	[ "$1" = tmpfs ] || need_scratch
	scratch_fs "$1" "$T/fs" "${SCRATCH_DEV:-}" "${2:-128M}"
}

# on TYPE DISCARD DIO [SIZE]
on() {
	mounted "$1" "${4:-}"
	carries "$T/fs/file" "$2" 0
	carries "$T/fs/file" "$2" "$3" --direct-io=on
	umount "$T/fs"
}

# A small device-mapper device: on the whole disk vfat would write a large table.
on_vfat() {
	need_scratch
	dm_create loop_rs-vfat "0 $((64 * 2048)) linear $SCRATCH_DEV 0"
	scratch_fs vfat "$T/fs" /dev/mapper/loop_rs-vfat
	carries "$T/fs/file" no 0
	carries "$T/fs/file" no 1 --direct-io=on
	umount "$T/fs"
	dm_remove loop_rs-vfat
}

# Most device-mapper targets, dm-crypt among them, refuse I/O with REQ_NOWAIT.
on_waiting() {
	local fs i

	need_scratch
	modprobe -q dm-flakey || [ -d /sys/module/dm_flakey ] || skip "no dm-flakey"
	dm_create loop_rs-waits "0 $((320 * 2048)) flakey $SCRATCH_DEV 0 3600 0"
	for fs in ext4 xfs; do
		scratch_fs "$fs" "$T/fs" /dev/mapper/loop_rs-waits 320M
		cp "$T/data" "$T/fs/file"
		sync -f "$T/fs"
		attach --direct-io=on "$T/fs/file"
		want "dio" "$(<"/sys/block/$L/loop/dio")" 1
		for i in 1 2; do
			dd if="$LOOP" of="$T/read" bs=64k iflag=direct 2>/dev/null
			cmp "$T/read" "$T/data"
			# For a read of a single block iomap sets REQ_NOWAIT in the bio.
			dd if="$LOOP" of="$T/read" bs=4k count=32 iflag=direct 2>/dev/null
			cmp -n $((32 * 4096)) "$T/read" "$T/data"
			dd if="$T/data" of="$LOOP" bs=64k oflag=direct 2>/dev/null
		done
		detach
		cmp "$T/fs/file" "$T/data"
		umount "$T/fs"
	done
	dm_remove loop_rs-waits
}

# Without fallocate there is no discard, and direct I/O is refused.
on_ramfs() {
	mkdir -p "$T/fs"
	mount -t ramfs none "$T/fs"
	carries "$T/fs/file" no 0
	cp "$T/data" "$T/fs/file"
	want_error "Invalid argument" losetup -f --show --direct-io=on "$T/fs/file"
	attach "$T/fs/file"
	want "discard_max_bytes" "$(<"/sys/block/$L/queue/discard_max_bytes")" 0
	want_error "Invalid argument" losetup --direct-io=on "$LOOP"
	detach
	umount "$T/fs"
}

dirty_pages() {
	fincore -nro DIRTY_PAGES "$1"
}

# A lower file stays in the lower layer while it is only read; a write copies it up.
on_overlay() {
	mounted ext4
	mkdir -p "$T/over" "$T/fs/lower" "$T/fs/upper" "$T/fs/work"
	pattern $((4 * UNIT + 512)) "$T/fs/lower/file" 5
	cp "$T/fs/lower/file" "$T/lower"
	mount -t overlay -o \
		"lowerdir=$T/fs/lower,upperdir=$T/fs/upper,workdir=$T/fs/work" \
		none "$T/over" || skip "no overlayfs"
	attach -r "$T/over/file"
	cmp "$LOOP" "$T/lower"
	want "backing_file" "$(<"/sys/block/$L/loop/backing_file")" "$T/over/file"
	want "upper" "$(ls "$T/fs/upper")" ""
	# After the copy-up the device reads the new file.
	dd if="$T/data" of="$T/over/file" bs=64k conv=notrunc 2>/dev/null
	blockdev --flushbufs "$LOOP"
	cmp "$LOOP" "$T/over/file"
	cmp -n "$MIB" "$LOOP" "$T/data"
	detach
	umount "$T/over"
	rm "$T/fs/upper/file"
	mount -t overlay -o \
		"lowerdir=$T/fs/lower,upperdir=$T/fs/upper,workdir=$T/fs/work" \
		none "$T/over"
	carries "$T/over/file" yes 0
	cmp "$T/fs/lower/file" "$T/lower"
	carries "$T/over/file" yes 1 --direct-io=on
	cmp "$T/fs/lower/file" "$T/lower"
	# Dirty pages are written before direct I/O starts. They are those of the upper file.
	pattern "$MIB" "$T/over/file" 6
	want_ge "dirty pages" "$(dirty_pages "$T/fs/upper/file")" 1
	attach --direct-io=on "$T/over/file"
	want "dirty pages" "$(dirty_pages "$T/fs/upper/file")" 0
	detach
	umount "$T/over"
	umount "$T/fs"
}

# A file system server in user space.
on_fuse() {
	# FUSE is slow.
	UNIT=$((MIB / 8))
	truncate -s 16M "$T/fuse"
	mkfs.ext4 -qF -b 4096 "$T/fuse"
	mkdir -p "$T/fs"
	modprobe -q fuse || :
	fuse2fs -o fakeroot "$T/fuse" "$T/fs"
	carries "$T/fs/file" yes 0
	carries "$T/fs/file" yes 1 --direct-io=on
	umount "$T/fs"
	# The server writes its data back once it has no requests.
	wait_for 10 clean "$T/fuse"
	rm "$T/fuse"
}

clean() {
	e2fsck -fn "$1" >/dev/null
}

# Files without write support for pages, and objects that are not files.
refused() {
	local f

	mkdir -p "$T/fs"
	if mount -t hugetlbfs none "$T/fs"; then
		truncate -s 1G "$T/fs/file"
		want_error "Invalid argument" losetup -f --show "$T/fs/file"
		umount "$T/fs"
	fi
	for f in "$T" /dev/null /proc/self/status "$T/fifo"; do
		[ "$f" != "$T/fifo" ] || { mkfifo "$f"; exec {f}<>"$f"; f=$T/fifo; }
		want_error "" losetup -f --show "$f"
	done
	want "bound" "$(lib_bound)" ""
}

test_begin 10
LIB_DMS+=(loop_rs-vfat loop_rs-waits)
pattern $MIB "$T/data" 9
need_driver

check "tmpfs" on tmpfs yes 1
check "ext4" on ext4 yes 1
check "xfs" on xfs yes 1 320M
check "btrfs" on btrfs yes 1
check "vfat" on_vfat
check "ramfs" on_ramfs
check "overlayfs" on_overlay
check "FUSE" on_fuse
check "on a device that refuses REQ_NOWAIT" on_waiting
check "unsuitable backing files are refused" refused

test_end
