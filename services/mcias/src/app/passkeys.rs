//! Passkeys: WebAuthn's ceremonies, each of which is a challenge and an answer to it (WebAuthn Level 3, sections 7.1 and 7.2).
//!
//! Authenticators are asked to keep the account with the key and to check who holds them, so that a passkey alone is a
//! login, without a name. Challenges that wait for an answer are kept in memory.

use std::sync::Mutex;
use std::time::Duration;

use mc_api::mcias as api;
use mcdsl::problem::Problem;
use uuid::Uuid;
use webauthn_rs::Webauthn;
use webauthn_rs::WebauthnBuilder;
use webauthn_rs::prelude::{
    DiscoverableAuthentication, Passkey, PasskeyRegistration, PublicKeyCredential,
    RegisterPublicKeyCredential, Url,
};
use webauthn_rs_proto::ResidentKeyRequirement;

use super::event::Event;
use super::login::{By, Proven, wrong_login};
use super::{Ask, Mcias, locked, messages};
use crate::config::Site;
use crate::domain::challenges::{Challenges, Room};
use crate::domain::throttle::Source;
use crate::store;
use crate::store::factors::StoredPasskey;

/// Challenges that wait for an answer.
pub(super) struct Ceremonies {
    webauthn: Webauthn,
    waiting: Mutex<Challenges<State>>,
}

enum State {
    Registration { account: i64, state: Box<PasskeyRegistration> },
    Login(Box<DiscoverableAuthentication>),
}

/// How many challenges wait.
const ROOM: Room = Room { time: Duration::from_secs(300), all: 10_000, of_one: 500 };

/// Passkeys of one account at most.
const EACH: usize = 20;

impl std::fmt::Debug for Ceremonies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ceremonies(..)")
    }
}

impl Ceremonies {
    pub(super) fn new(site: &Site) -> Result<Self, String> {
        let origin = Url::parse(&site.public_url).map_err(|error| error.to_string())?;
        let name = origin.domain().ok_or("it must be a name, not an address")?.to_owned();
        let builder = WebauthnBuilder::new(&name, &origin).map_err(|error| error.to_string())?;
        let webauthn = builder.rp_name(&site.name).build().map_err(|error| error.to_string())?;
        Ok(Self { webauthn, waiting: Mutex::new(Challenges::new(ROOM)) })
    }

    fn wait(&self, ask: &Ask, now: Duration, state: State) -> String {
        let id = Uuid::new_v4().to_string();
        locked(&self.waiting).put(now, Source::from(ask.caller.address.ip()), id.clone(), state);
        id
    }

    /// What waits under this id.
    fn take(&self, now: Duration, id: &str) -> Result<State, Problem> {
        let waiting = locked(&self.waiting).take(now, id);
        waiting.ok_or_else(|| {
            Problem::field("ceremony_id", "no challenge waits for this answer, or not any more: begin anew")
        })
    }
}

/// A challenge that was for something else, or somebody else.
fn another() -> Problem {
    Problem::field("ceremony_id", "this challenge is for something else: begin anew")
}

impl Mcias {
    /// A challenge for any passkey of this site.
    ///
    /// # Errors
    /// See [`Problem`].
    pub fn begin_passkey_login(&self, ask: &Ask) -> Result<api::PasskeyChallenge, Problem> {
        let begun = self.passkeys.webauthn.start_discoverable_authentication();
        let (mut challenge, state) = begun.map_err(|error| Problem::internal(&error))?;
        // It is asked for by a button, not while a name is typed.
        challenge.mediation = None;
        let ceremony_id = self.passkeys.wait(ask, self.clock.elapsed(), State::Login(Box::new(state)));
        Ok(api::PasskeyChallenge { ceremony_id, options: json(&challenge) })
    }

    /// Logs a person in by passkey.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn finish_passkey_login(
        &self,
        ask: &Ask,
        request: api::FinishPasskeyLoginRequest,
    ) -> Result<api::LoginReply, Problem> {
        let goal = self.goal(ask, &request.audience).await?;
        let credential: PublicKeyCredential = read("credential", &request.credential)?;
        let state = match self.passkeys.take(self.clock.elapsed(), &request.ceremony_id)? {
            State::Login(state) => state,
            State::Registration { .. } => return Err(another()),
        };
        let refused = |why: String| Event::new("login", "").because(format!("passkey: {why}"));
        let webauthn = &self.passkeys.webauthn;
        let (handle, key_id) = match webauthn.identify_discoverable_authentication(&credential) {
            Ok((handle, key_id)) => (handle, data_encoding::BASE64URL_NOPAD.encode(key_id)),
            Err(error) => {
                tracing::debug!(%error, "a passkey that is nobody's");
                self.counters.login_failed();
                return Err(wrong_login());
            }
        };
        let id = key_id.clone();
        let found = self.read(move |db| {
            let Some(account) = store::accounts::by_handle(db, handle)? else { return Ok(None) };
            Ok(store::factors::passkey_of(db, account.id, &id)?.map(|stored| (account, stored)))
        });
        let Some((account, stored)) = found.await? else {
            // It is nobody's, and so is not in the audit log, which would grow as strangers like.
            self.counters.login_failed();
            return Err(wrong_login());
        };
        let mut passkey: Passkey = stored_key(&stored)?;
        let result = match webauthn.finish_discoverable_authentication_v2(&credential, *state, &passkey) {
            Ok(result) => result,
            Err(error) => {
                self.counters.login_failed();
                let event = refused(error.to_string()).by(account.account.name().as_str());
                return Err(self.refuse(ask, event, wrong_login()).await);
            }
        };
        if !account.enabled {
            self.counters.login_failed();
            let event = refused("of a disabled account".to_owned()).by(account.account.name().as_str());
            return Err(self.refuse(ask, event, wrong_login()).await);
        }
        passkey.update_credential(&result);
        let by = By::Passkey { id: key_id, credential: json(&passkey) };
        self.enter(ask, Proven { account, goal, by }).await
    }

    /// A challenge for a new passkey.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn begin_passkey(&self, ask: &Ask) -> Result<api::PasskeyChallenge, Problem> {
        let me = self.fresh(ask, "passkey.begin").await?;
        let id = me.account_id;
        let read = self.read(move |db| {
            let account = store::accounts::by_id(db, id)?;
            Ok((account, store::factors::passkeys(db, id)?))
        });
        let (Some(account), stored) = read.await? else {
            return Err(Problem::unauthenticated("the account is gone"));
        };
        has_room(stored.len())?;
        let known: Vec<Passkey> = stored.iter().map(stored_key).collect::<Result<_, _>>()?;
        let exclude = known.iter().map(|passkey| passkey.cred_id().clone()).collect();
        let name = account.account.name().as_str();
        let begun =
            self.passkeys.webauthn.start_passkey_registration(account.handle, name, name, Some(exclude));
        let (mut challenge, state) = begun.map_err(|error| Problem::internal(&error))?;
        // Without a name to go by, the authenticator itself must keep the account.
        if let Some(selection) = &mut challenge.public_key.authenticator_selection {
            selection.resident_key = Some(ResidentKeyRequirement::Required);
            selection.require_resident_key = true;
        }
        let state = State::Registration { account: id, state: Box::new(state) };
        let ceremony_id = self.passkeys.wait(ask, self.clock.elapsed(), state);
        Ok(api::PasskeyChallenge { ceremony_id, options: json(&challenge) })
    }

    /// Adds a passkey.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn finish_passkey(
        &self,
        ask: &Ask,
        request: api::FinishPasskeyRequest,
    ) -> Result<api::Passkey, Problem> {
        let me = self.fresh(ask, "passkey.add").await?;
        let label = messages::label("label", &request.label)?;
        let credential: RegisterPublicKeyCredential = read("credential", &request.credential)?;
        let state = match self.passkeys.take(self.clock.elapsed(), &request.ceremony_id)? {
            State::Registration { account, state } if account == me.account_id => state,
            _ => return Err(another()),
        };
        let made = self.passkeys.webauthn.finish_passkey_registration(&credential, &state);
        let passkey = made
            .map_err(|error| Problem::field("credential", format!("the passkey cannot be used: {error}")))?;
        let stored = StoredPasskey {
            id: data_encoding::BASE64URL_NOPAD.encode(passkey.cred_id()),
            account: me.account_id,
            label,
            credential: json(&passkey),
            created_at: self.now(),
            last_used_at: None,
        };
        let event = Event::new("passkey.add", me.account.name().as_str()).because(stored.label.as_str());
        self.change(ask, event, move |db, _event| {
            has_room(store::factors::passkeys(db, stored.account)?.len())?;
            if !store::factors::add_passkey(db, &stored)? {
                return Err(super::accounts::conflict("exists", "this passkey is there already").into());
            }
            Ok(messages::passkey(stored))
        })
        .await
    }

    /// Passkeys of whoever asks.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn list_passkeys(&self, ask: &Ask) -> Result<api::ListPasskeysReply, Problem> {
        let id = self.person(ask, "passkey.list").await?.account_id;
        let found = self.read(move |db| store::factors::passkeys(db, id)).await?;
        Ok(api::ListPasskeysReply { passkeys: found.into_iter().map(messages::passkey).collect() })
    }

    /// Calls a passkey something else.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn rename_passkey(&self, ask: &Ask, id: String, label: &str) -> Result<api::Passkey, Problem> {
        let me = self.person(ask, "passkey.rename").await?;
        let label = messages::label("label", label)?;
        let account = me.account_id;
        let event = Event::new("passkey.rename", me.account.name().as_str()).because(label.as_str());
        self.change(ask, event, move |db, _event| {
            store::factors::rename_passkey(db, account, &id, &label)?;
            let renamed = store::factors::passkey_of(db, account, &id)?;
            renamed.map(messages::passkey).ok_or_else(|| no_passkey(&id).into())
        })
        .await
    }

    /// Removes a passkey.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn remove_passkey(&self, ask: &Ask, id: String) -> Result<api::Changed, Problem> {
        let me = self.fresh(ask, "passkey.remove").await?;
        let account = me.account_id;
        let event = Event::new("passkey.remove", me.account.name().as_str()).because(id.as_str());
        self.change(ask, event, move |db, _event| {
            match store::factors::remove_passkeys(db, account, Some(&id))? {
                0 => Err(no_passkey(&id).into()),
                count => Ok(messages::changed(count)),
            }
        })
        .await
    }
}

/// Whether an account that has so many passkeys may have another one.
fn has_room(count: usize) -> Result<(), Problem> {
    let detail = || format!("there are {EACH} passkeys already: remove one first");
    if count < EACH { Ok(()) } else { Err(super::accounts::conflict("too-many-passkeys", detail())) }
}

fn no_passkey(id: &str) -> Problem {
    Problem::not_found(format!("you have no passkey `{id}`"))
}

fn stored_key(stored: &StoredPasskey) -> Result<Passkey, Problem> {
    serde_json::from_str(&stored.credential).map_err(|error| Problem::internal(&error))
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("what WebAuthn says can be written as JSON")
}

fn read<T: serde::de::DeserializeOwned>(field: &'static str, text: &str) -> Result<T, Problem> {
    serde_json::from_str(text)
        .map_err(|error| Problem::field(field, format!("no answer of an authenticator: {error}")))
}
