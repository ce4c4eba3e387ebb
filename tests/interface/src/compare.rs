// SPDX-License-Identifier: GPL-2.0

//! Compares two records, of the C driver and of loop_rs.
//!
//! A line of a record has a group, a case and its outcome, separated by tabs. A group is a test
//! case.

use std::{collections::HashMap, fmt::Write};

/// The outcome of a case that could not be set up: a failure, even with both drivers.
pub const BROKEN: &str = "BROKEN: ";
/// The outcome of a case that can't run here.
pub const SKIP: &str = "SKIP: ";

/// A line of a record.
#[derive(PartialEq, Eq, Debug)]
struct Line<'a> {
    group: &'a str,
    case: &'a str,
    outcome: &'a str,
}

fn parse(record: &str) -> Result<Vec<Line<'_>>, String> {
    record
        .lines()
        .map(|line| {
            let mut fields = line.split('\t');
            match (fields.next(), fields.next(), fields.next(), fields.next()) {
                (Some(group), Some(case), Some(outcome), None) => Ok(Line {
                    group,
                    case,
                    outcome,
                }),
                _ => Err(format!("not a line of a record: {line}")),
            }
        })
        .collect()
}

/// Whether `text` matches `pattern`, in which `*` matches anything.
pub fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len()).any(|i| rest.is_char_boundary(i) && matches(tail, &rest[i..]))
        }),
    }
}

/// An intended difference: an entry of the table.
#[derive(Debug, Default)]
struct Difference {
    name: String,
    /// If not empty, the entry is for kernels whose release matches one of these words.
    kernel: String,
    /// If not empty, the entry is about this item only, of outcomes that are lists
    /// `item: text; item: text`. The rest of the lists is compared.
    item: String,
    c: String,
    ours: String,
    reason: String,
    seen: usize,
}

impl Difference {
    /// Removes the item of the entry from both outcomes if it differs as the entry says. A missing
    /// item counts as `-`.
    fn take_item(&mut self, full: &str, c: &mut String, ours: &mut String) {
        if self.item.is_empty() || !matches(&self.name, full) {
            return;
        }
        let (c_text, c_rest) = split_item(c, &self.item);
        let (our_text, our_rest) = split_item(ours, &self.item);
        if c_text != our_text && matches(&self.c, c_text) && matches(&self.ours, our_text) {
            self.seen += 1;
            (*c, *ours) = (c_rest, our_rest);
        }
    }
}

/// The text of an item of a list, and the list without it.
fn split_item<'a>(list: &'a str, item: &str) -> (&'a str, String) {
    let mut text = "-";
    let mut rest = Vec::new();
    for entry in list.split("; ") {
        match entry.strip_prefix(item).and_then(|s| s.strip_prefix(": ")) {
            Some(found) => text = found,
            None => rest.push(entry),
        }
    }
    (text, rest.join("; "))
}

/// Reads the entries of the table for the kernel of this release: paragraphs of `name:`, optionally
/// `kernel:` and `item:`, `loop:`, `loop_rs:`, `reason:`; indented lines continue a value. `#`
/// starts a comment.
fn parse_differences(table: &str, release: &str) -> Result<Vec<Difference>, String> {
    let mut all: Vec<Difference> = Vec::new();
    let mut field: Option<&str> = None;

    for (number, line) in table.lines().enumerate() {
        let error = |what: &str| format!("line {}: {what}: {line}", number + 1);
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            field = None;
            continue;
        }
        let text = if line.starts_with([' ', '\t']) {
            line
        } else {
            let (key, text) = line.split_once(':').ok_or_else(|| error("no key"))?;
            if key == "name" {
                all.push(Difference::default());
            }
            field = Some(key);
            text
        };
        let entry = all.last_mut().ok_or_else(|| error("no name before"))?;
        let value = match field {
            Some("name") => &mut entry.name,
            Some("kernel") => &mut entry.kernel,
            Some("item") => &mut entry.item,
            Some("loop") => &mut entry.c,
            Some("loop_rs") => &mut entry.ours,
            Some("reason") => &mut entry.reason,
            _ => return Err(error("no such key")),
        };
        if !value.is_empty() {
            value.push(' ');
        }
        value.push_str(text.trim());
    }
    for entry in &all {
        if entry.c.is_empty() || entry.ours.is_empty() || entry.reason.is_empty() {
            return Err(format!("{}: something is missing", entry.name));
        }
    }
    all.retain(|entry| {
        let mut kernels = entry.kernel.split_whitespace();
        entry.kernel.is_empty() || kernels.any(|kernel| matches(kernel, release))
    });
    Ok(all)
}

/// The KTAP output of a comparison, and the number of failed groups.
pub struct Report {
    pub text: String,
    pub failed: usize,
}

/// The result of a group with its diagnostics.
#[derive(Default)]
struct Group<'a> {
    name: &'a str,
    skipped: Vec<String>,
    failures: Vec<String>,
}

/// The cases of a record, by group.
fn by_group<'a>(lines: &[Line<'a>]) -> HashMap<&'a str, Vec<(&'a str, &'a str)>> {
    let mut groups: HashMap<_, Vec<_>> = HashMap::new();
    for line in lines {
        let cases = groups.entry(line.group).or_default();
        cases.push((line.case, line.outcome));
    }
    groups
}

/// Compares the records of these groups, made on the kernel of this release: KTAP result lines,
/// numbered from `first`.
pub fn compare(
    first: usize,
    names: &[String],
    release: &str,
    table: &str,
    c: &str,
    ours: &str,
) -> Result<Report, String> {
    let mut differences = parse_differences(table, release)?;
    let c = by_group(&parse(c)?);
    let ours = by_group(&parse(ours)?);
    if let Some(other) = c
        .keys()
        .chain(ours.keys())
        .find(|key| !names.iter().any(|n| n == *key))
    {
        return Err(format!("no such group: {other}"));
    }
    let mut groups: Vec<Group<'_>> = Vec::new();

    for name in names {
        let empty = Vec::new();
        let c = c.get(name.as_str()).unwrap_or(&empty);
        let ours = ours.get(name.as_str()).unwrap_or(&empty);
        let mut group = Group {
            name,
            ..Group::default()
        };
        if c.is_empty() {
            group.failures.push("nothing is recorded of loop".into());
        }
        // A case that only one record has counts as a difference.
        let absent =
            |cases: &[(&str, &str)], case: &str| cases.iter().all(|(name, _)| *name != case);
        let beyond = ours
            .iter()
            .filter(|(case, _)| absent(c, case))
            .map(|(case, _)| (*case, "-"));
        for (case, outcome) in c.iter().copied().chain(beyond) {
            let ours = ours
                .iter()
                .find(|(name, _)| *name == case)
                .map_or("-", |(_, text)| text);
            let full = format!("{name}: {case}");
            let (mut outcome, mut ours) = (outcome.to_string(), ours.to_string());
            if outcome != ours {
                for entry in &mut differences {
                    entry.take_item(&full, &mut outcome, &mut ours);
                }
            }
            if outcome == ours {
                if outcome.contains(BROKEN) {
                    group.failures.push(format!("{case}: {outcome}"));
                } else if outcome.contains(SKIP) {
                    group.skipped.push(format!("{case}: {outcome}"));
                }
                continue;
            }
            let known = differences.iter_mut().find(|entry| {
                entry.item.is_empty()
                    && matches(&entry.name, &full)
                    && matches(&entry.c, &outcome)
                    && matches(&entry.ours, &ours)
            });
            match known {
                Some(entry) => entry.seen += 1,
                None => group
                    .failures
                    .push(format!("{case}:\n  loop:    {outcome}\n  loop_rs: {ours}")),
            }
        }
        groups.push(group);
    }

    let mut text = String::new();
    let mut failed = 0;
    let mut number = first;
    let mut say = |name: &str, not: bool, skip: bool, diagnostics: &[String]| {
        // KTAP: a # starts a directive.
        let name = name.replace('#', "\\#");
        let _ = writeln!(
            text,
            "{}ok {number} {name}{}",
            if not { "not " } else { "" },
            if skip { " # SKIP" } else { "" }
        );
        for line in diagnostics.iter().flat_map(|text| text.lines()) {
            let _ = writeln!(text, "# {line}");
        }
        number += 1;
        failed += usize::from(not);
    };
    for group in &groups {
        // A single skipped case skips the group, so that the skip is reported.
        let skip = group.failures.is_empty() && !group.skipped.is_empty();
        let diagnostics = [group.failures.as_slice(), group.skipped.as_slice()].concat();
        say(group.name, !group.failures.is_empty(), skip, &diagnostics);
    }
    let stale: Vec<String> = differences
        .iter()
        .filter(|entry| entry.seen == 0)
        .map(|entry| format!("no longer so: {} ({})", entry.name, entry.reason))
        .collect();
    say(
        "each listed difference is one",
        !stale.is_empty(),
        false,
        &stale,
    );
    Ok(Report { text, failed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        assert!(matches("a", "a"));
        assert!(!matches("a", "ab"));
        assert!(matches("a*", "a"));
        assert!(matches("*c*e", "abcde"));
        assert!(!matches("*c*e", "abced"));
        assert!(matches("*", ""));
        assert!(matches("a*é", "aéé"));
    }

    const C: &str = "s: X\tone\t0\ns: X\ttwo\tEINVAL\ns: Y\tone\t0\n";

    fn report(table: &str, c: &str, ours: &str) -> Report {
        compare(
            1,
            &["s: X".into(), "s: Y".into()],
            "7.3.4-amd64",
            table,
            c,
            ours,
        )
        .unwrap()
    }

    #[test]
    fn equal_records() {
        let report = report("", C, C);
        assert_eq!(
            report.text,
            "ok 1 s: X\nok 2 s: Y\nok 3 each listed difference is one\n"
        );
        assert_eq!(report.failed, 0);
    }

    #[test]
    fn different_records() {
        let report = report("", C, &C.replace("EINVAL", "EBUSY"));
        assert!(report
            .text
            .starts_with("not ok 1 s: X\n# two:\n#   loop:    EINVAL\n#   loop_rs: EBUSY\nok 2"));
        assert_eq!(report.failed, 1);
    }

    const TABLE: &str =
        "# text\n\nname: s: X: t*\nloop: EINVAL\nloop_rs: EB*\nreason: it is\n so\n";

    #[test]
    fn listed_difference() {
        assert_eq!(report(TABLE, C, &C.replace("EINVAL", "EBUSY")).failed, 0);
        // An outcome that differs from the entry.
        assert_eq!(report(TABLE, C, &C.replace("EINVAL", "EPERM")).failed, 2);
    }

    #[test]
    fn listed_difference_of_another_kernel() {
        let ours = C.replace("EINVAL", "EBUSY");
        let table = |kernel: &str| TABLE.replace("loop: ", &format!("kernel: {kernel}\nloop: "));
        assert_eq!(report(&table("7.3*"), C, &ours).failed, 0);
        assert_eq!(report(&table("7.2*"), C, &ours).failed, 1);
        assert_eq!(report(&table("7.2*"), C, C).failed, 0);
        assert_eq!(report(&table("7.2* 7.3*"), C, &ours).failed, 0);
    }

    const LISTS: &str = "s: X\tone\tro: 0 -> 1; wbt: 2 -> 0; size: 8 -> 0\ns: Y\tone\t0\n";
    const ITEM: &str = "name: s: X: one\nitem: wbt\nloop: 2 -> 0\nloop_rs: -\nreason: so\n";

    #[test]
    fn listed_item() {
        let ours = LISTS.replace("wbt: 2 -> 0; ", "");
        assert_eq!(report("", LISTS, &ours).failed, 1);
        assert_eq!(report(ITEM, LISTS, &ours).failed, 0);
        // A value that differs from the entry.
        assert_eq!(
            report(ITEM, &LISTS.replace("2 -> 0", "3 -> 0"), &ours).failed,
            2
        );
        // The rest of the list is compared.
        assert_eq!(
            report(ITEM, LISTS, &ours.replace("8 -> 0", "8 -> 4")).failed,
            1
        );
        assert_eq!(
            report(ITEM, LISTS, &ours.replace("; size: 8 -> 0", "")).failed,
            1
        );
        assert_eq!(report(ITEM, LISTS, LISTS).failed, 1);
        // A list of one item.
        let only = "s: X\tone\twbt: 2 -> 0\ns: Y\tone\t0\n";
        assert_eq!(
            report(ITEM, only, &only.replace("wbt: 2 -> 0", "")).failed,
            0
        );
    }

    #[test]
    fn broken_in_a_list() {
        let broken = LISTS.replace("8 -> 0", "BROKEN: no file");
        let ours = broken.replace("wbt: 2 -> 0; ", "");
        assert_eq!(report(ITEM, &broken, &ours).failed, 1);
    }

    #[test]
    fn listed_difference_without_match() {
        let report = report(TABLE, C, C);
        assert_eq!(report.failed, 1);
        assert!(report.text.contains("no longer so: s: X: t* (it is so)"));
    }

    #[test]
    fn broken_is_a_failure() {
        let broken = C.replace("EINVAL", "BROKEN: no file");
        assert_eq!(report("", &broken, &broken).failed, 1);
    }

    #[test]
    fn group_is_skipped_if_a_case_is() {
        let skipped = C.replace("EINVAL", "SKIP: no brd");
        let text = report("", &skipped, &skipped).text;
        assert!(text.starts_with("ok 1 s: X # SKIP\n# two: SKIP: no brd\n"));
        let skipped = C.replace("\t0", "\tSKIP: no brd");
        assert!(report("", &skipped, &skipped)
            .text
            .contains("ok 2 s: Y # SKIP\n"));
    }

    #[test]
    fn truncated_record() {
        let short = "s: X\tone\t0\n";
        assert_eq!(report("", C, short).failed, 2);
        assert_eq!(report("", short, C).failed, 2);
        assert_eq!(report("", short, short).failed, 1);
        assert!(compare(1, &[], "", "", C, C).is_err());
        assert!(compare(1, &[], "", "", "nonsense", C).is_err());
    }

    #[test]
    fn bad_tables() {
        assert!(parse_differences("loop: x", "").is_err());
        assert!(parse_differences("name: x\nloop: y\n", "").is_err());
        assert!(parse_differences("name: x\nwhat: y\n", "").is_err());
    }
}
