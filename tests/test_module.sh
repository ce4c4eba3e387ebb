#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Loading and unloading: refused while a device is in use, complete otherwise, repeatedly while
# devices are added and removed, and beside another loop driver.
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

MOD=/sys/module/$DRIVER

refcnt() {
	cat "$MOD/refcnt"
}

refused() {
	want_error "in use" rmmod "$DRIVER"
	[ -d "$MOD" ] || fail "$MOD is gone"
}

while_bound() {
	attach "$T/file"
	refused
	cmp "$LOOP" "$T/file"
	detach
	driver_unload
	driver_load
}

while_open() {
	local fd

	exec {fd}<>/dev/loop0
	refused
	exec {fd}>&-
	driver_unload
	driver_load

	exec {fd}</dev/loop-control
	refused
	exec {fd}>&-
	driver_unload
	driver_load
}

while_mounted() {
	mkfs.ext4 -qF "$T/img"
	mkdir -p "$T/mnt"
	mount -o loop "$T/img" "$T/mnt"
	refused
	umount "$T/mnt"
	driver_unload
	driver_load
}

not_loaded() {
	if driver_loaded; then
		fail "$DRIVER was loaded"
	fi
}

# All traces of the driver and its devices in procfs, sysfs and debugfs.
traces() {
	local f

	for f in "$MOD" /sys/block/loop* /dev/loop* /sys/class/block/loop* \
		 /sys/class/bdi/7:* /sys/devices/virtual/block/loop* \
		 /sys/devices/virtual/misc/loop-control \
		 /sys/kernel/debug/loop_rs /sys/kernel/debug/block/loop* \
		 /sys/kernel/slab/*loop_* /sys/bus/workqueue/devices/loop*; do
		[ ! -e "$f" ] || echo "$f"
	done
	grep -E '^ *7 loop' /proc/devices || true
	grep -w loop-control /proc/misc || true
	grep -w "$DRIVER" /proc/modules || true
	# shellcheck disable=SC2009 # of kernel threads too
	ps -eo comm | grep -E '^(kworker/R-)?loop[0-9]+$' || true
	grep -E 'loop_' /proc/slabinfo 2>/dev/null || true
}

# Uses the driver in each way that creates objects: bound, mounted, with a cgroup, with many
# devices.
nothing_left() {
	local i found cg=$CGROOT/loop_rs-module

	driver_unload
	found=$(traces)
	[ -z "$found" ] || fail "before loading: $found"
	driver_load
	[ -n "$(traces)" ] || fail "the search finds nothing at all"
	for i in 1 2 3 4 5 6 7 8 9 10; do
		attach "$T/file"
	done
	if [ -z "$(cg_missing)" ]; then
		mkdir "$cg"
		cg_run "$cg" dd if="$LOOP" of=/dev/null bs=4k count=4 \
			iflag=direct 2>/dev/null
		cg_remove "$cg"
	fi
	dd if="$LOOP" of=/dev/null bs=4k count=4 2>/dev/null
	losetup -D
	wait_for 10 nothing_bound
	driver_unload
	found=$(traces)
	[ -z "$found" ] || fail "after unloading: $found"
	driver_load
}

# in_flight_at_most N: stuck writes hold at most that many tags: the others wait, or are served
# without a tag.
in_flight_at_most() {
	local pid n=0 i

	have_scratch || return 0
	scratch_fs ext4 "$T/fs" "$SCRATCH_DEV" 64M
	truncate -s 16M "$T/fs/file"
	attach "$T/fs/file"
	fsfreeze -f "$T/fs"
	fio --output=/dev/null --name=j --filename="$LOOP" --rw=randwrite --direct=1 \
		--bs=4k --ioengine=libaio --iodepth=$(($1 * 4)) --number_ios=$(($1 * 4)) &
	pid=$!
	wait_for 20 some_in_flight "$1" || true
	for ((i = 0; i < 5; i++)); do
		[ "$(tags_in_flight)" -le "$n" ] || n=$(tags_in_flight)
		sleep 0.1
	done
	fsfreeze -u "$T/fs"
	wait $pid
	want_ge "requests in flight" "$n" 1
	want_le "requests in flight" "$n" "$1"
	detach
	umount "$T/fs"
}

# Requests, reads and writes.
tags_in_flight() {
	awk '{ print $1 + $2 }' "/sys/block/$L/inflight"
}

some_in_flight() {
	[ "$(tags_in_flight)" -ge $(($1 / 8)) ]
}

parameters() {
	driver_unload
	driver_load max_loop=3 hw_queue_depth=32
	want "max_loop" "$(<"$MOD/parameters/max_loop")" 3
	want "hw_queue_depth" "$(<"$MOD/parameters/hw_queue_depth")" 32
	want "devices" "$(cd /sys/block && echo loop*)" "loop0 loop1 loop2"
	# Of the device, including the lines for all requests.
	want_le "nr_requests" "$(</sys/block/loop0/queue/nr_requests)" 32
	attach "$T/file"
	fio --output=/dev/null --name=j --filename="$LOOP" --rw=randread --direct=1 \
		--bs=4k --ioengine=libaio --iodepth=64 --number_ios=2000
	detach
	in_flight_at_most 32
	driver_unload
	want_error "Invalid parameters" driver_load hw_queue_depth=0
	not_loaded
	driver_load max_loop=0
	want "devices" "$(cd /sys/block && echo loop*)" "loop*"
	# As many devices as max_loop says.
	attach "$T/file"
	detach
	driver_unload
	driver_load
	want "default" "$(<"$MOD/parameters/hw_queue_depth")" 128
}

# Attaches, reads and detaches until the driver is unloaded.
come_and_go() {
	local d

	while [ ! -e "$T/stop" ]; do
		d=$(losetup --find --show "$T/file") || { sleep 0.02; continue; }
		dd if="$d" of=/dev/null bs=64k count=1
		losetup -d "$d"
		echo "$d" >&3
		sleep 0.05
	done
}

# Devices come and go in the background; unloading waits for a moment when none is bound.
many_times() {
	local i pid start=$SECONDS refused=0

	driver_unload
	come_and_go >"$T/come" 2>&1 3>"$T/rounds" &
	pid=$!
	for ((i = 0; i < 50; i++)); do
		# The fewer devices there are at first, the more are added later.
		driver_load max_loop=$((i % 3))
		# Unload at a random time.
		[ $((i % 3)) -ne 0 ] || sleep 0.05
		until rmmod "$DRIVER" 2>"$T/rmmod"; do
			refused=$((refused + 1))
			if [ $((SECONDS - start)) -ge $((200 * SLOW)) ]; then
				: >"$T/stop"
				tail -n 5 "$T/come"
				fail "not unloaded after $i rounds: $(refcnt)" \
				     "references, bound: $(lib_bound | xargs)"
			fi
		done
	done
	: >"$T/stop"
	wait $pid || true
	[ -s "$T/rounds" ] || fail "no device was attached in between"
	echo "$(wc -l <"$T/rounds") devices, refused $refused times," \
	     "$((SECONDS - start)) s"
	driver_load
}

# While loop.ko is loaded, loading loop_rs fails and logs what to do.
side_by_side() {
	local out

	skip_on_c "the message is loop_rs's own"
	driver_unload
	modprobe loop || skip "no loop.ko"
	out=$(driver_load 2>&1) && fail "loaded beside loop"
	case $out in
	*"busy"*) ;;
	*)	rmmod loop; fail "not EBUSY: $out" ;;
	esac
	dmesg | tail -n 20 | grep -i "loop_rs: .*loop" >"$T/said" || true
	want "lines in dmesg" "$(wc -l <"$T/said")" 1
	grep -qE "rmmod|unload|blacklist|modprobe -r" "$T/said" ||
		fail "the log does not say what to do: $(<"$T/said")"
	# loop.ko is unaffected.
	attach "$T/file"
	cmp "$LOOP" "$T/file"
	detach
	wait_for 5 rmmod loop
	driver_load
	attach "$T/file"
	detach
}

# After invalid parameters the driver is not half loaded.
bad_parameters() {
	driver_unload
	want_error "Invalid" driver_load max_part=100000
	not_loaded
	want_error "Invalid" driver_load max_loop=99999999
	not_loaded
	want "left behind" "$(traces)" ""
	driver_load
}

# A failed case may have left the driver unloaded.
with_driver() {
	driver_loaded || driver_load
	"$@"
}

need_module
test_begin 8
pattern 1048576 "$T/file" 9
truncate -s 16M "$T/img"
need_driver

check "unloading is refused while a device is bound" with_driver while_bound
check "unloading is refused while a device is open" with_driver while_open
check "unloading is refused while a device is mounted" with_driver while_mounted
check "nothing is left after unloading" with_driver nothing_left
check "parameters" with_driver parameters
check "bad parameters" with_driver bad_parameters
check "loading and unloading 50 times while devices come and go" with_driver many_times
check "loading beside loop.ko" with_driver side_by_side

test_end
