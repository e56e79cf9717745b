//! The page behind a setup link: it sets an account's password, once.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use maud::html;
use mc_api::mcias::{GetLinkRequest, RedeemLinkRequest};
use mcdsl::Secret;
use mcdsl::http::Path;
use mcdsl::problem::Problem;
use mcdsl::web::session::{Browser, Shown, Submission};
use mcdsl::web::{self, Action, Field, Kind, Tone};
use serde::Deserialize;

use super::{Shared, differing_passwords};
use crate::app::Calls;

pub(super) async fn show(
    State(shared): State<Shared>,
    browser: Browser,
    Path(secret): Path<String>,
) -> Result<Response, Problem> {
    page(&shared, &browser, secret, Shown::first()).await
}

async fn page(shared: &Shared, browser: &Browser, secret: String, shown: Shown) -> Result<Response, Problem> {
    let Shown { status, errors } = shown;
    let action = format!("/welcome/{secret}");
    let link = calls(shared, browser).get_link(GetLinkRequest { secret }).await?;
    let hint = if link.has_second_factor {
        "At least 8 characters, as you have an authenticator app. A few unrelated words are easy to remember."
    } else {
        "At least 15 characters. A few unrelated words are easy to remember."
    };
    Ok(browser.page(status, "Set your password", &errors, |csrf| {
        let fields = html! {
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
                (web::form(&action, csrf, fields))
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
    password: Secret,
    again: Secret,
}

pub(super) async fn redeem(
    State(shared): State<Shared>,
    Path(secret): Path<String>,
    submission: Submission<Browser, NewPassword>,
) -> Result<Response, Problem> {
    let show = async |browser: &Browser, _form: &NewPassword, shown| {
        page(&shared, browser, secret.clone(), shown).await
    };
    let act = async |browser: &Browser, form: &NewPassword| {
        if form.password.expose() != form.again.expose() {
            return Err(differing_passwords());
        }
        let password = form.password.expose().to_owned();
        calls(&shared, browser).redeem_link(RedeemLinkRequest { secret: secret.clone(), password }).await?;
        Ok(browser.redirect("/login", Tone::Good, "Password set. Log in with it."))
    };
    submission.handle(&["password", "again"], show, act).await
}
