//! The operations of `metacircular.policy.v1` for a service that says what its policy is about.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use mc_api::policy as api;
use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::messages::{
    self, change_message, diff_message, explanation_message, policy_message, summary_message,
    warning_messages,
};
use super::store::{self, Revision, Stored};
use super::{
    Document, Effect, InvalidField, Policy, PolicySpec, Question, Reference, Warning, decision_changes, diff,
};
use crate::audit::{AuditedDatabase, Event, Fault};
use crate::clock::Clock;
use crate::identity::{Account, AccountType, Name, Role};
use crate::permit::Permit;
use crate::problem::{Kind, Problem};

/// A service with a policy. It says what the policy is about and what it knows; the operations follow.
pub trait PolicyHost: Send + Sync + 'static {
    /// What the policy is about.
    fn policy_spec(&self) -> &'static PolicySpec;

    /// The policy in force.
    fn policy(&self) -> &InForce;

    /// The database, with the table of [`store::TABLE`].
    fn policy_database(&self) -> &AuditedDatabase;

    /// The service's clock.
    fn policy_clock(&self) -> &Clock;

    /// The account of this name, and the tags of this resource: each `None` where the service does not know it.
    fn look_up(
        &self,
        account: &Name,
        resource: &str,
    ) -> impl Future<Output = Result<(Option<Account>, Option<BTreeSet<Name>>), Problem>> + Send;

    /// Everything that the service knows and rules may name.
    fn catalog(&self) -> impl Future<Output = Result<Catalog, Problem>> + Send;

    /// What was used in the last 30 days, where the service keeps that: a draft is tried against it.
    fn recent_uses(&self) -> impl Future<Output = Result<Vec<RecentUse>, Problem>> + Send {
        async { Ok(Vec::new()) }
    }

    /// Refuses a draft that its author must not set: one that locks its author out.
    ///
    /// # Errors
    /// It must not be set.
    fn check_draft(&self, permit: &Permit, draft: &Policy) -> Result<(), Problem> {
        let _: (&Permit, &Policy) = (permit, draft);
        Ok(())
    }

    /// Refuses a draft because of what is stored when it is written.
    ///
    /// # Errors
    /// It must not be set, or the database fails.
    fn check_stored(db: &Connection, draft: &Policy) -> Result<(), Fault> {
        let _: (&Connection, &Policy) = (db, draft);
        Ok(())
    }

    /// Returns the policy in force.
    fn get_policy(
        &self,
        _permit: Permit,
        _request: api::GetPolicyRequest,
    ) -> impl Future<Output = Result<api::PolicyDocument, Problem>> + Send {
        async move { Ok(self.policy().load().message()) }
    }

    /// Says what setting a policy would do.
    fn check_policy(
        &self,
        permit: Permit,
        request: api::CheckPolicyRequest,
    ) -> impl Future<Output = Result<api::CheckPolicyResponse, Problem>> + Send {
        check(self, permit, request)
    }

    /// Replaces the policy.
    fn set_policy(
        &self,
        permit: Permit,
        request: api::SetPolicyRequest,
    ) -> impl Future<Output = Result<api::SetPolicyResponse, Problem>> + Send {
        set(self, permit, request)
    }

    /// Explains a decision of the policy in force, or of a draft.
    fn explain_policy(
        &self,
        permit: Permit,
        request: api::ExplainPolicyRequest,
    ) -> impl Future<Output = Result<api::ExplainPolicyResponse, Problem>> + Send {
        async move { self.explanation(&permit, request).await }
    }

    /// The same, as a part of another operation.
    fn explanation(
        &self,
        _permit: &Permit,
        request: api::ExplainPolicyRequest,
    ) -> impl Future<Output = Result<api::ExplainPolicyResponse, Problem>> + Send {
        explain(self, request)
    }

    /// Lists revisions, newest first.
    fn list_policy_revisions(
        &self,
        _permit: Permit,
        request: api::ListPolicyRevisionsRequest,
    ) -> impl Future<Output = Result<api::ListPolicyRevisionsResponse, Problem>> + Send {
        list_revisions(self, request)
    }

    /// Returns the policy as it was.
    fn get_policy_revision(
        &self,
        _permit: Permit,
        request: api::GetPolicyRevisionRequest,
    ) -> impl Future<Output = Result<api::PolicyDocument, Problem>> + Send {
        async move {
            let revision = revision(self, "revision", request.revision).await?;
            Ok(Current::new(self.policy_spec(), revision)
                .map_err(|error| Problem::internal(&error))?
                .message())
        }
    }

    /// Compares two revisions.
    fn diff_policy(
        &self,
        _permit: Permit,
        request: api::DiffPolicyRequest,
    ) -> impl Future<Output = Result<api::DiffPolicyResponse, Problem>> + Send {
        async move {
            let to = request.to.unwrap_or_else(|| self.policy().load().revision);
            let (before, after) =
                (revision(self, "from", request.from).await?, revision(self, "to", to).await?);
            Ok(diff_message(request.from, to, diff(&before.document, &after.document)))
        }
    }
}

/// What a service knows of what rules may name.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// Accounts; `None` where the service knows them only by their tokens.
    pub accounts: Option<Vec<Account>>,
    /// Resources; `None` where rules may name any.
    pub resources: Option<Vec<Resource>>,
}

/// A resource that the service knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Its full name.
    pub name: String,
    /// Its tags.
    pub tags: BTreeSet<Name>,
}

/// How often an account used a resource in the last 30 days.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecentUse {
    /// The account's name.
    pub account: Name,
    /// The resource's full name.
    pub resource: String,
    /// One of [`PolicySpec::operations`].
    pub operation: &'static str,
    /// How often.
    pub count: u32,
}

/// The policy in force. Clones share it.
#[derive(Clone, Debug)]
pub struct InForce(Arc<ArcSwap<Current>>);

/// A policy with its revision.
#[derive(Debug)]
pub struct Current {
    /// The policy.
    pub policy: Policy,
    /// Its revision.
    pub revision: i64,
    created_at: i64,
    actor: String,
}

/// The stored policy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The database fails, or there is no policy in it.
    #[error(transparent)]
    Sql(#[from] rusqlite::Error),
    /// Another program wrote it.
    #[error("revision {0} of the policy is invalid")]
    Invalid(i64, #[source] InvalidField),
}

impl InForce {
    /// Loads the policy in force, when the service starts.
    ///
    /// # Errors
    /// Returns an error if the database fails or the policy in it is invalid.
    pub fn load_from(db: &Connection, spec: &'static PolicySpec) -> Result<Self, LoadError> {
        Ok(Self(Arc::new(ArcSwap::from_pointee(Current::new(spec, store::current(db)?)?))))
    }

    /// The policy in force.
    #[must_use]
    pub fn load(&self) -> Arc<Current> {
        self.0.load_full()
    }
}

impl Current {
    fn new(spec: &'static PolicySpec, stored: Revision) -> Result<Self, LoadError> {
        let Revision { revision, document, created_at, actor } = stored;
        let policy = Policy::new(spec, document).map_err(|invalid| LoadError::Invalid(revision, invalid))?;
        Ok(Self { policy, revision, created_at, actor })
    }

    fn message(&self) -> api::PolicyDocument {
        policy_message(&self.policy, self.revision, self.created_at, self.actor.clone())
    }
}

/// The policy as it is stored: a change must not be judged by one that is about to be replaced.
///
/// # Errors
/// The database fails.
pub fn stored_policy(db: &Connection, spec: &'static PolicySpec) -> Result<Policy, Fault> {
    let stored = store::current(db)?;
    Ok(Policy::new(spec, stored.document).map_err(|invalid| Problem::internal(&invalid))?)
}

impl Catalog {
    /// What in a policy names something that is not there. Thousands of entries are looked up among thousands of names.
    fn warnings(&self, policy: &Policy) -> Vec<Warning> {
        let accounts =
            self.accounts.as_ref().map(|all| all.iter().map(Account::name).collect::<HashSet<_>>());
        let resources = self.resources.as_ref();
        let names = resources.map(|all| all.iter().map(|it| it.name.as_str()).collect::<HashSet<_>>());
        let tags = resources.map(|all| all.iter().flat_map(|it| &it.tags).collect::<HashSet<_>>());
        policy.warnings(|reference| match reference {
            Reference::Account(name) => accounts.as_ref().is_none_or(|all| all.contains(name)),
            Reference::Resource(name) => names.as_ref().is_none_or(|all| all.contains(name)),
            Reference::ResourceTag(tag) => tags.as_ref().is_none_or(|all| all.contains(tag)),
        })
    }

    /// Decisions that a draft would change: those about what was used first, the most used ones before others.
    fn changes(
        &self,
        spec: &PolicySpec,
        current: &Policy,
        draft: &Policy,
        mut recent: Vec<RecentUse>,
    ) -> Changes {
        recent.sort_by_key(|used| Reverse(used.count));
        let mut found = Changes {
            recent_uses: recent.iter().map(|used| u64::from(used.count)).sum(),
            ..Changes::default()
        };
        if current == draft {
            return found;
        }
        let by_name: HashMap<_, _> =
            self.accounts.iter().flatten().map(|account| (account.name(), account)).collect();
        let resources: HashMap<_, _> =
            self.resources.iter().flatten().map(|it| (it.name.as_str(), it)).collect();
        let used = recent.iter().filter_map(|used| {
            let (account, resource) = (by_name.get(&used.account)?, resources.get(used.resource.as_str())?);
            Some((question(account, resource, used.operation), used.count))
        });
        let seen: HashSet<_> = recent
            .iter()
            .map(|used| (used.account.as_str(), used.resource.as_str(), used.operation))
            .collect();
        let all = self.accounts.iter().flatten().flat_map(|account| {
            self.resources.iter().flatten().flat_map(move |resource| {
                spec.operations.iter().map(move |operation| (question(account, resource, operation), 0))
            })
        });
        let others = all.filter(|(asked, _)| {
            !seen.contains(&(asked.account.name().as_str(), asked.resource, asked.operation))
        });
        let mut left = MAX_WORK / (current.work() + draft.work() + 1);
        for (asked, count) in used.chain(others) {
            if left == 0 || found.listed.len() == MAX_CHANGES && count == 0 {
                found.more = true;
                break;
            }
            left -= 1;
            let Some(change) = decision_changes(current, draft, [asked]).next() else { continue };
            if change.after == Effect::Deny {
                found.recent_uses_denied += u64::from(count);
            }
            if found.listed.len() == MAX_CHANGES {
                found.more = true;
            } else {
                found.listed.push(change_message(&change, count));
            }
        }
        found
    }
}

fn question<'a>(account: &'a Account, resource: &'a Resource, operation: &'a str) -> Question<'a> {
    Question { account, resource: &resource.name, resource_tags: &resource.tags, operation }
}

/// What a draft would change.
#[derive(Debug, Default)]
struct Changes {
    listed: Vec<api::DecisionChange>,
    /// Whether there may be more than are listed.
    more: bool,
    recent_uses: u64,
    recent_uses_denied: u64,
}

/// Of a check, as [`Policy::work`] counts for each question: it takes about a second.
const MAX_WORK: usize = 10_000_000;

/// Listed by a check.
const MAX_CHANGES: usize = 100;

async fn set<H: PolicyHost + ?Sized>(
    host: &H,
    permit: Permit,
    request: api::SetPolicyRequest,
) -> Result<api::SetPolicyResponse, Problem> {
    let draft = Draft::read(host, &permit, &request.default, &request.rules).await?;
    let Draft { document, policy, warnings, .. } = draft;
    let current = store_document(host, permit, document, policy, request.revision).await?;
    Ok(api::SetPolicyResponse {
        policy: Some(current.message()),
        warnings: warning_messages(warnings, &request.rules),
        revision: current.revision,
    })
}

async fn check<H: PolicyHost + ?Sized>(
    host: &H,
    permit: Permit,
    request: api::CheckPolicyRequest,
) -> Result<api::CheckPolicyResponse, Problem> {
    let Draft { policy, catalog, warnings, .. } =
        Draft::read(host, &permit, &request.default, &request.rules).await?;
    let current = host.policy().load();
    let (spec, revision) = (host.policy_spec(), current.revision);
    if request.revision.is_some_and(|expected| expected != revision) {
        return Err(conflict(revision));
    }
    let recent = if current.policy == policy { Vec::new() } else { host.recent_uses().await? };
    let changes = compute(move || catalog.changes(spec, &current.policy, &policy, recent)).await?;
    Ok(api::CheckPolicyResponse {
        warnings: warning_messages(warnings, &request.rules),
        changes: changes.listed,
        more_changes: changes.more,
        revision,
        recent_uses: changes.recent_uses,
        recent_uses_denied: changes.recent_uses_denied,
    })
}

/// A policy that somebody wants to set.
struct Draft {
    document: Document,
    policy: Policy,
    catalog: Catalog,
    warnings: Vec<Warning>,
}

impl Draft {
    async fn read<H: PolicyHost + ?Sized>(
        host: &H,
        permit: &Permit,
        default: &str,
        rules: &[api::Rule],
    ) -> Result<Self, Problem> {
        let document = messages::document(default, rules).map_err(problem)?;
        let policy = Policy::new(host.policy_spec(), document.clone()).map_err(problem)?;
        host.check_draft(permit, &policy)?;
        let catalog = host.catalog().await?;
        compute(move || {
            let warnings = catalog.warnings(&policy);
            Self { document, policy, catalog, warnings }
        })
        .await
    }
}

/// Does what takes long where it keeps nobody else waiting.
async fn compute<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    let place = PLACES.acquire().await.map_err(|error| Problem::internal(&error))?;
    // The place is kept until the work has ended, even if nobody waits for it any more.
    let done = tokio::task::spawn_blocking(move || {
        let done = work();
        drop(place);
        done
    });
    done.await.map_err(|error| Problem::internal(&error))
}

/// How many compute at the same time: other requests have the rest of the machine.
static PLACES: Semaphore = Semaphore::const_new(1);

/// Stores a document with its audit entry, and puts it in force in the order in which it was stored.
async fn store_document<H: PolicyHost + ?Sized>(
    host: &H,
    permit: Permit,
    document: Document,
    policy: Policy,
    expected: i64,
) -> Result<Arc<Current>, Problem> {
    let (created_at, actor) = (host.policy_clock().unix_s(), permit.context().principal.name());
    let text = serde_json::to_vec(&document).expect("a policy can be written as JSON");
    let rules = match document.rules.len() {
        1 => "1 rule".to_owned(),
        several => format!("{several} rules"),
    };
    let detail = format!("{rules}, SHA-256 {}", hex(digest(&SHA256, &text).as_ref()));
    let event = Event::from(permit).with_detail(detail);
    let work = move |db: &Connection, event: &mut Event| match store::set(
        db, expected, &document, created_at, &actor,
    )? {
        Stored::As(revision) => {
            H::check_stored(db, &policy)?;
            event.target = format!("revision {revision}");
            Ok(Some(Arc::new(Current { policy, revision, created_at, actor })))
        }
        Stored::Unchanged => {
            event.unchanged();
            Ok(None)
        }
        Stored::Conflict { current } => Err(conflict(current).into()),
    };
    let in_force = host.policy().clone();
    let follow = move |stored: &Option<Arc<Current>>| {
        if let Some(current) = stored {
            in_force.0.store(Arc::clone(current));
        }
    };
    let stored = host.policy_database().change_then(event, work, follow).await?;
    Ok(stored.unwrap_or_else(|| host.policy().load()))
}

async fn explain<H: PolicyHost + ?Sized>(
    host: &H,
    request: api::ExplainPolicyRequest,
) -> Result<api::ExplainPolicyResponse, Problem> {
    let name = messages::field("account", Name::parse(&request.account)).map_err(problem)?;
    let given = messages::list("resource_tags", &request.resource_tags, Name::parse).map_err(problem)?;
    let spec = host.policy_spec();
    let operation = operation(spec, request.operation.as_deref())?;
    if request.resource.is_empty() {
        return Err(Problem::field(
            "resource",
            format!("is empty; expected the name of a {}", spec.resource_noun.one),
        ));
    }
    let draft = request.draft.as_ref().map(|draft| {
        let invalid =
            |invalid: InvalidField| Problem::field(format!("draft.{}", invalid.field), invalid.problem);
        let document = messages::document(&draft.default, &draft.rules).map_err(invalid)?;
        Policy::new(spec, document).map_err(invalid)
    });
    let draft = draft.transpose()?;
    let described = described(&name, request.account_type.as_deref(), &request.roles)?;
    let (known, registered_tags) = host.look_up(&name, &request.resource).await?;
    let Some(account) = described.or(known) else {
        let detail =
            format!("There is no account `{name}` here; state `account_type` and `roles` to describe one.");
        return Err(Problem { field: Some("account".to_owned()), ..Problem::not_found(detail) });
    };
    if request.resource.len() > MAX_RESOURCE_BYTES {
        let problem = format!("has {} bytes; expected at most {MAX_RESOURCE_BYTES}", request.resource.len());
        return Err(Problem::field("resource", problem));
    }
    let noun = spec.resource_noun.one;
    let warning = registered_tags.is_none().then(|| api::Warning {
        field: "resource".to_owned(),
        value: request.resource.clone(),
        message: format!("there is no {noun} `{}`. Only the tags given here are used", request.resource),
    });
    let registered_tags = registered_tags.unwrap_or_default();
    let use_registered = given.is_empty() && request.registered_tags.unwrap_or(true);
    let resource_tags = if use_registered { registered_tags } else { given.into_iter().collect() };
    let current = host.policy().load();
    compute(move || {
        let resource = &request.resource;
        let question = Question { account: &account, resource, resource_tags: &resource_tags, operation };
        let policy = draft.as_ref().unwrap_or(&current.policy);
        let tags = resource_tags.iter().map(ToString::to_string).collect();
        let warnings = warning.into_iter().collect();
        api::ExplainPolicyResponse {
            warnings,
            ..explanation_message(policy, policy.explain(&question), tags)
        }
    })
    .await
}

/// A longer name of a resource is refused: matching takes time that grows with its length, for each pattern.
const MAX_RESOURCE_BYTES: usize = 1024;

fn operation(spec: &PolicySpec, word: Option<&str>) -> Result<&'static str, Problem> {
    let known = || super::explain::list(spec.operations.iter().map(|word| format!("`{word}`")), "or");
    match (word, spec.operations) {
        (None, [only]) => Ok(only),
        (None, _) => Err(Problem::field("operation", format!("is missing; expected {}", known()))),
        (Some(word), all) => {
            let found = all.iter().copied().find(|operation| *operation == word);
            found.ok_or_else(|| {
                Problem::field("operation", format!("is not an operation; expected {}", known()))
            })
        }
    }
}

/// An account as the request describes it.
fn described(name: &Name, account_type: Option<&str>, roles: &[String]) -> Result<Option<Account>, Problem> {
    let parsed = account_type.map(str::parse::<AccountType>).transpose();
    let account_type = messages::field("account_type", parsed).map_err(problem)?;
    let roles = messages::list("roles", roles, str::parse::<Role>).map_err(problem)?;
    match account_type {
        Some(AccountType::Human) => {
            Ok(Some(Account::Human { name: name.clone(), roles: roles.into_iter().collect() }))
        }
        Some(AccountType::System) if roles.is_empty() => Ok(Some(Account::System { name: name.clone() })),
        Some(AccountType::System) => {
            Err(Problem::field("roles", "are for people: a system account has none"))
        }
        None if roles.is_empty() => Ok(None),
        None => Err(Problem::field("roles", "describe an account: `account_type` is needed as well")),
    }
}

async fn list_revisions<H: PolicyHost + ?Sized>(
    host: &H,
    request: api::ListPolicyRevisionsRequest,
) -> Result<api::ListPolicyRevisionsResponse, Problem> {
    let limit = match request.limit.unwrap_or(100) {
        limit @ 1..=1000 => limit,
        other => return Err(Problem::field("limit", format!("{other} is out of range; expected 1 to 1000"))),
    };
    let wrong = |_| Problem::field("before", "is not a cursor: send `next` of the page before");
    let before = request.before.as_deref().map(str::parse::<i64>).transpose().map_err(wrong)?;
    // One more than asked for: so it is known whether there is another page.
    let read = move |db: &Connection| store::list(db, before.unwrap_or(i64::MAX), limit + 1);
    let mut found = host.policy_database().read(read).await?;
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next = found.last().filter(|_| more).map(|last| last.revision.to_string());
    Ok(api::ListPolicyRevisionsResponse { revisions: found.into_iter().map(summary_message).collect(), next })
}

async fn revision<H: PolicyHost + ?Sized>(host: &H, field: &str, number: i64) -> Result<Revision, Problem> {
    let found = host.policy_database().read(move |db| store::get(db, number)).await?;
    found.ok_or_else(|| Problem {
        field: Some(field.to_owned()),
        ..Problem::not_found(format!("The policy has no revision {number}."))
    })
}

fn problem(invalid: InvalidField) -> Problem {
    Problem::field(invalid.field, invalid.problem)
}

fn conflict(current: i64) -> Problem {
    let detail = format!("is not the current one: somebody else changed it; revision {current} is in force");
    Problem { field: Some("revision".to_owned()), ..Problem::new(Kind::Changed, "changed", detail) }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
