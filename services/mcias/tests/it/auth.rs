//! MCIAS's client, `mcdsl::auth`, as every other service uses it: over gRPC, with a real MCIAS that is up, slow, down
//! or restarted.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::routing::get;
use axum::{Extension, Router};
use http::Method;
use http::request::Builder;
use mc_api::mcias::LoginRequest;
use mc_api::operation::Need;
use mc_testkit::ca::Ca;
use mc_testkit::mcias::{Mcias, PASSWORD};
use mcdsl::audit::AuditedDatabase;
use mcdsl::auth::{Callers, Client, HasCallers, Settings};
use mcdsl::clock::Clock;
use mcdsl::db::{Database, Schema};
use mcdsl::http::{Metrics, bearer, middleware};
use mcdsl::identity::{Identity, Name, Role};
use mcdsl::operation::RouteTable;
use mcdsl::permit::{Access, Permit};
use mcdsl::problem::{Kind, Problem};
use mcdsl::secret::Secret;
use mcias::domain::totp::TotpSecret;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tower::ServiceExt as _;

/// A service `mcr` with its client of a real MCIAS.
struct Mcr {
    mcias: Mcias,
    admin: String,
    settings: Settings,
    client: Client,
    clock: Clock,
    runtime: Runtime,
}

impl Mcr {
    fn start() -> Self {
        let mcias = Mcias::start_with("[log]\naccess = true", &[]);
        let admin = mcias.login("ada");
        mcias.person(&admin, "bob", &["user"]);
        let settings = Settings {
            server_url: format!("https://{}", mcias.grpc),
            ca: mcias.ca_file(),
            token_file: mcias.folder().join("mcr.token"),
            passkeys: false,
        };
        std::fs::write(&settings.token_file, mcias.service(&admin, "mcr", &["prod"])).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let (runtime, clock) = (runtime.unwrap(), Clock::system());
        let client = client(&runtime, &settings, &clock);
        Self { mcias, admin, settings, client, clock, runtime }
    }

    fn validate(&self, token: &str) -> Result<Arc<Identity>, Problem> {
        self.runtime.block_on(self.client.validate(&Secret::from(token)))
    }

    fn is_valid(&self, token: &str) -> bool {
        match self.validate(token) {
            Ok(_) => true,
            Err(problem) => {
                assert_eq!(problem.kind, Kind::Unauthenticated, "{problem:?}");
                false
            }
        }
    }

    fn is_unavailable(&self, token: &str) -> bool {
        is_unavailable(self.validate(token))
    }

    /// A login through this service. Its reason where it is refused.
    fn login(&self, change: impl FnOnce(&mut LoginRequest)) -> Result<String, Problem> {
        let mut request = LoginRequest {
            username: "bob".to_owned(),
            password: PASSWORD.to_owned(),
            client_address: Some("198.51.100.7".to_owned()),
            ..LoginRequest::default()
        };
        change(&mut request);
        Ok(self.runtime.block_on(self.client.login(request))?.token)
    }

    fn introspections(&self) -> u64 {
        let page = self.mcias.ops_page("/metrics");
        let count = page.lines().find_map(|line| line.strip_prefix("mcias_introspections_total "));
        count.unwrap().parse().unwrap()
    }
}

fn client(runtime: &Runtime, settings: &Settings, clock: &Clock) -> Client {
    let _entered = runtime.enter();
    Client::new(settings, clock.clone()).unwrap()
}

fn is_unavailable<T: std::fmt::Debug>(answer: Result<T, Problem>) -> bool {
    let problem = answer.unwrap_err();
    assert!(problem.retry_after.is_some(), "{problem:?}");
    (problem.kind, problem.reason) == (Kind::Unavailable, "identity-unavailable")
}

#[test]
fn an_identity_is_cached_and_a_revocation_is_seen_within_30_s() {
    let mcr = Mcr::start();
    let bob = mcr.mcias.login("bob");
    let identity = mcr.validate(&bob).unwrap();
    assert_eq!(identity.account.name().as_str(), "bob");
    assert!(identity.account.roles().has(Role::User) && !identity.account.roles().has(Role::Admin));
    assert!(identity.authenticated_at > 0 && identity.expires_at > identity.authenticated_at);
    let sessions = mcr.mcias.done("GET", "/v1/accounts/bob/sessions", &mcr.admin, &Value::Null);
    assert_eq!(sessions["sessions"][0]["id"], identity.token_id);
    assert!(!mcr.is_valid("nonsense"));
    let before = mcr.introspections();
    mcr.mcias.done("POST", "/v1/me/logout", &bob, &Value::Null);
    mcr.clock.pass(Duration::from_secs(20));
    assert!(mcr.is_valid(&bob));
    assert_eq!(mcr.introspections(), before, "it was asked about again");
    mcr.clock.pass(Duration::from_secs(10));
    assert!(!mcr.is_valid(&bob));
    // A system account has no roles.
    let service = mcr.validate(&std::fs::read_to_string(&mcr.settings.token_file).unwrap()).unwrap();
    assert_eq!((service.account.name().as_str(), service.tags.len()), ("mcr", 1));
    assert_eq!(service.account.roles().words().count(), 0);
}

#[test]
fn a_hundred_requests_with_one_token_are_one_introspection() {
    let mcr = Mcr::start();
    let before = mcr.introspections();
    let one = || {
        let (client, token) = (mcr.client.clone(), Secret::from(mcr.admin.as_str()));
        mcr.runtime.spawn(async move { client.validate(&token).await })
    };
    let requests: Vec<_> = (0..100).map(|_| one()).collect();
    for request in requests {
        let identity = mcr.runtime.block_on(request).unwrap().unwrap();
        assert_eq!(identity.account.name().as_str(), "ada");
    }
    assert_eq!(mcr.introspections(), before + 1);
}

#[test]
fn a_login_is_for_the_service_and_says_what_is_missing() {
    let mcr = Mcr::start();
    let bob = mcr.mcias.login("bob");
    let enrolment = mcr.mcias.done("POST", "/v1/me/totp/begin", &bob, &Value::Null);
    let secret = data_encoding::BASE32_NOPAD.decode(enrolment["secret"].as_str().unwrap().as_bytes());
    let secret = TotpSecret::try_from_slice(&secret.unwrap()).unwrap();
    let code = secret.code((mcr.clock.unix_s() / 30).unsigned_abs());
    let codes = mcr.mcias.done("POST", "/v1/me/totp/confirm", &bob, &json!({ "code": code.expose() }));
    let recovery_code = codes["codes"][0].as_str().unwrap().to_owned();

    let refused = mcr.login(|_| ()).unwrap_err();
    assert_eq!((refused.kind, refused.reason), (Kind::Unauthenticated, "second-factor-required"));
    let refused = mcr.login(|request| request.totp = Some("x".to_owned())).unwrap_err();
    assert_eq!((refused.kind, refused.reason), (Kind::Unauthenticated, "wrong-code"));
    let refused = mcr.login(|request| request.username = "Bob".to_owned()).unwrap_err();
    assert_eq!((refused.kind, refused.field.as_deref()), (Kind::Invalid, Some("username")));
    let token = mcr.login(|request| request.recovery_code = Some(recovery_code)).unwrap();
    assert_eq!(mcr.validate(&token).unwrap().audience, ["mcr"]);
    // A logout is seen at once by the service where it happens.
    mcr.runtime.block_on(mcr.client.logout(&Secret::from(token.as_str()))).unwrap();
    assert!(!mcr.is_valid(&token));

    let throttled = (0..30).find_map(|_| {
        let refused = mcr.login(|request| request.password = "wrong".to_owned()).unwrap_err();
        (refused.reason != "wrong-login").then_some(refused)
    });
    let throttled = throttled.unwrap();
    assert_eq!((throttled.kind, throttled.reason), (Kind::TooMany, "too-many-attempts"));
    assert!(throttled.retry_after.is_some());
}

#[test]
fn without_mcias_nobody_is_admitted_until_it_is_back() {
    let mut mcr = Mcr::start();
    let [cached, other] = [mcr.mcias.login("bob"), mcr.mcias.login("bob")];
    assert!(mcr.is_valid(&cached));
    mcr.mcias.kill9();
    assert!(mcr.is_unavailable(&other));
    assert!(is_unavailable(mcr.login(|_| ())));
    assert!(mcr.is_valid(&cached));
    mcr.clock.pass(Duration::from_secs(30));
    assert!(mcr.is_unavailable(&cached));
    mcr.mcias.restart(&[]);
    assert!(mcr.is_valid(&cached) && mcr.is_valid(&other));
    mcr.mcias.stop();
    mcr.clock.pass(Duration::from_secs(30));
    assert!(mcr.is_unavailable(&cached));
    mcr.mcias.restart(&[]);
    assert!(mcr.is_valid(&cached) && mcr.login(|_| ()).is_ok());
}

#[test]
fn a_mcias_that_does_not_answer_is_not_waited_for_forever() {
    let mcr = Mcr::start();
    let [first, second] = [mcr.mcias.login("bob"), mcr.mcias.login("bob")];
    assert!(mcr.is_valid(&first));
    mcr.mcias.pause();
    // Over the connection that is there, and over one that is never accepted.
    let other = client(&mcr.runtime, &mcr.settings, &mcr.clock);
    let (second, token) = (second.as_str(), Secret::from(second.as_str()));
    let both = mcr.runtime.block_on(async {
        let both = async { tokio::join!(mcr.client.validate(&token), other.validate(&token)) };
        tokio::time::timeout(Duration::from_secs(60), both).await
    });
    let (over_open, over_new) = both.expect("the client waits for longer than its timeout");
    assert!(is_unavailable(over_open) && is_unavailable(over_new));
    mcr.mcias.resume();
    assert!(mcr.is_valid(second));
    assert!(mcr.runtime.block_on(other.validate(&token)).is_ok());
}

#[test]
fn the_service_s_own_token_can_be_rotated_while_it_runs() {
    let mcr = Mcr::start();
    let mut logins = std::iter::repeat_with(|| mcr.mcias.login("bob"));
    let mut fresh = || logins.next().unwrap();
    assert!(mcr.is_valid(&fresh()));
    let tokens = mcr.mcias.done("GET", "/v1/accounts/mcr/tokens", &mcr.admin, &Value::Null);
    let id = tokens["tokens"][0]["id"].as_str().unwrap();
    mcr.mcias.done("DELETE", &format!("/v1/accounts/mcr/tokens/{id}"), &mcr.admin, &Value::Null);
    // That is the service's fault, and nothing about the person.
    assert!(mcr.is_unavailable(&fresh()));
    assert!(is_unavailable(mcr.login(|_| ())));
    std::fs::write(&mcr.settings.token_file, mcr.mcias.token(&mcr.admin, "mcr", "second")).unwrap();
    assert!(mcr.is_valid(&fresh()));
    std::fs::remove_file(&mcr.settings.token_file).unwrap();
    assert!(mcr.is_unavailable(&fresh()));
}

#[test]
fn a_certificate_of_another_ca_is_not_trusted() {
    let mcr = Mcr::start();
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { ca: Ca::new().write(folder.path()), ..mcr.settings.clone() };
    let other = client(&mcr.runtime, &settings, &mcr.clock);
    assert!(is_unavailable(mcr.runtime.block_on(other.validate(&Secret::from(mcr.admin.as_str())))));
    assert!(mcr.is_valid(&mcr.admin));
}

/// All that a service writes to admit its callers.
struct Registry {
    callers: Callers,
}

impl HasCallers for Registry {
    fn callers(&self) -> &Callers {
        &self.callers
    }
}

const SCHEMA: Schema = Schema { application_id: 0x7465_7374, migrations: &[mcdsl::audit::TABLE] };

/// The service's routes, with its database at this path.
fn registry(mcr: &Mcr, database: &Path) -> Router {
    let name = Name::parse("mcr").unwrap();
    let db = Database::open(database, &SCHEMA, 1).unwrap();
    let db = Arc::new(AuditedDatabase::new(db, mcr.clock.clone(), name.clone(), |_, _, _| Ok(())));
    let callers = Callers::new(name, mcr.client.clone(), Some(db), Duration::from_secs(900));
    let limits = mcdsl::server::Settings::default().limits();
    let mut table = RouteTable::new(Arc::new(Registry { callers }), limits.clone());
    let whoami = |Extension(permit): Extension<Arc<Permit>>| async move {
        permit.identity().map_or("nobody".to_owned(), |identity| identity.account.name().to_string())
    };
    for (path, need, fresh) in
        [("/whoami", Need::Account, false), ("/admins", Need::Admin, false), ("/fresh", Need::Account, true)]
    {
        let access = Access { action: "whoami", need, fresh };
        table.protocol(Method::GET, path, access, bearer, get(whoami));
    }
    middleware(table.finish().api, limits, Arc::new(Metrics::default()), mcr.clock.clone(), &[])
}

#[test]
fn a_service_of_a_few_lines_admits_its_callers() {
    let mut mcr = Mcr::start();
    let database = mcr.mcias.folder().join("mcr.db");
    let router = mcr.runtime.block_on(async { registry(&mcr, &database) });
    let send = |path: &str, head: &dyn Fn(Builder) -> Builder| {
        let request = head(http::Request::get(path)).body(axum::body::Body::empty()).unwrap();
        mcr.runtime.block_on(async {
            let response = router.clone().oneshot(request).await.unwrap();
            let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
            let status = response.status().as_u16();
            let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
            (status, String::from_utf8(body.to_vec()).unwrap(), id)
        })
    };
    let with =
        |path: &str, token: &str| send(path, &|head| head.header("authorization", format!("Bearer {token}")));
    let bob = mcr.mcias.login("bob");
    let (status, body, id) = with("/whoami", &bob);
    assert_eq!((status, body.as_str()), (200, "bob"));
    // MCIAS logs the id of the request for which it was called.
    assert!(mcr.mcias.log().contains(&id), "{id}: {}", mcr.mcias.log());
    assert_eq!(send("/whoami", &|head| head).0, 401);
    assert_eq!(with("/whoami", "nonsense").0, 401);
    assert_eq!((with("/admins", &bob).0, with("/admins", &mcr.admin).0), (403, 200));
    // The refusal of a known caller is in the service's own audit log.
    let db = rusqlite::Connection::open(&database).unwrap();
    let refused = "SELECT actor || ' ' || action FROM audit WHERE outcome = 'refused'";
    let refused: String = db.query_row(refused, [], |row| row.get(0)).unwrap();
    assert_eq!(refused, "bob whoami");
    assert_eq!(with("/fresh", &bob).0, 200);
    mcr.clock.pass(Duration::from_secs(901));
    let (status, body, _) = with("/fresh", &bob);
    assert!(status == 403 && body.contains("fresh-login-required"), "{status} {body}");
    mcr.mcias.kill9();
    mcr.clock.pass(Duration::from_secs(30));
    let (status, body, _) = with("/whoami", &bob);
    assert!(status == 503 && body.contains("identity-unavailable"), "{status} {body}");
}
