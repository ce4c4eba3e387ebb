#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Events that stop I/O: a freeze of the backing file system, a freeze of the file system
# on the device, a freeze of all tasks as for a suspend. I/O in flight waits and completes
# afterwards, and all data is there.
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

MIB=1048576

# start_io FILE SECONDS: writes and verifies in the background.
start_io() {
	fio --output="$T/fio" --name=j --filename="$1" --rw=randwrite --bs=4k \
		--ioengine=libaio --iodepth=16 --direct=1 --size=4M --loops=100 \
		--time_based --runtime="$2" --verify=crc32c --verify_backlog=256 \
		--verify_fatal=1 --verify_state_save=0 &
	IO=$!
}

end_io() {
	wait "$IO" || { cat "$T/fio"; fail "fio"; }
	grep -q 'err= 0' "$T/fio"
}

# Requests in flight on the device, and requests completed by it.
inflight() {
	awk '{ print $1 + $2 }' "/sys/block/$L/inflight"
}

writes() {
	disk_stat "$L" 5
}

writing() {
	[ "$(writes)" -gt "$BEFORE" ]
}

# Whether the values are equal 0.3 s later.
stopped() {
	local n

	n=$(writes)
	sleep 0.3
	[ "$(writes)" = "$n" ] && [ "$(inflight)" -gt 0 ]
}

# freezes TYPE SIZE [LOSETUP-OPTIONS...]: freezes the file system of the backing file.
freezes() {
	local fs=$1 size=$2

	shift 2
	need_scratch
	scratch_fs "$fs" "$T/fs" "$SCRATCH_DEV" "$size"
	truncate -s 4M "$T/fs/file"
	attach "$@" "$T/fs/file"
	trap 'fsfreeze -u "$T/fs" 2>/dev/null || :' EXIT
	BEFORE=$(writes)
	start_io "$LOOP" $((2 + SLOW))
	wait_for 10 writing
	fsfreeze -f "$T/fs"
	wait_for 10 stopped
	BEFORE=$(writes)
	fsfreeze -u "$T/fs"
	wait_for 10 writing
	end_io
	trap - EXIT
	detach
	umount "$T/fs"
}

# A freeze of the file system on the device flushes, and no I/O completes until the thaw.
freezes_above() {
	local pid sum

	truncate -s 16M "$T/img"
	attach "$T/img"
	mkfs.ext4 -qF "$LOOP"
	mount "$LOOP" "$T/mnt"
	trap 'fsfreeze -u "$T/mnt" 2>/dev/null || :' EXIT
	cp "$T/data" "$T/mnt/one"
	fsfreeze -f "$T/mnt"
	sum=$(sha256sum <"$T/img")
	cp "$T/data" "$T/mnt/two" &
	pid=$!
	# A copy made now needs no recovery.
	cp "$T/img" "$T/copy"
	e2fsck -fn "$T/copy"
	[ "$(sha256sum <"$T/img")" = "$sum" ] || fail "the image has changed"
	[ -d "/proc/$pid" ] || fail "no task waited for the thaw"
	fsfreeze -u "$T/mnt"
	wait $pid
	cmp "$T/data" "$T/mnt/one"
	cmp "$T/data" "$T/mnt/two"
	umount "$T/mnt"
	detach
	mount -o loop,ro "$T/copy" "$T/mnt"
	cmp "$T/data" "$T/mnt/one"
	[ ! -e "$T/mnt/two" ] || fail "written while frozen"
	umount "$T/mnt"
	wait_for 5 nothing_bound
	trap - EXIT
	rm "$T/img" "$T/copy"
}

# Freezes and thaws all freezable tasks, kernel threads and workqueues by pm_test, which does not
# suspend devices: some devices of a virtual machine do not resume.
PM_DELAY=/sys/module/suspend/parameters/pm_test_delay

pm_normal() {
	echo none >/sys/power/pm_test
	[ -z "$DELAY" ] || echo "$DELAY" >$PM_DELAY
}

suspends() {
	local n

	grep -qw freeze /sys/power/state || skip "no suspend to idle"
	grep -qw freezer /sys/power/pm_test || skip "no pm_test"
	[ ! -w $PM_DELAY ] || DELAY=$(<$PM_DELAY)
	if [ "$1" = ext4 ]; then
		need_scratch
		scratch_fs ext4 "$T/fs" "$SCRATCH_DEV" 64M
	else
		scratch_fs tmpfs "$T/fs"
	fi
	shift
	truncate -s 4M "$T/fs/file"
	attach "$@" "$T/fs/file"
	trap pm_normal EXIT
	[ -z "$DELAY" ] || echo 1 >$PM_DELAY
	echo freezer >/sys/power/pm_test
	BEFORE=$(writes)
	start_io "$LOOP" $((4 * SLOW))
	wait_for 10 writing
	for ((n = 0; n < ROUNDS; n++)); do
		echo freeze >/sys/power/state
		BEFORE=$(writes)
		wait_for 10 writing
	done
	end_io
	detach
	umount "$T/fs"
}

test_begin 6
DELAY=
# Each takes a second or more.
ROUNDS=2
mkdir "$T/mnt"
pattern $MIB "$T/data" 1
need_driver

check "the backing ext4 is frozen" freezes ext4 64M
check "the backing ext4 is frozen, direct" freezes ext4 64M --direct-io=on
check "the backing xfs is frozen" freezes xfs 320M
check "the file system on the device is frozen" freezes_above
check "all tasks are frozen as for a suspend" suspends tmpfs
check "all tasks are frozen as for a suspend, direct" suspends ext4 --direct-io=on

test_end
