//! Logging in: by password and second factor, and what every way of logging in has in common.

use std::net::IpAddr;
use std::time::Duration;

use mc_api::mcias::{LoginRequest, LoginResponse};
use mcdsl::audit::{Event, Fault};
use mcdsl::permit::Permit;
use mcdsl::problem::{Kind, Problem};
use mcdsl::secret::Secret;
use uuid::Uuid;

use super::password::BUSY;
use super::validate::calling_service;
use super::{Mcias, locked, messages};
use crate::domain::password::Verified;
use crate::domain::queue::Share;
use crate::domain::throttle::{Origin, Source};
use crate::domain::token::Claims;
use crate::domain::totp::{self, TotpRefused, TotpSecret};
use crate::domain::{Account, AccountType, Name, ServiceContext, device, recovery};
use crate::store;
use crate::store::accounts::{Phc, Stored};
use crate::store::tokens::{Kind as TokenKind, StoredToken};

/// What is logged in to: the service, and the services that the token is for.
pub(super) struct LoginTarget {
    pub(super) service: ServiceContext,
    pub(super) audience: Vec<Name>,
}

/// An account whose owner has proved to be who they say.
pub(super) struct Authenticated {
    pub(super) account: Stored,
    pub(super) target: LoginTarget,
    pub(super) method: AuthMethod,
}

/// How somebody logged in, and what is used up by that.
pub(super) enum AuthMethod {
    Password { phc: Phc, factor: SecondFactor, rehashed: Option<Phc> },
    Passkey { id: String, credential: String },
}

pub(super) enum SecondFactor {
    None,
    Totp(u64),
    RecoveryCode([u8; 32]),
}

impl AuthMethod {
    const fn as_str(&self) -> &'static str {
        match self {
            Self::Password { factor: SecondFactor::None, .. } => "password",
            Self::Password { factor: SecondFactor::Totp(_), .. } => "password+totp",
            Self::Password { factor: SecondFactor::RecoveryCode(_), .. } => "password+recovery",
            Self::Passkey { .. } => "passkey",
        }
    }
}

/// What somebody sends to log in by password.
struct Credentials {
    password: Secret,
    totp: Option<Secret>,
    recovery_code: Option<Secret>,
}

/// How long an address from which somebody logged in stays familiar, in seconds.
pub(super) const FAMILIAR_S: i64 = 90 * 24 * 3600;

impl Mcias {
    /// Logs a person in by password.
    ///
    /// # Errors
    /// The same for an unknown account and a wrong password, after the same time; others where the password was right.
    pub(crate) async fn login(
        &self,
        permit: Permit,
        request: LoginRequest,
    ) -> Result<LoginResponse, Problem> {
        let LoginRequest {
            username,
            password,
            totp,
            recovery_code,
            audience,
            client_address,
            client_user_agent,
        } = request;
        let credentials = Credentials {
            password: Secret::from(password),
            totp: totp.map(Secret::from),
            recovery_code: recovery_code.map(Secret::from),
        };
        let name = typed_name(&username)?;
        let target = self.login_target(&permit, &audience)?;
        // What a service states is counted apart, and so is a service that states nothing.
        let stated_by = is_service(&permit).then(|| target.service.name.clone());
        let permit = on_behalf(permit, client_address.as_deref(), client_user_agent)?;
        let ip = permit.context().client.ip();
        let origin = Origin { source: Source::from(ip), stated_by };
        let (stored, familiar) = self.with_familiarity(&name, self.familiar_source(ip, &target)).await?;
        let event = login_event(permit, stored.as_ref(), &target);
        let attempt = match self.attempt(name, origin, familiar) {
            Ok(attempt) => attempt,
            Err(problem) => {
                self.log_failure(&event, &problem);
                return Err(self.held(familiar, problem).await);
            }
        };
        let share = Share { source: Source::from(ip), familiar };
        let logged_in = match self.authenticated(&event, share, stored, target, credentials).await {
            Ok(authenticated) => self.log_in(event, authenticated).await,
            Err(problem) => Err(problem),
        };
        match &logged_in {
            Ok(_) => attempt.succeeded(),
            Err(problem) if problem.reason == WRONG_LOGIN => attempt.failed(),
            Err(problem) if problem.reason == BUSY => {
                attempt.turned_away();
                self.counters.turned_away();
                return Err(self.held(familiar, problem.clone()).await);
            }
            // The password was right. Codes have a delay of their own, which recovery codes have not.
            Err(_) => attempt.released(),
        }
        logged_in
    }

    /// An attempt to show a password, unless it comes too early.
    pub(super) fn attempt(&self, name: Name, origin: Origin, familiar: bool) -> Result<Attempt<'_>, Problem> {
        let admitted = self.throttle().check(&name, &origin, familiar, self.clock.elapsed());
        admitted.map_err(|after| {
            // Counted, and not in the audit log, which would grow as fast as anybody likes: the failures before are there.
            self.counters.throttled();
            too_many_attempts(after)
        })?;
        Ok(Attempt { app: self, name, origin, familiar, open: true })
    }

    /// Holds the answer to a refused attempt for a moment, so that who tries over and over has to wait each time.
    async fn held(&self, familiar: bool, problem: Problem) -> Problem {
        if !familiar && let Ok(_place) = self.held_answers.try_acquire() {
            tokio::time::sleep(HELD).await;
        }
        problem
    }

    /// Judges password and second factor.
    async fn authenticated(
        &self,
        event: &Event,
        share: Share,
        stored: Option<Stored>,
        target: LoginTarget,
        credentials: Credentials,
    ) -> Result<Authenticated, Problem> {
        let Credentials { password, totp, recovery_code } = credentials;
        let phc = stored.as_ref().and_then(|stored| stored.password.clone());
        let verified = self.hashing.verify(share, password.clone(), phc.clone()).await?;
        // Whether there is such an account, whether it is a person's and whether it is enabled: none of it is revealed.
        let enabled = stored.filter(|stored| stored.enabled);
        let (Some(account), Some(phc), Verified::Right { rehash }) = (enabled, phc, verified) else {
            return Err(self.login_failed(event, wrong_login()).await);
        };
        let factor = match self.second_factor(&account, totp, recovery_code).await? {
            Ok(factor) => factor,
            // Not a failure; but it is recorded that somebody knows the password.
            Err(problem) if problem.reason == CODE_REQUIRED => {
                return Err(self.db.refuse(event.clone(), problem).await);
            }
            Err(problem) => return Err(self.login_failed(event, problem).await),
        };
        // The next login will do, where too many wait.
        let share = Share { familiar: true, ..share };
        let rehashed = if rehash { self.hashing.hash(share, password).await.ok() } else { None };
        Ok(Authenticated { account, target, method: AuthMethod::Password { phc, factor, rehashed } })
    }

    /// Records that a login failed.
    pub(super) async fn login_failed(&self, event: &Event, problem: Problem) -> Problem {
        self.counters.login_failed();
        self.log_failure(event, &problem);
        self.db.refuse(event.clone(), problem).await
    }

    /// A line in the log, for programs that act on failed logins: its form stays. The account is named only where it exists.
    pub(super) fn log_failure(&self, event: &Event, problem: &Problem) {
        let client = event.context().client.ip().to_canonical();
        self.log_left_out();
        if !locked(&self.failure_log).admits(Source::from(client), self.clock.elapsed()) {
            return;
        }
        let account = if event.target.is_empty() { "-" } else { &event.target };
        let reason = problem.reason;
        let caller = event.context().identity().map(|caller| &caller.account);
        match caller.filter(|caller| caller.account_type() == AccountType::System).map(Account::name) {
            // The address is what the service states: nobody is to be shut out by its word.
            Some(service) => tracing::info!(
                "login failed through a service: service={service} client={client} reason={reason} account={account}"
            ),
            None => tracing::info!("login failed: client={client} reason={reason} account={account}"),
        }
    }

    /// A line that says how many failed logins have none.
    pub(super) fn log_left_out(&self) {
        if let Some(count) = locked(&self.failure_log).take_left_out(self.clock.elapsed()) {
            tracing::info!(count, "more logins failed than are logged one by one");
        }
    }

    /// The account, and whether somebody has logged in to it from there.
    async fn with_familiarity(&self, name: &Name, source: String) -> Result<(Option<Stored>, bool), Problem> {
        let (name, since) = (name.clone(), self.now() - FAMILIAR_S);
        self.read(move |db| {
            let stored = store::accounts::by_name(db, name.as_str())?;
            let id = stored.as_ref().map(|stored| stored.id);
            let familiar = id.map(|id| store::accounts::is_familiar(db, id, &source, since)).transpose()?;
            Ok((stored, familiar.unwrap_or(false)))
        })
        .await
    }

    /// What a login makes familiar: its address; and through a service, which can state any, the address at that service alone. Otherwise a service
    /// could find out from where somebody logs in elsewhere.
    fn familiar_source(&self, ip: IpAddr, target: &LoginTarget) -> String {
        let source = Source::from(ip);
        let service = &target.service.name;
        if *service == self.service.name { source.to_string() } else { format!("{source} {service}") }
    }

    /// What is logged in to: the service that calls, or MCIAS itself.
    pub(super) fn login_target(&self, permit: &Permit, audience: &[String]) -> Result<LoginTarget, Problem> {
        if !is_service(permit) {
            let audience = self.audience(audience)?;
            return Ok(LoginTarget { service: self.service.clone(), audience });
        }
        let service = calling_service(permit)?.clone();
        if let Some(index) = audience.iter().position(|other| other != service.name.as_str()) {
            let detail = format!("{} can log people in to itself only: leave it out", service.name);
            return Err(Problem::field(format!("audience[{index}]"), detail));
        }
        let audience = vec![service.name.clone()];
        Ok(LoginTarget { service, audience })
    }

    /// The services that a token is for: where none is named, MCIAS itself. Without this limit, a service could use the token at all others.
    pub(super) fn audience(&self, words: &[String]) -> Result<Vec<Name>, Problem> {
        let named: Vec<Name> = messages::names("audience", words)?;
        Ok(if named.is_empty() { vec![self.service.name.clone()] } else { named })
    }

    /// The second factor, where the account has one.
    async fn second_factor(
        &self,
        account: &Stored,
        totp: Option<Secret>,
        recovery_code: Option<Secret>,
    ) -> Result<Result<SecondFactor, Problem>, Problem> {
        let id = account.id;
        let Some((secret, last)) = self.read(move |db| store::factors::totp(db, id)).await? else {
            return Ok(Ok(SecondFactor::None));
        };
        if let Some(code) = recovery_code {
            // Whether there is such a code is found out when it is used up.
            let code = recovery::normalise(code.expose());
            let code = code.map(|code| SecondFactor::RecoveryCode(recovery::digest(&code)));
            return Ok(code.ok_or_else(wrong_recovery_code));
        }
        let Some(code) = totp else {
            let detail = "The password is right, and the account has a second factor: send `totp` or `recovery_code` too.";
            return Ok(Err(Problem::new(Kind::Unauthenticated, CODE_REQUIRED, detail)));
        };
        let Some(secret) = TotpSecret::try_from_slice(&secret) else {
            let detail = "The stored TOTP secret cannot be read.";
            return Err(Problem::new(Kind::Internal, "internal", detail));
        };
        let checked = totp::check(&secret, code.expose(), self.now(), last);
        if checked == Err(TotpRefused::Malformed) {
            return Ok(Err(wrong_code()));
        }
        let name = account.account.name();
        let admitted = self.throttle().code(name, checked.is_ok(), self.clock.elapsed());
        // Who gets here has the password: each of these is in the audit log.
        if let Err(after) = admitted {
            return Ok(Err(too_many_attempts(after)));
        }
        Ok(match checked {
            Ok(step) => Ok(SecondFactor::Totp(step)),
            Err(TotpRefused::Replayed) => Err(used_code()),
            Err(TotpRefused::Malformed | TotpRefused::Wrong) => Err(wrong_code()),
        })
    }

    /// Logs somebody in who is authenticated, if the policy allows it: writes the session, and returns its token.
    pub(super) async fn log_in(
        &self,
        event: Event,
        authenticated: Authenticated,
    ) -> Result<LoginResponse, Problem> {
        let Authenticated { account, target, method } = authenticated;
        let name = account.account.name().clone();
        let service = target.service.name.to_string();
        let mut allowed = self.allowed(&account.account, &target.service);
        if allowed.is_ok() {
            // A token that would be refused wherever it is sent is not issued.
            allowed = self.allowed_at(&account.account, &target.audience).await?;
        }
        if let Err(problem) = allowed {
            return Err(self.db.refuse(event, problem).await);
        }
        let now = self.now();
        let expires_at = now + self.config.tokens.session_s;
        let ip = event.context().client.ip();
        let mut token = StoredToken {
            id: Uuid::new_v4().to_string(),
            account: account.id,
            kind: TokenKind::Session,
            audience: target.audience.iter().map(ToString::to_string).collect(),
            label: service.clone(),
            origin: method.as_str().to_owned(),
            source: ip.to_string(),
            created_at: now,
            expires_at,
            revoked_at: None,
            last_used_at: None,
            device: event.context().user_agent.as_deref().map(device::named).unwrap_or_default(),
            key_id: None,
        };
        let signed = self.sign(&account, &mut token, &service);
        let session_id = token.id.clone();
        let source = self.familiar_source(ip, &target);
        let detail = match token.audience.as_slice() {
            [] => method.as_str().to_owned(),
            services => format!("{}, for {}", method.as_str(), services.join(",")),
        };
        // A login makes no other token invalid: nothing is looked up again.
        let event = event.with_detail(detail);
        let failed = event.clone();
        let logged_in = self.db.change(event, move |db, _event| {
            let recovery_codes_left = method.use_up(db, account.id, now)?;
            add_signed(db, &token)?;
            store::accounts::logged_in(db, account.id, &source, now)?;
            Ok(recovery_codes_left)
        });
        let recovery_codes_left = logged_in.await.inspect_err(|problem| {
            if problem.kind == Kind::Unauthenticated {
                self.counters.login_failed();
                self.log_failure(&failed, problem);
            }
        })?;
        self.counters.logged_in();
        Ok(LoginResponse {
            token: signed.expose().to_owned(),
            expires_at,
            account: name.to_string(),
            roles: messages::roles_of(account.account.roles()),
            session_id,
            recovery_codes_left,
        })
    }

    /// A token, signed; the key is noted with it.
    pub(super) fn sign(&self, account: &Stored, token: &mut StoredToken, client: &str) -> Secret {
        let issuer = self.config.site.public_url.clone();
        let keys = self.keys.load();
        let claims = Claims {
            aud: token.audience.clone(),
            iss: issuer,
            sub: account.uuid.to_string(),
            preferred_username: Some(account.account.name().to_string()),
            client_id: client.to_owned(),
            iat: token.created_at,
            nbf: token.created_at,
            exp: token.expires_at,
            jti: token.id.clone(),
        };
        // The signer of the time of issue, which `sign` uses as well.
        token.key_id = Some(keys.signer(claims.iat).kid.clone());
        keys.sign(&claims)
    }
}

/// The audit entry of a login. What was typed as the name of an account that does not exist may be a password: it is not in it.
pub(super) fn login_event(permit: Permit, account: Option<&Stored>, target: &LoginTarget) -> Event {
    let event = Event::from(permit).through(target.service.name.as_str());
    match account {
        Some(account) => of_account(event, account),
        None => event.with_target("").with_actor("-"),
    }
}

/// The event, of somebody who logs in to this account.
pub(super) fn of_account(event: Event, account: &Stored) -> Event {
    let name = account.account.name().as_str();
    event.with_target(name).with_actor(name)
}

/// Stores a token that is signed.
pub(super) fn add_signed(db: &rusqlite::Connection, token: &StoredToken) -> Result<(), Fault> {
    let key = token.key_id.as_deref().unwrap_or_default();
    if !store::keys::extend(db, key, token.expires_at)? {
        let detail = "The signing key was withdrawn meanwhile: try again.";
        return Err(Problem::new(Kind::Unavailable, "key-withdrawn", detail).into());
    }
    Ok(store::tokens::add(db, token)?)
}

/// An attempt that was admitted. Dropped without an outcome, it failed: who gives up before the response has made it all the same.
pub(super) struct Attempt<'a> {
    app: &'a Mcias,
    name: Name,
    origin: Origin,
    familiar: bool,
    open: bool,
}

impl Attempt<'_> {
    pub(super) fn succeeded(mut self) {
        self.open = false;
        self.app.throttle().succeeded(&self.name, &self.origin);
    }

    pub(super) fn failed(self) {
        drop(self);
    }

    /// It was neither right nor wrong.
    pub(super) fn released(mut self) {
        self.open = false;
        self.app.throttle().released(&self.name, &self.origin);
    }

    /// Nobody looked at it, because too many wait.
    pub(super) fn turned_away(mut self) {
        self.open = false;
        self.app.throttle().turned_away(&self.name, &self.origin, self.app.clock.elapsed());
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if self.open {
            self.app.throttle().failed(&self.name, &self.origin, self.familiar, self.app.clock.elapsed());
        }
    }
}

impl AuthMethod {
    /// Uses up what can be used once, if it is still what it was. The number of recovery codes that are left, where one was used.
    fn use_up(self, db: &rusqlite::Connection, account: i64, now: i64) -> Result<Option<u32>, Fault> {
        // While the password was hashed, the account may have changed.
        let current = store::accounts::by_id(db, account)?.filter(|current| current.enabled);
        let current = current.ok_or_else(wrong_login)?;
        match self {
            Self::Password { phc, factor, rehashed } => {
                if current.password.as_ref() != Some(&phc)
                    || current.has_totp == matches!(factor, SecondFactor::None)
                {
                    return Err(wrong_login().into());
                }
                if let Some(phc) = rehashed {
                    store::factors::rehash(db, account, &phc)?;
                }
                match factor {
                    SecondFactor::None => Ok(None),
                    SecondFactor::Totp(step) => {
                        let taken = store::factors::take_totp(db, account, step)?;
                        taken.then_some(None).ok_or_else(|| used_code().into())
                    }
                    SecondFactor::RecoveryCode(digest) => {
                        if !store::factors::take_recovery_code(db, account, &digest)? {
                            return Err(wrong_recovery_code().into());
                        }
                        Ok(Some(store::accounts::counts(db, account)?.recovery_codes))
                    }
                }
            }
            Self::Passkey { id, credential } => {
                if store::factors::passkey_of(db, account, &id)?.is_none() {
                    return Err(wrong_login().into());
                }
                store::factors::passkey_used(db, &id, &credential, now)?;
                Ok(None)
            }
        }
    }
}

/// The reason by which a program knows that it must ask for a code.
const CODE_REQUIRED: &str = "second-factor-required";

/// The reason of a problem with what was shown: whether it was the name or the password is not revealed.
const WRONG_LOGIN: &str = "wrong-login";

/// How long the answer to a refused attempt is held.
const HELD: Duration = Duration::from_millis(500);

/// How many answers are held at the same time: each takes a few KiB.
pub(super) const MAX_HELD: usize = 1000;

/// The name of an account as somebody typed it. It may be a password in the wrong field: the problem does not repeat it.
fn typed_name(text: &str) -> Result<Name, Problem> {
    Name::parse(text).map_err(|_repeats_it| {
        let detail = "is not an account's name; expected 1 to 63 lowercase letters, digits and `-`, `_`, `.` or `@` between them";
        Problem::field("username", detail)
    })
}

/// Whether a system account calls.
fn is_service(permit: &Permit) -> bool {
    permit.identity().is_some_and(|identity| identity.account.account_type() == AccountType::System)
}

/// A login on behalf of a client whose address the calling service states.
pub(super) fn on_behalf(
    permit: Permit,
    client_address: Option<&str>,
    client_user_agent: Option<String>,
) -> Result<Permit, Problem> {
    let Some(address) = client_address else {
        return match client_user_agent {
            None => Ok(permit),
            Some(_) => {
                Err(Problem::field("client_user_agent", "is for a client whose `client_address` is stated"))
            }
        };
    };
    let wrong = |_| Problem::field("client_address", "is not an IP address");
    permit.on_behalf_of(address.parse().map_err(wrong)?, client_user_agent)
}

pub(super) fn wrong_login() -> Problem {
    let detail = "Login failed: wrong username, password or passkey.";
    Problem::new(Kind::Unauthenticated, WRONG_LOGIN, detail)
}

fn wrong_code() -> Problem {
    Problem::new(Kind::Unauthenticated, "wrong-code", "The code is wrong: use the one that is shown now.")
}

fn wrong_recovery_code() -> Problem {
    Problem::new(Kind::Unauthenticated, "wrong-code", "The recovery code is wrong, or was used before.")
}

fn used_code() -> Problem {
    Problem::new(Kind::Unauthenticated, "used-code", "This code was used before: wait for the next one.")
}

pub(super) fn too_many_attempts(after: Duration) -> Problem {
    let detail = format!("Too many attempts failed: try again in {} s.", after.as_secs().max(1));
    Problem { retry_after: Some(after), ..Problem::new(Kind::TooMany, "too-many-attempts", detail) }
}
