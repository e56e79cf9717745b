//! Every route that MCAT has, with every kind of caller: who may call it is what its operation states, by REST, by gRPC and as a page.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::request::Builder;
use mc_api::operation::Need;
use mcat::app::Mcat;
use mcat::config::Config;
use mcdsl::clock::Clock;
use mcdsl::http::{Metrics, Peer, middleware};
use mcdsl::operation::{Route, Transport};
use mcdsl::permit::Access;
use mcdsl::program::Service as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::site::Site;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Caller {
    Nobody,
    Expired,
    Guest,
    User,
    System,
    StaleAdmin,
    Admin,
}

use Caller::{Admin, Expired, Guest, Nobody, StaleAdmin, System, User};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Unauthenticated,
    Forbidden,
    /// What comes of the request is up to its content.
    Admitted,
}

/// The table of the documentation, written a second time.
fn expected(access: Access, caller: Caller) -> Outcome {
    use Outcome::{Admitted, Forbidden, Unauthenticated};
    match (access.need, caller) {
        (Need::Public, _) | (Need::OptionalToken, Nobody) => Admitted,
        (_, Nobody | Expired) => Unauthenticated,
        (Need::OptionalToken | Need::Token | Need::Account, _) | (Need::Service, System) => Admitted,
        (Need::Service, _) | (Need::Person | Need::Admin, System) | (Need::Admin, Guest | User) => Forbidden,
        (Need::Person | Need::Admin, StaleAdmin) if access.fresh => Forbidden,
        (Need::Person, Guest | User | StaleAdmin | Admin) | (Need::Admin, StaleAdmin | Admin) => Admitted,
    }
}

/// MCAT within this process, beside a MCIAS that is a process of its own.
struct Local {
    site: Site,
    clock: Clock,
    router: Router,
    grpc: Router,
    routes: Vec<Route>,
    tokens: BTreeMap<Caller, String>,
    runtime: tokio::runtime::Runtime,
}

impl Local {
    fn start() -> Self {
        let site = Site::start();
        let text = std::fs::read_to_string(site.mcat.folder().join("mcat.toml")).unwrap();
        let mut config: Config = toml::from_str(&text).unwrap();
        config.server.root = site.mcat.folder().to_owned();
        let (limits, clock) = (config.server.limits(), Clock::system());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let entered = runtime.enter();
        let app = Arc::new(Mcat::new(config, clock.clone()).unwrap());
        drop(entered);
        let routes = app.routes(limits.clone());
        let wrap = |router| {
            middleware(router, limits.clone(), Arc::new(Metrics::default()), clock.clone(), &routes.dialects)
        };
        let (router, grpc) = (wrap(routes.api.merge(routes.pages)), wrap(routes.grpc));
        site.mcias.person(&site.admin, "ute", &["user"]);
        drop(site.mcias.service(&site.admin, "mcns", &[]));
        let mut local =
            Self { site, clock, router, grpc, routes: routes.routes, tokens: BTreeMap::new(), runtime };
        for caller in [Expired, Guest, User, System, StaleAdmin, Admin] {
            let token = local.token(caller);
            local.tokens.insert(caller, token);
        }
        local
    }

    fn token(&self, caller: Caller) -> String {
        let Site { mcias, admin, .. } = &self.site;
        match caller {
            Nobody => String::new(),
            Expired => {
                let token = self.site.login("ute");
                mcias.done("DELETE", "/v1/accounts/ute/sessions", admin, &Value::Null);
                token
            }
            Guest => self.site.login("bob"),
            User => self.site.login("ute"),
            System => {
                let body = json!({ "label": "second", "audience": ["mcat"] });
                mcias.ask("POST", "/v1/accounts/mcns/tokens", admin, &body).text_of("token")
            }
            StaleAdmin | Admin => self.site.login("ada"),
        }
    }

    fn send(&self, router: &Router, request: Builder, body: Body) -> http::Response<Body> {
        let mut request = request.body(body).unwrap();
        request.extensions_mut().insert(Peer(SocketAddr::from(([192, 0, 2, 1], 4000))));
        self.runtime.block_on(router.clone().oneshot(request)).unwrap()
    }

    fn outcome(&self, route: &Route, token: &str) -> Outcome {
        assert!(!route.pattern.contains('{'), "{}: name its parameter here", route.pattern);
        let request = http::Request::builder().method(route.method.clone()).uri(&route.pattern);
        let bearer = |request: Builder| match token {
            "" => request,
            token => request.header("authorization", format!("Bearer {token}")),
        };
        match route.transport {
            Transport::Grpc => {
                let request =
                    bearer(request).header("content-type", "application/grpc").header("te", "trailers");
                match self.status_of(self.send(&self.grpc, request, Body::from(vec![0; 5]))) {
                    16 => Outcome::Unauthenticated,
                    7 => Outcome::Forbidden,
                    _ => Outcome::Admitted,
                }
            }
            Transport::Rest | Transport::Protocol => {
                let request = bearer(request).header("content-type", "application/json");
                self.judged(self.send(&self.router, request, Body::from("null")))
            }
            Transport::Page => {
                let request = request.header("content-type", "application/x-www-form-urlencoded");
                let request = match token {
                    "" => request,
                    token => request.header("cookie", format!("__Host-session={token}")),
                };
                self.judged(self.send(&self.router, request, Body::empty()))
            }
        }
    }

    /// The status of a call.
    fn status_of(&self, response: http::Response<Body>) -> i32 {
        let code = |headers: &http::HeaderMap| headers.get("grpc-status")?.to_str().ok()?.parse().ok();
        if let Some(code) = code(response.headers()) {
            return code;
        }
        let body = self.runtime.block_on(http_body_util::BodyExt::collect(response.into_body())).unwrap();
        body.trailers().and_then(code).unwrap()
    }

    fn judged(&self, response: http::Response<Body>) -> Outcome {
        let status = response.status().as_u16();
        let body = self.runtime.block_on(axum::body::to_bytes(response.into_body(), usize::MAX)).unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        match (status, body["reason"].as_str().unwrap_or_default()) {
            // A form without its token was admitted before it was looked at.
            (403, "forged-form") => Outcome::Admitted,
            (401, _) => Outcome::Unauthenticated,
            (403, _) => Outcome::Forbidden,
            (500.., _) => panic!("{status}: {body}"),
            _ => Outcome::Admitted,
        }
    }
}

#[test]
fn each_route_admits_whom_its_operation_names() {
    let mut local = Local::start();
    let mut wrong = Vec::new();
    let mut needs = BTreeSet::new();
    for caller in [Nobody, Expired, Guest, User, System, Admin, StaleAdmin] {
        if caller == StaleAdmin {
            local.clock.pass(Duration::from_secs(16 * 60));
        }
        for route in local.routes.clone() {
            needs.insert(format!("{:?}", route.access.need));
            let token = local.tokens.get(&caller).cloned().unwrap_or_default();
            let (outcome, expect) = (local.outcome(&route, &token), expected(route.access, caller));
            if outcome != expect {
                wrong.push(format!(
                    "{} {} {caller:?}: {outcome:?}, not {expect:?}",
                    route.method, route.pattern
                ));
            }
            if route.pattern == "/logout" && caller != Expired && caller != Nobody {
                let token = local.token(caller);
                local.tokens.insert(caller, token);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(needs.into_iter().collect::<Vec<_>>(), ["Admin", "Person", "Public", "Token"]);
}

#[test]
fn every_operation_is_in_the_table_by_rest_and_by_grpc() {
    let local = Local::start();
    let has = |transport, pattern: &str| {
        local.routes.iter().any(|route| route.transport == transport && route.pattern == pattern)
    };
    for operation in mcat::app::operations() {
        assert!(has(Transport::Grpc, operation.grpc_path), "{}", operation.grpc_path);
        assert!(has(Transport::Rest, operation.rest.as_ref().unwrap().path));
    }
    let rest = local.routes.iter().filter(|route| route.transport == Transport::Rest);
    assert_eq!(rest.count(), mcat::app::operations().count());
}
