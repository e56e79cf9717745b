//! The engine: cases by hand, and all of a small world against the sentence that specifies it.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;

const SPEC: PolicySpec = PolicySpec {
    resource_noun: Noun { one: "repository", many: "repositories" },
    operations: &["pull", "push", "tag.delete"],
    separators: "/",
    admin_bypass: false,
    max_rules: 100,
};

const WITH_BYPASS: PolicySpec = PolicySpec { admin_bypass: true, ..SPEC };

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn rule(text: &str) -> Rule {
    serde_json::from_str(text).unwrap()
}

fn policy(spec: &'static PolicySpec, default: Effect, rules: &[&str]) -> Policy {
    let rules = rules.iter().copied().map(rule).collect();
    Policy::new(spec, Document { default, rules }).unwrap()
}

fn human(account: &str, roles: &[Role]) -> Account {
    Account::Human { name: name(account), roles: roles.iter().copied().collect() }
}

fn system(account: &str) -> Account {
    Account::System { name: name(account) }
}

fn tags(words: &[&str]) -> BTreeSet<Name> {
    words.iter().copied().map(name).collect()
}

/// The decision for a question, with the examined rules and their reasons, one in a line.
fn explained(
    policy: &Policy,
    account: &Account,
    resource: &str,
    tag: &[&str],
    operation: &str,
) -> (Effect, String) {
    let resource_tags = &tags(tag);
    let question = Question { account, resource, resource_tags, operation };
    let explanation = policy.explain(&question);
    assert_eq!(policy.decide(&question), explanation.effect);
    let lines =
        explanation.examined.iter().map(|it| format!("{} {}: {}", it.matches, it.rule.name, it.reason));
    (explanation.effect, lines.collect::<Vec<_>>().join("\n"))
}

#[test]
fn an_explanation_says_why_each_rule_does_not_match() {
    let rules = [
        r#"{"name":"guests","priority":10,"effect":"deny","roles":["guest","admin"],"operations":["push","tag.*"]}"#,
        r#"{"name":"ada","priority":20,"effect":"allow","accounts":["ada"]}"#,
        r#"{"name":"robots","priority":30,"effect":"allow","account_types":["system"],"resources":["{account}/**"]}"#,
        r#"{"name":"prod","priority":40,"effect":"deny","resource_tags":["prod","eu"],"resources":["team/*"]}"#,
        r#"{"name":"pushes","priority":50,"effect":"allow","roles":["user"],"operations":["push"]}"#,
        r#"{"name":"all","priority":60,"effect":"deny"}"#,
    ];
    let policy = policy(&SPEC, Effect::Deny, &rules);
    let (effect, lines) = explained(&policy, &human("bob", &[Role::User]), "team/app/web", &["prod"], "push");
    assert_eq!(effect, Effect::Allow);
    let expected = [
        "false guests: bob has role user, not guest or admin",
        "false ada: The account is bob, not ada",
        "false robots: bob is a human account, not system; the repository is team/app/web, not {account}/** (bob/**)",
        "false prod: The repository is team/app/web, not team/*; the repository is not tagged eu",
        "true pushes: bob has role user; the operation is push",
    ];
    assert_eq!(lines, expected.join("\n"));

    let (effect, lines) = explained(&policy, &system("mcq"), "mcr/app", &[], "pull");
    assert_eq!(effect, Effect::Deny);
    assert!(
        lines.contains(
            "guests: mcq is a system account, which has no roles; the operation is pull, not push or tag.*"
        ),
        "{lines}"
    );
    assert!(lines.contains("robots: The repository is mcr/app, not {account}/** (mcq/**)"), "{lines}");
    assert!(lines.ends_with("true all: The rule matches everything"), "{lines}");
    let (_, lines) = explained(&policy, &human("bob", &[]), "x", &[], "pull");
    assert!(lines.contains("guests: bob has no role, not guest or admin"), "{lines}");
    let (_, lines) = explained(&policy, &human("bob", &[Role::User, Role::Guest]), "x", &[], "push");
    assert_eq!(lines, "true guests: bob has role guest; the operation is push");
}

#[test]
fn an_explanation_names_the_other_matches() {
    let rules = [
        r#"{"name":"b","priority":1,"effect":"allow"}"#,
        r#"{"name":"c","priority":1,"effect":"deny","operations":["*"]}"#,
        r#"{"name":"d","priority":2,"effect":"deny","accounts":["ada"]}"#,
        r#"{"name":"a","priority":3,"effect":"allow"}"#,
    ];
    let policy = policy(&SPEC, Effect::Deny, &rules);
    let (account, resource_tags) = (human("bob", &[]), tags(&[]));
    let question =
        Question { account: &account, resource: "x", resource_tags: &resource_tags, operation: "pull" };
    let explanation = policy.explain(&question);
    let Decider::Rule(deciding) = explanation.decider else { panic!("{:?}", explanation.decider) };
    assert_eq!((deciding.name.as_str(), explanation.effect), ("c", Effect::Deny));
    let others: Vec<_> = explanation.other_matches.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!((others, explanation.examined.len()), (vec!["b", "a"], 1));
}

#[test]
fn without_a_matching_rule_the_default_decides() {
    for default in [Effect::Allow, Effect::Deny] {
        let policy =
            policy(&SPEC, default, &[r#"{"name":"a","priority":1,"effect":"deny","accounts":["ada"]}"#]);
        let (account, resource_tags) = (human("bob", &[]), tags(&[]));
        let question =
            Question { account: &account, resource: "x", resource_tags: &resource_tags, operation: "pull" };
        let explanation = policy.explain(&question);
        assert_eq!(
            (explanation.effect, explanation.decider, explanation.examined.len()),
            (default, Decider::Default, 1)
        );
    }
}

#[test]
fn admins_bypass_the_rules_only_where_the_service_says_so() {
    let rules = [r#"{"name":"nobody","priority":1,"effect":"deny"}"#];
    let (bypassed, plain) = (policy(&WITH_BYPASS, Effect::Deny, &rules), policy(&SPEC, Effect::Deny, &rules));
    let (admin, user, resource_tags) = (human("ada", &[Role::Admin]), human("bob", &[Role::User]), tags(&[]));
    let ask = |policy: &Policy, account: &Account| {
        policy.decide(&Question { account, resource: "x", resource_tags: &resource_tags, operation: "pull" })
    };
    assert_eq!((ask(&bypassed, &admin), ask(&bypassed, &user)), (Effect::Allow, Effect::Deny));
    assert_eq!(ask(&plain, &admin), Effect::Deny);
    let question =
        Question { account: &admin, resource: "x", resource_tags: &resource_tags, operation: "pull" };
    assert_eq!(bypassed.explain(&question).decider, Decider::AdminBypass);
}

#[test]
fn a_dry_run_lists_the_decisions_that_change() {
    let current = policy(&SPEC, Effect::Allow, &[]);
    let draft = policy(
        &SPEC,
        Effect::Allow,
        &[r#"{"name":"a","priority":1,"effect":"deny","resources":["team/*"]}"#],
    );
    let (account, resource_tags) = (human("bob", &[]), tags(&[]));
    let questions = ["team/a", "team/a/b", "other", "team/c"].map(|resource| Question {
        account: &account,
        resource,
        resource_tags: &resource_tags,
        operation: "pull",
    });
    let changes: Vec<_> = decision_changes(&current, &draft, questions)
        .map(|change| (change.question.resource, change.before, change.after))
        .collect();
    assert_eq!(changes, [("team/a", Effect::Allow, Effect::Deny), ("team/c", Effect::Allow, Effect::Deny)]);
    assert_eq!(decision_changes(&current, &current, questions).count(), 0);
}

#[test]
fn invalid_documents_are_refused_with_the_field() {
    let one = r#"{"name":"one","priority":1,"effect":"allow"}"#;
    let document = Document { default: Effect::Deny, rules: vec![rule(one), rule(one)] };
    let error = Policy::new(&SPEC, document).unwrap_err();
    assert_eq!(error.to_string(), "rules[1].name: another rule is named `one`; rule names must be unique");
    let rules = (0..=100).map(|number| Rule { name: name(&format!("r{number}")), ..rule(one) }).collect();
    let error = Policy::new(&SPEC, Document { default: Effect::Deny, rules }).unwrap_err();
    assert_eq!(error.to_string(), "rules: there are 101 rules; a policy has at most 100");
    for text in [
        r#"{"name":"One","priority":1,"effect":"allow"}"#,
        r#"{"name":"one","priority":-1,"effect":"allow"}"#,
        r#"{"name":"one","priority":1,"effect":"maybe"}"#,
        r#"{"name":"one","priority":1,"effect":"allow","roles":["root"]}"#,
        r#"{"name":"one","priority":1,"effect":"allow","role":["admin"]}"#,
        r#"{"name":"one","priority":1,"effect":"allow","resources":["a b"]}"#,
    ] {
        assert!(serde_json::from_str::<Rule>(text).is_err(), "{text}");
    }
}

#[test]
fn a_rule_for_something_that_does_not_exist_is_warned_about() {
    let rules = [
        r#"{"name":"a","priority":1,"effect":"allow","accounts":["ada","eve"],"resources":["team/app","team/*","gone"]}"#,
        r#"{"name":"b","priority":2,"effect":"allow","resource_tags":["prod","old"],"operations":["pull","*","tag.*","pul"]}"#,
        r#"{"name":"c","priority":3,"effect":"allow","roles":["user"],"account_types":["system"]}"#,
    ];
    let warnings = policy(&SPEC, Effect::Deny, &rules).warnings(|reference| match reference {
        Reference::Account(account) => account.as_str() == "ada",
        Reference::Resource(resource) => resource == "team/app",
        Reference::ResourceTag(tag) => tag.as_str() == "prod",
    });
    let lines: Vec<_> =
        warnings.iter().map(|it| format!("{} {}: {}", it.rule, it.field, it.message)).collect();
    let expected = [
        "a accounts[1]: there is no account `eve`",
        "a resources[2]: there is no repository `gone`",
        "b resource_tags[1]: no repository has the tag `old`",
        "b operations[3]: there is no operation `pul`; the operations are pull, push and tag.delete",
        "c account_types[0]: the rule never matches: system accounts have no roles",
    ];
    assert_eq!(lines, expected);
    assert_eq!((&*warnings[0].value, &*warnings[3].value), ("eve", "pul"));
}

#[test]
fn a_diff_names_rules_and_fields() {
    let document =
        |default, rules: &[&str]| Document { default, rules: rules.iter().copied().map(rule).collect() };
    let before = document(
        Effect::Deny,
        &[
            r#"{"name":"same","priority":1,"effect":"allow"}"#,
            r#"{"name":"gone","priority":2,"effect":"allow"}"#,
            r#"{"name":"other","priority":3,"effect":"allow","roles":["user"],"resources":["a"]}"#,
        ],
    );
    let after = document(
        Effect::Allow,
        &[
            r#"{"name":"other","priority":4,"effect":"allow","resources":["a","b/*"]}"#,
            r#"{"name":"new","priority":2,"effect":"deny"}"#,
            r#"{"name":"same","priority":1,"effect":"allow"}"#,
        ],
    );
    let found = diff(&before, &after);
    let change = |field, before: &[&str], after: &[&str]| {
        let words = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        FieldChange { field, before: words(before), after: words(after) }
    };
    let fields = vec![
        change("priority", &["3"], &["4"]),
        change("roles", &["user"], &[]),
        change("resources", &["a"], &["a", "b/*"]),
    ];
    let expected = Diff {
        default: Some(change("default", &["deny"], &["allow"])),
        added: vec![rule(r#"{"name":"new","priority":2,"effect":"deny"}"#)],
        removed: vec![rule(r#"{"name":"gone","priority":2,"effect":"allow"}"#)],
        changed: vec![RuleChange { name: name("other"), fields }],
    };
    assert_eq!(found, expected);
    assert_eq!(diff(&after, &after), Diff::default());
}

#[test]
fn long_lists_are_cut() {
    assert_eq!(explain::list(["a", "b", "c"], "or"), "a, b or c");
    assert_eq!(explain::list(1..=6, "and"), "1, 2, 3, 4, 5 and 6");
    assert_eq!(explain::list(1..=9, "or"), "1, 2, 3, 4, 5 or 4 others");
}

/// Few names, so that rules meet.
const NAMES: [&str; 3] = ["a", "b", "c"];
const PATTERNS: [&str; 6] = ["a", "b/*", "{account}/**", "**", "*", "c"];
const RESOURCES: [&str; 6] = ["a", "b/a", "a/b/c", "c", "b/a/c", "c/x"];

fn names() -> impl Strategy<Value = Vec<Name>> {
    subsequence(NAMES.to_vec(), 0..=2).prop_map(|names| names.into_iter().map(name).collect())
}

fn patterns(of: &[&'static str]) -> impl Strategy<Value = Vec<Pattern>> {
    let parse = |text: &str| Pattern::parse(text).unwrap();
    subsequence(of.to_vec(), 0..=2).prop_map(move |texts| texts.into_iter().map(parse).collect())
}

fn any_rule() -> impl Strategy<Value = Rule> {
    (
        0..3_u32,
        select(vec![Effect::Allow, Effect::Deny]),
        subsequence(Role::ALL.to_vec(), 0..=2),
        subsequence(vec![AccountType::Human, AccountType::System], 0..=2),
        (names(), patterns(&PATTERNS), names(), patterns(&["pull", "pu*", "tag.delete"])),
    )
        .prop_map(
            |(priority, effect, roles, account_types, (accounts, resources, resource_tags, operations))| {
                Rule {
                    name: name("x"),
                    priority,
                    effect,
                    roles,
                    account_types,
                    accounts,
                    resources,
                    resource_tags,
                    operations,
                }
            },
        )
}

fn any_account() -> impl Strategy<Value = Account> {
    let people = (select(NAMES.to_vec()), subsequence(Role::ALL.to_vec(), 0..=3));
    prop_oneof![
        people.prop_map(|(account, roles)| human(account, &roles)),
        select(NAMES.to_vec()).prop_map(system),
    ]
}

/// The specification: of all rules that match, the lowest priority decides; on a tie, deny wins.
fn oracle(rules: &[Rule], default: Effect, question: &Question<'_>) -> Effect {
    let Question { account, resource, resource_tags, operation } = *question;
    let own_name = account.name().as_str();
    let resource_matches = |pattern: &Pattern| match pattern.as_str() {
        "**" => true,
        "*" => !resource.contains('/'),
        "b/*" => resource.strip_prefix("b/").is_some_and(|rest| !rest.contains('/')),
        "{account}/**" => resource.strip_prefix(own_name).is_some_and(|rest| rest.starts_with('/')),
        literal => literal == resource,
    };
    let operation_matches = |pattern: &Pattern| match pattern.as_str() {
        "pu*" => operation.starts_with("pu"),
        literal => literal == operation,
    };
    let matching = rules.iter().filter(|rule| {
        (rule.roles.is_empty()
            || rule.roles.iter().any(|role| account.roles().words().any(|own| own == role.as_str())))
            && (rule.account_types.is_empty() || rule.account_types.contains(&account.account_type()))
            && (rule.accounts.is_empty() || rule.accounts.iter().any(|name| name.as_str() == own_name))
            && (rule.resources.is_empty() || rule.resources.iter().any(resource_matches))
            && rule.resource_tags.iter().all(|tag| resource_tags.contains(tag))
            && (rule.operations.is_empty() || rule.operations.iter().any(operation_matches))
    });
    let decisions: Vec<_> = matching.map(|rule| (rule.priority, rule.effect)).collect();
    let Some(lowest) = decisions.iter().map(|(priority, _)| *priority).min() else { return default };
    if decisions.contains(&(lowest, Effect::Deny)) { Effect::Deny } else { Effect::Allow }
}

proptest! {
    #[test]
    fn it_does_what_the_specification_says(
        mut rules in vec(any_rule(), 0..12),
        default in select(vec![Effect::Allow, Effect::Deny]),
        account in any_account(),
        resource in select(RESOURCES.to_vec()),
        tags in names(),
        operation in select(SPEC.operations.to_vec()),
        turn in 0..12_usize,
    ) {
        for (number, rule) in rules.iter_mut().enumerate() {
            rule.name = name(&format!("rule-{number}"));
        }
        let resource_tags = tags.into_iter().collect();
        let question = Question { account: &account, resource, resource_tags: &resource_tags, operation };
        let expected = oracle(&rules, default, &question);
        let policy = Policy::new(&SPEC, Document { default, rules: rules.clone() }).unwrap();
        prop_assert_eq!(policy.decide(&question), expected);
        let explanation = policy.explain(&question);
        prop_assert_eq!(explanation.effect, expected);
        let matching = rules.iter().filter(|rule| rule.matches(&SPEC, &question)).count();
        let decided = usize::from(matches!(explanation.decider, Decider::Rule(_)));
        prop_assert_eq!(explanation.other_matches.len() + decided, matching);
        prop_assert!(explanation.examined.iter().all(|examined| !examined.reason.is_empty()));
        // The order in which the rules were written decides nothing.
        let by = turn % rules.len().max(1);
        rules.rotate_left(by);
        prop_assert_eq!(Policy::new(&SPEC, Document { default, rules }).unwrap(), policy);
    }
}

#[test]
fn lists_are_bounded_each_and_together() {
    let with = |rules: usize, entries: usize| {
        let rules = (0..rules).map(|at| {
            let patterns = (0..entries).map(|entry| Pattern::parse(&format!("{at}/{entry}/*")).unwrap());
            Rule {
                resources: patterns.collect(),
                ..rule(&format!(r#"{{"name":"r{at}","priority":1,"effect":"deny"}}"#))
            }
        });
        Policy::new(&SPEC, Document { default: Effect::Allow, rules: rules.collect() })
    };
    let refused = |rules, entries| with(rules, entries).unwrap_err().to_string();
    assert!(with(2, 200).is_ok());
    assert_eq!(refused(1, 201), "rules[0].resources: there are 201 entries; a list has at most 200");
    assert_eq!(refused(3, 150), "rules: their lists have 450 entries together; a policy has at most 400");
    // What is left to match is counted: rules, entries and tokens.
    assert_eq!(with(2, 3).unwrap().work(), 2 * (1 + 3 * 2));
}
