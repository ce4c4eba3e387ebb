#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Power cuts while files on a loop device are written and synced, or the device itself is written,
# zeroed and discarded. Afterwards both file systems, the one on the device and the one with the
# backing file, are clean, and all synced data is there.
#
# dm-log-writes logs the writes and flushes that reach the disk, in order. A cut is a copy of the
# disk that ends anywhere in this log: all entries up to the last flush, and a random part of the
# later ones, as with a disk that has a write cache.
#
#   CUTS        number of cuts in all (default and minimum 20; 40 on slow kernels)
#   CUTS_SEED   seed of the cuts, as printed by an earlier run (default: random); the log still
#               differs in details from run to run
#
# tier: long
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

CASES=10
CUTS=${CUTS:-$((SLOW > 1 ? 4 * CASES : 3 * CASES))}
# Each case has at least one cut of each kind.
[ "$CUTS" -ge $((3 * CASES)) ] || CUTS=$((3 * CASES))
CUTS_SEED=${CUTS_SEED:-$((SRANDOM % 32768))}
WRITERS=2
STEPS=16

# Size of the outer file system, at the start of the first disk. The second disk has the log, and
# behind it the exception store of a snapshot of the first disk.
SIZE=$((512 * 2048))

need_targets() {
	local t

	need_scratch
	[ -b "${SCRATCH_DEV2:-}" ] || skip "SCRATCH_DEV2 is not a block device"
	[ -n "$TARGETS" ] || skip "no device-mapper"
	for t in log-writes snapshot; do
		[[ $TARGETS == *"$t "* ]] || skip "no dm target $t"
	done
}

# outer_fs TYPE: creates and mounts a file system on the first disk.
outer_fs() {
	case $1 in
	f2fs)	wipefs -qa "$SCRATCH_DEV"
		mkfs.f2fs -fq "$SCRATCH_DEV" $SIZE >/dev/null
		mount -t f2fs -o noatime "$SCRATCH_DEV" "$T/fs" ;;
	*)	scratch_fs "$1" "$T/fs" "$SCRATCH_DEV" 512M ;;
	esac
}

# inner_fs TYPE: creates a file system on $LOOP; none for "none".
inner_fs() {
	case $1 in
	# Direct I/O may set another block size when the file is attached again.
	ext4)	mkfs.ext4 -qF -b 4096 -E lazy_itable_init=0,lazy_journal_init=0 \
			-J size=4 -N 256 "$LOOP" ;;
	xfs)	mkfs.xfs -qf "$LOOP" ;;
	esac
}

fsck() {
	case $1 in
	ext4)	e2fsck -fn "$2" ;;
	xfs)	xfs_repair -n "$2" ;;
	btrfs)	btrfs check --readonly "$2" ;;
	f2fs)	fsck.f2fs --dry-run "$2" ;;
	esac
}

# Makes a snapshot of the disk: writes to it do not change the disk.
snap() {
	dm_create loop_rs-snap "0 $SIZE snapshot $SCRATCH_DEV /dev/mapper/loop_rs-cow N 8"
}

# bring_up MAPPED OPTIONS, take_down: mount and unmount both file systems.
bring_up() {
	local opts=()

	[ "$MODE" = buffered ] || opts+=(--direct-io=on)
	# btrfs would mount the disk itself, which has the same UUID, as a newer device.
	[ "$OUTER" != btrfs ] || btrfs device scan --forget
	mount -t "$OUTER" -o "noatime$2" "/dev/mapper/$1" "$T/fs"
	attach "${opts[@]}" "$T/fs/file"
	want "direct I/O" "$(<"/sys/block/$L/loop/dio")" ${#opts[@]}
	[ "$INNER" = none ] || mount -t "$INNER" -o noatime "$LOOP" "$T/mnt"
}

take_down() {
	[ "$INNER" = none ] || umount "$T/mnt"
	detach
	umount "$T/fs"
}

# record OUTER MODE INNER [OPTIONS]: leaves the disk as before the start of the writers, their log
# in $SCRATCH_DEV2 and the list of its entries in $T/list.
record() {
	local disabled end i size=304M writers=()

	OUTER=$1 MODE=$2 INNER=$3
	need_targets
	mkdir -p "$T/fs" "$T/mnt"
	# Created once for all cases, removed at the end of the test.
	[ -b /dev/mapper/loop_rs-cow ] ||
		dm_create loop_rs-cow "0 $SIZE linear $SCRATCH_DEV2 $SIZE"
	outer_fs "$OUTER"
	# With holes, so that its own file system has metadata to sync. On f2fs, fsync() writes
	# nothing if the only changes since the last fsync(), within the same tick of the clock, are
	# extents that fallocate() freed, unless the size is no multiple of a page
	# (f2fs_skip_inode_update()).
	[ "$OUTER" != f2fs ] || size=$((304 * 1048576 + 512))
	truncate -s "$size" "$T/fs/file"
	attach "$T/fs/file"
	if [ "$INNER" = none ]; then
		for ((i = 0; i < WRITERS; i++)); do
			"$LIB_DIR/loop_cuts" fill "$LOOP" $i
		done
	else
		inner_fs "$INNER"
		mount "$LOOP" "$T/mnt"
		for ((i = 0; i < WRITERS; i++)); do
			mkdir "$T/mnt/$i"
		done
	fi
	take_down

	snap
	dm_create loop_rs-log "0 $SIZE log-writes /dev/mapper/loop_rs-snap $SCRATCH_DEV2"
	bring_up loop_rs-log "${4:-}"
	for ((i = 0; i < WRITERS; i++)); do
		if [ "$INNER" = none ]; then
			"$LIB_DIR/loop_cuts" change "$LOOP" $i $STEPS loop_rs-log &
		else
			"$LIB_DIR/loop_cuts" write "$T/mnt/$i" $i $STEPS loop_rs-log &
		fi
		writers+=($!)
	done
	for i in "${writers[@]}"; do
		wait "$i"
	done
	take_down
	read -r _ _ _ _ end disabled < <(dmsetup status loop_rs-log)
	want "the log is disabled" "$disabled" ""
	want_le "the log's end" "$end" "$SIZE"
	dm_remove loop_rs-log
	dm_remove loop_rs-snap
	"$LIB_DIR/loop_replay" list "$SCRATCH_DEV2" >"$T/list"
	[[ $(tail -n 1 "$T/list") == *dm-log-writes-end ]] || fail "the log has no end"
	want "marks" "$(grep -cE ' M .* [0-9]+-[0-9]+$' "$T/list")" $((WRITERS * STEPS))
	AT=0
}

# cut ENTRIES SEED: replays the first ENTRIES of the log. Sets LAST to the last mark of each writer.
# Cuts come in order.
cut() {
	local flushed

	read -r flushed LAST < <(awk -v cut="$1" -v writers=$WRITERS '
		$1 == cut { exit }
		$2 ~ /F/ { flushed = $1 + 1 }
		$2 == "M" && split($5, a, "-") == 2 { last[a[1]] = a[2] }
		END {
			printf "%d", flushed
			for (i = 0; i < writers; i++)
				printf " %d", (i in last) ? last[i] : -1
			print ""
		}' "$T/list")
	echo "the first $1 entries of $(wc -l <"$T/list"), $flushed of them flushed, marks: $LAST"
	if [ "$flushed" -gt "$AT" ]; then
		"$LIB_DIR/loop_replay" apply "$SCRATCH_DEV2" "$SCRATCH_DEV" \
			"$AT" "$flushed"
		AT=$flushed
	fi
	snap
	"$LIB_DIR/loop_replay" apply "$SCRATCH_DEV2" /dev/mapper/loop_rs-snap \
		"$flushed" "$1" "$2"
	bring_up loop_rs-snap ""
}

# Checks the data that was synced before the cut.
check_files() {
	local i=0 last

	for last in $LAST; do
		if [ "$INNER" = none ]; then
			"$LIB_DIR/loop_cuts" verify "$LOOP" $i "$last" || return
		else
			"$LIB_DIR/loop_cuts" check "$T/mnt/$i" $i "$last" || return
		fi
		i=$((i + 1))
	done
}

after_cut() {
	if [ "$INNER" != none ]; then
		umount "$T/mnt"
		fsck "$INNER" "$LOOP"
	fi
	detach
	umount "$T/fs"
	fsck "$OUTER" /dev/mapper/loop_rs-snap
	dm_remove loop_rs-snap
}

# The mark of a step of either writer that was synced by FUA only (see cuts/files.c).
FUA_MARK='^[0-9]+-(6|14)$'

# cuts NUMBER OUTER MODE INNER: the cuts of this case. Before the first cut each writer has synced
# data.
cuts() {
	local at i n first last steps=0 made=0
	local nr=$1

	record "$2" "$3" "$4"
	n=$(wc -l <"$T/list")
	first=$(awk -v writers=$WRITERS '
		$2 == "M" && split($5, a, "-") == 2 && !(a[1] in seen) {
			seen[a[1]] = 1
			if (++n == writers) {
				print $1 + 1
				exit
			}
		}' "$T/list")
	# Not in a subshell, in which the sequence would start again.
	RANDOM=$((CUTS_SEED + nr))
	for ((i = nr; i < CUTS; i += CASES)); do
		at=$((first + (RANDOM << 15 | RANDOM) % (n - first)))
		case $((i / CASES % 4)) in
		0)	# Right after a step that FUA alone made durable.
			[ "$INNER" = none ] || at=$(awk -v first="$first" -v mark="$FUA_MARK" -v nr=$RANDOM '
				$2 == "M" && $5 ~ mark && $1 >= first { at[n++] = $1 + 1 }
				END { print at[nr % n] }' "$T/list")
			;;
		1 | 3)	# Just before a flush, when the most data is not durable yet.
			at=$(awk -v at=$at '
				$1 >= at && $2 ~ /F/ { at = $1; exit }
				END { print at }' "$T/list")
			;;
		esac
		echo "$at $RANDOM"
	done >"$T/cuts"
	sort -n -o "$T/cuts" "$T/cuts"
	while read -r at i; do
		cut "$at" "$i"
		check_files
		after_cut
		for last in $LAST; do
			want_ge "the last step of a writer" "$last" 0
			steps=$((steps + last + 1))
		done
		made=$((made + 1))
	done <"$T/cuts"
	echo "$steps steps checked after $made cuts"
	want_ge "cuts" "$made" $((CUTS / CASES))
	# The cut after a FUA step comes after seven steps of its writer, and at least one of the
	# other writer.
	n=$((made * WRITERS))
	[ "$INNER" = none ] || n=$((n + 8 - WRITERS))
	want_ge "steps that were checked" "$steps" $n
}

# With barrier=0 the file system sends no flushes: cuts must lose data.
unflushed() {
	local at

	record ext4 buffered ext4 ,barrier=0
	at=$(awk '$2 == "M" && $5 ~ /^[0-9]+-[0-9]+$/ { at = $1 + 1 } END { print at }' "$T/list")
	cut "$at" 1
	want "marks" "$LAST" "$((STEPS - 1)) $((STEPS - 1))"
	want_error "lost:" check_files
	after_cut
}

modprobe -qa btrfs f2fs
test_begin $((CASES + 1))
modprobe -qa dm-log-writes dm-snapshot
TARGETS=$(dmsetup targets 2>/dev/null)
LIB_DMS+=(loop_rs-log loop_rs-snap loop_rs-cow)
need_driver
ktap_print_msg "$CUTS cuts, CUTS_SEED=$CUTS_SEED"

check "ext4 on a file on ext4, backing I/O buffered" cuts 0 ext4 buffered ext4
check "xfs on a file on ext4, backing I/O direct" cuts 1 ext4 direct xfs
check "xfs on a file on xfs, backing I/O buffered" cuts 2 xfs buffered xfs
check "ext4 on a file on xfs, backing I/O direct" cuts 3 xfs direct ext4
check "ext4 on a file on f2fs, backing I/O direct" cuts 4 f2fs direct ext4
check "ext4 on a file on btrfs, backing I/O buffered" cuts 5 btrfs buffered ext4
check "a file on ext4, zeroed and discarded, backing I/O direct" cuts 6 ext4 direct none
check "a file on xfs, zeroed and discarded, backing I/O buffered" cuts 7 xfs buffered none
check "a file on f2fs, zeroed and discarded, backing I/O buffered" cuts 8 f2fs buffered none
check "a file on btrfs, zeroed and discarded, backing I/O direct" cuts 9 btrfs direct none
check "without flushes synced data is lost" unflushed

test_end
