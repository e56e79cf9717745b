//! Security headers: a browser may do no more with a page than it needs.

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;

/// The headers of every response with a page.
///
/// The policy for referrers is `same-origin`, not `no-referrer`: under the latter browsers send `Origin: null` with our own
/// forms, and [`super::same_origin`] could not tell them from another site's. Other sites get no referrer either way.
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

/// Middleware that adds [`security_headers`] to every response, except those that it has already: static files may be cached.
///
/// `router.layer(axum::middleware::from_fn(web::secure))`
pub async fn secure(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in security_headers() {
        response.headers_mut().entry(name).or_insert(value);
    }
    response
}

/// Nothing is loaded from other hosts, and a page holds no inline style or script. Images may be inline.
const CONTENT: &str = "default-src 'none'; style-src 'self'; img-src 'self' data:; script-src 'self'; \
    connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Passkeys, and nothing else that requires permission.
const PERMISSIONS: &str = "publickey-credentials-get=(self), publickey-credentials-create=(self), camera=(), \
    display-capture=(), geolocation=(), microphone=(), payment=(), usb=()";

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;
    use axum::{Router, middleware};
    use tower::ServiceExt;

    use super::*;

    async fn ask(path: &str) -> Response {
        let kept = || std::future::ready([(header::CACHE_CONTROL, "public")]);
        let router =
            Router::new().route("/page", get(|| std::future::ready("page"))).route("/kept", get(kept));
        let request = Request::get(path).body(Body::empty()).unwrap();
        router.layer(middleware::from_fn(secure)).oneshot(request).await.unwrap()
    }

    #[tokio::test]
    async fn every_response_has_them() {
        for path in ["/page", "/nowhere"] {
            let answer = ask(path).await;
            for (name, value) in security_headers() {
                assert_eq!(answer.headers().get(&name), Some(&value), "{path}");
            }
        }
    }

    #[tokio::test]
    async fn a_response_keeps_its_own_headers() {
        let answer = ask("/kept").await;
        let all: Vec<_> = answer.headers().get_all(header::CACHE_CONTROL).iter().collect();
        assert_eq!(all, ["public"]);
    }

    #[test]
    fn nothing_is_allowed_that_is_not_named() {
        assert!(
            CONTENT.starts_with("default-src 'none';")
                && !CONTENT.contains("unsafe")
                && !CONTENT.contains('*')
        );
    }

    #[test]
    fn browsers_still_send_the_origin_of_our_own_forms() {
        let policy = security_headers().into_iter().find(|(name, _)| name == header::REFERRER_POLICY);
        assert_eq!(policy.map(|(_, value)| value), Some(HeaderValue::from_static("same-origin")));
    }
}
