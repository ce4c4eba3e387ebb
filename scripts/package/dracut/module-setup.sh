#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Module of dracut: adds loop_rs to an initramfs that has loop.

check()
{
	return 0
}

installkernel()
{
	# -o: the kernel may have no loop_rs.
	hostonly='' instmods -o loop loop_rs
}
