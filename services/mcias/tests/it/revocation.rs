//! Whatever may end a token ends it for the next one who asks.

use mc_testkit::mcias::Mcias;
use serde_json::{Value, json};

#[test]
fn a_token_is_good_until_it_is_revoked_or_its_account_is_disabled() {
    let mcias = Mcias::start();
    let admin = mcias.login("ada");
    let service = mcias.service(&admin, "mcr", &["prod"]);
    mcias.person(&admin, "bob", &["user"]);
    let bob = mcias.login("bob");
    let told = mcias.introspect(&service, &bob);
    assert_eq!(
        (told.status, &told.body["active"], &told.body["roles"]),
        (200, &json!(true), &json!(["user"]))
    );
    // Roles as they are, not as they were.
    let guest = json!({ "roles": { "words": ["guest"] } });
    mcias.done("PATCH", "/v1/accounts/bob", &admin, &guest);
    assert_eq!(mcias.introspect(&service, &bob).body["roles"], json!(["guest"]));
    mcias.done("POST", "/v1/me/logout", &bob, &Value::Null);
    let told = mcias.introspect(&service, &bob);
    assert_eq!(told.body, json!({ "active": false, "roles": [], "tags": [], "aud": [] }));
    // Who is disabled is out at once, and stays out of what was before.
    let bob = mcias.login("bob");
    mcias.done("PATCH", "/v1/accounts/bob", &admin, &json!({ "enabled": false }));
    assert_eq!(mcias.introspect(&service, &bob).body["active"], json!(false));
    mcias.done("PATCH", "/v1/accounts/bob", &admin, &json!({ "enabled": true }));
    assert_eq!(mcias.introspect(&service, &bob).body["active"], json!(false));
    // A service's own.
    let tokens = mcias.done("GET", "/v1/accounts/mcr/tokens", &admin, &Value::Null);
    let id = tokens["tokens"][0]["id"].as_str().unwrap().to_owned();
    mcias.done("DELETE", &format!("/v1/accounts/mcr/tokens/{id}"), &admin, &Value::Null);
    assert_eq!(mcias.introspect(&service, &admin).status, 401);
    let verdict = mcias.done("POST", "/v1/audit/verify", &admin, &json!({}));
    assert_eq!(verdict["intact"], json!(true));
}
