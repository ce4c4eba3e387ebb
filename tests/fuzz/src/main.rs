// SPDX-License-Identifier: GPL-2.0

//! All ioctls of the loop driver, in random order with random arguments, by several processes on
//! the same few devices, with I/O beside them: what comes of each must be something that can.

mod acts;
mod aio;
mod copied;
mod crowd;
mod files;
mod lane;
mod progress;
mod quiet;
mod rng;
mod shared;
#[path = "../../interface/src/sys.rs"]
#[allow(dead_code)] // It has more than is needed here.
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

Make random calls of a loop driver that is loaded, as root, and print KTAP.
Files are made in DIR, which must be on a file system that has device nodes. No
loop device may be bound; all are removed in the end.

crowd   by several processes, of two threads each, on the same few devices, with
        I/O beside them; now and then one is killed. Each call must fail as it
        can, or not at all; what is copied out must be initialized; what is read
        must have been written; nobody may hang; all devices must come off.
user    by a user without rights, who can open nothing, and who has inherited
        descriptors for reading: nothing but EPERM, EACCES or EBADF for what
        changes something, and nothing changes.
copied  by one process: each byte that is copied out is the same twice over
        different contents of the buffer, and what was set.

--seed N       (default: of the time) the same calls again
--calls N      (default 20000) how many in total
--processes N  (default 4) of the crowd
--devices N    (default 5) that the crowd uses
--lane N       only this one's calls; there are two in a process
--progress N   (default: never) tell on stderr how far it is every N seconds
--no-kill      let the processes live
--no-nesting   do not attach partitions of loop devices: the C driver hangs
               when one is attached to its own device
--verbose      print each call, and what it returned

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

/// What there is to be said of a run.
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

    /// A case, and why it failed.
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
    let because = |error: std::io::Error| error.to_string();
    let dir = PathBuf::from(dir);
    let known = files::make(&dir, options.devices)?;
    let world = World {
        seed: options.seed,
        scale: acts::Scale {
            devices: options.devices,
            home: 0,
            nesting: options.nesting,
            compat: sys::has_compat(),
        },
        shared: Shared::new(lane::LANES * options.processes).map_err(because)?,
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
            _ => Err("what to do, and where? (see --help)".into()),
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
