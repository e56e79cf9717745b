//! Static files, built into the program. Browsers cache them for ever: a path changes with its content.

use std::sync::LazyLock;

use aws_lc_rs::digest;
use axum::Router;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use data_encoding::HEXLOWER;

/// A file that is built into the program.
#[derive(Clone, Copy, Debug)]
pub struct Asset {
    /// The end of its path: `passkey.js`.
    pub name: &'static str,
    /// Its media type: `text/javascript; charset=utf-8`.
    pub content_type: &'static str,
    /// Its content.
    pub bytes: &'static [u8],
}

impl Asset {
    /// Its path: `/static/0123456789abcdef0123/passkey.js`, with the beginning of its content's SHA-256.
    #[must_use]
    pub fn href(&self) -> String {
        let hash = digest::digest(&digest::SHA256, self.bytes);
        format!("/static/{}/{}", HEXLOWER.encode(&hash.as_ref()[..10]), self.name)
    }

    fn response(&self) -> Response {
        let value = HeaderValue::from_static;
        let headers = HeaderMap::from_iter([
            (header::CONTENT_TYPE, value(self.content_type)),
            (header::CACHE_CONTROL, value("public, max-age=31536000, immutable")),
            (header::X_CONTENT_TYPE_OPTIONS, value("nosniff")),
        ]);
        (StatusCode::OK, headers, self.bytes).into_response()
    }
}

/// Serves the files of all pages, and the service's own.
///
/// # Panics
/// Two files have the same name and content, or a name is not valid in a route.
pub fn static_files<S: Clone + Send + Sync + 'static>(own: &[Asset]) -> Router<S> {
    [*STYLE, MARK, SCRIPT].iter().chain(own).fold(Router::new(), |router, &asset| {
        router.route(&asset.href(), get(move || std::future::ready(asset.response())))
    })
}

/// A stylesheet without comments and indentation.
fn stripped(css: &str) -> String {
    let mut rest = css;
    let mut text = String::new();
    while let Some((before, comment)) = rest.split_once("/*") {
        text.push_str(before);
        rest = comment.split_once("*/").map_or("", |(_, after)| after);
    }
    text.push_str(rest);
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .fold(String::new(), |css, line| css + line + "\n")
}

/// The stylesheet's path.
pub(super) static STYLE_HREF: LazyLock<String> = LazyLock::new(|| STYLE.href());
/// The path of the icon in a browser's tab.
pub(super) static MARK_HREF: LazyLock<String> = LazyLock::new(|| MARK.href());
/// The path of the script of all pages.
pub(super) static SCRIPT_HREF: LazyLock<String> = LazyLock::new(|| SCRIPT.href());

static CSS: LazyLock<String> = LazyLock::new(|| stripped(include_str!("style.css")));
static STYLE: LazyLock<Asset> = LazyLock::new(|| Asset {
    name: "style.css",
    content_type: "text/css; charset=utf-8",
    bytes: CSS.as_bytes(),
});
const SCRIPT: Asset = Asset {
    name: "page.js",
    content_type: "text/javascript; charset=utf-8",
    bytes: include_bytes!("page.js"),
};
const MARK: Asset =
    Asset { name: "mark.svg", content_type: "image/svg+xml", bytes: include_str!("mark.svg").as_bytes() };

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::extract::Request;
    use tower::ServiceExt;

    use super::*;

    const OWN: Asset =
        Asset { name: "a.js", content_type: "text/javascript; charset=utf-8", bytes: b"let a = 1;" };

    async fn ask(path: &str) -> Response {
        let request = Request::get(path).body(Body::empty()).unwrap();
        static_files(&[OWN]).oneshot(request).await.unwrap()
    }

    #[tokio::test]
    async fn a_file_is_cached_for_ever_under_its_hash() {
        for (asset, href) in [(*STYLE, STYLE_HREF.clone()), (MARK, MARK_HREF.clone()), (OWN, OWN.href())] {
            let answer = ask(&href).await;
            assert_eq!(answer.status(), 200, "{href}");
            assert_eq!(answer.headers()["content-type"], asset.content_type);
            assert_eq!(answer.headers()["cache-control"], "public, max-age=31536000, immutable");
            assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
            assert_eq!(to_bytes(answer.into_body(), 1 << 20).await.unwrap(), asset.bytes);
        }
    }

    #[tokio::test]
    async fn other_content_has_another_path() {
        // printf 'let a = 1;' | sha256sum
        assert_eq!(OWN.href(), "/static/c58e9029f1fd3d1b109c/a.js");
        let changed = Asset { bytes: b"let a = 2;", ..OWN };
        assert_eq!(ask(&changed.href()).await.status(), 404);
        assert_eq!(ask("/static/a.js").await.status(), 404);
    }

    #[test]
    fn the_stylesheet_is_small() {
        assert_eq!(stripped("/* a */\n\na {\n  b: c;  /* d\n e */\n}\n"), "a {\nb: c;\n}\n");
        assert!(CSS.len() < 20_480 && CSS.len() > 1000 && !CSS.contains("/*"), "{}", CSS.len());
    }
}
