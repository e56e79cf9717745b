//! What went wrong, for whoever asked: one form, which HTTP carries as a problem document (RFC 9457) and gRPC as a status.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use tonic::{Code, Status};
use utoipa::openapi::{self, Content, Ref, RefOr, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema};

/// What kind of problem it is: whose it is, and whether trying again may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What was said makes no sense, or not here.
    Invalid,
    /// Who is asking is not known.
    Unauthenticated,
    /// Who is asking may not.
    Forbidden,
    /// It is not there.
    NotFound,
    /// The path is there, and takes another method.
    Method,
    /// It cannot be as things stand: it is there already, or is another by now.
    Conflict,
    /// The request is too large.
    TooLarge,
    /// The body is of a kind that is not taken.
    MediaType,
    /// Too often: later.
    TooMany,
    /// It took too long.
    Timeout,
    /// Not now.
    Unavailable,
    /// A bug, or the machine's trouble. What it is stands in the log.
    Internal,
}

/// A problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What kind it is.
    pub kind: Kind,
    /// A word of a closed list for programs to act on: `second-factor-required`.
    pub reason: &'static str,
    /// What happened, to what, and what to do, for a person.
    pub detail: String,
    /// The path of the field that it is about: `rules[2].name`.
    pub field: Option<String>,
    /// When to try again.
    pub retry_after: Option<Duration>,
}

/// Metadata key of a gRPC status: the reason.
pub const REASON: &str = "mc-reason";

/// Metadata key of a gRPC status: the field.
pub const FIELD: &str = "mc-field";

/// Metadata key of a gRPC status: seconds until another try.
pub const RETRY: &str = "mc-retry-after";

/// A problem document (RFC 9457, section 3.1), with our members after the standard ones: what OpenAPI documents describe.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct Document {
    /// `urn:metacircular:problem:` and the reason.
    pub r#type: String,
    /// The status in words.
    pub title: &'static str,
    /// The status.
    pub status: u16,
    /// What happened, to what, and what to do.
    pub detail: String,
    /// A word of a closed list for programs to act on.
    pub reason: &'static str,
    /// The path of the field that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

impl Problem {
    /// A problem without a field.
    #[must_use]
    pub fn new(kind: Kind, reason: &'static str, detail: impl Into<String>) -> Self {
        Self { kind, reason, detail: detail.into(), field: None, retry_after: None }
    }

    /// The value of a field is wrong.
    #[must_use]
    pub fn field(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..Self::new(Kind::Invalid, "invalid-field", detail) }
    }

    /// Who is asking is not known.
    #[must_use]
    pub fn unauthenticated(detail: impl Into<String>) -> Self {
        Self::new(Kind::Unauthenticated, "unauthenticated", detail)
    }

    /// Who is asking may not.
    #[must_use]
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(Kind::Forbidden, "forbidden", detail)
    }

    /// It is not there.
    #[must_use]
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, "not-found", detail)
    }

    /// A bug, or the machine's trouble. The cause goes to the log, and not to whoever asked.
    #[must_use]
    pub fn internal(cause: &dyn std::error::Error) -> Self {
        tracing::error!(error = crate::chain(cause), "a request failed");
        Self::new(
            Kind::Internal,
            "internal",
            "something went wrong here; the log says what, by the request's id",
        )
    }

    /// Its HTTP status.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self.kind {
            Kind::Invalid => StatusCode::BAD_REQUEST,
            Kind::Unauthenticated => StatusCode::UNAUTHORIZED,
            Kind::Forbidden => StatusCode::FORBIDDEN,
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::Method => StatusCode::METHOD_NOT_ALLOWED,
            Kind::Conflict => StatusCode::CONFLICT,
            Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Kind::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Kind::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Kind::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    const fn code(&self) -> Code {
        match self.kind {
            Kind::Invalid | Kind::MediaType => Code::InvalidArgument,
            Kind::Unauthenticated => Code::Unauthenticated,
            Kind::Forbidden => Code::PermissionDenied,
            Kind::NotFound => Code::NotFound,
            Kind::Method => Code::Unimplemented,
            Kind::Conflict => Code::Aborted,
            Kind::TooLarge | Kind::TooMany => Code::ResourceExhausted,
            Kind::Timeout => Code::DeadlineExceeded,
            Kind::Unavailable => Code::Unavailable,
            Kind::Internal => Code::Internal,
        }
    }

    /// Whole seconds until another try, at least one.
    fn retry_s(&self) -> Option<u64> {
        let after = self.retry_after?;
        Some(after.as_secs() + u64::from(after.subsec_nanos() > 0).max(u64::from(after.is_zero())))
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.field {
            Some(field) => write!(f, "{field}: {}", self.detail),
            None => f.write_str(&self.detail),
        }
    }
}

impl std::error::Error for Problem {}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, kind, retry_s) = (self.status(), self.kind, self.retry_s());
        let document = Document {
            r#type: format!("urn:metacircular:problem:{}", self.reason),
            title: status.canonical_reason().unwrap_or("Problem"),
            status: status.as_u16(),
            detail: self.detail,
            reason: self.reason,
            field: self.field,
        };
        let body = serde_json::to_vec(&document).expect("a problem can be written as JSON");
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if kind == Kind::Unauthenticated {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = retry_s {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// Every request may end in one, with whichever status.
impl IntoResponses for Problem {
    fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
        let content = Content::new(Some(RefOr::Ref(Ref::from_schema_name("Problem"))));
        let response = ResponseBuilder::new()
            .description("It was refused, or could not be done: see `reason`, `detail` and `field`.")
            .content("application/problem+json", content);
        BTreeMap::from([("default".to_owned(), response.build().into())])
    }
}

impl From<Problem> for Status {
    fn from(problem: Problem) -> Self {
        let mut status = Self::new(problem.code(), &problem.detail);
        let metadata = status.metadata_mut();
        let mut put = |key: &'static str, text: &str| {
            // A field's path may hold what a client sent. What no header can carry is left out.
            if let Ok(value) = text.parse() {
                metadata.insert(key, value);
            }
        };
        put(REASON, problem.reason);
        if let Some(field) = &problem.field {
            put(FIELD, field);
        }
        if let Some(seconds) = problem.retry_s() {
            put(RETRY, &seconds.to_string());
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    #[tokio::test]
    async fn a_problem_is_a_document_and_a_status() {
        let problem = Problem {
            retry_after: Some(Duration::from_millis(1200)),
            ..Problem::field("rules[0].name", "`A` has 'A'")
        };
        let status = Status::from(problem.clone());
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "`A` has 'A'"));
        assert_eq!(status.metadata().get(FIELD).unwrap(), "rules[0].name");
        assert_eq!(status.metadata().get(RETRY).unwrap(), "2");
        let response = problem.into_response();
        assert_eq!(response.status(), 400);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        assert_eq!(response.headers()[RETRY_AFTER], "2");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let document: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            document,
            serde_json::json!({
                "type": "urn:metacircular:problem:invalid-field", "title": "Bad Request", "status": 400,
                "detail": "`A` has 'A'", "reason": "invalid-field", "field": "rules[0].name"
            })
        );
    }

    #[test]
    fn a_field_that_no_header_can_carry_is_left_out() {
        let status = Status::from(Problem::field("ro\nles", "no"));
        assert!(status.metadata().get(FIELD).is_none());
    }
}
