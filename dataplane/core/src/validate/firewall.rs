//! The firewall's rules and rate.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::{Invalid, check_network, quoted};
use crate::model::{Action, Firewall, FirewallRule, Rate, Subject};

/// Brings all rules to their one form, and refuses what makes no sense, alone and together.
///
/// # Errors
/// The first field that is wrong.
pub fn normalize_firewall(mut firewall: Firewall) -> Result<Firewall, Invalid> {
    if firewall.rules.len() > MAX_RULES {
        let problem = format!(
            "{} rules, {MAX_RULES} are the most: merge networks into shorter prefixes",
            firewall.rules.len()
        );
        return Err(Invalid::new("rules", problem));
    }
    firewall.rules = std::mem::take(&mut firewall.rules)
        .into_iter()
        .enumerate()
        .map(|(index, rule)| {
            normalize_rule(rule).map_err(|error| error.within(format_args!("rules[{index}]")))
        })
        .collect::<Result<_, _>>()?;
    check_together(&firewall.rules)?;
    firewall.rate = normalize_rate(firewall.rate).map_err(|error| error.within("rate"))?;
    Ok(firewall)
}

/// Brings a rule to its one form (countries in upper case) and refuses what makes no sense.
///
/// # Errors
/// The first field that is wrong.
pub fn normalize_rule(mut rule: FirewallRule) -> Result<FirewallRule, Invalid> {
    match &mut rule.subject {
        Subject::Cidr(network) => check_network("cidr", *network)?,
        Subject::Country(code) => {
            if code.len() != 2 || !code.bytes().all(|byte| byte.is_ascii_alphabetic()) {
                let problem =
                    format!("{} is no country: write two letters of ISO 3166-1, e.g. DE", quoted(code));
                return Err(Invalid::new("country", problem));
            }
            code.make_ascii_uppercase();
        }
        Subject::Asn(0) => {
            return Err(Invalid::new("asn", "0 is no autonomous system: write its number, e.g. 64496"));
        }
        Subject::Asn(_) => {}
    }
    let length = rule.comment.chars().count();
    if length > MAX_COMMENT {
        return Err(Invalid::new("comment", format!("{length} characters: write at most {MAX_COMMENT}")));
    }
    if rule.comment.chars().any(char::is_control) {
        let problem = format!("{} has control characters: write one line of text", quoted(&rule.comment));
        return Err(Invalid::new("comment", problem));
    }
    Ok(rule)
}

/// Refuses a burst without a rate, which would never be reached.
///
/// # Errors
/// The first field that is wrong.
pub fn normalize_rate(rate: Rate) -> Result<Rate, Invalid> {
    let pairs = [
        ("address_burst", rate.address_burst, "per_address", rate.per_address),
        ("prefix_burst", rate.prefix_burst, "per_prefix", rate.per_prefix),
    ];
    for (burst_field, burst, rate_field, per_second) in pairs {
        if burst != 0 && per_second == 0 {
            let problem = format!("{burst} has no meaning without {rate_field}: set that, or write 0 here");
            return Err(Invalid::new(burst_field, problem));
        }
    }
    Ok(rate)
}

/// No subject may be there twice, with the same action or with the other.
fn check_together(rules: &[FirewallRule]) -> Result<(), Invalid> {
    let mut seen: HashMap<&Subject, usize, _> =
        HashMap::with_capacity_and_hasher(rules.len(), foldhash::fast::RandomState::default());
    for (index, rule) in rules.iter().enumerate() {
        let first = match seen.entry(&rule.subject) {
            Entry::Vacant(entry) => {
                entry.insert(index);
                continue;
            }
            Entry::Occupied(entry) => *entry.get(),
        };
        let (this, other) = (describe(rule), describe(&rules[first]));
        let problem = if rule.action == rules[first].action {
            format!("{this} is also rules[{first}]: remove one")
        } else {
            format!("{this} contradicts rules[{first}], {other}: remove one")
        };
        return Err(Invalid::new(format!("rules[{index}]"), problem));
    }
    Ok(())
}

/// A rule as a person would say it.
fn describe(rule: &FirewallRule) -> String {
    let action = match rule.action {
        Action::Allow => "allow",
        Action::Deny => "deny",
    };
    match &rule.subject {
        Subject::Cidr(network) => format!("{action} {network}"),
        Subject::Country(code) => format!("{action} country {code}"),
        Subject::Asn(number) => format!("{action} AS{number}"),
    }
}

const MAX_RULES: usize = 1_000_000;
/// Characters of the longest comment.
const MAX_COMMENT: usize = 200;
