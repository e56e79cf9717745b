//! MCAT's use cases: REST, gRPC and the page all come here. Each asks MCIAS about the caller, by the caller's token.

use std::sync::Arc;
use std::time::Duration;

use mc_api::mcat as api;
use mc_api::mcias::login_tests_client::LoginTestsClient;
use mc_api::mcias::{TestLoginRequest, TestLoginResponse, TestPolicyRequest};
use mc_api::operation::Operation;
use mc_api::policy::PolicyDraft;
use mcdsl::auth::{Callers, Client, ClientError, HasCallers};
use mcdsl::clock::Clock;
use mcdsl::context::RequestContext;
use mcdsl::http::Limits;
use mcdsl::identity::Name;
use mcdsl::operation::RouteTable;
use mcdsl::permit::{Access, Permit, authorize};
use mcdsl::problem::Problem;

use crate::config::Config;

/// MCAT, running.
#[derive(Debug)]
pub struct Mcat {
    config: Config,
    clock: Clock,
    client: Client,
    callers: Callers,
}

/// The use cases, for one caller of this process: each call is authorised as a request of the API is.
#[derive(Clone, Debug)]
pub struct Calls {
    app: Arc<Mcat>,
    context: RequestContext,
}

/// All operations of MCAT.
pub fn operations() -> impl Iterator<Item = &'static &'static Operation> {
    mc_api::mcat::operations::ALL.iter()
}

/// The OpenAPI document.
#[must_use]
pub fn openapi() -> serde_json::Value {
    let about = serde_json::json!({
        "title": "MCAT",
        "version": env!("CARGO_PKG_VERSION"),
        "description": "Tests the login policy: what it decides, by which rule, and what a draft would change.",
    });
    let schemas = [mc_api::mcat::SCHEMAS, mc_api::policy::SCHEMAS];
    mcdsl::operation::document::openapi(operations(), &schemas, &about)
}

impl HasCallers for Mcat {
    fn callers(&self) -> &Callers {
        &self.callers
    }
}

impl Mcat {
    /// MCAT with its client of MCIAS, which connects at its first call. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The settings of MCIAS cannot be used.
    pub fn new(config: Config, clock: Clock) -> Result<Self, ClientError> {
        let client = Client::new(&config.mcias.in_root(&config.server.root), clock.clone())?;
        // No operation needs a fresh login.
        let name = Name::parse("mcat").expect("it is a name");
        let callers = Callers::new(name, client.clone(), None, Duration::ZERO);
        Ok(Self { config, clock, client, callers })
    }

    /// The table of all operations. Pages are added where the program is wired.
    #[must_use]
    pub fn operations(self: &Arc<Self>, limits: Limits) -> RouteTable<Self> {
        let mut table = RouteTable::new(Arc::clone(self), limits);
        mc_api::mcat_operations!(table &mut table, Self);
        table
    }

    /// The configuration.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The clock.
    #[must_use]
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The client of MCIAS, which logs people in.
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// What the login policy decides for the caller.
    ///
    /// # Errors
    /// MCIAS refuses, or does not answer.
    pub(crate) async fn explain(
        &self,
        permit: Permit,
        request: api::ExplainRequest,
    ) -> Result<api::ExplainResponse, Problem> {
        let api::ExplainRequest { service, service_tags, registered_tags, other, draft } = request;
        let context = api::Context { service, service_tags, registered_tags };
        let told = self.test(&permit, context, draft.clone()).await?;
        let other = match other {
            Some(other) => {
                let told = self.test(&permit, other, draft).await;
                // A draft's fields were found to be right: what is wrong is this context's.
                let told = told.map_err(|problem| Problem {
                    field: problem.field.map(|field| format!("other.{field}")),
                    ..problem
                })?;
                Some(api::Decisions { in_force: told.decision, draft: told.draft_decision })
            }
            None => None,
        };
        Ok(api::ExplainResponse {
            account: told.account,
            roles: told.roles,
            claims: told.claims,
            decisions: Some(api::Decisions { in_force: told.decision, draft: told.draft_decision }),
            other,
        })
    }

    async fn test(
        &self,
        permit: &Permit,
        context: api::Context,
        draft: Option<PolicyDraft>,
    ) -> Result<TestLoginResponse, Problem> {
        let api::Context { service, service_tags, registered_tags } = context;
        let token = permit.require_token()?.expose().to_owned();
        let request = TestLoginRequest { token, service, service_tags, registered_tags, draft };
        let told = self.client.call(request, async |connection, request| {
            LoginTestsClient::new(connection).test_login(request).await
        });
        told.await.map_err(about_caller)
    }

    /// What a draft would change for everybody.
    ///
    /// # Errors
    /// MCIAS refuses, or does not answer.
    pub(crate) async fn check_draft(
        &self,
        permit: Permit,
        request: api::CheckDraftRequest,
    ) -> Result<api::CheckDraftResponse, Problem> {
        let token = permit.require_token()?.expose().to_owned();
        let request = TestPolicyRequest { token, draft: request.draft };
        let told = self.client.call(request, async |connection, request| {
            LoginTestsClient::new(connection).test_policy(request).await
        });
        Ok(api::CheckDraftResponse { check: told.await.map_err(about_caller)?.check })
    }
}

/// MCIAS calls a caller's token a field of our request. It was valid a moment ago: the session has ended.
fn about_caller(problem: Problem) -> Problem {
    if problem.field.as_deref() == Some("token") {
        return Problem::unauthenticated("The session has ended: log in again.");
    }
    problem
}

impl Calls {
    pub(crate) const fn new(app: Arc<Mcat>, context: RequestContext) -> Self {
        Self { app, context }
    }

    const fn service(&self) -> &Arc<Mcat> {
        &self.app
    }

    async fn authorize(&self, operation: &Operation, target: String) -> Result<Permit, Problem> {
        authorize(&*self.app, self.context.clone(), Access::from(operation), target).await
    }
}

mc_api::mcat_operations!(calls Calls, Problem);
