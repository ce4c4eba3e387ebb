# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034
#
# The driver and loop devices. Sourced by lib.sh.

LIB_BUILTIN=
# Checked once: a module that is being loaded looks built in for a moment.
if [ -d "/sys/module/$DRIVER" ] && [ ! -e "/sys/module/$DRIVER/initstate" ]; then
	LIB_BUILTIN=1
fi

# A built-in driver cannot be loaded: driver_load adds the devices that loading would add, and
# driver_unload removes all devices.
driver_builtin() {
	[ -n "$LIB_BUILTIN" ]
}

# In a case or a test of loading and unloading: skips it if the driver is built in.
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

# Parameters of a built-in driver can be set on the command line of the kernel only.
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

# Repeated for a while: a work item or an RCU callback can hold the last reference to the module
# after the command that closed the device has ended.
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

# need_driver [PARAMETER]...: loads the driver, with one device by default, since unloading takes
# time for each device.
need_driver() {
	local out

	# The requested number of devices, not that of an earlier test.
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

# Has grace periods of RCU expedited until the end of the test: adding and removing a device mostly
# waits for them.
expedite_rcu() {
	[ ! -w /sys/kernel/rcu_expedited ] || {
		LIB_EXPEDITED=1
		echo 1 >/sys/kernel/rcu_expedited
	}
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
	# losetup ignores that direct I/O is not supported.
	[[ " $* " != *" --direct-io=on "* ]] || want "dio of $L" "$(<"/sys/block/$L/loop/dio")" 1
}

# detach [DEVICE]: detaches the device ($LOOP), and waits for the last close.
detach() {
	local i dev=${1:-$LOOP}

	losetup --detach "$dev"
	for ((i = 0; i < 100 * SLOW; i++)); do
		[ -e "/sys/block/${dev#/dev/}/loop" ] || return 0
		sleep 0.05
	done
	fail "$dev is still bound"
}
