#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Random calls of all kinds, by a crowd of processes and by a user without rights.
#
#   FUZZ_CALLS  how many calls in all (default 12000)
#   FUZZ_SEED   the same calls again as the test printed (default: of the time)
#
# tier: long
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

CALLS=${FUZZ_CALLS:-12000}
SEED=()
[ -z "${FUZZ_SEED:-}" ] || SEED=(--seed "$FUZZ_SEED")

# Waiting for RCU is most of what a device takes to come and go.
EXPEDITED=/sys/kernel/rcu_expedited

# fuzz WHERE CALLS OPTIONS...: a directory on tmpfs, or on a disk.
fuzz() {
	local where=$1 calls=$2 rc=0

	shift 2
	case $where in
	tmpfs)	scratch_fs tmpfs "$T/fs" none 512M ;;
	*)	need_scratch; scratch_fs "$where" "$T/fs" ;;
	esac
	mkdir "$T/fs/d"
	[ "$DRIVER" != loop ] || set -- --no-nesting "$@"
	"$LIB_DIR/loop_fuzz" "${SEED[@]}" --calls "$calls" "$@" "$T/fs/d" || rc=$?
	[ "$rc" -eq 0 ] || fail "loop_fuzz $* ended with $rc"
	# The driver has let go of the files.
	wait_for 10 umount "$T/fs"
	driver_unload
	driver_load max_loop=2
}

test_begin 4
[ ! -w $EXPEDITED ] || echo 1 >$EXPEDITED
mkdir "$T/fs"
need_driver max_loop=2

check "a crowd, files in memory" fuzz tmpfs $((CALLS / 2)) crowd
check "a crowd, files on a disk" fuzz ext4 $((CALLS / 2)) crowd
check "a user without rights" fuzz tmpfs $((CALLS / 4)) user
check "what is copied out" fuzz tmpfs $((CALLS / 10)) copied

[ ! -w $EXPEDITED ] || echo 0 >$EXPEDITED
test_end
