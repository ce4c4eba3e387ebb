#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# dracut: loop_rs, in an initramfs that has loop.

check()
{
	return 0
}

installkernel()
{
	# -o: a kernel may have no loop_rs
	hostonly='' instmods -o loop loop_rs
}
