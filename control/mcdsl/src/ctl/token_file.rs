//! Files with a token. Only their owner can read them.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use mc_api::token::Token;

use super::{Error, Exit};
use crate::Secret;

/// Reads the token; `None` if there is no file.
///
/// # Errors
/// Returns an error if the file cannot be read, or if others can read it too.
pub(super) fn read(path: &Path) -> Result<Option<Token>, Error> {
    let failed = |source| Error::file("read the token in", path, source);
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if file.metadata().map_err(failed)?.mode() & 0o077 != 0 {
        let detail =
            format!("{0} can be read by others: run `chmod 600 {0}`, and log in again", path.display());
        return Err(Error::new(Exit::NotPermitted, detail));
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(failed)?;
    let text = Secret::from(text);
    let token = Token::of(text.expose());
    token.map(Some).ok_or_else(|| failed(io::Error::other("the file holds no token: log in again")))
}

/// Writes a token to a file of mode 0600, atomically. Creates the directory.
///
/// # Errors
/// Returns an error if the file cannot be written.
pub(super) fn write(path: &Path, token: &Secret) -> Result<(), Error> {
    let text = Secret::from(format!("{}\n", token.expose()));
    replace(path, text.expose()).map_err(|source| Error::file("write the token to", path, source))
}

/// Writes a token to a new file of mode 0600, in a directory that exists.
///
/// # Errors
/// Returns an error if the file exists or cannot be written.
pub fn create(path: &Path, token: &Secret) -> Result<(), Error> {
    let text = Secret::from(format!("{}\n", token.expose()));
    create_file(path, text.expose()).map_err(|source| Error::file("write the token to", path, source))
}

/// Replaces a file of mode 0600, atomically. Creates the directory.
pub(super) fn replace(path: &Path, text: &str) -> io::Result<()> {
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let temporary = path.with_added_extension(format!("{}.new", std::process::id()));
    let written = create_file(&temporary, text).and_then(|()| std::fs::rename(&temporary, path));
    written.inspect_err(|_| std::fs::remove_file(&temporary).unwrap_or(()))
}

fn create_file(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Removes the file if it is there.
///
/// # Errors
/// Returns an error if the file cannot be removed.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::file("remove", path, source)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_token_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/token");
        assert!(read(&path).unwrap().is_none());
        write(&path, &Secret::from("one")).unwrap();
        write(&path, &Secret::from("two")).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        assert!(create(&path, &Secret::from("three")).is_err());
        assert!(create(&folder.path().join("no/token"), &Secret::from("three")).is_err());
        assert_eq!(format!("{:?}", read(&path).unwrap()), "Some(Token(redacted))");
        set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        assert_eq!(read(&path).unwrap_err().exit(), Exit::NotPermitted);
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(!path.exists());
    }
}
