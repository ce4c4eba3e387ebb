// SPDX-License-Identifier: GPL-2.0
/*
 * "loop_io shape": requests with many segments, with several bios, and larger than the limit.
 */
#include "io.h"

#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define ARENA_PAGES	1024u
#define MAX_SEGS	128
/* More than the maximum size of a request. */
#define LARGE		(4u << 20)

struct shape {
	int dev;
	const char *backing_name;
	uint64_t offset;
	uint64_t size;
	/* The expected contents of the device. */
	uint8_t *model;
	/* Memory for the buffers, aligned to pages. */
	uint8_t *arena;
};

static void compare(const uint8_t *got, const uint8_t *model, size_t len,
		    uint64_t pos, const char *what)
{
	size_t i;

	if (!memcmp(got, model, len))
		return;
	for (i = 0; got[i] == model[i]; i++)
		;
	die("%s: byte %llu is %02x, expected %02x (range starts at %llu)", what,
	    (unsigned long long)(pos + i), got[i], model[i],
	    (unsigned long long)pos);
}

/*
 * Cut @total bytes into segments, each at an odd offset of a page of its own, so that no two
 * segments are adjacent in memory.
 */
static int cut(struct shape *s, struct iovec *iov, size_t total)
{
	unsigned int page = 0;
	int n = 0;

	while (total) {
		size_t len = SECTOR * (1 + rnd(rnd(4) ? 3 : 20));
		unsigned int off = SECTOR * rnd(PAGE / SECTOR);

		if (len > total || n == MAX_SEGS - 1)
			len = total;
		page += rnd(3);
		iov[n].iov_base = s->arena + page * PAGE + off;
		iov[n].iov_len = len;
		page += (off + len) / PAGE + 1;
		if (page + 32 > ARENA_PAGES)
			die("the arena is too small for %d segments", n);
		total -= len;
		n++;
	}
	return n;
}

static void vectored(struct shape *s, int rounds)
{
	struct iovec iov[MAX_SEGS];
	int i, j, n;

	for (i = 0; i < rounds; i++) {
		size_t len = SECTOR * (1 + rnd(160));
		uint64_t pos = SECTOR * rnd(s->size / SECTOR - 160);
		uint64_t p;

		n = cut(s, iov, len);
		for (j = 0, p = pos; j < n; p += iov[j++].iov_len) {
			fill(s->model + p, iov[j].iov_len, p, rng >> 40);
			memcpy(iov[j].iov_base, s->model + p, iov[j].iov_len);
		}
		if (pwritev(s->dev, iov, n, pos) != (ssize_t)len)
			die("pwritev of %d segments, %zu bytes: %m", n, len);

		/* Read the data and its surroundings back in other pieces. */
		if (pos >= SECTOR * 8)
			pos -= SECTOR * rnd(8);
		memset(s->arena, 0xee, ARENA_PAGES * PAGE);
		n = cut(s, iov, len);
		if (preadv(s->dev, iov, n, pos) != (ssize_t)len)
			die("preadv of %d segments, %zu bytes: %m", n, len);
		for (j = 0, p = pos; j < n; p += iov[j++].iov_len)
			compare(iov[j].iov_base, s->model + p, iov[j].iov_len,
				p, "preadv");
	}
}

/*
 * Submits adjacent requests together: the block layer merges them into requests with several bios.
 */
static void batch(struct shape *s, int rounds)
{
	static struct iocb iocbs[BATCH], *ptrs[BATCH];
	static struct io_event events[BATCH];
	aio_context_t ctx = 0;
	int i, j, write;

	if (syscall(SYS_io_setup, BATCH, &ctx))
		die("io_setup: %m");
	for (i = 0; i < 2 * rounds; i++) {
		uint64_t start = SECTOR * rnd(s->size / SECTOR - BATCH * 8);
		uint64_t pos = start;
		size_t at = 0;

		write = i % 2 == 0;
		for (j = 0; j < BATCH; j++) {
			size_t len = SECTOR * (1 + rnd(8));
			uint8_t *buf;

			at += SECTOR * rnd(12);
			buf = s->arena + at;
			at += len;
			if (write) {
				fill(s->model + pos, len, pos, rng >> 40);
				memcpy(buf, s->model + pos, len);
			} else {
				memset(buf, 0xee, len);
			}
			iocbs[j] = (struct iocb) {
				.aio_lio_opcode = write ? IOCB_CMD_PWRITE :
							  IOCB_CMD_PREAD,
				.aio_fildes = s->dev,
				.aio_buf = (uintptr_t)buf,
				.aio_nbytes = len,
				.aio_offset = pos,
				.aio_data = j,
			};
			ptrs[j] = &iocbs[j];
			pos += len;
		}
		/* Swap some neighbours, for front merges. */
		for (j = 0; j + 1 < BATCH; j++) {
			if (!rnd(5)) {
				struct iocb *tmp = ptrs[j];

				ptrs[j] = ptrs[j + 1];
				ptrs[j + 1] = tmp;
			}
		}
		if (syscall(SYS_io_submit, ctx, BATCH, ptrs) != BATCH)
			die("io_submit: %m");
		for (j = 0; j < BATCH;) {
			long n = syscall(SYS_io_getevents, ctx, 1, BATCH - j,
					 events + j, NULL);

			if (n < 0 && errno == EINTR)
				continue;
			if (n <= 0)
				die("io_getevents: %m");
			j += n;
		}
		for (j = 0; j < BATCH; j++) {
			struct iocb *iocb = &iocbs[events[j].data];

			if (events[j].res != (__s64)iocb->aio_nbytes)
				die("%s of %llu bytes at %lld: result %lld",
				    write ? "write" : "read",
				    (unsigned long long)iocb->aio_nbytes,
				    (long long)iocb->aio_offset,
				    (long long)events[j].res);
			if (!write)
				compare((void *)(uintptr_t)iocb->aio_buf,
					s->model + iocb->aio_offset,
					iocb->aio_nbytes, iocb->aio_offset,
					"merged read");
		}
	}
	syscall(SYS_io_destroy, ctx);
}

/* One system call for more than the maximum size of a request, from an address within a page. */
static void large(struct shape *s)
{
	size_t len = LARGE + SECTOR * rnd(64);
	uint64_t pos = SECTOR * rnd((s->size - len) / SECTOR);
	uint8_t *buf = mmap(NULL, len + PAGE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (buf == MAP_FAILED)
		die("mmap: %m");
	buf += SECTOR * (1 + rnd(7));
	fill(s->model + pos, len, pos, rng >> 40);
	memcpy(buf, s->model + pos, len);
	if (pwrite(s->dev, buf, len, pos) != (ssize_t)len)
		die("write of %zu bytes: %m", len);
	memset(buf, 0xee, len);
	if (pread(s->dev, buf, len, pos) != (ssize_t)len)
		die("read of %zu bytes: %m", len);
	compare(buf, s->model + pos, len, pos, "large read");
}

static void compare_all(struct shape *s)
{
	uint8_t *buf = malloc(s->size);
	uint64_t pos;
	int fd;

	if (!buf)
		die("malloc: %m");
	/* Through the page cache of the file. */
	fd = open(s->backing_name, O_RDONLY);
	if (fd < 0)
		die("open %s: %m", s->backing_name);
	for (pos = 0; pos < s->size;) {
		ssize_t n = pread(fd, buf + pos, s->size - pos,
				  s->offset + pos);

		if (n <= 0)
			die("read %s at %llu: %m", s->backing_name,
			    (unsigned long long)(s->offset + pos));
		pos += n;
	}
	close(fd);
	compare(buf, s->model, s->size, 0, "backing file");
	free(buf);
}

int shape(const char *dev, const char *backing, uint64_t offset,
		 uint64_t seed, int rounds)
{
	struct shape s = {
		.backing_name = backing,
		.offset = offset,
	};
	uint64_t pos;

	rng = seed;
	s.dev = open(dev, O_RDWR | O_DIRECT);
	if (s.dev < 0)
		die("open %s: %m", dev);
	if (ioctl(s.dev, BLKGETSIZE64, &s.size))
		die("BLKGETSIZE64: %m");
	if (s.size < 2 * LARGE)
		die("%s is too small", dev);
	s.model = mmap(NULL, s.size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	s.arena = mmap(NULL, (ARENA_PAGES + 64) * PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (s.model == MAP_FAILED || s.arena == MAP_FAILED)
		die("mmap: %m");
	for (pos = 0; pos < s.size;) {
		ssize_t n = pread(s.dev, s.model + pos, s.size - pos, pos);

		if (n <= 0)
			die("read %s at %llu: %m", dev, (unsigned long long)pos);
		pos += n;
	}
	compare_all(&s);

	vectored(&s, rounds);
	batch(&s, rounds / 5);
	large(&s);
	vectored(&s, rounds / 5);
	compare_all(&s);
	return 0;
}
