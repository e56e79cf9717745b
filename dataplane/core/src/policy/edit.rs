//! Changes that policies make to the fields of a message.

use super::Set;
use crate::content_coding::{Coding, Compressible};
use crate::http1::{Known, is_same_variable};
use crate::model::{EditFields, Hsts, Policy, Rule};

/// What becomes of a message's fields.
#[derive(Debug, Default)]
pub struct Edits<'p> {
    edits: Vec<&'p EditFields>,
    hsts: Option<String>,
    cookie: Option<&'p str>,
    coded: Option<(Compressible, Option<Coding>)>,
}

/// A field of a message as it is passed on.
pub type FieldRef<'a> = (Known, &'a [u8], &'a [u8]);

impl<'p> Edits<'p> {
    /// What the applied policies change of a request.
    #[must_use]
    pub fn of_request(applied: Set, policies: &'p [Policy]) -> Self {
        let edits = applied.rules(policies).filter_map(|rule| match rule {
            Rule::RequestHeaders(edit) => Some(edit),
            _ => None,
        });
        Self { edits: edits.collect(), ..Self::default() }
    }

    /// What they change of a response.
    #[must_use]
    pub fn of_response(applied: Set, policies: &'p [Policy]) -> Self {
        let mut all = Self::default();
        for rule in applied.rules(policies) {
            match rule {
                Rule::ResponseHeaders(edit) => all.edits.push(edit),
                Rule::Hsts(hsts) => all.hsts = Some(hsts.to_string()),
                _ => {}
            }
        }
        all
    }

    /// Adds a `Set-Cookie` with this value, beside those that are there.
    #[must_use]
    pub fn with_cookie(mut self, cookie: Option<&'p str>) -> Self {
        self.cookie = cookie;
        self
    }

    /// Says that the content depends on `Accept-Encoding`, and which coding it has.
    #[must_use]
    pub fn with_coding(mut self, coded: Option<(Compressible, Option<Coding>)>) -> Self {
        self.coded = coded;
        self
    }

    /// Whether nothing is changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.edits.is_empty() && self.hsts.is_none() && self.cookie.is_none() && self.coded.is_none()
    }

    /// A message's fields as they are passed on.
    pub fn apply<'a>(
        &'a self,
        fields: impl Iterator<Item = FieldRef<'a>>,
    ) -> impl Iterator<Item = FieldRef<'a>> {
        let changes = !self.is_empty();
        let added = changes.then(|| self.added()).into_iter().flatten();
        fields
            .filter(move |(_, name, _)| !changes || self.keeps(name))
            .chain(added.map(|(name, value)| (Known::Other, name, value)))
    }

    /// Whether a field stays as it is.
    #[must_use]
    pub fn keeps(&self, name: &[u8]) -> bool {
        let is = |other: &str| is_same_variable(other.as_bytes(), name);
        let mut edited = self.edits.iter().flat_map(|edit| edit.remove.iter().chain(edit.set.keys()));
        let coded = match &self.coded {
            None => false,
            // Ranges would be of bytes that nobody has.
            Some((_, Some(_))) => {
                ["vary", "etag", "accept-ranges", "content-encoding", "content-length"].into_iter().any(is)
            }
            Some((_, None)) => is("vary"),
        };
        let edited = edited.any(|name| is(name)) || (self.hsts.is_some() && is(HSTS));
        !edited && !coded
    }

    /// Fields that are added. Of several policies that set the same, the last one counts; one that removes what an
    /// earlier one has set takes it away.
    pub fn added(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let hsts = self.hsts.iter().map(|value| (HSTS.as_bytes(), value.as_bytes()));
        let cookie = self.cookie.iter().map(|value| (b"set-cookie".as_slice(), value.as_bytes()));
        let set = self.edits.iter().enumerate().flat_map(move |(at, edit)| {
            let later = &self.edits[at + 1..];
            let undone = move |name: &str| {
                later.iter().any(|later| {
                    let is = |other: &String| other.eq_ignore_ascii_case(name);
                    later.remove.iter().any(is) || later.set.keys().any(is)
                })
            };
            edit.set.iter().filter(move |(name, _)| !undone(name))
        });
        let coded = self.coded.iter().flat_map(|(found, coding)| {
            let vary = Some((b"vary".as_slice(), found.vary.as_slice()));
            let etag = found.etag.as_ref().filter(|_| coding.is_some());
            let etag = etag.map(|etag| (b"etag".as_slice(), etag.as_slice()));
            let coding = coding.map(|coding| (b"content-encoding".as_slice(), coding.as_str().as_bytes()));
            [vary, etag, coding].into_iter().flatten()
        });
        hsts.chain(cookie).chain(coded).chain(set.map(|(name, value)| (name.as_bytes(), value.as_bytes())))
    }
}

impl std::fmt::Display for Hsts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "max-age={}", self.max_age_s)?;
        if self.include_subdomains {
            f.write_str("; includeSubDomains")?;
        }
        if self.preload { f.write_str("; preload") } else { Ok(()) }
    }
}

const HSTS: &str = "strict-transport-security";
