//! Rewrites the seeds: `cargo run --example mcias-fuzz-seeds`.

use std::fs;
use std::path::Path;

use mcias_fuzz::archive::seed;
use mcias_fuzz::token::{GOOD, NOW, claims, header};
use serde_json::json;

fn main() -> std::io::Result<()> {
    for (target, seeds) in [
        ("account_name", bytes(names())),
        ("archive", archives()),
        ("browser", bytes(requests())),
        ("login_policy", bytes(policies())),
        ("password_hash", bytes(hashes())),
        ("recovery_code", bytes(recovery_codes())),
        ("token", bytes(tokens())),
        ("totp_code", bytes(totp_codes())),
    ] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
        fs::create_dir_all(&folder)?;
        for (at, seed) in seeds.into_iter().enumerate() {
            fs::write(folder.join(format!("{at:02}")), seed)?;
        }
    }
    Ok(())
}

fn bytes(texts: Vec<String>) -> Vec<Vec<u8>> {
    texts.into_iter().map(String::into_bytes).collect()
}

/// None has a link that leads out: that is left to find.
fn archives() -> Vec<Vec<u8>> {
    let site = [(b'5', "./", "", ""), (b'0', "site.toml", "", "[server]"), (b'5', "certs", "", "")];
    let linked = [&site[..], &[(b'0', "certs/a.pem", "", "a"), (b'2', "certs/now", "a.pem", "")]].concat();
    let twice = [&site[..], &[(b'0', "site.toml", "", "")]].concat();
    vec![
        seed(&site),
        seed(&linked),
        seed(&twice),
        seed(&[(b'5', ".", "", ""), (b'0', "../x", "", "x")]),
        seed(&[(b'5', ".", "", ""), (b'1', "x", "y", "")]),
        seed(&[(b'0', "x", "", "x")]),
        // Found: a long name with a zero byte was said to the terminal as it was.
        seed(&[(b'5', ".", "", ""), (b'L', "l", "", "\u{1b}c\0x"), (b'0', "x", "", "")]),
        b"z".to_vec(),
        b"r\x28\xb5\x2f\xfd".to_vec(),
    ]
}

/// No path has a backslash: that is left to find.
fn requests() -> Vec<String> {
    let (token, flash) = mcias_fuzz::browser::good();
    let csrf = format!("__Host-csrf={}", "A".repeat(43));
    [
        format!("__Host-session=a.b.c; x=1; {flash}\n{token}\n/accounts?after=7"),
        format!("{csrf}\n{}\n//elsewhere", token.to_lowercase()),
        "__Host-session=a; __Host-session=b\n\n/".to_owned(),
        "__host-session=a;=;;\nA\nhttps://elsewhere".to_owned(),
        "\n\n/a b".to_owned(),
    ]
    .into()
}

/// None has upper case: that is left to find.
fn names() -> Vec<String> {
    ["a", "mc-proxy", "ada.lovelace@example.org", "-a", "a b", "", "a_b_"].map(String::from).into()
}

/// No order of writing is another one than that of deciding: that is left to find.
fn policies() -> Vec<String> {
    let all = json!({"name": "all", "priority": 100, "effect": "allow"});
    let ada =
        json!({"name": "ada", "priority": 10, "effect": "deny", "accounts": ["ada"], "resources": ["mcr"]});
    let guests = json!({"name": "guests", "priority": 20, "effect": "deny", "roles": ["guest"], "resource_tags": ["internal"]});
    let robots = json!({"name": "robots", "priority": 30, "effect": "allow", "account_types": ["system"]});
    let of = |mode: &str, rules: serde_json::Value| format!("{mode}{rules}");
    vec![
        of("0", json!([])),
        of("0", json!([all])),
        of("1", json!([ada, robots, all])),
        of("(", json!([guests, all])),
        of("6", json!([robots, robots])),
        of("2", json!([{"name": "A", "priority": -1, "effect": "no"}])),
    ]
}

/// Nothing comes after a good one: that is left to find.
fn hashes() -> Vec<String> {
    let good = &*mcias_fuzz::password_hash::GOOD;
    vec![
        good.clone(),
        good.replace("argon2id", "argon2d"),
        good.replace("v=19", "v=16"),
        good.replace("m=8", "m=4294967295"),
        good.replace("p=1", "p=1,keyid=AAAA"),
        good[..40].to_owned(),
        String::new(),
    ]
}

/// None has a `u`: that is left to find.
fn recovery_codes() -> Vec<String> {
    ["0123-4567-89ab-cdef", "OIL3 4567 89AB CDEF", "ghjkmnpqrstvwxyz", "0123", "", "0123-4567-89ab-cdef-0"]
        .map(String::from)
        .into()
}

/// None has dashes around it: that is left to find.
fn totp_codes() -> Vec<String> {
    let codes =
        ["0081804", "0050471", "0266759", "6050471", "5050471", "0000000", "0abcdef", "012345", "0050 471 "];
    // The digits of a code, and too many spaces for one.
    codes.map(String::from).into_iter().chain([format!("00{}50471", "\t".repeat(38))]).collect()
}

/// None has expired: that is left to find.
fn tokens() -> Vec<String> {
    let signed = |header: &str, payload: serde_json::Value| format!("1{header}\n{payload}");
    let with = |field: &str, value: serde_json::Value| {
        let mut payload = json!(claims());
        payload[field] = value;
        payload
    };
    vec![
        format!("0{}", *GOOD),
        format!("0{}A", *GOOD),
        "0a.b.c".to_owned(),
        signed(&header(), json!(claims())),
        signed(&header(), with("aud", json!("mcr"))),
        signed(&header(), with("aud", json!([]))),
        signed(&header(), with("exp", json!(NOW + 1))),
        signed(&header(), with("nbf", json!(NOW + 61))),
        signed(&header().replace("EdDSA", "none"), json!(claims())),
        signed(&header().replace("{", r#"{"crit":["exp"],"#), json!(claims())),
    ]
}
