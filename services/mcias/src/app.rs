//! MCIAS's use cases: REST, gRPC, pages and commands on the server all come here.
//!
//! A use case takes a permit and a message, decides, and returns a message or a [`Problem`]. A change is written together with its audit entry.

mod accounts;
mod audit;
mod jobs;
mod keys;
mod login;
mod login_tests;
mod me;
mod messages;
mod passkeys;
mod password;
mod policy;
mod tokens;
mod validate;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use mc_api::operation::Operation;
use mcdsl::audit::{AuditedDatabase, Event, Fault};
use mcdsl::clock::Clock;
use mcdsl::context::RequestContext;
use mcdsl::db::{Database, DbError, WriteError};
use mcdsl::http::Limits;
use mcdsl::identity::{Identity, Name, ServiceContext};
use mcdsl::operation::RouteTable;
use mcdsl::permit::{Access, Authority, Permit, authorize};
use mcdsl::policy::{InForce, PolicyHost as _};
use mcdsl::problem::Problem;
use mcdsl::secret::Secret;
use rusqlite::Connection;
use tokio::sync::Semaphore;

pub use jobs::Counters;

use crate::config::{Config, Site};
use crate::domain::clock_stability::ClockStability;
use crate::domain::failure_log::FailureLog;
use crate::domain::password::Hasher;
use crate::domain::policy::SPEC;
use crate::domain::throttle::Throttle;
use crate::domain::token::KeyRing;
use crate::store;

/// MCIAS, running.
#[derive(Debug)]
pub struct Mcias {
    config: Config,
    clock: Clock,
    db: Arc<AuditedDatabase>,
    /// MCIAS as a service: its name in the login policy and in audiences. It has no tags.
    service: ServiceContext,
    policy: InForce,
    /// Set by the database's writer only, in the order in which changes are written.
    keys: Arc<ArcSwap<KeyRing>>,
    hashing: password::Hashing,
    throttle: Mutex<Throttle>,
    failure_log: Mutex<FailureLog>,
    /// Places for answers that are held.
    held_answers: Semaphore,
    validated: validate::Validated,
    /// Raised by each change that may make a token invalid: what was validated before is looked up again.
    generation: Arc<AtomicU64>,
    /// When tokens were last used, until that is written.
    last_used: Mutex<HashMap<String, i64>>,
    passkeys: passkeys::Ceremonies,
    /// TOTP secrets that wait to be confirmed, by account.
    enrolments: Mutex<HashMap<i64, me::Enrolment>>,
    /// Since when the clock was not set.
    clock_stability: Mutex<ClockStability>,
    counters: Counters,
}

/// The use cases, for one caller of this process: each call is authorised as a request of the API is.
#[derive(Clone, Debug)]
pub struct Calls {
    app: Arc<Mcias>,
    context: RequestContext,
}

/// Why MCIAS cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its database.
    #[error(transparent)]
    Db(#[from] DbError),
    /// What is in it.
    #[error("{what} in {database} cannot be used: restore the database from a backup")]
    Stored {
        /// What it is.
        what: &'static str,
        /// Where it is.
        database: std::path::PathBuf,
    },
    /// Tokens and passkeys are bound to another public address.
    #[error(
        "site.public_url is `{new}` and was `{old}`: tokens of `{old}` would be refused, and passkeys are useless at another host name. Write \
         `former_public_urls = [\"{old}\"]` under [site] to accept them until they expire, or set it back"
    )]
    PublicUrl {
        /// The one of the last start.
        old: String,
        /// The configured one.
        new: String,
    },
    /// The public address does not work for passkeys.
    #[error("site.public_url: passkeys cannot be bound to it: {0}")]
    Origin(String),
    /// Argon2id's parameters.
    #[error("passwords.argon2: {0}")]
    Argon2(#[from] crate::domain::password::BadParams),
}

/// All operations of MCIAS.
pub fn operations() -> impl Iterator<Item = &'static &'static Operation> {
    mc_api::mcias::operations::ALL
        .iter()
        .chain(mc_api::audit::operations::ALL)
        .chain(mc_api::policy::operations::ALL)
}

/// The OpenAPI document.
#[must_use]
pub fn openapi() -> serde_json::Value {
    let about = serde_json::json!({
        "title": "MCIAS",
        "version": env!("CARGO_PKG_VERSION"),
        "description": "Identity and access: accounts, tokens, roles, login policy. Times are seconds since 1970 (UTC).",
    });
    let schemas = [mc_api::mcias::SCHEMAS, mc_api::audit::SCHEMAS, mc_api::policy::SCHEMAS];
    mcdsl::operation::document::openapi(operations(), &schemas, &about)
}

mc_api::mcias_operations!(calls Calls, Problem);
mc_api::audit_operations!(calls Calls, Problem);
mc_api::policy_operations!(calls Calls, Problem);

impl Calls {
    /// The use cases for this caller.
    #[must_use]
    pub const fn new(app: Arc<Mcias>, context: RequestContext) -> Self {
        Self { app, context }
    }

    /// The caller.
    #[must_use]
    pub const fn context(&self) -> &RequestContext {
        &self.context
    }

    async fn authorize(&self, operation: &Operation, target: String) -> Result<Permit, Problem> {
        authorize(&*self.app, self.context.clone(), Access::from(operation), target).await
    }

    /// MCIAS itself.
    #[must_use]
    pub const fn service(&self) -> &Arc<Mcias> {
        &self.app
    }
}

impl Mcias {
    /// Opens the database and reads policy and keys. Creates the first signing key where there is none.
    ///
    /// # Errors
    /// It cannot start.
    pub async fn open(config: Config, clock: Clock) -> Result<Self, StartError> {
        let path = config.database();
        let db = Database::open(&path, &store::SCHEMA, READERS)?;
        let unusable = |what| StartError::Stored { what, database: path.clone() };
        let policy = db.read(|db| Ok(InForce::load_from(db, &SPEC))).await?;
        let policy = policy.map_err(|_error| unusable("the login policy"))?;
        let keys = keys::first_keys(&db, &clock).await?.ok_or_else(|| unusable("a signing key"))?;
        bind_to(&db, &config.site).await?;
        let service = own_service();
        let db = Arc::new(AuditedDatabase::new(db, clock.clone(), service.name.clone(), revalidate));
        Ok(Self {
            hashing: password::Hashing::new(Hasher::new(config.passwords.argon2)?, &config.passwords),
            throttle: Mutex::new(Throttle::new(config.throttle)),
            failure_log: Mutex::default(),
            held_answers: Semaphore::new(login::MAX_HELD),
            passkeys: passkeys::Ceremonies::new(&config.site).map_err(StartError::Origin)?,
            policy,
            keys: Arc::new(ArcSwap::from_pointee(keys)),
            validated: validate::Validated::default(),
            generation: Arc::default(),
            last_used: Mutex::default(),
            enrolments: Mutex::default(),
            clock_stability: Mutex::new(ClockStability::new(clock.elapsed(), clock.unix_s())),
            counters: Counters::default(),
            service,
            config,
            clock,
            db,
        })
    }

    /// The table of all operations. Pages are added where the program is wired.
    #[must_use]
    pub fn operations(self: &Arc<Self>, limits: Limits) -> RouteTable<Self> {
        let mut table = RouteTable::new(Arc::clone(self), limits);
        mc_api::mcias_operations!(table &mut table, Self);
        mc_api::audit_operations!(table &mut table, Self);
        mc_api::policy_operations!(table &mut table, Self);
        table
    }

    /// The configuration.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The clock.
    #[must_use]
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Reads.
    async fn read<T, F>(&self, work: F) -> Result<T, Problem>
    where
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        self.db.read(work).await
    }

    /// Makes a change that may make tokens invalid, with its audit entry.
    async fn change<T, F>(&self, event: impl Into<Event>, work: F) -> Result<T, Problem>
    where
        F: FnOnce(&Connection, &mut Event) -> Result<T, Fault> + Send + 'static,
        T: Send + 'static,
    {
        self.change_then(event, work, |_value| ()).await
    }

    /// The same, with what follows once it is on the disk.
    async fn change_then<T, F, G>(&self, event: impl Into<Event>, work: F, then: G) -> Result<T, Problem>
    where
        F: FnOnce(&Connection, &mut Event) -> Result<T, Fault> + Send + 'static,
        G: FnOnce(&T) + Send + 'static,
        T: Send + 'static,
    {
        let generation = Arc::clone(&self.generation);
        let follow = move |value: &T| {
            then(value);
            generation.fetch_add(1, Ordering::Release);
        };
        self.db.change_then(event, work, follow).await
    }

    fn throttle(&self) -> MutexGuard<'_, Throttle> {
        locked(&self.throttle)
    }

    fn now(&self) -> i64 {
        self.clock.unix_s()
    }
}

impl Authority for Mcias {
    fn service(&self) -> &Name {
        &self.service.name
    }

    async fn authenticate(&self, context: &RequestContext, token: &Secret) -> Result<Arc<Identity>, Problem> {
        self.identify(context, token).await
    }

    fn admit(&self, identity: &Identity) -> Result<(), Problem> {
        self.allowed(&identity.account, &self.service)
    }

    fn is_fresh(&self, identity: &Identity) -> bool {
        (0..=self.config.tokens.reauth_window_s).contains(&(self.now() - identity.authenticated_at))
    }

    async fn refused(
        &self,
        context: &RequestContext,
        action: &'static str,
        target: &str,
        problem: Problem,
    ) -> Problem {
        self.db.refuse_access(context, action, target, problem).await
    }
}

/// Notes the public URL, which must not change unnoticed.
async fn bind_to(db: &Database, site: &Site) -> Result<(), StartError> {
    let sqlite = |error: WriteError<rusqlite::Error>| match error {
        WriteError::Db(error) => error,
        WriteError::Refused(error) => DbError::sqlite(db.path(), error),
    };
    let new = site.public_url.clone();
    let old = db.read(store::site::public_url).await?;
    if let Some(old) = old
        && !site.accepts(&old)
    {
        return Err(StartError::PublicUrl { old, new });
    }
    Ok(db.write(move |db| store::site::set_public_url(db, &new)).await.map_err(sqlite)?)
}

/// Whether the token and the account of a request are still what they were when it was authorised.
fn revalidate(db: &Connection, context: &RequestContext, now: i64) -> Result<(), Fault> {
    let Some(identity) = context.identity() else { return Ok(()) };
    let token = store::tokens::by_id(db, &identity.token_id)?;
    let is_valid = token.is_some_and(|token| token.revoked_at.is_none() && token.expires_at > now);
    let account = store::accounts::by_token(db, &identity.token_id)?;
    if is_valid && account.is_some_and(|account| account.enabled && account.account == identity.account) {
        return Ok(());
    }
    Err(Problem::unauthenticated("The token is no longer valid: log in again.").into())
}

/// MCIAS as the login policy sees it.
fn own_service() -> ServiceContext {
    ServiceContext { name: Name::parse("mcias").expect("it is a name"), tags: BTreeSet::new() }
}

/// Connections for reading.
const READERS: usize = 4;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is under these locks is changed by single insertions and removals.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Text of a request as a name.
fn named(field: &'static str, text: &str) -> Result<Name, Problem> {
    Name::parse(text).map_err(|error| Problem::field(field, error.to_string()))
}

/// Random bytes.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system has randomness");
    bytes
}

/// SHA-256.
fn sha256(text: &str) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}
