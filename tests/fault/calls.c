// SPDX-License-Identifier: GPL-2.0
/*
 * Calls of the driver, each with a failure of its n-th step. A function returns whether the failure
 * was injected.
 */
#include "fault.h"

#include <linux/fs.h>

/* device_add_disk() continues without a name, and device_add() then fails with EINVAL. */
static const int new_disk[] = { ENOMEM, EFAULT, EINVAL, 0 };
/* open() does not return the error with which the creation of the device failed. */
static const int open_errors[] = { ENOMEM, EFAULT, ENXIO, ENOENT, ENODEV, 0 };

/* A failure must leave the new device unbound. */
int configure(unsigned int n, int legacy)
{
	struct loop_config config = { .info.lo_flags = LO_FLAGS_PARTSCAN };
	int fd, hit, ret;

	config.fd = open_file(file_name, O_RDWR);
	add();
	fd = open_nr(O_RDWR);
	if (fd < 0)
		die("open: %m");
	arm(n);
	ret = legacy ? ioctl(fd, LOOP_SET_FD, config.fd)
		     : ioctl(fd, LOOP_CONFIGURE, &config);
	hit = disarm();
	result(hit, ret, enomem);
	if (ret) {
		if (is_bound())
			die("the call failed, but the device is bound");
		if (ioctl(fd, LOOP_CONFIGURE, &config))
			die("LOOP_CONFIGURE afterwards: %m");
	}
	check_data(fd, file_name, 0);
	close(config.fd);
	detach(fd);
	remove_nr(NR);
	return hit;
}

int add_or_get_free(unsigned int n, int get_free)
{
	int hit, ret, nr;

	arm(n);
	ret = get_free ? ioctl(control, LOOP_CTL_GET_FREE)
		       : ioctl(control, LOOP_CTL_ADD, NR);
	hit = disarm();
	nr = ret;
	result(hit, ret, new_disk);
	if (ret < 0) {
		/* The number must still be free. */
		nr = get_free ? ioctl(control, LOOP_CTL_GET_FREE)
			      : ioctl(control, LOOP_CTL_ADD, NR);
		if (nr < 0)
			die("afterwards: %m");
	}
	if (nr != (get_free ? 0 : NR))
		die("number %d", nr);
	remove_nr(nr);
	return hit;
}

int open_device(unsigned int n, int node)
{
	int fd, hit;

	if (!node)
		add();
	arm(n);
	fd = node ? open(node_name, O_RDWR | O_CLOEXEC) : open_nr(O_RDWR);
	hit = disarm();
	result(hit, fd, node ? open_errors : enomem);
	if (fd < 0) {
		fd = node ? open(node_name, O_RDWR | O_CLOEXEC) : open_nr(O_RDWR);
		if (fd < 0)
			die("open afterwards: %m");
	}
	close(fd);
	remove_nr(NR);
	return hit;
}

int set_status(int fd, unsigned int n)
{
	struct loop_info64 before = status(fd), info = before, after;
	int hit, ret;

	info.lo_offset = before.lo_offset ? 0 : BLOCK;
	info.lo_sizelimit = before.lo_offset ? 0 : 4 * BLOCK;
	snprintf((char *)info.lo_file_name, LO_NAME_SIZE, "name %u", n);
	arm(n);
	ret = ioctl(fd, LOOP_SET_STATUS64, &info);
	hit = disarm();
	result(hit, ret, enomem);
	after = status(fd);
	if (memcmp(&after, ret ? &before : &info, sizeof(after)))
		die("the status is %s after %s", ret ? "changed" : "not that which was set",
		    ret ? "a failure" : "success");
	check_data(fd, file_name, after.lo_offset);
	return hit;
}

int get_status(int fd, unsigned int n)
{
	struct loop_info64 before = status(fd), info = before;
	int hit, ret;

	arm(n);
	ret = ioctl(fd, LOOP_GET_STATUS64, &info);
	hit = disarm();
	result(hit, ret, enomem);
	if (memcmp(&info, &before, sizeof(info)))
		die("the status has changed");
	return hit;
}

int change_fd(int fd, unsigned int n)
{
	static const char *now;
	const char *name;
	int file, hit, ret;

	now = now ? now : file_name;
	name = now == file_name ? other_name : file_name;
	file = open_file(name, O_RDONLY);
	arm(n);
	ret = ioctl(fd, LOOP_CHANGE_FD, file);
	hit = disarm();
	result(hit, ret, enomem);
	close(file);
	now = ret ? now : name;
	check_data(fd, now, 0);
	return hit;
}

static unsigned int block_size(int fd)
{
	unsigned int size;

	if (ioctl(fd, BLKSSZGET, &size))
		die("BLKSSZGET: %m");
	return size;
}

int set_block_size(int fd, unsigned int n)
{
	unsigned int before = block_size(fd), size = before == 512 ? 4096 : 512;
	int hit, ret;

	arm(n);
	ret = ioctl(fd, LOOP_SET_BLOCK_SIZE, size);
	hit = disarm();
	result(hit, ret, enomem);
	if (block_size(fd) != (ret ? before : size))
		die("the block size is %u", block_size(fd));
	check_data(fd, file_name, 0);
	return hit;
}

int set_direct_io(int fd, unsigned int n)
{
	int before = !!(status(fd).lo_flags & LO_FLAGS_DIRECT_IO);
	int hit, ret;

	arm(n);
	ret = ioctl(fd, LOOP_SET_DIRECT_IO, (long)!before);
	hit = disarm();
	result(hit, ret, enomem);
	if (!!(status(fd).lo_flags & LO_FLAGS_DIRECT_IO) != (ret ? before : !before))
		die("LO_FLAGS_DIRECT_IO is not as expected");
	check_data(fd, file_name, 0);
	return hit;
}

/* close() cannot fail: after LOOP_CLR_FD it must detach the device. */
int clear(unsigned int n)
{
	int fd = bound(O_RDWR), hit, ret;

	arm(n);
	ret = ioctl(fd, LOOP_CLR_FD);
	close(fd);
	hit = disarm();
	result(hit, ret, enomem);
	if (ret) {
		fd = open_nr(O_RDWR);
		if (fd < 0)
			die("open: %m");
		detach(fd);
	}
	wait_until_unbound();
	remove_nr(NR);
	return hit;
}
