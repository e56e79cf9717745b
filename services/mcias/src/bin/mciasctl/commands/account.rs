//! Accounts.

use clap::{Args, Subcommand};
use mc_api::client::Connection;
use mc_api::mcias::accounts_client::AccountsClient;
use mc_api::mcias::{
    Account as Message, CreateAccountRequest, DeleteAccountRequest, DeletedAccount, GetAccountRequest,
    IssueLinkRequest, ListAccountsRequest, ListDeletedAccountsRequest, ReleaseNameRequest,
    ResetFactorsRequest, UpdateAccountRequest,
};
use mcdsl::ctl::{Column, Ctl, Error, join_or, when, when_or_dash};
use tonic::Code;

use super::{me, print_changed};

#[derive(Debug, Subcommand)]
pub(crate) enum Account {
    /// List accounts
    List {
        /// Only accounts of this type
        #[arg(long = "type", value_name = "TYPE", value_parser = ["human", "system"])]
        account_type: Option<String>,
        /// Only accounts whose name contains this text
        #[arg(long, value_name = "TEXT")]
        contains: Option<String>,
    },
    /// Show an account
    Show {
        /// Account
        name: String,
    },
    /// Create an account; a person then needs a setup link
    #[command(
        after_help = "Examples:\n  mciasctl account create bob --role user\n  mciasctl account create mcr --type system --tag prod"
    )]
    Create {
        /// Account
        name: String,
        /// Type: of a person, or of a service
        #[arg(long = "type", value_name = "TYPE", value_parser = ["human", "system"], default_value = "human")]
        account_type: String,
        /// Role of a person; repeat for several
        #[arg(long = "role", value_name = "ROLE", value_parser = ["admin", "user", "guest"])]
        roles: Vec<String>,
        /// Tag; repeat for several
        #[arg(long = "tag", value_name = "TAG")]
        tags: Vec<String>,
        /// Service that a system account acts for [default: the account's name]
        #[arg(long)]
        service: Option<String>,
    },
    /// Update the given settings of an account
    #[command(
        after_help = "Examples:\n  mciasctl account update bob --disable\n  mciasctl account update bob --role user --role admin\n  mciasctl account update mcr --no-tags"
    )]
    Update(Update),
    /// Delete an account with its tokens, sessions and passkeys; its name stays taken
    Delete {
        /// Account
        name: String,
    },
    /// List deleted accounts whose names are taken
    Deleted,
    /// Release the name of a deleted account, for another one
    ReleaseName {
        /// Name of a deleted account
        name: String,
    },
    /// Create a setup link, with which a person sets a password
    Link {
        /// Account of a person
        name: String,
    },
    /// Remove authenticator app, recovery codes and passkeys of a person, and end the sessions
    ResetFactors {
        /// Account of a person
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Update {
    /// Account
    name: String,
    /// Enable the account
    #[arg(long, conflicts_with = "disable")]
    enable: bool,
    /// Disable the account, and end its sessions
    #[arg(long)]
    disable: bool,
    /// New role, instead of all present ones; repeat for several
    #[arg(long = "role", value_name = "ROLE", value_parser = ["admin", "user", "guest"], conflicts_with = "no_roles")]
    roles: Vec<String>,
    /// Remove all roles
    #[arg(long)]
    no_roles: bool,
    /// New tag, instead of all present ones; repeat for several
    #[arg(long = "tag", value_name = "TAG", conflicts_with = "no_tags")]
    tags: Vec<String>,
    /// Remove all tags
    #[arg(long)]
    no_tags: bool,
    /// Service that a system account acts for
    #[arg(long)]
    service: Option<String>,
}

pub(super) async fn run(
    ctl: &mut Ctl<'_>,
    mut accounts: AccountsClient<Connection>,
    command: Account,
) -> Result<(), Error> {
    match command {
        Account::List { account_type, contains } => list(ctl, accounts, account_type, contains).await,
        Account::Show { name } => {
            let account = accounts.get_account(GetAccountRequest { name }).await?.into_inner();
            me::print_account(ctl, &account)
        }
        Account::Create { name, account_type, roles, tags, service } => {
            let request = CreateAccountRequest { name, account_type, roles, tags, service };
            let account = accounts.create_account(request).await?.into_inner();
            me::print_account(ctl, &account)
        }
        Account::Update(update) => change(ctl, accounts, update).await,
        Account::Delete { name } => {
            ctl.confirm(&format!("Delete account {name} with its tokens, sessions and passkeys? Its name stays taken until it is released."))?;
            let changed = accounts.delete_account(DeleteAccountRequest { name }).await?.into_inner();
            print_changed(ctl, &changed, "Account deleted", "The account was already deleted")
        }
        Account::Deleted => list_deleted(ctl, accounts).await,
        Account::ReleaseName { name } => {
            ctl.confirm(&format!(
                "Release the name {name}? Policies that name it apply to the next account of this name."
            ))?;
            let changed = accounts.release_name(ReleaseNameRequest { name }).await?.into_inner();
            print_changed(ctl, &changed, "Name released", "The name was already released")
        }
        Account::Link { name } => {
            let link = accounts.issue_link(IssueLinkRequest { name }).await?.into_inner();
            let lines = [("link", link.url.clone()), ("expires", when(link.expires_at))];
            Ok(ctl.printer.record(&link, &lines)?)
        }
        Account::ResetFactors { name } => {
            ctl.confirm(&format!("Remove authenticator app, recovery codes and passkeys of {name}?"))?;
            let changed = accounts.reset_factors(ResetFactorsRequest { name }).await?.into_inner();
            let already = "The account has neither authenticator app nor passkeys: nothing was removed";
            print_changed(ctl, &changed, "Sign-in methods removed, sessions ended", already)
        }
    }
}

async fn list(
    ctl: &mut Ctl<'_>,
    mut accounts: AccountsClient<Connection>,
    account_type: Option<String>,
    contains: Option<String>,
) -> Result<(), Error> {
    let mut request = ListAccountsRequest { limit: Some(1000), after: None, account_type, contains };
    let mut found: Vec<Message> = Vec::new();
    loop {
        let page = accounts.list_accounts(request.clone()).await?.into_inner();
        found.extend(page.accounts);
        request.after = page.next;
        if request.after.is_none() {
            break;
        }
    }
    let columns = [
        Column::text("NAME"),
        Column::exact("TYPE").rank(1),
        Column::text("ROLES").rank(2),
        Column::text("TAGS").rank(4),
        Column::state("STATE"),
        Column::exact("LAST LOGIN").rank(3),
    ];
    let cells = |account: &Message| {
        [
            account.name.clone(),
            account.account_type.clone(),
            join_or(&account.roles, "-"),
            join_or(&account.tags, "-"),
            me::state(account).to_owned(),
            when_or_dash(account.last_login_at),
        ]
    };
    Ok(ctl.printer.rows(&found, columns, cells)?)
}

async fn list_deleted(ctl: &mut Ctl<'_>, mut accounts: AccountsClient<Connection>) -> Result<(), Error> {
    let mut request = ListDeletedAccountsRequest { limit: Some(1000), after: None };
    let mut found: Vec<DeletedAccount> = Vec::new();
    loop {
        let page = accounts.list_deleted_accounts(request.clone()).await?.into_inner();
        found.extend(page.accounts);
        request.after = page.next;
        if request.after.is_none() {
            break;
        }
    }
    let columns =
        [Column::text("NAME"), Column::exact("TYPE"), Column::exact("DELETED"), Column::exact("ID").rank(1)];
    let cells = |account: &DeletedAccount| {
        [account.name.clone(), account.account_type.clone(), when(account.deleted_at), account.id.clone()]
    };
    Ok(ctl.printer.rows(&found, columns, cells)?)
}

/// Replaces the settings by the present ones and the given ones. If somebody else changes the account in between, it starts
/// over once.
async fn change(
    ctl: &mut Ctl<'_>,
    mut accounts: AccountsClient<Connection>,
    update: Update,
) -> Result<(), Error> {
    let sets_roles = update.no_roles || !update.roles.is_empty();
    let sets_tags = update.no_tags || !update.tags.is_empty();
    if !(update.enable || update.disable || sets_roles || sets_tags || update.service.is_some()) {
        return Err(Error::usage("Nothing to update: pass at least one setting (see --help)"));
    }
    let request = |present: Message| UpdateAccountRequest {
        name: present.name,
        enabled: update.enable || (present.enabled && !update.disable),
        roles: if sets_roles { update.roles.clone() } else { present.roles },
        tags: if sets_tags { update.tags.clone() } else { present.tags },
        service: update.service.clone().or(present.service),
        revision: present.revision,
    };
    let get = GetAccountRequest { name: update.name.clone() };
    let present = accounts.get_account(get.clone()).await?.into_inner();
    let updated = match accounts.update_account(request(present)).await {
        Err(status) if status.code() == Code::Aborted => {
            let present = accounts.get_account(get).await?.into_inner();
            accounts.update_account(request(present)).await?
        }
        other => other?,
    };
    me::print_account(ctl, &updated.into_inner())
}
