// SPDX-License-Identifier: GPL-2.0
/*
 * I/O for corner cases of the data path, for the tests of the loop driver.
 *
 * All I/O is direct, in blocks of 4 KiB, unless said otherwise. The contents of a block depend on
 * its position and on a seed, as with "loop_io pattern".
 *
 *   loop_edges fragment FILE COUNT
 *	punches out the blocks 0, 2, 4, ... so that the file has COUNT extents
 *   loop_edges batch LOOP COUNT SEED DISK SECONDS aio|uring
 *	submits batches of 31 reads of random blocks of LOOP, among the COUNT blocks that
 *	"fragment" left, and one read of DISK, for SECONDS and at least three times; prints the
 *	number of batches
 *   loop_edges drop-caches DISK MS
 *	drops the page cache of DISK, and cached extents of file systems, every MS milliseconds,
 *	until it is killed
 *   loop_edges suspend NAME
 *	suspends and resumes the device-mapper device NAME until SIGTERM; prints the number of
 *	suspends
 *   loop_edges flood DEV read|write FIRST COUNT SIZE READY SEED...
 *	submits COUNT I/Os of SIZE bytes, which are adjacent from byte FIRST on, in an order
 *	without consecutive neighbours; creates the file READY when all are submitted; waits for
 *	them.  Writes use the first SEED.  Each read must match a SEED, or a "SEED+SHIFT" if DEV
 *	maps a file from SHIFT on.  Prints the number of reads of each SEED, the number of failed
 *	I/Os, and the number of reads that match no SEED as a whole
 *   loop_edges placed FILE FIRST COUNT SIZE SEED OFFSET...
 *	prints the number of writes of "flood" whose data is at each OFFSET in FILE, and the number
 *	of writes whose data is at no OFFSET
 *   loop_edges dirty DEV FIRST COUNT
 *	writes COUNT blocks, every other block from byte FIRST on, through the page cache, and
 *	starts their writeback
 *   loop_edges crowd DEV FIRST CGROUP...
 *	a task in each CGROUP (a directory) writes one block; waits for all tasks
 *   loop_edges fsyncs DEV FIRST TASKS
 *	TASKS tasks that write one block and call fsync, until they are killed
 *   loop_edges account DEV read|write COUNT
 *	does COUNT I/Os, one at a time; prints the kernel's accounting for the task:
 *	"read_bytes N write_bytes N inblock N outblock N"
 *   loop_edges nowait DEV COUNT N
 *	submits N reads with RWF_NOWAIT, one by one, of random blocks that "fragment" left; prints
 *	the number of submissions in which the task slept
 *   loop_edges change-fd DEV FILE
 *   loop_edges set-status DEV OFFSET SIZELIMIT
 *   loop_edges block-size DEV SIZE
 *	LOOP_CHANGE_FD, LOOP_SET_STATUS64, LOOP_SET_BLOCK_SIZE
 */
#include "edges.h"

#include <linux/loop.h>
#include <sys/ioctl.h>

static int fragment(const char *name, uint64_t count)
{
	int fd = open_at(name, O_RDWR);
	uint64_t i;

	for (i = 0; i < count; i++)
		if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			      i * 2 * BLOCK, BLOCK))
			die("fallocate: %m");
	if (fsync(fd))
		die("fsync %s: %m", name);
	return 0;
}

static int dirty(const char *name, uint64_t first, uint64_t count)
{
	int fd = open_at(name, O_WRONLY);
	uint8_t *buf = pages(BLOCK);
	uint64_t i;

	for (i = 0; i < count; i++)
		if (pwrite(fd, buf, BLOCK, first + i * 2 * BLOCK) != (ssize_t)BLOCK)
			die("write: %m");
	if (sync_file_range(fd, first, count * 2 * BLOCK, SYNC_FILE_RANGE_WRITE))
		die("sync_file_range: %m");
	return 0;
}

static int set_status(const char *name, uint64_t offset, uint64_t sizelimit)
{
	int fd = open_at(name, O_RDWR);
	struct loop_info64 info;

	if (ioctl(fd, LOOP_GET_STATUS64, &info))
		die("LOOP_GET_STATUS64: %m");
	info.lo_offset = offset;
	info.lo_sizelimit = sizelimit;
	if (ioctl(fd, LOOP_SET_STATUS64, &info))
		die("LOOP_SET_STATUS64: %m");
	return 0;
}

static int ioctl_on(const char *name, unsigned long cmd, unsigned long arg)
{
	int fd = open_at(name, O_RDONLY);

	if (ioctl(fd, cmd, arg))
		die("ioctl %#lx: %m", cmd);
	return 0;
}

int main(int argc, char **argv)
{
	const char *cmd = argc > 1 ? argv[1] : "";

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 4 && !strcmp(cmd, "fragment"))
		return fragment(argv[2], number(argv[3]));
	if (argc == 8 && !strcmp(cmd, "batch"))
		return batch(argv[2], number(argv[3]), number(argv[4]), argv[5], number(argv[6]),
			     !strcmp(argv[7], "uring"));
	if (argc == 4 && !strcmp(cmd, "drop-caches"))
		return drop_caches(argv[2], number(argv[3]));
	if (argc == 3 && !strcmp(cmd, "suspend"))
		return suspend(argv[2]);
	if (argc >= 9 && !strcmp(cmd, "flood"))
		return flood(argv[2], argv[3], number(argv[4]), number(argv[5]), number(argv[6]),
			     argv[7], argv + 8, argc - 8);
	if (argc >= 8 && !strcmp(cmd, "placed"))
		return placed(argv[2], number(argv[3]), number(argv[4]), number(argv[5]),
			      number(argv[6]), argv + 7, argc - 7);
	if (argc == 5 && !strcmp(cmd, "dirty"))
		return dirty(argv[2], number(argv[3]), number(argv[4]));
	if (argc >= 5 && !strcmp(cmd, "crowd"))
		return crowd(argv[2], number(argv[3]), argv + 4, argc - 4);
	if (argc == 5 && !strcmp(cmd, "fsyncs"))
		return fsyncs(argv[2], number(argv[3]), number(argv[4]));
	if (argc == 5 && !strcmp(cmd, "account"))
		return account(argv[2], argv[3], number(argv[4]));
	if (argc == 5 && !strcmp(cmd, "nowait"))
		return nowait(argv[2], number(argv[3]), number(argv[4]));
	if (argc == 4 && !strcmp(cmd, "change-fd"))
		return ioctl_on(argv[2], LOOP_CHANGE_FD, open_at(argv[3], O_RDONLY));
	if (argc == 5 && !strcmp(cmd, "set-status"))
		return set_status(argv[2], number(argv[3]), number(argv[4]));
	if (argc == 4 && !strcmp(cmd, "block-size"))
		return ioctl_on(argv[2], LOOP_SET_BLOCK_SIZE, number(argv[3]));
	printf("usage: see the head of tests/edges/main.c\n");
	return 2;
}
