//! Who may call what: every route that a service has, with every kind of caller.
//!
//! The table of the documentation stands here a second time, so that a route which admits somebody else than its
//! operation names is found, whichever service it is of.

use std::collections::BTreeSet;

use http::Method;
use mc_api::operation::{Need, Operation};
use mcdsl::operation::{Route, Transport};
use mcdsl::permit::Access;
use serde_json::Value;

use crate::local::Local;
use crate::service::Answer;

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Caller {
    /// Somebody without a token.
    Nobody,
    /// A token that is valid no more.
    Expired,
    /// A person with the role `guest`.
    Guest,
    /// A person with the role `user`.
    User,
    /// A system account.
    System,
    /// An admin.
    Admin,
    /// An admin whose login is more than 15 minutes ago.
    StaleAdmin,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 401, `UNAUTHENTICATED`, or the way to the login.
    Unauthenticated,
    /// 403, `PERMISSION_DENIED`.
    Forbidden,
    /// What comes of the request is up to its content.
    Admitted,
}

/// All callers. Stale ones last: for them time may have to pass.
pub const CALLERS: [Caller; 7] = [
    Caller::Nobody,
    Caller::Expired,
    Caller::Guest,
    Caller::User,
    Caller::System,
    Caller::Admin,
    Caller::StaleAdmin,
];

/// What is to become of a call.
#[must_use]
pub fn expected(access: Access, caller: Caller) -> Outcome {
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

/// Calls every route as every caller. `path`: a route's pattern with its parameters filled in. `token`: one of this
/// caller, that is valid still (or no more).
///
/// # Panics
/// Somebody is admitted who should not be, or is not who should be.
pub fn check(local: &Local, path: impl Fn(&str) -> String, mut token: impl FnMut(Caller) -> String) {
    let mut wrong = Vec::new();
    for caller in CALLERS {
        for route in &local.routes {
            let path = path(&route.pattern);
            assert!(!path.contains('{'), "{path}: a parameter has no value");
            let outcome = outcome(local, route, &path, &token(caller));
            let expected = expected(route.access, caller);
            if outcome != expected {
                wrong.push(format!("{} {path} {caller:?}: {outcome:?}, not {expected:?}", route.method));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Sees that each operation is a route of REST and one of gRPC, and that REST has no others.
///
/// # Panics
/// A route is missing, there twice, or no operation's.
pub fn check_table(local: &Local, operations: impl Iterator<Item = &'static &'static Operation>) {
    let routes = |transport: Transport| {
        let routes = local.routes.iter().filter(move |route| route.transport == transport);
        routes.map(|route| (route.method.as_str(), route.pattern.as_str())).collect::<BTreeSet<_>>()
    };
    let (mut rest, mut grpc) = (BTreeSet::new(), BTreeSet::new());
    for operation in operations {
        assert!(grpc.insert((Method::POST.as_str(), operation.grpc_path)), "{} twice", operation.grpc_path);
        let path = operation.rest.as_ref().expect("a path");
        assert!(rest.insert((path.method.as_str(), path.path)), "{} twice", path.path);
    }
    assert_eq!(routes(Transport::Rest), rest);
    assert_eq!(routes(Transport::Grpc), grpc);
}

fn outcome(local: &Local, route: &Route, path: &str, token: &str) -> Outcome {
    match route.transport {
        Transport::Grpc => match local.call(path, token) {
            16 => Outcome::Unauthenticated,
            7 => Outcome::Forbidden,
            _ => Outcome::Admitted,
        },
        Transport::Rest | Transport::Protocol => {
            judged(&local.ask(route.method.as_str(), path, token, &Value::Null))
        }
        Transport::Page => {
            let mut request = http::Request::builder().method(route.method.clone()).uri(path);
            if !token.is_empty() {
                request = request.header("cookie", format!("__Host-session={token}"));
            }
            if route.method == Method::POST {
                request = request.header("content-type", "application/x-www-form-urlencoded");
            }
            judged(&local.send([192, 0, 2, 1], request, String::new()))
        }
    }
}

fn judged(answer: &Answer) -> Outcome {
    match (answer.status, answer.reason()) {
        // A form without its token was admitted before it was looked at.
        (403, "forged-form") => Outcome::Admitted,
        (401, _) => Outcome::Unauthenticated,
        (403, _) => Outcome::Forbidden,
        (500.., _) => panic!("{} {}", answer.status, answer.text),
        _ => Outcome::Admitted,
    }
}
