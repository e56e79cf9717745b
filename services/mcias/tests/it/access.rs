//! Every route that MCIAS has, with every kind of caller: who may call it is what its operation states, by REST, by
//! gRPC and as a page.

use std::time::Duration;

use mc_testkit::access::{Caller, check, check_table};

use crate::local::Local;

#[test]
fn each_route_admits_whom_its_operation_names() {
    let mcias = Local::start();
    let expired = mcias.login("ada");
    mcias.person(&expired, "gus", &["guest"]);
    mcias.person(&expired, "ute", &["user"]);
    let system = mcias.service(&expired, "mcr");
    mcias.edited(&expired, "mcr", &serde_json::json!({ "service": "mcr", "tags": ["login-tester"] }));
    mcias.clock.pass(Duration::from_secs(13 * 3600));
    let path = |pattern: &str| {
        let path = pattern.replace("{name}", "nobody").replace("{secret}", "none").replace("{revision}", "1");
        path.replace("{id}", "7a1e0c9e-2f1b-4f0e-9d5a-000000000000")
    };
    // A new one each time, as some operations end it.
    let token = |caller| match caller {
        Caller::Nobody => String::new(),
        Caller::Expired => expired.clone(),
        Caller::Guest => mcias.login("gus"),
        Caller::User => mcias.login("ute"),
        Caller::System => system.clone(),
        Caller::Admin => mcias.login("ada"),
        Caller::StaleAdmin => {
            let token = mcias.login("ada");
            mcias.clock.pass(Duration::from_secs(16 * 60));
            token
        }
    };
    check(&mcias, path, token);
}

#[test]
fn every_operation_is_in_the_table_by_rest_and_by_grpc() {
    check_table(&Local::start(), mcias::app::operations());
}
