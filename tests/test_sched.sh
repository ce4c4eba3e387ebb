#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Each I/O scheduler on the loop device: verified data of two cgroups and the root at once, with
# more I/Os in flight than there are tags; each cgroup is charged for its I/O.
#
# tier: long
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

PARENT=$CGROOT/loop_rs-sched
MIB=1048576

# job NAME OFFSET-IN-MIB
job() {
	cg_run "$1" timeout $((120 * SLOW)) fio --name=j --filename="$LOOP" --rw=randrw \
		--bsrange=512-32k --offset=$(($2 * 4))M --size=2M --ioengine=libaio --direct=1 \
		--loops=5 --iodepth=256 --iodepth_batch_submit=32 --verify=crc32c --verify_fatal=1 \
		--verify_state_save=0 >"$T/fio.$2" 2>&1 &
	JOBS+=($!)
}

# scheduler NAME: with backing I/O buffered and direct.
scheduler() {
	local i s dio disk before queue under_io written=()

	need_scratch
	[ -z "$(cg_missing)" ] || skip "$(cg_missing)"
	modprobe -q "$2" || true
	disk=$(<"/sys/class/block/${SCRATCH_DEV#/dev/}/dev")
	scratch_fs ext4 "$T/fs"
	pattern $((12 * MIB)) "$T/fs/file" 1
	sync -f "$T/fs/file"
	mkdir "$PARENT"
	trap 'cg_remove "$PARENT"' EXIT
	echo "+io +memory" >"$PARENT/cgroup.subtree_control"
	for dio in off on; do
		attach --direct-io=$dio "$T/fs/file"
		queue=/sys/block/$L/queue/scheduler
		[[ " $(<"$queue") " == *"$1"* ]] || skip "no scheduler $1"
		echo "$1" >"$queue"
		[[ $(<"$queue") == *"[$1]"* ]] || fail "scheduler: $(<"$queue")"
		mkdir "$PARENT/a" "$PARENT/b"
		JOBS=()
		job "$PARENT/a" 0
		job "$PARENT/b" 1
		job "$CGROOT" 2
		# Switches to another scheduler and back under I/O.
		under_io=0
		while kill -0 "${JOBS[@]}" 2>/dev/null; do
			! in_flight 1 || under_io=$((under_io + 1))
			echo none >"$queue"
			echo "$1" >"$queue"
		done
		want_ge "switches under I/O" $under_io 1
		for i in 0 1 2; do
			wait "${JOBS[i]}" || fail "job $i: $?: $(grep -aE "^(fio|verify|j): " "$T/fio.$i")"
		done
		[[ $(<"$queue") == *"[$1]"* ]] || fail "scheduler: $(<"$queue")"
		blockdev --flushbufs "$LOOP"
		cmp "$LOOP" "$T/fs/file"
		want "in flight in the end" "$(disk_stat "$L" 9)" 0
		if [ $dio = on ]; then
			for i in a b; do
				want_ge "bytes written to the disk by $i" \
					"$(cg_io "$PARENT/$i" "$disk" wbytes)" $((MIB / 2))
			done
		fi
		echo none >"$queue"
		detach
		cg_remove "$PARENT/a"
		cg_remove "$PARENT/b"
	done
	cg_remove "$PARENT"
	umount "$T/fs"
}

test_begin 3
LIB_CGROUPS+=("$PARENT")
need_driver

check "mq-deadline" scheduler mq-deadline mq-deadline
check "kyber" scheduler kyber kyber-iosched
check "bfq" scheduler bfq bfq

test_end
