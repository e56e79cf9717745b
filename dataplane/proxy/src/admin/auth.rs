//! The bearer token of the admin API over TCP.
//!
//! It is read from its file at each use, so that rotating it needs no restart; the file must be its owner's
//! alone. Over the Unix socket there is no token: the socket's mode decides.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// Where the token is.
#[derive(Clone, Debug)]
pub struct TokenFile {
    path: PathBuf,
}

/// A secret that neither prints itself nor stays in memory.
struct Token(Zeroizing<Vec<u8>>);

/// Why the token cannot be used. Says nothing of the token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("cannot read the token file {0}: {1}")]
    Read(PathBuf, std::io::Error),
    /// Others may read it.
    #[error("the token file {0} can be read by others (mode {1:03o}): chmod 600 it, and change the token")]
    Open(PathBuf, u32),
    /// There is not enough in it.
    #[error("the token in {0} is shorter than {MIN_LENGTH} characters: make one with `openssl rand -hex 32`")]
    Short(PathBuf),
}

impl TokenFile {
    /// A token in this file, which need not be there yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Whether the value of an `authorization` field carries the token, in a time that does not tell how much
    /// of it is right.
    ///
    /// # Errors
    /// The token cannot be read: then nobody is let in.
    pub fn admits(&self, authorization: Option<&[u8]>) -> Result<bool, TokenError> {
        let token = self.read()?;
        let given = authorization.and_then(|value| {
            let (scheme, given) = value.split_at_checked(BEARER.len())?;
            scheme.eq_ignore_ascii_case(BEARER).then_some(given)
        });
        Ok(given.is_some_and(|given| bool::from(given.trim_ascii().ct_eq(&token.0))))
    }

    /// Whether the token can be used, for a check at the start.
    ///
    /// # Errors
    /// It cannot be read, others can read it, or it is too short.
    pub fn check(&self) -> Result<(), TokenError> {
        self.read().map(drop)
    }

    fn read(&self) -> Result<Token, TokenError> {
        let broken = |error| TokenError::Read(self.path.clone(), error);
        let file = std::fs::File::open(&self.path).map_err(broken)?;
        let mode = file.metadata().map_err(broken)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(TokenError::Open(self.path.clone(), mode));
        }
        // With its whole room from the start, so that growing leaves no copy behind.
        let mut text = Zeroizing::new(Vec::with_capacity(MAX_LENGTH));
        file.take(MAX_LENGTH as u64).read_to_end(&mut text).map_err(broken)?;
        let token = Token(Zeroizing::new(text.trim_ascii().to_vec()));
        if token.0.len() < MIN_LENGTH {
            return Err(TokenError::Short(self.path.clone()));
        }
        Ok(token)
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token([redacted])")
    }
}

const BEARER: &[u8] = b"bearer ";

/// Shorter ones can be guessed.
const MIN_LENGTH: usize = 16;

/// Longer ones are cut.
const MAX_LENGTH: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    fn file(text: &str, mode: u32) -> (tempfile::NamedTempFile, TokenFile) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        let token = TokenFile::new(file.path().to_owned());
        (file, token)
    }

    fn check(header: Option<&str>, expect: bool) {
        let (_file, token) = file(&format!("{TOKEN}\n"), 0o600);
        assert_eq!(token.admits(header.map(str::as_bytes)).unwrap(), expect, "{header:?}");
    }

    #[test]
    fn only_the_whole_token_is_admitted() {
        check(Some(&format!("Bearer {TOKEN}")), true);
        check(Some(&format!("bearer  {TOKEN} ")), true);
        check(None, false);
        check(Some(""), false);
        check(Some("Bearer "), false);
        check(Some(TOKEN), false);
        check(Some(&format!("Basic  {TOKEN}")), false);
        check(Some(&format!("Bearer {}", &TOKEN[1..])), false);
        check(Some(&format!("Bearer {TOKEN}0")), false);
    }

    #[test]
    fn a_rotated_token_counts_at_once() {
        let (file, token) = file(TOKEN, 0o600);
        std::fs::write(file.path(), "fedcba9876543210").unwrap();
        assert!(!token.admits(Some(format!("Bearer {TOKEN}").as_bytes())).unwrap());
        assert!(token.admits(Some(b"Bearer fedcba9876543210")).unwrap());
    }

    #[test]
    fn a_file_that_is_open_short_or_gone_admits_nobody() {
        assert!(matches!(file(TOKEN, 0o640).1.check(), Err(TokenError::Open(_, 0o640))));
        assert!(matches!(file("short\n", 0o600).1.check(), Err(TokenError::Short(_))));
        assert!(matches!(TokenFile::new("/nowhere/token".into()).check(), Err(TokenError::Read(..))));
    }

    #[test]
    fn a_token_does_not_print_itself() {
        let (_file, token) = file(TOKEN, 0o600);
        assert!(!format!("{:?} {:?}", token, token.read().unwrap()).contains("0123"));
    }
}
