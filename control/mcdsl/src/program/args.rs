//! The command line of a service.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};

use super::Service;

#[derive(Debug, Parser)]
#[command(version, subcommand_required = true)]
pub(super) struct Args<I: clap::Args> {
    #[arg(long, short, value_name = "FILE", global = true)]
    pub(super) config: Option<PathBuf>,
    /// The directory of all data that must not be lost, instead of `[server] root`.
    #[arg(long, value_name = "DIR", global = true)]
    pub(super) root: Option<PathBuf>,
    #[command(subcommand)]
    pub(super) command: Command<I>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command<I: clap::Args> {
    /// Serves until SIGTERM.
    Serve {
        /// Serves one half only: `api` is REST and gRPC, `web` is the pages.
        #[arg(long, value_name = "HALF")]
        only: Option<Half>,
    },
    Init(I),
    /// Checks the configuration, the certificate and the database, and changes nothing.
    Check,
    /// Copies the database to a new file, consistently, also while the server runs.
    Snapshot {
        /// The copy. It must not exist.
        to: PathBuf,
    },
    /// Packs `server.root` into one new archive (.tar.zst), also while the server runs. It contains the service's secrets: store
    /// it where nobody else can read it.
    Backup {
        /// The archive, which must not exist; or a directory, in which it is named after the service and the time. Default: the
        /// directory `backups` in `server.root`.
        to: Option<PathBuf>,
        /// Then removes all but the newest N such archives from the directory.
        #[arg(long, value_name = "N")]
        keep: Option<NonZeroUsize>,
    },
    /// Unpacks an archive to a directory that is absent or empty.
    Restore {
        /// The archive.
        from: PathBuf,
        /// The directory: `/srv/<service>`.
        to: PathBuf,
    },
    /// Prints the OpenAPI document.
    Openapi,
}

/// A half of a service, to be run as a process of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Half {
    Api,
    Web,
}

/// The configuration file where no other is named.
pub(super) fn default_config<S: Service>() -> String {
    format!("/srv/{0}/{0}.toml", S::NAME)
}

impl<I: clap::Args> Args<I> {
    pub(super) fn parse<S: Service<Init = I>>(
        args: impl IntoIterator<Item = OsString>,
    ) -> Result<Self, clap::Error> {
        let config = format!("The configuration file [default: {}]", default_config::<S>());
        let command = Self::command()
            .name(S::NAME)
            .bin_name(S::NAME)
            .version(S::VERSION)
            .about(S::ABOUT)
            .after_help(help::<S>())
            .mut_arg("config", |arg| arg.help(config));
        let mut matches = command.clone().try_get_matches_from(args)?;
        Self::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command.clone()))
    }
}

fn help<S: Service>() -> String {
    format!(
        "\
Signals:
  SIGTERM, SIGINT  stop accepting, finish requests ([server] drain_timeout_ms), then stop
  SIGHUP           read the certificate again

Exit codes:
  0  done, stopped as asked, or `check` found no error
  1  could not start, or failed
  2  usage, or the configuration is invalid

Examples:
  {0} check --config ./{0}.toml
  {0} serve --config ./{0}.toml --root ./data
  {0} backup --keep 14
  {0} restore ./{0}.tar.zst /srv/{0}",
        S::NAME
    )
}
