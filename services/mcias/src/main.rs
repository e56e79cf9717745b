//! `mcias`: the server, and what is done where it lives: its first admin, a check of its configuration, copies and backups.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use clap::{Parser, Subcommand};
use mcdsl::archive;
use mcdsl::clock::Clock;
use mcdsl::http::Metrics;
use mcdsl::prometheus::Page;
use mcdsl::server::{Listener, stop_on_signal};
use mcdsl::terminal::{Progress, bytes};
use mcdsl::tls::ServerCertificate;
use mcias::app::Mcias;
use mcias::config::Config;

/// Gives back what logins took: with the system's, a server keeps 40 MiB more after a few on two cores, and introspections
/// cost 7 % more.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Identity and access: accounts, tokens, roles, login policy.
#[derive(Debug, Parser)]
#[command(version, after_help = HELP)]
struct Args {
    /// The configuration file.
    #[arg(long, short, value_name = "FILE", default_value = "/srv/mcias/mcias.toml", global = true)]
    config: PathBuf,
    /// Directory of everything that must not be lost, instead of `[server] root`.
    #[arg(long, value_name = "DIR", global = true)]
    root: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves until SIGTERM.
    Server,
    /// Makes the first admin, and prints the link by which that person sets a password. Again, for whoever has lost
    /// everything: the account is made an admin's, enabled, and loses its password, second factor and passkeys.
    Init {
        /// The admin's name.
        admin: String,
    },
    /// Only says whether the configuration is in order.
    Check,
    /// Writes a consistent copy of the database, beside a server that runs.
    Snapshot {
        /// The copy, which must not exist.
        to: PathBuf,
    },
    /// Packs `server.root` into one new file (tar, zstd), beside a server that runs. It holds the keys that tokens
    /// are signed with: keep it where nobody else reads.
    Backup {
        /// The archive, which must not exist.
        to: PathBuf,
    },
    /// Unpacks such a file to a directory that is absent or empty.
    Restore {
        /// The archive.
        from: PathBuf,
        /// The directory: `/srv/mcias`.
        to: PathBuf,
    },
    /// Prints the OpenAPI document.
    Openapi,
}

const HELP: &str = "\
Signals:
  SIGTERM, SIGINT  stop accepting, let requests end ([server] drain_timeout_ms), then stop

Exit codes:
  0  done, stopped as asked, or the configuration is in order
  1  could not start, or failed
  2  usage, or the configuration is wrong

Examples:
  mcias init ada --config ./mcias.toml
  mcias server --config ./mcias.toml --root ./data
  mcias snapshot ./mcias-copy.db
  mcias backup ./mcias.tar.zst
  mcias restore ./mcias.tar.zst /srv/mcias";

fn main() -> ExitCode {
    let args = Args::parse();
    if matches!(args.command, Command::Openapi) {
        say(&format!("{:#}", mcias::app::openapi()));
        return ExitCode::SUCCESS;
    }
    if let Command::Restore { from, to } = &args.command {
        return ended(restore(from, to));
    }
    let variable = |name: &str| std::env::var(name).ok();
    let config = match Config::load(&args.config, args.root.as_deref(), variable) {
        Ok(config) => config,
        Err(error) => {
            complain(&error);
            return ExitCode::from(2);
        }
    };
    config.log.set_up();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&error);
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(async {
        match args.command {
            Command::Openapi | Command::Restore { .. } => Ok(()),
            Command::Check => check(&config),
            Command::Backup { to } => backup(&config, &to),
            Command::Server => serve(config).await,
            Command::Init { admin } => init(config, &admin).await,
            Command::Snapshot { to } => snapshot(&config, &to),
        }
    });
    ended(done)
}

fn ended(done: Result<(), Failure>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&*error);
            ExitCode::FAILURE
        }
    }
}

type Failure = Box<dyn std::error::Error>;

fn say(text: &str) {
    #[expect(clippy::print_stdout, reason = "it is what the command is for")]
    {
        println!("{text}");
    }
}

/// One line with the whole chain of causes.
fn complain(error: &dyn std::error::Error) {
    #[expect(clippy::print_stderr, reason = "the last word of a process that cannot go on")]
    {
        eprintln!("mcias: {}", mcdsl::chain(error));
    }
}

/// What is in the file was read already; now what it names.
fn check(config: &Config) -> Result<(), Failure> {
    drop(ServerCertificate::open(config.server.certificate())?);
    say("in order");
    Ok(())
}

async fn serve(config: Config) -> Result<(), Failure> {
    let settings = config.server.clone();
    let stop = stop_on_signal();
    let clock = Clock::system();
    let certificate = ServerCertificate::open(settings.certificate())?;
    let metrics = Arc::new(Metrics::default());
    let app = Arc::new(Mcias::open(config, clock.clone()).await?);
    let limits = settings.limits();
    let routes = app.routes(limits.clone());
    let dialects = routes.dialects;
    let around = |router: Router| {
        mcdsl::http::middleware(router, limits.clone(), Arc::clone(&metrics), clock.clone(), &dialects)
    };
    let document = mcias::app::openapi();
    let api = routes.api.route("/openapi.json", get(move || async move { axum::Json(document) }));
    let rest = around(api.merge(routes.pages).route("/healthz", get(|| async { "ok\n" })));
    let services: std::collections::BTreeSet<_> =
        mcias::app::operations().map(|operation| operation.grpc_service).collect();
    let services: Vec<_> = services.into_iter().collect();
    let (own_grpc, _health) =
        mcdsl::grpc::router(&services, &[mc_api::mcias::DESCRIPTORS, mc_api::audit::DESCRIPTORS]).await?;
    let calls = around(routes.grpc.merge(own_grpc));
    let own = about(Arc::clone(&app), Arc::clone(&metrics));
    let web = certificate.config(&["h2", "http/1.1"]);
    let rpc = certificate.config(&["h2"]);
    let rest_at = Listener::bind(settings.listen_addr, "listen_addr", Some(web), &settings).await?;
    let grpc_at = Listener::bind(settings.grpc_addr, "grpc_addr", Some(rpc), &settings).await?;
    let about_at = Listener::bind(settings.metrics_addr, "metrics_addr", None, &settings).await?;
    tracing::info!(rest = %rest_at.address(), grpc = %grpc_at.address(), metrics = %about_at.address(), "serves");
    tokio::spawn(certificate.watch());
    let drain = Duration::from_millis(settings.drain_timeout_ms);
    let work = {
        let (app, stop) = (Arc::clone(&app), stop.clone());
        async move { app.run_jobs(stop).await }
    };
    tokio::join!(
        rest_at.serve(rest, stop.clone(), drain),
        grpc_at.serve(calls, stop.clone(), drain),
        about_at.serve(own, stop, drain),
        work,
    );
    Ok(())
}

/// What the machine it runs on asks: metrics, and whether it can serve.
fn about(app: Arc<Mcias>, metrics: Arc<Metrics>) -> Router {
    let ready = Arc::clone(&app);
    let page = move || {
        let mut page = Page::default();
        page.process();
        metrics.write(&mut page);
        app.write_metrics(&mut page);
        async move { page.text }
    };
    let is_ready = move || {
        let ready = Arc::clone(&ready);
        async move {
            match ready.is_ready().await {
                true => (::http::StatusCode::OK, "ready\n"),
                false => (::http::StatusCode::SERVICE_UNAVAILABLE, "the database does not answer\n"),
            }
        }
    };
    let healthy = || async { "ok\n" };
    Router::new().route("/metrics", get(page)).route("/readyz", get(is_ready)).route("/healthz", get(healthy))
}

async fn init(config: Config, admin: &str) -> Result<(), Failure> {
    let app = Mcias::open(config, Clock::system()).await?;
    let link = app.make_admin(admin).await?;
    say(&link.url);
    Ok(())
}

fn snapshot(config: &Config, to: &Path) -> Result<(), Failure> {
    Ok(mcdsl::db::snapshot(&config.database(), to)?)
}

fn backup(config: &Config, to: &Path) -> Result<(), Failure> {
    let bar = Progress::of_bytes("packing", None);
    let packed = archive::pack(&config.server.root, to, &mut |done| bar.set(done))?;
    drop(bar);
    say(&format!(
        "{} files and folders, {} databases, {}",
        packed.entries,
        packed.databases,
        bytes(packed.bytes)
    ));
    Ok(())
}

/// The most that an archive may unpack to: some hundred times what MCIAS has.
const MOST: u64 = 64 << 30;

fn restore(from: &Path, to: &Path) -> Result<(), Failure> {
    let bar = Progress::of_bytes("unpacking", None);
    let unpacked = archive::unpack(from, to, MOST, &mut |done| bar.set(done))?;
    drop(bar);
    let owners =
        if unpacked.owners_kept { "" } else { "; they are yours: only root can give them their owners" };
    say(&format!("{} files and folders, {}{owners}", unpacked.entries, bytes(unpacked.bytes)));
    Ok(())
}
