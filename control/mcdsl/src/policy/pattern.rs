//! Patterns for resources and operations: literal text, `*`, `**` and `{account}`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A pattern that a whole text must match.
///
/// `*` matches any characters within one part of the text, `**` any characters; where a part ends is up to the service
/// ([`super::PolicySpec::separators`]). `{account}` matches the name of the account that asks, literally: a name cannot smuggle in a
/// wildcard. Upper and lower case differ: a service whose resources do not distinguish them normalizes both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    text: Box<str>,
    tokens: Box<[Token]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Literal(Box<str>),
    /// `{account}`.
    Account,
    /// `*`.
    WithinPart,
    /// `**`.
    Anything,
}

/// Why a text is not a [`Pattern`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidPattern(String);

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// Returns an error that says what a pattern looks like.
    pub fn parse(text: &str) -> Result<Self, InvalidPattern> {
        let invalid = |problem: String| Err(InvalidPattern(problem));
        if text.is_empty() || text.len() > MAX_LENGTH {
            return invalid(format!(
                "a pattern has 1 to {MAX_LENGTH} characters, not {}",
                text.chars().count()
            ));
        }
        if let Some(other) = text.chars().find(|c| !c.is_ascii_graphic()) {
            return invalid(format!(
                "`{text}` contains {other:?}; a pattern consists of visible ASCII characters"
            ));
        }
        if text.contains("***") {
            return invalid(format!("`{text}` contains `***`; use `*` (within one part) or `**` (anything)"));
        }
        let mut tokens = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['*', '{', '}']) {
            let (literal, special) = rest.split_at(at);
            if !literal.is_empty() {
                tokens.push(Token::Literal(literal.into()));
            }
            let known = [("**", Token::Anything), ("*", Token::WithinPart), (ACCOUNT, Token::Account)];
            let Some((word, token)) = known.into_iter().find(|(word, _)| special.starts_with(word)) else {
                return invalid(format!("`{text}` contains a brace; the only placeholder is `{ACCOUNT}`"));
            };
            tokens.push(token);
            rest = &special[word.len()..];
        }
        if !rest.is_empty() {
            tokens.push(Token::Literal(rest.into()));
        }
        let wildcards = tokens.iter().filter(|token| !matches!(token, Token::Literal(_))).count();
        if wildcards > MAX_WILDCARDS {
            return invalid(format!(
                "`{text}` has {wildcards} wildcards and placeholders; a pattern has at most {MAX_WILDCARDS}"
            ));
        }
        Ok(Self { text: text.into(), tokens: tokens.into() })
    }

    /// Whether a whole text matches, for the account that asks.
    #[must_use]
    pub fn matches(&self, text: &str, account: &str, separators: &str) -> bool {
        // Most rules name things: no allocation for those.
        if let [Token::Literal(literal)] = &*self.tokens {
            return **literal == *text;
        }
        // Most texts are of another part of the tree: no allocation for those either.
        if let Some(Token::Literal(literal)) = self.tokens.first()
            && !text.starts_with(&**literal)
        {
            return false;
        }
        let text = text.as_bytes();
        // Every place in the text that the tokens so far can lead to: the time is bounded by the product of both lengths.
        let mut places = vec![false; text.len() + 1];
        places[0] = true;
        for token in &self.tokens {
            places = match token {
                Token::Literal(literal) => after_literal(&places, text, literal.as_bytes()),
                Token::Account => after_literal(&places, text, account.as_bytes()),
                Token::WithinPart => after_wildcard(&places, text, separators.as_bytes()),
                Token::Anything => after_wildcard(&places, text, b""),
            };
        }
        places[text.len()]
    }

    /// The one text that matches, where there is only one for all accounts.
    #[must_use]
    pub fn literal(&self) -> Option<&str> {
        matches!(&*self.tokens, [Token::Literal(_)]).then_some(&*self.text)
    }

    /// How much work it is to match it, compared with a name: its tokens.
    pub(super) const fn work(&self) -> usize {
        self.tokens.len()
    }

    /// The pattern for one account, where it names the account that asks.
    pub(super) fn for_account(&self, account: &str) -> Option<String> {
        self.tokens.contains(&Token::Account).then(|| self.text.replace(ACCOUNT, account))
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

fn after_literal(places: &[bool], text: &[u8], literal: &[u8]) -> Vec<bool> {
    let mut next = vec![false; places.len()];
    for (at, _) in places.iter().enumerate().filter(|(_, reached)| **reached) {
        if text[at..].starts_with(literal) {
            next[at + literal.len()] = true;
        }
    }
    next
}

fn after_wildcard(places: &[bool], text: &[u8], separators: &[u8]) -> Vec<bool> {
    let mut next = places.to_vec();
    for (at, byte) in text.iter().enumerate() {
        if next[at] && !separators.contains(byte) {
            next[at + 1] = true;
        }
    }
    next
}

const MAX_LENGTH: usize = 255;

/// The time to match grows with their number.
const MAX_WILDCARDS: usize = 8;

const ACCOUNT: &str = "{account}";

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Pattern {
    type Error = InvalidPattern;

    fn try_from(text: String) -> Result<Self, InvalidPattern> {
        Self::parse(&text)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, separators: &str, matching: &[&str], others: &[&str]) {
        let parsed = Pattern::parse(pattern).unwrap();
        for text in matching {
            assert!(parsed.matches(text, "mcq", separators), "{pattern} does not match {text}");
        }
        for text in others {
            assert!(!parsed.matches(text, "mcq", separators), "{pattern} matches {text}");
        }
        assert_eq!(parsed.to_string(), pattern);
    }

    #[test]
    fn a_wildcard_ends_where_its_part_does() {
        check(
            "team/*",
            "/",
            &["team/app", "team/app.web", "team/"],
            &["team", "team/a/b", "a/team/b", "teams/a"],
        );
        check("team/**", "/", &["team/app", "team/a/b", "team/"], &["team", "teams/a"]);
        check("*.svc.example.org", ".", &["a.svc.example.org"], &["a.b.svc.example.org", "svc.example.org"]);
        check(
            "**.example.org",
            ".",
            &["a.svc.example.org", "a.example.org"],
            &["example.org", "a.example.com"],
        );
        check("ca/*/*.svc", "/.", &["ca/x/a.svc"], &["ca/x/y/a.svc", "ca/x/a.b.svc", "ca/x.y/a.svc"]);
        check("a*b*c", "/", &["abc", "aXbYc", "abcbc"], &["ab", "a/bc", "abcd"]);
        // What the second wildcard cannot take, the first one must.
        check("**/a*b", "/", &["x/a/ab", "y/acb", "/ab"], &["x/a/b", "ab"]);
        check("*", "/", &["", "anything"], &["a/b"]);
        check("*", "", &["", "anything", "a/b.c"], &[]);
        check("mcr", "/", &["mcr"], &["mcr2", "mc", ""]);
    }

    #[test]
    fn a_pattern_names_the_account_that_asks() {
        check(
            "{account}.svc.example.org",
            ".",
            &["mcq.svc.example.org"],
            &["mcr.svc.example.org", "{account}.svc.example.org"],
        );
        check("home/{account}/**", "/", &["home/mcq/a/b"], &["home/mcr/a", "home/mcq"]);
        let pattern = Pattern::parse("{account}").unwrap();
        assert!(pattern.matches("a.b", "a.b", ".") && !pattern.matches("a.c", "a.*", "."));
        assert_eq!(pattern.for_account("mcq").as_deref(), Some("mcq"));
    }

    #[test]
    fn many_wildcards_do_not_multiply() {
        let pattern = Pattern::parse(&"*a".repeat(MAX_WILDCARDS)).unwrap();
        assert!(pattern.matches(&"a".repeat(4000), "mcq", "/"));
        assert!(!pattern.matches(&"ab".repeat(4000), "mcq", "/"));
    }

    #[test]
    fn what_is_not_a_pattern_is_refused() {
        for (text, expected) in [
            ("", "1 to 255"),
            (&*"x".repeat(256), "not 256"),
            ("a b", "' '"),
            ("ä", "'ä'"),
            ("a***", "`***`"),
            ("{user}", "`{account}`"),
            ("a}", "`{account}`"),
            ("{account", "`{account}`"),
            (&*"*a".repeat(9), "has 9 wildcards"),
            (&*"{account}".repeat(9), "at most 8"),
        ] {
            let problem = Pattern::parse(text).unwrap_err().to_string();
            assert!(problem.contains(expected), "{text:?}: {problem}");
        }
        assert!(serde_json::from_str::<Pattern>("\"{a}\"").is_err());
        assert_eq!(serde_json::to_string(&Pattern::parse("a/*").unwrap()).unwrap(), "\"a/*\"");
    }
}
