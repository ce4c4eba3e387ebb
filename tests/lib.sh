# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034
#
# Shared by the tests: test cases, their time limits and clean-up. Sources lib_*.sh, which have
# functions for the driver, file systems, cgroups and statistics. Sourced by bash.
#
#   DRIVER    loop_rs (default) or loop, the C driver
#   MODULE    the module file to insmod; without it DRIVER is modprobed
#   VERBOSE   also print the output and the duration of cases that passed
#   SLOW      factor for each time limit, for slow kernels
#   SCRATCH_DEV, SCRATCH_DEV2
#             block devices whose contents may be destroyed

LIB_DIR=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
DRIVER=${DRIVER:-loop_rs}
SLOW=${SLOW:-1}
CGROOT=${CGROOT:-/sys/fs/cgroup}
PAGE=$(getconf PAGESIZE)
PATH=$PATH:/usr/sbin:/sbin

# The directory of the test, on tmpfs if the directory above it is.
T=
LIB_FINISHED=
LIB_CGROUPS=()
LIB_DMS=()
LIB_EXPEDITED=

for LIB_PART in driver scratch cgroup stats; do
	# shellcheck source=/dev/null
	. "$LIB_DIR/lib_$LIB_PART.sh"
done

lib_ktap() {
	local d

	for d in "$LIB_DIR/../kselftest" "${KSFT_DIR:-}"; do
		[ -r "$d/ktap_helpers.sh" ] || continue
		# shellcheck source=/dev/null
		. "$d/ktap_helpers.sh"
		return 0
	done
	echo "Bail out! no kselftest/ktap_helpers.sh beside this directory"
	exit 1
}

# Fails the current case with a reason.
fail() {
	echo "$*"
	exit 1
}

# want WHAT GOT EXPECTED
want() {
	[ "$2" = "$3" ] || fail "$1: got '$2', expected '$3'"
}

# want_ge WHAT GOT LEAST, want_le WHAT GOT MOST
want_ge() {
	[ "$2" -ge "$3" ] || fail "$1: got $2, expected at least $3"
}
want_le() {
	[ "$2" -le "$3" ] || fail "$1: got $2, expected at most $3"
}

# want_error TEXT COMMAND...: the command must fail with TEXT in its output. Exit statuses from 124
# on are no such failure: a timeout, a signal, or a command that could not be run.
want_error() {
	local text=$1 out rc=0

	shift
	out=$("$@" 2>&1) || rc=$?
	[ "$rc" -ne 0 ] || fail "succeeded, expected '$text': $*"
	[ "$rc" -lt 124 ] || fail "exit status $rc, expected '$text' from: $*: $out"
	[[ $out == *"$text"* ]] || fail "expected '$text' from: $*: $out"
}

# median NUMBER...
median() {
	local sorted

	mapfile -t sorted < <(printf '%s\n' "$@" | sort -n)
	echo "${sorted[$# / 2]}"
}

# check DESCRIPTION FUNCTION...: one test case. It runs in a subshell under set -e, so that each
# command that fails fails the case. Never call check where errexit is ignored (in a condition,
# after || or &&).
check() {
	local desc=$1 out rc before start fd reader

	shift
	[ ! -e "$T/.skip" ] || rm "$T/.skip"
	before=" $(lib_bound) $(lib_mounts) "
	before=${before//$'\n'/ }
	[ -z "${VERBOSE:-}" ] || start=$(now_ms)
	# cat ends when no process has the output open any more.
	exec {fd}> >(exec cat >"$T/.out")
	reader=$!
	(set -e; "$@") >&"$fd" 2>&1 </dev/null {fd}>&-
	rc=$?
	exec {fd}>&-
	if ! lib_ended 60 $reader; then
		kill $reader
		lib_stuck "$desc" >>"$T/.out"
		[ "$rc" -ne 0 ] || rc=124
	fi
	out=$(<"$T/.out")
	if [ "$rc" -eq 0 ]; then
		ktap_test_pass "$desc"
		[ -z "${VERBOSE:-}" ] || lib_diag "$(($(now_ms) - start)) ms" "$out"
	elif [ -e "$T/.skip" ]; then
		ktap_test_skip "$desc"
		lib_diag "$out"
	else
		ktap_test_fail "$desc"
		lib_diag "rc=$rc" "$out"
	fi
	[ "$rc" -eq 0 ] || lib_clean_up "$before"
}

# lib_clean_up BEFORE: for the next case, after one that did not come to its end. What existed
# before stays.
lib_clean_up() {
	local d

	for d in $(lib_bound); do
		[[ $1 == *" $d "* ]] || lib_within lib_drop "$d"
	done
	for d in $(lib_mounts); do
		[[ $1 == *" $d "* ]] || lib_within lib_umount "$d"
	done
	lib_within lib_drop_dm
}

# lib_ended SECONDS PID: waits for the process, with a time limit.
lib_ended() {
	local end=$((SECONDS + $1 * SLOW))

	while kill -0 "$2" 2>/dev/null; do
		[ "$SECONDS" -lt "$end" ] || return 1
		sleep 0.02
	done
}

# within SECONDS COMMAND...: runs the command with a time limit. A task that hangs in the kernel can
# be neither killed nor waited for: after the first timeout all stacks are printed, and later calls
# have a limit of one second.
within() {
	local seconds=$1 pid out="$T/.within.$BASHPID"

	shift
	[ ! -e "$T/.stuck" ] || seconds=1
	"$@" >"$out" 2>&1 </dev/null &
	pid=$!
	if lib_ended "$seconds" $pid; then
		cat "$out"
		wait $pid
		return
	fi
	kill -9 $pid
	cat "$out"
	lib_stuck "$*"
	return 124
}

# Prints the stacks of tasks in state D. The kernel log gets those of kernel threads, too.
lib_stuck() {
	local d stat

	echo "timed out: $1"
	[ ! -e "$T/.stuck" ] || return 0
	: >"$T/.stuck"
	for d in /proc/[0-9]*/task/*; do
		stat=$(cat "$d/stat" 2>/dev/null) || continue
		[[ ${stat##*) } == D* ]] || continue
		stat=${stat%)*}
		echo "${stat#*(}[${d##*/}] is stuck:"
		cat "$d/stack"
	done
	echo w >/proc/sysrq-trigger
} 2>/dev/null

# Runs a command of the clean-up with a time limit.
lib_within() {
	within 120 "$@" 2>&1 | sed 's/^/# /'
}

# Unmounts and detaches, lazily if necessary.
lib_drop() {
	local m

	while m=$(findmnt -fno TARGET "/dev/$1"); do
		lib_umount "$m" || break
	done
	losetup -d "/dev/$1"
} >/dev/null 2>&1

lib_umount() {
	umount "$1" || umount -l "$1"
} >/dev/null 2>&1

lib_drop_dm() {
	local d

	for d in "${LIB_DMS[@]}"; do
		[ ! -b "/dev/mapper/$d" ] || dm_remove "$d"
	done
} >/dev/null 2>&1

# The mount points of the test, the innermost first.
lib_mounts() {
	local m all=

	while read -r _ m _; do
		[[ $m != "$T"/* ]] || all=$m$'\n'$all
	done </proc/mounts
	printf '%s' "$all"
}

# In a case: skips it, with a reason.
skip() {
	echo "$*"
	: >"$T/.skip"
	exit 1
}

# In a case: skips it on the C driver, which differs by design or has a bug.
skip_on_c() {
	[ "$DRIVER" != loop ] || skip "not with the C driver: $*"
}

lib_diag() {
	printf '%s\n' "$@" | sed -e '/^$/d' -e 's/^/# /'
}

# test_begin CASES: begins a test with that many cases. Does not load the driver.
test_begin() {
	lib_ktap
	ktap_print_header
	if [ "$(id -u)" -ne 0 ]; then
		ktap_skip_all "must be root"
		exit "$KSFT_SKIP"
	fi
	if [ -n "$(lib_bound)" ]; then
		ktap_exit_fail_msg "loop devices are in use: $(lib_bound)"
	fi
	# Descriptors of the runner, which would wait for a task that hangs with them open.
	exec 3>&- 4>&-
	trap lib_exit EXIT
	trap 'exit 143' TERM INT HUP
	T=$(mktemp -d "${TMPDIR:-/tmp}/loop_rs.XXXXXX") || ktap_exit_fail_msg "no scratch directory"
	# One more case in test_end.
	ktap_set_plan $(($1 + 1))
}

# Ends a test. The last case: no device is attached, and the driver unloads.
test_end() {
	LIB_FINISHED=1
	check "nothing left attached, the driver unloads" lib_end
	lib_cleanup
	trap - EXIT
	ktap_finished
}

lib_end() {
	want "loop devices attached" "$(lib_bound)" ""
	! driver_loaded || driver_unload
	want "loop devices after unloading" \
	     "$(cd /sys/block && echo loop*)" "loop*"
}

lib_exit() {
	local rc=$?

	trap - EXIT
	# Without a directory no mount belongs to the test.
	[ -z "$T" ] || lib_cleanup
	[ -n "$LIB_FINISHED" ] || echo "# ended early, rc=$rc"
	[ "$rc" -ne 0 ] || rc=1
	exit "$rc"
}

# Removes attached devices and the cgroups of the test.
lib_cleanup_devices() {
	local c d

	for c in "${LIB_CGROUPS[@]}"; do
		lib_within cg_remove "$c"
	done
	for d in $(lib_bound); do
		lib_within lib_drop "$d"
	done
}

lib_cleanup() {
	local j m

	for j in $(jobs -p); do
		kill -9 "$j" 2>/dev/null
	done
	[ -z "$LIB_EXPEDITED" ] || echo 0 >/sys/kernel/rcu_expedited
	lib_cleanup_devices
	for m in $(lib_mounts); do
		lib_within lib_umount "$m"
	done
	lib_within lib_drop_dm
	! driver_loaded || driver_unload | sed 's/^/# /'
	# A failed case can leave loop.ko, and loop_rs.ko of the next test does not load beside it.
	[ "$DRIVER" = loop ] || [ ! -e /sys/module/loop/initstate ] || within 60 rmmod loop 2>&1 | sed 's/^/# /'
	[ -z "$T" ] || rm -rf --one-file-system "$T"
}

#
# Time and sizes
#

now_ms() {
	local t=$EPOCHREALTIME

	echo $((${t%.*} * 1000 + 10#${t#*.} / 1000))
}

# wait_for SECONDS COMMAND...: repeats the command until it succeeds.
wait_for() {
	local end=$((SECONDS + $1 * SLOW))

	shift
	until "$@"; do
		if [ "$SECONDS" -ge "$end" ]; then
			echo "not in time: $*"
			return 1
		fi
		sleep 0.1
	done
}
