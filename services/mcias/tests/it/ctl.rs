//! `mciasctl`, as a person or a script uses it.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output, Stdio};

use mc_testkit::mcias::{Mcias, PASSWORD};
use serde_json::{Value, json};

struct Ctl<'a>(&'a Mcias);

impl Ctl<'_> {
    fn run_with(&self, input: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mciasctl"));
        command.args(["--server", &format!("https://{}", self.0.grpc), "--ca"]).arg(self.0.ca_file());
        command.arg("--token-file").arg(self.0.folder().join("token")).args(arguments);
        // No terminal to ask on, wherever the test is run.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// What it prints, where it exits with this code.
    fn run(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run_with("", arguments);
        let [out, errors] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {out}{errors}");
        out + &errors
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.run(0, &[arguments, &["--output", "json"]].concat())).unwrap()
    }
}

#[test]
fn an_operator_s_day() {
    let mcias = Mcias::start();
    let ctl = Ctl(&mcias);
    assert!(ctl.run(4, &["whoami"]).contains("takes a token"));
    let wrong = ctl.run_with("wrong\n", &["login", "ada", "--password-stdin"]);
    assert_eq!(wrong.status.code(), Some(4));
    let right = ctl.run_with(&format!("{PASSWORD}\n"), &["login", "ada", "--password-stdin"]);
    assert!(right.status.success(), "{right:?}");
    let token_file = mcias.folder().join("token");
    let token = std::fs::read_to_string(&token_file).unwrap();
    assert_eq!(std::fs::metadata(&token_file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!String::from_utf8_lossy(&right.stdout).contains(token.trim()));
    assert!(ctl.run(0, &["whoami"]).contains("admin"));

    ctl.run(0, &["account", "create", "mcr", "--type", "system", "--tag", "prod"]);
    assert!(
        ctl.run(6, &["account", "create", "mcr", "--type", "system"]).contains("name: there is an account")
    );
    assert!(ctl.run(1, &["account", "update", "mcr", "--role", "admin"]).contains("has no roles"));
    ctl.run(0, &["account", "create", "bob", "--role", "user"]);
    let link = ctl.json(&["account", "link", "bob"])["url"].as_str().unwrap().to_owned();
    assert!(link.contains("/welcome/"));
    let redeem = |password: &str| {
        let input = format!("{link}\n{password}\n");
        ctl.run_with(&input, &["password", "redeem", "--stdin"])
    };
    let short = redeem("short");
    assert!(String::from_utf8_lossy(&short.stderr).contains("at least 15"), "{short:?}");
    assert!(redeem(PASSWORD).status.success());
    assert_eq!(redeem(PASSWORD).status.code(), Some(7));
    drop(mcias.login("bob"));
    let names: Vec<_> =
        ctl.json(&["account", "list"]).as_array().unwrap().iter().map(|it| it["name"].clone()).collect();
    assert_eq!(names, ["ada", "bob", "mcr"]);

    let out = mcias.folder().join("mcr.token");
    let issue =
        ["token", "issue", "mcr", "--label", "rift", "--lifetime", "90d", "--out", out.to_str().unwrap()];
    let said = ctl.run(0, &issue);
    let issued = std::fs::read_to_string(&out).unwrap();
    assert_eq!(std::fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!said.contains(issued.trim()));
    assert!(ctl.run(2, &issue).contains("name a new file"));
    assert_eq!(mcias.introspect(issued.trim(), token.trim()).body["active"], true);
    let id = ctl.json(&["token", "list", "mcr"])[0]["id"].as_str().unwrap().to_owned();

    let policy = mcias.folder().join("policy.toml");
    let rule = "\n[[rules]]\nname = \"no-bob\"\npriority = 1\neffect = \"deny\"\nusernames = [\"bob\"]\n";
    std::fs::write(&policy, ctl.run(0, &["policy", "export"]) + rule).unwrap();
    let set = ["policy", "set", policy.to_str().unwrap()];
    assert!(ctl.run(0, &set).contains("no-bob"));
    // It was made from a revision that is not in force any more.
    assert!(ctl.run(6, &set).contains("revision"));
    assert_eq!(ctl.json(&["policy", "explain", "bob", "--service", "mcr"])["effect"], "deny");
    std::fs::write(&policy, "default = \"allow\"\nrule = []\n").unwrap();
    assert!(ctl.run(2, &set).contains("policy.toml:2:1"));

    // Nothing is removed without being asked for twice, and there is nobody to ask here.
    if std::fs::File::open("/dev/tty").is_err() {
        assert!(ctl.run(1, &["token", "revoke", "mcr", &id]).contains("--yes"));
    }
    ctl.run(0, &["--yes", "token", "revoke", "mcr", &id]);
    assert_eq!(mcias.introspect(issued.trim(), token.trim()).status, 401);
    ctl.run(7, &["--yes", "account", "delete", "nobody"]);

    let verdict = ctl.json(&["audit", "verify"]);
    assert_eq!(verdict["intact"], true);
    ctl.run(0, &["audit", "verify", "--known", verdict["head"].as_str().unwrap()]);
    ctl.run(5, &["audit", "verify", "--known", &"1".repeat(64)]);
    ctl.run(1, &["audit", "verify", "--known", &"0".repeat(64)]);
    assert!(ctl.run(0, &["audit", "list", "--last", "5"]).contains("token.revoke"));
    assert_eq!(ctl.json(&["key", "rotate"]).as_array().unwrap().len(), 2);
    assert_eq!(ctl.json(&["session", "list"]).as_array().unwrap().len(), 1);

    ctl.run(0, &["logout"]);
    assert!(!token_file.exists());
    std::fs::write(&token_file, token).unwrap();
    std::fs::set_permissions(&token_file, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(ctl.run(4, &["whoami"]).contains("can be read by others"));
    std::fs::set_permissions(&token_file, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(ctl.run(4, &["whoami"]).contains("revoked"));
}

#[test]
fn where_nobody_answers_it_says_so() {
    let mut mcias = Mcias::start();
    mcias.stop();
    assert!(Ctl(&mcias).run(3, &["whoami"]).contains("cannot connect"));
    let plain = Command::new(env!("CARGO_BIN_EXE_mciasctl"))
        .args(["--server", "http://localhost:1", "--ca"])
        .arg(mcias.ca_file())
        .arg("whoami")
        .output()
        .unwrap();
    assert_eq!(plain.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&plain.stderr).contains("only travel encrypted"));
}

#[test]
fn what_a_script_needs_no_terminal_for() {
    let mcias = Mcias::start();
    let ctl = Ctl(&mcias);
    let done = |input: &str, arguments: &[&str]| {
        let output = ctl.run_with(input, arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    };
    done(&format!("{PASSWORD}\n"), &["login", "ada", "--password-stdin"]);
    let other = "another gravel umbrella";
    done(&format!("{PASSWORD}\n{other}\n"), &["password", "change", "--stdin"]);
    done(&format!("{other}\n"), &["login", "ada", "--password-stdin"]);
    // With a second factor, its code is the second line.
    let token = std::fs::read_to_string(mcias.folder().join("token")).unwrap();
    let enrolment = mcias.done("POST", "/v1/me/totp/begin", token.trim(), &Value::Null);
    let secret =
        data_encoding::BASE32_NOPAD.decode(enrolment["secret"].as_str().unwrap().as_bytes()).unwrap();
    let secret = mcias::domain::totp::TotpSecret::try_from_slice(&secret).unwrap();
    let step = (mcdsl::clock::Clock::system().unix_s() / 30).unsigned_abs();
    let confirm = json!({ "code": secret.code(step).expose() });
    let codes = mcias.done("POST", "/v1/me/totp/confirm", token.trim(), &confirm);
    let code = codes["codes"][0].as_str().unwrap();
    done(&format!("{other}\n{code}\n"), &["login", "ada", "--password-stdin", "--recovery"]);
    let without = ctl.run_with(&format!("{other}\n"), &["login", "ada", "--password-stdin"]);
    assert_eq!(without.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&without.stderr).contains("nothing on standard input"), "{without:?}");
}

#[test]
fn a_check_reads_what_the_configuration_names() {
    let mcias = Mcias::start();
    assert!(mcias.run(&["check"]).contains("The configuration is valid."));
    let certificate = mcias.folder().join("certs/server.pem");
    std::fs::write(&certificate, "no certificate").unwrap();
    let output = mcias.command(&["check"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("server.pem"), "{output:?}");
}
