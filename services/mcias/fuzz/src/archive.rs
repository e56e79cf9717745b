//! Archives from anywhere: what they unpack to is within their directory, and what is refused leaves nothing behind.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use mcdsl::archive::{ArchiveError, Unpacked, unpack};
use tar::{EntryType, Header};

/// Bytes that an archive may unpack to.
const LIMIT: u64 = 1 << 20;

/// Checks one input. After its first byte, the archive as it is (`r`), or compressed here (`z`), or its entries (anything
/// else): a type, a mode, the length of a path, of a link and of contents, a byte each, and those.
pub fn check(input: &[u8]) {
    is_taken(input);
}

/// The same; whether it was unpacked.
pub fn is_taken(input: &[u8]) -> bool {
    let Some((kind, rest)) = input.split_first() else { return false };
    let bytes = match kind {
        b'r' => rest.to_vec(),
        b'z' => compressed(rest),
        _ => compressed(&tar_of(rest)),
    };
    // In memory where that can be: each unpacking waits until the disk has everything.
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let folder = folder.expect("a folder can be made");
    let (outside, inside) = (folder.path().join("outside"), folder.path().join("inside"));
    fs::write(&outside, "as it was").expect("the folder is writable");
    let archive = folder.path().join("archive");
    File::create(&archive).and_then(|mut file| file.write_all(&bytes)).expect("the folder is writable");
    let done = under_test(&archive, &inside);
    assert_eq!(fs::read(&outside).expect("it is still there"), b"as it was");
    let mut names: Vec<_> = fs::read_dir(folder.path())
        .expect("it is still there")
        .map(|entry| entry.expect("it can be read").file_name())
        .collect();
    names.sort();
    match &done {
        Ok(done) => {
            assert_eq!(names, ["archive", "inside", "outside"]);
            assert!(done.bytes <= LIMIT, "{done:?}");
            // Whatever its mode, it is ours to look into and to remove.
            look(&inside, &inside.canonicalize().expect("it is there"));
        }
        Err(error) => {
            assert_eq!(names, ["archive", "outside"], "{error}");
            assert!(
                error.to_string().chars().all(|c| c == ' ' || !c.is_whitespace() && !c.is_control()),
                "{error:?}"
            );
        }
    }
    done.is_ok()
}

fn look(directory: &Path, root: &Path) {
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).expect("it is ours");
    for entry in fs::read_dir(directory).expect("it can be read") {
        let path = entry.expect("it can be read").path();
        let found = fs::symlink_metadata(&path).expect("it is there");
        if found.is_symlink() {
            // Where it leads nowhere, nothing is reached by it.
            if let Ok(end) = path.canonicalize() {
                assert!(end.starts_with(root), "{} leads to {}", path.display(), end.display());
            }
        } else if found.is_dir() {
            look(&path, root);
        } else {
            assert!(found.is_file(), "{}", path.display());
            assert_eq!(found.permissions().mode() & 0o7000, 0, "{}", path.display());
        }
    }
}

fn compressed(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).expect("memory takes what is written to it")
}

/// An archive of these entries, each with a sound checksum: a fuzzer would not find one.
fn tar_of(mut rest: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some((&[kind, mode, path, link, contents], after)) = rest.split_first_chunk() {
        let mut text = after;
        let mut take = |count: u8, most: usize| {
            let (taken, left) = text.split_at(text.len().min(most).min(count.into()));
            text = left;
            taken
        };
        let (path, link, contents) = (take(path, 100), take(link, 100), take(contents, 255));
        rest = text;
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::new(kind));
        header.set_mode(u32::from(mode) << 3 | 0o4000);
        header.set_size(contents.len() as u64);
        header.set_uid(0);
        header.set_gid(0);
        let old = header.as_old_mut();
        old.name[..path.len()].copy_from_slice(path);
        old.linkname[..link.len()].copy_from_slice(link);
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(contents);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// Entries as [`check`] reads them: type, path, link, contents.
#[must_use]
pub fn seed(entries: &[(u8, &str, &str, &str)]) -> Vec<u8> {
    let mut bytes = vec![b'e'];
    for (kind, path, link, contents) in entries {
        let len = |text: &str| u8::try_from(text.len()).unwrap_or(u8::MAX);
        bytes.extend([*kind, 0o64, len(path), len(link), len(contents)]);
        bytes.extend([path.as_bytes(), link.as_bytes(), contents.as_bytes()].concat());
    }
    bytes
}

fn under_test(archive: &Path, to: &Path) -> Result<Unpacked, ArchiveError> {
    let done = unpack(archive, to, LIMIT, &mut |_| ());
    // The planted bug: a link that was refused is made all the same.
    #[cfg(feature = "planted")]
    if let Err(ArchiveError::Refused { why, .. }) = &done
        && why.contains("is a link to something")
    {
        fs::create_dir(to).expect("it is not there");
        std::os::unix::fs::symlink("/", to.join("link")).expect("the folder is writable");
        return Ok(Unpacked { entries: 1, bytes: 0, owners_kept: false });
    }
    done
}
