//! The commands of the people who ask MCAT: `explain`, `draft` and `whoami`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use mc_api::client::Connection;
use mc_api::mcat::tester_client::TesterClient;
use mc_api::mcat::{CheckDraftRequest, Context, Decisions, ExplainRequest, ExplainResponse};
use mcdsl::ctl::{Ctl, Error, join_or, policy};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Explain what the login policy decides for you at a service
    #[command(
        after_help = "Examples:\n  {ctl} explain mcr\n  {ctl} explain mcr --tag test --other mcr --other-tag prod\n  {ctl} explain mcr --draft policy.toml"
    )]
    Explain(Explain),
    /// Show what a draft would change for everybody, and which logins of the last 30 days it would have denied; for admins
    #[command(after_help = "Example:\n  mciasctl policy export > policy.toml\n  {ctl} draft policy.toml")]
    Draft {
        /// File: TOML, as `mciasctl policy export` prints it, or JSON
        file: PathBuf,
    },
    /// Show the account that is logged in, and the claims of its token
    Whoami,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// Service
    service: String,
    /// Tag of the service, instead of those that it is registered with; repeat for several
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Take the service to have no tags
    #[arg(long, conflicts_with = "tags")]
    untagged: bool,
    /// Another service, or the same one under other tags, to compare with
    #[arg(long, value_name = "SERVICE")]
    other: Option<String>,
    /// Tag of the other service; repeat for several
    #[arg(long = "other-tag", value_name = "TAG", requires = "other")]
    other_tags: Vec<String>,
    /// Take the other service to have no tags
    #[arg(long, conflicts_with = "other_tags", requires = "other")]
    other_untagged: bool,
    /// File with a policy to try beside the one in force: TOML, as `mciasctl policy export` prints it, or JSON
    #[arg(long, value_name = "FILE")]
    draft: Option<PathBuf>,
}

pub(crate) async fn run(ctl: &mut Ctl<'_>, command: Command) -> Result<(), Error> {
    match command {
        Command::Explain(asked) => {
            let draft = asked.draft.as_deref().map(policy::draft).transpose()?;
            let other = asked.other.map(|service| Context {
                service,
                service_tags: asked.other_tags,
                registered_tags: asked.other_untagged.then_some(false),
            });
            let request = ExplainRequest {
                service: asked.service,
                service_tags: asked.tags,
                registered_tags: asked.untagged.then_some(false),
                other,
                draft,
            };
            let explained = client(ctl).await?.explain(request).await?.into_inner();
            print(ctl, &explained)
        }
        Command::Draft { file } => {
            let draft = Some(policy::draft(&file)?);
            let checked = client(ctl).await?.check_draft(CheckDraftRequest { draft }).await?.into_inner();
            let check = checked.check.unwrap_or_default();
            policy::note_warnings(ctl, &check.warnings);
            policy::print_changes(ctl, &check)
        }
        Command::Whoami => {
            let request = ExplainRequest { service: "mcat".to_owned(), ..ExplainRequest::default() };
            let explained = client(ctl).await?.explain(request).await?.into_inner();
            let ExplainResponse { account, roles, claims, .. } = &explained;
            let claims: serde_json::Value = serde_json::from_str(claims).unwrap_or_default();
            let mut lines = vec![("name", account.clone()), ("roles", join_or(roles, "-"))];
            let named = claims.as_object().into_iter().flatten();
            lines.extend(named.map(|(name, value)| (name.as_str(), value.to_string())));
            let json = serde_json::json!({ "account": account, "roles": roles, "claims": claims });
            Ok(ctl.printer.record(&json, &lines)?)
        }
    }
}

async fn client(ctl: &Ctl<'_>) -> Result<TesterClient<Connection>, Error> {
    Ok(TesterClient::new(ctl.connect().await?))
}

/// The decisions below each other, each with its rules.
fn print(ctl: &mut Ctl<'_>, explained: &ExplainResponse) -> Result<(), Error> {
    let mut lines = vec![("account", explained.account.clone()), ("roles", join_or(&explained.roles, "-"))];
    let own = explained.decisions.iter().map(|it| ("", it));
    let other = explained.other.iter().map(|it| ("the other login, ", it));
    for (which, Decisions { in_force, draft }) in own.chain(other) {
        let both = [("policy in force", in_force), ("draft", draft)];
        for (policy, decision) in both.into_iter().filter_map(|(policy, it)| Some((policy, it.as_ref()?))) {
            lines.push(("decision of", format!("{which}{policy}")));
            lines.extend(policy::explained(decision, "service"));
            policy::note_warnings(ctl, &decision.warnings);
        }
    }
    lines.push(("claims", explained.claims.clone()));
    Ok(ctl.printer.record(explained, &lines)?)
}
