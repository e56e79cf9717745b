//! MCIAS within the test's process, with a clock that the test sets, and requests without sockets.

use std::ops::Deref;
use std::sync::Arc;

use mc_testkit::local;
use mc_testkit::service::Answer;
use mcdsl::clock::Clock;
use mcias::app::Mcias;
use mcias::config::Config;
use mcias::domain::password::Params;
use mcias::domain::totp::TotpSecret;
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const PASSWORD: &str = "violet gravel umbrella";

/// MCIAS with a first admin, `ada`.
pub(crate) struct Local {
    inner: local::Local,
    app: Arc<Mcias>,
    // Dropped after the database.
    folder: TempDir,
}

impl Deref for Local {
    type Target = local::Local;

    fn deref(&self) -> &local::Local {
        &self.inner
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
        let runtime = local::runtime();
        let app = Arc::new(runtime.block_on(Mcias::open(config, clock.clone())).unwrap());
        let link = runtime.block_on(app.make_admin("ada")).unwrap();
        let local = Self { inner: local::Local::new(&app, limits, clock, runtime), app, folder };
        local.redeem(&link.url);
        local
    }

    /// Runs the periodic jobs once.
    pub(crate) fn sweep(&self) {
        self.runtime.block_on(self.app.sweep());
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
