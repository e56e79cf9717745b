//! MCIAS as it is shipped, with a first admin: accounts, logins and introspection.

use std::io;
use std::ops::{Deref, DerefMut};
use std::path::Path;

use serde_json::{Value, json};

pub use crate::service::{Answer, Connection};

use crate::service::Service;
use crate::tools::binaries_dir;

/// Its host name.
pub const NAME: &str = "mcias.test";

/// The first admin.
pub const ADMIN: &str = "ada";

/// The password of the admin and of everybody whom [`Mcias::person`] creates.
pub const PASSWORD: &str = "violet gravel umbrella";

/// MCIAS, running. Everything that other services have too is in [`Service`].
#[derive(Debug)]
pub struct Mcias {
    service: Service,
}

impl Deref for Mcias {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.service
    }
}

impl DerefMut for Mcias {
    fn deref_mut(&mut self) -> &mut Service {
        &mut self.service
    }
}

impl Mcias {
    /// Starts MCIAS with its defaults, except for cheap password hashes: tests log in often.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with("", &[])
    }

    /// Starts MCIAS with more lines of configuration, and with these variables in its environment.
    ///
    /// # Panics
    /// It does not start.
    #[must_use]
    pub fn start_with(lines: &str, environment: &[(&str, &str)]) -> Self {
        Self::start_program(&binaries_dir().join("mcias"), lines, environment)
    }

    /// Starts another build of MCIAS, or a script around it.
    ///
    /// # Panics
    /// It does not start.
    #[must_use]
    pub fn start_program(program: &Path, lines: &str, environment: &[(&str, &str)]) -> Self {
        let lines = format!(
            "[site]\npublic_url = \"https://{NAME}:8443\"\n\
             [passwords.argon2]\nmemory_kib = 1024\npasses = 1\n{lines}"
        );
        let mut mcias = Self { service: Service::create("mcias", program, &lines) };
        let link = mcias.run(&["init", ADMIN]);
        mcias.restart(environment);
        mcias.redeem(link.trim());
        mcias
    }

    /// Replaces an account's settings: those in `change` by new values, the others by their current ones.
    ///
    /// # Panics
    /// There is no response.
    pub fn edit(&self, token: &str, name: &str, change: &Value) -> Answer {
        let path = format!("/v1/accounts/{name}");
        let account = self.ask("GET", &path, token, &Value::Null).body;
        let mut settings = json!({});
        for field in ["enabled", "roles", "tags", "service", "revision"] {
            if !account[field].is_null() {
                settings[field] = account[field].clone();
            }
        }
        settings
            .as_object_mut()
            .expect("it is an object")
            .extend(change.as_object().expect("it is an object").clone());
        self.ask("PUT", &path, token, &settings)
    }

    /// The same, where it succeeds.
    ///
    /// # Panics
    /// It does not succeed.
    pub fn edited(&self, token: &str, name: &str, change: &Value) -> Value {
        let answer = self.edit(token, name, change);
        assert_eq!(answer.status, 200, "{name} {change}: {}", answer.text);
        answer.body
    }

    /// Replaces the login policy.
    ///
    /// # Panics
    /// There is no response.
    pub fn set_policy(&self, token: &str, default: &str, rules: &Value) -> Answer {
        let revision = self.ask("GET", "/v1/policy", token, &Value::Null).body["revision"].clone();
        // A caller who cannot read the policy cannot replace it either: any revision will do.
        let revision = if revision.is_null() { json!(1) } else { revision };
        let body = json!({ "default": default, "rules": rules, "revision": revision });
        self.ask("PUT", "/v1/policy", token, &body)
    }

    /// Logs in with [`PASSWORD`], for MCIAS and the services that tests have. Returns the token.
    ///
    /// # Panics
    /// The login fails.
    #[must_use]
    pub fn login(&self, name: &str) -> String {
        let body = json!({ "username": name, "password": PASSWORD, "audience": ["mcias", "mcr", "mcns"] });
        self.ask("POST", "/v1/login", "", &body).text_of("token")
    }

    /// Creates a person's account with [`PASSWORD`].
    ///
    /// # Panics
    /// It cannot be created.
    pub fn person(&self, admin: &str, name: &str, roles: &[&str]) {
        let body = json!({ "name": name, "account_type": "human", "roles": roles });
        self.done("POST", "/v1/accounts", admin, &body);
        let link = self.ask("POST", &format!("/v1/accounts/{name}/link"), admin, &Value::Null);
        self.redeem(&link.text_of("url"));
    }

    /// Creates a system account with these tags. Returns a token of it.
    ///
    /// # Panics
    /// It cannot be created.
    #[must_use]
    pub fn service(&self, admin: &str, name: &str, tags: &[&str]) -> String {
        let body = json!({ "name": name, "account_type": "system", "tags": tags });
        self.done("POST", "/v1/accounts", admin, &body);
        self.token(admin, name, "first")
    }

    /// Issues a token of a system account, for MCIAS and the services that tests have.
    ///
    /// # Panics
    /// It cannot be issued.
    #[must_use]
    pub fn token(&self, admin: &str, name: &str, label: &str) -> String {
        let path = format!("/v1/accounts/{name}/tokens");
        let body = json!({ "label": label, "audience": ["mcias", "mcr", "mcns"] });
        self.ask("POST", &path, admin, &body).text_of("token")
    }

    /// Introspects a token for a service.
    ///
    /// # Panics
    /// There is no response.
    #[must_use]
    pub fn introspect(&self, service: &str, token: &str) -> Answer {
        introspect(&mut self.connection(), service, token)
            .unwrap_or_else(|error| panic!("introspecting: {error}"))
    }

    /// Sets [`PASSWORD`] with a one-time link.
    ///
    /// # Panics
    /// The link is invalid.
    pub fn redeem(&self, link: &str) {
        let secret = link.rsplit('#').next().expect("a link has parts");
        let body = json!({ "secret": secret, "password": PASSWORD });
        self.done("POST", "/v1/link/redeem", "", &body);
    }
}

/// Introspects a token for a service, over a connection that may break.
///
/// # Errors
/// The connection broke before the response was there.
pub fn introspect(connection: &mut Connection, service: &str, token: &str) -> io::Result<Answer> {
    let body = format!("token={token}");
    connection.raw("POST", "/v1/introspect", service, "application/x-www-form-urlencoded", body.as_bytes())
}
