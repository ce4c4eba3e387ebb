// SPDX-License-Identifier: GPL-2.0
/*
 * Tasks that run beside the I/O of a test: in cgroups, with fsync, and tasks that drop caches or
 * suspend a device.
 */
#include "edges.h"

#include <linux/dm-ioctl.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

int drop_caches(const char *disk_name, int ms)
{
	int disk = open_at(disk_name, O_RDONLY);
	int control = open_at("/proc/sys/vm/drop_caches", O_WRONLY);

	/* Bit 2: no message in the kernel log. */
	if (pwrite(control, "4", 1, 0) != 1)
		die("drop_caches: %m");
	for (;;) {
		if (posix_fadvise(disk, 0, 0, POSIX_FADV_DONTNEED))
			die("posix_fadvise");
		if (pwrite(control, "2", 1, 0) != 1)
			die("drop_caches: %m");
		usleep(ms * 1000);
	}
}

static volatile sig_atomic_t stopped;

static void stop(int sig)
{
	(void)sig;
	stopped = 1;
}

/* By ioctl: dmsetup would be read from the disk each time, since caches are dropped. */
int suspend(const char *name)
{
	int control = open_at("/dev/mapper/control", O_RDWR);
	struct dm_ioctl arg;
	long n = 0;
	int i;

	signal(SIGTERM, stop);
	while (!stopped) {
		for (i = 0; i < 2; i++) {
			memset(&arg, 0, sizeof(arg));
			arg.version[0] = DM_VERSION_MAJOR;
			arg.data_size = sizeof(arg);
			arg.data_start = sizeof(arg);
			snprintf(arg.name, sizeof(arg.name), "%s", name);
			if (!i)
				arg.flags = DM_SUSPEND_FLAG | DM_SKIP_LOCKFS_FLAG;
			if (ioctl(control, DM_DEV_SUSPEND, &arg))
				die("%s %s: %m", i ? "resume" : "suspend", name);
		}
		n++;
		usleep(30000);
	}
	printf("%ld\n", n);
	return 0;
}

/* Creates a child in a cgroup, without migration. */
static pid_t fork_into(const char *cgroup)
{
	int fd = open_at(cgroup, O_RDONLY | O_DIRECTORY);
	struct clone_args args = {
		.flags = CLONE_INTO_CGROUP,
		.exit_signal = SIGCHLD,
		.cgroup = fd,
	};
	pid_t pid = syscall(SYS_clone3, &args, sizeof(args));

	if (pid < 0)
		die("clone into %s: %m", cgroup);
	close(fd);
	return pid;
}

static int wait_for_all(int n)
{
	int status, failed = 0;

	while (n--) {
		if (wait(&status) < 0)
			die("wait: %m");
		failed |= status;
	}
	return failed ? 1 : 0;
}

int crowd(const char *name, uint64_t first, char **cgroups, int n)
{
	int fd = open_at(name, O_WRONLY | O_DIRECT), i;
	uint8_t *buf = pages(BLOCK);

	prctl(PR_SET_CHILD_SUBREAPER, 1);
	for (i = 0; i < n; i++) {
		if (fork_into(cgroups[i]))
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		/* Not adjacent. */
		_exit(pwrite(fd, buf, BLOCK, first + i * 2ull * BLOCK) != (ssize_t)BLOCK);
	}
	return wait_for_all(n);
}

int fsyncs(const char *name, uint64_t first, int n)
{
	uint8_t *buf = pages(BLOCK);
	int i;

	for (i = 0; i < n; i++) {
		pid_t pid = fork();
		int fd;

		if (pid < 0)
			die("fork: %m");
		if (pid)
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		fd = open_at(name, O_WRONLY | O_DIRECT);
		for (;;)
			if (pwrite(fd, buf, BLOCK, first + i * 2ull * BLOCK) != (ssize_t)BLOCK ||
			    fsync(fd))
				_exit(1);
	}
	return wait_for_all(n);
}
