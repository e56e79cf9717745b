//! The policy: cases by hand, and all there is of a small world against the sentence that says what it should do.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn rule(text: &str) -> Rule {
    serde_json::from_str(text).unwrap()
}

fn human(text: &str, roles: &[Role]) -> Account {
    Account::Human { name: name(text), roles: roles.iter().copied().collect() }
}

fn service(text: &str, tags: &[&str]) -> Service {
    Service { name: name(text), tags: tags.iter().copied().map(name).collect() }
}

#[test]
fn the_lowest_number_decides_and_deny_wins_a_tie() {
    let rules = vec![
        rule(r#"{"name":"all","priority":100,"effect":"allow"}"#),
        rule(r#"{"name":"guests","priority":20,"effect":"deny","roles":["guest"],"tags":["internal"]}"#),
        rule(r#"{"name":"ada","priority":10,"effect":"allow","usernames":["ada"],"services":["mcr"]}"#),
        rule(r#"{"name":"robots","priority":20,"effect":"allow","account_types":["system"]}"#),
        rule(r#"{"name":"no-mallory","priority":10,"effect":"deny","usernames":["mallory"]}"#),
        rule(r#"{"name":"mallory","priority":10,"effect":"allow","usernames":["mallory"]}"#),
    ];
    let policy = Policy::new(rules, Effect::Deny).unwrap();
    let check = |account: &Account, service: &Service, effect: Effect, by: &str, also: &[&str]| {
        let explained = policy.explain(account, service);
        let also_found: Vec<_> = explained.also.iter().map(|rule| rule.name.as_str()).collect();
        let found = (explained.effect, explained.by.map(|rule| rule.name.as_str()), &*also_found);
        assert_eq!(found, (effect, Some(by), also));
        assert_eq!(policy.decide(account, service), effect);
    };
    let (internal, open) = (service("mcr", &["internal", "prod"]), service("mcdoc", &[]));
    check(&human("eve", &[Role::User]), &internal, Effect::Allow, "all", &[]);
    check(&human("eve", &[Role::User, Role::Guest]), &internal, Effect::Deny, "guests", &["all"]);
    check(&human("eve", &[Role::Guest]), &open, Effect::Allow, "all", &[]);
    check(&human("ada", &[Role::Guest]), &internal, Effect::Allow, "ada", &["guests", "all"]);
    check(&human("mallory", &[Role::Admin]), &open, Effect::Deny, "no-mallory", &["mallory", "all"]);
    check(&Account::System { name: name("mcp-agent") }, &open, Effect::Allow, "robots", &["all"]);
}

#[test]
fn without_a_rule_the_default_decides() {
    for default in [Effect::Allow, Effect::Deny] {
        let policy = Policy::new(Vec::new(), default).unwrap();
        let explained = policy.explain(&human("ada", &[]), &service("mcr", &[]));
        assert_eq!((explained.effect, explained.by, explained.also.len()), (default, None, 0));
    }
}

#[test]
fn rules_that_make_no_sense_are_refused() {
    let one = rule(r#"{"name":"one","priority":1,"effect":"allow"}"#);
    let error = Policy::new(vec![one.clone(), one], Effect::Deny).unwrap_err();
    assert_eq!(error.to_string(), "rules[1].name: another rule is called `one`: give this one another name");
    for text in [
        r#"{"name":"One","priority":1,"effect":"allow"}"#,
        r#"{"name":"one","priority":-1,"effect":"allow"}"#,
        r#"{"name":"one","priority":1,"effect":"maybe"}"#,
        r#"{"name":"one","priority":1,"effect":"allow","roles":["root"]}"#,
        r#"{"name":"one","priority":1,"effect":"allow","role":["admin"]}"#,
    ] {
        assert!(serde_json::from_str::<Rule>(text).is_err(), "{text}");
    }
}

/// Few names, so that rules meet.
const NAMES: [&str; 3] = ["a", "b", "c"];
const ROLES: [Role; 3] = [Role::Admin, Role::User, Role::Guest];

fn names() -> impl Strategy<Value = Vec<Name>> {
    subsequence(NAMES.to_vec(), 0..=2).prop_map(|names| names.into_iter().map(name).collect())
}

fn any_rule() -> impl Strategy<Value = Rule> {
    (
        0..3_u32,
        select(vec![Effect::Allow, Effect::Deny]),
        subsequence(ROLES.to_vec(), 0..=2),
        subsequence(vec![AccountType::Human, AccountType::System], 0..=2),
        (names(), names(), names()),
    )
        .prop_map(|(priority, effect, roles, account_types, (usernames, services, tags))| Rule {
            name: name("x"),
            priority,
            effect,
            roles,
            account_types,
            usernames,
            services,
            tags,
        })
}

fn any_account() -> impl Strategy<Value = Account> {
    let people = (select(NAMES.to_vec()), subsequence(ROLES.to_vec(), 0..=3));
    prop_oneof![
        people.prop_map(|(text, roles)| human(text, &roles)),
        select(NAMES.to_vec()).prop_map(|text| Account::System { name: name(text) }),
    ]
}

/// The sentence of the specification, as it stands there: of all that match, the lowest number; there, deny wins.
fn oracle(rules: &[Rule], default: Effect, account: &Account, service: &Service) -> Effect {
    let has_role = |role: &Role| match account {
        Account::Human { roles, .. } => roles.has(*role),
        Account::System { .. } => false,
    };
    let mut said: Vec<(u32, Effect)> = Vec::new();
    for rule in rules {
        let by_role = rule.roles.is_empty() || rule.roles.iter().filter(|role| has_role(role)).count() > 0;
        let by_type = rule.account_types.is_empty()
            || rule.account_types.iter().any(|kind| match kind {
                AccountType::Human => matches!(account, Account::Human { .. }),
                AccountType::System => matches!(account, Account::System { .. }),
            });
        let by_name = rule.usernames.is_empty() || rule.usernames.iter().any(|it| it == account.name());
        let by_service = rule.services.is_empty() || rule.services.binary_search(&service.name).is_ok();
        let by_tags = rule.tags.iter().filter(|tag| service.tags.contains(*tag)).count() == rule.tags.len();
        if by_role && by_type && by_name && by_service && by_tags {
            said.push((rule.priority, rule.effect));
        }
    }
    let Some(lowest) = said.iter().map(|(priority, _)| *priority).min() else { return default };
    if said.contains(&(lowest, Effect::Deny)) { Effect::Deny } else { Effect::Allow }
}

proptest! {
    #[test]
    fn it_does_what_the_specification_says(
        mut rules in vec(any_rule(), 0..12),
        default in select(vec![Effect::Allow, Effect::Deny]),
        account in any_account(),
        text in select(NAMES.to_vec()),
        tags in names(),
        turn in 0..12_usize,
    ) {
        for (number, rule) in rules.iter_mut().enumerate() {
            rule.name = name(&format!("rule-{number}"));
        }
        let service = Service { name: name(text), tags: tags.into_iter().collect() };
        let expect = oracle(&rules, default, &account, &service);
        let policy = Policy::new(rules.clone(), default).unwrap();
        prop_assert_eq!(policy.decide(&account, &service), expect);
        let explained = policy.explain(&account, &service);
        prop_assert_eq!(explained.effect, expect);
        let matching = rules.iter().filter(|rule| rule.matches(&account, &service)).count();
        prop_assert_eq!(explained.also.len() + usize::from(explained.by.is_some()), matching);
        // In whichever order they are given.
        let by = turn % rules.len().max(1);
        rules.rotate_left(by);
        prop_assert_eq!(Policy::new(rules, default).unwrap(), policy);
    }
}
