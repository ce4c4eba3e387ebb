// SPDX-License-Identifier: GPL-2.0
/*
 * The functions by which QEMU's main loop and CPUs read the clock and sleep, with the clock of
 * lockstep.c.
 *
 * The instruction that reads the time stamp counter of this machine raises a signal, whose handler
 * puts the guest's clock in its place.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#include "lockstep.h"
#include "qemu.h"

/* Nanoseconds of this machine: when all CPUs are idle, its disks have that long to answer. */
#define IDLE_WAIT 100000
/* Reads of the time stamp counter, and nanoseconds. */
enum { SPINS = 16, SPIN_GAP = 50, SPIN_TIME = 1000 };

static __thread bool is_main;
/* Readable when the main loop is to end its sleep. */
static int kick = -1;

static int (*libc_ppoll)(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *);
static int (*libc_cond_wait)(pthread_cond_t *, pthread_mutex_t *);
static int (*libc_cond_timedwait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
static int (*libc_cond_broadcast)(pthread_cond_t *);
static int (*libc_cond_signal)(pthread_cond_t *);
static ssize_t (*libc_write)(int, const void *, size_t);

int real_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex, const struct timespec *end)
{
	return libc_cond_timedwait(cond, mutex, end);
}

int real_cond_broadcast(pthread_cond_t *cond)
{
	return libc_cond_broadcast(cond);
}

void real_time(clockid_t clock, struct timespec *ts)
{
	/* The function of the C library reads the time stamp counter. */
	syscall(SYS_clock_gettime, clock, ts);
}

bool kick_main(void)
{
	uint64_t one = 1;

	return libc_write(kick, &one, sizeof(one)) == sizeof(one);
}

PUBLIC int pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex)
{
	int ret;

	if (!is_cpu())
		return libc_cond_wait(cond, mutex);
	cpu_halts(cond);
	ret = libc_cond_wait(cond, mutex);
	cpu_runs();
	return ret;
}

PUBLIC int pthread_cond_broadcast(pthread_cond_t *cond)
{
	if (is_cpu() || is_main)
		cpu_woken(cond);
	return libc_cond_broadcast(cond);
}

PUBLIC int pthread_cond_signal(pthread_cond_t *cond)
{
	if (is_cpu() || is_main)
		cpu_woken(cond);
	return libc_cond_signal(cond);
}

/* A CPU notifies the main loop by writing to an eventfd. */
PUBLIC ssize_t write(int fd, const void *data, size_t size)
{
	ssize_t ret = libc_write(fd, data, size);

	if (is_cpu() && size == sizeof(uint64_t))
		main_notified();
	return ret;
}

PUBLIC int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask)
{
	static const struct timespec times[] = {
		[SLEEP_NONE] = { 0, 0 },
		[SLEEP_IDLE] = { 0, IDLE_WAIT },
	};
	struct pollfd all[n + 1];
	uint64_t end = NEVER, drop;
	int ready;

	if (!is_main)
		return libc_ppoll(fds, n, timeout, mask);
	if (timeout)
		end = now() + timeout->tv_sec * UINT64_C(1000000000) + timeout->tv_nsec;
	memcpy(all, fds, n * sizeof(*fds));
	all[n].fd = kick;
	all[n].events = POLLIN;
	do {
		enum sleep sleep = main_sleeps(end);

		ready = libc_ppoll(all, n + 1, sleep == SLEEP_RUNNING ? NULL : &times[sleep], mask);
		if (ready > 0 && all[n].revents) {
			if (read(kick, &drop, sizeof(drop)) < 0)
				abort();
			ready--;
		}
		main_wakes(sleep, ready, end);
	} while (!ready && now() < end);
	memcpy(fds, all, n * sizeof(*fds));
	return ready;
}

PUBLIC int clock_gettime(clockid_t clock, struct timespec *ts)
{
	uint64_t time;

	if (clock != CLOCK_MONOTONIC || !(is_cpu() || is_main)) {
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
		skip(SPIN_TIME);
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
	if (is_cpu())
		time = spin(time);
	regs[REG_RAX] = (uint32_t)time;
	regs[REG_RDX] = time >> 32;
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

	libc_ppoll = next("ppoll");
	libc_cond_wait = next("pthread_cond_wait");
	libc_cond_timedwait = next("pthread_cond_timedwait");
	libc_cond_broadcast = next("pthread_cond_broadcast");
	libc_cond_signal = next("pthread_cond_signal");
	libc_write = next("write");
	real_time(CLOCK_MONOTONIC, &ts);
	start_clock(ts.tv_sec * UINT64_C(1000000000) + ts.tv_nsec);
	is_main = true;
	kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (kick < 0 || sigaction(SIGSEGV, &action, NULL) || prctl(PR_SET_TSC, PR_TSC_SIGSEGV)) {
		perror("lockstep");
		exit(1);
	}
}
