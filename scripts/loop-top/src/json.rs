// SPDX-License-Identifier: GPL-2.0

//! JSON, in the style of `losetup --json`. `loop-top.schema.json` describes it.

use crate::{
    counters::OPERATIONS,
    model::{Row, View},
};
use std::fmt::Write;

/// Writes objects and arrays, indented.
#[derive(Default)]
struct Writer {
    text: String,
    depth: usize,
}

impl Writer {
    fn line(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with(['{', '[']) {
            self.text.push(',');
        }
        self.indent();
    }

    fn indent(&mut self) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.extend(std::iter::repeat_n("   ", self.depth));
    }

    fn key(&mut self, name: &str) {
        self.line();
        self.string(name);
        self.text.push_str(": ");
    }

    fn string(&mut self, text: &str) {
        self.text.push('"');
        for c in text.chars() {
            match c {
                '"' | '\\' => self.text.extend(['\\', c]),
                '\0'..' ' => {
                    let _ = write!(self.text, "\\u{:04x}", c as u32);
                }
                _ => self.text.push(c),
            }
        }
        self.text.push('"');
    }

    fn field(&mut self, name: &str, value: &str) {
        self.key(name);
        self.string(value);
    }

    fn number(&mut self, name: &str, value: Option<u64>) {
        self.key(name);
        match value {
            Some(value) => self.text += &value.to_string(),
            None => self.text.push_str("null"),
        }
    }

    fn float(&mut self, name: &str, value: Option<f64>) {
        self.key(name);
        match value.filter(|value| value.is_finite()) {
            Some(value) => self.text += &format!("{value:.6}"),
            None => self.text.push_str("null"),
        }
    }

    fn open(&mut self, bracket: char) {
        self.text.push(bracket);
        self.depth += 1;
    }

    fn close(&mut self, bracket: char) {
        self.depth -= 1;
        self.indent();
        self.text.push(bracket);
    }

    /// The members that devices, cgroups and the totals have.
    fn row(&mut self, row: &Row) {
        for (i, operation) in OPERATIONS.iter().enumerate() {
            self.key(operation);
            self.open('{');
            self.number("ios", Some(row.total.volumes[i].ios));
            self.number("bytes", Some(row.total.volumes[i].bytes));
            self.number("new-ios", Some(row.new.volumes[i].ios));
            self.number("new-bytes", Some(row.new.volumes[i].bytes));
            self.float("iops", Some(row.rate(row.new.volumes[i].ios)));
            self.float("bytes-per-second", Some(row.rate(row.new.volumes[i].bytes)));
            self.float("latency-ms", row.disk.and_then(|disk| disk.latency(i)));
            self.close('}');
        }
        let total = row.total;
        self.number("done", Some(total.done));
        self.number("inline", total.served.map(|served| served.inline));
        self.number("worker", total.served.map(|served| served.worker));
        self.float("inline-percent", row.inline_percent());
        self.number("waiting", row.waiting);
        self.number("in-flight", Some(total.in_flight()));
        self.number("deferred", total.served.map(|_| total.deferred));
        self.number("deferred-total", total.served.map(|served| served.deferred));
        self.number("held-ms", row.held_ms);
        self.number("fallbacks", row.fallbacks);
    }
}

/// The view, with the cgroups in `rows`.
pub fn write(view: &View, rows: &[&Row]) -> String {
    let mut json = Writer::default();
    json.open('{');
    json.field("driver", view.driver.name());
    json.float("interval", Some(view.interval.as_secs_f64()));
    json.key("total");
    json.open('{');
    json.row(&view.all);
    json.close('}');
    json.key("loopdevices");
    json.open('[');
    let mut rows = rows.iter().peekable();
    while let Some(device) = rows.next() {
        json.line();
        json.open('{');
        json.field("name", &format!("/dev/{}", device.device));
        json.field("back-file", &device.file);
        json.row(device);
        json.key("cgroups");
        json.open('[');
        while let Some(cgroup) = rows.next_if(|row| row.cgroup.is_some()) {
            json.line();
            json.open('{');
            json.field("path", cgroup.cgroup.as_deref().unwrap_or_default());
            let state = match cgroup.busy {
                Some(true) => "busy",
                _ => "idle",
            };
            json.field("worker-state", state);
            json.number("idle-ms", cgroup.idle_ms);
            json.row(cgroup);
            json.close('}');
        }
        json.close(']');
        json.close('}');
    }
    json.close(']');
    json.close('}');
    json.text.push('\n');
    json.text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings() {
        let mut json = Writer::default();
        json.string("a \"b\" \\ \u{1b}\né");
        assert_eq!(json.text, r#""a \"b\" \\ \u001b\u000aé""#);
    }

    #[test]
    fn nested() {
        let mut json = Writer::default();
        json.open('{');
        json.number("a", None);
        json.key("b");
        json.open('[');
        json.line();
        json.open('{');
        json.float("c", Some(f64::NAN));
        json.close('}');
        json.close(']');
        json.close('}');
        let text: String = json.text.split_whitespace().collect();
        assert_eq!(text, r#"{"a":null,"b":[{"c":null}]}"#);
    }
}
