//! How data is printed: aligned tables for people, JSON for programs.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde_json::Value;

use crate::cli::Output;

/// Where data goes, and in which form.
pub(crate) struct Printer<'a> {
    pub(crate) out: &'a mut dyn Write,
    pub(crate) form: Output,
}

impl Printer<'_> {
    /// One answer: `json` as a document, or `table`.
    pub(crate) fn print(
        &mut self,
        json: impl FnOnce() -> Value,
        table: impl FnOnce() -> String,
    ) -> io::Result<()> {
        match self.form {
            Output::Json => writeln!(self.out, "{:#}", json()),
            Output::Table => self.out.write_all(table().as_bytes()),
        }
    }

    /// One of many that come one by one: a line.
    pub(crate) fn line(
        &mut self,
        json: impl FnOnce() -> Value,
        text: impl FnOnce() -> String,
    ) -> io::Result<()> {
        match self.form {
            Output::Json => writeln!(self.out, "{}", json())?,
            Output::Table => writeln!(self.out, "{}", text())?,
        }
        self.out.flush()
    }
}

/// A table with aligned columns. A column whose name ends in `#` holds numbers: they stand at the right.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let name = |column: usize| head[column].trim_end_matches('#');
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([name(column).chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    let mut line = |cell: &dyn Fn(usize) -> String| {
        let mut all = String::new();
        for (column, &width) in widths.iter().enumerate() {
            let cell = cell(column);
            let right = head[column].ends_with('#');
            let written =
                if right { write!(all, "{cell:>width$}  ") } else { write!(all, "{cell:<width$}  ") };
            written.expect("writing to a String cannot fail");
        }
        text.push_str(all.trim_end());
        text.push('\n');
    };
    line(&|column| name(column).to_owned());
    for row in rows {
        line(&|column| row[column].clone());
    }
    text
}

/// Names and values below each other.
pub(crate) fn list(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().fold(String::new(), |mut text, (name, value)| {
        writeln!(text, "{name:<width$}  {value}").expect("writing to a String cannot fail");
        text
    })
}

/// 1536 as `1.5 KiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let unit = (count.ilog2() / 10) as usize;
    let tenths = (u128::from(count) * 10) >> (10 * unit);
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit - 1])
}

/// 93000 ms as `1m 33s`.
pub(crate) fn duration(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0 => format!("{ms}ms"),
        1..60 => format!("{s}.{}s", ms % 1000 / 100),
        60..3600 => format!("{}m {}s", s / 60, s % 60),
        3600..86400 => format!("{}h {}m", s / 3600, s / 60 % 60),
        _ => format!("{}d {}h", s / 86400, s / 3600 % 24),
    }
}

/// Empty as `-`.
pub(crate) fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_nothing_trails() {
        let rows =
            vec![vec!["a".into(), "1".into(), "x".into()], vec!["bcd".into(), "1000".into(), String::new()]];
        let expect = "NAME  COUNT  REST\na         1  x\nbcd    1000\n";
        assert_eq!(table(&["NAME", "COUNT#", "REST"], &rows), expect);
    }

    #[test]
    fn sizes_and_times_are_readable() {
        let check = |count, expect: &str| assert_eq!(bytes(count), expect);
        check(0, "0 B");
        check(1023, "1023 B");
        check(1536, "1.5 KiB");
        check(10 << 30, "10.0 GiB");
        check(u64::MAX, "15.9 EiB");
        let check = |ms, expect: &str| assert_eq!(duration(ms), expect);
        check(7, "7ms");
        check(1_250, "1.2s");
        check(93_000, "1m 33s");
        check(7_260_000, "2h 1m");
        check(90_000_000, "1d 1h");
    }
}
