// SPDX-License-Identifier: GPL-2.0
/*
 * Processes that read, write, attach and change the device.
 */
#include "race.h"

#include <linux/aio_abi.h>
#include <sys/stat.h>
#include <sys/syscall.h>

void reader(int other)
{
	int fd = open_file(device, O_RDONLY | O_DIRECT);
	uint64_t *buf = block(), pos;

	while (going_on()) {
		pos = (uint64_t)below(BLOCKS) * BLOCK;
		read_block(fd, READ, buf, pos, 0);
		if (!other)
			verify(buf, pos, 0);
		else
			count(verify(buf, pos, 1) == 1 ? FIRST : SECOND, 0);
	}
}

void writer(int tag)
{
	int fd = open_file(device, O_RDWR | O_DIRECT);
	uint64_t *buf = block(), pos;

	while (going_on()) {
		pos = (uint64_t)below(BLOCKS) * BLOCK;
		fill(buf, pos, tag);
		errno = EIO;
		count(WRITE, pwrite(fd, buf, BLOCK, pos) == BLOCK ? 0 : -1);
	}
}

void changer(int unused)
{
	int fd = open_file(device, O_RDONLY), i = 0;
	int files[] = { open_file(other_name, O_RDONLY), open_file(file_name, O_RDONLY) };

	(void)unused;
	while (going_on())
		count(CHANGE_FD, ioctl(fd, LOOP_CHANGE_FD, files[i++ % 2]));
	/* Restore the first file. */
	count(CHANGE_FD, ioctl(fd, LOOP_CHANGE_FD, files[1]));
}

void mover(int unused)
{
	int fd = open_file(device, O_RDWR);
	struct loop_info64 info;
	unsigned int i;

	(void)unused;
	for (i = 1; going_on(); i++) {
		if (ioctl(fd, LOOP_GET_STATUS64, &info))
			die("LOOP_GET_STATUS64: %m");
		info.lo_offset = i % 2 * SPAN;
		info.lo_sizelimit = SPAN;
		snprintf((char *)info.lo_file_name, LO_NAME_SIZE, "name %u", i);
		count(SET_STATUS, ioctl(fd, LOOP_SET_STATUS64, &info));
	}
}

void sizer(int unused)
{
	int fd = open_file(device, O_RDWR);
	unsigned int i;

	(void)unused;
	for (i = 1; going_on(); i++) {
		count(SET_BLOCK, ioctl(fd, LOOP_SET_BLOCK_SIZE, i % 2 ? 4096ul : 512ul));
		count(DIRECT_IO, ioctl(fd, LOOP_SET_DIRECT_IO, (unsigned long)(i / 2 % 2)));
	}
}

void attacher(int flags)
{
	struct loop_config config = { .info.lo_flags = flags };
	int fd;

	config.fd = open_file(file_name, O_RDWR);
	while (going_on()) {
		fd = count(OPEN, open(device, O_RDWR | O_CLOEXEC));
		if (fd < 0)
			continue;
		if (!count(CONFIGURE, ioctl(fd, LOOP_CONFIGURE, &config)) &&
		    !(flags & LO_FLAGS_AUTOCLEAR)) {
			usleep(below(40000));
			count(CLEAR, ioctl(fd, LOOP_CLR_FD));
		}
		close(fd);
		/* Without a pause the device would always be open: there would be no last close. */
		usleep(below(4000));
	}
}

void opener(int unused)
{
	struct loop_info64 info;
	uint64_t *buf = block(), pos;
	int fd, whole, bound;

	(void)unused;
	while (going_on()) {
		fd = count(OPEN, open(device, O_RDONLY | O_DIRECT | O_CLOEXEC));
		if (fd < 0)
			continue;
		bound = !count(GET_STATUS, ioctl(fd, LOOP_GET_STATUS64, &info));
		pos = (uint64_t)below(BLOCKS) * BLOCK;
		/* The open device keeps it attached. */
		whole = read_block(fd, READ, buf, pos, !bound);
		if (whole)
			verify(buf, pos, 1);
		close(fd);
		usleep(below(4000));
	}
}

static void join(const char *cgroup)
{
	char name[4200];
	int fd;

	snprintf(name, sizeof(name), "%s/cgroup.procs", cgroup);
	fd = open_file(name, O_WRONLY);
	if (write(fd, "0", 1) != 1)
		die("%s: %m", name);
	close(fd);
}

#define AT_ONCE 8

void cgroup_writer(int nr)
{
	int fd = open_file(device, O_RDWR | O_DIRECT), i, n = 0;
	struct io_event events[AT_ONCE];
	struct iocb iocbs[AT_ONCE], *pointers[AT_ONCE];
	uint64_t *bufs[AT_ONCE], *back = block(), pos;
	aio_context_t ctx = 0;
	char name[4096];

	if (syscall(SYS_io_setup, AT_ONCE, &ctx))
		die("io_setup: %m");
	for (i = 0; i < AT_ONCE; i++)
		bufs[i] = block();
	while (going_on()) {
		snprintf(name, sizeof(name), "%s/loop_rs-race-%d-%d", file_name, nr, n++);
		if (mkdir(name, 0755))
			die("mkdir %s: %m", name);
		join(name);
		memset(iocbs, 0, sizeof(iocbs));
		for (i = 0; i < AT_ONCE; i++) {
			/* Each process has a part of the device. */
			pos = ((uint64_t)nr * 64 + (n * AT_ONCE + i) % 64) * BLOCK;
			fill(bufs[i], pos, n & 0xffff);
			iocbs[i].aio_lio_opcode = IOCB_CMD_PWRITE;
			iocbs[i].aio_fildes = fd;
			iocbs[i].aio_buf = (uintptr_t)bufs[i];
			iocbs[i].aio_nbytes = BLOCK;
			iocbs[i].aio_offset = pos;
			pointers[i] = &iocbs[i];
		}
		if (syscall(SYS_io_submit, ctx, AT_ONCE, pointers) != AT_ONCE)
			die("io_submit: %m");
		join(file_name);
		count(CGROUP, rmdir(name));
		if (syscall(SYS_io_getevents, ctx, AT_ONCE, AT_ONCE, events, NULL) != AT_ONCE)
			die("io_getevents: %m");
		for (i = 0; i < AT_ONCE; i++) {
			errno = -events[i].res;
			count(WRITE, events[i].res == BLOCK ? 0 : -1);
			read_block(fd, READ, back, iocbs[i].aio_offset, 0);
			if (memcmp(back, bufs[i], BLOCK))
				die("wrong data at %#llx",
				    (unsigned long long)iocbs[i].aio_offset);
		}
	}
}
