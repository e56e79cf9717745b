//! What people do for themselves.

use mc_api::mcias::{
    Account, BeginTotpRequest, ChangePasswordRequest, ConfirmTotpRequest, EndOtherSessionsRequest,
    EndSessionRequest, GetMeRequest, ListPasskeysRequest, ListSessionsRequest, RecoveryCodes,
    RedeemLinkRequest, RemovePasskeyRequest, RemoveTotpRequest, RenamePasskeyRequest,
    ReplaceRecoveryCodesRequest, Session as Message,
};
use mcdsl::terminal::{clean, prompt_new_secret, prompt_secret, read_secret_stdin};

use super::{Session, list_or, when, when_or_dash};
use crate::cli::{Passkey, Session as Command, Totp};
use crate::error::Error;

pub(super) async fn whoami(session: &mut Session<'_>) -> Result<(), Error> {
    let account = session.client.me.get_me(GetMeRequest {}).await?.into_inner();
    show(session, &account)
}

/// An account, a line for each thing there is to say.
pub(super) fn show(session: &mut Session<'_>, account: &Account) -> Result<(), Error> {
    let yes_no = |yes| if yes { "yes" } else { "no" }.to_owned();
    let mut lines = vec![
        ("name", account.name.clone()),
        ("type", account.account_type.clone()),
        ("enabled", yes_no(account.enabled)),
        ("tags", list_or(&account.tags, "-")),
        ("made", when(account.created_at)),
    ];
    if let Some(service) = &account.service {
        lines.push(("service", service.clone()));
    } else {
        lines.push(("roles", list_or(&account.roles, "-")));
        lines.push(("password", yes_no(account.has_password)));
        lines.push(("second factor", yes_no(account.has_totp)));
        lines.push(("recovery codes", account.recovery_codes.to_string()));
        lines.push(("passkeys", account.passkeys.to_string()));
        lines.push(("last login", when_or_dash(account.last_login_at)));
    }
    Ok(session.printer.record(account, &lines)?)
}

pub(super) async fn redeem(session: &mut Session<'_>, stdin: bool) -> Result<(), Error> {
    let read = || {
        if stdin {
            return Ok((read_secret_stdin()?, read_secret_stdin()?));
        }
        Ok((prompt_secret("The link: ")?, prompt_new_secret("New password: ", "Once more: ")?))
    };
    let (link, password) = read().map_err(Error::Terminal)?;
    // The whole link, or its last part.
    let secret = link.expose().trim().rsplit('/').next().unwrap_or_default().to_owned();
    let request = RedeemLinkRequest { secret, password: password.expose().to_owned() };
    let account = session.client.identity.redeem_link(request).await?.into_inner().account;
    let text = || format!("{account} has a new password: log in with it\n");
    Ok(session.printer.print(|| serde_json::json!({ "account": account }), text)?)
}

pub(super) async fn change_password(session: &mut Session<'_>, stdin: bool) -> Result<(), Error> {
    let has_password = session.client.me.get_me(GetMeRequest {}).await?.into_inner().has_password;
    let now = || if stdin { read_secret_stdin() } else { prompt_secret("Password now: ") };
    let current = has_password.then(now).transpose().map_err(Error::Terminal)?;
    let new = if stdin { read_secret_stdin() } else { prompt_new_secret("New password: ", "Once more: ") };
    let password = new.map_err(Error::Terminal)?;
    let request = ChangePasswordRequest {
        current: current.map(|current| current.expose().to_owned()),
        password: password.expose().to_owned(),
    };
    let changed = session.client.me.change_password(request).await?.into_inner();
    let ended = changed.changed;
    let text = || format!("changed; {ended} other sessions were ended\n");
    Ok(session.printer.print(|| serde_json::json!({ "sessions_ended": ended }), text)?)
}

pub(super) async fn totp(session: &mut Session<'_>, command: &Totp) -> Result<(), Error> {
    match command {
        Totp::Enrol => {
            let begun = session.client.me.begin_totp(BeginTotpRequest {}).await?.into_inner();
            // To the terminal itself: standard output has the recovery codes, and both may be files.
            let [secret, uri] = [&begun.secret, &begun.uri].map(|text| clean(text));
            let text = format!("Give this to your authenticator:\n  {secret}\n  {uri}\nCode that it shows: ");
            let code = prompt_secret(&text).map_err(Error::Terminal)?;
            let request = ConfirmTotpRequest { code: code.expose().to_owned() };
            let codes = session.client.me.confirm_totp(request).await?.into_inner();
            recovery(session, &codes)
        }
        Totp::Remove => {
            session.sure("Turn the second factor off, and void its recovery codes?")?;
            let changed = session.client.me.remove_totp(RemoveTotpRequest {}).await?.into_inner();
            session.changed(&changed, "the second factor is off")
        }
    }
}

pub(super) async fn recovery_codes(session: &mut Session<'_>) -> Result<(), Error> {
    session.sure("Make new recovery codes, and void the old ones?")?;
    let codes = session.client.me.replace_recovery_codes(ReplaceRecoveryCodesRequest {}).await?.into_inner();
    recovery(session, &codes)
}

fn recovery(session: &mut Session<'_>, codes: &RecoveryCodes) -> Result<(), Error> {
    eprintln!(
        "Recovery codes, each good once. They are not shown again: keep them where your second factor is not."
    );
    let text = || codes.codes.iter().map(|code| format!("{code}\n")).collect();
    Ok(session.printer.print(|| serde_json::json!(codes), text)?)
}

pub(super) async fn passkey(session: &mut Session<'_>, command: Passkey) -> Result<(), Error> {
    match command {
        Passkey::List => {
            let found = session.client.me.list_passkeys(ListPasskeysRequest {}).await?.into_inner().passkeys;
            let row = |key: &mc_api::mcias::Passkey| {
                [key.id.clone(), key.label.clone(), when(key.created_at), when_or_dash(key.last_used_at)]
            };
            Ok(session.printer.rows(&found, ["ID", "LABEL", "MADE", "LAST USED"], row)?)
        }
        Passkey::Rename { id, label } => {
            let request = RenamePasskeyRequest { id, label };
            let renamed = session.client.me.rename_passkey(request).await?.into_inner();
            let lines = [("id", renamed.id.clone()), ("label", renamed.label.clone())];
            Ok(session.printer.record(&renamed, &lines)?)
        }
        Passkey::Remove { id } => {
            session.sure("Remove this passkey?")?;
            let changed = session.client.me.remove_passkey(RemovePasskeyRequest { id }).await?.into_inner();
            session.changed(&changed, "the passkey is removed")
        }
    }
}

pub(super) async fn session(session: &mut Session<'_>, command: Command) -> Result<(), Error> {
    match command {
        Command::List => {
            let found = session.client.me.list_sessions(ListSessionsRequest {}).await?.into_inner();
            sessions(session, &found.sessions)
        }
        Command::End { id } => {
            let changed = session.client.me.end_session(EndSessionRequest { id }).await?.into_inner();
            session.changed(&changed, "the session is ended")
        }
        Command::EndOthers => {
            let changed =
                session.client.me.end_other_sessions(EndOtherSessionsRequest {}).await?.into_inner();
            session.changed(&changed, "the others are ended")
        }
    }
}

/// Live sessions.
pub(super) fn sessions(session: &mut Session<'_>, found: &[Message]) -> Result<(), Error> {
    let row = |found: &Message| {
        [
            format!("{}{}", found.id, if found.current { " *" } else { "" }),
            found.service.clone(),
            found.method.clone(),
            found.source.clone(),
            when(found.created_at),
            when_or_dash(found.last_used_at),
            when(found.expires_at),
        ]
    };
    let head = ["ID", "THROUGH", "BY", "FROM", "SINCE", "LAST USED", "UNTIL"];
    Ok(session.printer.rows(found, head, row)?)
}
