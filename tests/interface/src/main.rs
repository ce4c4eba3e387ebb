// SPDX-License-Identifier: GPL-2.0

//! The whole interface of the loop driver, on the C driver and on loop_rs: each ioctl in each state
//! of a device, with valid and invalid arguments, sysfs, uevents and so on. `record` records the
//! outcomes of one driver; `compare` compares the records of two.

mod compare;
mod ops;
mod scenarios;
mod states;
mod sys;
mod uapi;
mod world;

use compare::{BROKEN, SKIP};
use scenarios::Session;
use states::{State, STATES};
use std::{
    env, fs,
    io::{self, BufWriter, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};
use sys::{Abi, Arena, Uevents};
use world::{changes, context, Fingerprint, Instance, Setup, Snapshot, World, SPAN};

const USAGE: &str = "\
usage: interface_cases groups
       interface_cases record MODULE NAME DIR
       interface_cases compare FIRST DIFFERENCES LOOP-RECORD LOOP_RS-RECORD

groups   prints the names of the test cases: a state of a device and an
         operation.
record   loads the loop driver in the file MODULE, whose module name is NAME,
         runs all cases, unloads it, and prints a line for each case: group,
         name and outcome, separated by tabs. Files are created in DIR, which
         should have

             image   a small ext4 file system, not mounted
             disk/   a directory on an ext4 file system on a disk

         and there should be RAM disks of 1 MiB. Cases that need something
         missing are skipped.
compare  prints KTAP result lines, numbered from FIRST, one for each group, and
         one for the table of differences; exits 1 if one of them failed.

SLOW in the environment is a factor for all time limits.
";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args[..] {
        ["-h" | "--help"] => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        ["groups"] => {
            groups().iter().for_each(|name| println!("{name}"));
            Ok(true)
        }
        ["record", module, name, dir] => record(module, name, Path::new(dir)).map(|()| true),
        ["state", index, dir] => index
            .parse()
            .map_err(context(index))
            .and_then(|index| record_state(index, Path::new(dir)))
            .map(|()| true),
        ["compare", first, table, c, ours] => compare_files(first, table, c, ours),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("interface_cases: {why}");
            ExitCode::from(2)
        }
    }
}

fn slow() -> u32 {
    env::var("SLOW")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1)
}

/// All groups of cases.
fn groups() -> Vec<String> {
    let ops: Vec<&str> = ops::all().iter().map(|op| op.name).collect();
    STATES
        .iter()
        .flat_map(|state| {
            ["set-up", "sysfs"]
                .iter()
                .chain(&ops)
                .chain(&["last close"])
                .map(|what| format!("{}: {what}", state.name))
                .collect::<Vec<_>>()
        })
        .chain(
            scenarios::SCENARIOS
                .iter()
                .map(|(name, _)| (*name).to_string()),
        )
        .collect()
}

fn compare_files(first: &str, table: &str, c: &str, ours: &str) -> Result<bool, String> {
    let read = |path| fs::read_to_string(path).map_err(context(path));
    let first = first.parse().map_err(context(first))?;
    let release = read("/proc/sys/kernel/osrelease")?;
    let report = compare::compare(
        first,
        &groups(),
        release.trim_end(),
        &read(table)?,
        &read(c)?,
        &read(ours)?,
    )?;
    print!("{}", report.text);
    Ok(report.failed == 0)
}

/// Prints a line of the record.
fn line(out: &mut impl Write, group: &str, case: &str, outcome: &str) {
    let outcome = outcome.replace(['\t', '\n'], " ");
    if let Err(error) = writeln!(out, "{group}\t{case}\t{outcome}") {
        panic!("writing the record: {error}");
    }
}

/// The environment of a process with devices of its own.
fn world(index: u32, dir: PathBuf) -> Setup<World> {
    fs::create_dir_all(&dir).map_err(context(dir.display()))?;
    Ok(World {
        control: open_control()?,
        arena: Arena::new().map_err(context("mmap"))?,
        uevents: Uevents::listen().map_err(context("uevents"))?,
        dir,
        base: 16 + 2 * SPAN * index,
        ram: index,
        slow: slow(),
    })
}

fn open_control() -> Setup<OwnedFd> {
    world::open("/dev/loop-control", libc::O_RDWR).map_err(context("/dev/loop-control"))
}

/// Number of states that are tested concurrently. The processes mostly wait.
const AT_ONCE: usize = 8;

fn record(module: &str, name: &str, dir: &Path) -> Setup<()> {
    let session = Session {
        module: module.into(),
        name: name.into(),
        dir: dir.into(),
        slow: slow(),
    };
    session
        .load("max_loop=0")
        .map_err(|errno| format!("{module}: {errno:?}"))?;
    record_states(dir)?;
    session.unload()?;

    let mut out = io::stdout().lock();
    for (group, scenario) in scenarios::SCENARIOS {
        for (case, outcome) in scenario(&session) {
            line(&mut out, group, &case, &outcome);
        }
        if session.is_loaded() {
            session.unload()?;
        }
    }
    Ok(())
}

/// Tests each state in a process of its own.
fn record_states(dir: &Path) -> Setup<()> {
    let limit = Duration::from_secs(200) * slow();
    let mut running: Vec<(usize, Child, Instant)> = Vec::new();
    let mut ended: Vec<Option<String>> = STATES.iter().map(|_| None).collect();
    let mut next = 0;
    let file = |index: usize| dir.join(format!("record-{index}"));

    while next < STATES.len() || !running.is_empty() {
        if next < STATES.len() && running.len() < AT_ONCE {
            let out = fs::File::create(file(next)).map_err(context("record"))?;
            let child = Command::new("/proc/self/exe")
                .arg("state")
                .arg(next.to_string())
                .arg(dir)
                .stdin(Stdio::null())
                .stdout(out)
                .spawn()
                .map_err(context("spawn"))?;
            running.push((next, child, Instant::now()));
            next += 1;
            continue;
        }
        let mut still = Vec::new();
        for (index, mut child, start) in running {
            match child.try_wait() {
                Ok(None) if start.elapsed() > limit => {
                    let _ = child.kill();
                    let _ = child.wait();
                    ended[index] = Some("time limit exceeded".into());
                }
                Ok(None) => still.push((index, child, start)),
                Ok(Some(status)) => ended[index] = Some(status.to_string()),
                Err(error) => ended[index] = Some(error.to_string()),
            }
        }
        running = still;
        sleep(Duration::from_millis(5));
    }
    let mut out = io::stdout().lock();
    for (index, (state, end)) in STATES.iter().zip(ended).enumerate() {
        let text = fs::read_to_string(file(index)).map_err(context("record"))?;
        out.write_all(text.as_bytes()).map_err(context("record"))?;
        let end = end.unwrap_or_default();
        if end != "exit status: 0" {
            // Remove its devices, so that the driver can be unloaded.
            if let Ok(world) = world(index as u32, dir.join("leftovers")) {
                for nr in world.base..world.base + SPAN {
                    let _ = world.remove(nr);
                }
            }
            let group = format!("{}: last close", state.name);
            line(&mut out, &group, "the process", &format!("{BROKEN}{end}"));
        }
    }
    Ok(())
}

/// Runs all cases of a state.
fn record_state(index: usize, dir: &Path) -> Setup<()> {
    let state = STATES.get(index).ok_or("no such state")?;
    let world = world(index as u32, dir.join(format!("state-{index}")))?;
    let mut run = Run {
        world: &world,
        state,
        compat: sys::has_compat(),
        out: BufWriter::new(io::stdout().lock()),
    };
    run.all()?;
    for nr in world.base..world.base + SPAN {
        world.remove(nr)?;
    }
    // The files take memory that the processes of other states need.
    fs::remove_dir_all(&world.dir).map_err(context("rm"))?;
    run.out.flush().map_err(context("record"))
}

struct Run<'a, W: Write> {
    world: &'a World,
    state: &'a State,
    compat: bool,
    out: W,
}

impl<W: Write> Run<'_, W> {
    fn line(&mut self, op: &str, case: &str, outcome: &str) {
        line(
            &mut self.out,
            &format!("{}: {op}", self.state.name),
            case,
            outcome,
        );
    }

    fn make(&self) -> Setup<Instance> {
        (self.state.make)(self.world).inspect_err(|_| {
            for nr in self.world.base..self.world.base + SPAN {
                let _ = self.world.remove(nr);
            }
        })
    }

    fn all(&mut self) -> Setup<()> {
        let ops = ops::all();
        self.world.take_uevents();
        let mut instance = match self.make() {
            Ok(instance) => instance,
            Err(why) => {
                let why = match why.starts_with(SKIP) {
                    true => why,
                    false => format!("{BROKEN}{why}"),
                };
                let names = ops
                    .iter()
                    .map(|op| op.name)
                    .chain(["set-up", "sysfs", "last close"]);
                for name in names.collect::<Vec<_>>() {
                    self.line(name, "set-up", &why);
                }
                return Ok(());
            }
        };
        let uevents = self.world.take_uevents().join("; ");
        self.line("set-up", "uevents", &uevents);
        let fingerprint = instance.fingerprint(self.world);
        let mut normal = Normal {
            snapshot: instance.snapshot(self.world, &fingerprint),
            fingerprint,
        };
        let sysfs = instance.sysfs(self.world);
        for (key, value) in &sysfs {
            self.line("sysfs", key, value);
        }
        for op in &ops {
            instance = self.op(op, instance, &mut normal)?;
        }
        self.last_close(instance, &sysfs)
    }

    fn op(&mut self, op: &ops::Op, mut instance: Instance, normal: &mut Normal) -> Setup<Instance> {
        let thorough = match op.only_in {
            [] => self.state.thorough,
            states => states.contains(&self.state.name),
        };
        for (index, case) in op.cases.iter().enumerate() {
            if !case.everywhere && !thorough {
                continue;
            }
            for &abi in case.abis {
                // One ioctl shows that 32-bit programs reach the driver in each state.
                if abi == Abi::Compat && !thorough && !(op.is_loop_ioctl() && index == 0) {
                    continue;
                }
                let name = match abi {
                    Abi::Native => case.name.clone(),
                    Abi::Compat => format!("32-bit: {}", case.name),
                };
                if abi == Abi::Compat && !self.compat {
                    self.line(op.name, &name, &format!("{SKIP}no 32-bit calls"));
                    continue;
                }
                let outcome;
                (outcome, instance) = self.case(op, &case.act, abi, instance, normal)?;
                self.line(op.name, &name, &outcome);
            }
        }
        Ok(instance)
    }

    /// Runs a case on a device; returns the outcome, and a device in the same state.
    fn case(
        &mut self,
        op: &ops::Op,
        act: &ops::Act,
        abi: Abi,
        instance: Instance,
        normal: &mut Normal,
    ) -> Setup<(String, Instance)> {
        let world = self.world;
        if op.effect == ops::Effect::Query {
            return Ok((ops::run(world, &instance, abi, act).1, instance));
        }
        let seq = instance.diskseq(world);
        world.take_uevents();
        let (ret, mut outcome) = ops::run(world, &instance, abi, act);
        let uevents = world.take_uevents();
        let now = instance.fingerprint(world);
        if instance.diskseq(world) != seq {
            outcome.push_str("; another diskseq");
        }
        if now != normal.fingerprint
            || (op.effect == ops::Effect::Modify && matches!(ret, Some(Ok(_))))
        {
            for change in changes(&normal.snapshot, &instance.snapshot(world, &now)) {
                outcome.push_str("; ");
                outcome.push_str(&change);
            }
        }
        for uevent in uevents {
            outcome.push_str("; ");
            outcome.push_str(&uevent);
        }
        let instance = if instance.restore(world, &normal.fingerprint, &now) {
            instance
        } else {
            instance.dispose(world)?;
            let instance = self.make()?;
            // The new backing file has another inode number.
            normal.fingerprint = instance.fingerprint(world);
            instance
        };
        Ok((outcome, instance))
    }

    /// The state after the last close.
    fn last_close(&mut self, instance: Instance, sysfs: &Snapshot) -> Setup<()> {
        let world = self.world;
        let nr = instance.nr;
        world.take_uevents();
        let more = instance.more.clone();
        if let Some(dir) = &instance.mounted {
            nix::mount::umount(dir).map_err(context("umount"))?;
        }
        drop(instance.others);
        drop(instance.fd);
        let bound = World::sysfs(nr).join("loop").exists();
        self.line("last close", "bound", &bound.to_string());
        self.line("last close", "uevents", &world.take_uevents().join("; "));
        let now = Instance {
            nr,
            fd: match World::open_loop(nr, libc::O_RDONLY | libc::O_NONBLOCK) {
                Ok(fd) => fd,
                Err(why) => {
                    self.line("last close", "open", &world.canonical(&why));
                    return Ok(());
                }
            },
            others: Vec::new(),
            more,
            mounted: None,
            backing: instance.backing,
            unprivileged: false,
        };
        self.line(
            "last close",
            "after",
            &changes(sysfs, &now.sysfs(world)).join("; "),
        );
        now.dispose(world)
    }
}

/// The visible attributes of a device in a state.
struct Normal {
    snapshot: Snapshot,
    fingerprint: Fingerprint,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn groups_are_unique() {
        let all = groups();
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
        assert!(all.len() > 1000);
    }
}
