//! One module for each kind of thing that is operated.

mod account;
mod login;
mod own;
mod policy;
mod site;
mod token;

use std::io::Write;
use std::path::PathBuf;

use clap::CommandFactory as _;
use mc_api::mcias::Changed;
use mc_api::mcias::client::{self, Client, Target};
use mcdsl::terminal::{Printer, confirm};
use serde_json::json;

use crate::cli::{Cli, Command, Password};
use crate::error::Error;
use crate::token_file;

/// What commands are done with.
struct Session<'a> {
    client: Client,
    printer: Printer<'a>,
    token_file: PathBuf,
    yes: bool,
}

/// Does what was asked; data goes to `out`.
pub(crate) async fn run(cli: Cli, out: &mut dyn Write) -> Result<(), Error> {
    if let Command::Completion { shell } = cli.command {
        // By way of memory: the generator panics where its writer fails.
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "mciasctl", &mut script);
        return Ok(out.write_all(&script)?);
    }
    let token_file = cli.reach.token_file.or_else(token_file::default_path);
    let token_file =
        token_file.ok_or_else(|| Error::Usage("there is no home directory: pass --token-file".into()))?;
    // A token that has ended would stand in the way of the login that replaces it.
    let takes_none =
        matches!(cli.command, Command::Login { .. } | Command::Password(Password::Redeem { .. }));
    let token = if takes_none { mc_api::token::Token::default() } else { token_file::read(&token_file)? };
    let target = Target { url: cli.reach.server, ca: cli.reach.ca };
    let client = client::connect(&target, token).await?;
    let mut session =
        Session { client, printer: Printer { out, form: cli.output }, token_file, yes: cli.yes };
    match cli.command {
        Command::Login { name, password_stdin, recovery, audience } => {
            login::login(&mut session, name, password_stdin, recovery, audience).await
        }
        Command::Logout => login::logout(&mut session).await,
        Command::Whoami => own::whoami(&mut session).await,
        Command::Password(Password::Change { stdin }) => own::change_password(&mut session, stdin).await,
        Command::Password(Password::Redeem { stdin }) => own::redeem(&mut session, stdin).await,
        Command::Totp(command) => own::totp(&mut session, &command).await,
        Command::RecoveryCodes => own::recovery_codes(&mut session).await,
        Command::Passkey(command) => own::passkey(&mut session, command).await,
        Command::Session(command) => own::session(&mut session, command).await,
        Command::Account(command) => account::run(&mut session, command).await,
        Command::Token(command) => token::run(&mut session, command).await,
        Command::Policy(command) => policy::run(&mut session, command).await,
        Command::Audit(command) => site::audit(&mut session, command).await,
        Command::Key(command) => site::key(&mut session, command).await,
        Command::Completion { .. } => Ok(()),
    }
}

impl Session<'_> {
    /// Asks before something is lost.
    fn sure(&self, question: &str) -> Result<(), Error> {
        if self.yes || confirm(question).map_err(Error::Terminal)? { Ok(()) } else { Err(Error::No) }
    }

    /// Says how much was changed.
    fn changed(&mut self, changed: &Changed, what: &str) -> Result<(), Error> {
        let count = changed.changed;
        let text = || if count == 0 { format!("nothing to do: {what}\n") } else { format!("{what}\n") };
        Ok(self.printer.print(|| json!({ "changed": count }), text)?)
    }
}

/// A time for people: UTC.
fn when(unix_s: i64) -> String {
    let format = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]");
    let time = time::OffsetDateTime::from_unix_timestamp(unix_s).ok();
    time.and_then(|time| time.format(&format).ok()).unwrap_or_else(|| unix_s.to_string())
}

fn when_or_dash(unix_s: Option<i64>) -> String {
    unix_s.map_or_else(|| "-".to_owned(), when)
}

fn list_or(words: &[String], none: &str) -> String {
    if words.is_empty() { none.to_owned() } else { words.join(",") }
}
