//! The operations over a service that knows two accounts and two repositories.

use tempfile::TempDir;

use super::*;
use crate::audit::{Outcome, TABLE as AUDIT};
use crate::db::{Database, Schema};
use crate::policy::{Effect, Noun};

static SPEC: PolicySpec = PolicySpec {
    resource_noun: Noun { one: "repository", many: "repositories" },
    operations: &["pull", "push"],
    separators: "/",
    admin_bypass: false,
    max_rules: 10,
};

const FIRST: &str = r#"INSERT INTO policy_revisions VALUES (1, '{"default":"deny","rules":[]}', 5, '-');"#;

const SCHEMA: Schema = Schema { application_id: 0x7465_7374, migrations: &[AUDIT, store::TABLE, FIRST] };

struct Registry {
    db: AuditedDatabase,
    clock: Clock,
    policy: InForce,
    knows_accounts: bool,
    _folder: TempDir,
}

impl PolicyHost for Registry {
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
        let catalog = self.catalog().await?;
        let account = catalog.accounts.iter().flatten().find(|known| known.name() == account).cloned();
        let resource = catalog.resources.iter().flatten().find(|known| known.name == resource);
        Ok((account, resource.map(|resource| resource.tags.clone())))
    }

    async fn recent_uses(&self) -> Result<Vec<RecentUse>, Problem> {
        let used = |operation, count| RecentUse {
            account: name("bob"),
            resource: "team/app".to_owned(),
            operation,
            count,
        };
        Ok(vec![used("pull", 2), used("push", 5)])
    }

    async fn catalog(&self) -> Result<Catalog, Problem> {
        let roles = [Role::User].into_iter().collect();
        let accounts =
            vec![Account::Human { name: name("bob"), roles }, Account::System { name: name("mcq") }];
        let tags = [name("prod")].into_iter().collect();
        let resources = vec![
            Resource { name: "team/app".to_owned(), tags },
            Resource { name: "mcq/base".to_owned(), tags: BTreeSet::new() },
        ];
        Ok(Catalog { accounts: self.knows_accounts.then_some(accounts), resources: Some(resources) })
    }

    fn check_draft(&self, _permit: &Permit, draft: &Policy) -> Result<(), Problem> {
        let is_refused = draft.rules().iter().any(|rule| rule.name.as_str() == "refused");
        if is_refused { Err(Problem::forbidden("No.")) } else { Ok(()) }
    }

    fn check_stored(_db: &Connection, draft: &Policy) -> Result<(), Fault> {
        let is_refused = draft.rules().iter().any(|rule| rule.name.as_str() == "refused-late");
        if is_refused { Err(Problem::new(Kind::FailedPrecondition, "late", "No.").into()) } else { Ok(()) }
    }
}

async fn registry() -> Registry {
    let folder = tempfile::tempdir().unwrap();
    let db = Database::open(&folder.path().join("test.db"), &SCHEMA, 1).unwrap();
    let policy = db.read(|db| Ok(InForce::load_from(db, &SPEC).unwrap())).await.unwrap();
    let clock = Clock::system();
    let db = AuditedDatabase::new(db, clock.clone(), name("mcr"), |_db, _context, _now| Ok(()));
    Registry { db, clock, policy, knows_accounts: true, _folder: folder }
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn permit() -> Permit {
    Permit::for_job("test", "policy.set")
}

fn rule(name: &str, effect: &str, resource: &str) -> api::Rule {
    api::Rule {
        name: name.to_owned(),
        priority: 1,
        effect: effect.to_owned(),
        resources: vec![resource.to_owned()],
        ..api::Rule::default()
    }
}

fn request(revision: i64, rules: &[api::Rule]) -> api::SetPolicyRequest {
    api::SetPolicyRequest { default: "deny".to_owned(), rules: rules.to_vec(), revision }
}

impl Registry {
    async fn set(&self, revision: i64, rules: &[api::Rule]) -> Result<api::SetPolicyResponse, Problem> {
        self.set_policy(permit(), request(revision, rules)).await
    }

    /// `target` of each audit entry, oldest first.
    async fn audited(&self) -> Vec<String> {
        let read = |db: &Connection| {
            let mut select = db.prepare("SELECT target FROM audit WHERE outcome = ?1 ORDER BY number")?;
            select.query_map([Outcome::Done.as_str()], |row| row.get(0))?.collect()
        };
        self.db.read(read).await.unwrap()
    }

    fn decides(&self, resource: &str) -> Effect {
        let (account, resource_tags) = (Account::System { name: name("mcq") }, BTreeSet::new());
        let question =
            Question { account: &account, resource, resource_tags: &resource_tags, operation: "pull" };
        self.policy.load().policy.decide(&question)
    }

    async fn explain(&self, change: impl FnOnce(&mut api::ExplainPolicyRequest)) -> Result<String, Problem> {
        let mut request = api::ExplainPolicyRequest {
            account: "bob".to_owned(),
            resource: "team/app".to_owned(),
            operation: Some("push".to_owned()),
            ..api::ExplainPolicyRequest::default()
        };
        change(&mut request);
        let answer = self.explain_policy(permit(), request).await?;
        let reasons: Vec<_> =
            answer.examined.iter().map(|it| format!("{}: {}", it.name, it.reason)).collect();
        Ok(format!(
            "{} by {} [{}] {}",
            answer.effect,
            answer.decided_by,
            answer.resource_tags.join(","),
            reasons.join("; ")
        ))
    }
}

#[tokio::test]
async fn a_policy_is_replaced_on_top_of_the_expected_revision_only() {
    let registry = registry().await;
    assert_eq!(registry.decides("mcq/base"), Effect::Deny);
    let rules = [rule("own", "allow", "{account}/**")];
    let response = registry.set(1, &rules).await.unwrap();
    let policy = response.policy.unwrap();
    assert_eq!((policy.revision, response.revision, policy.actor.as_str()), (2, 2, "job test"));
    assert_eq!(policy.rules, rules);
    assert_eq!(registry.decides("mcq/base"), Effect::Allow);
    let problem = registry.set(1, &[]).await.unwrap_err();
    assert_eq!((problem.kind, problem.field.as_deref()), (Kind::Changed, Some("revision")));
    assert!(problem.detail.contains("revision 2"), "{}", problem.detail);
    assert_eq!(registry.decides("mcq/base"), Effect::Allow);
    assert_eq!(registry.get_policy(permit(), api::GetPolicyRequest {}).await.unwrap(), policy);
    // What changes nothing is no revision and no entry.
    assert_eq!(registry.set(2, &rules).await.unwrap().revision, 2);
    assert_eq!(registry.audited().await, ["revision 2"]);
}

#[tokio::test]
async fn a_refused_draft_changes_nothing() {
    let registry = registry().await;
    for refused in ["refused", "refused-late"] {
        registry.set(1, &[rule(refused, "allow", "**")]).await.unwrap_err();
    }
    let mut invalid = rule("a", "allow", "a b");
    let problem = registry.set(1, &[rule("b", "allow", "b"), invalid.clone()]).await.unwrap_err();
    assert_eq!(problem.field.as_deref(), Some("rules[1].resources[0]"));
    invalid.resources.clear();
    let problem = registry.set(1, &[invalid.clone(), invalid]).await.unwrap_err();
    assert_eq!(problem.field.as_deref(), Some("rules[1].name"));
    assert_eq!(registry.decides("mcq/base"), Effect::Deny);
    let revisions =
        registry.list_policy_revisions(permit(), api::ListPolicyRevisionsRequest::default()).await;
    assert_eq!(revisions.unwrap().revisions.len(), 1);
    assert_eq!(registry.audited().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_check_says_what_would_change_and_changes_nothing() {
    let registry = registry().await;
    let mut rules = vec![rule("team", "allow", "team/*"), rule("gone", "deny", "gone")];
    rules[0].accounts = vec!["bob".to_owned(), "eve".to_owned()];
    let check = |revision, rules: &[api::Rule]| {
        let request = api::CheckPolicyRequest { default: "deny".to_owned(), rules: rules.to_vec(), revision };
        registry.check_policy(permit(), request)
    };
    let response = check(Some(1), &rules).await.unwrap();
    let lines: Vec<_> = response.warnings.iter().map(|it| format!("{}: {}", it.field, it.message)).collect();
    assert_eq!(
        lines,
        [
            "rules[1].resources[0]: there is no repository `gone`",
            "rules[0].accounts[1]: there is no account `eve`"
        ]
    );
    let lines: Vec<_> = response
        .changes
        .iter()
        .map(|it| format!("{} {} {}: {} {}", it.account, it.operation, it.resource, it.before, it.after))
        .collect();
    assert_eq!(lines, ["bob push team/app: deny allow", "bob pull team/app: deny allow"]);
    assert_eq!((response.recent_uses, response.recent_uses_denied), (7, 0));
    assert!(!response.more_changes);
    assert_eq!((response.revision, registry.policy.load().revision), (1, 1));
    assert_eq!(check(Some(7), &rules).await.unwrap_err().kind, Kind::Changed);
    assert_eq!(check(None, &rules).await.unwrap().changes.len(), 2);
    // Once they are allowed, a policy without the rule denies what was used.
    registry.set(1, &rules).await.unwrap();
    let response = check(Some(2), &[]).await.unwrap();
    assert_eq!((response.recent_uses_denied, response.changes[0].recent_uses), (7, 5));
    assert_eq!(check(None, &[rule("refused", "allow", "x")]).await.unwrap_err().kind, Kind::Forbidden);
}

#[tokio::test]
async fn an_explanation_is_of_what_the_service_knows() {
    let mut registry = registry().await;
    let mut rules = vec![rule("prod", "allow", "team/*")];
    rules[0].roles = vec!["user".to_owned()];
    rules[0].resource_tags = vec!["prod".to_owned()];
    registry.set(1, &rules).await.unwrap();
    let known = registry.explain(|_| ()).await.unwrap();
    assert_eq!(
        known,
        "allow by rule [prod] prod: bob has role user; the repository is team/app; the repository is tagged prod"
    );
    let other_tags =
        registry.explain(|request| request.resource_tags = vec!["test".to_owned()]).await.unwrap();
    assert_eq!(other_tags, "deny by default [test] prod: The repository is not tagged prod");
    let no_tags = registry.explain(|request| request.registered_tags = Some(false)).await.unwrap();
    assert_eq!(no_tags, "deny by default [] prod: The repository is not tagged prod");
    let described = |request: &mut api::ExplainPolicyRequest| {
        request.account = "eve".to_owned();
        request.account_type = Some("human".to_owned());
        request.roles = vec!["guest".to_owned()];
    };
    assert_eq!(
        registry.explain(described).await.unwrap(),
        "deny by default [prod] prod: eve has role guest, not user"
    );
    let request = |resource: &str| api::ExplainPolicyRequest {
        account: "bob".to_owned(),
        resource: resource.to_owned(),
        operation: Some("push".to_owned()),
        ..api::ExplainPolicyRequest::default()
    };
    assert!(registry.explain_policy(permit(), request("team/app")).await.unwrap().warnings.is_empty());
    let unknown = registry.explain_policy(permit(), request("team/nothing")).await.unwrap().warnings;
    assert!(unknown[0].field == "resource" && unknown[0].message.contains("no repository"), "{unknown:?}");
    let draft = api::PolicyDraft { default: "allow".to_owned(), rules: Vec::new() };
    assert_eq!(
        registry.explain(|request| request.draft = Some(draft)).await.unwrap(),
        "allow by default [prod] "
    );

    let draft = api::PolicyDraft { default: "allow".to_owned(), rules: vec![rule("a", "no", "x")] };
    let field = |result: Result<String, Problem>| result.unwrap_err().field.unwrap();
    assert_eq!(field(registry.explain(|request| request.draft = Some(draft)).await), "draft.rules[0].effect");
    assert_eq!(field(registry.explain(|request| request.account = "eve".to_owned()).await), "account");
    assert_eq!(field(registry.explain(|request| request.operation = None).await), "operation");
    assert_eq!(
        field(registry.explain(|request| request.operation = Some("fly".to_owned())).await),
        "operation"
    );
    assert_eq!(field(registry.explain(|request| request.resource.clear()).await), "resource");
    let long = "a".repeat(1025);
    assert_eq!(field(registry.explain(|request| request.resource = long).await), "resource");
    assert_eq!(field(registry.explain(|request| request.roles = vec!["user".to_owned()]).await), "roles");
    registry.knows_accounts = false;
    assert_eq!(field(registry.explain(|_| ()).await), "account");
    assert!(registry.explain(described).await.is_ok());
}

#[tokio::test]
async fn every_revision_can_be_listed_read_and_compared() {
    let registry = registry().await;
    registry.set(1, &[rule("a", "allow", "a")]).await.unwrap();
    registry.set(2, &[rule("a", "deny", "a"), rule("b", "allow", "b")]).await.unwrap();
    let page = |before: Option<String>| {
        registry.list_policy_revisions(permit(), api::ListPolicyRevisionsRequest { limit: Some(2), before })
    };
    let first = page(None).await.unwrap();
    let last = page(first.next.clone()).await.unwrap();
    let numbers = |list: &api::ListPolicyRevisionsResponse| -> Vec<_> {
        list.revisions.iter().map(|it| (it.revision, it.rules)).collect()
    };
    assert_eq!((numbers(&first), numbers(&last)), (vec![(3, 2), (2, 1)], vec![(1, 0)]));
    assert_eq!((first.next.as_deref(), last.next), (Some("2"), None));
    assert_eq!(page(Some("x".to_owned())).await.unwrap_err().field.as_deref(), Some("before"));

    let get = |revision| registry.get_policy_revision(permit(), api::GetPolicyRevisionRequest { revision });
    assert_eq!(get(2).await.unwrap().rules, [rule("a", "allow", "a")]);
    let problem = get(9).await.unwrap_err();
    assert_eq!((problem.kind, problem.field.as_deref()), (Kind::NotFound, Some("revision")));

    let found = registry.diff_policy(permit(), api::DiffPolicyRequest { from: 2, to: None }).await.unwrap();
    assert_eq!((found.from, found.to, &*found.added), (2, 3, &[rule("b", "allow", "b")][..]));
    assert_eq!((found.changed[0].name.as_str(), found.changed[0].fields[0].field.as_str()), ("a", "effect"));
    let problem =
        registry.diff_policy(permit(), api::DiffPolicyRequest { from: 2, to: Some(9) }).await.unwrap_err();
    assert_eq!(problem.field.as_deref(), Some("to"));
}
