//! A certificate authority that nobody has to trust: made at each start, its key never written down.

use std::path::Path;

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// Writes the authority's certificate and returns what a server for `name` needs.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn make(ca_file: &Path, name: &str) -> Result<ServerConfig> {
    let ca_key = KeyPair::generate().context("cannot make a key")?;
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "Metacircular throw-away demo CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca_certificate = ca.self_signed(&ca_key).context("cannot make the demo CA")?;
    std::fs::write(ca_file, ca_certificate.pem())
        .with_context(|| format!("cannot write {}", ca_file.display()))?;

    let key = KeyPair::generate().context("cannot make a key")?;
    let certificate = CertificateParams::new([name.to_owned()])
        .and_then(|leaf| leaf.signed_by(&key, &Issuer::new(ca, ca_key)))
        .context("cannot make the demo certificate")?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .context("the demo certificate does not fit its key")?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
