# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2016
#
# Installation.

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
	# At most 100 MiB of disk for a kernel.
	on install bash -ec 'mb=$(du -cm /var/cache/loop-rs /var/lib/loop-rs /var/lib/dkms/loop-rs | tail -n 1 | cut -f1)
		echo "kept: $mb MiB"; [ "$mb" -le 100 ]
		[ -z "$(ls /var/tmp)" ]'
	expect_not "loop-rs" on install sh -c 'dpkg --audit'
	# The module is up to date.
	expect_not building on install loop-rs update
}

# A build without cached metadata takes at most 180 s of CPU time and 2 GiB of disk.
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

# loop-top has a package of its own.
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
	# DKMS must not build a second module.
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
