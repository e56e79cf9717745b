//! Listeners.

use std::collections::HashSet;

use super::{Invalid, check_address, check_listener_name, check_network, check_range};
use crate::model::{Listener, ProxyIn};

/// Refuses what makes no sense. Port 0 is the kernel's choice, for tests.
///
/// # Errors
/// The first field that is wrong.
pub fn normalize_listener(listener: Listener) -> Result<Listener, Invalid> {
    check_listener_name("name", &listener.name)?;
    check_address("address", listener.address)?;
    let mut seen = HashSet::new();
    for (index, &network) in listener.trusted.iter().enumerate() {
        let field = || format!("trusted[{index}]");
        check_network("", network).map_err(|error| error.within(field()))?;
        if !seen.insert(network) {
            return Err(Invalid::new(field(), format!("{network} is there twice: remove one")));
        }
    }
    let mut seen = HashSet::new();
    for (index, steered) in listener.steered.iter().enumerate() {
        let field = || format!("steered[{index}]");
        check_network("", steered.network).map_err(|error| error.within(field()))?;
        if steered.network.addr().is_ipv4() != listener.address.is_ipv4() {
            let problem =
                format!("{steered} is of another family than the listener's address: add a listener of that");
            return Err(Invalid::new(field(), problem));
        }
        if !seen.insert(*steered) {
            return Err(Invalid::new(field(), format!("{steered} is there twice: remove one")));
        }
    }
    match (listener.proxy_protocol, listener.trusted.is_empty()) {
        (ProxyIn::Optional, true) => {
            return Err(Invalid::new(
                "trusted",
                "with proxy_protocol = \"optional\" it says whose header is believed and must not be empty: \
             name the proxies' networks, or set proxy_protocol to \"off\" or \"required\"",
            ));
        }
        (ProxyIn::Off, false) => {
            return Err(Invalid::new(
                "trusted",
                "has no meaning with proxy_protocol = \"off\": set that to \"required\" or \"optional\", or remove this",
            ));
        }
        _ => {}
    }
    check_range("hello_timeout_ms", &listener.hello_timeout_ms, &(1..=600_000))?;
    check_range("max_hello_bytes", &listener.max_hello_bytes, &(512..=1 << 20))?;
    Ok(listener)
}
