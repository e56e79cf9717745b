//! What comes back is what was packed; what would reach out, or is not whole, leaves nothing behind.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use rusqlite::Connection;
use tar::{EntryType, Header};
use tempfile::TempDir;

use super::*;

const LIMIT: u64 = 64 << 20;

/// 2001-09-09, in seconds since 1970.
const LONG_AGO: u64 = 1_000_000_000;

fn unpacked(archive: &Path, to: &Path) -> Result<Unpacked, ArchiveError> {
    unpack(archive, to, LIMIT, &mut |_| ())
}

fn packed(directory: &Path, archive: &Path) -> Packed {
    pack(directory, archive, &mut |_| ()).unwrap()
}

fn set_time(path: &Path) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(LONG_AGO);
    File::open(path).unwrap().set_modified(time).unwrap();
}

/// A folder with `site` in it: something of every kind.
fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let site = folder.path().join("site");
    fs::create_dir_all(site.join("certs")).unwrap();
    fs::create_dir(site.join("empty")).unwrap();
    let file = |name: &str, text: &[u8], mode| {
        fs::write(site.join(name), text).unwrap();
        fs::set_permissions(site.join(name), Permissions::from_mode(mode)).unwrap();
        set_time(&site.join(name));
    };
    file("site.toml", b"[server]\n", 0o640);
    file("certs/a.pem", &[7; 200_000], 0o600);
    file("run", b"", 0o755);
    file("notes.lock", b"of no database", 0o600);
    file(&"long".repeat(60), b"long", 0o600);
    symlink("a.pem", site.join("certs/current")).unwrap();
    symlink("../site.toml", site.join("certs/up")).unwrap();
    drop(UnixListener::bind(site.join("site.sock")).unwrap());
    fs::create_dir(site.join("backups")).unwrap();
    fs::write(site.join("backups/old.tar.zst"), "old").unwrap();
    for (name, mode) in [("empty", 0o750), ("certs", 0o700), ("", 0o711)] {
        fs::set_permissions(site.join(name), Permissions::from_mode(mode)).unwrap();
        set_time(&site.join(name));
    }
    (folder, site)
}

/// All that is below, in order: path, mode, time of files and directories, contents or target.
fn listing(directory: &Path) -> Vec<(PathBuf, u32, i64, Vec<u8>)> {
    let mut all = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(path) = open.pop() {
        let found = fs::symlink_metadata(&path).unwrap();
        let text = if found.is_symlink() {
            fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
        } else if found.is_file() {
            fs::read(&path).unwrap()
        } else {
            if found.is_dir() {
                open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
            Vec::new()
        };
        let name = path.strip_prefix(directory).unwrap().to_owned();
        all.push((name, found.mode(), found.mtime(), text));
    }
    all.sort();
    all
}

#[test]
fn what_was_packed_comes_back() {
    let (folder, site) = folder();
    let archive = folder.path().join("a.tar.zst");
    let mut told = Vec::new();
    let done = pack(&site, &archive, &mut |bytes| told.push(bytes)).unwrap();
    assert_eq!(done.left_out, ["backups", "site.sock"].map(PathBuf::from));
    assert_eq!((done.entries, done.databases), (10, 0));
    assert_eq!(told.last(), Some(&done.bytes));
    assert_eq!(fs::metadata(&archive).unwrap().mode() & 0o777, 0o600);
    assert!(fs::metadata(&archive).unwrap().len() < 4096, "it is compressed");

    let back = folder.path().join("back");
    fs::create_dir(&back).unwrap();
    let outcome = unpacked(&archive, &back).unwrap();
    let root = rustix::process::geteuid().is_root();
    assert_eq!(outcome, Unpacked { entries: 10, bytes: done.bytes, owners_kept: root });
    let mut expect = listing(&site);
    expect.retain(|(path, ..)| path != Path::new("site.sock") && !path.starts_with("backups"));
    assert_eq!(listing(&back), expect);
    assert!(expect.iter().any(|(path, mode, time, _)| path == Path::new("empty")
        && *mode == 0o40750
        && *time == 1_000_000_000));
}

#[test]
fn owners_are_kept_where_they_can_be() {
    let (folder, site) = folder();
    if !rustix::process::geteuid().is_root() {
        eprintln!("LEFT OUT: owners_are_kept_where_they_can_be: only root can give owners");
        return;
    }
    for name in ["site.toml", "empty", "certs/current"] {
        std::os::unix::fs::lchown(site.join(name), Some(1234), Some(3_000_000)).unwrap();
    }
    let (archive, back) = (folder.path().join("a"), folder.path().join("b"));
    packed(&site, &archive);
    unpacked(&archive, &back).unwrap();
    for name in ["site.toml", "empty", "certs/current"] {
        let found = fs::symlink_metadata(back.join(name)).unwrap();
        assert_eq!((found.uid(), found.gid()), (1234, 3_000_000), "{name}");
    }
}

#[test]
fn an_archive_in_the_directory_is_not_packed_into_itself() {
    let (folder, site) = folder();
    fs::create_dir(site.join("copies")).unwrap();
    fs::write(site.join("copies/old"), "old").unwrap();
    let archive = site.join("copies/a.tar.zst");
    packed(&site, &archive);
    let back = folder.path().join("back");
    unpacked(&archive, &back).unwrap();
    let names: Vec<_> =
        fs::read_dir(back.join("copies")).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!(names, ["old"]);
    assert!(matches!(pack(&site, &archive, &mut |_| ()), Err(ArchiveError::Io { what: "create", .. })));
    assert!(archive.exists(), "what was there is not touched");
}

/// Each change moves an amount from one row to another: what is whole has the same sum.
#[test]
fn a_database_that_is_written_to_is_packed_whole() {
    let (folder, site) = folder();
    let path = site.join("site.db");
    let db = Connection::open(&path).unwrap();
    db.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA application_id = 77; PRAGMA user_version = 3;
         CREATE TABLE account (id INTEGER PRIMARY KEY, amount INTEGER NOT NULL, fill BLOB NOT NULL);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
         INSERT INTO account SELECT i, 100, zeroblob(2000) FROM n;",
    )
    .unwrap();
    fs::write(site.join("site.db.lock"), "").unwrap();
    let done = AtomicBool::new(false);
    let archives: Vec<PathBuf> = (0..4).map(|n| folder.path().join(format!("{n}.tar.zst"))).collect();
    std::thread::scope(|scope| {
        let write = || {
            let db = Connection::open(&path).unwrap();
            db.busy_timeout(Duration::from_secs(5)).unwrap();
            for turn in 0_u32.. {
                if done.load(Ordering::Relaxed) {
                    return turn;
                }
                let from = turn % 199 + 1;
                let change = format!(
                    "BEGIN IMMEDIATE; UPDATE account SET amount = amount - 1 WHERE id = {from};
                     UPDATE account SET amount = amount + 1 WHERE id = {from} + 1; COMMIT;"
                );
                db.execute_batch(&change).unwrap();
            }
            0
        };
        let writer = scope.spawn(write);
        let databases: Vec<_> = archives.iter().map(|archive| packed(&site, archive).databases).collect();
        done.store(true, Ordering::Relaxed);
        assert_eq!(databases, [1; 4]);
        assert!(writer.join().unwrap() > 0, "nothing was written meanwhile");
    });
    for archive in &archives {
        let back = archive.with_extension("back");
        unpacked(archive, &back).unwrap();
        let names = |name: &str| back.join(name).exists();
        assert!(
            names("notes.lock") && !names("site.db-wal") && !names("site.db-shm") && !names("site.db.lock")
        );
        let db = Connection::open(back.join("site.db")).unwrap();
        let one = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(one("SELECT sum(amount) FROM account"), 200 * 100);
        assert_eq!((one("PRAGMA application_id"), one("PRAGMA user_version")), (77, 3));
        let sound: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(sound, "ok");
    }
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("snapshot")), "{left:?}");
}

#[test]
fn what_cannot_be_packed_leaves_no_archive() {
    let check = |spoil: &dyn Fn(&Path), expect: &str| {
        let (folder, site) = folder();
        spoil(&site);
        let archive = folder.path().join("a.tar.zst");
        let error = pack(&site, &archive, &mut |_| ()).unwrap_err();
        assert!(error.to_string().contains(expect), "{error}");
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(left, ["site"], "{expect}");
    };
    check(&|site| symlink("/etc/passwd", site.join("out")).unwrap(), "out points to /etc/passwd");
    check(&|site| symlink("..", site.join("out")).unwrap(), "out points to ..");
    let spoilt = b"SQLite format 3\0 and nothing that follows from it";
    check(&|site| fs::write(site.join("bad.db"), spoilt).unwrap(), "snapshot of the database");
}

#[test]
fn links_stay_within_whatever_they_go_through() {
    let check = |link: &str, target: &str, expect| {
        assert_eq!(link_stays(Path::new(link), Path::new(target)), expect, "{link} -> {target}");
    };
    check("a", "b", true);
    check("a", "./b/c", true);
    check("d/a", "../b", true);
    check("d/a", "..", true);
    check("a", "..", false);
    check("d/a", "../..", false);
    check("a", "/b", false);
    // `b` may be a link to `d/e`.
    check("a", "b/..", false);
    check("d/a", "b/../c", false);
}

/// An archive of these entries, whatever is in them.
fn archive_of(entries: &[(EntryType, &str, &str)]) -> Vec<u8> {
    let mut out = tar::Builder::new(Vec::new());
    for (kind, path, text) in entries {
        let mut header = Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o6755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(LONG_AGO);
        let is_file = *kind == EntryType::Regular;
        if !is_file {
            header.as_gnu_mut().unwrap().linkname[..text.len()].copy_from_slice(text.as_bytes());
        }
        header.set_size(if is_file { text.len() as u64 } else { 0 });
        header.set_cksum();
        out.append(&header, if is_file { text.as_bytes() } else { b"" }).unwrap();
    }
    out.into_inner().unwrap()
}

/// What becomes of this tar, and what is in the folder afterwards besides the archive.
fn unpack_tar(tar: &[u8], limit: u64) -> (Result<Unpacked, ArchiveError>, usize) {
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("a.tar.zst");
    fs::write(&archive, zstd::encode_all(tar, 0).unwrap()).unwrap();
    let done = unpack(&archive, &folder.path().join("to"), limit, &mut |_| ());
    (done, fs::read_dir(folder.path()).unwrap().count() - 1)
}

#[test]
fn what_reaches_out_is_refused_and_nothing_is_left() {
    use EntryType::{Block, Char, Directory, Fifo, Link, Regular, Symlink};
    let check = |entry: &[(EntryType, &str, &str)], expect: &str| {
        let mut entries = vec![(Directory, "./", ""), (Regular, "before", "x"), (Directory, "d/", "")];
        entries.extend_from_slice(entry);
        let (done, left) = unpack_tar(&archive_of(&entries), LIMIT);
        let error = done.unwrap_err();
        assert!(matches!(error, ArchiveError::Refused { .. }), "{error}");
        assert!(error.to_string().contains(expect), "{error}");
        assert_eq!(left, 0, "{expect}");
    };
    check(&[(Regular, "/tmp/x", "x")], "absolute");
    check(&[(Regular, "../x", "x")], "`..`");
    check(&[(Regular, "d/../../x", "x")], "`..`");
    check(&[(Symlink, "l", "d"), (Regular, "l/x", "x")], "not in a directory");
    check(&[(Regular, "before/x", "x")], "not in a directory");
    check(&[(Regular, "nowhere/x", "x")], "not in a directory");
    check(&[(Symlink, "l", "..")], "link to something");
    check(&[(Symlink, "l", "/etc")], "link to something");
    check(&[(Symlink, "d/l", "../../x")], "link to something");
    check(&[(Symlink, "l", "d/../..")], "link to something");
    check(&[(Symlink, "l", "")], "link to something");
    check(&[(Link, "h", "before")], "hard link");
    check(&[(Link, "h", "/etc/passwd")], "hard link");
    check(&[(Char, "c", "")], "neither");
    check(&[(Block, "b", "")], "neither");
    check(&[(Fifo, "f", "")], "neither");
    check(&[(Regular, "before", "y")], "twice");
    check(&[(Regular, "./d//", "y")], "twice");
    check(&[(Directory, ".", "")], "twice");
    check(&[(Symlink, "before", "d")], "twice");
    check(&[(Regular, "\x1b[2J/x", "")], "\\u{1b}[2J");
    let (done, left) = unpack_tar(&archive_of(&[(Regular, "x", "x")]), LIMIT);
    assert!(done.unwrap_err().to_string().contains("before the directory itself"));
    assert_eq!(left, 0);
}

/// A header with a name that follows it, as GNU's tar and pax write long ones.
fn with_name(kind: EntryType, name: &[u8]) -> Vec<u8> {
    let mut out = tar::Builder::new(Vec::new());
    for (kind, text) in [(EntryType::Directory, &b""[..]), (kind, name), (EntryType::Regular, b"")] {
        let mut header = Header::new_gnu();
        header.set_path("./").unwrap();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(LONG_AGO);
        header.set_size(text.len() as u64);
        header.set_cksum();
        out.append(&header, text).unwrap();
    }
    out.into_inner().unwrap()
}

#[test]
fn a_name_takes_no_more_memory_than_a_name() {
    let check = |kind, name: &[u8]| {
        let (done, left) = unpack_tar(&with_name(kind, name), LIMIT);
        assert_eq!(left, usize::from(done.is_ok()));
        done.map_err(|error| error.to_string())
    };
    let long = "a".repeat(16 << 20);
    for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader] {
        let error = check(kind, long.as_bytes()).unwrap_err();
        assert!(error.contains("a name longer than any system's"), "{kind:?}: {error}");
    }
    assert_eq!(check(EntryType::GNULongName, "b".repeat(200).as_bytes()).unwrap().entries, 2);
    assert_eq!(check(EntryType::XHeader, b"15 path=longer\n").unwrap().entries, 2);
}

#[test]
fn who_runs_a_file_is_not_the_archive_s_to_say() {
    let entries = [(EntryType::Directory, "./", ""), (EntryType::Regular, "x", "x")];
    let folder = tempfile::tempdir().unwrap();
    let (archive, to) = (folder.path().join("a"), folder.path().join("to"));
    fs::write(&archive, zstd::encode_all(&archive_of(&entries)[..], 0).unwrap()).unwrap();
    unpacked(&archive, &to).unwrap();
    assert_eq!(fs::metadata(to.join("x")).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn a_place_that_is_taken_is_left_alone() {
    let (folder, site) = folder();
    let archive = folder.path().join("a");
    packed(&site, &archive);
    let before = listing(&site);
    assert!(matches!(unpacked(&archive, &site), Err(ArchiveError::Occupied(_))));
    assert!(matches!(unpacked(&archive, &archive), Err(ArchiveError::Occupied(_))));
    symlink("empty", folder.path().join("link")).unwrap();
    assert!(matches!(unpacked(&archive, &folder.path().join("link")), Err(ArchiveError::Occupied(_))));
    assert_eq!(listing(&site), before);
    fs::create_dir(folder.path().join(".back.unpacking")).unwrap();
    assert!(matches!(unpacked(&archive, &folder.path().join("back")), Err(ArchiveError::Unfinished(_))));
    assert!(folder.path().join(".back.unpacking").exists(), "it is somebody else's");
}

#[test]
fn what_would_fill_the_disk_is_refused() {
    let zeros = "\0".repeat(1 << 20);
    let entries = [(EntryType::Directory, "./", ""), (EntryType::Regular, "x", zeros.as_str())];
    let (done, left) = unpack_tar(&archive_of(&entries), 1 << 20);
    assert!(matches!(done, Err(ArchiveError::TooLarge(limit)) if limit == 1 << 20));
    assert_eq!(left, 0);
    // Heads count as well: a great many empty files are large too.
    let names: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    let mut entries = vec![(EntryType::Directory, "./", "")];
    entries.extend(names.iter().map(|name| (EntryType::Regular, name.as_str(), "")));
    let (done, left) = unpack_tar(&archive_of(&entries), 20 * 512);
    assert!(matches!(done, Err(ArchiveError::TooLarge(_))));
    assert_eq!(left, 0);
    assert!(unpack_tar(&archive_of(&entries), 104 * 512).0.is_ok());
}

#[test]
fn an_archive_that_is_cut_or_changed_is_refused() {
    let (folder, site) = folder();
    let archive = folder.path().join("a.tar.zst");
    packed(&site, &archive);
    let whole = fs::read(&archive).unwrap();
    let check = |bytes: &[u8]| {
        fs::write(&archive, bytes).unwrap();
        let to = folder.path().join("to");
        assert!(
            matches!(unpacked(&archive, &to), Err(ArchiveError::Damaged { .. })),
            "{} bytes",
            bytes.len()
        );
        assert!(!to.exists() && !folder.path().join(".to.unpacking").exists());
    };
    for length in [0, 1, whole.len() / 2, whole.len() - 5, whole.len() - 1] {
        check(&whole[..length]);
    }
    let mut changed = whole.clone();
    changed[whole.len() - 1] ^= 1;
    check(&changed);
    check(b"not an archive");
    let mut more = archive_of(&[(EntryType::Directory, "./", "")]);
    more.extend_from_slice(&archive_of(&[(EntryType::Regular, "x", "x")]));
    check(&zstd::encode_all(&more[..], 0).unwrap());
}

#[test]
fn a_file_that_grows_meanwhile_is_packed_as_it_was() {
    let (folder, site) = folder();
    let log = site.join("log");
    fs::write(&log, vec![b'a'; 300_000]).unwrap();
    let archive = folder.path().join("a");
    let mut grow = OpenOptions::new().append(true).open(&log).unwrap();
    pack(&site, &archive, &mut |_| grow.write_all(b"more").unwrap()).unwrap();
    let back = folder.path().join("back");
    unpacked(&archive, &back).unwrap();
    assert!(!fs::read(back.join("log")).unwrap().is_empty());
    // Whereas one that is cut has lost what its head promised.
    let cut = OpenOptions::new().write(true).open(&log).unwrap();
    let archive = folder.path().join("cut");
    let error = pack(&site, &archive, &mut |done| {
        if done > 250_000 {
            cut.set_len(0).unwrap();
        }
    });
    assert!(matches!(error, Err(ArchiveError::Shorter(_))), "{error:?}");
    assert!(!archive.exists());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let (done, left) = unpack_tar(&bytes, LIMIT);
        prop_assert!(done.is_err() && left == 0);
    }

    #[test]
    fn no_changed_archive_makes_it_panic(at in 0_usize..2560, byte: u8) {
        let entries = [
            (EntryType::Directory, "./", ""),
            (EntryType::Regular, "file", "text"),
            (EntryType::Symlink, "link", "file"),
        ];
        let mut tar = archive_of(&entries);
        let at = at % tar.len();
        tar[at] = byte;
        let (done, left) = unpack_tar(&tar, LIMIT);
        prop_assert_eq!(left, usize::from(done.is_ok()));
    }
}
