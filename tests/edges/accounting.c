// SPDX-License-Identifier: GPL-2.0
/*
 * The kernel's accounting for the submitting task: I/O and voluntary context switches.
 */
#include "edges.h"

#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <sys/resource.h>
#include <sys/syscall.h>

static uint64_t io_of_self(const char *key)
{
	FILE *f = fopen("/proc/self/io", "r");
	unsigned long long v;
	char name[64];

	if (!f)
		die("open /proc/self/io: %m");
	while (fscanf(f, "%63s %llu", name, &v) == 2)
		if (!strncmp(name, key, strlen(key)) && name[strlen(key)] == ':') {
			fclose(f);
			return v;
		}
	die("no %s in /proc/self/io", key);
}

int account(const char *name, const char *op, long count)
{
	int write_it = !strcmp(op, "write");
	int fd = open_at(name, (write_it ? O_WRONLY : O_RDONLY) | O_DIRECT);
	uint64_t r = io_of_self("read_bytes"), w = io_of_self("write_bytes");
	struct rusage before, after;
	uint8_t *buf = pages(BLOCK);
	long i;

	getrusage(RUSAGE_SELF, &before);
	for (i = 0; i < count; i++) {
		ssize_t n = write_it ? pwrite(fd, buf, BLOCK, i * 2 * BLOCK) :
				       pread(fd, buf, BLOCK, i * 2 * BLOCK);

		if (n != (ssize_t)BLOCK)
			die("I/O %ld: %m", i);
	}
	getrusage(RUSAGE_SELF, &after);
	printf("read_bytes %llu write_bytes %llu inblock %ld outblock %ld\n",
	       (unsigned long long)(io_of_self("read_bytes") - r),
	       (unsigned long long)(io_of_self("write_bytes") - w),
	       after.ru_inblock - before.ru_inblock, after.ru_oublock - before.ru_oublock);
	return 0;
}

int nowait(const char *name, uint64_t count, int n)
{
	int fd = open_at(name, O_RDONLY | O_DIRECT), i, slept = 0, eagain = 0;
	uint8_t *buf = pages(BLOCK);
	struct rusage before, after;
	aio_context_t ctx = 0;
	double longest = 0;

	rng = getpid();
	if (syscall(SYS_io_setup, 1, &ctx))
		die("io_setup: %m");
	for (i = 0; i < n; i++) {
		struct iocb iocb = {
			.aio_lio_opcode = IOCB_CMD_PREAD,
			.aio_fildes = fd,
			.aio_buf = (uintptr_t)buf,
			.aio_nbytes = BLOCK,
			.aio_offset = left_by_fragment(count),
			.aio_rw_flags = RWF_NOWAIT,
		};
		struct iocb *list = &iocb;
		struct io_event event;
		double start;

		getrusage(RUSAGE_THREAD, &before);
		start = now();
		if (syscall(SYS_io_submit, ctx, 1l, &list) != 1)
			die("io_submit: %m");
		start = now() - start;
		getrusage(RUSAGE_THREAD, &after);
		slept += after.ru_nvcsw != before.ru_nvcsw;
		if (start > longest)
			longest = start;
		if (syscall(SYS_io_getevents, ctx, 1l, 1l, &event, NULL) != 1)
			die("io_getevents: %m");
		if (event.res == -EAGAIN)
			eagain++;
		else if (event.res != BLOCK)
			die("read: %lld", (long long)event.res);
	}
	printf("slept %d again %d longest %.1f ms\n", slept, eagain, longest * 1000);
	return 0;
}
