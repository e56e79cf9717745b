//! Health checks: for whom they decide, and how they ask backends of each protocol.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use mc_api::mcproxy::{BackendState, Health};
use mc_testkit::ca::{Ca, Certificate};
use mc_testkit::client::Request;
use mc_testkit::http::{Client, Origin, Then};
use mc_testkit::peer::Peer;
use mc_testkit::proxy::{Config, Proxy};
use mc_testkit::{clock, fresh_address, requires};
use tonic_health::server::HealthReporter;
use tonic_health::{ServingStatus, pb::health_server::HealthServer, server::HealthService};

use crate::grpc::Grpc;

const NAMES: [&str; 4] = ["a.example.org", "b.example.org", "c.example.org", "d.example.org"];

/// A check of this kind, with more of its settings, that needs one result only to decide.
fn check(kind: &str, more: &str) -> String {
    format!("check = {{ kind = \"{kind}\", interval_ms = 500, timeout_ms = 500, rise = 1, fall = 1{more} }}")
}

/// A proxy that terminates TLS for [`NAMES`], as many as there are routes; each a backend as TOML, and lines.
fn site(routes: &[(&str, &str)]) -> (Proxy, Ca) {
    let ca = Ca::new();
    let config = Config::new().listener("web").certificate("www", &ca.issue(&NAMES));
    let config = routes.iter().zip(NAMES).fold(config, |config, ((backend, lines), name)| {
        let lines = format!("mode = \"l7\"\nbackends = [{{ {backend} }}]\n{lines}");
        config.route_lines("web", name, &lines)
    });
    (Proxy::start(config), ca)
}

/// Waits until the first check of a backend says this of it.
fn wait(proxy: &Proxy, backend: SocketAddr, health: Health) -> BackendState {
    let client = Grpc::connect(&proxy.socket());
    clock::wait_for(&format!("{backend} to be {health:?}"), clock::PATIENCE, || {
        let state = client.backend(backend);
        (state.checks.first().is_some_and(|check| check.health() == health)).then_some(state)
    })
}

/// Waits until a check has taken a backend down, for this reason.
fn wait_down(proxy: &Proxy, backend: SocketAddr, why: &str) {
    let client = Grpc::connect(&proxy.socket());
    let is_down = || {
        let state = client.backend(backend);
        let is_down = state.health() == Health::Down && state.last_error.contains(why);
        assert!(!is_down || state.checks[0].last_error == state.last_error, "{state:?}");
        // A check may be late on a machine that is busy: that is another reason, and does not last.
        is_down.then_some(())
    };
    clock::wait_for(&format!("{backend} to be down as it {why:?}"), clock::PATIENCE, is_down);
}

/// Waits until a backend's checks say this, in their order.
fn wait_checks(client: &Grpc, backend: SocketAddr, expect: &[Health]) -> BackendState {
    clock::wait_for(&format!("the checks to say {expect:?}"), clock::PATIENCE, || {
        let state = client.backend(backend);
        let is_so = state.checks.iter().map(|check| check.health()).eq(expect.iter().copied());
        is_so.then_some(state)
    })
}

fn status(proxy: &Proxy, ca: &Ca, name: &str) -> u16 {
    let mut client = Client::on(Request::new(ca, proxy.web(), name).alpn(&["http/1.1"]).open().unwrap());
    client.ask(format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n")).status()
}

#[test]
fn a_failing_check_is_of_the_routes_that_ask_for_it_and_of_no_others() {
    let origin = Origin::start(|exchange| {
        let status = if exchange.target() == "/healthz" { "503 Service Unavailable" } else { "200 OK" };
        exchange.say(&format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"))?;
        Ok(Then::Keep)
    });
    let backend = format!("address = \"{}\"", origin.address());
    let fails = check("http", ", path = \"/healthz\", host = \"health.test\"");
    let passes = check("tcp", "");
    // Two that fail, one without a check, one whose check passes.
    let (proxy, ca) = site(&[(&backend, &fails), (&backend, &fails), (&backend, ""), (&backend, &passes)]);
    let client = Grpc::connect(&proxy.socket());
    let state = wait_checks(&client, origin.address(), &[Health::Down, Health::Up]);
    assert_eq!(NAMES.map(|name| status(&proxy, &ca, name)), [503, 503, 200, 200]);
    // Those that ask for the very same share a check.
    assert_eq!((state.health(), state.routes, state.checks.len()), (Health::PartlyDown, 4, 2), "{state:?}");
    let [http, tcp] = &state.checks[..] else { unreachable!("there are two") };
    let names = |check: &mc_api::mcproxy::CheckState| {
        check.some_routes.iter().map(|key| key.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(
        (http.summary.as_str(), http.health(), http.routes),
        ("http health.test/healthz", Health::Down, 2)
    );
    assert_eq!(names(http), NAMES[..2]);
    assert!(http.last_error.contains("GET /healthz answered 503"), "{http:?}");
    assert_eq!((tcp.summary.as_str(), tcp.health(), tcp.routes), ("tcp", Health::Up, 1));
    assert_eq!(names(tcp), NAMES[3..]);
    let address = origin.address().to_string();
    let text = proxy.ctl_text(&["backend", "list"]);
    let line = |start: &str| text.lines().find(|line| line.trim_start().starts_with(start)).unwrap_or("");
    assert!(line(&address).contains("partly down"), "{text}");
    assert!(line("http health.test/healthz").contains("web/a.example.org, web/b.example.org: GET"), "{text}");
    assert!(line("tcp").contains("up") && line("tcp").contains("web/d.example.org"), "{text}");
    let up = |name: &str| proxy.metric("mcproxy_route_backend_up", &[&format!("name=\"{name}\"")]);
    assert_eq!([up(NAMES[0]), up(NAMES[1]), up(NAMES[3])], [0.0, 0.0, 1.0]);
    assert!(!proxy.metrics().contains("mcproxy_route_backend_up{listener=\"web\",name=\"c.example.org\""));
    let backend = format!("backend=\"{address}\"");
    assert_eq!(proxy.metric("mcproxy_backend_up", &[&backend]), 1.0, "it serves");
    assert_eq!(proxy.metric("mcproxy_backends", &["health=\"partly_down\""]), 1.0);
    // Without those routes nothing is down.
    for name in &NAMES[..2] {
        client.remove_route(name, false).unwrap();
    }
    let state = client.backend(origin.address());
    assert_eq!(
        (state.health(), state.checks.len(), state.last_error.as_str()),
        (Health::Up, 1, ""),
        "{state:?}"
    );
}

/// `nghttpd` with a page; without TLS where there is no certificate.
struct Nghttpd(Child, SocketAddr);

impl Nghttpd {
    fn start(pages: &Path, tls: Option<&Certificate>) -> Self {
        let address = fresh_address();
        std::fs::write(pages.join("index.html"), "ok").unwrap();
        let mut command = Command::new("nghttpd");
        command.args(["--address", &address.ip().to_string(), "--htdocs"]).arg(pages);
        if tls.is_none() {
            command.arg("--no-tls");
        }
        command.arg(address.port().to_string());
        if let Some(certificate) = tls {
            let (certificate, key) = certificate.write(pages);
            command.arg(key).arg(certificate);
        }
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        clock::wait_until("nghttpd to listen", || TcpStream::connect(address).is_ok());
        Self(child, address)
    }
}

impl Drop for Nghttpd {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn an_http_check_asks_a_backend_of_h2c_by_http2() {
    requires!("nghttpd");
    let pages = tempfile::tempdir().unwrap();
    let h2c = Nghttpd::start(pages.path(), None);
    let http1 = Origin::saying("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Then::Keep);
    let route = |address: SocketAddr| format!("address = \"{address}\", protocol = \"h2c\"");
    let (good, bad) = (route(h2c.1), route(http1.address()));
    let (proxy, ca) = site(&[
        (&good, &check("http", "")),
        (&good, &check("http", ", path = \"/missing\"")),
        (&bad, &check("http", "")),
    ]);
    let client = Grpc::connect(&proxy.socket());
    let state = wait_checks(&client, h2c.1, &[Health::Up, Health::Down]);
    let [good, missing] = &state.checks[..] else { unreachable!("there are two") };
    assert_eq!((good.health(), good.last_error.as_str()), (Health::Up, ""), "{state:?}");
    assert_eq!(missing.health(), Health::Down);
    assert!(missing.last_error.contains("GET /missing answered 404"), "{state:?}");
    assert_eq!([status(&proxy, &ca, NAMES[0]), status(&proxy, &ca, NAMES[1])], [200, 503]);
    wait_down(&proxy, http1.address(), "cannot speak HTTP/2");
}

#[test]
fn checks_of_backends_that_speak_tls_verify_as_requests_do() {
    requires!("nghttpd", "nginx");
    let (inner, other) = (Ca::new(), Ca::new());
    let files = tempfile::tempdir().unwrap();
    let trusted = inner.write(files.path()).display().to_string();
    let folder = tempfile::tempdir().unwrap();
    let wrong = other.write(folder.path()).display().to_string();
    let certificate = inner.issue(&["inner.test"]);
    let h2 = Nghttpd::start(files.path(), Some(&certificate));
    let (https, unused) = (fresh_address(), fresh_address());
    let (certificate, key) = certificate.write(files.path());
    let values = [
        ("HTTPS", https.to_string()),
        ("H2", unused.to_string()),
        ("CERTIFICATE", certificate.display().to_string()),
        ("KEY", key.display().to_string()),
    ];
    let mut nginx = Peer::nginx("nginx_tls_origin.conf", &values, None);
    nginx.wait_ready(|| TcpStream::connect(https).is_ok());
    for (address, protocol) in [(h2.1, "h2"), (https, "https")] {
        for kind in ["http", "tls"] {
            let run = |name: &str, ca: &str| {
                let name = format!(", server_name = \"{name}\"");
                let backend = format!("address = \"{address}\", protocol = \"{protocol}\"{name}");
                let lines = format!("http = {{ backend_ca = \"{ca}\" }}\n{}", check(kind, ""));
                site(&[(&backend, &lines)]).0
            };
            let state = wait(&run("inner.test", &trusted), address, Health::Up);
            assert_eq!(state.health(), Health::Up, "{protocol} {kind}");
            wait_down(&run("other.test", &trusted), address, "its certificate is not for other.test");
            wait_down(&run("inner.test", &wrong), address, "its certificate is of no authority in");
        }
    }
    // nginx answers HTTP/1.1 there: a request would not do with that either.
    let backend = format!("address = \"{https}\", protocol = \"h2\", server_name = \"inner.test\"");
    let lines = format!("http = {{ backend_ca = \"{trusted}\" }}\n{}", check("http", ""));
    wait_down(&site(&[(&backend, &lines)]).0, https, "does not speak HTTP/2 over TLS");
}

/// A server of gRPC, over TLS with this certificate where there is one; whether it has the health service.
struct GrpcServer {
    address: SocketAddr,
    reporter: HealthReporter,
    runtime: tokio::runtime::Runtime,
}

impl GrpcServer {
    fn start(certificate: Option<&Certificate>, has_health: bool) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let address = fresh_address();
        let reporter = HealthReporter::new();
        let mut routes = tonic::service::Routes::builder();
        if has_health {
            routes.add_service(HealthServer::new(HealthService::from_health_reporter(reporter.clone())));
        }
        let mut server = tonic::transport::Server::builder();
        if let Some(certificate) = certificate {
            let identity = tonic::transport::Identity::from_pem(&certificate.pem, &certificate.key_pem);
            server = server.tls_config(tonic::transport::ServerTlsConfig::new().identity(identity)).unwrap();
        }
        let router = server.add_routes(routes.routes());
        runtime.spawn(async move { router.serve(address).await.unwrap() });
        clock::wait_until("the server to listen", || TcpStream::connect(address).is_ok());
        Self { address, reporter, runtime }
    }

    fn set(&self, service: &str, status: ServingStatus) {
        self.runtime.block_on(self.reporter.set_service_status(service, status));
    }
}

#[test]
fn a_grpc_check_asks_the_health_service() {
    let inner = Ca::new();
    let folder = tempfile::tempdir().unwrap();
    let trusted = inner.write(folder.path()).display().to_string();
    for is_tls in [false, true] {
        let certificate = inner.issue(&["inner.test"]);
        let server = GrpcServer::start(is_tls.then_some(&certificate), true);
        server.set("mail.Sender", ServingStatus::Serving);
        let (backend, trust) = if is_tls {
            let trust = format!("http = {{ backend_ca = \"{trusted}\" }}\n");
            ("protocol = \"h2\", server_name = \"inner.test\"", trust)
        } else {
            ("protocol = \"h2c\"", String::new())
        };
        let run = |service: &str| {
            let backend = format!("address = \"{}\", {backend}", server.address);
            site(&[(&backend, &(trust.clone() + &check("grpc", service)))]).0
        };
        let whole = run("");
        assert_eq!(wait(&whole, server.address, Health::Up).checks[0].summary, "grpc a.example.org");
        let service = run(", service = \"mail.Sender\"");
        wait(&service, server.address, Health::Up);
        server.set("mail.Sender", ServingStatus::NotServing);
        wait_down(&service, server.address, "gRPC health of mail.Sender is NOT_SERVING");
        server.set("mail.Sender", ServingStatus::Serving);
        wait(&service, server.address, Health::Up);
        server.set("", ServingStatus::Unknown);
        wait_down(&whole, server.address, "gRPC health is UNKNOWN");
        wait_down(&run(", service = \"mail.Reader\""), server.address, "of mail.Reader answered NOT_FOUND");
    }
}

#[test]
fn what_has_no_health_service_of_grpc_is_down_with_the_reason() {
    requires!("nghttpd");
    let server = GrpcServer::start(None, false);
    let pages = tempfile::tempdir().unwrap();
    let nghttpd = Nghttpd::start(pages.path(), None);
    let http1 = Origin::saying("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Then::Keep);
    for (address, why) in [
        (server.address, "gRPC health answered UNIMPLEMENTED"),
        (nghttpd.1, "gRPC health answered HTTP status 404"),
        (http1.address(), "cannot speak HTTP/2"),
    ] {
        let backend = format!("address = \"{address}\", protocol = \"h2c\"");
        wait_down(&site(&[(&backend, &check("grpc", ""))]).0, address, why);
    }
}

/// A server of HTTP/2 that answers the health service with these pieces and trailers; `None`: with nothing at all.
fn answering(pieces: Vec<&'static [u8]>, status: Option<&'static str>) -> SocketAddr {
    let (told, address) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            told.send(listener.local_addr().unwrap()).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let (pieces, status) = (pieces.clone(), status);
                tokio::spawn(async move {
                    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                    while let Some(Ok((_request, mut respond))) = connection.accept().await {
                        let Some(status) = status else {
                            tokio::spawn(async move {
                                tokio::time::sleep(Duration::from_secs(3600)).await;
                                drop(respond);
                            });
                            continue;
                        };
                        let response = http::Response::new(());
                        let Ok(mut body) = respond.send_response(response, false) else { return };
                        for piece in &pieces {
                            body.send_data(bytes::Bytes::from_static(piece), false).unwrap_or(());
                        }
                        let mut trailers = http::HeaderMap::new();
                        if !status.is_empty() {
                            trailers.insert("grpc-status", status.parse().unwrap());
                        }
                        body.send_trailers(trailers).unwrap_or(());
                    }
                });
            }
        });
    });
    address.recv().unwrap()
}

#[test]
fn answers_of_the_health_service_are_read_with_limits() {
    const LARGE: &[u8] = &[0; 3000];
    let serving: &[u8] = &[0, 0, 0, 0, 2, 8, 1];
    let cases: [(SocketAddr, &str); 7] = [
        (answering(vec![LARGE, LARGE], Some("0")), "answered more than 4096 bytes"),
        (answering(vec![serving], Some("")), "without grpc-status"),
        (answering(vec![serving], Some("16")), "answered UNAUTHENTICATED"),
        (answering(vec![], Some("0")), "answered no health status"),
        (answering(vec![&[1, 0, 0, 0, 2, 8, 1]], Some("0")), "answered no health status"),
        (answering(vec![&[0, 0, 0, 0, 2, 8, 9]], Some("0")), "answered no health status"),
        (answering(vec![], None), "no answer within 500 ms"),
    ];
    for (address, why) in cases {
        let backend = format!("address = \"{address}\", protocol = \"h2c\"");
        wait_down(&site(&[(&backend, &check("grpc", ""))]).0, address, why);
    }
    // In pieces it is as good as whole.
    let address = answering(vec![&serving[..3], &serving[3..]], Some("0"));
    let backend = format!("address = \"{address}\", protocol = \"h2c\"");
    wait(&site(&[(&backend, &check("grpc", ""))]).0, address, Health::Up);
}

#[test]
fn a_route_that_passes_tls_through_checks_grpc_without_judging_the_certificate() {
    let server = GrpcServer::start(Some(&Ca::new().issue(&["other.test"])), true);
    let lines = check("grpc", "");
    let config = Config::new().listener("web").route_with("www.example.org", &[server.address], &lines);
    let proxy = Proxy::start(config);
    wait(&proxy, server.address, Health::Up);
    server.set("", ServingStatus::NotServing);
    wait_down(&proxy, server.address, "gRPC health is NOT_SERVING");
}

#[test]
fn a_check_that_cannot_pass_is_refused() {
    let (proxy, _ca) = site(&[("address = \"192.0.2.1:80\"", "")]);
    let refused = |arguments: &str, part: &str| {
        let key = "route update --listener web --name a.example.org";
        let line = format!("{key} {arguments}");
        let output = proxy.ctl_output(&line.split_whitespace().collect::<Vec<_>>());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(part), "{arguments}: {text}");
    };
    refused("--check grpc", "check.kind: grpc is spoken over HTTP/2");
    refused("--check https", "check.kind: backends[0] speaks no TLS");
    refused("--check http --check-service a.B", "check.service: only has a meaning");
    let key = ["route", "update", "--listener", "web", "--name", "a.example.org"];
    let grpc = ["--backend", "192.0.2.1:80,protocol=h2c", "--check", "grpc", "--check-service", "a.B"];
    assert!(proxy.ctl_output(&[&key[..], &grpc[..]].concat()).status.success());
    let client = Grpc::connect(&proxy.socket());
    let state = client.backend("192.0.2.1:80".parse().unwrap());
    assert_eq!(state.checks[0].summary, "grpc a.example.org a.B");
}
