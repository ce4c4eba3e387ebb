// SPDX-License-Identifier: GPL-2.0
/*
 * Injects a failure into each step of a call in turn (/proc/thread-self/fail-nth), until the call
 * succeeds without an injected failure.
 *
 *   loop_fault CALL[/STRIDE] FILE [OTHER]
 *
 * With a STRIDE of 10, a failure is injected into every tenth step only.
 *
 *	configure	LOOP_CONFIGURE with FILE, of a new device each time
 *	set-fd		LOOP_SET_FD of FILE, of a new device each time
 *	add		LOOP_CTL_ADD
 *	get-free	LOOP_CTL_GET_FREE, while no device is free
 *	open		open of an unbound device
 *	open-node	open of a device node without a disk
 *	set-status	LOOP_SET_STATUS64 of a device bound to FILE: offset, limit, name
 *	get-status	LOOP_GET_STATUS64
 *	change-fd	LOOP_CHANGE_FD, from FILE to OTHER
 *	block-size	LOOP_SET_BLOCK_SIZE
 *	direct-io	LOOP_SET_DIRECT_IO
 *	clear		LOOP_CLR_FD and the last close
 *	cgroup DEVICE DIR
 *			the first I/O of a new cgroup in DIR: writes to DEVICE, and reads them back
 *	detach-bios DEVICE DIR
 *			I/O on DEVICE, whose backing file is in DIR, while that file system is
 *			frozen: more I/Os than DEVICE has tags for one cgroup
 *
 * A failure must leave the device unchanged and usable: the call is repeated without a failure.
 * Prints "RESULT COUNT" for each result, and "passes after COUNT" with the number of calls until no
 * failure was injected.
 */
#include "fault.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

int control, nth_fd;
const char *file_name, *other_name;
unsigned int results[256];
char node_name[4096];

/* Makes the call with a failure of step n. Returns whether the failure was injected. */
static int call_one(const char *call, int fd, unsigned int n)
{
	if (!strcmp(call, "configure") || !strcmp(call, "set-fd"))
		return configure(n, !strcmp(call, "set-fd"));
	if (!strcmp(call, "add") || !strcmp(call, "get-free"))
		return add_or_get_free(n, !strcmp(call, "get-free"));
	if (!strcmp(call, "open") || !strcmp(call, "open-node"))
		return open_device(n, !strcmp(call, "open-node"));
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

/* Whether all repetitions of the call use one attached device. */
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
	if (!strcmp(argv[1], "open-node")) {
		snprintf(node_name, sizeof(node_name), "%s.node", file_name);
		if (mknod(node_name, S_IFBLK | 0600, makedev(7, NR)))
			die("mknod %s: %m", node_name);
	}
	if (needs_device(argv[1]))
		fd = bound(!strcmp(argv[1], "change-fd") ? O_RDONLY : O_RDWR);
	if (!strcmp(argv[1], "detach-bios")) {
		n = detach_bios(file_name, other_name);
	} else {
		for (n = 1; call_one(argv[1], fd, n); n += stride)
			if (n >= MOST)
				die("still a failure after %u calls", n);
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
