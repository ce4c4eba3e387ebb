// SPDX-License-Identifier: GPL-2.0

//! The command line.

use crate::table::{Choice, Column, SORTS};
use std::{ffi::OsString, path::PathBuf, time::Duration};

/// Mode of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Show the table again and again.
    Watch,
    /// Print the table once.
    Once,
    /// Print JSON once.
    Json,
    /// Print Prometheus' text format once.
    Prometheus,
}

/// The options.
#[derive(Clone, Debug)]
pub struct Args {
    /// Mode of operation.
    pub mode: Mode,
    /// Time between two snapshots.
    pub delay: Duration,
    /// Number of tables to print.
    pub count: Option<u64>,
    /// Rows to show, and their order.
    pub choice: Choice,
    /// The names of devices, without `/dev/`; all if empty.
    pub devices: Vec<String>,
    /// The file to write.
    pub output: Option<PathBuf>,
    /// The directory with `/proc` and `/sys`.
    pub root: PathBuf,
}

/// Result of parsing a command line.
#[derive(Debug)]
pub enum Command {
    /// Run with these options.
    Run(Box<Args>),
    /// Print a text.
    Print(String),
}

struct Opt {
    short: Option<char>,
    long: &'static str,
    value: Option<&'static str>,
    help: &'static str,
}

const fn opt(
    short: Option<char>,
    long: &'static str,
    value: Option<&'static str>,
    help: &'static str,
) -> Opt {
    Opt {
        short,
        long,
        value,
        help,
    }
}

const OPTIONS: [Opt; 17] = [
    opt(Some('1'), "once", None, "print the table once"),
    opt(Some('J'), "json", None, "print JSON once"),
    opt(
        None,
        "prometheus",
        None,
        "print Prometheus' text format once",
    ),
    opt(
        Some('o'),
        "output",
        Some("FILE"),
        "with -1, -J or --prometheus: replace FILE",
    ),
    opt(
        Some('d'),
        "delay",
        Some("SECONDS"),
        "time between two samples (default 1)",
    ),
    opt(Some('n'), "count", Some("N"), "end after N tables"),
    opt(
        Some('s'),
        "sort",
        Some("COLUMN"),
        "sort by COLUMN, the largest first (default iops)",
    ),
    opt(Some('r'), "reverse", None, "the smallest first"),
    opt(
        Some('g'),
        "cgroup",
        Some("TEXT"),
        "only cgroups whose path contains TEXT",
    ),
    opt(
        Some('a'),
        "active",
        None,
        "only devices and cgroups with I/O",
    ),
    opt(Some('t'), "totals", None, "devices without their cgroups"),
    opt(
        Some('f'),
        "flat",
        None,
        "one list of the cgroups of all devices",
    ),
    opt(
        None,
        "root",
        Some("DIR"),
        "read DIR/proc and DIR/sys (default /)",
    ),
    opt(None, "columns", None, "explain the columns"),
    opt(None, "schema", None, "print the JSON schema of --json"),
    opt(Some('h'), "help", None, "print this text"),
    opt(Some('V'), "version", None, "print the version"),
];

/// The explanation of the columns, also shown by the key `h`.
pub const COLUMNS: &str = "\
R/S W/S D/S F/S  reads, writes, discards (and write-zeroes), flushes per second
RB/S WB/S        bytes read and written per second
LAT              mean latency of a device's requests (the kernel has none by
                 cgroup: loop-top(1) has an example with bpftrace)
WAIT             requests that the cgroup's worker has not taken
INFL             requests in flight, deferred ones included
DEFER            deferred requests: detached from their tags, so that others
                 can have these
INL%             share of requests issued by the task that submitted them; the
                 worker issues the rest
HELD             for how long requests have been held up: the age of the oldest
                 that waits, or the time without a completion
IDLE             time since the worker became idle
WRK/S            requests per second given to the worker
FALLB            requests of cgroups for whose queue there was no memory
";

/// The schema of the JSON.
const SCHEMA: &str = include_str!("../loop-top.schema.json");

fn usage() -> String {
    let mut text = String::from(
        "usage: loop-top [OPTION]... [DEVICE]...\n\n\
         Show the I/O of loop devices by device and cgroup: all attached devices, or\n\
         those named (loop0 or /dev/loop0).\n\n",
    );
    for option in &OPTIONS {
        let short = option
            .short
            .map_or("    ".to_owned(), |short| format!("-{short}, "));
        let mut name = format!("--{}", option.long);
        if let Some(value) = option.value {
            name += &format!(" {value}");
        }
        text += &format!("  {short}{name:<17} {}\n", option.help);
    }
    text += "\ncolumns to sort by:";
    for (n, column) in SORTS.iter().enumerate() {
        text += if n % 8 == 0 { "\n  " } else { " " };
        text += column.name();
    }
    text += "\n\nKeys: h explains them.  See loop-top(1).\n";
    text
}

/// Parses the arguments after the program's name.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let mut parsed = Args {
        mode: Mode::Watch,
        delay: Duration::from_secs(1),
        count: None,
        choice: Choice {
            sort: Column::Iops,
            reverse: false,
            cgroup: None,
            active: false,
            totals: false,
            flat: false,
        },
        devices: Vec::new(),
        output: None,
        root: PathBuf::from("/"),
    };
    let mut args = args
        .into_iter()
        .map(|arg| arg.to_string_lossy().into_owned());
    while let Some(arg) = args.next() {
        if arg == "--" {
            parsed.devices.extend(args.by_ref().map(|arg| device(&arg)));
        } else if let Some(long) = arg.strip_prefix("--") {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (long, None),
            };
            let option = OPTIONS
                .iter()
                .find(|option| option.long == name)
                .ok_or_else(|| format!("unknown option --{name}"))?;
            let value = match (option.value, value) {
                (None, Some(_)) => return Err(format!("--{name} has no value")),
                (Some(_), None) => args.next(),
                (_, value) => value,
            };
            if let Some(text) = parsed.set(option, value)? {
                return Ok(Command::Print(text));
            }
        } else if arg.len() > 1 && arg.starts_with('-') {
            let mut letters = arg[1..].chars();
            while let Some(letter) = letters.next() {
                let option = OPTIONS
                    .iter()
                    .find(|option| option.short == Some(letter))
                    .ok_or_else(|| format!("unknown option -{letter}"))?;
                let mut value = None;
                if option.value.is_some() {
                    let rest = letters.as_str();
                    value = match rest {
                        "" => args.next(),
                        _ => Some(rest.to_owned()),
                    };
                    letters = "".chars();
                }
                if let Some(text) = parsed.set(option, value)? {
                    return Ok(Command::Print(text));
                }
            }
        } else {
            parsed.devices.push(device(&arg));
        }
    }
    if parsed.output.is_some() && parsed.mode == Mode::Watch {
        return Err("--output needs --once, --json or --prometheus".to_owned());
    }
    Ok(Command::Run(Box::new(parsed)))
}

/// The name of a device without its directory.
fn device(arg: &str) -> String {
    arg.strip_prefix("/dev/").unwrap_or(arg).to_owned()
}

impl Args {
    /// Applies an option; returns the text to print if it asks for one.
    fn set(&mut self, option: &Opt, value: Option<String>) -> Result<Option<String>, String> {
        let value = match (option.value, value) {
            (Some(what), None) => return Err(format!("--{} needs a value: {what}", option.long)),
            (_, value) => value.unwrap_or_default(),
        };
        match option.long {
            "once" => self.mode = Mode::Once,
            "json" => self.mode = Mode::Json,
            "prometheus" => self.mode = Mode::Prometheus,
            "output" => self.output = Some(PathBuf::from(value)),
            "delay" => self.delay = delay(&value)?,
            "count" => {
                let count = value.parse().ok().filter(|count| *count > 0);
                self.count = Some(count.ok_or_else(|| format!("{value} is no number of tables"))?);
            }
            "sort" => {
                self.choice.sort = Column::from_name(&value)
                    .ok_or_else(|| format!("there is no column {value}"))?;
            }
            "reverse" => self.choice.reverse = true,
            "cgroup" => self.choice.cgroup = Some(value),
            "active" => self.choice.active = true,
            "totals" => self.choice.totals = true,
            "flat" => self.choice.flat = true,
            "root" => self.root = PathBuf::from(value),
            "columns" => return Ok(Some(COLUMNS.to_owned())),
            "schema" => return Ok(Some(SCHEMA.to_owned())),
            "help" => return Ok(Some(usage())),
            _ => return Ok(Some(format!("loop-top {}\n", env!("CARGO_PKG_VERSION")))),
        }
        Ok(None)
    }
}

/// Parses a time in seconds: 0.1 to a day.
pub fn delay(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .filter(|seconds| (0.1..=86400.0).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| format!("{text} is no delay: 0.1 to 86400 seconds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str]) -> Result<Args, String> {
        match parse(args.iter().map(OsString::from))? {
            Command::Run(args) => Ok(*args),
            Command::Print(text) => Err(text),
        }
    }

    #[test]
    fn options() {
        let args = run(&[
            "-1rd2.5",
            "--sort=held",
            "-g",
            "/a b",
            "/dev/loop3",
            "loop4",
        ])
        .unwrap();
        assert_eq!(args.mode, Mode::Once);
        assert_eq!(args.delay, Duration::from_millis(2500));
        assert!(args.choice.reverse);
        assert_eq!(args.choice.sort, Column::Held);
        assert_eq!(args.choice.cgroup.as_deref(), Some("/a b"));
        assert_eq!(args.devices, ["loop3", "loop4"]);
        assert_eq!(run(&["--", "-1"]).unwrap().devices, ["-1"]);
    }

    #[test]
    fn errors() {
        for (args, error) in [
            (&["-x"][..], "unknown option -x"),
            (&["--once=1"], "--once has no value"),
            (&["-d"], "--delay needs a value: SECONDS"),
            (&["-d", "nan"], "nan is no delay: 0.1 to 86400 seconds"),
            (&["-s", "size"], "there is no column size"),
            (&["-n0"], "0 is no number of tables"),
            (
                &["-o", "f"],
                "--output needs --once, --json or --prometheus",
            ),
        ] {
            assert_eq!(run(args).unwrap_err(), error);
        }
    }

    #[test]
    fn help() {
        let text = run(&["-h"]).unwrap_err();
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        assert!(COLUMNS.lines().all(|line| line.len() <= 80));
        for column in SORTS {
            assert!(text.contains(column.name()));
        }
    }

    #[test]
    fn documented() {
        let page = include_str!("../loop-top.1").replace("\\-", "-");
        let completion = include_str!("../loop-top.bash");
        for option in &OPTIONS {
            let name = format!("--{}", option.long);
            assert!(page.contains(&name), "{name} is not in the man page");
            assert!(completion.contains(&name), "{name} has no completion");
            if let Some(short) = option.short {
                assert!(
                    page.contains(&format!(".BR -{short} ")),
                    "-{short} is not in the man page"
                );
            }
        }
        for column in Column::all() {
            let name = column.name();
            assert!(page.contains(name), "{name} is not in the man page");
            assert!(completion.contains(name), "{name} has no completion");
        }
    }
}
