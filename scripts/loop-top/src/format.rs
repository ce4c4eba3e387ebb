// SPDX-License-Identifier: GPL-2.0

//! Numbers in five characters.

/// A number of requests, or of requests per second.
pub fn count(n: f64) -> String {
    if n < 99_999.5 && n.fract() == 0.0 {
        format!("{n:.0}")
    } else {
        scaled(n, 1000.0, &["", "k", "M", "G", "T"])
    }
}

/// A number of bytes, in powers of 1024.
pub fn bytes(n: f64) -> String {
    scaled(n, 1024.0, &["", "K", "M", "G", "T", "P"])
}

fn scaled(mut n: f64, base: f64, units: &[&str]) -> String {
    let mut unit = 0;
    while n >= 999.5 && unit + 1 < units.len() {
        n /= base;
        unit += 1;
    }
    if n < 0.05 {
        "0".to_owned()
    } else if n < 9.95 && (unit > 0 || n.fract() != 0.0) {
        format!("{n:.1}{}", units[unit])
    } else {
        format!("{n:.0}{}", units[unit])
    }
}

/// A time in milliseconds.
pub fn time(ms: f64) -> String {
    let s = ms / 1000.0;
    if ms < 0.0005 {
        "0".to_owned()
    } else if ms < 0.9995 {
        format!("{:.0}us", ms * 1000.0)
    } else if ms < 9.95 {
        format!("{ms:.1}ms")
    } else if ms < 999.5 {
        format!("{ms:.0}ms")
    } else if s < 9.95 {
        format!("{s:.1}s")
    } else if s < 99.5 {
        format!("{s:.0}s")
    } else {
        let minutes = (s / 60.0) as u64;
        match minutes {
            0..100 => format!("{minutes}m{:02}", s as u64 % 60),
            100..6000 => format!("{}h{:02}", minutes / 60, minutes % 60),
            _ => format!("{}d", minutes / 1440),
        }
    }
}

/// Replaces control characters: the name of a cgroup could have escape sequences of the terminal.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

/// The end of a text, in at most `width` characters.
pub fn tail(text: &str, width: usize) -> String {
    let len = text.chars().count();
    if len <= width {
        return text.to_owned();
    }
    let skipped = len + 1 - width.max(1);
    std::iter::once('…')
        .chain(text.chars().skip(skipped))
        .take(width)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        for (n, text) in [
            (0.0, "0"),
            (0.01, "0"),
            (0.5, "0.5"),
            (9.96, "10"),
            (16384.0, "16384"),
            (16384.5, "16k"),
            (99_999.0, "99999"),
            (123_456.0, "123k"),
            (1_234_567.0, "1.2M"),
        ] {
            assert_eq!(count(n), text);
        }
    }

    #[test]
    fn sizes() {
        for (n, text) in [
            (0.0, "0"),
            (512.0, "512"),
            (1000.0, "1.0K"),
            (65536.0, "64K"),
            (1_048_576.0, "1.0M"),
            (1e18, "888P"),
        ] {
            assert_eq!(bytes(n), text);
        }
    }

    #[test]
    fn times() {
        for (ms, text) in [
            (0.0, "0"),
            (0.25, "250us"),
            (1.24, "1.2ms"),
            (10.0, "10ms"),
            (999.9, "1.0s"),
            (12_000.0, "12s"),
            (125_000.0, "2m05"),
            (7_260_000.0, "2h01"),
            (1e10, "115d"),
        ] {
            assert_eq!(time(ms), text);
        }
    }

    #[test]
    fn texts() {
        assert_eq!(printable("/a\u{1b}[2J"), "/a?[2J");
        assert_eq!(tail("/a/long/path", 5), "…path");
        assert_eq!(tail("/a", 5), "/a");
        assert_eq!(tail("/a", 1), "…");
    }
}
