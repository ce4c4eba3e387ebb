// SPDX-License-Identifier: GPL-2.0
/*
 * Blocks with verifiable contents.
 */
#include "race.h"

int open_file(const char *name, int flags)
{
	int fd = open(name, flags | O_CLOEXEC);

	if (fd < 0)
		die("open %s: %m", name);
	return fd;
}

void *block(void)
{
	void *p;

	if (posix_memalign(&p, BLOCK, BLOCK))
		die("no memory");
	return p;
}

static uint64_t word(uint64_t pos, unsigned int tag)
{
	return pos % SPAN << 16 | tag;
}

void fill(uint64_t *buf, uint64_t pos, unsigned int tag)
{
	unsigned int i;

	for (i = 0; i < WORDS; i++)
		buf[i] = word(pos + i * 8, tag);
}

/* Each word must be at its place. Returns the tag, which must be that of all words if @one. */
unsigned int verify(const uint64_t *buf, uint64_t pos, int one)
{
	unsigned int i, tag = buf[0] & 0xffff;

	for (i = 0; i < WORDS; i++) {
		if (buf[i] >> 16 != (pos + i * 8) % SPAN)
			die("%#llx at %#llx", (unsigned long long)buf[i],
			    (unsigned long long)pos + i * 8);
		if (one && (buf[i] & 0xffff) != tag)
			die("two tags at %#llx", (unsigned long long)pos + i * 8);
	}
	return tag;
}

/* Reads a block. Returns 0 if the read failed, or with @or_nothing if it returned no data. */
int read_block(int fd, enum op op, uint64_t *buf, uint64_t pos, int or_nothing)
{
	ssize_t len;

	memset(buf, 0xee, BLOCK);
	len = count(op, pread(fd, buf, BLOCK, pos));
	if (or_nothing && len == 0) {
		count(NOTHING, 0);
		return 0;
	}
	if (len < 0)
		return 0;
	if (len != BLOCK)
		die("%s: %zd bytes", ops[op], len);
	return 1;
}

int make_file(const char *name, int mib, int tag)
{
	int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600), i;
	uint64_t *buf = block();

	if (fd < 0)
		die("%s: %m", name);
	for (i = 0; i < mib * BLOCKS; i++) {
		fill(buf, (uint64_t)i * BLOCK, tag);
		if (pwrite(fd, buf, BLOCK, (off_t)i * BLOCK) != BLOCK)
			die("%s: %m", name);
	}
	return close(fd);
}
