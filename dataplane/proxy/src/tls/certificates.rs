//! A folder of certificates, by the names that they are for.
//!
//! Several files may be for one name: which of them a client is shown is [`mc_core::certificate`]'s decision.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use base64::Engine as _;
use mc_core::certificate::{self, Candidate, KeyType, Period, Validity};
use mc_core::hostname::HostName;
use rustls::SignatureScheme;
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
    /// By name, in the order of the files. `*.example.org` is a name; the empty one is for clients that send none.
    names: HashMap<Box<str>, Vec<Arc<Loaded>>>,
}

/// A file that was read.
#[derive(Clone, Debug)]
struct File {
    stamp: Stamp,
    /// Absent where the file could not be used, and never could.
    loaded: Option<Arc<Loaded>>,
    /// What was wrong when it was last read.
    problem: Option<Arc<Problem>>,
}

#[derive(Debug)]
struct Loaded {
    file: Box<str>,
    key: Arc<CertifiedKey>,
    /// The names of the leaf, and the empty one where it is for clients that send none.
    names: Vec<Box<str>>,
    leaf: Leaf,
}

/// What a leaf says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// When it is valid.
    pub period: Period,
    /// The type of its key.
    pub key_type: KeyType,
    /// Type and size of its key: `ECDSA 256`, `RSA 2048`.
    pub key: String,
    /// SHA-256 of the certificate, in hexadecimal.
    pub sha256: String,
}

/// What tells one version of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    pub(super) bytes: u64,
    /// Of the inode: new permissions may make a file readable.
    changed: (i64, i64),
}

impl Stamp {
    /// Through links, as ACME clients leave them.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|meta| Self::from(&meta))
    }
}

impl From<&fs::Metadata> for Stamp {
    fn from(meta: &fs::Metadata) -> Self {
        Self { inode: meta.ino(), bytes: meta.len(), changed: (meta.ctime(), meta.ctime_nsec()) }
    }
}

/// A file of the folder.
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
    /// Names for which another file is used.
    pub shadowed: Vec<Shadowed>,
    /// Whether no client is shown it: it is shadowed for all its names.
    pub unused: bool,
}

/// A name for which another file with the same type of key is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadowed {
    /// Which name; the empty one stands for clients that send none.
    pub name: String,
    /// The other file.
    pub by: String,
}

/// Why a file of the folder cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct CertificateError {
    /// Which file.
    pub path: PathBuf,
    /// What is wrong.
    pub problem: Arc<Problem>,
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
    /// Reads the folder's `*.pem`. Files that have not changed since `before` are not read again, unless they could not
    /// be used; those that cannot be used keep what they held then. Returns what is wrong with any file.
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
                let problem = Arc::new(Problem::Read(error));
                problems.push(CertificateError { path: folder.to_owned(), problem });
                before.files.iter().map(|(path, file)| (path.clone(), file.stamp)).collect()
            }
        };
        for (path, stamp) in stamps {
            let old = before.files.get(&path);
            let file = match old {
                Some(old) if old.stamp == stamp && old.problem.is_none() => old.clone(),
                _ => match read(&path, provider) {
                    Ok(loaded) => File { stamp, loaded: Some(Arc::new(loaded)), problem: None },
                    Err(problem) => {
                        let problem = Arc::new(problem);
                        problems.push(CertificateError { path: path.clone(), problem: Arc::clone(&problem) });
                        File { stamp, loaded: old.and_then(|old| old.loaded.clone()), problem: Some(problem) }
                    }
                },
            };
            files.insert(path, file);
        }
        (Self::of(files), problems)
    }

    fn of(files: BTreeMap<PathBuf, File>) -> Self {
        let mut names = HashMap::<_, Vec<_>>::new();
        for loaded in files.values().filter_map(|file| file.loaded.as_ref()) {
            for name in &loaded.names {
                names.entry(name.clone()).or_default().push(Arc::clone(loaded));
            }
        }
        Self { files, names }
    }

    /// Whether there is a certificate for a name.
    pub(super) fn serves(&self, name: Option<&str>) -> bool {
        self.for_name(name).next().is_some()
    }

    /// The certificate to show to a client that asks for this name and verifies signatures of these schemes.
    pub(super) fn find(
        &self,
        name: Option<&str>,
        schemes: &[SignatureScheme],
        now_s: i64,
    ) -> Option<Arc<CertifiedKey>> {
        let candidate = |exact: bool, loaded: &Loaded| Candidate {
            fits_client: loaded.key.key.choose_scheme(schemes).is_some(),
            period: loaded.leaf.period,
            exact,
            key: loaded.leaf.key_type,
        };
        // Where the client can verify none, TLS refuses it.
        let best = self.for_name(name).map(|(exact, loaded)| (candidate(exact, loaded), loaded));
        best.max_by(|one, other| {
            certificate::compare(&one.0, &other.0, now_s).then_with(|| other.1.file.cmp(&one.1.file))
        })
        .map(|(_, loaded)| Arc::clone(&loaded.key))
    }

    /// Certificates for a name: its own, with `true`, and those of its parent's wildcard (RFC 9525, section 6.3).
    fn for_name(&self, name: Option<&str>) -> impl Iterator<Item = (bool, &Arc<Loaded>)> {
        let name = match name {
            None => Some(String::new()),
            Some(name) => HostName::parse(name.as_bytes()).ok().map(|name| name.as_str().to_owned()),
        };
        let exact = name.as_ref().and_then(|name| self.names.get(name.as_str()));
        let wildcard = name.as_ref().and_then(|name| {
            let parent = name.get(name.find('.')?..)?;
            self.names.get(format!("*{parent}").as_str())
        });
        let exact = exact.into_iter().flatten().map(|loaded| (true, loaded));
        exact.chain(wildcard.into_iter().flatten().map(|loaded| (false, loaded)))
    }

    /// Files in use.
    pub(super) fn len(&self) -> usize {
        self.files.values().filter(|file| file.loaded.is_some()).count()
    }

    pub(super) fn has_changed(&self, folder: &Path) -> bool {
        // A folder that cannot be read now is reported by the next reload that somebody asks for.
        stamps(folder).is_ok_and(|now| {
            now.len() != self.files.len()
                || now
                    .iter()
                    .any(|(path, stamp)| self.files.get(path).is_none_or(|file| file.stamp != *stamp))
        })
    }

    pub(super) fn infos(&self, now_s: i64) -> Vec<CertificateInfo> {
        let info = |(path, file): (&PathBuf, &File)| {
            let loaded = file.loaded.as_deref();
            let names = loaded.map_or(&[][..], |loaded| &loaded.names);
            let shadowed = loaded.map(|loaded| self.shadowed(loaded, now_s)).unwrap_or_default();
            Some(CertificateInfo {
                file: path.file_name()?.to_string_lossy().into_owned(),
                names: names.iter().filter(|name| !name.is_empty()).map(ToString::to_string).collect(),
                leaf: loaded.map(|loaded| loaded.leaf.clone()),
                problem: file.problem.as_ref().map(ToString::to_string),
                stapled: loaded.is_some_and(|loaded| loaded.key.ocsp.is_some()),
                unused: !names.is_empty() && shadowed.len() == names.len(),
                shadowed,
            })
        };
        self.files.iter().filter_map(info).collect()
    }

    /// Names for which another file with the same type of key is used. A file with the same certificate does not count.
    fn shadowed(&self, loaded: &Loaded, now_s: i64) -> Vec<Shadowed> {
        let by = |name: &str| {
            let same_type =
                self.names.get(name)?.iter().filter(|it| it.leaf.key_type == loaded.leaf.key_type);
            let best = same_type.max_by_key(|it| {
                (it.leaf.period.at(now_s).is_valid(), it.leaf.period.not_after_s, Reverse(&it.file))
            })?;
            (best.leaf.sha256 != loaded.leaf.sha256).then(|| best.file.to_string())
        };
        let shadowed = |name: &str| Some(Shadowed { name: name.to_owned(), by: by(name)? });
        loaded.names.iter().filter_map(|name| shadowed(name)).collect()
    }
}

impl CertificateInfo {
    /// What its leaf's period says; `None`: the file never could be used.
    #[must_use]
    pub fn validity(&self, now_s: i64) -> Option<Validity> {
        self.leaf.as_ref().map(|leaf| leaf.period.at(now_s))
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
        // One that was removed since is none. A link that leads nowhere is there, and cannot be read.
        let stamp = Stamp::of(&path)
            .or_else(|_unreadable| fs::symlink_metadata(&path).map(|meta| Stamp::from(&meta)));
        let Ok(stamp) = stamp else { continue };
        stamps.insert(path, stamp);
    }
    Ok(stamps)
}

/// Bytes that a file may have: many times what a key and a long chain take.
const MAX_BYTES: u64 = 1024 * 1024;

/// Reads a file that is one: a pipe would keep the reader waiting.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let meta = fs::metadata(path)?;
    if !meta.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    if meta.len() > MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it has more than 1 MiB"));
    }
    fs::read(path)
}

/// Reads a key, its chain, and an OCSP response where there is one.
fn read(path: &Path, provider: &CryptoProvider) -> Result<Loaded, Problem> {
    let text = Zeroizing::new(read_file(path).map_err(Problem::Read)?);
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
    let mut names = names(leaf)?;
    if path.file_stem().is_some_and(|stem| NAMELESS.iter().any(|name| stem == *name)) {
        names.push("".into());
    }
    let leaf = describe(leaf)?;
    let key = match PrivateKeyDer::from_pem_slice(&text) {
        Ok(key) => key,
        Err(pem::Error::NoItemsFound) => return Err(Problem::NoKey),
        Err(error) => return Err(malformed(error)),
    };
    let mut key = CertifiedKey::from_der(chain, key, provider).map_err(Problem::Key)?;
    key.ocsp = ocsp(&text)?;
    let file = path.file_name().unwrap_or_default().to_string_lossy().into();
    Ok(Loaded { file, key: Arc::new(key), names, leaf })
}

/// Files that are for clients that send no name, without `.pem`.
const NAMELESS: [&str; 2] = ["default", "default-rsa"];

/// What a certificate says of itself.
fn describe(leaf: &CertificateDer<'_>) -> Result<Leaf, Problem> {
    let parsed = x509_parser::parse_x509_certificate(leaf);
    let (_, parsed) = parsed.map_err(|error| Problem::Malformed(error.to_string()))?;
    // TLS has keys of these three types (RFC 8446, section 4.2.3); others are refused with the private key.
    let (key_type, key) = match parsed.public_key().parsed() {
        Ok(PublicKey::RSA(key)) => (KeyType::Rsa, format!("RSA {}", key.key_size())),
        Ok(PublicKey::EC(point)) => (KeyType::Ecdsa, format!("ECDSA {}", point.key_size())),
        _ => (KeyType::Ed25519, "Ed25519".to_owned()),
    };
    let (not_before, not_after) = (parsed.validity().not_before, parsed.validity().not_after);
    Ok(Leaf {
        period: Period { not_before_s: not_before.timestamp(), not_after_s: not_after.timestamp() },
        key_type,
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
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};

    const NOW_S: i64 = 1_800_000_000;
    const ECDSA: SignatureScheme = SignatureScheme::ECDSA_NISTP256_SHA256;
    const RSA: SignatureScheme = SignatureScheme::RSA_PSS_SHA256;
    const ALL: [SignatureScheme; 2] = [ECDSA, RSA];

    /// A certificate that is valid in these years, at the beginning of 2027.
    fn pem_of(algorithm: &'static rcgen::SignatureAlgorithm, names: &[&str], years: [i32; 2]) -> String {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        [params.not_before, params.not_after] = years.map(|year| rcgen::date_time_ymd(year, 1, 1));
        let key = KeyPair::generate_for(algorithm).unwrap();
        format!("{}{}", params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    /// Whether `find` takes this file.
    fn check_found(loaded: &Certificates, name: &str, schemes: &[SignatureScheme], expect: &str) {
        let found = loaded.find(Some(name).filter(|name| !name.is_empty()), schemes, NOW_S).unwrap();
        let of_file = |it: &&CertificateInfo| {
            it.leaf.as_ref().is_some_and(|leaf| leaf.sha256 == fingerprint(&found.cert[0]))
        };
        let infos = loaded.infos(NOW_S);
        let files: Vec<&str> = infos.iter().filter(of_file).map(|it| it.file.as_str()).collect();
        assert!(files.contains(&expect), "{name} {schemes:?}: {files:?} instead of {expect}");
    }

    #[test]
    fn a_valid_certificate_wins_over_an_expired_one_whose_file_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        let write = |file: &str, names: &[&str], years| {
            fs::write(folder.path().join(file), pem_of(&PKCS_ECDSA_P256_SHA256, names, years)).unwrap();
        };
        write("a-expired.pem", &["a.example", "only.example"], [2020, 2025]);
        write("b-future.pem", &["a.example"], [2028, 2040]);
        write("c-short.pem", &["a.example"], [2026, 2028]);
        write("d-long.pem", &["a.example"], [2026, 2029]);
        let (loaded, problems) = load(folder.path(), &Certificates::default());
        assert_eq!(problems, [""; 0]);
        check_found(&loaded, "a.example", &ALL, "d-long.pem");
        check_found(&loaded, "only.example", &ALL, "a-expired.pem");
        let infos = loaded.infos(NOW_S);
        let shadowed = |index: usize| {
            let of = |it: &Shadowed| (it.name.clone(), it.by.clone());
            (infos[index].shadowed.iter().map(of).collect::<Vec<_>>(), infos[index].unused)
        };
        let by_long = vec![("a.example".to_owned(), "d-long.pem".to_owned())];
        assert_eq!(shadowed(0), (by_long.clone(), false));
        assert_eq!(shadowed(1), (by_long.clone(), true));
        assert_eq!(shadowed(2), (by_long, true));
        assert_eq!(shadowed(3), (vec![], false));
        let later = Period { not_before_s: NOW_S, not_after_s: NOW_S }.not_after_s + 2 * 365 * 86_400;
        assert_eq!(loaded.infos(later)[3].shadowed[0].by, "b-future.pem", "the time decides, not the load");
    }

    #[test]
    fn rsa_stands_beside_ecdsa() {
        let folder = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| fs::write(folder.path().join(file), text).unwrap();
        let ecdsa = pem_of(&PKCS_ECDSA_P256_SHA256, &["a.example"], [2026, 2028]);
        let rsa = pem_of(&PKCS_RSA_SHA256, &["a.example", "*.b.example"], [2026, 2030]);
        write("a-ecdsa.pem", &ecdsa);
        write("a-rsa.pem", &rsa);
        write("b.pem", &pem_of(&PKCS_ECDSA_P256_SHA256, &["x.b.example"], [2026, 2028]));
        write("default.pem", &ecdsa);
        write("default-rsa.pem", &rsa);
        let (loaded, _) = load(folder.path(), &Certificates::default());
        check_found(&loaded, "a.example", &ALL, "a-ecdsa.pem");
        check_found(&loaded, "a.example", &[ECDSA], "a-ecdsa.pem");
        check_found(&loaded, "a.example", &[RSA], "a-rsa.pem");
        check_found(&loaded, "x.b.example", &ALL, "b.pem");
        check_found(&loaded, "x.b.example", &[RSA], "a-rsa.pem");
        check_found(&loaded, "", &ALL, "default.pem");
        check_found(&loaded, "", &[RSA], "default-rsa.pem");
        // Nothing is shadowed: by another type, or by the same certificate in another file.
        assert!(loaded.infos(NOW_S).iter().all(|it| it.shadowed.is_empty()), "{:?}", loaded.infos(NOW_S));
        // A client that can verify neither is refused by TLS, which says why.
        assert!(loaded.find(Some("a.example"), &[], NOW_S).is_some());
    }

    #[test]
    fn a_broken_file_is_reported_until_it_is_repaired() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.pem"), "nothing").unwrap();
        fs::write(folder.path().join("b.pem"), pem(&["b.example"])).unwrap();
        let (first, problems) = load(folder.path(), &Certificates::default());
        assert_eq!(problems.len(), 1, "{problems:?}");
        let (second, again) = load(folder.path(), &first);
        assert_eq!(again, problems);
        assert!(second.serves(Some("b.example")));
        fs::write(folder.path().join("a.pem"), pem(&["a.example"])).unwrap();
        let (third, problems) = load(folder.path(), &second);
        assert_eq!((problems.len(), third.len()), (0, 2));
    }

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
            assert_eq!(loaded.serves(name), found, "{name:?}");
            assert_eq!(loaded.find(name, &ALL, NOW_S).is_some(), found, "{name:?}");
        }
        assert_eq!(loaded.infos(NOW_S)[0].names, ["a.example", "*.b.example"]);
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
        assert!(second.serves(Some("a.example")));
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
