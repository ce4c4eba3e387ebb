// SPDX-License-Identifier: GPL-2.0
/*
 * Direct I/Os in flight together, by Linux AIO.
 */
#include "io.h"

#include <fcntl.h>
#include <linux/aio_abi.h>
#include <sys/syscall.h>
#include <unistd.h>

int deep(const char *dev, uint64_t size, uint64_t seed, int depth, int count)
{
	int fd = open(dev, O_RDONLY | O_DIRECT), issued = 0, in_flight = 0, i;
	static uint8_t want[PAGE];
	struct iocb iocbs[BATCH], *ptr;
	struct io_event events[BATCH];
	aio_context_t ctx = 0;
	uint8_t *buf;

	if (fd < 0)
		die("open %s: %m", dev);
	if (depth < 1 || depth > BATCH || size < PAGE)
		die("bad depth or size");
	if (posix_memalign((void **)&buf, PAGE, depth * PAGE))
		die("no memory");
	if (syscall(SYS_io_setup, depth, &ctx))
		die("io_setup: %m");
	while (issued < count || in_flight) {
		/* The first DEPTH I/Os use free slots; each later one waits for a completion. */
		long n = 0, k;

		if (issued >= depth || issued >= count) {
			n = syscall(SYS_io_getevents, ctx, 1, depth, events, NULL);
			if (n < 0 && errno == EINTR)
				continue;
			if (n <= 0)
				die("io_getevents: %m");
		} else {
			events[0].data = issued;
			n = 1;
			iocbs[issued].aio_nbytes = 0;
		}
		for (k = 0; k < n; k++) {
			i = events[k].data;
			if (iocbs[i].aio_nbytes) {
				if (events[k].res != (__s64)PAGE)
					die("read at %lld: result %lld", (long long)iocbs[i].aio_offset,
					    (long long)events[k].res);
				fill(want, PAGE, iocbs[i].aio_offset, seed);
				if (memcmp(want, buf + i * PAGE, PAGE))
					die("wrong data at %lld", (long long)iocbs[i].aio_offset);
				in_flight--;
			}
			if (issued >= count)
				continue;
			iocbs[i] = (struct iocb) {
				.aio_data = i,
				.aio_lio_opcode = IOCB_CMD_PREAD,
				.aio_fildes = fd,
				.aio_buf = (uintptr_t)(buf + i * PAGE),
				.aio_nbytes = PAGE,
				.aio_offset = (uint64_t)PAGE * rnd(size / PAGE),
			};
			ptr = &iocbs[i];
			if (syscall(SYS_io_submit, ctx, 1L, &ptr) != 1)
				die("io_submit: %m");
			issued++;
			in_flight++;
		}
	}
	return 0;
}

int order(const char *dev, int count)
{
	int fd = open(dev, O_WRONLY | O_DIRECT), i;
	struct iocb iocbs[BATCH], *ptr;
	struct io_event events[BATCH];
	aio_context_t ctx = 0;
	uint8_t *buf;
	long n, k;

	if (fd < 0)
		die("open %s: %m", dev);
	if (count < 1 || count > BATCH)
		die("bad count");
	if (posix_memalign((void **)&buf, PAGE, PAGE))
		die("no memory");
	memset(buf, 0, PAGE);
	if (syscall(SYS_io_setup, count, &ctx))
		die("io_setup: %m");
	for (i = 0; i < count; i++) {
		iocbs[i] = (struct iocb) {
			.aio_data = i,
			.aio_lio_opcode = IOCB_CMD_PWRITE,
			.aio_fildes = fd,
			.aio_buf = (uintptr_t)buf,
			.aio_nbytes = PAGE,
			.aio_offset = 2ull * PAGE * i,
		};
		ptr = &iocbs[i];
		if (syscall(SYS_io_submit, ctx, 1L, &ptr) != 1)
			die("io_submit: %m");
	}
	for (i = 0; i < count; i += n) {
		n = syscall(SYS_io_getevents, ctx, 1, count - i, events, NULL);
		if (n < 0 && errno == EINTR) {
			n = 0;
			continue;
		}
		if (n <= 0)
			die("io_getevents: %m");
		for (k = 0; k < n; k++) {
			if (events[k].res != (__s64)PAGE)
				die("write %llu: result %lld", (unsigned long long)events[k].data,
				    (long long)events[k].res);
			printf("%llu\n", (unsigned long long)events[k].data);
		}
	}
	return 0;
}

int short_reads(const char *dev, off_t pos, size_t size, int depth)
{
	int fd = open(dev, O_RDONLY | O_DIRECT), i, done = 0;
	struct io_event *events = calloc(depth, sizeof(*events));
	struct iocb **ptrs = calloc(depth, sizeof(*ptrs));
	struct iocb *iocbs = calloc(depth, sizeof(*iocbs));
	aio_context_t ctx = 0;
	uint8_t *buf;
	long n;

	if (fd < 0)
		die("open %s: %m", dev);
	if (!events || !ptrs || !iocbs || posix_memalign((void **)&buf, PAGE, size))
		die("no memory");
	if (syscall(SYS_io_setup, depth, &ctx))
		die("io_setup: %m");
	for (i = 0; i < depth; i++) {
		iocbs[i] = (struct iocb) {
			.aio_lio_opcode = IOCB_CMD_PREAD,
			.aio_fildes = fd,
			.aio_buf = (uintptr_t)buf,
			.aio_nbytes = size,
			.aio_offset = pos,
		};
		ptrs[i] = &iocbs[i];
	}
	for (i = 0; i < depth; i += n) {
		n = syscall(SYS_io_submit, ctx, (long)(depth - i), ptrs + i);
		if (n <= 0)
			die("io_submit: %m");
	}
	while (done < depth) {
		n = syscall(SYS_io_getevents, ctx, 1L, (long)depth, events, NULL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			die("io_getevents: %m");
		for (i = 0; i < n; i++)
			if (events[i].res != -EIO)
				die("a read ended with %lld", (long long)events[i].res);
		done += n;
	}
	return 0;
}
