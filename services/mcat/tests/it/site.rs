//! MCAT beside MCIAS, with a few accounts and rules.

use std::path::Path;

use mc_testkit::mcias::{Mcias, PASSWORD};
use mc_testkit::service::{Answer, Service};
use serde_json::{Value, json};

/// MCIAS with the admin `ada`, the guest `bob` and a service `mcr` that is tagged `prod`, which guests may not use; and MCAT.
pub(crate) struct Site {
    pub(crate) mcias: Mcias,
    pub(crate) admin: String,
    pub(crate) mcat: Service,
    /// MCAT's own token.
    pub(crate) service: String,
}

/// The domain that both are below.
pub(crate) const DOMAIN: &str = "example.test";

/// The rule that denies guests what is tagged `prod`.
pub(crate) const RULE: &str = "guests-stay-out";

/// The public URL of one of them.
pub(crate) fn url(name: &str) -> String {
    format!("https://{name}.{DOMAIN}:8443")
}

impl Site {
    pub(crate) fn start() -> Self {
        // `init` has noted the test kit's URL.
        let environment = [
            ("MCIAS_SITE_PUBLIC_URL", url("mcias")),
            ("MCIAS_SITE_FORMER_PUBLIC_URLS", "[\"https://mcias.test:8443\"]".to_owned()),
            ("MCIAS_SITE_PASSKEY_DOMAIN", DOMAIN.to_owned()),
            ("MCIAS_SITE_PASSKEY_ORIGINS", format!("[\"{}\"]", url("mcat"))),
        ];
        let environment: Vec<(&str, &str)> =
            environment.iter().map(|(key, it)| (*key, it.as_str())).collect();
        let mcias = Mcias::start_with("", &environment);
        let admin = mcias.login("ada");
        let service = mcias.service(&admin, "mcat", &["login-tester"]);
        drop(mcias.service(&admin, "mcr", &["prod"]));
        mcias.person(&admin, "bob", &["guest"]);
        let rules = json!([guests_stay_out()]);
        assert_eq!(mcias.set_policy(&admin, "allow", &rules).status, 200);
        let lines = format!(
            "[site]\npublic_url = \"{}\"\n[mcias]\nserver_url = \"https://{}\"\nca = \"{}\"\npasskeys = true\n\
             [log]\nlevel = \"debug\"\naccess = true\n",
            url("mcat"),
            mcias.grpc,
            mcias.ca_file().display()
        );
        let mut mcat = Service::create("mcat", Path::new(env!("CARGO_BIN_EXE_mcat")), &lines);
        std::fs::write(mcat.folder().join("mcias.token"), &service).unwrap();
        mcat.restart(&[]);
        Self { mcias, admin, mcat, service }
    }

    /// Logs in to MCAT. Returns the token.
    pub(crate) fn login(&self, name: &str) -> String {
        let body = json!({ "username": name, "password": PASSWORD });
        self.mcias.ask("POST", "/v1/login", &self.service, &body).text_of("token")
    }

    pub(crate) fn explain(&self, token: &str, body: &Value) -> Answer {
        self.mcat.ask("POST", "/v1/explain", token, body)
    }
}

/// A rule as JSON.
pub(crate) fn guests_stay_out() -> Value {
    json!({ "name": RULE, "priority": 10, "effect": "deny", "roles": ["guest"], "resource_tags": ["prod"] })
}
