#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A cgroup whose I/O is stuck blocks no other cgroup: neither I/O of others, which needs tags of the
# same device, nor operations that wait for all I/O, beyond the time of the I/O in service.
#
# The speed of the others is compared with a control: the same reads through a loop device of their
# own over a file on the same disk, alternating with reads of the shared device.
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

PARENT=$CGROOT/loop_rs-isolation
MIB=1048576
# More than the number of tags of a device.
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
	trap release_io EXIT
}

# Releases all stuck I/O, so that a failed case leaves nothing behind.
release_io() {
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

# neighbour CGROUP OFFSET DEPTH: keeps DEPTH writes in flight, and verifies them at the end.
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

# in_time WHAT PID...: waits until they exit successfully. A task that hangs in the kernel can't be
# killed.
in_time() {
	local what=$1 pid

	shift
	for pid in "$@"; do
		wait_for 15 ended "$pid" || fail "$what in time"
		wait "$pid" || fail "$what: exit status $?"
	done
}

# The reads of the victim, of 4 KiB each, must complete.
victim() {
	local cg=${1:-$PARENT/victim}

	cg_run "$cg" dd if="$LOOP" of="$T/out" bs=4k count=100 iflag=direct 2>/dev/null &
	in_time "the victim did not get its reads done" $!
	cmp -n $((400 * 1024)) "$T/out" "$T/fs/file"
}

# The minimum of the victim's IOPS in percent of the control's, and the percentage below which the
# difference can't be noise, so that no more rounds are needed.
KEEPS=70
NOISE=50

# attach_both MODE: LOOP is the shared device, CONTROL the victim's own.
attach_both() {
	attach --direct-io="$1" "$T/fs/control"
	CONTROL=$LOOP
	attach --direct-io="$1" "$T/fs/file"
}

detach_both() {
	detach
	detach "$CONTROL"
}

# keeps WHAT [CGROUP]: the victim reads nearly as fast through the shared device as through its own,
# in the median of short rounds.
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

# Many reads in flight: each tag that is freed must wake a waiter.
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

	skip_on_c "a throttled cgroup holds all tags"
	set_up
	attach_both "$2"
	for ((i = 0; i < n; i++)); do
		mkdir "$PARENT/n$i"
		# A few I/Os per second in all: the neighbours must not finish before the victims.
		cg_limit_io "$PARENT/n$i" "$DISK" wbps=$((8192 / n / SLOW))
		neighbour "$PARENT/n$i" $((4 * MIB + i * each * 4096)) $each
	done
	wait_for 60 in_flight $((DEPTH * 3 / 4))
	victim
	victim "$CGROOT"
	victims
	keeps "a cgroup"
	[ "$n" -gt 1 ] || keeps "the root" "$CGROOT"
	in_flight $((DEPTH / 2)) || fail "the neighbours were not blocked: this shows nothing"
	for ((i = 0; i < n; i++)); do
		cg_limit_io "$PARENT/n$i" "$DISK" wbps=max
	done
	neighbours_end
	detach_both
	tear_down
}

# The writes of the root cgroup are stuck in a frozen file system.
frozen() {
	skip_on_c "a stuck cgroup holds all tags"
	set_up
	attach_both on
	fsfreeze -f "$T/fs"
	neighbour "$CGROOT" $((4 * MIB)) $DEPTH
	wait_for 30 in_flight $((DEPTH * 3 / 4))
	victim
	# A flush belongs to no cgroup: it does not wait for writes of the root.
	cg_run "$PARENT/victim" sync "$LOOP" &
	in_time "the victim's fsync did not return" $!
	keeps "a cgroup"
	in_flight $((DEPTH * 3 / 4)) || fail "the root was not stuck: this shows nothing"
	fsfreeze -u "$T/fs"
	neighbours_end
	detach_both
	tear_down
}

# Whether the number of I/Os in flight has been constant for a while.
settled() {
	local before

	before=$(<"/sys/block/$L/loop/stat")
	sleep 0.5
	[ "$before" = "$(<"/sys/block/$L/loop/stat")" ]
}

# A cgroup that is not stuck gets tags, however many cgroups are stuck: its requests are not
# detached.
crowd() {
	local i served parked

	skip_on_c "it detaches no requests from their tags"
	[ -d /sys/kernel/debug/block ] || skip "no debugfs"
	set_up
	attach_both on
	# The first direct I/O sets up metadata that the next I/Os need.
	victim
	fsfreeze -f "$T/fs"
	for ((i = 0; i < 8; i++)); do
		mkdir "$PARENT/n$i"
		neighbour "$PARENT/n$i" $((4 * MIB + i * 64 * 4096)) 64
	done
	# Nearly all I/Os are submitted, and no more will come: the number of held tags changes
	# until then.
	wait_for 60 in_flight $((7 * 64))
	wait_for 30 settled
	# "stat" counts all I/Os, "inflight" those with a tag.
	want_ge "in flight in /proc/diskstats" \
		"$(awk -v l="$L" '$3 == l { print $12 }' /proc/diskstats)" $((7 * 64))
	want_le "requests with a tag" "$(awk '{ print $1 + $2 }' "/sys/block/$L/inflight")" 128
	# By the name of a cgroup whose worker is not reaped during the check.
	mkdir "$PARENT/alone"
	cg_run "$PARENT/alone" "$LIB_DIR/loop_io" deep "$LOOP" $((4 * MIB)) 7 16 1000
	in_flight $((4 * 64)) || fail "the neighbours were not stuck: this shows nothing"
	served=$(worker_stat "$L" /alone "done")
	parked=$(worker_stat "$L" /alone parked)
	want "the victim's requests" "$served" 1000
	echo "$parked of them detached"
	[ "$parked" -le 250 ] || fail "$parked requests were detached: $(<"/sys/kernel/debug/loop_rs/$L/workers")"
	keeps "a cgroup"
	fsfreeze -u "$T/fs"
	neighbours_end
	detach_both
	tear_down
}

# reclaimed N: N requests of the cgroup "ordered" were detached.
reclaimed() {
	[ "$(worker_stat "$L" /ordered parked)" -ge "$1" ]
}

# Requests that are detached from their tags are still served in the order of submission, except
# that two of them may have swapped places when both CPUs reclaimed tags.
in_order() {
	local i n=56 pid moved wrong

	skip_on_c "it reclaims no tags"
	[ -d /sys/kernel/debug/block ] || skip "no debugfs"
	# Unload, so that no workers of earlier cases exist: tags are also reclaimed from those.
	driver_unload
	driver_load max_loop=1
	set_up
	# A write to the page cache completes before the worker takes the next one.
	attach --direct-io=off "$T/fs/file"
	fsfreeze -f "$T/fs"
	# Fewer than a cgroup may keep, so that no request is detached at its submission.
	mkdir "$PARENT/ordered"
	cg_run "$PARENT/ordered" "$LIB_DIR/loop_io" order "$LOOP" $n >"$T/order" 2>&1 &
	pid=$!
	wait_for 30 in_flight $n
	want "detached at first" "$(worker_stat "$L" /ordered parked)" 0
	for ((i = 0; i < 8; i++)); do
		mkdir "$PARENT/n$i"
		neighbour "$PARENT/n$i" $((4 * MIB + i * 64 * 4096)) 64
	done
	wait_for 60 in_flight $((n + 6 * 64))
	wait_for 30 reclaimed 2
	moved=$(worker_stat "$L" /ordered parked)
	fsfreeze -u "$T/fs"
	wait $pid || fail "$(<"$T/order")"
	want "writes" "$(wc -l <"$T/order")" $n
	wrong=$(awk '$1 < last { n++ } { last = $1 } END { print n + 0 }' "$T/order")
	echo "$moved of them detached"
	[ "$wrong" -le 1 ] ||
		fail "$moved requests were detached; order of completion: $(xargs <"$T/order")"
	neighbours_end
	detach
	tear_down
}

# Operations that wait for all I/O also wait for detached bios, each of which is counted once.
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

# Whether the cgroup was throttled for memory.high some times.
over_high() {
	[ "$(cg_stat "$1" memory.events high)" -ge 4 ]
}

# A cgroup over memory.high is throttled without the lock of the backing file's inode, which writes
# of other cgroups need. Pages of tmpfs can't be reclaimed.
inode_lock() {
	local pid

	skip_on_c "it sleeps with the lock of the inode held"
	[ -z "$(cg_missing)" ] || skip "$(cg_missing)"
	mkdir -p "$T/fs"
	mkdir "$PARENT"
	trap release_io EXIT
	echo "+memory +io" >"$PARENT/cgroup.subtree_control"
	mkdir "$PARENT/victim" "$PARENT/n"
	mount -t tmpfs -o size=64M none "$T/fs"
	dd if=/dev/zero of="$T/fs/file" bs=1M count=4 status=none
	truncate -s 64M "$T/fs/file"
	attach "$T/fs/file"
	echo 1M >"$PARENT/n/memory.high"
	cg_run "$PARENT/n" dd if=/dev/zero of="$LOOP" bs=128k seek=32 oflag=direct \
		count=$((60 * 8)) conv=notrunc status=none &
	pid=$!
	wait_for 60 over_high "$PARENT/n"
	cg_run "$PARENT/victim" dd if=/dev/zero of="$LOOP" bs=4k count=100 oflag=direct \
		conv=notrunc status=none &
	in_time "the victim did not get its writes done" $!
	[ -d "/proc/$pid" ] || fail "the neighbour was not throttled: this shows nothing"
	echo max >"$PARENT/n/memory.high"
	wait $pid
	detach
	tear_down
}

# A single cgroup at high depth is served as if no request were detached.
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
			fail "no request was detached: $(<"$workers/$L/workers")"
	fi
	detach
	tear_down
}

test_begin 9
LIB_CGROUPS+=("$PARENT")
need_driver

check "one neighbour throttled, backing I/O direct" throttled 1 on
check "six neighbours throttled, backing I/O direct" throttled 6 on
check "the root cgroup stuck in a frozen file system" frozen
check "many stuck cgroups, and a cgroup that is not stuck" crowd
check "tags reclaimed from a stuck cgroup" in_order
check "a freeze waits for I/O without a tag, which is counted once" waited_for
check "a neighbour over memory.high, and a victim that writes to the same file" inode_lock
check "a single cgroup at high depth, verified, backing I/O direct" alone on
check "a single cgroup at high depth, verified, backing I/O buffered" alone off

test_end
