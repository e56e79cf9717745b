//! Logs that nobody reads, or that there is no room for: nothing else waits for them, and no line is torn.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};

use mc_testkit::backend::Backend;
use mc_testkit::client::Raw;
use mc_testkit::proxy::{Config, Proxy, binary};
use mc_testkit::{clock, fresh_address, requires};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::common::{greet, open};

/// A program that ends with the test.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.kill().unwrap_or(());
        self.0.wait().ok();
    }
}

impl Guard {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().try_into().unwrap()), signal).unwrap();
    }
}

/// Neither SIGTERM nor anything else waits for somebody who does not read.
#[test]
fn logs_that_nobody_reads_hold_nothing_up() {
    let origin = Backend::named("origin");
    let root = tempfile::tempdir().unwrap();
    let address = fresh_address();
    let config = Config::new()
        .listener_at("web", address, "")
        .route("*", origin.address())
        .toml("[access_log]\npath = \"-\"");
    let file = root.path().join("mc-proxy.toml");
    std::fs::write(&file, config.text(root.path())).unwrap();
    let mut command = Command::new(binary("mc-proxy"));
    command.arg("--config").arg(&file).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut proxy = Guard(command.spawn().unwrap());
    let (stdout, stderr) = (proxy.0.stdout.take().unwrap(), proxy.0.stderr.take().unwrap());
    for pipe in [stdout.as_fd(), stderr.as_fd()] {
        rustix::pipe::fcntl_setpipe_size(pipe, 4096).unwrap();
    }
    clock::wait_until("the proxy to serve", || Raw::try_connect(None, address).is_ok());
    // Lines for ten pipes on both: more than fit, wherever else they may wait.
    for _ in 0..100 {
        proxy.signal(Signal::SIGHUP);
        greet(Raw::connect(address)).0.finish_and_read();
    }
    greet(Raw::connect(address));
    proxy.signal(Signal::SIGTERM);
    let status = clock::wait_for("the proxy to end", clock::PATIENCE, || proxy.0.try_wait().unwrap());
    assert!(status.success(), "{status}");
    drop((stdout, stderr));
}

/// Where the disk is full a line is whole or not there, and how many are not is in the log.
#[test]
fn a_full_disk_tears_no_line() {
    requires!(root, "mount", "umount");
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display().to_string();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=16k", "tmpfs", &at]).status();
    assert!(mounted.unwrap().success());
    let log = folder.path().join("access.log");
    let filler = folder.path().join("filler");
    std::fs::write(&filler, [b'x'; 4096]).unwrap();
    let origin = Backend::named("origin");
    let tables = format!("[access_log]\npath = \"{}\"", log.display());
    let proxy = Proxy::start(Config::new().listener("web").route("*", origin.address()).toml(&tables));
    let lost = || proxy.metric("mcproxy_access_log_lost_lines_total", &[]);
    clock::wait_until("the disk to be full", || {
        open(&proxy).0.finish_and_read();
        lost() > 3.0
    });
    let whole = || std::fs::read_to_string(&log).unwrap();
    assert!(whole().ends_with('\n'), "{}", whole());
    std::fs::remove_file(&filler).unwrap();
    clock::wait_until("lines to be written again", || {
        open(&proxy).0.finish_and_read();
        whole().contains("lost_lines")
    });
    let text = whole();
    let mut told = 0;
    for line in text.lines() {
        let line: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        told += line["lost_lines"].as_u64().unwrap_or(0);
    }
    assert!(told >= 3, "{told} lines are told of");
    drop(proxy);
    assert!(Command::new("umount").arg(&at).status().unwrap().success());
}

/// Whoever edits the file is told what becomes of it.
#[test]
fn edits_of_the_file_are_told_of() {
    let origin = Backend::named("origin");
    let config = Config::new().listener("web").route("*", origin.address());
    let mut proxy = Proxy::start(config);
    let file = proxy.root().join("mc-proxy.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let edit = |proxy: &mut Proxy, text: &str, words: &[&str]| {
        std::fs::write(&file, text).unwrap();
        let before = proxy.errors().len();
        proxy.process().signal(Signal::SIGHUP);
        clock::wait_until("the edit to be told of", || {
            let said = proxy.errors()[before..].to_owned();
            words.iter().all(|word| said.contains(word)) && said.contains("certificates are loaded")
        });
        proxy.errors()[before..].to_owned()
    };
    let said = edit(&mut proxy, &text, &[]);
    assert!(!said.contains("edited"), "{said}");
    let routes = text.replace("name = \"*\"", "name = \"a.example.org\"");
    let said = edit(&mut proxy, &routes, &["\"tables\":\"routes\"", "mcproxyctl"]);
    assert!(!said.contains("next start"), "{said}");
    let settings = text.replace("workers = 2", "workers = 1");
    edit(&mut proxy, &settings, &["\"tables\":\"server\"", "next start"]);
    edit(&mut proxy, "[server]\nworkrs = 2\n", &["will not start again", "workrs"]);
    // The same number of other things is said at the next start, too.
    std::fs::write(&file, &routes).unwrap();
    proxy.term();
    assert!(proxy.process().wait(clock::PATIENCE).success());
    let root = proxy.into_root();
    let mut command = Command::new(binary("mc-proxy"));
    command
        .arg("--config")
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(File::create(root.path().join("again")).unwrap());
    let again = Guard(command.spawn().unwrap());
    let said = || std::fs::read_to_string(root.path().join("again")).unwrap();
    clock::wait_until("the seed to be told of", || said().contains("only seed an empty database: not used"));
    drop(again);
}
