//! The login policy over the engine: cases by hand, and all of a small world against the sentence that specifies it.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use mcdsl::policy::{Decider, Document, Pattern, Rule};

use super::*;
use crate::domain::{AccountType, Name, Role};

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn rule(text: &str) -> Rule {
    serde_json::from_str(text).unwrap()
}

fn human(text: &str, roles: &[Role]) -> Account {
    Account::Human { name: name(text), roles: roles.iter().copied().collect() }
}

fn service(text: &str, tags: &[&str]) -> ServiceContext {
    ServiceContext { name: name(text), tags: tags.iter().copied().map(name).collect() }
}

#[test]
fn the_lowest_priority_decides_and_deny_wins_a_tie() {
    let rules = vec![
        rule(r#"{"name":"all","priority":100,"effect":"allow"}"#),
        rule(
            r#"{"name":"guests","priority":20,"effect":"deny","roles":["guest"],"resource_tags":["internal"]}"#,
        ),
        rule(r#"{"name":"ada","priority":10,"effect":"allow","accounts":["ada"],"resources":["mcr"]}"#),
        rule(r#"{"name":"robots","priority":20,"effect":"allow","account_types":["system"]}"#),
        rule(r#"{"name":"no-mallory","priority":10,"effect":"deny","accounts":["mallory"]}"#),
        rule(r#"{"name":"mallory","priority":10,"effect":"allow","accounts":["mallory"]}"#),
    ];
    let policy = Policy::new(&SPEC, Document { default: Effect::Deny, rules }).unwrap();
    let check = |account: &Account, service: &ServiceContext, effect: Effect, by: &str, also: &[&str]| {
        let explained = explain(&policy, account, service);
        let others: Vec<_> = explained.other_matches.iter().map(|rule| rule.name.as_str()).collect();
        let deciding = match explained.decider {
            Decider::Rule(rule) => Some(rule.name.as_str()),
            _ => None,
        };
        assert_eq!((explained.effect, deciding, &*others), (effect, Some(by), also));
        assert_eq!(decide(&policy, account, service), effect);
    };
    let (internal, open) = (service("mcr", &["internal", "prod"]), service("mcdoc", &[]));
    check(&human("eve", &[Role::User]), &internal, Effect::Allow, "all", &[]);
    check(&human("eve", &[Role::User, Role::Guest]), &internal, Effect::Deny, "guests", &["all"]);
    check(&human("eve", &[Role::Guest]), &open, Effect::Allow, "all", &[]);
    check(&human("ada", &[Role::Guest]), &internal, Effect::Allow, "ada", &["guests", "all"]);
    check(&human("mallory", &[Role::Admin]), &open, Effect::Deny, "no-mallory", &["mallory", "all"]);
    check(&Account::System { name: name("mcp-agent") }, &open, Effect::Allow, "robots", &["all"]);
}

/// Few names, so that rules meet.
const NAMES: [&str; 3] = ["a", "b", "c"];

fn names() -> impl Strategy<Value = Vec<Name>> {
    subsequence(NAMES.to_vec(), 0..=2).prop_map(|names| names.into_iter().map(name).collect())
}

fn any_rule() -> impl Strategy<Value = Rule> {
    (
        0..3_u32,
        select(vec![Effect::Allow, Effect::Deny]),
        subsequence(Role::ALL.to_vec(), 0..=2),
        subsequence(vec![AccountType::Human, AccountType::System], 0..=2),
        (names(), names(), names()),
        any::<bool>(),
    )
        .prop_map(
            |(priority, effect, roles, account_types, (accounts, services, resource_tags), login)| Rule {
                name: name("x"),
                priority,
                effect,
                roles,
                account_types,
                accounts,
                resources: services.iter().map(|name| Pattern::parse(name.as_str()).unwrap()).collect(),
                resource_tags,
                operations: if login { vec![Pattern::parse(LOGIN).unwrap()] } else { Vec::new() },
            },
        )
}

fn any_account() -> impl Strategy<Value = Account> {
    let people = (select(NAMES.to_vec()), subsequence(Role::ALL.to_vec(), 0..=3));
    prop_oneof![
        people.prop_map(|(text, roles)| human(text, &roles)),
        select(NAMES.to_vec()).prop_map(|text| Account::System { name: name(text) }),
    ]
}

/// The specification: of all rules that match, the lowest priority decides; on a tie, deny wins.
fn oracle(rules: &[Rule], default: Effect, account: &Account, service: &ServiceContext) -> Effect {
    let has_role = |role: &Role| match account {
        Account::Human { roles, .. } => roles.has(*role),
        Account::System { .. } => false,
    };
    let mut decisions: Vec<(u32, Effect)> = Vec::new();
    for rule in rules {
        let by_role = rule.roles.is_empty() || rule.roles.iter().filter(|role| has_role(role)).count() > 0;
        let by_type = rule.account_types.is_empty()
            || rule.account_types.iter().any(|kind| match kind {
                AccountType::Human => matches!(account, Account::Human { .. }),
                AccountType::System => matches!(account, Account::System { .. }),
            });
        let by_name = rule.accounts.is_empty() || rule.accounts.iter().any(|it| it == account.name());
        let by_service = rule.resources.is_empty()
            || rule.resources.iter().any(|pattern| pattern.as_str() == service.name.as_str());
        let by_tags = rule.resource_tags.iter().filter(|tag| service.tags.contains(*tag)).count()
            == rule.resource_tags.len();
        if by_role && by_type && by_name && by_service && by_tags {
            decisions.push((rule.priority, rule.effect));
        }
    }
    let Some(lowest) = decisions.iter().map(|(priority, _)| *priority).min() else { return default };
    if decisions.contains(&(lowest, Effect::Deny)) { Effect::Deny } else { Effect::Allow }
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
        let service = ServiceContext { name: name(text), tags: tags.into_iter().collect() };
        let expected = oracle(&rules, default, &account, &service);
        let policy = Policy::new(&SPEC, Document { default, rules: rules.clone() }).unwrap();
        prop_assert_eq!(decide(&policy, &account, &service), expected);
        let explained = explain(&policy, &account, &service);
        prop_assert_eq!(explained.effect, expected);
        let matching = rules.iter().filter(|rule| rule.matches(&SPEC, &question(&account, &service))).count();
        prop_assert_eq!(explained.other_matches.len() + usize::from(matches!(explained.decider, Decider::Rule(_))), matching);
        // The order in which the rules were written decides nothing.
        let by = turn % rules.len().max(1);
        rules.rotate_left(by);
        prop_assert_eq!(Policy::new(&SPEC, Document { default, rules }).unwrap(), policy);
    }
}
