//! A flood of logins against MCIAS, with people who log in from where they always do and a service that introspects meanwhile.
//!
//! Everything comes at its own pace: a login or an introspection that takes long does not make the next one later, and its time counts from
//! when it was due. The flood is as fast as it is answered.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::clock;
use crate::mcias::{Mcias, PASSWORD, introspect};

/// What comes at the server.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// For how long.
    pub time: Duration,
    /// Addresses that the flood comes from.
    pub addresses: u8,
    /// Connections of each of them.
    pub connections: u8,
    /// Logins in a second, each of another account at an address at which it has logged in before.
    pub logins_per_s: u32,
    /// Introspections in a second.
    pub introspections_per_s: u32,
}

/// What became of it. A connection that broke is status 0.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Answers to logins from familiar addresses, by status.
    pub logins: BTreeMap<u16, u32>,
    /// How long each of these took, in milliseconds, sorted.
    pub login_ms: Vec<u64>,
    /// Answers to the flood, by status.
    pub flood: BTreeMap<u16, u32>,
    /// Introspections that were answered as they should be.
    pub introspected: u32,
    /// Others.
    pub lost: u32,
    /// How long each introspection took, in microseconds, sorted.
    pub introspection_us: Vec<u64>,
}

/// Adds 10,000 people with the password of `bob` to the database of a server that is stopped: each has logged in from an address of its own.
pub const FILL: &str = "
    INSERT INTO accounts (name, kind, roles, enabled, created_at, password, uuid)
    WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 9999)
    SELECT 'person-' || i, 0, 2, 1, unixepoch(), (SELECT password FROM accounts WHERE name = 'bob'), randomblob(16) FROM n;
    INSERT INTO familiar (account, source, last_at)
    SELECT id, '127.2.' || (substr(name, 8) / 250) || '.' || (2 + substr(name, 8) % 250), unixepoch()
    FROM accounts WHERE name LIKE 'person-%';";

/// The address at which a person of [`FILL`] is familiar.
fn home(person: u32) -> IpAddr {
    let byte = |number: u32| u8::try_from(number).expect("there are 10,000 people");
    IpAddr::V4(Ipv4Addr::new(127, 2, byte(person / 250), byte(2 + person % 250)))
}

/// Connections over which introspections come.
const INTROSPECTORS: u32 = 8;

/// Runs a load against a server that was filled. `service` is a service's token, `token` a valid one to introspect.
///
/// # Panics
/// A thread of the load panics.
#[must_use]
pub fn run(mcias: &Mcias, service: &str, token: &str, load: Load) -> Outcome {
    let (outcome, over) = (Mutex::new(Outcome::default()), AtomicBool::new(false));
    let (people, unknown) = (AtomicU32::new(0), AtomicU32::new(0));
    let record = |change: &dyn Fn(&mut Outcome)| change(&mut outcome.lock().expect("no thread panics"));
    let login = |from: IpAddr, name: &str, password: &str| {
        let body = json!({ "username": name, "password": password });
        let answer = mcias.connection_from(from).and_then(|mut it| it.ask("POST", "/v1/login", "", &body));
        answer.map_or(0, |answer| answer.status)
    };
    let flood = |address: u8| {
        let from = IpAddr::V4(Ipv4Addr::new(127, 1, 0, 2 + address));
        let mut connection = None;
        while !over.load(Ordering::Relaxed) {
            let name = format!("unknown-{}", unknown.fetch_add(1, Ordering::Relaxed));
            let body = json!({ "username": name, "password": "violet gravel umbrellas" });
            let mut open = connection.take().or_else(|| mcias.connection_from(from).ok());
            let answer = open.as_mut().and_then(|it| it.ask("POST", "/v1/login", "", &body).ok());
            let status = answer.map_or(0, |answer| answer.status);
            if status != 0 {
                connection = open;
            }
            record(&|outcome| *outcome.flood.entry(status).or_default() += 1);
        }
    };
    let start = clock::now();
    let wait_until = |due: Duration| {
        let early = due.saturating_sub(start.elapsed());
        clock::sleep(early);
    };
    let introspections = |number: u32| {
        let mut connection = None;
        let mut due = Duration::from_secs(1) * number / load.introspections_per_s;
        while due < load.time {
            wait_until(due);
            let mut open = connection.take().or_else(|| Some(mcias.connection()));
            let answer = open.as_mut().and_then(|it| introspect(it, service, token).ok());
            let is_active = answer.is_some_and(|answer| answer.body["active"] == true);
            let took = start.elapsed().saturating_sub(due);
            if is_active {
                connection = open;
            }
            record(&|outcome| {
                *(if is_active { &mut outcome.introspected } else { &mut outcome.lost }) += 1;
                outcome.introspection_us.push(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
            });
            due += Duration::from_secs(1) * INTROSPECTORS / load.introspections_per_s;
        }
    };
    std::thread::scope(|scope| {
        let flood = &flood;
        for address in 0..load.addresses {
            for _ in 0..load.connections {
                scope.spawn(move || flood(address));
            }
        }
        let introspections = &introspections;
        for number in 0..INTROSPECTORS {
            scope.spawn(move || introspections(number));
        }
        let mut due = Duration::ZERO;
        while due < load.time {
            wait_until(due);
            let person = people.fetch_add(1, Ordering::Relaxed);
            let (login, record) = (&login, &record);
            scope.spawn(move || {
                let status = login(home(person), &format!("person-{person}"), PASSWORD);
                let ms = u64::try_from(start.elapsed().saturating_sub(due).as_millis()).unwrap_or(u64::MAX);
                record(&|outcome| {
                    *outcome.logins.entry(status).or_default() += 1;
                    outcome.login_ms.push(ms);
                });
            });
            due += Duration::from_secs(1) / load.logins_per_s;
        }
        over.store(true, Ordering::Relaxed);
    });
    let mut outcome = outcome.into_inner().expect("no thread panics");
    outcome.login_ms.sort_unstable();
    outcome.introspection_us.sort_unstable();
    outcome
}
