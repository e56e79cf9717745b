//! Unpacks an untrusted archive.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, FileTimes, OpenOptions, Permissions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown, lchown};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, syncfs, utimensat};
use tar::{Archive, Entry, EntryType};
use zstd::Decoder;

use super::{ArchiveError, Temporary, link_stays, parent, shown, sibling_path};

/// What was unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// Number of directories (the directory itself included), files and links.
    pub entries: u64,
    /// Size of the files' contents.
    pub bytes: u64,
    /// Whether owners were restored, which only root can do. Otherwise everything belongs to the caller.
    pub owners_kept: bool,
}

/// Unpacks an archive to a directory that is absent or empty. The unpacked data, entry headers included, is at most
/// `limit` bytes. `progress` receives the bytes of contents so far.
///
/// # Errors
/// [`ArchiveError`]; nothing is left behind.
pub fn unpack(
    archive: &Path,
    directory: &Path,
    limit: u64,
    progress: &mut dyn FnMut(u64),
) -> Result<Unpacked, ArchiveError> {
    refuse_occupied(directory)?;
    // Before it is opened: a pipe would be waited for.
    let found = fs::metadata(archive).map_err(ArchiveError::io("open", archive))?;
    if !found.is_file() {
        let error = io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
        return Err(ArchiveError::io("open", archive)(error));
    }
    let file = File::open(archive).map_err(ArchiveError::io("open", archive))?;
    let temporary = sibling_path(directory, ".", ".unpacking");
    let io = |what| ArchiveError::io(what, &temporary);
    match DirBuilder::new().mode(0o700).create(&temporary) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(ArchiveError::Unfinished(temporary));
        }
        made => made.map_err(io("create"))?,
    }
    let mut made = Temporary::new(temporary.clone());
    let mut unpacker = Unpacker {
        root: &temporary,
        archive,
        limit,
        seen: HashMap::new(),
        names_left: MAX_NAMES,
        directories: Vec::new(),
        owners: rustix::process::geteuid().is_root(),
        bytes: 0,
        progress,
    };
    unpacker.all(file)?;
    let unpacked = unpacker.finish()?;
    // One sync for everything, before the rename.
    let root = File::open(&temporary).map_err(io("open"))?;
    syncfs(&root).map_err(|error| io("write")(error.into()))?;
    // The rename replaces an empty directory only.
    fs::rename(&temporary, directory).map_err(ArchiveError::io("move the unpacked data to", directory))?;
    made.kept = true;
    let place = parent(directory);
    let sync = File::open(place).and_then(|place| place.sync_all());
    sync.map_err(ArchiveError::io("write the directory", place))?;
    Ok(unpacked)
}

fn refuse_occupied(directory: &Path) -> Result<(), ArchiveError> {
    let io = |error| ArchiveError::io("read the metadata of", directory)(error);
    match fs::symlink_metadata(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io(error)),
        Ok(found) if found.is_dir() && fs::read_dir(directory).map_err(io)?.next().is_none() => Ok(()),
        Ok(_taken) => Err(ArchiveError::Occupied(directory.to_owned())),
    }
}

/// A validated entry header.
struct Head {
    /// Relative to the root, made of plain names only; empty for the root itself.
    path: PathBuf,
    mode: u32,
    owner: (u32, u32),
    /// Seconds since 1970.
    mtime: u64,
}

struct Unpacker<'a> {
    root: &'a Path,
    archive: &'a Path,
    limit: u64,
    /// Paths created so far, and whether each is a directory.
    seen: HashMap<PathBuf, bool>,
    /// How much memory the names of further entries may take.
    names_left: usize,
    /// In the order of creation: parents before their entries.
    directories: Vec<Head>,
    owners: bool,
    bytes: u64,
    progress: &'a mut dyn FnMut(u64),
}

impl Unpacker<'_> {
    fn all(&mut self, file: File) -> Result<(), ArchiveError> {
        let decoder = Decoder::new(file).map_err(|error| self.damaged(error))?;
        let head_left = Rc::new(Cell::new(None));
        let inner = BufReader::new(decoder);
        let mut archive = Archive::new(Bounded { inner, left: self.limit, head_left: Rc::clone(&head_left) });
        let mut entries = archive.entries().map_err(|error| self.damaged(error))?;
        loop {
            head_left.set(Some(MAX_HEAD));
            let Some(entry) = entries.next() else { break };
            head_left.set(None);
            let mut entry = entry.map_err(|error| self.damaged(error))?;
            self.entry(&mut entry)?;
        }
        head_left.set(None);
        if self.seen.is_empty() {
            let error = io::Error::new(io::ErrorKind::InvalidData, "it is empty");
            return Err(self.damaged(error));
        }
        // To the very end: that is where the checksum is.
        let mut rest = archive.into_inner();
        let mut buffer = [0; 8192];
        loop {
            match rest.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) if buffer[..count].iter().all(|byte| *byte == 0) => {}
                Ok(_more) => {
                    let error = io::Error::new(io::ErrorKind::InvalidData, "something follows its end");
                    return Err(self.damaged(error));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.damaged(error)),
            }
        }
    }

    fn entry(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<(), ArchiveError> {
        let head = self.judge(entry)?;
        let kind = entry.header().entry_type();
        let full = self.root.join(&head.path);
        let root = head.path.as_os_str().is_empty();
        match kind {
            EntryType::Directory => {
                if !root {
                    let made = DirBuilder::new().mode(0o700).create(&full);
                    made.map_err(ArchiveError::io("create the directory", &full))?;
                }
                self.directories.push(head);
            }
            EntryType::Regular | EntryType::Continuous => self.file(entry, &head, &full)?,
            EntryType::Symlink => self.link(entry, &head, &full)?,
            EntryType::Link => {
                return Err(refused(&head.path, "is a hard link: an archive of a service has none"));
            }
            _ => return Err(refused(&head.path, "is neither a file, a directory nor a link")),
        }
        Ok(())
    }

    /// Reads an entry's head. When this returns, its path is new, and all that is above it are directories that we made.
    fn judge(&mut self, entry: &Entry<'_, impl Read>) -> Result<Head, ArchiveError> {
        let raw = entry.path_bytes();
        let has_zero = raw.contains(&0);
        let raw = Path::new(std::ffi::OsStr::from_bytes(&raw));
        if has_zero {
            return Err(refused(raw, "has a zero byte in its path"));
        }
        let mut path = PathBuf::new();
        for component in raw.components() {
            match component {
                Component::CurDir => {}
                Component::Normal(name) => path.push(name),
                Component::ParentDir => return Err(refused(raw, "has `..` in its path")),
                Component::RootDir | Component::Prefix(_) => return Err(refused(raw, "is an absolute path")),
            }
        }
        let header = entry.header();
        let directory = header.entry_type() == EntryType::Directory;
        if self.seen.is_empty() && !(directory && path.as_os_str().is_empty()) {
            return Err(refused(raw, "comes before the directory itself"));
        }
        if self.seen.contains_key(&path) {
            return Err(refused(raw, "is there twice"));
        }
        if path.parent().is_some_and(|parent| self.seen.get(parent) != Some(&true)) {
            return Err(refused(raw, "is not in a directory of the archive"));
        }
        let number = |number: io::Result<u64>| -> Result<u32, ArchiveError> {
            let number = number.map_err(|error| self.damaged(error))?;
            u32::try_from(number).map_err(|_large| refused(raw, "has an owner that no system has"))
        };
        let owner = (number(header.uid())?, number(header.gid())?);
        let mode = header.mode().map_err(|error| self.damaged(error))?;
        let mtime = header.mtime().map_err(|error| self.damaged(error))?;
        self.names_left = self
            .names_left
            .checked_sub(path.as_os_str().len() + 100)
            .ok_or_else(|| refused(raw, "comes after more entries than a service's directory has"))?;
        self.seen.insert(path.clone(), directory);
        Ok(Head { path, mode, owner, mtime })
    }

    fn file(&mut self, entry: &mut impl Read, head: &Head, full: &Path) -> Result<(), ArchiveError> {
        let io = |what| ArchiveError::io(what, full);
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(full);
        let mut file = opened.map_err(io("create"))?;
        let mut buffer = [0; 64 * 1024];
        loop {
            let count = match entry.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.damaged(error)),
            };
            file.write_all(&buffer[..count]).map_err(io("write"))?;
            self.bytes += count as u64;
            (self.progress)(self.bytes);
        }
        if self.owners {
            fchown(&file, Some(head.owner.0), Some(head.owner.1)).map_err(io("give its owner to"))?;
        }
        // Whoever may read the archive must not thereby run what they like as somebody else.
        file.set_permissions(Permissions::from_mode(head.mode & 0o777)).map_err(io("set the mode of"))?;
        file.set_times(times(head)).map_err(io("set the time of"))
    }

    fn link(&mut self, entry: &Entry<'_, impl Read>, head: &Head, full: &Path) -> Result<(), ArchiveError> {
        let target = entry.link_name_bytes().unwrap_or_default();
        let target = Path::new(std::ffi::OsStr::from_bytes(&target));
        let has_zero = target.as_os_str().as_bytes().contains(&0);
        if has_zero || target.as_os_str().is_empty() || !link_stays(&head.path, target) {
            return Err(refused(&head.path, "is a link to something that is not in the directory"));
        }
        std::os::unix::fs::symlink(target, full).map_err(ArchiveError::io("create the link", full))?;
        if self.owners {
            lchown(full, Some(head.owner.0), Some(head.owner.1))
                .map_err(ArchiveError::io("give its owner to", full))?;
        }
        let time = Timespec { tv_sec: i64::try_from(head.mtime).unwrap_or(i64::MAX), tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        let set = utimensat(CWD, full, &times, AtFlags::SYMLINK_NOFOLLOW);
        set.map_err(|error| ArchiveError::io("set the time of", full)(error.into()))
    }

    /// Gives directories what they were packed with, the innermost first: until here we had to write to them.
    fn finish(self) -> Result<Unpacked, ArchiveError> {
        for head in self.directories.iter().rev() {
            let full = self.root.join(&head.path);
            let io = |what| ArchiveError::io(what, &full);
            let directory = File::open(&full).map_err(io("open"))?;
            if self.owners {
                fchown(&directory, Some(head.owner.0), Some(head.owner.1))
                    .map_err(io("give its owner to"))?;
            }
            directory.set_times(times(head)).map_err(io("set the time of"))?;
            let mode = Permissions::from_mode(head.mode & 0o777);
            directory.set_permissions(mode).map_err(io("set the mode of"))?;
        }
        Ok(Unpacked { entries: self.seen.len() as u64, bytes: self.bytes, owners_kept: self.owners })
    }

    fn damaged(&self, source: io::Error) -> ArchiveError {
        if source.kind() == io::ErrorKind::InvalidInput
            && source.get_ref().is_some_and(|inner| inner.is::<LongHead>())
        {
            return ArchiveError::Refused {
                entry: "an entry".to_owned(),
                why: "has a name longer than any system's",
            };
        }
        if source.kind() == io::ErrorKind::FileTooLarge {
            return ArchiveError::TooLarge(self.limit);
        }
        ArchiveError::Damaged { path: self.archive.to_owned(), source }
    }
}

fn times(head: &Head) -> FileTimes {
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(head.mtime));
    time.map_or_else(FileTimes::new, |time| FileTimes::new().set_accessed(time).set_modified(time))
}

fn refused(entry: &Path, why: &'static str) -> ArchiveError {
    ArchiveError::Refused { entry: shown(entry), why }
}

/// What is read for the head of an entry, its long names and extended attributes, which are kept in memory.
const MAX_HEAD: usize = 64 * 1024;

/// Bytes of names of all entries, with what it takes to keep one: a million entries and more.
const MAX_NAMES: usize = 256 << 20;

/// The head of an entry is longer than [`MAX_HEAD`].
#[derive(Debug, thiserror::Error)]
#[error("the head of an entry is too long")]
struct LongHead;

/// At most so many bytes; more is a failure, not the end.
struct Bounded<R> {
    inner: R,
    left: u64,
    /// While the head of an entry is read: bytes that are left for it.
    head_left: Rc<Cell<Option<usize>>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if let Some(left) = self.head_left.get() {
            let left = left.checked_sub(count);
            self.head_left
                .set(Some(left.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, LongHead))?));
        }
        match self.left.checked_sub(count as u64) {
            Some(left) => {
                self.left = left;
                Ok(count)
            }
            None => Err(io::ErrorKind::FileTooLarge.into()),
        }
    }
}
