//! The file in which a person's token is: nobody else can read it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use mc_api::token::Token;
use mcdsl::Secret;

use crate::error::Error;

/// Where it is where nobody says otherwise.
pub(crate) fn default_path() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let config = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")))?;
    Some(config.join("mcias/token"))
}

/// Reads the token; none where there is no file.
///
/// # Errors
/// It cannot be read, or others can read it too.
pub(crate) fn read(path: &Path) -> Result<Token, Error> {
    let failed = |source| Error::File { what: "cannot read the token of", path: path.to_owned(), source };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Token::default()),
        Err(error) => return Err(failed(error)),
    };
    if file.metadata().map_err(failed)?.mode() & 0o077 != 0 {
        return Err(Error::Exposed(path.to_owned()));
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(failed)?;
    let text = Secret::from(text);
    Token::of(text.expose()).ok_or_else(|| failed(io::Error::other("it holds none: log in again")))
}

/// Puts a token into a file of mode 0600, whole or not at all. `new`: the file must not be there.
///
/// # Errors
/// It cannot be written.
pub(crate) fn write(path: &Path, token: &Secret, new: bool) -> Result<(), Error> {
    let failed = |source| Error::File { what: "cannot write the token to", path: path.to_owned(), source };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Where a service is to find its token, there is a folder, or a slip of the pen.
    if !new {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let put = |mut file: File| {
        file.write_all(token.expose().as_bytes())
            .and_then(|()| file.write_all(b"\n"))
            .and_then(|()| file.sync_all())
    };
    if new {
        return options.open(path).and_then(put).map_err(failed);
    }
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    let written = options.open(&beside).and_then(put).and_then(|()| std::fs::rename(&beside, path));
    written.map_err(|error| {
        std::fs::remove_file(&beside).unwrap_or(());
        failed(error)
    })
}

/// Forgets the token.
///
/// # Errors
/// The file is there and cannot be removed.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::File { what: "cannot remove", path: path.to_owned(), source })
        }
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
        assert_eq!(format!("{:?}", read(&path).unwrap()), "Token(none)");
        write(&path, &Secret::from("one"), false).unwrap();
        write(&path, &Secret::from("two"), false).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        assert!(write(&path, &Secret::from("three"), true).is_err());
        assert_eq!(format!("{:?}", read(&path).unwrap()), "Token(redacted)");
        set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(read(&path), Err(Error::Exposed(_))));
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(!path.exists());
    }
}
