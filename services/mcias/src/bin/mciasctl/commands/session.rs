//! Sessions: those of the caller, and for admins those of an account.

use clap::Subcommand;
use mc_api::client::Connection;
use mc_api::mcias::accounts_client::AccountsClient;
use mc_api::mcias::me_client::MeClient;
use mc_api::mcias::{
    EndAccountSessionRequest, EndAccountSessionsRequest, EndOtherSessionsRequest, EndSessionRequest,
    ListAccountSessionsRequest, ListSessionsRequest, Session as Message,
};
use mcdsl::ctl::{Column, Ctl, Error, when, when_or_dash};

use super::print_changed;

#[derive(Debug, Subcommand)]
pub(crate) enum Session {
    /// List active sessions; `*` marks the one of this command
    List {
        /// Sessions of this account instead of yours
        #[arg(long, value_name = "NAME")]
        account: Option<String>,
    },
    /// End sessions
    #[command(
        after_help = "Examples:\n  mciasctl session end --others\n  mciasctl session end --all --account bob"
    )]
    End {
        /// Session
        #[arg(required_unless_present_any = ["others", "all"])]
        id: Option<String>,
        /// End all of your sessions but this one
        #[arg(long, conflicts_with_all = ["id", "account"])]
        others: bool,
        /// End all sessions of the account
        #[arg(long, requires = "account", conflicts_with = "id")]
        all: bool,
        /// A session of this account instead of yours
        #[arg(long, value_name = "NAME")]
        account: Option<String>,
    },
}

pub(super) async fn run(
    ctl: &mut Ctl<'_>,
    mut me: MeClient<Connection>,
    mut accounts: AccountsClient<Connection>,
    command: Session,
) -> Result<(), Error> {
    let changed = match command {
        Session::List { account: None } => {
            let found = me.list_sessions(ListSessionsRequest {}).await?.into_inner();
            return print(ctl, &found.sessions);
        }
        Session::List { account: Some(name) } => {
            let found =
                accounts.list_account_sessions(ListAccountSessionsRequest { name }).await?.into_inner();
            return print(ctl, &found.sessions);
        }
        Session::End { account: None, id: Some(id), .. } => me.end_session(EndSessionRequest { id }).await?,
        Session::End { account: None, id: None, .. } => {
            me.end_other_sessions(EndOtherSessionsRequest {}).await?
        }
        Session::End { account: Some(name), id: Some(id), .. } => {
            accounts.end_account_session(EndAccountSessionRequest { name, id }).await?
        }
        Session::End { account: Some(name), id: None, .. } => {
            accounts.end_account_sessions(EndAccountSessionsRequest { name }).await?
        }
    };
    let changed = changed.into_inner();
    let done = match changed.changed {
        1 => "1 session ended".to_owned(),
        count => format!("{count} sessions ended"),
    };
    print_changed(ctl, &changed, &done, "There was no session to end")
}

fn print(ctl: &mut Ctl<'_>, found: &[Message]) -> Result<(), Error> {
    let cells = |found: &Message| {
        [
            found.id.clone(),
            if found.current { "*" } else { "" }.to_owned(),
            found.service.clone(),
            found.method.clone(),
            found.device.clone(),
            found.source.clone(),
            when(found.created_at),
            when_or_dash(found.last_used_at),
            when(found.expires_at),
        ]
    };
    Ok(ctl.printer.rows(found, COLUMNS, cells)?)
}

/// An id is 36 characters wide: at 80 columns there is room for the mark, the device, one time and little else.
const COLUMNS: [Column; 9] = [
    Column::exact("ID"),
    Column::exact("*"),
    Column::text("SERVICE").rank(5),
    Column::text("METHOD").rank(4),
    Column::text("DEVICE"),
    Column::text("SOURCE").rank(2),
    Column::exact("CREATED").rank(1),
    Column::exact("LAST USED"),
    Column::exact("EXPIRES").rank(6),
];
