//! The machine's interfaces and their addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::Path;

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Interfaces that its frames come through: of a VLAN, a bond or a bridge.
    pub lower: BTreeSet<String>,
    /// Its index in the kernel: another one of the same name has another.
    pub index: u32,
}

/// All interfaces of this network namespace, by name.
///
/// # Errors
/// The kernel does not say.
pub fn interfaces() -> io::Result<BTreeMap<String, Interface>> {
    let mut found: BTreeMap<String, Interface> = BTreeMap::new();
    for entry in nix::ifaddrs::getifaddrs()? {
        let interface = found.entry(entry.interface_name.clone()).or_insert_with(|| Interface {
            lower: lower(&entry.interface_name),
            index: nix::net::if_::if_nametoindex(entry.interface_name.as_str()).unwrap_or(0),
            ..Interface::default()
        });
        let Some(address) = entry.address else { continue };
        if let Some(v4) = address.as_sockaddr_in() {
            interface.addresses.insert(v4.ip().into());
        } else if let Some(v6) = address.as_sockaddr_in6() {
            interface.addresses.insert(v6.ip().into());
        }
    }
    Ok(found)
}

/// The names that `/sys/class/net` has for what is below an interface; none where it is not of this namespace.
fn lower(name: &str) -> BTreeSet<String> {
    let folder = Path::new("/sys/class/net").join(name);
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some(entry.file_name().to_str()?.strip_prefix("lower_")?.to_owned())).collect()
}
