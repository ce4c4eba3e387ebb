// SPDX-License-Identifier: GPL-2.0
/*
 * I/O for corner cases of the data path, for the tests of the loop driver.
 *
 * All I/O is direct, in blocks of 4 KiB, unless said otherwise. The contents of a block depend on
 * its position and on a seed, as with "loop_io pattern".
 *
 *   loop_edges fragment FILE COUNT
 *	punches out the blocks 0, 2, 4, ... so that the file has COUNT extents
 *   loop_edges batch LOOP COUNT SEED DISK SECONDS aio|uring
 *	repeatedly submits 31 reads of random blocks of LOOP, among the COUNT blocks that
 *	"fragment" left, and one read of DISK, as one batch, at least three times; prints the
 *	number of batches
 *   loop_edges forget DISK MS
 *	drops the page cache of DISK, and the extents that file systems have cached, every MS
 *	milliseconds, forever
 *   loop_edges suspend NAME
 *	suspends and resumes the device-mapper device NAME until SIGTERM; prints how often
 *   loop_edges flood DEV read|write FIRST COUNT SIZE READY SEED...
 *	submits COUNT I/Os of SIZE bytes, which are adjacent from byte FIRST on, in an order
 *	without consecutive neighbours; creates the file READY when all are submitted; waits for
 *	them.  Writes use the first SEED.  Each read must match a SEED, or a "SEED+SHIFT" if DEV
 *	maps a file from SHIFT on.  Prints the number of reads of each SEED, the number of failed
 *	I/Os, and the number of reads that match no SEED as a whole
 *   loop_edges placed FILE FIRST COUNT SIZE SEED OFFSET...
 *	prints how many of the writes of "flood" are, as a whole, at each OFFSET in FILE, and how
 *	many are at none
 *   loop_edges dirty DEV FIRST COUNT
 *	writes COUNT blocks, every other one from byte FIRST on, through the page cache, and
 *	starts their writeback
 *   loop_edges crowd DEV FIRST CGROUP...
 *	a task in each CGROUP (a directory) writes one block; ends when all have
 *   loop_edges fsyncs DEV FIRST TASKS
 *	TASKS tasks that write one block and call fsync, forever
 *   loop_edges account DEV read|write COUNT
 *	does COUNT I/Os, one at a time; prints the kernel's accounting for the task:
 *	"read_bytes N write_bytes N inblock N outblock N"
 *   loop_edges nowait DEV COUNT N
 *	submits N reads with RWF_NOWAIT, one by one, of random blocks among those that "fragment"
 *	left; prints in how many submissions the task slept
 *   loop_edges change-fd DEV FILE
 *   loop_edges set-status DEV OFFSET SIZELIMIT
 *   loop_edges block-size DEV SIZE
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/dm-ioctl.h>
#include <linux/io_uring.h>
#include <linux/loop.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "loop_test.h"

#define BLOCK		4096u
#define BATCH		32
/* On a debug kernel a batch can take longer than the race. */
#define MIN_BATCHES	3
#define MAX_SOURCES	4
/* The order of I/Os: no two neighbours are consecutive. */
#define STRIDE		7919u

static void fill(uint8_t *buf, size_t len, uint64_t pos, uint64_t seed)
{
	size_t i;

	for (i = 0; i < len; i += sizeof(uint64_t)) {
		uint64_t v = (pos + i) * 0x9e3779b97f4a7c15ull ^ seed << 32;

		memcpy(buf + i, &v, sizeof(v));
	}
}

/* Whether @buf has the contents that fill() writes. */
static int holds(const uint8_t *buf, size_t len, uint64_t pos, uint64_t seed)
{
	size_t i;

	for (i = 0; i < len; i += sizeof(uint64_t)) {
		uint64_t v = (pos + i) * 0x9e3779b97f4a7c15ull ^ seed << 32;

		if (memcmp(buf + i, &v, sizeof(v)))
			return 0;
	}
	return 1;
}

static int open_at(const char *name, int flags)
{
	int fd = open(name, flags | O_CLOEXEC, 0600);

	if (fd < 0)
		die("open %s: %m", name);
	return fd;
}

static uint8_t *pages(size_t len)
{
	uint8_t *p = mmap(NULL, len, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (p == MAP_FAILED)
		die("mmap of %zu bytes: %m", len);
	return p;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static int fragment(const char *name, uint64_t count)
{
	int fd = open_at(name, O_RDWR);
	uint64_t i;

	for (i = 0; i < count; i++)
		if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			      i * 2 * BLOCK, BLOCK))
			die("fallocate: %m");
	if (fsync(fd))
		die("fsync %s: %m", name);
	return 0;
}

static uint64_t left_by_fragment(uint64_t count)
{
	return (rnd(count) * 2ull + 1) * BLOCK;
}

/* A batch of I/Os, by AIO or io_uring. */

struct io {
	int fd;
	uint64_t pos;
	int32_t res;
};

static struct {
	aio_context_t ctx;
	struct iocb iocbs[BATCH];
} aio;

static void aio_start(void)
{
	if (syscall(SYS_io_setup, BATCH, &aio.ctx))
		die("io_setup: %m");
}

static void aio_batch(struct io *io, uint8_t *buf)
{
	struct iocb *list[BATCH];
	struct io_event events[BATCH];
	long i, n, r;

	for (i = 0; i < BATCH; i++) {
		aio.iocbs[i] = (struct iocb) {
			.aio_data = i,
			.aio_lio_opcode = IOCB_CMD_PREAD,
			.aio_fildes = io[i].fd,
			.aio_buf = (uintptr_t)buf + i * BLOCK,
			.aio_nbytes = BLOCK,
			.aio_offset = io[i].pos,
		};
		list[i] = &aio.iocbs[i];
	}
	for (n = 0; n < BATCH; n += r) {
		r = syscall(SYS_io_submit, aio.ctx, BATCH - n, list + n);
		if (r <= 0)
			die("io_submit: %m");
	}
	for (n = 0; n < BATCH; n += r) {
		r = syscall(SYS_io_getevents, aio.ctx, 1l, (long)BATCH, events, NULL);
		if (r <= 0)
			die("io_getevents: %m");
		for (i = 0; i < r; i++)
			io[events[i].data].res = events[i].res;
	}
}

static struct {
	int fd;
	struct io_uring_sqe *sqes;
	uint32_t *sq_tail, *sq_mask, *sq_array;
	uint32_t *cq_head, *cq_tail, *cq_mask;
	struct io_uring_cqe *cqes;
} uring;

static void uring_start(void)
{
	struct io_uring_params p = { 0 };
	size_t sq, cq, size;
	uint8_t *ring;

	uring.fd = syscall(SYS_io_uring_setup, BATCH, &p);
	if (uring.fd < 0)
		die("io_uring_setup: %m");
	sq = p.sq_off.array + p.sq_entries * sizeof(uint32_t);
	cq = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
	size = sq > cq ? sq : cq;
	ring = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, uring.fd,
		    IORING_OFF_SQ_RING);
	uring.sqes = mmap(NULL, p.sq_entries * sizeof(struct io_uring_sqe),
			  PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, uring.fd,
			  IORING_OFF_SQES);
	if (ring == MAP_FAILED || uring.sqes == MAP_FAILED)
		die("mmap of the rings: %m");
	uring.sq_tail = (uint32_t *)(ring + p.sq_off.tail);
	uring.sq_mask = (uint32_t *)(ring + p.sq_off.ring_mask);
	uring.sq_array = (uint32_t *)(ring + p.sq_off.array);
	uring.cq_head = (uint32_t *)(ring + p.cq_off.head);
	uring.cq_tail = (uint32_t *)(ring + p.cq_off.tail);
	uring.cq_mask = (uint32_t *)(ring + p.cq_off.ring_mask);
	uring.cqes = (struct io_uring_cqe *)(ring + p.cq_off.cqes);
}

static void uring_batch(struct io *io, uint8_t *buf)
{
	uint32_t tail = *uring.sq_tail, head;
	int i, submitted = 0, done = 0;

	for (i = 0; i < BATCH; i++) {
		uint32_t at = (tail + i) & *uring.sq_mask;

		uring.sqes[at] = (struct io_uring_sqe) {
			.opcode = IORING_OP_READ,
			.fd = io[i].fd,
			.off = io[i].pos,
			.addr = (uintptr_t)buf + i * BLOCK,
			.len = BLOCK,
			.user_data = i,
		};
		uring.sq_array[at] = at;
	}
	__atomic_store_n(uring.sq_tail, tail + BATCH, __ATOMIC_RELEASE);
	while (done < BATCH) {
		int r = syscall(SYS_io_uring_enter, uring.fd, BATCH - submitted, 1,
				IORING_ENTER_GETEVENTS, NULL, 0);

		if (r < 0 && errno != EINTR)
			die("io_uring_enter: %m");
		if (r > 0)
			submitted += r;
		head = *uring.cq_head;
		while (head != __atomic_load_n(uring.cq_tail, __ATOMIC_ACQUIRE)) {
			struct io_uring_cqe *cqe = &uring.cqes[head++ & *uring.cq_mask];

			io[cqe->user_data].res = cqe->res;
			done++;
		}
		__atomic_store_n(uring.cq_head, head, __ATOMIC_RELEASE);
	}
}

static int batch(const char *loop_name, uint64_t count, uint64_t seed, const char *disk_name,
		 double seconds, int use_uring)
{
	static const int places[] = { 0, BATCH / 2, BATCH - 1 };
	int loop = open_at(loop_name, O_RDONLY | O_DIRECT);
	int disk = open_at(disk_name, O_RDONLY | O_DIRECT);
	uint8_t *buf = pages(BATCH * BLOCK);
	double end = now() + seconds;
	struct io io[BATCH];
	long n = 0;
	int i;

	rng = getpid();
	if (use_uring)
		uring_start();
	else
		aio_start();
	for (; n < MIN_BATCHES || now() < end; n++) {
		int place = places[rnd(3)];

		for (i = 0; i < BATCH; i++) {
			io[i].fd = i == place ? disk : loop;
			io[i].pos = i == place ? rnd(1000) * BLOCK : left_by_fragment(count);
			io[i].res = 0;
		}
		if (use_uring)
			uring_batch(io, buf);
		else
			aio_batch(io, buf);
		for (i = 0; i < BATCH; i++) {
			if (io[i].res != (int)BLOCK)
				die("batch %ld, I/O %d: %d", n, i, io[i].res);
			if (i != place && !holds(buf + i * BLOCK, BLOCK, io[i].pos, seed))
				die("batch %ld: the block at %llu is wrong", n,
				    (unsigned long long)io[i].pos);
		}
	}
	printf("%ld\n", n);
	return 0;
}

static int forget(const char *disk_name, int ms)
{
	int disk = open_at(disk_name, O_RDONLY);
	int control = open_at("/proc/sys/vm/drop_caches", O_WRONLY);

	/* Without a line in the kernel log each time. */
	if (pwrite(control, "4", 1, 0) != 1)
		die("drop_caches: %m");
	for (;;) {
		if (posix_fadvise(disk, 0, 0, POSIX_FADV_DONTNEED))
			die("posix_fadvise");
		if (pwrite(control, "2", 1, 0) != 1)
			die("drop_caches: %m");
		usleep(ms * 1000);
	}
}

static volatile sig_atomic_t stopped;

static void stop(int sig)
{
	(void)sig;
	stopped = 1;
}

/* Without dmsetup, which would be read from disk each time. */
static int suspend(const char *name)
{
	int control = open_at("/dev/mapper/control", O_RDWR);
	struct dm_ioctl arg;
	long n = 0;
	int i;

	signal(SIGTERM, stop);
	while (!stopped) {
		for (i = 0; i < 2; i++) {
			memset(&arg, 0, sizeof(arg));
			arg.version[0] = DM_VERSION_MAJOR;
			arg.data_size = sizeof(arg);
			arg.data_start = sizeof(arg);
			snprintf(arg.name, sizeof(arg.name), "%s", name);
			if (!i)
				arg.flags = DM_SUSPEND_FLAG | DM_SKIP_LOCKFS_FLAG;
			if (ioctl(control, DM_DEV_SUSPEND, &arg))
				die("%s %s: %m", i ? "resume" : "suspend", name);
		}
		n++;
		usleep(30000);
	}
	printf("%ld\n", n);
	return 0;
}

static uint64_t place_of(uint64_t i, uint64_t count)
{
	/* Coprime to the number of I/Os, unless that is a multiple of it. */
	return i * STRIDE % count;
}

struct source {
	uint64_t seed, shift;
	long found;
};

static int flood(const char *name, const char *op, uint64_t first, long count, uint64_t size,
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

static int placed(const char *name, uint64_t first, uint64_t count, uint64_t size, uint64_t seed,
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

static int dirty(const char *name, uint64_t first, uint64_t count)
{
	int fd = open_at(name, O_WRONLY);
	uint8_t *buf = pages(BLOCK);
	uint64_t i;

	for (i = 0; i < count; i++)
		if (pwrite(fd, buf, BLOCK, first + i * 2 * BLOCK) != (ssize_t)BLOCK)
			die("write: %m");
	if (sync_file_range(fd, first, count * 2 * BLOCK, SYNC_FILE_RANGE_WRITE))
		die("sync_file_range: %m");
	return 0;
}

/* A child in another cgroup from its first instruction on: no migration. */
static pid_t fork_into(const char *cgroup)
{
	int fd = open_at(cgroup, O_RDONLY | O_DIRECTORY);
	struct clone_args args = {
		.flags = CLONE_INTO_CGROUP,
		.exit_signal = SIGCHLD,
		.cgroup = fd,
	};
	pid_t pid = syscall(SYS_clone3, &args, sizeof(args));

	if (pid < 0)
		die("clone into %s: %m", cgroup);
	close(fd);
	return pid;
}

static int wait_for_all(int n)
{
	int status, failed = 0;

	while (n--) {
		if (wait(&status) < 0)
			die("wait: %m");
		failed |= status;
	}
	return failed ? 1 : 0;
}

static int crowd(const char *name, uint64_t first, char **cgroups, int n)
{
	int fd = open_at(name, O_WRONLY | O_DIRECT), i;
	uint8_t *buf = pages(BLOCK);

	prctl(PR_SET_CHILD_SUBREAPER, 1);
	for (i = 0; i < n; i++) {
		if (fork_into(cgroups[i]))
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		/* Not adjacent. */
		_exit(pwrite(fd, buf, BLOCK, first + i * 2ull * BLOCK) != (ssize_t)BLOCK);
	}
	return wait_for_all(n);
}

static int fsyncs(const char *name, uint64_t first, int n)
{
	uint8_t *buf = pages(BLOCK);
	int i;

	for (i = 0; i < n; i++) {
		pid_t pid = fork();
		int fd;

		if (pid < 0)
			die("fork: %m");
		if (pid)
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		fd = open_at(name, O_WRONLY | O_DIRECT);
		for (;;)
			if (pwrite(fd, buf, BLOCK, first + i * 2ull * BLOCK) != (ssize_t)BLOCK ||
			    fsync(fd))
				_exit(1);
	}
	return wait_for_all(n);
}

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

static int account(const char *name, const char *op, long count)
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

static int nowait(const char *name, uint64_t count, int n)
{
	int fd = open_at(name, O_RDONLY | O_DIRECT), i, slept = 0, again = 0;
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
			again++;
		else if (event.res != BLOCK)
			die("read: %lld", (long long)event.res);
	}
	printf("slept %d again %d longest %.1f ms\n", slept, again, longest * 1000);
	return 0;
}

static int set_status(const char *name, uint64_t offset, uint64_t sizelimit)
{
	int fd = open_at(name, O_RDWR);
	struct loop_info64 info;

	if (ioctl(fd, LOOP_GET_STATUS64, &info))
		die("LOOP_GET_STATUS64: %m");
	info.lo_offset = offset;
	info.lo_sizelimit = sizelimit;
	if (ioctl(fd, LOOP_SET_STATUS64, &info))
		die("LOOP_SET_STATUS64: %m");
	return 0;
}

static int simple(const char *name, unsigned long cmd, unsigned long arg)
{
	int fd = open_at(name, O_RDONLY);

	if (ioctl(fd, cmd, arg))
		die("ioctl %#lx: %m", cmd);
	return 0;
}

int main(int argc, char **argv)
{
	const char *cmd = argc > 1 ? argv[1] : "";

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 4 && !strcmp(cmd, "fragment"))
		return fragment(argv[2], number(argv[3]));
	if (argc == 8 && !strcmp(cmd, "batch"))
		return batch(argv[2], number(argv[3]), number(argv[4]), argv[5], number(argv[6]),
			     !strcmp(argv[7], "uring"));
	if (argc == 4 && !strcmp(cmd, "forget"))
		return forget(argv[2], number(argv[3]));
	if (argc == 3 && !strcmp(cmd, "suspend"))
		return suspend(argv[2]);
	if (argc >= 9 && !strcmp(cmd, "flood"))
		return flood(argv[2], argv[3], number(argv[4]), number(argv[5]), number(argv[6]),
			     argv[7], argv + 8, argc - 8);
	if (argc >= 8 && !strcmp(cmd, "placed"))
		return placed(argv[2], number(argv[3]), number(argv[4]), number(argv[5]),
			      number(argv[6]), argv + 7, argc - 7);
	if (argc == 5 && !strcmp(cmd, "dirty"))
		return dirty(argv[2], number(argv[3]), number(argv[4]));
	if (argc >= 5 && !strcmp(cmd, "crowd"))
		return crowd(argv[2], number(argv[3]), argv + 4, argc - 4);
	if (argc == 5 && !strcmp(cmd, "fsyncs"))
		return fsyncs(argv[2], number(argv[3]), number(argv[4]));
	if (argc == 5 && !strcmp(cmd, "account"))
		return account(argv[2], argv[3], number(argv[4]));
	if (argc == 5 && !strcmp(cmd, "nowait"))
		return nowait(argv[2], number(argv[3]), number(argv[4]));
	if (argc == 4 && !strcmp(cmd, "change-fd"))
		return simple(argv[2], LOOP_CHANGE_FD, open_at(argv[3], O_RDONLY));
	if (argc == 5 && !strcmp(cmd, "set-status"))
		return set_status(argv[2], number(argv[3]), number(argv[4]));
	if (argc == 4 && !strcmp(cmd, "block-size"))
		return simple(argv[2], LOOP_SET_BLOCK_SIZE, number(argv[3]));
	printf("usage: see the head of loop_edges.c\n");
	return 2;
}
