//! Tokens of system accounts.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use mc_api::client::Connection;
use mc_api::mcias::accounts_client::AccountsClient;
use mc_api::mcias::{
    IssueTokenRequest, ListAccountsRequest, ListTokensRequest, RevokeTokenRequest, Token as Message,
};
use mcdsl::Secret;
use mcdsl::clock::Clock;
use mcdsl::ctl::{Column, Ctl, Error, create_token_file, join_or, parse_lifetime, when, when_or_dash};
use serde_json::json;

use super::print_changed;

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Issue a token; it is shown only once
    #[command(
        after_help = "Example:\n  mciasctl token issue mcr --label rift --lifetime 90d --out /srv/mcr/mcias.token"
    )]
    Issue(Issue),
    /// List the tokens of an account, expired and revoked ones included
    List {
        /// System account
        name: String,
    },
    /// Revoke a token
    Revoke {
        /// System account
        name: String,
        /// Token
        id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Issue {
    /// System account
    name: String,
    /// What the token is for, or where it is kept
    #[arg(long)]
    label: String,
    /// Service that the token is valid for; repeat for several [default: MCIAS]
    #[arg(long, value_name = "SERVICE")]
    audience: Vec<String>,
    /// Lifetime: 90d, 12h [default: 365d]
    #[arg(long, value_name = "DURATION", value_parser = parse_lifetime)]
    lifetime: Option<i64>,
    /// Write the token to a new file of mode 0600 instead of printing it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) async fn run(
    ctl: &mut Ctl<'_>,
    mut accounts: AccountsClient<Connection>,
    command: Token,
) -> Result<(), Error> {
    match command {
        Token::Issue(arguments) => issue(ctl, accounts, arguments).await,
        Token::List { name } => {
            let found = accounts.list_tokens(ListTokensRequest { name }).await?.into_inner().tokens;
            list(ctl, &found)
        }
        Token::Revoke { name, id } => {
            ctl.confirm(&format!("Revoke token {id} of {name}?"))?;
            let changed = accounts.revoke_token(RevokeTokenRequest { name, id }).await?.into_inner();
            print_changed(ctl, &changed, "Token revoked", "The token was already revoked")
        }
    }
}

fn list(ctl: &mut Ctl<'_>, found: &[Message]) -> Result<(), Error> {
    let now = Clock::system().unix_s();
    let state = |token: &Message| match token.revoked_at {
        Some(_) => "revoked",
        None if token.expires_at <= now => "expired",
        None => "valid",
    };
    let columns = [
        Column::exact("ID"),
        Column::text("LABEL"),
        Column::state("STATE"),
        Column::text("AUDIENCE").rank(3),
        Column::exact("CREATED").rank(5),
        Column::exact("EXPIRES").rank(1),
        Column::exact("LAST USED").rank(2),
        Column::exact("REVOKED").rank(6),
        Column::text("ISSUED BY").rank(4),
    ];
    let cells = |token: &Message| {
        [
            token.id.clone(),
            token.label.clone(),
            state(token).to_owned(),
            join_or(&token.audience, "all"),
            when(token.created_at),
            when(token.expires_at),
            when_or_dash(token.last_used_at),
            when_or_dash(token.revoked_at),
            token.issued_by.clone(),
        ]
    };
    Ok(ctl.printer.rows(found, columns, cells)?)
}

async fn issue(
    ctl: &mut Ctl<'_>,
    mut accounts: AccountsClient<Connection>,
    Issue { name, label, audience, lifetime, out }: Issue,
) -> Result<(), Error> {
    // Before a token is issued that would be lost.
    if let Some(out) = out.as_ref().filter(|out| out.exists()) {
        return Err(Error::usage(format!("{} exists: name a new file", out.display())));
    }
    for service in unknown_services(&mut accounts, &audience).await? {
        ctl.note(&format!("Warning: no system account acts for the service `{service}`: check its name"));
    }
    let request = IssueTokenRequest { name: name.clone(), label, audience, lifetime_seconds: lifetime };
    let issued = accounts.issue_token(request).await?.into_inner();
    let secret = Secret::from(issued.token);
    let details = issued.details.unwrap_or_default();
    let mut json = json!(details);
    let mut lines = vec![
        ("id", details.id.clone()),
        ("label", details.label.clone()),
        ("audience", join_or(&details.audience, "all")),
        ("expires", when(details.expires_at)),
    ];
    match &out {
        Some(out) => {
            if let Err(error) = create_token_file(out, &secret) {
                // Nobody has it.
                accounts.revoke_token(RevokeTokenRequest { name, id: details.id }).await?;
                return Err(error);
            }
            lines.push(("written to", out.display().to_string()));
        }
        None => {
            json["token"] = secret.expose().into();
            lines.push(("token", secret.expose().to_owned()));
        }
    }
    Ok(ctl.printer.record(&json, &lines)?)
}

/// The services of an audience that no system account acts for: perhaps mistyped.
async fn unknown_services(
    accounts: &mut AccountsClient<Connection>,
    audience: &[String],
) -> Result<Vec<String>, Error> {
    // MCIAS itself needs no account.
    let mut unknown: Vec<String> = audience.iter().filter(|name| *name != "mcias").cloned().collect();
    let account_type = Some("system".to_owned());
    let mut request = ListAccountsRequest { limit: Some(1000), after: None, account_type, contains: None };
    while !unknown.is_empty() {
        let page = accounts.list_accounts(request.clone()).await?.into_inner();
        let is_of =
            |name: &String| page.accounts.iter().any(|account| account.service.as_ref() == Some(name));
        unknown.retain(|name| !is_of(name));
        request.after = page.next;
        if request.after.is_none() {
            break;
        }
    }
    Ok(unknown)
}
