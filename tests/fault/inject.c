// SPDX-License-Identifier: GPL-2.0
/*
 * Injected failures and the results of calls.
 */
#include "fault.h"

#include <stdarg.h>

void die(const char *fmt, ...)
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

/* Step n from now on fails, or none if n is 0. An injected failure can also hit this write. */
void arm(unsigned int n)
{
	char text[16];
	int i, len = snprintf(text, sizeof(text), "%u", n);

	for (i = 0; i < 3; i++)
		if (pwrite(nth_fd, text, len, 0) == len)
			return;
	die("fail-nth: %m");
}

/* Stops the injection. Returns whether a failure was injected. */
int disarm(void)
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

/* Counts the result of a call. It may fail with an error in @allowed, if a failure was injected. */
void result(int hit, int ret, const int *allowed)
{
	int n = ret < 0 ? errno : 0;

	if (!hit && n)
		die("fails without an injected failure: %m");
	if (n) {
		while (*allowed && *allowed != n)
			allowed++;
		if (!*allowed)
			die("fails with %s", strerrorname_np(n));
	}
	results[n & 255]++;
}

const int enomem[] = { ENOMEM, EFAULT, 0 };
