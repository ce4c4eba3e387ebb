// SPDX-License-Identifier: GPL-2.0
/*
 * Makes each step of a call that can fail fail in turn (/proc/thread-self/fail-nth), until the call
 * passes without an injected failure.
 *
 *   loop_fault CALL[/STRIDE] FILE [OTHER]
 *
 * With a stride of 10, only every tenth step.
 *
 *	configure	LOOP_CONFIGURE with FILE, of a new device each time
 *	set-fd		LOOP_SET_FD, in the same way
 *	add		LOOP_CTL_ADD
 *	get-free	LOOP_CTL_GET_FREE, while no device is free
 *	open		open of an unbound device
 *	open-dead	open of a device node without a disk
 *	set-status	LOOP_SET_STATUS64 of a device bound to FILE: offset, limit, name
 *	get-status	LOOP_GET_STATUS64
 *	change-fd	LOOP_CHANGE_FD, from FILE to OTHER
 *	block-size	LOOP_SET_BLOCK_SIZE
 *	direct-io	LOOP_SET_DIRECT_IO
 *	clear		LOOP_CLR_FD and the last close
 *	cgroup DEVICE DIR
 *			the first I/O of a new cgroup in DIR: writes to DEVICE, and reads them back
 *	park DEVICE DIR	I/O on DEVICE, whose backing file is in DIR, while that file system is
 *			frozen: more I/Os than DEVICE has tags for one cgroup
 *
 * Each failure must leave the device unchanged and usable: the same call is made again without a
 * failure. Prints "RESULT COUNT" for each result, and the number of calls until no failure was
 * injected as "passes after COUNT".
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

/* More than the allocations of any call. */
#define MOST		2000
/* The number of the device, and how often to try until it is free. */
#define NR		40
#define TRIES		2000
#define BLOCK		4096

static int control, nth_fd;
static const char *file_name, *other_name;
static unsigned int results[256];
static char dead[4096];

static void __attribute__((noreturn, format(printf, 1, 2)))
die(const char *fmt, ...)
{
	va_list ap;
	int n = errno;

	va_start(ap, fmt);
	/* Writing to stdout must not get an injected failure. */
	fflush(stdout);
	errno = n;
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	exit(1);
}

/* The n-th step from now on fails, or none if 0. This write itself can fail. */
static void arm(unsigned int n)
{
	char text[16];
	int i, len = snprintf(text, sizeof(text), "%u", n);

	for (i = 0; i < 3; i++)
		if (pwrite(nth_fd, text, len, 0) == len)
			return;
	die("fail-nth: %m");
}

/* Whether a failure was injected; from now on nothing fails. */
static int disarm(void)
{
	char text[16] = "";
	int saved = errno, hit;
	ssize_t len = pread(nth_fd, text, sizeof(text) - 1, 0);

	/* The value was read before the copy to user space could fail. */
	hit = len > 0 && !strtoul(text, NULL, 10);
	if (len < 0 && errno != EFAULT && errno != ENOMEM)
		die("fail-nth: %m");
	arm(0);
	errno = saved;
	return hit;
}

static int open_nr(int flags)
{
	char name[32];

	snprintf(name, sizeof(name), "/dev/loop%d", NR);
	return open(name, flags | O_CLOEXEC);
}

static int open_file(const char *name, int flags)
{
	int fd = open(name, flags | O_CLOEXEC);

	if (fd < 0)
		die("open %s: %m", name);
	return fd;
}

static int is_bound(void)
{
	char name[64];

	snprintf(name, sizeof(name), "/sys/block/loop%d/loop", NR);
	return !access(name, F_OK);
}

static void add(void)
{
	if (ioctl(control, LOOP_CTL_ADD, NR) != NR)
		die("LOOP_CTL_ADD: %m");
}

static void remove_nr(int nr)
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

static void detach(int fd)
{
	int i;

	if (ioctl(fd, LOOP_CLR_FD))
		die("LOOP_CLR_FD: %m");
	close(fd);
	for (i = 0; is_bound(); i++) {
		if (i == TRIES)
			die("still bound");
		usleep(5000);
	}
}

/* A new device, attached. */
static int bound(int flags)
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

static struct loop_info64 status(int fd)
{
	struct loop_info64 info;

	if (ioctl(fd, LOOP_GET_STATUS64, &info))
		die("LOOP_GET_STATUS64: %m");
	return info;
}

/* The device has the data of the file at that offset. */
static void same(int fd, const char *name, off_t offset)
{
	char one[BLOCK], two[BLOCK];
	int file = open_file(name, O_RDONLY);

	if (ioctl(fd, BLKFLSBUF, 0) || pread(fd, one, BLOCK, 0) != BLOCK)
		die("read of the device: %m");
	if (pread(file, two, BLOCK, offset) != BLOCK)
		die("read of %s: %m", name);
	close(file);
	if (memcmp(one, two, BLOCK))
		die("the device has not what %s has", name);
}

/* Counts the result of a call, which must be allowed. */
static void result(int hit, int ret, const int *allowed)
{
	int n = ret < 0 ? errno : 0;

	if (!hit && n)
		die("fails by itself: %m");
	if (n) {
		while (*allowed && *allowed != n)
			allowed++;
		if (!*allowed)
			die("fails with %s", strerrorname_np(n));
	}
	results[n & 255]++;
}

static const int nomem[] = { ENOMEM, EFAULT, 0 };
/* device_add_disk() continues without a name, and device_add() then fails with EINVAL. */
static const int new_disk[] = { ENOMEM, EFAULT, EINVAL, 0 };
/* Opening a node only shows whether the device could be created. */
static const int dead_node[] = { ENOMEM, EFAULT, ENXIO, ENOENT, ENODEV, 0 };

/* On a new device, which a failure must leave unbound. */
static int configure(unsigned int n, int legacy)
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
	result(hit, ret, nomem);
	if (ret) {
		if (is_bound())
			die("it failed, and is bound");
		if (ioctl(fd, LOOP_CONFIGURE, &config))
			die("LOOP_CONFIGURE afterwards: %m");
	}
	same(fd, file_name, 0);
	close(config.fd);
	detach(fd);
	remove_nr(NR);
	return hit;
}

static int add_or_get_free(unsigned int n, int get_free)
{
	int hit, ret, nr;

	arm(n);
	ret = get_free ? ioctl(control, LOOP_CTL_GET_FREE)
		       : ioctl(control, LOOP_CTL_ADD, NR);
	hit = disarm();
	nr = ret;
	result(hit, ret, new_disk);
	if (ret < 0) {
		/* The number is still free. */
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

static int open_device(unsigned int n, int node)
{
	int fd, hit;

	if (!node)
		add();
	arm(n);
	fd = node ? open(dead, O_RDWR | O_CLOEXEC) : open_nr(O_RDWR);
	hit = disarm();
	result(hit, fd, node ? dead_node : nomem);
	if (fd < 0) {
		fd = node ? open(dead, O_RDWR | O_CLOEXEC) : open_nr(O_RDWR);
		if (fd < 0)
			die("open afterwards: %m");
	}
	close(fd);
	remove_nr(NR);
	return hit;
}

static int set_status(int fd, unsigned int n)
{
	struct loop_info64 before = status(fd), info = before, after;
	int hit, ret;

	info.lo_offset = before.lo_offset ? 0 : BLOCK;
	info.lo_sizelimit = before.lo_offset ? 0 : 4 * BLOCK;
	snprintf((char *)info.lo_file_name, LO_NAME_SIZE, "name %u", n);
	arm(n);
	ret = ioctl(fd, LOOP_SET_STATUS64, &info);
	hit = disarm();
	result(hit, ret, nomem);
	after = status(fd);
	if (memcmp(&after, ret ? &before : &info, sizeof(after)))
		die("the status is %s after %s", ret ? "another" : "not that",
		    ret ? "a failure" : "success");
	same(fd, file_name, after.lo_offset);
	return hit;
}

static int get_status(int fd, unsigned int n)
{
	struct loop_info64 before = status(fd), info = before;
	int hit, ret;

	arm(n);
	ret = ioctl(fd, LOOP_GET_STATUS64, &info);
	hit = disarm();
	result(hit, ret, nomem);
	if (memcmp(&info, &before, sizeof(info)))
		die("the status is another");
	return hit;
}

static int change_fd(int fd, unsigned int n)
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
	result(hit, ret, nomem);
	close(file);
	now = ret ? now : name;
	same(fd, now, 0);
	return hit;
}

static unsigned int block_size(int fd)
{
	unsigned int size;

	if (ioctl(fd, BLKSSZGET, &size))
		die("BLKSSZGET: %m");
	return size;
}

static int set_block_size(int fd, unsigned int n)
{
	unsigned int before = block_size(fd), size = before == 512 ? 4096 : 512;
	int hit, ret;

	arm(n);
	ret = ioctl(fd, LOOP_SET_BLOCK_SIZE, size);
	hit = disarm();
	result(hit, ret, nomem);
	if (block_size(fd) != (ret ? before : size))
		die("the block size is %u", block_size(fd));
	same(fd, file_name, 0);
	return hit;
}

static int set_direct_io(int fd, unsigned int n)
{
	int before = !!(status(fd).lo_flags & LO_FLAGS_DIRECT_IO);
	int hit, ret;

	arm(n);
	ret = ioctl(fd, LOOP_SET_DIRECT_IO, (long)!before);
	hit = disarm();
	result(hit, ret, nomem);
	if (!!(status(fd).lo_flags & LO_FLAGS_DIRECT_IO) != (ret ? before : !before))
		die("direct I/O is not as it was set");
	same(fd, file_name, 0);
	return hit;
}

/* close() cannot fail; in the end the device is unbound. */
static int clear(unsigned int n)
{
	int fd = bound(O_RDWR), hit, ret, i;

	arm(n);
	ret = ioctl(fd, LOOP_CLR_FD);
	close(fd);
	hit = disarm();
	result(hit, ret, nomem);
	if (ret) {
		fd = open_nr(O_RDWR);
		if (fd < 0)
			die("open: %m");
		detach(fd);
	}
	for (i = 0; is_bound(); i++) {
		if (i == TRIES)
			die("still bound");
		usleep(5000);
	}
	remove_nr(NR);
	return hit;
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

static void *aligned(int c)
{
	void *p;

	if (posix_memalign(&p, BLOCK, BLOCK))
		die("no memory");
	memset(p, c, BLOCK);
	return p;
}

/* The first I/O of a cgroup creates its worker, or is served without one. */
static int cgroup_io(const char *device, const char *dir, unsigned int n)
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

#define PARK_BEFORE	90
#define PARK_MOST	160

/* Submits writes one after the other while the backing file system is frozen. */
static int park(const char *device, const char *dir)
{
	int fd = open_file(device, O_RDWR | O_DIRECT), fs = open_file(dir, O_RDONLY);
	struct io_event events[PARK_MOST];
	struct iocb iocbs[PARK_MOST] = { 0 }, *iocb;
	void *bufs[PARK_MOST], *back = aligned(0);
	aio_context_t ctx = 0;
	int i, n = 0, hit = 1, count = 0;
	long ret;

	if (syscall(SYS_io_setup, PARK_MOST, &ctx))
		die("io_setup: %m");
	if (ioctl(fs, FIFREEZE, 0))
		die("FIFREEZE: %m");
	for (i = 0; i < PARK_MOST && hit; i++) {
		bufs[i] = aligned(i + 1);
		iocb = &iocbs[i];
		iocb->aio_lio_opcode = IOCB_CMD_PWRITE;
		iocb->aio_fildes = fd;
		iocb->aio_buf = (uintptr_t)bufs[i];
		iocb->aio_nbytes = BLOCK;
		iocb->aio_offset = (off_t)i * BLOCK;
		if (i < PARK_BEFORE) {
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
			/* Submit it again, so that all are there. */
			i--;
		ret = 1;
	}
thaw:
	if (ioctl(fs, FITHAW, 0))
		die("FITHAW: %m");
	if (ret != 1)
		die("io_submit: %m");
	if (hit)
		die("still not without a failure");
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

static int once(const char *call, int fd, unsigned int n)
{
	if (!strcmp(call, "configure") || !strcmp(call, "set-fd"))
		return configure(n, !strcmp(call, "set-fd"));
	if (!strcmp(call, "add") || !strcmp(call, "get-free"))
		return add_or_get_free(n, !strcmp(call, "get-free"));
	if (!strcmp(call, "open") || !strcmp(call, "open-dead"))
		return open_device(n, !strcmp(call, "open-dead"));
	if (!strcmp(call, "set-status"))
		return set_status(fd, n);
	if (!strcmp(call, "get-status"))
		return get_status(fd, n);
	if (!strcmp(call, "change-fd"))
		return change_fd(fd, n);
	if (!strcmp(call, "block-size"))
		return set_block_size(fd, n);
	if (!strcmp(call, "direct-io"))
		return set_direct_io(fd, n);
	if (!strcmp(call, "clear"))
		return clear(n);
	if (!strcmp(call, "cgroup"))
		return cgroup_io(file_name, other_name, n);
	die("there is no call %s", call);
}

/* Whether the call needs a device that is attached all the time. */
static int needs_device(const char *call)
{
	static const char *const calls[] = {
		"set-status", "get-status", "change-fd", "block-size", "direct-io",
	};
	unsigned int i;

	for (i = 0; i < sizeof(calls) / sizeof(*calls); i++)
		if (!strcmp(call, calls[i]))
			return 1;
	return 0;
}

int main(int argc, char **argv)
{
	unsigned int n, i, stride = 1;
	int fd = -1;
	char *slash;

	if (argc < 3 || argc > 4) {
		fprintf(stderr, "usage: loop_fault CALL[/STRIDE] FILE [OTHER]\n");
		return 2;
	}
	slash = strchr(argv[1], '/');
	if (slash) {
		*slash = 0;
		stride = atoi(slash + 1);
	}
	if (!stride)
		die("the stride is not a number");
	file_name = argv[2];
	other_name = argc > 3 ? argv[3] : NULL;
	nth_fd = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	if (nth_fd < 0)
		die("/proc/thread-self/fail-nth: %m");
	control = open_file("/dev/loop-control", O_RDWR);
	if (!strcmp(argv[1], "open-dead")) {
		snprintf(dead, sizeof(dead), "%s.node", file_name);
		if (mknod(dead, S_IFBLK | 0600, makedev(7, NR)))
			die("mknod %s: %m", dead);
	}
	if (needs_device(argv[1]))
		fd = bound(!strcmp(argv[1], "change-fd") ? O_RDONLY : O_RDWR);
	if (!strcmp(argv[1], "park")) {
		n = park(file_name, other_name);
	} else {
		for (n = 1; once(argv[1], fd, n); n += stride)
			if (n >= MOST)
				die("still not without a failure after %u", n);
		results[0]--;
	}
	if (fd >= 0) {
		detach(fd);
		remove_nr(NR);
	}
	printf("passes after %u\n", n - 1);
	for (i = 0; i < 256; i++)
		if (results[i])
			printf("%s %u\n", i ? strerrorname_np(i) : "ok", results[i]);
	return 0;
}
