//! The range of every number in a configuration.
//!
//! Each settings struct states its ranges in one table, `RANGES`. The numbers are found by serialising the
//! configuration, so that a new numeric key without a range is noticed: [`numbers_without_range`] is what a test calls.

use serde::Serialize;
use toml::{Table, Value};

use super::join;

/// The smallest and the largest value of a numeric key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Path of the key: `server.max_connections`; below a list of tables, `rules[].weight`.
    pub key: &'static str,
    /// The smallest value allowed.
    pub min: i64,
    /// The largest value allowed.
    pub max: i64,
}

impl Range {
    /// A range from `min` to `max`, both included.
    #[must_use]
    pub const fn new(key: &'static str, min: i64, max: i64) -> Self {
        Self { key, min, max }
    }
}

/// A value that its key does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct InvalidValue {
    /// Path of the key.
    pub key: String,
    /// What is wrong and what is expected.
    pub message: String,
}

impl InvalidValue {
    /// The value of `key` is not allowed.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into() }
    }
}

/// The numbers of a configuration that are out of their range, or have none.
#[must_use]
pub fn check_ranges<T: Serialize>(config: &T, ranges: &[&[Range]]) -> Vec<InvalidValue> {
    let check = |(key, value): (String, Option<i64>)| {
        let Some(Range { min, max, .. }) = find(ranges, &key) else {
            return Some(InvalidValue::new(key, "no range is stated for this number: a bug in the program"));
        };
        if value.is_some_and(|value| (*min..=*max).contains(&value)) {
            return None;
        }
        let value = value.map_or_else(|| "a fraction".to_owned(), |value| value.to_string());
        Some(InvalidValue::new(key, format!("{value} is out of range; expected {min} to {max}")))
    };
    numbers(config).into_iter().filter_map(check).collect()
}

/// The numeric keys of a configuration that have no range. A test asserts that there are none.
#[must_use]
pub fn numbers_without_range<T: Serialize>(config: &T, ranges: &[&[Range]]) -> Vec<String> {
    numbers(config).into_iter().map(|(key, _)| key).filter(|key| find(ranges, key).is_none()).collect()
}

fn find<'a>(ranges: &[&'a [Range]], key: &str) -> Option<&'a Range> {
    ranges.iter().copied().flatten().find(|range| range.key == key)
}

/// The path and value of each number; `None` is a fraction.
fn numbers<T: Serialize>(config: &T) -> Vec<(String, Option<i64>)> {
    let tree = Table::try_from(config).expect("a configuration can be written as TOML");
    let mut found = Vec::new();
    for (key, value) in &tree {
        collect(key, value, &mut found);
    }
    found
}

fn collect(path: &str, value: &Value, found: &mut Vec<(String, Option<i64>)>) {
    match value {
        Value::Integer(number) => found.push((path.to_owned(), Some(*number))),
        Value::Float(_) => found.push((path.to_owned(), None)),
        Value::Table(table) => table.iter().for_each(|(key, value)| collect(&join(path, key), value, found)),
        Value::Array(list) => list.iter().for_each(|value| collect(&format!("{path}[]"), value, found)),
        Value::String(_) | Value::Boolean(_) | Value::Datetime(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGES: &[&[Range]] =
        &[&[Range::new("server.workers", 1, 64)], &[Range::new("rules[].weight", 0, 9)]];

    fn config(text: &str) -> Table {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn every_number_is_checked_also_in_lists_of_tables() {
        let check = |text: &str, expect: &str| {
            let errors = check_ranges(&config(text), RANGES);
            let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
            assert_eq!(errors.join("\n"), expect, "{text}");
        };
        check("[server]\nworkers = 64\nname = 'a'\nstrict = true", "");
        check("[[rules]]\nweight = 0\n[[rules]]\nweight = 9", "");
        check("server.workers = 0", "server.workers: 0 is out of range; expected 1 to 64");
        check("server.workers = 65", "server.workers: 65 is out of range; expected 1 to 64");
        check("rules = [{ weight = 10 }]", "rules[].weight: 10 is out of range; expected 0 to 9");
        check(
            "server.workers = 0\nrules = [{ weight = 10 }]",
            "rules[].weight: 10 is out of range; expected 0 to 9\nserver.workers: 0 is out of range; expected 1 to 64",
        );
        check("server.workers = 1.5", "server.workers: a fraction is out of range; expected 1 to 64");
        check("server.other = 1", "server.other: no range is stated for this number: a bug in the program");
    }

    #[test]
    fn a_number_without_a_range_is_named() {
        let config = config("list = [1]\nserver = { workers = 1, other = 2 }");
        assert_eq!(numbers_without_range(&config, RANGES), ["list[]", "server.other"]);
    }
}
