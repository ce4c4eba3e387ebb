#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Read-only devices and files refuse writes and stay unchanged.
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

MIB=1048576

unchanged() {
	cmp "$T/copy" "$1" || fail "the backing file has changed"
}

# Each way to write to $LOOP.
refuses() {
	want_error "not permitted" dd if=/dev/zero of="$LOOP" bs=4k count=1 conv=notrunc
	want_error "not permitted" dd if=/dev/zero of="$LOOP" bs=4k count=1 conv=notrunc oflag=direct
	want_error "not permitted" blkdiscard "$LOOP"
	want_error "not permitted" blkdiscard --zeroout "$LOOP"
	want_error "not permitted" mkfs.ext4 -qF "$LOOP"
}

by_flag() {
	attach --read-only "$T/file"
	want "getro" "$(blockdev --getro "$LOOP")" 1
	want "sysfs ro" "$(<"/sys/block/$L/ro")" 1
	refuses
	cmp "$LOOP" "$T/copy"
	detach
	unchanged "$T/file"
}

# losetup falls back to read-only if the file can't be opened for writing.
by_file_system() {
	mkdir "$T/ro"
	mount --bind "$T" "$T/ro"
	mount -o remount,bind,ro "$T/ro"
	attach "$T/ro/file"
	want "getro" "$(blockdev --getro "$LOOP")" 1
	refuses
	cmp "$LOOP" "$T/copy"
	detach
	umount "$T/ro"
	unchanged "$T/file"
}

# A device that was attached read-only can't be made writable.
setrw() {
	attach --read-only "$T/file"
	blockdev --setrw "$LOOP" || true
	want "getro" "$(blockdev --getro "$LOOP")" 1
	refuses
	detach
	unchanged "$T/file"
}

# A device that was attached writable can be made read-only and writable again.
setro() {
	attach "$T/file"
	blockdev --setro "$LOOP"
	want "getro" "$(blockdev --getro "$LOOP")" 1
	refuses
	unchanged "$T/file"
	blockdev --setrw "$LOOP"
	want "getro" "$(blockdev --getro "$LOOP")" 0
	dd if="$T/copy" of="$LOOP" bs=4k count=1 conv=notrunc,fsync 2>/dev/null
	detach
	unchanged "$T/file"
}

# A dirty file system can't be recovered on a read-only device.
mounted() {
	cp "$T/copy" "$T/img"
	mkfs.ext4 -qF "$T/img"
	cp "$T/img" "$T/img.copy"
	mkdir "$T/mnt"
	attach --read-only "$T/img"
	want_error "is write-protected" mount --read-write "$LOOP" "$T/mnt"
	mount -o ro "$LOOP" "$T/mnt"
	want_error "Read-only file system" touch "$T/mnt/x"
	want_error "is write-protected" mount -o remount,rw "$T/mnt"
	umount "$T/mnt"
	detach
	cmp "$T/img" "$T/img.copy"
}

# A read-only device has no write cache.
no_write_cache() {
	attach --read-only "$T/file"
	want "write cache" "$(<"/sys/block/$L/queue/write_cache")" \
		"write through"
	detach
	attach "$T/file"
	want "write cache of the next" \
		"$(<"/sys/block/$L/queue/write_cache")" "write back"
	detach
}

test_begin 6
pattern $((8 * MIB)) "$T/file" 6
cp "$T/file" "$T/copy"
need_driver

check "attached with --read-only" by_flag
check "a file on a read-only file system" by_file_system
check "blockdev --setrw does not make a read-only device writable" setrw
check "blockdev --setro and back" setro
check "a file system mounted from it" mounted
check "a read-only device has no write cache" no_write_cache

test_end
