//! The commands `backup` and `restore`.

use std::fs::DirBuilder;
use std::num::NonZeroUsize;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use time::OffsetDateTime;

use super::Failure;
use crate::archive;
use crate::clock::Clock;
use crate::terminal::{Progress, bytes};

/// The largest size that an archive may unpack to.
const RESTORE_MAX_BYTES: u64 = 64 << 30;

/// The end of an archive's name.
const SUFFIX: &str = ".tar.zst";

/// Packs `root` into a new archive. `to` is the archive, or the directory for it.
pub(super) fn backup(
    name: &str,
    root: &Path,
    to: Option<&Path>,
    keep: Option<NonZeroUsize>,
) -> Result<(), Failure> {
    let folder = match to {
        None => {
            let folder = root.join("backups");
            DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
            Some(folder)
        }
        Some(to) => to.is_dir().then(|| to.to_owned()),
    };
    let archive = match (&folder, to) {
        (Some(folder), _) => folder.join(file_name(name, Clock::system().unix_s())?),
        (None, Some(to)) if keep.is_none() => to.to_owned(),
        (None, _) => return Err("--keep needs a directory: name one, or none for `backups`".into()),
    };
    let bar = Progress::of_bytes("packing", None);
    let packed = archive::pack(root, &archive, &mut |done| bar.set(done))?;
    drop(bar);
    println!(
        "{}: {} files and directories, {} databases, {}",
        archive.display(),
        packed.entries,
        packed.databases,
        bytes(packed.bytes)
    );
    if let (Some(folder), Some(keep)) = (folder, keep) {
        for old in remove_old(name, &folder, keep)? {
            println!("removed {}", old.display());
        }
    }
    Ok(())
}

/// `mcias-20261130T171500Z.tar.zst`: the order of names is the order of time.
fn file_name(name: &str, unix_s: i64) -> Result<String, Failure> {
    let format = time::macros::format_description!("[year][month][day]T[hour][minute][second]Z");
    let time = OffsetDateTime::from_unix_timestamp(unix_s)?.format(&format)?;
    Ok(format!("{name}-{time}{SUFFIX}"))
}

/// Removes all but the newest archives that [`file_name`] has named.
fn remove_old(name: &str, folder: &Path, keep: NonZeroUsize) -> std::io::Result<Vec<PathBuf>> {
    let mut archives = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|file| is_named_by_us(name, file)) {
            archives.push(entry.path());
        }
    }
    archives.sort();
    archives.truncate(archives.len().saturating_sub(keep.get()));
    for archive in &archives {
        std::fs::remove_file(archive)?;
    }
    Ok(archives)
}

fn is_named_by_us(name: &str, file: &str) -> bool {
    let time = file.strip_prefix(name).and_then(|rest| rest.strip_prefix('-')?.strip_suffix(SUFFIX));
    let is_time_byte = |(at, byte): (usize, u8)| match at {
        8 => byte == b'T',
        15 => byte == b'Z',
        _ => byte.is_ascii_digit(),
    };
    time.is_some_and(|time| time.len() == 16 && time.bytes().enumerate().all(is_time_byte))
}

/// Unpacks an archive.
pub(super) fn restore(from: &Path, to: &Path) -> Result<(), Failure> {
    let bar = Progress::of_bytes("unpacking", None);
    let unpacked = archive::unpack(from, to, RESTORE_MAX_BYTES, &mut |done| bar.set(done))?;
    drop(bar);
    let owners = if unpacked.owners_kept {
        ""
    } else {
        "; they belong to this user: only root can restore their owners"
    };
    println!("{} files and directories, {}{owners}", unpacked.entries, bytes(unpacked.bytes));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_archives_are_kept_and_other_files_are_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let first = file_name("mcias", 1_767_225_600).unwrap();
        assert_eq!(first, "mcias-20260101T000000Z.tar.zst");
        let others = ["mcias-by-hand.tar.zst", "mcias-20260101T000000Z.tar", "mcr-20250101T000000Z.tar.zst"];
        let names: Vec<String> =
            (0..4).map(|day| file_name("mcias", 1_767_225_600 + day * 86_400).unwrap()).collect();
        for name in names.iter().map(String::as_str).chain(others) {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let removed = remove_old("mcias", folder.path(), NonZeroUsize::new(2).unwrap()).unwrap();
        assert_eq!(removed, [folder.path().join(&names[0]), folder.path().join(&names[1])]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2 + others.len());
        assert!(remove_old("mcias", folder.path(), NonZeroUsize::new(9).unwrap()).unwrap().is_empty());
    }
}
