//! Routes, their backends and health checks.

use std::net::IpAddr;

use super::policy::{check_path, normalize_http};
use super::{HOUR_MS, Invalid, check_address, check_listener_name, check_name_within, check_range, quoted};
use crate::hold::MAX_HOLD_MS;
use crate::hostname::{HostName, HostNameError};
use crate::model::{Backend, Check, CheckKind, ClientAuth, Http, Mode, Protocol, ProxyOut, Route, TlvsOut};
use crate::proxy_protocol::kind;

/// Brings a route to its one form (lower-case name without a trailing dot) and refuses what makes no sense.
/// Whether its listener exists is [`super::check_route_listener`]'s.
///
/// # Errors
/// The first field that is wrong.
pub fn normalize_route(mut route: Route) -> Result<Route, Invalid> {
    check_listener_name("listener", &route.listener)?;
    normalize_pattern(&mut route.name)?;
    if route.any_depth && !route.name.starts_with("*.") {
        let problem =
            format!("only has a meaning for names like *.example.org, not for {}: remove it", route.name);
        return Err(Invalid::new("any_depth", problem));
    }
    if route.alpn.len() > 255 || !route.alpn.bytes().all(|byte| byte.is_ascii_graphic()) {
        let problem = format!(
            "{} is no ALPN protocol: write at most 255 visible ASCII characters, e.g. h2, or nothing for any",
            quoted(&route.alpn)
        );
        return Err(Invalid::new("alpn", problem));
    }
    if !route.owner.is_empty() {
        check_name_within("owner", "owner", &route.owner, MAX_OWNER)?;
    }
    for backend in &mut route.backends {
        if backend.path == "/" {
            backend.path.clear();
        }
    }
    check_backends(&route.backends)?;
    if route.mode == Mode::L4 && route.http != Http::default() {
        return Err(Invalid::new("http", "only has a meaning with mode = \"l7\": set that, or remove this"));
    }
    check_range("http.response_timeout_ms", &route.http.response_timeout_ms, &(1..=HOUR_MS))?;
    check_range("http.keepalive_timeout_ms", &route.http.keepalive_timeout_ms, &(1..=HOUR_MS))?;
    normalize_http(&mut route.http).map_err(|error| error.within("http"))?;
    let spoken = route.backends.iter().position(|backend| backend.protocol != Protocol::Http1);
    if let (Mode::L4, Some(index)) = (route.mode, spoken) {
        return Err(Invalid::new(
            format!("backends[{index}].protocol"),
            "only has a meaning with mode = \"l7\": set that, or remove this",
        ));
    }
    normalize_backend_tls(&mut route)?;
    check_client_auth(&route.http)?;
    let path = route.backends.iter().position(|backend| !backend.path.is_empty());
    if let (Mode::L4, Some(index)) = (route.mode, path) {
        return Err(Invalid::new(
            format!("backends[{index}].path"),
            "only has a meaning with mode = \"l7\": set that, or remove this",
        ));
    }
    check_range("connect_timeout_ms", &route.connect_timeout_ms, &(1..=300_000))?;
    check_range("retries", &route.retries, &(0..=16))?;
    check_range("idle_timeout_ms", &route.idle_timeout_ms, &(0..=WEEK_MS))?;
    check_range("total_timeout_ms", &route.total_timeout_ms, &(0..=WEEK_MS))?;
    check_range("eject_ms", &route.eject_ms, &(0..=HOUR_MS))?;
    if route.eject_after > 0 && route.eject_ms == 0 {
        return Err(Invalid::new(
            "eject_ms",
            "0 ejects for no time: write 1 or more, or eject_after = 0 for never",
        ));
    }
    check_range("slow_start_ms", &route.slow_start_ms, &(0..=HOUR_MS))?;
    if let Some(check) = &mut route.check {
        normalize_check(check).map_err(|error| error.within("check"))?;
        if route.mode == Mode::L7 {
            check_kind_fits(check.kind, &route.backends).map_err(|error| error.within("check"))?;
        }
    }
    Ok(route)
}

/// Refuses a hold that is none, or longer than clients wait.
///
/// # Errors
/// `hold_ms` is out of range.
pub fn check_hold(hold_ms: u64) -> Result<(), Invalid> {
    check_range("hold_ms", &hold_ms, &(1..=MAX_HOLD_MS))
}

/// Whom backends that speak TLS are to be: no connection is made that nobody vouches for.
fn normalize_backend_tls(route: &mut Route) -> Result<(), Invalid> {
    let ca = &route.http.backend_ca;
    let speaks_tls = route.backends.iter().position(|backend| backend.protocol.is_tls());
    match speaks_tls {
        None if !ca.is_empty() => {
            let problem =
                "only has a meaning with a backend of protocol https or h2: set that, or remove this";
            return Err(Invalid::new("http.backend_ca", problem));
        }
        Some(index) if ca.is_empty() => {
            let problem = format!(
                "is missing: backends[{index}] speaks TLS, and nobody is trusted by default; write the path of a PEM \
                 bundle with the certificates of the authorities that may have signed its certificate"
            );
            return Err(Invalid::new("http.backend_ca", problem));
        }
        Some(_) => check_file("http.backend_ca", ca)?,
        None => {}
    }
    for (index, backend) in route.backends.iter_mut().enumerate() {
        let field = format!("backends[{index}].server_name");
        let name = &mut backend.server_name;
        if !backend.protocol.is_tls() {
            if name.is_empty() {
                continue;
            }
            let problem = "only has a meaning with protocol = \"https\" or \"h2\": set that, or remove this";
            return Err(Invalid::new(field, problem));
        }
        if name.is_empty() && route.name.starts_with('*') {
            let problem = format!(
                "is missing: {} is not one name; write the name or IP address that the backend's certificate is for",
                route.name
            );
            return Err(Invalid::new(field, problem));
        }
        if let Ok(ip) = name.parse::<IpAddr>() {
            *name = ip.to_string();
        } else if !name.is_empty() {
            let parsed = parse_host("server_name", name);
            *name = parsed.map_err(|error| error.within(format_args!("backends[{index}]")))?.to_string();
        }
    }
    Ok(())
}

/// Clients' certificates and whom they are to be of go together.
fn check_client_auth(http: &Http) -> Result<(), Invalid> {
    match (http.client_auth, http.client_ca.as_str()) {
        (ClientAuth::Off, "") => Ok(()),
        (ClientAuth::Off, _) => {
            let problem = "only has a meaning with client_auth = \"optional\" or \"required\": set that, or remove this";
            Err(Invalid::new("http.client_ca", problem))
        }
        (_, "") => {
            let problem = "is missing: write the path of a PEM bundle with the certificates of the authorities that may have \
                           signed clients' certificates";
            Err(Invalid::new("http.client_ca", problem))
        }
        (_, path) => check_file("http.client_ca", path),
    }
}

/// A path as it can stand in a file system.
fn check_file(field: &'static str, path: &str) -> Result<(), Invalid> {
    if path.len() <= MAX_FILE && !path.chars().any(char::is_control) {
        return Ok(());
    }
    let problem =
        format!("{} is no path: write at most {MAX_FILE} bytes, and no control characters", quoted(path));
    Err(Invalid::new(field, problem))
}

/// `*`, `*.` and a host name, or a host name.
fn normalize_pattern(name: &mut String) -> Result<(), Invalid> {
    if name == "*" {
        return Ok(());
    }
    let suffix = name.strip_prefix("*.");
    let host = parse_host("name", suffix.unwrap_or(name))?;
    let normal = if suffix.is_some() { format!("*.{host}") } else { host.to_string() };
    if normal.len() > HostName::MAX {
        let problem = format!("{} has more than {} bytes: no name is so long", quoted(name), HostName::MAX);
        return Err(Invalid::new("name", problem));
    }
    *name = normal;
    Ok(())
}

/// A host name, or what to write instead.
fn parse_host(field: &'static str, text: &str) -> Result<HostName, Invalid> {
    let error = match HostName::parse(text.as_bytes()) {
        Ok(host) => return Ok(host),
        Err(error) => error,
    };
    let remedy = match error {
        _ if is_ip(text) => "it is an IP address, and clients ask for names: write a name, or * for the rest",
        HostNameError::Empty => "write a host name, *.example.org for what is below one, or * for the rest",
        HostNameError::BadByte(128..) => "write the A-label of internationalised names: xn--…",
        HostNameError::BadByte(b'*') => "a star stands alone or as the first label: * or *.example.org",
        HostNameError::BadByte(b':' | b'/') => "write the name alone, without scheme, port and path",
        HostNameError::BadByte(_) => "write letters, digits, - and _ between dots",
        HostNameError::EmptyLabel => "write one dot between labels and none at the start",
        HostNameError::LongLabel => "a label has at most 63 bytes",
        HostNameError::TooLong(_) => "a name has at most 253 bytes",
        HostNameError::EndsInNumber => "the last label of a name is not a number",
    };
    Err(Invalid::new(field, format!("{} is no host name, {error}: {remedy}", quoted(text))))
}

fn is_ip(text: &str) -> bool {
    text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok()
}

fn check_backends(backends: &[Backend]) -> Result<(), Invalid> {
    if backends.is_empty() || backends.len() > MAX_BACKENDS {
        let problem = format!("{} backends: write 1 to {MAX_BACKENDS}", backends.len());
        return Err(Invalid::new("backends", problem));
    }
    for (index, backend) in backends.iter().enumerate() {
        let field = || format!("backends[{index}]");
        check_backend(backend).map_err(|error| error.within(field()))?;
        let same = backends[..index].iter().position(|other| other.address == backend.address);
        if let Some(first) = same {
            let problem = format!("{} is also backends[{first}]: give one a higher weight", backend.address);
            return Err(Invalid::new(field() + ".address", problem));
        }
    }
    Ok(())
}

fn check_backend(backend: &Backend) -> Result<(), Invalid> {
    let address = backend.address;
    check_address("address", address)?;
    if address.ip().is_unspecified() {
        let problem = format!("{address} is every address and none: write the backend's, e.g. 127.0.0.1");
        return Err(Invalid::new("address", problem));
    }
    if address.port() == 0 {
        return Err(Invalid::new("address", format!("{address} has port 0: write the backend's port")));
    }
    if !backend.path.is_empty() {
        check_path("path", &backend.path)?;
    }
    check_range("weight", &backend.weight, &(1..=1000))?;
    if backend.proxy_protocol != ProxyOut::V2 && backend.tlvs != TlvsOut::default() {
        let problem =
            "only version 2 of the PROXY protocol has TLVs: set proxy_protocol = \"v2\" or remove them";
        return Err(Invalid::new("tlvs", problem));
    }
    check_tlvs(&backend.tlvs).map_err(|error| error.within("tlvs"))
}

fn check_tlvs(tlvs: &TlvsOut) -> Result<(), Invalid> {
    for (index, tlv) in tlvs.custom.iter().enumerate() {
        let field = |name| format!("custom[{index}].{name}");
        let kind = tlv.kind;
        if !(kind::MIN_CUSTOM..=kind::MAX_CUSTOM).contains(&kind) {
            let problem = format!("{kind} is no custom type: write 224 to 239 (0xE0 to 0xEF)");
            return Err(Invalid::new(field("type"), problem));
        }
        if tlvs.custom[..index].iter().any(|other| other.kind == kind) {
            return Err(Invalid::new(field("type"), format!("{kind} is there twice: remove one")));
        }
        if tlv.value.len() > 255 {
            let problem = format!("{} bytes: write at most 255", tlv.value.len());
            return Err(Invalid::new(field("value"), problem));
        }
    }
    Ok(())
}

fn normalize_check(check: &mut Check) -> Result<(), Invalid> {
    check_range("interval_ms", &check.interval_ms, &(100..=HOUR_MS))?;
    check_range("timeout_ms", &check.timeout_ms, &(1..=60_000))?;
    if check.timeout_ms > check.interval_ms {
        let problem = format!(
            "{} is longer than interval_ms, {}: checks would overlap; write at most that",
            check.timeout_ms, check.interval_ms
        );
        return Err(Invalid::new("timeout_ms", problem));
    }
    check_range("rise", &check.rise, &(1..=100))?;
    check_range("fall", &check.fall, &(1..=100))?;
    if !check.host.is_empty() {
        check.host = parse_host("host", &check.host)?.to_string();
    }
    let path = &check.path;
    if !path.starts_with('/') || path.len() > MAX_PATH || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        let problem = format!(
            "{} is no path: write / and visible ASCII without spaces, at most {MAX_PATH} bytes, the rest %-encoded",
            quoted(path)
        );
        return Err(Invalid::new("path", problem));
    }
    let service = &check.service;
    if check.kind != CheckKind::Grpc && !service.is_empty() {
        let problem = "only has a meaning with kind = \"grpc\": set that, or remove this";
        return Err(Invalid::new("service", problem));
    }
    if service.len() > MAX_SERVICE || !service.bytes().all(|byte| byte.is_ascii_graphic()) {
        let problem = format!(
            "{} is no gRPC service: write its full name, e.g. my.package.Service, of at most {MAX_SERVICE} visible ASCII \
             characters, or nothing for the server as a whole",
            quoted(service)
        );
        return Err(Invalid::new("service", problem));
    }
    Ok(())
}

/// A check that no backend of this protocol can pass would keep it down for ever.
fn check_kind_fits(kind: CheckKind, backends: &[Backend]) -> Result<(), Invalid> {
    let cannot = |backend: &Backend| match kind {
        CheckKind::Tcp | CheckKind::Http => false,
        CheckKind::Tls | CheckKind::Https => !backend.protocol.is_tls(),
        CheckKind::Grpc => !backend.protocol.is_http2(),
    };
    let Some(index) = backends.iter().position(cannot) else { return Ok(()) };
    let problem = match kind {
        CheckKind::Grpc => format!(
            "grpc is spoken over HTTP/2, and backends[{index}] speaks HTTP/1.1: give it protocol = \"h2c\" or \"h2\", or \
             write http or tcp"
        ),
        _ => format!(
            "backends[{index}] speaks no TLS: write http, which asks each backend by its protocol, or tcp; or give it \
             protocol = \"https\" or \"h2\""
        ),
    };
    Err(Invalid::new("kind", problem))
}

const MAX_BACKENDS: usize = 256;
/// Characters of the longest owner.
const MAX_OWNER: usize = 64;
/// Bytes of the longest path of a health check.
const MAX_PATH: usize = 1024;
/// Bytes of the longest name of a gRPC service.
const MAX_SERVICE: usize = 256;
/// Bytes of the longest path of a file.
const MAX_FILE: usize = 1024;
const WEEK_MS: u64 = 7 * 24 * HOUR_MS;
