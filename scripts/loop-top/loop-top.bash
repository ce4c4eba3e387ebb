# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Completion of loop-top for bash.

_loop_top()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
	local columns="iops bytes reads writes latency waiting in-flight deferred held worker idle name
		read-bytes write-bytes inline discards flushes fallbacks"
	local options="--once --json --prometheus --output --delay --count --sort --reverse --cgroup
		--active --totals --flat --root --schema --columns --help --version"
	local words dir

	case $prev in
	-s|--sort)	words=$columns ;;
	-d|--delay)	words="0.5 1 2 5 10" ;;
	-n|--count)	return ;;
	-o|--output)	mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
	--root)		mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
	-g|--cgroup)	words=$(cut -s -d ' ' -f 1 /sys/kernel/debug/loop_rs/*/workers 2>/dev/null | sort -u) ;;
	*)
		words=$options
		if [[ $cur != -* ]]; then
			words=
			for dir in /sys/block/loop*/loop/; do
				[ ! -d "$dir" ] || words+=" $(basename "$(dirname "$dir")")"
			done
			[[ $cur != /dev/* ]] || words=${words// / /dev/}
		fi ;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}

complete -F _loop_top loop-top
