# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Functions and variables that the scripts share.  Each script sources this file.

set -euo pipefail

scripts=$(cd "${BASH_SOURCE[0]%/*}" && pwd -P)
top=${scripts%/*}
me=${0##*/}

# shellcheck source=scripts/config
. "$scripts/config"

export LC_ALL=C.UTF-8
umask 022

if [ -z "${HOME:-}" ]; then
	HOME=$(getent passwd "$EUID" | cut -d: -f6)
	export HOME=${HOME:-/root}
fi
cache=$(realpath -ms "${LOOP_RS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/loop_rs}")
export LOOP_RS_CACHE=$cache
export LOOP_RS_SERIES LOOP_RS_SUITE LOOP_RS_KERNEL_SUITE LOOP_RS_ARCH LOOP_RS_FLAVOUR
export LOOP_RS_CC LOOP_RS_LLVM

# The prefix of tools for the kernel's architecture, the arguments of make for them, and cargo's
# target, which is empty for programs of the host's architecture.
case $LOOP_RS_ARCH in
amd64)	cross='' toolchain=() cargo_target='' ;;
arm64)	cross=aarch64-linux-gnu- toolchain=(ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu-)
	cargo_target=aarch64-unknown-linux-gnu ;;
*)	printf '%s: LOOP_RS_ARCH is amd64 or arm64, not %s\n' "$me" "$LOOP_RS_ARCH" >&2
	exit 1 ;;
esac
toolchain+=("CC=$cross$LOOP_RS_CC" "HOSTCC=$LOOP_RS_CC")

# The start time of the first script: nested scripts count from there.
export LOOP_RS_T0=${LOOP_RS_T0:-$EPOCHSECONDS}

# The log of a recipe shows where it failed.
case $0 in
*/products/*)
	set -E
	trap 'echo "$me: line $LINENO: failed: $BASH_COMMAND" >&2' ERR ;;
esac

say()
{
	local t=$((EPOCHSECONDS - LOOP_RS_T0))

	printf '[%2d:%02d] %s\n' $((t / 60)) $((t % 60)) "$*" >&2
}

die()
{
	printf '%s: %s\n' "$me" "$*" >&2
	exit 1
}

need_root()
{
	[ "$EUID" = 0 ] || die "must be run as root (it makes a Debian root, and mounts in namespaces of its own)"
}

# read_list FILE...: prints the names in package lists: one on each line, # starts a comment, @CC@
# and @LLVM@ stand for the versions of the compilers.
read_list()
{
	sed "s/[[:space:]]*#.*//; /^[[:space:]]*\$/d; s/@CC@/$LOOP_RS_CC/; s/@LLVM@/$LOOP_RS_LLVM/" "$@"
}

# --- products ---------------------------------------------------------------
#
# A product is a directory of the cache, NAME-KEY, where KEY is a hash of
# its inputs.  scripts/products/NAME DIR fills it; its head has
#	# name:		its name in messages
#	# space:	its size in MiB
#	# needs:	the products that it is made from
#	# from:		the files of scripts/ that it is made from, besides itself
#	# vars:		the variables of scripts/config that it depends on
# It is made in NAME-KEY.tmp and renamed when complete, with NAME.lock held:
# NAME-KEY is always complete, and a .tmp without a lock holder is left over from a killed run.
# Users of a product hold .in-use shared.  Its .vars has the variables, also of the products that
# it needs: a new product replaces an old one with the same variables.

declare -A product_name product_space product_needs product_from product_vars product_dirs
declare -A product_all_vars

product_head()
{
	local line

	[ -z "${product_name[$1]:-}" ] || return 0
	[ -x "$scripts/products/$1" ] || die "there is no product $1 (see scripts/setup --help)"
	while read -r line; do
		case $line in
		"# name: "*)	product_name[$1]=${line#*: } ;;
		"# space: "*)	product_space[$1]=${line#*: } ;;
		"# needs: "*)	product_needs[$1]=${line#*: } ;;
		"# from: "*)	product_from[$1]=${line#*: } ;;
		"# vars: "*)	product_vars[$1]=${line#*: } ;;
		"")		break ;;
		esac
	done <"$scripts/products/$1"
}

# product_dir NAME: sets REPLY to its directory.
product_dir()
{
	local text='' word vars='' files=("$scripts/products/$1")

	product_head "$1"
	REPLY=${product_dirs[$1]:-}
	[ -z "$REPLY" ] || return 0
	for word in ${product_needs[$1]:-}; do
		product_dir "$word"
		text+="${REPLY##*/} "
		vars+=" ${product_all_vars[$word]}"
		# the version of the newest kernel of the series is no part of a key
		[ ! -e "$REPLY/versions" ] || text+=$(<"$REPLY/versions")
	done
	for word in ${product_from[$1]:-}; do
		files+=("$scripts/$word")
	done
	for word in ${product_vars[$1]:-}; do
		text+="$word=${!word} "
		vars+=" $word=${!word}"
	done
	# shellcheck disable=SC2086 # words
	product_all_vars[$1]=$(printf '%s\n' $vars | sort -u)
	REPLY=$({ echo "$text"; cat "${files[@]}"; } | sha256sum)
	REPLY=$cache/$1-${REPLY:0:12}
	product_dirs[$1]=$REPLY
}

product_path()
{
	product_dir "$1"
	echo "$REPLY"
}

# product_use NAME VAR: sets VAR to the directory of an existing product, which is
# in use until this process and its children have ended.
product_use()
{
	local fd

	product_dir "$1"
	{ exec {fd}<"$REPLY/.in-use"; } 2>/dev/null || die "the ${product_name[$1]} is missing from $cache: run scripts/setup"
	flock -s "$fd"
	[ "$REPLY/.in-use" -ef "/proc/$$/fd/$fd" ] || die "the ${product_name[$1]} was removed from $cache just now: run this again"
	printf -v "$2" %s "$REPLY"
}

# recorded KEY DIR: the lines KEY=... of DIR/versions, without the key.
recorded()
{
	sed -n "s/^$1=//p" "$2/versions"
}

# root_mounts DIR [WHERE]: mounts DIR at WHERE for a chroot.  The caller must have a mount namespace
# of its own.
root_mounts()
{
	local root=${2:-$1}

	mount --bind "$1" "$root"
	mount -t proc proc "$root/proc"
	mount --rbind /dev "$root/dev"
	mount -t tmpfs tmpfs "$root/tmp"
	mount -t tmpfs tmpfs "$root/run"
}

# in_chroot DIR COMMAND [ARGS]...: runs COMMAND in DIR with a clean environment.
in_chroot()
{
	local root=$1

	shift
	env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM="${TERM:-dumb}" LC_ALL=C.UTF-8 \
		TMPDIR=/tmp chroot "$root" sh -c 'cd / && exec "$@"' sh "$@"
}
