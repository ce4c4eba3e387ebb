#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Many devices, and races on a few devices: only errors that the races explain may occur, and no
# device or worker may be left.
#
#   RACE_SECONDS  duration of the races (default 3, or 5 on the debug kernel)
#
# tier: long
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

COUNT=1000
MOD=/sys/module/$DRIVER

# Prints the KiB of slab, per-CPU memory, kernel stacks and vmalloc, after an RCU grace period.
kernel_memory() {
	echo 3 >/proc/sys/vm/drop_caches
	sleep 0.5
	echo 3 >/proc/sys/vm/drop_caches
	awk '/^(Slab|Percpu|KernelStack|VmallocUsed):/ { n += $2 }
		END { print n }' /proc/meminfo
}

devices() {
	local -a d

	d=(/sys/block/loop*)
	[ -e "${d[0]}" ] || d=()
	echo ${#d[@]}
}

unused() {
	driver_builtin || [ "$(<"$MOD/refcnt")" -eq 0 ]
}

# Unmounts the file system of the files, which the driver must have closed.
unmount_files() {
	wait_for 10 nothing_bound
	wait_for 10 unused
	wait_for 10 umount "$T/fs"
}

thousand() {
	local before after files

	mount -t tmpfs none "$T/fs"
	truncate -s $((COUNT * 512)) "$T/fs/file"
	# Memory that is allocated once and kept is allocated before the comparison.
	"$LIB_DIR/loop_many" devices "$T/fs/file" $((COUNT / 10))
	files=$(cut -f1 /proc/sys/fs/file-nr)
	want "devices" "$(devices)" 1
	before=$(kernel_memory)
	"$LIB_DIR/loop_many" devices "$T/fs/file" $COUNT
	after=$(kernel_memory)
	echo "$before KiB before, $after KiB after"
	want "devices" "$(devices)" 1
	unmount_files
	want_le "open files" "$(cut -f1 /proc/sys/fs/file-nr)" $((files + 64))
	# A device takes far more. Slabs are less full than before, and redzones and lockdep of the
	# debug kernel keep some memory.
	want_le "KiB of kernel memory more" $((after - before)) $(((SLOW > 1 ? 32 : 16) * COUNT))
}

# Devices created by opening a node, or by losetup because none was free; unloading removes all of
# them.
unload_with_many() {
	local n

	truncate -s 1M "$T/file"
	for ((n = 0; n < 32; n++)); do
		losetup "/dev/loop$((100 + n * 3))" "$T/file"
	done
	want "devices" "$(devices)" 33
	want "bound" "$(lib_bound | wc -l)" 32
	losetup -D
	wait_for 10 nothing_bound
	driver_unload
	want "devices" "$(devices)" 0
	driver_load max_loop=1
}

# Errors that others can cause:
#   open       ENXIO: being detached or removed; ENOENT: removed
#   configure  EBUSY: another process has configured it
#   detach     ENXIO: not attached
#   remove     EBUSY: in use; ENODEV: no such device
ALLOWED='
get-free ok
open ok
open ENXIO
open ENOENT
configure ok
configure EBUSY
read ok
clear ok
detach ok
detach ENXIO
remove ok
remove EBUSY
remove ENODEV'

race() {
	local op result n

	mount -t tmpfs none "$T/fs"
	pattern 65536 "$T/fs/file" 1
	"$LIB_DIR/loop_many" race "$T/fs/file" "${RACE_SECONDS:-$((SLOW > 1 ? 5 : 3))}" >"$T/out" ||
		{ cat "$T/out"; fail "loop_many race"; }
	cat "$T/out"
	while read -r op result n; do
		grep -qx "$op $result" <<<"$ALLOWED" ||
			fail "$op: $result, $n times"
	done <"$T/out"
	for op in configure read clear detach remove; do
		grep -q "^$op ok" "$T/out" || fail "no $op succeeded"
	done
	unmount_files
}

# Races of losetup processes.
race_losetup() {
	local d end=$((SECONDS + 2 * SLOW))

	mount -t tmpfs none "$T/fs"
	pattern 65536 "$T/fs/file" 1
	while [ "$SECONDS" -lt "$end" ]; do
		for d in $(lib_bound); do
			losetup -d "/dev/$d" 2>/dev/null || :
		done
	done &
	: >"$T/attached"
	while [ "$SECONDS" -lt "$end" ]; do
		# losetup retries when another process was faster.
		losetup -f --show "$T/fs/file" >>"$T/attached"
	done
	wait $!
	want_ge "attached" "$(wc -l <"$T/attached")" 5
	losetup -D
	unmount_files
}

WORKERS=/sys/kernel/debug/loop_rs
CGROUPS=$((SLOW > 1 ? 200 : 1000))
PARENT=$CGROOT/loop_rs-many
# Longer than the I/O of all cgroups takes.
TIMEOUT=$((10 * (SLOW > 1 ? 4 : 1)))

none_dying() {
	[ "$(cg_stat "$PARENT" cgroup.stat nr_dying_descendants)" -eq 0 ]
}

no_worker() {
	! grep -q loop_rs-many "$WORKERS/$L/workers"
}

# Each cgroup has a worker, all at the same time; later all workers are reaped, and the cgroups are
# no longer referenced.
cgroups() {
	local cgs

	skip_on_c "it has no statistics of workers"
	[ -d /sys/kernel/debug/block ] || skip "no debugfs"
	[ -z "$(cg_missing)" ] || skip "$(cg_missing)"
	driver_unload
	driver_load max_loop=1 idle_worker_timeout_ms=$((TIMEOUT * 1000))
	mount -t tmpfs none "$T/fs"
	pattern 65536 "$T/fs/file" 1
	attach "$T/fs/file"
	mkdir "$PARENT"
	echo "+memory +io" >"$PARENT/cgroup.subtree_control"
	eval "cgs=({1..$CGROUPS})"
	"$LIB_DIR/loop_io" read-as-cgroups "$PARENT" "$CGROUPS" "$LOOP"
	# On a slow machine the first workers have been reaped by now.
	want_ge "workers at once" "$(grep -c loop_rs-many "$WORKERS/$L/workers")" $((CGROUPS / 10))
	want_ge "I/O of theirs" "$(grep -o 'done=[0-9]*' "/sys/block/$L/loop/stat" | cut -d= -f2)" \
		"$CGROUPS"
	(cd "$PARENT" && wait_for 30 rmdir "${cgs[@]}")
	wait_for $((TIMEOUT + 20)) no_worker || fail "$(wc -l <"$WORKERS/$L/workers") lines of workers"
	wait_for 20 none_dying || fail "$(<"$PARENT/cgroup.stat")"
	rmdir "$PARENT"
	detach
	unmount_files
	driver_unload
	driver_load max_loop=1
}

test_begin 5
LIB_CGROUPS+=("$PARENT")
mkdir "$T/fs"
need_driver

check "$COUNT devices at once" thousand
check "$CGROUPS cgroups on one device" cgroups
driver_loaded || need_driver
check "unloading with many devices" unload_with_many
check "racing to attach, detach and remove" race
check "racing with losetup" race_losetup

test_end
