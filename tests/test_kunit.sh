#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The KUnit suites of the driver, on a kernel with KUnit: what is pure arithmetic or works on data
# structures alone. Each case of a suite is a case here.
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

KUNIT=/sys/kernel/debug/kunit
SUITES="kernel_ext_limits loop_rs_config loop_rs_device loop_rs_slots loop_rs_spread loop_rs_tags"

# suite NAME: runs it; each of its cases passes, and there are some.
suite() {
	local results

	skip_on_c "it has none"
	[ -d "$KUNIT" ] || skip "no KUnit in this kernel"
	# They may have run when the driver was loaded, or wait to be asked to.
	echo 1 >"$KUNIT/$1/run"
	results=$(<"$KUNIT/$1/results")
	echo "$results"
	! grep -q '^ *not ok ' <<<"$results" || fail "a case failed"
	grep -q '^ok 1 ' <<<"$results" || fail "the suite did not pass"
	want_ge "cases" "$(grep -c '^    ok ' <<<"$results")" 1
}

# shellcheck disable=SC2086 # words
set -- $SUITES
test_begin $#
need_driver
mountpoint -q /sys/kernel/debug || mount -t debugfs none /sys/kernel/debug

for s in "$@"; do
	check "$s" suite "$s"
done

test_end
