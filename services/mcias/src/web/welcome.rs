//! The page behind a setup link: it sets an account's password, once.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use maud::html;
use mc_api::mcias::{GetLinkRequest, RedeemLinkRequest};
use mcdsl::Secret;
use mcdsl::http::Path;
use mcdsl::problem::Problem;
use mcdsl::web::session::{Browser, Submission, expired_form, field_errors};
use mcdsl::web::{self, Action, Field, FieldError, Kind, Tone};
use serde::Deserialize;

use super::{Shared, differing_passwords};
use crate::app::Calls;

pub(super) async fn show(
    State(shared): State<Shared>,
    browser: Browser,
    Path(secret): Path<String>,
) -> Result<Response, Problem> {
    page(&shared, &browser, StatusCode::OK, secret, &[]).await
}

async fn page(
    shared: &Shared,
    browser: &Browser,
    status: StatusCode,
    secret: String,
    errors: &[FieldError],
) -> Result<Response, Problem> {
    let action = format!("/welcome/{secret}");
    let link = calls(shared, browser).get_link(GetLinkRequest { secret }).await?;
    let hint = if link.has_second_factor {
        "At least 8 characters, as you have an authenticator app. A few unrelated words are easy to remember."
    } else {
        "At least 15 characters. A few unrelated words are easy to remember."
    };
    Ok(browser.page(status, "Set your password", errors, |csrf| {
        let fields = html! {
            // For the browser, which stores the password under it.
            input type="hidden" name="username" value=(link.account) autocomplete="username";
            (web::field(Field {
                hint: Some(hint),
                autocomplete: Some("new-password"),
                ..Field::new("password", "New password", Kind::Password).error_from(errors)
            }))
            (web::field(Field {
                autocomplete: Some("new-password"),
                ..Field::new("again", "Repeat new password", Kind::Password).error_from(errors)
            }))
            (web::button("Set password", Action::Primary))
        };
        html! {
            p { "For the account " strong { (link.account) } ". The link is valid once, until " (web::when(link.expires_at)) "." }
            div.card { (web::form(&action, csrf, fields)) }
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
    let (browser, form) = match submission {
        Submission::Valid(browser, form) => (browser, form),
        Submission::Expired(browser, _) => {
            return page(&shared, &browser, StatusCode::FORBIDDEN, secret, &expired_form()).await;
        }
    };
    if form.password.expose() != form.again.expose() {
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        return page(&shared, &browser, status, secret, &differing_passwords()).await;
    }
    let request = RedeemLinkRequest { secret: secret.clone(), password: form.password.expose().to_owned() };
    match calls(&shared, &browser).redeem_link(request).await {
        Ok(_) => Ok(browser.redirect("/login", Tone::Good, "Password set. Log in with it.")),
        Err(problem) if problem.field.is_some() => {
            let errors = field_errors(&problem, &["password"]);
            page(&shared, &browser, StatusCode::UNPROCESSABLE_ENTITY, secret, &errors).await
        }
        Err(problem) => Err(problem),
    }
}
