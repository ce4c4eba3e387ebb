#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# mount -o loop with its options, and the devices it makes, shares, refuses to
# make, and lets go of.
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

MIB=1048576

# show COLUMNS FILE: of each device on it, values separated by one space.
show() {
	losetup --noheadings --raw --output "$1" --associated "$2"
}

# Two file systems in one file, at 1 and at 9 MiB, with noise around them.
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
	# All there is room for, and no byte beyond.
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
	# Read-only because the file can't be written to.
	mkdir -p "$T/robind"
	mount --bind "$T" "$T/robind"
	mount -o remount,ro,bind "$T/robind"
	mount -o loop "$T/robind/fs" "$T/m1"
	want "RO, file on a read-only mount" "$(show RO "$T/fs" | xargs)" 1
	umount "$T/m1"
	wait_for 5 nothing_bound
	umount "$T/robind"
}

# The same image twice is the same device.
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
	# One that somebody else has attached is taken as it is, and left.
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
	# A read-only device isn't made one to write to by the next.
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
	# Without being told that it is a file.
	mount "$T/fs" "$T/m1"
	want "AUTOCLEAR" "$(show AUTOCLEAR "$T/fs" | xargs)" 1
	cmp "$T/src1/data" "$T/m1/data"
	umount "$T/m1"
	wait_for 5 nothing_bound
}

# Made by hand, it's there until it is told to go: by umount -d, or losetup.
by_hand() {
	attach "$T/fs"
	mount "$LOOP" "$T/m1"
	umount "$T/m1"
	want "device" "$(show NAME,AUTOCLEAR "$T/fs" | xargs)" "$LOOP 0"
	mount "$LOOP" "$T/m1"
	umount -d "$T/m1"
	wait_for 5 nothing_bound
}

# A mount that fails has no device left.
failing() {
	want_error "" mount -o loop -t ext4 "$T/other" "$T/m1"
	wait_for 5 nothing_bound
	want_error "" mount -o loop -t xfs "$T/fs" "$T/m1"
	wait_for 5 nothing_bound
	want_error "" mount -o loop,offset=1024 -t ext4 "$T/fs" "$T/m1"
	wait_for 5 nothing_bound
}

# Somebody still has it open after the last umount.
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

# A lazily unmounted one goes with the last file that is open on it.
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
check "ro, and a file that can't be written to" read_only
check "the same image twice is one device" twice
check "overlapping ranges are refused" overlap
check "loop=, and no loop option at all" named
check "umount -d" by_hand
check "a mount that fails leaves nothing" failing
check "the device is open when it is unmounted" busy
check "a lazy umount" lazy

test_end
