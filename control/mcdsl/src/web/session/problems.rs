//! Problems, as a browser gets them: a page, or the way to the login page.

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use maud::{Markup, html};

use super::super::cookies::{clear_session, session_of};
use super::super::form::sentence;
use super::super::headers::security_headers;
use super::super::local::redirect;
use super::super::page::{Layout, Page};
use super::super::parts::{Tone, note, padded, plain_panel};
use super::browser::{FRESH, with_cookie};
use super::{Pages, login_path, user};
use crate::http::RequestHead;
use crate::problem::{Kind, Problem};

/// A problem as a browser gets it; `None` for a program, which gets a problem document.
pub(super) fn write(pages: &Pages, problem: &Problem, request: &RequestHead) -> Option<Response> {
    let accept = request.headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    if !accept.is_some_and(|accept| accept.contains("text/html")) {
        return None;
    }
    let from = Origin::of(pages, request);
    let mut response = match problem.kind {
        Kind::Unauthenticated => from.without_session(pages, problem),
        _ if problem.reason == FRESH => pages.confirm_login(&from.back),
        _ => problem_page(pages, problem, &from.back, request),
    };
    for (name, value) in security_headers() {
        response.headers_mut().insert(name, value);
    }
    Some(response)
}

/// Where a request came from.
struct Origin {
    is_read: bool,
    /// Whether it is a link on another site that was followed.
    is_link_elsewhere: bool,
    has_session: bool,
    /// The page to come back to: a form has none of its own, but was on one.
    back: String,
}

impl Origin {
    fn of(pages: &Pages, request: &RequestHead) -> Self {
        let (headers, is_read) = (&request.headers, request.method.is_safe());
        let path = request.uri.path_and_query().map_or("/", |path| path.as_str());
        let back = if is_read { path.to_owned() } else { from_form(pages, headers) };
        let says = |name: &str, values: &[&str]| {
            headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .is_some_and(|value| values.contains(&value))
        };
        let is_link_elsewhere =
            says("sec-fetch-site", &["cross-site", "same-site"]) && says("sec-fetch-mode", &["navigate"]);
        Self { is_read, is_link_elsewhere, has_session: session_of(headers).is_some(), back }
    }

    fn without_session(&self, pages: &Pages, problem: &Problem) -> Response {
        if self.is_read && self.is_link_elsewhere && !self.has_session {
            return same_again(pages, &self.back);
        }
        let response = if self.is_read {
            redirect(&login_path(&self.back))
        } else {
            // The browser still has what was typed, and sends it again.
            let body = plain_panel(padded(html! {
                p { "Nothing was changed. To send the form again:" }
                ol {
                    li { a href=(login_path("/")) target="_blank" { "Log in in a new tab" } "." }
                    li { "Come back to this tab, reload it, and confirm that the form is sent again. It is shown with what you typed." }
                }
                p { a href=(login_path(&self.back)) { "Log in and start again" } }
            }));
            let page =
                Page { layout: Layout::Gate, ..Page::new(&pages.0.site, "Your session has ended", body) };
            page.respond(problem.status())
        };
        // A link from another site brings no cookie, and the browser has one all the same.
        if self.has_session { with_cookie(response, clear_session()) } else { response }
    }
}

/// A page that leads to itself. The browser keeps the session's cookie back where another site led to us (`SameSite=Strict`), also over
/// a redirect; a page of ours gets it. The second request comes from this site, so it happens once.
fn same_again(pages: &Pages, path: &str) -> Response {
    let body = html! {
        meta http-equiv="refresh" content={ "0; url=" (path) };
        p { a href=(path) { "Continue" } }
    };
    let page = Page { layout: Layout::Gate, ..Page::new(&pages.0.site, "One moment", body) };
    page.respond(StatusCode::OK)
}

/// The page that a form was on.
fn from_form(pages: &Pages, headers: &HeaderMap) -> String {
    pages.local_referer(headers).unwrap_or_else(|| pages.0.site.home.to_owned())
}

/// A problem as a page: with the navigation of a visitor whom the path's route knows, and alone otherwise.
fn problem_page(pages: &Pages, problem: &Problem, back: &str, request: &RequestHead) -> Response {
    let title = match problem.kind {
        _ if problem.reason == EXPIRED => "This form has expired",
        Kind::NotFound => "Page not found",
        Kind::Forbidden => "Not permitted",
        Kind::Method => "Method not allowed",
        Kind::Exists => "Already exists",
        Kind::FailedPrecondition => "Not possible",
        Kind::Changed | Kind::PreconditionFailed => "Changed meanwhile",
        Kind::TooLarge => "Request too large",
        Kind::TooMany => "Too many attempts",
        Kind::Timeout | Kind::RequestTimeout => "Request timed out",
        Kind::Unavailable => "Temporarily unavailable",
        Kind::Internal => "Internal error",
        Kind::Invalid | Kind::MediaType | Kind::Unauthenticated => "Invalid request",
    };
    let body = html! {
        (note(Tone::Bad, html! { p { (sentence(&problem.to_string())) } }))
        p.actions { (links(pages, problem, back)) }
    };
    let page = Page { layout: Layout::Gate, ..Page::new(&pages.0.site, title, body) };
    let (Some(identity), Some(token)) = (&request.identity, session_of(&request.headers)) else {
        return page.respond(problem.status());
    };
    let nav = pages.navigation(identity, request.uri.path());
    let csrf = pages.csrf().token(&token);
    Page { layout: Layout::Text, user: Some(user(identity)), nav: &nav, csrf: &csrf, ..page }
        .respond(problem.status())
}

fn links(pages: &Pages, problem: &Problem, back: &str) -> Markup {
    let home = pages.0.site.home;
    html! {
        @if problem.reason == EXPIRED && back != home { a href=(back) { "Back to the form" } " " }
        a href=(home) { "Go to the start page" }
    }
}

/// An expired form that cannot be shown again.
pub(super) fn expired() -> Problem {
    let detail = "This form has expired, and nothing was changed. Open its page again and repeat the action.";
    Problem::new(Kind::Forbidden, EXPIRED, detail)
}

const EXPIRED: &str = "form-expired";
