#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Memory that the driver allocates for I/O of a cgroup is charged to that cgroup.
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"
. "$LIB_DIR/proofs.sh"

limited() {
	mem_killed "$MEM_CG" "in the limited cgroup"
}

buffered() {
	mem_killed_buffered "$MEM_CG" "in the limited cgroup"
}

# Each 64 pages over memory.high take up to 2 s.
slowed() {
	local start rc

	mem_attach
	echo $((8 << 20)) >"$MEM_CG/memory.high"
	start=$(now_ms)
	rc=$(mem_write "$MEM_CG" "$LOOP" oflag=direct bs=128k count=80)
	start=$(($(now_ms) - start))
	echo max >"$MEM_CG/memory.high"
	mem_detach
	want "exit status" "$rc" 0
	want_ge "memory.events high" "$(cg_stat "$MEM_CG" memory.events high)" 4
	want_ge "milliseconds for 10 MiB" "$start" 2000
}

child() {
	mem_use_child
	mem_killed "$MEM_CHILD" "in a child of it"
}

MISSING=$(cg_missing)
if [ -n "$MISSING" ]; then
	lib_ktap
	ktap_print_header
	ktap_skip_all "$MISSING"
	exit "$KSFT_SKIP"
fi

test_begin 5
LIB_CGROUPS+=("$CGROOT/loop_rs-memory" "$CGROOT/loop_rs-unlimited")
MEM_DIR=$T/tmpfs
mkdir "$MEM_DIR"
mount -t tmpfs -o size=$((MEM_WRITE + 64))M none "$MEM_DIR"
need_driver
mem_setup

check "OOM-killed in the limited cgroup" limited
check "OOM-killed in the limited cgroup, buffered" buffered
check "slowed down over memory.high" slowed
check "OOM-killed in a child of it" child
check "charged to the cgroup and not to the root" mem_unlimited

mem_teardown
umount "$MEM_DIR"
test_end
