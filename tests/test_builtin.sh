#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A built-in driver without parameters: the devices after boot, before their first use.
#
# Runs in a guest of its own:
# vm: -c 2
# tier: built in
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

MOD=/sys/module/$DRIVER

no_module() {
	[ ! -e "$MOD/refcnt" ] || fail "it has a reference count"
	want "in /proc/modules" "$(grep -w "^$DRIVER" /proc/modules || true)" ""
	grep -q "/$DRIVER\.ko$" "/lib/modules/$(uname -r)/modules.builtin" ||
		fail "not in modules.builtin"
	modprobe "$DRIVER"
	want_error "builtin" rmmod "$DRIVER"
	want "license" "$(modinfo -F license "$DRIVER")" GPL
	modinfo -F alias "$DRIVER" | grep -qx "devname:loop-control" ||
		fail "no alias for loop-control"
	modinfo -F parm "$DRIVER" | grep -q "^max_loop:Maximum number" ||
		fail "parameters: $(modinfo -F parm "$DRIVER")"
}

defaults() {
	want "parameters" "$(cd "$MOD/parameters" && grep . * | xargs)" \
		"hw_queue_depth:128 idle_worker_timeout_ms:60000 max_loop:8 max_part:0"
}

# The nodes are those of devtmpfs: there is no udev.
nodes() {
	local n

	want "devices" "$(cd /sys/block && echo loop* | wc -w)" 8
	for n in 0 1 2 3 4 5 6 7; do
		want "/dev/loop$n" "$(stat -c '%F %Hr:%Lr' "/dev/loop$n")" "block special file 7:$n"
	done
	want "/dev/loop-control" "$(stat -c '%F %Hr:%Lr' /dev/loop-control)" \
		"character special file 10:237"
	grep -qE '^ *7 loop$' /proc/devices || fail "no major number"
}

# The root file system may be on a loop device.
before_init() {
	local said

	said=$(dmesg | grep -nm 1 "$DRIVER: module loaded" | cut -d: -f1)
	[ -n "$said" ] || fail "the driver did not log that it is loaded"
	want_le "its line in the log" "$said" \
		"$(dmesg | grep -nm 1 "Run /init as init process" | cut -d: -f1)"
}

# Without max_loop, opening a node of any number creates its device.
node_without_disk() {
	[ ! -e /sys/block/loop20 ] || fail "loop20 is there"
	mknod /dev/loop_rs-node b 7 20
	blockdev --getsize64 /dev/loop_rs-node
	rm /dev/loop_rs-node
	[ -b /dev/loop20 ] || fail "no loop20"
}

test_begin 5

check "the driver is no module" no_module
check "parameters" defaults
check "devices and their nodes" nodes
check "devices exist before the first process" before_init
check "opening a node without a disk creates the device" node_without_disk

test_end
