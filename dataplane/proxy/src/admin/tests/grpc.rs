//! The API as a client sees it: every call once, and what each says of a request that makes no sense.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use hyper_util::rt::TokioIo;
use mc_api::mcproxy as api;
use mc_api::mcproxy::admin_client::AdminClient;
use tokio::net::{TcpStream, UnixStream};
use tokio_stream::StreamExt as _;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};

use super::*;

/// A service that runs in a directory of its own, and a client of its Unix socket.
struct Running {
    dir: TempDir,
    client: AdminClient<Channel>,
    tcp: Option<SocketAddr>,
    admin: Admin,
    stop: watch::Sender<bool>,
    served: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn new(config: &str) -> Self {
        Self::open(TempDir::new().unwrap(), config).await
    }

    async fn open(dir: TempDir, config: &str) -> Self {
        let service = service(dir.path(), config).await.unwrap();
        let tcp = service.sockets.tcp_address();
        let (stop, stopped) = watch::channel(false);
        let admin = service.admin().clone();
        let served = tokio::spawn(service.run(stopped, mpsc::channel(1).0));
        let client = client(&dir.path().join("mc-proxy.sock")).await;
        Self { dir, client, tcp, admin, stop, served }
    }
}

async fn service(dir: &Path, config: &str) -> Result<Service, OpenError> {
    let mut config = Config::parse(config, "c.toml").unwrap();
    dir.clone_into(&mut config.server.root);
    Service::open(&config, workers(), Arc::default(), Arc::default(), Events::new(), None).await
}

async fn client(path: &Path) -> AdminClient<Channel> {
    let path = path.to_owned();
    let connect = tower::service_fn(move |_| {
        let path = path.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
    });
    let endpoint = Endpoint::from_static("http://mc-proxy");
    AdminClient::new(endpoint.connect_with_connector(connect).await.unwrap())
}

/// What a refusal says: its code, the field to blame, the beginning of its message.
#[track_caller]
fn check<T: std::fmt::Debug>(reply: Result<T, Status>, code: Code, field: &str, message: &str) {
    let status = reply.unwrap_err();
    let blamed = status.metadata().get("field").map_or("", |field| field.to_str().unwrap());
    assert_eq!((status.code(), blamed), (code, field), "{status:?}");
    assert!(status.message().starts_with(message), "{status:?}");
}

fn route(name: &str, backend: &str) -> api::Route {
    let backends = vec![api::Backend { address: backend.to_owned(), ..Default::default() }];
    api::Route { listener: "web".to_owned(), name: name.to_owned(), backends, ..Default::default() }
}

fn add(route: api::Route) -> api::AddRouteRequest {
    api::AddRouteRequest { route: Some(route), ..Default::default() }
}

const WEB: &str = "[[listeners]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n";

#[tokio::test]
async fn routes() {
    let site = Running::new(WEB).await;
    let mut client = site.client.clone();
    let added = client.add_route(add(route("A.example.org", "192.0.2.1:443"))).await.unwrap().into_inner();
    assert_eq!((added.revision, added.created, added.changed), (2, true, true));
    let stored = added.route.unwrap();
    assert_eq!(
        (stored.name.as_str(), stored.retries, stored.backends[0].weight),
        ("a.example.org", Some(2), Some(1))
    );
    let again = client.add_route(add(stored)).await.unwrap().into_inner();
    assert_eq!((again.revision, again.created, again.changed), (2, false, false));

    let update = |name: &str| api::UpdateRouteRequest {
        route: Some(route(name, "192.0.2.2:443")),
        ..Default::default()
    };
    assert_eq!(client.update_route(update("a.example.org")).await.unwrap().into_inner().revision, 3);
    let unknown = client.update_route(update("b.example.org")).await;
    check(unknown, Code::NotFound, "route", "there is no route web/b.example.org");
    // Somebody else was faster: what is there is not what was read.
    let stale = api::UpdateRouteRequest {
        expected: Some(route("a.example.org", "192.0.2.1:443")),
        ..update("a.example.org")
    };
    check(
        client.update_route(stale).await,
        Code::Aborted,
        "expected",
        "route web/a.example.org is not the one",
    );
    let fresh = api::UpdateRouteRequest {
        route: Some(route("a.example.org", "192.0.2.2:443")),
        expected: Some(route("a.example.org", "192.0.2.2:443")),
        ..Default::default()
    };
    assert_eq!(client.update_route(fresh).await.unwrap().into_inner().revision, 3);

    let remove = |name: &str, connections| api::RemoveRouteRequest {
        key: Some(api::RouteKey { listener: "web".to_owned(), name: name.to_owned(), ..Default::default() }),
        connections,
        ..Default::default()
    };
    check(
        client.remove_route(remove("a.example.org", 7)).await,
        Code::InvalidArgument,
        "connections",
        "connections: 7",
    );
    let removed = client.remove_route(remove("a.example.org", 1)).await.unwrap().into_inner();
    assert_eq!((removed.revision, removed.existed, removed.killed), (4, true, 0));
    assert!(!client.remove_route(remove("a.example.org", 0)).await.unwrap().into_inner().existed);
}

#[tokio::test]
async fn a_route_that_makes_no_sense_is_refused_with_its_field() {
    let site = Running::new(WEB).await;
    let (mut client, admin) = (site.client.clone(), site.admin.clone());
    let mut refused = async |route: api::Route, field: &str, message: &str| {
        check(client.add_route(add(route)).await, Code::InvalidArgument, field, message);
    };
    let good = || route("a.example.org", "192.0.2.1:443");
    refused(api::Route { name: "a b".to_owned(), ..good() }, "name", "name: \"a b\" is no host name").await;
    refused(api::Route { listener: "wbe".to_owned(), ..good() }, "listener", "listener: \"wbe\"").await;
    refused(api::Route { backends: vec![], ..good() }, "backends", "backends: 0 backends").await;
    refused(route("a.example.org", "example.org:443"), "backends[0].address", "backends[0].address: ").await;
    let mut heavy = good();
    heavy.backends[0].weight = Some(0);
    refused(heavy, "backends[0].weight", "backends[0].weight: 0 is out of range").await;
    let none = client.add_route(api::AddRouteRequest::default()).await;
    check(none, Code::InvalidArgument, "route", "route: is missing");
    assert_eq!(admin.snapshot().revision, 1);
}

#[tokio::test]
async fn routes_are_listed_in_order_whatever_their_number() {
    let site = Running::new(WEB).await;
    let mut client = site.client.clone();
    let api =
        api::Listener { name: "api".to_owned(), address: "127.0.0.1:0".to_owned(), ..Default::default() };
    client.add_listener(api::AddListenerRequest { listener: Some(api), ..Default::default() }).await.unwrap();
    let many = |range: std::ops::Range<u32>| api::ReplaceRoutesRequest {
        expected_revision: Some(2),
        routes: range.map(|number| route(&format!("r{number:04}.example.org"), "192.0.2.1:443")).collect(),
        ..Default::default()
    };
    let other = api::Route { listener: "api".to_owned(), ..route("z.example.org", "192.0.2.1:443") };
    let last = api::ReplaceRoutesRequest { routes: vec![other], ..Default::default() };
    let done =
        client.replace_routes(tokio_stream::iter([many(800..1600), many(0..800), last])).await.unwrap();
    assert_eq!(
        done.into_inner(),
        api::ReplaceRoutesResponse { revision: 3, added: 1601, ..Default::default() }
    );

    let mut list = async |listener: &str, contains: &str| {
        let request =
            api::ListRoutesRequest { listener: listener.to_owned(), name_contains: contains.to_owned() };
        let stream = client.list_routes(request).await.unwrap().into_inner();
        stream.map(|route| route.unwrap().name).collect::<Vec<_>>().await
    };
    let all = list("", "").await;
    assert_eq!((all.len(), all[0].as_str(), all[1].as_str()), (1601, "z.example.org", "r0000.example.org"));
    assert!(all[1..].is_sorted());
    assert_eq!(list("web", "").await.len(), 1600);
    assert_eq!(list("api", "").await, ["z.example.org"]);
    assert_eq!(list("web", "r0777").await, ["r0777.example.org"]);
    assert_eq!(list("none", "").await.len(), 0);

    let stale = client.replace_routes(tokio_stream::iter([many(0..1)])).await;
    check(stale, Code::Aborted, "expected_revision", "the revision is 3 and 2 was expected");
    let empty = client.replace_routes(tokio_stream::iter([])).await;
    check(empty, Code::InvalidArgument, "routes", "routes: no message came");
    let wrong = api::ReplaceRoutesRequest { routes: vec![route("a.example.org", "x")], ..Default::default() };
    let wrong = client.replace_routes(tokio_stream::iter([wrong])).await;
    check(wrong, Code::InvalidArgument, "routes[0].backends[0].address", "routes[0].backends[0].address: ");
}

#[tokio::test]
async fn listeners() {
    let site = Running::new(WEB).await;
    let mut client = site.client.clone();
    client.add_route(add(route("a.example.org", "192.0.2.1:443"))).await.unwrap();
    let listed = client.list_listeners(api::ListListenersRequest {}).await.unwrap().into_inner().listeners;
    let web = listed[0].listener.clone().unwrap();
    assert_eq!((listed.len(), listed[0].routes, web.hello_timeout_ms), (1, 1, Some(10_000)));
    let mut add = async |name: &str, address: &str| {
        let listener =
            api::Listener { name: name.to_owned(), address: address.to_owned(), ..Default::default() };
        client.add_listener(api::AddListenerRequest { listener: Some(listener), ..Default::default() }).await
    };
    assert!(add("api", "127.0.0.1:0").await.unwrap().into_inner().created);
    check(add("A", "127.0.0.1:0").await, Code::InvalidArgument, "name", "name: ");
    check(add("b", "localhost:1").await, Code::InvalidArgument, "address", "address: ");
    check(
        add("b", "192.0.2.1:1").await,
        Code::FailedPrecondition,
        "listener.address",
        "listener `b` cannot be opened: 192.0.2.1 is not",
    );
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let held = std::net::TcpListener::bind(taken).unwrap();
    let in_use = format!("listener `b` cannot be opened: {taken} is in use");
    check(add("b", &taken.to_string()).await, Code::FailedPrecondition, "listener.address", &in_use);
    drop(held);
    let remove = |name: &str, with_routes| api::RemoveListenerRequest {
        name: name.to_owned(),
        with_routes,
        ..Default::default()
    };
    let kept = client.remove_listener(remove("web", false)).await;
    check(kept, Code::FailedPrecondition, "with_routes", "1 routes refer to listener `web`");
    let unknown = client.remove_listener(remove("none", false)).await;
    check(unknown, Code::NotFound, "name", "there is no listener `none`");
    client.remove_listener(remove("web", true)).await.unwrap();
    let status = client.get_status(api::GetStatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.routes, status.listeners, status.revision, status.workers), (0, 1, 4, 1));
}

#[tokio::test]
async fn firewall() {
    let site = Running::new(WEB).await;
    let mut client = site.client.clone();
    let rule = |action, cidr: &str| api::FirewallRuleRequest {
        rule: Some(api::FirewallRule {
            action,
            subject: Some(api::firewall_rule::Subject::Cidr(cidr.to_owned())),
            comment: "scanners".to_owned(),
        }),
    };
    assert_eq!(client.add_firewall_rule(rule(2, "192.0.2.0/24")).await.unwrap().into_inner().revision, 2);
    check(client.add_firewall_rule(rule(2, "192.0.2.0/40")).await, Code::InvalidArgument, "cidr", "cidr: ");
    check(client.add_firewall_rule(rule(2, "192.0.2.1/24")).await, Code::InvalidArgument, "cidr", "cidr: ");
    check(
        client.add_firewall_rule(rule(0, "192.0.2.0/24")).await,
        Code::InvalidArgument,
        "action",
        "action: ",
    );
    let mut test = async |address: &str| {
        let reply = client.test_firewall(api::TestFirewallRequest { address: address.to_owned() }).await;
        reply.map(|reply| (reply.get_ref().allowed, reply.into_inner().reason))
    };
    let denied = "denied_cidr: denied by rule 1: cidr 192.0.2.0/24 (scanners)".to_owned();
    assert_eq!(test("192.0.2.9").await.unwrap(), (false, denied));
    assert_eq!(
        test("192.0.3.9").await.unwrap(),
        (true, "allowed by default: no rule is about it".to_owned())
    );
    check(test("192.0.2").await, Code::InvalidArgument, "address", "address: `192.0.2` is no IP address");

    let rate = api::Rate { per_address: 10, ..Default::default() };
    client.set_rate(api::SetRateRequest { rate: Some(rate) }).await.unwrap();
    let burst = api::Rate { prefix_burst: 1, ..Default::default() };
    let burst = client.set_rate(api::SetRateRequest { rate: Some(burst) }).await;
    check(burst, Code::InvalidArgument, "rate.prefix_burst", "rate.prefix_burst: ");
    let state = client.get_firewall(api::GetFirewallRequest {}).await.unwrap().into_inner();
    let firewall = state.firewall.unwrap();
    assert_eq!((state.revision, firewall.rules.len(), firewall.rate.unwrap()), (3, 1, rate));
    let set = |expected_revision| api::SetFirewallRequest {
        firewall: Some(api::Firewall { default_action: 2, ..Default::default() }),
        expected_revision,
    };
    check(client.set_firewall(set(Some(2))).await, Code::Aborted, "expected_revision", "the revision is 3");
    client.set_firewall(set(Some(3))).await.unwrap();
    let gone = client.remove_firewall_rule(rule(2, "192.0.2.0/24")).await;
    check(gone, Code::NotFound, "rule", "there is no such firewall rule");
}

#[tokio::test]
async fn backends() {
    let site = Running::new(WEB).await;
    let mut client = site.client.clone();
    client.add_route(add(route("a.example.org", "192.0.2.1:443"))).await.unwrap();
    let drain =
        |address: &str, drain, kill| api::DrainBackendRequest { address: address.to_owned(), drain, kill };
    check(
        client.drain_backend(drain("x", true, false)).await,
        Code::InvalidArgument,
        "address",
        "address: `x`",
    );
    check(
        client.drain_backend(drain("192.0.2.1:443", false, true)).await,
        Code::InvalidArgument,
        "kill",
        "kill: ",
    );
    let unknown = client.drain_backend(drain("192.0.2.9:443", true, false)).await;
    check(unknown, Code::NotFound, "address", "no route leads to 192.0.2.9:443");
    client.drain_backend(drain("192.0.2.1:443", true, true)).await.unwrap();
    let listed = client.list_backends(api::ListBackendsRequest {}).await.unwrap().into_inner().backends;
    assert_eq!((listed.len(), listed[0].address.as_str()), (1, "192.0.2.1:443"));
    assert_eq!((listed[0].draining, listed[0].routes, listed[0].health()), (true, 1, api::Health::Unknown));
}

#[tokio::test]
async fn a_backend_is_checked_while_a_route_wants_it() {
    let site = Running::new(WEB).await;
    let mut client = site.client.clone();
    let mut events = client.watch_events(api::WatchEventsRequest {}).await.unwrap().into_inner();
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let check =
        api::Check { fall: Some(1), timeout_ms: Some(50), interval_ms: Some(100), ..Default::default() };
    let checked = api::Route { check: Some(check), ..route("a.example.org", &dead) };
    client.add_route(add(checked)).await.unwrap();
    let mut seen = Vec::new();
    while !seen.contains(&("backend_down".to_owned(), dead.clone())) {
        let event = events.next().await.unwrap().unwrap();
        seen.push((event.kind, event.subject));
    }
    let backend = async |client: &mut AdminClient<Channel>| {
        client.list_backends(api::ListBackendsRequest {}).await.unwrap().into_inner().backends.remove(0)
    };
    let down = backend(&mut client).await;
    assert_eq!(down.health(), api::Health::Down);
    assert!(down.last_error.contains("refused"), "{down:?}");
    client
        .update_route(api::UpdateRouteRequest {
            route: Some(route("a.example.org", &dead)),
            ..Default::default()
        })
        .await
        .unwrap();
    let forgotten = backend(&mut client).await;
    assert_eq!((forgotten.health(), forgotten.last_error.as_str()), (api::Health::Unknown, ""));
}

#[tokio::test]
async fn connections_and_what_is_counted_of_them() {
    let site = Running::new(WEB).await;
    let (mut client, admin) = (site.client.clone(), site.admin.clone());
    client.add_route(add(route("a.example.org", "192.0.2.1:443"))).await.unwrap();
    let web = admin.snapshot().listeners[0].spec.address;
    let held = TcpStream::connect(web).await.unwrap();
    let request = api::ListConnectionsRequest::default();
    let found = loop {
        let found = client.list_connections(request.clone()).await.unwrap().into_inner();
        let found: Vec<_> = found.map(Result::unwrap).collect().await;
        if !found.is_empty() {
            break found;
        }
    };
    assert_eq!((found.len(), found[0].phase.as_str(), found[0].listener.as_str()), (1, "hello", "web"));
    assert_eq!(found[0].client, held.local_addr().unwrap().to_string());
    let stats = client.get_stats(api::GetStatsRequest { top: 0 }).await.unwrap().into_inner();
    assert_eq!((stats.accepted, stats.active, stats.workers.len(), stats.routes.len()), (1, 1, 1, 0));

    let network =
        |text: &str| Some(api::ConnectionFilter { client_network: text.to_owned(), ..Default::default() });
    let wrong = api::ListConnectionsRequest { filter: network("10.0.0.0/33"), limit: 0 };
    let wrong = client.list_connections(wrong).await.map(drop);
    check(wrong, Code::InvalidArgument, "filter.client_network", "filter.client_network: `10.0.0.0/33`");
    let mut kill =
        async |filter, all| client.kill_connections(api::KillConnectionsRequest { filter, all }).await;
    check(kill(None, false).await, Code::InvalidArgument, "filter", "filter: is empty");
    check(
        kill(Some(api::ConnectionFilter::default()), false).await,
        Code::InvalidArgument,
        "filter",
        "filter: is",
    );
    assert_eq!(kill(network("192.0.2.0/24"), false).await.unwrap().into_inner().killed, 0);
    assert_eq!(kill(network("127.0.0.1"), false).await.unwrap().into_inner().killed, 1);
}

#[tokio::test]
async fn the_busiest_routes_come_first() {
    let site = Running::new(WEB).await;
    let (mut client, admin) = (site.client.clone(), site.admin.clone());
    for (name, times) in
        [("a.example.org", 1), ("b.example.org", 3), ("c.example.org", 2), ("d.example.org", 0)]
    {
        client.add_route(add(route(name, "192.0.2.1:443"))).await.unwrap();
        let entry = admin.routes_after(None, 9).into_iter().find(|entry| entry.spec.name == name).unwrap();
        (0..times).for_each(|_| entry.live.counters().begun());
        assert!(name != "c.example.org" || entry.live.acquire(0));
    }
    let mut top = async |top| {
        let stats = client.get_stats(api::GetStatsRequest { top }).await.unwrap().into_inner();
        stats.routes.into_iter().map(|route| route.key.unwrap().name).collect::<Vec<_>>()
    };
    assert_eq!(top(9).await, ["c.example.org", "b.example.org", "a.example.org"]);
    assert_eq!(top(2).await, ["c.example.org", "b.example.org"]);
    assert_eq!(top(1).await, ["c.example.org"]);
}

#[tokio::test]
async fn watchers_see_changes() {
    let site = Running::new(WEB).await;
    let (mut client, admin) = (site.client.clone(), site.admin.clone());
    let mut events = client.watch_events(api::WatchEventsRequest {}).await.unwrap().into_inner();
    client.add_route(add(route("a.example.org", "192.0.2.1:443"))).await.unwrap();
    let event = events.next().await.unwrap().unwrap();
    assert_eq!(
        (event.kind.as_str(), event.subject.as_str(), event.revision),
        ("route_added", "web/a.example.org", 2)
    );
    assert!(event.unix_ms > 1_600_000_000_000 && event.detail.contains("192.0.2.1:443"), "{event:?}");
    let watchers: Vec<_> = std::iter::from_fn(|| admin.events().watch()).collect();
    let more = client.watch_events(api::WatchEventsRequest {}).await.map(drop);
    check(more, Code::ResourceExhausted, "", "there may be 64 watchers at most");
    drop(watchers);
}

#[tokio::test]
async fn the_socket_is_its_owners_alone_and_tells_of_another_process() {
    let running = Running::new(WEB).await;
    let socket = running.dir.path().join("mc-proxy.sock");
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let second = service(running.dir.path(), WEB).await.unwrap_err().to_string();
    assert!(second.starts_with(&format!("another mc-proxy runs with {}", socket.display())), "{second}");

    let watching = running.client.clone().watch_events(api::WatchEventsRequest {}).await.unwrap();
    running.stop.send(true).unwrap();
    running.served.await.unwrap();
    assert!(!socket.exists());
    drop(watching);
}

#[tokio::test]
async fn a_socket_that_was_left_behind_is_replaced_and_nothing_else() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("mc-proxy.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    let site = Running::open(dir, WEB).await;
    site.client.clone().get_status(api::GetStatusRequest {}).await.unwrap();
    let file = site.dir.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    let config = format!("[admin]\nsocket = \"{}\"", file.display());
    let error = service(site.dir.path(), &config).await.unwrap_err().to_string();
    assert!(error.ends_with("file exists and is no socket: remove it, or set admin.socket"), "{error}");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "mine");
}

/// A directory with a certificate, its key and a token, and the configuration that names them.
fn tcp_site() -> (TempDir, String, Certificate) {
    let dir = TempDir::new().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(dir.path().join("c.pem"), made.cert.pem()).unwrap();
    std::fs::write(dir.path().join("k.pem"), made.signing_key.serialize_pem()).unwrap();
    write_token(dir.path(), "0123456789abcdef0123");
    let config = "[admin.tcp]\nlisten_addr = \"127.0.0.1:0\"\ncertificate = \"c.pem\"\nkey = \"k.pem\"\ntoken_file = \"t\"";
    (dir, config.to_owned(), Certificate::from_pem(made.cert.pem()))
}

fn write_token(dir: &Path, token: &str) {
    let path = dir.join("t");
    std::fs::write(&path, token).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn with_token(token: &str) -> Request<api::GetStatusRequest> {
    let mut request = Request::new(api::GetStatusRequest {});
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

#[tokio::test]
async fn over_tcp_only_the_token_is_admitted() {
    let (dir, config, certificate) = tcp_site();
    let running = Running::open(dir, &config).await;
    let tls = ClientTlsConfig::new().ca_certificate(certificate).domain_name("localhost");
    let endpoint = Endpoint::from_shared(format!("https://{}", running.tcp.unwrap())).unwrap();
    let mut client = AdminClient::new(endpoint.tls_config(tls).unwrap().connect().await.unwrap());
    let none = client.get_status(api::GetStatusRequest {}).await;
    check(none, Code::Unauthenticated, "", "give the token");
    let wrong = client.get_status(with_token("0123456789abcdef0124")).await;
    check(wrong, Code::Unauthenticated, "", "give the token");
    client.get_status(with_token("0123456789abcdef0123")).await.unwrap();
    write_token(running.dir.path(), "fedcba98765432100000");
    let old = client.get_status(with_token("0123456789abcdef0123")).await;
    check(old, Code::Unauthenticated, "", "give the token");
    client.get_status(with_token("fedcba98765432100000")).await.unwrap();
    std::fs::remove_file(running.dir.path().join("t")).unwrap();
    let gone = client.get_status(with_token("fedcba98765432100000")).await;
    check(gone, Code::Unavailable, "", "the proxy cannot read its token file");
    let mut unix = running.client.clone();
    unix.get_status(api::GetStatusRequest {}).await.unwrap();
}

#[tokio::test]
async fn over_tcp_nothing_is_spoken_in_the_clear_and_nothing_before_tls_1_3() {
    let (dir, config, _) = tcp_site();
    let running = Running::open(dir, &config).await;
    let address = running.tcp.unwrap();
    let clear = Endpoint::from_shared(format!("http://{address}")).unwrap();
    if let Ok(channel) = clear.connect().await {
        AdminClient::new(channel).get_status(with_token("0123456789abcdef0123")).await.unwrap_err();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let old = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(old));
    let stream = TcpStream::connect(address).await.unwrap();
    let error = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap_err().to_string();
    assert!(error.contains("ProtocolVersion"), "{error}");
}

#[tokio::test]
async fn tls_and_token_are_checked_at_the_start() {
    let (dir, config, _) = tcp_site();
    let path = dir.path().to_owned();
    let refused = async |change: &dyn Fn()| {
        change();
        service(&path, &config).await.unwrap_err().to_string()
    };
    let write = |name: &str, text: &str| std::fs::write(path.join(name), text).unwrap();
    let short = refused(&|| write_token(&path, "short")).await;
    assert!(short.starts_with("admin.tcp.token_file: ") && short.contains("shorter than 16"), "{short}");
    let other =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().signing_key.serialize_pem();
    let unfit = refused(&|| {
        write_token(&path, "0123456789abcdef0123");
        write("k.pem", &other);
    })
    .await;
    assert!(
        unfit.starts_with("admin.tcp.key: ") && unfit.contains("does not fit the certificate"),
        "{unfit}"
    );
    let empty = refused(&|| write("c.pem", "")).await;
    assert!(
        empty.starts_with("admin.tcp.certificate: ") && empty.contains("no certificate in it"),
        "{empty}"
    );
    assert!(!path.join("mc-proxy.sock").exists(), "nothing is left open");
}
