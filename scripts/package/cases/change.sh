# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2016
#
# Upgrades of the kernel, and removal.

# Kernel, headers and module in one command; then the next point release, then the next series.
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

case_kernel_removed()
{
	made installed make_installed kernel
	new_machine kernel-removed installed
	on kernel-removed apt-get -qy purge "linux-image-$release" "linux-headers-$release" \
		"linux-modules-$release" "linux-binary-$release" "linux-base-$release"
	expect_not "$release" on kernel-removed sh -c 'ls /var/cache/loop-rs /var/lib/loop-rs/* /lib/modules; cat /var/lib/loop-rs/skipped || :'
	expect_not "$release" on kernel-removed dkms status
}

case_purge()
{
	made installed make_installed kernel
	new_machine purge installed
	on purge apt-get -qy remove loop-rs-dkms loop-rs-common
	expect_not loop_rs on purge lsinitramfs "/boot/initrd.img-$release"
	on purge apt-get -qy purge loop-rs-dkms loop-rs-common
	expect_not loop on purge sh -c 'find / -xdev | sort | comm -13 /root/before - | grep -E "/[^/]*loop[-_]rs" || :'
	expect_not updates on purge sh -c 'ls /lib/modules/*'
}
