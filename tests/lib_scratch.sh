# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034
#
# File systems and block devices for a test. Sourced by lib.sh.

# Added to the command line of mkfs.xfs.
MKFS_OPTIONS=

# Skips the case without a device that mkfs may overwrite. Tests resolve its name with readlink,
# since they need its sysfs directory and device number.
need_scratch() {
	[ -b "${SCRATCH_DEV:-}" ] || skip "SCRATCH_DEV is not a block device"
}

have_scratch() {
	[ -b "${SCRATCH_DEV:-}" ]
}

# scratch_fs TYPE DIR [DEVICE [SIZE]]: creates and mounts a file system. Only the test may write to
# it, hence no lazy initialization.
scratch_fs() {
	local type=$1 dir=$2 dev=${3:-${SCRATCH_DEV:-}} size=${4:-1G}

	mkdir -p "$dir"
	case $type in
	tmpfs)
		mount -t tmpfs -o size="$size" none "$dir"
		return
		;;
	ext4)
		wipefs -qa "$dev"
		mkfs.ext4 -qF -E lazy_itable_init=0,lazy_journal_init=0 \
			  -J size=4 -N 2048 "$dev" "$size"
		;;
	xfs)
		# shellcheck disable=SC2086 # several words
		mkfs.xfs -qf $MKFS_OPTIONS -d size="$size" "$dev"
		;;
	btrfs)
		mkfs.btrfs -qf -b "$size" "$dev"
		;;
	f2fs)
		need_f2fs
		mkfs.f2fs -qf "$dev" "$((${size%M} * 2048))" >/dev/null
		;;
	vfat)
		mkfs.vfat -F 32 "$dev" >/dev/null
		;;
	esac
	mount -t "$type" -o noatime "$dev" "$dir"
}

# f2fs has blocks of the size of a page. Larger ones need a larger disk.
need_f2fs() {
	modprobe -q f2fs || grep -qw f2fs /proc/filesystems || skip "no f2fs in this kernel"
	[ "$PAGE" = 4096 ] || skip "f2fs with pages of $PAGE bytes"
}

# Device-mapper devices of the test. Without udev, mknodes creates and removes their nodes.
dm_create() {
	dmsetup --noudevsync create "$1" --table "$2"
	dmsetup mknodes "$1"
	[ -b "/dev/mapper/$1" ] || fail "no /dev/mapper/$1"
}

dm_remove() {
	dmsetup --noudevsync remove --retry "$1"
	dmsetup mknodes "$1"
}

# dm_swap NAME TABLE: replaces the table without writeback, like a change of the hardware.
dm_swap() {
	dmsetup suspend --noflush --nolockfs "$1"
	dmsetup load "$1" --table "$2"
	dmsetup --noudevsync resume "$1"
}

# pattern SIZE FILE [SEED]: writes contents that depend on the offset and the seed.
pattern() {
	"$LIB_DIR/loop_io" pattern "$2" "$1" "${3:-1}"
}

# The number of 512-byte blocks of a file.
blocks_of() {
	stat -c %b "$1"
}
