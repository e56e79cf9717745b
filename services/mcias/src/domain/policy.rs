//! Login policy: which accounts may log in to which services.
//!
//! The rules are those of [`mcdsl::policy`]; the resource is the service that asks, with its tags, and the only
//! operation is `login`. The policy is asked at login, when a token is issued or introspected, and whenever a session
//! is used: no session outlives a rule that denies it.

use mcdsl::policy::{Effect, Explanation, Noun, Policy, PolicySpec, Question};

use super::{Account, ServiceContext};

/// What the rules are about.
pub static SPEC: PolicySpec = PolicySpec {
    resource_noun: Noun { one: "service", many: "services" },
    operations: &[LOGIN],
    // A service's name is one part: `*` matches all of it.
    separators: "",
    // A rule can keep admins out of a service.
    admin_bypass: false,
    max_rules: 10_000,
};

/// The only operation.
pub const LOGIN: &str = "login";

/// Whether an account may log in to a service.
#[must_use]
pub fn decide(policy: &Policy, account: &Account, service: &ServiceContext) -> Effect {
    policy.decide(&question(account, service))
}

/// Whether an account may log in to a service, and why.
#[must_use]
pub fn explain<'p>(policy: &'p Policy, account: &Account, service: &ServiceContext) -> Explanation<'p> {
    policy.explain(&question(account, service))
}

/// The question that the policy decides.
#[must_use]
pub fn question<'a>(account: &'a Account, service: &'a ServiceContext) -> Question<'a> {
    Question { account, resource: service.name.as_str(), resource_tags: &service.tags, operation: LOGIN }
}

#[cfg(test)]
mod tests;
