#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# After a flush, data and metadata of the backing file are on stable storage, also if only metadata
# has changed: extents that were zeroed, discarded or allocated. The test checks the disk as a power
# cut would leave it; test_cuts.sh cuts at random.
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

MIB=1048576
DISK=loop_rs-disk
COW=loop_rs-cow
SNAP=loop_rs-snap
SIZE=$((256 * 2048))

need_targets() {
	need_scratch
	[ -b "${SCRATCH_DEV2:-}" ] || skip "SCRATCH_DEV2 is not a block device"
	modprobe -qa dm-snapshot || true
	dmsetup targets 2>/dev/null | grep -q '^snapshot ' || skip "no dm target snapshot"
}

# as_cut FUNCTION...: calls the function while a snapshot of the disk is mounted at $T/cut.
as_cut() {
	# The mounted file system cannot change the disk meanwhile.
	dmsetup suspend --noflush --nolockfs $DISK
	dm_create $SNAP "0 $SIZE snapshot $SCRATCH_DEV /dev/mapper/$COW N 8"
	mount -t f2fs -o noatime /dev/mapper/$SNAP "$T/cut"
	"$@"
	umount "$T/cut"
	dm_remove $SNAP
	dmsetup --noudevsync resume $DISK
}

zeroes() {
	cmp -n $MIB -i "$1":0 "$T/cut/file" /dev/zero
}

same() {
	cmp -n $MIB -i "$1" "$T/cut/file" "$T/model"
}

# f2fs BACKING: each operation is followed by a flush. fdatasync of f2fs does not write the nodes
# that FALLOC_FL_ZERO_RANGE has changed.
f2fs() {
	need_targets
	need_f2fs
	trap release_io EXIT
	mkdir -p "$T/fs" "$T/cut"
	dm_create $DISK "0 $SIZE linear $SCRATCH_DEV 0"
	dm_create $COW "0 $SIZE linear $SCRATCH_DEV2 0"
	wipefs -qa /dev/mapper/$DISK
	mkfs.f2fs -fq /dev/mapper/$DISK >/dev/null
	# noextent_cache: otherwise f2fs has the longest extent in the inode, which is always
	# written.
	mount -t f2fs -o noatime,noextent_cache /dev/mapper/$DISK "$T/fs"
	pattern $((48 * MIB)) "$T/model" 7
	pattern $((40 * MIB)) "$T/fs/file" 7
	truncate -s 48M "$T/fs/file"
	sync -f "$T/fs"
	attach --direct-io="$1" "$T/fs/file"

	blkdiscard -z -o $((16 * MIB)) -l $MIB "$LOOP"
	sync "$LOOP"
	as_cut zeroes $((16 * MIB))
	fallocate -p -o $((24 * MIB)) -l $MIB "$LOOP"
	sync "$LOOP"
	as_cut zeroes $((24 * MIB))
	blkdiscard -o $((32 * MIB)) -l $MIB "$LOOP"
	sync "$LOOP"
	as_cut zeroes $((32 * MIB))
	# Writes to a hole.
	dd if="$T/model" of="$LOOP" bs=64k seek=640 skip=640 count=16 oflag=direct \
		conv=notrunc status=none
	sync "$LOOP"
	as_cut same $((40 * MIB))
	# Writes to a zeroed extent.
	dd if="$T/model" of="$LOOP" bs=64k seek=256 skip=256 count=16 oflag=direct \
		conv=notrunc status=none
	sync "$LOOP"
	as_cut same $((16 * MIB))

	detach
	umount "$T/fs"
	dm_remove $DISK
	dm_remove $COW
}

# Resumes the disk, also after a failure.
release_io() {
	dmsetup --noudevsync resume $DISK || true
} 2>/dev/null

test_begin 2
LIB_DMS+=("$SNAP" "$DISK" "$COW")
need_driver

check "a file on f2fs, backing I/O buffered" f2fs off
check "a file on f2fs, backing I/O direct" f2fs on

test_end
