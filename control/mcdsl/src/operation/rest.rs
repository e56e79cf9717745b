//! An operation by REST: admission, then path, query and body as one request, then the response with its status and headers.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts as _, RawPathParams, Request};
use axum::response::{IntoResponse as _, Response};
use futures_util::{Stream, StreamExt as _};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_MATCH, LOCATION};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use mc_api::operation::{Body as Form, Rest};
use serde_json::Value;
use tokio::time::Instant;

use super::json::Fields;
use super::{Message, Shared, admit, is_stale, sender, within};
use crate::http::{bearer, bearer_or_basic, body, is_kind};
use crate::permit::{Access, Authority, Permit};
use crate::problem::{Kind, Problem};

/// A request, admitted and read.
struct Admitted<Req> {
    permit: Permit,
    request: Req,
    path: Vec<(String, String)>,
    /// The revision that the client's `If-Match` names.
    if_match: Option<i64>,
}

pub(super) async fn unary<S, Req, Res, T, U, F>(
    shared: Arc<Shared<S, T, U>>,
    request: Request,
) -> Result<Response, Problem>
where
    S: Authority,
    Req: Message,
    Res: Message,
    T: Fn(&Req) -> String + Send + Sync,
    U: Fn(Arc<S>, Permit, Req) -> F + Send + Sync,
    F: Future<Output = Result<Res, Problem>> + Send,
{
    let rest = rest(&shared);
    within(shared.limits.time, request.method().is_safe(), async {
        let Admitted { permit, request, path, if_match } = read(&shared, rest, request).await?;
        let done = (shared.use_case)(Arc::clone(&shared.service), permit, request).await;
        let message = done.map_err(|problem| match problem.kind {
            // RFC 9110, section 13.1.1.
            Kind::Changed if if_match.is_some() => Problem { kind: Kind::PreconditionFailed, ..problem },
            _ => problem,
        })?;
        Ok(respond(rest, &message, &path))
    })
    .await
}

pub(super) async fn stream<S, Req, Res, T, U, F, St>(
    shared: Arc<Shared<S, T, U>>,
    request: Request,
) -> Result<Response, Problem>
where
    S: Authority,
    Req: Message,
    Res: Message,
    T: Fn(&Req) -> String + Send + Sync,
    U: Fn(Arc<S>, Permit, Req) -> F + Send + Sync,
    F: Future<Output = Result<St, Problem>> + Send,
    St: Stream<Item = Result<Res, Problem>> + Send + 'static,
{
    let rest = rest(&shared);
    // The time is for the beginning: the stream itself lasts as long as somebody reads it.
    within(shared.limits.time, request.method().is_safe(), async {
        let Admitted { permit, request, .. } = read(&shared, rest, request).await?;
        let items = (shared.use_case)(Arc::clone(&shared.service), permit, request).await?;
        // A stream that fails is cut off: the client sees that it is not whole.
        let lines = items.map(|item| {
            let mut line = serde_json::to_vec(&item?).map_err(|error| Problem::internal(&error))?;
            line.push(b'\n');
            Ok::<_, Problem>(line)
        });
        let kind = HeaderValue::from_static("application/x-ndjson");
        Ok(([(CONTENT_TYPE, kind)], Body::from_stream(lines)).into_response())
    })
    .await
}

fn rest<S, T, U>(shared: &Shared<S, T, U>) -> &'static Rest {
    shared.operation.rest.as_ref().expect("only operations with REST are routed here")
}

async fn read<S, Req, T, U>(
    shared: &Shared<S, T, U>,
    rest: &'static Rest,
    request: Request,
) -> Result<Admitted<Req>, Problem>
where
    S: Authority,
    Req: Message,
    T: Fn(&Req) -> String + Send + Sync,
    U: Send + Sync,
{
    let (mut parts, body) = request.into_parts();
    let path = path_of(&mut parts).await?;
    let named = shared.operation.target.and_then(|target| path.iter().find(|(name, _)| name == target));
    let target = named.map(|(_, value)| value.clone()).unwrap_or_default();
    let access = Access::from(shared.operation);
    // What takes a form is called by clients of other standards, which authenticate as RFC 6749, section 2.3.1, says.
    let credentials = if matches!(rest.body, Form::Form(_)) { bearer_or_basic } else { bearer };
    let mut permit = admit(&shared.service, access, credentials, &parts, target.clone()).await?;
    let mut fields = Fields::default();
    fields.add_parameters(rest, path.clone())?;
    let query =
        form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    fields.add_parameters(rest, query)?;
    // Counted until the request is read into its type.
    let mut counted = None;
    if rest.body != Form::None {
        let began = Instant::now();
        let bytes = body::read(
            body,
            &parts.headers,
            sender(&parts, &permit),
            &shared.limits.body,
            &shared.limits.budget,
        )
        .await?;
        if is_stale(began) {
            permit = admit(&shared.service, access, credentials, &parts, target).await?;
        }
        match rest.body {
            _ if bytes.is_empty() && !parts.headers.contains_key(CONTENT_TYPE) => {}
            Form::Form(names) => {
                is_kind(&parts.headers, "application/x-www-form-urlencoded")?;
                fields.add_form(&bytes, names)?;
            }
            _ => {
                is_kind(&parts.headers, "application/json")?;
                fields.add_json(&bytes)?;
            }
        }
        counted = Some(bytes);
    }
    let if_match = if_match(&parts.headers)?;
    if if_match.is_some() && !rest.takes_revision {
        return Err(Problem::field("if-match", "is of no use here: this operation takes no revision"));
    }
    if let Some(revision) = if_match {
        match fields.revision() {
            None => fields.add("revision".to_owned(), revision.into())?,
            Some(given) if given.as_i64() == Some(revision) => {}
            Some(_) => return Err(Problem::field("revision", "is not the one that `If-Match` names")),
        }
    }
    let request: Req = fields.read()?;
    drop(counted);
    permit.set_target((shared.target)(&request));
    Ok(Admitted { permit, request, path, if_match })
}

async fn path_of(parts: &mut Parts) -> Result<Vec<(String, String)>, Problem> {
    let malformed = |detail: String| Problem::new(Kind::Invalid, "malformed", format!("The path: {detail}."));
    let read = RawPathParams::from_request_parts(parts, &()).await;
    let read = read.map_err(|error| malformed(error.body_text()))?;
    Ok(read.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

/// The revision in `If-Match: "7"` (RFC 9110, section 13.1.1). `*` names none.
fn if_match(headers: &HeaderMap) -> Result<Option<i64>, Problem> {
    let wrong = || Problem::field("if-match", "must be one revision in quotes, as `ETag` gives it: `\"7\"`");
    let mut values = headers.get_all(IF_MATCH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(wrong());
    }
    let text = value.to_str().map_err(|_error| wrong())?.trim();
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).ok_or_else(wrong)?;
    // Tags are compared as texts: `07` is none of ours.
    let number = text.parse().ok().filter(|number: &i64| number.to_string() == text);
    number.map(Some).ok_or_else(wrong)
}

fn respond<Res: Message>(rest: &Rest, message: &Res, path: &[(String, String)]) -> Response {
    let mut response = representation(rest, message, path);
    // Responses with tokens and other secrets are kept nowhere (RFC 6749, section 5.1).
    let caching = match rest.max_age_s {
        0 => HeaderValue::from_static("no-store"),
        seconds => HeaderValue::try_from(format!("public, max-age={seconds}")).expect("it is visible ASCII"),
    };
    response.headers_mut().insert(CACHE_CONTROL, caching);
    response
}

fn representation<Res: Message>(rest: &Rest, message: &Res, path: &[(String, String)]) -> Response {
    let json = HeaderValue::from_static("application/json");
    if rest.created.is_none() && !rest.has_revision {
        let body = serde_json::to_vec(message).expect("a message can be written as JSON");
        return ([(CONTENT_TYPE, json)], body).into_response();
    }
    let value = serde_json::to_value(message).expect("a message can be written as JSON");
    let mut response = ([(CONTENT_TYPE, json)], value.to_string()).into_response();
    if let Some(template) = rest.created {
        *response.status_mut() = StatusCode::CREATED;
        if let Ok(location) = HeaderValue::from_str(&filled(template, &value, path)) {
            response.headers_mut().insert(LOCATION, location);
        }
    }
    if let Some(revision) = value.get("revision").filter(|_| rest.has_revision)
        && let Ok(tag) = HeaderValue::from_str(&format!("\"{revision}\""))
    {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

/// A path with its parameters filled in, from the response or from the request's path.
fn filled(template: &str, response: &Value, path: &[(String, String)]) -> String {
    let mut text = String::new();
    for (at, part) in template.split(['{', '}']).enumerate() {
        if at % 2 == 0 {
            text.push_str(part);
            continue;
        }
        let found = part.split('.').try_fold(response, |value, name| value.get(name));
        let given = path.iter().find(|(name, _)| name == part).map(|(_, value)| value.as_str());
        let value = found.and_then(Value::as_str).or(given).unwrap_or_default();
        text.extend(form_urlencoded::byte_serialize(value.as_bytes()));
    }
    text
}
