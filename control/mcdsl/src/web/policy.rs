//! Parts of the pages about a policy: its rules, explanations, revisions and what differs between them. They are functions over the
//! messages of `metacircular.policy.v1`; the service's page is around them.

use maud::{Markup, html};
use mc_api::policy as api;

use crate::context::NOBODY;
use crate::policy::Noun;
use crate::web::{self, Column, Icon, Tone};

/// Where a page's links lead.
#[derive(Clone, Copy, Debug)]
pub struct Links<'a> {
    /// To edit a rule; its name is appended: `/policy/rule?name=`.
    pub edit_rule: &'a str,
    /// To change the default.
    pub edit_default: &'a str,
}

/// The rules in the order in which they decide, and the default as the last row.
#[must_use]
pub fn rules(policy: &api::PolicyDocument, noun: Noun, links: Links<'_>) -> Markup {
    let row = |rule: &api::Rule| {
        vec![
            html! {
                a href={ (links.edit_rule) (rule.name) } { (rule.name) }
                small { (sentence(rule, noun)) }
            },
            html! { (rule.priority) },
            effect(&rule.effect),
            html! { a.bare href={ (links.edit_rule) (rule.name) } { "Edit" span.hidden { " " (rule.name) } } },
        ]
    };
    let mut rows: Vec<_> = policy.rules.iter().map(row).collect();
    rows.push(vec![
        html! { "No rule matches" small { "The default decides" } },
        html! {},
        effect(&policy.default),
        html! { a.bare href=(links.edit_default) { "Change" span.hidden { " the default" } } },
    ]);
    let columns =
        [Column::plain("Rule"), Column::number("Priority"), Column::state("Effect"), Column::action()];
    web::panel(
        "Rules",
        "The lowest matching priority decides; on a tie, Deny wins",
        html! {},
        web::table("Rules", &columns, &rows),
    )
}

/// A rule as a sentence: "Role guest to services tagged prod".
#[must_use]
pub fn sentence(rule: &api::Rule, noun: Noun) -> Markup {
    let subjects = [("role", &rule.roles), ("type", &rule.account_types), ("account", &rule.accounts)];
    let subjects: Vec<_> = subjects.into_iter().filter(|(_, words)| !words.is_empty()).collect();
    let one = if rule.resources.is_empty() { noun.many } else { noun.one };
    html! {
        @if subjects.is_empty() { "Any account" }
        @for (index, (label, words)) in subjects.iter().enumerate() {
            @if index == 0 { (capitalized(label)) " " } @else { ", " (label) " " }
            (alternatives(words, "or"))
        }
        @if !rule.operations.is_empty() { " for " (alternatives(&rule.operations, "or")) }
        @if rule.resources.is_empty() && rule.resource_tags.is_empty() {
            " to any " (noun.one)
        } @else {
            " to " (one)
            @if !rule.resources.is_empty() { " " (alternatives(&rule.resources, "or")) }
            @if !rule.resource_tags.is_empty() { " tagged " (alternatives(&rule.resource_tags, "and")) }
        }
    }
}

/// The answer to a question: the decision, every rule that was examined with the reason, and what else matches. `link` leads to the same
/// answer again; empty: nothing does.
#[must_use]
pub fn explanation(answer: &api::ExplainPolicyResponse, noun: Noun, link: &str) -> Markup {
    let (tone, icon, verdict) = if answer.effect == "allow" {
        (Tone::Good, Icon::ALLOWED, "Allowed")
    } else {
        (Tone::Bad, Icon::DENIED, "Denied")
    };
    let hidden = answer.examined.len().saturating_sub(MAX_EXAMINED);
    let not_reached = not_reached(answer);
    html! {
        @for warning in &answer.warnings {
            (web::padded(web::note(Tone::Warning, html! { p { (web::sentence(&warning.message)) } })))
        }
        div class={ "verdict " (tone.class()) } role="status" {
            (icon.svg())
            div { strong { (verdict) } p { (decided_by(answer)) } }
        }
        @if !answer.resource_tags.is_empty() {
            p.under.hint { (capitalized(noun.one)) " tags: " (alternatives(&answer.resource_tags, "and")) }
        }
        @if hidden > 0 { p.under.hint { (hidden) " rules before these were passed over." } }
        ol class={ "examined " (tone.class()) } {
            @for rule in answer.examined.iter().skip(hidden) {
                li.decides[rule.matches] {
                    @if rule.matches {
                        strong { (rule.priority) " " (rule.name) " decides" }
                    } @else {
                        strong { (rule.priority) } " " (rule.name)
                    }
                    p.small { (rule.reason) }
                }
            }
        }
        @if not_reached.is_some() || !answer.other_matches.is_empty() || !link.is_empty() {
            p.under.hint {
                @if let Some(text) = not_reached { (text) " " }
                @if !answer.other_matches.is_empty() {
                    "Also matching: "
                    @for (index, rule) in answer.other_matches.iter().enumerate() {
                        @if index > 0 { ", " }
                        (rule.priority) " " (rule.name) " (" (effect_word(&rule.effect)) ")"
                    }
                    ". "
                }
                @if !link.is_empty() { a href=(link) { "Link to this answer" } }
            }
        }
    }
}

/// A decision in a cell: what, and by what.
#[must_use]
pub fn verdict(answer: &api::ExplainPolicyResponse) -> Markup {
    html! { (effect(&answer.effect)) " " (decided_by(answer)) }
}

/// The last ones are shown: the decision is among them.
const MAX_EXAMINED: usize = 100;

fn decided_by(answer: &api::ExplainPolicyResponse) -> String {
    match (&answer.deciding_rule, answer.decided_by.as_str()) {
        (Some(rule), _) => format!("by rule {}, {}", rule.priority, rule.name),
        (None, "admin") => "because the account has role admin, which the rules do not restrict".to_owned(),
        (None, _) => "by the default: no rule matches".to_owned(),
    }
}

fn not_reached(answer: &api::ExplainPolicyResponse) -> Option<String> {
    answer.deciding_rule.as_ref()?;
    Some(match answer.not_reached {
        0 => "The default was not reached.".to_owned(),
        1 => "1 rule and the default were not reached.".to_owned(),
        more => format!("{more} rules and the default were not reached."),
    })
}

/// Rules that are valid and probably do not do what they were written for; nothing where there are none.
#[must_use]
pub fn warnings(warnings: &[api::Warning]) -> Markup {
    html! {
        @if !warnings.is_empty() {
            (web::note(Tone::Warning, html! {
                p { "Rules that may not do what they were written for:" }
                ul { @for warning in warnings { li { code { (warning.field) } ": " (warning.message) } } }
            }))
        }
    }
}

/// What a draft would change: decisions, and the uses of the last 30 days that it would have denied.
#[must_use]
pub fn changes(check: &api::CheckPolicyResponse, noun: Noun) -> Markup {
    let row = |change: &api::DecisionChange| {
        vec![
            html! { (change.account) },
            html! { (change.resource) },
            effect(&change.before),
            effect(&change.after),
            html! { (change.recent_uses) },
        ]
    };
    let rows: Vec<_> = check.changes.iter().map(row).collect();
    let resource = capitalized(noun.one);
    let columns = [
        Column::plain("Account"),
        Column::plain(&resource),
        Column::text("Now"),
        Column::text("Then"),
        Column::number("Uses in 30 days"),
    ];
    let (denied, all) = (check.recent_uses_denied, check.recent_uses);
    let tone = if denied > 0 { Tone::Warning } else { Tone::Info };
    html! {
        (web::padded(html! {
            (warnings(&check.warnings))
            (web::note(tone, html! {
                p { "Of " (all) " uses in the last 30 days, " strong { (denied) " would have been denied" } "." }
            }))
        }))
        @if rows.is_empty() {
            (web::empty_state("No changes", "Everybody may do what they may do now.", None))
        } @else {
            (web::table("Decisions that would change", &columns, &rows))
            @if check.more_changes { p.under.hint { "There are more than these." } }
        }
    }
}

/// Revisions, newest first. A revision's number leads to what it changed: it is appended to `diff_href`, `/policy/diff?to=`.
#[must_use]
pub fn revisions(now: i64, list: &api::ListPolicyRevisionsResponse, diff_href: &str) -> Markup {
    let row = |revision: &api::PolicyRevision| {
        let number = revision.revision;
        vec![
            html! {
                @if number > 1 { a href={ (diff_href) (number) } { "Revision " (number) } } @else { "Revision " (number) }
            },
            web::ago(now, revision.created_at),
            html! { @if revision.actor != NOBODY { (revision.actor) } },
            html! { (revision.rules) },
            web::state(
                effect_tone(&revision.default),
                &format!("{} by default", effect_word(&revision.default)),
            ),
        ]
    };
    let rows: Vec<_> = list.revisions.iter().map(row).collect();
    let columns = [
        Column::plain("Revision"),
        Column::text("Created"),
        Column::text("By"),
        Column::number("Rules"),
        Column::state("Default"),
    ];
    web::table("Revisions", &columns, &rows)
}

/// What differs between two revisions, as lines that begin with `+` or `-`.
#[must_use]
pub fn diff(diff: &api::DiffPolicyResponse) -> Markup {
    let mut lines = Vec::new();
    if let Some(change) = &diff.default {
        lines.extend(field_lines("", change));
    }
    lines.extend(diff.removed.iter().flat_map(|rule| rule_lines('-', rule)));
    lines.extend(diff.added.iter().flat_map(|rule| rule_lines('+', rule)));
    for rule in &diff.changed {
        lines.push(format!("  rule {}", rule.name));
        lines.extend(rule.fields.iter().flat_map(|change| field_lines("  ", change)));
    }
    let title = format!("Changes from revision {} to {}", diff.from, diff.to);
    html! {
        @if lines.is_empty() {
            (web::empty_state("No changes", "Both revisions decide the same.", None))
        } @else {
            (web::diff_block(&title, &lines))
        }
    }
}

fn rule_lines(sign: char, rule: &api::Rule) -> Vec<String> {
    let lists = [
        ("roles", &rule.roles),
        ("account_types", &rule.account_types),
        ("accounts", &rule.accounts),
        ("resources", &rule.resources),
        ("resource_tags", &rule.resource_tags),
        ("operations", &rule.operations),
    ];
    let mut lines = vec![
        format!("{sign} rule {}", rule.name),
        format!("{sign}   priority: {}", rule.priority),
        format!("{sign}   effect: {}", rule.effect),
    ];
    let filled = lists.iter().filter(|(_, words)| !words.is_empty());
    lines.extend(filled.map(|(field, words)| format!("{sign}   {field}: {}", words.join(", "))));
    lines
}

fn field_lines(indent: &str, change: &api::FieldChange) -> Vec<String> {
    let line = |sign: char, values: &[String]| {
        (!values.is_empty()).then(|| format!("{sign} {indent}{}: {}", change.field, values.join(", ")))
    };
    [line('-', &change.before), line('+', &change.after)].into_iter().flatten().collect()
}

fn effect(word: &str) -> Markup {
    web::state(effect_tone(word), effect_word(word))
}

fn effect_tone(word: &str) -> Tone {
    if word == "deny" { Tone::Bad } else { Tone::Good }
}

fn effect_word(word: &str) -> &'static str {
    if word == "deny" { "Deny" } else { "Allow" }
}

fn alternatives(words: &[String], conjunction: &str) -> Markup {
    html! {
        @for (index, word) in words.iter().enumerate() {
            @if index > 0 && index + 1 == words.len() { " " (conjunction) " " } @else if index > 0 { ", " }
            (web::tag(word))
        }
    }
}

fn capitalized(word: &str) -> String {
    let mut characters = word.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOUN: Noun = Noun { one: "service", many: "services" };

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    /// A page's text without its tags.
    fn text(markup: &Markup) -> String {
        let parts =
            markup.0.split('<').filter_map(|part| part.split_once('>').map(|(_, text)| text).or(Some(part)));
        parts.collect()
    }

    fn rule(name: &str, change: impl Fn(&mut api::Rule)) -> api::Rule {
        let mut rule = api::Rule {
            name: name.to_owned(),
            priority: 7,
            effect: "deny".to_owned(),
            ..api::Rule::default()
        };
        change(&mut rule);
        rule
    }

    #[test]
    fn a_rule_is_a_sentence() {
        for (rule, expected) in [
            (rule("a", |_| ()), "Any account to any service"),
            (
                rule("a", |rule| {
                    rule.roles = words(&["user", "guest"]);
                    rule.resource_tags = words(&["prod", "eu"]);
                }),
                "Role user or guest to services tagged prod and eu",
            ),
            (
                rule("a", |rule| {
                    rule.roles = words(&["user"]);
                    rule.accounts = words(&["ada"]);
                    rule.resources = words(&["a", "b", "c"]);
                    rule.operations = words(&["push"]);
                }),
                "Role user, account ada for push to service a, b or c",
            ),
        ] {
            assert_eq!(text(&sentence(&rule, NOUN)), expected);
        }
    }

    #[test]
    fn the_default_is_the_last_row() {
        let policy = api::PolicyDocument {
            default: "allow".to_owned(),
            rules: vec![rule("guests", |rule| rule.roles = words(&["<guest>"]))],
            ..api::PolicyDocument::default()
        };
        let links = Links { edit_rule: "/policy/rule?name=", edit_default: "/policy/default" };
        let page = rules(&policy, NOUN, links);
        assert!(page.0.contains("&lt;guest&gt;") && !page.0.contains("<guest>"), "{}", page.0);
        assert!(page.0.contains("href=\"/policy/rule?name=guests\""), "{}", page.0);
        let last = page.0.rsplit("<tr").next().unwrap();
        assert!(
            last.contains("No rule matches") && last.contains("Allow") && last.contains("/policy/default"),
            "{last}"
        );
        assert!(!page.0.contains("style="), "{}", page.0);
    }

    #[test]
    fn an_explanation_shows_each_rule_with_its_reason() {
        let examined = |name: &str, matches, reason: &str| api::ExaminedRule {
            name: name.to_owned(),
            priority: 7,
            effect: "deny".to_owned(),
            matches,
            reason: reason.to_owned(),
        };
        let answer = api::ExplainPolicyResponse {
            effect: "deny".to_owned(),
            decided_by: "rule".to_owned(),
            deciding_rule: Some(rule("b", |_| ())),
            examined: vec![
                examined("a", false, "bob has role user, not guest"),
                examined("b", true, "The rule matches everything"),
            ],
            other_matches: vec![rule("c", |_| ())],
            not_reached: 2,
            resource_tags: words(&["prod", "eu"]),
            warnings: vec![api::Warning {
                message: "there is no service `mcr`. Only the tags given here are used".to_owned(),
                ..Default::default()
            }],
        };
        let page = explanation(&answer, NOUN, "/policy?account=bob&service=mcr");
        let shown = text(&page);
        let expected = [
            "There is no service “mcr”. Only the tags given here are used.",
            "Denied",
            "by rule 7, b",
            "Service tags: prod and eu",
            "7 a",
            "bob has role user, not guest",
            "7 b decides",
            "2 rules and the default were not reached.",
            "Also matching: 7 c (Deny).",
        ];
        let mut rest = shown.as_str();
        for part in expected {
            let at = rest.find(part).unwrap_or_else(|| panic!("{part} is not in {rest}"));
            rest = &rest[at..];
        }
        assert!(page.0.contains("href=\"/policy?account=bob&amp;service=mcr\""), "{}", page.0);
        let none = api::ExplainPolicyResponse {
            effect: "allow".to_owned(),
            decided_by: "default".to_owned(),
            ..Default::default()
        };
        let page = explanation(&none, NOUN, "");
        assert!(text(&page).contains("by the default: no rule matches"));
        assert!(!page.0.contains("under"), "what there is nothing to say about has no room: {}", page.0);
    }

    #[test]
    fn changes_say_what_would_have_been_denied() {
        let change = api::DecisionChange {
            account: "<bob>".to_owned(),
            resource: "mcr".to_owned(),
            before: "allow".to_owned(),
            after: "deny".to_owned(),
            recent_uses: 7,
            ..Default::default()
        };
        let check = api::CheckPolicyResponse {
            changes: vec![change],
            more_changes: true,
            recent_uses: 9,
            recent_uses_denied: 8,
            ..Default::default()
        };
        let page = changes(&check, NOUN);
        assert!(page.0.contains("&lt;bob&gt;") && !page.0.contains("<bob>"), "{}", page.0);
        let shown = text(&page);
        for part in ["Of 9 uses", "8 would have been denied", "mcrAllowDeny7", "There are more"] {
            assert!(shown.contains(part), "{part} is not in {shown}");
        }
        assert!(text(&changes(&api::CheckPolicyResponse::default(), NOUN)).contains("No changes"));
    }

    #[test]
    fn a_diff_has_a_sign_on_each_line_that_changes() {
        let field = |field: &str, before: &[&str], after: &[&str]| api::FieldChange {
            field: field.to_owned(),
            before: words(before),
            after: words(after),
        };
        let message = api::DiffPolicyResponse {
            from: 1,
            to: 2,
            default: Some(field("default", &["deny"], &["allow"])),
            added: vec![rule("new", |rule| rule.roles = words(&["user"]))],
            removed: vec![rule("old", |_| ())],
            changed: vec![api::RuleChange {
                name: "same".to_owned(),
                fields: vec![field("roles", &[], &["user", "guest"])],
            }],
        };
        let expected = [
            "- default: deny",
            "+ default: allow",
            "- rule old",
            "-   priority: 7",
            "-   effect: deny",
            "+ rule new",
            "+   priority: 7",
            "+   effect: deny",
            "+   roles: user",
            "  rule same",
            "+   roles: user, guest",
        ];
        assert_eq!(text(&diff(&message)), expected.concat());
        assert!(text(&diff(&api::DiffPolicyResponse::default())).contains("No changes"));
    }
}
