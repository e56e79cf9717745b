//! Opens the database file: judged before anything is written to it, then locked down and brought up to date.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::{DbError, Schema, fault};

/// How long a statement waits for someone who reads the database from outside.
const BUSY: Duration = Duration::from_secs(5);

/// How often a lock is tried before it counts as somebody's. It may outlive its holder for a moment: a child process that
/// is being started has its parent's files until it executes its program, and a program that was killed has them until
/// the kernel has ended it.
const ATTEMPTS: u32 = 100;

/// Bytes of log that are kept for reuse after a large change.
const KEPT_LOG: i64 = 4 << 20;

/// Opens a database of this schema, made where there is none (mode 0600, its directory 0700), brought to the schema's
/// version where it is older; with it, the lock that keeps others away.
/// `handed`: the lock, where another process has it and gives it to us.
///
/// # Errors
/// [`DbError`] says what is wrong with it and what to do. A database that cannot be used is not changed.
pub fn open(path: &Path, schema: &Schema, handed: Option<File>) -> Result<(Connection, File), DbError> {
    prepare(path)?;
    let lock = match handed {
        Some(lock) => lock,
        None => lock(path)?,
    };
    let mut connection = connect(path, schema)?;
    restrict(path)?;
    configure(&mut connection, path, schema)?;
    Ok((connection, lock))
}

/// Sees that there is a file; makes an empty one, ours alone to read, where there is none.
fn prepare(path: &Path) -> Result<(), DbError> {
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => return Err(DbError::NotAFile(path.to_owned())),
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(DbError::io("look at", path, error)),
    }
    let directory = directory(path);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| DbError::io("create the directory", directory, error))?;
    create(path)
}

/// Makes a new, empty file, ours alone to read.
pub(super) fn create(path: &Path) -> Result<(), DbError> {
    let directory = directory(path);
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| DbError::io("create", path, error))?;
    // The name must be as durable as what is written under it.
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| DbError::io("write the directory", directory, error))
}

/// Between two attempts.
#[expect(
    clippy::disallowed_methods,
    reason = "that a file's lock is free is no event that can be waited for within a time"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}

/// Keeps a second process away. SQLite's own locks would also keep those away who only read.
fn lock(path: &Path) -> Result<File, DbError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&name)
        .map_err(|error| DbError::io("open", &name, error))?;
    for attempt in 1..=ATTEMPTS {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if attempt < ATTEMPTS => pause(),
            Err(TryLockError::WouldBlock) => break,
            Err(TryLockError::Error(error)) => return Err(DbError::io("lock", &name, error)),
        }
    }
    Err(DbError::InUse(path.to_owned()))
}

/// Opens what is there and judges whose it is. A database that is refused stays as it is, byte for byte:
/// without the flag, closing it would move its log into it.
fn connect(path: &Path, schema: &Schema) -> Result<Connection, DbError> {
    let sqlite = |error| DbError::sqlite(path, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(sqlite)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(sqlite)?;
    connection.busy_timeout(BUSY).map_err(sqlite)?;
    let number =
        |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0)).map_err(sqlite);
    let (id, found) = (number("application_id")?, number("user_version")?);
    let empty = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))
        .map_err(sqlite)?
        == 0;
    if id != schema.application_id && !(empty && id == 0 && found == 0) {
        return Err(DbError::OtherApplication { path: path.to_owned(), id });
    }
    if found > schema.version() {
        return Err(DbError::Newer { path: path.to_owned(), found, known: schema.version() });
    }
    if connection.is_readonly("main").map_err(sqlite)? {
        return Err(DbError::ReadOnly(path.to_owned()));
    }
    Ok(connection)
}

/// Ours alone to read, as SQLite then makes its log.
fn restrict(path: &Path) -> Result<(), DbError> {
    let io = |error| DbError::io("restrict the access to", path, error);
    let mode = fs::metadata(path).map_err(io)?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(io)
}

/// Sets what holds for a connection, and brings the database to this version.
fn configure(connection: &mut Connection, path: &Path, schema: &Schema) -> Result<(), DbError> {
    let sqlite = |error| DbError::sqlite(path, error);
    connection.pragma_update(None, "journal_mode", "WAL").map_err(sqlite)?;
    connection.pragma_update(None, "synchronous", fault::synchronous()).map_err(sqlite)?;
    connection.pragma_update(None, "foreign_keys", true).map_err(sqlite)?;
    connection.pragma_update(None, "journal_size_limit", KEPT_LOG).map_err(sqlite)?;
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(sqlite)?;
    let Some(missing) = usize::try_from(found).ok().and_then(|found| schema.migrations.get(found..)) else {
        return Err(DbError::corrupt(path, format_args!("its version is {found}")));
    };
    if !missing.is_empty() {
        if found > 0 {
            let copy = keep_copy(path, found)?;
            let (copy, to) = (copy.display(), schema.version());
            tracing::info!(database = %path.display(), from = found, to, %copy, "migrating the database; the copy is of before");
        }
        migrate(connection, missing, schema).map_err(sqlite)?;
        // Into the file itself, so that its header says what it is even to those who do not read the log.
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(sqlite)?;
    }
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(sqlite)?;
    Ok(())
}

/// A copy of a database that is about to be migrated, in `backups` beside it: an older program cannot open what a newer one has migrated.
fn keep_copy(path: &Path, version: i64) -> Result<PathBuf, DbError> {
    let backups = directory(path).join("backups");
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&backups)
        .map_err(|error| DbError::io("create the directory", &backups, error))?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    // One of each attempt: nothing is overwritten.
    let free = (1..).map(|number| backups.join(format!("{name}-before-migration-{version}-{number}.db")));
    let copy = free.into_iter().find(|copy| !copy.exists()).expect("there are names enough");
    super::snapshot(path, &copy)?;
    Ok(copy)
}

/// All missing versions in one transaction.
fn migrate(connection: &mut Connection, missing: &[&str], schema: &Schema) -> Result<(), rusqlite::Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for migration in missing {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "application_id", schema.application_id)?;
    transaction.pragma_update(None, "user_version", schema.version())?;
    transaction.commit()
}

/// The directory that the file is in.
fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
