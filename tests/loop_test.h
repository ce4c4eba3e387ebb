/* SPDX-License-Identifier: GPL-2.0 */
/* Shared by the C programs of the tests. */
#ifndef LOOP_TEST_H
#define LOOP_TEST_H

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static inline void __attribute__((noreturn, format(printf, 1, 2)))
die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	exit(1);
}

static inline int64_t number(const char *s)
{
	char *end;
	int64_t n;

	errno = 0;
	n = strtoll(s, &end, 10);
	if (errno || end == s || *end)
		die("not a number: %s", s);
	return n;
}

/* Weak, so that all files of a program share it. */
uint64_t rng __attribute__((weak));

static inline uint32_t rnd(uint32_t below)
{
	rng = rng * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(rng >> 33) % below;
}

#endif
