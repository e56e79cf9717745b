//! The command line that all ctls share.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};

use super::Output;

/// A ctl's command line: the frame's, with the ctl's own commands `C`.
#[derive(Debug, Parser)]
#[command(disable_help_flag = true, disable_help_subcommand = true)]
pub(super) struct Cli<C: Subcommand> {
    #[command(subcommand)]
    pub(super) command: Command<C>,
    #[command(flatten)]
    pub(super) global: GlobalArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(super) struct GlobalArgs {
    /// gRPC address of the server. The help names its variable and its default (`program::command`).
    #[arg(long, global = true, value_name = "URL")]
    pub(super) server: Option<String>,
    /// PEM file with the CA certificate of the server
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
    /// File with the token, mode 0600
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// Context to use instead of the current one (see `context list`)
    #[arg(long, global = true, value_name = "NAME")]
    pub(super) context: Option<String>,
    /// Output format, also of errors
    #[arg(long, short, global = true, value_name = "FORMAT", value_enum, default_value_t = Output::Table)]
    pub(super) output: Output,
    /// Do not ask for confirmation
    #[arg(long, short, global = true)]
    pub(super) yes: bool,
    /// Do not show long tables in $PAGER
    #[arg(long, global = true)]
    pub(super) no_pager: bool,
    /// Print help
    #[arg(long, short, global = true, action = ArgAction::Help)]
    help: Option<bool>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command<C: Subcommand> {
    /// Log in and store the token
    Login(LoginArgs),
    /// End the session and remove the token
    Logout,
    #[command(flatten)]
    Service(C),
    /// Manage contexts: the servers of several sites
    #[command(subcommand)]
    Context(Context),
    /// Print completions for a shell
    Completion {
        /// Shell
        shell: clap_complete::Shell,
    },
    /// Write man pages to a directory
    Man {
        /// Existing directory
        directory: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(super) struct LoginArgs {
    /// Account
    pub(super) username: String,
    /// Read the password from the first line of standard input, and a code, if one is needed, from the second
    #[arg(long)]
    pub(super) password_stdin: bool,
    /// Use a recovery code as the second factor
    #[arg(long)]
    pub(super) recovery: bool,
    /// Service that the token is valid for; repeat for several [default: MCIAS and the service of this program]
    #[arg(long, value_name = "SERVICE")]
    pub(super) audience: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Context {
    /// List contexts
    List,
    /// Make a context the current one
    Use {
        /// Context
        name: String,
    },
    /// Add a context with --server and --ca; the first one becomes the current one
    Add {
        /// Context
        name: String,
    },
    /// Remove a context and its token
    Remove {
        /// Context
        name: String,
    },
}
