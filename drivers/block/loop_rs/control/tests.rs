// SPDX-License-Identifier: GPL-2.0

//! Unit tests with a disk.

use kernel::prelude::*;

#[kunit_tests(loop_rs_disk)]
mod suite {
    use super::super::*;
    use kernel_ext::block::{mq::Op, GenDisk, Queue};

    const MAX_DISCARD: u32 = 2048;

    /// Calls `f` with a new disk, whose number is the highest possible one.
    fn with_disk(f: impl FnOnce(&GenDisk<LoopOps>) -> Result) -> Result {
        let driver = Driver::new()?;
        let number = ((1 << MINORBITS) >> driver.part_shift) - 1;
        let disk = driver.make_disk(number)?;
        Arc::from(disk.data().queues()).start(c"loop_rs_kunit")?;
        f(&disk)
    }

    fn set_max_discard(queue: &Queue) -> Result {
        queue.update_limits(|limits| {
            limits.set_discard(MAX_DISCARD, 4096);
            limits.commit()
        })
    }

    /// An unsupported operation clears its own limit only. Discards and zeroing that may deallocate
    /// are one operation of a file.
    #[test]
    fn each_operation_has_its_limit() -> Result {
        with_disk(|disk| {
            let (queues, queue) = (Arc::from(disk.data().queues()), disk.queue());
            for (unmap, expected) in [(false, MAX_DISCARD), (true, 0)] {
                set_max_discard(queue)?;
                queues.spawn_clear_limit(disk, Op::WriteZeroes { unmap });
                queues.drain();
                assert_eq!(queue.max_discard_sectors(), expected);
            }
            Ok(())
        })
    }

    /// An unsupported operation clears its limit, but not if the device got another file meanwhile:
    /// that one may support the operation.
    #[test]
    fn a_limit_is_cleared_for_one_binding() -> Result {
        with_disk(|disk| {
            let (queues, queue) = (Arc::from(disk.data().queues()), disk.queue());
            for (binds_meanwhile, expected) in [(true, MAX_DISCARD), (false, 0)] {
                set_max_discard(queue)?;
                queue.update_limits(|_| {
                    // The work item waits for the lock of the limits.
                    queues.spawn_clear_limit(disk, Op::Discard);
                    if binds_meanwhile {
                        drop(queues.bind(None));
                    }
                });
                queues.drain();
                assert_eq!(queue.max_discard_sectors(), expected);
            }
            Ok(())
        })
    }
}
