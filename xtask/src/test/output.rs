//! Reads what tests print: counts by group, what failed, what was left out and why, how long each took.
//!
//! A test that needs what is not there prints `LEFT OUT: <test>: <reason>` and returns; libtest counts it as
//! passed, so it is taken off there.

use std::time::Duration;

/// Counts of tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) passed: u64,
    pub(super) failed: u64,
    pub(super) skipped: u64,
}

/// Which tests a line is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Group {
    /// Beside the code: unit and property tests.
    #[default]
    Unit,
    /// In `tests/`.
    Integration,
    /// In `tests/ns_*.rs`: several hosts on one machine.
    Namespace,
    /// In comments.
    Doc,
}

/// Takes lines, keeps what matters.
#[derive(Debug, Default)]
pub(super) struct Reader {
    group: Group,
    binary: String,
    section: Section,
    counts: [Counts; Group::ALL.len()],
    /// Names of failed tests with their binary.
    pub(super) failures: Vec<String>,
    /// `test: reason` of tests that were left out.
    pub(super) left_out: Vec<String>,
    /// Every test with its program, and how long it took.
    pub(super) times: Vec<(Duration, String)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Section {
    #[default]
    Running,
    Successes,
    Failures,
}

impl Group {
    pub(super) const ALL: [Self; 4] = [Self::Unit, Self::Integration, Self::Namespace, Self::Doc];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit and property tests",
            Self::Integration => "integration tests",
            Self::Namespace => "namespace tests",
            Self::Doc => "examples in comments",
        }
    }
}

impl Reader {
    /// Takes a line and says whether a person watching wants to see it.
    pub(super) fn line(&mut self, line: &str) -> bool {
        let text = line.trim_start();
        if let Some(binary) = text.strip_prefix("Running ").filter(|rest| rest.contains(" (")) {
            self.start(group_of(binary), binary);
            return true;
        }
        if let Some(name) = text.strip_prefix("Doc-tests ") {
            self.start(Group::Doc, name);
            return true;
        }
        if let Some(counts) = text.strip_prefix("test result: ") {
            self.count(counts);
            self.section = Section::Running;
            return true;
        }
        if let Some(reason) = left_out(line).filter(|_| self.section != Section::Failures) {
            self.left_out.push(reason.to_owned());
            let counts = &mut self.counts[self.group as usize];
            counts.skipped += 1;
            counts.passed = counts.passed.wrapping_sub(1);
            return true;
        }
        self.other(line)
    }

    /// A failure that no test has said.
    pub(super) fn fail(&mut self, what: String) {
        self.counts[self.group as usize].failed += 1;
        self.failures.push(what);
    }

    pub(super) fn counts(&self, group: Group) -> Counts {
        self.counts[group as usize]
    }

    fn other(&mut self, line: &str) -> bool {
        match line {
            "successes:" => self.section = Section::Successes,
            "failures:" => self.section = Section::Failures,
            _ => {}
        }
        let (line, time) = timed(line);
        let test = line.strip_prefix("test ").filter(|_| self.section == Section::Running);
        if let Some((time, name)) = time.zip(test.and_then(|test| test.split(" ... ").next())) {
            self.times.push((time, format!("{name} ({})", self.binary)));
        }
        if let Some(name) = test.and_then(|test| test.strip_suffix(" ... FAILED")) {
            self.failures.push(format!("{name} ({})", self.binary));
            return true;
        }
        let passed = test.is_some_and(|test| test.ends_with(" ... ok"));
        !passed && self.section != Section::Successes && !line.is_empty()
    }

    /// What follows is said by this program.
    pub(super) fn start(&mut self, group: Group, binary: &str) {
        self.group = group;
        self.section = Section::Running;
        // Without the path that it was built to.
        binary.split(" (").next().unwrap_or_default().clone_into(&mut self.binary);
    }

    fn count(&mut self, line: &str) {
        let counts = &mut self.counts[self.group as usize];
        let number = |word: &str| {
            let part = line.split(['.', ';']).map(str::trim).find_map(|part| part.strip_suffix(word));
            part.and_then(|number| number.trim().parse::<u64>().ok()).unwrap_or(0)
        };
        // Tests left out were taken off before they were counted: both wrap.
        counts.passed = counts.passed.wrapping_add(number(" passed"));
        counts.failed += number(" failed");
        counts.skipped += number(" ignored");
    }
}

/// A line without the time that ends it, as in `test a::works ... ok <0.012s>`, and that time.
fn timed(line: &str) -> (&str, Option<Duration>) {
    let parts = line.strip_suffix("s>").and_then(|line| line.rsplit_once(" <"));
    let time =
        parts.and_then(|(line, time)| Some((line, Duration::try_from_secs_f64(time.parse().ok()?).ok()?)));
    time.map_or((line, None), |(line, time)| (line, Some(time)))
}

/// The test and reason of a line that says so. Written past libtest's capture, it may follow what libtest has
/// begun to print on the line.
fn left_out(line: &str) -> Option<&str> {
    let (before, reason) = line.split_once("LEFT OUT: ")?;
    (before.is_empty() || before.starts_with("test ")).then_some(reason)
}

/// `unittests src/lib.rs (target/...)` or `tests/ns_edge.rs (target/...)`.
fn group_of(binary: &str) -> Group {
    match binary.split_once("tests/") {
        Some((_, file)) if file.starts_with("ns_") => Group::Namespace,
        Some(_) if !binary.starts_with("unittests ") => Group::Integration,
        _ => Group::Unit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "   Compiling mc-core v0.1.0\n\
        \x20    Running unittests src/lib.rs (target/debug/deps/mc_core-1)\n\
        running 3 tests\ntest a::works ... ok <0.012s>\ntest a::breaks ... FAILED\ntest a::slow ... ignored\n\
        successes:\n\n---- a::works stdout ----\nhello\n\nsuccesses:\n    a::works\n\n\
        failures:\n\n---- a::breaks stdout ----\nLEFT OUT: a::breaks: not root\npanicked\n\nfailures:\n    a::breaks\n\n\
        test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
        \x20    Running tests/ns_edge.rs (target/debug/deps/ns_edge-2)\n\
        test edge ... ok\ntest origin ... ok\nsuccesses:\n\n---- edge stdout ----\nLEFT OUT: edge: needs root\n\n\
        successes:\n    edge\n    origin\n\n\
        test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s\n\
        \x20    Running tests/admin.rs (target/debug/deps/admin-3)\n\
        test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s\n\
        \x20  Doc-tests mc_core\n\
        test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s\n";

    fn read() -> (Reader, Vec<&'static str>) {
        let mut reader = Reader::default();
        let shown = OUTPUT.lines().filter(|line| reader.line(line)).collect();
        (reader, shown)
    }

    #[test]
    fn tests_are_counted_by_group_and_those_left_out_are_not_passed() {
        let (reader, _) = read();
        let check = |group, passed, failed, skipped| {
            assert_eq!(reader.counts(group), Counts { passed, failed, skipped }, "{group:?}");
        };
        check(Group::Unit, 1, 1, 1);
        check(Group::Namespace, 1, 0, 1);
        check(Group::Integration, 4, 0, 0);
        check(Group::Doc, 1, 0, 0);
    }

    #[test]
    fn a_test_left_out_is_seen_where_it_is_said() {
        let check = |line, expect| assert_eq!(left_out(line), expect, "{line}");
        check("LEFT OUT: edge: needs root", Some("edge: needs root"));
        check("test edge ... LEFT OUT: edge: needs root", Some("edge: needs root"));
        check("we read: LEFT OUT: x", None);
        check("test edge ... ok", None);
    }

    #[test]
    fn times_are_read_where_there_are_some() {
        let check =
            |line, text, time: Option<u64>| assert_eq!(timed(line), (text, time.map(Duration::from_millis)));
        check("test a ... ok <0.012s>", "test a ... ok", Some(12));
        check("test a ... FAILED <61.500s>", "test a ... FAILED", Some(61_500));
        check("test a ... ok", "test a ... ok", None);
        check("a <b> <xs>", "a <b> <xs>", None);
        let (reader, _) = read();
        assert_eq!(reader.times, [(Duration::from_millis(12), "a::works (unittests src/lib.rs)".to_owned())]);
    }

    #[test]
    fn failures_and_reasons_are_kept() {
        let (reader, _) = read();
        assert_eq!(reader.failures, ["a::breaks (unittests src/lib.rs)"]);
        assert_eq!(reader.left_out, ["edge: needs root"]);
    }

    #[test]
    fn a_watcher_sees_what_failed_and_not_what_passed() {
        let (_, shown) = read();
        assert!(shown.contains(&"panicked"));
        assert!(shown.contains(&"   Compiling mc-core v0.1.0"));
        assert!(!shown.contains(&"hello") && !shown.contains(&"test a::works ... ok"));
    }
}
