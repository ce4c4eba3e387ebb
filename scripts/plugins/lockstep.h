// SPDX-License-Identifier: GPL-2.0
/*
 * Several CPUs in parallel, with a clock that counts instructions.
 *
 * QEMU's own clock that counts instructions (icount) has one CPU run at a time: what several CPUs
 * could do in parallel takes the sum of their times. Without it, the CPUs are threads of this
 * machine, and the guest's clock is this machine's: all that is measured depends on its load.
 *
 * lockstep.c is a plugin of QEMU's emulation (TCG). It has a clock for each CPU, and lets the CPUs
 * run in steps. lockstep_libc.c has QEMU use that clock: the plugin is preloaded as a library as
 * well, which replaces the functions by which QEMU's main loop and CPUs read the clock and sleep.
 *
 * A disk whose data is a file of this machine answers in no time, or as soon as this machine does
 * when all CPUs are idle, which the clock may skip: only RAM disks and null_blk are timed right.
 */

#ifndef LOCKSTEP_H
#define LOCKSTEP_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#define NEVER UINT64_MAX

/* --- lockstep.c ----------------------------------------------------------- */

/* The clock of this thread's CPU, or the latest one for other threads; never goes back. */
uint64_t now(void);

/* Sets the clock that the first CPU starts with. */
void start_clock(uint64_t time);

/* Whether this thread is that of a CPU. */
bool is_cpu(void);

/* Advances the clock of this thread's CPU. */
void skip(uint64_t time);

/* This thread's CPU waits for cond from now on: for the other CPUs to stop, or for an interrupt. */
void cpu_halts(pthread_cond_t *cond);

/* This thread's CPU goes on. */
void cpu_runs(void);

/* The CPU that waits for an interrupt by cond runs from now on. */
void cpu_woken(pthread_cond_t *cond);

/* The CPUs wait for the main loop at the end of their steps. */
void main_notified(void);

/* How long the main loop may sleep. */
enum sleep { SLEEP_NONE, SLEEP_IDLE, SLEEP_RUNNING };

/* The main loop is about to sleep until the clock is at end, or a file is ready. */
enum sleep main_sleeps(uint64_t end);

/*
 * The main loop has slept. If no file is ready, and no CPU has run since main_sleeps() returned
 * SLEEP_IDLE, the clock jumps to end.
 */
void main_wakes(enum sleep sleep, bool ready, uint64_t end);

/* --- lockstep_libc.c ------------------------------------------------------ */

/* The functions of the C library that are replaced. */
int real_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex, const struct timespec *end);
int real_cond_broadcast(pthread_cond_t *cond);
void real_time(clockid_t clock, struct timespec *ts);

/* Ends the sleep of the main loop. Returns whether it could be told. */
bool kick_main(void);

#endif
