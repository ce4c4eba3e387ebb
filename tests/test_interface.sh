#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The whole interface, compared with the C driver's: each ioctl in each state of a device, and
# what else there is. The cases are in interface/, as are the differences that are meant.
#
#   RECORDS  a directory for the record of the C driver, which is the same each time
#
# tier: long
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

INTERFACE=$LIB_DIR/interface_cases
GROUPS_OF_CASES=$("$INTERFACE" groups | wc -l)

# Waiting for RCU is half of what a device takes to come and go.
EXPEDITED=/sys/kernel/rcu_expedited

# What it takes is there or it is skipped, visibly.
prepare() {
	modprobe brd rd_nr=64 rd_size=1024 || echo "# no RAM disks"
	truncate -s 512K "$T/image"
	mkfs.ext4 -qF -O ^has_journal "$T/image" || rm -f "$T/image"
	can_write_mounted || rm -f "$T/image"
	! have_scratch || scratch_fs ext4 "$T/disk" "$SCRATCH_DEV" 64M
	[ ! -w $EXPEDITED ] || echo 1 >$EXPEDITED
}

done_with() {
	[ ! -w $EXPEDITED ] || echo 0 >$EXPEDITED
	! mountpoint -q "$T/disk" || umount "$T/disk"
	! grep -q '^brd ' /proc/modules || rmmod brd
	# It's there only if something went wrong.
	[ "$DRIVER" = loop ] || [ ! -d /sys/module/loop ] || rmmod loop
}

module_file() {
	if [ "$1" = loop_rs ] && [ -n "${MODULE:-}" ]; then
		echo "$MODULE"
	else
		modinfo -n "$1"
	fi
}

# recorded DRIVER NAME: in $T/NAME.record.
recorded() {
	local file

	file=$(module_file "$1") || skip "no module $1"
	"$INTERFACE" record "$file" "$1" "$T" >"$T/$2.record" 2>"$T/errors" ||
		fail "$(<"$T/errors")"
	wc -l <"$T/$2.record"
}

# recorded_once DRIVER NAME: or a copy of what the same programs recorded on the same kernel
# before, if there is a place to keep it.
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
	# What did not work, or was not there, may be so the next time.
	! grep -qE $'\t(BROKEN|SKIP): ' "$T/$2.record" || return 0
	new=$kept.$BASHPID
	trap 'rm -f "$new"' EXIT
	cp "$T/$2.record" "$new"
	mv "$new" "$kept"
}

# The C driver against itself shows that the same gives the same.
TABLE=$LIB_DIR/differences
[ -r "$TABLE" ] || TABLE=$LIB_DIR/interface/differences
[ "$DRIVER" != loop ] || TABLE=/dev/null

# All groups, and the table of differences, are test cases of this test.
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
