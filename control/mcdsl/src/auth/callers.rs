//! Admission of callers by MCIAS's word.

use std::sync::Arc;
use std::time::Duration;

use super::Client;
use crate::audit::{AuditedDatabase, RefusalLog};
use crate::context::RequestContext;
use crate::identity::{Identity, Name};
use crate::permit::Authority;
use crate::problem::Problem;
use crate::secret::Secret;

/// What a service needs to admit its callers.
#[derive(Clone, Debug)]
pub struct Callers {
    service: Name,
    client: Client,
    refusals: Refusals,
    reauth_window_s: i64,
}

/// Where refusals of known callers are recorded.
#[derive(Clone, Debug)]
enum Refusals {
    Audited(Arc<AuditedDatabase>),
    Logged(Arc<RefusalLog>),
}

/// A service whose callers MCIAS identifies. That makes it an [`Authority`].
pub trait HasCallers: Send + Sync + 'static {
    /// What the service admits its callers with.
    fn callers(&self) -> &Callers;
}

impl Callers {
    /// Callers of the service with this name. Operations that need a fresh login take one that is younger than `reauth_window`. Refusals are
    /// in the audit log of `db`; without one, which is for a service that stores nothing, they are in the service's log.
    #[must_use]
    pub fn new(
        service: Name,
        client: Client,
        db: Option<Arc<AuditedDatabase>>,
        reauth_window: Duration,
    ) -> Self {
        let reauth_window_s = i64::try_from(reauth_window.as_secs()).unwrap_or(i64::MAX);
        let log = || RefusalLog::new(service.clone(), client.clock().clone());
        let refusals = db.map_or_else(|| Refusals::Logged(Arc::new(log())), Refusals::Audited);
        Self { service, client, refusals, reauth_window_s }
    }
}

impl<T: HasCallers> Authority for T {
    fn service(&self) -> &Name {
        &self.callers().service
    }

    async fn authenticate(
        &self,
        _context: &RequestContext,
        token: &Secret,
    ) -> Result<Arc<Identity>, Problem> {
        self.callers().client.validate(token).await
    }

    /// MCIAS has evaluated the login policy for this service when it called the token active.
    fn admit(&self, _identity: &Identity) -> Result<(), Problem> {
        Ok(())
    }

    fn is_fresh(&self, identity: &Identity) -> bool {
        let callers = self.callers();
        let age_s = callers.client.clock().unix_s() - identity.authenticated_at;
        (0..=callers.reauth_window_s).contains(&age_s)
    }

    async fn refused(
        &self,
        context: &RequestContext,
        action: &'static str,
        target: &str,
        problem: Problem,
    ) -> Problem {
        match &self.callers().refusals {
            Refusals::Audited(db) => db.refuse_access(context, action, target, problem).await,
            Refusals::Logged(log) => {
                log.refused(context, action, target, &problem);
                problem
            }
        }
    }
}
