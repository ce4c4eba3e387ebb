#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Loop devices below device-mapper, LUKS, md and LVM, below other loop devices, and over block
# devices: the data must be right through all layers, also after the stack was removed and set up
# again.
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

MIB=1048576
MD=/dev/md9
VG=loop_rs_vg
# There may be no udev to wait for or to create nodes.
export DM_DISABLE_UDEV=1 MDADM_NO_UDEV=1
LVM_CONFIG='
	devices { dir="/dev" scan=["/dev"] use_devicesfile=0
		filter=["a|^/dev/loop|", "r|.*|"] }
	activation { udev_sync=0 udev_rules=0 monitoring=0 }'

lvm_run() {
	LVM_SUPPRESS_FD_WARNINGS=1 lvm "$@" --config "$LVM_CONFIG"
}

# images SIZE NAME...: creates empty images.
images() {
	local size=$1 n

	shift
	for n in "$@"; do
		rm -f "$T/$n"
		truncate -s "$size" "$T/$n"
	done
}

# Cleans up after a failed case; does nothing after a case that passed.
undo() {
	set +e
	umount "$T/mnt"
	cryptsetup close loop_rs-luks
	mdadm --stop $MD
	lvm_run vgchange -an $VG
} >/dev/null 2>&1

# put FILE DEVICE OFFSET, same FILE DEVICE OFFSET: writes or compares all of FILE at the offset,
# with direct I/O.
put() {
	dd if="$1" of="$2" bs=1M seek="$3" oflag=seek_bytes,direct conv=notrunc \
		2>/dev/null
}

same() {
	blockdev --flushbufs "$2"
	cmp -i "0:$3" -n "$(stat -c %s "$1")" "$1" "$2"
}

linear() {
	local a b

	images 8M a b
	attach "$T/a"
	a=$LOOP
	attach --direct-io=on "$T/b"
	b=$LOOP
	# The halves swapped, with a part of each left out.
	dmsetup --noudevsync create loop_rs-linear <<-END
		0 8192 linear $b 4096
		8192 8192 linear $a 8192
	END
	put "$T/data" /dev/mapper/loop_rs-linear $MIB
	mkfs.ext4 -qF -E offset=$((6 * MIB)) /dev/mapper/loop_rs-linear 2M
	same "$T/data" /dev/mapper/loop_rs-linear $MIB
	want_error "in use" mkfs.ext4 -qF "$a"
	dm_remove loop_rs-linear
	detach "$a"
	detach "$b"
	# 4 MiB of data at 1 MiB: 3 MiB to the first segment, the rest to the second.
	cmp -i 0:$((3 * MIB)) -n $((3 * MIB)) "$T/data" "$T/b"
	cmp -i $((3 * MIB)):$((4 * MIB)) -n $MIB "$T/data" "$T/a"
	e2fsck -fn "$T/a?offset=$((6 * MIB))"
}

luks() {
	trap undo EXIT
	modprobe -q dm_crypt || [ ! -d /lib/modules ] || skip "no dm-crypt"
	images 16M a
	attach "$T/a"
	printf secret | cryptsetup -q luksFormat --type luks2 --pbkdf pbkdf2 \
		--pbkdf-force-iterations 1000 --luks2-metadata-size 16k \
		--luks2-keyslots-size 512k "$LOOP" -
	printf secret | cryptsetup open "$LOOP" loop_rs-luks --key-file -
	mkfs.ext4 -qF /dev/mapper/loop_rs-luks
	mount /dev/mapper/loop_rs-luks "$T/mnt"
	cp "$T/data" "$T/mnt/data"
	umount "$T/mnt"
	cryptsetup close loop_rs-luks
	detach
	attach --direct-io=on "$T/a"
	printf secret | cryptsetup open "$LOOP" loop_rs-luks --key-file -
	e2fsck -fn /dev/mapper/loop_rs-luks
	mount /dev/mapper/loop_rs-luks "$T/mnt"
	cmp "$T/data" "$T/mnt/data"
	umount "$T/mnt"
	cryptsetup close loop_rs-luks
	detach
}

# A leg fails, misses writes and is added again.
raid1() {
	local a b

	trap undo EXIT
	modprobe -q raid1 || [ ! -d /lib/modules ] || skip "no raid1"
	images 16M a b
	attach "$T/a"
	a=$LOOP
	attach "$T/b"
	b=$LOOP
	mdadm --create $MD --run --level=1 --raid-devices=2 --metadata=1.2 \
		--bitmap=internal --assume-clean "$a" "$b"
	put "$T/data" $MD 0
	mdadm $MD --fail "$b"
	mdadm $MD --remove "$b"
	put "$T/data2" $MD $((6 * MIB))
	mdadm $MD --re-add "$b"
	# mdadm returns 1 if there was nothing to wait for.
	mdadm --wait $MD || :
	want "legs" "$(cat /sys/block/md9/md/degraded)" 0
	mdadm $MD --fail "$a"
	echo 3 >/proc/sys/vm/drop_caches
	same "$T/data" $MD 0
	same "$T/data2" $MD $((6 * MIB))
	mdadm --stop $MD
	detach "$a"
	detach "$b"
	# The leg that was added again, alone.
	attach "$T/b"
	mdadm --assemble --run $MD "$LOOP"
	same "$T/data" $MD 0
	same "$T/data2" $MD $((6 * MIB))
	mdadm --stop $MD
	detach
}

lvm_volumes() {
	local n d=()

	can_write_mounted || skip "the kernel has no CONFIG_BLK_DEV_WRITE_MOUNTED"
	trap undo EXIT
	images 16M a b
	for n in a b; do
		attach "$T/$n"
		d+=("$LOOP")
	done
	lvm_run vgcreate -q -s 1M $VG "${d[@]}"
	lvm_run lvcreate -q -Wn -n lv -l 10 $VG
	mkfs.ext4 -qF /dev/$VG/lv
	mount /dev/$VG/lv "$T/mnt"
	cp "$T/data" "$T/mnt/data"
	# Extended online onto the second device.
	lvm_run lvextend -q -l 26 $VG/lv
	resize2fs /dev/$VG/lv
	cp "$T/data2" "$T/mnt/data2"
	umount "$T/mnt"
	lvm_run vgchange -q -an $VG
	for n in "${d[@]}"; do
		detach "$n"
	done
	# Attach the devices in another order: LVM finds them by their contents.
	for n in b a; do
		attach "$T/$n"
	done
	lvm_run vgchange -q -ay $VG
	e2fsck -fn /dev/$VG/lv
	mount /dev/$VG/lv "$T/mnt"
	cmp "$T/data" "$T/mnt/data"
	cmp "$T/data2" "$T/mnt/data2"
	umount "$T/mnt"
	lvm_run vgchange -q -an $VG
	losetup -D
	wait_for 5 nothing_bound
}

# A device over a device over a device: a window of a window of a window, alternating buffered and
# direct.
three() {
	local l1 l2 l3 before

	images 16M a
	attach "$T/a"
	l1=$LOOP
	attach -o $MIB --direct-io=on "$l1"
	l2=$LOOP
	attach -o $MIB --sizelimit $((8 * MIB)) "$l2"
	l3=$LOOP
	want "sizes" "$(blockdev --getsize64 "$l1" "$l2" "$l3" | xargs)" \
		"$((16 * MIB)) $((15 * MIB)) $((8 * MIB))"
	put "$T/data" "$l3" $((2 * MIB))
	blockdev --flushbufs "$l3"
	blockdev --flushbufs "$l2"
	blockdev --flushbufs "$l1"
	cmp -i 0:$((4 * MIB)) -n $((4 * MIB)) "$T/data" "$T/a"
	# A discard punches a hole in the lowest file.
	before=$(blocks_of "$T/a")
	blkdiscard -o $((3 * MIB)) -l $((2 * MIB)) "$l3"
	want "blocks freed" $((before - $(blocks_of "$T/a"))) $((2 * MIB / 512))
	cmp -n $MIB "$T/data" <(tail -c +$((2 * MIB + 1)) "$l3")
	cmp -n $((2 * MIB)) /dev/zero <(tail -c +$((3 * MIB + 1)) "$l3")
	detach "$l3"
	detach "$l2"
	detach "$l1"
}

# The lowest device is detached first, and is released last.
from_below() {
	local l1 l2 l3

	images 16M a
	attach "$T/a"
	l1=$LOOP
	attach "$l1"
	l2=$LOOP
	attach "$l2"
	l3=$LOOP
	mkfs.ext4 -qF "$l3"
	mount "$l3" "$T/mnt"
	losetup -d "$l1"
	losetup -d "$l2"
	losetup -d "$l3"
	want "bound" "$(lib_bound | wc -w)" 3
	cp "$T/data" "$T/mnt/data"
	sync -f "$T/mnt/data"
	echo 3 >/proc/sys/vm/drop_caches
	cmp "$T/data" "$T/mnt/data"
	umount "$T/mnt"
	wait_for 5 nothing_bound
	e2fsck -fn "$T/a"
}

# fsync on top of three devices reaches the disk below.
flush_below() {
	local l1 l2 before written

	need_scratch
	scratch_fs ext4 "$T/fs" "$SCRATCH_DEV" 64M
	truncate -s 16M "$T/fs/file"
	attach "$T/fs/file"
	l1=$LOOP
	attach "$l1"
	l2=$LOOP
	attach "$l2"
	sync
	before=$(disk_stat "${SCRATCH_DEV#/dev/}" 16)
	written=$(disk_stat "${SCRATCH_DEV#/dev/}" 7)
	dd if="$T/data" of="$LOOP" bs=1M conv=notrunc,fsync 2>/dev/null
	want_ge "flushes" \
		$(($(disk_stat "${SCRATCH_DEV#/dev/}" 16) - before)) 1
	want_ge "sectors written" \
		$(($(disk_stat "${SCRATCH_DEV#/dev/}" 7) - written)) $((4 * MIB / 512))
	echo 3 >/proc/sys/vm/drop_caches
	cmp -n $((4 * MIB)) "$T/data" "$T/fs/file"
	detach
	detach "$l2"
	detach "$l1"
	umount "$T/fs"
}

recursion() {
	local l1 free

	images 8M a
	free=$(losetup -f)
	want_error "" losetup "$free" "$free"
	want "bound" "$(lib_bound)" ""
	attach "$T/a"
	l1=$LOOP
	# Over a device without a backing file.
	free=$(losetup -f)
	losetup "/dev/loop5" "$T/a"
	detach /dev/loop5
	want_error "Invalid argument" losetup "$free" /dev/loop5
	want "bound" "$(lib_bound)" "${l1#/dev/}"
	detach "$l1"
	# A stack of eight levels is not refused as a recursion.
	LOOP=$T/a
	for free in 1 2 3 4 5 6 7 8; do
		attach "$LOOP"
	done
	put "$T/data" "$LOOP" $MIB
	losetup -D
	wait_for 10 nothing_bound
	cmp -i 0:$MIB -n $((4 * MIB)) "$T/data" "$T/a"
}

# Size, limits and contents of a block device.
on_bdev() {
	local dev=$1 size

	size=$(blockdev --getsize64 "$dev")
	attach "$dev"
	want "size" "$(blockdev --getsize64 "$LOOP")" "$size"
	want "BACK-FILE" "$(losetup -nO BACK-FILE "$LOOP" | xargs)" "$dev"
	put "$T/data" "$LOOP" $MIB
	same "$T/data" "$dev" $MIB
	put "$T/data2" "$dev" $MIB
	losetup --direct-io=on "$LOOP"
	same "$T/data2" "$LOOP" $MIB
	want_error "No space" dd if="$T/data" of="$LOOP" bs=1M oflag=direct \
		conv=notrunc seek=$((size / MIB - 1))
	put "$T/data" "$LOOP" $((size - 4 * MIB))
	same "$T/data" "$dev" $((size - 4 * MIB))
	if [ "$(<"/sys/block/$L/queue/discard_max_bytes")" -gt 0 ]; then
		blkdiscard -f -o $MIB -l $MIB "$LOOP"
		cmp -n $MIB /dev/zero <(tail -c +$((MIB + 1)) "$dev")
	else
		want_error "not supported" blkdiscard -f "$LOOP"
	fi
	same "$T/data" "$dev" $((size - 4 * MIB))
	mkfs.ext4 -qF "$LOOP" 8M
	mount "$LOOP" "$T/mnt"
	want_error "" mkfs.ext4 -qF "$LOOP"
	umount "$T/mnt"
	detach
	e2fsck -fn "$dev"
}

bdev_scratch() {
	need_scratch
	dm_create loop_rs-bdev "0 $((32 * 2048)) linear $SCRATCH_DEV 0"
	on_bdev /dev/mapper/loop_rs-bdev
	dm_remove loop_rs-bdev
}

bdev_ram() {
	modprobe brd rd_nr=1 rd_size=32768 || skip "no brd"
	trap "rmmod brd || :" EXIT
	on_bdev /dev/ram0
	trap - EXIT
	rmmod brd
}

test_begin 10
LIB_DMS+=(loop_rs-linear loop_rs-luks loop_rs-bdev)
mkdir "$T/mnt"
pattern $((4 * MIB)) "$T/data" 1
pattern $((2 * MIB)) "$T/data2" 2
need_driver max_loop=6

check "dm-linear over two devices" linear
check "LUKS" luks
check "md raid1, a leg failed and added again" raid1
check "LVM over two devices, extended online" lvm_volumes
check "loop over loop over loop" three
check "detaching the lowest device first" from_below
check "a flush through three devices" flush_below
check "recursion is refused, eight levels are not" recursion
check "loop over a RAM disk" bdev_ram
check "loop over a disk" bdev_scratch

test_end
