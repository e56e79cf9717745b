//! Explains where a configuration is invalid and what to write instead.
//!
//! The TOML parser reports a range of bytes and Rust types; an operator needs `file:line:column`, the key's path and a
//! remedy.

use std::fmt;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use crate::escape::clean;

/// A problem in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file's name.
    pub file: String,
    /// Line from 1; 0 if the problem has no line.
    pub line: usize,
    /// Column from 1, in characters.
    pub column: usize,
    /// Path of the key, e.g. `routes[1].backends[0].weight`; empty if the file is not TOML.
    pub key: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

/// One line: what it repeats of the file is escaped.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = clean(&self.file);
        match self.line {
            0 => write!(f, "{file}: ")?,
            line => write!(f, "{file}:{line}:{}: ", self.column)?,
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", clean(&self.key))?;
        }
        f.write_str(&clean(&self.message))
    }
}

impl std::error::Error for Problem {}

/// A program's explanations of its own keys, for problems with them.
#[derive(Clone, Copy, Debug)]
pub struct Hints {
    /// An example for a missing key, as the end of a sentence: `, e.g. "0.0.0.0:443"`; or nothing.
    pub example: fn(key: &str) -> &'static str,
    /// The problem within the value at this path, where the parser cannot locate it: in a flattened table.
    pub within: fn(tree: &DeTable<'_>, path: &str) -> Option<Found>,
}

/// A problem within a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The key's path.
    pub key: String,
    /// Where it is, in bytes.
    pub place: Range<usize>,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl Hints {
    /// No explanations.
    pub const NONE: Self = Self { example: |_| "", within: |_, _| None };
}

/// The problem of a value that parses but is not allowed; `key` is its path from the top of the file.
#[must_use]
pub fn refused(text: &str, file: &str, key: &str, message: impl Into<String>) -> Problem {
    let place = DeTable::parse(text).map_or(0..0, |tree| walk(tree.get_ref(), key).0);
    problem(text, file, place, key.to_owned(), message.into())
}

/// The problem of text that is not TOML, or not of the expected types.
pub(super) fn malformed(text: &str, file: &str, error: &toml::de::Error, hints: Hints) -> Problem {
    let place = error.span().unwrap_or(0..0);
    let Ok(tree) = DeTable::parse(text) else {
        let line = text[..place.start.min(text.len())].rsplit('\n').next().unwrap_or("").trim();
        let after = if line.is_empty() { String::new() } else { format!(", after `{line}`") };
        return problem(text, file, place, String::new(), format!("{}{after}", error.message()));
    };
    let path = path_to(tree.get_ref(), &place).unwrap_or_default();
    let message = error.message();
    if let Some(Found { key, place, message }) = (hints.within)(tree.get_ref(), &path) {
        return problem(text, file, place, key, message);
    }
    if let Some(key) = quoted(message, "missing field ") {
        let message = format!("missing: add `{key} = ...`{}", (hints.example)(key));
        return problem(text, file, place, join(&path, key), message);
    }
    if let Some(key) = quoted(message, "unknown field ") {
        let known = backticked(message, "expected ");
        return problem(text, file, place, path, format!("unknown field `{key}`{}", meant(key, &known)));
    }
    let value = text.get(place.clone()).unwrap_or("").trim();
    let message = explain_value(message, value, &path);
    problem(text, file, place, path, message)
}

/// `, did you mean `x`?` if one of `known` is similar, else the list of them.
#[must_use]
pub fn meant(word: &str, known: &[&str]) -> String {
    let near = known.iter().map(|candidate| (distance(word, candidate), candidate)).min();
    match near {
        Some((far, candidate)) if far <= (word.chars().count() / 3).max(1) => {
            format!(", did you mean `{candidate}`?")
        }
        Some(_) => format!(": expected one of {}", known.join(", ")),
        None => ": there is none".to_owned(),
    }
}

fn problem(text: &str, file: &str, place: Range<usize>, key: String, message: String) -> Problem {
    let before = text.get(..place.start).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    Problem {
        file: file.to_owned(),
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        key,
        message,
    }
}

/// The message for a value of the wrong type or outside its type's range.
pub(super) fn explain_value(message: &str, value: &str, path: &str) -> String {
    if let Some(word) = quoted(message, "unknown variant ") {
        return format!("unknown value `{word}`{}", meant(word, &backticked(message, "expected ")));
    }
    if message.contains("socket address") {
        return format!(
            "{value} is not an address with a port: write \"192.0.2.1:443\" or \"[2001:db8::1]:443\""
        );
    }
    if message.contains("IP address") || message.contains("network address") {
        return not_a_network(value);
    }
    let Some((found, expected)) = message.split_once(", expected ") else { return message.to_owned() };
    let found = found.trim_start_matches("invalid type: ").trim_start_matches("invalid value: ");
    let expected = match expected {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" => "a whole number, 0 or more",
        "a boolean" => "true or false",
        "a string" | "path string" => "a string in quotes",
        "a sequence" if found == "map" => {
            return format!("this is a list: write [[{path}]] instead of [{path}]");
        }
        "a sequence" => "a list in brackets",
        other if other.starts_with("struct ") => "a table",
        other => other,
    };
    format!("expected {expected}, found {}", if found == "map" { "a table" } else { found })
}

/// The message for a value that is not a network.
#[must_use]
pub fn not_a_network(value: &str) -> String {
    format!("{value} is not a network: write \"192.0.2.0/24\" or \"2001:db8::/32\"")
}

/// The word in backticks right after `prefix`.
fn quoted<'a>(message: &'a str, prefix: &str) -> Option<&'a str> {
    message.strip_prefix(prefix)?.strip_prefix('`')?.split('`').next()
}

/// All words in backticks after `start`.
fn backticked<'a>(message: &'a str, start: &str) -> Vec<&'a str> {
    let Some((_, list)) = message.split_once(start) else { return Vec::new() };
    list.split('`').skip(1).step_by(2).collect()
}

/// The path of a key within a table.
#[must_use]
pub fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Path of the key or value at exactly `place`.
fn path_to(table: &DeTable<'_>, place: &Range<usize>) -> Option<String> {
    table.iter().find_map(|(key, value)| {
        if key.span() == *place {
            return Some(key.get_ref().to_string());
        }
        path_in(value.get_ref(), &value.span(), place).map(|rest| format!("{}{rest}", key.get_ref()))
    })
}

fn path_in(value: &DeValue<'_>, span: &Range<usize>, place: &Range<usize>) -> Option<String> {
    let inner = match value {
        DeValue::Table(table) => path_to(table, place).map(|path| format!(".{path}")),
        DeValue::Array(array) => array.iter().enumerate().find_map(|(index, item)| {
            path_in(item.get_ref(), &item.span(), place).map(|rest| format!("[{index}]{rest}"))
        }),
        _ => None,
    };
    inner.or_else(|| (span == place).then(String::new))
}

/// Removes what is at exactly `place`: a key with its value. Of a list with it, the whole.
pub(super) fn remove_at(table: &mut DeTable<'_>, place: &Range<usize>) -> bool {
    let is_there = |(key, value): &(&Spanned<DeString<'_>>, &Spanned<DeValue<'_>>)| {
        let in_list = value.get_ref().is_array() && path_in(value.get_ref(), &value.span(), place).is_some();
        key.span() == *place || value.span() == *place || in_list
    };
    if let Some(key) = table.iter().find(is_there).map(|(key, _)| key.get_ref().to_string()) {
        return table.remove(key.as_str()).is_some();
    }
    table.iter_mut().any(|(_, value)| match value.get_mut() {
        DeValue::Table(inner) => remove_at(inner, place),
        _ => false,
    })
}

/// The place of the value at `path`, or of the longest part of the path that exists; and the value, if it exists.
#[must_use]
pub fn walk<'a, 'i>(tree: &'a DeTable<'i>, path: &str) -> (Range<usize>, Option<&'a Spanned<DeValue<'i>>>) {
    let mut place = 0..0;
    let mut table = Some(tree);
    let mut found = None;
    for part in path.split('.') {
        let (name, indexes) = part.split_once('[').unwrap_or((part, ""));
        found = table
            .and_then(|table| table.iter().find(|(key, _)| key.get_ref() == name))
            .map(|(_, value)| value);
        for index in indexes.split(['[', ']']).filter_map(|index| index.parse::<usize>().ok()) {
            place = found.map_or(place, Spanned::span);
            found = found.and_then(|value| value.get_ref().as_array()?.get(index));
        }
        let Some(value) = found else { return (place, None) };
        place = value.span();
        table = value.get_ref().as_table();
    }
    (place, found)
}

/// Edits between two words (Levenshtein, with a swap of neighbours as one edit).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + change);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}
