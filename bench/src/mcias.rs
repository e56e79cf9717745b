//! What MCIAS costs: processor time of its process for an introspection and for a login, beside Argon2id alone, and its memory.
//!
//! Servers run side by side and are measured in turn: one that is nearly empty; one with 10,000 accounts and a million
//! tokens, most of them over; and one whose hashes cost nothing, which shows what else there is to a login. Clients are
//! `h2load`, on TLS 1.3 and HTTP/2 connections that stay. Servers have one core, clients another. Processor time is what
//! counts, not the clock's.
//!
//! With `--flood`: whether people at familiar addresses log in, and services introspect in time, during a flood of logins.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;
use mc_testkit::logins;
use mc_testkit::mcias::{Answer, NAME, PASSWORD, introspect};
use serde::Serialize;
use serde_json::{Value, json};

use crate::cell::pin;
use crate::load::h2load::{Post, post};
use crate::stats::Summary;
use crate::{clock, proc};

#[derive(Args, Debug)]
pub(crate) struct Mcias {
    /// Rounds; a row's figure is the median.
    #[arg(long, default_value_t = 7)]
    rounds: u32,
    /// Introspections in a round.
    #[arg(long, default_value_t = 100_000)]
    requests: u64,
    /// Logins in a round.
    #[arg(long, default_value_t = 100)]
    logins: u64,
    /// Tokens in the full database.
    #[arg(long, default_value_t = 1_000_000)]
    tokens: u32,
    /// Measure a flood of logins instead, for so many seconds.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "60")]
    flood: Option<u64>,
    /// The server.
    #[arg(long, env = "MC_BENCH_MCIAS", default_value = "target/release/mcias")]
    program: PathBuf,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// The core of the servers, and of Argon2id alone.
const SERVERS: u32 = 0;

/// The core of their clients.
const LOAD: u32 = 1;

/// Accounts in the full database.
const ACCOUNTS: u32 = 10_000;

/// Argon2id's parameters where nobody says otherwise.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;

/// One row.
#[derive(Debug, Serialize)]
struct Row {
    id: &'static str,
    what: &'static str,
    samples: Vec<f64>,
    /// What the median must be: at least, or at most.
    demand: Option<Demand>,
}

#[derive(Clone, Copy, Debug, Serialize)]
enum Demand {
    AtLeast(f64),
    AtMost(f64),
}

/// A server with a service that asks and a person who is asked about.
struct Server {
    mcias: mc_testkit::mcias::Mcias,
    service: String,
    person: String,
}

impl Mcias {
    /// Measures all rows, and prints them.
    ///
    /// # Errors
    /// A server does not start, or something was not answered as it should.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        // What is started from here on inherits the core; a process that moves between two finds cold caches.
        pin(SERVERS)?;
        let program = self.program.canonicalize().with_context(|| format!("{}", self.program.display()))?;
        if let Some(seconds) = self.flood {
            return self.flood(&program, Duration::from_secs(seconds));
        }
        let few = Server::start(&program, COSTLY);
        let mut many = Server::start(&program, COSTLY);
        many.fill(self.tokens)?;
        let cheap = Server::start(&program, CHEAP);
        pin(LOAD)?;
        let mut rows = rows();
        let mut add = |id: &str, value: f64| {
            let row = rows.iter_mut().find(|row| row.id == id).expect("every figure has its row");
            row.samples.push(value);
        };
        // Before anything else: what an idle server has.
        clock::sleep(Duration::from_secs(3));
        add("idle", kib(proc::pss_kib(&[many.pid()])?) / 1024.0);
        let people = many.sessions()?;
        // The first round warms up.
        for round in 0..=self.rounds {
            let [a, b] = [few.introspect(self.requests)?, many.introspect(self.requests)?];
            let [c, d] = [few.log_in(self.logins)?, many.log_in(self.logins)?];
            let hash = argon2_ms(self.logins, Duration::ZERO)?;
            let paused = argon2_ms(self.logins, PAUSE)?;
            let looked_up = many.looked_up(&people)?;
            let rest = cheap.log_in(10 * self.logins)? / 1000.0;
            if round == 0 {
                continue;
            }
            add("introspect", 1e6 / a);
            add("introspect-many", 1e6 / b);
            add("introspect-ratio", b / a);
            add("looked-up", 1e6 / (b + looked_up));
            add("hash", hash);
            add("hash-paused", paused);
            add("login", c / 1000.0);
            add("login-many", d / 1000.0);
            add("login-ratio", d / c);
            add("rest", rest);
            add("login-rest", 100.0 * rest / hash);
            add("login-more", 100.0 * (c / 1000.0 / paused - 1.0));
            let (c, d) = (c / 1000.0, d / 1000.0);
            eprintln!(
                "round {round}: {a:.1} and {b:.1} us an introspection, {c:.2} and {d:.2} ms a login, {hash:.2} ms a hash, {rest:.2} ms the rest"
            );
        }
        clock::sleep(Duration::from_secs(15));
        add("after", kib(proc::pss_kib(&[many.pid()])?) / 1024.0);
        self.print(&rows)
    }

    /// A flood of logins from 60 addresses with two connections each, in a database with 10,000 accounts.
    fn flood(&self, program: &Path, time: Duration) -> anyhow::Result<()> {
        let mut server = Server::start(program, COSTLY);
        server.mcias.stop();
        rusqlite::Connection::open(server.mcias.database())?.execute_batch(logins::FILL)?;
        server.mcias.restart(&COSTLY);
        pin(LOAD)?;
        let load =
            logins::Load { time, addresses: 60, connections: 2, logins_per_s: 5, introspections_per_s: 1000 };
        let outcome = logins::run(&server.mcias, &server.service, &server.person, load);
        eprintln!("logins {:?}, flood {:?}, by status", outcome.logins, outcome.flood);
        let all = f64::from(outcome.logins.values().sum::<u32>());
        let done = f64::from(outcome.logins.get(&200).copied().unwrap_or_default());
        let p99 = |sorted: &[u64]| sorted.get(sorted.len() * 99 / 100).copied().map_or(f64::NAN, kib);
        let row = |id, what, sample, demand| Row { id, what, samples: vec![sample], demand: Some(demand) };
        self.print(&[
            row(
                "flood-logins",
                "logins from familiar addresses that succeed, %",
                100.0 * done / all,
                Demand::AtLeast(95.0),
            ),
            row(
                "flood-login-p99",
                "how long these take, 99 % at most, ms",
                p99(&outcome.login_ms),
                Demand::AtMost(1000.0),
            ),
            row("flood-lost", "introspections that are lost", f64::from(outcome.lost), Demand::AtMost(0.0)),
            row(
                "flood-introspection-p99",
                "how long introspections take, 99 % at most, ms",
                p99(&outcome.introspection_us) / 1000.0,
                Demand::AtMost(100.0),
            ),
        ])
    }

    fn print(&self, rows: &[Row]) -> anyhow::Result<()> {
        if self.json {
            println!("{}", serde_json::to_string_pretty(rows)?);
            return Ok(());
        }
        let load = std::fs::read_to_string("/proc/loadavg")?;
        let cores = std::thread::available_parallelism()?;
        println!("{cores} cores, load average {} at the end, {} rounds", load.trim(), self.rounds);
        println!("| | median | least to most | demanded | reached |");
        println!("|---|---|---|---|---|");
        rows.iter().for_each(print);
        Ok(())
    }
}

/// What is measured, in which unit, and what is demanded of it.
fn rows() -> Vec<Row> {
    let row = |id, what, demand| Row { id, what, samples: Vec::new(), demand };
    vec![
        row("introspect", "introspections, per second of one core", Some(Demand::AtLeast(20_000.0))),
        row("introspect-many", "the same, many tokens", None),
        row("introspect-ratio", "its cost, many to few", Some(Demand::AtMost(1.1))),
        row("looked-up", "the same, of tokens that are not in memory, many tokens", None),
        row("hash", "Argon2id alone, over and over, ms of one core", None),
        row("hash-paused", "Argon2id alone, each after a pause as between logins, ms of one core", None),
        row("login", "a login, ms of one core", None),
        row("rest", "a login whose hash costs nothing, ms of one core", None),
        row("login-rest", "that, to Argon2id, %", Some(Demand::AtMost(5.0))),
        row(
            "login-more",
            "a login, less Argon2id alone after a pause, to the latter, % (another process, other caches)",
            Some(Demand::AtMost(5.0)),
        ),
        row("login-many", "a login, many tokens, ms of one core", None),
        row("login-ratio", "its cost, many to few", Some(Demand::AtMost(1.1))),
        row("idle", "memory (PSS) when started, many accounts and tokens, MiB", Some(Demand::AtMost(60.0))),
        row("after", "memory (PSS) 15 s after all of this, MiB", None),
    ]
}

fn print(row: &Row) {
    let Some(summary) = Summary::of(&row.samples) else { return };
    let (demanded, reached) = match row.demand {
        None => (String::new(), ""),
        Some(Demand::AtLeast(least)) => (format!("at least {least}"), word(summary.median >= least)),
        Some(Demand::AtMost(most)) => (format!("at most {most}"), word(summary.median <= most)),
    };
    let Summary { median, min, max, .. } = summary;
    println!("| {} | {median:.2} | {min:.2} to {max:.2} | {demanded} | {reached} |", row.what);
}

const fn word(reached: bool) -> &'static str {
    if reached { "yes" } else { "**no**" }
}

#[expect(clippy::cast_precision_loss, reason = "2^53 KiB are more than there are")]
const fn kib(kib: u64) -> f64 {
    kib as f64
}

impl Server {
    /// Starts one as it is shipped, but for its hashes.
    fn start(program: &Path, hashes: Hashes) -> Self {
        let mcias = mc_testkit::mcias::Mcias::start_program(program, "", &hashes);
        let admin = mcias.login("ada");
        let service = mcias.service(&admin, "mcr", &["prod"]);
        mcias.person(&admin, "bob", &["user"]);
        let person = mcias.login("bob");
        Self { mcias, service, person }
    }

    /// Fills its database while it is stopped: accounts, and tokens that were issued in the last 30 days.
    fn fill(&mut self, tokens: u32) -> anyhow::Result<()> {
        self.mcias.stop();
        let mut db = rusqlite::Connection::open(self.mcias.database())?;
        let all = db.transaction()?;
        all.execute(
            "INSERT INTO accounts (name, kind, roles, enabled, created_at, password, uuid)
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
             SELECT 'person-' || i, 0, 2, 1, unixepoch(), (SELECT password FROM accounts WHERE name = 'bob'), randomblob(16)
             FROM n",
            [ACCOUNTS],
        )?;
        all.execute(
            "INSERT INTO tokens (id, account, kind, audience, label, origin, source, created_at, expires_at)
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1),
             t (i, at) AS (SELECT i, unixepoch() - abs(random()) % (29 * 86400) FROM n)
             SELECT lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-' || hex(randomblob(2)) || '-'
                          || hex(randomblob(2)) || '-' || hex(randomblob(6))),
                    (SELECT min(id) FROM accounts WHERE name LIKE 'person-%') + i % ?2, 0, '[]', 'mcias', 'password',
                    '192.0.2.1', at, at + 43200
             FROM t",
            [tokens, ACCOUNTS],
        )?;
        all.commit()?;
        drop(db);
        self.mcias.restart(&COSTLY);
        Ok(())
    }

    fn pid(&self) -> u32 {
        self.mcias.process().pid()
    }

    /// What an introspection costs, in microseconds of processor time.
    fn introspect(&self, count: u64) -> anyhow::Result<f64> {
        let told = self.mcias.introspect(&self.service, &self.person);
        ensure!(told.body["active"] == json!(true), "the token is not good: {}", told.text);
        let body = format!("token={}", self.person);
        let bearer = format!("authorization: Bearer {}", self.service);
        self.cost(
            &told,
            "/v1/introspect",
            &bearer,
            "application/x-www-form-urlencoded",
            &body,
            (4, 32),
            count,
        )
    }

    /// Tokens of some sessions.
    fn sessions(&self) -> anyhow::Result<Vec<String>> {
        let body = json!({ "username": "bob", "password": PASSWORD, "audience": ["mcias", "mcr"] });
        let mut connection = self.mcias.connection();
        let login = |_| {
            let told = connection.ask("POST", "/v1/login", "", &body)?;
            ensure!(told.status == 200, "no login: {}", told.text);
            Ok(told.text_of("token"))
        };
        (0..200).map(login).collect()
    }

    /// What an introspection costs more where the token is not in memory, in microseconds of processor time: these tokens over
    /// and over, with a change before each time, which has all be looked up again; less the same without the changes. The changes
    /// are in it too: one for 200 of these.
    fn looked_up(&self, tokens: &[String]) -> anyhow::Result<f64> {
        const TIMES: u32 = 30;
        let admin = self.mcias.login("ada");
        let mut connection = self.mcias.connection();
        let mut all = |changes: bool| {
            let before = proc::cpu(&[self.pid()]);
            for round in 0..TIMES {
                if changes {
                    let mut settings = connection.ask("GET", "/v1/accounts/bob", &admin, &Value::Null)?.body;
                    let fields = settings.as_object_mut().context("bob is an account")?;
                    fields.retain(|name, _| ["enabled", "roles", "revision"].contains(&name.as_str()));
                    fields.insert("tags".to_owned(), json!([format!("round-{round}")]));
                    let changed = connection.ask("PUT", "/v1/accounts/bob", &admin, &settings)?;
                    ensure!(changed.status == 200, "no change: {}", changed.text);
                }
                for token in tokens {
                    let told = introspect(&mut connection, &self.service, token)?;
                    ensure!(told.body["active"] == json!(true), "the token is not good: {}", told.text);
                }
            }
            Ok((proc::cpu(&[self.pid()]) - before).as_secs_f64() * 1e6)
        };
        Ok((all(true)? - all(false)?) / kib(u64::from(TIMES) * tokens.len() as u64))
    }

    /// What a login costs, in microseconds of processor time.
    fn log_in(&self, count: u64) -> anyhow::Result<f64> {
        let body: Value = json!({ "username": "bob", "password": PASSWORD, "audience": ["mcias", "mcr"] });
        let told = self.mcias.ask("POST", "/v1/login", "", &body);
        ensure!(told.status == 200, "no login: {}", told.text);
        let host = format!("x-bench: {NAME}");
        self.cost(&told, "/v1/login", &host, "application/json", &body.to_string(), (1, 1), count)
    }

    /// Makes so many requests, each of which must be answered with as much as this one was; the cost of one.
    #[expect(clippy::too_many_arguments, reason = "it is the request, said once")]
    fn cost(
        &self,
        like: &Answer,
        path: &str,
        header: &str,
        kind: &str,
        body: &str,
        (clients, streams): (u32, u32),
        count: u64,
    ) -> anyhow::Result<f64> {
        let file = self.mcias.folder().join("body");
        std::fs::write(&file, body)?;
        let target: SocketAddr = self.mcias.rest;
        let request = Post {
            target,
            url: &format!("https://{NAME}:{}{path}", target.port()),
            headers: &[header, &format!("content-type: {kind}")],
            body: &file,
            clients,
            streams,
        };
        let before = proc::cpu(&[self.pid()]);
        let outcome = post(&request, count, like.text.len() as u64)?;
        let spent = proc::cpu(&[self.pid()]) - before;
        ensure!(outcome.failed == 0, "{} failed: {:?}", outcome.failed, outcome.first_failure);
        Ok(spent.as_secs_f64() * 1e6 / kib(count))
    }
}

/// Argon2id's parameters, above those of the tests' server.
type Hashes = [(&'static str, &'static str); 2];

/// What they are where nobody says otherwise.
const COSTLY: Hashes =
    [("MCIAS_PASSWORDS_ARGON2_MEMORY_KIB", "19456"), ("MCIAS_PASSWORDS_ARGON2_PASSES", "2")];

/// The least that there is.
const CHEAP: Hashes = [("MCIAS_PASSWORDS_ARGON2_MEMORY_KIB", "8"), ("MCIAS_PASSWORDS_ARGON2_PASSES", "1")];

/// About what passes between two hashes while one client logs in again and again: its disk, its network, its own work.
const PAUSE: Duration = Duration::from_millis(2);

/// Processor time of one Argon2id in this process, in milliseconds: with memory that it has already.
fn argon2_ms(count: u64, pause: Duration) -> anyhow::Result<f64> {
    let params =
        argon2::Params::new(MEMORY_KIB, PASSES, 1, Some(32)).expect("they are within Argon2's bounds");
    let argon2 = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let mut memory = vec![argon2::Block::default(); MEMORY_KIB as usize];
    let mut out = [0; 32];
    let mut hash = || {
        let hashed =
            argon2.hash_password_into_with_memory(PASSWORD.as_bytes(), &[7; 16], &mut out, &mut memory);
        hashed.map_err(|error| anyhow::anyhow!("Argon2id: {error}"))
    };
    pin(SERVERS)?;
    hash()?;
    let own = [std::process::id()];
    let before = proc::cpu(&own);
    for _ in 0..count {
        if !pause.is_zero() {
            clock::sleep(pause);
        }
        hash()?;
    }
    let spent = proc::cpu(&own) - before;
    pin(LOAD)?;
    Ok(spent.as_secs_f64() * 1e3 / kib(count))
}
