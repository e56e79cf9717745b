//! Every route that MCAT has, with every kind of caller: who may call it is what its operation states, by REST, by gRPC and as a page.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use mc_testkit::access::{Caller, check, check_table};
use mc_testkit::local::{self, Local};
use mcat::app::Mcat;
use mcat::config::Config;
use mcdsl::clock::Clock;
use serde_json::{Value, json};

use crate::site::Site;

/// MCAT within this process, beside a MCIAS that is a process of its own.
fn beside(site: &Site) -> Local {
    let text = std::fs::read_to_string(site.mcat.folder().join("mcat.toml")).unwrap();
    let mut config: Config = toml::from_str(&text).unwrap();
    config.server.root = site.mcat.folder().to_owned();
    let (limits, clock, runtime) = (config.server.limits(), Clock::system(), local::runtime());
    let entered = runtime.enter();
    let mcat = Arc::new(Mcat::new(config, clock.clone()).unwrap());
    drop(entered);
    Local::new(&mcat, limits, clock, runtime)
}

#[test]
fn each_route_admits_whom_its_operation_names() {
    let site = Site::start();
    let mcat = beside(&site);
    let (mcias, admin) = (&site.mcias, &site.admin);
    mcias.person(admin, "ute", &["user"]);
    drop(mcias.service(admin, "mcns", &[]));
    let expired = site.login("ute");
    mcias.done("DELETE", "/v1/accounts/ute/sessions", admin, &Value::Null);
    let body = json!({ "label": "second", "audience": ["mcat"] });
    let system = mcias.ask("POST", "/v1/accounts/mcns/tokens", admin, &body).text_of("token");
    let mut is_stale = false;
    // A new one each time, as the logout ends it.
    let token = |caller| match caller {
        Caller::Nobody => String::new(),
        Caller::Expired => expired.clone(),
        Caller::Guest => site.login("bob"),
        Caller::User => site.login("ute"),
        Caller::System => system.clone(),
        Caller::Admin => site.login("ada"),
        Caller::StaleAdmin => {
            if !std::mem::replace(&mut is_stale, true) {
                mcat.clock.pass(Duration::from_secs(16 * 60));
            }
            site.login("ada")
        }
    };
    check(&mcat, str::to_owned, token);
    let needs: BTreeSet<_> = mcat.routes.iter().map(|route| format!("{:?}", route.access.need)).collect();
    assert_eq!(needs.into_iter().collect::<Vec<_>>(), ["Admin", "Person", "Public", "Token"]);
}

#[test]
fn every_operation_is_in_the_table_by_rest_and_by_grpc() {
    let site = Site::start();
    check_table(&beside(&site), mcat::app::operations());
}
