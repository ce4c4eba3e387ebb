// SPDX-License-Identifier: GPL-2.0
/*
 * Files that a writer creates, extends, overwrites and replaces.
 */
#include "cuts.h"

#include <dirent.h>
#include <sys/stat.h>

enum { CREATE, APPEND, OVERWRITE, REPLACE, STEPS };

struct file {
	int writer;
	int nr;
	char name[16];
	/* The sizes of the file after CREATE, of the file after APPEND, and of the other file. */
	uint32_t size[3];
	/* The overwritten part, in whole blocks. */
	uint32_t start, end;
};

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

/* The contents of a file in one generation. */
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

int write_all(const char *dir_name, int writer, int steps,
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

/* Each sector from @from to @to must be that of one of the two models. */
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

/* Sets both models to a generation. */
static void expect(const struct file *f, int gen)
{
	fill(model[0], f, gen);
	memcpy(model[1], model[0], sizeof(model[1]));
}

/* The file must have its first @synced steps, and may have the next one if @begun. */
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
			die("%s exists", f->name);
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
		/* One of the two files, in whole. */
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

int check_all(const char *dir_name, int writer, int last)
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
