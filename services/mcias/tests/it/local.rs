//! MCIAS within the test's process, with a clock that the test sets, and requests without sockets.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use mcdsl::clock::Clock;
use mcdsl::http::{Metrics, Peer, middleware};
use mcdsl::operation::Route;
use mcdsl::program::Service;
use mcias::app::Mcias;
use mcias::config::Config;
use mcias::domain::password::Params;
use mcias::domain::totp::TotpSecret;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt as _;

pub(crate) const PASSWORD: &str = "violet gravel umbrella";

/// MCIAS with a first admin, `ada`.
pub(crate) struct Local {
    pub(crate) clock: Clock,
    app: Arc<Mcias>,
    router: Router,
    grpc: Router,
    /// Everything that it answers.
    pub(crate) routes: Vec<Route>,
    runtime: tokio::runtime::Runtime,
    // Dropped after the database.
    folder: TempDir,
}

/// The response to a request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Answer {
    /// The reason of its problem document.
    pub(crate) fn reason(&self) -> &str {
        self.body["reason"].as_str().unwrap_or_default()
    }
}

impl Local {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.server.root = folder.path().to_owned();
        config.passwords.argon2 = Params { memory_kib: 64, passes: 1, lanes: 1 };
        let limits = config.server.limits();
        let clock = Clock::system();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let app = Arc::new(runtime.block_on(Mcias::open(config, clock.clone())).unwrap());
        let link = runtime.block_on(app.make_admin("ada")).unwrap();
        let routes = Service::routes(&app, limits.clone());
        let wrap = |router| {
            middleware(router, limits.clone(), Arc::new(Metrics::default()), clock.clone(), &routes.dialects)
        };
        let (router, grpc) = (wrap(routes.api.merge(routes.pages)), wrap(routes.grpc));
        let local = Self { clock, app, router, grpc, routes: routes.routes, runtime, folder };
        local.redeem(&link.url);
        local
    }

    /// A request from this address.
    pub(crate) fn send(&self, from: [u8; 4], request: http::request::Builder, body: String) -> Answer {
        let mut request = request.body(Body::from(body)).unwrap();
        request.extensions_mut().insert(Peer(SocketAddr::from((from, 4000))));
        self.runtime.block_on(async {
            let response = self.router.clone().oneshot(request).await.unwrap();
            let status = response.status().as_u16();
            let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
            Answer { status, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) }
        })
    }

    /// Calls a gRPC method with an empty message. Returns the status code.
    pub(crate) fn call(&self, path: &str, token: &str) -> i32 {
        let mut request = http::Request::builder()
            .method("POST")
            .uri(path)
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let message = Body::from(vec![0; 5]);
        let request = request.body(message).unwrap();
        self.runtime.block_on(async {
            let response = self.grpc.clone().oneshot(request).await.unwrap();
            let code = |headers: &http::HeaderMap| headers.get("grpc-status")?.to_str().ok()?.parse().ok();
            if let Some(code) = code(response.headers()) {
                return code;
            }
            let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap();
            body.trailers().and_then(code).unwrap()
        })
    }

    /// Runs the periodic jobs once.
    pub(crate) fn sweep(&self) {
        self.runtime.block_on(self.app.sweep());
    }

    /// Sends a request with a JSON body (null: no body) and a token (empty: no token).
    pub(crate) fn ask(&self, method: &str, path: &str, token: &str, body: &Value) -> Answer {
        self.ask_from([192, 0, 2, 1], method, path, token, body)
    }

    pub(crate) fn ask_from(
        &self,
        from: [u8; 4],
        method: &str,
        path: &str,
        token: &str,
        body: &Value,
    ) -> Answer {
        let mut request = http::Request::builder().method(method).uri(path);
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if body.is_null() {
            return self.send(from, request, String::new());
        }
        self.send(from, request.header("content-type", "application/json"), body.to_string())
    }

    /// Sends a request that succeeds. Returns the body of its response.
    pub(crate) fn done(&self, method: &str, path: &str, token: &str, body: &Value) -> Value {
        let answer = self.ask(method, path, token, body);
        assert!(
            matches!(answer.status, 200 | 201),
            "{method} {path} {body}: {} {}",
            answer.status,
            answer.body
        );
        answer.body
    }

    /// Replaces an account's settings: those in `change` by new values, the others by their current ones.
    pub(crate) fn edit(&self, token: &str, name: &str, change: &Value) -> Answer {
        let path = format!("/v1/accounts/{name}");
        let account = self.ask("GET", &path, token, &Value::Null).body;
        let mut settings = json!({});
        for field in ["enabled", "roles", "tags", "service", "revision"] {
            if !account[field].is_null() {
                settings[field] = account[field].clone();
            }
        }
        settings.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        self.ask("PUT", &path, token, &settings)
    }

    /// The same, where it succeeds.
    pub(crate) fn edited(&self, token: &str, name: &str, change: &Value) -> Value {
        let answer = self.edit(token, name, change);
        assert_eq!(answer.status, 200, "{name} {change}: {}", answer.body);
        answer.body
    }

    /// Replaces the login policy in force.
    pub(crate) fn set_policy(&self, token: &str, default: &str, rules: &Value) -> Answer {
        let revision = self.ask("GET", "/v1/policy", token, &Value::Null).body["revision"].clone();
        let body = json!({ "default": default, "rules": rules, "revision": revision });
        self.ask("PUT", "/v1/policy", token, &body)
    }

    /// Logs in with [`PASSWORD`]. Returns the token.
    pub(crate) fn login(&self, name: &str) -> String {
        let audience = json!(["mcias", "mcr", "mcns"]);
        let body = json!({ "username": name, "password": PASSWORD, "audience": audience });
        text(&self.done("POST", "/v1/login", "", &body)["token"])
    }

    /// Creates a person's account with [`PASSWORD`].
    pub(crate) fn person(&self, admin: &str, name: &str, roles: &[&str]) {
        let body = json!({ "name": name, "account_type": "human", "roles": roles });
        self.done("POST", "/v1/accounts", admin, &body);
        let link = self.done("POST", &format!("/v1/accounts/{name}/link"), admin, &Value::Null);
        self.redeem(&text(&link["url"]));
    }

    /// Creates a system account. Returns a token of it.
    pub(crate) fn service(&self, admin: &str, name: &str) -> String {
        self.done("POST", "/v1/accounts", admin, &json!({ "name": name, "account_type": "system" }));
        let path = format!("/v1/accounts/{name}/tokens");
        text(&self.done("POST", &path, admin, &json!({ "label": "first" }))["token"])
    }

    /// Turns on the second factor of the token's account. Returns its secret and the recovery codes.
    pub(crate) fn second_factor(&self, token: &str) -> (TotpSecret, Vec<String>) {
        let enrolment = self.done("POST", "/v1/me/totp/begin", token, &Value::Null);
        let secret = data_encoding::BASE32_NOPAD.decode(text(&enrolment["secret"]).as_bytes()).unwrap();
        let secret = TotpSecret::try_from_slice(&secret).unwrap();
        let code = secret.code((self.clock.unix_s() / 30).unsigned_abs());
        let codes = self.done("POST", "/v1/me/totp/confirm", token, &json!({ "code": code.expose() }));
        (secret, codes["codes"].as_array().unwrap().iter().map(text).collect())
    }

    /// Introspects a token for a service.
    pub(crate) fn introspect(&self, service: &str, token: &str) -> Answer {
        let request = http::Request::builder()
            .method("POST")
            .uri("/v1/introspect")
            .header("authorization", format!("Bearer {service}"))
            .header("content-type", "application/x-www-form-urlencoded");
        self.send([192, 0, 2, 2], request, format!("token={token}"))
    }

    /// Verifies the audit log. Returns its number of entries.
    pub(crate) fn verified(&self, admin: &str) -> i64 {
        let verdict = self.done("POST", "/v1/audit/verify", admin, &json!({}));
        assert_eq!(verdict["intact"], json!(true), "{verdict}");
        verdict["last_entry"].as_i64().unwrap()
    }

    /// Opens the database for reading.
    pub(crate) fn database(&self) -> rusqlite::Connection {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        rusqlite::Connection::open_with_flags(self.folder.path().join("mcias.db"), flags).unwrap()
    }

    fn redeem(&self, link: &str) {
        let secret = link.rsplit('#').next().unwrap();
        self.done("POST", "/v1/link/redeem", "", &json!({ "secret": secret, "password": PASSWORD }));
    }
}

/// A JSON string.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}
