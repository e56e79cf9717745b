//! The audit log, and the keys that tokens are signed with.

use std::sync::Arc;

use mc_api::mcias as api;
use mcdsl::clock::Clock;
use mcdsl::db::{Database, DbError, WriteError};
use mcdsl::problem::{Kind, Problem};
use rusqlite::Connection;
use zeroize::Zeroizing;

use super::event::Event;
use super::{Ask, Fault, Mcias, messages};
use crate::domain::audit::{Hash, START, Verdict, Verifier};
use crate::domain::token::{KeyRing, SigningKey};
use crate::store;
use crate::store::keys::StoredKey;

/// The keys that are stored; the first is made where there is none. `None`: one cannot be read.
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
        WriteError::Refused(error) => DbError::sqlite(std::path::Path::new("mcias.db"), error),
    })
}

/// The keys that are stored. `None`: one cannot be read.
pub(super) fn ring(db: &Connection) -> rusqlite::Result<Option<KeyRing>> {
    let stored = store::keys::all(db)?;
    let keys = stored.iter().map(|row| SigningKey::from_pkcs8(&row.pkcs8, row.created_at, row.signs_from));
    Ok(keys.collect::<Result<_, _>>().ok().map(KeyRing::new))
}

/// The same, within a change, which must not leave keys that cannot be read.
fn in_force(db: &Connection) -> Result<KeyRing, Fault> {
    let unreadable =
        || Problem::new(Kind::Internal, "internal", "a signing key that is stored cannot be read");
    Ok(ring(db)?.ok_or_else(unreadable)?)
}

fn row_of(key: &SigningKey, needed_until: i64) -> StoredKey {
    StoredKey {
        id: key.kid.clone(),
        pkcs8: Zeroizing::new(key.pkcs8().to_vec()),
        created_at: key.created_at,
        signs_from: key.signs_from,
        needed_until,
    }
}

impl Mcias {
    /// RFC 7517: what signatures are checked with.
    #[must_use]
    pub fn key_set(&self) -> api::KeySet {
        let jwk = |key: &SigningKey| api::Jwk {
            kty: "OKP".to_owned(),
            crv: "Ed25519".to_owned(),
            kid: key.kid.clone(),
            x: key.public_jwk_x(),
            alg: "EdDSA".to_owned(),
            r#use: "sig".to_owned(),
        };
        api::KeySet { keys: self.keys.load().keys().iter().map(jwk).collect() }
    }

    /// The keys.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn list_keys(&self, ask: &Ask) -> Result<api::ListKeysReply, Problem> {
        self.admin(ask, "key.list", "").await?;
        self.keys_message().await
    }

    async fn keys_message(&self) -> Result<api::ListKeysReply, Problem> {
        let signer = self.keys.load().signer(self.now()).kid.clone();
        let keys = self.read(store::keys::all).await?.into_iter().map(|key| api::Key {
            signs: key.id == signer,
            id: key.id,
            created_at: key.created_at,
            signs_from: key.signs_from,
            needed_until: key.needed_until,
        });
        Ok(api::ListKeysReply { keys: keys.collect() })
    }

    /// Makes a new key. It signs once others had time to fetch it; the old one stays for what it has signed.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn rotate_keys(&self, ask: &Ask) -> Result<api::ListKeysReply, Problem> {
        self.admin(ask, "key.rotate", "").await?;
        let now = self.now();
        let key = SigningKey::generate(now, now + self.config.tokens.key_overlap_s);
        let row = row_of(&key, key.signs_from);
        let event = Event::new("key.rotate", key.kid.as_str());
        self.change_keys(ask, event, move |db, _event| Ok(store::keys::add(db, &row)?)).await?;
        self.keys_message().await
    }

    /// Withdraws a key that others may have: it is published no longer, and whatever it signed has ended. Where it signs now,
    /// a new one does at once, which others fetch when they meet it.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn withdraw_key(&self, ask: &Ask, id: String) -> Result<api::Changed, Problem> {
        let admin = self.admin(ask, "key.withdraw", &id).await?;
        self.recent(ask, admin, "key.withdraw", &id).await?;
        let now = self.now();
        let next = row_of(&SigningKey::generate(now, now), now);
        self.change_keys(ask, Event::new("key.withdraw", id.as_str()), move |db, event| {
            let signs = in_force(db)?.signer(now).kid == id;
            if !store::keys::remove(db, &id)? {
                return Err(Problem::not_found(format!("there is no key `{id}`")).into());
            }
            if signs {
                store::keys::add(db, &next)?;
            }
            let ended = store::tokens::revoke_signed(db, &id, now)?;
            event.detail = format!("{ended} sessions and tokens ended");
            Ok(messages::changed(ended))
        })
        .await
    }

    /// A change of the keys, which are taken into use once it is on the disk.
    async fn change_keys<T, F>(&self, ask: &Ask, event: Event, work: F) -> Result<T, Problem>
    where
        F: FnOnce(&Connection, &mut Event) -> Result<T, Fault> + Send + 'static,
        T: Send + 'static,
    {
        let keys = Arc::clone(&self.keys);
        let changed = self.change_then(
            ask,
            event,
            move |db, event| Ok((work(db, event)?, Arc::new(in_force(db)?))),
            move |(_done, ring)| keys.store(Arc::clone(ring)),
        );
        Ok(changed.await?.0)
    }

    /// The audit log, the newest first.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn list_audit(
        &self,
        ask: &Ask,
        request: api::ListAuditRequest,
    ) -> Result<api::ListAuditReply, Problem> {
        self.admin(ask, "audit.list", "").await?;
        let limit = messages::limit(request.limit)?;
        let before = request.before.unwrap_or(i64::MAX);
        let account = request.account;
        let found = self.read(move |db| store::audit::list(db, before, account.as_deref(), limit)).await?;
        let next = found.last().filter(|_| found.len() == limit as usize).map(|(entry, _)| entry.number);
        let entries = found.into_iter().map(|(entry, hash)| api::AuditEntry {
            number: entry.number,
            at_ms: entry.at_ms,
            actor: entry.actor,
            action: entry.action,
            target: entry.target,
            outcome: entry.outcome,
            detail: entry.detail,
            source: entry.source,
            service: entry.service,
            request_id: entry.request_id,
            hash: hex(&hash),
        });
        Ok(api::ListAuditReply { entries: entries.collect(), next })
    }

    /// Whether each entry follows from the one before.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn verify_audit(
        &self,
        ask: &Ask,
        request: api::VerifyAuditRequest,
    ) -> Result<api::AuditVerdict, Problem> {
        self.admin(ask, "audit.verify", "").await?;
        let known = request.known.as_deref().map(|text| {
            let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
            let wrong = || Problem::field("known", "it is no SHA-256 in hexadecimal: 64 digits are");
            bytes.and_then(|bytes| Hash::try_from(bytes).ok()).ok_or_else(wrong)
        });
        let known = known.transpose()?;
        if known == Some(START) {
            let detail = "zeros stand before the first entry of every log: name the hash of an entry";
            return Err(Problem::field("known", detail));
        }
        self.read(move |db| verify(db, known)).await
    }
}

/// Checks the whole log.
pub(crate) fn verify(db: &Connection, known: Option<Hash>) -> rusqlite::Result<api::AuditVerdict> {
    let mut verifier = Verifier::new(known);
    let mut broken = None;
    store::audit::each(db, |entry, hash| match verifier.next(entry, hash) {
        Ok(()) => true,
        Err(error) => {
            broken = Some(error);
            false
        }
    })?;
    let Verdict { entries, head } = verifier.so_far();
    let found = broken.map_or_else(|| verifier.finish().map(drop), Err);
    Ok(api::AuditVerdict {
        intact: found.is_ok(),
        entries,
        head: hex(&head),
        problem: found.err().map(|error| error.to_string()),
    })
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}
