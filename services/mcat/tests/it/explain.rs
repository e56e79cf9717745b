//! Decisions, claims, comparisons and drafts by REST; MCIAS down; and input that is hostile.

use mc_testkit::clock;
use serde_json::{Value, json};

use crate::site::{RULE, Site, guests_stay_out};

#[test]
fn a_guest_sees_the_rule_that_denies_and_what_would_change_it() {
    let site = Site::start();
    let bob = site.login("bob");
    let told = site.explain(&bob, &json!({ "service": "mcr" })).body;
    assert_eq!((&told["account"], &told["roles"]), (&json!("bob"), &json!(["guest"])));
    let decision = &told["decisions"]["in_force"];
    assert_eq!((&decision["effect"], &decision["deciding_rule"]["name"]), (&json!("deny"), &json!(RULE)));
    let claims: Value = serde_json::from_str(told["claims"].as_str().unwrap()).unwrap();
    assert_eq!((&claims["preferred_username"], &claims["aud"]), (&json!("bob"), &json!(["mcat"])));
    assert_eq!((&told["other"], &told["decisions"]["draft"]), (&Value::Null, &Value::Null));
    // Under other tags, under none, and under a draft.
    let draft = json!({ "default": "deny", "rules": [] });
    let body = json!({
        "service": "mcr", "registered_tags": false, "draft": draft,
        "other": { "service": "mcr", "service_tags": ["prod", "eu"] },
    });
    let told = site.explain(&bob, &body).body;
    let effect = |which: &str, policy: &str| told[which][policy]["effect"].as_str().unwrap().to_owned();
    assert_eq!(
        (effect("decisions", "in_force"), effect("decisions", "draft")),
        ("allow".into(), "deny".into())
    );
    assert_eq!((effect("other", "in_force"), effect("other", "draft")), ("deny".into(), "deny".into()));
    assert_eq!(told["other"]["in_force"]["deciding_rule"]["name"], RULE);
    assert_eq!(told["decisions"]["draft"]["decided_by"], "default");
    // Nothing was changed, and no token is in a log.
    assert_eq!(site.mcias.introspect(&site.service, &bob).body["active"], true);
    let log = site.mcat.log();
    assert!(log.contains("/v1/explain"), "the requests are logged: {log}");
    assert!(
        !log.contains(&bob) && !log.contains(&site.service) && !log.contains(bob.split('.').nth(1).unwrap())
    );
}

#[test]
fn an_admin_sees_the_logins_that_a_draft_would_have_denied_and_others_do_not() {
    let site = Site::start();
    let (admin, bob) = (site.login("ada"), site.login("bob"));
    drop(site.login("bob"));
    let no_bob = json!({ "name": "no-bob", "priority": 1, "effect": "deny", "accounts": ["bob"], "resources": ["mcat"] });
    let check = |token: &str, rules: &Value| {
        let body = json!({ "draft": { "default": "allow", "rules": rules } });
        site.mcat.ask("POST", "/v1/drafts/check", token, &body)
    };
    let told = check(&admin, &json!([no_bob, guests_stay_out()])).body["check"].clone();
    assert_eq!(told["recent_uses_denied"], 2, "{told}");
    let change = &told["changes"][0];
    assert_eq!(
        (&change["account"], &change["resource"], &change["after"]),
        (&json!("bob"), &json!("mcat"), &json!("deny"))
    );
    let wrong = json!([{ "name": "x", "priority": 1, "effect": "perhaps" }]);
    assert_eq!(check(&admin, &wrong).text_of("field"), "draft.rules[0].effect");
    // The refusals of one account are one line of the log.
    for _ in 0..5 {
        assert_eq!(check(&bob, &json!([])).status, 403);
    }
    let log = site.mcat.log();
    let refused: Vec<_> = log.lines().filter(|line| line.contains("draft.check")).collect();
    assert!(refused.len() == 1 && refused[0].contains("bob"), "{refused:?}");
}

#[test]
fn without_mcias_nobody_is_admitted_until_it_is_back() {
    let site = Site::start();
    let bob = site.login("bob");
    let explain = |site: &Site| site.explain(&bob, &json!({ "service": "mcr" }));
    assert_eq!(explain(&site).status, 200);
    assert!(site.mcat.ops_page("/readyz").contains("200 OK"));
    site.mcias.pause();
    // Who is known already is admitted, and the question itself fails.
    let answer = explain(&site);
    assert_eq!((answer.status, answer.text_of("reason").as_str()), (503, "identity-unavailable"));
    let stranger = site.explain("a.b.c", &json!({ "service": "mcr" }));
    assert_eq!((stranger.status, stranger.text_of("reason").as_str()), (503, "identity-unavailable"));
    let page = site.mcat.raw_with(
        "GET",
        "/",
        &format!("cookie: __Host-session={bob}x\r\naccept: text/html\r\n"),
        "",
        b"",
    );
    assert!(page.status == 503 && page.text.contains("Temporarily unavailable"), "{}", page.text);
    assert!(site.mcat.ops_page("/readyz").contains("503"));
    assert!(site.mcat.ops_page("/healthz").contains("200 OK"));
    site.mcias.resume();
    clock::wait_until("MCAT is ready again", || site.mcat.ops_page("/readyz").contains("200 OK"));
    assert_eq!(explain(&site).status, 200);
}

#[test]
fn a_session_that_ended_and_a_mcat_that_may_not_ask_are_said() {
    let site = Site::start();
    let bob = site.login("bob");
    let explain = || site.explain(&bob, &json!({ "service": "mcr" }));
    assert_eq!(explain().status, 200);
    site.mcias.edited(&site.admin, "mcat", &json!({ "tags": [] }));
    let answer = explain();
    assert!(answer.status == 403 && answer.text.contains("login-tester"), "{}", answer.text);
    site.mcias.edited(&site.admin, "mcat", &json!({ "tags": ["login-tester"] }));
    site.mcias.done("DELETE", "/v1/accounts/bob/sessions", &site.admin, &Value::Null);
    // MCAT still remembers who it is; MCIAS knows better.
    let answer = explain();
    assert_eq!(
        (answer.status, answer.text_of("reason").as_str()),
        (401, "unauthenticated"),
        "{}",
        answer.text
    );
}

#[test]
fn wrong_input_is_refused_with_its_field() {
    let site = Site::start();
    let bob = site.login("bob");
    let many: Vec<_> =
        (0..10_001).map(|at| json!({ "name": format!("r{at}"), "priority": 1, "effect": "deny" })).collect();
    for (body, field) in [
        (json!({ "service": "" }), "service"),
        (json!({ "service": "mcr", "service_tags": ["ok", "A"] }), "service_tags[1]"),
        (json!({ "service": "mcr", "other": { "service": "" } }), "other.service"),
        (
            json!({ "service": "mcr", "other": { "service": "mcr", "service_tags": ["A"] } }),
            "other.service_tags[0]",
        ),
        (json!({ "service": "mcr", "draft": { "default": "x", "rules": [] } }), "draft.default"),
        (
            json!({ "service": "mcr", "draft": { "default": "deny", "rules": [{ "name": "", "priority": 1, "effect": "deny" }] } }),
            "draft.rules[0].name",
        ),
        (json!({ "service": "mcr", "draft": { "default": "deny", "rules": many } }), "draft.rules"),
    ] {
        let answer = site.explain(&bob, &body);
        assert_eq!((answer.status, answer.text_of("field").as_str()), (400, field), "{}", answer.text);
    }
    // A service that is not registered may come yet: its name is not refused, and no terminal or page is reached by it as it is.
    let told = site.explain(&bob, &json!({ "service": "\u{202e}\u{1b}[2J" })).body;
    assert_eq!(told["decisions"]["in_force"]["warnings"][0]["field"], "service", "{told}");
    assert!(!site.mcat.log().contains('\u{1b}') && !site.mcat.log().contains('\u{202e}'));
    for body in [
        "",
        "[]",
        "{",
        "{\"service\":1}",
        "{\"service\":\"mcr\",\"x\":1}",
        "{\"service\":\"mcr\",\"service\":\"mcr\"}",
    ] {
        let answer = site.mcat.raw("POST", "/v1/explain", &bob, "application/json", body.as_bytes());
        assert_eq!(answer.status, 400, "{body}: {}", answer.text);
    }
}

#[test]
fn a_draft_that_is_too_large_is_refused() {
    let site = Site::start();
    let bob = site.login("bob");
    let name = "x".repeat(2 << 20);
    let draft = json!({ "default": name, "rules": [] });
    let answer = site.explain(&bob, &json!({ "service": "mcr", "draft": draft }));
    assert_eq!((answer.status, answer.text_of("reason").as_str()), (413, "too-large"));
    // A form is smaller: one that fits is read.
    let page = |bytes: usize| {
        let body = format!("service=mcr&draft={}", "x".repeat(bytes));
        let head = format!(
            "cookie: __Host-session={bob}\r\naccept: text/html\r\norigin: {}\r\n",
            crate::site::url("mcat")
        );
        site.mcat.raw_with("POST", "/", &head, "application/x-www-form-urlencoded", body.as_bytes()).status
    };
    assert_eq!((page(70_000), page(1000)), (413, 403));
}
