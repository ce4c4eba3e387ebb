#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The I/O of other cgroups continues however many I/Os a throttled cgroup has in flight, and however
# many cgroups are blocked.
#
# tier: long
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"
. "$LIB_DIR/edges.sh"

PARENT=$CGROOT/loop_rs-depth
DEPTH=16384
DIRTY=10240
CROWD=1100
NR=/proc/sys/fs/aio-max-nr

set_up() {
	need_scratch
	[ -z "$(cg_missing)" ] || skip "$(cg_missing)"
	DISK=$(<"/sys/class/block/${SCRATCH_DEV#/dev/}/dev")
	scratch_fs ext4 "$T/fs"
	pattern $((96 * MIB)) "$T/fs/file" 7
	pattern $MIB "$T/fs/other" 8
	sync -f "$T/fs"
	mkdir "$PARENT"
	echo "+io" >"$PARENT/cgroup.subtree_control"
	mkdir "$PARENT/victim" "$PARENT/n"
	AIO=$(<$NR)
	trap release_io EXIT
}

# Releases throttled and frozen I/O, also after a failure.
release_io() {
	fsfreeze -u "$T/fs" || true
	echo "$DISK wbps=max" >"$PARENT/n/io.max" || true
	echo 1 >"$PARENT/cgroup.kill" || true
	wait
	echo "$AIO" >$NR
	rmdir "$PARENT"/*/ || true
	cg_remove "$PARENT"
} 2>/dev/null

tear_down() {
	umount "$T/fs"
	rmdir "$PARENT"/*/
	cg_remove "$PARENT"
}

# $LOOP, and $OTHER as the control. The first direct I/O of a file sets up its metadata in the
# cache.
attach_both() {
	attach --direct-io=on "$T/fs/other"
	OTHER=$LOOP
	attach --direct-io=on "$T/fs/file"
	reads "$CGROOT" "$OTHER" "$T/fs/other" >/dev/null
	reads "$CGROOT" "$LOOP" "$T/fs/file" >/dev/null
}

# reads CGROUP DEVICE FILE: prints the milliseconds that 100 sequential reads take.
reads() {
	local start

	start=$(now_ms)
	within 20 cg_run "$1" dd if="$2" of="$T/out" bs=4k count=100 iflag=direct status=none ||
		fail "100 reads of $2 did not end in time"
	# Callers in command substitutions do not inherit errexit.
	cmp -n 409600 "$T/out" "$3" || fail "wrong data in $2"
	echo $(($(now_ms) - start))
}

# The victim's reads take little longer than reads of another loop device over the same disk; the
# best of three attempts, since the machine may be busy.
unharmed() {
	local i took best=1000000 control=1000000

	for i in 1 2 3; do
		took=$(reads "$PARENT/victim" "$OTHER" "$T/fs/other") || fail "$took"
		[ "$took" -ge $control ] || control=$took
		took=$(reads "$PARENT/victim" "$LOOP" "$T/fs/file") || fail "$took"
		[ "$took" -ge $best ] || best=$took
	done
	echo "100 reads: $best ms, $control ms on the other device"
	want_le "milliseconds for 100 reads" $best $((control * 3 + 500 * SLOW))
}

throttled() {
	skip_on_c "a throttled cgroup holds all tags"
	set_up
	attach_both
	cg_limit_io "$PARENT/n" "$DISK" wbps=$((65536 / SLOW))
	echo 65536 >$NR
	flood "$PARENT/n" write $((16 * MIB)) $DEPTH 4096 3
	in_flight $((DEPTH * 3 / 4)) || fail "$(disk_stat "$L" 9) in flight"
	unharmed
	# Reads and an fsync by the root cgroup continue, too.
	reads "$CGROOT" "$LOOP" "$T/fs/file"
	within 20 cg_run "$PARENT/victim" dd if="$T/out" of="$LOOP" bs=4k count=1 oflag=direct \
		conv=notrunc,fsync status=none
	in_flight $((DEPTH / 2)) || fail "the neighbours were not blocked: this shows nothing"
	echo "$DISK wbps=max" >"$PARENT/n/io.max"
	flood_ends
	want "writes" "$(flooded 0)" $DEPTH
	sync "$LOOP"
	want "blocks in the file" \
		"$("$EDGES" placed "$T/fs/file" $((16 * MIB)) $DEPTH 4096 3 0)" "$DEPTH none 0"
	detach "$OTHER"
	detach
	tear_down
}

# Writeback of dirty pages that are not adjacent: one I/O for each page.
paged() {
	skip_on_c "a throttled cgroup holds all tags"
	set_up
	attach_both
	cg_limit_io "$PARENT/n" "$DISK" wbps=$((65536 / SLOW))
	cg_run "$PARENT/n" "$EDGES" dirty "$LOOP" $((16 * MIB)) $DIRTY &
	wait_for 30 in_flight $((DIRTY * 3 / 4)) || fail "$(disk_stat "$L" 9) in flight"
	unharmed
	in_flight $((DIRTY / 2)) || fail "the neighbours were not blocked: this shows nothing"
	echo "$DISK wbps=max" >"$PARENT/n/io.max"
	wait $!
	sync "$LOOP"
	detach "$OTHER"
	detach
	tear_down
}

# More blocked workers than the default max_active of a workqueue (WQ_DFL_ACTIVE).
crowd() {
	local i cgroups=()

	skip_on_c "a stuck cgroup holds all tags"
	set_up
	for ((i = 0; i < CROWD; i++)); do
		cgroups+=("$PARENT/c$i")
	done
	mkdir "${cgroups[@]}"
	# No page of the file is cached: a worker does the reads.
	attach --direct-io=off "$T/fs/file"
	sync "$LOOP"
	dd of="$T/fs/file" oflag=nocache conv=notrunc,fdatasync count=0 status=none
	fsfreeze -f "$T/fs"
	"$EDGES" crowd "$LOOP" $((16 * MIB)) "${cgroups[@]}" &
	wait_for 60 in_flight $CROWD || fail "$(disk_stat "$L" 9) in flight"
	wait_for 20 settled
	within 20 cg_run "$CGROOT" dd if="$LOOP" of=/dev/null bs=4k count=16 skip=256 iflag=direct
	within 20 cg_run "$PARENT/victim" dd if="$LOOP" of=/dev/null bs=4k count=16 skip=2048 \
		iflag=direct
	within 20 cg_run "$PARENT/victim" sync "$LOOP"
	in_flight $CROWD || fail "the cgroups were not stuck: this shows nothing"
	fsfreeze -u "$T/fs"
	wait $!
	detach
	tear_down
}

# Whether the kernel has created no worker thread for a second.
settled() {
	local before

	before=$(workers)
	sleep 1
	[ "$before" = "$(workers)" ]
}
workers() {
	grep -l '^kworker' /proc/[0-9]*/comm 2>/dev/null | wc -l
}

test_begin 3
LIB_CGROUPS+=("$PARENT")
mkdir "$T/fs"
need_driver

check "a throttled cgroup with $DEPTH I/Os in flight" throttled
check "writeback of $DIRTY dirty pages of a throttled cgroup" paged
check "$CROWD cgroups stuck in a frozen file system" crowd

test_end
