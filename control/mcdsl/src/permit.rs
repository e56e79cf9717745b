//! Permission to do one thing. Only an authorisation yields a [`Permit`], and every change and every release of a secret takes one: an
//! operation without a check does not compile.
//!
//! A permit is for one operation with all its targets. It comes from [`authorize`], which evaluates what the operation needs; or, for what
//! no request asks for, from [`Permit::for_job`] and [`Permit::for_local_user`], which can be searched for.

use std::net::IpAddr;
use std::sync::Arc;

use mc_api::operation::{Need, Operation};

use crate::context::RequestContext;
use crate::identity::{Account, AccountType, Identity, Name, Role};
use crate::problem::{Kind, Problem};
use crate::secret::Secret;

/// Permission for one operation, of one caller.
#[derive(Debug)]
pub struct Permit {
    context: RequestContext,
    action: &'static str,
    target: String,
}

/// What is to be permitted: an operation of the API, a protocol's route or a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Its name in the audit log.
    pub action: &'static str,
    /// Who may do it.
    pub need: Need,
    /// Whether the login must be recent.
    pub fresh: bool,
}

/// How a service identifies its callers, and what it does with those whom it refuses.
pub trait Authority: Send + Sync + 'static {
    /// The service's name: tokens must be for it.
    fn service(&self) -> &Name;

    /// The identity behind a token.
    ///
    /// # Errors
    /// The token is invalid, or cannot be looked up now.
    fn authenticate(
        &self,
        context: &RequestContext,
        token: &Secret,
    ) -> impl Future<Output = Result<Arc<Identity>, Problem>> + Send;

    /// Whether the account may use this service at all.
    ///
    /// # Errors
    /// It may not.
    fn admit(&self, identity: &Identity) -> Result<(), Problem>;

    /// Whether the login is recent enough for what needs a fresh one.
    fn is_fresh(&self, identity: &Identity) -> bool;

    /// Records a refusal in the audit log. Returns the problem to answer with: another one where that cannot be written.
    fn refused(
        &self,
        context: &RequestContext,
        action: &'static str,
        target: &str,
        problem: Problem,
    ) -> impl Future<Output = Problem> + Send;
}

impl From<&Operation> for Access {
    fn from(operation: &Operation) -> Self {
        Self { action: operation.action, need: operation.need, fresh: operation.fresh }
    }
}

/// Permits what the caller may do. A refusal of a caller who is known is in the audit log when this returns.
///
/// # Errors
/// The caller may not do it.
pub async fn authorize<A: Authority>(
    authority: &A,
    context: RequestContext,
    access: Access,
    target: String,
) -> Result<Permit, Problem> {
    let decided = match context.identity() {
        // Without a token there is nobody to name in the audit log.
        None if !matches!(access.need, Need::Public | Need::OptionalToken) => {
            return Err(Problem::unauthenticated("A token is required: `authorization: Bearer <token>`."));
        }
        None => Ok(()),
        Some(identity) => decide(authority, identity, access),
    };
    match decided {
        Ok(()) => Ok(Permit { context, action: access.action, target }),
        Err(problem) => Err(authority.refused(&context, access.action, &target, problem).await),
    }
}

fn decide<A: Authority>(authority: &A, identity: &Identity, access: Access) -> Result<(), Problem> {
    if matches!(access.need, Need::Public | Need::Token) {
        return Ok(());
    }
    let name = identity.account.name();
    let service = authority.service();
    let is_person = identity.account.account_type() == AccountType::Human;
    // A person's token is of no use to a login: it is as if there were none.
    if access.need == Need::OptionalToken && is_person {
        return Ok(());
    }
    if !identity.is_for(service) {
        return Err(Problem::forbidden(format!("This token is for other services than `{service}`.")));
    }
    match access.need {
        Need::Public | Need::Token | Need::Account => {}
        // A service that asks about others does not log in by that: the login policy is not evaluated for it.
        Need::OptionalToken | Need::Service if !is_person => return Ok(()),
        Need::OptionalToken | Need::Service => {
            return Err(Problem::forbidden(format!(
                "This is for services, and {name} is a person's account."
            )));
        }
        Need::Person | Need::Admin => {}
    }
    authority.admit(identity)?;
    if access.need == Need::Person && !is_person {
        return Err(Problem::forbidden(format!("This is for people, and {name} is a system account.")));
    }
    if access.need == Need::Admin {
        require_role(&identity.account, Role::Admin)?;
    }
    if access.fresh {
        require_fresh(authority, identity)?;
    }
    Ok(())
}

/// That the account has a role.
///
/// # Errors
/// It has not.
pub fn require_role(account: &Account, role: Role) -> Result<(), Problem> {
    if account.roles().has(role) {
        return Ok(());
    }
    let detail =
        format!("This requires the role `{}`, which {} does not have.", role.as_str(), account.name());
    Err(Problem::forbidden(detail))
}

fn require_fresh<A: Authority>(authority: &A, identity: &Identity) -> Result<(), Problem> {
    if authority.is_fresh(identity) {
        return Ok(());
    }
    let detail = "Your login is not recent enough for this: log in again.";
    Err(Problem::new(Kind::Forbidden, "fresh-login-required", detail))
}

impl Permit {
    /// Permission for a job of the service itself.
    #[must_use]
    pub fn for_job(name: &'static str, action: &'static str) -> Self {
        Self { context: RequestContext::of_job(name), action, target: String::new() }
    }

    /// Permission for a command on the server itself: who can read the service's database can do anything.
    #[must_use]
    pub fn for_local_user(command: &'static str, action: &'static str, target: impl Into<String>) -> Self {
        Self { context: RequestContext::of_local_user(command), action, target: target.into() }
    }

    /// The request.
    #[must_use]
    pub const fn context(&self) -> &RequestContext {
        &self.context
    }

    /// What is permitted.
    #[must_use]
    pub const fn action(&self) -> &'static str {
        self.action
    }

    /// What it is permitted on; empty where there is nothing to name.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The identity of the account that calls.
    #[must_use]
    pub const fn identity(&self) -> Option<&Arc<Identity>> {
        self.context.identity()
    }

    /// The same, of an operation that needs an account.
    ///
    /// # Errors
    /// There is none: the operation's need does not ask for one.
    pub fn require_identity(&self) -> Result<&Arc<Identity>, Problem> {
        self.identity().ok_or_else(|| Problem::unauthenticated("A token is required."))
    }

    /// The token of the account that calls: for a service that asks MCIAS in the caller's name.
    ///
    /// # Errors
    /// There is none, as [`Permit::require_identity`].
    pub fn require_token(&self) -> Result<&Secret, Problem> {
        let token = self.context.token.as_deref();
        token.ok_or_else(|| Problem::unauthenticated("A token is required."))
    }

    /// Requires a recent login, where it depends on what is requested. A refusal is in the audit log when this returns.
    ///
    /// # Errors
    /// The login is not recent.
    pub async fn require_fresh<A: Authority>(&self, authority: &A) -> Result<(), Problem> {
        let identity = self.require_identity()?;
        match require_fresh(authority, identity) {
            Ok(()) => Ok(()),
            Err(problem) => Err(authority.refused(&self.context, self.action, &self.target, problem).await),
        }
    }

    /// Names what it is permitted on, once the request has been read.
    pub(crate) fn set_target(&mut self, target: String) {
        if !target.is_empty() {
            self.target = target;
        }
    }

    /// The same permission, for a client whose address and `user-agent` the calling service vouches for.
    ///
    /// # Errors
    /// The caller is not a service, or nobody has this address.
    pub fn on_behalf_of(mut self, client: IpAddr, user_agent: Option<String>) -> Result<Self, Problem> {
        let is_service =
            self.identity().is_some_and(|identity| identity.account.account_type() == AccountType::System);
        if !is_service {
            let detail = "Only a system account states the address of its client: leave it out.";
            return Err(Problem::field("client_address", detail));
        }
        let client = client.to_canonical();
        if client.is_unspecified() || client.is_multicast() || client == IpAddr::from([255; 4]) {
            return Err(Problem::field("client_address", format!("`{client}` is no client's address")));
        }
        self.context.client.set_ip(client);
        self.context.user_agent = user_agent.map(Into::into);
        Ok(self)
    }

    pub(crate) fn into_parts(self) -> (RequestContext, &'static str, String) {
        (self.context, self.action, self.target)
    }
}
