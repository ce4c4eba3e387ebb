// SPDX-License-Identifier: GPL-2.0

//! Metrics in Prometheus' text format, for node_exporter's textfile collector.

use crate::{
    counters::OPERATIONS,
    model::{Row, View},
};
use std::fmt::Write;

/// A metric of devices or cgroups: its name, type, help, and value.
type Metric = (
    &'static str,
    &'static str,
    &'static str,
    fn(&Row) -> Option<f64>,
);

const SERVED: [Metric; 8] = [
    (
        "inline_requests_total",
        "counter",
        "Requests issued by the task that submitted them.",
        |row| Some(row.total.served?.inline as f64),
    ),
    (
        "worker_requests_total",
        "counter",
        "Requests given to the worker of the cgroup.",
        |row| Some(row.total.served?.worker as f64),
    ),
    (
        "deferred_requests_total",
        "counter",
        "Requests that were detached from their tags to wait.",
        |row| Some(row.total.served?.deferred as f64),
    ),
    (
        "waiting_requests",
        "gauge",
        "Requests that the worker has not taken.",
        |row| Some(row.waiting? as f64),
    ),
    (
        "in_flight_requests",
        "gauge",
        "Requests in flight, deferred ones included.",
        |row| Some(row.total.in_flight() as f64),
    ),
    (
        "deferred_requests",
        "gauge",
        "Deferred requests in flight.",
        |row| row.total.served.map(|_| row.total.deferred as f64),
    ),
    (
        "oldest_waiting_seconds",
        "gauge",
        "Age of the oldest request that waits for the worker.",
        |row| Some(row.held_ms? as f64 / 1000.0),
    ),
    (
        "fallback_requests_total",
        "counter",
        "Requests that the root cgroup's worker served for lack of memory.",
        |row| Some(row.fallbacks? as f64),
    ),
];

/// The value of a label, with escapes.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            _ => out.push(c),
        }
    }
    out
}

fn labels(row: &Row) -> String {
    let mut labels = format!("device=\"{}\"", escaped(&row.device));
    if let Some(path) = &row.cgroup {
        let _ = write!(labels, ",cgroup=\"{}\"", escaped(path));
    }
    labels
}

fn header(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}");
    let _ = writeln!(out, "# TYPE {name} {kind}");
}

/// The metrics of rows of one kind, whose names start with `prefix`.
fn metrics(out: &mut String, prefix: &str, rows: &[&Row]) {
    let volumes = [
        ("requests_total", "Requests submitted."),
        ("bytes_total", "Bytes of the requests."),
    ];
    for (i, (name, help)) in volumes.iter().enumerate() {
        let name = format!("{prefix}_{name}");
        header(out, &name, "counter", help);
        for row in rows {
            let labels = labels(row);
            for (operation, volume) in OPERATIONS.iter().zip(row.total.volumes) {
                let value = [volume.ios, volume.bytes][i];
                if i == 0 || *operation != "flush" {
                    let _ = writeln!(out, "{name}{{{labels},operation=\"{operation}\"}} {value}");
                }
            }
        }
    }
    for (name, kind, help, value) in SERVED {
        let name = format!("{prefix}_{name}");
        let mut rows = rows
            .iter()
            .filter_map(|row| Some((row, value(row)?)))
            .peekable();
        if rows.peek().is_none() {
            continue;
        }
        header(out, &name, kind, help);
        for (row, value) in rows {
            let _ = writeln!(out, "{name}{{{}}} {value}", labels(row));
        }
    }
}

/// All metrics of the rows.
pub fn write(view: &View, rows: &[&Row]) -> String {
    let mut out = String::new();
    let (devices, cgroups): (Vec<&Row>, Vec<&Row>) =
        rows.iter().partition(|row| row.cgroup.is_none());
    let name = "loop_device_info";
    header(&mut out, name, "gauge", "Attached loop devices.");
    for row in &devices {
        let _ = writeln!(
            out,
            "{name}{{{},driver=\"{}\",backing_file=\"{}\"}} 1",
            labels(row),
            view.driver.name(),
            escaped(&row.file)
        );
    }
    metrics(&mut out, "loop_device", &devices);
    if !cgroups.is_empty() {
        metrics(&mut out, "loop_cgroup", &cgroups);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{host::tests::Fake, model::Model};

    #[test]
    fn text() {
        let fake = Fake::new("prometheus");
        fake.write("sys/module/loop_rs/refcnt", "1\n");
        fake.attach("loop0", "/a \"b\"\n");
        fake.write(
            "sys/kernel/debug/loop_rs/loop0/workers",
            "/ idle waiting=0 rios=4 rbytes=4096 here=3 oldest_ms=1500\n",
        );
        let view = Model::default().update(fake.host.snapshot(&[]).unwrap());
        let text = write(&view, &[&view.groups[0].device, &view.groups[0].cgroups[0]]);
        for line in [
            "# TYPE loop_cgroup_requests_total counter",
            r#"loop_device_info{device="loop0",driver="loop_rs",backing_file="/a \"b\""} 1"#,
            r#"loop_cgroup_bytes_total{device="loop0",cgroup="/",operation="read"} 4096"#,
            r#"loop_cgroup_inline_requests_total{device="loop0",cgroup="/"} 3"#,
            r#"loop_cgroup_oldest_waiting_seconds{device="loop0",cgroup="/"} 1.5"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.contains(r#"bytes_total{device="loop0",cgroup="/",operation="flush"}"#));
    }
}
