//! Who shows a token: the signature, and what is known of it and its account. It is the one way in which any token is judged.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mc_api::mcias::{IntrospectRequest, Introspection};
use mcdsl::Secret;
use mcdsl::problem::{Kind, Problem};
use quick_cache::sync::Cache;

use super::event::Event;
use super::{Ask, Mcias, locked, messages, sha256};
use crate::domain::policy::{Effect, Service};
use crate::domain::token::{BadToken, Claims, Expect, KeyRing};
use crate::domain::{Account, Name};
use crate::store;
use crate::store::tokens::Kind as TokenKind;

/// Whoever shows a token that is good.
#[derive(Clone, Debug)]
pub struct Bearer {
    /// What the token says.
    pub claims: Claims,
    /// The account's row.
    pub account_id: i64,
    /// Whose it is.
    pub account: Account,
    /// The account's tags.
    pub tags: BTreeSet<Name>,
    /// A system account's service, with its tags: those of all accounts that speak for it.
    pub service: Option<Service>,
    /// Services that the token is for; all where there is none.
    pub audience: Vec<String>,
    /// When its owner logged in, or it was issued.
    pub created_at: i64,
    /// When it ends.
    pub expires_at: i64,
}

impl Bearer {
    /// Whether the token is for this service.
    #[must_use]
    pub fn is_for(&self, service: &Name) -> bool {
        self.audience.is_empty() || self.audience.iter().any(|name| name == service.as_str())
    }
}

/// Those who were seen lately, by the SHA-256 of their tokens.
#[derive(Debug)]
pub(super) struct Bearers(Cache<[u8; 32], Seen>);

/// Who showed a token.
#[derive(Clone, Debug)]
struct Seen {
    /// As of which generation.
    generation: u64,
    /// By which keys the signature was checked: as long as these are in use, it need not be again.
    keys: Arc<KeyRing>,
    bearer: Arc<Bearer>,
}

/// Why a token is not good.
#[derive(Clone, Debug)]
pub struct NotGood {
    /// In a word.
    pub why: &'static str,
    /// Whose it was, where it is one that was taken from somebody: such a one is worth an entry in the audit log. A text that
    /// is no token of ours names nobody, and one that has simply ended is shown by every browser that was left open.
    pub of: Option<Name>,
}

impl From<&'static str> for NotGood {
    fn from(why: &'static str) -> Self {
        Self { why, of: None }
    }
}

/// Whose tokens were shown in vain lately, and why: so that who has one that was taken from them cannot fill the disk.
#[derive(Debug)]
pub(super) struct Told(Cache<(Name, &'static str), Duration>);

/// How long what was told of an account is not told again.
const TOLD: Duration = Duration::from_secs(600);

impl Told {
    pub(super) fn new() -> Self {
        Self(Cache::new(KEPT))
    }

    fn is_due(&self, of: &Name, why: &'static str, now: Duration) -> bool {
        let key = (of.clone(), why);
        if self.0.get(&key).is_some_and(|last| now.saturating_sub(last) < TOLD) {
            return false;
        }
        self.0.insert(key, now);
        true
    }
}

/// How many are kept: some 500 bytes each.
const KEPT: usize = 10_000;

impl Bearers {
    pub(super) fn new() -> Self {
        Self(Cache::new(KEPT))
    }
}

impl Mcias {
    /// Whoever shows this token. Why it is not good, where it is not.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn bearer(&self, token: &Secret) -> Result<Result<Arc<Bearer>, NotGood>, Problem> {
        let now = self.now();
        let key = sha256(token.expose());
        // Read before everything else: what is read after a change is newer than the generation says, never older.
        let generation = self.generation.load(Ordering::Acquire);
        let keys = self.keys.load_full();
        let kept = self.bearers.0.get(&key);
        let bearer = match kept {
            Some(seen) if seen.generation == generation => seen.bearer,
            older => {
                let older = older.filter(|seen| Arc::ptr_eq(&seen.keys, &keys));
                let claims = match older {
                    Some(seen) => Ok(seen.bearer.claims.clone()),
                    None => self.signed(&keys, token, now),
                };
                let found = match claims {
                    Ok(claims) => self.look_up(claims).await?,
                    Err(error) => Err(messages::word_of(error).into()),
                };
                match found {
                    Ok(bearer) => {
                        let bearer = Arc::new(bearer);
                        let seen = Seen { generation, keys, bearer: Arc::clone(&bearer) };
                        self.bearers.0.insert(key, seen);
                        bearer
                    }
                    Err(not_good) => return Ok(Err(not_good)),
                }
            }
        };
        // As its signature was checked at another time, and clocks are set.
        if now >= bearer.expires_at {
            return Ok(Err("expired".into()));
        }
        if !bearer.claims.has_begun(now) {
            return Ok(Err(messages::word_of(BadToken::NotYet).into()));
        }
        locked(&self.seen).insert(bearer.claims.jti.clone(), now);
        Ok(Ok(bearer))
    }

    /// What a token says that we signed.
    fn signed(&self, keys: &KeyRing, token: &Secret, now: i64) -> Result<Claims, BadToken> {
        let expect = Expect { issuer: &self.config.site.public_url, audience: None };
        keys.verify(token.expose(), &expect, now)
    }

    async fn look_up(&self, claims: Claims) -> Result<Result<Bearer, NotGood>, Problem> {
        let id = claims.jti.clone();
        let found = self.read(move |db| {
            let Some(token) = store::tokens::by_id(db, &id)? else { return Ok(None) };
            let Some(account) = store::accounts::by_id(db, token.account)? else { return Ok(None) };
            let service = account.service.clone();
            let tags =
                service.as_ref().map(|service| store::accounts::tags_of_service(db, service)).transpose()?;
            let service = service.zip(tags).map(|(name, tags)| Service { name, tags });
            Ok(Some((token, account, service)))
        });
        let Some((stored, account, service)) = found.await? else {
            // Signed by us, and not there: of an account that was removed, or by somebody who has the key.
            return Ok(Err(NotGood { why: "unknown", of: Name::parse(&claims.sub).ok() }));
        };
        let is_system = matches!(account.account, Account::System { .. });
        let taken = |why| Ok(Err(NotGood { why, of: Some(account.account.name().clone()) }));
        if stored.revoked_at.is_some() {
            return taken("revoked");
        }
        if !account.enabled {
            return taken("account-disabled");
        }
        if account.account.name().as_str() != claims.sub || (stored.kind == TokenKind::Issued) != is_system {
            return taken("of-another-account");
        }
        Ok(Ok(Bearer {
            claims,
            account_id: account.id,
            account: account.account,
            tags: account.tags,
            service,
            audience: stored.audience,
            created_at: stored.created_at,
            expires_at: stored.expires_at,
        }))
    }

    /// A request, with whoever shows the token.
    ///
    /// # Errors
    /// There is a token, and it is not good.
    pub async fn ask(&self, caller: mcdsl::http::Caller, token: Option<Secret>) -> Result<Ask, Problem> {
        let Some(token) = token else { return Ok(Ask { caller, bearer: None }) };
        let NotGood { why, of } = match self.bearer(&token).await? {
            Ok(bearer) => return Ok(Ask { caller, bearer: Some(bearer) }),
            Err(not_good) => not_good,
        };
        self.counters.bad_token(why);
        let problem = Problem::unauthenticated(format!("the token is not good: {why}; log in again"));
        let Some(of) = of.filter(|of| self.told.is_due(of, why, self.clock.elapsed())) else {
            return Err(problem);
        };
        let event = Event::new("token.use", of.as_str()).because(why);
        Err(self.refuse(&Ask { caller, bearer: None }, event, problem).await)
    }

    /// Whether the policy lets an account in to a service.
    pub(super) fn allowed(&self, account: &Account, service: &Service) -> Result<(), Problem> {
        let policy = self.policy.load();
        let explained = policy.1.explain(account, service);
        if explained.effect == Effect::Allow {
            return Ok(());
        }
        let by = explained.by.map_or("its default".to_owned(), |rule| format!("rule `{}`", rule.name));
        let detail = format!("the login policy does not let {} in to {}: {by}", account.name(), service.name);
        Err(Problem::new(Kind::Forbidden, "denied-by-policy", detail))
    }

    /// The same for each of these services, as they are registered.
    pub(super) async fn allowed_at(
        &self,
        account: &Account,
        services: &[Name],
    ) -> Result<Result<(), Problem>, Problem> {
        let others = services.iter().filter(|name| **name != self.service.name).cloned();
        let others: Vec<Name> = others.collect();
        let mut all = Vec::new();
        // Most logins name none: they need not wait for a reader.
        if !others.is_empty() {
            let registered = self.read(move |db| {
                let of =
                    |name: Name| Ok(Service { tags: store::accounts::tags_of_service(db, &name)?, name });
                others.into_iter().map(of).collect::<rusqlite::Result<Vec<_>>>()
            });
            all = registered.await?;
        }
        if services.contains(&self.service.name) {
            all.push(self.service.clone());
        }
        Ok(all.iter().try_for_each(|service| self.allowed(account, service)))
    }

    /// RFC 7662. The service that asks is what the login policy is asked about.
    ///
    /// # Errors
    /// Whoever asks is no service, or the database cannot be used.
    pub async fn introspect(&self, ask: &Ask, request: IntrospectRequest) -> Result<Introspection, Problem> {
        let service = self.asking_service(ask, "introspect").await?;
        let token = Secret::from(request.token);
        let bearer = self.bearer(&token).await?;
        let (event, why) = match &bearer {
            Err(NotGood { why, of }) => {
                (of.as_ref().map(|of| Event::new("introspect", of.as_str()).because(*why)), *why)
            }
            Ok(bearer) => {
                let event = Event::new("introspect", bearer.account.name().as_str());
                if !bearer.is_for(&service.name) {
                    (Some(event.because("wrong-audience")), "wrong-audience")
                } else if let Err(problem) = self.allowed(&bearer.account, &service) {
                    (Some(event.because(problem.detail)), "denied-by-policy")
                } else {
                    self.counters.introspected();
                    return Ok(messages::introspection(bearer));
                }
            }
        };
        self.counters.bad_token(why);
        let Some(event) = event else { return Ok(messages::inactive()) };
        // What is answered is `no`; but not before it is in the log.
        let no = Problem::unauthenticated("the token is not active");
        let problem = self.refuse(ask, event.through(service.name.as_str()), no).await;
        if problem.kind == Kind::Unauthenticated { Ok(messages::inactive()) } else { Err(problem) }
    }

    /// The service that a system account asks for.
    pub(super) async fn asking_service(&self, ask: &Ask, action: &'static str) -> Result<Service, Problem> {
        let Some(bearer) = &ask.bearer else {
            return Err(Problem::unauthenticated("this takes the token of a system account"));
        };
        match bearer.service.clone() {
            Some(service) if bearer.is_for(&self.service.name) => Ok(service),
            Some(_) => {
                let problem = Problem::forbidden("this token is for other services than MCIAS");
                Err(self.refuse(ask, Event::new(action, ""), problem).await)
            }
            None => {
                let detail = format!("{} is a person's account: this is for services", bearer.account.name());
                Err(self.refuse(ask, Event::new(action, ""), Problem::forbidden(detail)).await)
            }
        }
    }
}
