// SPDX-License-Identifier: GPL-2.0

//! All ioctls of the loop driver, in random order with random arguments, by several processes on
//! the same few devices, with concurrent I/O: each call must have an expected result.

mod aio;
mod copied;
mod crowd;
mod files;
mod lane;
mod ops;
mod progress;
mod quiet;
mod rng;
mod shared;
#[path = "../../interface/src/sys.rs"]
#[allow(dead_code)] // Has functions that only interface/ uses.
mod sys;
#[path = "../../interface/src/uapi.rs"]
mod uapi;
mod user;

use lane::World;
use progress::Progress;
use shared::Shared;
use std::{
    env,
    path::PathBuf,
    process::ExitCode,
    str::FromStr,
    time::{SystemTime, UNIX_EPOCH},
};

const USAGE: &str = "\
usage: loop_fuzz [OPTION]... crowd DIR
       loop_fuzz [OPTION]... user DIR
       loop_fuzz [OPTION]... copied DIR

Make random calls of a loaded loop driver, as root, and print KTAP. Files are
created in DIR, which must be on a file system with device nodes. No loop device
may be attached; all devices are removed at the end.

crowd   by several processes with two threads each, on the same few devices, with
        concurrent I/O; some processes are killed. Each call must succeed or fail
        with an expected error; copied-out memory must be initialized; data that is
        read must have been written; no call may hang; all devices can be removed.
user    by a user without privileges, who can't open a device, but has inherited
        descriptors for reading: calls that would change a device fail with EPERM,
        EACCES or EBADF, and no device changes.
copied  by one process: two calls with buffers of different contents copy out the
        same bytes, and these are the values that were set.

--seed N       (default: random) the seed of the calls
--calls N      (default 20000) the total number of calls
--processes N  (default 4) the processes of the crowd
--devices N    (default 5) the devices of the crowd
--lane N       only the calls of this thread (two for each process)
--progress N   (default: never) print progress to stderr every N seconds
--no-kill      do not kill processes
--no-nesting   do not attach partitions of loop devices: the C driver hangs
               when one is attached to its own device
--verbose      print each call and its result

SLOW in the environment is a factor for all time limits.
";

pub struct Options {
    pub seed: u64,
    pub calls: u32,
    pub processes: usize,
    pub devices: u64,
    pub lane: Option<usize>,
    pub progress: Option<u64>,
    pub kill: bool,
    pub nesting: bool,
    pub verbose: bool,
}

/// The report of a run.
#[derive(Default)]
pub struct Report {
    text: String,
    cases: u32,
    failed: u32,
}

impl Report {
    pub fn note(&mut self, what: &str) {
        self.text.push_str(&format!("# {what}\n"));
    }

    /// Adds a test case, which has failed if `wrong` has reasons.
    pub fn case(&mut self, name: &str, wrong: &[String]) {
        for line in wrong {
            self.note(line);
        }
        self.cases += 1;
        self.failed += u32::from(!wrong.is_empty());
        let not = if wrong.is_empty() { "" } else { "not " };
        self.text
            .push_str(&format!("{not}ok {} {name}\n", self.cases));
    }
}

fn parse<T: FromStr>(name: &str, value: Option<String>) -> Result<T, String> {
    value
        .and_then(|text| text.parse().ok())
        .ok_or(format!("{name} needs a number (see --help)"))
}

fn options(args: impl Iterator<Item = String>) -> Result<(Options, Vec<String>), String> {
    let mut args = args;
    let mut options = Options {
        seed: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_nanos() as u64 % 1_000_000_007),
        calls: 20_000,
        processes: 4,
        devices: 5,
        lane: None,
        progress: None,
        kill: true,
        nesting: true,
        verbose: false,
    };
    let mut rest = Vec::new();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--seed" => options.seed = parse(&arg, args.next())?,
            "--calls" => options.calls = parse(&arg, args.next())?,
            "--processes" => options.processes = parse(&arg, args.next())?,
            "--devices" => options.devices = parse(&arg, args.next())?,
            "--lane" => options.lane = Some(parse(&arg, args.next())?),
            "--progress" => options.progress = Some(parse(&arg, args.next())?),
            "--no-kill" => options.kill = false,
            "--no-nesting" => options.nesting = false,
            "--verbose" => options.verbose = true,
            _ if arg.starts_with('-') => return Err(format!("no option {arg} (see --help)")),
            _ => rest.push(arg),
        }
    }
    if !(1..=64).contains(&options.processes) || !(1..=64).contains(&options.devices) {
        return Err("there can be 1 to 64 processes and devices".into());
    }
    if options
        .lane
        .is_some_and(|only| only >= lane::LANES * options.processes)
    {
        return Err("there is no such lane".into());
    }
    Ok((options, rest))
}

pub fn slow() -> u64 {
    env::var("SLOW")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1)
}

fn run(options: &Options, what: &str, dir: &str) -> Result<Report, String> {
    let context = |error: std::io::Error| error.to_string();
    let dir = PathBuf::from(dir);
    let known = files::make(&dir, options.devices)?;
    let world = World {
        seed: options.seed,
        scale: ops::Scale {
            devices: options.devices,
            home: 0,
            nesting: options.nesting,
            compat: sys::has_compat(),
        },
        shared: Shared::new(lane::LANES * options.processes).map_err(context)?,
        dir,
        known,
        verbose: options.verbose,
    };
    let mut report = Report::default();
    let mut progress = Progress::new(options, what);
    match what {
        "crowd" => crowd::run(options, &world, &mut progress, &mut report)?,
        "user" => user::run(options, &world, &mut progress, &mut report)?,
        _ => quiet::run(options, &world, &mut progress, &mut report)?,
    }
    Ok(report)
}

fn main() -> ExitCode {
    if env::args().any(|arg| arg == "-h" || arg == "--help") {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let result = options(env::args().skip(1)).and_then(|(options, rest)| {
        let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
        match rest[..] {
            [what @ ("crowd" | "user" | "copied"), dir] => {
                println!("KTAP version 1");
                println!("# {what}, seed {}", options.seed);
                run(&options, what, dir)
            }
            _ => Err("no run or no directory (see --help)".into()),
        }
    });
    match result {
        Ok(report) => {
            print!("{}1..{}\n", report.text, report.cases);
            match report.failed {
                0 => ExitCode::SUCCESS,
                _ => ExitCode::FAILURE,
            }
        }
        Err(why) => {
            println!("Bail out! {why}");
            ExitCode::from(2)
        }
    }
}
