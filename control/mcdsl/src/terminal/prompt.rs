//! Questions to who sits at the terminal. Secrets are asked for without showing what is typed.
//!
//! They are asked on the terminal itself, not on standard input and output, which may be pipes.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};

use zeroize::Zeroizing;

use crate::Secret;

/// The terminal of this process, whatever standard input and output are (tty(4)).
const TERMINAL: &str = "/dev/tty";

/// Longest secret that is read from standard input, in bytes: a bound for what is no secret at all.
const LONGEST: u64 = 64 * 1024;

/// Asks for a secret, without showing what is typed.
///
/// # Errors
/// There is no terminal, or nothing was typed.
pub fn prompt_secret(text: &str) -> io::Result<Secret> {
    let without = "this needs one; where it can be passed by standard input, --help says how";
    terminal(text, without)?;
    let typed = rpassword::prompt_password(text).map(Secret::from)?;
    if typed.expose().is_empty() {
        return Err(nothing_typed());
    }
    Ok(typed)
}

/// Asks for a new secret twice, without showing what is typed, until both are the same.
///
/// # Errors
/// There is no terminal, nothing was typed, or three times the two were not the same.
pub fn prompt_new_secret(text: &str, again: &str) -> io::Result<Secret> {
    twice(prompt_secret, text, again, &mut io::stderr())
}

fn twice(
    mut ask: impl FnMut(&str) -> io::Result<Secret>,
    text: &str,
    again: &str,
    told: &mut impl Write,
) -> io::Result<Secret> {
    for _ in 0..3 {
        let secret = ask(text)?;
        if ask(again)?.expose() == secret.expose() {
            return Ok(secret);
        }
        writeln!(told, "They are not the same.")?;
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        "what was typed was not the same twice: nothing was changed",
    ))
}

/// Asks for a line that is no secret.
///
/// # Errors
/// There is no terminal, or it was closed.
pub fn prompt_line(text: &str) -> io::Result<String> {
    let terminal = terminal(text, "pass it as an argument")?;
    ask(&mut BufReader::new(&terminal), &mut &terminal, text)
}

/// Asks whether to go on: only `y` and `yes` say so.
///
/// # Errors
/// There is no terminal: `--yes` is the way without one.
pub fn confirm(question: &str) -> io::Result<bool> {
    let question = format!("{question} [y/N] ");
    let terminal = terminal(&question, "pass --yes to go on without being asked")?;
    ask(&mut BufReader::new(&terminal), &mut &terminal, &question).map(|answer| is_yes(&answer))
}

/// Reads a secret from standard input: its first line, without the line's end.
///
/// # Errors
/// It cannot be read, or is empty.
pub fn read_secret_stdin() -> io::Result<Secret> {
    first_line(&mut io::stdin().lock())
}

fn first_line(input: &mut impl BufRead) -> io::Result<Secret> {
    let mut line = Zeroizing::new(String::new());
    input.take(LONGEST).read_line(&mut line)?;
    let secret = line.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "there is nothing on standard input"));
    }
    Ok(Secret::from(secret))
}

fn ask(input: &mut impl BufRead, output: &mut impl Write, text: &str) -> io::Result<String> {
    write!(output, "{text}")?;
    output.flush()?;
    let mut line = String::new();
    if input.take(LONGEST).read_line(&mut line)? == 0 {
        writeln!(output)?;
        return Err(nothing_typed());
    }
    Ok(line.trim().to_owned())
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.to_ascii_lowercase().as_str(), "y" | "yes")
}

fn nothing_typed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "nothing was typed")
}

/// Opens the terminal; without one, says what cannot be asked and what to do instead.
fn terminal(question: &str, instead: &str) -> io::Result<File> {
    let opened = OpenOptions::new().read(true).write(true).open(TERMINAL);
    opened.map_err(|error| io::Error::new(error.kind(), nowhere_to_ask(question, instead)))
}

/// What is said where there is no terminal. Of the question its last line: what stands above it may be a secret.
fn nowhere_to_ask(question: &str, instead: &str) -> String {
    let question = question.lines().last().unwrap_or_default().trim_end_matches([' ', ':']);
    format!("there is no terminal to ask on ({question}): {instead}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_above_a_question_is_not_said_in_an_error() {
        let said =
            nowhere_to_ask("Give this to your authenticator:\n  SECRET\nCode that it shows: ", "see --help");
        assert_eq!(said, "there is no terminal to ask on (Code that it shows): see --help");
    }

    #[test]
    fn only_yes_is_yes() {
        let check = |typed: &str, expect: bool| {
            let mut shown = Vec::new();
            let answer = ask(&mut typed.as_bytes(), &mut shown, "Go on? [y/N] ").unwrap();
            assert_eq!(is_yes(&answer), expect, "{typed:?}");
            assert_eq!(shown, b"Go on? [y/N] ");
        };
        check("y\n", true);
        check(" YES \r\n", true);
        check("yes", true);
        check("\n", false);
        check("n\n", false);
        check("yesterday\n", false);
        assert!(ask(&mut &b""[..], &mut Vec::new(), "Go on? ").is_err());
    }

    #[test]
    fn a_secret_from_standard_input_is_its_first_line() {
        let check = |input: &str, expect: Option<&str>| {
            let read = first_line(&mut input.as_bytes()).ok();
            assert_eq!(read.as_ref().map(Secret::expose), expect, "{input:?}");
        };
        check(" two words \r\nrest\n", Some(" two words "));
        check("no end", Some("no end"));
        check("", None);
        check("\n", None);
    }

    #[test]
    fn a_new_secret_must_be_typed_twice_the_same() {
        let check = |typed: &[&str], expect: Option<&str>| {
            let mut typed = typed.iter();
            let ask = |_: &str| Ok(Secret::from(*typed.next().unwrap()));
            let secret = twice(ask, "new: ", "again: ", &mut Vec::new()).ok();
            assert_eq!(secret.as_ref().map(Secret::expose), expect);
            assert_eq!(typed.next(), None);
        };
        check(&["a", "a"], Some("a"));
        check(&["a", "b", "c", "c"], Some("c"));
        check(&["a", "b", "a", "b", "a", "b"], None);
    }
}
