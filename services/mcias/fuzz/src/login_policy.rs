//! Login policies from untrusted input: no JSON makes parsing or deciding panic, and the order in which rules are
//! written decides nothing.
//!
//! Input: a byte that selects the account, then a JSON array of rules. Bit 0: a service or a person, bits 1 to 3: the
//! person's roles, bit 4: the default, bit 5: the service's tag.

use mcdsl::policy::{Decider, Document, ENTRIES_PER_RULE, Effect, MAX_ENTRIES_PER_LIST, Policy, Rule};
use mcias::domain::policy::{self, SPEC};
use mcias::domain::{Account, Name, Role, ServiceContext};

/// Checks one input.
pub fn check(input: &[u8]) {
    let Some((&mode, json)) = input.split_first() else { return };
    let Ok(rules) = serde_json::from_slice::<Vec<Rule>>(json) else { return };
    let stored = serde_json::to_vec(&rules).expect("rules are JSON");
    assert_eq!(serde_json::from_slice::<Vec<Rule>>(&stored).expect("they are read back"), rules);
    let default = if mode & 16 == 0 { Effect::Deny } else { Effect::Allow };
    let compile = |rules: Vec<Rule>| Policy::new(&SPEC, Document { default, rules });
    let Ok(policy) = compile(rules.clone()) else {
        let names: std::collections::BTreeSet<_> = rules.iter().map(|rule| &rule.name).collect();
        let lengths = || rules.iter().flat_map(|rule| rule.lists().map(|(_, length)| length));
        let is_valid = names.len() == rules.len()
            && rules.len() <= SPEC.max_rules
            && lengths().all(|length| length <= MAX_ENTRIES_PER_LIST)
            && lengths().sum::<usize>() <= SPEC.max_rules * ENTRIES_PER_RULE;
        assert!(!is_valid, "a valid policy was refused");
        return;
    };
    let name = |text| Name::parse(text).expect("a name");
    let roles = [(2, Role::Admin), (4, Role::User), (8, Role::Guest)];
    let roles = roles.into_iter().filter(|(bit, _)| mode & bit != 0).map(|(_, role)| role).collect();
    let account = if mode & 1 == 0 {
        Account::Human { name: name("ada"), roles }
    } else {
        Account::System { name: name("ada") }
    };
    let tags = (mode & 32 != 0).then(|| name("internal")).into_iter().collect();
    let service = ServiceContext { name: name("mcr"), tags };
    let explained = policy::explain(&policy, &account, &service);
    assert_eq!(explained.effect, decide(&rules, default, &policy, &account, &service));
    // The specification: of the rules that match, the lowest priority decides; on a tie, deny wins.
    let question = policy::question(&account, &service);
    let matching = || rules.iter().filter(|rule| rule.matches(&SPEC, &question));
    let lowest = matching().map(|rule| rule.priority).min();
    let deciding = || matching().filter(|rule| Some(rule.priority) == lowest);
    let expect = match lowest {
        None => default,
        Some(_) if deciding().any(|rule| rule.effect == Effect::Deny) => Effect::Deny,
        Some(_) => Effect::Allow,
    };
    assert_eq!(explained.effect, expect);
    let decided = usize::from(matches!(explained.decider, Decider::Rule(_)));
    assert_eq!(explained.other_matches.len() + decided, matching().count());
    let backwards = compile(rules.into_iter().rev().collect()).expect("the same rules");
    assert_eq!(backwards, policy, "the order of writing decides");
}

#[cfg(not(feature = "planted"))]
fn decide(_: &[Rule], _: Effect, policy: &Policy, account: &Account, service: &ServiceContext) -> Effect {
    policy::decide(policy, account, service)
}

/// The planted bug: the first rule that was written decides.
#[cfg(feature = "planted")]
fn decide(
    rules: &[Rule],
    default: Effect,
    _: &Policy,
    account: &Account,
    service: &ServiceContext,
) -> Effect {
    let question = policy::question(account, service);
    rules.iter().find(|rule| rule.matches(&SPEC, &question)).map_or(default, |rule| rule.effect)
}
