//! A new process takes over from one that runs: nobody is refused, reset or cut off, however often it happens.

use std::io;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mc_testkit::backend::Backend;
use mc_testkit::ca::Ca;
use mc_testkit::client::{Raw, Request};
use mc_testkit::http::{Client, Origin, Then};
use mc_testkit::process::Process;
use mc_testkit::proxy::{Config, Proxy};
use mc_testkit::{clock, heavy, requires};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::common::{assert_alive, greet, hello, open};
use super::http1::{NAME, OK};
use super::http2::site;

const GET: &str = "GET / HTTP/1.1\r\nhost: www.example.org\r\n\r\n";

/// Opens connections without a pause, and says hello on each. How many were served.
fn knock(to: SocketAddr, over: &AtomicBool, served: &AtomicU64) -> io::Result<()> {
    let hello = hello();
    while !over.load(Ordering::Relaxed) {
        let mut client = Raw::try_connect(None, to)?;
        client.send(&hello);
        assert_eq!(client.read_line(), "origin");
        assert!(client.read_exactly(hello.len()) == hello, "other bytes came back than were sent");
        served.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Clients that ask without a pause, on connections that they keep.
fn load(to: SocketAddr) -> Child {
    let mut load = Command::new("h2load");
    load.args(["--h1", "-D", "4", "-c", "4", "-t", "1", &format!("--connect-to={to}")]);
    load.arg(format!("https://{NAME}:{}/", to.port())).stdout(Stdio::piped()).spawn().unwrap()
}

#[test]
fn ten_times_in_a_row_under_load_nobody_notices() {
    let _alone = heavy();
    let origin = Backend::named("origin");
    let mut proxy = Proxy::start(Config::new().listener("web").route("*", origin.address()));
    let web = proxy.web();
    let (mut tunnel, _) = open(&proxy);
    let (over, served) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut old: Vec<Process> = Vec::new();
    std::thread::scope(|scope| {
        let knocking: Vec<_> = (0..4).map(|_| scope.spawn(|| knock(web, &over, &served))).collect();
        for round in 0..10 {
            let before = served.load(Ordering::Relaxed);
            old.push(proxy.take_over());
            assert_alive(&mut tunnel);
            // Each has some to serve before the next comes.
            clock::wait_until("clients to be served", || served.load(Ordering::Relaxed) > before + 200);
            assert!(proxy.ctl(&["status"])["uptime_ms"].is_u64(), "round {round}");
        }
        over.store(true, Ordering::Relaxed);
        for knocking in knocking {
            knocking.join().unwrap().unwrap();
        }
    });
    // The tunnel is the first process's, which lives for it alone; the others are gone.
    let mut first = old.remove(0);
    for mut process in old {
        assert!(process.wait(clock::PATIENCE).success());
    }
    assert!(first.ended().is_none());
    assert_alive(&mut tunnel);
    drop(tunnel);
    assert!(first.wait(clock::PATIENCE).success());
    let log = proxy.log();
    let other: Vec<_> = log.iter().filter(|line| line["outcome"] != "completed").collect();
    assert!(other.is_empty(), "{other:?}");
}

#[test]
fn requests_on_kept_connections_all_have_their_answers() {
    requires!("h2load");
    let _alone = heavy();
    let ca = Ca::new();
    let origin = Origin::saying(OK, Then::Keep);
    let config = Config::new().listener("web").certificate("www", &ca.issue(&[NAME]));
    let mut proxy = Proxy::start(config.route_with(NAME, &[origin.address()], "mode = \"l7\""));
    let web = proxy.web();
    let load = load(web);
    let mut old = Vec::new();
    for _ in 0..3 {
        clock::sleep_ms(300);
        old.push(proxy.take_over());
    }
    let output = load.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains(" 0 failed, 0 errored, 0 timeout"), "{text}");
    assert!(text.contains(" 0 4xx, 0 5xx"), "{text}");
    // A client that waits with an open connection is not sent away: it is told with its next answer.
    let mut client = Client::on(Request::new(&ca, web, NAME).open().unwrap());
    assert_eq!(client.ask(GET).status(), 200);
    let before = proxy.take_over();
    old.push(before);
    let mut told = client.ask(GET);
    for _ in 0..100 {
        // The old process hears a moment later that it is relieved.
        if told.values("connection") == vec!["close"] {
            break;
        }
        clock::sleep_ms(20);
        told = client.ask(GET);
    }
    assert_eq!((told.status(), told.values("connection")), (200, vec!["close"]));
}

/// h2load does not come back after GOAWAY; this client does.
#[test]
fn requests_of_http_2_all_have_their_answers() {
    let _alone = heavy();
    let mut site = site("");
    let client = site.command("http2_protocol.py", "kept:4").stdout(Stdio::piped()).spawn().unwrap();
    let mut old = Vec::new();
    for _ in 0..3 {
        clock::sleep_ms(900);
        old.push(site.proxy.take_over());
    }
    let output = client.wait_with_output().unwrap();
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["lost"], json!([]), "{result}");
    assert!(result["connections"].as_u64() > Some(3) && result["answered"].as_u64() > Some(100), "{result}");
}

#[test]
fn a_new_process_that_does_not_start_leaves_the_old_one_as_it_was() {
    let origin = Backend::named("origin");
    let mut proxy = Proxy::start(Config::new().listener("web").route("*", origin.address()));
    let file = proxy.root().join("mc-proxy.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    // It asks, and then cannot have its metrics' address.
    let bad = good.replace("[access_log]", "[admin.tcp]\nlisten_addr = \"127.0.0.1:1\"\ncertificate = \"x\"\nkey = \"x\"\ntoken_file = \"x\"\n[access_log]");
    std::fs::write(proxy.root().join("x"), "no certificate").unwrap();
    std::fs::write(&file, bad).unwrap();
    proxy.process().signal(Signal::SIGUSR2);
    clock::wait_until("the new process to fail", || proxy.errors().contains("did not take over"));
    let (mut client, name) = open(&proxy);
    assert_eq!(name, "origin");
    assert_alive(&mut client);
    drop(proxy.ctl(&["listener", "add", "more", "127.0.0.1:0"]));
    // And by the signal it works, when nothing is wrong.
    std::fs::write(&file, good).unwrap();
    proxy.process().signal(Signal::SIGUSR2);
    clock::wait_until("the new process to take over", || {
        proxy.errors().contains("took over from another process")
    });
    assert_alive(&mut client);
    let (_, name) = greet(Raw::connect(proxy.web()));
    assert_eq!(name, "origin");
    assert_eq!(proxy.ctl(&["listener", "list"]).as_array().unwrap().len(), 2);
    drop(client);
    assert!(proxy.process().wait(clock::PATIENCE).success());
    // The one that the signal has started is nobody's child here: it is told by its own door.
    let pid = std::fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let words = std::fs::read_to_string(entry.path().join("cmdline")).ok()?;
        let ours = words.contains(&proxy.root().display().to_string()) && words.contains("--take-over");
        ours.then(|| entry.file_name().to_string_lossy().parse::<i32>().ok())?
    });
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.unwrap()), Signal::SIGKILL).unwrap();
}

/// More workers than before, or fewer: every queue has somebody who takes from it.
#[test]
fn the_number_of_workers_may_change() {
    let origin = Backend::named("origin");
    let start = |workers: u32| {
        Config::new().listener("web").server(&format!("workers = {workers}\n")).route("*", origin.address())
    };
    let mut proxy = Proxy::start(start(3));
    for workers in [1, 4, 2] {
        let file = proxy.root().join("mc-proxy.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        let line = text.lines().find(|line| line.starts_with("workers")).unwrap();
        std::fs::write(&file, text.replace(line, &format!("workers = {workers}"))).unwrap();
        let mut old = proxy.take_over();
        assert_eq!(proxy.ctl(&["status"])["workers"], workers);
        for _ in 0..64 {
            let (_, name) = open(&proxy);
            assert_eq!(name, "origin");
        }
        assert!(old.wait(clock::PATIENCE).success());
    }
}

/// A service manager hears which process is the one.
#[test]
fn the_service_manager_is_told_of_each_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(clock::PATIENCE)).unwrap();
    let origin = Backend::named("origin");
    let variable = format!("NOTIFY_SOCKET={}", path.display());
    let config = Config::new().listener("web").route("*", origin.address()).under(&["env", &variable]);
    let mut proxy = Proxy::start(config);
    let heard = || {
        let mut text = [0; 256];
        let len = manager.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..len]).into_owned()
    };
    assert_eq!(heard().trim_end(), format!("MAINPID={}\nREADY=1", proxy.pid()));
    let _old = proxy.take_over();
    assert_eq!(heard().trim_end(), format!("MAINPID={}\nREADY=1", proxy.pid()));
}
