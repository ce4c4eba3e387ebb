#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A cgroup whose I/O is stuck holds up no other: not the I/O of the others, which need
# tags of the same device, and not what waits for all I/O any longer than it takes.
#
# How fast the others are is compared with a control: the same reads through a loop device of
# their own, over a file on the same disk, in turn with those through the shared device.
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

PARENT=$CGROOT/loop_rs-isolation
MIB=1048576
# More than a device has tags.
DEPTH=512
NEIGHBOUR=()

set_up() {
	need_scratch
	[ -z "$(cg_missing)" ] || skip "$(cg_missing)"
	DISK=$(<"/sys/class/block/${SCRATCH_DEV#/dev/}/dev")
	scratch_fs ext4 "$T/fs"
	pattern $((16 * MIB)) "$T/fs/file" 7
	pattern $((4 * MIB)) "$T/fs/control" 7
	sync -f "$T/fs/file"
	mkdir "$PARENT"
	echo "+memory +io" >"$PARENT/cgroup.subtree_control"
	mkdir "$PARENT/victim"
	trap let_go EXIT
}

# Whatever was stuck goes on, so that a case that fails leaves nothing behind.
let_go() {
	local cg

	fsfreeze -u "$T/fs" || true
	for cg in "$PARENT"/*/; do
		echo "$DISK wbps=max" >"$cg/io.max" || true
		echo 1 >"$cg/cgroup.kill" || true
	done
	wait
	cg_remove "$PARENT"
} 2>/dev/null

tear_down() {
	umount "$T/fs"
	cg_remove "$PARENT"
}

# Not of "inflight", which counts requests, not what is parked.
in_flight() {
	[ "$(disk_stat "$L" 9)" -ge "$1" ]
}

# neighbour CGROUP OFFSET DEPTH: has that many writes in flight, and verifies them in the end.
neighbour() {
	cg_run "$1" timeout $((120 * SLOW)) fio --name=n --filename="$LOOP" --rw=randwrite --bs=4k \
		--iodepth="$3" --ioengine=libaio --iodepth_batch_submit=32 --direct=1 \
		--offset="$2" --size=$(($3 * 4))k --verify=crc32c --verify_fatal=1 \
		>"$T/fio.${#NEIGHBOUR[@]}" 2>&1 &
	NEIGHBOUR+=($!)
}

neighbours_end() {
	local pid

	for pid in "${NEIGHBOUR[@]}"; do
		wait "$pid" || fail "$(tail -n 5 "$T"/fio.*)"
	done
	NEIGHBOUR=()
	want "in flight in the end" "$(disk_stat "$L" 9)" 0
}

ended() {
	[ ! -d "/proc/$1" ]
}

# in_time WHAT PID...: they end, and well. Who is stuck in the kernel can't be killed.
in_time() {
	local what=$1 pid

	shift
	for pid in "$@"; do
		wait_for 15 ended "$pid" || fail "$what in time"
		wait "$pid" || fail "$what: exit status $?"
	done
}

# The victim gets its reads done, 4 KiB at a time.
victim() {
	local cg=${1:-$PARENT/victim}

	cg_run "$cg" dd if="$LOOP" of="$T/out" bs=4k count=100 iflag=direct 2>/dev/null &
	in_time "the victim did not get its reads done" $!
	cmp -n $((400 * 1024)) "$T/out" "$T/fs/file"
}

# The percentage of the control's IOPS that a victim must have, and that below which it
# is not noise that it has less: no more rounds are made then.
KEEPS=70
NOISE=50

# attach_both MODE: LOOP is the shared device, CONTROL the one that only the victim uses.
attach_both() {
	attach --direct-io="$1" "$T/fs/control"
	CONTROL=$LOOP
	attach --direct-io="$1" "$T/fs/file"
}

detach_both() {
	detach
	detach "$CONTROL"
}

# keeps WHAT [CGROUP]: the victim reads through the shared device nearly as fast as through
# its own, by the median of short rounds.
keeps() {
	local what=$1 cg=${2:-$PARENT/victim} i out ratios=() median

	for i in 1 2 3 4 5; do
		out=$(within 20 cg_run "$cg" "$LIB_DIR/loop_io" rates "$LOOP" "$CONTROL" \
			$((4 * MIB)) 9 40) || fail "$what: $out"
		# shellcheck disable=SC2206 # words
		ratios+=($out)
		median=$(median "${ratios[@]}")
		[ "$median" -lt $KEEPS ] && [ "$median" -ge $NOISE ] || break
	done
	echo "$what keeps $median %; rounds: ${ratios[*]}"
	want_ge "$what: percentage of the control's reads" "$median" $KEEPS
}

# Many at a time, each of which needs a tag and goes: who waits for one has to be woken.
victims() {
	local i pids=()

	for ((i = 0; i < 24; i++)); do
		cg_run "$PARENT/victim" dd if="$LOOP" of=/dev/null bs=4k count=1 skip=$i \
			iflag=direct 2>/dev/null &
		pids+=($!)
	done
	in_time "a victim did not get its read done" "${pids[@]}"
}

throttled() {
	local n=$1 each=$((DEPTH / $1)) i

	skip_on_c "who is throttled holds all tags"
	set_up
	attach_both "$2"
	for ((i = 0; i < n; i++)); do
		mkdir "$PARENT/n$i"
		# All together a few I/Os in a second: they must not be through before the victims.
		cg_limit_io "$PARENT/n$i" "$DISK" wbps=$((8192 / n / SLOW))
		neighbour "$PARENT/n$i" $((4 * MIB + i * each * 4096)) $each
	done
	wait_for 60 in_flight $((DEPTH * 3 / 4))
	victim
	victim "$CGROOT"
	victims
	keeps "a cgroup"
	[ "$n" -gt 1 ] || keeps "the root" "$CGROOT"
	in_flight $((DEPTH / 2)) || fail "nobody was held up: this shows nothing"
	for ((i = 0; i < n; i++)); do
		cg_limit_io "$PARENT/n$i" "$DISK" wbps=max
	done
	neighbours_end
	detach_both
	tear_down
}

# What the root does is stuck in the file system, which takes no writes.
frozen() {
	skip_on_c "who is stuck holds all tags"
	set_up
	attach_both on
	fsfreeze -f "$T/fs"
	neighbour "$CGROOT" $((4 * MIB)) $DEPTH
	wait_for 30 in_flight $((DEPTH * 3 / 4))
	victim
	# A flush is nobody's: it does not wait for the root's.
	cg_run "$PARENT/victim" sync "$LOOP" &
	in_time "the victim's fsync did not return" $!
	keeps "a cgroup"
	in_flight $((DEPTH * 3 / 4)) || fail "it was not stuck: this shows nothing"
	fsfreeze -u "$T/fs"
	neighbours_end
	detach_both
	tear_down
}

# Whether nothing has come or gone for a while.
settled() {
	local before

	before=$(<"/sys/block/$L/loop/stat")
	sleep 0.5
	[ "$before" = "$(<"/sys/block/$L/loop/stat")" ]
}

# However many are stuck, they keep no tags from one that is not: what it does is not parked.
crowd() {
	local i served parked

	skip_on_c "it parks nothing"
	[ -d /sys/kernel/debug/block ] || skip "no debugfs"
	set_up
	attach_both on
	# The first direct I/O sets up what the next ones need.
	victim
	fsfreeze -f "$T/fs"
	for ((i = 0; i < 8; i++)); do
		mkdir "$PARENT/n$i"
		neighbour "$PARENT/n$i" $((4 * MIB + i * 64 * 4096)) 64
	done
	# Nearly all of it, and no more to come: while they do, what they hold changes.
	wait_for 60 in_flight $((7 * 64))
	wait_for 30 settled
	# All of them are counted, those with a tag in "inflight".
	want_ge "in flight in /proc/diskstats" \
		"$(awk -v l="$L" '$3 == l { print $12 }' /proc/diskstats)" $((7 * 64))
	want_le "requests with a tag" "$(awk '{ print $1 + $2 }' "/sys/block/$L/inflight")" 128
	# Not the name of one whose worker can be reaped meanwhile.
	mkdir "$PARENT/alone"
	cg_run "$PARENT/alone" "$LIB_DIR/loop_io" deep "$LOOP" $((4 * MIB)) 7 16 1000
	in_flight $((4 * 64)) || fail "they were not stuck: this shows nothing"
	served=$(worker_stat "$L" /alone "done")
	parked=$(worker_stat "$L" /alone parked)
	want "the victim's requests" "$served" 1000
	echo "$parked of them parked"
	[ "$parked" -le 250 ] || fail "$parked of them parked: $(<"/sys/kernel/debug/loop_rs/$L/workers")"
	keeps "a cgroup"
	fsfreeze -u "$T/fs"
	neighbours_end
	detach_both
	tear_down
}

# Who has tags taken from it is served in the order in which it asked, nevertheless, but for two that
# may have changed places when both CPUs took some.
in_order() {
	local i n=56 pid moved wrong

	skip_on_c "it takes no tags"
	[ -d /sys/kernel/debug/block ] || skip "no debugfs"
	# Without the workers of those before, among whom to look for who holds many tags.
	driver_unload
	driver_load max_loop=1
	set_up
	# Through the page cache a write is over before the worker goes on with the next one.
	attach --direct-io=off "$T/fs/file"
	fsfreeze -f "$T/fs"
	# Fewer than it may keep, so that none of them is parked when it is submitted.
	mkdir "$PARENT/ordered"
	cg_run "$PARENT/ordered" "$LIB_DIR/loop_io" order "$LOOP" $n >"$T/order" 2>&1 &
	pid=$!
	wait_for 30 in_flight $n
	want "parked at first" "$(worker_stat "$L" /ordered parked)" 0
	for ((i = 0; i < 8; i++)); do
		mkdir "$PARENT/n$i"
		neighbour "$PARENT/n$i" $((4 * MIB + i * 64 * 4096)) 64
	done
	wait_for 60 in_flight $((n + 6 * 64))
	moved=$(worker_stat "$L" /ordered parked)
	want_ge "tags taken from it" "$moved" 2
	fsfreeze -u "$T/fs"
	wait $pid || fail "$(<"$T/order")"
	want "writes" "$(wc -l <"$T/order")" $n
	wrong=$(awk '$1 < last { n++ } { last = $1 } END { print n + 0 }' "$T/order")
	echo "$moved of them parked"
	[ "$wrong" -le 1 ] ||
		fail "$moved were parked, and they ended in this order: $(xargs <"$T/order")"
	neighbours_end
	detach
	tear_down
}

# Who waits for all I/O to end waits for what is parked, too. It's counted once.
waited_for() {
	local before i

	set_up
	mkdir "$PARENT/n"
	cg_limit_io "$PARENT/n" "$DISK" wbps=$((65536 / SLOW))
	attach --direct-io=on "$T/fs/file"
	before=$(($(disk_stat "$L" 5) + $(disk_stat "$L" 6)))
	cg_run "$PARENT/n" timeout $((60 * SLOW)) fio --name=n --filename="$LOOP" --rw=randwrite \
		--bs=4k --iodepth=$DEPTH --ioengine=libaio --direct=1 --offset=4M \
		--size=$((DEPTH * 4))k --norandommap=0 >"$T/fio" 2>&1 &
	NEIGHBOUR+=($!)
	wait_for 30 in_flight 120
	losetup --direct-io=off "$LOOP" &
	for ((i = 0; i < 5; i++)); do
		sleep 0.2
		[ -d /proc/$! ] || fail "it was reconfigured under I/O"
	done
	in_flight 1 || fail "nothing was in flight: this shows nothing"
	cg_limit_io "$PARENT/n" "$DISK" wbps=max
	wait $! || fail "losetup --direct-io=off"
	neighbours_end
	want "writes counted" $(($(disk_stat "$L" 5) + $(disk_stat "$L" 6) - before)) $DEPTH
	detach
	tear_down
}

# One alone is served as if nothing were parked.
alone() {
	local workers=/sys/kernel/debug/loop_rs

	set_up
	attach --direct-io="$1" "$T/fs/file"
	cg_run "$PARENT/victim" timeout $((60 * SLOW)) fio --name=n --filename="$LOOP" \
		--rw=randrw --bsrange=512-32k --iodepth=$DEPTH --ioengine=libaio --direct=1 \
		--iodepth_batch_submit=64 --size=16M --verify=crc32c --verify_fatal=1 \
		>"$T/fio" 2>&1 || fail "$(tail -n 5 "$T/fio")"
	if [ -r "$workers/$L/workers" ]; then
		[ "$(worker_stat "$L" /victim parked)" -gt 0 ] ||
			fail "nothing was parked: $(<"$workers/$L/workers")"
	fi
	detach
	tear_down
}

test_begin 8
LIB_CGROUPS+=("$PARENT")
need_driver

check "one neighbour throttled, backing I/O direct" throttled 1 on
check "six neighbours throttled, backing I/O direct" throttled 6 on
check "the root stuck on a frozen file system" frozen
check "many stuck, and one that is not" crowd
check "tags taken from one that is stuck" in_order
check "I/O without a tag is waited for, and counted once" waited_for
check "one alone at depth, verified, backing I/O direct" alone on
check "one alone at depth, verified, backing I/O buffered" alone off

test_end
