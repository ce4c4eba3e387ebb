// SPDX-License-Identifier: GPL-2.0
/*
 * I/O with failures.
 */
#include "fault.h"

#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <sys/syscall.h>

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

static void *aligned(int c)
{
	void *p;

	if (posix_memalign(&p, BLOCK, BLOCK))
		die("no memory");
	memset(p, c, BLOCK);
	return p;
}

/* The first I/O of a cgroup creates its worker; without memory the worker of the root serves it. */
int cgroup_io(const char *device, const char *dir, unsigned int n)
{
	static const int io[] = { ENOMEM, EFAULT, EIO, EAGAIN, 0 };
	int fd = open_file(device, O_RDWR | O_DIRECT), hit, ret;
	void *buf = aligned(n % 250 + 1), *back = aligned(0);
	off_t pos = (off_t)(n % 64) * BLOCK;
	char name[4096];

	snprintf(name, sizeof(name), "%s/loop_rs-fault-%u", dir, n);
	if (mkdir(name, 0755))
		die("mkdir %s: %m", name);
	join(name);
	arm(n);
	ret = pwrite(fd, buf, BLOCK, pos);
	hit = disarm();
	if (ret > 0 && ret < BLOCK)
		die("short write: %d", ret);
	result(hit, ret, io);
	if (ret < 0 && pwrite(fd, buf, BLOCK, pos) != BLOCK)
		die("write afterwards: %m");
	if (pread(fd, back, BLOCK, pos) != BLOCK)
		die("read: %m");
	if (memcmp(buf, back, BLOCK))
		die("wrong data");
	free(buf);
	free(back);
	close(fd);
	join(dir);
	/* An idle worker does not prevent the removal. */
	if (rmdir(name))
		die("rmdir %s: %m", name);
	return hit;
}

/* I/Os without injected failures, and all I/Os. */
#define IOS_BEFORE	90
#define IOS_MOST	160

/*
 * Submits writes one by one while the backing file system is frozen. Once all tags of the cgroup
 * are in use, the driver detaches bios.
 */
int detach_bios(const char *device, const char *dir)
{
	int fd = open_file(device, O_RDWR | O_DIRECT), fs = open_file(dir, O_RDONLY);
	struct io_event events[IOS_MOST];
	struct iocb iocbs[IOS_MOST] = { 0 }, *iocb;
	void *bufs[IOS_MOST], *back = aligned(0);
	aio_context_t ctx = 0;
	int i, n = 0, hit = 1, count = 0;
	long ret;

	if (syscall(SYS_io_setup, IOS_MOST, &ctx))
		die("io_setup: %m");
	if (ioctl(fs, FIFREEZE, 0))
		die("FIFREEZE: %m");
	for (i = 0; i < IOS_MOST && hit; i++) {
		bufs[i] = aligned(i + 1);
		iocb = &iocbs[i];
		iocb->aio_lio_opcode = IOCB_CMD_PWRITE;
		iocb->aio_fildes = fd;
		iocb->aio_buf = (uintptr_t)bufs[i];
		iocb->aio_nbytes = BLOCK;
		iocb->aio_offset = (off_t)i * BLOCK;
		if (i < IOS_BEFORE) {
			ret = syscall(SYS_io_submit, ctx, 1, &iocb);
			if (ret != 1)
				goto thaw;
			count++;
			continue;
		}
		n++;
		arm(n);
		ret = syscall(SYS_io_submit, ctx, 1, &iocb);
		hit = disarm();
		results[ret < 0 ? errno & 255 : 0]++;
		if (ret == 1)
			count++;
		else if (!hit)
			goto thaw;
		else
			/* Submit the I/O again, so that all of them are in flight. */
			i--;
		ret = 1;
	}
thaw:
	if (ioctl(fs, FITHAW, 0))
		die("FITHAW: %m");
	if (ret != 1)
		die("io_submit: %m");
	if (hit)
		die("still a failure after the last I/O");
	if (syscall(SYS_io_getevents, ctx, count, count, events, NULL) != count)
		die("io_getevents: %m");
	for (i = 0; i < count; i++) {
		if (events[i].res != BLOCK && events[i].res != -ENOMEM &&
		    events[i].res != -EAGAIN)
			die("a write ended with %lld", (long long)events[i].res);
		if (events[i].res != BLOCK) {
			iocb = (void *)(uintptr_t)events[i].obj;
			if (pwrite(fd, (void *)(uintptr_t)iocb->aio_buf, BLOCK,
				   iocb->aio_offset) != BLOCK)
				die("write afterwards: %m");
		}
	}
	for (i = 0; i < count; i++) {
		if (pread(fd, back, BLOCK, (off_t)i * BLOCK) != BLOCK)
			die("read: %m");
		if (memcmp(bufs[i], back, BLOCK))
			die("wrong data in block %d", i);
	}
	close(fd);
	close(fs);
	return n;
}
