//! What a command is done with: where its data goes, connections, questions.
#![expect(clippy::print_stderr, reason = "a command line speaks to who typed it")]

use mc_api::client::{Connection, Target, connect};
use mc_api::token::Token;

use super::context::check_ca;
use super::settings::Settings;
use super::{Error, Exit, Printer, token_file};
use crate::Secret;
use crate::terminal::{clean_lines, confirm, prompt_new_secret, prompt_secret, read_secret_stdin};

/// What a command is done with.
#[derive(Debug)]
pub struct Ctl<'a> {
    /// Where data goes.
    pub printer: Printer<'a>,
    pub(super) settings: Settings,
    /// Whether `--yes` was given.
    pub(super) yes: bool,
}

impl Ctl<'_> {
    /// Connects with the stored token.
    ///
    /// # Errors
    /// Returns an error if the server cannot be reached, or if nobody is logged in.
    pub async fn connect(&self) -> Result<Connection, Error> {
        let token = token_file::read(&self.settings.token_file)?;
        let is_logged_in = token.is_some();
        let connection = self.connect_with(&self.settings.server, token.unwrap_or_default()).await?;
        if is_logged_in {
            return Ok(connection);
        }
        Err(Error::not_logged_in())
    }

    /// Connects without a token.
    ///
    /// # Errors
    /// Returns an error if the server cannot be reached.
    pub async fn connect_without_token(&self) -> Result<Connection, Error> {
        self.connect_with(&self.settings.server, Token::default()).await
    }

    pub(super) async fn connect_with(&self, url: &str, token: Token) -> Result<Connection, Error> {
        // Before it is read as a whole: it may be a pipe.
        check_ca(&self.settings.ca)?;
        let target = Target { url: url.to_owned(), ca: self.settings.ca.clone() };
        Ok(connect(&target, token).await?)
    }

    /// Asks for confirmation, unless `--yes` was given.
    ///
    /// # Errors
    /// Returns an error if the answer is no, or if there is no terminal.
    pub fn confirm(&self, question: &str) -> Result<(), Error> {
        if self.yes || confirm(question).map_err(Error::prompt)? {
            return Ok(());
        }
        Err(Error::new(Exit::Failed, "Nothing was changed"))
    }

    /// Tells the user something that is not data.
    pub fn note(&self, text: &str) {
        eprintln!("{}", clean_lines(text));
    }
}

/// Asks for a secret, or reads it from the next line of standard input.
///
/// # Errors
/// Returns an error if there is neither.
pub fn secret(question: &str, from_stdin: bool) -> Result<Secret, Error> {
    let secret = if from_stdin { read_secret_stdin() } else { prompt_secret(question) };
    secret.map_err(Error::prompt)
}

/// The same for a code that is the second line of standard input, after a password: a script that does not know of it has
/// passed one line.
///
/// # Errors
/// Returns an error if there is neither.
pub(super) fn second_factor(question: &str, from_stdin: bool) -> Result<Secret, Error> {
    secret(question, from_stdin).map_err(|error| {
        let what = question.trim_end_matches([' ', ':']);
        let instead = "pass --password-stdin, with the password as the first line of standard input and the code as the second";
        if from_stdin {
            Error::usage(format!("The account has a second factor ({what}): pass its code as the second line of standard input"))
        } else {
            Error::new(error.exit(), format!("The account has a second factor ({what}): {instead}"))
        }
    })
}

/// Asks for a new password twice, or reads it from the next line of standard input.
///
/// # Errors
/// Returns an error if there is neither.
pub fn new_password(from_stdin: bool) -> Result<Secret, Error> {
    let ask = || prompt_new_secret("New password: ", "Repeat new password: ");
    let secret = if from_stdin { read_secret_stdin() } else { ask() };
    secret.map_err(Error::prompt)
}
