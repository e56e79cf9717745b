//! Refuses what makes no sense, before it is stored or published: the one door for TOML, gRPC and CLI.
//!
//! Each `normalize_` function brings a value to its one form, so that equal meanings are equal values, and
//! is idempotent. What it cannot bring there it refuses with the field's path, what is wrong and the remedy:
//! a guess about an edge's configuration is worse than a refusal. [`check_config`] looks at listeners and
//! routes together, in time linear in their number.

mod config;
mod firewall;
mod listener;
mod policy;
mod route;
#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use ipnet::IpNet;

pub use config::{check_config, check_route_listener};
pub use firewall::{normalize_firewall, normalize_rate, normalize_rule};
pub use listener::normalize_listener;
pub use route::{check_hold, normalize_route};

/// A value that was refused: where, what it was, what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Invalid {
    /// Path of the field, e.g. `backends[1].weight`.
    pub field: String,
    /// What is wrong with the value, the value, and the remedy.
    pub problem: String,
}

impl Invalid {
    fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }

    /// The same, seen from what contains the value: `weight` within `backends[1]` is `backends[1].weight`.
    #[must_use]
    pub fn within(mut self, outer: impl Display) -> Self {
        self.field =
            if self.field.is_empty() { outer.to_string() } else { format!("{outer}.{}", self.field) };
        self
    }
}

fn check_range<T: PartialOrd + Display>(
    field: &'static str,
    value: &T,
    range: &RangeInclusive<T>,
) -> Result<(), Invalid> {
    if range.contains(value) {
        return Ok(());
    }
    Err(Invalid::new(field, format!("{value} is out of range: write {} to {}", range.start(), range.end())))
}

/// A listener's name, where it is given and where it is referred to.
fn check_listener_name(field: &'static str, name: &str) -> Result<(), Invalid> {
    check_name(field, "listener", name)
}

/// The name of a `what`, which is written in labels of metrics and on command lines.
fn check_name(field: &'static str, what: &str, name: &str) -> Result<(), Invalid> {
    check_name_within(field, what, name, 63)
}

/// The same with another limit.
fn check_name_within(field: &'static str, what: &str, name: &str, max: usize) -> Result<(), Invalid> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=max).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(());
    }
    let problem = format!("{} is no {what} name: write 1 to {max} of a-z, 0-9 and -", quoted(name));
    Err(Invalid::new(field, problem))
}

/// A network without bits behind its prefix; IPv4 as IPv4.
fn check_network(field: &str, network: IpNet) -> Result<(), Invalid> {
    if let IpNet::V6(v6) = network
        && let Some(v4) = v6.addr().to_ipv4_mapped()
        && let Some(len) = v6.prefix_len().checked_sub(96)
    {
        let problem = format!("{network} is IPv4 inside IPv6, which never matches: write {v4}/{len}");
        return Err(Invalid::new(field, problem));
    }
    if network != network.trunc() {
        let problem = format!(
            "{network} has bits set behind its prefix: write {} for the network or {}/{} for the one address",
            network.trunc(),
            network.addr(),
            network.max_prefix_len(),
        );
        return Err(Invalid::new(field, problem));
    }
    Ok(())
}

/// An address that one can listen on or connect to.
fn check_address(field: &'static str, address: SocketAddr) -> Result<(), Invalid> {
    let problem = match address.ip() {
        ip if ip.is_multicast() => format!("{address} is a multicast address: write a unicast one"),
        IpAddr::V4(ip) if ip.is_broadcast() => {
            format!("{address} is a broadcast address: write a unicast one")
        }
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(v4) => format!("{address} is IPv4 inside IPv6: write {v4}:{}", address.port()),
            None => return Ok(()),
        },
        IpAddr::V4(_) => return Ok(()),
    };
    Err(Invalid::new(field, problem))
}

/// A value as it can stand in a message: escaped, and cut where it is long.
fn quoted(value: &str) -> String {
    const MAX: usize = 80;
    let mut short: String = value.chars().take(MAX).flat_map(char::escape_debug).collect();
    if value.chars().nth(MAX).is_some() {
        short.push('…');
    }
    format!("\"{short}\"")
}

/// An hour in milliseconds.
const HOUR_MS: u64 = 3_600_000;
