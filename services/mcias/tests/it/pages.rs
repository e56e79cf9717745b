//! The pages, in a browser, as people use them.

use mc_testkit::mcias::{Mcias, PASSWORD};
use mc_testkit::{node_script, requires};
use serde_json::{Value, json};

#[test]
fn people_log_in_by_password_code_and_passkey_and_admins_do_their_work() {
    requires!("chromium", "node", "npm");
    let mcias = Mcias::start();
    let ip = mcias.rest.ip().to_string();
    // A folder to look at the pages in: MC_SCREENSHOTS=folder.
    let folder = std::env::var("MC_SCREENSHOTS").unwrap_or_else(|_unset| "-".to_owned());
    let seen = node_script("pages.mjs", &[&mcias.url(), &ip, "ada", PASSWORD, &folder], &[]);
    assert_eq!(seen["failed"], Value::Null, "{seen:#}");
    for what in ["asked_to_log_in", "led_back", "passkey_login", "totp_login", "recovery_login", "explained"]
    {
        assert_eq!(seen[what], true, "{what}: {seen:#}");
    }
    assert_eq!((&seen["intact"], &seen["bob_may_not"]), (&json!(true), &json!(true)));
    assert_eq!((&seen["recovery_codes"], &seen["token_parts"]), (&json!(10), &json!(3)));
    assert_eq!(seen["violations"], json!([]), "axe-core found something");
    assert_eq!((&seen["errors"], &seen["wide"]), (&json!([]), &json!([])));
    assert_eq!(seen["pages"].as_array().unwrap().len(), 23, "{seen:#}");
}
