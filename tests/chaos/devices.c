// SPDX-License-Identifier: GPL-2.0
/*
 * Attaching and detaching
 *
 * A task that opens the device of a slot, and attaches it if necessary, holds the lock of the slot;
 * a task that detaches it holds the lock until it is detached.
 */
#include "chaos.h"

/* A task that has the device open must not wait: the owner of the lock waits for its close. */
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

/* Attaches a device to the file of a slot, which is locked. Returns the open device. */
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
		/* Before the attach: if this task is killed now, the next task attaches it. */
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
	/* The device number can be that of another slot. */
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
 * LOOP_CLR_FD takes effect at once if the device is open once. The C driver then fails the
 * writeback of dirty pages: open the device a second time.
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

/* Detaches a device that no other task has open. No task can open it: the slot is locked. */
static void detach_locked(int slot, int fd)
{
	int nr = sh->slots[slot].number;

	enter(DETACH);
	/* Again, since another task may have reset autoclear. ENXIO: the detach has begun. */
	if (clear_fd(slot, fd) && errno != ENXIO)
		bad("LOOP_CLR_FD: %m");
	close(fd);
	/*
	 * The last close can be that of a task that looks for a free device, or that of
	 * asynchronous I/O, which drops its reference to the file after the completion.
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
 * LOOP_CLR_FD during I/O of other tasks. Returns false if no other task had the device open, so
 * that it is detached.
 */
bool clear(int slot, int fd)
{
	struct loop_info64 info;
	bool bound;

	/*
	 * With the lock: otherwise another task could attach the device again before its dirty
	 * pages are written back.
	 */
	if (!lock(slot, false))
		return true;
	doing(CLEAR, clear_fd(slot, fd));
	bound = !doing(PROBE, ioctl(fd, LOOP_GET_STATUS64, &info));
	if (!bound) {
		/* All other tasks have closed it: otherwise it would not be detached. */
		wait_for_others(slot);
		detach_locked(slot, fd);
		store(me->open, -1);
	}
	unlock(slot);
	return bound;
}
