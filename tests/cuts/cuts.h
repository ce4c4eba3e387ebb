/* SPDX-License-Identifier: GPL-2.0 */
/* Shared by the files of loop_cuts, which main.c describes. */
#ifndef CUTS_H
#define CUTS_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../loop_test.h"

#define SECTOR		512u
#define BLOCK		4096u
#define MAX_SIZE	(32 * BLOCK)

extern uint8_t buf[MAX_SIZE + BLOCK];
/* The contents before and after the step that the power cut may have interrupted. */
extern uint8_t model[2][MAX_SIZE + BLOCK];

static inline uint64_t hash(uint64_t v)
{
	v = (v ^ v >> 31) * 0x9e3779b97f4a7c15ull;
	return v ^ v >> 29;
}

/* main.c */
void done(int fd, int synced, const char *name);
void mark(int control, const char *mapped, int writer, int nr);

/* files.c */
int write_all(const char *dir_name, int writer, int steps, const char *mapped);
int check_all(const char *dir_name, int writer, int last);

/* device.c */
int fill_part(const char *name, int writer);
int change_all(const char *name, int writer, int steps, const char *mapped);
int verify_part(const char *name, int writer, int last);

#endif
