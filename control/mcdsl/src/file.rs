//! Reads files that somebody named: regular ones, of a bounded size. A pipe would be waited for, and a device never
//! ends.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;

/// The largest file that a person writes, or that holds certificates.
#[cfg(any(feature = "ctl", feature = "service", test))]
pub(crate) const MAX_BYTES: u64 = 1 << 20;

/// The text of a file of at most [`MAX_BYTES`].
///
/// # Errors
/// The file cannot be read, is not a regular file, is too large or is not UTF-8.
#[cfg(any(feature = "ctl", test))]
pub(crate) fn text(path: &Path) -> io::Result<String> {
    text_up_to(path, MAX_BYTES)
}

/// The text of a file of at most `max` bytes.
///
/// # Errors
/// As [`text`].
pub(crate) fn text_up_to(path: &Path, max: u64) -> io::Result<String> {
    String::from_utf8(bytes_up_to(path, max)?)
        .map_err(|_error| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text"))
}

/// The bytes of a file of at most [`MAX_BYTES`].
///
/// # Errors
/// The file cannot be read, is not a regular file or is too large.
#[cfg(feature = "service")]
pub(crate) fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    bytes_up_to(path, MAX_BYTES)
}

fn bytes_up_to(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let mut bytes = Vec::new();
    // It may grow while it is read.
    file.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        let message = format!("it is larger than {max} bytes, the limit");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

/// Opens a regular file for reading. Anything else is refused without waiting for a peer.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn only_regular_files_of_a_bounded_size_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("small"), "text").unwrap();
        assert_eq!(text(&path("small")).unwrap(), "text");
        std::fs::write(path("binary"), [0xff]).unwrap();
        assert_eq!(text(&path("binary")).unwrap_err().kind(), io::ErrorKind::InvalidData);
        File::create(path("large")).unwrap().set_len(MAX_BYTES + 1).unwrap();
        assert_eq!(text(&path("large")).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(text(&path("absent")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(Command::new("mkfifo").arg(path("pipe")).status().unwrap().success());
        for other in [path("pipe"), "/dev/zero".into(), folder.path().to_owned()] {
            let error = text(&other).unwrap_err();
            assert_eq!(error.to_string(), "it is not a regular file", "{}", other.display());
        }
    }
}
