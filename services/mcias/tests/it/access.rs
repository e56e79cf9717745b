//! Every route that MCIAS has, with every kind of caller: who may call it is what its operation states, by REST, by
//! gRPC and as a page.

use std::collections::BTreeSet;
use std::time::Duration;

use mc_api::operation::Need;
use mcdsl::operation::{Route, Transport};
use mcdsl::permit::Access;

use crate::local::Local;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    Nobody,
    Expired,
    Guest,
    User,
    System,
    StaleAdmin,
    Admin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Unauthenticated,
    Forbidden,
    /// What comes of the request is up to its content.
    Admitted,
}

const CALLERS: [Caller; 7] = [
    Caller::Nobody,
    Caller::Expired,
    Caller::Guest,
    Caller::User,
    Caller::System,
    Caller::StaleAdmin,
    Caller::Admin,
];

/// The table of the documentation, written a second time.
fn expected(access: Access, caller: Caller) -> Outcome {
    use Caller::{Admin, Expired, Guest, Nobody, StaleAdmin, System, User};
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

struct Site {
    mcias: Local,
    expired: String,
    system: String,
}

impl Site {
    fn start() -> Self {
        let mcias = Local::start();
        let admin = mcias.login("ada");
        mcias.person(&admin, "gus", &["guest"]);
        mcias.person(&admin, "ute", &["user"]);
        let system = mcias.service(&admin, "mcr");
        mcias.edited(&admin, "mcr", &serde_json::json!({ "service": "mcr", "tags": ["login-tester"] }));
        mcias.clock.pass(Duration::from_secs(13 * 3600));
        Self { mcias, expired: admin, system }
    }

    /// A token of this caller: a new one each time, as some operations end it.
    fn token(&self, caller: Caller) -> String {
        match caller {
            Caller::Nobody => String::new(),
            Caller::Expired => self.expired.clone(),
            Caller::Guest => self.mcias.login("gus"),
            Caller::User => self.mcias.login("ute"),
            Caller::System => self.system.clone(),
            Caller::Admin => self.mcias.login("ada"),
            Caller::StaleAdmin => {
                let token = self.mcias.login("ada");
                self.mcias.clock.pass(Duration::from_secs(16 * 60));
                token
            }
        }
    }

    fn outcome(&self, route: &Route, token: &str) -> Outcome {
        let path =
            route.pattern.replace("{name}", "nobody").replace("{id}", "7a1e0c9e-2f1b-4f0e-9d5a-000000000000");
        let path = path.replace("{secret}", "none").replace("{revision}", "1");
        assert!(!path.contains('{'), "{path}: name its parameter here");
        match route.transport {
            Transport::Grpc => match self.mcias.call(&path, token) {
                16 => Outcome::Unauthenticated,
                7 => Outcome::Forbidden,
                _ => Outcome::Admitted,
            },
            Transport::Rest | Transport::Protocol => {
                let answer = self.mcias.ask(route.method.as_str(), &path, token, &serde_json::Value::Null);
                judged(answer.status, answer.reason())
            }
            Transport::Page => {
                let mut request = http::Request::builder().method(route.method.as_str()).uri(&path);
                if !token.is_empty() {
                    request = request.header("cookie", format!("__Host-session={token}"));
                }
                if route.method == http::Method::POST {
                    request = request.header("content-type", "application/x-www-form-urlencoded");
                }
                let answer = self.mcias.send([192, 0, 2, 1], request, String::new());
                judged(answer.status, answer.reason())
            }
        }
    }
}

fn judged(status: u16, reason: &str) -> Outcome {
    match (status, reason) {
        // A form without its token was admitted before it was looked at; a password that is missing is no refusal of the route.
        (403, "forged-form") => Outcome::Admitted,
        (401, _) => Outcome::Unauthenticated,
        (403, _) => Outcome::Forbidden,
        _ => Outcome::Admitted,
    }
}

#[test]
fn each_route_admits_whom_its_operation_names() {
    let site = Site::start();
    let mut wrong = Vec::new();
    for route in &site.mcias.routes {
        for caller in CALLERS {
            let token = site.token(caller);
            let outcome = site.outcome(route, &token);
            let expect = expected(route.access, caller);
            if outcome != expect {
                wrong.push(format!(
                    "{} {} {caller:?}: {outcome:?}, not {expect:?}",
                    route.method, route.pattern
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_operation_is_in_the_table_by_rest_and_by_grpc() {
    let mcias = Local::start();
    let has = |transport, pattern: &str| {
        mcias.routes.iter().any(|route| route.transport == transport && route.pattern == pattern)
    };
    let mut paths = BTreeSet::new();
    for operation in mcias::app::operations() {
        assert!(has(Transport::Grpc, operation.grpc_path), "{}", operation.grpc_path);
        let rest = operation.rest.as_ref().unwrap();
        assert!(has(Transport::Rest, rest.path), "{}", rest.path);
        assert!(paths.insert((rest.method.as_str(), rest.path)), "{} twice", rest.path);
    }
    // And nothing of the API is there that no operation states.
    let rest = mcias.routes.iter().filter(|route| route.transport == Transport::Rest);
    for route in rest {
        assert!(paths.contains(&(route.method.as_str(), route.pattern.as_str())), "{}", route.pattern);
    }
}
