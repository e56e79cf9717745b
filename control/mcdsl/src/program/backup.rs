//! The commands `backup` and `restore`.

use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::num::NonZeroUsize;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use time::OffsetDateTime;

use super::Failure;
use crate::archive::{self, ArchiveError, Packed};
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
    let bar = Progress::of_bytes("packing", None);
    let pack = |archive: &Path| archive::pack(root, archive, &mut |done| bar.set(done));
    let (archive, packed) = match (&folder, to) {
        (Some(folder), _) => pack_into(folder, &file_name(name, Clock::system().unix_s())?, pack)?,
        (None, Some(to)) if keep.is_none() => (to.to_owned(), pack(to)?),
        (None, _) => return Err("--keep needs a directory: name one, or none for `backups`".into()),
    };
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

/// Packs into a new archive of this name; with a number, where another backup of the same second has it. None is overwritten.
fn pack_into(
    folder: &Path,
    name: &str,
    pack: impl Fn(&Path) -> Result<Packed, ArchiveError>,
) -> Result<(PathBuf, Packed), ArchiveError> {
    let mut number = 1;
    loop {
        let end = if number == 1 { String::new() } else { format!("-{number}") };
        let archive = folder.join(format!("{name}{end}{SUFFIX}"));
        number += 1;
        match pack(&archive) {
            Ok(packed) => return Ok((archive, packed)),
            Err(ArchiveError::Io { path, source, .. })
                if path == archive && source.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

/// `mcias-20261130T171500Z`.
fn file_name(name: &str, unix_s: i64) -> Result<String, Failure> {
    let format = time::macros::format_description!("[year][month][day]T[hour][minute][second]Z");
    let time = OffsetDateTime::from_unix_timestamp(unix_s)?.format(&format)?;
    Ok(format!("{name}-{time}"))
}

/// Removes all but the newest archives that [`pack_into`] has named.
fn remove_old(name: &str, folder: &Path, keep: NonZeroUsize) -> std::io::Result<Vec<PathBuf>> {
    let mut archives = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if let Some(age) = entry.file_name().to_str().and_then(|file| named_by_us(name, file)) {
            archives.push((age, entry.path()));
        }
    }
    archives.sort();
    archives.truncate(archives.len().saturating_sub(keep.get()));
    let archives: Vec<PathBuf> = archives.into_iter().map(|(_age, path)| path).collect();
    for archive in &archives {
        std::fs::remove_file(archive)?;
    }
    Ok(archives)
}

/// The time in the name of one of our archives, and its number within the second: their order is that of age.
fn named_by_us(name: &str, file: &str) -> Option<(String, u32)> {
    let rest = file.strip_prefix(name)?.strip_prefix('-')?.strip_suffix(SUFFIX)?;
    let (time, number) =
        rest.split_once('-').map_or((rest, Some(1)), |(time, number)| (time, number.parse().ok()));
    let is_time_byte = |(at, byte): (usize, u8)| match at {
        8 => byte == b'T',
        15 => byte == b'Z',
        _ => byte.is_ascii_digit(),
    };
    let is_time = time.len() == 16 && time.bytes().enumerate().all(is_time_byte);
    Some((time.to_owned(), number?)).filter(|_| is_time)
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
        let name = |unix_s| file_name("mcias", unix_s).unwrap() + SUFFIX;
        assert_eq!(name(1_767_225_600), "mcias-20260101T000000Z.tar.zst");
        let others = ["mcias-by-hand.tar.zst", "mcias-20260101T000000Z.tar", "mcr-20250101T000000Z.tar.zst"];
        let names: Vec<String> = (0..4).map(|day| name(1_767_225_600 + day * 86_400)).collect();
        for name in names.iter().map(String::as_str).chain(others) {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let removed = remove_old("mcias", folder.path(), NonZeroUsize::new(2).unwrap()).unwrap();
        assert_eq!(removed, [folder.path().join(&names[0]), folder.path().join(&names[1])]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2 + others.len());
        assert!(remove_old("mcias", folder.path(), NonZeroUsize::new(9).unwrap()).unwrap().is_empty());
    }

    #[test]
    fn backups_of_the_same_second_have_numbers_in_the_order_of_age() {
        let folder = tempfile::tempdir().unwrap();
        let pack = |archive: &Path| {
            let created = std::fs::File::create_new(archive);
            created.map(|_file| Packed::default()).map_err(|source| ArchiveError::Io {
                what: "create",
                path: archive.to_owned(),
                source,
            })
        };
        let made: Vec<PathBuf> =
            (0..11).map(|_| pack_into(folder.path(), "mcias-20260101T000000Z", pack).unwrap().0).collect();
        assert_eq!(made[0].file_name().unwrap(), "mcias-20260101T000000Z.tar.zst");
        assert_eq!(made[10].file_name().unwrap(), "mcias-20260101T000000Z-11.tar.zst");
        let removed = remove_old("mcias", folder.path(), NonZeroUsize::new(2).unwrap()).unwrap();
        assert_eq!(removed, made[..9]);
        // Another error ends it.
        assert!(pack_into(&folder.path().join("absent"), "mcias-20260101T000000Z", pack).is_err());
    }
}
