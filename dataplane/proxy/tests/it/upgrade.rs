//! After a handover: the old process is seen, keeps its promises and goes; and `mcproxyctl upgrade`, which says what came of one.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use mc_testkit::backend::Backend;
use mc_testkit::client::{End, Raw};
use mc_testkit::clock;
use mc_testkit::process::Process;
use mc_testkit::proxy::{Config, Proxy, binary};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::common::{assert_alive, open};

/// A proxy with these lines of `[server]`.
fn start(backend: &Backend, server: &str) -> Proxy {
    Proxy::start(Config::new().listener("web").route("*", backend.address()).server(server))
}

fn draining(proxy: &Proxy) -> Vec<Value> {
    proxy.ctl(&["status"])["draining"].as_array().unwrap().clone()
}

/// A process that nobody here has started: killed on drop.
struct Started(Pid);

impl Started {
    fn of(reply: &Value) -> Self {
        Self(Pid::from_raw(reply["pid"].as_i64().unwrap().try_into().unwrap()))
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        kill(self.0, Signal::SIGKILL).ok();
    }
}

/// Whether a process has this file open.
fn has_open(process: &Process, file: &Path) -> bool {
    let fds = std::fs::read_dir(format!("/proc/{}/fd", process.pid())).unwrap().flatten();
    fds.filter_map(|fd| std::fs::read_link(fd.path()).ok()).any(|open| open == file)
}

#[test]
fn an_old_process_is_seen_and_follows_the_log() {
    let backend = Backend::named("origin");
    let mut proxy = start(&backend, "");
    let (mut tunnel, _) = open(&proxy);
    let first = proxy.ctl(&["status"]);
    let old = proxy.take_over();
    let seen = draining(&proxy);
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!((&seen[0]["process"], &seen[0]["pid"]), (&first["process"], &first["pid"]));
    assert_eq!(
        (&seen[0]["connections"], &seen[0]["closes_after_ms"], &seen[0]["version"]),
        (&1.into(), &Value::Null, &first["version"])
    );
    let text = proxy.ctl_text(&["status"]);
    assert!(text.contains("old process") && text.contains("1 connections until they end"), "{text}");
    assert_eq!(proxy.metric("mcproxy_old_processes", &[]), 1.0);
    assert_eq!(proxy.metric("mcproxy_old_processes_connections", &[]), 1.0);
    let (log, rotated) = (proxy.root().join("access.log"), proxy.root().join("access.log.1"));
    std::fs::rename(&log, &rotated).unwrap();
    proxy.process().signal(Signal::SIGHUP);
    clock::wait_until("the old process to leave the rotated log", || !has_open(&old, &rotated));
    assert_alive(&mut tunnel);
    drop(tunnel);
    let line = proxy.wait_outcome("completed");
    assert!(line["id"].as_str().unwrap().starts_with(first["process"].as_str().unwrap()), "{line}");
    clock::wait_until("the old process to be gone", || draining(&proxy).is_empty());
    assert_eq!(proxy.metric("mcproxy_old_processes", &[]), 0.0);
}

/// As `systemctl stop` does: the main process is told, or every one is, and the end of the main process is the end.
#[test]
fn a_stop_lets_the_old_process_drain_too() {
    let backend = Backend::named("origin");
    for all in [false, true] {
        let mut proxy = start(&backend, "drain_timeout_ms = 600000");
        let (mut before, _) = open(&proxy);
        let mut old = proxy.take_over();
        let (mut after, _) = open(&proxy);
        proxy.term();
        if all {
            old.signal(Signal::SIGTERM);
        }
        clock::wait_until("the old process to know", || {
            let waits = proxy.errors().contains("\"message\":\"draining\"");
            waits && Raw::try_connect(None, proxy.web()).is_err()
        });
        clock::sleep_ms(300);
        assert_alive(&mut before);
        assert_alive(&mut after);
        assert_eq!(after.finish_and_read().1, End::Fin);
        clock::sleep_ms(300);
        assert!(proxy.process().ended().is_none(), "it did not wait for the old process");
        assert_alive(&mut before);
        assert_eq!(before.finish_and_read().1, End::Fin);
        assert_eq!(old.wait(clock::PATIENCE).code(), Some(0));
        assert_eq!(proxy.process().wait(clock::PATIENCE).code(), Some(0));
    }
}

#[test]
fn the_old_process_has_the_time_to_drain_and_no_more() {
    let backend = Backend::named("origin");
    let mut proxy = start(&backend, "drain_timeout_ms = 700");
    let (mut tunnel, _) = open(&proxy);
    let mut old = proxy.take_over();
    let asked = clock::now();
    proxy.term();
    assert_ne!(tunnel.read_to_end(clock::PATIENCE).1, End::Silence);
    assert!(asked.elapsed().as_millis() >= 600, "{:?}", asked.elapsed());
    assert_eq!(old.wait(clock::PATIENCE).code(), Some(0));
    assert_eq!(proxy.process().wait(clock::PATIENCE).code(), Some(0));
    proxy.wait_outcome("drained");
}

#[test]
fn a_second_signal_ends_the_old_process_at_once() {
    let backend = Backend::named("origin");
    let mut proxy = start(&backend, "drain_timeout_ms = 600000");
    let (mut tunnel, _) = open(&proxy);
    let mut old = proxy.take_over();
    proxy.term();
    clock::wait_until("the stop to begin", || Raw::try_connect(None, proxy.web()).is_err());
    assert_alive(&mut tunnel);
    proxy.process().signal(Signal::SIGINT);
    assert_ne!(tunnel.read_to_end(clock::PATIENCE).1, End::Silence);
    assert_eq!(old.wait(clock::PATIENCE).code(), Some(0));
    assert_eq!(proxy.process().wait(clock::PATIENCE).code(), Some(0));
}

#[test]
fn a_process_that_dies_does_not_take_the_other_with_it() {
    let backend = Backend::named("origin");
    let mut proxy = start(&backend, "");
    let (mut tunnel, _) = open(&proxy);
    let mut old = proxy.take_over();
    // The new one crashes: another one starts in its place, while the old one goes on.
    proxy.process().kill9();
    assert_alive(&mut tunnel);
    proxy.restart();
    for _ in 0..16 {
        assert_eq!(open(&proxy).1, "origin");
    }
    assert_alive(&mut tunnel);
    assert_eq!(draining(&proxy).len(), 1);
    // The old one crashes: it is forgotten.
    old.kill9();
    assert_eq!(draining(&proxy).len(), 0);
    assert_eq!(open(&proxy).1, "origin");
    let left = std::fs::read_dir(proxy.root()).unwrap().flatten();
    let left = left.filter(|entry| entry.file_name().to_string_lossy().starts_with("mc-proxy.old."));
    assert_eq!(left.count(), 0);
}

#[test]
fn upgrade_answers_when_the_new_process_has_taken_over() {
    let backend = Backend::named("origin");
    let mut proxy = start(&backend, "");
    let before = proxy.ctl(&["status"]);
    let (mut tunnel, _) = open(&proxy);
    let reply = proxy.ctl(&["upgrade"]);
    let _new = Started::of(&reply);
    let after = proxy.ctl(&["status"]);
    for field in ["process", "pid", "version"] {
        assert_eq!(reply[field], after[field], "{field}");
    }
    assert_ne!(reply["pid"], before["pid"]);
    assert_eq!(after["draining"][0]["pid"], before["pid"]);
    assert_alive(&mut tunnel);
    assert_eq!(open(&proxy).1, "origin");
    drop(tunnel);
    assert!(proxy.process().wait(clock::PATIENCE).success());
}

#[test]
fn an_upgrade_that_fails_says_why_and_changes_nothing() {
    let backend = Backend::named("origin");
    let mut proxy = start(&backend, "");
    let before = proxy.ctl(&["status"])["process"].clone();
    let file = proxy.root().join("mc-proxy.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    let token =
        "[admin.tcp]\nlisten_addr = \"127.0.0.1:1\"\ncertificate = \"x\"\nkey = \"x\"\ntoken_file = \"x\"\n";
    std::fs::write(proxy.root().join("x"), "no certificate").unwrap();
    let cases = [
        // Refused before it asks for anything, and after it has got everything.
        (good.replace("[server]", "[server]\nworkrs = 1"), ["mc-proxy.toml:2:1", "server.workrs"]),
        (good.replace("[access_log]", &format!("{token}[access_log]")), ["admin.tcp", "x"]),
    ];
    for (text, words) in cases {
        std::fs::write(&file, text).unwrap();
        let output = proxy.ctl_output(&["--output", "json", "upgrade"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        for word in [&["did not take over, and this one goes on"], &words[..]].concat() {
            assert!(said.contains(word), "no {word:?} in {said}");
        }
        assert_eq!(proxy.ctl(&["status"])["process"], before);
        assert_eq!(open(&proxy).1, "origin");
    }
    drop(proxy.ctl(&["listener", "add", "more", "127.0.0.1:0"]));
    std::fs::write(&file, good).unwrap();
    let _new = Started::of(&proxy.ctl(&["upgrade"]));
    assert_eq!(proxy.ctl(&["listener", "list"]).as_array().unwrap().len(), 2);
    assert!(proxy.process().wait(clock::PATIENCE).success());
}

/// The new program takes its time, until it is told to go on.
#[test]
fn of_two_upgrades_at_once_one_is_refused() {
    let backend = Backend::named("origin");
    let folder = tempfile::tempdir().unwrap();
    let (program, go) = (folder.path().join("mc-proxy"), folder.path().join("go"));
    std::fs::copy(binary("mc-proxy"), &program).unwrap();
    let config = Config::new().listener("web").route("*", backend.address()).program(&program);
    let mut proxy = Proxy::start(config);
    std::fs::remove_file(&program).unwrap();
    let (go_on, real) = (go.display(), binary("mc-proxy"));
    let script =
        format!("#!/bin/sh\nuntil [ -e {go_on} ]; do sleep 0.05; done\nexec {} \"$@\"\n", real.display());
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let first = proxy.ctl_command(&["--output", "json", "upgrade"]).stdout(Stdio::piped()).spawn().unwrap();
    clock::wait_until("the first to begin", || proxy.errors().contains("started a new process"));
    let second = proxy.ctl_output(&["upgrade"]);
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(5), "{said}");
    assert!(said.contains("Another upgrade is under way"), "{said}");
    std::fs::write(&go, "").unwrap();
    let first = first.wait_with_output().unwrap();
    assert!(first.status.success(), "{}", proxy.errors());
    let _new = Started::of(&serde_json::from_slice(&first.stdout).unwrap());
    assert!(proxy.process().wait(clock::PATIENCE).success());
    assert_eq!(open(&proxy).1, "origin");
}
