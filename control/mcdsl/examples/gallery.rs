//! A gallery of all parts of pages: `cargo run -p mcdsl --features web --example gallery`.
//!
//! It serves plain HTTP on a loopback port (the first argument, or 8080): browsers treat `localhost` like HTTPS.
#![expect(clippy::print_stdout, reason = "it prints its address")]

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, middleware};
use maud::{Markup, html};
use mcdsl::Secret;
use mcdsl::web::{
    self, Action, Choice, Csrf, Field, FieldError, Flash, Kind, NavItem, Page, Site, Tone, User, Width,
};

const SITE: Site = Site { service: "Gallery", home: "/", account: Some("/form"), logout: "/logout" };
const USER: User<'static> = User { name: "ada", about: "Administrator" };

struct App {
    csrf: Csrf,
    origin: String,
}

type Shared = State<Arc<App>>;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let port = std::env::args().nth(1).unwrap_or_else(|| "8080".to_owned());
    let origin = format!("http://localhost:{port}");
    println!("{origin}");
    let app = Router::new()
        .route("/", get(parts))
        .route("/form", get(new_account).post(create_account))
        .route("/confirm", get(confirm))
        .route("/empty", get(empty))
        .route("/login", get(login))
        .route("/logout", post(logout))
        .with_state(Arc::new(App { csrf: Csrf::new([7; 32]), origin }))
        .merge(web::static_files(&[]))
        .layer(middleware::from_fn(web::secure));
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    axum::serve(listener, app).await
}

/// A service would look up the session. Here every visitor is Ada.
fn binding(headers: &HeaderMap) -> Secret {
    web::anonymous_of(headers).unwrap_or_else(|| Secret::from("nobody"))
}

fn nav(current: &str) -> Vec<NavItem<'static>> {
    let all = [
        ("Parts", "/"),
        ("Form", "/form"),
        ("Confirm", "/confirm"),
        ("Empty", "/empty"),
        ("Login", "/login"),
    ];
    all.map(|(label, href)| NavItem { label, href, current: href == current }).to_vec()
}

async fn parts(State(app): Shared, headers: HeaderMap) -> Response {
    let csrf = app.csrf.token(&binding(&headers));
    let flash = Flash::of(&headers, &app.csrf);
    Page {
        lead: Some("All parts of pages, with texts that a service might have."),
        user: Some(USER),
        nav: &nav("/"),
        csrf: &csrf,
        flash: flash.as_ref(),
        actions: web::link_button("/form", "New account", Action::Primary),
        ..Page::new(&SITE, "Accounts", all_parts())
    }
    .respond(StatusCode::OK)
}

fn all_parts() -> Markup {
    let wait = Choice { value: "", label: "All states" };
    let active = Choice { value: "active", label: "Active" };
    html! {
        (web::search_form("/", html! {
            (web::field(Field { required: false, ..Field::new("q", "Name begins with", Kind::Text) }))
            (web::field(Field { required: true, ..Field::new("state", "State", Kind::Select(&[wait, active])) }))
            (web::button("Search", Action::Secondary))
        }))
        (web::table("Accounts", &["Name", "State", "Roles", "Last login", "Tokens", ""], &accounts()))
        (web::pagination(Some("/"), Some("/?after=grace")))
        (web::card("ada", web::facts(&[
            ("State", web::badge("Active", Tone::Good)),
            ("Second factor", html! { "Authenticator app, 2 passkeys" }),
            ("Created", html! { time datetime="2026-03-01T09:14:00Z" { "1 March 2026, 09:14 UTC" } }),
            ("Account id", html! { code { "0195f0c2-7d6e-7c41-9a55-3b1f6f1f8a10" } }),
        ])))
        (web::card("States", html! {
            p.actions {
                (web::badge("Unknown", Tone::Neutral)) (web::badge("Pending", Tone::Info))
                (web::badge("Active", Tone::Good)) (web::badge("Expires in 3 days", Tone::Warning))
                (web::badge("Locked", Tone::Bad))
            }
            (web::notice(Tone::Info, html! { p { strong { "Note. " } "Tokens of services are valid for 365 days." } }))
            (web::notice(Tone::Warning, html! {
                p { strong { "Expires soon. " } "The token of " code { "mcp-agent" } " expires in 3 days. " a href="/form" { "Create a new one" } }
            }))
            (web::notice(Tone::Bad, html! { p { strong { "Denied. " } "The rule " code { "no-guests" } " denies this login." } }))
        }))
        (web::card("To copy", html! {
            (web::copyable("token", "Token", "eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJl"))
            (web::copyable("codes", "Recovery codes", "q7xk-29fm\nh3dv-8wpz\nm2ra-5tcj\nz9ln-4ybe"))
            (web::code_block("Command", "mciasctl --server https://mcias.svc.mcp.metacircular.net:8443 account create ada --roles admin,user"))
            (web::qr(SQUARES, "QR code for the authenticator app"))
        }))
    }
}

fn accounts() -> Vec<Vec<Markup>> {
    let row = |name: &str, state: Markup, roles: &str, last: &str, tokens: u32| {
        let open = html! { a href="/form" { "Open" span.hidden { " " (name) } } };
        vec![
            html! { a href="/form" { (name) } },
            state,
            html! { (roles) },
            html! { (last) },
            html! { (tokens) },
            open,
        ]
    };
    vec![
        row("ada", web::badge("Active", Tone::Good), "admin, user", "2 minutes ago", 3),
        row("grace", web::badge("Active", Tone::Good), "user", "yesterday, 18:02", 1),
        row("mcp-agent", web::badge("Token expires", Tone::Warning), "system account", "4 seconds ago", 2),
        row("mallory", web::badge("Locked", Tone::Bad), "guest", "12 February 2026", 0),
        row("new-hire", web::badge("Invited", Tone::Info), "user", "never", 0),
    ]
}

async fn new_account(State(app): Shared, headers: HeaderMap) -> Response {
    let (anonymous, cookie) = match web::anonymous_of(&headers) {
        Some(secret) => (secret, None),
        None => Some(web::anonymous()).map(|(secret, cookie)| (secret, Some(cookie))).expect("it is Some"),
    };
    let mut page = account_page(&app.csrf.token(&anonymous), "", &[]);
    if let Some(cookie) = cookie {
        page.headers_mut().append(header::SET_COOKIE, cookie);
    }
    page
}

async fn create_account(
    State(app): Shared,
    headers: HeaderMap,
    Form(given): Form<HashMap<String, String>>,
) -> Response {
    let binding = binding(&headers);
    let token = given.get(web::CSRF_FIELD).map(String::as_str);
    if let Err(refused) = web::check_form(&headers, &app.csrf, Some(&binding), token, &app.origin) {
        return Page::new(&SITE, "Form refused", web::notice(Tone::Bad, html! { p { (refused) } }))
            .respond(StatusCode::FORBIDDEN);
    }
    let name = given.get("name").map_or("", String::as_str);
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_lowercase()) {
        let text = "Name: use lowercase letters from a to z".to_owned();
        let password = "Password: use at least 12 characters".to_owned();
        let errors = [FieldError { field: "name", text }, FieldError { field: "password", text: password }];
        return account_page(&app.csrf.token(&binding), name, &errors);
    }
    let flash = Flash::new(Tone::Good, format!("Account {name} created."));
    ([(header::SET_COOKIE, flash.cookie(&app.csrf))], web::redirect("/")).into_response()
}

fn account_page(csrf: &str, name: &str, errors: &[FieldError]) -> Response {
    let kinds = [Choice { value: "human", label: "Human" }, Choice { value: "system", label: "System" }];
    let role = |value, label, hint, checked| {
        web::field(Field {
            value,
            hint: Some(hint),
            required: false,
            ..Field::new("roles", label, Kind::Checkbox { checked })
        })
    };
    let fields = html! {
        (web::field(Field {
            value: name,
            hint: Some("Lowercase letters. It cannot be changed later."),
            autocomplete: Some("off"),
            ..Field::new("name", "Name", Kind::Text).error_from(errors)
        }))
        (web::field(Field { value: "human", ..Field::new("kind", "Type", Kind::Select(&kinds)) }))
        (web::field(Field {
            autocomplete: Some("new-password"),
            required: false,
            ..Field::new("password", "Password", Kind::Password).error_from(errors)
        }))
        (web::field(Field {
            value: "365",
            ..Field::new("days", "Tokens valid for (days)", Kind::Number)
        }))
        (web::fieldset("Roles", html! {
            (role("user", "User", "Governed by each service's policy.", true))
            (role("admin", "Administrator", "Manages accounts and policy.", false))
        }))
        (web::field(Field { required: false, ..Field::new("note", "Note", Kind::TextArea { rows: 3 }) }))
        div.actions {
            (web::button("Create account", Action::Primary))
            (web::link_button("/", "Cancel", Action::Secondary))
        }
    };
    let status = if errors.is_empty() { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    Page {
        user: Some(USER),
        nav: &nav("/form"),
        csrf,
        errors,
        width: Width::Text,
        lead: Some("A person who can log in, or a service that calls others."),
        ..Page::new(&SITE, "New account", html! { div.card { (web::form("/form", csrf, fields)) } })
    }
    .respond(status)
}

async fn confirm(State(app): Shared, headers: HeaderMap) -> Response {
    let csrf = app.csrf.token(&binding(&headers));
    let what = html! {
        p { "Deletes the account " strong { "mallory" } ":" }
        ul { li { "2 tokens stop working within 30 seconds." } li { "Its name becomes available." } }
    };
    let body = web::confirm("/form", &csrf, what, "Delete mallory", "/");
    Page {
        user: Some(USER),
        nav: &nav("/confirm"),
        csrf: &csrf,
        width: Width::Text,
        ..Page::new(&SITE, "Delete the account mallory?", body)
    }
    .respond(StatusCode::OK)
}

async fn empty(State(app): Shared, headers: HeaderMap) -> Response {
    let csrf = app.csrf.token(&binding(&headers));
    let make = web::link_button("/form", "Add a passkey", Action::Primary);
    let body =
        web::empty_state("No passkeys yet", "With a passkey you log in without a password.", Some(make));
    let flash = Flash::new(Tone::Good, "Password changed. 2 other sessions ended.");
    let nav = nav("/empty");
    Page {
        user: Some(USER),
        nav: &nav,
        csrf: &csrf,
        flash: Some(&flash),
        ..Page::new(&SITE, "Passkeys", body)
    }
    .respond(StatusCode::OK)
}

async fn login(State(app): Shared) -> Response {
    let (anonymous, cookie) = web::anonymous();
    let csrf = app.csrf.token(&anonymous);
    let fields = html! {
        (web::field(Field { autocomplete: Some("username"), ..Field::new("name", "Username", Kind::Text) }))
        (web::field(Field {
            autocomplete: Some("current-password"),
            ..Field::new("password", "Password", Kind::Password)
        }))
        (web::field(Field {
            autocomplete: Some("one-time-code"),
            required: false,
            hint: Some("Six digits, from your authenticator app."),
            ..Field::new("code", "Code", Kind::Code)
        }))
        (web::button("Log in", Action::Primary))
    };
    let page = Page {
        width: Width::Narrow,
        lead: Some("You will continue to the gallery."),
        ..Page::new(&SITE, "Log in", html! { div.card { (web::form("/form", &csrf, fields)) } })
    };
    let mut response = page.respond(StatusCode::OK);
    response.headers_mut().append(header::SET_COOKIE, cookie);
    response
}

async fn logout() -> Response {
    ([(header::SET_COOKIE, web::clear_session())], web::redirect("/login")).into_response()
}

/// Only resembles a QR code: a service renders one with the `qrcode` crate.
const SQUARES: &str = concat!(
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 21 21' fill='#000'>",
    "<path d='M0 0h7v7h-7zM14 0h7v7h-7zM0 14h7v7h-7zM8 1h2v3h-2zM11 4h2v4h-2zM9 9h4v4h-4z",
    "M15 9h3v2h-3zM1 9h5v2h-5zM14 15h4v2h-4zM9 15h2v5h-2zM17 18h3v3h-3z'/>",
    "<path fill='#fff' d='M1 1h5v5h-5zM15 1h5v5h-5zM1 15h5v5h-5z'/>",
    "<path d='M2 2h3v3h-3zM16 2h3v3h-3zM2 16h3v3h-3z'/></svg>"
);
