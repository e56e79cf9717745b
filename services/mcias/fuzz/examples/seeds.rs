//! Writes the seeds anew: `cargo run --example seeds`, in this folder.

use std::fs;
use std::path::Path;

use mcias_fuzz::token::{GOOD, NOW, claims, header};
use serde_json::json;

fn main() -> std::io::Result<()> {
    for (target, seeds) in [
        ("account_name", names()),
        ("login_policy", policies()),
        ("password_hash", hashes()),
        ("recovery_code", recovery_codes()),
        ("token", tokens()),
        ("totp_code", totp_codes()),
    ] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
        fs::create_dir_all(&folder)?;
        for (at, seed) in seeds.into_iter().enumerate() {
            fs::write(folder.join(format!("{at:02}")), seed)?;
        }
    }
    Ok(())
}

/// None has upper case: that is left to find.
fn names() -> Vec<String> {
    ["a", "mc-proxy", "ada.lovelace@example.org", "-a", "a b", "", "a_b_"].map(String::from).into()
}

/// No order of writing is another one than that of deciding: that is left to find.
fn policies() -> Vec<String> {
    let all = json!({"name": "all", "priority": 100, "effect": "allow"});
    let ada =
        json!({"name": "ada", "priority": 10, "effect": "deny", "usernames": ["ada"], "services": ["mcr"]});
    let guests =
        json!({"name": "guests", "priority": 20, "effect": "deny", "roles": ["guest"], "tags": ["internal"]});
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

/// None has spaces around it: that is left to find.
fn totp_codes() -> Vec<String> {
    ["0081804", "0050471", "0266759", "6050471", "5050471", "0000000", "0abcdef", "012345"]
        .map(String::from)
        .into()
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
