//! Headers that let a browser do no more with our pages than they need.

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;

/// What every answer with a page has.
///
/// The policy for referrers is `same-origin`, not `no-referrer`: under the latter browsers send `Origin: null` with our own
/// forms, and [`super::same_origin`] could not tell them from another site's. No other site gets a referrer either way.
#[must_use]
pub fn security_headers() -> [(HeaderName, HeaderValue); 7] {
    let value = HeaderValue::from_static;
    [
        (header::CONTENT_SECURITY_POLICY, value(CONTENT)),
        (header::REFERRER_POLICY, value("same-origin")),
        (header::X_CONTENT_TYPE_OPTIONS, value("nosniff")),
        (HeaderName::from_static("cross-origin-opener-policy"), value("same-origin")),
        (HeaderName::from_static("permissions-policy"), value(PERMISSIONS)),
        (header::STRICT_TRANSPORT_SECURITY, value("max-age=63072000")),
        (header::CACHE_CONTROL, value("no-store")),
    ]
}

/// Gives every answer [`security_headers`], except for those that it has already: static files may be kept.
///
/// `router.layer(axum::middleware::from_fn(web::secure))`
pub async fn secure(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in security_headers() {
        response.headers_mut().entry(name).or_insert(value);
    }
    response
}

/// Nothing is loaded from elsewhere, and nothing in a page's text is a style or a script. Images may be in the page itself.
const CONTENT: &str = "default-src 'none'; style-src 'self'; img-src 'self' data:; script-src 'self'; \
    connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Passkeys, and nothing else that a browser would have to ask for.
const PERMISSIONS: &str = "publickey-credentials-get=(self), publickey-credentials-create=(self), camera=(), \
    display-capture=(), geolocation=(), microphone=(), payment=(), usb=()";
