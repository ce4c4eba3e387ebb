#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The worker of a cgroup: it comes with the first I/O, holds its cgroup's io css
# while it's idle, and is reaped in time, so that a removed cgroup goes away.
#
# What is looked at is cgroup.stat of the parent, which counts io css that were taken
# offline and are still referenced. The I/O itself leaves no reference: it's direct, on a
# block device with direct I/O.
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

PARENT=$CGROOT/loop_rs-worker
WORKERS=/sys/kernel/debug/loop_rs

dying() {
	cg_stat "$PARENT" cgroup.stat nr_dying_subsys_io
}

# The timer of the reaper is deferrable: an idle CPU needn't fire it. Keep each awake.
no_dying() {
	local cpu

	for cpu in $(seq 0 $(($(nproc) - 1))); do
		taskset -c "$cpu" true
	done
	[ "$(dying)" -eq "$BEFORE" ]
}

set_up() {
	need_scratch
	[ -z "$(cg_missing)" ] || skip "$(cg_missing)"
	[ -d "$PARENT" ] || mkdir "$PARENT"
	echo "+memory +io" >"$PARENT/cgroup.subtree_control"
	grep -q nr_dying_subsys_io "$PARENT/cgroup.stat" ||
		skip "no nr_dying_subsys_io in cgroup.stat"
	attach --direct-io=on --sizelimit 64M "$SCRATCH_DEV"
	BEFORE=$(dying)
}

# A cgroup does I/O through the device and is removed.
cgroup_io() {
	local cg=$PARENT/$1

	mkdir "$cg"
	cg_run "$cg" dd if=/dev/zero of="$LOOP" bs=64k count=8 oflag=direct \
		conv=notrunc 2>/dev/null
	cg_run "$cg" dd if="$LOOP" of=/dev/null bs=64k count=8 iflag=direct \
		2>/dev/null
}

tear_down() {
	detach
	cg_remove "$PARENT"
}

# With the 60 s that are the default: it is there, and still there, after the
# removal; it goes with the device at the latest.
appears() {
	set_up
	cgroup_io a
	want "before rmdir" "$(dying)" "$BEFORE"
	rmdir "$PARENT/a"
	sleep 2
	want "io css kept by the idle worker" "$(dying)" $((BEFORE + 1))
	detach
	# The workers of a device go with it.
	driver_unload
	wait_for 10 no_dying || fail "still $(dying), was $BEFORE"
	cg_remove "$PARENT"
}

# A cgroup that did no I/O has no worker: otherwise the case before shows nothing.
only_with_io() {
	set_up
	mkdir "$PARENT/a"
	cg_run "$PARENT/a" true
	rmdir "$PARENT/a"
	wait_for 5 no_dying || fail "still $(dying), was $BEFORE"
	tear_down
}

several() {
	local i

	set_up
	for i in 1 2 3 4 5; do
		cgroup_io $i
		rmdir "$PARENT/$i"
	done
	sleep 1
	want "io css kept by idle workers" "$(dying)" $((BEFORE + 5))
	detach
	driver_unload
	wait_for 10 no_dying || fail "still $(dying), was $BEFORE"
	cg_remove "$PARENT"
}

load_with_timeout() {
	skip_on_c "it has no parameter for the reaper's timeout"
	driver_unload
	driver_load idle_worker_timeout_ms="$1"
	want "parameter" \
		"$(<"/sys/module/$DRIVER/parameters/idle_worker_timeout_ms")" "$1"
}

# In time, not before it, with the device still attached.
reaped() {
	load_with_timeout 3000
	set_up
	cgroup_io a
	rmdir "$PARENT/a"
	sleep 1
	want "io css after a third of the time" "$(dying)" $((BEFORE + 1))
	wait_for 12 no_dying || fail "still $(dying), was $BEFORE"
	want "attached" "$(lib_bound)" "$L"
	tear_down
}

# A worker that is used again meanwhile starts afresh.
reused() {
	local i

	load_with_timeout $((2000 * SLOW))
	set_up
	cgroup_io a
	for i in 1 2 3 4; do
		sleep $((8 * SLOW))e-1
		cg_run "$PARENT/a" dd if="$LOOP" of=/dev/null bs=4k count=1 \
			iflag=direct 2>/dev/null
	done
	rmdir "$PARENT/a"
	sleep 0.5
	want "io css" "$(dying)" $((BEFORE + 1))
	wait_for 10 no_dying || fail "still $(dying), was $BEFORE"
	# And a new one is made for a new cgroup.
	cgroup_io a
	rmdir "$PARENT/a"
	sleep 0.5
	want "io css" "$(dying)" $((BEFORE + 1))
	wait_for 10 no_dying || fail "still $(dying), was $BEFORE"
	tear_down
}

in_flight() {
	[ "$(disk_stat "$L" 9)" -eq "$1" ]
}

# Removed while its I/O is under way: the I/O completes.
removed_under_io() {
	local disk i n=8 p pids=() tasks

	load_with_timeout 500
	set_up
	disk=$(<"/sys/class/block/${SCRATCH_DEV#/dev/}/dev")
	mkdir "$PARENT/a" "$PARENT/b"
	cg_limit_io "$PARENT/a" "$disk" wbps=4096
	# If it fails, nothing is left stuck.
	# shellcheck disable=SC2064 # it's known now only
	trap "{ echo $disk wbps=max >$PARENT/a/io.max; echo 1 >$PARENT/a/cgroup.kill
		echo 1 >$PARENT/b/cgroup.kill; } 2>/dev/null || true" EXIT
	for ((i = 0; i < n; i++)); do
		cg_run "$PARENT/a" dd if=/dev/zero of="$LOOP" bs=64k count=2 seek=$((i * 2)) \
			oflag=direct conv=notrunc 2>/dev/null &
		pids+=($!)
	done
	wait_for 10 in_flight $n
	# The processes go to another cgroup and do nothing more for now: what they have asked for
	# stays behind.
	mapfile -t tasks <"$PARENT/a/cgroup.procs"
	want "processes in the cgroup" "${#tasks[@]}" $n
	for p in "${tasks[@]}"; do
		kill -STOP "$p"
		echo "$p" >"$PARENT/b/cgroup.procs"
	done
	want "in flight when the cgroup is removed" "$(disk_stat "$L" 9)" $n
	rmdir "$PARENT/a"
	# They are held to the limit no more.
	wait_for 20 in_flight 0 || fail "$(disk_stat "$L" 9) of $n in flight"
	kill -CONT "${tasks[@]}"
	for p in "${pids[@]}"; do
		wait "$p"
	done
	rmdir "$PARENT/b"
	wait_for 10 no_dying || fail "still $(dying), was $BEFORE"
	tear_down
}

# As the driver tells it.
listed() {
	skip_on_c "it doesn't tell"
	[ -d /sys/kernel/debug/block ] || skip "no debugfs"
	load_with_timeout $((1500 * SLOW))
	set_up
	[ -r "$WORKERS/$L/workers" ] || fail "no $WORKERS/$L/workers"
	want "workers at first" "$(grep loop_rs-worker "$WORKERS/$L/workers")" ""
	cgroup_io a
	grep -q "/loop_rs-worker/a idle" "$WORKERS/$L/workers" ||
		fail "$(<"$WORKERS/$L/workers")"
	want "waiting" "$(worker_stat "$L" /a waiting)" 0
	want "tags" "$(worker_stat "$L" /a tags)" 0
	want "written" "$(worker_stat "$L" /a wios) $(worker_stat "$L" /a wbytes)" "8 $((8 * 65536))"
	want "read" "$(worker_stat "$L" /a rios) $(worker_stat "$L" /a rbytes)" "8 $((8 * 65536))"
	want "done" "$(worker_stat "$L" /a "done")" 16
	want_ge "device's written bytes" \
		"$(sed 's/.* wbytes=\([0-9]*\) .*/\1/' "/sys/block/$L/loop/stat")" $((8 * 65536))
	wait_for 10 not_listed || fail "$(<"$WORKERS/$L/workers")"
	cg_remove "$PARENT/a"
	# The device's own go on counting, whatever it is attached to.
	detach
	attach --sizelimit 64M "$SCRATCH_DEV"
	want_ge "device's written bytes, attached again" \
		"$(sed 's/.* wbytes=\([0-9]*\) .*/\1/' "/sys/block/$L/loop/stat")" $((8 * 65536))
	tear_down
}

here_set_up() {
	skip_on_c "it has a worker do everything"
	[ -d /sys/kernel/debug/block ] || skip "no debugfs"
	need_scratch
	[ -z "$(cg_missing)" ] || skip "$(cg_missing)"
	load_with_timeout 60000
	[ -d "$PARENT" ] || mkdir "$PARENT"
	echo "+memory +io" >"$PARENT/cgroup.subtree_control"
}

# What takes no waiting is done by the task that submits it: its worker takes next to
# nothing. Its cgroup is charged for it all the same.
served_here() {
	local back dio done here n=0 disk=/sys/class/block/${SCRATCH_DEV#/dev/}/dev

	here_set_up
	scratch_fs ext4 "$T/fs"
	pattern $((1 << 20)) "$T/fs/file" 3
	sync -f "$T/fs/file"
	while read -r dio back; do
		n=$((n + 1))
		[ $n -lt 3 ] || umount "$T/fs"
		attach --direct-io="$dio" --sizelimit 1M "$back"
		# It stays in the page cache while the device has it open.
		dd if="$back" of="$T/in" bs=64k count=16 2>/dev/null
		mkdir "$PARENT/here$n"
		cg_run "$PARENT/here$n" dd if="$LOOP" of="$T/out" bs=4k iflag=direct 2>/dev/null
		cmp "$T/out" "$T/in"
		done=$(worker_stat "$L" "/here$n" "done")
		here=$(worker_stat "$L" "/here$n" here)
		want "requests, $back, direct I/O $dio" "$done" 256
		want_ge "requests served where they were submitted, $back, direct I/O $dio" "$here" 224
		[ "$dio" = off ] ||
			grep -qE "^$(<"$disk") rbytes=$((1 << 20)) " "$PARENT/here$n/io.stat" ||
			fail "io.stat of the cgroup: $(<"$PARENT/here$n/io.stat")"
		detach
		cg_remove "$PARENT/here$n"
	done <<-END
		off $T/fs/file
		on $T/fs/file
		off $SCRATCH_DEV
	END
	cg_remove "$PARENT"
}

# So is a write to the page cache where the file system knows how, or of a block device; what it
# dirties is charged to the writer.
written_here() {
	command -v mkfs.xfs >/dev/null || skip "no mkfs.xfs"
	here_set_up
	pattern $((1 << 20)) "$T/in" 4
	scratch_fs xfs "$T/xfs"
	pattern $((1 << 20)) "$T/xfs/file" 3
	# Or the file's times would have to be written now and then, all the more on a slow machine, and
	# that waits.
	mount -o remount,lazytime "$T/xfs"
	written xfs "$T/xfs/file" 448
	umount "$T/xfs"
	# Those that come after many that had to wait are not tried at first.
	written disk "$SCRATCH_DEV" 160
	cg_remove "$PARENT"
}

# written NAME FILE LEAST: at least as many of 512 writes to a device on it, half of them to what is
# not cached yet, are served where they are submitted, as the cgroup of that name.
written() {
	local done here charged

	attach --sizelimit 1M "$2"
	sync "$2"
	echo 1 >/proc/sys/vm/drop_caches
	mkdir "$PARENT/$1"
	for _ in 1 2; do
		cg_run "$PARENT/$1" dd if="$T/in" of="$LOOP" bs=4k oflag=direct conv=notrunc \
			2>/dev/null
	done
	done=$(worker_stat "$L" "/$1" "done")
	here=$(worker_stat "$L" "/$1" here)
	charged=$(sed -n 's/^file //p' "$PARENT/$1/memory.stat")
	cmp -n $((1 << 20)) "$2" "$T/in"
	echo "$1: $here of $done served where they were submitted, $charged bytes charged"
	want_ge "requests, $2" "$done" 512
	want_ge "requests served where they were submitted, $2" "$here" "$3"
	# What each CPU has of the statistics is added when it is enough: 64 pages.
	want_ge "bytes of page cache that the writer is charged for, $2" "$charged" $((1 << 19))
	# The limit is one of files: nobody is to be killed for where in the backing file it is.
	bash -c 'ulimit -f 64 && exec dd if="$0" of="$1" bs=4k oflag=direct conv=notrunc' \
		"$T/in" "$LOOP" 2>/dev/null || fail "dd with a limit of the size of files: $?"
	# Of a block that is written in part the rest has to be read.
	sync "$2"
	echo 1 >/proc/sys/vm/drop_caches
	pattern $((61 * 512)) "$T/part" 5
	dd if="$T/part" of="$LOOP" bs=512 seek=3 oflag=direct conv=notrunc 2>/dev/null
	dd if="$T/part" of="$T/in" bs=512 seek=3 conv=notrunc 2>/dev/null
	cmp -n $((1 << 20)) "$2" "$T/in"
	detach
	cg_remove "$PARENT/$1"
}

# Who asks for much at once has the worker tried, and helping while that is faster; who asks for one
# thing after the other does not.
helped() {
	local done here dio least=8

	skip_on_c "it has a worker do everything"
	[ -d /sys/kernel/debug/block ] || skip "no debugfs"
	[ "$(nproc)" -gt 1 ] || skip "one CPU"
	need_scratch
	scratch_fs ext4 "$T/fs"
	pattern $((1 << 20)) "$T/fs/file" 3
	sync -f "$T/fs/file"
	# There a worker that is woken runs in place of the submitter, and is done when the next
	# request comes: it is tried, and found to be no help.
	[[ " $(uname -v) " != *" PREEMPT "* ]] || least=1
	for dio in off on; do
		load_with_timeout 60000
		attach --direct-io="$dio" "$T/fs/file"
		dd if="$T/fs/file" of=/dev/null bs=64k 2>/dev/null
		"$LIB_DIR/loop_io" deep "$LOOP" $((1 << 20)) 3 1 2000
		done=$(worker_stat "$L" / "done")
		here=$(worker_stat "$L" / here)
		want_ge "requests served where they were submitted, one at a time, direct I/O $dio" \
			"$here" $((done - done / 16))
		"$LIB_DIR/loop_io" deep "$LOOP" $((1 << 20)) 3 32 20000
		here=$(($(worker_stat "$L" / "done") - done - ($(worker_stat "$L" / here) - here)))
		echo "direct I/O $dio: the worker served $here of 20000"
		want_ge "requests that the worker served, many at a time, direct I/O $dio" \
			"$here" "$least"
		detach
	done
	umount "$T/fs"
}

# What the page cache has is read, also while the worker of the same cgroup is stuck: in a write to a
# file system that is frozen.
passes_by() {
	local pid rc=0

	skip_on_c "it has a worker do everything"
	[ -d /sys/kernel/debug/block ] || skip "no debugfs"
	need_scratch
	scratch_fs ext4 "$T/fs"
	pattern $((1 << 20)) "$T/fs/file" 3
	sync -f "$T/fs/file"
	load_with_timeout 60000
	attach "$T/fs/file"
	dd if="$LOOP" of="$T/out" bs=64k iflag=direct 2>/dev/null
	fsfreeze -f "$T/fs"
	dd if="$T/out" of="$LOOP" bs=4k count=1 oflag=direct conv=notrunc 2>/dev/null &
	pid=$!
	wait_for 10 stuck || rc=1
	within 10 dd if="$LOOP" of="$T/in" bs=4k iflag=direct || rc=2
	# Nor does a change that moves nothing wait for all I/O.
	within 10 "$LIB_DIR/loop_io" set-name "$LOOP" renamed || rc=4
	stuck || rc=3
	fsfreeze -u "$T/fs"
	wait $pid
	want "step that failed" $rc 0
	want "name" "$(losetup -nO REF "$LOOP" | xargs)" renamed
	cmp "$T/in" "$T/out"
	want_ge "reads served where they were submitted" "$(worker_stat "$L" / here)" 200
	detach
	umount "$T/fs"
}

# A read of which the page cache has a part: the worker reads the rest.
in_part() {
	local before bdi done here

	skip_on_c "it has a worker do everything"
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
	load_with_timeout 60000
	attach "$T/fs/file"
	blockdev --flushbufs "$LOOP"
	echo 1 >/proc/sys/vm/drop_caches
	# Each other page, so that a read of two is begun where it is submitted.
	fio --output=/dev/null --name=j --filename="$T/fs/file" --rw=read:4k --bs=4k \
		--ioengine=psync --size=1M --io_size=512k --invalidate=0 --readonly
	before=$(disk_stat "${SCRATCH_DEV#/dev/}" 3)
	dd if="$LOOP" of="$T/out" bs=8k iflag=direct 2>/dev/null
	cmp "$T/out" "$T/model"
	# A part of each was cached, and not read again.
	want "KiB read by the worker" $((($(disk_stat "${SCRATCH_DEV#/dev/}" 3) - before) / 2)) 512
	done=$(worker_stat "$L" / "done")
	here=$(worker_stat "$L" / here)
	echo "$here of $done served where they were submitted"
	want_le "requests served where they were submitted" "$here" $((done - 128))
	detach
	umount "$T/fs"
}

stuck() {
	grep -q "^/ busy" "$WORKERS/$L/workers"
}

not_listed() {
	no_dying && ! grep -q loop_rs-worker "$WORKERS/$L/workers"
}

test_begin 12
LIB_CGROUPS+=("$PARENT")
need_driver

check "no worker without I/O" only_with_io
check "an idle worker keeps a removed cgroup" appears
driver_loaded || need_driver
check "a worker for each cgroup" several
driver_loaded || need_driver
check "an idle worker is reaped in time" reaped
check "a worker that is used stays" reused
check "a cgroup removed while it does I/O" removed_under_io
check "workers in debugfs" listed
check "what takes no waiting is done where it is submitted" served_here
check "a write that takes no waiting is done where it is submitted" written_here
check "the worker helps who asks for much" helped
check "what is at hand passes by what is stuck" passes_by
check "a read that the page cache has a part of" in_part

test_end
