//! Login policies from strangers: no JSON makes reading or deciding panic, and the order in which rules are written decides nothing.
//!
//! Input: a byte that says who asks, then a JSON array of rules. Bit 0: a service or a person, bits 1 to 3: the person's
//! roles, bit 4: the default, bit 5: the service's tag.

use mcias::domain::policy::{Effect, Policy, Rule, Service};
use mcias::domain::{Account, Name, Role};

/// Checks one input.
pub fn check(input: &[u8]) {
    let Some((&mode, json)) = input.split_first() else { return };
    let Ok(rules) = serde_json::from_slice::<Vec<Rule>>(json) else { return };
    let stored = serde_json::to_vec(&rules).expect("rules are JSON");
    assert_eq!(serde_json::from_slice::<Vec<Rule>>(&stored).expect("they are read back"), rules);
    let default = if mode & 16 == 0 { Effect::Deny } else { Effect::Allow };
    let Ok(policy) = Policy::new(rules.clone(), default) else {
        let names: std::collections::BTreeSet<_> = rules.iter().map(|rule| &rule.name).collect();
        assert!(names.len() < rules.len(), "refused without two of the same name");
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
    let service = Service { name: name("mcr"), tags };
    let explained = policy.explain(&account, &service);
    assert_eq!(explained.effect, decide(&rules, default, &policy, &account, &service));
    // By the sentence that says what it does: of those that match, those of the lowest number; one that denies wins.
    let matching = || rules.iter().filter(|rule| rule.matches(&account, &service));
    let lowest = matching().map(|rule| rule.priority).min();
    let deciding = || matching().filter(|rule| Some(rule.priority) == lowest);
    let expect = match lowest {
        None => default,
        Some(_) if deciding().any(|rule| rule.effect == Effect::Deny) => Effect::Deny,
        Some(_) => Effect::Allow,
    };
    assert_eq!(explained.effect, expect);
    assert_eq!(explained.also.len() + usize::from(explained.by.is_some()), matching().count());
    let backwards = Policy::new(rules.into_iter().rev().collect(), default).expect("the same names");
    assert_eq!(backwards, policy, "the order of writing decides");
}

#[cfg(not(feature = "planted"))]
fn decide(_: &[Rule], _: Effect, policy: &Policy, account: &Account, service: &Service) -> Effect {
    policy.decide(account, service)
}

/// The planted bug: the first rule that was written decides.
#[cfg(feature = "planted")]
fn decide(rules: &[Rule], default: Effect, _: &Policy, account: &Account, service: &Service) -> Effect {
    rules.iter().find(|rule| rule.matches(account, service)).map_or(default, |rule| rule.effect)
}
