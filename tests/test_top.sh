#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# loop-top shows what the driver counts: exact numbers for known I/O, JSON that matches its schema,
# a screen that fits the terminal, and messages for missing permissions, devices and drivers.
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

PARENT=$CGROOT/loop_rs-top
A=/loop_rs-top/a
B="/loop_rs-top/b c"

top() {
	"$T/loop-top" "$@"
}

# get DEVICE CGROUP KEY...: values from the JSON in $T/json.
get() {
	"$LIB_DIR/loop_top.py" get "$T/json" "$@"
}

# set_up PARAMETER...: loads the module with these parameters.
set_up() {
	skip_on_c "it has no statistics by cgroup"
	[ -d /sys/kernel/debug/block ] || skip "no debugfs"
	[ -z "$(cg_missing)" ] || skip "$(cg_missing)"
	# Without workers of other cases.
	driver_unload
	driver_load max_loop=1 "$@"
	mount -t tmpfs none "$T/fs"
	pattern $((1 << 20)) "$T/fs/file" 1
	attach "$T/fs/file"
	cg_remove "$PARENT"
	mkdir "$PARENT"
	echo "+memory +io" >"$PARENT/cgroup.subtree_control"
	mkdir "$CGROOT$A" "$CGROOT$B"
}

tear_down() {
	detach
	umount "$T/fs"
	cg_remove "$PARENT"
}

# io CGROUP read|write BLOCKS: direct I/O of 4 KiB each.
io() {
	case $2 in
	read)	cg_run "$CGROOT$1" dd if="$LOOP" of=/dev/null bs=4k count="$3" iflag=direct ;;
	write)	cg_run "$CGROOT$1" dd if=/dev/zero of="$LOOP" bs=4k count="$3" oflag=direct conv=notrunc ;;
	esac 2>/dev/null
}

# Numbers of both cgroups, before the first sample and between two samples.
exact() {
	local all device pid

	set_up
	io "$A" read 100
	top -J -d $((4 * SLOW)) >"$T/json" &
	pid=$!
	sleep $((2 * SLOW))
	io "$A" read 37
	io "$B" write 11
	io "$B" read 5
	wait $pid
	want "cgroup a, in all" "$(get "$L" "$A" read/ios read/bytes write/ios "done")" \
		"137 $((137 * 4096)) 0 137"
	want "cgroup a, new" "$(get "$L" "$A" read/new-ios read/new-bytes write/new-ios)" \
		"37 $((37 * 4096)) 0"
	want "cgroup b, in all" "$(get "$L" "$B" read/ios read/bytes write/ios write/bytes)" \
		"5 20480 11 45056"
	want "cgroup b, new" "$(get "$L" "$B" read/new-ios write/new-ios)" "5 11"
	want "nothing waits" "$(get "$L" "$B" waiting in-flight deferred held-ms worker-state)" \
		"0 0 0 0 idle"
	want "inline and by the worker" "$(($(get "$L" "$A" inline) + $(get "$L" "$A" worker)))" 137
	device=$(get "$L" - read/new-ios write/new-ios)
	want_ge "reads of the device" "${device% *}" 42
	want "writes of the device" "${device#* }" 11
	all=$(get total - read/ios write/ios)
	want "sums" "$all" "$(get "$L" - read/ios write/ios)"
	want "as the driver counts" "$(sed 's/.* rios=\([0-9]*\) wios=\([0-9]*\) .*/\1 \2/' \
		"/sys/block/$L/loop/stat")" "$all"
	# Each rate times the interval is the number.
	want "rate" "$(get "$L" "$A" read/iops | awk -v s="$(sed -n 's/.*"interval": \(.*\),/\1/p' "$T/json")" \
		'{ printf "%.0f", $1 * s }')" 37
	want_ge "cgroups" "$(grep -c '"path"' "$T/json")" 4
	top --schema >"$T/schema"
	"$LIB_DIR/loop_top.py" schema "$T/schema" "$T/json"
	tear_down
}

# The table at 80 columns, and what limits it.
table() {
	local line out

	set_up
	io "$A" write 3
	io "$B" read 2
	out=$(top -1 -d 0.5)
	echo "$out"
	[[ $out != *$'\e'* ]] || fail "escape sequences in a file"
	while IFS= read -r line; do
		want_le "characters: $line" ${#line} 80
	done <<<"$out"
	for line in "all devices " "$L " "  $A " "  (flush) "; do
		[[ $out == *$'\n'"$line"* ]] || fail "no line '$line'"
	done
	[[ $out == *"$B "* ]] || fail "no line of $B"
	out=$(top -1 -d 0.1 -g "b c" "$LOOP")
	[[ $out == *"$B"* && $out != *"$A"* ]] || fail "not only b: $out"
	out=$(top -1 -d 0.1 -t)
	want "lines without cgroups" "$(wc -l <<<"$out")" 3
	out=$(top -1 -d 0.1 -f -s name)
	want "lines of one list" "$(grep -c "^$L .*_rs-top/[ab]" <<<"$out")" 2
	out=$(top -d 0.2 -n 3 -f -g b)
	want "tables" "$(grep -c ^DEVICE <<<"$out")" 3
	want_error "loop9 is no attached loop device" top -1 -d 0.1 loop9
	want_error "there is no column size" top -s size
	tear_down
}

prometheus() {
	local bad

	set_up
	io "$A" read 12
	io "$B" write 3
	echo old >"$T/metrics"
	top --prometheus -o "$T/metrics"
	bad=$(grep -vE '^# (HELP|TYPE) [a-z_]+ .+$|^[a-z_]+\{[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*\} [0-9.]+$' \
		"$T/metrics") || :
	want "lines in another format" "$bad" ""
	grep -qxF "loop_cgroup_requests_total{device=\"$L\",cgroup=\"$A\",operation=\"read\"} 12" "$T/metrics"
	grep -qxF "loop_cgroup_bytes_total{device=\"$L\",cgroup=\"$B\",operation=\"write\"} 12288" "$T/metrics"
	grep -qxF "loop_device_info{device=\"$L\",driver=\"loop_rs\",backing_file=\"$T/fs/file\"} 1" "$T/metrics"
	want "files left" "$(compgen -G "$T/metrics*")" "$T/metrics"
	tear_down
}

stuck() {
	[ "$(worker_stat "$L" /a "$1")" = 1 ]
}

# A cgroup whose write waits for a frozen file system is held up, another one is not.
held_up() {
	local held pid

	need_scratch
	set_up
	detach
	scratch_fs ext4 "$T/disk"
	pattern $((1 << 20)) "$T/disk/file" 3
	sync -f "$T/disk/file"
	attach "$T/disk/file"
	io "$B" read 1
	fsfreeze -f "$T/disk"
	# shellcheck disable=SC2064 # it's known now only
	trap "fsfreeze -u $T/disk 2>/dev/null || true" EXIT
	io "$A" write 1 &
	pid=$!
	wait_for 10 stuck tags
	top -J -d 2 >"$T/json"
	held=$(get "$L" "$A" held-ms in-flight worker-state)
	want "in flight" "${held#* }" "1 busy"
	want_ge "ms" "${held%% *}" 1900
	# The worker serves the write, which does not wait in the queue any more.
	want "oldest" "$(worker_stat "$L" /a oldest_ms)" 0
	# A second write waits in the queue.
	io "$A" write 1 &
	wait_for 10 stuck waiting
	sleep 3
	top --prometheus >"$T/metrics"
	top -1 -d 0.5
	held=$(grep -F "oldest_waiting_seconds{device=\"$L\",cgroup=\"$A\"}" "$T/metrics" | cut -d ' ' -f 2)
	want_ge "seconds that the oldest has waited" "${held%.*}" 2
	top -J -d 0.1 >"$T/json"
	held=$(get "$L" "$A" held-ms waiting in-flight)
	want "waiting, in flight" "${held#* }" "1 2"
	want_ge "ms" "${held%% *}" 3000
	want "held up, in another cgroup" "$(get "$L" "$B" held-ms)" 0
	want_ge "held up, the device" "$(get "$L" - held-ms)" "${held%% *}"
	fsfreeze -u "$T/disk"
	wait $!
	wait $pid
	wait_for 10 grep -q "^$A idle" "/sys/kernel/debug/loop_rs/$L/workers"
	top -J -d 0.1 >"$T/json"
	want "afterwards" "$(get "$L" "$A" held-ms in-flight worker-state)" "0 0 idle"
	detach
	umount "$T/disk"
	attach "$T/fs/file"
	tear_down
}

# Messages for missing permissions, file systems, devices and drivers.
sentences() {
	local out

	set_up
	io "$A" read 7
	chmod 711 "$T"
	out=$(setpriv --reuid 65534 --clear-groups "$T/loop-top" -1 -d 0.1 2>&1)
	[[ $out == *"only root may read /sys/kernel/debug: cgroups are not shown"*"$L "* ]] ||
		fail "not root: $out"
	out=$(unshare --mount sh -c 'umount -l /sys/kernel/debug && "$0" -J -d 0.1' "$T/loop-top" 2>&1 >"$T/json")
	[[ $out == *"(is debugfs mounted?)"* ]] || fail "without debugfs: $out"
	want_ge "reads, without debugfs" "$(get "$L" - read/ios)" 7
	"$LIB_DIR/loop_top.py" schema <(top --schema) "$T/json"
	tear_down
	out=$(top -1 -d 0.1)
	[[ $out == *"no loop device is attached" ]] || fail "no device: $out"
	# A built-in driver is always loaded.
	driver_builtin || {
		driver_unload
		want_error "no loop driver is loaded: load loop_rs (modprobe loop_rs), or loop" top -1
		want_error "no loop driver is loaded" top -n1
		driver_load max_loop=1
	}
}

with_c() {
	local out

	skip_builtin
	driver_unload
	modprobe loop || skip "no C driver"
	mount -t tmpfs none "$T/fs"
	truncate -s 1M "$T/fs/file"
	attach "$T/fs/file"
	dd if="$LOOP" of=/dev/null bs=4k count=9 iflag=direct 2>/dev/null
	out=$(top -J -d 0.1 2>&1 >"$T/json")
	[[ $out == *"the C driver, loop, has no statistics by cgroup" ]] || fail "note: $out"
	want_ge "reads" "$(get "$L" - read/ios)" 9
	want "not known" "$(get "$L" - inline waiting deferred held-ms cgroups)" "null null null null []"
	"$LIB_DIR/loop_top.py" schema <(top --schema) "$T/json"
	top -1 -d 0.1 | grep -q "^$L "
	detach
	umount "$T/fs"
	wait_for 10 rmmod loop
	driver_load max_loop=1
}

# On a terminal: keys, sizes, signals.
on_screen() {
	set_up
	io "$A" read 5
	io "$B" read 5
	within 300 "$LIB_DIR/loop_top.py" screen "$A" "$B" "$T/loop-top"
	tear_down
}

# In the emulator a CPU is one or two orders of magnitude slower.
DEVICES=$((SLOW > 1 ? 20 : 100))
CGROUPS=$((SLOW > 1 ? 100 : 1000))

# cpu_ms PID: CPU time of a process.
cpu_ms() {
	local stat

	read -r stat <"/proc/$1/stat"
	# shellcheck disable=SC2086 # words
	set -- ${stat##*) }
	echo $(((${12} + ${13}) * 10))
}

# A thousand cgroups on a hundred devices.
many() {
	local before cpu devices i n out pid start

	# The first workers must still exist when the last one is created.
	set_up idle_worker_timeout_ms=600000
	for ((i = 1; i < DEVICES; i++)); do
		losetup "/dev/loop$i" "$T/fs/file"
	done
	eval "devices=(/dev/loop{0..$((DEVICES - 1))})"
	# shellcheck disable=SC2154 # by eval
	"$LIB_DIR/loop_io" read-as-cgroups "$PARENT" "$CGROUPS" "${devices[@]}"
	start=$(now_ms)
	top --prometheus >"$T/metrics"
	echo "one sample as metrics: $(($(now_ms) - start)) ms"
	n=$(grep -c 'loop_cgroup_waiting_requests{.*loop_rs-top/[0-9]' "$T/metrics")
	want_ge "cgroups" "$n" $((CGROUPS * 9 / 10))
	"$T/loop-top" -d 1 >"$T/out" &
	pid=$!
	sleep 3
	before=$(cpu_ms $pid)
	sleep 10
	cpu=$(($(cpu_ms $pid) - before))
	kill $pid
	wait $pid || :
	out=$(grep -c ^DEVICE "$T/out")
	echo "$n cgroups on $DEVICES devices, one table a second for 10 s: $cpu ms of CPU time," \
	     "$((cpu / 10)) ms for a table"
	# One table in a second, or less often on a busy host.
	want_ge "tables in 13 s" "$out" 8
	(cd "$PARENT" && eval "rmdir {1..$CGROUPS}")
	for ((i = 1; i < DEVICES; i++)); do
		losetup -d "/dev/loop$i"
	done
	wait_for 20 only_one
	tear_down
	driver_unload
	driver_load max_loop=1
}

only_one() {
	[ "$(lib_bound)" = "$L" ]
}

if [ ! -x "${LOOP_TOP:-}" ] || ! command -v python3 >/dev/null; then
	lib_ktap
	ktap_print_header
	ktap_skip_all "no program LOOP_TOP, or no Python"
	exit "$KSFT_SKIP"
fi
test_begin 8
LIB_CGROUPS+=("$PARENT")
cp "$LOOP_TOP" "$T/loop-top"
mkdir "$T/fs"
need_driver

check "exact numbers by cgroup, and the schema" exact
check "the table at 80 columns" table
check "metrics for Prometheus" prometheus
check "a cgroup that is held up" held_up
check "messages for missing permissions, file systems, devices and drivers" sentences
check "the C driver" with_c
check "the screen of a terminal" on_screen
check "$CGROUPS cgroups on $DEVICES devices" many

test_end
