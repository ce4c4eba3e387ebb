# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2016
#
# Kernels for which the module can't be built: the installation of the kernel must succeed.

case_skip_stable_kernel()
{
	made two_kernels make_two_kernels installed
	new_machine skip-stable two_kernels
	expect "$stable is built without CONFIG_RUST" on skip-stable cat /var/lib/loop-rs/skipped
	on skip-stable test -e "/boot/initrd.img-$stable"
	expect_not loop_rs on skip-stable lsinitramfs "/boot/initrd.img-$stable"
	expect "$release: /lib/modules/$release/updates/dkms/loop_rs.ko" on skip-stable loop-rs status
}

# A kernel of a newer series. The archive has none: a kernel of the archive gets another name.
case_skip_other_series()
{
	local other=8.0.1+deb13-$LOOP_RS_FLAVOUR

	made installed make_installed kernel
	new_machine skip-series installed
	on skip-series bash -ec '
		mkdir /var/tmp/other && cd /var/tmp/other
		from=${1%%+*} to=${2%%+*}
		for deb in /archive/backports/linux-{image,binary,modules,base,headers}-"$1"_*.deb \
				/archive/backports/linux-{headers,kbuild}-"${1%-*}"*_*.deb; do
			[ ! -e "new-${deb##*/}" ] || continue
			dpkg-deb -R "$deb" dir
			grep -rlIF "$from" dir | xargs -r sed -i "s/${from//./\\.}/$to/g"
			find dir -type l -lname "*$from*" | while read -r link; do
				target=$(readlink "$link")
				ln -sfn "${target//"$from"/"$to"}" "$link"
			done
			find dir -depth -name "*$from*" | while read -r file; do
				name=${file##*/}
				mv "$file" "${file%/*}/${name//"$from"/"$to"}"
			done
			dpkg-deb -Znone -b dir "new-${deb##*/}" >/dev/null
			rm -rf dir
		done
		dpkg -i new-*.deb
		rm -r /var/tmp/other' bash "$old" "$other"
	expect "$other: this version of loop_rs is for kernels from" on skip-series cat /var/lib/loop-rs/skipped
	on skip-series test -e "/boot/initrd.img-$other"
	expect_not loop_rs on skip-series lsinitramfs "/boot/initrd.img-$other"
	on skip-series apt-get -qy purge "linux-image-$other" "linux-headers-$other" "linux-modules-$other" "linux-binary-$other" "linux-base-$other"
	expect_not "$other" on skip-series sh -c "cat /var/lib/loop-rs/skipped || :"
}

# A kernel without headers.
case_skip_no_headers()
{
	made installed make_installed kernel
	new_machine no-headers installed
	install no-headers "linux-image-$newer/$from_backports"
	expect "$newer: the headers of $newer are missing: install linux-headers-$newer" on no-headers loop-rs status
	on no-headers test -e "/boot/initrd.img-$newer"
	expect_not loop_rs on no-headers lsinitramfs "/boot/initrd.img-$newer"
	# Headers without the source of that version.
	install no-headers "linux-headers-$newer/$from_backports"
	expect "$newer: the headers of $newer have no Rust metadata" on no-headers loop-rs status
	expect_not "$release: " on no-headers sh -c "cat /var/lib/loop-rs/skipped || :"
}

case_skip_other_rustc()
{
	made kernel make_kernel clean
	new_machine skip-rustc kernel
	install skip-rustc loop-rs-dkms "linux-source/$from_backports" \
		rustc/trixie-backports rust-src/trixie-backports
	expect "was built with rustc 1.85.1" on skip-rustc loop-rs status
	expect "install rustc and rust-src of version 1.85.1" on skip-rustc cat /var/lib/loop-rs/skipped
	expect "status 77" on skip-rustc sh -c "dkms build -m loop-rs -v 0.1 -k $release; echo status \$?"
}

# A built module stays when its compiler is upgraded, or its headers are removed.
case_built_module_stays()
{
	made installed make_installed kernel
	new_machine stays installed
	install stays rustc/trixie-backports rust-src/trixie-backports
	expect "updates/dkms/loop_rs.ko" on stays loop-rs status
	on stays apt-get -qy purge "linux-headers-$release"
	on stays loop-rs update
	expect "updates/dkms/loop_rs.ko" on stays loop-rs status
}

# A source that doesn't compile: only the build of the module fails.
case_failed_build()
{
	made installed make_installed kernel
	new_machine fails installed
	on fails sh -c 'echo "fn broken(" >>/usr/src/loop-rs-0.1/drivers/block/loop_rs/loop_rs_main.rs'
	on fails loop-rs update --force "$release"
	expect "$release: building failed" on fails cat /var/lib/loop-rs/skipped
	expect "error" on fails cat "/var/lib/loop-rs/log/$release"
	on fails apt-get -qy install --reinstall --no-install-recommends \
		"linux-headers-$release/$from_backports" "linux-image-$release/$from_backports"
	expect "$release: building failed" on fails cat /var/lib/loop-rs/skipped
	expect_not loop_rs on fails lsinitramfs "/boot/initrd.img-$release"
}

# A new Debian revision of the kernel, whose release name stays.
case_debian_revision()
{
	made installed make_installed kernel
	new_machine revision installed
	# All installed packages of that version.
	on revision sh -ec 'mkdir -p /var/tmp/new && cd /var/tmp/new
		for p in $(dpkg-query -W -f "\${Package} \${Version}\n" | awk -v v="$1" "\$2 == v { print \$1 }"); do
			deb=$(ls /archive/backports/"$p"_*.deb)
			dpkg-deb -R "$deb" dir
			sed -i "s/${1}/${1}+b2/g" dir/DEBIAN/control
			dpkg-deb -Znone -b dir "$p.deb" >/dev/null
			rm -rf dir
		done' sh "$version"
	expect "$release: /lib/modules" on revision loop-rs status
	on revision sh -c 'dpkg -i $(ls /var/tmp/new/*.deb | grep -v linux-source)'
	expect "install linux-source-$LOOP_RS_SERIES of version $version+b2" on revision cat /var/lib/loop-rs/skipped
	expect_not "updates/dkms/loop_rs" on revision sh -c "find /lib/modules/$release/updates || :"
	on revision sh -c 'dpkg -i /var/tmp/new/linux-source*.deb'
	expect "$release: /lib/modules/$release/updates/dkms/loop_rs.ko" on revision loop-rs status
	expect "files: 1." on revision sh -c 'echo "files: $(ls /var/cache/loop-rs | wc -l)."'
}
