// SPDX-License-Identifier: GPL-2.0

//! Differences between two snapshots, by device and cgroup.

use crate::{
    counters::{Counters, DiskStats, Queue},
    host::{Driver, Snapshot},
};
use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

/// A cgroup on a device, a device, or all devices.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// The name of the device; empty for all devices.
    pub device: String,
    /// The path of the cgroup; `None` for a device.
    pub cgroup: Option<String>,
    /// The backing file.
    pub file: String,
    /// The counters.
    pub total: Counters,
    /// The increase of the counters between the snapshots.
    pub new: Counters,
    /// Time between the snapshots in seconds; 0 for the first one.
    pub seconds: f64,
    /// Requests that the worker has not taken.
    pub waiting: Option<u64>,
    /// Whether the worker has work.
    pub busy: Option<bool>,
    /// Time since the queue became idle, in milliseconds.
    pub idle_ms: Option<u64>,
    /// Time for which requests have been held up, in milliseconds.
    pub held_ms: Option<u64>,
    /// Requests of cgroups for whose queue there was no memory.
    pub fallbacks: Option<u64>,
    /// The block layer's statistics between the snapshots.
    pub disk: Option<DiskStats>,
}

impl Row {
    /// Requests per second of all operations.
    pub fn iops(&self) -> f64 {
        self.rate(self.new.ios())
    }

    /// Bytes per second of all operations.
    pub fn bandwidth(&self) -> f64 {
        self.rate(self.new.bytes())
    }

    /// A number that was counted between the snapshots, per second.
    pub fn rate(&self, count: u64) -> f64 {
        if self.seconds > 0.0 {
            count as f64 / self.seconds
        } else {
            0.0
        }
    }

    /// The share of requests issued inline, in percent: of the new ones, or of all if there are no
    /// new ones.
    pub fn inline_percent(&self) -> Option<f64> {
        [self.new, self.total].iter().find_map(|counters| {
            let served = counters.served?;
            let all = served.inline + served.worker;
            (all > 0).then(|| served.inline as f64 * 100.0 / all as f64)
        })
    }

    /// Mean latency in milliseconds.
    pub fn latency(&self) -> Option<f64> {
        self.disk?.mean_latency()
    }

    /// Whether there was I/O, or is any in flight.
    pub fn is_active(&self) -> bool {
        self.new.ios() > 0 || self.new.done > 0 || self.total.in_flight() > 0
    }

    fn add_device(&mut self, other: &Self) {
        self.total.add(&other.total);
        self.new.add(&other.new);
        self.seconds = other.seconds;
        self.waiting = sum(self.waiting, other.waiting);
        self.fallbacks = sum(self.fallbacks, other.fallbacks);
        self.held_ms = self.held_ms.max(other.held_ms);
        if let Some(disk) = &other.disk {
            self.disk.get_or_insert_default().add(disk);
        }
    }

    fn add_queue(&mut self, queue: &Self) {
        self.waiting = sum(self.waiting, queue.waiting);
        self.fallbacks = sum(self.fallbacks, queue.fallbacks);
        self.held_ms = self.held_ms.max(queue.held_ms);
        self.busy = Some(self.busy == Some(true) || queue.busy == Some(true));
    }
}

fn sum(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a + b),
        _ => a.or(b),
    }
}

/// A device and its cgroups.
#[derive(Clone, Debug)]
pub struct Group {
    /// The whole device.
    pub device: Row,
    /// The cgroups with a queue.
    pub cgroups: Vec<Row>,
}

/// All devices.
#[derive(Clone, Debug)]
pub struct View {
    /// The driver.
    pub driver: Driver,
    /// Time between the snapshots.
    pub interval: Duration,
    /// The sums over all devices.
    pub all: Row,
    /// The devices.
    pub groups: Vec<Group>,
    /// Reason why the cgroups are unknown.
    pub note: Option<String>,
}

#[derive(Clone, Copy)]
struct Seen {
    counters: Counters,
    /// The first snapshot with requests in flight since a request was seen to complete.
    progress: Instant,
}

/// The last snapshot.
#[derive(Default)]
pub struct Model {
    at: Option<Instant>,
    devices: HashMap<String, (Counters, DiskStats)>,
    /// By device and cgroup. A removed cgroup keeps its queue for a while, so that a path that is
    /// used again has several queues, in the order of the driver.
    queues: HashMap<(String, String), VecDeque<Seen>>,
}

impl Model {
    /// Takes a snapshot into account.
    pub fn update(&mut self, snapshot: Snapshot) -> View {
        let interval = self.at.map_or(Duration::ZERO, |at| snapshot.at - at);
        let first = self.at.replace(snapshot.at).is_none();
        let seconds = interval.as_secs_f64();
        let mut all = Row::default();
        let mut groups = Vec::with_capacity(snapshot.devices.len());
        let mut seen = Model {
            at: self.at,
            ..Self::default()
        };
        for device in snapshot.devices {
            let old = self.devices.get(&device.name).copied();
            let (counters, disk) = old.unwrap_or((device.counters, device.disk));
            let mut row = Row {
                device: device.name.clone(),
                file: device.file,
                total: device.counters,
                new: device.counters.since(&counters),
                seconds,
                disk: Some(device.disk.since(&disk)),
                ..Row::default()
            };
            let mut cgroups = Vec::new();
            for queue in device.queues.into_iter().flatten() {
                let key = (device.name.clone(), queue.cgroup.clone());
                let old = self.take(&key, &queue.counters);
                let (mut cgroup, now) = queue_row(queue, old, snapshot.at, first);
                cgroup.device.clone_from(&device.name);
                cgroup.seconds = seconds;
                row.add_queue(&cgroup);
                cgroups.push(cgroup);
                seen.queues.entry(key).or_default().push_back(now);
            }
            // `None`, if a queue is not idle, is the smallest.
            row.idle_ms = cgroups.iter().map(|cgroup| cgroup.idle_ms).min().flatten();
            seen.devices
                .insert(device.name, (device.counters, device.disk));
            all.add_device(&row);
            groups.push(Group {
                device: row,
                cgroups,
            });
        }
        *self = seen;
        View {
            driver: snapshot.driver,
            interval,
            all,
            groups,
            note: snapshot.note,
        }
    }
}

impl Model {
    /// The last state of the queue that now has these counters. Of several queues with its path it
    /// is the first one with the same counters, as those of removed cgroups are idle, or else the
    /// first one from which they can have come. The queues before that one have been removed.
    fn take(&mut self, key: &(String, String), now: &Counters) -> Option<Seen> {
        let queues = self.queues.get_mut(key)?;
        let at = queues
            .iter()
            .position(|seen| seen.counters == *now)
            .or_else(|| {
                queues
                    .iter()
                    .position(|seen| now.can_follow(&seen.counters))
            })?;
        queues.drain(..=at).next_back()
    }
}

fn queue_row(queue: Queue, old: Option<Seen>, at: Instant, first: bool) -> (Row, Seen) {
    let counters = queue.counters;
    // The counters of a new queue started at 0 after the last snapshot.
    let new = match old {
        Some(old) => counters.since(&old.counters),
        None if first => counters.since(&counters),
        None => counters,
    };
    let progress = match old {
        Some(old) if new.done == 0 && counters.in_flight().min(old.counters.in_flight()) > 0 => {
            old.progress
        }
        _ => at,
    };
    let held = (at - progress).as_millis() as u64;
    let row = Row {
        cgroup: Some(queue.cgroup),
        total: counters,
        new,
        waiting: Some(queue.waiting),
        busy: Some(queue.busy),
        idle_ms: (!queue.busy && counters.in_flight() == 0).then_some(queue.idle_ms),
        held_ms: Some(held.max(queue.oldest_ms)),
        fallbacks: queue.fallbacks,
        ..Row::default()
    };
    (row, Seen { counters, progress })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::tests::Fake;

    fn fake(name: &str) -> Fake {
        let fake = Fake::new(name);
        fake.write("sys/module/loop_rs/refcnt", "1\n");
        fake.attach("loop0", "/file\n");
        fake
    }

    fn set(fake: &Fake, stat: &str, workers: &str) {
        fake.write("sys/block/loop0/loop/stat", stat);
        fake.write("sys/kernel/debug/loop_rs/loop0/workers", workers);
    }

    fn update(model: &mut Model, fake: &Fake, at: Instant) -> View {
        let mut snapshot = fake.host.snapshot(&[]).unwrap();
        snapshot.at = at;
        model.update(snapshot)
    }

    #[test]
    fn rates() {
        let fake = fake("rates");
        let mut model = Model::default();
        let start = Instant::now();
        set(
            &fake,
            "done=10 rios=10 here=10",
            "/ idle waiting=0 done=10 rios=10 here=10",
        );
        let view = update(&mut model, &fake, start);
        assert_eq!(view.all.iops(), 0.0);
        assert_eq!(view.groups[0].cgroups[0].new.ios(), 0);
        set(
            &fake,
            "done=18 rios=18 here=12 rbytes=4096",
            "/ idle waiting=0 done=14 rios=14 here=12\n/new idle waiting=0 done=4 rios=4",
        );
        let view = update(&mut model, &fake, start + Duration::from_secs(2));
        assert_eq!(view.all.iops(), 4.0);
        assert_eq!(view.all.bandwidth(), 2048.0);
        assert_eq!(view.all.inline_percent(), Some(25.0));
        let [root, new] = &view.groups[0].cgroups[..] else {
            panic!("two cgroups have queues")
        };
        assert_eq!(root.inline_percent(), Some(50.0));
        assert_eq!(new.iops(), 2.0);
    }

    #[test]
    fn held_up() {
        let fake = fake("held");
        let mut model = Model::default();
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let line = |done, tags| format!("/a busy waiting=1 done={done} tags={tags} rios=9");
        for (n, done, tags, held) in [
            (0, 3, 2, 0),
            (1, 3, 2, 1000),
            (2, 3, 1, 2000),
            (3, 4, 1, 0),
            (4, 4, 1, 1000),
            (5, 4, 0, 0),
        ] {
            set(&fake, "", &line(done, tags));
            let view = update(&mut model, &fake, start + second * n);
            assert_eq!(view.groups[0].cgroups[0].held_ms, Some(held), "second {n}");
            assert_eq!(view.groups[0].device.held_ms, Some(held));
        }
    }

    #[test]
    fn a_path_used_again() {
        let fake = fake("again");
        let start = Instant::now();
        let lines = |queues: &[u64]| {
            let line = |n: &u64| format!("/a idle waiting=0 rios={n} done={n}\n");
            queues.iter().map(line).collect::<String>()
        };
        for (before, after, expected) in [
            (&[5, 1][..], &[5, 3][..], &[0, 2][..]),
            (&[5, 1], &[3], &[2]),
            (&[7, 16], &[16, 4], &[0, 4]),
            (&[9], &[9, 1], &[0, 1]),
            (&[9], &[1], &[1]),
        ] {
            let mut model = Model::default();
            set(&fake, "", &lines(before));
            update(&mut model, &fake, start);
            set(&fake, "", &lines(after));
            let view = update(&mut model, &fake, start + Duration::from_secs(1));
            let new: Vec<u64> = view.groups[0].cgroups.iter().map(|c| c.new.ios()).collect();
            assert_eq!(new, expected, "{before:?} to {after:?}");
        }
    }
}
