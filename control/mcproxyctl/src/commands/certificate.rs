//! Certificates of routes that terminate TLS.

use mc_api::mcproxy::client::Client;
use mc_api::mcproxy::{CertificateState, ListCertificatesRequest, ReloadCertificatesRequest, ShadowedName};
use mcdsl::ctl::{Printer, table};
use mcdsl::terminal::or_dash;
use serde_json::json;

use crate::cli::Certificate;
use crate::error::Error;

pub(super) async fn run(
    command: Certificate,
    client: &mut Client,
    printer: &mut Printer<'_>,
) -> Result<(), Error> {
    match command {
        Certificate::List => {
            let reply = client.list_certificates(ListCertificatesRequest {}).await?.into_inner();
            Ok(printer.print(|| json!(reply.certificates), || certificates_table(&reply.certificates))?)
        }
        Certificate::Reload => {
            let reply = client.reload_certificates(ReloadCertificatesRequest {}).await?.into_inner();
            let text = || {
                let warnings: String = reply.warnings.iter().map(|it| format!("warning: {it}\n")).collect();
                format!("{warnings}{} files are in use\n", reply.files)
            };
            printer.print(|| json!(reply), text)?;
            if reply.problems.is_empty() { Ok(()) } else { Err(Error::Broken(reply.problems)) }
        }
    }
}

fn certificates_table(certificates: &[CertificateState]) -> String {
    let rows = certificates.iter().map(|it| {
        let was_read = !it.validity.is_empty();
        let if_read = |text: String| if was_read { text } else { "-".to_owned() };
        vec![
            it.file.clone(),
            or_dash(&it.names.join(" ")),
            if_read(day(it.not_before_s)),
            if_read(day(it.not_after_s)),
            if_read(it.days_left.to_string()),
            or_dash(&it.validity.replace('_', " ")),
            or_dash(&it.key),
            if it.stapled { "yes" } else { "no" }.to_owned(),
            or_dash(&shadowed(&it.shadowed)),
            or_dash(&it.sha256),
            or_dash(&it.problem),
        ]
    });
    let head = [
        "FILE",
        "NAMES",
        "NOT BEFORE",
        "NOT AFTER",
        "DAYS LEFT",
        "VALIDITY",
        "KEY",
        "STAPLED",
        "SHADOWED",
        "SHA-256",
        "PROBLEM",
    ];
    table(&head, &rows.collect::<Vec<_>>())
}

/// Names and the files that are used for them.
fn shadowed(names: &[ShadowedName]) -> String {
    let word = |it: &ShadowedName| {
        let name = if it.name.is_empty() { "(no name)" } else { &it.name };
        format!("{name} by {}", it.by)
    };
    names.iter().map(word).collect::<Vec<_>>().join(", ")
}

/// The day of a Unix time, in UTC (proleptic Gregorian, by Howard Hinnant's `civil_from_days`).
fn day(unix_s: i64) -> String {
    let z = unix_s.div_euclid(86_400) + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        let days = [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (1_785_542_399, "2026-07-31"),
            (-1, "1969-12-31"),
        ];
        for (unix_s, expect) in days {
            assert_eq!(day(unix_s), expect);
        }
    }
}
