// SPDX-License-Identifier: GPL-2.0
/*
 * Several processes at once that change a loop device under each other's I/O.
 *
 *   loop_race fill FILE MIB TAG
 *	creates a file; each word has its offset within its MiB and the tag
 *   loop_race change-fd DEVICE FILE OTHER SECONDS
 *	DEVICE is attached to FILE, read-only: reads while the backing file alternates between
 *	FILE and OTHER; each block is of one of them, and both are seen
 *   loop_race status DEVICE SECONDS
 *	DEVICE is attached to a file of 2 MiB: reads and writes while its offset, block size, name
 *	and direct I/O change: each block is at its place in one of the MiBs
 *   loop_race autoclear DEVICE FILE SECONDS
 *	DEVICE is repeatedly attached with autoclear, opened, read and queried: a read returns a
 *	whole block or nothing
 *   loop_race partitions DEVICE FILE SECONDS
 *	FILE has a partition table: attached and detached while partitions are rescanned, added,
 *	deleted, opened and read
 *   loop_race cgroups DEVICE DIR SECONDS
 *	writes by processes in new cgroups in DIR, which are removed while the writes are in
 *	flight; the data must be there
 *
 * Prints "OPERATION RESULT COUNT" for each result of each operation; fails on an unexpected result
 * or wrong data.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/blkpg.h>
#include <linux/fs.h>
#include <linux/loop.h>
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
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "loop_test.h"

#define BLOCK		4096
#define WORDS		(BLOCK / sizeof(uint64_t))
#define SPAN		(1 << 20)
#define BLOCKS		(SPAN / BLOCK)

enum op {
	OPEN, READ, WRITE, CHANGE_FD, SET_STATUS, GET_STATUS, SET_BLOCK, DIRECT_IO,
	CONFIGURE, CLEAR, RESCAN, ADD_PARTITION, DEL_PARTITION, OPEN_PARTITION,
	READ_PARTITION, FIRST, SECOND, NOTHING, CGROUP, OPS
};

static const char *const ops[] = {
	"open", "read", "write", "change-fd", "set-status", "get-status", "block-size",
	"direct-io", "configure", "clear", "rescan", "add-partition", "del-partition",
	"open-partition", "read-partition", "first-file", "second-file", "nothing",
	"cgroup",
};

/* The errors with which each can fail. */
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
static const char *device, *file_name, *other_name;
static double end;
static uint64_t state;

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec * 1e-9;
}

static int going_on(void)
{
	return now() < end;
}

static unsigned int below(unsigned int n)
{
	state = state * 6364136223846793005ull + 1442695040888963407ull;
	return (state >> 33) % n;
}

static int count(enum op op, int ret)
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

static int open_file(const char *name, int flags)
{
	int fd = open(name, flags | O_CLOEXEC);

	if (fd < 0)
		die("open %s: %m", name);
	return fd;
}

static void *block(void)
{
	void *p;

	if (posix_memalign(&p, BLOCK, BLOCK))
		die("no memory");
	return p;
}

static uint64_t word(uint64_t pos, unsigned int tag)
{
	return pos % SPAN << 16 | tag;
}

static void fill(uint64_t *buf, uint64_t pos, unsigned int tag)
{
	unsigned int i;

	for (i = 0; i < WORDS; i++)
		buf[i] = word(pos + i * 8, tag);
}

/* Each word is at its place. Returns the tag, which all words must share if `one`. */
static unsigned int verify(const uint64_t *buf, uint64_t pos, int one)
{
	unsigned int i, tag = buf[0] & 0xffff;

	for (i = 0; i < WORDS; i++) {
		if (buf[i] >> 16 != (pos + i * 8) % SPAN)
			die("%#llx at %#llx", (unsigned long long)buf[i],
			    (unsigned long long)pos + i * 8);
		if (one && (buf[i] & 0xffff) != tag)
			die("two tags at %#llx", (unsigned long long)pos + i * 8);
	}
	return tag;
}

/* Reads a whole block, or with `or_nothing` maybe nothing. */
static int read_block(int fd, enum op op, uint64_t *buf, uint64_t pos, int or_nothing)
{
	ssize_t len;

	memset(buf, 0xee, BLOCK);
	len = count(op, pread(fd, buf, BLOCK, pos));
	if (or_nothing && len == 0) {
		count(NOTHING, 0);
		return 0;
	}
	if (len < 0)
		return 0;
	if (len != BLOCK)
		die("%s: %zd bytes", ops[op], len);
	return 1;
}

static int make_file(const char *name, int mib, int tag)
{
	int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600), i;
	uint64_t *buf = block();

	if (fd < 0)
		die("%s: %m", name);
	for (i = 0; i < mib * BLOCKS; i++) {
		fill(buf, (uint64_t)i * BLOCK, tag);
		if (pwrite(fd, buf, BLOCK, (off_t)i * BLOCK) != BLOCK)
			die("%s: %m", name);
	}
	return close(fd);
}

static void reader(int other)
{
	int fd = open_file(device, O_RDONLY | O_DIRECT);
	uint64_t *buf = block(), pos;

	while (going_on()) {
		pos = (uint64_t)below(BLOCKS) * BLOCK;
		read_block(fd, READ, buf, pos, 0);
		if (!other)
			verify(buf, pos, 0);
		else
			count(verify(buf, pos, 1) == 1 ? FIRST : SECOND, 0);
	}
}

static void writer(int tag)
{
	int fd = open_file(device, O_RDWR | O_DIRECT);
	uint64_t *buf = block(), pos;

	while (going_on()) {
		pos = (uint64_t)below(BLOCKS) * BLOCK;
		fill(buf, pos, tag);
		errno = EIO;
		count(WRITE, pwrite(fd, buf, BLOCK, pos) == BLOCK ? 0 : -1);
	}
}

static void changer(int unused)
{
	int fd = open_file(device, O_RDONLY), i = 0;
	int files[] = { open_file(other_name, O_RDONLY), open_file(file_name, O_RDONLY) };

	(void)unused;
	while (going_on())
		count(CHANGE_FD, ioctl(fd, LOOP_CHANGE_FD, files[i++ % 2]));
	/* Restore the first file. */
	count(CHANGE_FD, ioctl(fd, LOOP_CHANGE_FD, files[1]));
}

static void mover(int unused)
{
	int fd = open_file(device, O_RDWR);
	struct loop_info64 info;
	unsigned int i;

	(void)unused;
	for (i = 1; going_on(); i++) {
		if (ioctl(fd, LOOP_GET_STATUS64, &info))
			die("LOOP_GET_STATUS64: %m");
		info.lo_offset = i % 2 * SPAN;
		info.lo_sizelimit = SPAN;
		snprintf((char *)info.lo_file_name, LO_NAME_SIZE, "name %u", i);
		count(SET_STATUS, ioctl(fd, LOOP_SET_STATUS64, &info));
	}
}

static void sizer(int unused)
{
	int fd = open_file(device, O_RDWR);
	unsigned int i;

	(void)unused;
	for (i = 1; going_on(); i++) {
		count(SET_BLOCK, ioctl(fd, LOOP_SET_BLOCK_SIZE, i % 2 ? 4096ul : 512ul));
		count(DIRECT_IO, ioctl(fd, LOOP_SET_DIRECT_IO, (unsigned long)(i / 2 % 2)));
	}
}

static void attacher(int flags)
{
	struct loop_config config = { .info.lo_flags = flags };
	int fd;

	config.fd = open_file(file_name, O_RDWR);
	while (going_on()) {
		fd = count(OPEN, open(device, O_RDWR | O_CLOEXEC));
		if (fd < 0)
			continue;
		if (!count(CONFIGURE, ioctl(fd, LOOP_CONFIGURE, &config)) &&
		    !(flags & LO_FLAGS_AUTOCLEAR)) {
			usleep(below(40000));
			count(CLEAR, ioctl(fd, LOOP_CLR_FD));
		}
		close(fd);
		/* If all processes always had it open, there would be no last close. */
		usleep(below(4000));
	}
}

static void opener(int unused)
{
	struct loop_info64 info;
	uint64_t *buf = block(), pos;
	int fd, whole, bound;

	(void)unused;
	while (going_on()) {
		fd = count(OPEN, open(device, O_RDONLY | O_DIRECT | O_CLOEXEC));
		if (fd < 0)
			continue;
		bound = !count(GET_STATUS, ioctl(fd, LOOP_GET_STATUS64, &info));
		pos = (uint64_t)below(BLOCKS) * BLOCK;
		/* It is not detached while it is open here. */
		whole = read_block(fd, READ, buf, pos, !bound);
		if (whole)
			verify(buf, pos, 1);
		close(fd);
		usleep(below(4000));
	}
}

static void scanner(int unused)
{
	struct blkpg_partition part = {
		.start = 768 << 10, .length = 64 << 10, .pno = 4,
	};
	struct blkpg_ioctl_arg arg = { .datalen = sizeof(part), .data = &part };
	int fd;

	(void)unused;
	while (going_on()) {
		fd = count(OPEN, open(device, O_RDONLY | O_CLOEXEC));
		if (fd < 0)
			continue;
		count(RESCAN, ioctl(fd, BLKRRPART));
		arg.op = BLKPG_ADD_PARTITION;
		count(ADD_PARTITION, ioctl(fd, BLKPG, &arg));
		arg.op = BLKPG_DEL_PARTITION;
		count(DEL_PARTITION, ioctl(fd, BLKPG, &arg));
		close(fd);
		usleep(below(10000));
	}
}

/* The starts of the partitions in KiB: those of the table, and the added one. */
static const unsigned int starts[] = { 64, 256, 512, 768 };

static void partition_reader(int unused)
{
	uint64_t *buf = block();
	char name[64];
	int fd, nr;

	(void)unused;
	while (going_on()) {
		nr = below(4);
		snprintf(name, sizeof(name), "%sp%d", device, nr + 1);
		fd = count(OPEN_PARTITION, open(name, O_RDONLY | O_DIRECT | O_CLOEXEC));
		if (fd < 0) {
			usleep(500);
			continue;
		}
		/*
		 * Another partition can have the device number of the name by the time of the open.
		 */
		if (read_block(fd, READ_PARTITION, buf, 0, 1)) {
			for (nr = 0; nr < 3 && buf[0] >> 16 != starts[nr] << 10; nr++)
				;
			verify(buf, starts[nr] << 10, 1);
		}
		close(fd);
		usleep(below(4000));
	}
}

static void join(const char *cgroup)
{
	char name[4200];
	int fd;

	snprintf(name, sizeof(name), "%s/cgroup.procs", cgroup);
	fd = open_file(name, O_WRONLY);
	if (write(fd, "0", 1) != 1)
		die("%s: %m", name);
	close(fd);
}

#define AT_ONCE 8

static void cgroup_writer(int nr)
{
	int fd = open_file(device, O_RDWR | O_DIRECT), i, n = 0;
	struct io_event events[AT_ONCE];
	struct iocb iocbs[AT_ONCE], *pointers[AT_ONCE];
	uint64_t *bufs[AT_ONCE], *back = block(), pos;
	aio_context_t ctx = 0;
	char name[4096];

	if (syscall(SYS_io_setup, AT_ONCE, &ctx))
		die("io_setup: %m");
	for (i = 0; i < AT_ONCE; i++)
		bufs[i] = block();
	while (going_on()) {
		snprintf(name, sizeof(name), "%s/loop_rs-race-%d-%d", file_name, nr, n++);
		if (mkdir(name, 0755))
			die("mkdir %s: %m", name);
		join(name);
		memset(iocbs, 0, sizeof(iocbs));
		for (i = 0; i < AT_ONCE; i++) {
			/* Each process has a part of the device. */
			pos = ((uint64_t)nr * 64 + (n * AT_ONCE + i) % 64) * BLOCK;
			fill(bufs[i], pos, n & 0xffff);
			iocbs[i].aio_lio_opcode = IOCB_CMD_PWRITE;
			iocbs[i].aio_fildes = fd;
			iocbs[i].aio_buf = (uintptr_t)bufs[i];
			iocbs[i].aio_nbytes = BLOCK;
			iocbs[i].aio_offset = pos;
			pointers[i] = &iocbs[i];
		}
		if (syscall(SYS_io_submit, ctx, AT_ONCE, pointers) != AT_ONCE)
			die("io_submit: %m");
		join(file_name);
		count(CGROUP, rmdir(name));
		if (syscall(SYS_io_getevents, ctx, AT_ONCE, AT_ONCE, events, NULL) != AT_ONCE)
			die("io_getevents: %m");
		for (i = 0; i < AT_ONCE; i++) {
			errno = -events[i].res;
			count(WRITE, events[i].res == BLOCK ? 0 : -1);
			read_block(fd, READ, back, iocbs[i].aio_offset, 0);
			if (memcmp(back, bufs[i], BLOCK))
				die("wrong data at %#llx",
				    (unsigned long long)iocbs[i].aio_offset);
		}
	}
}

struct role {
	void (*run)(int arg);
	int arg;
};

/* All roles run until the end of the time. */
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
