//! Why a change was not made.

use mc_core::model::RouteKey;
use mc_core::validate::Invalid;

use mc_xdp::SteerError;

use crate::store::StoreError;
use crate::workers::BindError;

/// Why a change was not made. What runs is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The request makes no sense.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// There is no such route.
    #[error("there is no route {0}: see ListRoutes, or add it with AddRoute")]
    NoRoute(RouteKey),
    /// There is no such listener.
    #[error("there is no listener `{0}`: see ListListeners, or add it with AddListener")]
    NoListener(String),
    /// There is such a route, and it is not to be replaced.
    #[error("route {0} exists: change it with UpdateRoute, or leave out only_new")]
    RouteExists(RouteKey),
    /// There is such a listener, and it is not to be replaced.
    #[error("listener `{0}` exists: say which one is expected, or leave out only_new")]
    ListenerExists(String),
    /// There is no such firewall rule.
    #[error("there is no such firewall rule: see GetFirewall")]
    NoRule,
    /// No route leads to the backend.
    #[error("no route leads to {0}: see ListBackends")]
    NoBackend(std::net::SocketAddr),
    /// Somebody else changed something in between.
    #[error("the revision is {current} and {expected} was expected: read again, then repeat the change")]
    Revision {
        /// What the caller had seen.
        expected: u64,
        /// What is.
        current: u64,
    },
    /// Somebody else changed the route in between.
    #[error("route {0} is not the one that was expected: read it again, then repeat the change")]
    OtherRoute(RouteKey),
    /// Somebody else changed the listener in between.
    #[error("listener `{0}` is not the one that was expected: read it again, then repeat the change")]
    OtherListener(String),
    /// The route has an owner, and the change is not on its behalf.
    #[error("Route {key} is owned by `{owner}`, and {}: change it as `{owner}`, or override the owner on purpose \
             (override_owner; mcproxyctl: --override-owner)", caller(.by))]
    Owned {
        /// The route.
        key: RouteKey,
        /// Who owns it.
        owner: String,
        /// Whom the caller named; empty: nobody.
        by: String,
    },
    /// Routes refer to the listener.
    #[error("{routes} routes refer to listener `{name}`: remove them first, or set with_routes")]
    HasRoutes {
        /// The listener.
        name: String,
        /// How many.
        routes: u64,
    },
    /// Another listener has the address.
    #[error("listener `{name}` already listens on {address}: choose another address, or remove it")]
    AddressTaken {
        /// Who has it.
        name: String,
        /// What it has.
        address: std::net::SocketAddr,
    },
    /// More than this process is made for.
    #[error("there may be {limit} {what} at most: remove some first")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        limit: u64,
    },
    /// The listener's address cannot be had.
    #[error("listener `{name}` cannot be opened")]
    Bind {
        /// The listener.
        name: String,
        /// Why.
        source: BindError,
    },
    /// What comes to the listener's steered addresses cannot be had.
    #[error("listener `{name}` cannot have what comes to its steered addresses")]
    Steer {
        /// The listener.
        name: String,
        /// Why.
        source: SteerError,
    },
    /// The change could not be made durable.
    #[error("the change could not be stored, and was not made")]
    Store(#[from] StoreError),
    /// The proxy stops.
    #[error("mc-proxy is stopping: repeat the change when it runs again")]
    Stopping,
}

fn caller(by: &str) -> String {
    if by.is_empty() {
        "the request names no owner".to_owned()
    } else {
        format!("the request is on behalf of `{by}`")
    }
}
