//! The command line: what can be said, with help and examples.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use ipnet::IpNet;
use mc_core::model::Steered;
use mcdsl::ctl::Output;

use crate::parse::{BackendArg, CustomTlvArg, HoldArg, IdArg, NoneOr, RuleArg, SubjectArg};

/// Operates MC-Proxy.
///
/// Changes are durable and live when the command returns. Data goes to standard output, messages to standard error.
#[derive(Debug, Parser)]
#[command(name = "mcproxyctl", version, after_help = HELP)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) reach: Reach,
    /// How data is printed: a table, or JSON (one document; one object a line for what goes on).
    #[arg(long, global = true, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    /// Does not ask before what cannot be taken back.
    #[arg(long, short = 'y', global = true)]
    pub(crate) yes: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const HELP: &str = "\
Exit codes:
  0  done
  1  refused by the proxy, or failed
  2  usage
  3  the proxy cannot be reached
  4  there is no such thing
  5  conflict: it exists, or it changed meanwhile

What cannot be taken back is asked about first, on the terminal; --yes answers.

Examples:
  mcproxyctl status
  mcproxyctl route add --listener web --name app.example.org --backend 10.0.0.2:8443
  mcproxyctl --output json connection list --listener web
  mcproxyctl top";

/// Where the proxy is.
#[derive(Debug, Args)]
pub(crate) struct Reach {
    /// The proxy's Unix socket.
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "MCPROXY_SOCKET",
        default_value = "/srv/mc-proxy/mc-proxy.sock"
    )]
    pub(crate) socket: PathBuf,
    /// The proxy's TCP address instead, with --ca and --token-file.
    #[arg(id = "url", long = "address", global = true, value_name = "URL", env = "MCPROXY_ADDRESS")]
    pub(crate) address: Option<String>,
    /// PEM file of the CA of the proxy's certificate.
    #[arg(long, global = true, value_name = "FILE", env = "MCPROXY_CA")]
    pub(crate) ca: Option<PathBuf>,
    /// File that holds the bearer token.
    #[arg(long, global = true, value_name = "FILE", env = "MCPROXY_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one, for as long as the program runs")]
pub(crate) enum Command {
    /// What runs: version, revision, counts.
    #[command(after_help = "Example:\n  mcproxyctl status")]
    Status,
    /// Has the program, as it is on the disk now, take over from the process that runs: no connection is refused or cut off.
    ///
    /// Waits until it has, or says why it did not: the old process then goes on.
    #[command(after_help = "Example:\n  mcproxyctl --output json upgrade | jq .version")]
    Upgrade,
    /// Where connections go.
    #[command(subcommand)]
    Route(Route),
    /// What a route that terminates TLS asks of requests, and changes about them.
    #[command(subcommand)]
    Policy(Policy),
    /// Where connections are accepted.
    #[command(subcommand)]
    Listener(Listener),
    /// Who may connect.
    #[command(subcommand)]
    Firewall(Firewall),
    /// What works on this machine, and why something does not.
    #[command(after_help = "Example:\n  mcproxyctl capabilities")]
    Capabilities,
    /// Certificates of routes that terminate TLS.
    #[command(subcommand)]
    Certificate(Certificate),
    /// Health and drain of backends.
    #[command(subcommand)]
    Backend(Backend),
    /// Live connections.
    #[command(subcommand)]
    Connection(Connection),
    /// What was counted.
    #[command(after_help = "Example:\n  mcproxyctl stats --top 5")]
    Stats {
        /// Routes shown, those with the most connections first.
        #[arg(long, default_value_t = 20)]
        top: u32,
    },
    /// Changes, health and refusals as they happen, until Ctrl-C.
    #[command(after_help = "Example:\n  mcproxyctl --output json events | jq .kind")]
    Events,
    /// Heads of a route's requests and responses as they pass, until Ctrl-C. What may be a secret is left out.
    #[command(after_help = "Examples:
  mcproxyctl tap --listener web --name app.example.org
  mcproxyctl --output json tap --listener web --name app.example.org | jq .target")]
    Tap(Key),
    /// A live view; q or Ctrl-C leaves it.
    #[command(after_help = "Examples:\n  mcproxyctl top\n  mcproxyctl top --once")]
    Top {
        /// Prints one frame and ends.
        #[arg(long)]
        once: bool,
    },
    /// Prints completions for a shell.
    #[command(after_help = "Example:\n  mcproxyctl completion bash > /etc/bash_completion.d/mcproxyctl")]
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// What identifies a route.
#[derive(Clone, Debug, Args)]
pub(crate) struct Key {
    /// The listener's name.
    #[arg(long)]
    pub(crate) listener: String,
    /// `example.org`, `*.example.org`, or `*` for the default.
    #[arg(long)]
    pub(crate) name: String,
    /// Only for clients that offer this protocol, e.g. `acme-tls/1`.
    #[arg(long, default_value = "")]
    pub(crate) alpn: String,
}

/// On whose behalf routes are changed.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Owner {
    /// On whose behalf: routes of another owner are refused. A route without an owner that is added or changed gets this one.
    #[arg(long, value_name = "OWNER")]
    pub(crate) owner: Option<String>,
    /// Makes the change even if the route has another owner. The owner stays, unless --owner gives another; --owner '' leaves none.
    #[arg(long)]
    pub(crate) override_owner: bool,
}

/// A route's settings; those that are not given keep their value, or take the default.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Settings {
    /// `ADDRESS:PORT[,weight=N][,proxy_protocol=off|v1|v2][,protocol=http1|h2c|https|h2][,server_name=NAME][,path=/PATH]`;
    /// once for each backend.
    #[arg(long, value_name = "BACKEND")]
    pub(crate) backend: Vec<BackendArg>,
    /// The star stands for several labels, not just one.
    #[arg(long)]
    pub(crate) any_depth: bool,
    /// Passed through (l4) or terminated as HTTP (l7).
    #[arg(long, value_parser = ["l4", "l7"])]
    pub(crate) mode: Option<String>,
    /// How a backend is chosen.
    #[arg(long, value_parser = ["least-connections", "random-of-two", "source-hash"])]
    pub(crate) balance: Option<String>,
    /// TLVs of v2 headers: alpn, authority, unique-id, crc32c, pass; separated by commas.
    #[arg(long, value_delimiter = ',', value_parser = ["alpn", "authority", "unique-id", "crc32c", "pass"])]
    pub(crate) tlv: Vec<String>,
    /// A TLV of your own in v2 headers: TYPE=VALUE, TYPE from 224 to 239.
    #[arg(long, value_name = "TYPE=VALUE")]
    pub(crate) custom_tlv: Vec<CustomTlvArg>,
    /// Time to connect, in milliseconds.
    #[arg(long, value_name = "MS")]
    pub(crate) connect_timeout_ms: Option<u64>,
    /// Further backends that are tried.
    #[arg(long, value_name = "N")]
    pub(crate) retries: Option<u32>,
    /// Silence that ends a connection, in milliseconds; 0: never.
    #[arg(long, value_name = "MS")]
    pub(crate) idle_timeout_ms: Option<u64>,
    /// Age that ends a connection, in milliseconds; 0: never.
    #[arg(long, value_name = "MS")]
    pub(crate) total_timeout_ms: Option<u64>,
    /// Connections at the same time; 0: no limit.
    #[arg(long, value_name = "N")]
    pub(crate) max_connections: Option<u32>,
    /// Connections at the same time from one client; 0: no limit.
    #[arg(long, value_name = "N")]
    pub(crate) max_connections_per_source: Option<u32>,
    /// Checks the backends; `off` ends that.
    #[arg(long, value_parser = ["off", "tcp", "tls", "http", "https", "grpc"])]
    pub(crate) check: Option<String>,
    /// Time between checks, in milliseconds.
    #[arg(long, value_name = "MS")]
    pub(crate) check_interval_ms: Option<u64>,
    /// Time that a check may take, in milliseconds.
    #[arg(long, value_name = "MS")]
    pub(crate) check_timeout_ms: Option<u64>,
    /// Successes that bring a backend up.
    #[arg(long, value_name = "N")]
    pub(crate) check_rise: Option<u32>,
    /// Failures that take it down.
    #[arg(long, value_name = "N")]
    pub(crate) check_fall: Option<u32>,
    /// Name in the check's request; in mode l4 also in its hello.
    #[arg(long, value_name = "NAME")]
    pub(crate) check_host: Option<String>,
    /// Path of the check's request.
    #[arg(long, value_name = "PATH")]
    pub(crate) check_path: Option<String>,
    /// Service whose health a check by gRPC asks for; "" for the server as a whole.
    #[arg(long, value_name = "NAME")]
    pub(crate) check_service: Option<String>,
    /// Connect failures that eject a backend; 0: never.
    #[arg(long, value_name = "N")]
    pub(crate) eject_after: Option<u32>,
    /// How long it stays ejected, in milliseconds.
    #[arg(long, value_name = "MS")]
    pub(crate) eject_ms: Option<u64>,
    /// Time in which a backend that came back reaches its full share, in milliseconds.
    #[arg(long, value_name = "MS")]
    pub(crate) slow_start_ms: Option<u64>,
    /// HTTP: what backends are told about clients: what we know, that after what the client says, or nothing.
    #[arg(long, value_parser = ["set", "append", "strip"])]
    pub(crate) forwarded: Option<String>,
    /// HTTP: whether fields by which applications take a client for somebody (X-Real-IP, Remote-User, X-Original-URL ...) pass
    /// as the client sends them.
    #[arg(long, value_name = "BOOL")]
    pub(crate) pass_identity_fields: Option<bool>,
    /// HTTP: time that a backend may take to answer, in milliseconds.
    #[arg(long, value_name = "MS")]
    pub(crate) response_timeout_ms: Option<u64>,
    /// HTTP: time that a client may take between two requests, in milliseconds.
    #[arg(long, value_name = "MS")]
    pub(crate) keepalive_timeout_ms: Option<u64>,
    /// HTTP: largest body of a request, in bytes; 0: no limit.
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_body_bytes: Option<u64>,
    /// HTTP: PEM bundle that backends of https and h2 are verified by, relative to the server's root.
    #[arg(long, value_name = "FILE")]
    pub(crate) backend_ca: Option<String>,
    /// HTTP: whether clients show a certificate.
    #[arg(long, value_parser = ["off", "optional", "required"])]
    pub(crate) client_auth: Option<String>,
    /// HTTP: PEM bundle that clients' certificates are verified by, relative to the server's root.
    #[arg(long, value_name = "FILE")]
    pub(crate) client_ca: Option<String>,
    /// HTTP: keeps each client with its backend, by a cookie of this name; `off` ends that.
    #[arg(long, value_name = "COOKIE", num_args = 0..=1, default_missing_value = "mc-backend")]
    pub(crate) sticky: Option<String>,
    /// HTTP: how long browsers keep that cookie, in seconds; 0: until they are closed.
    #[arg(long, value_name = "S")]
    pub(crate) sticky_max_age_s: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Route {
    /// All routes, or some.
    #[command(after_help = "Example:\n  mcproxyctl route list --contains example.org")]
    List {
        /// Only this listener's.
        #[arg(long)]
        listener: Option<String>,
        /// Only names with this in them.
        #[arg(long, value_name = "TEXT")]
        contains: Option<String>,
    },
    /// One route with all its settings.
    #[command(after_help = "Example:\n  mcproxyctl route show --listener web --name app.example.org")]
    Show(Key),
    /// Adds a route. Refuses where there is one with this listener, name and ALPN, unless it is to be replaced.
    #[command(after_help = "Examples:
  mcproxyctl route add --listener web --name app.example.org --backend 10.0.0.2:8443
  mcproxyctl route add --listener web --name '*.example.org' --any-depth \\
      --backend 10.0.0.2:8443,weight=3 --backend 10.0.0.3:8443,proxy_protocol=v2 \\
      --tlv authority,crc32c --check tls --balance random-of-two
  mcproxyctl route add --listener web --name app.example.org --backend 10.0.0.4:8443 --replace")]
    Add {
        #[command(flatten)]
        key: Key,
        /// Replaces the route that is there, and shows what changes: what is not given takes its default.
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        owner: Owner,
        /// Where the route is on hold, it stays so.
        #[arg(long)]
        keep_hold: bool,
        #[command(flatten)]
        settings: Settings,
    },
    /// Changes the settings that are given, of a route that exists.
    #[command(
        after_help = "Example:\n  mcproxyctl route update --listener web --name app.example.org --idle-timeout-ms 60000"
    )]
    Update {
        #[command(flatten)]
        key: Key,
        #[command(flatten)]
        owner: Owner,
        /// Where the route is on hold, it stays so.
        #[arg(long)]
        keep_hold: bool,
        #[command(flatten)]
        settings: Settings,
    },
    /// Removes a route. Its connections go on, unless they are killed.
    #[command(
        after_help = "Example:\n  mcproxyctl route remove --listener web --name app.example.org --kill"
    )]
    Remove {
        #[command(flatten)]
        key: Key,
        #[command(flatten)]
        owner: Owner,
        /// Closes its connections.
        #[arg(long)]
        kill: bool,
    },
    /// Has new connections and requests of a route wait, while its backend moves. Adding or updating the route ends it.
    #[command(after_help = "Examples:
  mcproxyctl route hold --listener web --name app.example.org --for 10s
  mcproxyctl route update --listener web --name app.example.org --backend 10.0.0.2:8444")]
    Hold {
        #[command(flatten)]
        key: Key,
        /// How long at most, up to 30s.
        #[arg(long = "for", value_name = "TIME")]
        time: HoldArg,
        #[command(flatten)]
        owner: Owner,
    },
    /// Ends a hold: what waits takes the route as it is now.
    #[command(after_help = "Example:\n  mcproxyctl route release --listener web --name app.example.org")]
    Release {
        #[command(flatten)]
        key: Key,
        #[command(flatten)]
        owner: Owner,
    },
    /// Replaces all routes by those of a file, at once or not at all.
    #[command(
        after_help = "Example:\n  mcproxyctl route export > routes.toml\n  mcproxyctl route replace routes.toml --expect-revision 7"
    )]
    Replace {
        /// TOML with `[[routes]]`, as in the configuration.
        file: PathBuf,
        /// Only if the configuration has this revision (see `status`).
        #[arg(long, value_name = "N")]
        expect_revision: Option<u64>,
        /// Closes connections of routes that are gone.
        #[arg(long)]
        kill: bool,
        #[command(flatten)]
        owner: Owner,
    },
    /// Prints all routes as TOML that `replace` takes.
    #[command(after_help = "Example:\n  mcproxyctl route export > routes.toml")]
    Export,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// A route's policies in their order, and how often each applied.
    #[command(after_help = "Example:\n  mcproxyctl policy list --listener web --name app.example.org")]
    List(Key),
    /// Adds a policy at the end. Refuses where the route has one of this name, unless it is to be replaced where it stands.
    #[command(after_help = "Examples:
  mcproxyctl policy add --listener web --name app.example.org only-read --rule 'methods=[\"GET\",\"HEAD\"]'
  mcproxyctl policy add --listener web --name app.example.org logins --path /login --dry-run \\
      --rule 'rate={requests=5,per_s=60}'
  mcproxyctl policy add --listener web --name app.example.org no-bots --before logins \\
      --rule 'block_user_agent=\"badbot\"'
  mcproxyctl policy add --listener web --name app.example.org moved --path /old \\
      --rule 'redirect={to=\"https://new.example.org{path}{query}\",status=308}'
  mcproxyctl policy add --listener web --name app.example.org tls-only --rule 'hsts={}'

Rules, as in the configuration: require_header, block_header, block_user_agent, methods, paths, rewrite, redirect, rate,
max_body_bytes, request_headers, response_headers, hsts, compress, error_page, mirror.")]
    Add {
        #[command(flatten)]
        key: Key,
        #[command(flatten)]
        owner: Owner,
        /// Its name: a-z, 0-9 and -.
        policy: String,
        /// What it does: TOML, `KIND=VALUE`.
        #[arg(long, value_name = "TOML")]
        rule: RuleArg,
        /// Only for this path and what is below it.
        #[arg(long)]
        path: Option<String>,
        /// Only counts what it would do.
        #[arg(long)]
        dry_run: bool,
        /// Puts it before this one.
        #[arg(long, value_name = "POLICY")]
        before: Option<String>,
        /// Replaces the policy of this name.
        #[arg(long)]
        replace: bool,
    },
    /// Removes a policy.
    #[command(
        after_help = "Example:\n  mcproxyctl policy remove --listener web --name app.example.org logins"
    )]
    Remove {
        #[command(flatten)]
        key: Key,
        #[command(flatten)]
        owner: Owner,
        /// Its name.
        policy: String,
    },
    /// Ends a policy's dry run: what it says is done.
    #[command(
        after_help = "Example:\n  mcproxyctl policy enforce --listener web --name app.example.org logins"
    )]
    Enforce {
        #[command(flatten)]
        key: Key,
        #[command(flatten)]
        owner: Owner,
        /// Its name.
        policy: String,
    },
    /// Begins a policy's dry run: it only counts what it would do.
    #[command(
        after_help = "Example:\n  mcproxyctl policy dry-run --listener web --name app.example.org logins"
    )]
    DryRun {
        #[command(flatten)]
        key: Key,
        #[command(flatten)]
        owner: Owner,
        /// Its name.
        policy: String,
    },
    /// Replaces all policies of a route by those of a file, at once or not at all.
    #[command(
        after_help = "Example:\n  mcproxyctl policy replace --listener web --name app.example.org policies.toml"
    )]
    Replace {
        #[command(flatten)]
        key: Key,
        #[command(flatten)]
        owner: Owner,
        /// TOML with `[[policies]]`, as a route of the configuration has them.
        file: PathBuf,
    },
}

/// A listener's settings; those that are not given keep their value, or take the default.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ListenerSettings {
    /// Whether connections start with a PROXY header.
    #[arg(long, value_parser = ["off", "required", "optional"])]
    pub(crate) proxy_protocol: Option<String>,
    /// A network whose header is believed; once for each. `none` for no network.
    #[arg(long, value_name = "CIDR")]
    pub(crate) trusted: Vec<NoneOr<IpNet>>,
    /// Addresses and ports besides its own whose connections it gets; once for each. `none` for none.
    #[arg(long, value_name = "CIDR:PORTS")]
    pub(crate) steer: Vec<NoneOr<Steered>>,
    /// Time for the PROXY header and the ClientHello, in milliseconds.
    #[arg(long, value_name = "MS")]
    pub(crate) hello_timeout_ms: Option<u64>,
    /// Largest ClientHello, in bytes.
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_hello_bytes: Option<u32>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Listener {
    /// All listeners.
    #[command(after_help = "Example:\n  mcproxyctl listener list")]
    List,
    /// Adds a listener. Refuses where there is one of this name, unless it is to be replaced.
    #[command(
        after_help = "Examples:\n  mcproxyctl listener add web 0.0.0.0:443 --proxy-protocol optional --trusted 10.0.0.0/8\n  mcproxyctl listener add web 0.0.0.0:443 --replace"
    )]
    Add {
        /// Its name.
        name: String,
        /// Where it listens.
        address: SocketAddr,
        #[command(flatten)]
        settings: ListenerSettings,
        /// Replaces the listener that is there, and shows what changes: what is not given takes its default.
        #[arg(long)]
        replace: bool,
    },
    /// Changes the settings that are given, of a listener that exists.
    #[command(
        after_help = "Examples:\n  mcproxyctl listener update web --hello-timeout-ms 5000\n  mcproxyctl listener update web 192.0.2.1:443"
    )]
    Update {
        /// Its name.
        name: String,
        /// Where it listens from now on.
        address: Option<SocketAddr>,
        #[command(flatten)]
        settings: ListenerSettings,
    },
    /// Removes a listener.
    #[command(after_help = "Example:\n  mcproxyctl listener remove web --with-routes")]
    Remove {
        /// Its name.
        name: String,
        /// Removes its routes too.
        #[arg(long)]
        with_routes: bool,
        #[command(flatten)]
        owner: Owner,
        /// Closes its connections.
        #[arg(long)]
        kill: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Firewall {
    /// Rules, default and rate.
    #[command(after_help = "Example:\n  mcproxyctl firewall show")]
    Show,
    /// Lets a network, country or autonomous system pass.
    #[command(
        after_help = "Examples:\n  mcproxyctl firewall allow 192.0.2.0/24 --comment office\n  mcproxyctl firewall allow country:CH"
    )]
    Allow(Rule),
    /// Refuses a network, country or autonomous system.
    #[command(after_help = "Example:\n  mcproxyctl firewall deny asn:64500")]
    Deny(Rule),
    /// Removes a rule.
    #[command(after_help = "Example:\n  mcproxyctl firewall remove deny asn:64500")]
    Remove {
        /// Which kind of rule.
        #[arg(value_parser = ["allow", "deny"])]
        action: String,
        /// CIDR, country:CC or asn:N.
        subject: SubjectArg,
    },
    /// Says what becomes of those whom no rule is about.
    #[command(after_help = "Example:\n  mcproxyctl firewall default deny")]
    Default {
        /// Pass or refuse.
        #[arg(value_parser = ["allow", "deny"])]
        action: String,
    },
    /// Limits how fast one source may open connections; what is not given is no limit.
    #[command(
        after_help = "Example:\n  mcproxyctl firewall rate --per-address 20 --address-burst 100 --per-prefix 200"
    )]
    Rate {
        /// Connections a second and address.
        #[arg(long, value_name = "N", default_value_t = 0)]
        per_address: u32,
        /// At once beyond that; 0: as many as --per-address.
        #[arg(long, value_name = "N", default_value_t = 0)]
        address_burst: u32,
        /// Connections a second and prefix (/24, /48).
        #[arg(long, value_name = "N", default_value_t = 0)]
        per_prefix: u32,
        /// At once beyond that; 0: as many as --per-prefix.
        #[arg(long, value_name = "N", default_value_t = 0)]
        prefix_burst: u32,
    },
    /// Replaces everything by the `[firewall]` of a file.
    #[command(after_help = "Example:\n  mcproxyctl firewall set firewall.toml --expect-revision 7")]
    Set {
        /// TOML with `[firewall]`, as in the configuration.
        file: PathBuf,
        /// Only if the configuration has this revision.
        #[arg(long, value_name = "N")]
        expect_revision: Option<u64>,
    },
    /// Prints what the firewall drops, in the kernel and in the proxy, as it happens; of many some.
    #[command(after_help = "Example:\n  mcproxyctl firewall watch --output json")]
    Watch,
    /// Says what would become of an address, and why.
    #[command(after_help = "Example:\n  mcproxyctl firewall test 203.0.113.9")]
    Test {
        /// The address.
        address: IpAddr,
    },
}

/// A rule of the firewall.
#[derive(Debug, Args)]
pub(crate) struct Rule {
    /// CIDR, country:CC or asn:N.
    pub(crate) subject: SubjectArg,
    /// Why, for the next person.
    #[arg(long, default_value = "")]
    pub(crate) comment: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Certificate {
    /// All certificates, by file, with the days until they expire.
    #[command(after_help = "Example:\n  mcproxyctl certificate list")]
    List,
    /// Reads files that changed now, rather than within two seconds. Files that cannot be used are named, with exit code 1; the
    /// others are loaded.
    #[command(after_help = "Example:\n  mcproxyctl certificate reload")]
    Reload,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Backend {
    /// All backends.
    #[command(after_help = "Example:\n  mcproxyctl backend list")]
    List,
    /// Gives a backend no new connection and no new request.
    #[command(
        after_help = "Examples:\n  mcproxyctl backend drain 10.0.0.2:8443\n  mcproxyctl backend drain 10.0.0.2:8443 --kill"
    )]
    Drain {
        /// Its address.
        address: SocketAddr,
        /// Closes its connections, and ends requests that it has.
        #[arg(long)]
        kill: bool,
    },
    /// Gives it connections and requests again.
    #[command(after_help = "Example:\n  mcproxyctl backend undrain 10.0.0.2:8443")]
    Undrain {
        /// Its address.
        address: SocketAddr,
    },
}

/// Which connections.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Filter {
    /// Only this listener's.
    #[arg(long)]
    pub(crate) listener: Option<String>,
    /// Only those that asked for this name.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Only clients of this network.
    #[arg(long, value_name = "CIDR")]
    pub(crate) client: Option<IpNet>,
    /// Only those that go there.
    #[arg(long)]
    pub(crate) backend: Option<SocketAddr>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Connection {
    /// Live connections.
    #[command(after_help = "Example:\n  mcproxyctl connection list --client 192.0.2.0/24")]
    List {
        #[command(flatten)]
        filter: Filter,
        /// So many at most; 0: all.
        #[arg(long, default_value_t = 0)]
        limit: u32,
    },
    /// Closes connections, by id or by filter.
    #[command(
        after_help = "Examples:\n  mcproxyctl connection kill 3fa9c1000000002a\n  mcproxyctl connection kill --name app.example.org"
    )]
    Kill {
        /// Ids, as `list` and the access log show them.
        ids: Vec<IdArg>,
        #[command(flatten)]
        filter: Filter,
        /// All of them.
        #[arg(long)]
        all: bool,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    /// Every example of every help text is a command line that is understood.
    #[test]
    fn every_example_can_be_typed() {
        let mut examples = 0;
        let mut commands = vec![Cli::command()];
        while let Some(command) = commands.pop() {
            commands.extend(command.get_subcommands().cloned());
            let Some(help) = command.get_after_help() else { continue };
            let help = help.to_string().replace("\\\n", " ");
            for line in help.lines().filter_map(|line| line.trim().strip_prefix("mcproxyctl")) {
                let words = line.split(['|', '>']).next().unwrap_or_default().replace('\'', "");
                let parsed =
                    Cli::try_parse_from(std::iter::once("mcproxyctl").chain(words.split_whitespace()));
                assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
                examples += 1;
            }
        }
        assert!(examples > 25, "{examples} examples were found");
    }
}
