#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Reads from the page cache of the backing file: cached reads do not wait for the worker, and cold
# reads do not wait for each other.
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

PARENT=$CGROOT/loop_rs-cache
WORKERS=/sys/kernel/debug/loop_rs

# The counters of a device begin at 0.
fresh_driver() {
	driver_unload
	driver_load
}

stuck() {
	grep -q "^/ busy" "$WORKERS/$L/workers"
}

# Reads of cached pages are served while the worker of the same cgroup is stuck in a write to a
# frozen file system.
cached_reads() {
	local pid rc=0

	skip_on_c "workers do all I/O"
	[ -d /sys/kernel/debug/block ] || skip "no debugfs"
	need_scratch
	scratch_fs ext4 "$T/fs"
	pattern $((1 << 20)) "$T/fs/file" 3
	sync -f "$T/fs/file"
	fresh_driver
	attach "$T/fs/file"
	dd if="$LOOP" of="$T/out" bs=64k iflag=direct 2>/dev/null
	fsfreeze -f "$T/fs"
	dd if="$T/out" of="$LOOP" bs=4k count=1 oflag=direct conv=notrunc 2>/dev/null &
	pid=$!
	wait_for 10 stuck || rc=1
	within 10 dd if="$LOOP" of="$T/in" bs=4k iflag=direct || rc=2
	# LOOP_SET_STATUS that does not move the range does not wait for all I/O either.
	within 10 "$LIB_DIR/loop_io" set-name "$LOOP" renamed || rc=4
	stuck || rc=3
	fsfreeze -u "$T/fs"
	wait $pid
	want "step that failed" $rc 0
	want "name" "$(losetup -nO REF "$LOOP" | xargs)" renamed
	cmp "$T/in" "$T/out"
	want_ge "reads issued inline" "$(worker_stat "$L" / here)" 200
	detach
	umount "$T/fs"
}

# A read whose data is partly in the page cache: the worker reads the rest.
in_part() {
	local before bdi done here

	skip_on_c "workers do all I/O"
	[ -d /sys/kernel/debug/block ] || skip "no debugfs"
	need_scratch
	scratch_fs xfs "$T/fs"
	pattern $((1 << 20)) "$T/fs/file" 3
	cp "$T/fs/file" "$T/model"
	sync -f "$T/fs/file"
	bdi=/sys/class/block/${SCRATCH_DEV#/dev/}/bdi/read_ahead_kb
	SAVED=$(<"$bdi")
	# shellcheck disable=SC2064 # it's known now only
	trap "echo $SAVED >$bdi" EXIT
	echo 0 >"$bdi"
	fresh_driver
	attach "$T/fs/file"
	blockdev --flushbufs "$LOOP"
	echo 1 >/proc/sys/vm/drop_caches
	# Every other page is cached, so that the inline part of a read of two pages is short.
	fio --output=/dev/null --name=j --filename="$T/fs/file" "--rw=read:$PAGE" "--bs=$PAGE" \
		--ioengine=psync --size=1M --io_size=512k --invalidate=0 --readonly
	before=$(disk_stat "${SCRATCH_DEV#/dev/}" 3)
	dd if="$LOOP" of="$T/out" bs=$((2 * PAGE)) iflag=direct 2>/dev/null
	cmp "$T/out" "$T/model"
	# The cached part of each read was not read again.
	want "KiB read by the worker" $((($(disk_stat "${SCRATCH_DEV#/dev/}" 3) - before) / 2)) 512
	done=$(worker_stat "$L" / "done")
	here=$(worker_stat "$L" / here)
	echo "$here of $done served where they were submitted"
	want_le "requests issued inline" "$here" $((done - 524288 / PAGE))
	detach
	umount "$T/fs"
}

# Reads of pages that are not cached do not wait for an earlier read of their cgroup, which the first
# of two disks below throttles.
cold_reads() {
	local pid rc=0 part=32768 disk

	skip_on_c "a worker waits for each read"
	need_scratch
	[ -b "${SCRATCH_DEV2:-}" ] || skip "no second disk"
	[ -z "$(cg_missing)" ] || skip "$(cg_missing)"
	[ -d "$PARENT" ] || mkdir "$PARENT"
	disk=$(<"/sys/class/block/${SCRATCH_DEV#/dev/}/dev")
	dm_create loop_rs-disk "0 $part linear $SCRATCH_DEV 0
$part $part linear $SCRATCH_DEV2 0"
	pattern $((part * 1024)) /dev/mapper/loop_rs-disk 3
	attach --direct-io=off /dev/mapper/loop_rs-disk
	blockdev --flushbufs /dev/mapper/loop_rs-disk
	cg_limit_io "$PARENT" "$disk" rbps=1
	cg_run "$PARENT" dd if="$LOOP" of=/dev/null bs=4k count=1 skip=256 iflag=direct status=none &
	pid=$!
	wait_for 10 in_flight 1 || rc=1
	sleep 0.2
	within 10 cg_run "$PARENT" dd if="$LOOP" of=/dev/null bs=4k count=64 skip=5000 iflag=direct \
		status=none || rc=2
	in_flight 1 || rc=3
	echo "$disk rbps=max" >"$PARENT/io.max"
	wait $pid
	want "step that failed" $rc 0
	blockdev --flushbufs /dev/mapper/loop_rs-disk
	"$LIB_DIR/loop_io" deep "$LOOP" $((part * 1024)) 3 32 4000
	detach
	dm_remove loop_rs-disk
	cg_remove "$PARENT"
}

# Parts of pages, where a page is read after the other: neither the part nor the end of a page is
# taken for the end of the file.
cold_parts() {
	local options offset size=$((2 << 20))

	need_scratch
	pattern $((4 << 20)) "$SCRATCH_DEV" 3
	dd if="$SCRATCH_DEV" of="$T/model" bs=1M count=4 2>/dev/null
	# shellcheck disable=SC2064 # it's known now only
	trap "blockdev --setra $(blockdev --getra "$SCRATCH_DEV") $SCRATCH_DEV" EXIT
	blockdev --setra 0 "$SCRATCH_DEV"
	for options in "0" "256" "512 -b 4096" "$((63 * 512)) -b 4096" "0 -b 16384"; do
		offset=${options%% *}
		# shellcheck disable=SC2086 # more than one option
		LOOP=$(losetup --find --show --direct-io=off --sizelimit $size -o $options \
			"$SCRATCH_DEV" 2>/dev/null) || {
			[[ $options = *16384 ]] || fail "losetup -o $options"
			echo "no blocks of 16 KiB"
			continue
		}
		blockdev --flushbufs "$SCRATCH_DEV"
		dd if="$LOOP" of="$T/out" bs=64k iflag=direct 2>/dev/null || fail "-o $options: $?"
		cmp "$T/out" <(tail -c +$((offset + 1)) "$T/model" | head -c $size)
		detach
	done
}

test_begin 4
LIB_CGROUPS+=("$PARENT")
LIB_DMS+=(loop_rs-disk)
need_driver

check "cached reads are served while the worker is stuck" cached_reads
check "a partly cached read" in_part
check "a cold read does not wait for another one" cold_reads
check "cold reads of parts of pages" cold_parts

test_end
