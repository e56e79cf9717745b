//! Which of TLS the kernel does (`CONFIG_TLS`, kernel TLS): asked once, since what is asked of a connection after its
//! handshake must not fail.

use ktls_core::{Compatibilities, Compatibility};
use rustls::{CipherSuite, ProtocolVersion};

/// Cipher suites that the kernel takes keys of.
#[derive(Clone, Copy, Debug)]
pub struct KernelTls {
    tls12: Compatibility,
    tls13: Compatibility,
}

/// Why a connection stays in user space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum InUserSpace {
    /// The kernel has no TLS, or does not take it for this socket.
    NoKernelTls = 0,
    /// The kernel does not have the cipher suite.
    CipherSuite = 1,
    /// Part of a record has come already, or waits to be sent: the kernel would not know of it.
    MidRecord = 2,
}

/// Records that may still be encrypted with a key before it gives itself away (RFC 8446, section 5.5). The kernel does not
/// count; and how it cuts bytes into records is its own affair, so that half of what is allowed is taken for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    left: u64,
    whole: u64,
}

impl Budget {
    /// Of a cipher suite that is good for so many records.
    pub(crate) const fn of(limit: u64) -> Self {
        Self { left: limit / 2, whole: limit / 2 }
    }

    /// Of the next key.
    pub(crate) const fn anew(self) -> Self {
        Self { left: self.whole, whole: self.whole }
    }

    /// Takes what so many bytes cost. `false`: the key must not be used any more.
    pub(crate) const fn spend(&mut self, bytes: usize) -> bool {
        // Full records, and one that is not.
        let records = bytes as u64 / RECORD + 1;
        match self.left.checked_sub(records) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

/// Bytes in a full record (RFC 8446, section 5.1).
const RECORD: u64 = 16 * 1024;

impl InUserSpace {
    /// Every reason, in order of its number.
    pub const ALL: [Self; 3] = [Self::NoKernelTls, Self::CipherSuite, Self::MidRecord];

    /// In a word, for metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::NoKernelTls => "no_kernel_tls",
            Self::CipherSuite => "cipher_suite",
            Self::MidRecord => "mid_record",
        }
    }
}

impl KernelTls {
    /// Asks the kernel, by connections to ourselves. Blocks for a moment.
    ///
    /// # Errors
    /// It has none: why, in words.
    pub fn probe() -> Result<Self, String> {
        match Compatibilities::probe() {
            Ok(Some(found)) => Ok(Self { tls12: found.tls12, tls13: found.tls13 }),
            Ok(None) => Err("this kernel has no TLS (`modprobe tls`, CONFIG_TLS)".to_owned()),
            Err(error) => Err(format!("kernel TLS cannot be tried: {error}")),
        }
    }

    /// Whether the kernel takes connections of this kind.
    pub(crate) fn takes(&self, version: Option<ProtocolVersion>, suite: Option<CipherSuite>) -> bool {
        let by_version = match version {
            Some(ProtocolVersion::TLSv1_2) => &self.tls12,
            Some(ProtocolVersion::TLSv1_3) => &self.tls13,
            _ => return false,
        };
        match suite {
            Some(
                CipherSuite::TLS13_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            ) => by_version.aes_128_gcm(),
            Some(
                CipherSuite::TLS13_AES_256_GCM_SHA384
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            ) => by_version.aes_256_gcm(),
            Some(
                CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            ) => by_version.chacha20_poly1305(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Budget;

    #[test]
    fn a_key_is_good_for_half_of_its_records() {
        let mut budget = Budget::of(20);
        for bytes in [1, 16 * 1024 - 1, 16 * 1024, 64 * 1024] {
            assert!(budget.spend(bytes), "{bytes}");
        }
        // 1 + 1 + 2 + 5 of ten are gone.
        assert!(!budget.spend(16 * 1024));
        assert!(budget.spend(5));
        assert!(!budget.spend(5));
        assert_eq!(budget.anew(), Budget::of(20));
        // ChaCha20-Poly1305 has no limit that could be reached.
        assert!(Budget::of(u64::MAX).spend(usize::MAX));
    }
}
