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
