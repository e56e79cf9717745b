//! A token that is revoked by any means is invalid at the next introspection.

use mc_testkit::mcias::Mcias;
use serde_json::{Value, json};

#[test]
fn a_token_is_valid_until_it_is_revoked_or_its_account_is_disabled() {
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
    // Introspection returns current roles.
    let guest = json!({ "roles": ["guest"] });
    mcias.edited(&admin, "bob", &guest);
    assert_eq!(mcias.introspect(&service, &bob).body["roles"], json!(["guest"]));
    mcias.done("POST", "/v1/me/logout", &bob, &Value::Null);
    let told = mcias.introspect(&service, &bob);
    assert_eq!(told.body, json!({ "active": false }));
    // Disabling an account ends its sessions for good.
    let bob = mcias.login("bob");
    mcias.edited(&admin, "bob", &json!({ "enabled": false }));
    assert_eq!(mcias.introspect(&service, &bob).body["active"], json!(false));
    mcias.edited(&admin, "bob", &json!({ "enabled": true }));
    assert_eq!(mcias.introspect(&service, &bob).body["active"], json!(false));
    // Tokens of a system account.
    let tokens = mcias.done("GET", "/v1/accounts/mcr/tokens", &admin, &Value::Null);
    let id = tokens["tokens"][0]["id"].as_str().unwrap().to_owned();
    mcias.done("DELETE", &format!("/v1/accounts/mcr/tokens/{id}"), &admin, &Value::Null);
    assert_eq!(mcias.introspect(&service, &admin).status, 401);
    let verdict = mcias.done("POST", "/v1/audit/verify", &admin, &json!({}));
    assert_eq!(verdict["intact"], json!(true));
}

#[test]
fn withdrawing_a_key_invalidates_everything_it_signed() {
    let mcias = Mcias::start();
    let admin = mcias.login("ada");
    let service = mcias.service(&admin, "mcr", &[]);
    mcias.person(&admin, "bob", &["user"]);
    let bob = mcias.login("bob");
    let keys = |token: &str| {
        let keys = mcias.done("GET", "/v1/keys", token, &Value::Null)["keys"].clone();
        let keys = keys.as_array().unwrap().iter().map(|key| (key["id"].clone(), key["signing"].clone()));
        keys.map(|(id, signs)| (id.as_str().unwrap().to_owned(), signs == true)).collect::<Vec<_>>()
    };
    let withdraw =
        |token: &str, key: &str| mcias.ask("DELETE", &format!("/v1/keys/{key}"), token, &Value::Null);
    // Withdrawing the next key, which has signed nothing, ends no session.
    mcias.done("POST", "/v1/keys/rotate", &admin, &Value::Null);
    let both = keys(&admin);
    let [(stolen, true), (next, false)] = both.as_slice() else { panic!("{both:?}") };
    assert_eq!(withdraw(&bob, next).status, 403);
    assert_eq!(withdraw(&admin, next).body["changed"], 0);
    assert_eq!(withdraw(&admin, next).status, 404);
    assert_eq!(keys(&admin), [(stolen.clone(), true)]);
    // The key that a thief has.
    let copy = mcias.folder().join("stolen.db");
    mcias.run(&["snapshot", copy.to_str().unwrap()]);
    let copy = rusqlite::Connection::open(copy).unwrap();
    let pkcs8: Vec<u8> =
        copy.query_row("SELECT pkcs8 FROM signing_keys WHERE id = ?1", [stolen], |row| row.get(0)).unwrap();
    let forge = |of: &str| {
        let claims = data_encoding::BASE64URL_NOPAD.decode(of.split('.').nth(1).unwrap().as_bytes()).unwrap();
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::EdDSA);
        (header.typ, header.kid) = (Some("at+jwt".to_owned()), Some(stolen.clone()));
        jsonwebtoken::encode(&header, &claims, &jsonwebtoken::EncodingKey::from_ed_der(&pkcs8)).unwrap()
    };
    assert_eq!(
        mcias.introspect(&service, &forge(&bob)).body["active"],
        true,
        "the forged token must be valid before the withdrawal"
    );
    // Ada, Bob and the service.
    assert_eq!(withdraw(&admin, stolen).body["changed"], 3);
    for (token, whose) in [(&admin, "ada"), (&bob, "bob"), (&service, "mcr")] {
        assert_eq!(mcias.ask("GET", "/v1/me", token, &Value::Null).status, 401, "{whose}");
    }
    let admin = mcias.login("ada");
    let now = keys(&admin);
    assert!(matches!(now.as_slice(), [(new, true)] if new != stolen && new != next), "{now:?}");
    let published = mcias.done("GET", "/.well-known/jwks.json", "", &Value::Null);
    assert_eq!(published["keys"].as_array().unwrap().len(), 1);
    assert_eq!(published["keys"][0]["kid"], now[0].0.as_str());
    let service = mcias.service(&admin, "mcns", &[]);
    let bob = mcias.login("bob");
    assert_eq!(mcias.introspect(&service, &bob).body["active"], true);
    assert_eq!(mcias.introspect(&service, &forge(&bob)).body["active"], false);
    assert_eq!(mcias.ask("GET", "/v1/me", &forge(&admin), &Value::Null).status, 401);
    let audit = mcias.done("GET", "/v1/audit?limit=100", &admin, &Value::Null);
    let entries = audit["entries"].as_array().unwrap();
    let withdrawn = |entry: &&Value| entry["action"] == "key.withdraw" && entry["target"] == stolen.as_str();
    let entry = entries.iter().find(withdrawn).expect("the withdrawal is in the audit log");
    assert_eq!(entry["detail"], "3 sessions and tokens ended");
}
