// SPDX-License-Identifier: GPL-2.0

//! The table: its columns, its order, and its lines.

use crate::{
    format,
    model::{Row, View},
};

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Path of the cgroup; a sort order only.
    Name,
    /// Requests per second; a sort order only.
    Iops,
    /// Bytes per second; a sort order only.
    Bytes,
    /// Reads per second.
    Reads,
    /// Writes per second.
    Writes,
    /// Bytes read per second.
    ReadBytes,
    /// Bytes written per second.
    WriteBytes,
    /// Mean latency of a device.
    Latency,
    /// Requests that wait for the worker.
    Waiting,
    /// Requests in flight.
    Flight,
    /// Deferred requests in flight.
    Deferred,
    /// Share of requests issued inline.
    Inline,
    /// Time for which requests have been held up.
    Held,
    /// Discards and write-zeroes per second.
    Discards,
    /// Flushes per second.
    Flushes,
    /// Requests per second given to the worker.
    Worker,
    /// Time since the worker became idle.
    Idle,
    /// Requests served by the root cgroup's worker for lack of memory.
    Fallbacks,
}

use Column::*;

/// The shown columns: those after [`Held`] where there is room.
const SHOWN: [Column; 15] = [
    Reads, Writes, ReadBytes, WriteBytes, Latency, Waiting, Flight, Deferred, Inline, Held, Idle,
    Worker, Discards, Flushes, Fallbacks,
];
const ALWAYS: usize = 10;

/// The columns to sort by, in the order of the key `s`.
pub const SORTS: [Column; 12] = [
    Iops, Bytes, Reads, Writes, Latency, Waiting, Flight, Deferred, Held, Worker, Idle, Name,
];

/// Least width of the column of names.
const NAME_MIN: usize = 21;

impl Column {
    /// The name in the option `--sort`.
    pub fn name(self) -> &'static str {
        match self {
            Name => "name",
            Iops => "iops",
            Bytes => "bytes",
            Reads => "reads",
            Writes => "writes",
            ReadBytes => "read-bytes",
            WriteBytes => "write-bytes",
            Latency => "latency",
            Waiting => "waiting",
            Flight => "in-flight",
            Deferred => "deferred",
            Inline => "inline",
            Held => "held",
            Discards => "discards",
            Flushes => "flushes",
            Worker => "worker",
            Idle => "idle",
            Fallbacks => "fallbacks",
        }
    }

    /// All columns; some twice.
    pub fn all() -> impl Iterator<Item = Self> {
        SORTS.into_iter().chain(SHOWN)
    }

    /// The column of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::all().find(|column| column.name() == name)
    }

    fn title(self) -> &'static str {
        match self {
            Name | Iops | Bytes => "",
            Reads => "R/S",
            Writes => "W/S",
            ReadBytes => "RB/S",
            WriteBytes => "WB/S",
            Latency => "LAT",
            Waiting => "WAIT",
            Flight => "INFL",
            Deferred => "DEFER",
            Inline => "INL%",
            Held => "HELD",
            Discards => "D/S",
            Flushes => "F/S",
            Worker => "WRK/S",
            Idle => "IDLE",
            Fallbacks => "FALLB",
        }
    }

    fn width(self) -> usize {
        match self {
            Inline => 4,
            _ => 5,
        }
    }

    fn value(self, row: &Row) -> Option<f64> {
        let [read, write, discard, flush] = row.new.volumes;
        let number = |n: Option<u64>| n.map(|n| n as f64);
        match self {
            Name => None,
            Iops => Some(row.iops()),
            Bytes => Some(row.bandwidth()),
            Reads => Some(row.rate(read.ios)),
            Writes => Some(row.rate(write.ios)),
            ReadBytes => Some(row.rate(read.bytes)),
            WriteBytes => Some(row.rate(write.bytes)),
            Latency => row.latency(),
            Waiting => number(row.waiting),
            Flight => Some(row.total.in_flight() as f64),
            Deferred => number(row.total.served.map(|_| row.total.deferred)),
            Inline => row.inline_percent(),
            Held => number(row.held_ms),
            Discards => Some(row.rate(discard.ios)),
            Flushes => Some(row.rate(flush.ios)),
            Worker => row.new.served.map(|served| row.rate(served.worker)),
            Idle => number(row.idle_ms),
            Fallbacks => number(row.fallbacks),
        }
    }

    fn cell(self, row: &Row) -> String {
        let Some(value) = self.value(row) else {
            return "-".to_owned();
        };
        match self {
            ReadBytes | WriteBytes | Bytes => format::bytes(value),
            Latency | Held | Idle => format::time(value),
            Inline => format!("{value:.0}"),
            _ => format::count(value),
        }
    }
}

/// Rows to show, and their order.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The column to sort by.
    pub sort: Column,
    /// The smallest first; the largest of names.
    pub reverse: bool,
    /// Only cgroups whose path contains this.
    pub cgroup: Option<String>,
    /// Only devices and cgroups with I/O.
    pub active: bool,
    /// No cgroups.
    pub totals: bool,
    /// All cgroups in one order, rather than below their devices.
    pub flat: bool,
}

impl Choice {
    fn sort(&self, rows: &mut [&Row]) {
        rows.sort_by(|a, b| {
            let order = self.value(b).total_cmp(&self.value(a));
            order.then_with(|| a.cgroup.cmp(&b.cgroup))
        });
        if self.reverse {
            rows.reverse();
        }
    }

    fn value(&self, row: &Row) -> f64 {
        self.sort.value(row).unwrap_or(-1.0)
    }

    fn shows(&self, row: &Row) -> bool {
        let wanted = match (&self.cgroup, &row.cgroup) {
            (Some(wanted), Some(path)) => path.contains(wanted),
            _ => true,
        };
        wanted && (!self.active || row.is_active())
    }

    /// The rows of a view: devices, each with its cgroups after it.
    pub fn rows<'a>(&self, view: &'a View) -> Vec<&'a Row> {
        let shown = |row: &&Row| self.shows(row);
        let cgroups = |i: usize| view.groups[i].cgroups.iter().filter(shown);
        let groups = 0..view.groups.len();
        if self.flat {
            let mut rows: Vec<&Row> = groups.flat_map(cgroups).collect();
            self.sort(&mut rows);
            return rows;
        }
        let mut devices: Vec<(&Row, Vec<&Row>)> = groups
            .map(|i| (&view.groups[i].device, cgroups(i).collect()))
            .filter(|(device, cgroups): &(&Row, Vec<&Row>)| {
                self.shows(device) && (self.cgroup.is_none() || !cgroups.is_empty())
            })
            .collect();
        // Equal devices stay in the order of their numbers.
        devices.sort_by(|(a, _), (b, _)| self.value(b).total_cmp(&self.value(a)));
        if self.reverse {
            devices.reverse();
        }
        let mut rows = Vec::new();
        for (device, mut cgroups) in devices {
            rows.push(device);
            if !self.totals {
                self.sort(&mut cgroups);
                rows.extend(cgroups);
            }
        }
        rows
    }
}

/// The lines of a table of some width.
pub struct Layout {
    name: usize,
    columns: &'static [Column],
    file: usize,
}

impl Layout {
    /// A table of rows for `width` characters.
    pub fn new(width: usize, rows: &[&Row], choice: &Choice) -> Self {
        let used = |n: usize| SHOWN[..n].iter().map(|c| c.width() + 1).sum::<usize>();
        let longest = rows
            .iter()
            .map(|row| name(row, choice.flat, true).chars().count());
        let wanted = longest.max().unwrap_or(0).max(NAME_MIN);
        // Names in full come first, then more columns, then the paths of backing files.
        let mut columns = ALWAYS;
        while columns < SHOWN.len() && used(columns + 1) + wanted <= width {
            columns += 1;
        }
        let left = width.saturating_sub(used(columns));
        let file = match left.saturating_sub(wanted) {
            room @ 12.. if columns == SHOWN.len() => room - 1,
            _ => 0,
        };
        Self {
            name: wanted.min(left.max(NAME_MIN)),
            columns: &SHOWN[..columns],
            file,
        }
    }

    /// The titles of the columns.
    pub fn titles(&self, choice: &Choice) -> String {
        let mut line = format!("{:<1$}", "DEVICE/CGROUP", self.name);
        for column in self.columns {
            let mut title = column.title().to_owned();
            if *column == choice.sort && title.len() < column.width() {
                title.insert(0, '>');
            }
            line += &format!(" {title:>0$}", column.width());
        }
        if self.file > 0 {
            line += " FILE";
        }
        line
    }

    /// The line of a row.
    pub fn line(&self, row: &Row, choice: &Choice) -> String {
        let mut line = name(row, choice.flat, self.file > 0);
        if line.chars().count() > self.name {
            line = shortened(row, choice.flat, self.name);
        }
        line = format!("{line:<0$}", self.name);
        for column in self.columns {
            line += &format!(" {:>1$}", column.cell(row), column.width());
        }
        if self.file > 0 && row.cgroup.is_none() {
            line.push(' ');
            line += &format::tail(&format::printable(&row.file), self.file);
        }
        line.truncate(line.trim_end().len());
        line
    }
}

/// The part of a name that is not shortened.
fn prefix(row: &Row, flat: bool) -> String {
    match &row.cgroup {
        None if row.device.is_empty() => "all devices".to_owned(),
        Some(_) if !flat => "  ".to_owned(),
        _ => format!("{} ", row.device),
    }
}

/// The name of a row. Names of devices have the backing file unless that has a column of its own.
fn name(row: &Row, flat: bool, has_file: bool) -> String {
    let mut name = prefix(row, flat);
    match &row.cgroup {
        Some(path) => name += &format::printable(path),
        None if !has_file => name += &format::printable(&row.file),
        None => {}
    }
    name
}

fn shortened(row: &Row, flat: bool, width: usize) -> String {
    let prefix = prefix(row, flat);
    let rest = width.saturating_sub(prefix.chars().count());
    let path = row.cgroup.as_ref().unwrap_or(&row.file);
    prefix + &format::tail(&format::printable(path), rest)
}

/// The table of a view as lines: the titles, the sums over all devices, and the rows.
pub fn lines(view: &View, choice: &Choice, width: usize) -> Vec<String> {
    let rows = choice.rows(view);
    let layout = Layout::new(width, &rows, choice);
    let mut lines = vec![layout.titles(choice), layout.line(&view.all, choice)];
    lines.extend(rows.iter().map(|row| layout.line(row, choice)));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{host::tests::Fake, model::Model};

    const CHOICE: Choice = Choice {
        sort: Iops,
        reverse: false,
        cgroup: None,
        active: false,
        totals: false,
        flat: false,
    };

    /// Two devices: cgroups /a and /b of loop0 have one and two writes, /a of loop1 has five.
    fn view(name: &str) -> View {
        let fake = Fake::new(name);
        fake.write("sys/module/loop_rs/refcnt", "1\n");
        let mut model = Model::default();
        for (at, [a, b, c]) in [[0, 0, 0], [1, 2, 5]].iter().enumerate() {
            for (device, n) in [("loop0", a + b), ("loop1", *c)] {
                fake.attach(device, &format!("/a/long/path/of/a/file/for/{device}\n"));
                let stat = format!("done={n} wios={n}");
                fake.write(&format!("sys/block/{device}/loop/stat"), &stat);
            }
            let line = |path, n| format!("{path} idle waiting=0 done={n} wios={n}\n");
            let first = line("/a", a) + &line("/b", b) + &line("/idle", &0);
            fake.write("sys/kernel/debug/loop_rs/loop0/workers", &first);
            fake.write("sys/kernel/debug/loop_rs/loop1/workers", &line("/a", c));
            let mut snapshot = fake.host.snapshot(&[]).unwrap();
            if at == 1 {
                snapshot.at += std::time::Duration::from_secs(1);
                return model.update(snapshot);
            }
            model.update(snapshot);
        }
        unreachable!()
    }

    fn names(view: &View, choice: &Choice) -> Vec<String> {
        let rows = choice.rows(view);
        rows.iter()
            .map(|row| name(row, choice.flat, true))
            .collect()
    }

    #[test]
    fn order() {
        let view = view("order");
        let by = |sort, reverse| {
            let choice = Choice {
                sort,
                reverse,
                ..CHOICE
            };
            names(&view, &choice).join(" ")
        };
        assert_eq!(by(Iops, false), "loop1    /a loop0    /b   /a   /idle");
        assert_eq!(by(Iops, true), "loop0    /idle   /a   /b loop1    /a");
        assert_eq!(by(Name, false), "loop0    /a   /b   /idle loop1    /a");
        assert_eq!(by(Latency, false), "loop0    /a   /b   /idle loop1    /a");
    }

    #[test]
    fn filters() {
        let view = view("filters");
        let flat = Choice {
            flat: true,
            active: true,
            ..CHOICE
        };
        assert_eq!(names(&view, &flat), ["loop1 /a", "loop0 /b", "loop0 /a"]);
        let totals = Choice {
            totals: true,
            ..CHOICE
        };
        assert_eq!(names(&view, &totals), ["loop1 ", "loop0 "]);
        let b = Choice {
            cgroup: Some("b".to_owned()),
            ..CHOICE
        };
        assert_eq!(names(&view, &b), ["loop0 ", "  /b"]);
    }

    #[test]
    fn width() {
        let view = view("width");
        for width in 80..200 {
            for line in lines(&view, &CHOICE, width) {
                assert!(line.chars().count() <= width, "{width}: {line}");
            }
        }
        let wide = lines(&view, &CHOICE, 160);
        assert!(wide[0].ends_with(" FALLB FILE"), "{}", wide[0]);
        assert!(wide[2].ends_with(" /a/long/path/of/a/file/for/loop1"));
        assert!(lines(&view, &CHOICE, 80)[2].starts_with("loop1 …file/for/loop1 "));
    }
}
