#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The worker of a cgroup is created by the first I/O, holds the io css of the cgroup while it is
# idle, and is reaped after a while, so that a removed cgroup is freed.
#
# The test reads cgroup.stat of the parent, which counts io css that are offline and still
# referenced. The I/O itself leaves no reference: it is direct, on a block device, with direct
# backing I/O.
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

PARENT=$CGROOT/loop_rs-worker
WORKERS=/sys/kernel/debug/loop_rs

dying() {
	cg_stat "$PARENT" cgroup.stat nr_dying_subsys_io
}

# The reaper's timer is deferrable and need not fire on an idle CPU: keep each CPU awake.
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

# With the default of 60 s an idle worker still exists some time after the removal of its cgroup;
# the removal of the device frees it.
appears() {
	set_up
	cgroup_io a
	want "before rmdir" "$(dying)" "$BEFORE"
	rmdir "$PARENT/a"
	sleep 2
	want "io css kept by the idle worker" "$(dying)" $((BEFORE + 1))
	detach
	# The workers of a device are freed with it.
	driver_unload
	wait_for 10 no_dying || fail "still $(dying), was $BEFORE"
	cg_remove "$PARENT"
}

# A cgroup without I/O must have no worker.
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

# Reaped after the timeout, not before it, while the device is attached.
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

# I/O restarts the timeout of a worker.
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
	# A new cgroup gets a new worker.
	cgroup_io a
	rmdir "$PARENT/a"
	sleep 0.5
	want "io css" "$(dying)" $((BEFORE + 1))
	wait_for 10 no_dying || fail "still $(dying), was $BEFORE"
	tear_down
}

none_in_flight() {
	! in_flight 1
}

# A cgroup is removed while its I/O is in flight: the I/O completes.
removed_under_io() {
	local disk i n=8 p pids=() tasks

	load_with_timeout 500
	set_up
	disk=$(<"/sys/class/block/${SCRATCH_DEV#/dev/}/dev")
	mkdir "$PARENT/a" "$PARENT/b"
	cg_limit_io "$PARENT/a" "$disk" wbps=4096
	# If the case fails, nothing stays blocked.
	# shellcheck disable=SC2064 # it's known now only
	trap "{ echo $disk wbps=max >$PARENT/a/io.max; echo 1 >$PARENT/a/cgroup.kill
		echo 1 >$PARENT/b/cgroup.kill; } 2>/dev/null || true" EXIT
	for ((i = 0; i < n; i++)); do
		cg_run "$PARENT/a" dd if=/dev/zero of="$LOOP" bs=64k count=2 seek=$((i * 2)) \
			oflag=direct conv=notrunc 2>/dev/null &
		pids+=($!)
	done
	wait_for 10 in_flight $n
	# The processes move to another cgroup and submit nothing for now; their I/O stays in the
	# old cgroup.
	mapfile -t tasks <"$PARENT/a/cgroup.procs"
	want "processes in the cgroup" "${#tasks[@]}" $n
	for p in "${tasks[@]}"; do
		kill -STOP "$p"
		echo "$p" >"$PARENT/b/cgroup.procs"
	done
	want "in flight when the cgroup is removed" "$(disk_stat "$L" 9)" $n
	rmdir "$PARENT/a"
	# The limit no longer applies to them.
	wait_for 20 none_in_flight || fail "$(disk_stat "$L" 9) of $n in flight"
	kill -CONT "${tasks[@]}"
	for p in "${pids[@]}"; do
		wait "$p"
	done
	rmdir "$PARENT/b"
	wait_for 10 no_dying || fail "still $(dying), was $BEFORE"
	tear_down
}

# The statistics in debugfs.
listed() {
	skip_on_c "it does not report this"
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
	# The device's own statistics continue across attachments.
	detach
	attach --sizelimit 64M "$SCRATCH_DEV"
	want_ge "device's written bytes, attached again" \
		"$(sed 's/.* wbytes=\([0-9]*\) .*/\1/' "/sys/block/$L/loop/stat")" $((8 * 65536))
	tear_down
}

here_set_up() {
	skip_on_c "workers do all I/O"
	[ -d /sys/kernel/debug/block ] || skip "no debugfs"
	need_scratch
	[ -z "$(cg_missing)" ] || skip "$(cg_missing)"
	load_with_timeout 60000
	[ -d "$PARENT" ] || mkdir "$PARENT"
	echo "+memory +io" >"$PARENT/cgroup.subtree_control"
}

# Requests that do not block are issued inline by the submitter: the worker gets almost none. The
# I/O is still charged to the cgroup.
issued_inline() {
	local back dio done here n=0 disk=/sys/class/block/${SCRATCH_DEV#/dev/}/dev

	here_set_up
	scratch_fs ext4 "$T/fs"
	pattern $((1 << 20)) "$T/fs/file" 3
	sync -f "$T/fs/file"
	while read -r dio back; do
		n=$((n + 1))
		[ $n -lt 3 ] || umount "$T/fs"
		attach --direct-io="$dio" --sizelimit 1M "$back"
		# The file stays in the page cache while the device has it open.
		dd if="$back" of="$T/in" bs=64k count=16 2>/dev/null
		mkdir "$PARENT/here$n"
		cg_run "$PARENT/here$n" dd if="$LOOP" of="$T/out" bs=4k iflag=direct 2>/dev/null
		cmp "$T/out" "$T/in"
		done=$(worker_stat "$L" "/here$n" "done")
		here=$(worker_stat "$L" "/here$n" here)
		want "requests, $back, direct I/O $dio" "$done" 256
		want_ge "requests issued inline, $back, direct I/O $dio" "$here" 224
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

# Writes to the page cache are also issued inline on a block device, or on a file system that
# supports IOCB_NOWAIT; dirty pages are charged to the writer.
written_inline() {
	command -v mkfs.xfs >/dev/null || skip "no mkfs.xfs"
	here_set_up
	pattern $((256 * PAGE)) "$T/in" 4
	scratch_fs xfs "$T/xfs"
	pattern $((256 * PAGE)) "$T/xfs/file" 3
	# Without lazytime, updates of the time stamps would block now and then, more often on a
	# slow machine.
	mount -o remount,lazytime "$T/xfs"
	written xfs "$T/xfs/file" 448
	umount "$T/xfs"
	# After many writes that would block, inline issue is not tried for a while.
	written disk "$SCRATCH_DEV" 160
	cg_remove "$PARENT"
}

# written NAME FILE LEAST: of 512 writes to a device over FILE, half of them to pages that are not
# cached, at least LEAST are issued inline, in the cgroup NAME.
written() {
	local done here charged

	attach --sizelimit $((256 * PAGE)) "$2"
	sync "$2"
	echo 1 >/proc/sys/vm/drop_caches
	mkdir "$PARENT/$1"
	for _ in 1 2; do
		cg_run "$PARENT/$1" dd if="$T/in" of="$LOOP" bs=$PAGE oflag=direct conv=notrunc \
			2>/dev/null
	done
	done=$(worker_stat "$L" "/$1" "done")
	here=$(worker_stat "$L" "/$1" here)
	charged=$(sed -n 's/^file //p' "$PARENT/$1/memory.stat")
	cmp -n $((256 * PAGE)) "$2" "$T/in"
	echo "$1: $here of $done served where they were submitted, $charged bytes charged"
	want_ge "requests, $2" "$done" 512
	want_ge "requests issued inline, $2" "$here" "$3"
	# A CPU adds its statistics to the shared ones in batches of 64 pages.
	want_ge "bytes of page cache that the writer is charged for, $2" "$charged" $((128 * PAGE))
	# RLIMIT_FSIZE applies to files only: the offset in the backing file must not kill the
	# writer.
	bash -c 'ulimit -f 64 && exec dd if="$0" of="$1" bs=4k oflag=direct conv=notrunc' \
		"$T/in" "$LOOP" 2>/dev/null || fail "dd with a limit of the size of files: $?"
	# A partial write of a block has to read the rest of it.
	sync "$2"
	echo 1 >/proc/sys/vm/drop_caches
	pattern $((61 * 512)) "$T/part" 5
	dd if="$T/part" of="$LOOP" bs=512 seek=3 oflag=direct conv=notrunc 2>/dev/null
	dd if="$T/part" of="$T/in" bs=512 seek=3 conv=notrunc 2>/dev/null
	cmp -n $((256 * PAGE)) "$2" "$T/in"
	detach
	cg_remove "$PARENT/$1"
}

# Requests of a submitter at high queue depth are offloaded to the worker while that is faster;
# single requests are not.
offloaded() {
	local done here dio least=8

	skip_on_c "workers do all I/O"
	[ -d /sys/kernel/debug/block ] || skip "no debugfs"
	[ "$(nproc)" -gt 1 ] || skip "one CPU"
	need_scratch
	scratch_fs ext4 "$T/fs"
	pattern $((1 << 20)) "$T/fs/file" 3
	sync -f "$T/fs/file"
	# On one CPU a woken worker preempts the submitter and is done by the next request: the
	# trial shows no gain.
	[[ " $(uname -v) " != *" PREEMPT "* ]] || least=1
	for dio in off on; do
		load_with_timeout 60000
		attach --direct-io="$dio" "$T/fs/file"
		dd if="$T/fs/file" of=/dev/null bs=64k 2>/dev/null
		"$LIB_DIR/loop_io" deep "$LOOP" $((1 << 20)) 3 1 2000
		done=$(worker_stat "$L" / "done")
		here=$(worker_stat "$L" / here)
		want_ge "requests issued inline, one at a time, direct I/O $dio" \
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

not_listed() {
	no_dying && ! grep -q loop_rs-worker "$WORKERS/$L/workers"
}

test_begin 10
LIB_CGROUPS+=("$PARENT")
need_driver

check "a cgroup without I/O has no worker" only_with_io
check "an idle worker holds a removed cgroup" appears
driver_loaded || need_driver
check "a worker for each cgroup" several
driver_loaded || need_driver
check "an idle worker is reaped after the timeout" reaped
check "a worker that is used is not reaped" reused
check "a cgroup removed under its I/O" removed_under_io
check "statistics of workers in debugfs" listed
check "requests that do not block are issued inline" issued_inline
check "writes that do not block are issued inline" written_inline
check "the worker shares the requests of a deep queue" offloaded

test_end
