//! Tokens of system accounts.

use std::path::PathBuf;

use mc_api::mcias::{IssueTokenRequest, ListTokensRequest, RevokeTokenRequest, Token as Message};
use mcdsl::Secret;
use serde_json::json;

use super::{Session, list_or, when, when_or_dash};
use crate::cli::Token;
use crate::error::Error;
use crate::token_file;

pub(super) async fn run(session: &mut Session<'_>, command: Token) -> Result<(), Error> {
    match command {
        Token::Issue { name, label, audience, lifetime, out } => {
            let request = IssueTokenRequest { name, label, audience, lifetime_seconds: lifetime };
            issue(session, request, out).await
        }
        Token::List { name } => {
            let found =
                session.client.accounts.list_tokens(ListTokensRequest { name }).await?.into_inner().tokens;
            let row = |token: &Message| {
                [
                    token.id.clone(),
                    token.label.clone(),
                    list_or(&token.audience, "all"),
                    when(token.created_at),
                    when(token.expires_at),
                    when_or_dash(token.last_used_at),
                    when_or_dash(token.revoked_at),
                    token.issued_by.clone(),
                ]
            };
            let head = ["ID", "LABEL", "FOR", "ISSUED", "UNTIL", "LAST USED", "REVOKED", "BY"];
            Ok(session.printer.rows(&found, head, row)?)
        }
        Token::Revoke { name, id } => {
            session.sure(&format!("Revoke this token of {name}?"))?;
            let request = RevokeTokenRequest { name, id };
            let changed = session.client.accounts.revoke_token(request).await?.into_inner();
            session.changed(&changed, "the token is revoked")
        }
    }
}

async fn issue(
    session: &mut Session<'_>,
    request: IssueTokenRequest,
    out: Option<PathBuf>,
) -> Result<(), Error> {
    // Found out before there is a token that nobody has.
    if let Some(out) = out.as_ref().filter(|out| out.exists()) {
        return Err(Error::Usage(format!("{} is there: name a new file", out.display())));
    }
    let name = request.name.clone();
    let issued = session.client.accounts.issue_token(request).await?.into_inner();
    let secret = Secret::from(issued.token);
    let details = issued.details.unwrap_or_default();
    let mut json = json!(details);
    let mut lines = vec![
        ("id", details.id.clone()),
        ("label", details.label.clone()),
        ("for", list_or(&details.audience, "all")),
        ("until", when(details.expires_at)),
    ];
    match &out {
        Some(out) => {
            if let Err(error) = token_file::write(out, &secret, true) {
                // A token that nobody has is good for nothing but to be found.
                let request = RevokeTokenRequest { name, id: details.id };
                session.client.accounts.revoke_token(request).await?;
                return Err(error);
            }
            lines.push(("written to", out.display().to_string()));
        }
        None => {
            json["token"] = secret.expose().into();
            lines.push(("token", secret.expose().to_owned()));
        }
    }
    Ok(session.printer.record(&json, &lines)?)
}
