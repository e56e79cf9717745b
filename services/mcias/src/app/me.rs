//! What people do with their own account: password, second factor, sessions.

use std::sync::Arc;

use mc_api::mcias as api;
use mcdsl::audit::{Event, Fault};
use mcdsl::identity::Identity;
use mcdsl::permit::Permit;
use mcdsl::problem::{Kind, Problem};
use mcdsl::secret::Secret;
use rusqlite::Connection;

use super::accounts::{conflict, no_session, own_session};
use super::login::wrong_login;
use super::{Mcias, locked, messages, random, sha256};
use crate::domain::password::Verified;
use crate::domain::queue::Share;
use crate::domain::throttle::Origin;
use crate::domain::totp::{self, TotpRefused, TotpSecret};
use crate::domain::{AccountType, Name, recovery};
use crate::store;
use crate::store::accounts::Stored;
use crate::store::tokens::Kind as TokenKind;

/// A TOTP secret that waits to be confirmed.
#[derive(Debug)]
pub(super) struct Enrolment {
    secret: TotpSecret,
    expires_at: i64,
}

/// How long it waits, in seconds.
const ENROLMENT_TTL_S: i64 = 600;

const MAX_ENROLMENTS: usize = 10_000;

/// What a person does with their own account: the caller, and the event with the account as its target.
pub(super) fn own(permit: Permit) -> Result<(Arc<Identity>, Event), Problem> {
    let identity = Arc::clone(permit.require_identity()?);
    let event = Event::from(permit).with_target(identity.account.name().as_str());
    Ok((identity, event))
}

/// The caller's account, within a change.
pub(super) fn own_account(db: &Connection, me: &Identity) -> Result<Stored, Fault> {
    store::accounts::by_token(db, &me.token_id)?.ok_or_else(|| gone().into())
}

impl Mcias {
    /// Returns the caller's account.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn get_me(
        &self,
        permit: Permit,
        _request: api::GetMeRequest,
    ) -> Result<api::Account, Problem> {
        let token = permit.require_identity()?.token_id.clone();
        let found = self.read(move |db| {
            let Some(stored) = store::accounts::by_token(db, &token)? else { return Ok(None) };
            Ok(Some(messages::account(&stored, store::accounts::counts(db, stored.id)?)))
        });
        found.await?.ok_or_else(gone)
    }

    /// The caller's account.
    pub(super) async fn my_account(&self, me: &Identity) -> Result<Stored, Problem> {
        let token = me.token_id.clone();
        self.read(move |db| store::accounts::by_token(db, &token)).await?.ok_or_else(gone)
    }

    /// Replaces the password, and ends every other session.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn change_password(
        &self,
        permit: Permit,
        request: api::ChangePasswordRequest,
    ) -> Result<api::Changed, Problem> {
        let (current, password) = (request.current.map(Secret::from), Secret::from(request.password));
        let (me, event) = own(permit)?;
        let stored = self.my_account(&me).await?;
        let name = stored.account.name().clone();
        if let Some(phc) = stored.password.clone() {
            let current =
                current.ok_or_else(|| Problem::field("current", "is missing: the account has a password"))?;
            self.verify_current(&event, &name, current, phc).await?;
        }
        let share = Share::of_known(event.context().client.ip());
        let new = self.hashing.hash_new(share, password, name, !stored.has_totp).await?;
        let (now, before) = (self.now(), stored.password);
        self.change(event, move |db, _event| {
            let current = own_account(db, &me)?;
            if current.password != before {
                return Err(wrong_login().into());
            }
            require_strength(&new, current.has_totp)?;
            store::factors::set_password(db, current.id, &new)?;
            store::factors::remove_link(db, current.id)?;
            let ended = store::tokens::revoke_sessions(db, current.id, Some(&me.token_id), now)?;
            Ok(messages::count(ended))
        })
        .await
    }

    /// Whether the owner of the session knows the password too. Guessing is slowed down as at a login.
    async fn verify_current(
        &self,
        event: &Event,
        name: &Name,
        password: Secret,
        phc: store::accounts::Phc,
    ) -> Result<(), Problem> {
        let ip = event.context().client.ip();
        let attempt = self.attempt(name.clone(), Origin::from(ip), true)?;
        match self.hashing.verify(Share::of_known(ip), password, Some(phc)).await {
            Ok(Verified::Right { .. }) => {
                attempt.succeeded();
                return Ok(());
            }
            Ok(Verified::Wrong) => attempt.failed(),
            Err(problem) => {
                attempt.released();
                return Err(problem);
            }
        }
        let problem = Problem {
            field: Some("current".to_owned()),
            ..Problem::new(Kind::Forbidden, "wrong-password", "is not the account's password")
        };
        Err(self.db.refuse(event.clone(), problem).await)
    }

    /// Returns a new TOTP secret, which takes effect once it is confirmed.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn begin_totp(
        &self,
        permit: Permit,
        _request: api::BeginTotpRequest,
    ) -> Result<api::TotpEnrolment, Problem> {
        let me = permit.require_identity()?;
        let account = self.my_account(me).await?.id;
        let secret = TotpSecret::from_bytes(random());
        let message = api::TotpEnrolment {
            secret: secret.base32().expose().to_owned(),
            uri: secret.uri(self.config.site.display_name(), me.account.name()).expose().to_owned(),
        };
        let now = self.now();
        let mut waiting = locked(&self.enrolments);
        waiting.retain(|_, enrolment| enrolment.expires_at > now);
        if waiting.len() >= MAX_ENROLMENTS {
            let detail = "Too many authenticator apps wait to be confirmed: try again in a few minutes.";
            return Err(Problem::new(Kind::Unavailable, "busy", detail));
        }
        waiting.insert(account, Enrolment { secret, expires_at: now + ENROLMENT_TTL_S });
        Ok(message)
    }

    /// Turns TOTP on, and ends every other session: they were begun without a code.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn confirm_totp(
        &self,
        permit: Permit,
        request: api::ConfirmTotpRequest,
    ) -> Result<api::RecoveryCodes, Problem> {
        let (me, event) = own(permit)?;
        let (code, now, id) = (Secret::from(request.code), self.now(), self.my_account(&me).await?.id);
        let (enrolment, step) = {
            let mut waiting = locked(&self.enrolments);
            let enrolment = waiting.get(&id).filter(|enrolment| enrolment.expires_at > now);
            let detail = "No authenticator app waits to be confirmed: start again.";
            let missing = || Problem::field("code", detail);
            let wrong = |_refused: TotpRefused| {
                let detail = "Wrong code. Enter the current one; if it fails again, check the phone's clock.";
                Problem::field("code", detail)
            };
            let secret = &enrolment.ok_or_else(missing)?.secret;
            let step = totp::check(secret, code.expose(), now, None).map_err(wrong)?;
            // Two who confirm at the same time would get different recovery codes, of which one set is valid.
            (waiting.remove(&id).ok_or_else(missing)?, step)
        };
        let secret = enrolment.secret.bytes().to_vec();
        let (codes, digests) = new_codes();
        let confirmed = self.change(event, move |db, _event| {
            let id = own_account(db, &me)?.id;
            store::factors::set_totp(db, id, Some((&secret, step)))?;
            store::factors::set_recovery_codes(db, id, &digests)?;
            store::tokens::revoke_sessions(db, id, Some(&me.token_id), now)?;
            Ok(())
        });
        match confirmed.await {
            Ok(()) => Ok(codes),
            Err(problem) => {
                // It can be confirmed again.
                locked(&self.enrolments).entry(id).or_insert(enrolment);
                Err(problem)
            }
        }
    }

    /// Turns TOTP off. A password that is too short without it must be replaced by a longer one first.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn remove_totp(
        &self,
        permit: Permit,
        _request: api::RemoveTotpRequest,
    ) -> Result<api::Changed, Problem> {
        let (me, event) = own(permit)?;
        self.change(event, move |db, event| {
            let id = own_account(db, &me)?.id;
            let had = store::factors::totp(db, id)?.is_some();
            if had && store::factors::needs_factor(db, id)? {
                let detail = "Your password is too short without a second factor: change it to one of 15 characters first.";
                return Err(conflict("short-password", detail).into());
            }
            store::factors::set_totp(db, id, None)?;
            store::factors::set_recovery_codes(db, id, &[])?;
            Ok(messages::changed(event, usize::from(had)))
        })
        .await
    }

    /// Returns new recovery codes; the old ones are void.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn replace_recovery_codes(
        &self,
        permit: Permit,
        _request: api::ReplaceRecoveryCodesRequest,
    ) -> Result<api::RecoveryCodes, Problem> {
        let (me, event) = own(permit)?;
        let (codes, digests) = new_codes();
        self.change(event, move |db, _event| {
            let id = own_account(db, &me)?.id;
            if store::factors::totp(db, id)?.is_none() {
                let detail = "Recovery codes replace an authenticator app, and the account has none.";
                return Err(conflict("no-second-factor", detail).into());
            }
            store::factors::set_recovery_codes(db, id, &digests)?;
            Ok(())
        })
        .await?;
        Ok(codes)
    }

    /// Lists the caller's active sessions.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn list_sessions(
        &self,
        permit: Permit,
        _request: api::ListSessionsRequest,
    ) -> Result<api::ListSessionsResponse, Problem> {
        let (now, current) = (self.now(), own_session(&permit));
        let id = self.my_account(permit.require_identity()?).await?.id;
        let found = self.read(move |db| store::tokens::of(db, id, TokenKind::Session, now)).await?;
        Ok(api::ListSessionsResponse {
            sessions: found.into_iter().map(|token| messages::session(token, &current)).collect(),
        })
    }

    /// Ends one of the caller's sessions.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn end_session(
        &self,
        permit: Permit,
        request: api::EndSessionRequest,
    ) -> Result<api::Changed, Problem> {
        let ((me, event), id, now) = (own(permit)?, request.id, self.now());
        self.change(event.with_detail(id.as_str()), move |db, event| {
            let account = own_account(db, &me)?.id;
            if !store::tokens::revoke(db, account, TokenKind::Session, &id, now)? {
                return Err(no_session(&id).into());
            }
            Ok(messages::changed(event, 1))
        })
        .await
    }

    /// Ends all of the caller's sessions but the one that calls.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn end_other_sessions(
        &self,
        permit: Permit,
        _request: api::EndOtherSessionsRequest,
    ) -> Result<api::Changed, Problem> {
        let ((me, event), now) = (own(permit)?, self.now());
        self.change(event, move |db, event| {
            let account = own_account(db, &me)?.id;
            let ended = store::tokens::revoke_sessions(db, account, Some(&me.token_id), now)?;
            Ok(messages::changed(event, ended))
        })
        .await
    }

    /// Ends the session that calls.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn logout(
        &self,
        permit: Permit,
        _request: api::LogoutRequest,
    ) -> Result<api::Changed, Problem> {
        let ((me, event), now) = (own(permit)?, self.now());
        if me.account.account_type() == AccountType::System {
            let detail = "This is a service's token, and no session: an admin revokes it.";
            return Err(conflict("no-session", detail));
        }
        self.change(event, move |db, event| {
            let account = own_account(db, &me)?.id;
            let ended = store::tokens::revoke(db, account, TokenKind::Session, &me.token_id, now)?;
            Ok(messages::changed(event, usize::from(ended)))
        })
        .await
    }

    /// Returns what a one-time link is for.
    ///
    /// # Errors
    /// It is not valid, or no longer.
    pub(crate) async fn get_link(
        &self,
        _permit: Permit,
        request: api::GetLinkRequest,
    ) -> Result<api::Link, Problem> {
        self.link_message(&request.secret).await
    }

    async fn link_message(&self, secret: &str) -> Result<api::Link, Problem> {
        let (digest, now) = (sha256(secret), self.now());
        let found = self.read(move |db| {
            let Some((id, expires_at)) = store::factors::link(db, &digest, now)? else { return Ok(None) };
            Ok(store::accounts::by_id(db, id)?.map(|stored| (stored, expires_at)))
        });
        let (stored, expires_at) = found.await?.ok_or_else(invalid_link)?;
        let account = stored.account.name().to_string();
        Ok(api::Link { account, expires_at, has_second_factor: stored.has_totp })
    }

    /// Sets the password that a one-time link is for, and ends every session of the account.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn redeem_link(
        &self,
        permit: Permit,
        request: api::RedeemLinkRequest,
    ) -> Result<api::RedeemLinkResponse, Problem> {
        let (digest, password, now) = (sha256(&request.secret), Secret::from(request.password), self.now());
        // An invalid link is not in the audit log, which would grow as strangers like.
        let link = self.link_message(&request.secret).await?;
        let name = Name::parse(&link.account).map_err(|error| Problem::internal(&error))?;
        let share = Share::of_known(permit.context().client.ip());
        let new = self.hashing.hash_new(share, password, name.clone(), !link.has_second_factor).await?;
        let event = Event::from(permit).with_target(name.as_str()).with_actor(name.as_str());
        self.change(event, move |db, _event| {
            let Some((id, _)) = store::factors::link(db, &digest, now)? else {
                return Err(invalid_link().into());
            };
            require_strength(&new, store::factors::totp(db, id)?.is_some())?;
            store::factors::remove_link(db, id)?;
            store::factors::set_password(db, id, &new)?;
            store::tokens::revoke_sessions(db, id, None, now)?;
            Ok::<_, Fault>(())
        })
        .await?;
        Ok(api::RedeemLinkResponse { account: link.account })
    }
}

/// That a password is long enough as things are now: while it was hashed, the second factor may have been removed.
fn require_strength(new: &store::factors::NewPassword, has_totp: bool) -> Result<(), Problem> {
    let detail = "is too short: the second factor was removed meanwhile; expected 15 characters";
    if new.alone || has_totp { Ok(()) } else { Err(Problem::field("password", detail)) }
}

fn new_codes() -> (api::RecoveryCodes, Vec<[u8; 32]>) {
    let codes = recovery::generate(random());
    // What is typed is normalised before it is looked up: so is what is stored.
    let digest = |code: &Secret| {
        recovery::digest(&recovery::normalise(code.expose()).expect("a generated code is one"))
    };
    let digests = codes.iter().map(digest).collect();
    (api::RecoveryCodes { codes: codes.iter().map(|code| code.expose().to_owned()).collect() }, digests)
}

fn gone() -> Problem {
    Problem::unauthenticated("The account was deleted.")
}

fn invalid_link() -> Problem {
    Problem::not_found("This link is not valid, or no longer: ask an admin for a new one.")
}
