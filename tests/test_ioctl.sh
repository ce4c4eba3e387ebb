#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The ioctls of loop-control and of a loop device; the cases are in ioctl_cases.c.
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

CASES=17

test_begin "$CASES"
need_driver

"$LIB_DIR/ioctl_cases" "$T" >"$T/out" 2>&1
while IFS=$'\t' read -r result name why; do
	case $result in
	pass)
		ktap_test_pass "$name"
		;;
	fail)
		ktap_test_fail "$name"
		lib_diag "$why"
		;;
	*)
		lib_diag "$result $name $why"
		;;
	esac
done <"$T/out"

test_end
