#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# File systems on a loop device, with real files, checked by their own tools.
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"
. "$LIB_DIR/proofs.sh"

# on_loop TYPE BACKING-MODE: the device on tmpfs, mounted again after a detach.
on_loop() {
	local fs=$1 opts=() mnt=$T/mnt

	command -v "mkfs.$fs" >/dev/null || skip "no mkfs.$fs"
	[ "$2" = buffered ] || opts+=(--direct-io=on)
	mkdir -p "$mnt"
	truncate -s 400M "$T/img"
	attach "${opts[@]}" "$T/img"
	case $fs in
	ext4)	mkfs.ext4 -qF "$LOOP" ;;
	*)	"mkfs.$fs" -qf "$LOOP" ;;
	esac
	mount "$LOOP" "$mnt"
	cp -a "$T/tree" "$mnt/tree"
	# Past the page cache while mounted, with deletions in between.
	dd if=/dev/urandom of="$T/random" bs=64k count=16 2>/dev/null
	dd if="$T/random" of="$mnt/direct" bs=64k oflag=direct 2>/dev/null
	cp -a "$mnt/tree/etc" "$mnt/copy"
	rm -r "$mnt/copy"
	fstrim "$mnt"
	umount "$mnt"
	detach

	attach "${opts[@]}" "$T/img"
	case $fs in
	ext4)	e2fsck -fn "$LOOP" ;;
	xfs)	xfs_repair -n "$LOOP" ;;
	btrfs)	btrfs check --readonly "$LOOP" ;;
	esac
	mount "$LOOP" "$mnt"
	sums "$mnt/tree" "$T/sums.read"
	cmp "$T/sums" "$T/sums.read"
	cmp "$T/random" "$mnt/direct"
	umount "$mnt"
	detach
	rm "$T/img"
}

test_begin 4
copy_tree "$T/tree" 6
sums "$T/tree" "$T/sums"
need_driver

check "ext4" on_loop ext4 buffered
check "xfs" on_loop xfs buffered
check "btrfs" on_loop btrfs buffered
check "ext4, backing I/O direct" on_loop ext4 direct

test_end
