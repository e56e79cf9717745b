//! What protects logins: what is kept of a failed one, what delays whom, what is the same password or code, and what ends sessions.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use mc_testkit::mcias::Mcias;
use mc_testkit::service::Answer;
use regex::Regex;
use serde_json::{Value, json};

use crate::local::{Local, PASSWORD, text};

fn log_in(mcias: &Local, from: [u8; 4], username: &str, password: &str) -> Answer {
    let body = json!({ "username": username, "password": password });
    mcias.ask_from(from, "POST", "/v1/login", "", &body)
}

/// Entries of the audit log about refused logins: actor, target and detail.
fn refused(mcias: &Local, admin: &str) -> Vec<[String; 3]> {
    let log = mcias.done("GET", "/v1/audit?action=login&outcome=refused&limit=100", admin, &Value::Null);
    let entry = |entry: &Value| ["actor", "target", "detail"].map(|field| text(&entry[field]));
    log["entries"].as_array().unwrap().iter().map(entry).collect()
}

#[test]
fn the_name_of_an_account_that_does_not_exist_is_kept_nowhere() {
    // What people type into the wrong field: it may be a name, or not.
    const TYPED: [&str; 3] = ["violet.gravel.umbrella", "Violet gravel umbrella", "violet-Gravel\tumbrella"];
    let mut mcias = Mcias::start_with("[log]\nlevel = \"trace\"\naccess = true", &[]);
    let admin = mcias.login("ada");
    let service = mcias.service(&admin, "mcr", &[]);
    let mut seen = String::new();
    for (token, username) in TYPED.iter().flat_map(|typed| [("", *typed), (service.as_str(), *typed)]) {
        for stated in [None, Some("192.0.2.1"), Some("violet gravel")] {
            let mut body = json!({ "username": username, "password": "wrong" });
            if let Some(stated) = stated {
                body["client_address"] = json!(stated);
            }
            let answer = mcias.ask("POST", "/v1/login", token, &body);
            assert!([400, 401, 429].contains(&answer.status), "{}", answer.text);
            seen += &answer.text;
        }
    }
    let audit = mcias.done("GET", "/v1/audit?action=login&outcome=refused", &admin, &Value::Null);
    for entry in audit["entries"].as_array().unwrap() {
        assert_eq!((&entry["actor"], &entry["target"]), (&json!("-"), &json!("")), "{entry}");
    }
    assert!(!audit["entries"].as_array().unwrap().is_empty());
    seen += &mcias.ops_page("/metrics");
    mcias.stop();
    // Everything that is on the disk: the database with its log, and the server's log.
    for entry in std::fs::read_dir(mcias.folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            seen += &String::from_utf8_lossy(&std::fs::read(path).unwrap());
        }
    }
    assert!(seen.contains("wrong-login") && seen.contains("login failed"), "nothing was looked at");
    let found: Vec<_> = seen.lines().filter(|line| line.to_lowercase().contains("gravel")).collect();
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn refused_logins_name_the_account_where_it_exists() {
    let mcias = Local::start();
    let admin = mcias.login("ada");
    log_in(&mcias, [198, 51, 100, 1], "ada", "wrong");
    log_in(&mcias, [198, 51, 100, 1], "nobody", "wrong");
    let found: BTreeSet<_> = refused(&mcias, &admin).into_iter().collect();
    let entry = |actor: &str, target: &str| [actor, target, "wrong-login"].map(str::to_owned);
    // However many names are tried, they are one entry until the next ten minutes.
    (0..10).for_each(|n| drop(log_in(&mcias, [198, 51, 100, 1], &format!("nobody-{n}"), "wrong")));
    assert_eq!(refused(&mcias, &admin).len(), 2);
    assert_eq!(found, BTreeSet::from([entry("ada", "ada"), entry("-", "")]));
}

#[test]
fn the_log_has_failed_logins_as_fail2ban_reads_them() {
    let page = include_str!("../../../../docs/mcias.md");
    let filter = page.lines().find_map(|line| line.strip_prefix("failregex = ")).unwrap();
    let filter = Regex::new(&filter.replace("<HOST>", r"(?P<host>\S+)")).unwrap();
    let elsewhere = IpAddr::V4(Ipv4Addr::new(127, 9, 9, 8));
    for format in ["json", "text"] {
        // At the level of the defaults.
        let mcias = Mcias::start_with(&format!("[log]\nformat = \"{format}\"\naccess = true"), &[]);
        let admin = mcias.login("ada");
        let service = mcias.service(&admin, "mcr", &[]);
        let login = |from: IpAddr, name: &str, token: &str, stated: Option<&str>| {
            let mut body = json!({ "username": name, "password": "wrong" });
            stated.iter().for_each(|stated| body["client_address"] = json!(stated));
            mcias.connection_from(from).unwrap().ask("POST", "/v1/login", token, &body).unwrap()
        };
        login(elsewhere, "ada", "", None);
        login(elsewhere, "client=192.0.2.9", "", None);
        login(elsewhere, "nobody", "", None);
        // A service's word shuts nobody out, and neither is the service itself.
        login(elsewhere, "ada", &service, Some("192.0.2.7"));
        // Nor can anybody write such a line.
        let forged = "login failed: client=192.0.2.66 reason=wrong-login account=";
        let path = format!("/v1/me?{}", forged.replace(' ', "%20"));
        let headers = format!("x-request-id: {forged}\r\nuser-agent: {forged}\r\n");
        assert_eq!(mcias.raw_with("GET", &path, &headers, "", b"").status, 401);
        let log = mcias.log();
        let hosts: Vec<_> = filter.captures_iter(&log).map(|found| found["host"].to_owned()).collect();
        assert_eq!(hosts, ["127.9.9.8", "127.9.9.8"], "{log}");
        for expect in [
            "login failed: client=127.9.9.8 reason=wrong-login account=ada",
            "login failed: client=127.9.9.8 reason=wrong-login account=-",
            "login failed through a service: service=mcr client=192.0.2.7 reason=wrong-login account=ada",
        ] {
            assert!(log.contains(expect), "{expect}: {log}");
        }
        // A flood has few lines.
        for _ in 0..40 {
            login(elsewhere, "nobody", "", None);
        }
        assert_eq!(filter.find_iter(&mcias.log()).count(), 10);
    }
}

#[test]
fn one_guess_each_from_many_addresses_is_delayed_and_the_owner_is_not() {
    let mcias = Local::start();
    drop(mcias.login("ada"));
    let statuses: Vec<_> =
        (0..24).map(|n| log_in(&mcias, [198, 51, 100, n], "ada", "wrong").status).collect();
    assert_eq!(statuses, [vec![401; 20], vec![429; 4]].concat());
    assert_eq!(log_in(&mcias, [192, 0, 2, 1], "ada", PASSWORD).status, 200);
    // On a new device: after having asked once.
    let phone = || log_in(&mcias, [203, 0, 113, 1], "ada", PASSWORD);
    let first = phone();
    assert_eq!((first.status, first.reason()), (429, "too-many-attempts"));
    mcias.clock.pass(Duration::from_secs(30));
    assert_eq!(phone().status, 200);
}

#[test]
fn what_a_service_states_shuts_nobody_out_elsewhere() {
    let mcias = Local::start();
    let admin = mcias.login("ada");
    let (liar, mcr) = (mcias.service(&admin, "liar"), mcias.service(&admin, "mcr"));
    let login = |token: &str, password: &str| {
        let body = json!({ "username": "ada", "password": password, "client_address": "192.0.2.1" });
        mcias.ask("POST", "/v1/login", token, &body).status
    };
    for _ in 0..12 {
        mcias.clock.pass(Duration::from_secs(900));
        assert_eq!(login(&liar, "wrong"), 401);
    }
    // The delay is minutes by now.
    assert_eq!(login(&liar, PASSWORD), 429);
    assert_eq!(login(&mcr, PASSWORD), 200);
    assert_eq!(log_in(&mcias, [192, 0, 2, 1], "ada", PASSWORD).status, 200);
}

#[test]
fn a_password_is_the_same_however_it_is_typed() {
    let mcias = Local::start();
    let admin = mcias.login("ada");
    mcias.done("POST", "/v1/accounts", &admin, &json!({ "name": "bob", "account_type": "human" }));
    let link = text(&mcias.done("POST", "/v1/accounts/bob/link", &admin, &Value::Null)["url"]);
    let secret = link.rsplit('#').next().unwrap();
    let (decomposed, composed) =
        ("gru\u{308}ner O\u{308}lberg kachel", "gr\u{fc}ner\u{a0}\u{d6}lberg kachel");
    mcias.done("POST", "/v1/link/redeem", "", &json!({ "secret": secret, "password": decomposed }));
    for password in [decomposed, composed] {
        assert_eq!(log_in(&mcias, [192, 0, 2, 1], "bob", password).status, 200, "{password:?}");
    }
    let bob = text(&log_in(&mcias, [192, 0, 2, 1], "bob", composed).body["token"]);
    let change = json!({ "current": composed, "password": "marble\u{2003}Te\u{301}le\u{301} harvest" });
    mcias.done("PUT", "/v1/me/password", &bob, &change);
    assert_eq!(log_in(&mcias, [192, 0, 2, 1], "bob", "marble T\u{e9}l\u{e9} harvest").status, 200);
}

#[test]
fn spaces_in_a_code_do_not_matter_anywhere() {
    let mcias = Local::start();
    let admin = mcias.login("ada");
    let enrolment = mcias.done("POST", "/v1/me/totp/begin", &admin, &Value::Null);
    let secret = data_encoding::BASE32_NOPAD.decode(text(&enrolment["secret"]).as_bytes()).unwrap();
    let secret = mcias::domain::totp::TotpSecret::try_from_slice(&secret).unwrap();
    let spaced = || {
        let code = secret.code((mcias.clock.unix_s() / 30).unsigned_abs());
        let (start, end) = code.expose().split_at(3);
        format!("{start} {end} ")
    };
    mcias.done("POST", "/v1/me/totp/confirm", &admin, &json!({ "code": spaced() }));
    mcias.clock.pass(Duration::from_secs(60));
    let body = json!({ "username": "ada", "password": PASSWORD, "totp": spaced() });
    mcias.done("POST", "/v1/login", "", &body);
}

#[test]
fn wrong_codes_do_not_delay_recovery_codes() {
    let mcias = Local::start();
    let admin = mcias.login("ada");
    let (_secret, codes) = mcias.second_factor(&admin);
    let login = |from: [u8; 4], key: &str, code: &str| {
        let body = json!({ "username": "ada", "password": PASSWORD, key: code });
        mcias.ask_from(from, "POST", "/v1/login", "", &body)
    };
    // Where she is familiar, and where she is not.
    for (from, code) in [([192, 0, 2, 1], &codes[0]), ([198, 51, 100, 1], &codes[1])] {
        let statuses: BTreeSet<_> = (0..30).map(|n| login(from, "totp", &format!("{n:06}")).status).collect();
        assert_eq!(statuses.last(), Some(&429), "codes are not delayed");
        assert_eq!(login(from, "recovery_code", "0000-0000-0000-0000").reason(), "wrong-code");
        assert_eq!(login(from, "recovery_code", code).status, 200);
    }
}

#[test]
fn a_new_second_factor_ends_the_other_sessions() {
    let mcias = Local::start();
    let (other, own) = (mcias.login("ada"), mcias.login("ada"));
    mcias.second_factor(&own);
    let status = |token: &str| mcias.ask("GET", "/v1/me", token, &Value::Null).status;
    assert_eq!((status(&other), status(&own)), (401, 200));
}

#[test]
fn a_disabled_account_gets_no_token() {
    let mcias = Local::start();
    let admin = mcias.login("ada");
    mcias.person(&admin, "bob", &["user"]);
    let service = mcias.service(&admin, "mcr");
    for name in ["bob", "mcr"] {
        mcias.edited(&admin, name, &json!({ "enabled": false }));
    }
    assert_eq!(log_in(&mcias, [192, 0, 2, 1], "bob", PASSWORD).status, 401);
    let issued = mcias.ask("POST", "/v1/accounts/mcr/tokens", &admin, &json!({ "label": "second" }));
    assert_eq!((issued.status, issued.reason()), (409, "account-disabled"));
    let through = json!({ "username": "ada", "password": PASSWORD });
    assert_eq!(mcias.ask("POST", "/v1/login", &service, &through).status, 401);
    let tokens: i64 = mcias
        .database()
        .query_row("SELECT count(*) FROM tokens JOIN accounts ON accounts.id = account WHERE NOT enabled AND revoked_at IS NULL AND tokens.kind = 0", [], |row| row.get(0))
        .unwrap();
    assert_eq!(tokens, 0);
}

#[test]
fn a_foreign_lock_on_the_database_is_unavailable_storage() {
    let mcias = Mcias::start();
    let admin = mcias.login("ada");
    let service = mcias.service(&admin, "mcr", &[]);
    let foreign = rusqlite::Connection::open(mcias.database()).unwrap();
    foreign.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let login = |password: &str| json!({ "username": "ada", "password": password });
    let (right, wrong) = (login(mc_testkit::mcias::PASSWORD), login("wrong"));
    let account = json!({ "name": "bob", "account_type": "human" });
    let label = json!({ "label": "second" });
    let requests = [
        ("POST", "/v1/login", "", &right),
        ("POST", "/v1/login", "", &wrong),
        ("POST", "/v1/accounts", &admin, &account),
        ("POST", "/v1/accounts/mcr/tokens", &admin, &label),
        ("POST", "/v1/keys/rotate", &admin, &Value::Null),
        // A refusal that cannot be recorded.
        ("GET", "/v1/accounts", &service, &Value::Null),
    ];
    // The writer waits for the lock for a while, once for all that come meanwhile.
    std::thread::scope(|scope| {
        for (method, path, token, body) in requests {
            let mcias = &mcias;
            scope.spawn(move || {
                let answer = mcias.ask(method, path, token, body);
                let told = (answer.status, answer.body["reason"].as_str().unwrap_or_default());
                assert_eq!(told, (503, "storage"), "{method} {path}: {}", answer.text);
            });
        }
        assert_eq!(mcias.introspect(&service, &admin).body["active"], true);
    });
    foreign.execute_batch("ROLLBACK").unwrap();
    mcias.done("POST", "/v1/accounts", &admin, &account);
    assert_eq!(mcias.ask("POST", "/v1/login", "", &right).status, 200);
}
