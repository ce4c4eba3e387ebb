// SPDX-License-Identifier: GPL-2.0
/*
 * Cgroups: created, limited, left and removed.
 */
#include "chaos.h"

int put(const char *dir, const char *file, const char *text)
{
	char name[8192];
	int fd, ret, err;

	snprintf(name, sizeof(name), "%s/%s", dir, file);
	fd = open(name, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	ret = write(fd, text, strlen(text)) < 0 ? -1 : 0;
	err = errno;
	close(fd);
	errno = err;
	return ret;
}

void group_dir(char *dir, size_t size, unsigned int nr)
{
	snprintf(dir, size, "%s/%s", cgroup_dir, sh->groups[nr].name);
}

static int some_group(void)
{
	unsigned int i, nr = rnd(GROUPS);

	for (i = 0; i < GROUPS; i++, nr = (nr + 1) % GROUPS)
		if (load(sh->groups[nr].alive))
			return nr;
	return -1;
}

/* Moves this task to a cgroup. Its I/O in flight stays in the old one. */
void join(void)
{
	char dir[8192];
	int nr = some_group();

	if (nr < 0)
		return;
	group_dir(dir, sizeof(dir), nr);
	doing(JOIN, put(dir, "cgroup.procs", "0"));
}

void limit_io(const char *dir)
{
	static const char *const keys[] = { "rbps", "wbps", "riops", "wiops" };
	char text[128];
	unsigned int i, value;
	dev_t dev;
	int n;

	/* Mostly limits on the disks of the backing files: they throttle the I/O of the driver. */
	i = rnd(6);
	if (i < 4)
		dev = disks[i % 2];
	else
		dev = makedev(7, sh->slots[rnd(SLOTS)].number & 0xff);
	n = sprintf(text, "%u:%u", major(dev), minor(dev));
	for (i = 0; i < 4; i++) {
		/* Not too low: operations that wait for all I/O wait for throttled I/O. */
		value = i < 2 ? (256 + rnd(2048)) << 10 : 40 + rnd(360);
		if (slow > 1)
			value /= 4;
		if (rnd(3))
			n += sprintf(text + n, " %s=max", keys[i]);
		else
			n += sprintf(text + n, " %s=%u", keys[i], value);
	}
	doing(LIMIT_IO, put(dir, "io.max", text));
}

void limit_memory(const char *dir)
{
	static const char *const values[] = { "4M", "8M", "16M", "max" };

	doing(LIMIT_MEMORY, put(dir, "memory.high", values[rnd(4)]));
}

void make_group(unsigned int nr)
{
	static unsigned int made;
	char name[sizeof(sh->groups[nr].name)], dir[8192];
	int n = sprintf(name, "c%u-%u", nr, made++);

	snprintf(dir, sizeof(dir), "%s/%s", cgroup_dir, name);
	doing(MAKE_CGROUP, mkdir(dir, 0755));
	if (!rnd(3)) {
		limit_io(dir);
		if (put(dir, "cgroup.subtree_control", "+memory +io"))
			bad("%s/cgroup.subtree_control: %m", dir);
		strcpy(name + n, "/in");
		strcat(dir, "/in");
		doing(MAKE_CGROUP, mkdir(dir, 0755));
	}
	limit_io(dir);
	limit_memory(dir);
	/* Publish the group last: no task may join it before its limits are set. */
	strcpy(sh->groups[nr].name, name);
	store(sh->groups[nr].alive, 1);
}

/* Moves all tasks of a cgroup to other cgroups, or out of the cgroup of the test. */
static void empty_group(const char *dir)
{
	char name[8320], target[8192], pid[32];
	FILE *f;
	int nr;

	snprintf(name, sizeof(name), "%s/cgroup.procs", dir);
	f = fopen(name, "re");
	if (!f)
		bad("%s: %m", name);
	while (fgets(pid, sizeof(pid), f)) {
		nr = rnd(4) ? some_group() : -1;
		if (nr < 0)
			snprintf(target, sizeof(target), "%s/..", cgroup_dir);
		else
			group_dir(target, sizeof(target), nr);
		/* The migration may restart the list of tasks. */
		count(MIGRATE, put(target, "cgroup.procs", pid));
		enter(LEAVE_CGROUP);
	}
	fclose(f);
}

void remove_group(unsigned int nr, enum op op)
{
	struct group *group = &sh->groups[nr];
	char dir[8192], *slash;

	store(group->alive, 0);
	group_dir(dir, sizeof(dir), nr);
	enter(op);
	for (;;) {
		uint64_t since = load(me->since);

		if (op == KILL_CGROUP) {
			if (put(dir, "cgroup.kill", "1"))
				bad("%s/cgroup.kill: %m", dir);
		} else {
			empty_group(dir);
		}
		enter(op);
		store(me->since, since);
		if (!rmdir(dir))
			break;
		/* A killed task waits for its I/O. */
		if (errno != EBUSY)
			bad("rmdir %s: %m", dir);
		usleep(2000);
	}
	slash = strrchr(dir, '/');
	if (!strcmp(slash, "/in")) {
		*slash = '\0';
		if (rmdir(dir))
			bad("rmdir %s: %m", dir);
	}
	count(op, 0);
}

void remove_groups(void)
{
	unsigned int nr;

	for (nr = 0; nr < GROUPS; nr++)
		if (sh->groups[nr].alive)
			remove_group(nr, KILL_CGROUP);
}

/* Releases throttled I/O. Also called after a failure. */
void lift_limits(void)
{
	char dir[8192], text[64], *slash;
	unsigned int nr, i;
	dev_t dev;

	for (nr = 0; nr < GROUPS; nr++) {
		if (!sh->groups[nr].name[0])
			continue;
		for (i = 0; i < 2 + SLOTS; i++) {
			dev = i < 2 ? disks[i] : makedev(7, sh->slots[i - 2].number & 0xff);
			sprintf(text, "%u:%u rbps=max wbps=max riops=max wiops=max", major(dev),
				minor(dev));
			group_dir(dir, sizeof(dir), nr);
			put(dir, "io.max", text);
			slash = strrchr(dir, '/');
			if (!strcmp(slash, "/in")) {
				*slash = '\0';
				put(dir, "io.max", text);
			}
		}
	}
}
