//! What people do with their own account: password, authenticator app, recovery codes, passkeys.

use clap::Subcommand;
use mc_api::client::Connection;
use mc_api::mcias::identity_client::IdentityClient;
use mc_api::mcias::me_client::MeClient;
use mc_api::mcias::{
    Account, BeginTotpRequest, ChangePasswordRequest, ConfirmTotpRequest, GetMeRequest, ListPasskeysRequest,
    Passkey as Message, RecoveryCodes, RedeemLinkRequest, RemovePasskeyRequest, RemoveTotpRequest,
    RenamePasskeyRequest, ReplaceRecoveryCodesRequest,
};
use mcdsl::ctl::{Column, Ctl, Error, join_or, new_password, secret, when, when_or_dash};
use mcdsl::terminal::clean;
use serde_json::json;

use super::{print_changed, yes_no};

#[derive(Debug, Subcommand)]
pub(crate) enum Password {
    /// Change your password, and end all other sessions
    Change {
        /// Read the current password, if there is one, and the new one from standard input, a line each
        #[arg(long)]
        stdin: bool,
    },
    /// Set a password with a setup link, instead of in a browser; needs no login
    #[command(
        after_help = "Examples:\n  mciasctl password redeem\n  (pass show link; pass show mcias) | mciasctl password redeem --stdin"
    )]
    Redeem {
        /// Read the link and the new password from standard input, a line each
        #[arg(long)]
        stdin: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Totp {
    /// Add an authenticator app: shows its secret, asks for a code, shows recovery codes
    #[command(
        after_help = "Examples:\n  {ctl} totp enrol\n  {ctl} totp begin\n  oathtool --totp -b @secret-file | {ctl} totp confirm --stdin"
    )]
    Enrol,
    /// Begin to add an authenticator app, without a terminal: prints its secret, for `totp confirm`
    Begin,
    /// Confirm an authenticator app with a code that it shows; prints recovery codes
    Confirm {
        /// Read the code from standard input
        #[arg(long)]
        stdin: bool,
    },
    /// Remove the authenticator app and its recovery codes
    Remove,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Passkey {
    /// List passkeys
    List,
    /// Rename a passkey
    Update {
        /// Passkey
        #[arg(allow_hyphen_values = true)]
        id: String,
        /// New label
        #[arg(long)]
        label: String,
    },
    /// Remove a passkey
    Remove {
        /// Passkey
        #[arg(allow_hyphen_values = true)]
        id: String,
    },
}

pub(super) async fn whoami(ctl: &mut Ctl<'_>, mut me: MeClient<Connection>) -> Result<(), Error> {
    let account = me.get_me(GetMeRequest {}).await?.into_inner();
    print_account(ctl, &account)
}

pub(super) fn print_account(ctl: &mut Ctl<'_>, account: &Account) -> Result<(), Error> {
    let mut lines = vec![
        ("name", account.name.clone()),
        ("type", account.account_type.clone()),
        ("state", state(account).to_owned()),
        ("tags", join_or(&account.tags, "-")),
        ("created", when(account.created_at)),
        ("id", account.id.clone()),
    ];
    if let Some(service) = &account.service {
        lines.push(("service", service.clone()));
    } else {
        lines.push(("roles", join_or(&account.roles, "-")));
        lines.push(("password", yes_no(account.has_password)));
        lines.push(("authenticator app", yes_no(account.has_totp)));
        lines.push(("recovery codes", account.recovery_codes.to_string()));
        lines.push(("passkeys", account.passkeys.to_string()));
        lines.push(("last login", when_or_dash(account.last_login_at)));
    }
    Ok(ctl.printer.record(account, &lines)?)
}

pub(super) fn state(account: &Account) -> &'static str {
    if account.enabled { "active" } else { "disabled" }
}

pub(super) async fn redeem(
    ctl: &mut Ctl<'_>,
    mut identity: IdentityClient<Connection>,
    stdin: bool,
) -> Result<(), Error> {
    let link = secret("Setup link: ", stdin)?;
    let password = new_password(stdin)?;
    // The whole link, or its last part.
    let secret = link.expose().trim().rsplit(['/', '#']).next().unwrap_or_default().to_owned();
    let request = RedeemLinkRequest { secret, password: password.expose().to_owned() };
    let account = identity.redeem_link(request).await?.into_inner().account;
    let text = || format!("Password of {account} set; log in with it\n");
    Ok(ctl.printer.print(|| json!({ "account": account }), text)?)
}

pub(super) async fn password(
    ctl: &mut Ctl<'_>,
    mut me: MeClient<Connection>,
    command: &Password,
) -> Result<(), Error> {
    let (Password::Change { stdin } | Password::Redeem { stdin }) = *command;
    let has_password = me.get_me(GetMeRequest {}).await?.into_inner().has_password;
    let current = has_password.then(|| secret("Current password: ", stdin)).transpose()?;
    let password = new_password(stdin)?;
    let request = ChangePasswordRequest {
        current: current.map(|current| current.expose().to_owned()),
        password: password.expose().to_owned(),
    };
    let ended = me.change_password(request).await?.into_inner().changed;
    let text = || format!("Password changed; {ended} other sessions ended\n");
    Ok(ctl.printer.print(|| json!({ "sessions_ended": ended }), text)?)
}

pub(super) async fn totp(
    ctl: &mut Ctl<'_>,
    mut me: MeClient<Connection>,
    command: &Totp,
) -> Result<(), Error> {
    match command {
        Totp::Enrol => {
            let enrolment = me.begin_totp(BeginTotpRequest {}).await?.into_inner();
            // To the terminal itself: standard output gets the recovery codes, and may be a file.
            let [key, uri] = [&enrolment.secret, &enrolment.uri].map(|text| clean(text));
            let question =
                format!("Add this to your authenticator app:\n  {key}\n  {uri}\nCode that it shows: ");
            let code = secret(&question, false)?;
            let request = ConfirmTotpRequest { code: code.expose().to_owned() };
            let codes = me.confirm_totp(request).await?.into_inner();
            print_recovery_codes(ctl, &codes)
        }
        Totp::Begin => {
            let enrolment = me.begin_totp(BeginTotpRequest {}).await?.into_inner();
            let lines = [("secret", enrolment.secret.clone()), ("uri", enrolment.uri.clone())];
            let json = json!({ "secret": enrolment.secret, "uri": enrolment.uri });
            Ok(ctl.printer.record(&json, &lines)?)
        }
        Totp::Confirm { stdin } => {
            let code = secret("Code of your authenticator app: ", *stdin)?;
            let request = ConfirmTotpRequest { code: code.expose().to_owned() };
            let codes = me.confirm_totp(request).await?.into_inner();
            print_recovery_codes(ctl, &codes)
        }
        Totp::Remove => {
            ctl.confirm("Remove the authenticator app and its recovery codes?")?;
            let changed = me.remove_totp(RemoveTotpRequest {}).await?.into_inner();
            print_changed(ctl, &changed, "Authenticator app removed", "There was no authenticator app")
        }
    }
}

pub(super) async fn recovery_codes(ctl: &mut Ctl<'_>, mut me: MeClient<Connection>) -> Result<(), Error> {
    ctl.confirm("Create new recovery codes? The old ones become invalid.")?;
    let codes = me.replace_recovery_codes(ReplaceRecoveryCodesRequest {}).await?.into_inner();
    print_recovery_codes(ctl, &codes)
}

fn print_recovery_codes(ctl: &mut Ctl<'_>, codes: &RecoveryCodes) -> Result<(), Error> {
    ctl.note("Recovery codes, each valid once. They are shown only now: keep them apart from the authenticator app.");
    let text = || codes.codes.iter().map(|code| format!("{code}\n")).collect();
    Ok(ctl.printer.print(|| json!(codes), text)?)
}

pub(super) async fn passkey(
    ctl: &mut Ctl<'_>,
    mut me: MeClient<Connection>,
    command: Passkey,
) -> Result<(), Error> {
    match command {
        Passkey::List => {
            let found = me.list_passkeys(ListPasskeysRequest {}).await?.into_inner().passkeys;
            let columns = [
                Column::exact("ID"),
                Column::text("LABEL"),
                Column::exact("CREATED").rank(1),
                Column::exact("LAST USED").rank(2),
            ];
            let cells = |key: &Message| {
                [key.id.clone(), key.label.clone(), when(key.created_at), when_or_dash(key.last_used_at)]
            };
            Ok(ctl.printer.rows(&found, columns, cells)?)
        }
        Passkey::Update { id, label } => {
            let request = RenamePasskeyRequest { id, label };
            let passkey = me.rename_passkey(request).await?.into_inner();
            let lines = [("id", passkey.id.clone()), ("label", passkey.label.clone())];
            Ok(ctl.printer.record(&passkey, &lines)?)
        }
        Passkey::Remove { id } => {
            ctl.confirm(&format!("Remove passkey {id}?"))?;
            let changed = me.remove_passkey(RemovePasskeyRequest { id }).await?.into_inner();
            print_changed(ctl, &changed, "Passkey removed", "The passkey was already removed")
        }
    }
}
