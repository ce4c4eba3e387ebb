#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# User space sees I/O as with loop.ko, whether it is issued inline or by a worker, as a request or
# as detached bios: /proc/PID/io and getrusage, errors in the kernel log, tracepoints, submissions
# with RWF_NOWAIT, the context in which bios complete.
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"
. "$LIB_DIR/edges.sh"

DM=loop_rs-account
SECTORS=$((64 * 2048))
# More than the number of tags of a device.
COUNT=512
TRACE=/sys/kernel/tracing/instances/loop_rs-account
EXTENTS=4096
READS=256

# counted OP EXPECTED: checks the I/O that is accounted to a program for 100 blocks. The first run
# reads the program itself into the page cache; no page of the backing file is dirty after the
# flush.
counted() {
	"$EDGES" account "$LOOP" "$1" 100
	sync "$LOOP"
	want "accounted" "$("$EDGES" account "$LOOP" "$1" 100)" "$2"
}

# task_io BACKING FILE: each byte is accounted once, to the submitting task.
task_io() {
	[ -r /proc/self/io ] || skip "the kernel does not account I/O to tasks"
	attach --direct-io="$1" "$2"
	counted read "read_bytes 409600 write_bytes 0 inblock 800 outblock 0"
	counted write "read_bytes 0 write_bytes 409600 inblock 0 outblock 800"
	detach
}

task_io_fs() {
	need_scratch
	scratch_fs "$1" "$T/fs"
	pattern $((8 * MIB)) "$T/fs/file" 7
	sync -f "$T/fs"
	task_io "$2" "$T/fs/file"
	umount "$T/fs"
}

task_io_disk() {
	need_scratch
	task_io on "$SCRATCH_DEV"
}

# held OP [FUNCTION]: suspends the disk below, calls the function and submits $COUNT I/Os, most of
# which hold no tag.
held() {
	need_scratch
	dm_create $DM "0 $SECTORS linear $SCRATCH_DEV 0"
	pattern $((16 * MIB)) /dev/mapper/$DM 7
	blockdev --flushbufs /dev/mapper/$DM
	attach --direct-io=on /dev/mapper/$DM
	dd if="$LOOP" of=/dev/null bs=4k count=64 iflag=direct status=none
	dmsetup suspend --noflush --nolockfs $DM
	[ $# -eq 1 ] || "$2"
	flood "$CGROOT" "$1" 0 $COUNT 8192 7
	[ "$DRIVER" = loop ] || [ ! -d /sys/kernel/debug/block ] ||
		want_ge "detached" "$(worker_stat "$L" / parked)" $((COUNT / 2))
}

# Releases suspended I/O, also after a failure.
release_io() {
	dmsetup --noudevsync resume $DM || true
	wait
	[ ! -d $TRACE ] || rmdir $TRACE
} 2>/dev/null

held_end() {
	detach
	dm_remove $DM
}

# The last I/O holds no tag, and must fail with a line in the kernel log.
logged() {
	local op=$1 bad

	trap release_io EXIT
	held "$op"
	log_mark
	# The sector of the last I/O of "loop_edges flood".
	bad=$(((COUNT - 1) * 7919 % COUNT * 16))
	dm_swap $DM "0 $bad linear $SCRATCH_DEV 0
$bad 16 error
$((bad + 16)) $((SECTORS - bad - 16)) linear $SCRATCH_DEV $((bad + 16))"
	flood_ends
	want "I/Os that went well" "$(flooded 0)" $((COUNT - 1))
	want "I/Os that failed" "$(flooded 2)" 1
	want "lines for its sector" \
		"$(log_count "I/O error, dev $L, sector $bad op ")" 1
	# A request that keeps its tag logs the same line.
	if [ "$op" = read ]; then
		want_error "Input/output error" dd if="$LOOP" of=/dev/null bs=8k count=1 \
			skip=$((bad / 16)) iflag=direct
		want "lines for both" \
			"$(log_count "I/O error, dev $L, sector $bad op ")" 2
	fi
	held_end
}

# completed events|empty|sectors: from the completion events in the trace, their number, the number
# of events without data, or the sum of their sectors.
completed() {
	awk -v what="$1" '
		/block_(rq|bio)_complete: / {
			for (i = 1; i <= NF; i++)
				if ($i == "+") {
					n["events"]++
					n["sectors"] += $(i + 1)
					n["empty"] += $(i + 1) == 0
				}
		}
		END { print n[what] + 0 }' $TRACE/trace
}

trace_on() {
	local e dev

	dev=$((16#$(stat -Lc %t "$LOOP") << 20 | 16#$(stat -Lc %T "$LOOP")))
	for e in block_rq_complete block_bio_complete; do
		echo "dev == $dev" >$TRACE/events/block/$e/filter
		echo 1 >$TRACE/events/block/$e/enable
	done
}

# Each I/O has one completion event with its size at the time of its completion.
traced() {
	[ -d "${TRACE%/*}" ] || skip "no tracefs"
	mkdir $TRACE
	trap release_io EXIT
	held write trace_on
	want "completed while the disk was suspended" "$(completed events)" 0
	dmsetup --noudevsync resume $DM
	flood_ends
	want "sectors completed" "$(completed sectors)" $((COUNT * 16))
	want "completions without data" "$(completed empty)" 0
	held_end
}

# Submissions with RWF_NOWAIT, as in io_uring's first attempt of each I/O, do not sleep for metadata
# of the backing file, except one in 256.
nowait() {
	local said

	null_disk
	cold_file /dev/nullb0 $EXTENTS
	# While the metadata is cached, the offload policy chooses inline issue.
	"$EDGES" nowait "$LOOP" $EXTENTS $READS
	"$EDGES" drop-caches /dev/nullb0 50 &
	trap 'kill %1 2>/dev/null || true' EXIT
	sleep 0.2
	said=$("$EDGES" nowait "$LOOP" $EXTENTS $READS)
	echo "$said"
	kill $!
	want_le "submissions that slept" "$(awk '{ print $2 }' <<<"$said")" $((2 + READS / 256))
	detach
	umount "$T/cold"
	modprobe -r null_blk
}

# Bios complete in a context where bio_in_atomic() is true: erofs decompresses in its workqueue, on
# all CPUs, not in the cgroup's worker.
decompressed() {
	local n

	need_scratch
	[ -d "${TRACE%/*}" ] || skip "no tracefs"
	modprobe -q erofs || grep -qw erofs /proc/filesystems || skip "no erofs in this kernel"
	mkdir -p "$T/tree" "$T/mnt"
	for n in 1 2; do
		seq $n $((n + 300000)) >"$T/tree/$n"
	done
	scratch_fs ext4 "$T/fs"
	mkfs.erofs --quiet -zlz4 "$T/fs/img" "$T/tree"
	sync -f "$T/fs"
	attach -r --direct-io=off "$T/fs/img"
	mount -t erofs "$LOOP" "$T/mnt"
	dd of="$T/fs/img" oflag=nocache conv=notrunc,fdatasync count=0 status=none
	mkdir $TRACE
	trap 'rmdir $TRACE 2>/dev/null || true' EXIT
	echo 1 >$TRACE/events/workqueue/workqueue_execute_start/enable
	diff -r "$T/tree" "$T/mnt"
	n=$(grep -c z_erofs_decompressqueue_work $TRACE/trace) || true
	echo "$n times"
	want_ge "times that its workqueue decompressed" "$n" 1
	umount "$T/mnt"
	detach
	umount "$T/fs"
}

test_begin 9
LIB_DMS+=("$DM")
mkdir "$T/fs" "$T/cold"
need_driver

check "accounted to the task: ext4, backing I/O direct" task_io_fs ext4 on
check "accounted to the task: xfs, backing I/O direct" task_io_fs xfs on
check "accounted to the task: xfs, backing I/O buffered" task_io_fs xfs off
check "accounted to the task: a disk, backing I/O direct" task_io_disk
check "a read without a tag that fails is in the kernel log" logged read
check "a write without a tag that fails is in the kernel log" logged write
check "tracepoints of completions" traced
check "submissions with RWF_NOWAIT do not sleep" nowait
check "erofs decompresses in its workqueue" decompressed

test_end
