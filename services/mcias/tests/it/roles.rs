//! No sequence of requests gives a system account a role: checked by introspection, by the admin's list, and in the
//! database.

use std::collections::BTreeMap;

use mc_testkit::clock;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use crate::local::{Local, text};

const NAMES: [&str; 4] = ["mcr", "mcp", "bob", "eve"];

/// Values for `roles`, valid and invalid.
fn roles() -> impl Strategy<Value = Value> {
    select(vec![
        Value::Null,
        json!([]),
        json!(["admin"]),
        json!(["user", "guest"]),
        json!(["admin", "admin"]),
        json!(["ADMIN"]),
        json!([""]),
        json!("admin"),
        json!({ "words": ["admin"] }),
        json!(["guest", "user"]),
        json!(["admin", null]),
        json!(7),
    ])
}

#[derive(Clone, Debug)]
enum Step {
    Create { name: &'static str, kind: &'static str, roles: Value },
    Update { name: &'static str, roles: Value, more: Value },
    Delete { name: &'static str },
    Issue { name: &'static str },
    Link { name: &'static str },
    Policy { default: &'static str, roles: Value },
}

fn step() -> impl Strategy<Value = Step> {
    let name = || select(NAMES.to_vec());
    let more = vec![
        json!({}),
        json!({ "service": "mcr" }),
        json!({ "enabled": false }),
        json!({ "enabled": true, "tags": ["admin"] }),
        json!({ "account_type": "human" }),
        json!({ "name": "ada" }),
    ];
    let kind = || select(vec!["human", "system", "system", "System", ""]);
    prop_oneof![
        4 => (name(), kind(), roles()).prop_map(|(name, kind, roles)| Step::Create { name, kind, roles }),
        4 => (name(), roles(), select(more)).prop_map(|(name, roles, more)| Step::Update { name, roles, more }),
        2 => name().prop_map(|name| Step::Delete { name }),
        3 => name().prop_map(|name| Step::Issue { name }),
        1 => name().prop_map(|name| Step::Link { name }),
        1 => (select(vec!["allow", "deny"]), roles()).prop_map(|(default, roles)| Step::Policy { default, roles }),
    ]
}

/// Sends the request of a step, which may fail. Returns a token if one was issued.
fn run(mcias: &Local, admin: &str, step: &Step) -> Option<String> {
    let (method, path, body) = match step {
        Step::Create { name, kind, roles } => {
            let mut body = json!({ "name": name, "account_type": kind });
            if !roles.is_null() {
                body["roles"] = roles.clone();
            }
            ("POST", "/v1/accounts".to_owned(), body)
        }
        Step::Update { name, roles, more } => {
            let mut change = more.clone();
            if !roles.is_null() {
                change["roles"] = roles.clone();
            }
            let answer = mcias.edit(admin, name, &change);
            assert!(answer.status < 500, "{step:?}: {answer:?}");
            return None;
        }
        Step::Delete { name } => ("DELETE", format!("/v1/accounts/{name}"), Value::Null),
        Step::Issue { name } => ("POST", format!("/v1/accounts/{name}/tokens"), json!({ "label": "one" })),
        Step::Link { name } => ("POST", format!("/v1/accounts/{name}/link"), Value::Null),
        Step::Policy { default, roles } => {
            let rule = json!({ "name": "one", "priority": 1, "effect": "allow", "roles": roles, "account_types": ["system"] });
            let answer = mcias.set_policy(admin, default, &json!([rule]));
            assert!(answer.status < 500, "{step:?}: {answer:?}");
            return None;
        }
    };
    let answer = mcias.ask(method, &path, admin, &body);
    assert!(answer.status < 500, "{step:?}: {answer:?}");
    matches!(step, Step::Issue { .. }).then(|| answer.body["token"].as_str().map(str::to_owned)).flatten()
}

/// Checks that no system account has a role.
fn check(mcias: &Local, admin: &str, service: &str, tokens: &[String]) {
    let listed = mcias.done("GET", "/v1/accounts?limit=1000", admin, &Value::Null);
    let mut kinds = BTreeMap::new();
    for account in listed["accounts"].as_array().unwrap() {
        let is_system = account["account_type"] == json!("system");
        assert!(!is_system || account["roles"] == json!([]), "{account}");
        kinds.insert(text(&account["name"]), is_system);
    }
    for token in tokens {
        let told = mcias.introspect(service, token).body;
        assert!(told["roles"].is_null(), "{told}");
        if told["active"] == json!(true) {
            assert_eq!(
                (&told["account_type"], kinds[&text(&told["username"])]),
                (&json!("system"), true),
                "{told}"
            );
        }
    }
    let db = mcias.database();
    let wrong = "SELECT count(*) FROM accounts
                 WHERE kind = 1 AND (roles <> 0 OR password IS NOT NULL OR totp IS NOT NULL
                                     OR id IN (SELECT account FROM passkeys UNION SELECT account FROM links))";
    let wrong: i64 = db.query_row(wrong, [], |row| row.get(0)).unwrap();
    assert_eq!(wrong, 0);
    let admins: Vec<String> = {
        let mut admins = db.prepare("SELECT name FROM accounts WHERE roles & 1 AND kind = 1").unwrap();
        admins.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    assert_eq!(admins, Vec::<String>::new());
}

#[test]
fn no_sequence_of_requests_gives_a_system_account_a_role() {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 24,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let began = clock::now();
    let result = runner.run(&vec(step(), 40..80), |steps| {
        // Long sequences rather than many, for 20 s.
        if began.elapsed().as_secs() >= 20 {
            return Ok(());
        }
        let mcias = Local::start();
        let admin = mcias.login("ada");
        let service = mcias.service(&admin, "watcher");
        let mut tokens = Vec::new();
        for step in &steps {
            tokens.extend(run(&mcias, &admin, step));
            check(&mcias, &admin, &service, &tokens);
        }
        mcias.verified(&admin);
        Ok(())
    });
    result.unwrap();
}

#[test]
fn the_schema_refuses_a_system_account_with_a_role() {
    let mcias = Local::start();
    let admin = mcias.login("ada");
    drop(mcias.service(&admin, "mcr"));
    let path = mcias.database().path().unwrap().to_owned();
    let db = rusqlite::Connection::open(path).unwrap();
    for change in ["roles = 1", "roles = 4", "kind = 0, roles = 8", "password = 'x'"] {
        let refused = db.execute(&format!("UPDATE accounts SET {change} WHERE name = 'mcr'"), []);
        assert!(refused.unwrap_err().to_string().contains("CHECK constraint"), "{change}");
    }
}
