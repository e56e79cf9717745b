//! What a route's policies say of a request.
//!
//! [`decide`] looks at a route's policies in their order and says which of them apply, what the request's target
//! becomes, and whether the request ends here. It allocates nothing where nothing is rewritten. A policy in dry run
//! is counted where it would apply, and changes nothing. Policies about the response apply whether the request ends
//! here or not.
//!
//! A seam is left for policies that must ask somebody (a password against MCIAS): they would be a [`Rule`] whose
//! answer is fetched before [`decide`] and handed in beside `allowed`, as rates are.

mod edit;
mod path;

use std::borrow::Cow;
use std::net::IpAddr;

pub use edit::{Edits, FieldRef};
pub use path::{AmbiguousPath, canonical, is_within};

use crate::http1::is_same_variable;
use crate::model::{Backend, Compress, ErrorPage, Mirror, Policy, Redirect, RequestRate, Rule};

/// Most policies of a route.
pub const MAX: usize = 64;

/// A request as policies see it.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a, F> {
    /// Its method.
    pub method: &'a [u8],
    /// Path and query.
    pub target: &'a [u8],
    /// Host, as the client asked for it.
    pub host: &'a [u8],
    /// Gives its fields.
    pub fields: F,
}

/// Some of a route's policies, by their places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Set(u64);

/// What policies say of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Policies that apply.
    pub applied: Set,
    /// Those that would, were it not for their dry run.
    pub dry: Set,
    /// Path and query for the backend, where they are others than the client's.
    pub target: Option<Vec<u8>>,
    /// The request ends here.
    pub end: Option<End>,
}

/// Why a request ends here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Refused, 403.
    Denied,
    /// Not for this path, 404.
    NotFound,
    /// Not by this method, 405.
    Method {
        /// Those that are allowed, as `Allow` has them.
        allow: String,
    },
    /// Too many, 429.
    Rate {
        /// Seconds until another may pass.
        retry_after_s: u32,
    },
    /// Sent elsewhere.
    Redirect {
        /// 301 to 308.
        status: u16,
        /// Where to.
        location: String,
    },
    /// Its path can be read differently, 400.
    Ambiguous(AmbiguousPath),
}

/// Decides about a request. `allowed` takes a token for the client from the bucket of the policy at this place.
pub fn decide<'a, F, I>(
    policies: &[Policy],
    seen: &Seen<'a, F>,
    mut allowed: impl FnMut(usize, &RequestRate) -> bool,
) -> Decision
where
    F: Fn() -> I,
    I: Iterator<Item = FieldRef<'a>>,
{
    let mut decision = Decision::default();
    for (index, policy) in policies.iter().enumerate().take(MAX) {
        if decision.end.is_some() && !policy.rule.is_about_response() {
            continue;
        }
        let target = decision.target.as_deref().unwrap_or(seen.target);
        let path = if policy.needs_path() { canonical(target) } else { Ok(Cow::Borrowed([].as_slice())) };
        let found = path.and_then(|path| {
            let is_meant = policy.path == "/" || is_within(&path, &policy.path)?;
            Ok((path, is_meant))
        });
        let path = match found {
            Ok((path, true)) => path,
            Ok((_, false)) => continue,
            // It would refuse the request, and is only to be counted.
            Err(_) if policy.dry_run => {
                decision.dry.insert(index);
                continue;
            }
            Err(why) => {
                decision.end = Some(End::Ambiguous(why));
                continue;
            }
        };
        let Some(effect) = effect(&policy.rule, seen, target, &path, |rate| allowed(index, rate)) else {
            continue;
        };
        if policy.dry_run {
            decision.dry.insert(index);
            continue;
        }
        decision.applied.insert(index);
        match effect {
            Effect::Counts => {}
            Effect::Target(target) => decision.target = Some(target),
            Effect::End(end) => decision.end = Some(end),
        }
    }
    decision
}

/// What a rule does to a request that it is about.
enum Effect {
    /// It is looked up later, by its place.
    Counts,
    Target(Vec<u8>),
    End(End),
}

fn effect<'a, F, I>(
    rule: &Rule,
    seen: &Seen<'a, F>,
    target: &[u8],
    path: &[u8],
    allowed: impl FnOnce(&RequestRate) -> bool,
) -> Option<Effect>
where
    F: Fn() -> I,
    I: Iterator<Item = FieldRef<'a>>,
{
    let any = |is_it: fn(&[u8], &[u8]) -> bool, name: &str, contains: &str| {
        (seen.fields)()
            .any(|(_, other, value)| is_it(other, name.as_bytes()) && contains_ignoring_case(value, contains))
    };
    // What an application takes for the field is not what was required, and is what was not wanted.
    let has = |name: &str, contains: &str| any(is_same_variable, name, contains);
    let end = match rule {
        Rule::RequireHeader(wanted) => {
            (!any(<[u8]>::eq_ignore_ascii_case, &wanted.name, &wanted.contains)).then_some(End::Denied)
        }
        Rule::BlockHeader(unwanted) => has(&unwanted.name, &unwanted.contains).then_some(End::Denied),
        Rule::BlockUserAgent(text) => has("user-agent", text).then_some(End::Denied),
        Rule::Methods(methods) => {
            let fits = methods.iter().any(|method| method.as_bytes() == seen.method);
            (!fits).then(|| End::Method { allow: methods.join(", ") })
        }
        Rule::Paths(paths) => {
            let mut within = paths.iter().map(|prefix| is_within(path, prefix));
            match within.find(|within| *within != Ok(false)) {
                Some(Ok(_)) => None,
                Some(Err(why)) => Some(End::Ambiguous(why)),
                None => Some(End::NotFound),
            }
        }
        Rule::Rate(rate) => {
            (!allowed(rate)).then(|| End::Rate { retry_after_s: rate.per_s.div_ceil(rate.requests.max(1)) })
        }
        Rule::Redirect(redirect) => Some(End::Redirect {
            status: redirect.status,
            location: location(redirect, seen.host, seen.target),
        }),
        Rule::Rewrite(rewrite) => {
            let replaced = || path::replace_prefix(target, path, &rewrite.prefix, &rewrite.to);
            return match is_within(path, &rewrite.prefix) {
                Ok(within) => within.then(|| Effect::Target(replaced())),
                Err(why) => Some(Effect::End(End::Ambiguous(why))),
            };
        }
        _ => return Some(Effect::Counts),
    };
    end.map(Effect::End)
}

/// Where a redirect leads. What came from the client has no control characters: the request would not have been read.
fn location(redirect: &Redirect, host: &[u8], target: &[u8]) -> String {
    let query = memchr::memchr(b'?', target).unwrap_or(target.len());
    let text = |bytes| str::from_utf8(bytes).unwrap_or_default();
    let known =
        [("{host}", text(host)), ("{path}", text(&target[..query])), ("{query}", text(&target[query..]))];
    let mut out = String::with_capacity(redirect.to.len() + target.len());
    let mut rest = redirect.to.as_str();
    while let Some(at) = rest.find('{') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        match known.iter().find(|(name, _)| rest.starts_with(name)) {
            Some((name, value)) => {
                out.push_str(value);
                rest = &rest[name.len()..];
            }
            None => {
                out.push('{');
                rest = &rest[1..];
            }
        }
    }
    out + rest
}

fn contains_ignoring_case(text: &[u8], part: &str) -> bool {
    part.is_empty() || text.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part.as_bytes()))
}

impl Policy {
    /// Whether it cannot be judged without the path.
    fn needs_path(&self) -> bool {
        self.path != "/" || matches!(self.rule, Rule::Paths(_) | Rule::Rewrite(_))
    }
}

impl Rule {
    /// Whether it is about what the client is answered.
    const fn is_about_response(&self) -> bool {
        matches!(self, Self::ResponseHeaders(_) | Self::Hsts(_) | Self::ErrorPage(_))
    }
}

impl Set {
    /// Adds one.
    pub fn insert(&mut self, index: usize) {
        self.0 |= 1_u64.checked_shl(u32::try_from(index).unwrap_or(u32::MAX)).unwrap_or(0);
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Their places, rising.
    pub fn places(self) -> impl Iterator<Item = usize> + Clone {
        (0..MAX).filter(move |index| self.0 >> index & 1 == 1)
    }

    /// The rules of those of `policies` that are in here.
    pub fn rules(self, policies: &[Policy]) -> impl Iterator<Item = &Rule> + Clone {
        self.places().filter_map(move |index| policies.get(index)).map(|policy| &policy.rule)
    }

    /// The largest body, where one of them says so: the smallest of what they say.
    #[must_use]
    pub fn max_body_bytes(self, policies: &[Policy]) -> Option<u64> {
        let limits = self.rules(policies).filter_map(|rule| match rule {
            Rule::MaxBodyBytes(bytes) => Some(*bytes),
            _ => None,
        });
        limits.min()
    }

    /// The first page for this status.
    #[must_use]
    pub fn error_page(self, policies: &[Policy], status: u16) -> Option<&ErrorPage> {
        self.rules(policies).find_map(|rule| match rule {
            Rule::ErrorPage(page) if page.statuses.is_empty() || page.statuses.contains(&status) => {
                Some(page)
            }
            _ => None,
        })
    }

    /// How responses are compressed, by the first that says so.
    #[must_use]
    pub fn compress(self, policies: &[Policy]) -> Option<&Compress> {
        self.rules(policies).find_map(|rule| match rule {
            Rule::Compress(compress) => Some(compress),
            _ => None,
        })
    }

    /// The first mirror.
    #[must_use]
    pub fn mirror(self, policies: &[Policy]) -> Option<&Mirror> {
        self.rules(policies).find_map(|rule| match rule {
            Rule::Mirror(mirror) => Some(mirror),
            _ => None,
        })
    }
}

/// The path of the backends that a request for `target` goes to: the longest of theirs that fits, empty for those
/// that take all. `None`: there is none for it.
///
/// # Errors
/// A backend has a path, and the request's can be read differently.
pub fn backend_path<'a>(backends: &'a [Backend], target: &[u8]) -> Result<Option<&'a str>, AmbiguousPath> {
    if backends.iter().all(|backend| backend.path.is_empty()) {
        return Ok(Some(""));
    }
    let path = canonical(target)?;
    let mut longest: Option<&str> = None;
    for prefix in backends.iter().map(|backend| backend.path.as_str()) {
        if is_within(&path, prefix)? && longest.is_none_or(|longest| prefix.len() >= longest.len()) {
            longest = Some(prefix);
        }
    }
    Ok(longest)
}

/// A client as rates know it: an address of IPv4, a /64 of IPv6.
#[must_use]
pub fn rated(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        address => address,
    }
}

#[cfg(test)]
mod tests;
