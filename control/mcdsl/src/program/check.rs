//! The command `check`: everything that can be known to be wrong before the service starts.

use super::{Configuration as _, Failure, Service, print_error};
use crate::clock::Clock;
use crate::tls;

/// Loading has checked the configuration's values; this checks the certificate that it names.
pub(super) fn check<S: Service>(config: &S::Config) -> Result<(), Failure> {
    let host = config.public_url().and_then(host);
    let problems = tls::problems(&config.server().certificate(), host.as_deref(), Clock::system().unix_s());
    let Some((last, others)) = problems.split_last() else {
        println!("The configuration is valid.");
        return Ok(());
    };
    others.iter().for_each(|problem| print_error::<S>(problem));
    Err(crate::chain(last).into())
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
