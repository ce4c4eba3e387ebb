// SPDX-License-Identifier: GPL-2.0

//! Loop devices in sysfs, procfs and debugfs.

use crate::counters::{Counters, DiskStats, Queue};
use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    time::Instant,
};

/// The loop driver of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// The C driver.
    Loop,
    /// This project's driver.
    LoopRs,
}

impl Driver {
    /// The name of the module.
    pub fn name(self) -> &'static str {
        match self {
            Self::Loop => "loop",
            Self::LoopRs => "loop_rs",
        }
    }
}

/// An attached device.
#[derive(Clone, Debug)]
pub struct Device {
    /// The name without `/dev/`.
    pub name: String,
    /// The backing file.
    pub file: String,
    /// The counters since the device was created.
    pub counters: Counters,
    /// The queues of the cgroups, if they can be read.
    pub queues: Option<Vec<Queue>>,
    /// The statistics of the block layer.
    pub disk: DiskStats,
}

/// The state of all attached devices.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Time of the snapshot.
    pub at: Instant,
    /// The driver.
    pub driver: Driver,
    /// The devices, by number.
    pub devices: Vec<Device>,
    /// Reason why the cgroups are unknown.
    pub note: Option<String>,
}

/// The files of a machine.
pub struct Host {
    root: PathBuf,
}

impl Host {
    /// The machine whose `/proc` and `/sys` are in `root`.
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// Reads the state of the attached devices among `wanted`, or of all if that is empty.
    pub fn snapshot(&self, wanted: &[String]) -> Result<Snapshot, String> {
        let driver = self.driver()?;
        let disks = self.path("proc/diskstats");
        let disks = read(&disks).map_err(|error| format!("{}: {error}", disks.display()))?;
        let disks: HashMap<&str, DiskStats> = disks.lines().filter_map(DiskStats::parse).collect();
        let mut snapshot = Snapshot {
            at: Instant::now(),
            driver,
            devices: Vec::new(),
            note: None,
        };
        if driver == Driver::Loop {
            snapshot.note = Some("the C driver, loop, has no statistics by cgroup".to_owned());
        }
        for name in self.names()? {
            if !wanted.is_empty() && !wanted.contains(&name) {
                continue;
            }
            let dir = self.path("sys/block").join(&name).join("loop");
            let Ok(file) = read(&dir.join("backing_file")) else {
                continue;
            };
            let disk = disks.get(name.as_str()).copied().unwrap_or_default();
            let mut device = Device {
                name,
                file: file.trim_end_matches('\n').to_owned(),
                counters: disk.into(),
                queues: None,
                disk,
            };
            if driver == Driver::LoopRs {
                if let Ok(stat) = read(&dir.join("stat")) {
                    device.counters = Counters::parse(&stat);
                }
                match self.queues(&device.name) {
                    Ok(queues) => device.queues = Some(queues),
                    Err(note) => snapshot.note = Some(note),
                }
            }
            snapshot.devices.push(device);
        }
        Ok(snapshot)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    fn driver(&self) -> Result<Driver, String> {
        for driver in [Driver::LoopRs, Driver::Loop] {
            if self.path("sys/module").join(driver.name()).exists() {
                return Ok(driver);
            }
        }
        Err("no loop driver is loaded: load loop_rs (modprobe loop_rs), or loop".to_owned())
    }

    /// The names of all loop devices, by number.
    fn names(&self) -> Result<Vec<String>, String> {
        let dir = self.path("sys/block");
        let entries = fs::read_dir(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let mut numbers: Vec<u32> = entries
            .filter_map(|entry| {
                let name = entry.ok()?.file_name();
                name.to_str()?.strip_prefix("loop")?.parse().ok()
            })
            .collect();
        numbers.sort_unstable();
        Ok(numbers.iter().map(|n| format!("loop{n}")).collect())
    }

    fn queues(&self, device: &str) -> Result<Vec<Queue>, String> {
        let debugfs = self.path("sys/kernel/debug");
        let dir = debugfs.join("loop_rs");
        match read(&dir.join(device).join("workers")) {
            Ok(lines) => Ok(lines.lines().filter_map(Queue::parse).collect()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(format!(
                "only root may read {}: cgroups are not shown",
                debugfs.display()
            )),
            Err(_) if !dir.exists() => Err(format!(
                "no {}: cgroups are not shown (is debugfs mounted?)",
                dir.display()
            )),
            // The device is being removed.
            Err(_) => Ok(Vec::new()),
        }
    }
}

/// Reads a file. Names of cgroups and files are bytes.
fn read(path: &Path) -> io::Result<String> {
    let bytes = fs::read(path)?;
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::{env, process};

    /// A machine in a directory of its own, which is removed when this is dropped.
    pub struct Fake {
        root: PathBuf,
        /// The reader of its files.
        pub host: Host,
    }

    impl Fake {
        /// A machine without a loop driver.
        pub fn new(name: &str) -> Self {
            let root = env::temp_dir().join(format!("loop-top.{}.{name}", process::id()));
            let fake = Self {
                host: Host::new(&root),
                root,
            };
            fake.write("proc/diskstats", "");
            fs::create_dir_all(fake.root.join("sys/block")).unwrap();
            fake
        }

        /// Writes a file.
        pub fn write(&self, path: &str, text: &str) {
            let path = self.root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        /// Attaches a device.
        pub fn attach(&self, name: &str, file: &str) {
            self.write(&format!("sys/block/{name}/loop/backing_file"), file);
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.root).unwrap();
        }
    }

    #[test]
    fn no_driver() {
        let fake = Fake::new("no-driver");
        let error = fake.host.snapshot(&[]).unwrap_err();
        assert!(error.starts_with("no loop driver is loaded"));
    }

    #[test]
    fn the_c_driver() {
        let fake = Fake::new("c");
        fake.write("sys/module/loop/refcnt", "1\n");
        fake.write("proc/diskstats", "7 0 loop0 10 0 80 5 0 0 0 0 3 0 0\n");
        fake.attach("loop0", "/a b\n");
        fake.write("sys/block/loop1/size", "0\n");
        let snapshot = fake.host.snapshot(&[]).unwrap();
        assert_eq!(snapshot.driver, Driver::Loop);
        assert!(snapshot.note.unwrap().contains("C driver"));
        let [device] = &snapshot.devices[..] else {
            panic!("one device is attached")
        };
        assert_eq!(device.file, "/a b");
        assert_eq!(device.counters.in_flight(), 3);
        assert_eq!(device.counters.volumes[0].bytes, 40960);
        assert_eq!(device.counters.served, None);
        assert!(device.queues.is_none());
    }

    #[test]
    fn no_debugfs() {
        let fake = Fake::new("no-debugfs");
        fake.write("sys/module/loop_rs/refcnt", "1\n");
        fake.attach("loop10", "/ten\n");
        fake.attach("loop9", "/nine\n");
        fake.write("sys/block/loop9/loop/stat", "done=3 rios=3 here=1\n");
        let snapshot = fake.host.snapshot(&[]).unwrap();
        assert!(snapshot.note.unwrap().contains("is debugfs mounted?"));
        assert_eq!(snapshot.devices[0].name, "loop9");
        assert_eq!(snapshot.devices[0].counters.done, 3);
        assert_eq!(snapshot.devices[0].counters.served.unwrap().worker, 2);
    }

    #[test]
    fn wanted_devices() {
        let fake = Fake::new("wanted");
        fake.write("sys/module/loop_rs/refcnt", "1\n");
        fake.attach("loop0", "/zero\n");
        fake.attach("loop1", "/one\n");
        fake.write(
            "sys/kernel/debug/loop_rs/loop1/workers",
            "/ idle waiting=0 rios=4\n/a busy waiting=2 rios=1\n",
        );
        let snapshot = fake.host.snapshot(&["loop1".to_owned()]).unwrap();
        assert_eq!(snapshot.devices.len(), 1);
        assert_eq!(snapshot.devices[0].queues.as_ref().unwrap().len(), 2);
        assert_eq!(snapshot.note, None);
    }
}
