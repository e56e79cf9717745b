//! Policies of a route that speaks HTTP, and paths.

use super::{Invalid, check_address, check_range, quoted};
use crate::http1::{Known, is_token, is_value};
use crate::model::{Compress, EditFields, ErrorPage, FieldMatch, Http, Policy, Redirect, Rule, Sticky};
use crate::policy::{MAX, canonical};

/// Refuses policies that make no sense, and brings paths and methods to their one form.
pub(super) fn normalize_http(http: &mut Http) -> Result<(), Invalid> {
    if let Some(sticky) = &http.sticky {
        check_sticky(sticky).map_err(|error| error.within("sticky"))?;
    }
    if http.policies.len() > MAX {
        return Err(Invalid::new(
            "policies",
            format!("{} policies: write at most {MAX}", http.policies.len()),
        ));
    }
    for index in 0..http.policies.len() {
        let (before, rest) = http.policies.split_at_mut(index);
        let policy = &mut rest[0];
        let within = |error: Invalid| error.within(format_args!("policies[{index}]"));
        if before.iter().any(|other| other.name == policy.name) {
            let problem = format!("{} is there twice: rename one", quoted(&policy.name));
            return Err(within(Invalid::new("name", problem)));
        }
        normalize_policy(policy).map_err(within)?;
    }
    Ok(())
}

/// A path that requests are compared with.
pub(super) fn check_path(field: &'static str, path: &str) -> Result<(), Invalid> {
    let problem = if !path.starts_with('/') {
        "begins with no slash"
    } else if path.len() > MAX_PATH {
        "is too long (1,024 bytes)"
    } else if path.bytes().any(|byte| byte <= b' ' || matches!(byte, b'?' | b'#' | 0x7f)) {
        "has a space, a control character, ? or #, which no path has"
    } else if canonical(path.as_bytes()).is_ok_and(|canonical| *canonical == *path.as_bytes()) {
        return Ok(());
    } else {
        "is not in the form that is compared: decoded, with single slashes, without . and .."
    };
    Err(Invalid::new(field, format!("{} {problem}: write a path such as /api", quoted(path))))
}

fn normalize_policy(policy: &mut Policy) -> Result<(), Invalid> {
    super::check_name("name", "policy", &policy.name)?;
    check_path("path", &policy.path)?;
    match &mut policy.rule {
        Rule::RequireHeader(field) => check_match(field).map_err(|error| error.within("require_header")),
        Rule::BlockHeader(field) => check_match(field).map_err(|error| error.within("block_header")),
        Rule::BlockUserAgent(text) => check_some("block_user_agent", text, 256),
        Rule::Methods(methods) => check_methods(methods),
        Rule::Paths(paths) => {
            if paths.is_empty() {
                return Err(Invalid::new(
                    "paths",
                    "none: every request would be refused; write at least one",
                ));
            }
            paths.iter().try_for_each(|path| check_path("paths", path))
        }
        Rule::Rewrite(rewrite) => {
            check_path("rewrite.prefix", &rewrite.prefix)?;
            check_target("rewrite.to", &rewrite.to)
        }
        Rule::Redirect(redirect) => check_redirect(redirect),
        Rule::Rate(rate) => {
            check_range("rate.requests", &rate.requests, &(1..=1_000_000))?;
            check_range("rate.per_s", &rate.per_s, &(1..=86_400))?;
            check_range("rate.burst", &rate.burst, &(0..=1_000_000))
        }
        Rule::MaxBodyBytes(bytes) => check_range("max_body_bytes", bytes, &(1..=1 << 50)),
        Rule::RequestHeaders(edit) => check_edit(edit).map_err(|error| error.within("request_headers")),
        Rule::ResponseHeaders(edit) => check_edit(edit).map_err(|error| error.within("response_headers")),
        Rule::Hsts(hsts) => check_range("hsts.max_age_s", &hsts.max_age_s, &(0..=10 * 31_536_000)),
        Rule::Compress(compress) => check_compress(compress).map_err(|error| error.within("compress")),
        Rule::ErrorPage(page) => check_page(page).map_err(|error| error.within("error_page")),
        Rule::Mirror(mirror) => {
            check_address("mirror.to", mirror.to)?;
            if mirror.to.port() == 0 || mirror.to.ip().is_unspecified() {
                let problem = format!("{} is no backend: write its address and port", mirror.to);
                return Err(Invalid::new("mirror.to", problem));
            }
            check_range("mirror.percent", &mirror.percent, &(1..=100))
        }
    }
}

fn check_sticky(sticky: &Sticky) -> Result<(), Invalid> {
    if sticky.cookie.len() > 64 || !is_token(sticky.cookie.as_bytes()) {
        let problem =
            format!("{} is no name of a cookie: write letters, digits and -", quoted(&sticky.cookie));
        return Err(Invalid::new("cookie", problem));
    }
    check_range("max_age_s", &sticky.max_age_s, &(0..=10 * 31_536_000))
}

fn check_match(field: &FieldMatch) -> Result<(), Invalid> {
    check_token("name", &field.name)?;
    check_text("contains", &field.contains, 256)
}

fn check_methods(methods: &mut [String]) -> Result<(), Invalid> {
    if methods.is_empty() {
        return Err(Invalid::new(
            "methods",
            "none: every request would be refused; write GET, HEAD and so on",
        ));
    }
    for method in methods {
        if method.len() > 32 || !is_token(method.as_bytes()) {
            return Err(Invalid::new(
                "methods",
                format!("{} is no method: write GET, HEAD and so on", quoted(method)),
            ));
        }
        method.make_ascii_uppercase();
    }
    Ok(())
}

fn check_redirect(redirect: &Redirect) -> Result<(), Invalid> {
    if !matches!(redirect.status, 301 | 302 | 303 | 307 | 308) {
        let problem = format!("{} is no redirect: write 301, 302, 303, 307 or 308", redirect.status);
        return Err(Invalid::new("redirect.status", problem));
    }
    check_some("redirect.to", &redirect.to, 2048)?;
    let to = &redirect.to;
    let absolute = to.strip_prefix("https://").or_else(|| to.strip_prefix("http://"));
    // Two slashes at the beginning would be a host, and `{path}` brings one.
    let relative = to.strip_prefix('/').is_some_and(|rest| !rest.starts_with(['/', '{', '\\']));
    if to == "/"
        || relative
        || absolute.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', '{']))
        || absolute.is_some_and(|rest| rest.starts_with("{host}"))
    {
        return Ok(());
    }
    let problem = format!(
        "{} leads nowhere safe: write https://www.example.org{{path}}{{query}}, https://{{host}}/… or a path such as /new",
        quoted(to)
    );
    Err(Invalid::new("redirect.to", problem))
}

fn check_edit(edit: &EditFields) -> Result<(), Invalid> {
    if edit.set.is_empty() && edit.remove.is_empty() {
        return Err(Invalid::new("set", "there is nothing to set and nothing to remove: write one of them"));
    }
    for name in edit.set.keys().chain(&edit.remove) {
        check_token("set", name)?;
        if !matches!(Known::of(name.as_bytes()), Known::Other | Known::XRealIp | Known::Identity) {
            let problem = format!("{} is MC-Proxy's own to write: remove it from the policy", quoted(name));
            return Err(Invalid::new("set", problem));
        }
    }
    edit.set.values().try_for_each(|value| check_text("set", value, 4096))
}

fn check_compress(compress: &Compress) -> Result<(), Invalid> {
    let repeated = |(at, coding)| compress.codings[..at].contains(coding);
    if compress.codings.is_empty() || compress.codings.iter().enumerate().any(repeated) {
        return Err(Invalid::new(
            "codings",
            "none, or one twice: write zstd, br and gzip in the order you like",
        ));
    }
    if compress.types.is_empty() {
        return Err(Invalid::new("types", "none: nothing would be compressed; write text/* and so on"));
    }
    let fits = |kind: &String| {
        let stars = kind.matches('*').count();
        kind.len() <= 128
            && is_value(kind.as_bytes())
            && !kind.contains([' ', ';', ','])
            && kind.len() > stars
            && (stars == 0 || stars == 1 && (kind.ends_with('*') || kind.starts_with('*')))
    };
    match compress.types.iter().find(|kind| !fits(kind)) {
        Some(kind) => {
            let problem = format!("{} is no media type: write text/html, text/* or *+json", quoted(kind));
            Err(Invalid::new("types", problem))
        }
        None => Ok(()),
    }
}

fn check_page(page: &ErrorPage) -> Result<(), Invalid> {
    page.statuses.iter().try_for_each(|status| check_range("statuses", status, &(400..=599)))?;
    check_some("content_type", &page.content_type, 256)?;
    if page.body.len() > 64 * 1024 {
        return Err(Invalid::new("body", format!("{} bytes: write at most 65,536", page.body.len())));
    }
    Ok(())
}

/// What stands for the beginning of a path.
fn check_target(field: &'static str, to: &str) -> Result<(), Invalid> {
    let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'\\');
    if to.starts_with('/') && !to.starts_with("//") && to.len() <= MAX_PATH && to.bytes().all(fits) {
        return Ok(());
    }
    let problem = format!("{} is no path: write / or a path such as /v2, %-encoded", quoted(to));
    Err(Invalid::new(field, problem))
}

fn check_token(field: &'static str, name: &str) -> Result<(), Invalid> {
    if name.len() <= 128 && is_token(name.as_bytes()) {
        return Ok(());
    }
    Err(Invalid::new(field, format!("{} is no name of a field: write letters, digits and -", quoted(name))))
}

fn check_some(field: &'static str, text: &str, most: usize) -> Result<(), Invalid> {
    if text.is_empty() {
        return Err(Invalid::new(field, "is empty: write some text"));
    }
    check_text(field, text, most)
}

fn check_text(field: &'static str, text: &str, most: usize) -> Result<(), Invalid> {
    if text.len() <= most && text.is_ascii() && is_value(text.as_bytes()) && text.trim() == text {
        return Ok(());
    }
    let problem = format!(
        "{} cannot stand in a field: write visible ASCII, at most {most} bytes, without spaces around it",
        quoted(text)
    );
    Err(Invalid::new(field, problem))
}

/// Bytes of the longest path.
const MAX_PATH: usize = 1024;
