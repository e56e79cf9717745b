//! A service's database with its audit log: each change is written in one transaction with its entry, and each refusal is written before it is
//! answered.
//!
//! A change consumes a [`Permit`], by way of the [`Event`] that it becomes. Refusals of the same account, action and reason are coalesced by their
//! target and source: the first is written, those of the next ten minutes are counted and written as one entry, and beyond
//! a number of targets and sources all others are one more, so that nobody fills the disk by being refused. A change that changes nothing has
//! no entry.

mod api;
mod chain;
mod refusals;
mod store;
#[cfg(test)]
mod tests;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::Connection;

pub use chain::{Broken, Checkpoint, Entry, Hash, START};
pub use store::TABLE;

use crate::clock::Clock;
use crate::context::{NOBODY, RequestContext};
use crate::db::{Database, DbError, WriteError};
use crate::identity::Name;
use crate::permit::Permit;
use crate::problem::{Kind, Problem};
use refusals::{RecentRefusals, Refusal};

/// A database whose changes are in its audit log.
#[derive(Debug)]
pub struct AuditedDatabase {
    db: Database,
    clock: Clock,
    service: Name,
    revalidate: Revalidate,
    refusals: Mutex<RecentRefusals>,
}

/// Whether the caller is still who they were when the request began: its body may have come much later. Called within each change, with the
/// time in seconds since 1970.
pub type Revalidate = fn(&Connection, &RequestContext, i64) -> Result<(), Fault>;

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It is refused.
    #[error(transparent)]
    Refused(#[from] Problem),
    /// The database failed.
    #[error(transparent)]
    Sql(#[from] rusqlite::Error),
}

/// Something that is permitted and about to be done, as its audit entry describes it.
#[derive(Clone, Debug)]
pub struct Event {
    context: RequestContext,
    action: &'static str,
    /// What it is done to.
    pub target: String,
    /// Details, without secrets.
    pub detail: String,
    /// Who does it, where that is not the caller: somebody who logs in.
    pub actor: Option<String>,
    /// The service through which it is requested, where that is another one.
    pub through: Option<String>,
    unchanged: bool,
}

impl From<Permit> for Event {
    fn from(permit: Permit) -> Self {
        let (context, action, target) = permit.into_parts();
        Self::of(context, action).with_target(target)
    }
}

impl Event {
    /// An event of a request that is refused.
    #[must_use]
    pub const fn of(context: RequestContext, action: &'static str) -> Self {
        Self {
            context,
            action,
            target: String::new(),
            detail: String::new(),
            actor: None,
            through: None,
            unchanged: false,
        }
    }

    /// With these details.
    #[must_use]
    pub fn with_detail(self, detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), ..self }
    }

    /// With this target.
    #[must_use]
    pub fn with_target(self, target: impl Into<String>) -> Self {
        Self { target: target.into(), ..self }
    }

    /// By an account that is not the caller yet.
    #[must_use]
    pub fn with_actor(self, actor: impl Into<String>) -> Self {
        Self { actor: Some(actor.into()), ..self }
    }

    /// Requested through another service.
    #[must_use]
    pub fn through(self, service: impl Into<String>) -> Self {
        Self { through: Some(service.into()), ..self }
    }

    /// The request.
    #[must_use]
    pub const fn context(&self) -> &RequestContext {
        &self.context
    }

    /// Says that nothing had to be changed: then there is no entry.
    pub const fn unchanged(&mut self) {
        self.unchanged = true;
    }

    fn entry(&self, service: &Name, at_ms: i64, outcome: Outcome) -> Entry {
        let source = self.context.client.ip();
        Entry {
            number: 0,
            at_ms,
            actor: self.actor.clone().unwrap_or_else(|| self.context.principal.name()),
            action: self.action.to_owned(),
            target: shortened(&self.target),
            outcome: outcome.as_str().to_owned(),
            detail: shortened(&self.detail),
            source: if source.is_unspecified() { String::new() } else { source.to_string() },
            service: self.through.clone().unwrap_or_else(|| service.to_string()),
            request_id: self.context.request_id.to_string(),
        }
    }
}

/// The outcome of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was refused.
    Refused,
}

impl Outcome {
    /// `done` or `refused`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
        }
    }
}

/// A text of the log: what a client sent may be long, and the log is kept for ever.
fn shortened(text: &str) -> String {
    text.char_indices().nth(MAX_CHARACTERS).map_or(text, |(end, _)| &text[..end]).to_owned()
}

const MAX_CHARACTERS: usize = 256;

impl AuditedDatabase {
    /// A database with the table of [`TABLE`].
    #[must_use]
    pub fn new(db: Database, clock: Clock, service: Name, revalidate: Revalidate) -> Self {
        Self { db, clock, service, revalidate, refusals: Mutex::default() }
    }

    /// The database itself, for what is no request's: jobs that write no more than what was permitted before.
    #[must_use]
    pub const fn database(&self) -> &Database {
        &self.db
    }

    /// Reads.
    ///
    /// # Errors
    /// The database failed.
    pub async fn read<T, F>(&self, work: F) -> Result<T, Problem>
    where
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        self.db.read(work).await.map_err(|error| storage(&error))
    }

    /// Makes a change with its audit entry. When it returns, both are on the disk, or neither is.
    ///
    /// # Errors
    /// The change is refused, which is in the log then where the caller was not permitted; or the database failed.
    pub async fn change<T, F>(&self, event: impl Into<Event>, work: F) -> Result<T, Problem>
    where
        F: FnOnce(&Connection, &mut Event) -> Result<T, Fault> + Send + 'static,
        T: Send + 'static,
    {
        self.change_then(event, work, |_value| ()).await
    }

    /// The same, with what follows once it is on the disk, even if nobody waits for the response any more.
    ///
    /// # Errors
    /// As [`AuditedDatabase::change`].
    pub async fn change_then<T, F, G>(&self, event: impl Into<Event>, work: F, then: G) -> Result<T, Problem>
    where
        F: FnOnce(&Connection, &mut Event) -> Result<T, Fault> + Send + 'static,
        G: FnOnce(&T) + Send + 'static,
        T: Send + 'static,
    {
        let mut event: Event = event.into();
        let refused = event.clone();
        let (at_ms, revalidate, service) = (self.clock.unix_ms(), self.revalidate, self.service.clone());
        let work = move |db: &Connection| {
            revalidate(db, &event.context, at_ms.div_euclid(1000))?;
            let done = work(db, &mut event)?;
            if !event.unchanged {
                store::append(db, event.entry(&service, at_ms, Outcome::Done))?;
            }
            Ok::<_, Fault>((done, !event.unchanged))
        };
        let follow = move |(value, changed): &(T, bool)| {
            if *changed {
                then(value);
            }
        };
        match self.db.write_then(work, follow).await {
            Ok((value, _)) => Ok(value),
            Err(error) => match self.problem(error) {
                problem if matches!(problem.kind, Kind::Forbidden | Kind::Unauthenticated) => {
                    Err(self.refuse(refused, problem).await)
                }
                problem => Err(problem),
            },
        }
    }

    /// Records a refusal. Returns the problem to answer with: another one where that cannot be written.
    pub async fn refuse(&self, event: impl Into<Event>, problem: Problem) -> Problem {
        let (kind, entry) = refusal(event.into(), &problem, &self.service, self.clock.unix_ms());
        if !self.refusals().is_due(kind.clone(), &entry, self.clock.elapsed()) {
            return problem;
        }
        let append = entry.clone();
        let written = self.db.write(move |db| store::append(db, append).map_err(Fault::from)).await;
        let Err(error) = written else { return problem };
        self.refusals().not_written(kind, entry, self.clock.elapsed());
        self.problem(error)
    }

    /// Writes the refusals that were only counted: each ten minutes, and at the end.
    ///
    /// # Errors
    /// The database failed: they are counted on.
    pub async fn write_refusals(&self, all: bool) -> Result<(), Problem> {
        let (due, at_ms) = (self.refusals().take_due(self.clock.elapsed(), all), self.clock.unix_ms());
        if due.is_empty() {
            return Ok(());
        }
        let entries: Vec<_> = due.iter().map(|counted| Entry { at_ms, ..counted.entry() }).collect();
        let write = move |db: &Connection| {
            entries.into_iter().try_for_each(|entry| store::append(db, entry).map_err(Fault::from))
        };
        self.db.write(write).await.map_err(|error| {
            self.refusals().count_on(due, self.clock.elapsed());
            self.problem(error)
        })
    }

    /// Records a refusal that [`crate::permit::authorize`] decides.
    pub async fn refuse_access(
        &self,
        context: &RequestContext,
        action: &'static str,
        target: &str,
        problem: Problem,
    ) -> Problem {
        self.refuse(Event::of(context.clone(), action).with_target(target), problem).await
    }

    fn refusals(&self) -> MutexGuard<'_, RecentRefusals> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn problem(&self, error: WriteError<Fault>) -> Problem {
        match error {
            WriteError::Refused(Fault::Refused(problem)) => problem,
            WriteError::Refused(Fault::Sql(error)) => storage(&DbError::sqlite(self.db.path(), error)),
            WriteError::Db(error) => storage(&error),
        }
    }
}

/// A refusal as an entry, and what it has in common with those that it is coalesced with.
fn refusal(mut event: Event, problem: &Problem, service: &Name, at_ms: i64) -> (Refusal, Entry) {
    event.detail = match event.detail.as_str() {
        "" => problem.reason.to_owned(),
        detail => format!("{}; {detail}", problem.reason),
    };
    let entry = event.entry(service, at_ms, Outcome::Refused);
    // Where the caller is not known, it is about its target: whose token was used, who logs in.
    let account = if entry.actor == NOBODY { &entry.target } else { &entry.actor };
    let kind = Refusal { account: account.clone(), action: event.action, reason: problem.reason };
    (kind, entry)
}

/// Refusals in the log on standard error: for a service that stores nothing. They are coalesced as entries of an audit log are, so that no
/// caller fills it.
#[derive(Debug)]
pub struct RefusalLog {
    service: Name,
    clock: Clock,
    recent: Mutex<RecentRefusals>,
}

impl RefusalLog {
    /// A log of the service with this name.
    #[must_use]
    pub fn new(service: Name, clock: Clock) -> Self {
        Self { service, clock, recent: Mutex::default() }
    }

    /// Records a refusal, and those that were only counted once their time is over. The number of lines that were written.
    pub fn refused(
        &self,
        context: &RequestContext,
        action: &'static str,
        target: &str,
        problem: &Problem,
    ) -> usize {
        let event = Event::of(context.clone(), action).with_target(target);
        let (kind, entry) = refusal(event, problem, &self.service, self.clock.unix_ms());
        let now = self.clock.elapsed();
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due: Vec<Entry> = recent.take_due(now, false).iter().map(refusals::Counted::entry).collect();
        if recent.is_due(kind, &entry, now) {
            due.push(entry);
        }
        drop(recent);
        for Entry { actor, action, target, detail, source, request_id, .. } in &due {
            tracing::warn!(actor, action, on = target, reason = detail, source, request_id, "refused");
        }
        due.len()
    }
}

/// How often refusals that were only counted are written.
pub const REFUSALS_WINDOW: Duration = Duration::from_secs(600);

/// What the client gets where the database fails. The log has the cause.
#[must_use]
pub fn storage(error: &DbError) -> Problem {
    match error {
        DbError::Full(_)
        | DbError::ReadOnly(_)
        | DbError::Closed(_)
        | DbError::InUse(_)
        | DbError::Io { .. } => {
            tracing::error!(error = crate::chain(error), "the database cannot be written");
            let detail = "Storage is unavailable; the change was not made. Retry later.";
            Problem::new(Kind::Unavailable, "storage", detail)
        }
        _ => Problem::internal(error),
    }
}
