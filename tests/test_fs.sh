#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# File systems on a loop device, with real files, checked with the tools of the file system.
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"
. "$LIB_DIR/proofs.sh"

# on_loop TYPE BACKING-MODE: uses a file system, and mounts it again after a detach. The backing
# file is on tmpfs.
on_loop() {
	local fs=$1 opts=() mnt=$T/mnt tree cp

	need_fs "$fs"
	[ "$fs" != f2fs ] || need_f2fs
	[ "$2" = buffered ] || opts+=(--direct-io=on)
	mkdir -p "$mnt"
	truncate -s 400M "$T/img"
	attach "${opts[@]}" "$T/img"
	case $fs in
	ext4)	mkfs.ext4 -qF "$LOOP" ;;
	vfat)	mkfs.vfat "$LOOP" >/dev/null ;;
	*)	"mkfs.$fs" -qf "$LOOP" ;;
	esac
	mount "$LOOP" "$mnt"
	# vfat has no links, owners and permissions.
	case $fs in
	vfat)	tree=$T/plain cp="cp -r" ;;
	*)	tree=$T/tree cp="cp -a" ;;
	esac
	$cp "$tree" "$mnt/tree"
	# With direct I/O while mounted, with deletions in between.
	dd if=/dev/urandom of="$T/random" bs=64k count=16 2>/dev/null
	dd if="$T/random" of="$mnt/direct" bs=64k oflag=direct 2>/dev/null
	$cp "$mnt/tree/etc" "$mnt/copy"
	rm -r "$mnt/copy"
	fstrim "$mnt"
	umount "$mnt"
	detach

	attach "${opts[@]}" "$T/img"
	case $fs in
	ext4)	e2fsck -fn "$LOOP" ;;
	xfs)	xfs_repair -n "$LOOP" ;;
	btrfs)	btrfs check --readonly "$LOOP" ;;
	f2fs)	fsck.f2fs --dry-run "$LOOP" ;;
	vfat)	fsck.vfat -n "$LOOP" ;;
	esac
	mount "$LOOP" "$mnt"
	if [ "$fs" = vfat ]; then
		diff -r "$tree" "$mnt/tree"
	else
		sums "$mnt/tree" "$T/sums.read"
		cmp "$T/sums" "$T/sums.read"
	fi
	cmp "$T/random" "$mnt/direct"
	umount "$mnt"
	detach
	rm "$T/img"
}

# need_fs TYPE: skips the case if the kernel does not have it.
need_fs() {
	modprobe -q "$1" || grep -qw "$1" /proc/filesystems || skip "no $1 in this kernel"
}

# image PROGRAM ARGUMENTS...: a read-only file system, created as a file from a tree.
image() {
	local type=$1

	shift
	need_fs "$type"
	mkdir -p "$T/mnt"
	rm -f "$T/img"
	"$@" >/dev/null
	mount -t "$type" -o loop,ro "$T/img" "$T/mnt"
	want "RO" "$(losetup -nO RO -j "$T/img" | xargs)" 1
	sums "$T/mnt" "$T/sums.read"
	cmp "$T/sums" "$T/sums.read"
	umount "$T/mnt"
	# With direct I/O, by more than one reader.
	attach -r --direct-io=on "$T/img"
	mount -t "$type" "$LOOP" "$T/mnt"
	(cd "$T/mnt" && find . -type f -print0 | xargs -0 -P 4 -n 16 sha256sum) |
		sort >"$T/read"
	(cd "$T/tree" && find . -type f -print0 | xargs -0 sha256sum) |
		sort | cmp - "$T/read"
	umount "$T/mnt"
	detach
	rm "$T/img"
}

test_begin 8
copy_tree "$T/tree" 6
sums "$T/tree" "$T/sums"
mkdir "$T/plain"
cp -r "$T/tree/etc" "$T/plain"
find "$T/plain" ! -type f ! -type d -delete
need_driver

check "ext4" on_loop ext4 buffered
check "xfs" on_loop xfs buffered
check "btrfs" on_loop btrfs buffered
check "ext4, backing I/O direct" on_loop ext4 direct
check "f2fs" on_loop f2fs buffered
check "vfat" on_loop vfat buffered
check "squashfs" image squashfs mksquashfs "$T/tree" "$T/img" -quiet \
	-no-progress -comp gzip -Xcompression-level 1
check "erofs" image erofs mkfs.erofs --quiet -zlz4 "$T/img" "$T/tree"

test_end
