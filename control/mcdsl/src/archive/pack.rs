//! Packs a directory into an archive.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use rustix::fs::OFlags;
use tar::{Builder, EntryType, Header};
use zstd::Encoder;

use super::{ArchiveError, Temporary, link_stays, parent, sibling_path};

/// What was packed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// Number of directories (the directory itself included), files and links.
    pub entries: u64,
    /// Size of the files' contents.
    pub bytes: u64,
    /// Number of databases, packed as snapshots.
    pub databases: u64,
    /// Sockets, pipes, devices and the directory `backups`, relative to the directory: they are not packed.
    pub left_out: Vec<PathBuf>,
}

/// The first bytes of every SQLite database ("Database File Format", section 1.3).
const DATABASE: &[u8; 16] = b"SQLite format 3\0";

/// Suffixes of the files that accompany an open database: a snapshot does not need them.
const COMPANIONS: [&str; 4] = ["-wal", "-shm", "-journal", ".lock"];

/// The directory of earlier backups, not packed: each backup would contain all earlier ones.
const BACKUPS: &str = "backups";

/// How long to wait for a locked database.
const BUSY: Duration = Duration::from_secs(30);

/// Packs a directory into a new file, mode 0600, that is on the disk when this returns. The archive may be in the directory
/// itself; then it is not packed. `progress` receives the bytes of contents so far.
///
/// # Errors
/// [`ArchiveError`]; no archive is left behind.
pub fn pack(directory: &Path, archive: &Path, progress: &mut dyn FnMut(u64)) -> Result<Packed, ArchiveError> {
    let io = |what| ArchiveError::io(what, archive);
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(archive).map_err(io("create"))?;
    let mut made = Temporary::new(archive.to_owned());
    let own = file.metadata().map_err(io("read the metadata of"))?;
    let encoder = Encoder::new(BufWriter::new(file), zstd::DEFAULT_COMPRESSION_LEVEL);
    let mut encoder = encoder.map_err(io("write"))?;
    // Damage is detected when the archive is unpacked.
    encoder.include_checksum(true).map_err(io("write"))?;
    let mut packer = Packer {
        root: directory,
        archive,
        own: (own.dev(), own.ino()),
        snapshot: sibling_path(archive, ".", ".snapshot"),
        out: Builder::new(encoder),
        packed: Packed::default(),
        progress,
    };
    packer.directory(Path::new(""))?;
    let Packer { out, packed, .. } = packer;
    let encoder = out.into_inner().map_err(io("write"))?;
    let writer = encoder.finish().map_err(io("write"))?;
    let file = writer.into_inner().map_err(|error| io("write")(error.into_error()))?;
    file.sync_all().map_err(io("write"))?;
    // The directory entry must be as durable as the file.
    let place = parent(archive);
    let sync = File::open(place).and_then(|place| place.sync_all());
    sync.map_err(ArchiveError::io("write the directory", place))?;
    made.kept = true;
    Ok(packed)
}

struct Packer<'a, W: Write> {
    root: &'a Path,
    archive: &'a Path,
    /// Device and inode of the archive: it must not be packed into itself.
    own: (u64, u64),
    /// The temporary file of each snapshot.
    snapshot: PathBuf,
    out: Builder<W>,
    packed: Packed,
    progress: &'a mut dyn FnMut(u64),
}

impl<W: Write> Packer<'_, W> {
    /// Packs a directory with its entries, sorted by name. Paths are relative to the root.
    fn directory(&mut self, path: &Path) -> Result<(), ArchiveError> {
        let full = self.root.join(path);
        let found = fs::metadata(&full).map_err(ArchiveError::io("read the metadata of", &full))?;
        let name = if path.as_os_str().is_empty() { Path::new("./") } else { path };
        let mut header = header(&found, EntryType::Directory, 0);
        self.append(&mut header, name, io::empty())?;
        let read = |error| ArchiveError::io("read the directory", &full)(error);
        let names: io::Result<Vec<_>> =
            fs::read_dir(&full).map_err(read)?.map(|entry| entry.map(|entry| entry.file_name())).collect();
        let mut names = names.map_err(read)?;
        names.sort();
        for name in names {
            if path.as_os_str().is_empty() && name == BACKUPS {
                self.packed.left_out.push(name.into());
                continue;
            }
            self.entry(&path.join(name))?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path) -> Result<(), ArchiveError> {
        let full = self.root.join(path);
        let found = match fs::symlink_metadata(&full) {
            // Removed since the directory was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found.map_err(ArchiveError::io("read the metadata of", &full))?,
        };
        let kind = found.file_type();
        if kind.is_dir() {
            self.directory(path)
        } else if kind.is_symlink() {
            self.link(path, &full, &found)
        } else if kind.is_file() {
            self.file(path, &full)
        } else {
            self.packed.left_out.push(path.to_owned());
            Ok(())
        }
    }

    fn link(&mut self, path: &Path, full: &Path, found: &Metadata) -> Result<(), ArchiveError> {
        let target = fs::read_link(full).map_err(ArchiveError::io("read the link", full))?;
        // Refused now, while the original can still be changed.
        if !link_stays(path, &target) {
            return Err(ArchiveError::LinkLeaves { path: full.to_owned(), target });
        }
        let mut header = header(found, EntryType::Symlink, 0);
        let appended = self.out.append_link(&mut header, path, &target);
        appended.map_err(ArchiveError::io("write", self.archive))?;
        self.packed.entries += 1;
        Ok(())
    }

    fn file(&mut self, path: &Path, full: &Path) -> Result<(), ArchiveError> {
        if belongs_to_database(full).map_err(ArchiveError::io("read the files next to", full))? {
            return Ok(());
        }
        let mut file = match open(full) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened.map_err(ArchiveError::io("open", full))?,
        };
        let found = file.metadata().map_err(ArchiveError::io("read the metadata of", full))?;
        if (found.dev(), found.ino()) == self.own || !found.is_file() {
            return Ok(());
        }
        if is_database(&mut file).map_err(ArchiveError::io("read", full))? {
            let copy = snapshot(full, &self.snapshot)?;
            let copied = File::open(&copy.path).map_err(ArchiveError::io("open", &copy.path))?;
            let size = copied.metadata().map_err(ArchiveError::io("read the metadata of", &copy.path))?.len();
            self.packed.databases += 1;
            return self.contents(path, full, &found, copied, size);
        }
        let file = open(full).map_err(ArchiveError::io("open", full))?;
        self.contents(path, full, &found, file, found.len())
    }

    /// Packs `file` under `path`, with the metadata of the original.
    fn contents(
        &mut self,
        path: &Path,
        full: &Path,
        found: &Metadata,
        file: File,
        size: u64,
    ) -> Result<(), ArchiveError> {
        let mut header = header(found, EntryType::Regular, size);
        let mut source =
            Source { file, left: size, failed: None, done: self.packed.bytes, progress: self.progress };
        // What is appended to the file meanwhile is left out: a log may grow.
        let appended = self.out.append_data(&mut header, path, &mut source);
        match (source.failed, source.left) {
            (Some(error), _) => Err(ArchiveError::io("read", full)(error)),
            // The entry's size is written already: the archive is unusable.
            (None, 1..) if appended.is_ok() => Err(ArchiveError::Shorter(full.to_owned())),
            _ => appended.map_err(ArchiveError::io("write", self.archive)),
        }?;
        self.packed.entries += 1;
        self.packed.bytes += size;
        Ok(())
    }

    fn append(&mut self, header: &mut Header, path: &Path, data: impl Read) -> Result<(), ArchiveError> {
        let appended = self.out.append_data(header, path, data);
        appended.map_err(ArchiveError::io("write", self.archive))?;
        self.packed.entries += 1;
        Ok(())
    }
}

/// The first bytes of a file, up to a limit. Its read errors are kept apart from the archive's write errors.
struct Source<'a> {
    file: File,
    left: u64,
    failed: Option<io::Error>,
    done: u64,
    progress: &'a mut dyn FnMut(u64),
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match (&self.file).take(self.left).read(buffer) {
            Ok(count) => {
                self.left -= count as u64;
                self.done += count as u64;
                (self.progress)(self.done);
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let kind = error.kind();
                self.failed = Some(error);
                Err(kind.into())
            }
        }
    }
}

fn header(found: &Metadata, kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(found.mode() & 0o7777);
    header.set_uid(found.uid().into());
    header.set_gid(found.gid().into());
    header.set_mtime(u64::try_from(found.mtime()).unwrap_or(0));
    header.set_size(size);
    header
}

/// Opens a file that was a regular one when it was listed: follows no link and does not block on a pipe.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)
}

fn is_database(file: &mut File) -> io::Result<bool> {
    let mut start = [0; DATABASE.len()];
    match BufReader::new(file).read_exact(&mut start) {
        Ok(()) => Ok(start == *DATABASE),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether this is a file that accompanies a database (see [`COMPANIONS`]).
fn belongs_to_database(path: &Path) -> io::Result<bool> {
    let name = path.file_name().unwrap_or_default().as_bytes();
    for suffix in COMPANIONS {
        let Some(base) = name.strip_suffix(suffix.as_bytes()).filter(|base| !base.is_empty()) else {
            continue;
        };
        // Without a database, or with a link in its place, it is an ordinary file.
        let Ok(mut base) = open(&path.with_file_name(OsStr::from_bytes(base))) else { continue };
        if base.metadata()?.is_file() && is_database(&mut base)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A consistent copy of a database in a new file, mode 0600, removed when the guard is dropped. The database may be written to meanwhile.
fn snapshot(database: &Path, to: &Path) -> Result<Temporary, ArchiveError> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)
        .map_err(ArchiveError::io("create", to))?;
    let made = Temporary::new(to.to_owned());
    let Some(name) = to.to_str() else {
        let error = io::Error::new(io::ErrorKind::InvalidInput, "SQLite takes only paths in UTF-8");
        return Err(ArchiveError::io("write", to)(error));
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let copied = Connection::open_with_flags(database, flags).and_then(|connection| {
        connection.busy_timeout(BUSY)?;
        connection.execute("VACUUM INTO ?1", [name])
    });
    copied.map_err(|source| ArchiveError::Database { path: database.to_owned(), source })?;
    Ok(made)
}
