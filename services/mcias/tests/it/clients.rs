//! MCIAS with third-party clients: JWT libraries, oathtool, gRPC reflection, schemathesis.

use std::process::Command;

use mc_testkit::mcias::{Mcias, NAME, PASSWORD};
use mc_testkit::{node_script, python_script, requires, venv};
use serde_json::{Value, json};

/// A token with a claim changed and the old signature.
fn tampered(token: &str) -> String {
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    let payload = data_encoding::BASE64URL_NOPAD.decode(parts[1].as_bytes()).unwrap();
    let payload = String::from_utf8(payload)
        .unwrap()
        .replace("\"preferred_username\":\"ada\"", "\"preferred_username\":\"eve\"");
    parts[1] = data_encoding::BASE64URL_NOPAD.encode(payload.as_bytes());
    parts.join(".")
}

#[test]
fn pyjwt_and_jose_verify_tokens_before_and_after_a_key_rotation() {
    requires!("python3", "node", "npm");
    let mcias = Mcias::start_with("[tokens]\nkey_overlap_s = 0", &[]);
    let (keys, issuer) = (format!("https://{}/.well-known/jwks.json", mcias.rest), mcias.url());
    let ca = mcias.ca_file().display().to_string();
    let pyjwt = |token: &str| python_script("pyjwt.py", &[&keys, &ca, &issuer, token], &[]);
    let jose =
        |token: &str| node_script("jose.mjs", &[&keys, &issuer, token], &[("NODE_EXTRA_CA_CERTS", &ca)]);
    let admin = mcias.login("ada");
    let service = mcias.service(&admin, "mcr", &[]);
    for (token, subject) in [(&admin, "ada"), (&service, "mcr")] {
        for told in [pyjwt(token), jose(token)] {
            assert_eq!(told["claims"]["preferred_username"], subject, "{told}");
            let account = mcias.done("GET", &format!("/v1/accounts/{subject}"), &admin, &Value::Null);
            assert_eq!(told["claims"]["sub"], account["id"], "{told}");
            assert_eq!(told["claims"]["iss"], issuer, "{told}");
            assert_eq!((&told["header"]["alg"], &told["header"]["typ"]), (&json!("EdDSA"), &json!("at+jwt")));
        }
    }
    let forged = tampered(&admin);
    assert!(pyjwt(&forged)["refused"].as_str().unwrap().contains("InvalidSignature"));
    assert!(jose(&forged)["refused"].as_str().unwrap().contains("SIGNATURE"));
    mcias.done("POST", "/v1/keys/rotate", &admin, &Value::Null);
    // The new key signs from the next second on.
    let after =
        mc_testkit::clock::wait_for("the new key to sign", std::time::Duration::from_secs(10), || {
            let after = mcias.login("ada");
            (pyjwt(&after)["kid"] != pyjwt(&admin)["kid"]).then_some(after)
        });
    for token in [&admin, &service, &after] {
        assert!(pyjwt(token)["claims"].is_object() && jose(token)["claims"].is_object());
        assert_eq!(mcias.introspect(&service, token).body["active"], true);
    }
}

#[test]
fn codes_of_oathtool_work_once() {
    requires!("oathtool");
    let mcias = Mcias::start();
    let ada = mcias.login("ada");
    let secret = mcias.ask("POST", "/v1/me/totp/begin", &ada, &Value::Null).text_of("secret");
    let code = |at: &str| {
        let output =
            Command::new("oathtool").args(["--totp", "--base32", "--now", at, &secret]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    // A step lasts 30 s. What follows must happen within one step.
    let into_step = || {
        let now = Command::new("date").arg("+%s").output().unwrap().stdout;
        String::from_utf8(now).unwrap().trim().parse::<u64>().unwrap() % 30
    };
    mc_testkit::clock::wait_for("a step to begin", std::time::Duration::from_secs(30), || {
        (into_step() < 18).then_some(())
    });
    // The code of the step before is accepted too: two codes without a wait of 30 s.
    let (before, now) = (code("30 seconds ago"), code("now"));
    let confirmed = mcias.done("POST", "/v1/me/totp/confirm", &ada, &json!({ "code": before }));
    let codes = confirmed["codes"].as_array().unwrap();
    assert_eq!(codes.len(), 10);
    let login = |more: Value| {
        let mut body = json!({ "username": "ada", "password": PASSWORD });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        mcias.ask("POST", "/v1/login", "", &body)
    };
    let reason = |more: Value| {
        let answer = login(more);
        assert_eq!(answer.status, 401, "{}", answer.text);
        answer.text_of("reason")
    };
    assert_eq!(reason(json!({})), "second-factor-required");
    assert_eq!(reason(json!({ "totp": before })), "used-code");
    assert_eq!(login(json!({ "totp": now })).status, 200);
    assert_eq!(reason(json!({ "totp": now })), "used-code");
    assert_eq!(reason(json!({ "totp": "x" })), "wrong-code");
    let recovery = codes[3].as_str().unwrap().to_uppercase().replace('-', " ");
    assert_eq!(login(json!({ "recovery_code": recovery })).body["recovery_codes_left"], 9);
    assert_eq!(reason(json!({ "recovery_code": recovery })), "wrong-code");
    // A shorter password is allowed with a second factor only.
    let change = |current: &str, new: &str| {
        mcias.ask("PUT", "/v1/me/password", &ada, &json!({ "current": current, "password": new })).status
    };
    assert_eq!(change(PASSWORD, "kq7Zr2vX9p"), 200);
    let answer = mcias.ask("DELETE", "/v1/me/totp", &ada, &Value::Null);
    assert_eq!((answer.status, answer.text_of("reason")), (409, "short-password".to_owned()));
    assert_eq!(change("kq7Zr2vX9p", PASSWORD), 200);
    // An admin removes the second factor of a person who lost it.
    let reset = mcias.done("POST", "/v1/accounts/ada/reset-factors", &ada, &Value::Null);
    assert_eq!(reset["changed"], 1);
    assert_eq!(mcias.ask("GET", "/v1/me", &ada, &Value::Null).status, 401);
    assert_eq!(login(json!({})).status, 200);
}

#[test]
fn a_grpc_client_without_our_proto_uses_reflection() {
    requires!("python3");
    let mcias = Mcias::start();
    let ca = mcias.ca_file().display().to_string();
    let told = python_script("reflection.py", &[&mcias.grpc.to_string(), &ca, NAME], &[]);
    let services = told["services"].as_array().unwrap();
    for name in ["mcias.v1.Identity", "mcias.v1.SigningKeys", "policy.v1.Policy", "audit.v1.Audit"] {
        let name = format!("metacircular.{name}");
        assert!(services.contains(&json!(name)), "{name}: {told}");
        assert_eq!(told["health"][&name], 1, "{name}: {told}");
    }
    assert_eq!((&told["health"][""], &told["keys"]["keys"][0]["crv"]), (&json!(1), &json!("Ed25519")));
    assert_eq!(told["too_large"], "RESOURCE_EXHAUSTED");
    assert_eq!(told["refused"], json!({ "code": "UNAUTHENTICATED", "reason": "unauthenticated" }));
}

#[test]
fn schemathesis_finds_no_server_error_and_no_undocumented_response() {
    requires!("python3");
    let mcias = Mcias::start();
    let admin = mcias.login("ada");
    let output = Command::new(venv().join("bin/schemathesis"))
        .args(["run", "--url", &format!("https://{}", mcias.rest), "--max-examples", "15", "--seed", "7"])
        .args(["--checks", "all", "--continue-on-failure", "--suppress-health-check", "all", "--no-color"])
        // MCIAS checks more than a schema can say; and the paths that end the session under test would end the test.
        .args(["--exclude-checks", "positive_data_acceptance,missing_required_header,unsupported_method"])
        .args(["--exclude-path", "/v1/me/logout", "--exclude-path", "/v1/me/password"])
        .args(["--tls-verify"])
        .arg(mcias.ca_file())
        .args(["--header", &format!("Authorization: Bearer {admin}")])
        .arg(format!("https://{}/openapi.json", mcias.rest))
        .current_dir(mcias.folder())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    let tested =
        told.split("Tested: ").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse::<u32>().ok());
    assert!(tested.is_some_and(|tested| tested >= 38), "{told}");
    assert!(!mcias.log().contains("panicked"), "{}", mcias.log());
}
