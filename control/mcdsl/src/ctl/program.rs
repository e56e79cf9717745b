//! A ctl's `main`: reads the command line, does the frame's own commands, and reports errors.
#![expect(clippy::print_stderr, reason = "a command line speaks to who typed it")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Subcommand};
use mc_api::client::{Connection, Target, connect};
use mc_api::token::Token;

use super::args::{Cli, Command, Context as ContextCommand, GlobalArgs};
use super::context::{Context, Contexts};
use super::run::block_on;
use super::screen::Screen;
use super::settings::{self, Settings};
use super::{Column, Error, Exit, Output, Printer, login, token_file};
use crate::Secret;
use crate::terminal::{clean_lines, confirm, prompt_new_secret, prompt_secret, read_secret_stdin};

/// What is different in each ctl.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// `mciasctl`
    pub name: &'static str,
    /// `mcias`: the key of its address in contexts, and in capitals the prefix of its variables.
    pub service: &'static str,
    /// Of the program.
    pub version: &'static str,
    /// One line.
    pub about: &'static str,
    /// Lines of examples for `--help`, indented.
    pub examples: &'static str,
    /// Address where neither option, context nor variable has one.
    pub default_server: &'static str,
}

impl Program {
    /// `MCIAS_SERVER` for `SERVER`.
    pub(super) fn variable(&self, suffix: &str) -> String {
        format!("{}_{suffix}", self.service.to_ascii_uppercase())
    }
}

/// What a command is done with.
#[derive(Debug)]
pub struct Ctl<'a> {
    /// Where data goes.
    pub printer: Printer<'a>,
    pub(super) settings: Settings,
    yes: bool,
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

/// Asks for a new password twice, or reads it from the next line of standard input.
///
/// # Errors
/// Returns an error if there is neither.
pub fn new_password(from_stdin: bool) -> Result<Secret, Error> {
    let ask = || prompt_new_secret("New password: ", "Repeat new password: ");
    let secret = if from_stdin { read_secret_stdin() } else { ask() };
    secret.map_err(Error::prompt)
}

/// The whole command line: for tests, completion and man pages.
#[must_use]
pub fn command<C: Subcommand>(program: &Program) -> clap::Command {
    let Program { name, default_server, .. } = program;
    let server = format!(
        "gRPC address of the server [env: {}] [default: {default_server}]",
        program.variable("SERVER")
    );
    let ca = format!("PEM file with the CA certificate of the server [env: {}]", program.variable("CA"));
    let token = format!("File with the token, mode 0600 [env: {}]", program.variable("TOKEN_FILE"));
    let login =
        format!("Examples:\n  {name} login ada\n  pass show site | {name} login ada --password-stdin");
    let add = format!("Example:\n  {name} context add home --server {default_server} --ca ca.pem");
    let completion = format!("Example:\n  {name} completion bash > /etc/bash_completion.d/{name}");
    let man = format!("Example:\n  {name} man /usr/local/share/man/man1");
    Cli::<C>::command()
        .name(name)
        .version(program.version)
        .about(program.about)
        .after_help(format!("{}\nExamples:\n{}", Exit::help(), program.examples))
        .max_term_width(100)
        .mut_arg("server", |arg| arg.help(server))
        .mut_arg("ca", |arg| arg.help(ca))
        .mut_arg("token_file", |arg| arg.help(token))
        .mut_subcommand("login", |command| command.after_help(login))
        .mut_subcommand("context", |command| command.mut_subcommand("add", |command| command.after_help(add)))
        .mut_subcommand("completion", |command| command.after_help(completion))
        .mut_subcommand("man", |command| command.after_help(man))
}

/// The `main` of a ctl. `run` does the ctl's own commands.
pub fn main<C: Subcommand>(
    program: &'static Program,
    run: impl AsyncFnOnce(&mut Ctl<'_>, C) -> Result<(), Error>,
) -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let parsed = command::<C>(program).try_get_matches_from(&arguments);
    let (done, form) = match parsed.and_then(|matches| Cli::<C>::from_arg_matches(&matches)) {
        Ok(cli) => {
            let form = cli.global.output;
            (block_on(async |out: &mut dyn Write| dispatch(program, cli, out, run).await), form)
        }
        // Help and version are such errors as well; they go to standard output.
        Err(error) if !error.use_stderr() || !wants_json(&arguments) => error.exit(),
        Err(error) => (Err(usage(&error)), Output::Json),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of standard output has seen enough.
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", error.report(program.name, form));
            ExitCode::from(error.exit() as u8)
        }
    }
}

/// Whether a command line that is wrong asks for JSON.
fn wants_json(arguments: &[OsString]) -> bool {
    let is = |argument: &OsString, texts: &[&str]| texts.iter().any(|text| argument == text);
    let apart = |pair: &[OsString]| is(&pair[0], &["--output", "-o"]) && pair[1] == "json";
    arguments.windows(2).any(apart)
        || arguments.iter().any(|it| is(it, &["--output=json", "-ojson", "-o=json"]))
}

/// What is wrong with a command line, without the tips and the usage that follow.
fn usage(error: &clap::Error) -> Error {
    let text = error.render().to_string();
    let detail = text.trim_start_matches("error: ").split("\n\n").next().unwrap_or_default();
    Error::usage(detail.trim())
}

async fn dispatch<C: Subcommand>(
    program: &'static Program,
    cli: Cli<C>,
    out: &mut dyn Write,
    run: impl AsyncFnOnce(&mut Ctl<'_>, C) -> Result<(), Error>,
) -> Result<(), Error> {
    let Cli { command: given, global } = cli;
    match &given {
        Command::Completion { shell } => {
            // By way of memory: the generator panics if its writer fails.
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut command::<C>(program), program.name, &mut script);
            return Ok(out.write_all(&script)?);
        }
        Command::Man { directory } => {
            let written = clap_mangen::generate_to(command::<C>(program), directory);
            return written.map_err(|error| Error::file("write man pages to", directory, error));
        }
        _ => {}
    }
    let variable = |name: &str| std::env::var(name).ok();
    let directory = settings::directory(variable("XDG_CONFIG_HOME"), std::env::home_dir())?;
    let mut printer = Printer::on(out, global.output, Screen::of_stdout(global.no_pager));
    if let Command::Context(command) = given {
        return context(program, &global, &directory, &mut printer, command);
    }
    let settings = Settings::resolve(program, &global, &directory, variable)?;
    let mut ctl = Ctl { printer, settings, yes: global.yes };
    match given {
        Command::Login(arguments) => login::login(&mut ctl, arguments).await,
        Command::Logout => login::logout(&mut ctl).await,
        Command::Service(command) => run(&mut ctl, command).await,
        Command::Context(_) | Command::Completion { .. } | Command::Man { .. } => Ok(()),
    }
}

fn context(
    program: &Program,
    global: &GlobalArgs,
    directory: &Path,
    printer: &mut Printer<'_>,
    command: ContextCommand,
) -> Result<(), Error> {
    let file = settings::contexts_file(directory);
    let mut contexts = Contexts::read(&file)?;
    match command {
        ContextCommand::List => {
            let rows: Vec<_> = contexts.contexts.iter().collect();
            let is_current = |name: &String| contexts.current.as_ref() == Some(name);
            let columns = [
                Column::exact("CURRENT"),
                Column::text("NAME"),
                Column::text("SERVER"),
                Column::text("CA").rank(1),
            ];
            let cells = |(name, context): &(&String, &Context)| {
                let server = context.servers.get(program.service).cloned().unwrap_or_default();
                let ca = context.ca.as_ref().map(|ca| ca.display().to_string()).unwrap_or_default();
                [if is_current(name) { "*" } else { "" }.to_owned(), (*name).clone(), server, ca]
            };
            return Ok(printer.table(&contexts, &rows, columns, cells, "")?);
        }
        ContextCommand::Use { name } => contexts.select(&name)?,
        ContextCommand::Add { name } => {
            let url = global
                .server
                .clone()
                .ok_or_else(|| Error::usage("Pass --server, the address of the server"))?;
            let absolute = |file: &Option<PathBuf>| {
                let absolute =
                    |file| std::path::absolute(file).map_err(|error| Error::file("find", file, error));
                file.as_deref().map(absolute).transpose()
            };
            let context = Context {
                ca: absolute(&global.ca)?,
                token_file: absolute(&global.token_file)?,
                servers: BTreeMap::from([(program.service.to_owned(), url)]),
            };
            contexts.add(&name, context)?;
        }
        ContextCommand::Remove { name } => {
            contexts.remove(&name)?;
            token_file::remove(&settings::token_path(directory, &name))?;
        }
    }
    contexts.write(&file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Subcommand)]
    enum Commands {
        /// List things
        List,
    }

    const PROGRAM: Program = Program {
        name: "examplectl",
        service: "example",
        version: "1",
        about: "Operate an example",
        examples: "  examplectl list",
        default_server: "https://localhost:9443",
    };

    #[test]
    fn help_prints_exactly_the_table_of_exit_codes() {
        let help = command::<Commands>(&PROGRAM).term_width(80).render_help().to_string();
        let expect = "\
Exit codes:
  0  done
  1  failed, or refused by the server
  2  wrong usage: the command line, or a file that it names
  3  cannot connect to the server
  4  not found
  5  not logged in, or not permitted
  6  conflict: it changed meanwhile, or it exists
  7  verification failed: the data is not intact

Examples:
  examplectl list";
        assert!(help.trim_end().ends_with(expect), "{help}");
    }

    #[test]
    fn global_options_have_a_heading_and_variables() {
        let mut command = command::<Commands>(&PROGRAM).term_width(80);
        command.build();
        let list = command.find_subcommand_mut("list").unwrap().render_help().to_string();
        let (own, global) = list.split_once("Global options:").unwrap();
        assert!(!own.contains("--"), "{list}");
        for option in
            ["--server", "--ca", "--token-file", "--context", "--output", "--yes", "--no-pager", "--help"]
        {
            assert!(global.contains(option), "{option}: {list}");
        }
        assert!(global.contains("EXAMPLE_SERVER"), "{list}");
        assert!(list.lines().all(|line| line.len() <= 80), "{list}");
    }

    #[test]
    fn a_wrong_command_line_is_json_where_json_was_asked_for() {
        let arguments = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert!(
            wants_json(&arguments("ctl --output json x")) && wants_json(&arguments("ctl x --output=json"))
        );
        assert!(!wants_json(&arguments("ctl --output table json")));
        let error = command::<Commands>(&PROGRAM).try_get_matches_from(["examplectl", "lost"]).unwrap_err();
        let error = usage(&error);
        assert_eq!(error.exit(), Exit::Usage);
        assert_eq!(error.to_string(), "unrecognized subcommand 'lost'");
    }

    #[test]
    fn every_command_has_a_man_page() {
        let folder = tempfile::tempdir().unwrap();
        clap_mangen::generate_to(command::<Commands>(&PROGRAM), folder.path()).unwrap();
        for page in ["examplectl.1", "examplectl-list.1", "examplectl-context-add.1"] {
            assert!(folder.path().join(page).exists(), "{page}");
        }
    }
}
