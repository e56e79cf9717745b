//! What can be known to be wrong before the service starts: for the command `check`, and for the log of one that
//! starts.

use super::{Configuration, Finding, Service};
use crate::clock::Clock;
use crate::tls::{self, TlsError};

/// What is wrong with the certificate that the configuration names, and with what the service keeps. Loading has checked the
/// configuration's values; `config` may have defaults in the place of invalid ones. Changes nothing.
pub(super) fn findings<S: Service>(config: &S::Config, is_valid: bool) -> Vec<Finding> {
    // The default's name, where the file's could not be read, says nothing about the certificate.
    let url = config.public_url();
    let is_given = is_valid || url != S::Config::default().public_url();
    let host = url.filter(|_| is_given).and_then(host);
    let problems = tls::problems(&config.server().certificate(), host.as_deref(), Clock::system().unix_s());
    let of_certificate = problems.iter().map(|problem| {
        let text = crate::chain(problem);
        if matches!(problem, TlsError::ExpiresSoon { .. }) {
            Finding::Warning(text)
        } else {
            Finding::Error(text)
        }
    });
    of_certificate.chain(S::inspect(config)).collect()
}

/// The host of a URL; an IPv6 address without its brackets.
fn host(url: &str) -> Option<String> {
    let url: http::Uri = url.parse().ok()?;
    Some(url.host()?.trim_matches(['[', ']']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_a_url_has_no_port_and_no_brackets() {
        let check = |url, expect: &str| assert_eq!(host(url).as_deref(), Some(expect));
        check("https://mcias.test:8443", "mcias.test");
        check("https://[2001:db8::1]:8443", "2001:db8::1");
        assert_eq!(host("no url"), None);
    }
}
