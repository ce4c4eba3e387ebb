// SPDX-License-Identifier: GPL-2.0
/*
 * Processes that add, delete, scan and read partitions.
 */
#include "race.h"

#include <linux/blkpg.h>
#include <linux/fs.h>

void scanner(int unused)
{
	struct blkpg_partition part = {
		.start = 768 << 10, .length = 64 << 10, .pno = 4,
	};
	struct blkpg_ioctl_arg arg = { .datalen = sizeof(part), .data = &part };
	int fd;

	(void)unused;
	while (going_on()) {
		fd = count(OPEN, open(device, O_RDONLY | O_CLOEXEC));
		if (fd < 0)
			continue;
		count(RESCAN, ioctl(fd, BLKRRPART));
		arg.op = BLKPG_ADD_PARTITION;
		count(ADD_PARTITION, ioctl(fd, BLKPG, &arg));
		arg.op = BLKPG_DEL_PARTITION;
		count(DEL_PARTITION, ioctl(fd, BLKPG, &arg));
		close(fd);
		usleep(below(10000));
	}
}

/* The starts of the partitions in KiB: three of the table, and the added one. */
static const unsigned int starts[] = { 64, 256, 512, 768 };

void partition_reader(int unused)
{
	uint64_t *buf = block();
	char name[64];
	int fd, nr;

	(void)unused;
	while (going_on()) {
		nr = below(4);
		snprintf(name, sizeof(name), "%sp%d", device, nr + 1);
		fd = count(OPEN_PARTITION, open(name, O_RDONLY | O_DIRECT | O_CLOEXEC));
		if (fd < 0) {
			usleep(500);
			continue;
		}
		/* By the time of the open, the device number can be that of another partition. */
		if (read_block(fd, READ_PARTITION, buf, 0, 1)) {
			for (nr = 0; nr < 3 && buf[0] >> 16 != starts[nr] << 10; nr++)
				;
			verify(buf, starts[nr] << 10, 1);
		}
		close(fd);
		usleep(below(4000));
	}
}
