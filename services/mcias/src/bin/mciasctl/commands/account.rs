//! Accounts.

use mc_api::mcias::{
    Account as Message, CreateAccountRequest, DeleteAccountRequest, EndAccountSessionRequest,
    EndAccountSessionsRequest, GetAccountRequest, IssueLinkRequest, ListAccountSessionsRequest,
    ListAccountsRequest, ResetFactorsRequest, UpdateAccountRequest,
};

use super::{Session, list_or, own, when, when_or_dash};
use crate::cli::{Account, AccountUpdate};
use crate::error::Error;

pub(super) async fn run(session: &mut Session<'_>, command: Account) -> Result<(), Error> {
    match command {
        Account::List { account_type, contains } => list(session, account_type, contains).await,
        Account::Show { name } => {
            let account = session.client.accounts.get_account(GetAccountRequest { name }).await?.into_inner();
            own::show(session, &account)
        }
        Account::Create { name, account_type, roles, tags, service } => {
            let request = CreateAccountRequest { name, account_type, roles, tags, service };
            let account = session.client.accounts.create_account(request).await?.into_inner();
            own::show(session, &account)
        }
        Account::Update(update) => change(session, update).await,
        Account::Delete { name } => {
            session.sure(&format!("Remove {name} with its tokens, sessions and passkeys?"))?;
            let request = DeleteAccountRequest { name };
            let changed = session.client.accounts.delete_account(request).await?.into_inner();
            session.changed(&changed, "the account is removed")
        }
        Account::Link { name } => {
            let link = session.client.accounts.issue_link(IssueLinkRequest { name }).await?.into_inner();
            let lines = [("link", link.url.clone()), ("good until", when(link.expires_at))];
            Ok(session.printer.record(&link, &lines)?)
        }
        Account::ResetFactors { name } => {
            session.sure(&format!("Take second factor, recovery codes and passkeys from {name}?"))?;
            let request = ResetFactorsRequest { name };
            let changed = session.client.accounts.reset_factors(request).await?.into_inner();
            session.changed(&changed, "they are gone, and the sessions are ended")
        }
        Account::Sessions { name } => {
            let request = ListAccountSessionsRequest { name };
            let found = session.client.accounts.list_account_sessions(request).await?.into_inner();
            own::sessions(session, &found.sessions)
        }
        Account::EndSessions { name, id } => {
            let accounts = &mut session.client.accounts;
            let changed = match id {
                Some(id) => accounts.end_account_session(EndAccountSessionRequest { name, id }).await?,
                None => accounts.end_account_sessions(EndAccountSessionsRequest { name }).await?,
            };
            session.changed(&changed.into_inner(), "ended")
        }
    }
}

async fn list(
    session: &mut Session<'_>,
    account_type: Option<String>,
    contains: Option<String>,
) -> Result<(), Error> {
    let mut found: Vec<Message> = Vec::new();
    let mut after = None;
    loop {
        let request = ListAccountsRequest {
            limit: Some(1000),
            after,
            account_type: account_type.clone(),
            contains: contains.clone(),
        };
        let page = session.client.accounts.list_accounts(request).await?.into_inner();
        found.extend(page.accounts);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let row = |account: &Message| {
        [
            account.name.clone(),
            account.account_type.clone(),
            list_or(&account.roles, "-"),
            list_or(&account.tags, "-"),
            if account.enabled { "yes" } else { "no" }.to_owned(),
            when_or_dash(account.last_login_at),
        ]
    };
    Ok(session.printer.rows(&found, ["NAME", "TYPE", "ROLES", "TAGS", "ENABLED", "LAST LOGIN"], row)?)
}

async fn change(session: &mut Session<'_>, update: AccountUpdate) -> Result<(), Error> {
    let lists = [&update.roles, &update.tags].iter().any(|list| !list.is_empty());
    let flags = update.enable || update.disable || update.no_roles || update.no_tags;
    if !lists && !flags && update.service.is_none() {
        return Err(Error::Usage("say what is to be changed: see --help".into()));
    }
    let accounts = &mut session.client.accounts;
    let name = update.name;
    let before = accounts.get_account(GetAccountRequest { name: name.clone() }).await?.into_inner();
    let list = |given: Vec<String>, none: bool, before: Vec<String>| {
        if none || !given.is_empty() { given } else { before }
    };
    let request = UpdateAccountRequest {
        name,
        enabled: if update.enable || update.disable { update.enable } else { before.enabled },
        roles: list(update.roles, update.no_roles, before.roles),
        tags: list(update.tags, update.no_tags, before.tags),
        service: update.service.or(before.service),
        revision: before.revision,
    };
    let account = accounts.update_account(request).await?.into_inner();
    own::show(session, &account)
}
