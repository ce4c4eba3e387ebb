/* SPDX-License-Identifier: GPL-2.0 */
/* Shared by the files of loop_edges, which main.c describes. */
#ifndef EDGES_H
#define EDGES_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "../loop_test.h"
#include "../pattern.h"

#define BLOCK		4096u
/* The number of I/Os that are submitted together. */
#define BATCH		32

static inline int open_at(const char *name, int flags)
{
	int fd = open(name, flags | O_CLOEXEC, 0600);

	if (fd < 0)
		die("open %s: %m", name);
	return fd;
}

static inline uint8_t *pages(size_t len)
{
	uint8_t *p = mmap(NULL, len, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (p == MAP_FAILED)
		die("mmap of %zu bytes: %m", len);
	return p;
}

static inline double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* The position of a random block that "fragment" left. */
static inline uint64_t left_by_fragment(uint64_t count)
{
	return (rnd(count) * 2ull + 1) * BLOCK;
}

/* accounting.c */
int account(const char *name, const char *op, long count);
int nowait(const char *name, uint64_t count, int n);

/* batch.c */
int batch(const char *loop_name, uint64_t count, uint64_t seed, const char *disk_name,
	  double seconds, int use_uring);

/* flood.c */
int flood(const char *name, const char *op, uint64_t first, long count, uint64_t size,
	  const char *ready, char **args, int nr_args);
int placed(const char *name, uint64_t first, uint64_t count, uint64_t size, uint64_t seed,
	   char **args, int nr_args);

/* tasks.c */
int drop_caches(const char *disk_name, int ms);
int suspend(const char *name);
int crowd(const char *name, uint64_t first, char **cgroups, int n);
int fsyncs(const char *name, uint64_t first, int n);

#endif
