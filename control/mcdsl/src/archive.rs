//! A service's directory as one archive, `.tar.zst`: a full backup, also for moving to another machine.
//!
//! Directories, regular files and symbolic links are kept with their modes, owners and times (whole seconds). Databases are
//! not copied as files: each is packed as a consistent snapshot. An archive is unpacked to a temporary sibling of the target
//! directory, which is renamed once it is complete and on the disk: nothing is half applied. Archives are not trusted: an entry
//! that would leave the directory is refused.
//!
//! Left out: earlier backups (the directory `backups`); sockets and pipes, which the service creates again; hard links (a file with
//! two names is packed twice); extended attributes; setuid and setgid bits.
//!
//! Formats: POSIX pax interchange (IEEE Std 1003.1, pax) and its `ustar`, with GNU's long names; RFC 8878.

mod pack;
#[cfg(test)]
mod tests;
mod unpack;

use std::io;
use std::path::{Component, Path, PathBuf};

pub use pack::{Packed, pack};
pub use unpack::{Unpacked, unpack};

/// Why a directory was not packed, or an archive not unpacked. Nothing partial is left behind.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The operating system reported an error.
    #[error("cannot {what} {}", shown(path))]
    Io {
        /// The operation.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// A snapshot of a database cannot be taken.
    #[error("cannot take a snapshot of the database {path}")]
    Database {
        /// The database.
        path: PathBuf,
        /// SQLite's error.
        source: rusqlite::Error,
    },
    /// A file was truncated while it was read.
    #[error("{} became shorter while it was packed: pack again", shown(.0))]
    Shorter(PathBuf),
    /// A link leads out of the directory: its target would be missing on another machine.
    #[error(
        "the link {} points to {}, which is not in the directory: put there what it points to, or a link within it",
        shown(path),
        shown(target)
    )]
    LinkLeaves {
        /// The link.
        path: PathBuf,
        /// What it points to.
        target: PathBuf,
    },
    /// The archive has an entry that a service's directory cannot have.
    #[error("the archive is refused: `{entry}` {why}")]
    Refused {
        /// Its path in the archive, escaped.
        entry: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The archive unpacks to more than is allowed.
    #[error("the archive unpacks to more than {0} bytes, the limit")]
    TooLarge(u64),
    /// The archive is truncated or modified, or not an archive.
    #[error("{path} is damaged, or not an archive of a service")]
    Damaged {
        /// The archive.
        path: PathBuf,
        /// Where reading ended.
        source: io::Error,
    },
    /// The target directory is not empty.
    #[error("{0} is not an empty directory: move it away first")]
    Occupied(PathBuf),
    /// Another process unpacks there, or was stopped before it had finished.
    #[error("{0} exists: another restore is running, or was interrupted; remove it in that case")]
    Unfinished(PathBuf),
}

impl ArchiveError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }
}

/// A path to be printed. Names in an archive are not trusted and may have escape sequences.
fn shown(path: &Path) -> String {
    path.to_string_lossy().escape_debug().to_string()
}

/// Whether a link from `link` (relative to the directory) to `target` stays within the directory.
///
/// What leads up must come first: then it leads through directories. After a name it could follow another link to elsewhere.
fn link_stays(link: &Path, target: &Path) -> bool {
    let mut above = link.components().count().saturating_sub(1);
    let mut named = false;
    for component in target.components() {
        match component {
            Component::CurDir => {}
            Component::Normal(_) => named = true,
            Component::ParentDir if !named && above > 0 => above -= 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    true
}

/// A file that goes when this does, unless it is kept.
#[derive(Debug)]
struct Temporary {
    path: PathBuf,
    kept: bool,
}

impl Temporary {
    const fn new(path: PathBuf) -> Self {
        Self { path, kept: false }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        // The first failure is reported; this one would hide it.
        if self.path.is_dir() {
            std::fs::remove_dir_all(&self.path).unwrap_or(());
        } else {
            std::fs::remove_file(&self.path).unwrap_or(());
        }
    }
}

/// The directory that a path is in.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A path in the same directory, with this prefix and suffix around its name.
fn sibling_path(path: &Path, prefix: &str, suffix: &str) -> PathBuf {
    let mut name = std::ffi::OsString::from(prefix);
    name.push(path.file_name().unwrap_or_default());
    name.push(suffix);
    parent(path).join(name)
}
