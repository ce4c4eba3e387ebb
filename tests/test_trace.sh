#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The tracepoints of the driver have an event for each step of known I/O, with its device, its
# cgroup and its range, and the examples of the manual page work.
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"
. "$LIB_DIR/edges.sh"

PARENT=$CGROOT/loop_rs-trace
TRACE=/sys/kernel/tracing/instances/loop_rs-trace
DM=loop_rs-trace
MAN=$LIB_DIR/loop_rs.4
SECTORS=$((64 * 2048))
COUNT=512

# events EVENT WORD...: the number of events whose lines have all of the words.
events() {
	awk -v event="loop_rs_$1:" -v words="${*:2}" '
		BEGIN { n = split(words, word, " ") }
		{
			for (i = 1; i <= NF && $i != event; i++)
				;
			if (i > NF)
				next
			line = " "
			while (++i <= NF)
				line = line $i " "
			for (k = 1; k <= n; k++)
				if (!index(line, " " word[k] " "))
					next
			found++
		}
		END { print found + 0 }' $TRACE/trace
}

# values EVENT FIELD WORD...: a field of these events, one a line.
values() {
	sed -n "s/.* loop_rs_$1: \(.*\)/ \1 /p" $TRACE/trace |
		awk -v field="$2=" -v words="${*:3}" '
			BEGIN { n = split(words, word, " ") }
			{
				for (k = 1; k <= n; k++)
					if (!index($0, " " word[k] " "))
						next
				for (i = 1; i <= NF; i++)
					if (index($i, field) == 1)
						print substr($i, length(field) + 1)
			}'
}

sum() {
	values "$@" | awk '{ n += $1 } END { printf "%.0f\n", n }'
}

# expect EVENT WORD... COUNT
expect() {
	want "events: ${*:1:$#-1}" "$(events "${@:1:$#-1}")" "${*: -1}"
}

set_up() {
	skip_on_c "it has no tracepoints"
	[ -d "${TRACE%/*}" ] || skip "no tracefs"
	[ -d /sys/kernel/debug/block ] || skip "no debugfs"
	[ -z "$(cg_missing)" ] || skip "$(cg_missing)"
	driver_unload
	driver_load max_loop=2
	cg_remove "$PARENT"
	mkdir "$PARENT"
	echo "+memory +io" >"$PARENT/cgroup.subtree_control"
	mkdir "$PARENT/a" "$PARENT/b"
	A=cgroup=$(stat -c %i "$PARENT/a")
	B=cgroup=$(stat -c %i "$PARENT/b")
	mkdir $TRACE
	trap let_go EXIT
}

# A case that fails leaves nothing blocked.
let_go() {
	dmsetup --noudevsync resume $DM || true
	fsfreeze -u "$T/fs" || true
	echo 1 >"$PARENT/cgroup.kill" || true
	rmdir $TRACE || true
	wait
} >/dev/null 2>&1

tear_down() {
	detach
	cg_remove "$PARENT"
}

# Attaches a file of 1 MiB on ext4, with the options, and starts to trace. D is the device.
attach_file() {
	need_scratch
	scratch_fs ext4 "$T/fs"
	pattern $MIB "$T/fs/file" 3
	sync -f "$T/fs/file"
	attach "$@" "$T/fs/file"
	trace_on
}

trace_on() {
	D=disk=$L
	udevadm settle 2>/dev/null || :
	echo 1 >$TRACE/events/loop_rs/enable
	echo >$TRACE/trace
}

trace_off() {
	echo 0 >$TRACE/events/loop_rs/enable
}

# io CGROUP read|write BLOCKS [SIZE]
io() {
	case $2 in
	read)	cg_run "$PARENT/$1" dd if="$LOOP" of="$T/out" bs="${4:-4k}" count="$3" iflag=direct ;;
	write)	cg_run "$PARENT/$1" dd if=/dev/zero of="$LOOP" bs="${4:-4k}" count="$3" oflag=direct \
			conv=notrunc ;;
	esac 2>/dev/null
}

# Fields of the documented interface, in any order.
fields() {
	local event field

	set_up
	for event in issue_inline issue_offloaded queue detach resume worker_begin worker_end complete; do
		for field in "dev_t dev;" "char disk[32];" "u64 cgroup;" "u64 sector;" "u32 bytes;" "u32 op;"; do
			grep -qF "field:$field" "$TRACE/events/loop_rs/loop_rs_$event/format" ||
				fail "no $field in $event"
		done
	done
	for field in "queue/u32 reason" "detach/u32 reason" "resume/u64 age_ns" "complete/int error" \
		"complete/u64 latency_ns"; do
		grep -qF "field:${field#*/};" "$TRACE/events/loop_rs/loop_rs_${field%%/*}/format" ||
			fail "no $field"
	done
	want "events" "$(cd $TRACE/events/loop_rs && echo loop_rs_*/ | wc -w)" 8
	cg_remove "$PARENT"
}

# Reads of cached pages: all are completed in the cgroup, as many are issued inline as the
# statistics have it.
inline() {
	local eagain again

	set_up
	attach_file --direct-io=off
	io a read 256
	trace_off
	expect complete "$D" "$A" op=READ bytes=4096 error=0 256
	expect complete "$A" 256
	want "sum of sectors" "$(sum complete sector "$D" "$A")" $((255 * 256 / 2 * 8))
	eagain=$(events queue "$D" "$A" reason=eagain)
	want "issued inline" $(($(events issue_inline "$D" "$A") - eagain)) \
		"$(worker_stat "$L" /a here)"
	want_ge "issued inline" "$(events issue_inline "$D" "$A")" 224
	again=$(events queue "$D" "$A" reason=offload_eagain)
	want "first events" \
		$(($(events issue_inline "$D" "$A") - eagain + $(events queue "$D" "$A") - again)) 256
	want "latencies of 0" "$(values complete latency_ns "$D" "$A" | grep -cx 0)" 0
	expect complete "$D" "$B" 0
	expect complete "dev=$(<"/sys/block/$L/dev")" "$A" 256
	tear_down
	umount "$T/fs"
}

# Writes to ext4 through the page cache are the worker's, and so are flushes, which have no cgroup.
by_worker() {
	local event other

	set_up
	attach_file --direct-io=off
	io a write 8 64k
	io b write 3
	sync "$LOOP"
	trace_off
	for event in queue worker_begin worker_end complete; do
		expect $event "$D" "$A" op=WRITE bytes=65536 8
		expect $event "$D" "$B" op=WRITE bytes=4096 3
		want "sectors, $event" "$(values $event sector "$D" "$A" | xargs)" \
			"0 128 256 384 512 640 768 896"
		expect $event "$D" op=FLUSH cgroup=0 1
	done
	expect queue "$A" reason=new 8
	expect issue_inline "$A" 0
	expect detach "$D" 0
	# Of another device, nothing.
	other=loop$((1 - ${L#loop}))
	expect complete "disk=$other" 0
	tear_down
	umount "$T/fs"
}

worker_waits() {
	[ "$(events worker_begin "$D" "$A")" -ge 1 ]
}

ended() {
	! kill -0 "$1" 2>/dev/null
}

# The worker issues offloaded reads while it waits for a frozen file system.
offloaded() {
	local reader writer

	[ "$(nproc)" -gt 1 ] || skip "one CPU"
	set_up
	attach_file --direct-io=off
	fsfreeze -f "$T/fs"
	cg_run "$PARENT/a" dd if=/dev/zero of="$LOOP" bs=4k count=1 oflag=direct conv=notrunc &
	writer=$!
	wait_for 60 worker_waits
	trace_off
	echo 1 >$TRACE/events/loop_rs/loop_rs_issue_offloaded/enable
	cg_run "$PARENT/a" fio --output="$T/fio" --name=j --filename="$LOOP" --size=1M --io_size=80M \
		--rw=randread --norandommap --bs=4k --direct=1 --ioengine=libaio --iodepth=32 &
	reader=$!
	wait_for 120 ended $reader || fail "reads wait for the write"
	trace_off
	! ended $writer || fail "the write did not wait"
	want_ge "reads that the worker issued" "$(events issue_offloaded "$D" "$A")" 8
	fsfreeze -u "$T/fs"
	wait $reader
	wait $writer
	tear_down
	umount "$T/fs"
}

# More I/Os than tags while the disk below is suspended.
detached() {
	local parked waited

	set_up
	need_scratch
	dm_create $DM "0 $SECTORS linear $SCRATCH_DEV 0"
	attach --direct-io=on /dev/mapper/$DM
	dd if="$LOOP" of=/dev/null bs=4k count=64 iflag=direct status=none
	trace_on
	dmsetup suspend --noflush --nolockfs $DM
	flood "$PARENT/a" write 0 $COUNT 4096 3
	want_ge "detached" "$(events detach "$D" "$A")" 256
	expect complete "$D" "$A" 0
	sleep 1
	dmsetup --noudevsync resume $DM
	flood_ends
	trace_off
	parked=$(worker_stat "$L" /a parked)
	expect detach "$D" "$A" op=WRITE bytes=4096 "$parked"
	expect resume "$D" "$A" op=WRITE bytes=4096 "$parked"
	expect complete "$D" "$A" op=WRITE bytes=4096 error=0 $COUNT
	want "sectors that completed" "$(values complete sector "$D" "$A" | sort -un | wc -l)" $COUNT
	want "first events" $(($(events issue_inline "$D" "$A") + $(events queue "$D" "$A") +
		$(events detach "$D" "$A") - $(events queue "$D" "$A" reason=eagain) -
		$(events detach "$D" "$A" reason=eagain) -
		$(events queue "$D" "$A" reason=offload_eagain) -
		$(events detach "$D" "$A" reason=offload_eagain) -
		$(events detach "$D" "$A" reason=reclaimed))) $COUNT
	waited=$(values complete latency_ns "$D" "$A" | sort -n | head -n 1)
	want_ge "least latency in ns" "$waited" 900000000
	want_le "least latency in ns" "$waited" $((60 * SLOW))000000000
	# Bios that enter service in the jiffy of their detach have an age of 0, at most 64 at a time.
	want_le "resumed without an age" "$(values resume age_ns "$D" "$A" | grep -cx 0)" 64
	tear_down
	dm_remove $DM
}

# The result is an error.
failed() {
	set_up
	attach_file --direct-io=off
	truncate -s 4096 "$T/fs/file"
	io a read 2 || :
	trace_off
	expect complete "$D" "$A" sector=0 bytes=4096 error=0 1
	expect complete "$D" "$A" sector=8 bytes=4096 error=-5 1
	tear_down
	umount "$T/fs"
}

# dm-crypt without its workqueue decrypts when a read completes. A worker leaves that to a softirq.
heavy_completions() {
	local blocks=$((16 * MIB / 131072)) flags i key

	[ "$(nproc)" -gt 1 ] || skip "one CPU"
	set_up
	modprobe -q dm_crypt || [ -d /sys/module/dm_crypt ] || skip "no dm-crypt"
	need_scratch
	scratch_fs ext4 "$T/fs"
	pattern $((16 * MIB)) "$T/fs/file" 3
	attach --direct-io=off "$T/fs/file"
	key=$(printf %064d 1)
	dm_create $DM "0 $((16 * 2048)) crypt aes-xts-plain64 $key 0 $LOOP 0 1 no_read_workqueue"
	udevadm settle 2>/dev/null || :
	sync
	echo 3 >/proc/sys/vm/drop_caches
	trace_on
	# Not in the order that starts readahead.
	for ((i = blocks - 1; i > 0; i -= 4)); do
		dd if=/dev/mapper/$DM of=/dev/null bs=128k skip=$i count=1 iflag=direct 2>/dev/null
	done
	trace_off
	dm_remove $DM
	flags=$(sed -n 's/.*\[[0-9]*\] \([^ ]*\) .* loop_rs_complete: .* bytes=131072 .*/\1/p' $TRACE/trace)
	# A read that continues after a short one has fewer bytes left.
	want_ge "reads in one piece" "$(wc -l <<<"$flags")" 28
	# The first one is timed.
	want_ge "reads that a softirq completed" "$(grep -c '^..s' <<<"$flags")" 24
	tear_down
	umount "$T/fs"
}

# The worker is in a call that waits, and two more requests of its cgroup wait for it. The example of
# the manual page tells so.
blocked() {
	local i out pids=() reader

	set_up
	[ -r "$MAN" ] || skip "no loop_rs.4"
	attach_file --direct-io=off
	fsfreeze -f "$T/fs"
	# The example, with the buffer of the test.
	sed -n '/^\.\\" example: tracefs/,/^\.Ed/{/^[.]/d;p}' "$MAN" |
		sed "s/\\\\(aq/'/g; s/\\\\(ha/^/g; s/\\\\(ti/~/g; s/\\\\-/-/g; s/\\\\e/\\\\/g" |
		sed "s|/sys/kernel/tracing|$TRACE|; s/timeout 10/timeout $((6 * SLOW))/" >"$T/example"
	grep -q trace_pipe "$T/example" || fail "no example: $(<"$T/example")"
	bash "$T/example" >"$T/held" &
	reader=$!
	for i in 0 1 2; do
		sleep 0.3
		cg_run "$PARENT/a" dd if=/dev/zero of="$LOOP" bs=4k count=1 seek=$i oflag=direct \
			conv=notrunc 2>/dev/null &
		pids+=($!)
	done
	sleep 1.5
	io b read 4
	fsfreeze -u "$T/fs"
	for i in "${pids[@]}"; do
		wait "$i"
	done
	wait $reader || :
	cat "$T/held"
	out=$(sed -n "s/^$L $A: WRITE of sector 0 waited \([0-9]*\)\.[0-9]* s, \([0-9]* behind it\)$/\1 \2/p" "$T/held")
	want_ge "seconds that the first call waited" "${out%% *}" 1
	want "requests that it held up" "${out#* }" "2 behind it"
	tear_down
	umount "$T/fs"
}

test_begin 8
LIB_CGROUPS+=("$PARENT")
LIB_DMS+=("$DM")
mkdir "$T/fs"
need_driver

check "events and their fields" fields
check "I/O issued inline" inline
check "I/O of two cgroups, by workers" by_worker
check "offloaded, while the worker waits" offloaded
check "detached and resumed" detached
check "I/O that fails" failed
check "reads whose completion is heavy" heavy_completions
check "who holds up whom: the example of the manual page" blocked

test_end
