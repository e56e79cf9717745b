//! Addresses and ports on which nobody listens, and whose connections a listener gets all the same.
//!
//! As text: `198.51.100.0/24:443`, `198.51.100.7:8000-8999`, `[2001:db8::/64]:443`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A network and a range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Steered {
    /// Which addresses.
    pub network: IpNet,
    /// The first port, from 1 on.
    pub first: u16,
    /// The last.
    pub last: u16,
}

/// Why a text is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "is no set of addresses and ports: write 198.51.100.0/24:443, 198.51.100.7:8000-8999 or [2001:db8::/64]:443"
)]
pub struct NotSteered;

impl FromStr for Steered {
    type Err = NotSteered;

    fn from_str(text: &str) -> Result<Self, NotSteered> {
        let (network, ports) = text.rsplit_once(':').ok_or(NotSteered)?;
        let inside = network.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let bare = inside.unwrap_or(network);
        let network: IpNet = match bare.parse::<IpAddr>() {
            Ok(address) => address.into(),
            Err(_) => bare.parse().map_err(|_no_network| NotSteered)?,
        };
        // IPv6 in brackets, as everywhere; IPv4 without.
        if inside.is_some() != matches!(network, IpNet::V6(_)) {
            return Err(NotSteered);
        }
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).ok_or(NotSteered);
        let (first, last) = (port(first)?, port(last)?);
        if first > last { Err(NotSteered) } else { Ok(Self { network, first, last }) }
    }
}

impl fmt::Display for Steered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { network, first, last } = self;
        match network {
            IpNet::V4(v4) => write!(f, "{v4}:{first}")?,
            IpNet::V6(v6) => write!(f, "[{v6}]:{first}")?,
        }
        if first == last { Ok(()) } else { write!(f, "-{last}") }
    }
}

impl Serialize for Steered {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Steered {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        text.parse().map_err(|error| D::Error::custom(format!("`{text}` {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, shown: Option<&str>) {
        let parsed = text.parse::<Steered>().ok();
        assert_eq!(parsed.map(|it| it.to_string()).as_deref(), shown, "{text}");
        if let Some(parsed) = parsed {
            assert_eq!(parsed.to_string().parse(), Ok(parsed));
        }
    }

    #[test]
    fn networks_and_ports_are_read_and_shown() {
        check("198.51.100.0/24:443", Some("198.51.100.0/24:443"));
        check("198.51.100.7:8000-8999", Some("198.51.100.7/32:8000-8999"));
        check("198.51.100.7:443-443", Some("198.51.100.7/32:443"));
        check("[2001:db8::/64]:1-65535", Some("[2001:db8::/64]:1-65535"));
        check("[2001:db8::7]:443", Some("[2001:db8::7/128]:443"));
        for wrong in [
            "",
            ":",
            ":443",
            "198.51.100.7",
            "198.51.100.7:",
            "198.51.100.7:0",
            "198.51.100.7:9-8",
            "198.51.100.7:1-",
            "198.51.100.7:65536",
            "198.51.100.0/33:443",
            "2001:db8::7:443",
            "[198.51.100.7]:443",
            "[2001:db8::7:443",
            "example.org:443",
        ] {
            check(wrong, None);
        }
    }
}
