// SPDX-License-Identifier: GPL-2.0
/*
 * Several CPUs in parallel, with a clock that counts instructions.
 *
 * QEMU's own clock that counts instructions (icount) has one CPU run at a time: what several CPUs
 * could do in parallel takes the sum of their times. Without it, the CPUs are threads of this
 * machine, and the guest's clock is this machine's: all that is measured depends on its load.
 *
 * This file is a plugin of QEMU's emulation (TCG) and is preloaded as a library as well. Each CPU
 * has a clock, which advances by a nanosecond for each of its instructions. The CPUs run in steps of
 * QUANTUM instructions: none begins one before all others that run have come as far as it was when
 * it began the last. A CPU that is woken takes over the clock of the CPU or timer that woke it. When
 * all CPUs are idle, the clock jumps to the next timer.
 *
 * The library replaces the functions by which QEMU's main loop and CPUs read the clock and sleep. The
 * instruction that reads the time stamp counter of this machine raises a signal, whose handler puts
 * the guest's clock in its place.
 *
 * A thread that waits for another one here does so for PATIENCE at most, and then makes one step: no
 * deadlock is possible, whatever QEMU's threads wait for. The number of these slips is printed at the
 * end: few of them mean that the figures do not depend on the load of this machine.
 *
 * A disk whose data is a file of this machine answers in no time, or as soon as this machine does
 * when all CPUs are idle, which the clock may skip: only RAM disks and null_blk are timed right.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

/* From QEMU's qemu-plugin.h, which is in no package. */
#define PUBLIC __attribute__((visibility("default")))
typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_plugin_scoreboard;
struct qemu_info_t;
typedef struct {
	struct qemu_plugin_scoreboard *score;
	size_t offset;
} qemu_plugin_u64;
enum { INLINE_ADD_U64 = 0, COND_GE = 7, MEM_W = 2 };
typedef void (*vcpu_cb)(qemu_plugin_id_t id, unsigned int cpu);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id,
					   void (*cb)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_init_cb(qemu_plugin_id_t id, vcpu_cb cb);
void qemu_plugin_register_vcpu_idle_cb(qemu_plugin_id_t id, vcpu_cb cb);
void qemu_plugin_register_vcpu_resume_cb(qemu_plugin_id_t id, vcpu_cb cb);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id,
				    void (*cb)(qemu_plugin_id_t, void *), void *data);
struct qemu_plugin_scoreboard *qemu_plugin_scoreboard_new(size_t size);
void *qemu_plugin_scoreboard_find(struct qemu_plugin_scoreboard *score, unsigned int cpu);
void qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(struct qemu_plugin_tb *tb, int op,
						       qemu_plugin_u64 entry, uint64_t imm);
void qemu_plugin_register_vcpu_tb_exec_cond_cb(struct qemu_plugin_tb *tb,
					       void (*cb)(unsigned int, void *), int flags,
					       int cond, qemu_plugin_u64 entry, uint64_t imm,
					       void *data);
void qemu_plugin_register_vcpu_mem_inline_per_vcpu(struct qemu_plugin_insn *insn, int rw, int op,
						   qemu_plugin_u64 entry, uint64_t imm);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t index);
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *insn, void *data, size_t size);

PUBLIC int qemu_plugin_version = 4;
PUBLIC int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info_t *info, int argc,
			       char **argv);

enum { CPUS = 64 };
/* Instructions of a step; the clocks of two CPUs differ by two steps at most. */
#define QUANTUM UINT64_C(5000)
#define SHORTEST UINT64_C(500)
/* Nanoseconds of this machine. */
#define PATIENCE 2000000
#define IDLE_WAIT 100000
#define NEVER UINT64_MAX
/* Reads of the time stamp counter, and nanoseconds. */
enum { SPINS = 16, SPIN_GAP = 50, SPIN_TIME = 1000 };

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
static int kick = -1;
static uint64_t slips, steps, jumps;

static __thread struct cpu *self;
static __thread unsigned int self_index;
static __thread bool is_main, in_idle;

static int (*real_ppoll)(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *);
static int (*real_cond_wait)(pthread_cond_t *, pthread_mutex_t *);
static int (*real_cond_timedwait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
static int (*real_cond_broadcast)(pthread_cond_t *);
static int (*real_cond_signal)(pthread_cond_t *);
static ssize_t (*real_write)(int, const void *, size_t);

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

/* The clock of this thread's CPU, or the latest one for other threads; never goes back. */
static uint64_t now(void)
{
	if (!self)
		return atomic_load(&latest);
	return advance(self->time + *counter(self_index) - self->start);
}

static void real_time(clockid_t clock, struct timespec *ts)
{
	/* The function of the C library reads the time stamp counter. */
	syscall(SYS_clock_gettime, clock, ts);
}

static void announce(void)
{
	if (watchers)
		real_cond_broadcast(&changed);
}

static void wake_main(void)
{
	uint64_t one = 1;

	if (!main_busy && real_write(kick, &one, sizeof(one)) == sizeof(one))
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

/* A CPU that waits for the others to stop, or for an interrupt, is not waited for. */
PUBLIC int pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex)
{
	int ret;

	if (!self)
		return real_cond_wait(cond, mutex);
	end_step();
	pthread_mutex_lock(&lock);
	self->halt = cond;
	set_state(self, in_idle ? IDLE : WAITS);
	pthread_mutex_unlock(&lock);
	ret = real_cond_wait(cond, mutex);
	pthread_mutex_lock(&lock);
	if (self->state == IDLE && self->time < atomic_load(&latest))
		self->time = atomic_load(&latest);
	set_state(self, RUNS);
	pthread_mutex_unlock(&lock);
	begin_step();
	return ret;
}

/* A CPU that is woken runs from now on, however long this machine takes to run its thread. */
static void woken(pthread_cond_t *cond)
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

PUBLIC int pthread_cond_broadcast(pthread_cond_t *cond)
{
	if (self || is_main)
		woken(cond);
	return real_cond_broadcast(cond);
}

PUBLIC int pthread_cond_signal(pthread_cond_t *cond)
{
	if (self || is_main)
		woken(cond);
	return real_cond_signal(cond);
}

/* A CPU that notifies the main loop waits for it at the end of its step. */
PUBLIC ssize_t write(int fd, const void *data, size_t size)
{
	ssize_t ret = real_write(fd, data, size);

	if (self && size == sizeof(uint64_t)) {
		pthread_mutex_lock(&lock);
		wake_main();
		pthread_mutex_unlock(&lock);
	}
	return ret;
}

PUBLIC int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask)
{
	static const struct timespec none;
	static const struct timespec idle_wait = { 0, IDLE_WAIT };
	struct pollfd all[n + 1];
	uint64_t end = NEVER, drop;
	bool idle;
	int ready;

	if (!is_main)
		return real_ppoll(fds, n, timeout, mask);
	if (timeout)
		end = now() + timeout->tv_sec * UINT64_C(1000000000) + timeout->tv_nsec;
	memcpy(all, fds, n * sizeof(*fds));
	all[n].fd = kick;
	all[n].events = POLLIN;
	for (;;) {
		const struct timespec *wait = NULL;

		pthread_mutex_lock(&lock);
		main_busy = false;
		atomic_store(&deadline, end);
		announce();
		idle = !running;
		if (atomic_load(&latest) >= end)
			wait = &none;
		else if (idle && end != NEVER)
			wait = &idle_wait;
		pthread_mutex_unlock(&lock);

		ready = real_ppoll(all, n + 1, wait, mask);

		pthread_mutex_lock(&lock);
		main_busy = true;
		if (ready > 0 && all[n].revents) {
			if (read(kick, &drop, sizeof(drop)) < 0)
				abort();
			ready--;
		}
		if (!ready && idle && !running && wait == &idle_wait) {
			advance(end);
			jumps++;
		}
		pthread_mutex_unlock(&lock);
		if (ready || atomic_load(&latest) >= end)
			break;
	}
	atomic_store(&deadline, NEVER);
	memcpy(fds, all, n * sizeof(*fds));
	return ready;
}

PUBLIC int clock_gettime(clockid_t clock, struct timespec *ts)
{
	uint64_t time;

	if (clock != CLOCK_MONOTONIC || !(self || is_main)) {
		real_time(clock, ts);
		return 0;
	}
	time = now();
	ts->tv_sec = time / 1000000000;
	ts->tv_nsec = time % 1000000000;
	return 0;
}

PUBLIC int gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
	return syscall(SYS_gettimeofday, tv, zone);
}

PUBLIC time_t time(time_t *time)
{
	return syscall(SYS_time, time);
}

/*
 * A loop that waits for the time stamp counter would take this machine a signal for each 10
 * instructions: from the SPINS-th read on, each takes SPIN_TIME.
 */
static uint64_t spin(uint64_t time)
{
	static __thread uint64_t last;
	static __thread unsigned int reads;

	reads = time - last < SPIN_GAP ? reads + 1 : 0;
	if (reads >= SPINS) {
		self->time += SPIN_TIME;
		time = now();
	}
	last = time;
	return time;
}

static void time_stamp(int signal, siginfo_t *info, void *context)
{
	greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
	const unsigned char *code = (const unsigned char *)regs[REG_RIP];
	uint64_t time;

	(void)info;
	/* rdtsc, rdtscp */
	if (code[0] == 0x0f && code[1] == 0x31) {
		regs[REG_RIP] += 2;
	} else if (code[0] == 0x0f && code[1] == 0x01 && code[2] == 0xf9) {
		regs[REG_RIP] += 3;
		regs[REG_RCX] = 0;
	} else {
		struct sigaction action = { .sa_handler = SIG_DFL };

		sigaction(signal, &action, NULL);
		return;
	}
	time = now();
	if (self)
		time = spin(time);
	regs[REG_RAX] = (uint32_t)time;
	regs[REG_RDX] = time >> 32;
}

static void finished(qemu_plugin_id_t id, void *data)
{
	(void)id;
	(void)data;
	fprintf(stderr, "lockstep: %" PRIu64 " steps, %" PRIu64 " slips, %" PRIu64 " jumps\n", steps,
		slips, jumps);
}

static void *next(const char *name)
{
	/* The versions without condition variables of an older size. */
	void *found = dlvsym(RTLD_NEXT, name, "GLIBC_2.3.2");

	if (!found)
		found = dlsym(RTLD_NEXT, name);
	if (!found)
		abort();
	return found;
}

__attribute__((constructor)) static void preloaded(void)
{
	struct sigaction action = { .sa_sigaction = time_stamp, .sa_flags = SA_SIGINFO | SA_NODEFER };
	struct timespec ts;

	real_ppoll = next("ppoll");
	real_cond_wait = next("pthread_cond_wait");
	real_cond_timedwait = next("pthread_cond_timedwait");
	real_cond_broadcast = next("pthread_cond_broadcast");
	real_cond_signal = next("pthread_cond_signal");
	real_write = next("write");
	real_time(CLOCK_MONOTONIC, &ts);
	latest = ts.tv_sec * UINT64_C(1000000000) + ts.tv_nsec;
	is_main = true;
	kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (kick < 0 || sigaction(SIGSEGV, &action, NULL) || prctl(PR_SET_TSC, PR_TSC_SIGSEGV)) {
		perror("lockstep");
		exit(1);
	}
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
