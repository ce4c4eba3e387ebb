// SPDX-License-Identifier: GPL-2.0
/*
 * "loop_edges batch": reads of two devices in one submission, by Linux AIO or io_uring.
 */
#include "edges.h"

#include <linux/aio_abi.h>
#include <linux/io_uring.h>
#include <sys/syscall.h>

/* The minimum number of batches: on a debug kernel one can take longer than the race. */
#define MIN_BATCHES	3

struct io {
	int fd;
	uint64_t pos;
	int32_t res;
};

static struct {
	aio_context_t ctx;
	struct iocb iocbs[BATCH];
} aio;

static void aio_start(void)
{
	if (syscall(SYS_io_setup, BATCH, &aio.ctx))
		die("io_setup: %m");
}

static void aio_batch(struct io *io, uint8_t *buf)
{
	struct iocb *list[BATCH];
	struct io_event events[BATCH];
	long i, n, r;

	for (i = 0; i < BATCH; i++) {
		aio.iocbs[i] = (struct iocb) {
			.aio_data = i,
			.aio_lio_opcode = IOCB_CMD_PREAD,
			.aio_fildes = io[i].fd,
			.aio_buf = (uintptr_t)buf + i * BLOCK,
			.aio_nbytes = BLOCK,
			.aio_offset = io[i].pos,
		};
		list[i] = &aio.iocbs[i];
	}
	for (n = 0; n < BATCH; n += r) {
		r = syscall(SYS_io_submit, aio.ctx, BATCH - n, list + n);
		if (r <= 0)
			die("io_submit: %m");
	}
	for (n = 0; n < BATCH; n += r) {
		r = syscall(SYS_io_getevents, aio.ctx, 1l, (long)BATCH, events, NULL);
		if (r <= 0)
			die("io_getevents: %m");
		for (i = 0; i < r; i++)
			io[events[i].data].res = events[i].res;
	}
}

static struct {
	int fd;
	struct io_uring_sqe *sqes;
	uint32_t *sq_tail, *sq_mask, *sq_array;
	uint32_t *cq_head, *cq_tail, *cq_mask;
	struct io_uring_cqe *cqes;
} uring;

static void uring_start(void)
{
	struct io_uring_params p = { 0 };
	size_t sq, cq, size;
	uint8_t *ring;

	uring.fd = syscall(SYS_io_uring_setup, BATCH, &p);
	if (uring.fd < 0)
		die("io_uring_setup: %m");
	sq = p.sq_off.array + p.sq_entries * sizeof(uint32_t);
	cq = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
	size = sq > cq ? sq : cq;
	ring = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, uring.fd,
		    IORING_OFF_SQ_RING);
	uring.sqes = mmap(NULL, p.sq_entries * sizeof(struct io_uring_sqe),
			  PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, uring.fd,
			  IORING_OFF_SQES);
	if (ring == MAP_FAILED || uring.sqes == MAP_FAILED)
		die("mmap of the rings: %m");
	uring.sq_tail = (uint32_t *)(ring + p.sq_off.tail);
	uring.sq_mask = (uint32_t *)(ring + p.sq_off.ring_mask);
	uring.sq_array = (uint32_t *)(ring + p.sq_off.array);
	uring.cq_head = (uint32_t *)(ring + p.cq_off.head);
	uring.cq_tail = (uint32_t *)(ring + p.cq_off.tail);
	uring.cq_mask = (uint32_t *)(ring + p.cq_off.ring_mask);
	uring.cqes = (struct io_uring_cqe *)(ring + p.cq_off.cqes);
}

static void uring_batch(struct io *io, uint8_t *buf)
{
	uint32_t tail = *uring.sq_tail, head;
	int i, submitted = 0, done = 0;

	for (i = 0; i < BATCH; i++) {
		uint32_t at = (tail + i) & *uring.sq_mask;

		uring.sqes[at] = (struct io_uring_sqe) {
			.opcode = IORING_OP_READ,
			.fd = io[i].fd,
			.off = io[i].pos,
			.addr = (uintptr_t)buf + i * BLOCK,
			.len = BLOCK,
			.user_data = i,
		};
		uring.sq_array[at] = at;
	}
	__atomic_store_n(uring.sq_tail, tail + BATCH, __ATOMIC_RELEASE);
	while (done < BATCH) {
		int r = syscall(SYS_io_uring_enter, uring.fd, BATCH - submitted, 1,
				IORING_ENTER_GETEVENTS, NULL, 0);

		if (r < 0 && errno != EINTR)
			die("io_uring_enter: %m");
		if (r > 0)
			submitted += r;
		head = *uring.cq_head;
		while (head != __atomic_load_n(uring.cq_tail, __ATOMIC_ACQUIRE)) {
			struct io_uring_cqe *cqe = &uring.cqes[head++ & *uring.cq_mask];

			io[cqe->user_data].res = cqe->res;
			done++;
		}
		__atomic_store_n(uring.cq_head, head, __ATOMIC_RELEASE);
	}
}

int batch(const char *loop_name, uint64_t count, uint64_t seed, const char *disk_name,
		 double seconds, int use_uring)
{
	static const int places[] = { 0, BATCH / 2, BATCH - 1 };
	int loop = open_at(loop_name, O_RDONLY | O_DIRECT);
	int disk = open_at(disk_name, O_RDONLY | O_DIRECT);
	uint8_t *buf = pages(BATCH * BLOCK);
	double end = now() + seconds;
	struct io io[BATCH];
	long n = 0;
	int i;

	rng = getpid();
	if (use_uring)
		uring_start();
	else
		aio_start();
	for (; n < MIN_BATCHES || now() < end; n++) {
		int place = places[rnd(3)];

		for (i = 0; i < BATCH; i++) {
			io[i].fd = i == place ? disk : loop;
			io[i].pos = i == place ? rnd(1000) * BLOCK : left_by_fragment(count);
			io[i].res = 0;
		}
		if (use_uring)
			uring_batch(io, buf);
		else
			aio_batch(io, buf);
		for (i = 0; i < BATCH; i++) {
			if (io[i].res != (int)BLOCK)
				die("batch %ld, I/O %d: %d", n, i, io[i].res);
			if (i != place && !holds(buf + i * BLOCK, BLOCK, io[i].pos, seed))
				die("batch %ld: the block at %llu is wrong", n,
				    (unsigned long long)io[i].pos);
		}
	}
	printf("%ld\n", n);
	return 0;
}
