//! The machine's clock jumps forward and back: what expired stays expired, codes work once, the audit log stays intact.

use std::time::Duration;

use serde_json::{Value, json};

use crate::local::{Local, PASSWORD, text};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

#[test]
fn sessions_and_tokens_expire() {
    let mcias = Local::start();
    let admin = mcias.login("ada");
    let service = mcias.service(&admin, "mcr");
    assert_eq!(mcias.introspect(&service, &admin).body["active"], json!(true));
    mcias.clock.jump(12 * HOUR - 10);
    assert_eq!(mcias.introspect(&service, &admin).body["active"], json!(true));
    mcias.clock.jump(10);
    assert_eq!(mcias.introspect(&service, &admin).body["active"], json!(false));
    let refused = mcias.ask("GET", "/v1/me", &admin, &Value::Null);
    assert_eq!((refused.status, refused.reason()), (401, "unauthenticated"), "{refused:?}");
    mcias.clock.jump(365 * DAY - 12 * HOUR - 60);
    assert_eq!(mcias.introspect(&service, &admin).status, 200);
    mcias.clock.jump(60);
    assert_eq!(mcias.introspect(&service, &admin).status, 401);
    let admin = mcias.login("ada");
    mcias.verified(&admin);
}

#[test]
fn a_link_expires_after_a_day() {
    let mcias = Local::start();
    let admin = mcias.login("ada");
    let bob = json!({ "name": "bob", "account_type": "human" });
    assert_eq!(mcias.ask("POST", "/v1/accounts", &admin, &bob).status, 201);
    let link = mcias.ask("POST", "/v1/accounts/bob/link", &admin, &Value::Null).body;
    let secret = link["url"].as_str().unwrap().rsplit('#').next().unwrap().to_owned();
    let look = || mcias.ask("POST", "/v1/link", "", &json!({ "secret": secret })).status;
    mcias.clock.jump(DAY - 10);
    assert_eq!(look(), 200);
    mcias.clock.jump(10);
    assert_eq!(look(), 404);
}

#[test]
fn a_clock_set_back_suspends_tokens_until_it_is_right_again() {
    let mcias = Local::start();
    let admin = mcias.login("ada");
    let service = mcias.service(&admin, "mcr");
    let before = mcias.verified(&admin);
    // Clocks may differ by a minute.
    mcias.clock.jump(-50);
    assert_eq!(mcias.introspect(&service, &admin).body["active"], json!(true));
    mcias.clock.jump(-HOUR);
    for token in [&admin, &service] {
        let refused = mcias.ask("GET", "/v1/me", token, &Value::Null);
        assert_eq!(refused.status, 401, "{refused:?}");
        assert!(refused.body["detail"].as_str().unwrap().contains("not-yet-valid"), "{refused:?}");
    }
    // A new login works, and the audit log goes on.
    let early = mcias.login("ada");
    mcias.done("POST", "/v1/accounts", &early, &json!({ "name": "eve", "account_type": "human" }));
    assert!(mcias.verified(&early) > before);
    mcias.clock.jump(HOUR + 50);
    for token in [&admin, &early] {
        assert_eq!(mcias.introspect(&service, token).body["active"], json!(true));
    }
    mcias.verified(&admin);
}

#[test]
fn a_revocation_while_the_clock_is_wrong_lasts() {
    let mcias = Local::start();
    let admin = mcias.login("ada");
    let (service, doomed) = (mcias.service(&admin, "mcr"), mcias.service(&admin, "mcp"));
    mcias.person(&admin, "bob", &["user"]);
    let bob = mcias.login("bob");
    let bobs = mcias.done("GET", "/v1/accounts/bob/sessions", &admin, &Value::Null);
    let path = format!("/v1/accounts/bob/sessions/{}", text(&bobs["sessions"][0]["id"]));
    let tokens = mcias.done("GET", "/v1/accounts/mcp/tokens", &admin, &Value::Null);
    let token = format!("/v1/accounts/mcp/tokens/{}", text(&tokens["tokens"][0]["id"]));
    // Both have expired, by this clock.
    mcias.clock.jump(400 * DAY);
    let late = mcias.login("ada");
    mcias.done("DELETE", &token, &late, &Value::Null);
    mcias.done("DELETE", &path, &late, &Value::Null);
    mcias.clock.jump(-400 * DAY);
    assert_eq!(mcias.introspect(&service, &doomed).body["active"], json!(false));
    assert_eq!(mcias.introspect(&service, &bob).body["active"], json!(false));
    mcias.person(&admin, "eve", &["user"]);
    let eve = mcias.login("eve");
    mcias.clock.jump(400 * DAY);
    let late = mcias.login("ada");
    mcias.edited(&late, "eve", &json!({ "enabled": false }));
    mcias.edited(&late, "eve", &json!({ "enabled": true }));
    mcias.clock.jump(-400 * DAY);
    assert_eq!(mcias.introspect(&service, &eve).body["active"], json!(false));
}

#[test]
fn a_code_works_once_even_if_the_clock_jumps() {
    let mcias = Local::start();
    let admin = mcias.login("ada");
    let (secret, _) = mcias.second_factor(&admin);
    let code = || secret.code((mcias.clock.unix_s() / 30).unsigned_abs()).expose().to_owned();
    let login = |code: &str| {
        let body = json!({ "username": "ada", "password": PASSWORD, "totp": code });
        mcias.ask("POST", "/v1/login", "", &body)
    };
    mcias.clock.jump(300);
    let used = code();
    assert_eq!(login(&used).status, 200);
    assert_eq!(login(&used).reason(), "used-code");
    // The code of an hour ago belongs to a step that is past.
    mcias.clock.jump(-HOUR);
    assert_eq!(login(&code()).reason(), "used-code");
    mcias.clock.jump(HOUR);
    assert_eq!(login(&used).reason(), "used-code");
    mcias.clock.jump(60);
    assert_eq!(login(&code()).status, 200);
}

#[test]
fn a_login_in_the_future_is_not_fresh() {
    let mcias = Local::start();
    let admin = mcias.login("ada");
    let begin = || mcias.ask("POST", "/v1/me/totp/begin", &admin, &Value::Null);
    assert_eq!(begin().status, 200);
    mcias.clock.jump(-30);
    assert_eq!(begin().reason(), "fresh-login-required");
    mcias.clock.jump(30);
    assert_eq!(begin().status, 200);
    mcias.clock.jump(15 * 60 + 1);
    assert_eq!(begin().reason(), "fresh-login-required");
}

#[test]
fn nothing_is_deleted_by_a_wrong_clock() {
    let mcias = Local::start();
    let admin = mcias.login("ada");
    let service = mcias.service(&admin, "mcr");
    // A machine that starts with a clock years ahead, until a time server corrects it.
    mcias.clock.jump(3 * 365 * DAY);
    mcias.sweep();
    mcias.clock.pass(Duration::from_secs(3600));
    mcias.sweep();
    mcias.clock.jump(-3 * 365 * DAY);
    mcias.sweep();
    assert_eq!(mcias.introspect(&service, &admin).body["active"], json!(true));
    // With a steady clock, what expired a month ago is deleted, and nothing else.
    let tokens = |token: &str| {
        let listed = mcias.done("GET", "/v1/accounts/mcr/tokens", token, &Value::Null);
        listed["tokens"].as_array().unwrap().iter().map(|token| text(&token["label"])).collect::<Vec<_>>()
    };
    let short = json!({ "label": "short", "lifetime_seconds": 60 });
    mcias.done("POST", "/v1/accounts/mcr/tokens", &mcias.login("ada"), &short);
    for (days, expect) in [(29, vec!["short", "first"]), (2, vec!["first"])] {
        mcias.clock.pass(Duration::from_secs(days * 24 * 3600));
        mcias.sweep();
        assert_eq!(tokens(&mcias.login("ada")), expect);
    }
    assert_eq!(mcias.introspect(&service, &mcias.login("ada")).body["active"], json!(true));
}

#[test]
fn many_sources_together_cannot_guess_a_second_factor() {
    let mcias = Local::start();
    let admin = mcias.login("ada");
    let (secret, codes) = mcias.second_factor(&admin);
    let step = || (mcias.clock.unix_s() / 30).unsigned_abs();
    let code = || secret.code(step()).expose().to_owned();
    mcias.clock.pass(Duration::from_secs(60));
    let wrong = || {
        let near = [step() - 1, step(), step() + 1].map(|step| secret.code(step).expose().to_owned());
        (0..).map(|n| format!("{n:06}")).find(|code| !near.contains(code)).unwrap()
    };
    let login = |last: u8, key: &str, code: &str| {
        let body = json!({ "username": "ada", "password": PASSWORD, key: code });
        mcias.ask_from([198, 51, 100, last], "POST", "/v1/login", "", &body)
    };
    for (last, delay_s) in [0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32].into_iter().enumerate() {
        mcias.clock.pass(Duration::from_secs(delay_s));
        assert_eq!(login(u8::try_from(last).unwrap(), "totp", &wrong()).reason(), "wrong-code");
    }
    // Right or wrong codes, from any address; and no code is used up.
    for (last, code) in [(50, wrong()), (51, code())] {
        let refused = login(last, "totp", &code);
        assert_eq!((refused.status, refused.reason()), (429, "too-many-attempts"));
    }
    assert_eq!(
        mcias.ask("POST", "/v1/login", "", &json!({ "username": "ada", "password": PASSWORD })).reason(),
        "second-factor-required"
    );
    assert_eq!(login(52, "recovery_code", &codes[0]).status, 200);
    mcias.clock.pass(Duration::from_secs(64));
    assert_eq!(login(53, "totp", &code()).status, 200);
}

#[test]
fn what_an_admin_changes_for_good_needs_a_fresh_login() {
    let mcias = Local::start();
    let admin = mcias.login("ada");
    mcias.person(&admin, "bob", &["user"]);
    let key = text(&mcias.done("GET", "/v1/keys", &admin, &Value::Null)["keys"][0]["id"]);
    drop(mcias.service(&admin, "mcr"));
    let tokens = mcias.done("GET", "/v1/accounts/mcr/tokens", &admin, &Value::Null);
    let token = text(&tokens["tokens"][0]["id"]);
    mcias.clock.pass(Duration::from_secs(16 * 60));
    for (method, path, body) in [
        ("POST", "/v1/accounts/ada/link", Value::Null),
        ("POST", "/v1/accounts/bob/reset-factors", Value::Null),
        (
            "PUT",
            "/v1/accounts/bob",
            json!({ "enabled": true, "roles": ["admin"], "tags": [], "revision": 1 }),
        ),
        ("PUT", "/v1/accounts/bob", json!({ "enabled": true, "roles": [], "tags": [], "revision": 1 })),
        ("POST", "/v1/accounts", json!({ "name": "eve", "account_type": "human" })),
        ("DELETE", "/v1/accounts/bob", Value::Null),
        ("DELETE", "/v1/deleted-accounts/bob", Value::Null),
        ("POST", "/v1/accounts/mcr/tokens", json!({ "label": "x", "lifetime_seconds": 315_360_000 })),
        ("PUT", "/v1/policy", json!({ "default": "deny", "rules": [], "revision": 1 })),
        ("POST", "/v1/keys/rotate", Value::Null),
        ("DELETE", &format!("/v1/keys/{key}"), Value::Null),
    ] {
        let refused = mcias.ask(method, path, &admin, &body);
        assert_eq!((refused.status, refused.reason()), (403, "fresh-login-required"), "{method} {path}");
    }
    // What takes something from an intruder does not wait.
    mcias.done("DELETE", "/v1/accounts/bob/sessions", &admin, &Value::Null);
    mcias.done("DELETE", &format!("/v1/accounts/mcr/tokens/{token}"), &admin, &Value::Null);
    mcias.done("POST", "/v1/policy/check", &admin, &json!({ "default": "allow", "rules": [] }));
}

#[test]
fn throttling_is_not_affected_by_clock_jumps() {
    let mcias = Local::start();
    let guess = || {
        let body = json!({ "username": "ada", "password": "wrong" });
        mcias.ask_from([198, 51, 100, 7], "POST", "/v1/login", "", &body).status
    };
    for delay_s in [0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32] {
        mcias.clock.pass(Duration::from_secs(delay_s));
        assert_eq!(guess(), 401);
    }
    assert_eq!(guess(), 429);
    for jump in [DAY, -2 * DAY, 400 * DAY] {
        mcias.clock.jump(jump);
        assert_eq!(guess(), 429, "after a jump of {jump} s");
    }
    let admin = mcias.login("ada");
    mcias.verified(&admin);
}
