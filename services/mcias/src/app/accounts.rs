//! What admins do with accounts.

use std::collections::BTreeSet;

use mc_api::mcias as api;
use mcdsl::audit::{Event, Fault};
use mcdsl::permit::Permit;
use mcdsl::problem::{Kind, Problem};
use rusqlite::Connection;
use uuid::Uuid;

use super::{Mcias, messages, named, random, sha256};
use mcdsl::policy::{Effect, Policy, stored_policy};

use crate::domain::policy;
use crate::domain::{Account, AccountType, Name, Role, Roles, ServiceContext};
use crate::store;
use crate::store::accounts::{Addition, Stored};
use crate::store::tokens::Kind as TokenKind;

impl Mcias {
    /// Creates an account. A person has no password yet: a link sets one.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn create_account(
        &self,
        permit: Permit,
        request: api::CreateAccountRequest,
    ) -> Result<api::Account, Problem> {
        let name = named("name", &request.name)?;
        let roles: Roles = messages::roles("roles", &request.roles)?.into_iter().collect();
        let tags: BTreeSet<Name> = messages::names("tags", &request.tags)?;
        let (account, service) = match messages::account_type("account_type", &request.account_type)? {
            AccountType::Human => {
                if request.service.is_some() {
                    return Err(no_service());
                }
                (Account::Human { name, roles }, None)
            }
            AccountType::System => {
                if !request.roles.is_empty() {
                    return Err(no_roles());
                }
                let service = request.service.as_deref().map(|text| named("service", text)).transpose()?;
                let service = service.unwrap_or_else(|| name.clone());
                self.not_reserved(&service)?;
                (Account::System { name }, Some(service))
            }
        };
        let now = self.now();
        let settings = settings(true, account.roles(), service.as_ref(), &tags);
        let detail = format!("type={} {settings}", account.account_type().as_str());
        self.change(Event::from(permit).with_detail(detail), move |db, _event| {
            add(db, &account, service.as_ref(), now)?;
            let stored = by_name(db, account.name().as_str())?;
            store::accounts::set_tags(db, stored.id, &tags)?;
            account_message(db, account.name().as_str())
        })
        .await
    }

    /// Returns an account.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn get_account(
        &self,
        _permit: Permit,
        request: api::GetAccountRequest,
    ) -> Result<api::Account, Problem> {
        let name = request.name;
        let found = self.read(move |db| match store::accounts::by_name(db, &name)? {
            None => Ok(Err(missing(&name))),
            Some(stored) => Ok(Ok(messages::account(&stored, store::accounts::counts(db, stored.id)?))),
        });
        found.await?
    }

    /// Lists accounts, a page at a time.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn list_accounts(
        &self,
        _permit: Permit,
        request: api::ListAccountsRequest,
    ) -> Result<api::ListAccountsResponse, Problem> {
        let limit = messages::limit(request.limit)?;
        let kind = request.account_type.as_deref().map(|word| messages::account_type("account_type", word));
        let system = kind.transpose()?.map(|kind| kind == AccountType::System);
        let (after, contains) = (request.after.unwrap_or_default(), request.contains.unwrap_or_default());
        self.read(move |db| {
            let mut found = store::accounts::list(db, &after, system, &contains, limit + 1)?;
            let more = found.len() > limit as usize;
            found.truncate(limit as usize);
            let next = found.last().filter(|_| more).map(|last| last.account.name().to_string());
            let message =
                |stored: &Stored| Ok(messages::account(stored, store::accounts::counts(db, stored.id)?));
            let accounts = found.iter().map(message).collect::<rusqlite::Result<_>>()?;
            Ok(api::ListAccountsResponse { accounts, next })
        })
        .await
    }

    /// Replaces an account's settings. Disabling it ends its sessions.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn update_account(
        &self,
        permit: Permit,
        request: api::UpdateAccountRequest,
    ) -> Result<api::Account, Problem> {
        let api::UpdateAccountRequest { name, enabled, roles, tags, service, revision } = request;
        let roles: Roles = messages::roles("roles", &roles)?.into_iter().collect();
        let tags: BTreeSet<Name> = messages::names("tags", &tags)?;
        let service = service.as_deref().map(|text| named("service", text)).transpose()?;
        service.as_ref().map_or(Ok(()), |service| self.not_reserved(service))?;
        let (mcias, now) = (self.service.clone(), self.now());
        let event = Event::from(permit).with_detail(settings(enabled, roles, service.as_ref(), &tags));
        self.change(event, move |db, event| {
            let stored = by_name(db, &name)?;
            if stored.revision != revision {
                return Err(changed_meanwhile(stored.revision).into());
            }
            match stored.account.account_type() {
                AccountType::System if roles != Roles::default() => return Err(no_roles().into()),
                AccountType::System if service.is_none() => {
                    return Err(
                        Problem::field("service", "is missing: a system account acts for a service").into()
                    );
                }
                AccountType::Human if service.is_some() => return Err(no_service().into()),
                AccountType::Human | AccountType::System => {}
            }
            let is_same = stored.enabled == enabled
                && stored.account.roles() == roles
                && stored.service == service
                && stored.tags == tags;
            if is_same {
                event.unchanged();
                return account_message(db, &name);
            }
            if !enabled || !roles.has(Role::Admin) {
                keep_an_admin(db, &stored, &mcias)?;
            }
            store::accounts::update(db, stored.id, enabled, roles, service.as_ref(), &tags)?;
            if stored.enabled != enabled {
                // The settings alone do not say that this is what changed.
                event.detail = format!("was_enabled={} {}", stored.enabled, event.detail);
            }
            if !enabled {
                store::tokens::revoke_sessions(db, stored.id, None, now)?;
                store::factors::remove_link(db, stored.id)?;
            }
            account_message(db, &name)
        })
        .await
    }

    /// Deletes an account with everything that belongs to it. What it did stays in the audit log.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn delete_account(
        &self,
        permit: Permit,
        request: api::DeleteAccountRequest,
    ) -> Result<api::Changed, Problem> {
        let (mcias, now) = (self.service.clone(), self.now());
        self.change(Event::from(permit), move |db, event| {
            let stored = by_name(db, &request.name)?;
            keep_an_admin(db, &stored, &mcias)?;
            event.detail = format!("id={}", stored.uuid);
            store::accounts::remove(db, stored.id, now)?;
            Ok(messages::changed(event, 1))
        })
        .await
    }

    /// Lists deleted accounts whose names are taken, a page at a time.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn list_deleted_accounts(
        &self,
        _permit: Permit,
        request: api::ListDeletedAccountsRequest,
    ) -> Result<api::ListDeletedAccountsResponse, Problem> {
        let limit = messages::limit(request.limit)?;
        let after = request.after.unwrap_or_default();
        let mut found = self.read(move |db| store::accounts::deleted(db, &after, limit + 1)).await?;
        let more = found.len() > limit as usize;
        found.truncate(limit as usize);
        let next = found.last().filter(|_| more).map(|last| last.name.to_string());
        Ok(api::ListDeletedAccountsResponse {
            accounts: found.into_iter().map(messages::deleted_account).collect(),
            next,
        })
    }

    /// Releases the name of a deleted account.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn release_name(
        &self,
        permit: Permit,
        request: api::ReleaseNameRequest,
    ) -> Result<api::Changed, Problem> {
        let now = self.now();
        self.change(permit, move |db, event| {
            if !store::accounts::release_name(db, &request.name, now)? {
                let detail = format!("There is no deleted account `{}`.", request.name);
                return Err(Problem::not_found(detail).into());
            }
            Ok(messages::changed(event, 1))
        })
        .await
    }

    /// Creates a one-time link, with which a person sets a password.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn issue_link(
        &self,
        permit: Permit,
        request: api::IssueLinkRequest,
    ) -> Result<api::IssuedLink, Problem> {
        let name = request.name;
        let secret = data_encoding::BASE64URL_NOPAD.encode(&random::<32>());
        let digest = sha256(&secret);
        let expires_at = self.now() + self.config.tokens.link_s;
        // Browsers keep what is after the `#` to themselves: no server or proxy on the way has it in its log.
        let url = format!("{}/welcome#{secret}", self.config.site.public_url);
        self.change(permit, move |db, _event| {
            let stored = person(db, &name)?;
            if !stored.enabled {
                let detail = format!("`{name}` is disabled: enable it first, then create a link.");
                return Err(conflict("account-disabled", detail).into());
            }
            store::factors::set_link(db, stored.id, &digest, expires_at)?;
            Ok(api::IssuedLink { url, expires_at })
        })
        .await
    }

    /// Makes somebody an admin who can log in: the first one, or one who lost everything. For a command on the server itself, while no server
    /// runs.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn make_admin(&self, name: &str) -> Result<api::IssuedLink, Problem> {
        let admin = named("admin", name)?;
        let now = self.now();
        let account = Account::Human { name: admin, roles: [Role::Admin].into_iter().collect() };
        let permit = Permit::for_local_user("init", "admin.make", name);
        let existed = self.change(permit, move |db, _event| {
            let existed = store::accounts::by_name(db, account.name().as_str())?.is_some();
            if !existed {
                add(db, &account, None, now)?;
            }
            let stored = person(db, account.name().as_str())?;
            let roles = stored.account.roles().with(Role::Admin);
            store::accounts::update(db, stored.id, true, roles, None, &stored.tags)?;
            store::factors::remove_password(db, stored.id)?;
            store::factors::set_totp(db, stored.id, None)?;
            store::factors::set_recovery_codes(db, stored.id, &[])?;
            store::factors::remove_passkeys(db, stored.id, None)?;
            store::tokens::revoke_sessions(db, stored.id, None, now)?;
            Ok(existed)
        });
        if existed.await? {
            tracing::warn!(
                account = name,
                "the account existed: it is an active admin now, without its password, second factor, passkeys and sessions"
            );
        }
        let permit = Permit::for_local_user("init", "link.issue", name);
        self.issue_link(permit, api::IssueLinkRequest { name: name.to_owned() }).await
    }

    /// Removes TOTP, recovery codes and passkeys from the account of a person who lost them, and ends its sessions.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn reset_factors(
        &self,
        permit: Permit,
        request: api::ResetFactorsRequest,
    ) -> Result<api::Changed, Problem> {
        let (mcias, now) = (self.service.clone(), self.now());
        self.change(permit, move |db, event| {
            let stored = person(db, &request.name)?;
            let totp = usize::from(stored.has_totp);
            // A password that was long enough with a second factor only is not without one: its owner gets a link.
            let needs_factor = store::factors::needs_factor(db, stored.id)?;
            if needs_factor || stored.password.is_none() {
                keep_an_admin(db, &stored, &mcias)?;
            }
            let mut removed = totp;
            if needs_factor {
                store::factors::remove_password(db, stored.id)?;
                removed += 1;
            }
            store::factors::set_totp(db, stored.id, None)?;
            store::factors::set_recovery_codes(db, stored.id, &[])?;
            store::factors::remove_link(db, stored.id)?;
            let passkeys = store::factors::remove_passkeys(db, stored.id, None)?;
            let sessions = store::tokens::revoke_sessions(db, stored.id, None, now)?;
            if removed + passkeys + sessions == 0 {
                event.unchanged();
            }
            Ok(messages::count(totp + passkeys))
        })
        .await
    }

    /// Lists a person's active sessions.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn list_account_sessions(
        &self,
        permit: Permit,
        request: api::ListAccountSessionsRequest,
    ) -> Result<api::ListSessionsResponse, Problem> {
        let (now, current) = (self.now(), own_session(&permit));
        let found = self.read(move |db| {
            let name = request.name;
            let Some(stored) = store::accounts::by_name(db, &name)? else { return Ok(Err(missing(&name))) };
            store::tokens::of(db, stored.id, TokenKind::Session, now).map(Ok)
        });
        let sessions = found.await??.into_iter().map(|token| messages::session(token, &current)).collect();
        Ok(api::ListSessionsResponse { sessions })
    }

    /// Ends a person's session.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn end_account_session(
        &self,
        permit: Permit,
        request: api::EndAccountSessionRequest,
    ) -> Result<api::Changed, Problem> {
        let (api::EndAccountSessionRequest { name, id }, now) = (request, self.now());
        self.change(Event::from(permit).with_detail(id.as_str()), move |db, event| {
            let stored = by_name(db, &name)?;
            if !store::tokens::revoke(db, stored.id, TokenKind::Session, &id, now)? {
                return Err(no_session(&id).into());
            }
            Ok(messages::changed(event, 1))
        })
        .await
    }

    /// Ends all of a person's sessions.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn end_account_sessions(
        &self,
        permit: Permit,
        request: api::EndAccountSessionsRequest,
    ) -> Result<api::Changed, Problem> {
        let now = self.now();
        self.change(permit, move |db, event| {
            let stored = by_name(db, &request.name)?;
            let ended = store::tokens::revoke_sessions(db, stored.id, None, now)?;
            Ok(messages::changed(event, ended))
        })
        .await
    }

    /// MCIAS's own name is not a service's: who logs people in to it would get tokens for MCIAS itself.
    fn not_reserved(&self, service: &Name) -> Result<(), Problem> {
        if *service != self.service.name {
            return Ok(());
        }
        Err(Problem::field("service", format!("`{service}` is this service itself: choose another one")))
    }
}

/// Adds an account, within a change.
fn add(db: &Connection, account: &Account, service: Option<&Name>, now: i64) -> Result<(), Fault> {
    let name = account.name();
    let refused = |reason, detail: String| Problem {
        field: Some("name".to_owned()),
        ..Problem::new(Kind::Exists, reason, detail)
    };
    if Uuid::try_parse(name.as_str()).is_ok() {
        return Err(
            Problem::field("name", "is a UUID, which is how accounts are told apart: choose a name").into()
        );
    }
    match store::accounts::add(db, account, service, Uuid::new_v4(), now)? {
        Addition::Added => Ok(()),
        Addition::NameInUse => Err(refused("exists", format!("`{name}` exists: choose another name")).into()),
        Addition::NameTaken => {
            let detail = format!(
                "`{name}` was the name of an account that is deleted: choose another name, or release this one"
            );
            Err(refused("name-taken", detail).into())
        }
    }
}

/// The session that calls.
pub(super) fn own_session(permit: &Permit) -> String {
    permit.identity().map(|identity| identity.token_id.clone()).unwrap_or_default()
}

pub(super) fn no_session(id: &str) -> Problem {
    Problem::not_found(format!("There is no active session `{id}`: it may have ended."))
}

/// The account of this name, within a change.
pub(super) fn by_name(db: &Connection, name: &str) -> Result<Stored, Fault> {
    store::accounts::by_name(db, name)?.ok_or_else(|| missing(name).into())
}

/// The same, where it is a person's.
fn person(db: &Connection, name: &str) -> Result<Stored, Fault> {
    let stored = by_name(db, name)?;
    if stored.account.account_type() == AccountType::System {
        let detail = format!("`{name}` is a system account: it has tokens, and no password");
        return Err(Problem::field("name", detail).into());
    }
    Ok(stored)
}

fn account_message(db: &Connection, name: &str) -> Result<api::Account, Fault> {
    let stored = by_name(db, name)?;
    Ok(messages::account(&stored, store::accounts::counts(db, stored.id)?))
}

pub(super) fn missing(name: &str) -> Problem {
    Problem::not_found(format!("There is no account `{name}`."))
}

/// The state of things does not allow it.
pub(super) fn conflict(reason: &'static str, detail: impl Into<String>) -> Problem {
    Problem::new(Kind::FailedPrecondition, reason, detail)
}

/// An edit was made from an old revision.
pub(super) fn changed_meanwhile(current: i64) -> Problem {
    let detail = format!("is not the current one: somebody else changed it; revision {current} is in force");
    Problem { field: Some("revision".to_owned()), ..Problem::new(Kind::Changed, "changed", detail) }
}

fn no_service() -> Problem {
    Problem::field("service", "is for system accounts: leave it out")
}

fn no_roles() -> Problem {
    let detail =
        "are for people: what a system account may do is up to each service's policy; leave them out";
    Problem::field("roles", detail)
}

/// Refuses what would leave nobody who can manage accounts.
fn keep_an_admin(db: &Connection, stored: &Stored, mcias: &ServiceContext) -> Result<(), Fault> {
    let is_one = stored.enabled && stored.account.roles().has(Role::Admin);
    if !is_one || has_an_admin(db, Some(stored.id), &stored_policy(db, &policy::SPEC)?, mcias)? {
        return Ok(());
    }
    let detail = "This is the last admin who can log in: make somebody else an admin first.";
    Err(conflict("last-admin", detail).into())
}

/// Whether there is an admin who can log in and whom this policy lets use MCIAS, besides one.
pub(super) fn has_an_admin(
    db: &Connection,
    besides: Option<i64>,
    policy: &Policy,
    mcias: &ServiceContext,
) -> rusqlite::Result<bool> {
    let may = |admin: &Stored| policy::decide(policy, &admin.account, mcias) == Effect::Allow;
    Ok(store::accounts::admins(db)?.iter().any(|admin| Some(admin.id) != besides && may(admin)))
}

/// An account's settings, for the audit log.
fn settings(enabled: bool, roles: Roles, service: Option<&Name>, tags: &BTreeSet<Name>) -> String {
    let roles: Vec<_> = roles.words().collect();
    let tags: Vec<_> = tags.iter().map(Name::as_str).collect();
    let service = service.map_or(String::new(), |service| format!(" service={service}"));
    format!("enabled={enabled} roles={} tags={}{service}", roles.join(","), tags.join(","))
}
