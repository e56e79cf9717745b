//! Between messages and the model: what was said becomes what is meant, or is refused with the field's path.
//!
//! Only the form is judged here (is it an address, is the number known); whether it makes sense is judged by
//! `mc_core::model`. Absent optional fields take the model's defaults.

use std::str::FromStr;

use mc_core::model::{self};
use mc_core::validate::Invalid;

mod policy;

use super::firewall_rule::Subject;
use super::{
    Backend, Check, CustomTlv, Firewall, FirewallRule, Http, Listener, Rate, Route, RouteKey, TlvsOut,
};

/// A message's numbers and the model's words for them, in the order of the numbers.
trait Words: Sized + Copy + PartialEq + 'static {
    const WORDS: &'static [Self];

    fn number(self) -> i32 {
        let at = Self::WORDS.iter().position(|word| *word == self).expect("every word has its number");
        i32::try_from(at).expect("there are few words")
    }

    fn of(number: i32, field: &str) -> Result<Self, Invalid> {
        let word = usize::try_from(number).ok().and_then(|at| Self::WORDS.get(at)).copied();
        let most = Self::WORDS.len() - 1;
        word.ok_or_else(|| invalid(field, format!("{number} is not known here; 0 to {most} are")))
    }
}

impl Words for model::Mode {
    const WORDS: &'static [Self] = &[Self::L4, Self::L7];
}

impl Words for model::Balance {
    const WORDS: &'static [Self] = &[Self::LeastConnections, Self::RandomOfTwo, Self::SourceHash];
}

impl Words for model::Forwarded {
    const WORDS: &'static [Self] = &[Self::Set, Self::Append, Self::Strip];
}

impl Words for model::ClientAuth {
    const WORDS: &'static [Self] = &[Self::Off, Self::Optional, Self::Required];
}

impl Words for model::Protocol {
    const WORDS: &'static [Self] = &[Self::Http1, Self::H2c, Self::Https, Self::H2];
}

impl Words for model::Coding {
    const WORDS: &'static [Self] = &Self::ALL;
}

impl Words for model::ProxyOut {
    const WORDS: &'static [Self] = &[Self::Off, Self::V1, Self::V2];
}

impl Words for model::ProxyIn {
    const WORDS: &'static [Self] = &[Self::Off, Self::Required, Self::Optional];
}

impl Words for model::CheckKind {
    const WORDS: &'static [Self] = &[Self::Tcp, Self::Tls, Self::Http, Self::Https, Self::Grpc];
}

impl TryFrom<Route> for model::Route {
    type Error = Invalid;

    fn try_from(route: Route) -> Result<Self, Invalid> {
        let backends = route.backends.into_iter().enumerate();
        let backends = backends.map(|(index, backend)| backend_of(backend, &format!("backends[{index}]")));
        Ok(Self {
            listener: route.listener,
            name: route.name,
            alpn: route.alpn,
            any_depth: route.any_depth,
            owner: route.owner,
            mode: Words::of(route.mode, "mode")?,
            backends: backends.collect::<Result<_, _>>()?,
            balance: Words::of(route.balance, "balance")?,
            connect_timeout_ms: route.connect_timeout_ms.unwrap_or(model::default_connect_timeout_ms()),
            retries: route.retries.unwrap_or(model::default_retries()),
            idle_timeout_ms: route.idle_timeout_ms.unwrap_or(model::default_idle_timeout_ms()),
            total_timeout_ms: route.total_timeout_ms,
            max_connections: route.max_connections,
            max_connections_per_source: route.max_connections_per_source,
            check: route.check.map(check_of).transpose()?,
            eject_after: route.eject_after.unwrap_or(model::default_eject_after()),
            eject_ms: route.eject_ms.unwrap_or(model::default_eject_ms()),
            slow_start_ms: route.slow_start_ms,
            http: http_of(route.http.unwrap_or_default())?,
        })
    }
}

fn http_of(http: Http) -> Result<model::Http, Invalid> {
    let default = model::Http::default();
    Ok(model::Http {
        forwarded: Words::of(http.forwarded, "http.forwarded")?,
        pass_identity_fields: http.pass_identity_fields,
        response_timeout_ms: http.response_timeout_ms.unwrap_or(default.response_timeout_ms),
        keepalive_timeout_ms: http.keepalive_timeout_ms.unwrap_or(default.keepalive_timeout_ms),
        max_body_bytes: http.max_body_bytes,
        backend_ca: http.backend_ca,
        client_auth: Words::of(http.client_auth, "http.client_auth")?,
        client_ca: http.client_ca,
        sticky: http.sticky.map(|sticky| Box::new(sticky.into())),
        policies: policy::policies_of(http.policies)?,
    })
}

fn backend_of(backend: Backend, path: &str) -> Result<model::Backend, Invalid> {
    let tlvs = backend.tlvs.unwrap_or_default();
    let custom = tlvs.custom.into_iter().enumerate().map(|(index, tlv)| {
        let field = format!("{path}.tlvs.custom[{index}].type");
        let kind = u8::try_from(tlv.r#type);
        let kind = kind.map_err(|_out| invalid(&field, format!("{} is not 224 to 239", tlv.r#type)))?;
        Ok(model::CustomTlv { kind, value: tlv.value })
    });
    Ok(model::Backend {
        address: parse(
            &backend.address,
            &format!("{path}.address"),
            "an address and port, e.g. 10.0.0.2:8443",
        )?,
        weight: backend.weight.unwrap_or(model::default_weight()),
        proxy_protocol: Words::of(backend.proxy_protocol, &format!("{path}.proxy_protocol"))?,
        protocol: Words::of(backend.protocol, &format!("{path}.protocol"))?,
        path: backend.path,
        server_name: backend.server_name,
        tlvs: model::TlvsOut {
            alpn: tlvs.alpn,
            authority: tlvs.authority,
            unique_id: tlvs.unique_id,
            crc32c: tlvs.crc32c,
            pass: tlvs.pass,
            custom: custom.collect::<Result<_, Invalid>>()?,
        },
    })
}

fn check_of(check: Check) -> Result<model::Check, Invalid> {
    Ok(model::Check {
        kind: Words::of(check.kind, "check.kind")?,
        interval_ms: check.interval_ms.unwrap_or(model::default_check_interval_ms()),
        timeout_ms: check.timeout_ms.unwrap_or(model::default_check_timeout_ms()),
        rise: check.rise.unwrap_or(model::default_check_rise()),
        fall: check.fall.unwrap_or(model::default_check_fall()),
        host: check.host,
        path: check.path.unwrap_or_else(|| "/".to_owned()),
        service: check.service,
    })
}

impl From<&model::Route> for Route {
    fn from(route: &model::Route) -> Self {
        Self {
            listener: route.listener.clone(),
            name: route.name.clone(),
            alpn: route.alpn.clone(),
            any_depth: route.any_depth,
            owner: route.owner.clone(),
            mode: route.mode.number(),
            backends: route.backends.iter().map(Backend::from).collect(),
            balance: route.balance.number(),
            connect_timeout_ms: Some(route.connect_timeout_ms),
            retries: Some(route.retries),
            idle_timeout_ms: Some(route.idle_timeout_ms),
            total_timeout_ms: route.total_timeout_ms,
            max_connections: route.max_connections,
            max_connections_per_source: route.max_connections_per_source,
            check: route.check.as_ref().map(Check::from),
            eject_after: Some(route.eject_after),
            eject_ms: Some(route.eject_ms),
            slow_start_ms: route.slow_start_ms,
            http: (route.http != model::Http::default()).then(|| Http {
                forwarded: route.http.forwarded.number(),
                pass_identity_fields: route.http.pass_identity_fields,
                response_timeout_ms: Some(route.http.response_timeout_ms),
                keepalive_timeout_ms: Some(route.http.keepalive_timeout_ms),
                max_body_bytes: route.http.max_body_bytes,
                backend_ca: route.http.backend_ca.clone(),
                client_auth: route.http.client_auth.number(),
                client_ca: route.http.client_ca.clone(),
                sticky: route.http.sticky.as_deref().map(super::Sticky::from),
                policies: route.http.policies.iter().map(super::Policy::from).collect(),
            }),
        }
    }
}

impl From<&model::Backend> for Backend {
    fn from(backend: &model::Backend) -> Self {
        let tlvs = &backend.tlvs;
        let custom = |tlv: &model::CustomTlv| CustomTlv { r#type: tlv.kind.into(), value: tlv.value.clone() };
        Self {
            address: backend.address.to_string(),
            weight: Some(backend.weight),
            proxy_protocol: backend.proxy_protocol.number(),
            protocol: backend.protocol.number(),
            path: backend.path.clone(),
            server_name: backend.server_name.clone(),
            tlvs: (*tlvs != model::TlvsOut::default()).then(|| TlvsOut {
                alpn: tlvs.alpn,
                authority: tlvs.authority,
                unique_id: tlvs.unique_id,
                crc32c: tlvs.crc32c,
                pass: tlvs.pass,
                custom: tlvs.custom.iter().map(custom).collect(),
            }),
        }
    }
}

impl From<&model::Check> for Check {
    fn from(check: &model::Check) -> Self {
        Self {
            kind: check.kind.number(),
            interval_ms: Some(check.interval_ms),
            timeout_ms: Some(check.timeout_ms),
            rise: Some(check.rise),
            fall: Some(check.fall),
            host: check.host.clone(),
            path: Some(check.path.clone()),
            service: check.service.clone(),
        }
    }
}

impl TryFrom<Listener> for model::Listener {
    type Error = Invalid;

    fn try_from(listener: Listener) -> Result<Self, Invalid> {
        let network = |(index, text): (usize, &String)| {
            parse(text, &format!("trusted[{index}]"), "a network, e.g. 10.0.0.0/8")
        };
        let steered = |(index, text): (usize, &String)| {
            parse(text, &format!("steered[{index}]"), "addresses and ports, e.g. 198.51.100.0/24:443")
        };
        Ok(Self {
            steered: listener.steered.iter().enumerate().map(steered).collect::<Result<_, _>>()?,
            name: listener.name,
            address: parse(&listener.address, "address", "an address and port, e.g. 0.0.0.0:443")?,
            proxy_protocol: Words::of(listener.proxy_protocol, "proxy_protocol")?,
            trusted: listener.trusted.iter().enumerate().map(network).collect::<Result<_, _>>()?,
            hello_timeout_ms: listener.hello_timeout_ms.unwrap_or(model::default_hello_timeout_ms()),
            max_hello_bytes: listener.max_hello_bytes.unwrap_or(model::default_max_hello_bytes()),
        })
    }
}

impl From<&model::Listener> for Listener {
    fn from(listener: &model::Listener) -> Self {
        Self {
            name: listener.name.clone(),
            address: listener.address.to_string(),
            proxy_protocol: listener.proxy_protocol.number(),
            trusted: listener.trusted.iter().map(ToString::to_string).collect(),
            steered: listener.steered.iter().map(ToString::to_string).collect(),
            hello_timeout_ms: Some(listener.hello_timeout_ms),
            max_hello_bytes: Some(listener.max_hello_bytes),
        }
    }
}

impl TryFrom<FirewallRule> for model::FirewallRule {
    type Error = Invalid;

    fn try_from(rule: FirewallRule) -> Result<Self, Invalid> {
        let subject = match rule.subject {
            Some(Subject::Cidr(text)) => {
                model::Subject::Cidr(parse(&text, "cidr", "a network, e.g. 192.0.2.0/24")?)
            }
            Some(Subject::Country(code)) => model::Subject::Country(code),
            Some(Subject::Asn(number)) => model::Subject::Asn(number),
            None => return Err(invalid("subject", "is missing; say cidr, country or asn".to_owned())),
        };
        let action = match rule.action {
            0 => return Err(invalid("action", "is missing; say allow or deny".to_owned())),
            number => action_of(number, "action")?,
        };
        Ok(Self { action, subject, comment: rule.comment })
    }
}

impl From<&model::FirewallRule> for FirewallRule {
    fn from(rule: &model::FirewallRule) -> Self {
        let subject = match &rule.subject {
            model::Subject::Cidr(network) => Subject::Cidr(network.to_string()),
            model::Subject::Country(code) => Subject::Country(code.clone()),
            model::Subject::Asn(number) => Subject::Asn(*number),
        };
        Self { action: number_of(rule.action), subject: Some(subject), comment: rule.comment.clone() }
    }
}

impl TryFrom<Firewall> for model::Firewall {
    type Error = Invalid;

    fn try_from(firewall: Firewall) -> Result<Self, Invalid> {
        let rule = |(index, rule)| {
            model::FirewallRule::try_from(rule).map_err(|invalid: Invalid| Invalid {
                field: format!("rules[{index}].{}", invalid.field),
                problem: invalid.problem,
            })
        };
        Ok(Self {
            rules: firewall.rules.into_iter().enumerate().map(rule).collect::<Result<_, _>>()?,
            default: action_of(firewall.default_action, "default_action")?,
            rate: firewall.rate.unwrap_or_default().into(),
        })
    }
}

impl From<&model::Firewall> for Firewall {
    fn from(firewall: &model::Firewall) -> Self {
        Self {
            rules: firewall.rules.iter().map(FirewallRule::from).collect(),
            default_action: number_of(firewall.default),
            rate: Some(Rate::from(&firewall.rate)),
        }
    }
}

impl From<Rate> for model::Rate {
    fn from(rate: Rate) -> Self {
        Self {
            per_address: rate.per_address,
            address_burst: rate.address_burst,
            per_prefix: rate.per_prefix,
            prefix_burst: rate.prefix_burst,
        }
    }
}

impl From<&model::Rate> for Rate {
    fn from(rate: &model::Rate) -> Self {
        Self {
            per_address: rate.per_address,
            address_burst: rate.address_burst,
            per_prefix: rate.per_prefix,
            prefix_burst: rate.prefix_burst,
        }
    }
}

impl From<RouteKey> for model::RouteKey {
    fn from(key: RouteKey) -> Self {
        Self { listener: key.listener, name: key.name, alpn: key.alpn }
    }
}

impl From<&model::RouteKey> for RouteKey {
    fn from(key: &model::RouteKey) -> Self {
        Self { listener: key.listener.clone(), name: key.name.clone(), alpn: key.alpn.clone() }
    }
}

/// 0, which is what an absent field reads as, is the model's default.
fn action_of(number: i32, field: &str) -> Result<model::Action, Invalid> {
    match number {
        0 => Ok(model::Action::default()),
        1 => Ok(model::Action::Allow),
        2 => Ok(model::Action::Deny),
        _ => Err(invalid(field, format!("{number} is not known here; 1 is allow, 2 is deny"))),
    }
}

const fn number_of(action: model::Action) -> i32 {
    match action {
        model::Action::Allow => 1,
        model::Action::Deny => 2,
    }
}

fn parse<T: FromStr>(text: &str, field: &str, wanted: &str) -> Result<T, Invalid> {
    text.parse().map_err(|_other| invalid(field, format!("`{text}` is not {wanted}")))
}

fn invalid(field: &str, problem: String) -> Invalid {
    Invalid { field: field.to_owned(), problem }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn backend() -> impl Strategy<Value = model::Backend> {
        let tlvs = (any::<[bool; 5]>(), proptest::collection::vec((224_u8..=239, "[a-z]{0,9}"), 0..3));
        (any::<std::net::SocketAddr>(), 1_u32..1000, 0..3_i32, 0..4_i32, tlvs).prop_map(
            |(address, weight, form, protocol, tlvs)| {
                let ([alpn, authority, unique_id, crc32c, pass], custom) = tlvs;
                let custom =
                    custom.into_iter().map(|(kind, value)| model::CustomTlv { kind, value }).collect();
                let tlvs = model::TlvsOut { alpn, authority, unique_id, crc32c, pass, custom };
                // The scope and flow of an IPv6 address are not spoken of.
                let address = std::net::SocketAddr::new(address.ip(), address.port());
                model::Backend {
                    address,
                    weight,
                    proxy_protocol: Words::of(form, "").unwrap(),
                    tlvs,
                    protocol: Words::of(protocol, "").unwrap(),
                    path: if weight % 2 == 0 { "/api".to_owned() } else { String::new() },
                    server_name: if weight % 3 == 0 { "b.internal".to_owned() } else { String::new() },
                }
            },
        )
    }

    fn check() -> impl Strategy<Value = model::Check> {
        let texts = ("[a-z]{0,9}", "/[a-z]{0,9}", "[a-z.]{0,9}");
        (0..5_i32, any::<[u64; 2]>(), any::<[u32; 2]>(), texts).prop_map(
            |(kind, [interval_ms, timeout_ms], [rise, fall], (host, path, service))| model::Check {
                kind: Words::of(kind, "").unwrap(),
                interval_ms,
                timeout_ms,
                rise,
                fall,
                host,
                path,
                service,
            },
        )
    }

    fn route() -> impl Strategy<Value = model::Route> {
        let texts = ("[a-z]{1,9}", "[a-z.]{1,20}", "[a-z]{0,5}", "[a-z]{0,5}");
        let words = (any::<bool>(), 0..2_i32, 0..3_i32);
        let http = (0..3_i32, any::<[u64; 3]>());
        let rest = (any::<[u64; 5]>(), any::<[u32; 4]>(), proptest::option::of(check()), http);
        (texts, words, proptest::collection::vec(backend(), 0..4), rest).prop_map(
            |(
                (listener, name, alpn, owner),
                (any_depth, mode, balance),
                backends,
                (ms, numbers, check, http),
            )| {
                model::Route {
                    listener,
                    name,
                    alpn,
                    any_depth,
                    owner,
                    mode: Words::of(mode, "").unwrap(),
                    backends,
                    balance: Words::of(balance, "").unwrap(),
                    connect_timeout_ms: ms[0],
                    retries: numbers[0],
                    idle_timeout_ms: ms[1],
                    total_timeout_ms: ms[2],
                    max_connections: numbers[1],
                    max_connections_per_source: numbers[2],
                    check,
                    eject_after: numbers[3],
                    eject_ms: ms[3],
                    slow_start_ms: ms[4],
                    http: model::Http {
                        forwarded: Words::of(http.0, "").unwrap(),
                        pass_identity_fields: http.1[0] % 2 == 0,
                        response_timeout_ms: http.1[0],
                        keepalive_timeout_ms: http.1[1],
                        max_body_bytes: http.1[2],
                        backend_ca: if http.1[1] % 2 == 0 { "ca.pem".to_owned() } else { String::new() },
                        client_auth: Words::of(http.0, "").unwrap(),
                        client_ca: "clients.pem".to_owned(),
                        sticky: (http.1[2] % 2 == 0).then(Box::default),
                        policies: policy::tests::one_of_each(),
                    },
                }
            },
        )
    }

    proptest! {
        #[test]
        fn routes_survive_the_way_there_and_back(route in route()) {
            prop_assert_eq!(model::Route::try_from(Route::from(&route)).unwrap(), route);
        }
    }

    #[test]
    fn absent_fields_take_the_defaults_that_toml_takes() {
        let backends = vec![Backend { address: "10.0.0.2:443".to_owned(), ..Backend::default() }];
        let message = Route { listener: "web".into(), name: "a".into(), backends, ..Route::default() };
        let json = r#"{"listener":"web","name":"a","backends":[{"address":"10.0.0.2:443"}]}"#;
        let expect: model::Route = serde_json::from_str(json).unwrap();
        assert_eq!(model::Route::try_from(message).unwrap(), expect);
    }

    #[test]
    fn what_is_refused_is_named() {
        let check = |message: Route, field: &str| {
            assert_eq!(model::Route::try_from(message).unwrap_err().field, field);
        };
        check(Route { mode: 7, ..Route::default() }, "mode");
        check(Route { backends: vec![Backend::default()], ..Route::default() }, "backends[0].address");
        check(
            Route { check: Some(Check { kind: -1, ..Check::default() }), ..Route::default() },
            "check.kind",
        );
        let rule = FirewallRule { action: 2, ..FirewallRule::default() };
        assert_eq!(model::FirewallRule::try_from(rule.clone()).unwrap_err().field, "subject");
        let firewall = Firewall { rules: vec![rule], ..Firewall::default() };
        assert_eq!(model::Firewall::try_from(firewall).unwrap_err().field, "rules[0].subject");
        let listener =
            Listener { address: "[::]:443".into(), trusted: vec!["x".into()], ..Listener::default() };
        assert_eq!(model::Listener::try_from(listener).unwrap_err().field, "trusted[0]");
    }
}
