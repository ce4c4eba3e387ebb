// SPDX-License-Identifier: GPL-2.0

//! Unit tests of the set of cgroup queues, with workers and the reaper.

use kernel::prelude::*;

#[kunit_tests(loop_rs_queues)]
mod suite {
    use crate::{
        cgroup_queue::{CgroupQueues, Reaper, Worker},
        policy::tags::TagCharge,
        queue_set::CgroupQueuesOwner,
        reaper::Reaped,
        request_data::QueueId,
    };
    use kernel::{
        prelude::*,
        sync::Arc,
        time::{delay::fsleep, msecs_to_jiffies, Delta},
    };
    use kernel_ext::timer::Callback;

    /// A small pseudo-random number generator (xorshift).
    struct Rng(u64);

    impl Rng {
        fn below(&mut self, n: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % n
        }
    }

    /// Queues with a timer that does not expire during the tests, and a reaper with the shortest
    /// timeout.
    fn queues_and_reaper() -> Result<(CgroupQueuesOwner, Reaper)> {
        let queues = CgroupQueues::new(msecs_to_jiffies(3_600_000))?;
        let reaper = Reaper {
            queues: queues.locked.clone(),
            timeout: 1,
        };
        Ok((CgroupQueuesOwner(queues), reaper))
    }

    /// Removes all idle queues. Queues that were busy since they were listed, or have I/O in
    /// flight, move to the end of the list, where they can hide others until the next call.
    fn reap(reaper: &Reaper) {
        for _ in 0..3 {
            fsleep(Delta::from_millis(10));
            reaper.expired();
        }
    }

    /// The expected state of a queue in the tree.
    #[derive(Clone, Copy)]
    struct Model {
        scheduled: bool,
        tags: u32,
    }

    fn find(queues: &Arc<CgroupQueues>, id: usize) -> QueueId {
        let mut set = queues.lock();
        queues.as_arc_borrow().find_css(&mut set, id, None)
    }

    fn worker(queues: &Arc<CgroupQueues>, id: usize) -> Result<Arc<Worker>> {
        let set = queues.lock();
        let queue = set.tree.get(&id).ok_or(ENOENT)?;
        Ok(queue.worker.clone())
    }

    fn set_scheduled(queues: &Arc<CgroupQueues>, id: usize) -> Result {
        let mut set = queues.lock();
        set.tree.get_mut(&id).ok_or(ENOENT)?.scheduled = true;
        Ok(())
    }

    /// Whether the tree matches the model.
    fn matches_model(queues: &Arc<CgroupQueues>, model: &[Option<Model>]) -> bool {
        let set = queues.lock();
        let mut ids = set.tree.keys().copied();
        for (id, expected) in model.iter().enumerate() {
            let Some(expected) = expected else { continue };
            let Some(queue) = set.tree.get(&id) else {
                return false;
            };
            if ids.next() != Some(id)
                || queue.worker.id != QueueId::Css(id)
                || queue.scheduled != expected.scheduled
                || queue.tags.get() != expected.tags
            {
                return false;
            }
        }
        let all: u32 = model.iter().flatten().map(|queue| queue.tags).sum();
        ids.next().is_none() && set.totals.tags.get() == all
    }

    #[test]
    fn a_queue_is_created_once() -> Result {
        let (queues, _) = queues_and_reaper()?;
        assert!(find(&queues, 7) == QueueId::Css(7));
        let first = worker(&queues, 7)?;
        assert!(find(&queues, 7) == QueueId::Css(7));
        assert!(Arc::ptr_eq(&first, &worker(&queues, 7)?));
        assert!(queues.lock().totals.fallbacks == 0);
        Ok(())
    }

    /// A request is added to the root cgroup's queue if a queue of its own cannot be created. The
    /// next request of the cgroup tries again.
    #[test]
    fn without_memory_the_root_serves() -> Result {
        let (queues, _) = queues_and_reaper()?;
        for failures in 1..3 {
            let mut set = queues.lock();
            let id = queues
                .as_arc_borrow()
                .find_or_create(&mut set, 7, |_| Err(ENOMEM));
            assert!(id == QueueId::Root);
            assert!(set.tree.get(&7).is_none());
            assert!(set.totals.fallbacks == failures);
        }
        assert!(find(&queues, 7) == QueueId::Css(7));
        assert!(queues.lock().totals.fallbacks == 2);
        Ok(())
    }

    #[test]
    fn a_queue_stays_until_the_timeout() -> Result {
        let (queues, _) = queues_and_reaper()?;
        find(&queues, 1);
        let reaper = Reaper {
            queues: queues.locked.clone(),
            timeout: msecs_to_jiffies(3_600_000),
        };
        assert!(matches!(reaper.reap(), Reaped::Later(_)));
        assert!(reaper.expired().is_some());
        assert!(queues.lock().tree.get(&1).is_some());
        Ok(())
    }

    #[test]
    fn a_scheduled_queue_is_not_reaped() -> Result {
        let (queues, reaper) = queues_and_reaper()?;
        find(&queues, 1);
        set_scheduled(&queues, 1)?;
        reap(&reaper);
        assert!(worker(&queues, 1)?.take().is_none());
        reap(&reaper);
        assert!(queues.lock().tree.get(&1).is_none());
        Ok(())
    }

    /// Random operations, compared with a model after each of them.
    #[test]
    fn queues_match_a_model() -> Result {
        const IDS: usize = 24;
        let (queues, reaper) = queues_and_reaper()?;
        let mut model = [None; IDS];
        let mut held: KVec<(usize, TagCharge)> = KVec::new();
        let mut rng = Rng(0x6c6f_6f70_5f72_7321);
        let mut reaped = 0;
        for _ in 0..5_000 {
            let id = rng.below(IDS as u64) as usize;
            match rng.below(32) {
                // A request arrives, and may hold its tag for a while.
                0..12 => {
                    assert!(find(&queues, id) == QueueId::Css(id));
                    let queue = model[id].get_or_insert(Model {
                        scheduled: false,
                        tags: 0,
                    });
                    if held.len() < 16 && rng.below(2) == 0 {
                        let mut set = queues.lock();
                        let (real, totals) = set.get_mut(QueueId::Css(id)).ok_or(ENOENT)?;
                        let mut charge = TagCharge::none();
                        real.tags.charge(&mut totals.tags, &mut charge);
                        drop(set);
                        held.push((id, charge), GFP_KERNEL)?;
                        queue.tags += 1;
                    }
                }
                // A request completes.
                12..16 if !held.is_empty() => {
                    let at = rng.below(held.len() as u64) as usize;
                    let (id, charge) = held.remove(at).map_err(|_| EINVAL)?;
                    drop(charge);
                    // Its queue must not have been removed.
                    let queue = model[id].as_mut().ok_or(ENOENT)?;
                    queue.tags -= 1;
                }
                16..20 => {
                    if let Some(queue) = &mut model[id] {
                        queue.scheduled = true;
                        set_scheduled(&queues, id)?;
                    }
                }
                // The worker finds the queue empty.
                20..31 => {
                    if let Some(queue) = model[id].as_mut().filter(|queue| queue.scheduled) {
                        queue.scheduled = false;
                        assert!(worker(&queues, id)?.take().is_none());
                    }
                }
                _ => {
                    reap(&reaper);
                    for queue in &mut model {
                        if queue.is_some_and(|queue: Model| !queue.scheduled && queue.tags == 0) {
                            *queue = None;
                            reaped += 1;
                        }
                    }
                }
            }
            assert!(matches_model(&queues, &model));
        }
        assert!(reaped > 100);
        assert!(queues.lock().totals.fallbacks == 0);
        Ok(())
    }
}
