//! What people do for themselves: password, second factor, sessions.

use mc_api::mcias as api;
use mcdsl::Secret;
use mcdsl::problem::{Kind, Problem};

use super::accounts::{no_session, own_session};
use super::event::Event;
use super::login::wrong_login;
use super::{Ask, Bearer, Fault, Mcias, locked, messages, random, sha256};
use crate::domain::password::Verified;
use crate::domain::totp::{self, TotpRefused, TotpSecret};
use crate::domain::{Name, recovery};
use crate::store;
use crate::store::accounts::Stored;
use crate::store::tokens::Kind as TokenKind;

/// A second factor that waits to be confirmed.
#[derive(Debug)]
pub(super) struct Enrolment {
    secret: TotpSecret,
    until: i64,
}

/// How long it waits, in seconds.
const WAITS_S: i64 = 600;

/// How many wait at most.
const MOST: usize = 10_000;

impl Mcias {
    /// The account of whoever asks.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn get_me(&self, ask: &Ask) -> Result<api::Account, Problem> {
        let id = self.who(ask, "self.get").await?.account_id;
        let found = self.read(move |db| {
            let Some(stored) = store::accounts::by_id(db, id)? else { return Ok(None) };
            Ok(Some(messages::account(&stored, store::accounts::counts(db, id)?)))
        });
        found.await?.ok_or_else(gone)
    }

    /// Replaces the password, and ends every other session.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn change_password(
        &self,
        ask: &Ask,
        request: api::ChangePasswordRequest,
    ) -> Result<api::Changed, Problem> {
        let me = self.fresh(ask, "password.change").await?;
        let (current, password) = (request.current.map(Secret::from), Secret::from(request.password));
        let stored = self.own(me).await?;
        let name = stored.account.name().clone();
        if let Some(phc) = stored.password.clone() {
            let current = current
                .ok_or_else(|| Problem::field("current", "the account has a password: send it too"))?;
            self.same_person(ask, &name, current, phc, "password.change").await?;
        }
        let new = self.hashing.hash_new(password, name.clone(), !stored.has_totp).await?;
        let (id, now, session, before) = (stored.id, self.now(), own_session(ask), stored.password);
        self.change(ask, Event::new("password.change", name.as_str()), move |db, _event| {
            let current = store::accounts::by_id(db, id)?.ok_or_else(gone)?;
            if current.password != before {
                return Err(wrong_login().into());
            }
            stands(&new, current.has_totp)?;
            store::factors::set_password(db, id, &new)?;
            store::factors::remove_link(db, id)?;
            Ok(messages::changed(store::tokens::revoke_sessions(db, id, Some(&session), now)?))
        })
        .await
    }

    /// Whether whoever has the session knows the password too: guessing is slowed down as at a login.
    async fn same_person(
        &self,
        ask: &Ask,
        name: &Name,
        password: Secret,
        phc: store::accounts::Phc,
        action: &'static str,
    ) -> Result<(), Problem> {
        let attempt = self.attempt(name.clone(), ask.caller.address.ip(), true)?;
        match self.hashing.verify(password, Some(phc)).await {
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
        let detail = "this is not the password that the account has";
        let problem = Problem {
            field: Some("current".to_owned()),
            ..Problem::new(Kind::Forbidden, "wrong-password", detail)
        };
        Err(self.refuse(ask, Event::new(action, name.as_str()), problem).await)
    }

    async fn own(&self, me: &Bearer) -> Result<Stored, Problem> {
        let id = me.account_id;
        self.read(move |db| store::accounts::by_id(db, id)).await?.ok_or_else(gone)
    }

    /// A new secret, which counts once it is confirmed.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn begin_totp(&self, ask: &Ask) -> Result<api::TotpEnrolment, Problem> {
        let me = self.fresh(ask, "totp.begin").await?;
        let secret = TotpSecret::from_bytes(random());
        let message = api::TotpEnrolment {
            secret: secret.base32().expose().to_owned(),
            uri: secret.uri(&self.config.site.name, me.account.name()).expose().to_owned(),
        };
        let now = self.now();
        let mut waiting = locked(&self.enrolments);
        waiting.retain(|_, enrolment| enrolment.until > now);
        if waiting.len() >= MOST {
            return Err(Problem::new(
                Kind::Unavailable,
                "busy",
                "too many second factors wait to be confirmed",
            ));
        }
        waiting.insert(me.account_id, Enrolment { secret, until: now + WAITS_S });
        Ok(message)
    }

    /// Turns the second factor on.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn confirm_totp(
        &self,
        ask: &Ask,
        request: api::ConfirmTotpRequest,
    ) -> Result<api::RecoveryCodes, Problem> {
        let me = self.fresh(ask, "totp.confirm").await?;
        let (code, now, id) = (Secret::from(request.code), self.now(), me.account_id);
        let (secret, step) = {
            let waiting = locked(&self.enrolments);
            let enrolment = waiting.get(&id).filter(|enrolment| enrolment.until > now);
            let detail = "no second factor waits to be confirmed: begin anew";
            let enrolment = enrolment.ok_or_else(|| Problem::field("code", detail))?;
            let wrong = |_refused: TotpRefused| {
                Problem::field("code", "it is not the code that is shown now: are both clocks right?")
            };
            let step = totp::check(&enrolment.secret, code.expose(), now, None).map_err(wrong)?;
            (enrolment.secret.bytes().to_vec(), step)
        };
        let (codes, digests) = new_codes();
        let name = me.account.name().to_string();
        self.change(ask, Event::new("totp.confirm", name), move |db, _event| {
            store::factors::set_totp(db, id, Some((&secret, step)))?;
            store::factors::set_recovery_codes(db, id, &digests)?;
            Ok(())
        })
        .await?;
        locked(&self.enrolments).remove(&id);
        Ok(codes)
    }

    /// Turns the second factor off. Whoever's password is too short to stand alone must make it longer first.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn remove_totp(&self, ask: &Ask) -> Result<api::Changed, Problem> {
        let me = self.fresh(ask, "totp.remove").await?;
        let (id, name) = (me.account_id, me.account.name().to_string());
        self.change(ask, Event::new("totp.remove", name), move |db, _event| {
            let had = store::factors::totp(db, id)?.is_some();
            if had && store::factors::needs_factor(db, id)? {
                let detail =
                    "your password is too short to stand alone: change it to one of 15 characters first";
                return Err(super::accounts::conflict("short-password", detail).into());
            }
            store::factors::set_totp(db, id, None)?;
            store::factors::set_recovery_codes(db, id, &[])?;
            Ok(messages::changed(usize::from(had)))
        })
        .await
    }

    /// New recovery codes; the old ones are void.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn replace_recovery_codes(&self, ask: &Ask) -> Result<api::RecoveryCodes, Problem> {
        let me = self.fresh(ask, "recovery-codes.replace").await?;
        let (id, name) = (me.account_id, me.account.name().to_string());
        let (codes, digests) = new_codes();
        self.change(ask, Event::new("recovery-codes.replace", name), move |db, _event| {
            if store::factors::totp(db, id)?.is_none() {
                let detail = "recovery codes stand in for a second factor, and the account has none";
                return Err(super::accounts::conflict("no-second-factor", detail).into());
            }
            store::factors::set_recovery_codes(db, id, &digests)?;
            Ok(())
        })
        .await?;
        Ok(codes)
    }

    /// Live sessions of whoever asks.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn list_sessions(&self, ask: &Ask) -> Result<api::ListSessionsReply, Problem> {
        let id = self.person(ask, "session.list").await?.account_id;
        let (now, current) = (self.now(), own_session(ask));
        let found = self.read(move |db| store::tokens::of(db, id, TokenKind::Session, now)).await?;
        Ok(api::ListSessionsReply {
            sessions: found.into_iter().map(|token| messages::session(token, &current)).collect(),
        })
    }

    /// Ends a session of whoever asks.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn end_session(&self, ask: &Ask, id: String) -> Result<api::Changed, Problem> {
        let me = self.person(ask, "session.end").await?;
        let (account, now, name) = (me.account_id, self.now(), me.account.name().to_string());
        self.change(ask, Event::new("session.end", name).because(id.as_str()), move |db, _event| {
            if !store::tokens::revoke(db, account, TokenKind::Session, &id, now)? {
                return Err(no_session(&id).into());
            }
            Ok(messages::changed(1))
        })
        .await
    }

    /// Ends every session of whoever asks but the one that asks.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn end_other_sessions(&self, ask: &Ask) -> Result<api::Changed, Problem> {
        let me = self.person(ask, "session.end-others").await?;
        let (account, now, name) = (me.account_id, self.now(), me.account.name().to_string());
        let current = own_session(ask);
        self.change(ask, Event::new("session.end-others", name), move |db, _event| {
            Ok(messages::changed(store::tokens::revoke_sessions(db, account, Some(&current), now)?))
        })
        .await
    }

    /// Ends the session that asks.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn logout(&self, ask: &Ask) -> Result<api::Changed, Problem> {
        // Whoever may not come in any more may still go.
        let Some(me) = &ask.bearer else { return Err(Problem::unauthenticated("nobody is logged in")) };
        let (account, now, current) = (me.account_id, self.now(), own_session(ask));
        let event = Event::new("logout", me.account.name().as_str());
        self.change(ask, event, move |db, _event| {
            let ended = store::tokens::revoke(db, account, TokenKind::Session, &current, now)?;
            Ok(messages::changed(usize::from(ended)))
        })
        .await
    }

    /// What a one-time link is for.
    ///
    /// # Errors
    /// It is for nothing, or nothing any more.
    pub async fn get_link(&self, request: api::GetLinkRequest) -> Result<api::Link, Problem> {
        let (digest, now) = (sha256(&request.secret), self.now());
        let found = self.read(move |db| {
            let Some((id, expires_at)) = store::factors::link(db, &digest, now)? else { return Ok(None) };
            Ok(store::accounts::by_id(db, id)?.map(|stored| (stored, expires_at)))
        });
        let (stored, expires_at) = found.await?.ok_or_else(void)?;
        let account = stored.account.name().to_string();
        Ok(api::Link { account, expires_at, has_second_factor: stored.has_totp })
    }

    /// Sets the password that a one-time link is for, and ends every session of the account.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn redeem_link(
        &self,
        ask: &Ask,
        request: api::RedeemLinkRequest,
    ) -> Result<api::RedeemLinkReply, Problem> {
        let (digest, password, now) = (sha256(&request.secret), Secret::from(request.password), self.now());
        // A link that is nobody's is not in the audit log, which would grow as strangers like.
        let link = self.get_link(api::GetLinkRequest { secret: request.secret }).await?;
        let name = Name::parse(&link.account).map_err(|error| Problem::internal(&error))?;
        let new = self.hashing.hash_new(password, name.clone(), !link.has_second_factor).await?;
        let event = Event::new("link.redeem", name.as_str()).by(name.as_str());
        self.change(ask, event, move |db, _event| {
            let Some((id, _)) = store::factors::link(db, &digest, now)? else { return Err(void().into()) };
            stands(&new, store::factors::totp(db, id)?.is_some())?;
            store::factors::remove_link(db, id)?;
            store::factors::set_password(db, id, &new)?;
            store::tokens::revoke_sessions(db, id, None, now)?;
            Ok::<_, Fault>(())
        })
        .await?;
        Ok(api::RedeemLinkReply { account: link.account })
    }
}

/// That a password is good enough as things are now: while it was hashed, the second factor may have gone.
fn stands(new: &store::factors::NewPassword, has_totp: bool) -> Result<(), Problem> {
    let detail = "the second factor is off by now: 15 characters are needed";
    if new.alone || has_totp { Ok(()) } else { Err(Problem::field("password", detail)) }
}

fn new_codes() -> (api::RecoveryCodes, Vec<[u8; 32]>) {
    let codes = recovery::generate(random());
    // What is typed is brought to one form before it is looked up: so is what is stored.
    let digest =
        |code: &Secret| recovery::digest(&recovery::normalise(code.expose()).expect("a code is one"));
    let digests = codes.iter().map(digest).collect();
    (api::RecoveryCodes { codes: codes.iter().map(|code| code.expose().to_owned()).collect() }, digests)
}

fn gone() -> Problem {
    Problem::unauthenticated("the account is gone")
}

fn void() -> Problem {
    Problem::not_found("this link is not good, or not any more: ask an admin for a new one")
}
