// SPDX-License-Identifier: GPL-2.0
/*
 * ioctl_cases DIR: the ioctls of the loop driver, with good and bad arguments: results,
 * error codes, and what they change. For what losetup can't reach.
 *
 * test_ioctl.sh loads the driver and names a directory; no device is bound. A line
 * for each case: pass or fail, its name, and what went wrong, between tabs.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))
#define MIB		(1u << 20)
#define FILE_SIZE	(4 * MIB)

static int ctl;
static char dir[PATH_MAX];
static char backing[PATH_MAX + 16];

/* The case that is running has failed, and why. */
static char why[512];

#define REQUIRE(cond, fmt, ...)						\
	do {								\
		if (!(cond)) {						\
			if (!why[0])					\
				snprintf(why, sizeof(why),		\
					 "line %d: %s: " fmt, __LINE__,	\
					 #cond, ##__VA_ARGS__);		\
			goto out;					\
		}							\
	} while (0)

/* Result of a call as 0 or more, or the negative errno. */
static int res(int ret)
{
	return ret < 0 ? -errno : ret;
}

#define EXPECT(call, expected)						\
	do {								\
		int got_ = res(call), want_ = (expected);		\
									\
		REQUIRE(got_ == want_, "got %d (%s), expected %d (%s)",	\
			got_, got_ < 0 ? strerror(-got_) : "success",	\
			want_, want_ < 0 ? strerror(-want_) : "success"); \
	} while (0)

static int open_loop(int nr, int flags)
{
	char name[32];

	snprintf(name, sizeof(name), "/dev/loop%d", nr);
	return open(name, flags);
}

/* The contents of /sys/block/loopN/FILE without the newline, "" if none. */
static const char *sysfs(int nr, const char *file)
{
	static char buf[PATH_MAX];
	char name[128];
	ssize_t n = 0;
	int fd;

	snprintf(name, sizeof(name), "/sys/block/loop%d/%s", nr, file);
	fd = open(name, O_RDONLY);
	if (fd >= 0) {
		n = read(fd, buf, sizeof(buf) - 1);
		close(fd);
	}
	buf[n > 0 ? n : 0] = 0;
	buf[strcspn(buf, "\n")] = 0;
	return buf;
}

static int bound(int nr)
{
	return sysfs(nr, "loop/backing_file")[0] != 0;
}

/* The last close of another process may still be under way. */
static int unbound_soon(int nr)
{
	int i;

	for (i = 0; i < 200 && bound(nr); i++)
		usleep(10000);
	return !bound(nr);
}

static uint64_t size_of(int fd)
{
	uint64_t size = 0;

	if (ioctl(fd, BLKGETSIZE64, &size))
		return UINT64_MAX;
	return size;
}

/* A free device, bound to the backing file if @config is given. */
static int setup(int *nr, int *fd, int *file, struct loop_config *config)
{
	*fd = *file = -1;
	*nr = ioctl(ctl, LOOP_CTL_GET_FREE);
	if (*nr < 0)
		return -1;
	*fd = open_loop(*nr, O_RDWR);
	*file = open(backing, O_RDWR);
	if (*fd < 0 || *file < 0)
		return -1;
	if (config) {
		config->fd = *file;
		return ioctl(*fd, LOOP_CONFIGURE, config);
	}
	return 0;
}

/* Unbound, closed, and removed, so that the next case gets a fresh one. */
static void teardown(int nr, int fd, int file)
{
	int i;

	if (fd >= 0 && nr >= 0 && bound(nr))
		ioctl(fd, LOOP_CLR_FD, 0);
	if (fd >= 0)
		close(fd);
	if (file >= 0)
		close(file);
	for (i = 0; i < 100; i++) {
		if (nr < 0 || ioctl(ctl, LOOP_CTL_REMOVE, nr) >= 0 ||
		    errno != EBUSY)
			break;
		usleep(10000);
	}
}

static void control_add_remove(void)
{
	char name[64];
	struct stat st;
	int nr, fd = -1;

	EXPECT(ioctl(ctl, LOOP_CTL_ADD, 77), 77);
	snprintf(name, sizeof(name), "/sys/block/loop77");
	REQUIRE(!stat(name, &st), "no %s", name);
	EXPECT(ioctl(ctl, LOOP_CTL_ADD, 77), -EEXIST);
	fd = open_loop(77, O_RDONLY);
	REQUIRE(fd >= 0, "open /dev/loop77: %s", strerror(errno));
	EXPECT(ioctl(ctl, LOOP_CTL_REMOVE, 77), -EBUSY);
	close(fd);
	fd = -1;
	EXPECT(ioctl(ctl, LOOP_CTL_REMOVE, 77), 0);
	REQUIRE(stat(name, &st), "%s is still there", name);
	EXPECT(ioctl(ctl, LOOP_CTL_REMOVE, 77), -ENODEV);
	EXPECT(ioctl(ctl, LOOP_CTL_REMOVE, -1), -EINVAL);

	nr = ioctl(ctl, LOOP_CTL_ADD, -1);
	REQUIRE(nr >= 0, "LOOP_CTL_ADD -1: %s", strerror(errno));
	EXPECT(ioctl(ctl, LOOP_CTL_REMOVE, nr), 0);
	EXPECT(ioctl(ctl, 0x4cff, 0), -ENOSYS);
out:
	if (fd >= 0)
		close(fd);
}

static void control_get_free(void)
{
	struct loop_config config = {};
	int nr, fd, file, next;

	REQUIRE(!setup(&nr, &fd, &file, NULL), "setup: %s", strerror(errno));
	EXPECT(ioctl(ctl, LOOP_CTL_GET_FREE), nr);
	config.fd = file;
	EXPECT(ioctl(fd, LOOP_CONFIGURE, &config), 0);
	next = ioctl(ctl, LOOP_CTL_GET_FREE);
	REQUIRE(next >= 0 && next != nr, "got %d, a bound device", next);
	EXPECT(ioctl(ctl, LOOP_CTL_REMOVE, nr), -EBUSY);
out:
	teardown(nr, fd, file);
}

static void configure_status(void)
{
	struct loop_config config = {
		.block_size = 1024,
		.info = {
			.lo_offset = 4096,
			.lo_sizelimit = MIB,
			.lo_flags = LO_FLAGS_AUTOCLEAR,
			.lo_file_name = "a name",
		},
	};
	struct loop_info64 info;
	char offset[32];
	struct stat st;
	int nr, fd, file, bs = 0;

	EXPECT(setup(&nr, &fd, &file, &config), 0);
	EXPECT(ioctl(fd, LOOP_GET_STATUS64, &info), 0);
	EXPECT(fstat(file, &st), 0);
	REQUIRE(info.lo_number == (unsigned int)nr, "%u", info.lo_number);
	REQUIRE(info.lo_inode == st.st_ino, "%llu", info.lo_inode);
	REQUIRE(info.lo_device == st.st_dev, "%llx", info.lo_device);
	REQUIRE(info.lo_rdevice == 0, "%llx", info.lo_rdevice);
	REQUIRE(info.lo_offset == 4096, "%llu", info.lo_offset);
	REQUIRE(info.lo_sizelimit == MIB, "%llu", info.lo_sizelimit);
	REQUIRE(info.lo_flags == LO_FLAGS_AUTOCLEAR, "%x", info.lo_flags);
	REQUIRE(info.lo_encrypt_type == 0, "%u", info.lo_encrypt_type);
	REQUIRE(!strcmp((char *)info.lo_file_name, "a name"), "%s",
		info.lo_file_name);
	REQUIRE(size_of(fd) == MIB, "%llu", (unsigned long long)size_of(fd));
	EXPECT(ioctl(fd, BLKSSZGET, &bs), 0);
	REQUIRE(bs == 1024, "%d", bs);
	REQUIRE(!strcmp(sysfs(nr, "loop/backing_file"), backing), "%s",
		sysfs(nr, "loop/backing_file"));
	strcpy(offset, sysfs(nr, "loop/offset"));
	REQUIRE(!strcmp(offset, "4096"), "%s", offset);
	REQUIRE(!strcmp(sysfs(nr, "loop/sizelimit"), "1048576"), "%s",
		sysfs(nr, "loop/sizelimit"));
	REQUIRE(!strcmp(sysfs(nr, "loop/autoclear"), "1"), "autoclear");
	REQUIRE(!strcmp(sysfs(nr, "loop/partscan"), "0"), "partscan");
	REQUIRE(!strcmp(sysfs(nr, "loop/dio"), "0"), "dio");
	REQUIRE(!strcmp(sysfs(nr, "ro"), "0"), "ro");
	REQUIRE(!strcmp(sysfs(nr, "size"), "2048"), "%s", sysfs(nr, "size"));

	/* What is unset at detaching must not survive into the next life. */
	EXPECT(ioctl(fd, LOOP_CLR_FD, 0), 0);
	close(fd);
	REQUIRE(unbound_soon(nr), "still bound");
	fd = open_loop(nr, O_RDWR);
	REQUIRE(fd >= 0, "%s", strerror(errno));
	REQUIRE(size_of(fd) == 0, "%llu", (unsigned long long)size_of(fd));
	EXPECT(ioctl(fd, LOOP_SET_FD, file), 0);
	EXPECT(ioctl(fd, LOOP_GET_STATUS64, &info), 0);
	REQUIRE(info.lo_offset == 0 && info.lo_sizelimit == 0 &&
		info.lo_flags == 0 && !info.lo_file_name[0],
		"%llu %llu %x %s", info.lo_offset, info.lo_sizelimit,
		info.lo_flags, info.lo_file_name);
	REQUIRE(size_of(fd) == FILE_SIZE, "%llu",
		(unsigned long long)size_of(fd));
	EXPECT(ioctl(fd, BLKSSZGET, &bs), 0);
	REQUIRE(bs == 512, "%d", bs);
out:
	teardown(nr, fd, file);
}

static void configure_errors(void)
{
	struct loop_config config = {};
	int nr, fd, file, bad = -1, pipefd[2] = { -1, -1 };

	REQUIRE(!setup(&nr, &fd, &file, NULL), "setup: %s", strerror(errno));
	config.fd = 9999;
	EXPECT(ioctl(fd, LOOP_CONFIGURE, &config), -EBADF);
	EXPECT(ioctl(fd, LOOP_SET_FD, 9999), -EBADF);
	EXPECT(ioctl(fd, LOOP_CONFIGURE, NULL), -EFAULT);

	bad = open(dir, O_RDONLY | O_DIRECTORY);
	EXPECT(ioctl(fd, LOOP_SET_FD, bad), -EINVAL);
	close(bad);
	bad = open("/dev/zero", O_RDWR);
	EXPECT(ioctl(fd, LOOP_SET_FD, bad), -EINVAL);
	close(bad);
	bad = -1;
	EXPECT(pipe(pipefd), 0);
	EXPECT(ioctl(fd, LOOP_SET_FD, pipefd[0]), -EINVAL);

	config.fd = file;
	config.info.lo_flags = 0x80;
	EXPECT(ioctl(fd, LOOP_CONFIGURE, &config), -EINVAL);
	config.info.lo_flags = 0;
	config.info.lo_encrypt_type = LO_CRYPT_XOR;
	EXPECT(ioctl(fd, LOOP_CONFIGURE, &config), -EINVAL);
	config.info.lo_encrypt_type = LO_CRYPT_CRYPTOAPI;
	EXPECT(ioctl(fd, LOOP_CONFIGURE, &config), -EINVAL);
	config.info.lo_encrypt_type = 77;
	EXPECT(ioctl(fd, LOOP_CONFIGURE, &config), -EINVAL);
	config.info.lo_encrypt_type = 0;
	config.info.lo_encrypt_key_size = LO_KEY_SIZE + 1;
	EXPECT(ioctl(fd, LOOP_CONFIGURE, &config), -EINVAL);
	config.info.lo_encrypt_key_size = 0;
	config.info.lo_offset = 1ull << 63;
	EXPECT(ioctl(fd, LOOP_CONFIGURE, &config), -EOVERFLOW);
	config.info.lo_offset = 0;
	config.info.lo_sizelimit = 1ull << 63;
	EXPECT(ioctl(fd, LOOP_CONFIGURE, &config), -EOVERFLOW);
	config.info.lo_sizelimit = 0;

	REQUIRE(!bound(nr), "bound after a failure");
	/* None of the failures may stand in the way of what is right. */
	EXPECT(ioctl(fd, LOOP_CONFIGURE, &config), 0);
	EXPECT(ioctl(fd, LOOP_CONFIGURE, &config), -EBUSY);
	EXPECT(ioctl(fd, LOOP_SET_FD, file), -EBUSY);
	EXPECT(ioctl(fd, 0x4cff, 0), -EINVAL);
out:
	if (bad >= 0)
		close(bad);
	if (pipefd[0] >= 0) {
		close(pipefd[0]);
		close(pipefd[1]);
	}
	teardown(nr, fd, file);
}

static void configure_block_size(void)
{
	static const unsigned int bad[] = { 1, 256, 511, 1000, 3072, 1u << 31 };
	struct loop_config config = {};
	int nr, fd, file, bs;
	unsigned int i;

	REQUIRE(!setup(&nr, &fd, &file, NULL), "setup: %s", strerror(errno));
	config.fd = file;
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		config.block_size = bad[i];
		errno = 0;
		EXPECT(ioctl(fd, LOOP_CONFIGURE, &config), -EINVAL);
		REQUIRE(!bound(nr), "bound with block size %u", bad[i]);
	}
	config.block_size = 4096;
	EXPECT(ioctl(fd, LOOP_CONFIGURE, &config), 0);
	EXPECT(ioctl(fd, BLKSSZGET, &bs), 0);
	REQUIRE(bs == 4096, "%d", bs);
out:
	teardown(nr, fd, file);
}

static void unbound_errors(void)
{
	struct loop_info64 info = {};
	int nr, fd, file;

	REQUIRE(!setup(&nr, &fd, &file, NULL), "setup: %s", strerror(errno));
	EXPECT(ioctl(fd, LOOP_CLR_FD, 0), -ENXIO);
	EXPECT(ioctl(fd, LOOP_GET_STATUS64, &info), -ENXIO);
	EXPECT(ioctl(fd, LOOP_GET_STATUS64, NULL), -EINVAL);
	EXPECT(ioctl(fd, LOOP_SET_STATUS64, &info), -ENXIO);
	EXPECT(ioctl(fd, LOOP_SET_STATUS64, NULL), -EFAULT);
	EXPECT(ioctl(fd, LOOP_SET_CAPACITY, 0), -ENXIO);
	EXPECT(ioctl(fd, LOOP_SET_DIRECT_IO, 1), -ENXIO);
	EXPECT(ioctl(fd, LOOP_SET_BLOCK_SIZE, 512), -ENXIO);
	EXPECT(ioctl(fd, 0x4cff, 0), -EINVAL);
	REQUIRE(size_of(fd) == 0, "an unbound device has a size");
out:
	teardown(nr, fd, file);
}

static void set_status(void)
{
	struct loop_config config = {};
	struct loop_info64 info;
	uint64_t word, expected;
	int nr, fd, file;

	EXPECT(setup(&nr, &fd, &file, &config), 0);
	EXPECT(ioctl(fd, LOOP_GET_STATUS64, &info), 0);

	info.lo_offset = 8192;
	info.lo_sizelimit = 2 * MIB;
	strcpy((char *)info.lo_file_name, "renamed");
	EXPECT(ioctl(fd, LOOP_SET_STATUS64, &info), 0);
	REQUIRE(size_of(fd) == 2 * MIB, "%llu",
		(unsigned long long)size_of(fd));
	REQUIRE(pread(file, &expected, 8, 8192 + 512) == 8, "pread");
	REQUIRE(pread(fd, &word, 8, 512) == 8, "pread");
	REQUIRE(word == expected, "the offset has no effect");
	EXPECT(ioctl(fd, LOOP_GET_STATUS64, &info), 0);
	REQUIRE(info.lo_offset == 8192 && info.lo_sizelimit == 2 * MIB &&
		!strcmp((char *)info.lo_file_name, "renamed"),
		"%llu %llu %s", info.lo_offset, info.lo_sizelimit,
		info.lo_file_name);

	/* What can't be set is left alone. */
	info.lo_flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_READ_ONLY;
	EXPECT(ioctl(fd, LOOP_SET_STATUS64, &info), 0);
	EXPECT(ioctl(fd, LOOP_GET_STATUS64, &info), 0);
	REQUIRE(info.lo_flags == LO_FLAGS_AUTOCLEAR, "%x", info.lo_flags);
	info.lo_flags = 0;
	EXPECT(ioctl(fd, LOOP_SET_STATUS64, &info), 0);
	EXPECT(ioctl(fd, LOOP_GET_STATUS64, &info), 0);
	REQUIRE(info.lo_flags == 0, "%x", info.lo_flags);

	/* A refused change changes nothing. */
	info.lo_offset = 1ull << 63;
	EXPECT(ioctl(fd, LOOP_SET_STATUS64, &info), -EOVERFLOW);
	info.lo_offset = 0;
	info.lo_encrypt_type = LO_CRYPT_XOR;
	EXPECT(ioctl(fd, LOOP_SET_STATUS64, &info), -EINVAL);
	EXPECT(ioctl(fd, LOOP_GET_STATUS64, &info), 0);
	REQUIRE(info.lo_offset == 8192, "%llu", info.lo_offset);
	REQUIRE(size_of(fd) == 2 * MIB, "%llu",
		(unsigned long long)size_of(fd));

	/* An offset past the end leaves nothing. */
	info.lo_offset = FILE_SIZE + 512;
	info.lo_sizelimit = 0;
	info.lo_encrypt_type = 0;
	EXPECT(ioctl(fd, LOOP_SET_STATUS64, &info), 0);
	REQUIRE(size_of(fd) == 0, "%llu", (unsigned long long)size_of(fd));
out:
	teardown(nr, fd, file);
}

static void set_capacity(void)
{
	struct loop_config config = {};
	int nr, fd, file;

	EXPECT(setup(&nr, &fd, &file, &config), 0);
	EXPECT(ftruncate(file, FILE_SIZE + MIB + 700), 0);
	REQUIRE(size_of(fd) == FILE_SIZE, "%llu",
		(unsigned long long)size_of(fd));
	EXPECT(ioctl(fd, LOOP_SET_CAPACITY, 0), 0);
	/* Whole sectors only. */
	REQUIRE(size_of(fd) == FILE_SIZE + MIB + 512, "%llu",
		(unsigned long long)size_of(fd));
	EXPECT(ftruncate(file, FILE_SIZE), 0);
	EXPECT(ioctl(fd, LOOP_SET_CAPACITY, 0), 0);
	REQUIRE(size_of(fd) == FILE_SIZE, "%llu",
		(unsigned long long)size_of(fd));
out:
	if (file >= 0 && ftruncate(file, FILE_SIZE))
		perror("ftruncate");
	teardown(nr, fd, file);
}

static void set_direct_io(void)
{
	struct loop_config config = {};
	struct loop_info64 info;
	int nr, fd, file;

	EXPECT(setup(&nr, &fd, &file, &config), 0);
	EXPECT(ioctl(fd, LOOP_SET_DIRECT_IO, 0), 0);
	/* A block size no file system asks more of: now it can be direct. */
	EXPECT(ioctl(fd, LOOP_SET_BLOCK_SIZE, 4096), 0);
	EXPECT(ioctl(fd, LOOP_SET_DIRECT_IO, 1), 0);
	REQUIRE(!strcmp(sysfs(nr, "loop/dio"), "1"), "not direct");
	EXPECT(ioctl(fd, LOOP_GET_STATUS64, &info), 0);
	REQUIRE(info.lo_flags == LO_FLAGS_DIRECT_IO, "%x", info.lo_flags);
	/* An unaligned offset takes it back, silently. */
	info.lo_offset = 100;
	EXPECT(ioctl(fd, LOOP_SET_STATUS64, &info), 0);
	REQUIRE(!strcmp(sysfs(nr, "loop/dio"), "0"), "still direct");
	EXPECT(ioctl(fd, LOOP_SET_DIRECT_IO, 1), -EINVAL);
	info.lo_offset = 0;
	EXPECT(ioctl(fd, LOOP_SET_STATUS64, &info), 0);
	EXPECT(ioctl(fd, LOOP_SET_DIRECT_IO, 1), 0);
	EXPECT(ioctl(fd, LOOP_SET_DIRECT_IO, 0), 0);
	REQUIRE(!strcmp(sysfs(nr, "loop/dio"), "0"), "still direct");
out:
	teardown(nr, fd, file);
}

/* A file that was opened for direct I/O makes the device direct. */
static void direct_file(void)
{
	struct loop_config config = { .block_size = 4096 };
	int nr, fd, file, direct = -1;

	REQUIRE(!setup(&nr, &fd, &file, NULL), "setup: %s", strerror(errno));
	direct = open(backing, O_RDWR | O_DIRECT);
	REQUIRE(direct >= 0, "%s", strerror(errno));
	config.fd = direct;
	EXPECT(ioctl(fd, LOOP_CONFIGURE, &config), 0);
	REQUIRE(!strcmp(sysfs(nr, "loop/dio"), "1"), "not direct");
out:
	if (direct >= 0)
		close(direct);
	teardown(nr, fd, file);
}

static void set_block_size(void)
{
	struct loop_config config = {};
	int nr, fd, file, excl = -1, bs = 0;

	EXPECT(setup(&nr, &fd, &file, &config), 0);
	EXPECT(ioctl(fd, LOOP_SET_BLOCK_SIZE, 2048), 0);
	EXPECT(ioctl(fd, BLKSSZGET, &bs), 0);
	REQUIRE(bs == 2048, "%d", bs);
	EXPECT(ioctl(fd, LOOP_SET_BLOCK_SIZE, 1000), -EINVAL);
	EXPECT(ioctl(fd, LOOP_SET_BLOCK_SIZE, 256), -EINVAL);
	EXPECT(ioctl(fd, BLKSSZGET, &bs), 0);
	REQUIRE(bs == 2048, "%d", bs);
	/* Not under an exclusive owner, but by them. */
	excl = open_loop(nr, O_RDWR | O_EXCL);
	REQUIRE(excl >= 0, "%s", strerror(errno));
	EXPECT(ioctl(fd, LOOP_SET_BLOCK_SIZE, 512), -EBUSY);
	EXPECT(ioctl(excl, LOOP_SET_BLOCK_SIZE, 512), 0);
	EXPECT(ioctl(fd, BLKSSZGET, &bs), 0);
	REQUIRE(bs == 512, "%d", bs);
out:
	if (excl >= 0)
		close(excl);
	teardown(nr, fd, file);
}

static void exclusive(void)
{
	struct loop_config config = {};
	int nr, fd, file, excl = -1;

	REQUIRE(!setup(&nr, &fd, &file, NULL), "setup: %s", strerror(errno));
	excl = open_loop(nr, O_RDWR | O_EXCL);
	REQUIRE(excl >= 0, "%s", strerror(errno));
	config.fd = file;
	EXPECT(ioctl(fd, LOOP_CONFIGURE, &config), -EBUSY);
	EXPECT(ioctl(excl, LOOP_CONFIGURE, &config), 0);
out:
	if (excl >= 0)
		close(excl);
	teardown(nr, fd, file);
}

static void read_only(void)
{
	struct loop_config config = {};
	struct loop_info64 info;
	int nr, fd, file, ro = -1, rw = -1;
	char c = 1;

	/* By the flag. */
	config.info.lo_flags = LO_FLAGS_READ_ONLY;
	EXPECT(setup(&nr, &fd, &file, &config), 0);
	REQUIRE(!strcmp(sysfs(nr, "ro"), "1"), "not read-only");
	EXPECT(pwrite(fd, &c, 1, 0), -EPERM);
	teardown(nr, fd, file);

	/* By a file that was opened for reading. */
	config.info.lo_flags = 0;
	REQUIRE(!setup(&nr, &fd, &file, NULL), "setup: %s", strerror(errno));
	ro = open(backing, O_RDONLY);
	config.fd = ro;
	EXPECT(ioctl(fd, LOOP_CONFIGURE, &config), 0);
	EXPECT(ioctl(fd, LOOP_GET_STATUS64, &info), 0);
	REQUIRE(info.lo_flags == LO_FLAGS_READ_ONLY, "%x", info.lo_flags);
	REQUIRE(!strcmp(sysfs(nr, "ro"), "1"), "not read-only");
	teardown(nr, fd, file);

	/* By a device that was opened for reading. */
	REQUIRE(!setup(&nr, &fd, &file, NULL), "setup: %s", strerror(errno));
	close(fd);
	fd = open_loop(nr, O_RDONLY);
	config.fd = file;
	EXPECT(ioctl(fd, LOOP_CONFIGURE, &config), 0);
	REQUIRE(!strcmp(sysfs(nr, "ro"), "1"), "not read-only");
	teardown(nr, fd, file);

	/* And it's writable again in its next life. */
	REQUIRE(!setup(&nr, &fd, &file, NULL), "setup: %s", strerror(errno));
	EXPECT(ioctl(fd, LOOP_CONFIGURE, &config), 0);
	REQUIRE(!strcmp(sysfs(nr, "ro"), "0"), "read-only");
	rw = open_loop(nr, O_RDWR);
	REQUIRE(rw >= 0, "%s", strerror(errno));
out:
	if (ro >= 0)
		close(ro);
	if (rw >= 0)
		close(rw);
	teardown(nr, fd, file);
}

/* As another user, who could open the device for reading. */
static void permission(void)
{
	struct loop_config config = {};
	struct loop_info64 info = {};
	int nr, fd, file, rd = -1, status;
	pid_t pid;

	EXPECT(setup(&nr, &fd, &file, &config), 0);
	rd = open_loop(nr, O_RDONLY);
	REQUIRE(rd >= 0, "%s", strerror(errno));
	pid = fork();
	if (!pid) {
		status = setresuid(65534, 65534, 65534) ? 1 :
			 res(ioctl(rd, LOOP_SET_STATUS64, &info)) != -EPERM ? 2 :
			 res(ioctl(rd, LOOP_SET_CAPACITY, 0)) != -EPERM ? 3 :
			 res(ioctl(rd, LOOP_SET_DIRECT_IO, 0)) != -EPERM ? 4 :
			 res(ioctl(rd, LOOP_SET_BLOCK_SIZE, 512)) != -EPERM ? 5 :
			 res(ioctl(rd, LOOP_GET_STATUS64, &info)) != 0 ? 6 :
			 res(ioctl(fd, LOOP_SET_CAPACITY, 0)) != 0 ? 7 : 0;
		_exit(status);
	}
	REQUIRE(pid > 0, "fork: %s", strerror(errno));
	EXPECT(waitpid(pid, &status, 0), pid);
	REQUIRE(status == 0, "check %d in the child", WEXITSTATUS(status));
out:
	if (rd >= 0)
		close(rd);
	teardown(nr, fd, file);
}

/* With another opener, LOOP_CLR_FD takes effect at the last close. */
static void lazy_clear(void)
{
	struct loop_config config = {};
	struct loop_info64 info;
	int nr, fd, file, second = -1;
	char c;

	EXPECT(setup(&nr, &fd, &file, &config), 0);
	second = open_loop(nr, O_RDWR);
	REQUIRE(second >= 0, "%s", strerror(errno));
	EXPECT(ioctl(fd, LOOP_CLR_FD, 0), 0);
	EXPECT(ioctl(fd, LOOP_GET_STATUS64, &info), 0);
	REQUIRE(info.lo_flags & LO_FLAGS_AUTOCLEAR, "%x", info.lo_flags);
	close(fd);
	fd = -1;
	usleep(50000);
	REQUIRE(bound(nr), "unbound while open");
	EXPECT(pread(second, &c, 1, 0), 1);
	close(second);
	second = -1;
	REQUIRE(unbound_soon(nr), "bound after the last close");

	/* The only opener: nobody gets in any more, and it's the last close. */
	fd = open_loop(nr, O_RDWR);
	config.fd = file;
	EXPECT(ioctl(fd, LOOP_CONFIGURE, &config), 0);
	EXPECT(ioctl(fd, LOOP_CLR_FD, 0), 0);
	EXPECT(open_loop(nr, O_RDONLY), -ENXIO);
	EXPECT(ioctl(fd, LOOP_GET_STATUS64, &info), -ENXIO);
	EXPECT(ioctl(fd, LOOP_CLR_FD, 0), -ENXIO);
	EXPECT(ioctl(fd, LOOP_CONFIGURE, &config), -EBUSY);
	close(fd);
	fd = -1;
	REQUIRE(unbound_soon(nr), "bound after the last close");
out:
	if (second >= 0)
		close(second);
	teardown(nr, fd, file);
}

static void autoclear(void)
{
	struct loop_config config = {
		.info = { .lo_flags = LO_FLAGS_AUTOCLEAR },
	};
	int nr, fd, file, second = -1;

	EXPECT(setup(&nr, &fd, &file, &config), 0);
	second = open_loop(nr, O_RDONLY);
	REQUIRE(second >= 0, "%s", strerror(errno));
	close(fd);
	fd = -1;
	usleep(50000);
	REQUIRE(bound(nr), "unbound while open");
	close(second);
	second = -1;
	REQUIRE(unbound_soon(nr), "bound after the last close");
out:
	if (second >= 0)
		close(second);
	teardown(nr, fd, file);
}

static void stacked(void)
{
	struct loop_config config = { .info = { .lo_offset = 4096 } };
	int nr, fd, file, top = -1, topfd = -1, base = -1;
	uint64_t word, expected;

	EXPECT(setup(&nr, &fd, &file, &config), 0);
	top = ioctl(ctl, LOOP_CTL_GET_FREE);
	topfd = open_loop(top, O_RDWR);
	REQUIRE(topfd >= 0, "%s", strerror(errno));
	base = open_loop(nr, O_RDWR);
	REQUIRE(base >= 0, "%s", strerror(errno));
	config.fd = base;
	EXPECT(ioctl(topfd, LOOP_CONFIGURE, &config), 0);
	REQUIRE(pread(file, &expected, 8, 8192) == 8, "pread");
	REQUIRE(pread(topfd, &word, 8, 0) == 8, "pread: %s", strerror(errno));
	REQUIRE(word == expected, "another block");
	word = ~word;
	REQUIRE(pwrite(topfd, &word, 8, 0) == 8, "pwrite");
	EXPECT(fsync(topfd), 0);
	REQUIRE(pread(file, &expected, 8, 8192) == 8, "pread");
	REQUIRE(word == expected, "the write didn't arrive");
	/* Let go of it, or it isn't the last close. */
	ioctl(topfd, LOOP_CLR_FD, 0);
	close(topfd);
	topfd = -1;
	REQUIRE(unbound_soon(top), "still bound");

	/* Not itself, and not one that is not bound. */
	topfd = open_loop(top, O_RDWR);
	EXPECT(ioctl(topfd, LOOP_SET_FD, topfd), -EBADF);
	close(base);
	base = open_loop(top, O_RDWR);
	REQUIRE(base >= 0, "%s", strerror(errno));
	EXPECT(ioctl(topfd, LOOP_SET_FD, base), -EBADF);
	ioctl(fd, LOOP_CLR_FD, 0);
	close(fd);
	fd = -1;
	REQUIRE(unbound_soon(nr), "still bound");
	close(base);
	base = open_loop(nr, O_RDWR);
	EXPECT(ioctl(topfd, LOOP_SET_FD, base), -EINVAL);
out:
	if (base >= 0)
		close(base);
	teardown(top, topfd, -1);
	teardown(nr, fd, file);
}

static const struct {
	const char *name;
	void (*run)(void);
} cases[] = {
	{ "LOOP_CTL_ADD and LOOP_CTL_REMOVE", control_add_remove },
	{ "LOOP_CTL_GET_FREE", control_get_free },
	{ "LOOP_CONFIGURE, LOOP_SET_FD, LOOP_GET_STATUS64, sysfs",
	  configure_status },
	{ "LOOP_CONFIGURE refuses what is wrong", configure_errors },
	{ "LOOP_CONFIGURE refuses bad block sizes", configure_block_size },
	{ "errors of an unbound device", unbound_errors },
	{ "LOOP_SET_STATUS64", set_status },
	{ "LOOP_SET_CAPACITY", set_capacity },
	{ "LOOP_SET_DIRECT_IO", set_direct_io },
	{ "a file opened with O_DIRECT", direct_file },
	{ "LOOP_SET_BLOCK_SIZE", set_block_size },
	{ "an exclusive opener", exclusive },
	{ "read-only by flag, file, device", read_only },
	{ "permissions", permission },
	{ "LOOP_CLR_FD waits for the last close", lazy_clear },
	{ "autoclear on last close", autoclear },
	{ "loop on loop", stacked },
};

static int make_file(const char *name)
{
	static uint64_t buf[FILE_SIZE / sizeof(uint64_t)];
	unsigned int i;
	int fd = open(name, O_WRONLY | O_CREAT, 0600);

	for (i = 0; i < ARRAY_SIZE(buf); i++)
		buf[i] = i * 0x9e3779b97f4a7c15ull;
	if (fd < 0 || write(fd, buf, sizeof(buf)) != sizeof(buf))
		return -1;
	return close(fd);
}

int main(int argc, char **argv)
{
	unsigned int i;

	if (argc != 2) {
		fprintf(stderr, "usage: ioctl_cases DIR\n");
		return 2;
	}
	snprintf(dir, sizeof(dir), "%s", argv[1]);
	snprintf(backing, sizeof(backing), "%s/backing", dir);
	ctl = open("/dev/loop-control", O_RDWR);
	if (ctl < 0) {
		printf("Bail out! /dev/loop-control: %s\n", strerror(errno));
		return 1;
	}
	if (make_file(backing)) {
		printf("Bail out! %s: %s\n", backing, strerror(errno));
		return 1;
	}
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		why[0] = 0;
		cases[i].run();
		printf("%s\t%s\t%s\n", why[0] ? "fail" : "pass", cases[i].name,
		       why);
		fflush(stdout);
	}
	return 0;
}
