//! The folder of certificates, as clients and operators see it.

use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine as _;
use mc_testkit::ca::{Ca, Certificate};
use mc_testkit::clock;
use mc_testkit::fresh_address;
use mc_testkit::proxy::{Config, Proxy};

const NAME: &str = "www.example.org";

fn site(certificate: &Certificate) -> Proxy {
    let config = Config::new().listener("web").certificate("www", certificate);
    Proxy::start(config.route_with(NAME, &[fresh_address()], "mode = \"l7\""))
}

/// Runs openssl in `folder` and returns what it printed.
#[expect(clippy::unwrap_used, reason = "a test's helper")]
fn openssl(folder: &Path, arguments: &str) -> String {
    let mut command = Command::new("openssl");
    command.current_dir(folder).args(arguments.split_whitespace()).stdin(Stdio::null());
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The authority's word that the certificate in `cert.pem` is good, DER.
#[expect(clippy::unwrap_used, reason = "a test's helper")]
fn staple(ca: &Ca, folder: &Path) -> Vec<u8> {
    let (_certificate, _key) = (ca.write(folder), ca.write_key(folder));
    let serial = openssl(folder, "x509 -in cert.pem -noout -serial");
    let serial = serial.trim().trim_start_matches("serial=");
    std::fs::write(folder.join("index.txt"), format!("V\t400101000000Z\t\t{serial}\tunknown\t/CN=x\n"))
        .unwrap();
    openssl(folder, "ocsp -issuer ca.pem -cert cert.pem -reqout request.der");
    openssl(
        folder,
        "ocsp -index index.txt -CA ca.pem -rsigner ca.pem -rkey ca.key -reqin request.der -respout staple.der -ndays 1",
    );
    std::fs::read(folder.join("staple.der")).unwrap()
}

#[test]
fn a_client_sees_the_staple_of_the_file() {
    mc_testkit::requires!("openssl");
    let ca = Ca::new();
    let certificate = ca.issue(&[NAME]);
    let files = tempfile::tempdir().unwrap();
    let _written = certificate.write(files.path());
    let staple = staple(&ca, files.path());
    let proxy = site(&certificate);
    let look = || {
        openssl(
            files.path(),
            &format!("s_client -connect {} -servername {NAME} -status -CAfile ca.pem", proxy.web()),
        )
    };
    assert!(look().contains("OCSP response: no response sent"), "{}", look());
    let text = base64::engine::general_purpose::STANDARD.encode(&staple);
    let block = format!("-----BEGIN OCSP RESPONSE-----\n{text}\n-----END OCSP RESPONSE-----\n");
    proxy.replace_bundle("www", &format!("{}{block}", certificate.bundle()));
    clock::wait_until("the staple to be sent", || look().contains("OCSP Response Status: successful"));
    let seen = look();
    assert!(seen.contains("Cert Status: good") && seen.contains("Verify return code: 0"), "{seen}");
}
