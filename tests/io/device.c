// SPDX-License-Identifier: GPL-2.0
/*
 * Loop devices: status, detach, loop-control.
 */
#include "io.h"

#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <unistd.h>

int set_name(const char *dev, const char *name)
{
	int fd = open(dev, O_RDWR);
	struct loop_info64 info;

	if (fd < 0)
		die("open %s: %m", dev);
	if (ioctl(fd, LOOP_GET_STATUS64, &info))
		die("LOOP_GET_STATUS64: %m");
	memset(info.lo_file_name, 0, sizeof(info.lo_file_name));
	strncpy((char *)info.lo_file_name, name, sizeof(info.lo_file_name) - 1);
	if (ioctl(fd, LOOP_SET_STATUS64, &info))
		die("LOOP_SET_STATUS64: %m");
	return 0;
}

int clear_dirty(const char *dev)
{
	int keeper = open(dev, O_RDWR), writer = open(dev, O_RDWR);
	static uint8_t buf[PAGE];

	if (keeper < 0 || writer < 0)
		die("open %s: %m", dev);
	memset(buf, 'x', sizeof(buf));
	if (write(writer, buf, sizeof(buf)) != sizeof(buf))
		die("write %s: %m", dev);
	if (close(writer))
		die("close: %m");
	if (ioctl(keeper, LOOP_CLR_FD))
		die("LOOP_CLR_FD: %m");
	if (close(keeper))
		die("close: %m");
	return 0;
}

int control(unsigned long cmd, int number)
{
	int fd = open("/dev/loop-control", O_RDWR);

	if (fd < 0 || ioctl(fd, cmd, number) < 0)
		die("loop-control, device %d: %m", number);
	close(fd);
	return 0;
}
