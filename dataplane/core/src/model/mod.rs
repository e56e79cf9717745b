//! What an operator says MC-Proxy shall do: listeners, routes, backends, firewall.
//!
//! These types are read from TOML, kept in SQLite as JSON, and spoken over gRPC (`mc-api` converts), so
//! that a setting has one name and one meaning everywhere. They carry no behaviour: `validate` refuses
//! what makes no sense, the route table and the firewall compile them.
//! Durations are whole milliseconds and say so in their name.

use std::net::SocketAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

mod owner;
mod policy;
mod steered;

pub use crate::content_coding::Coding;
pub use crate::http1::Forwarded;

pub use owner::ChangedBy;
pub use policy::{
    Compress, EditFields, ErrorPage, FieldMatch, Hsts, Mirror, Policy, Redirect, RequestRate, Rewrite, Rule,
    Sticky,
};
pub use steered::{NotSteered, Steered};

/// An address and port on which every worker accepts connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Unique name by which routes refer to it: 1 to 63 of `a-z`, `0-9`, `-`.
    pub name: String,
    /// Where to listen, e.g. `0.0.0.0:443` or `[::]:443` (IPv6 only: `[::]` does not take IPv4).
    pub address: SocketAddr,
    /// Whether connections start with a PROXY protocol header.
    #[serde(default)]
    pub proxy_protocol: ProxyIn,
    /// Networks whose PROXY header is believed. With `required` and an empty list everyone is believed.
    #[serde(default)]
    pub trusted: Vec<IpNet>,
    /// Addresses and ports besides its own whose connections it gets, at most 64 over all listeners: `198.51.100.0/24:443`,
    /// `[2001:db8::/64]:8000-8999`. They must be routed to this machine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steered: Vec<Steered>,
    /// Time in which the PROXY header and the ClientHello must have arrived, in milliseconds.
    #[serde(default = "default_hello_timeout_ms")]
    pub hello_timeout_ms: u64,
    /// Largest ClientHello, in bytes of TLS records.
    #[serde(default = "default_max_hello_bytes")]
    pub max_hello_bytes: u32,
}

/// Whether a listener's connections start with a PROXY protocol header (v1 or v2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyIn {
    /// They do not: a header is garbage where TLS was expected.
    #[default]
    Off,
    /// Each must; one without is refused.
    Required,
    /// Those from [`Listener::trusted`] may; from anyone else it is garbage.
    Optional,
}

/// What identifies a route. No two routes share one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteKey {
    /// [`Listener::name`].
    pub listener: String,
    /// `example.org`, `*.example.org` or `*` (the listener's default, also for clients that send no name).
    /// Lower case, no trailing dot, A-labels.
    pub name: String,
    /// Only for clients that offer this ALPN protocol (`h2`, `acme-tls/1`); empty: whatever they offer.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub alpn: String,
}

/// Where connections for a name go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// See [`RouteKey::listener`].
    pub listener: String,
    /// See [`RouteKey::name`].
    pub name: String,
    /// See [`RouteKey::alpn`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub alpn: String,
    /// For a name that starts with `*.`: whether the star stands for several labels, not just one.
    #[serde(default, skip_serializing_if = "is_false")]
    pub any_depth: bool,
    /// Who manages the route: changes by others are refused, unless they override it. 1 to 64 of `a-z`, `0-9`, `-`;
    /// empty: anybody may change it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub owner: String,
    /// Passed through or terminated.
    #[serde(default)]
    pub mode: Mode,
    /// At least one.
    pub backends: Vec<Backend>,
    /// How one of several backends is chosen.
    #[serde(default, skip_serializing_if = "is_default")]
    pub balance: Balance,
    /// Time for a TCP connection to a backend, in milliseconds.
    #[serde(default = "default_connect_timeout_ms", skip_serializing_if = "is_default_connect_timeout_ms")]
    pub connect_timeout_ms: u64,
    /// Further backends that are tried when connecting fails before a byte was sent.
    #[serde(default = "default_retries", skip_serializing_if = "is_default_retries")]
    pub retries: u32,
    /// A connection on which nothing moved for so long is closed, in milliseconds; 0: never.
    #[serde(default = "default_idle_timeout_ms", skip_serializing_if = "is_default_idle_timeout_ms")]
    pub idle_timeout_ms: u64,
    /// A connection is closed at this age, in milliseconds; 0: never.
    #[serde(default, skip_serializing_if = "is_default")]
    pub total_timeout_ms: u64,
    /// Connections at the same time; 0: no limit.
    #[serde(default, skip_serializing_if = "is_default")]
    pub max_connections: u32,
    /// Connections at the same time from one client: an address of IPv4, a /64 of IPv6; 0: no limit.
    #[serde(default, skip_serializing_if = "is_default")]
    pub max_connections_per_source: u32,
    /// Active health check of each backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<Check>,
    /// Connect failures in a row that eject a backend; 0: never ejected.
    #[serde(default = "default_eject_after", skip_serializing_if = "is_default_eject_after")]
    pub eject_after: u32,
    /// How long an ejected backend gets no connection, in milliseconds.
    #[serde(default = "default_eject_ms", skip_serializing_if = "is_default_eject_ms")]
    pub eject_ms: u64,
    /// A backend that came back reaches its full share in this time, in milliseconds; 0: at once.
    #[serde(default, skip_serializing_if = "is_default")]
    pub slow_start_ms: u64,
    /// How HTTP is spoken, on a route of mode `l7`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub http: Http,
}

/// How HTTP is spoken on a route that terminates TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// What backends are told about clients.
    pub forwarded: Forwarded,
    /// What clients themselves say in fields such as `X-Original-URL` and `Remote-User`, which applications believe, passes.
    #[serde(skip_serializing_if = "is_default")]
    pub pass_identity_fields: bool,
    /// Time that a backend may take to answer, in milliseconds.
    pub response_timeout_ms: u64,
    /// Time that a client may take between two requests, in milliseconds.
    pub keepalive_timeout_ms: u64,
    /// Largest body of a request, in bytes; 0: no limit.
    pub max_body_bytes: u64,
    /// Whom backends that speak TLS must be certified by: the path of a PEM bundle, relative to the server's root. There
    /// is no other trust.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub backend_ca: String,
    /// Whether clients show a certificate.
    #[serde(skip_serializing_if = "is_default")]
    pub client_auth: ClientAuth,
    /// Whom clients must be certified by: the path of a PEM bundle, relative to the server's root.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_ca: String,
    /// Keeps each client with its backend, by a cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sticky: Option<Box<Sticky>>,
    /// Looked at in this order, at most 64.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<Policy>,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            forwarded: Forwarded::Set,
            pass_identity_fields: false,
            response_timeout_ms: 60_000,
            keepalive_timeout_ms: 60_000,
            max_body_bytes: 0,
            backend_ca: String::new(),
            client_auth: ClientAuth::Off,
            client_ca: String::new(),
            sticky: None,
            policies: Vec::new(),
        }
    }
}

/// Whether a route's clients show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// They are not asked.
    #[default]
    Off,
    /// They are asked; one that is shown must verify.
    Optional,
    /// There is no connection without one.
    Required,
}

/// What becomes of a route's TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Bytes pass through; the backend terminates TLS.
    #[default]
    L4,
    /// MC-Proxy terminates TLS and speaks HTTP.
    L7,
}

/// How one of several backends is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// The one with the fewest connections for its weight.
    #[default]
    LeastConnections,
    /// The better of two drawn at random by weight: as good with many proxies, and no herd.
    RandomOfTwo,
    /// By the client's address, so that one client stays with one backend while the set allows.
    SourceHash,
}

/// A place that connections can go to. Connections, ejection and drain are its address's, whichever routes lead there;
/// what checks find is of the routes that ask for them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// IP address and port.
    pub address: SocketAddr,
    /// Share relative to the others, 1 to 1000.
    #[serde(default = "default_weight", skip_serializing_if = "is_default_weight")]
    pub weight: u32,
    /// The PROXY protocol header it is sent.
    #[serde(default, skip_serializing_if = "is_default")]
    pub proxy_protocol: ProxyOut,
    /// TLVs of a v2 header.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tlvs: TlvsOut,
    /// What it speaks, on a route of mode `l7`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub protocol: Protocol,
    /// Gets only requests for this path and what is below it, on a route of mode `l7`: `/api` is for `/api` and
    /// `/api/users`, not for `/apiary`; empty: for all. Of a route's backends, those with the longest path that fits
    /// are chosen from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// The host name or IP address that its certificate must be for, where it speaks TLS; empty: the route's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub server_name: String,
}

/// What a backend of a route that terminates TLS speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 without TLS, from the first byte (RFC 9113, section 3.3): gRPC servers.
    H2c,
    /// HTTP/1.1 over TLS.
    Https,
    /// HTTP/2 over TLS, which must be agreed on by ALPN (RFC 9113, section 3.2).
    H2,
}

impl Protocol {
    /// Whether it is spoken over TLS.
    #[must_use]
    pub const fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::H2)
    }

    /// Whether it is HTTP/2.
    #[must_use]
    pub const fn is_http2(self) -> bool {
        matches!(self, Self::H2c | Self::H2)
    }
}

/// The PROXY protocol header that a backend is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyOut {
    /// None.
    #[default]
    Off,
    /// The text line.
    V1,
    /// The binary header.
    V2,
}

/// Which TLVs a v2 header carries (PROXY protocol, section 2.2).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlvsOut {
    /// PP2_TYPE_ALPN: the first protocol that the client offered.
    #[serde(default, skip_serializing_if = "is_false")]
    pub alpn: bool,
    /// PP2_TYPE_AUTHORITY: the name that the client asked for.
    #[serde(default, skip_serializing_if = "is_false")]
    pub authority: bool,
    /// PP2_TYPE_UNIQUE_ID: the connection's id as in the log, or the one that came in.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unique_id: bool,
    /// PP2_TYPE_CRC32C: a checksum over the header.
    #[serde(default, skip_serializing_if = "is_false")]
    pub crc32c: bool,
    /// Passes on what came in with the client's own header: SSL, namespace and custom types as they were.
    #[serde(default, skip_serializing_if = "is_false")]
    pub pass: bool,
    /// Custom types 0xE0 to 0xEF with a fixed value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub custom: Vec<CustomTlv>,
}

/// A TLV with a fixed value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustomTlv {
    /// 0xE0 to 0xEF (224 to 239).
    #[serde(rename = "type")]
    pub kind: u8,
    /// Text, at most 255 bytes.
    pub value: String,
}

/// An active health check.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// What is tried.
    #[serde(default)]
    pub kind: CheckKind,
    /// Time from the start of one check to that of the next, in milliseconds.
    #[serde(default = "default_check_interval_ms")]
    pub interval_ms: u64,
    /// A check that takes longer has failed, in milliseconds.
    #[serde(default = "default_check_timeout_ms")]
    pub timeout_ms: u64,
    /// Successes in a row that bring a backend up.
    #[serde(default = "default_check_rise")]
    pub rise: u32,
    /// Failures in a row that take it down.
    #[serde(default = "default_check_fall")]
    pub fall: u32,
    /// HTTP and gRPC: the Host field; on a route of mode `l4` also the name in the ClientHello; empty: the route's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub host: String,
    /// HTTP: the path; 200 to 399 is a success.
    #[serde(default = "default_check_path")]
    pub path: String,
    /// gRPC: the service whose health is asked for; empty: the server's as a whole.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service: String,
}

/// What an active health check tries. On a route of mode `l7` a backend is asked as requests ask it: by its protocol, and
/// with TLS by the authorities and for the name that requests are verified by. On a route of mode `l4`, whose TLS is
/// between client and backend, no certificate is judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckKind {
    /// A TCP connection.
    #[default]
    Tcp,
    /// A TLS handshake.
    Tls,
    /// `GET path`: in mode `l7` by the backend's protocol, in mode `l4` over HTTP/1.1 without TLS.
    Http,
    /// `GET path` in TLS: in mode `l7` by the backend's protocol, in mode `l4` over HTTP/1.1.
    Https,
    /// `grpc.health.v1.Health/Check`: in mode `l7` by the backend's protocol, which is HTTP/2, in mode `l4` over HTTP/2 in
    /// TLS.
    Grpc,
}

/// Who may connect at all, judged on the address that PROXY protocol established where there is one.
///
/// Order: networks, of which the longest that matches decides, and of two equal ones the one that allows;
/// allowed ASNs, denied ASNs; allowed countries, denied countries; `default`; then the rate, of which allowed
/// networks are exempt (`mc_ebpf_abi::verdict`, for the kernel too).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Firewall {
    /// In any order.
    #[serde(default)]
    pub rules: Vec<FirewallRule>,
    /// What no rule decides.
    #[serde(default)]
    pub default: Action,
    /// How fast one source may open connections.
    #[serde(default)]
    pub rate: Rate,
}

/// One rule of the firewall.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirewallRule {
    /// Pass or refuse.
    pub action: Action,
    /// Who.
    #[serde(flatten)]
    pub subject: Subject,
    /// Why, for the next person.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
}

/// Whom a firewall rule is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// A network, e.g. `192.0.2.0/24`.
    Cidr(IpNet),
    /// A country of the GeoIP database, ISO 3166-1 alpha-2 in upper case.
    Country(String),
    /// An autonomous system of the ASN database.
    Asn(u32),
}

/// Pass or refuse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Pass.
    #[default]
    Allow,
    /// Refuse.
    Deny,
}

/// How fast one source may open connections: a token bucket per address and one per prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rate {
    /// Connections per second and address; 0: no limit.
    pub per_address: u32,
    /// Connections that an address may open at once beyond its rate; 0: as many as `per_address`.
    pub address_burst: u32,
    /// Connections per second and prefix (/24 of IPv4, /48 of IPv6); 0: no limit.
    pub per_prefix: u32,
    /// Connections that a prefix may open at once beyond its rate; 0: as many as `per_prefix`.
    pub prefix_burst: u32,
}

impl Route {
    /// What identifies this route.
    #[must_use]
    pub fn key(&self) -> RouteKey {
        RouteKey { listener: self.listener.clone(), name: self.name.clone(), alpn: self.alpn.clone() }
    }
}

impl std::fmt::Display for RouteKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.listener, self.name)?;
        if self.alpn.is_empty() { Ok(()) } else { write!(f, "#{}", self.alpn) }
    }
}

/// Names a default once, for reading a field that is absent and, where it says so, for leaving it out when it is written.
macro_rules! defaults {
    ($($name:ident $(, $is:ident)?: $ty:ty = $value:expr;)*) => {$(
        /// The default of the field of this name.
        #[must_use]
        pub const fn $name() -> $ty { $value }
        $(fn $is(value: &$ty) -> bool { *value == $name() })?
    )*};
}

defaults! {
    default_hello_timeout_ms: u64 = 10_000;
    default_max_hello_bytes: u32 = 64 * 1024;
    default_connect_timeout_ms, is_default_connect_timeout_ms: u64 = 5_000;
    default_retries, is_default_retries: u32 = 2;
    default_idle_timeout_ms, is_default_idle_timeout_ms: u64 = 600_000;
    default_eject_after, is_default_eject_after: u32 = 5;
    default_eject_ms, is_default_eject_ms: u64 = 10_000;
    default_weight, is_default_weight: u32 = 1;
    default_check_interval_ms: u64 = 5_000;
    default_check_timeout_ms: u64 = 2_000;
    default_check_rise: u32 = 2;
    default_check_fall: u32 = 3;
}

fn default_check_path() -> String {
    "/".to_owned()
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
