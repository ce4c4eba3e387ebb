// SPDX-License-Identifier: GPL-2.0
/*
 * Everything at once: verified I/O to several loop devices by tasks in cgroups that are
 * throttled, changed, left, killed and removed, while the devices are attached, detached,
 * reconfigured, added and removed, and the file systems below are frozen and thawed.
 *
 *   loop_chaos run DRIVER DIR OTHER MEM CGROUP MODEL SECONDS SEED SLOW
 *	DIR and OTHER are on file systems on disks, which can be the same, MEM is on tmpfs;
 *	CGROUP is an empty cgroup with memory and io for its children. Prints
 *	"OPERATION RESULT COUNT" for each result of each operation, "too few: ..." for
 *	what was not done often enough; fails if something went wrong. MODEL is a file
 *	to be made, with what has to be in the other files in the end.
 *   loop_chaos verify MODEL DIR OTHER MEM
 *	the files have what MODEL says, read as files
 *
 * Each word of a block says of which file, block and generation it is, and where in the
 * block. Each block has one writer, which notes the generation before it writes it and after
 * that is acknowledged: whatever reads the block must find one from in between. When the
 * writer is killed, the block has either of the two, and the next writer sees which. Odd
 * generations are zeroes, as discarding and zeroing leave them.
 *
 * No I/O may fail. Who has a device open that was found to be bound keeps it bound:
 * LOOP_CLR_FD takes effect at the last close. What can fail is in ops[]: mostly opening and
 * binding a device that another task is about to detach, bind or remove, and joining a cgroup
 * that is about to go.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "loop_test.h"

#define BLOCK		4096u
#define WORDS		(BLOCK / sizeof(uint64_t))

/*
 * The ends of a data file are nobody's, as the partition scanner leaves them in the page
 * cache of the device, which asynchronous direct I/O does not invalidate.
 */
#define EDGE		64u
#define RANGE		128u
#define RANGES		3u
#define DATA_BLOCKS	(EDGE + RANGES * RANGE + EDGE)
/* By how much a file may be longer. */
#define GROWTH		64u

/* The device that is moved shows one of these spans of its file. */
#define SPAN		256u
#define SPANS		3u
#define MAX_BLOCKS	1024u

/* The devices are numbered from 0 to that. */
#define NUMBERS		12
#define GROUPS		6

/* Those that can be killed at any time, those that run until they are told to stop, and all. */
#define MORTALS		15u
#define LASTING		22u
#define TASKS		(LASTING + 1)
#define DEPTH		32u
#define EXTENT		4u

/* The first four are alike, but for where their files are. */
enum slot { DATA, MEMORY = 3, SHIFT, RDONLY, CHURN, SLOTS };

enum op {
	OPEN, PROBE, CONFIGURE, GET_FREE, ADD, REMOVE, REMOVE_USED, LOCK, READ, OTHERS_READ,
	AIO, WRITE, FUA_WRITE, BUFFERED_WRITE, SYNC, DISCARD, ZERO_OUT, RESOLVE, CLOSE,
	GET_STATUS, SET_STATUS, DIRECT_IO, SET_BLOCK, RESIZE, RESCAN, CLEAR, DETACH,
	FILE_CHECK, MOVE, CHANGE_FD, FIRST_FILE, SECOND_FILE, MAKE_CGROUP, KILL_CGROUP,
	LEAVE_CGROUP, LIMIT_IO, LIMIT_MEMORY, JOIN, MIGRATE, KILLED, FREEZE, THAW, HELD_UP,
	SYSFS, WORKERS, PARKING, OPS
};

/* How often each has to succeed, or there was none of it; and how it can fail otherwise. */
static const struct {
	const char *name;
	unsigned int least;
	int can_fail[3];
	bool rust_only;
} ops[OPS] = {
	/* Detached, or removed, at this moment. */
	[OPEN]		= { "open", 10, { ENXIO, ENOENT, ENODEV } },
	/* Detached meanwhile: what it was bound to is asked for to find out. */
	[PROBE]		= { "probe", 10, { ENXIO } },
	/* Somebody else was first. */
	[CONFIGURE]	= { "configure", 5, { EBUSY } },
	[GET_FREE]	= { "get-free", 3, { 0 } },
	[ADD]		= { "add", 3, { EEXIST } },
	/* Used by somebody else already, or being removed. */
	[REMOVE]	= { "remove", 3, { EBUSY, ENODEV } },
	/* This one must fail. */
	[REMOVE_USED]	= { "remove-used", 2, { 0 } },
	[LOCK]		= { "lock", 0, { 0 } },
	[READ]		= { "read", 50, { 0 } },
	[OTHERS_READ]	= { "others-read", 10, { 0 } },
	[AIO]		= { "aio", 20, { 0 } },
	[WRITE]		= { "write", 50, { 0 } },
	[FUA_WRITE]	= { "fua-write", 5, { 0 } },
	[BUFFERED_WRITE] = { "buffered-write", 10, { 0 } },
	[SYNC]		= { "sync", 5, { 0 } },
	[DISCARD]	= { "discard", 5, { 0 } },
	[ZERO_OUT]	= { "zero-out", 5, { 0 } },
	[RESOLVE]	= { "resolve", 10, { 0 } },
	[CLOSE]		= { "close", 0, { 0 } },
	[GET_STATUS]	= { "get-status", 5, { 0 } },
	[SET_STATUS]	= { "set-status", 5, { 0 } },
	/* Files on tmpfs may not have it. */
	[DIRECT_IO]	= { "direct-io", 5, { EINVAL } },
	[SET_BLOCK]	= { "block-size", 5, { 0 } },
	[RESIZE]	= { "resize", 5, { 0 } },
	/* Not scanned for partitions at all. */
	[RESCAN]	= { "rescan", 1, { EINVAL } },
	[CLEAR]		= { "clear", 5, { 0 } },
	[DETACH]	= { "detach", 5, { 0 } },
	[FILE_CHECK]	= { "file-check", 5, { 0 } },
	[MOVE]		= { "move", 5, { 0 } },
	[CHANGE_FD]	= { "change-fd", 5, { 0 } },
	[FIRST_FILE]	= { "first-file", 1, { 0 } },
	[SECOND_FILE]	= { "second-file", 1, { 0 } },
	[MAKE_CGROUP]	= { "make-cgroup", 5, { 0 } },
	[KILL_CGROUP]	= { "kill-cgroup", 2, { 0 } },
	[LEAVE_CGROUP]	= { "leave-cgroup", 2, { 0 } },
	/* The device is gone, or bound under another number. */
	[LIMIT_IO]	= { "limit-io", 5, { ENODEV } },
	[LIMIT_MEMORY]	= { "limit-memory", 5, { 0 } },
	/* The cgroup has just been removed. */
	[JOIN]		= { "join", 10, { ENOENT, ENODEV } },
	/* The task has just ended. */
	[MIGRATE]	= { "migrate", 5, { ESRCH } },
	[KILLED]	= { "killed", 2, { 0 } },
	[FREEZE]	= { "freeze", 3, { 0 } },
	[THAW]		= { "thaw", 3, { 0 } },
	[HELD_UP]	= { "held-up", 1, { 0 } },
	[SYSFS]		= { "sysfs", 10, { 0 } },
	[WORKERS]	= { "workers", 5, { 0 }, true },
	[PARKING]	= { "parking", 1, { 0 }, true },
};

/* Of a block. */
struct model {
	uint32_t acked, pending, last;
};

struct task {
	pid_t pid;
	/* What it is at, and since when in ms; 0 when it is not at anything that can hang. */
	int op;
	uint64_t since;
	int slot;
	/* Which slot's device it has open, or -1. */
	int open;
	unsigned int lives;
	int over;
};

struct group {
	char name[64];
	int alive;
};

struct shared {
	uint32_t salt;
	int stop;
	unsigned int counts[OPS][256];
	uint64_t verified;
	struct {
		int number;
		unsigned int epoch;
	} slots[SLOTS];
	struct group groups[GROUPS];
	struct task tasks[TASKS];
	struct model blocks[SLOTS][MAX_BLOCKS];
};

static struct shared *sh;
static struct task *me;
static const char *my_name = "main";
static const char *cgroup_dir, *model_name;
static char file_names[SLOTS][4096], second_name[4096];
static struct stat file_stats[SLOTS], second_stat;
static int locks[SLOTS];
static int dir_fds[2];
static dev_t disks[2];
static int control = -1;
static unsigned int slow = 1;
/* It's not the C driver. */
static bool rust;
static uint64_t *io_buf;

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ull + ts.tv_nsec / 1000000;
}

#define load(x)		__atomic_load_n(&(x), __ATOMIC_SEQ_CST)
#define store(x, v)	__atomic_store_n(&(x), v, __ATOMIC_SEQ_CST)

static bool going_on(void)
{
	return !load(sh->stop);
}

/* die() with what is needed to see who it was. */
#define bad(fmt, ...)								\
	die("%s[%d], at %llu ms, file %d on loop%d: " fmt, my_name, getpid(),	\
	    (unsigned long long)now_ms(), me ? me->slot : -1,			\
	    me && me->slot >= 0 ? sh->slots[me->slot].number : -1, ##__VA_ARGS__)

/* From here to count() or leave() the watchdog looks at how long it takes. */
static void enter(enum op op)
{
	me->op = op;
	store(me->since, now_ms());
}

static void leave(void)
{
	store(me->since, 0);
}

static void add_count(enum op op, int err, unsigned int n)
{
	__atomic_fetch_add(&sh->counts[op][err & 255], n, __ATOMIC_RELAXED);
}

static int count(enum op op, int ret)
{
	int err = ret < 0 ? errno : 0;
	unsigned int i;

	leave();
	add_count(op, err, 1);
	for (i = 0; err && i < 3; i++)
		if (ops[op].can_fail[i] == err)
			return ret;
	if (err)
		bad("%s: %s", ops[op].name, strerrorname_np(err));
	return ret;
}

/* Do `call` as `op`. */
#define doing(op, call)		(enter(op), count(op, call))

static void *blocks(unsigned int n)
{
	void *p;

	if (posix_memalign(&p, BLOCK, (size_t)n * BLOCK))
		die("no memory");
	return p;
}

static void doze(unsigned int max_us)
{
	usleep(rnd(max_us) + 1);
}

/*
 * What is in a block
 */

static uint64_t word(int slot, unsigned int block, unsigned int i, uint32_t gen)
{
	return (uint64_t)gen << 40 | (uint64_t)slot << 36 | (uint64_t)block << 20 | i << 11 |
	       sh->salt;
}

static void fill(uint64_t *buf, int slot, unsigned int block, uint32_t gen)
{
	unsigned int i;

	for (i = 0; i < WORDS; i++)
		buf[i] = gen & 1 ? 0 : word(slot, block, i, gen);
}

struct seen {
	uint32_t min, max;
	unsigned int zeroes;
};

static void __attribute__((noreturn))
not_right(const uint64_t *buf, int slot, unsigned int block, unsigned int i, uint32_t lo,
	  uint32_t hi, const char *where)
{
	uint64_t w = buf[i];

	printf("generations by 512 bytes:");
	for (unsigned int j = 0; j < WORDS; j += 64)
		printf(" %u", (unsigned int)(buf[j] >> 40));
	printf("\n");
	bad("%s, file %d, block %u, byte %u: %016llx, which is generation %u of word %u of block %u of file %d, salt %s; expected generation %u to %u",
	    where, slot, block, i * 8, (unsigned long long)w, (unsigned int)(w >> 40),
	    (unsigned int)(w >> 11 & 511), (unsigned int)(w >> 20 & 0xffff),
	    (int)(w >> 36 & 15), (w & 0x7ff) == sh->salt ? "right" : "wrong", lo, hi);
}

/* Each word is of a generation from `lo` to `hi`, and at its place. */
static struct seen check(const uint64_t *buf, int slot, unsigned int block, uint32_t lo,
			 uint32_t hi, const char *where)
{
	struct seen seen = { .min = UINT32_MAX };
	uint64_t place = word(slot, block, 0, 0);
	unsigned int i;

	for (i = 0; i < WORDS; i++) {
		uint32_t gen = buf[i] >> 40;

		if (!buf[i]) {
			/* Is there an odd one? */
			if (lo == hi && !(lo & 1))
				not_right(buf, slot, block, i, lo, hi, where);
			seen.zeroes++;
			continue;
		}
		if ((buf[i] & 0xffffffffff) != (place | i << 11) || gen < lo || gen > hi)
			not_right(buf, slot, block, i, lo, hi, where);
		if (gen < seen.min)
			seen.min = gen;
		if (gen > seen.max)
			seen.max = gen;
	}
	__atomic_fetch_add(&sh->verified, 1, __ATOMIC_RELAXED);
	return seen;
}

/* While nobody writes to it, it is all of one generation. Returns which. */
static uint32_t check_whole(const uint64_t *buf, int slot, unsigned int block, const char *where)
{
	struct model *m = &sh->blocks[slot][block];
	uint32_t acked = load(m->acked), pending = load(m->pending);
	struct seen seen = check(buf, slot, block, acked, pending, where);

	if (seen.zeroes == WORDS && (acked & 1 || pending & 1))
		return acked & 1 ? acked : pending;
	if (seen.zeroes || seen.min != seen.max || (seen.min != acked && seen.min != pending))
		bad("%s, file %d, block %u: a mix of generations %u to %u and %u zeroes, expected %u or %u",
		    where, slot, block, seen.min, seen.max, seen.zeroes, acked, pending);
	return seen.min;
}

/* The next generation of a block, which is going to be written now. */
static uint32_t begin_write(int slot, unsigned int block, bool zeroes)
{
	struct model *m = &sh->blocks[slot][block];
	uint32_t gen = m->last + 1;

	if ((gen & 1) != zeroes)
		gen++;
	m->last = gen;
	store(m->pending, gen);
	return gen;
}

static void acked(int slot, unsigned int first, unsigned int n)
{
	unsigned int i;

	for (i = first; i < first + n; i++)
		store(sh->blocks[slot][i].acked, sh->blocks[slot][i].pending);
}

static void fill_next(uint64_t *buf, int slot, unsigned int first, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++)
		fill(buf + i * WORDS, slot, first + i, begin_write(slot, first + i, false));
}

static void whole(enum op op, ssize_t len, unsigned int n, unsigned int first)
{
	if (len < 0)
		bad("%s of %u blocks at %u: %s", ops[op].name, n, first, strerrorname_np(errno));
	if (len != (ssize_t)(n * BLOCK))
		bad("%s of %u blocks at %u: %zd bytes", ops[op].name, n, first, len);
	count(op, 0);
}

static void read_at(enum op op, int fd, uint64_t *buf, unsigned int first, unsigned int n)
{
	memset(buf, 0xee, n * BLOCK);
	enter(op);
	whole(op, pread(fd, buf, n * BLOCK, (off_t)first * BLOCK), n, first);
}

static unsigned int slot_blocks(int slot)
{
	return slot == SHIFT ? (SPANS + 1) * SPAN : DATA_BLOCKS;
}

/* All of a file, with no device in between. Nobody writes to it. */
static void check_file(int slot, const char *name)
{
	unsigned int i, j, n = slot_blocks(slot);
	uint64_t *buf = blocks(EDGE);
	int fd;

	enter(FILE_CHECK);
	fd = open(name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		bad("open %s: %m", name);
	for (i = 0; i < n; i += EDGE) {
		if (pread(fd, buf, EDGE * BLOCK, (off_t)i * BLOCK) != EDGE * BLOCK)
			bad("read %s: %m", name);
		for (j = 0; j < EDGE; j++)
			check_whole(buf + j * WORDS, slot, i + j, name);
	}
	close(fd);
	free(buf);
	count(FILE_CHECK, 0);
}

static void check_files(int slot)
{
	check_file(slot, file_names[slot]);
	if (slot == RDONLY)
		check_file(slot, second_name);
}

/*
 * Attaching and detaching
 *
 * Who opens a slot's device, and attaches it when it is not, holds the slot's lock; who
 * detaches it does until it is.
 */

/* With the device open nobody may wait for the lock: its owner waits for the device. */
static bool lock(int slot, bool wait)
{
	int ret;

	enter(LOCK);
	ret = flock(locks[slot], wait ? LOCK_EX : LOCK_EX | LOCK_NB);
	leave();
	if (ret && (wait || errno != EWOULDBLOCK))
		bad("flock: %m");
	return !ret;
}

static void unlock(int slot)
{
	if (flock(locks[slot], LOCK_UN))
		bad("flock: %m");
}

static void loop_name(char *name, int number)
{
	sprintf(name, "/dev/loop%d", number);
}

static bool is_slots(int slot, const struct loop_info64 *info)
{
	if (info->lo_inode == file_stats[slot].st_ino &&
	    info->lo_device == file_stats[slot].st_dev)
		return true;
	return slot == RDONLY && info->lo_inode == second_stat.st_ino &&
	       info->lo_device == second_stat.st_dev;
}

static int open_flags(int slot)
{
	return (slot == RDONLY ? O_RDONLY : O_RDWR) | O_CLOEXEC;
}

static int open_backing(int slot)
{
	const char *name = file_names[slot];
	int fd;

	if (slot == RDONLY && rnd(2))
		name = second_name;
	fd = open(name, open_flags(slot) | (rnd(2) ? O_DIRECT : 0));
	/* Not all have direct I/O. */
	if (fd < 0 && errno == EINVAL)
		fd = open(name, open_flags(slot));
	if (fd < 0)
		bad("open %s: %m", name);
	return fd;
}

/* With the slot's lock. Returns the device open. */
static int attach(int slot, int flags)
{
	static const unsigned int sizes[] = { 0, 512, 4096 };
	struct loop_config config = { .fd = open_backing(slot) };
	char name[32];
	int fd, nr;

	for (;;) {
		if (rnd(3)) {
			nr = rnd(NUMBERS);
			doing(ADD, ioctl(control, LOOP_CTL_ADD, nr));
		} else {
			nr = doing(GET_FREE, ioctl(control, LOOP_CTL_GET_FREE));
		}
		loop_name(name, nr);
		fd = doing(OPEN, open(name, open_flags(slot) | flags));
		if (fd < 0)
			continue;
		config.block_size = sizes[rnd(3)];
		config.info.lo_flags = (rnd(2) ? LO_FLAGS_DIRECT_IO : 0) |
				       (rnd(3) ? 0 : LO_FLAGS_AUTOCLEAR);
		if (slot < SHIFT && !rnd(4))
			config.info.lo_flags |= LO_FLAGS_PARTSCAN;
		if (slot == SHIFT) {
			config.info.lo_offset = (uint64_t)rnd(SPANS) * SPAN * BLOCK;
			config.info.lo_sizelimit = SPAN * BLOCK;
		}
		/* Before it is: who is killed now leaves it to the next one. */
		store(sh->slots[slot].number, nr);
		if (!doing(CONFIGURE, ioctl(fd, LOOP_CONFIGURE, &config)))
			break;
		close(fd);
	}
	close(config.fd);
	return fd;
}

/* Opens a slot's device, which stays bound until it's closed. */
static int open_slot(int slot, int flags)
{
	struct loop_info64 info;
	char name[32];
	int fd = -1, nr;

	me->slot = slot;
	lock(slot, true);
	store(me->open, slot);
	nr = sh->slots[slot].number;
	if (nr >= 0) {
		loop_name(name, nr);
		fd = doing(OPEN, open(name, open_flags(slot) | flags));
	}
	/* It can be another's by now. */
	if (fd >= 0 && (doing(PROBE, ioctl(fd, LOOP_GET_STATUS64, &info)) ||
			!is_slots(slot, &info))) {
		enter(CLOSE);
		close(fd);
		leave();
		fd = -1;
	}
	if (fd < 0)
		fd = attach(slot, flags);
	unlock(slot);
	return fd;
}

static void close_slot(int fd)
{
	enter(CLOSE);
	close(fd);
	leave();
	store(me->open, -1);
}

static void wait_for_others(int slot)
{
	unsigned int i;

	enter(DETACH);
	for (i = 0; i < TASKS; i++)
		while (&sh->tasks[i] != me && load(sh->tasks[i].open) == slot)
			usleep(1000);
	leave();
}

/* Whether the slot's device shows the slot's file. */
static bool is_bound(int slot)
{
	char name[64], path[4096];
	ssize_t len;
	int fd;

	sprintf(name, "/sys/block/loop%d/loop/backing_file", sh->slots[slot].number);
	fd = open(name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	len = read(fd, path, sizeof(path) - 1);
	close(fd);
	if (len <= 0)
		return false;
	path[len - 1] = '\0';
	return !strcmp(path, file_names[slot]) || (slot == RDONLY && !strcmp(path, second_name));
}

/*
 * LOOP_CLR_FD by the only one who has the device open takes effect at once. The C driver then
 * fails what is still dirty in the page cache of the device, so there another one has it open.
 */
static int clear_fd(int slot, int fd)
{
	int other = -1, ret, err;
	char name[32];

	if (!rust) {
		loop_name(name, sh->slots[slot].number);
		other = open(name, O_RDONLY | O_CLOEXEC);
	}
	ret = ioctl(fd, LOOP_CLR_FD);
	err = errno;
	if (other >= 0)
		close(other);
	errno = err;
	return ret;
}

/* Nobody else has it open, and nobody can: the slot is locked. */
static void detach_locked(int slot, int fd)
{
	int nr = sh->slots[slot].number;

	enter(DETACH);
	/* Somebody may have reset autoclear since; and it may be on its way already. */
	if (clear_fd(slot, fd) && errno != ENXIO)
		bad("LOOP_CLR_FD: %m");
	close(fd);
	/*
	 * It's closed last by who looked for a free one, or by asynchronous I/O, which closes
	 * a file a moment after it was told of.
	 */
	while (is_bound(slot))
		usleep(1000);
	count(DETACH, 0);
	store(sh->slots[slot].number, -1);
	check_files(slot);
	if (rnd(2))
		doing(REMOVE, ioctl(control, LOOP_CTL_REMOVE, nr));
}

/* Has all close the device, and closes it. False, and it's open still: another does that. */
static bool detach(int slot, int fd)
{
	if (!lock(slot, false))
		return false;
	__atomic_fetch_add(&sh->slots[slot].epoch, 1, __ATOMIC_SEQ_CST);
	doing(CLEAR, clear_fd(slot, fd));
	wait_for_others(slot);
	detach_locked(slot, fd);
	store(me->open, -1);
	unlock(slot);
	return true;
}

/*
 * LOOP_CLR_FD under the I/O of others. Returns false when nobody else had it open: then it
 * is detached.
 */
static bool clear(int slot, int fd)
{
	struct loop_info64 info;
	bool bound;

	/*
	 * Unlocked, it could be attached again before what is dirty in the page cache of this
	 * device is written back.
	 */
	if (!lock(slot, false))
		return true;
	doing(CLEAR, clear_fd(slot, fd));
	bound = !doing(PROBE, ioctl(fd, LOOP_GET_STATUS64, &info));
	if (!bound) {
		/* They have closed it, or they could do I/O to it still. */
		wait_for_others(slot);
		detach_locked(slot, fd);
		store(me->open, -1);
	}
	unlock(slot);
	return bound;
}

/*
 * Cgroups
 */

static int put(const char *dir, const char *file, const char *text)
{
	char name[8192];
	int fd, ret, err;

	snprintf(name, sizeof(name), "%s/%s", dir, file);
	fd = open(name, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	ret = write(fd, text, strlen(text)) < 0 ? -1 : 0;
	err = errno;
	close(fd);
	errno = err;
	return ret;
}

static void group_dir(char *dir, size_t size, unsigned int nr)
{
	snprintf(dir, size, "%s/%s", cgroup_dir, sh->groups[nr].name);
}

static int some_group(void)
{
	unsigned int i, nr = rnd(GROUPS);

	for (i = 0; i < GROUPS; i++, nr = (nr + 1) % GROUPS)
		if (load(sh->groups[nr].alive))
			return nr;
	return -1;
}

/* Whatever is under way stays the old cgroup's. */
static void join(void)
{
	char dir[8192];
	int nr = some_group();

	if (nr < 0)
		return;
	group_dir(dir, sizeof(dir), nr);
	doing(JOIN, put(dir, "cgroup.procs", "0"));
}

static void limit_io(const char *dir)
{
	static const char *const keys[] = { "rbps", "wbps", "riops", "wiops" };
	char text[128];
	unsigned int i, value;
	dev_t dev;
	int n;

	/* On what is below more often: these requests are the driver's. */
	i = rnd(6);
	if (i < 4)
		dev = disks[i % 2];
	else
		dev = makedev(7, sh->slots[rnd(SLOTS)].number & 0xff);
	n = sprintf(text, "%u:%u", major(dev), minor(dev));
	for (i = 0; i < 4; i++) {
		/* What waits for all I/O waits for this, too. */
		value = i < 2 ? (256 + rnd(2048)) << 10 : 40 + rnd(360);
		if (slow > 1)
			value /= 4;
		if (rnd(3))
			n += sprintf(text + n, " %s=max", keys[i]);
		else
			n += sprintf(text + n, " %s=%u", keys[i], value);
	}
	doing(LIMIT_IO, put(dir, "io.max", text));
}

static void limit_memory(const char *dir)
{
	static const char *const values[] = { "4M", "8M", "16M", "max" };

	doing(LIMIT_MEMORY, put(dir, "memory.high", values[rnd(4)]));
}

static void make_group(unsigned int nr)
{
	static unsigned int made;
	char name[sizeof(sh->groups[nr].name)], dir[8192];
	int n = sprintf(name, "c%u-%u", nr, made++);

	snprintf(dir, sizeof(dir), "%s/%s", cgroup_dir, name);
	doing(MAKE_CGROUP, mkdir(dir, 0755));
	if (!rnd(3)) {
		limit_io(dir);
		if (put(dir, "cgroup.subtree_control", "+memory +io"))
			bad("%s/cgroup.subtree_control: %m", dir);
		strcpy(name + n, "/in");
		strcat(dir, "/in");
		doing(MAKE_CGROUP, mkdir(dir, 0755));
	}
	limit_io(dir);
	limit_memory(dir);
	/* Only now: one that is not complete must not be joined by who has seen the last one. */
	strcpy(sh->groups[nr].name, name);
	store(sh->groups[nr].alive, 1);
}

/* All in one cgroup go to others, or to the root. */
static void empty_group(const char *dir)
{
	char name[8320], target[8192], pid[32];
	FILE *f;
	int nr;

	snprintf(name, sizeof(name), "%s/cgroup.procs", dir);
	f = fopen(name, "re");
	if (!f)
		bad("%s: %m", name);
	while (fgets(pid, sizeof(pid), f)) {
		nr = rnd(4) ? some_group() : -1;
		if (nr < 0)
			snprintf(target, sizeof(target), "%s/..", cgroup_dir);
		else
			group_dir(target, sizeof(target), nr);
		/* This restarts the list at most. */
		count(MIGRATE, put(target, "cgroup.procs", pid));
		enter(LEAVE_CGROUP);
	}
	fclose(f);
}

static void remove_group(unsigned int nr, enum op op)
{
	struct group *group = &sh->groups[nr];
	char dir[8192], *slash;

	store(group->alive, 0);
	group_dir(dir, sizeof(dir), nr);
	enter(op);
	for (;;) {
		uint64_t since = load(me->since);

		if (op == KILL_CGROUP) {
			if (put(dir, "cgroup.kill", "1"))
				bad("%s/cgroup.kill: %m", dir);
		} else {
			empty_group(dir);
		}
		enter(op);
		store(me->since, since);
		if (!rmdir(dir))
			break;
		/* What is being killed may have to wait for its I/O. */
		if (errno != EBUSY)
			bad("rmdir %s: %m", dir);
		usleep(2000);
	}
	slash = strrchr(dir, '/');
	if (!strcmp(slash, "/in")) {
		*slash = '\0';
		if (rmdir(dir))
			bad("rmdir %s: %m", dir);
	}
	count(op, 0);
}

static void remove_groups(void)
{
	unsigned int nr;

	for (nr = 0; nr < GROUPS; nr++)
		if (sh->groups[nr].alive)
			remove_group(nr, KILL_CGROUP);
}

/* What was held up goes on. Also to be called when all is lost. */
static void lift_limits(void)
{
	char dir[8192], text[64], *slash;
	unsigned int nr, i;
	dev_t dev;

	for (nr = 0; nr < GROUPS; nr++) {
		if (!sh->groups[nr].name[0])
			continue;
		for (i = 0; i < 2 + SLOTS; i++) {
			dev = i < 2 ? disks[i] : makedev(7, sh->slots[i - 2].number & 0xff);
			sprintf(text, "%u:%u rbps=max wbps=max riops=max wiops=max", major(dev),
				minor(dev));
			group_dir(dir, sizeof(dir), nr);
			put(dir, "io.max", text);
			slash = strrchr(dir, '/');
			if (!strcmp(slash, "/in")) {
				*slash = '\0';
				put(dir, "io.max", text);
			}
		}
	}
}

/*
 * Who does I/O
 */

/* Reads all of a worker's range, and settles what the one before it has left open. */
static void resolve(int fd, int slot, unsigned int first, unsigned int n)
{
	unsigned int i, j, some;
	uint32_t gen;

	for (i = first; i < first + n; i += some) {
		some = first + n - i < 16 ? first + n - i : 16;
		read_at(READ, fd, io_buf, i, some);
		for (j = 0; j < some; j++) {
			gen = check_whole(io_buf + j * WORDS, slot, i + j, "opened again");
			store(sh->blocks[slot][i + j].acked, gen);
			store(sh->blocks[slot][i + j].pending, gen);
		}
	}
	add_count(RESOLVE, 0, 1);
}

static void read_own(int fd, int slot, unsigned int first, unsigned int n, const char *where)
{
	unsigned int i;

	read_at(READ, fd, io_buf, first, n);
	for (i = 0; i < n; i++)
		check_whole(io_buf + i * WORDS, slot, first + i, where);
}

/* Of a block that another may be writing. */
static void read_others(int fd, int slot)
{
	unsigned int block = rnd(DATA_BLOCKS);
	uint32_t lo = load(sh->blocks[slot][block].acked);

	read_at(OTHERS_READ, fd, io_buf, block, 1);
	check(io_buf, slot, block, lo, load(sh->blocks[slot][block].pending),
	      "another's block");
}

/* Many at a time: more than a cgroup may have tags. */
static void aio_round(int fd, int slot, unsigned int first, aio_context_t ctx)
{
	static struct iocb iocbs[DEPTH], *ptrs[DEPTH];
	static struct io_event events[DEPTH];
	static uint64_t *bufs[DEPTH];
	unsigned int at[DEPTH], len[DEPTH], i, j, n = 0, want = 1 + rnd(DEPTH), got;
	bool used[RANGE] = {};

	for (i = 0; i < want; i++) {
		if (!bufs[n])
			bufs[n] = blocks(EXTENT);
		len[n] = 1 + rnd(EXTENT);
		at[n] = rnd(RANGE - len[n] + 1);
		for (j = 0; j < len[n] && !used[at[n] + j]; j++)
			;
		if (j < len[n])
			continue;
		memset(used + at[n], true, len[n]);
		at[n] += first;
		iocbs[n] = (struct iocb) {
			.aio_lio_opcode = rnd(4) ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD,
			.aio_fildes = fd,
			.aio_buf = (uintptr_t)bufs[n],
			.aio_nbytes = len[n] * BLOCK,
			.aio_offset = (uint64_t)at[n] * BLOCK,
			.aio_rw_flags = rnd(16) ? 0 : RWF_DSYNC,
			.aio_data = n,
		};
		if (iocbs[n].aio_lio_opcode == IOCB_CMD_PWRITE) {
			fill_next(bufs[n], slot, at[n], len[n]);
		} else {
			iocbs[n].aio_rw_flags = 0;
			memset(bufs[n], 0xee, len[n] * BLOCK);
		}
		ptrs[n] = &iocbs[n];
		n++;
	}
	enter(AIO);
	for (i = 0; i < n; i += got) {
		got = syscall(SYS_io_submit, ctx, n - i, ptrs + i);
		if ((int)got <= 0)
			bad("io_submit: %m");
	}
	if (!rnd(4))
		join();
	enter(AIO);
	for (i = 0; i < n; i += got) {
		got = syscall(SYS_io_getevents, ctx, 1, n - i, events + i, NULL);
		if ((int)got <= 0)
			bad("io_getevents: %m");
	}
	count(AIO, 0);
	for (i = 0; i < n; i++) {
		struct iocb *iocb = &iocbs[events[i].data];
		bool write = iocb->aio_lio_opcode == IOCB_CMD_PWRITE;

		j = events[i].data;
		errno = -events[i].res;
		whole(write ? iocb->aio_rw_flags ? FUA_WRITE : WRITE : READ,
		      events[i].res < 0 ? -1 : events[i].res, len[j], at[j]);
		if (write)
			acked(slot, at[j], len[j]);
		else
			for (got = 0; got < len[j]; got++)
				check_whole(bufs[j] + got * WORDS, slot, at[j] + got,
					    "asynchronous read");
	}
}

static void buffered_round(int fd, int direct_fd, int slot, unsigned int first)
{
	unsigned int n = 1 + rnd(16), at = first + rnd(RANGE - n + 1);

	fill_next(io_buf, slot, at, n);
	enter(BUFFERED_WRITE);
	whole(BUFFERED_WRITE, pwrite(fd, io_buf, n * BLOCK, (off_t)at * BLOCK), n, at);
	acked(slot, at, n);
	if (!rnd(8))
		doing(SYNC, fsync(fd));
	n = 1 + rnd(16);
	at = first + rnd(RANGE - n + 1);
	if (rnd(4))
		read_own(fd, slot, at, n, "buffered read");
	else
		read_own(direct_fd, slot, at, n, "direct read of what was buffered");
}

static void direct_round(int fd, int slot, unsigned int first)
{
	unsigned int i, n = 1 + rnd(8), at = first + rnd(RANGE - n + 1);
	uint64_t range[2] = { (uint64_t)at * BLOCK, (uint64_t)n * BLOCK };
	struct iovec iov = { .iov_base = io_buf, .iov_len = n * BLOCK };
	bool fua;

	switch (rnd(8)) {
	case 0:
	case 1:
	case 2:
		fua = !rnd(3);
		fill_next(io_buf, slot, at, n);
		enter(fua ? FUA_WRITE : WRITE);
		whole(fua ? FUA_WRITE : WRITE,
		      pwritev2(fd, &iov, 1, range[0], fua ? RWF_DSYNC : 0), n, at);
		acked(slot, at, n);
		break;
	case 3:
		/* The C driver does it in a frozen file system, too, and ext4 warns. */
		if (!rust && file_stats[slot].st_dev != file_stats[MEMORY].st_dev)
			break;
		for (i = at; i < at + n; i++)
			begin_write(slot, i, true);
		if (rnd(2))
			doing(DISCARD, ioctl(fd, BLKDISCARD, range));
		else
			doing(ZERO_OUT, ioctl(fd, BLKZEROOUT, range));
		acked(slot, at, n);
		break;
	case 4:
		doing(SYNC, fsync(fd));
		break;
	case 5:
		read_own(fd, slot, at, n, "direct read");
		break;
	default:
		read_others(fd, slot);
	}
}

enum { WORKER_AIO, WORKER_BUFFERED, WORKER_DIRECT };

/* Has a range of a slot's blocks. */
static void worker(int arg)
{
	int slot = arg / RANGES, kind = arg % RANGES, fd, direct_fd, lives = 4 + rnd(8);
	unsigned int first = EDGE + kind * RANGE, epoch, rounds;
	aio_context_t ctx = 0;
	char name[32];

	if (kind == WORKER_AIO && syscall(SYS_io_setup, DEPTH, &ctx))
		bad("io_setup: %m");
	for (; going_on() && lives; lives--) {
		join();
		epoch = load(sh->slots[slot].epoch);
		direct_fd = -1;
		fd = open_slot(slot, kind == WORKER_BUFFERED ? 0 : O_DIRECT);
		if (kind == WORKER_BUFFERED) {
			/* To read ahead would be to read what another writes directly. */
			posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
			loop_name(name, sh->slots[slot].number);
			direct_fd = doing(OPEN, open(name, O_RDONLY | O_DIRECT | O_CLOEXEC));
			if (direct_fd < 0)
				bad("open %s, which is open: %m", name);
		}
		resolve(fd, slot, first, RANGE);
		for (rounds = 1 + rnd(60); rounds && going_on(); rounds--) {
			if (load(sh->slots[slot].epoch) != epoch)
				break;
			if (kind == WORKER_AIO)
				aio_round(fd, slot, first, ctx);
			else if (kind == WORKER_BUFFERED)
				buffered_round(fd, direct_fd, slot, first);
			else
				direct_round(fd, slot, first);
			doze(2000);
		}
		if (direct_fd >= 0)
			close(direct_fd);
		close_slot(fd);
		doze(5000);
	}
}

/* Reads what is moved under it. */
static void shift_reader(int unused)
{
	unsigned int block, span, epoch;
	uint32_t lo[SPANS];
	int fd;

	(void)unused;
	while (going_on()) {
		join();
		epoch = load(sh->slots[SHIFT].epoch);
		fd = open_slot(SHIFT, O_DIRECT);
		while (going_on() && load(sh->slots[SHIFT].epoch) == epoch && rnd(100)) {
			block = rnd(SPAN);
			for (span = 0; span < SPANS; span++)
				lo[span] = load(sh->blocks[SHIFT][span * SPAN + block].acked);
			read_at(OTHERS_READ, fd, io_buf, block, 1);
			/* Of any of the spans, but all of it. */
			span = (io_buf[0] >> 20 & 0xffff) / SPAN;
			if (span >= SPANS)
				span = 0;
			check(io_buf, SHIFT, span * SPAN + block, lo[span],
			      load(sh->blocks[SHIFT][span * SPAN + block].pending),
			      "moved device");
			doze(3000);
		}
		close_slot(fd);
	}
}

/* The two files of the device are the same but for their inodes. */
static void rdonly_reader(int unused)
{
	struct loop_info64 info;
	unsigned int epoch, n;
	int fd;

	(void)unused;
	while (going_on()) {
		join();
		epoch = load(sh->slots[RDONLY].epoch);
		fd = open_slot(RDONLY, rnd(2) ? O_DIRECT : 0);
		while (going_on() && load(sh->slots[RDONLY].epoch) == epoch && rnd(100)) {
			n = 1 + rnd(16);
			read_own(fd, RDONLY, rnd(DATA_BLOCKS - n + 1), n, "read-only device");
			doing(GET_STATUS, ioctl(fd, LOOP_GET_STATUS64, &info));
			if (!is_slots(RDONLY, &info))
				bad("it's bound to inode %llu", (unsigned long long)info.lo_inode);
			add_count(info.lo_inode == second_stat.st_ino &&
				  info.lo_device == second_stat.st_dev ? SECOND_FILE : FIRST_FILE,
				  0, 1);
			doze(3000);
		}
		close_slot(fd);
	}
}

/* Attached, used and detached all the time. */
static void churner(int unused)
{
	unsigned int i, n, at;
	int fd;

	(void)unused;
	while (going_on()) {
		join();
		fd = open_slot(CHURN, O_DIRECT);
		resolve(fd, CHURN, EDGE, RANGES * RANGE);
		for (i = rnd(4); i; i--) {
			n = 1 + rnd(16);
			at = EDGE + rnd(RANGES * RANGE - n + 1);
			fill_next(io_buf, CHURN, at, n);
			enter(WRITE);
			whole(WRITE, pwrite(fd, io_buf, n * BLOCK, (off_t)at * BLOCK), n, at);
			acked(CHURN, at, n);
		}
		if (!ioctl(control, LOOP_CTL_REMOVE, sh->slots[CHURN].number) || errno != EBUSY)
			bad("LOOP_CTL_REMOVE of a device that is open: %m");
		add_count(REMOVE_USED, 0, 1);
		if (!detach(CHURN, fd))
			close_slot(fd);
		doze(10000);
	}
}

/*
 * Who changes things
 */

static void set_status(int slot, int fd)
{
	struct loop_info64 info;

	doing(GET_STATUS, ioctl(fd, LOOP_GET_STATUS64, &info));
	if (!is_slots(slot, &info))
		bad("it's bound to inode %llu", (unsigned long long)info.lo_inode);
	info.lo_flags ^= rnd(2) ? LO_FLAGS_AUTOCLEAR : 0;
	info.lo_flags |= rnd(4) ? 0 : LO_FLAGS_PARTSCAN;
	snprintf((char *)info.lo_file_name, LO_NAME_SIZE, "name %u", rnd(1000));
	doing(SET_STATUS, ioctl(fd, LOOP_SET_STATUS64, &info));
}

/* What is at the end of the file is nobody's. */
static void resize(int slot, int fd)
{
	const uint64_t small = DATA_BLOCKS * BLOCK, large = small + GROWTH * BLOCK;
	uint64_t size;

	enter(RESIZE);
	if (truncate(file_names[slot], rnd(2) ? small : large))
		bad("truncate %s: %m", file_names[slot]);
	if (ioctl(fd, LOOP_SET_CAPACITY) || ioctl(fd, BLKGETSIZE64, &size))
		bad("LOOP_SET_CAPACITY: %m");
	if (size != small && size != large)
		bad("its size is %llu", (unsigned long long)size);
	count(RESIZE, 0);
}

static void changer(int unused)
{
	static const unsigned long sizes[] = { 512, 1024, 2048, 4096 };
	int slot, fd, n;
	bool gone;

	(void)unused;
	while (going_on()) {
		slot = DATA + rnd(SHIFT);
		fd = open_slot(slot, 0);
		gone = false;
		for (n = 1 + rnd(6); n && !gone && going_on(); n--) {
			switch (rnd(9)) {
			case 0:
			case 1:
				set_status(slot, fd);
				break;
			case 2:
			case 3:
				doing(DIRECT_IO, ioctl(fd, LOOP_SET_DIRECT_IO,
						       (unsigned long)rnd(2)));
				break;
			case 4:
				doing(SET_BLOCK, ioctl(fd, LOOP_SET_BLOCK_SIZE, sizes[rnd(4)]));
				break;
			case 5:
				resize(slot, fd);
				break;
			case 6:
				doing(RESCAN, ioctl(fd, BLKRRPART));
				break;
			case 7:
				gone = !clear(slot, fd);
				break;
			case 8:
				gone = !rnd(2) && detach(slot, fd);
				break;
			}
			doze(20000);
		}
		if (!gone)
			close_slot(fd);
		doze(50000);
	}
}

/* Nobody else writes to this device. */
static void mover(int unused)
{
	struct loop_info64 info;
	unsigned int span, shown, block, i, n;
	uint64_t size;
	int fd;

	(void)unused;
	while (going_on()) {
		fd = open_slot(SHIFT, O_DIRECT);
		for (n = 1 + rnd(30); n && going_on(); n--) {
			span = rnd(SPANS);
			shown = SPAN + rnd(2) * EDGE;
			enter(MOVE);
			if (ioctl(fd, LOOP_GET_STATUS64, &info))
				bad("LOOP_GET_STATUS64: %m");
			info.lo_offset = (uint64_t)span * SPAN * BLOCK;
			info.lo_sizelimit = shown * BLOCK;
			count(MOVE, ioctl(fd, LOOP_SET_STATUS64, &info));
			if (ioctl(fd, BLKGETSIZE64, &size) || size != shown * BLOCK)
				bad("its size is %llu, not %u", (unsigned long long)size,
				    shown * BLOCK);
			for (i = 1 + rnd(4); i; i--) {
				block = rnd(SPAN);
				read_at(READ, fd, io_buf, block, 1);
				check_whole(io_buf, SHIFT, span * SPAN + block, "just moved");
				block = rnd(SPAN);
				fill_next(io_buf, SHIFT, span * SPAN + block, 1);
				enter(WRITE);
				whole(WRITE, pwrite(fd, io_buf, BLOCK, (off_t)block * BLOCK), 1,
				      block);
				acked(SHIFT, span * SPAN + block, 1);
			}
			if (!rnd(8))
				doing(DIRECT_IO, ioctl(fd, LOOP_SET_DIRECT_IO,
						       (unsigned long)rnd(2)));
			doze(20000);
		}
		if (rnd(2) || !detach(SHIFT, fd))
			close_slot(fd);
	}
}

static void file_changer(int unused)
{
	int fd, n, file;

	(void)unused;
	while (going_on()) {
		fd = open_slot(RDONLY, 0);
		for (n = 1 + rnd(20); n && going_on(); n--) {
			file = open_backing(RDONLY);
			doing(CHANGE_FD, ioctl(fd, LOOP_CHANGE_FD, file));
			close(file);
			if (!rnd(6))
				doing(DIRECT_IO, ioctl(fd, LOOP_SET_DIRECT_IO,
						       (unsigned long)rnd(2)));
			doze(40000);
		}
		if (rnd(2) || !detach(RDONLY, fd))
			close_slot(fd);
	}
}

static void grouper(int unused)
{
	unsigned int nr, i;
	char dir[8192], pid[32];

	(void)unused;
	for (nr = 0; nr < GROUPS; nr++)
		make_group(nr);
	while (going_on()) {
		nr = rnd(GROUPS);
		group_dir(dir, sizeof(dir), nr);
		switch (rnd(12)) {
		case 0:
			remove_group(nr, KILL_CGROUP);
			make_group(nr);
			break;
		case 1:
			remove_group(nr, LEAVE_CGROUP);
			make_group(nr);
			break;
		case 2:
			limit_memory(dir);
			break;
		case 3:
		case 4:
		case 5:
			i = rnd(MORTALS);
			sprintf(pid, "%d", load(sh->tasks[i].pid));
			if (pid[0] != '0')
				doing(MIGRATE, put(dir, "cgroup.procs", pid));
			break;
		default:
			limit_io(dir);
		}
		doze(100000);
	}
	lift_limits();
}

/* How many requests are in flight on the devices with files in a directory. */
static unsigned int in_flight(unsigned int dir)
{
	unsigned int slot, n = 0, some;
	char name[64];
	FILE *f;

	for (slot = 0; slot < SLOTS; slot++) {
		if (file_stats[slot].st_dev != disks[dir])
			continue;
		sprintf(name, "/sys/block/loop%d/stat", sh->slots[slot].number);
		f = fopen(name, "re");
		if (!f)
			continue;
		if (fscanf(f, "%*u %*u %*u %*u %*u %*u %*u %*u %u", &some) == 1)
			n += some;
		fclose(f);
	}
	return n;
}

/* Holds nothing that the frozen file system could have it wait for. */
static void freezer(int unused)
{
	unsigned int dir;

	(void)unused;
	while (going_on()) {
		doze(1500000);
		dir = rnd(2);
		doing(FREEZE, ioctl(dir_fds[dir], FIFREEZE, 0));
		usleep((20000 + rnd(150000)) * (slow > 1 ? 3 : 1));
		if (in_flight(dir))
			add_count(HELD_UP, 0, 1);
		doing(THAW, ioctl(dir_fds[dir], FITHAW, 0));
	}
}

/* Reads a file, whether or not it's there; returns how much. */
static size_t look(const char *name, char *buf, size_t size)
{
	size_t len = 0;
	ssize_t n;
	int fd = open(name, O_RDONLY | O_CLOEXEC);

	if (fd >= 0) {
		while (len < size - 1 && (n = read(fd, buf + len, size - 1 - len)) > 0)
			len += n;
		close(fd);
	}
	buf[len] = '\0';
	return len;
}

static void looker(int unused)
{
	static const char *const names[15] = {
		"loop/backing_file", "loop/offset", "loop/sizelimit", "loop/autoclear",
		"loop/partscan", "loop/dio", "loop/stat", "stat", "inflight", "size", "ro",
		"queue/logical_block_size", "queue/dma_alignment", "queue/write_cache",
		"queue/discard_granularity",
	};
	static char buf[1 << 16];
	struct loop_info64 info;
	char name[128], *p;
	int fd, nr;

	(void)unused;
	while (going_on()) {
		nr = rnd(NUMBERS);
		sprintf(name, "/sys/block/loop%d/%s", nr, names[rnd(15)]);
		enter(SYSFS);
		if (look(name, buf, sizeof(buf)))
			add_count(SYSFS, 0, 1);
		leave();
		sprintf(name, "/sys/kernel/debug/loop_rs/loop%d/workers", nr);
		enter(WORKERS);
		if (look(name, buf, sizeof(buf)))
			add_count(WORKERS, 0, 1);
		leave();
		for (p = buf; (p = strstr(p, " parking=")); p++)
			if (p[9] != '0') {
				add_count(PARKING, 0, 1);
				break;
			}
		if (!rnd(4)) {
			loop_name(name, nr);
			fd = doing(OPEN, open(name, O_RDONLY | O_CLOEXEC));
			if (fd >= 0) {
				doing(PROBE, ioctl(fd, LOOP_GET_STATUS64, &info));
				enter(CLOSE);
				close(fd);
				leave();
			}
		}
		doze(10000);
	}
}

/* Nothing else runs any more: all is there, through the devices and without them. */
static void finish(int unused)
{
	unsigned int slot;
	int fd;

	(void)unused;
	remove_groups();
	for (slot = 0; slot < SLOTS; slot++) {
		fd = open_slot(slot, O_DIRECT);
		if (slot != SHIFT)
			resolve(fd, slot, 0, DATA_BLOCKS);
		if (!detach(slot, fd))
			bad("its lock is held");
	}
}

/*
 * Who looks after them
 */

/* In the order of MORTALS and LASTING. */
static const struct role {
	const char *name;
	void (*run)(int arg);
	int arg;
} roles[TASKS] = {
	{ "aio0", worker, 0 }, { "buffered0", worker, 1 }, { "direct0", worker, 2 },
	{ "aio1", worker, 3 }, { "buffered1", worker, 4 }, { "direct1", worker, 5 },
	{ "aio2", worker, 6 }, { "buffered2", worker, 7 }, { "direct2", worker, 8 },
	{ "aio3", worker, 9 }, { "buffered3", worker, 10 }, { "direct3", worker, 11 },
	{ "shift-reader", shift_reader, 0 }, { "rdonly-reader", rdonly_reader, 0 },
	{ "churner", churner, 0 },
	{ "changer0", changer, 0 }, { "changer1", changer, 0 }, { "mover", mover, 0 },
	{ "file-changer", file_changer, 0 }, { "grouper", grouper, 0 },
	{ "freezer", freezer, 0 }, { "looker", looker, 0 },
	{ "finish", finish, 0 },
};

static uint64_t seed;

static void start(unsigned int nr)
{
	struct task *task = &sh->tasks[nr];
	char name[4200];
	unsigned int i;
	pid_t pid;

	task->op = 0;
	task->slot = -1;
	store(task->since, 0);
	fflush(stdout);
	pid = fork();
	if (pid < 0)
		die("fork: %m");
	if (pid) {
		store(task->pid, pid);
		return;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	my_name = roles[nr].name;
	prctl(PR_SET_NAME, my_name);
	me = task;
	rng = (seed * 64 + nr) * 0x9e3779b97f4a7c15ull + task->lives++;
	rng ^= rng >> 31;
	rng *= 0xbf58476d1ce4e5b9ull;
	rng ^= rng >> 29;
	/* A lock is the process's that opened it. */
	for (i = 0; i < SLOTS; i++) {
		snprintf(name, sizeof(name), "%s.lock%u", model_name, i);
		locks[i] = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		if (locks[i] < 0)
			die("%s: %m", name);
	}
	io_buf = blocks(EDGE);
	roles[nr].run(roles[nr].arg);
	exit(0);
}

/* One to run, and another that does not wait for it long: for what may hang. */
static void try(void (*what)(void))
{
	int i;
	pid_t pid = fork();

	if (!pid) {
		what();
		_exit(0);
	}
	for (i = 0; pid > 0 && i < 50 && !waitpid(pid, NULL, WNOHANG); i++)
		usleep(100000);
}

static void thaw(void)
{
	unsigned int i;

	for (i = 0; i < 2; i++)
		ioctl(dir_fds[i], FITHAW, 0);
}

static void show(const char *name)
{
	static char buf[1 << 16];

	if (look(name, buf, sizeof(buf)))
		printf("%s:\n%s\n", name, buf);
}

static void show_task(unsigned int nr)
{
	struct task *task = &sh->tasks[nr];
	uint64_t since = load(task->since);
	char name[64];

	if (!task->pid)
		return;
	printf("%s[%d]: ", roles[nr].name, task->pid);
	if (since)
		printf("%s for %llu ms", ops[task->op].name,
		       (unsigned long long)(now_ms() - since));
	else
		printf("at nothing");
	if (task->slot >= 0)
		printf(", file %d, loop%d%s", task->slot, sh->slots[task->slot].number,
		       task->open >= 0 ? ", open" : "");
	printf("\n");
	sprintf(name, "/proc/%d/stack", task->pid);
	if (since && now_ms() - since > 1000)
		show(name);
}

/* With the reason told: shows what is where, and lets go of everything. */
static int give_up(bool stuck)
{
	unsigned int i;
	char name[64];

	store(sh->stop, 1);
	if (stuck) {
		for (i = 0; i < TASKS; i++)
			show_task(i);
		for (i = 0; i < NUMBERS; i++) {
			sprintf(name, "/sys/kernel/debug/loop_rs/loop%u/workers", i);
			show(name);
		}
		/* The kernel's own tasks, too. */
		put("/proc", "sysrq-trigger", "w");
	}
	fflush(stdout);
	try(thaw);
	try(lift_limits);
	for (i = 0; i < TASKS; i++)
		if (sh->tasks[i].pid)
			kill(sh->tasks[i].pid, SIGKILL);
	for (i = 0; i < 200 * slow; i++) {
		if (waitpid(-1, NULL, WNOHANG) < 0)
			return 1;
		usleep(100000);
	}
	printf("not all tasks could be killed\n");
	return 1;
}

/* How one ended. Returns false when it should not have. */
static bool ended(unsigned int nr, int status)
{
	struct task *task = &sh->tasks[nr];
	bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;

	store(task->pid, 0);
	store(task->since, 0);
	store(task->open, -1);
	if (killed && nr < MORTALS) {
		add_count(KILLED, 0, 1);
	} else if (status) {
		printf("%s ended with status %#x\n", roles[nr].name, status);
		return false;
	}
	/* Who was to go on until told to stop has done so. */
	task->over = !going_on();
	if (!task->over)
		start(nr);
	return true;
}

static bool enough(bool tell)
{
	bool all = true;
	unsigned int op;

	for (op = 0; op < OPS; op++) {
		if (sh->counts[op][0] >= ops[op].least || (ops[op].rust_only && !rust))
			continue;
		if (tell)
			printf("too few: %s, %u of %u\n", ops[op].name, sh->counts[op][0],
			       ops[op].least);
		all = false;
	}
	return all;
}

static int look_after(double seconds)
{
	const uint64_t stuck_ms = 40000 * slow, begun = now_ms();
	uint64_t end = begun + seconds * 1000, limit = end + 60000 * slow, since;
	unsigned int i, running;
	int status;
	pid_t pid;

	for (i = 0; i < LASTING; i++)
		start(i);
	for (;;) {
		while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
			for (i = 0; i < TASKS && sh->tasks[i].pid != pid; i++)
				;
			if (i < TASKS && !ended(i, status))
				return give_up(false);
		}
		for (i = 0, running = 0; i < TASKS; i++) {
			running += sh->tasks[i].pid != 0;
			since = load(sh->tasks[i].since);
			if (sh->tasks[i].pid && since && now_ms() > since + stuck_ms) {
				printf("%s is stuck\n", roles[i].name);
				return give_up(true);
			}
		}
		if (going_on() && now_ms() >= end && (enough(false) || now_ms() >= limit)) {
			printf("stopped after %llu ms\n", (unsigned long long)(now_ms() - begun));
			store(sh->stop, 1);
		}
		if (!running) {
			if (sh->tasks[LASTING].over)
				break;
			start(LASTING);
		}
		usleep(50000);
	}
	return 0;
}

static void set_names(const char *dir, const char *other, const char *mem)
{
	static const char *const names[SLOTS] = {
		"data0", "data1", "data2", "data3", "shift", "rdonly", "churn"
	};
	unsigned int i;

	for (i = 0; i < SLOTS; i++)
		snprintf(file_names[i], sizeof(file_names[i]), "%s/%s",
			 i == 2 || i == RDONLY || i == CHURN ? other : i == MEMORY ? mem : dir,
			 names[i]);
	snprintf(second_name, sizeof(second_name), "%s/rdonly2", mem);
}

static void map_model(bool create)
{
	int fd = open(model_name, O_RDWR | O_CLOEXEC | (create ? O_CREAT | O_TRUNC : 0), 0600);

	if (fd < 0 || (create && ftruncate(fd, sizeof(*sh))))
		die("%s: %m", model_name);
	sh = mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (sh == MAP_FAILED)
		die("mmap: %m");
	close(fd);
}

static void make_file(int slot, const char *name, struct stat *st)
{
	unsigned int i, n = slot_blocks(slot);
	/* Holes, but where nobody writes first. */
	uint32_t gen = slot == SHIFT || slot == RDONLY ? 2 : 1;
	uint64_t *buf = blocks(1);
	int fd = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || ftruncate(fd, (off_t)n * BLOCK) || fstat(fd, st))
		die("%s: %m", name);
	for (i = 0; i < n; i++) {
		sh->blocks[slot][i] = (struct model) { gen, gen, gen };
		if (gen & 1)
			continue;
		fill(buf, slot, i, gen);
		if (pwrite(fd, buf, BLOCK, (off_t)i * BLOCK) != BLOCK)
			die("%s: %m", name);
	}
	if (fsync(fd) || close(fd))
		die("%s: %m", name);
	free(buf);
}

static int run(char **argv)
{
	unsigned int slot, op, i;
	struct stat st;
	int ret;

	rust = !strcmp(argv[0], "loop_rs");
	set_names(argv[1], argv[2], argv[3]);
	cgroup_dir = argv[4];
	model_name = argv[5];
	seed = number(argv[7]);
	slow = number(argv[8]);
	map_model(true);
	sh->salt = (seed * 0x9e3779b97f4a7c15ull >> 53) | 1;
	for (i = 0; i < 2; i++) {
		dir_fds[i] = open(argv[1 + i], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (dir_fds[i] < 0 || fstat(dir_fds[i], &st))
			die("%s: %m", argv[1 + i]);
		disks[i] = st.st_dev;
	}
	for (slot = 0; slot < SLOTS; slot++) {
		sh->slots[slot].number = -1;
		make_file(slot, file_names[slot], &file_stats[slot]);
	}
	make_file(RDONLY, second_name, &second_stat);
	for (i = 0; i < TASKS; i++)
		sh->tasks[i].open = -1;
	control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	if (control < 0)
		die("/dev/loop-control: %m");
	printf("seed %s\n", argv[7]);
	ret = look_after(atof(argv[6]));
	for (op = 0; op < OPS; op++)
		for (i = 0; i < 256; i++)
			if (sh->counts[op][i])
				printf("%s %s %u\n", ops[op].name, i ? strerrorname_np(i) : "ok",
				       sh->counts[op][i]);
	printf("%llu blocks verified\n", (unsigned long long)sh->verified);
	if (!ret)
		enough(true);
	return ret;
}

static int verify(char **argv)
{
	static struct task task = { .slot = -1, .open = -1 };
	int slot;

	me = &task;
	model_name = argv[0];
	set_names(argv[1], argv[2], argv[3]);
	map_model(false);
	for (slot = 0; slot < SLOTS; slot++)
		check_files(slot);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 11 && !strcmp(argv[1], "run"))
		return run(argv + 2);
	if (argc == 6 && !strcmp(argv[1], "verify"))
		return verify(argv + 2);
	fprintf(stderr, "usage: loop_chaos run DRIVER DIR OTHER MEM CGROUP MODEL SECONDS SEED SLOW\n"
			"       loop_chaos verify MODEL DIR OTHER MEM\n");
	return 2;
}
