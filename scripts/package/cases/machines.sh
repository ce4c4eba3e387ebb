# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2016
#
# The machines from which cases start.

# Set by scripts/package/test: versions in the archive.
: "${release:=}" "${version:=}" "${stable:=}" "${before:=}" "${old:=}" "${newer:=}"

from_backports=trixie-backports

# install NAME PACKAGE...: installs packages, as a user does.
install()
{
	local machine=$1

	shift
	on "$machine" sh -ec 'apt-get -q update && exec apt-get -qy install --no-install-recommends "$@"' sh "$@"
}

# version_of NAME PACKAGE: the newest version in the archive.
version_of()
{
	on "$1" apt-cache show "$2" | sed -n 's/^Version: //p' | head -n 1
}

# The machine from which each of them is made.
# shellcheck disable=SC2034
declare -A made_from=([clean]=base [kernel]=clean [installed]=kernel [two_kernels]=installed)

make_clean()
{
	on "$1" sh -ec '
		rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*
		for dir in stable backports loop-rs; do
			echo "deb [trusted=yes] file:/archive/$dir ./"
		done >/etc/apt/sources.list
		mkdir -p /etc/systemd/system'
	# as initramfs-tools recommends
	install "$1" zstd
}

# With the kernel of backports and its headers.
make_kernel()
{
	install "$1" {linux-image-,linux-headers-}"$LOOP_RS_FLAVOUR/$from_backports"
	on "$1" test -e "/boot/initrd.img-$release"
}

# With loop_rs, which is installed first without the kernel's source: that must not fail.
make_installed()
{
	local t0

	on "$1" sh -c 'find / -xdev | sort >/root/before'
	install "$1" loop-rs-dkms openssl mokutil
	expect "install linux-source-$LOOP_RS_SERIES of version $version" on "$1" cat /var/lib/loop-rs/skipped
	on "$1" sh -c '[ -z "$(ls /lib/modules/*/updates 2>/dev/null)" ]'
	t0=$EPOCHSECONDS
	install "$1" "linux-source/$from_backports"
	echo "with the build: $((EPOCHSECONDS - t0)) s"
}

# Also with Debian's stable kernel, for which the module can't be built.
make_two_kernels()
{
	install "$1" "linux-image-$stable" "linux-headers-$stable"
}
