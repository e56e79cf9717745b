//! The sender of a request for a page: a browser, and the person who is logged in with it.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRef, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use maud::Markup;

use super::super::cookies::{anonymous, anonymous_of, session_cookie, session_of};
use super::super::flash::Flash;
use super::super::form::{FieldError, sentence};
use super::super::local::redirect;
use super::super::page::{Layout, Page};
use super::super::parts::Tone;
use super::backend::LoggedIn;
use super::{PASSKEY_SCRIPT, Pages, login_path, user};
use crate::context::RequestContext;
use crate::identity::{Identity, Role};
use crate::problem::{Kind, Problem};
use crate::secret::Secret;

/// A browser, whether or not somebody is logged in with it.
#[derive(Debug)]
pub struct Browser {
    pub(super) pages: Pages,
    pub(super) context: RequestContext,
    /// What its forms' tokens are bound to.
    pub(super) id: Secret,
    /// Where it had no `id` until now: the cookie that gives it one.
    pub(super) id_cookie: Option<HeaderValue>,
    session: Option<Secret>,
    flash: Option<Flash>,
}

/// A person who is logged in. Without a session there is no page: the rejection leads to the login page.
#[derive(Debug)]
pub struct Visitor {
    pub(super) browser: Browser,
    identity: Arc<Identity>,
    token: Secret,
    path: String,
}

impl<S> FromRequestParts<S> for Browser
where
    S: Send + Sync,
    Pages: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let pages = Pages::from_ref(state);
        let (id, id_cookie) = match anonymous_of(&parts.headers) {
            Some(id) => (id, None),
            None => {
                let (id, cookie) = anonymous();
                (id, Some(cookie))
            }
        };
        let context = parts.extensions.get::<RequestContext>().cloned();
        let context = context.expect("every page is in the table of routes");
        let (session, flash) = (session_of(&parts.headers), Flash::of(&parts.headers, pages.csrf()));
        Ok(Self { pages, context, id, id_cookie, session, flash })
    }
}

impl<S> FromRequestParts<S> for Visitor
where
    S: Send + Sync,
    Pages: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let browser = Browser::from_request_parts(parts, state).await?;
        let (token, identity) = (browser.session.clone(), browser.context.identity().cloned());
        let (Some(token), Some(identity)) = (token, identity) else {
            return Err(Problem::unauthenticated("You are not logged in."));
        };
        Ok(Self { browser, identity, token, path: parts.uri.path().to_owned() })
    }
}

impl Browser {
    /// The request.
    #[must_use]
    pub const fn context(&self) -> &RequestContext {
        &self.context
    }

    /// The time, in seconds since 1970.
    #[must_use]
    pub fn now(&self) -> i64 {
        self.pages.0.clock.unix_s()
    }

    /// A page for anybody. `body` gets the token for its forms.
    #[must_use]
    pub fn page(
        &self,
        status: StatusCode,
        title: &str,
        errors: &[FieldError],
        body: impl FnOnce(&str) -> Markup,
    ) -> Response {
        let csrf = self.pages.csrf().token(&self.id);
        let script = self.pages.script();
        let page = Page {
            flash: self.flash.as_ref(),
            errors,
            csrf: &csrf,
            scripts: script.as_slice(),
            layout: Layout::Gate,
            ..Page::new(&self.pages.0.site, title, body(&csrf))
        };
        let response = page.respond(status);
        match &self.id_cookie {
            Some(cookie) => with_cookie(response, cookie.clone()),
            None => response,
        }
    }

    /// Redirects to a page, which shows a message.
    #[must_use]
    pub fn redirect(&self, to: &str, tone: Tone, text: impl Into<String>) -> Response {
        with_cookie(redirect(to), Flash::new(tone, text).cookie(self.pages.csrf()))
    }

    /// The cookie of a new session. The one that it replaces ends: nobody could reach it any more.
    pub(super) async fn open_session(&self, login: &LoggedIn) -> Result<HeaderValue, Problem> {
        let Self { pages, context, session, .. } = self;
        if let Some(previous) = session {
            match pages.0.backend.logout(context, previous).await {
                Err(problem) if problem.kind != Kind::Unauthenticated => return Err(problem),
                // It ended now, or before.
                _ => {}
            }
        }
        let left = u64::try_from(login.expires_at - pages.0.clock.unix_s()).unwrap_or(0);
        session_cookie(&login.token, Duration::from_secs(left))
            .ok_or_else(|| Problem::unauthenticated("The session's token cannot be stored in a cookie."))
    }
}

impl Visitor {
    /// The request.
    #[must_use]
    pub const fn context(&self) -> &RequestContext {
        &self.browser.context
    }

    /// The time, in seconds since 1970.
    #[must_use]
    pub fn now(&self) -> i64 {
        self.browser.now()
    }

    /// The account's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.identity.account.name().as_str()
    }

    /// Whether the account has the role `admin`: to leave out what it could not use. Operations are authorised in any case.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.identity.account.roles().has(Role::Admin)
    }

    /// The session's token.
    pub(super) const fn token(&self) -> &Secret {
        &self.token
    }

    /// The token for a form.
    #[must_use]
    pub fn csrf(&self) -> String {
        self.browser.pages.csrf().token(&self.token)
    }

    /// A page.
    #[must_use]
    pub fn page(&self, title: &str, body: Markup) -> Response {
        self.page_with(StatusCode::OK, |page| page, title, body)
    }

    /// A page that differs from the usual one in more than its title and body.
    #[must_use]
    pub fn page_with<'a>(
        &'a self,
        status: StatusCode,
        change: impl FnOnce(Page<'a>) -> Page<'a>,
        title: &'a str,
        body: Markup,
    ) -> Response {
        let pages = &self.browser.pages;
        let navigation = pages.navigation(&self.identity, &self.path);
        let (csrf, script) = (self.csrf(), pages.script());
        let page = change(Page {
            user: Some(user(&self.identity)),
            flash: self.browser.flash.as_ref(),
            ..Page::new(&pages.0.site, title, body)
        });
        // These borrow from this function: `change` cannot keep them.
        Page { nav: &navigation, csrf: &csrf, scripts: script.as_slice(), ..page }.respond(status)
    }

    /// Redirects to a page, which says what was done.
    #[must_use]
    pub fn done(&self, to: &str, text: impl Into<String>) -> Response {
        self.browser.redirect(to, Tone::Good, text)
    }

    /// Redirects to a page, which says what failed; to the login page and then there, where the login is not recent enough.
    #[must_use]
    pub fn failed(&self, to: &str, problem: &Problem) -> Response {
        if problem.reason == FRESH {
            return self.browser.pages.confirm_login(to);
        }
        self.browser.redirect(to, Tone::Bad, sentence(&problem.to_string()))
    }

    /// Redirects to a page, which says what was done, or what failed.
    #[must_use]
    pub fn finish<T>(&self, to: &str, result: Result<T, Problem>, done: &str) -> Response {
        match result {
            Ok(_) => self.done(to, done),
            Err(problem) => self.failed(to, &problem),
        }
    }
}

impl Pages {
    /// To the login page, though there is a session, and back to `path`.
    pub(super) fn confirm_login(&self, path: &str) -> Response {
        let flash = Flash::new(Tone::Info, "Confirm that it is you: log in again.");
        with_cookie(redirect(&login_path(path)), flash.cookie(self.csrf()))
    }

    fn script(&self) -> Option<&'static str> {
        self.0.backend.offers_passkeys().then(|| PASSKEY_HREF.as_str())
    }
}

static PASSKEY_HREF: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| PASSKEY_SCRIPT.href());

/// The reason of a problem that a new login solves.
pub(super) const FRESH: &str = "fresh-login-required";

/// A response that sets a cookie.
#[must_use]
pub fn with_cookie(mut response: Response, cookie: HeaderValue) -> Response {
    response.headers_mut().append(header::SET_COOKIE, cookie);
    response
}
