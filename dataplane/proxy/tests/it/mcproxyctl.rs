//! mcproxyctl: every command once for people and once for programs, its exit codes, and the way in over TCP.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use mc_testkit::backend::Backend;
use mc_testkit::ca::Ca;
use mc_testkit::client::{End, Raw};
use mc_testkit::process::Process;
use mc_testkit::proxy::{Config, Proxy, binary};
use mc_testkit::{clock, fresh_address, requires};

use crate::common::{assert_alive, open, to};
use crate::grpc::{Grpc, route};

/// Runs a command for people and for programs: the first says each of these words, the second is JSON that
/// says them too.
fn check(proxy: &Proxy, command: &str, words: &[&str]) {
    let arguments: Vec<&str> = command.split_whitespace().collect();
    let table = proxy.ctl_text(&arguments);
    let json = proxy.ctl(&arguments).to_string();
    for word in words {
        assert!(table.contains(word), "no {word:?} in what `{command}` prints:\n{table}");
        assert!(json.contains(word), "no {word:?} in the JSON of `{command}`: {json}");
    }
}

/// Runs a command that works once for people, and the like of it for programs.
fn check_twice(proxy: &Proxy, command: &str, alike: &str) {
    assert!(!proxy.ctl_text(&command.split_whitespace().collect::<Vec<_>>()).is_empty());
    assert!(proxy.ctl(&alike.split_whitespace().collect::<Vec<_>>()).is_object());
}

/// Runs a command that is refused with this exit code, and says these words on standard error alone.
fn check_refused(proxy: &Proxy, command: &str, code: i32, words: &[&str]) {
    let arguments: Vec<&str> = command.split_whitespace().collect();
    let output = proxy.ctl_output(&arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "`{command}`: {errors}");
    assert!(output.stdout.is_empty());
    for word in words {
        assert!(errors.contains(word), "no {word:?} in what `{command}` says: {errors}");
    }
}

#[test]
fn routes() {
    let proxy = Proxy::start(Config::new().listener("web"));
    let key = "--listener web --name app.example.org";
    check(
        &proxy,
        &format!(
            "route add {key} --backend 192.0.2.1:443,weight=3 --check tls --idle-timeout-ms 5000 --replace"
        ),
        &["app.example.org"],
    );
    check(&proxy, "route list", &["app.example.org", "192.0.2.1:443"]);
    check(&proxy, &format!("route show {key}"), &["app.example.org", "192.0.2.1:443", "5000"]);
    check(&proxy, &format!("route update {key} --idle-timeout-ms 6000"), &["app.example.org"]);
    check(&proxy, &format!("route show {key}"), &["192.0.2.1:443", "6000"]);
    let exported = proxy.ctl_text(&["route", "export"]);
    let file = proxy.root().join("routes.toml");
    std::fs::write(&file, exported.replace("192.0.2.1", "192.0.2.9")).unwrap();
    let file = file.display();
    let revision = Grpc::connect(&proxy.socket()).revision();
    check_refused(
        &proxy,
        &format!("route replace {file} --expect-revision {}", revision + 7),
        5,
        &[&revision.to_string()],
    );
    check(&proxy, &format!("route replace {file}"), &[]);
    check(&proxy, "route list --contains app", &["192.0.2.9:443"]);
    check(&proxy, "route add --listener web --name other.example.org --backend 192.0.2.1:443 --replace", &[]);
    let other = "route remove --listener web --name other.example.org --kill";
    check_twice(&proxy, &format!("route remove {key}"), other);
    check_refused(&proxy, &format!("route show {key}"), 4, &["app.example.org"]);
    check_refused(&proxy, &format!("route update {key} --retries 1"), 4, &["app.example.org"]);
    check_refused(&proxy, &format!("route add {key} --backend nowhere:443"), 2, &["nowhere:443"]);
    check_refused(
        &proxy,
        "route add --listener web --name exa_mple..org --backend 192.0.2.1:443",
        1,
        &["name"],
    );
}

#[test]
fn listeners() {
    let proxy = Proxy::start(Config::new());
    let address = fresh_address();
    check(
        &proxy,
        &format!("listener add extra {address} --proxy-protocol optional --trusted 10.0.0.0/8 --replace"),
        &["extra"],
    );
    check(&proxy, "listener list", &["extra", &address.to_string(), "optional"]);
    check_refused(&proxy, &format!("listener add other {address}"), 1, &["extra", &address.to_string()]);
    check(&proxy, &format!("listener add more {} --replace", fresh_address()), &["more"]);
    check(&proxy, "listener update extra --hello-timeout-ms 5000", &["extra"]);
    let listener = || proxy.ctl(&["listener", "list"])[0]["listener"].clone();
    assert_eq!(listener()["hello_timeout_ms"], 5000);
    assert_eq!(listener()["trusted"][0], "10.0.0.0/8", "what is not given stays");
    check(&proxy, "listener update extra --proxy-protocol off --trusted none", &[]);
    assert_eq!(listener()["trusted"], serde_json::json!([]));
    check_refused(&proxy, "listener update nobody --hello-timeout-ms 5", 4, &["nobody", "listener list"]);
    check_twice(&proxy, "listener remove extra --with-routes --kill", "listener remove more");
    check_refused(&proxy, "listener remove extra", 4, &["extra"]);
}

/// What exists is never replaced by accident: not a route, not a listener, not a policy.
#[test]
fn add_refuses_what_exists_and_replace_shows_what_changes() {
    let proxy = Proxy::start(Config::new());
    let address = fresh_address();
    let route = "--listener web --name app.example.org";
    let policy = format!("policy add {route} p");
    let adds = [
        (format!("listener add web {address}"), "--hello-timeout-ms 5000", "hello_timeout_ms"),
        (format!("route add {route} --mode l7 --backend 192.0.2.1:443"), "--retries 7", "retries"),
        (policy, "--path /x --rule methods=[\"GET\"]", "path"),
    ];
    for (add, more, setting) in &adds {
        let what = add.split(' ').next().unwrap();
        drop(proxy.ctl(&format!("{add} {more}").split(' ').collect::<Vec<_>>()));
        let revision = Grpc::connect(&proxy.socket()).revision();
        let again = if what == "policy" { format!("{add} --rule methods=[\"PUT\"]") } else { add.clone() };
        check_refused(&proxy, &again, 5, &[what, "exists", "--replace"]);
        assert_eq!(Grpc::connect(&proxy.socket()).revision(), revision, "nothing was changed");
        let replace = format!("{again} --replace");
        let text = proxy.ctl_text(&replace.split(' ').collect::<Vec<_>>());
        assert!(text.contains("changed") && text.contains(setting) && text.contains("->"), "{text}");
        let same = proxy.ctl(&replace.split(' ').collect::<Vec<_>>());
        assert_eq!(same["changes"], serde_json::json!([]), "the same again is no change");
    }
    // A program may do both in one call, as ever: AddRoute is an upsert.
    let client = Grpc::connect(&proxy.socket());
    let changed = client.add_route(self::route("app.example.org", "192.0.2.9:443")).unwrap();
    assert!(!changed.created && changed.changed);
}

/// What cannot be taken back is asked about on the terminal; without one, and without --yes, it is not done.
#[test]
fn what_destroys_is_asked_about() {
    requires!("script", "setsid");
    let backend = Backend::named("origin");
    let proxy = to(backend.address());
    let (mut client, _) = open(&proxy);
    drop(proxy.ctl(&["listener", "add", "more", &fresh_address().to_string()]));
    let routes = proxy.root().join("routes.toml");
    std::fs::write(&routes, "routes = []\n").unwrap();
    let firewall = proxy.root().join("firewall.toml");
    std::fs::write(&firewall, "[firewall]\ndefault = \"deny\"\n").unwrap();
    let commands = [
        "route remove --listener web --name *".to_owned(),
        format!("route replace {}", routes.display()),
        "listener remove web --with-routes --kill".to_owned(),
        format!("firewall set {}", firewall.display()),
        "connection kill --all".to_owned(),
        "connection kill --listener web".to_owned(),
        format!("backend drain {} --kill", backend.address()),
    ];
    let revision = || Grpc::connect(&proxy.socket()).revision();
    let before = revision();
    let line = |command: &str| {
        let ctl = binary("mcproxyctl");
        format!("{} --socket {} {}", ctl.display(), proxy.socket().display(), command.replace('*', "'*'"))
    };
    for command in &commands {
        let output = Command::new("setsid").args(["-w", "sh", "-c", &line(command)]).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{command}: {errors}");
        assert!(errors.contains("--yes") && errors.contains("terminal"), "{command}: {errors}");
        assert_eq!(answer(&line(command), "n\n"), (Some(1), true), "{command}");
        assert_eq!(revision(), before, "{command}");
    }
    assert_alive(&mut client);
    assert_eq!(answer(&line("listener remove more"), "y\n"), (Some(0), true));
    assert!(revision() > before);
    assert_eq!(answer(&format!("{} --yes", line("connection kill --all")), ""), (Some(0), false));
    assert_ne!(client.read_to_end(clock::PATIENCE).1, End::Silence);
}

/// Runs a line of a shell on a terminal where this is typed. How it ended, and whether there was a question.
fn answer(line: &str, typed: &str) -> (Option<i32>, bool) {
    let mut script = Command::new("script");
    script
        .args(["--quiet", "--return", "--command", line, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut script = script.spawn().unwrap();
    script.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
    let output = script.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stdout).contains("[y/N]"))
}

#[test]
fn firewall() {
    let proxy = Proxy::start(Config::new().listener("web"));
    check(&proxy, "firewall deny 198.51.100.0/24 --comment scanner", &[]);
    check(&proxy, "firewall allow 198.51.100.7/32", &[]);
    check(&proxy, "firewall deny 192.0.2.0/24", &[]);
    check(&proxy, "firewall rate --per-address 20 --address-burst 100", &[]);
    check(
        &proxy,
        "firewall show",
        &["198.51.100.0/24", "scanner", "198.51.100.7/32", "192.0.2.0/24", "20", "100"],
    );
    check(&proxy, "firewall test 198.51.100.8", &["denied_cidr"]);
    check(&proxy, "firewall test 198.51.100.7", &["198.51.100.7/32"]);
    check_twice(&proxy, "firewall remove deny 198.51.100.0/24", "firewall remove deny 192.0.2.0/24");
    check(&proxy, "firewall default deny", &[]);
    check(&proxy, "firewall test 203.0.113.1", &["denied_default"]);
    let file = proxy.root().join("firewall.toml");
    std::fs::write(&file, "[firewall]\nrules = [{ action = \"deny\", cidr = \"203.0.113.0/24\" }]\n")
        .unwrap();
    check(&proxy, &format!("firewall set {}", file.display()), &[]);
    check(&proxy, "firewall show", &["203.0.113.0/24"]);
    check_refused(&proxy, "firewall deny country:DE", 1, &["do nothing", "[geoip] country_database"]);
    check_refused(&proxy, "firewall allow asn:64500", 1, &["do nothing", "[geoip] asn_database"]);
    std::fs::write(&file, "[firewall]\nrules = [{ action = \"deny\", country = \"DE\" }]\n").unwrap();
    check_refused(&proxy, &format!("firewall set {}", file.display()), 1, &["firewall.rules[0].country"]);
    check_refused(&proxy, "firewall deny 198.51.100.0/33", 2, &["198.51.100.0/33"]);
    check_refused(&proxy, "firewall remove allow 198.51.100.7/32", 4, &[]);
}

#[test]
fn backends_and_connections() {
    let backend = Backend::named("origin");
    let proxy = to(backend.address());
    let (mut kept, _) = open(&proxy);
    let (mut killed, _) = open(&proxy);
    let address = backend.address().to_string();
    check(&proxy, "backend list", &[&address]);
    check(&proxy, &format!("backend drain {address}"), &[]);
    check(&proxy, "backend list", &[&address, "draining"]);
    check(&proxy, &format!("backend undrain {address}"), &[]);
    check_refused(&proxy, "backend drain 192.0.2.1:1", 4, &["192.0.2.1:1"]);
    let client = killed.local().to_string();
    check(&proxy, "connection list --name www.example.org", &[&client, &address, "relay"]);
    let list = proxy.ctl(&["connection", "list"]);
    let list = list.as_array().unwrap();
    let this = list.iter().find(|line| line["client"] == client).unwrap();
    let id = this["id"].as_str().unwrap();
    check(&proxy, &format!("connection kill {id}"), &[]);
    assert_ne!(killed.read_to_end(clock::PATIENCE).1, End::Silence);
    assert_eq!(proxy.wait_outcome("killed")["id"], id, "the same id in list and log");
    assert_alive(&mut kept);
    check_refused(&proxy, "connection kill", 1, &["all"]);
    check(&proxy, "connection kill --all", &[]);
    assert_ne!(kept.read_to_end(clock::PATIENCE).1, End::Silence);
}

#[test]
fn status_and_counters() {
    let backend = Backend::named("origin");
    let proxy = to(backend.address());
    open(&proxy).0.finish_and_read();
    proxy.wait_outcome("completed");
    check(&proxy, "status", &["0.1.0"]);
    check(&proxy, "stats", &["completed"]);
    let top = proxy.ctl_text(&["top", "--once"]);
    assert!(top.contains('*'), "{top}");
    let completion = proxy.ctl_text(&["completion", "bash"]);
    assert!(completion.contains("mcproxyctl"));
}

#[test]
fn events_come_as_they_happen() {
    let backend = Backend::named("origin");
    let proxy = Proxy::start(Config::new().listener("web").route("www.example.org", backend.address()));
    let watch = |form: &str| {
        let mut watch = Command::new(binary("mcproxyctl"));
        watch.arg("--socket").arg(proxy.socket()).args(["--output", form, "events"]);
        Process::start(&watch, proxy.root(), form, None, false)
    };
    let mut watching = [watch("json"), watch("table")];
    let client = Grpc::connect(&proxy.socket());
    let everyone = |word: &str| watching.iter().all(|watch| watch.output().contains(word));
    // The watches begin a moment later than their processes.
    clock::wait_until("events", || {
        client.add_route(route("x.example.org", "192.0.2.1:443")).unwrap();
        client.remove_route("x.example.org", false).unwrap();
        everyone("route_removed") && everyone("route_added")
    });
    Raw::connect(proxy.web()).send(b"GET / HTTP/1.1\r\n\r\n").read_to_end(clock::PATIENCE);
    clock::wait_until("the refusal", || everyone("plain_http"));
    for line in watching[0].output().lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(event["kind"].is_string() && event["revision"].is_number(), "{event}");
    }
    assert!(watching.iter_mut().all(|watch| watch.ended().is_none()));
}

#[test]
fn nobody_is_reached_where_nobody_is() {
    let mut command = Command::new(binary("mcproxyctl"));
    let output = command.args(["--socket", "/nowhere/mc-proxy.sock", "status"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/mc-proxy.sock"), "{output:?}");
}

#[test]
fn over_tcp_the_certificate_is_checked_and_the_token_wanted() {
    let ca = Ca::new();
    let folder = tempfile::tempdir().unwrap();
    let address = fresh_address();
    let (cert, key) = ca.issue(&[&address.ip().to_string()]).write(folder.path());
    let (ca_file, stranger) = (ca.write(folder.path()), tempfile::tempdir().unwrap());
    let other_ca = Ca::new().write(stranger.path());
    let token_file = |name: &str, token: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, token).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        path
    };
    let token = token_file("token", "0123456789abcdef0123456789abcdef\n");
    let wrong = token_file("wrong", "0123456789abcdef0123456789abcdeX\n");
    let _proxy = Proxy::start(Config::new().listener("web").toml(&format!(
        "[admin.tcp]\nlisten_addr = \"{address}\"\ncertificate = \"{}\"\nkey = \"{}\"\ntoken_file = \"{}\"",
        cert.display(),
        key.display(),
        token.display()
    )));
    let status = |ca: &Path, token: &Path| -> Output {
        let mut command = Command::new(binary("mcproxyctl"));
        command.args(["--address", &format!("https://{address}"), "--ca"]).arg(ca);
        command.arg("--token-file").arg(token).args(["--output", "json", "status"]).output().unwrap()
    };
    let output = status(&ca_file, &token);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let check_refused = |output: Output, word: &str| {
        let errors = String::from_utf8_lossy(&output.stderr).to_lowercase();
        assert!(!output.status.success() && errors.contains(word), "no {word:?} in: {errors}");
    };
    check_refused(status(&ca_file, &wrong), "token");
    check_refused(status(&other_ca, &token), "certificate");
    // A rotated token counts at once.
    token_file("token", "0123456789abcdef0123456789abcdeX\n");
    assert!(status(&ca_file, &wrong).status.success());
}
