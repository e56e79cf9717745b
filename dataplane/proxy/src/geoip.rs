//! Country and autonomous system of an address, from databases in MaxMind's format (MMDB 2.0).
//!
//! A database is read into memory as a whole: a file that is replaced or truncated later cannot tear what is
//! in use. Every record is read once when it is opened, so that a damaged file, or one that holds something
//! else, is refused then and not by a look-up. To take a new file, open a new [`GeoIp`] and let go of the old.
//!
//! Records are known in the layouts of MaxMind (`country.iso_code`, else `registered_country.iso_code`;
//! `autonomous_system_number`) and ip-location-db (`country_code`).

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use maxminddb::{LookupResult, MaxMindDbError, Reader, Within, WithinOptions};
use mc_core::firewall::Geo;
use mc_core::firewall::tables::{Places, Steps};
use mc_core::model::Subject;
use mcdsl::chain;
use serde::Deserialize;

use crate::access_log::date_text;

/// The databases, where configured.
#[derive(Debug, Default)]
pub struct GeoIp {
    country: Option<Database>,
    asn: Option<Database>,
    /// Why one that is configured is not there; empty: it is, or none is configured.
    country_problem: String,
    asn_problem: String,
}

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GeoError {
    /// It cannot be read.
    #[error(
        "cannot read the GeoIP database {path}: see that it is there and that mc-proxy's user may read it"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is no such database, or damaged.
    #[error("{path} is no sound MMDB file: download it anew")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What was found.
        #[source]
        source: Box<MaxMindDbError>,
    },
    /// It is a database of something else.
    #[error("{path} (type {found:?}) has no {wanted}: name a database of {wanted} in [geoip] {setting}")]
    WrongKind {
        /// The file.
        path: PathBuf,
        /// What it says it is.
        found: String,
        /// What is looked for in it.
        wanted: &'static str,
        /// The setting that names it.
        setting: &'static str,
    },
}

/// One file.
struct Database {
    path: PathBuf,
    reader: Reader<Vec<u8>>,
}

/// What a database is asked for.
struct Kind<T> {
    wanted: &'static str,
    setting: &'static str,
    read: Read<T>,
}

/// A database that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing<'a> {
    wanted: &'static str,
    setting: &'static str,
    problem: &'a str,
}

impl<T> Kind<T> {
    const fn missing<'a>(&self, problem: &'a str) -> Missing<'a> {
        Missing { wanted: self.wanted, setting: self.setting, problem }
    }
}

impl fmt::Display for Missing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wanted, setting, problem } = self;
        match *problem {
            "" => write!(
                f,
                "there is no database of {wanted}: name one in [geoip] {setting} and restart mc-proxy"
            ),
            problem => write!(f, "there is no database of {wanted}: {problem}, then send SIGHUP"),
        }
    }
}

/// Takes what is wanted from a record; `None` where it says nothing of it.
type Read<T> = fn(LookupResult<'_, Vec<u8>>) -> Result<Option<T>, MaxMindDbError>;

/// The parts of a record that say a country.
#[derive(Deserialize)]
struct CountryRecord<'a> {
    #[serde(borrow)]
    country_code: Option<&'a str>,
    #[serde(borrow)]
    country: Option<CountryPart<'a>>,
    #[serde(borrow)]
    registered_country: Option<CountryPart<'a>>,
}

#[derive(Deserialize)]
struct CountryPart<'a> {
    iso_code: Option<&'a str>,
}

/// The part of a record that says an autonomous system.
#[derive(Deserialize)]
struct AsnRecord {
    autonomous_system_number: Option<u32>,
}

const COUNTRY: Kind<[u8; 2]> = Kind { wanted: "countries", setting: "country_database", read: country };

const ASN: Kind<u32> = Kind { wanted: "autonomous systems", setting: "asn_database", read: asn };

impl GeoIp {
    /// Reads the databases that are configured. Takes up to a second for a large one.
    ///
    /// # Errors
    /// [`GeoError`]: which file, what is wrong with it, what to do.
    pub fn open(country: Option<&Path>, asn: Option<&Path>) -> Result<Self, GeoError> {
        Ok(Self {
            country: country.map(|path| Database::open(path, &COUNTRY)).transpose()?,
            asn: asn.map(|path| Database::open(path, &ASN)).transpose()?,
            ..Self::default()
        })
    }

    /// Reads what can be read of the databases that are configured. What cannot is in the log, and in [`Self::describe`].
    #[must_use]
    pub fn open_available(country: Option<&Path>, asn: Option<&Path>) -> Self {
        fn open<T>(path: Option<&Path>, kind: &Kind<T>) -> (Option<Database>, String) {
            match path.map(|path| Database::open(path, kind)).transpose() {
                Ok(database) => (database, String::new()),
                Err(error) => {
                    let problem = chain(&error);
                    tracing::error!("{problem}; then send SIGHUP");
                    (None, problem)
                }
            }
        }
        let (country, country_problem) = open(country, &COUNTRY);
        let (asn, asn_problem) = open(asn, &ASN);
        Self { country, asn, country_problem, asn_problem }
    }

    /// What is missing to judge by this subject; `None`: nothing.
    #[must_use]
    pub fn lacks(&self, subject: &Subject) -> Option<Missing<'_>> {
        match subject {
            Subject::Country(_) if self.country.is_none() => Some(COUNTRY.missing(&self.country_problem)),
            Subject::Asn(_) if self.asn.is_none() => Some(ASN.missing(&self.asn_problem)),
            _ => None,
        }
    }

    /// What the databases say of an address. IPv4 inside IPv6 is looked up as IPv4.
    #[must_use]
    pub fn lookup(&self, address: IpAddr) -> Geo {
        let address = address.to_canonical();
        Geo {
            country: self.country.as_ref().and_then(|database| database.lookup(address, &COUNTRY)),
            asn: self.asn.as_ref().and_then(|database| database.lookup(address, &ASN)),
        }
    }

    /// What the databases say of all addresses, for the kernel's tables. Takes as long as reading them.
    #[must_use]
    pub fn places(&self) -> Places {
        let mut places = Places::default();
        if let Some(database) = &self.country {
            database.steps(&COUNTRY, &mut places.countries);
        }
        if let Some(database) = &self.asn {
            database.steps(&ASN, &mut places.asns);
        }
        places
    }

    /// The databases of countries and of autonomous systems in words (path, type, build date), for the status;
    /// why there is none where one is configured, else empty.
    #[must_use]
    pub fn describe(&self) -> (String, String) {
        let words = |database: &Option<Database>, problem: &str| {
            database.as_ref().map_or_else(|| problem.to_owned(), Database::describe)
        };
        (words(&self.country, &self.country_problem), words(&self.asn, &self.asn_problem))
    }
}

impl Database {
    fn open<T>(path: &Path, kind: &Kind<T>) -> Result<Self, GeoError> {
        let bytes = std::fs::read(path).map_err(|source| GeoError::Read { path: path.to_owned(), source })?;
        let corrupt = |source| GeoError::Corrupt { path: path.to_owned(), source: Box::new(source) };
        let reader = Reader::from_source(bytes).map_err(corrupt)?;
        if !holds(&reader, kind).map_err(corrupt)? {
            return Err(GeoError::WrongKind {
                path: path.to_owned(),
                found: reader.metadata().database_type.clone(),
                wanted: kind.wanted,
                setting: kind.setting,
            });
        }
        Ok(Self { path: path.to_owned(), reader })
    }

    fn lookup<T>(&self, address: IpAddr, kind: &Kind<T>) -> Option<T> {
        if embeds_ipv4(address) {
            return None;
        }
        // An error is an IPv6 address in a database of IPv4: nothing is known of it. Records were read before.
        let found = self.reader.lookup(address).ok()?;
        (kind.read)(found).ok().flatten()
    }

    /// All networks and what is known of them, in order.
    fn steps<T: PartialEq + Copy>(&self, kind: &Kind<T>, steps: &mut Steps<T>) {
        // They were read when the database was opened.
        let Ok(networks) = self.reader.networks(WithinOptions::default()) else { return };
        collect(networks, kind, steps);
        // Some databases know networks of 6to4 by themselves; others lead from there to those of IPv4, which is not
        // followed above.
        let mut six_to_four = Steps::default();
        if let Ok(all) = "2002::/16".parse()
            && let Ok(networks) = self.reader.within(all, WithinOptions::default().include_aliased_networks())
        {
            collect(networks, kind, &mut six_to_four);
        }
        steps.replace_v6(0x2002 << 112, (0x2003 << 112) - 1, six_to_four.v6);
        // See `embeds_ipv4`.
        steps.replace_v6(0, u32::MAX.into(), Vec::new());
        steps.replace_v6(0x2001 << 112, (0x2001_0001 << 96) - 1, Vec::new());
    }

    fn describe(&self) -> String {
        let metadata = self.reader.metadata();
        let built = date_text(metadata.build_epoch.saturating_mul(1000));
        format!("{} ({}, built {built})", self.path.display(), metadata.database_type)
    }
}

/// Notes down networks, in their order.
fn collect<T: PartialEq>(networks: Within<'_, Vec<u8>>, kind: &Kind<T>, steps: &mut Steps<T>) {
    for found in networks.flatten() {
        let Ok(network) = found.network() else { continue };
        let Ok(Some(what)) = (kind.read)(found) else { continue };
        match (network.network(), network.broadcast()) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                steps.push_v4(first.to_bits(), last.to_bits(), what);
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => {
                steps.push_v6(first.to_bits(), last.to_bits(), what);
            }
            _ => {}
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}

/// Whether it is an address of IPv6 that databases read as one of IPv4: compatible, or of Teredo. Nobody has had such for
/// years (RFC 4291 section 2.5.5.1, RFC 4380), and nothing is known of them.
fn embeds_ipv4(address: IpAddr) -> bool {
    let IpAddr::V6(address) = address else { return false };
    matches!(address.segments(), [0, 0, 0, 0, 0, 0, _, _] | [0x2001, 0, ..])
}

/// Reads every record once, and says whether one has what is wanted.
fn holds<T>(reader: &Reader<Vec<u8>>, kind: &Kind<T>) -> Result<bool, MaxMindDbError> {
    let mut seen = HashSet::new();
    let mut some = false;
    let mut networks: u64 = 0;
    let most = 2 * u64::from(reader.metadata().node_count) + 2;
    for found in reader.networks(WithinOptions::default())? {
        let found = found?;
        networks += 1;
        if networks > most {
            return Err(MaxMindDbError::invalid_database("its search tree has a cycle"));
        }
        if found.offset().is_some_and(|offset| seen.insert(offset)) {
            some |= (kind.read)(found)?.is_some();
        }
    }
    Ok(some)
}

fn country(found: LookupResult<'_, Vec<u8>>) -> Result<Option<[u8; 2]>, MaxMindDbError> {
    let Some(record) = found.decode::<CountryRecord<'_>>()? else { return Ok(None) };
    let code = |part: Option<CountryPart<'_>>| two_letters(part?.iso_code?);
    let flat = record.country_code.and_then(two_letters);
    Ok(flat.or_else(|| code(record.country)).or_else(|| code(record.registered_country)))
}

/// A country's code in upper case; what is not of two letters names no country.
fn two_letters(code: &str) -> Option<[u8; 2]> {
    let code = <[u8; 2]>::try_from(code.as_bytes()).ok()?;
    code.iter().all(u8::is_ascii_alphabetic).then(|| code.map(|byte| byte.to_ascii_uppercase()))
}

fn asn(found: LookupResult<'_, Vec<u8>>) -> Result<Option<u32>, MaxMindDbError> {
    Ok(found.decode::<AsnRecord>()?.and_then(|record| record.autonomous_system_number))
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
    fn each_layout_of_records_is_read() {
        for name in ["country.mmdb", "country-maxmind.mmdb"] {
            check(name, "192.0.2.9", (Some(b"CH"), Some(64500)));
            check(name, "198.51.100.1", (Some(b"DE"), Some(64501)));
            check(name, "2001:db8:1::7", (Some(b"CH"), Some(64502)));
            check(name, "203.0.113.1", (None, None));
        }
    }

    #[test]
    fn an_ipv4_address_written_as_ipv6_is_the_same() {
        check("country.mmdb", "::ffff:192.0.2.9", (Some(b"CH"), Some(64500)));
        check("country-ipv4.mmdb", "::ffff:192.0.2.9", (Some(b"CH"), Some(64500)));
    }

    #[test]
    fn a_database_of_ipv4_knows_nothing_of_ipv6_and_a_strange_code_is_no_country() {
        check("country-ipv4.mmdb", "2001:db8:1::7", (None, Some(64502)));
        check("country-ipv4.mmdb", "198.51.100.1", (None, Some(64501)));
    }

    /// The place of each network's ends and their neighbours, by look-up and by the list of all.
    #[test]
    fn the_list_of_all_places_says_what_a_look_up_says() {
        let mut databases =
            vec![fixture("country.mmdb"), fixture("country-maxmind.mmdb"), fixture("country-ipv4.mmdb")];
        databases.extend(std::env::var_os("MC_COUNTRY_MMDB").map(PathBuf::from));
        for path in databases {
            let geo = GeoIp::open(Some(&path), Some(&fixture("asn.mmdb"))).unwrap();
            let places = geo.places();
            let (countries, asns) = (&places.countries, &places.asns);
            assert!(!countries.v4.is_empty() && !asns.v6.is_empty(), "{}", path.display());
            for bits in countries.v4.iter().flat_map(|(start, _)| [start.wrapping_sub(1), *start]) {
                let found = geo.lookup(std::net::Ipv4Addr::from_bits(bits).into());
                assert_eq!(at(&countries.v4, bits), found.country, "{bits:#x} in {}", path.display());
                assert_eq!(at(&asns.v4, bits), found.asn, "{bits:#x} in {}", path.display());
            }
            for bits in countries.v6.iter().flat_map(|(start, _)| [start.wrapping_sub(1), *start]) {
                let address = std::net::Ipv6Addr::from_bits(bits);
                if address.to_ipv4_mapped().is_some() {
                    continue;
                }
                let found = geo.lookup(address.into());
                assert_eq!(at(&countries.v6, bits), found.country, "{address} in {}", path.display());
                assert_eq!(at(&asns.v6, bits), found.asn, "{address} in {}", path.display());
            }
        }
    }

    fn at<A: Ord + Copy, T: Copy>(steps: &[(A, Option<T>)], address: A) -> Option<T> {
        let after = steps.partition_point(|(start, _)| *start <= address);
        steps[after.checked_sub(1)?].1
    }

    #[test]
    fn without_databases_nothing_is_known() {
        assert_eq!(GeoIp::default().lookup("192.0.2.9".parse().unwrap()), Geo::default());
        assert_eq!(GeoIp::default().describe(), (String::new(), String::new()));
    }

    #[test]
    fn it_says_what_it_has_and_does_not_print_it() {
        let geo = GeoIp::open(None, Some(&fixture("asn.mmdb"))).unwrap();
        let (country, asn) = geo.describe();
        assert!(country.is_empty());
        assert!(asn.contains("tests/fixtures/asn.mmdb (GeoLite2-ASN, built 20"), "{asn}");
        assert!(format!("{geo:?}").len() < 1000, "{geo:?}");
    }

    #[track_caller]
    fn refused(country: Option<&Path>, asn: Option<&Path>, expect: &str) {
        let error = GeoIp::open(country, asn).unwrap_err().to_string();
        let path = country.or(asn).unwrap();
        assert!(error.contains(path.to_str().unwrap()) && error.contains(expect), "{error}");
    }

    #[test]
    fn what_is_no_database_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.mmdb");
        refused(Some(&path), None, "cannot read the GeoIP database");
        refused(Some(directory.path()), None, "cannot read the GeoIP database");
        std::fs::write(&path, "<html>404</html>").unwrap();
        refused(Some(&path), None, "is no sound MMDB file: download it anew");
    }

    #[test]
    fn a_database_of_something_else_is_refused() {
        let expect = "(type \"GeoLite2-ASN\") has no countries: name a database of countries in [geoip] country_database";
        refused(Some(&fixture("asn.mmdb")), None, expect);
        let expect =
            "has no autonomous systems: name a database of autonomous systems in [geoip] asn_database";
        refused(None, Some(&fixture("country.mmdb")), expect);
    }

    /// Opens a damaged database: it is refused, or answers whatever it answers; nothing panics or runs for ever.
    fn survives(bytes: &[u8], path: &Path) -> bool {
        std::fs::write(path, bytes).unwrap();
        let geo = GeoIp::open(Some(path), None);
        if let Ok(geo) = &geo {
            for address in ["192.0.2.1", "2001:db8::1", "::", "255.255.255.255"] {
                let country = geo.lookup(address.parse().unwrap()).country;
                assert!(country.is_none_or(|code| code.iter().all(u8::is_ascii_uppercase)));
            }
        }
        geo.is_ok()
    }

    #[test]
    fn damage_anywhere_is_survived() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.mmdb");
        let whole = std::fs::read(fixture("country.mmdb")).unwrap();
        let cut = (0..whole.len()).filter(|&len| survives(&whole[..len], &path)).count();
        assert_eq!(cut, 0, "each cut takes something off the metadata, which is at the end");
        let flip = |at: usize| {
            let mut bytes = whole.clone();
            bytes[at] ^= 0xFF;
            bytes
        };
        let unnoticed = (0..whole.len()).filter(|&at| survives(&flip(at), &path)).count();
        assert!(unnoticed < whole.len() / 2, "{unnoticed} of {} flips were not noticed", whole.len());
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
