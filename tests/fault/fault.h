/* SPDX-License-Identifier: GPL-2.0 */
/* Shared by the files of loop_fault, which main.c describes. */
#ifndef FAULT_H
#define FAULT_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* More than the allocations of any call. */
#define MOST		2000
/* The number of the device, and how often to try until it is free. */
#define NR		40
#define TRIES		2000
#define BLOCK		4096

extern int control, nth_fd;
extern const char *file_name, *other_name;
/* The number of calls by result: 0 or an errno. */
extern unsigned int results[256];
/* A device node without a disk. */
extern char node_name[4096];

/* inject.c */
extern const int enomem[];
void die(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));
void arm(unsigned int n);
int disarm(void);
void result(int hit, int ret, const int *allowed);

/* device.c */
int open_nr(int flags);
int open_file(const char *name, int flags);
int is_bound(void);
void add(void);
void remove_nr(int nr);
void wait_until_unbound(void);
void detach(int fd);
int bound(int flags);
struct loop_info64 status(int fd);
void check_data(int fd, const char *name, off_t offset);

/* calls.c */
int configure(unsigned int n, int legacy);
int add_or_get_free(unsigned int n, int get_free);
int open_device(unsigned int n, int node);
int set_status(int fd, unsigned int n);
int get_status(int fd, unsigned int n);
int change_fd(int fd, unsigned int n);
int set_block_size(int fd, unsigned int n);
int set_direct_io(int fd, unsigned int n);
int clear(unsigned int n);

/* io.c */
int cgroup_io(const char *device, const char *dir, unsigned int n);
int detach_bios(const char *device, const char *dir);

#endif
