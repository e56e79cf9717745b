//! The command line of a service.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};

use super::Service;

#[derive(Debug, Parser)]
#[command(version, subcommand_required = true)]
pub(super) struct Args<C: Subcommand> {
    #[arg(long, short, value_name = "FILE", global = true)]
    pub(super) config: Option<PathBuf>,
    /// The directory of all data that must not be lost, instead of `[server] root`.
    #[arg(long, value_name = "DIR", global = true)]
    pub(super) root: Option<PathBuf>,
    #[command(subcommand)]
    pub(super) command: C,
}

/// Commands of every service.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Serves until SIGTERM.
    Serve {
        /// Serves one half only: `api` is REST and gRPC, `web` is the pages.
        #[arg(long, value_name = "HALF")]
        only: Option<Half>,
    },
    /// Checks the configuration, the certificate and what the service keeps, and changes nothing.
    Check,
    /// Prints the OpenAPI document.
    Openapi,
}

/// Commands of a service that stores something.
#[derive(Debug, Subcommand)]
pub(super) enum Storing<I: clap::Args> {
    #[command(flatten)]
    Any(Command),
    Init(I),
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
}

/// `init` of a service that has nothing to initialise.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct NoInit {}

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

/// Reads the command line of a service.
pub(super) fn parse<S: Service>(
    args: impl IntoIterator<Item = OsString>,
) -> Result<Args<Storing<S::Init>>, clap::Error> {
    if S::STORES {
        return parse_as::<S, _>(args);
    }
    let Args { config, root, command } = parse_as::<S, Command>(args)?;
    Ok(Args { config, root, command: Storing::Any(command) })
}

fn parse_as<S: Service, C: Subcommand>(
    args: impl IntoIterator<Item = OsString>,
) -> Result<Args<C>, clap::Error> {
    let config = format!("The configuration file [default: {}]", default_config::<S>());
    let command = Args::<C>::command()
        .name(S::NAME)
        .bin_name(S::NAME)
        .version(S::VERSION)
        .about(S::ABOUT)
        .after_help(help::<S>())
        .mut_arg("config", |arg| arg.help(config));
    let command = if S::STORES {
        command
    } else {
        let root = "The directory at which relative paths start, instead of `[server] root`";
        let check =
            "Checks the configuration, the certificate and the files that they name, and changes nothing";
        command.mut_arg("root", |arg| arg.help(root)).mut_subcommand("check", |command| command.about(check))
    };
    let mut matches = command.clone().try_get_matches_from(args)?;
    Args::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command.clone()))
}

fn help<S: Service>() -> String {
    let name = S::NAME;
    let (first, more) = if S::STORES {
        let more = format!("\n  {name} backup --keep 14\n  {name} restore ./{name}.tar.zst /srv/{name}");
        (String::new(), more)
    } else {
        (
            "It stores nothing: there is nothing to initialise and nothing to back up.\n\n".to_owned(),
            String::new(),
        )
    };
    format!(
        "\
{first}Signals:
  SIGTERM, SIGINT  stop accepting, finish requests ([server] drain_timeout_ms), then stop
  SIGHUP           read the certificate again

Exit codes:
  0  done, stopped as asked, or `check` found no error
  1  could not start, or failed
  2  usage, or the configuration is invalid

Examples:
  {name} check --config ./{name}.toml
  {name} serve --config ./{name}.toml --root ./data{more}"
    )
}
