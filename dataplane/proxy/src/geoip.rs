//! Country and autonomous system of an address, from databases in MaxMind's format.
//!
//! A database is read into memory whole: a file that is replaced while the proxy runs cannot tear what is
//! looked up, and a reload builds the new one beside the old.
//! Two shapes of record are known: MaxMind's own (`country.iso_code`, `autonomous_system_number`) and that of
//! the free databases of ip-location-db (`country_code`).

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use maxminddb::{MaxMindDbError, Reader};
use mc_core::firewall::Geo;
use serde::Deserialize;

/// The databases, where configured.
#[derive(Debug, Default)]
pub struct GeoIp {
    country: Option<Database>,
    asn: Option<Database>,
}

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GeoError {
    /// No file, or no right to read it.
    #[error("cannot read the GeoIP database {0}: check the path and its permissions")]
    Read(PathBuf, #[source] MaxMindDbError),
    /// It is no such database, or damaged.
    #[error("{0} is no MMDB file, or damaged: fetch it again")]
    Corrupt(PathBuf, #[source] MaxMindDbError),
    /// It is one, but of another kind.
    #[error("{0} is a database of type `{1}` and says nothing about {2}: configure one that does")]
    Kind(PathBuf, String, &'static str),
}

#[derive(Debug)]
struct Database {
    path: PathBuf,
    reader: Reader<Vec<u8>>,
}

#[derive(Deserialize)]
struct CountryRecord<'a> {
    #[serde(borrow)]
    country_code: Option<&'a str>,
    #[serde(borrow)]
    country: Option<CountryPart<'a>>,
}

#[derive(Deserialize)]
struct CountryPart<'a> {
    #[serde(borrow)]
    iso_code: Option<&'a str>,
}

#[derive(Deserialize)]
struct AsnRecord {
    autonomous_system_number: Option<u32>,
}

impl GeoIp {
    /// Opens the databases that are configured.
    ///
    /// # Errors
    /// [`GeoError`] names the file and the remedy.
    pub fn open(country: Option<&Path>, asn: Option<&Path>) -> Result<Self, GeoError> {
        let country = country.map(|path| Database::open(path, true)).transpose()?;
        let asn = asn.map(|path| Database::open(path, false)).transpose()?;
        Ok(Self { country, asn })
    }

    /// What is known of the address.
    #[must_use]
    pub fn lookup(&self, address: IpAddr) -> Geo {
        let address = address.to_canonical();
        Geo {
            country: self.country.as_ref().and_then(|database| database.country(address)),
            asn: self.asn.as_ref().and_then(|database| database.asn(address)),
        }
    }

    /// The databases of countries and of autonomous systems in words, for the status; empty where there is none.
    #[must_use]
    pub fn describe(&self) -> (String, String) {
        let words =
            |database: &Option<Database>| database.as_ref().map_or_else(String::new, Database::describe);
        (words(&self.country), words(&self.asn))
    }
}

impl Database {
    fn open(path: &Path, countries: bool) -> Result<Self, GeoError> {
        let reader = Reader::open_readfile(path).map_err(|error| match error {
            MaxMindDbError::Io(_) => GeoError::Read(path.to_owned(), error),
            _ => GeoError::Corrupt(path.to_owned(), error),
        })?;
        let kind = reader.metadata().database_type.to_lowercase();
        // `geo-whois-asn-country` is about countries: ASNs are only what it was made from.
        let about_countries = kind.contains("country") || kind.contains("city");
        let fits =
            about_countries == countries && (countries || kind.contains("asn") || kind.contains("isp"));
        if !fits {
            let about = if countries { "countries" } else { "autonomous systems" };
            return Err(GeoError::Kind(path.to_owned(), reader.metadata().database_type.clone(), about));
        }
        Ok(Self { path: path.to_owned(), reader })
    }

    fn country(&self, address: IpAddr) -> Option<[u8; 2]> {
        let record: CountryRecord<'_> = self.reader.lookup(address).ok()?.decode().ok()??;
        let code = record.country_code.or(record.country.and_then(|country| country.iso_code))?;
        code.as_bytes().try_into().ok()
    }

    fn asn(&self, address: IpAddr) -> Option<u32> {
        let record: AsnRecord = self.reader.lookup(address).ok()?.decode().ok()??;
        record.autonomous_system_number
    }

    fn describe(&self) -> String {
        let metadata = self.reader.metadata();
        let built = crate::access_log::date_text(metadata.build_epoch * 1000);
        format!("{} ({}, built {built})", self.path.display(), metadata.database_type)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
    }

    #[track_caller]
    fn check(country: &str, address: &str, expect: (Option<&[u8; 2]>, Option<u32>)) {
        let geo = GeoIp::open(Some(&fixture(country)), Some(&fixture("asn.mmdb"))).unwrap();
        let found = geo.lookup(address.parse().unwrap());
        assert_eq!((found.country.as_ref(), found.asn), expect, "{address}");
    }

    #[test]
    fn both_shapes_of_record_are_read() {
        check("country.mmdb", "192.0.2.9", (Some(b"CH"), Some(64500)));
        check("country.mmdb", "198.51.100.1", (Some(b"DE"), Some(64501)));
        check("country.mmdb", "2001:db8:1::7", (Some(b"CH"), Some(64502)));
        check("country-maxmind.mmdb", "192.0.2.9", (Some(b"CH"), Some(64500)));
        check("country.mmdb", "203.0.113.1", (None, None));
    }

    #[test]
    fn an_ipv4_address_written_as_ipv6_is_the_same() {
        check("country.mmdb", "::ffff:192.0.2.9", (Some(b"CH"), Some(64500)));
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let text = dir.path().join("text.mmdb");
        std::fs::write(&text, "this is no database").unwrap();
        let missing = dir.path().join("missing.mmdb");
        assert!(matches!(GeoIp::open(Some(&missing), None), Err(GeoError::Read(path, _)) if path == missing));
        assert!(matches!(GeoIp::open(Some(&text), None), Err(GeoError::Corrupt(path, _)) if path == text));
        let asn = fixture("asn.mmdb");
        assert!(
            matches!(GeoIp::open(Some(&asn), None), Err(GeoError::Kind(_, kind, _)) if kind == "GeoLite2-ASN")
        );
        let country = fixture("country.mmdb");
        assert!(matches!(GeoIp::open(None, Some(&country)), Err(GeoError::Kind(..))));
    }

    #[test]
    fn a_database_cut_short_anywhere_never_panics() {
        let whole = std::fs::read(fixture("country.mmdb")).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cut.mmdb");
        for len in (0..whole.len()).step_by(7) {
            std::fs::write(&path, &whole[..len]).unwrap();
            if let Ok(geo) = GeoIp::open(Some(&path), None) {
                // Whatever it answers, it answers.
                let _ = geo.lookup("192.0.2.9".parse().unwrap());
            }
        }
    }

    #[test]
    fn the_free_country_database_is_read() {
        let Some(path) = std::env::var_os("MC_COUNTRY_MMDB") else {
            eprintln!("LEFT OUT: the_free_country_database_is_read: MC_COUNTRY_MMDB names no database");
            return;
        };
        let geo = GeoIp::open(Some(Path::new(&path)), None).unwrap();
        assert_eq!(geo.lookup("8.8.8.8".parse().unwrap()).country, Some(*b"US"));
        assert_eq!(geo.lookup("2001:4860:4860::8888".parse().unwrap()).country, Some(*b"US"));
        assert!(geo.describe().0.contains("built 20"), "{:?}", geo.describe());
    }
}
