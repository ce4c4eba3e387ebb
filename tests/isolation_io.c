// SPDX-License-Identifier: GPL-2.0
/*
 * The neighbours of tests/isolation: processes, each in a cgroup, that keep a device busy until
 * they get SIGTERM.
 *
 *   isolation_io COUNTS DEVICE read|write|paged|fsync OFFSET SIZE DEPTH CGROUP...
 *
 * One process for each CGROUP (a directory), with a range of SIZE bytes of its own, the first at
 * OFFSET. "read" and "write" keep DEPTH direct 4 KiB requests in flight at random offsets, "paged"
 * writes through the page cache of the device, "fsync" has DEPTH tasks that each write a block and
 * call fsync. The file COUNTS gets the number of completed I/Os, 8 bytes for each process.
 *
 * On SIGTERM the processes are killed and waited for, without a time limit if they hang in the
 * kernel. Exits with 1 if one of them failed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define BLOCK		4096u
#define BATCH		32
#define MAX_DEPTH	65536

static uint64_t rng;
static uint8_t buf[BLOCK] __attribute__((aligned(BLOCK)));

static void __attribute__((noreturn, format(printf, 1, 2)))
die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fprintf(stderr, "isolation_io: ");
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	exit(1);
}

static uint64_t number(const char *s)
{
	char *end;
	uint64_t n = strtoull(s, &end, 0);

	if (end == s || *end)
		die("%s is no number", s);
	return n;
}

static int64_t somewhere(uint64_t offset, uint64_t size)
{
	rng = rng * 6364136223846793005ull + 1442695040888963407ull;
	return offset + (rng >> 33) % (size / BLOCK) * BLOCK;
}

static void submit(aio_context_t ctx, struct iocb **iocbs, long n)
{
	while (n > 0) {
		long some = n < BATCH ? n : BATCH;
		long done = syscall(SYS_io_submit, ctx, some, iocbs);

		if (done < 0) {
			if (errno == EAGAIN || errno == EINTR)
				continue;
			die("io_submit: %s", strerror(errno));
		}
		iocbs += done;
		n -= done;
	}
}

static void __attribute__((noreturn))
keep_in_flight(int fd, int op, uint64_t offset, uint64_t size, long depth,
	       volatile uint64_t *count)
{
	/* Not static: each of many processes would get a huge page. */
	struct iocb *iocbs = calloc(depth, sizeof(*iocbs));
	struct iocb **again = calloc(depth, sizeof(*again));
	struct io_event *events = calloc(depth, sizeof(*events));
	aio_context_t ctx = 0;
	long i, n;

	if (!iocbs || !again || !events)
		die("no memory");
	if (syscall(SYS_io_setup, depth, &ctx))
		die("io_setup: %s", strerror(errno));
	for (i = 0; i < depth; i++) {
		iocbs[i].aio_lio_opcode = op;
		iocbs[i].aio_fildes = fd;
		iocbs[i].aio_buf = (uintptr_t)buf;
		iocbs[i].aio_nbytes = BLOCK;
		iocbs[i].aio_offset = somewhere(offset, size);
		again[i] = &iocbs[i];
	}
	n = depth;
	for (;;) {
		submit(ctx, again, n);
		do
			n = syscall(SYS_io_getevents, ctx, 1L, depth, events, NULL);
		while (n < 0 && errno == EINTR);
		if (n < 0)
			die("io_getevents: %s", strerror(errno));
		for (i = 0; i < n; i++) {
			again[i] = (struct iocb *)(uintptr_t)events[i].obj;
			if (events[i].res != BLOCK)
				die("I/O at %lld: %s", (long long)again[i]->aio_offset,
				    strerror(events[i].res < 0 ? -events[i].res : EIO));
			again[i]->aio_offset = somewhere(offset, size);
		}
		*count += n;
	}
}

static void __attribute__((noreturn))
write_paged(int fd, uint64_t offset, uint64_t size, volatile uint64_t *count)
{
	for (;;) {
		int64_t pos = somewhere(offset, size);

		if (pwrite(fd, buf, BLOCK, pos) != BLOCK)
			die("write at %lld: %s", (long long)pos, strerror(errno));
		++*count;
	}
}

static void __attribute__((noreturn))
write_and_sync(int fd, uint64_t offset, uint64_t size, long tasks, volatile uint64_t *count)
{
	long i;

	for (i = 1; i < tasks; i++) {
		pid_t pid = fork();

		if (pid < 0)
			die("fork: %s", strerror(errno));
		if (!pid) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			rng += i * 1000;
			break;
		}
	}
	for (;;) {
		int64_t pos = somewhere(offset, size);

		if (pwrite(fd, buf, BLOCK, pos) != BLOCK || fsync(fd))
			die("write or fsync at %lld: %s", (long long)pos, strerror(errno));
		__atomic_fetch_add(count, 1, __ATOMIC_RELAXED);
	}
}

static void enter(const char *cgroup)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/cgroup.procs", cgroup);
	fd = open(path, O_WRONLY);
	if (fd < 0 || write(fd, "0", 1) != 1)
		die("%s: %s", path, strerror(errno));
	close(fd);
}

int main(int argc, char **argv)
{
	const char *device, *op;
	uint64_t offset, size, depth;
	volatile uint64_t *counts;
	int i, n, fd, failed = 0;
	sigset_t set;
	pid_t *pids;

	if (argc < 8)
		die("usage: isolation_io COUNTS DEVICE read|write|paged|fsync OFFSET SIZE DEPTH CGROUP...");
	device = argv[2];
	op = argv[3];
	offset = number(argv[4]);
	size = number(argv[5]);
	depth = number(argv[6]);
	n = argc - 7;
	if (strcmp(op, "read") && strcmp(op, "write") && strcmp(op, "paged") && strcmp(op, "fsync"))
		die("%s is not read, write, paged, or fsync", op);
	if (size < BLOCK || depth < 1 || depth > MAX_DEPTH)
		die("a SIZE of at least %u, and a DEPTH of 1 to %d", BLOCK, MAX_DEPTH);

	fd = open(argv[1], O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (fd < 0 || ftruncate(fd, n * sizeof(*counts)))
		die("%s: %s", argv[1], strerror(errno));
	counts = mmap(NULL, n * sizeof(*counts), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (counts == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	close(fd);
	pids = calloc(n, sizeof(*pids));
	if (!pids)
		die("no memory");

	/* Blocked and waited for below: an early signal is not lost. */
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	/* Also waits for the tasks of "fsync" after the exit of their parent. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	for (i = 0; i < n; i++) {
		pids[i] = fork();
		if (pids[i] < 0)
			die("fork: %s", strerror(errno));
		if (pids[i])
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		sigprocmask(SIG_UNBLOCK, &set, NULL);
		rng = i + 1;
		enter(argv[7 + i]);
		fd = open(device, !strcmp(op, "read") ? O_RDONLY | O_DIRECT :
			  !strcmp(op, "paged") ? O_WRONLY : O_WRONLY | O_DIRECT);
		if (fd < 0)
			die("%s: %s", device, strerror(errno));
		if (!strcmp(op, "paged"))
			write_paged(fd, offset + i * size, size, &counts[i]);
		if (!strcmp(op, "fsync"))
			write_and_sync(fd, offset + i * size, size, depth, &counts[i]);
		keep_in_flight(fd, *op == 'r' ? IOCB_CMD_PREAD : IOCB_CMD_PWRITE,
			       offset + i * size, size, depth, &counts[i]);
	}

	/* A process ends by itself only if it fails. */
	if (sigwaitinfo(&set, NULL) == SIGCHLD)
		failed = 1;
	for (i = 0; i < n; i++)
		kill(pids[i], SIGKILL);
	while (wait(NULL) > 0 || errno == EINTR)
		;
	return failed;
}
