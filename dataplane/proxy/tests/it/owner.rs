//! Routes that have an owner: changes by others are refused, whatever way they come, unless they override it.

use mc_api::mcproxy as api;
use mc_testkit::proxy::{Config, Proxy};
use tonic::{Code, Status};

use crate::grpc::{Grpc, route};

const NAME: &str = "www.example.org";
const TO: &str = "192.0.2.1:443";

fn key() -> Option<api::RouteKey> {
    Some(api::RouteKey { listener: "web".into(), name: NAME.into(), alpn: String::new() })
}

/// Puts the route, to another backend each time.
fn add(client: &Grpc, to: &str, owner: &str, override_owner: bool) -> Result<api::Route, Status> {
    let request = api::AddRouteRequest {
        route: Some(route(NAME, to)),
        owner: owner.into(),
        override_owner,
        ..Default::default()
    };
    let put = client.call(|mut client| async move { client.add_route(request).await });
    put.map(|change| change.route.unwrap())
}

fn owned() -> (Proxy, Grpc) {
    let proxy = Proxy::start(Config::new().listener("web"));
    let client = Grpc::connect(&proxy.socket());
    assert_eq!(add(&client, TO, "plane", false).unwrap().owner, "plane");
    (proxy, client)
}

fn refused<T: std::fmt::Debug>(result: Result<T, Status>) {
    let status = result.expect_err("it is another's route");
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    for word in ["web/www.example.org", "`plane`", "override_owner", "--override-owner"] {
        assert!(status.message().contains(word), "no {word:?} in: {}", status.message());
    }
    assert_eq!(status.metadata().get("field").unwrap().as_bytes(), b"owner");
}

/// Every way to change the route, on behalf of `owner`.
fn every_way(client: &Grpc, owner: &str, each: impl Fn(Result<(), Status>)) {
    let owner = || owner.to_owned();
    each(add(client, "192.0.2.2:443", &owner(), false).map(drop));
    let update = api::UpdateRouteRequest {
        route: Some(api::Route { owner: "plane".into(), ..route(NAME, "192.0.2.3:443") }),
        owner: owner(),
        ..Default::default()
    };
    each(client.call(|mut client| async move { client.update_route(update).await }).map(drop));
    let hold = api::HoldRouteRequest { key: key(), hold_ms: 10, owner: owner(), ..Default::default() };
    each(client.call(|mut client| async move { client.hold_route(hold).await }).map(drop));
    let release = api::ReleaseRouteRequest { key: key(), owner: owner(), ..Default::default() };
    each(client.call(|mut client| async move { client.release_route(release).await }).map(drop));
    let other = api::Route { owner: "plane".into(), ..route(NAME, "192.0.2.4:443") };
    let replace =
        vec![api::ReplaceRoutesRequest { routes: vec![other], owner: owner(), ..Default::default() }];
    each(
        client
            .call(|mut client| async move { client.replace_routes(tokio_stream::iter(replace)).await })
            .map(drop),
    );
    let none = vec![api::ReplaceRoutesRequest { owner: owner(), ..Default::default() }];
    each(
        client
            .call(|mut client| async move { client.replace_routes(tokio_stream::iter(none)).await })
            .map(drop),
    );
    add(client, TO, "plane", false).unwrap();
    let remove = api::RemoveRouteRequest { key: key(), owner: owner(), ..Default::default() };
    each(client.call(|mut client| async move { client.remove_route(remove).await }).map(drop));
    add(client, TO, "plane", false).unwrap();
    let listener = api::RemoveListenerRequest {
        name: "web".into(),
        with_routes: true,
        owner: owner(),
        ..Default::default()
    };
    each(client.call(|mut client| async move { client.remove_listener(listener).await }).map(drop));
}

#[test]
fn only_its_owner_changes_a_route() {
    let (_proxy, client) = owned();
    for other in ["", "other"] {
        every_way(&client, other, refused);
    }
    assert_eq!(client.route_names(), [NAME]);
    every_way(&client, "plane", |done| done.unwrap());
    assert!(client.route_names().is_empty());
}

#[test]
fn what_stays_as_it_is_is_no_change_when_all_are_replaced() {
    let (_proxy, client) = owned();
    let same = api::Route { owner: "plane".into(), ..route(NAME, TO) };
    let routes = vec![same, route("other.example.org", TO)];
    let messages = vec![api::ReplaceRoutesRequest { routes, ..Default::default() }];
    let done =
        client.call(|mut client| async move { client.replace_routes(tokio_stream::iter(messages)).await });
    assert_eq!(done.unwrap().added, 1);
}

#[test]
fn an_owner_can_be_overridden_and_given_up() {
    let (_proxy, client) = owned();
    // Whoever overrides on behalf of nobody leaves a route that names no owner without one.
    assert_eq!(add(&client, "192.0.2.2:443", "", true).unwrap().owner, "");
    assert_eq!(add(&client, "192.0.2.3:443", "", false).unwrap().owner, "");
    assert_eq!(add(&client, "192.0.2.3:443", "other", false).unwrap().owner, "other");
    assert_eq!(add(&client, "192.0.2.3:443", "plane", true).unwrap().owner, "plane");
    let refused = add(&client, TO, "Not a name", true).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let long = "a".repeat(65);
    assert_eq!(add(&client, TO, &long, true).unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(add(&client, TO, &long[1..], true).unwrap().owner.len(), 64);
}

#[test]
fn the_command_line_changes_on_behalf_of_an_owner() {
    let lines = "backends = [{ address = \"192.0.2.1:443\" }]\nmode = \"l7\"\nowner = \"plane\"";
    let proxy = Proxy::start(Config::new().listener("web").route_lines("web", NAME, lines));
    let of = ["--listener", "web", "--name", NAME];
    let run = |words: &[&str]| proxy.ctl_output(&[words, &of, &["--yes"]].concat());
    let refused: [&[&str]; 6] = [
        &["route", "update", "--retries", "1"],
        &["route", "update", "--retries", "1", "--owner", "other"],
        &["route", "add", "--backend", TO, "--replace"],
        &["route", "remove"],
        &["route", "hold", "--for", "1s"],
        &["policy", "add", "tls-only", "--rule", "hsts={}"],
    ];
    for words in refused {
        let output = run(words);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{words:?}: {errors}");
        assert!(errors.contains("`plane`") && errors.contains("--override-owner"), "{errors}");
    }
    let done = |words: &[&str]| {
        let output = run(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        proxy.ctl(&["route", "list"])[0]["owner"].as_str().map(str::to_owned)
    };
    let plane = Some("plane".to_owned());
    assert_eq!(done(&["route", "update", "--retries", "1", "--owner", "plane"]), plane);
    assert_eq!(done(&["policy", "add", "tls-only", "--rule", "hsts={}", "--owner", "plane"]), plane);
    // Who overrides leaves it to its owner, unless he gives another.
    assert_eq!(done(&["policy", "dry-run", "tls-only", "--override-owner"]), plane);
    assert!(proxy.ctl_text(&["route", "list"]).contains("plane"));
    assert_eq!(done(&["route", "update", "--override-owner", "--owner", "ops"]), Some("ops".to_owned()));
    assert_eq!(done(&["route", "update", "--override-owner", "--owner", ""]), None);
    assert_eq!(done(&["route", "update", "--retries", "3"]), None);
    assert_eq!(done(&["route", "update", "--owner", "plane"]), plane);
    let output = run(&["route", "remove", "--owner", "plane"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
