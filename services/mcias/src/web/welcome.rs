//! The page behind a setup link: it sets an account's password, once. The link's secret is after the `#` of its address, so that it is in no log of
//! a server or proxy: a script sends it as a form, or its owner types it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;
use maud::html;
use mc_api::mcias::{GetLinkRequest, RedeemLinkRequest};
use mcdsl::Secret;
use mcdsl::problem::Problem;
use mcdsl::web::session::{Browser, Shown, Submission};
use mcdsl::web::{self, Action, Field, Kind, Tone};
use serde::Deserialize;

use super::{Shared, differing_passwords};
use crate::app::Calls;

/// The path in a setup link, and of the script of its page.
pub(super) const WELCOME: &str = "/welcome";
pub(super) const SCRIPT: &str = "/welcome/welcome.js";

pub(super) async fn script() -> ([(HeaderName, HeaderValue); 1], &'static str) {
    let kind = HeaderValue::from_static("text/javascript; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], include_str!("welcome.js"))
}

pub(super) async fn show(browser: Browser) -> Result<Response, Problem> {
    Ok(code_page(&browser, Shown::first()))
}

/// Asks for the secret, where there is no script that takes it from the address.
fn code_page(browser: &Browser, shown: Shown) -> Response {
    let Shown { status, errors } = shown;
    browser.page(status, "Set your password", &errors, |csrf| {
        let fields = html! {
            (web::field(Field {
                hint: Some("The part of the link after the #."),
                autocomplete: Some("off"),
                ..Field::new("secret", "Setup code", Kind::Text).error_from(&errors)
            }))
            (web::button("Continue", Action::Primary))
        };
        html! {
            (web::plain_panel(web::padded(web::form(WELCOME, csrf, fields))))
            script src=(SCRIPT) type="module" {}
        }
    })
}

#[derive(Deserialize)]
pub(super) struct Code {
    secret: Secret,
}

pub(super) async fn open(
    State(shared): State<Shared>,
    submission: Submission<Browser, Code>,
) -> Result<Response, Problem> {
    let show = async |browser: &Browser, _form: &Code, shown| Ok(code_page(browser, shown));
    let act = async |browser: &Browser, form: &Code| {
        let opened = password_page(&shared, browser, &form.secret, Shown::first()).await;
        opened.map_err(|problem| Problem { field: Some("secret".to_owned()), ..problem })
    };
    submission.handle(&["secret"], show, act).await
}

async fn password_page(
    shared: &Shared,
    browser: &Browser,
    secret: &Secret,
    shown: Shown,
) -> Result<Response, Problem> {
    let Shown { status, errors } = shown;
    let request = GetLinkRequest { secret: secret.expose().to_owned() };
    let link = calls(shared, browser).get_link(request).await?;
    let hint = if link.has_second_factor {
        "At least 8 characters, as you have an authenticator app. A few unrelated words are easy to remember."
    } else {
        "At least 15 characters. A few unrelated words are easy to remember."
    };
    Ok(browser.page(status, "Set your password", &errors, |csrf| {
        let fields = html! {
            input type="hidden" name="secret" value=(secret.expose());
            (web::username_for_managers(&link.account))
            (web::field(Field {
                hint: Some(hint),
                autocomplete: Some("new-password"),
                autofocus: true,
                ..Field::new("password", "New password", Kind::Password).error_from(&errors)
            }))
            (web::field(Field {
                autocomplete: Some("new-password"),
                ..Field::new("again", "Repeat new password", Kind::Password).error_from(&errors)
            }))
            (web::button("Set password", Action::Primary))
        };
        html! {
            (web::plain_panel(web::padded(html! {
                p { "For the account " strong { (link.account) } "." }
                (web::form("/welcome/password", csrf, fields))
            })))
            p.hint { "The link is valid once. It expires " (web::ago(browser.now(), link.expires_at)) "." }
        }
    }))
}

fn calls(shared: &Shared, browser: &Browser) -> Calls {
    Calls::new(Arc::clone(&shared.app), browser.context().clone())
}

#[derive(Deserialize)]
pub(super) struct NewPassword {
    secret: Secret,
    password: Secret,
    again: Secret,
}

pub(super) async fn redeem(
    State(shared): State<Shared>,
    submission: Submission<Browser, NewPassword>,
) -> Result<Response, Problem> {
    let show = async |browser: &Browser, form: &NewPassword, shown| {
        password_page(&shared, browser, &form.secret, shown).await
    };
    let act = async |browser: &Browser, form: &NewPassword| {
        if form.password.expose() != form.again.expose() {
            return Err(differing_passwords());
        }
        let [secret, password] = [&form.secret, &form.password].map(|secret| secret.expose().to_owned());
        calls(&shared, browser).redeem_link(RedeemLinkRequest { secret, password }).await?;
        Ok(browser.redirect("/login", Tone::Good, "Password set. Log in with it."))
    };
    submission.handle(&["password", "again"], show, act).await
}
