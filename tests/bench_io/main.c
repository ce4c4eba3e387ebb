// SPDX-License-Identifier: GPL-2.0
/*
 * I/O at a fixed depth, by one task or many, on one file or block device.
 *
 * Replaces fio in tests/bench. It starts in milliseconds on an emulated CPU, where fio takes most
 * of a second, and measures the work of all CPUs while the I/O is in flight, to the instruction if
 * the clock counts instructions.
 *
 * Depth 1 is pread() and pwrite(), more is Linux AIO; with -u, io_uring at any depth. Each task is
 * a process. The tasks are created in the given cgroups in turn, and do one I/O before the clock
 * starts. Prints a line NAME VALUE for each figure.
 */
#include "bench_io.h"

#include <linux/fs.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static const char usage[] =
"usage: bench_io [OPTION]... FILE [CGROUP...]\n"
"\n"
"  -b SIZE   size of an I/O in bytes (4096)\n"
"  -q N      I/Os of a task in flight (1)\n"
"  -B N      I/Os that are submitted and waited for together (1)\n"
"  -j N      number of tasks (1)\n"
"  -w N      percentage of writes (0)\n"
"  -s        sequential offsets instead of random ones\n"
"  -d        O_DIRECT\n"
"  -u        io_uring, set up as by fio\n"
"  -F        fsync after each write\n"
"  -T        discards instead of reads and writes\n"
"  -t MS     duration (1000)\n"
"  -n N      number of I/Os of each task, instead of a duration\n"
"  -m N      mark the measured phase, for scripts/plugins/profile.c\n";

/* Number of latencies that are kept, of all tasks. */
enum { SAMPLES = 1 << 20 };

/* As in scripts/plugins/profile.c. */
#define MARKS 0x10feed0000UL
enum { MARK_SIZE = 16, MARK_MAX = 15 };

struct shared *shared;
uint32_t *samples;
uint64_t sample_max;

const char *path;
uint64_t block = 4096, size, count;
int depth = 1, batch = 1, tasks = 1, write_percent, sequential, direct, uring, do_fsync, discard;

/* Maps functions that only return: the plugin recognizes a phase by their addresses. */
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

	/* The cost of the measurement. */
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
		/* These figures include I/Os that were in flight when the time was over. */
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
		/* Move the samples of all tasks together. */
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
