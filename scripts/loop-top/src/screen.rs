// SPDX-License-Identifier: GPL-2.0

//! The table on the terminal, updated until a key ends the program.

use crate::{
    args::{self, Args, COLUMNS},
    format,
    host::Host,
    model::{Model, Row, View},
    table::{Column, Layout, SORTS},
    terminal::{self, Event, Key, Terminal},
};
use std::{
    env, io,
    time::{Duration, Instant},
};

const KEYS: &str = "\
Keys: q quit           s S sort by the next, the previous column
      r reverse        arrows, PgUp, PgDn, Home, End: scroll
      a only active    space: sample now
      t only devices   p pause
      f one list       d change the delay
      h this text      g only cgroups with some text in their path

";

/// Lines above the rows: the summary, a note, the titles, the sums.
const HEAD: usize = 4;

const REVERSE: &str = "\x1b[7m";
const BOLD: &str = "\x1b[1m";
const YELLOW: &str = "\x1b[33m";
const PLAIN: &str = "\x1b[0m";

/// A question at the top of the screen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Question {
    Cgroup,
    Delay,
}

impl Question {
    fn text(self) -> &'static str {
        match self {
            Self::Cgroup => "Only cgroups whose path contains: ",
            Self::Delay => "Seconds between two samples: ",
        }
    }
}

struct Screen {
    args: Args,
    host: Host,
    model: Model,
    view: Result<View, String>,
    /// Number of rows above the screen.
    skipped: usize,
    question: Option<(Question, String)>,
    message: String,
    help: bool,
    paused: bool,
    colours: bool,
}

/// Shows the table until the user quits.
pub fn run(args: Args, host: Host) -> io::Result<()> {
    let terminal = Terminal::new()?;
    let count = args.count;
    let mut screen = Screen {
        args,
        host,
        model: Model::default(),
        view: Err(String::new()),
        skipped: 0,
        question: None,
        message: String::new(),
        help: false,
        paused: false,
        colours: env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
    };
    screen.sample();
    // The first rates soon.
    let mut deadline = Instant::now() + screen.args.delay.min(Duration::from_millis(250));
    let mut shown = 0;
    loop {
        terminal.write(&screen.frame(terminal::size().unwrap_or((80, 24))))?;
        if count.is_some_and(|count| shown >= count) {
            return Ok(());
        }
        let mut now = false;
        match terminal.wait(deadline)? {
            Event::Quit => return Ok(()),
            Event::Redraw => {}
            Event::Timeout => now = true,
            Event::Keys(keys) => {
                for key in keys {
                    match screen.key(key) {
                        After::Quit => return Ok(()),
                        After::Sample => now = true,
                        After::Draw => {}
                    }
                }
            }
        }
        if now {
            if !screen.paused {
                screen.sample();
                shown += 1;
            }
            deadline = Instant::now() + screen.args.delay;
        }
    }
}

/// Action after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Draw,
    Sample,
    Quit,
}

impl Screen {
    fn sample(&mut self) {
        self.view = self
            .host
            .snapshot(&self.args.devices)
            .map(|snapshot| self.model.update(snapshot));
    }

    fn key(&mut self, key: Key) -> After {
        self.message.clear();
        if let Some((question, text)) = self.question.take() {
            return self.answer(question, text, key);
        }
        if self.help {
            self.help = false;
            return After::Draw;
        }
        let page = terminal::size()
            .map_or(24, |(_, height)| height)
            .saturating_sub(HEAD);
        let choice = &mut self.args.choice;
        match key {
            Key::Char('q') => return After::Quit,
            Key::Char(' ') => {
                self.paused = false;
                return After::Sample;
            }
            Key::Char('h' | '?') => self.help = true,
            Key::Char('s') => choice.sort = next(choice.sort, 1),
            Key::Char('S') => choice.sort = next(choice.sort, SORTS.len() - 1),
            Key::Char('r') => choice.reverse = !choice.reverse,
            Key::Char('a') => choice.active = !choice.active,
            Key::Char('t') => choice.totals = !choice.totals,
            Key::Char('f') => choice.flat = !choice.flat,
            Key::Char('p') => self.paused = !self.paused,
            Key::Char('g' | '/') => {
                let text = choice.cgroup.clone().unwrap_or_default();
                self.question = Some((Question::Cgroup, text));
            }
            Key::Char('d') => self.question = Some((Question::Delay, String::new())),
            Key::Up => self.skipped = self.skipped.saturating_sub(1),
            Key::Down => self.skipped += 1,
            Key::PageUp => self.skipped = self.skipped.saturating_sub(page),
            Key::PageDown => self.skipped += page,
            Key::Home => self.skipped = 0,
            Key::End => self.skipped = usize::MAX,
            _ => {}
        }
        After::Draw
    }

    fn answer(&mut self, question: Question, mut text: String, key: Key) -> After {
        match key {
            Key::Escape => return After::Draw,
            Key::Enter => match question {
                Question::Cgroup => {
                    self.args.choice.cgroup = Some(text).filter(|text| !text.is_empty());
                    return After::Draw;
                }
                Question::Delay => {
                    match args::delay(&text) {
                        Ok(delay) => self.args.delay = delay,
                        Err(error) => self.message = error,
                    }
                    return After::Sample;
                }
            },
            Key::Backspace => {
                text.pop();
            }
            Key::Char(c) => text.push(c),
            _ => {}
        }
        self.question = Some((question, text));
        After::Draw
    }

    /// The first line.
    fn summary(&self) -> String {
        let choice = &self.args.choice;
        let mut parts = Vec::new();
        if let Ok(view) = &self.view {
            let cgroups: usize = view.groups.iter().map(|group| group.cgroups.len()).sum();
            parts.push(view.driver.name().to_owned());
            parts.push(format!("devices {}", view.groups.len()));
            parts.push(format!("cgroups {cgroups}"));
        }
        parts.push(match self.paused {
            true => "paused".to_owned(),
            false => format!("every {} s", self.args.delay.as_secs_f64()),
        });
        let order = if choice.reverse { ", reversed" } else { "" };
        parts.push(format!("by {}{order}", choice.sort.name()));
        format!("loop-top  {}  (h: help)", parts.join("  "))
    }

    /// The second line: the question, a message, or notes.
    fn note(&self) -> String {
        if let Some((question, text)) = &self.question {
            return format!("{}{text}_", question.text());
        }
        if !self.message.is_empty() {
            return self.message.clone();
        }
        let mut parts = match &self.view {
            Err(error) => vec![error.clone()],
            Ok(view) if view.groups.is_empty() => vec![no_device(&self.args.devices)],
            Ok(view) => view.note.iter().cloned().collect(),
        };
        if let Some(cgroup) = &self.args.choice.cgroup {
            parts.push(format!("only cgroups with {cgroup}"));
        }
        if self.args.choice.active {
            parts.push("only active ones".to_owned());
        }
        parts.join("; ")
    }

    /// The text that draws the screen.
    fn frame(&mut self, (width, height): (usize, usize)) -> String {
        let mut lines = vec![(BOLD, self.summary()), (PLAIN, self.note())];
        if self.help {
            lines.extend(
                KEYS.lines()
                    .chain(COLUMNS.lines())
                    .map(|l| (PLAIN, l.to_owned())),
            );
        } else if let Ok(view) = &self.view {
            let choice = &self.args.choice;
            let rows = choice.rows(view);
            let room = height.saturating_sub(HEAD);
            self.skipped = self.skipped.min(rows.len().saturating_sub(room));
            let layout = Layout::new(width, &rows, choice);
            lines.push((REVERSE, format!("{:<width$}", layout.titles(choice))));
            lines.push((BOLD, layout.line(&view.all, choice)));
            for row in rows.iter().skip(self.skipped).take(room) {
                lines.push((self.style(row), layout.line(row, choice)));
            }
        }
        let mut frame = String::from("\x1b[H");
        for (n, (style, line)) in lines.iter().take(height).enumerate() {
            if n > 0 {
                frame += "\r\n";
            }
            let line: String = format::printable(line).chars().take(width).collect();
            frame += style;
            frame += &line;
            frame += PLAIN;
            frame += "\x1b[K";
        }
        frame += "\x1b[J";
        frame
    }

    fn style(&self, row: &Row) -> &'static str {
        if self.colours && row.held_ms >= Some(1000) {
            YELLOW
        } else if row.cgroup.is_none() {
            BOLD
        } else {
            PLAIN
        }
    }
}

fn next(sort: Column, step: usize) -> Column {
    let at = SORTS.iter().position(|column| *column == sort).unwrap_or(0);
    SORTS[(at + step) % SORTS.len()]
}

/// Reason why the table is empty.
pub fn no_device(wanted: &[String]) -> String {
    match wanted {
        [] => "no loop device is attached".to_owned(),
        [name] => format!("{name} is no attached loop device"),
        _ => format!(
            "none of these is an attached loop device: {}",
            wanted.join(" ")
        ),
    }
}
