#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A tree of files on ext4 on a loop device, which is detached and attached again.
#
# shellcheck disable=SC2119,SC2153,SC2317

. "$(dirname "$(readlink -f "$0")")/lib.sh"
. "$LIB_DIR/proofs.sh"

on_disk() {
	need_scratch
	scratch_fs ext4 "$T/fs"
	proof_files "$T/fs" 16
	umount "$T/fs"
}

test_begin 2
need_driver

check "the backing file on tmpfs" proof_files "$T" 8
check "the backing file on a disk" on_disk

test_end
