//! Changes: what they do, that they are durable, and that one that fails did nothing.

use tokio::net::{TcpListener, TcpStream};

use super::*;
use mcdsl::chain;

#[tokio::test]
async fn the_same_route_again_is_no_change() {
    let site = Site::new(&[]).await;
    let put = site.admin.put_route(route("A.example.org.", "192.0.2.1:443"), Existing::Any).await.unwrap();
    assert_eq!((put.revision, put.created, put.changed), (2, true, true));
    assert_eq!(put.route, route("a.example.org", "192.0.2.1:443"));
    let again = site.admin.put_route(route("a.example.org", "192.0.2.1:443"), Existing::Any).await.unwrap();
    assert_eq!(again, RoutePut { created: false, changed: false, ..put });
    let other = site.admin.put_route(route("a.example.org", "192.0.2.2:443"), Existing::Any).await.unwrap();
    assert_eq!((other.revision, other.created, other.changed), (3, false, true));
    assert_eq!(site.revision(), 3);
    assert_eq!(site.lookup("a.example.org").unwrap().spec, other.route);
}

#[tokio::test]
async fn what_a_route_has_counted_survives_its_update() {
    let site = Site::new(&["a.example.org", "b.example.org"]).await;
    let before = site.lookup("a.example.org").unwrap();
    before.live.counters().begun();
    site.admin.put_route(route("a.example.org", "192.0.2.2:443"), Existing::Some(None)).await.unwrap();
    let after = site.lookup("a.example.org").unwrap();
    assert!(Arc::ptr_eq(&before.live, &after.live));
    assert!(!after.live.is_removed());
    let error = site
        .admin
        .put_route(route("c.example.org", "192.0.2.2:443"), Existing::Some(None))
        .await
        .unwrap_err();
    assert!(matches!(error, ChangeError::NoRoute(unknown) if unknown == key("c.example.org")));
}

#[tokio::test]
async fn backends_are_shared_and_go_with_their_last_route() {
    let site = Site::new(&["a.example.org", "b.example.org"]).await;
    let (a, b) = (site.lookup("a.example.org").unwrap(), site.lookup("b.example.org").unwrap());
    assert!(Arc::ptr_eq(&a.backends[0].live, &b.backends[0].live));
    let used = || {
        site.admin.backends().iter().map(|used| (used.address.to_string(), used.routes)).collect::<Vec<_>>()
    };
    assert_eq!(used(), [("192.0.2.1:443".to_owned(), 2)]);
    site.admin.put_route(route("a.example.org", "192.0.2.2:443"), Existing::Some(None)).await.unwrap();
    assert_eq!(used(), [("192.0.2.1:443".to_owned(), 1), ("192.0.2.2:443".to_owned(), 1)]);
    site.admin.remove_route(key("a.example.org"), false).await.unwrap();
    site.admin.replace_routes(vec![route("b.example.org", "192.0.2.3:443")], None, false).await.unwrap();
    assert_eq!(used(), [("192.0.2.3:443".to_owned(), 1)]);
}

#[tokio::test]
async fn a_drain_survives_restarts_and_the_backends_routes() {
    let site = Site::new(&["a.example.org"]).await;
    let backend = "192.0.2.1:443".parse().unwrap();
    site.admin.drain_backend(backend, true, false).await.unwrap();
    assert!(site.lookup("a.example.org").unwrap().backends[0].live.draining());
    let revision = site.revision();
    assert_eq!(site.admin.drain_backend(backend, true, false).await.unwrap().0, revision, "no change");
    let site = site.restart(Seed::default()).await;
    assert!(site.lookup("a.example.org").unwrap().backends[0].live.draining());
    site.admin.remove_route(key("a.example.org"), false).await.unwrap();
    assert_eq!(site.admin.backends().len(), 1);
    site.admin.put_route(route("b.example.org", "192.0.2.1:443"), Existing::Any).await.unwrap();
    assert!(site.lookup("b.example.org").unwrap().backends[0].live.draining());
    site.admin.drain_backend(backend, false, false).await.unwrap();
    assert!(!site.lookup("b.example.org").unwrap().backends[0].live.draining());
    let unknown = site.admin.drain_backend("192.0.2.9:1".parse().unwrap(), true, false).await;
    assert!(matches!(unknown, Err(ChangeError::NoBackend(_))));
}

#[tokio::test]
async fn a_removed_route_is_marked_only_when_its_connections_are_to_be_closed() {
    let site = Site::new(&["a.example.org", "b.example.org"]).await;
    let (a, b) = (site.lookup("a.example.org").unwrap(), site.lookup("b.example.org").unwrap());
    assert_eq!(site.admin.remove_route(key("A.example.org."), false).await.unwrap(), (2, true, 0));
    assert_eq!(site.admin.remove_route(key("b.example.org"), true).await.unwrap(), (3, true, 0));
    assert_eq!((a.live.is_removed(), b.live.is_removed()), (false, true));
    assert!(site.lookup("a.example.org").is_none() && site.lookup("b.example.org").is_none());
    assert_eq!(site.admin.remove_route(key("b.example.org"), true).await.unwrap(), (3, false, 0));
}

#[tokio::test]
async fn all_routes_are_replaced_at_once() {
    let site = Site::new(&["a.example.org", "b.example.org", "c.example.org"]).await;
    let (a, b) = (site.lookup("a.example.org").unwrap(), site.lookup("b.example.org").unwrap());
    let next = || {
        vec![
            route("d.example.org", "192.0.2.4:443"),
            route("b.example.org", "192.0.2.2:443"),
            route("a.example.org", "192.0.2.1:443"),
        ]
    };
    let wrong = site.admin.replace_routes(next(), Some(0), true).await.unwrap_err();
    assert!(matches!(wrong, ChangeError::Revision { expected: 0, current: 1 }));
    let done = site.admin.replace_routes(next(), Some(1), true).await.unwrap();
    assert_eq!(done, RoutesReplaced { revision: 2, added: 1, updated: 1, removed: 1 });
    assert_eq!(site.names(), ["a.example.org", "b.example.org", "d.example.org"]);
    assert!(Arc::ptr_eq(&site.lookup("a.example.org").unwrap(), &a), "what stays is not even built again");
    assert!(Arc::ptr_eq(&site.lookup("b.example.org").unwrap().live, &b.live));
    assert!(site.lookup("c.example.org").is_none());
    assert_eq!(site.admin.routes_of("web"), 3);
    let again = site.admin.replace_routes(next(), None, false).await.unwrap();
    assert_eq!(again, RoutesReplaced { revision: 2, ..Default::default() });

    let twice = vec![route("x.example.org", "192.0.2.1:1"), route("X.example.org", "192.0.2.1:1")];
    let error = site.admin.replace_routes(twice, None, false).await.unwrap_err().to_string();
    assert!(error.starts_with("routes[1].name: "), "{error}");
    let lost = Route { listener: "wbe".to_owned(), ..route("x.example.org", "192.0.2.1:1") };
    let error = site.admin.replace_routes(vec![lost], None, false).await.unwrap_err().to_string();
    assert!(error.starts_with("routes[0].listener: "), "{error}");
    assert_eq!((site.revision(), site.names().len()), (2, 3));
}

#[tokio::test]
async fn a_listener_with_routes_goes_only_together_with_them() {
    let site = Site::new(&["a.example.org", "b.example.org"]).await;
    site.admin.put_listener(listener("api", "127.0.0.1:0"), Existing::Any).await.unwrap();
    let other = Route { listener: "api".to_owned(), ..route("a.example.org", "192.0.2.7:1") };
    site.admin.put_route(other.clone(), Existing::Any).await.unwrap();
    let address = site.address("web");
    assert!(TcpStream::connect(address).await.is_ok());
    let error = site.admin.remove_listener("web".to_owned(), false, false).await.unwrap_err();
    assert!(matches!(error, ChangeError::HasRoutes { routes: 2, .. }));
    assert!(TcpStream::connect(address).await.is_ok());
    site.admin.remove_listener("web".to_owned(), true, true).await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
    assert_eq!(site.admin.routes_after(None, 9).iter().map(|e| e.spec.clone()).collect::<Vec<_>>(), [other]);
    assert_eq!(site.admin.snapshot().route_count, 1);
    let error = site.admin.remove_listener("web".to_owned(), true, true).await.unwrap_err();
    assert!(matches!(error, ChangeError::NoListener(_)));
}

#[tokio::test]
async fn a_listener_keeps_its_sockets_while_its_address_stays() {
    let site = Site::new(&["a.example.org"]).await;
    let address = site.address("web");
    let id = |site: &Site| site.admin.snapshot().listeners[0].id;
    let before = id(&site);
    let slower = Listener { hello_timeout_ms: 5, ..listener("web", "127.0.0.1:0") };
    let put = site.admin.put_listener(slower.clone(), Existing::Any).await.unwrap();
    assert_eq!((put.created, put.listener.address, id(&site)), (false, address, before));
    assert_eq!(site.admin.snapshot().listeners[0].spec.hello_timeout_ms, 5);
    assert_eq!(
        site.admin.put_listener(slower.clone(), Existing::Any).await.unwrap().revision,
        put.revision,
        "no change"
    );

    let free = TcpListener::bind("127.0.0.2:0").await.unwrap().local_addr().unwrap();
    site.admin.put_listener(Listener { address: free, ..slower }, Existing::Any).await.unwrap();
    assert_eq!((site.address("web"), id(&site)), (free, before));
    assert!(TcpStream::connect(free).await.is_ok());
    assert!(TcpStream::connect(address).await.is_err());
    assert!(site.lookup("a.example.org").is_some());
}

#[tokio::test]
async fn an_address_that_cannot_be_had_changes_nothing() {
    let site = Site::new(&[]).await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut errors = Vec::new();
    for address in [taken.local_addr().unwrap().to_string(), "192.0.2.1:443".to_owned()] {
        errors.push(chain(
            &site.admin.put_listener(listener("api", &address), Existing::Any).await.unwrap_err(),
        ));
        errors.push(chain(
            &site.admin.put_listener(listener("web", &address), Existing::Any).await.unwrap_err(),
        ));
    }
    assert!(
        errors[0].starts_with("listener `api` cannot be opened: 127.0.0.1:")
            && errors[0].contains("is in use"),
        "{errors:?}"
    );
    assert!(errors[2].contains("192.0.2.1 is not an address of this machine"), "{errors:?}");
    let other = site.admin.put_listener(listener("b", "127.0.0.3:0"), Existing::Any).await.unwrap();
    let address = TcpListener::bind("127.0.0.3:0").await.unwrap().local_addr().unwrap().to_string();
    site.admin.put_listener(listener("c", &address), Existing::Any).await.unwrap();
    let same = site.admin.put_listener(listener("d", &address), Existing::Any).await.unwrap_err();
    assert!(matches!(same, ChangeError::AddressTaken { name, .. } if name == "c"));
    assert_eq!(site.revision(), other.revision + 1);
}

#[tokio::test]
async fn what_cannot_be_stored_is_not_done() {
    let site = Site::new(&["a.example.org"]).await;
    let before = site.admin.snapshot();
    site.broken.store(true, Ordering::Relaxed);
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let admin = &site.admin;
    let backend = "192.0.2.1:443".parse().unwrap();
    let moved = listener("web", &free.to_string());
    let errors = [
        admin.put_route(route("b.example.org", "192.0.2.2:1"), Existing::Any).await.map(drop),
        admin.put_route(route("a.example.org", "192.0.2.2:1"), Existing::Some(None)).await.map(drop),
        admin.remove_route(key("a.example.org"), true).await.map(drop),
        admin.replace_routes(vec![], None, true).await.map(drop),
        admin.put_listener(listener("api", &free.to_string()), Existing::Any).await.map(drop),
        admin.put_listener(moved, Existing::Any).await.map(drop),
        admin.remove_listener("web".to_owned(), true, true).await.map(drop),
        admin
            .set_firewall(Firewall { default: mc_core::model::Action::Deny, ..Default::default() }, None)
            .await
            .map(drop),
        admin.add_rule(rule("deny", "192.0.2.0/24")).await.map(drop),
        admin.drain_backend(backend, true, true).await.map(drop),
    ];
    for error in errors {
        let text = chain(&error.unwrap_err());
        assert!(
            text.starts_with("the change could not be stored, and was not made: no space left"),
            "{text}"
        );
    }
    assert!(Arc::ptr_eq(&before, &site.admin.snapshot()), "not even published anew");
    assert_eq!(site.names(), ["a.example.org"]);
    assert!(!site.lookup("a.example.org").unwrap().live.is_removed());
    assert_eq!(site.admin.backends().iter().map(|used| used.routes).sum::<u64>(), 1);
    assert!(!site.admin.backends()[0].live.as_ref().unwrap().draining());
    assert!(TcpListener::bind(free).await.is_ok(), "the sockets are closed again");
    TcpStream::connect(site.address("web")).await.unwrap();
    site.broken.store(false, Ordering::Relaxed);
    assert_eq!(
        site.admin.put_route(route("b.example.org", "192.0.2.2:1"), Existing::Any).await.unwrap().revision,
        2
    );
}

#[tokio::test]
async fn only_an_empty_database_is_seeded() {
    let site = Site::new(&["a.example.org"]).await;
    site.admin.add_rule(rule("deny", "192.0.2.0/24")).await.unwrap();
    site.admin.remove_route(key("a.example.org"), false).await.unwrap();
    let revision = site.revision();
    let seed =
        Seed { listeners: vec![], routes: vec![route("b.example.org", "192.0.2.1:1")], ..Seed::default() };
    let site = site.restart(seed).await;
    assert_eq!((site.names().len(), site.revision()), (0, revision));
    assert_eq!(site.admin.snapshot().firewall.spec.rules, [rule("deny", "192.0.2.0/24")]);
    site.admin.remove_listener("web".to_owned(), true, false).await.unwrap();
    let seed = Seed { listeners: vec![listener("web", "127.0.0.1:0")], ..Seed::default() };
    let site = site.restart(seed).await;
    assert!(site.admin.snapshot().listeners.is_empty(), "emptied is not empty");
}

#[tokio::test]
async fn a_seed_that_cannot_be_is_not_stored() {
    let dir = TempDir::new().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let listeners = vec![listener("web", "127.0.0.1:0"), listener("api", &address)];
    let Err(error) = Site::open(dir, Seed { listeners, ..Seed::default() }).await else {
        panic!("{address}")
    };
    let error = chain(&error);
    assert!(error.starts_with(&format!("listener `api` cannot be opened: {address} is in use")), "{error}");
}

#[tokio::test]
async fn firewall_rules_come_and_go() {
    let site = Site::new(&[]).await;
    let admin = &site.admin;
    let rules = || admin.snapshot().firewall.spec.rules.clone();
    let commented = FirewallRule { comment: "scanners".to_owned(), ..rule("deny", "192.0.2.0/24") };
    assert_eq!(admin.add_rule(rule("deny", "192.0.2.0/24")).await.unwrap(), 2);
    assert_eq!(admin.add_rule(rule("deny", "192.0.2.0/24")).await.unwrap(), 2);
    assert_eq!(admin.add_rule(commented.clone()).await.unwrap(), 3);
    assert_eq!(rules(), [commented]);
    assert_eq!(admin.set_rate(Rate { per_address: 5, ..Rate::default() }).await.unwrap(), 4);
    assert_eq!((rules().len(), admin.snapshot().firewall.spec.rate.per_address), (1, 5));
    assert!(matches!(admin.remove_rule(rule("allow", "192.0.2.0/24")).await, Err(ChangeError::NoRule)));
    admin.remove_rule(rule("deny", "192.0.2.0/24")).await.unwrap();
    assert!(rules().is_empty());
    let stale = admin.set_firewall(Firewall::default(), Some(2)).await;
    assert!(matches!(stale, Err(ChangeError::Revision { expected: 2, current: 5 })));
}

#[tokio::test]
async fn changes_from_many_sides_are_all_made() {
    let site = Site::new(&[]).await;
    let sides = (0..8).map(|side| {
        let admin = site.admin.clone();
        tokio::spawn(async move {
            for number in 0..10 {
                let name = format!("r{number}.s{side}.example.org");
                admin.put_route(route(&name, "192.0.2.1:443"), Existing::Any).await.unwrap();
            }
        })
    });
    for side in sides.collect::<Vec<_>>() {
        side.await.unwrap();
    }
    let names = site.names();
    assert_eq!((site.revision(), names.len(), site.admin.snapshot().route_count), (81, 80, 80));
    assert!(names.is_sorted());
    let site = site.restart(Seed::default()).await;
    assert_eq!((site.revision(), site.names()), (81, names));
    assert!(site.lookup("r9.s7.example.org").is_some());
}

#[tokio::test]
async fn a_change_is_finished_though_its_caller_has_gone() {
    let site = Site::new(&[]).await;
    tokio::select! {
        biased;
        _ = site.admin.put_route(route("a.example.org", "192.0.2.1:443"), Existing::Any) => panic!("it waits for a disk"),
        () = std::future::ready(()) => {}
    }
    // The next change waits for it.
    let put = site.admin.put_route(route("b.example.org", "192.0.2.1:443"), Existing::Any).await.unwrap();
    assert_eq!((put.revision, site.names().len()), (3, 2));
}

#[tokio::test]
async fn changes_are_announced_with_their_revision() {
    let site = Site::new(&["a.example.org"]).await;
    let mut watch = site.admin.events().watch().unwrap();
    site.admin.put_route(route("b.example.org", "192.0.2.1:443"), Existing::Any).await.unwrap();
    site.admin.put_route(route("b.example.org", "192.0.2.2:443"), Existing::Some(None)).await.unwrap();
    site.admin.remove_route(key("b.example.org"), false).await.unwrap();
    site.admin.drain_backend("192.0.2.1:443".parse().unwrap(), true, false).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..4 {
        let event = watch.next().await.unwrap();
        seen.push((event.revision, event.kind, event.subject));
    }
    let expect = [
        (2, "route_added", "web/b.example.org"),
        (3, "route_updated", "web/b.example.org"),
        (4, "route_removed", "web/b.example.org"),
        (5, "backend_draining", "192.0.2.1:443"),
    ];
    assert_eq!(seen, expect.map(|(revision, kind, subject)| (revision, kind.to_owned(), subject.to_owned())));
}

#[tokio::test]
async fn old_snapshots_are_freed_by_the_admin_side() {
    let site = Site::new(&["a.example.org"]).await;
    let old = site.admin.snapshot();
    let weak = Arc::downgrade(&old);
    site.admin.replace_routes(vec![], None, false).await.unwrap();
    assert!(!site.admin.state.lock().await.can_reap(), "somebody reads it");
    // Locked, so that the admin side does not do it between two of these lines.
    let mut state = site.admin.state.lock().await;
    drop(old);
    assert!(weak.upgrade().is_some(), "the last reader has not freed it");
    // Health checks and the like look at it for a moment too.
    for _ in 0..1000 {
        if state.can_reap() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(state.can_reap());
    state.reap();
    assert!(weak.upgrade().is_none());
}
