//! Whether a token is valid: its signature, and what is stored of it and its account. Every token is judged here.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use mc_api::mcias::{IntrospectRequest, Introspection};
use mcdsl::audit::Event;
use mcdsl::context::RequestContext;
use mcdsl::permit::Permit;
use mcdsl::policy::{Decider, Effect};
use mcdsl::problem::{Kind, Problem};
use mcdsl::secret::Secret;
use quick_cache::sync::Cache;

use super::messages::Valid;
use super::{Mcias, locked, messages, sha256};
use crate::domain::policy;
use crate::domain::token::{BadToken, Claims, Expect, KeyRing};
use crate::domain::{Account, AccountType, Name, ServiceContext};
use crate::store;
use crate::store::tokens::Kind as TokenKind;
use mcdsl::identity::Identity;

/// Tokens that were found valid, by their SHA-256.
#[derive(Debug)]
pub(super) struct Validated(Cache<[u8; 32], Cached>);

#[derive(Clone, Debug)]
struct Cached {
    /// As of which generation.
    generation: u64,
    /// The keys that the signature was verified with: while they are in use, it need not be verified again.
    keys: Arc<KeyRing>,
    valid: Arc<Valid>,
}

/// How many are cached, of some 500 bytes each.
const MAX_CACHED: usize = 10_000;

impl Default for Validated {
    fn default() -> Self {
        Self(Cache::new(MAX_CACHED))
    }
}

/// Why a token is invalid.
#[derive(Clone, Debug)]
pub(super) struct InvalidToken {
    /// In a word of a fixed list.
    pub(super) reason: &'static str,
    /// Its account, where somebody took the token away from it: that is worth an audit entry. A text that is no token of ours names nobody, and
    /// every browser that was left open sends an expired one.
    pub(super) account: Option<Name>,
}

impl From<&'static str> for InvalidToken {
    fn from(reason: &'static str) -> Self {
        Self { reason, account: None }
    }
}

impl Mcias {
    /// The account behind a token.
    pub(super) async fn identify(
        &self,
        context: &RequestContext,
        token: &Secret,
    ) -> Result<Arc<Identity>, Problem> {
        let InvalidToken { reason, account } = match self.validate(token).await? {
            Ok(valid) => return Ok(Arc::clone(&valid.identity)),
            Err(invalid) => invalid,
        };
        self.counters.invalid_token(reason);
        let problem = Problem::unauthenticated(format!("The token is invalid ({reason}): log in again."));
        let Some(account) = account else { return Err(problem) };
        let event = Event::of(context.clone(), "token.use").with_target(account.as_str()).with_detail(reason);
        Err(self.db.refuse(event, problem).await)
    }

    /// Judges a token.
    pub(super) async fn validate(&self, token: &Secret) -> Result<Result<Arc<Valid>, InvalidToken>, Problem> {
        let now = self.now();
        let key = sha256(token.expose());
        // Read before everything else: what is read after a change is newer than the generation says, never older.
        let generation = self.generation.load(Ordering::Acquire);
        let keys = self.keys.load_full();
        let valid = match self.validated.0.get(&key) {
            Some(cached) if cached.generation == generation => cached.valid,
            older => {
                let verified = older.filter(|cached| Arc::ptr_eq(&cached.keys, &keys));
                let claims = match verified {
                    Some(cached) => Ok(cached.valid.claims.clone()),
                    None => self.verified(&keys, token, now),
                };
                let found = match claims {
                    Ok(claims) => self.look_up(claims).await?,
                    Err(error) => Err(messages::reason_of(error).into()),
                };
                match found {
                    Ok(valid) => {
                        let valid = Arc::new(valid);
                        self.validated.0.insert(key, Cached { generation, keys, valid: Arc::clone(&valid) });
                        valid
                    }
                    Err(invalid) => return Ok(Err(invalid)),
                }
            }
        };
        // The signature was verified at another time, and clocks are set.
        if now >= valid.identity.expires_at {
            return Ok(Err("expired".into()));
        }
        if !valid.claims.has_begun(now) {
            return Ok(Err(messages::reason_of(BadToken::NotYet).into()));
        }
        locked(&self.last_used).insert(valid.claims.jti.clone(), now);
        Ok(Ok(valid))
    }

    /// The claims of a token that we signed.
    fn verified(&self, keys: &KeyRing, token: &Secret, now: i64) -> Result<Claims, BadToken> {
        let site = &self.config.site;
        let former = site.former_public_urls.iter().map(String::as_str);
        let issuers: Vec<&str> = [site.public_url.as_str()].into_iter().chain(former).collect();
        let expect = Expect { issuers: &issuers, audience: None };
        keys.verify(token.expose(), &expect, now)
    }

    async fn look_up(&self, claims: Claims) -> Result<Result<Valid, InvalidToken>, Problem> {
        let id = claims.jti.clone();
        let found = self.read(move |db| {
            let Some(token) = store::tokens::by_id(db, &id)? else { return Ok(None) };
            let Some(account) = store::accounts::by_id(db, token.account)? else { return Ok(None) };
            let service = account.service.clone();
            let tags =
                service.as_ref().map(|service| store::accounts::tags_of_service(db, service)).transpose()?;
            let service = service.zip(tags).map(|(name, tags)| ServiceContext { name, tags });
            Ok(Some((token, account, service)))
        });
        let Some((stored, account, service)) = found.await? else {
            // Signed by us, and not stored: of a deleted account, or by somebody who has the key.
            let name = claims.preferred_username.as_ref().unwrap_or(&claims.sub);
            return Ok(Err(InvalidToken { reason: "unknown", account: Name::parse(name).ok() }));
        };
        let is_system = account.account.account_type() == AccountType::System;
        let taken = |reason| Ok(Err(InvalidToken { reason, account: Some(account.account.name().clone()) }));
        if stored.revoked_at.is_some() {
            return taken("revoked");
        }
        if !account.enabled {
            return taken("account-disabled");
        }
        let account_id = account.uuid.to_string();
        // Tokens of before accounts had a UUID name their account.
        let is_its = claims.sub == account_id
            || (claims.preferred_username.is_none() && claims.sub == account.account.name().as_str());
        if !is_its || (stored.kind == TokenKind::Issued) != is_system {
            return taken("of-another-account");
        }
        let identity = Arc::new(Identity {
            account: account.account,
            account_id,
            tags: account.tags,
            token_id: claims.jti.clone(),
            audience: stored.audience,
            service,
            authenticated_at: stored.created_at,
            expires_at: stored.expires_at,
        });
        Ok(Ok(Valid { claims, identity }))
    }

    /// Whether the login policy lets an account use a service.
    pub(super) fn allowed(&self, account: &Account, service: &ServiceContext) -> Result<(), Problem> {
        let current = self.policy.load();
        if policy::decide(&current.policy, account, service) == Effect::Allow {
            return Ok(());
        }
        let rule = match policy::explain(&current.policy, account, service).decider {
            Decider::Rule(rule) => format!("rule `{}`", rule.name),
            Decider::Default | Decider::AdminBypass => "its default".to_owned(),
        };
        let detail =
            format!("The login policy denies {} access to {}: {rule}.", account.name(), service.name);
        Err(Problem::new(Kind::Forbidden, "denied-by-policy", detail))
    }

    /// The same for each of these services, with the tags that they are registered with.
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
                let of = |name: Name| {
                    Ok(ServiceContext { tags: store::accounts::tags_of_service(db, &name)?, name })
                };
                others.into_iter().map(of).collect::<rusqlite::Result<Vec<_>>>()
            });
            all = registered.await?;
        }
        if services.contains(&self.service.name) {
            all.push(self.service.clone());
        }
        Ok(all.iter().try_for_each(|service| self.allowed(account, service)))
    }

    /// RFC 7662. The login policy is evaluated for the service that calls.
    ///
    /// # Errors
    /// The database failed.
    pub(crate) async fn introspect(
        &self,
        permit: Permit,
        request: IntrospectRequest,
    ) -> Result<Introspection, Problem> {
        let service = calling_service(&permit)?.clone();
        let token = Secret::from(request.token);
        let event = |account: &Name| {
            Event::of(permit.context().clone(), permit.action())
                .with_target(account.as_str())
                .through(service.name.as_str())
        };
        let (event, reason) = match self.validate(&token).await? {
            Err(InvalidToken { reason, account }) => {
                (account.map(|account| event(&account).with_detail(reason)), reason)
            }
            Ok(valid) => {
                let account = &valid.identity.account;
                if !valid.identity.is_for(&service.name) {
                    (Some(event(account.name()).with_detail("wrong-audience")), "wrong-audience")
                } else if let Err(problem) = self.allowed(account, &service) {
                    (Some(event(account.name()).with_detail(problem.detail)), "denied-by-policy")
                } else {
                    self.counters.introspected();
                    return Ok(messages::introspection(&valid));
                }
            }
        };
        self.counters.invalid_token(reason);
        let Some(event) = event else { return Ok(Introspection::default()) };
        // The answer is no; but not before it is in the log.
        let inactive = Problem::unauthenticated("The token is not active.");
        let problem = self.db.refuse(event, inactive).await;
        if problem.kind == Kind::Unauthenticated { Ok(Introspection::default()) } else { Err(problem) }
    }
}

/// The service that a system account calls for.
pub(super) fn calling_service(permit: &Permit) -> Result<&ServiceContext, Problem> {
    let service = permit.identity().and_then(|identity| identity.service.as_ref());
    service.ok_or_else(|| Problem::forbidden("This requires the token of a system account."))
}
