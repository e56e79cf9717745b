//! The keys that tokens are signed with.

use std::sync::Arc;

use mc_api::mcias as api;
use mcdsl::audit::{Event, Fault};
use mcdsl::clock::Clock;
use mcdsl::db::{Database, DbError, WriteError};
use mcdsl::permit::Permit;
use mcdsl::problem::{Kind, Problem};
use rusqlite::Connection;
use zeroize::Zeroizing;

use super::{Mcias, messages};
use crate::domain::token::{KeyRing, SigningKey};
use crate::store;
use crate::store::keys::StoredKey;

/// The keys that are stored; the first is created where there is none. `None`: one cannot be read.
pub(super) async fn first_keys(db: &Database, clock: &Clock) -> Result<Option<KeyRing>, DbError> {
    let now = clock.unix_s();
    let first = row_of(&SigningKey::generate(now, now), now);
    let stored = db.write(move |db| {
        if store::keys::all(db)?.is_empty() {
            store::keys::add(db, &first)?;
        }
        ring(db)
    });
    stored.await.map_err(|error| match error {
        WriteError::Db(error) => error,
        WriteError::Refused(error) => DbError::sqlite(db.path(), error),
    })
}

/// The keys that are stored. `None`: one cannot be read.
pub(super) fn ring(db: &Connection) -> rusqlite::Result<Option<KeyRing>> {
    let stored = store::keys::all(db)?;
    let keys = stored.iter().map(|row| SigningKey::from_pkcs8(&row.pkcs8, row.created_at, row.active_from));
    Ok(keys.collect::<Result<_, _>>().ok().map(KeyRing::new))
}

/// The same, within a change, which must not leave keys that cannot be read.
fn in_force(db: &Connection) -> Result<KeyRing, Fault> {
    let unreadable = || Problem::new(Kind::Internal, "internal", "A stored signing key cannot be read.");
    Ok(ring(db)?.ok_or_else(unreadable)?)
}

fn row_of(key: &SigningKey, verify_until: i64) -> StoredKey {
    StoredKey {
        id: key.kid.clone(),
        pkcs8: Zeroizing::new(key.pkcs8().to_vec()),
        created_at: key.created_at,
        active_from: key.active_from,
        verify_until,
    }
}

impl Mcias {
    /// RFC 7517: what signatures are verified with.
    pub(crate) async fn get_key_set(
        &self,
        _permit: Permit,
        _request: api::GetKeySetRequest,
    ) -> Result<api::KeySet, Problem> {
        let jwk = |key: &SigningKey| api::Jwk {
            kty: "OKP".to_owned(),
            crv: "Ed25519".to_owned(),
            kid: key.kid.clone(),
            x: key.public_jwk_x(),
            alg: "EdDSA".to_owned(),
            r#use: "sig".to_owned(),
        };
        Ok(api::KeySet { keys: self.keys.load().keys().iter().map(jwk).collect() })
    }

    /// Lists the keys.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn list_keys(
        &self,
        _permit: Permit,
        _request: api::ListKeysRequest,
    ) -> Result<api::ListKeysResponse, Problem> {
        self.keys_message().await
    }

    async fn keys_message(&self) -> Result<api::ListKeysResponse, Problem> {
        let signer = self.keys.load().signer(self.now()).kid.clone();
        let keys = self.read(store::keys::all).await?.into_iter().map(|key| api::Key {
            signing: key.id == signer,
            id: key.id,
            created_at: key.created_at,
            active_from: key.active_from,
            verify_until: key.verify_until,
        });
        Ok(api::ListKeysResponse { keys: keys.collect() })
    }

    /// Creates a key. It signs once others had time to fetch it; the old one stays for what it has signed.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn rotate_keys(
        &self,
        permit: Permit,
        _request: api::RotateKeysRequest,
    ) -> Result<api::ListKeysResponse, Problem> {
        let now = self.now();
        let key = SigningKey::generate(now, now + self.config.tokens.key_overlap_s);
        let row = row_of(&key, key.active_from);
        let event = Event::from(permit).with_target(key.kid.as_str());
        self.change_keys(event, move |db, _event| Ok(store::keys::add(db, &row)?)).await?;
        self.keys_message().await
    }

    /// Withdraws a key that may have leaked: it is no longer published, and what it signed is invalid. If it is the signing key, a new one
    /// signs at once, which others fetch when they see it.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn withdraw_key(
        &self,
        permit: Permit,
        request: api::WithdrawKeyRequest,
    ) -> Result<api::Changed, Problem> {
        let (id, now) = (request.id, self.now());
        let next = row_of(&SigningKey::generate(now, now), now);
        self.change_keys(permit.into(), move |db, event| {
            let is_signing = in_force(db)?.signer(now).kid == id;
            if !store::keys::remove(db, &id)? {
                return Err(Problem::not_found(format!("There is no key `{id}`.")).into());
            }
            if is_signing {
                store::keys::add(db, &next)?;
            }
            let ended = store::tokens::revoke_signed(db, &id, now)?;
            event.detail = format!("{ended} sessions and tokens ended");
            Ok(messages::count(ended))
        })
        .await
    }

    /// A change of the keys, which are taken into use once it is on the disk.
    async fn change_keys<T, F>(&self, event: Event, work: F) -> Result<T, Problem>
    where
        F: FnOnce(&Connection, &mut Event) -> Result<T, Fault> + Send + 'static,
        T: Send + 'static,
    {
        let keys = Arc::clone(&self.keys);
        let changed = self.change_then(
            event,
            move |db, event| Ok((work(db, event)?, Arc::new(in_force(db)?))),
            move |(_done, ring)| keys.store(Arc::clone(ring)),
        );
        Ok(changed.await?.0)
    }
}
