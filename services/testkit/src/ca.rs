//! A throw-away certificate authority.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// A certificate authority that lives as long as the test.
#[derive(Debug)]
pub struct Ca {
    pem: String,
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key.
#[derive(Debug)]
pub struct Certificate {
    /// Certificate, PEM.
    pub pem: String,
    /// Private key, PEM.
    pub key_pem: String,
    der: CertificateDer<'static>,
    key_der: Vec<u8>,
}

impl Default for Ca {
    fn default() -> Self {
        Self::new()
    }
}

impl Ca {
    /// A new authority with a new key.
    #[must_use]
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Throw-away test CA");
        let key = KeyPair::generate().expect("keys can be made");
        let cert = params.self_signed(&key).expect("the parameters are complete");
        let (pem, der) = (cert.pem(), cert.der().clone());
        Self { pem, der, issuer: Issuer::new(params, key) }
    }

    /// A server's certificate for these host names and IP addresses.
    #[must_use]
    pub fn issue(&self, names: &[&str]) -> Certificate {
        self.sign(params(names))
    }

    /// A server's certificate that was valid until the end of the year 2020.
    #[must_use]
    pub fn issue_expired(&self, names: &[&str]) -> Certificate {
        let mut params = params(names);
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 12, 31);
        self.sign(params)
    }

    /// A server's certificate for these host names whose key is RSA, 2048 bits.
    #[must_use]
    pub fn issue_rsa(&self, names: &[&str]) -> Certificate {
        let key = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).expect("keys can be made");
        self.sign_key(params(names), &key)
    }

    fn sign(&self, params: CertificateParams) -> Certificate {
        let key = KeyPair::generate().expect("keys can be made");
        self.sign_key(params, &key)
    }

    fn sign_key(&self, params: CertificateParams, key: &KeyPair) -> Certificate {
        let cert = params.signed_by(key, &self.issuer).expect("the parameters are complete");
        Certificate {
            pem: cert.pem(),
            key_pem: key.serialize_pem(),
            der: cert.der().clone(),
            key_der: key.serialize_der(),
        }
    }

    /// Writes the authority's certificate for clients that read a file.
    #[must_use]
    pub fn write(&self, folder: &Path) -> PathBuf {
        let path = folder.join("ca.pem");
        std::fs::write(&path, &self.pem).expect("the test's folder is writable");
        path
    }

    /// Writes the authority's private key, for programs that sign in its name.
    #[must_use]
    pub fn write_key(&self, folder: &Path) -> PathBuf {
        let path = folder.join("ca.key");
        std::fs::write(&path, self.issuer.key().serialize_pem()).expect("the test's folder is writable");
        path
    }

    /// What a rustls client needs to trust this authority.
    #[must_use]
    pub fn roots(&self) -> rustls::RootCertStore {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.der.clone()).expect("a certificate just made is well-formed");
        roots
    }
}

impl Certificate {
    /// Writes `cert.pem` and `key.pem`.
    #[must_use]
    pub fn write(&self, folder: &Path) -> (PathBuf, PathBuf) {
        let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        std::fs::write(&cert, &self.pem).expect("the test's folder is writable");
        std::fs::write(&key, &self.key_pem).expect("the test's folder is writable");
        (cert, key)
    }

    /// Chain and key in one file, as the proxy's folder of certificates has them.
    #[must_use]
    pub fn bundle(&self) -> String {
        format!("{}{}", self.pem, self.key_pem)
    }

    /// Whether this is the certificate that a peer has shown.
    #[must_use]
    pub fn is(&self, shown: &CertificateDer<'_>) -> bool {
        self.der == *shown
    }

    /// What a rustls client needs to show it.
    #[must_use]
    pub fn client_resolver(&self) -> Arc<dyn rustls::client::ResolvesClientCert> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key_der.clone()));
        let key = rustls::sign::CertifiedKey::from_der(vec![self.der.clone()], key, &provider());
        Arc::new(rustls::sign::SingleCertAndKey::from(key.expect("the key is the certificate's")))
    }

    /// Its content, DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// What a rustls server needs.
    #[must_use]
    pub fn server_config(&self, alpn: &[&str]) -> Arc<rustls::ServerConfig> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key_der.clone()));
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider has TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![self.der.clone()], key)
            .expect("the key is the certificate's");
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    CertificateParams::new(names).expect("names are ASCII")
}

/// The one provider of cryptography.
pub(crate) fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
