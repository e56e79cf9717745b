//! Compiles the firewall's rules and judges addresses with the kernel's own verdict code.
//!
//! The order in which rules decide is [`mc_ebpf_abi::verdict`]'s. Here they become tables: networks one sorted
//! list of disjoint intervals for each family, so that the longest match is one binary search whatever their
//! number; systems and countries a hash map each. Without a rule, a verdict costs a few nanoseconds.
//!
//! An IPv6 address that maps one of IPv4 is judged as that one, and so are networks of such addresses. Left
//! out: where countries and systems come from (the caller's closure), and the time (in [`Rates`]).

mod intervals;
pub mod tables;

#[cfg(test)]
mod tests;

use std::hash::Hash;
use std::net::IpAddr;

use foldhash::HashMap;
use ipnet::{IpNet, Ipv4Net};
use mc_ebpf_abi::bucket::Scope;
use mc_ebpf_abi::verdict::{self, GeoOpinion, Opinion, Verdict};

use crate::model::{Action, Firewall, Subject};
use crate::outcome::Outcome;
use crate::rate::{Limits, Rates, source};
use intervals::{Intervals, Network};

/// Rules in the form in which they are looked up.
#[derive(Debug, Default)]
pub struct Compiled {
    v4: Intervals<u32>,
    v6: Intervals<u128>,
    asns: HashMap<u32, Rule>,
    countries: HashMap<[u8; 2], Rule>,
    default: Opinion,
    limits: Limits,
}

/// What the databases say of an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Geo {
    /// ISO 3166-1 alpha-2 in upper case; `None` where unknown.
    pub country: Option<[u8; 2]>,
    /// The autonomous system; `None` where unknown.
    pub asn: Option<u32>,
}

/// What was decided, and what decided it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The step that decided, and how.
    pub verdict: Verdict,
    /// Index in [`Firewall::rules`] of the rule that decided; `None` where no rule did.
    pub rule: Option<usize>,
}

/// A rule and what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    opinion: Opinion,
    /// In [`Firewall::rules`].
    index: u32,
}

impl Compiled {
    /// Compiles rules, default and rate. A country that is not two letters long matches nobody: validation
    /// refuses it.
    #[must_use]
    pub fn new(firewall: &Firewall) -> Self {
        let mut compiled = Self {
            default: opinion(firewall.default),
            limits: Limits::new(&firewall.rate),
            ..Self::default()
        };
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (index, rule) in (0..).zip(&firewall.rules) {
            let decides = Rule { opinion: opinion(rule.action), index };
            match &rule.subject {
                Subject::Cidr(net) => match canonical(*net) {
                    IpNet::V4(net) => v4.push(Network::v4(net, decides)),
                    IpNet::V6(net) => v6.push(Network::v6(net, decides)),
                },
                Subject::Country(code) => {
                    if let Ok(code) = code.as_bytes().try_into() {
                        add(&mut compiled.countries, code, decides);
                    }
                }
                Subject::Asn(asn) => add(&mut compiled.asns, *asn, decides),
            }
        }
        compiled.v4 = Intervals::new(v4);
        compiled.v6 = Intervals::new(v6);
        compiled
    }

    /// What becomes of a connection from `address`. `geo` is called only where a country or ASN rule can matter.
    /// `rates` takes a token of each bucket that has a limit; with `None` the rate is not looked at: so for a
    /// peer that speaks for others by PROXY protocol, and for a question that must not cost anything.
    pub fn verdict(&self, address: IpAddr, geo: impl FnOnce() -> Geo, rates: Option<Rates<'_>>) -> Decision {
        let address = address.to_canonical();
        let network = match address {
            IpAddr::V4(address) => self.v4.find(address.to_bits()),
            IpAddr::V6(address) => self.v6.find(address.to_bits()),
        };
        let mut asn = None;
        let mut country = None;
        let judged = verdict::judge(
            opinion_of(network),
            || {
                if self.needs_asn() || self.needs_country() {
                    let geo = geo();
                    asn = geo.asn.and_then(|asn| self.asns.get(&asn)).copied();
                    country = geo.country.and_then(|code| self.countries.get(&code)).copied();
                }
                GeoOpinion { asn: opinion_of(asn), country: opinion_of(country) }
            },
            self.default,
        );
        let verdict = match rates {
            Some(rates) if !self.limits.is_none() => {
                let source = source(address);
                verdict::rated(
                    judged,
                    || rates.take(source, Scope::Address, self.limits.address.as_ref()),
                    || rates.take(source, Scope::Prefix, self.limits.prefix.as_ref()),
                )
            }
            _ => judged,
        };
        let rule = match verdict {
            Verdict::AllowedCidr | Verdict::DeniedCidr => network,
            Verdict::AllowedAsn | Verdict::DeniedAsn => asn,
            Verdict::AllowedCountry | Verdict::DeniedCountry => country,
            Verdict::AllowedDefault | Verdict::DeniedDefault | Verdict::RateAddress | Verdict::RatePrefix => {
                None
            }
        };
        Decision { verdict, rule: rule.map(|rule| rule.index as usize) }
    }

    /// Whether a rule is about countries: the database need not be read otherwise.
    #[must_use]
    pub fn needs_country(&self) -> bool {
        !self.countries.is_empty()
    }

    /// Whether a rule is about autonomous systems.
    #[must_use]
    pub fn needs_asn(&self) -> bool {
        !self.asns.is_empty()
    }

    /// Whether there is a rate: the caller need not look at the clock otherwise.
    #[must_use]
    pub fn needs_rate(&self) -> bool {
        !self.limits.is_none()
    }
}

impl Decision {
    /// Whether the connection may go on.
    #[must_use]
    pub fn pass(&self) -> bool {
        self.verdict.passes()
    }

    /// How the connection ends; `None` where it goes on.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        match self.verdict {
            Verdict::AllowedDefault
            | Verdict::AllowedCidr
            | Verdict::AllowedAsn
            | Verdict::AllowedCountry => None,
            Verdict::DeniedCidr => Some(Outcome::DeniedCidr),
            Verdict::DeniedAsn => Some(Outcome::DeniedAsn),
            Verdict::DeniedCountry => Some(Outcome::DeniedCountry),
            Verdict::DeniedDefault => Some(Outcome::DeniedDefault),
            Verdict::RateAddress => Some(Outcome::RateAddress),
            Verdict::RatePrefix => Some(Outcome::RatePrefix),
        }
    }

    /// What decided, for a person: `denied by rule 3: cidr 192.0.2.0/24 (scanners)`. Rules count from 1.
    /// `firewall` is what the decision's [`Compiled`] was made from.
    #[must_use]
    pub fn explain(&self, firewall: &Firewall) -> String {
        let word = if self.pass() { "allowed" } else { "denied" };
        match (self.verdict, self.rule.and_then(|index| Some((index, firewall.rules.get(index)?)))) {
            (_, Some((index, rule))) => {
                let comment =
                    if rule.comment.is_empty() { String::new() } else { format!(" ({})", rule.comment) };
                format!("{word} by rule {}: {}{comment}", index + 1, words(&rule.subject))
            }
            (Verdict::RateAddress, None) => "denied: the address opens connections too fast".to_owned(),
            (Verdict::RatePrefix, None) => {
                "denied: the address's prefix opens connections too fast".to_owned()
            }
            (_, None) => format!("{word} by default: no rule is about it"),
        }
    }
}

fn words(subject: &Subject) -> String {
    match subject {
        Subject::Cidr(net) => format!("cidr {net}"),
        Subject::Country(code) => format!("country {code}"),
        Subject::Asn(asn) => format!("asn {asn}"),
    }
}

fn opinion(action: Action) -> Opinion {
    match action {
        Action::Allow => Opinion::Allow,
        Action::Deny => Opinion::Deny,
    }
}

fn opinion_of(rule: Option<Rule>) -> Opinion {
    rule.map_or(Opinion::None, |rule| rule.opinion)
}

/// Between rules about the same subject the one that allows decides, and between such the first.
fn add<K: Hash + Eq>(rules: &mut HashMap<K, Rule>, subject: K, rule: Rule) {
    let first = rules.entry(subject).or_insert(rule);
    if first.opinion == Opinion::Deny && rule.opinion == Opinion::Allow {
        *first = rule;
    }
}

/// A network of mapped addresses (RFC 4291, section 2.5.5.2) is the one of IPv4 that they map.
fn canonical(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    let mapped = v6.network().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
    mapped.and_then(|(address, len)| Ipv4Net::new(address, len).ok()).map_or(net, IpNet::V4)
}
