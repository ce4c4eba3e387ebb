// SPDX-License-Identifier: GPL-2.0
/*
 * Tasks that do I/O.
 */
#include "chaos.h"

/* Reads a range, and determines the generation of blocks whose writer was killed. */
void resolve(int fd, int slot, unsigned int first, unsigned int n)
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

/* More I/Os in flight than a cgroup may have tags. */
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
		/* The C driver also calls fallocate() in a frozen file system, and ext4 warns. */
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
			/* Readahead would read blocks that other tasks write with direct I/O. */
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
			/* The block is that of one of the spans. */
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
				bad("the device is bound to inode %llu", (unsigned long long)info.lo_inode);
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
