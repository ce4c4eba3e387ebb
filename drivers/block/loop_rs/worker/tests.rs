// SPDX-License-Identifier: GPL-2.0

//! Unit tests of the set of cgroup queues, with workers and the reaper.

use kernel::prelude::*;

#[kunit_tests(loop_rs_slots)]
mod suite {
    use super::super::*;
    use crate::{policy::tags::TagCharge, slots::Reaped};
    use kernel::time::{delay::fsleep, Delta};
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

    /// A pool whose own timer does not come into the tests, and a reaper that waits for as little as
    /// it can.
    fn pool_and_reaper() -> Result<(PoolOwner, Reaper)> {
        let pool = Pool::new(msecs_to_jiffies(3_600_000))?;
        let reaper = Reaper {
            slots: pool.slots.clone(),
            timeout: 1,
        };
        Ok((PoolOwner(pool), reaper))
    }

    /// Has what is idle reaped. What became idle again, or has I/O in flight, goes to the end of the
    /// list, where it can hide others until the next time.
    fn reap(reaper: &Reaper) {
        for _ in 0..3 {
            fsleep(Delta::from_millis(10));
            reaper.expired();
        }
    }

    /// What a slot in the tree should be like; those that are not there are `None`.
    #[derive(Clone, Copy)]
    struct Model {
        scheduled: bool,
        tags: u32,
    }

    fn find(pool: &Arc<Pool>, id: usize) -> SlotId {
        let mut inner = pool.slots.inner.lock();
        pool.as_arc_borrow().find_slot_of(&mut inner, id, None)
    }

    fn worker(pool: &Arc<Pool>, id: usize) -> Result<Arc<Worker>> {
        let inner = pool.slots.inner.lock();
        let slot = inner.tree.get(&id).ok_or(ENOENT)?;
        Ok(slot.worker.clone())
    }

    fn set_scheduled(pool: &Arc<Pool>, id: usize) -> Result {
        let mut inner = pool.slots.inner.lock();
        inner.tree.get_mut(&id).ok_or(ENOENT)?.scheduled = true;
        Ok(())
    }

    /// Whether the tree is as the model has it.
    fn agree(pool: &Arc<Pool>, model: &[Option<Model>]) -> bool {
        let inner = pool.slots.inner.lock();
        let mut ids = inner.tree.keys().copied();
        for (id, expected) in model.iter().enumerate() {
            let Some(expected) = expected else { continue };
            let Some(slot) = inner.tree.get(&id) else {
                return false;
            };
            if ids.next() != Some(id)
                || slot.worker.id != SlotId::Css(id)
                || slot.scheduled != expected.scheduled
                || slot.tags.get() != expected.tags
            {
                return false;
            }
        }
        let all: u32 = model.iter().flatten().map(|slot| slot.tags).sum();
        ids.next().is_none() && inner.shared.tags.get() == all
    }

    #[test]
    fn a_slot_is_made_once() -> Result {
        let (pool, _) = pool_and_reaper()?;
        assert!(find(&pool, 7) == SlotId::Css(7));
        let first = worker(&pool, 7)?;
        assert!(find(&pool, 7) == SlotId::Css(7));
        assert!(Arc::ptr_eq(&first, &worker(&pool, 7)?));
        assert!(pool.slots.inner.lock().shared.fallbacks == 0);
        Ok(())
    }

    #[test]
    fn what_has_not_been_idle_for_long_stays() -> Result {
        let (pool, _) = pool_and_reaper()?;
        find(&pool, 1);
        let reaper = Reaper {
            slots: pool.slots.clone(),
            timeout: msecs_to_jiffies(3_600_000),
        };
        assert!(matches!(reaper.reap(), Reaped::Later(_)));
        assert!(reaper.expired().is_some());
        assert!(pool.slots.inner.lock().tree.get(&1).is_some());
        Ok(())
    }

    #[test]
    fn a_scheduled_slot_is_reaped_when_it_is_idle() -> Result {
        let (pool, reaper) = pool_and_reaper()?;
        find(&pool, 1);
        set_scheduled(&pool, 1)?;
        reap(&reaper);
        assert!(worker(&pool, 1)?.take().is_none());
        reap(&reaper);
        assert!(pool.slots.inner.lock().tree.get(&1).is_none());
        Ok(())
    }

    /// Random operations, compared with a model after each of them.
    #[test]
    fn slots_come_and_go_as_in_a_model() -> Result {
        const IDS: usize = 24;
        let (pool, reaper) = pool_and_reaper()?;
        let mut model = [None; IDS];
        let mut held: KVec<(usize, TagCharge)> = KVec::new();
        let mut rng = Rng(0x6c6f_6f70_5f72_7321);
        let mut reaped = 0;
        for _ in 0..5_000 {
            let id = rng.below(IDS as u64) as usize;
            match rng.below(32) {
                // A request comes, and may keep its tag for a while.
                0..12 => {
                    assert!(find(&pool, id) == SlotId::Css(id));
                    let slot = model[id].get_or_insert(Model {
                        scheduled: false,
                        tags: 0,
                    });
                    if held.len() < 16 && rng.below(2) == 0 {
                        let mut inner = pool.slots.inner.lock();
                        let (real, shared) = inner.slot(SlotId::Css(id)).ok_or(ENOENT)?;
                        let mut kept = TagCharge::none();
                        real.tags.charge(&mut shared.tags, &mut kept);
                        drop(inner);
                        held.push((id, kept), GFP_KERNEL)?;
                        slot.tags += 1;
                    }
                }
                // A request ends.
                12..16 if !held.is_empty() => {
                    let at = rng.below(held.len() as u64) as usize;
                    let (id, kept) = held.remove(at).map_err(|_| EINVAL)?;
                    drop(kept);
                    // Its slot must not have gone before.
                    let slot = model[id].as_mut().ok_or(ENOENT)?;
                    slot.tags -= 1;
                }
                16..20 => {
                    if let Some(slot) = &mut model[id] {
                        slot.scheduled = true;
                        set_scheduled(&pool, id)?;
                    }
                }
                // The worker finds that nothing waits.
                20..31 => {
                    if let Some(slot) = model[id].as_mut().filter(|slot| slot.scheduled) {
                        slot.scheduled = false;
                        assert!(worker(&pool, id)?.take().is_none());
                    }
                }
                _ => {
                    reap(&reaper);
                    for slot in &mut model {
                        if slot.is_some_and(|slot: Model| !slot.scheduled && slot.tags == 0) {
                            *slot = None;
                            reaped += 1;
                        }
                    }
                }
            }
            assert!(agree(&pool, &model));
        }
        assert!(reaped > 100);
        assert!(pool.slots.inner.lock().shared.fallbacks == 0);
        Ok(())
    }
}
