#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The file system under the backing file is full: an error for who writes, nothing
# hangs, and it goes on when there is space again.
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

MIB=1048576
LIMIT=$((30 * SLOW))

# full TYPE: a sparse file of 32 MiB where less than half of it fits.
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
	# Reading goes on.
	dd if="$LOOP" of=/dev/null bs=64k count=16 iflag=direct 2>/dev/null
	finish
}

# By the time of the write-back the writer is told at fsync.
buffered() {
	full "$1"
	attach "$T/fs/file"
	# The page cache of a block device knows of no other error.
	want_error "fsync failed for '$LOOP': Input/output error" timeout $LIMIT \
		dd if="$T/data" of="$LOOP" bs=64k count=512 conv=fsync
	finish
}

# A flush for which there is no space: that of a file on a file system, the device of which, another
# loop device, has none. The file is buffered, so that it took all that was written.
flush() {
	local lower

	skip_on_c "it ends with EIO"
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

# Zeroes for which blocks have to be allocated.
zeroes() {
	skip_on_c "it ends with EIO"
	full ext4
	attach "$T/fs/file"
	want_error "ioctl failed: No space left on device" timeout $LIMIT \
		blkdiscard -f --zeroout "$LOOP"
	finish
}

# Room again: the device was not broken by it.
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

# Each write that was said to have worked must be there: also the one that the
# end of the space came in the middle of.
acknowledged() {
	local i

	skip_on_c "it ends a write that came out short with success"
	full tmpfs
	attach "$T/fs/file"
	# So that 1 MiB is one request, and the space ends inside of one.
	dd if=/dev/urandom of="$T/fs/ballast" bs=4k count=77 2>/dev/null
	for ((i = 0; i < 32; i++)); do
		dd if="$T/data" of="$LOOP" bs=1M count=1 skip=$i seek=$i \
			conv=notrunc oflag=direct 2>/dev/null || break
	done
	want_ge "MiB written" $i 4
	want_le "MiB written" $i 8
	cmp -n $((i * MIB)) "$T/data" "$T/fs/file" ||
		fail "MiB $i and before were written, it was said"
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
check "a flush" flush
check "write-zeroes on ext4" zeroes
check "space again" recovers
check "no write was acknowledged that is not there" acknowledged

test_end
