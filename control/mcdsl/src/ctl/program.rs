//! A ctl's `main`: reads the command line, does the frame's own commands, and reports errors.
#![expect(clippy::print_stderr, reason = "a command line speaks to who typed it")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Subcommand};

use super::args::{Cli, Command, Context as ContextCommand, GlobalArgs};
use super::context::{Context, Contexts, check_ca, check_server};
use super::run::block_on;
use super::screen::Screen;
use super::settings::{self, Settings};
use super::{Column, Ctl, Error, Exit, Output, Printer, Program, login, token_file};

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
        .mut_subcommands(|command| named(command, name))
}

/// The command with the program's name in the examples of its help.
fn named(command: clap::Command, program: &str) -> clap::Command {
    let help = command.get_after_help().map(|help| help.to_string().replace("{ctl}", program));
    let command = command.mut_subcommands(|command| named(command, program));
    help.into_iter().fold(command, clap::Command::after_help)
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
            let error = error.for_program(program);
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
        Command::Login(arguments) => login::login(&mut ctl, program, arguments).await,
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
            check_server(&url)?;
            global.ca.as_deref().map(check_ca).transpose()?;
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
            token_file::remove(&settings::context_token(directory, &name))?;
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
        #[command(after_help = "Example:\n  {ctl} list")]
        List,
    }

    const PROGRAM: Program = Program {
        name: "examplectl",
        service: "example",
        version: "1",
        about: "Operate an example",
        fields: &[],
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
  2  invalid input: the command line, a file that it names, or standard input
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
    fn examples_have_the_name_of_the_program() {
        let mut command = command::<Commands>(&PROGRAM);
        let list = command.find_subcommand_mut("list").unwrap().render_help().to_string();
        assert!(list.contains("\n  examplectl list"), "{list}");
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
