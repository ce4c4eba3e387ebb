# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034
#
# Cgroups (version 2). Sourced by lib.sh.

# Prints a reason to skip, or nothing.
cg_missing() {
	local c

	[ -r "$CGROOT/cgroup.controllers" ] || { echo "no cgroup2 at $CGROOT"; return; }
	for c in memory io; do
		grep -qw "$c" "$CGROOT/cgroup.subtree_control" ||
		echo "+$c" 2>/dev/null >"$CGROOT/cgroup.subtree_control" ||
		echo "no $c controller in $CGROOT"
	done
}

# cg_create NAME: creates a cgroup below the root; prints its directory.
cg_create() {
	local cg="$CGROOT/$1"

	mkdir "$cg" || return
	echo "$cg"
}

# cg_remove DIR: kills its processes and removes it.
cg_remove() {
	local i d

	[ -d "$1" ] || return 0
	[ ! -w "$1/cgroup.kill" ] || echo 1 >"$1/cgroup.kill"
	for ((i = 0; i < 100 * SLOW; i++)); do
		for d in "$1"/*/; do
			[ ! -d "$d" ] || rmdir "$d" 2>/dev/null
		done
		rmdir "$1" 2>/dev/null && return 0
		[ -d "$1" ] || return 0
		sleep 0.05
	done
	echo "$1 is busy"
	return 1
}

# cg_run DIR COMMAND...: runs the command in that cgroup.
cg_run() {
	local cg=$1

	shift
	# $$ is the pid of the new shell, which becomes the command.
	bash -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$cg" "$@"
}

# cg_limit_io DIR MAJ:MIN LIMIT: sets io.max for that disk.
cg_limit_io() {
	# First some I/O: if the blkg of the cgroup and the disk does not exist yet,
	# blkg_conf_prep() allocates it, and that may reclaim memory under a lock that is also taken
	# while the disk is frozen. lockdep reports that and turns itself off.
	cg_run "$1" dd if="/dev/$(basename "$(readlink "/sys/dev/block/$2")")" of=/dev/null \
		bs=4k count=1 iflag=direct status=none
	echo "$2 $3" >"$1/io.max"
}

# cg_stat DIR FILE KEY: a value of a flat keyed file, 0 without the key.
cg_stat() {
	local key value

	while read -r key value; do
		[ "$key" != "$3" ] || break
	done <"$1/$2"
	echo "${value:-0}"
}

# cg_io DIR MAJ:MIN KEY: a value of io.stat, 0 if the device is not in it.
cg_io() {
	awk -v d="$2" -v k="$3" '
		$1 == d {
			for (i = 2; i <= NF; i++)
				if (split($i, a, "=") == 2 && a[1] == k)
					n = a[2]
		}
		END { print n + 0 }' "$1/io.stat"
}
