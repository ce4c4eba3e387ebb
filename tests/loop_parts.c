// SPDX-License-Identifier: GPL-2.0
/*
 * Partition scans of a loop device that other tasks keep opening.
 *
 *   loop_parts configure|set-fd|set-status|change-fd DEVICE FILE OTHER ROUNDS
 *	FILE and OTHER have the same size and different partition tables. Each round attaches one
 *	of them: by LOOP_CONFIGURE, by LOOP_SET_FD (the driver has max_part), by LOOP_SET_FD and a
 *	LOOP_SET_STATUS64 that asks for a scan, or by LOOP_CHANGE_FD. Meanwhile two processes open
 *	the device and its partitions. When the call returns, sysfs has the partitions of
 *	the table, and the kernel has sent one "add" event for each.
 *
 * The device is locked (flock) while it is attached: otherwise udev reads the table again when a
 * writer closes the device. Prints how often which of that was not so; fails if any.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <linux/netlink.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "loop_test.h"

#define OPENERS	2
/* The highest partition number of the tables, plus one. */
#define PARTS	4
/* Bytes of a GPT with its MBR. */
#define TABLE	(34 * 512)
/* Seconds that an opener may keep the device attached to the last file. */
#define PATIENCE 60

enum way { CONFIGURE, SET_FD, SET_STATUS, CHANGE_FD, WAYS };

static const char *const ways[WAYS] = { "configure", "set-fd", "set-status", "change-fd" };

/* Sectors, or events, of each partition by number. */
struct table {
	unsigned long long n[PARTS];
};

static const char *device, *name;
static int events;

/*
 * Opens and reads the device, or opens one of its partitions if it is there. A read of a partition
 * that was just removed would log an error.
 */
static void keep_opening(int seed)
{
	char buf[4096], path[64];
	int fd, part;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	rng = seed;
	for (;;) {
		part = rnd(PARTS);
		snprintf(path, sizeof(path), part ? "%sp%d" : "%s", device, part);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd >= 0) {
			if (!part && read(fd, buf, sizeof(buf)) < 0)
				die("read %s: %m", path);
			usleep(rnd(1000));
			close(fd);
		}
		usleep(rnd(500));
	}
}

static void listen_to_events(void)
{
	struct sockaddr_nl addr = { .nl_family = AF_NETLINK, .nl_groups = 1 };
	int size = 8 << 20;

	events = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
			NETLINK_KOBJECT_UEVENT);
	if (events < 0 || bind(events, (void *)&addr, sizeof(addr)))
		die("uevents: %m");
	setsockopt(events, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
}

/* The "add" events of each partition since the last call. */
static struct table added(void)
{
	struct table table = { };
	char buf[8192], path[64];
	ssize_t n;
	int i;

	while ((n = recv(events, buf, sizeof(buf) - 1, 0)) >= 0) {
		buf[n] = 0;
		for (i = 1; i < PARTS; i++) {
			snprintf(path, sizeof(path), "add@/devices/virtual/block/%s/%sp%d", name,
				 name, i);
			table.n[i] += !strcmp(buf, path);
		}
	}
	if (errno != EAGAIN)
		die("uevents: %m");
	return table;
}

static struct table partitions(void)
{
	struct table table = { };
	char path[128];
	FILE *file;
	int i;

	for (i = 1; i < PARTS; i++) {
		snprintf(path, sizeof(path), "/sys/block/%s/%sp%d/size", name, name, i);
		file = fopen(path, "r");
		if (!file)
			continue;
		if (fscanf(file, "%llu", &table.n[i]) != 1)
			table.n[i] = 0;
		fclose(file);
	}
	return table;
}

static int configure(int fd, int file, unsigned int flags)
{
	struct loop_config config = { .fd = file, .info.lo_flags = flags };

	return ioctl(fd, LOOP_CONFIGURE, &config);
}

static int attach(enum way way, int fd, int file)
{
	struct loop_info64 info = { .lo_flags = LO_FLAGS_PARTSCAN };

	switch (way) {
	case CONFIGURE:
		return configure(fd, file, LO_FLAGS_PARTSCAN);
	case SET_FD:
		return ioctl(fd, LOOP_SET_FD, file);
	case SET_STATUS:
		return ioctl(fd, LOOP_SET_STATUS64, &info);
	default:
		return ioctl(fd, LOOP_CHANGE_FD, file);
	}
}

/* Opens the device once the last close has detached it. */
static int open_detached(void)
{
	time_t end = time(NULL) + PATIENCE;
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "/sys/block/%s/loop/backing_file", name);
	while (!access(path, F_OK)) {
		if (time(NULL) >= end)
			die("%s stays attached", device);
		usleep(500);
	}
	/* The detach is not yet over if that fails. */
	while ((fd = open(device, O_RDWR | O_CLOEXEC)) < 0)
		if (errno != ENXIO)
			die("open %s: %m", device);
	if (flock(fd, LOCK_EX))
		die("flock: %m");
	return fd;
}

/* Has the table in the page cache, where a mapped page is in use. */
static void map_table(int fd)
{
	static volatile char *map;
	unsigned int i;

	if (!map) {
		map = mmap(NULL, TABLE, PROT_READ, MAP_PRIVATE, fd, 0);
		if (map == MAP_FAILED)
			die("mmap: %m");
	}
	for (i = 0; i < TABLE; i += 4096)
		(void)map[i];
}

static void detach(int fd)
{
	if (ioctl(fd, LOOP_CLR_FD))
		die("LOOP_CLR_FD: %m");
	close(fd);
}

/* Another task may have claimed the device for a moment. */
static void until_not_busy(enum way way, int fd, int file)
{
	time_t end = time(NULL) + PATIENCE;

	while (attach(way, fd, file))
		if (errno != EBUSY || time(NULL) >= end)
			die("%s: %m", ways[way]);
}

int main(int argc, char **argv)
{
	int absent = 0, wrong = 0, silent = 0, repeated = 0, files[2], fd = -1, i, n, rounds;
	struct table tables[2], want, got, add;
	pid_t pids[OPENERS];
	enum way way = 0;

	while (argc == 6 && way < WAYS && strcmp(argv[1], ways[way]))
		way++;
	if (argc != 6 || way == WAYS || !strrchr(argv[2], '/'))
		die("usage: loop_parts configure|set-fd|set-status|change-fd DEVICE FILE OTHER ROUNDS");
	device = argv[2];
	name = strrchr(device, '/') + 1;
	rounds = number(argv[5]);
	listen_to_events();
	/* The partitions of each table, scanned while no other task opens the device. */
	for (i = 0; i < 2; i++) {
		files[i] = open(argv[3 + i], O_RDWR | O_CLOEXEC);
		if (files[i] < 0)
			die("open %s: %m", argv[3 + i]);
		fd = open_detached();
		if (configure(fd, files[i], LO_FLAGS_PARTSCAN))
			die("LOOP_CONFIGURE: %m");
		tables[i] = partitions();
		if (!tables[i].n[1])
			die("%s has no first partition", argv[3 + i]);
		detach(fd);
	}
	if (way == CHANGE_FD) {
		fd = open_detached();
		if (configure(fd, files[1], LO_FLAGS_PARTSCAN | LO_FLAGS_READ_ONLY))
			die("LOOP_CONFIGURE: %m");
	}
	for (i = 0; i < OPENERS; i++) {
		pids[i] = fork();
		if (pids[i] < 0)
			die("fork: %m");
		if (!pids[i])
			keep_opening(i + 1);
	}
	for (n = 0; n < rounds; n++) {
		if (way != CHANGE_FD)
			fd = open_detached();
		if (way == SET_STATUS)
			until_not_busy(SET_FD, fd, files[n % 2]);
		if (way == CHANGE_FD)
			map_table(fd);
		added();
		until_not_busy(way, fd, files[n % 2]);
		got = partitions();
		add = added();
		want = tables[n % 2];
		for (i = 1; i < PARTS; i++) {
			absent += want.n[i] && !got.n[i];
			wrong += got.n[i] && got.n[i] != want.n[i];
			silent += want.n[i] && !add.n[i];
			repeated += add.n[i] > !!want.n[i];
		}
		if (way != CHANGE_FD)
			detach(fd);
	}
	for (i = 0; i < OPENERS; i++) {
		if (waitpid(pids[i], NULL, WNOHANG))
			die("an opener has ended");
		kill(pids[i], SIGKILL);
		waitpid(pids[i], NULL, 0);
	}
	if (way == CHANGE_FD)
		detach(fd);
	printf("%d rounds; partitions: %d absent, %d wrong; events: %d missing, %d excess\n", rounds,
	       absent, wrong, silent, repeated);
	return absent || wrong || silent || repeated;
}
