#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A built-in driver with parameters on the kernel's command line, two of them invalid.
#
# tier: built in
# vm: --append loop_rs.hw-queue-depth=32 --append loop_rs.max_part=5 --append loop_rs.idle_worker_timeout_ms=0 --append max_loop=3 --append max_loop=many
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

MOD=/sys/module/$DRIVER

# max_part is rounded up. Invalid values are logged, except for max_loop without a prefix, and
# change nothing; init does not get the parameters.
parameters() {
	want "parameters" "$(cd "$MOD/parameters" && grep . -- * | xargs)" \
		"hw_queue_depth:32 idle_worker_timeout_ms:60000 max_loop:3 max_part:7"
	dmesg | grep -q "\`0' invalid for parameter \`$DRIVER.idle_worker_timeout_ms'" ||
		fail "nothing in the log: $(dmesg | grep "$DRIVER")"
	want "given to init" "$(tr '\0' '\n' </proc/1/environ | grep -E "^(max_loop|$DRIVER\.)" || true)" ""
}

devices() {
	want "devices" "$(cd /sys/block && echo loop*)" "loop0 loop1 loop2"
	want "loop2" "$(<"/sys/block/loop2/dev")" 7:16
	want_le "nr_requests" "$(</sys/block/loop0/queue/nr_requests)" 32
}

# max_loop is a limit if it is set.
node_without_disk() {
	mknod /dev/loop_rs-node b 7 24
	want_error "No such device" blockdev --getsize64 /dev/loop_rs-node
	[ ! -e /sys/block/loop3 ] || fail "loop3 is there"
	# LOOP_CTL_ADD ignores the limit.
	"$LIB_DIR/loop_io" add 3
	blockdev --getsize64 /dev/loop_rs-node
	rm /dev/loop_rs-node
}

# Partitions are scanned without LO_FLAGS_PARTSCAN.
partitions() {
	truncate -s 8M "$T/file"
	echo "size=2M" | sfdisk -q "$T/file"
	attach "$T/file"
	want "partitions" "$(cd "/sys/block/$L" && echo "$L"p*)" "${L}p1"
	detach
}

test_begin 4

check "parameters" parameters
check "devices" devices
check "max_loop limits the opening of nodes without a disk" node_without_disk
check "partitions with minors of the loop major" partitions

test_end
