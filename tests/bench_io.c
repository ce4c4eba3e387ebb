// SPDX-License-Identifier: GPL-2.0
/*
 * I/O at a fixed depth, by one task or many, on one file or block device.
 *
 * A replacement of fio for tests/bench: it starts in milliseconds on an emulated CPU, where fio
 * takes most of a second, and measures the whole machine exactly while the I/O is in flight, to the
 * instruction if the clock counts instructions.
 *
 * Depth 1 is pread() and pwrite(), more is Linux AIO; with -u, io_uring at any depth. Each task is
 * a process. With cgroups given, tasks are created in them in turn, and do one I/O before the clock
 * starts. Prints NAME VALUE.
 */

#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <linux/io_uring.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char usage[] =
"usage: bench_io [OPTION]... FILE [CGROUP...]\n"
"\n"
"  -b SIZE   of an I/O, in bytes (4096)\n"
"  -q N      in flight at once, of a task (1)\n"
"  -B N      submit and wait for N together (1)\n"
"  -j N      tasks (1)\n"
"  -w N      how many of 100 are writes (0)\n"
"  -s        one after the other, not at random\n"
"  -d        O_DIRECT\n"
"  -u        by io_uring, set up as fio does it\n"
"  -F        fsync after each write\n"
"  -T        discards\n"
"  -t MS     for so long (1000)\n"
"  -n N      so many of each task, however long it takes\n"
"  -m N      mark the measured phase, for scripts/profile-plugin.c\n";

enum { SAMPLES = 1 << 20, BATCH_MAX = 128 };

struct shared {
	volatile int stop;
	/* errno of a failed call in a task, and its name */
	volatile int error;
	char where[64];
	struct per_task {
		volatile uint64_t done;
	} __attribute__((aligned(64))) task[];
};

/* As in scripts/profile-plugin.c. */
#define MARKS 0x10feed0000UL
enum { MARK_SIZE = 16, MARK_MAX = 15 };

static struct shared *shared;
static uint32_t *samples;
static uint64_t sample_max;

static const char *path;
static uint64_t block = 4096, size, count;
static int depth = 1, batch = 1, tasks = 1, write_percent, sequential, direct, uring, do_fsync, discard;

static uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

static void nap(uint64_t ns)
{
	struct timespec ts = { ns / 1000000000, ns % 1000000000 };

	while (nanosleep(&ts, &ts) && errno == EINTR)
		;
}

/* The plugin recognizes a phase by the address of these instructions, which return. */
static void make_marks(void)
{
	unsigned char *p = mmap((void *)MARKS, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	if (p == MAP_FAILED)
		err(1, "mmap");
	/* ret */
	memset(p, 0xc3, 4096);
}

static void mark(unsigned long n)
{
	((void (*)(void))(MARKS + n * MARK_SIZE))();
}

/*
 * The work of all CPUs up to now: nanoseconds that they ran tasks other than the idle tasks, and
 * context switches. The time of a task is counted when it leaves the CPU, hence the sleep.
 */
struct machine {
	uint64_t busy, switches;
};

static struct machine machine(void)
{
	static char buf[65536];
	struct machine m = { 0, 0 };
	unsigned long long ns;
	ssize_t n;
	char *p;
	int fd;

	nap(1000000);
	fd = open("/proc/schedstat", O_RDONLY);
	n = read(fd, buf, sizeof(buf) - 1);
	if (n <= 0)
		err(1, "/proc/schedstat");
	close(fd);
	buf[n] = 0;
	for (p = buf; p; p = (p = strchr(p, '\n')) ? p + 1 : NULL)
		if (sscanf(p, "cpu%*u %*u %*u %*u %*u %*u %*u %llu", &ns) == 1)
			m.busy += ns;
	fd = open("/proc/stat", O_RDONLY);
	n = read(fd, buf, sizeof(buf) - 1);
	if (n <= 0)
		err(1, "/proc/stat");
	close(fd);
	buf[n] = 0;
	p = strstr(buf, "\nctxt ");
	if (!p)
		errx(1, "/proc/stat has no ctxt");
	m.switches = strtoull(p + 6, NULL, 10);
	return m;
}

static void fail(const char *where, int error)
{
	if (!shared->error) {
		snprintf(shared->where, sizeof(shared->where), "%s", where);
		shared->error = error ? error : EIO;
	}
	_exit(1);
}

/* --- a task --- */

static uint64_t seed, sequence, first_block, blocks;

static uint64_t next_offset(void)
{
	uint64_t at;

	if (sequential) {
		at = first_block + sequence++ % blocks;
	} else {
		/* xorshift64 */
		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		at = (seed >> 11) % blocks;
	}
	return at * block;
}

static int next_is_write(void)
{
	static unsigned int n;

	/* 70/30: seven of ten I/Os are reads, in a fixed order */
	return write_percent == 100 || (write_percent && n++ * 37 % 100 < (unsigned int)write_percent);
}

static inline void account(int i, uint64_t since)
{
	uint64_t n = shared->task[i].done, ns = now() - since;

	samples[i * sample_max + n % sample_max] = ns > UINT32_MAX ? UINT32_MAX : ns;
	shared->task[i].done = n + 1;
}

static void one_sync(int fd, void *buf)
{
	uint64_t offset = next_offset();

	if (discard) {
		uint64_t range[2] = { offset, block };

		if (ioctl(fd, BLKDISCARD, range))
			fail("discard", errno);
	} else if (next_is_write()) {
		if (pwrite(fd, buf, block, offset) != (ssize_t)block)
			fail("write", errno);
		if (do_fsync && fsync(fd))
			fail("fsync", errno);
	} else if (pread(fd, buf, block, offset) != (ssize_t)block) {
		fail("read", errno);
	}
}

static void task_sync(int i, int fd, void *buf)
{
	while (!shared->stop && (!count || shared->task[i].done < count)) {
		uint64_t since = now();

		one_sync(fd, buf);
		account(i, since);
	}
}

static void task_aio(int i, int fd, char *buf)
{
	struct iocb *iocbs = calloc(depth, sizeof(*iocbs)), *list[BATCH_MAX];
	struct io_event *events = calloc(depth, sizeof(*events));
	uint64_t *since = calloc(depth, sizeof(*since)), issued = 0;
	int *free_slots = calloc(depth, sizeof(*free_slots)), nr_free = depth, flying = 0, k;
	aio_context_t ctx = 0;

	if (!iocbs || !events || !since || !free_slots || syscall(SYS_io_setup, depth, &ctx))
		fail("io_setup", errno);
	for (k = 0; k < depth; k++)
		free_slots[k] = k;
	for (;;) {
		int over = shared->stop || (count && issued >= count), n;

		while (nr_free && !over) {
			for (n = 0; n < batch && nr_free && (!count || issued < count); n++, issued++) {
				int slot = free_slots[--nr_free];
				struct iocb *io = &iocbs[slot];

				io->aio_data = slot;
				io->aio_lio_opcode = next_is_write() ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD;
				io->aio_fildes = fd;
				io->aio_buf = (uintptr_t)(buf + slot * block);
				io->aio_nbytes = block;
				io->aio_offset = next_offset();
				since[slot] = now();
				list[n] = io;
			}
			for (k = 0; k < n;) {
				int done = syscall(SYS_io_submit, ctx, n - k, list + k);

				if (done <= 0)
					fail("io_submit", errno);
				k += done;
			}
			flying += n;
			over = count && issued >= count;
		}
		if (!flying)
			break;
		n = syscall(SYS_io_getevents, ctx, batch < flying ? batch : flying, depth, events, NULL);
		if (n <= 0)
			fail("io_getevents", errno);
		for (k = 0; k < n; k++) {
			if (events[k].res != (int64_t)block)
				fail("I/O", events[k].res < 0 ? -events[k].res : EIO);
			account(i, since[events[k].data]);
			free_slots[nr_free++] = events[k].data;
		}
		flying -= n;
	}
}

struct ring {
	int fd;
	unsigned int *sq_tail, *sq_array, sq_mask, *cq_head, *cq_tail, cq_mask;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
};

static char *ring_map(int fd, size_t bytes, off_t offset)
{
	char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, offset);

	if (p == MAP_FAILED)
		fail("mmap of a ring", errno);
	return p;
}

static void ring_init(struct ring *r)
{
	struct io_uring_params p = {
		.flags = IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
	};
	char *sq, *cq;
	unsigned int k;

	r->fd = syscall(SYS_io_uring_setup, depth, &p);
	if (r->fd < 0)
		fail("io_uring_setup", errno);
	sq = ring_map(r->fd, p.sq_off.array + p.sq_entries * sizeof(*r->sq_array), IORING_OFF_SQ_RING);
	cq = ring_map(r->fd, p.cq_off.cqes + p.cq_entries * sizeof(*r->cqes), IORING_OFF_CQ_RING);
	r->sqes = (void *)ring_map(r->fd, p.sq_entries * sizeof(*r->sqes), IORING_OFF_SQES);
	r->sq_tail = (void *)(sq + p.sq_off.tail);
	r->sq_array = (void *)(sq + p.sq_off.array);
	r->sq_mask = p.sq_entries - 1;
	r->cq_head = (void *)(cq + p.cq_off.head);
	r->cq_tail = (void *)(cq + p.cq_off.tail);
	r->cq_mask = p.cq_entries - 1;
	r->cqes = (void *)(cq + p.cq_off.cqes);
	for (k = 0; k < p.sq_entries; k++)
		r->sq_array[k] = k;
}

static void ring_enter(struct ring *r, unsigned int submit, unsigned int wait)
{
	int done;

	do {
		done = syscall(SYS_io_uring_enter, r->fd, submit, wait,
			       wait ? IORING_ENTER_GETEVENTS : 0, NULL, 0);
	} while (done < 0 && errno == EINTR);
	if (done != (int)submit)
		fail("io_uring_enter", done < 0 ? errno : EIO);
}

static void task_uring(int i, int fd, char *buf)
{
	uint64_t *since = calloc(depth, sizeof(*since)), issued = 0;
	int *free_slots = calloc(depth, sizeof(*free_slots)), nr_free = depth, flying = 0, k;
	struct ring r;

	if (!since || !free_slots)
		fail("calloc", errno);
	ring_init(&r);
	for (k = 0; k < depth; k++)
		free_slots[k] = k;
	for (;;) {
		int over = shared->stop || (count && issued >= count), n;
		unsigned int head, tail;

		while (nr_free && !over) {
			for (n = 0; n < batch && nr_free && (!count || issued < count); n++, issued++) {
				int slot = free_slots[--nr_free];
				struct io_uring_sqe *sqe = &r.sqes[*r.sq_tail & r.sq_mask];

				memset(sqe, 0, sizeof(*sqe));
				sqe->opcode = next_is_write() ? IORING_OP_WRITE : IORING_OP_READ;
				sqe->fd = fd;
				sqe->off = next_offset();
				sqe->addr = (uintptr_t)(buf + slot * block);
				sqe->len = block;
				sqe->user_data = slot;
				since[slot] = now();
				__atomic_store_n(r.sq_tail, *r.sq_tail + 1, __ATOMIC_RELEASE);
			}
			ring_enter(&r, n, 0);
			flying += n;
			over = count && issued >= count;
		}
		if (!flying)
			break;
		ring_enter(&r, 0, batch < flying ? batch : flying);
		head = *r.cq_head;
		tail = __atomic_load_n(r.cq_tail, __ATOMIC_ACQUIRE);
		for (; head != tail; head++, flying--) {
			struct io_uring_cqe *cqe = &r.cqes[head & r.cq_mask];

			if (cqe->res != (int64_t)block)
				fail("I/O", cqe->res < 0 ? -cqe->res : EIO);
			account(i, since[cqe->user_data]);
			free_slots[nr_free++] = cqe->user_data;
		}
		__atomic_store_n(r.cq_head, head, __ATOMIC_RELEASE);
	}
}

static void task(int i, int go, int ready, int finished, int over)
{
	int fd = open(path, ((write_percent || discard) ? O_RDWR : O_RDONLY) | (direct ? O_DIRECT : 0));
	uint64_t all = size / block, k;
	char *buf, c;

	if (fd < 0)
		fail("open", errno);
	blocks = all;
	if (sequential) {
		/* Each task has a part of the file. */
		blocks = all / tasks ? all / tasks : 1;
		first_block = blocks * i;
	}
	seed = 88172645463325252ULL + i * 2654435761ULL;
	buf = mmap(NULL, depth * block, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (buf == MAP_FAILED)
		fail("mmap", errno);
	for (k = 0; k < depth * block; k++)
		buf[k] = k * 7 + i;
	for (k = 0; k < sample_max; k += 1024)
		samples[i * sample_max + k] = 1;

	one_sync(fd, buf);
	if (write(ready, "", 1) != 1)
		fail("write to a pipe", errno);
	/* until no process has the other end open */
	if (read(go, &c, 1) != 0)
		fail("read from a pipe", errno);
	if (uring)
		task_uring(i, fd, buf);
	else if (depth == 1)
		task_sync(i, fd, buf);
	else
		task_aio(i, fd, buf);
	if (write(finished, "", 1) != 1)
		fail("write to a pipe", errno);
	/* The exit of a task is not part of its I/O. */
	if (read(over, &c, 1) != 0)
		_exit(1);
	_exit(0);
}

/* --- all tasks --- */

static int ascending(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static void wait_for_all(int fd)
{
	char c;
	int i;

	for (i = 0; i < tasks; i++)
		if (read(fd, &c, 1) != 1)
			errx(1, "%s: %s: %s", path, shared->error ? shared->where : "a task died",
			     shared->error ? strerror(shared->error) : "no reason known");
}

static uint64_t number(const char *s, uint64_t least, uint64_t most)
{
	char *end;
	uint64_t n = strtoull(s, &end, 0);

	if (*end || end == s || n < least || n > most)
		errx(2, "%s is not a number from %llu to %llu", s,
		     (unsigned long long)least, (unsigned long long)most);
	return n;
}

int main(int argc, char **argv)
{
	int go[2], ready[2], finished[2], over[2], groups, i, fd, opt, *cgroups;
	uint64_t ms = 1000, start, ns, sum = 0, least = UINT64_MAX, most = 0, n, k, marked = 0;
	struct machine before, after, empty = { UINT64_MAX, UINT64_MAX };
	uint32_t *sorted;
	struct stat st;

	while ((opt = getopt(argc, argv, "hb:q:B:j:w:sduFTt:n:m:")) != -1) {
		switch (opt) {
		case 'h':	fputs(usage, stdout); return 0;
		case 'b':	block = number(optarg, 512, 1 << 24); break;
		case 'q':	depth = number(optarg, 1, 65536); break;
		case 'B':	batch = number(optarg, 1, BATCH_MAX); break;
		case 'j':	tasks = number(optarg, 1, 65536); break;
		case 'w':	write_percent = number(optarg, 0, 100); break;
		case 's':	sequential = 1; break;
		case 'd':	direct = 1; break;
		case 'u':	uring = 1; break;
		case 'F':	do_fsync = 1; break;
		case 'T':	discard = 1; break;
		case 't':	ms = number(optarg, 1, 86400000); break;
		case 'n':	count = number(optarg, 1, UINT64_MAX); break;
		case 'm':	marked = number(optarg, 1, MARK_MAX); break;
		default:	fputs(usage, stderr); return 2;
		}
	}
	if (marked)
		make_marks();
	if (optind >= argc) {
		fputs(usage, stderr);
		return 2;
	}
	if ((depth > 1 || uring) && (do_fsync || discard))
		errx(2, "-F and -T are for -q 1 without -u");
	path = argv[optind++];
	groups = argc - optind;

	fd = open(path, O_RDONLY);
	if (fd < 0 || fstat(fd, &st))
		err(1, "%s", path);
	size = st.st_size;
	if (S_ISBLK(st.st_mode) && ioctl(fd, BLKGETSIZE64, &size))
		err(1, "%s", path);
	close(fd);
	if (size < block)
		errx(1, "%s is smaller than one I/O", path);

	sample_max = SAMPLES / tasks;
	if (count && count < sample_max)
		sample_max = count;
	shared = mmap(NULL, sizeof(*shared) + tasks * sizeof(shared->task[0]),
		      PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	samples = mmap(NULL, tasks * sample_max * sizeof(*samples),
		       PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	cgroups = calloc(groups + 1, sizeof(*cgroups));
	if (shared == MAP_FAILED || samples == MAP_FAILED || !cgroups ||
	    pipe(go) || pipe(ready) || pipe(finished) || pipe(over))
		err(1, "no memory");
	for (i = 0; i < groups; i++) {
		cgroups[i] = open(argv[optind + i], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (cgroups[i] < 0)
			err(1, "%s", argv[optind + i]);
	}
	for (i = 0; i < tasks; i++) {
		struct clone_args args = {
			.flags = groups ? CLONE_INTO_CGROUP : 0,
			.exit_signal = SIGCHLD,
			.cgroup = groups ? cgroups[i % groups] : 0,
		};
		pid_t pid = syscall(SYS_clone3, &args, sizeof(args));

		if (pid < 0)
			err(1, "clone3");
		if (!pid) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			close(go[1]);
			close(ready[0]);
			close(finished[0]);
			close(over[1]);
			task(i, go[0], ready[1], finished[1], over[0]);
		}
	}
	close(ready[1]);
	close(finished[1]);
	wait_for_all(ready[0]);

	/* The cost of measuring itself. */
	for (i = 0; i < 3; i++) {
		before = machine();
		after = machine();
		if (after.busy - before.busy < empty.busy)
			empty.busy = after.busy - before.busy;
		if (after.switches - before.switches < empty.switches)
			empty.switches = after.switches - before.switches;
	}
	before = machine();
	start = now();
	if (marked)
		mark(marked);
	close(go[1]);
	if (!count) {
		nap(ms * 1000000);
		shared->stop = 1;
		for (i = 0; i < tasks; i++)
			sum += shared->task[i].done;
		ns = now() - start;
		wait_for_all(finished[0]);
		/* The figures of the machine include I/Os in flight at that time. */
		after = machine();
	} else {
		wait_for_all(finished[0]);
		if (marked)
			mark(0);
		ns = now() - start;
		after = machine();
	}
	close(over[1]);
	while (wait(NULL) > 0)
		;
	if (shared->error)
		errx(1, "%s: %s: %s", path, shared->where, strerror(shared->error));

	n = 0;
	k = 0;
	for (i = 0; i < tasks; i++) {
		uint64_t done = shared->task[i].done, j, have = done < sample_max ? done : sample_max;

		least = done < least ? done : least;
		most = done > most ? done : most;
		n += done;
		/* one after the other, without gaps */
		for (j = 0; j < have; j++)
			samples[k++] = samples[i * sample_max + j];
	}
	if (!n || !k)
		errx(1, "%s: not one I/O in %llu ms", path, (unsigned long long)ms);
	sorted = samples;
	qsort(sorted, k, sizeof(*sorted), ascending);
	after.busy -= before.busy + empty.busy;
	after.switches -= before.switches + empty.switches;
	printf("ios %llu\nns %llu\n", (unsigned long long)(count ? n : sum), (unsigned long long)ns);
	printf("busy %.2f\nswitches %.4f\n", (double)(int64_t)after.busy / n, (double)(int64_t)after.switches / n);
	printf("p50 %u\np99 %u\np99.9 %u\n", sorted[k / 2], sorted[k * 99 / 100], sorted[k * 999 / 1000]);
	printf("least %llu\nmost %llu\n", (unsigned long long)least, (unsigned long long)most);
	return 0;
}
