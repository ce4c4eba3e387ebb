// SPDX-License-Identifier: GPL-2.0
/*
 * Tasks that change devices, cgroups and file systems, and tasks that read sysfs.
 */
#include "chaos.h"

static void set_status(int slot, int fd)
{
	struct loop_info64 info;

	doing(GET_STATUS, ioctl(fd, LOOP_GET_STATUS64, &info));
	if (!is_slots(slot, &info))
		bad("the device is bound to inode %llu", (unsigned long long)info.lo_inode);
	info.lo_flags ^= rnd(2) ? LO_FLAGS_AUTOCLEAR : 0;
	info.lo_flags |= rnd(4) ? 0 : LO_FLAGS_PARTSCAN;
	snprintf((char *)info.lo_file_name, LO_NAME_SIZE, "name %u", rnd(1000));
	doing(SET_STATUS, ioctl(fd, LOOP_SET_STATUS64, &info));
}

/* No task reads or writes the blocks at the end of the file. */
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
		bad("the size of the device is %llu", (unsigned long long)size);
	count(RESIZE, 0);
}

void changer(int unused)
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

/* Changes the offset of a device, whose only writer it is. */
void mover(int unused)
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
				bad("the size of the device is %llu, not %u", (unsigned long long)size,
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

void file_changer(int unused)
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

void grouper(int unused)
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

/* The number of requests in flight on the devices with files in a directory. */
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

/* Uses no file of a frozen file system: it must not wait for the thaw. */
void freezer(int unused)
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

/* Reads a file that may be missing; returns the number of bytes. */
size_t look(const char *name, char *buf, size_t size)
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

void looker(int unused)
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

/* After all other tasks: checks all data, through the devices and without them. */
void finish(int unused)
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
