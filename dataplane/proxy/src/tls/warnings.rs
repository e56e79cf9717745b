//! What operators have to hear about the certificates in use: those that expire, and those that nobody is shown.

use std::collections::BTreeSet;

use mc_core::certificate::Validity;

use super::{CertificateInfo, Leaf};
use crate::access_log::date_text;

/// A sentence for each certificate that needs attention, at most [`MAX_WARNINGS`] and one that says how many more.
pub(super) fn warnings(infos: &[CertificateInfo], now_s: i64) -> Vec<String> {
    let mut found: Vec<String> = infos.iter().flat_map(|info| of(info, now_s)).collect();
    let more = found.len().saturating_sub(MAX_WARNINGS);
    if more > 0 {
        found.truncate(MAX_WARNINGS);
        found.push(format!("{more} more certificates need attention: see `mcproxyctl certificate list`"));
    }
    found
}

/// Whether it is time to repeat the warnings that were given then.
#[must_use]
pub fn is_reminder_due(warned_s: i64, now_s: i64) -> bool {
    now_s.saturating_sub(warned_s) >= REMIND_S
}

/// Writes warnings to the log.
pub fn log_warnings(warnings: &[String]) {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
}

const REMIND_S: i64 = 24 * 3600;

const MAX_WARNINGS: usize = 100;

fn of(info: &CertificateInfo, now_s: i64) -> Vec<String> {
    let Some(leaf) = &info.leaf else { return Vec::new() };
    let file = &info.file;
    let by: BTreeSet<&str> = info.shadowed.iter().map(|it| it.by.as_str()).collect();
    let by = some(&by.into_iter().collect::<Vec<_>>());
    if info.unused {
        return vec![format!(
            "Certificate {file} is not used: {by} is for the same names, is valid for longer, and has the same type of \
             key; remove {file}"
        )];
    }
    let mut found = Vec::new();
    if !info.shadowed.is_empty() {
        let names: Vec<&str> = info.shadowed.iter().map(|it| it.name.as_str()).collect();
        found.push(format!("Certificate {file} is not used for {}: {by} is valid for longer", some(&names)));
    }
    found.extend(expiry(info, leaf, now_s));
    found
}

fn expiry(info: &CertificateInfo, leaf: &Leaf, now_s: i64) -> Option<String> {
    let names: Vec<&str> = info.names.iter().map(String::as_str).collect();
    let certificate = format!("Certificate {} ({})", info.file, some(&names));
    let date = |unix_s: i64| date_text(u64::try_from(unix_s).unwrap_or(0).saturating_mul(1000));
    let (from, until) = (date(leaf.period.not_before_s), date(leaf.period.not_after_s));
    let left = leaf.period.days_left(now_s);
    match leaf.period.at(now_s) {
        Validity::Valid => None,
        Validity::ExpiresSoon => {
            Some(format!("{certificate} expires on {until}, in {}: renew it", days(left)))
        }
        Validity::Expired => {
            Some(format!("{certificate} expired on {until}, {} ago: replace it", days(-(left + 1))))
        }
        Validity::NotYetValid => {
            Some(format!("{certificate} is not valid before {from}: check it, and the machine's clock"))
        }
    }
}

fn days(count: i64) -> String {
    match count {
        0 => "less than a day".to_owned(),
        1 => "1 day".to_owned(),
        count => format!("{count} days"),
    }
}

/// The first few of a list, and how many more there are.
fn some(list: &[&str]) -> String {
    const SHOWN: usize = 3;
    let word = |text: &&str| if text.is_empty() { "clients without a name" } else { text }.to_owned();
    let shown = list.iter().take(SHOWN).map(word).collect::<Vec<_>>().join(", ");
    match list.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use mc_core::certificate::{KeyType, Period};

    use super::*;
    use crate::tls::Shadowed;

    const NOW_S: i64 = 1_800_000_000;
    const DAY_S: i64 = 86_400;

    fn info(from: i64, to: i64) -> CertificateInfo {
        let period = Period { not_before_s: NOW_S + from * DAY_S, not_after_s: NOW_S + to * DAY_S };
        let leaf = Leaf { period, key_type: KeyType::Ecdsa, key: "ECDSA 256".into(), sha256: String::new() };
        CertificateInfo {
            file: "a.pem".into(),
            names: vec!["a.example".into(), "b.example".into()],
            leaf: Some(leaf),
            problem: None,
            stapled: false,
            shadowed: Vec::new(),
            unused: false,
        }
    }

    fn check(info: CertificateInfo, expect: &[&str]) {
        assert_eq!(warnings(&[info], NOW_S), expect);
    }

    #[test]
    fn what_expires_is_named_with_its_date() {
        let names = "Certificate a.pem (a.example, b.example)";
        check(info(-30, 60), &[]);
        check(info(-350, 10), &[&format!("{names} expires on 2027-01-25, in 10 days: renew it")]);
        check(info(-90, 0), &[&format!("{names} expires on 2027-01-15, in less than a day: renew it")]);
        check(info(-90, -1), &[&format!("{names} expired on 2027-01-14, less than a day ago: replace it")]);
        check(info(-90, -3), &[&format!("{names} expired on 2027-01-12, 2 days ago: replace it")]);
        let future = format!("{names} is not valid before 2027-01-16: check it, and the machine's clock");
        check(info(1, 90), &[&future]);
    }

    #[test]
    fn what_is_shadowed_is_named_with_what_is_used() {
        let by = |name: &str| Shadowed { name: name.into(), by: "b.pem".into() };
        let expect =
            "Certificate a.pem is not used for clients without a name, a.example: b.pem is valid for longer";
        check(CertificateInfo { shadowed: vec![by(""), by("a.example")], ..info(-30, 60) }, &[expect]);
        let shadowed = vec![by("a.example"), by("b.example")];
        let unused = CertificateInfo { shadowed, unused: true, ..info(-90, -3) };
        let found = warnings(&[unused], NOW_S);
        assert!(
            found.len() == 1 && found[0].starts_with("Certificate a.pem is not used: b.pem"),
            "{found:?}"
        );
    }

    #[test]
    fn a_folder_of_expired_certificates_does_not_flood_the_log() {
        let found = warnings(&vec![info(-90, -3); 250], NOW_S);
        assert_eq!(found.len(), 101);
        assert!(found[100].starts_with("150 more certificates"), "{}", found[100]);
    }

    #[test]
    fn warnings_are_repeated_once_a_day() {
        assert!(!is_reminder_due(NOW_S, NOW_S + DAY_S - 1));
        assert!(is_reminder_due(NOW_S, NOW_S + DAY_S));
        assert!(!is_reminder_due(NOW_S, NOW_S - DAY_S), "the clock was set back");
    }
}
