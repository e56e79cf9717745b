//! An SQLite database that loses nothing acknowledged: WAL, `synchronous=FULL`, one writer.
//!
//! One thread writes. Changes that wait for it go into one transaction, each in a savepoint of its own: one wait for the disk
//! acknowledges them all, and one that fails leaves the others as they are. Any number of threads read, each on a connection of its
//! own, beside the writer. Callers wait without blocking the threads of the runtime.
//!
//! SQL and rows are the service's.

mod error;
mod fault;
mod open;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use tokio::sync::{Semaphore, oneshot};

pub use error::DbError;
pub use open::open;

/// Which application's database it is, and how it is migrated.
#[derive(Clone, Copy, Debug)]
pub struct Schema {
    /// `PRAGMA application_id`: tells the program and `file` which application it belongs to.
    pub application_id: i64,
    /// Each migrates a database from the version that is its index to the next. There is no way back.
    pub migrations: &'static [&'static str],
}

impl Schema {
    /// The version of this program.
    #[must_use]
    pub const fn version(&self) -> i64 {
        self.migrations.len() as i64
    }
}

/// An open database.
#[derive(Debug)]
pub struct Database {
    path: PathBuf,
    writer: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    readers: Arc<Readers>,
    /// Locked while it is open. Dropped after the connections.
    _lock: File,
}

/// Idle connections for reading.
#[derive(Debug)]
struct Readers {
    idle: Mutex<Vec<Connection>>,
    available: Arc<Semaphore>,
}

impl Readers {
    /// A panic under the lock cannot leave anything half done: it is a push or a pop.
    fn lock(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a change was not made. Nothing of it is stored.
#[derive(Debug, thiserror::Error)]
pub enum WriteError<E: std::error::Error + 'static> {
    /// The change itself refused.
    #[error(transparent)]
    Refused(E),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// A change that waits for the writer.
type Job = Box<dyn Work + Send>;

/// A change, with its caller who waits.
trait Work {
    /// Makes the change. Returns whether it is to be kept.
    fn apply(&mut self, savepoint: &Connection) -> bool;

    /// Acknowledges it to the caller: it is on the disk, or why not.
    fn acknowledge(self: Box<Self>, stored: Result<(), DbError>);
}

/// What is to be done after a change is on the disk.
type Follow<T> = Box<dyn FnOnce(&T) + Send>;

struct Change<F, T, E> {
    /// Taken when it is run.
    work: Option<F>,
    done: Option<Result<T, Failed<E>>>,
    /// Run when it is on the disk, even if the caller is gone.
    then: Option<Follow<T>>,
    reply: oneshot::Sender<Result<T, Failed<E>>>,
}

/// Why a change failed.
enum Failed<E> {
    Refused(E),
    Panicked,
    Db(DbError),
}

impl<F, T, E> Work for Change<F, T, E>
where
    F: FnOnce(&Connection) -> Result<T, E>,
{
    fn apply(&mut self, savepoint: &Connection) -> bool {
        let Some(work) = self.work.take() else { return false };
        let done = catch_unwind(AssertUnwindSafe(|| work(savepoint)));
        let done = done.map_or(Err(Failed::Panicked), |done| done.map_err(Failed::Refused));
        let kept = done.is_ok();
        self.done = Some(done);
        kept
    }

    fn acknowledge(self: Box<Self>, stored: Result<(), DbError>) {
        let mut outcome = match (self.done, stored) {
            (Some(Err(failed)), _) => Err(failed),
            (Some(Ok(value)), Ok(())) => Ok(value),
            (_, Err(error)) => Err(Failed::Db(error)),
            (None, Ok(())) => Err(Failed::Panicked),
        };
        if let (Ok(value), Some(then)) = (&outcome, self.then)
            && catch_unwind(AssertUnwindSafe(|| then(value))).is_err()
        {
            outcome = Err(Failed::Panicked);
        }
        // The caller may be gone.
        self.reply.send(outcome).unwrap_or(());
    }
}

/// Most changes in one transaction: bounds how long the first waits for the last.
const MAX_GROUP: usize = 256;

impl Database {
    /// Opens a database with this number of connections for reading. It is created where there is none (mode 0600, its directory 0700), and
    /// migrated where it is older than the schema.
    ///
    /// # Errors
    /// [`DbError`] says what is wrong with it and what to do. A database that cannot be used is not changed.
    pub fn open(path: &Path, schema: &Schema, readers: usize) -> Result<Self, DbError> {
        let (connection, lock) = open(path, schema, None)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let reader = || Connection::open_with_flags(path, flags);
        let idle: Result<Vec<_>, _> = (0..readers.max(1)).map(|_| reader()).collect();
        let idle = idle.map_err(|error| DbError::sqlite(path, error))?;
        let (writer, jobs) = mpsc::channel();
        let at = path.to_owned();
        let thread = std::thread::Builder::new()
            .name("database".to_owned())
            .spawn(move || write_all(connection, &jobs, &at))
            .map_err(|error| DbError::io("start a thread for", path, error))?;
        Ok(Self {
            path: path.to_owned(),
            writer: Some(writer),
            thread: Some(thread),
            readers: Arc::new(Readers {
                available: Arc::new(Semaphore::new(idle.len())),
                idle: Mutex::new(idle),
            }),
            _lock: lock,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a change. When this returns, the change is on the disk, or nothing of it is. `work` runs at most once, on the writer's thread, and
    /// must not block.
    ///
    /// # Errors
    /// [`WriteError`]: of `work`, or of the database.
    ///
    /// # Panics
    /// When `work` does: then nothing of it is stored, and other changes are not affected.
    pub async fn write<T, E, F>(&self, work: F) -> Result<T, WriteError<E>>
    where
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: std::error::Error + Send + 'static,
    {
        self.write_then(work, |_value| ()).await
    }

    /// The same, with what is to be done when the change is on the disk and before it is acknowledged, even if the caller is gone
    /// meanwhile: only so memory follows what is stored. `then` must not block.
    ///
    /// # Errors
    /// As [`Database::write`].
    ///
    /// # Panics
    /// When `work` does: then nothing is stored. When `then` does: then the change is.
    pub async fn write_then<T, E, F, G>(&self, work: F, then: G) -> Result<T, WriteError<E>>
    where
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
        G: FnOnce(&T) + Send + 'static,
        T: Send + 'static,
        E: std::error::Error + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Change { work: Some(work), done: None, then: Some(Box::new(then)), reply };
        let sent = self.writer.as_ref().is_some_and(|writer| writer.send(Box::new(job)).is_ok());
        match (sent, answer.await) {
            (true, Ok(Ok(value))) => Ok(value),
            (true, Ok(Err(Failed::Refused(error)))) => Err(WriteError::Refused(error)),
            (true, Ok(Err(Failed::Db(error)))) => Err(error.into()),
            (true, Ok(Err(Failed::Panicked))) => panic!("a change of the database panicked"),
            _ => Err(DbError::Closed(self.path.clone()).into()),
        }
    }

    /// Commits a change that changes nothing, and waits until it is on the disk: whether changes can be stored.
    ///
    /// # Errors
    /// They cannot: the disk is full, read-only or broken.
    pub async fn probe_write(&self) -> Result<(), DbError> {
        let probe = |db: &Connection| {
            let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
            // The same value again: SQLite writes the page and syncs all the same.
            db.pragma_update(None, "user_version", version)
        };
        self.write(probe).await.map_err(|error| match error {
            WriteError::Refused(error) => DbError::sqlite(&self.path, error),
            WriteError::Db(error) => error,
        })
    }

    /// Reads. `work` runs on a thread that may block, on a connection of its own, and sees one state of the database however many statements
    /// it makes.
    ///
    /// # Errors
    /// The database failed.
    ///
    /// # Panics
    /// When `work` does.
    pub async fn read<T, F>(&self, work: F) -> Result<T, DbError>
    where
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        self.with_reader(|connection| {
            let view = connection.unchecked_transaction()?;
            work(&view)
        })
        .await
    }

    async fn with_reader<T, F>(&self, work: F) -> Result<T, DbError>
    where
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let readers = Arc::clone(&self.readers);
        // Awaited here, so that no thread blocks. It moves to the thread: a read whose caller is gone goes on.
        let permit = Arc::clone(&readers.available).acquire_owned().await;
        let permit = permit.map_err(|_closed| DbError::Closed(self.path.clone()))?;
        let reading = tokio::task::spawn_blocking(move || {
            let connection = readers.lock().pop().expect("there are as many as permits");
            let read = catch_unwind(AssertUnwindSafe(|| work(&connection)));
            readers.lock().push(connection);
            drop(permit);
            read.unwrap_or_else(|panic| resume_unwind(panic))
        });
        match reading.await {
            Ok(read) => read.map_err(|error| DbError::sqlite(&self.path, error)),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                Err(_stopping) => Err(DbError::Closed(self.path.clone())),
            },
        }
    }

    /// A consistent copy, in a file that must not exist, mode 0600, on the disk when this returns. Others read and write meanwhile.
    ///
    /// # Errors
    /// The copy cannot be written: none is left there.
    pub async fn snapshot(&self, to: &Path) -> Result<(), DbError> {
        let (from, target) = (self.path.clone(), to.to_owned());
        let copying = tokio::task::spawn_blocking(move || snapshot(&from, &target));
        copying.await.map_err(|_stopping| DbError::Closed(self.path.clone()))?
    }

    /// What is wrong within the database, in SQLite's words; empty if it is intact.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn check(&self) -> Result<Vec<String>, DbError> {
        self.read(|view| {
            let mut check = view.prepare("PRAGMA integrity_check")?;
            let found: rusqlite::Result<Vec<String>> = check.query_map([], |row| row.get(0))?.collect();
            found.map(|lines| lines.into_iter().filter(|line| line != "ok").collect())
        })
        .await
    }
}

/// A consistent copy of a database that another process may use meanwhile. See [`Database::snapshot`].
///
/// # Errors
/// It is not there, or the copy cannot be written: none is left there.
pub fn snapshot(from: &Path, to: &Path) -> Result<(), DbError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(from, flags).map_err(|error| DbError::sqlite(from, error))?;
    open::create(to)?;
    let copied = db.execute("VACUUM INTO ?1", [to.to_string_lossy()]);
    // SQLite does not wait for the disk here.
    let synced = copied.map_err(|error| DbError::sqlite(to, error)).and_then(|_rows| {
        File::open(to).and_then(|copy| copy.sync_all()).map_err(|error| DbError::io("write", to, error))
    });
    if synced.is_err() {
        std::fs::remove_file(to).unwrap_or(());
    }
    synced
}

impl Drop for Database {
    fn drop(&mut self) {
        // Changes that wait are still written.
        self.writer = None;
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap_or(());
        }
    }
}

/// Writes until the database is dropped.
fn write_all(mut connection: Connection, jobs: &mpsc::Receiver<Job>, path: &Path) {
    while let Ok(first) = jobs.recv() {
        let group = std::iter::once(first).chain(jobs.try_iter()).take(MAX_GROUP).collect();
        write_group(&mut connection, group, path);
    }
}

/// Writes these in one transaction, then acknowledges them.
fn write_group(connection: &mut Connection, mut group: Vec<Job>, path: &Path) {
    let stored = store(connection, &mut group).map_err(|error| DbError::sqlite(path, error));
    for job in group {
        job.acknowledge(stored.clone());
    }
}

fn store(connection: &mut Connection, group: &mut [Job]) -> rusqlite::Result<()> {
    let mut transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for job in group {
        let savepoint = transaction.savepoint()?;
        if job.apply(&savepoint) {
            savepoint.commit()?;
        } else {
            savepoint.finish()?;
        }
    }
    transaction.commit()
}
