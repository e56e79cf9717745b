//! The login pages and a service's page behind them, with a backend that knows one account.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::Response;
use axum::routing::{get, post};
use data_encoding::BASE64URL_NOPAD;
use maud::html;
use serde::Deserialize;
use tower::ServiceExt as _;

use super::super::form::{Field, Kind as FieldKind, field, form};
use super::super::page::Page;
use super::*;
use crate::context::RequestContext;
use crate::http::{BodyBudget, BodyLimits, Limits, middleware};
use crate::identity::{Account, Name};
use crate::problem::Kind;

const ORIGIN: &str = "https://dns.example.org";

/// Knows ada, whose password is `right`, and grace, who needs the code 123456 as well.
#[derive(Clone, Debug, Default)]
struct Fake(Arc<Mutex<Calls>>);

#[derive(Debug, Default)]
struct Calls {
    sessions: Vec<String>,
    forged: usize,
    logins: usize,
}

impl Fake {
    fn calls(&self) -> std::sync::MutexGuard<'_, Calls> {
        self.0.lock().unwrap()
    }
}

#[tonic::async_trait]
impl LoginBackend for Fake {
    async fn login(&self, _context: &RequestContext, login: PasswordLogin) -> Result<LoggedIn, Problem> {
        let wrong = |reason| Problem::new(Kind::Unauthenticated, reason, "Wrong.");
        if login.password.expose() != "right" {
            return Err(wrong("wrong-login"));
        }
        let code = login.totp.as_ref().map(Secret::expose);
        match (login.username.as_str(), code) {
            ("ada", _) | ("grace", Some("123456")) => {}
            ("grace", None) => return Err(wrong("second-factor-required")),
            ("grace", Some(_)) => return Err(wrong("wrong-code")),
            _ => return Err(wrong("wrong-login")),
        }
        let mut calls = self.calls();
        calls.logins += 1;
        let token = format!("{}-{}", login.username, calls.logins);
        calls.sessions.push(token.clone());
        Ok(LoggedIn { token: Secret::from(token), expires_at: i64::MAX })
    }

    async fn begin_passkey(&self, _context: &RequestContext) -> Result<PasskeyChallenge, Problem> {
        Ok(PasskeyChallenge { ceremony_id: "c.1".to_owned(), options: "{}".to_owned() })
    }

    async fn finish_passkey(
        &self,
        context: &RequestContext,
        answer: PasskeyAnswer,
    ) -> Result<LoggedIn, Problem> {
        assert_eq!(answer.ceremony_id, "c.1", "the backend gets its own id back");
        let (username, password) = ("ada".to_owned(), Secret::from("right"));
        let login = PasswordLogin { username, password, totp: None, recovery_code: None };
        self.login(context, login).await
    }

    async fn logout(&self, _context: &RequestContext, token: &Secret) -> Result<(), Problem> {
        self.calls().sessions.retain(|session| session != token.expose());
        Ok(())
    }
}

impl Authority for Fake {
    fn service(&self) -> &Name {
        static NAME: std::sync::LazyLock<Name> = std::sync::LazyLock::new(|| Name::parse("dns").unwrap());
        &NAME
    }

    async fn authenticate(
        &self,
        _context: &RequestContext,
        token: &Secret,
    ) -> Result<Arc<Identity>, Problem> {
        if !self.calls().sessions.iter().any(|session| session == token.expose()) {
            return Err(Problem::unauthenticated("The token is invalid."));
        }
        let name = token.expose().split('-').next().unwrap_or_default();
        let roles = [if name == "ada" { Role::Admin } else { Role::Guest }].into_iter().collect();
        Ok(Arc::new(Identity {
            account: Account::Human { name: Name::parse(name).unwrap(), roles },
            tags: std::collections::BTreeSet::new(),
            token_id: String::new(),
            account_id: String::new(),
            audience: Vec::new(),
            service: None,
            authenticated_at: 0,
            expires_at: 0,
        }))
    }

    fn admit(&self, _identity: &Identity) -> Result<(), Problem> {
        Ok(())
    }

    fn is_fresh(&self, _identity: &Identity) -> bool {
        true
    }

    async fn refused(
        &self,
        _context: &RequestContext,
        action: &'static str,
        _target: &str,
        problem: Problem,
    ) -> Problem {
        self.calls().forged += usize::from(action == "form");
        problem
    }
}

fn site() -> Site {
    Site { service: "DNS", name: "example.org".to_owned(), home: "/", account: None, logout: "/logout" }
}

const NAVIGATION: [NavEntry; 2] = [
    NavEntry {
        group: "",
        label: "Zones",
        icon: Icon::HOME,
        href: "/",
        prefixes: &["/zones/"],
        for_admins: false,
    },
    NavEntry {
        group: "",
        label: "Policy",
        icon: Icon::RULES,
        href: "/policy",
        prefixes: &[],
        for_admins: true,
    },
];

#[derive(Deserialize)]
struct Zone {
    name: String,
    password: Secret,
}

fn zone_page(
    visitor: &Visitor,
    status: StatusCode,
    name: &str,
    errors: &[super::super::FieldError],
) -> Response {
    let fields = html! {
        (field(Field { value: name, ..Field::new("name", "Name", FieldKind::Text) }))
        (field(Field::new("password", "Password", FieldKind::Password)))
    };
    let body = form("/zones/new", &visitor.csrf(), fields);
    visitor.page_with(status, |page| Page { errors, ..page }, "New zone", body)
}

async fn new_zone(visitor: Visitor) -> Response {
    zone_page(&visitor, StatusCode::OK, "", &[])
}

async fn create_zone(submission: Submission<Visitor, Zone>) -> Result<Response, Problem> {
    let show = async |visitor: &Visitor, zone: &Zone, shown: Shown| {
        Ok(zone_page(visitor, shown.status, &zone.name, &shown.errors))
    };
    let act = async |visitor: &Visitor, zone: &Zone| match zone.name.as_str() {
        "" => Err(Problem::field("zones[0].name", "is empty")),
        "busy" => Err(Problem::new(Kind::Unavailable, "busy", "Try again.")),
        "gone" => Err(Problem::not_found("It is gone.")),
        name => Ok(visitor.done("/", format!("Zone {name} created with {}.", zone.password.expose().len()))),
    };
    submission.handle(&["name"], show, act).await
}

async fn delete_zone(posted: Posted<Visitor, NoFields>) -> Response {
    let problem = Problem::new(Kind::Forbidden, "fresh-login-required", "Log in again.");
    posted.sender.failed("/zones/a?tab=2", &problem)
}

async fn export_zone(_visitor: Visitor) -> Result<Response, Problem> {
    Err(Problem::new(Kind::Forbidden, "fresh-login-required", "Log in again."))
}

async fn missing_zone(_visitor: Visitor) -> Result<Response, Problem> {
    Err(Problem::not_found("There is no zone `x`."))
}

/// The service, started again: with the same sessions and another key.
fn service(fake: &Fake) -> Router {
    let pages = Pages::new(site(), ORIGIN.to_owned(), &NAVIGATION, fake.clone(), Clock::system());
    let limits =
        Limits { time: Duration::from_secs(60), body: BodyLimits::SMALL, budget: BodyBudget::new(1 << 20) };
    let mut table = RouteTable::new(Arc::new(fake.clone()), limits.clone());
    pages.add_to(&mut table, &["/v1/"]);
    for (method, path, handler) in [
        (Method::GET, "/zones/new", get(new_zone)),
        (Method::POST, "/zones/new", post(create_zone)),
        (Method::POST, "/zones/delete", post(delete_zone)),
        (Method::GET, "/zones/export", get(export_zone)),
        (Method::GET, "/zones/missing", get(missing_zone)),
    ] {
        let handler: MethodRouter<Pages> = handler;
        pages.add_page(&mut table, method, path, Need::Person, handler.with_state(pages.clone()));
    }
    let routes = table.finish();
    middleware(routes.pages, limits, Arc::default(), Clock::system(), &routes.dialects)
}

/// A browser with its cookies.
struct Client {
    router: Router,
    cookies: Vec<(String, String)>,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn location(&self) -> &str {
        self.headers.get(header::LOCATION).map_or("", |to| to.to_str().unwrap())
    }

    /// The value of the first hidden field of this name.
    fn field(&self, name: &str) -> String {
        let start = format!("name=\"{name}\" value=\"");
        let (_, rest) = self.text.split_once(&start).unwrap_or_else(|| panic!("no {name} in {}", self.text));
        rest.split('"').next().unwrap().to_owned()
    }

    #[track_caller]
    fn has(&self, status: u16, text: &str) {
        assert!(self.status == status && self.text.contains(text), "{} {}", self.status, self.text);
    }
}

impl Client {
    fn new(router: &Router) -> Self {
        Self { router: router.clone(), cookies: Vec::new() }
    }

    async fn send(&mut self, method: &str, path: &str, head: &[(&str, &str)], body: String) -> Answer {
        let cookies: Vec<String> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut request = Request::builder().method(method).uri(path).header("cookie", cookies.join("; "));
        for (name, value) in head {
            request = request.header(*name, *value);
        }
        let response = self.router.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        for cookie in parts.headers.get_all(header::SET_COOKIE) {
            let (name, rest) = cookie.to_str().unwrap().split_once('=').unwrap();
            let value = rest.split(';').next().unwrap();
            self.cookies.retain(|(known, _)| known != name);
            if !value.is_empty() {
                self.cookies.push((name.to_owned(), value.to_owned()));
            }
        }
        let text = String::from_utf8(to_bytes(body, 1 << 20).await.unwrap().to_vec()).unwrap();
        Answer { status: parts.status.as_u16(), headers: parts.headers, text }
    }

    async fn get(&mut self, path: &str) -> Answer {
        self.send("GET", path, &[("accept", "text/html")], String::new()).await
    }

    async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let head = [("accept", "text/html"), ("origin", ORIGIN), FORM];
        self.send("POST", path, &head, serde_urlencoded::to_string(fields).unwrap()).await
    }

    async fn log_in(&mut self, username: &str, password: &str, next: &str) -> Answer {
        let csrf = self.get("/login").await.field("csrf");
        let next = BASE64URL_NOPAD.encode(next.as_bytes());
        let fields =
            [("csrf", csrf.as_str()), ("username", username), ("password", password), ("next", &next)];
        self.post("/login", &fields).await
    }

    fn session(&self) -> Option<&str> {
        self.cookies.iter().find(|(name, _)| name == "__Host-session").map(|(_, value)| value.as_str())
    }
}

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

fn set_up() -> (Fake, Client) {
    let fake = Fake::default();
    let client = Client::new(&service(&fake));
    (fake, client)
}

#[tokio::test]
async fn a_page_leads_to_the_login_and_back() {
    let (_fake, mut client) = set_up();
    let answer = client.get("/zones/new?kind=1").await;
    assert_eq!(answer.status, 303);
    let next = answer.location().strip_prefix("/login?next=").unwrap().to_owned();
    assert_eq!(client.get(answer.location()).await.field("next"), next);
    assert_eq!(client.log_in("ada", "right", "/zones/new?kind=1").await.location(), "/zones/new?kind=1");
    let page = client.get("/zones/new").await;
    page.has(200, "<a class=\"go\" href=\"/\" aria-current=\"page\">");
    page.has(200, "href=\"/policy\"");
}

#[tokio::test]
async fn a_wrong_password_keeps_the_username_alone() {
    let (_fake, mut client) = set_up();
    let answer = client.log_in("ada", "wrong", "/").await;
    answer.has(401, "Login failed: wrong username, password or passkey.");
    answer.has(401, "value=\"ada\"");
    assert!(!answer.text.contains("\"wrong\"") && client.session().is_none());
}

#[tokio::test]
async fn a_challenge_is_answered_by_the_browser_that_requested_it() {
    let (_fake, mut client) = set_up();
    let mut other = Client::new(&client.router);
    let csrf = [client.get("/login").await.field("csrf"), other.get("/login").await.field("csrf")];
    let begun = client.post("/login/passkey/begin", &[("csrf", &csrf[0])]).await;
    let challenge: serde_json::Value = serde_json::from_str(&begun.text).unwrap();
    let bound = challenge["ceremony_id"].as_str().unwrap();
    let own = other.post("/login/passkey/begin", &[("csrf", &csrf[1])]).await.text;
    assert!(!own.contains(bound));
    let fields = |csrf: &str, id: &str| {
        [("csrf", csrf), ("ceremony_id", id), ("credential", "{}")].map(|(a, b)| (a, b.to_owned()))
    };
    for (is_other, id) in [(true, bound), (false, "c.1"), (false, "c.1.x")] {
        let (sender, csrf) = if is_other { (&mut other, &csrf[1]) } else { (&mut client, &csrf[0]) };
        let fields = fields(csrf, id);
        let fields = fields.each_ref().map(|(name, value)| (*name, value.as_str()));
        sender.post("/login/passkey/finish", &fields).await.has(400, "this browser");
        assert!(sender.session().is_none());
    }
    let fields = fields(&csrf[0], bound);
    let fields = fields.each_ref().map(|(name, value)| (*name, value.as_str()));
    client.post("/login/passkey/finish", &fields).await.has(200, "\"to\":\"/\"");
    assert!(client.session().is_some());
}

#[tokio::test]
async fn a_login_leads_to_pages_of_this_service_alone() {
    for next in ["https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:alert(1)", ""] {
        let (_fake, mut client) = set_up();
        assert_eq!(client.log_in("ada", "right", next).await.location(), "/", "{next}");
    }
}

#[tokio::test]
async fn a_second_factor_continues_the_login() {
    let (_fake, mut client) = set_up();
    let page = client.log_in("grace", "right", "/zones/new").await;
    page.has(200, "Enter your code");
    assert!(!page.text.contains("right\"") && client.session().is_none());
    let code = |page: &Answer, code| {
        [
            ("csrf", page.field("csrf")),
            ("login", page.field("login")),
            ("next", page.field("next")),
            ("code", String::from(code)),
        ]
    };
    let fields = code(&page, "654321");
    let wrong =
        client.post("/login/code", &fields.each_ref().map(|(name, value)| (*name, value.as_str()))).await;
    wrong.has(401, "Enter your code");
    let fields = code(&wrong, "123 456");
    let fields = fields.each_ref().map(|(name, value)| (*name, value.as_str()));
    assert_eq!(client.post("/login/code", &fields).await.location(), "/zones/new");
    client.get("/zones/new").await.has(200, "New zone");
    // Each login that waits is continued once.
    client.post("/login/code", &fields).await.has(403, "This login has expired.");
}

#[tokio::test]
async fn a_form_that_can_be_corrected_is_shown_again() {
    let (_fake, mut client) = set_up();
    drop(client.log_in("ada", "right", "/").await);
    let csrf = client.get("/zones/new").await.field("csrf");
    let zone = |name| [("csrf", csrf.as_str()), ("name", name), ("password", "typed secret")];
    let answer = client.post("/zones/new", &zone("")).await;
    answer.has(400, "<a href=\"#name\">Is empty.</a>");
    let answer = client.post("/zones/new", &zone("busy")).await;
    answer.has(503, "value=\"busy\"");
    assert!(answer.text.contains("Try again.") && !answer.text.contains("typed secret"));
    // Nothing that is typed would change this.
    client.post("/zones/new", &zone("gone")).await.has(404, "<h1>Page not found</h1>");
}

#[tokio::test]
async fn a_link_on_another_site_leads_to_the_page_with_the_session() {
    let (_fake, mut client) = set_up();
    // `SameSite=Strict`: the browser has a session and does not send it.
    let link = |site| [("accept", "text/html"), ("sec-fetch-site", site), ("sec-fetch-mode", "navigate")];
    for site in ["cross-site", "same-site"] {
        let answer = client.send("GET", "/zones/new?a=1&b=2", &link(site), String::new()).await;
        answer.has(200, "<meta http-equiv=\"refresh\" content=\"0; url=/zones/new?a=1&amp;b=2\">");
        assert!(!answer.headers.contains_key(header::SET_COOKIE), "{:?}", answer.headers);
    }
    // Once: the page's own request is of this site.
    let answer = client.send("GET", "/zones/new", &link("same-origin"), String::new()).await;
    assert!(answer.location().starts_with("/login?next="), "{}", answer.location());
    // A session that was sent is not there any more: no second request would change that.
    client.cookies.push(("__Host-session".to_owned(), "gone-1".to_owned()));
    let answer = client.send("GET", "/zones/new", &link("cross-site"), String::new()).await;
    assert!(answer.location().starts_with("/login?next="), "{}", answer.location());
}

#[tokio::test]
async fn a_pending_login_is_bound_to_its_browser() {
    let (_fake, mut client) = set_up();
    let login = client.log_in("grace", "right", "/").await.field("login");
    let mut other = Client::new(&client.router);
    let csrf = other.get("/login").await.field("csrf");
    let stolen = other.post("/login/code", &[("csrf", &csrf), ("login", &login), ("code", "123456")]).await;
    stolen.has(403, "This login has expired.");
    assert!(other.session().is_none());
    // It still waits for the browser that began it.
    let csrf = client.get("/login").await.field("csrf");
    let own = client.post("/login/code", &[("csrf", &csrf), ("login", &login), ("code", "123456")]).await;
    assert_eq!(own.status, 303);
}

#[tokio::test]
async fn an_expired_form_is_shown_again_with_what_was_typed() {
    let (fake, mut client) = set_up();
    let login = client.get("/login").await.field("csrf");
    drop(client.log_in("ada", "right", "/").await);
    let csrf = client.get("/zones/new").await.field("csrf");
    client.router = service(&fake);
    let fields = [("csrf", csrf.as_str()), ("name", "example.net"), ("password", "typed secret")];
    let answer = client.post("/zones/new", &fields).await;
    answer.has(403, "This form has expired. Check it and send it again.");
    answer.has(403, "value=\"example.net\"");
    assert!(!answer.text.contains("typed secret"));
    let fields = [("csrf", &*answer.field("csrf")), ("name", "example.net"), ("password", "typed secret")];
    assert_eq!(client.post("/zones/new", &fields).await.location(), "/");
    // The login form too.
    let answer = client.post("/login", &[("csrf", &login), ("username", "ada"), ("password", "right")]).await;
    answer.has(403, "This form has expired.");
    answer.has(403, "value=\"ada\"");
    // A button has nothing to show again.
    let answer = client.post("/zones/delete", &[("csrf", &csrf)]).await;
    answer.has(403, "<h1>This form has expired</h1>");
    assert_eq!(fake.calls().forged, 0);
}

#[tokio::test]
async fn a_form_of_another_site_is_refused_and_recorded() {
    let (fake, mut client) = set_up();
    drop(client.log_in("ada", "right", "/").await);
    let csrf = client.get("/zones/new").await.field("csrf");
    let zone = |csrf: &str| format!("csrf={csrf}&name=example.net&password=x");
    for (origin, body) in [
        (Some("https://evil.example"), zone(&csrf)),
        (Some("null"), zone(&csrf)),
        (Some(ORIGIN), zone("")),
        (Some(ORIGIN), "name=example.net&password=x".to_owned()),
        // An expired form and a forged one look the same where the browser does not state its origin.
        (None, zone("x")),
    ] {
        let mut head = vec![("accept", "text/html"), FORM];
        head.extend(origin.map(|origin| ("origin", origin)));
        let answer = client.send("POST", "/zones/new", &head, body.clone()).await;
        answer.has(403, "<h1>Not permitted</h1>");
        assert!(!answer.text.contains("example.net"), "{origin:?} {body}");
    }
    assert_eq!(fake.calls().forged, 5);
}

#[tokio::test]
async fn a_form_of_an_ended_session_can_be_sent_again() {
    let (fake, mut client) = set_up();
    drop(client.log_in("ada", "right", "/").await);
    let csrf = client.get("/zones/new").await.field("csrf");
    fake.calls().sessions.clear();
    let fields = [("csrf", csrf.as_str()), ("name", "example.net"), ("password", "x")];
    let answer = client.post("/zones/new", &fields).await;
    answer.has(401, "<h1>Your session has ended</h1>");
    assert!(client.session().is_none());
    // In another tab; then this one is reloaded.
    drop(client.log_in("ada", "right", "/").await);
    let answer = client.post("/zones/new", &fields).await;
    answer.has(403, "This form has expired.");
    answer.has(403, "value=\"example.net\"");
}

#[tokio::test]
async fn a_login_that_is_not_recent_leads_to_the_login_and_back() {
    let (_fake, mut client) = set_up();
    drop(client.log_in("ada", "right", "/").await);
    let next = |answer: &Answer| {
        let next = answer.location().strip_prefix("/login?next=").unwrap();
        String::from_utf8(BASE64URL_NOPAD.decode(next.as_bytes()).unwrap()).unwrap()
    };
    let csrf = client.get("/zones/new").await.field("csrf");
    let answer = client.post("/zones/delete", &[("csrf", &csrf)]).await;
    assert_eq!(next(&answer), "/zones/a?tab=2");
    client.get(answer.location()).await.has(200, "Confirm that it is you");
    assert_eq!(next(&client.get("/zones/export?all").await), "/zones/export?all");
    assert!(client.session().is_some(), "the session stays");
}

#[tokio::test]
async fn a_logout_ends_the_session_and_so_does_another_login() {
    let (fake, mut client) = set_up();
    drop(client.log_in("ada", "right", "/").await);
    drop(client.log_in("ada", "right", "/").await);
    assert_eq!(fake.calls().sessions, ["ada-2"]);
    let csrf = client.get("/zones/new").await.field("csrf");
    let answer = client.post("/logout", &[("csrf", &csrf)]).await;
    assert_eq!((answer.status, answer.location()), (303, "/login"));
    assert!(client.session().is_none() && fake.calls().sessions.is_empty());
}

#[tokio::test]
async fn browsers_get_pages_and_programs_problem_documents() {
    let (_fake, mut client) = set_up();
    drop(client.log_in("grace", "right", "/").await);
    drop(client.log_in("ada", "right", "/").await);
    let page = client.get("/zones/missing").await;
    page.has(404, "There is no zone “x”.");
    // The navigation is still there, and works: where the path's route knows the visitor.
    page.has(404, "href=\"/policy\"");
    let csrf = page.field("csrf");
    for name in [header::CONTENT_SECURITY_POLICY, header::HeaderName::from_static("x-request-id")] {
        assert!(page.headers.contains_key(&name), "{name}");
    }
    let nowhere = client.get("/nowhere").await;
    nowhere.has(404, "<h1>Page not found</h1>");
    nowhere.has(404, "<div class=\"gate\">");
    for (path, accept) in [("/nowhere", "*/*"), ("/v1/nowhere", "text/html")] {
        let answer = client.send("GET", path, &[("accept", accept)], String::new()).await;
        assert_eq!(answer.headers[header::CONTENT_TYPE], "application/problem+json");
    }
    assert_eq!(client.post("/logout", &[("csrf", &csrf)]).await.location(), "/login");
}

#[tokio::test]
async fn navigation_is_for_the_visitor() {
    let (fake, mut client) = set_up();
    fake.calls().sessions.push("bob-1".to_owned());
    client.cookies.push(("__Host-session".to_owned(), "bob-1".to_owned()));
    let page = client.get("/zones/new").await;
    assert!(page.text.contains(">Zones<") && !page.text.contains(">Policy<"), "{}", page.text);
    page.has(200, "<b>bob</b><small>Guest</small>");
}
