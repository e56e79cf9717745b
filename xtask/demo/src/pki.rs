//! A certificate authority that nobody has to trust: made at each start, its own key never written down.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// The authority.
pub(crate) struct Authority(Issuer<'static, KeyPair>);

impl Authority {
    /// Makes one and writes its certificate.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn make(ca_file: &Path) -> Result<Self> {
        let key = KeyPair::generate().context("cannot make a key")?;
        let mut ca = CertificateParams::default();
        ca.distinguished_name.push(DnType::CommonName, "Metacircular throw-away demo CA");
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = ca.self_signed(&key).context("cannot make the demo CA")?;
        std::fs::write(ca_file, certificate.pem())
            .with_context(|| format!("cannot write {}", ca_file.display()))?;
        Ok(Self(Issuer::new(ca, key)))
    }

    /// What a server for `name` needs.
    ///
    /// # Errors
    /// There is no randomness.
    pub(crate) fn server(&self, name: &str) -> Result<ServerConfig> {
        let (certificate, key) = self.issue(name)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .context("the demo certificate does not fit its key")?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    /// Writes certificate and key of `name` as MC-Proxy wants them.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> Result<()> {
        let (certificate, key) = self.issue(name)?;
        let file = folder.join(format!("{name}.pem"));
        let text = certificate.pem() + &key.serialize_pem();
        std::fs::create_dir_all(folder)
            .and_then(|()| OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&file))
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(|| format!("cannot write {}", file.display()))
    }

    fn issue(&self, name: &str) -> Result<(Certificate, KeyPair)> {
        let key = KeyPair::generate().context("cannot make a key")?;
        // For what asks on this machine by its address, too: not every system knows names below `localhost`.
        let certificate = CertificateParams::new([name.to_owned(), "127.0.0.1".to_owned()])
            .and_then(|leaf| leaf.signed_by(&key, &self.0))
            .context("cannot make the demo certificate")?;
        Ok((certificate, key))
    }
}
