//! The summary at the end of the test command.

use std::time::Duration;

use super::output::Counts;
use crate::clock::words;
use crate::table::render;

/// What became of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Passed,
    /// And why, in a line.
    Failed(String),
    /// And why, in a line. A failure where `CI=true`.
    LeftOut(String),
}

/// A step and its outcome.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) step: String,
    pub(super) verdict: Verdict,
    /// `None` for rows that share another's time.
    pub(super) time: Option<Duration>,
    pub(super) counts: Counts,
}

/// All steps so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) rows: Vec<Row>,
    /// Names of failed tests.
    pub(super) failures: Vec<String>,
    /// `test: reason`.
    pub(super) left_out: Vec<String>,
    /// Every test and test program, and how long it took.
    pub(super) times: Vec<(Duration, String)>,
    /// What else is to be known, a line each.
    pub(super) notes: Vec<String>,
}

/// How many of the slowest tests are in the summary.
const SLOWEST: usize = 15;

impl Report {
    /// Whether nothing failed and, in CI, nothing was left out.
    pub(super) fn is_good(&self, ci: bool) -> bool {
        self.totals(ci).failed == 0
    }

    /// The table, what failed, what was left out, and the counts alone on the last line.
    pub(super) fn render(&self, ci: bool, time: Duration) -> String {
        let rows: Vec<_> = self.rows.iter().map(cells).collect();
        let columns = ["step", "result", "time", "passed", "failed", "left out"];
        let mut text = format!("\n{}", render(&columns, &rows, &[2, 3, 4, 5]));
        if ci && self.rows.iter().any(|row| matches!(row.verdict, Verdict::LeftOut(_))) {
            text.push_str("\nCI=true: a step that is left out is a failure");
        }
        text.push_str(&self.slowest());
        for note in &self.notes {
            text.push_str(&format!("\n{note}"));
        }
        for row in &self.rows {
            if let Verdict::Failed(why) | Verdict::LeftOut(why) = &row.verdict {
                text.push_str(&format!("\n{}: {why}", row.step));
            }
        }
        for failure in &self.failures {
            text.push_str(&format!("\nfailed: {failure}"));
        }
        for reason in &self.left_out {
            text.push_str(&format!("\nleft out: {reason}"));
        }
        let Counts { passed, failed, skipped } = self.totals(ci);
        text.push_str(&format!(
            "\ntook {}\n\n{passed} passed, {failed} failed, {skipped} skipped\n",
            words(time)
        ));
        text
    }

    /// The tests and test programs that took longest.
    fn slowest(&self) -> String {
        let mut times: Vec<_> =
            self.times.iter().filter(|(time, _)| *time >= Duration::from_secs(1)).collect();
        times.sort_by(|a, b| b.cmp(a));
        let rows: Vec<_> =
            times.iter().take(SLOWEST).map(|(time, name)| vec![name.clone(), words(*time)]).collect();
        if rows.is_empty() {
            String::new()
        } else {
            format!("\n{}", render(&["slowest", "time"], &rows, &[1]))
        }
    }

    /// Counts of tests. A step counts as one where it fails, or is left out, without a test that did: it
    /// does not compile, a test takes all down, a tool is missing.
    fn totals(&self, ci: bool) -> Counts {
        let mut totals = Counts::default();
        for row in &self.rows {
            let left_out = matches!(row.verdict, Verdict::LeftOut(_));
            let failed = matches!(row.verdict, Verdict::Failed(_)) || (ci && left_out);
            totals.passed += row.counts.passed;
            totals.failed += row.counts.failed.max(u64::from(failed));
            totals.skipped += row.counts.skipped.max(u64::from(left_out && !ci));
        }
        totals
    }
}

fn cells(row: &Row) -> Vec<String> {
    let result = match row.verdict {
        Verdict::Passed => "passed",
        Verdict::Failed(_) => "FAILED",
        Verdict::LeftOut(_) => "left out",
    };
    let number = |n: u64| if n == 0 { String::new() } else { n.to_string() };
    let Counts { passed, failed, skipped } = row.counts;
    let time = row.time.map(words).unwrap_or_default();
    vec![row.step.clone(), result.into(), time, number(passed), number(failed), number(skipped)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(verdict: Verdict, passed: u64, failed: u64, skipped: u64) -> Row {
        let counts = Counts { passed, failed, skipped };
        Row { step: "step".into(), verdict, time: Some(Duration::from_secs(1)), counts }
    }

    fn last_line(rows: Vec<Row>) -> String {
        let report = Report { rows, ..Report::default() };
        report.render(false, Duration::from_secs(2)).lines().last().unwrap().to_owned()
    }

    #[test]
    fn the_last_line_counts_tests_and_steps_that_failed_without_one() {
        let failed = || Verdict::Failed("does not compile".into());
        let check = |rows, expect| assert_eq!(last_line(rows), expect);
        check(vec![], "0 passed, 0 failed, 0 skipped");
        check(
            vec![row(Verdict::Passed, 7, 0, 2), row(Verdict::Passed, 0, 0, 0)],
            "7 passed, 0 failed, 2 skipped",
        );
        check(vec![row(failed(), 7, 3, 0)], "7 passed, 3 failed, 0 skipped");
        check(vec![row(failed(), 0, 0, 0)], "0 passed, 1 failed, 0 skipped");
        check(vec![row(Verdict::LeftOut("no nightly".into()), 0, 0, 0)], "0 passed, 0 failed, 1 skipped");
    }

    #[test]
    fn the_slowest_come_first_and_quick_ones_are_not_named() {
        let times = [(900, "a"), (1_000, "b"), (61_000, "c")];
        let times = times.map(|(millis, name)| (Duration::from_millis(millis), name.to_owned())).to_vec();
        let report = Report { times, ..Report::default() };
        assert_eq!(report.slowest(), "\nslowest        time\nc        1 min 01 s\nb             1.0 s\n");
        assert_eq!(Report::default().slowest(), "");
    }

    #[test]
    fn leaving_a_step_out_is_a_failure_in_ci_only() {
        let check = |verdict, ci, good| {
            let report = Report { rows: vec![row(verdict, 1, 0, 0)], ..Report::default() };
            assert_eq!(report.is_good(ci), good);
        };
        check(Verdict::Passed, true, true);
        check(Verdict::LeftOut("no nightly".into()), false, true);
        check(Verdict::LeftOut("no nightly".into()), true, false);
        check(Verdict::Failed("x".into()), false, false);
    }
}
