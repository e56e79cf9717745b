//! Why a decision is what it is, in words for the reader.

use super::{Criterion, Effect, Pattern, Policy, PolicySpec, Question, Rule};
use crate::identity::{AccountType, Role};

/// A decision, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation<'p> {
    /// The decision.
    pub effect: Effect,
    /// What decided.
    pub decider: Decider<'p>,
    /// Every rule that was examined, in order; the last is the one that decided, where a rule did.
    pub examined: Vec<ExaminedRule<'p>>,
    /// Rules after the one that decided, which match too, in the order in which they would have decided.
    pub other_matches: Vec<&'p Rule>,
}

/// What decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decider<'p> {
    /// The matching rule of the lowest priority.
    Rule(&'p Rule),
    /// No rule matches.
    Default,
    /// The account has role `admin`, which this service's rules do not restrict.
    AdminBypass,
}

/// A rule that was examined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExaminedRule<'p> {
    /// The rule.
    pub rule: &'p Rule,
    /// Whether it matches, and so decides.
    pub matches: bool,
    /// Why it does or does not match: `bob has role user, not guest`.
    pub reason: String,
}

/// A decision that a draft would change.
#[derive(Clone, Debug)]
pub struct DecisionChange<'q> {
    /// The question.
    pub question: Question<'q>,
    /// The decision of the policy in force.
    pub before: Effect,
    /// The decision of the draft.
    pub after: Effect,
}

/// The decisions that differ between the policy in force and a draft.
pub fn decision_changes<'q>(
    current: &Policy,
    draft: &Policy,
    questions: impl IntoIterator<Item = Question<'q>>,
) -> impl Iterator<Item = DecisionChange<'q>> {
    let compare = |question| {
        let (before, after) = (current.decide(&question), draft.decide(&question));
        (before != after).then_some(DecisionChange { question, before, after })
    };
    questions.into_iter().filter_map(compare)
}

impl Policy {
    /// The decision, and why. It is always that of [`Policy::decide`].
    #[must_use]
    pub fn explain(&self, question: &Question<'_>) -> Explanation<'_> {
        if self.is_bypassed(question) {
            let (effect, decider) = (Effect::Allow, Decider::AdminBypass);
            return Explanation { effect, decider, examined: Vec::new(), other_matches: Vec::new() };
        }
        let mut rules = self.rules.iter();
        let mut examined = Vec::new();
        let mut deciding = None;
        for rule in rules.by_ref() {
            let matches = rule.matches(self.spec, question);
            examined.push(ExaminedRule { rule, matches, reason: reason(rule, matches, self.spec, question) });
            if matches {
                deciding = Some(rule);
                break;
            }
        }
        Explanation {
            effect: deciding.map_or(self.default, |rule| rule.effect),
            decider: deciding.map_or(Decider::Default, Decider::Rule),
            examined,
            other_matches: rules.filter(|rule| rule.matches(self.spec, question)).collect(),
        }
    }
}

/// Why a rule matches, or everything because of which it does not.
fn reason(rule: &Rule, matches: bool, spec: &PolicySpec, question: &Question<'_>) -> String {
    let relevant = Criterion::ALL
        .into_iter()
        .filter(|criterion| !criterion.is_open(rule) && (matches || !criterion.is_met(rule, spec, question)));
    let phrases = relevant.map(|criterion| {
        if matches { met(criterion, rule, spec, question) } else { missed(criterion, rule, spec, question) }
    });
    let text = phrases.collect::<Vec<_>>().join("; ");
    if text.is_empty() {
        return "The rule matches everything".to_owned();
    }
    // Other phrases begin with the name of the account, which is what it is.
    text.strip_prefix("the ").map(|rest| format!("The {rest}")).unwrap_or(text)
}

fn met(criterion: Criterion, rule: &Rule, spec: &PolicySpec, question: &Question<'_>) -> String {
    let Question { account, resource, operation, .. } = *question;
    let (name, noun) = (account.name(), spec.resource_noun.one);
    match criterion {
        Criterion::Role => {
            let relevant = rule.roles.iter().copied().filter(|role| account.roles().has(*role));
            format!("{name} has {}", roles(relevant.map(Role::as_str)))
        }
        Criterion::AccountType => format!("{name} is a {} account", account.account_type().as_str()),
        Criterion::Account => format!("the account is {name}"),
        Criterion::Resource => format!("the {noun} is {resource}"),
        Criterion::ResourceTags => format!("the {noun} is tagged {}", list(&rule.resource_tags, "and")),
        Criterion::Operation => format!("the operation is {operation}"),
    }
}

fn missed(criterion: Criterion, rule: &Rule, spec: &PolicySpec, question: &Question<'_>) -> String {
    let Question { account, resource, resource_tags, operation } = *question;
    let (name, noun) = (account.name(), spec.resource_noun.one);
    match criterion {
        Criterion::Role if account.account_type() == AccountType::System => {
            format!("{name} is a system account, which has no roles")
        }
        Criterion::Role => {
            let expected = list(rule.roles.iter().map(|role| role.as_str()), "or");
            format!("{name} has {}, not {expected}", roles(account.roles().words()))
        }
        Criterion::AccountType => {
            let expected = list(rule.account_types.iter().map(|kind| kind.as_str()), "or");
            format!("{name} is a {} account, not {expected}", account.account_type().as_str())
        }
        Criterion::Account => format!("the account is {name}, not {}", list(&rule.accounts, "or")),
        Criterion::Resource => {
            let patterns = rule.resources.iter().map(|pattern| for_account(pattern, name.as_str()));
            format!("the {noun} is {resource}, not {}", list(patterns, "or"))
        }
        Criterion::ResourceTags => {
            let missing = rule.resource_tags.iter().filter(|tag| !resource_tags.contains(*tag));
            format!("the {noun} is not tagged {}", list(missing, "or"))
        }
        Criterion::Operation => format!("the operation is {operation}, not {}", list(&rule.operations, "or")),
    }
}

/// A pattern, with what it is for this account.
fn for_account(pattern: &Pattern, account: &str) -> String {
    pattern.for_account(account).map_or_else(|| pattern.to_string(), |text| format!("{pattern} ({text})"))
}

fn roles(words: impl Iterator<Item = &'static str>) -> String {
    let words: Vec<_> = words.collect();
    match &*words {
        [] => "no role".to_owned(),
        [one] => format!("role {one}"),
        more => format!("roles {}", list(more, "and")),
    }
}

/// `a, b or c`. A long list is cut: the rule has all of it.
pub(super) fn list<T: ToString>(words: impl IntoIterator<Item = T>, conjunction: &str) -> String {
    let mut words: Vec<_> = words.into_iter().map(|word| word.to_string()).collect();
    if words.len() > MAX_LISTED {
        let others = words.split_off(MAX_LISTED - 1).len();
        words.push(format!("{others} others"));
    }
    let last = words.pop().unwrap_or_default();
    if words.is_empty() { last } else { format!("{} {conjunction} {last}", words.join(", ")) }
}

const MAX_LISTED: usize = 6;
