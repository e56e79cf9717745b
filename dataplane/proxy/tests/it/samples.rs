//! Every configuration that the documentation shows, as `mc-proxy --check` sees it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use mc_testkit::proxy::binary;

/// Pages with samples of MC-Proxy's configuration, by file name.
const PAGES: &[(&str, &str)] = &[
    ("mc-proxy.md", include_str!("../../../../docs/mc-proxy.md")),
    ("mc-proxy-edge-and-origin.md", include_str!("../../../../docs/mc-proxy-edge-and-origin.md")),
    ("mc-proxy-install.md", include_str!("../../../../docs/mc-proxy-install.md")),
];

const EXAMPLE: &str = include_str!("../../../../deploy/config/mc-proxy.toml");

/// Runs `mc-proxy --check` on a text, with every file that it names.
fn check(what: &str, text: &str) {
    let folder = tempfile::tempdir().unwrap();
    for name in text.split('"').skip(1).step_by(2) {
        let is_file = [".pem", ".key", ".token", ".mmdb"].iter().any(|end| name.ends_with(end));
        if is_file && !Path::new(name).is_absolute() {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "0123456789abcdef0123456789abcdef").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
    }
    let file = folder.path().join("mc-proxy.toml");
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(binary("mc-proxy"));
    command.arg("--check").arg("--config").arg(&file).arg("--root").arg(folder.path());
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {errors}\n{text}");
}

/// A sample with what pages leave out of it: the route that its keys are of, and the listener of its routes.
fn completed(sample: &str) -> String {
    let mut text = sample.to_owned();
    if !sample.trim_start().starts_with('[') {
        text = format!("[[routes]]\nlistener = \"web\"\nname = \"www.example.org\"\nmode = \"l7\"\n{text}");
        if !text.contains("backends = ") {
            text += "backends = [{ address = \"10.0.0.2:8080\" }]\n";
        }
    }
    if text.contains("[[routes]]") && !text.contains("[[listeners]]") {
        text += "\n[[listeners]]\nname = \"web\"\naddress = \"0.0.0.0:443\"\n";
    }
    text
}

#[test]
fn the_samples_of_the_pages_are_in_order() {
    let mut samples = 0;
    for (page, text) in PAGES {
        for rest in text.split("```toml\n").skip(1) {
            let (sample, _) = rest.split_once("```").unwrap();
            // MCIAS has its own test of its configuration.
            if sample.contains("[site]") {
                continue;
            }
            check(page, &completed(sample));
            samples += 1;
        }
    }
    assert!(samples >= 8, "only {samples} samples were found");
}

#[test]
fn the_example_is_in_order_as_it_is_and_with_every_line_in_use() {
    check("the example", EXAMPLE);
    let used =
        |line: &'static str| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line);
    let lines: Vec<&str> = EXAMPLE.lines().map(used).filter(|line| !line.starts_with('#')).collect();
    check("the example with every line in use", &lines.join("\n"));
}

#[test]
fn the_admin_certificate_of_the_samples_is_outside_the_certificate_directory() {
    for (what, text) in PAGES.iter().chain(&[("the example", EXAMPLE)]) {
        // There each *.pem must hold its key as well, and is reported at every start otherwise.
        assert!(!text.contains("\"certs/admin"), "{what}");
    }
}
