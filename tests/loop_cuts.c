// SPDX-License-Identifier: GPL-2.0
/*
 * Files and blocks for which the effect of a power cut is known, for the tests of the loop driver.
 *
 *   loop_cuts write DIR WRITER STEPS MAPPED
 *	does steps 0, 1, ... in DIR; after each step, once it is synced, adds the mark
 *	"WRITER-STEP" to the log of the device-mapper device MAPPED
 *   loop_cuts check DIR WRITER LAST
 *	DIR must have all data of the steps up to LAST (-1: none), any part of the next step, and
 *	nothing of later steps
 *   loop_cuts fill DEV WRITER
 *	fills the writer's part of the device DEV with the contents before step 0
 *   loop_cuts change DEV WRITER STEPS MAPPED
 *   loop_cuts verify DEV WRITER LAST
 *	like "write" and "check" with a part of DEV instead of files
 *
 * The steps of a file: create it, append to it, overwrite a part of it, replace it by another file.
 * The contents depend on the writer, the file and the generation: 0 for the first two steps, 1 for
 * the overwritten part, 2 for the other file.
 *
 * A step of a device writes some of its blocks, zeroes blocks (with their space kept or freed), or
 * discards blocks, which become zeroes on a loop device, too; then it syncs.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "loop_test.h"

#define SECTOR		512u
#define BLOCK		4096u
#define MAX_SIZE	(32 * BLOCK)

enum { CREATE, APPEND, OVERWRITE, REPLACE, STEPS };

struct file {
	int writer;
	int nr;
	char name[16];
	/* Sizes of the file once it is created and appended to, and of the other file. */
	uint32_t size[3];
	/* The overwritten part, in whole blocks. */
	uint32_t start, end;
};

static uint8_t buf[MAX_SIZE + BLOCK] __attribute__((aligned(BLOCK)));
static uint8_t model[2][MAX_SIZE + BLOCK];

static uint64_t hash(uint64_t v)
{
	v = (v ^ v >> 31) * 0x9e3779b97f4a7c15ull;
	return v ^ v >> 29;
}

static void file_init(struct file *f, int writer, int nr)
{
	uint64_t rng = hash(writer * 1000 + nr + 1);
	uint32_t blocks;

	f->writer = writer;
	f->nr = nr;
	snprintf(f->name, sizeof(f->name), "file%d", nr);
	f->size[0] = 1 + rng % (15 * BLOCK);
	rng = hash(rng);
	f->size[1] = f->size[0] + 2 * BLOCK + rng % (15 * BLOCK);
	rng = hash(rng);
	f->size[2] = 1 + rng % MAX_SIZE;
	/* A partial last block is not overwritten. */
	blocks = f->size[1] / BLOCK;
	rng = hash(rng);
	f->start = rng % blocks;
	rng = hash(rng);
	f->end = f->start + 1 + rng % (blocks - f->start);
	f->start *= BLOCK;
	f->end *= BLOCK;
}

/* The whole file in one generation. */
static void fill(uint8_t *to, const struct file *f, int gen)
{
	uint64_t seed = hash((f->writer * 1000 + f->nr) * 4 + gen + 1);
	uint32_t pos;

	for (pos = 0; pos < MAX_SIZE; pos += sizeof(seed)) {
		uint64_t v = hash(seed + pos);

		memcpy(to + pos, &v, sizeof(v));
	}
}

static int open_in(int dir, const char *name, int flags)
{
	int fd = openat(dir, name, flags, 0600);

	if (fd < 0)
		die("open %s: %m", name);
	return fd;
}

static void write_at(int fd, uint32_t from, uint32_t to)
{
	if (pwrite(fd, buf + from, to - from, from) != (ssize_t)(to - from))
		die("write of %u bytes at %u: %m", to - from, from);
}

static void done(int fd, int synced, const char *name)
{
	if (synced || close(fd))
		die("sync %s: %m", name);
}

static void sync_dir(int dir)
{
	if (fsync(dir))
		die("fsync of the directory: %m");
}

static void step(int dir, const struct file *f, int op)
{
	int fd;

	switch (op) {
	case CREATE:
		fd = open_in(dir, f->name, O_WRONLY | O_CREAT | O_EXCL);
		fill(buf, f, 0);
		write_at(fd, 0, f->size[0]);
		done(fd, fsync(fd), f->name);
		sync_dir(dir);
		break;
	case APPEND:
		fd = open_in(dir, f->name, O_WRONLY);
		fill(buf, f, 0);
		write_at(fd, f->size[0], f->size[1]);
		done(fd, fdatasync(fd), f->name);
		break;
	case OVERWRITE:
		/* With O_DSYNC the write itself is durable: it becomes a write with FUA. */
		fd = open_in(dir, f->name,
			     O_WRONLY | (f->nr % 2 ? O_DIRECT | O_DSYNC : 0));
		fill(buf, f, 1);
		write_at(fd, f->start, f->end);
		done(fd, f->nr % 2 ? 0 : fdatasync(fd), f->name);
		break;
	case REPLACE:
		fd = open_in(dir, "other", O_WRONLY | O_CREAT | O_EXCL);
		fill(buf, f, 2);
		write_at(fd, 0, f->size[2]);
		done(fd, fsync(fd), "other");
		if (renameat(dir, "other", dir, f->name))
			die("rename to %s: %m", f->name);
		sync_dir(dir);
		break;
	}
}

/* dmsetup takes longer than a step. */
static void mark(int control, const char *mapped, int writer, int nr)
{
	static union {
		struct dm_ioctl head;
		char room[1024];
	} arg;
	struct dm_target_msg *msg = (void *)(arg.room + sizeof(arg.head));

	memset(&arg, 0, sizeof(arg));
	arg.head.version[0] = DM_VERSION_MAJOR;
	arg.head.data_size = sizeof(arg);
	arg.head.data_start = sizeof(arg.head);
	snprintf(arg.head.name, sizeof(arg.head.name), "%s", mapped);
	snprintf(msg->message, sizeof(arg) - sizeof(arg.head) - sizeof(*msg),
		 "mark %d-%d", writer, nr);
	if (ioctl(control, DM_TARGET_MSG, &arg))
		die("mark %d-%d: %m", writer, nr);
}

static int write_all(const char *dir_name, int writer, int steps,
		     const char *mapped)
{
	int dir = open(dir_name, O_RDONLY | O_DIRECTORY);
	int control = open("/dev/mapper/control", O_RDWR);
	struct file f;
	int i;

	if (dir < 0)
		die("open %s: %m", dir_name);
	if (control < 0)
		die("open /dev/mapper/control: %m");
	for (i = 0; i < steps; i++) {
		file_init(&f, writer, i / STEPS);
		step(dir, &f, i % STEPS);
		mark(control, mapped, writer, i);
	}
	return 0;
}

/* Each sector of the file at @pos is that of one of the two models. */
static void compare(const struct file *f, uint32_t from, uint32_t to)
{
	uint32_t pos, next;

	for (pos = from; pos < to; pos = next) {
		next = (pos / SECTOR + 1) * SECTOR;
		if (next > to)
			next = to;
		if (memcmp(buf + pos, model[0] + pos, next - pos) &&
		    memcmp(buf + pos, model[1] + pos, next - pos))
			die("lost: %s is wrong at %u: %02x %02x %02x %02x", f->name,
			    pos, buf[pos], buf[pos + 1], buf[pos + 2], buf[pos + 3]);
	}
}

/* Whether both models are of that generation. */
static void expect(const struct file *f, int gen)
{
	fill(model[0], f, gen);
	memcpy(model[1], model[0], sizeof(model[1]));
}

/* The first @synced steps of the file are there; the next one may be there if @begun. */
static void check_file(int dir, const struct file *f, int synced, int begun)
{
	int fd = openat(dir, f->name, O_RDONLY);
	ssize_t size;

	if (fd < 0) {
		if (errno == ENOENT && !synced)
			return;
		die("lost: open %s, of which %d steps were synced: %m", f->name,
		    synced);
	}
	size = read(fd, buf, sizeof(buf));
	if (size < 0)
		die("lost: read %s: %m", f->name);
	close(fd);

	switch (synced) {
	case CREATE:
		if (!begun)
			die("%s is there", f->name);
		return;
	case APPEND:
		expect(f, 0);
		if (size < f->size[0] || size > f->size[begun])
			break;
		compare(f, 0, f->size[0]);
		return;
	case OVERWRITE:
		expect(f, 0);
		if (size != f->size[1])
			break;
		compare(f, 0, f->start);
		compare(f, f->end, size);
		if (begun)
			fill(model[1], f, 1);
		compare(f, f->start, f->end);
		return;
	case REPLACE:
		/* One of the two files, complete. */
		expect(f, 2);
		if (begun && size == f->size[2] && !memcmp(buf, model[0], size))
			return;
		if (size != f->size[1])
			break;
		fill(model[0], f, 1);
		memcpy(model[1], model[0], sizeof(model[1]));
		compare(f, f->start, f->end);
		expect(f, 0);
		compare(f, 0, f->start);
		compare(f, f->end, size);
		return;
	case STEPS:
		expect(f, 2);
		if (size != f->size[2])
			break;
		compare(f, 0, size);
		return;
	}
	die("lost: %s has %zd bytes; %d steps were synced", f->name, size, synced);
}

static int check_all(const char *dir_name, int writer, int last)
{
	int dir = open(dir_name, O_RDONLY | O_DIRECTORY);
	int steps = last + 1;
	/* The number of files begun for certain; the next one may have been begun. */
	int files = (steps + STEPS - 1) / STEPS;
	struct dirent *d;
	struct file f;
	DIR *names;
	int i;

	if (dir < 0)
		die("lost: open %s: %m", dir_name);
	for (i = 0; i <= files; i++) {
		int synced = steps - i * STEPS;

		file_init(&f, writer, i);
		if (synced >= STEPS)
			check_file(dir, &f, STEPS, 0);
		else if (synced >= 0)
			check_file(dir, &f, synced, 1);
		else
			check_file(dir, &f, 0, 0);
	}

	names = fdopendir(dir);
	if (!names)
		die("fdopendir: %m");
	while (errno = 0, (d = readdir(names))) {
		int nr;

		if (d->d_name[0] == '.')
			continue;
		if (!strcmp(d->d_name, "other")) {
			if (steps % STEPS != REPLACE)
				die("lost: the rename before step %d", steps);
		} else if (sscanf(d->d_name, "file%d", &nr) != 1 || nr > files) {
			die("unexpected: %s", d->d_name);
		}
	}
	if (errno)
		die("lost: readdir: %m");
	return 0;
}

/* A writer's part of a device. */
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

static int fill_part(const char *name, int writer)
{
	int dev = open_device(name, O_WRONLY | O_DIRECT);
	uint32_t i;

	for (i = 0; i < PART_BLOCKS; i += 32)
		put_blocks(dev, writer, -1, i, i + 32);
	done(dev, fsync(dev), name);
	return 0;
}

static int change_all(const char *name, int writer, int steps, const char *mapped)
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

static int verify_part(const char *name, int writer, int last)
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

int main(int argc, char **argv)
{
	if (argc == 6 && !strcmp(argv[1], "write"))
		return write_all(argv[2], number(argv[3]), number(argv[4]),
				 argv[5]);
	if (argc == 5 && !strcmp(argv[1], "check"))
		return check_all(argv[2], number(argv[3]), number(argv[4]));
	if (argc == 4 && !strcmp(argv[1], "fill"))
		return fill_part(argv[2], number(argv[3]));
	if (argc == 6 && !strcmp(argv[1], "change"))
		return change_all(argv[2], number(argv[3]), number(argv[4]), argv[5]);
	if (argc == 5 && !strcmp(argv[1], "verify"))
		return verify_part(argv[2], number(argv[3]), number(argv[4]));
	printf("usage: loop_cuts write DIR WRITER STEPS MAPPED\n"
	       "       loop_cuts check DIR WRITER LAST\n"
	       "       loop_cuts fill DEV WRITER\n"
	       "       loop_cuts change DEV WRITER STEPS MAPPED\n"
	       "       loop_cuts verify DEV WRITER LAST\n");
	return 2;
}
