//! Pages for admins: the tokens of services.

use maud::{Markup, html};
use mc_api::mcias::{Account, IssueTokenRequest, ListTokensRequest, RevokeTokenRequest, Token};
use mcdsl::http::Path;
use mcdsl::problem::Problem;
use mcdsl::web::session::{NoFields, Shown};
use mcdsl::web::{self, Action, Column, Confirm, Field, Kind, Layout, Once, Page, Tone};
use serde::Deserialize;

use super::account::{ACCOUNTS, account, ask_about, named};
use super::own::once;
use super::visitor::{Posted, Submission, Visitor};
use super::{Answer, split};

pub(super) fn is_valid(token: &Token, now: i64) -> bool {
    token.revoked_at.is_none() && token.expires_at > now
}

pub(super) fn token_panel(account: &Account, tokens: &[Token], now: i64) -> Markup {
    let name = &account.name;
    let row = |token: &Token| {
        let services =
            if token.audience.is_empty() { "All services".to_owned() } else { token.audience.join(", ") };
        vec![
            html! { (token.label) },
            html! { (services) },
            html! { (web::ago(now, token.created_at)) " by " (token.issued_by) },
            web::ago_or(now, token.last_used_at, "never"),
            web::ago(now, token.expires_at),
            token_state(token, now),
            html! {
                @if is_valid(token, now) {
                    a.bare href={ "/accounts/" (name) "/tokens/" (token.id) "/revoke" } { "Revoke…" span.hidden { " " (token.label) } }
                }
            },
        ]
    };
    let rows: Vec<_> = tokens.iter().map(row).collect();
    let columns = [
        Column::plain("Label"),
        Column::text("For").fourth(),
        Column::text("Created").fourth(),
        Column::text("Last used").third(),
        Column::text("Expires"),
        Column::state("State"),
        Column::action(),
    ];
    web::panel(
        "Tokens",
        "",
        html! {},
        html! {
            @if rows.is_empty() {
                (web::empty_state("No tokens yet", "A service logs in with a token. Create one for each place it runs.", None))
            } @else {
                (web::table("Tokens", &columns, &rows))
            }
        },
    )
}

fn token_state(token: &Token, now: i64) -> Markup {
    let days = (token.expires_at - now) / (24 * 3600);
    if token.revoked_at.is_some() {
        web::state(Tone::Neutral, "Revoked")
    } else if token.expires_at <= now {
        web::state(Tone::Neutral, "Expired")
    } else if days < 14 {
        web::pill(Tone::Warning, "Expires soon")
    } else {
        web::state(Tone::Good, "Valid")
    }
}

pub(super) async fn new_token(visitor: Visitor, Path(name): Path<String>) -> Answer {
    let form = NewTokenForm { label: String::new(), audience: String::new(), days: "365".to_owned() };
    token_page(&visitor, &name, &form, Shown::first()).await
}

async fn token_page(visitor: &Visitor, name: &str, form: &NewTokenForm, shown: Shown) -> Answer {
    let Shown { status, errors } = shown;
    let account = account(visitor, name).await?;
    let at = format!("/accounts/{}", account.name);
    let fields = html! {
        (web::field(Field {
            value: &form.label,
            hint: Some("What it is for, or where it is used."),
            autofocus: true,
            ..Field::new("label", "Label", Kind::Text).error_from(&errors)
        }))
        (web::field(Field {
            value: &form.audience,
            hint: Some("Services that accept it, separated by spaces. Empty: only MCIAS, for a service that looks up tokens there."),
            required: false,
            ..Field::new("audience", "Services", Kind::Text).error_from(&errors)
        }))
        (web::field(Field {
            value: &form.days,
            ..Field::new("days", "Valid for (days)", Kind::Number).error_from(&errors)
        }))
        div.actions {
            (web::button("Create token", Action::Primary))
            (web::link_button(&at, "Cancel", Action::Secondary))
        }
    };
    let body = web::plain_panel(web::padded(web::form(&format!("{at}/tokens"), &visitor.csrf(), fields)));
    let crumbs = [ACCOUNTS, (account.name.as_str(), at.as_str())];
    let change = |page| Page { layout: Layout::Text, crumbs: &crumbs, errors: &errors, ..page };
    Ok(visitor.page_with(status, change, "New token", body))
}

#[derive(Deserialize)]
pub(super) struct NewTokenForm {
    label: String,
    #[serde(default)]
    audience: String,
    days: String,
}

pub(super) async fn issue_token(Path(name): Path<String>, submission: Submission<NewTokenForm>) -> Answer {
    let show =
        async |visitor: &Visitor, form: &NewTokenForm, shown| token_page(visitor, &name, form, shown).await;
    let act = async |visitor: &Visitor, form: &NewTokenForm| {
        let days = form.days.trim().parse::<u32>();
        let wrong = |_| Problem::field("days", "Use a whole number of days.");
        let request = IssueTokenRequest {
            name: name.clone(),
            label: form.label.clone(),
            audience: split(&form.audience),
            lifetime_seconds: Some(i64::from(days.map_err(wrong)?) * 24 * 3600),
        };
        let issued = visitor.calls.issue_token(request).await?;
        let at = format!("/accounts/{name}");
        let secret = Once {
            label: "Token",
            text: &issued.token,
            what: "Store it in a file that only the service can read.",
            file: Some(&format!("{name}.token")),
            done: &at,
        };
        Ok(once(visitor, &[ACCOUNTS, (&name, &at)], &format!("Token for {name}"), secret))
    };
    submission.handle(&["label", "audience", "days", "lifetime_seconds"], show, act).await
}

pub(super) async fn ask_revoke(visitor: Visitor, Path((name, id)): Path<(String, String)>) -> Answer {
    let name = named(&name)?;
    let tokens = visitor.calls.list_tokens(ListTokensRequest { name: name.to_string() }).await?.tokens;
    let token = tokens.iter().find(|token| token.id == id);
    let token = token.ok_or_else(|| Problem::not_found("There is no such token."))?;
    let asked = Confirm {
        question: &format!("Revoke token {} of {name}?", token.label),
        lost: &["Within 30 seconds no service accepts it any more".to_owned()],
        rest: html! { "It cannot be undone." },
        fields: html! {},
        action: &format!("/accounts/{name}/tokens/{id}/revoke"),
        button: "Revoke token",
        back: &format!("/accounts/{name}"),
    };
    Ok(ask_about(&visitor, name.as_str(), "Revoke token", &asked))
}

pub(super) async fn revoke_token(
    Path((name, id)): Path<(String, String)>,
    posted: Posted<NoFields>,
) -> Answer {
    let Posted { sender: visitor, form: NoFields {} } = posted;
    let revoked = visitor.calls.revoke_token(RevokeTokenRequest { name: name.clone(), id }).await;
    Ok(visitor.finish(&format!("/accounts/{name}"), revoked, "Token revoked."))
}
