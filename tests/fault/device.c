// SPDX-License-Identifier: GPL-2.0
/*
 * The device on which failures are injected.
 */
#include "fault.h"

#include <linux/fs.h>

int open_nr(int flags)
{
	char name[32];

	snprintf(name, sizeof(name), "/dev/loop%d", NR);
	return open(name, flags | O_CLOEXEC);
}

int open_file(const char *name, int flags)
{
	int fd = open(name, flags | O_CLOEXEC);

	if (fd < 0)
		die("open %s: %m", name);
	return fd;
}

int is_bound(void)
{
	char name[64];

	snprintf(name, sizeof(name), "/sys/block/loop%d/loop", NR);
	return !access(name, F_OK);
}

void add(void)
{
	if (ioctl(control, LOOP_CTL_ADD, NR) != NR)
		die("LOOP_CTL_ADD: %m");
}

void remove_nr(int nr)
{
	int i;

	/* The last close can return before the driver has released the device. */
	for (i = 0; i < TRIES; i++) {
		if (!ioctl(control, LOOP_CTL_REMOVE, nr))
			return;
		usleep(5000);
	}
	die("LOOP_CTL_REMOVE %d: %m", nr);
}

void wait_until_unbound(void)
{
	int i;

	for (i = 0; is_bound(); i++) {
		if (i == TRIES)
			die("still bound");
		usleep(5000);
	}
}

void detach(int fd)
{
	if (ioctl(fd, LOOP_CLR_FD))
		die("LOOP_CLR_FD: %m");
	close(fd);
	wait_until_unbound();
}

/* Returns a new device, attached to file_name. */
int bound(int flags)
{
	struct loop_config config = { .fd = open_file(file_name, flags) };
	int fd;

	add();
	fd = open_nr(flags);
	if (fd < 0)
		die("open: %m");
	config.info.lo_flags = flags == O_RDONLY ? LO_FLAGS_READ_ONLY : 0;
	if (ioctl(fd, LOOP_CONFIGURE, &config))
		die("LOOP_CONFIGURE: %m");
	close(config.fd);
	return fd;
}

struct loop_info64 status(int fd)
{
	struct loop_info64 info;

	if (ioctl(fd, LOOP_GET_STATUS64, &info))
		die("LOOP_GET_STATUS64: %m");
	return info;
}

/* The device must have the data of the file at @offset. */
void check_data(int fd, const char *name, off_t offset)
{
	char one[BLOCK], two[BLOCK];
	int file = open_file(name, O_RDONLY);

	if (ioctl(fd, BLKFLSBUF, 0) || pread(fd, one, BLOCK, 0) != BLOCK)
		die("read of the device: %m");
	if (pread(file, two, BLOCK, offset) != BLOCK)
		die("read of %s: %m", name);
	close(file);
	if (memcmp(one, two, BLOCK))
		die("the data of the device differs from that of %s", name);
}
