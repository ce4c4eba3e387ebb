#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Memory pressure with swap on a loop device: while swap is free no task is killed, and nothing
# hangs.
#
# tier: long
# vm: --memory 640M
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

CG=$CGROOT/loop_rs-pressure
ROUNDS=${SWAP_ROUNDS:-3}
SECS=${PRESSURE_SECONDS:-30}
# The parallel tasks of the machine, and the memory of each in MiB: together more than the machine
# has.
TASKS=4
EACH=180

kills() {
	awk '$1 == "oom_kill" { print $2 }' /proc/vmstat
}

release() {
	kill "${PIDS[@]}" 2>/dev/null || :
	wait
	cg_remove "$CG"
	swapoff "$LOOP" 2>/dev/null || :
}

# set_up MIB [LOSETUP-OPTIONS...]: the only swap is MIB on a loop device over ext4.
set_up() {
	local reason

	reason=$(cg_missing)
	[ -z "$reason" ] || skip "$reason"
	[ "$(wc -l </proc/swaps)" = 1 ] || skip "other swap"
	need_scratch
	scratch_fs ext4 "$T/fs" "$SCRATCH_DEV" 2G
	dd if=/dev/zero of="$T/fs/swap" bs=1M count="$1" conv=fsync 2>/dev/null
	attach "${@:2}" "$T/fs/swap"
	PIDS=()
	trap release EXIT
	mkswap "$LOOP"
	swapon "$LOOP"
	mkdir "$CG"
	BEFORE=$(kills)
}

tear_down() {
	want "killed tasks" $(($(kills) - BEFORE)) 0
	release
	detach
	trap - EXIT
	umount "$T/fs"
}

# memory N CGROUP MIB: fills memory in CGROUP, and compares it when it is all filled.
memory() {
	rm -f "$T/ready.$1" "$T/go.$1"
	cg_run "$2" "$LIB_DIR/loop_io" memory "$3" "$T/ready.$1" "$T/go.$1" >"$T/out.$1" 2>&1 &
	local pid=$!

	wait_for $((120 * SLOW)) test -e "$T/ready.$1" || { kill $pid; return 1; }
	: >"$T/go.$1"
	wait $pid
}

# 104 MiB in a cgroup that may have 48 MiB.
limited() {
	local i

	set_up 256 "$@"
	echo 48M >"$CG/memory.max"
	for ((i = 1; i <= ROUNDS; i++)); do
		memory 0 "$CG" 104 || fail "round $i: $(<"$T/out.0"), $(kills) kills"
		echo "progress: round $i of $ROUNDS"
	done
	want_ge "sectors written" "$(disk_stat "$L" 7)" $((ROUNDS * 56 * 2048))
	tear_down
}

# churn N: fills memory again and again.
churn() {
	local end=$((SECONDS + SECS * SLOW)) n=0

	while [ $SECONDS -lt $end ]; do
		memory "$1" "$CG/$1" $EACH || return 1
		n=$((n + 1))
		echo $n >"$T/rounds.$1"
	done
}

# Tasks of several cgroups without limits need more than the machine has.
machine() {
	local i rounds=0

	set_up $((TASKS * EACH)) "$@"
	rm -f "$T"/rounds.*
	for ((i = 0; i < TASKS; i++)); do
		mkdir "$CG/$i"
		churn $i &
		PIDS+=($!)
	done
	for ((i = 0; i < TASKS; i++)); do
		wait "${PIDS[i]}" || fail "task $i: $(<"$T/out.$i"), $(kills) kills"
		rounds=$((rounds + $(<"$T/rounds.$i")))
	done
	echo "$rounds times $EACH MiB, $(($(disk_stat "$L" 7) / 2048)) MiB swapped"
	want_ge "MiB swapped" $(($(disk_stat "$L" 7) / 2048)) 100
	tear_down
}

test_begin 4
LIB_CGROUPS+=("$CG")
need_driver

check "a cgroup over its limit" limited
check "a cgroup over its limit, backing I/O direct" limited --direct-io=on
check "a machine without memory" machine
check "a machine without memory, backing I/O direct" machine --direct-io=on

test_end
