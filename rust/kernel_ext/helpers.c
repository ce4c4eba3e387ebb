// SPDX-License-Identifier: GPL-2.0
/*
 * C functions for inline functions and macros that bindgen cannot translate.  A wrapper has no
 * logic, except for those that are a variant of a function that the kernel does not export or
 * have: they name it.
 */

#include "compat.h"

#include <linux/blk-mq.h>
#include <linux/blkdev.h>
#include <linux/bottom_half.h>
#include <linux/cgroup.h>
#include <linux/cpumask.h>
#include <linux/dcache.h>
#include <linux/device.h>
#include <linux/fs.h>
#include <linux/ioprio.h>
#include <linux/irqflags.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/lockdep.h>
#include <linux/memcontrol.h>
#include <linux/mutex.h>
#include <linux/pagemap.h>
#include <linux/percpu-refcount.h>
#include <linux/preempt.h>
#include <linux/printk.h>
#include <linux/ratelimit.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/spinlock.h>
#include <linux/wait.h>
#include <linux/wait_bit.h>

/* Sets the lock classes of a queue, and of its tag set if that is blocking. */
void rust_helper_blk_mq_set_lock_classes(struct request_queue *q,
					 struct lock_class_key *srcu,
					 struct lock_class_key *elevator)
{
#ifdef CONFIG_DEBUG_LOCK_ALLOC
	if (q->tag_set->srcu)
		lockdep_set_class(q->tag_set->srcu, srcu);
	lockdep_set_class(&q->elevator_lock, elevator);
#endif
}

void rust_helper_css_get(struct cgroup_subsys_state *css)
{
	css_get(css);
}

void rust_helper_css_put(struct cgroup_subsys_state *css)
{
	css_put(css);
}

struct mem_cgroup *
rust_helper_set_active_memcg(struct mem_cgroup *memcg)
{
	return set_active_memcg(memcg);
}

struct mem_cgroup *
rust_helper_mem_cgroup_from_css(struct cgroup_subsys_state *css)
{
	return mem_cgroup_from_css(css);
}

void rust_helper_kiocb_start_write(struct kiocb *iocb)
{
	kiocb_start_write(iocb);
}

/*
 * As kiocb_start_write(), but false if the file system is frozen: for
 * include/linux/fs.h (Christian Brauner), and io_uring, which has its own.
 */
bool rust_helper_kiocb_start_write_trylock(struct kiocb *iocb)
{
	struct super_block *sb = file_inode(iocb->ki_filp)->i_sb;

	if (!sb_start_write_trylock(sb))
		return false;
	/* Another task may end the write. */
	__sb_writers_release(sb, SB_FREEZE_WRITE);
	return true;
}

void rust_helper_kiocb_end_write(struct kiocb *iocb)
{
	kiocb_end_write(iocb);
}

void rust_helper_file_start_write(struct file *file)
{
	file_start_write(file);
}

void rust_helper_file_end_write(struct file *file)
{
	file_end_write(file);
}

loff_t rust_helper_i_size_read(const struct inode *inode)
{
	return i_size_read(inode);
}

struct queue_limits
rust_helper_queue_limits_start_update(struct request_queue *q)
{
	return queue_limits_start_update(q);
}

void rust_helper_queue_limits_cancel_update(struct request_queue *q)
{
	queue_limits_cancel_update(q);
}

void rust_helper_dev_set_uevent_suppress(struct device *dev, int val)
{
	dev_set_uevent_suppress(dev, val);
}

void rust_helper_device_lock(struct device *dev)
{
	device_lock(dev);
}

void rust_helper_device_unlock(struct device *dev)
{
	device_unlock(dev);
}

unsigned int rust_helper_kref_read(const struct kref *kref)
{
	return kref_read(kref);
}

unsigned int rust_helper_disk_openers(struct gendisk *disk)
{
	return disk_openers(disk);
}

unsigned int
rust_helper_bdev_logical_block_size(struct block_device *bdev)
{
	return bdev_logical_block_size(bdev);
}

unsigned int
rust_helper_bdev_dma_alignment(struct block_device *bdev)
{
	return bdev_dma_alignment(bdev);
}

unsigned int
rust_helper_bdev_write_zeroes_sectors(struct block_device *bdev)
{
	return bdev_write_zeroes_sectors(bdev);
}

unsigned int
rust_helper_bdev_discard_granularity(struct block_device *bdev)
{
	return bdev_discard_granularity(bdev);
}

bool rust_helper_bdev_rot(struct block_device *bdev)
{
	return bdev_rot(bdev);
}

bool rust_helper_bdev_read_only(struct block_device *bdev)
{
	return bdev_read_only(bdev);
}

struct inode *rust_helper_d_real_inode(const struct dentry *dentry)
{
	return d_real_inode(dentry);
}

sector_t rust_helper_get_capacity(struct gendisk *disk)
{
	return get_capacity(disk);
}

bool rust_helper_mapping_stable_writes(const struct address_space *mapping)
{
	return mapping_stable_writes(mapping);
}

void rust_helper_bio_advance(struct bio *bio, unsigned int nbytes)
{
	bio_advance(bio, nbytes);
}

bool rust_helper_percpu_ref_tryget_live(struct percpu_ref *ref)
{
	return percpu_ref_tryget_live(ref);
}

void rust_helper_percpu_ref_put(struct percpu_ref *ref)
{
	percpu_ref_put(ref);
}

/* As blk_print_req_error(), of a bio that has no request. */
void rust_helper_blk_print_bio_error(struct bio *bio, const char *status,
				     sector_t sector, blk_opf_t opf)
{
	unsigned int segments = 0;
	struct bio *next;

	if (bio_flagged(bio, BIO_QUIET) ||
	    test_bit(GD_DEAD, &bio->bi_bdev->bd_disk->state))
		return;
	for (next = bio; next; next = next->bi_next)
		segments += bio_segments(next);
	printk_ratelimited(KERN_ERR
		"%s error, dev %s, sector %llu op 0x%x:(%s) flags 0x%x phys_seg %u prio class %u\n",
		status, bio->bi_bdev->bd_disk->disk_name, sector,
		(__force u32)(opf & REQ_OP_MASK),
		blk_op_str((__force enum req_op)(opf & REQ_OP_MASK)),
		(__force u32)(opf & ~REQ_OP_MASK), segments,
		IOPRIO_PRIO_CLASS(bio->bi_ioprio));
}

/* As __bio_queue_enter() waits, but without entering. */
void rust_helper_blk_wait_unfrozen(struct request_queue *q)
{
	/* Pairs with the barrier in blk_freeze_queue_start(). */
	smp_rmb();
	wait_event_idle(q->mq_freeze_wq,
			!q->mq_freeze_depth ||
			test_bit(GD_DEAD, &q->disk->state));
}

void rust_helper_atomic_dec_and_wake_up(atomic_t *count)
{
	atomic_dec_and_wake_up(count);
}

void rust_helper_wait_until_zero(atomic_t *count)
{
	wait_var_event(count, !atomic_read_acquire(count));
}

void rust_helper_local_bh_disable(void)
{
	local_bh_disable();
}

void rust_helper_local_bh_enable(void)
{
	local_bh_enable();
}

/* Whether the caller may use local_bh_enable(): in a task, with interrupts enabled. */
bool rust_helper_can_enable_bh(void)
{
	return in_task() && !irqs_disabled();
}

void rust_helper_blk_mq_end_request_bh(struct request *rq, blk_status_t error)
{
	bool task = in_task() && !irqs_disabled();

	if (task)
		local_bh_disable();
	blk_mq_end_request(rq, error);
	if (task)
		local_bh_enable();
}

struct folio *rust_helper_page_folio(struct page *page)
{
	return page_folio(page);
}

void rust_helper_iov_iter_truncate(struct iov_iter *iter, u64 count)
{
	iov_iter_truncate(iter, count);
}

void rust_helper_folio_put(struct folio *folio)
{
	folio_put(folio);
}

bool rust_helper_wake_page_match(struct wait_page_queue *wait_page,
				 struct wait_page_key *key)
{
	return wake_page_match(wait_page, key);
}

void rust_helper_list_del_init(struct list_head *entry)
{
	list_del_init(entry);
}

bool rust_helper_in_task(void)
{
	return in_task();
}

int rust_helper_cond_resched(void)
{
	return cond_resched();
}

int rust_helper_mutex_lock_killable(struct mutex *lock)
{
	return mutex_lock_killable(lock);
}

unsigned int rust_helper_num_online_cpus(void)
{
	return num_online_cpus();
}

unsigned long rust_helper_rlimit(unsigned int limit)
{
	return rlimit(limit);
}

bool rust_helper_IS_SYNC(const struct inode *inode)
{
	return IS_SYNC(inode);
}

/* For kernels without the kernel crate's SpinLockIrq: see compat.rs. */
unsigned long rust_helper_compat_spin_lock_irqsave(spinlock_t *lock)
{
	unsigned long flags;

	spin_lock_irqsave(lock, flags);
	return flags;
}

void rust_helper_compat_spin_unlock_irqrestore(spinlock_t *lock, unsigned long flags)
{
	spin_unlock_irqrestore(lock, flags);
}

bool rust_helper_compat_spin_trylock_irqsave(spinlock_t *lock, unsigned long *flags)
{
	return spin_trylock_irqsave(lock, *flags);
}

/*
 * On a preemptible kernel, only synchronize_rcu_tasks() waits for tasks that were preempted in a
 * module's code: see ExitBarrier in module.rs.
 */
#if defined(CONFIG_PREEMPTION) && !defined(CONFIG_TASKS_RCU)
#error "loop_rs needs CONFIG_TASKS_RCU (NEED_TASKS_RCU) on a preemptible kernel"
#endif

#ifndef CONFIG_TASKS_RCU
void rust_helper_synchronize_rcu_tasks(void)
{
	synchronize_rcu();
}
#endif
