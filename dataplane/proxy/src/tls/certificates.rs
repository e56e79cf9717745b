//! A folder of certificates, by the names that they are for.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use base64::Engine as _;
use mc_core::hostname::HostName;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::public_key::PublicKey;
use zeroize::Zeroizing;

/// The certificates of a folder.
#[derive(Debug, Default)]
pub struct Certificates {
    files: BTreeMap<PathBuf, File>,
    /// By name, `*.example.org` among them. Where two files have the same name, the first by its path.
    names: HashMap<Box<str>, Arc<CertifiedKey>>,
    /// For clients that send no name: `default.pem`.
    nameless: Option<Arc<CertifiedKey>>,
}

/// A file that was read.
#[derive(Clone, Debug)]
struct File {
    stamp: Stamp,
    /// Absent where the file could not be used, and never could.
    loaded: Option<Loaded>,
    /// What was wrong when it was last read.
    problem: Option<Box<str>>,
}

#[derive(Clone, Debug)]
struct Loaded {
    key: Arc<CertifiedKey>,
    names: Vec<Box<str>>,
    leaf: Leaf,
}

/// What a leaf says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaf {
    /// From when on it is valid, in seconds of Unix time.
    pub not_before_s: i64,
    /// Until when.
    pub not_after_s: i64,
    /// The kind of its key: `ECDSA 256`, `RSA 2048`.
    pub key: String,
    /// SHA-256 of the certificate, in hexadecimal.
    pub sha256: String,
}

/// What tells one version of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    pub(super) bytes: u64,
    changed: (i64, i64),
}

impl Stamp {
    /// Through links, as ACME clients leave them.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let meta = fs::metadata(path)?;
        Ok(Self { inode: meta.ino(), bytes: meta.len(), changed: (meta.mtime(), meta.mtime_nsec()) })
    }
}

/// A certificate in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateInfo {
    /// The file's name.
    pub file: String,
    /// Names that it is for.
    pub names: Vec<String>,
    /// What its leaf says; `None`: the file never could be used.
    pub leaf: Option<Leaf>,
    /// What is wrong with the file as it is now: what it held before stays in use.
    pub problem: Option<String>,
    /// Whether it comes with an OCSP response.
    pub stapled: bool,
}

/// Why a file of the folder is of no use.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct CertificateError {
    /// Which file.
    pub path: PathBuf,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[source] io::Error),
    /// There is no certificate in it.
    #[error("has no certificate: put the chain into it, the leaf first")]
    NoCertificate,
    /// There is no private key in it.
    #[error("has no private key: append it, as PEM")]
    NoKey,
    /// It is no PEM, or a part of it is malformed.
    #[error("is malformed: {0}")]
    Malformed(String),
    /// Key and certificate do not belong together, or are of a kind that TLS does not use.
    #[error("its key is of no use: {0}")]
    Key(#[source] rustls::Error),
    /// The leaf has no DNS name.
    #[error("its certificate is for no DNS name (subject alternative name)")]
    NoName,
}

impl Certificates {
    /// Reads the folder's `*.pem`. Files that have not changed since `before` are not read again; those that cannot
    /// be used keep what they held then.
    pub(super) fn load(
        folder: &Path,
        before: &Self,
        provider: &CryptoProvider,
    ) -> (Self, Vec<CertificateError>) {
        let mut files = BTreeMap::new();
        let mut problems = Vec::new();
        let stamps = match stamps(folder) {
            Ok(stamps) => stamps,
            Err(error) => {
                problems.push(CertificateError { path: folder.to_owned(), problem: Problem::Read(error) });
                before.files.iter().map(|(path, file)| (path.clone(), file.stamp)).collect()
            }
        };
        for (path, stamp) in stamps {
            let old = before.files.get(&path);
            let file = match old {
                Some(old) if old.stamp == stamp => old.clone(),
                _ => match read(&path, provider) {
                    Ok(loaded) => File { stamp, loaded: Some(loaded), problem: None },
                    Err(problem) => {
                        let text = Some(problem.to_string().into());
                        problems.push(CertificateError { path: path.clone(), problem });
                        File { stamp, loaded: old.and_then(|old| old.loaded.clone()), problem: text }
                    }
                },
            };
            files.insert(path, file);
        }
        (Self::of(files), problems)
    }

    fn of(files: BTreeMap<PathBuf, File>) -> Self {
        let mut names = HashMap::new();
        let mut nameless = None;
        for (path, file) in &files {
            let Some(loaded) = &file.loaded else { continue };
            for name in &loaded.names {
                names.entry(name.clone()).or_insert_with(|| Arc::clone(&loaded.key));
            }
            if path.file_stem().is_some_and(|stem| stem == "default") {
                nameless = Some(Arc::clone(&loaded.key));
            }
        }
        Self { files, names, nameless }
    }

    /// The certificate for a name: its own, or the wildcard of its parent (RFC 9525, section 6.3).
    pub(super) fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let Some(name) = name else { return self.nameless.clone() };
        let name = HostName::parse(name.as_bytes()).ok()?;
        let name = name.as_str();
        let wildcard = || self.names.get(format!("*{}", &name[name.find('.')?..]).as_str());
        self.names.get(name).or_else(wildcard).cloned()
    }

    /// Files in use.
    pub(super) fn len(&self) -> usize {
        self.files.values().filter(|file| file.loaded.is_some()).count()
    }

    pub(super) fn has_changed(&self, folder: &Path) -> bool {
        // A folder that cannot be read now will be told of at the next reload that somebody asks for.
        stamps(folder).is_ok_and(|now| {
            now.len() != self.files.len()
                || now
                    .iter()
                    .any(|(path, stamp)| self.files.get(path).is_none_or(|file| file.stamp != *stamp))
        })
    }

    pub(super) fn infos(&self) -> Vec<CertificateInfo> {
        let info = |(path, file): (&PathBuf, &File)| {
            let loaded = file.loaded.as_ref();
            let names = loaded.map_or(&[][..], |loaded| &loaded.names);
            Some(CertificateInfo {
                file: path.file_name()?.to_string_lossy().into_owned(),
                names: names.iter().map(ToString::to_string).collect(),
                leaf: loaded.map(|loaded| loaded.leaf.clone()),
                problem: file.problem.as_deref().map(str::to_owned),
                stapled: loaded.is_some_and(|loaded| loaded.key.ocsp.is_some()),
            })
        };
        self.files.iter().filter_map(info).collect()
    }
}

/// The folder's `*.pem`, in the order of their paths; none where it does not exist.
fn stamps(folder: &Path) -> io::Result<BTreeMap<PathBuf, Stamp>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        entries => entries?,
    };
    let mut stamps = BTreeMap::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "pem") {
            continue;
        }
        // One that was removed since is none.
        let Ok(stamp) = Stamp::of(&path) else { continue };
        stamps.insert(path, stamp);
    }
    Ok(stamps)
}

/// Reads a key, its chain, and an OCSP response where there is one.
fn read(path: &Path, provider: &CryptoProvider) -> Result<Loaded, Problem> {
    let text = Zeroizing::new(fs::read(path).map_err(Problem::Read)?);
    let malformed = |error: pem::Error| match error {
        // As bytes, in the error's own words.
        pem::Error::MissingSectionEnd { end_marker } => {
            Problem::Malformed(format!("the block {} has no end", String::from_utf8_lossy(&end_marker)))
        }
        error => Problem::Malformed(error.to_string()),
    };
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().map_err(malformed)?;
    let leaf = chain.first().ok_or(Problem::NoCertificate)?;
    let names = names(leaf)?;
    let leaf = describe(leaf)?;
    let key = match PrivateKeyDer::from_pem_slice(&text) {
        Ok(key) => key,
        Err(pem::Error::NoItemsFound) => return Err(Problem::NoKey),
        Err(error) => return Err(malformed(error)),
    };
    let mut key = CertifiedKey::from_der(chain, key, provider).map_err(Problem::Key)?;
    key.ocsp = ocsp(&text)?;
    Ok(Loaded { key: Arc::new(key), names, leaf })
}

/// What a certificate says of itself.
fn describe(leaf: &CertificateDer<'_>) -> Result<Leaf, Problem> {
    let parsed = x509_parser::parse_x509_certificate(leaf);
    let (_, parsed) = parsed.map_err(|error| Problem::Malformed(error.to_string()))?;
    let key = match parsed.public_key().parsed() {
        Ok(PublicKey::RSA(key)) => format!("RSA {}", key.key_size()),
        Ok(PublicKey::EC(point)) => format!("ECDSA {}", point.key_size()),
        _ => "Ed25519 or another".to_owned(),
    };
    Ok(Leaf {
        not_before_s: parsed.validity().not_before.timestamp(),
        not_after_s: parsed.validity().not_after.timestamp(),
        key,
        sha256: fingerprint(leaf),
    })
}

/// SHA-256 of a certificate, in hexadecimal.
pub(crate) fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let digest = digest::digest(&digest::SHA256, certificate);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The DNS names of a certificate, in the form in which they are looked up.
fn names(leaf: &CertificateDer<'_>) -> Result<Vec<Box<str>>, Problem> {
    let leaf =
        webpki::EndEntityCert::try_from(leaf).map_err(|error| Problem::Malformed(error.to_string()))?;
    let mut names: Vec<Box<str>> = Vec::new();
    for name in leaf.valid_dns_names() {
        let (star, rest) = name.strip_prefix("*.").map_or(("", name), |rest| ("*.", rest));
        if let Ok(rest) = HostName::parse(rest.as_bytes()) {
            names.push(format!("{star}{rest}").into());
        }
    }
    if names.is_empty() { Err(Problem::NoName) } else { Ok(names) }
}

/// The OCSP response to staple (a block `OCSP RESPONSE`), as `openssl ocsp -respout` and `base64` make it.
fn ocsp(pem: &[u8]) -> Result<Option<Vec<u8>>, Problem> {
    const BEGIN: &str = "-----BEGIN OCSP RESPONSE-----";
    const END: &str = "-----END OCSP RESPONSE-----";
    let Ok(text) = str::from_utf8(pem) else { return Ok(None) };
    let Some((_, rest)) = text.split_once(BEGIN) else { return Ok(None) };
    let (body, _) =
        rest.split_once(END).ok_or_else(|| Problem::Malformed("the OCSP response has no end".to_owned()))?;
    let body: String = body.split_ascii_whitespace().collect();
    base64::engine::general_purpose::STANDARD
        .decode(body)
        .map(Some)
        .map_err(|error| Problem::Malformed(format!("the OCSP response: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(names: &[&str]) -> String {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        format!("{}{}", made.cert.pem(), made.signing_key.serialize_pem())
    }

    fn load(folder: &Path, before: &Certificates) -> (Certificates, Vec<String>) {
        let (loaded, problems) = Certificates::load(folder, before, &super::super::provider());
        (loaded, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn finds_by_name_and_wildcard() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.pem"), pem(&["a.example", "*.b.example"])).unwrap();
        fs::write(folder.path().join("default.pem"), pem(&["z.example"])).unwrap();
        fs::write(folder.path().join("other.txt"), "not looked at").unwrap();
        let (loaded, problems) = load(folder.path(), &Certificates::default());
        assert_eq!(problems, [""; 0]);
        assert_eq!(loaded.len(), 2);
        for (name, found) in [
            (Some("a.example"), true),
            (Some("A.Example."), true),
            (Some("x.b.example"), true),
            (Some("b.example"), false),
            (Some("y.x.b.example"), false),
            (Some("c.example"), false),
            (None, true),
        ] {
            assert_eq!(loaded.find(name).is_some(), found, "{name:?}");
        }
        assert_eq!(loaded.infos()[0].names, ["a.example", "*.b.example"]);
    }

    #[test]
    fn a_file_that_broke_keeps_what_it_held() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pem");
        fs::write(&path, pem(&["a.example"])).unwrap();
        let (first, _) = load(folder.path(), &Certificates::default());
        assert!(!first.has_changed(folder.path()));
        fs::write(&path, "-----BEGIN CERTIFICATE-----").unwrap();
        assert!(first.has_changed(folder.path()));
        let (second, problems) = load(folder.path(), &first);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(second.find(Some("a.example")).is_some());
        fs::remove_file(&path).unwrap();
        let (third, problems) = load(folder.path(), &second);
        assert_eq!((problems.len(), third.len()), (0, 0));
    }

    #[test]
    fn says_what_is_wrong() {
        let (one, other) = (pem(&["a.example"]), pem(&["b.example"]));
        let (certificate, key) = one.split_once("-----BEGIN PRIVATE").unwrap();
        let (_, other_key) = other.split_once("-----BEGIN PRIVATE").unwrap();
        let cases = [
            (String::new(), "has no certificate"),
            (certificate.to_owned(), "has no private key"),
            (format!("-----BEGIN PRIVATE{key}"), "has no certificate"),
            (format!("{certificate}-----BEGIN PRIVATE{other_key}"), "its key is of no use"),
            (format!("{one}-----BEGIN OCSP RESPONSE-----\n!\n-----END OCSP RESPONSE-----"), "OCSP response"),
            (format!("{one}-----BEGIN OCSP RESPONSE-----\n"), "the block OCSP RESPONSE has no end"),
        ];
        for (text, expected) in cases {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("a.pem"), text).unwrap();
            let (_, problems) = load(folder.path(), &Certificates::default());
            assert!(problems.len() == 1 && problems[0].contains(expected), "{expected}: {problems:?}");
            assert!(problems[0].contains("a.pem"), "{problems:?}");
        }
    }
}
