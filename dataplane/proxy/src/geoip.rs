//! Country and ASN of an address, from MaxMind databases.

/// The databases, where configured.
#[derive(Debug, Default)]
pub struct GeoIp {}
