//! Policies of routes that speak HTTP.

use mc_core::model::{self, Rule};
use mc_core::validate::Invalid;

use super::super::policy::Rule as Message;
use super::super::{
    Compress, EditFields, ErrorPage, FieldMatch, Hsts, Mirror, Policy, Redirect, RequestRate, Rewrite,
    Sticky, Texts,
};
use super::{Words, invalid, parse};

/// A route's policies, in their order.
pub(super) fn policies_of(policies: Vec<Policy>) -> Result<Vec<model::Policy>, Invalid> {
    let one = |(index, policy)| {
        model::Policy::try_from(policy)
            .map_err(|error: Invalid| error.within(format_args!("http.policies[{index}]")))
    };
    policies.into_iter().enumerate().map(one).collect()
}

impl TryFrom<Policy> for model::Policy {
    type Error = Invalid;

    fn try_from(policy: Policy) -> Result<Self, Invalid> {
        let rule =
            policy.rule.ok_or_else(|| invalid("rule", "is missing; say what the policy does".to_owned()))?;
        let path = policy.path.unwrap_or_else(|| Self::PATH.to_owned());
        Ok(Self { name: policy.name, dry_run: policy.dry_run, path, rule: rule_of(rule)? })
    }
}

fn rule_of(rule: Message) -> Result<Rule, Invalid> {
    Ok(match rule {
        Message::RequireHeader(field) => Rule::RequireHeader(field.into()),
        Message::BlockHeader(field) => Rule::BlockHeader(field.into()),
        Message::BlockUserAgent(text) => Rule::BlockUserAgent(text),
        Message::Methods(methods) => Rule::Methods(methods.texts),
        Message::Paths(paths) => Rule::Paths(paths.texts),
        Message::Rewrite(rewrite) => Rule::Rewrite(model::Rewrite { prefix: rewrite.prefix, to: rewrite.to }),
        Message::Redirect(redirect) => Rule::Redirect(model::Redirect {
            to: redirect.to,
            status: status(redirect.status.unwrap_or(model::Redirect::STATUS.into()), "redirect.status")?,
        }),
        Message::Rate(rate) => Rule::Rate(model::RequestRate {
            requests: rate.requests,
            per_s: rate.per_s.unwrap_or(model::RequestRate::PER_S),
            burst: rate.burst,
        }),
        Message::MaxBodyBytes(bytes) => Rule::MaxBodyBytes(bytes),
        Message::RequestHeaders(edit) => Rule::RequestHeaders(edit.into()),
        Message::ResponseHeaders(edit) => Rule::ResponseHeaders(edit.into()),
        Message::Hsts(hsts) => Rule::Hsts(model::Hsts {
            max_age_s: hsts.max_age_s.unwrap_or(model::Hsts::default().max_age_s),
            include_subdomains: hsts.include_subdomains,
            preload: hsts.preload,
        }),
        Message::Compress(compress) => {
            let default = model::Compress::default();
            let codings = compress.codings.into_iter().map(|number| Words::of(number, "compress.codings"));
            let codings: Vec<_> = codings.collect::<Result<_, _>>()?;
            Rule::Compress(model::Compress {
                codings: if codings.is_empty() { default.codings } else { codings },
                min_bytes: compress.min_bytes.unwrap_or(default.min_bytes),
                types: if compress.types.is_empty() { default.types } else { compress.types },
            })
        }
        Message::ErrorPage(page) => {
            let statuses = page.statuses.into_iter().map(|number| status(number, "error_page.statuses"));
            Rule::ErrorPage(model::ErrorPage {
                statuses: statuses.collect::<Result<_, _>>()?,
                content_type: page.content_type.unwrap_or_else(|| model::ErrorPage::CONTENT_TYPE.to_owned()),
                body: page.body,
            })
        }
        Message::Mirror(mirror) => {
            let percent = mirror.percent.unwrap_or(model::Mirror::PERCENT.into());
            let percent = u8::try_from(percent)
                .map_err(|_out| invalid("mirror.percent", format!("{percent} is not 1 to 100")))?;
            let to = parse(&mirror.to, "mirror.to", "an address and port, e.g. 10.0.0.2:8080")?;
            Rule::Mirror(model::Mirror { to, percent })
        }
    })
}

fn status(number: u32, field: &str) -> Result<u16, Invalid> {
    u16::try_from(number).map_err(|_out| invalid(field, format!("{number} is no status")))
}

impl From<&model::Policy> for Policy {
    fn from(policy: &model::Policy) -> Self {
        Self {
            name: policy.name.clone(),
            dry_run: policy.dry_run,
            path: Some(policy.path.clone()),
            rule: Some(Message::from(&policy.rule)),
        }
    }
}

impl From<&Rule> for Message {
    fn from(rule: &Rule) -> Self {
        match rule {
            Rule::RequireHeader(field) => Self::RequireHeader(field.into()),
            Rule::BlockHeader(field) => Self::BlockHeader(field.into()),
            Rule::BlockUserAgent(text) => Self::BlockUserAgent(text.clone()),
            Rule::Methods(methods) => Self::Methods(Texts { texts: methods.clone() }),
            Rule::Paths(paths) => Self::Paths(Texts { texts: paths.clone() }),
            Rule::Rewrite(it) => Self::Rewrite(Rewrite { prefix: it.prefix.clone(), to: it.to.clone() }),
            Rule::Redirect(it) => {
                Self::Redirect(Redirect { to: it.to.clone(), status: Some(it.status.into()) })
            }
            Rule::Rate(it) => {
                Self::Rate(RequestRate { requests: it.requests, per_s: Some(it.per_s), burst: it.burst })
            }
            Rule::MaxBodyBytes(bytes) => Self::MaxBodyBytes(*bytes),
            Rule::RequestHeaders(edit) => Self::RequestHeaders(edit.into()),
            Rule::ResponseHeaders(edit) => Self::ResponseHeaders(edit.into()),
            Rule::Hsts(it) => Self::Hsts(Hsts {
                max_age_s: Some(it.max_age_s),
                include_subdomains: it.include_subdomains,
                preload: it.preload,
            }),
            Rule::Compress(it) => Self::Compress(Compress {
                codings: it.codings.iter().map(|coding| coding.number()).collect(),
                min_bytes: Some(it.min_bytes),
                types: it.types.clone(),
            }),
            Rule::ErrorPage(it) => Self::ErrorPage(ErrorPage {
                statuses: it.statuses.iter().map(|status| (*status).into()).collect(),
                content_type: Some(it.content_type.clone()),
                body: it.body.clone(),
            }),
            Rule::Mirror(it) => {
                Self::Mirror(Mirror { to: it.to.to_string(), percent: Some(it.percent.into()) })
            }
        }
    }
}

impl From<FieldMatch> for model::FieldMatch {
    fn from(field: FieldMatch) -> Self {
        Self { name: field.name, contains: field.contains }
    }
}

impl From<&model::FieldMatch> for FieldMatch {
    fn from(field: &model::FieldMatch) -> Self {
        Self { name: field.name.clone(), contains: field.contains.clone() }
    }
}

impl From<EditFields> for model::EditFields {
    fn from(edit: EditFields) -> Self {
        Self { set: edit.set.into_iter().collect(), remove: edit.remove }
    }
}

impl From<&model::EditFields> for EditFields {
    fn from(edit: &model::EditFields) -> Self {
        let set = edit.set.iter().map(|(name, value)| (name.clone(), value.clone()));
        Self { set: set.collect(), remove: edit.remove.clone() }
    }
}

impl From<Sticky> for model::Sticky {
    fn from(sticky: Sticky) -> Self {
        let cookie = sticky.cookie.unwrap_or_else(|| Self::default().cookie);
        Self { cookie, max_age_s: sticky.max_age_s }
    }
}

impl From<&model::Sticky> for Sticky {
    fn from(sticky: &model::Sticky) -> Self {
        Self { cookie: Some(sticky.cookie.clone()), max_age_s: sticky.max_age_s }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A policy of each kind, no field at its default.
    pub(in super::super) fn one_of_each() -> Vec<model::Policy> {
        let rules = serde_json::json!([
            { "require_header": { "name": "x-a", "contains": "b" } },
            { "block_header": { "name": "x-a", "contains": "b" } },
            { "block_user_agent": "bot" },
            { "methods": ["GET"] },
            { "paths": ["/a"] },
            { "rewrite": { "prefix": "/a", "to": "/b" } },
            { "redirect": { "to": "https://b.example/", "status": 308 } },
            { "rate": { "requests": 5, "per_s": 60, "burst": 7 } },
            { "max_body_bytes": 9 },
            { "request_headers": { "set": { "x-a": "b" }, "remove": ["x-c"] } },
            { "response_headers": { "set": { "x-a": "b" }, "remove": ["x-c"] } },
            { "hsts": { "max_age_s": 1, "include_subdomains": true, "preload": true } },
            { "error_page": { "statuses": [502], "content_type": "text/plain", "body": "sorry" } },
            { "mirror": { "to": "10.0.0.3:80", "percent": 10 } },
            { "compress": { "codings": ["gzip"], "min_bytes": 5, "types": ["text/html"] } },
        ]);
        let rules: Vec<Rule> = serde_json::from_value(rules).unwrap();
        let policies = rules.into_iter().enumerate().map(|(index, rule)| model::Policy {
            name: format!("p{index}"),
            dry_run: index % 2 == 0,
            path: "/x".to_owned(),
            rule,
        });
        policies.collect()
    }

    #[test]
    fn absent_fields_take_the_defaults_that_toml_takes() {
        let check = |rule: Message, json: &str| {
            let message = Policy { name: "p".to_owned(), rule: Some(rule), ..Policy::default() };
            let expect: model::Policy = serde_json::from_str(json).unwrap();
            assert_eq!(model::Policy::try_from(message).unwrap(), expect);
        };
        check(Message::Compress(Compress::default()), r#"{"name":"p","compress":{}}"#);
        check(Message::Hsts(Hsts::default()), r#"{"name":"p","hsts":{}}"#);
        let redirect = Redirect { to: "/x".to_owned(), status: None };
        check(Message::Redirect(redirect), r#"{"name":"p","redirect":{"to":"/x"}}"#);
        let rate = RequestRate { requests: 5, ..RequestRate::default() };
        check(Message::Rate(rate), r#"{"name":"p","rate":{"requests":5}}"#);
        let page = ErrorPage { body: "x".to_owned(), ..ErrorPage::default() };
        check(Message::ErrorPage(page), r#"{"name":"p","error_page":{"body":"x"}}"#);
        let mirror = Mirror { to: "10.0.0.3:80".to_owned(), percent: None };
        check(Message::Mirror(mirror), r#"{"name":"p","mirror":{"to":"10.0.0.3:80"}}"#);
        assert_eq!(model::Sticky::from(Sticky::default()), serde_json::from_str("{}").unwrap());
    }

    #[test]
    fn what_is_refused_is_named() {
        let check = |rule: Option<Message>, field: &str| {
            let policies = vec![Policy { name: "p".to_owned(), rule, ..Policy::default() }];
            assert_eq!(policies_of(policies).unwrap_err().field, field);
        };
        check(None, "http.policies[0].rule");
        let to = "nowhere".to_owned();
        check(Some(Message::Mirror(Mirror { to, percent: None })), "http.policies[0].mirror.to");
        let redirect = Redirect { to: String::new(), status: Some(70_000) };
        check(Some(Message::Redirect(redirect)), "http.policies[0].redirect.status");
    }
}
