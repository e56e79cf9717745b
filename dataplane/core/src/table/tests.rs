//! The table against a linear list, its wildcards, and what a change copies.

use super::*;
use proptest::prelude::*;
use proptest::sample::select;

/// Routes of listener 1, as `name` or `name#alpn`; `**.parent` for any depth. The value is the index.
fn table(routes: &[&str]) -> RouteTable<usize> {
    let mut table = RouteTable::new();
    for (index, route) in routes.iter().enumerate() {
        let (name, alpn) = route.split_once('#').unwrap_or((route, ""));
        let any_depth = name.starts_with("**");
        assert_eq!(
            table.insert(
                1,
                name.strip_prefix("*").filter(|_| any_depth).unwrap_or(name),
                alpn,
                any_depth,
                index
            ),
            None
        );
    }
    table
}

/// What a client finds that asks for `name#alpn,alpn`, or for no name: `#alpn`.
fn check(routes: &[&str], ask: &str, expect: Option<&str>) {
    let (name, alpn) = ask.split_once('#').unwrap_or((ask, ""));
    let name = Some(name).filter(|name| !name.is_empty());
    let offers = alpn.split(',').filter(|offer| !offer.is_empty()).map(str::as_bytes);
    let table = table(routes);
    assert_eq!(
        table.lookup(1, name, offers.clone()).map(|index| routes[*index]),
        expect,
        "{ask} among {routes:?}"
    );
    assert_eq!(table.lookup(2, name, offers), None, "on another listener");
}

#[test]
fn exact_comes_before_wildcard_before_default() {
    let routes = ["a.example.org", "*.example.org", "**.org", "*"];
    check(&routes, "a.example.org", Some("a.example.org"));
    check(&routes, "b.example.org", Some("*.example.org"));
    check(&routes, "a.b.example.org", Some("**.org"));
    check(&routes, "example.org", Some("**.org"));
    check(&routes, "org", Some("*"));
    check(&routes, "example.com", Some("*"));
    check(&routes, "", Some("*"));
    check(&routes[..3], "example.com", None);
    check(&routes[..3], "", None);
}

#[test]
fn a_star_stands_for_one_label_unless_it_says_more() {
    check(&["*.example.org"], "a.example.org", Some("*.example.org"));
    check(&["*.example.org"], "a.b.example.org", None);
    check(&["*.example.org"], "example.org", None);
    check(&["*.example.org"], "xexample.org", None);
    check(&["**.example.org"], "a.example.org", Some("**.example.org"));
    check(&["**.example.org"], "a.b.c.example.org", Some("**.example.org"));
    check(&["**.example.org"], "example.org", None);
    check(&["**.example.org", "*.b.example.org"], "a.b.example.org", Some("*.b.example.org"));
    check(&["**.example.org", "**.b.example.org"], "a.c.b.example.org", Some("**.b.example.org"));
}

#[test]
fn a_client_cannot_ask_for_a_pattern() {
    check(&["*.example.org", "*"], "*", Some("*"));
    check(&["*.example.org"], "*", None);
    check(&["**.b.example.org", "*.example.org"], "*.b.example.org", Some("**.b.example.org"));
}

#[test]
fn alpn_routes_come_first_in_the_clients_order_and_fall_through() {
    let routes = ["a.org", "a.org#h2", "a.org#acme-tls/1", "b.org#h2", "*.org", "*#h3"];
    check(&routes, "a.org", Some("a.org"));
    check(&routes, "a.org#http/1.1", Some("a.org"));
    check(&routes, "a.org#h2,acme-tls/1", Some("a.org#h2"));
    check(&routes, "a.org#x,acme-tls/1,h2", Some("a.org#acme-tls/1"));
    check(&routes, "b.org#h2", Some("b.org#h2"));
    check(&routes, "b.org#http/1.1", Some("*.org"));
    check(&routes, "x.com#h2", None);
    check(&routes, "x.com#h2,h3", Some("*#h3"));
    check(&routes, "#h3", Some("*#h3"));
}

#[test]
fn one_parent_may_have_routes_of_either_depth() {
    let routes = ["*.a.org#h2", "**.a.org"];
    check(&routes, "x.a.org#h2", Some("*.a.org#h2"));
    check(&routes, "x.a.org", Some("**.a.org"));
    check(&routes, "x.y.a.org#h2", Some("**.a.org"));
}

#[test]
fn a_replaced_or_removed_route_is_gone_with_its_depth() {
    let mut table = table(&["*.a.org"]);
    assert_eq!(table.insert(1, "*.a.org", "", true, 7), Some(0));
    assert_eq!(table.lookup(1, Some("x.y.a.org"), std::iter::empty()), Some(&7));
    assert_eq!(table.insert(1, "*.a.org", "", false, 8), Some(7));
    assert_eq!(table.lookup(1, Some("x.y.a.org"), std::iter::empty()), None);
    assert_eq!(table.len(), 1);
    assert_eq!(table.remove(1, "*.a.org", "h2"), None);
    assert_eq!(table.remove(1, "*.a.org", ""), Some(8));
    assert_eq!(table.remove(1, "*.a.org", ""), None);
    assert_eq!((table.len(), table.wildcards.len(), table.iter().count()), (0, 0, 0));
}

#[test]
fn a_change_leaves_clones_alone_and_shares_all_but_one_shard() {
    let names: Vec<String> = (0..10_000).map(|i| format!("host-{i}.example.org")).collect();
    let before: RouteTable<usize> = names
        .iter()
        .enumerate()
        .map(|(value, name)| Row { listener: 1, name, alpn: "", any_depth: false, value })
        .collect();
    let mut after = before.clone();
    assert_eq!(after.insert(1, "new.example.org", "", false, 1), None);
    assert_eq!(copied(&before, &after), (1, 1));
    assert_eq!(before.get(1, "new.example.org", ""), None);
    assert_eq!((before.len(), after.len()), (10_000, 10_001));

    let mut removed = after.clone();
    assert_eq!(removed.remove(1, "not.there", ""), None);
    assert_eq!(copied(&after, &removed), (0, 0));
    assert_eq!(removed.remove(1, "new.example.org", ""), Some(1));
    assert_eq!(copied(&after, &removed), (1, 1));
    assert_eq!(after.get(1, "new.example.org", ""), Some(&1));
}

/// Nodes and shards that two tables do not share.
fn copied<T>(a: &RouteTable<T>, b: &RouteTable<T>) -> (usize, usize) {
    let nodes = || a.root.0.iter().zip(&b.root.0).filter(|(a, b)| !Arc::ptr_eq(a, b));
    let shards = nodes().flat_map(|(a, b)| a.0.iter().zip(&b.0)).filter(|(a, b)| !Arc::ptr_eq(a, b));
    (nodes().count(), shards.count())
}

#[test]
fn equal_orders_are_told_apart_by_their_text() {
    let mut shard = Shard::default();
    let row = |name, value| Row { listener: 1, name, alpn: "", any_depth: false, value };
    for (value, (order, name)) in
        [(9, "a"), (9, "b"), (u32::MAX, "c"), (0, "d"), (9, "e")].into_iter().enumerate()
    {
        assert!(shard.insert(order, row(name, value)).is_none());
    }
    let value = |order, name| {
        shard.position(order, Key { listener: 1, name, alpn: "" }).map(|index| *shard.row(index).value)
    };
    assert_eq!(["a", "b", "e"].map(|name| value(9, name)), [Some(0), Some(1), Some(4)]);
    let chosen =
        |listener, name| shard.choose(9, listener, Level::Exact(name), false, &std::iter::empty()).copied();
    assert_eq!((chosen(1, "b"), chosen(2, "b"), chosen(1, "c")), (Some(1), None, None));
    assert_eq!(
        (value(u32::MAX, "c"), value(0, "d"), value(1, "d"), value(9, "c")),
        (Some(2), Some(3), None, None)
    );
}

/// A route as a test has it: listener, name, ALPN, depth.
type Plain = (u32, String, String, bool);

/// The specification: every route is tried on its own, and the best rank wins.
fn reference(routes: &[Plain], listener: u32, name: Option<&str>, offers: &[&str]) -> Option<usize> {
    let rank = |route: &Plain| {
        let (_, pattern, alpn, any_depth) = route;
        let level = match (pattern.as_str(), name) {
            ("*", _) => 1000,
            (_, None) => return None,
            (pattern, Some(name)) if pattern == name => 0,
            (pattern, Some(name)) => {
                let star = name.strip_suffix(pattern.strip_prefix('*')?).filter(|star| !star.is_empty())?;
                let labels = star.split('.').count();
                if labels > 1 && !any_depth {
                    return None;
                }
                labels
            }
        };
        let offer = match alpn.as_str() {
            "" => usize::MAX,
            alpn => offers.iter().position(|offer| *offer == alpn)?,
        };
        Some((level, offer))
    };
    let mine = routes.iter().enumerate().filter(|(_, route)| route.0 == listener);
    mine.filter_map(|(index, route)| Some((rank(route)?, index))).min().map(|(_, index)| index)
}

fn names() -> impl Strategy<Value = String> {
    prop::collection::vec(select(vec!["a", "b", "ab"]), 1..5).prop_map(|labels| labels.join("."))
}

fn patterns() -> impl Strategy<Value = String> {
    prop_oneof![names(), names().prop_map(|name| format!("*.{name}")), Just("*".to_owned())]
}

fn protocols() -> impl Strategy<Value = String> {
    select(vec!["", "h2", "h3"]).prop_map(str::to_owned)
}

fn plains() -> impl Strategy<Value = Vec<Plain>> {
    prop::collection::vec((1..3_u32, patterns(), protocols(), any::<bool>()), 0..40).prop_map(|mut routes| {
        let mut seen = std::collections::HashSet::new();
        routes.retain(|(listener, name, alpn, _)| seen.insert((*listener, name.clone(), alpn.clone())));
        routes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn finds_what_a_linear_search_finds(
        routes in plains(),
        removed in prop::collection::vec(any::<bool>(), 40),
        asks in prop::collection::vec((1..3_u32, prop::option::of(names()), protocols(), protocols()), 1..20),
    ) {
        // Half goes in one by one, half in bulk; then some are replaced by themselves and some removed.
        let mut table = RouteTable::new();
        let row = |value: usize| {
            let (listener, name, alpn, any_depth) = &routes[value];
            Row { listener: *listener, name, alpn, any_depth: *any_depth, value }
        };
        let half = routes.len() / 2;
        for Row { listener, name, alpn, any_depth, value } in (0..half).map(row) {
            prop_assert_eq!(table.insert(listener, name, alpn, !any_depth, 99), None);
            prop_assert_eq!(table.insert(listener, name, alpn, any_depth, value), Some(99));
        }
        table.extend((half..routes.len()).map(row));
        prop_assert_eq!(table.len(), routes.len());
        compare(&table, &routes, &asks)?;

        let mut kept = routes.clone();
        for (value, _) in routes.iter().enumerate().filter(|(value, _)| removed[*value]) {
            let Row { listener, name, alpn, .. } = row(value);
            prop_assert_eq!(table.remove(listener, name, alpn), Some(value));
            kept[value].0 = 0; // a listener that nobody asks for
        }
        compare(&table, &kept, &asks)?;
        let mut values: Vec<_> = table.iter().map(|row| *row.value).collect();
        values.sort_unstable();
        let expect: Vec<_> = (0..routes.len()).filter(|value| !removed[*value]).collect();
        prop_assert_eq!(values, expect);
    }

    #[test]
    fn bulk_keeps_the_last_of_equal_keys(values in prop::collection::vec(0..4_usize, 1..30)) {
        let names = ["a", "b", "*.a", "*"];
        let rows = values.iter().enumerate();
        let rows = rows.map(|(value, name)| Row { listener: 1, name: names[*name], alpn: "", any_depth: false, value });
        let table: RouteTable<usize> = rows.collect();
        for (index, name) in names.iter().enumerate() {
            prop_assert_eq!(table.get(1, name, "").copied(), values.iter().rposition(|value| *value == index));
        }
    }
}

fn compare(
    table: &RouteTable<usize>,
    routes: &[Plain],
    asks: &[(u32, Option<String>, String, String)],
) -> Result<(), TestCaseError> {
    for (listener, name, first, second) in asks {
        let offers: Vec<_> =
            [first.as_str(), second.as_str()].into_iter().filter(|alpn| !alpn.is_empty()).collect();
        let found = table.lookup(*listener, name.as_deref(), offers.iter().map(|offer| offer.as_bytes()));
        prop_assert_eq!(found.copied(), reference(routes, *listener, name.as_deref(), &offers));
    }
    for (value, (listener, name, alpn, _)) in routes.iter().enumerate().filter(|(_, route)| route.0 != 0) {
        prop_assert_eq!(table.get(*listener, name, alpn), Some(&value));
    }
    Ok(())
}
