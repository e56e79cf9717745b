//! Certificates that are invalid in each way, and which of them replace another.

use std::os::unix::fs::PermissionsExt as _;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use tempfile::TempDir;

use super::*;

/// A certificate for `names`, valid in these years.
fn make(names: &[&str], [from, to]: [i32; 2]) -> (String, String) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(to, 1, 1);
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn write(folder: &TempDir, (certificate, key): &(String, String)) -> Files {
    let files =
        Files { certificate: folder.path().join("server.pem"), key: folder.path().join("server.key") };
    std::fs::write(&files.certificate, certificate).unwrap();
    std::fs::write(&files.key, key).unwrap();
    std::fs::set_permissions(&files.key, std::fs::Permissions::from_mode(0o600)).unwrap();
    files
}

const VALID: [i32; 2] = [2020, 2100];
const EXPIRED: [i32; 2] = [2020, 2021];
const FUTURE: [i32; 2] = [2099, 2100];

/// 2026-01-01.
const NOW_S: i64 = 1_767_225_600;

fn found(files: &Files, host: &str) -> String {
    let problems = problems(files, Some(host), NOW_S);
    problems.iter().map(|problem| crate::chain(problem)).collect::<Vec<_>>().join("\n")
}

#[test]
fn each_problem_of_a_certificate_is_found() {
    let check = |names: &[&str], years, host: &str, expect: &str| {
        let folder = tempfile::tempdir().unwrap();
        let found = found(&write(&folder, &make(names, years)), host);
        assert!(if expect.is_empty() { found.is_empty() } else { found.contains(expect) }, "{host}: {found}");
    };
    check(&["mcias.test"], VALID, "mcias.test", "");
    check(&["mcias.test"], VALID, "MCIAS.test", "");
    check(&["mcias.test"], EXPIRED, "mcias.test", "the certificate expired at 2021-01-01T00:00:00Z");
    check(&["mcias.test"], FUTURE, "mcias.test", "is not valid before 2099-01-01T00:00:00Z");
    check(&["other.test"], VALID, "mcias.test", "is not for `mcias.test`, the host of the public URL");
    check(&["other.test"], VALID, "mcias.test", "other.test");
    // RFC 6125, section 6.4.3: a wildcard is one whole label.
    check(&["*.svc.test"], VALID, "mcias.svc.test", "");
    check(&["*.svc.test"], VALID, "a.mcias.svc.test", "is not for");
    check(&["*.svc.test"], VALID, "svc.test", "is not for");
    check(&["192.0.2.1"], VALID, "192.0.2.1", "");
    check(&["192.0.2.1"], VALID, "192.0.2.2", "is not for");
}

#[test]
fn a_certificate_that_expires_soon_is_found_two_weeks_before() {
    let folder = tempfile::tempdir().unwrap();
    let files = write(&folder, &make(&["mcias.test"], [2025, 2026]));
    let days_before = |days: i64| problems(&files, None, NOW_S - days * 24 * 3600);
    assert!(days_before(15).is_empty());
    assert!(
        matches!(&days_before(13)[..], [TlsError::ExpiresSoon { at, .. }] if at == "2026-01-01T00:00:00Z")
    );
    // The end is in the certificate's validity.
    assert!(matches!(days_before(0)[..], [TlsError::ExpiresSoon { .. }]));
}

#[test]
fn a_running_service_warns_of_expiry_once_a_day() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::system();
    let files = write(&folder, &make(&["mcias.test"], EXPIRED));
    let certificate = ServerCertificate::open(files, clock.clone()).unwrap();
    let mut state = WatchState::default();
    let mut is_due = || {
        let before = state.warned;
        certificate.warn_of_expiry(&mut state);
        state.warned != before
    };
    // The start has warned.
    assert!(!is_due());
    clock.pass(WARN_INTERVAL);
    assert!(is_due() && !is_due());
}

#[test]
fn a_pipe_or_a_device_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let files = write(&folder, &make(&["mcias.test"], VALID));
    for other in ["/dev/zero", "/dev/null"] {
        let files = Files { key: other.into(), ..files.clone() };
        assert!(found(&files, "mcias.test").contains("it is not a regular file"), "{other}");
    }
}

#[test]
fn a_key_that_does_not_fit_or_that_others_can_read_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = make(&["mcias.test"], VALID);
    let (_, other_key) = make(&["mcias.test"], VALID);
    let files = write(&folder, &(certificate.clone(), other_key));
    assert!(found(&files, "mcias.test").contains("cannot be used together"));
    write(&folder, &(certificate, key));
    for (mode, expect) in [(0o600, ""), (0o640, ""), (0o644, "(mode 0644)"), (0o602, "(mode 0602)")] {
        std::fs::set_permissions(&files.key, std::fs::Permissions::from_mode(mode)).unwrap();
        let found = found(&files, "mcias.test");
        assert!(if expect.is_empty() { found.is_empty() } else { found.contains(expect) }, "{found}");
    }
    std::fs::remove_file(&files.key).unwrap();
    assert!(found(&files, "mcias.test").contains("cannot read"));
}

fn in_use(certificate: &ServerCertificate) -> Vec<u8> {
    certificate.current.load().key.end_entity_cert().unwrap().to_vec()
}

#[test]
fn a_valid_certificate_is_replaced_only_by_a_valid_one() {
    let folder = tempfile::tempdir().unwrap();
    let files = write(&folder, &make(&["mcias.test"], VALID));
    let certificate = ServerCertificate::open(files, Clock::system()).unwrap();
    let first = in_use(&certificate);
    for years in [EXPIRED, FUTURE] {
        write(&folder, &make(&["mcias.test"], years));
        assert!(certificate.reload().is_err());
        assert_eq!(in_use(&certificate), first);
    }
    let wrong_key = (make(&["mcias.test"], VALID).0, make(&["mcias.test"], VALID).1);
    write(&folder, &wrong_key);
    assert!(certificate.reload().is_err());
    assert_eq!(in_use(&certificate), first);
    write(&folder, &make(&["mcias.test"], VALID));
    certificate.reload().unwrap();
    assert_ne!(in_use(&certificate), first);
}

#[test]
fn an_expired_certificate_is_replaced_by_whatever_can_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let files = write(&folder, &make(&["mcias.test"], EXPIRED));
    let certificate = ServerCertificate::open(files, Clock::system()).unwrap();
    let first = in_use(&certificate);
    write(&folder, &make(&["mcias.test"], FUTURE));
    certificate.reload().unwrap();
    assert_ne!(in_use(&certificate), first);
}

#[test]
fn a_failed_reload_is_counted_once_and_not_while_files_change() {
    let folder = tempfile::tempdir().unwrap();
    let files = write(&folder, &make(&["mcias.test"], VALID));
    let certificate = ServerCertificate::open(files, Clock::system()).unwrap();
    let failures = || certificate.reload_failures.load(Ordering::Relaxed);
    let mut state = WatchState::default();
    let new = make(&["mcias.test"], VALID);
    // The certificate is there and its key is not yet.
    std::fs::write(&certificate.files.certificate, &new.0).unwrap();
    certificate.reload_if_changed(&mut state);
    write(&folder, &new);
    certificate.reload_if_changed(&mut state);
    assert_eq!(failures(), 0);
    let first = in_use(&certificate);
    write(&folder, &make(&["mcias.test"], EXPIRED));
    for _ in 0..4 {
        certificate.reload_if_changed(&mut state);
    }
    assert_eq!((failures(), in_use(&certificate) == first), (1, true));
    let mut page = Page::default();
    certificate.write_metrics(&mut page);
    assert!(page.text.contains("\ntls_certificate_reload_failures_total 1\n"), "{}", page.text);
    assert!(page.text.contains("\ntls_certificate_not_after_seconds 4102444800\n"), "{}", page.text);
}
