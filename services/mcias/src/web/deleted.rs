//! Pages for admins: names of deleted accounts, which stay taken until they are released.

use axum::http::StatusCode;
use maud::html;
use mc_api::mcias::{DeletedAccount, ListDeletedAccountsRequest, ReleaseNameRequest};
use mcdsl::http::{Path, Query};
use mcdsl::web::session::NoFields;
use mcdsl::web::{self, Column, Confirm, Page};
use serde::Deserialize;

use super::account::ACCOUNTS;
use super::own::ask;
use super::visitor::{Posted, Visitor};
use super::{Answer, count};

#[derive(Debug, Default, Deserialize)]
pub(super) struct After {
    after: Option<String>,
}

pub(super) async fn list(visitor: Visitor, Query(page): Query<After>) -> Answer {
    let request = ListDeletedAccountsRequest { limit: Some(50), after: page.after.clone() };
    let found = visitor.calls.list_deleted_accounts(request).await?;
    let now = visitor.now();
    let row = |account: &DeletedAccount| {
        let release = format!("/deleted-accounts/{}/release", account.name);
        vec![
            html! { (account.name) },
            html! { @if account.account_type == "human" { "Person" } @else { "Service" } },
            html! { code { (account.id) } },
            web::ago(now, account.deleted_at),
            html! { a.bare href=(release) { "Release name…" span.hidden { " " (account.name) } } },
        ]
    };
    let rows: Vec<_> = found.accounts.iter().map(row).collect();
    let columns = [
        Column::plain("Name"),
        Column::plain("Type"),
        Column::text("Account ID").fourth(),
        Column::text("Deleted"),
        Column::action(),
    ];
    let at = |after: &str| {
        let query = serde_urlencoded::to_string([("after", after)]).expect("a pair of texts can be written");
        format!("/deleted-accounts?{query}")
    };
    let (first, next) = (page.after.as_ref().map(|_| "/deleted-accounts"), found.next.as_deref().map(at));
    let body = web::plain_panel(html! {
        @if rows.is_empty() {
            (web::empty_state("No deleted accounts", "Names of deleted accounts stay taken until they are released.", None))
        } @else {
            (web::table("Deleted accounts", &columns, &rows))
            (web::pager(&count(rows.len(), "account"), &[("First", first), ("Next", next.as_deref())]))
        }
    });
    let lead = Some("Their names stay taken, so that nobody inherits what rules and services say of them.");
    let crumbs = &[ACCOUNTS];
    Ok(visitor.page_with(StatusCode::OK, |page| Page { lead, crumbs, ..page }, "Deleted accounts", body))
}

pub(super) async fn ask_release(visitor: Visitor, Path(name): Path<String>) -> Answer {
    let asked = Confirm {
        question: &format!("Release the name {name}?"),
        lost: &[format!(
            "Policy rules and services that mention {name} will apply to the next account named {name}"
        )],
        rest: html! { "The deleted account does not come back: the next one has another ID." },
        fields: html! {},
        action: &format!("/deleted-accounts/{name}/release"),
        button: "Release name",
        back: "/deleted-accounts",
    };
    Ok(ask(&visitor, &[ACCOUNTS, ("Deleted accounts", "/deleted-accounts")], "Release name", &asked))
}

pub(super) async fn release(Path(name): Path<String>, posted: Posted<NoFields>) -> Answer {
    let Posted { sender: visitor, form: NoFields {} } = posted;
    let released = visitor.calls.release_name(ReleaseNameRequest { name: name.clone() }).await;
    Ok(visitor.finish("/deleted-accounts", released, &format!("Name {name} released.")))
}
