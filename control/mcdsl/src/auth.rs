//! Who is asking, by MCIAS's word: tokens are looked at there (RFC 7662), and the answer is kept for a short time.
//!
//! A service holds one [`Client`]. It asks MCIAS about each token it has not asked about within 30 s, once however many
//! requests wait for the answer, and takes no for an answer for a shorter time. Where MCIAS cannot be asked, nobody is let
//! in: it fails closed.

mod cache;
mod client;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;
use serde::Deserialize;

pub use client::{Client, ClientError, Settings, authenticate};

use crate::problem::Problem;

/// Somebody whom MCIAS knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The account's name.
    pub account: String,
    /// Whose account it is.
    pub account_type: AccountType,
    /// What a person may do. A system account has none.
    pub roles: BTreeSet<Role>,
    /// The account's tags.
    pub tags: BTreeSet<String>,
    /// The token's id (`jti`).
    pub token_id: String,
}

/// Whose account it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccountType {
    /// A person's.
    Human,
    /// A service's.
    System,
}

/// What a person may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Manages.
    Admin,
    /// As the service's policy says.
    User,
    /// As restricted as the service likes.
    Guest,
}

/// Whoever [`authenticate`] let through, as an argument of a handler.
impl<S: Send + Sync> FromRequestParts<S> for Identity {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let known = parts.extensions.get::<Arc<Self>>();
        // A route that was forgotten lets nobody in.
        known.map(|known| Self::clone(known)).ok_or_else(|| Problem::unauthenticated("this takes a token"))
    }
}

impl Identity {
    /// Whoever [`authenticate`] let through with a gRPC call.
    ///
    /// # Errors
    /// Nobody: the service is not behind [`authenticate`].
    pub fn of<T>(request: &tonic::Request<T>) -> Result<&Self, Problem> {
        let known = request.extensions().get::<Arc<Self>>();
        known.map(Arc::as_ref).ok_or_else(|| Problem::unauthenticated("this takes a token"))
    }

    /// Whether the account has a role.
    #[must_use]
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// That it has the role, or what to tell whoever asked.
    ///
    /// # Errors
    /// It has not.
    pub fn require(&self, role: Role) -> Result<(), Problem> {
        let word = match role {
            Role::Admin => "admin",
            Role::User => "user",
            Role::Guest => "guest",
        };
        let refused =
            || Problem::forbidden(format!("this takes the role `{word}`, which {} has not", self.account));
        self.has(role).then_some(()).ok_or_else(refused)
    }
}
