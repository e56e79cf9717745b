//! What a login tester may ask: decisions about whoever is logged in to it, and drafts for admins.

use mc_testkit::mcias::{Mcias, PASSWORD};
use serde_json::{Value, json};

struct Tester {
    mcias: Mcias,
    admin: String,
    /// The tester's own token.
    service: String,
}

impl Tester {
    fn start() -> Self {
        let mcias = Mcias::start();
        let admin = mcias.login("ada");
        let service = mcias.service(&admin, "mcat", &["login-tester"]);
        drop(mcias.service(&admin, "mcr", &["prod"]));
        mcias.person(&admin, "bob", &["guest"]);
        Self { mcias, admin, service }
    }

    /// Logs in to the tester.
    fn login(&self, name: &str) -> String {
        let body = json!({ "username": name, "password": PASSWORD });
        self.mcias.ask("POST", "/v1/login", &self.service, &body).text_of("token")
    }
}

fn rule(name: &str, effect: &str) -> Value {
    json!({ "name": name, "priority": 1, "effect": effect, "roles": ["guest"], "resource_tags": ["prod"] })
}

#[test]
fn a_tester_learns_what_is_decided_for_who_is_logged_in_to_it() {
    let tester = Tester::start();
    let rules = json!([rule("no-guests", "deny")]);
    assert_eq!(tester.mcias.set_policy(&tester.admin, "allow", &rules).status, 200);
    let bob = tester.login("bob");
    let test = |more: Value| {
        let mut body = json!({ "token": bob, "service": "mcr" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        tester.mcias.ask("POST", "/v1/login-tests", &tester.service, &body)
    };
    let told = test(json!({})).body;
    assert_eq!((&told["account"], &told["roles"]), (&json!("bob"), &json!(["guest"])));
    assert_eq!(told["decision"]["effect"], "deny");
    assert_eq!(told["decision"]["deciding_rule"]["name"], "no-guests");
    let claims: Value = serde_json::from_str(told["claims"].as_str().unwrap()).unwrap();
    assert_eq!((&claims["sub"], &claims["aud"]), (&told["account_id"], &json!(["mcat"])));
    // Under other tags, and under a draft.
    let told = test(json!({ "registered_tags": false })).body;
    assert_eq!(told["decision"]["effect"], "allow");
    let draft = json!({ "default": "deny", "rules": [] });
    let told = test(json!({ "service_tags": ["test"], "draft": draft })).body;
    let effects = [&told["decision"]["effect"], &told["draft_decision"]["effect"]];
    assert_eq!(effects, [&json!("allow"), &json!("deny")]);
    let unknown = test(json!({ "service": "elsewhere" })).body;
    assert_eq!(unknown["decision"]["warnings"][0]["field"], "service", "{unknown}");
    assert_eq!(test(json!({ "service": "" })).text_of("field"), "service");
    assert_eq!(test(json!({ "service_tags": ["A"] })).text_of("field"), "service_tags[0]");
    let draft = json!({ "default": "perhaps", "rules": [] });
    assert_eq!(test(json!({ "draft": draft })).text_of("field"), "draft.default");
    assert_eq!(
        tester.mcias.introspect(&tester.service, &bob).body["active"],
        true,
        "nothing was issued or ended"
    );
}

#[test]
fn others_learn_nothing() {
    let tester = Tester::start();
    let (mcias, bob) = (&tester.mcias, tester.login("bob"));
    let mcr = mcias.token(&tester.admin, "mcr", "second");
    let test = |caller: &str, token: &str| {
        let body = json!({ "token": token, "service": "mcr" });
        let answer = mcias.ask("POST", "/v1/login-tests", caller, &body);
        (answer.status, answer.body["field"].clone())
    };
    assert_eq!(test(&tester.service, &bob).0, 200);
    // Another service; a person; a token that is not for the tester, is no token, or has ended.
    assert_eq!(test(&mcr, &bob), (403, Value::Null));
    assert_eq!(test(&tester.admin, &bob), (403, Value::Null));
    for token in [tester.admin.as_str(), "nonsense"] {
        assert_eq!(test(&tester.service, token), (400, json!("token")));
    }
    mcias.done("DELETE", "/v1/accounts/bob/sessions", &tester.admin, &Value::Null);
    assert_eq!(test(&tester.service, &bob), (400, json!("token")));
    let audit = mcias.done("GET", "/v1/audit?action=login.test", &tester.admin, &Value::Null).to_string();
    assert!(audit.contains("\"actor\":\"mcr\""), "{audit}");
}

#[test]
fn a_draft_is_tried_against_the_logins_of_the_last_month() {
    let tester = Tester::start();
    for _ in 0..3 {
        drop(tester.login("bob"));
    }
    let test = |name: &str, default: &str| {
        let rules = json!([
            { "name": "admins", "priority": 0, "effect": "allow", "roles": ["admin"] },
            { "name": "no-bob", "priority": 1, "effect": "deny", "accounts": ["bob"], "resources": ["mcat"] },
        ]);
        let body = json!({ "token": tester.login(name), "draft": { "default": default, "rules": rules } });
        tester.mcias.ask("POST", "/v1/policy-tests", &tester.service, &body)
    };
    let told = test("ada", "allow").body;
    let check = &told["check"];
    assert_eq!(check["recent_uses_denied"], 3, "{check}");
    let change = &check["changes"][0];
    assert_eq!(
        (&change["account"], &change["resource"], &change["recent_uses"]),
        (&json!("bob"), &json!("mcat"), &json!(3))
    );
    assert_eq!(test("ada", "perhaps").text_of("field"), "draft.default");
    // Who is no admin learns nothing about others.
    assert_eq!(test("bob", "allow").status, 403);
}
