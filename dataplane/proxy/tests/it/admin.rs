//! The admin API: changes that are live when the call returns, and disturb nobody.

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use mc_api::mcproxy as api;
use mc_testkit::backend::Backend;
use mc_testkit::client::{End, Raw};
use mc_testkit::proxy::{Config, Proxy};
use mc_testkit::{clock, fresh_address, heavy, rounds};
use tonic::{Code, Status};

use crate::common::{assert_alive, greet, hello, open, to};
use crate::grpc::{Grpc, route};

fn refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, words: &[&str]) {
    let status = result.expect_err("it must be refused");
    assert_eq!(status.code(), code, "{status}");
    for word in words {
        assert!(status.message().contains(word), "no {word:?} in: {}", status.message());
    }
}

#[test]
fn the_admin_socket_is_for_its_owner_alone() {
    let proxy = Proxy::start(Config::new());
    let mode = std::fs::metadata(proxy.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600, "{mode:o}");
    let mode = std::fs::metadata(proxy.root().join("mc-proxy.db")).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}");
}

#[test]
fn a_route_is_live_when_its_call_returns() {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let proxy = to(a.address());
    let client = Grpc::connect(&proxy.socket());
    for backend in [&b, &a, &b, &a] {
        client.add_route(route("www.example.org", &backend.address().to_string())).unwrap();
        let name = if std::ptr::eq(backend, &a) { "a" } else { "b" };
        assert_eq!(open(&proxy).1, name);
    }
    client.remove_route("www.example.org", false).unwrap();
    assert_eq!(open(&proxy).1, "a", "the default again");
}

#[test]
fn adding_the_same_route_twice_changes_nothing() {
    let proxy = Proxy::start(Config::new().listener("web"));
    let client = Grpc::connect(&proxy.socket());
    let first = client.add_route(route("WWW.example.org.", "192.0.2.1:443")).unwrap();
    assert_eq!((first.created, first.changed), (true, true));
    assert_eq!(first.route.unwrap().name, "www.example.org");
    let again = client.add_route(route("www.example.org", "192.0.2.1:443")).unwrap();
    assert_eq!((again.created, again.changed, again.revision), (false, false, first.revision));
    let other = client.add_route(route("www.example.org", "192.0.2.2:443")).unwrap();
    assert_eq!((other.created, other.changed), (false, true));
    assert!(other.revision > first.revision);
}

#[test]
fn updating_wants_a_route_that_exists() {
    let proxy = Proxy::start(Config::new().listener("web"));
    let client = Grpc::connect(&proxy.socket());
    let update = |route| {
        let request = api::UpdateRouteRequest { route: Some(route), ..Default::default() };
        client.call(|mut client| async move { client.update_route(request).await })
    };
    refused(update(route("www.example.org", "192.0.2.1:443")), Code::NotFound, &["www.example.org"]);
    client.add_route(route("www.example.org", "192.0.2.1:443")).unwrap();
    assert!(update(route("www.example.org", "192.0.2.2:443")).unwrap().changed);
    let reply = client.remove_route("nobody.example.org", false).unwrap();
    assert!(!reply.existed);
}

/// Replaces all routes, in several messages.
fn replace(
    client: &Grpc,
    expected: Option<u64>,
    routes: Vec<api::Route>,
) -> Result<api::ReplaceRoutesResponse, Status> {
    let mut messages: Vec<api::ReplaceRoutesRequest> = routes
        .chunks(2)
        .map(|part| api::ReplaceRoutesRequest { routes: part.to_vec(), ..Default::default() })
        .collect();
    messages.insert(0, api::ReplaceRoutesRequest { expected_revision: expected, ..Default::default() });
    client.call(|mut client| async move { client.replace_routes(tokio_stream::iter(messages)).await })
}

#[test]
fn all_routes_are_replaced_at_once_or_not_at_all() {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let proxy = to(a.address());
    let client = Grpc::connect(&proxy.socket());
    let revision = client.revision();
    let routes = || {
        vec![
            route("*", &b.address().to_string()),
            route("x.example.org", "192.0.2.1:443"),
            route("y.example.org", "192.0.2.1:443"),
        ]
    };
    refused(replace(&client, Some(revision + 1), routes()), Code::Aborted, &[&revision.to_string()]);
    let mut wrong = routes();
    wrong[2].backends.clear();
    refused(replace(&client, None, wrong), Code::InvalidArgument, &["routes[2].backends"]);
    assert_eq!((open(&proxy).1.as_str(), client.revision()), ("a", revision));
    let done = replace(&client, Some(revision), routes()).unwrap();
    assert_eq!((done.added, done.updated, done.removed), (2, 1, 0));
    assert_eq!(open(&proxy).1, "b");
    let done = replace(&client, None, vec![route("*", &a.address().to_string())]).unwrap();
    assert_eq!((done.added, done.updated, done.removed), (0, 1, 2));
}

#[test]
fn listeners_come_and_go_while_it_runs() {
    let backend = Backend::named("origin");
    let proxy = to(backend.address());
    let client = Grpc::connect(&proxy.socket());
    let (mut old, _) = open(&proxy);
    let address = fresh_address();
    let listener = api::Listener { name: "extra".into(), address: address.to_string(), ..Default::default() };
    let add = |listener: api::Listener| {
        let request = api::AddListenerRequest { listener: Some(listener), ..Default::default() };
        client.call(|mut client| async move { client.add_listener(request).await })
    };
    let remove = |name: &str, with_routes, connections| {
        let request =
            api::RemoveListenerRequest { name: name.into(), with_routes, connections, ..Default::default() };
        client.call(|mut client| async move { client.remove_listener(request).await })
    };
    assert!(add(listener.clone()).unwrap().created);
    assert!(!add(listener.clone()).unwrap().created);
    let mut extra = route("*", &backend.address().to_string());
    extra.listener = "extra".into();
    client.add_route(extra).unwrap();
    let (mut on_extra, name) = greet(Raw::connect(address));
    assert_eq!(name, "origin");
    let taken = api::Listener { name: "other".into(), ..listener };
    refused(add(taken), Code::FailedPrecondition, &[&address.to_string()]);
    refused(remove("extra", false, 0), Code::FailedPrecondition, &["extra"]);
    remove("extra", true, 0).unwrap();
    assert!(Raw::try_connect(None, address).is_err(), "a removed listener took a connection");
    // Neither its own connections nor anybody else's notice.
    assert_alive(&mut on_extra);
    assert_alive(&mut old);
    refused(remove("extra", true, 0), Code::NotFound, &["extra"]);
}

#[test]
fn removing_a_listener_may_kill_its_connections() {
    let backend = Backend::named("origin");
    let proxy = Proxy::start(
        Config::new().listener("web").listener("extra").route("*", backend.address()).route_lines(
            "extra",
            "*",
            &format!("backends = [{{ address = \"{}\" }}]", backend.address()),
        ),
    );
    let client = Grpc::connect(&proxy.socket());
    let (mut keeps, _) = open(&proxy);
    let (mut loses, _) = greet(Raw::connect(proxy.address("extra")));
    let request = api::RemoveListenerRequest {
        name: "extra".into(),
        with_routes: true,
        connections: 1,
        ..Default::default()
    };
    client.call(|mut client| async move { client.remove_listener(request).await }).unwrap();
    assert_ne!(loses.read_to_end(clock::PATIENCE).1, End::Silence);
    assert_alive(&mut keeps);
    proxy.wait_outcome("killed");
}

#[test]
fn a_removed_route_drains_or_kills_as_asked() {
    let backend = Backend::named("origin");
    let proxy = to(backend.address());
    let client = Grpc::connect(&proxy.socket());
    let with_route = |kill| {
        client.add_route(route("www.example.org", &backend.address().to_string())).unwrap();
        let (connection, _) = open(&proxy);
        (connection, client.remove_route("www.example.org", kill).unwrap())
    };
    let (mut drained, reply) = with_route(false);
    assert_eq!((reply.existed, reply.killed), (true, 0));
    assert_alive(&mut drained);
    let (mut killed, reply) = with_route(true);
    assert_eq!((reply.existed, reply.killed), (true, 1));
    assert_ne!(killed.read_to_end(clock::PATIENCE).1, End::Silence);
    proxy.wait_outcome("killed");
    assert_alive(&mut drained);
}

#[test]
fn connections_are_listed_and_killed_by_what_they_are() {
    let backend = Backend::named("origin");
    let proxy = to(backend.address());
    let client = Grpc::connect(&proxy.socket());
    let (mut one, _) = open(&proxy);
    let (mut two, _) = open(&proxy);
    let listed = client.connections();
    assert_eq!(listed.len(), 2);
    let this = listed.iter().find(|line| line.client == one.local().to_string()).unwrap();
    assert_eq!((&*this.name, &*this.route, &*this.phase), ("www.example.org", "*", "relay"));
    assert_eq!(this.bytes_in, u64::try_from(hello().len()).unwrap());
    let kill = |filter, all| {
        let request = api::KillConnectionsRequest { filter, all };
        client.call(|mut client| async move { client.kill_connections(request).await })
    };
    refused(kill(None, false), Code::InvalidArgument, &["all"]);
    assert_eq!(
        kill(Some(api::ConnectionFilter { name: "else.example".into(), ..Default::default() }), false)
            .unwrap()
            .killed,
        0
    );
    let network = format!("{}/32", one.local().ip());
    assert_eq!(
        kill(Some(api::ConnectionFilter { client_network: network, ..Default::default() }), false)
            .unwrap()
            .killed,
        2
    );
    for connection in [&mut one, &mut two] {
        assert_ne!(connection.read_to_end(clock::PATIENCE).1, End::Silence);
    }
    let (mut three, _) = open(&proxy);
    assert_eq!(kill(None, true).unwrap().killed, 1);
    assert_ne!(three.read_to_end(clock::PATIENCE).1, End::Silence);
}

#[test]
fn a_refused_change_leaves_everything_as_it_was() {
    let backend = Backend::named("origin");
    let proxy = to(backend.address());
    let client = Grpc::connect(&proxy.socket());
    let before = (client.revision(), client.route_names());
    let (mut connection, _) = open(&proxy);
    let good = || route("www.example.org", "192.0.2.1:443");
    let with = |change: &dyn Fn(&mut api::Route)| {
        let mut route = good();
        change(&mut route);
        client.add_route(route)
    };
    let wrong = Code::InvalidArgument;
    refused(with(&|r| r.name = "exa mple.org".into()), wrong, &["name", "exa mple.org"]);
    refused(with(&|r| r.name = String::new()), wrong, &["name"]);
    refused(with(&|r| r.name = format!("{}.org", "a".repeat(64))), wrong, &["name"]);
    refused(with(&|r| r.name = "*.a.*.org".into()), wrong, &["name"]);
    refused(with(&|r| r.listener = "nowhere".into()), wrong, &["nowhere"]);
    refused(with(&|r| r.backends.clear()), wrong, &["backends"]);
    refused(with(&|r| r.backends[0].address = "example.org:443".into()), wrong, &["backends[0].address"]);
    refused(with(&|r| r.backends[0].weight = Some(1001)), wrong, &["backends[0].weight", "1001"]);
    refused(with(&|r| r.balance = 99), wrong, &["balance", "99"]);
    refused(
        with(&|r| r.check = Some(api::Check { interval_ms: Some(0), ..Default::default() })),
        wrong,
        &["check.interval_ms"],
    );
    let rule = |cidr: &str| {
        let rule = api::FirewallRule {
            action: api::Action::Deny.into(),
            subject: Some(api::firewall_rule::Subject::Cidr(cidr.into())),
            comment: String::new(),
        };
        let request = api::FirewallRuleRequest { rule: Some(rule) };
        client.call(|mut client| async move { client.add_firewall_rule(request).await })
    };
    refused(rule("10.0.0.0/33"), wrong, &["cidr", "10.0.0.0/33"]);
    refused(rule("everyone"), wrong, &["cidr", "everyone"]);
    let listener = |address: &str| {
        let listener = api::Listener { name: "new".into(), address: address.into(), ..Default::default() };
        let request = api::AddListenerRequest { listener: Some(listener), ..Default::default() };
        client.call(|mut client| async move { client.add_listener(request).await })
    };
    refused(listener("localhost:443"), wrong, &["address", "localhost:443"]);
    refused(
        listener("192.0.2.1:4433"),
        Code::FailedPrecondition,
        &["192.0.2.1", "not an address of this machine"],
    );
    refused(listener(&backend.address().to_string()), Code::FailedPrecondition, &["in use"]);
    assert_eq!((client.revision(), client.route_names()), before);
    assert_alive(&mut connection);
    assert_eq!(open(&proxy).1, "origin");
}

#[test]
fn changes_in_quick_succession_disturb_nobody() {
    let changes = rounds(200, 1_000);
    let _machine = heavy();
    let backend = Backend::named("origin");
    let proxy = to(backend.address());
    let (mut long, _) = open(&proxy);
    let stop = AtomicBool::new(false);
    let served = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    // Any failure panics, and with it the test.
                    let (mut client, name) = open(&proxy);
                    assert_eq!(name, "origin");
                    assert_eq!(client.finish_and_read().1, End::Fin);
                    served.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let client = Grpc::connect(&proxy.socket());
        for number in 0..changes {
            let name = format!("r{}.example.org", number % 50);
            if number / 50 % 2 == 0 {
                client.add_route(route(&name, "192.0.2.1:443")).unwrap();
            } else {
                client.remove_route(&name, false).unwrap();
            }
            clock::sleep_ms(10);
        }
        clock::wait_until("clients to be served", || served.load(Ordering::SeqCst) > 100);
        stop.store(true, Ordering::SeqCst);
    });
    println!("{changes} changes, {} connections, none failed", served.load(Ordering::SeqCst));
    assert_alive(&mut long);
    drop(long);
    let failed = |line: &serde_json::Value| line["outcome"] != "completed";
    assert_eq!(proxy.log().into_iter().find(failed), None);
}
