//! What a login tester asks: what the login policy decides for somebody who is logged in to it, and what a draft would change.

use std::sync::Arc;

use mc_api::mcias as api;
use mc_api::policy::operations::CHECK_POLICY;
use mc_api::policy::{CheckPolicyRequest, ExplainPolicyRequest, PolicyDraft};
use mcdsl::context::{Principal, RequestContext};
use mcdsl::identity::Identity;
use mcdsl::permit::{Access, Authority as _, Permit, authorize};
use mcdsl::policy::PolicyHost as _;
use mcdsl::problem::Problem;
use mcdsl::secret::Secret;

use super::messages::Valid;
use super::validate::calling_service;
use super::{Mcias, messages};

/// The tag of a service that tests logins: it learns what the policy decides at other services.
const TESTER: &str = "login-tester";

impl Mcias {
    /// What the login policy decides for the owner of a token, at any service.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn test_login(
        &self,
        permit: Permit,
        request: api::TestLoginRequest,
    ) -> Result<api::TestLoginResponse, Problem> {
        let api::TestLoginRequest { token, service, service_tags, registered_tags, draft } = request;
        let valid = self.at_tester(&permit, Secret::from(token)).await?;
        let account = &valid.identity.account;
        let question = |draft: Option<PolicyDraft>| ExplainPolicyRequest {
            account: account.name().to_string(),
            resource: service.clone(),
            resource_tags: service_tags.clone(),
            registered_tags,
            draft,
            ..ExplainPolicyRequest::default()
        };
        // The fields are named as this request names them.
        // Those of a draft keep theirs.
        let field = |field: &str| match field {
            "resource" => "service".to_owned(),
            field if field.starts_with("draft") => field.to_owned(),
            field => field.replace("resource_tags", "service_tags"),
        };
        let named = |mut problem: Problem| {
            problem.field = problem.field.as_deref().map(field);
            problem
        };
        let ask = async |draft: Option<PolicyDraft>| {
            let mut decision = self.explanation(&permit, question(draft)).await.map_err(named)?;
            decision.warnings.iter_mut().for_each(|warning| warning.field = field(&warning.field));
            Ok::<_, Problem>(decision)
        };
        let decision = ask(None).await?;
        let draft_decision = match draft {
            Some(draft) => Some(ask(Some(draft)).await?),
            None => None,
        };
        Ok(api::TestLoginResponse {
            account: account.name().to_string(),
            account_id: valid.identity.account_id.clone(),
            account_type: account.account_type().as_str().to_owned(),
            roles: messages::roles_of(account.roles()),
            claims: serde_json::to_string(&valid.claims).expect("claims can be written as JSON"),
            decision: Some(decision),
            draft_decision,
        })
    }

    /// What a draft would change, for an admin.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn test_policy(
        &self,
        permit: Permit,
        request: api::TestPolicyRequest,
    ) -> Result<api::TestPolicyResponse, Problem> {
        let valid = self.at_tester(&permit, Secret::from(request.token)).await?;
        let draft = request.draft.ok_or_else(|| Problem::field("draft", "is missing"))?;
        // The tester asks for the admin, who must be allowed to ask here as well.
        let audience = vec![self.service().to_string()];
        let identity = Arc::new(Identity { audience, ..(*valid.identity).clone() });
        let context = RequestContext {
            principal: Principal::Account(identity),
            token: None,
            ..permit.context().clone()
        };
        let permit = authorize(self, context, Access::from(&CHECK_POLICY), String::new()).await?;
        let PolicyDraft { default, rules } = draft;
        let check = self.check_policy(permit, CheckPolicyRequest { default, rules, revision: None });
        let check = check.await.map_err(|problem| Problem {
            field: problem.field.map(|field| format!("draft.{field}")),
            ..problem
        })?;
        Ok(api::TestPolicyResponse { check: Some(check) })
    }

    /// The token of somebody who is logged in to the tester that calls.
    async fn at_tester(&self, permit: &Permit, token: Secret) -> Result<Arc<Valid>, Problem> {
        let tester = calling_service(permit)?.clone();
        if !tester.tags.iter().any(|tag| tag.as_str() == TESTER) {
            let detail = format!(
                "Only a service with the tag `{TESTER}` tests logins, and {} has it not.",
                tester.name
            );
            return Err(self
                .refused(permit.context(), permit.action(), permit.target(), Problem::forbidden(detail))
                .await);
        }
        let invalid = || Problem::field("token", "is not valid, or not for the service that calls");
        let valid = self.validate(&token).await?.map_err(|_invalid| invalid())?;
        let account = &valid.identity.account;
        if !valid.identity.is_for(&tester.name) || self.allowed(account, &tester).is_err() {
            return Err(invalid());
        }
        Ok(valid)
    }
}
