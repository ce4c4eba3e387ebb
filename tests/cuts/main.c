// SPDX-License-Identifier: GPL-2.0
/*
 * Writes files and blocks, and checks them after a simulated power cut, for the tests of the loop
 * driver.
 *
 *   loop_cuts write DIR WRITER STEPS MAPPED
 *	does steps 0, 1, ... in DIR; after the sync of each step adds the mark "WRITER-STEP" to the
 *	log of the device-mapper device MAPPED
 *   loop_cuts check DIR WRITER LAST
 *	DIR must have all data of the steps up to LAST (-1: none), any part of the next step, and
 *	nothing of later steps
 *   loop_cuts fill DEV WRITER
 *	fills the part of WRITER on DEV with the contents before step 0
 *   loop_cuts change DEV WRITER STEPS MAPPED
 *   loop_cuts verify DEV WRITER LAST
 *	like "write" and "check", with the part of WRITER on DEV instead of files
 *
 * The steps of a file: create it, append to it, overwrite a part of it, replace it by another file.
 * The contents depend on the writer, the file and the generation: 0 for the first two steps, 1 for
 * the overwritten part, 2 for the other file.
 *
 * A step of a device writes some of its blocks, zeroes blocks (with their space kept or freed), or
 * discards blocks, which become zeroes on a loop device, too; then it syncs.
 */
#include "cuts.h"

#include <linux/dm-ioctl.h>
#include <sys/ioctl.h>

uint8_t buf[MAX_SIZE + BLOCK] __attribute__((aligned(BLOCK)));
uint8_t model[2][MAX_SIZE + BLOCK];

/* Closes a file that was synced with the result @synced. */
void done(int fd, int synced, const char *name)
{
	if (synced || close(fd))
		die("sync %s: %m", name);
}

/* By ioctl: dmsetup takes longer than a step. */
void mark(int control, const char *mapped, int writer, int nr)
{
	static union {
		struct dm_ioctl head;
		char room[1024];
	} arg;
	struct dm_target_msg *msg = (void *)(arg.room + sizeof(arg.head));

	memset(&arg, 0, sizeof(arg));
	arg.head.version[0] = DM_VERSION_MAJOR;
	arg.head.data_size = sizeof(arg);
	arg.head.data_start = sizeof(arg.head);
	snprintf(arg.head.name, sizeof(arg.head.name), "%s", mapped);
	snprintf(msg->message, sizeof(arg) - sizeof(arg.head) - sizeof(*msg),
		 "mark %d-%d", writer, nr);
	if (ioctl(control, DM_TARGET_MSG, &arg))
		die("mark %d-%d: %m", writer, nr);
}

int main(int argc, char **argv)
{
	if (argc == 6 && !strcmp(argv[1], "write"))
		return write_all(argv[2], number(argv[3]), number(argv[4]),
				 argv[5]);
	if (argc == 5 && !strcmp(argv[1], "check"))
		return check_all(argv[2], number(argv[3]), number(argv[4]));
	if (argc == 4 && !strcmp(argv[1], "fill"))
		return fill_part(argv[2], number(argv[3]));
	if (argc == 6 && !strcmp(argv[1], "change"))
		return change_all(argv[2], number(argv[3]), number(argv[4]), argv[5]);
	if (argc == 5 && !strcmp(argv[1], "verify"))
		return verify_part(argv[2], number(argv[3]), number(argv[4]));
	printf("usage: loop_cuts write DIR WRITER STEPS MAPPED\n"
	       "       loop_cuts check DIR WRITER LAST\n"
	       "       loop_cuts fill DEV WRITER\n"
	       "       loop_cuts change DEV WRITER STEPS MAPPED\n"
	       "       loop_cuts verify DEV WRITER LAST\n");
	return 2;
}
