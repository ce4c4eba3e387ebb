# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034
#
# Shared by the tests: KTAP output, loading the driver, scratch space, loop devices, cgroups.
# Sourced by bash.
#
#   DRIVER    loop_rs (default) or loop, the C driver
#   MODULE    the module file to insmod; without it DRIVER is modprobed
#   VERBOSE   also print the output and the time of cases that passed
#   SLOW      factor for each time limit, for slow kernels
#   SCRATCH_DEV, SCRATCH_DEV2
#             block devices whose contents may be destroyed

LIB_DIR=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
DRIVER=${DRIVER:-loop_rs}
SLOW=${SLOW:-1}
CGROOT=${CGROOT:-/sys/fs/cgroup}
PATH=$PATH:/usr/sbin:/sbin

# The test's own directory, on tmpfs if /tmp or /dev/shm is one.
T=
LIB_FINISHED=
LIB_BUILTIN=
LIB_CGROUPS=()
LIB_DMS=()
MKFS_OPTIONS=

# Checked once: a module that is being loaded looks built in for a moment.
if [ -d "/sys/module/$DRIVER" ] && [ ! -e "/sys/module/$DRIVER/initstate" ]; then
	LIB_BUILTIN=1
fi

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

# want_error TEXT COMMAND...: the command fails, and its output has TEXT. A command that a
# timeout or another signal ended (124, 128 and more), or that could not be run (125 to 127),
# did not report an error.
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
	local desc=$1 out rc before d start fd reader

	shift
	[ ! -e "$T/.skip" ] || rm "$T/.skip"
	before=" $(lib_bound) $(lib_mounts) "
	before=${before//$'\n'/ }
	[ -z "${VERBOSE:-}" ] || start=$(now_ms)
	# Until all processes that hold its output open have ended, with a time limit.
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
		# Clean up for the next case.
		for d in $(lib_bound); do
			[[ $before == *" $d "* ]] || lib_within lib_drop "$d"
		done
		for d in $(lib_mounts); do
			[[ $before == *" $d "* ]] || lib_within lib_umount "$d"
		done
		lib_within lib_drop_dm
	fi
}

# lib_ended SECONDS PID: waits for the process, with a time limit.
lib_ended() {
	local end=$((SECONDS + $1 * SLOW))

	while kill -0 "$2" 2>/dev/null; do
		[ "$SECONDS" -lt "$end" ] || return 1
		sleep 0.02
	done
}

# within SECONDS COMMAND...: runs the command with a time limit, since a task that hangs in the
# kernel can be neither killed nor waited for. The first time it also prints where tasks hang, and
# later calls get one second only.
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

# Prints the tasks that hang, and where. The kernel log has kernel threads, too.
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

# For clean-up.
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

# test_begin CASES: sets up everything that a test needs, except the driver.
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
	# The runner's file descriptors: a task that hangs would keep the runner waiting.
	exec 3>&- 4>&-
	trap lib_exit EXIT
	trap 'exit 143' TERM INT HUP
	T=$(mktemp -d "${TMPDIR:-/tmp}/loop_rs.XXXXXX") || ktap_exit_fail_msg "no scratch directory"
	# One more, for test_end.
	ktap_set_plan $(($1 + 1))
}

# The last case of each test: no device is attached, and the driver unloads.
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
	lib_cleanup_devices
	for m in $(lib_mounts); do
		lib_within lib_umount "$m"
	done
	lib_within lib_drop_dm
	! driver_loaded || driver_unload | sed 's/^/# /'
	[ -z "$T" ] || rm -rf --one-file-system "$T"
}

#
# The driver
#

# A built-in driver is there from the start: "loading" it adds the devices that it would have then,
# "unloading" removes all of them.
driver_builtin() {
	[ -n "$LIB_BUILTIN" ]
}

# For cases or tests of loading and unloading.
skip_builtin() {
	! driver_builtin || skip "built in: it is neither loaded nor unloaded"
}
need_module() {
	driver_builtin || return 0
	lib_ktap
	ktap_print_header
	ktap_skip_all "built in: it is neither loaded nor unloaded"
	exit "$KSFT_SKIP"
}

# Parameters can only be set on the kernel's command line.
builtin_load() {
	local p n value

	n=$(<"/sys/module/$DRIVER/parameters/max_loop")
	for p in "$@"; do
		value=$(<"/sys/module/$DRIVER/parameters/${p%%=*}")
		if [ "${p%%=*}" = max_loop ]; then
			n=${p#*=}
		elif [ "$value" != "${p#*=}" ]; then
			skip "built in: ${p%%=*} is $value"
		fi
	done
	while [ "$n" -gt 0 ]; do
		n=$((n - 1))
		[ -e "/sys/block/loop$n" ] || "$LIB_DIR/loop_io" add "$n"
	done
}

builtin_unload() {
	local d

	for d in /sys/block/loop*; do
		[ ! -e "$d" ] || "$LIB_DIR/loop_io" remove "${d#/sys/block/loop}" || return
	done
}

driver_load() {
	if driver_builtin; then
		builtin_load "$@"
	elif [ -n "${MODULE:-}" ] && [ "$DRIVER" != loop ]; then
		insmod "$MODULE" "$@"
	else
		modprobe "$DRIVER" "$@"
	fi
}

driver_loaded() {
	if driver_builtin; then
		compgen -G "/sys/block/loop*" >/dev/null
	else
		[ -d "/sys/module/$DRIVER" ]
	fi
}

# A device can be released from a work item or an RCU callback, which holds the module a moment
# longer than the command that closed it.
driver_unload() {
	local i out unload=(rmmod "$DRIVER")

	! driver_builtin || unload=(builtin_unload)
	for ((i = 0; i < 20 * SLOW; i++)); do
		if out=$(within 60 "${unload[@]}" 2>&1); then
			return 0
		fi
		[ ! -e "$T/.stuck" ] || break
		sleep 0.1
	done
	echo "$out"
	return 1
}

# With one device, unless the test says otherwise: each device takes time at unloading.
need_driver() {
	local out

	# With the requested number of devices here, too.
	! driver_builtin || driver_unload
	driver_loaded && return
	[ $# -gt 0 ] || set -- max_loop=1
	if ! out=$(driver_load "$@" 2>&1); then
		ktap_exit_fail_msg "cannot load $DRIVER: $out"
	fi
}

# Whether the kernel allows opening a mounted block device for writing.
can_write_mounted() {
	! zcat /proc/config.gz 2>/dev/null | grep -q 'CONFIG_BLK_DEV_WRITE_MOUNTED is not set'
}

# The names of the attached loop devices.
lib_bound() {
	local f

	for f in /sys/block/loop*/loop/backing_file; do
		[ -e "$f" ] || continue
		f=${f#/sys/block/}
		echo "${f%%/*}"
	done
}

nothing_bound() {
	[ -z "$(lib_bound)" ]
}

# attach LOSETUP-OPTIONS... FILE: sets LOOP to the device, L to its name.
attach() {
	LOOP=$(losetup --find --show "$@") || fail "losetup $*"
	L=${LOOP#/dev/}
}

# LOOP_CLR_FD takes effect at the last close: wait for that.
detach() {
	local i dev=${1:-$LOOP}

	losetup --detach "$dev"
	for ((i = 0; i < 100 * SLOW; i++)); do
		[ -e "/sys/block/${dev#/dev/}/loop" ] || return 0
		sleep 0.05
	done
	fail "$dev is still bound"
}

#
# Time, sizes and numbers
#

now_ms() {
	local t=$EPOCHREALTIME

	echo $((${t%.*} * 1000 + 10#${t#*.} / 1000))
}

# wait_for SECONDS COMMAND...: until the command succeeds.
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

# disk_stat NAME FIELD: of /sys/block/NAME/stat, counted from 1:
# 2 read merges, 3 sectors read, 5 writes, 6 write merges, 7 sectors written,
# 12 discards, 16 flushes.
disk_stat() {
	local stat

	read -ra stat <"/sys/class/block/$1/stat"
	echo "${stat[$2 - 1]}"
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

# The texts of the driver about failed I/O on the backing file; the sector follows log_failed.
# log_failed LOOPN read|write FILE; log_errno ERRNO.
log_failed() {
	echo "$1: $2 error, file $3, sector "
}
log_errno() {
	echo "(errno $1)"
}
LOG_FILE_ENDS=": file ends"

blocks_of() {
	stat -c %b "$1"
}

#
# Scratch space
#

# A device that mkfs may destroy. Tests resolve its name with readlink, since they need its sysfs
# directory and device number.
need_scratch() {
	[ -b "${SCRATCH_DEV:-}" ] || skip "SCRATCH_DEV is not a block device"
}

have_scratch() {
	[ -b "${SCRATCH_DEV:-}" ]
}

# scratch_fs TYPE DIR [DEVICE [SIZE]]: creates and mounts a file system. Only the test may write to
# it, hence no lazy initialization. MKFS_OPTIONS are added for xfs.
scratch_fs() {
	local type=$1 dir=$2 dev=${3:-${SCRATCH_DEV:-}} size=${4:-1G}

	mkdir -p "$dir"
	case $type in
	tmpfs)
		mount -t tmpfs -o size="$size" none "$dir"
		return
		;;
	ext4)
		wipefs -qa "$dev"
		mkfs.ext4 -qF -E lazy_itable_init=0,lazy_journal_init=0 \
			  -J size=4 -N 2048 "$dev" "$size"
		;;
	xfs)
		# shellcheck disable=SC2086 # several words
		mkfs.xfs -qf $MKFS_OPTIONS -d size="$size" "$dev"
		;;
	btrfs)
		mkfs.btrfs -qf -b "$size" "$dev"
		;;
	f2fs)
		mkfs.f2fs -qf "$dev" "$((${size%M} * 2048))" >/dev/null
		;;
	vfat)
		mkfs.vfat -F 32 "$dev" >/dev/null
		;;
	esac
	mount -t "$type" -o noatime "$dev" "$dir"
}

# Device-mapper devices of the test. Without udev, mknodes creates and removes their nodes.
dm_create() {
	dmsetup --noudevsync create "$1" --table "$2"
	dmsetup mknodes "$1"
	[ -b "/dev/mapper/$1" ] || fail "no /dev/mapper/$1"
}

dm_remove() {
	dmsetup --noudevsync remove --retry "$1"
	dmsetup mknodes "$1"
}

# dm_swap NAME TABLE: replaces the table without writeback, like a change of the hardware.
dm_swap() {
	dmsetup suspend --noflush --nolockfs "$1"
	dmsetup load "$1" --table "$2"
	dmsetup --noudevsync resume "$1"
}

# pattern SIZE FILE [SEED]: writes bytes that differ by block and seed.
pattern() {
	"$LIB_DIR/loop_io" pattern "$2" "$1" "${3:-1}"
}

#
# cgroups (version 2)
#

# Prints a reason to skip, or nothing.
cg_missing() {
	local c

	[ -r "$CGROOT/cgroup.controllers" ] || { echo "no cgroup2 at $CGROOT"; return; }
	for c in memory io; do
		grep -qw "$c" "$CGROOT/cgroup.subtree_control" ||
		echo "+$c" 2>/dev/null >"$CGROOT/cgroup.subtree_control" ||
		echo "no $c controller in $CGROOT"
	done
}

# cg_create NAME: a cgroup under the root; prints its directory.
cg_create() {
	local cg="$CGROOT/$1"

	mkdir "$cg" || return
	echo "$cg"
}

# cg_remove DIR: kills its processes and removes it.
cg_remove() {
	local i d

	[ -d "$1" ] || return 0
	[ ! -w "$1/cgroup.kill" ] || echo 1 >"$1/cgroup.kill"
	for ((i = 0; i < 100 * SLOW; i++)); do
		for d in "$1"/*/; do
			[ ! -d "$d" ] || rmdir "$d" 2>/dev/null
		done
		rmdir "$1" 2>/dev/null && return 0
		[ -d "$1" ] || return 0
		sleep 0.05
	done
	echo "$1 is busy"
	return 1
}

# cg_run DIR COMMAND...: runs the command in that cgroup from its first instruction on.
cg_run() {
	local cg=$1

	shift
	# $$ is the pid of the new shell, which becomes the command.
	bash -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$cg" "$@"
}

# cg_limit_io DIR MAJ:MIN LIMIT: io.max of that disk.
cg_limit_io() {
	# After some I/O: if the blkg of the cgroup and the disk does not exist yet,
	# blkg_conf_prep() allocates it, and that may reclaim memory under a lock that is also taken
	# while the disk is frozen. lockdep reports that and turns itself off.
	cg_run "$1" dd if="/dev/$(basename "$(readlink "/sys/dev/block/$2")")" of=/dev/null \
		bs=4k count=1 iflag=direct status=none
	echo "$2 $3" >"$1/io.max"
}

# cg_stat DIR FILE KEY: of a flat keyed file.
cg_stat() {
	local key value

	while read -r key value; do
		[ "$key" != "$3" ] || break
	done <"$1/$2"
	echo "${value:-0}"
}

# cg_io DIR MAJ:MIN KEY: a value of io.stat, 0 if the device is not in it.
cg_io() {
	awk -v d="$2" -v k="$3" '
		$1 == d {
			for (i = 2; i <= NF; i++)
				if (split($i, a, "=") == 2 && a[1] == k)
					n = a[2]
		}
		END { print n + 0 }' "$1/io.stat"
}
