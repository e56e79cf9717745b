//! What all pages about one account share.

use axum::response::Response;
use mc_api::mcias::{Account, GetAccountRequest};
use mcdsl::problem::Problem;
use mcdsl::web::Confirm;

use super::own::ask;
use super::visitor::Visitor;
use crate::domain::Name;

/// The page above those about one account.
pub(super) const ACCOUNTS: (&str, &str) = ("Accounts", "/accounts");

pub(super) async fn account(visitor: &Visitor, name: &str) -> Result<Account, Problem> {
    visitor.calls.get_account(GetAccountRequest { name: name.to_owned() }).await
}

/// A page below an account's that asks for confirmation.
pub(super) fn ask_about(visitor: &Visitor, name: &str, title: &str, asked: &Confirm<'_>) -> Response {
    ask(visitor, &[ACCOUNTS, (name, asked.back)], title, asked)
}

/// The name of an account in a path. Anything else could lead a form to another path.
pub(super) fn named(text: &str) -> Result<Name, Problem> {
    Name::parse(text).map_err(|_error| Problem::not_found("There is no such account."))
}
