#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The whole interface compared with that of the C driver: each ioctl in each state of a device,
# sysfs, uevents and so on. The cases and the table of intended differences are in interface/.
#
#   RECORDS  directory for the record of the C driver, which later runs use again
#
# tier: long
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

INTERFACE=$LIB_DIR/interface_cases
GROUPS_OF_CASES=$("$INTERFACE" groups | wc -l)

# Skips the whole test if something that it needs is missing.
prepare() {
	modprobe brd rd_nr=64 rd_size=1024 || echo "# no RAM disks"
	truncate -s 512K "$T/image"
	mkfs.ext4 -qF -O ^has_journal "$T/image" || rm -f "$T/image"
	can_write_mounted || rm -f "$T/image"
	! have_scratch || scratch_fs ext4 "$T/disk" "$SCRATCH_DEV" 64M
	expedite_rcu
}

done_with() {
	! mountpoint -q "$T/disk" || umount "$T/disk"
	! grep -q '^brd ' /proc/modules || rmmod brd
	# Exists only after an error.
	[ "$DRIVER" = loop ] || [ ! -d /sys/module/loop ] || rmmod loop
}

module_file() {
	if [ "$1" = loop_rs ] && [ -n "${MODULE:-}" ]; then
		echo "$MODULE"
	else
		modinfo -n "$1"
	fi
}

# recorded DRIVER NAME: records the driver in $T/NAME.record.
recorded() {
	local file

	file=$(module_file "$1") || skip "no module $1"
	"$INTERFACE" record "$file" "$1" "$T" >"$T/$2.record" 2>"$T/errors" ||
		fail "$(<"$T/errors")"
	wc -l <"$T/$2.record"
}

# recorded_once DRIVER NAME: like recorded, or a copy of an earlier record by the same programs on
# the same kernel, if RECORDS is set.
recorded_once() {
	local file kept new

	[ -d "${RECORDS:-}" ] || { recorded "$@"; return; }
	file=$(module_file "$1") || skip "no module $1"
	kept=$({ sha256sum <"$file"; sha256sum <"$INTERFACE"; uname -rv; dpkg-query -W; } | sha256sum)
	kept=$RECORDS/$1-${kept:0:16}
	if [ -r "$kept" ]; then
		cp "$kept" "$T/$2.record"
		echo "recorded before: $kept"
		return
	fi
	recorded "$@"
	# Do not keep a record of cases that failed or were skipped: they may work the next time.
	! grep -qE $'\t(BROKEN|SKIP): ' "$T/$2.record" || return 0
	new=$kept.$BASHPID
	trap 'rm -f "$new"' EXIT
	cp "$T/$2.record" "$new"
	mv "$new" "$kept"
}

# The C driver is also compared with itself: that must show no difference.
TABLE=$LIB_DIR/differences
[ -r "$TABLE" ] || TABLE=$LIB_DIR/interface/differences
[ "$DRIVER" != loop ] || TABLE=/dev/null

# Each group of cases, and the table of differences, is a test case of this test.
compare() {
	local rc=0 passed failed skipped

	"$INTERFACE" compare "$KTAP_TESTNO" "$TABLE" "$T/loop.record" "$T/second.record" \
		>"$T/tap" 2>"$T/errors" || rc=$?
	cat "$T/tap"
	[ "$rc" -le 1 ] || ktap_exit_fail_msg "the records cannot be compared: $(<"$T/errors")"
	failed=$(grep -c '^not ok ' "$T/tap")
	skipped=$(grep -c '^ok .* # SKIP$' "$T/tap")
	passed=$(($(grep -c '^ok ' "$T/tap") - skipped))
	KTAP_CNT_FAIL=$((KTAP_CNT_FAIL + failed))
	KTAP_CNT_SKIP=$((KTAP_CNT_SKIP + skipped))
	KTAP_CNT_PASS=$((KTAP_CNT_PASS + passed))
	KTAP_TESTNO=$((KTAP_TESTNO + passed + failed + skipped))
}

need_module
test_begin $((2 + GROUPS_OF_CASES + 1))
prepare

check "the C driver is recorded" recorded_once loop loop
check "the driver is recorded" recorded "$DRIVER" second
done_with
compare

test_end
