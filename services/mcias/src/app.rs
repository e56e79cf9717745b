//! What may be asked of MCIAS, whichever way it is asked: REST, gRPC, pages and the command line all come here.
//!
//! A use case takes who is asking and a message, decides, and answers with a message or a [`Problem`]. What changes
//! something is written together with its audit entry; what is refused is written to the audit log before it is answered.

mod accounts;
mod bearer;
mod event;
mod jobs;
mod login;
mod me;
mod messages;
mod passkeys;
mod password;
mod policy;
mod site;
mod tokens;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use mcdsl::clock::Clock;
use mcdsl::db::{Database, DbError, WriteError};
use mcdsl::http::Caller;
use mcdsl::problem::{Kind, Problem};
use rusqlite::Connection;

pub use bearer::Bearer;
pub use jobs::Counters;

use crate::config::Config;
use crate::domain::password::Hasher;
use crate::domain::policy::{Policy, Service};
use crate::domain::steady::Steady;
use crate::domain::throttle::Throttle;
use crate::domain::token::KeyRing;
use crate::domain::{Account, Name};
use crate::store;
use event::Event;

/// MCIAS, running.
#[derive(Debug)]
pub struct Mcias {
    config: Config,
    clock: Clock,
    db: Database,
    /// MCIAS as a service: its name in the login policy and in audiences. It has no tags.
    service: Service,
    policy: Arc<ArcSwap<(i64, Policy)>>,
    /// Set by the writer alone, in the order in which changes are written.
    keys: Arc<ArcSwap<KeyRing>>,
    hashing: password::Hashing,
    throttle: Mutex<Throttle>,
    bearers: bearer::Bearers,
    /// Refused tokens that the audit log was told of lately.
    told: bearer::Told,
    /// Grows with each change that may make a token invalid: what was read before is not believed any more.
    generation: Arc<AtomicU64>,
    /// When tokens were last seen, until that is written.
    seen: Mutex<HashMap<String, i64>>,
    passkeys: passkeys::Ceremonies,
    /// Second factors that wait to be confirmed, by account.
    enrolments: Mutex<HashMap<i64, me::Enrolment>>,
    /// Since when the clock was not set.
    steady: Mutex<Steady>,
    counters: Counters,
}

/// A request: where it comes from, and whose it is.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Where it comes from.
    pub caller: Caller,
    /// The token it shows, where it shows one that is good.
    pub bearer: Option<Arc<Bearer>>,
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
        /// Where.
        database: std::path::PathBuf,
    },
    /// The public address is none for passkeys.
    #[error("site.public_url: passkeys cannot be bound to it: {0}")]
    Origin(String),
    /// Argon2id's parameters.
    #[error("passwords.argon2: {0}")]
    Argon2(#[from] crate::domain::password::BadParams),
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Refused(#[from] Problem),
    #[error(transparent)]
    Sql(#[from] rusqlite::Error),
}

impl Mcias {
    /// Opens the database and reads what is decided by. Makes the first signing key where there is none.
    ///
    /// # Errors
    /// It cannot start.
    pub async fn open(config: Config, clock: Clock) -> Result<Self, StartError> {
        let path = config.database();
        let db = Database::open(&path, &store::SCHEMA, READERS)?;
        let unusable = |what| StartError::Stored { what, database: path.clone() };
        let (revision, document) = db.read(store::policy::get).await?;
        let policy = Policy::new(document.rules, document.default).map_err(|_same| unusable("the policy"))?;
        let keys = site::first_keys(&db, &clock).await?.ok_or_else(|| unusable("a signing key"))?;
        let service = Service { name: Name::parse("mcias").expect("it is a name"), tags: BTreeSet::new() };
        Ok(Self {
            hashing: password::Hashing::new(Hasher::new(config.passwords.argon2)?, &config.passwords),
            throttle: Mutex::new(Throttle::new(config.throttle)),
            passkeys: passkeys::Ceremonies::new(&config.site).map_err(StartError::Origin)?,
            policy: Arc::new(ArcSwap::from_pointee((revision, policy))),
            keys: Arc::new(ArcSwap::from_pointee(keys)),
            bearers: bearer::Bearers::new(),
            told: bearer::Told::new(),
            generation: Arc::default(),
            seen: Mutex::default(),
            enrolments: Mutex::default(),
            steady: Mutex::new(Steady::new(clock.elapsed(), clock.unix_s())),
            counters: Counters::default(),
            config,
            clock,
            db,
            service,
        })
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
        self.db.read(work).await.map_err(|error| storage(&error))
    }

    /// Makes a change, with its entry in the audit log. What it refuses is written there too.
    async fn change<T, F>(&self, ask: &Ask, event: Event, work: F) -> Result<T, Problem>
    where
        F: FnOnce(&Connection, &mut Event) -> Result<T, Fault> + Send + 'static,
        T: Send + 'static,
    {
        self.change_then(ask, event, work, |_value| ()).await
    }

    /// The same, with what follows once it is on the disk, whether or not anybody still waits for the answer.
    async fn change_then<T, F, G>(&self, ask: &Ask, event: Event, work: F, then: G) -> Result<T, Problem>
    where
        F: FnOnce(&Connection, &mut Event) -> Result<T, Fault> + Send + 'static,
        G: FnOnce(&T) + Send + 'static,
        T: Send + 'static,
    {
        let (refused, generation) = (event.clone(), Arc::clone(&self.generation));
        let changed = self.write_then(ask, event, work, move |value| {
            then(value);
            // Whatever was read before, and by what it was judged, may have changed: it is read again.
            generation.fetch_add(1, Ordering::Release);
        });
        match changed.await {
            Err(problem) if matches!(problem.kind, Kind::Forbidden | Kind::Unauthenticated) => {
                Err(self.refuse(ask, refused, problem).await)
            }
            other => other,
        }
    }

    /// The same for what makes no token invalid: a login.
    async fn write<T, F>(&self, ask: &Ask, event: Event, work: F) -> Result<T, Problem>
    where
        F: FnOnce(&Connection, &mut Event) -> Result<T, Fault> + Send + 'static,
        T: Send + 'static,
    {
        self.write_then(ask, event, work, |_value| ()).await
    }

    async fn write_then<T, F, G>(&self, ask: &Ask, mut event: Event, work: F, then: G) -> Result<T, Problem>
    where
        F: FnOnce(&Connection, &mut Event) -> Result<T, Fault> + Send + 'static,
        G: FnOnce(&T) + Send + 'static,
        T: Send + 'static,
    {
        let (ask, at_ms) = (ask.clone(), self.clock.unix_ms());
        let work = move |db: &Connection| {
            still_good(db, &ask, at_ms.div_euclid(1000))?;
            let done = work(db, &mut event)?;
            store::audit::append(db, event.entry(&ask, at_ms, event::DONE))?;
            Ok::<_, Fault>(done)
        };
        self.db.write_then(work, then).await.map_err(|error| self.fault(error))
    }

    /// Writes a refusal to the audit log. The problem to answer with: another one, where that cannot be written.
    async fn refuse(&self, ask: &Ask, event: Event, problem: Problem) -> Problem {
        let (ask, at_ms) = (ask.clone(), self.clock.unix_ms());
        let event = if event.detail.is_empty() { event.because(problem.reason) } else { event };
        let written = self.db.write(move |db| {
            store::audit::append(db, event.entry(&ask, at_ms, event::REFUSED)).map_err(Fault::from)
        });
        match written.await {
            Ok(()) => problem,
            Err(error) => self.fault(error),
        }
    }

    fn fault(&self, error: WriteError<Fault>) -> Problem {
        match error {
            WriteError::Refused(Fault::Refused(problem)) => problem,
            WriteError::Refused(Fault::Sql(error)) => {
                storage(&DbError::sqlite(&self.config.database(), error))
            }
            WriteError::Db(error) => storage(&error),
        }
    }

    fn throttle(&self) -> MutexGuard<'_, Throttle> {
        locked(&self.throttle)
    }

    fn now(&self) -> i64 {
        self.clock.unix_s()
    }

    /// Who is asking, where that is a person whom the policy lets in here, or a service.
    ///
    /// # Errors
    /// Nobody, or somebody who may not: that is in the audit log then.
    async fn who<'a>(&self, ask: &'a Ask, action: &'static str) -> Result<&'a Bearer, Problem> {
        let Some(bearer) = &ask.bearer else {
            let detail = "this takes a token: `authorization: Bearer <token>`; `mciasctl login` gets one";
            return Err(Problem::unauthenticated(detail));
        };
        let event = || Event::new(action, "");
        if !bearer.is_for(&self.service.name) {
            let problem = Problem::forbidden("this token is for other services than MCIAS");
            return Err(self.refuse(ask, event(), problem).await);
        }
        if let Err(problem) = self.allowed(&bearer.account, &self.service) {
            return Err(self.refuse(ask, event(), problem).await);
        }
        Ok(bearer)
    }

    /// Who is asking, where that is a person.
    async fn person<'a>(&self, ask: &'a Ask, action: &'static str) -> Result<&'a Bearer, Problem> {
        let bearer = self.who(ask, action).await?;
        match &bearer.account {
            Account::Human { .. } => Ok(bearer),
            Account::System { name } => {
                let detail = format!("{name} is a system account: this is for people");
                Err(self.refuse(ask, Event::new(action, ""), Problem::forbidden(detail)).await)
            }
        }
    }

    /// Who is asking, where that is an admin.
    async fn admin<'a>(
        &self,
        ask: &'a Ask,
        action: &'static str,
        target: &str,
    ) -> Result<&'a Bearer, Problem> {
        let bearer = self.who(ask, action).await?;
        if bearer.account.roles().has(crate::domain::Role::Admin) {
            return Ok(bearer);
        }
        let detail = format!("this takes the role `admin`, which {} has not", bearer.account.name());
        Err(self.refuse(ask, Event::new(action, target), Problem::forbidden(detail)).await)
    }

    /// Who is asking, where that is a person who has just logged in.
    async fn fresh<'a>(&self, ask: &'a Ask, action: &'static str) -> Result<&'a Bearer, Problem> {
        let bearer = self.person(ask, action).await?;
        self.recent(ask, bearer, action, "").await?;
        Ok(bearer)
    }

    /// That whoever asks has just logged in.
    async fn recent(
        &self,
        ask: &Ask,
        bearer: &Bearer,
        action: &'static str,
        target: &str,
    ) -> Result<(), Problem> {
        let age = self.now() - bearer.created_at;
        if (0..=self.config.tokens.fresh_s).contains(&age) {
            return Ok(());
        }
        let detail = "your login was too long ago for this: log in again";
        let problem = Problem::new(Kind::Forbidden, "fresh-login-required", detail);
        Err(self.refuse(ask, Event::new(action, target), problem).await)
    }

    /// Whether whoever asks may see a page that shows nothing of its own.
    ///
    /// # Errors
    /// They may not: that is in the audit log then.
    pub async fn may_look(&self, ask: &Ask, for_admins: bool) -> Result<(), Problem> {
        let looks = if for_admins { self.admin(ask, "page", "").await } else { self.who(ask, "page").await };
        looks.map(drop)
    }

    /// Refuses a form that is not from a page of ours, sent by a browser in which somebody is logged in.
    pub async fn forged(&self, ask: &Ask, problem: Problem) -> Problem {
        self.refuse(ask, Event::new("form", ""), problem).await
    }
}

/// That whoever asks is still who they were when the request began: its body may have come much later.
fn still_good(db: &Connection, ask: &Ask, now: i64) -> Result<(), Fault> {
    let Some(bearer) = &ask.bearer else { return Ok(()) };
    let token = store::tokens::by_id(db, &bearer.claims.jti)?;
    let is_live = token.is_some_and(|token| token.revoked_at.is_none() && token.expires_at > now);
    let account = store::accounts::by_id(db, bearer.account_id)?;
    if is_live && account.is_some_and(|account| account.enabled && account.account == bearer.account) {
        return Ok(());
    }
    Err(Problem::unauthenticated("the token is not good any more: log in again").into())
}

/// Connections for reading.
const READERS: usize = 4;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is under these locks is changed by single insertions and removals.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What whoever asked is told when the database cannot be used. The log says the rest.
fn storage(error: &DbError) -> Problem {
    match error {
        DbError::Full(_) | DbError::ReadOnly(_) | DbError::Closed(_) => {
            tracing::error!(error = mcdsl::chain(error), "the database cannot be written");
            Problem::new(
                Kind::Unavailable,
                "storage",
                "nothing can be stored now, and nothing was: try again later",
            )
        }
        _ => Problem::internal(error),
    }
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
