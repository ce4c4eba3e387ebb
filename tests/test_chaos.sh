#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# All operations concurrently and at random: verified I/O by tasks in cgroups with limits, which are
# created and removed, to devices that are attached, detached, reconfigured and removed, on file
# systems that are frozen at times. No I/O may fail, acknowledged data must be in the files, no task
# may hang, and no device, worker or cgroup may be left. The program is in chaos/.
#
#   CHAOS_SECONDS  duration (default 45, or 120 on slow kernels); longer until each operation was
#                  done often enough
#   CHAOS_SEED     seed of the operations, as printed by an earlier run (default: random); their
#                  interleaving still differs from run to run
#
# tier: long
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

CHAOS_SECONDS=${CHAOS_SECONDS:-$((SLOW > 1 ? 120 : 45))}
CHAOS_SEED=${CHAOS_SEED:-$((SRANDOM % 32768))}
PARENT=$CGROOT/loop_rs-chaos
CHAOS=$LIB_DIR/loop_chaos

dying() {
	cg_stat "$PARENT" cgroup.stat nr_dying_subsys_io
}

# The second file system is on a disk if there is one.
mount_other() {
	[ -b "${SCRATCH_DEV2:-}" ] || return 0
	mount -t xfs -o noatime "$SCRATCH_DEV2" "$T/other"
}

set_up() {
	need_scratch
	[ -z "$(cg_missing)" ] || skip "$(cg_missing)"
	scratch_fs ext4 "$T/fs"
	mkdir "$T/other" "$T/mem"
	if [ -b "${SCRATCH_DEV2:-}" ]; then
		scratch_fs xfs "$T/other" "$SCRATCH_DEV2"
	else
		mkdir "$T/fs/other"
		rmdir "$T/other"
		ln -s fs/other "$T/other"
	fi
	scratch_fs tmpfs "$T/mem" none 256M
	mkdir "$PARENT"
	echo "+memory +io" >"$PARENT/cgroup.subtree_control"
	# A small tag set, so that more requests are detached from their tags.
	if [ "$DRIVER" = loop ]; then
		driver_load max_loop=1 hw_queue_depth=32
	else
		driver_load max_loop=1 hw_queue_depth=32 idle_worker_timeout_ms=1000
	fi
}

# At the end no device is attached and no cgroup is left.
chaos() {
	local other

	set_up
	other=$(readlink -f "$T/other")
	"$CHAOS" run "$DRIVER" "$T/fs" "$other" "$T/mem" "$PARENT" "$T/model" \
		"$CHAOS_SECONDS" "$CHAOS_SEED" "$SLOW" >"$T/out" 2>&1 || {
		cat "$T/out"
		: >"$T/failed"
		within 20 find "$PARENT" -mindepth 1 -depth -type d -exec rmdir {} \; || true
		fail "loop_chaos, with CHAOS_SEED=$CHAOS_SEED"
	}
	cat "$T/out"
	want "loop devices attached" "$(lib_bound)" ""
	want "cgroups" "$(cd "$PARENT" && echo */)" "*/"
	: >"$T/ran"
}

# Skips the case if the first one was skipped, fails it if the first one failed.
need_run() {
	[ ! -e "$T/failed" ] || fail "it failed"
	[ -e "$T/ran" ] || skip "it did not run"
}

often() {
	need_run
	! grep "^too few" "$T/out" || fail "this shows nothing"
}

# The reaper's timer is deferrable and need not fire on an idle CPU: keep each CPU awake.
reaped() {
	local cpu

	for cpu in $(seq 0 $(($(nproc) - 1))); do
		taskset -c "$cpu" true
	done
	! grep -q /loop_rs-chaos /sys/kernel/debug/loop_rs/*/workers
}

workers() {
	need_run
	skip_on_c "it does not report this"
	[ -d /sys/kernel/debug/loop_rs ] || skip "no debugfs"
	wait_for 10 reaped ||
		fail "$(grep /loop_rs-chaos /sys/kernel/debug/loop_rs/*/workers)"
}

# Reads the files without the driver, and from the disk except on tmpfs.
files() {
	need_run
	driver_unload
	umount "$T/fs" "$T/other"
	mount -o noatime "$SCRATCH_DEV" "$T/fs"
	mount_other
	"$CHAOS" verify "$T/model" "$T/fs" "$(readlink -f "$T/other")" "$T/mem" || fail "not there"
	umount "$T/fs" "$T/other" "$T/mem"
}

none_dying() {
	[ "$(dying)" -eq 0 ]
}

# No io css of the removed cgroups is referenced any more.
released() {
	need_run
	grep -q nr_dying_subsys_io "$PARENT/cgroup.stat" ||
		skip "no nr_dying_subsys_io in cgroup.stat"
	wait_for 20 none_dying || fail "still $(dying)"
	cg_remove "$PARENT"
}

test_begin 5
expedite_rcu
LIB_CGROUPS+=("$PARENT")

lib_diag "CHAOS_SEED=$CHAOS_SEED"
check "verified I/O while devices, cgroups and file systems change" chaos
check "each operation was done often enough" often
check "all workers of cgroups are reaped" workers
check "acknowledged data is in the files after unloading" files
check "no removed cgroup is still referenced" released

test_end
