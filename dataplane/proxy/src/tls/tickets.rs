//! Session tickets: what a client keeps so that its next handshake is short (RFC 8446, section 4.6.1; RFC 5077).
//!
//! A ticket is a session, encrypted with a key that all workers share. Keys are made new every day and honoured
//! for one day more, in memory and in a file of mode 0600, so that a restart does not make every client start
//! anew. Whoever has the keys can read sessions of TLS 1.2 that were resumed with them: hence the day.

use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use rustls::server::ProducesTickets;
use zeroize::Zeroizing;

/// How long a key makes tickets, in seconds; as long again it reads them.
const LIFETIME_S: u64 = 24 * 60 * 60;

/// Bytes by which a ticket names its key.
const NAME: usize = 16;

/// Bytes of a key.
const SECRET: usize = 32;

/// Makes and reads tickets.
pub struct Tickets {
    path: PathBuf,
    keys: ArcSwap<Vec<Arc<Key>>>,
}

/// A key, the newest first among its likes.
struct Key {
    made_s: u64,
    name: [u8; NAME],
    secret: Zeroizing<[u8; SECRET]>,
    cipher: LessSafeKey,
}

/// Why ticket keys cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum TicketError {
    /// The file cannot be read or written.
    #[error("cannot keep session ticket keys in {}", .0.display())]
    File(PathBuf, #[source] io::Error),
    /// Others can read it.
    #[error("{} can be read by others: it holds keys, remove it or make its mode 0600", .0.display())]
    Open(PathBuf),
    /// It is not one of ours.
    #[error("{} is no file of session ticket keys: remove it, and clients start anew", .0.display())]
    Malformed(PathBuf),
}

impl Tickets {
    /// Reads the keys of a file, or makes one where there is none, or none young enough.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn open(path: &Path, unix_s: u64) -> Result<Self, TicketError> {
        let file = |error| TicketError::File(path.to_owned(), error);
        let keys = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(file(error)),
            Ok(meta) if meta.permissions().mode() & 0o077 != 0 => {
                return Err(TicketError::Open(path.to_owned()));
            }
            Ok(_) => {
                let text = Zeroizing::new(fs::read_to_string(path).map_err(file)?);
                let keys: Option<Vec<_>> = text.lines().map(|line| Key::parse(line).map(Arc::new)).collect();
                keys.ok_or_else(|| TicketError::Malformed(path.to_owned()))?
            }
        };
        let tickets = Self { path: path.to_owned(), keys: ArcSwap::from_pointee(keys) };
        tickets.rotate(unix_s)?;
        Ok(tickets)
    }

    /// Makes a new key where the newest has made tickets for a day, and forgets those that nobody honours.
    ///
    /// # Errors
    /// The file cannot be written: the keys stay as they are.
    pub fn rotate(&self, unix_s: u64) -> Result<(), TicketError> {
        let keys = self.keys.load();
        // A key of the future was made under a clock that went wrong: it would never be replaced.
        let fresh = |key: &Key| key.made_s <= unix_s && unix_s - key.made_s < LIFETIME_S;
        if keys.first().is_some_and(|key| fresh(key)) {
            return Ok(());
        }
        let honoured = |key: &&Arc<Key>| key.made_s <= unix_s && unix_s - key.made_s < 2 * LIFETIME_S;
        let mut next = vec![Arc::new(Key::random(unix_s))];
        next.extend(keys.iter().filter(honoured).cloned());
        self.write(&next).map_err(|error| TicketError::File(self.path.clone(), error))?;
        self.keys.store(Arc::new(next));
        Ok(())
    }

    /// When the newest key was made.
    pub(super) fn made_s(&self) -> u64 {
        self.keys.load().first().map_or(0, |key| key.made_s)
    }

    /// Writes beside the file and renames: there is never half of one.
    fn write(&self, keys: &[Arc<Key>]) -> io::Result<()> {
        let mut text = Zeroizing::new(String::new());
        for key in keys {
            text.push_str(&format!("{} {} {}\n", key.made_s, hex(&key.name), *hex_secret(&*key.secret)));
        }
        let beside = self.path.with_extension("new");
        fs::remove_file(&beside).ok();
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)
    }
}

impl Key {
    fn new(made_s: u64, name: [u8; NAME], secret: Zeroizing<[u8; SECRET]>) -> Self {
        let cipher = UnboundKey::new(&AES_256_GCM, &*secret).expect("the key has the right length");
        Self { made_s, name, secret, cipher: LessSafeKey::new(cipher) }
    }

    fn random(made_s: u64) -> Self {
        let mut name = [0; NAME];
        let mut secret = Zeroizing::new([0; SECRET]);
        rand::fill(&mut name).expect("the system has random numbers");
        rand::fill(&mut *secret).expect("the system has random numbers");
        Self::new(made_s, name, secret)
    }

    fn parse(line: &str) -> Option<Self> {
        let mut parts = line.split(' ');
        let made_s = parts.next()?.parse().ok()?;
        let mut name = [0; NAME];
        unhex(parts.next()?, &mut name)?;
        let mut secret = Zeroizing::new([0; SECRET]);
        unhex(parts.next()?, &mut *secret)?;
        parts.next().is_none().then(|| Self::new(made_s, name, secret))
    }
}

/// Tickets of one kind of handshake: the others' are none.
#[derive(Debug)]
pub(super) struct Bound {
    tickets: Arc<Tickets>,
    context: Box<[u8]>,
}

impl Bound {
    /// `context` names the kind; empty for the usual one.
    pub(super) fn new(tickets: &Arc<Tickets>, context: &[u8]) -> Self {
        Self { tickets: Arc::clone(tickets), context: context.into() }
    }
}

impl ProducesTickets for Bound {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(LIFETIME_S).expect("a day has few seconds")
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        self.tickets.encrypt(session, &self.context)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.tickets.decrypt(ticket, &self.context)
    }
}

impl Tickets {
    /// Name, nonce, the encrypted session and its tag, which vouches for name and `context`, too.
    fn encrypt(&self, session: &[u8], context: &[u8]) -> Option<Vec<u8>> {
        let keys = self.keys.load();
        let key = keys.first()?;
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut ticket = Vec::with_capacity(NAME + NONCE_LEN + session.len() + AES_256_GCM.tag_len());
        ticket.extend_from_slice(&key.name);
        ticket.extend_from_slice(&nonce);
        ticket.extend_from_slice(session);
        let (_, body) = ticket.split_at_mut(NAME + NONCE_LEN);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = key
            .cipher
            .seal_in_place_separate_tag(nonce, Aad::from([&key.name, context].concat()), body)
            .ok()?;
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8], context: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME>()?;
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>()?;
        let keys = self.keys.load();
        let key = keys.iter().find(|key| key.name == *name)?;
        let mut body = body.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let len = key.cipher.open_in_place(nonce, Aad::from([name, context].concat()), &mut body).ok()?.len();
        body.truncate(len);
        Some(body)
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").field("path", &self.path).field("keys", &self.keys.load().len()).finish()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hex_secret(bytes: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(hex(bytes))
}

fn unhex(text: &str, out: &mut [u8]) -> Option<()> {
    if text.len() != 2 * out.len() || !text.is_ascii() {
        return None;
    }
    for (index, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = LIFETIME_S;

    #[test]
    fn tickets_outlive_a_restart_and_one_rotation() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tickets");
        let first = Tickets::open(&path, 1000).unwrap();
        let ticket = first.encrypt(b"session", b"").unwrap();
        assert_eq!(first.decrypt(&ticket, b"").unwrap(), b"session");
        assert_ne!(first.encrypt(b"session", b"").unwrap(), ticket);
        let again = Tickets::open(&path, 1000 + DAY - 1).unwrap();
        assert_eq!(again.decrypt(&ticket, b"").unwrap(), b"session");
        again.rotate(1000 + DAY).unwrap();
        assert_eq!(again.decrypt(&ticket, b"").unwrap(), b"session");
        let newer = again.encrypt(b"newer", b"").unwrap();
        assert_ne!(newer[..NAME], ticket[..NAME]);
        again.rotate(1000 + 2 * DAY).unwrap();
        assert_eq!(again.decrypt(&ticket, b""), None);
        assert_eq!(again.decrypt(&newer, b"").unwrap(), b"newer");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_ticket_is_good_for_its_kind_of_handshake_only() {
        let folder = tempfile::tempdir().unwrap();
        let tickets = Arc::new(Tickets::open(&folder.path().join("tickets"), 0).unwrap());
        let kinds = [&b""[..], b"one", b"two"].map(|context| Bound::new(&tickets, context));
        for (made_by, from) in kinds.iter().enumerate() {
            let ticket = from.encrypt(b"session").unwrap();
            for (read_by, to) in kinds.iter().enumerate() {
                assert_eq!(to.decrypt(&ticket).is_some(), made_by == read_by);
            }
        }
    }

    #[test]
    fn a_changed_ticket_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let tickets = Tickets::open(&folder.path().join("tickets"), 0).unwrap();
        let ticket = tickets.encrypt(b"session", b"").unwrap();
        for index in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[index] ^= 1;
            assert_eq!(tickets.decrypt(&changed, b""), None, "byte {index}");
            assert_eq!(tickets.decrypt(&ticket[..index], b""), None);
        }
    }

    #[test]
    fn refuses_files_that_are_not_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tickets");
        drop(Tickets::open(&path, 0).unwrap());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Tickets::open(&path, 0), Err(TicketError::Open(_))));
        for text in ["x", "0 00 00", "0 00112233445566778899aabbccddeeff zz"] {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            assert!(matches!(Tickets::open(&path, 0), Err(TicketError::Malformed(_))), "{text:?}");
        }
    }

    #[test]
    fn debug_shows_no_key() {
        let folder = tempfile::tempdir().unwrap();
        let tickets = Tickets::open(&folder.path().join("tickets"), 0).unwrap();
        let key = hex(&*tickets.keys.load()[0].secret);
        assert!(!format!("{tickets:?}").contains(&key));
    }
}
