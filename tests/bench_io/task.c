// SPDX-License-Identifier: GPL-2.0
/*
 * A task that does I/O.
 */
#include "bench_io.h"

#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <linux/io_uring.h>
#include <sys/syscall.h>

static void fail(const char *where, int error)
{
	if (!shared->error) {
		snprintf(shared->where, sizeof(shared->where), "%s", where);
		shared->error = error ? error : EIO;
	}
	_exit(1);
}

static uint64_t seed, sequence, first_block, blocks;

static uint64_t next_offset(void)
{
	uint64_t at;

	if (sequential) {
		at = first_block + sequence++ % blocks;
	} else {
		/* xorshift64 */
		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		at = (seed >> 11) % blocks;
	}
	return at * block;
}

static int next_is_write(void)
{
	static unsigned int n;

	/* Reads and writes in a fixed order. */
	return write_percent == 100 || (write_percent && n++ * 37 % 100 < (unsigned int)write_percent);
}

static inline void account(int i, uint64_t since)
{
	uint64_t n = shared->task[i].done, ns = now() - since;

	samples[i * sample_max + n % sample_max] = ns > UINT32_MAX ? UINT32_MAX : ns;
	shared->task[i].done = n + 1;
}

static void one_sync(int fd, void *buf)
{
	uint64_t offset = next_offset();

	if (discard) {
		uint64_t range[2] = { offset, block };

		if (ioctl(fd, BLKDISCARD, range))
			fail("discard", errno);
	} else if (next_is_write()) {
		if (pwrite(fd, buf, block, offset) != (ssize_t)block)
			fail("write", errno);
		if (do_fsync && fsync(fd))
			fail("fsync", errno);
	} else if (pread(fd, buf, block, offset) != (ssize_t)block) {
		fail("read", errno);
	}
}

static void task_sync(int i, int fd, void *buf)
{
	while (!shared->stop && (!count || shared->task[i].done < count)) {
		uint64_t since = now();

		one_sync(fd, buf);
		account(i, since);
	}
}

static void task_aio(int i, int fd, char *buf)
{
	struct iocb *iocbs = calloc(depth, sizeof(*iocbs)), *list[BATCH_MAX];
	struct io_event *events = calloc(depth, sizeof(*events));
	uint64_t *since = calloc(depth, sizeof(*since)), issued = 0;
	int *free_slots = calloc(depth, sizeof(*free_slots)), nr_free = depth, flying = 0, k;
	aio_context_t ctx = 0;

	if (!iocbs || !events || !since || !free_slots || syscall(SYS_io_setup, depth, &ctx))
		fail("io_setup", errno);
	for (k = 0; k < depth; k++)
		free_slots[k] = k;
	for (;;) {
		int over = shared->stop || (count && issued >= count), n;

		while (nr_free && !over) {
			for (n = 0; n < batch && nr_free && (!count || issued < count); n++, issued++) {
				int slot = free_slots[--nr_free];
				struct iocb *io = &iocbs[slot];

				io->aio_data = slot;
				io->aio_lio_opcode = next_is_write() ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD;
				io->aio_fildes = fd;
				io->aio_buf = (uintptr_t)(buf + slot * block);
				io->aio_nbytes = block;
				io->aio_offset = next_offset();
				since[slot] = now();
				list[n] = io;
			}
			for (k = 0; k < n;) {
				int done = syscall(SYS_io_submit, ctx, n - k, list + k);

				if (done <= 0)
					fail("io_submit", errno);
				k += done;
			}
			flying += n;
			over = count && issued >= count;
		}
		if (!flying)
			break;
		n = syscall(SYS_io_getevents, ctx, batch < flying ? batch : flying, depth, events, NULL);
		if (n <= 0)
			fail("io_getevents", errno);
		for (k = 0; k < n; k++) {
			if (events[k].res != (int64_t)block)
				fail("I/O", events[k].res < 0 ? -events[k].res : EIO);
			account(i, since[events[k].data]);
			free_slots[nr_free++] = events[k].data;
		}
		flying -= n;
	}
}

struct ring {
	int fd;
	unsigned int *sq_tail, *sq_array, sq_mask, *cq_head, *cq_tail, cq_mask;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
};

static char *ring_map(int fd, size_t bytes, off_t offset)
{
	char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, offset);

	if (p == MAP_FAILED)
		fail("mmap of a ring", errno);
	return p;
}

static void ring_init(struct ring *r)
{
	struct io_uring_params p = {
		.flags = IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
	};
	char *sq, *cq;
	unsigned int k;

	r->fd = syscall(SYS_io_uring_setup, depth, &p);
	if (r->fd < 0)
		fail("io_uring_setup", errno);
	sq = ring_map(r->fd, p.sq_off.array + p.sq_entries * sizeof(*r->sq_array), IORING_OFF_SQ_RING);
	cq = ring_map(r->fd, p.cq_off.cqes + p.cq_entries * sizeof(*r->cqes), IORING_OFF_CQ_RING);
	r->sqes = (void *)ring_map(r->fd, p.sq_entries * sizeof(*r->sqes), IORING_OFF_SQES);
	r->sq_tail = (void *)(sq + p.sq_off.tail);
	r->sq_array = (void *)(sq + p.sq_off.array);
	r->sq_mask = p.sq_entries - 1;
	r->cq_head = (void *)(cq + p.cq_off.head);
	r->cq_tail = (void *)(cq + p.cq_off.tail);
	r->cq_mask = p.cq_entries - 1;
	r->cqes = (void *)(cq + p.cq_off.cqes);
	for (k = 0; k < p.sq_entries; k++)
		r->sq_array[k] = k;
}

static void ring_enter(struct ring *r, unsigned int submit, unsigned int wait)
{
	int done;

	do {
		done = syscall(SYS_io_uring_enter, r->fd, submit, wait,
			       wait ? IORING_ENTER_GETEVENTS : 0, NULL, 0);
	} while (done < 0 && errno == EINTR);
	if (done != (int)submit)
		fail("io_uring_enter", done < 0 ? errno : EIO);
}

static void task_uring(int i, int fd, char *buf)
{
	uint64_t *since = calloc(depth, sizeof(*since)), issued = 0;
	int *free_slots = calloc(depth, sizeof(*free_slots)), nr_free = depth, flying = 0, k;
	struct ring r;

	if (!since || !free_slots)
		fail("calloc", errno);
	ring_init(&r);
	for (k = 0; k < depth; k++)
		free_slots[k] = k;
	for (;;) {
		int over = shared->stop || (count && issued >= count), n;
		unsigned int head, tail;

		while (nr_free && !over) {
			for (n = 0; n < batch && nr_free && (!count || issued < count); n++, issued++) {
				int slot = free_slots[--nr_free];
				struct io_uring_sqe *sqe = &r.sqes[*r.sq_tail & r.sq_mask];

				memset(sqe, 0, sizeof(*sqe));
				sqe->opcode = next_is_write() ? IORING_OP_WRITE : IORING_OP_READ;
				sqe->fd = fd;
				sqe->off = next_offset();
				sqe->addr = (uintptr_t)(buf + slot * block);
				sqe->len = block;
				sqe->user_data = slot;
				since[slot] = now();
				__atomic_store_n(r.sq_tail, *r.sq_tail + 1, __ATOMIC_RELEASE);
			}
			ring_enter(&r, n, 0);
			flying += n;
			over = count && issued >= count;
		}
		if (!flying)
			break;
		ring_enter(&r, 0, batch < flying ? batch : flying);
		head = *r.cq_head;
		tail = __atomic_load_n(r.cq_tail, __ATOMIC_ACQUIRE);
		for (; head != tail; head++, flying--) {
			struct io_uring_cqe *cqe = &r.cqes[head & r.cq_mask];

			if (cqe->res != (int64_t)block)
				fail("I/O", cqe->res < 0 ? -cqe->res : EIO);
			account(i, since[cqe->user_data]);
			free_slots[nr_free++] = cqe->user_data;
		}
		__atomic_store_n(r.cq_head, head, __ATOMIC_RELEASE);
	}
}

void task(int i, int go, int ready, int finished, int over)
{
	int fd = open(path, ((write_percent || discard) ? O_RDWR : O_RDONLY) | (direct ? O_DIRECT : 0));
	uint64_t all = size / block, k;
	char *buf, c;

	if (fd < 0)
		fail("open", errno);
	blocks = all;
	if (sequential) {
		/* Each task has a part of the file. */
		blocks = all / tasks ? all / tasks : 1;
		first_block = blocks * i;
	}
	seed = 88172645463325252ULL + i * 2654435761ULL;
	buf = mmap(NULL, depth * block, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (buf == MAP_FAILED)
		fail("mmap", errno);
	for (k = 0; k < depth * block; k++)
		buf[k] = k * 7 + i;
	for (k = 0; k < sample_max; k += 1024)
		samples[i * sample_max + k] = 1;

	one_sync(fd, buf);
	if (write(ready, "", 1) != 1)
		fail("write to a pipe", errno);
	/* Returns 0 when no process has the other end open any more. */
	if (read(go, &c, 1) != 0)
		fail("read from a pipe", errno);
	if (uring)
		task_uring(i, fd, buf);
	else if (depth == 1)
		task_sync(i, fd, buf);
	else
		task_aio(i, fd, buf);
	if (write(finished, "", 1) != 1)
		fail("write to a pipe", errno);
	/* Wait: exits are not to be measured. */
	if (read(over, &c, 1) != 0)
		_exit(1);
	_exit(0);
}
