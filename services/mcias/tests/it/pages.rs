//! The pages: in a browser as people use them, and as a series of requests.

use mc_testkit::mcias::{Answer, Mcias, PASSWORD};
use mc_testkit::{node_script, requires};
use serde_json::{Value, json};

#[test]
fn a_browser_covers_all_logins_and_an_admins_tasks() {
    requires!("chromium", "node", "npm");
    let mcias = Mcias::start();
    // A session from a long address, through a service that has a token with a long label.
    let token = mcias.login("ada");
    let service = mcias.service(&token, "mcr", &["prod"]);
    let _kept = mcias.token(&token, "mcr", &"a label of eighty characters ".repeat(3)[..80]);
    let address = "2001:db8:1234:5678:9abc:def0:1234:5678";
    let body = json!({ "username": "ada", "password": PASSWORD, "client_address": address });
    assert_eq!(mcias.ask("POST", "/v1/login", &service, &body).status, 200);
    let ip = mcias.rest.ip().to_string();
    // MC_SCREENSHOTS=folder keeps screenshots.
    let folder = std::env::var("MC_SCREENSHOTS").unwrap_or_else(|_unset| "-".to_owned());
    let seen = node_script("pages.mjs", &[&mcias.url(), &ip, "ada", PASSWORD, &folder], &[]);
    assert_eq!(seen["failed"], Value::Null, "{seen:#}");
    for what in [
        "asked_to_log_in",
        "led_back",
        "link_from_elsewhere",
        "shows_password",
        "passkey_in_field",
        "passkey_login",
        "totp_login",
        "moved",
        "recovery_login",
        "explained",
        "kept_what_was_typed",
        "asked_for_name",
        "warned",
        "names_token",
        "menu",
        "menu_closes",
    ] {
        assert_eq!(seen[what], true, "{what}: {seen:#}");
    }
    assert_eq!((&seen["intact"], &seen["bob_may_not"]), (&json!(true), &json!(true)));
    assert_eq!((&seen["recovery_codes"], &seen["token_parts"]), (&json!(10), &json!(3)));
    assert_eq!((&seen["focus_in_login"], &seen["code_keyboard"]), (&json!("username"), &json!("numeric")));
    let address = seen["address_after_link"].as_str().unwrap_or_default();
    assert!(address.ends_with("/welcome"), "the link's secret is still in the address: {address}");
    assert_eq!(seen["autocomplete"], "username, current-password, new-password, new-password");
    for what in ["violations", "errors", "wide", "hidden", "styled"] {
        assert_eq!(seen[what], json!([]), "{what}");
    }
    // The rows with long labels and addresses were there, each with something to do.
    for page in ["sessions", "security", "account-service", "policy", "keys"] {
        assert!(seen["rows"][page].as_u64() >= Some(1), "{page}: {}", seen["rows"]);
    }
    assert_eq!(seen["pages"].as_array().unwrap().len(), 48, "{seen:#}");
}

/// The cookie of this name that an answer sets.
fn cookie(answer: &Answer, name: &str) -> String {
    let mut lines = answer.head.lines().filter_map(|line| line.strip_prefix("set-cookie: "));
    let found = lines.rfind(|line| line.starts_with(&format!("{name}=")));
    found.unwrap_or_else(|| panic!("no {name} in {}", answer.head)).to_owned()
}

fn value(cookie: &str) -> &str {
    cookie.split(';').next().unwrap_or_default()
}

fn csrf(answer: &Answer) -> String {
    let (_, rest) = answer.text.split_once("name=\"csrf\" value=\"").expect("a form has a token");
    rest.split('"').next().unwrap().to_owned()
}

/// Sends a form as a browser does.
fn post(mcias: &Mcias, path: &str, cookies: &str, origin: &str, body: &str) -> Answer {
    let head = format!("cookie: {cookies}\r\norigin: {origin}\r\naccept: text/html\r\n");
    mcias.raw_with("POST", path, &head, "application/x-www-form-urlencoded", body.as_bytes())
}

fn get(mcias: &Mcias, path: &str, cookies: &str) -> Answer {
    mcias.raw_with("GET", path, &format!("cookie: {cookies}\r\naccept: text/html\r\n"), "", b"")
}

/// Logs in; the answer redirects to `next`.
fn log_in(mcias: &Mcias, next: &str) -> Answer {
    let form = get(mcias, "/login", "");
    let anonymous = cookie(&form, "__Host-csrf");
    let next = data_encoding::BASE64URL_NOPAD.encode(next.as_bytes());
    let body =
        format!("csrf={}&username=ada&password={}&next={next}", csrf(&form), PASSWORD.replace(' ', "+"));
    post(mcias, "/login", value(&anonymous), &mcias.url(), &body)
}

#[test]
fn a_forged_or_expired_form_changes_nothing() {
    let mcias = Mcias::start();
    let session = cookie(&log_in(&mcias, "/"), "__Host-session");
    for attribute in ["Secure", "HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(session.contains(attribute), "{attribute}: {session}");
    }
    let session = value(&session);
    let page = get(&mcias, "/keys", session);
    assert_eq!(page.status, 200);
    assert!(page.head.contains("content-security-policy: default-src 'none'"), "{}", page.head);
    let (good, origin) = (csrf(&page), mcias.url());
    let other = csrf(&get(&mcias, "/login", ""));
    for (origin, body) in [
        (origin.as_str(), "x=1".to_owned()),
        (&origin, "csrf=".to_owned()),
        (&origin, "csrf=x".to_owned()),
        (&origin, format!("csrf={other}")),
        ("https://evil.example", format!("csrf={good}")),
        ("null", format!("csrf={good}")),
    ] {
        let answer = post(&mcias, "/keys", session, origin, &body);
        assert_eq!(answer.status, 403, "{origin} {body}");
    }
    assert_eq!(
        mcias.done("GET", "/.well-known/jwks.json", "", &Value::Null)["keys"].as_array().unwrap().len(),
        1
    );
    assert_eq!(post(&mcias, "/keys", session, &origin, &format!("csrf={good}")).status, 303);
    assert_eq!(
        mcias.done("GET", "/.well-known/jwks.json", "", &Value::Null)["keys"].as_array().unwrap().len(),
        2
    );
    let audit = mcias.login("ada");
    let audit = mcias.done("GET", "/v1/audit?limit=100", &audit, &Value::Null);
    let forged = |entry: &&Value| entry["action"] == "form" && entry["outcome"] == "refused";
    // Four of the six are forged, and coalesced into one entry. Two have expired: the browser states that they are from this site.
    assert_eq!(audit["entries"].as_array().unwrap().iter().filter(forged).count(), 1);
    // The login form needs a token as well, so that nobody is logged in as somebody else.
    let body = format!("username=ada&password={}", PASSWORD.replace(' ', "+"));
    assert_eq!(post(&mcias, "/login", "", &origin, &body).status, 403);
}

#[test]
fn a_login_leads_to_own_pages_alone_and_a_logout_ends_the_session() {
    let mcias = Mcias::start();
    for (next, expect) in [
        ("/audit?account=ada", "/audit?account=ada"),
        ("https://evil.example/", "/"),
        ("//evil.example/", "/"),
        ("/\\evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("", "/"),
    ] {
        let answer = log_in(&mcias, next);
        assert!(
            answer.status == 303 && answer.head.contains(&format!("location: {expect}\r\n")),
            "{next}: {}",
            answer.head
        );
    }
    // Password managers ask where a password is changed.
    let answer = get(&mcias, "/.well-known/change-password", "");
    assert!(
        answer.status == 303 && answer.head.contains("location: /security/password\r\n"),
        "{}",
        answer.head
    );
    let session = cookie(&log_in(&mcias, "/"), "__Host-session");
    let session = value(&session);
    let body = format!("csrf={}", csrf(&get(&mcias, "/", session)));
    assert_eq!(post(&mcias, "/logout", session, &mcias.url(), &body).status, 303);
    let answer = get(&mcias, "/audit", session);
    assert!(answer.status == 303 && answer.head.contains("location: /login?next="), "{}", answer.head);
    // The cookie's token ended with the session, as a bearer token too.
    let token = session.split_once('=').unwrap().1;
    assert_eq!(mcias.ask("GET", "/v1/me", token, &Value::Null).status, 401);
}

#[test]
fn a_new_login_in_a_browser_ends_the_previous_session() {
    let mcias = Mcias::start();
    let first = cookie(&log_in(&mcias, "/"), "__Host-session");
    let form = get(&mcias, "/login", "");
    let cookies = format!("{}; {}", value(&cookie(&form, "__Host-csrf")), value(&first));
    let body = format!("csrf={}&username=ada&password={}&next=", csrf(&form), PASSWORD.replace(' ', "+"));
    let second = cookie(&post(&mcias, "/login", &cookies, &mcias.url(), &body), "__Host-session");
    assert_eq!(get(&mcias, "/", value(&first)).status, 303);
    assert_eq!(get(&mcias, "/", value(&second)).status, 200);
}

#[test]
fn the_overview_says_what_needs_a_person() {
    let mcias = Mcias::start();
    let admin = mcias.login("ada");
    mcias.person(&admin, "bob", &["user"]);
    drop(mcias.service(&admin, "mcr", &[]));
    let overview = |token: &str| get(&mcias, "/", &format!("__Host-session={token}")).text;
    let before = overview(&admin);
    assert!(before.contains("1 thing needs attention") && before.contains("password alone"), "{before}");
    for name in ["eve", "eva", "evi", "evo", "evu"] {
        mcias.done("POST", "/v1/accounts", &admin, &json!({ "name": name, "account_type": "human" }));
        let body = json!({ "username": name, "password": "a guess" });
        assert_eq!(mcias.ask("POST", "/v1/login", "", &body).status, 401, "{name}");
    }
    let body = json!({ "label": "ends", "lifetime_seconds": 3600 });
    mcias.done("POST", "/v1/accounts/mcr/tokens", &admin, &body);
    let shown = overview(&admin);
    for part in ["3 things need attention", "5 failed logins", "Token <b>ends</b> of <b>mcr</b> expires"] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    // What is worst comes first.
    assert!(shown.find("Token <b>ends").unwrap() < shown.find("5 failed").unwrap(), "{shown}");
    // Others see what they can do something about.
    let bob = overview(&mcias.login("bob"));
    assert!(bob.contains("1 thing needs attention") && !bob.contains("failed logins"), "{bob}");
}

#[test]
fn a_page_that_asks_has_names_and_real_counts() {
    let mcias = Mcias::start();
    let admin = mcias.login("ada");
    mcias.person(&admin, "bob", &["user"]);
    let look = |path: &str| get(&mcias, path, &format!("__Host-session={admin}")).text;
    let has = |path: &str, part: &str| {
        let page = look(path);
        assert!(page.contains(part), "{path}: {part} is not in {page}");
    };
    let disable = "/accounts/bob/disable";
    assert!(!look(disable).contains("Ends "), "there are no sessions: {}", look(disable));
    let _bob = mcias.login("bob");
    for path in ["/accounts/bob", disable, "/accounts/bob/reset-factors", "/accounts/bob/delete"] {
        has(path, "Ends 1 session at once");
    }
    assert!(!look("/accounts/bob/delete").contains("Removes "), "bob has no passkeys");
    // A disabled account can be enabled, and nothing else.
    let account = mcias.done("GET", "/v1/accounts/bob", &admin, &Value::Null);
    let mut change =
        json!({ "enabled": false, "roles": ["user"], "tags": [], "revision": account["revision"] });
    let account = mcias.done("PUT", "/v1/accounts/bob", &admin, &change);
    let page = look("/accounts/bob");
    assert!(page.contains("Enable account") && !page.contains("Create setup link"), "{page}");
    (change["tags"], change["revision"]) = (json!(["lab"]), account["revision"].clone());
    let account = mcias.done("PUT", "/v1/accounts/bob", &admin, &change);
    (change["enabled"], change["revision"]) = (json!(true), account["revision"].clone());
    mcias.done("PUT", "/v1/accounts/bob", &admin, &change);
    let page = look("/audit");
    let order = ["Enabled account <b>bob", "Changed account <b>bob", "Disabled account <b>bob"];
    let found = order.map(|words| page.find(words).unwrap_or_else(|| panic!("{words} is not in {page}")));
    assert!(found.is_sorted(), "{page}");
}

#[test]
fn browsers_get_pages_and_programs_problem_documents() {
    let mcias = Mcias::start();
    let page = get(&mcias, "/nothing", "");
    assert!(
        page.status == 404 && page.text.contains("<h1") && page.head.contains("text/html"),
        "{}",
        page.text
    );
    let document = mcias.ask("GET", "/nothing", "", &Value::Null);
    assert_eq!((document.status, document.text_of("reason")), (404, "not-found".to_owned()));
    assert_eq!(get(&mcias, "/v1/nothing", "").text_of("reason"), "not-found");
    // A secret in a path is in no metric and no log.
    let call = mcias.raw("POST", "/accounts/a-secret-part", "", "application/grpc", b"x");
    assert!(call.status < 500, "{}", call.text);
    let metrics = mcias.ops_page("/metrics");
    assert!(metrics.contains("/accounts/{name}") && !metrics.contains("a-secret-part"), "{metrics}");
}

#[test]
fn a_path_does_not_lead_a_form_elsewhere() {
    let mcias = Mcias::start();
    let session = cookie(&log_in(&mcias, "/"), "__Host-session");
    let session = value(&session);
    for path in [
        "/accounts/mcr/tokens/..%2f..%2fada%2fdelete%3f/revoke",
        "/accounts/..%2fkeys%3f/delete",
        "/accounts/..%2flogout%3f/reset-factors",
    ] {
        let page = get(&mcias, path, session);
        assert!(
            page.status == 404 && !page.text.contains("..%2f") && !page.text.contains("../"),
            "{path}: {}",
            page.text
        );
    }
    assert_eq!(get(&mcias, "/accounts/ada/delete", session).status, 200);
    // A link from another site brings no cookie; the browser keeps it.
    let page = get(&mcias, "/", "");
    assert!(page.status == 303 && !page.head.contains("__Host-session"), "{}", page.head);
    assert!(
        get(&mcias, "/", "__Host-session=x").head.contains("__Host-session=;"),
        "an invalid one is removed"
    );
}

#[test]
fn every_page_is_refused_to_who_may_not_see_it() {
    let mcias = Mcias::start();
    let admin = mcias.login("ada");
    mcias.person(&admin, "bob", &["user"]);
    drop(mcias.service(&admin, "mcr", &[]));
    let tokens = mcias.done("GET", "/v1/accounts/mcr/tokens", &admin, &Value::Null);
    let token = tokens["tokens"][0]["id"].as_str().unwrap();
    let keys = mcias.done("GET", "/v1/keys", &admin, &Value::Null);
    let key = keys["keys"][0]["id"].as_str().unwrap();
    let (revoke, withdraw) =
        (format!("/accounts/mcr/tokens/{token}/revoke"), format!("/keys/{key}/withdraw"));
    let own = [
        "/",
        "/security",
        "/security/password",
        "/security/totp/remove",
        "/security/recovery-codes",
        "/sessions",
    ];
    let admins = [
        "/accounts",
        "/accounts/bob",
        "/accounts/bob/edit",
        "/accounts/bob/disable",
        "/accounts/bob/delete",
        "/accounts/bob/reset-factors",
        "/accounts/mcr/new-token",
        "/new-account",
        "/policy",
        "/policy?account=bob&service=mcr&tags=prod",
        "/policy/rule",
        "/policy/default",
        "/policy/history",
        "/policy/diff?from=1&to=1",
        "/audit",
        "/keys",
        &revoke,
        &withdraw,
    ];
    let look = |path: &str, token: &str| get(&mcias, path, &format!("__Host-session={token}")).status;
    let bob = mcias.login("bob");
    for path in own {
        assert_eq!((look(path, &admin), look(path, &bob)), (200, 200), "{path}");
    }
    for path in admins {
        assert_eq!((look(path, &admin), look(path, &bob)), (200, 403), "{path}");
    }
    let refused = get(&mcias, "/accounts", &format!("__Host-session={bob}")).text;
    assert!(refused.contains("href=\"/sessions\"") && refused.contains("Log out"), "{refused}");
    // A later policy rule applies to existing sessions.
    let rule = json!({ "name": "no-bob", "priority": 1, "effect": "deny", "accounts": ["bob"] });
    assert_eq!(mcias.set_policy(&admin, "allow", &json!([rule])).status, 200);
    for path in own.iter().chain(&admins) {
        assert_eq!(look(path, &bob), 403, "{path}");
    }
    for (path, status) in [("/login?next=a&next=b", 400), ("/audit?before=x", 400), ("/accounts/%ff", 400)] {
        let answer = get(&mcias, path, &format!("__Host-session={admin}"));
        assert_eq!(answer.status, status, "{path}");
        assert!(answer.head.contains("content-type: text/html"), "{path}: {}", answer.head);
    }
}
