//! Tokens of system accounts: several at a time, each with what it is called, so that one can follow the other without a gap.

use mc_api::mcias as api;
use mcdsl::problem::Problem;
use uuid::Uuid;

use super::accounts::by_name;
use super::event::Event;
use super::login::add_signed;
use super::{Ask, Mcias, messages};
use crate::config::LONGEST;
use crate::domain::{Account, Name};
use crate::store;
use crate::store::tokens::{Kind as TokenKind, StoredToken};

impl Mcias {
    /// Issues a token.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn issue_token(
        &self,
        ask: &Ask,
        name: String,
        token: api::NewToken,
    ) -> Result<api::IssuedToken, Problem> {
        let admin = self.admin(ask, "token.issue", &name).await?;
        let label = messages::label("token.label", &token.label)?;
        let audience: Vec<Name> = messages::names("token.audience", &token.audience)?;
        let lifetime = token.lifetime_seconds.unwrap_or(self.config.tokens.service_s);
        if !(60..=LONGEST).contains(&lifetime) {
            let detail = format!("{lifetime} is out of range: 60 to {LONGEST} are taken");
            return Err(Problem::field("token.lifetime_seconds", detail));
        }
        let now = self.now();
        let found = {
            let name = name.clone();
            self.read(move |db| store::accounts::by_name(db, &name)).await?
        };
        let Some(account) = found else {
            return Err(Problem::not_found(format!("there is no account called `{name}`")));
        };
        let Account::System { name } = account.account.clone() else {
            let detail = format!("`{name}` is a person's account: people log in");
            return Err(Problem::field("name", detail));
        };
        // A token that would be refused wherever it is shown is not issued.
        if let Err(problem) = self.allowed_at(&account.account, &audience).await? {
            return Err(self.refuse(ask, Event::new("token.issue", name.as_str()), problem).await);
        }
        let mut stored = StoredToken {
            id: Uuid::new_v4().to_string(),
            account: account.id,
            kind: TokenKind::Issued,
            audience: audience.iter().map(ToString::to_string).collect(),
            label,
            origin: admin.account.name().to_string(),
            source: ask.caller.address.ip().to_string(),
            created_at: now,
            expires_at: now + lifetime,
            revoked_at: None,
            last_used_at: None,
            key_id: None,
        };
        let client = account.service.as_ref().map_or(name.as_str(), Name::as_str).to_owned();
        let signed = self.sign(&name, &mut stored, &client);
        let kept = stored.clone();
        let event =
            Event::new("token.issue", name.as_str()).because(format!("{} ({})", stored.label, stored.id));
        self.change(ask, event, move |db, _event| {
            // It may have been removed meanwhile, and another one made.
            if by_name(db, name.as_str())?.id != kept.account {
                return Err(super::accounts::missing(name.as_str()).into());
            }
            add_signed(db, &kept)
        })
        .await?;
        Ok(api::IssuedToken { token: signed.expose().to_owned(), details: Some(messages::token(stored)) })
    }

    /// Tokens of a system account, those that have ended among them.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn list_tokens(&self, ask: &Ask, name: String) -> Result<api::ListTokensReply, Problem> {
        self.admin(ask, "token.list", &name).await?;
        let now = self.now();
        let found = self.read(move |db| {
            let Some(stored) = store::accounts::by_name(db, &name)? else {
                return Ok(Err(Problem::not_found(format!("there is no account called `{name}`"))));
            };
            store::tokens::of(db, stored.id, TokenKind::Issued, now).map(Ok)
        });
        Ok(api::ListTokensReply { tokens: found.await??.into_iter().map(messages::token).collect() })
    }

    /// Revokes a token: within 30 s no service takes it any more.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn revoke_token(&self, ask: &Ask, name: String, id: String) -> Result<api::Changed, Problem> {
        self.admin(ask, "token.revoke", &name).await?;
        let now = self.now();
        self.change(ask, Event::new("token.revoke", name.as_str()).because(id.as_str()), move |db, _event| {
            let stored = by_name(db, &name)?;
            if store::tokens::revoke(db, stored.id, TokenKind::Issued, &id, now)? {
                return Ok(messages::changed(1));
            }
            // Whoever revokes twice has what they want.
            match store::tokens::by_id(db, &id)?.filter(|token| token.account == stored.id) {
                Some(_) => Ok(messages::changed(0)),
                None => Err(Problem::not_found(format!("`{name}` has no token `{id}`")).into()),
            }
        })
        .await
    }
}
