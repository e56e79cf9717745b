//! How data is printed: tables for people, JSON for programs.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;

use super::screen::{Screen, in_colour};
use super::table::{Column, render};
use crate::escape::{clean, clean_lines, must_be_escaped};

/// The form of data and errors: tables and lines for people, JSON for programs. (Comments at the variants would double the
/// length of every `--help`.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    Table,
    Json,
}

/// Where data goes, and in which form.
pub struct Printer<'a> {
    /// For data in a format of its own.
    pub out: &'a mut dyn Write,
    form: Output,
    screen: Screen,
}

impl<'a> Printer<'a> {
    /// Prints to a file, a pipe or a buffer: without colours, and without the limits of a screen.
    pub fn new(out: &'a mut dyn Write, form: Output) -> Self {
        Self::on(out, form, Screen::default())
    }

    /// Prints to standard output, with its properties.
    pub(super) fn on(out: &'a mut dyn Write, form: Output, screen: Screen) -> Self {
        Self { out, form, screen }
    }

    /// Prints `json` as a document, or `text`.
    ///
    /// # Errors
    /// Returns an error if the output fails.
    pub fn print(&mut self, json: impl FnOnce() -> Value, text: impl FnOnce() -> String) -> io::Result<()> {
        match self.form {
            Output::Json => writeln!(self.out, "{}", json_text(&format!("{:#}", json()))),
            Output::Table => self.out.write_all(clean_lines(&text()).as_bytes()),
        }
    }

    /// Prints values as a table, or as a JSON array. `cells` is the row of a value.
    ///
    /// # Errors
    /// Returns an error if the output fails.
    pub fn rows<T: Serialize, const N: usize>(
        &mut self,
        values: &[T],
        columns: [Column; N],
        cells: impl Fn(&T) -> [String; N],
    ) -> io::Result<()> {
        self.table(&values, values, columns, cells, "")
    }

    /// Prints a table with a line below it, or `document` as JSON.
    ///
    /// # Errors
    /// Returns an error if the output fails.
    pub fn table<T, const N: usize>(
        &mut self,
        document: &impl Serialize,
        values: &[T],
        columns: [Column; N],
        cells: impl Fn(&T) -> [String; N],
        note: &str,
    ) -> io::Result<()> {
        if self.form == Output::Json {
            let json = serde_json::to_value(document)?;
            return self.print(|| json, String::new);
        }
        let rows: Vec<_> = values.iter().map(|value| cells(value).to_vec()).collect();
        let text = render(&columns, &rows, &self.screen) + &clean_lines(note);
        self.out.flush()?;
        if self.screen.page(&text)? { Ok(()) } else { self.out.write_all(text.as_bytes()) }
    }

    /// Prints names and values below each other, or `value` as a JSON document.
    ///
    /// # Errors
    /// Returns an error if the output fails.
    pub fn record<T: Serialize>(&mut self, value: &T, lines: &[(&str, String)]) -> io::Result<()> {
        if self.form == Output::Json {
            let json = serde_json::to_value(value)?;
            return self.print(|| json, String::new);
        }
        self.out.write_all(pairs(lines, self.screen.colour).as_bytes())
    }

    /// Prints one value of a stream as a line, at once.
    ///
    /// # Errors
    /// Returns an error if the output fails.
    pub fn line(&mut self, json: impl FnOnce() -> Value, text: impl FnOnce() -> String) -> io::Result<()> {
        match self.form {
            Output::Json => writeln!(self.out, "{}", json_text(&json().to_string()))?,
            Output::Table => writeln!(self.out, "{}", clean_lines(&text()))?,
        }
        self.out.flush()
    }

    /// Prints a value as a line of JSON, in either form.
    ///
    /// # Errors
    /// Returns an error if the output fails.
    pub fn json_line(&mut self, value: &impl Serialize) -> io::Result<()> {
        writeln!(self.out, "{}", json_text(&serde_json::to_string(value)?))
    }
}

impl std::fmt::Debug for Printer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Printer").field("form", &self.form).finish_non_exhaustive()
    }
}

/// A table without a screen. A column whose name ends in `#` holds numbers.
///
/// # Panics
/// Panics if a row has fewer cells than there are columns.
#[must_use]
pub fn table(names: &[&'static str], rows: &[Vec<String>]) -> String {
    let column =
        |name: &&'static str| name.strip_suffix('#').map_or_else(|| Column::text(name), Column::number);
    render(&names.iter().map(column).collect::<Vec<_>>(), rows, &Screen::default())
}

/// Names and values below each other.
#[must_use]
pub fn list(rows: &[(&str, String)]) -> String {
    pairs(rows, false)
}

fn pairs(rows: &[(&str, String)], colour: bool) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().fold(String::new(), |mut text, (name, value)| {
        let value = clean(value);
        let is_state = colour && matches!(*name, "state" | "effect");
        let value = if is_state { in_colour(&value) } else { value };
        writeln!(text, "{name:<width$}  {value}").expect("writing to a String cannot fail");
        text
    })
}

/// Escapes control characters in JSON. They can only be in strings; all else in JSON is ASCII.
pub(super) fn json_text(json: &str) -> String {
    json.chars().fold(String::with_capacity(json.len()), |mut text, character| {
        if character != '\n' && must_be_escaped(character) {
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
        let mut printer = Printer::new(&mut out, form);
        let columns = [Column::text("NAME"), Column::number("COUNT")];
        printer.rows(rows, columns, |row| [row.name.to_owned(), row.count.to_string()]).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_are_aligned_without_trailing_spaces() {
        let rows =
            vec![vec!["a".into(), "1".into(), "x".into()], vec!["bcd".into(), "1000".into(), String::new()]];
        let expect = "NAME  COUNT  REST\na         1  x\nbcd    1000\n";
        assert_eq!(table(&["NAME", "COUNT#", "REST"], &rows), expect);
        assert_eq!(table(&["NÄME", "N#"], &[vec!["ü".into(), "1".into()]]), "NÄME  N\nü     1\n");
    }

    #[test]
    fn a_table_and_json_show_the_same_values() {
        let rows = [Row { name: "a", count: 7 }];
        assert_eq!(printed(Output::Table, &rows), "NAME  COUNT\na         7\n");
        let json: Value = serde_json::from_str(&printed(Output::Json, &rows)).unwrap();
        assert_eq!(json, serde_json::json!([{ "name": "a", "count": 7 }]));
        assert_eq!(printed(Output::Json, &[]), "[]\n");
    }

    #[test]
    fn control_characters_are_escaped() {
        let hostile = "a\x1b[2J\nb\u{9b}31m\u{202e}";
        let rows = [Row { name: hostile, count: 1 }];
        let text = printed(Output::Table, &rows);
        assert_eq!(text.lines().nth(1), Some("a\\u{1b}[2J\\nb\\u{9b}31m\\u{202e}      1"), "{text}");
        let text = printed(Output::Json, &rows);
        assert!(!text.chars().any(|c| c != '\n' && must_be_escaped(c)), "{text:?}");
        let json: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json[0]["name"], hostile);
        let mut out = Vec::new();
        let mut printer = Printer::new(&mut out, Output::Table);
        printer.line(|| Value::Null, || "one\n\x1btwo".to_owned()).unwrap();
        assert_eq!(out, b"one\n\\u{1b}two\n");
        assert_eq!(list(&[("name", "x\r\n".to_owned())]), "name  x\\r\\n\n");
    }

    #[test]
    fn a_state_has_its_colour_on_a_screen_only() {
        let lines = [("name", "denied".to_owned()), ("state", "denied".to_owned())];
        assert_eq!(pairs(&lines, true), "name   denied\nstate  \x1b[31mdenied\x1b[0m\n");
        assert_eq!(list(&lines), "name   denied\nstate  denied\n");
    }
}
