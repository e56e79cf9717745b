//! Reads bodies, queries and paths into types; what does not fit is a [`Problem`] that names the field.
//!
//! A type that refuses unknown fields makes a body with one a problem too, and a field that is there twice always is
//! one (RFC 8259, section 4, leaves that to us). serde_json bounds how deep values may be in each other.

use axum::extract::{FromRequest, FromRequestParts, Request};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use serde::de::DeserializeOwned;

use super::Caller;
use super::body::{BodyBudget, BodyLimits, CountedBytes, Sender};
use crate::context::RequestContext;
use crate::problem::{Kind, Problem};

/// A JSON body, read; or an answer as JSON.
#[derive(Debug)]
pub struct Json<T>(pub T);

/// A body as HTML forms send it (`application/x-www-form-urlencoded`).
#[derive(Debug)]
pub struct Form<T>(pub T);

/// The query of an address.
#[derive(Debug)]
pub struct Query<T>(pub T);

/// The variable parts of a path.
#[derive(Debug)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        is_kind(request.headers(), "application/json")?;
        let body = body(request, usize::MAX).await?;
        // A list of a type's fields would be taken for it, in whatever order they happen to stand in our code.
        if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
            return Err(Problem::new(Kind::Invalid, "malformed", "the body must be a JSON object: `{...}`"));
        }
        let mut reader = serde_json::Deserializer::from_slice(&body);
        let read = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            let path = error.path().to_string();
            let cause = error.into_inner();
            let detail = format!("{cause}");
            if path == "." || cause.is_syntax() || cause.is_eof() {
                Problem::new(
                    Kind::Invalid,
                    "malformed",
                    format!("the body is not what is expected: {detail}"),
                )
            } else {
                Problem::field(path, detail)
            }
        })?;
        reader.end().map_err(|error| {
            Problem::new(Kind::Invalid, "malformed", format!("the body goes on after its end: {error}"))
        })?;
        Ok(Self(read))
    }
}

impl<T: serde::Serialize> axum::response::IntoResponse for Json<T> {
    fn into_response(self) -> axum::response::Response {
        axum::Json(self.0).into_response()
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Form<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        is_kind(request.headers(), "application/x-www-form-urlencoded")?;
        let body = body(request, BodyLimits::SMALL.max_bytes).await?;
        read_form(&body).map(Self)
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        read_form(parts.uri.query().unwrap_or_default().as_bytes()).map(Self)
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Path::from_request_parts(parts, state).await;
        let axum::extract::Path(path) = read.map_err(|error| {
            Problem::new(Kind::Invalid, "malformed", format!("the path: {}", error.body_text()))
        })?;
        Ok(Self(path))
    }
}

fn read_form<T: DeserializeOwned>(text: &[u8]) -> Result<T, Problem> {
    let reader = serde_urlencoded::Deserializer::new(form_urlencoded::parse(text));
    serde_path_to_error::deserialize(reader).map_err(|error| {
        let path = error.path().to_string();
        let detail = error.into_inner().to_string();
        if path == "." {
            Problem::new(Kind::Invalid, "malformed", detail)
        } else {
            Problem::field(path, detail)
        }
    })
}

/// Whether the body is said to be of this kind, in UTF-8.
pub(crate) fn is_kind(headers: &HeaderMap, expected: &str) -> Result<(), Problem> {
    let mut all = headers.get_all(CONTENT_TYPE).iter();
    let told = all.next().map_or("", |kind| kind.to_str().unwrap_or("?"));
    if all.next().is_some() {
        return Err(Problem::field("content-type", "is given more than once"));
    }
    let (kind, parameters) = told.split_once(';').unwrap_or((told, ""));
    let charset = parameters.trim().to_ascii_lowercase();
    let is_utf8 = matches!(charset.as_str(), "" | "charset=utf-8" | "charset=\"utf-8\"");
    if kind.trim().eq_ignore_ascii_case(expected) && is_utf8 {
        return Ok(());
    }
    let detail = format!("the body must be `{expected}` in UTF-8, and is declared as `{told}`");
    Err(Problem {
        field: Some("content-type".to_owned()),
        ..Problem::new(Kind::MediaType, "media-type", detail)
    })
}

/// Reads a body within the limits that the request carries as extensions.
/// The body, of at most so many bytes and no more than the server allows.
async fn body(request: Request, at_most: usize) -> Result<CountedBytes, Problem> {
    let (parts, body) = request.into_parts();
    let extensions = &parts.extensions;
    let caller: &Caller = extensions.get().expect("every request passes the middleware");
    let limits: &BodyLimits = extensions.get().expect("every request passes the middleware");
    let budget: &BodyBudget = extensions.get().expect("every request passes the middleware");
    let limits = BodyLimits { max_bytes: limits.max_bytes.min(at_most), ..*limits };
    let is_known = extensions.get::<RequestContext>().is_some_and(|context| context.identity().is_some());
    let from = Sender { source: caller.address.ip(), is_known };
    super::body::read(body, &parts.headers, from, &limits, budget).await
}
