//! What MC-Proxy's keys are, for those who write them wrong.

use mcdsl::config::{Found, Hints, join, meant, not_a_network, walk};
use toml::de::{DeTable, DeValue};

/// For every configuration of MC-Proxy.
pub(super) const HINTS: Hints = Hints { example, within: rule_problem };

/// An example of a field that is easy to get wrong.
fn example(key: &str) -> &'static str {
    match key {
        "address" => ", e.g. \"0.0.0.0:443\"",
        "name" => ", e.g. \"web\" for a listener, \"www.example.org\" for a route",
        "backends" => ", e.g. [{ address = \"192.0.2.1:443\" }]",
        "listener" => ", the name of a listener",
        "action" => ", \"allow\" or \"deny\"",
        _ => "",
    }
}

/// What is wrong with a firewall rule: its fields are flattened, so that the reader blames the whole of it.
fn rule_problem(tree: &DeTable<'_>, path: &str) -> Option<Found> {
    if !path.starts_with("firewall.rules[") {
        return None;
    }
    let rule = walk(tree, path).1?.get_ref().as_table()?;
    let subjects = rule.keys().filter(|key| RULE_SUBJECTS.contains(&key.get_ref().as_ref())).count();
    for (key, value) in rule {
        let name = key.get_ref().as_ref();
        let (place, message) = match (name, value.get_ref()) {
            ("cidr", DeValue::String(text)) if text.parse::<ipnet::IpNet>().is_err() => {
                (value.span(), not_a_network(&format!("\"{text}\"")))
            }
            ("cidr" | "country", other) if !other.is_str() => {
                (value.span(), format!("expected a string in quotes, found {}", other.type_str()))
            }
            ("asn", DeValue::Integer(number)) if number.as_str().parse::<u32>().is_ok() => continue,
            ("asn", _) => (value.span(), "expected a whole number from 0 to 4294967295".to_owned()),
            ("cidr" | "country" | "action" | "comment", _) => continue,
            _ => (key.span(), format!("unknown field `{name}`{}", meant(name, &RULE_KEYS))),
        };
        return Some(Found { key: join(path, name), place, message });
    }
    let message = "a rule needs exactly one of `cidr`, `country` and `asn`, e.g. cidr = \"192.0.2.0/24\"";
    (subjects != 1).then(|| Found {
        key: path.to_owned(),
        place: walk(tree, path).0,
        message: message.to_owned(),
    })
}

/// Whom a rule is about.
const RULE_SUBJECTS: [&str; 3] = ["cidr", "country", "asn"];

/// Everything a rule may say.
const RULE_KEYS: [&str; 5] = ["action", "cidr", "country", "asn", "comment"];
