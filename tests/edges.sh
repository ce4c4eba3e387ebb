# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Shared by the tests of the data path: many I/Os in flight, metadata that is not cached. Sourced
# after lib.sh.

EDGES=$LIB_DIR/loop_edges
MIB=1048576
# The default number of tags of a device.
TAGS=128

# A disk in memory; each request takes 10 ms.
null_disk() {
	modprobe -q null_blk nr_devices=0 || skip "no null_blk"
	modprobe -r null_blk
	modprobe null_blk nr_devices=1 gb=1 memory_backed=1 irqmode=2 completion_nsec=10000000 \
		submit_queues=1 no_sched=1
	wait_for 10 [ -b /dev/nullb0 ]
}

# cold_file DISK EXTENTS: attaches $LOOP to a file of that many extents on DISK. Unless they are
# cached, a read of a block reads metadata first; "loop_edges drop-caches" drops them from the
# cache.
cold_file() {
	# The offload policy must not depend on earlier I/O.
	driver_unload
	driver_load max_loop=1
	scratch_fs ext4 "$T/cold" "$1" 512M
	pattern $(($2 * 8192)) "$T/cold/file" 7
	sync -f "$T/cold"
	"$EDGES" fragment "$T/cold/file" "$2"
	# Metadata in the journal cannot be dropped from the cache.
	umount "$T/cold"
	mount -t ext4 -o noatime "$1" "$T/cold"
	attach --direct-io=on "$T/cold/file"
	# The first asynchronous direct I/O sets up metadata that the next I/Os need.
	dd if="$LOOP" of=/dev/null bs=4k count=64 iflag=direct status=none
}

# flood CGROUP read|write FIRST COUNT SIZE SEED...: starts "loop_edges flood" on $LOOP, and returns
# when all I/Os are in flight, or, with loop.ko, as many as there are tags.
flood() {
	rm -f "$T/ready"
	cg_run "$1" "$EDGES" flood "$LOOP" "$2" "$3" "$4" "$5" "$T/ready" "${@:6}" \
		>"$T/flood" 2>&1 &
	FLOOD=$!
	if [ "$DRIVER" = loop ]; then
		wait_for 30 in_flight $((TAGS - 8))
	else
		wait_for 30 [ -e "$T/ready" ] || fail "not all I/Os were submitted"
		in_flight $(($4 / 2)) || fail "$(disk_stat "$L" 9) in flight"
	fi
}

# flooded I: word I, counted from 0, of the output of the flood.
flooded() {
	awk -v i=$(($1 + 1)) '{ print $i }' "$T/flood"
}

# Waits for the flood.
flood_ends() {
	wait $FLOOD || fail "$(<"$T/flood")"
	cat "$T/flood"
	want "in flight in the end" "$(disk_stat "$L" 9)" 0
}
