/* SPDX-License-Identifier: GPL-2.0 */
/* Shared by the parts of loop_chaos, which main.c describes. */
#ifndef CHAOS_H
#define CHAOS_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../loop_test.h"

#define BLOCK		4096u
#define WORDS		(BLOCK / sizeof(uint64_t))

/*
 * No task uses the first and the last blocks of a data file: the partition scanner leaves them in
 * the page cache of the device, and asynchronous direct I/O does not invalidate them.
 */
#define EDGE		64u
#define RANGE		128u
#define RANGES		3u
#define DATA_BLOCKS	(EDGE + RANGES * RANGE + EDGE)
/* The blocks by which a file can grow. */
#define GROWTH		64u

/* The device whose offset changes maps one of these spans of its file. */
#define SPAN		256u
#define SPANS		3u
#define MAX_BLOCKS	1024u

/* Device numbers are below this. */
#define NUMBERS		12
#define GROUPS		6

/*
 * The number of tasks that can be killed at any time, of these and the tasks that run until the
 * stop, and of all tasks.
 */
#define MORTALS		15u
#define LASTING		22u
#define TASKS		(LASTING + 1)
#define DEPTH		32u
#define EXTENT		4u

/* The first four differ only in the file system of their file. */
enum slot { DATA, MEMORY = 3, SHIFT, RDONLY, CHURN, SLOTS };

enum op {
	OPEN, PROBE, CONFIGURE, GET_FREE, ADD, REMOVE, REMOVE_USED, LOCK, READ, OTHERS_READ,
	AIO, WRITE, FUA_WRITE, BUFFERED_WRITE, SYNC, DISCARD, ZERO_OUT, RESOLVE, CLOSE,
	GET_STATUS, SET_STATUS, DIRECT_IO, SET_BLOCK, RESIZE, RESCAN, CLEAR, DETACH,
	FILE_CHECK, MOVE, CHANGE_FD, FIRST_FILE, SECOND_FILE, MAKE_CGROUP, KILL_CGROUP,
	LEAVE_CGROUP, LIMIT_IO, LIMIT_MEMORY, JOIN, MIGRATE, KILLED, FREEZE, THAW, HELD_UP,
	SYSFS, WORKERS, PARKING, OPS
};

/* How often an operation must succeed, and the errors with which it can fail. */
struct op_info {
	const char *name;
	unsigned int least;
	int can_fail[3];
	bool rust_only;
};

/* The generations of a block. */
struct model {
	uint32_t acked, pending, last;
};

struct task {
	pid_t pid;
	/* The current operation and its start in ms; 0 if it can't hang. */
	int op;
	uint64_t since;
	int slot;
	/* The slot whose device the task has open, or -1. */
	int open;
	unsigned int lives;
	int over;
};

struct group {
	char name[64];
	int alive;
};

struct shared {
	uint32_t salt;
	int stop;
	unsigned int counts[OPS][256];
	uint64_t verified;
	struct {
		int number;
		unsigned int epoch;
	} slots[SLOTS];
	struct group groups[GROUPS];
	struct task tasks[TASKS];
	struct model blocks[SLOTS][MAX_BLOCKS];
};

extern const struct op_info ops[OPS];

extern struct shared *sh;
extern struct task *me;
extern const char *my_name, *cgroup_dir, *model_name;
extern char file_names[SLOTS][4096], second_name[4096];
extern struct stat file_stats[SLOTS], second_stat;
extern int locks[SLOTS];
extern int dir_fds[2];
extern dev_t disks[2];
extern int control;
extern unsigned int slow;
/* Whether the driver is loop_rs. */
extern bool rust;
extern uint64_t *io_buf;

#define load(x)		__atomic_load_n(&(x), __ATOMIC_SEQ_CST)
#define store(x, v)	__atomic_store_n(&(x), v, __ATOMIC_SEQ_CST)

static inline bool going_on(void)
{
	return !load(sh->stop);
}

/* die() with the task, time, file and device. */
#define bad(fmt, ...)								\
	die("%s[%d], at %llu ms, file %d on loop%d: " fmt, my_name, getpid(),	\
	    (unsigned long long)now_ms(), me ? me->slot : -1,			\
	    me && me->slot >= 0 ? sh->slots[me->slot].number : -1, ##__VA_ARGS__)

/* Does `call` as operation `op`, and counts its result. */
#define doing(op, call)		(enter(op), count(op, call))

/* blocks.c */

struct seen {
	uint32_t min, max;
	unsigned int zeroes;
};

uint64_t now_ms(void);
void enter(enum op op);
void leave(void);
void add_count(enum op op, int err, unsigned int n);
int count(enum op op, int ret);
void *blocks(unsigned int n);
void doze(unsigned int max_us);
void fill(uint64_t *buf, int slot, unsigned int block, uint32_t gen);
struct seen check(const uint64_t *buf, int slot, unsigned int block, uint32_t lo,
		  uint32_t hi, const char *where);
uint32_t check_whole(const uint64_t *buf, int slot, unsigned int block, const char *where);
uint32_t begin_write(int slot, unsigned int block, bool zeroes);
void acked(int slot, unsigned int first, unsigned int n);
void fill_next(uint64_t *buf, int slot, unsigned int first, unsigned int n);
void whole(enum op op, ssize_t len, unsigned int n, unsigned int first);
void read_at(enum op op, int fd, uint64_t *buf, unsigned int first, unsigned int n);
unsigned int slot_blocks(int slot);
void check_files(int slot);

/* devices.c */

void loop_name(char *name, int number);
bool is_slots(int slot, const struct loop_info64 *info);
int open_backing(int slot);
int open_slot(int slot, int flags);
void close_slot(int fd);
bool detach(int slot, int fd);
bool clear(int slot, int fd);

/* cgroups.c */

int put(const char *dir, const char *file, const char *text);
void group_dir(char *dir, size_t size, unsigned int nr);
void join(void);
void limit_io(const char *dir);
void limit_memory(const char *dir);
void make_group(unsigned int nr);
void remove_group(unsigned int nr, enum op op);
void remove_groups(void);
void lift_limits(void);

/* io_tasks.c */

void resolve(int fd, int slot, unsigned int first, unsigned int n);
void worker(int arg);
void shift_reader(int unused);
void rdonly_reader(int unused);
void churner(int unused);

/* change_tasks.c */

void changer(int unused);
void mover(int unused);
void file_changer(int unused);
void grouper(int unused);
void freezer(int unused);
size_t look(const char *name, char *buf, size_t size);
void looker(int unused);
void finish(int unused);

#endif
