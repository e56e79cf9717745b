//! Who looks at a page, and what they may be shown: a session, a page around what there is to say, an answer where there is a problem.

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use mcdsl::Secret;
use mcdsl::http::{Caller, Form};
use mcdsl::problem::{Kind, Problem};
use mcdsl::web::{self, CSRF_FIELD, FieldError, Flash, NavItem, Page, Tone, User};
use serde::de::DeserializeOwned;

use super::{PAGES, SCRIPT, Shared, is_admin};
use crate::app::{Ask, Mcias};

/// Somebody who is logged in.
pub(super) struct Visitor {
    pub(super) ask: Ask,
    session: Secret,
    flash: Option<Flash>,
    web: Shared,
    path: String,
}

/// Somebody who may be anybody.
pub(super) struct Stranger {
    pub(super) caller: Caller,
    pub(super) headers: HeaderMap,
    pub(super) web: Shared,
}

impl Stranger {
    /// A request of somebody who is not logged in.
    pub(super) fn ask(&self) -> Ask {
        Ask { caller: self.caller.clone(), bearer: None }
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
    LogIn { back: String, flash: Option<(Flash, Shared)>, clear: bool },
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
            Self::LogIn { back, flash, clear } => {
                let back = data_encoding::BASE64URL_NOPAD.encode(back.as_bytes());
                let response = web::redirect(&format!("/login?next={back}"));
                match flash {
                    Some((flash, web)) => with_cookie(response, flash.cookie(&web.csrf)),
                    None if clear => with_cookie(response, web::clear_session()),
                    // Who comes by a link from elsewhere shows no cookie, and has one all the same.
                    None => response,
                }
            }
            Self::Told(problem) => {
                let title = match problem.kind {
                    Kind::NotFound => "There is no such thing",
                    Kind::Forbidden => "This is not for you",
                    _ => "That did not work",
                };
                let body = html! {
                    (web::notice(Tone::Bad, html! { p { (problem.to_string()) } }))
                    p { a href="/" { "To the first page" } }
                };
                Page::new(&PAGES, title, body).respond(problem.status())
            }
        }
    }
}

impl FromRequestParts<Shared> for Visitor {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, web: &Shared) -> Result<Self, Refusal> {
        let is_read = parts.method.is_safe();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        // A form cannot be sent again by a link: whoever logs in anew begins with the first page.
        let back = if is_read { path.to_owned() } else { "/".to_owned() };
        let log_in = |clear| Refusal::LogIn { back: back.clone(), flash: None, clear };
        let session = web::session_of(&parts.headers).ok_or_else(|| log_in(false))?;
        let ask = web.app.ask(caller(parts), Some(session.clone())).await;
        let ask = match ask {
            Err(problem) if problem.kind == Kind::Unauthenticated => return Err(log_in(true)),
            ask => ask?,
        };
        let flash = Flash::of(&parts.headers, &web.csrf);
        Ok(Self { ask, session, flash, web: web.clone(), path: parts.uri.path().to_owned() })
    }
}

impl FromRequestParts<Shared> for Stranger {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, web: &Shared) -> Result<Self, Refusal> {
        Ok(Self { caller: caller(parts), headers: parts.headers.clone(), web: web.clone() })
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
        Err(if forged { web.app.forged(&visitor.ask, problem).await } else { problem }.into())
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

fn caller(parts: &Parts) -> Caller {
    parts.extensions.get::<Caller>().cloned().expect("every request is surrounded")
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

    /// That whoever looks may see a page that shows nothing of its own.
    pub(super) async fn may_look(&self, for_admins: bool) -> Result<(), Problem> {
        self.app().may_look(&self.ask, for_admins).await
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
        let bearer = self.ask.bearer.as_deref();
        let admin = bearer.is_some_and(is_admin);
        let shown = NAV.iter().filter(|(_, _, for_admins)| admin || !for_admins);
        let nav: Vec<_> = shown
            .map(|(label, href, _)| {
                let below = *href != "/" && self.path.starts_with(&format!("{href}/"))
                    || (*href == "/accounts" && self.path == "/new-account");
                NavItem { label, href, current: self.path == *href || below }
            })
            .collect();
        let about = if admin { "Administrator" } else { "" };
        let user = bearer.map(|bearer| User { name: bearer.account.name().as_str(), about });
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
            return Err(Refusal::LogIn {
                back: to.to_owned(),
                flash: Some((flash, self.web.clone())),
                clear: false,
            });
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
