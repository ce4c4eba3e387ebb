// SPDX-License-Identifier: GPL-2.0
/*
 * "loop_edges flood": many I/Os in flight, and the place of their data afterwards.
 */
#include "edges.h"

#include <linux/aio_abi.h>
#include <sys/syscall.h>

/* Maximum number of seeds or offsets. */
#define MAX_SOURCES	4
/* The distance of consecutive I/Os: no two neighbours are consecutive. */
#define STRIDE		7919u

static uint64_t place_of(uint64_t i, uint64_t count)
{
	/* STRIDE is prime: coprime to the number of I/Os, unless that is a multiple of it. */
	return i * STRIDE % count;
}

/* Contents that a read may find, and the number of reads that found them. */
struct source {
	uint64_t seed, shift;
	long found;
};

int flood(const char *name, const char *op, uint64_t first, long count, uint64_t size,
		 const char *ready, char **args, int nr_args)
{
	int write_it = !strcmp(op, "write");
	int fd = open_at(name, (write_it ? O_WRONLY : O_RDONLY) | O_DIRECT);
	struct iocb *iocbs = calloc(count, sizeof(*iocbs));
	struct iocb **list = calloc(count, sizeof(*list));
	struct io_event *events = calloc(count, sizeof(*events));
	struct source sources[MAX_SOURCES] = { 0 };
	uint8_t *buf = pages(count * size);
	long i, j, n, r, failed = 0, wrong = 0;
	aio_context_t ctx = 0;

	if (!iocbs || !list || !events)
		die("no memory");
	if (nr_args < 1 || nr_args > MAX_SOURCES || count % STRIDE == 0)
		die("1 to %d seeds, and a count that is no multiple of %u", MAX_SOURCES, STRIDE);
	for (j = 0; j < nr_args; j++) {
		char *plus = strchr(args[j], '+');

		if (plus)
			*plus++ = '\0';
		sources[j].seed = number(args[j]);
		sources[j].shift = plus ? number(plus) : 0;
	}
	if (syscall(SYS_io_setup, count, &ctx))
		die("io_setup: %m");
	for (i = 0; i < count; i++) {
		uint64_t pos = first + place_of(i, count) * size;

		if (write_it)
			fill(buf + i * size, size, pos, sources[0].seed);
		iocbs[i] = (struct iocb) {
			.aio_data = i,
			.aio_lio_opcode = write_it ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD,
			.aio_fildes = fd,
			.aio_buf = (uintptr_t)buf + i * size,
			.aio_nbytes = size,
			.aio_offset = pos,
		};
		list[i] = &iocbs[i];
	}
	for (n = 0; n < count; n += r) {
		r = syscall(SYS_io_submit, ctx, count - n < BATCH ? count - n : BATCH, list + n);
		if (r <= 0)
			die("io_submit of %ld: %m", n);
	}
	close(open_at(ready, O_WRONLY | O_CREAT));
	for (n = 0; n < count; n += r) {
		r = syscall(SYS_io_getevents, ctx, 1l, count, events, NULL);
		if (r <= 0)
			die("io_getevents: %m");
		for (i = 0; i < r; i++) {
			uint64_t at = events[i].data;
			uint64_t pos = iocbs[at].aio_offset;

			if (events[i].res != (int64_t)size) {
				if (events[i].res >= 0)
					die("a short I/O: %lld", (long long)events[i].res);
				failed++;
				continue;
			}
			if (write_it) {
				sources[0].found++;
				continue;
			}
			for (j = 0; j < nr_args; j++)
				if (holds(buf + at * size, size, pos + sources[j].shift,
					  sources[j].seed))
					break;
			if (j < nr_args)
				sources[j].found++;
			else
				wrong++;
		}
	}
	for (j = 0; j < nr_args; j++)
		printf("%ld ", sources[j].found);
	printf("failed %ld wrong %ld\n", failed, wrong);
	return 0;
}

int placed(const char *name, uint64_t first, uint64_t count, uint64_t size, uint64_t seed,
		  char **args, int nr_args)
{
	int fd = open_at(name, O_RDONLY);
	uint8_t *buf = pages(size);
	long found[MAX_SOURCES] = { 0 }, none = 0;
	uint64_t i;
	int j;

	if (nr_args < 1 || nr_args > MAX_SOURCES)
		die("1 to %d offsets", MAX_SOURCES);
	for (i = 0; i < count; i++) {
		uint64_t pos = first + i * size;

		for (j = 0; j < nr_args; j++)
			if (pread(fd, buf, size, pos + number(args[j])) == (ssize_t)size &&
			    holds(buf, size, pos, seed))
				break;
		if (j < nr_args)
			found[j]++;
		else
			none++;
	}
	for (j = 0; j < nr_args; j++)
		printf("%ld ", found[j]);
	printf("none %ld\n", none);
	return 0;
}
