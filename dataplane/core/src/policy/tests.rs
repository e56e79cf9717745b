//! What policies decide, one rule after the other.

use super::*;
use crate::http1::Known;

fn policies(toml: &str) -> Vec<Policy> {
    #[derive(serde::Deserialize)]
    struct File {
        policies: Vec<Policy>,
    }
    toml::from_str::<File>(toml).unwrap().policies
}

fn policy(rule: &str) -> Vec<Policy> {
    policies(&format!("[[policies]]\nname = 'p'\n{rule}"))
}

type Fields<'a> = Box<dyn Iterator<Item = FieldRef<'a>> + 'a>;

fn seen<'a>(
    method: &'a str,
    target: &'a str,
    fields: &'a [(&'a str, &'a str)],
) -> Seen<'a, impl Fn() -> Fields<'a>> {
    let fields = move || -> Fields<'a> {
        Box::new(fields.iter().map(|(name, value)| (Known::Other, name.as_bytes(), value.as_bytes())))
    };
    Seen { method: method.as_bytes(), target: target.as_bytes(), host: b"www.example.org", fields }
}

fn end(policies: &[Policy], method: &str, target: &str, fields: &[(&str, &str)]) -> Option<End> {
    decide(policies, &seen(method, target, fields), |_, _| true).end
}

#[test]
fn fields_are_required_and_blocked() {
    let required = policy("require_header = { name = 'X-Token', contains = 'Abc' }");
    assert_eq!(end(&required, "GET", "/", &[]), Some(End::Denied));
    assert_eq!(end(&required, "GET", "/", &[("x-token", "other")]), Some(End::Denied));
    assert_eq!(end(&required, "GET", "/", &[("x-token", "1"), ("x-token", "xABCx")]), None);
    let blocked = policy("block_header = { name = 'X-Debug' }");
    assert_eq!(end(&blocked, "GET", "/", &[("X-DEBUG", "")]), Some(End::Denied));
    assert_eq!(end(&blocked, "GET", "/", &[("X-Debugger", "")]), None);
    let agent = policy("block_user_agent = 'badbot'");
    assert_eq!(end(&agent, "GET", "/", &[("user-agent", "Mozilla BadBot/1")]), Some(End::Denied));
    assert_eq!(end(&agent, "GET", "/", &[("user-agent", "curl")]), None);
}

#[test]
fn methods_and_paths_are_limited() {
    let methods = policy("methods = ['GET', 'HEAD']");
    assert_eq!(end(&methods, "GET", "/", &[]), None);
    assert_eq!(end(&methods, "get", "/", &[]), Some(End::Method { allow: "GET, HEAD".into() }));
    let paths = policy("paths = ['/public', '/static/']");
    assert_eq!(end(&paths, "GET", "/public/x", &[]), None);
    assert_eq!(end(&paths, "GET", "//publ%69c", &[]), None);
    assert_eq!(end(&paths, "GET", "/publication", &[]), Some(End::NotFound));
    assert_eq!(end(&paths, "GET", "/public/../admin", &[]), Some(End::Ambiguous(AmbiguousPath::Dots)));
}

#[test]
fn a_path_cannot_be_dodged() {
    let admin = policy("path = '/admin'\nblock_header = { name = 'x' }");
    let fields = [("x", "1")];
    for target in ["/admin", "/admin/x?y", "//admin", "/%61dmin", "/admin%3Fx/.x"] {
        let expect = (target != "/admin%3Fx/.x").then_some(End::Denied);
        assert_eq!(end(&admin, "GET", target, &fields), expect, "{target}");
    }
    for target in ["/x/../admin", "/x/..;/admin", "/x%2fadmin", "/admin;x", "/admin%3bx", "/admin;x/y"] {
        assert!(matches!(end(&admin, "GET", target, &fields), Some(End::Ambiguous(_))), "{target}");
    }
    // Parameters that make no difference to what is decided are nobody's business here.
    for target in ["/shop;a=1", "/admin/x;a=1", "/x/admin;a"] {
        let expect = target.starts_with("/admin/").then_some(End::Denied);
        assert_eq!(end(&admin, "GET", target, &fields), expect, "{target}");
    }
    // A dry run refuses nothing.
    let dry = policy("path = '/admin'\ndry_run = true\nblock_header = { name = 'x' }");
    for target in ["/x/../admin", "/admin;x"] {
        assert_eq!(end(&dry, "GET", target, &fields), None, "{target}");
    }
    // Where nothing depends on the path, it is the backend's business.
    let everywhere = policy("block_header = { name = 'y' }");
    assert_eq!(end(&everywhere, "GET", "/x/../admin", &fields), None);
}

#[test]
fn rewrites_add_up_and_later_policies_see_them() {
    let list = policies(
        "[[policies]]\nname = 'a'\nrewrite = { prefix = '/api', to = '/v1' }\n\
         [[policies]]\nname = 'b'\npath = '/v1'\nrewrite = { prefix = '/v1/old', to = '/v1/new' }\n\
         [[policies]]\nname = 'c'\npath = '/api'\nmethods = ['PUT']",
    );
    let decision = decide(&list, &seen("GET", "/api/old/x?q", &[]), |_, _| true);
    assert_eq!(decision.target.as_deref(), Some(b"/v1/new/x?q".as_slice()));
    assert_eq!(decision.end, None);
    assert_eq!(decision.applied.places().collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn redirects_say_where() {
    let check = |to: &str, target: &str, expect: &str| {
        let redirect = policy(&format!("redirect = {{ to = '{to}', status = 308 }}"));
        let expect = End::Redirect { status: 308, location: expect.to_owned() };
        assert_eq!(end(&redirect, "GET", target, &[]), Some(expect));
    };
    check("https://new.example.org{path}{query}", "/a/b?c=d", "https://new.example.org/a/b?c=d");
    check("https://{host}/x{query}", "/a", "https://www.example.org/x");
    check("/new?from={path}&{braces}", "/a", "/new?from=/a&{braces}");
}

#[test]
fn a_dry_run_changes_nothing_and_is_counted() {
    let list = policies(
        "[[policies]]\nname = 'a'\ndry_run = true\nmethods = ['PUT']\n\
         [[policies]]\nname = 'b'\ndry_run = true\nrewrite = { prefix = '/', to = '/x' }\n\
         [[policies]]\nname = 'c'\nblock_header = { name = 'absent' }",
    );
    let decision = decide(&list, &seen("GET", "/", &[]), |_, _| true);
    assert_eq!((decision.end, decision.target), (None, None));
    assert_eq!(decision.dry.places().collect::<Vec<_>>(), [0, 1]);
    assert!(decision.applied.is_empty());
}

#[test]
fn rates_ask_for_a_token_once_for_each_request_that_they_are_for() {
    let list = policies(
        "[[policies]]\nname = 'login'\npath = '/login'\nrate = { requests = 5, per_s = 60 }\n\
         [[policies]]\nname = 'all'\nrate = { requests = 100 }",
    );
    let mut asked = Vec::new();
    let decision = decide(&list, &seen("GET", "/login", &[]), |index, _| {
        asked.push(index);
        false
    });
    assert_eq!(decision.end, Some(End::Rate { retry_after_s: 12 }));
    assert_eq!(asked, [0], "the request has ended");
    asked.clear();
    decide(&list, &seen("GET", "/", &[]), |index, _| {
        asked.push(index);
        true
    });
    assert_eq!(asked, [1]);
}

#[test]
fn what_is_about_the_response_applies_to_refusals_too() {
    let list = policies(
        "[[policies]]\nname = 'a'\nmethods = ['PUT']\n\
         [[policies]]\nname = 'b'\nhsts = { include_subdomains = true }\n\
         [[policies]]\nname = 'c'\nrequest_headers = { remove = ['x'] }\n\
         [[policies]]\nname = 'd'\nerror_page = { statuses = [405], body = 'no' }",
    );
    let decision = decide(&list, &seen("GET", "/", &[]), |_, _| true);
    assert_eq!(decision.applied.places().collect::<Vec<_>>(), [0, 1, 3]);
    assert_eq!(decision.applied.error_page(&list, 405).unwrap().body, "no");
    assert_eq!(decision.applied.error_page(&list, 502), None);
    let edits = Edits::of_response(decision.applied, &list);
    let added: Vec<_> = edits.added().collect();
    let expect = (b"strict-transport-security".as_slice(), b"max-age=31536000; includeSubDomains".as_slice());
    assert_eq!(added, [expect]);
    assert!(!edits.keeps(b"Strict-Transport-Security"));
}

#[test]
fn the_last_edit_of_a_field_counts() {
    let list = policies(
        "[[policies]]\nname = 'a'\nresponse_headers = { set = { X-A = '1', X-B = '1' }, remove = ['Server'] }\n\
         [[policies]]\nname = 'b'\nresponse_headers = { set = { x-a = '2' }, remove = ['x-b'] }",
    );
    let decision = decide(&list, &seen("GET", "/", &[]), |_, _| true);
    let edits = Edits::of_response(decision.applied, &list);
    assert_eq!(edits.added().collect::<Vec<_>>(), [(b"x-a".as_slice(), b"2".as_slice())]);
    for (name, kept) in [("server", false), ("X-a", false), ("x-B", false), ("date", true)] {
        assert_eq!(edits.keeps(name.as_bytes()), kept, "{name}");
    }
}

#[test]
fn backends_are_found_by_the_longest_path() {
    let backend = |path: &str| -> Backend {
        serde_json::from_value(serde_json::json!({ "address": "192.0.2.1:80", "path": path })).unwrap()
    };
    let backends = [backend(""), backend("/api"), backend("/api/v2")];
    let check =
        |target: &str, expect| assert_eq!(backend_path(&backends, target.as_bytes()), expect, "{target}");
    check("/", Ok(Some("")));
    check("/api?x", Ok(Some("/api")));
    check("/api/v2/x", Ok(Some("/api/v2")));
    check("/apiary", Ok(Some("")));
    check("/x/../api", Err(AmbiguousPath::Dots));
    assert_eq!(backend_path(&backends[1..], b"/"), Ok(None));
    assert_eq!(backend_path(&backends[..1], b"/x/../api"), Ok(Some("")));
}

#[test]
fn clients_are_rated_by_address_or_64() {
    let check = |a: &str, b: &str, same| {
        assert_eq!(rated(a.parse().unwrap()) == rated(b.parse().unwrap()), same, "{a} {b}");
    };
    check("192.0.2.1", "192.0.2.2", false);
    check("192.0.2.1", "::ffff:192.0.2.1", true);
    check("2001:db8::1", "2001:db8::2", true);
    check("2001:db8::1", "2001:db8:0:1::1", false);
}
