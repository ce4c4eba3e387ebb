#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The file system of the backing file is full: the writer gets an error, nothing hangs, and I/O
# works again when space is freed.
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

MIB=1048576
LIMIT=$((30 * SLOW))

# full TYPE: a sparse file of 32 MiB on a file system with space for less than half of it.
full() {
	[ "$1" = tmpfs ] || need_scratch
	if [ "$1" = tmpfs ]; then
		scratch_fs tmpfs "$T/fs" none 8M
	else
		scratch_fs "$1" "$T/fs" "$SCRATCH_DEV" 32M
	fi
	truncate -s 32M "$T/fs/file"
}

finish() {
	timeout $LIMIT losetup -d "$LOOP" || fail "detach: $?"
	wait_for 10 gone
	timeout $LIMIT umount "$T/fs" || fail "umount: $?"
}

gone() {
	[ ! -e "/sys/block/$L/loop" ]
}

direct() {
	full "$1"
	shift
	attach "$@" "$T/fs/file"
	want_error "No space left on device" timeout $LIMIT \
		dd if="$T/data" of="$LOOP" bs=64k count=512 oflag=direct
	# Reads still work.
	dd if="$LOOP" of=/dev/null bs=64k count=16 iflag=direct 2>/dev/null
	finish
}

# Buffered writes: the writer gets the error of the writeback from fsync.
buffered() {
	full "$1"
	attach "$T/fs/file"
	# The page cache of a block device only reports EIO.
	want_error "fsync failed for '$LOOP': Input/output error" timeout $LIMIT \
		dd if="$T/data" of="$LOOP" bs=64k count=512 conv=fsync
	finish
}

# A flush without space: the backing file is on a file system on another loop device, whose backing
# file has no space. Backing I/O is buffered, so all writes succeeded.
flush() {
	local lower

	skip_on_c "it fails with EIO"
	full tmpfs
	attach "$T/fs/file"
	lower=$LOOP
	mkdir -p "$T/mnt"
	mkfs.ext4 -qF -O ^has_journal -E lazy_itable_init=0,nodiscard "$LOOP"
	mount -o noatime "$LOOP" "$T/mnt"
	fallocate -l 16M "$T/mnt/file"
	sync -f "$T/mnt"
	dd if=/dev/zero of="$T/fs/ballast" bs=64k 2>/dev/null || true
	attach "$T/mnt/file"
	timeout $LIMIT dd if="$T/data" of="$LOOP" bs=64k count=16 oflag=direct 2>/dev/null
	want_error "fsync failed for '$LOOP': No space left on device" timeout $LIMIT \
		dd if=/dev/null of="$LOOP" conv=notrunc,fsync
	rm "$T/fs/ballast"
	timeout $LIMIT losetup -d "$LOOP"
	wait_for 10 gone
	timeout $LIMIT umount "$T/mnt"
	LOOP=$lower L=${lower#/dev/}
	finish
}

# Write-zeroes that has to allocate blocks.
zeroes() {
	skip_on_c "it fails with EIO"
	full ext4
	attach "$T/fs/file"
	want_error "ioctl failed: No space left on device" timeout $LIMIT \
		blkdiscard -f --zeroout "$LOOP"
	finish
}

# With space again, the device works.
recovers() {
	full tmpfs
	attach "$T/fs/file"
	want_error "No space left on device" timeout $LIMIT \
		dd if="$T/data" of="$LOOP" bs=64k count=512 oflag=direct
	mount -o remount,size=64M "$T/fs"
	timeout $LIMIT dd if="$T/data" of="$LOOP" bs=64k oflag=direct
	cmp "$T/data" "$LOOP"
	cmp "$T/data" "$T/fs/file"
	finish
}

# The data of each acknowledged write must be in the file, also if the space ends during a write.
acknowledged() {
	local i

	skip_on_c "it reports success for a short write"
	full tmpfs
	attach "$T/fs/file"
	# The space ends within a request of 1 MiB.
	dd if=/dev/urandom of="$T/fs/ballast" bs=4k count=77 2>/dev/null
	for ((i = 0; i < 32; i++)); do
		dd if="$T/data" of="$LOOP" bs=1M count=1 skip=$i seek=$i \
			conv=notrunc oflag=direct 2>/dev/null || break
	done
	want_ge "MiB written" $i 4
	want_le "MiB written" $i 8
	cmp -n $((i * MIB)) "$T/data" "$T/fs/file" ||
		fail "the $i MiB that were acknowledged are not all in the file"
	finish
}

test_begin 9
pattern $((32 * MIB)) "$T/data" 3
need_driver

check "tmpfs, direct writes" direct tmpfs
check "tmpfs, direct writes, backing I/O direct" direct tmpfs --direct-io=on
check "tmpfs, buffered writes" buffered tmpfs
check "ext4, direct writes" direct ext4
check "ext4, direct writes, backing I/O direct" direct ext4 --direct-io=on
check "a flush reports ENOSPC" flush
check "write-zeroes on ext4" zeroes
check "the device works when there is space again" recovers
check "acknowledged writes are in the file" acknowledged

test_end
