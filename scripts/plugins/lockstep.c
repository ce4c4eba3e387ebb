// SPDX-License-Identifier: GPL-2.0
/*
 * The clock of each CPU, and the steps in which the CPUs run.
 *
 * The clock of a CPU advances by a nanosecond for each of its instructions. The CPUs run in steps of
 * QUANTUM instructions: none begins one before all others that run have come as far as it was when
 * it began the last. A CPU that is woken takes over the clock of the CPU or timer that woke it. When
 * all CPUs are idle, the clock jumps to the next timer.
 *
 * A thread that waits for another one here does so for PATIENCE at most, and then makes one step: no
 * deadlock is possible, whatever QEMU's threads wait for. The number of these slips is printed at the
 * end: few of them mean that the figures do not depend on the load of this machine.
 */

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "lockstep.h"
#include "qemu.h"

PUBLIC int qemu_plugin_version = 4;

enum { CPUS = 64 };
/* Instructions of a step; the clocks of two CPUs differ by two steps at most. */
#define QUANTUM UINT64_C(5000)
#define SHORTEST UINT64_C(500)
/* Nanoseconds of this machine. */
#define PATIENCE 2000000

enum state { OFF, RUNS, WAITS, IDLE };

/* Protected by lock, but time and start, which the CPU's thread alone changes. */
static struct cpu {
	/* The clock at the start of the step. */
	_Atomic uint64_t time;
	/* Instructions that the counter was ahead of the step. */
	_Atomic uint64_t start;
	enum state state;
	pthread_cond_t *halt;
} cpus[CPUS];

static struct qemu_plugin_scoreboard *counters;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static unsigned int running, watchers;
/* The latest time that anybody saw, and the one at which the main loop wants to be woken. */
static _Atomic uint64_t latest, deadline = NEVER;
static bool main_busy = true;
static uint64_t slips, steps, jumps;

static __thread struct cpu *self;
static __thread unsigned int self_index;
static __thread bool in_idle;

static uint64_t *counter(unsigned int cpu)
{
	return qemu_plugin_scoreboard_find(counters, cpu);
}

static uint64_t advance(uint64_t time)
{
	uint64_t seen = atomic_load(&latest);

	while (seen < time && !atomic_compare_exchange_weak(&latest, &seen, time))
		;
	return seen < time ? time : seen;
}

uint64_t now(void)
{
	if (!self)
		return atomic_load(&latest);
	return advance(self->time + *counter(self_index) - self->start);
}

void start_clock(uint64_t time)
{
	atomic_store(&latest, time);
}

bool is_cpu(void)
{
	return self;
}

void skip(uint64_t time)
{
	self->time += time;
}

static void announce(void)
{
	if (watchers)
		real_cond_broadcast(&changed);
}

static void wake_main(void)
{
	if (!main_busy && kick_main())
		main_busy = true;
}

static void set_state(struct cpu *cpu, enum state state)
{
	if (cpu->state == state)
		return;
	running += (state == RUNS) - (cpu->state == RUNS);
	cpu->state = state;
	announce();
	/* The main loop makes the clock jump. */
	if (!running)
		wake_main();
}

/* Ends the step of this thread's CPU. */
static void end_step(void)
{
	uint64_t *count = counter(self_index);

	self->time += *count - self->start;
	self->start = *count = 0;
	advance(self->time);
}

static void begin_step(void)
{
	uint64_t end = atomic_load(&deadline), length = QUANTUM;

	if (end > self->time && end - self->time < QUANTUM)
		length = end - self->time > SHORTEST ? end - self->time : SHORTEST;
	*counter(self_index) = QUANTUM - length;
	self->start = QUANTUM - length;
}

static bool others_behind(void)
{
	unsigned int i;

	if (main_busy)
		return true;
	for (i = 0; i < CPUS; i++)
		if (cpus[i].state == RUNS && cpus[i].time + QUANTUM < self->time)
			return true;
	return false;
}

static void stepped(unsigned int index, void *data)
{
	struct timespec until;
	bool waited = false;

	(void)index;
	(void)data;
	if (!self)
		return;
	end_step();
	pthread_mutex_lock(&lock);
	steps++;
	if (atomic_load(&latest) >= atomic_load(&deadline))
		wake_main();
	announce();
	while (others_behind()) {
		if (!waited) {
			waited = true;
			real_time(CLOCK_REALTIME, &until);
			until.tv_nsec += PATIENCE;
			until.tv_sec += until.tv_nsec / 1000000000;
			until.tv_nsec %= 1000000000;
		}
		watchers++;
		if (real_cond_timedwait(&changed, &lock, &until)) {
			watchers--;
			slips++;
			break;
		}
		watchers--;
	}
	pthread_mutex_unlock(&lock);
	begin_step();
}

/* rep movs, rep stos */
static bool is_copy(const struct qemu_plugin_insn *insn)
{
	unsigned char code[16];
	size_t size = qemu_plugin_insn_data(insn, code, sizeof(code)), i = 1;

	if (size < 2 || (code[0] != 0xf3 && code[0] != 0xf2))
		return false;
	/* REX prefix */
	if (size > 2 && (code[1] & 0xf0) == 0x40)
		i = 2;
	return (code[i] & 0xfe) == 0xa4 || (code[i] & 0xfe) == 0xaa;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	qemu_plugin_u64 entry = { counters, 0 };
	size_t i;

	(void)id;
	/* Each repetition of a string instruction counts, as with icount. */
	for (i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);

		if (is_copy(insn))
			qemu_plugin_register_vcpu_mem_inline_per_vcpu(insn, MEM_W, INLINE_ADD_U64,
								      entry, 1);
	}
	qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, INLINE_ADD_U64, entry,
							  qemu_plugin_tb_n_insns(tb));
	qemu_plugin_register_vcpu_tb_exec_cond_cb(tb, stepped, 0, COND_GE, entry, QUANTUM, NULL);
}

static void created(qemu_plugin_id_t id, unsigned int index)
{
	(void)id;
	if (index >= CPUS)
		abort();
	self_index = index;
	self = &cpus[index];
	self->time = atomic_load(&latest);
	pthread_mutex_lock(&lock);
	set_state(self, RUNS);
	pthread_mutex_unlock(&lock);
}

static void idles(qemu_plugin_id_t id, unsigned int index)
{
	(void)id;
	(void)index;
	in_idle = true;
}

static void resumes(qemu_plugin_id_t id, unsigned int index)
{
	(void)id;
	(void)index;
	in_idle = false;
}

void cpu_halts(pthread_cond_t *cond)
{
	end_step();
	pthread_mutex_lock(&lock);
	self->halt = cond;
	set_state(self, in_idle ? IDLE : WAITS);
	pthread_mutex_unlock(&lock);
}

void cpu_runs(void)
{
	pthread_mutex_lock(&lock);
	if (self->state == IDLE && self->time < atomic_load(&latest))
		self->time = atomic_load(&latest);
	set_state(self, RUNS);
	pthread_mutex_unlock(&lock);
	begin_step();
}

/* However long this machine takes to run the CPU's thread. */
void cpu_woken(pthread_cond_t *cond)
{
	uint64_t time = now();
	unsigned int i;

	pthread_mutex_lock(&lock);
	for (i = 0; i < CPUS; i++) {
		if (cpus[i].state != IDLE || cpus[i].halt != cond)
			continue;
		if (cpus[i].time < time)
			cpus[i].time = time;
		set_state(&cpus[i], RUNS);
	}
	pthread_mutex_unlock(&lock);
}

void main_notified(void)
{
	pthread_mutex_lock(&lock);
	wake_main();
	pthread_mutex_unlock(&lock);
}

enum sleep main_sleeps(uint64_t end)
{
	enum sleep sleep = SLEEP_RUNNING;

	pthread_mutex_lock(&lock);
	main_busy = false;
	atomic_store(&deadline, end);
	announce();
	if (atomic_load(&latest) >= end)
		sleep = SLEEP_NONE;
	else if (!running && end != NEVER)
		sleep = SLEEP_IDLE;
	pthread_mutex_unlock(&lock);
	return sleep;
}

void main_wakes(enum sleep sleep, bool ready, uint64_t end)
{
	pthread_mutex_lock(&lock);
	main_busy = true;
	if (sleep == SLEEP_IDLE && !ready && !running) {
		advance(end);
		jumps++;
	}
	pthread_mutex_unlock(&lock);
	if (ready || atomic_load(&latest) >= end)
		atomic_store(&deadline, NEVER);
}

static void finished(qemu_plugin_id_t id, void *data)
{
	(void)id;
	(void)data;
	fprintf(stderr, "lockstep: %" PRIu64 " steps, %" PRIu64 " slips, %" PRIu64 " jumps\n", steps,
		slips, jumps);
}

PUBLIC int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info_t *info, int argc,
			       char **argv)
{
	(void)info;
	(void)argc;
	(void)argv;
	counters = qemu_plugin_scoreboard_new(sizeof(uint64_t));
	qemu_plugin_register_vcpu_init_cb(id, created);
	qemu_plugin_register_vcpu_idle_cb(id, idles);
	qemu_plugin_register_vcpu_resume_cb(id, resumes);
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	qemu_plugin_register_atexit_cb(id, finished, NULL);
	return 0;
}
