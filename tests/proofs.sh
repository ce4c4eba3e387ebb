# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2119,SC2153
#
# Demonstrations of what the driver is for. The tests and scripts/main-job source this file after
# lib.sh, and call it with the driver loaded.
#
# Each proof_* function runs in a subshell under set -e: a command that fails, or fail(), ends it.
# step() prints progress, note() prints a line of the report.

command -v step >/dev/null || step() { echo "$(now_ms | tail -c 8): $*"; }
command -v note >/dev/null || note() { echo "$*"; }

mib() {
	local tenths=$(($1 * 10 / 1048576))

	echo "$((tenths / 10)).$((tenths % 10)) MiB"
}

#
# 1. Real files, a real file system
#

# copy_tree DIR MIB: copies real files of this system, at most that many MiB. The smallest files are
# left out: in an emulator the time per file counts.
copy_tree() {
	local dir=$1 max=$(($2 << 20))

	mkdir -p "$dir"
	find /etc /usr/sbin /usr/bin /usr/share -xdev \
		\( -type l -o -type f -size +3 \) -printf '%s %p\n' 2>/dev/null |
	awk -v max="$max" '
		NF == 2 && n + $1 + 4096 <= max { n += $1 + 4096; print $2 }
		n > max - 262144 { exit }' >"$T/list"
	xargs cp -a --parents -t "$dir" <"$T/list"
	want_ge "KiB copied" "$(du -sxk "$dir" | cut -f1)" $(($2 * 1024 / 2))
}

# sums DIR FILE: checksums of regular files, and a list of all others.
sums() {
	(
		cd "$1" || exit
		find . -type f -print0 | sort -z | xargs -0 -r sha256sum
		find . ! -type f -printf '%y %m %P -> %l\n' | sort
	) >"$2"
}

# proof_files DIR MIB: DIR has room for an image of four times MIB.
proof_files() {
	local img=$1/main.img mnt=$1/mnt dev=/dev/loop0 n

	mkdir -p "$mnt"
	truncate -s $(($2 * 4 + 32))M "$img"
	step "attach $img to $dev"
	losetup "$dev" "$img"
	step "mkfs.ext4 $dev, mount"
	mkfs.ext4 -qF "$dev"
	mount "$dev" "$mnt"
	step "write a tree of files"
	copy_tree "$mnt/tree" "$2"
	sums "$mnt/tree" "$T/sums.written"
	step "unmount, detach"
	umount "$mnt"
	detach "$dev"
	step "attach read-only, mount read-only"
	losetup --read-only "$dev" "$img"
	want "read-only" "$(blockdev --getro "$dev")" 1
	mount -o ro "$dev" "$mnt"
	step "verify the checksums"
	sums "$mnt/tree" "$T/sums.read"
	cmp "$T/sums.written" "$T/sums.read"
	n=$(grep -c -v '^[a-z] [0-7]* ' "$T/sums.read")
	note "files      $n files, $(du -sxk "$mnt/tree" | cut -f1) KiB:" \
	     "written, detached, attached read-only: same checksums"
	umount "$mnt"
	step "e2fsck -f"
	e2fsck -fn "$dev" >"$T/fsck" 2>&1 || { cat "$T/fsck"; fail "e2fsck"; }
	note "fsck       $(tail -n 1 "$T/fsck")"
	detach "$dev"
	rm -f "$img"
}

#
# 2. Memory
#

MEM_LIMIT=$((64 << 20))
MEM_WRITE=256
MEM_CONTROL=96

# A limited cgroup with a child, and an unlimited one.
mem_setup() {
	MEM_CG=$CGROOT/loop_rs-memory
	MEM_CHILD=$MEM_CG/child
	MEM_FREE=$CGROOT/loop_rs-unlimited
	mkdir "$MEM_CG" "$MEM_FREE"
	echo "$MEM_LIMIT" >"$MEM_CG/memory.max"
	[ ! -e "$MEM_CG/memory.swap.max" ] ||
		echo 0 >"$MEM_CG/memory.swap.max"
}

# In cgroup2 processes are in leaf cgroups only.
mem_use_child() {
	echo "+memory" >"$MEM_CG/cgroup.subtree_control"
	mkdir "$MEM_CHILD"
}

mem_teardown() {
	cg_remove "$MEM_CG"
	cg_remove "$MEM_FREE"
}

# mem_write CGROUP OUTPUT-FILE [DD-OPTION...]: prints the exit status.
mem_write() {
	local rc=0 cg=$1 out=$2

	shift 2
	cg_run "$cg" dd if=/dev/zero of="$out" bs=1M count="$MEM_WRITE" \
		conv=notrunc "$@" >/dev/null 2>&1 || rc=$?
	echo "$rc"
}

# Attaches a device to a new file on tmpfs.
mem_attach() {
	rm -f "$MEM_DIR/backing"
	truncate -s ${MEM_WRITE}M "$MEM_DIR/backing"
	attach "$MEM_DIR/backing"
}

mem_detach() {
	# Without the file, the pages that could not be written are not retried at the last close.
	truncate -s 0 "$MEM_DIR/backing"
	detach
	rm -f "$MEM_DIR/backing"
}

# mem_killed WRITER-CGROUP WHAT: writes to tmpfs, then to the loop device with direct I/O; each
# writer must be OOM-killed, and counted in the limited cgroup.
mem_killed() {
	local cg=$1 what=$2 before between after rc shmem

	before=$(cg_stat "$MEM_CG" memory.events oom_kill)
	step "memory: $MEM_WRITE MiB to tmpfs, $what"
	rc=$(mem_write "$cg" "$MEM_DIR/file")
	between=$(cg_stat "$MEM_CG" memory.events oom_kill)
	rm -f "$MEM_DIR/file"
	want "$what: exit status of the write to tmpfs" "$rc" 137
	want_ge "$what: oom_kill after the write to tmpfs" "$between" $((before + 1))

	step "memory: $MEM_WRITE MiB through a loop device over tmpfs, $what"
	mem_attach
	rc=$(mem_write "$cg" "$LOOP" oflag=direct)
	after=$(cg_stat "$MEM_CG" memory.events oom_kill)
	shmem=$(cg_stat "$MEM_CG" memory.stat shmem)
	mem_detach
	note "memory     $what: oom_kill $before, tmpfs -> $between, loop over tmpfs -> $after" \
	     "(shmem charged $(mib "$shmem") of $(mib "$MEM_LIMIT"))"
	want "$what: exit status of the write through the loop device" "$rc" 137
	want_ge "$what: oom_kill after the write through the loop device" \
		"$after" $((between + 1))
	# The writer itself has few pages: the driver allocated the rest, on tmpfs. Allocations of
	# the debug kernel itself are charged, too.
	want_ge "$what: shmem charged" "$shmem" $((MEM_LIMIT * (${SLOW:-1} > 1 ? 6 : 7) / 8))
}

# A writer over memory.max through the page cache of the loop device is killed. Its pages there are
# charged to the writer in any case, but can be reclaimed once they are written back.
mem_killed_buffered() {
	local before after rc

	before=$(cg_stat "$MEM_CG" memory.events oom_kill)
	step "memory: $MEM_WRITE MiB through the page cache of a loop device over tmpfs"
	mem_attach
	rc=$(mem_write "$1" "$LOOP")
	after=$(cg_stat "$MEM_CG" memory.events oom_kill)
	mem_detach
	note "memory     $2, buffered: oom_kill $before, loop over tmpfs -> $after"
	want "$2: exit status of the buffered write" "$rc" 137
	want_ge "$2: oom_kill after the buffered write" "$after" $((before + 1))
}

# The charge of the root cgroup itself: the total minus that of its children.
root_own_shmem() {
	local d n

	n=$(cg_stat "$CGROOT" memory.stat shmem)
	for d in "$CGROOT"/*/; do
		[ ! -e "$d/memory.stat" ] ||
			n=$((n - $(cg_stat "$d" memory.stat shmem)))
	done
	echo "$n"
}

# Without a limit nothing is killed, and the pages are charged to the writer, not to the root.
mem_unlimited() {
	local rc root shmem

	step "memory: $MEM_CONTROL MiB through a loop device over tmpfs, no limit"
	mem_attach
	root=$(root_own_shmem)
	rc=$(mem_write "$MEM_FREE" "$LOOP" count="$MEM_CONTROL" oflag=direct)
	shmem=$(cg_stat "$MEM_FREE" memory.stat shmem)
	root=$(($(root_own_shmem) - root))
	mem_detach
	note "memory     no limit: not killed; shmem of the cgroup +$(mib "$shmem")," \
	     "of root itself $(mib "$root")"
	want "no limit: exit status" "$rc" 0
	want "no limit: oom_kill" "$(cg_stat "$MEM_FREE" memory.events oom_kill)" 0
	want_ge "no limit: shmem of the cgroup" "$shmem" $((MEM_CONTROL << 20))
	want_le "no limit: shmem of root" "$root" $((8 << 20))
}

# proof_memory DIR: where to mount a tmpfs.
proof_memory() {
	MEM_DIR=$1/tmpfs
	mkdir -p "$MEM_DIR"
	mount -t tmpfs -o size=$((MEM_WRITE + 64))M none "$MEM_DIR"
	mem_setup
	mem_killed "$MEM_CG" "in the limited cgroup"
	mem_use_child
	mem_killed "$MEM_CHILD" "in a child of it"
	mem_unlimited
	mem_teardown
	umount "$MEM_DIR"
}

#
# 3. I/O
#

# A rate that the slowest kernel exceeds if there is no limit.
IO_RATE=$(((4 << 20) / ${SLOW:-1}))
IO_WRITE=8

# The whole disk under DIR as major:minor: what io.max takes.
disk_of() {
	local dev

	dev=$(findmnt -no MAJ:MIN -T "$1" | tr -d ' ')
	if [ -e "/sys/dev/block/$dev/partition" ]; then
		dev=$(<"/sys/dev/block/$dev/../dev")
	fi
	[ -e "/sys/dev/block/$dev/queue" ] || return 1
	echo "$dev"
}

# io_write CGROUP DEVICE DD-OPTIONS...: prints the duration in ms.
io_write() {
	local cg=$1 dev=$2 start

	shift 2
	start=$(now_ms)
	cg_run "$cg" dd if="$T/data" of="$dev" bs=1M count="$IO_WRITE" \
		conv=notrunc,fsync "$@" >/dev/null 2>"$T/dd" ||
		{ cat "$T/dd"; fail "write to $dev"; }
	echo $(($(now_ms) - start))
}

root_own_wbytes() {
	local d n

	n=$(cg_io "$CGROOT" "$1" wbytes)
	for d in "$CGROOT"/*/; do
		[ ! -e "$d/io.stat" ] || n=$((n - $(cg_io "$d" "$1" wbytes)))
	done
	echo "$n"
}

# io_held LOOP-MODE BACKING-MODE: the same write in a cgroup without and in one with a limit. The
# first is fast, the second takes as long as the limit says; the disk below counts the bytes of each
# in its cgroup.
io_held() {
	local loop=$1 backing=$2 disk=$IO_DISK bytes=$((IO_WRITE << 20))
	local dd=() opts=() free held free_bytes held_bytes root least i

	[ "$loop" != direct ] || dd+=(oflag=direct)
	[ "$backing" != direct ] || opts+=(--direct-io=on)
	step "io: $IO_WRITE MiB through the loop device, $loop, backing file $backing"
	# A file and a device for each case and cgroup: the cgroup that dirties an inode first owns
	# its writeback for a while.
	for i in free held; do
		rm -f "$IO_DIR/$i"
		truncate -s $((IO_WRITE * 2))M "$IO_DIR/$i"
	done
	sync -f "$IO_DIR"
	attach "${opts[@]}" "$IO_DIR/free"
	IO_FREE_DEV=$LOOP
	attach "${opts[@]}" "$IO_DIR/held"
	if [ "$backing" = direct ]; then
		want "dio" "$(<"/sys/block/$L/loop/dio")" 1
	else
		io_own_writeback "$IO_FREE" "$IO_FREE_DEV"
		io_own_writeback "$IO_HELD" "$LOOP"
	fi

	free_bytes=$(cg_io "$IO_FREE" "$disk" wbytes)
	free=$(io_write "$IO_FREE" "$IO_FREE_DEV" "${dd[@]}")
	free_bytes=$(($(cg_io "$IO_FREE" "$disk" wbytes) - free_bytes))

	cg_limit_io "$IO_HELD" "$disk" wbps="$IO_RATE"
	held_bytes=$(cg_io "$IO_HELD" "$disk" wbytes)
	root=$(root_own_wbytes "$disk")
	i=$(cg_io "$IO_FREE" "$disk" wbytes)
	held=$(io_write "$IO_HELD" "$LOOP" "${dd[@]}")
	held_bytes=$(($(cg_io "$IO_HELD" "$disk" wbytes) - held_bytes))
	root=$(($(root_own_wbytes "$disk") - root))
	i=$(($(cg_io "$IO_FREE" "$disk" wbytes) - i))
	cg_limit_io "$IO_HELD" "$disk" wbps=max
	# The devices stay attached, so that the next case uses other devices.
	IO_LATER+=("$IO_FREE_DEV" "$LOOP")

	note "io         $loop, backing $backing: no limit $free ms, $(mib "$free_bytes");" \
	     "$(mib "$IO_RATE")/s: $held ms, $(mib "$held_bytes") in its io.stat," \
	     "root itself $(mib "$root"), the other $(mib "$i")"
	# The limit may take effect one throttle slice late.
	least=$((bytes * 850 / IO_RATE))
	want_ge "$loop/$backing: milliseconds with io.max" "$held" "$least"
	want_le "$loop/$backing: milliseconds without" "$free" $((least - 1))
	want_ge "$loop/$backing: bytes in io.stat" "$held_bytes" "$bytes"
	want_ge "$loop/$backing: bytes in io.stat without limit" "$free_bytes" "$bytes"
	# Less than one request of the write; the journal may have written something.
	want_le "$loop/$backing: bytes of root itself" "$root" $((bytes / 16))
	want_le "$loop/$backing: bytes of the other cgroup" "$i" $((bytes / 64))
}

# The kernel switches the writeback of an inode to the cgroup that dirtied most of it, after some
# rounds. The inode of a backing file starts with the root, since a kernel thread dirties it first.
io_own_writeback() {
	local cg=$1 dev=$2 i before

	for ((i = 0; i < 20; i++)); do
		before=$(cg_io "$cg" "$IO_DISK" wbytes)
		cg_run "$cg" dd if=/dev/zero of="$dev" bs=64k count=12 \
			conv=notrunc oflag=direct,dsync >/dev/null 2>&1
		if [ $(($(cg_io "$cg" "$IO_DISK" wbytes) - before)) -ge 786432 ]; then
			return 0
		fi
		sleep 0.1
	done
	fail "the writeback of $dev was not switched to its cgroup"
}

io_setup() {
	IO_HELD=$CGROOT/loop_rs-held
	IO_FREE=$CGROOT/loop_rs-free
	IO_LATER=()
	mkdir "$IO_HELD" "$IO_FREE"
	dd if=/dev/urandom of="$T/data" bs=1M count="$IO_WRITE" 2>/dev/null
	IO_DISK=$(disk_of "$IO_DIR") || fail "$IO_DIR is on no disk"
}

io_teardown() {
	local d

	for d in "${IO_LATER[@]}"; do
		detach "$d"
	done
	rm -f "$IO_DIR/free" "$IO_DIR/held"
	cg_remove "$IO_HELD"
	cg_remove "$IO_FREE"
}

# proof_io DIR: on ext4, xfs or btrfs, on a disk.
proof_io() {
	IO_DIR=$1
	io_setup
	io_held direct direct
	io_held buffered direct
	io_held direct buffered
	io_held buffered buffered
	io_teardown
}

#
# 4. Isolation
#

ISOLATION_SECONDS=10
ISOLATION_WIOPS=64

# beside CGROUP FIO-OPTIONS...: starts direct I/O on the loop device in the cgroup.
beside() {
	local cg=$1

	shift
	cg_run "$cg" fio --output=/dev/null --name=j --filename="$LOOP" --bs=4k --direct=1 \
		--ioengine=libaio --size=32M --time_based --runtime=600 "$@" &
}

# proof_isolation DIR: a cgroup reads while another one on its device is held by io.max. loop-top,
# if it is there, shows both in $T/picture.
proof_isolation() {
	local reader=$CGROOT/loop_rs-reader writer=$CGROOT/loop_rs-writer disk reads writes

	disk=$(disk_of "$1") || fail "$1 is on no disk"
	dd if=/dev/zero of="$1/shared" bs=1M count=64 conv=fsync 2>/dev/null
	attach --direct-io=on "$1/shared"
	mkdir "$reader" "$writer"
	cg_limit_io "$writer" "$disk" wiops=$ISOLATION_WIOPS
	step "isolation: $ISOLATION_SECONDS s of reads beside writes that io.max holds"
	beside "$writer" --rw=randwrite --offset=32M --iodepth=512
	beside "$reader" --rw=randread --iodepth=4
	sleep 5
	reads=$(cg_io "$reader" "$disk" rios)
	writes=$(cg_io "$writer" "$disk" wios)
	if [ -x "${LOOP_TOP:-}" ]; then
		"$LOOP_TOP" -1 -a -d $ISOLATION_SECONDS "$LOOP" >"$T/picture"
		cat "$T/picture"
	else
		sleep $ISOLATION_SECONDS
	fi
	reads=$((($(cg_io "$reader" "$disk" rios) - reads) / ISOLATION_SECONDS))
	writes=$((($(cg_io "$writer" "$disk" wios) - writes) / ISOLATION_SECONDS))
	echo "$disk wiops=max" >"$writer/io.max"
	echo 1 >"$reader/cgroup.kill"
	echo 1 >"$writer/cgroup.kill"
	wait
	note "isolation  $reads reads/s beside $writes writes/s, with a limit of $ISOLATION_WIOPS/s"
	detach
	rm "$1/shared"
	cg_remove "$reader"
	cg_remove "$writer"
	want_le "writes per second" "$writes" $((ISOLATION_WIOPS * 5 / 4))
	[ "$DRIVER" = loop ] || want_ge "reads per second" "$reads" $((ISOLATION_WIOPS * 4))
}
