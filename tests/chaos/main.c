// SPDX-License-Identifier: GPL-2.0
/*
 * Verified I/O to several loop devices by tasks in cgroups that are throttled, changed, left,
 * killed and removed, while the devices are attached, detached, reconfigured, added and removed,
 * and the file systems of the backing files are frozen and thawed.
 *
 *   loop_chaos run DRIVER DIR OTHER MEM CGROUP MODEL SECONDS SEED SLOW
 *	DIR and OTHER are on file systems on disks, possibly the same, MEM is on tmpfs; CGROUP is
 *	an empty cgroup whose children have memory and io. Prints "OPERATION RESULT COUNT" for
 *	each result of each operation, and "too few: ..." for operations that were not done often
 *	enough; fails after an error. MODEL is a new file, which gets the expected contents of the
 *	other files.
 *   loop_chaos verify MODEL DIR OTHER MEM
 *	the files, read without a loop device, must have the contents in MODEL
 *
 * Each word of a block encodes its file, block, generation and place in the block. Each block has
 * one writer, which records the generation before the write (pending) and after its completion
 * (acked): a reader must find a generation from that range. If the writer is killed, the block has
 * either of the two, and the next writer reads which. Odd generations are zeroes, as after a
 * discard or write-zeroes.
 *
 * No I/O may fail. An open device that was found attached stays attached: LOOP_CLR_FD takes effect
 * at the last close. ops[] has the operations that can fail: mostly opening and attaching a device
 * that another task is about to detach, attach or remove, and joining a cgroup that is about to be
 * removed.
 */
#include "chaos.h"

const struct op_info ops[OPS] = {
	/* The device is being detached or removed. */
	[OPEN]		= { "open", 10, { ENXIO, ENOENT, ENODEV } },
	/* The device was detached after the open. */
	[PROBE]		= { "probe", 10, { ENXIO } },
	/* Another task has configured it. */
	[CONFIGURE]	= { "configure", 5, { EBUSY } },
	[GET_FREE]	= { "get-free", 3, { 0 } },
	[ADD]		= { "add", 3, { EEXIST } },
	/* Another task uses or removes the device. */
	[REMOVE]	= { "remove", 3, { EBUSY, ENODEV } },
	/* LOOP_CTL_REMOVE of a device in use, which must fail. */
	[REMOVE_USED]	= { "remove-used", 2, { 0 } },
	[LOCK]		= { "lock", 0, { 0 } },
	[READ]		= { "read", 50, { 0 } },
	[OTHERS_READ]	= { "others-read", 10, { 0 } },
	[AIO]		= { "aio", 20, { 0 } },
	[WRITE]		= { "write", 50, { 0 } },
	[FUA_WRITE]	= { "fua-write", 5, { 0 } },
	[BUFFERED_WRITE] = { "buffered-write", 10, { 0 } },
	[SYNC]		= { "sync", 5, { 0 } },
	[DISCARD]	= { "discard", 5, { 0 } },
	[ZERO_OUT]	= { "zero-out", 5, { 0 } },
	[RESOLVE]	= { "resolve", 10, { 0 } },
	[CLOSE]		= { "close", 0, { 0 } },
	[GET_STATUS]	= { "get-status", 5, { 0 } },
	[SET_STATUS]	= { "set-status", 5, { 0 } },
	/* Files on tmpfs may not support it. */
	[DIRECT_IO]	= { "direct-io", 5, { EINVAL } },
	[SET_BLOCK]	= { "block-size", 5, { 0 } },
	[RESIZE]	= { "resize", 5, { 0 } },
	/* The device has no partition scan. */
	[RESCAN]	= { "rescan", 1, { EINVAL } },
	[CLEAR]		= { "clear", 5, { 0 } },
	[DETACH]	= { "detach", 5, { 0 } },
	[FILE_CHECK]	= { "file-check", 5, { 0 } },
	[MOVE]		= { "move", 5, { 0 } },
	[CHANGE_FD]	= { "change-fd", 5, { 0 } },
	[FIRST_FILE]	= { "first-file", 1, { 0 } },
	[SECOND_FILE]	= { "second-file", 1, { 0 } },
	[MAKE_CGROUP]	= { "make-cgroup", 5, { 0 } },
	[KILL_CGROUP]	= { "kill-cgroup", 2, { 0 } },
	[LEAVE_CGROUP]	= { "leave-cgroup", 2, { 0 } },
	/* The device was removed, or the file is attached to another device. */
	[LIMIT_IO]	= { "limit-io", 5, { ENODEV } },
	[LIMIT_MEMORY]	= { "limit-memory", 5, { 0 } },
	/* The cgroup has just been removed. */
	[JOIN]		= { "join", 10, { ENOENT, ENODEV } },
	/* The task has just ended. */
	[MIGRATE]	= { "migrate", 5, { ESRCH } },
	[KILLED]	= { "killed", 2, { 0 } },
	[FREEZE]	= { "freeze", 3, { 0 } },
	[THAW]		= { "thaw", 3, { 0 } },
	[HELD_UP]	= { "held-up", 1, { 0 } },
	[SYSFS]		= { "sysfs", 10, { 0 } },
	[WORKERS]	= { "workers", 5, { 0 }, true },
	[PARKING]	= { "parking", 1, { 0 }, true },
};

struct shared *sh;
struct task *me;
const char *my_name = "main";
const char *cgroup_dir, *model_name;
char file_names[SLOTS][4096], second_name[4096];
struct stat file_stats[SLOTS], second_stat;
int locks[SLOTS];
int dir_fds[2];
dev_t disks[2];
int control = -1;
unsigned int slow = 1;
bool rust;
uint64_t *io_buf;

/*
 * The supervisor
 */

/* In the order of MORTALS and LASTING. */
static const struct role {
	const char *name;
	void (*run)(int arg);
	int arg;
} roles[TASKS] = {
	{ "aio0", worker, 0 }, { "buffered0", worker, 1 }, { "direct0", worker, 2 },
	{ "aio1", worker, 3 }, { "buffered1", worker, 4 }, { "direct1", worker, 5 },
	{ "aio2", worker, 6 }, { "buffered2", worker, 7 }, { "direct2", worker, 8 },
	{ "aio3", worker, 9 }, { "buffered3", worker, 10 }, { "direct3", worker, 11 },
	{ "shift-reader", shift_reader, 0 }, { "rdonly-reader", rdonly_reader, 0 },
	{ "churner", churner, 0 },
	{ "changer0", changer, 0 }, { "changer1", changer, 0 }, { "mover", mover, 0 },
	{ "file-changer", file_changer, 0 }, { "grouper", grouper, 0 },
	{ "freezer", freezer, 0 }, { "looker", looker, 0 },
	{ "finish", finish, 0 },
};

static uint64_t seed;

static void start(unsigned int nr)
{
	struct task *task = &sh->tasks[nr];
	char name[4200];
	unsigned int i;
	pid_t pid;

	task->op = 0;
	task->slot = -1;
	store(task->since, 0);
	fflush(stdout);
	pid = fork();
	if (pid < 0)
		die("fork: %m");
	if (pid) {
		store(task->pid, pid);
		return;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	my_name = roles[nr].name;
	prctl(PR_SET_NAME, my_name);
	me = task;
	rng = (seed * 64 + nr) * 0x9e3779b97f4a7c15ull + task->lives++;
	rng ^= rng >> 31;
	rng *= 0xbf58476d1ce4e5b9ull;
	rng ^= rng >> 29;
	/* A lock belongs to the open file: each process opens its own. */
	for (i = 0; i < SLOTS; i++) {
		snprintf(name, sizeof(name), "%s.lock%u", model_name, i);
		locks[i] = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		if (locks[i] < 0)
			die("%s: %m", name);
	}
	io_buf = blocks(EDGE);
	roles[nr].run(roles[nr].arg);
	exit(0);
}

static void show(const char *name)
{
	static char buf[1 << 16];

	if (look(name, buf, sizeof(buf)))
		printf("%s:\n%s\n", name, buf);
}

static void show_stack(pid_t pid)
{
	char name[64];

	sprintf(name, "/proc/%d/stack", pid);
	show(name);
}

/* Runs a function that may hang in a child, and waits at most 5 seconds for it. */
static void try(const char *name, void (*what)(void))
{
	int i;
	pid_t pid = fork();

	if (!pid) {
		what();
		_exit(0);
	}
	for (i = 0; pid > 0 && i < 50; i++) {
		if (waitpid(pid, NULL, WNOHANG))
			return;
		usleep(100000);
	}
	if (pid > 0) {
		printf("%s is stuck, too\n", name);
		show_stack(pid);
		kill(pid, SIGKILL);
	}
}

static void thaw(void)
{
	unsigned int i;

	for (i = 0; i < 2; i++)
		ioctl(dir_fds[i], FITHAW, 0);
}

static void show_task(unsigned int nr, unsigned int least_ms)
{
	struct task *task = &sh->tasks[nr];
	uint64_t since = load(task->since);

	if (!task->pid)
		return;
	printf("%s[%d]: ", roles[nr].name, task->pid);
	if (since)
		printf("%s for %llu ms", ops[task->op].name,
		       (unsigned long long)(now_ms() - since));
	else
		printf("no operation");
	if (task->slot >= 0)
		printf(", file %d, loop%d%s", task->slot, sh->slots[task->slot].number,
		       task->open >= 0 ? ", open" : "");
	printf("\n");
	if (!least_ms || (since && now_ms() - since >= least_ms))
		show_stack(task->pid);
}

/* Reaps children. Returns false when none is left. */
static bool reap(void)
{
	unsigned int i;
	pid_t pid;

	while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
		for (i = 0; i < TASKS; i++)
			if (sh->tasks[i].pid == pid)
				sh->tasks[i].pid = 0;
	return !pid;
}

/* After a failure: prints the state, thaws, lifts limits and kills all tasks. */
static int give_up(bool stuck)
{
	unsigned int i;
	char name[64];

	store(sh->stop, 1);
	if (stuck) {
		for (i = 0; i < TASKS; i++)
			show_task(i, 1000);
		for (i = 0; i < NUMBERS; i++) {
			sprintf(name, "/sys/kernel/debug/loop_rs/loop%u/workers", i);
			show(name);
		}
		/* The stacks of all blocked tasks, also of kernel threads. */
		put("/proc", "sysrq-trigger", "w");
	}
	fflush(stdout);
	try("to thaw", thaw);
	try("to lift limits", lift_limits);
	for (i = 0; i < TASKS; i++)
		if (sh->tasks[i].pid)
			kill(sh->tasks[i].pid, SIGKILL);
	for (i = 0; i < 200 * slow; i++) {
		if (!reap())
			return 1;
		usleep(100000);
	}
	printf("tasks that could not be killed:\n");
	for (i = 0; i < TASKS; i++)
		show_task(i, 0);
	put("/proc", "sysrq-trigger", "w");
	return 1;
}

/* Handles the end of a task. Returns false if it ended with an error. */
static bool ended(unsigned int nr, int status)
{
	struct task *task = &sh->tasks[nr];
	bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;

	store(task->pid, 0);
	store(task->since, 0);
	store(task->open, -1);
	if (killed && nr < MORTALS) {
		add_count(KILLED, 0, 1);
	} else if (status) {
		printf("%s ended with status %#x\n", roles[nr].name, status);
		return false;
	}
	/* A task that ends before the stop is started again. */
	task->over = !going_on();
	if (!task->over)
		start(nr);
	return true;
}

static bool enough(bool print)
{
	bool all = true;
	unsigned int op;

	for (op = 0; op < OPS; op++) {
		if (sh->counts[op][0] >= ops[op].least || (ops[op].rust_only && !rust))
			continue;
		if (print)
			printf("too few: %s, %u of %u\n", ops[op].name, sh->counts[op][0],
			       ops[op].least);
		all = false;
	}
	return all;
}

static int supervise(double seconds)
{
	const uint64_t stuck_ms = 40000 * slow, begun = now_ms();
	uint64_t end = begun + seconds * 1000, limit = end + 60000 * slow, since;
	unsigned int i, running;
	int status;
	pid_t pid;

	for (i = 0; i < LASTING; i++)
		start(i);
	for (;;) {
		while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
			for (i = 0; i < TASKS && sh->tasks[i].pid != pid; i++)
				;
			if (i < TASKS && !ended(i, status))
				return give_up(false);
		}
		for (i = 0, running = 0; i < TASKS; i++) {
			running += sh->tasks[i].pid != 0;
			since = load(sh->tasks[i].since);
			if (sh->tasks[i].pid && since && now_ms() > since + stuck_ms) {
				printf("%s is stuck\n", roles[i].name);
				return give_up(true);
			}
		}
		if (going_on() && now_ms() >= end && (enough(false) || now_ms() >= limit)) {
			printf("stopped after %llu ms\n", (unsigned long long)(now_ms() - begun));
			store(sh->stop, 1);
		}
		if (!running) {
			if (sh->tasks[LASTING].over)
				break;
			start(LASTING);
		}
		usleep(50000);
	}
	return 0;
}

static void set_names(const char *dir, const char *other, const char *mem)
{
	static const char *const names[SLOTS] = {
		"data0", "data1", "data2", "data3", "shift", "rdonly", "churn"
	};
	unsigned int i;

	for (i = 0; i < SLOTS; i++)
		snprintf(file_names[i], sizeof(file_names[i]), "%s/%s",
			 i == 2 || i == RDONLY || i == CHURN ? other : i == MEMORY ? mem : dir,
			 names[i]);
	snprintf(second_name, sizeof(second_name), "%s/rdonly2", mem);
}

static void map_model(bool create)
{
	int fd = open(model_name, O_RDWR | O_CLOEXEC | (create ? O_CREAT | O_TRUNC : 0), 0600);

	if (fd < 0 || (create && ftruncate(fd, sizeof(*sh))))
		die("%s: %m", model_name);
	sh = mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (sh == MAP_FAILED)
		die("mmap: %m");
	close(fd);
}

static void make_file(int slot, const char *name, struct stat *st)
{
	unsigned int i, n = slot_blocks(slot);
	/* Generation 1 is a hole. Files that are read before they are written get data. */
	uint32_t gen = slot == SHIFT || slot == RDONLY ? 2 : 1;
	uint64_t *buf = blocks(1);
	int fd = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || ftruncate(fd, (off_t)n * BLOCK) || fstat(fd, st))
		die("%s: %m", name);
	for (i = 0; i < n; i++) {
		sh->blocks[slot][i] = (struct model) { gen, gen, gen };
		if (gen & 1)
			continue;
		fill(buf, slot, i, gen);
		if (pwrite(fd, buf, BLOCK, (off_t)i * BLOCK) != BLOCK)
			die("%s: %m", name);
	}
	if (fsync(fd) || close(fd))
		die("%s: %m", name);
	free(buf);
}

static int run(char **argv)
{
	unsigned int slot, op, i;
	struct stat st;
	int ret;

	rust = !strcmp(argv[0], "loop_rs");
	set_names(argv[1], argv[2], argv[3]);
	cgroup_dir = argv[4];
	model_name = argv[5];
	seed = number(argv[7]);
	slow = number(argv[8]);
	map_model(true);
	sh->salt = (seed * 0x9e3779b97f4a7c15ull >> 53) | 1;
	for (i = 0; i < 2; i++) {
		dir_fds[i] = open(argv[1 + i], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (dir_fds[i] < 0 || fstat(dir_fds[i], &st))
			die("%s: %m", argv[1 + i]);
		disks[i] = st.st_dev;
	}
	for (slot = 0; slot < SLOTS; slot++) {
		sh->slots[slot].number = -1;
		make_file(slot, file_names[slot], &file_stats[slot]);
	}
	make_file(RDONLY, second_name, &second_stat);
	for (i = 0; i < TASKS; i++)
		sh->tasks[i].open = -1;
	control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	if (control < 0)
		die("/dev/loop-control: %m");
	printf("seed %s\n", argv[7]);
	ret = supervise(atof(argv[6]));
	for (op = 0; op < OPS; op++)
		for (i = 0; i < 256; i++)
			if (sh->counts[op][i])
				printf("%s %s %u\n", ops[op].name, i ? strerrorname_np(i) : "ok",
				       sh->counts[op][i]);
	printf("%llu blocks verified\n", (unsigned long long)sh->verified);
	if (!ret)
		enough(true);
	return ret;
}

static int verify(char **argv)
{
	static struct task task = { .slot = -1, .open = -1 };
	int slot;

	me = &task;
	model_name = argv[0];
	set_names(argv[1], argv[2], argv[3]);
	map_model(false);
	for (slot = 0; slot < SLOTS; slot++)
		check_files(slot);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 11 && !strcmp(argv[1], "run"))
		return run(argv + 2);
	if (argc == 6 && !strcmp(argv[1], "verify"))
		return verify(argv + 2);
	fprintf(stderr, "usage: loop_chaos run DRIVER DIR OTHER MEM CGROUP MODEL SECONDS SEED SLOW\n"
			"       loop_chaos verify MODEL DIR OTHER MEM\n");
	return 2;
}
