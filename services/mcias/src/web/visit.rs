//! Who looks at a page, and what they may be shown: a session, a page around what there is to say, an answer where there is a problem.

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use mcdsl::Secret;
use mcdsl::context::{Principal, RequestContext};
use mcdsl::http::{Form, RequestHead};
use mcdsl::permit::Authority as _;
use mcdsl::problem::{Kind, Problem};
use mcdsl::web::{self, CSRF_FIELD, FieldError, Flash, NavItem, Page, Tone, User};
use serde::de::DeserializeOwned;

use super::{PAGES, SCRIPT, Shared};
use crate::app::{Calls, Mcias};
use crate::domain::Role;

/// Somebody who is logged in.
pub(super) struct Visitor {
    pub(super) calls: Calls,
    session: Secret,
    flash: Option<Flash>,
    web: Shared,
    path: String,
}

/// Somebody who may be anybody.
pub(super) struct Stranger {
    pub(super) calls: Calls,
    pub(super) headers: HeaderMap,
    pub(super) web: Shared,
}

impl Stranger {
    /// The use cases, for a session that the browser still has.
    pub(super) async fn as_session(&self, token: &Secret) -> Result<Calls, Problem> {
        let identity = self.web.app.authenticate(self.calls.context(), token).await?;
        let context =
            RequestContext { principal: Principal::Account(identity), ..self.calls.context().clone() };
        Ok(Calls::new(self.web.app.clone(), context))
    }
}

/// A form that was sent from a page of ours, by somebody who is logged in.
pub(super) struct Posted<T> {
    pub(super) visitor: Visitor,
    pub(super) form: T,
}

/// The same by somebody who is not.
pub(super) struct PostedByStranger<T> {
    pub(super) stranger: Stranger,
    pub(super) form: T,
}

/// Why there is no such page for whoever asks.
pub(super) enum Refusal {
    /// Nobody is logged in: they are asked to, and led back.
    LogIn { back: String, flash: Option<(Flash, Shared)> },
    /// Something else, in words.
    Told(Box<Problem>),
}

pub(super) type Answer = Result<Response, Refusal>;

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::Told(Box::new(problem))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::LogIn { back, flash } => {
                let back = data_encoding::BASE64URL_NOPAD.encode(back.as_bytes());
                let response = web::redirect(&format!("/login?next={back}"));
                match flash {
                    Some((flash, web)) => with_cookie(response, flash.cookie(&web.csrf)),
                    None => response,
                }
            }
            Self::Told(problem) => problem.into_response(),
        }
    }
}

/// A problem as a page; or the way to the login, where that is what is missing.
pub(super) fn page_of(problem: &Problem, request: &RequestHead) -> Response {
    if problem.kind == Kind::Unauthenticated {
        // A form cannot be sent again by a link: after the login it is the first page.
        let path = request.uri.path_and_query().map_or("/", |path| path.as_str());
        let back = if request.method.is_safe() { path } else { "/" };
        let back = data_encoding::BASE64URL_NOPAD.encode(back.as_bytes());
        let response = web::redirect(&format!("/login?next={back}"));
        // A session that is no longer valid is not sent again.
        let has_session = web::session_of(&request.headers).is_some();
        return if has_session { with_cookie(response, web::clear_session()) } else { response };
    }
    let title = match problem.kind {
        Kind::NotFound => "Not found",
        Kind::Forbidden => "Not permitted",
        Kind::Method => "Method not allowed",
        _ => "Request failed",
    };
    let body = html! {
        (web::notice(Tone::Bad, html! { p { (problem.to_string()) } }))
        p { a href="/" { "Overview" } }
    };
    let mut page = Page::new(&PAGES, title, body).respond(problem.status());
    for (name, value) in web::security_headers() {
        page.headers_mut().insert(name, value);
    }
    page
}

impl FromRequestParts<Shared> for Visitor {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, web: &Shared) -> Result<Self, Refusal> {
        let log_in = || Refusal::from(Problem::unauthenticated("Log in to see this page."));
        let session = web::session_of(&parts.headers).ok_or_else(log_in)?;
        let calls = calls(parts, web);
        let flash = Flash::of(&parts.headers, &web.csrf);
        Ok(Self { calls, session, flash, web: web.clone(), path: parts.uri.path().to_owned() })
    }
}

impl FromRequestParts<Shared> for Stranger {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, web: &Shared) -> Result<Self, Refusal> {
        Ok(Self { calls: calls(parts, web), headers: parts.headers.clone(), web: web.clone() })
    }
}

impl<T: DeserializeOwned> FromRequest<Shared> for Posted<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, web: &Shared) -> Result<Self, Refusal> {
        let (mut parts, body) = request.into_parts();
        let visitor = Visitor::from_request_parts(&mut parts, web).await?;
        let session = Some(visitor.session.clone());
        let problem = match checked(Request::from_parts(parts, body), web, session).await {
            Ok(form) => return Ok(Self { visitor, form }),
            Err(problem) => problem,
        };
        let forged = problem.reason == FORGED;
        let context = visitor.calls.context();
        Err(if forged { web.app.refused(context, "form", "", problem).await } else { problem }.into())
    }
}

impl<T: DeserializeOwned> FromRequest<Shared> for PostedByStranger<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, web: &Shared) -> Result<Self, Refusal> {
        let (mut parts, body) = request.into_parts();
        let stranger = Stranger::from_request_parts(&mut parts, web).await?;
        let binding = web::anonymous_of(&parts.headers);
        let form = checked(Request::from_parts(parts, body), web, binding).await?;
        Ok(Self { stranger, form })
    }
}

fn calls(parts: &Parts, web: &Shared) -> Calls {
    let context =
        parts.extensions.get::<RequestContext>().cloned().expect("every page is in the route table");
    Calls::new(web.app.clone(), context)
}

/// Reads a form that is from a page of ours.
async fn checked<T: DeserializeOwned>(
    request: Request,
    web: &Shared,
    binding: Option<Secret>,
) -> Result<T, Problem> {
    let headers = request.headers().clone();
    let Form(mut pairs) = Form::<Vec<(String, String)>>::from_request(request, &()).await?;
    let given = pairs.iter().position(|(name, _)| name == CSRF_FIELD).map(|at| pairs.swap_remove(at).1);
    let origin = &web.app.config().site.public_url;
    web::check_form(&headers, &web.csrf, binding.as_ref(), given.as_deref(), origin)
        .map_err(|refused| Problem::new(Kind::Forbidden, FORGED, refused.to_string()))?;
    let text = serde_urlencoded::to_string(&pairs).expect("pairs of texts can be written");
    serde_urlencoded::from_str(&text).map_err(|error| {
        Problem::new(Kind::Invalid, "malformed", format!("the form cannot be read: {error}"))
    })
}

/// The reason where a form is not from a page of ours.
const FORGED: &str = "forged-form";

impl Visitor {
    /// The use cases.
    pub(super) fn app(&self) -> &Mcias {
        &self.web.app
    }

    /// The token for a form.
    pub(super) fn csrf(&self) -> String {
        self.web.csrf.token(&self.session)
    }

    /// A page, as whoever looks at it gets it.
    pub(super) fn page(&self, title: &str, body: Markup) -> Response {
        self.page_with(StatusCode::OK, |page| page, title, body)
    }

    /// A page with something else about it.
    pub(super) fn page_with<'a>(
        &'a self,
        status: StatusCode,
        change: impl FnOnce(Page<'a>) -> Page<'a>,
        title: &'a str,
        body: Markup,
    ) -> Response {
        let identity = self.calls.context().identity();
        let admin = identity.is_some_and(|identity| identity.account.roles().has(Role::Admin));
        let shown = NAV.iter().filter(|(_, _, for_admins)| admin || !for_admins);
        let nav: Vec<_> = shown
            .map(|(label, href, _)| {
                let below = *href != "/" && self.path.starts_with(&format!("{href}/"))
                    || (*href == "/accounts" && self.path == "/new-account");
                NavItem { label, href, current: self.path == *href || below }
            })
            .collect();
        let about = if admin { "Administrator" } else { "" };
        let user = identity.map(|identity| User { name: identity.account.name().as_str(), about });
        let (csrf, script) = (self.csrf(), SCRIPT.href());
        let scripts = [script.as_str()];
        let page = Page { user, flash: self.flash.as_ref(), ..Page::new(&PAGES, title, body) };
        let page = change(page);
        // What is borrowed here lives no longer than this: so it is put in last.
        Page { nav: &nav, csrf: &csrf, scripts: &scripts, ..page }.respond(status)
    }

    /// Back to a page, which says what was done.
    pub(super) fn done(&self, to: &str, text: impl Into<String>) -> Answer {
        Ok(with_cookie(web::redirect(to), Flash::new(Tone::Good, text).cookie(&self.web.csrf)))
    }

    /// Back to a page, which says what was wrong; to the login, where that must be fresh.
    pub(super) fn failed(&self, to: &str, problem: &Problem) -> Answer {
        if problem.reason == "fresh-login-required" {
            let flash = Flash::new(Tone::Info, "Log in once more for this.");
            return Err(Refusal::LogIn { back: to.to_owned(), flash: Some((flash, self.web.clone())) });
        }
        let flash = Flash::new(Tone::Bad, problem.to_string());
        Ok(with_cookie(web::redirect(to), flash.cookie(&self.web.csrf)))
    }

    /// What was done, or what was wrong, on a page.
    pub(super) fn told<T>(&self, to: &str, done: Result<T, Problem>, text: &str) -> Answer {
        match done {
            Ok(_) => self.done(to, text),
            Err(problem) => self.failed(to, &problem),
        }
    }
}

/// Where every page leads, and whether that is for admins.
const NAV: [(&str, &str, bool); 7] = [
    ("Overview", "/", false),
    ("Security", "/security", false),
    ("Sessions", "/sessions", false),
    ("Accounts", "/accounts", true),
    ("Login policy", "/policy", true),
    ("Audit log", "/audit", true),
    ("Signing keys", "/keys", true),
];

pub(super) fn with_cookie(mut response: Response, cookie: HeaderValue) -> Response {
    response.headers_mut().append(header::SET_COOKIE, cookie);
    response
}

/// A problem about a form, at the field where the form has it.
pub(super) fn errors(problem: &Problem, fields: &[&'static str]) -> Vec<FieldError> {
    let last = problem.field.as_deref().map(|field| field.rsplit('.').next().unwrap_or(field));
    let last = last.map(|field| field.split('[').next().unwrap_or(field));
    let field = fields.iter().find(|field| Some(**field) == last).copied().unwrap_or("");
    let text = if field.is_empty() { problem.to_string() } else { problem.detail.clone() };
    vec![FieldError { field, text }]
}
