//! The command line: what can be said, with help and examples.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use mcdsl::terminal::Output;

/// Operates MCIAS.
///
/// Log in first; the token is kept in a file that only you can read. Changes are durable when the command returns. Data goes to
/// standard output, messages to standard error.
#[derive(Debug, Parser)]
#[command(name = "mciasctl", version, after_help = HELP)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) reach: Reach,
    /// How data is printed: a table, or JSON.
    #[arg(long, global = true, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    /// Asks no questions.
    #[arg(long, short, global = true)]
    pub(crate) yes: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const HELP: &str = "\
Exit codes:
  0  done
  1  refused by MCIAS, or failed
  2  usage
  3  MCIAS cannot be reached
  4  not logged in
  5  the audit log is not intact
  6  it is another by now, or there already
  7  there is no such thing

Examples:
  mciasctl --server https://mcias.svc.example.org:9443 --ca ca.pem login ada
  mciasctl account create mcr --type system --tag prod
  mciasctl token issue mcr --label 'rift, until 2027' --out /srv/mcr/mcias.token
  mciasctl --output json account list";

/// Where MCIAS is, and as whom it is asked.
#[derive(Debug, Args)]
pub(crate) struct Reach {
    /// Its gRPC address.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "MCIAS_SERVER",
        default_value = "https://localhost:9443"
    )]
    pub(crate) server: String,
    /// PEM file of the authority of its certificate.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "MCIAS_CA",
        default_value = "/etc/ssl/certs/ca-certificates.crt"
    )]
    pub(crate) ca: PathBuf,
    /// File in which the token is, mode 0600; by default mcias/token in the folder of configurations.
    #[arg(long, global = true, value_name = "FILE", env = "MCIAS_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Logs in, and keeps the token.
    #[command(
        after_help = "Examples:\n  mciasctl login ada\n  pass show mcias | mciasctl login ada --password-stdin"
    )]
    Login {
        /// The account.
        name: String,
        /// Reads the password from standard input, its first line; and a code, where one is needed, from its second.
        #[arg(long)]
        password_stdin: bool,
        /// Gives a recovery code in place of the second factor's.
        #[arg(long)]
        recovery: bool,
        /// A service that the token is for; several times for several; all without.
        #[arg(long, value_name = "SERVICE")]
        audience: Vec<String>,
    },
    /// Ends the session, and forgets the token.
    Logout,
    /// Who is logged in.
    Whoami,
    /// The password of whoever is logged in, or has a one-time link.
    #[command(subcommand)]
    Password(Password),
    /// The second factor of whoever is logged in.
    #[command(subcommand)]
    Totp(Totp),
    /// Makes new recovery codes; the old ones are void.
    RecoveryCodes,
    /// Passkeys of whoever is logged in. New ones are made in a browser.
    #[command(subcommand)]
    Passkey(Passkey),
    /// Sessions of whoever is logged in.
    #[command(subcommand)]
    Session(Session),
    /// Accounts of people and services.
    #[command(subcommand)]
    Account(Account),
    /// Tokens of system accounts.
    #[command(subcommand)]
    Token(Token),
    /// Who may log in where.
    #[command(subcommand)]
    Policy(Policy),
    /// What happened.
    #[command(subcommand)]
    Audit(Audit),
    /// The keys that tokens are signed with.
    #[command(subcommand)]
    Key(Key),
    /// Writes completions for a shell.
    #[command(after_help = "Example:\n  mciasctl completion bash > /etc/bash_completion.d/mciasctl")]
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Password {
    /// Sets a new one, and ends every other session.
    Change {
        /// Reads the password of now, where there is one, and the new one from standard input, a line each.
        #[arg(long)]
        stdin: bool,
    },
    /// Sets a password by a one-time link, in place of a browser. Takes no login.
    #[command(
        after_help = "Examples:\n  mciasctl password redeem\n  (pass show link; pass show mcias) | mciasctl password redeem --stdin"
    )]
    Redeem {
        /// Reads the link and the new password from standard input, a line each.
        #[arg(long)]
        stdin: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Totp {
    /// Turns it on: shows the secret, asks for a code, shows the recovery codes.
    Enrol,
    /// Turns it off.
    Remove,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Passkey {
    /// All of them.
    List,
    /// Calls one something else.
    Rename {
        /// Its id.
        #[arg(allow_hyphen_values = true)]
        id: String,
        /// What it is to be called.
        label: String,
    },
    /// Removes one.
    Remove {
        /// Its id.
        #[arg(allow_hyphen_values = true)]
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Session {
    /// Live ones.
    List,
    /// Ends one.
    End {
        /// Its id.
        id: String,
    },
    /// Ends all but this one.
    EndOthers,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Account {
    /// All of them.
    List {
        /// Only people's, or only services'.
        #[arg(long = "type", value_name = "TYPE", value_parser = ["human", "system"])]
        account_type: Option<String>,
        /// Only those whose names hold this.
        #[arg(long)]
        contains: Option<String>,
    },
    /// One of them.
    Show {
        /// Its name.
        name: String,
    },
    /// Makes one. A person then needs a link.
    #[command(
        after_help = "Examples:\n  mciasctl account create bob --role user\n  mciasctl account create mcr --type system --tag prod"
    )]
    Create {
        /// Its name.
        name: String,
        /// A person's, or a service's.
        #[arg(long = "type", value_name = "TYPE", value_parser = ["human", "system"], default_value = "human")]
        account_type: String,
        /// A role of a person: admin, user or guest; several times for several.
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<String>,
        /// A tag; several times for several.
        #[arg(long = "tag", value_name = "TAG")]
        tags: Vec<String>,
        /// The service that a system account speaks for; its name without.
        #[arg(long)]
        service: Option<String>,
    },
    /// Changes what is given.
    #[command(
        after_help = "Examples:\n  mciasctl account update bob --disable\n  mciasctl account update bob --role user --role admin\n  mciasctl account update mcr --no-tags"
    )]
    Update(AccountUpdate),
    /// Removes it, with its tokens, sessions and passkeys.
    Delete {
        /// Its name.
        name: String,
    },
    /// Makes a one-time link, with which a person sets a password.
    Link {
        /// The person's account.
        name: String,
    },
    /// Takes second factor, recovery codes and passkeys from a person who has lost them, and ends the sessions.
    ResetFactors {
        /// The person's account.
        name: String,
    },
    /// A person's live sessions.
    Sessions {
        /// The person's account.
        name: String,
    },
    /// Ends a person's sessions: one, or all.
    EndSessions {
        /// The person's account.
        name: String,
        /// The session; all without.
        id: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AccountUpdate {
    /// Its name.
    pub(crate) name: String,
    /// Lets it log in.
    #[arg(long, conflicts_with = "disable")]
    pub(crate) enable: bool,
    /// Does not, and ends its sessions.
    #[arg(long)]
    pub(crate) disable: bool,
    /// Its roles from now on: several times for several.
    #[arg(long = "role", value_name = "ROLE", conflicts_with = "no_roles")]
    pub(crate) roles: Vec<String>,
    /// No roles from now on.
    #[arg(long)]
    pub(crate) no_roles: bool,
    /// Its tags from now on: several times for several.
    #[arg(long = "tag", value_name = "TAG", conflicts_with = "no_tags")]
    pub(crate) tags: Vec<String>,
    /// No tags from now on.
    #[arg(long)]
    pub(crate) no_tags: bool,
    /// The service that a system account speaks for.
    #[arg(long)]
    pub(crate) service: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Issues one. It is shown this once.
    #[command(
        after_help = "Example:\n  mciasctl token issue mcr --label rift --lifetime 90d --out /srv/mcr/mcias.token"
    )]
    Issue {
        /// The system account.
        name: String,
        /// What it is for, or where it is.
        #[arg(long)]
        label: String,
        /// A service that it is for; several times for several; all without.
        #[arg(long, value_name = "SERVICE")]
        audience: Vec<String>,
        /// How long it is good for: 90d, 12h, 3600s.
        #[arg(long, value_parser = lifetime)]
        lifetime: Option<i64>,
        /// Writes it to a new file of mode 0600, and prints all but it.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// All of an account's, those that have ended among them.
    List {
        /// The system account.
        name: String,
    },
    /// Revokes one.
    Revoke {
        /// The system account.
        name: String,
        /// The token's id.
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// What is in force, in the order in which it decides.
    Show,
    /// Prints it as TOML, for `set`.
    Export,
    /// Replaces it by what a TOML file says.
    #[command(
        after_help = "Example:\n  mciasctl policy export > policy.toml; $EDITOR policy.toml; mciasctl policy set policy.toml"
    )]
    Set {
        /// The file. With `revision`, it is refused where another one is in force by then.
        file: PathBuf,
    },
    /// What it says of an account at a service, and why.
    #[command(after_help = "Example:\n  mciasctl policy explain bob --service mcr")]
    Explain {
        /// The account.
        name: String,
        /// The service.
        #[arg(long)]
        service: String,
        /// A tag of the service, in place of those that it is registered with; several times for several.
        #[arg(long = "tag", value_name = "TAG")]
        tags: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// The newest first.
    List {
        /// Only what this account did, or what was done to it.
        #[arg(long)]
        account: Option<String>,
        /// So many at most.
        #[arg(long, default_value_t = 100)]
        last: u32,
    },
    /// Whether each entry follows from the one before. Prints the last hash, to be noted elsewhere.
    Verify {
        /// A hash that was noted once: it must be among them.
        #[arg(long)]
        known: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// All of them.
    List,
    /// Makes a new one, which signs once others had time to fetch it.
    Rotate,
    /// Withdraws one that others may have: all that it signed has ended at once, sessions and services' tokens alike.
    Withdraw {
        /// Its id.
        #[arg(allow_hyphen_values = true)]
        id: String,
    },
}

/// Reads `90d`, `12h`, `30m` or `3600s` as seconds.
fn lifetime(text: &str) -> Result<i64, String> {
    let wrong = || format!("`{text}` is no time: write 90d, 12h, 30m or 3600s");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let unit = match unit {
        "d" => 24 * 3600,
        "h" => 3600,
        "m" => 60,
        "s" => 1,
        _ => return Err(wrong()),
    };
    let number: u32 = number.parse().map_err(|_no_number| wrong())?;
    i64::from(number).checked_mul(unit).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Ids of keys and passkeys are base64url: one in 64 begins so.
    #[test]
    fn an_id_may_begin_with_a_hyphen() {
        for line in ["key withdraw -x_8", "passkey remove -x_8", "passkey rename -x_8 phone"] {
            let read = Cli::try_parse_from(["mciasctl"].into_iter().chain(line.split(' ')));
            assert!(read.is_ok(), "{line}: {:?}", read.err());
        }
        assert!(
            Cli::try_parse_from(["mciasctl", "--yes", "key", "withdraw", "-x", "--output", "json"]).is_ok()
        );
    }

    #[test]
    fn lifetimes() {
        let check = |text, expect: Option<i64>| assert_eq!(lifetime(text).ok(), expect, "{text}");
        check("90d", Some(90 * 86_400));
        check("12h", Some(43_200));
        check("1s", Some(1));
        check("", None);
        check("d", None);
        check("7", None);
        check("-1d", None);
        check("1w", None);
        check("7é", None);
    }
}
