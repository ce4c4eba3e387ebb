// SPDX-License-Identifier: GPL-2.0

//! The run "crowd": several processes on the same devices.

use crate::{
    files,
    lane::{Lane, Process, World, LANES},
    ops::KINDS,
    progress::Progress,
    rng::Rng,
    shared::Fault,
    Options, Report,
};
use nix::{
    sys::{
        signal::{kill, Signal},
        wait::{waitpid, WaitPidFlag, WaitStatus},
    },
    unistd::{fork, ForkResult, Pid},
};
use std::{
    fs,
    sync::atomic::Ordering::Relaxed,
    thread::{self, sleep},
    time::{Duration, Instant},
};

/// The time limit of a call.
const LIMIT: Duration = Duration::from_secs(30);

struct Child {
    pid: Pid,
    index: usize,
    killed: bool,
    /// The number of calls at the last check that saw progress, and the time of that check.
    begun: u32,
    since: Instant,
}

/// The outcome of all processes.
#[derive(Default)]
struct End {
    wrong: Vec<String>,
    killed: u32,
}

/// Runs the lanes of a process in a child.
fn spawn(options: &Options, world: &World, index: usize) -> Result<Child, String> {
    let calls = options.calls / (options.processes * LANES) as u32;
    // SAFETY: There is one thread.
    match unsafe { fork() } {
        Ok(ForkResult::Parent { child }) => Ok(Child {
            pid: child,
            index,
            killed: false,
            begun: 0,
            since: Instant::now(),
        }),
        Ok(ForkResult::Child) => {
            // SAFETY: Only sets the signal for the death of the parent.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            let process = Process::new(world);
            thread::scope(|scope| {
                for mix in 0..LANES {
                    let lane = LANES * index + mix;
                    if options.lane.is_some_and(|only| only != lane) {
                        continue;
                    }
                    let process = &process;
                    scope.spawn(move || match Lane::new(process, lane, mix) {
                        Ok(mut lane) => lane.run(calls),
                        Err(error) => panic!("{error}"),
                    });
                }
            });
            std::process::exit(0);
        }
        Err(errno) => Err(format!("fork: {errno}")),
    }
}

fn begun(world: &World, process: usize) -> Vec<u32> {
    (LANES * process..LANES * (process + 1))
        .map(|lane| world.shared.begun(lane).load(Relaxed))
        .collect()
}

/// The kernel stacks of the threads of a process.
fn stacks(pid: Pid) -> Vec<String> {
    let mut text = Vec::new();
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    for task in tasks.into_iter().flatten().flatten() {
        text.push(format!("task {}:", task.file_name().to_string_lossy()));
        let stack = fs::read_to_string(task.path().join("stack")).unwrap_or_default();
        text.extend(stack.lines().map(|line| format!("  {line}")));
    }
    text
}

fn supervise(options: &Options, world: &World, progress: &mut Progress) -> Result<End, String> {
    let limit = LIMIT * crate::slow() as u32;
    let mut rng = Rng::new(world.seed, usize::MAX, 0);
    let mut kill_at = Instant::now() + Duration::from_millis(rng.below(800));
    let mut end = End::default();
    let mut running = Vec::new();
    for index in 0..options.processes {
        running.push(spawn(options, world, index)?);
    }
    while !running.is_empty() {
        sleep(Duration::from_millis(10));
        progress.look(
            (0..options.processes)
                .flat_map(|index| begun(world, index))
                .sum(),
        );
        let mut still = Vec::new();
        for mut child in running {
            match waitpid(child.pid, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => {
                    let begun = begun(world, child.index).iter().sum();
                    if begun != child.begun {
                        (child.begun, child.since) = (begun, Instant::now());
                    }
                    still.push(child);
                }
                Ok(WaitStatus::Exited(_, 0)) => (),
                Ok(WaitStatus::Signaled(_, Signal::SIGKILL, _)) if child.killed => {
                    still.push(spawn(options, world, child.index)?);
                }
                other => {
                    let begun = begun(world, child.index);
                    end.wrong.push(format!(
                        "process {} ended with {other:?}, after {begun:?} calls",
                        child.index
                    ));
                }
            }
        }
        running = still;
        if let Some(child) = running.iter().find(|child| child.since.elapsed() > limit) {
            let begun = begun(world, child.index);
            end.wrong.push(format!(
                "process {} hangs, after {begun:?} calls{}",
                child.index,
                if child.killed { ", killed" } else { "" }
            ));
            running
                .iter()
                .for_each(|child| end.wrong.extend(stacks(child.pid)));
            running.iter().for_each(|child| {
                let _ = kill(child.pid, Signal::SIGKILL);
            });
            return Ok(end);
        }
        if options.kill && Instant::now() > kill_at && !running.is_empty() {
            let index = rng.index(running.len());
            if !running[index].killed && kill(running[index].pid, Signal::SIGKILL).is_ok() {
                running[index].killed = true;
                end.killed += 1;
            }
            kill_at = Instant::now() + Duration::from_millis(200 + rng.below(800));
        }
    }
    Ok(end)
}

/// With that many calls of a kind, at least one must have succeeded. Of the kinds that fail most,
/// removing a device and allocating a range, one call in fifty succeeds.
const ENOUGH: u32 = 500;

pub fn run(
    options: &Options,
    world: &World,
    progress: &mut Progress,
    report: &mut Report,
) -> Result<(), String> {
    let start = Instant::now();
    let end = supervise(options, world, progress)?;
    let took = start.elapsed();
    // Clean up after any error.
    let left = files::clean();

    let (mut calls, mut never) = (0, Vec::new());
    for (index, kind) in KINDS.iter().enumerate() {
        let (succeeded, errors) = world.shared.counted(index);
        let failed: u32 = errors.iter().map(|(_, n)| n).sum();
        calls += succeeded + failed;
        let errors: Vec<String> = errors
            .iter()
            .map(|(errno, n)| format!("{errno:?} {n}"))
            .collect();
        report.note(&format!(
            "{}: ok {succeeded} {}",
            kind.name,
            errors.join(" ")
        ));
        let made = succeeded + failed;
        if kind.succeeds && succeeded == 0 && made >= ENOUGH || made == 0 {
            never.push(format!("{}: never", kind.name));
        }
    }
    report.note(&format!(
        "{calls} calls in {} ms, {} processes killed, seed {}",
        took.as_millis(),
        end.killed,
        options.seed
    ));
    report.case("no process died or hung", &end.wrong);
    let faults = |fault| match world.shared.faults(fault) {
        0 => Vec::new(),
        n => vec![format!("{n} times, see above")],
    };
    report.case("each call has an expected result", &faults(Fault::Error));
    report.case("copied-out memory is initialized", &faults(Fault::Copied));
    report.case("data that is read was written", &faults(Fault::Data));
    report.case("all devices can be removed", &left);
    // A run with few calls need not include all kinds.
    if options.calls >= 10_000 && options.lane.is_none() {
        report.case("each kind of call was made and succeeded", &never);
    }
    Ok(())
}
