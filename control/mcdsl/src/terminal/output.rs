//! How data is printed: aligned tables for people, JSON for programs.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;

use super::words::{clean, clean_lines, must_not_be_raw};

/// In which form data is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Where data goes, and in which form.
pub struct Printer<'a> {
    /// Standard output, as a rule.
    pub out: &'a mut dyn Write,
    /// The form.
    pub form: Output,
}

impl Printer<'_> {
    /// One answer: `json` as a document, or `table`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn print(&mut self, json: impl FnOnce() -> Value, table: impl FnOnce() -> String) -> io::Result<()> {
        match self.form {
            Output::Json => writeln!(self.out, "{}", json_text(&format!("{:#}", json()))),
            Output::Table => self.out.write_all(clean_lines(&table()).as_bytes()),
        }
    }

    /// Values as a table of these columns, or as they are in one JSON array. Columns are as of [`table`]; `cells` gives
    /// a value's row.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn rows<T: Serialize, const N: usize>(
        &mut self,
        values: &[T],
        head: [&str; N],
        cells: impl Fn(&T) -> [String; N],
    ) -> io::Result<()> {
        let json = serde_json::to_value(values)?;
        let rows = || values.iter().map(|value| cells(value).to_vec()).collect::<Vec<_>>();
        self.print(|| json, || table(&head, &rows()))
    }

    /// One value as names and texts below each other, or as it is in one JSON document.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn record<T: Serialize>(&mut self, value: &T, lines: &[(&str, String)]) -> io::Result<()> {
        let json = serde_json::to_value(value)?;
        self.print(|| json, || list(lines))
    }

    /// One of many that come one by one: a line.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn line(&mut self, json: impl FnOnce() -> Value, text: impl FnOnce() -> String) -> io::Result<()> {
        match self.form {
            Output::Json => writeln!(self.out, "{}", json_text(&json().to_string()))?,
            Output::Table => writeln!(self.out, "{}", clean_lines(&text()))?,
        }
        self.out.flush()
    }
}

impl std::fmt::Debug for Printer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Printer").field("form", &self.form).finish_non_exhaustive()
    }
}

/// A table with aligned columns. A column whose name ends in `#` holds numbers: they stand at the right.
///
/// # Panics
/// When a row has fewer cells than there are columns.
#[must_use]
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| clean(cell)).collect()).collect();
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
    for row in &rows {
        line(&|column| row[column].clone());
    }
    text
}

/// Names and values below each other.
#[must_use]
pub fn list(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().fold(String::new(), |mut text, (name, value)| {
        writeln!(text, "{name:<width$}  {}", clean(value)).expect("writing to a String cannot fail");
        text
    })
}

/// JSON with characters escaped that a terminal would obey. They can only stand in strings; outside, JSON is ASCII.
fn json_text(json: &str) -> String {
    json.chars().fold(String::with_capacity(json.len()), |mut text, character| {
        if character != '\n' && must_not_be_raw(character) {
            write!(text, "\\u{:04x}", u32::from(character)).expect("writing to a String cannot fail");
        } else {
            text.push(character);
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Row {
        name: &'static str,
        count: u32,
    }

    fn printed(form: Output, rows: &[Row]) -> String {
        let mut out = Vec::new();
        let mut printer = Printer { out: &mut out, form };
        printer.rows(rows, ["NAME", "COUNT#"], |row| [row.name.to_owned(), row.count.to_string()]).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_are_aligned_and_nothing_trails() {
        let rows =
            vec![vec!["a".into(), "1".into(), "x".into()], vec!["bcd".into(), "1000".into(), String::new()]];
        let expect = "NAME  COUNT  REST\na         1  x\nbcd    1000\n";
        assert_eq!(table(&["NAME", "COUNT#", "REST"], &rows), expect);
        assert_eq!(table(&["NÄME", "N#"], &[vec!["ü".into(), "1".into()]]), "NÄME  N\nü     1\n");
    }

    #[test]
    fn a_table_and_json_are_of_the_same_values() {
        let rows = [Row { name: "a", count: 7 }];
        assert_eq!(printed(Output::Table, &rows), "NAME  COUNT\na         7\n");
        let json: Value = serde_json::from_str(&printed(Output::Json, &rows)).unwrap();
        assert_eq!(json, serde_json::json!([{ "name": "a", "count": 7 }]));
        assert_eq!(printed(Output::Json, &[]), "[]\n");
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        let hostile = "a\x1b[2J\nb\u{9b}31m\u{202e}";
        let rows = [Row { name: hostile, count: 1 }];
        let text = printed(Output::Table, &rows);
        assert_eq!(text.lines().nth(1), Some("a\\u{1b}[2J\\nb\\u{9b}31m\\u{202e}      1"), "{text}");
        let text = printed(Output::Json, &rows);
        assert!(!text.chars().any(|c| c != '\n' && must_not_be_raw(c)), "{text:?}");
        let json: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json[0]["name"], hostile);
        let mut out = Vec::new();
        let mut printer = Printer { out: &mut out, form: Output::Table };
        printer.line(|| Value::Null, || "one\n\x1btwo".to_owned()).unwrap();
        assert_eq!(out, b"one\n\\u{1b}two\n");
        assert_eq!(list(&[("name", "x\r\n".to_owned())]), "name  x\\r\\n\n");
    }
}
