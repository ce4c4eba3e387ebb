// SPDX-License-Identifier: GPL-2.0
/*
 * I/O patterns that dd and fio do not offer, for the tests of the loop driver.
 *
 *   loop_io pattern FILE SIZE SEED
 *	fill FILE with bytes that depend on their offset and on SEED
 *   loop_io shape DEV BACKING OFFSET SEED ROUNDS
 *	requests of unusual shape to DEV, which maps BACKING from OFFSET on: vectored direct I/O
 *	with 512-byte segments at odd page offsets, batches of adjacent requests, which are merged,
 *	and single requests that are split; DEV and BACKING must hold the written data
 *   loop_io deep DEV SIZE SEED DEPTH COUNT
 *	COUNT direct reads of random blocks, with DEPTH of them in flight, submitted one by one;
 *	DEV must hold the data of "pattern"
 *   loop_io rates DEV CONTROL SIZE ROUNDS READS
 *	in each round READS direct reads of random blocks of each device, alternating; prints the
 *	speed of DEV in percent of the speed of CONTROL
 *   loop_io short DEV OFFSET SIZE DEPTH
 *	DEPTH direct reads of SIZE bytes at OFFSET, all in flight: the backing file ends within
 *	that range, and each read must fail with EIO
 *   loop_io order DEV COUNT
 *	COUNT direct writes of blocks that are not adjacent, all in flight, submitted one by one;
 *	prints their numbers, counted from 0, in the order of completion
 *   loop_io set-name DEV NAME
 *	LOOP_SET_STATUS64 with another name and an otherwise unchanged status
 *   loop_io clear-dirty DEV
 *	writes a block through the page cache and closes DEV; then LOOP_CLR_FD through another open
 *	file, whose close is the last one
 *   loop_io poll DEV
 *	a direct read with RWF_HIPRI, and one through a ring with IORING_SETUP_IOPOLL; prints the
 *	result of each: the number of bytes, or the error
 *   loop_io add N, loop_io remove N
 *	LOOP_CTL_ADD or LOOP_CTL_REMOVE of device N
 *   loop_io memory MIB READY GO
 *	allocates and fills memory, creates the file READY, waits for the file GO; the memory must
 *	be unchanged
 *   loop_io read-as-cgroups PARENT COUNT DEV...
 *	creates the cgroups 1 to COUNT below the directory PARENT, and as each of them in turn does
 *	a direct read of the next DEV
 *   loop_io zeroed DEV OFFSET SIZE
 *	a direct read that must fail with EIO and leave zeroes in the buffer
 */
#include "io.h"

#include <fcntl.h>
#include <linux/loop.h>
#include <sys/mman.h>
#include <unistd.h>

static int pattern(const char *name, uint64_t size, uint64_t seed)
{
	static uint8_t buf[1 << 16];
	int fd = open(name, O_WRONLY | O_CREAT, 0600);
	uint64_t pos;

	if (fd < 0)
		die("open %s: %m", name);
	for (pos = 0; pos < size; pos += sizeof(buf)) {
		size_t len = size - pos < sizeof(buf) ? size - pos : sizeof(buf);

		fill(buf, sizeof(buf), pos, seed);
		if (pwrite(fd, buf, len, pos) != (ssize_t)len)
			die("write %s: %m", name);
	}
	if (close(fd))
		die("close %s: %m", name);
	return 0;
}

static int memory(size_t size, const char *ready, const char *go)
{
	uint8_t *mem = mmap(NULL, size, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint8_t page[PAGE];
	size_t pos;
	int fd;

	if (mem == MAP_FAILED)
		die("mmap: %m");
	for (pos = 0; pos < size; pos += PAGE)
		fill(mem + pos, PAGE, pos, 1);
	fd = open(ready, O_WRONLY | O_CREAT, 0644);
	if (fd < 0)
		die("open %s: %m", ready);
	close(fd);
	while (access(go, F_OK))
		usleep(10000);
	for (pos = 0; pos < size; pos += PAGE) {
		fill(page, PAGE, pos, 1);
		if (memcmp(mem + pos, page, PAGE))
			die("wrong data in the page at %zu", pos);
	}
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "add"))
		return control(LOOP_CTL_ADD, atoi(argv[2]));
	if (argc == 3 && !strcmp(argv[1], "remove"))
		return control(LOOP_CTL_REMOVE, atoi(argv[2]));
	if (argc == 5 && !strcmp(argv[1], "pattern"))
		return pattern(argv[2], strtoull(argv[3], NULL, 0),
			       strtoull(argv[4], NULL, 0));
	if (argc == 7 && !strcmp(argv[1], "shape"))
		return shape(argv[2], argv[3], strtoull(argv[4], NULL, 0),
			     strtoull(argv[5], NULL, 0), atoi(argv[6]));
	if (argc == 7 && !strcmp(argv[1], "deep"))
		return deep(argv[2], strtoull(argv[3], NULL, 0), strtoull(argv[4], NULL, 0),
			    atoi(argv[5]), atoi(argv[6]));
	if (argc == 7 && !strcmp(argv[1], "rates"))
		return rates(argv[2], argv[3], strtoull(argv[4], NULL, 0), atoi(argv[5]),
			     atoi(argv[6]));
	if (argc == 6 && !strcmp(argv[1], "short"))
		return short_reads(argv[2], strtoull(argv[3], NULL, 0),
				   strtoull(argv[4], NULL, 0), atoi(argv[5]));
	if (argc == 4 && !strcmp(argv[1], "set-name"))
		return set_name(argv[2], argv[3]);
	if (argc == 3 && !strcmp(argv[1], "clear-dirty"))
		return clear_dirty(argv[2]);
	if (argc == 3 && !strcmp(argv[1], "poll"))
		return poll_reads(argv[2]);
	if (argc >= 5 && !strcmp(argv[1], "read-as-cgroups"))
		return read_as_cgroups(argv[2], atoi(argv[3]), argv + 4, argc - 4);
	if (argc == 4 && !strcmp(argv[1], "order"))
		return order(argv[2], atoi(argv[3]));
	if (argc == 5 && !strcmp(argv[1], "memory"))
		return memory(strtoull(argv[2], NULL, 0) << 20, argv[3], argv[4]);
	if (argc == 5 && !strcmp(argv[1], "zeroed"))
		return zeroed(argv[2], strtoull(argv[3], NULL, 0),
			      strtoull(argv[4], NULL, 0));
	fprintf(stderr, "usage: loop_io pattern FILE SIZE SEED\n"
			"       loop_io shape DEV BACKING OFFSET SEED ROUNDS\n"
			"       loop_io deep DEV SIZE SEED DEPTH COUNT\n"
			"       loop_io rates DEV CONTROL SIZE ROUNDS READS\n"
			"       loop_io short DEV OFFSET SIZE DEPTH\n"
			"       loop_io order DEV COUNT\n"
			"       loop_io set-name DEV NAME\n"
			"       loop_io clear-dirty DEV\n"
			"       loop_io poll DEV\n"
			"       loop_io add|remove N\n"
			"       loop_io memory MIB READY GO\n"
			"       loop_io zeroed DEV OFFSET SIZE\n");
	return 2;
}
