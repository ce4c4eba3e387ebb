# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2016
#
# The cases of scripts/package/test, in the order in which they run.

# Set by scripts/package/test, from the versions of the archive.
: "${release:=}" "${version:=}" "${stable:=}" "${before:=}" "${old:=}" "${newer:=}"

from_backports=trixie-backports

# install NAME PACKAGE...: as a user does.
install()
{
	local machine=$1

	shift
	on "$machine" sh -ec 'apt-get -q update && exec apt-get -qy install --no-install-recommends "$@"' sh "$@"
}

# version_of NAME PACKAGE: the newest in the archive.
version_of()
{
	on "$1" apt-cache show "$2" | sed -n 's/^Version: //p' | head -n 1
}

# The machines that cases start from.
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

# A user with the kernel of backports, and its headers.
make_kernel()
{
	install "$1" {linux-image-,linux-headers-}"$LOOP_RS_FLAVOUR/$from_backports"
	on "$1" test -e "/boot/initrd.img-$release"
}

# Without the kernel's source at first, which installs all the same; then with it.
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

# With Debian's own kernel beside it, for which the module can't be built.
make_two_kernels()
{
	install "$1" "linux-image-$stable" "linux-headers-$stable"
}

# --- installation -----------------------------------------------------------

case_install()
{
	made installed make_installed kernel
	new_machine install installed
	expect "$release: /lib/modules/$release/updates/dkms/loop_rs.ko" on install loop-rs status
	expect "loop-rs/" on install dkms status
	expect "updates/dkms/loop_rs.ko" on install lsinitramfs "/boot/initrd.img-$release"
	expect "modprobe.d/loop-rs.conf" on install lsinitramfs "/boot/initrd.img-$release"
	expect "sig_key" on install sh -c "modinfo -k $release loop_rs; echo sig_key: \$(modinfo -k $release -F sig_key loop_rs)"
	expect "DKMS module signing key" on install modinfo -k "$release" -F signer loop_rs
	# At most 100 MiB are kept for a kernel.
	on install bash -ec 'mb=$(du -cm /var/cache/loop-rs /var/lib/loop-rs /var/lib/dkms/loop-rs | tail -n 1 | cut -f1)
		echo "kept: $mb MiB"; [ "$mb" -le 100 ]
		[ -z "$(ls /var/tmp)" ]'
	expect_not "loop-rs" on install sh -c 'dpkg --audit'
	# the lock, the order and the key: nothing is to be done now
	expect_not building on install loop-rs update
}

# A build without cached metadata takes at most 90 s of two CPUs and 2 GiB. The time of others on
# this machine doesn't count.
case_build_cost()
{
	made installed make_installed kernel
	new_machine cost installed
	on cost bash -ec '
		used() { du -cm /tmp /var/tmp /var/cache/loop-rs /var/lib/loop-rs /var/lib/dkms 2>/dev/null | tail -n 1 | cut -f1; }
		rm -r /var/cache/loop-rs
		before=$(used) most=0
		TIMEFORMAT="%R %U %S"
		{ time loop-rs update --force --no-initramfs "$1" >/root/update.log; } 2>/root/time &
		while [ -n "$(jobs -r)" ]; do
			now=$(used)
			[ "$now" -le "$most" ] || most=$now
			sleep 1
		done
		read -r real user system <<<"$(tail -n 1 /root/time)"
		cat /root/update.log "/var/lib/dkms/loop-rs/0.1/$1/x86_64/log/make.log"
		mb=$((most - before)) cpu=$(awk "BEGIN { print int($user + $system) }")
		echo "built in $real s, with $cpu s of CPU time; $mb MiB of disk meanwhile"
		[ -e "/lib/modules/$1/updates/dkms/loop_rs.ko.xz" ]
		[ "$mb" -gt 50 ] && [ "$mb" -le 2048 ]
		[ "$cpu" -gt 10 ] && [ "$cpu" -le 180 ]' bash "$release"
}

# The program that shows the counters is a package of its own.
case_loop_top()
{
	made clean make_clean base
	new_machine loop-top clean
	install loop-top loop-top
	expect_not loop-rs on loop-top dpkg-query -W
	expect "/dev/loop0" on loop-top loop-top --help
	expect "STATISTICS" on loop-top sh -c 'zcat /usr/share/man/man1/loop-top.1.gz; apt-get -qy install loop-rs-common >/dev/null; zcat /usr/share/man/man4/loop_rs.4.gz'
	expect "complete -F _loop_top loop-top" on loop-top cat /usr/share/bash-completion/completions/loop-top
}

case_modules_package()
{
	made kernel make_kernel clean
	new_machine modules kernel
	install modules "loop-rs-modules-$release"
	expect "updates/loop-rs/loop_rs.ko" on modules modinfo -k "$release" -F filename loop_rs
	expect "updates/loop-rs/loop_rs.ko" on modules lsinitramfs "/boot/initrd.img-$release"
	# DKMS has nothing to build then
	install modules loop-rs-dkms
	expect "updates/loop-rs/loop_rs.ko" on modules loop-rs status
	on modules apt-get -qy purge "loop-rs-modules-$release"
	expect_not loop_rs on modules lsinitramfs "/boot/initrd.img-$release"
}

# make install and make uninstall, on a machine with the compilers.
case_make_install()
{
	made installed make_installed kernel
	new_machine make-install installed
	on make-install sh -ec 'mkdir /root/loop_rs && cp -r /checkout/Makefile /checkout/Kconfig \
		/checkout/drivers /checkout/rust /checkout/scripts /root/loop_rs'
	on make-install apt-get -qy purge loop-rs-dkms loop-rs-common
	on make-install /root/loop_rs/scripts/package/install "$release"
	expect "updates/loop_rs.ko" on make-install modinfo -k "$release" -F filename loop_rs
	expect "install /sbin/modprobe --quiet loop_rs" on make-install modprobe -S "$release" --show-depends loop
	on make-install /root/loop_rs/scripts/package/install --uninstall "$release"
	expect_not loop_rs on make-install sh -c "modinfo -k $release -F filename loop_rs 2>/dev/null; find /lib/modules /usr/local"
	expect "kernel/drivers/block/loop.ko" on make-install modprobe -S "$release" --show-depends loop
}

case_dracut()
{
	made installed make_installed kernel
	new_machine dracut installed
	install dracut dracut
	on dracut dracut --no-hostonly --force /boot/test.img "$release"
	expect "loop_rs.ko" on dracut lsinitrd /boot/test.img
	expect "loop-rs.conf" on dracut lsinitrd /boot/test.img
	expect "/block/loop.ko" on dracut lsinitrd /boot/test.img
}

# --- kernels for which it can't be built: the upgrade succeeds --------------

case_skip_stable_kernel()
{
	made two_kernels make_two_kernels installed
	new_machine skip-stable two_kernels
	expect "$stable is built without CONFIG_RUST" on skip-stable cat /var/lib/loop-rs/skipped
	on skip-stable test -e "/boot/initrd.img-$stable"
	expect_not loop_rs on skip-stable lsinitramfs "/boot/initrd.img-$stable"
	expect "$release: /lib/modules/$release/updates/dkms/loop_rs.ko" on skip-stable loop-rs status
}

# The archive has no kernel of a series that is too new: one of its kernels gets another name.
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
	expect_not "$other" on skip-series cat /var/lib/loop-rs/skipped
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
	# headers of it, and not yet their source
	install no-headers "linux-headers-$newer/$from_backports"
	expect "$newer: the headers of $newer have no Rust metadata" on no-headers loop-rs status
	expect_not "$release: " on no-headers cat /var/lib/loop-rs/skipped
}

case_skip_other_rustc()
{
	made kernel make_kernel clean
	new_machine skip-rustc kernel
	install skip-rustc loop-rs-dkms "linux-source/$from_backports" \
		rustc/trixie-backports rust-src/trixie-backports
	expect "was built with rustc 1.85.1" on skip-rustc loop-rs status
	expect "install rustc and rust-src of version 1.85.1" on skip-rustc cat /var/lib/loop-rs/skipped
	expect "77" on skip-rustc sh -c "dkms build -m loop-rs -v 0.1 -k $release; echo \$?"
}

# A module that was built goes on when its compiler is upgraded, or its headers are removed.
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

# A source that doesn't compile: nothing fails but the build.
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

# Another Debian revision of the kernel, under the same release name.
case_debian_revision()
{
	made installed make_installed kernel
	new_machine revision installed
	# all packages of that version which are installed
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
	expect_not "updates/dkms/loop_rs" on revision sh -c "find /lib/modules/$release/updates"
	on revision sh -c 'dpkg -i /var/tmp/new/linux-source*.deb'
	expect "$release: /lib/modules/$release/updates/dkms/loop_rs.ko" on revision loop-rs status
	expect "1" on revision sh -c 'ls /var/cache/loop-rs | wc -l'
}

# --- upgrades of the kernel -------------------------------------------------

# All in one command, in apt's order; then the next point release, then the next series.
case_upgrade()
{
	local kernel

	made clean make_clean base
	new_machine upgrade clean
	install upgrade loop-rs-dkms openssl "linux-image-$old/$from_backports" "linux-headers-$old/$from_backports" \
		"linux-source-$before=$(version_of upgrade "linux-image-$old")"
	expect "$old: /lib/modules/$old/updates/dkms/loop_rs.ko" on upgrade loop-rs status
	install upgrade "linux-image-$newer/$from_backports" "linux-headers-$newer/$from_backports" \
		"linux-source-$before=$(version_of upgrade "linux-image-$newer")"
	expect "$newer: /lib/modules/$newer/updates/dkms/loop_rs.ko" on upgrade loop-rs status
	install upgrade {linux-image-,linux-headers-}"$LOOP_RS_FLAVOUR/$from_backports" "linux-source/$from_backports"
	for kernel in "$old" "$newer" "$release"; do
		expect "$kernel: /lib/modules/$kernel/updates/dkms/loop_rs.ko" on upgrade loop-rs status
		expect "updates/dkms/loop_rs.ko" on upgrade lsinitramfs "/boot/initrd.img-$kernel"
	done
	on upgrade test ! -s /var/lib/loop-rs/skipped
	boot upgrade "$newer" <<-'EOT'
		uname -r
		truncate -s 16M /root/image
		losetup -f --show /root/image
		test -d /sys/module/loop_rs
	EOT
}

# --- removal ----------------------------------------------------------------

case_kernel_removed()
{
	made installed make_installed kernel
	new_machine kernel-removed installed
	on kernel-removed apt-get -qy purge "linux-image-$release" "linux-headers-$release" \
		"linux-modules-$release" "linux-binary-$release" "linux-base-$release"
	expect_not "$release" on kernel-removed sh -c 'ls /var/cache/loop-rs /var/lib/loop-rs/* /lib/modules; cat /var/lib/loop-rs/skipped'
	expect_not "$release" on kernel-removed dkms status
}

case_purge()
{
	made installed make_installed kernel
	new_machine purge installed
	on purge apt-get -qy remove loop-rs-dkms loop-rs-common
	expect_not loop_rs on purge lsinitramfs "/boot/initrd.img-$release"
	on purge apt-get -qy purge loop-rs-dkms loop-rs-common
	expect_not loop on purge sh -c 'find / -xdev | sort | comm -13 /root/before - | grep -E "/[^/]*loop[-_]rs"'
	expect_not updates on purge sh -c 'ls /lib/modules/*'
}

# --- a running kernel -------------------------------------------------------

case_boot()
{
	made installed make_installed kernel
	new_machine boot installed
	install boot squashfs-tools systemd-container loop-top
	# a mount unit of a squashfs, as snapd has them, and an image for nspawn
	on boot sh -ec 'mkdir -p /root/snap /snap/test /var/lib/machines
		echo hello >/root/snap/file
		mksquashfs /root/snap /var/lib/test.snap -quiet -no-progress
		printf "[Mount]\nWhat=/var/lib/test.snap\nWhere=/snap/test\nType=squashfs\nOptions=ro\n[Install]\nWantedBy=multi-user.target\n" \
			>/etc/systemd/system/snap-test.mount
		mkdir -p /etc/systemd/system/default.target.wants
		ln -s ../snap-test.mount /etc/systemd/system/default.target.wants/
		mkdir -p /root/os/usr/bin /root/os/etc /root/os/usr/lib /root/os/proc /root/os/sys /root/os/dev /root/os/tmp /root/os/run /root/os/var /root/os/root
		cp -a /usr/bin/dash /usr/bin/sh /usr/bin/echo /root/os/usr/bin/
		cp -a --parents /usr/lib/x86_64-linux-gnu/libc.so.6 /usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 /usr/lib64 /root/os/
		ln -s usr/bin /root/os/bin; ln -s usr/lib /root/os/lib; ln -s usr/lib64 /root/os/lib64
		echo ID=test >/root/os/usr/lib/os-release
		truncate -s 32M /var/lib/machines/os.raw
		mke2fs -q -t ext4 -d /root/os /var/lib/machines/os.raw
		echo "options loop max_part=7" >/etc/modprobe.d/options.conf
		echo loop >/etc/modules-load.d/loop.conf'
	boot boot "$release" <<-'EOT'
		uname -r
		# systemd-modules-load, a caller of libkmod, or the mount unit has loaded it
		test -d /sys/module/loop_rs
		test ! -d /sys/module/loop
		systemctl is-active systemd-modules-load.service
		echo "options: $(cat /sys/module/loop_rs/parameters/max_part)"
		test "$(cat /sys/module/loop_rs/parameters/max_part)" = 7
		test "$(cat /snap/test/file)" = hello
		losetup -a
		! journalctl -b | grep -iE 'duplicate line.*loop|loop.*busy' || exit 1

		truncate -s 16M /root/image
		mke2fs -q -t ext4 /root/image
		mount -o loop /root/image /mnt
		losetup -l
		umount /mnt
		systemd-nspawn -q -i /var/lib/machines/os.raw /bin/echo from nspawn | grep 'from nspawn'
		loop-top -1 -d 0.5
		loop-top -J -d 0.5 | grep -F '"back-file": "/var/lib/test.snap"'
		loop-top -J -d 0.5 | grep -F '"path": "/"'

		# An unload removes the node that is made at boot, and whose open loads a driver.
		unload()
		{
			umount /snap/test 2>/dev/null || :
			losetup -D
			udevadm settle
			rmmod loop_rs 2>/dev/null || rmmod loop
			test ! -d /sys/module/loop_rs
			test ! -d /sys/module/loop
			[ -c /dev/loop-control ] || mknod /dev/loop-control c 10 237
		}
		for command in "modprobe loop" "modprobe -b loop" "modprobe -abq loop" \
				"modprobe -q char-major-10-237" "modprobe -q -b block-major-7-0" \
				"losetup -f" "modprobe loop_rs"; do
			unload
			echo "# $command"
			$command
			test -d /sys/module/loop_rs
			test ! -d /sys/module/loop
		done
		unload
		modprobe loop max_loop=3
		test "$(cat /sys/module/loop_rs/parameters/max_loop)" = 3

		# one file turns it off
		unload
		: >/etc/modprobe.d/loop-rs.conf
		losetup -f
		test -d /sys/module/loop
		loop-rs status
	EOT
}

# A kernel that doesn't have it, on the machine of one that has.
case_boot_skipped_kernel()
{
	made two_kernels make_two_kernels installed
	new_machine boot-skipped two_kernels
	boot boot-skipped "$stable" <<-'EOT'
		uname -r
		modprobe loop
		test -d /sys/module/loop
		losetup -f
		rmmod loop
		[ -c /dev/loop-control ] || mknod /dev/loop-control c 10 237
		losetup -f
		test -d /sys/module/loop
		rmmod loop
		modprobe -abq loop
		test -d /sys/module/loop
		truncate -s 16M /root/image
		mke2fs -q -t ext4 /root/image
		mount -o loop /root/image /mnt
		cat /var/lib/loop-rs/skipped
	EOT
}

# With lockdown, as with Secure Boot, the kernel refuses a module whose key it doesn't know.
case_boot_lockdown()
{
	made installed make_installed kernel
	new_machine lockdown installed
	boot lockdown "$release" lockdown=integrity <<-'EOT'
		cat /sys/kernel/security/lockdown
		grep -F '[integrity]' /sys/kernel/security/lockdown
		losetup -f
		test -d /sys/module/loop
		truncate -s 16M /root/image
		mke2fs -q -t ext4 /root/image
		mount -o loop /root/image /mnt
		dmesg | grep -iE 'loop_rs|lockdown|reject' || :
		umount /mnt
		rmmod loop
		modprobe loop
		test -d /sys/module/loop
		! modprobe loop_rs
	EOT
}

# After the packages are purged.
case_boot_purged()
{
	made installed make_installed kernel
	new_machine boot-purged installed
	on boot-purged apt-get -qy purge loop-rs-dkms loop-rs-common
	boot boot-purged "$release" <<-'EOT'
		losetup -f
		test -d /sys/module/loop
		! modprobe -q loop_rs
	EOT
}

# boot_live NAME DRIVER: a live image, whose root is a squashfs on a loop device.
boot_live()
{
	install "$1" live-boot live-boot-initramfs-tools squashfs-tools
	on "$1" update-initramfs -u -k "$release"
	ROOT="live" boot "$1" "$release" <<-EOT
		findmnt /
		losetup -l
		losetup -l | grep filesystem.squashfs
		test -d /sys/module/$2
	EOT
}

case_boot_live()
{
	made installed make_installed kernel
	new_machine live installed
	boot_live live loop_rs
}

case_boot_live_without()
{
	made installed make_installed kernel
	new_machine live-without installed
	# loop_rs isn't in the initramfs; the line for modprobe is
	on live-without rm /usr/share/initramfs-tools/hooks/loop-rs
	boot_live live-without loop
}

# A root file system in a file: a script of the initramfs attaches it.
# boot_root_in_file NAME DRIVER
boot_root_in_file()
{
	on "$1" sh -ec '
		cat >/etc/initramfs-tools/hooks/losetup <<-"X"
			#!/bin/sh
			[ "$1" != prereqs ] || exit 0
			. /usr/share/initramfs-tools/hook-functions
			copy_exec /sbin/losetup
		X
		cat >/etc/initramfs-tools/scripts/local-top/root-in-file <<-"X"
			#!/bin/sh
			[ "$1" != prereqs ] || exit 0
			modprobe virtio_blk
			modprobe ext4
			modprobe -q -b loop
			mkdir -p /host
			i=0
			while [ ! -e /dev/vda ] && [ $i -lt 30 ]; do sleep 1; i=$((i + 1)); done
			mount -t ext4 /dev/vda /host
			losetup /dev/loop0 /host/root.image
		X
		chmod +x /etc/initramfs-tools/hooks/losetup /etc/initramfs-tools/scripts/local-top/root-in-file
		update-initramfs -u -k '"$release"
	ROOT="file" boot "$1" "$release" <<-EOT
		findmnt /
		losetup -l
		test "\$(findmnt -n -o SOURCE /)" = /dev/loop0
		test -d /sys/module/$2
		echo data >/root/file
		sync
	EOT
}

case_boot_root_in_file()
{
	made installed make_installed kernel
	new_machine root-in-file installed
	boot_root_in_file root-in-file loop_rs
}

case_boot_root_in_file_without()
{
	made installed make_installed kernel
	new_machine root-in-file-without installed
	on root-in-file-without rm /usr/share/initramfs-tools/hooks/loop-rs
	boot_root_in_file root-in-file-without loop
}

# --- the source package's own tests -----------------------------------------

case_autopkgtest()
{
	made installed make_installed kernel
	new_machine autopkgtest installed
	install autopkgtest autopkgtest
	on autopkgtest sh -ec 'mkdir /root/loop-rs && cp -r /checkout/scripts/package/debian /root/loop-rs'
	# It can build there.
	ROOT="all" boot autopkgtest "$release" <<-'EOT'
		autopkgtest --output-dir=/root/out --ignore-restrictions=isolation-machine \
			--no-built-binaries /root/loop-rs -- null || echo "exit status of autopkgtest: $?"
		cat /root/out/summary
		grep -E '^build +PASS' /root/out/summary
		grep -E '^load +PASS' /root/out/summary
	EOT
}
