//! The page: in a browser as people use it, and as a series of requests.

use mc_testkit::mcias::PASSWORD;
use mc_testkit::service::{Answer, Service};
use mc_testkit::{node_script, requires};
use serde_json::{Value, json};

use crate::site::{DOMAIN, RULE, Site, guests_stay_out, url};

#[test]
fn a_browser_logs_in_by_each_means_and_sees_what_a_draft_changes() {
    requires!("chromium", "node", "npm");
    let site = Site::start();
    site.mcias.person(&site.admin, "carol", &["guest"]);
    site.mcias.person(&site.admin, "dan", &["user"]);
    let no_dan = json!({ "name": "no-dan-here", "priority": 1, "effect": "deny", "accounts": ["dan"], "resources": ["mcat"] });
    let rules = json!([no_dan, guests_stay_out()]);
    assert_eq!(site.mcias.set_policy(&site.admin, "allow", &rules).status, 200);
    // For MCIAS alone: guests may not use all that tests log in to.
    let second = json!({ "username": "carol", "password": PASSWORD });
    let second = site.mcias.ask("POST", "/v1/login", "", &second).text_of("token");
    let host = |name: &str, service: &Service| json!({ "origin": url(name), "ip": service.rest.ip(), "name": format!("{name}.{DOMAIN}") });
    // MC_SCREENSHOTS=folder keeps screenshots.
    let folder = std::env::var("MC_SCREENSHOTS").unwrap_or_else(|_unset| "-".to_owned());
    let at = json!({
        "mcat": host("mcat", &site.mcat), "mcias": host("mcias", &site.mcias), "password": PASSWORD,
        "admin": "ada", "second": "carol", "denied": "dan", "rule": "no-dan-here", "folder": folder,
        "tokens": { "admin": site.mcias.login("ada"), "second": second },
    });
    let seen = node_script("mcat.mjs", &[&at.to_string()], &[]);
    assert_eq!(seen["failed"], Value::Null, "{seen:#}");
    for what in [
        "led_back",
        "denied_login_names_its_rule",
        "denied_by_rule",
        "unknown_service_is_warned_of",
        "wrong_tag_is_explained",
        "wrong_draft_has_a_place",
        "draft_denies",
        "totp_login",
        "passkey_login",
    ] {
        assert_eq!(seen[what], true, "{what}: {seen:#}");
    }
    assert_eq!(seen["passkey_domain"], DOMAIN);
    // Carol has not logged in to MCAT before: the draft denies her all the same.
    assert!(seen["changes"].to_string().contains("carol"), "{seen:#}");
    assert_eq!(seen["violations"], json!([]), "axe-core found something");
    for what in ["errors", "wide", "hidden", "styled"] {
        assert_eq!(seen[what], json!([]), "{what}");
    }
    assert_eq!(seen["pages"].as_array().unwrap().len(), 11, "{seen:#}");
}

fn get(site: &Site, path: &str, token: &str) -> Answer {
    let head = format!("cookie: __Host-session={token}\r\naccept: text/html\r\n");
    site.mcat.raw_with("GET", path, &head, "", b"")
}

fn post(site: &Site, token: &str, origin: &str, body: &str) -> Answer {
    let head = format!("cookie: __Host-session={token}\r\norigin: {origin}\r\naccept: text/html\r\n");
    site.mcat.raw_with("POST", "/", &head, "application/x-www-form-urlencoded", body.as_bytes())
}

fn csrf(answer: &Answer) -> String {
    let (_, rest) = answer.text.split_once("name=\"csrf\" value=\"").expect("a form has a token");
    rest.split('"').next().unwrap().to_owned()
}

#[test]
fn a_link_has_the_answer_and_a_form_needs_its_token() {
    let site = Site::start();
    let bob = site.login("bob");
    let answer = get(&site, "/?service=mcr&tags=prod", &bob);
    assert!(answer.text.contains(RULE) && answer.text.contains("Link to this answer"), "{}", answer.text);
    let token = csrf(&answer);
    let draft = "default+%3D+%22deny%22";
    let good = post(&site, &bob, &url("mcat"), &format!("csrf={token}&service=mcr&draft={draft}"));
    assert!(good.status == 200 && good.text.contains("mcr: draft"), "{}", good.text);
    assert!(!good.text.contains("for everybody"), "that is for admins");
    // What was typed is shown again with an expired form; a forged one is refused.
    let expired = post(&site, &bob, &url("mcat"), &format!("csrf=x&service=mcr&draft={draft}"));
    assert!(expired.status == 403 && expired.text.contains("default = &quot;deny&quot;"), "{}", expired.text);
    assert!(!expired.text.contains("mcr: draft"), "{}", expired.text);
    let forged = post(&site, &bob, "https://evil.test", &format!("csrf={token}&service=mcr"));
    assert!(forged.status == 403 && !forged.text.contains(RULE), "{}", forged.text);
    // Hostile text is shown as text.
    let body = format!("csrf={token}&service=%3Cscript%3E&tags=%22%3E%3Ci%3E&draft=%3Cscript%3E");
    let hostile = post(&site, &bob, &url("mcat"), &body);
    assert_eq!(hostile.status, 400);
    assert!(!hostile.text.contains("<script>") && !hostile.text.contains("\"><i>"), "{}", hostile.text);
    assert_eq!(get(&site, "/?service=a&service=b", &bob).status, 400);
}

#[test]
fn the_policy_denies_mcat_to_a_session_at_once() {
    let site = Site::start();
    let bob = site.login("bob");
    let rule = json!({ "name": "no-guests", "priority": 1, "effect": "deny", "roles": ["guest"] });
    assert_eq!(site.mcias.set_policy(&site.admin, "allow", &json!([rule])).status, 200);
    let page = get(&site, "/", &bob);
    assert!(page.status == 303 && page.head.contains("location: /login"), "{}", page.head);
}
