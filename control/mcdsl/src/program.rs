//! The `main` of a service: commands, configuration, start, signals and shutdown.
//!
//! A service implements [`Service`] and its `main` is `mcdsl::program::run::<TheService>()`. It gets these commands:
//! `serve`, `init`, `check`, `snapshot`, `backup`, `restore`, `openapi`; one that stores nothing ([`Service::STORES`]) only `serve`, `check` and
//! `openapi`. While it serves it has:
//!
//! - REST and pages at `server.listen_addr`, gRPC with health and reflection at `server.grpc_addr`;
//! - the ops listener at `server.metrics_addr`: `/metrics`, `/healthz` and `/readyz` in plain HTTP;
//! - SIGTERM and SIGINT to drain and stop, SIGHUP to read the certificate again;
//! - notification of systemd (`Type=notify`): ready, reloading, stopping, status, watchdog.
//!
//! Nothing here is global, so that one binary can run any of several services, each as a process of its own: it passes
//! what follows the service's name to [`run_with_args`].
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line speaks to its user")]

mod args;
mod backup;
mod check;
mod grpc;
mod load;
mod notify;
mod ops;
mod serve;

use std::ffi::OsString;
use std::fmt::Debug;
use std::future::Future;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use args::NoInit;
pub use load::{LoadError, Problems, load};

use crate::clock::Clock;
use crate::config::{Environment, Hints, InvalidValue, Range, Variables};
use crate::escape::clean;
use crate::http::Limits;
use crate::log::Log;
use crate::operation::Routes;
use crate::prometheus::Page;
use crate::server::{Settings, Stop};
use args::{Command, Storing};

/// Why a command failed.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The configuration of a service: a TOML file whose keys all have defaults.
pub trait Configuration: Clone + Debug + Default + Serialize + DeserializeOwned + Send + 'static {
    /// The range of each number. [`crate::config::numbers_without_range`] finds one that is missing.
    const RANGES: &'static [&'static [Range]];
    /// Paths of keys that may have no value; see [`Environment::optional`].
    const OPTIONAL: &'static [&'static str] = &[];
    /// Variables with the service's prefix that its command line reads.
    const FOREIGN_VARIABLES: &'static [&'static str] = &[];
    /// Explanations of parse errors that are special to this configuration.
    const HINTS: Hints = Hints::NONE;

    /// `[server]`.
    fn server(&self) -> &Settings;

    /// `[server]`, to be completed by the command line.
    fn server_mut(&mut self) -> &mut Settings;

    /// `[log]`.
    fn log(&self) -> Log;

    /// The URL that clients use, where there is one: the certificate must be for its host.
    fn public_url(&self) -> Option<&str>;

    /// The values that are invalid although their types and ranges are not.
    fn check(&self) -> Vec<InvalidValue>;
}

/// What an operator should know before the service is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The service will not work.
    Error(String),
    /// It works, and something has to be done all the same.
    Warning(String),
}

/// A service.
pub trait Service: Send + Sync + Sized + 'static {
    /// The name in lower case: of the command, of the directory in `/srv`, and the prefix of variables.
    const NAME: &'static str;
    /// The version of the program.
    const VERSION: &'static str;
    /// What the service is for, in one line.
    const ABOUT: &'static str;
    /// Whether it keeps anything. A service that does not has no `init`, `snapshot`, `backup` and `restore`.
    const STORES: bool = true;
    /// Encoded `FileDescriptorSet`s of the gRPC services, for reflection.
    const DESCRIPTORS: &'static [&'static [u8]];
    /// The configuration.
    type Config: Configuration;
    /// Arguments of the command `init`. The type's doc comment is the command's help. [`NoInit`] where there is none.
    type Init: clap::Args + Debug + Send;

    /// The database, for `snapshot`.
    #[must_use]
    fn database(config: &Self::Config) -> PathBuf {
        config.server().path(format!("{}.db", Self::NAME).as_ref())
    }

    /// What is wrong with what the service keeps, or missing in it: for `check`, and for the log when it starts. Must not
    /// change anything; `config` may be incomplete.
    #[must_use]
    fn inspect(config: &Self::Config) -> Vec<Finding> {
        let _ = config;
        Vec::new()
    }

    /// The OpenAPI document.
    fn openapi() -> serde_json::Value;

    /// Opens the storage and reads what the service works with.
    fn open(config: Self::Config, clock: Clock) -> impl Future<Output = Result<Self, Failure>> + Send;

    /// Runs the command `init`. The text to print.
    fn init(&self, args: Self::Init) -> impl Future<Output = Result<String, Failure>> + Send {
        let _ = args;
        std::future::ready(Err("there is nothing to initialise".into()))
    }

    /// What is served: `/openapi.json`, `/healthz`, and gRPC's health and reflection are added to it.
    fn routes(self: &Arc<Self>, limits: Limits) -> Routes;

    /// Whether the service can do its work: above all, whether changes can be stored. Called every few seconds.
    ///
    /// # Errors
    /// The reason why not, for operators.
    fn ready(&self) -> impl Future<Output = Result<(), String>> + Send;

    /// Writes the service's own metrics.
    fn write_metrics(&self, page: &mut Page);

    /// Background work, until `stop`.
    fn work(&self, stop: Stop) -> impl Future<Output = ()>;
}

/// Runs a service's program with the arguments of this process.
#[must_use]
pub fn run<S: Service>() -> ExitCode {
    run_with_args::<S>(std::env::args_os())
}

/// Runs a service's program. The first of `args` is the program's name.
#[must_use]
pub fn run_with_args<S: Service>(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match args::parse::<S>(args) {
        Ok(args) => args,
        Err(error) => error.exit(),
    };
    let done = match args.command {
        Storing::Any(Command::Openapi) => {
            // The reader of a pipe may close it early (`| head`).
            match writeln!(std::io::stdout(), "{:#}", S::openapi()) {
                Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
                _ => Ok(()),
            }
        }
        Storing::Restore { from, to } => backup::restore(&from, &to),
        command => {
            let file = args.config.unwrap_or_else(|| args::default_config::<S>().into());
            return with_config::<S>(command, &file, args.root.as_deref());
        }
    };
    report::<S>(done)
}

/// Runs a command that needs the configuration.
fn with_config<S: Service>(command: Storing<S::Init>, file: &Path, root: Option<&Path>) -> ExitCode {
    let variables = Environment::of_process();
    if matches!(command, Storing::Any(Command::Check)) {
        return check_all::<S>(file, root, &variables);
    }
    match load(S::NAME, file, root, &variables) {
        Ok(config) => report::<S>(run_configured::<S>(command, config)),
        Err(error) => {
            print_error::<S>(&error);
            ExitCode::from(INVALID_CONFIGURATION)
        }
    }
}

/// The command `check`: prints everything that is wrong, the configuration's values first.
fn check_all<S: Service>(file: &Path, root: Option<&Path>, variables: &Variables) -> ExitCode {
    let (config, problems) = match load::load_all::<S::Config>(S::NAME, file, root, variables) {
        Ok(loaded) => loaded,
        Err(error) => {
            print_error::<S>(&error);
            return ExitCode::from(INVALID_CONFIGURATION);
        }
    };
    let is_valid = problems.is_empty();
    problems.iter().for_each(|problem| print_error::<S>(problem));
    let findings = config.map(|config| check::findings::<S>(&config, is_valid)).unwrap_or_default();
    let mut has_error = false;
    for finding in findings {
        match finding {
            Finding::Error(text) => {
                has_error = true;
                print_line::<S>(&text);
            }
            Finding::Warning(text) => print_line::<S>(&format!("warning: {text}")),
        }
    }
    if !is_valid {
        return ExitCode::from(INVALID_CONFIGURATION);
    }
    if has_error {
        return ExitCode::FAILURE;
    }
    println!("The configuration is valid.");
    ExitCode::SUCCESS
}

fn report<S: Service>(done: Result<(), Failure>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error::<S>(&*error);
            ExitCode::FAILURE
        }
    }
}

fn run_configured<S: Service>(command: Storing<S::Init>, config: S::Config) -> Result<(), Failure> {
    Configuration::log(&config).set_up();
    if matches!(command, Storing::Init(_)) {
        become_owner(&config.server().root)?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match command {
        Storing::Any(Command::Serve { only }) => runtime.block_on(serve::serve::<S>(config, only)),
        Storing::Init(init) => {
            let made = runtime.block_on(async {
                let service = S::open(config, Clock::system()).await?;
                service.init(init).await
            })?;
            println!("{made}");
            Ok(())
        }
        Storing::Snapshot { to } => Ok(crate::db::snapshot(&S::database(&config), &to)?),
        Storing::Backup { to, keep } => backup::backup(S::NAME, &config.server().root, to.as_deref(), keep),
        Storing::Any(Command::Check | Command::Openapi) | Storing::Restore { .. } => {
            unreachable!("these do not need a configuration that is valid")
        }
    }
}

/// As root, in a directory that belongs to somebody else: files that are created there must be theirs, or the service cannot open them. Called
/// before there is another thread.
fn become_owner(root: &Path) -> Result<(), Failure> {
    let Ok(found) = std::fs::metadata(root) else { return Ok(()) };
    if !rustix::process::geteuid().is_root() || found.uid() == 0 {
        return Ok(());
    }
    let (user, group) =
        (rustix::process::Uid::from_raw(found.uid()), rustix::process::Gid::from_raw(found.gid()));
    rustix::thread::set_thread_groups(&[group])?;
    rustix::thread::set_thread_gid(group)?;
    rustix::thread::set_thread_uid(user)?;
    Ok(())
}

/// One line with all causes; several where an error has several parts.
fn print_error<S: Service>(error: &(dyn std::error::Error + 'static)) {
    crate::chain(error).lines().for_each(print_line::<S>);
}

/// It may repeat what is in a file.
fn print_line<S: Service>(text: &str) {
    eprintln!("{}: {}", S::NAME, clean(text));
}

/// The exit code where the configuration is invalid.
const INVALID_CONFIGURATION: u8 = 2;
