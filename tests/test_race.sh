#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A device is changed under I/O, and used while it is attached and removed: reads must return the
# right data, calls may fail with expected errors only, and no device may be left. test_many.sh
# attaches, detaches and removes many devices at once; test_fuzz.sh does calls of all kinds.
#
#   RACE_SECONDS  duration of each race (default 1, or 10 on the debug kernel)
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

LENGTH=${RACE_SECONDS:-$((SLOW > 1 ? 10 : 1))}
RACE=$LIB_DIR/loop_race
MOD=/sys/module/$DRIVER

unused() {
	driver_builtin || [ "$(<"$MOD/refcnt")" -eq 0 ]
}

set_up() {
	scratch_fs "${1:-tmpfs}" "$T/fs" "${SCRATCH_DEV:-none}" 256M
}

# Unmounts the file system of the files, which the driver must have closed.
unmount_files() {
	[ -z "$(lib_bound)" ] || losetup -D
	wait_for 10 nothing_bound
	wait_for 10 unused
	wait_for 10 umount "$T/fs"
}

# raced ARGUMENTS...: runs the race, which must find no error.
raced() {
	RACED=("$@")
	"$RACE" "$@" >"$T/out" || { cat "$T/out"; fail "loop_race $*"; }
	cat "$T/out"
}

# done_often OPERATION: prints the number of successes.
done_often() {
	awk -v op="$1" '$1 == op && $2 == "ok" { n += $3 } END { print n + 0 }' "$T/out"
}

# at_least N OPERATION...: each operation must have succeeded N times, otherwise there was no race.
# On a busy machine the race gets some more rounds.
at_least() {
	local n=$1 op round

	shift
	for op in "$@"; do
		for ((round = 0; round < 5 && $(done_often "$op") < n; round++)); do
			"$RACE" "${RACED[@]}" >>"$T/out" || { cat "$T/out"; fail "loop_race ${RACED[*]}"; }
		done
		want_ge "$op" "$(done_often "$op")" "$n"
	done
}

change_fd() {
	set_up "$1"
	"$RACE" fill "$T/fs/one" 1 1
	"$RACE" fill "$T/fs/two" 1 2
	attach --read-only --direct-io="$2" "$T/fs/one"
	raced change-fd "$LOOP" "$T/fs/one" "$T/fs/two" "$LENGTH"
	at_least 10 change-fd first-file second-file
	detach
	unmount_files
}

status() {
	set_up "$1"
	"$RACE" fill "$T/fs/file" 2 1
	attach --sizelimit 1M "$T/fs/file"
	raced status "$LOOP" "$LENGTH"
	at_least 10 set-status block-size direct-io read write
	detach
	unmount_files
}

autoclear() {
	set_up
	"$RACE" fill "$T/fs/file" 1 1
	raced autoclear /dev/loop0 "$T/fs/file" "$LENGTH"
	at_least 10 configure open read get-status nothing
	unmount_files
}

partitions() {
	local p

	set_up
	"$RACE" fill "$T/fs/file" 1 1
	sfdisk -q "$T/fs/file" <<-END
		label: dos
		start=128, size=256
		start=512, size=256
		start=1024, size=256
	END
	raced partitions /dev/loop0 "$T/fs/file" "$LENGTH"
	at_least 3 configure clear open-partition read-partition add-partition del-partition
	unmount_files
	for p in /dev/loop0p* /sys/block/loop0/loop0p*; do
		[ ! -e "$p" ] || fail "$p is there"
	done
	want "size" "$(</sys/block/loop0/size)" 0
}

cgroups() {
	local direct

	[ -z "$(cg_missing)" ] || skip "$(cg_missing)"
	set_up "$1"
	driver_unload
	if [ "$DRIVER" = loop ]; then
		driver_load max_loop=1
	else
		# Workers are reaped while others are created.
		driver_load max_loop=1 idle_worker_timeout_ms=20
	fi
	"$RACE" fill "$T/fs/file" 1 1
	trap 'rmdir "$CGROOT"/loop_rs-race-* 2>/dev/null || true' EXIT
	for direct in on off; do
		attach --direct-io=$direct "$T/fs/file"
		raced cgroups "$LOOP" "$CGROOT" "$((LENGTH / 2 + 1))"
		at_least 10 cgroup write
		detach
	done
	unmount_files
}

# A CPU goes offline and online under I/O.
hotplug() {
	local cpu pid n=0
	local online=/sys/devices/system/cpu/cpu$(($(nproc --all) - 1))/online

	[ -w "$online" ] || skip "no CPU can be taken offline"
	set_up "$1"
	truncate -s 32M "$T/fs/file"
	attach "$T/fs/file"
	# shellcheck disable=SC2064 # it's known now only
	trap "echo 1 >$online" EXIT
	timeout $((60 * SLOW)) fio --name=j --filename="$LOOP" --rw=randrw --bs=4k --direct=1 \
		--ioengine=libaio --iodepth=16 --size=32M --verify=crc32c --verify_fatal=1 \
		--time_based --runtime="$LENGTH" >"$T/fio" 2>&1 &
	pid=$!
	while [ -d "/proc/$pid" ]; do
		echo 0 >"$online"
		echo 1 >"$online"
		n=$((n + 1))
	done
	wait $pid || fail "$(tail -n 5 "$T/fio")"
	want_ge "times a CPU went" $n 2
	echo "$n times"
	detach
	unmount_files
}

# until_stopped COMMAND...: repeats the command, and counts successes in rounds.
until_stopped() {
	while [ ! -e "$T/stop" ]; do
		if "$@" >/dev/null 2>&1; then
			echo "$1" >>"$T/rounds"
		fi
		sleep 0.01
	done
}

come_and_go() {
	local d

	d=$(losetup --find --show "$T/fs/file") || return
	dd if="$d" of=/dev/null bs=64k count=1 iflag=direct
	losetup -d "$d"
}

mount_and_go() {
	mount -o loop,ro "$T/fs/img" "$T/mnt" && umount "$T/mnt"
}

# Reads sysfs and debugfs files, which may be missing.
ask() {
	cat /sys/block/loop*/loop/{backing_file,stat} /sys/block/loop*/stat \
		/sys/kernel/debug/loop_rs/*/workers || true
	blockdev --rereadpt /dev/loop0 || true
	losetup -l
}

# The module is unloaded while its devices are attached, mounted, read and queried.
unload() {
	local n=0 refused=0 pids=() pid c

	skip_builtin
	set_up
	"$RACE" fill "$T/fs/file" 1 1
	truncate -s 4M "$T/fs/img"
	mkfs.ext4 -qF "$T/fs/img"
	mkdir -p "$T/mnt"
	driver_unload
	: >"$T/rounds"
	for c in come_and_go mount_and_go ask; do
		until_stopped $c &
		pids+=($!)
	done
	local end=$((SECONDS + LENGTH * SLOW * 2))
	while [ $n -lt 3 ] || [ "$SECONDS" -lt "$end" ]; do
		driver_load max_loop=$((n % 3)) || fail "not loaded again"
		n=$((n + 1))
		[ $((n % 2)) -eq 0 ] || sleep 0.1
		until rmmod "$DRIVER" 2>/dev/null; do
			refused=$((refused + 1))
			[ "$SECONDS" -lt $((end + 30 * SLOW)) ] || break 2
		done
	done
	: >"$T/stop"
	for pid in "${pids[@]}"; do
		wait "$pid"
	done
	echo "loaded $n times, $refused times refused, $(sort "$T/rounds" | uniq -c | xargs)"
	driver_loaded || driver_load max_loop=1
	want_ge "times it was loaded" $n 2
	want_ge "times it was used" "$(wc -l <"$T/rounds")" 3
	unmount_files
}

# A failed case may have left devices.
fresh() {
	! driver_loaded || driver_unload
	driver_load max_loop=1
	"$@"
}

test_begin 9
expedite_rcu
mkdir "$T/fs"
need_driver

DISK=tmpfs
! have_scratch || DISK=ext4
check "LOOP_CHANGE_FD under reads, backing I/O direct" fresh change_fd $DISK on
check "LOOP_CHANGE_FD under reads, backing I/O buffered" fresh change_fd tmpfs off
check "offset, block size and direct I/O under I/O" fresh status $DISK
check "offset, block size and direct I/O under I/O, in memory" fresh status tmpfs
check "autoclear under opens" fresh autoclear
check "partition scans and detaches" fresh partitions
check "cgroups removed under their I/O" fresh cgroups $DISK
check "CPU hotplug under I/O" fresh hotplug tmpfs
check "unloading under all operations" fresh unload

test_end
