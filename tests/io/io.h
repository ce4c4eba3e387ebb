/* SPDX-License-Identifier: GPL-2.0 */
/* Shared by the files of loop_io, which main.c describes. */
#ifndef IO_H
#define IO_H

#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include "../loop_test.h"
#include "../pattern.h"

#define SECTOR		512u
#define PAGE		4096u
/* Maximum number of I/Os in flight. */
#define BATCH		128

/* aio.c */
int deep(const char *dev, uint64_t size, uint64_t seed, int depth, int count);
int order(const char *dev, int count);
int short_reads(const char *dev, off_t pos, size_t size, int depth);

/* device.c */
int set_name(const char *dev, const char *name);
int clear_dirty(const char *dev);
int control(unsigned long cmd, int number);

/* reads.c */
int zeroed(const char *path, off_t pos, size_t size);
int rates(const char *dev, const char *control, uint64_t size, int rounds, int reads);
int poll_reads(const char *dev);
int read_as_cgroups(const char *parent, int count, char **devices, int n_devices);

/* shape.c */
int shape(const char *dev, const char *backing, uint64_t offset, uint64_t seed, int rounds);

#endif
