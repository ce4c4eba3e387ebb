#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# losetup with each of its options that needs no partition scan: losetup, sysfs and the data show
# the values that were set.
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

MIB=1048576

# show COLUMNS [DEVICE]: one line, values separated by one space.
show() {
	losetup --noheadings --raw --list --output "$1" "${2:-$LOOP}"
}

find_show() {
	local free

	free=$(losetup --find)
	attach "$T/a"
	want "--find --show" "$LOOP" "$free"
	want "backing file" "$(show BACK-FILE)" "$T/a"
	want "sysfs" "$(<"/sys/block/$L/loop/backing_file")" "$T/a"
	want "size" "$(blockdev --getsize64 "$LOOP")" $((4 * MIB))
	cmp "$LOOP" "$T/a"
	[ "$(losetup --find)" != "$LOOP" ] || fail "--find shows a bound device"
	detach
	want "attached after --detach" "$(lib_bound)" ""
	want "size after --detach" "$(blockdev --getsize64 "$LOOP")" 0
}

named_device() {
	losetup /dev/loop3 "$T/a"
	want "backing file" "$(show BACK-FILE /dev/loop3)" "$T/a"
	want_error "busy" losetup /dev/loop3 "$T/b"
	want "backing file" "$(show BACK-FILE /dev/loop3)" "$T/a"
	detach /dev/loop3
}

all_and_list() {
	local a b

	attach "$T/a"
	a=$LOOP
	attach "$T/b"
	b=$LOOP
	want "--all" "$(losetup --all | wc -l)" 2
	losetup --all | grep -q "^$a: .*($T/a)$"
	losetup --all | grep -q "^$b: .*($T/b)$"
	want "--list" "$(losetup --list --noheadings | wc -l)" 2
	losetup --list | head -1 | grep -q "^NAME .*BACK-FILE"
	want "no options" "$(losetup | wc -l)" 3
	want "--json" "$(losetup --json | grep -c '"back-file": *"'"$T"'/[ab]"')" 2
	want "--detach of two" "$(losetup -d "$a" "$b"; losetup -a)" ""
}

# All columns at once, compared with sysfs and other sources.
columns() {
	attach --offset 8192 --sizelimit $((2 * MIB)) --sector-size 1024 "$T/a"
	want "columns" "$(show NAME,AUTOCLEAR,OFFSET,PARTSCAN,RO,SIZELIMIT,DIO,LOG-SEC)" \
		"$LOOP 0 8192 0 0 $((2 * MIB)) 0 1024"
	want "BACK-INO" "$(show BACK-INO)" "$(stat -c %i "$T/a")"
	want "BACK-MAJ:MIN" "$(show BACK-MAJ:MIN | tr -d ' ')" \
		"$(findmnt -no MAJ:MIN -T "$T/a" | tr -d ' ')"
	want "MAJ:MIN" "$(show MAJ:MIN | tr -d ' ')" "$(<"/sys/block/$L/dev")"
	losetup --list --output-all "$LOOP" >"$T/all"
	grep -q "$T/a" "$T/all"
	detach
}

offset_sizelimit() {
	attach -o 4096 --sizelimit $MIB "$T/a"
	want "size" "$(blockdev --getsize64 "$LOOP")" $MIB
	want "sysfs offset" "$(<"/sys/block/$L/loop/offset")" 4096
	want "sysfs sizelimit" "$(<"/sys/block/$L/loop/sizelimit")" $MIB
	cmp -i 0:4096 -n $MIB "$LOOP" "$T/a"
	detach

	# A size limit beyond the end of the file has no effect; an offset beyond it leaves an empty
	# device.
	attach -o 4096 --sizelimit $((64 * MIB)) "$T/a"
	want "size" "$(blockdev --getsize64 "$LOOP")" $((4 * MIB - 4096))
	detach
	attach -o $((8 * MIB)) "$T/a"
	want "size" "$(blockdev --getsize64 "$LOOP")" 0
	detach
}

sector_size() {
	local bs

	for bs in 512 2048 4096; do
		attach --sector-size $bs "$T/a"
		want "logical block size" "$(blockdev --getss "$LOOP")" $bs
		want "physical block size" "$(blockdev --getpbsz "$LOOP")" $bs
		want "io_min" "$(blockdev --getiomin "$LOOP")" $bs
		cmp "$LOOP" "$T/a"
		detach
	done
	want_error "Invalid argument" losetup --find --show --sector-size 1000 "$T/a"
	want "attached" "$(lib_bound)" ""
	# Changed while attached.
	attach "$T/a"
	losetup --sector-size 4096 "$LOOP"
	want "logical block size" "$(blockdev --getss "$LOOP")" 4096
	detach
	# The next attachment has the default.
	attach "$T/a"
	want "logical block size" "$(blockdev --getss "$LOOP")" 512
	detach
}

direct_io() {
	attach --direct-io=on --sector-size 4096 "$T/a"
	want "DIO" "$(show DIO)" 1
	want "sysfs dio" "$(<"/sys/block/$L/loop/dio")" 1
	cmp "$LOOP" "$T/a"
	losetup --direct-io=off "$LOOP"
	want "DIO" "$(show DIO)" 0
	losetup --direct-io=on "$LOOP"
	want "DIO" "$(show DIO)" 1
	detach
	attach --direct-io=off "$T/a"
	want "DIO" "$(show DIO)" 0
	detach
}

read_only() {
	attach --read-only "$T/a"
	want "RO" "$(show RO)" 1
	want "getro" "$(blockdev --getro "$LOOP")" 1
	want_error "" dd if=/dev/zero of="$LOOP" bs=4k count=1 conv=notrunc
	detach
	attach "$T/a"
	want "RO of the next" "$(show RO)" 0
	detach
}

capacity() {
	attach "$T/a"
	truncate -s $((6 * MIB)) "$T/a"
	want "size" "$(blockdev --getsize64 "$LOOP")" $((4 * MIB))
	losetup --set-capacity "$LOOP"
	want "size" "$(blockdev --getsize64 "$LOOP")" $((6 * MIB))
	cmp "$LOOP" "$T/a"
	truncate -s $((4 * MIB)) "$T/a"
	losetup -c "$LOOP"
	want "size" "$(blockdev --getsize64 "$LOOP")" $((4 * MIB))
	detach
}

associated() {
	local a b c

	attach "$T/a"
	a=$LOOP
	attach -o 65536 "$T/a"
	b=$LOOP
	attach "$T/b"
	c=$LOOP
	want "-j" "$(losetup -nO NAME -j "$T/a" | sort | xargs)" "$a $b"
	want "-j -o" "$(losetup -nO NAME -j "$T/a" -o 65536 | xargs)" "$b"
	want "-j of another" "$(losetup -nO NAME -j "$T/b" | xargs)" "$c"
	# losetup compares inodes, not names.
	ln -f "$T/a" "$T/link"
	want "-j of a link" "$(losetup -nO NAME -j "$T/link" | sort | xargs)" "$a $b"
	losetup --detach-all
	wait_for 5 nothing_bound
	want "after --detach-all" "$(losetup -a)" ""
}

nooverlap() {
	local a

	attach --nooverlap "$T/a"
	a=$LOOP
	attach --nooverlap "$T/a"
	want "--nooverlap of the same" "$LOOP" "$a"
	want_error "overlap" losetup -f --show --nooverlap -o 4096 "$T/a"
	detach "$a"

	attach -L --sizelimit $MIB "$T/a"
	a=$LOOP
	attach -L -o $MIB "$T/a"
	[ "$LOOP" != "$a" ] || fail "adjoining ranges share a device"
	losetup -D
	wait_for 5 nothing_bound
}

reference() {
	losetup --help | grep -q -- --loop-ref || skip "losetup has no --loop-ref"
	attach --loop-ref a-reference "$T/a"
	want "REF" "$(show REF)" a-reference
	detach
}

# Each output format has the values of sysfs.
listing() {
	local a b json

	attach --offset 4096 --sizelimit $MIB --loop-ref one "$T/a"
	a=$LOOP
	attach --read-only --partscan "$T/b"
	b=$LOOP
	json=$(losetup --json --output NAME,OFFSET,SIZELIMIT,RO,PARTSCAN,BACK-FILE |
		tr -d ' \n')
	[[ $json == *"{\"name\":\"$a\",\"offset\":4096,\"sizelimit\":$MIB,\"ro\":false,\"partscan\":false,\"back-file\":\"$T/a\"}"* ]] ||
		fail "$a: $json"
	[[ $json == *"{\"name\":\"$b\",\"offset\":0,\"sizelimit\":0,\"ro\":true,\"partscan\":true,\"back-file\":\"$T/b\"}"* ]] ||
		fail "$b: $json"
	want "--raw" "$(losetup --raw -nO NAME,RO,PARTSCAN,DIO,LOG-SEC "$b")" \
		"$b 1 1 0 512"
	# In the requested order, with and without a heading.
	want "--output" "$(losetup --list -O SIZELIMIT,OFFSET "$a" | xargs)" \
		"SIZELIMIT OFFSET $MIB 4096"
	want "--noheadings" "$(losetup -ln -O BACK-FILE "$b")" "$T/b"
	# The output of lsblk.
	want "lsblk" "$(lsblk -bdnro NAME,SIZE,RO,TYPE "$a" "$b" | xargs)" \
		"${a#/dev/} $MIB 0 loop ${b#/dev/} $((2 * MIB)) 1 loop"
	want "find by reference" "$(losetup -nO REF "$a" | xargs)" one
	detach "$a"
	detach "$b"
}

# Each option has its effect when all of them are given.
together() {
	attach -r -P -o 8192 --sizelimit $MIB --sector-size 4096 --direct-io=on \
		--loop-ref all "$T/a"
	want "columns" "$(show NAME,AUTOCLEAR,OFFSET,PARTSCAN,RO,SIZELIMIT,DIO,LOG-SEC,REF)" \
		"$LOOP 0 8192 1 1 $MIB 1 4096 all"
	cmp -i 0:8192 -n $MIB "$LOOP" "$T/a"
	# Nothing is kept after the detach.
	detach
	attach "$T/a"
	want "columns" "$(show NAME,AUTOCLEAR,OFFSET,PARTSCAN,RO,SIZELIMIT,DIO,LOG-SEC)" \
		"$LOOP 0 0 0 0 0 0 512"
	want "REF" "$(show REF | xargs)" "$T/a"
	detach
}

# Direct I/O depends on the offset; unsupported direct I/O is refused with an error.
direct_io_offset() {
	attach --direct-io=on --offset 4096 "$T/a"
	want "DIO, aligned" "$(show DIO)" 1
	detach
	attach --offset 256 "$T/a"
	want_error "Invalid argument" losetup --direct-io=on "$LOOP"
	want "DIO" "$(show DIO)" 0
	detach
	LOOP=$(losetup --find --show --direct-io=on --offset 256 "$T/a")
	want "DIO, not aligned" "$(show DIO)" 0
	cmp -i 0:256 -n $MIB "$LOOP" "$T/a"
	detach
}

# -D succeeds for a device in use, which is detached at its last close.
detach_busy() {
	local fd

	attach "$T/a"
	exec {fd}<"$LOOP"
	attach "$T/b"
	losetup --detach-all
	want "bound" "$(lib_bound | wc -l)" 1
	exec {fd}<&-
	wait_for 5 nothing_bound
}

# Operations that need a backing file are refused on an unbound device.
unbound() {
	want_error "No such device or address" losetup --set-capacity /dev/loop3
	want_error "No such device or address" losetup --detach /dev/loop3
	want_error "No such device or address" losetup --direct-io=on /dev/loop3
	want_error "No such file" losetup --find --show "$T/nothing"
	want "list of an unbound device" \
		"$(losetup -nO BACK-FILE /dev/loop3 2>/dev/null)" ""
}

autoclear_mount() {
	truncate -s 8M "$T/fs"
	mkfs.ext4 -qF "$T/fs"
	mkdir -p "$T/mnt"
	mount -o loop "$T/fs" "$T/mnt"
	want "AUTOCLEAR" "$(losetup -nO AUTOCLEAR -j "$T/fs" | xargs)" 1
	umount "$T/mnt"
	wait_for 5 nothing_bound
}

# The name of a deleted file ends with " (deleted)".
deleted_file() {
	cp "$T/b" "$T/gone"
	attach "$T/gone"
	rm "$T/gone"
	want "backing_file" "$(<"/sys/block/$L/loop/backing_file")" \
		"$T/gone (deleted)"
	cmp "$LOOP" "$T/b"
	detach
}

# Data written through the page cache reaches the file, also if LOOP_CLR_FD comes before the last
# close.
clear_dirty() {
	skip_on_c "it fails all I/O from LOOP_CLR_FD on"
	attach "$T/a"
	cp "$T/a" "$T/a.copy"
	within 30 "$LIB_DIR/loop_io" clear-dirty "$LOOP"
	wait_for 5 nothing_bound
	head -c 4096 /dev/zero | tr '\0' x | cmp -n 4096 - "$T/a" || fail "written data is lost"
	cmp -i 4096 "$T/a" "$T/a.copy"
	mv "$T/a.copy" "$T/a"
}

# Attaching, resizing and detaching log nothing.
silent() {
	local said

	skip_on_c "it logs the size"
	log_mark
	attach "$T/a"
	losetup --set-capacity "$LOOP"
	detach
	mount -o loop "$T/fs" "$T/mnt"
	umount "$T/mnt"
	wait_for 5 nothing_bound
	said=$(log_since_mark | grep -E "loop|capacity" | grep -v "EXT4-fs") || true
	want "the kernel log" "$said" ""
	dmesg | grep -q "$LIB_MARK" || fail "the mark is not in the log: this shows nothing"
}

# Rounds of attach and detach leave no devices and no open files.
round_trips() {
	local i free

	mkdir -p "$T/own"
	mount -t tmpfs none "$T/own"
	truncate -s 1M "$T/own/file"
	free=$(losetup --find)
	FILES_BEFORE=$(open_files)
	for ((i = 0; i < 16; i++)); do
		attach "$T/own/file"
		want "round $i" "$LOOP" "$free"
		detach
	done
	# A file that was left open would keep the file system busy.
	wait_for 10 umount "$T/own"
	wait_for 10 few_more_files || fail "$(open_files) open files, were $FILES_BEFORE"
}

# The number of open files of the whole machine, also of other programs.
open_files() {
	cut -f1 /proc/sys/fs/file-nr
}

few_more_files() {
	[ "$(open_files)" -le $((FILES_BEFORE + 8)) ]
}

test_begin 22
pattern $((4 * MIB)) "$T/a" 1
pattern $((2 * MIB)) "$T/b" 2
need_driver max_loop=4

check "--find --show, --detach" find_show
check "a named device, which is busy the second time" named_device
check "--all, --list, --json" all_and_list
check "--output columns" columns
check "--offset, --sizelimit" offset_sizelimit
check "--sector-size" sector_size
check "--direct-io" direct_io
check "--read-only" read_only
check "--set-capacity" capacity
check "--associated, --detach-all" associated
check "--nooverlap" nooverlap
check "--loop-ref" reference
check "--json, --raw, --noheadings, lsblk" listing
check "all options together" together
check "--direct-io with an offset" direct_io_offset
check "--detach-all of a device in use" detach_busy
check "unbound devices and missing files are refused" unbound
check "mount -o loop clears the device at umount" autoclear_mount
check "a deleted backing file" deleted_file
check "LOOP_CLR_FD keeps dirty data" clear_dirty
check "nothing in the kernel log" silent
check "rounds of attach and detach" round_trips

test_end
