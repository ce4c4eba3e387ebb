#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What stops I/O for a while: the backing file system frozen, the file system on
# the device frozen, all of the machine's tasks frozen for a suspend. I/O that is under
# way waits, goes on after, and all of it is there.
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

MIB=1048576

# Write and verify in the background, for a number of rounds through all of it.
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

# Requests under way in the device, and done by it.
inflight() {
	awk '{ print $1 + $2 }' "/sys/block/$L/inflight"
}

writes() {
	disk_stat "$L" 5
}

writing() {
	[ "$(writes)" -gt "$BEFORE" ]
}

# Twice the same, 0.3 s apart.
stopped() {
	local n

	n=$(writes)
	sleep 0.3
	[ "$(writes)" = "$n" ] && [ "$(inflight)" -gt 0 ]
}

# freezes TYPE SIZE [LOSETUP-OPTIONS...]: the file system below.
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

# The one on top: its freeze is a flush, and nothing moves until the thaw.
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
	# A copy made now is one without a need to recover.
	cp "$T/img" "$T/copy"
	e2fsck -fn "$T/copy"
	[ "$(sha256sum <"$T/img")" = "$sum" ] || fail "the image has changed"
	[ -d "/proc/$pid" ] || fail "nothing waited for the thaw"
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

# Tasks, kernel threads and workqueues that can be frozen are, and thawed again:
# as far as the kernel's own test goes without touching the hardware, since some
# of a virtual machine's doesn't come back.
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
# Of a second and more each.
ROUNDS=2
mkdir "$T/mnt"
pattern $MIB "$T/data" 1
need_driver

check "the backing ext4 is frozen" freezes ext4 64M
check "the backing ext4 is frozen, direct" freezes ext4 64M --direct-io=on
check "the backing xfs is frozen" freezes xfs 320M
check "the file system on it is frozen" freezes_above
check "tasks are frozen as for a suspend" suspends tmpfs
check "tasks are frozen as for a suspend, direct" suspends ext4 --direct-io=on

test_end
