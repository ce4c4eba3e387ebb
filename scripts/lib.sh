# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What the scripts share: sourced by each of them, not run.

set -euo pipefail

scripts=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
top=$(dirname "$scripts")
me=${0##*/}

# shellcheck source=scripts/config
. "$scripts/config"

export LC_ALL=C.UTF-8
umask 022

if [ -z "${HOME:-}" ]; then
	HOME=$(getent passwd "$(id -u)" | cut -d: -f6)
	export HOME=${HOME:-/root}
fi
cache=$(realpath -ms "${LOOP_RS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/loop_rs}")
export LOOP_RS_CACHE=$cache
export LOOP_RS_SERIES LOOP_RS_SUITE LOOP_RS_KERNEL_SUITE LOOP_RS_FLAVOUR LOOP_RS_CC LOOP_RS_LLVM

# Seconds of the first script of a run, so that nested ones count from there.
export LOOP_RS_T0=${LOOP_RS_T0:-$(date +%s)}

# A recipe's log should say where it ended.
case $0 in
*/products/*)
	set -E
	trap 'echo "$me: line $LINENO: failed: $BASH_COMMAND" >&2' ERR ;;
esac

say()
{
	local t=$(($(date +%s) - LOOP_RS_T0))

	printf '[%2d:%02d] %s\n' $((t / 60)) $((t % 60)) "$*" >&2
}

die()
{
	printf '%s: %s\n' "$me" "$*" >&2
	exit 1
}

need_root()
{
	[ "$(id -u)" = 0 ] || die "must be run as root (it makes a Debian root, and mounts in name spaces of its own)"
}

# Package lists: one name a line, # starts a comment.
read_list()
{
	sed 's/[[:space:]]*#.*//; /^[[:space:]]*$/d' "$@"
}

# --- products ---------------------------------------------------------------
#
# A product is a directory of the cache, NAME-KEY, where KEY is a hash of what
# it is made from.  scripts/products/NAME makes it:
#	inputs		prints what it is made from
#	needs		prints the products it is made of
#	space		prints the MiB it takes
#	make DIR	fills DIR
# It is made in NAME-KEY.tmp and renamed when complete, with NAME.lock held, so
# that what is under its name is always whole, and what is under .tmp while
# nobody holds the lock is left over.  Who uses one holds .in-use shared.

product_key()
{
	local recipe=$scripts/products/$1 dep

	{
		cat "$recipe"
		"$recipe" inputs
		for dep in $("$recipe" needs); do
			basename "$(product_dir "$dep")"
			cat "$(product_dir "$dep")/versions" 2>/dev/null || :
		done
	} | sha256sum | cut -c1-12
}

product_dir()
{
	local key

	key=$(product_key "$1")
	echo "$cache/$1-$key"
}

# product_use NAME VAR: the directory of a product that exists, held until this
# process and those it starts are gone.
product_use()
{
	local dir fd

	dir=$(product_dir "$1")
	exec {fd}<"$dir/.in-use" || die "$1 is missing from $cache: run scripts/setup"
	flock -s "$fd"
	[ "$dir/.in-use" -ef "/proc/$$/fd/$fd" ] || die "$1 was removed from $cache just now: run it again"
	printf -v "$2" %s "$dir"
}

# Progress of a product while the others are made at the same time.
product_name()
{
	case $1 in
	root)	echo "build root" ;;
	root-debug) echo "debug kernel's build root" ;;
	debs)	echo "kernel packages" ;;
	source)	echo "kernel source" ;;
	tree)	echo "kernel tree" ;;
	kernel)	echo "stock kernel" ;;
	guest)	echo "guest image" ;;
	debug-boot) echo "debug kernel's image" ;;
	debug)	echo "debug kernel" ;;
	*)	echo "$1" ;;
	esac
}

# root_mounts DIR [WHERE]: make DIR ready to chroot into.  Only in a mount name
# space of one's own.
root_mounts()
{
	local root=${2:-$1}

	mount --bind "$1" "$root"
	mount -t proc proc "$root/proc"
	mount --rbind /dev "$root/dev"
	mount -t tmpfs tmpfs "$root/tmp"
	mount -t tmpfs tmpfs "$root/run"
}

# in_chroot DIR COMMAND [ARGS]...: without what the environment of this run says.
in_chroot()
{
	local root=$1

	shift
	env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM="${TERM:-dumb}" LC_ALL=C.UTF-8 \
		TMPDIR=/tmp chroot "$root" sh -c 'cd / && exec "$@"' sh "$@"
}
