//! A gallery of all parts of pages: `cargo run -p mcdsl --features web --example gallery`.
//!
//! It serves plain HTTP on a loopback port (the first argument, or 8080): browsers treat `localhost` like HTTPS.
#![expect(clippy::print_stdout, reason = "it prints its address")]

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, middleware};
use maud::{Markup, html};
use mcdsl::Secret;
use mcdsl::web::{
    self, Action, Attention, Choice, Column, Confirm, Csrf, Danger, Field, FieldError, Flash, Icon, Kind,
    Layout, NavGroup, NavItem, Once, Page, Site, Tone, User,
};

static SITE: LazyLock<Site> = LazyLock::new(|| Site {
    service: "Gallery",
    name: "example.net".to_owned(),
    home: "/",
    account: Some("/form"),
    logout: "/logout",
});
const USER: User<'static> = User { name: "ada", about: "Administrator" };

/// The time of the texts, in seconds since 1970.
const NOW: i64 = 1_796_063_380;

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
        .route("/secret", get(secret))
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

fn nav(current: &str) -> Vec<NavGroup<'static>> {
    let item = |(label, icon, href)| NavItem { label, icon, href, current: href == current };
    let parts =
        [("Parts", Icon::HOME, "/"), ("Form", Icon::ACCOUNTS, "/form"), ("Confirm", Icon::RULES, "/confirm")];
    let pages = [
        ("Secret", Icon::KEY, "/secret"),
        ("Empty", Icon::LIST, "/empty"),
        ("Login", Icon::SHIELD, "/login"),
    ];
    vec![
        NavGroup { label: "", items: parts.map(item).to_vec() },
        NavGroup { label: "Pages", items: pages.map(item).to_vec() },
    ]
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
    let states = [Choice { value: "", label: "All states" }, Choice { value: "active", label: "Active" }];
    let diff =
        ["- image = \"gitea:1.24.1\"", "+ image = \"gitea:1.24.2\"", "  port = 3000"].map(str::to_owned);
    let needs = [Attention {
        tone: Tone::Warning,
        kind: "Token",
        text: html! { "Token " b { "prod" } " of " b { "mcr" } " expires in 6 days" },
        href: "/form".to_owned(),
    }];
    let danger = Danger {
        name: "Delete account",
        consequence: "Ends 2 sessions at once.".to_owned(),
        href: Some("/confirm".to_owned()),
    };
    let facts = [
        ("State", web::state(Tone::Good, "Active")),
        ("Tags", html! { (web::tag("prod")) " " (web::tag("oncall")) }),
        ("Created", web::when(NOW)),
        ("ID", html! { code { "0195f0c2-7d6e-7c41-9a55-3b1f6f1f8a10" } }),
    ];
    html! {
        (web::attention(&needs))
        (web::filters("/", html! {
            (web::field(Field::new("q", "Name", Kind::Filter("Part of a name"))))
            (web::field(Field { required: false, ..Field::new("state", "State", Kind::Select(&states)) }))
            (web::button("Filter", Action::Secondary))
        }))
        (web::chips(&[("State: Active".to_owned(), "/".to_owned())], "/"))
        (web::split(
            html! {
                (web::plain_panel(html! {
                    (accounts())
                    (web::pager("1–5 of 9", &[("First", None), ("Next", Some("/?after=grace"))]))
                }))
                (web::panel("States", "and notes", html! { a href="/" { "All" } }, web::padded(html! {
                    p.actions {
                        (web::state(Tone::Neutral, "Stopped")) (web::state(Tone::Info, "Pending")) (web::state(Tone::Good, "Active"))
                        (web::pill(Tone::Warning, "Expires in 3 days")) (web::pill(Tone::Bad, "Denied"))
                    }
                    (web::note(Tone::Info, html! { p { strong { "Note. " } "Tokens of services are valid for 365 days." } }))
                    (web::note(Tone::Bad, html! { p { strong { "Denied. " } "The rule " code { "no-guests" } " denies this login." } }))
                })))
                (web::panel("Changes", "", html! {}, web::diff_block("Changes", &diff)))
            },
            html! {
                (web::panel("Details", "", html! { a href="/form" { "Edit" } }, web::facts(&facts)))
                (web::panel("Sign-in methods", "", html! {}, html! {
                    (web::item(Icon::KEY, "Password", html! { "Changed 41 days ago" }, html! {}))
                    (web::item(Icon::PHONE, "Authenticator app", html! { "On" }, html! {}))
                }))
                (web::plain_panel(web::padded(web::qr(SQUARES, "QR code for the authenticator app"))))
            },
        ))
        (web::code_block("Command", "mciasctl --server https://mcias.svc.mcp.example.net:8443 account create ada --roles admin,user"))
        (web::danger_zone(&[danger]))
    }
}

fn accounts() -> Markup {
    let row = |name: &str, state: Markup, roles: &str, last: Option<i64>, tokens: u32| {
        vec![
            html! { a href="/form" { (name) } },
            html! { (roles) },
            html! { (tokens) },
            state,
            web::ago_or(NOW, last, "never"),
            html! { a.bare href="/form" { "Edit" span.hidden { " " (name) } } },
        ]
    };
    let rows = [
        row("ada", web::state(Tone::Good, "Active"), "Administrator", Some(NOW - 120), 3),
        row("grace", web::state(Tone::Good, "Active"), "User", Some(NOW - 90_000), 1),
        row("mcp-agent", web::pill(Tone::Warning, "Token expires"), "Service", Some(NOW), 2),
        row("mallory", web::state(Tone::Neutral, "Disabled"), "Guest", Some(NOW - 9_000_000), 0),
    ];
    let columns = [
        Column::plain("Name"),
        Column::plain("Type"),
        Column::number("Tokens").third(),
        Column::state("State"),
        Column::text("Last login").fourth(),
        Column::action(),
    ];
    web::table("Accounts", &columns, &rows)
}

async fn secret(State(app): Shared, headers: HeaderMap) -> Response {
    let csrf = app.csrf.token(&binding(&headers));
    let once = Once {
        label: "Token",
        text: "eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJl",
        what: "Store it in a file that only the service can read.",
        file: Some("mcr.token"),
        done: "/",
    };
    Page {
        user: Some(USER),
        nav: &nav("/secret"),
        csrf: &csrf,
        crumbs: &[("Accounts", "/"), ("mcr", "/")],
        layout: Layout::Text,
        ..Page::new(&SITE, "Token for mcr", web::once(once))
    }
    .respond(StatusCode::OK)
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
        return Page::new(&SITE, "Form refused", web::note(Tone::Bad, html! { p { (refused) } }))
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
        layout: Layout::Text,
        lead: Some("A person who can log in, or a service that calls others."),
        ..Page::new(&SITE, "New account", web::plain_panel(web::padded(web::form("/form", csrf, fields))))
    }
    .respond(status)
}

async fn confirm(State(app): Shared, headers: HeaderMap) -> Response {
    let csrf = app.csrf.token(&binding(&headers));
    let asked = Confirm {
        question: "Delete account mallory?",
        lost: &["Deletes the account".to_owned(), "Locks out who uses its 2 tokens".to_owned()],
        rest: html! { "It cannot be undone." },
        fields: web::field(Field::new("typed", "Type mallory to confirm", Kind::Text)),
        action: "/form",
        button: "Delete account",
        back: "/",
    };
    let body = web::confirm(&csrf, &asked);
    Page {
        user: Some(USER),
        nav: &nav("/confirm"),
        csrf: &csrf,
        layout: Layout::Text,
        ..Page::new(&SITE, "Delete account", body)
    }
    .respond(StatusCode::OK)
}

async fn empty(State(app): Shared, headers: HeaderMap) -> Response {
    let csrf = app.csrf.token(&binding(&headers));
    let make = web::link_button("/form", "Add a passkey", Action::Primary);
    let empty =
        web::empty_state("No passkeys yet", "With a passkey you log in without a password.", Some(make));
    let body = web::plain_panel(empty);
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
        layout: Layout::Gate,
        lead: Some("You will continue to the gallery."),
        ..Page::new(&SITE, "Log in", web::plain_panel(web::padded(web::form("/form", &csrf, fields))))
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
