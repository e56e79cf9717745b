//! Passkeys: WebAuthn's ceremonies, each of which is a challenge and an answer to it (WebAuthn Level 3, sections 7.1 and 7.2).
//!
//! Authenticators are asked to store the account with the key and to verify their user, so that a passkey alone is a login, without a
//! username. Challenges that wait for an answer are kept in memory.

use std::sync::Mutex;
use std::time::Duration;

use mc_api::mcias as api;
use mcdsl::audit::Event;
use mcdsl::challenges::{ChallengeLimits, Challenges};
use mcdsl::permit::Permit;
use mcdsl::problem::{Kind, Problem};
use uuid::Uuid;
use webauthn_rs::Webauthn;
use webauthn_rs::WebauthnBuilder;
use webauthn_rs::prelude::{
    DiscoverableAuthentication, Passkey, PasskeyRegistration, PublicKeyCredential,
    RegisterPublicKeyCredential, Url,
};
use webauthn_rs_proto::ResidentKeyRequirement;

use super::accounts::conflict;
use super::login::{AuthMethod, Authenticated, login_event, of_account, on_behalf, wrong_login};
use super::me::{own, own_account};
use super::{Mcias, locked, messages};
use crate::config::Site;
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

const LIMITS: ChallengeLimits =
    ChallengeLimits { ttl: Duration::from_secs(300), max: 10_000, max_per_source: 500 };

/// Passkeys of one account.
const MAX_PASSKEYS: usize = 20;

impl std::fmt::Debug for Ceremonies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ceremonies(..)")
    }
}

impl Ceremonies {
    pub(super) fn new(site: &Site) -> Result<Self, String> {
        let origin = Url::parse(&site.public_url).map_err(|error| error.to_string())?;
        let mut builder =
            WebauthnBuilder::new(site.passkey_domain(), &origin).map_err(|error| error.to_string())?;
        for origin in &site.passkey_origins {
            builder = builder.append_allowed_origin(&Url::parse(origin).map_err(|error| error.to_string())?);
        }
        let webauthn = builder.rp_name(site.display_name()).build().map_err(|error| error.to_string())?;
        Ok(Self { webauthn, waiting: Mutex::new(Challenges::new(LIMITS)) })
    }

    fn put(&self, permit: &Permit, now: Duration, state: State) -> String {
        let id = Uuid::new_v4().to_string();
        locked(&self.waiting).insert(now, permit.context().client.ip(), id.clone(), state);
        id
    }

    /// The challenge with this id.
    fn take(&self, now: Duration, id: &str) -> Result<State, Problem> {
        let waiting = locked(&self.waiting).take(now, id);
        waiting.ok_or_else(|| {
            Problem::field(
                "ceremony_id",
                "has no challenge that waits for this answer, or no longer: start again",
            )
        })
    }
}

/// A challenge that was for something else, or somebody else.
fn other_challenge() -> Problem {
    Problem::field("ceremony_id", "is of a challenge for something else: start again")
}

impl Mcias {
    /// Returns a challenge for any passkey of this site.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn begin_passkey_login(
        &self,
        permit: Permit,
        _request: api::BeginPasskeyLoginRequest,
    ) -> Result<api::PasskeyChallenge, Problem> {
        let started = self.passkeys.webauthn.start_discoverable_authentication();
        let (mut challenge, state) = started.map_err(|error| Problem::internal(&error))?;
        // It is requested by a button, not while a username is typed.
        challenge.mediation = None;
        let ceremony_id = self.passkeys.put(&permit, self.clock.elapsed(), State::Login(Box::new(state)));
        Ok(api::PasskeyChallenge { ceremony_id, options: json(&challenge) })
    }

    /// Logs a person in by passkey.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn finish_passkey_login(
        &self,
        permit: Permit,
        request: api::FinishPasskeyLoginRequest,
    ) -> Result<api::LoginResponse, Problem> {
        let target = self.login_target(&permit, &request.audience)?;
        let permit = on_behalf(permit, request.client_address.as_deref(), request.client_user_agent)?;
        let credential: PublicKeyCredential = read("credential", &request.credential)?;
        let state = match self.passkeys.take(self.clock.elapsed(), &request.ceremony_id)? {
            State::Login(state) => state,
            State::Registration { .. } => return Err(other_challenge()),
        };
        let event = login_event(permit, None, &target);
        let webauthn = &self.passkeys.webauthn;
        let (handle, key_id) = match webauthn.identify_discoverable_authentication(&credential) {
            Ok((handle, key_id)) => (handle, data_encoding::BASE64URL_NOPAD.encode(key_id)),
            Err(error) => {
                tracing::debug!(%error, "a passkey of no account");
                return Err(self.unknown_passkey(&event));
            }
        };
        let id = key_id.clone();
        let found = self.read(move |db| {
            let Some(account) = store::accounts::by_uuid(db, handle)? else { return Ok(None) };
            Ok(store::factors::passkey_of(db, account.id, &id)?.map(|stored| (account, stored)))
        });
        let Some((account, stored)) = found.await? else {
            return Err(self.unknown_passkey(&event));
        };
        let event = of_account(event, &account);
        let mut passkey: Passkey = stored_key(&stored)?;
        let result = match webauthn.finish_discoverable_authentication_v2(&credential, *state, &passkey) {
            Ok(result) => result,
            Err(error) => {
                let event = event.with_detail(format!("passkey: {error}"));
                return Err(self.login_failed(&event, wrong_login()).await);
            }
        };
        if !account.enabled {
            let event = event.with_detail("passkey: the account is disabled");
            return Err(self.login_failed(&event, wrong_login()).await);
        }
        passkey.update_credential(&result);
        let method = AuthMethod::Passkey { id: key_id, credential: json(&passkey) };
        self.log_in(event, Authenticated { account, target, method }).await
    }

    /// A passkey of no account is not in the audit log, which would grow as strangers like.
    fn unknown_passkey(&self, event: &Event) -> Problem {
        let problem = wrong_login();
        self.counters.login_failed();
        self.log_failure(event, &problem);
        problem
    }

    /// Returns a challenge for a new passkey.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn begin_passkey(
        &self,
        permit: Permit,
        _request: api::BeginPasskeyRequest,
    ) -> Result<api::PasskeyChallenge, Problem> {
        let account = self.my_account(permit.require_identity()?).await?;
        let id = account.id;
        let stored = self.read(move |db| store::factors::passkeys(db, id)).await?;
        require_room(stored.len())?;
        let known: Vec<Passkey> = stored.iter().map(stored_key).collect::<Result<_, _>>()?;
        let exclude = known.iter().map(|passkey| passkey.cred_id().clone()).collect();
        let name = account.account.name().as_str();
        let started =
            self.passkeys.webauthn.start_passkey_registration(account.uuid, name, name, Some(exclude));
        let (mut challenge, state) = started.map_err(|error| Problem::internal(&error))?;
        // Without a username to go by, the authenticator itself must store the account.
        if let Some(selection) = &mut challenge.public_key.authenticator_selection {
            selection.resident_key = Some(ResidentKeyRequirement::Required);
            selection.require_resident_key = true;
        }
        let state = State::Registration { account: id, state: Box::new(state) };
        let ceremony_id = self.passkeys.put(&permit, self.clock.elapsed(), state);
        Ok(api::PasskeyChallenge { ceremony_id, options: json(&challenge) })
    }

    /// Adds a passkey.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn finish_passkey(
        &self,
        permit: Permit,
        request: api::FinishPasskeyRequest,
    ) -> Result<api::Passkey, Problem> {
        let (me, event) = own(permit)?;
        let own_id = self.my_account(&me).await?.id;
        let label = messages::label("label", &request.label)?;
        let credential: RegisterPublicKeyCredential = read("credential", &request.credential)?;
        let state = match self.passkeys.take(self.clock.elapsed(), &request.ceremony_id)? {
            State::Registration { account, state } if account == own_id => state,
            _ => return Err(other_challenge()),
        };
        let finished = self.passkeys.webauthn.finish_passkey_registration(&credential, &state);
        let passkey = finished
            .map_err(|error| Problem::field("credential", format!("cannot be used as a passkey: {error}")))?;
        let stored = StoredPasskey {
            id: data_encoding::BASE64URL_NOPAD.encode(passkey.cred_id()),
            account: own_id,
            label,
            credential: json(&passkey),
            created_at: self.now(),
            last_used_at: None,
        };
        self.change(event.with_detail(stored.label.as_str()), move |db, _event| {
            require_room(store::factors::passkeys(db, stored.account)?.len())?;
            if !store::factors::add_passkey(db, &stored)? {
                let detail = "This passkey has been added before.";
                return Err(Problem::new(Kind::Exists, "exists", detail).into());
            }
            Ok(messages::passkey(stored))
        })
        .await
    }

    /// Lists the caller's passkeys.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn list_passkeys(
        &self,
        permit: Permit,
        _request: api::ListPasskeysRequest,
    ) -> Result<api::ListPasskeysResponse, Problem> {
        let id = self.my_account(permit.require_identity()?).await?.id;
        let found = self.read(move |db| store::factors::passkeys(db, id)).await?;
        Ok(api::ListPasskeysResponse { passkeys: found.into_iter().map(messages::passkey).collect() })
    }

    /// Renames a passkey.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn rename_passkey(
        &self,
        permit: Permit,
        request: api::RenamePasskeyRequest,
    ) -> Result<api::Passkey, Problem> {
        let (me, event) = own(permit)?;
        let (id, label) = (request.id, messages::label("label", &request.label)?);
        self.change(event.with_detail(label.as_str()), move |db, event| {
            let account = own_account(db, &me)?.id;
            let before = store::factors::passkey_of(db, account, &id)?.ok_or_else(|| no_passkey(&id))?;
            if before.label == label {
                event.unchanged();
            }
            store::factors::rename_passkey(db, account, &id, &label)?;
            Ok(messages::passkey(StoredPasskey { label, ..before }))
        })
        .await
    }

    /// Removes a passkey.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn remove_passkey(
        &self,
        permit: Permit,
        request: api::RemovePasskeyRequest,
    ) -> Result<api::Changed, Problem> {
        let ((me, event), id) = (own(permit)?, request.id);
        self.change(event.with_detail(id.as_str()), move |db, event| {
            let account = own_account(db, &me)?.id;
            match store::factors::remove_passkeys(db, account, Some(&id))? {
                0 => Err(no_passkey(&id).into()),
                count => Ok(messages::changed(event, count)),
            }
        })
        .await
    }
}

/// Refuses one passkey too many.
fn require_room(count: usize) -> Result<(), Problem> {
    let detail = || format!("The account has {MAX_PASSKEYS} passkeys: remove one first.");
    if count < MAX_PASSKEYS { Ok(()) } else { Err(conflict("too-many-passkeys", detail())) }
}

fn no_passkey(id: &str) -> Problem {
    Problem::not_found(format!("You have no passkey `{id}`."))
}

fn stored_key(stored: &StoredPasskey) -> Result<Passkey, Problem> {
    serde_json::from_str(&stored.credential).map_err(|error| Problem::internal(&error))
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("WebAuthn's messages can be written as JSON")
}

fn read<T: serde::de::DeserializeOwned>(field: &'static str, text: &str) -> Result<T, Problem> {
    serde_json::from_str(text)
        .map_err(|error| Problem::field(field, format!("is not an authenticator's answer: {error}")))
}
