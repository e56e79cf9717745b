//! Arguments with a form of their own: backends, firewall subjects, connection ids, TLVs.

use std::net::SocketAddr;
use std::str::FromStr;

use mc_core::model::{Backend, CustomTlv, Protocol, ProxyOut, Rule, Subject, TlvsOut, default_weight};

/// `ADDRESS:PORT[,weight=N][,proxy_protocol=off|v1|v2][,protocol=http1|h2c|https|h2][,server_name=NAME][,path=/PATH]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BackendArg(pub(crate) Backend);

/// `TYPE=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CustomTlvArg(pub(crate) CustomTlv);

/// A CIDR, `country:CC` or `asn:N`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SubjectArg(pub(crate) Subject);

/// What a policy does, as the configuration says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RuleArg(pub(crate) Rule);

/// A time as `5s` or `500ms`, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HoldArg(pub(crate) u64);

/// A connection's id in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IdArg(pub(crate) u64);

impl FromStr for BackendArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let address = parts.next().unwrap_or_default();
        let address: SocketAddr = address
            .parse()
            .map_err(|_other| format!("`{address}` is not an address and port, e.g. 10.0.0.2:8443"))?;
        let mut backend = Backend {
            address,
            weight: default_weight(),
            proxy_protocol: ProxyOut::Off,
            tlvs: TlvsOut::default(),
            protocol: Protocol::Http1,
            path: String::new(),
            server_name: String::new(),
        };
        for part in parts {
            match part.split_once('=') {
                Some(("weight", weight)) => {
                    let number = weight.parse();
                    backend.weight = number.map_err(|_other| format!("weight `{weight}` is not a number"))?;
                }
                Some(("proxy_protocol", form)) => {
                    backend.proxy_protocol = match form {
                        "off" => ProxyOut::Off,
                        "v1" => ProxyOut::V1,
                        "v2" => ProxyOut::V2,
                        _ => return Err(format!("proxy_protocol `{form}` is not off, v1 or v2")),
                    };
                }
                Some(("protocol", protocol)) => {
                    backend.protocol = match protocol {
                        "http1" => Protocol::Http1,
                        "h2c" => Protocol::H2c,
                        "https" => Protocol::Https,
                        "h2" => Protocol::H2,
                        _ => return Err(format!("protocol `{protocol}` is not http1, h2c, https or h2")),
                    };
                }
                Some(("path", path)) => backend.path = path.to_owned(),
                Some(("server_name", name)) => backend.server_name = name.to_owned(),
                _ => {
                    return Err(format!(
                        "`{part}` is none of weight=N, proxy_protocol=FORM, protocol=PROTOCOL, server_name=NAME and \
                         path=/PATH"
                    ));
                }
            }
        }
        Ok(Self(backend))
    }
}

impl FromStr for CustomTlvArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, value) = text.split_once('=').ok_or("write TYPE=VALUE, e.g. 224=blue")?;
        let kind = kind.parse().map_err(|_other| format!("type `{kind}` is not 224 to 239"))?;
        Ok(Self(CustomTlv { kind, value: value.to_owned() }))
    }
}

impl FromStr for HoldArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        mcdsl::ctl::parse_millis(text).map(Self)
    }
}

impl FromStr for RuleArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rule = toml::from_str(text);
        rule.map(Self).map_err(|error| {
            let problem = error.message().to_owned();
            format!("{problem}: write one KIND=VALUE as TOML, e.g. methods=[\"GET\"] or rate={{requests=5}}")
        })
    }
}

impl FromStr for SubjectArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(code) = text.strip_prefix("country:") {
            return Ok(Self(Subject::Country(code.to_owned())));
        }
        if let Some(number) = text.strip_prefix("asn:") {
            let number = number.trim_start_matches("AS");
            let parsed = number.parse().map_err(|_other| format!("`{number}` is not the number of an AS"))?;
            return Ok(Self(Subject::Asn(parsed)));
        }
        // A single address means itself.
        let network = text.parse().or_else(|_other| text.parse::<std::net::IpAddr>().map(ipnet::IpNet::from));
        let wanted = "is not a network (192.0.2.0/24), country:CC or asn:N";
        network.map(|network| Self(Subject::Cidr(network))).map_err(|_other| format!("`{text}` {wanted}"))
    }
}

impl FromStr for IdArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let id = u64::from_str_radix(text, 16);
        id.map(Self).map_err(|_other| format!("`{text}` is not an id as `connection list` shows it"))
    }
}

/// How the firewall's subjects are written, and read by [`SubjectArg`].
pub(crate) fn subject_text(subject: &Subject) -> String {
    match subject {
        Subject::Cidr(network) => network.to_string(),
        Subject::Country(code) => format!("country:{code}"),
        Subject::Asn(number) => format!("asn:{number}"),
    }
}

/// One of several values, or `none`, which says that there is no value.
#[derive(Clone, Debug)]
pub(crate) struct NoneOr<T>(Option<T>);

impl<T: FromStr> FromStr for NoneOr<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "none" { Ok(Self(None)) } else { text.parse().map(|value| Self(Some(value))) }
    }
}

impl<T: Clone> NoneOr<T> {
    /// The values; `None`: nothing was given.
    pub(crate) fn values(given: &[Self]) -> Option<Vec<T>> {
        (!given.is_empty()).then(|| given.iter().filter_map(|it| it.0.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends() {
        let check = |text: &str, weight, form| {
            let BackendArg(backend) = text.parse().unwrap();
            assert_eq!((backend.weight, backend.proxy_protocol), (weight, form), "{text}");
        };
        check("10.0.0.2:443", 1, ProxyOut::Off);
        check("[::1]:443,weight=7", 7, ProxyOut::Off);
        check("10.0.0.2:443,proxy_protocol=v2,weight=2", 2, ProxyOut::V2);
        let BackendArg(backend) = "10.0.0.2:443,protocol=h2,server_name=b.internal".parse().unwrap();
        assert_eq!((backend.protocol, backend.server_name.as_str()), (Protocol::H2, "b.internal"));
        for bad in [
            "",
            "10.0.0.2",
            "host:443",
            "10.0.0.2:443,weight=x",
            "10.0.0.2:443,v2",
            "10.0.0.2:443,proxy_protocol=v3",
            "10.0.0.2:443,protocol=tls",
        ] {
            assert!(bad.parse::<BackendArg>().is_err(), "{bad}");
        }
    }

    #[test]
    fn subjects_are_read_as_they_are_written() {
        for text in ["192.0.2.0/24", "2001:db8::/32", "country:CH", "asn:64500"] {
            let SubjectArg(subject) = text.parse().unwrap();
            assert_eq!(subject_text(&subject), text);
        }
        assert_eq!(subject_text(&"192.0.2.7".parse::<SubjectArg>().unwrap().0), "192.0.2.7/32");
        assert_eq!(subject_text(&"asn:AS64500".parse::<SubjectArg>().unwrap().0), "asn:64500");
        for bad in ["", "CH", "asn:x", "192.0.2.0/33"] {
            assert!(bad.parse::<SubjectArg>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ids_are_hexadecimal() {
        assert_eq!("00f1a3000000002a".parse(), Ok(IdArg(0x00f1_a300_0000_002a)));
        assert!("xyz".parse::<IdArg>().is_err());
    }
}
