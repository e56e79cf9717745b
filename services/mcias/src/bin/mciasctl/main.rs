//! `mciasctl`: operates MCIAS from the command line.

mod commands;

use std::process::ExitCode;

use mcdsl::ctl::{self, Program};

static PROGRAM: Program = Program {
    name: "mciasctl",
    service: "mcias",
    version: env!("CARGO_PKG_VERSION"),
    about: "Operate MCIAS: accounts, tokens, login policy, audit log",
    default_server: "https://localhost:9443",
    fields: &[
        ("account_type", "--type"),
        ("audience", "--audience"),
        ("current", "current password"),
        ("label", "--label"),
        ("lifetime_seconds", "--lifetime"),
        ("password", "new password"),
        ("recovery_code", "recovery code"),
        ("roles", "--role"),
        ("secret", "setup link"),
        ("service", "--service"),
        ("tags", "--tag"),
        ("totp", "code"),
    ],
    examples: "  \
  mciasctl context add home --server https://mcias.svc.example.org:9443 --ca ca.pem
  mciasctl login ada
  mciasctl account create mcr --type system --tag prod
  mciasctl token issue mcr --label 'node rift' --out /srv/mcr/mcias.token
  mciasctl account list --output json",
};

fn main() -> ExitCode {
    ctl::main(&PROGRAM, commands::run)
}

#[cfg(test)]
mod tests {
    use clap::Command;

    use super::*;

    fn command() -> Command {
        ctl::command::<commands::Command>(&PROGRAM)
    }

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn help_fits_80_columns() {
        fn check(command: &mut Command) {
            let help = command.clone().term_width(80).render_help().to_string();
            // Examples are not wrapped: they are for copying.
            let text = help.split("Example").next().unwrap();
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{help}");
            command.get_subcommands_mut().for_each(check);
        }
        let mut command = command();
        command.build();
        check(&mut command);
    }

    /// The lines of the examples in a command's help, and in that of its subcommands.
    fn examples(command: &Command, found: &mut Vec<String>) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let lines =
            help.split_once("Example").map(|(_, examples)| examples.lines().skip(1)).into_iter().flatten();
        found.extend(lines.map(|line| line.trim().to_owned()));
        command.get_subcommands().for_each(|command| examples(command, found));
    }

    #[test]
    fn every_example_can_be_run_as_it_is_written() {
        let mut found = Vec::new();
        examples(&command(), &mut found);
        assert!(found.len() > 12, "{found:?}");
        for line in found {
            // What a shell makes of it: the last command of a pipe, its output to a file, words in quotes.
            let last = line.rsplit(" | ").next().unwrap().split(" > ").next().unwrap();
            let quoted = last.split('\'').enumerate();
            let words = quoted.flat_map(|(index, part)| match index % 2 {
                0 => part.split_whitespace().map(str::to_owned).collect::<Vec<_>>(),
                _ => vec![part.to_owned()],
            });
            let words: Vec<String> = words.collect();
            assert_eq!(words[0], "mciasctl", "{line}");
            let parsed = command().try_get_matches_from(&words);
            assert!(parsed.is_ok(), "{line}: {:?}", parsed.err());
        }
    }

    #[test]
    fn fields_of_messages_are_options_that_there_are() {
        let mut command = command();
        command.build();
        fn options(command: &Command, found: &mut Vec<String>) {
            found.extend(command.get_arguments().filter_map(|arg| Some(format!("--{}", arg.get_long()?))));
            command.get_subcommands().for_each(|command| options(command, found));
        }
        let mut found = Vec::new();
        options(&command, &mut found);
        for (field, option) in PROGRAM.fields.iter().filter(|(_, option)| option.starts_with("--")) {
            assert!(found.iter().any(|it| it == option), "{field}: {option}");
        }
    }

    /// Ids of keys and passkeys are base64url: one in 64 begins with a hyphen.
    #[test]
    fn an_id_may_begin_with_a_hyphen() {
        for line in ["key withdraw -x_8", "passkey remove -x_8", "passkey update -x_8 --label phone"] {
            let parsed = command().try_get_matches_from(["mciasctl"].into_iter().chain(line.split(' ')));
            assert!(parsed.is_ok(), "{line}: {:?}", parsed.err());
        }
        let line = ["mciasctl", "--yes", "key", "withdraw", "-x", "--output", "json"];
        assert!(command().try_get_matches_from(line).is_ok());
    }
}
