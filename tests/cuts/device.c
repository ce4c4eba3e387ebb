// SPDX-License-Identifier: GPL-2.0
/*
 * A part of a device that a writer writes, zeroes and discards.
 */
#include "cuts.h"

#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

/* The part of a writer on the device. */
#define PART		(8u << 20)
#define PARTS_START	(32ull << 20)
#define PART_BLOCKS	(PART / BLOCK)

enum { PUT, ZERO, UNMAP, DISCARD, CHANGES };

struct change {
	int op;
	/* In blocks. */
	uint32_t start, end;
};

static uint64_t part_start(int writer)
{
	return PARTS_START + writer * (uint64_t)PART;
}

static struct change change_of(int writer, int nr)
{
	uint64_t rng = hash(writer * 1000 + nr + 77);
	struct change c = { .op = rng % CHANGES };

	rng = hash(rng);
	c.start = rng % (PART_BLOCKS - 64);
	rng = hash(rng);
	c.end = c.start + 1 + rng % (c.op == PUT ? 16 : 64);
	return c;
}

/* The contents of a block after the step that wrote it, or before all steps: @nr is -1. */
static void fill_block(uint8_t *to, int writer, int nr, uint32_t block)
{
	uint64_t seed = hash((writer * 1000ull + nr + 1) * PART_BLOCKS + block + 1);
	uint32_t pos;

	for (pos = 0; pos < BLOCK; pos += sizeof(seed)) {
		uint64_t v = hash(seed + pos);

		memcpy(to + pos, &v, sizeof(v));
	}
}

static int open_device(const char *name, int flags)
{
	int dev = open(name, flags);

	if (dev < 0)
		die("open %s: %m", name);
	return dev;
}

static void put_blocks(int dev, int writer, int nr, uint32_t start, uint32_t end)
{
	uint32_t i, n = end - start;

	for (i = 0; i < n; i++)
		fill_block(buf + i * BLOCK, writer, nr, start + i);
	if (pwrite(dev, buf, n * BLOCK, part_start(writer) + start * (uint64_t)BLOCK) !=
	    (ssize_t)(n * BLOCK))
		die("write of %u blocks at %u: %m", n, start);
}

int fill_part(const char *name, int writer)
{
	int dev = open_device(name, O_WRONLY | O_DIRECT);
	uint32_t i;

	for (i = 0; i < PART_BLOCKS; i += 32)
		put_blocks(dev, writer, -1, i, i + 32);
	done(dev, fsync(dev), name);
	return 0;
}

int change_all(const char *name, int writer, int steps, const char *mapped)
{
	int dev = open_device(name, O_WRONLY | O_DIRECT);
	int control = open_device("/dev/mapper/control", O_RDWR);
	int i, failed;

	for (i = 0; i < steps; i++) {
		struct change c = change_of(writer, i);
		uint64_t range[2] = { part_start(writer) + c.start * (uint64_t)BLOCK,
				      (c.end - c.start) * (uint64_t)BLOCK };

		switch (c.op) {
		case PUT:
			put_blocks(dev, writer, i, c.start, c.end);
			failed = 0;
			break;
		case ZERO:
			failed = ioctl(dev, BLKZEROOUT, range);
			break;
		case UNMAP:
			failed = fallocate(dev, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					   range[0], range[1]);
			break;
		default:
			failed = ioctl(dev, BLKDISCARD, range);
			break;
		}
		if (failed)
			die("step %d, operation %d: %m", i, c.op);
		if (fsync(dev))
			die("fsync %s: %m", name);
		mark(control, mapped, writer, i);
	}
	return 0;
}

/* The contents that step @nr gives to a block. */
static void after_change(uint8_t *to, int writer, int nr, uint32_t block)
{
	if (change_of(writer, nr).op == PUT)
		fill_block(to, writer, nr, block);
	else
		memset(to, 0, BLOCK);
}

int verify_part(const char *name, int writer, int last)
{
	int dev = open_device(name, O_RDONLY | O_DIRECT);
	struct change c, next = change_of(writer, last + 1);
	uint32_t block, pos;
	int i;

	for (block = 0; block < PART_BLOCKS; block++) {
		fill_block(model[0], writer, -1, block);
		for (i = 0; i <= last; i++) {
			c = change_of(writer, i);
			if (block >= c.start && block < c.end)
				after_change(model[0], writer, i, block);
		}
		memcpy(model[1], model[0], BLOCK);
		if (block >= next.start && block < next.end)
			after_change(model[1], writer, last + 1, block);
		if (pread(dev, buf, BLOCK, part_start(writer) + block * (uint64_t)BLOCK) !=
		    (ssize_t)BLOCK)
			die("lost: read of block %u: %m", block);
		for (pos = 0; pos < BLOCK; pos += SECTOR)
			if (memcmp(buf + pos, model[0] + pos, SECTOR) &&
			    memcmp(buf + pos, model[1] + pos, SECTOR))
				die("lost: block %u of writer %d is wrong at %u: %02x %02x, not %02x %02x",
				    block, writer, pos, buf[pos], buf[pos + 1],
				    model[0][pos], model[0][pos + 1]);
	}
	return 0;
}
