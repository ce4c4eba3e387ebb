# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2016
#
# Running kernels, and the tests of the source package.

case_boot()
{
	made installed make_installed kernel
	new_machine boot installed
	install boot squashfs-tools systemd-container loop-top
	# A mount unit of a squashfs, as of snapd, and an image for systemd-nspawn.
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

		# Unloading removes the node that systemd creates at boot, and whose open loads a driver.
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

		# An empty loop-rs.conf turns the alias off.
		unload
		: >/etc/modprobe.d/loop-rs.conf
		losetup -f
		test -d /sys/module/loop
		loop-rs status
	EOT
}

# A kernel without the module, on a machine with a kernel that has it.
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

# With lockdown, as with Secure Boot, the kernel refuses a module that is signed with an unknown key.
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
	# loop_rs isn't in the initramfs, but modprobe.d/loop-rs.conf is.
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

case_autopkgtest()
{
	made installed make_installed kernel
	new_machine autopkgtest installed
	install autopkgtest autopkgtest
	on autopkgtest sh -ec 'mkdir /root/loop-rs && cp -r /checkout/scripts/package/debian /root/loop-rs'
	# With the compilers, for the build.
	ROOT="all" boot autopkgtest "$release" <<-'EOT'
		autopkgtest --output-dir=/root/out --ignore-restrictions=isolation-machine \
			--no-built-binaries /root/loop-rs -- null || echo "exit status of autopkgtest: $?"
		cat /root/out/summary
		grep -E '^build +PASS' /root/out/summary
		grep -E '^load +PASS' /root/out/summary
	EOT
}
