// SPDX-License-Identifier: GPL-2.0
/*
 * The work of the whole machine.
 */
#include "bench_io.h"

void nap(uint64_t ns)
{
	struct timespec ts = { ns / 1000000000, ns % 1000000000 };

	while (nanosleep(&ts, &ts) && errno == EINTR)
		;
}

struct machine machine(void)
{
	static char buf[65536];
	struct machine m = { 0, 0 };
	unsigned long long ns;
	ssize_t n;
	char *p;
	int fd;

	nap(1000000);
	fd = open("/proc/schedstat", O_RDONLY);
	n = read(fd, buf, sizeof(buf) - 1);
	if (n <= 0)
		err(1, "/proc/schedstat");
	close(fd);
	buf[n] = 0;
	for (p = buf; p; p = (p = strchr(p, '\n')) ? p + 1 : NULL)
		if (sscanf(p, "cpu%*u %*u %*u %*u %*u %*u %*u %llu", &ns) == 1)
			m.busy += ns;
	fd = open("/proc/stat", O_RDONLY);
	n = read(fd, buf, sizeof(buf) - 1);
	if (n <= 0)
		err(1, "/proc/stat");
	close(fd);
	buf[n] = 0;
	p = strstr(buf, "\nctxt ");
	if (!p)
		errx(1, "/proc/stat has no ctxt");
	m.switches = strtoull(p + 6, NULL, 10);
	return m;
}
