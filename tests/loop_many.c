// SPDX-License-Identifier: GPL-2.0
/*
 * Many loop devices, for the tests of the loop driver.
 *
 *   loop_many devices FILE COUNT
 *	adds that many devices, numbered from 1000 on, all attached at the same time, each to one
 *	sector of FILE; writes and reads each of them, then removes all. Several processes share
 *	the work, since they mostly wait.
 *   loop_many race FILE SECONDS
 *	concurrent processes: two find a free device, attach FILE, read it and detach it, one
 *	detaches any device, one removes any device; prints "OPERATION RESULT COUNT" for each
 *	result of each operation
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "loop_test.h"

#define SECTOR		512
#define FIRST		1000
#define WORKERS		8
#define RACE_DEVICES	4

static int control;

static int open_loop(int nr)
{
	char name[32];

	snprintf(name, sizeof(name), "/dev/loop%d", nr);
	return open(name, O_RDWR | O_CLOEXEC);
}

static int open_file(const char *name)
{
	int fd = open(name, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		die("open %s: %m", name);
	return fd;
}

/* A sector in memory, which differs between devices. */
static void sector(uint8_t *buf, int nr)
{
	memset(buf, nr * 7 + 1, SECTOR);
	memcpy(buf, &nr, sizeof(nr));
}

/* Runs a phase on all devices: process I has the devices I, I + WORKERS, ... */
static int share(void (*phase)(int file, int nr), const char *name, int count)
{
	int i, nr, status, failed = 0;

	fflush(stdout);
	for (i = 0; i < WORKERS; i++) {
		pid_t pid = fork();

		if (pid < 0)
			die("fork: %m");
		if (!pid) {
			int file = open_file(name);

			for (nr = i; nr < count; nr += WORKERS)
				phase(file, nr);
			exit(0);
		}
	}
	while (wait(&status) > 0)
		failed |= status;
	return failed;
}

static void make(int file, int nr)
{
	struct loop_config config = { .fd = file };
	uint8_t buf[SECTOR];
	int fd;

	if (ioctl(control, LOOP_CTL_ADD, FIRST + nr) != FIRST + nr)
		die("LOOP_CTL_ADD %d: %m", FIRST + nr);
	fd = open_loop(FIRST + nr);
	if (fd < 0)
		die("open loop%d: %m", FIRST + nr);
	config.info.lo_offset = (uint64_t)nr * SECTOR;
	config.info.lo_sizelimit = SECTOR;
	if (ioctl(fd, LOOP_CONFIGURE, &config))
		die("LOOP_CONFIGURE %d: %m", FIRST + nr);
	sector(buf, nr);
	if (pwrite(fd, buf, SECTOR, 0) != SECTOR)
		die("write to loop%d: %m", FIRST + nr);
	/* The last close writes dirty pages back and drops the page cache. */
	close(fd);
}

static void use(int file, int nr)
{
	uint8_t buf[SECTOR], expected[SECTOR];
	int fd;

	sector(expected, nr);
	if (pread(file, buf, SECTOR, (off_t)nr * SECTOR) != SECTOR ||
	    memcmp(buf, expected, SECTOR))
		die("wrong data of loop%d in the file", FIRST + nr);
	fd = open_loop(FIRST + nr);
	if (fd < 0)
		die("open loop%d again: %m", FIRST + nr);
	if (pread(fd, buf, SECTOR, 0) != SECTOR ||
	    memcmp(buf, expected, SECTOR))
		die("wrong data in loop%d", FIRST + nr);
	if (!ioctl(control, LOOP_CTL_REMOVE, FIRST + nr) || errno != EBUSY)
		die("LOOP_CTL_REMOVE of bound %d: %m", FIRST + nr);
	if (ioctl(fd, LOOP_CLR_FD))
		die("LOOP_CLR_FD %d: %m", FIRST + nr);
	close(fd);
}

static void take_down(int file, int nr)
{
	(void)file;
	if (ioctl(control, LOOP_CTL_REMOVE, FIRST + nr))
		die("LOOP_CTL_REMOVE %d: %m", FIRST + nr);
}

static int devices(const char *name, int count)
{
	return share(make, name, count) || share(use, name, count) ||
	       share(take_down, name, count);
}

enum { GET_FREE, OPEN, CONFIGURE, READ, CLEAR, DETACH, REMOVE, OPS };

static const char *const ops[] = {
	"get-free", "open", "configure", "read", "clear", "detach", "remove",
};

/* Counts of all processes, by operation and errno. */
static unsigned int (*counts)[256];
static time_t end;

static int count(int op, int ret)
{
	__atomic_fetch_add(&counts[op][ret < 0 ? errno & 255 : 0], 1,
			   __ATOMIC_RELAXED);
	return ret;
}

static int going_on(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec < end;
}

static void attacher(int file)
{
	uint8_t expected[SECTOR], buf[SECTOR];
	struct loop_config config = { .fd = file };
	int nr, fd;

	if (pread(file, expected, SECTOR, 0) != SECTOR)
		die("read: %m");
	while (going_on()) {
		nr = count(GET_FREE, ioctl(control, LOOP_CTL_GET_FREE));
		if (nr < 0)
			continue;
		fd = count(OPEN, open_loop(nr));
		if (fd < 0)
			continue;
		if (!count(CONFIGURE, ioctl(fd, LOOP_CONFIGURE, &config))) {
			/* No other process can detach a device that is open. */
			memset(buf, 0, SECTOR);
			errno = EIO;
			count(READ, pread(fd, buf, SECTOR, 0) == SECTOR ? 0 : -1);
			errno = EILSEQ;
			count(READ, memcmp(buf, expected, SECTOR) ? -1 : 0);
			count(CLEAR, ioctl(fd, LOOP_CLR_FD));
		}
		close(fd);
	}
}

static void detacher(void)
{
	int nr, fd;

	for (nr = 0; going_on(); nr = (nr + 1) % RACE_DEVICES) {
		fd = count(OPEN, open_loop(nr));
		if (fd < 0)
			continue;
		count(DETACH, ioctl(fd, LOOP_CLR_FD));
		close(fd);
	}
}

static void remover(void)
{
	int nr;

	for (nr = 0; going_on(); nr = (nr + 1) % RACE_DEVICES) {
		count(REMOVE, ioctl(control, LOOP_CTL_REMOVE, nr));
		usleep(2000);
	}
}

static int race(const char *name, int seconds)
{
	int file = open_file(name), i, op, status, failed = 0;
	struct timespec now;

	counts = mmap(NULL, OPS * sizeof(*counts), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (counts == MAP_FAILED)
		die("mmap: %m");
	clock_gettime(CLOCK_MONOTONIC, &now);
	end = now.tv_sec + seconds;
	for (i = 0; i < 4; i++) {
		pid_t pid = fork();

		if (pid < 0)
			die("fork: %m");
		if (pid)
			continue;
		if (i < 2)
			attacher(file);
		else if (i == 2)
			detacher();
		else
			remover();
		exit(0);
	}
	while (wait(&status) > 0)
		failed |= status;
	for (op = 0; op < OPS; op++)
		for (i = 0; i < 256; i++)
			if (counts[op][i])
				printf("%s %s %u\n", ops[op],
				       i ? strerrorname_np(i) : "ok",
				       counts[op][i]);
	return failed ? 1 : 0;
}

int main(int argc, char **argv)
{
	control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	if (control < 0)
		die("open /dev/loop-control: %m");
	if (argc == 4 && !strcmp(argv[1], "devices"))
		return devices(argv[2], atoi(argv[3]));
	if (argc == 4 && !strcmp(argv[1], "race"))
		return race(argv[2], atoi(argv[3]));
	fprintf(stderr, "usage: loop_many devices FILE COUNT\n"
			"       loop_many race FILE SECONDS\n");
	return 2;
}
