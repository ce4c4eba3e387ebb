// SPDX-License-Identifier: GPL-2.0

//! loop-top: shows the I/O of loop devices by device and cgroup.
//!
//! [`host`] reads a snapshot of the [`counters`], and [`model`] computes the difference between two
//! snapshots. [`table`], [`json`] and [`prometheus`] format it; [`screen`] shows the table on a
//! [`terminal`] and updates it.

mod args;
mod counters;
mod format;
mod host;
mod json;
mod model;
mod prometheus;
mod screen;
mod table;
mod terminal;

use args::{Args, Command, Mode};
use host::Host;
use model::{Model, View};
use std::{
    env, fs,
    io::{self, Write},
    path::Path,
    process::{self, ExitCode},
    thread::sleep,
    time::Instant,
};

fn main() -> ExitCode {
    let args = match args::parse(env::args_os().skip(1)) {
        Ok(Command::Run(args)) => *args,
        Ok(Command::Print(text)) => return finish(print(&text)),
        Err(error) => {
            eprintln!("loop-top: {error} (see loop-top --help)");
            return ExitCode::from(2);
        }
    };
    let host = Host::new(&args.root);
    let result = match args.mode {
        Mode::Watch if terminal::is_usable() => screen::run(args, host).map_err(from_io),
        Mode::Watch => watch(&args, &host),
        _ => once(&args, &host),
    };
    finish(result)
}

fn finish(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is_empty() {
                eprintln!("loop-top: {error}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Nothing is said when the reader of a pipe has ended.
fn from_io(error: io::Error) -> String {
    match error.kind() {
        io::ErrorKind::BrokenPipe => String::new(),
        _ => error.to_string(),
    }
}

fn print(text: &str) -> Result<(), String> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(from_io)
}

/// Replaces a file: its readers see the old or the new text.
fn replace(file: &Path, text: &str) -> Result<(), String> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", process::id()));
    let new = file.with_file_name(name);
    fs::write(&new, text)
        .and_then(|()| fs::rename(&new, file))
        .map_err(|error| {
            let _ = fs::remove_file(&new);
            format!("{}: {error}", file.display())
        })
}

/// Prints one table, JSON, or metrics.
fn once(args: &Args, host: &Host) -> Result<(), String> {
    let mut model = Model::default();
    let mut view = model.update(host.snapshot(&args.devices)?);
    if args.mode != Mode::Prometheus {
        sleep(args.delay);
        view = model.update(host.snapshot(&args.devices)?);
    }
    if !args.devices.is_empty() {
        for name in &args.devices {
            if !view.groups.iter().any(|group| group.device.device == *name) {
                return Err(screen::no_device(&[name.clone()]));
            }
        }
    }
    if let Some(note) = &view.note {
        eprintln!("loop-top: note: {note}");
    }
    let mut choice = args.choice.clone();
    // Only the table has a list without devices.
    choice.flat &= args.mode == Mode::Once;
    let text = match args.mode {
        Mode::Json => json::write(&view, &choice.rows(&view)),
        Mode::Prometheus => prometheus::write(&view, &choice.rows(&view)),
        _ => table(args, &view),
    };
    match &args.output {
        Some(file) => replace(file, &text),
        None => print(&text),
    }
}

/// Prints tables one after the other.
fn watch(args: &Args, host: &Host) -> Result<(), String> {
    let mut model = Model::default();
    let mut snapshot = host.snapshot(&args.devices)?;
    if let Some(note) = &snapshot.note {
        eprintln!("loop-top: note: {note}");
    }
    model.update(snapshot);
    let mut deadline = Instant::now();
    let mut shown = 0;
    while args.count.is_none_or(|count| shown < count) {
        deadline += args.delay;
        sleep(deadline.saturating_duration_since(Instant::now()));
        snapshot = host.snapshot(&args.devices)?;
        let text = table(args, &model.update(snapshot));
        print(if shown > 0 { "\n" } else { "" })?;
        print(&text)?;
        shown += 1;
    }
    Ok(())
}

fn table(args: &Args, view: &View) -> String {
    let columns = || env::var("COLUMNS").ok()?.parse().ok();
    let width = terminal::size().map(|(width, _)| width).or_else(columns);
    let mut text = table::lines(view, &args.choice, width.unwrap_or(80)).join("\n");
    text.push('\n');
    if view.groups.is_empty() {
        text += &screen::no_device(&args.devices);
        text.push('\n');
    }
    text
}
