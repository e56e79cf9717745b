//! The page "reference" against the code, in both directions: outcomes, fields of the access log, metrics, messages.

use std::collections::{BTreeMap, BTreeSet};

use mc_core::outcome::{Outcome, RequestOutcome};
use mc_testkit::ca::Ca;
use mc_testkit::fresh_address;
use mc_testkit::http::{Client, Origin, Then};
use mc_testkit::proxy::{Config, Proxy};

use super::http1::{NAME, OK, get};

const PAGE: &str = include_str!("../../../../docs/mc-proxy-reference.md");

/// The rows of the table below a heading: its cells, without the first row and the line below it.
fn rows(heading: &str) -> Vec<Vec<&'static str>> {
    let (_, rest) = PAGE.split_once(&format!("\n{heading}\n")).unwrap();
    let lines =
        rest.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    lines.skip(2).map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// The first column, without the marks of code.
fn names(heading: &str) -> BTreeSet<&'static str> {
    rows(heading).iter().map(|cells| cells[0].trim_matches('`')).collect()
}

#[test]
fn every_outcome_is_explained() {
    let of_code = Outcome::ALL.map(Outcome::as_str);
    assert_eq!(names("## Outcomes of connections"), of_code.into());
    let of_code = RequestOutcome::ALL.map(RequestOutcome::as_str);
    assert_eq!(names("## Outcomes of requests"), of_code.into());
    for cells in rows("## Outcomes of requests") {
        let Some(status) = cells[1].parse::<u16>().ok() else { continue };
        let outcome =
            RequestOutcome::ALL.into_iter().find(|it| it.as_str() == cells[0].trim_matches('`')).unwrap();
        assert_eq!(status, outcome.status(), "{}", cells[0]);
    }
}

/// The types of all metrics that a proxy serves, and the labels of their samples.
fn served(proxy: &Proxy) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let text = proxy.metrics();
    let mut families = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE mcproxy_")) {
        let (name, kind) = line.split_once(' ').unwrap();
        families.insert(format!("mcproxy_{name}"), (kind.to_owned(), BTreeSet::new()));
    }
    for line in text.lines().filter(|line| line.starts_with("mcproxy_")) {
        let Some((name, rest)) = line.split_once('{') else { continue };
        let name =
            ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        let (labels, _) = rest.rsplit_once('}').unwrap();
        let labels = labels.split(',').filter_map(|label| Some(label.split_once("=\"")?.0.to_owned()));
        if let Some((_, known)) = families.get_mut(name) {
            known.extend(labels);
        }
    }
    families
}

#[test]
fn every_identity_field_is_listed() {
    assert_eq!(names("## Identity fields"), mc_core::http1::identity_fields().collect());
}

#[test]
fn every_metric_is_explained_with_its_type_and_labels() {
    let ca = Ca::new();
    let origin = Origin::saying(OK, Then::Keep);
    let config = Config::new().listener("web").certificate("www", &ca.issue(&[NAME]));
    let policy = "mode = \"l7\"\n[[routes.http.policies]]\nname = \"p\"\nmethods = [\"GET\"]\n[routes.check]\nkind = \"tcp\"";
    // An interface that is not there: the metrics of the kernel's half are there all the same.
    let config =
        config.toml("[xdp]\ninterfaces = [\"nowhere\"]").route_with(NAME, &[origin.address()], policy);
    let proxy = Proxy::start(config);
    let tls = mc_testkit::client::Request::new(&ca, proxy.web(), NAME).alpn(&["http/1.1"]).open().unwrap();
    let mut client = Client::on(tls);
    assert_eq!(client.ask(get("/")).status(), 200);
    drop(client);
    proxy.wait_metric("mcproxy_route_connections_total", &[], 1.0);

    let served = served(&proxy);
    let page: BTreeMap<&str, Vec<&str>> =
        rows("## Metrics").into_iter().map(|cells| (cells[0].trim_matches('`'), cells)).collect();
    for (name, (kind, labels)) in &served {
        let row = page.get(name.as_str()).unwrap_or_else(|| panic!("{name} is not in the reference"));
        assert_eq!(row[1], kind, "{name}");
        let explained: BTreeSet<String> = row[2]
            .split(", ")
            .map(|label| label.trim_matches('`').to_owned())
            .filter(|it| !it.is_empty())
            .collect();
        assert_eq!(explained, *labels, "labels of {name}");
    }
    let source = include_str!("../../src/metrics.rs");
    for name in page.keys() {
        // Some are there only where the kernel has the firewall.
        let exists = served.contains_key(*name)
            || (name.starts_with("mcproxy_xdp_") && source.contains(&format!("\"{name}\"")));
        assert!(exists, "{name} is in the reference, and not in the code");
    }
    let in_source =
        source.split('"').filter(|word| word.starts_with("mcproxy_") && !word.contains(['{', ' ']));
    for name in in_source {
        assert!(page.contains_key(name), "{name} is not in the reference");
    }
}

#[test]
fn every_message_that_is_named_exists() {
    let proto = include_str!("../../../../control/api/proto/mcproxy.proto");
    for cells in rows("## JSON of mcproxyctl") {
        let message = cells[1].split('`').nth(1).unwrap();
        assert!(proto.contains(&format!("message {message} {{")), "{message} of `{}`", cells[0]);
    }
}

#[test]
fn certificate_state_has_the_fields_that_programs_are_promised() {
    let proxy =
        Proxy::start(Config::new().listener("web").certificate("www", &Ca::new().issue(&[NAME])).route_with(
            NAME,
            &[fresh_address()],
            "mode = \"l7\"",
        ));
    let listed = proxy.ctl(&["certificate", "list"]);
    let proto = include_str!("../../../../control/api/proto/mcproxy.proto");
    let (_, message) = proto.split_once("message CertificateState {").unwrap();
    let (message, _) = message.split_once("\n}").unwrap();
    let fields: BTreeSet<&str> =
        message.lines().filter_map(|line| line.split(" = ").next()?.split(' ').next_back()).collect();
    let fields: BTreeSet<&str> = fields.into_iter().filter(|field| !field.is_empty()).collect();
    let printed: BTreeSet<&str> = listed[0].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(printed, fields);
}
