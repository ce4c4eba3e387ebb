# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# The files of a kernel that scripts/vm boots: vmlinuz, initrd, modules.img, release, and share,
# which names the file system that shares directories with the guest.

# boot_dir ROOT DIR RELEASE VMLINUZ TREE: from a VMLINUZ and the modules under
# TREE/usr/lib/modules or TREE/lib/modules, with ROOT's tools.
boot_dir()
{
	local root=$1 dir=$2 release=$3 vmlinuz=$4 tree=$5 modules name path share

	root_mounts "$root"
	mount --bind "$dir" "$root/vm"
	cp "$vmlinuz" "$dir/vmlinuz"
	echo "$release" >"$dir/release"

	modules=$dir/modules/lib/modules
	mkdir -p "$modules"
	for path in "$tree/usr/lib/modules/$release" "$tree/lib/modules/$release"; do
		[ ! -d "$path" ] || [ -d "$modules/$release" ] || mv "$path" "$modules/"
	done
	rm -f "$modules/$release"/{build,source}
	in_chroot "$root" depmod -b /vm/modules "$release"
	truncate -s "$(($(du -sm --apparent-size "$modules" | cut -f1) * 5 / 4 + 32))M" "$dir/modules.img"
	in_chroot "$root" mke2fs -q -t ext4 -O ^has_journal,^resize_inode -m 0 -E lazy_itable_init=1,nodiscard \
		-d "/vm/modules/lib/modules/$release" /vm/modules.img

	# what takes it to the root file system
	mkdir -p "$dir/initrd.d"/{bin,dev,proc,sys,newroot,modules}
	cp "$root/bin/busybox" "$dir/initrd.d/bin/"
	cp "$scripts/guest-initramfs" "$dir/initrd.d/init"
	share=(9pnet_virtio 9p)
	echo 9p >"$dir/share"
	if ! in_chroot "$root" modprobe -d /vm/modules -S "$release" -n 9p 2>/dev/null; then
		share=(virtiofs)
		echo virtiofs >"$dir/share"
	fi
	cp "$dir/share" "$dir/initrd.d/share"
	for name in virtio_pci virtio_blk virtio_console ext4 "${share[@]}"; do
		in_chroot "$root" modprobe -d /vm/modules -S "$release" --show-depends "$name"
	done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++' |
	while read -r path; do
		name=$(basename "$path" .xz)
		case $path in
		*.xz)	in_chroot "$root" xz -dc "$path" >"$dir/initrd.d/modules/$name" ;;
		*)	cp "$root$path" "$dir/initrd.d/modules/$name" ;;
		esac
		echo "$name" >>"$dir/initrd.d/modules/order"
	done
	(cd "$dir/initrd.d" && find . | in_chroot "$root" sh -c 'cd /vm/initrd.d && cpio -o -H newc --quiet') >"$dir/initrd"
	rm -rf "$dir/initrd.d" "$dir/modules"
}
