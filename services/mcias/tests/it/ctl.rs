//! `mciasctl`, as people and scripts use it.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use mc_testkit::mcias::{Mcias, PASSWORD};
use serde_json::{Value, json};

struct Ctl<'a>(&'a Mcias);

/// `mciasctl` with a configuration directory of its own.
fn mciasctl(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mciasctl"));
    command.env("XDG_CONFIG_HOME", directory.join("config"));
    for variable in ["MCIAS_SERVER", "MCIAS_CA", "MCIAS_TOKEN_FILE", "METACIRCULAR_CONTEXT"] {
        command.env_remove(variable);
    }
    command
}

fn output_of(mut command: Command, input: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

impl Ctl<'_> {
    fn run_with(&self, input: &str, arguments: &[&str]) -> Output {
        let mut command = mciasctl(self.0.folder());
        command.args(["--server", &format!("https://{}", self.0.grpc), "--ca"]).arg(self.0.ca_file());
        command.arg("--token-file").arg(self.0.folder().join("token")).args(arguments);
        output_of(command, input)
    }

    /// Returns what it prints, and checks the exit code.
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
fn ctl_covers_a_daily_workflow() {
    let mcias = Mcias::start();
    let ctl = Ctl(&mcias);
    assert!(ctl.run(5, &["whoami"]).contains("Log in with `mciasctl login"));
    let wrong = ctl.run_with("wrong\n", &["login", "ada", "--password-stdin"]);
    assert_eq!(wrong.status.code(), Some(5));
    let right = ctl.run_with(&format!("{PASSWORD}\n"), &["login", "ada", "--password-stdin"]);
    assert!(right.status.success(), "{right:?}");
    let token_file = mcias.folder().join("token");
    let token = std::fs::read_to_string(&token_file).unwrap();
    assert_eq!(std::fs::metadata(&token_file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!String::from_utf8_lossy(&right.stdout).contains(token.trim()));
    assert!(ctl.run(0, &["whoami"]).contains("admin"));

    ctl.run(0, &["account", "create", "mcr", "--type", "system", "--tag", "prod"]);
    assert!(ctl.run(6, &["account", "create", "mcr", "--type", "system"]).contains("name: `mcr` exists"));
    assert!(ctl.run(2, &["account", "update", "mcr", "--role", "admin"]).contains("--role: "));
    ctl.run(0, &["account", "create", "bob", "--role", "user"]);
    let link = ctl.json(&["account", "link", "bob"])["url"].as_str().unwrap().to_owned();
    assert!(link.contains("/welcome#"));
    let redeem = |password: &str| {
        let input = format!("{link}\n{password}\n");
        ctl.run_with(&input, &["password", "redeem", "--stdin"])
    };
    let short = redeem("short");
    assert!(String::from_utf8_lossy(&short.stderr).contains("at least 15"), "{short:?}");
    assert!(redeem(PASSWORD).status.success());
    assert_eq!(redeem(PASSWORD).status.code(), Some(4));
    drop(mcias.login("bob"));
    let names: Vec<_> =
        ctl.json(&["account", "list"]).as_array().unwrap().iter().map(|it| it["name"].clone()).collect();
    assert_eq!(names, ["ada", "bob", "mcr"]);

    let out = mcias.folder().join("mcr.token");
    let issue =
        ["token", "issue", "mcr", "--label", "rift", "--lifetime", "90d", "--out", out.to_str().unwrap()];
    let printed = ctl.run(0, &issue);
    let issued = std::fs::read_to_string(&out).unwrap();
    assert_eq!(std::fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!printed.contains(issued.trim()));
    assert!(ctl.run(2, &issue).contains("name a new file"));
    assert_eq!(mcias.introspect(issued.trim(), &mcias.login("bob")).body["active"], true);
    let id = ctl.json(&["token", "list", "mcr"])[0]["id"].as_str().unwrap().to_owned();

    let policy = mcias.folder().join("policy.toml");
    let rule = "\n[[rules]]\nname = \"no-bob\"\npriority = 1\neffect = \"deny\"\naccounts = [\"bob\"]\n";
    std::fs::write(&policy, ctl.run(0, &["policy", "export"]) + rule).unwrap();
    let set = ["policy", "set", policy.to_str().unwrap()];
    assert!(ctl.run(0, &set).contains("no-bob"));
    // It was made from a revision that is no longer in force.
    assert!(ctl.run(6, &set).contains("revision"));
    assert_eq!(ctl.json(&["policy", "explain", "bob", "mcr"])["effect"], "deny");
    std::fs::write(&policy, "default = \"allow\"\nrule = []\n").unwrap();
    assert!(ctl.run(2, &set).contains("policy.toml:2:1"));
    // What only the server sees in a file is invalid input too.
    std::fs::write(&policy, rule.replace("deny", "perhaps") + "\n").unwrap();
    let text = std::fs::read_to_string(&policy).unwrap();
    std::fs::write(&policy, format!("revision = 2\ndefault = \"deny\"\n{text}")).unwrap();
    assert!(ctl.run(2, &set).contains("rules[0].effect: "));

    // Nothing is removed without confirmation, and there is no terminal here.
    if std::fs::File::open("/dev/tty").is_err() {
        assert!(ctl.run(2, &["token", "revoke", "mcr", &id]).contains("--yes"));
    }
    assert_eq!(ctl.run(0, &["--yes", "token", "revoke", "mcr", &id]), "Token revoked\n");
    assert_eq!(ctl.run(0, &["--yes", "token", "revoke", "mcr", &id]), "The token was already revoked\n");
    assert_eq!(mcias.introspect(issued.trim(), token.trim()).status, 401);
    ctl.run(4, &["--yes", "account", "delete", "nobody"]);

    let verdict = ctl.json(&["audit", "verify"]);
    assert_eq!(verdict["intact"], true);
    let (number, hash) = (&verdict["last_entry"], verdict["last_hash"].as_str().unwrap());
    let verify =
        |code, checkpoint: &str| ctl.run(code, &["audit", "verify", "--from-checkpoint", checkpoint]);
    verify(0, &format!("{number}:{hash}"));
    verify(7, &format!("{number}:{}", "1".repeat(64)));
    verify(2, hash);
    let entries = ctl.run(0, &["audit", "export", "--account", "bob", "--outcome", "done", "--since", "1h"]);
    let entries: Vec<Value> = entries.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(entries.iter().any(|entry| entry["action"] == "account.create"), "{entries:?}");
    assert!(entries.iter().all(|entry| entry["actor"] == "bob" || entry["target"] == "bob"), "{entries:?}");
    assert!(entries.is_sorted_by_key(|entry| entry["number"].as_i64()), "{entries:?}");
    assert!(!ctl.run(0, &["audit", "list", "--action", "token.revoke"]).contains("account.create"));
    ctl.run(4, &["audit", "export", "--account", "nobody"]);
    assert!(ctl.run(0, &["audit", "list", "--limit", "5"]).contains("token.revoke"));
    assert_eq!(ctl.json(&["key", "rotate"]).as_array().unwrap().len(), 2);
    let sessions = ctl.json(&["session", "list"]);
    assert_eq!((sessions.as_array().unwrap().len(), &sessions[0]["device"]), (1, &json!("mciasctl")));
    ctl.run(0, &["account", "create", "eve"]);
    ctl.run(0, &["account", "delete", "eve", "--yes"]);
    assert!(ctl.run(6, &["account", "create", "eve"]).contains("release"));
    assert!(ctl.run(0, &["account", "deleted"]).contains("eve"));
    ctl.run(0, &["account", "release-name", "eve", "--yes"]);
    ctl.run(4, &["account", "release-name", "eve", "--yes"]);
    ctl.run(0, &["account", "create", "eve"]);

    ctl.run(0, &["logout"]);
    assert!(!token_file.exists());
    std::fs::write(&token_file, token).unwrap();
    std::fs::set_permissions(&token_file, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(ctl.run(5, &["whoami"]).contains("can be read by others"));
    std::fs::set_permissions(&token_file, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(ctl.run(5, &["whoami"]).contains("revoked"));
}

#[test]
fn names_that_do_not_exist_are_errors() {
    let mcias = Mcias::start();
    let ctl = Ctl(&mcias);
    assert!(ctl.run_with(&format!("{PASSWORD}\n"), &["login", "ada", "--password-stdin"]).status.success());
    for line in [
        "account show nobody",
        "account update nobody --disable",
        "audit list --account nobody",
        "session list --account nobody",
        "session end --all --account nobody",
        "token list nobody",
        "policy explain nobody mcr",
    ] {
        let text = ctl.run(4, &line.split(' ').collect::<Vec<_>>());
        assert!(text.contains("nobody"), "{line}: {text}");
    }
    // Not even a table's head.
    let listed = ctl.run_with("", &["audit", "list", "--account", "nobody"]);
    assert!(listed.stdout.is_empty(), "{listed:?}");
    ctl.run(0, &["account", "create", "mcr", "--type", "system"]);
    let issue =
        |audience: &str| ctl.run_with("", &["token", "issue", "mcr", "--label", "x", "--audience", audience]);
    for (audience, is_known) in [("mcr", true), ("mcias", true), ("nosuch", false)] {
        let issued = issue(audience);
        assert!(issued.status.success(), "{issued:?}");
        assert_eq!(issued.stderr.is_empty(), is_known, "{issued:?}");
    }
    let short = ctl.run(2, &["token", "issue", "mcr", "--label", "x", "--lifetime", "1s"]);
    assert!(short.contains("mciasctl: --lifetime: 1 is out of range"), "{short}");
    ctl.run(2, &["account", "list", "--type", "robot"]);
    ctl.run(2, &["account", "update", "ada"]);
    ctl.run(2, &["token", "issue", "mcr", "--label", "x", "--lifetime", "soon"]);
    // The log remembers deleted accounts.
    ctl.run(0, &["account", "create", "bob"]);
    ctl.run(0, &["account", "delete", "bob", "--yes"]);
    assert!(ctl.run(0, &["audit", "list", "--account", "bob"]).contains("account.delete"));
}

#[test]
fn errors_are_json_where_json_is_asked_for() {
    let mcias = Mcias::start();
    let ctl = Ctl(&mcias);
    let error = |arguments: &[&str]| -> Value {
        let output = ctl.run_with("", &[arguments, &["--output", "json"]].concat());
        assert!(output.stdout.is_empty(), "{output:?}");
        let error: Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!(error["exit_code"], json!(output.status.code()), "{output:?}");
        error
    };
    assert_eq!(error(&["whoami"])["reason"], "unauthenticated");
    assert_eq!(error(&["account", "lost"])["reason"], "usage");
    assert!(ctl.run_with(&format!("{PASSWORD}\n"), &["login", "ada", "--password-stdin"]).status.success());
    let missing = error(&["account", "show", "nobody"]);
    assert_eq!((&missing["reason"], &missing["exit_code"]), (&json!("not-found"), &json!(4)));
    let taken = error(&["account", "create", "ada"]);
    assert_eq!((&taken["field"], &taken["exit_code"]), (&json!("name"), &json!(6)));
}

#[test]
fn a_context_holds_server_ca_and_token() {
    let mcias = Mcias::start();
    let folder = mcias.folder();
    let run = |code: i32, input: &str, line: &str| {
        let mut command = mciasctl(folder);
        command.args(line.split(' '));
        let output = output_of(command, input);
        assert_eq!(output.status.code(), Some(code), "{line}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    let (server, ca) = (format!("https://{}", mcias.grpc), mcias.ca_file());
    let add = format!("context add home --server {server} --ca {}", ca.to_str().unwrap());
    run(0, "", &add);
    assert!(run(6, "", &add).contains("There is a context `home`"));
    run(2, "", "context add work");
    assert!(run(2, "", "context add work --server localhost:9443").contains("write `https://`"));
    assert!(
        run(2, "", "context add work --server https://localhost:1 --ca absent.pem").contains("absent.pem")
    );
    // The address of REST and pages.
    let rest =
        format!("--server https://{} --ca {} password redeem --stdin", mcias.rest, ca.to_str().unwrap());
    assert!(run(1, &format!("a\n{PASSWORD}\n"), &rest).contains("--server must be its gRPC address"));
    run(0, "", "context add work --server https://localhost:1");
    let login = "login ada --password-stdin";
    run(0, &format!("{PASSWORD}\n"), login);
    let token = folder.join("config/metacircular/tokens/contexts/home");
    assert_eq!(std::fs::metadata(&token).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(run(0, "", "whoami").contains("ada"));
    // The token of a context is not sent to a server that is named otherwise.
    run(5, "", &format!("--server {server} --ca {} whoami", ca.to_str().unwrap()));
    run(3, "", "--context work whoami");
    assert!(run(4, "", "--context nowhere whoami").contains("There is no context `nowhere`"));
    run(0, "", "context use work");
    run(3, "", "whoami");
    assert!(run(0, "", "--context home whoami").contains("ada"));
    let list: Value = serde_json::from_str(&run(0, "", "context list --output json")).unwrap();
    assert_eq!(
        (&list["current"], &list["contexts"]["home"]["servers"]["mcias"]),
        (&json!("work"), &json!(server))
    );
    let contexts = folder.join("config/metacircular/contexts.toml");
    std::fs::set_permissions(&contexts, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert!(run(5, "", "--context home whoami").contains("can be written by others"));
    std::fs::set_permissions(&contexts, std::fs::Permissions::from_mode(0o600)).unwrap();
    run(0, "", "context remove home");
    assert!(!token.exists());
    run(4, "", "context remove home");
}

#[test]
fn completion_and_man_pages_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let completion = mciasctl(folder.path()).args(["completion", "bash"]).output().unwrap();
    assert!(String::from_utf8_lossy(&completion.stdout).contains("_mciasctl"));
    let man = mciasctl(folder.path()).arg("man").arg(folder.path()).output().unwrap();
    assert!(man.status.success(), "{man:?}");
    let page = std::fs::read_to_string(folder.path().join("mciasctl-token-issue.1")).unwrap();
    assert!(page.contains("lifetime"), "{page}");
}

#[test]
fn an_unreachable_server_is_reported() {
    let mut mcias = Mcias::start();
    mcias.stop();
    assert!(Ctl(&mcias).run(3, &["whoami"]).contains("Cannot connect"));
    let plain = mciasctl(mcias.folder())
        .args(["--server", "http://localhost:1", "--ca"])
        .arg(mcias.ca_file())
        .arg("whoami")
        .output()
        .unwrap();
    assert_eq!(plain.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&plain.stderr).contains("only travel encrypted"));
}

#[test]
fn scripts_need_no_terminal() {
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
    // An authenticator app, in two steps.
    let enrolment = ctl.json(&["totp", "begin"]);
    let secret =
        data_encoding::BASE32_NOPAD.decode(enrolment["secret"].as_str().unwrap().as_bytes()).unwrap();
    let secret = mcias::domain::totp::TotpSecret::try_from_slice(&secret).unwrap();
    let step = (mcdsl::clock::Clock::system().unix_s() / 30).unsigned_abs();
    let confirm = ["totp", "confirm", "--stdin", "--output", "json"];
    let confirmed = ctl.run_with(&format!("{}\n", secret.code(step).expose()), &confirm);
    assert!(confirmed.status.success(), "{confirmed:?}");
    let codes: Value = serde_json::from_slice(&confirmed.stdout).unwrap();
    // With a second factor, its code is the second line.
    let code = codes["codes"][0].as_str().unwrap();
    done(&format!("{other}\n{code}\n"), &["login", "ada", "--password-stdin", "--recovery"]);
    let without = ctl.run_with(&format!("{other}\n"), &["login", "ada", "--password-stdin"]);
    assert_eq!(without.status.code(), Some(2));
    let error = String::from_utf8_lossy(&without.stderr);
    assert!(error.contains("pass its code as the second line of standard input"), "{error}");
    done("", &["recovery-codes", "--yes"]);
}

#[test]
fn check_reads_the_files_of_the_configuration() {
    let mcias = Mcias::start();
    assert!(mcias.run(&["check"]).contains("The configuration is valid."));
    let certificate = mcias.folder().join("certs/server.pem");
    std::fs::write(&certificate, "no certificate").unwrap();
    let output = mcias.command(&["check"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("server.pem"), "{output:?}");
}
