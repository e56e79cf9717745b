//! Stand-in for the conversions between messages and model.

use mc_core::model::{self, Invalid};

fn bad(field: &str, problem: impl Into<String>) -> Invalid {
    Invalid { field: field.to_owned(), problem: problem.into() }
}

fn parse<T: std::str::FromStr>(field: &str, text: &str, remedy: &str) -> Result<T, Invalid> {
    text.parse().map_err(|_| bad(field, format!("`{text}` {remedy}")))
}

fn pick<T: Copy>(field: &str, value: i32, all: &[T]) -> Result<T, Invalid> {
    usize::try_from(value)
        .ok()
        .and_then(|at| all.get(at))
        .copied()
        .ok_or_else(|| bad(field, format!("{value} is not known")))
}

const MODES: [model::Mode; 2] = [model::Mode::L4, model::Mode::L7];
const BALANCES: [model::Balance; 3] =
    [model::Balance::LeastConnections, model::Balance::RandomOfTwo, model::Balance::SourceHash];
const OUTS: [model::ProxyOut; 3] = [model::ProxyOut::Off, model::ProxyOut::V1, model::ProxyOut::V2];
const INS: [model::ProxyIn; 3] = [model::ProxyIn::Off, model::ProxyIn::Required, model::ProxyIn::Optional];
const KINDS: [model::CheckKind; 4] =
    [model::CheckKind::Tcp, model::CheckKind::Tls, model::CheckKind::Http, model::CheckKind::Https];

fn at<T: PartialEq>(value: &T, all: &[T]) -> i32 {
    all.iter().position(|v| v == value).unwrap_or(0) as i32
}

impl TryFrom<super::Route> for model::Route {
    type Error = Invalid;
    fn try_from(r: super::Route) -> Result<Self, Invalid> {
        Ok(Self {
            listener: r.listener,
            name: r.name,
            alpn: r.alpn,
            any_depth: r.any_depth,
            mode: pick("mode", r.mode, &MODES)?,
            backends: r
                .backends
                .into_iter()
                .enumerate()
                .map(|(i, b)| {
                    let tlvs = b.tlvs.unwrap_or_default();
                    Ok(model::Backend {
                        address: parse(
                            &format!("backends[{i}].address"),
                            &b.address,
                            "is no address with a port",
                        )?,
                        weight: b.weight.unwrap_or(1),
                        proxy_protocol: pick("proxy_protocol", b.proxy_protocol, &OUTS)?,
                        tlvs: model::TlvsOut {
                            alpn: tlvs.alpn,
                            authority: tlvs.authority,
                            unique_id: tlvs.unique_id,
                            crc32c: tlvs.crc32c,
                            pass: tlvs.pass,
                            custom: Vec::new(),
                        },
                    })
                })
                .collect::<Result<_, Invalid>>()?,
            balance: pick("balance", r.balance, &BALANCES)?,
            connect_timeout_ms: r.connect_timeout_ms.unwrap_or(5_000),
            retries: r.retries.unwrap_or(2),
            idle_timeout_ms: r.idle_timeout_ms.unwrap_or(600_000),
            total_timeout_ms: r.total_timeout_ms,
            max_connections: r.max_connections,
            max_connections_per_source: r.max_connections_per_source,
            check: r
                .check
                .map(|c| {
                    Ok::<_, Invalid>(model::Check {
                        kind: pick("check.kind", c.kind, &KINDS)?,
                        interval_ms: c.interval_ms.unwrap_or(5_000),
                        timeout_ms: c.timeout_ms.unwrap_or(2_000),
                        rise: c.rise.unwrap_or(2),
                        fall: c.fall.unwrap_or(3),
                        host: c.host,
                        path: c.path.unwrap_or("/".into()),
                    })
                })
                .transpose()?,
            eject_after: r.eject_after.unwrap_or(5),
            eject_ms: r.eject_ms.unwrap_or(10_000),
            slow_start_ms: r.slow_start_ms,
        })
    }
}

impl From<&model::Route> for super::Route {
    fn from(r: &model::Route) -> Self {
        Self {
            listener: r.listener.clone(),
            name: r.name.clone(),
            alpn: r.alpn.clone(),
            any_depth: r.any_depth,
            mode: at(&r.mode, &MODES),
            backends: r
                .backends
                .iter()
                .map(|b| super::Backend {
                    address: b.address.to_string(),
                    weight: Some(b.weight),
                    proxy_protocol: at(&b.proxy_protocol, &OUTS),
                    tlvs: None,
                })
                .collect(),
            balance: at(&r.balance, &BALANCES),
            connect_timeout_ms: Some(r.connect_timeout_ms),
            retries: Some(r.retries),
            idle_timeout_ms: Some(r.idle_timeout_ms),
            total_timeout_ms: r.total_timeout_ms,
            max_connections: r.max_connections,
            max_connections_per_source: r.max_connections_per_source,
            check: None,
            eject_after: Some(r.eject_after),
            eject_ms: Some(r.eject_ms),
            slow_start_ms: r.slow_start_ms,
        }
    }
}

impl TryFrom<super::Listener> for model::Listener {
    type Error = Invalid;
    fn try_from(l: super::Listener) -> Result<Self, Invalid> {
        Ok(Self {
            name: l.name,
            address: parse("address", &l.address, "is no address with a port")?,
            proxy_protocol: pick("proxy_protocol", l.proxy_protocol, &INS)?,
            trusted: l
                .trusted
                .iter()
                .map(|t| parse("trusted", t, "is no network"))
                .collect::<Result<_, _>>()?,
            hello_timeout_ms: l.hello_timeout_ms.unwrap_or(10_000),
            max_hello_bytes: l.max_hello_bytes.unwrap_or(65_536),
        })
    }
}

impl From<&model::Listener> for super::Listener {
    fn from(l: &model::Listener) -> Self {
        Self {
            name: l.name.clone(),
            address: l.address.to_string(),
            proxy_protocol: at(&l.proxy_protocol, &INS),
            trusted: l.trusted.iter().map(ToString::to_string).collect(),
            hello_timeout_ms: Some(l.hello_timeout_ms),
            max_hello_bytes: Some(l.max_hello_bytes),
        }
    }
}

impl TryFrom<super::FirewallRule> for model::FirewallRule {
    type Error = Invalid;
    fn try_from(r: super::FirewallRule) -> Result<Self, Invalid> {
        use super::firewall_rule::Subject;
        Ok(Self {
            action: match r.action {
                1 => model::Action::Allow,
                2 => model::Action::Deny,
                _ => return Err(bad("action", "must be allow or deny")),
            },
            subject: match r.subject {
                Some(Subject::Cidr(c)) => model::Subject::Cidr(parse("cidr", &c, "is no network")?),
                Some(Subject::Country(c)) => model::Subject::Country(c),
                Some(Subject::Asn(a)) => model::Subject::Asn(a),
                None => return Err(bad("subject", "one of cidr, country, asn")),
            },
            comment: r.comment,
        })
    }
}

impl From<&model::FirewallRule> for super::FirewallRule {
    fn from(r: &model::FirewallRule) -> Self {
        use super::firewall_rule::Subject;
        Self {
            action: if r.action == model::Action::Allow { 1 } else { 2 },
            subject: Some(match &r.subject {
                model::Subject::Cidr(c) => Subject::Cidr(c.to_string()),
                model::Subject::Country(c) => Subject::Country(c.clone()),
                model::Subject::Asn(a) => Subject::Asn(*a),
            }),
            comment: r.comment.clone(),
        }
    }
}

impl From<super::Rate> for model::Rate {
    fn from(r: super::Rate) -> Self {
        Self {
            per_address: r.per_address,
            address_burst: r.address_burst,
            per_prefix: r.per_prefix,
            prefix_burst: r.prefix_burst,
        }
    }
}

impl TryFrom<super::Firewall> for model::Firewall {
    type Error = Invalid;
    fn try_from(f: super::Firewall) -> Result<Self, Invalid> {
        Ok(Self {
            rules: f.rules.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            default: if f.default_action == 2 { model::Action::Deny } else { model::Action::Allow },
            rate: f.rate.unwrap_or_default().into(),
        })
    }
}

impl From<&model::Firewall> for super::Firewall {
    fn from(f: &model::Firewall) -> Self {
        Self {
            rules: f.rules.iter().map(Into::into).collect(),
            default_action: if f.default == model::Action::Allow { 1 } else { 2 },
            rate: Some(super::Rate {
                per_address: f.rate.per_address,
                address_burst: f.rate.address_burst,
                per_prefix: f.rate.per_prefix,
                prefix_burst: f.rate.prefix_burst,
            }),
        }
    }
}

impl From<super::RouteKey> for model::RouteKey {
    fn from(k: super::RouteKey) -> Self {
        Self { listener: k.listener, name: k.name, alpn: k.alpn }
    }
}

impl From<&model::RouteKey> for super::RouteKey {
    fn from(k: &model::RouteKey) -> Self {
        Self { listener: k.listener.clone(), name: k.name.clone(), alpn: k.alpn.clone() }
    }
}
