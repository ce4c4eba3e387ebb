#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The use of loop devices by a running system: udev, udisks, systemd and modules that are loaded on
# demand.
#
# vm: --systemd
#
# tier: long
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"

MIB=1048576
# A partition type that systemd discovers: the root file system of this architecture.
ROOT_TYPE=4f68bce3-e8cd-4db1-96e7-fbcaf984b709
UUID=8b1aa2a3-5e0c-4a39-9d6b-6c6f6f705f72

# The target of a udev link, or nothing.
link_to() {
	[ ! -L "$1" ] || readlink -f "$1"
}

gone() {
	[ ! -e "$1" ] && [ ! -L "$1" ]
}

# After udev has processed all events.
detach_settled() {
	detach
	udevadm settle
}

not_mounted() {
	! mountpoint -q "$1"
}

is_loaded() {
	driver_loaded || fail "$DRIVER was not loaded on demand"
}

# Links by inode and by name, for the whole device and for partitions, and by contents.
udev_links() {
	local dir=/dev/disk inode l

	inode=$(stat -c %i "$T/gpt")
	attach --partscan --loop-ref loop_rs-ref "$T/gpt"
	udevadm settle
	want "by-loop-ref" "$(link_to $dir/by-loop-ref/loop_rs-ref)" "$LOOP"
	want "by-loop-ref, partition" "$(link_to $dir/by-loop-ref/loop_rs-ref-part1)" "${LOOP}p1"
	l=$(echo $dir/by-loop-inode/*-"$inode")
	want "by-loop-inode" "$(link_to "$l")" "$LOOP"
	want "by-loop-inode, partition" "$(link_to "$l-part2")" "${LOOP}p2"
	want "by-label" "$(link_to $dir/by-label/loop_rs-root)" "${LOOP}p1"
	want "by-partlabel" "$(link_to $dir/by-partlabel/second)" "${LOOP}p2"
	want "by-partuuid" "$(link_to $dir/by-partuuid/$UUID)" "${LOOP}p1"
	want "by-diskseq" "$(link_to "$dir/by-diskseq/$(<"/sys/block/$L/diskseq")")" "$LOOP"
	detach_settled
	for l in $dir/by-loop-ref/loop_rs-ref{,-part1} "$l"{,-part2} $dir/by-label/loop_rs-root \
		 $dir/by-partlabel/second $dir/by-partuuid/$UUID "${LOOP}p1" "${LOOP}p2"; do
		gone "$l" || fail "$l is still there"
	done
}

# An attached device is ready for systemd, a detached one is not.
udev_ready() {
	attach "$T/ext4"
	udevadm settle
	want "type" "$(udevadm info -q property --value --property ID_FS_TYPE "$LOOP")" ext4
	want "SYSTEMD_READY" "$(udevadm info -q property --value --property SYSTEMD_READY "$LOOP")" ""
	want "unit" "$(systemctl show -P ActiveState "dev-$L.device")" active
	detach_settled
	want "type, detached" "$(udevadm info -q property --value --property ID_FS_TYPE "$LOOP")" ""
	want "SYSTEMD_READY, detached" \
	     "$(udevadm info -q property --value --property SYSTEMD_READY "$LOOP")" 0
	want "unit, detached" "$(systemctl show -P ActiveState "dev-$L.device")" inactive
}

UDEVD=(systemd-udevd-control.socket systemd-udevd-kernel.socket systemd-udevd.service)

# events FUNCTION: the kernel's uevents of loop devices while it runs, as "ACTION NAME", with the
# changed properties.
events() {
	# The listener must not have the output of the case open: check waits for that.
	stdbuf -oL udevadm monitor --kernel --property --subsystem-match=block >"$T/monitor" 2>&1 &
	MONITOR=$!
	wait_for 30 grep -q "kernel uevent" "$T/monitor"
	"$1"
	# A synthetic event shows that all earlier events have been received.
	echo "change 6c6f6f70-5f72-7300-0000-000000000000" >/sys/block/loop0/uevent
	wait_for 30 grep -q '^SYNTH_UUID=' "$T/monitor"
	kill $MONITOR
	wait $MONITOR || true
	awk -F= '
		$1 == "ACTION" { action = $2 }
		$1 == "DEVNAME" { name = $2; sub("/dev/", "", name) }
		$1 == "DISK_MEDIA_CHANGE" || $1 == "RESIZE" { what = what " " $1 }
		$1 == "SYNTH_UUID" { name = "" }
		$0 == "" {
			if (name ~ /^loop/)
				print action, name what
			action = name = what = ""
		}' "$T/monitor" | paste -sd,
}

partscan() {
	losetup --partscan /dev/loop0 "$T/gpt"
}

resize() {
	truncate -s 13M "$T/gpt"
	losetup --set-capacity /dev/loop0
	truncate -s 12M "$T/gpt"
}

clear() {
	losetup --detach /dev/loop0
}

# Without udevd, which triggers events of its own.
kernel_events() {
	udevadm settle
	trap 'kill $MONITOR 2>/dev/null || :; systemctl start "${UDEVD[@]}"' EXIT
	systemctl stop "${UDEVD[@]}"
	events partscan >"$T/partscan"
	events resize >"$T/resize"
	events clear >"$T/clear"
	want "attach" "$(<"$T/partscan")" \
	     "change loop0,change loop0,add loop0p1,add loop0p2,change loop0"
	want "resize" "$(<"$T/resize")" "change loop0 RESIZE,change loop0"
	want "detach" "$(<"$T/clear")" \
	     "change loop0,change loop0 DISK_MEDIA_CHANGE,remove loop0p1,remove loop0p2,change loop0"
}

# Installs the modules that the cases need, and the driver as by a distribution, with the other
# driver blacklisted. depmod for all of the kernel's modules would take a while.
install_modules() {
	local dir release file name

	release=$(uname -r)
	dir=$T/modules/lib/modules/$release
	mkdir -p "$dir/kernel" "$dir/updates"
	cp "/lib/modules/$release"/modules.{order,builtin,builtin.modinfo} "$dir/"
	for name in ext4 loop; do
		for file in $(modprobe --show-depends --ignore-install "$name" | awk '$1 == "insmod" { print $2 }'); do
			cp "$file" "$dir/kernel/"
		done
	done
	[ "$DRIVER" = loop ] || cp "$MODULE" "$dir/updates/"
	depmod -b "$T/modules" "$release"
	mount --bind "$dir" "/lib/modules/$release"
	if [ "$DRIVER" = loop ]; then
		: >"$T/modprobe.conf"
	else
		echo "blacklist loop" >"$T/modprobe.conf"
	fi
	mount --bind "$T/modprobe.conf" /etc/modprobe.d/loop_rs.conf
}

# systemd creates nodes at boot for modules that are not loaded; losetup opens one of them.
autoload_control() {
	driver_unload
	rm -f /dev/loop-control
	# The units of systemd only run at boot.
	kmod static-nodes --format=tmpfiles --output="$T/nodes.conf"
	grep -q ' /dev/loop-control .* 10:237$' "$T/nodes.conf"
	systemd-tmpfiles --create --boot --prefix=/dev/loop-control "$T/nodes.conf"
	want "node" "$(stat -c '%F %t:%T' /dev/loop-control)" "character special file a:ed"
	not_loaded
	losetup --find
	is_loaded
	# By a udev rule.
	udevadm settle
	want "owner" "$(stat -c %G:%a /dev/loop-control)" disk:660
}

not_loaded() {
	if driver_loaded; then
		fail "$DRIVER is loaded"
	fi
}

# Opening a device node of the major number loads the module.
autoload_major() {
	driver_unload
	mknod /dev/loop_rs-node b 7 0
	not_loaded
	blockdev --getsize64 /dev/loop_rs-node
	is_loaded
	rm /dev/loop_rs-node
}

# The usual commands of a user.
autoload_mount() {
	driver_unload
	modprobe "$DRIVER"
	mkdir -p "$T/mnt"
	mount -o loop "$T/ext4" "$T/mnt"
	want "content" "$(<"$T/mnt/file")" content
	umount "$T/mnt"
	wait_for 30 nothing_bound
}

# udisks_setup OPTIONS... FILE: sets LOOP and L.
udisks_setup() {
	local out

	out=$(udisksctl loop-setup "$@")
	LOOP=${out##* as }
	LOOP=${LOOP%.}
	L=${LOOP#/dev/}
	[ -b "$LOOP" ] || fail "udisksctl loop-setup: $out"
}

udisks() {
	local out where

	udisks_setup -f "$T/ext4"
	want "backing file" "$(losetup -nO BACK-FILE "$LOOP")" "$T/ext4"
	out=$(udisksctl mount -b "$LOOP")
	where=${out##* at }
	where=${where%.}
	want "content" "$(<"$where/file")" content
	want "mounted twice" "$(udisksctl mount -b "$LOOP" 2>&1 | grep -o AlreadyMounted)" AlreadyMounted
	# A mounted device is detached at its umount.
	udisksctl loop-delete -b "$LOOP"
	want "AUTOCLEAR" "$(losetup -nO AUTOCLEAR "$LOOP" | xargs)" 1
	udisksctl unmount -b "$LOOP"
	wait_for 30 nothing_bound
}

udisks_options() {
	local o=org.freedesktop.UDisks2 path

	udisks_setup -f "$T/plain" --read-only --offset 4096 --size $MIB
	path=/org/freedesktop/UDisks2/block_devices/$L
	want "losetup" "$(losetup --raw -nO RO,OFFSET,SIZELIMIT "$LOOP")" "1 4096 $MIB"
	want "udisks" "$(busctl get-property $o "$path" $o.Block Size ReadOnly | paste -sd' ')" \
	     "t $MIB b true"
	busctl call $o "$path" $o.Loop SetAutoclear 'ba{sv}' true 0
	# Detached at once, since nothing has it open.
	wait_for 30 nothing_bound

	udisks_setup -f "$T/plain"
	udisksctl loop-delete -b "$LOOP"
	wait_for 30 nothing_bound
}

dissect() {
	local out

	out=$(systemd-dissect --json=short "$T/gpt")
	want "designators" "$(grep -o '"designator":"[a-z]*"' <<<"$out" | paste -sd' ')" \
		'"designator":"root"'
	mkdir -p "$T/dissected"
	systemd-dissect --mount --fsck=no "$T/gpt" "$T/dissected"
	want "content" "$(<"$T/dissected/etc/content")" root
	want "AUTOCLEAR" "$(losetup -nO AUTOCLEAR -j "$T/gpt" | xargs)" 1
	systemd-dissect --umount "$T/dissected"
	wait_for 30 nothing_bound
	systemd-dissect --copy-from "$T/gpt" /etc/content "$T/copied"
	want "copied" "$(<"$T/copied")" root
	wait_for 30 nothing_bound
}

# A service with an image file as its root.
root_image() {
	want "content" "$(systemd-run -q --pipe --wait -p RootImage="$T/gpt" -p MountAPIVFS=yes \
		/bin/cat /etc/content)" root
	wait_for 30 nothing_bound
}

nspawn() {
	want "content" "$(systemd-nspawn -q --register=no --keep-unit --read-only --console=pipe \
		--timezone=off --resolv-conf=off -i "$T/gpt" /bin/cat /etc/content)" root
	wait_for 30 nothing_bound
}

mount_unit() {
	local unit where=$T/unit

	unit=$(systemd-escape -p --suffix=mount "$where")
	mkdir -p "$where"
	printf '%s\n' "[Mount]" "What=$T/ext4" "Where=$where" "Options=loop,ro" >"/run/systemd/system/$unit"
	systemctl daemon-reload
	systemctl start "$unit"
	want "content" "$(<"$where/file")" content
	want "device" "$(losetup -nO RO,AUTOCLEAR -j "$T/ext4" | xargs)" "1 1"
	systemctl stop "$unit"
	not_mounted "$where" || fail "$where is still mounted"
	wait_for 30 nothing_bound
	rm "/run/systemd/system/$unit"
	systemctl daemon-reload
}

transient_mount() {
	local where=$T/transient

	systemd-mount -q --fsck=no -o loop "$T/ext4" "$where"
	want "content" "$(<"$where/file")" content
	systemd-umount "$where"
	wait_for 30 nothing_bound
}

make_images() {
	local dir=$T/root f

	truncate -s 2M "$T/plain"
	mkdir "$T/files"
	echo content >"$T/files/file"
	truncate -s 4M "$T/ext4"
	mkfs.ext4 -qF -O ^has_journal -d "$T/files" "$T/ext4"

	# A root directory with cat only.
	mkdir -p "$dir"/{etc,dev,proc,run,sys,tmp,usr/bin,usr/lib,usr/lib64,var}
	ln -s usr/bin usr/lib usr/lib64 "$dir/"
	echo root >"$dir/etc/content"
	echo ID=loop_rs >"$dir/etc/os-release"
	for f in $(ldd /usr/bin/cat | grep -o '/[^ ]*') /usr/bin/cat; do
		cp -L --parents "$f" "$dir/"
	done
	truncate -s 12M "$T/gpt"
	sfdisk -q "$T/gpt" <<-END
		label: gpt
		start=2048, size=8M, type=$ROOT_TYPE, uuid=$UUID, name=first
		size=1M, name=second
	END
	mkfs.ext4 -qF -O ^has_journal -L loop_rs-root -d "$dir" -E offset=$MIB "$T/gpt" 8M
}

# A failed case may have left the driver unloaded.
with_driver() {
	driver_loaded || driver_load max_loop=1
	"$@"
}

need_module
test_begin 15
[ "$(cat /proc/1/comm)" = systemd ] || ktap_exit_fail_msg "systemd does not run: scripts/vm --systemd"
check "installing the module" install_modules
check "making the images" make_images
need_driver

check "links by udev" udev_links
check "an attached device is ready for systemd" udev_ready
check "uevents of the kernel" kernel_events
check "opening loop-control loads the module" with_driver autoload_control
check "opening a node of major 7 loads the module" with_driver autoload_major
check "modprobe, mount -o loop" with_driver autoload_mount
check "udisksctl" with_driver udisks
check "udisksctl: options, autoclear" with_driver udisks_options
check "systemd-dissect" with_driver dissect
check "RootImage=" with_driver root_image
check "systemd-nspawn --image" with_driver nspawn
check "a mount unit" with_driver mount_unit
check "systemd-mount" with_driver transient_mount

umount -l /etc/modprobe.d/loop_rs.conf "/lib/modules/$(uname -r)"
test_end
