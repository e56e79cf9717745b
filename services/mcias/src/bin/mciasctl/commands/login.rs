//! Logging in and out.

use mc_api::mcias::{LoginRequest, LogoutRequest};
use mcdsl::Secret;
use mcdsl::terminal::{prompt_secret, read_secret_stdin};
use serde_json::json;

use super::{Session, when};
use crate::error::Error;
use crate::token_file;

pub(super) async fn login(
    session: &mut Session<'_>,
    name: String,
    password_stdin: bool,
    recovery: bool,
    audience: Vec<String>,
) -> Result<(), Error> {
    let password =
        if password_stdin { read_secret_stdin() } else { prompt_secret(&format!("Password of {name}: ")) };
    let password = password.map_err(Error::Terminal)?;
    let request = |totp: Option<&Secret>, recovery_code: Option<&Secret>| LoginRequest {
        username: name.clone(),
        password: password.expose().to_owned(),
        totp: totp.map(|code| code.expose().to_owned()),
        recovery_code: recovery_code.map(|code| code.expose().to_owned()),
        audience: audience.clone(),
        client_address: None,
    };
    let first = session.client.identity.login(request(None, None)).await.map_err(Error::from);
    let reply = match first {
        Err(error) if error.has_reason("second-factor-required") => {
            let what = if recovery { "Recovery code: " } else { "Code of your second factor: " };
            let code = if password_stdin { read_secret_stdin() } else { prompt_secret(what) };
            let code = code.map_err(Error::Terminal)?;
            let code = Some(&code);
            let second = if recovery { request(None, code) } else { request(code, None) };
            session.client.identity.login(second).await?
        }
        other => other?,
    };
    let reply = reply.into_inner();
    token_file::write(&session.token_file, &Secret::from(reply.token), false)?;
    let json = || json!({ "account": reply.account, "roles": reply.roles, "expires_at": reply.expires_at });
    let left =
        reply.recovery_codes_left.map_or(String::new(), |left| format!("; {left} recovery codes are left"));
    let text = || format!("logged in as {} until {} UTC{left}\n", reply.account, when(reply.expires_at));
    Ok(session.printer.print(json, text)?)
}

pub(super) async fn logout(session: &mut Session<'_>) -> Result<(), Error> {
    let ended = session.client.me.logout(LogoutRequest {}).await;
    // Whatever MCIAS says, the token is no more.
    token_file::remove(&session.token_file)?;
    let ended = ended?.into_inner();
    session.changed(&ended, "logged out")
}
