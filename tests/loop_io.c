// SPDX-License-Identifier: GPL-2.0
/*
 * I/O patterns that dd and fio do not offer, for the tests of the loop driver.
 *
 *   loop_io pattern FILE SIZE SEED
 *	fill FILE with bytes that depend on their offset and on SEED
 *   loop_io shape DEV BACKING OFFSET SEED ROUNDS
 *	requests of unusual shape through DEV, which maps BACKING from OFFSET on: vectored direct
 *	I/O with 512-byte segments at odd page offsets, batches of adjacent requests, which are
 *	merged, and single requests that are split; DEV and BACKING must hold the written data,
 *	byte for byte
 *   loop_io deep DEV SIZE SEED DEPTH COUNT
 *	COUNT direct reads of random blocks, with DEPTH of them in flight, submitted one by one;
 *	DEV must hold the data of "pattern"
 *   loop_io rates DEV CONTROL SIZE ROUNDS READS
 *	in each round READS direct reads of random blocks of each device, alternating; prints the
 *	speed of DEV as a percentage of CONTROL's
 *   loop_io short DEV OFFSET SIZE DEPTH
 *	DEPTH direct reads of SIZE bytes at OFFSET, all in flight: the backing file ends within
 *	them, and each must fail with EIO
 *   loop_io order DEV COUNT
 *	COUNT direct writes of blocks that are not adjacent, all in flight, submitted one by one;
 *	prints their numbers, counted from 0, in the order of completion
 *   loop_io set-name DEV NAME
 *	LOOP_SET_STATUS64 with another name and an otherwise unchanged status
 *   loop_io clear-dirty DEV
 *	writes a block through the page cache and closes DEV; then LOOP_CLR_FD by another opener,
 *	whose close is the last one
 *   loop_io poll DEV
 *	a direct read with RWF_HIPRI, and one through a ring with IORING_SETUP_IOPOLL; prints the
 *	result of each: the number of bytes, or the error
 *   loop_io add N, loop_io remove N
 *	adds or removes the loop device of that number
 *   loop_io memory MIB READY GO
 *	allocates and fills memory, creates the file READY, waits for the file GO; the memory must
 *	be unchanged
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <linux/io_uring.h>
#include <linux/loop.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "loop_test.h"

#define SECTOR		512u
#define PAGE		4096u
#define ARENA_PAGES	1024u
#define MAX_SEGS	128
#define BATCH		128
#define LARGE		(4u << 20)

static void fill(uint8_t *buf, size_t len, uint64_t pos, uint64_t seed)
{
	size_t i;

	for (i = 0; i < len; i += sizeof(uint64_t)) {
		uint64_t v = (pos + i) * 0x9e3779b97f4a7c15ull ^ seed << 32;

		memcpy(buf + i, &v, sizeof(v));
	}
}

static int pattern(const char *name, uint64_t size, uint64_t seed)
{
	static uint8_t buf[1 << 16];
	int fd = open(name, O_WRONLY | O_CREAT, 0600);
	uint64_t pos;

	if (fd < 0)
		die("open %s: %m", name);
	for (pos = 0; pos < size; pos += sizeof(buf)) {
		size_t len = size - pos < sizeof(buf) ? size - pos : sizeof(buf);

		fill(buf, sizeof(buf), pos, seed);
		if (pwrite(fd, buf, len, pos) != (ssize_t)len)
			die("write %s: %m", name);
	}
	if (close(fd))
		die("close %s: %m", name);
	return 0;
}

struct shape {
	int dev;
	const char *backing_name;
	uint64_t offset;
	uint64_t size;
	/* The expected contents of the device. */
	uint8_t *model;
	/* Page-aligned room for the buffers. */
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
 * Adjacent requests submitted at once: the block layer merges them, so that a request has several
 * bios.
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
		/* Sometimes swap two neighbours: front merges, too. */
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

/* One system call for more than the maximum size of a request, from an odd address. */
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
	/* Through the page cache of the file, like any other reader. */
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

static int shape(const char *dev, const char *backing, uint64_t offset,
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

/* The buffer of a failed direct read has zeroes, not earlier contents of memory. */
static int zeroed(const char *path, off_t pos, size_t size)
{
	int fd = open(path, O_RDONLY | O_DIRECT);
	uint8_t *mem;
	size_t i;

	if (fd < 0)
		die("open %s: %m", path);
	if (posix_memalign((void **)&mem, PAGE, size))
		die("no memory");
	memset(mem, 0xa5, size);
	if (pread(fd, mem, size, pos) >= 0)
		die("the read did not fail");
	if (errno != EIO)
		die("the read failed: %m");
	for (i = 0; i < size; i++)
		if (mem[i])
			die("byte %zu is %02x", i, mem[i]);
	return 0;
}

static int memory(size_t size, const char *ready, const char *go)
{
	uint8_t *mem = mmap(NULL, size, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint8_t page[PAGE];
	size_t pos;
	int fd;

	if (mem == MAP_FAILED)
		die("mmap: %m");
	for (pos = 0; pos < size; pos += PAGE)
		fill(mem + pos, PAGE, pos, 1);
	fd = open(ready, O_WRONLY | O_CREAT, 0644);
	if (fd < 0)
		die("open %s: %m", ready);
	close(fd);
	while (access(go, F_OK))
		usleep(10000);
	for (pos = 0; pos < size; pos += PAGE) {
		fill(page, PAGE, pos, 1);
		if (memcmp(mem + pos, page, PAGE))
			die("wrong data in the page at %zu", pos);
	}
	return 0;
}

static int deep(const char *dev, uint64_t size, uint64_t seed, int depth, int count)
{
	int fd = open(dev, O_RDONLY | O_DIRECT), issued = 0, flying = 0, i;
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
	while (issued < count || flying) {
		/* The first I/Os fill the slots; later ones wait for a completion. */
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
				flying--;
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
			flying++;
		}
	}
	return 0;
}

static int order(const char *dev, int count)
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

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

/* The time that a direct read takes. */
static uint64_t timed_read(int fd, uint64_t size)
{
	static uint8_t buf[PAGE] __attribute__((aligned(PAGE)));
	uint64_t start = now_ns();

	if (pread(fd, buf, PAGE, (off_t)PAGE * rnd(size / PAGE)) != PAGE)
		die("read: %m");
	return now_ns() - start;
}

static int rates(const char *dev, const char *control, uint64_t size, int rounds, int reads)
{
	int fd[2] = { open(dev, O_RDONLY | O_DIRECT), open(control, O_RDONLY | O_DIRECT) };
	int i, j;

	if (fd[0] < 0 || fd[1] < 0)
		die("open %s or %s: %m", dev, control);
	if (size < PAGE)
		die("bad size");
	rng = getpid();
	/* The first round warms up. */
	for (i = 0; i <= rounds; i++) {
		uint64_t ns[2] = { 0, 0 };

		for (j = 0; j < reads; j++) {
			/* Alternate which device comes first. */
			ns[j % 2] += timed_read(fd[j % 2], size);
			ns[!(j % 2)] += timed_read(fd[!(j % 2)], size);
		}
		if (i)
			printf("%llu\n", (unsigned long long)(ns[1] * 100 / ns[0]));
	}
	return 0;
}

static int short_reads(const char *dev, off_t pos, size_t size, int depth)
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

static int set_name(const char *dev, const char *name)
{
	int fd = open(dev, O_RDWR);
	struct loop_info64 info;

	if (fd < 0)
		die("open %s: %m", dev);
	if (ioctl(fd, LOOP_GET_STATUS64, &info))
		die("LOOP_GET_STATUS64: %m");
	memset(info.lo_file_name, 0, sizeof(info.lo_file_name));
	strncpy((char *)info.lo_file_name, name, sizeof(info.lo_file_name) - 1);
	if (ioctl(fd, LOOP_SET_STATUS64, &info))
		die("LOOP_SET_STATUS64: %m");
	return 0;
}

static int clear_dirty(const char *dev)
{
	int keeper = open(dev, O_RDWR), writer = open(dev, O_RDWR);
	static uint8_t buf[PAGE];

	if (keeper < 0 || writer < 0)
		die("open %s: %m", dev);
	memset(buf, 'x', sizeof(buf));
	if (write(writer, buf, sizeof(buf)) != sizeof(buf))
		die("write %s: %m", dev);
	if (close(writer))
		die("close: %m");
	if (ioctl(keeper, LOOP_CLR_FD))
		die("LOOP_CLR_FD: %m");
	if (close(keeper))
		die("close: %m");
	return 0;
}

static void outcome(const char *what, long res)
{
	if (res >= 0)
		printf("%s %ld\n", what, res);
	else
		printf("%s %s\n", what, strerrorname_np(-res));
}

/* A ring with one entry, without liburing: one read and its result. */
static long ring_read(int fd, uint8_t *buf, uint32_t flags)
{
	struct io_uring_params p = { .flags = flags };
	int ring = syscall(SYS_io_uring_setup, 1, &p);
	size_t sq_size, cq_size;
	struct io_uring_sqe *sqe;
	uint8_t *sq, *cq;
	uint32_t *tail;

	if (ring < 0)
		die("io_uring_setup: %m");
	sq_size = p.sq_off.array + p.sq_entries * sizeof(uint32_t);
	cq_size = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
	sq = mmap(NULL, sq_size, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
	cq = mmap(NULL, cq_size, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_CQ_RING);
	sqe = mmap(NULL, sizeof(*sqe), PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
	if (sq == MAP_FAILED || cq == MAP_FAILED || sqe == MAP_FAILED)
		die("mmap of the ring: %m");
	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = IORING_OP_READ;
	sqe->fd = fd;
	sqe->addr = (uintptr_t)buf;
	sqe->len = PAGE;
	*(uint32_t *)(sq + p.sq_off.array) = 0;
	tail = (uint32_t *)(sq + p.sq_off.tail);
	__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
	if (syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
		die("io_uring_enter: %m");
	if (__atomic_load_n((uint32_t *)(cq + p.cq_off.tail), __ATOMIC_ACQUIRE) !=
	    *(uint32_t *)(cq + p.cq_off.head) + 1)
		die("no completion in the ring");
	return ((struct io_uring_cqe *)(cq + p.cq_off.cqes))->res;
}

static int poll_reads(const char *dev)
{
	static uint8_t buf[PAGE] __attribute__((aligned(PAGE)));
	struct iovec iov = { .iov_base = buf, .iov_len = PAGE };
	int fd = open(dev, O_RDONLY | O_DIRECT);
	ssize_t n;

	if (fd < 0)
		die("open %s: %m", dev);
	n = preadv2(fd, &iov, 1, 0, RWF_HIPRI);
	outcome("hipri", n < 0 ? -errno : n);
	outcome("ring", ring_read(fd, buf, 0));
	outcome("iopoll", ring_read(fd, buf, IORING_SETUP_IOPOLL));
	return 0;
}

static int control(unsigned long cmd, int number)
{
	int fd = open("/dev/loop-control", O_RDWR);

	if (fd < 0 || ioctl(fd, cmd, number) < 0)
		die("loop-control, device %d: %m", number);
	close(fd);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "add"))
		return control(LOOP_CTL_ADD, atoi(argv[2]));
	if (argc == 3 && !strcmp(argv[1], "remove"))
		return control(LOOP_CTL_REMOVE, atoi(argv[2]));
	if (argc == 5 && !strcmp(argv[1], "pattern"))
		return pattern(argv[2], strtoull(argv[3], NULL, 0),
			       strtoull(argv[4], NULL, 0));
	if (argc == 7 && !strcmp(argv[1], "shape"))
		return shape(argv[2], argv[3], strtoull(argv[4], NULL, 0),
			     strtoull(argv[5], NULL, 0), atoi(argv[6]));
	if (argc == 7 && !strcmp(argv[1], "deep"))
		return deep(argv[2], strtoull(argv[3], NULL, 0), strtoull(argv[4], NULL, 0),
			    atoi(argv[5]), atoi(argv[6]));
	if (argc == 7 && !strcmp(argv[1], "rates"))
		return rates(argv[2], argv[3], strtoull(argv[4], NULL, 0), atoi(argv[5]),
			     atoi(argv[6]));
	if (argc == 6 && !strcmp(argv[1], "short"))
		return short_reads(argv[2], strtoull(argv[3], NULL, 0),
				   strtoull(argv[4], NULL, 0), atoi(argv[5]));
	if (argc == 4 && !strcmp(argv[1], "set-name"))
		return set_name(argv[2], argv[3]);
	if (argc == 3 && !strcmp(argv[1], "clear-dirty"))
		return clear_dirty(argv[2]);
	if (argc == 3 && !strcmp(argv[1], "poll"))
		return poll_reads(argv[2]);
	if (argc == 4 && !strcmp(argv[1], "order"))
		return order(argv[2], atoi(argv[3]));
	if (argc == 5 && !strcmp(argv[1], "memory"))
		return memory(strtoull(argv[2], NULL, 0) << 20, argv[3], argv[4]);
	if (argc == 5 && !strcmp(argv[1], "zeroed"))
		return zeroed(argv[2], strtoull(argv[3], NULL, 0),
			      strtoull(argv[4], NULL, 0));
	fprintf(stderr, "usage: loop_io pattern FILE SIZE SEED\n"
			"       loop_io shape DEV BACKING OFFSET SEED ROUNDS\n"
			"       loop_io deep DEV SIZE SEED DEPTH COUNT\n"
			"       loop_io rates DEV CONTROL SIZE ROUNDS READS\n"
			"       loop_io short DEV OFFSET SIZE DEPTH\n"
			"       loop_io order DEV COUNT\n"
			"       loop_io set-name DEV NAME\n"
			"       loop_io clear-dirty DEV\n"
			"       loop_io poll DEV\n"
			"       loop_io add|remove N\n"
			"       loop_io memory MIB READY GO\n"
			"       loop_io zeroed DEV OFFSET SIZE\n");
	return 2;
}
