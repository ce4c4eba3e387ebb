#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# mount -o loop with its options: the devices that it creates, shares, refuses to create, and
# detaches.
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

MIB=1048576

# show COLUMNS FILE: columns of losetup for each device on FILE, separated by one space.
show() {
	losetup --noheadings --raw --output "$1" --associated "$2"
}

# Two file systems in one file, at 1 and at 9 MiB, with random bytes around them.
window() {
	pattern $((20 * MIB)) "$T/two" 3
	cp "$T/two" "$T/noise"
	mke2fs -qF -t ext4 -L first -d "$T/src1" -E offset=$MIB "$T/two" 8M
	mke2fs -qF -t ext4 -L second -d "$T/src2" -E offset=$((9 * MIB)) \
		"$T/two" 8M
	mount -o "loop,offset=$MIB,sizelimit=$((8 * MIB))" "$T/two" "$T/m1"
	mount -o "loop,offset=$((9 * MIB)),sizelimit=$((8 * MIB))" "$T/two" "$T/m2"
	want "devices" "$(show OFFSET,SIZELIMIT,RO,AUTOCLEAR "$T/two" | sort -n | xargs)" \
		"$MIB $((8 * MIB)) 0 1 $((9 * MIB)) $((8 * MIB)) 0 1"
	cmp "$T/src1/data" "$T/m1/data"
	cmp "$T/src2/data" "$T/m2/data"
	cp "$T/src2/data" "$T/m1/more"
	# Fills the file system, which has no byte beyond the limit.
	dd if=/dev/zero of="$T/m1/full" bs=64k 2>/dev/null && fail "no end"
	rm "$T/m2/data"
	umount "$T/m1" "$T/m2"
	wait_for 5 nothing_bound
	cmp -n $MIB "$T/noise" "$T/two"
	cmp -i $((17 * MIB)) "$T/noise" "$T/two"
	mount -o "loop,ro,offset=$MIB,sizelimit=$((8 * MIB))" "$T/two" "$T/m1"
	cmp "$T/src2/data" "$T/m1/more"
	umount "$T/m1"
	wait_for 5 nothing_bound
	rm "$T/two" "$T/noise"
}

read_only() {
	local before

	before=$(sha256sum <"$T/fs")
	mount -o loop,ro "$T/fs" "$T/m1"
	want "RO" "$(show RO "$T/fs" | xargs)" 1
	want_error "Read-only" touch "$T/m1/new"
	cmp "$T/src1/data" "$T/m1/data"
	want_error "write-protected" mount -o remount,rw "$T/m1"
	umount "$T/m1"
	wait_for 5 nothing_bound
	[ "$(sha256sum <"$T/fs")" = "$before" ] || fail "the image has changed"
	# Read-only because the file is not writable.
	mkdir -p "$T/robind"
	mount --bind "$T" "$T/robind"
	mount -o remount,ro,bind "$T/robind"
	mount -o loop "$T/robind/fs" "$T/m1"
	want "RO, file on a read-only mount" "$(show RO "$T/fs" | xargs)" 1
	umount "$T/m1"
	wait_for 5 nothing_bound
	umount "$T/robind"
}

# The same image mounted twice is one device.
twice() {
	mount -o loop "$T/fs" "$T/m1"
	mount -o loop "$T/fs" "$T/m2"
	want "devices" "$(lib_bound | wc -w)" 1
	cp "$T/src2/data" "$T/m1/seen"
	cmp "$T/src2/data" "$T/m2/seen"
	rm "$T/m2/seen"
	umount "$T/m1"
	cmp "$T/src1/data" "$T/m2/data"
	want "devices" "$(lib_bound | wc -w)" 1
	umount "$T/m2"
	wait_for 5 nothing_bound
	# mount uses a device that another program attached without changes; it stays attached.
	attach "$T/fs"
	mount -o loop "$T/fs" "$T/m1"
	want "source" "$(findmnt -no SOURCE "$T/m1")" "$LOOP"
	umount "$T/m1"
	want "device" "$(show NAME,AUTOCLEAR "$T/fs" | xargs)" "$LOOP 0"
	detach
}

overlap() {
	mount -o loop "$T/fs" "$T/m1"
	want_error "overlapping" mount -o loop,offset=4096 "$T/fs" "$T/m2"
	want "devices" "$(lib_bound | wc -w)" 1
	umount "$T/m1"
	wait_for 5 nothing_bound
	# A read-only device is not made writable by the next mount.
	mount -o loop,ro "$T/fs" "$T/m1"
	mount -o loop,rw "$T/fs" "$T/m2"
	want "RO" "$(show RO "$T/fs" | xargs)" 1
	want_error "Read-only" touch "$T/m2/new"
	umount "$T/m2" "$T/m1"
	wait_for 5 nothing_bound
}

named() {
	mount -o loop=/dev/loop2 "$T/fs" "$T/m1"
	want "NAME,AUTOCLEAR" "$(show NAME,AUTOCLEAR "$T/fs" | xargs)" "/dev/loop2 1"
	cp "$T/other" "$T/other2"
	want_error "" mount -o loop=/dev/loop2 "$T/other2" "$T/m2"
	umount "$T/m1"
	wait_for 5 nothing_bound
	# Without the option "loop".
	mount "$T/fs" "$T/m1"
	want "AUTOCLEAR" "$(show AUTOCLEAR "$T/fs" | xargs)" 1
	cmp "$T/src1/data" "$T/m1/data"
	umount "$T/m1"
	wait_for 5 nothing_bound
}

# A device attached by hand stays attached until umount -d or losetup.
by_hand() {
	attach "$T/fs"
	mount "$LOOP" "$T/m1"
	umount "$T/m1"
	want "device" "$(show NAME,AUTOCLEAR "$T/fs" | xargs)" "$LOOP 0"
	mount "$LOOP" "$T/m1"
	umount -d "$T/m1"
	wait_for 5 nothing_bound
}

# A failed mount leaves no device.
failing() {
	want_error "" mount -o loop -t ext4 "$T/other" "$T/m1"
	wait_for 5 nothing_bound
	want_error "" mount -o loop -t xfs "$T/fs" "$T/m1"
	wait_for 5 nothing_bound
	want_error "" mount -o loop,offset=1024 -t ext4 "$T/fs" "$T/m1"
	wait_for 5 nothing_bound
}

# Another program has the device open at the last umount.
busy() {
	local fd

	mount -o loop "$T/fs" "$T/m1"
	LOOP=$(findmnt -no SOURCE "$T/m1")
	exec {fd}<"$LOOP"
	umount "$T/m1"
	want "device" "$(show NAME,AUTOCLEAR "$T/fs" | xargs)" "$LOOP 1"
	want "size" "$(blockdev --getsize64 "$LOOP")" $((8 * MIB))
	exec {fd}<&-
	wait_for 5 nothing_bound
}

# After a lazy umount the device stays until its last open file is closed.
lazy() {
	local fd

	mount -o loop "$T/fs" "$T/m1"
	exec {fd}<"$T/m1/data"
	umount -l "$T/m1"
	want "devices" "$(lib_bound | wc -w)" 1
	cmp "$T/src1/data" "/dev/fd/$fd"
	exec {fd}<&-
	wait_for 5 nothing_bound
	e2fsck -fn "$T/fs"
}

test_begin 9
mkdir "$T/src1" "$T/src2" "$T/m1" "$T/m2"
pattern $MIB "$T/src1/data" 1
pattern $((2 * MIB)) "$T/src2/data" 2
truncate -s 8M "$T/fs"
mke2fs -qF -t ext4 -d "$T/src1" "$T/fs"
pattern $MIB "$T/other" 4
need_driver max_loop=3

check "offset=, sizelimit=: two file systems in one file" window
check "ro, and a file that is not writable" read_only
check "the same image twice is one device" twice
check "overlapping ranges are refused" overlap
check "loop=, and no loop option" named
check "umount -d" by_hand
check "a failed mount leaves no device" failing
check "the device is open when it is unmounted" busy
check "a lazy umount" lazy

test_end
