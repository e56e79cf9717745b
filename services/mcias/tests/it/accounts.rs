//! Accounts, links, tokens, passwords and the login policy, over REST.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use mc_testkit::mcias::{Answer, Mcias, PASSWORD};
use serde_json::{Value, json};

fn login(mcias: &Mcias, name: &str, password: &str) -> (u16, String) {
    let answer = mcias.ask("POST", "/v1/login", "", &json!({ "username": name, "password": password }));
    (answer.status, answer.text)
}

#[test]
fn the_last_admin_cannot_be_removed_or_demoted() {
    let mcias = Mcias::start();
    let admin = mcias.login("ada");
    mcias.person(&admin, "bob", &["user"]);
    let refused = |answer: Answer| {
        assert_eq!((answer.status, answer.text_of("reason")), (409, "last-admin".to_owned()));
    };
    refused(mcias.edit(&admin, "ada", &json!({ "enabled": false })));
    refused(mcias.edit(&admin, "ada", &json!({ "roles": ["user"] })));
    refused(mcias.ask("DELETE", "/v1/accounts/ada", &admin, &Value::Null));
    mcias.edited(&admin, "bob", &json!({ "roles": ["admin"] }));
    mcias.edited(&admin, "ada", &json!({ "roles": [] }));
    assert_eq!(mcias.ask("GET", "/v1/accounts", &admin, &Value::Null).status, 403);
}

#[test]
fn a_link_works_once_and_a_new_link_voids_it() {
    let mcias = Mcias::start();
    let admin = mcias.login("ada");
    mcias.done("POST", "/v1/accounts", &admin, &json!({ "name": "bob", "account_type": "human" }));
    let link = || {
        let url = mcias.ask("POST", "/v1/accounts/bob/link", &admin, &Value::Null).text_of("url");
        url.rsplit('#').next().unwrap().to_owned()
    };
    let redeem = |secret: &str, password: &str| {
        mcias.ask("POST", "/v1/link/redeem", "", &json!({ "secret": secret, "password": password }))
    };
    let (first, second) = (link(), link());
    assert_eq!(redeem(&first, PASSWORD).status, 404);
    for weak in ["short", "passwordpassword", "bobbobbobbobbobbob", &"a".repeat(2000)] {
        let answer = redeem(&second, weak);
        assert_eq!((answer.status, answer.text_of("field")), (400, "password".to_owned()), "{weak}");
    }
    assert_eq!(redeem(&second, PASSWORD).status, 200);
    assert_eq!(redeem(&second, PASSWORD).status, 404);
    let bob = mcias.login("bob");
    // Setting a password by a link ends all sessions.
    assert_eq!(redeem(&link(), "gravel umbrella violet").status, 200);
    assert_eq!(mcias.ask("GET", "/v1/me", &bob, &Value::Null).status, 401);
    let log = std::fs::read(mcias.database()).unwrap();
    let holds = |text: &str| log.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(!holds(&second) && !holds("gravel umbrella violet") && !holds(&bob));
    // Deleting an account ends its sessions.
    let session = mcias.ask(
        "POST",
        "/v1/login",
        "",
        &json!({ "username": "bob", "password": "gravel umbrella violet" }),
    );
    mcias.done("DELETE", "/v1/accounts/bob", &admin, &Value::Null);
    assert_eq!(mcias.ask("GET", "/v1/me", &session.text_of("token"), &Value::Null).status, 401);
    assert_eq!(login(&mcias, "bob", "gravel umbrella violet").0, 401);
    assert_eq!(mcias.ask("DELETE", "/v1/accounts/bob", &admin, &Value::Null).status, 404);
    // A system account has no password.
    drop(mcias.service(&admin, "mcr", &[]));
    assert_eq!(mcias.ask("POST", "/v1/accounts/mcr/link", &admin, &Value::Null).status, 400);
}

#[test]
fn changing_the_password_requires_the_old_one_and_ends_other_sessions() {
    let mcias = Mcias::start();
    let (one, other) = (mcias.login("ada"), mcias.login("ada"));
    let change = |current: &str| {
        let body = json!({ "current": current, "password": "gravel umbrella violet" });
        mcias.ask("PUT", "/v1/me/password", &one, &body)
    };
    let wrong = change("not this one, no");
    assert_eq!((wrong.status, wrong.text_of("field")), (403, "current".to_owned()));
    let changed = change(PASSWORD);
    assert_eq!((changed.status, &changed.body["changed"]), (200, &json!(1)), "{}", changed.text);
    assert_eq!(mcias.ask("GET", "/v1/me", &other, &Value::Null).status, 401);
    assert_eq!(mcias.ask("GET", "/v1/me", &one, &Value::Null).status, 200);
    assert_eq!(login(&mcias, "ada", PASSWORD).0, 401);
    assert_eq!(login(&mcias, "ada", "gravel umbrella violet").0, 200);
}

#[test]
fn a_system_account_has_several_tokens_with_their_last_use() {
    let mut mcias = Mcias::start();
    let admin = mcias.login("ada");
    let first = mcias.service(&admin, "mcr", &[]);
    let path = "/v1/accounts/mcr/tokens";
    let second = mcias.ask("POST", path, &admin, &json!({ "label": "second", "lifetime_seconds": 86_400 }));
    let second = second.text_of("token");
    for token in [&first, &second] {
        assert_eq!(mcias.introspect(token, &admin).body["active"], true);
    }
    for bad in [
        json!({ "label": "" }),
        json!({ "label": "x\u{1b}[2J" }),
        json!({ "label": "x", "lifetime_seconds": 1 }),
    ] {
        assert_eq!(mcias.ask("POST", path, &admin, &bad).status, 400, "{bad}");
    }
    assert_eq!(mcias.ask("POST", "/v1/accounts/ada/tokens", &admin, &json!({ "label": "x" })).status, 400);
    // A token for another service is refused by MCIAS, and by services that it is not for.
    let narrow = mcias.ask("POST", path, &admin, &json!({ "label": "narrow", "audience": ["metacrypt"] }));
    let narrow = narrow.text_of("token");
    assert_eq!(mcias.introspect(&narrow, &admin).status, 403);
    assert_eq!(mcias.introspect(&first, &narrow).body["active"], false);
    mcias.stop();
    mcias.restart(&[]);
    let tokens = mcias.done("GET", path, &admin, &Value::Null);
    let used = |label: &str| {
        let found = tokens["tokens"].as_array().unwrap().iter().find(|token| token["label"] == label);
        found.unwrap()["last_used_at"].is_i64()
    };
    assert!(used("first") && used("second"));
    // There is a warning about the token that expires tomorrow only.
    let about = mcias.ops_page("/metrics");
    let warned: Vec<_> =
        about.lines().filter(|line| line.starts_with("mcias_token_expires_seconds{")).collect();
    let second =
        tokens["tokens"].as_array().unwrap().iter().find(|token| token["label"] == "second").unwrap();
    let labels = format!("mcias_token_expires_seconds{{account=\"mcr\",id={}}} ", second["id"]);
    assert!(warned.len() == 1 && warned[0].starts_with(&labels), "{warned:?}");
    assert!(mcias.log().contains("a token expires soon"), "{}", mcias.log());
    let metrics = mcias.ask("GET", "/metrics", "", &Value::Null);
    assert_eq!(metrics.status, 404, "metrics are on the ops listener only");
}

#[test]
fn the_login_policy_applies_everywhere() {
    let mcias = Mcias::start();
    let admin = mcias.login("ada");
    let (mcr, mcns) = (mcias.service(&admin, "mcr", &["prod"]), mcias.service(&admin, "mcns", &[]));
    mcias.person(&admin, "bob", &["guest"]);
    let bob = mcias.login("bob");
    let at = |service: &str, token: &str| mcias.introspect(service, token).body["active"] == true;
    assert!(at(&mcr, &bob) && at(&mcns, &bob));
    let rule = |name: &str, effect: &str, priority: u32, more: Value| {
        let mut rule = json!({ "name": name, "effect": effect, "priority": priority });
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        rule
    };
    let set = |rules: &[Value]| mcias.set_policy(&admin, "allow", &json!(rules));
    let guests =
        rule("no-guests-in-prod", "deny", 5, json!({ "roles": ["guest"], "resource_tags": ["prod"] }));
    let equal = rule("guests-anywhere", "allow", 5, json!({ "roles": ["guest"] }));
    assert_eq!(set(&[equal.clone(), guests.clone()]).status, 200);
    // A change applies at once to sessions that exist; among equal priorities deny wins.
    assert!(!at(&mcr, &bob) && at(&mcns, &bob));
    let question = json!({ "account": "bob", "resource": "mcr" });
    let told = mcias.done("POST", "/v1/policy/explain", &admin, &question);
    assert_eq!(
        (&told["effect"], &told["deciding_rule"]["name"]),
        (&json!("deny"), &json!("no-guests-in-prod"))
    );
    assert_eq!(
        (&told["other_matches"][0]["name"], &told["resource_tags"]),
        (&json!("guests-anywhere"), &json!(["prod"]))
    );
    // At a login through the service, but only after the right password.
    let through = |password: &str| {
        let answer =
            mcias.ask("POST", "/v1/login", &mcr, &json!({ "username": "bob", "password": password }));
        (answer.status, answer.text_of("reason"))
    };
    assert_eq!(through(PASSWORD), (403, "denied-by-policy".to_owned()));
    assert_eq!(through("wrong").0, 401);
    // At a login for several services, each of which must be allowed.
    let login_for = |services: &[&str]| {
        let body = json!({ "username": "bob", "password": PASSWORD, "audience": services });
        let answer = mcias.ask("POST", "/v1/login", "", &body);
        (answer.status, answer.body["reason"].clone())
    };
    assert_eq!(login_for(&["mcns", "mcias"]).0, 200);
    for services in [&["mcr"][..], &["mcns", "mcr"]] {
        assert_eq!(login_for(services), (403, json!("denied-by-policy")));
    }
    // At MCIAS itself, and when a token is issued that would be refused.
    let out = rule("no-bob", "deny", 1, json!({ "accounts": ["bob"], "resources": ["mcias"] }));
    let machine =
        rule("no-machines-at-mcns", "deny", 1, json!({ "account_types": ["system"], "resources": ["mcns"] }));
    assert_eq!(set(&[out, machine]).status, 200);
    assert_eq!(mcias.ask("GET", "/v1/me", &bob, &Value::Null).text_of("reason"), "denied-by-policy");
    let body = json!({ "label": "x", "audience": ["mcns"] });
    assert_eq!(
        mcias.ask("POST", "/v1/accounts/mcr/tokens", &admin, &body).text_of("reason"),
        "denied-by-policy"
    );
    // Admins cannot lock themselves out, nor overwrite a revision that they have not seen.
    let everybody = rule("nobody", "deny", 0, json!({}));
    assert_eq!(set(&[everybody]).text_of("reason"), "locks-you-out");
    let body = json!({ "default": "allow", "rules": [], "revision": 1 });
    assert_eq!(mcias.ask("PUT", "/v1/policy", &admin, &body).text_of("reason"), "changed");
    let twice = set(&[guests.clone(), guests]);
    assert_eq!((twice.status, twice.text_of("field")), (400, "rules[1].name".to_owned()));
    let audit = mcias.done("GET", "/v1/audit?account=bob", &admin, &Value::Null).to_string();
    assert!(audit.contains("denied-by-policy") && !audit.contains(PASSWORD), "{audit}");
}

#[test]
fn a_login_through_a_service_is_for_that_service_only() {
    let mcias = Mcias::start();
    let admin = mcias.login("ada");
    let (mcr, mcns) = (mcias.service(&admin, "mcr", &[]), mcias.service(&admin, "mcns", &[]));
    let body = json!({ "username": "ada", "password": PASSWORD });
    let token = mcias.ask("POST", "/v1/login", &mcr, &body).text_of("token");
    assert_eq!(mcias.introspect(&mcr, &token).body["aud"], json!(["mcr"]));
    assert_eq!(mcias.introspect(&mcns, &token).body["active"], false);
    assert_eq!(mcias.ask("GET", "/v1/me", &token, &Value::Null).status, 403);
    let body = json!({ "username": "ada", "password": PASSWORD, "audience": ["mcns"] });
    assert_eq!(mcias.ask("POST", "/v1/login", &mcr, &body).text_of("field"), "audience[0]");
}

#[test]
fn a_login_is_for_mcias_unless_more_is_asked_for() {
    let mcias = Mcias::start();
    let admin = mcias.login("ada");
    let mcr = mcias.service(&admin, "mcr", &[]);
    let login = |audience: Value| {
        let body = json!({ "username": "ada", "password": PASSWORD, "audience": audience });
        mcias.ask("POST", "/v1/login", "", &body)
    };
    let own = login(json!([])).text_of("token");
    assert_eq!(mcias.introspect(&mcr, &own).body, json!({ "active": false }));
    assert_eq!(mcias.ask("GET", "/v1/me", &own, &Value::Null).status, 200);
    let both = login(json!(["mcias", "mcr"])).text_of("token");
    assert_eq!(mcias.introspect(&mcr, &both).body["aud"], json!(["mcias", "mcr"]));
    let many: Vec<String> = (0..65).map(|at| format!("s{at}")).collect();
    assert_eq!(login(json!(many)).text_of("field"), "audience");
    // A service's token is for asking MCIAS, unless it is for others.
    let issued = mcias.done("POST", "/v1/accounts/mcr/tokens", &admin, &json!({ "label": "second" }));
    assert_eq!(issued["details"]["audience"], json!(["mcias"]));
}

#[test]
fn a_name_that_comes_back_is_another_account() {
    let mcias = Mcias::start();
    let admin = mcias.login("ada");
    let mcr = mcias.service(&admin, "mcr", &[]);
    mcias.person(&admin, "bob", &["user"]);
    let told = mcias.introspect(&mcr, &mcias.login("bob")).body;
    let first = mcias.done("GET", "/v1/accounts/bob", &admin, &Value::Null);
    assert_eq!((&told["sub"], &told["username"]), (&first["id"], &json!("bob")));
    mcias.done("DELETE", "/v1/accounts/bob", &admin, &Value::Null);
    let body = json!({ "name": "bob", "account_type": "human" });
    let create = || mcias.ask("POST", "/v1/accounts", &admin, &body);
    assert_eq!((create().status, create().text_of("reason")), (409, "name-taken".to_owned()));
    let deleted = mcias.done("GET", "/v1/deleted-accounts", &admin, &Value::Null);
    assert_eq!(
        (&deleted["accounts"][0]["name"], &deleted["accounts"][0]["id"]),
        (&json!("bob"), &first["id"])
    );
    mcias.done("DELETE", "/v1/deleted-accounts/bob", &admin, &Value::Null);
    assert_eq!(mcias.ask("DELETE", "/v1/deleted-accounts/bob", &admin, &Value::Null).status, 404);
    assert_eq!(create().status, 201);
    let second = mcias.done("GET", "/v1/accounts/bob", &admin, &Value::Null);
    assert_ne!(first["id"], second["id"]);
    let audit = mcias.done("GET", "/v1/audit?target=bob", &admin, &Value::Null).to_string();
    assert!(
        audit.contains("account.release-name") && audit.contains(first["id"].as_str().unwrap()),
        "{audit}"
    );
    // Nobody is named like somebody else's id.
    let body = json!({ "name": second["id"], "account_type": "human" });
    assert_eq!(mcias.ask("POST", "/v1/accounts", &admin, &body).text_of("field"), "name");
}

#[test]
fn what_outlives_a_session_takes_a_fresh_login() {
    for (operation, fresh) in [
        (&mc_api::mcias::operations::ISSUE_TOKEN, true),
        (&mc_api::mcias::operations::CREATE_ACCOUNT, true),
        (&mc_api::mcias::operations::UPDATE_ACCOUNT, true),
        (&mc_api::mcias::operations::DELETE_ACCOUNT, true),
        (&mc_api::mcias::operations::RELEASE_NAME, true),
        (&mc_api::mcias::operations::ISSUE_LINK, true),
        (&mc_api::mcias::operations::RESET_FACTORS, true),
        (&mc_api::mcias::operations::ROTATE_KEYS, true),
        (&mc_api::mcias::operations::WITHDRAW_KEY, true),
        (&mc_api::policy::operations::SET_POLICY, true),
        // What takes something away from an intruder must not wait.
        (&mc_api::mcias::operations::REVOKE_TOKEN, false),
        (&mc_api::mcias::operations::END_ACCOUNT_SESSIONS, false),
        (&mc_api::policy::operations::CHECK_POLICY, false),
    ] {
        // That each is held to is what `access` sees.
        assert_eq!(operation.fresh, fresh, "{}", operation.action);
    }
}

#[test]
fn stock_clients_introspect_and_cache_keys() {
    let mcias = Mcias::start();
    let admin = mcias.login("ada");
    let mcr = mcias.service(&admin, "mcr", &[]);
    // RFC 7662 by a client that authenticates as RFC 6749 says, and sends parameters that MCIAS does not know.
    let basic = data_encoding::BASE64.encode(format!("mcr:{mcr}").as_bytes());
    let introspect = |authorization: &str, body: &str| {
        let headers = format!("authorization: {authorization}\r\n");
        let kind = "application/x-www-form-urlencoded";
        mcias.raw_with("POST", "/v1/introspect", &headers, kind, body.as_bytes())
    };
    let body = format!("token={admin}&token_type_hint=access_token&resource=x&client_id=mcr");
    let answer = introspect(&format!("Basic {basic}"), &body);
    assert_eq!((answer.status, &answer.body["username"]), (200, &json!("ada")), "{}", answer.text);
    assert_eq!(introspect(&format!("Basic {basic}"), &format!("{body}&token=x")).text_of("field"), "token");
    for wrong in ["Basic", "Basic x", "Basic bWNyOg==", "Basic bWNyOndyb25n", &format!("Digest {basic}")] {
        assert_eq!(introspect(wrong, &body).status, 401, "{wrong}");
    }
    // Elsewhere a token is a bearer's.
    let headers = format!("authorization: Basic {basic}\r\n");
    assert_eq!(mcias.raw_with("GET", "/v1/me", &headers, "", b"").status, 401);
    let keys = mcias.ask("GET", "/.well-known/jwks.json", "", &Value::Null);
    assert!(keys.head.contains("cache-control: public, max-age=300"), "{}", keys.head);
    assert!(mcias.ask("GET", "/v1/me", &admin, &Value::Null).head.contains("cache-control: no-store"));
}

#[test]
fn an_explanation_for_a_service_that_is_not_there_says_so() {
    let mcias = Mcias::start();
    let admin = mcias.login("ada");
    drop(mcias.service(&admin, "mcr", &[]));
    let explain = |service: &str| {
        let question = json!({ "account": "ada", "resource": service });
        mcias.done("POST", "/v1/policy/explain", &admin, &question)["warnings"].clone()
    };
    assert_eq!((explain("mcr"), explain("mcias")), (json!([]), json!([])));
    assert_eq!(explain("mrc")[0]["field"], "resource");
}

#[test]
fn a_link_dies_with_what_it_was_for() {
    let mcias = Mcias::start();
    let admin = mcias.login("ada");
    mcias.person(&admin, "bob", &["user"]);
    let link = || {
        let link = mcias.ask("POST", "/v1/accounts/bob/link", &admin, &Value::Null).text_of("url");
        link.rsplit('#').next().unwrap().to_owned()
    };
    let redeem = |secret: &str| {
        let body = json!({ "secret": secret, "password": "gravel umbrella violet" });
        mcias.ask("POST", "/v1/link/redeem", "", &body).status
    };
    let disabled = link();
    mcias.edited(&admin, "bob", &json!({ "enabled": false }));
    assert_eq!(redeem(&disabled), 404);
    let answer = mcias.ask("POST", "/v1/accounts/bob/link", &admin, &Value::Null);
    assert_eq!((answer.status, answer.text_of("reason")), (409, "account-disabled".to_owned()));
    mcias.edited(&admin, "bob", &json!({ "enabled": true }));
    assert_eq!(redeem(&disabled), 404, "it does not come back either");
    let reset = link();
    mcias.done("POST", "/v1/accounts/bob/reset-factors", &admin, &Value::Null);
    assert_eq!(redeem(&reset), 404);
    assert_eq!(redeem(&link()), 200);
}

#[test]
fn of_several_confirmations_at_once_one_counts() {
    let mcias = Mcias::start();
    let admin = mcias.login("ada");
    let begun = mcias.done("POST", "/v1/me/totp/begin", &admin, &Value::Null);
    let secret = data_encoding::BASE32_NOPAD.decode(begun["secret"].as_str().unwrap().as_bytes()).unwrap();
    let secret = mcias::domain::totp::TotpSecret::try_from_slice(&secret).unwrap();
    let code = secret.code((mcdsl::clock::Clock::system().unix_s() / 30).unsigned_abs());
    let body = json!({ "code": code.expose() });
    let confirm = || mcias.ask("POST", "/v1/me/totp/confirm", &admin, &body);
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..6).map(|_| scope.spawn(confirm)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let done: Vec<_> = answers.iter().filter(|answer| answer.status == 200).collect();
    assert_eq!(done.len(), 1, "{answers:?}");
    let code = done[0].body["codes"][0].as_str().unwrap();
    let login = json!({ "username": "ada", "password": PASSWORD, "recovery_code": code });
    assert_eq!(
        mcias.ask("POST", "/v1/login", "", &login).status,
        200,
        "its recovery codes are the valid ones"
    );
}

#[test]
fn a_service_does_not_log_out() {
    let mcias = Mcias::start();
    let admin = mcias.login("ada");
    let mcr = mcias.service(&admin, "mcr", &[]);
    let answer = mcias.ask("POST", "/v1/me/logout", &mcr, &Value::Null);
    assert_eq!((answer.status, answer.text_of("reason")), (409, "no-session".to_owned()));
}

#[test]
fn a_session_names_its_device() {
    let mcias = Mcias::start();
    let admin = mcias.login("ada");
    let mcr = mcias.service(&admin, "mcr", &[]);
    let firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:131.0) Gecko/20100101 Firefox/131.0";
    let body = json!({ "username": "ada", "password": PASSWORD, "client_address": "192.0.2.7",
                       "client_user_agent": firefox });
    mcias.done("POST", "/v1/login", &mcr, &body);
    let sessions = mcias.done("GET", "/v1/me/sessions", &admin, &Value::Null);
    let devices: BTreeSet<_> = sessions["sessions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["device"].as_str().unwrap_or(""))
        .collect();
    assert!(devices.contains("Firefox on Linux"), "{sessions}");
    // What a service states makes an address familiar at that service alone.
    let db = rusqlite::Connection::open(mcias.database()).unwrap();
    let familiar = "SELECT group_concat(source) FROM familiar WHERE source LIKE '192.0.2.7%'";
    assert_eq!(db.query_row(familiar, [], |row| row.get::<_, String>(0)).unwrap(), "192.0.2.7 mcr");
    assert_eq!(mcias.ask("POST", "/v1/login", "", &body).text_of("field"), "client_address");
    for address in ["0.0.0.0", "::", "224.0.0.1", "255.255.255.255", "ff02::1", "x"] {
        let body = json!({ "username": "ada", "password": PASSWORD, "client_address": address });
        assert_eq!(
            mcias.ask("POST", "/v1/login", &mcr, &body).text_of("field"),
            "client_address",
            "{address}"
        );
    }
}

#[test]
fn a_public_url_does_not_change_unnoticed() {
    let mut mcias = Mcias::start();
    let admin = mcias.login("ada");
    let url = mcias.url();
    mcias.stop();
    let moved = "https://sso.example.org:8443";
    let error = mcias.refuses_to_start(&[("MCIAS_SITE_PUBLIC_URL", moved)]);
    assert!(error.contains(&url) && error.contains("former_public_urls"), "{error}");
    let checked = mcias.command(&["check"]).env("MCIAS_SITE_PUBLIC_URL", moved).output().unwrap();
    assert!(String::from_utf8_lossy(&checked.stderr).contains("former_public_urls"), "{checked:?}");
    let former = toml::Value::from(vec![url.as_str()]).to_string();
    mcias.restart(&[("MCIAS_SITE_PUBLIC_URL", moved), ("MCIAS_SITE_FORMER_PUBLIC_URLS", &former)]);
    assert_eq!(mcias.ask("GET", "/v1/me", &admin, &Value::Null).status, 200);
    let body = json!({ "username": "ada", "password": PASSWORD });
    let token = mcias.ask("POST", "/v1/login", "", &body).text_of("token");
    let claims = data_encoding::BASE64URL_NOPAD.decode(token.split('.').nth(1).unwrap().as_bytes()).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&claims).unwrap()["iss"], moved);
}

#[test]
fn guessing_is_throttled_and_the_owner_is_not() {
    let mcias = Mcias::start();
    drop(mcias.login("ada"));
    let home = mcias.rest.ip();
    let elsewhere = IpAddr::V4(Ipv4Addr::new(127, 9, 9, 9));
    let try_from = |from: IpAddr, name: &str, password: &str| {
        let body = json!({ "username": name, "password": password });
        mcias.connection_from(from).unwrap().ask("POST", "/v1/login", "", &body).unwrap()
    };
    let guesses: Vec<_> = (0..12).map(|n| try_from(elsewhere, "ada", &format!("guess {n}"))).collect();
    assert_eq!(guesses[0].status, 401);
    let late = guesses.last().unwrap();
    assert_eq!((late.status, late.text_of("reason")), (429, "too-many-attempts".to_owned()));
    assert!(late.head.contains("retry-after: "), "{}", late.head);
    // An unknown account is answered and delayed like a known one.
    let unknown: Vec<_> = (0..12).map(|n| try_from(home, "nobody", &format!("guess {n}"))).collect();
    let seen = |answers: &[Answer]| {
        answers
            .iter()
            .map(|answer| (answer.status, answer.body["detail"].clone()))
            .take(5)
            .collect::<Vec<_>>()
    };
    assert_eq!(seen(&guesses), seen(&unknown));
    // Ada has logged in before from the address of the test's own connections.
    assert_eq!(login(&mcias, "ada", PASSWORD).0, 200);
}

#[test]
fn a_service_states_the_address_of_the_person_it_logs_in() {
    let mcias = Mcias::start();
    let admin = mcias.login("ada");
    let mcr = mcias.service(&admin, "mcr", &[]);
    let from = |token: &str, address: &str, password: &str| {
        let body = json!({ "username": "ada", "password": password, "client_address": address });
        mcias.ask("POST", "/v1/login", token, &body)
    };
    assert_eq!(from(&mcr, "198.51.100.7", "guess").status, 401);
    // Until the delay is longer than what follows takes.
    let is_long = |answer: &Answer| {
        let after = answer.head.lines().find_map(|line| line.strip_prefix("retry-after: "));
        after.is_some_and(|seconds| seconds.parse::<u32>().unwrap() > 6)
    };
    let guesses = std::iter::repeat_with(|| from(&mcr, "198.51.100.7", "guess"));
    let delayed = guesses.take(200).find(is_long).expect("guessing is delayed");
    assert_eq!(delayed.text_of("reason"), "too-many-attempts");
    assert_eq!(from(&mcr, "198.51.100.7", PASSWORD).status, 429);
    // Guessing from one address does not delay logins through the same service from another.
    assert_eq!(from(&mcr, "2001:db8::7", PASSWORD).status, 200);
    let sources = |outcome: &str| {
        let entries = mcias.done("GET", "/v1/audit?limit=100", &admin, &Value::Null)["entries"].clone();
        let entries = entries.as_array().unwrap().clone();
        let those =
            entries.into_iter().filter(|entry| entry["service"] == "mcr" && entry["outcome"] == outcome);
        those.map(|entry| entry["source"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    assert_eq!(sources("done"), BTreeSet::from(["2001:db8::7".to_owned()]));
    assert_eq!(sources("refused"), BTreeSet::from(["198.51.100.7".to_owned()]));
    // Only a system account may state an address.
    for token in ["", admin.as_str()] {
        let refused = from(token, "192.0.2.1", PASSWORD);
        assert_eq!((refused.status, refused.text_of("field")), (400, "client_address".to_owned()));
    }
    let refused = from(&mcr, "192.0.2.1:80", PASSWORD);
    assert_eq!((refused.status, refused.text_of("field")), (400, "client_address".to_owned()));
}

#[test]
fn a_login_rehashes_the_password_when_the_parameters_were_raised() {
    let mut mcias = Mcias::start();
    let stored = |mcias: &Mcias| {
        let copy = mcias.folder().join(format!("{}.copy", mcias.process().pid()));
        mcias.run(&["snapshot", copy.to_str().unwrap()]);
        let db = rusqlite::Connection::open(copy).unwrap();
        db.query_row("SELECT password FROM accounts WHERE name = 'ada'", [], |row| row.get::<_, String>(0))
            .unwrap()
    };
    assert!(stored(&mcias).starts_with("$argon2id$v=19$m=1024,t=1,p=1$"));
    mcias.stop();
    mcias.restart(&[("MCIAS_PASSWORDS_ARGON2_MEMORY_KIB", "2048")]);
    assert!(stored(&mcias).starts_with("$argon2id$v=19$m=1024,t=1,p=1$"));
    drop(mcias.login("ada"));
    mcias.stop();
    mcias.restart(&[]);
    assert!(stored(&mcias).starts_with("$argon2id$v=19$m=2048,t=1,p=1$"));
    // Lower parameters do not weaken a stored hash.
    drop(mcias.login("ada"));
    mcias.stop();
    mcias.restart(&[]);
    assert!(stored(&mcias).starts_with("$argon2id$v=19$m=2048,t=1,p=1$"));
}

#[test]
fn a_backup_of_a_running_server_restores_everything() {
    let mut mcias = Mcias::start();
    let admin = mcias.login("ada");
    mcias.person(&admin, "bob", &["user"]);
    let outside = tempfile::tempdir().unwrap();
    let archive = outside.path().join("mcias.tar.zst");
    let said = mcias.run(&["backup", archive.to_str().unwrap()]);
    assert!(said.contains("1 databases"), "{said}");
    // Changes after the backup are not in it.
    mcias.person(&admin, "eve", &["user"]);
    mcias.stop();
    let kept = outside.path().join("old");
    std::fs::rename(mcias.folder(), &kept).unwrap();
    mcias.run(&["restore", archive.to_str().unwrap(), mcias.folder().to_str().unwrap()]);
    mcias.restart(&[]);
    // Keys and sessions are restored: the token still works.
    let names: Vec<_> = mcias.done("GET", "/v1/accounts", &admin, &Value::Null)["accounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|account| account["name"].clone())
        .collect();
    assert_eq!(names, ["ada", "bob"]);
    assert_eq!(mcias.done("POST", "/v1/audit/verify", &admin, &json!({}))["intact"], true);
}

#[test]
fn a_body_that_arrives_after_its_token_was_revoked_changes_nothing() {
    let mcias = Mcias::start();
    let admin = mcias.login("ada");
    mcias.person(&admin, "bob", &["admin"]);
    let bob = mcias.login("bob");
    let body = json!({ "name": "eve", "account_type": "human", "roles": ["admin"] }).to_string();
    let head = format!(
        "POST /v1/accounts HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {bob}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    let mut held = mcias.connect();
    held.send(head);
    // When these are answered, the server has read the head above and authenticated its caller.
    for _ in 0..20 {
        assert_eq!(mcias.ask("GET", "/v1/me", &bob, &Value::Null).status, 200);
    }
    mcias.edited(&admin, "bob", &json!({ "roles": ["user"] }));
    let answer = held.ask(body);
    assert!([401, 403].contains(&answer.status()), "{}", answer.head);
    assert_eq!(mcias.ask("GET", "/v1/accounts/eve", &admin, &Value::Null).status, 404);
}

#[test]
fn an_admin_who_cannot_log_in_does_not_count() {
    let mcias = Mcias::start();
    let admin = mcias.login("ada");
    let body = json!({ "name": "bob", "account_type": "human", "roles": ["admin"] });
    mcias.done("POST", "/v1/accounts", &admin, &body);
    let answer = mcias.edit(&admin, "ada", &json!({ "enabled": false }));
    assert_eq!((answer.status, answer.text_of("reason")), (409, "last-admin".to_owned()));
    // Nor does one whom the login policy denies access.
    let link = mcias.done("POST", "/v1/accounts/bob/link", &admin, &Value::Null);
    mcias.redeem(link["url"].as_str().unwrap());
    let rule = |name: &str| json!({ "name": name, "priority": 1, "effect": "deny", "accounts": [name] });
    let set = |rules: Value| assert_eq!(mcias.set_policy(&admin, "allow", &rules).status, 200);
    set(json!([rule("bob")]));
    let answer = mcias.ask("DELETE", "/v1/accounts/ada", &admin, &Value::Null);
    assert_eq!((answer.status, answer.text_of("reason")), (409, "last-admin".to_owned()));
    set(json!([]));
    mcias.done("DELETE", "/v1/accounts/ada", &admin, &Value::Null);
}

#[test]
fn no_account_can_act_for_the_service_mcias() {
    let mcias = Mcias::start();
    let admin = mcias.login("ada");
    let system = |name: &str| json!({ "name": name, "account_type": "system" });
    let mut other = system("other");
    other["service"] = json!("mcias");
    for body in [system("mcias"), other] {
        let answer = mcias.ask("POST", "/v1/accounts", &admin, &body);
        assert_eq!((answer.status, answer.text_of("field")), (400, "service".to_owned()));
    }
    mcias.done("POST", "/v1/accounts", &admin, &system("other"));
    let answer = mcias.edit(&admin, "other", &json!({ "service": "mcias" }));
    assert_eq!((answer.status, answer.text_of("field")), (400, "service".to_owned()));
}

#[test]
fn requests_are_logged_only_with_the_access_log_on() {
    for (lines, expect) in [("", false), ("[log]\naccess = true", true), ("[log]\nlevel = \"error\"", false)]
    {
        let mcias = Mcias::start_with(lines, &[]);
        assert_eq!(mcias.ask("GET", "/v1/me", "", &Value::Null).status, 401);
        // The line is written before the response is sent.
        let log = mcias.log();
        let said = log.lines().any(|line| line.contains("\"/v1/me\"") && line.contains("401"));
        assert_eq!(said, expect, "{lines}: {log}");
    }
}

#[test]
fn a_service_has_the_tags_of_all_its_accounts() {
    let mcias = Mcias::start();
    let admin = mcias.login("ada");
    drop(mcias.service(&admin, "mcr", &["prod"]));
    let body = json!({ "name": "mcr-two", "account_type": "system", "service": "mcr" });
    mcias.done("POST", "/v1/accounts", &admin, &body);
    let two =
        mcias.ask("POST", "/v1/accounts/mcr-two/tokens", &admin, &json!({ "label": "x" })).text_of("token");
    assert_eq!(mcias.introspect(&two, &admin).body["active"], true);
    let rule = json!({ "name": "closed", "priority": 1, "effect": "deny", "resource_tags": ["prod"] });
    assert_eq!(mcias.set_policy(&admin, "allow", &json!([rule])).status, 200);
    assert_eq!(mcias.introspect(&two, &admin).body["active"], false);
}

#[test]
fn clients_cannot_flood_the_audit_log() {
    let mcias = Mcias::start();
    let admin = mcias.login("ada");
    mcias.person(&admin, "bob", &["guest"]);
    let (bob, service) = (mcias.login("bob"), mcias.service(&admin, "mcr", &[]));
    let entries =
        || mcias.done("POST", "/v1/audit/verify", &admin, &json!({}))["last_entry"].as_i64().unwrap();
    let before = entries();
    // Invalid tokens and links are only counted.
    for number in 0..20 {
        assert_eq!(mcias.introspect(&service, &format!("nonsense-{number}")).body["active"], false);
        let link = json!({ "secret": format!("nonsense-{number}"), "password": PASSWORD });
        assert_eq!(mcias.ask("POST", "/v1/link/redeem", "", &link).status, 404);
    }
    assert_eq!(entries(), before);
    // A revoked token names its account: its use is recorded.
    let gone = mcias.login("bob");
    mcias.done("POST", "/v1/me/logout", &gone, &Value::Null);
    let before = entries();
    assert_eq!(mcias.ask("GET", "/v1/me", &gone, &Value::Null).status, 401);
    assert_eq!(mcias.introspect(&service, &gone).body["active"], false);
    assert_eq!(entries(), before + 2);
    // Repeated use of it is recorded once.
    for _ in 0..20 {
        assert_eq!(mcias.ask("GET", "/v1/me", &gone, &Value::Null).status, 401);
    }
    let before = before + 2;
    assert_eq!(entries(), before);
    // A refusal is recorded, and nothing of a body that was not read.
    let long = json!({ "name": "x".repeat(500_000), "account_type": "human" });
    assert_eq!(mcias.ask("POST", "/v1/accounts", &bob, &long).status, 403);
    assert_eq!(entries(), before + 1);
    let log = mcias.ask("GET", "/v1/audit?limit=1", &admin, &Value::Null);
    assert!(log.text.contains("account.create") && !log.text.contains("xxx"), "{:.1000}", log.text);
}
