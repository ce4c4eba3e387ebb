# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# The host's apt, on a configuration of its own: what the host says about
# getting at its mirror (proxy, certificates, retries), and nothing else of it.

# The Debian mirror of the host: where it gets its own release from.  Or Debian's.
apt_mirror()
{
	local uri codename

	codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
	uri=${LOOP_RS_MIRROR:-$(
		shopt -s nullglob
		awk -v codename="$codename" '
			/^deb[ \t]/ {
				sub(/\[[^]]*\]/, "")
				if ($3 == codename)
					print $2
			}' /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null
		awk -v codename="$codename" '
			function stanza() {
				if (" " suites " " ~ " " codename " ")
					print uris
				suites = uris = ""
			}
			/^[ \t]*$/ { stanza() }
			/^Suites:/ { sub(/^Suites:[ \t]*/, ""); suites = $0 }
			/^URIs:/ { uris = $2 }
			END { stanza() }' /dev/null /etc/apt/sources.list.d/*.sources
	)}
	uri=$(grep -m 1 -E '^https?:' <<<"$uri" || :)
	echo "${uri:-http://deb.debian.org/debian}"
}

apt_sources()
{
	local suite signed=/usr/share/keyrings/debian-archive-keyring.gpg

	[ -e "$signed" ] && signed="[signed-by=$signed] " || signed=
	for suite in "$@"; do
		echo "deb $signed$(apt_mirror) $suite main"
	done
}

# What may be put in mmdebstrap's hands too.
apt_conf()
{
	apt-config dump |
		sed -nE '/^Acquire::(IndexTargets|GzipIndexes|Languages|Changelogs|Retries|CompressionTypes)/d; /^Acquire::/p'
	cat <<-EOF
	Acquire::Retries "3";
	Acquire::Languages "none";
	Acquire::http::Timeout "30";
	Acquire::https::Timeout "30";
	APT::Install-Recommends "false";
	APT::Sandbox::User "root";
	Dir::Etc::netrc "/etc/apt/auth.conf";
	Dir::Etc::netrcparts "/etc/apt/auth.conf.d";
	EOF
}

# apt_private DIR SUITE: an apt of our own under DIR, by way of APT_CONFIG, for the
# kernel's architecture.
apt_private()
{
	local dir=$1

	mkdir -p "$dir/empty" "$dir/lists/partial" "$dir/cache/archives/partial"
	: >"$dir/status"
	apt_sources "$2" >"$dir/sources.list"
	{
		apt_conf
		cat <<-EOF
		APT::Architecture "$LOOP_RS_ARCH";
		APT::Architectures "$LOOP_RS_ARCH";
		Dir::State::lists "$dir/lists";
		Dir::State::status "$dir/status";
		Dir::Cache "$dir/cache";
		Dir::Etc::sourcelist "$dir/sources.list";
		Dir::Etc::sourceparts "$dir/empty";
		Dir::Etc::main "$dir/empty/none";
		Dir::Etc::parts "$dir/empty";
		EOF
	} >"$dir/apt.conf"
	export APT_CONFIG=$dir/apt.conf
}

# debian_root DIR LIST...: a Debian of the suite with the packages of the LISTs.
debian_root()
{
	local dir=$1 packages tmp=$1.apt

	shift
	apt_conf >"$tmp"
	packages=$(read_list "$@" | paste -sd,)
	TMPDIR=${dir%/*} mmdebstrap --mode=root --variant=essential \
		"--architectures=amd64$([[ $packages != *:arm64* ]] || echo ,arm64)" \
		--skip=output/dev,output/mknod \
		--aptopt="$tmp" \
		--dpkgopt=force-unsafe-io \
		--dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/info/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' \
		--dpkgopt='path-exclude=/usr/share/doc/*' \
		--dpkgopt='path-include=/usr/share/doc/*/copyright' \
		--include="$packages" \
		"$LOOP_RS_SUITE" "$dir" - < <(apt_sources "$LOOP_RS_SUITE")
	rm -f "$tmp" "$dir/etc/apt/apt.conf.d/99mmdebstrap"
}

# build_root_dirs DIR: where scripts/in-root puts things, and what there is.
build_root_dirs()
{
	mkdir -p "$1/root"/{loop_rs,kernel,results,guest,vm,share}
	in_chroot "$1/root" dpkg-query -W -f '${Package} ${Version}\n' >"$1/packages"
}
