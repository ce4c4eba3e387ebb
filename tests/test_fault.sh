#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A failure is injected into each step of an operation in turn: the caller must get an error, and
# the device must be unchanged and work afterwards. Needs a kernel with fault injection
# (CONFIG_FAILSLAB and so on); failures of the device below are tested on any kernel.
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

DEBUGFS=/sys/kernel/debug
FAULTS="failslab fail_page_alloc fail_usercopy fail_make_request"
WORKERS=$DEBUGFS/loop_rs
DM=loop_rs-fault
KIB=1024

need_faults() {
	if [ ! -d "$DEBUGFS/failslab" ] || [ ! -e /proc/self/fail-nth ]; then
		skip "the kernel has no fault injection"
	fi
}

# faults_set Y|N: configures the injection. Failures are injected by fail-nth only, into every call,
# and are not logged, since a report has a call trace.
faults_set() {
	local f

	for f in $FAULTS; do
		[ -d "$DEBUGFS/$f" ] || continue
		echo 0 >"$DEBUGFS/$f/probability"
		echo 0 >"$DEBUGFS/$f/verbose"
		echo -1 >"$DEBUGFS/$f/times"
		[ ! -e "$DEBUGFS/$f/ignore-gfp-wait" ] ||
			echo "$1" >"$DEBUGFS/$f/ignore-gfp-wait"
	done
	[ ! -d "$DEBUGFS/fail_page_alloc" ] || echo 0 >"$DEBUGFS/fail_page_alloc/min-order"
}

# injected CALL FILES...: injects a failure into each step of the call in turn.
injected() {
	"$LIB_DIR/loop_fault" "$@" >"$T/out" || { cat "$T/out"; fail "loop_fault $*"; }
	cat "$T/out"
}

# each CALL LEAST FILES...: at least LEAST steps must have failed.
each() {
	local call=$1 least=$2

	shift 2
	need_faults
	scratch_fs tmpfs "$T/fs" none 64M
	pattern $((KIB * KIB)) "$T/fs/one" 1
	pattern $((KIB * KIB)) "$T/fs/two" 2
	injected "$call" "$@"
	want_ge "injected failures" "$(sed -n 's/^passes after //p' "$T/out")" "$least"
	want "devices left" "$(cd /sys/block && echo loop*)" "loop*"
	wait_for 10 umount "$T/fs"
}

fallbacks() {
	worker_stat "$L" / fallbacks
}

# Without memory for a worker, the worker of the root serves the I/O of a cgroup.
new_cgroup() {
	local before

	need_faults
	[ -z "$(cg_missing)" ] || skip "$(cg_missing)"
	pattern $((KIB * KIB)) "$T/file" 3
	attach "$T/file"
	trap 'rmdir "$CGROOT"/loop_rs-fault-* 2>/dev/null || true' EXIT
	before=$(fallbacks 2>/dev/null || echo 0)
	injected cgroup "$LOOP" "$CGROOT"
	if [ "$DRIVER" != loop ]; then
		# A node of the tree, the worker and two counters; a failed page allocation can be
		# for several of them.
		want_ge "I/O for which there was no worker" $(($(fallbacks) - before)) 1
	fi
	want_ge "injected failures" "$(sed -n 's/^passes after //p' "$T/out")" 4
	detach
}

detached() {
	worker_stat "$L" / parked
}

detached_bios() {
	need_faults
	need_scratch
	scratch_fs ext4 "$T/fs"
	pattern $((KIB * KIB)) "$T/fs/file" 4
	sync -f "$T/fs/file"
	attach --direct-io=on "$T/fs/file"
	injected detach-bios "$LOOP" "$T/fs"
	want_ge "injected failures" "$(sed -n 's/^passes after //p' "$T/out")" 2
	[ "$DRIVER" = loop ] || want_ge "detached" "$(detached)" 1
	detach
	wait_for 10 umount "$T/fs"
}

# reads TIMES: reads at random offsets and checks the data of successful reads. Sets GOOD and BAD to
# the numbers of successful and failed reads.
reads() {
	local i at

	GOOD=0 BAD=0
	for ((i = 0; i < $1; i++)); do
		at=$((RANDOM % 128))
		if dd if="$LOOP" of="$T/out" bs=64k count=1 skip=$at iflag=direct 2>"$T/err"; then
			cmp -n 65536 -i 0:$((at * 65536)) "$T/out" "$T/model"
			GOOD=$((GOOD + 1))
		else
			grep -q "Input/output error" "$T/err" || fail "$(<"$T/err")"
			BAD=$((BAD + 1))
		fi
	done
	echo "$GOOD good, $BAD bad"
}

# Requests fail at their submission to the device below.
make_request() {
	local name fault=$DEBUGFS/fail_make_request

	need_faults
	need_scratch
	[ -d "$fault" ] || skip "no fail_make_request"
	name=$(basename "$(readlink -f "$SCRATCH_DEV")")
	pattern $((8 * KIB * KIB)) "$SCRATCH_DEV" 5
	pattern $((8 * KIB * KIB)) "$T/model" 5
	blockdev --flushbufs "$SCRATCH_DEV"
	attach --direct-io=on --sizelimit $((8 * KIB * KIB)) "$SCRATCH_DEV"
	# Disable the failures at the end of the case, also after an error.
	# shellcheck disable=SC2064 # it's known now only
	trap "echo 0 >$fault/probability; echo 0 >/sys/class/block/$name/make-it-fail" EXIT
	echo 1 >"/sys/class/block/$name/make-it-fail"
	# An I/O that fails inline is tried once more by the worker.
	echo 60 >"$fault/probability"
	reads 50
	want_ge "reads that failed" $BAD 5
	want_ge "reads that did not" $GOOD 5
	echo 100 >"$fault/probability"
	want_error "Input/output error" dd if=/dev/zero of="$LOOP" bs=64k count=1 \
		oflag=direct conv=notrunc
	echo 0 >"$fault/probability"
	reads 10
	want "reads that fail" $BAD 0
	cmp -n $((8 * KIB * KIB)) "$LOOP" "$T/model"
	detach
}

# A device below that alternates between working and failing.
flakey() {
	local sectors=$((16 * KIB))

	need_scratch
	modprobe -q dm-flakey || [ -d /sys/module/dm_flakey ] || skip "no dm-flakey"
	dm_create "$DM" "0 $sectors linear $SCRATCH_DEV 0"
	pattern $((8 * KIB * KIB)) "/dev/mapper/$DM" 6
	pattern $((8 * KIB * KIB)) "$T/model" 6
	blockdev --flushbufs "/dev/mapper/$DM"
	attach --direct-io=on "/dev/mapper/$DM"
	dm_swap "$DM" "0 $sectors flakey $SCRATCH_DEV 0 1 1 2 error_reads error_writes"
	local end=$((SECONDS + 3)) good=0 bad=0

	while [ "$SECONDS" -lt "$end" ] || [ $good -eq 0 ] || [ $bad -eq 0 ]; do
		reads 10
		good=$((good + GOOD)) bad=$((bad + BAD))
		[ "$SECONDS" -lt $((end + 30 * SLOW)) ] || fail "$good good, $bad bad"
	done
	dm_swap "$DM" "0 $sectors linear $SCRATCH_DEV 0"
	cmp -n $((8 * KIB * KIB)) "$LOOP" "$T/model"
	detach
	dm_remove "$DM"
}

# A failed case may have left devices.
fresh() {
	! driver_loaded || driver_unload
	driver_load max_loop=0
	"$@"
}

test_begin 16
LIB_DMS+=("$DM")
mkdir "$T/fs"
expedite_rcu
need_driver max_loop=0
faults_set N

# A disk takes some 500 allocations, which is slow: all of them fail only once.
check "LOOP_CTL_ADD" fresh each add 250 none
check "LOOP_CTL_GET_FREE" fresh each get-free/9 250 none
check "open" fresh each open 1 none
check "open of a node without a disk" fresh each open-node/9 250 "$T/fs/node"
check "LOOP_CONFIGURE" fresh each configure 10 "$T/fs/one"
check "LOOP_SET_FD" fresh each set-fd 10 "$T/fs/one"
check "LOOP_SET_STATUS64" fresh each set-status 2 "$T/fs/one"
check "LOOP_GET_STATUS64" fresh each get-status 1 "$T/fs/one"
check "LOOP_CHANGE_FD" fresh each change-fd 2 "$T/fs/one" "$T/fs/two"
# These two may allocate nothing, and then nothing can fail.
check "LOOP_SET_BLOCK_SIZE" fresh each block-size 0 "$T/fs/one"
check "LOOP_SET_DIRECT_IO" fresh each direct-io 0 "$T/fs/one"
check "LOOP_CLR_FD and the last close" fresh each clear 1 "$T/fs/one"
check "the first I/O of a cgroup" fresh new_cgroup
check "detaching bios from their tags" fresh detached_bios
check "failing requests of the device below" fresh make_request
check "a device below that fails now and then" fresh flakey

faults_set Y
test_end
