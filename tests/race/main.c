// SPDX-License-Identifier: GPL-2.0
/*
 * Races of processes that change a loop device while others do I/O on it.
 *
 *   loop_race fill FILE MIB TAG
 *	creates a file; each word has its offset within its MiB and the tag
 *   loop_race change-fd DEVICE FILE OTHER SECONDS
 *	DEVICE is attached to FILE, read-only: reads while the backing file alternates between
 *	FILE and OTHER; each block must be of one of them, and both must occur
 *   loop_race status DEVICE SECONDS
 *	DEVICE is attached to a file of 2 MiB: reads and writes while its offset, block size, name
 *	and direct I/O change: each block must have its contents of one of the two MiB
 *   loop_race autoclear DEVICE FILE SECONDS
 *	DEVICE is repeatedly attached with autoclear, opened, read and queried: a read must return
 *	a whole block or nothing
 *   loop_race partitions DEVICE FILE SECONDS
 *	FILE has a partition table: attached and detached while partitions are rescanned, added,
 *	deleted, opened and read
 *   loop_race cgroups DEVICE DIR SECONDS
 *	writes by processes in new cgroups in DIR, which are removed while the writes are in
 *	flight; the data must be on the device
 *
 * Prints "OPERATION RESULT COUNT" for each result of each operation; fails on an unexpected result
 * or wrong data.
 */
#include "race.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

const char *const ops[] = {
	"open", "read", "write", "change-fd", "set-status", "get-status", "block-size",
	"direct-io", "configure", "clear", "rescan", "add-partition", "del-partition",
	"open-partition", "read-partition", "first-file", "second-file", "nothing",
	"cgroup",
};

/* The errors with which an operation can fail. */
static const int can_fail[OPS][6] = {
	[OPEN] = { ENXIO },
	[CONFIGURE] = { EBUSY },
	[GET_STATUS] = { ENXIO },
	[CLEAR] = { ENXIO },
	/* A partition is open, or there is nothing to scan. */
	[RESCAN] = { EBUSY, EINVAL, EIO },
	[ADD_PARTITION] = { EBUSY, EINVAL, ENXIO },
	[DEL_PARTITION] = { EBUSY, ENXIO },
	[OPEN_PARTITION] = { ENOENT, ENXIO, ENODEV },
	/*
	 * A task that looked up a partition before its removal can open it afterwards, on a device
	 * that is no longer attached.
	 */
	[READ_PARTITION] = { EIO },
};

/* Counts of all processes, by operation and errno. */
static unsigned int (*counts)[256];
const char *device, *file_name, *other_name;
static double end;
static uint64_t state;

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec * 1e-9;
}

int going_on(void)
{
	return now() < end;
}

unsigned int below(unsigned int n)
{
	state = state * 6364136223846793005ull + 1442695040888963407ull;
	return (state >> 33) % n;
}

int count(enum op op, int ret)
{
	int n = ret < 0 ? errno : 0;
	unsigned int i;

	__atomic_fetch_add(&counts[op][n & 255], 1, __ATOMIC_RELAXED);
	for (i = 0; n && i < 6; i++)
		if (can_fail[op][i] == n)
			return ret;
	if (n)
		die("%s: %s", ops[op], strerrorname_np(n));
	return ret;
}

struct role {
	void (*run)(int arg);
	int arg;
};

/* Runs each role in a process until the time is over. */
static int race(const struct role *roles, int n, double seconds)
{
	int i, op, status, failed = 0;

	counts = mmap(NULL, OPS * sizeof(*counts), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (counts == MAP_FAILED)
		die("mmap: %m");
	end = now() + seconds;
	for (i = 0; i < n; i++) {
		pid_t pid = fork();

		if (pid < 0)
			die("fork: %m");
		if (pid)
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		state = i + 1;
		roles[i].run(roles[i].arg);
		_exit(0);
	}
	while (wait(&status) > 0)
		failed |= status;
	for (op = 0; op < OPS; op++)
		for (i = 0; i < 256; i++)
			if (counts[op][i])
				printf("%s %s %u\n", ops[op], i ? strerrorname_np(i) : "ok",
				       counts[op][i]);
	return failed ? 1 : 0;
}

#define RACE(roles, seconds) race(roles, sizeof(roles) / sizeof(*(roles)), atof(seconds))

int main(int argc, char **argv)
{
	static const struct role change_fd[] = {
		{ changer, 0 }, { reader, 1 }, { reader, 1 }, { reader, 1 },
	};
	static const struct role statuses[] = {
		{ mover, 0 }, { sizer, 0 }, { reader, 0 }, { reader, 0 }, { writer, 3 },
		{ writer, 4 },
	};
	static const struct role autoclear[] = {
		{ attacher, LO_FLAGS_AUTOCLEAR }, { attacher, LO_FLAGS_AUTOCLEAR },
		{ opener, 0 }, { opener, 0 }, { opener, 0 },
	};
	static const struct role partitions[] = {
		{ attacher, LO_FLAGS_PARTSCAN }, { scanner, 0 }, { scanner, 0 },
		{ partition_reader, 0 }, { partition_reader, 0 },
	};
	static const struct role cgroups[] = {
		{ cgroup_writer, 0 }, { cgroup_writer, 1 }, { cgroup_writer, 2 },
		{ cgroup_writer, 3 },
	};
	const char *what = argc > 1 ? argv[1] : "";

	device = argc > 2 ? argv[2] : NULL;
	file_name = argc > 3 ? argv[3] : NULL;
	other_name = argc > 4 ? argv[4] : NULL;
	if (!strcmp(what, "fill") && argc == 5)
		return make_file(argv[2], atoi(argv[3]), atoi(argv[4]));
	if (!strcmp(what, "change-fd") && argc == 6)
		return RACE(change_fd, argv[5]);
	if (!strcmp(what, "status") && argc == 4)
		return RACE(statuses, argv[3]);
	if (!strcmp(what, "autoclear") && argc == 5)
		return RACE(autoclear, argv[4]);
	if (!strcmp(what, "partitions") && argc == 5)
		return RACE(partitions, argv[4]);
	if (!strcmp(what, "cgroups") && argc == 5)
		return RACE(cgroups, argv[4]);
	fprintf(stderr, "usage: loop_race fill FILE MIB TAG\n"
			"       loop_race change-fd DEVICE FILE OTHER SECONDS\n"
			"       loop_race status DEVICE SECONDS\n"
			"       loop_race autoclear|partitions DEVICE FILE SECONDS\n"
			"       loop_race cgroups DEVICE DIR SECONDS\n");
	return 2;
}
