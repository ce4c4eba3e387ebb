// SPDX-License-Identifier: GPL-2.0
/*
 * The tasks of loop_chaos: some do I/O, others change devices, cgroups and file systems.
 */
#include "chaos.h"

/*
 * Tasks that do I/O
 */

/* Reads all of a worker's range, and determines generations that a killed worker left open. */
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

/* Reads a block that another task may be writing. */
static void read_others(int fd, int slot)
{
	unsigned int block = rnd(DATA_BLOCKS);
	uint32_t lo = load(sh->blocks[slot][block].acked);

	read_at(OTHERS_READ, fd, io_buf, block, 1);
	check(io_buf, slot, block, lo, load(sh->blocks[slot][block].pending),
	      "another's block");
}

/* Many I/Os in flight: more than the tags of a cgroup. */
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
		read_own(direct_fd, slot, at, n, "direct read of buffered writes");
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

/* A worker owns a range of the blocks of a slot. */
void worker(int arg)
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
			/* Readahead would read blocks that others write with direct I/O. */
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

/* Reads the device whose offset changes. */
void shift_reader(int unused)
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
			/* The block is of any one of the spans. */
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

/* The two files of this device have the same contents. */
void rdonly_reader(int unused)
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

/* Repeatedly attaches, uses and detaches a device. */
void churner(int unused)
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
 * Tasks that change devices, cgroups and file systems
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

/* Nothing reads or writes the blocks at the end of the file. */
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

/* The only writer of this device. */
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

/* Holds nothing that could make it wait for the frozen file system. */
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

/* No other task runs any more: checks all data, through the devices and without them. */
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
