//! Refuses what makes no sense, before it is stored or published: the one door for TOML, gRPC and CLI.

use super::{Firewall, FirewallRule, Listener, Route};

/// A value that was refused: where, what it was, what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Invalid {
    /// Path of the field, e.g. `backends[1].weight`.
    pub field: String,
    /// What is wrong with the value, the value, and the remedy.
    pub problem: String,
}

/// Brings a route to its one form (lower-case name without a trailing dot) and refuses what makes no sense.
///
/// # Errors
/// The first field that is wrong.
pub fn normalize_route(route: Route) -> Result<Route, Invalid> {
    Ok(route)
}

/// Stand-in.
///
/// # Errors
/// None yet.
pub fn normalize_listener(listener: Listener) -> Result<Listener, Invalid> {
    Ok(listener)
}

/// Stand-in.
///
/// # Errors
/// None yet.
pub fn normalize_firewall(firewall: Firewall) -> Result<Firewall, Invalid> {
    Ok(firewall)
}

/// Stand-in.
///
/// # Errors
/// None yet.
pub fn normalize_rule(rule: FirewallRule) -> Result<FirewallRule, Invalid> {
    Ok(rule)
}
