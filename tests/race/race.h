/* SPDX-License-Identifier: GPL-2.0 */
/* Shared by the files of loop_race, which main.c describes. */
#ifndef RACE_H
#define RACE_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "../loop_test.h"

#define BLOCK		4096
#define WORDS		(BLOCK / sizeof(uint64_t))
#define SPAN		(1 << 20)
#define BLOCKS		(SPAN / BLOCK)

enum op {
	OPEN, READ, WRITE, CHANGE_FD, SET_STATUS, GET_STATUS, SET_BLOCK, DIRECT_IO,
	CONFIGURE, CLEAR, RESCAN, ADD_PARTITION, DEL_PARTITION, OPEN_PARTITION,
	READ_PARTITION, FIRST, SECOND, NOTHING, CGROUP, OPS
};

extern const char *const ops[];
extern const char *device, *file_name, *other_name;

/* main.c */
int going_on(void);
unsigned int below(unsigned int n);
int count(enum op op, int ret);

/* blocks.c */
int open_file(const char *name, int flags);
void *block(void);
void fill(uint64_t *buf, uint64_t pos, unsigned int tag);
unsigned int verify(const uint64_t *buf, uint64_t pos, int one);
int read_block(int fd, enum op op, uint64_t *buf, uint64_t pos, int or_nothing);
int make_file(const char *name, int mib, int tag);

/* The roles of the processes; each runs until the end of the time. */

/* roles.c */
void reader(int other);
void writer(int tag);
void changer(int unused);
void mover(int unused);
void sizer(int unused);
void attacher(int flags);
void opener(int unused);
void cgroup_writer(int nr);

/* partitions.c */
void scanner(int unused);
void partition_reader(int unused);

#endif
