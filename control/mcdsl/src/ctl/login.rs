//! Login and logout. Tokens of all services come from MCIAS.

use mc_api::mcias::identity_client::IdentityClient;
use mc_api::mcias::me_client::MeClient;
use mc_api::mcias::{LoginRequest, LogoutRequest};
use mc_api::token::Token;
use serde_json::json;

use super::args::LoginArgs;
use super::handle::{Ctl, second_factor, secret};
use super::settings::IDENTITY;
use super::{Error, Exit, Program, token_file, when};
use crate::Secret;

fn identity_server<'a>(ctl: &'a Ctl<'_>) -> Result<&'a str, Error> {
    ctl.settings.identity_server.as_deref().ok_or_else(|| {
        let detail = "The address of MCIAS is unknown: set MCIAS_SERVER, or add it to the context with `mciasctl context add`";
        Error::new(Exit::Usage, detail)
    })
}

/// The services that a token is for where none is named: MCIAS, so that the token is of use to `mciasctl` in the same context, and the one
/// that the program operates.
fn default_audience(program: &Program) -> Vec<String> {
    let mut services = vec![IDENTITY.to_owned(), program.service.to_owned()];
    services.dedup();
    services
}

pub(super) async fn login(ctl: &mut Ctl<'_>, program: &Program, args: LoginArgs) -> Result<(), Error> {
    // Without the stored token: one that has expired would be refused.
    let connection = ctl.connect_with(identity_server(ctl)?, Token::default()).await?;
    let mut identity = IdentityClient::new(connection);
    let audience = if args.audience.is_empty() { default_audience(program) } else { args.audience };
    let password = secret(&format!("Password of {}: ", args.username), args.password_stdin)?;
    let request = |totp: Option<&Secret>, recovery_code: Option<&Secret>| LoginRequest {
        username: args.username.clone(),
        password: password.expose().to_owned(),
        totp: totp.map(|code| code.expose().to_owned()),
        recovery_code: recovery_code.map(|code| code.expose().to_owned()),
        audience: audience.clone(),
        client_address: None,
        client_user_agent: None,
    };
    let response = match identity.login(request(None, None)).await.map_err(Error::from) {
        Err(error) if error.reason() == "second-factor-required" => {
            let question = if args.recovery { "Recovery code: " } else { "Code of your authenticator app: " };
            let code = second_factor(question, args.password_stdin)?;
            let second = if args.recovery { request(None, Some(&code)) } else { request(Some(&code), None) };
            identity.login(second).await?
        }
        other => other?,
    };
    let response = response.into_inner();
    token_file::write(&ctl.settings.token_file, &Secret::from(response.token))?;
    let json =
        || json!({ "account": response.account, "roles": response.roles, "expires_at": response.expires_at });
    let left =
        response.recovery_codes_left.map_or(String::new(), |left| format!("; {left} recovery codes left"));
    let text =
        || format!("Logged in as {} until {} UTC{left}\n", response.account, when(response.expires_at));
    Ok(ctl.printer.print(json, text)?)
}

pub(super) async fn logout(ctl: &mut Ctl<'_>) -> Result<(), Error> {
    let token = token_file::read(&ctl.settings.token_file)?;
    let ended = match token {
        Some(token) => {
            let connection = ctl.connect_with(identity_server(ctl)?, token).await?;
            MeClient::new(connection).logout(LogoutRequest {}).await.map(|_| 1).map_err(Error::from)
        }
        None => Ok(0),
    };
    // Even if MCIAS refuses: the token has ended then.
    token_file::remove(&ctl.settings.token_file)?;
    let changed = ended?;
    let text = || if changed == 0 { "Nothing to do: not logged in\n" } else { "Logged out\n" }.to_owned();
    Ok(ctl.printer.print(|| json!({ "changed": changed }), text)?)
}
