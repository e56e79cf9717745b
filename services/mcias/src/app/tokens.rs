//! Tokens of system accounts: several at a time, each with a label, so that one can replace the other without a gap.

use mc_api::mcias as api;
use mcdsl::audit::Event;
use mcdsl::permit::Permit;
use mcdsl::problem::Problem;
use uuid::Uuid;

use super::accounts::{by_name, conflict, missing};
use super::login::add_signed;
use super::{Mcias, messages};
use crate::config::LONGEST;
use crate::domain::{Account, Name};
use crate::store;
use crate::store::tokens::{Kind as TokenKind, StoredToken};

impl Mcias {
    /// Issues a token.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn issue_token(
        &self,
        permit: Permit,
        request: api::IssueTokenRequest,
    ) -> Result<api::IssuedToken, Problem> {
        let api::IssueTokenRequest { name, label, audience, lifetime_seconds } = request;
        let label = messages::label("label", &label)?;
        let audience = self.audience(&audience)?;
        let lifetime = lifetime_seconds.unwrap_or(self.config.tokens.service_s);
        if !(60..=LONGEST).contains(&lifetime) {
            let detail = format!("{lifetime} is out of range; expected 60 to {LONGEST}");
            return Err(Problem::field("lifetime_seconds", detail));
        }
        let now = self.now();
        let found = {
            let name = name.clone();
            self.read(move |db| store::accounts::by_name(db, &name)).await?
        };
        let account = found.ok_or_else(|| missing(&name))?;
        let Account::System { name } = account.account.clone() else {
            return Err(Problem::field("name", format!("`{name}` is a person's account: people log in")));
        };
        // A token that would be refused wherever it is sent is not issued.
        if !account.enabled {
            return Err(disabled(&name));
        }
        if let Err(problem) = self.allowed_at(&account.account, &audience).await? {
            return Err(self.db.refuse(permit, problem).await);
        }
        let mut stored = StoredToken {
            id: Uuid::new_v4().to_string(),
            account: account.id,
            kind: TokenKind::Issued,
            audience: audience.iter().map(ToString::to_string).collect(),
            label,
            origin: permit.require_identity()?.account.name().to_string(),
            source: permit.context().client.ip().to_string(),
            created_at: now,
            expires_at: now + lifetime,
            revoked_at: None,
            last_used_at: None,
            device: String::new(),
            key_id: None,
        };
        let client = account.service.as_ref().map_or(name.as_str(), Name::as_str).to_owned();
        let signed = self.sign(&account, &mut stored, &client);
        let kept = stored.clone();
        let event = Event::from(permit).with_detail(format!("{} ({})", stored.label, stored.id));
        self.change(event, move |db, _event| {
            // It may have been deleted meanwhile, and another one created; or disabled.
            let current = by_name(db, name.as_str())?;
            if current.id != kept.account {
                return Err(missing(name.as_str()).into());
            }
            if !current.enabled {
                return Err(disabled(&name).into());
            }
            add_signed(db, &kept)
        })
        .await?;
        Ok(api::IssuedToken { token: signed.expose().to_owned(), details: Some(messages::token(stored)) })
    }

    /// Tokens of a system account, expired and revoked ones included.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn list_tokens(
        &self,
        _permit: Permit,
        request: api::ListTokensRequest,
    ) -> Result<api::ListTokensResponse, Problem> {
        let (name, now) = (request.name, self.now());
        let found = self.read(move |db| {
            let Some(stored) = store::accounts::by_name(db, &name)? else { return Ok(Err(missing(&name))) };
            store::tokens::of(db, stored.id, TokenKind::Issued, now).map(Ok)
        });
        Ok(api::ListTokensResponse { tokens: found.await??.into_iter().map(messages::token).collect() })
    }

    /// Revokes a token: within 30 s no service accepts it any more.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn revoke_token(
        &self,
        permit: Permit,
        request: api::RevokeTokenRequest,
    ) -> Result<api::Changed, Problem> {
        let (api::RevokeTokenRequest { name, id }, now) = (request, self.now());
        self.change(Event::from(permit).with_detail(id.as_str()), move |db, event| {
            let stored = by_name(db, &name)?;
            if store::tokens::revoke(db, stored.id, TokenKind::Issued, &id, now)? {
                return Ok(messages::changed(event, 1));
            }
            // Revoking twice is no error.
            match store::tokens::by_id(db, &id)?.filter(|token| token.account == stored.id) {
                Some(_) => Ok(messages::changed(event, 0)),
                None => Err(Problem::not_found(format!("`{name}` has no token `{id}`.")).into()),
            }
        })
        .await
    }
}

fn disabled(name: &Name) -> Problem {
    conflict("account-disabled", format!("`{name}` is disabled: enable it first."))
}
