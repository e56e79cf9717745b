//! The policy's commands: the same for every service.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use mc_api::client::Connection;
use mc_api::policy::policy_client::PolicyClient;
use mc_api::policy::{
    CheckPolicyRequest, CheckPolicyResponse, DecisionChange, DiffPolicyRequest, DiffPolicyResponse,
    ExplainPolicyRequest, ExplainPolicyResponse, FieldChange, GetPolicyRequest, GetPolicyRevisionRequest,
    ListPolicyRevisionsRequest, PolicyDocument, PolicyDraft, PolicyRevision, Rule, SetPolicyRequest, Warning,
};

use super::{Column, Ctl, Error, join_or, when};
use crate::config::{self, Hints};

/// `policy` and what follows it.
#[derive(Debug, Subcommand)]
pub enum Policy {
    /// Show the policy in force, in the order in which its rules decide
    Show {
        /// Revision, instead of the one in force
        #[arg(long)]
        revision: Option<i64>,
    },
    /// Print the policy in force as TOML, for `set`
    Export,
    /// Replace the policy by a TOML file
    #[command(
        after_help = "Examples:\n  {ctl} policy export > policy.toml\n  {ctl} policy set --dry-run policy.toml"
    )]
    Set {
        /// File, with the `revision` that it was made from
        file: PathBuf,
        /// Only print what would change
        #[arg(long)]
        dry_run: bool,
    },
    /// Explain what the policy decides for an account and a resource
    #[command(after_help = "Example:\n  {ctl} policy explain bob mcr --draft policy.toml")]
    Explain {
        /// Account
        account: String,
        /// Resource: what the policy is about, such as a service of a login policy
        resource: String,
        /// Operation; not needed where there is only one
        #[arg(long)]
        operation: Option<String>,
        /// Tag of the resource, instead of those that it is registered with; repeat for several
        #[arg(long = "tag", value_name = "TAG")]
        tags: Vec<String>,
        /// File with a policy to explain instead of the one in force
        #[arg(long, value_name = "FILE")]
        draft: Option<PathBuf>,
    },
    /// List all revisions, newest first
    History,
    /// Show what differs between two revisions
    Diff {
        /// Earlier revision
        from: i64,
        /// Later revision [default: the one in force]
        to: Option<i64>,
    },
}

/// Runs one, for a policy about what `noun` says ("service"). `check_account` is an error for an account that does not exist.
///
/// # Errors
/// A file is not a policy; or the server refused, or cannot be reached.
pub async fn run(
    ctl: &mut Ctl<'_>,
    connection: Connection,
    noun: &str,
    check_account: impl AsyncFnOnce(String) -> Result<(), Error>,
    command: Policy,
) -> Result<(), Error> {
    let mut policy = PolicyClient::new(connection);
    match command {
        Policy::Show { revision: None } => {
            let found = policy.get_policy(GetPolicyRequest {}).await?.into_inner();
            print(ctl, &found, noun)
        }
        Policy::Show { revision: Some(revision) } => {
            let found = policy.get_policy_revision(GetPolicyRevisionRequest { revision }).await?.into_inner();
            print(ctl, &found, noun)
        }
        Policy::Export => {
            let found = policy.get_policy(GetPolicyRequest {}).await?.into_inner();
            let request = draft_of(found);
            Ok(ctl.printer.print(|| serde_json::json!(request), || export(&request))?)
        }
        Policy::Set { file, dry_run } => {
            let request = read(&file)?;
            if dry_run {
                let SetPolicyRequest { default, rules, revision } = request;
                let request = CheckPolicyRequest { default, rules, revision: Some(revision) };
                let checked = policy.check_policy(request).await?.into_inner();
                note_warnings(ctl, &checked.warnings);
                return print_changes(ctl, &checked);
            }
            let set = policy.set_policy(request).await?.into_inner();
            note_warnings(ctl, &set.warnings);
            print(ctl, &set.policy.unwrap_or_default(), noun)
        }
        Policy::Explain { account, resource, operation, tags, draft } => {
            let draft = draft.map(|file| self::draft(&file)).transpose()?;
            // An account that does not exist is an error here, not one of the request's fields.
            check_account(account.clone()).await?;
            let request = ExplainPolicyRequest {
                account,
                resource,
                operation,
                registered_tags: Some(tags.is_empty()),
                resource_tags: tags,
                draft,
                ..ExplainPolicyRequest::default()
            };
            let explanation = policy.explain_policy(request).await?.into_inner();
            note_warnings(ctl, &explanation.warnings);
            Ok(ctl.printer.record(&explanation, &explained(&explanation, noun))?)
        }
        Policy::History => history(ctl, policy).await,
        Policy::Diff { from, to } => {
            let found = policy.diff_policy(DiffPolicyRequest { from, to }).await?.into_inner();
            let text = diff(&found, noun);
            Ok(ctl.printer.print(|| serde_json::json!(found), || text)?)
        }
    }
}

fn draft_of(policy: PolicyDocument) -> SetPolicyRequest {
    SetPolicyRequest { default: policy.default, rules: policy.rules, revision: policy.revision }
}

/// What `set` reads: without empty lists, so that rules can be appended.
fn export(policy: &SetPolicyRequest) -> String {
    let mut tree = toml::Table::try_from(policy).expect("a policy can be written as TOML");
    let is_filled = |value: &mut toml::Value| value.as_array().is_none_or(|list| !list.is_empty());
    if let Some(toml::Value::Array(rules)) = tree.get_mut("rules") {
        for rule in rules.iter_mut().filter_map(toml::Value::as_table_mut) {
            rule.retain(|_key, value| is_filled(value));
        }
    }
    tree.retain(|_key, value| is_filled(value));
    toml::to_string(&tree).expect("a table can be written as TOML")
}

fn read(file: &Path) -> Result<SetPolicyRequest, Error> {
    let name = file.display().to_string();
    let text =
        crate::file::text(file).map_err(|error| Error::usage(format!("Cannot read {name}: {error}")))?;
    parse(&text, &name)
}

/// Reads a draft from a file: as `policy export` prints it, or the same as JSON.
///
/// # Errors
/// The file cannot be read, or is no policy.
pub fn draft(file: &Path) -> Result<PolicyDraft, Error> {
    let name = file.display().to_string();
    let text =
        crate::file::text(file).map_err(|error| Error::usage(format!("Cannot read {name}: {error}")))?;
    crate::draft::parse(&text, &name).map_err(Error::usage)
}

fn parse(text: &str, name: &str) -> Result<SetPolicyRequest, Error> {
    let hints = Hints { example: |_key| "", within: |_tree, _path| None };
    config::read(text, name, hints).map_err(|problem| Error::usage(problem.to_string()))
}

fn print(ctl: &mut Ctl<'_>, policy: &PolicyDocument, noun: &str) -> Result<(), Error> {
    let columns =
        [Column::number("PRIORITY"), Column::state("EFFECT"), Column::text("NAME"), Column::text("MATCHES")];
    let cells = |rule: &Rule| {
        [rule.priority.to_string(), rule.effect.clone(), rule.name.clone(), matches(rule, noun)]
    };
    let note = format!("Revision {}. If no rule matches: {}.\n", policy.revision, policy.default);
    Ok(ctl.printer.table(policy, &policy.rules, columns, cells, &note)?)
}

/// Tells of rules that probably do not do what they were written for.
pub fn note_warnings(ctl: &mut Ctl<'_>, warnings: &[Warning]) {
    for warning in warnings {
        ctl.note(&format!("Warning: {} ({}): {}", warning.field, warning.value, warning.message));
    }
}

/// Prints the decisions that a draft would change, and how many uses of the last 30 days it would have denied.
///
/// # Errors
/// The output fails.
pub fn print_changes(ctl: &mut Ctl<'_>, checked: &CheckPolicyResponse) -> Result<(), Error> {
    let columns = [
        Column::text("ACCOUNT"),
        Column::text("RESOURCE"),
        Column::text("OPERATION").rank(1),
        Column::state("BEFORE"),
        Column::state("AFTER"),
        Column::number("USED"),
    ];
    let cells = |change: &DecisionChange| {
        [
            change.account.clone(),
            change.resource.clone(),
            change.operation.clone(),
            change.before.clone(),
            change.after.clone(),
            change.recent_uses.to_string(),
        ]
    };
    let more = if checked.more_changes { "More decisions would change. " } else { "" };
    let used = match checked.recent_uses {
        0 => String::new(),
        all => format!(
            "Of {all} uses in the last 30 days, {} would have been denied. ",
            checked.recent_uses_denied
        ),
    };
    let note = format!("{used}{more}Nothing was changed.\n");
    Ok(ctl.printer.table(checked, &checked.changes, columns, cells, &note)?)
}

/// The conditions of a rule.
fn matches(rule: &Rule, noun: &str) -> String {
    let conditions = [
        ("role", &rule.roles),
        ("type", &rule.account_types),
        ("account", &rule.accounts),
        (noun, &rule.resources),
        ("tags", &rule.resource_tags),
        ("operation", &rule.operations),
    ];
    let filled = conditions.iter().filter(|(_, values)| !values.is_empty());
    let texts: Vec<_> = filled.map(|(name, values)| format!("{name}={}", values.join(","))).collect();
    if texts.is_empty() { "everything".to_owned() } else { texts.join(" ") }
}

/// A decision as names and values: what decided, what else matches, and every rule that was examined.
#[must_use]
pub fn explained(explanation: &ExplainPolicyResponse, noun: &str) -> Vec<(&'static str, String)> {
    let names = |rules: &[Rule]| rules.iter().map(|rule| rule.name.clone()).collect::<Vec<_>>();
    let decided_by = match &explanation.deciding_rule {
        Some(rule) => format!("rule {} ({})", rule.name, matches(rule, noun)),
        None if explanation.decided_by == "default" => "default: no rule matches".to_owned(),
        None => explanation.decided_by.clone(),
    };
    let mut lines = vec![
        ("effect", explanation.effect.clone()),
        ("decided by", decided_by),
        ("other matches", join_or(&names(&explanation.other_matches), "-")),
        ("resource tags", join_or(&explanation.resource_tags, "-")),
    ];
    let examined = explanation.examined.iter();
    lines.extend(
        examined.map(|rule| ("examined", format!("{} {}: {}", rule.priority, rule.name, rule.reason))),
    );
    lines
}

async fn history(ctl: &mut Ctl<'_>, mut policy: PolicyClient<Connection>) -> Result<(), Error> {
    let mut request = ListPolicyRevisionsRequest { limit: Some(1000), before: None };
    let mut found = Vec::new();
    loop {
        let page = policy.list_policy_revisions(request.clone()).await?.into_inner();
        found.extend(page.revisions);
        request.before = page.next;
        if request.before.is_none() {
            break;
        }
    }
    let columns = [
        Column::number("REVISION"),
        Column::exact("CREATED"),
        Column::text("ACTOR"),
        Column::number("RULES").rank(1),
        Column::state("DEFAULT").rank(2),
    ];
    let cells = |it: &PolicyRevision| {
        [
            it.revision.to_string(),
            when(it.created_at),
            it.actor.clone(),
            it.rules.to_string(),
            it.default.clone(),
        ]
    };
    Ok(ctl.printer.rows(&found, columns, cells)?)
}

/// A difference in the form of a diff.
fn diff(found: &DiffPolicyResponse, noun: &str) -> String {
    let rule = |sign: char, rule: &Rule| {
        format!("{sign} {} {} {} ({})\n", rule.priority, rule.effect, rule.name, matches(rule, noun))
    };
    let field = |change: &FieldChange| {
        format!("    {}: {} -> {}\n", change.field, join_or(&change.before, "-"), join_or(&change.after, "-"))
    };
    let mut text = format!("Revision {} -> {}\n", found.from, found.to);
    text.extend(found.default.iter().map(field));
    text.extend(found.removed.iter().map(|it| rule('-', it)));
    text.extend(found.added.iter().map(|it| rule('+', it)));
    for changed in &found.changed {
        text.push_str(&format!("~ {}\n", changed.name));
        text.extend(changed.fields.iter().map(field));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str) -> Rule {
        let accounts = vec!["bob".to_owned()];
        Rule { name: name.to_owned(), priority: 1, effect: "deny".to_owned(), accounts, ..Rule::default() }
    }

    #[test]
    fn the_example_of_the_docs_can_be_set() {
        let docs = include_str!("../../../../docs/mcias.md");
        let start = docs.find("revision = 1 ").expect("the docs have an example");
        let example = docs[start..].split("```").next().unwrap();
        let policy = parse(example, "docs").unwrap();
        assert_eq!(policy.rules.len(), 3);
        assert!(policy.rules.iter().all(|rule| !rule.name.is_empty() && rule.priority > 0));
    }

    #[test]
    fn an_exported_policy_can_be_set_and_needs_its_revision() {
        let document = PolicyDocument {
            default: "allow".to_owned(),
            rules: vec![rule("no-bob")],
            revision: 7,
            created_at: 1,
            actor: "ada".to_owned(),
        };
        let request = draft_of(document);
        let text = export(&request);
        assert_eq!(parse(&text, "policy.toml").unwrap(), request);
        let without = text.replace("revision = 7\n", "");
        let error = parse(&without, "policy.toml").unwrap_err().to_string();
        assert!(error.contains("revision"), "{error}");
    }

    #[test]
    fn a_diff_names_what_was_added_removed_and_changed() {
        let field = FieldChange {
            field: "accounts".to_owned(),
            before: vec![],
            after: vec!["bob".to_owned(), "eve".to_owned()],
        };
        let found = DiffPolicyResponse {
            from: 1,
            to: 2,
            default: None,
            added: vec![rule("new")],
            removed: vec![rule("old")],
            changed: vec![mc_api::policy::RuleChange { name: "kept".to_owned(), fields: vec![field] }],
        };
        let expect = "\
Revision 1 -> 2
- 1 deny old (account=bob)
+ 1 deny new (account=bob)
~ kept
    accounts: - -> bob,eve
";
        assert_eq!(diff(&found, "service"), expect);
    }
}
