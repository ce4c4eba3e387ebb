/* SPDX-License-Identifier: GPL-2.0 */
/* Shared by the files of bench_io, which main.c describes. */
#ifndef BENCH_IO_H
#define BENCH_IO_H

#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { BATCH_MAX = 128 };

struct shared {
	volatile int stop;
	/* The errno of a failed call of a task, and the name of the call. */
	volatile int error;
	char where[64];
	struct per_task {
		volatile uint64_t done;
	} __attribute__((aligned(64))) task[];
};

extern struct shared *shared;
/* The latencies of I/Os in ns: sample_max of each task. */
extern uint32_t *samples;
extern uint64_t sample_max;

extern const char *path;
extern uint64_t block, size, count;
extern int depth, batch, tasks, write_percent, sequential, direct, uring, do_fsync, discard;

static inline uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

/* machine.c */
/*
 * The work of all CPUs since boot: nanoseconds that they ran tasks other than the idle tasks, and
 * context switches. machine() sleeps first: the time of a task is counted when it leaves the CPU.
 */
struct machine {
	uint64_t busy, switches;
};

struct machine machine(void);
void nap(uint64_t ns);

/* task.c */
void task(int i, int go, int ready, int finished, int over);

#endif
