// SPDX-License-Identifier: GPL-2.0
/*
 * Operations and their results, and blocks with verifiable contents.
 */
#include "chaos.h"

uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ull + ts.tv_nsec / 1000000;
}

/* Begins an operation: until count() or leave() the supervisor checks its time limit. */
void enter(enum op op)
{
	me->op = op;
	store(me->since, now_ms());
}

void leave(void)
{
	store(me->since, 0);
}

void add_count(enum op op, int err, unsigned int n)
{
	__atomic_fetch_add(&sh->counts[op][err & 255], n, __ATOMIC_RELAXED);
}

int count(enum op op, int ret)
{
	int err = ret < 0 ? errno : 0;
	unsigned int i;

	leave();
	add_count(op, err, 1);
	for (i = 0; err && i < 3; i++)
		if (ops[op].can_fail[i] == err)
			return ret;
	if (err)
		bad("%s: %s", ops[op].name, strerrorname_np(err));
	return ret;
}

void *blocks(unsigned int n)
{
	void *p;

	if (posix_memalign(&p, BLOCK, (size_t)n * BLOCK))
		die("no memory");
	return p;
}

void doze(unsigned int max_us)
{
	usleep(rnd(max_us) + 1);
}

/*
 * Contents of blocks
 */

static uint64_t word(int slot, unsigned int block, unsigned int i, uint32_t gen)
{
	return (uint64_t)gen << 40 | (uint64_t)slot << 36 | (uint64_t)block << 20 | i << 11 |
	       sh->salt;
}

void fill(uint64_t *buf, int slot, unsigned int block, uint32_t gen)
{
	unsigned int i;

	for (i = 0; i < WORDS; i++)
		buf[i] = gen & 1 ? 0 : word(slot, block, i, gen);
}

static void __attribute__((noreturn))
wrong_word(const uint64_t *buf, int slot, unsigned int block, unsigned int i, uint32_t lo,
	  uint32_t hi, const char *where)
{
	uint64_t w = buf[i];

	printf("generations by 512 bytes:");
	for (unsigned int j = 0; j < WORDS; j += 64)
		printf(" %u", (unsigned int)(buf[j] >> 40));
	printf("\n");
	bad("%s, file %d, block %u, byte %u: %016llx, which is generation %u of word %u of block %u of file %d, salt %s; expected generation %u to %u",
	    where, slot, block, i * 8, (unsigned long long)w, (unsigned int)(w >> 40),
	    (unsigned int)(w >> 11 & 511), (unsigned int)(w >> 20 & 0xffff),
	    (int)(w >> 36 & 15), (w & 0x7ff) == sh->salt ? "right" : "wrong", lo, hi);
}

/* Each word must be at its place, and of a generation from `lo` to `hi`. */
struct seen check(const uint64_t *buf, int slot, unsigned int block, uint32_t lo,
		  uint32_t hi, const char *where)
{
	struct seen seen = { .min = UINT32_MAX };
	uint64_t place = word(slot, block, 0, 0);
	unsigned int i;

	for (i = 0; i < WORDS; i++) {
		uint32_t gen = buf[i] >> 40;

		if (!buf[i]) {
			/* Zeroes are right if there is an odd generation. */
			if (lo == hi && !(lo & 1))
				wrong_word(buf, slot, block, i, lo, hi, where);
			seen.zeroes++;
			continue;
		}
		if ((buf[i] & 0xffffffffff) != (place | i << 11) || gen < lo || gen > hi)
			wrong_word(buf, slot, block, i, lo, hi, where);
		if (gen < seen.min)
			seen.min = gen;
		if (gen > seen.max)
			seen.max = gen;
	}
	__atomic_fetch_add(&sh->verified, 1, __ATOMIC_RELAXED);
	return seen;
}

/* A block without concurrent writes must be of one generation. Returns it. */
uint32_t check_whole(const uint64_t *buf, int slot, unsigned int block, const char *where)
{
	struct model *m = &sh->blocks[slot][block];
	uint32_t acked = load(m->acked), pending = load(m->pending);
	struct seen seen = check(buf, slot, block, acked, pending, where);

	if (seen.zeroes == WORDS && (acked & 1 || pending & 1))
		return acked & 1 ? acked : pending;
	if (seen.zeroes || seen.min != seen.max || (seen.min != acked && seen.min != pending))
		bad("%s, file %d, block %u: a mix of generations %u to %u and %u zeroes, expected %u or %u",
		    where, slot, block, seen.min, seen.max, seen.zeroes, acked, pending);
	return seen.min;
}

/* Returns the next generation of a block that is about to be written. */
uint32_t begin_write(int slot, unsigned int block, bool zeroes)
{
	struct model *m = &sh->blocks[slot][block];
	uint32_t gen = m->last + 1;

	if ((gen & 1) != zeroes)
		gen++;
	m->last = gen;
	store(m->pending, gen);
	return gen;
}

void acked(int slot, unsigned int first, unsigned int n)
{
	unsigned int i;

	for (i = first; i < first + n; i++)
		store(sh->blocks[slot][i].acked, sh->blocks[slot][i].pending);
}

void fill_next(uint64_t *buf, int slot, unsigned int first, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++)
		fill(buf + i * WORDS, slot, first + i, begin_write(slot, first + i, false));
}

void whole(enum op op, ssize_t len, unsigned int n, unsigned int first)
{
	if (len < 0)
		bad("%s of %u blocks at %u: %s", ops[op].name, n, first, strerrorname_np(errno));
	if (len != (ssize_t)(n * BLOCK))
		bad("%s of %u blocks at %u: %zd bytes", ops[op].name, n, first, len);
	count(op, 0);
}

void read_at(enum op op, int fd, uint64_t *buf, unsigned int first, unsigned int n)
{
	memset(buf, 0xee, n * BLOCK);
	enter(op);
	whole(op, pread(fd, buf, n * BLOCK, (off_t)first * BLOCK), n, first);
}

unsigned int slot_blocks(int slot)
{
	return slot == SHIFT ? (SPANS + 1) * SPAN : DATA_BLOCKS;
}

/* Checks a whole file, without a device. Nothing writes to it. */
static void check_file(int slot, const char *name)
{
	unsigned int i, j, n = slot_blocks(slot);
	uint64_t *buf = blocks(EDGE);
	int fd;

	enter(FILE_CHECK);
	fd = open(name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		bad("open %s: %m", name);
	for (i = 0; i < n; i += EDGE) {
		if (pread(fd, buf, EDGE * BLOCK, (off_t)i * BLOCK) != EDGE * BLOCK)
			bad("read %s: %m", name);
		for (j = 0; j < EDGE; j++)
			check_whole(buf + j * WORDS, slot, i + j, name);
	}
	close(fd);
	free(buf);
	count(FILE_CHECK, 0);
}

void check_files(int slot)
{
	check_file(slot, file_names[slot]);
	if (slot == RDONLY)
		check_file(slot, second_name);
}
