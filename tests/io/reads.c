// SPDX-License-Identifier: GPL-2.0
/*
 * Direct reads, one at a time: a failed read, the speed of reads, polled reads, reads as many
 * cgroups.
 */
#include "io.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* A failed direct read must not leave earlier contents of memory in the buffer. */
int zeroed(const char *path, off_t pos, size_t size)
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

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

/* Returns the duration of a direct read in ns. */
static uint64_t timed_read(int fd, uint64_t size)
{
	static uint8_t buf[PAGE] __attribute__((aligned(PAGE)));
	uint64_t start = now_ns();

	if (pread(fd, buf, PAGE, (off_t)PAGE * rnd(size / PAGE)) != PAGE)
		die("read: %m");
	return now_ns() - start;
}

int rates(const char *dev, const char *control, uint64_t size, int rounds, int reads)
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

static void outcome(const char *what, long res)
{
	if (res >= 0)
		printf("%s %ld\n", what, res);
	else
		printf("%s %s\n", what, strerrorname_np(-res));
}

/* Returns the result of a read through a new ring with one entry. */
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

int poll_reads(const char *dev)
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

int read_as_cgroups(const char *parent, int count, char **devices, int n_devices)
{
	static uint8_t buf[PAGE] __attribute__((aligned(PAGE)));
	char path[PATH_MAX];
	int i, fd;

	for (i = 0; i < count; i++) {
		const char *dev = devices[i % n_devices];

		snprintf(path, sizeof(path), "%s/%d", parent, i + 1);
		if (mkdir(path, 0755))
			die("mkdir %s: %m", path);
		strncat(path, "/cgroup.procs", sizeof(path) - strlen(path) - 1);
		fd = open(path, O_WRONLY);
		if (fd < 0 || write(fd, "0", 1) != 1)
			die("write %s: %m", path);
		close(fd);
		fd = open(dev, O_RDONLY | O_DIRECT);
		if (fd < 0)
			die("open %s: %m", dev);
		if (pread(fd, buf, sizeof(buf), 0) != sizeof(buf))
			die("read %s: %m", dev);
		close(fd);
	}
	return 0;
}
