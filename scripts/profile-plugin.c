// SPDX-License-Identifier: GPL-2.0
/*
 * A plugin of QEMU's emulation (TCG) that counts how often each block of instructions runs for
 * each measured target. The guest selects the target by executing an instruction at an address
 * that stands for its number (bench_io -m); 0 is none.
 *
 * With --icount the guest has one CPU, and the plugin one thread. At the end it writes a line for
 * each block: its address, its number of instructions, and how often it ran for each target.
 */

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* From QEMU's qemu-plugin.h, which is in no package. */
#define PUBLIC __attribute__((visibility("default")))
typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_info_t;
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id,
					   void (*cb)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb,
					  void (*cb)(unsigned int, void *), int flags, void *data);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id,
				    void (*cb)(qemu_plugin_id_t, void *), void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);

PUBLIC int qemu_plugin_version = 4;
PUBLIC int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info_t *info, int argc,
			       char **argv);

/* As in tests/bench_io.c. */
#define MARKS UINT64_C(0x10feed0000)
enum { MARK_SIZE = 16, MARK_MAX = 15 };

enum { BUCKETS = 1 << 16 };

struct block {
	struct block *next;
	uint64_t address, length, runs[MARK_MAX + 1];
};

static struct block *blocks[BUCKETS];
static uint64_t marked;
static const char *out;

static void ran(unsigned int cpu, void *data)
{
	struct block *block = data;

	(void)cpu;
	block->runs[marked]++;
}

static void mark(unsigned int cpu, void *data)
{
	(void)cpu;
	marked = (uintptr_t)data;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	uint64_t address = qemu_plugin_tb_vaddr(tb), length = qemu_plugin_tb_n_insns(tb);
	struct block **bucket = &blocks[(address ^ address >> 16) % BUCKETS], *block;

	(void)id;
	if (address >= MARKS && address <= MARKS + MARK_MAX * MARK_SIZE) {
		qemu_plugin_register_vcpu_tb_exec_cb(tb, mark, 0,
						     (void *)(uintptr_t)((address - MARKS) / MARK_SIZE));
		return;
	}
	for (block = *bucket; block; block = block->next)
		if (block->address == address && block->length == length)
			break;
	if (!block) {
		block = calloc(1, sizeof(*block));
		if (!block)
			abort();
		block->address = address;
		block->length = length;
		block->next = *bucket;
		*bucket = block;
	}
	qemu_plugin_register_vcpu_tb_exec_cb(tb, ran, 0, block);
}

static void finish(qemu_plugin_id_t id, void *data)
{
	FILE *f = fopen(out, "w");
	int i, n;

	(void)id;
	(void)data;
	if (!f) {
		perror(out);
		return;
	}
	for (i = 0; i < BUCKETS; i++) {
		for (struct block *block = blocks[i]; block; block = block->next) {
			for (n = 1; n <= MARK_MAX && !block->runs[n]; n++)
				;
			if (n > MARK_MAX)
				continue;
			fprintf(f, "%" PRIx64 " %" PRIu64, block->address, block->length);
			for (n = 1; n <= MARK_MAX; n++)
				fprintf(f, " %" PRIu64, block->runs[n]);
			fputc('\n', f);
		}
	}
	if (fclose(f))
		perror(out);
}

int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info_t *info, int argc, char **argv)
{
	(void)info;
	if (argc != 1 || strncmp(argv[0], "out=", 4)) {
		fputs("profile-plugin: out=FILE is needed\n", stderr);
		return -1;
	}
	out = strdup(argv[0] + 4);
	if (!out)
		return -1;
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	qemu_plugin_register_atexit_cb(id, finish, NULL);
	return 0;
}
