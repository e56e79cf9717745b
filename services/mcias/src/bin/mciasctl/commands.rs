//! The commands, one module for each kind of thing.

mod account;
mod key;
mod me;
mod session;
mod token;

use clap::Subcommand;
use mc_api::client::Connection;
use mc_api::mcias::accounts_client::AccountsClient;
use mc_api::mcias::identity_client::IdentityClient;
use mc_api::mcias::me_client::MeClient;
use mc_api::mcias::signing_keys_client::SigningKeysClient;
use mc_api::mcias::{Changed, GetAccountRequest};
use mcdsl::ctl::{Ctl, Error, audit, policy};
use serde_json::json;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the account that is logged in
    Whoami,
    /// Change your password, or set one with a setup link
    #[command(subcommand)]
    Password(me::Password),
    /// Manage your authenticator app (TOTP)
    #[command(subcommand)]
    Totp(me::Totp),
    /// Create new recovery codes; the old ones become invalid
    RecoveryCodes,
    /// Manage your passkeys; new ones are added in a browser
    #[command(subcommand)]
    Passkey(me::Passkey),
    /// Manage sessions: yours, or those of an account
    #[command(subcommand)]
    Session(session::Session),
    /// Manage accounts of people and services
    #[command(subcommand)]
    Account(account::Account),
    /// Manage tokens of system accounts
    #[command(subcommand)]
    Token(token::Token),
    /// Manage the login policy: who may log in where
    #[command(subcommand)]
    Policy(policy::Policy),
    /// Read and verify the audit log
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Manage the keys that sign tokens
    #[command(subcommand)]
    Key(key::Key),
}

pub(crate) async fn run(ctl: &mut Ctl<'_>, command: Command) -> Result<(), Error> {
    if let Command::Password(me::Password::Redeem { stdin }) = command {
        let identity = IdentityClient::new(ctl.connect_without_token().await?);
        return me::redeem(ctl, identity, stdin).await;
    }
    let connection = ctl.connect().await?;
    match command {
        Command::Whoami => me::whoami(ctl, MeClient::new(connection)).await,
        Command::Password(command) => me::password(ctl, MeClient::new(connection), &command).await,
        Command::Totp(command) => me::totp(ctl, MeClient::new(connection), &command).await,
        Command::RecoveryCodes => me::recovery_codes(ctl, MeClient::new(connection)).await,
        Command::Passkey(command) => me::passkey(ctl, MeClient::new(connection), command).await,
        Command::Session(command) => {
            let accounts = AccountsClient::new(connection.clone());
            session::run(ctl, MeClient::new(connection), accounts, command).await
        }
        Command::Account(command) => account::run(ctl, AccountsClient::new(connection), command).await,
        Command::Token(command) => token::run(ctl, AccountsClient::new(connection), command).await,
        Command::Policy(command) => {
            policy::run(ctl, connection.clone(), "service", check_account(connection), command).await
        }
        Command::Audit(command) => {
            audit::run(ctl, connection.clone(), check_account(connection), command).await
        }
        Command::Key(command) => key::run(ctl, SigningKeysClient::new(connection), command).await,
    }
}

/// Prints what was done; where that changed nothing, what was so already.
fn print_changed(ctl: &mut Ctl<'_>, changed: &Changed, done: &str, already: &str) -> Result<(), Error> {
    let count = changed.changed;
    let text = || format!("{}\n", if count == 0 { already } else { done });
    Ok(ctl.printer.print(|| json!({ "changed": count }), text)?)
}

/// Whether an account exists.
fn check_account(connection: Connection) -> impl AsyncFnOnce(String) -> Result<(), Error> {
    async move |name| {
        let mut accounts = AccountsClient::new(connection);
        accounts.get_account(GetAccountRequest { name }).await?;
        Ok(())
    }
}

fn yes_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}
