//! What admins do with accounts.

use std::collections::BTreeSet;

use mc_api::mcias as api;
use mcdsl::http::{Caller, NOWHERE};
use mcdsl::problem::{Kind, Problem};
use uuid::Uuid;

use super::event::Event;
use super::{Ask, Fault, Mcias, messages, named, random, sha256};
use crate::domain::policy::{AccountType, Effect, Policy, Service};
use crate::domain::{Account, Name, Role, Roles};
use crate::store;
use crate::store::accounts::Stored;
use crate::store::tokens::Kind as TokenKind;

impl Mcias {
    /// Makes an account. A person has no password yet: a link gives one.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn create_account(
        &self,
        ask: &Ask,
        request: api::CreateAccountRequest,
    ) -> Result<api::Account, Problem> {
        let admin = self.admin(ask, "account.create", &request.name).await?;
        let name = named("name", &request.name)?;
        let roles: Roles = messages::roles("roles", &request.roles)?.into_iter().collect();
        if roles.has(Role::Admin) {
            self.recent(ask, admin, "account.create", name.as_str()).await?;
        }
        let tags: BTreeSet<Name> = messages::names("tags", &request.tags)?;
        let (account, service) = match messages::account_type("account_type", &request.account_type)? {
            AccountType::Human => {
                if request.service.is_some() {
                    return Err(Problem::field("service", "a person speaks for no service: leave it out"));
                }
                (Account::Human { name, roles }, None)
            }
            AccountType::System => {
                if !request.roles.is_empty() {
                    return Err(no_roles("roles"));
                }
                let service = request.service.as_deref().map(|text| named("service", text)).transpose()?;
                let service = service.unwrap_or_else(|| name.clone());
                self.not_reserved(&service)?;
                (Account::System { name }, Some(service))
            }
        };
        let now = self.now();
        let event = Event::new("account.create", account.name().as_str()).because(described(&account, &tags));
        self.change(ask, event, move |db, _event| {
            if !store::accounts::add(db, &account, service.as_ref(), Uuid::new_v4(), now)? {
                let detail =
                    format!("there is an account called `{}`: give this one another name", account.name());
                return Err(Problem { field: Some("name".to_owned()), ..conflict("exists", detail) }.into());
            }
            let stored = by_name(db, account.name().as_str())?;
            store::accounts::set_tags(db, stored.id, &tags)?;
            account_message(db, account.name().as_str())
        })
        .await
    }

    /// An account.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn get_account(&self, ask: &Ask, name: &str) -> Result<api::Account, Problem> {
        self.admin(ask, "account.get", name).await?;
        let name = name.to_owned();
        let found = self.read(move |db| match store::accounts::by_name(db, &name)? {
            None => Ok(Err(missing(&name))),
            Some(stored) => Ok(Ok(messages::account(&stored, store::accounts::counts(db, stored.id)?))),
        });
        found.await?
    }

    /// Accounts, a page at a time.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn list_accounts(
        &self,
        ask: &Ask,
        request: api::ListAccountsRequest,
    ) -> Result<api::ListAccountsReply, Problem> {
        self.admin(ask, "account.list", "").await?;
        let limit = messages::limit(request.limit)?;
        let system = request.account_type.as_deref().map(|word| messages::account_type("account_type", word));
        let system = system.transpose()?.map(|kind| kind == AccountType::System);
        let (after, contains) = (request.after.unwrap_or_default(), request.contains.unwrap_or_default());
        self.read(move |db| {
            let mut found = store::accounts::list(db, &after, system, &contains, limit + 1)?;
            let more = found.len() > limit as usize;
            found.truncate(limit as usize);
            let next = found.last().filter(|_| more).map(|last| last.account.name().to_string());
            let message =
                |stored: &Stored| Ok(messages::account(stored, store::accounts::counts(db, stored.id)?));
            let accounts = found.iter().map(message).collect::<rusqlite::Result<_>>()?;
            Ok(api::ListAccountsReply { accounts, next })
        })
        .await
    }

    /// Changes what is given. An account that is disabled has its sessions ended.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn update_account(
        &self,
        ask: &Ask,
        name: String,
        change: api::AccountChange,
    ) -> Result<api::Account, Problem> {
        let admin = self.admin(ask, "account.update", &name).await?;
        let roles =
            change.roles.as_ref().map(|roles| messages::roles("roles.words", &roles.words)).transpose()?;
        let roles: Option<Roles> = roles.map(|roles| roles.into_iter().collect());
        let tags: Option<BTreeSet<Name>> =
            change.tags.as_ref().map(|tags| messages::names("tags.words", &tags.words)).transpose()?;
        let service = change.service.as_deref().map(|text| named("service", text)).transpose()?;
        service.as_ref().map_or(Ok(()), |service| self.not_reserved(service))?;
        if roles.is_some_and(|roles| roles.has(Role::Admin)) {
            self.recent(ask, admin, "account.update", &name).await?;
        }
        let mcias = self.service.clone();
        let (now, enabled) = (self.now(), change.enabled);
        let event = Event::new("account.update", name.as_str()).because(what_changes(&change));
        self.change(ask, event, move |db, _event| {
            let stored = by_name(db, &name)?;
            let is_system = matches!(stored.account, Account::System { .. });
            if is_system && roles.is_some() {
                return Err(no_roles("roles").into());
            }
            if !is_system && service.is_some() {
                return Err(Problem::field("service", "a person speaks for no service: leave it out").into());
            }
            let loses_admin = roles.is_some_and(|roles| !roles.has(Role::Admin)) || enabled == Some(false);
            if loses_admin {
                keep_an_admin(db, &stored, &mcias)?;
            }
            if let Some(enabled) = enabled {
                store::accounts::enable(db, stored.id, enabled)?;
                if !enabled {
                    store::tokens::revoke_sessions(db, stored.id, None, now)?;
                }
            }
            if let Some(roles) = roles {
                store::accounts::set_roles(db, stored.id, roles)?;
            }
            if let Some(tags) = &tags {
                store::accounts::set_tags(db, stored.id, tags)?;
            }
            if let Some(service) = &service {
                store::accounts::set_service(db, stored.id, service)?;
            }
            account_message(db, &name)
        })
        .await
    }

    /// Removes an account with everything that is its. What it did stays in the audit log.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn delete_account(&self, ask: &Ask, name: String) -> Result<api::Changed, Problem> {
        self.admin(ask, "account.delete", &name).await?;
        let mcias = self.service.clone();
        self.change(ask, Event::new("account.delete", name.as_str()), move |db, _event| {
            let stored = by_name(db, &name)?;
            keep_an_admin(db, &stored, &mcias)?;
            store::accounts::remove(db, stored.id)?;
            Ok(messages::changed(1))
        })
        .await
    }

    /// Makes a one-time link, with which a person sets a password.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn issue_link(&self, ask: &Ask, name: String) -> Result<api::IssuedLink, Problem> {
        let admin = self.admin(ask, "link.issue", &name).await?;
        self.recent(ask, admin, "link.issue", &name).await?;
        self.new_link(ask, name).await
    }

    /// The same for whoever has the machine itself.
    pub(super) async fn new_link(&self, ask: &Ask, name: String) -> Result<api::IssuedLink, Problem> {
        let secret = data_encoding::BASE64URL_NOPAD.encode(&random::<32>());
        let digest = sha256(&secret);
        let expires_at = self.now() + self.config.tokens.link_s;
        let url = format!("{}/welcome/{secret}", self.config.site.public_url);
        self.change(ask, Event::new("link.issue", name.as_str()), move |db, _event| {
            let stored = person(db, &name)?;
            store::factors::set_link(db, stored.id, &digest, expires_at)?;
            Ok(api::IssuedLink { url, expires_at })
        })
        .await
    }

    /// Makes somebody an admin who can log in: the first one, or one who has lost everything. For whoever has the machine
    /// itself, while no server runs.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn make_admin(&self, name: &str) -> Result<api::IssuedLink, Problem> {
        let admin = named("admin", name)?;
        let caller = Caller { address: NOWHERE, request_id: "init".into() };
        let ask = Ask { caller, bearer: None };
        let now = self.now();
        let account = Account::Human { name: admin, roles: [Role::Admin].into_iter().collect() };
        self.change(&ask, Event::new("admin.make", name), move |db, _event| {
            store::accounts::add(db, &account, None, Uuid::new_v4(), now)?;
            let stored = person(db, account.name().as_str())?;
            store::accounts::set_roles(db, stored.id, stored.account.roles().with(Role::Admin))?;
            store::accounts::enable(db, stored.id, true)?;
            store::factors::remove_password(db, stored.id)?;
            store::factors::set_totp(db, stored.id, None)?;
            store::factors::set_recovery_codes(db, stored.id, &[])?;
            store::factors::remove_passkeys(db, stored.id, None)?;
            store::tokens::revoke_sessions(db, stored.id, None, now)?;
            Ok(())
        })
        .await?;
        self.new_link(&ask, name.to_owned()).await
    }

    /// Takes second factor, recovery codes and passkeys from a person who has lost them, and ends the sessions.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn reset_factors(&self, ask: &Ask, name: String) -> Result<api::Changed, Problem> {
        let admin = self.admin(ask, "factors.reset", &name).await?;
        self.recent(ask, admin, "factors.reset", &name).await?;
        let mcias = self.service.clone();
        let now = self.now();
        self.change(ask, Event::new("factors.reset", name.as_str()), move |db, _event| {
            let stored = person(db, &name)?;
            let totp = usize::from(stored.has_totp);
            // A password that was good enough with a second factor alone is none without: its owner gets a link.
            let needs_factor = store::factors::needs_factor(db, stored.id)?;
            if needs_factor || stored.password.is_none() {
                keep_an_admin(db, &stored, &mcias)?;
            }
            if needs_factor {
                store::factors::remove_password(db, stored.id)?;
            }
            store::factors::set_totp(db, stored.id, None)?;
            store::factors::set_recovery_codes(db, stored.id, &[])?;
            let passkeys = store::factors::remove_passkeys(db, stored.id, None)?;
            store::tokens::revoke_sessions(db, stored.id, None, now)?;
            Ok(messages::changed(totp + passkeys))
        })
        .await
    }

    /// A person's live sessions.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn list_account_sessions(
        &self,
        ask: &Ask,
        name: String,
    ) -> Result<api::ListSessionsReply, Problem> {
        self.admin(ask, "session.list", &name).await?;
        let (now, current) = (self.now(), own_session(ask));
        let found = self.read(move |db| {
            let Some(stored) = store::accounts::by_name(db, &name)? else { return Ok(Err(missing(&name))) };
            store::tokens::of(db, stored.id, TokenKind::Session, now).map(Ok)
        });
        let sessions = found.await??.into_iter().map(|token| messages::session(token, &current)).collect();
        Ok(api::ListSessionsReply { sessions })
    }

    /// Ends a person's session.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn end_account_session(
        &self,
        ask: &Ask,
        name: String,
        id: String,
    ) -> Result<api::Changed, Problem> {
        self.admin(ask, "session.end", &name).await?;
        let now = self.now();
        self.change(ask, Event::new("session.end", name.as_str()).because(id.as_str()), move |db, _event| {
            let stored = by_name(db, &name)?;
            if !store::tokens::revoke(db, stored.id, TokenKind::Session, &id, now)? {
                return Err(no_session(&id).into());
            }
            Ok(messages::changed(1))
        })
        .await
    }

    /// Ends all of a person's sessions.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn end_account_sessions(&self, ask: &Ask, name: String) -> Result<api::Changed, Problem> {
        self.admin(ask, "session.end-all", &name).await?;
        let now = self.now();
        self.change(ask, Event::new("session.end-all", name.as_str()), move |db, _event| {
            let stored = by_name(db, &name)?;
            Ok(messages::changed(store::tokens::revoke_sessions(db, stored.id, None, now)?))
        })
        .await
    }

    /// MCIAS's own name is no service's: who logs people in to it would get tokens for MCIAS itself.
    fn not_reserved(&self, service: &Name) -> Result<(), Problem> {
        let detail = || format!("`{service}` is this service itself: name another one");
        if *service == self.service.name { Err(Problem::field("service", detail())) } else { Ok(()) }
    }
}

/// The session that asks.
pub(super) fn own_session(ask: &Ask) -> String {
    ask.bearer.as_ref().map(|bearer| bearer.claims.jti.clone()).unwrap_or_default()
}

pub(super) fn no_session(id: &str) -> Problem {
    Problem::not_found(format!("there is no live session `{id}`: it may have ended"))
}

/// The account of this name, within a change.
pub(super) fn by_name(db: &rusqlite::Connection, name: &str) -> Result<Stored, Fault> {
    store::accounts::by_name(db, name)?.ok_or_else(|| missing(name).into())
}

/// The same, where it is a person's.
fn person(db: &rusqlite::Connection, name: &str) -> Result<Stored, Fault> {
    let stored = by_name(db, name)?;
    if matches!(stored.account, Account::System { .. }) {
        let detail = format!("`{name}` is a system account: it has tokens, and no password");
        return Err(Problem::field("name", detail).into());
    }
    Ok(stored)
}

fn account_message(db: &rusqlite::Connection, name: &str) -> Result<api::Account, Fault> {
    let stored = by_name(db, name)?;
    Ok(messages::account(&stored, store::accounts::counts(db, stored.id)?))
}

pub(super) fn missing(name: &str) -> Problem {
    Problem::not_found(format!("there is no account called `{name}`"))
}

pub(super) fn conflict(reason: &'static str, detail: impl Into<String>) -> Problem {
    Problem::new(Kind::Conflict, reason, detail)
}

fn no_roles(field: &str) -> Problem {
    Problem::field(
        field,
        "a system account has no roles: each service's own policy says what it may do; leave them out",
    )
}

/// Refuses what would leave nobody who can manage accounts.
fn keep_an_admin(db: &rusqlite::Connection, stored: &Stored, mcias: &Service) -> Result<(), Fault> {
    let is_one = stored.enabled && stored.account.roles().has(Role::Admin);
    if !is_one || has_an_admin(db, Some(stored.id), &super::policy::in_force(db)?, mcias)? {
        return Ok(());
    }
    let detail = "it is the last admin who can log in: make another one first";
    Err(conflict("last-admin", detail).into())
}

/// Whether there is an admin who can log in and whom this policy lets in to MCIAS, besides one.
pub(super) fn has_an_admin(
    db: &rusqlite::Connection,
    besides: Option<i64>,
    policy: &Policy,
    mcias: &Service,
) -> rusqlite::Result<bool> {
    let may = |admin: &Stored| policy.decide(&admin.account, mcias) == Effect::Allow;
    Ok(store::accounts::admins(db)?.iter().any(|admin| Some(admin.id) != besides && may(admin)))
}

fn described(account: &Account, tags: &BTreeSet<Name>) -> String {
    let roles = messages::roles_of(account.roles()).join(",");
    let tags: Vec<_> = tags.iter().map(Name::as_str).collect();
    format!("type={} roles={roles} tags={}", messages::type_of(account), tags.join(","))
}

fn what_changes(change: &api::AccountChange) -> String {
    let words = |words: &api::Words| words.words.join(",");
    let parts = [
        change.enabled.map(|enabled| format!("enabled={enabled}")),
        change.roles.as_ref().map(|roles| format!("roles={}", words(roles))),
        change.tags.as_ref().map(|tags| format!("tags={}", words(tags))),
        change.service.as_ref().map(|service| format!("service={service}")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}
