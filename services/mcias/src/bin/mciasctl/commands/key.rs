//! The keys that sign tokens.

use clap::Subcommand;
use mc_api::client::Connection;
use mc_api::mcias::signing_keys_client::SigningKeysClient;
use mc_api::mcias::{Key as Message, ListKeysRequest, RotateKeysRequest, WithdrawKeyRequest};
use mcdsl::clock::Clock;
use mcdsl::ctl::{Column, Ctl, Error, when};
use serde_json::json;

#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// List the keys
    List,
    /// Create a key; it signs once services have had time to fetch it
    Rotate,
    /// Withdraw a key that may have leaked: all tokens that it signed end at once
    Withdraw {
        /// Key
        #[arg(allow_hyphen_values = true)]
        id: String,
    },
}

pub(super) async fn run(
    ctl: &mut Ctl<'_>,
    mut keys: SigningKeysClient<Connection>,
    command: Key,
) -> Result<(), Error> {
    let found = match command {
        Key::List => keys.list_keys(ListKeysRequest {}).await?,
        Key::Rotate => keys.rotate_keys(RotateKeysRequest {}).await?,
        Key::Withdraw { id } => {
            ctl.confirm(&format!(
                "Withdraw key {id}? All sessions and service tokens that it signed end, yours among them."
            ))?;
            let ended = keys.withdraw_key(WithdrawKeyRequest { id }).await?.into_inner().changed;
            let text = || format!("Key withdrawn; {ended} sessions and tokens have ended\n");
            return Ok(ctl.printer.print(|| json!({ "ended": ended }), text)?);
        }
    };
    let now = Clock::system().unix_s();
    let state = |key: &Message| match key.signing {
        true => "signing",
        false if key.active_from > now => "waiting",
        false => "retired",
    };
    let cells = |key: &Message| {
        let [created, since, until] = [key.created_at, key.active_from, key.verify_until].map(when);
        [key.id.clone(), state(key).to_owned(), created, since, until]
    };
    let columns = [
        Column::exact("ID"),
        Column::state("STATE"),
        Column::exact("CREATED").rank(3),
        Column::exact("SIGNING SINCE").rank(2),
        Column::exact("KEPT UNTIL").rank(1),
    ];
    Ok(ctl.printer.rows(&found.into_inner().keys, columns, cells)?)
}
