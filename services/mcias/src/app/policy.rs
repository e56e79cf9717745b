//! The login policy: read, replaced as a whole, explained.

use std::collections::BTreeSet;
use std::sync::Arc;

use mc_api::mcias as api;
use mcdsl::problem::Problem;

use super::accounts::{conflict, has_an_admin};
use super::event::Event;
use super::{Ask, Fault, Mcias, messages, named};
use crate::domain::Name;
use crate::domain::policy::{Effect, Policy, Rule, Service};
use crate::store;
use crate::store::policy::Document;

/// Rules at most: each login looks at each.
const MOST: usize = 10_000;

impl Mcias {
    /// The policy that is in force.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn get_policy(&self, ask: &Ask) -> Result<api::Policy, Problem> {
        self.admin(ask, "policy.get", "").await?;
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

    /// Replaces the policy. One that shuts out whoever sets it is refused.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn set_policy(
        &self,
        ask: &Ask,
        request: api::SetPolicyRequest,
    ) -> Result<api::Policy, Problem> {
        let admin = self.admin(ask, "policy.set", "").await?;
        if request.rules.len() > MOST {
            return Err(Problem::field("rules", format!("there are more than {MOST} rules")));
        }
        let rules = request.rules.iter().enumerate().map(|(index, rule)| messages::rule(index, rule));
        let rules: Vec<Rule> = rules.collect::<Result<_, _>>()?;
        let default = messages::default_effect(&request.default)?;
        let document = Document { default, rules: rules.clone() };
        let policy = Policy::new(rules, default)
            .map_err(|same| Problem::field(format!("rules[{}].name", same.index), same.to_string()))?;
        if policy.decide(&admin.account, &self.service) == Effect::Deny {
            let detail = "with this policy you could not log in to `mcias` yourself, nor undo it: add a rule that lets you in";
            return Err(Problem { field: Some("rules".to_owned()), ..conflict("locks-you-out", detail) });
        }
        let expected = request.revision;
        let written = serde_json::to_string(&document).expect("a policy can be written as JSON");
        let digest = data_encoding::HEXLOWER.encode(&super::sha256(&written));
        let event = Event::new("policy.set", "");
        let event = event.because(format!("{} rules, SHA-256 {digest}", document.rules.len()));
        let (in_force, judged, mcias) = (Arc::clone(&self.policy), policy.clone(), self.service.clone());
        let work = move |db: &rusqlite::Connection, event: &mut Event| {
            let (current, _) = store::policy::get(db)?;
            if expected.is_some_and(|expected| expected != current) {
                let detail =
                    format!("revision {current} is in force by now: look at it, and send yours again");
                return Err(
                    Problem { field: Some("revision".to_owned()), ..conflict("changed", detail) }.into()
                );
            }
            // Whoever asks is let in; but may have been taken the role meanwhile.
            if !has_an_admin(db, None, &judged, &mcias)? {
                let detail = "with this policy no admin could log in to `mcias`: add a rule that lets one in";
                return Err(conflict("locks-you-out", detail).into());
            }
            store::policy::set(db, current + 1, &document)?;
            event.target = format!("revision {}", current + 1);
            Ok(current + 1)
        };
        // In the order in which they are stored.
        self.change_then(ask, event, work, move |revision| in_force.store(Arc::new((*revision, policy))))
            .await?;
        Ok(self.policy_message())
    }

    /// What the policy says of an account at a service, and why.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn explain_policy(
        &self,
        ask: &Ask,
        request: api::ExplainPolicyRequest,
    ) -> Result<api::Explanation, Problem> {
        self.admin(ask, "policy.explain", &request.username).await?;
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
        let Some(account) = account else {
            return Err(Problem::field("username", format!("there is no account called `{username}`")));
        };
        let own = service == self.service.name;
        let tags = if registered { tags } else { given };
        let service = if own { self.service.clone() } else { Service { name: service, tags } };
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

/// The policy that is stored: what is decided within a change must not be by one that is about to be replaced.
pub(super) fn in_force(db: &rusqlite::Connection) -> Result<Policy, Fault> {
    let (_, document) = store::policy::get(db)?;
    Ok(Policy::new(document.rules, document.default).map_err(|same| Problem::internal(&same))?)
}
