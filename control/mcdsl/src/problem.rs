//! What went wrong, for the client: one form, which HTTP carries as a problem document (RFC 9457) and gRPC as a status
//! with details (`google.rpc`).

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// What kind of problem it is: whose fault it is, and whether another try may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request is malformed, or a value is not allowed.
    Invalid,
    /// The caller is not known.
    Unauthenticated,
    /// The caller may not do this.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// The path exists and takes other methods.
    Method,
    /// What is to be created exists.
    Exists,
    /// The state of things does not allow it.
    FailedPrecondition,
    /// Somebody else changed it meanwhile.
    Changed,
    /// The same, where the client's `If-Match` stated what it expects.
    PreconditionFailed,
    /// The request is too large.
    TooLarge,
    /// The body is of a media type that is not taken.
    MediaType,
    /// Too many requests or attempts.
    TooMany,
    /// The server took too long.
    Timeout,
    /// The client did not send the whole request in time.
    RequestTimeout,
    /// Not possible at the moment.
    Unavailable,
    /// A bug, or a failure of the machine. The log says more.
    Internal,
}

/// A problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its kind.
    pub kind: Kind,
    /// A word of a fixed list for programs: `second-factor-required`.
    pub reason: &'static str,
    /// What happened, to what, and what to do, for a person.
    pub detail: String,
    /// The path of the field that it is about: `rules[2].name`.
    pub field: Option<String>,
    /// When to try again.
    pub retry_after: Option<Duration>,
}

/// The domain of the reasons in `google.rpc.ErrorInfo`.
pub const DOMAIN: &str = "metacircular.net";

/// What OpenAPI documents say of a problem document (RFC 9457, section 3.1, with members of our own after the standard ones).
#[must_use]
pub fn schema() -> Value {
    let text = |description: &str| json!({ "type": "string", "description": description });
    json!({
        "type": "object",
        "description": "A problem document (RFC 9457).",
        "required": ["type", "title", "status", "detail", "reason"],
        "properties": {
            "type": text("`urn:metacircular:problem:` and the reason."),
            "title": text("The status in words."),
            "status": { "type": "integer", "description": "The status." },
            "detail": text("What happened, to what, and what to do."),
            "reason": text("A word of a fixed list, for programs."),
            "field": text("The path of the field that it is about."),
        },
    })
}

impl Problem {
    /// A problem without a field.
    #[must_use]
    pub fn new(kind: Kind, reason: &'static str, detail: impl Into<String>) -> Self {
        Self { kind, reason, detail: detail.into(), field: None, retry_after: None }
    }

    /// The value of a field is not allowed.
    #[must_use]
    pub fn field(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..Self::new(Kind::Invalid, "invalid-field", detail) }
    }

    /// The caller is not known.
    #[must_use]
    pub fn unauthenticated(detail: impl Into<String>) -> Self {
        Self::new(Kind::Unauthenticated, "unauthenticated", detail)
    }

    /// The caller may not do this.
    #[must_use]
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(Kind::Forbidden, "forbidden", detail)
    }

    /// There is no such thing.
    #[must_use]
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, "not-found", detail)
    }

    /// A bug, or a failure of the machine. The cause goes to the log, not to the client.
    #[must_use]
    pub fn internal(cause: &dyn std::error::Error) -> Self {
        tracing::error!(error = crate::chain(cause), "request failed");
        Self::new(
            Kind::Internal,
            "internal",
            "The server failed to handle the request. Its log has the cause, under the request's id.",
        )
    }

    /// The problem that another service of the platform answered with. `None`: the status is not such an answer; the connection failed, for
    /// example. A reason that this version does not know becomes that of its kind: the detail still says it.
    #[must_use]
    pub fn from_status(status: &Status) -> Option<Self> {
        let Received { reason, field, retry_after } = Received::of(status);
        if reason.is_empty() {
            return None;
        }
        let (kind, general) = match status.code() {
            Code::InvalidArgument | Code::OutOfRange => (Kind::Invalid, "invalid"),
            Code::Unauthenticated => (Kind::Unauthenticated, "unauthenticated"),
            Code::PermissionDenied => (Kind::Forbidden, "forbidden"),
            Code::NotFound => (Kind::NotFound, "not-found"),
            Code::Unimplemented => (Kind::Method, "method"),
            Code::AlreadyExists => (Kind::Exists, "exists"),
            Code::FailedPrecondition => (Kind::FailedPrecondition, "failed-precondition"),
            Code::Aborted => (Kind::Changed, "changed"),
            Code::ResourceExhausted if reason == "too-large" => (Kind::TooLarge, "too-large"),
            Code::ResourceExhausted => (Kind::TooMany, "too-many"),
            Code::DeadlineExceeded => (Kind::Timeout, "timeout"),
            Code::Unavailable => (Kind::Unavailable, "unavailable"),
            _ => (Kind::Internal, "internal"),
        };
        let reason = RECEIVED_REASONS.into_iter().find(|known| *known == reason).unwrap_or(general);
        Some(Self { kind, reason, detail: status.message().to_owned(), field, retry_after })
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
            Kind::Exists | Kind::FailedPrecondition | Kind::Changed => StatusCode::CONFLICT,
            Kind::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Kind::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Kind::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Kind::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Kind::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
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
            Kind::Exists => Code::AlreadyExists,
            Kind::FailedPrecondition => Code::FailedPrecondition,
            Kind::Changed | Kind::PreconditionFailed => Code::Aborted,
            Kind::TooLarge | Kind::TooMany => Code::ResourceExhausted,
            Kind::Timeout | Kind::RequestTimeout => Code::DeadlineExceeded,
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
    /// A problem document. The problem goes along as an extension, for a dialect that writes it in another form.
    fn into_response(self) -> Response {
        let status = self.status();
        let mut document = json!({
            "type": format!("urn:metacircular:problem:{}", self.reason),
            "title": status.canonical_reason().unwrap_or("Problem"),
            "status": status.as_u16(),
            "detail": self.detail,
            "reason": self.reason,
        });
        if let Some(field) = &self.field {
            document["field"] = field.as_str().into();
        }
        let mut response = (status, document.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.kind == Kind::Unauthenticated {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_s() {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Problem> for Status {
    fn from(problem: Problem) -> Self {
        let mut details = ErrorDetails::with_error_info(problem.reason, DOMAIN, []);
        if let Some(field) = &problem.field {
            details.add_bad_request_violation(field, &problem.detail);
        }
        if let Some(seconds) = problem.retry_s() {
            details.set_retry_info(Some(Duration::from_secs(seconds)));
        }
        Self::with_error_details(problem.code(), &problem.detail, details)
    }
}

/// Reasons of other services that are passed on as they are: clients act on them.
const RECEIVED_REASONS: [&str; 13] = [
    "busy",
    "denied-by-policy",
    "fresh-login-required",
    "invalid-field",
    "malformed",
    "second-factor-required",
    "storage",
    "timeout",
    "too-many-attempts",
    "unauthenticated",
    "used-code",
    "wrong-code",
    "wrong-login",
];

/// A problem as the client of another service gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The word for programs; empty where the server gave none.
    pub reason: String,
    /// The field that it is about.
    pub field: Option<String>,
    /// When to try again.
    pub retry_after: Option<Duration>,
}

impl Received {
    /// What a status says besides its code and its message.
    #[must_use]
    pub fn of(status: &Status) -> Self {
        let details = status.get_error_details();
        let violation = details.bad_request().and_then(|request| request.field_violations.first());
        Self {
            reason: details.error_info().map(|info| info.reason.clone()).unwrap_or_default(),
            field: violation.map(|violation| violation.field.clone()),
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
        }
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
            ..Problem::field("rules[0].name", "`A` contains 'A'")
        };
        let status = Status::from(problem.clone());
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "`A` contains 'A'"));
        let received = Received::of(&status);
        assert_eq!(
            (received.reason.as_str(), received.field.as_deref()),
            ("invalid-field", Some("rules[0].name"))
        );
        assert_eq!(received.retry_after, Some(Duration::from_secs(2)));
        let response = problem.clone().into_response();
        assert_eq!(response.status(), 400);
        assert_eq!(response.extensions().get::<Problem>(), Some(&problem));
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        assert_eq!(response.headers()[RETRY_AFTER], "2");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let document: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            document,
            json!({
                "type": "urn:metacircular:problem:invalid-field", "title": "Bad Request", "status": 400,
                "detail": "`A` contains 'A'", "reason": "invalid-field", "field": "rules[0].name"
            })
        );
    }

    #[test]
    fn a_status_of_another_service_is_its_problem() {
        let problem = Problem {
            retry_after: Some(Duration::from_secs(2)),
            ..Problem::new(Kind::TooMany, "too-many-attempts", "Try again in 2 s.")
        };
        assert_eq!(Problem::from_status(&Status::from(problem.clone())), Some(problem));
        let problem = Problem::field("username", "`A` contains 'A'");
        assert_eq!(Problem::from_status(&Status::from(problem.clone())), Some(problem));
        let newer = Problem::new(Kind::Forbidden, "of-a-newer-version", "No.");
        assert_eq!(Problem::from_status(&Status::from(newer)), Some(Problem::forbidden("No.")));
        assert_eq!(Problem::from_status(&Status::unavailable("connection refused")), None);
    }

    #[test]
    fn clients_tell_conflicts_apart() {
        let code = |kind| Status::from(Problem::new(kind, "x", "x")).code();
        assert_eq!(code(Kind::Exists), Code::AlreadyExists);
        assert_eq!(code(Kind::FailedPrecondition), Code::FailedPrecondition);
        assert_eq!(code(Kind::Changed), Code::Aborted);
        assert_eq!(Problem::new(Kind::PreconditionFailed, "x", "x").status(), 412);
    }
}
