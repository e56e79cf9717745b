//! The login policy: read, replaced as a whole, explained.

use std::collections::BTreeSet;
use std::sync::Arc;

use mc_api::mcias as api;
use mcdsl::audit::{Event, Fault};
use mcdsl::permit::Permit;
use mcdsl::problem::Problem;

use super::accounts::{changed_meanwhile, conflict, has_an_admin, missing};
use super::{Mcias, messages, named};
use crate::domain::policy::{Effect, Policy, Rule};
use crate::domain::{Name, ServiceContext};
use crate::store;
use crate::store::policy::Document;

/// Each login looks at each rule.
const MAX_RULES: usize = 10_000;

impl Mcias {
    /// Returns the policy in force.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn get_policy(
        &self,
        _permit: Permit,
        _request: api::GetPolicyRequest,
    ) -> Result<api::Policy, Problem> {
        Ok(self.policy_message())
    }

    fn policy_message(&self) -> api::Policy {
        let policy = self.policy.load();
        api::Policy {
            default: messages::effect_of(policy.1.default_effect()).to_owned(),
            rules: policy.1.rules().iter().map(messages::rule_of).collect(),
            revision: policy.0,
        }
    }

    /// Replaces the policy. One that denies its author access is refused.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn set_policy(
        &self,
        permit: Permit,
        request: api::SetPolicyRequest,
    ) -> Result<api::Policy, Problem> {
        if request.rules.len() > MAX_RULES {
            return Err(Problem::field("rules", format!("has more than {MAX_RULES} rules")));
        }
        let rules = request.rules.iter().enumerate().map(|(index, rule)| messages::rule(index, rule));
        let rules: Vec<Rule> = rules.collect::<Result<_, _>>()?;
        let default = messages::default_effect(&request.default)?;
        let document = Document { default, rules: rules.clone() };
        let policy = Policy::new(rules, default)
            .map_err(|same| Problem::field(format!("rules[{}].name", same.index), same.to_string()))?;
        if policy.decide(&permit.require_identity()?.account, &self.service) == Effect::Deny {
            let detail =
                "deny you access to `mcias`, so that you could not undo it: add a rule that allows you";
            return Err(Problem { field: Some("rules".to_owned()), ..conflict("locks-you-out", detail) });
        }
        let expected = request.revision;
        let written = serde_json::to_string(&document).expect("a policy can be written as JSON");
        let digest = data_encoding::HEXLOWER.encode(&super::sha256(&written));
        let event =
            Event::from(permit).with_detail(format!("{} rules, SHA-256 {digest}", document.rules.len()));
        let (in_force, judged, mcias) = (Arc::clone(&self.policy), policy.clone(), self.service.clone());
        let work = move |db: &rusqlite::Connection, event: &mut Event| {
            let (current, _) = store::policy::get(db)?;
            if expected.is_some_and(|expected| expected != current) {
                return Err(changed_meanwhile(current).into());
            }
            // The caller is allowed, but may have lost the role meanwhile.
            if !has_an_admin(db, None, &judged, &mcias)? {
                let detail = "This policy denies every admin access to `mcias`: add a rule that allows one.";
                return Err(conflict("locks-you-out", detail).into());
            }
            store::policy::set(db, current + 1, &document)?;
            event.target = format!("revision {}", current + 1);
            Ok(current + 1)
        };
        // In the order in which they are stored.
        self.change_then(event, work, move |revision| in_force.store(Arc::new((*revision, policy)))).await?;
        Ok(self.policy_message())
    }

    /// Explains what the policy decides for an account at a service.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn explain_policy(
        &self,
        _permit: Permit,
        request: api::ExplainPolicyRequest,
    ) -> Result<api::Explanation, Problem> {
        let username = named("username", &request.username)?;
        let service = named("service", &request.service)?;
        let given: BTreeSet<Name> = messages::names("tags", &request.tags)?;
        let registered = given.is_empty() && request.registered_tags.unwrap_or(true);
        let read = {
            let (username, service) = (username.clone(), service.clone());
            self.read(move |db| {
                let account = store::accounts::by_name(db, username.as_str())?;
                Ok((account, store::accounts::tags_of_service(db, &service)?))
            })
        };
        let (account, tags) = read.await?;
        let account = account
            .ok_or_else(|| Problem { field: Some("username".to_owned()), ..missing(username.as_str()) })?;
        let own = service == self.service.name;
        let tags = if registered { tags } else { given };
        let service = if own { self.service.clone() } else { ServiceContext { name: service, tags } };
        let policy = self.policy.load();
        let explained = policy.1.explain(&account.account, &service);
        Ok(api::Explanation {
            effect: messages::effect_of(explained.effect).to_owned(),
            by: explained.by.map(messages::rule_of),
            also: explained.also.into_iter().map(messages::rule_of).collect(),
            tags: service.tags.iter().map(ToString::to_string).collect(),
        })
    }
}

/// The policy that is stored: a change must not be judged by one that is about to be replaced.
pub(super) fn in_force(db: &rusqlite::Connection) -> Result<Policy, Fault> {
    let (_, document) = store::policy::get(db)?;
    Ok(Policy::new(document.rules, document.default).map_err(|same| Problem::internal(&same))?)
}
