// SPDX-License-Identifier: GPL-2.0
/*
 * Blocks with verifiable contents, devices and cgroups for the tasks of loop_chaos.
 */
#include "chaos.h"

uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ull + ts.tv_nsec / 1000000;
}

/* From here to count() or leave() the watchdog checks the time. */
void enter(enum op op)
{
	me->op = op;
	store(me->since, now_ms());
}

void leave(void)
{
	store(me->since, 0);
}

void add_count(enum op op, int err, unsigned int n)
{
	__atomic_fetch_add(&sh->counts[op][err & 255], n, __ATOMIC_RELAXED);
}

int count(enum op op, int ret)
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

void *blocks(unsigned int n)
{
	void *p;

	if (posix_memalign(&p, BLOCK, (size_t)n * BLOCK))
		die("no memory");
	return p;
}

void doze(unsigned int max_us)
{
	usleep(rnd(max_us) + 1);
}
/*
 * Contents of blocks
 */

static uint64_t word(int slot, unsigned int block, unsigned int i, uint32_t gen)
{
	return (uint64_t)gen << 40 | (uint64_t)slot << 36 | (uint64_t)block << 20 | i << 11 |
	       sh->salt;
}

void fill(uint64_t *buf, int slot, unsigned int block, uint32_t gen)
{
	unsigned int i;

	for (i = 0; i < WORDS; i++)
		buf[i] = gen & 1 ? 0 : word(slot, block, i, gen);
}

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

/* Each word is at its place, and of a generation from `lo` to `hi`. */
struct seen check(const uint64_t *buf, int slot, unsigned int block, uint32_t lo,
		  uint32_t hi, const char *where)
{
	struct seen seen = { .min = UINT32_MAX };
	uint64_t place = word(slot, block, 0, 0);
	unsigned int i;

	for (i = 0; i < WORDS; i++) {
		uint32_t gen = buf[i] >> 40;

		if (!buf[i]) {
			/* Is there an odd generation? */
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

/* A block without concurrent writes is of one generation, which is returned. */
uint32_t check_whole(const uint64_t *buf, int slot, unsigned int block, const char *where)
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

/* The next generation of a block, which is about to be written. */
uint32_t begin_write(int slot, unsigned int block, bool zeroes)
{
	struct model *m = &sh->blocks[slot][block];
	uint32_t gen = m->last + 1;

	if ((gen & 1) != zeroes)
		gen++;
	m->last = gen;
	store(m->pending, gen);
	return gen;
}

void acked(int slot, unsigned int first, unsigned int n)
{
	unsigned int i;

	for (i = first; i < first + n; i++)
		store(sh->blocks[slot][i].acked, sh->blocks[slot][i].pending);
}

void fill_next(uint64_t *buf, int slot, unsigned int first, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++)
		fill(buf + i * WORDS, slot, first + i, begin_write(slot, first + i, false));
}

void whole(enum op op, ssize_t len, unsigned int n, unsigned int first)
{
	if (len < 0)
		bad("%s of %u blocks at %u: %s", ops[op].name, n, first, strerrorname_np(errno));
	if (len != (ssize_t)(n * BLOCK))
		bad("%s of %u blocks at %u: %zd bytes", ops[op].name, n, first, len);
	count(op, 0);
}

void read_at(enum op op, int fd, uint64_t *buf, unsigned int first, unsigned int n)
{
	memset(buf, 0xee, n * BLOCK);
	enter(op);
	whole(op, pread(fd, buf, n * BLOCK, (off_t)first * BLOCK), n, first);
}

unsigned int slot_blocks(int slot)
{
	return slot == SHIFT ? (SPANS + 1) * SPAN : DATA_BLOCKS;
}

/* Checks a whole file, without a device. Nothing writes to it. */
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

void check_files(int slot)
{
	check_file(slot, file_names[slot]);
	if (slot == RDONLY)
		check_file(slot, second_name);
}

/*
 * Attaching and detaching
 *
 * A task that opens the device of a slot, and attaches it if necessary, holds the lock of the slot;
 * a task that detaches it holds the lock until it is detached.
 */

/* With the device open, do not wait for the lock: its owner waits for the close. */
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

void loop_name(char *name, int number)
{
	sprintf(name, "/dev/loop%d", number);
}

bool is_slots(int slot, const struct loop_info64 *info)
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

int open_backing(int slot)
{
	const char *name = file_names[slot];
	int fd;

	if (slot == RDONLY && rnd(2))
		name = second_name;
	fd = open(name, open_flags(slot) | (rnd(2) ? O_DIRECT : 0));
	/* Not all files support direct I/O. */
	if (fd < 0 && errno == EINVAL)
		fd = open(name, open_flags(slot));
	if (fd < 0)
		bad("open %s: %m", name);
	return fd;
}

/* With the lock of the slot held. Returns the open device. */
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
		/* Before the attach: if this task is killed now, the next one attaches it. */
		store(sh->slots[slot].number, nr);
		if (!doing(CONFIGURE, ioctl(fd, LOOP_CONFIGURE, &config)))
			break;
		close(fd);
	}
	close(config.fd);
	return fd;
}

/* Opens the device of a slot, which stays attached while it is open. */
int open_slot(int slot, int flags)
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
	/* Another slot can have the device number by now. */
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

void close_slot(int fd)
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

/* Whether the device has the file of the slot. */
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
 * LOOP_CLR_FD by the only opener takes effect at once. The C driver then fails the writeback of
 * dirty pages of the device, so with it another process has the device open.
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

/* No other task has it open or can open it: the slot is locked. */
static void detach_locked(int slot, int fd)
{
	int nr = sh->slots[slot].number;

	enter(DETACH);
	/* Another task may have reset autoclear; the detach may also have begun. */
	if (clear_fd(slot, fd) && errno != ENXIO)
		bad("LOOP_CLR_FD: %m");
	close(fd);
	/*
	 * The last close is that of a task that looked for a free device, or of asynchronous I/O,
	 * which closes a file a moment after its completion.
	 */
	while (is_bound(slot))
		usleep(1000);
	count(DETACH, 0);
	store(sh->slots[slot].number, -1);
	check_files(slot);
	if (rnd(2))
		doing(REMOVE, ioctl(control, LOOP_CTL_REMOVE, nr));
}

/*
 * Makes all tasks close the device, and closes it. Returns false, with the device open, if another
 * task does that.
 */
bool detach(int slot, int fd)
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
 * LOOP_CLR_FD under I/O of others. Returns false if no other task had it open, so that it is
 * detached.
 */
bool clear(int slot, int fd)
{
	struct loop_info64 info;
	bool bound;

	/*
	 * With the lock: otherwise it could be attached again before the dirty pages of this device
	 * are written back.
	 */
	if (!lock(slot, false))
		return true;
	doing(CLEAR, clear_fd(slot, fd));
	bound = !doing(PROBE, ioctl(fd, LOOP_GET_STATUS64, &info));
	if (!bound) {
		/* All others have closed it: otherwise I/O would still be possible. */
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

int put(const char *dir, const char *file, const char *text)
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

void group_dir(char *dir, size_t size, unsigned int nr)
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

/* I/O in flight stays in the old cgroup. */
void join(void)
{
	char dir[8192];
	int nr = some_group();

	if (nr < 0)
		return;
	group_dir(dir, sizeof(dir), nr);
	doing(JOIN, put(dir, "cgroup.procs", "0"));
}

void limit_io(const char *dir)
{
	static const char *const keys[] = { "rbps", "wbps", "riops", "wiops" };
	char text[128];
	unsigned int i, value;
	dev_t dev;
	int n;

	/* Limits on the disk below are more frequent: the driver issues those requests. */
	i = rnd(6);
	if (i < 4)
		dev = disks[i % 2];
	else
		dev = makedev(7, sh->slots[rnd(SLOTS)].number & 0xff);
	n = sprintf(text, "%u:%u", major(dev), minor(dev));
	for (i = 0; i < 4; i++) {
		/* Operations that wait for all I/O wait for this limit, too. */
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

void limit_memory(const char *dir)
{
	static const char *const values[] = { "4M", "8M", "16M", "max" };

	doing(LIMIT_MEMORY, put(dir, "memory.high", values[rnd(4)]));
}

void make_group(unsigned int nr)
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
	/* Publish it last: a task that saw the previous group must not join an incomplete one. */
	strcpy(sh->groups[nr].name, name);
	store(sh->groups[nr].alive, 1);
}

/* All tasks of a cgroup move to others, or to the root. */
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
		/* A write restarts the list at most. */
		count(MIGRATE, put(target, "cgroup.procs", pid));
		enter(LEAVE_CGROUP);
	}
	fclose(f);
}

void remove_group(unsigned int nr, enum op op)
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
		/* A killed task may have to wait for its I/O. */
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

void remove_groups(void)
{
	unsigned int nr;

	for (nr = 0; nr < GROUPS; nr++)
		if (sh->groups[nr].alive)
			remove_group(nr, KILL_CGROUP);
}

/* Releases throttled I/O. Also called after a failure. */
void lift_limits(void)
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
