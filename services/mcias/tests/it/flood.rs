//! Bodies that nobody asked for, and logins of nobody: they must not take memory, and must not keep others from logging in.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use http::Method;
use mc_testkit::flood::{Load, Outcome, Server, Target, Then, flood};
use mc_testkit::mcias::{Mcias, NAME, PASSWORD};
use mc_testkit::{heavy, logins, rounds};
use mcdsl::operation::{Route, Transport};
use serde_json::json;

use crate::local::Local;

/// What the process may take in addition, in KiB.
const MAX_GROWTH_KIB: u64 = 16 * 1024;

/// Where the flood comes from: another source than the tests' other clients.
const FLOOD_SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 66));

/// Bodies just below the smallest limit, which are held: 28 MiB in all, where the server reads them.
const HELD: Load = Load {
    connections: 2,
    streams: 250,
    body: MESSAGE - 1000,
    then: Then::Hold,
    max_time: Duration::from_secs(10),
};

/// Bodies of 1 MiB, for two seconds.
const LARGE: Load = Load { body: 1 << 20, then: Then::End, max_time: Duration::from_secs(2), ..HELD };

const MESSAGE: usize = 60_000;

const FORM: &str = "application/x-www-form-urlencoded";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listener {
    Rest,
    Grpc,
}

fn target(method: &str, path: &str, content_type: &'static str) -> Target {
    let prefix = match content_type {
        FORM => b"a=".to_vec(),
        "application/grpc" => [&[0], &u32::try_from(MESSAGE).unwrap().to_be_bytes()[..]].concat(),
        _ => b"{\"username\":\"".to_vec(),
    };
    let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
    Target { method, path: path.to_owned(), content_type, prefix }
}

/// Every route of the table, and what is served beside it.
fn targets() -> Vec<(Listener, Target)> {
    let mut targets: Vec<_> = Local::start().routes.iter().map(of_route).collect();
    for path in ["/openapi.json", "/healthz"] {
        targets.push((Listener::Rest, target("GET", path, FORM)));
    }
    for path in ["/v1/nothing", "/healthz"] {
        targets.push((Listener::Rest, target("POST", path, "application/json")));
    }
    for path in [
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/nothing.Here/Nothing",
    ] {
        targets.push((Listener::Grpc, target("POST", path, "application/grpc")));
    }
    targets
}

fn of_route(route: &Route) -> (Listener, Target) {
    let path = route
        .pattern
        .replace("{name}", "ada")
        .replace("{id}", "1")
        .replace("{secret}", "1")
        .replace("{revision}", "1");
    assert!(!path.contains('{'), "{path} has a parameter that this test does not know");
    let (listener, content_type) = match route.transport {
        Transport::Grpc => (Listener::Grpc, "application/grpc"),
        Transport::Rest => (Listener::Rest, "application/json"),
        Transport::Page | Transport::Protocol => (Listener::Rest, FORM),
    };
    (listener, target(route.method.as_str(), &path, content_type))
}

/// The resident memory of a process, and its peak since [`reset_peak`], in KiB.
fn memory(mcias: &Mcias) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", mcias.process().pid())).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    (field("VmRSS:"), field("VmHWM:"))
}

/// See proc_pid_clear_refs(5).
fn reset_peak(mcias: &Mcias) {
    std::fs::write(format!("/proc/{}/clear_refs", mcias.process().pid()), "5").unwrap();
}

fn run(mcias: &Mcias, listener: Listener, target: &Target, load: Load) -> Outcome {
    let address = if listener == Listener::Rest { mcias.rest } else { mcias.grpc };
    flood(Server { ca: &mcias.ca, address, name: NAME, from: FLOOD_SOURCE }, target, load)
}

/// A server, and how much floods made it grow.
struct Flooded {
    mcias: Mcias,
    table: String,
    exceeded: Vec<String>,
}

impl Flooded {
    fn start() -> Self {
        // Printing a backtrace takes more memory than any flood.
        let mcias = Mcias::start_with("", &[("RUST_BACKTRACE", "0")]);
        // The base is a server that has had as many requests at the same time, with small bodies.
        for (listener, path, content_type) in [
            (Listener::Rest, "/v1/login", "application/json"),
            (Listener::Grpc, "/metacircular.mcias.v1.Identity/Login", "application/grpc"),
        ] {
            let small = Load { body: 1, then: Then::End, ..HELD };
            run(&mcias, listener, &target("POST", path, content_type), small);
        }
        Self { mcias, table: String::new(), exceeded: Vec::new() }
    }

    fn flood(&mut self, listener: Listener, target: &Target, load: Load) {
        let (before, _) = memory(&self.mcias);
        reset_peak(&self.mcias);
        let outcome = run(&self.mcias, listener, target, load);
        let growth = memory(&self.mcias).1.saturating_sub(before);
        let route = format!("{} {}", target.method, target.path);
        let sent = outcome.bytes_sent >> 20;
        self.table += &format!("{growth:>7} KiB  {sent:>4} MiB sent  {route}  {:?}\n", outcome.streams);
        assert!(!outcome.streams.is_empty(), "{route}: no stream was opened");
        if growth >= MAX_GROWTH_KIB {
            self.exceeded.push(format!("{route}: {growth} KiB"));
        }
    }

    fn check(&self) {
        show(&format!("{}{} KiB after all\n", self.table, memory(&self.mcias).0));
        assert!(self.exceeded.is_empty(), "{} routes: {:#?}", self.exceeded.len(), self.exceeded);
        // In debug builds, h2 asserts that no stream is left when a connection is torn down with responses unsent.
        let log = self.mcias.log();
        let panics = log.lines().filter(|line| line.contains("panicked at") && !line.contains("/h2-"));
        assert_eq!(panics.count(), 0, "{log}");
    }
}

#[test]
fn bodies_without_a_token_take_no_memory_on_any_route() {
    let mut flooded = Flooded::start();
    for (listener, target) in targets() {
        flooded.flood(listener, &target, HELD);
    }
    flooded.check();
}

#[test]
fn large_bodies_without_a_token_take_no_memory() {
    let mut flooded = Flooded::start();
    for path in ["/v1/accounts", "/v1/login", "/healthz", "/login"] {
        flooded.flood(Listener::Rest, &target("POST", path, "application/json"), LARGE);
    }
    for path in ["Identity/Login", "Accounts/CreateAccount", "Accounts/ListAccounts"] {
        let mut target = target("POST", &format!("/metacircular.mcias.v1.{path}"), "application/grpc");
        // A message of 1 MiB.
        target.prefix = vec![0, 0, 0x0f, 0xff, 0xfb];
        flooded.flood(Listener::Grpc, &target, LARGE);
    }
    flooded.check();
}

#[expect(clippy::print_stdout, reason = "figures for who runs the test with --nocapture")]
fn show(text: &str) {
    println!("{text}");
}

#[test]
fn bodies_that_stop_are_ended_and_others_log_in_meanwhile() {
    let mcias = Mcias::start_with("", &[("MCIAS_SERVER_BODY_IDLE_TIMEOUT_MS", "1000")]);
    let slow =
        // Together less than what one source may have in flight without a token.
        Load { streams: 100, body: 5_000, then: Then::Wait, max_time: Duration::from_secs(60), ..HELD };
    for (listener, method, path, content_type, expect) in [
        (Listener::Rest, "POST", "/v1/login", "application/json", "408"),
        (Listener::Grpc, "POST", "/metacircular.mcias.v1.Identity/Login", "application/grpc", "grpc 4"),
    ] {
        let target = target(method, path, content_type);
        let (before, _) = memory(&mcias);
        reset_peak(&mcias);
        let outcome = std::thread::scope(|scope| {
            let flood = scope.spawn(|| run(&mcias, listener, &target, slow));
            while !flood.is_finished() {
                let body = json!({ "username": "ada", "password": PASSWORD });
                assert_eq!(mcias.ask("POST", "/v1/login", "", &body).status, 200);
            }
            flood.join().unwrap()
        });
        assert_eq!(outcome.streams.get(expect), Some(&200), "{path}: {outcome:?}");
        let growth = memory(&mcias).1.saturating_sub(before);
        assert!(growth < MAX_GROWTH_KIB, "{path}: {growth} KiB");
    }
}

#[test]
fn people_at_familiar_addresses_log_in_during_a_flood_of_logins() {
    let _machine = heavy();
    let environment =
        [("MCIAS_PASSWORDS_ARGON2_MEMORY_KIB", "19456"), ("MCIAS_PASSWORDS_ARGON2_PASSES", "2")];
    let mut mcias = Mcias::start_with("", &environment);
    let admin = mcias.login("ada");
    let service = mcias.service(&admin, "mcr", &[]);
    mcias.person(&admin, "bob", &["user"]);
    mcias.stop();
    rusqlite::Connection::open(mcias.database()).unwrap().execute_batch(logins::FILL).unwrap();
    mcias.restart(&environment);
    // `cargo xtask bench mcias --flood` has a minute of it, and says how long things take.
    let load = logins::Load {
        time: Duration::from_secs(rounds(4, 60)),
        addresses: 60,
        connections: 2,
        logins_per_s: 5,
        introspections_per_s: 100,
    };
    let outcome = logins::run(&mcias, &service, &admin, load);
    let seen = format!("{:?} {:?}", outcome.logins, outcome.flood);
    show(&seen);
    let logins: u32 = outcome.logins.values().sum();
    assert!(outcome.logins[&200] * 100 >= logins * 95, "{seen}");
    assert_eq!((outcome.lost, outcome.introspected > 300), (0, true), "{seen}");
    // It was a flood, and nobody in it got further than to be wrong.
    let refused = outcome.flood.iter().filter(|(status, _)| [429, 503].contains(*status));
    assert!(refused.map(|(_, count)| count).sum::<u32>() > 50, "{seen}");
    assert!(!outcome.flood.contains_key(&200), "{seen}");
    let metrics = mcias.ops_page("/metrics");
    let turned_away = outcome.flood.get(&503).copied().unwrap_or_default();
    assert!(turned_away == 0 || !metrics.contains("mcias_logins_turned_away_total 0\n"), "{seen}: {metrics}");
}
