//! MCAT with third-party clients: gRPC reflection and schemathesis.

use std::process::Command;

use mc_testkit::{requires, venv};

use crate::site::Site;

#[test]
fn schemathesis_finds_no_server_error_and_no_undocumented_response() {
    requires!("python3");
    let site = Site::start();
    let admin = site.login("ada");
    let output = Command::new(venv().join("bin/schemathesis"))
        .args(["run", "--url", &format!("https://{}", site.mcat.rest), "--max-examples", "25", "--seed", "7"])
        .args(["--checks", "all", "--continue-on-failure", "--suppress-health-check", "all", "--no-color"])
        // A name must be one, and a draft make sense: more than a schema can say.
        .args(["--exclude-checks", "positive_data_acceptance,missing_required_header,unsupported_method"])
        .arg("--tls-verify")
        .arg(site.mcat.ca_file())
        .args(["--header", &format!("Authorization: Bearer {admin}")])
        .arg(format!("https://{}/openapi.json", site.mcat.rest))
        .current_dir(site.mcias.folder())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    let tested =
        told.split("Tested: ").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse::<u32>().ok());
    assert_eq!(tested, Some(2), "{told}");
    assert!(!site.mcat.log().contains("panicked"), "{}", site.mcat.log());
}
