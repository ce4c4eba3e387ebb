#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Random calls of all kinds, by many processes and by a user without privileges.
#
#   FUZZ_CALLS  approximate number of calls in all (default 30000)
#   FUZZ_SEED   seed of the calls, as printed by an earlier run (default: random)
#
# tier: long
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

CALLS=${FUZZ_CALLS:-30000}
SEED=${FUZZ_SEED:-$SRANDOM}

# fuzz WHERE CALLS OPTIONS...: makes calls with files on tmpfs, or on a file system WHERE on a disk.
fuzz() {
	local where=$1 calls=$2 pid rc=0

	shift 2
	case $where in
	tmpfs)	scratch_fs tmpfs "$T/fs" none 512M ;;
	*)	need_scratch; scratch_fs "$where" "$T/fs" ;;
	esac
	mkdir "$T/fs/d"
	[ "$DRIVER" != loop ] || set -- --no-nesting "$@"
	"$LIB_DIR/loop_fuzz" --seed "$SEED" --calls "$calls" --progress 30 "$@" "$T/fs/d" \
		>"$T/out" 2>"$T/progress" 3>&- &
	pid=$!
	tail -f --pid=$pid "$T/progress" | sed -u 's/^/# progress: /' >&3 &
	wait $pid || rc=$?
	cat "$T/out"
	[ "$rc" -eq 0 ] || fail "loop_fuzz $* ended with $rc"
	sed -n 's/^# \([0-9]* calls\)/'"$*, $where: "'\1/p' "$T/out" >>"$T/calls"
	# The driver has closed the files.
	wait_for 10 umount "$T/fs"
	driver_unload
	driver_load max_loop=2
}

test_begin 4
lib_diag "FUZZ_SEED=$SEED"
# Directly to the console: the output of a case is captured.
exec 3>&1
: >"$T/calls"
expedite_rcu
mkdir "$T/fs"
need_driver max_loop=2

# I/Os that are submitted together count as one call: a call of the crowd is two calls on average.
check "many processes, files in memory" fuzz tmpfs $((CALLS * 21 / 100)) crowd
check "many processes, files on a disk" fuzz ext4 $((CALLS * 21 / 100)) crowd
check "a user without privileges" fuzz tmpfs $((CALLS / 10)) user
check "contents of copied-out memory" fuzz tmpfs $((CALLS / 30)) copied

sed 's/^/# progress: /' "$T/calls"
awk -F ': ' '{ n += $2 } END { print "# progress: " n " calls in all" }' "$T/calls"
exec 3>&-

test_end
