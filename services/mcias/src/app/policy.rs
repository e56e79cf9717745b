//! The login policy, for admins: the operations are those of every service's policy (see `mcdsl::policy`).

use std::collections::{BTreeMap, BTreeSet};

use mcdsl::audit::{AuditedDatabase, Fault};
use mcdsl::clock::Clock;
use mcdsl::permit::Permit;
use mcdsl::policy::{Catalog, Effect, InForce, Policy, PolicyHost, PolicySpec, RecentUse, Resource};
use mcdsl::problem::Problem;
use rusqlite::Connection;

use super::accounts::{conflict, has_an_admin};
use super::{Mcias, own_service};
use crate::domain::policy::{self, LOGIN, SPEC};
use crate::domain::{Account, Name};
use crate::store;

impl PolicyHost for Mcias {
    fn policy_spec(&self) -> &'static PolicySpec {
        &SPEC
    }

    fn policy(&self) -> &InForce {
        &self.policy
    }

    fn policy_database(&self) -> &AuditedDatabase {
        &self.db
    }

    fn policy_clock(&self) -> &Clock {
        &self.clock
    }

    async fn look_up(
        &self,
        account: &Name,
        resource: &str,
    ) -> Result<(Option<Account>, Option<BTreeSet<Name>>), Problem> {
        // What cannot be a name is no service.
        let service = Name::parse(resource).ok();
        let own = self.service.clone();
        let account = account.clone();
        self.read(move |db| {
            let account = store::accounts::by_name(db, account.as_str())?.map(|stored| stored.account);
            let tags = match service {
                None => None,
                Some(service) if service == own.name => Some(own.tags),
                Some(service) if !store::accounts::is_service(db, &service)? => None,
                Some(service) => Some(store::accounts::tags_of_service(db, &service)?),
            };
            Ok((account, tags))
        })
        .await
    }

    async fn catalog(&self) -> Result<Catalog, Problem> {
        let stored = self.read(|db| store::accounts::list(db, "", None, "", u32::MAX)).await?;
        let mut services: BTreeMap<Name, BTreeSet<Name>> = BTreeMap::new();
        for (service, tags) in stored.iter().filter_map(|it| it.service.as_ref().map(|name| (name, &it.tags)))
        {
            services.entry(service.clone()).or_default().extend(tags.iter().cloned());
        }
        services.insert(self.service.name.clone(), self.service.tags.clone());
        let resources = services.into_iter().map(|(name, tags)| Resource { name: name.into(), tags });
        let accounts = stored.into_iter().map(|stored| stored.account);
        Ok(Catalog { accounts: Some(accounts.collect()), resources: Some(resources.collect()) })
    }

    /// Logins, of which the audit log has every one.
    async fn recent_uses(&self) -> Result<Vec<RecentUse>, Problem> {
        let since = (self.now() - RECENT_S) * 1000;
        let logins = self.read(move |db| store::logins::since(db, since)).await?;
        let used = |(account, resource, count)| RecentUse { account, resource, operation: LOGIN, count };
        Ok(logins.into_iter().map(used).collect())
    }

    /// Refuses a policy that denies its author access.
    fn check_draft(&self, permit: &Permit, draft: &Policy) -> Result<(), Problem> {
        if policy::decide(draft, &permit.require_identity()?.account, &self.service) == Effect::Allow {
            return Ok(());
        }
        let detail = "deny you access to `mcias`, so that you could not undo it: add a rule that allows you";
        Err(Problem { field: Some("rules".to_owned()), ..conflict("locks-you-out", detail) })
    }

    /// Refuses a policy that denies every admin access: the author may have lost the role meanwhile.
    fn check_stored(db: &Connection, draft: &Policy) -> Result<(), Fault> {
        if has_an_admin(db, None, draft, &own_service())? {
            return Ok(());
        }
        let detail = "This policy denies every admin access to `mcias`: add a rule that allows one.";
        Err(conflict("locks-you-out", detail).into())
    }
}

/// How long a login is recent, in seconds.
const RECENT_S: i64 = 30 * 24 * 3600;
