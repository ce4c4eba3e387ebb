// SPDX-License-Identifier: GPL-2.0
/*
 * A plugin of QEMU's emulation (TCG) that counts instructions for each measured target. The guest
 * selects the target by executing an instruction at an address that stands for its number
 * (bench_io -m); 0 is none.
 *
 * Without "cpus", the guest has one CPU and runs with --icount. At the end the plugin writes a line
 * for each block of instructions: its address, its length, and how often it ran for each target.
 *
 * With "cpus", the guest has several CPUs, each of which is a thread of QEMU. At the end the plugin
 * writes lines with a number for each target:
 *
 *	cpu N ...		instructions that CPU N executed
 *	locked ADDRESS ...	executions of the locked instruction at ADDRESS
 *	shared ADDRESS ...	writes by the instruction at ADDRESS to cache lines that several
 *				CPUs wrote for that target
 *	lost 0 ...		writes that did not fit into the table of a CPU
 *
 * Only instructions of the kernel are in "locked" and "shared".
 */

#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qemu.h"

PUBLIC int qemu_plugin_version = 4;

/* As in tests/bench_io/main.c. */
#define MARKS UINT64_C(0x10feed0000)
enum { MARK_SIZE = 16, MARK_MAX = 15, TARGETS = MARK_MAX + 1 };

#define KERNEL (UINT64_C(1) << 63)
enum { BUCKETS = 1 << 16, CPUS = 16, LINE_SHIFT = 6, WRITES = 1 << 20 };

struct block {
	struct block *next;
	uint64_t address, length, runs[TARGETS];
};

/* The number of writes of one instruction to one cache line for one target. */
struct write {
	uint64_t line, address, target, count;
};

/* The counts of one CPU. Only the thread of the CPU changes them. */
static struct cpu {
	uint64_t instructions[TARGETS], lost[TARGETS];
	struct block *locked[BUCKETS];
	struct write *writes;
} *cpus[CPUS];

static struct block *blocks[BUCKETS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static volatile uint64_t marked;
static const char *out;
static bool count_cpus;

static void *allocate(size_t n, size_t size)
{
	void *p = calloc(n, size);

	if (!p)
		abort();
	return p;
}

static uint64_t hash(uint64_t a, uint64_t b)
{
	return ((a ^ b * UINT64_C(0x9e3779b97f4a7c15)) * UINT64_C(0xff51afd7ed558ccd)) >> 32;
}

static struct block *find(struct block **table, uint64_t address, uint64_t length)
{
	struct block **bucket = &table[hash(address, 0) % BUCKETS], *block;

	for (block = *bucket; block; block = block->next)
		if (block->address == address && block->length == length)
			return block;
	block = allocate(1, sizeof(*block));
	block->address = address;
	block->length = length;
	block->next = *bucket;
	*bucket = block;
	return block;
}

static struct cpu *this_cpu(unsigned int n)
{
	n %= CPUS;
	if (!cpus[n]) {
		struct cpu *cpu = allocate(1, sizeof(*cpu));

		cpu->writes = allocate(WRITES, sizeof(*cpu->writes));
		cpus[n] = cpu;
	}
	return cpus[n];
}

static void mark(unsigned int cpu, void *data)
{
	(void)cpu;
	marked = (uintptr_t)data;
}

static void ran(unsigned int cpu, void *data)
{
	struct block *block = data;

	(void)cpu;
	block->runs[marked]++;
}

static void ran_on(unsigned int cpu, void *data)
{
	uint64_t target = marked;

	if (target)
		this_cpu(cpu)->instructions[target] += (uintptr_t)data;
}

static void locked(unsigned int cpu, void *data)
{
	uint64_t target = marked;

	if (target)
		find(this_cpu(cpu)->locked, (uintptr_t)data, 0)->runs[target]++;
}

static void wrote(unsigned int n, qemu_plugin_meminfo_t info, uint64_t vaddr, void *data)
{
	uint64_t target = marked, line = vaddr >> LINE_SHIFT, address = (uintptr_t)data, i;
	struct cpu *cpu;
	int tries;

	(void)info;
	if (!target || vaddr < KERNEL)
		return;
	cpu = this_cpu(n);
	i = hash(line, address + target) % WRITES;
	for (tries = 0; tries < 64; tries++, i = (i + 1) % WRITES) {
		struct write *write = &cpu->writes[i];

		if (!write->count) {
			write->line = line;
			write->address = address;
			write->target = target;
		} else if (write->line != line || write->address != address ||
			   write->target != target) {
			continue;
		}
		write->count++;
		return;
	}
	cpu->lost[target]++;
}

/* Whether an instruction has the lock prefix, or exchanges a register with memory. */
static bool is_locked(const unsigned char *code, size_t n)
{
	size_t i = 0;

	for (; i < n; i++) {
		switch (code[i]) {
		case 0xf0:
			return true;
		case 0x26: case 0x2e: case 0x36: case 0x3e: case 0x64: case 0x65: case 0x66:
		case 0x67: case 0xf2: case 0xf3:
			continue;
		}
		break;
	}
	if (i < n && (code[i] & 0xf0) == 0x40)
		i++;
	return i + 1 < n && (code[i] == 0x86 || code[i] == 0x87) && code[i + 1] < 0xc0;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	uint64_t address = qemu_plugin_tb_vaddr(tb), length = qemu_plugin_tb_n_insns(tb);
	unsigned char code[16];
	struct block *block;
	size_t i, n;

	(void)id;
	if (address >= MARKS && address <= MARKS + MARK_MAX * MARK_SIZE) {
		qemu_plugin_register_vcpu_tb_exec_cb(tb, mark, 0,
						     (void *)(uintptr_t)((address - MARKS) / MARK_SIZE));
		return;
	}
	if (!count_cpus) {
		pthread_mutex_lock(&lock);
		block = find(blocks, address, length);
		pthread_mutex_unlock(&lock);
		qemu_plugin_register_vcpu_tb_exec_cb(tb, ran, 0, block);
		return;
	}
	qemu_plugin_register_vcpu_tb_exec_cb(tb, ran_on, 0, (void *)(uintptr_t)length);
	for (i = 0; address >= KERNEL && i < length; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		void *at = (void *)(uintptr_t)qemu_plugin_insn_vaddr(insn);

		qemu_plugin_register_vcpu_mem_cb(insn, wrote, 0, MEM_W, at);
		n = qemu_plugin_insn_data(insn, code, sizeof(code));
		if (is_locked(code, n))
			qemu_plugin_register_vcpu_insn_exec_cb(insn, locked, 0, at);
	}
}

static void print(FILE *f, const char *kind, uint64_t key, const uint64_t *counts)
{
	int n;

	fprintf(f, "%s %" PRIx64, kind, key);
	for (n = 1; n <= MARK_MAX; n++)
		fprintf(f, " %" PRIu64, counts[n]);
	fputc('\n', f);
}

static void print_all(FILE *f, const char *kind, struct block **table)
{
	struct block *block;
	int i;

	for (i = 0; i < BUCKETS; i++)
		for (block = table[i]; block; block = block->next)
			print(f, kind, block->address, block->runs);
}

/* Whether another CPU wrote the line for the target as well. */
static bool is_shared(const struct write *write, int cpu)
{
	static uint32_t *written[TARGETS];
	enum { LINES = 1 << 24 };
	uint64_t at = hash(write->line, 1) % LINES, i, n;

	/* One bit for each CPU. Two lines in one slot count as shared, which is rare. */
	if (!written[write->target]) {
		written[write->target] = allocate(LINES, sizeof(uint32_t));
		for (n = 0; n < CPUS; n++)
			for (i = 0; cpus[n] && i < WRITES; i++)
				if (cpus[n]->writes[i].count &&
				    cpus[n]->writes[i].target == write->target)
					written[write->target][hash(cpus[n]->writes[i].line, 1) %
							       LINES] |= 1u << n;
	}
	return written[write->target][at] & ~(1u << cpu);
}

static void print_cpus(FILE *f)
{
	static struct block *all_locked[BUCKETS], *shared[BUCKETS];
	uint64_t lost[TARGETS] = {};
	struct block *block;
	int n, i, t;

	for (n = 0; n < CPUS; n++) {
		struct cpu *cpu = cpus[n];

		if (!cpu)
			continue;
		print(f, "cpu", n, cpu->instructions);
		for (t = 1; t < TARGETS; t++)
			lost[t] += cpu->lost[t];
		for (i = 0; i < BUCKETS; i++)
			for (block = cpu->locked[i]; block; block = block->next)
				for (t = 1; t < TARGETS; t++)
					find(all_locked, block->address, 0)->runs[t] += block->runs[t];
		for (i = 0; i < WRITES; i++) {
			const struct write *write = &cpu->writes[i];

			if (write->count && is_shared(write, n))
				find(shared, write->address, 0)->runs[write->target] += write->count;
		}
	}
	print_all(f, "locked", all_locked);
	print_all(f, "shared", shared);
	print(f, "lost", 0, lost);
}

static void print_blocks(FILE *f)
{
	struct block *block;
	int i, n;

	for (i = 0; i < BUCKETS; i++) {
		for (block = blocks[i]; block; block = block->next) {
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
}

static void finish(qemu_plugin_id_t id, void *data)
{
	FILE *f = fopen(out, "w");

	(void)id;
	(void)data;
	if (!f) {
		perror(out);
		return;
	}
	if (count_cpus)
		print_cpus(f);
	else
		print_blocks(f);
	if (fclose(f))
		perror(out);
}

int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info_t *info, int argc, char **argv)
{
	int i;

	(void)info;
	for (i = 0; i < argc; i++) {
		if (!strncmp(argv[i], "out=", 4))
			out = strdup(argv[i] + 4);
		else if (!strcmp(argv[i], "cpus=on"))
			count_cpus = true;
	}
	if (!out) {
		fputs("profile: out=FILE is needed\n", stderr);
		return -1;
	}
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	qemu_plugin_register_atexit_cb(id, finish, NULL);
	return 0;
}
