#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Partitions: created by the usual programs, found by the kernel's scan or added by ioctl, with the
# right size at the right place, and removed by a detach.
#
#   PARTITION_ROUNDS  rounds of each kind of scan while other tasks open the device (default 40,
#                     or 10 with udev)
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

MIB=1048576
IMG=
UDEVD=/usr/lib/systemd/systemd-udevd
ROUNDS=${PARTITION_ROUNDS:-40}
UDEV_ROUNDS=${PARTITION_ROUNDS:-10}

# image MIB: creates a new image.
image() {
	IMG=$T/img
	rm -f "$IMG"
	truncate -s "${1}M" "$IMG"
}

# gpt, mbr FILE-OR-DEVICE: two partitions of 4 and 8 MiB; the second one of MBR has logical
# partitions.
gpt() {
	sfdisk -q --no-tell-kernel "$1" <<-END
		label: gpt
		start=1MiB, size=4MiB, name=first
		start=5MiB, size=8MiB
	END
}

mbr() {
	sfdisk -q --no-tell-kernel "$1" <<-END
		label: dos
		start=1MiB, size=4MiB, type=83
		start=5MiB, size=8MiB, type=5
		start=6MiB, size=2MiB, type=83
		start=9MiB, size=3MiB, type=83
	END
}

# Number, first sector and sectors of each partition, from sysfs.
parts() {
	local d=$1 p

	for p in "/sys/block/$d/$d"p*; do
		[ -e "$p/partition" ] || continue
		echo "$(<"$p/partition"):$(<"$p/start")+$(<"$p/size")"
	done | sort -n | xargs
}

nodes() {
	local n all=

	for n in "/dev/$1"p*; do
		[ ! -b "$n" ] || all+=" ${n#/dev/"$1"}"
	done
	echo "${all# }"
}

GPT="1:2048+8192 2:10240+16384"
MBR="1:2048+8192 2:10240+2 5:12288+4096 6:18432+6144"

# Bytes written to a partition are at its place in the image and nowhere else.
in_place() {
	local n=$1 start=$2 size=$3

	cp --sparse=always "$IMG" "$T/model"
	rm -f "$T/data"
	pattern "$size" "$T/data" "$n"
	dd if="$T/data" of="${LOOP}p$n" bs=1M conv=notrunc,fsync 2>/dev/null
	dd if="$T/data" of="$T/model" bs=1M seek="$start" oflag=seek_bytes \
		conv=notrunc 2>/dev/null
	cmp "$T/model" "$IMG"
	want "size of p$n" "$(blockdev --getsize64 "${LOOP}p$n")" "$size"
}

scan_gpt() {
	image 16
	gpt "$IMG"
	attach --partscan "$IMG"
	want "PARTSCAN" "$(losetup -nO PARTSCAN "$LOOP" | xargs)" 1
	want "partscan" "$(<"/sys/block/$L/loop/partscan")" 1
	want "partitions" "$(parts "$L")" "$GPT"
	want "nodes" "$(nodes "$L")" "p1 p2"
	in_place 1 $MIB $((4 * MIB))
	in_place 2 $((5 * MIB)) $((8 * MIB))
	# A write beyond its end fails, and leaves the next partition unchanged.
	want_error "No space" dd if=/dev/zero of="${LOOP}p1" bs=512 seek=8192 \
		count=1 conv=notrunc oflag=direct
	cmp "$T/model" "$IMG"
	detach
	want "partitions after detaching" "$(parts "$L")" ""
	want "nodes after detaching" "$(nodes "$L")" ""
	# The next attachment without a partition scan has no partitions either.
	attach "$IMG"
	want "partitions without --partscan" "$(parts "$L")" ""
	detach
}

scan_mbr() {
	image 16
	mbr "$IMG"
	attach -P "$IMG"
	want "partitions" "$(parts "$L")" "$MBR"
	want "nodes" "$(nodes "$L")" "p1 p2 p5 p6"
	in_place 1 $MIB $((4 * MIB))
	in_place 6 $((9 * MIB)) $((3 * MIB))
	detach
	want "nodes after detaching" "$(nodes "$L")" ""
}

# A table with 4096-byte sectors, one that starts in the middle of a file, and a read-only one.
scan_variants() {
	local n

	image 32
	attach --sector-size 4096 "$IMG"
	gpt "$LOOP"
	detach
	attach -P --sector-size 4096 "$IMG"
	want "partitions, 4096" "$(parts "$L")" "$GPT"
	in_place 2 $((5 * MIB)) $((8 * MIB))
	detach
	attach -P "$IMG"
	want "partitions, 512" "$(parts "$L")" ""
	detach

	image 32
	attach -o $((3 * MIB)) --sizelimit $((16 * MIB)) "$IMG"
	gpt "$LOOP"
	detach
	attach -P -r -o $((3 * MIB)) --sizelimit $((16 * MIB)) "$IMG"
	want "partitions, offset" "$(parts "$L")" "$GPT"
	for n in 1 2; do
		want "getro of p$n" "$(blockdev --getro "${LOOP}p$n")" 1
	done
	detach
	attach -P -o $((3 * MIB)) --sizelimit $((16 * MIB)) "$IMG"
	want "getro of p1" "$(blockdev --getro "${LOOP}p1")" 0
	in_place 1 $((4 * MIB)) $((4 * MIB))
	detach
}

# Without LO_FLAGS_PARTSCAN nothing scans the device.
no_scan() {
	image 16
	gpt "$IMG"
	attach "$IMG"
	want "partscan" "$(<"/sys/block/$L/loop/partscan")" 0
	want "partitions" "$(parts "$L")" ""
	want_error "Invalid argument" blockdev --rereadpt "$LOOP"
	want "partitions" "$(parts "$L")" ""
	detach
}

# A program that changes the table tells the kernel.
programs() {
	image 16
	attach -P "$IMG"
	want "partitions" "$(parts "$L")" ""
	sfdisk -q "$LOOP" <<-END
		label: gpt
		start=1MiB, size=4MiB
	END
	want "sfdisk" "$(parts "$L")" "1:2048+8192"
	in_place 1 $MIB $((4 * MIB))
	echo "start=5MiB, size=8MiB" | sfdisk -q --append "$LOOP"
	want "sfdisk --append" "$(parts "$L")" "$GPT"
	sfdisk -q --delete "$LOOP" 1
	want "sfdisk --delete" "$(parts "$L")" "2:10240+16384"

	# sgdisk sleeps for a second each time.
	sgdisk -n 1:2048:+2M -n 3:6144:+1M -d 2 "$LOOP" >/dev/null
	want "sgdisk" "$(parts "$L")" "1:2048+4096 3:6144+2048"

	parted -s "$LOOP" mklabel msdos mkpart primary ext2 1MiB 5MiB \
		mkpart primary ext2 5MiB 13MiB
	want "parted mkpart" "$(parts "$L")" "$GPT"
	parted -s "$LOOP" rm 1 resizepart 2 15MiB
	want "parted rm, resizepart" "$(parts "$L")" "2:10240+20480"
	in_place 2 $((5 * MIB)) $((10 * MIB))
	detach
	want "nodes after detaching" "$(nodes "$L")" ""
}

# The table is changed in the file and read again.
reread() {
	image 16
	gpt "$IMG"
	attach -P "$IMG"
	want "partitions" "$(parts "$L")" "$GPT"
	sfdisk -q --no-tell-kernel --delete "$IMG" 1
	# The page cache of the device is as old as the last scan.
	blockdev --flushbufs "$LOOP"
	blockdev --rereadpt "$LOOP"
	want "partitions, reread" "$(parts "$L")" "2:10240+16384"
	want "nodes" "$(nodes "$L")" "p2"
	# Refused while a partition is in use.
	mkfs.ext4 -qF "${LOOP}p2"
	mkdir -p "$T/mnt"
	mount "${LOOP}p2" "$T/mnt"
	want_error "busy" blockdev --rereadpt "$LOOP"
	want "partitions, mounted" "$(parts "$L")" "2:10240+16384"
	umount "$T/mnt"
	blockdev --rereadpt "$LOOP"
	detach
}

# Partitions that partx adds need no scan, and are removed by a detach, too.
told() {
	image 16
	gpt "$IMG"
	attach "$IMG"
	partx -a "$LOOP"
	want "partx -a" "$(parts "$L")" "$GPT"
	want "nodes" "$(nodes "$L")" "p1 p2"
	in_place 2 $((5 * MIB)) $((8 * MIB))
	want_error "" partx -a "$LOOP"
	partx -d --nr 1 "$LOOP"
	want "partx -d" "$(parts "$L")" "2:10240+16384"
	sfdisk -q --no-tell-kernel "$LOOP" <<-END
		label: gpt
		start=1MiB, size=4MiB
		start=5MiB, size=2MiB
	END
	partx -u "$LOOP"
	want "partx -u" "$(parts "$L")" "1:2048+8192 2:10240+4096"
	in_place 2 $((5 * MIB)) $((2 * MIB))
	detach
	want "partitions after detaching" "$(parts "$L")" ""
	want "nodes after detaching" "$(nodes "$L")" ""
	attach "$IMG"
	want "partitions of the next" "$(parts "$L")" ""
	detach
}

# A mounted partition keeps the device attached; the last umount detaches it.
mounted() {
	mkdir -p "$T/mnt"
	image 16
	gpt "$IMG"
	attach -P "$IMG"
	mkfs.ext4 -qF "${LOOP}p2"
	mount "${LOOP}p2" "$T/mnt"
	pattern $MIB "$T/mnt/data" 3
	cp "$T/mnt/data" "$T/data"
	losetup -d "$LOOP"
	want "AUTOCLEAR" "$(<"/sys/block/$L/loop/autoclear")" 1
	echo 3 >/proc/sys/vm/drop_caches
	cmp "$T/data" "$T/mnt/data"
	umount "$T/mnt"
	wait_for 5 nothing_bound
	want "nodes after the last umount" "$(nodes "$L")" ""
	attach -P "$IMG"
	e2fsck -fn "${LOOP}p2"
	mount "${LOOP}p2" "$T/mnt"
	cmp "$T/data" "$T/mnt/data"
	umount "$T/mnt"
	detach
}

# A loop device with partitions over a partition.
nested() {
	local outer

	image 64
	sfdisk -q --no-tell-kernel "$IMG" <<-END
		label: gpt
		start=1MiB, size=60MiB
	END
	attach -P "$IMG"
	outer=$LOOP
	gpt "${outer}p1"
	attach -P "${outer}p1"
	want "partitions" "$(parts "$L")" "$GPT"
	rm -f "$T/data"
	pattern $((8 * MIB)) "$T/data" 7
	dd if="$T/data" of="${LOOP}p2" bs=1M conv=notrunc,fsync 2>/dev/null
	detach
	detach "$outer"
	cmp -i 0:$((6 * MIB)) -n $((8 * MIB)) "$T/data" "$IMG"
}

# Partitions follow the growth of the device after a rescan.
grown() {
	image 16
	gpt "$IMG"
	attach -P "$IMG"
	truncate -s 24M "$IMG"
	losetup -c "$LOOP"
	want "partitions" "$(parts "$L")" "$GPT"
	sfdisk -q --relocate gpt-bak-std "$LOOP"
	echo ", 18MiB" | sfdisk -q -N 2 "$LOOP"
	want "partitions, grown" "$(parts "$L")" "1:2048+8192 2:10240+36864"
	in_place 2 $((5 * MIB)) $((18 * MIB))
	detach
}

# Two tasks keep opening the device and its partitions: see loop_parts.c.
opened_meanwhile() {
	local way=$1 rounds=${2:-$ROUNDS}

	skip_on_c "a scan fails while a partition is open, or one that was just removed"
	rm -f "$T/one" "$T/other"
	truncate -s 16M "$T/one" "$T/other"
	gpt "$T/one"
	sfdisk -q --no-tell-kernel "$T/other" <<-END
		label: gpt
		start=1MiB, size=6MiB
		start=8MiB, size=2MiB
		start=11MiB, size=1MiB
	END
	log_mark
	[ -b /dev/loop0 ] || "$LIB_DIR/loop_io" add 0
	"$LIB_DIR/loop_parts" "$way" /dev/loop0 "$T/one" "$T/other" "$rounds"
	want "failed scans" "$(log_count "partition scan of")" 0
	wait_for 10 nothing_bound
}

# LOOP_SET_FD scans with max_part only.
opened_meanwhile_max_part() {
	driver_unload
	driver_load max_loop=1 max_part=7
	opened_meanwhile set-fd
	driver_unload
	driver_load max_loop=1
}

# udev opens the device and its partitions, too. It is started unless it runs.
opened_by_udev() {
	local way

	if ! udevadm control --ping --timeout=5 2>/dev/null; then
		mkdir -p /run/udev
		"$UDEVD" --daemon >/dev/null 2>&1
		trap 'udevadm control --exit' EXIT
	fi
	for way in configure set-status change-fd; do
		opened_meanwhile $way "$UDEV_ROUNDS"
	done
}

minor_of() {
	local d

	d=$(<"/sys/class/block/$1/dev")
	echo "$d"
}

# With max_part, partitions have minor numbers of the loop major, and the device is scanned without
# LO_FLAGS_PARTSCAN.
max_part() {
	local m

	driver_unload
	driver_load max_loop=2 max_part=15
	want "max_part" "$(<"/sys/module/$DRIVER/parameters/max_part")" 15
	want "loop0" "$(minor_of loop0)" 7:0
	want "loop1" "$(minor_of loop1)" 7:16
	image 16
	gpt "$IMG"
	losetup /dev/loop1 "$IMG"
	want "partscan" "$(</sys/block/loop1/loop/partscan)" 1
	want "partitions" "$(parts loop1)" "$GPT"
	for m in 1 2; do
		want "loop1p$m" "$(minor_of "loop1p$m")" "7:$((16 + m))"
	done
	LOOP=/dev/loop1
	in_place 2 $((5 * MIB)) $((8 * MIB))
	detach /dev/loop1
	want "nodes after detaching" "$(nodes loop1)" ""
	# An empty device that is partitioned later is scanned, too.
	image 16
	losetup /dev/loop0 "$IMG"
	mbr /dev/loop0
	blockdev --rereadpt /dev/loop0
	want "partitions" "$(parts loop0)" "$MBR"
	detach /dev/loop0
	# Rounded up to the next power of two, minus one.
	driver_unload
	driver_load max_loop=2 max_part=4
	want "max_part" "$(<"/sys/module/$DRIVER/parameters/max_part")" 7
	want "loop1" "$(minor_of loop1)" 7:8
	driver_unload
	driver_load max_loop=1
	image 16
	gpt "$IMG"
	attach -P "$IMG"
	want "major without max_part" "$(minor_of "${L}p1" | cut -d: -f1)" 259
	detach
}

test_begin 16
need_driver

check "GPT, found at the attach" scan_gpt
check "MBR with logical partitions" scan_mbr
check "4096-byte sectors, an offset, read-only" scan_variants
check "no scan without LO_FLAGS_PARTSCAN" no_scan
check "sfdisk, sgdisk and parted on the device" programs
check "read again after a change, refused while in use" reread
check "partitions added by partx are removed by a detach" told
check "a mounted partition" mounted
check "a loop device with partitions on a partition" nested
check "a growing device" grown
check "max_part" max_part
for way in configure set-status change-fd; do
	check "others open the device meanwhile: $way" opened_meanwhile $way
done
check "others open the device meanwhile: set-fd" opened_meanwhile_max_part
check "others and udev open the device meanwhile" opened_by_udev

test_end
