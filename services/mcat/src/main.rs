//! `mcat`: the server, and the commands for the people who ask it.

mod commands;

use std::process::ExitCode;

use mcat::app::Mcat;
use mcdsl::ctl::{self, Program};

static PROGRAM: Program = Program {
    name: "mcat",
    service: "mcat",
    version: env!("CARGO_PKG_VERSION"),
    about: "Test the login policy: what it decides for you, and what a draft would change\n\n\
            The server is `mcat serve`, with `mcat check` and `mcat openapi`: see `mcat serve --help`.",
    default_server: "https://localhost:9444",
    fields: &[
        ("service_tags", "--tag"),
        ("other.service", "--other"),
        ("other.service_tags", "--other-tag"),
        ("draft", "--draft"),
    ],
    examples: "  \
  mcat context add home --server https://mcat.svc.example.org:9444 --ca ca.pem
  mcat login ada
  mcat explain mcr
  mcat explain mcr --tag prod --draft policy.toml
  mcat draft policy.toml",
};

/// The first words of the server's command line.
const SERVER: [&str; 5] = ["serve", "check", "openapi", "--config", "-c"];

fn main() -> ExitCode {
    let first = std::env::args_os().nth(1);
    if first.is_some_and(|first| SERVER.iter().any(|word| first == *word)) {
        return mcdsl::program::run::<Mcat>();
    }
    ctl::main(&PROGRAM, commands::run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_leaves_the_servers_words_alone() {
        let mut command = ctl::command::<commands::Command>(&PROGRAM);
        command.clone().debug_assert();
        command.build();
        let mut words = command.get_subcommands().map(|command| command.get_name());
        assert!(words.all(|word| !SERVER.contains(&word)));
    }

    #[test]
    fn every_example_can_be_run_as_it_is_written() {
        let command = ctl::command::<commands::Command>(&PROGRAM);
        for line in PROGRAM.examples.lines() {
            let parsed = command.clone().try_get_matches_from(line.split_whitespace());
            assert!(parsed.is_ok(), "{line}: {:?}", parsed.err());
        }
    }
}
