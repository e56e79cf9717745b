//! A request with its caller: where it comes from, what it is called in logs, and who makes it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use crate::identity::Identity;
use crate::secret::Secret;

/// A request with its caller. Each permit and each audit entry has one.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// The client's address: of the connection, or of its PROXY header. [`LOCAL`] for what happens on the server itself.
    pub client: SocketAddr,
    /// Our id of the request.
    pub request_id: Arc<str>,
    /// The id that the client gave it, where it is a word that can be logged.
    pub external_request_id: Option<Arc<str>>,
    /// The client's `user-agent`, as [`crate::http::Caller`] has it.
    pub user_agent: Option<Arc<str>>,
    /// Who makes it.
    pub principal: Principal,
    /// The token that says so, for a service that asks another one in the caller's name. No `Debug` shows it, and it goes to no log.
    pub token: Option<Arc<Secret>>,
}

/// Who makes a request.
#[derive(Clone, Debug)]
pub enum Principal {
    /// Anybody: no credentials were sent, or none are needed.
    Public,
    /// An account that MCIAS knows, by its token.
    Account(Arc<Identity>),
    /// A key that is bound to an account: TSIG, ACME, a registry token.
    Key {
        /// The account.
        identity: Arc<Identity>,
        /// The key's name.
        key: Arc<str>,
    },
    /// A user of the machine itself: a command, or a Unix socket.
    LocalUser {
        /// The user's id.
        uid: u32,
    },
    /// A job of the service itself, by name.
    Job(&'static str),
}

/// The name of who is not known, in the audit log and of changes.
pub const NOBODY: &str = "-";

/// The address of what happens on the server itself.
pub const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

impl RequestContext {
    /// The identity of the account that makes the request.
    #[must_use]
    pub const fn identity(&self) -> Option<&Arc<Identity>> {
        match &self.principal {
            Principal::Account(identity) | Principal::Key { identity, .. } => Some(identity),
            Principal::Public | Principal::LocalUser { .. } | Principal::Job(_) => None,
        }
    }

    /// A context of a job of the service itself.
    #[must_use]
    pub fn of_job(name: &'static str) -> Self {
        Self {
            client: LOCAL,
            request_id: name.into(),
            external_request_id: None,
            user_agent: None,
            principal: Principal::Job(name),
            token: None,
        }
    }

    /// A context of a command on the server itself, by the user who runs it.
    #[must_use]
    pub fn of_local_user(command: &'static str) -> Self {
        let uid = rustix::process::geteuid().as_raw();
        Self {
            client: LOCAL,
            request_id: command.into(),
            external_request_id: None,
            user_agent: None,
            principal: Principal::LocalUser { uid },
            token: None,
        }
    }
}

impl Principal {
    /// Its name in the audit log; [`NOBODY`] where it is not known.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Public => NOBODY.to_owned(),
            Self::Account(identity) | Self::Key { identity, .. } => identity.account.name().to_string(),
            Self::LocalUser { uid } => format!("uid {uid}"),
            Self::Job(name) => format!("job {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_s_token_is_not_in_debug() {
        let token = Some(Arc::new(Secret::from("hunter2")));
        let context = RequestContext { token, ..RequestContext::of_job("test") };
        let shown = format!("{context:?}");
        assert!(shown.contains("redacted") && !shown.contains("hunter2"), "{shown}");
    }
}
