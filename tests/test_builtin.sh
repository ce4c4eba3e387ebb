#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Built in, without a word on the command line: what there is once the kernel has
# booted, before anything has used it.
#
# In a guest of its own:
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

# By devtmpfs: nobody else makes them here.
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

# A root file system may be on one.
before_init() {
	local said

	said=$(dmesg | grep -nm 1 "$DRIVER: module loaded" | cut -d: -f1)
	[ -n "$said" ] || fail "it did not say that it is there"
	want_le "its line in the log" "$said" \
		"$(dmesg | grep -nm 1 "Run /init as init process" | cut -d: -f1)"
}

# No limit was given: a node of any number makes its device.
dead_node() {
	[ ! -e /sys/block/loop20 ] || fail "loop20 is there"
	mknod /dev/loop_rs-node b 7 20
	blockdev --getsize64 /dev/loop_rs-node
	rm /dev/loop_rs-node
	[ -b /dev/loop20 ] || fail "no loop20"
}

test_begin 5

check "it is no module" no_module
check "parameters" defaults
check "devices and their nodes" nodes
check "there before the first process" before_init
check "opening a dead node" dead_node

test_end
