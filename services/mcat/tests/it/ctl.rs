//! `mcat explain` and its like, as people and scripts use them.

use std::io::Write as _;
use std::process::{Command, Stdio};

use mc_testkit::mcias::PASSWORD;
use serde_json::{Value, json};

use crate::site::{RULE, Site};

struct Ctl(Site);

impl Ctl {
    fn start() -> Self {
        let site = Site::start();
        // One file for both servers.
        let both =
            [site.mcat.ca_file(), site.mcias.ca_file()].map(|file| std::fs::read_to_string(file).unwrap());
        std::fs::write(site.mcat.folder().join("both.pem"), both.concat()).unwrap();
        Self(site)
    }

    /// Returns what it prints, and checks the exit code.
    fn run(&self, code: i32, input: &str, arguments: &[&str]) -> String {
        let Site { mcias, mcat, .. } = &self.0;
        let mut command = Command::new(env!("CARGO_BIN_EXE_mcat"));
        command.args(arguments).args(["--server", &format!("https://{}", mcat.grpc), "--ca"]);
        command
            .arg(mcat.folder().join("both.pem"))
            .arg("--token-file")
            .arg(mcat.folder().join("person.token"));
        command.env("XDG_CONFIG_HOME", mcat.folder()).env("MCIAS_SERVER", format!("https://{}", mcias.grpc));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        text
    }

    fn login(&self, name: &str) {
        self.run(0, &format!("{PASSWORD}\n"), &["login", name, "--password-stdin"]);
    }

    fn file(&self, name: &str, text: &str) -> String {
        let file = self.0.mcat.folder().join(name);
        std::fs::write(&file, text).unwrap();
        file.display().to_string()
    }
}

#[test]
fn a_login_is_explained_on_a_command_line() {
    let ctl = Ctl::start();
    assert!(ctl.run(5, "", &["explain", "mcr"]).contains("Log in with `mcat login"));
    ctl.login("bob");
    let text = ctl.run(0, "", &["explain", "mcr"]);
    for part in ["effect", "deny", RULE, "preferred_username", "bob has role guest"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let text = ctl.run(0, "", &["explain", "mcr", "--untagged", "--other", "mcr", "--other-tag", "prod"]);
    assert!(text.contains("the other login, policy in force"), "{text}");
    let json: Value = serde_json::from_str(&ctl.run(0, "", &["explain", "mcr", "--output", "json"])).unwrap();
    assert_eq!(json["decisions"]["in_force"]["deciding_rule"]["name"], RULE);
    let json: Value = serde_json::from_str(&ctl.run(0, "", &["whoami", "--output", "json"])).unwrap();
    assert_eq!((&json["account"], &json["claims"]["preferred_username"]), (&json!("bob"), &json!("bob")));
    assert!(ctl.run(2, "", &["explain", "mcr", "--tag", "A"]).contains("--tag"));
    assert!(ctl.run(2, "", &["explain", ""]).contains("service: "));
    let unknown = ctl.run(0, "", &["explain", "else\u{1b}[2Jwhere"]);
    assert!(unknown.contains("Warning: service") && !unknown.contains('\u{1b}'), "{unknown}");
    ctl.run(0, "", &["logout"]);
    ctl.run(5, "", &["whoami"]);
}

#[test]
fn a_draft_is_toml_or_json() {
    let ctl = Ctl::start();
    let toml = ctl.file("draft.toml", "revision = 1\ndefault = \"deny\"\n[[rules]]\nname = \"admins\"\npriority = 1\neffect = \"allow\"\nroles = [\"admin\"]\n");
    let json = ctl.file("draft.json", "{\"default\":\"deny\",\"rules\":[]}");
    let wrong = ctl.file("wrong.toml", "default = \"deny\"\n[[rule]]\n");
    ctl.login("bob");
    let told: Value =
        serde_json::from_str(&ctl.run(0, "", &["explain", "mcat", "--draft", &json, "--output", "json"]))
            .unwrap();
    assert_eq!(told["decisions"]["draft"]["effect"], "deny");
    assert!(ctl.run(2, "", &["explain", "mcat", "--draft", &wrong]).contains("wrong.toml:2"));
    assert!(ctl.run(2, "", &["draft", "/nonexistent"]).contains("Cannot read"));
    ctl.run(5, "", &["draft", &toml]);
    ctl.login("ada");
    let text = ctl.run(0, "", &["draft", &toml]);
    assert!(text.contains("bob") && text.contains("would have been denied"), "{text}");
}
