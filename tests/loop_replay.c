// SPDX-License-Identifier: GPL-2.0
/*
 * The log of dm-log-writes, for the tests of the loop driver.
 *
 *   loop_replay list LOG
 *	prints "INDEX FLAGS SECTOR SECTORS [MARK]" for each entry, from 0 on; the flags: F flush,
 *	A FUA, D discard, M mark, - none
 *   loop_replay apply LOG DEVICE FROM TO [SEED]
 *	writes the entries from FROM on, up to but not including TO, to DEVICE; with SEED a random
 *	subset of them and all with FUA, like a disk whose cache loses power
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "loop_test.h"

/* As defined in drivers/md/dm-log-writes.c, which has no header. */
#define LOG_FLUSH_FLAG		(1 << 0)
#define LOG_FUA_FLAG		(1 << 1)
#define LOG_DISCARD_FLAG	(1 << 2)
#define LOG_MARK_FLAG		(1 << 3)

#define WRITE_LOG_VERSION	1ull
#define WRITE_LOG_MAGIC		0x6a736677736872ull

struct log_write_super {
	uint64_t magic;
	uint64_t version;
	uint64_t nr_entries;
	uint32_t sectorsize;
};

struct log_write_entry {
	uint64_t sector;
	uint64_t nr_sectors;
	uint64_t flags;
	uint64_t data_len;
};

#define MAX_SECTOR	4096u
#define CHUNK		(1u << 20)

struct log {
	int fd;
	uint64_t nr_entries;
	uint32_t sectorsize;
	/* The next entry, and its position. */
	uint64_t index;
	uint64_t pos;
};

struct entry {
	uint64_t index;
	uint64_t sector;
	uint64_t nr_sectors;
	uint64_t flags;
	/* The position of its data in the log. */
	uint64_t data;
	char mark[MAX_SECTOR];
};

static void read_at(int fd, void *buf, size_t len, uint64_t pos)
{
	ssize_t n = pread(fd, buf, len, pos);

	if (n != (ssize_t)len)
		die("read of %zu bytes of the log at %llu: %s", len,
		    (unsigned long long)pos, n < 0 ? strerror(errno) : "its end");
}

static void log_open(struct log *log, const char *name)
{
	struct log_write_super super;

	memset(log, 0, sizeof(*log));
	log->fd = open(name, O_RDONLY);
	if (log->fd < 0)
		die("open %s: %m", name);
	/* dm-log-writes does not write through the page cache, which may have an older log. */
	if (ioctl(log->fd, BLKFLSBUF, 0))
		die("BLKFLSBUF %s: %m", name);
	read_at(log->fd, &super, sizeof(super), 0);
	if (le64toh(super.magic) != WRITE_LOG_MAGIC ||
	    le64toh(super.version) != WRITE_LOG_VERSION)
		die("%s is no log of writes", name);
	log->nr_entries = le64toh(super.nr_entries);
	log->sectorsize = le32toh(super.sectorsize);
	if (log->sectorsize < 512 || log->sectorsize > MAX_SECTOR)
		die("sectors of %u bytes", log->sectorsize);
	log->pos = log->sectorsize;
}

static int log_next(struct log *log, struct entry *e)
{
	struct log_write_entry raw;
	uint64_t len;

	if (log->index == log->nr_entries)
		return 0;
	read_at(log->fd, &raw, sizeof(raw), log->pos);
	e->index = log->index++;
	e->sector = le64toh(raw.sector);
	e->nr_sectors = le64toh(raw.nr_sectors);
	e->flags = le64toh(raw.flags);
	e->data = log->pos + log->sectorsize;
	len = le64toh(raw.data_len);
	e->mark[0] = '\0';
	if (e->flags & LOG_MARK_FLAG) {
		if (len > log->sectorsize - sizeof(raw))
			die("a mark of %llu bytes", (unsigned long long)len);
		read_at(log->fd, e->mark, len, log->pos + sizeof(raw));
		e->mark[len] = '\0';
	}
	log->pos = e->data;
	if (!(e->flags & LOG_DISCARD_FLAG))
		log->pos += e->nr_sectors * log->sectorsize;
	return 1;
}

static int list(const char *name)
{
	struct log log;
	struct entry e;

	log_open(&log, name);
	while (log_next(&log, &e))
		printf("%llu %s%s%s%s%s %llu %llu %s\n",
		       (unsigned long long)e.index,
		       e.flags & LOG_FLUSH_FLAG ? "F" : "",
		       e.flags & LOG_FUA_FLAG ? "A" : "",
		       e.flags & LOG_DISCARD_FLAG ? "D" : "",
		       e.flags & LOG_MARK_FLAG ? "M" : "",
		       e.flags & (LOG_FLUSH_FLAG | LOG_FUA_FLAG |
				  LOG_DISCARD_FLAG | LOG_MARK_FLAG) ? "" : "-",
		       (unsigned long long)e.sector,
		       (unsigned long long)e.nr_sectors, e.mark);
	return 0;
}

static void copy(struct log *log, const struct entry *e, int dev)
{
	static uint8_t buf[CHUNK];
	uint64_t left = e->nr_sectors * log->sectorsize;
	uint64_t from = e->data, to = e->sector * log->sectorsize;

	while (left) {
		size_t len = left < sizeof(buf) ? left : sizeof(buf);

		read_at(log->fd, buf, len, from);
		if (pwrite(dev, buf, len, to) != (ssize_t)len)
			die("write of entry %llu: %m",
			    (unsigned long long)e->index);
		left -= len;
		from += len;
		to += len;
	}
}

static int apply(const char *name, const char *dev_name, uint64_t from,
		 uint64_t to, const char *seed)
{
	struct log log;
	struct entry e;
	int dev;

	log_open(&log, name);
	if (to > log.nr_entries)
		die("the log has %llu entries only",
		    (unsigned long long)log.nr_entries);
	dev = open(dev_name, O_WRONLY);
	if (dev < 0)
		die("open %s: %m", dev_name);
	if (seed)
		rng = number(seed);
	while (log.index < to && log_next(&log, &e)) {
		/* A disk may ignore a discard. */
		if (e.index < from || e.flags & LOG_DISCARD_FLAG)
			continue;
		if (seed && !(e.flags & LOG_FUA_FLAG) && rnd(2))
			continue;
		copy(&log, &e, dev);
	}
	if (fsync(dev) || close(dev))
		die("fsync %s: %m", dev_name);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "list"))
		return list(argv[2]);
	if ((argc == 6 || argc == 7) && !strcmp(argv[1], "apply"))
		return apply(argv[2], argv[3], number(argv[4]), number(argv[5]),
			     argv[6]);
	printf("usage: loop_replay list LOG\n"
	       "       loop_replay apply LOG DEVICE FROM TO [SEED]\n");
	return 2;
}
