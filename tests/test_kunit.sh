#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The KUnit suites of the driver, on a kernel with KUnit: arithmetic and data structures. Each suite
# is a case here.
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

KUNIT=/sys/kernel/debug/kunit
SUITES="kernel_ext_limits loop_rs_completion loop_rs_config loop_rs_device loop_rs_disk loop_rs_offload loop_rs_queues loop_rs_tags"

# suite NAME: runs the suite; it has cases, and all of them pass.
suite() {
	local results

	skip_on_c "it has none"
	[ -d "$KUNIT" ] || skip "no KUnit in this kernel"
	# Suites may have run when the driver was loaded, or wait for a request.
	echo 1 >"$KUNIT/$1/run"
	results=$(<"$KUNIT/$1/results")
	echo "$results"
	! grep -q '^ *not ok ' <<<"$results" || fail "a case failed"
	grep -q '^ok 1 ' <<<"$results" || fail "the suite did not pass"
	want_ge "cases" "$(grep -c '^    ok ' <<<"$results")" 2
	want "cases that were skipped" "$(grep -c '^    ok .*# SKIP' <<<"$results")" 0
}

# No suite of the driver is missing above.
all_suites() {
	skip_on_c "it has none"
	[ -d "$KUNIT" ] || skip "no KUnit in this kernel"
	# shellcheck disable=SC2086 # words
	want "suites" "$(cd "$KUNIT" && echo loop_rs_* kernel_ext_* | xargs -n 1 | sort | xargs)" \
		"$(printf '%s\n' $SUITES | sort | xargs)"
}

# shellcheck disable=SC2086 # words
set -- $SUITES
test_begin $(($# + 1))
need_driver
mountpoint -q /sys/kernel/debug || mount -t debugfs none /sys/kernel/debug

for s in "$@"; do
	check "$s" suite "$s"
done
check "no other suite" all_suites

test_end
