#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A device that grows and shrinks with its file, also under a mounted file system, and a device of
# the greatest file size.
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

MIB=1048576
TIB=$((1 << 40))

size_is() {
	want "$1" "$(blockdev --getsize64 "$LOOP")" "$2"
	want "$1, sysfs" "$(<"/sys/block/$L/size")" $(($2 / 512))
}

# grow TYPE FROM TO NEED: sizes in MiB; mounted, with files written before and after.
grow() {
	local fs=$1 from=$2 to=$3 need=$4

	rm -f "$T/img"
	truncate -s "${from}M" "$T/img"
	attach "$T/img"
	case $fs in
	ext4)	mkfs.ext4 -qF "$LOOP" ;;
	xfs)	mkfs.xfs -qf "$LOOP" ;;
	esac
	mount "$LOOP" "$T/mnt"
	cp "$T/data" "$T/mnt/before"
	want_error "No space" fallocate -l "${need}M" "$T/mnt/fill"
	rm "$T/mnt/fill"
	truncate -s "${to}M" "$T/img"
	size_is "before" $((from * MIB))
	losetup -c "$LOOP"
	size_is "after" $((to * MIB))
	case $fs in
	ext4)
		can_write_mounted || {
			umount "$T/mnt"
			detach
			skip "the kernel has no CONFIG_BLK_DEV_WRITE_MOUNTED"
		}
		resize2fs "$LOOP"
		;;
	xfs)	xfs_growfs "$T/mnt" ;;
	esac
	# More data than fits into the old size.
	fallocate -l "${need}M" "$T/mnt/fill"
	cp "$T/data" "$T/mnt/after"
	umount "$T/mnt"
	detach
	attach "$T/img"
	case $fs in
	ext4)	e2fsck -fn "$LOOP" ;;
	xfs)	xfs_repair -n "$LOOP" ;;
	esac
	mount "$LOOP" "$T/mnt"
	cmp "$T/data" "$T/mnt/before"
	cmp "$T/data" "$T/mnt/after"
	umount "$T/mnt"
	detach
	rm "$T/img"
}

written() {
	[ "$(disk_stat "$L" 5)" -ge "$1" ]
}

# Under constant writes: none of them fails, and all data is there.
under_io() {
	local i pid

	rm -f "$T/img"
	truncate -s 8M "$T/img"
	attach "$T/img"
	fio --output="$T/fio" --name=j --filename="$LOOP" --rw=randwrite --bs=4k \
		--ioengine=libaio --iodepth=8 --direct=1 --size=8M \
		--time_based --runtime=$((60 * SLOW)) --verify=crc32c --verify_backlog=64 \
		--verify_fatal=1 --verify_state_save=0 &
	pid=$!
	wait_for 10 written 100
	for ((i = 9; i <= 24; i++)); do
		truncate -s "${i}M" "$T/img"
		losetup -c "$LOOP"
		size_is "step $i" $((i * MIB))
	done
	# fio continues after the last step until it gets a signal.
	wait_for 10 written $(($(disk_stat "$L" 5) + 100))
	kill -INT $pid
	wait $pid || true
	# fio's exit status is that of the signal.
	grep -q "err= 0" "$T/fio" && ! grep -q "verify: bad" "$T/fio" || { cat "$T/fio"; fail "fio"; }
	detach
	rm "$T/img"
}

# Shrinking discards the data beyond the new end only; after growing again that range is zeroes.
shrink() {
	local fd

	rm -f "$T/img"
	pattern $((8 * MIB)) "$T/img" 3
	cp "$T/img" "$T/model"
	attach "$T/img"
	exec {fd}<"$LOOP"
	truncate -s $((5 * MIB + 512)) "$T/img" "$T/model"
	size_is "before" $((8 * MIB))
	losetup -c "$LOOP"
	size_is "after" $((5 * MIB + 512))
	blockdev --flushbufs "$LOOP"
	cmp "$LOOP" "$T/model"
	want_error "No space" dd if="$T/data" of="$LOOP" bs=512 count=1 \
		seek=$((10 * 1024 + 1)) oflag=direct conv=notrunc
	truncate -s 8M "$T/img" "$T/model"
	losetup -c "$LOOP"
	size_is "grown again" $((8 * MIB))
	blockdev --flushbufs "$LOOP"
	cmp "$LOOP" "$T/model"
	exec {fd}<&-
	# To zero and back.
	truncate -s 0 "$T/img"
	losetup -c "$LOOP"
	size_is "nothing" 0
	truncate -s 1M "$T/img"
	losetup -c "$LOOP"
	size_is "something" $MIB
	detach
}

# Offset and size limit stay in effect; a partial sector does not count.
window() {
	rm -f "$T/img"
	truncate -s 4M "$T/img"
	attach -o $MIB --sizelimit $((8 * MIB)) "$T/img"
	size_is "4 MiB" $((3 * MIB))
	truncate -s $((6 * MIB + 1000)) "$T/img"
	losetup -c "$LOOP"
	size_is "6 MiB and 1000 bytes" $((5 * MIB + 512))
	truncate -s 20M "$T/img"
	losetup -c "$LOOP"
	size_is "20 MiB" $((8 * MIB))
	truncate -s 512K "$T/img"
	losetup -c "$LOOP"
	size_is "512 KiB" 0
	detach
}

# A device that is bound to a block device.
of_device() {
	local lower

	rm -f "$T/img"
	truncate -s 4M "$T/img"
	attach "$T/img"
	lower=$LOOP
	attach "$lower"
	truncate -s 6M "$T/img"
	losetup -c "$LOOP"
	size_is "the lower one not grown" $((4 * MIB))
	losetup -c "$lower"
	losetup -c "$LOOP"
	size_is "grown" $((6 * MIB))
	detach
	detach "$lower"
}

# at OFFSET: written through the device, then read from the file and through the device.
at() {
	dd if="$T/block" of="$LOOP" bs=4k oflag=direct,seek_bytes seek="$1" \
		conv=notrunc 2>/dev/null
	cmp -n 4096 "$T/block" <(dd if="$FILE" bs=4k count=1 \
		iflag=skip_bytes skip="$1" 2>/dev/null)
	blockdev --flushbufs "$LOOP"
	cmp -n 4096 "$T/block" <(dd if="$LOOP" bs=4k count=1 \
		iflag=skip_bytes skip="$1" 2>/dev/null)
}

# large TYPE SIZE [LOSETUP-OPTIONS...]
large() {
	local size=$2

	need_scratch
	scratch_fs "$1" "$T/fs" "$SCRATCH_DEV" 320M
	FILE=$T/fs/file
	shift 2
	truncate -s "$size" "$FILE"
	attach "$@" "$FILE"
	size_is "size" "$size"
	at 0
	at $((2 * TIB - 4096))
	at $((2 * TIB))
	at $((size - 4096))
	want_error "No space" dd if="$T/block" of="$LOOP" bs=4k count=1 \
		oflag=direct,seek_bytes seek="$size" conv=notrunc
	want "read past the end" "$(dd if="$LOOP" bs=4k count=1 iflag=skip_bytes \
		skip="$size" 2>/dev/null | wc -c)" 0
	blkdiscard -o $((size - 1048576)) -l 1048576 "$LOOP"
	cmp -n 1048576 /dev/zero <(tail -c 1048576 "$FILE")
	losetup -c "$LOOP"
	size_is "size" "$size"
	detach
	want "size of the file" "$(stat -c %s "$FILE")" "$size"
	# A window at the end of the file.
	attach -o $((size - 8192)) "$FILE"
	size_is "window" 8192
	at_window
	detach
	umount "$T/fs"
}

at_window() {
	dd if="$T/block" of="$LOOP" bs=4k seek=1 conv=notrunc,fsync 2>/dev/null
	cmp "$T/block" <(tail -c 4096 "$FILE")
}

test_begin 9
mkdir "$T/mnt"
pattern $((2 * MIB)) "$T/data" 1
pattern 4096 "$T/block" 2
need_driver

check "ext4 grows while it is mounted" grow ext4 16 32 18
check "xfs grows while it is mounted" grow xfs 300 340 250
check "growing under writes" under_io
check "shrinking, and growing again" shrink
check "offset and sizelimit" window
check "over another loop device" of_device
check "16 TiB on xfs" large xfs $((16 * TIB))
check "16 TiB on xfs, backing I/O direct" large xfs $((16 * TIB)) --direct-io=on
check "4 EiB on tmpfs" large tmpfs $((1 << 62))

test_end
