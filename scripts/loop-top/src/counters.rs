// SPDX-License-Identifier: GPL-2.0

//! The driver's counters: lines of names and numbers in `/sys/block/loopN/loop/stat` and in
//! `/sys/kernel/debug/loop_rs/loopN/workers`, and the lines of `/proc/diskstats`.

/// The operations that requests are counted by.
pub const OPERATIONS: [&str; 4] = ["read", "write", "discard", "flush"];

/// Number of requests of one operation, and of their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Requests.
    pub ios: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Counters that loop_rs has and loop.ko has not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Requests issued by the task that submitted them.
    pub inline: u64,
    /// Requests given to the worker.
    pub worker: u64,
    /// Requests that were deferred: detached from their tags.
    pub deferred: u64,
}

/// Counters of a cgroup queue or a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// By operation, in the order of [`OPERATIONS`].
    pub volumes: [Volume; 4],
    /// Requests that hold a tag.
    pub tags: u64,
    /// Deferred requests that have not completed.
    pub deferred: u64,
    /// Completed requests.
    pub done: u64,
    /// `None` for the C driver.
    pub served: Option<Served>,
}

impl Counters {
    /// Requests of all operations.
    pub fn ios(&self) -> u64 {
        self.volumes.iter().map(|volume| volume.ios).sum()
    }

    /// Bytes of all operations.
    pub fn bytes(&self) -> u64 {
        self.volumes.iter().map(|volume| volume.bytes).sum()
    }

    /// Requests in flight, with and without a tag.
    pub fn in_flight(&self) -> u64 {
        self.tags + self.deferred
    }

    /// Whether these can be later values of the counters `old`: none is lower.
    pub fn can_follow(&self, old: &Self) -> bool {
        let pairs = self.volumes.iter().zip(old.volumes);
        self.done >= old.done
            && pairs
                .into_iter()
                .all(|(new, old)| new.ios >= old.ios && new.bytes >= old.bytes)
    }

    /// Returns the difference to `old`. A counter that is lower than before restarted at 0.
    pub fn since(&self, old: &Self) -> Self {
        if !self.can_follow(old) {
            return *self;
        }
        let mut new = *self;
        for (volume, old) in new.volumes.iter_mut().zip(old.volumes) {
            volume.ios = volume.ios.saturating_sub(old.ios);
            volume.bytes = volume.bytes.saturating_sub(old.bytes);
        }
        new.done -= old.done;
        new.served = self.served.map(|served| {
            let old = old.served.unwrap_or_default();
            Served {
                inline: served.inline.saturating_sub(old.inline),
                worker: served.worker.saturating_sub(old.worker),
                deferred: served.deferred.saturating_sub(old.deferred),
            }
        });
        new
    }

    /// Adds the counters of another device.
    pub fn add(&mut self, other: &Self) {
        for (volume, other) in self.volumes.iter_mut().zip(other.volumes) {
            volume.ios += other.ios;
            volume.bytes += other.bytes;
        }
        self.tags += other.tags;
        self.deferred += other.deferred;
        self.done += other.done;
        if let Some(other) = other.served {
            let served = self.served.get_or_insert_default();
            served.inline += other.inline;
            served.worker += other.worker;
            served.deferred += other.deferred;
        }
    }

    /// Sets the counter of this name; ignores other names.
    fn set(&mut self, name: &str, value: u64) {
        let [read, write, discard, flush] = &mut self.volumes;
        let served = self.served.get_or_insert_default();
        match name {
            "tags" => self.tags = value,
            "parking" => self.deferred = value,
            "done" => self.done = value,
            "here" => served.inline = value,
            "parked" => served.deferred = value,
            "rbytes" => read.bytes = value,
            "wbytes" => write.bytes = value,
            "dbytes" => discard.bytes = value,
            "rios" => read.ios = value,
            "wios" => write.ios = value,
            "dios" => discard.ios = value,
            "flushes" => flush.ios = value,
            _ => {}
        }
    }

    /// Parses the line of `loop/stat`.
    pub fn parse(line: &str) -> Self {
        let mut counters = Self::default();
        for (name, value) in fields(line) {
            counters.set(name, value);
        }
        counters.finish()
    }

    /// Computes the counters that the driver does not print.
    fn finish(mut self) -> Self {
        let ios = self.ios();
        if let Some(served) = &mut self.served {
            served.worker = ios.saturating_sub(served.inline);
        }
        self
    }
}

fn fields(line: &str) -> impl Iterator<Item = (&str, u64)> {
    line.split_ascii_whitespace().filter_map(|field| {
        let (name, value) = field.split_once('=')?;
        Some((name, value.parse().ok()?))
    })
}

/// A line of `workers`: the queue of a cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// The path of the cgroup, or `(flush)`.
    pub cgroup: String,
    /// Whether the worker has work.
    pub busy: bool,
    /// Requests that the worker has not taken.
    pub waiting: u64,
    /// Time since the queue became idle, in milliseconds.
    pub idle_ms: u64,
    /// Age of the oldest request that waits for the worker, in milliseconds.
    pub oldest_ms: u64,
    /// Requests of other cgroups for whose queue there was no memory; only for the root cgroup.
    pub fallbacks: Option<u64>,
    /// The counters.
    pub counters: Counters,
}

impl Queue {
    /// Parses a line. The name of a cgroup can have any character but a newline.
    pub fn parse(line: &str) -> Option<Self> {
        let numbers = line.rfind(" waiting=")?;
        let (cgroup, state) = line[..numbers].rsplit_once(' ')?;
        let mut queue = Self {
            cgroup: cgroup.to_owned(),
            busy: state == "busy",
            waiting: 0,
            idle_ms: 0,
            oldest_ms: 0,
            fallbacks: None,
            counters: Counters::default(),
        };
        for (name, value) in fields(&line[numbers..]) {
            match name {
                "waiting" => queue.waiting = value,
                "idle_ms" => queue.idle_ms = value,
                "oldest_ms" => queue.oldest_ms = value,
                "fallbacks" => queue.fallbacks = Some(value),
                _ => queue.counters.set(name, value),
            }
        }
        queue.counters = queue.counters.finish();
        Some(queue)
    }
}

/// A line of `/proc/diskstats`: requests that have completed, and the time that they took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskStats {
    /// By operation, in the order of [`OPERATIONS`].
    pub volumes: [Volume; 4],
    /// Sum of the latencies by operation, in milliseconds.
    pub ms: [u64; 4],
    /// Requests in flight.
    pub in_flight: u64,
}

impl DiskStats {
    /// Parses a line; returns the name of the disk with it.
    pub fn parse(line: &str) -> Option<(&str, Self)> {
        let mut words = line.split_ascii_whitespace().skip(2);
        let name = words.next()?;
        let n: Vec<u64> = words.map_while(|word| word.parse().ok()).collect();
        let field = |i: usize| n.get(i).copied().unwrap_or(0);
        let volume = |ios: usize| Volume {
            ios: field(ios),
            bytes: field(ios + 2) * 512,
        };
        let flush = Volume {
            ios: field(15),
            bytes: 0,
        };
        let stats = Self {
            volumes: [volume(0), volume(4), volume(11), flush],
            ms: [field(3), field(7), field(14), field(16)],
            in_flight: field(8),
        };
        Some((name, stats))
    }

    /// Returns the difference to `old`.
    pub fn since(&self, old: &Self) -> Self {
        let mut new = *self;
        for i in 0..OPERATIONS.len() {
            new.volumes[i].ios = new.volumes[i].ios.saturating_sub(old.volumes[i].ios);
            new.volumes[i].bytes = new.volumes[i].bytes.saturating_sub(old.volumes[i].bytes);
            new.ms[i] = new.ms[i].saturating_sub(old.ms[i]);
        }
        new
    }

    /// Adds the statistics of another disk.
    pub fn add(&mut self, other: &Self) {
        for i in 0..OPERATIONS.len() {
            self.volumes[i].ios += other.volumes[i].ios;
            self.volumes[i].bytes += other.volumes[i].bytes;
            self.ms[i] += other.ms[i];
        }
        self.in_flight += other.in_flight;
    }

    /// Mean latency of an operation in milliseconds.
    pub fn latency(&self, operation: usize) -> Option<f64> {
        mean(self.ms[operation], self.volumes[operation].ios)
    }

    /// Mean latency of all operations in milliseconds.
    pub fn mean_latency(&self) -> Option<f64> {
        let ios = self.volumes.iter().map(|volume| volume.ios).sum();
        mean(self.ms.iter().sum(), ios)
    }
}

impl From<DiskStats> for Counters {
    /// The counters of a device of the C driver.
    fn from(stats: DiskStats) -> Self {
        Self {
            volumes: stats.volumes,
            tags: stats.in_flight,
            done: stats.volumes.iter().map(|volume| volume.ios).sum(),
            ..Self::default()
        }
    }
}

fn mean(ms: u64, ios: u64) -> Option<f64> {
    (ios > 0).then(|| ms as f64 / ios as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "/a b idle waiting=1 busy waiting=3 tags=2 parking=5 done=90 here=60 \
                        parked=7 rbytes=4096 wbytes=8192 dbytes=0 rios=50 wios=40 dios=0 \
                        flushes=7 idle_ms=0 new_name=1";

    #[test]
    fn a_cgroup_with_spaces() {
        let queue = Queue::parse(LINE).unwrap();
        assert_eq!(queue.cgroup, "/a b idle waiting=1");
        assert!(queue.busy);
        assert_eq!(queue.waiting, 3);
        assert_eq!(queue.counters.in_flight(), 7);
        let served = queue.counters.served.unwrap();
        assert_eq!((served.inline, served.worker, served.deferred), (60, 37, 7));
        assert_eq!(queue.counters.volumes[1].bytes, 8192);
        assert_eq!(queue.fallbacks, None);
    }

    #[test]
    fn other_lines() {
        assert_eq!(Queue::parse(""), None);
        assert_eq!(Queue::parse("/ idle"), None);
    }

    #[test]
    fn started_anew() {
        let old = Counters::parse("done=9 rios=9 rbytes=90");
        let new = Counters::parse("done=12 rios=12 rbytes=120 tags=1");
        assert_eq!(new.since(&old).volumes[0].bytes, 30);
        assert_eq!(new.since(&old).tags, 1);
        assert_eq!(old.since(&new), old);
    }

    #[test]
    fn diskstats() {
        let line = "   7       0 loop0 10 0 80 5 4 0 32 40 2 9 47 1 0 8 1 3 6";
        let (name, stats) = DiskStats::parse(line).unwrap();
        assert_eq!(name, "loop0");
        assert_eq!(stats.latency(0), Some(0.5));
        assert_eq!(stats.latency(1), Some(10.0));
        assert_eq!(stats.latency(3), Some(2.0));
        assert_eq!(stats.in_flight, 2);
        assert_eq!(stats.volumes[2].bytes, 4096);
        assert_eq!(Counters::from(stats).done, 18);
    }
}
