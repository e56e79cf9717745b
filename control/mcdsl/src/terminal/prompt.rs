//! Questions to the user. Secrets are typed without being shown.
//!
//! They are asked on the terminal itself: standard input and output may be pipes.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};

use zeroize::Zeroizing;

use crate::Secret;

/// The controlling terminal of this process, wherever standard input and output lead (tty(4)).
const TERMINAL: &str = "/dev/tty";

/// Maximum length of a line of input, in bytes.
const MAX_LINE: u64 = 64 * 1024;

/// Asks for a secret, without showing what is typed.
///
/// # Errors
/// There is no terminal, or the input is empty.
pub fn prompt_secret(text: &str) -> io::Result<Secret> {
    let instead = "run it on a terminal, or pass the input on standard input if --help shows a way";
    terminal(text, instead)?;
    let typed = rpassword::prompt_password(text).map(Secret::from)?;
    if typed.expose().is_empty() {
        return Err(empty_input());
    }
    Ok(typed)
}

/// Asks for a new secret twice, without showing what is typed, until both are equal.
///
/// # Errors
/// There is no terminal, the input is empty, or the two differ three times.
pub fn prompt_new_secret(text: &str, again: &str) -> io::Result<Secret> {
    twice(prompt_secret, text, again, &mut io::stderr())
}

fn twice(
    mut ask: impl FnMut(&str) -> io::Result<Secret>,
    text: &str,
    again: &str,
    messages: &mut impl Write,
) -> io::Result<Secret> {
    for _ in 0..3 {
        let secret = ask(text)?;
        if ask(again)?.expose() == secret.expose() {
            return Ok(secret);
        }
        writeln!(messages, "The two differ. Try again.")?;
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "The two inputs differ: nothing was changed"))
}

/// Asks whether to continue. Only `y` and `yes` mean yes.
///
/// # Errors
/// There is no terminal.
pub fn confirm(question: &str) -> io::Result<bool> {
    let question = format!("{question} [y/N] ");
    let terminal = terminal(&question, "pass --yes to continue without a question")?;
    ask(&mut BufReader::new(&terminal), &mut &terminal, &question).map(|answer| is_yes(&answer))
}

/// Reads a secret from the next line of standard input.
///
/// # Errors
/// The input cannot be read, or is empty.
pub fn read_secret_stdin() -> io::Result<Secret> {
    first_line(&mut io::stdin().lock())
}

fn first_line(input: &mut impl BufRead) -> io::Result<Secret> {
    let mut line = Zeroizing::new(String::new());
    input.take(MAX_LINE).read_line(&mut line)?;
    let secret = line.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "Standard input is empty or has too few lines",
        ));
    }
    Ok(Secret::from(secret))
}

fn ask(input: &mut impl BufRead, output: &mut impl Write, text: &str) -> io::Result<String> {
    write!(output, "{text}")?;
    output.flush()?;
    let mut line = String::new();
    if input.take(MAX_LINE).read_line(&mut line)? == 0 {
        writeln!(output)?;
        return Err(empty_input());
    }
    Ok(line.trim().to_owned())
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.to_ascii_lowercase().as_str(), "y" | "yes")
}

fn empty_input() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "The input is empty")
}

/// Opens the terminal. The error says what cannot be asked and what to do instead.
fn terminal(question: &str, instead: &str) -> io::Result<File> {
    let opened = OpenOptions::new().read(true).write(true).open(TERMINAL);
    opened.map_err(|error| io::Error::new(error.kind(), no_terminal(question, instead)))
}

/// Quotes only the last line of the question: those above it may hold a secret.
fn no_terminal(question: &str, instead: &str) -> String {
    let question = question.lines().last().unwrap_or_default().trim_end_matches([' ', ':']);
    format!("There is no terminal for a question ({question}): {instead}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_quote_only_the_last_line_of_a_question() {
        let message =
            no_terminal("Give this to your authenticator:\n  SECRET\nCode that it shows: ", "see --help");
        assert_eq!(message, "There is no terminal for a question (Code that it shows): see --help");
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
    fn a_secret_on_standard_input_is_the_first_line() {
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
    fn a_new_secret_must_be_typed_twice() {
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
