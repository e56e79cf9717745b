//! A service's directory as one file, `.tar.zst`: a full backup, and the way to another machine.
//!
//! Directories, regular files and symbolic links are kept with their modes, owners and times (whole seconds). Databases are
//! not copied while somebody writes to them: what is packed of each is a consistent snapshot. Unpacking happens beside the
//! place where the directory is wanted, which is renamed once all of it is there and on the disk: nothing is half applied.
//! An archive may come from anywhere: whatever would reach out of its directory is refused.
//!
//! Left out: earlier backups (the directory `backups`); sockets and pipes, which the service makes anew; hard links (what has
//! two names is packed twice); extended attributes; the bits of files that change who runs them.
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

/// Why a directory was not packed, or an archive not unpacked: nothing of it is left then.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The system said no.
    #[error("cannot {what} {}", shown(path))]
    Io {
        /// What was to be done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it was not.
        source: io::Error,
    },
    /// A snapshot of a database cannot be taken.
    #[error("cannot take a snapshot of the database {path}")]
    Database {
        /// The database.
        path: PathBuf,
        /// SQLite's words.
        source: rusqlite::Error,
    },
    /// A file was cut while it was read.
    #[error("{} became shorter while it was packed: pack again", shown(.0))]
    Shorter(PathBuf),
    /// A link that another machine would not have the end of, or that leads into what is not ours.
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
    /// What is in the archive is not what a service's directory has.
    #[error("the archive is refused: `{entry}` {why}")]
    Refused {
        /// Its path in the archive, escaped.
        entry: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It would fill the disk.
    #[error("the archive unpacks to more than {0} bytes: allow more if it may be so large")]
    TooLarge(u64),
    /// Cut, changed, or something else.
    #[error("{path} is damaged, or no archive of a service")]
    Damaged {
        /// The archive.
        path: PathBuf,
        /// Where reading ended.
        source: io::Error,
    },
    /// The place is taken.
    #[error("{0} is not an empty directory: move it away first")]
    Occupied(PathBuf),
    /// Somebody unpacks there, or was stopped in it.
    #[error(
        "{0} is there: another unpacking is at work, or was stopped in the middle; remove it in that case"
    )]
    Unfinished(PathBuf),
}

impl ArchiveError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }
}

/// A path for people to read. An archive may come from anywhere, and with it names that would speak to a terminal.
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
        // There is nobody left to tell if it fails: the first failure is told.
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

/// A name beside this one.
fn beside(path: &Path, prefix: &str, suffix: &str) -> PathBuf {
    let mut name = std::ffi::OsString::from(prefix);
    name.push(path.file_name().unwrap_or_default());
    name.push(suffix);
    parent(path).join(name)
}
