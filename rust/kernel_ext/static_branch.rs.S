/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The assembly of a branch on a static key, as a Rust literal: that of rust/kernel is not among
 * what the kernel crate's metadata comes with.
 */

#include <linux/jump_label.h>

// Cut here.

::kernel::concat_literals!(ARCH_STATIC_BRANCH_ASM("{symb} + {off} + {branch}", "{l_yes}"))
