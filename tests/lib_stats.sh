# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034
#
# Statistics of devices and of the driver, and the kernel log. Sourced by lib.sh.

# disk_stat NAME FIELD: a field of /sys/block/NAME/stat, counted from 1: 2 read merges, 3 sectors
# read, 5 writes, 6 write merges, 7 sectors written, 9 in flight, 12 discards, 16 flushes.
disk_stat() {
	local stat

	read -ra stat <"/sys/class/block/$1/stat"
	echo "${stat[$2 - 1]}"
}

# in_flight N: whether at least N requests of $LOOP are in flight, with detached bios, which the file
# "inflight" does not count.
in_flight() {
	[ "$(disk_stat "$L" 9)" -ge "$1" ]
}

# worker_stat LOOPN CGROUP KEY: a statistic from debugfs of the worker of the cgroup, or the sum
# over the workers of all cgroups whose path ends with CGROUP; empty if there is none.
worker_stat() {
	awk -v cg="$2" -v key="$3=" '
		cg == "/" ? $1 == cg : substr($1, length($1) - length(cg) + 1) == cg {
			for (i = 2; i <= NF; i++)
				if (index($i, key) == 1) {
					n += substr($i, length(key) + 1)
					found = 1
				}
		}
		END { if (found) print n }' "/sys/kernel/debug/loop_rs/$1/workers"
}

# log_mark writes a line to the kernel log; log_since_mark prints the log after that line.
log_mark() {
	LIB_MARK="loop_rs-test-$SRANDOM"
	echo "$LIB_MARK" >/dev/kmsg
}
log_since_mark() {
	dmesg | awk -v mark="$LIB_MARK" 'seen; index($0, mark) { seen = 1 }'
}

# log_count TEXT: the number of lines since the mark that contain TEXT.
log_count() {
	log_since_mark | grep -cF -- "$1" || :
}

# The messages of the driver about failed I/O on the backing file. log_failed LOOPN read|write FILE
# is the part before the sector, log_errno ERRNO a part after it.
log_failed() {
	echo "$1: $2 error, file $3, sector "
}
log_errno() {
	echo "(errno $1)"
}
LOG_FILE_ENDS=": file ends"
