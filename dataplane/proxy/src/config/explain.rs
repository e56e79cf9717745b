//! Says where a configuration is wrong and what to write instead.
//!
//! The TOML reader knows the place as a range of bytes and speaks of Rust types; an operator wants
//! `file:line:column`, the key's path and a remedy.

use std::fmt;
use std::ops::Range;

use mc_core::model::Invalid;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Something in a configuration file that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file's name.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// Path of the key, e.g. `routes[1].backends[0].weight`; empty where the file is no TOML.
    pub key: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

/// A value that is refused for what it means: `invalid.field` is its path from the top of the file.
pub(super) fn invalid(text: &str, file: &str, invalid: &Invalid) -> Problem {
    let place = DeTable::parse(text).map_or(0..0, |tree| walk(tree.get_ref(), &invalid.field).0);
    problem(text, file, place, invalid.field.clone(), invalid.problem.clone())
}

/// Text that is no TOML, or not of the types expected.
pub(super) fn malformed(text: &str, file: &str, error: &toml::de::Error) -> Problem {
    let place = error.span().unwrap_or(0..0);
    let Ok(tree) = DeTable::parse(text) else {
        let line = text[..place.start.min(text.len())].rsplit('\n').next().unwrap_or("").trim();
        let after = if line.is_empty() { String::new() } else { format!(", after `{line}`") };
        return problem(text, file, place, String::new(), format!("{}{after}", error.message()));
    };
    let path = path_to(tree.get_ref(), &place).unwrap_or_default();
    let message = error.message();
    if let Some((key, place, message)) = rule_problem(tree.get_ref(), &path) {
        return problem(text, file, place, key, message);
    }
    if let Some(key) = quoted(message, "missing field ") {
        let message = format!("missing: add `{key} = ...`{}", example(key));
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

/// `, did you mean `x`?` where one of `known` is near, else the list of them.
fn meant(word: &str, known: &[&str]) -> String {
    let near = known.iter().map(|candidate| (distance(word, candidate), candidate)).min();
    match near {
        Some((far, candidate)) if far <= (word.chars().count() / 3).max(1) => {
            format!(", did you mean `{candidate}`?")
        }
        Some(_) => format!(": known are {}", known.join(", ")),
        None => ": there are none".to_owned(),
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

/// A value of the wrong type or outside its range, in an operator's words.
fn explain_value(message: &str, value: &str, path: &str) -> String {
    if let Some(word) = quoted(message, "unknown variant ") {
        return format!("unknown value `{word}`{}", meant(word, &backticked(message, "expected ")));
    }
    if message.contains("socket address") {
        return format!(
            "{value} is no address with a port: write \"192.0.2.1:443\" or \"[2001:db8::1]:443\""
        );
    }
    if message.contains("IP address") || message.contains("network address") {
        return no_network(value);
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
            return format!("there may be several: write [[{path}]] instead of [{path}]");
        }
        "a sequence" => "a list in brackets",
        other if other.starts_with("struct ") => "a table",
        other => other,
    };
    format!("expected {expected}, found {}", if found == "map" { "a table" } else { found })
}

/// An example of a field that is easy to get wrong.
fn example(key: &str) -> &'static str {
    match key {
        "address" => ", e.g. \"0.0.0.0:443\"",
        "name" => ", e.g. \"web\" for a listener, \"www.example.org\" for a route",
        "backends" => ", e.g. [{ address = \"192.0.2.1:443\" }]",
        "listener" => ", the name of a listener",
        "action" => ", \"allow\" or \"deny\"",
        _ => "",
    }
}

/// What is wrong with a firewall rule: its fields are flattened, so that the reader blames the whole of it.
fn rule_problem(tree: &DeTable<'_>, path: &str) -> Option<(String, Range<usize>, String)> {
    if !path.starts_with("firewall.rules[") {
        return None;
    }
    let rule = walk(tree, path).1?.get_ref().as_table()?;
    let subjects = rule.keys().filter(|key| RULE_SUBJECTS.contains(&key.get_ref().as_ref())).count();
    for (key, value) in rule {
        let name = key.get_ref().as_ref();
        let (place, message) = match (name, value.get_ref()) {
            ("cidr", DeValue::String(text)) if text.parse::<ipnet::IpNet>().is_err() => {
                (value.span(), no_network(&format!("\"{text}\"")))
            }
            ("cidr" | "country", other) if !other.is_str() => {
                (value.span(), format!("expected a string in quotes, found {}", other.type_str()))
            }
            ("asn", DeValue::Integer(number)) if number.as_str().parse::<u32>().is_ok() => continue,
            ("asn", _) => (value.span(), "expected a whole number from 0 to 4294967295".to_owned()),
            ("cidr" | "country" | "action" | "comment", _) => continue,
            _ => (key.span(), format!("unknown field `{name}`{}", meant(name, &RULE_KEYS))),
        };
        return Some((join(path, name), place, message));
    }
    let message = "a rule needs exactly one of `cidr`, `country` and `asn`, e.g. cidr = \"192.0.2.0/24\"";
    (subjects != 1).then(|| (path.to_owned(), walk(tree, path).0, message.to_owned()))
}

fn no_network(value: &str) -> String {
    format!("{value} is no network: write \"192.0.2.0/24\" or \"2001:db8::/32\"")
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

fn join(path: &str, key: &str) -> String {
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

/// Where the value at `path` is, or as much of the path as there is; and the value, if it is there.
fn walk<'a, 'i>(tree: &'a DeTable<'i>, path: &str) -> (Range<usize>, Option<&'a Spanned<DeValue<'i>>>) {
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

/// Whom a rule is about.
const RULE_SUBJECTS: [&str; 3] = ["cidr", "country", "asn"];

/// Everything a rule may say.
const RULE_KEYS: [&str; 5] = ["action", "cidr", "country", "asn", "comment"];
